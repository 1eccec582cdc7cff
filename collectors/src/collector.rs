//! What a collector is: its entry in the list, its flags, its one method, its errors.

use std::{collections::BTreeMap, io, path::PathBuf};

use crate::{host::Host, samples::Samples};

/// One source of metrics. It may keep descriptors and buffers between scrapes; one scrape runs at a time.
pub trait Collector: Send {
    /// Reads the host and says what it found. Samples said before an error are served, as node_exporter does.
    fn collect(&mut self, host: &Host, out: &mut Samples) -> Result<(), CollectError>;
}

/// Why a collector has nothing, or not everything, to say in this scrape.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The host has no such thing (a module not loaded, a feature off): quiet, but `success` is 0.
    #[error("no data")]
    NoData,
    /// A file or directory of the host could not be read.
    #[error("could not read {}: {source}", path.display())]
    Read {
        /// What was being read.
        path: PathBuf,
        /// What the kernel answered.
        source: io::Error,
    },
    /// A file was read, but its text is not what the kernel documents.
    #[error("could not understand {}: {what}", path.display())]
    Parse {
        /// What was being parsed.
        path: PathBuf,
        /// What was expected or found.
        what: String,
    },
    /// A system call or a netlink request failed.
    #[error("{what}: {source}")]
    System {
        /// What was being asked.
        what: &'static str,
        /// What the kernel answered.
        source: io::Error,
    },
}

impl CollectError {
    /// A parse error about `path`.
    pub fn parse(path: impl Into<PathBuf>, what: impl Into<String>) -> Self {
        Self::Parse { path: path.into(), what: what.into() }
    }

    /// A question to a server or a bus that failed; the kernel's word for a deadline that passed is `EAGAIN`.
    pub fn asking(what: &'static str, source: io::Error) -> Self {
        let source = match source.kind() {
            io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::TimedOut, "no answer in time"),
            _ => source,
        };
        Self::System { what, source }
    }

    /// The error for a file that could not be read: an absent file means that the kernel lacks the feature.
    pub fn missing_is_no_data(self) -> Self {
        match self {
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => Self::NoData,
            other => other,
        }
    }

    /// The same where the peer takes a directory that it may not look into for an absent one.
    pub fn missing_or_denied_is_no_data(self) -> Self {
        match self {
            Self::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => Self::NoData,
            other => other.missing_is_no_data(),
        }
    }
}

/// Why a collector can't be made from the settings it was given.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The value of a regex flag does not compile.
    #[error("--collector.{flag}: {source}")]
    Regex {
        /// The flag, without `--collector.`.
        flag: &'static str,
        /// What is wrong with the pattern.
        source: Box<regex::Error>,
    },
    /// Two flags that exclude each other are both set.
    #[error("--collector.{first} and --collector.{second} can't be used together: keep one of them")]
    Conflict {
        /// One flag, without `--collector.`.
        first: &'static str,
        /// The other one.
        second: &'static str,
    },
    /// A flag's value has no meaning.
    #[error("--collector.{flag}: {what}")]
    Value {
        /// The flag, without `--collector.`.
        flag: &'static str,
        /// What was expected.
        what: String,
    },
}

impl BuildError {
    /// The flag at fault, without `--collector.`.
    pub fn flag(&self) -> &'static str {
        match self {
            Self::Regex { flag, .. } | Self::Value { flag, .. } => flag,
            Self::Conflict { first, .. } => first,
        }
    }
}

/// How a flag's value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlagKind {
    /// `--collector.x` or `--no-collector.x`; in the file `true` or `false`.
    Bool,
    /// Any text.
    Text,
    /// An RE2-like regular expression, not anchored.
    Regex,
    /// May be given several times.
    List,
}

/// One option of a collector: the same word as flag (`--collector.NAME`) and in the config file.
#[derive(Debug)]
pub struct Flag {
    /// The name after `--collector.`, e.g. `diskstats.device-exclude`.
    pub name: &'static str,
    /// How its value is written.
    pub kind: FlagKind,
    /// The value when nobody sets it; `true`/`false` for a bool, empty for an empty list.
    pub default: &'static str,
    /// One line for `--help`.
    pub help: &'static str,
}

