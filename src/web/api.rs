//! The admin API: what the page and the sub-commands ask a running agent.
//!
//! The agent's other parts are seen through plain handles only ([`AdminState`]).

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use hyper::{Method, Request, Response, StatusCode, body::Incoming};
use serde::Serialize;
use tokio::time::timeout;
use tracing::debug;

use super::{
    answer::{self, Body, json, not_found, sentence},
    facts::{self, Facts},
    logs::LogSearch,
    query::Parameters,
    server::Site,
};
use crate::{
    logs::{
        dead_letters::desk::{Desk, Filter, STARTED_ANEW},
        mail,
        ship::off_thread,
        status::FileStatus,
    },
    metrics::{
        History, Own,
        ledger::{Owner, Sums},
        process::Process,
    },
    shutdown::Shutdown,
    store::Reader,
};

/// Every path of the API starts with this.
pub const PREFIX: &str = "/api/v1/";

/// How long the log reader may take to say what it tails.
const FILES_PATIENCE: Duration = Duration::from_secs(2);

/// What the API answers from.
pub struct AdminState {
    /// The node's name.
    pub node: String,
    /// What the host is.
    pub facts: Arc<OnceLock<Facts>>,
    /// The agent's counters; the ledger is made of them.
    pub own: Own,
    /// The last ten minutes.
    pub history: History,
    /// When the agent was started.
    pub started: Instant,
    /// The effective configuration, without secrets.
    pub config: String,
    /// Where logs are looked for, to be shown.
    pub sources: Vec<String>,
    /// The sink at this moment; must not block.
    pub sink: Box<dyn Fn() -> Sink + Send + Sync>,
    /// Asks the log reader what it tails.
    pub files: mail::Sender,
    /// The local store, where there is one.
    pub store: Option<LocalStore>,
    /// The documents that the sink refused, where there is a sink that may.
    pub dead_letters: Option<Desk>,
}

/// The local store as the API sees it.
#[derive(Debug)]
pub struct LocalStore {
    /// Searches it.
    pub reader: Reader,
    /// Bytes it may take.
    pub max_bytes: u64,
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sink {
    /// What it is.
    pub kind: SinkKind,
    /// A directory or an address.
    pub target: String,
    /// Whether lines get there.
    pub state: SinkState,
    /// Why they do not, as a sentence.
    pub reason: Option<String>,
}

/// What takes the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SinkKind {
    /// The local store.
    Store,
    /// Elasticsearch or OpenSearch.
    Elasticsearch,
}

/// Whether lines get to the sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SinkState {
    /// They do.
    Ok,
    /// They wait in their files.
    Holding,
}

#[derive(Serialize)]
struct Files {
    files: Vec<FileStatus>,
    /// The accounts of those who write them.
    containers: Vec<Container>,
}

#[derive(Serialize)]
struct Container {
    #[serde(flatten)]
    owner: Owner,
    #[serde(flatten)]
    sums: Sums,
}

#[derive(Serialize)]
struct Status<'a> {
    version: &'static str,
    node: &'a str,
    os: &'a str,
    kernel: &'a str,
    cpus: u32,
    memory_total_bytes: u64,
    boot_time_seconds: f64,
    now: f64,
    agent: Agent,
    sink: Sink,
    store: Option<Store>,
    ledger: Sums,
    sources: &'a [String],
}

#[derive(Serialize)]
struct Agent {
    uptime_seconds: f64,
    rss_bytes: u64,
    cpu_seconds: f64,
}

#[derive(Serialize)]
struct Dropped {
    dropped: u64,
}

#[derive(Serialize)]
struct Store {
    bytes: u64,
    max_bytes: u64,
    oldest_seconds: Option<f64>,
}

/// The API itself. Who may ask is decided by the socket it is served on.
pub struct Api {
    state: AdminState,
    logs: Option<LogSearch>,
    dead_letters: Option<LogSearch>,
    process: Mutex<Process>,
}

impl Api {
    /// Answers from `state`; live tails end when `shutdown` says so.
    pub fn new(state: AdminState, shutdown: &Shutdown) -> Self {
        let search = |reader: &Reader| LogSearch::new(reader.clone(), shutdown.clone());
        let logs = state.store.as_ref().map(|store| search(&store.reader));
        let dead_letters = state.dead_letters.as_ref().map(|desk| search(&desk.reader));
        Self { state, logs, dead_letters, process: Mutex::default() }
    }

