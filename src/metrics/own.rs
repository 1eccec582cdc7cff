//! The agent's own metrics: one group of handles per part, in a registry that is handed in.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use nodewarden_collectors::{Containers, Desc, Kind, Samples, samples::Part};
use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::Collector,
    proto::{self, MetricType},
};

use super::{
    held::{Count, HeldGauge},
    lags::Lags,
    ledger::Ledger,
};
use crate::gpu::Gpus;

/// Upper bounds in seconds: from a server on the same node to one that is about to time out.
const BULK_BUCKETS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// The same for a line: from the next batch and refresh to a minute.
const DELIVERY_BUCKETS: [f64; 10] = [0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0];

static BUILD_INFO: Desc = Desc::gauge(
    "nodewarden_build_info",
    "A metric with a constant '1' value labeled by version and revision from which nodewarden was built.",
    &["revision", "version"],
);

/// Dashboards list their instances by this family (`label_values(node_exporter_build_info, instance)`), and alerts join with it:
/// without it a node that is served by this agent would be missing from them. The version is that of the node_exporter whose
/// metrics these are; who is really there is said by branch and revision.
static NODE_EXPORTER_BUILD_INFO: Desc = Desc::gauge(
    "node_exporter_build_info",
    "A metric with a constant '1' value labeled by version, revision, branch, goversion from which node_exporter was built, \
     and the goos and goarch for the build.",
    &["branch", "goarch", "goos", "goversion", "revision", "tags", "version"],
);

/// The version of node_exporter whose metrics are spoken.
const NODE_EXPORTER: &str = "1.12.1";

/// This machine's kind in Go's words.
const GOARCH: &str = match std::env::consts::ARCH.as_bytes() {
    b"x86_64" => "amd64",
    b"aarch64" => "arm64",
    b"x86" => "386",
    b"powerpc64" => {
        if cfg!(target_endian = "little") {
            "ppc64le"
        } else {
            "ppc64"
        }
    }
    // arm, riscv64, s390x and others are called the same.
    _ => std::env::consts::ARCH,
};

/// Says which build this is. It has no state, so it needs no registry.
pub fn say_build(out: &mut Samples) {
    let labels = ["nodewarden", GOARCH, std::env::consts::OS, "", crate::VERSION, "", NODE_EXPORTER];
    out.push(&NODE_EXPORTER_BUILD_INFO, &labels, 1.0);
    out.push(&BUILD_INFO, &[crate::REVISION, crate::VERSION], 1.0);
}

/// All of the agent's own metrics. Clones share the same values.
#[derive(Debug, Clone)]
pub struct Own {
    /// What the log path counts.
    pub logs: LogMetrics,
    /// What shipping to Elasticsearch counts.
    pub bulk: BulkMetrics,
    /// What the local store holds.
    pub store: StoreMetrics,
    /// Whom collectors ask about containers.
    pub containers: Containers,
    /// What is known of the GPUs; it has series of its own, beside those that are registered.
    pub gpus: Gpus,
    memory_budget: IntGauge,
    canary: Arc<Mutex<Option<CanaryMetrics>>>,
    reload: ReloadMetrics,
    held: HeldGauge,
    registry: Registry,
}

/// Whether the configuration in force is the one that was written last.
#[derive(Debug, Clone)]
struct ReloadMetrics {
    is_successful: IntGauge,
    time: Gauge,
}

/// What the log path counts; gauges by `namespace`, not by container, so that the number of series stays small.
#[derive(Debug, Clone)]
pub struct LogMetrics {
    /// Where every line is that was read.
    pub ledger: Ledger,
    /// Lines that a rule fitted, also when it only counts, by `rule`.
    pub rule_lines: IntCounterVec,
    /// Lines that something was taken out of, by `detector`.
    pub redacted_lines: IntCounterVec,
    /// Fields of JSON lines for which there was no room in their index.
    pub overflowed_fields: IntCounter,
    /// Lines with bytes that are not UTF-8.
    pub invalid_utf8_lines: IntCounter,
    /// Lines of pods that the cluster had not told of in time, by `namespace`.
    pub partial_lines: IntCounterVec,
    /// How far the sink is behind the files.
    pub lags: Lags,
    /// Files open now.
    pub files_open: IntGauge,
    /// Which features are on.
    pub features: Features,
}

