//! Files that nobody writes to: they cost no look until inotify reports a change, and a rare one in case it does not.

use std::time::{Duration, Instant};

use super::{LOOK_EVERY, Reader};
use crate::logs::{
    batch::FileKey,
    tail::{Look, Tail},
};

/// How often some of the quiet files are looked at.
const GLANCE_EVERY: Duration = Duration::from_secs(1);
/// Of the quiet files that are watched, one in so many is looked at each time.
const ROUND: usize = 10;
/// Quiet files that are looked at each time, at most: however many there are, it costs the same.
const GLANCES: usize = 2000;

impl Reader {
    /// Takes in what the watcher reports.
    pub(super) fn hear(&mut self, now: Instant) {
        let report = self.watcher.drain();
        if report.overflowed {
            // Whatever was reported may have been lost: everything is looked at, and watched anew.
            self.table.unwatch_all();
            self.due.doubt = now;
            self.due.look = now;
        }
        if report.names || report.overflowed {
            let pause = self.pause_of_listing();
            self.due.enumerate = self.due.enumerate.min(self.due.enumerated + pause);
        }
        for key in report.changed {
            if let Some(file) = self.table.get_mut(key) {
                file.watch = None;
                self.wake(key, now);
                self.look_at_file(key, now);
            }
        }
    }

    /// Nobody looks at a quiet file until it is written to; a closed one is looked at no more.
    pub(super) fn let_sleep(&mut self, key: FileKey, now: Instant) {
        let Some(file) = self.table.get_mut(key) else { return self.table.sleep(key) };
        let Some(tail) = &file.tail else {
            if file.truncated.is_none() {
                self.table.sleep(key);
            }
            return;
        };
        if !file.is_quiet(now) {
            if let Some(watch) = file.watch.take() {
                self.watcher.leave_file(watch);
            }
            return;
        }
        if file.watch.is_none() {
            file.watch = tail.fd().and_then(|fd| self.watcher.watch_file(key, fd));
            let is_watched = file.watch.is_some();
            // Once more: it may have been written to before it was watched.
            self.look_at_file(key, now);
            if self.table.get_mut(key).is_none_or(|file| !file.is_quiet(now)) {
                return;
            }
            if !is_watched {
                return self.table.doze(key);
            }
        }
        self.table.sleep(key);
        if self.table.is_short_of_descriptors() {
            self.park(key);
        }
    }

    /// Looks at some of the files that sleep: whatever inotify misses is found so.
    pub(super) fn glance(&mut self, now: Instant) {
        if now < self.due.glance {
            return;
        }
        self.due.glance = now + GLANCE_EVERY;
        // Those that nobody reports of are looked at each time, as far as that is cheap.
        let mut keys = self.table.next_unwatched(GLANCES);
        keys.extend(self.table.next_quiet((self.table.len() / ROUND + 1).min(GLANCES)));
        for key in keys {
            self.glance_at(key, now);
        }
    }

    fn glance_at(&mut self, key: FileKey, now: Instant) {
        let Some(file) = self.table.get_mut(key) else { return };
        if file.tail.as_ref().is_some_and(Tail::is_parked) {
            let look = std::fs::metadata(&file.path).map(|metadata| Look::of(&metadata));
            if !look.is_ok_and(|look| look.size == file.size && look.modified == file.modified) {
                self.wake(key, now);
            }
            return;
        }
        self.look_at_file(key, now);
        if self.table.get_mut(key).is_some_and(|file| !file.is_quiet(now)) {
            self.wake(key, now);
        } else if self.table.is_short_of_descriptors() {
            self.park(key);
        }
    }

    fn wake(&mut self, key: FileKey, now: Instant) {
        self.table.wake(key);
        self.due.look = self.due.look.min(now + LOOK_EVERY);
    }

    /// Closes a quiet file until it is written to, so that there is a descriptor for one that is not quiet. Only then: what is
    /// written to a closed file just before it is deleted is lost.
    fn park(&mut self, key: FileKey) {
        let Some(file) = self.table.get_mut(key) else { return };
        if file.watch.is_some() && file.tail.as_ref().is_some_and(|tail| tail.fd().is_some()) {
            file.tail = Some(Tail::parked());
            self.table.note_parked();
        }
    }

    /// Opens a file again that was closed for want of descriptors. Whether it can be looked at now.
    pub(super) fn reopen(&mut self, key: FileKey, now: Instant) -> bool {
        let Some(file) = self.table.get_mut(key) else { return false };
        if !file.tail.as_ref().is_some_and(Tail::is_parked) {
            return true;
        }
        if !self.table.has_descriptors() {
            return false;
        }
        let Some(file) = self.table.get_mut(key) else { return false };
        match Tail::open(&file.path) {
            Ok((tail, inode)) if inode == file.inode => {
                file.tail = Some(tail);
                self.table.note_opened();
                return true;
            }
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                file.fail("could not be opened again", &error);
                return false;
            }
        }
        // It has another name now, or none: the next look around tells.
        file.present = false;
        if self.due.enumerated > *file.vanished.get_or_insert(now) {
            self.table.lose_parked(key, now);
            self.moved = true;
        } else {
            self.due.enumerate = now;
        }
        false
    }
}
