//! The settings of each part, as plain values: a part takes its struct and asks nobody else.

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use hyper::header::{HeaderName, HeaderValue};
use nodewarden_collectors::{Host, Settings};
use nodewarden_gpu::counters::Counters;

use crate::logs::{elastic::client, process};

pub use crate::logs::{
    elastic::{
        address::{CloudId, Host as ElasticHost},
        auth::{Auth, Secret, SecretFrom},
        proxy::{Proxies, Proxy},
        tls::Tls,
    },
    index::IndexTemplate,
    multiline::Multiline,
    shape::Schema,
};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

/// Everything the agent was told, complete and checked before a port is bound.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where positions, the local store and the control socket live.
    pub state_dir: PathBuf,
    /// Bytes of memory that every buffer together may take; buffers are sized from it.
    pub memory_limit: u64,
    /// The Kubernetes node's name, else the host's name.
    pub node_name: String,
    /// Where the host's file systems are seen.
    pub host: Host,
    /// What the metrics page shows.
    pub metrics: MetricsConfig,
    /// The metrics listener.
    pub web: WebConfig,
    /// The admin listener.
    pub admin: AdminConfig,
    /// Which logs are read.
    pub logs: LogsConfig,
    /// How the labels of pods are learned.
    pub kubernetes: KubernetesConfig,
    /// Where logs are shipped to; without it they go to the local store.
    pub elasticsearch: Option<ElasticConfig>,
    /// The bounds of the local store.
    pub store: StoreConfig,
    /// How GPUs are read.
    pub gpu: GpuConfig,
    /// How the agent speaks about itself.
    pub log: LogConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: "/var/lib/nodewarden".into(),
            memory_limit: 64 * MIB,
            node_name: String::new(),
            host: Host::default(),
            metrics: MetricsConfig::default(),
            web: WebConfig::default(),
            admin: AdminConfig::default(),
            logs: LogsConfig::default(),
            kubernetes: KubernetesConfig::default(),
            elasticsearch: None,
            store: StoreConfig::default(),
            gpu: GpuConfig::default(),
            log: LogConfig::default(),
        }
    }
}

/// What the metrics page shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsConfig {
    /// The names of the collectors that run, sorted.
    pub enabled: Vec<&'static str>,
    /// The collectors' flags that somebody set.
    pub settings: Settings,
    /// Leaves out what the agent says of its own process.
    pub disable_exporter_metrics: bool,
    /// Scrapes answered at once, the rest get 503; 0 is no limit.
    pub max_requests: usize,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        let on = nodewarden_collectors::node::ALL.iter().filter(|entry| entry.default_on);
        Self {
            enabled: on.map(|entry| entry.name).collect(),
            settings: Settings::new(),
            disable_exporter_metrics: false,
            max_requests: 40,
        }
    }
}

/// The metrics listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebConfig {
    /// Every address to listen on.
    pub listen: Vec<ListenAddress>,
    /// The path of the metrics page; when it is `/` there is no page of links.
    pub telemetry_path: String,
    /// The sockets that systemd hands over are listened on instead of those addresses.
    pub systemd_socket: bool,
    /// The exporter-toolkit's file: TLS, users, headers, limits.
    pub config_file: Option<PathBuf>,
}

impl Default for WebConfig {
    fn default() -> Self {
        Self {
            listen: vec![ListenAddress::any(9100)],
            telemetry_path: "/metrics".into(),
            systemd_socket: false,
            config_file: None,
        }
    }
}

/// The admin listener: page and API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminConfig {
    /// Where it listens; `None` turns it off.
    pub listen: Option<ListenAddress>,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { listen: Some(ListenAddress { host: "127.0.0.1".into(), port: 9180 }) }
    }
}

/// A host and port to listen on, as written; names are looked up when it is bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    /// An address or a name; empty means every address of this machine.
    pub host: String,
    /// The port; 0 lets the kernel choose.
    pub port: u16,
}

impl ListenAddress {
    /// Every address of this machine.
    pub const fn any(port: u16) -> Self {
        Self { host: String::new(), port }
    }

