//! What must not leave the node is taken out of lines before anything else is made of them: secrets that are known by their
//! form, and what the user's own patterns match.

mod detectors;

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, Instant},
};

use prometheus::IntCounter;

pub use self::detectors::Builtin;
use self::detectors::Finder;
use super::{json::tokens::Text, pattern::Pattern};
use crate::logs::shape::write_string;

/// JSON within a JSON string within a JSON string is all that is looked into.
const DEEPEST: u32 = 3;

/// What is taken out of lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A secret known by its form.
    Builtin(Builtin),
    /// What a pattern matches becomes another text, in which `$1` is what the first group matched.
    Own(Pattern, String),
}

/// Takes out one kind of text.
#[derive(Debug)]
pub struct Detector {
    finder: Finder,
    replacement: Vec<u8>,
    hits: IntCounter,
}

impl Detector {
    /// Counts the lines in which it found something.
    pub fn new(what: &What, hits: IntCounter) -> Self {
        let (finder, replacement) = match what {
            What::Builtin(builtin) => (Finder::new(*builtin), format!("[redacted:{}]", builtin.as_str())),
            What::Own(pattern, replacement) => (Finder::Own(pattern.clone()), replacement.clone()),
        };
        Self { finder, replacement: replacement.into_bytes(), hits }
    }

    /// The text without it, if it is in there.
    fn apply<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        let redacted = self.finder.replace(text, &self.replacement);
        if matches!(redacted, Cow::Owned(_)) {
            self.hits.inc();
        }
        redacted
    }
}

/// What is taken out of the lines of one file.
#[derive(Debug)]
pub struct Redactor {
    detectors: Vec<Arc<Detector>>,
}

impl Redactor {
    /// One after the other; `None` when there is nothing to look for.
    pub fn new(detectors: Vec<Arc<Detector>>) -> Option<Self> {
        (!detectors.is_empty()).then_some(Self { detectors })
    }

    /// The text without what is to be taken out, also behind the escapes of JSON strings in it.
    pub fn redact<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        self.redact_within(text, DEEPEST)
    }

    /// `depth` is how often a string may be a text with strings in it.
    fn redact_within<'a>(&self, text: &'a [u8], depth: u32) -> Cow<'a, [u8]> {
        if depth == 0 || memchr::memchr(b'\\', text).is_none() {
            return self.redact_plain(text);
        }
        // Before the text as it is written: what is taken out of that may be one half of an escape.
        let mut out = Vec::new();
        let is_escaped = |raw: &[u8], _| memchr::memchr(b'\\', raw).is_some();
        self.redact_strings(text, is_escaped, depth - 1, &mut out);
        if out == text {
            return self.redact_plain(text);
        }
        Cow::Owned(self.redact_plain(&out).into_owned())
    }

    fn redact_plain<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        let mut redacted = Cow::Borrowed(text);
        for detector in &self.detectors {
            if let Cow::Owned(changed) = detector.apply(&redacted) {
                redacted = Cow::Owned(changed);
            }
        }
        redacted
    }

    /// Writes a JSON string, given as it is written between its quotes.
    fn redact_quoted(&self, raw: &[u8], depth: u32, out: &mut Vec<u8>) {
        let text = match memchr::memchr(b'\\', raw) {
            None => Some(Cow::Borrowed(raw)),
            Some(_) => Text { raw, is_escaped: true }.read().map(|text| Cow::Owned(text.into_bytes())),
        };
        match text.as_deref().map(|text| self.redact_within(text, depth)) {
            Some(Cow::Owned(changed)) => {
                write_string(&changed, out);
            }
            _ => {
                out.push(b'"');
                out.extend_from_slice(raw);
                out.push(b'"');
            }
        }
    }

    /// The values in members of a document that somebody made of a line, such as syslog's. Their names are ours.
    pub fn redact_members<'a>(&self, members: &'a [u8]) -> Cow<'a, [u8]> {
        let mut out = Vec::new();
        self.redact_strings(members, |_, is_name| !is_name, DEEPEST, &mut out);
        if out == members { Cow::Borrowed(members) } else { Cow::Owned(out) }
    }

    /// Copies JSON, or a piece of it, and redacts the strings that are wanted: what they are and whether they are names.
    fn redact_strings(
        &self,
        json: &[u8],
        wants: impl Fn(&[u8], bool) -> bool,
        depth: u32,
        out: &mut Vec<u8>,
    ) {
        let mut copied = 0;
        let mut at = 0;
        while let Some(quote) = json.get(at..).and_then(|rest| memchr::memchr(b'"', rest)) {
            let start = at + quote;
            let Some(length) = length_of_string(json.get(start + 1..).unwrap_or_default()) else { break };
            at = start + length + 2;
            let raw = json.get(start + 1..at - 1).unwrap_or_default();
            let is_name = json.get(at..).unwrap_or_default().trim_ascii_start().first() == Some(&b':');
            if wants(raw, is_name) {
                out.extend_from_slice(json.get(copied..start).unwrap_or_default());
                self.redact_quoted(raw, depth, out);
                copied = at;
            }
        }
        out.extend_from_slice(json.get(copied..).unwrap_or_default());
    }

    /// Whether private keys are looked for.
    pub fn knows_private_keys(&self) -> bool {
        self.detectors.iter().any(|detector| matches!(detector.finder, Finder::PrivateKey))
    }
}

/// How long a JSON string is whose first quote was just passed.
fn length_of_string(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let stop = at + memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        if text.get(stop) == Some(&b'"') {
            return Some(stop);
        }
        at = stop + 2;
    }
}

/// A private key whose lines are lines of the log.
#[derive(Debug, Default, Clone, Copy)]
pub struct KeyBlock {
    open: Option<OpenKey>,
}

#[derive(Debug, Clone, Copy)]
struct OpenKey {
    from: u64,
    lines: u32,
    began: Instant,
}

impl KeyBlock {
    /// Longer ones are none.
    const LINES: u32 = 200;
    /// Nobody writes the lines of a key this long.
    const LASTS: Duration = Duration::from_secs(10);

    /// Takes note of a line of the stream that begins at an offset. Whether it is inside of a key.
    pub fn take(&mut self, text: &[u8], offset: u64, now: Instant) -> bool {
        if let Some(OpenKey { from, lines, began }) = self.open {
            let is_end = memchr::memmem::find(text, b"-----END ").is_some();
            let is_inside = is_end || is_key_text(text);
            self.open = (is_inside && !is_end && lines < Self::LINES).then_some(OpenKey {
                from,
                lines: lines + 1,
                began,
            });
            if is_inside {
                return true;
            }
        }
        if detectors::opens_key(text) {
            self.open = Some(OpenKey { from: offset, lines: 0, began: now });
        }
        false
    }

    /// It is to be read again from here if it is not read to its end.
    pub fn from(&self) -> Option<u64> {
        self.open.map(|open| open.from)
    }

    /// When it is given up if its end does not come.
    pub fn due(&self) -> Option<Instant> {
        self.open.map(|open| open.began + Self::LASTS)
    }
}

/// Base 64, or a header such as "Proc-Type: 4,ENCRYPTED".
fn is_key_text(text: &[u8]) -> bool {
    let text = text.trim_ascii();
    let is_word =
        |bytes: &[u8]| bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+/=-,".contains(byte));
    text.len() <= 128
        && (is_word(text) || text.splitn(2, |byte| *byte == b':').all(|part| is_word(part.trim_ascii())))
}

#[cfg(test)]
mod tests;
