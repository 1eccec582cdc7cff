//! What the reader knows of one log file: where it is, who it is, how far it is read and confirmed.

use std::{
    collections::VecDeque,
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    ack::Acks,
    batch::BatchFile,
    checkpoint::{CHECK_BYTES, Check, Content, Position},
    discover::Found,
    format::{Format, syslog::Guess},
    join::Joiner,
    output::LINE_TOO_LONG,
    process::Process,
    record::{FileFacts, FileId, IDENTITY_BYTES, Inode, Origin, path_text},
    shape::Shape,
    spill::Header,
    status::FileStatus,
    tail::{Tail, hash_of},
};
use crate::metrics::ledger::{Account, Amount};

/// How long a file that nobody should write to any more has to be still before it counts as complete: the container runtime
/// goes on writing to a rotated file until it is told to open the new one.
pub const GRACE: Duration = Duration::from_secs(5);

/// What is kept of the beginning of a line in parts when there is no memory for more, in bytes.
const SHED_TO: usize = 4096;

/// How long what the sink holds waits at first; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// How long what the sink held so many times waits until it is tried again.
pub fn held_for(times: u32, longest: Duration) -> Duration {
    let doubled = 1_u32 << times.saturating_sub(1).min(16);
    FIRST_PAUSE.saturating_mul(doubled).min(longest)
}

/// One log file.
#[derive(Debug)]
pub struct LogFile {
    /// `None` when everything of it is confirmed and no more will come, and while a truncated one was not found in a copy.
    pub tail: Option<Tail>,
    /// Where the file is now.
    pub path: Arc<Path>,
    /// The name under which it is or was written to; the same one while it is there.
    pub active_path: Arc<Path>,
    /// Who writes it.
    pub origin: Origin,
    /// The number of the source that found it.
    pub source: usize,
    /// Where it lies on disk.
    pub inode: Inode,
    /// Who it is, once its first line is known.
    pub identity: Option<Identity>,
    /// How its lines are written, if it is a container's.
    pub format: Format,
    /// The same of a file that is not a container's, as it is made up line by line.
    pub guess: Guess,
    /// Lines and parts waiting for the end of their event.
    pub joiner: Joiner,
    /// Batches waiting for their confirmation.
    pub acks: Acks,
    /// Where a line starts that is longer than allowed and whose end was not reached yet.
    pub overlong: Option<u64>,
    /// Up to here text that is longer than allowed was counted.
    pub cut_to: u64,
    /// The sink holds its lines: it is not read before.
    pub paused: Option<Instant>,
    /// It is not read before, unless the cluster says sooner who its pod is.
    pub awaits_pod: Option<Instant>,
    /// What was read last, to know the file again.
    pub ends: Ends,
    /// When it was truncated: what it held then is looked for in a copy.
    pub truncated: Option<Instant>,
    /// When it was closed and found no more.
    pub vanished: Option<Instant>,
    /// Every unconfirmed byte below is in the spill as well.
    pub spilled_to: u64,
    /// Every byte below was taken.
    pub read_to: u64,
    /// Where the last read ended: what lies between [`Self::read_to`] and here is no whole line.
    pub tried: u64,
    /// Bytes in the file at the last look.
    pub size: u64,
    /// When it was last written to, as of the last look.
    pub modified: i64,
    /// Bytes on disk of a compressed one, which does not change.
    pub packed_size: u64,
    /// Whether the last look around found it.
    pub present: bool,
    /// Whether no name leads to it any more.
    pub unlinked: bool,
    /// Whether it is the next one to be deleted.
    pub doomed: bool,
    /// Whether it waits in the queue of files to read.
    pub queued: bool,
    /// The watch that reports its next change: until then nobody looks at it.
    pub watch: Option<i32>,
    /// When it last grew.
    pub grew: Instant,
    /// When it was last confirmed up to its end.
    pub caught_up: Instant,
    /// When anything of it was confirmed last.
    pub moved: Instant,
    /// What went wrong last.
    pub error: Option<String>,
}

