//! The log path as the configuration wants it: its sources, its sink, their sizes.

mod metadata;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    config::{Config, DocumentIds, ElasticConfig, IndexTemplate, SourceKind},
    kubernetes::known::Pods,
    logs::{
        self, Pipeline,
        batch::BatchLimits,
        canary::Lookout,
        dead_letters::{
            DeadLetters,
            desk::{Desk, Resend, STARTED_ANEW},
        },
        discover::Source,
        elastic::{self, Elastic, client::Client},
        local::Local,
        multiline::Multiline,
        reader,
        shape::{BulkEncoding, Encoding},
        spill,
        status::SinkState,
    },
    metrics::Own,
    store::{self, Limits, Writer},
    telemetry::sentence,
    web::{
        Ready,
        api::{self, Sink, SinkKind},
    },
};

/// What the dead letters may take of the disk.
const DEAD_LETTER_BYTES: u64 = 64 << 20;
/// Requests at once, at most, when the user leaves the number to the agent.
const ADAPTIVE_IN_FLIGHT: usize = 4;
/// How long a bulk request may take, its connection included.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the end of a sink that takes nothing waits for a change of its mind.
const HELD_PATIENCE: Duration = Duration::from_millis(500);
/// Batches into the local store: small, because there is no request to pay for, and early, because people are watching.
const STORE_BATCH: BatchLimits =
    BatchLimits { max_bytes: 1 << 20, max_wait: Duration::from_millis(500), buffers: 3 };

/// The running log path and what is to be shown of it.
pub struct Delivery {
    /// The log path itself.
    pub pipeline: Pipeline,
    /// The local store, when it is the sink.
    pub store: Option<store::Reader>,
    /// What the sink refused, when it is one that may.
    pub dead_letters: Option<Desk>,
    /// What runs beside it, as long as it does.
    tasks: JoinSet<()>,
    state: Arc<SinkState>,
    kind: SinkKind,
    target: String,
}

impl Delivery {
    /// Ends it in a process that goes on: another one may begin where it left off. While the sink takes nothing that is not
    /// waited for.
    pub async fn end(mut self, patience: Duration, own: &Own) {
        self.tasks.shutdown().await;
        let patience = if self.state.reason().is_some() { patience.min(HELD_PATIENCE) } else { patience };
        self.pipeline.end(patience).await;
        own.logs.ledger.start_again();
    }

    /// Says how the sink is at a moment.
    pub fn sink(&self) -> Box<dyn Fn() -> Sink + Send + Sync> {
        let (state, kind, target) = (Arc::clone(&self.state), self.kind, self.target.clone());
        Box::new(move || {
            let reason = state.reason();
            let state = if reason.is_some() { api::SinkState::Holding } else { api::SinkState::Ok };
            Sink { kind, target: target.clone(), state, reason }
        })
    }
}

/// Starts the log path; `None` when it has no place for its state or can't be started, which is said: metrics go on.
pub fn start(config: &Config, own: &Own, ready: &Ready, has_state: bool) -> Option<Delivery> {
    if !has_state {
        own.feature("logs", false, "the state directory can't be written");
        ready.set();
        return None;
    }
    let is_ready = ready.clone();
    let started = match &config.elasticsearch {
        Some(elastic) => start_elastic(config, elastic, own, move || is_ready.set()),
        None => start_local(config, own, move || is_ready.set()),
    };
    match started {
        Ok(delivery) => {
            own.feature("logs", true, "");
            Some(delivery)
        }
        Err(error) => {
            let reason = sentence(&error);
            tracing::error!(error = reason, "no logs are read");
            own.feature("logs", false, &reason);
            ready.set();
            None
        }
    }
}

