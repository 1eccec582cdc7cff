//! The thread that runs the collectors; a fresh one takes its place when a collector does not return.
//!
//! The collectors lie in slots behind one lock. The worker takes one out, runs it without the lock, and puts it back:
//! nothing is handed to another thread on the healthy path. Whoever waits for the scrape looks at the clock
//! ([`Bench::look`]); when a collector is out for too long its slot is marked as stuck and a new worker does the scrape
//! again without it, as the samples so far lie in a buffer that the stuck call may still write to. The old worker puts its
//! collector back whenever the call returns, then ends: there is at most one such thread per stuck collector.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nodewarden_collectors::{
    BuildError, CollectError, Collector, Desc, Entry, Host, Options, Samples, Settings,
};
use tracing::{debug, error, info, warn};

use super::process::Process;

static DURATION: Desc = Desc::gauge(
    "node_scrape_collector_duration_seconds",
    "node_exporter: Duration of a collector scrape.",
    &["collector"],
);
static SUCCESS: Desc = Desc::gauge(
    "node_scrape_collector_success",
    "node_exporter: Whether a collector succeeded.",
    &["collector"],
);

/// How long a collector may take when the scrape has time enough.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long one may take whose last call took longer than that: it is asked, for it may have recovered, but a sensor that
/// needs seconds each time does not cost every scrape those seconds.
const GLANCE: Duration = Duration::from_millis(100);

/// Which slots a scrape wants.
pub(super) type Wanted = Box<[bool]>;

/// What is done with the samples, still on the scraping thread.
pub(super) type Finish = Box<dyn FnOnce(&mut Desk) + Send>;

/// What a worker keeps from one scrape to the next.
#[derive(Debug, Default)]
pub(super) struct Desk {
    /// What the collectors said.
    pub(super) samples: Samples,
    /// Where pieces of the page are printed before they are compressed.
    pub(super) page: Vec<u8>,
    /// How long the last page was, as it is and compressed.
    pub(super) last_sizes: [usize; 2],
    /// How many samples a page left out at most because they contradict or repeat others.
    pub(super) left_out: usize,
    /// The reader of the agent's own process.
    pub(super) process: Process,
}

/// The collectors and the one scrape that may be under way.
pub(super) struct Bench {
    host: Host,
    settings: Settings,
    state: Mutex<State>,
    asked: Condvar,
}

struct State {
    slots: Vec<Slot>,
    job: Option<Job>,
    jobs: u64,
    /// The number of the worker that may go on; the ones before it are stuck.
    worker: u64,
    /// Whether that worker still has to be started.
    vacant: bool,
    running: Option<Running>,
    closed: bool,
}

struct Slot {
    entry: &'static Entry,
    /// `None` while it runs, and after a panic until it is made anew.
    collector: Option<Box<dyn Collector>>,
    stuck: Option<Instant>,
    /// Whether its last call took longer than any scrape waits.
    slow: bool,
    /// The failure that was last told.
    told: Option<String>,
}

struct Job {
    id: u64,
    wanted: Wanted,
    finish: Finish,
}

#[derive(Clone, Copy)]
struct Running {
    slot: usize,
    since: Instant,
}

/// Which job a worker is at.
#[derive(Clone, Copy, PartialEq)]
struct Turn {
    worker: u64,
    job: u64,
}

