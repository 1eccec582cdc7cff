//! What the end-to-end tests share: the agent as a process, real servers, files that grow as a node's do.

pub mod agent;
mod api_server;
pub mod bulk_server;
mod chance;
mod disk;
mod elastic;
#[path = "../../../collectors/tests/support/fixtures.rs"]
pub mod fixtures;
mod gpus;
pub mod http;
mod journal;
pub mod kubelet;
pub mod ledger;
mod log_files;
pub mod machine;
#[path = "../../../collectors/tests/support/peer.rs"]
pub mod peer;
mod pod_resources;
mod prometheus;
#[path = "../../../collectors/tests/support/rack7.rs"]
pub mod rack7;
pub mod tls;

use std::{
    env,
    net::TcpListener,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

pub use agent::{Agent, Launch, NO_LOGS, nodewarden, taken_port};
pub use api_server::ApiServer;
pub use bulk_server::{BulkServer, Fault, wait_for_documents};
pub use chance::Chance;
pub use disk::{Cgroup, Disk, FrozenDisk};
pub use elastic::{Elastic, PASSWORD, USER};
pub use gpus::Gpus;
pub use journal::JournalDir;
pub use kubelet::{Kubelet, Load, Written};
pub use ledger::{Ledger, assert_ledger, container_ledgers};
pub use log_files::{LogDir, LogFile, Stream, log_dir_config, pods_config, uid};
pub use peer::Peer;
pub use pod_resources::PodResources;
pub use prometheus::{Prometheus, promtool_check, promtool_test_rules};

/// Looks again and again until there is what was waited for: the one place where tests wait.
///
/// `look` says `Err` with what it saw instead; the last of those is in the message when `deadline` has passed.
#[track_caller]
pub fn wait_until<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) if start.elapsed() > deadline => {
                panic!("waited {deadline:?} in vain until {what}; last seen: {seen}")
            }
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// `Ok` when both are equal: the usual thing to wait for.
pub fn same<T: PartialEq + std::fmt::Debug>(seen: &T, expected: &T) -> Result<(), String> {
    if seen == expected { Ok(()) } else { Err(format!("{seen:?} instead of {expected:?}")) }
}

/// Seconds, for deadlines. They are generous: a loaded machine is slow, and a passing test does not wait for them.
pub const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// The repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A folder of this test that goes away with the value.
pub fn temp_dir() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory")
}

/// A port that was free a moment ago, for servers that can't pick one and say which.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// A program on PATH, or out of the Debian package that `tests/servers/install.sh` unpacked.
fn program(name: &str, unpacked: &str) -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let unpacked = repository().join("target/servers").join(unpacked).join("usr/bin");
    env::split_paths(&path)
        .chain([unpacked])
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| panic!("{name} is not here: run tests/servers/install.sh"))
}