/// What follows from a file's identity.
#[derive(Debug)]
pub struct Identity {
    /// The facts that travel with its lines.
    pub facts: Arc<FileFacts>,
    /// By what the checkpoint knows it: who it was before it was truncated for the first time, or, for what it held before a
    /// truncation, that with the generation.
    pub base: FileId,
    /// Length and hash of its beginning: another one means that it was truncated and written anew.
    pub first: (usize, u64),
    /// How often it was truncated under the same first line.
    pub generation: u32,
    /// Its share of the documents, rendered for its turns: [`super::table::Table::for_turn`].
    pub shape: Option<Shape>,
    /// Where its lines are counted.
    pub account: Arc<Account>,
    /// What is done with its lines, if anything is.
    pub process: Option<Box<Process>>,
}

/// The last bytes of what was read, as far back as batches wait for their confirmation.
#[derive(Debug, Default)]
pub struct Ends(VecDeque<Check>);

impl Ends {
    /// What is known of a file that is read on.
    pub fn known(check: Option<Check>) -> Self {
        Self(check.into_iter().collect())
    }

    fn push(&mut self, at: u64, bytes: &[u8]) {
        let last = &bytes[bytes.len().saturating_sub(CHECK_BYTES)..];
        if !last.is_empty() {
            self.0.push_back(Check { at, length: last.len(), hash: hash_of(last) });
        }
    }

    /// The last one that is confirmed.
    fn check(&self, confirmed: u64) -> Option<Check> {
        self.0.iter().rev().find(|check| check.at <= confirmed).copied()
    }

    /// What is beyond is read again.
    fn back_to(&mut self, confirmed: u64) {
        self.0.retain(|check| check.at <= confirmed);
    }

    fn passed(&mut self, confirmed: u64) {
        while self.0.get(1).is_some_and(|next| next.at <= confirmed) {
            self.0.pop_front();
        }
    }
}

/// Whether a file holds these bytes.
pub fn verify(check: Option<Check>, tail: &Tail) -> io::Result<bool> {
    let Some(Check { at, length, hash }) = check else { return Ok(true) };
    Ok(tail.hash_at(at.saturating_sub(length as u64), length)? == hash)
}

impl LogFile {
    /// A file just opened; nobody knows yet who it is.
    pub fn new(found: Found, tail: Tail, inode: Inode, now: Instant) -> Self {
        Self {
            tail: Some(tail),
            path: found.path,
            active_path: found.active_path,
            origin: found.origin,
            source: found.source,
            inode,
            identity: None,
            format: Format::Unknown,
            guess: Guess::default(),
            joiner: Joiner::default(),
            acks: Acks::default(),
            overlong: None,
            cut_to: 0,
            paused: None,
            awaits_pod: None,
            ends: Ends::default(),
            truncated: None,
            vanished: None,
            spilled_to: 0,
            read_to: 0,
            tried: 0,
            size: 0,
            modified: 0,
            packed_size: 0,
            present: true,
            unlinked: false,
            doomed: false,
            queued: false,
            watch: None,
            grew: now,
            caught_up: now,
            moved: now,
            error: None,
        }
    }

    /// Every byte below is confirmed.
    pub fn confirmed_to(&self) -> u64 {
        let process = self.process().and_then(Process::held_from);
        let held = [self.joiner.pending_from(), self.overlong, process];
        self.acks.position(held.into_iter().flatten().fold(self.read_to, u64::min))
    }

    /// Enters into the account what was read since this was done last, and what turned out to be gone.
    pub fn count_read(&mut self) -> Amount {
        let Self { identity, acks, joiner, overlong, .. } = self;
        let Some(identity) = identity else { return Amount::default() };
        let is_processed = identity.process.as_ref().is_some_and(|process| process.held_from().is_some());
        acks.count_read(&identity.account, is_processed || overlong.is_some() || !joiner.is_empty())
    }