fn start_elastic(
    config: &Config,
    elastic: &ElasticConfig,
    own: &Own,
    ready: impl FnOnce() + Send + 'static,
) -> anyhow::Result<Delivery> {
    let limits = Limits { max_bytes: DEAD_LETTER_BYTES, ..store_limits(config) };
    let dead_letters = DeadLetters::new(open_store(&config.state_dir.join("dead-letters"), limits)?);
    let state = Arc::new(SinkState::default());
    let held = Arc::clone(&state);
    own.held(move || held.counts().map(|(obstacle, count)| (obstacle.label(), count)));
    let options = elastic::Options {
        compression: elastic.compression,
        in_flight: elastic.bulk.in_flight.unwrap_or(ADAPTIVE_IN_FLIGHT),
        answer_timeout: ANSWER_TIMEOUT,
        repair: elastic.repair,
    };
    // One is filled while the others are on their way.
    let buffers = options.in_flight + 1;
    // Half of the budget is for these buffers; the rest is for compressed bodies, answers and everything else.
    let largest = config.memory_limit / 2 / buffers as u64;
    let batch = BatchLimits {
        max_bytes: elastic.bulk.max_bytes.min(largest) as usize,
        max_wait: elastic.bulk.max_wait,
        buffers,
    };
    let client = Client::new(elastic.client());
    let letters = dead_letters.clone();
    let sink = Arc::new(Elastic::new(options, client, Arc::clone(&state), dead_letters, own.bulk.clone()));
    let sending = Arc::downgrade(&sink);
    let resend: Resend = Arc::new(move |filter| {
        let sink = sending.upgrade();
        Box::pin(async move {
            match sink {
                Some(sink) => sink.resend(filter).await,
                None => Err(STARTED_ANEW.to_owned()),
            }
        })
    });
    let desk = Desk::new(&letters, resend, search_memory(config.memory_limit));
    drop(letters);
    let plan = metadata::plan(config, own);
    let pods = plan.as_ref().map(|plan| Arc::clone(&plan.pods));
    let mut tasks = JoinSet::new();
    let mut options = reader_options(config, batch, pods, |index| bulk_encoding(config, elastic, index))?;
    if elastic.canary {
        let (settled, arrivals) = mpsc::channel(1);
        let metrics = own.canary()?;
        tasks.spawn(Arc::clone(&sink).look_out(arrivals, metrics.clone()));
        let source = Source::Canary(Lookout { settled, metrics });
        options.sources.push((source, bulk_encoding(config, elastic, None)));
    }
    let pipeline = logs::start(options, sink, own.logs.clone(), ready)?;
    if let Some(plan) = plan {
        plan.start(pipeline.mail.clone(), own, &mut tasks);
    }
    let hosts: Vec<String> = elastic.hosts.iter().map(ToString::to_string).collect();
    Ok(Delivery {
        pipeline,
        store: None,
        dead_letters: Some(desk),
        tasks,
        state,
        kind: SinkKind::Elasticsearch,
        target: hosts.join(", "),
    })
}

fn start_local(
    config: &Config,
    own: &Own,
    ready: impl FnOnce() + Send + 'static,
) -> anyhow::Result<Delivery> {
    let directory = config.state_dir.join("store");
    let writer = open_store(&directory, store_limits(config))?;
    let reader = writer.reader().with_memory(search_memory(config.memory_limit));
    let state = Arc::new(SinkState::default());
    own.store.limit.set(i64::try_from(config.store.max_bytes).unwrap_or(i64::MAX));
    let sink = Local::new(writer, Arc::clone(&state), own.store.clone());
    let options = reader_options(config, STORE_BATCH, None, |_| Encoding::Records)?;
    let pipeline = logs::start(options, Arc::new(sink), own.logs.clone(), ready)?;
    let target = directory.display().to_string();
    own.holds_nothing();
    Ok(Delivery {
        pipeline,
        store: Some(reader),
        dead_letters: None,
        tasks: JoinSet::new(),
        state,
        kind: SinkKind::Store,
        target,
    })
}

fn store_limits(config: &Config) -> Limits {
    Limits {
        max_bytes: config.store.max_bytes,
        max_age: config.store.max_age,
        min_free: f64::from(config.store.min_free) / 100.0,
    }
}

fn open_store(directory: &Path, limits: Limits) -> anyhow::Result<Writer> {
    let (writer, recovered) = Writer::open(directory, limits, SystemTime::now())?;
    for message in recovered.messages {
        tracing::warn!("{message}");
    }
    Ok(writer)
}

fn bulk_encoding(config: &Config, elastic: &ElasticConfig, index: Option<&IndexTemplate>) -> Encoding {
    Encoding::Bulk(BulkEncoding {
        index: index.unwrap_or(&elastic.index).clone(),
        schema: elastic.schema,
        position_ids: elastic.document_ids == DocumentIds::Position,
        node: config.node_name.clone(),
    })
}

