//! What the tests over all collectors share: making them from flags, printing their page.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod damage;
pub mod fixtures;
pub mod peer;
pub mod rack7;

use nodewarden_collectors::{CollectError, Entry, Host, Options, Samples, Settings, node, text};

/// Settings out of flags as one would write them, without `--collector.`: `stat.softirq=true`.
pub fn settings(flags: &[impl AsRef<str>]) -> Settings {
    let mut settings = Settings::new();
    for flag in flags {
        let (name, value) = flag.as_ref().split_once('=').expect("NAME=VALUE");
        settings.entry(name.to_owned()).or_default().push(value.to_owned());
    }
    settings
}

/// The entry of that name.
pub fn entry(name: &str) -> &'static Entry {
    node::ALL.iter().find(|entry| entry.name == name).unwrap_or_else(|| panic!("no collector {name}"))
}

/// The page of these collectors after one scrape, and what each that failed said.
pub fn page(names: &[&str], host: &Host, settings: &Settings) -> (String, Vec<(String, CollectError)>) {
    let mut samples = Samples::new();
    let mut failed = Vec::new();
    for name in names {
        let entry = entry(name);
        let mut collector = (entry.build)(host, &Options::new(entry, settings)).expect("valid settings");
        if let Err(error) = collector.collect(host, &mut samples) {
            failed.push(((*name).to_owned(), error));
        }
    }
    let mut page = Vec::new();
    let left_out = text::write(&samples, &mut page);
    assert_eq!(left_out, 0, "no series is said twice by {names:?}");
    (String::from_utf8(page).expect("UTF-8"), failed)
}

/// The lines in which two pages differ, with some of what stands around them; empty when they are equal.
pub fn difference(expected: &str, found: &str) -> String {
    let mut lines = Vec::new();
    let (left, right): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), found.lines().collect());
    for line in left.iter().filter(|line| !right.contains(line)) {
        lines.push(format!("- {line}"));
    }
    for line in right.iter().filter(|line| !left.contains(line)) {
        lines.push(format!("+ {line}"));
    }
    if lines.is_empty() && expected != found {
        lines.push("the same lines in another order".to_owned());
    }
    lines.join("\n")
}