    /// So many bytes of a line were passed over.
    pub fn count_cut(&self, bytes: u64) {
        if let Some(identity) = &self.identity {
            identity.account.lock().lost(LINE_TOO_LONG, Amount::of_bytes(bytes));
        }
    }

    /// So many bytes from [`Self::read_to`] on will never be read.
    pub fn lose(&mut self, reason: &'static str, bytes: u64) {
        if self.identity.is_none() {
            return;
        }
        let mut held = self.joiner.amount();
        held.add(self.process().map(Process::held).unwrap_or_default());
        let read_before = self.acks.lose(bytes, held);
        let Some(identity) = &self.identity else { return };
        let mut figures = identity.account.lock();
        figures.gone(reason, read_before);
        figures.lost(reason, Amount::of_bytes(bytes - read_before.bytes));
    }

    /// Nothing of it will be read any more: what it was set back to read again is lost.
    pub fn give_up(&mut self, reason: &'static str) {
        if let Some(identity) = &self.identity {
            identity.account.lock().gone(reason, self.acks.give_up());
        }
    }

    /// Everything of it in this batch is settled.
    pub fn settled(&mut self, batch: u64, part: &BatchFile, now: Instant) {
        if part.epoch == self.acks.epoch() {
            self.moved = now;
        }
        let settled = self.acks.settled(batch, part);
        self.passed();
        if let Some(identity) = &self.identity {
            settled.enter(&identity.account);
        }
    }

    /// Forgets what only mattered before everything below the position was confirmed.
    pub fn passed(&mut self) {
        let confirmed = self.confirmed_to();
        self.acks.passed(confirmed);
        self.joiner.passed(confirmed);
        self.ends.passed(confirmed);
        if let Some(process) = self.process_mut() {
            process.passed(confirmed);
        }
    }

    fn process(&self) -> Option<&Process> {
        self.identity.as_ref().and_then(|identity| identity.process.as_deref())
    }

    fn process_mut(&mut self) -> Option<&mut Process> {
        self.identity.as_mut().and_then(|identity| identity.process.as_deref_mut())
    }

    /// The sink holds lines of it: it is read again from where nothing is confirmed, but not before a time.
    pub fn set_back(&mut self, now: Instant, longest: Duration) {
        let confirmed = self.confirmed_to();
        (self.read_to, self.tried, self.overlong) = (confirmed, confirmed, None);
        let pending = self.joiner.pending();
        self.joiner.reset();
        if let Some(process) = self.process_mut() {
            process.set_back();
        }
        self.ends.back_to(confirmed);
        let times = self.acks.set_back(pending);
        self.paused = Some(now + held_for(times, longest));
    }

    /// Gives back what is held of events and lines that are not whole: it is read again when there is more, and what was taken
    /// since is passed over. In a file where that would have to be sought too far back, only beginnings are kept.
    pub fn release_parts(&mut self, furthest: u64) {
        let Some(start) = self.joiner.pending_from() else { return };
        // From within another event, that one's rest would be read as one of its own.
        let start = self.acks.outside(start);
        if self.overlong.is_some() || self.read_to - start > furthest {
            return self.joiner.shed(SHED_TO);
        }
        self.read_to = start;
        if self.joiner.has_cut() {
            // There was no room for an event that is over: nothing more has to come.
            self.tried = start;
        }
        self.acks.step_back(self.joiner.pending());
        self.joiner.reset();
        self.ends.back_to(start);
    }

    /// Keeps no more memory than it takes to know it again: most files are quiet most of the time.
    pub fn shrink(&mut self) {
        self.acks.shrink();
        self.ends.0.shrink_to_fit();
        if let Some(identity) = &mut self.identity {
            identity.shape = None;
        }
    }

    /// Whether it may be read. While the sink holds its lines, a few of them are tried at a time.
    pub fn may_be_read(&self, now: Instant) -> bool {
        let is_over = |wait: Option<Instant>| wait.is_none_or(|until| now >= until);
        is_over(self.awaits_pod) && (!self.is_held() || self.acks.is_clear() && is_over(self.paused))
    }

