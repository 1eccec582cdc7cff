//! The table of settings: the key in the file, the flag, how a text is understood and how a value is shown.

use std::{path::PathBuf, time::Duration};

use super::{
    elastic,
    options::{
        CloudId, Config, DocumentIds, ElasticConfig, IndexTemplate, ListenAddress, LogFormat, Metadata,
        Multiline, Proxy, Schema, Secret,
    },
    show::{self, list, text},
    units,
};
use crate::logs::process::{self, redact::Builtin};

/// The configuration while its layers are laid upon each other.
#[derive(Debug, Default)]
pub struct Draft {
    pub config: Config,
    /// `None` is `auto`.
    pub memory_limit: Option<u64>,
    pub elastic: ElasticConfig,
    /// Instead of the hosts.
    pub cloud_id: Option<CloudId>,
    pub auth: AuthDraft,
    pub proxy: ProxyChoice,
    /// What is taken out of lines, as far as it is known by its form.
    pub builtin: Vec<Builtin>,
}

/// How servers are reached.
#[derive(Debug, Default)]
pub enum ProxyChoice {
    /// As the environment says it for every program.
    #[default]
    Environment,
    /// Directly.
    Off,
    /// Through this one.
    Fixed(Proxy),
}

/// How to prove who we are, before secrets are read and methods are compared.
#[derive(Debug, Default)]
pub struct AuthDraft {
    pub username: Option<String>,
    pub password: Option<Secret>,
    pub password_file: Option<PathBuf>,
    pub api_key_file: Option<PathBuf>,
    pub bearer_file: Option<PathBuf>,
}

/// One setting.
#[derive(Debug)]
pub struct Key {
    /// Its sections and its name, joined by dots.
    pub name: &'static str,
    /// The flag of the same meaning, without dashes.
    pub flag: Option<&'static str>,
    pub set: Set,
    /// The value as YAML; nothing when there is nothing to show.
    pub show: fn(&Draft) -> Option<String>,
}

type SetOne = fn(&mut Draft, &str) -> Result<(), String>;

/// How written text becomes a value.
#[derive(Debug)]
pub enum Set {
    One(SetOne),
    /// Like `One`, but nothing written after the key means the empty text, not the default.
    OneOrEmpty(SetOne),
    /// Several values; what a lower layer said is cleared first.
    Many(fn(&mut Draft), SetOne),
    /// The same, of which there may be none.
    List(fn(&mut Draft), SetOne),
}

/// The setting of this name.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

const fn one(name: &'static str, set: SetOne, show: fn(&Draft) -> Option<String>) -> Key {
    Key { name, flag: None, set: Set::One(set), show }
}

const fn many(
    name: &'static str,
    clear: fn(&mut Draft),
    push: SetOne,
    show: fn(&Draft) -> Option<String>,
) -> Key {
    Key { name, flag: None, set: Set::Many(clear, push), show }
}

const fn list_of(
    name: &'static str,
    clear: fn(&mut Draft),
    push: SetOne,
    show: fn(&Draft) -> Option<String>,
) -> Key {
    Key { name, flag: None, set: Set::List(clear, push), show }
}

impl Key {
    const fn flag(mut self, flag: &'static str) -> Self {
        self.flag = Some(flag);
        self
    }
}

/// How lines are put together: a word, or a section.
pub const MULTILINE: &str = "logs.multiline";

/// The one key that no file and no flag may hold: a password in an environment variable.
pub const PASSWORD: &str = "elasticsearch.auth.password";

/// What is shown of a secret.
pub const SECRET: &str = "***";

