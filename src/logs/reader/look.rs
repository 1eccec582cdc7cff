//! Open files are asked how long they are: those that grew get a turn, those that are read to their end are let go.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{ENUMERATE_EVERY, LOOK_EVERY, Reader, pause_of};
use crate::{
    logs::batch::FileKey,
    metrics::{lags::Lag, ledger::Owner},
};

/// The same while one of them grows and batches leave sooner than usual: at the least.
const LOOK_AT_MOST_EVERY: Duration = Duration::from_millis(50);
/// How long nothing grows before files are asked less often.
const GROWTH_LASTS: Duration = Duration::from_secs(2);

impl Reader {
    /// Whether it was time to.
    pub(super) fn look_at_files(&mut self, now: Instant) -> bool {
        if now < self.due.look {
            return false;
        }
        // What is read now may have been written since the last look, and at the start long ago: that leaves at once.
        let looked = std::mem::replace(&mut self.looked, now);
        let ago = match self.ready {
            Some(_) => self.max_wait,
            None => now.saturating_duration_since(looked).min(LOOK_EVERY),
        };
        self.output.written_since(now.checked_sub(ago).unwrap_or(now));
        let keys: Vec<FileKey> = self.table.awake().iter().copied().collect();
        (self.parts, self.archives) = self.table.taken_by(&keys);
        let looked_at = keys.len() as u64;
        for key in keys {
            self.look_at_file(key, now);
            self.let_sleep(key, now);
        }
        self.moved |= self.table.first_run_is_over();
        if let Some(ready) = self.ready.take() {
            self.spiller.take_in(&mut self.table, now);
            self.due.look = now;
            ready();
        }
        self.uncounted |= looked_at > 0;
        if self.uncounted && now >= self.due.count {
            self.uncounted = false;
            self.give_out_truncated(now);
            self.table.give_up_truncated(now);
            self.count_files(now);
            self.due.count = now + pause_of(self.table.len(), LOOK_EVERY);
        }
        if looked_at > 0 && now >= self.due.foresee {
            self.table.foresee_deletions(now);
            self.due.foresee = now + ENUMERATE_EVERY;
        }
        let is_growing = self.grew.is_some_and(|grew| now.saturating_duration_since(grew) < GROWTH_LASTS);
        let pace = (self.max_wait / 2).clamp(LOOK_AT_MOST_EVERY, LOOK_EVERY);
        let least = if is_growing { pace } else { LOOK_EVERY };
        self.due.look = now + pause_of(self.table.awake().len(), least);
        if self.table.awake().is_empty() && !self.uncounted {
            self.due.look = self.due.enumerate.max(now + LOOK_EVERY);
        }
        true
    }

    pub(super) fn look_at_file(&mut self, key: FileKey, now: Instant) {
        if !self.reopen(key, now) {
            return;
        }
        let Some(file) = self.table.get_mut(key) else { return };
        let Some(tail) = &file.tail else { return };
        let look = match tail.look() {
            Ok(look) => look,
            Err(error) => return file.fail("could not be looked at", &error),
        };
        if file.lag() == 0 {
            // Nobody may have looked at it for long.
            file.caught_up = now;
        }
        let was_unlinked = std::mem::replace(&mut file.unlinked, look.unlinked);
        if look.unlinked && !was_unlinked {
            // A compressed copy may be there now.
            self.table.look_for_copies();
            self.due.enumerate = now;
            return;
        }
        if file.is_to_be_spilled() {
            self.spiller.push(key);
        }
        // A file may be truncated and grow to its old size between two looks.
        if look.size != file.size || look.modified != file.modified {
            file.grew = now;
            self.grew = Some(now);
            file.modified = look.modified;
            let held = std::mem::replace(&mut file.size, look.size);
            if let Some(watch) = file.watch.take() {
                self.watcher.leave_file(watch);
            }
            match file.is_written_anew(tail) {
                Ok(true) => {
                    self.table.restart_truncated(key, held, now);
                    // What was not read of it may be in a copy.
                    self.due.enumerate = now;
                    // Known before anything is read: after a crash this is not taken for what was confirmed.
                    return self.write_positions_now(now);
                }
                Ok(false) => {}
                Err(error) => file.fail("could not be read", &error),
            }
        }
        if file.lag() == 0 {
            file.caught_up = now;
        }
        self.identify(key, now);
    }

    fn identify(&mut self, key: FileKey, now: Instant) {
        let Some(file) = self.table.get_mut(key) else { return };
        let is_new = file.identity.is_none();
        let identified = self.table.identify(key, now);
        // Those that are only asked who they are may be many.
        if let Some(file) = self.table.get_mut(key).filter(|file| is_new && !file.queued) {
            file.rest();
        }
        match identified {
            Ok(true) => {
                // Remembered before it is read: a file that is rotated while the agent is away is then no history.
                self.moved |= is_new;
                self.give_turn_or_finish(key, now);
            }
            Ok(false) => self.drop_if_empty_and_gone(key, now),
            Err(error) => {
                if let Some(file) = self.table.get_mut(key) {
                    file.fail("could not be read", &error);
                }
            }
        }
    }

    fn give_turn_or_finish(&mut self, key: FileKey, now: Instant) {
        let Some(file) = self.table.get_mut(key) else { return };
        if file.wants_turn(now) {
            let is_archive = file.is_archive();
            if !file.queued && (!is_archive || self.archives < self.memory.archives) {
                file.queued = true;
                self.archives += usize::from(is_archive);
                self.turns.push(key, &file.path, &file.active_path);
            }
        } else if file.is_finished(now) {
            file.tail = None;
            file.give_up("gone");
            if file.unlinked {
                self.table.let_go(key, now);
                // It is forgotten when its directory is seen to be gone too.
                self.due.enumerate = self.due.enumerate.min(now + ENUMERATE_EVERY);
            }
            self.moved = true;
        }
    }

    /// A file that never held a line and lost its name leaves nothing behind.
    fn drop_if_empty_and_gone(&mut self, key: FileKey, now: Instant) {
        if self.table.get_mut(key).is_some_and(|file| file.is_complete(now) && file.size == 0) {
            self.table.remove(key);
        }
    }

    fn count_files(&mut self, now: Instant) {
        let by_container = self.metrics.ledger.shows_containers();
        let mut open = 0;
        let mut lags: BTreeMap<[&str; 3], Lag> = BTreeMap::new();
        for file in self.table.files() {
            let Some(tail) = &file.tail else { continue };
            open += i64::from(!tail.is_parked());
            let bytes = file.lag();
            let waited = || now.saturating_duration_since(file.caught_up).as_secs_f64();
            let lag = Lag { bytes, seconds: if bytes > 0 { waited() } else { 0.0 } };
            lags.entry(file.origin.account(by_container)).or_default().add(lag);
        }
        self.metrics.files_open.set(open);
        self.metrics.ledger.close_unused();
        let of = |[namespace, pod, container]: [&str; 3]| Owner {
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            container: container.to_owned(),
        };
        self.metrics.lags.set(by_container, lags.into_iter().map(|(names, lag)| (of(names), lag)));
    }
}
