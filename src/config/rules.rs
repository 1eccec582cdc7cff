//! `logs.rules` and `logs.redact.rules` in the configuration file.

use glob::Pattern as Glob;

use super::{
    mistakes::{Mistakes, Origin, did_you_mean},
    sources::Fields,
    units,
    yaml::{Entry, Node, Value},
};
use crate::logs::{
    process::{
        Redaction,
        level::Level,
        pattern::Pattern,
        redact::What,
        rules::{Action, Condition, Rule},
        select::Selection,
    },
    record::Stream,
};

/// The key of the rules.
pub const RULES: &str = "logs.rules";
/// The key of the user's patterns of what is taken out of lines.
pub const REDACT: &str = "logs.redact.rules";

const KINDS: [&str; 4] = ["keep", "drop", "sample", "collapse"];
const SELECTION: [&str; 5] = ["namespace", "pod", "container", "file", "labels"];
const CONDITION: [&str; 6] = ["name", "level", "below", "match", "not_match", "stream"];
/// More would cost too much for each line.
const MOST: usize = 64;

/// The rules, as far as they could be understood; `None` when nothing is written.
pub fn rules(node: Node, mistakes: &mut Mistakes) -> Option<Vec<Rule>> {
    let example = "[drop: {match: GET /healthz}]";
    let mut rules = Vec::new();
    for (number, item) in items(RULES, node, example, mistakes)?.into_iter().enumerate() {
        match item.value {
            Value::Map(entries) => {
                rules.extend(entries.into_iter().filter_map(|entry| rule(entry, number + 1, mistakes)));
            }
            Value::Bad => {}
            other => {
                let text = format!("expected a rule such as 'drop: {{level: debug}}', not {}", other.kind());
                mistakes.add_value(&item.origin, RULES, &text);
            }
        }
    }
    Some(rules)
}

/// What is taken out of lines beside the secrets that are known by their form.
pub fn redactions(node: Node, mistakes: &mut Mistakes) -> Option<Vec<Redaction>> {
    let example = "['password=\\S+']";
    let mut all = Vec::new();
    for (number, item) in items(REDACT, node, example, mistakes)?.into_iter().enumerate() {
        all.extend(redaction(item, number + 1, mistakes));
    }
    Some(all)
}

fn items(name: &str, node: Node, example: &str, mistakes: &mut Mistakes) -> Option<Vec<Node>> {
    let origin = node.origin;
    match node.value {
        Value::List(items) if items.len() > MOST => {
            let text = format!("expected {MOST} at most, not {}: each costs time for each line", items.len());
            mistakes.add_value(&origin, name, &text);
            None
        }
        Value::List(items) => Some(items),
        Value::Null | Value::Bad => None,
        other => {
            let text = format!("expected a list such as {example}, not {}", other.kind());
            mistakes.add_value(&origin, name, &text);
            None
        }
    }
}

fn rule(entry: Entry, number: usize, mistakes: &mut Mistakes) -> Option<Rule> {
    let kind = entry.key.as_str();
    let name = format!("{RULES}.{kind}");
    let own: &[&str] = match kind {
        "sample" => &["one_of", "dry_run"],
        "collapse" => &["within"],
        "keep" | "drop" => &["dry_run"],
        other => {
            let near = did_you_mean(other, KINDS.into_iter());
            let near = if near.is_empty() { "; write keep, drop, sample or collapse".into() } else { near };
            mistakes.add(&entry.origin, format!("{name} is not a rule{near}"));
            return None;
        }
    };
    // Only the line before says whether a line is repeated.
    let condition: &[&str] = if kind == "collapse" { &["name"] } else { &CONDITION };
    let known: Vec<&str> = SELECTION.iter().chain(condition).chain(own).copied().collect();
    let mut fields = Fields::new(name, entry.origin.clone(), mistakes);
    fields.open(entry.value, &known)?;
    let selection = selection(&mut fields);
    let condition = Condition {
        levels: fields
            .take("level")
            .into_iter()
            .filter_map(|level| fields.read("level", level, read_level))
            .collect(),
        below: fields.one("below", read_level),
        matches: fields.one("match", Pattern::parse),
        lacks: fields.one("not_match", Pattern::parse),
        stream: fields.one("stream", read_stream),
    };
    let action = match kind {
        "keep" => Action::Keep,
        "drop" => Action::Drop,
        "sample" => Action::Sample(fields.needed("one_of", "one_of: 10", read_one_of)?),
        _ => Action::Collapse(fields.needed("within", "within: 30s", read_within)?),
    };
    let dry_run = fields.one("dry_run", super::keys::boolean).unwrap_or(false);
    let name = fields.one("name", read_name).unwrap_or_else(|| format!("{kind}-{number}"));
    Some(Rule { name, selection, condition, action, dry_run })
}

fn redaction(item: Node, number: usize, mistakes: &mut Mistakes) -> Option<Redaction> {
    let default = format!("rule-{number}");
    let replacement = || "[redacted]".to_owned();
    if let Value::Scalar(text) = &item.value {
        let pattern = Pattern::parse(text);
        let pattern = pattern.map_err(|error| mistakes.add_value(&item.origin, REDACT, &error)).ok()?;
        let what = What::Own(pattern, replacement());
        return Some(Redaction { name: default, selection: Selection::default(), what });
    }
    let known: Vec<&str> = SELECTION.iter().chain(&["name", "match", "replace"]).copied().collect();
    let mut fields = Fields::new(REDACT.into(), item.origin.clone(), mistakes);
    fields.open(item, &known)?;
    let selection = selection(&mut fields);
    let replacement = fields.one("replace", |text| Ok(text.to_owned())).unwrap_or_else(replacement);
    let name = fields.one("name", read_name).unwrap_or(default);
    let pattern = fields.needed("match", "match: 'password=\\S+'", Pattern::parse)?;
    Some(Redaction { name, selection, what: What::Own(pattern, replacement) })
}

