//! What inotify tells of log files and their directories.

use std::{
    collections::{HashMap, HashSet},
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use rustix::fs::{FsWord, fstatfs, inotify, statfs};

use super::batch::FileKey;

/// Says when something changed in the directories of log files, and when a quiet file is written to.
///
/// inotify is used directly: of directories only names that come and go are asked for, and of a file only the first write
/// after it became quiet. A watcher that reports every write, as general crates do, would wake for every line of every pod.
#[derive(Debug)]
pub struct Watcher {
    inotify: Option<OwnedFd>,
    /// The files whose next change is reported.
    quiet: HashMap<i32, FileKey>,
    /// The directories that are watched, and whether all that happens in them is reported.
    directories: HashMap<i32, bool>,
    /// Whether it was said that there are too many watches.
    said_full: bool,
}

/// How directories are watched.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Watched {
    /// Each of them is, and its file system reports all that happens.
    pub all: bool,
    /// One of them was not before.
    pub any_new: bool,
}

/// What was reported.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Names came or went.
    pub names: bool,
    /// Reports were lost: anything may have happened.
    pub overflowed: bool,
    /// Files that were written to, or have another name or none; they are watched no more.
    pub changed: Vec<FileKey>,
}

impl Watcher {
    /// A watcher of nothing; without inotify it stays silent, and the regular look around has to do.
    pub fn new() -> Self {
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let inotify = inotify::init(flags)
            .inspect_err(|error| tracing::warn!(%error, "no inotify, new log files are found by looking every few seconds"))
            .ok();
        Self { inotify, quiet: HashMap::new(), directories: HashMap::new(), said_full: false }
    }

    /// One that hears nothing, as of a network file system.
    #[cfg(test)]
    pub fn deaf() -> Self {
        Self { inotify: None, ..Self::new() }
    }

    /// What to poll for readability.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(AsFd::as_fd)
    }

    /// Watches these directories; those that are gone fall out by themselves. One that was
    /// made anew under the same name is another one, so all are asked for each time: for those that are watched already
    /// nothing happens.
    pub fn watch(&mut self, directories: &HashSet<PathBuf>) -> Watched {
        let Some(fd) = &self.inotify else { return Watched::default() };
        let names = inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::MOVED_FROM
            | inotify::WatchFlags::DELETE
            | inotify::WatchFlags::ONLYDIR;
        let mut watched = Watched { all: true, any_new: false };
        for directory in directories {
            match inotify::add_watch(fd, directory, names) {
                Ok(watch) => {
                    let is_told = self.directories.entry(watch).or_insert_with(|| {
                        watched.any_new = true;
                        statfs(directory).is_ok_and(|system| is_written_here_only(system.f_type))
                    });
                    watched.all &= *is_told;
                }
                Err(error) => {
                    watched.all = false;
                    say_full(error, &mut self.said_full);
                    tracing::debug!(%error, path = %directory.display(), "could not watch");
                }
            }
        }
        watched
    }

    /// Reports the next change of an open file, once. `None` when that is not possible, or not to be relied on.
    pub fn watch_file(&mut self, key: FileKey, file: BorrowedFd<'_>) -> Option<i32> {
        let change = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::ATTRIB
            | inotify::WatchFlags::MOVE_SELF
            | inotify::WatchFlags::ONESHOT;
        if !fstatfs(file).is_ok_and(|system| is_written_here_only(system.f_type)) {
            return None;
        }
        // By its descriptor: its name may be another file's by now.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let watch = inotify::add_watch(self.inotify.as_ref()?, path, change)
            .inspect_err(|&error| say_full(error, &mut self.said_full))
            .ok()?;
        self.quiet.insert(watch, key);
        Some(watch)
    }

    /// Reports no change of this file.
    pub fn leave_file(&mut self, watch: i32) {
        if self.quiet.remove(&watch).is_some()
            && let Some(fd) = &self.inotify
        {
            // It may have been reported just now: then it is not watched any more.
            let _ = inotify::remove_watch(fd, watch);
        }
    }

    /// Takes in what was reported.
    pub fn drain(&mut self) -> Report {
        let mut report = Report::default();
        let Some(fd) = &self.inotify else { return report };
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(fd, &mut buffer);
        // Ends with EAGAIN when the queue is empty.
        while let Ok(event) = reader.next() {
            if let Some(key) = self.quiet.remove(&event.wd()) {
                report.changed.push(key);
            } else if event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW) {
                report.overflowed = true;
            } else if event.events().contains(inotify::ReadFlags::IGNORED) {
                self.directories.remove(&event.wd());
            } else if event.events().intersects(NAMES) {
                report.names = true;
            }
        }
        if report.overflowed {
            self.quiet.clear();
            self.directories.clear();
        }
        report
    }
}