/// Which features are on, and why.
#[derive(Debug, Clone)]
pub struct Features(IntGaugeVec);

/// What shipping to Elasticsearch counts.
#[derive(Debug, Clone)]
pub struct BulkMetrics {
    /// Bulk requests, by `outcome`.
    pub requests: IntCounterVec,
    /// Documents in bulk answers, by `status`.
    pub items: IntCounterVec,
    /// Documents that were taken after a field of theirs had become text.
    pub repaired: IntCounter,
    /// Dead letters that were sent again and taken.
    pub resent: IntCounter,
    /// Seconds from sending a bulk request to its answer.
    pub duration: Histogram,
}

/// How the canary's lines fare.
#[derive(Debug, Clone)]
pub struct CanaryMetrics {
    /// Seconds from writing a line until it is found.
    delay: Histogram,
    /// Lines that were not there after a minute.
    pub failed: IntCounter,
    /// Unix time in seconds of the last one that was found.
    last_success: Gauge,
}

impl CanaryMetrics {
    /// A line was found this many seconds after it was written.
    pub fn delivered(&self, seconds: f64) {
        self.delay.observe(seconds);
        self.last_success.set(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
    }
}

/// What the local store holds.
#[derive(Debug, Clone)]
pub struct StoreMetrics {
    /// Bytes on disk.
    pub bytes: IntGauge,
    /// Bytes that it may take.
    pub limit: IntGauge,
    /// Unix time in seconds of the oldest line, 0 when there is none.
    pub oldest_timestamp: Gauge,
}

impl Own {
    /// Registers everything; fails when `registry` already has a metric of one of these names.
    pub fn new(registry: Registry) -> prometheus::Result<Self> {
        let make = Make(&registry);
        Ok(Self {
            logs: LogMetrics::new(&make)?,
            bulk: BulkMetrics::new(&make)?,
            store: StoreMetrics::new(&make)?,
            containers: Containers::default(),
            gpus: Gpus::default(),
            memory_budget: make.int_gauge(
                "nodewarden_memory_budget_bytes",
                "Memory that all buffers of the agent together may take.",
            )?,
            reload: ReloadMetrics::new(&make)?,
            held: make.register(HeldGauge::new()?)?,
            canary: Arc::default(),
            registry,
        })
    }

    /// Says whether a feature is on, and why.
    pub fn feature(&self, feature: &str, on: bool, reason: &str) {
        self.logs.features.say(feature, on, reason);
    }

