//! `nodewarden check`: the configuration in force, or every mistake.

use std::io::{self, Write};

use super::{
    env::Env,
    keys::SECRET,
    load::{Loaded, Setting, load},
    machine::Machine,
};
use crate::cli::Cli;

/// Writes the configuration in force to `out`, or every mistake to `err`; false means that there are mistakes.
pub fn check(
    cli: &Cli,
    env: &Env,
    machine: &Machine,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<bool> {
    match load(cli, env, machine) {
        Ok(loaded) => {
            out.write_all(loaded.text().as_bytes())?;
            writeln!(out, "ok")?;
            Ok(true)
        }
        Err(mistakes) => writeln!(err, "{mistakes}").map(|()| false),
    }
}

impl Loaded {
    /// The configuration in force as a file that says the same, with where each value came from; without secrets.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut open: Vec<&str> = Vec::new();
        for setting in &self.settings {
            write_setting(setting, &mut open, &mut out);
        }
        for note in &self.notes {
            out += &format!("# {note}\n");
        }
        out
    }
}

/// One line below the headings of its sections; `open` are the sections that the last line was in.
fn write_setting<'a>(setting: &'a Setting, open: &mut Vec<&'a str>, out: &mut String) {
    let (sections, name) = split(&setting.key);
    let common = sections.iter().zip(open.iter()).take_while(|(a, b)| a == b).count();
    for (depth, section) in sections.iter().enumerate().skip(common) {
        *out += &format!("{:1$}{section}:\n", "", depth * 2);
    }
    let indent = sections.len() * 2;
    *open = sections;
    // A secret is not shown: the line is a comment, so that the rest reads back.
    let comment = if setting.value == SECRET { "# " } else { "" };
    let line = format!("{:indent$}{comment}{name}: {}", "", setting.value);
    *out += &format!("{line:<56} # from {}\n", setting.origin);
}

/// Sections and name of a key; a collector's option keeps its dots.
fn split(key: &str) -> (Vec<&str>, &str) {
    let most = if key.starts_with("metrics.") { 3 } else { usize::MAX };
    let mut parts: Vec<&str> = key.splitn(most, '.').collect();
    let name = parts.pop().unwrap_or_default();
    (parts, name)
}