impl Flag {
    /// A switch.
    pub const fn bool(name: &'static str, default: bool, help: &'static str) -> Self {
        Self { name, kind: FlagKind::Bool, default: if default { "true" } else { "false" }, help }
    }

    /// A text value.
    pub const fn text(name: &'static str, default: &'static str, help: &'static str) -> Self {
        Self { name, kind: FlagKind::Text, default, help }
    }

    /// A regular expression.
    pub const fn regex(name: &'static str, default: &'static str, help: &'static str) -> Self {
        Self { name, kind: FlagKind::Regex, default, help }
    }

    /// A repeatable value, empty by default.
    pub const fn list(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: FlagKind::List, default: "", help }
    }
}

/// How a collector is made: it is handed the host, so that it can prepare what it keeps between scrapes.
pub type Build = fn(&Host, &Options) -> Result<Box<dyn Collector>, BuildError>;

/// A collector in the list: one const per file.
#[derive(Debug)]
pub struct Entry {
    /// The one word: file name, flag and `collector` label.
    pub name: &'static str,
    /// Whether it runs when nobody says otherwise.
    pub default_on: bool,
    /// Its own flags.
    pub flags: &'static [Flag],
    /// Its constructor.
    pub build: Build,
}

/// What users set of the collectors' flags: flag name (without `--collector.`) to written values; the name of a collector
/// that was switched off stands for "false".
pub type Settings = BTreeMap<String, Vec<String>>;

/// One collector's flags as it sees them: what was set, else the default.
#[derive(Debug)]
pub struct Options<'a> {
    flags: &'static [Flag],
    settings: &'a Settings,
}

impl<'a> Options<'a> {
    /// The view of `entry` on `settings`.
    pub fn new(entry: &Entry, settings: &'a Settings) -> Self {
        Self { flags: entry.flags, settings }
    }

    /// The value of a text or regex flag.
    pub fn text(&self, name: &str) -> &str {
        match self.settings.get(name).and_then(|values| values.last()) {
            Some(value) => value,
            None => self.default_of(name),
        }
    }

    /// The state of a switch.
    pub fn is_on(&self, name: &str) -> bool {
        self.text(name) == "true"
    }

    /// Whether a collector that is on by default has been switched off.
    pub fn is_off(&self, collector: &str) -> bool {
        self.settings.get(collector).and_then(|values| values.last()).is_some_and(|value| value == "false")
    }

    /// Whether somebody set this flag.
    pub fn is_set(&self, name: &str) -> bool {
        self.settings.contains_key(name)
    }

    /// The values of a repeatable flag.
    pub fn list(&self, name: &str) -> &[String] {
        self.settings.get(name).map_or(&[], Vec::as_slice)
    }

    /// The regular expression of a flag; `None` when it is empty.
    pub fn regex(&self, name: &'static str) -> Result<Option<regex::Regex>, BuildError> {
        match self.text(name) {
            "" => Ok(None),
            pattern => regex::Regex::new(pattern)
                .map(Some)
                .map_err(|source| BuildError::Regex { flag: name, source: Box::new(source) }),
        }
    }

    /// Which of two flags holds the value: `older`, a deprecated spelling of `flag`, when it alone was set.
    pub fn older_name(&self, flag: &'static str, older: &'static str) -> Result<&'static str, BuildError> {
        if self.text(older).is_empty() {
            return Ok(flag);
        }
        if self.is_set(flag) {
            return Err(BuildError::Conflict { first: older, second: flag });
        }
        tracing::warn!("--collector.{older} is deprecated, use --collector.{flag}");
        Ok(older)
    }

    fn default_of(&self, name: &str) -> &'static str {
        let flag = self.flags.iter().find(|flag| flag.name == name);
        debug_assert!(flag.is_some(), "{name} is not in the collector's list of flags");
        flag.map_or("", |flag| flag.default)
    }
}
