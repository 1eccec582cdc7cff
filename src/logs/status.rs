//! What the log path tells about itself: values for the page, the sub-commands and the admin API.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde::Serialize;

use super::batch::FileKey;

/// One row in the table of tailed files.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FileStatus {
    /// Where the file is.
    pub path: String,
    /// Its pod's namespace.
    pub namespace: Option<String>,
    /// Its pod.
    pub pod: Option<String>,
    /// Its container.
    pub container: Option<String>,
    /// How its lines are written.
    pub format: &'static str,
    /// Every byte below is confirmed.
    pub offset: u64,
    /// Bytes in the file.
    pub size: u64,
    /// Bytes not yet confirmed.
    pub lag_bytes: u64,
    /// For how long there have been unconfirmed bytes; `None` when there are none.
    pub lag_seconds: Option<f64>,
    /// `open`, `rotated` (another file has its name now), `waiting` (no complete line yet), `error`.
    pub state: &'static str,
    /// What went wrong last, in a sentence.
    pub last_error: Option<String>,
    /// What its pod's annotations say in vain, a sentence each: its lines are shipped all the same.
    pub notes: Vec<String>,
}

/// What is said of an obstacle is said again after this long.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// What was tried no more for so long is not held any more: much longer than files wait until they are tried again.
const ASIDE_FOR: Duration = Duration::from_secs(300);

/// What keeps a sink from taking lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    /// There is no connection, or no answer.
    Unreachable,
    /// TLS can't be spoken, or the certificate is not trusted.
    Tls,
    /// The server has too much to do.
    Busy,
    /// The server, or what stands before it, fails.
    ServerError,
    /// The server does not know who this is.
    Unauthorized,
    /// Who this is may not do that.
    Forbidden,
    /// An index or the cluster may only be read: a block, or a disk that is too full.
    ReadOnly,
    /// The index is closed.
    IndexClosed,
    /// The index, or a pipeline, is not there and is not made.
    IndexMissing,
    /// The cluster has as many shards as it may.
    ShardLimit,
    /// Something else that is no document's fault.
    Refused,
    /// What has to be kept here finds no room.
    Disk,
}

impl Obstacle {
    /// Each of them.
    pub const ALL: [Self; 12] = [
        Self::Unreachable,
        Self::Tls,
        Self::Busy,
        Self::ServerError,
        Self::Unauthorized,
        Self::Forbidden,
        Self::ReadOnly,
        Self::IndexClosed,
        Self::IndexMissing,
        Self::ShardLimit,
        Self::Refused,
        Self::Disk,
    ];

    /// Its name in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Tls => "tls",
            Self::Busy => "busy",
            Self::ServerError => "server_error",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::ReadOnly => "read_only",
            Self::IndexClosed => "index_closed",
            Self::IndexMissing => "index_missing",
            Self::ShardLimit => "shard_limit",
            Self::Refused => "refused",
            Self::Disk => "disk",
        }
    }
}

/// Why something is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// Its kind.
    pub obstacle: Obstacle,
    /// A sentence for people.
    pub text: String,
}

impl Reason {
    /// This obstacle, told in this sentence.
    pub fn new(obstacle: Obstacle, text: impl Into<String>) -> Self {
        Self { obstacle, text: text.into() }
    }
}

/// Whether the sink takes lines: it does when no batch is held.
#[derive(Debug, Default)]
pub struct SinkState {
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// Why, by number of the batch.
    reasons: BTreeMap<u64, Reason>,
    /// Why lines of a file went back to wait there, and when.
    aside: BTreeMap<FileKey, (Reason, Instant)>,
    /// When something was said of an obstacle.
    said: BTreeMap<Obstacle, Instant>,
}

impl SinkState {
    /// The sink took something of this batch. Whether it was the last one that was held.
    pub fn ok(&self, batch: u64) -> bool {
        let mut held = self.lock();
        held.reasons.remove(&batch).is_some() && held.is_empty()
    }

    /// The sink took what it was given of this file. Whether it was the last one that was held.
    pub fn took(&self, file: FileKey) -> bool {
        let mut held = self.lock();
        held.aside.remove(&file).is_some() && held.is_empty()
    }

