//! Environment, file and flags, one upon the other, become the one `Config`.

use std::{fs, path::Path, sync::Arc};

use hyper::header::{HeaderName, HeaderValue};
use nodewarden_collectors::Host;
use nodewarden_gpu::counters::Counters;

use super::{
    collectors::Choices,
    elastic::{self, HEADERS},
    env::{self, Env},
    file, given,
    keys::{Draft, KEYS, SECRET},
    layer::{self, Layer, Origins},
    machine::Machine,
    mistakes::{Mistakes, Origin},
    options::Config,
    rules, show, web_file, yaml,
};
use crate::{
    cli::Cli,
    logs::process::{Redaction, limits::Limits},
};

/// A complete configuration and how it came about.
#[derive(Debug)]
pub struct Loaded {
    /// What the parts take.
    pub config: Config,
    /// Sentences to say once at start.
    pub notes: Vec<String>,
    /// Every setting as it is in force, in the order of the documentation.
    pub settings: Vec<Setting>,
}

/// One setting in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its key in the file.
    pub key: String,
    /// Its value as YAML; secrets are `***`.
    pub value: String,
    /// Where it comes from.
    pub origin: Origin,
}

/// Reads the configuration: a flag beats the file, the file beats the environment. Besides the configuration
/// and secret files nothing is read: `env` and `machine` hold the rest.
pub fn load(cli: &Cli, env: &Env, machine: &Machine) -> Result<Loaded, Mistakes> {
    let mut mistakes = Mistakes::default();
    let layers = [
        env::read(env, &mut mistakes),
        read_file(cli, env, machine, &mut mistakes),
        given::read(&cli.flags, &mut mistakes),
    ];
    let loaded = merge(layers, env, machine, &mut mistakes);
    if mistakes.is_empty() { Ok(loaded) } else { Err(mistakes.sorted()) }
}

/// The file that a flag names.
pub(super) fn given_file(cli: &Cli) -> Option<&Path> {
    cli.flags.get("config.file").and_then(|files| files.last()).map(Path::new)
}

fn read_file(cli: &Cli, env: &Env, machine: &Machine, mistakes: &mut Mistakes) -> Layer {
    let given = given_file(cli);
    let path = given.or(machine.config_file.as_deref());
    // An empty flag means no file at all, not even the usual one.
    let Some(path) = path.filter(|path| !path.as_os_str().is_empty()) else { return Layer::default() };
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            let origin = match given {
                Some(_) => Origin::Flag("config.file".into()),
                None => Origin::WholeFile(path.to_string_lossy().into()),
            };
            mistakes.add(&origin, format!("could not read {}: {error}", path.display()));
            return Layer::default();
        }
    };
    let name: Arc<str> = path.to_string_lossy().into();
    yaml::parse(&bytes, &name, Some(env), mistakes)
        .map_or_else(Layer::default, |root| file::read(root, mistakes))
}

fn merge(layers: [Layer; 3], env: &Env, machine: &Machine, mistakes: &mut Mistakes) -> Loaded {
    let mut draft = Draft::default();
    let mut origins = Origins::new();
    let mut choices = Choices::default();
    let mut notes = Vec::new();
    let mut sources_origin = Origin::Default;
    let mut elastic_section = None;
    let mut hosts_misspelt = false;
    for layer in layers {
        layer::apply(&layer.written, &mut draft, &mut origins, mistakes);
        choices.extend(layer.collectors);
        notes.extend(layer.notes);
        elastic_section = elastic_section.or(layer.elastic_section);
        hosts_misspelt |= layer.hosts_misspelt;
        if let Some((headers, origin)) = layer.headers {
            draft.elastic.headers = headers;
            origins.insert(HEADERS, origin);
        }
        if let Some((sources, origin)) = layer.sources {
            draft.config.logs.sources = sources;
            sources_origin = origin;
        }
        if let Some((rules, origin)) = layer.rules {
            draft.config.logs.process.rules = rules;
            origins.insert(rules::RULES, origin);
        }
        if let Some((own, origin)) = layer.redactions {
            draft.config.logs.process.redact = own;
            origins.insert(rules::REDACT, origin);
        }
    }
    fill_in(&mut draft, &mut origins, machine, &mut notes);
    let builtin = draft.builtin.iter().map(|builtin| Redaction::builtin(*builtin));
    draft.config.logs.process.redact.splice(..0, builtin);
    check_limits(&draft.config.logs.process.limits, &origins, mistakes);
    if let Some(path) = &draft.config.web.config_file {
        let flag = origins.get("web.config_file").unwrap_or(&Origin::Default);
        notes.extend(web_file::check(path, flag, mistakes));
    }
    if let Some(path) = draft.config.gpu.counters_file.clone() {
        let origin = origins.get("gpu.counters_file").unwrap_or(&Origin::Default);
        match counters(&path, origin, mistakes, &mut notes) {
            Some(counters) => draft.config.gpu.counters = counters,
            None => draft.config.gpu.counters_file = None,
        }
    }
    draft.config.metrics = choices.resolve(&draft.config.host, &draft.config.metrics, mistakes);
    if draft.config.kubernetes.insecure_skip_verify {
        notes.push(
            "kubernetes.insecure_skip_verify: the kubelet's certificate is not looked at, so who answers in its place on this \
             node's port gets the agent's token"
                .into(),
        );
    }
    let has_hosts = origins.contains_key("elasticsearch.hosts") || draft.cloud_id.is_some();
    if has_hosts || elastic_section.is_some() {
        let elastic = elastic::resolve(&draft, &origins, env, mistakes, &mut notes);
        draft.config.elasticsearch = Some(elastic);
    }
    if let (Some(origin), false, false) = (&elastic_section, has_hosts, hosts_misspelt) {
        mistakes
            .add(origin, "elasticsearch has no servers; add hosts: [http://127.0.0.1:9200], or remove it");
    }
    let settings = settings(&draft, &origins, &choices, &sources_origin);
    Loaded { config: draft.config, notes, settings }
}

