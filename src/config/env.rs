//! Environment variables: the names that the images this agent replaces are configured by.

use std::collections::BTreeMap;

use super::{
    keys,
    layer::{Layer, Written},
    mistakes::{Mistakes, Origin},
    options::{PODS, Source, SourceKind},
};

/// Names to values.
pub type Env = BTreeMap<String, String>;

/// What a variable means to us.
enum Meaning {
    /// The setting of this key.
    Key(&'static str),
    /// The duration of this key, as a number of milliseconds.
    Milliseconds(&'static str),
    /// This text for the key when the value is `false`.
    WhenFalse(&'static str, &'static str),
    /// Part of a server's address or of its index, see [`server`] and [`fluent_index`].
    Server,
    /// Which container logs are read, see [`tail_paths`].
    Tail,
    /// Without effect, and why.
    Ignored(&'static str),
    /// Asks for something that is not done, which must not be passed over.
    Refused(&'static str),
}
use Meaning::{Ignored, Key as Sets, Milliseconds, Refused, Server, Tail, WhenFalse};

const OWN_TLS: &str = "TLS 1.2 and 1.3 are spoken, whichever the server takes";
const NO_KEY_PASSWORD: &str = "keys with a password are not read; write the key without one into CLIENT_KEY";
const ONE_WATCH: &str =
    "one watch of this node's pods tells labels, owners and images; kubernetes.metadata says otherwise";
const IN_CLUSTER: &str = "KUBERNETES_SERVICE_HOST";
const OWN_RETRY: &str = "back-off, retry and reconnecting adapt by themselves";
const SETUP: &str = "nodewarden setup installs index template and lifecycle policy";
const NO_TYPES: &str = "document types are gone from Elasticsearch";
const OWN_METRICS: &str = "the agent's own metrics are on the metrics listener";
const OWN_FORMAT: &str = "the format of a log is recognised by itself";
const NO_FLUENTD: &str = "it configures Fluentd itself";

/// Later rows win over earlier ones of the same key.
const NAMES: &[(&str, Meaning)] = &[
    ("VECTOR_SELF_NODE_NAME", Sets("node_name")),
    ("K8S_NODE_NAME", Sets("node_name")),
    ("NODE_NAME", Sets("node_name")),
    ("PROCFS_ROOT", Sets("path.procfs")),
    ("SYSFS_ROOT", Sets("path.sysfs")),
    ("COMPRESSION_LEVEL", Sets("elasticsearch.compression")),
    ("ENABLE_COMPRESSION", WhenFalse("elasticsearch.compression", "0")),
    ("ELASTICSEARCH_URL", Server),
    ("ELASTICSEARCH_HOST", Server),
    ("ELASTICSEARCH_PORT", Server),
    ("ELASTICSEARCH_USERNAME", Sets("elasticsearch.auth.username")),
    ("ELASTICSEARCH_PASSWORD", Sets(keys::PASSWORD)),
    ("ELASTIC_CLOUD_ID", Server),
    ("ELASTIC_CLOUD_AUTH", Server),
    ("DCGM_EXPORTER_LISTEN", Sets("gpu.listen_address")),
    ("DCGM_EXPORTER_INTERVAL", Milliseconds("gpu.interval")),
    ("FLUENT_CONTAINER_TAIL_PATH", Tail),
    ("FLUENT_CONTAINER_TAIL_EXCLUDE_PATH", Tail),
    ("FLUENT_CONTAINER_TAIL_TAG", Ignored(NO_FLUENTD)),
    ("FLUENT_CONTAINER_TAIL_PARSER_TYPE", Ignored(OWN_FORMAT)),
    ("FLUENT_CONTAINER_TAIL_PARSER_TIME_FORMAT", Ignored(OWN_FORMAT)),
    ("FLUENT_POS_EXTRA_DIR", Ignored("positions are in the state directory")),
    ("FLUENT_KUBERNETES_METADATA_SKIP_LABELS", Ignored(ONE_WATCH)),
    ("FLUENT_KUBERNETES_METADATA_SKIP_CONTAINER_METADATA", Ignored(ONE_WATCH)),
    ("FLUENT_KUBERNETES_METADATA_SKIP_MASTER_URL", Ignored(ONE_WATCH)),
    ("FLUENT_KUBERNETES_METADATA_SKIP_NAMESPACE_METADATA", Ignored(ONE_WATCH)),
    ("FLUENT_KUBERNETES_WATCH", Ignored(ONE_WATCH)),
    ("FLUENT_FILTER_KUBERNETES_URL", Sets("kubernetes.api_server")),
    ("KUBERNETES_VERIFY_SSL", Ignored("the API server is always verified by kubernetes.ca_file")),
    ("KUBERNETES_CA_FILE", Sets("kubernetes.ca_file")),
    (SYSTEMD, Tail),
    ("FLUENTD_PROMETHEUS_CONF", Ignored(OWN_METRICS)),
    ("FLUENTD_PROMETHEUS_BIND", Ignored(OWN_METRICS)),
    ("FLUENTD_PROMETHEUS_PORT", Ignored(OWN_METRICS)),
    ("FLUENTD_PROMETHEUS_PATH", Ignored(OWN_METRICS)),
    ("FLUENT_UID", Ignored(NO_FLUENTD)),
    ("FLUENT_SNIFFER_CLASS_NAME", Ignored("servers are never asked for further ones")),
];

/// The beginnings of the Fluentd images' names; each takes every ending of [`FLUENT`].
const FLUENT_PREFIXES: [&str; 2] = [OPEN_SEARCH, "FLUENT_ELASTICSEARCH_"];
const OPEN_SEARCH: &str = "FLUENT_OPENSEARCH_";

const FLUENT: &[(&str, Meaning)] = &[
    ("HOST", Server),
    ("PORT", Server),
    ("PATH", Server),
    ("SCHEME", Server),
    ("LOGSTASH_FORMAT", Server),
    ("LOGSTASH_PREFIX", Server),
    ("LOGSTASH_PREFIX_SEPARATOR", Server),
    ("LOGSTASH_DATEFORMAT", Server),
    ("LOGSTASH_INDEX_NAME", Server),
    ("INDEX_NAME", Server),
    ("USER", Sets("elasticsearch.auth.username")),
    ("PASSWORD", Sets(keys::PASSWORD)),
    ("BUFFER_CHUNK_LIMIT_SIZE", Ignored("bodies are sized by elasticsearch.bulk.max_bytes")),
    ("BUFFER_FLUSH_INTERVAL", Ignored("bodies are sent after elasticsearch.bulk.max_wait")),
    ("BUFFER_FLUSH_THREAD_COUNT", Ignored("requests at once are elasticsearch.bulk.in_flight")),
    ("BUFFER_QUEUE_LIMIT_LENGTH", Ignored("the log files themselves are the buffer")),
    ("BUFFER_TOTAL_LIMIT_SIZE", Ignored("the log files themselves are the buffer")),
    ("BUFFER_RETRY_MAX_INTERVAL", Ignored(OWN_RETRY)),
    ("BUFFER_RETRY_TIMEOUT", Ignored(OWN_RETRY)),
    ("BUFFER_RETRY_FOREVER", Ignored("what is not delivered stays in its file until it is")),
    ("BUFFER_FLUSH_MODE", Ignored("bodies are sent after elasticsearch.bulk.max_wait")),
    ("SECURE", Ignored("SCHEME says whether TLS is spoken")),
    ("REQUEST_TIMEOUT", Ignored(OWN_RETRY)),
    ("RELOAD_CONNECTIONS", Ignored(OWN_RETRY)),
    ("RECONNECT_ON_ERROR", Ignored(OWN_RETRY)),
    ("RELOAD_ON_FAILURE", Ignored(OWN_RETRY)),
    ("LOG_ES_400_REASON", Ignored("the reason of a rejected document is always kept")),
    ("SSL_VERIFY", WhenFalse("elasticsearch.tls.insecure_skip_verify", "true")),
    ("SSL_VERSION", Ignored(OWN_TLS)),
    ("CA_PATH", Sets("elasticsearch.tls.ca")),
    ("CLIENT_CERT", Sets("elasticsearch.tls.cert")),
    ("CLIENT_KEY", Sets("elasticsearch.tls.key")),
    ("CLIENT_KEY_PASS", Refused(NO_KEY_PASSWORD)),
    ("TARGET_INDEX_KEY", Ignored("use {fields} in elasticsearch.index")),
    ("LOGSTASH_TYPE_NAME", Ignored(NO_TYPES)),
    ("SUPPRESS_TYPE_NAME", Ignored(NO_TYPES)),
    ("INCLUDE_TIMESTAMP", Ignored("documents always have their time")),
    ("TEMPLATE_NAME", Ignored(SETUP)),
    ("TEMPLATE_FILE", Ignored(SETUP)),
    ("TEMPLATE_OVERWRITE", Ignored("nodewarden setup never overwrites what somebody changed")),
    ("APPLICATION_NAME", Ignored(SETUP)),
    ("ENABLE_ILM", Ignored(SETUP)),
    ("ILM_POLICY_ID", Ignored(SETUP)),
    ("ILM_POLICY", Ignored("nodewarden setup --retention says when indices are deleted")),
    ("ILM_POLICY_OVERWRITE", Ignored("nodewarden setup never overwrites what somebody changed")),
];

/// What the environment says.
pub fn read(env: &Env, mistakes: &mut Mistakes) -> Layer {
    let mut reader = Reader { env, layer: Layer::default(), mistakes };
    for prefix in FLUENT_PREFIXES {
        for (ending, meaning) in FLUENT {
            reader.variable(&format!("{prefix}{ending}"), meaning);
        }
    }
    for (name, meaning) in NAMES {
        reader.variable(name, meaning);
    }
    reader.api_server();
    reader.kubelet();
    reader.server();
    reader.tail_paths();
    reader.layer
}

struct Reader<'a> {
    env: &'a Env,
    layer: Layer,
    mistakes: &'a mut Mistakes,
}

impl Reader<'_> {
    /// A variable's value; an empty one counts as not set, as manifests leave them.
    fn get(&self, name: &str) -> Option<&str> {
        self.env.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    fn variable(&mut self, name: &str, meaning: &Meaning) {
        let Some(value) = self.get(name).map(str::to_owned) else { return };
        match meaning {
            Sets(key) => self.set(key, value, name),
            Milliseconds(key) => match value.parse::<u64>() {
                Ok(number) => self.set(key, format!("{number}ms"), name),
                Err(_) => self.mistakes.add(
                    &origin(name),
                    format!("expected a number of milliseconds such as 30000, not '{value}'"),
                ),
            },
            WhenFalse(key, text) => match value.as_str() {
                "true" => {}
                "false" => self.set(key, (*text).to_owned(), name),
                odd => self.mistakes.add(&origin(name), format!("expected true or false, not '{odd}'")),
            },
            Ignored(why) => self.layer.notes.push(format!("{name} has no effect: {why}")),
            Refused(why) => self.mistakes.add(&origin(name), *why),
            Server | Tail => {}
        }
    }

    fn set(&mut self, key: &'static str, value: String, name: &str) {
        if let Some(key) = keys::find(key) {
            self.layer.written.push(Written::one(key, value, origin(name)));
        }
    }

    /// Where a pod finds the API server.
    fn api_server(&mut self) {
        let (Some(host), Some(port)) = (self.get(IN_CLUSTER), self.get("KUBERNETES_SERVICE_PORT")) else {
            return;
        };
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let url = format!("https://{host}:{port}");
        // What names the server itself comes before what every pod is told.
        if self.get("FLUENT_FILTER_KUBERNETES_URL").is_none() {
            self.set("kubernetes.api_server", url, IN_CLUSTER);
        }
    }

    /// The kubelet's certificate names the node's address, not loopback.
    fn kubelet(&mut self) {
        const NODE_IP: &str = "NODE_IP";
        if let Some(host) = self.get(NODE_IP) {
            let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
            self.set("kubernetes.kubelet", format!("https://{host}:10250"), NODE_IP);
        }
    }

    /// The server that logs are shipped to: a whole address first, then its parts.
    fn server(&mut self) {
        // As Filebeat does it: the cloud's id beats the host that its manifest always names.
        if let Some(id) = self.get("ELASTIC_CLOUD_ID").map(str::to_owned) {
            self.set("elasticsearch.cloud_id", id, "ELASTIC_CLOUD_ID");
            self.cloud_auth();
        } else if let Some(url) = self.get("ELASTICSEARCH_URL").map(str::to_owned) {
            self.set(HOSTS, url, "ELASTICSEARCH_URL");
        } else if self.get("ELASTICSEARCH_HOST").is_some() {
            self.address("ELASTICSEARCH_");
        } else if let Some(prefix) = fluent_prefix(self) {
            self.address(prefix);
            self.set("elasticsearch.schema", "fluent".into(), &format!("{prefix}HOST"));
            self.fluent_index(prefix);
        }
    }

    /// `user:password`.
    fn cloud_auth(&mut self) {
        const NAME: &str = "ELASTIC_CLOUD_AUTH";
        let Some(both) = self.get(NAME).map(str::to_owned) else { return };
        match both.split_once(':') {
            Some((user, password)) => {
                self.set("elasticsearch.auth.username", user.to_owned(), NAME);
                self.set(keys::PASSWORD, password.to_owned(), NAME);
            }
            None => self.mistakes.add(&origin(NAME), "expected user:password"),
        }
    }

    /// `HOST`, with `PORT`, `SCHEME` and `PATH` when they are set. A host that is a whole address stays one.
    fn address(&mut self, prefix: &str) {
        let part = |ending: &str| self.get(&format!("{prefix}{ending}")).map(str::to_owned);
        let host = part("HOST").unwrap_or_default();
        let scheme = part("SCHEME").unwrap_or_else(|| "http".into());
        let path = part("PATH").unwrap_or_default();
        let name = format!("{prefix}{}", if scheme == "http" { "HOST" } else { "SCHEME" });
        let port = part("PORT");
        if host.contains("://") {
            return self.set(HOSTS, host, &name);
        }
        let port = self.port(port.as_deref(), &format!("{prefix}PORT"));
        let path = path.trim_matches('/');
        // An IPv6 address comes without brackets here.
        let host = if host.parse::<std::net::Ipv6Addr>().is_ok() { format!("[{host}]") } else { host };
        let port = if host.rfind(':') > host.rfind(']') { String::new() } else { format!(":{port}") };
        self.set(HOSTS, format!("{scheme}://{host}{port}/{path}"), &name);
    }

    /// Kubernetes sets `ELASTICSEARCH_PORT=tcp://...` by itself when a service of this name exists: not a port.
    fn port(&mut self, written: Option<&str>, name: &str) -> u16 {
        const USUAL: u16 = 9200;
        match written {
            None => USUAL,
            Some(service) if service.starts_with("tcp://") => {
                self.layer
                    .notes
                    .push(format!("{name} is a Kubernetes service's, not a port; {USUAL} is used"));
                USUAL
            }
            Some(port) => port.parse().unwrap_or_else(|_| {
                self.mistakes.add(&origin(name), format!("expected a port such as {USUAL}, not '{port}'"));
                USUAL
            }),
        }
    }

    /// `logstash-%Y.%m.%d` and its variations; without the logstash format, which is the default of the image for OpenSearch, one
    /// plain name.
    fn fluent_index(&mut self, prefix: &str) {
        let (by_date, name) = if prefix == OPEN_SEARCH { ("false", "fluentd") } else { ("true", "logstash") };
        let part = |ending: &str, default: &str| {
            let name = format!("{prefix}{ending}");
            self.get(&name).map_or_else(|| default.to_owned(), str::to_owned)
        };
        // Fluentd's plugin makes capitals small, as Elasticsearch takes none.
        let small = |ending: &str, default: &str| part(ending, default).to_lowercase();
        let index = if part("LOGSTASH_FORMAT", by_date) == "false" {
            small("INDEX_NAME", &part("LOGSTASH_INDEX_NAME", name))
        } else {
            let date = part("LOGSTASH_DATEFORMAT", "%Y.%m.%d");
            small("LOGSTASH_PREFIX", "logstash") + &small("LOGSTASH_PREFIX_SEPARATOR", "-") + &date
        };
        let said = ["LOGSTASH_DATEFORMAT", "LOGSTASH_PREFIX", "INDEX_NAME", "LOGSTASH_INDEX_NAME", "HOST"];
        let names = said.map(|ending| format!("{prefix}{ending}"));
        if let Some(name) = names.iter().find(|name| self.get(name).is_some()) {
            self.set("elasticsearch.index", index, name);
        }
    }

    /// Container logs at another place are plain files to us; the usual place is read as pods. The image reads the journal
    /// unless it is told not to.
    fn tail_paths(&mut self) {
        let lists = [TAIL, TAIL_EXCLUDE].map(|name| self.get(name).map(words).unwrap_or_default());
        let [include, exclude] = lists;
        let no_journal = self.get(SYSTEMD) == Some("disable");
        let default = super::LogsConfig::default().sources.into_iter();
        let default =
            default.filter(|source| !no_journal || !matches!(source.kind, SourceKind::Journal { .. }));
        if include.is_empty() && exclude.is_empty() {
            if no_journal {
                self.layer.sources = Some((default.collect(), origin(SYSTEMD)));
            }
            return;
        }
        let usual = include.iter().all(|path| path.starts_with("/var/log/containers/"));
        let kind =
            if usual { self.excluded_namespaces(&exclude) } else { SourceKind::Files { include, exclude } };
        let sources = std::iter::once(Source::new(kind)).chain(default.skip(1)).collect();
        self.layer.sources = Some((sources, origin(if usual { TAIL_EXCLUDE } else { TAIL })));
    }

    /// `/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log`: patterns that stand for a namespace are understood.
    fn excluded_namespaces(&mut self, patterns: &[String]) -> SourceKind {
        let mut exclude_namespaces = Vec::new();
        for pattern in patterns {
            let name = pattern.strip_prefix("/var/log/containers/*_").and_then(|rest| rest.split_once('_'));
            match name.filter(|(_, rest)| matches!(*rest, "*" | "*.log")) {
                Some((namespace, _)) if !namespace.contains(['*', '?', '[']) => {
                    exclude_namespaces.push(namespace.to_owned());
                }
                _ => self.layer.notes.push(format!(
                    "{TAIL_EXCLUDE} has no effect for {pattern}: pods are left out by namespace only, \
                     as in /var/log/containers/*_NAMESPACE_*.log"
                )),
            }
        }
        SourceKind::Kubernetes { path: PODS.into(), exclude_namespaces }
    }
}

const HOSTS: &str = "elasticsearch.hosts";
const TAIL: &str = "FLUENT_CONTAINER_TAIL_PATH";
const TAIL_EXCLUDE: &str = "FLUENT_CONTAINER_TAIL_EXCLUDE_PATH";
const SYSTEMD: &str = "FLUENTD_SYSTEMD_CONF";

fn origin(name: &str) -> Origin {
    Origin::Env(name.to_owned())
}

fn fluent_prefix(reader: &Reader) -> Option<&'static str> {
    FLUENT_PREFIXES.into_iter().rev().find(|prefix| reader.get(&format!("{prefix}HOST")).is_some())
}

/// `a,b` or `["a", "b"]`.
fn words(list: &str) -> Vec<String> {
    let bare = list.trim_start_matches('[').trim_end_matches(']');
    let words = bare.split(',').map(|word| word.trim().trim_matches(['"', '\'']));
    words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
}
