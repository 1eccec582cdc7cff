//! The agent: makes the parts out of a `Config`, lets them run, ends them in order.

use std::{fs, path::Path, sync::Arc, time::SystemTime};

use anyhow::Context;
use base64::{Engine, engine::general_purpose::STANDARD};
use prometheus::Registry;

use crate::{
    config::{Auth, Config, DocumentIds, ElasticConfig, SourceKind},
    logs::{
        self, Pipeline,
        batch::BatchLimits,
        dead_letters::DeadLetters,
        discover::Source,
        elastic::{self, Elastic},
        index::IndexTemplate,
        local::Local,
        reader,
        shape::{BulkEncoding, Encoding},
        status::SinkState,
    },
    metrics::own::Own,
    store::{self, Limits, Writer},
};

/// The dead letters may take this much of the disk.
const DEAD_LETTER_BYTES: u64 = 64 << 20;
/// Requests at once when the user leaves the number to the agent.
const ADAPTIVE_IN_FLIGHT: usize = 4;

/// Runs until a signal ends it.
pub fn run(config: Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("could not start the runtime")?;
    runtime.block_on(serve(config))
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let own = Own::new(Registry::new())?;
    own.memory_budget(config.memory_limit);
    let (logs, _store) = start_logs(&config, &own, || ())?;
    tokio::signal::ctrl_c().await?;
    logs.stop(std::time::Duration::from_secs(4)).await;
    Ok(())
}

/// Starts the log path into Elasticsearch, or into the local store when there is none.
fn start_logs(
    config: &Config,
    own: &Own,
    ready: impl FnOnce() + Send + 'static,
) -> anyhow::Result<(Pipeline, Option<store::Reader>)> {
    let state = Arc::new(SinkState::default());
    match &config.elasticsearch {
        Some(elastic) => {
            let limits = Limits { max_bytes: DEAD_LETTER_BYTES, ..store_limits(config) };
            let dead_letters = DeadLetters::new(open_store(&config.state_dir.join("dead-letters"), limits)?);
            let options = elastic_options(elastic);
            let batch = BatchLimits {
                max_bytes: elastic.bulk.max_bytes.min(config.memory_limit / 12) as usize,
                max_wait: elastic.bulk.max_wait,
                buffers: options.in_flight + 2,
            };
            let sink = Elastic::new(options, state, dead_letters, own.bulk.clone(), own.logs.clone());
            let options = reader_options(config, batch, |index| bulk_encoding(config, elastic, index))?;
            Ok((logs::start(options, Arc::new(sink), own.logs.clone(), ready)?, None))
        }
        None => {
            let writer = open_store(&config.state_dir.join("store"), store_limits(config))?;
            let reader = writer.reader();
            let sink = Local::new(writer, state, own.store.clone());
            let batch = BatchLimits {
                max_bytes: 1 << 20,
                max_wait: std::time::Duration::from_millis(500),
                buffers: 3,
            };
            let options = reader_options(config, batch, |_| Encoding::Records)?;
            Ok((logs::start(options, Arc::new(sink), own.logs.clone(), ready)?, Some(reader)))
        }
    }
}

fn store_limits(config: &Config) -> Limits {
    Limits {
        max_bytes: config.store.max_bytes,
        max_age: config.store.max_age,
        min_free: f64::from(config.store.min_free) / 100.0,
    }
}

fn open_store(directory: &Path, limits: Limits) -> anyhow::Result<Writer> {
    let (writer, _recovered) = Writer::open(directory, limits, SystemTime::now())?;
    Ok(writer)
}

fn elastic_options(config: &ElasticConfig) -> elastic::Options {
    elastic::Options {
        hosts: config.hosts.clone(),
        authorization: authorization(&config.auth),
        compression: config.compression,
        in_flight: config.bulk.in_flight.unwrap_or(ADAPTIVE_IN_FLIGHT),
    }
}

fn authorization(auth: &Auth) -> Option<String> {
    match auth {
        Auth::None => None,
        Auth::Basic { username, password } => {
            Some(format!("Basic {}", STANDARD.encode(format!("{username}:{}", password.expose()))))
        }
        Auth::ApiKey(key) => Some(format!("ApiKey {}", key.expose())),
        Auth::Bearer(token) => Some(format!("Bearer {}", token.expose())),
    }
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
    encoding: impl Fn(Option<&IndexTemplate>) -> Encoding,
) -> anyhow::Result<reader::Options> {
    let mut sources = Vec::new();
    for source in &config.logs.sources {
        let patterns =
            |texts: &[String]| texts.iter().map(|text| glob::Pattern::new(text)).collect::<Result<_, _>>();
        let found = match &source.kind {
            SourceKind::Kubernetes { path, exclude_namespaces } => {
                Source::Kubernetes { path: path.clone(), exclude_namespaces: exclude_namespaces.clone() }
            }
            SourceKind::Files { include, exclude } => {
                Source::Files { include: patterns(include)?, exclude: patterns(exclude)? }
            }
        };
        sources.push((found, encoding(source.index.as_ref())));
    }
    fs::create_dir_all(&config.state_dir)
        .with_context(|| format!("could not make the state directory {}", config.state_dir.display()))?;
    Ok(reader::Options {
        sources,
        first_run_bytes: config.logs.first_run,
        max_line: config.logs.max_line as usize,
        batch,
        state_dir: config.state_dir.clone(),
    })
}
