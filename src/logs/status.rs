//! What the log path tells about itself: values for the page, the sub-commands and the admin API.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
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

/// Where every line is that was ever read since the start: `read = acked + in flight + dead letters`.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Lines read.
    pub read_lines: AtomicU64,
    /// Bytes of the files that they take.
    pub read_bytes: AtomicU64,
    /// Lines confirmed by the sink.
    pub acked_lines: AtomicU64,
    /// Bytes of the files that they take.
    pub acked_bytes: AtomicU64,
    /// Lines in batches.
    pub in_flight_lines: AtomicU64,
    /// Lines refused for good, kept as dead letters.
    pub dead_letter_lines: AtomicU64,
    /// Bytes lost for a reason that `nodewarden_log_lost_bytes_total` names.
    pub lost_bytes: AtomicU64,
}

/// The ledger at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LedgerView {
    /// Lines read.
    pub read_lines: u64,
    /// Bytes of the files that they take.
    pub read_bytes: u64,
    /// Lines confirmed by the sink.
    pub acked_lines: u64,
    /// Bytes of the files that they take.
    pub acked_bytes: u64,
    /// Lines in batches.
    pub in_flight_lines: u64,
    /// Lines refused for good.
    pub dead_letter_lines: u64,
    /// Bytes lost.
    pub lost_bytes: u64,
}

impl Ledger {
    /// The sums now.
    pub fn view(&self) -> LedgerView {
        LedgerView {
            read_lines: self.read_lines.load(Relaxed),
            read_bytes: self.read_bytes.load(Relaxed),
            acked_lines: self.acked_lines.load(Relaxed),
            acked_bytes: self.acked_bytes.load(Relaxed),
            in_flight_lines: self.in_flight_lines.load(Relaxed),
            dead_letter_lines: self.dead_letter_lines.load(Relaxed),
            lost_bytes: self.lost_bytes.load(Relaxed),
        }
    }
}

/// Whether the sink takes lines.
#[derive(Debug, Default)]
pub struct SinkState {
    holding: Mutex<Option<String>>,
}

impl SinkState {
    /// The sink took something. Whether it did not before.
    pub fn ok(&self) -> bool {
        self.holding.lock().unwrap_or_else(PoisonError::into_inner).take().is_some()
    }

    /// The sink takes nothing, for this reason. Whether that is news.
    pub fn hold(&self, reason: &str) -> bool {
        let mut holding = self.holding.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = holding.as_deref() != Some(reason);
        *holding = Some(reason.to_owned());
        is_news
    }

    /// Why the sink takes nothing; `None` when it does.
    pub fn reason(&self) -> Option<String> {
        self.holding.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