    /// Lines of this file went back to it, for this reason. Whether it is time to say so.
    pub fn set_aside(&self, file: FileKey, reason: &Reason, now: Instant) -> bool {
        let mut held = self.lock();
        // Files of pods that are gone are not tried again.
        held.aside.retain(|_, (_, since)| is_recent(*since, now));
        held.aside.insert(file, (reason.clone(), now));
        held.is_to_be_said(reason.obstacle, now)
    }

    /// The sink does not take this batch, or not all of it, for this reason. Whether it is time to say so.
    pub fn hold(&self, batch: u64, reason: &Reason, now: Instant) -> bool {
        let mut held = self.lock();
        held.reasons.insert(batch, reason.clone());
        held.is_to_be_said(reason.obstacle, now)
    }

    /// Why the batch that is held the longest is not taken, or the lines of a file; `None` when none is held.
    pub fn reason(&self) -> Option<String> {
        let (held, now) = (self.lock(), Instant::now());
        let aside = held.aside.values().find(|(_, since)| is_recent(*since, now));
        held.reasons.values().next().or(aside.map(|(reason, _)| reason)).map(|reason| reason.text.clone())
    }

    /// How many batches and files are held, by obstacle.
    pub fn counts(&self) -> [(Obstacle, usize); Obstacle::ALL.len()] {
        let (held, now) = (self.lock(), Instant::now());
        let aside = held.aside.values().filter(|(_, since)| is_recent(*since, now)).map(|(reason, _)| reason);
        let mut counts = Obstacle::ALL.map(|obstacle| (obstacle, 0));
        for reason in held.reasons.values().chain(aside) {
            counts
                .iter_mut()
                .filter(|(obstacle, _)| *obstacle == reason.obstacle)
                .for_each(|(_, count)| *count += 1);
        }
        counts
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn is_empty(&self) -> bool {
        self.reasons.is_empty() && self.aside.is_empty()
    }

    /// One line a minute for each obstacle, whatever hosts, indices and numbers are in its text.
    fn is_to_be_said(&mut self, obstacle: Obstacle, now: Instant) -> bool {
        let is_recent = |said: &Instant| now.saturating_duration_since(*said) < SAY_AGAIN;
        if self.said.get(&obstacle).is_some_and(is_recent) {
            return false;
        }
        self.said.insert(obstacle, now);
        true
    }
}

fn is_recent(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) < ASIDE_FOR
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy(text: &str) -> Reason {
        Reason::new(Obstacle::Busy, text)
    }

    #[test]
    fn an_obstacle_is_said_once_a_minute() {
        let (state, start) = (SinkState::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(state.hold(1, &busy("index a"), start));
        assert!(!state.hold(2, &busy("index b"), at(1)));
        assert!(!state.hold(1, &busy("index a"), at(59)));
        let closed = Reason::new(Obstacle::IndexClosed, "closed");
        assert!(state.set_aside(FileKey(1), &closed, at(59)));
        assert!(!state.ok(2) && !state.ok(1) && !state.ok(1));
        assert!(state.took(FileKey(1)));
        assert_eq!(state.reason(), None);
        assert!(!state.hold(1, &closed, at(60)));
        assert!(state.hold(1, &busy("index a"), at(60)));
        assert!(state.hold(1, &closed, at(200)));
    }

    #[test]
    fn a_batch_that_gets_through_says_nothing_of_another_one_that_is_held() {
        let (state, now) = (SinkState::default(), Instant::now());
        state.hold(1, &Reason::new(Obstacle::Forbidden, "forbidden"), now);
        state.hold(2, &busy("busy"), now);
        assert!(!state.ok(2) && !state.ok(3));
        assert_eq!(state.reason().as_deref(), Some("forbidden"));
        assert!(state.ok(1));
    }

    #[test]
    fn what_is_held_is_counted_by_obstacle() {
        let (state, now) = (SinkState::default(), Instant::now());
        let forbidden = Reason::new(Obstacle::Forbidden, "no");
        state.hold(1, &busy("busy"), now);
        state.hold(2, &forbidden, now);
        state.set_aside(FileKey(1), &forbidden, now);
        let count = |obstacle| state.counts().into_iter().find(|(one, _)| *one == obstacle).expect("one").1;
        assert_eq!([Obstacle::Busy, Obstacle::Forbidden, Obstacle::Tls].map(count), [1, 2, 0]);
        state.ok(2);
        state.took(FileKey(1));
        assert_eq!(count(Obstacle::Forbidden), 0);
    }
}