/// Every setting except `logs.sources`, `elasticsearch.headers` and `metrics`, in the order in which they are shown.
pub const KEYS: &[Key] = &[
    one("state_dir", |d, v| set(&mut d.config.state_dir, path(v)), |d| Some(show::path(&d.config.state_dir)))
        .flag("state.dir"),
    one(
        "memory_limit",
        |d, v| set(&mut d.memory_limit, memory(v)),
        |d| Some(units::show_size(d.config.memory_limit)),
    ),
    one("node_name", |d, v| set(&mut d.config.node_name, filled(v)), |d| Some(text(&d.config.node_name))),
    one(
        "log.level",
        |d, v| set(&mut d.config.log.level, level(v)),
        |d| Some(d.config.log.level.as_str().to_lowercase()),
    )
    .flag("log.level"),
    one(
        "log.format",
        |d, v| set(&mut d.config.log.format, choose(v, LOG_FORMATS)),
        |d| name_of(&d.config.log.format, LOG_FORMATS),
    )
    .flag("log.format"),
    one(
        "path.procfs",
        |d, v| set(&mut d.config.host.procfs, path(v)),
        |d| Some(show::path(&d.config.host.procfs)),
    )
    .flag("path.procfs"),
    one(
        "path.sysfs",
        |d, v| set(&mut d.config.host.sysfs, path(v)),
        |d| Some(show::path(&d.config.host.sysfs)),
    )
    .flag("path.sysfs"),
    one(
        "path.rootfs",
        |d, v| set(&mut d.config.host.rootfs, path(v)),
        |d| Some(show::path(&d.config.host.rootfs)),
    )
    .flag("path.rootfs"),
    one(
        "path.udev_data",
        |d, v| set(&mut d.config.host.udev_data, path(v)),
        |d| Some(show::path(&d.config.host.udev_data)),
    )
    .flag("path.udev.data"),
    many(
        "web.listen_address",
        |d| d.config.web.listen.clear(),
        |d, v| push(&mut d.config.web.listen, units::listen_address(v)),
        |d| Some(list(&d.config.web.listen)),
    )
    .flag("web.listen-address"),
    one(
        "web.telemetry_path",
        |d, v| set(&mut d.config.web.telemetry_path, url_path(v)),
        |d| Some(text(&d.config.web.telemetry_path)),
    )
    .flag("web.telemetry-path"),
    one(
        "web.systemd_socket",
        |d, v| set(&mut d.config.web.systemd_socket, boolean(v)),
        |d| Some(d.config.web.systemd_socket.to_string()),
    )
    .flag("web.systemd-socket"),
    Key {
        name: "web.config_file",
        flag: Some("web.config.file"),
        set: Set::OneOrEmpty(|d, v| set(&mut d.config.web.config_file, Ok(some_path(v)))),
        show: |d| Some(d.config.web.config_file.as_deref().map_or("\"\"".into(), show::path)),
    },
    one(
        "web.max_requests",
        |d, v| set(&mut d.config.metrics.max_requests, max_requests(v)),
        |d| Some(d.config.metrics.max_requests.to_string()),
    )
    .flag("web.max-requests"),
    one(
        "web.disable_exporter_metrics",
        |d, v| set(&mut d.config.metrics.disable_exporter_metrics, boolean(v)),
        |d| Some(d.config.metrics.disable_exporter_metrics.to_string()),
    )
    .flag("web.disable-exporter-metrics"),
    Key {
        name: "admin.listen_address",
        flag: Some("admin.listen-address"),
        set: Set::OneOrEmpty(|d, v| set(&mut d.config.admin.listen, optional_address(v))),
        show: |d| Some(d.config.admin.listen.as_ref().map_or("\"\"".into(), |at| text(&at.to_string()))),
    },
    one("logs.start.new_files", |_, v| choose(v, &[("beginning", ())]), |_| Some("beginning".into())),
    one(
        "logs.start.first_run",
        |d, v| set(&mut d.config.logs.first_run, units::size(v)),
        |d| Some(units::show_size(d.config.logs.first_run)),
    ),
    one(
        "logs.max_line",
        |d, v| set(&mut d.config.logs.max_line, bytes(v, 1 << 10, 64 << 20)),
        |d| Some(units::show_size(d.config.logs.max_line)),
    ),
    one(
        MULTILINE,
        |d, v| set(&mut d.config.logs.multiline, Multiline::named(v)),
        |d| match d.config.logs.multiline {
            Multiline::Auto => Some("auto".into()),
            Multiline::Off => Some("off".into()),
            Multiline::Start(_) | Multiline::More(_) => None,
        },
    ),
    one(
        "logs.multiline.start",
        |d, v| set(&mut d.config.logs.multiline, Multiline::starting(v)),
        |d| match &d.config.logs.multiline {
            Multiline::Start(regex) => Some(text(regex.as_str())),
            Multiline::Auto | Multiline::Off | Multiline::More(_) => None,
        },
    ),
    one(
        "logs.container_metrics",
        |d, v| set(&mut d.config.logs.container_metrics, boolean(v)),
        |d| Some(d.config.logs.container_metrics.to_string()),
    ),
    one(
        "logs.levels",
        |d, v| set(&mut process(d).levels, boolean(v)),
        |d| Some(d.config.logs.process.levels.to_string()),
    ),
    one(
        "logs.json.enabled",
        |d, v| set(&mut process(d).json.enabled, boolean(v)),
        |d| Some(json(d).enabled.to_string()),
    ),
    Key {
        name: "logs.json.target",
        flag: None,
        set: Set::OneOrEmpty(|d, v| set(&mut process(d).json.target, target(v))),
        show: |d| Some(text(&json(d).target)),
    },
    list_of(
        "logs.json.message_keys",
        |d| process(d).json.message_keys.clear(),
        |d, v| push(&mut process(d).json.message_keys, filled(v)),
        |d| Some(list(&json(d).message_keys)),
    ),
    list_of(
        "logs.json.time_keys",
        |d| process(d).json.time_keys.clear(),
        |d, v| push(&mut process(d).json.time_keys, filled(v)),
        |d| Some(list(&json(d).time_keys)),
    ),
    one(
        "logs.json.keep_text",
        |d, v| set(&mut process(d).json.keep_text, boolean(v)),
        |d| Some(json(d).keep_text.to_string()),
    ),
    one(
        "logs.json.max_depth",
        |d, v| set(&mut process(d).json.max_depth, number(v, 1, 20)),
        |d| Some(json(d).max_depth.to_string()),
    ),
    one(
        "logs.json.max_fields",
        |d, v| set(&mut process(d).json.max_fields, number(v, 1, 1000)),
        |d| Some(json(d).max_fields.to_string()),
    ),
    one(
        "logs.json.max_index_fields",
        |d, v| set(&mut process(d).json.max_index_fields, number(v, 1, 10_000)),
        |d| Some(json(d).max_index_fields.to_string()),
    ),
    one(
        "logs.limits.per_pod.lines_per_second",
        |d, v| set(&mut process(d).limits.per_pod.lines, count(v)),
        |d| Some(d.config.logs.process.limits.per_pod.lines.to_string()),
    ),
    one(
        "logs.limits.per_pod.bytes_per_second",
        |d, v| set(&mut process(d).limits.per_pod.bytes, units::size(v)),
        |d| Some(units::show_size(d.config.logs.process.limits.per_pod.bytes)),
    ),
    one(
        "logs.limits.per_pod.burst",
        |d, v| set(&mut process(d).limits.per_pod.burst, units::size(v)),
        |d| Some(units::show_size(d.config.logs.process.limits.per_pod.burst)),
    ),
    one(
        "logs.limits.per_namespace.lines_per_second",
        |d, v| set(&mut process(d).limits.per_namespace.lines, count(v)),
        |d| Some(d.config.logs.process.limits.per_namespace.lines.to_string()),
    ),
    one(
        "logs.limits.per_namespace.bytes_per_second",
        |d, v| set(&mut process(d).limits.per_namespace.bytes, units::size(v)),
        |d| Some(units::show_size(d.config.logs.process.limits.per_namespace.bytes)),
    ),
    one(
        "logs.limits.per_namespace.burst",
        |d, v| set(&mut process(d).limits.per_namespace.burst, units::size(v)),
        |d| Some(units::show_size(d.config.logs.process.limits.per_namespace.burst)),
    ),
    list_of(
        "logs.redact.builtin",
        |d| d.builtin.clear(),
        push_builtin,
        |d| Some(list(&d.builtin.iter().map(|one| one.as_str()).collect::<Vec<_>>())),
    ),
    one(
        "kubernetes.metadata",
        |d, v| set(&mut d.config.kubernetes.metadata, choose(v, METADATA)),
        |d| name_of(&d.config.kubernetes.metadata, METADATA),
    ),
    list_of(
        "kubernetes.annotations",
        |d| d.config.kubernetes.annotations.clear(),
        |d, v| push(&mut d.config.kubernetes.annotations, filled(v)),
        |d| Some(list(&d.config.kubernetes.annotations)),
    ),
    one(
        "kubernetes.hints",
        |d, v| set(&mut d.config.kubernetes.hints, boolean(v)),
        |d| Some(d.config.kubernetes.hints.to_string()),
    ),
    one(
        "kubernetes.api_server",
        |d, v| set(&mut d.config.kubernetes.api_server, server_url(v).map(Some)),
        |d| d.config.kubernetes.api_server.as_deref().map(text),
    ),
    one(
        "kubernetes.kubelet",
        |d, v| set(&mut d.config.kubernetes.kubelet, server_url(v)),
        |d| Some(text(&d.config.kubernetes.kubelet)),
    ),
    one(
        "kubernetes.token_file",
        |d, v| set(&mut d.config.kubernetes.token_file, path(v)),
        |d| Some(show::path(&d.config.kubernetes.token_file)),
    ),
    one(
        "kubernetes.ca_file",
        |d, v| set(&mut d.config.kubernetes.ca_file, path(v)),
        |d| Some(show::path(&d.config.kubernetes.ca_file)),
    ),
    one(
        "kubernetes.insecure_skip_verify",
        |d, v| set(&mut d.config.kubernetes.insecure_skip_verify, boolean(v)),
        |d| Some(d.config.kubernetes.insecure_skip_verify.to_string()),
    ),
    many(
        "elasticsearch.hosts",
        |d| d.elastic.hosts.clear(),
        push_hosts,
        |d| d.cloud_id.is_none().then(|| list(&d.elastic.hosts)),
    )
    .flag("elasticsearch.hosts"),
    one(
        "elasticsearch.cloud_id",
        |d, v| set(&mut d.cloud_id, CloudId::parse(v).map(Some)),
        |d| d.cloud_id.as_ref().map(|id| text(&id.text)),
    ),
    one(
        "elasticsearch.index",
        |d, v| set(&mut d.elastic.index, IndexTemplate::parse(v)),
        |d| Some(text(d.elastic.index.as_str())),
    ),
    one(
        "elasticsearch.schema",
        |d, v| set(&mut d.elastic.schema, choose(v, SCHEMAS)),
        |d| name_of(&d.elastic.schema, SCHEMAS),
    ),
    one(
        "elasticsearch.document_ids",
        |d, v| set(&mut d.elastic.document_ids, choose(v, DOCUMENT_IDS)),
        |d| name_of(&d.elastic.document_ids, DOCUMENT_IDS),
    ),
    one(
        "elasticsearch.compression",
        |d, v| set(&mut d.elastic.compression, number(v, 0, 9)),
        |d| Some(d.elastic.compression.to_string()),
    ),
    one(
        "elasticsearch.auth.username",
        |d, v| set(&mut d.auth.username, Ok(some_text(v))),
        |d| d.auth.username.as_deref().map(text),
    ),
    one(
        PASSWORD,
        |d, v| set(&mut d.auth.password, Ok(some_text(v).map(Secret::new))),
        |d| d.auth.password.as_ref().map(|_| SECRET.into()),
    ),
    one(
        "elasticsearch.auth.password_file",
        |d, v| set(&mut d.auth.password_file, Ok(some_path(v))),
        |d| d.auth.password_file.as_deref().map(show::path),
    ),
    one(
        "elasticsearch.auth.api_key_file",
        |d, v| set(&mut d.auth.api_key_file, Ok(some_path(v))),
        |d| d.auth.api_key_file.as_deref().map(show::path),
    ),
    one(
        "elasticsearch.auth.bearer_file",
        |d, v| set(&mut d.auth.bearer_file, Ok(some_path(v))),
        |d| d.auth.bearer_file.as_deref().map(show::path),
    ),
    one(
        "elasticsearch.tls.ca",
        |d, v| set(&mut d.elastic.tls.ca, Ok(some_path(v))),
        |d| d.elastic.tls.ca.as_deref().map(show::path),
    ),
    one(
        "elasticsearch.tls.cert",
        |d, v| set(&mut d.elastic.tls.cert, Ok(some_path(v))),
        |d| d.elastic.tls.cert.as_deref().map(show::path),
    ),
    one(
        "elasticsearch.tls.key",
        |d, v| set(&mut d.elastic.tls.key, Ok(some_path(v))),
        |d| d.elastic.tls.key.as_deref().map(show::path),
    ),
    one(
        "elasticsearch.tls.server_name",
        |d, v| set(&mut d.elastic.tls.server_name, Ok(some_text(v))),
        |d| d.elastic.tls.server_name.as_deref().map(text),
    ),
    one(
        "elasticsearch.tls.insecure_skip_verify",
        |d, v| set(&mut d.elastic.tls.insecure_skip_verify, boolean(v)),
        |d| Some(d.elastic.tls.insecure_skip_verify.to_string()),
    ),
    one("elasticsearch.proxy", |d, v| set(&mut d.proxy, proxy(v)), |d| Some(show_proxy(&d.proxy))),
    one(
        "elasticsearch.bulk.max_bytes",
        |d, v| set(&mut d.elastic.bulk.max_bytes, bytes(v, 64 << 10, 100 << 20)),
        |d| Some(units::show_size(d.elastic.bulk.max_bytes)),
    ),
    one(
        "elasticsearch.bulk.max_wait",
        |d, v| set(&mut d.elastic.bulk.max_wait, units::duration(v)),
        |d| Some(units::show_duration(d.elastic.bulk.max_wait)),
    ),
    one(
        "elasticsearch.bulk.in_flight",
        |d, v| set(&mut d.elastic.bulk.in_flight, in_flight(v)),
        |d| Some(d.elastic.bulk.in_flight.map_or("auto".into(), |count| count.to_string())),
    ),
    one(
        "elasticsearch.on_reject.repair",
        |d, v| set(&mut d.elastic.repair, boolean(v)),
        |d| Some(d.elastic.repair.to_string()),
    ),
    one(
        "elasticsearch.on_reject.dead_letter",
        |_, v| choose(v, DEAD_LETTERS).map(drop),
        |_| name_of(&(), DEAD_LETTERS),
    ),
    one(
        "elasticsearch.canary",
        |d, v| set(&mut d.elastic.canary, boolean(v)),
        |d| Some(d.elastic.canary.to_string()),
    ),
    one(
        "store.max_bytes",
        |d, v| set(&mut d.config.store.max_bytes, bytes(v, 1 << 20, u64::MAX)),
        |d| Some(units::show_size(d.config.store.max_bytes)),
    ),
    one(
        "store.max_age",
        |d, v| set(&mut d.config.store.max_age, units::duration(v)),
        |d| Some(units::show_duration(d.config.store.max_age)),
    ),
    one(
        "store.min_free",
        |d, v| set(&mut d.config.store.min_free, units::percent(v)),
        |d| Some(format!("{}%", d.config.store.min_free)),
    ),
    one(
        "gpu.enabled",
        |d, v| set(&mut d.config.gpu.enabled, choose(v, GPU)),
        |d| name_of(&d.config.gpu.enabled, GPU),
    ),
    one(
        "gpu.library",
        |d, v| set(&mut d.config.gpu.library, library(v)),
        |d| Some(d.config.gpu.library.as_deref().map_or("auto".into(), show::path)),
    ),
    Key {
        name: "gpu.counters_file",
        flag: None,
        set: Set::OneOrEmpty(|d, v| set(&mut d.config.gpu.counters_file, Ok(some_path(v)))),
        show: |d| Some(d.config.gpu.counters_file.as_deref().map_or("\"\"".into(), show::path)),
    },
    one(
        "gpu.interval",
        |d, v| set(&mut d.config.gpu.interval, interval(v)),
        |d| Some(units::show_duration(d.config.gpu.interval)),
    ),
    Key {
        name: "gpu.listen_address",
        flag: None,
        set: Set::OneOrEmpty(|d, v| set(&mut d.config.gpu.listen, optional_address(v))),
        show: |d| Some(d.config.gpu.listen.as_ref().map_or("\"\"".into(), |at| text(&at.to_string()))),
    },
    one(
        "gpu.hostname_label",
        |d, v| set(&mut d.config.gpu.hostname_label, choose(v, HOSTNAMES)),
        |d| Some(d.config.gpu.hostname_label.to_owned()),
    ),
    one(
        "gpu.repeat_for_instances",
        |d, v| set(&mut d.config.gpu.repeat_for_instances, boolean(v)),
        |d| Some(d.config.gpu.repeat_for_instances.to_string()),
    ),
    one(
        "gpu.repeat_for_pods",
        |d, v| set(&mut d.config.gpu.repeat_for_pods, boolean(v)),
        |d| Some(d.config.gpu.repeat_for_pods.to_string()),
    ),
];

