//! The one door to the host's files: where its trees are mounted, and files that stay open between scrapes.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use crate::collector::CollectError;

/// Where the host's file systems are seen from here.
#[derive(Debug, Clone)]
pub struct Host {
    /// `--path.procfs`.
    pub procfs: PathBuf,
    /// `--path.sysfs`.
    pub sysfs: PathBuf,
    /// `--path.rootfs`.
    pub rootfs: PathBuf,
    /// `--path.udev.data`.
    pub udev_data: PathBuf,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            procfs: "/proc".into(),
            sysfs: "/sys".into(),
            rootfs: "/".into(),
            udev_data: "/run/udev/data".into(),
        }
    }
}

impl Host {
    /// A path under procfs.
    pub fn proc(&self, path: &str) -> PathBuf {
        self.procfs.join(path)
    }

    /// A path under sysfs.
    pub fn sys(&self, path: &str) -> PathBuf {
        self.sysfs.join(path)
    }

    /// An absolute path of the host as seen from here: `/etc/os-release` becomes `ROOTFS/etc/os-release`.
    pub fn root(&self, path: &str) -> PathBuf {
        self.rootfs.join(path.trim_start_matches('/'))
    }
}

/// Reads a whole file that is read rarely; bytes that are not UTF-8 become U+FFFD.
pub fn read_text(path: &Path) -> Result<String, CollectError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(into_text(bytes)),
        Err(source) => Err(CollectError::Read { path: path.to_owned(), source }),
    }
}

/// The names in a directory, sorted; an absent directory is an error of kind `NotFound`.
pub fn list_dir(path: &Path) -> Result<Vec<String>, CollectError> {
    let fail = |source| CollectError::Read { path: path.to_owned(), source };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path).map_err(fail)? {
        names.push(entry.map_err(fail)?.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}

fn into_text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// A file read at every scrape: it stays open and is read again from the start into one reused buffer.
///
/// The kernel makes the text of a `/proc` or `/sys` file anew for a read at offset 0, so that the open and close of
/// each scrape, the dearest part of reading a small file, are saved.
#[derive(Debug)]
pub struct HostFile {
    path: PathBuf,
    file: Option<File>,
    buffer: Vec<u8>,
}

impl HostFile {
    /// A file that is opened at the first read.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), file: None, buffer: Vec::new() }
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The whole text as it is now; bytes that are not UTF-8 become U+FFFD.
    pub fn read(&mut self) -> Result<&str, CollectError> {
        self.fill().map_err(|source| CollectError::Read { path: self.path.clone(), source })?;
        if let Err(error) = std::str::from_utf8(&self.buffer) {
            tracing::debug!(path = %self.path.display(), %error, "not UTF-8, odd bytes replaced");
            let text = String::from_utf8_lossy(&self.buffer).into_owned();
            self.buffer = text.into_bytes();
        }
        // The branch above leaves valid UTF-8, so the default is never taken.
        Ok(std::str::from_utf8(&self.buffer).unwrap_or_default())
    }

    fn fill(&mut self) -> io::Result<()> {
        if let Some(file) = &self.file {
            if read_whole(file, &mut self.buffer).is_ok() {
                return Ok(());
            }
            // What the descriptor stood for is gone (a device removed, a module unloaded): look at the path again.
            self.file = None;
        }
        let file = File::open(&self.path)?;
        read_whole(&file, &mut self.buffer)?;
        self.file = Some(file);
        Ok(())
    }
}

/// Reads from offset 0 to the end, whatever was read before.
fn read_whole(file: &File, buffer: &mut Vec<u8>) -> io::Result<()> {
    use std::os::unix::fs::FileExt;

    const FIRST: usize = 4096;
    if buffer.capacity() == 0 {
        buffer.reserve_exact(FIRST);
    }
    buffer.resize(buffer.capacity(), 0);
    let mut filled = 0;
    loop {
        if filled == buffer.len() {
            buffer.resize(buffer.len() * 2, 0);
        }
        match file.read_at(&mut buffer[filled..], filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                buffer.clear();
                return Err(error);
            }
        }
    }
    buffer.truncate(filled);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_kept_file_shows_what_is_there_now() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("loadavg");
        fs::write(&path, "a".repeat(10_000)).expect("written");
        let mut file = HostFile::new(&path);
        assert_eq!(file.read().expect("read").len(), 10_000);
        fs::write(&path, "short").expect("written");
        assert_eq!(file.read().expect("read"), "short");
    }

    #[test]
    fn a_missing_file_names_its_path() {
        let mut file = HostFile::new("/nonexistent/loadavg");
        let error = file.read().expect_err("it is not there");
        assert!(error.to_string().contains("/nonexistent/loadavg"));
        assert!(matches!(error.missing_is_no_data(), CollectError::NoData));
    }

    #[test]
    fn bytes_that_are_not_utf8_are_replaced() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("model");
        fs::write(&path, b"disk \xff").expect("written");
        assert_eq!(HostFile::new(&path).read().expect("read"), "disk \u{fffd}");
    }
}
