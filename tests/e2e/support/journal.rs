//! Journal files, written by systemd-journal-remote with journald's own code; no systemd has to run.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{seconds, temp_dir, wait_until};

const REMOTE: &str = "/lib/systemd/systemd-journal-remote";
const MACHINE: &str = "0123456789abcdef0123456789abcdef";

/// A directory like `/var/log/journal`, with a file that grows.
pub struct JournalDir {
    dir: TempDir,
    writer: Option<Child>,
    /// Microseconds since the epoch.
    begun: u64,
    written: u64,
}

impl JournalDir {
    pub fn new() -> Self {
        let dir = temp_dir();
        fs::create_dir(dir.path().join(MACHINE)).expect("made");
        let begun =
            SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_micros() as u64;
        Self { dir, writer: None, begun, written: 0 }
    }

    /// The agent's source.
    pub fn source(&self) -> String {
        format!("journal: {{path: [{}]}}", self.dir.path().display())
    }

    /// One more entry: the message and further fields.
    pub fn entry(&mut self, message: &str, fields: &[(&str, &str)]) {
        let number = self.written;
        self.written += 1;
        let path = self.path("system.journal");
        let writer = self.writer.get_or_insert_with(|| start(&path));
        let mut text = format!(
            "__REALTIME_TIMESTAMP={}\n__MONOTONIC_TIMESTAMP={number}\n_BOOT_ID={MACHINE}\nMESSAGE={message}\n",
            self.begun + number
        );
        for (name, value) in fields {
            text.push_str(&format!("{name}={value}\n"));
        }
        text.push('\n');
        let pipe = writer.stdin.as_mut().expect("its standard input");
        pipe.write_all(text.as_bytes()).and_then(|()| pipe.flush()).expect("the entry is written");
    }

    /// Ends the file and gives it an archive's name; the next entry begins another one.
    pub fn rotate(&mut self, name: &str) {
        self.finish();
        fs::rename(self.path("system.journal"), self.path(name)).expect("renamed");
    }

    /// Waits until all entries are in the file, and closes it.
    pub fn finish(&mut self) {
        if let Some(mut writer) = self.writer.take() {
            drop(writer.stdin.take());
            let status = writer.wait().expect("its end");
            assert!(status.success(), "systemd-journal-remote: {status}");
        }
    }

    /// The entries of a file as journalctl reads them.
    pub fn as_journalctl_says(&self, name: &str) -> Vec<Value> {
        let path = self.path(name);
        let output = Command::new("journalctl").args(["-o", "json", "--all", "--file"]).arg(path).output();
        let output = output.expect("journalctl runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        text.lines().map(|line| serde_json::from_str(line).expect("a JSON object per line")).collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(MACHINE).join(name)
    }
}

impl Drop for JournalDir {
    fn drop(&mut self) {
        if let Some(writer) = &mut self.writer {
            // It may have ended already: then there is nothing to kill, and that is fine.
            let _ = writer.kill();
            let _ = writer.wait();
        }
    }
}

fn start(path: &Path) -> Child {
    assert!(Path::new(REMOTE).exists(), "{REMOTE} is not here: run tests/servers/install.sh");
    let child = Command::new(REMOTE)
        .args(["--split-mode=none", "--output"])
        .arg(path)
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("systemd-journal-remote starts");
    wait_until("the journal file is there", seconds(10), || {
        if path.exists() { Ok(()) } else { Err("no file".to_owned()) }
    });
    child
}