/// Reports about names. A watch that ended is none: its directory's parent tells that.
const NAMES: inotify::ReadFlags = inotify::ReadFlags::CREATE
    .union(inotify::ReadFlags::MOVED_TO)
    .union(inotify::ReadFlags::MOVED_FROM)
    .union(inotify::ReadFlags::DELETE);

/// Whether all changes of files are made on this machine and through this mount, so that inotify hears of each: those of
/// network file systems and virtual machines' shares may be made elsewhere, those of an overlay in its layers.
fn is_written_here_only(magic: FsWord) -> bool {
    // From the kernel's `magic.h` and, for file systems that are not in it, their own headers.
    const LOCAL: [u32; 12] = [
        0x0000_ef53, // ext2, ext3, ext4
        0x5846_5342, // XFS
        0x9123_683e, // Btrfs
        0x0102_1994, // tmpfs
        0x8584_58f6, // ramfs
        0xf2f5_2010, // F2FS
        0x2fc1_2fc1, // ZFS
        0xca45_1a4e, // bcachefs
        0x3153_464a, // JFS
        0x2405_1905, // UBIFS
        0x0000_3434, // NILFS
        0x0000_4d44, // FAT
    ];
    LOCAL.contains(&(magic as u32))
}

fn say_full(error: rustix::io::Errno, said: &mut bool) {
    if error == rustix::io::Errno::NOSPC && !std::mem::replace(said, true) {
        tracing::warn!(
            "too many inotify watches (see fs.inotify.max_user_watches): log files are looked at more often than needed"
        );
    }
}

impl Default for Watcher {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::logs::discover::{Source, enumerate};

    #[test]
    fn a_tree_that_is_made_later_is_heard_of() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("log/pods");
        let source = Source::Kubernetes { path: path.clone(), exclude_namespaces: vec![] };
        let mut watcher = Watcher::new();
        for made in [dir.path().join("log"), path.clone(), path.join("shop_cart-1_u-1/app")] {
            watcher.watch(&enumerate(std::slice::from_ref(&source), Path::new("/")).directories);
            watcher.drain();
            fs::create_dir_all(made).expect("made");
            assert!(watcher.drain().names);
        }
        fs::write(path.join("shop_cart-1_u-1/app/0.log"), "").expect("written");
        assert_eq!(enumerate(&[source], Path::new("/")).files.len(), 1);
    }

    #[test]
    fn the_watcher_reports_new_names() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut watcher = Watcher::new();
        watcher.watch(&HashSet::from([dir.path().to_owned()]));
        assert_eq!(watcher.drain(), Report::default());
        fs::write(dir.path().join("new.log"), "").expect("written");
        assert!(watcher.drain().names);
        fs::write(dir.path().join("new.log"), "more").expect("written");
        assert_eq!(watcher.drain(), Report::default());
    }

    #[test]
    fn a_directory_made_anew_is_watched_again() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let inner = dir.path().join("app");
        let mut watcher = Watcher::new();
        for _ in 0..2 {
            fs::create_dir(&inner).expect("made");
            watcher.watch(&HashSet::from([inner.clone()]));
            watcher.drain();
            fs::write(inner.join("0.log"), "").expect("written");
            assert!(watcher.drain().names);
            fs::remove_dir_all(&inner).expect("removed");
        }
    }
}
