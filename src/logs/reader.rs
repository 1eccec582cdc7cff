//! The reader's thread: finds files, reads their lines in turns, fills batches, keeps the positions.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use tokio::sync::mpsc;

use super::{
    ack::Settled,
    batch::{Batch, BatchFile, BatchLimits, FileKey},
    checkpoint::Checkpoint,
    discover::{Source, Watcher, enumerate},
    feed::{FeedLimits, Feeds, is_feed},
    join::Cut,
    mail::{Mail, Mailbox},
    multiline::Multiline,
    output::Output,
    shape::Encoding,
    spill::{self, FRAME, SharedSpill},
    table::Table,
    tail::Tail,
    turn::{Ended, TURN, Turn},
};
use crate::metrics::own::LogMetrics;

/// How often directories are listed although nobody said that they changed.
const ENUMERATE_EVERY: Duration = Duration::from_secs(5);
/// How soon directories are listed again when they keep changing, while there are few files.
const ENUMERATE_PAUSE: Duration = Duration::from_millis(100);
/// How often files are asked for their size, while there are few.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often positions are written when they move, while there are few.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);
/// How long what the sink holds waits before it is tried again, while there are few files.
const LONGEST_HOLD: Duration = Duration::from_secs(30);

/// How long to wait after the spill could not be written.
const SPILL_PAUSE: Duration = Duration::from_secs(5);
/// Bytes that are spilled before the files are read again.
const SPILL_STEP: u64 = 4 << 20;

mod held;

/// What the reader is told at start.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to look for log files, and the form in which the sink takes their lines.
    pub sources: Vec<(Source, Encoding)>,
    /// On the very first run, at most this much history is read of each file, in bytes.
    pub first_run_bytes: u64,
    /// How lines are put together, by number of the source; without an entry it is `auto`.
    pub multiline: Vec<Multiline>,
    /// Longer lines are cut, in bytes.
    pub max_line: usize,
    /// Bytes of events that are not whole yet, of all files together.
    pub max_held: usize,
    /// The batches.
    pub batch: BatchLimits,
    /// Where positions are kept, and what is spilled; exists.
    pub state_dir: PathBuf,
    /// How much may be spilled.
    pub spill: spill::Limits,
    /// Where the host's root is seen, for links that lead nowhere here.
    pub root: PathBuf,
}

/// The reader; [`Reader::run`] is its thread.
pub struct Reader {
    table: Table,
    /// What comes as numbered records, not as lines of a file.
    feeds: Feeds,
    output: Output,
    mailbox: Mailbox,
    watcher: Watcher,
    checkpoint: Checkpoint,
    spill: SharedSpill,
    /// Whether the spill was damaged when it was opened.
    spill_was_damaged: bool,
    spill_failed: bool,
    /// Files whose unconfirmed bytes go into the spill.
    vanishing: BTreeSet<FileKey>,
    /// Files with unread bytes, in the order of their turns.
    turns: VecDeque<FileKey>,
    /// No buffer is free: nothing is read until a batch comes back.
    blocked: bool,
    stopped: bool,
    moved: bool,
    checkpoint_failed: bool,
    buffer: Vec<u8>,
    due: Due,
    sources: Vec<Source>,
    root: PathBuf,
    /// Whether it was said that links are followed under that root.
    said_root: bool,
    max_line: usize,
    max_held: usize,
    /// The same that are held, at most: what was given out since the last look is still counted.
    held: usize,
    metrics: LogMetrics,
    /// The namespaces of the files that are open.
    namespaces: Vec<String>,
    in_flight: Arc<AtomicU64>,
    ready: Option<Box<dyn FnOnce() + Send>>,
}

/// When things are to be done again.
struct Due {
    enumerate: Instant,
    enumerated: Instant,
    look: Instant,
    checkpoint: Instant,
    spill: Instant,
}

