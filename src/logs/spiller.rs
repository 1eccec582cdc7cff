//! Copies log files that vanish into the spill, hands their copies to the table, and lets them go when they are confirmed.

use std::{
    collections::BTreeSet,
    io,
    path::Path,
    time::{Duration, Instant},
};

use super::{
    batch::FileKey,
    file::LogFile,
    spill::{Dropped, FRAME, Limits, SharedSpill},
    table::Table,
    tail::Tail,
};

/// How long to wait after the spill could not be written.
const PAUSE: Duration = Duration::from_secs(5);

/// Who copies vanishing files.
#[derive(Debug)]
pub struct Spiller {
    spill: SharedSpill,
    /// Whether the spill was damaged when it was opened.
    was_damaged: bool,
    failed: bool,
    /// Files whose unconfirmed bytes go into the spill.
    waiting: BTreeSet<FileKey>,
    due: Instant,
}

impl Spiller {
    /// With the spill in `directory`, which need not exist.
    pub fn open(directory: &Path, limits: Limits, now: Instant) -> Self {
        let (spill, complaints) = SharedSpill::open(directory, limits);
        for complaint in &complaints {
            tracing::error!("{complaint}");
        }
        let was_damaged = !complaints.is_empty();
        Self { spill, was_damaged, failed: false, waiting: BTreeSet::new(), due: now }
    }

    /// The unconfirmed bytes of this file are to be copied.
    pub fn push(&mut self, key: FileKey) {
        self.waiting.insert(key);
    }

    /// When there is something to copy.
    pub fn due(&self) -> Option<Instant> {
        (!self.waiting.is_empty()).then_some(self.due)
    }

    /// Counts what was found to be damaged as it was read.
    pub fn count_damaged(&self, table: &mut Table) {
        let damaged = self.spill.lock().take_damaged();
        for (id, bytes) in damaged {
            if let Some(file) = table.by_id(id) {
                file.lose("spill_damaged", bytes);
            }
        }
    }

    /// Takes in files that only the spill knows, from before a restart.
    pub fn take_in(&mut self, table: &mut Table, now: Instant) {
        let reason = if self.was_damaged { "spill_damaged" } else { "spill_full" };
        let headers = self.spill.lock().files();
        for header in headers {
            table.take_in_spilled(header, &self.spill, reason, now);
        }
    }

    /// Copies about `budget` unconfirmed bytes of files that have no name any more.
    pub fn work(&mut self, table: &mut Table, now: Instant, budget: u64) {
        if self.waiting.is_empty() || now < self.due {
            return;
        }
        let mut left = budget;
        while left > 0
            && let Some(key) = self.waiting.pop_first()
        {
            match self.copy_some(table, key, left, now) {
                Ok((copied, is_done)) => {
                    left = left.saturating_sub(copied);
                    if !is_done {
                        self.waiting.insert(key);
                    }
                    if std::mem::take(&mut self.failed) {
                        tracing::info!("files that vanish are kept in the spill again");
                    }
                }
                Err(error) => {
                    self.waiting.insert(key);
                    self.due = now + PAUSE;
                    if !std::mem::replace(&mut self.failed, true) {
                        tracing::error!(%error, "could not spill a log file that was deleted before all its lines were taken: it is kept open");
                    }
                    return;
                }
            }
        }
    }

    /// How much was copied of one file, and whether there is nothing more of it for now.
    fn copy_some(
        &mut self,
        table: &mut Table,
        key: FileKey,
        budget: u64,
        now: Instant,
    ) -> io::Result<(u64, bool)> {
        let Some(file) = table.get_mut(key) else { return Ok((0, true)) };
        let Some(header) = file.spill_header().filter(|_| file.is_to_be_spilled()) else {
            return Ok((0, true));
        };
        let Some(tail) = &file.tail else { return Ok((0, true)) };
        // A compressed one is unpacked once more, beside the turns that read it.
        let tail = tail.another()?;
        let begin = file.spilled_to.max(file.confirmed_to());
        let (mut at, mut dropped, mut block) = (begin, Vec::new(), Vec::new());
        let (mut is_end, mut is_full, is_deleted) = (false, false, file.unlinked);
        let mut spill = self.spill.lock();
        let mut kept = Ok(());
        while !is_end && at - begin < budget {
            if let Err(error) = tail.read_block(at, &mut block, FRAME) {
                tracing::warn!(path = %header.path.display(), %error, "a deleted log file can't be read to its end");
                block.clear();
            }
            is_end = block.len() < FRAME;
            let whole = memchr::memrchr(b'\n', &block).map(|newline| newline + 1).filter(|_| !is_end);
            block.truncate(whole.unwrap_or(block.len()));
            if block.is_empty() {
                break;
            }
            // What is still there takes nobody's place.
            match spill.append(&header, at, &block, is_deleted.then_some(&mut dropped)) {
                Ok(false) if !is_deleted => {
                    is_full = true;
                    break;
                }
                Ok(_) => {}
                Err(error) => {
                    kept = Err(error);
                    break;
                }
            }
            at += block.len() as u64;
        }
        let synced = spill.sync();
        drop(spill);
        self.count_dropped(table, &dropped);
        kept.and(synced)?;
        let Some(file) = table.get_mut(key) else { return Ok((0, true)) };
        file.spilled_to = at;
        if is_full {
            file.doomed = false;
            return Ok((at - begin, true));
        }
        if let Some(size) = tail.unpacked_size() {
            file.size = size;
        }
        if is_end && file.unlinked && file.is_complete(now) && at >= file.size {
            let missing = self.spill.lock().missing(header.id, file.read_to, file.size);
            tracing::info!(path = %file.path.display(), bytes = file.lag(), "the log file was deleted before all its lines were taken, they are kept in the spill");
            table.read_spilled(key, &self.spill);
            count_lost(table.by_id(header.id), missing);
        }
        Ok((at - begin, is_end))
    }

    /// Counts what is gone of files that are read from the spill; others are still there themselves.
    fn count_dropped(&self, table: &mut Table, dropped: &[Dropped]) {
        for gone in dropped {
            let file = table.by_id(gone.id);
            let Some(file) = file.filter(|file| file.tail.as_ref().is_some_and(Tail::is_spilled)) else {
                continue;
            };
            let unread = gone.span.start.max(file.read_to);
            let missing = self.spill.lock().missing(gone.id, unread, gone.span.end.max(unread));
            count_lost(Some(file), missing);
        }
    }

    /// What is confirmed, and written as such, need not be kept.
    pub fn tidy(&self, table: &mut Table) {
        let ids = self.spill.lock().ids();
        for id in ids {
            let confirmed = table.by_id(id).map_or(u64::MAX, |file| file.confirmed_to());
            self.spill.lock().confirmed(id, confirmed);
        }
    }
}

fn count_lost(file: Option<&mut LogFile>, bytes: u64) {
    if let Some(file) = file.filter(|_| bytes > 0) {
        tracing::warn!(path = %file.path.display(), bytes, "the spill is full, log lines are lost");
        file.lose("spill_full", bytes);
    }
}