enum Lent {
    Collector(&'static Entry, Option<Box<dyn Collector>>),
    Stuck(&'static Entry, Instant),
    /// Somebody else does this scrape now, or nobody wants it any more.
    Over,
}

enum Outcome {
    Fine,
    NoData,
    Failed(String),
}

impl Bench {
    /// Makes the collectors of `entries` and the thread that runs them.
    pub(super) fn new(
        entries: &[&'static Entry],
        settings: Settings,
        host: Host,
    ) -> Result<Arc<Self>, BuildError> {
        let mut slots = Vec::with_capacity(entries.len());
        for entry in entries {
            let collector = Some((entry.build)(&host, &Options::new(entry, &settings))?);
            slots.push(Slot { entry, collector, stuck: None, slow: false, told: None });
        }
        let state =
            State { slots, job: None, jobs: 0, worker: 0, vacant: true, running: None, closed: false };
        Ok(Arc::new(Self { host, settings, state: Mutex::new(state), asked: Condvar::new() }))
    }

    /// Starts a scrape; one that is still under way is given up.
    pub(super) fn ask(self: &Arc<Self>, wanted: Wanted, finish: Finish) -> io::Result<()> {
        let mut state = self.lock();
        state.jobs += 1;
        state.job = Some(Job { id: state.jobs, wanted, finish });
        self.fill_vacancy(&mut state)?;
        self.asked.notify_all();
        Ok(())
    }

    /// Leaves a collector behind that has been running for too long; says when to look again.
    pub(super) fn look(self: &Arc<Self>, now: Instant, deadline: Instant) -> io::Result<Instant> {
        let mut state = self.lock();
        // One that was slow may be the next to run.
        let some_slow = state.slots.iter().any(|slot| slot.slow && slot.stuck.is_none());
        let soon = now + patience(now, deadline).min(if some_slow { GLANCE } else { PATIENCE });
        let Some(Running { slot, since }) = state.running else {
            return Ok(soon);
        };
        let slot = &mut state.slots[slot];
        let due = since + patience(since, deadline).min(if slot.slow { GLANCE } else { PATIENCE });
        if now < due {
            return Ok(due.min(soon));
        }
        slot.stuck = Some(since);
        let collector = slot.entry.name;
        match slot.slow {
            true => debug!(collector, "collector is slow again, it is left out until it returns"),
            false => warn!(collector, "collector does not return, it is left out until it does"),
        }
        state.running = None;
        state.worker += 1;
        state.vacant = true;
        self.fill_vacancy(&mut state)?;
        Ok(soon)
    }

    /// Ends the worker once it is idle.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.asked.notify_all();
    }

    fn fill_vacancy(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        if state.vacant {
            let (bench, worker) = (Arc::clone(self), state.worker);
            thread::Builder::new().name("scrape".into()).spawn(move || bench.work(worker))?;
            state.vacant = false;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under the lock, and a half-done change would still be a valid state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, worker: u64) {
        let mut desk = Desk::default();
        while let Some((job, wanted)) = self.next_job(worker) {
            desk.samples.clear();
            let turn = Turn { worker, job };
            if !self.collect(turn, &wanted, &mut desk.samples) {
                continue;
            }
            if let Some(finish) = self.take_finish(turn)
                && catch_unwind(AssertUnwindSafe(|| finish(&mut desk))).is_err()
            {
                error!("printing the metrics page panicked");
                desk = Desk::default();
            }
        }
    }

    /// Waits for a scrape to do; `None` when this worker is not needed any more.
    fn next_job(&self, worker: u64) -> Option<(u64, Wanted)> {
        let mut state = self.lock();
        loop {
            if state.closed || state.worker != worker {
                return None;
            }
            if let Some(job) = &state.job {
                return Some((job.id, job.wanted.clone()));
            }
            state = self.asked.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Runs the wanted collectors one after the other; false when the scrape is not this worker's any more.
    fn collect(&self, turn: Turn, wanted: &Wanted, samples: &mut Samples) -> bool {
        // Those first that were slow: when one is left behind, nothing else has to be done again.
        let slow = self.slow();
        let others = (0..wanted.len()).filter(|at| !slow.contains(at));
        for at in slow.iter().copied().chain(others).filter(|&at| wanted[at]) {
            match self.lend(turn, at) {
                Lent::Over => return false,
                Lent::Stuck(entry, since) => say(entry, since.elapsed(), false, samples),
                Lent::Collector(entry, collector) => {
                    let start = Instant::now();
                    let (collector, outcome) = self.run(entry, collector, samples);
                    let took = start.elapsed();
                    say(entry, took, matches!(outcome, Outcome::Fine), samples);
                    self.put_back(turn, at, collector, took, &outcome);
                }
            }
        }
        true
    }

    /// Which slots were slow the last time.
    fn slow(&self) -> Vec<usize> {
        let state = self.lock();
        state.slots.iter().enumerate().filter(|(_, slot)| slot.slow).map(|(at, _)| at).collect()
    }

    fn lend(&self, turn: Turn, at: usize) -> Lent {
        let mut state = self.lock();
        if !state.is_on(turn) {
            return Lent::Over;
        }
        let slot = &mut state.slots[at];
        if let Some(since) = slot.stuck {
            return Lent::Stuck(slot.entry, since);
        }
        let lent = Lent::Collector(slot.entry, slot.collector.take());
        state.running = Some(Running { slot: at, since: Instant::now() });
        lent
    }

    /// Runs one collector, made anew if the last run lost it; a panic costs the collector and what it said.
    fn run(
        &self,
        entry: &'static Entry,
        collector: Option<Box<dyn Collector>>,
        samples: &mut Samples,
    ) -> (Option<Box<dyn Collector>>, Outcome) {
        let mark = samples.mark();
        let ran = catch_unwind(AssertUnwindSafe(|| {
            let mut collector = match collector {
                Some(collector) => collector,
                None => (entry.build)(&self.host, &Options::new(entry, &self.settings))?,
            };
            let said = collector.collect(&self.host, samples);
            Ok::<_, BuildError>((collector, said))
        }));
        match ran {
            Ok(Ok((collector, Ok(())))) => (Some(collector), Outcome::Fine),
            Ok(Ok((collector, Err(CollectError::NoData)))) => (Some(collector), Outcome::NoData),
            Ok(Ok((collector, Err(error)))) => (Some(collector), Outcome::Failed(error.to_string())),
            Ok(Err(error)) => (None, Outcome::Failed(error.to_string())),
            Err(_) => {
                samples.rewind(mark);
                (None, Outcome::Failed("panicked".into()))
            }
        }
    }

    fn put_back(
        &self,
        turn: Turn,
        at: usize,
        collector: Option<Box<dyn Collector>>,
        took: Duration,
        outcome: &Outcome,
    ) {
        let mut state = self.lock();
        if state.worker == turn.worker {
            state.running = None;
        }
        let slot = &mut state.slots[at];
        slot.collector = collector;
        slot.returned(took);
        slot.tell(outcome);
    }

    fn take_finish(&self, turn: Turn) -> Option<Finish> {
        let mut state = self.lock();
        if !state.is_on(turn) {
            return None;
        }
        state.job.take().map(|job| job.finish)
    }
}

impl State {
    fn is_on(&self, turn: Turn) -> bool {
        self.worker == turn.worker && self.job.as_ref().is_some_and(|job| job.id == turn.job)
    }
}

impl Slot {
    /// Takes note of a call that returned, of one that was left behind too.
    fn returned(&mut self, took: Duration) {
        let collector = self.entry.name;
        let (was_stuck, was_slow) = (self.stuck.take().is_some(), self.slow);
        self.slow = took > PATIENCE;
        if self.slow && !was_slow {
            warn!(collector, ?took, "collector is slow, scrapes go on without it until it is faster");
        } else if !self.slow && (was_stuck || was_slow) {
            info!(collector, "collector returned, it is back");
        }
    }

    /// Says how it went where that is news.
    fn tell(&mut self, outcome: &Outcome) {
        let collector = self.entry.name;
        match outcome {
            Outcome::NoData => debug!(collector, "collector has no data"),
            Outcome::Failed(error) if self.told.as_ref() != Some(error) => {
                warn!(collector, error, "collector failed");
                self.told = Some(error.clone());
            }
            Outcome::Failed(_) => {}
            Outcome::Fine => {
                if self.told.take().is_some() {
                    info!(collector, "collector works again");
                }
            }
        }
    }
}

/// How long a collector may run that started at `since`: half of what is left, so that the scrape is answered without
/// it, and without the next one that hangs.
fn patience(since: Instant, deadline: Instant) -> Duration {
    PATIENCE.min(deadline.saturating_duration_since(since) / 2)
}

fn say(entry: &Entry, duration: Duration, success: bool, samples: &mut Samples) {
    samples.push(&DURATION, &[entry.name], duration.as_secs_f64());
    samples.push(&SUCCESS, &[entry.name], f64::from(u8::from(success)));
}