    /// Whether the sink held its lines when it was tried last.
    pub fn is_held(&self) -> bool {
        self.acks.is_held()
    }

    /// These bytes before [`Self::read_to`] were just taken.
    pub fn remember_end(&mut self, taken: &[u8]) {
        let at = self.read_to;
        if taken.len() >= CHECK_BYTES || taken.len() as u64 >= at {
            self.ends.push(at, taken);
        } else if let Some(tail) = self.tail.as_ref().filter(|tail| tail.is_file()) {
            let length = at.min(CHECK_BYTES as u64);
            let mut bytes = Vec::new();
            match tail.read_block(at - length, &mut bytes, length as usize) {
                Ok(()) => self.ends.push(at, &bytes),
                Err(_) => self.ends.push(at, taken),
            }
        } else {
            self.ends.push(at, taken);
        }
    }

    /// Whether `tail` holds what was confirmed of this file.
    pub fn is_held_by(&self, tail: &Tail) -> io::Result<bool> {
        verify(self.ends.check(self.confirmed_to()), tail)
    }

    /// Whether its bytes are, or will soon be, gone with its descriptor, and some are not confirmed.
    pub fn is_to_be_spilled(&self) -> bool {
        (self.unlinked || self.doomed && self.spilled_to < self.size)
            && self.identity.is_some()
            && self.tail.as_ref().is_some_and(|tail| !tail.is_spilled())
            && (self.confirmed_to() < self.size || !self.acks.is_clear())
    }

    /// Whether the sink has taken nothing of it for a while although there is something to take.
    pub fn is_stuck(&self, now: Instant) -> bool {
        self.lag() > 0 && now.saturating_duration_since(self.caught_up.max(self.moved)) >= GRACE
    }

    /// What is written before its spilled bytes.
    pub fn spill_header(&self) -> Option<Header> {
        let identity = self.identity.as_ref()?;
        Some(Header {
            id: identity.base,
            document: identity.facts.id,
            generation: identity.generation,
            first: identity.first,
            path: self.path.to_path_buf(),
            active_path: self.active_path.to_path_buf(),
            origin: self.origin.clone(),
            source: self.source,
            inode: self.inode,
            size: self.size,
        })
    }

    /// Bytes not yet confirmed.
    pub fn lag(&self) -> u64 {
        self.size.saturating_sub(self.confirmed_to())
    }

    /// Whether it is read from a compressed copy.
    pub fn is_archive(&self) -> bool {
        self.tail.as_ref().is_some_and(Tail::is_gzip)
    }

    /// Nothing is read of it for now: what reading takes in memory is let go.
    pub fn rest(&self) {
        if let Some(tail) = &self.tail {
            tail.rest();
        }
    }

    /// Whether another file has its name now, or none.
    pub fn is_dying(&self) -> bool {
        self.unlinked || !self.present || self.path != self.active_path
    }

    /// Whether it is dying and was still for long enough to hold nothing more than it holds now. Nobody writes to a copy.
    pub fn is_complete(&self, now: Instant) -> bool {
        let is_copy = self.tail.as_ref().is_some_and(|tail| !tail.is_file());
        is_copy || self.is_dying() && now.saturating_duration_since(self.grew) >= GRACE
    }

    /// Whether there is nothing to do with it before it is written to again, and that was so for a while.
    pub fn is_quiet(&self, now: Instant) -> bool {
        self.lag() == 0
            && self.acks.is_clear()
            && !self.queued
            && !self.is_dying()
            && self.error.is_none()
            && self.truncated.is_none()
            && now.saturating_duration_since(self.grew) >= GRACE
    }

    /// Whether an event may be ended where it is: nothing more is there, so it was never given out with more lines, also not
    /// before a crash. Copies are read to their end anyway.
    pub fn may_be_cut(&self) -> bool {
        self.tail.as_ref().is_some_and(Tail::is_file) && self.size <= self.read_to.max(self.tried)
    }

