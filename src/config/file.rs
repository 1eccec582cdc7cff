//! The configuration file: a tree of nodes becomes a layer.

use super::{
    collectors,
    elastic::{self, HEADERS},
    keys::{self, KEYS, Key, Set},
    layer::{Layer, Written},
    mistakes::{Mistakes, Origin, did_you_mean},
    rules, sources,
    yaml::{Entry, Node, Value},
};
use crate::cli::{elsewhere, nearest};

/// Keys of the contract whose work is not done yet: better refused than silently ignored.
const LATER: &[&str] = &["problems"];

const DISABLE_DEFAULTS: &str = "disable-defaults";

/// What the file says.
pub fn read(root: Node, mistakes: &mut Mistakes) -> Layer {
    let mut reader = Reader { layer: Layer::default(), mistakes };
    match root.value {
        Value::Map(entries) => reader.section("", entries),
        Value::Null | Value::Bad => {}
        other => reader.mistakes.add(
            &root.origin,
            format!("expected sections such as 'store: {{max_bytes: 1Gi}}', not {}", other.kind()),
        ),
    }
    reader.layer
}

struct Reader<'a> {
    layer: Layer,
    mistakes: &'a mut Mistakes,
}

impl Reader<'_> {
    fn section(&mut self, prefix: &str, entries: Vec<Entry>) {
        for entry in entries {
            let name = match prefix {
                "" => entry.key.clone(),
                prefix => format!("{prefix}.{}", entry.key),
            };
            self.entry(&name, prefix, entry);
        }
    }

    fn entry(&mut self, name: &str, prefix: &str, entry: Entry) {
        if name == "elasticsearch" {
            self.layer.elastic_section = Some(entry.origin.clone());
        }
        if LATER.contains(&name) {
            self.mistakes.add(&entry.origin, later(name));
        } else if name == "metrics" {
            self.metrics(entry.value);
        } else if name == "logs.sources" {
            let origin = entry.value.origin.clone();
            let found = sources::read(entry.value, self.mistakes);
            self.layer.sources = found.map(|sources| (sources, origin));
        } else if name == HEADERS {
            self.headers(entry.value);
        } else if name == rules::RULES {
            let origin = entry.value.origin.clone();
            self.layer.rules = rules::rules(entry.value, self.mistakes).map(|rules| (rules, origin));
        } else if name == rules::REDACT {
            let origin = entry.value.origin.clone();
            self.layer.redactions =
                rules::redactions(entry.value, self.mistakes).map(|rules| (rules, origin));
        } else if let (keys::MULTILINE, Value::Map(_)) = (name, &entry.value.value) {
            let Value::Map(entries) = entry.value.value else { return };
            self.section(name, entries);
        } else if let Some(key) = keys::find(name).filter(|_| name != keys::PASSWORD) {
            self.setting(key, entry.value);
        } else if children(name).next().is_some() {
            match entry.value.value {
                Value::Map(entries) => self.section(name, entries),
                Value::Null | Value::Bad => {}
                other => {
                    let keys: Vec<&str> = children(name).collect();
                    let text = format!("expected a section with {}, not {}", keys.join(", "), other.kind());
                    self.mistakes.add_value(&entry.value.origin, name, &text);
                }
            }
        } else {
            let near = near_key(prefix, &entry.key);
            self.layer.hosts_misspelt |= near.as_deref() == Some("elasticsearch.hosts");
            self.mistakes.add(&entry.origin, unknown(name, prefix, near.as_deref()));
        }
    }

    fn setting(&mut self, key: &'static Key, node: Node) {
        let origin = node.origin.clone();
        if let (Set::Many(..), Value::List(items)) = (&key.set, &node.value)
            && items.is_empty()
        {
            return self.mistakes.add_value(
                &origin,
                key.name,
                "expected at least one; remove it for the default",
            );
        }
        let values = match (&key.set, node.value) {
            (_, Value::Bad) | (Set::One(_) | Set::Many(..), Value::Null) => return,
            (Set::OneOrEmpty(_), Value::Null) => vec![(String::new(), node.origin)],
            (Set::List(..), Value::Null) => Vec::new(),
            (_, Value::Scalar(text)) => vec![(text, node.origin)],
            (Set::Many(..) | Set::List(..), value @ Value::List(_)) => {
                texts(key.name, Node { origin: node.origin, value }, self.mistakes)
            }
            (_, other) => {
                let text = format!("expected a single value, not {}", other.kind());
                return self.mistakes.add_value(&origin, key.name, &text);
            }
        };
        self.layer.written.push(Written { key, origin, values });
    }

    /// `X-Tenant: shop`: names and values are the user's.
    fn headers(&mut self, node: Node) {
        let entries = match node.value {
            Value::Map(entries) => entries,
            Value::Null | Value::Bad => return,
            other => {
                let text = format!("expected headers such as 'X-Tenant: shop', not {}", other.kind());
                return self.mistakes.add_value(&node.origin, HEADERS, &text);
            }
        };
        let mut headers = Vec::new();
        for entry in entries {
            let header = match &entry.value.value {
                Value::Scalar(text) => elastic::header(&entry.key, text),
                Value::Bad => continue,
                other => Err(format!("expected a single value of {}, not {}", entry.key, other.kind())),
            };
            match header {
                Ok(header) => headers.push(header),
                Err(error) => self.mistakes.add_value(&entry.origin, HEADERS, &error),
            }
        }
        self.layer.headers = Some((headers, node.origin));
    }

    /// The flags without `--collector.`, by section: `cpu: false`, `cpu: {enabled: true, info: true}`,
    /// `textfile: {directory: [/a, /b]}`, `disable-defaults: true`.
    fn metrics(&mut self, node: Node) {
        let entries = match node.value {
            Value::Map(entries) => entries,
            Value::Null | Value::Bad => return,
            other => {
                let text = format!("expected collectors by name such as 'cpu: true', not {}", other.kind());
                return self.mistakes.add_value(&node.origin, "metrics", &text);
            }
        };
        for entry in entries {
            if !collectors::is_known(&entry.key) && entry.key != DISABLE_DEFAULTS {
                self.mistakes.add(&entry.origin, unknown_collector(&entry.key));
                continue;
            }
            match entry.value.value {
                Value::Null | Value::Bad => {}
                Value::Scalar(ref text) => self.collector_switch(&entry.key, text, &entry),
                Value::Map(options) => {
                    for option in options {
                        self.collector_option(&entry.key, option);
                    }
                }
                Value::List(_) => {
                    let text = "expected true, false or a section of options, not a list";
                    self.mistakes.add_value(&entry.value.origin, &format!("metrics.{}", entry.key), text);
                }
            }
        }
    }

    fn collector_switch(&mut self, name: &str, text: &str, entry: &Entry) {
        let origin = &entry.value.origin;
        let on = match keys::boolean(text) {
            Ok(on) => on,
            Err(error) => return self.mistakes.add_value(origin, &format!("metrics.{name}"), &error),
        };
        if name == DISABLE_DEFAULTS {
            self.layer.collectors.disable_defaults = Some((on, origin.clone()));
        } else if !self.layer.collectors.switch(name, on, origin) {
            self.mistakes.add(&entry.origin, unknown_collector(name));
        }
    }

    fn collector_option(&mut self, group: &str, option: Entry) {
        if option.key == "enabled" {
            if let Value::Scalar(text) = &option.value.value {
                self.collector_switch(group, text, &option);
            }
            return;
        }
        let name = format!("{group}.{}", option.key);
        let Some(flag) = collectors::flag(&name) else {
            return self.mistakes.add(&option.origin, unknown_option(group, &option.key));
        };
        let origin = option.value.origin.clone();
        let many = flag.kind == nodewarden_collectors::FlagKind::List;
        let values: Vec<String> = match option.value.value {
            Value::Null | Value::Bad => return,
            Value::Scalar(text) => vec![text],
            value @ Value::List(_) if many => {
                let node = Node { origin: origin.clone(), value };
                texts(&format!("metrics.{name}"), node, self.mistakes)
                    .into_iter()
                    .map(|(text, _)| text)
                    .collect()
            }
            other => {
                let text = format!("expected a single value, not {}", other.kind());
                return self.mistakes.add_value(&origin, &format!("metrics.{name}"), &text);
            }
        };
        self.layer.collectors.set(flag, values, &origin, self.mistakes);
    }
}