    fn status(&self) -> Status<'_> {
        let AdminState { node, facts, own, sources, store, sink, .. } = &self.state;
        let facts = facts.get().unwrap_or(&facts::UNKNOWN);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        Status {
            version: crate::VERSION,
            node,
            os: &facts.os,
            kernel: &facts.kernel,
            cpus: facts.cpus,
            memory_total_bytes: facts.memory_total_bytes,
            boot_time_seconds: facts.boot_time_seconds,
            now,
            agent: self.agent(),
            sink: sink(),
            store: store.as_ref().map(|store| Store::of(store, now)),
            ledger: Sums::from(&own.logs.ledger.total()),
            sources,
        }
    }

    fn agent(&self) -> Agent {
        let usage = self.process.lock().unwrap_or_else(PoisonError::into_inner).usage();
        let (rss_bytes, cpu_seconds) = match usage {
            Ok(usage) => (usage.resident_bytes as u64, usage.cpu_seconds),
            Err(error) => {
                debug!(%error, "the agent's own process could not be read");
                (0, 0.0)
            }
        };
        Agent { uptime_seconds: self.state.started.elapsed().as_secs_f64(), rss_bytes, cpu_seconds }
    }

    async fn files(&self) -> Response<Body> {
        match timeout(FILES_PATIENCE, self.state.files.files()).await {
            Ok(Some(files)) => json(&Files { files, containers: self.containers() }),
            _ => sentence(StatusCode::SERVICE_UNAVAILABLE, "the log reader does not answer"),
        }
    }

    fn containers(&self) -> Vec<Container> {
        let accounts = self.state.own.logs.ledger.containers().into_iter();
        accounts.map(|(owner, figures)| Container { owner, sums: Sums::from(&figures) }).collect()
    }

    async fn logs(&self, path: &str, parameters: &Parameters) -> Response<Body> {
        let Some(logs) = &self.logs else {
            let text = "logs are shipped away, there is no local store to search";
            return sentence(StatusCode::NOT_FOUND, text);
        };
        if path == "logs" { logs.search(parameters).await } else { logs.tail(parameters) }
    }

    /// As [`Self::logs`]; a line's text is that of [`crate::logs::dead_letters::DeadLetters`].
    async fn dead_letters(&self, parameters: &Parameters) -> Response<Body> {
        match &self.dead_letters {
            Some(letters) => letters.search(parameters).await,
            None => {
                sentence(StatusCode::NOT_FOUND, "the local store refuses no lines: there are no dead letters")
            }
        }
    }

    /// Sends letters again, or takes them out; which, the parameters say.
    async fn act_on_letters(&self, is_resend: bool, parameters: &Parameters) -> Response<Body> {
        let Some(desk) = &self.state.dead_letters else {
            return self.dead_letters(parameters).await;
        };
        let text = |name: &str| parameters.get(name).map(str::to_owned);
        let filter = Filter { index: text("index"), reason: text("reason"), id: text("id") };
        let is_all = parameters.get("all") == Some("true");
        if is_all == (filter != Filter::default()) {
            let text = "say which dead letters: all=true, or one or more of index, reason and id";
            return sentence(StatusCode::BAD_REQUEST, text);
        }
        if is_resend {
            return match (desk.resend)(filter).await {
                Ok(resent) => json(&resent),
                Err(error) => sentence(StatusCode::CONFLICT, error),
            };
        }
        let Some(letters) = desk.letters() else { return sentence(StatusCode::CONFLICT, STARTED_ANEW) };
        match off_thread(move || letters.drop_all(&filter)).await {
            Ok(dropped) => json(&Dropped { dropped }),
            Err(error) => sentence(StatusCode::INTERNAL_SERVER_ERROR, error),
        }
    }

    fn history(&self, parameters: &Parameters) -> Response<Body> {
        match parameters.get("since").map_or(Ok(0.0), str::parse) {
            Ok(since) => json(&self.state.history.since(since)),
            Err(_) => sentence(StatusCode::BAD_REQUEST, "since has to be unix seconds, such as 1795255200"),
        }
    }
}

impl Site for Api {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let parameters = Parameters::parse(request.uri().query());
        let is_question = matches!(*request.method(), Method::GET | Method::HEAD);
        if let Some(path @ ("dead-letters/resend" | "dead-letters/drop")) =
            request.uri().path().strip_prefix(PREFIX)
        {
            return match *request.method() == Method::POST {
                true => self.act_on_letters(path == "dead-letters/resend", &parameters).await,
                false => sentence(StatusCode::METHOD_NOT_ALLOWED, "this has to be asked with POST"),
            };
        }
        if !is_question {
            return sentence(StatusCode::METHOD_NOT_ALLOWED, "only GET is understood here");
        }
        match request.uri().path().strip_prefix(PREFIX) {
            Some("status") => json(&self.status()),
            Some("files") => self.files().await,
            Some("config") => answer::text(StatusCode::OK, self.state.config.clone()),
            Some("metrics/history") => self.history(&parameters),
            Some(path @ ("logs" | "logs/tail")) => self.logs(path, &parameters).await,
            Some("dead-letters") => self.dead_letters(&parameters).await,
            _ => not_found(),
        }
    }
}

impl Store {
    fn of(store: &LocalStore, now: f64) -> Self {
        let stats = store.reader.stats();
        Self {
            bytes: stats.bytes,
            max_bytes: store.max_bytes,
            oldest_seconds: stats.oldest.map(|oldest| (now - oldest as f64 / 1e9).max(0.0)),
        }
    }
}

#[cfg(test)]
mod tests;
