//! The reader's thread: finds files, reads their lines in turns, fills batches, keeps the positions.

mod held;
mod look;
mod quiet;
mod turns;

use std::{
    iter,
    path::PathBuf,
    sync::Arc,
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
    discover::{Source, enumerate},
    feed::{FeedLimits, Feeds, is_feed},
    join::Cut,
    mail::{Mail, Mailbox},
    multiline::Multiline,
    output::Output,
    process::{self, Processors},
    queue::Queue,
    shape::Encoding,
    spill,
    spiller::Spiller,
    table::Table,
    watcher::Watcher,
};
use crate::{kubernetes::known::Pods, metrics::own::LogMetrics};

/// How often directories are listed although nobody said that they changed, where nobody would.
const ENUMERATE_EVERY: Duration = Duration::from_secs(5);
/// How often directories are listed although all of them are watched, while there are few.
const DOUBT_EVERY: Duration = Duration::from_secs(120);
/// How soon directories are listed again when they keep changing, while there are few files.
const ENUMERATE_PAUSE: Duration = Duration::from_millis(100);
/// How often files are asked for their size, while there are few.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often positions are written when they move, while there are few.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);
/// How long what the sink holds waits before it is tried again, while there are few files.
const LONGEST_HOLD: Duration = Duration::from_secs(30);

/// Bytes that are spilled before the files are read again.
const SPILL_STEP: u64 = 4 << 20;

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
    /// The batches.
    pub batch: BatchLimits,
    /// What may be held in memory besides.
    pub memory: MemoryLimits,
    /// Where positions are kept, and what is spilled; exists.
    pub state_dir: PathBuf,
    /// How much may be spilled.
    pub spill: spill::Limits,
    /// Where the host's root is seen, for links that lead nowhere here.
    pub root: PathBuf,
    /// What the cluster says of pods, where it is asked.
    pub pods: Option<Arc<Pods>>,
    /// What is done with lines.
    pub process: process::Settings,
}

/// What the reader may hold in memory, over all files.
#[derive(Debug, Clone, Copy)]
pub struct MemoryLimits {
    /// Bytes of lines and events whose ends were not read yet; the file at hand may take the longest one more.
    pub parts: usize,
    /// Compressed files that are read at the same time.
    pub archives: usize,
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
    spiller: Spiller,
    /// Files with unread bytes.
    turns: Queue,
    /// No buffer is free: nothing is read until a batch comes back.
    blocked: bool,
    stopped: bool,
    moved: bool,
    /// Whether files were looked at since the metrics about them were set.
    uncounted: bool,
    /// Whether anything was confirmed since the start.
    has_confirmed: bool,
    checkpoint_failed: bool,
    buffer: Vec<u8>,
    memory: MemoryLimits,
    /// Bytes of lines and events that are held, at most: what was given out since the last look is still counted.
    parts: usize,
    /// Compressed files that are being read.
    archives: usize,
    /// When a file was last seen to have changed.
    grew: Option<Instant>,
    /// When files were looked at last.
    looked: Instant,
    /// How long a batch may wait for more lines.
    max_wait: Duration,
    due: Due,
    sources: Vec<Source>,
    root: PathBuf,
    /// Whether it was said that links are followed under that root.
    said_root: bool,
    max_line: usize,
    metrics: LogMetrics,
    ready: Option<Box<dyn FnOnce() + Send>>,
}

/// When things are to be done again.
struct Due {
    enumerate: Instant,
    enumerated: Instant,
    doubt: Instant,
    look: Instant,
    glance: Instant,
    count: Instant,
    foresee: Instant,
    checkpoint: Instant,
}

impl Due {
    fn all(now: Instant) -> Self {
        Self {
            enumerate: now,
            enumerated: now,
            doubt: now,
            look: now,
            glance: now,
            count: now,
            foresee: now,
            checkpoint: now,
        }
    }
}