const METADATA: &[(&str, Metadata)] = &[
    ("auto", Metadata::Auto),
    ("path", Metadata::Path),
    ("kubelet", Metadata::Kubelet),
    ("api", Metadata::Api),
];
/// Whether GPUs are read where there are some.
const GPU: &[(&str, bool)] = &[("auto", true), ("false", false)];
/// The label with the node's name, in both of dcgm-exporter's spellings.
const HOSTNAMES: &[(&str, &str)] = &[("Hostname", "Hostname"), ("hostname", "hostname")];
const LOG_FORMATS: &[(&str, LogFormat)] = &[("logfmt", LogFormat::Logfmt), ("json", LogFormat::Json)];
const SCHEMAS: &[(&str, Schema)] = &[("ecs", Schema::Ecs), ("fluent", Schema::Fluent)];
/// Where refused documents are kept: here, so far.
const DEAD_LETTERS: &[(&str, ())] = &[("local", ())];
const DOCUMENT_IDS: &[(&str, DocumentIds)] =
    &[("position", DocumentIds::Position), ("none", DocumentIds::None)];

fn set<T>(place: &mut T, value: Result<T, String>) -> Result<(), String> {
    value.map(|value| *place = value)
}

fn push<T>(place: &mut Vec<T>, value: Result<T, String>) -> Result<(), String> {
    value.map(|value| place.push(value))
}

