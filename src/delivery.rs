//! The log path as the configuration wants it: its sources, its sink, their sizes.

mod metadata;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{
    config::{Config, DocumentIds, ElasticConfig, IndexTemplate, SourceKind},
    kubernetes::known::Pods,
    logs::{
        self, Pipeline,
        batch::BatchLimits,
        dead_letters::DeadLetters,
        discover::Source,
        elastic::{
            self, Elastic,
            client::{self, Client},
        },
        local::Local,
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
    pub dead_letters: Option<store::Reader>,
    state: Arc<SinkState>,
    kind: SinkKind,
    target: String,
}

impl Delivery {
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
    let refused = dead_letters.reader().with_memory(search_memory(config.memory_limit));
    let state = Arc::new(SinkState::default());
    let held = Arc::clone(&state);
    own.held(move || held.counts().map(|(obstacle, count)| (obstacle.label(), count)))?;
    let options = elastic::Options {
        compression: elastic.compression,
        in_flight: elastic.bulk.in_flight.unwrap_or(ADAPTIVE_IN_FLIGHT),
        answer_timeout: ANSWER_TIMEOUT,
    };
    let buffers = options.in_flight + 2;
    // Half of the budget is for these buffers; the rest is for compressed bodies, answers and everything else.
    let largest = config.memory_limit / 2 / buffers as u64;
    let batch = BatchLimits {
        max_bytes: elastic.bulk.max_bytes.min(largest) as usize,
        max_wait: elastic.bulk.max_wait,
        buffers,
    };
    let client = Client::new(client::Options {
        hosts: elastic.hosts.clone(),
        auth: elastic.auth.clone(),
        tls: elastic.tls.clone(),
        proxies: elastic.proxies.clone(),
        headers: elastic.headers.clone(),
    });
    let sink = Elastic::new(options, client, Arc::clone(&state), dead_letters, own.bulk.clone());
    let plan = metadata::plan(config, own);
    let pods = plan.as_ref().map(|plan| Arc::clone(&plan.pods));
    let options = reader_options(config, batch, pods, |index| bulk_encoding(config, elastic, index))?;
    let pipeline = logs::start(options, Arc::new(sink), own.logs.clone(), ready)?;
    if let Some(plan) = plan {
        plan.start(pipeline.mail.clone(), own);
    }
    let hosts: Vec<String> = elastic.hosts.iter().map(ToString::to_string).collect();
    Ok(Delivery {
        pipeline,
        store: None,
        dead_letters: Some(refused),
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
    let sink = Local::new(writer, Arc::clone(&state), own.store.clone());
    let options = reader_options(config, STORE_BATCH, None, |_| Encoding::Records)?;
    let pipeline = logs::start(options, Arc::new(sink), own.logs.clone(), ready)?;
    let target = directory.display().to_string();
    Ok(Delivery { pipeline, store: Some(reader), dead_letters: None, state, kind: SinkKind::Store, target })
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

fn reader_options(
    config: &Config,
    batch: BatchLimits,
    pods: Option<Arc<Pods>>,
    encoding: impl Fn(Option<&IndexTemplate>) -> Encoding,
) -> anyhow::Result<reader::Options> {
    let (mut sources, mut multiline) = (Vec::new(), Vec::new());
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
        multiline.push(source.multiline.as_ref().unwrap_or(&config.logs.multiline).clone());
    }
    Ok(reader::Options {
        sources,
        first_run_bytes: config.logs.first_run,
        multiline,
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
    let texts = |kind: &SourceKind| match kind {
        SourceKind::Kubernetes { path, .. } => vec![path.display().to_string()],
        SourceKind::Files { include, .. } => include.clone(),
        SourceKind::Journal { path } => path.iter().map(|path| path.display().to_string()).collect(),
        SourceKind::Kernel => vec!["/dev/kmsg".to_owned()],
    };
    config.logs.sources.iter().flat_map(|source| texts(&source.kind)).collect()
}
