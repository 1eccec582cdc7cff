//! What the sink does not take, as a gauge that is asked for at each scrape: a file that is gone holds nothing any more, and
//! nobody would come by to say so.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{
    IntGaugeVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};

/// Label and number.
pub(super) type Count = (&'static str, usize);

/// Who is asked, while there is somebody.
type Look = Box<dyn Fn() -> Vec<Count> + Send + Sync>;

/// The gauge. Every reason always has its series, so that alerts have something to compare. Clones share it.
#[derive(Clone)]
pub(super) struct HeldGauge {
    look: Arc<Mutex<Option<Look>>>,
    gauge: IntGaugeVec,
}

impl std::fmt::Debug for HeldGauge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HeldGauge").finish_non_exhaustive()
    }
}

impl HeldGauge {
    /// A gauge that asks nobody yet.
    pub(super) fn new() -> prometheus::Result<Self> {
        let help = "Bulk requests and files whose lines wait because Elasticsearch does not take them, by reason. Nothing is lost \
                    meanwhile; all but unreachable, busy and server_error wait for somebody to act.";
        let gauge = IntGaugeVec::new(Opts::new("nodewarden_elasticsearch_held", help), &["reason"])?;
        Ok(Self { look: Arc::default(), gauge })
    }

    /// Asks this one from now on, or nobody.
    pub(super) fn ask(&self, look: Option<Look>) {
        *self.look.lock().unwrap_or_else(PoisonError::into_inner) = look;
        self.gauge.reset();
    }
}

impl Collector for HeldGauge {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let look = self.look.lock().unwrap_or_else(PoisonError::into_inner);
        for (reason, count) in look.iter().flat_map(|look| look()) {
            self.gauge.with_label_values(&[reason]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.gauge.collect()
    }
}
