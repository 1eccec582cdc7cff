//! Lines that belong together: a stack trace is one event, not forty.
//!
//! Whether a line continues what came before it is decided by the lines of that event alone, never by how they were read:
//! the same bytes make the same events under the same ids, also when they are read again after a crash. Where time decides
//! (nothing more came for a while), the end of the event is written down before the event goes out: see
//! [`super::join::Joiner::cut`].

pub mod ahead;
mod shapes;
mod traces;

use regex::bytes::Regex;

pub use traces::Trace;

/// Lines of one event, at most; the next one begins another event.
pub const MOST_LINES: u32 = 1000;
/// Bytes of one event beyond its first line, at most.
pub const MOST_BYTES: usize = 256 << 10;

/// How lines are put together.
#[derive(Debug, Clone, Default)]
pub enum Multiline {
    /// Stack traces of the usual languages, with the line that announces them.
    #[default]
    Auto,
    /// Not at all.
    Off,
    /// What does not match this belongs to the line before it.
    Start(Regex),
    /// What matches this belongs to the line before it.
    More(Regex),
}

impl PartialEq for Multiline {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Auto, Self::Auto) | (Self::Off, Self::Off) => true,
            (Self::Start(one), Self::Start(other)) | (Self::More(one), Self::More(other)) => {
                one.as_str() == other.as_str()
            }
            _ => false,
        }
    }
}

impl Eq for Multiline {}

impl Multiline {
    /// Understands `auto` and `off`.
    pub fn named(word: &str) -> Result<Self, String> {
        match word {
            "auto" => Ok(Self::Auto),
            // YAML of an older kind reads the bare word as false.
            "off" | "false" => Ok(Self::Off),
            other => Err(format!("expected auto, off or {{start: REGEX}}, not '{other}'")),
        }
    }

    /// Understands the pattern of a first line.
    pub fn starting(pattern: &str) -> Result<Self, String> {
        let regex = compiled(pattern).map_err(|error| {
            format!("expected a regular expression that first lines match, not '{pattern}': {error}")
        });
        regex.map(Self::Start)
    }

    /// Understands the pattern of all lines but the first.
    pub fn continued_by(pattern: &str) -> Result<Self, String> {
        compiled(pattern).map(Self::More)
    }

    /// What an event that begins with this line may go on with; `None` when the line is all of it.
    pub fn begin(&self, line: &[u8]) -> Option<Trace> {
        match self {
            Self::Auto => Trace::begin(line),
            Self::Off => None,
            Self::Start(_) | Self::More(_) => Some(Trace::Own),
        }
    }

    /// What may come after this line; `None` when it does not belong to the event.
    pub fn follow(&self, trace: Trace, line: &[u8]) -> Option<Trace> {
        match self {
            Self::Auto => trace.follow(line),
            Self::Off => None,
            Self::Start(regex) => (!regex.is_match(line)).then_some(Trace::Own),
            Self::More(regex) => regex.is_match(line).then_some(Trace::Own),
        }
    }
}

fn compiled(pattern: &str) -> Result<Regex, String> {
    match Regex::new(pattern) {
        Ok(_) if pattern.is_empty() => Err("nothing is written".to_owned()),
        Ok(regex) => Ok(regex),
        // The last line says what is wrong, the others show where.
        Err(error) => {
            let text = error.to_string();
            Err(text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned())
        }
    }
}

#[cfg(test)]
mod tests;
