//! Lines that are JSON objects: their members become fields of the document, as many and as deep as an index bears.

pub mod tokens;

use std::borrow::Cow;

use tokens::{Malformed, Text, Token, Tokens};

use super::fields::{FieldNames, Path, is_legal};
use crate::logs::{format::parse_rfc3339, shape::write_string};

/// So many lines in a row that are JSON make a container of other lines one of JSON lines.
const FITS: u8 = 4;
/// So many lines in a row that are none make it one of text.
const MISFITS: u8 = 64;

/// How JSON lines become fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Whether they do.
    pub enabled: bool,
    /// The field that the members go below; empty for none.
    pub target: String,
    /// Members that hold the message, the first one there is.
    pub message_keys: Vec<String>,
    /// Members that hold the time of the event; none by default.
    pub time_keys: Vec<String>,
    /// Whether `message` stays the text as it was written.
    pub keep_text: bool,
    /// Objects within objects, at most.
    pub max_depth: u32,
    /// Fields of one line, at most.
    pub max_fields: usize,
    /// Fields of one index, at most, as far as this agent brings them.
    pub max_index_fields: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: false,
            target: "json".into(),
            message_keys: vec!["message".into(), "msg".into()],
            time_keys: Vec::new(),
            keep_text: false,
            max_depth: 6,
            max_fields: 200,
            max_index_fields: 500,
        }
    }
}

/// Whether the lines of a container are JSON: one line that is none says little.
#[derive(Debug, Clone, Copy, Default)]
pub struct Guess {
    is_json: Option<bool>,
    /// Lines in a row that speak against it.
    against: u8,
}

impl Guess {
    /// Whether it is worth to look at a line that begins so.
    pub fn wants(self, text: &[u8]) -> bool {
        text.first() == Some(&b'{')
    }

    /// A line is JSON, or not. Whether it is to be read as such.
    pub fn saw(&mut self, is_json: bool) -> bool {
        let held = *self.is_json.get_or_insert(is_json);
        self.against = if held == is_json { 0 } else { self.against + 1 };
        if self.against >= if held { MISFITS } else { FITS } {
            *self = Self { is_json: Some(is_json), against: 0 };
        }
        is_json && self.is_json == Some(true)
    }
}

/// What a JSON line gives; the buffers are used again.
#[derive(Debug, Default)]
pub struct Merged {
    /// Members of the document, each after a comma.
    pub members: Vec<u8>,
    /// The message, if it is a member of its own.
    pub message: Option<Vec<u8>>,
    /// When the event was, in nanoseconds since the epoch.
    pub time: Option<i64>,
    /// Fields for which there was no room.
    pub overflowed: u64,
    /// Those fields as members of an object.
    overflow: Vec<u8>,
    frames: Vec<Frame>,
    /// The fields that were written, of all open objects.
    seen: Vec<Path>,
    written: usize,
    /// The names from the outermost object to the innermost, each with a dot behind it.
    place: String,
    paths: Vec<Path>,
}

/// An object that is open.
#[derive(Debug, Clone, Copy)]
struct Frame {
    path: Path,
    /// Where in `members` it begins, its comma included.
    undo: usize,
    /// Where its first member goes.
    begin: usize,
    seen: usize,
    place: usize,
}

/// What is decided on the member at hand.
enum Fate {
    Written,
    Opened,
    Overflow,
}

impl Merged {
    /// Takes in a line. When it is no JSON object, nothing of it is there.
    pub fn read(
        &mut self,
        text: &[u8],
        settings: &Settings,
        names: &mut FieldNames,
    ) -> Result<(), Malformed> {
        self.clear();
        let walked = self.walk(text, settings, names);
        if walked.is_err() {
            self.clear();
        } else if !self.overflow.is_empty() {
            let mut object = std::mem::take(&mut self.overflow);
            object[0] = b'{';
            object.push(b'}');
            self.members.extend_from_slice(b",\"nodewarden\":{\"overflow\":");
            write_string(&object, &mut self.members);
            self.members.push(b'}');
            self.overflow = object;
        }
        walked
    }