impl Reader {
    /// A reader with what the state directory knows. `ready` is called once, after the first look around.
    pub fn new(
        options: Options,
        queue: mpsc::Sender<Batch>,
        mailbox: Mailbox,
        metrics: LogMetrics,
        ready: Box<dyn FnOnce() + Send>,
    ) -> Self {
        let checkpoint = Checkpoint::new(&options.state_dir);
        let mut known = checkpoint.load();
        for complaint in &known.complaints {
            tracing::warn!("{complaint}; lines since the last good positions are read again");
        }
        // What an earlier reader said of files that this one may not know.
        metrics.lags.set(false, iter::empty());
        metrics.files_open.set(0);
        let now = Instant::now();
        let spiller = Spiller::open(&options.state_dir.join("spill"), options.spill, now);
        let limits = FeedLimits { first_run_bytes: options.first_run_bytes, max_line: options.max_line };
        let processors = Processors::new(options.process, &metrics);
        let feeds = Feeds::new(&options.sources, &mut known, limits, metrics.clone())
            .processed_by(Arc::clone(&processors));
        let (sources, encodings) = options.sources.into_iter().unzip();
        Self {
            table: Table::new(
                known,
                options.first_run_bytes,
                encodings,
                options.multiline,
                options.pods,
                metrics.ledger.clone(),
                &metrics,
            )
            .processed_by(Arc::clone(&processors)),
            feeds,
            output: Output::new(options.batch, queue, options.max_line, metrics.clone()),
            mailbox,
            watcher: Watcher::new(),
            checkpoint,
            spiller,
            turns: Queue::default(),
            blocked: false,
            stopped: false,
            moved: false,
            uncounted: false,
            has_confirmed: false,
            checkpoint_failed: false,
            buffer: Vec::new(),
            memory: options.memory,
            parts: 0,
            archives: 0,
            grew: None,
            looked: now,
            max_wait: options.batch.max_wait,
            due: Due::all(now),
            sources,
            root: options.root,
            said_root: false,
            max_line: options.max_line,
            metrics,
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
        self.spiller.work(&mut self.table, Instant::now(), u64::MAX);
        self.write_positions(Instant::now(), true);
    }

    /// Does what is due at `now`, without waiting. Whether to go on.
    fn step(&mut self, now: Instant) -> bool {
        self.mailbox.hush();
        if !self.take_mail(now) {
            return false;
        }
        if !self.stopped {
            self.output.written_since(now);
            self.look_around(now);
            let has_looked = self.look_at_files(now);
            self.glance(now);
            self.moved |= self.feeds.look(now);
            self.spiller.work(&mut self.table, now, SPILL_STEP);
            self.read_turns(now);
            if has_looked && !self.blocked && now >= self.due.checkpoint {
                self.give_out_quiet(now);
            }
            self.read_feeds(now);
            self.moved |= self.output.take_left_out();
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
                Mail::Pods(uids) => {
                    self.table.learn(&uids.into_iter().collect(), now);
                    self.due.look = now;
                }
                Mail::Stop => {
                    self.stopped = true;
                    let keys: Vec<FileKey> = self.table.awake().iter().copied().collect();
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
            let is_known = if is_feed(part.key) {
                self.feeds.settled(batch.number, part)
            } else {
                let file = self.table.get_mut(part.key);
                file.map(|file| file.settled(batch.number, part, now)).is_some()
            };
            if !is_known {
                Settled::whole(part).enter(&self.metrics.ledger.account(part.facts.origin.owner()));
            }
        }
        self.output.give_back(batch);
        self.blocked = false;
        self.moved = true;
        // An agent that is killed again and again within a second gets on all the same.
        if !std::mem::replace(&mut self.has_confirmed, true) {
            self.due.checkpoint = now;
        }
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
            self.table.wake(part.key);
        }
    }

    fn look_around(&mut self, now: Instant) {
        self.hear(now);
        if now < self.due.enumerate {
            return;
        }
        let found = enumerate(&self.sources, &self.root);
        if found.under_root && !std::mem::replace(&mut self.said_root, true) {
            tracing::info!(root = %self.root.display(), "log files are links to files that are not there, they are read under the host's root");
        }
        let has_blind_spots = found.has_blind_spots || !found.problems.is_empty();
        let watched = self.watcher.watch(&found.directories);
        let is_told = watched.all && !has_blind_spots;
        self.table.reconcile(found, now);
        if now >= self.due.doubt {
            self.due.doubt = now + DOUBT_EVERY.max(Duration::from_millis(20 * self.table.len() as u64));
        }
        self.due.enumerated = now;
        self.due.enumerate =
            if is_told && !self.table.has_errors() { self.due.doubt } else { now + ENUMERATE_EVERY };
        if watched.any_new {
            // It may have got files after it was listed and before it was watched.
            self.due.enumerate = self.due.enumerate.min(now + self.pause_of_listing());
        }
        self.due.look = now;
        self.due.count = now;
    }

    /// When files or directories are to be looked at again.
    fn next_look(&self) -> Instant {
        self.due.enumerate.min(self.due.look).min(self.due.glance)
    }

    /// How soon directories are listed again. A file costs some microseconds: with many of them names may change all the time.
    fn pause_of_listing(&self) -> Duration {
        ENUMERATE_PAUSE.max(Duration::from_millis(self.table.len() as u64 / 10))
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
                    self.spiller.tidy(&mut self.table);
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
        let mut wake = if self.stopped { now + ENUMERATE_EVERY } else { self.next_look() };
        if !self.stopped {
            let due = self.output.due().into_iter().chain(self.feeds.due()).chain(self.spiller.due());
            wake = due.fold(wake, Instant::min);
        }
        if self.moved {
            wake = wake.min(self.due.checkpoint);
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

/// How long to wait, at the least, before as many files are looked at again. A look is about a microsecond.
fn pause_of(files: usize, least: Duration) -> Duration {
    least.max(Duration::from_millis(files as u64 / 2)).min(Duration::from_secs(2))
}

#[cfg(test)]
mod tests;