    /// The addresses to try in turn until one can be bound: of an empty host first the IPv6 wildcard,
    /// which takes IPv4 too, then the IPv4 one for machines without IPv6.
    pub fn resolve(&self) -> std::io::Result<Vec<SocketAddr>> {
        use std::net::{Ipv4Addr, Ipv6Addr, ToSocketAddrs};

        if self.host.is_empty() {
            let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, self.port));
            let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, self.port));
            return Ok(vec![v6, v4]);
        }
        Ok((self.host.as_str(), self.port).to_socket_addrs()?.collect())
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Which logs are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogsConfig {
    /// At most this many bytes of history per file on the very first run.
    pub first_run: u64,
    /// Bytes of the longest line; what is beyond is cut with a marker.
    pub max_line: u64,
    /// Whether the metrics of the log path tell containers apart, not only namespaces.
    pub container_metrics: bool,
    /// How lines are put together to events.
    pub multiline: Multiline,
    /// Where lines come from.
    pub sources: Vec<Source>,
    /// What is done with lines on their way.
    pub process: process::Settings,
}

impl Default for LogsConfig {
    fn default() -> Self {
        let files = ["/var/log/syslog", "/var/log/messages", "/var/log/kern.log", "/var/log/auth.log"];
        Self {
            first_run: 64 * MIB,
            max_line: MIB,
            process: process::Settings::default(),
            container_metrics: false,
            multiline: Multiline::Auto,
            sources: vec![
                Source::new(SourceKind::kubernetes()),
                Source::new(SourceKind::Files {
                    include: files.map(String::from).into(),
                    exclude: Vec::new(),
                }),
                Source::new(SourceKind::journal()),
                Source::new(SourceKind::Kernel),
            ],
        }
    }
}

/// One source of lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// What is read.
    pub kind: SourceKind,
    /// An index of its own instead of `elasticsearch.index`.
    pub index: Option<IndexTemplate>,
    /// How its lines are put together, instead of `logs.multiline`.
    pub multiline: Option<Multiline>,
}

impl Source {
    /// One without settings of its own.
    pub fn new(kind: SourceKind) -> Self {
        Self { kind, index: None, multiline: None }
    }
}

/// How the labels, owners and images of this node's pods are learned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubernetesConfig {
    /// Who is asked.
    pub metadata: Metadata,
    /// Annotations of pods that documents say too.
    pub annotations: Vec<String>,
    /// Whether annotations of pods may say what is done with their lines.
    pub hints: bool,
    /// The API server's URL, which a pod finds in its environment.
    pub api_server: Option<String>,
    /// The URL of the node's kubelet.
    pub kubelet: String,
    /// The service account's token.
    pub token_file: PathBuf,
    /// Who signs the certificates of the cluster's servers.
    pub ca_file: PathBuf,
    /// The kubelet's certificate is not looked at.
    pub insecure_skip_verify: bool,
}

impl Default for KubernetesConfig {
    fn default() -> Self {
        let mounted = |name: &str| PathBuf::from("/var/run/secrets/kubernetes.io/serviceaccount").join(name);
        Self {
            metadata: Metadata::Auto,
            annotations: Vec::new(),
            hints: true,
            api_server: None,
            kubelet: "https://127.0.0.1:10250".into(),
            token_file: mounted("token"),
            ca_file: mounted("ca.crt"),
            insecure_skip_verify: false,
        }
    }
}

/// Who is asked about pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metadata {
    /// The API server when there is a token for it, else nobody.
    Auto,
    /// Nobody: what the path of a log file says.
    Path,
    /// The node's kubelet.
    Kubelet,
    /// The API server, about the pods of this node only.
    Api,
}

/// Where the kubelet keeps the containers' logs.
pub const PODS: &str = "/var/log/pods";

/// Where journald keeps its files: across boots, and of this boot alone.
pub const JOURNALS: [&str; 2] = ["/var/log/journal", "/run/log/journal"];

/// What a source reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceKind {
    /// The containers' logs below one folder.
    Kubernetes {
        /// The folder, `/var/log/pods` by default.
        path: PathBuf,
        /// Namespaces that are left alone.
        exclude_namespaces: Vec<String>,
    },
    /// Plain files.
    Files {
        /// Absolute globs.
        include: Vec<String>,
        /// Absolute globs that are left out.
        exclude: Vec<String>,
    },
    /// journald's files.
    Journal {
        /// The folders, [`JOURNALS`] by default.
        path: Vec<PathBuf>,
    },
    /// The kernel's messages, `/dev/kmsg`.
    Kernel,
}