/// Where to look for lines, and the form in which the sink takes them.
pub fn sources(config: &Config) -> Result<Vec<(Source, Encoding)>, glob::PatternError> {
    found_sources(config, |index| match &config.elasticsearch {
        Some(elastic) => bulk_encoding(config, elastic, index),
        None => Encoding::Records,
    })
}

fn found_sources(
    config: &Config,
    encoding: impl Fn(Option<&IndexTemplate>) -> Encoding,
) -> Result<Vec<(Source, Encoding)>, glob::PatternError> {
    let mut sources = Vec::new();
    for source in &config.logs.sources {
        let found = match &source.kind {
            SourceKind::Kubernetes { path, exclude_namespaces } => {
                Source::Kubernetes { path: path.clone(), exclude_namespaces: exclude_namespaces.clone() }
            }
            SourceKind::Files { include, exclude } => {
                Source::Files { include: patterns(include)?, exclude: patterns(exclude)? }
            }
            SourceKind::Journal { path } => {
                Source::Journal { paths: path.iter().flat_map(|path| seen_at(config, path)).collect() }
            }
            SourceKind::Kernel => Source::Kernel {
                devices: seen_at(config, Path::new("/dev/kmsg")),
                boot_id: config.host.proc("sys/kernel/random/boot_id"),
            },
        };
        sources.push((found, encoding(source.index.as_ref())));
    }
    Ok(sources)
}

/// How lines of each source are put together.
pub fn multiline(config: &Config) -> Vec<Multiline> {
    let of =
        |source: &crate::config::Source| source.multiline.as_ref().unwrap_or(&config.logs.multiline).clone();
    config.logs.sources.iter().map(of).collect()
}

fn reader_options(
    config: &Config,
    batch: BatchLimits,
    pods: Option<Arc<Pods>>,
    encoding: impl Fn(Option<&IndexTemplate>) -> Encoding,
) -> anyhow::Result<reader::Options> {
    let sources = found_sources(config, encoding)?;
    Ok(reader::Options {
        sources,
        first_run_bytes: config.logs.first_run,
        multiline: multiline(config),
        max_line: config.logs.max_line as usize,
        batch,
        state_dir: config.state_dir.clone(),
        root: config.host.rootfs.clone(),
        pods,
        process: config.logs.process.clone(),
        memory: reader_memory(config.memory_limit, config.logs.max_line),
        spill: spill::Limits {
            max_bytes: config.store.max_bytes,
            min_free: f64::from(config.store.min_free) / 100.0,
        },
    })
}

/// What a compressed file takes while it is read, beside its longest line: inflate's state and window, packed and unpacked bytes.
const ARCHIVE_BYTES: u64 = 512 << 10;

/// The reader's share of the memory: an eighth for parts of lines, a sixteenth for compressed files. At the least one file
/// is read at a time.
fn reader_memory(limit: u64, max_line: u64) -> reader::MemoryLimits {
    let archives = (limit / 16 / (max_line + ARCHIVE_BYTES)).clamp(1, 16);
    reader::MemoryLimits { parts: (limit / 8) as usize, archives: archives as usize }
}

/// What a search may hold of the memory; two run at a time.
fn search_memory(limit: u64) -> usize {
    (limit / 16) as usize
}

/// Where a path of the host may be seen from here: as it is, when it was mounted by itself, or below the host's root. A file
/// that is seen at both is read once.
fn seen_at(config: &Config, path: &Path) -> Vec<PathBuf> {
    let below_root = config.host.root(&path.to_string_lossy());
    let mut paths = vec![path.to_owned()];
    paths.extend((below_root != path).then_some(below_root));
    paths
}

fn patterns(texts: &[String]) -> Result<Vec<glob::Pattern>, glob::PatternError> {
    texts.iter().map(|text| glob::Pattern::new(text)).collect()
}

/// Where logs are looked for, for people.
pub fn source_texts(config: &Config) -> Vec<String> {
    config.logs.sources.iter().flat_map(|source| texts(&source.kind)).collect()
}

/// The same of one source.
pub fn source_text(kind: &SourceKind) -> String {
    texts(kind).join(", ")
}

fn texts(kind: &SourceKind) -> Vec<String> {
    match kind {
        SourceKind::Kubernetes { path, .. } => vec![path.display().to_string()],
        SourceKind::Files { include, .. } => include.clone(),
        SourceKind::Journal { path } => path.iter().map(|path| path.display().to_string()).collect(),
        SourceKind::Kernel => vec!["/dev/kmsg".to_owned()],
    }
}
