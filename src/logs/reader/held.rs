//! Events that wait for more of their lines, and when they have waited long enough.

use std::time::Instant;

use super::Reader;
use crate::logs::{
    batch::FileKey,
    file::LogFile,
    join::Cut,
    output::{Output, Taken},
};

impl Reader {
    /// Gives out events to which nothing was added for a while.
    pub(super) fn give_out_quiet(&mut self, now: Instant) {
        let awake: Vec<FileKey> = self.table.awake().iter().copied().collect();
        let mut is_quiet =
            |key: &FileKey| self.table.get_mut(*key).is_some_and(|file| file.joiner.is_quiet(now));
        let quiet: Vec<FileKey> = awake.into_iter().filter(|key| is_quiet(key)).collect();
        self.give_out(&quiet, Cut::Quiet, now);
    }

    /// What was read of files before they were truncated goes out when no copy was found in which it goes on.
    pub(super) fn give_out_truncated(&mut self, now: Instant) {
        for key in self.table.held_of_truncated(now) {
            self.take_out(key, now, Output::take_held);
        }
    }

    /// Gives out the events that take most, until what is held fits into its share of memory. Those of files with more to read
    /// may not end where they are: they end when their file is read on.
    pub(super) fn relieve(&mut self, now: Instant) {
        self.parts = self.table.files().map(|file| file.joiner.held_bytes()).sum();
        if self.parts <= self.memory.parts {
            return;
        }
        let ended = self.table.entries().filter(|(_, file)| file.joiner.has_whole() && file.may_be_cut());
        let mut held: Vec<(usize, FileKey)> =
            ended.map(|(key, file)| (file.joiner.held_bytes(), key)).collect();
        held.sort_unstable();
        let (mut left, mut largest) = (self.parts, Vec::new());
        // Not for each event that is begun from then on.
        while left > self.memory.parts / 2
            && let Some((bytes, key)) = held.pop()
        {
            left -= bytes;
            largest.push(key);
        }
        self.give_out(&largest, Cut::Whole, now);
        self.parts = self.table.files().map(|file| file.joiner.held_bytes()).sum();
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
            self.take_out(*key, now, Output::take_cut);
        }
    }

    /// Gives out events of one file. If there is no room, they go out when there is.
    fn take_out(
        &mut self,
        key: FileKey,
        now: Instant,
        take: impl FnOnce(&mut Output, FileKey, &mut LogFile, Instant) -> Taken,
    ) {
        let Some(file) = self.table.for_turn(key, now).filter(|file| !file.joiner.is_empty()) else { return };
        self.blocked |= take(&mut self.output, key, file, now) == Taken::NoRoom;
        file.count_read();
        if self.output.has_left_out() {
            file.passed();
        }
    }
}