    /// Says at each scrape what Elasticsearch does not take: label and number; whoever was asked before is asked no more.
    pub fn held<C>(&self, look: impl Fn() -> C + Send + Sync + 'static)
    where
        C: IntoIterator<Item = Count>,
    {
        self.held.ask(Some(Box::new(move || look().into_iter().collect())));
    }

    /// Nothing is shipped to Elasticsearch.
    pub fn holds_nothing(&self) {
        self.held.ask(None);
    }

    /// A configuration was read, and is in force if it is right.
    pub fn configured(&self, is_right: bool) {
        self.reload.is_successful.set(i64::from(is_right));
        if is_right {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.reload.time.set(now.as_secs_f64());
        }
    }

    /// Metrics of a canary: there are none without one. They go on when the log path is started anew.
    pub fn canary(&self) -> prometheus::Result<CanaryMetrics> {
        let mut made = self.canary.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(metrics) = &*made {
            return Ok(metrics.clone());
        }
        let make = Make(&self.registry);
        let metrics = CanaryMetrics {
            delay: make.register(Histogram::with_opts(
                HistogramOpts::new(
                    "nodewarden_delivery_seconds",
                    "Time from writing a line until Elasticsearch finds it, measured with a line of the agent's own each minute.",
                )
                .buckets(DELIVERY_BUCKETS.to_vec()),
            )?)?,
            failed: make.register(IntCounter::new(
                "nodewarden_delivery_canary_failed_total",
                "Lines of the agent's own that were not found within a minute.",
            )?)?,
            last_success: make.register(Gauge::new(
                "nodewarden_delivery_canary_last_success_timestamp_seconds",
                "Unix time when a line of the agent's own was found last, 0 before.",
            )?)?,
        };
        Ok(made.insert(metrics).clone())
    }

    /// Says how much memory the buffers may take.
    pub fn memory_budget(&self, bytes: u64) {
        self.memory_budget.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Says all of them.
    pub fn say(&self, out: &mut Samples) {
        say_build(out);
        self.logs.ledger.say(out);
        self.logs.lags.say(out);
        for family in self.registry.gather() {
            say_family(&family, out);
        }
    }
}

impl ReloadMetrics {
    fn new(make: &Make<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            is_successful: make.int_gauge(
                "nodewarden_config_last_reload_successful",
                "Whether the configuration that was read last is right (1) or an earlier one stays in force (0).",
            )?,
            time: make.register(Gauge::new(
                "nodewarden_config_last_reload_success_timestamp_seconds",
                "Unix time at which the configuration was last read and was right.",
            )?)?,
        })
    }
}

impl Features {
    /// Says whether a feature is on, and why; what was said of it for another reason is forgotten.
    pub fn say(&self, feature: &str, on: bool, reason: &str) {
        for old in self.0.collect().iter().flat_map(proto::MetricFamily::get_metric) {
            let label =
                |name| old.get_label().iter().find(|pair| pair.name() == name).map(|pair| pair.value());
            if let (Some(known), Some(old_reason)) = (label("feature"), label("reason"))
                && known == feature
            {
                // It was just listed; somebody else having removed it is as good.
                let _ = self.0.remove_label_values(&[known, old_reason]);
            }
        }
        self.0.with_label_values(&[feature, reason]).set(i64::from(on));
    }
}

impl LogMetrics {
    fn new(make: &Make<'_>) -> prometheus::Result<Self> {
        const NAMESPACE: &[&str] = &["namespace"];
        let counters = |name, help, labels| make.int_counters(name, help, labels);
        Ok(Self {
            ledger: Ledger::default(),
            rule_lines: counters(
                "nodewarden_log_rule_lines_total",
                "Lines that a rule fitted, also one that only counts.",
                &["rule"],
            )?,
            redacted_lines: counters(
                "nodewarden_log_redacted_lines_total",
                "Lines that something was taken out of before they were shipped or stored.",
                &["detector"],
            )?,
            overflowed_fields: make.register(IntCounter::new(
                "nodewarden_log_overflowed_fields_total",
                "Fields of JSON lines that were shipped as text in nodewarden.overflow, for their index had no room for them.",
            )?)?,
            invalid_utf8_lines: make.register(IntCounter::new(
                "nodewarden_log_invalid_utf8_lines_total",
                "Lines with bytes that are not UTF-8; each such place is shown as U+FFFD.",
            )?)?,
            partial_lines: counters(
                "nodewarden_log_metadata_partial_lines_total",
                "Lines read before the cluster told the labels of their pod.",
                NAMESPACE,
            )?,
            lags: Lags::default(),
            files_open: make.int_gauge("nodewarden_log_files_open", "Log files that are open now.")?,
            features: Features(make.int_gauges(
                "nodewarden_feature_enabled",
                "Whether a feature is on (1) or off (0), and why.",
                &["feature", "reason"],
            )?),
        })
    }
}

impl BulkMetrics {
    fn new(make: &Make<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            requests: make.int_counters(
                "nodewarden_bulk_requests_total",
                "Bulk requests to Elasticsearch.",
                &["outcome"],
            )?,
            items: make.int_counters(
                "nodewarden_bulk_items_total",
                "Documents in the answers to bulk requests.",
                &["status"],
            )?,
            repaired: make.register(IntCounter::new(
                "nodewarden_bulk_repaired_total",
                "Documents that were taken after a field that their index refused had become text in nodewarden.conflict.",
            )?)?,
            resent: make.register(IntCounter::new(
                "nodewarden_dead_letters_resent_total",
                "Dead letters that were sent again and taken; the ledger goes on counting them as dead letters.",
            )?)?,
            duration: make.register(Histogram::with_opts(
                HistogramOpts::new(
                    "nodewarden_bulk_duration_seconds",
                    "Time from sending a bulk request to its answer.",
                )
                .buckets(BULK_BUCKETS.to_vec()),
            )?)?,
        })
    }
}