fn push_hosts(draft: &mut Draft, written: &str) -> Result<(), String> {
    written.split(',').try_for_each(|one| push(&mut draft.elastic.hosts, units::elastic_host(one)))
}

fn proxy(written: &str) -> Result<ProxyChoice, String> {
    match written {
        "environment" => Ok(ProxyChoice::Environment),
        "off" => Ok(ProxyChoice::Off),
        address => elastic::proxy(address).map(ProxyChoice::Fixed),
    }
}

fn show_proxy(proxy: &ProxyChoice) -> String {
    match proxy {
        ProxyChoice::Environment => "environment".into(),
        ProxyChoice::Off => "off".into(),
        ProxyChoice::Fixed(Proxy { authorization: Some(_), .. }) => SECRET.into(),
        ProxyChoice::Fixed(proxy) => text(&proxy.to_string()),
    }
}

fn process(draft: &mut Draft) -> &mut process::Settings {
    &mut draft.config.logs.process
}

fn json(draft: &Draft) -> &process::json::Settings {
    &draft.config.logs.process.json
}

fn count(written: &str) -> Result<u64, String> {
    number(written, 0, 1_000_000_000)
}

/// The name of a field that documents of ours do not have.
fn target(written: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !written.chars().all(is_plain) {
        return Err(format!("expected a name such as json, or '' for none, not '{written}'"));
    }
    if process::json::is_reserved(written) {
        return Err(format!("documents have a field {written} already; write another name"));
    }
    Ok(written.to_owned())
}