    /// Keeps no more memory than ordinary lines take: files are many, and each would keep room for its longest line.
    pub fn let_go(&mut self) {
        const ORDINARY: usize = 16 << 10;
        self.clear();
        self.members.shrink_to(ORDINARY);
        self.overflow.shrink_to(ORDINARY);
    }

    fn clear(&mut self) {
        self.members.clear();
        self.overflow.clear();
        self.frames.clear();
        self.seen.clear();
        self.place.clear();
        (self.message, self.time, self.overflowed, self.written) = (None, None, 0, 0);
    }

    fn walk(&mut self, text: &[u8], settings: &Settings, names: &mut FieldNames) -> Result<(), Malformed> {
        if std::str::from_utf8(text).is_err() {
            return Err(Malformed);
        }
        let mut tokens = Tokens::new(text);
        if tokens.advance()? != Some(Token::BeginObject) {
            return Err(Malformed);
        }
        let path = match settings.target.as_str() {
            "" => Path::default(),
            target => {
                self.members.extend_from_slice(b",\"");
                self.members.extend_from_slice(target.as_bytes());
                self.members.extend_from_slice(b"\":{");
                Path::default().join(target.as_bytes())
            }
        };
        let begin = self.members.len();
        self.frames.push(Frame { path, undo: 0, begin, seen: 0, place: 0 });
        while let Some(frame) = self.frames.last().copied() {
            match tokens.advance()?.ok_or(Malformed)? {
                Token::Key(key) => self.member(key, frame, &mut tokens, settings, names)?,
                // In an object there are members and its end.
                _ => self.close(frame, settings),
            }
        }
        tokens.advance()?.map_or(Ok(()), |_| Err(Malformed))
    }

    fn close(&mut self, frame: Frame, settings: &Settings) {
        self.frames.pop();
        self.seen.truncate(frame.seen);
        self.place.truncate(frame.place);
        if self.members.len() == frame.begin {
            self.members.truncate(frame.undo);
        } else if !(self.frames.is_empty() && settings.target.is_empty()) {
            self.members.push(b'}');
        }
    }

    fn member(
        &mut self,
        key: Text<'_>,
        frame: Frame,
        tokens: &mut Tokens<'_>,
        settings: &Settings,
        names: &mut FieldNames,
    ) -> Result<(), Malformed> {
        let name = name_of(key)?;
        let mut ahead = *tokens;
        let first = ahead.advance()?.ok_or(Malformed)?;
        if self.frames.len() == 1 && self.is_known(&name, first, settings)? {
            *tokens = ahead;
            return Ok(());
        }
        let path = frame.path.join(name.as_bytes());
        let is_barred = self.written >= settings.max_fields
            || !is_legal(&name)
            || self.frames.len() == 1 && settings.target.is_empty() && is_reserved(&name)
            || self.seen.get(frame.seen..).is_some_and(|seen| seen.contains(&path));
        let undo = self.members.len();
        let fate = if is_barred {
            Fate::Overflow
        } else {
            self.put_name(
                &name,
                undo == frame.begin && !(settings.target.is_empty() && self.frames.len() == 1),
            );
            self.put_value(first, path, tokens, settings, names)?
        };
        match fate {
            Fate::Written => {
                *tokens = ahead_of(first, ahead, tokens)?;
                self.seen.push(path);
                self.written += 1;
            }
            Fate::Opened => {
                *tokens = ahead;
                self.seen.push(path);
                let (begin, place) = (self.members.len(), self.place.len());
                self.place.push_str(&name);
                self.place.push('.');
                self.frames.push(Frame { path, undo, begin, seen: self.seen.len(), place });
            }
            Fate::Overflow => {
                self.members.truncate(undo);
                let raw = tokens.skip_value()?;
                self.overflowed += 1;
                self.overflow.push(b',');
                write_string(format!("{}{name}", self.place).as_bytes(), &mut self.overflow);
                self.overflow.push(b':');
                self.overflow.extend_from_slice(raw);
            }
        }
        Ok(())
    }

