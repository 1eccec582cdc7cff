//! What is wrong with the configuration: all of it at once, each with its place.

use std::{fmt, sync::Arc};

use crate::cli::nearest;

/// Where a value comes from. Ordered as mistakes are listed: the file by position, then environment, then flags.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// Found on this machine.
    Machine,
    /// The configuration file as a whole.
    WholeFile(Arc<str>),
    /// A place in the configuration file.
    File {
        /// The file's path as given.
        file: Arc<str>,
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in characters.
        column: usize,
    },
    /// An environment variable.
    Env(String),
    /// A flag, without its dashes.
    Flag(String),
}

impl Origin {
    /// Whether the place alone says which setting is meant, so that its key need not be said too.
    fn names_the_setting(&self) -> bool {
        matches!(self, Self::Env(_) | Self::Flag(_))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Machine => f.write_str("this machine"),
            Self::WholeFile(file) => f.write_str(file),
            Self::File { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Self::Env(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "--{name}"),
        }
    }
}

/// One thing that is wrong, with what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// Where it was written.
    pub origin: Origin,
    /// What is wrong, without the place.
    pub text: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.text)
    }
}

/// Everything that is wrong, by position.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// Notes one.
    pub fn add(&mut self, origin: &Origin, text: impl Into<String>) {
        self.0.push(Mistake { origin: origin.clone(), text: text.into() });
    }

    /// Notes a wrong value of `key`.
    pub fn add_value(&mut self, origin: &Origin, key: &str, text: &str) {
        match origin.names_the_setting() {
            true => self.add(origin, text),
            false => self.add(origin, format!("{key}: {text}")),
        }
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sorts by position and drops what was said twice.
    pub fn sorted(mut self) -> Self {
        self.0.sort();
        self.0.dedup();
        self
    }

    /// Each of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Mistake> {
        self.0.iter()
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for mistake in &self.0 {
            writeln!(f, "{mistake}")?;
        }
        match self.0.len() {
            1 => f.write_str("1 mistake"),
            count => write!(f, "{count} mistakes"),
        }
    }
}

impl std::error::Error for Mistakes {}

/// `; did you mean X?`, or nothing.
pub fn did_you_mean<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> String {
    nearest(word, candidates).map_or_else(String::new, |found| format!("; did you mean {found}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_listed_by_position_and_once() {
        let at = |line| Origin::File { file: "c.yaml".into(), line, column: 1 };
        let mut mistakes = Mistakes::default();
        mistakes.add_value(&Origin::Flag("log.level".into()), "log.level", "odd");
        mistakes.add_value(&at(10), "store.max_age", "odd");
        mistakes.add_value(&at(9), "gpu", "odd");
        mistakes.add_value(&at(9), "gpu", "odd");
        let text = mistakes.sorted().to_string();
        assert_eq!(
            text,
            "c.yaml:9:1: gpu: odd\nc.yaml:10:1: store.max_age: odd\n--log.level: odd\n3 mistakes"
        );
    }

    #[test]
    fn only_a_near_word_is_suggested() {
        let words = ["hosts", "index", "schema"];
        assert_eq!(nearest("host", words.into_iter()), Some("hosts"));
        assert_eq!(nearest("retries", words.into_iter()), None);
    }
}