fn selection(fields: &mut Fields<'_>) -> Selection {
    let labels = fields.pairs("labels").into_iter();
    let labels = labels.filter_map(|(key, text)| Some((key, fields.read("labels", text, read_glob)?)));
    let labels = labels.collect();
    let mut globs = |key: &str| -> Vec<Glob> {
        let written = fields.take(key);
        written.into_iter().filter_map(|one| fields.read(key, one, read_glob)).collect()
    };
    Selection {
        namespaces: globs("namespace"),
        pods: globs("pod"),
        containers: globs("container"),
        files: globs("file"),
        labels,
    }
}

fn read_glob(text: &str) -> Result<Glob, String> {
    Glob::new(text).map_err(|error| format!("'{text}' is no pattern: {error}"))
}

fn read_stream(text: &str) -> Result<Stream, String> {
    let streams = [Stream::Stdout, Stream::Stderr];
    let found = streams.into_iter().find(|stream| stream.as_str() == text);
    found.ok_or_else(|| format!("expected stdout or stderr, not '{text}'"))
}

fn read_level(text: &str) -> Result<Level, String> {
    let words: Vec<&str> = Level::ALL.into_iter().map(Level::as_str).collect();
    Level::from_word(text.as_bytes()).ok_or_else(|| format!("expected {}, not '{text}'", words.join(", ")))
}

fn read_one_of(text: &str) -> Result<u64, String> {
    let fail = || format!("expected a number from 2 to 1000000, not '{text}'");
    text.parse().ok().filter(|number| (2..=1_000_000).contains(number)).ok_or_else(fail)
}

fn read_within(text: &str) -> Result<std::time::Duration, String> {
    let within = units::duration(text)?;
    let range = std::time::Duration::from_secs(1)..=std::time::Duration::from_secs(3600);
    if range.contains(&within) {
        Ok(within)
    } else {
        Err(format!("expected a time from 1s to 1h, not {text}"))
    }
}

/// A label of metrics.
fn read_name(text: &str) -> Result<String, String> {
    let is_fit = !text.is_empty() && text.len() <= 64 && !text.chars().any(char::is_control);
    if is_fit { Ok(text.to_owned()) } else { Err("expected a name of 1 to 64 characters".into()) }
}

/// The rules on one line, as they may be written.
pub fn show_rules(rules: &[Rule]) -> String {
    list(rules.iter().enumerate().map(|(place, rule)| {
        let (kind, own) = match rule.action {
            Action::Keep => ("keep", None),
            Action::Drop => ("drop", None),
            Action::Sample(one_of) => ("sample", Some(format!("one_of: {one_of}"))),
            Action::Collapse(within) => {
                ("collapse", Some(format!("within: {}", units::show_duration(within))))
            }
        };
        let Condition { levels, below, matches, lacks, stream } = &rule.condition;
        let mut parts: Vec<String> = own.into_iter().collect();
        if rule.name != format!("{kind}-{}", place + 1) {
            parts.push(format!("name: {}", text(&rule.name)));
        }
        parts.extend(show_selection(&rule.selection));
        if !levels.is_empty() {
            let levels: Vec<&str> = levels.iter().map(|level| level.as_str()).collect();
            parts.push(format!("level: [{}]", levels.join(", ")));
        }
        parts.extend(below.map(|below| format!("below: {}", below.as_str())));
        parts.extend(matches.as_ref().map(|pattern| format!("match: {}", text(pattern.as_str()))));
        parts.extend(lacks.as_ref().map(|pattern| format!("not_match: {}", text(pattern.as_str()))));
        parts.extend(stream.map(|stream| format!("stream: {}", stream.as_str())));
        parts.extend(rule.dry_run.then(|| "dry_run: true".into()));
        format!("{kind}: {{{}}}", parts.join(", "))
    }))
}

/// The user's own patterns on one line, as they may be written.
pub fn show_redactions(redactions: &[Redaction]) -> String {
    let own = redactions.iter().filter_map(|redaction| match &redaction.what {
        What::Own(pattern, replacement) => Some((redaction, pattern, replacement)),
        What::Builtin(_) => None,
    });
    list(own.enumerate().map(|(place, (redaction, pattern, replacement))| {
        let mut parts =
            vec![format!("match: {}", text(pattern.as_str())), format!("replace: {}", text(replacement))];
        if redaction.name != format!("rule-{}", place + 1) {
            parts.push(format!("name: {}", text(&redaction.name)));
        }
        parts.extend(show_selection(&redaction.selection));
        format!("{{{}}}", parts.join(", "))
    }))
}

fn show_selection(selection: &Selection) -> Vec<String> {
    let Selection { namespaces, pods, containers, files, labels } = selection;
    let lists = [("namespace", namespaces), ("pod", pods), ("container", containers), ("file", files)];
    let filled = lists.into_iter().filter(|(_, globs)| !globs.is_empty());
    let mut shown: Vec<String> =
        filled.map(|(key, globs)| format!("{key}: {}", super::show::list(globs))).collect();
    if !labels.is_empty() {
        let pairs = labels.iter().map(|(key, glob)| format!("{}: {}", text(key), text(glob.as_str())));
        shown.push(format!("labels: {{{}}}", pairs.collect::<Vec<_>>().join(", ")));
    }
    shown
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

fn text(value: &str) -> String {
    super::show::text(value)
}

/// Where something was written, for settings that are made of several.
pub type Placed<T> = Option<(T, Origin)>;
