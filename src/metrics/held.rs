//! What the sink does not take, as a gauge that is asked for at each scrape: a file that is gone holds nothing any more, and
//! nobody would come by to say so.

use prometheus::{
    IntGaugeVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};

/// Label and number.
type Count = (&'static str, usize);

/// The gauge. Every reason always has its series, so that alerts have something to compare.
pub(super) struct HeldGauge<F> {
    look: F,
    gauge: IntGaugeVec,
}

impl<F, C> HeldGauge<F>
where
    F: Fn() -> C + Send + Sync,
    C: IntoIterator<Item = Count>,
{
    /// A gauge that looks when it is asked.
    pub(super) fn new(look: F) -> prometheus::Result<Self> {
        let help = "Bulk requests and files whose lines wait because Elasticsearch does not take them, by reason. Nothing is lost \
                    meanwhile; all but unreachable, busy and server_error wait for somebody to act.";
        let gauge = IntGaugeVec::new(Opts::new("nodewarden_elasticsearch_held", help), &["reason"])?;
        Ok(Self { look, gauge })
    }
}

impl<F, C> Collector for HeldGauge<F>
where
    F: Fn() -> C + Send + Sync,
    C: IntoIterator<Item = Count>,
{
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for (reason, count) in (self.look)() {
            self.gauge.with_label_values(&[reason]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.gauge.collect()
    }
}