impl StoreMetrics {
    fn new(make: &Make<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            bytes: make.int_gauge("nodewarden_store_bytes", "Bytes of the local store on disk.")?,
            limit: make.int_gauge(
                "nodewarden_store_limit_bytes",
                "Bytes that the local store may take, 0 when lines are shipped.",
            )?,
            oldest_timestamp: make.register(Gauge::new(
                "nodewarden_store_oldest_timestamp_seconds",
                "Unix time of the oldest line in the local store, 0 without one.",
            )?)?,
        })
    }
}

/// Makes metrics and registers them.
struct Make<'a>(&'a Registry);

impl Make<'_> {
    fn register<M: Collector + Clone + 'static>(&self, metric: M) -> prometheus::Result<M> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn int_counters(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        self.register(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn int_gauges(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn int_gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.register(IntGauge::new(name, help)?)
    }
}

/// Says what the crate gathered; a family is made anew whenever the label names change from one metric to the next.
fn say_family(family: &proto::MetricFamily, out: &mut Samples) {
    let kind = kind_of(family.get_field_type());
    let mut current = None;
    for metric in family.get_metric() {
        let names: Vec<&str> = metric.get_label().iter().map(|pair| pair.name()).collect();
        let values: Vec<&str> = metric.get_label().iter().map(|pair| pair.value()).collect();
        let id = match current.take() {
            Some((known, id)) if known == names => id,
            _ => out.dynamic_family(family.name(), family.help(), kind, &names),
        };
        match kind {
            Kind::Histogram => say_histogram(metric.get_histogram(), |part, value| {
                out.push_part(id, &values, part, value);
            }),
            Kind::Counter => out.push_to(id, &values, metric.get_counter().get_value()),
            _ => out.push_to(id, &values, metric.get_gauge().get_value()),
        }
        current = Some((names, id));
    }
}

fn kind_of(written: MetricType) -> Kind {
    match written {
        MetricType::COUNTER => Kind::Counter,
        MetricType::HISTOGRAM => Kind::Histogram,
        // The crate has no public way to make the other two.
        MetricType::GAUGE | MetricType::SUMMARY | MetricType::UNTYPED => Kind::Gauge,
    }
}

