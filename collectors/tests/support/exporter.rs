//! A real node_exporter to compare with.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Stdio},
};

/// One that runs until it is dropped.
pub struct Exporter {
    child: Child,
    address: String,
    /// Closed, it would end the program with its next line of log.
    _log: BufReader<ChildStderr>,
}

impl Exporter {
    /// The binary in `$NODE_EXPORTER`, else the one that `tests/servers/install.sh` builds; says so where there is none.
    pub fn binary() -> Option<PathBuf> {
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/bin/node_exporter");
        let named = std::env::var_os("NODE_EXPORTER").map(PathBuf::from);
        let found = named.into_iter().chain([built]).find(|path| path.is_file());
        if found.is_none() {
            eprintln!("SKIPPED: no node_exporter in $NODE_EXPORTER or target/tools/bin");
        }
        found
    }

    /// Starts it with these arguments, on a port that is free.
    #[allow(clippy::disallowed_methods, reason = "the program to compare with is another program")]
    pub fn start(binary: &Path, arguments: &[&str]) -> Self {
        let mut command = std::process::Command::new(binary);
        command.arg("--web.listen-address=127.0.0.1:0").args(arguments);
        let mut child = command.stderr(Stdio::piped()).spawn().expect("node_exporter starts");
        let mut log = BufReader::new(child.stderr.take().expect("it was piped"));
        let address = loop {
            let mut line = String::new();
            assert!(log.read_line(&mut line).expect("read") > 0, "it says where it listens");
            if let Some((_, address)) = line.split_once("msg=\"Listening on\" address=") {
                break address.trim().to_owned();
            }
        };
        Self { child, address, _log: log }
    }

    /// Its page.
    pub fn page(&self) -> String {
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("UTF-8");
        answer.split_once("\r\n\r\n").expect("a body").1.to_owned()
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
