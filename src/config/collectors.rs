//! Which collectors run with which options, out of every layer's wishes.

use std::collections::BTreeMap;

use nodewarden_collectors::{BuildError, Entry, Flag, FlagKind, Host, Options, Settings, node};

use super::{
    mistakes::{Mistakes, Origin},
    options::MetricsConfig,
    show,
};

/// What was said about collectors.
#[derive(Debug, Default)]
pub struct Choices {
    /// Only those named run.
    pub disable_defaults: Option<(bool, Origin)>,
    /// Collectors turned on or off by name.
    pub switches: BTreeMap<&'static str, (bool, Origin)>,
    /// Flag names to values.
    pub settings: BTreeMap<&'static str, (Vec<String>, Origin)>,
}

impl Choices {
    /// Lays `upper` upon these.
    pub fn extend(&mut self, upper: Self) {
        self.disable_defaults = upper.disable_defaults.or(self.disable_defaults.take());
        self.switches.extend(upper.switches);
        self.settings.extend(upper.settings);
    }

    /// Turns a collector on or off; false when there is none of that name.
    pub fn switch(&mut self, name: &str, on: bool, origin: &Origin) -> bool {
        let entry = node::ALL.iter().find(|entry| entry.name == name);
        if let Some(entry) = entry {
            self.switches.insert(entry.name, (on, origin.clone()));
        }
        entry.is_some()
    }

    /// Sets an option of a collector.
    pub fn set(
        &mut self,
        flag: &'static Flag,
        values: Vec<String>,
        origin: &Origin,
        mistakes: &mut Mistakes,
    ) {
        let bad =
            values.iter().find(|value| flag.kind == FlagKind::Bool && *value != "true" && *value != "false");
        match bad {
            Some(value) => {
                let text = format!("expected true or false, not '{value}'");
                mistakes.add_value(origin, &key_of(flag.name), &text);
            }
            None => {
                self.settings.insert(flag.name, (values, origin.clone()));
            }
        }
    }

    /// The collectors that run. Each is made once, so that an impossible option is found now and not at a scrape.
    pub fn resolve(&self, host: &Host, base: &MetricsConfig, mistakes: &mut Mistakes) -> MetricsConfig {
        let entries: Vec<&Entry> = node::ALL.iter().copied().filter(|entry| self.is_on(entry)).collect();
        let mut settings: Settings =
            self.settings.iter().map(|(name, (values, _))| ((*name).to_owned(), values.clone())).collect();
        // A collector may say less when another one is off.
        let off = node::ALL.iter().filter(|entry| entry.default_on && !self.is_on(entry));
        settings.extend(off.map(|entry| (entry.name.to_owned(), vec!["false".to_owned()])));
        for entry in &entries {
            if let Err(error) = (entry.build)(host, &Options::new(entry, &settings)) {
                let origin = self.settings.get(error.flag()).map_or(&Origin::Default, |(_, origin)| origin);
                mistakes.add_value(origin, &key_of(error.flag()), &explain(&error));
            }
        }
        MetricsConfig { enabled: entries.iter().map(|entry| entry.name).collect(), settings, ..base.clone() }
    }

    fn is_on(&self, entry: &Entry) -> bool {
        match self.switches.get(entry.name) {
            Some((on, _)) => *on,
            None => entry.default_on && !self.disable_defaults.as_ref().is_some_and(|(disable, _)| *disable),
        }
    }

    /// Every collector and every option that was set: key, value, origin.
    pub fn shown(&self) -> Vec<(String, String, Origin)> {
        let mut out = Vec::new();
        if let Some((disable, origin)) = &self.disable_defaults {
            out.push(("metrics.disable-defaults".to_owned(), disable.to_string(), origin.clone()));
        }
        for group in groups() {
            let options: Vec<_> = self.settings.iter().filter(|(name, _)| group_of(name) == group).collect();
            if let Some(entry) = node::ALL.iter().find(|entry| entry.name == group) {
                let origin = self.switches.get(group).map_or(Origin::Default, |(_, origin)| origin.clone());
                let name = if options.is_empty() { group.to_owned() } else { format!("{group}.enabled") };
                out.push((format!("metrics.{name}"), self.is_on(entry).to_string(), origin));
            }
            for (name, (values, origin)) in options {
                out.push((key_of(name), show_values(name, values), origin.clone()));
            }
        }
        out
    }
}

/// The names of the sections below `metrics`: collectors, and first words of their flags.
pub fn groups() -> impl Iterator<Item = &'static str> {
    let of_flags = node::ALL.iter().flat_map(|entry| entry.flags).map(|flag| group_of(flag.name));
    let mut all: Vec<&str> = node::ALL.iter().map(|entry| entry.name).chain(of_flags).collect();
    all.sort_unstable();
    all.dedup();
    all.into_iter()
}

/// Whether a section of this name may stand below `metrics`.
pub fn is_known(group: &str) -> bool {
    groups().any(|known| known == group)
}

/// The flags in one section below `metrics`.
pub fn flags_of(group: &str) -> impl Iterator<Item = &'static Flag> {
    node::ALL.iter().flat_map(|entry| entry.flags).filter(move |flag| group_of(flag.name) == group)
}

/// The flag of this name, without `collector.`.
pub fn flag(name: &str) -> Option<&'static Flag> {
    node::ALL.iter().flat_map(|entry| entry.flags).find(|flag| flag.name == name)
}

/// A flag's name within its section: `device-exclude` of `diskstats.device-exclude`.
pub fn word_of(flag: &str) -> &str {
    flag.split_once('.').map_or(flag, |(_, word)| word)
}

fn group_of(flag: &str) -> &str {
    flag.split_once('.').map_or(flag, |(group, _)| group)
}

fn key_of(flag: &str) -> String {
    format!("metrics.{flag}")
}

fn show_values(name: &str, values: &[String]) -> String {
    match (flag(name).map(|flag| flag.kind), values) {
        (Some(FlagKind::List), values) => show::list(values),
        (_, [value]) => show::text(value),
        (_, values) => show::list(values),
    }
}

/// What is wrong, on one line and without the flag's name, which the place says.
fn explain(error: &BuildError) -> String {
    match error {
        BuildError::Regex { source, .. } => {
            let text = source.to_string();
            let last = text.lines().last().unwrap_or_default().trim();
            format!("not a regular expression: {}", last.strip_prefix("error: ").unwrap_or(last))
        }
        BuildError::Conflict { first, second } => {
            format!("{first} and {second} can't be used together; keep one of them")
        }
        BuildError::Value { what, .. } => what.clone(),
    }
}