fn say_histogram(histogram: &proto::Histogram, mut say: impl FnMut(Part, f64)) {
    for bucket in histogram.get_bucket() {
        say(Part::Bucket(bucket.upper_bound()), bucket.cumulative_count() as f64);
    }
    // The crate leaves the last bucket to whoever prints.
    let count = histogram.get_sample_count() as f64;
    say(Part::Bucket(f64::INFINITY), count);
    say(Part::Sum, histogram.get_sample_sum());
    say(Part::Count, count);
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    };

    use nodewarden_collectors::text;

    use super::*;

    fn page(own: &Own) -> String {
        let mut samples = Samples::new();
        own.say(&mut samples);
        let mut page = Vec::new();
        text::write(&samples, &mut page);
        String::from_utf8(page).expect("UTF-8")
    }

    fn own() -> Own {
        Own::new(Registry::new()).expect("an empty registry takes every name")
    }

    #[test]
    fn counters_are_printed_with_their_labels() {
        let own = own();
        own.bulk.requests.with_label_values(&["retry"]).inc_by(3);
        own.bulk.requests.with_label_values(&["ok"]).inc();
        assert!(page(&own).contains(
            "# HELP nodewarden_bulk_requests_total Bulk requests to Elasticsearch.\n\
             # TYPE nodewarden_bulk_requests_total counter\n\
             nodewarden_bulk_requests_total{outcome=\"ok\"} 1\n\
             nodewarden_bulk_requests_total{outcome=\"retry\"} 3\n"
        ));
    }

    #[test]
    fn a_histogram_ends_with_its_infinite_bucket_sum_and_count() {
        let own = own();
        own.bulk.duration.observe(0.75);
        own.bulk.duration.observe(64.0);
        let page = page(&own);
        assert!(page.contains("nodewarden_bulk_duration_seconds_bucket{le=\"0.5\"} 0\n"));
        assert!(page.contains(
            "nodewarden_bulk_duration_seconds_bucket{le=\"30\"} 1\n\
             nodewarden_bulk_duration_seconds_bucket{le=\"+Inf\"} 2\n\
             nodewarden_bulk_duration_seconds_sum 64.75\nnodewarden_bulk_duration_seconds_count 2\n"
        ));
    }

    #[test]
    fn what_is_held_is_asked_for_at_each_scrape() {
        let (own, held) = (own(), Arc::new(AtomicUsize::new(2)));
        let seen = Arc::clone(&held);
        own.held(move || [("unauthorized", seen.load(Relaxed)), ("tls", 0)]);
        assert!(page(&own).contains("nodewarden_elasticsearch_held{reason=\"unauthorized\"} 2\n"));
        assert!(page(&own).contains("nodewarden_elasticsearch_held{reason=\"tls\"} 0\n"));
        held.store(0, Relaxed);
        assert!(page(&own).contains("nodewarden_elasticsearch_held{reason=\"unauthorized\"} 0\n"));
        own.held(|| [("unauthorized", 3)]);
        assert!(page(&own).contains("nodewarden_elasticsearch_held{reason=\"unauthorized\"} 3\n"));
        own.holds_nothing();
        assert!(!page(&own).contains("nodewarden_elasticsearch_held{"));
    }

    #[test]
    fn the_build_names_its_version() {
        let expected =
            format!("nodewarden_build_info{{revision=\"{}\",version=\"0.1.0\"}} 1\n", crate::REVISION);
        assert!(page(&own()).contains(&expected));
    }

    #[test]
    fn dashboards_find_the_node() {
        let expected = format!(
            "# TYPE node_exporter_build_info gauge\nnode_exporter_build_info{{branch=\"nodewarden\",goarch=\"{GOARCH}\",goos=\"linux\",\
             goversion=\"\",revision=\"0.1.0\",tags=\"\",version=\"1.12.1\"}} 1\n"
        );
        assert!(page(&own()).contains(&expected), "{}", page(&own()));
    }

    #[test]
    fn a_feature_has_one_reason_at_a_time() {
        let own = own();
        own.feature("store", true, "default");
        own.feature("page", true, "default");
        own.feature("store", false, "disk full");
        let page = page(&own);
        assert!(page.contains("{feature=\"store\",reason=\"disk full\"} 0\n"));
        assert!(!page.contains("{feature=\"store\",reason=\"default\"}"));
        assert!(page.contains("{feature=\"page\",reason=\"default\"} 1\n"));
    }

    #[test]
    fn a_registry_takes_them_only_once() {
        let registry = Registry::new();
        Own::new(registry.clone()).expect("the first time");
        assert!(Own::new(registry).is_err());
    }
}