fn push_builtin(draft: &mut Draft, written: &str) -> Result<(), String> {
    let wanted = |one: &Builtin| written == "all" || one.as_str() == written;
    let found: Vec<Builtin> = Builtin::ALL.into_iter().filter(wanted).collect();
    if found.is_empty() {
        let words: Vec<&str> = Builtin::ALL.into_iter().map(Builtin::as_str).collect();
        return Err(format!("expected all, {}, not '{written}'", words.join(", ")));
    }
    for one in found {
        if !draft.builtin.contains(&one) {
            draft.builtin.push(one);
        }
    }
    Ok(())
}

fn filled(written: &str) -> Result<String, String> {
    some_text(written).ok_or_else(|| "expected a text, not nothing; remove it for the default".into())
}

fn path(written: &str) -> Result<PathBuf, String> {
    filled(written).map(PathBuf::from)
}

/// A server's URL; the path that some write after it is always the same.
fn server_url(written: &str) -> Result<String, String> {
    let url = written.trim_end_matches('/').trim_end_matches("/api");
    let bare = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    match bare.is_some_and(|bare| !bare.is_empty() && !bare.contains(['/', '?', '#', '@', ' '])) {
        true => Ok(url.to_owned()),
        false => Err(format!("expected a URL such as https://10.96.0.1:443, not '{written}'")),
    }
}

