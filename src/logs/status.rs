//! What the log path tells about itself: values for the page, the sub-commands and the admin API.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde::Serialize;

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

/// Whether the sink takes lines.
#[derive(Debug, Default)]
pub struct SinkState {
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    reason: Option<String>,
    said: Option<(String, Instant)>,
}

impl SinkState {
    /// The sink took something. Whether it did not before.
    pub fn ok(&self) -> bool {
        self.lock().reason.take().is_some()
    }

    /// The sink takes nothing, for this reason. Whether it is time to say so.
    pub fn hold(&self, reason: &str, now: Instant) -> bool {
        let mut held = self.lock();
        held.reason = Some(reason.to_owned());
        let is_old = held
            .said
            .as_ref()
            .is_some_and(|(said, at)| said == reason && now.saturating_duration_since(*at) < SAY_AGAIN);
        if !is_old {
            held.said = Some((reason.to_owned(), now));
        }
        !is_old
    }

    /// Why the sink takes nothing; `None` when it does.
    pub fn reason(&self) -> Option<String> {
        self.lock().reason.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_said_once_a_minute() {
        let (state, start) = (SinkState::default(), Instant::now());
        assert!(state.hold("refused", start));
        assert!(!state.hold("refused", start + Duration::from_secs(59)));
        assert!(state.hold("stalled", start + Duration::from_secs(59)));
        assert!(state.ok() && !state.ok());
        assert_eq!(state.reason(), None);
        assert!(!state.hold("stalled", start + Duration::from_secs(60)));
        assert!(state.hold("stalled", start + Duration::from_secs(200)));
    }
}