impl SourceKind {
    /// The containers of this node.
    pub fn kubernetes() -> Self {
        Self::Kubernetes { path: PODS.into(), exclude_namespaces: Vec::new() }
    }

    /// The journal of this host.
    pub fn journal() -> Self {
        Self::Journal { path: JOURNALS.map(PathBuf::from).into() }
    }
}

/// Where logs are shipped to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElasticConfig {
    /// The servers; at least one.
    pub hosts: Vec<ElasticHost>,
    /// Data stream or index with `{dataset}`, `{kubernetes.namespace}` and strftime parts.
    pub index: IndexTemplate,
    /// The shape of documents.
    pub schema: Schema,
    /// Where `_id` comes from.
    pub document_ids: DocumentIds,
    /// gzip level of bodies, 0 is off.
    pub compression: u32,
    /// How the agent proves who it is.
    pub auth: Auth,
    /// How TLS is spoken to servers with https.
    pub tls: Tls,
    /// What is between the agent and the servers.
    pub proxies: Proxies,
    /// Headers that every request has.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The size and pace of bulk requests.
    pub bulk: BulkConfig,
    /// Whether a field that its index refuses becomes text, before the whole document is a dead letter.
    pub repair: bool,
    /// Whether a line a minute is sent and looked for.
    pub canary: bool,
}

impl ElasticConfig {
    /// How the servers are reached.
    pub fn client(&self) -> client::Options {
        client::Options {
            hosts: self.hosts.clone(),
            auth: self.auth.clone(),
            tls: self.tls.clone(),
            proxies: self.proxies.clone(),
            headers: self.headers.clone(),
        }
    }
}

impl Default for ElasticConfig {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            index: IndexTemplate::default(),
            schema: Schema::Ecs,
            document_ids: DocumentIds::Position,
            compression: 1,
            auth: Auth::None,
            tls: Tls::default(),
            proxies: Proxies::default(),
            headers: Vec::new(),
            bulk: BulkConfig::default(),
            repair: true,
            canary: false,
        }
    }
}

/// Where `_id` comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentIds {
    /// File identity and byte offset: a line sent twice is stored once.
    Position,
    /// The server makes one.
    None,
}

/// The size and pace of bulk requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BulkConfig {
    /// Bytes of a body before compression at which it is sent.
    pub max_bytes: u64,
    /// How long the first line of a body waits at most.
    pub max_wait: Duration,
    /// Requests at once; `None` adapts to what the server bears.
    pub in_flight: Option<usize>,
}

impl Default for BulkConfig {
    fn default() -> Self {
        Self { max_bytes: 5 * MIB, max_wait: Duration::from_secs(1), in_flight: None }
    }
}

/// The bounds of the local store; the oldest lines go first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// Bytes on disk.
    pub max_bytes: u64,
    /// Age of the oldest line.
    pub max_age: Duration,
    /// Percent of the file system that stays free.
    pub min_free: u8,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self { max_bytes: GIB, max_age: Duration::from_secs(24 * 3600), min_free: 15 }
    }
}

/// How GPUs are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuConfig {
    /// Whether they are, where there are some.
    pub enabled: bool,
    /// NVIDIA's library; `None` is wherever it usually is.
    pub library: Option<PathBuf>,
    /// dcgm-exporter's file of counters.
    pub counters_file: Option<PathBuf>,
    /// What that file says.
    pub counters: Counters,
    /// The time from one reading to the next.
    pub interval: Duration,
    /// A further listener, for the series of GPUs alone.
    pub listen: Option<ListenAddress>,
    /// The label with the node's name.
    pub hostname_label: &'static str,
    /// Whether values of a whole GPU are said for each of its instances.
    pub repeat_for_instances: bool,
    /// Whether values of a shared GPU are said for each container that holds it.
    pub repeat_for_pods: bool,
}

impl Default for GpuConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            library: None,
            counters_file: None,
            counters: Counters::default(),
            interval: Duration::from_secs(30),
            listen: None,
            hostname_label: "Hostname",
            repeat_for_instances: false,
            repeat_for_pods: false,
        }
    }
}

/// How the agent speaks about itself on standard error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// The least important level that is said.
    pub level: tracing::Level,
    /// How a line looks.
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: tracing::Level::INFO, format: LogFormat::Logfmt }
    }
}

/// How a line of the agent's own log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// `key=value` pairs.
    Logfmt,
    /// One JSON object.
    Json,
}
