//! Events that wait for more of their lines, and when they have waited long enough.

use std::time::Instant;

use super::Reader;
use crate::logs::{batch::FileKey, join::Cut, output::Taken};

impl Reader {
    /// Gives out events to which nothing was added for a while.
    pub(super) fn give_out_quiet(&mut self, now: Instant) {
        let files = self.table.entries().filter(|(_, file)| file.joiner.is_quiet(now));
        let quiet: Vec<FileKey> = files.map(|(key, _)| key).collect();
        self.give_out(&quiet, Cut::Quiet, now);
        self.held = self.table.files().map(|file| file.joiner.held_bytes()).sum();
    }

    /// Gives out the events that take most, until what is held fits into its share of memory. Those of files with more to read
    /// may not end where they are: they end when their file is read on.
    pub(super) fn relieve(&mut self, now: Instant) {
        if self.held <= self.max_held {
            return;
        }
        self.held = self.table.files().map(|file| file.joiner.held_bytes()).sum();
        if self.held <= self.max_held {
            return;
        }
        let ended = self.table.entries().filter(|(_, file)| file.may_be_cut());
        let mut held: Vec<(usize, FileKey)> =
            ended.map(|(key, file)| (file.joiner.held_bytes(), key)).collect();
        held.sort_unstable();
        let mut largest = Vec::new();
        // Not for each event that is begun from then on.
        while self.held > self.max_held / 2
            && let Some((bytes, key)) = held.pop()
        {
            self.held -= bytes;
            largest.push(key);
        }
        self.give_out(&largest, Cut::All, now);
    }

    /// Ends events of these files where they are, if that is at the end of the file. The ends are written down first: else a
    /// line that comes later would belong to the event when it is read again after a crash, and be lost, as the event is in
    /// the index without it.
    pub(super) fn give_out(&mut self, keys: &[FileKey], which: Cut, now: Instant) {
        let mut is_new = false;
        for key in keys {
            let file = self.table.get_mut(*key).filter(|file| file.may_be_cut());
            is_new |= file.is_some_and(|file| file.joiner.cut(which, now));
        }
        if is_new {
            self.moved = true;
            // Where that fails, which it says, they go out all the same.
            self.write_positions(now, true);
        }
        for key in keys {
            let Some(file) = self.table.get_mut(*key) else { continue };
            if self.output.take_cut(*key, file, now) == Taken::NoRoom {
                // They go out when there is room.
                self.blocked = true;
                return;
            }
        }
    }
}