/// The metrics of GPUs that a file of dcgm-exporter's form names.
fn counters(
    path: &Path,
    origin: &Origin,
    mistakes: &mut Mistakes,
    notes: &mut Vec<String>,
) -> Option<Counters> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            let text = format!("could not read {}: {error}", path.display());
            mistakes.add_value(origin, "gpu.counters_file", &text);
            return None;
        }
    };
    let parsed = Counters::parse(&text);
    let file: Arc<str> = path.to_string_lossy().into();
    for (line, mistake) in parsed.mistakes {
        mistakes.add(&Origin::File { file: Arc::clone(&file), line, column: 1 }, mistake);
    }
    notes.extend(parsed.notes.into_iter().map(|note| format!("{file}: {note}")));
    parsed.counters
}

/// A burst alone limits nothing.
fn check_limits(limits: &Limits, origins: &Origins, mistakes: &mut Mistakes) {
    let bursts = [
        ("logs.limits.per_pod.burst", limits.per_pod),
        ("logs.limits.per_namespace.burst", limits.per_namespace),
    ];
    for (key, rate) in bursts {
        if let Some(origin) = origins.get(key).filter(|_| rate.burst > 0 && rate.is_none()) {
            let text = "a burst needs a limit that it goes beyond; add lines_per_second or bytes_per_second";
            mistakes.add_value(origin, key, text);
        }
    }
}

/// Defaults that depend on the machine.
fn fill_in(draft: &mut Draft, origins: &mut Origins, machine: &Machine, notes: &mut Vec<String>) {
    let config = &mut draft.config;
    if let (Some(dir), false) = (&machine.other_state_dir, origins.contains_key("state_dir")) {
        notes.push(format!("{} can't be written, {} is used", config.state_dir.display(), dir.display()));
        config.state_dir.clone_from(dir);
        origins.insert("state_dir", Origin::Machine);
    }
    config.memory_limit = draft.memory_limit.unwrap_or_else(|| automatic_memory(machine.memory_limit));
    if machine.memory_limit.is_some() && draft.memory_limit.is_none() {
        origins.insert("memory_limit", Origin::Machine);
    }
    if config.node_name.is_empty() {
        config.node_name.clone_from(&machine.hostname);
        origins.insert("node_name", Origin::Machine);
    }
    host_paths(&mut config.host, origins, machine, notes);
}

/// The host's file systems where manifests mount them, unless somebody said where they are.
fn host_paths(host: &mut Host, origins: &mut Origins, machine: &Machine, notes: &mut Vec<String>) {
    let mut used = Vec::new();
    for (key, mounts, place) in [
        ("path.procfs", ["/host/proc"].as_slice(), &mut host.procfs),
        ("path.sysfs", &["/host/sys"], &mut host.sysfs),
        ("path.rootfs", &["/host/root", "/rootfs"], &mut host.rootfs),
        ("path.udev_data", &["/host/root/run/udev/data", "/rootfs/run/udev/data"], &mut host.udev_data),
    ] {
        let found = mounts.iter().find(|mount| machine.mounts.contains(mount));
        if let (Some(mount), false) = (found, origins.contains_key(key)) {
            used.push(*mount);
            *place = mount.into();
            origins.insert(key, Origin::Machine);
        }
    }
    if !used.is_empty() {
        notes.push(format!("the host is seen through {}; --path.* says otherwise", used.join(", ")));
    }
}

/// 60 % of what the kernel grants, at most 64 MiB, never below 16 MiB.
fn automatic_memory(granted: Option<u64>) -> u64 {
    let share = granted.map_or(u64::MAX, |bytes| bytes / 5 * 3);
    share.clamp(16 << 20, 64 << 20)
}

fn settings(draft: &Draft, origins: &Origins, choices: &Choices, sources_origin: &Origin) -> Vec<Setting> {
    let mut out = Vec::new();
    for key in KEYS {
        if key.name.starts_with("elasticsearch.") && draft.config.elasticsearch.is_none() {
            continue;
        }
        let Some(value) = (key.show)(draft) else { continue };
        let origin = origins.get(key.name).cloned().unwrap_or(Origin::Default);
        out.push(Setting { key: key.name.to_owned(), value, origin });
        if key.name == "elasticsearch.proxy" {
            let shown = |(name, _): &(HeaderName, HeaderValue)| Setting {
                key: format!("{HEADERS}.{name}"),
                value: SECRET.into(),
                origin: origins.get(HEADERS).cloned().unwrap_or(Origin::Default),
            };
            out.extend(draft.elastic.headers.iter().map(shown));
        }
        if key.name == "logs.max_line" {
            let value = show::sources(&draft.config.logs.sources);
            out.push(Setting { key: "logs.sources".into(), value, origin: sources_origin.clone() });
        }
        let process = &draft.config.logs.process;
        let lists = [
            ("logs.redact.builtin", rules::REDACT, rules::show_redactions(&process.redact)),
            ("logs.levels", rules::RULES, rules::show_rules(&process.rules)),
        ];
        for (_, name, value) in lists.into_iter().filter(|(after, ..)| *after == key.name) {
            let origin = origins.get(name).cloned().unwrap_or(Origin::Default);
            out.push(Setting { key: name.into(), value, origin });
        }
    }
    out.extend(choices.shown().into_iter().map(|(key, value, origin)| Setting { key, value, origin }));
    out
}
