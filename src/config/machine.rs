//! What this machine offers where nobody said otherwise.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::env::Env;

/// Facts about the machine that defaults depend on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// The host's name.
    pub hostname: String,
    /// Bytes of memory that the kernel grants this process, if it is bounded.
    pub memory_limit: Option<u64>,
    /// Those of [`MOUNTS`] that exist: how a pod sees its host.
    pub mounts: Vec<&'static str>,
    /// The state directory to use because the default one can't be written.
    pub other_state_dir: Option<PathBuf>,
    /// The configuration file when no flag names one.
    pub config_file: Option<PathBuf>,
}

/// Where manifests mount the host's file systems.
pub const MOUNTS: [&str; 5] =
    ["/host/proc", "/host/sys", "/host/root", "/rootfs", "/host/root/run/udev/data"];

const STATE_DIR: &str = "/var/lib/nodewarden";
const CONFIG_FILE: &str = "/etc/nodewarden/config.yaml";

impl Machine {
    /// Looks at the machine this runs on.
    pub fn look(env: &Env) -> Self {
        Self {
            hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            memory_limit: memory_limit(Path::new("/sys/fs/cgroup"), &own_cgroups()),
            mounts: MOUNTS.into_iter().filter(|mount| Path::new(mount).is_dir()).collect(),
            other_state_dir: if is_writable(Path::new(STATE_DIR)) { None } else { user_state_dir(env) },
            // One that can't be looked at is tried all the same, so that it is not silently left out.
            config_file: Some(PathBuf::from(CONFIG_FILE)).filter(|file| file.try_exists().unwrap_or(true)),
        }
    }
}

/// Whether a directory can be written, or made in the nearest one that exists.
fn is_writable(path: &Path) -> bool {
    let existing = path.ancestors().find(|ancestor| ancestor.exists());
    existing.is_some_and(|at| rustix::fs::access(at, rustix::fs::Access::WRITE_OK).is_ok())
}

fn user_state_dir(env: &Env) -> Option<PathBuf> {
    let absolute = |name: &str| env.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
    base.map(|base| base.join("nodewarden"))
}

fn own_cgroups() -> String {
    // Without the file there are no cgroups, and then no limit.
    fs::read_to_string("/proc/self/cgroup").unwrap_or_default()
}

/// The least limit on the way from our cgroup to the top; `cgroups` is `/proc/self/cgroup`:
/// `0::/kubepods/pod1` (v2) or `4:memory:/kubepods/pod1` (v1).
fn memory_limit(root: &Path, cgroups: &str) -> Option<u64> {
    let mut limits = Vec::new();
    for line in cgroups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (base, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            some if some.split(',').any(|one| one == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // In a container the path is the host's and the files of our own cgroup lie at the root: missing ones are passed over.
        let ours = base.join(path.trim_start_matches('/'));
        let ways = ours.ancestors().take_while(|at| at.starts_with(&base));
        limits.extend(ways.filter_map(|at| read_limit(&at.join(file))));
    }
    limits.into_iter().min()
}

/// `536870912`; v2 says `max` and v1 a number near 2^63 when there is no limit.
fn read_limit(file: &Path) -> Option<u64> {
    const NO_LIMIT: u64 = 1 << 60;
    let text = fs::read_to_string(file).ok()?;
    text.trim().parse().ok().filter(|bytes| *bytes < NO_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_limit_on_the_way_counts() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let pod = root.path().join("kubepods/pod1");
        fs::create_dir_all(&pod).expect("made");
        fs::write(pod.join("memory.max"), "max\n").expect("written");
        fs::write(root.path().join("kubepods/memory.max"), "1000\n").expect("written");
        assert_eq!(memory_limit(root.path(), "0::/kubepods/pod1\n"), Some(1000));
        fs::write(pod.join("memory.max"), "500\n").expect("written");
        assert_eq!(memory_limit(root.path(), "0::/kubepods/pod1\n"), Some(500));
        assert_eq!(memory_limit(root.path(), "0::/\n"), None);
    }

    #[test]
    fn version_one_says_a_huge_number_for_no_limit() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let memory = root.path().join("memory");
        fs::create_dir_all(&memory).expect("made");
        fs::write(memory.join("memory.limit_in_bytes"), "9223372036854771712\n").expect("written");
        assert_eq!(memory_limit(root.path(), "9:memory:/docker/x\n8:cpu,cpuacct:/\n"), None);
        fs::write(memory.join("memory.limit_in_bytes"), "67108864\n").expect("written");
        assert_eq!(memory_limit(root.path(), "9:memory:/docker/x\n"), Some(64 << 20));
        assert_eq!(memory_limit(root.path(), "odd\n"), None);
    }

    #[test]
    fn the_user_s_state_directory() {
        let env = |name: &str, value: &str| Env::from([(name.to_owned(), value.to_owned())]);
        assert_eq!(user_state_dir(&env("XDG_STATE_HOME", "/s")), Some("/s/nodewarden".into()));
        assert_eq!(user_state_dir(&env("HOME", "/h")), Some("/h/.local/state/nodewarden".into()));
        assert_eq!(user_state_dir(&Env::new()), None);
    }
}
