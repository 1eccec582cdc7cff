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
}

/// The same reason is said again after this long.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// What was tried no more for so long is not held any more: much longer than files wait until they are tried again.
const ASIDE_FOR: Duration = Duration::from_secs(300);

/// Whether the sink takes lines: it does when no batch is held.
#[derive(Debug, Default)]
pub struct SinkState {
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// Why, by number of the batch.
    reasons: BTreeMap<u64, String>,
    /// Why lines of a file went back to wait there, and when.
    aside: BTreeMap<FileKey, (String, Instant)>,
    said: Option<(String, Instant)>,
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
    pub fn set_aside(&self, file: FileKey, reason: &str, now: Instant) -> bool {
        let mut held = self.lock();
        // Files of pods that are gone are not tried again.
        held.aside.retain(|_, (_, since)| now.saturating_duration_since(*since) < ASIDE_FOR);
        held.aside.insert(file, (reason.to_owned(), now));
        held.is_to_be_said(reason, now)
    }

    /// The sink does not take this batch, or not all of it, for this reason. Whether it is time to say so.
    pub fn hold(&self, batch: u64, reason: &str, now: Instant) -> bool {
        let mut held = self.lock();
        held.reasons.insert(batch, reason.to_owned());
        held.is_to_be_said(reason, now)
    }

    /// Why the batch that is held the longest is not taken, or the lines of a file; `None` when none is held.
    pub fn reason(&self) -> Option<String> {
        let held = self.lock();
        let aside = held.aside.values().find(|(_, since)| since.elapsed() < ASIDE_FOR);
        held.reasons.values().next().or(aside.map(|(reason, _)| reason)).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn is_empty(&self) -> bool {
        self.reasons.is_empty() && self.aside.is_empty()
    }

    fn is_to_be_said(&mut self, reason: &str, now: Instant) -> bool {
        let is_old = self.said.as_ref().is_some_and(|(said, at)| {
            is_same(said, reason) && now.saturating_duration_since(*at) < SAY_AGAIN
        });
        if !is_old {
            self.said = Some((reason.to_owned(), now));
        }
        !is_old
    }
}

/// Whether two reasons differ at most in their numbers: free bytes, shards, operations in a queue.
fn is_same(one: &str, other: &str) -> bool {
    let without_digits =
        |text: &'_ str| text.bytes().filter(|byte| !byte.is_ascii_digit()).collect::<Vec<_>>();
    without_digits(one) == without_digits(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_said_once_a_minute() {
        let (state, start) = (SinkState::default(), Instant::now());
        assert!(state.hold(1, "refused, 5 bytes free", start));
        assert!(!state.hold(1, "refused, 17 bytes free", start + Duration::from_secs(59)));
        assert!(state.hold(1, "stalled", start + Duration::from_secs(59)));
        assert!(state.ok(1) && !state.ok(1));
        assert_eq!(state.reason(), None);
        assert!(!state.hold(1, "stalled", start + Duration::from_secs(60)));
        assert!(state.hold(1, "stalled", start + Duration::from_secs(200)));
    }

    #[test]
    fn a_batch_that_gets_through_says_nothing_of_another_one_that_is_held() {
        let (state, now) = (SinkState::default(), Instant::now());
        state.hold(1, "forbidden", now);
        state.hold(2, "busy", now);
        assert!(!state.ok(2) && !state.ok(3));
        assert_eq!(state.reason().as_deref(), Some("forbidden"));
        assert!(state.ok(1));
    }
}
