//! A real node_exporter, to compare with.

use std::{
    env,
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use super::{free_port, repository, seconds, wait_until};

/// A running node_exporter; it ends with the value.
pub struct NodeExporter {
    /// `127.0.0.1:PORT`.
    pub address: String,
    server: Child,
}

impl NodeExporter {
    /// Starts the one that `$NODE_EXPORTER` names, or that `tests/servers/install.sh` built. Where there is neither, it says so
    /// and the comparison is left out.
    #[track_caller]
    pub fn start(flags: &[&str]) -> Option<Self> {
        let built = repository().join("target/tools/bin/node_exporter");
        let binary = env::var_os("NODE_EXPORTER").map_or(built, PathBuf::from);
        if !binary.is_file() {
            eprintln!("no node_exporter to compare with: run tests/servers/install.sh, or set NODE_EXPORTER");
            return None;
        }
        let address = format!("127.0.0.1:{}", free_port());
        let server = Command::new(binary)
            .arg(format!("--web.listen-address={address}"))
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("node_exporter starts");
        let peer = Self { address, server };
        wait_until("node_exporter listens", seconds(30), || {
            TcpStream::connect(&peer.address).map(drop).map_err(|error| error.to_string())
        });
        Some(peer)
    }
}

impl Drop for NodeExporter {
    fn drop(&mut self) {
        // It may have ended already: then there is nothing to kill, and that is fine.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
