//! Whether files were changed since they were read.

use std::{
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use nodewarden_collectors::host::Stamp;

/// The files that something was read from, as they were then. Links are followed, so that a directory that is swapped by a
/// link (as the kubelet does with secrets and ConfigMaps) changes its files, too.
#[derive(Debug, Clone, Default)]
pub struct Stamps {
    stamps: Vec<(PathBuf, Option<Stamp>)>,
    /// Unix time of the look before the reading.
    read_at: i64,
}

impl Stamps {
    /// To be taken before the files are read: what is changed while it is read is then read again.
    pub fn before<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Self {
        let read_at = unix_time();
        Self { stamps: paths.into_iter().map(|path| stamped(path.as_ref())).collect(), read_at }
    }

    /// With those files that turned out to be read.
    pub fn of(mut self, paths: &[PathBuf]) -> Self {
        let known = |path: &PathBuf| self.stamps.iter().find(|(known, _)| known == path).cloned();
        self.stamps = paths.iter().map(|path| known(path).unwrap_or_else(|| stamped(path))).collect();
        self
    }

    /// The files.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.stamps.iter().map(|(path, _)| path.as_path())
    }

    /// Whether they are to be read again.
    pub fn is_old(&self) -> bool {
        self.stamps.iter().any(|(path, stamp)| {
            // A file may be written twice within a tick of the clock that stamps it: what was written about when it was read
            // is read once more. A stamp far in the future says nothing.
            let times = self.read_at - 1..self.read_at + 60;
            let is_fresh = stamp.is_some_and(|stamp| times.contains(&stamp.modified_seconds()));
            is_fresh || Stamp::of(path).ok() != *stamp
        })
    }
}

fn stamped(path: &Path) -> (PathBuf, Option<Stamp>) {
    (path.to_owned(), Stamp::of(path).ok())
}

fn unix_time() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