impl Reader {
    /// A reader with what the state directory knows. `ready` is called once, after the first look around.
    pub fn new(
        options: Options,
        queue: mpsc::Sender<Batch>,
        mailbox: Mailbox,
        metrics: LogMetrics,
        in_flight: Arc<AtomicU64>,
        ready: Box<dyn FnOnce() + Send>,
    ) -> Self {
        let checkpoint = Checkpoint::new(&options.state_dir);
        let mut known = checkpoint.load();
        for complaint in &known.complaints {
            tracing::warn!("{complaint}; lines since the last good positions are read again");
        }
        let (spill, complaints) = SharedSpill::open(&options.state_dir.join("spill"), options.spill);
        for complaint in &complaints {
            tracing::error!("{complaint}");
        }
        let now = Instant::now();
        let limits = FeedLimits { first_run_bytes: options.first_run_bytes, max_line: options.max_line };
        let feeds = Feeds::new(&options.sources, &mut known, limits, metrics.clone());
        let (sources, encodings) = options.sources.into_iter().unzip();
        Self {
            table: Table::new(known, options.first_run_bytes, encodings, options.multiline, metrics.clone()),
            feeds,
            output: Output::new(
                options.batch,
                queue,
                options.max_line,
                metrics.clone(),
                Arc::clone(&in_flight),
            ),
            mailbox,
            watcher: Watcher::new(),
            checkpoint,
            spill,
            spill_was_damaged: !complaints.is_empty(),
            spill_failed: false,
            vanishing: BTreeSet::new(),
            turns: VecDeque::new(),
            blocked: false,
            stopped: false,
            moved: false,
            checkpoint_failed: false,
            buffer: Vec::new(),
            due: Due { enumerate: now, enumerated: now, look: now, checkpoint: now, spill: now },
            sources,
            root: options.root,
            said_root: false,
            max_line: options.max_line,
            max_held: options.max_held,
            held: 0,
            metrics,
            namespaces: Vec::new(),
            in_flight,
            ready: Some(ready),
        }
    }

    /// Works until it is told to finish.
    pub fn run(mut self) {
        loop {
            let now = Instant::now();
            if !self.step(now) {
                break;
            }
            self.sleep(now);
        }
        // Nobody else will hold what has no name any more.
        self.spill_vanishing(Instant::now(), u64::MAX);
        self.write_positions(Instant::now(), true);
    }

    /// Does what is due at `now`, without waiting. Whether to go on.
    fn step(&mut self, now: Instant) -> bool {
        self.mailbox.hush();
        if !self.take_mail(now) {
            return false;
        }
        if !self.stopped {
            self.look_around(now);
            let has_looked = self.look_at_files(now);
            self.moved |= self.feeds.look(now);
            self.spill_vanishing(now, SPILL_STEP);
            self.read_turns(now);
            if has_looked && now >= self.due.checkpoint {
                self.give_out_quiet(now);
            }
            self.read_feeds(now);
            self.output.close_aged(now, false);
        }
        self.write_positions(now, false);
        true
    }

    /// Whether to go on.
    fn take_mail(&mut self, now: Instant) -> bool {
        while let Some(mail) = self.mailbox.take() {
            match mail {
                Mail::Confirmed(batch) => self.confirm(batch, now),
                Mail::Files(reply) => {
                    // Who asked may have gone meanwhile.
                    let rows = self.feeds.status(now).into_iter();
                    let _ = reply.send(self.table.status(now).into_iter().chain(rows).collect());
                }
                Mail::Stop => {
                    self.stopped = true;
                    let keys = self.table.keys();
                    self.give_out(&keys, Cut::Whole, now);
                    self.output.close(now);
                }
                Mail::Finish => return false,
            }
        }
        true
    }

    fn confirm(&mut self, batch: Batch, now: Instant) {
        for part in &batch.files {
            if part.held {
                self.set_back(part, now);
                continue;
            }
            let settled = if is_feed(part.key) {
                self.feeds.settled(batch.number, part)
            } else {
                self.table.get_mut(part.key).map(|file| file.settled(batch.number, part, now))
            };
            let Settled { confirmed, lines } = settled.unwrap_or_else(|| Settled::whole(part));
            let namespace = [part.facts.origin.namespace()];
            self.metrics.acked_lines.with_label_values(&namespace).inc_by(confirmed.lines);
            self.metrics.acked_bytes.with_label_values(&namespace).inc_by(confirmed.bytes);
            self.in_flight.fetch_sub(lines, Relaxed);
        }
        self.output.give_back(batch);
        self.blocked = false;
        self.moved = true;
    }