fn some_text(written: &str) -> Option<String> {
    Some(written.to_owned()).filter(|written| !written.is_empty())
}

fn some_path(written: &str) -> Option<PathBuf> {
    some_text(written).map(PathBuf::from)
}

/// `true` or `false`.
pub fn boolean(written: &str) -> Result<bool, String> {
    choose(written, &[("true", true), ("false", false)])
}

fn number<T: TryFrom<u64>>(written: &str, least: u64, most: u64) -> Result<T, String> {
    let number = written.parse().ok().filter(|number| (least..=most).contains(number));
    number
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| format!("expected a number from {least} to {most}, not '{written}'"))
}

/// As node_exporter takes it: what is not positive is no limit.
fn max_requests(written: &str) -> Result<usize, String> {
    match written.parse::<i64>() {
        Ok(any) => Ok(usize::try_from(any).unwrap_or(0)),
        Err(_) => number(written, 0, 100_000),
    }
}

fn bytes(written: &str, least: u64, most: u64) -> Result<u64, String> {
    let size = units::size(written)?;
    if size < least {
        return Err(format!("{written} is too small; write {} or more", units::show_size(least)));
    }
    if size > most {
        return Err(format!("{written} is too large; write {} or less", units::show_size(most)));
    }
    Ok(size)
}

