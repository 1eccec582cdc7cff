//! The one door to the host's files: where its trees are mounted, and files that stay open between scrapes.

use std::{
    fs::{File, FileType, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use rustix::{
    fs::OFlags,
    process::{Resource, getrlimit},
};

use crate::{collector::CollectError, containers::Containers};

/// Where the host's file systems are seen from here, and what others know of its containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// `--path.procfs`.
    pub procfs: PathBuf,
    /// `--path.sysfs`.
    pub sysfs: PathBuf,
    /// `--path.rootfs`.
    pub rootfs: PathBuf,
    /// `--path.udev.data`.
    pub udev_data: PathBuf,
    /// What the cluster says of containers, where somebody asks it.
    pub containers: Containers,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            procfs: "/proc".into(),
            sysfs: "/sys".into(),
            rootfs: "/".into(),
            udev_data: "/run/udev/data".into(),
            containers: Containers::default(),
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

/// Reads a whole file that is read rarely, as bytes.
pub fn read_bytes(path: &Path) -> Result<Vec<u8>, CollectError> {
    std::fs::read(path).map_err(|source| CollectError::Read { path: path.to_owned(), source })
}

/// As [`read_bytes`], of a file that anybody may have put there: one that is no plain file, as a pipe that nobody writes to,
/// is refused without waiting for it.
pub fn read_plain_file(path: &Path) -> Result<Vec<u8>, CollectError> {
    use std::{io::Read, os::unix::fs::OpenOptionsExt};

    let read = || {
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let kind = file.metadata()?.file_type();
        if !kind.is_file() && !kind.is_dir() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no plain file"));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|source| CollectError::Read { path: path.to_owned(), source })
}

/// What tells that a file was changed or replaced since it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Change of the content, in seconds and nanoseconds since the epoch.
    modified: (i64, i64),
    /// Change of the inode: catches a writer that sets the modification time back.
    changed: (i64, i64),
}

impl Stamp {
    /// The stamp of the file behind `path`, links followed.
    pub fn of(path: &Path) -> Result<Self, CollectError> {
        use std::os::unix::fs::MetadataExt;

        let meta =
            std::fs::metadata(path).map_err(|source| CollectError::Read { path: path.to_owned(), source })?;
        Ok(Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }

    /// When the content was changed, in whole seconds since the epoch.
    pub fn modified_seconds(&self) -> i64 {
        self.modified.0
    }
}

/// Whether `path` is a directory, links followed.
pub fn is_dir(path: &Path) -> bool {
    path.is_dir()
}

/// Whether `path` lies in a real sysfs, not in a tree of plain files.
pub fn is_sysfs(path: &Path) -> bool {
    const MAGIC: i64 = 0x6265_6572;
    rustix::fs::statfs(path).is_ok_and(|found| i128::from(found.f_type) == i128::from(MAGIC))
}

/// Where `path` leads to when every link is followed; nothing when it leads nowhere.
pub fn real_path(path: &Path) -> Option<PathBuf> {
    path.canonicalize().ok()
}

/// What is written in the link `path`.
pub fn link_target(path: &Path) -> Result<PathBuf, CollectError> {
    path.read_link().map_err(|source| CollectError::Read { path: path.to_owned(), source })
}

/// The names in a directory, sorted; an absent directory is an error of kind `NotFound`.
pub fn list_dir(path: &Path) -> Result<Vec<String>, CollectError> {
    list(path, |_| true)
}

/// The names of what is no plain file in a directory, sorted: directories and links.
pub fn list_dir_but_files(path: &Path) -> Result<Vec<String>, CollectError> {
    list(path, |kind| !kind.is_file())
}

/// The names of the plain files in a directory, sorted.
pub fn list_files(path: &Path) -> Result<Vec<String>, CollectError> {
    list(path, |kind| kind.is_file())
}

/// The names in a directory, each with its inode, sorted.
pub fn list_inodes(path: &Path) -> Result<Vec<(String, u64)>, CollectError> {
    use std::os::unix::fs::DirEntryExt;

    let fail = |source| CollectError::Read { path: path.to_owned(), source };
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        entries.push((entry.file_name().to_string_lossy().into_owned(), entry.ino()));
    }
    entries.sort_unstable();
    Ok(entries)
}

fn list(path: &Path, keep: impl Fn(FileType) -> bool) -> Result<Vec<String>, CollectError> {
    let fail = |source| CollectError::Read { path: path.to_owned(), source };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        if entry.file_type().is_ok_and(&keep) {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn into_text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// A file that stays open between scrapes and is read again from the start.
///
/// The kernel makes the text of a `/proc` or `/sys` file anew for a read at offset 0, so that the open and close of
/// each scrape, the dearest part of reading a small file, are saved.
#[derive(Debug)]
pub(crate) struct KeptFile {
    path: PathBuf,
    keep: Keep,
    file: Option<(File, Place)>,
}

impl KeptFile {
    pub(crate) fn new(path: PathBuf, keep: Keep) -> Self {
        Self { path, keep, file: None }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the descriptor back; the next read opens the file again.
    pub(crate) fn close(&mut self) {
        self.file = None;
    }

    /// Reads with `read`, from the kept descriptor if there is one.
    pub(crate) fn read_with<T>(&mut self, mut read: impl FnMut(&File) -> io::Result<T>) -> io::Result<T> {
        if let Some((file, _)) = &self.file {
            match read(file) {
                // What the descriptor stood for may be gone (a device removed, a module unloaded): look at the path again.
                Err(error) if !is_refusal(&error) => self.file = None,
                result => return result,
            }
        }
        let file = File::open(&self.path)?;
        let result = read(&file);
        self.file = Place::take(self.keep).map(|place| (file, place));
        result
    }
}

/// The right to keep a descriptor between scrapes; given back when dropped.
///
/// A `/sys` or `/proc` file that stays open costs 4.5 KiB of kernel memory, most of it the page its text is made in, charged
/// to the agent's own control group. A machine of 256 CPUs and 200 interfaces has ten thousand such files, so there is a
/// limit over all collectors; who comes too late opens and closes at each scrape.
#[derive(Debug)]
pub(crate) struct Place(&'static AtomicUsize);

/// What is kept open.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Keep {
    /// A file that there is once on a host.
    HostFile,
    /// A file that each of many devices has: they leave room for the former.
    DeviceFile,
    /// A device's directory, which costs the kernel little.
    Directory,
}

impl Place {
    pub(crate) fn take(keep: Keep) -> Option<Self> {
        static FILES: AtomicUsize = AtomicUsize::new(0);
        static DIRECTORIES: AtomicUsize = AtomicUsize::new(0);
        /// Log files, connections and the store need theirs: an eighth of what the process may open for each of the two.
        static MOST: LazyLock<usize> = LazyLock::new(|| {
            let most = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) / 8;
            usize::try_from(most).unwrap_or(usize::MAX).min(1024)
        });
        let (counter, most) = match keep {
            Keep::HostFile => (&FILES, *MOST),
            Keep::DeviceFile => (&FILES, *MOST / 4 * 3),
            Keep::Directory => (&DIRECTORIES, *MOST),
        };
        let taken = counter.fetch_update(Relaxed, Relaxed, |taken| (taken < most).then_some(taken + 1));
        taken.ok().map(|_| Self(counter))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Whether a driver says that this device has no such value: the file is there and would say the same again.
pub(crate) fn is_refusal(error: &io::Error) -> bool {
    use rustix::io::Errno;

    matches!(Errno::from_io_error(error), Some(Errno::INVAL | Errno::OPNOTSUPP))
}

/// A file read at every scrape, with the buffer for its text.
#[derive(Debug)]
pub struct HostFile {
    file: KeptFile,
    buffer: Vec<u8>,
}

impl HostFile {
    /// A file that is opened at the first read.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { file: KeptFile::new(path.into(), Keep::HostFile), buffer: Vec::new() }
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The whole text as it is now; bytes that are not UTF-8 become U+FFFD.
    pub fn read(&mut self) -> Result<&str, CollectError> {
        let Self { file, buffer } = self;
        file.read_with(|file| read_whole(file, buffer))
            .map_err(|source| CollectError::Read { path: file.path().to_owned(), source })?;
        if let Err(error) = std::str::from_utf8(buffer) {
            tracing::debug!(path = %file.path().display(), %error, "not UTF-8, odd bytes replaced");
            let text = String::from_utf8_lossy(buffer).into_owned();
            *buffer = text.into_bytes();
        }
        // The branch above leaves valid UTF-8, so the default is never taken.
        Ok(std::str::from_utf8(buffer).unwrap_or_default())
    }

    /// What `parse` makes of the whole text; what it can't understand becomes an error that names the file.
    pub fn parse<T>(&mut self, parse: impl FnOnce(&str) -> Result<T, String>) -> Result<T, CollectError> {
        match parse(self.read()?) {
            Ok(value) => Ok(value),
            Err(what) => Err(CollectError::parse(self.path(), what)),
        }
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
    fn a_pipe_that_nobody_writes_to_is_refused_at_once() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};

        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("jobs.prom");
        fs::write(&path, "jobs 1\n").expect("written");
        assert_eq!(read_plain_file(&path).expect("read"), b"jobs 1\n");
        assert!(read_plain_file(dir.path()).is_err());
        fs::remove_file(&path).expect("removed");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("made");
        let error = read_plain_file(&path).expect_err("it would wait for ever");
        assert!(error.to_string().ends_with("it is no plain file"), "{error}");
    }

    #[test]
    fn bytes_that_are_not_utf8_are_replaced() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("model");
        fs::write(&path, b"disk \xff").expect("written");
        assert_eq!(HostFile::new(&path).read().expect("read"), "disk \u{fffd}");
    }
}