    /// Whether a member of the outermost object is the message, which is not written once more. The time is taken note of.
    fn is_known(&mut self, name: &str, value: Token<'_>, settings: &Settings) -> Result<bool, Malformed> {
        if self.time.is_none() && settings.time_keys.iter().any(|key| key == name) {
            self.time = match value {
                Token::String(text) => parse_rfc3339(text.raw).or_else(|| time_of_number(text.raw)),
                Token::Plain(number) => time_of_number(number),
                _ => None,
            };
        }
        let is_message = self.message.is_none()
            && !settings.keep_text
            && settings.message_keys.iter().any(|key| key == name);
        match value {
            Token::String(text) if is_message && !text.raw.is_empty() => {
                self.message = Some(match text.is_escaped {
                    false => text.raw.to_vec(),
                    true => text.read().ok_or(Malformed)?.into_bytes(),
                });
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn put_name(&mut self, name: &str, is_first: bool) {
        if !is_first {
            self.members.push(b',');
        }
        write_string(name.as_bytes(), &mut self.members);
        self.members.push(b':');
    }

    /// Writes the value at hand, if there is room for its fields in the index.
    fn put_value(
        &mut self,
        first: Token<'_>,
        path: Path,
        tokens: &Tokens<'_>,
        settings: &Settings,
        names: &mut FieldNames,
    ) -> Result<Fate, Malformed> {
        match first {
            Token::BeginObject if self.frames.len() < settings.max_depth as usize => {
                self.members.push(b'{');
                Ok(Fate::Opened)
            }
            Token::String(text) if names.admit(path) => {
                self.members.push(b'"');
                self.members.extend_from_slice(text.raw);
                self.members.push(b'"');
                Ok(Fate::Written)
            }
            Token::Plain(word) if word == b"null" || is_in_range(word) && names.admit(path) => {
                self.members.extend_from_slice(word);
                Ok(Fate::Written)
            }
            Token::BeginArray => {
                let mut ahead = *tokens;
                let is_fit = self.scan_array(path, ahead, settings)?;
                let room = settings.max_fields.saturating_sub(self.written);
                if !is_fit || self.paths.len() > room || !self.paths.iter().all(|path| names.admit(*path)) {
                    return Ok(Fate::Overflow);
                }
                self.written += self.paths.len().saturating_sub(1);
                self.members.extend_from_slice(ahead.skip_value()?);
                Ok(Fate::Written)
            }
            _ => Ok(Fate::Overflow),
        }
    }

    /// The fields of an array into `paths`. Whether the index takes it: its values are of one kind, as they are of one field.
    fn scan_array(
        &mut self,
        path: Path,
        mut tokens: Tokens<'_>,
        settings: &Settings,
    ) -> Result<bool, Malformed> {
        #[derive(PartialEq, Eq, Clone, Copy)]
        enum Kind {
            Text,
            Number,
            Truth,
            Object,
        }
        self.paths.clear();
        // Of each field its kind, and of each open object the names in it.
        let mut kinds = Vec::<(Path, Kind)>::new();
        let mut objects = Vec::<(Path, Vec<Path>)>::new();
        let (depth, mut at) = (tokens.depth(), path);
        loop {
            let kind = match tokens.advance()?.ok_or(Malformed)? {
                Token::Key(key) => {
                    let name = name_of(key)?;
                    let Some((object, names)) = objects.last_mut() else { return Err(Malformed) };
                    at = object.join(name.as_bytes());
                    if !is_legal(&name) || names.contains(&at) || names.len() >= settings.max_fields {
                        return Ok(false);
                    }
                    names.push(at);
                    continue;
                }
                Token::BeginObject => {
                    objects.push((at, Vec::new()));
                    if objects.len() + self.frames.len() > settings.max_depth as usize {
                        return Ok(false);
                    }
                    Kind::Object
                }
                Token::EndObject => {
                    // Behind it comes another one of the same array, or the next name.
                    at = objects.pop().map_or(path, |(object, _)| object);
                    continue;
                }
                Token::BeginArray => continue,
                Token::EndArray if tokens.depth() <= depth => break,
                Token::EndArray => continue,
                Token::String(_) => Kind::Text,
                Token::Plain(b"null") => continue,
                Token::Plain(b"true" | b"false") => Kind::Truth,
                Token::Plain(number) if is_in_range(number) => Kind::Number,
                Token::Plain(_) => return Ok(false),
            };
            match kinds.iter().find(|(path, _)| *path == at) {
                Some((_, known)) if *known != kind => return Ok(false),
                Some(_) => {}
                None if kinds.len() >= settings.max_fields => return Ok(false),
                None => kinds.push((at, kind)),
            }
        }
        self.paths.extend(kinds.iter().filter(|(_, kind)| *kind != Kind::Object).map(|(path, _)| *path));
        Ok(true)
    }
}

/// Where to go on after a value that began with `first`.
fn ahead_of<'a>(
    first: Token<'a>,
    ahead: Tokens<'a>,
    before: &mut Tokens<'a>,
) -> Result<Tokens<'a>, Malformed> {
    if first == Token::BeginArray {
        before.skip_value()?;
        return Ok(*before);
    }
    Ok(ahead)
}

fn name_of(key: Text<'_>) -> Result<Cow<'_, str>, Malformed> {
    if key.is_escaped {
        return key.read().map(Cow::Owned).ok_or(Malformed);
    }
    std::str::from_utf8(key.raw).map(Cow::Borrowed).map_err(|_| Malformed)
}

/// Whether `long` and `float` hold a number: Elasticsearch refuses documents with larger ones.
fn is_in_range(word: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(word) else { return false };
    let is_whole = word.iter().all(|byte| byte.is_ascii_digit() || *byte == b'-');
    match word.first() {
        Some(b't' | b'f') => true,
        _ if is_whole => text.parse::<i64>().is_ok(),
        _ => text.parse::<f64>().is_ok_and(|number| number.abs() <= f64::from(f32::MAX)),
    }
}

/// Seconds, milliseconds, microseconds or nanoseconds since the epoch: which one is seen by the size.
fn time_of_number(number: &[u8]) -> Option<i64> {
    const BILLION: f64 = 1e9;
    let text = std::str::from_utf8(number).ok()?;
    if let Ok(whole) = text.parse::<i64>() {
        let factor = match whole {
            100_000_000..100_000_000_000 => 1_000_000_000,
            100_000_000_000..100_000_000_000_000 => 1_000_000,
            100_000_000_000_000..100_000_000_000_000_000 => 1000,
            100_000_000_000_000_000.. => 1,
            _ => return None,
        };
        return whole.checked_mul(factor);
    }
    let seconds = text.parse::<f64>().ok().filter(|seconds| (1e8..1e11).contains(seconds))?;
    // More digits than microseconds a float does not hold.
    Some((seconds * 1e6).round() as i64 * (BILLION / 1e6) as i64)
}

/// Names of the document itself, and those that the server keeps for itself.
pub fn is_reserved(name: &str) -> bool {
    const NAMES: [&str; 13] = [
        "@timestamp",
        "message",
        "stream",
        "log",
        "host",
        "kubernetes",
        "data_stream",
        "nodewarden",
        "container",
        "process",
        "syslog",
        "docker",
        "time",
    ];
    name.starts_with('_') || name.split('.').next().is_some_and(|first| NAMES.contains(&first))
}

#[cfg(test)]
mod tests;
