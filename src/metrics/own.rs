//! temporary
use prometheus::{GaugeVec, IntCounterVec, IntGauge, IntGaugeVec, Opts};
#[derive(Debug, Clone)]
pub struct LogMetrics {
    pub read_lines: IntCounterVec,
    pub read_bytes: IntCounterVec,
    pub acked_lines: IntCounterVec,
    pub acked_bytes: IntCounterVec,
    pub lost_bytes: IntCounterVec,
    pub dropped_lines: IntCounterVec,
    pub dead_letters: IntCounterVec,
    pub lag_bytes: IntGaugeVec,
    pub lag_seconds: GaugeVec,
    pub files_open: IntGauge,
}
#[derive(Debug, Clone)]
pub struct BulkMetrics {
    pub requests: IntCounterVec,
    pub items: IntCounterVec,
    pub duration: prometheus::Histogram,
}
pub struct Own {
    pub logs: LogMetrics,
    pub bulk: BulkMetrics,
}
impl Own {
    pub fn new(_: u64) -> Result<Self, prometheus::Error> {
        let c = |n: &str, l: &str| IntCounterVec::new(Opts::new(n, n), &[l]);
        Ok(Self {
            bulk: BulkMetrics {
                requests: c("q", "outcome")?,
                items: c("w", "status")?,
                duration: prometheus::Histogram::with_opts(prometheus::HistogramOpts::new("e", "e"))?,
            },
            logs: LogMetrics {
                read_lines: c("a", "namespace")?,
                read_bytes: c("b", "namespace")?,
                acked_lines: c("c", "namespace")?,
                acked_bytes: c("d", "namespace")?,
                lost_bytes: c("e", "reason")?,
                dropped_lines: c("f", "reason")?,
                dead_letters: c("g", "reason")?,
                lag_bytes: IntGaugeVec::new(Opts::new("h", "h"), &["namespace"])?,
                lag_seconds: GaugeVec::new(Opts::new("i", "i"), &["namespace"])?,
                files_open: IntGauge::new("j", "j")?,
            },
        })
    }
}