fn memory(written: &str) -> Result<Option<u64>, String> {
    const LEAST: u64 = 16 << 20;
    match written {
        "auto" => Ok(None),
        size => bytes(size, LEAST, u64::MAX).map(Some),
    }
}

fn in_flight(written: &str) -> Result<Option<usize>, String> {
    match written {
        "auto" => Ok(None),
        count => number(count, 1, 64)
            .map(Some)
            .map_err(|_| format!("expected auto or a number from 1 to 64, not '{count}'")),
    }
}

/// How often GPUs are read.
fn interval(written: &str) -> Result<Duration, String> {
    let interval = units::duration(written)?;
    match (Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&interval) {
        true => Ok(interval),
        false => Err(format!("expected 1s to 1h, not '{written}'")),
    }
}

fn library(written: &str) -> Result<Option<PathBuf>, String> {
    match written {
        "auto" => Ok(None),
        path if path.starts_with('/') => Ok(Some(path.into())),
        odd => Err(format!("expected auto or the path of a libnvidia-ml.so.1, not '{odd}'")),
    }
}

fn level(written: &str) -> Result<tracing::Level, String> {
    use tracing::Level;

    let levels =
        [("debug", Level::DEBUG), ("info", Level::INFO), ("warn", Level::WARN), ("error", Level::ERROR)];
    // As node_exporter takes it: in any case.
    choose(&written.to_ascii_lowercase(), &levels)
}

fn optional_address(written: &str) -> Result<Option<ListenAddress>, String> {
    match written {
        "" => Ok(None),
        address => units::listen_address(address).map(Some),
    }
}

fn url_path(written: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '?' | '#');
    match written.starts_with('/') && written.chars().all(plain) {
        true => Ok(written.to_owned()),
        false => Err(format!("expected a path such as /metrics, not '{written}'")),
    }
}

fn choose<T: Copy>(written: &str, choices: &[(&str, T)]) -> Result<T, String> {
    let found = choices.iter().find(|(name, _)| *name == written);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        format!("expected {}, not '{written}'", names.join(" or "))
    })
}

fn name_of<T: PartialEq>(value: &T, choices: &[(&str, T)]) -> Option<String> {
    choices.iter().find(|(_, one)| one == value).map(|(name, _)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LogsConfig, WebConfig};

    #[test]
    fn every_default_reads_back_as_itself() {
        for key in KEYS {
            let Some(shown) = (key.show)(&Draft::default()) else { continue };
            let (Set::One(set) | Set::OneOrEmpty(set)) = &key.set else { continue };
            if key.name == "node_name" {
                continue;
            }
            let mut draft = Draft::default();
            set(&mut draft, shown.trim_matches('"')).unwrap_or_else(|error| panic!("{}: {error}", key.name));
            assert_eq!((key.show)(&draft), Some(shown), "{}", key.name);
        }
    }

    #[test]
    fn defaults_are_the_contract_s() {
        let (logs, web) = (LogsConfig::default(), WebConfig::default());
        assert_eq!((logs.first_run, logs.max_line), (64 << 20, 1 << 20));
        assert_eq!(web.listen[0].to_string(), ":9100");
    }
}
