//! What is known of the GPUs at this moment. The helper's reports and the kernel's log change it, the page is made from it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::{
    nvml::Code,
    protocol::{Cycle, Identity, Obstacle, Outcome, Reading, Session},
    xids::{Bus, Told, Witness, Xids},
};

/// How things stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum State {
    /// There is no driver.
    #[default]
    Absent,
    /// A session is being opened.
    Starting,
    /// Every GPU answers.
    Ready,
    /// Some do.
    Degraded,
    /// None returns from its calls, or the helper process does not.
    Stuck,
    /// There is a driver, and no library that can be loaded.
    NoLibrary,
    /// Library and kernel module are of two versions.
    Mismatch,
    /// The devices may not be opened.
    NoPermission,
    /// No GPU can be read, for another reason.
    Failed,
}

impl State {
    /// All that there are, in the order in which they are listed.
    pub const ALL: [Self; 9] = [
        Self::Absent,
        Self::Starting,
        Self::Ready,
        Self::Degraded,
        Self::Stuck,
        Self::NoLibrary,
        Self::Mismatch,
        Self::NoPermission,
        Self::Failed,
    ];

    /// As a label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Degraded => "degraded",
            Self::Stuck => "stuck",
            Self::NoLibrary => "no_library",
            Self::Mismatch => "mismatch",
            Self::NoPermission => "no_permission",
            Self::Failed => "failed",
        }
    }

    /// What an obstacle leads to.
    pub fn of(obstacle: Obstacle) -> Self {
        match obstacle {
            Obstacle::NoLibrary => Self::NoLibrary,
            Obstacle::NotLoaded => Self::Absent,
            Obstacle::Mismatch => Self::Mismatch,
            Obstacle::NoPermission => Self::NoPermission,
            Obstacle::Other => Self::Failed,
        }
    }
}

/// The windows in which XIDs and reasons of low clocks are counted, as dcgm-exporter has them.
pub const WINDOW: Duration = Duration::from_secs(300);

/// All that is known.
#[derive(Debug, Default)]
pub struct Board {
    /// How things stand.
    pub state: State,
    /// GPUs of this session, and of earlier ones as long as the kernel lists them, by number.
    pub gpus: Vec<Identity>,
    /// Where the kernel module has GPUs.
    pub expected: BTreeSet<Bus>,
    /// What was read in the last cycle. What could not be read is not here: old values are not shown.
    pub readings: BTreeMap<u32, Reading>,
    /// Until when the page shows them.
    pub fresh_until: Option<Instant>,
    /// Unix times at which GPUs were last read.
    pub read_at: BTreeMap<u32, f64>,
    /// Calls that failed.
    pub errors: BTreeMap<(String, Code), u64>,
    /// XIDs.
    pub xids: Xids,
    /// Helper processes that were started.
    pub starts: u64,
    clocks: BTreeMap<u32, VecDeque<(Instant, u64)>>,
}

impl Board {
    /// A session stands.
    pub fn begin(&mut self, session: &Session) {
        let known = |uuid: &str| session.gpus.iter().any(|gpu| gpu.uuid == uuid);
        let expected = &self.expected;
        // One that fell off the bus is not seen any more, and its number may be another one's.
        self.gpus.retain(|gpu| {
            !known(&gpu.uuid)
                && session.gpus.iter().all(|other| other.index != gpu.index)
                && Bus::parse(&gpu.bus_id).is_some_and(|bus| expected.contains(&bus))
        });
        self.gpus.extend(session.gpus.iter().cloned());
        self.gpus.sort_by_key(|gpu| gpu.index);
        for (_, code) in &session.refused {
            *self.errors.entry(("nvmlDeviceGetHandleByIndex".into(), *code)).or_default() += 1;
        }
        self.clear();
    }

    /// A cycle was read; its values hold until `fresh_until`. XIDs that are news.
    pub fn take(&mut self, cycle: Cycle, now: Instant, fresh_until: Instant) -> Vec<Told> {
        self.readings.clear();
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let (mut stuck, count) = (0, cycle.gpus.len());
        for (gpu, outcome) in cycle.gpus {
            match outcome {
                Outcome::Read(reading) => {
                    if let Some(bits) = reading.clock_reasons {
                        let seen = self.clocks.entry(gpu).or_default();
                        seen.push_back((now, bits));
                        while seen
                            .front()
                            .is_some_and(|(then, _)| now.saturating_duration_since(*then) > WINDOW)
                        {
                            seen.pop_front();
                        }
                    }
                    self.readings.insert(gpu, *reading);
                    self.read_at.insert(gpu, time);
                }
                Outcome::Stuck => stuck += 1,
                Outcome::Failed(_) | Outcome::Skipped => {}
            }
        }
        self.fresh_until = Some(fresh_until);
        for (call, code, times) in cycle.errors {
            *self.errors.entry((call, code)).or_default() += times;
        }
        let is_whole = self.readings.len() == count && self.gpus.len() == count;
        self.state = match (self.readings.len(), count) {
            // A driver that has nothing to drive.
            (0, 0) => State::Ready,
            (0, _) if stuck > 0 => State::Stuck,
            (0, _) => State::Failed,
            _ if is_whole && count >= self.expected.len() => State::Ready,
            _ => State::Degraded,
        };
        let gpus = &self.gpus;
        let bus =
            |index: u32| gpus.iter().find(|gpu| gpu.index == index).and_then(|gpu| Bus::parse(&gpu.bus_id));
        let told: Vec<Told> = cycle
            .xids
            .iter()
            .filter_map(|xid| Some(Told { bus: bus(xid.gpu)?, instance: xid.instance, code: xid.code }))
            .collect();
        told.into_iter().filter(|told| self.xids.take(*told, Witness::Driver, now)).collect()
    }

    /// There is no session, or not any more.
    pub fn lose(&mut self, state: State) {
        self.state = state;
        self.clear();
    }

    fn clear(&mut self) {
        self.readings.clear();
        self.fresh_until = None;
        self.clocks.clear();
    }

    /// How often each bit was set in the window, from the first one on, in as many samples as there were.
    pub fn clock_events(&self, gpu: u32, now: Instant) -> Option<[u64; 9]> {
        let seen = self.clocks.get(&gpu)?;
        let mut counts = [0; 9];
        for (_, bits) in seen.iter().filter(|(then, _)| now.saturating_duration_since(*then) <= WINDOW) {
            for (at, count) in counts.iter_mut().enumerate() {
                *count += (bits >> at) & 1;
            }
        }
        Some(counts)
    }

    /// The processes that use GPUs.
    pub fn pids(&self) -> BTreeSet<u32> {
        let parts = |reading: &'_ Reading| {
            let parts = reading.instances.iter().flatten().flat_map(|part| &part.processes);
            parts.chain(&reading.processes).map(|(pid, _)| *pid).collect::<Vec<_>>()
        };
        self.readings.values().flat_map(parts).collect()
    }

    /// The GPU at an address.
    pub fn gpu_at(&self, bus: Bus) -> Option<&Identity> {
        self.gpus.iter().find(|gpu| Bus::parse(&gpu.bus_id) == Some(bus))
    }
}