    /// The sink holds some of these lines: they wait where they were read from, and others go on. Their lines stay in flight.
    fn set_back(&mut self, part: &BatchFile, now: Instant) {
        // However many files are held, trying them again stays cheap.
        let longest = LONGEST_HOLD.max(Duration::from_millis(10 * self.table.len() as u64));
        if is_feed(part.key) {
            self.feeds.set_back(part, now, longest);
        } else if let Some(file) = self.table.get_mut(part.key).filter(|file| file.acks.epoch() == part.epoch)
        {
            file.set_back(now, longest);
        }
    }

    fn look_around(&mut self, now: Instant) {
        if self.watcher.drain() {
            // A file costs some microseconds: with many of them names may change all the time.
            let pause = ENUMERATE_PAUSE.max(Duration::from_millis(self.table.len() as u64 / 10));
            self.due.enumerate = self.due.enumerate.min(self.due.enumerated + pause);
        }
        if now < self.due.enumerate {
            return;
        }
        let found = enumerate(&self.sources, &self.root);
        if found.under_root && !std::mem::replace(&mut self.said_root, true) {
            tracing::info!(root = %self.root.display(), "log files are links to files that are not there, they are read under the host's root");
        }
        self.watcher.watch(&found.directories);
        self.table.reconcile(found, now);
        self.due.enumerated = now;
        self.due.enumerate = now + ENUMERATE_EVERY;
        self.due.look = now;
    }

    /// Whether it was time to.
    fn look_at_files(&mut self, now: Instant) -> bool {
        if now < self.due.look {
            return false;
        }
        for key in self.table.keys() {
            self.look_at_file(key, now);
        }
        self.in_flight.fetch_sub(self.table.give_up_truncated(now), Relaxed);
        self.moved |= self.table.first_run_is_over();
        if let Some(ready) = self.ready.take() {
            self.take_in_spilled(now);
            ready();
        }
        self.count_files(now);
        // A look at a file is about a microsecond: many quiet files are asked less often.
        self.due.look = now
            + LOOK_EVERY.max(Duration::from_millis(self.table.len() as u64 / 2)).min(Duration::from_secs(2));
        true
    }

