//! When the configuration is to be read again: at SIGHUP, and when its file changes.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use nodewarden_collectors::host::Stamp;
use tokio::{
    select,
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

/// How often the file is looked at, and how long it has to be unchanged before it is read: nobody should read half of what an
/// editor writes. Attempts are no nearer to each other than that.
const EVERY: Duration = Duration::from_secs(2);

/// Why it is to be read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Somebody asked.
    Signal,
    /// Its file is another one than the one that was read last.
    File,
}

/// Waits for such a moment.
#[derive(Debug)]
pub struct Watch {
    hangup: Signal,
    is_asked: bool,
    ticks: tokio::time::Interval,
    file: Option<WatchedFile>,
    next: Instant,
}

impl Watch {
    /// Watches this file, which need not be there, and was read when it had this stamp. From now on SIGHUP does not end the
    /// process.
    pub fn new(path: Option<PathBuf>, read: Option<Stamp>) -> io::Result<Self> {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let file = path.map(|path| WatchedFile { path, seen: read, read });
        let hangup = signal(SignalKind::hangup())?;
        Ok(Self { hangup, is_asked: false, ticks, file, next: Instant::now() })
    }

    /// Until the configuration is to be read again. Nothing is missed when this is dropped before.
    pub async fn changed(&mut self) -> Cause {
        let cause = loop {
            if self.is_asked {
                sleep_until(self.next).await;
                self.is_asked = false;
                if let Some(file) = &mut self.file {
                    file.will_be_read();
                }
                break Cause::Signal;
            }
            select! {
                _ = self.hangup.recv() => self.is_asked = true,
                _ = self.ticks.tick() => {
                    if self.file.as_mut().is_some_and(WatchedFile::look) {
                        break Cause::File;
                    }
                }
            }
        };
        self.next = Instant::now() + EVERY;
        cause
    }
}

/// A file whose content may be swapped by a link above it, as the kubelet does with ConfigMaps: its stamp is that of what the
/// path leads to.
#[derive(Debug)]
struct WatchedFile {
    path: PathBuf,
    /// At the last look.
    seen: Option<Stamp>,
    /// When it was read.
    read: Option<Stamp>,
}

impl WatchedFile {
    /// Somebody wants it to be read as it is now.
    fn will_be_read(&mut self) {
        self.seen = stamp(&self.path);
        self.read = self.seen;
    }

    /// Whether it has changed since it was read, and is still since the look before.
    fn look(&mut self) -> bool {
        let now = stamp(&self.path);
        let is_still = std::mem::replace(&mut self.seen, now) == now;
        let is_other = is_still && self.read != now;
        if is_other {
            self.read = now;
        }
        is_other
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    Stamp::of(path).ok()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn a_file_is_read_when_it_has_changed_and_is_still() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("config.yaml");
        fs::write(&path, "a: 1").expect("written");
        let mut file = WatchedFile { path: path.clone(), seen: None, read: None };
        file.will_be_read();
        assert!(!file.look());
        fs::write(&path, "a: 2 3").expect("written");
        assert!(!file.look(), "it may be written still");
        assert!(file.look());
        assert!(!file.look());
        fs::remove_file(&path).expect("removed");
        assert!(!file.look());
        assert!(file.look(), "that it is gone is said");
        assert!(!file.look());
    }

    #[test]
    fn a_swapped_link_above_it_changes_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        for version in ["..1", "..2"] {
            fs::create_dir(at(version)).expect("made");
            fs::write(at(version).join("config.yaml"), version).expect("written");
        }
        symlink("..1", at("..data")).expect("linked");
        symlink("..data/config.yaml", at("config.yaml")).expect("linked");
        let mut file = WatchedFile { path: at("config.yaml"), seen: None, read: None };
        file.will_be_read();
        assert!(!file.look());
        symlink("..2", at("..new")).expect("linked");
        fs::rename(at("..new"), at("..data")).expect("swapped");
        assert!(!file.look() && file.look() && !file.look());
    }
}