    /// Whether reading would bring something new.
    pub fn wants_turn(&self, now: Instant) -> bool {
        let process = self.process();
        let is_in_a_line = self.joiner.pending_from().is_some()
            || self.overlong.is_some()
            || process.and_then(Process::held_from).is_some();
        let is_due = process.and_then(Process::due).is_some_and(|due| now >= due);
        let has_more = self.size > self.read_to.max(self.tried)
            || self.is_complete(now) && (self.size > self.read_to || is_in_a_line);
        (has_more || is_due) && self.may_be_read(now)
    }

    /// Whether nothing of it has to be done any more at `now`. A file that has a name, but was not found under it, may be
    /// found again: its directory could not be listed, or the new file of its name is not made yet.
    pub fn is_finished(&self, now: Instant) -> bool {
        let may_come_back = !self.present && !self.unlinked;
        self.is_complete(now) && !may_come_back && self.confirmed_to() >= self.size && self.acks.is_clear()
    }

    /// Whether what it holds now is not what was read of it. It was just written to.
    pub fn is_written_anew(&self, tail: &Tail) -> io::Result<bool> {
        if !tail.is_file() {
            return Ok(false);
        }
        let Some(Identity { first: (length, hash), .. }) = self.identity else { return Ok(false) };
        if self.size < self.read_to {
            return Ok(true);
        }
        // The first line may be the same each time; what was read last hardly ever is.
        match self.ends.0.back() {
            Some(&last) => Ok(!verify(Some(last), tail)?),
            None => Ok(tail.hash_at(0, length.min(IDENTITY_BYTES))? != hash),
        }
    }

    /// Notes that nothing is wrong with it any more.
    pub fn mend(&mut self) {
        if self.error.take().is_some() {
            tracing::info!(path = %self.path.display(), "the log file is read again");
        }
    }

    /// Notes that something went wrong with it; said once.
    pub fn fail(&mut self, what: &str, error: &io::Error) {
        let sentence = format!("{what}: {error}");
        if self.error.as_ref() != Some(&sentence) {
            tracing::warn!(path = %self.path.display(), error = sentence, "a log file is not read");
            self.error = Some(sentence);
        }
    }

    /// What the checkpoint remembers of it at `now` (seconds since the epoch).
    pub fn position(&self, now: u64) -> Option<Position> {
        let identity = self.identity.as_ref()?;
        Some(Position {
            id: identity.base,
            offset: self.confirmed_to(),
            generation: identity.generation,
            inode: self.inode,
            path: self.path.to_path_buf(),
            seen: now,
            content: Some(Content {
                active: self.active_path.to_path_buf(),
                document: identity.facts.id,
                first: identity.first,
                check: self.ends.check(self.confirmed_to()),
                truncated: self.truncated.is_some(),
                cuts: self.joiner.cuts().to_vec(),
            }),
        })
    }

    /// How its lines are written, as far as is known.
    pub fn format(&self) -> Format {
        if self.origin.container().is_some() { self.format } else { self.guess.format() }
    }

    /// Its row in the table of files, without notes.
    pub fn status(&self, now: Instant) -> FileStatus {
        let container = self.origin.container();
        let lag_bytes = self.lag();
        FileStatus {
            path: path_text(&self.path),
            namespace: container.map(|container| container.namespace.clone()),
            pod: container.map(|container| container.pod.clone()),
            container: container.map(|container| container.name.clone()),
            format: self.format().as_str(),
            offset: self.confirmed_to(),
            size: self.size,
            lag_bytes,
            lag_seconds: (lag_bytes > 0).then(|| now.saturating_duration_since(self.caught_up).as_secs_f64()),
            state: self.state(),
            last_error: self.error.clone(),
            notes: Vec::new(),
        }
    }

    fn state(&self) -> &'static str {
        if self.error.is_some() {
            "error"
        } else if self.identity.is_none() {
            "waiting"
        } else if self.is_dying() {
            "rotated"
        } else {
            "open"
        }
    }
}