/// The texts of a list, or the one text that stands for a list of one.
pub fn texts(name: &str, node: Node, mistakes: &mut Mistakes) -> Vec<(String, Origin)> {
    let items = match node.value {
        Value::List(items) => items,
        Value::Null | Value::Bad => return Vec::new(),
        _ => vec![node],
    };
    let mut out = Vec::new();
    for item in items {
        match item.value {
            Value::Scalar(text) => out.push((text, item.origin)),
            Value::Bad => {}
            other => mistakes.add_value(
                &item.origin,
                name,
                &format!("expected a single value in this list, not {}", other.kind()),
            ),
        }
    }
    out
}

/// What is said of a key whose work is not done yet.
pub fn later(name: &str) -> String {
    format!("{name} is not available in this version yet; remove it")
}

/// The keys directly below a section; below `""` those at the top.
fn children(section: &str) -> impl Iterator<Item = &'static str> {
    let all = KEYS.iter().map(|key| key.name).filter(|name| *name != keys::PASSWORD);
    let prefix = if section.is_empty() { String::new() } else { format!("{section}.") };
    let words = all
        .chain(["logs.sources", rules::RULES, rules::REDACT, "metrics", HEADERS])
        .filter_map(|name| name.strip_prefix(prefix.as_str()))
        .map(|rest| rest.split('.').next().unwrap_or(rest));
    let mut found = Vec::new();
    for word in words {
        if !found.contains(&word) {
            found.push(word);
        }
    }
    found.into_iter()
}

/// The key that was most likely meant.
fn near_key(section: &str, word: &str) -> Option<String> {
    let here = nearest(word, children(section)).map(|near| match section {
        "" => near.to_owned(),
        section => format!("{section}.{near}"),
    });
    // Right word, wrong section: `hosts` at the top.
    let is_it = |key: &&Key| key.name.rsplit('.').next() == Some(word) && key.name != keys::PASSWORD;
    here.or_else(|| KEYS.iter().find(is_it).map(|key| key.name.to_owned()))
}

fn unknown(name: &str, section: &str, near: Option<&str>) -> String {
    match near {
        Some(near) => format!("{name} is not a key; did you mean {near}?"),
        None => {
            let keys: Vec<&str> = children(section).collect();
            format!("{name} is not a key; the keys here are {}", keys.join(", "))
        }
    }
}

fn unknown_option(group: &str, word: &str) -> String {
    let words = collectors::flags_of(group).map(|flag| collectors::word_of(flag.name));
    let near = nearest(word, words.chain(["enabled"]));
    let near = near.map_or_else(String::new, |near| format!("; did you mean metrics.{group}.{near}?"));
    format!("metrics.{group}.{word} is not a key{near}")
}

fn unknown_collector(name: &str) -> String {
    if let Some(systems) = elsewhere(name) {
        return format!(
            "metrics.{name} does nothing on Linux: node_exporter has it on {systems} only; remove it"
        );
    }
    let known = collectors::groups().chain([DISABLE_DEFAULTS]);
    format!("metrics.{name} is not a collector{}", did_you_mean(name, known))
}
