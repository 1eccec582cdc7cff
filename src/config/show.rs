//! Values as YAML that reads back as the same values.

use std::{fmt::Display, path::Path};

use super::options::{IndexTemplate, Multiline, Source, SourceKind};

/// A text, quoted when it must be.
pub fn text(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-%".contains(c) || c == ':';
    let first = |c: char| c.is_ascii_alphanumeric() || c == '/';
    let is_plain = value.starts_with(first)
        && value.chars().all(plain)
        && !value.ends_with(':')
        && !value.eq_ignore_ascii_case("null");
    if is_plain {
        return value.to_owned();
    }
    // `${` would be read as the beginning of a variable.
    let mut quoted = String::from("\"");
    for c in value.replace("${", "$${").chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            c if c.is_control() => quoted.push_str(&format!("\\U{:08x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

/// A path; bytes that are not UTF-8 are shown as U+FFFD.
pub fn path(value: &Path) -> String {
    text(&value.to_string_lossy())
}

/// A list on one line.
pub fn list<T: Display>(values: &[T]) -> String {
    let items: Vec<String> = values.iter().map(|value| text(&value.to_string())).collect();
    format!("[{}]", items.join(", "))
}

/// The sources of logs on one line.
pub fn sources(sources: &[Source]) -> String {
    let items: Vec<String> = sources.iter().map(source).collect();
    format!("[{}]", items.join(", "))
}

fn source(source: &Source) -> String {
    let index = source.index.as_ref().map(IndexTemplate::as_str);
    let mut own = index.map_or_else(String::new, |index| format!(", index: {}", text(index)));
    own.push_str(&match &source.multiline {
        None => String::new(),
        Some(Multiline::Auto) => ", multiline: auto".into(),
        Some(Multiline::Off) => ", multiline: off".into(),
        Some(Multiline::More(regex)) => format!(", multiline: {{more: {}}}", text(regex.as_str())),
        Some(Multiline::Start(regex)) => format!(", multiline: {{start: {}}}", text(regex.as_str())),
    });
    match &source.kind {
        SourceKind::Kubernetes { path: at, exclude_namespaces } => {
            format!(
                "kubernetes: {{path: {}, exclude_namespaces: {}{own}}}",
                path(at),
                list(exclude_namespaces)
            )
        }
        SourceKind::Files { include, exclude } => {
            format!("files: {{include: {}, exclude: {}{own}}}", list(include), list(exclude))
        }
        SourceKind::Journal { path } => {
            let path: Vec<String> = path.iter().map(|path| path.to_string_lossy().into_owned()).collect();
            format!("journal: {{path: {}{own}}}", list(&path))
        }
        SourceKind::Kernel => format!("kernel: {{{}}}", own.trim_start_matches(", ")),
    }
}
