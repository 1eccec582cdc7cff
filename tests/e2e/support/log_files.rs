//! Log files that grow, and are rotated, as those of a node do.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::temp_dir;

/// A folder of the shape of `/var/log`; `pods/` in it is shaped as the kubelet's.
pub struct LogDir {
    dir: TempDir,
}

/// One growing log file.
pub struct LogFile {
    path: PathBuf,
    file: File,
    format: Format,
    rotations: u32,
}

/// Which of its two outputs a container wrote to.
#[derive(Clone, Copy)]
pub enum Stream {
    Stdout,
    Stderr,
}

#[derive(Clone, Copy)]
enum Format {
    Cri,
    Docker,
    Plain,
}

impl LogDir {
    /// An empty one; it goes away with the value.
    pub fn new() -> Self {
        Self { dir: temp_dir() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Its `pods` folder.
    pub fn pods(&self) -> PathBuf {
        self.path().join("pods")
    }

    /// The first log file of a container as containerd and CRI-O write it; the uid is made of the pod's name.
    pub fn container(&self, namespace: &str, pod: &str, container: &str) -> LogFile {
        LogFile::create(self.container_path(namespace, pod, container), Format::Cri)
    }

    /// The same of a pod that has a uid of its own.
    pub fn container_of(&self, namespace: &str, pod: &str, uid: &str, container: &str) -> LogFile {
        let path = self.pods().join(format!("{namespace}_{pod}_{uid}")).join(container).join("0.log");
        LogFile::create(path, Format::Cri)
    }

    /// The same as Docker writes it: one JSON object per line.
    pub fn docker_container(&self, namespace: &str, pod: &str, container: &str) -> LogFile {
        LogFile::create(self.container_path(namespace, pod, container), Format::Docker)
    }

    /// A file without any format, such as `syslog`.
    pub fn plain(&self, name: &str) -> LogFile {
        LogFile::create(self.path().join(name), Format::Plain)
    }

    fn container_path(&self, namespace: &str, pod: &str, container: &str) -> PathBuf {
        self.pods().join(format!("{namespace}_{pod}_{}", uid(pod))).join(container).join("0.log")
    }
}

/// The part of a configuration that reads only the pods of this folder.
pub fn pods_config(logs: &LogDir) -> String {
    format!("logs:\n  sources:\n    - kubernetes: {{path: {}}}\n", logs.pods().display())
}

/// The part of a configuration that reads only the plain files of this folder.
pub fn log_dir_config(logs: &LogDir) -> String {
    format!("logs:\n  sources:\n    - files: {{include: ['{}/*']}}\n", logs.path().display())
}

/// The uid of a pod in these tests.
pub fn uid(pod: &str) -> String {
    format!("00000000-0000-4000-8000-{:012x}", xxhash_rust::xxh3::xxh3_64(pod.as_bytes()) >> 16)
}

impl LogFile {
    fn create(path: PathBuf, format: Format) -> Self {
        fs::create_dir_all(path.parent().expect("a folder")).expect("the folder is made");
        let file = File::create_new(&path).expect("a new log file");
        Self { path, file, format, rotations: 0 }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A whole line, written at once as runtimes do.
    pub fn line(&mut self, stream: Stream, text: &str) {
        self.write(stream, text, true);
    }

    /// A piece of a line: what a runtime writes of one that is longer than its buffer.
    pub fn partial(&mut self, stream: Stream, text: &str) {
        self.write(stream, text, false);
    }

    /// As the kubelet does: the file gets a name with a time in it, and the runtime opens a new one.
    pub fn rotate(&mut self) {
        let mut rotated = self.path.clone().into_os_string();
        rotated.push(format!(".20261121-10{:02}{:02}", self.rotations / 60, self.rotations % 60));
        self.rotations += 1;
        fs::rename(&self.path, rotated).expect("the file is renamed");
        self.file = File::create_new(&self.path).expect("a new log file");
    }

    fn write(&mut self, stream: Stream, text: &str, whole: bool) {
        // containerd writes all nine digits.
        let time = format!("{:.9}", jiff::Timestamp::now());
        let stream = match stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        };
        let line = match self.format {
            Format::Cri => format!("{time} {stream} {} {text}\n", if whole { 'F' } else { 'P' }),
            Format::Docker => docker(&time, stream, text, whole),
            Format::Plain => format!("{text}{}", if whole { "\n" } else { "" }),
        };
        self.file.write_all(line.as_bytes()).expect("the line is written");
    }
}

/// A piece of a line has no newline inside its `log`.
fn docker(time: &str, stream: &str, text: &str, whole: bool) -> String {
    let log = if whole { format!("{text}\n") } else { text.to_owned() };
    format!("{}\n", serde_json::json!({"log": log, "stream": stream, "time": time}))
}