    fn look_at_file(&mut self, key: FileKey, now: Instant) {
        let Some(file) = self.table.get_mut(key) else { return };
        let Some(tail) = &file.tail else { return };
        let look = match tail.look() {
            Ok(look) => look,
            Err(error) => return file.fail("could not be looked at", &error),
        };
        let was_unlinked = std::mem::replace(&mut file.unlinked, look.unlinked);
        if look.unlinked && !was_unlinked {
            // A compressed copy may be there now.
            self.table.look_for_copies();
            self.due.enumerate = now;
            return;
        }
        if file.is_to_be_spilled() {
            self.vanishing.insert(key);
        }
        // A file may be truncated and grow to its old size between two looks.
        if look.size != file.size || look.modified != file.modified {
            file.grew = now;
            file.modified = look.modified;
            let held = std::mem::replace(&mut file.size, look.size);
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
        match self.table.identify(key, now) {
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
            if !file.queued {
                file.queued = true;
                self.turns.push_back(key);
            }
        } else if file.is_finished(now) {
            file.tail = None;
            if file.unlinked {
                self.table.let_go(key, now);
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
        let mut open = 0;
        let mut lags: BTreeMap<&str, (u64, f64)> = BTreeMap::new();
        for file in self.table.files().filter(|file| file.tail.is_some()) {
            open += 1;
            let lag = lags.entry(file.origin.namespace()).or_default();
            let bytes = file.lag();
            lag.0 += bytes;
            if bytes > 0 {
                lag.1 = lag.1.max(now.saturating_duration_since(file.caught_up).as_secs_f64());
            }
        }
        self.metrics.files_open.set(open);
        for gone in self.namespaces.iter().filter(|name| !lags.contains_key(name.as_str())) {
            // They were made below; not to find one is as good.
            let _ = self.metrics.lag_bytes.remove_label_values(&[gone]);
            let _ = self.metrics.lag_seconds.remove_label_values(&[gone]);
        }
        for (namespace, (bytes, seconds)) in &lags {
            self.metrics.lag_bytes.with_label_values(&[namespace]).set(*bytes as i64);
            self.metrics.lag_seconds.with_label_values(&[namespace]).set(*seconds);
        }
        if !self.namespaces.iter().map(String::as_str).eq(lags.keys().copied()) {
            self.namespaces = lags.into_keys().map(str::to_owned).collect();
        }
    }

    /// Gives every file in the queue one turn.
    fn read_turns(&mut self, now: Instant) {
        for _ in 0..self.turns.len() {
            if self.blocked {
                return;
            }
            let Some(key) = self.turns.pop_front() else { return };
            let wants_more = self.read_turn(key, now);
            self.relieve(now);
            if wants_more && self.held > self.max_held {
                // It is read on until its event is whole.
                self.turns.push_front(key);
            } else if wants_more {
                self.turns.push_back(key);
            } else if let Some(file) = self.table.get_mut(key) {
                file.queued = false;
            }
        }
    }

    /// Reads a block of one file. Whether it wants another turn.
    fn read_turn(&mut self, key: FileKey, now: Instant) -> bool {
        let Some(file) = self.table.get_mut(key).filter(|file| file.may_be_read(now)) else { return false };
        let held = file.joiner.held_bytes();
        let turn = Turn { key, file, output: &mut self.output, max_line: self.max_line, now };
        let ended = turn.run(&mut self.buffer);
        let held = self.table.get_mut(key).map_or(0, |file| file.joiner.held_bytes()).saturating_sub(held);
        self.held += held;
        self.buffer.clear();
        self.buffer.shrink_to(TURN);
        let damaged = self.spill.lock().take_damaged_bytes();
        if damaged > 0 {
            self.metrics.lost_bytes.with_label_values(&["spill_damaged"]).inc_by(damaged);
        }
        self.blocked = ended == Ended::NoRoom;
        // One turn of a file that is held shows whether it still is.
        ended != Ended::Done && self.table.get_mut(key).is_some_and(|file| file.may_be_read(now))
    }

    /// Gives every feed one turn.
    fn read_feeds(&mut self, now: Instant) {
        if !self.blocked {
            self.blocked = !self.feeds.read(&mut self.output, now);
        }
    }

    /// Files that only the spill knows, from before a restart.
    fn take_in_spilled(&mut self, now: Instant) {
        let reason = if self.spill_was_damaged { "spill_damaged" } else { "spill_full" };
        let headers = self.spill.lock().files();
        for header in headers {
            if let Some(missing) = self.table.take_in_spilled(header, &self.spill, now) {
                self.metrics.lost_bytes.with_label_values(&[reason]).inc_by(missing);
            }
        }
        self.due.look = now;
    }

    /// Copies about `budget` unconfirmed bytes of files that have no name any more.
    fn spill_vanishing(&mut self, now: Instant, budget: u64) {
        if self.vanishing.is_empty() || now < self.due.spill {
            return;
        }
        let mut left = budget;
        while left > 0
            && let Some(key) = self.vanishing.pop_first()
        {
            match self.spill_some(key, left, now) {
                Ok((copied, is_done)) => {
                    left = left.saturating_sub(copied);
                    if !is_done {
                        self.vanishing.insert(key);
                    }
                    if std::mem::take(&mut self.spill_failed) {
                        tracing::info!("files that vanish are kept in the spill again");
                    }
                }
                Err(error) => {
                    self.vanishing.insert(key);
                    self.due.spill = now + SPILL_PAUSE;
                    if !std::mem::replace(&mut self.spill_failed, true) {
                        tracing::error!(%error, "could not spill a log file that was deleted before all its lines were taken: it is kept open");
                    }
                    return;
                }
            }
        }
    }

    /// How much was copied of one file, and whether there is nothing more of it for now.
    fn spill_some(&mut self, key: FileKey, budget: u64, now: Instant) -> std::io::Result<(u64, bool)> {
        let Some(file) = self.table.get_mut(key) else { return Ok((0, true)) };
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
        self.count_dropped(&dropped);
        kept.and(synced)?;
        let Some(file) = self.table.get_mut(key) else { return Ok((0, true)) };
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
            self.table.read_spilled(key, &self.spill);
            self.count_lost(missing);
        }
        Ok((at - begin, is_end))
    }

    /// Counts what is gone of files that are read from the spill; others are still there themselves.
    fn count_dropped(&mut self, dropped: &[spill::Dropped]) {
        for gone in dropped {
            let file = self.table.by_id(gone.id);
            let Some(file) = file.filter(|file| file.tail.as_ref().is_some_and(Tail::is_spilled)) else {
                continue;
            };
            let unread = gone.span.start.max(file.read_to);
            let missing = self.spill.lock().missing(gone.id, unread, gone.span.end.max(unread));
            self.count_lost(missing);
        }
    }

    fn count_lost(&self, bytes: u64) {
        if bytes > 0 {
            tracing::warn!(bytes, "the spill is full, log lines are lost");
            self.metrics.lost_bytes.with_label_values(&["spill_full"]).inc_by(bytes);
        }
    }

    /// What is confirmed, and written as such, need not be kept.
    fn tidy_spill(&mut self) {
        let ids = self.spill.lock().ids();
        for id in ids {
            let confirmed = self.table.by_id(id).map_or(u64::MAX, |file| file.confirmed_to());
            self.spill.lock().confirmed(id, confirmed);
        }
    }

    fn write_positions_now(&mut self, now: Instant) {
        self.moved = true;
        self.due.checkpoint = now;
    }

    fn write_positions(&mut self, now: Instant, last: bool) {
        if !self.moved || !last && now < self.due.checkpoint {
            return;
        }
        match self.checkpoint.write(self.feeds.positions().chain(self.table.positions())) {
            Ok(()) => {
                self.moved = false;
                if self.ready.is_none() {
                    self.tidy_spill();
                }
                if std::mem::take(&mut self.checkpoint_failed) {
                    tracing::info!("positions are written again");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.checkpoint_failed, true) {
                    tracing::error!(%error, "could not write the positions of log files: a restart would send lines again until the state directory is writable");
                }
            }
        }
        self.due.checkpoint = now + CHECKPOINT_EVERY.max(Duration::from_millis(self.table.len() as u64));
    }

    /// Sleeps until there is mail, a directory changed, or something is due; not at all while there is something to read.
    fn sleep(&mut self, now: Instant) {
        let has_more = !self.turns.is_empty() || self.feeds.has_more();
        if has_more && !self.blocked && !self.stopped {
            return;
        }
        let spills = !self.vanishing.is_empty() && !self.stopped;
        let mut wake =
            if self.stopped { now + ENUMERATE_EVERY } else { self.due.enumerate.min(self.due.look) };
        if !self.stopped {
            wake = self.output.due().into_iter().chain(self.feeds.due()).fold(wake, Instant::min);
        }
        if self.moved {
            wake = wake.min(self.due.checkpoint);
        }
        if spills {
            wake = wake.min(self.due.spill);
        }
        let pause = wake.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: pause.as_secs() as i64, tv_nsec: i64::from(pause.subsec_nanos()) };
        // Who looks around no more does not listen to what he would look at either: it would never be quiet.
        let looked_at = self.watcher.fd().into_iter().chain(self.feeds.fds(self.blocked));
        let fds = [self.mailbox.fd()].into_iter().chain(looked_at.filter(|_| !self.stopped));
        let mut fds: Vec<PollFd<'_>> = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            // Never seen; without the pause a broken poll would take a whole core.
            Err(error) => {
                tracing::error!(%error, "could not wait for log files");
                std::thread::sleep(LOOK_EVERY);
            }
        }
    }
}

#[cfg(test)]
mod tests;
