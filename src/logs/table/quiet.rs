//! Files that nobody writes to: who is looked at, and who has a descriptor.

use std::{collections::BTreeSet, time::Instant};

use super::Table;
use crate::logs::batch::FileKey;

impl Table {
    /// The files that are looked at regularly.
    pub fn awake(&self) -> &BTreeSet<FileKey> {
        &self.awake
    }

    /// Looks at this file regularly from now on.
    pub fn wake(&mut self, key: FileKey) {
        self.unwatched.remove(&key);
        self.awake.insert(key);
    }

    /// Looks at every file, once at least.
    fn wake_all(&mut self) {
        self.unwatched.clear();
        self.awake.extend(self.files.keys());
    }

    /// No file is watched any more: all are looked at.
    pub fn unwatch_all(&mut self) {
        for file in self.files.values_mut() {
            file.watch = None;
        }
        self.wake_all();
    }

    /// Looks at this file no more until it is woken.
    pub fn sleep(&mut self, key: FileKey) {
        self.awake.remove(&key);
        if let Some(file) = self.files.get_mut(&key) {
            file.shrink();
        }
    }

    /// As [`Self::sleep`], for a file whose changes nobody reports.
    pub fn doze(&mut self, key: FileKey) {
        self.sleep(key);
        self.unwatched.insert(key);
    }

    /// The next ones, at most so many, of the sleeping files whose changes nobody reports.
    pub fn next_unwatched(&mut self, most: usize) -> Vec<FileKey> {
        let keys: Vec<FileKey> = self.unwatched.range(self.rounds.1..).take(most).copied().collect();
        self.rounds.1 =
            keys.last().filter(|_| keys.len() == most).map_or(FileKey(0), |key| FileKey(key.0 + 1));
        keys
    }

    /// Those of the next `most` files that sleep.
    pub fn next_quiet(&mut self, most: usize) -> Vec<FileKey> {
        let next = self.files.range(self.rounds.0..).take(most);
        let keys: Vec<(FileKey, bool)> = next.map(|(key, file)| (*key, file.tail.is_some())).collect();
        self.rounds.0 =
            keys.last().filter(|_| keys.len() == most).map_or(FileKey(0), |(key, _)| FileKey(key.0 + 1));
        keys.into_iter()
            .filter(|(key, is_open)| *is_open && !self.awake.contains(key))
            .map(|(key, _)| key)
            .collect()
    }

    /// Whether quiet files should be closed so that there is room for others.
    pub fn is_short_of_descriptors(&self) -> bool {
        self.unopened || self.open > self.most_open / 4 * 3
    }

    /// As if the process might have so many log files open.
    #[cfg(test)]
    pub fn limit_open(&mut self, most: usize) {
        self.most_open = most;
    }

    /// Whether one more file may be opened.
    pub fn has_descriptors(&self) -> bool {
        self.open < self.most_open
    }

    /// A quiet file was closed.
    pub fn note_parked(&mut self) {
        self.open = self.open.saturating_sub(1);
    }

    /// It was opened again.
    pub fn note_opened(&mut self) {
        self.open += 1;
    }

    /// A file that was closed for want of descriptors is not there any more.
    pub fn lose_parked(&mut self, key: FileKey, now: Instant) {
        let Some(file) = self.files.get_mut(&key) else { return };
        (file.tail, file.unlinked) = (None, true);
        if file.identity.is_some() { self.let_go(key, now) } else { self.remove(key) }
    }
}
