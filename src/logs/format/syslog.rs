//! Lines of syslog files: RFC 3164 as rsyslog, syslogd and busybox write it, rsyslog's form with ISO times, and RFC 5424.

pub mod clock;
mod fields;

use clock::{LocalTime, Written};

use super::{Format, parse_rfc3339, split_at_space};

/// So many lines in a row that do not fit make a file one to decide on again: stack traces and dumps are shorter.
const MISFITS: u8 = 64;
/// So many lines in a row that fit make a file of other lines a syslog file.
const FITS: u8 = 4;
/// Longer words are no name of a program.
const LONGEST_TAG: usize = 128;
/// Longer words are no name of a host.
const LONGEST_HOST: usize = 255;

/// One line, taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Entry<'a> {
    /// When it was written.
    pub time: Written,
    /// Eight times the facility, plus the severity.
    pub priority: Option<u8>,
    /// Who says it wrote the line.
    pub host: Option<&'a [u8]>,
    /// The program.
    pub program: Option<&'a [u8]>,
    /// Its process; RFC 5424 allows any word.
    pub process: Option<&'a [u8]>,
    /// Only in RFC 5424: the kind of message.
    pub message_id: Option<&'a [u8]>,
    /// Only in RFC 5424: the structured data as they were written.
    pub data: Option<&'a [u8]>,
    /// Whether it is of RFC 5424.
    pub is_5424: bool,
    /// What is left.
    pub message: &'a [u8],
}

impl Entry<'_> {
    /// Whether it can hardly be anything else. A time and a word may begin any line.
    fn is_sure(&self) -> bool {
        self.priority.is_some() || self.program.is_some()
    }
}

/// What is held of a file that is not a container's: one line says little, so that opinions change slowly.
#[derive(Debug, Clone, Copy, Default)]
pub struct Guess {
    format: Format,
    /// Lines in a row that speak against it.
    against: u8,
}

impl Guess {
    /// How the file is written, as far as is known.
    pub fn format(self) -> Format {
        if self.format == Format::Unknown && self.against > 0 { Format::Plain } else { self.format }
    }

    /// The line taken apart if it is to be read as syslog, else it is text.
    pub fn read<'a>(&mut self, line: &'a [u8]) -> Option<Entry<'a>> {
        let entry = parse(line);
        let is_sure = entry.as_ref().is_some_and(Entry::is_sure);
        let (is_taken, next, patience) = match self.format {
            Format::Syslog => (entry.is_some(), Format::Unknown, MISFITS),
            Format::Plain => (!is_sure, Format::Syslog, FITS),
            _ if is_sure => {
                self.decide(Format::Syslog);
                return entry;
            }
            _ => (false, Format::Plain, MISFITS),
        };
        self.against = if is_taken { 0 } else { self.against + 1 };
        if self.against >= patience {
            self.decide(next);
        }
        entry.filter(|_| self.format == Format::Syslog)
    }

    fn decide(&mut self, format: Format) {
        *self = Self { format, against: 0 };
    }
}

/// Takes a line apart; its newline and carriage return are off.
fn parse(line: &[u8]) -> Option<Entry<'_>> {
    let (priority, rest) = match line.first()? {
        b'<' => parse_priority(line).map(|(priority, rest)| (Some(priority), rest))?,
        b'0'..=b'9' | b'A'..=b'Z' => (None, line),
        _ => return None,
    };
    match (priority, rest.strip_prefix(b"1 ")) {
        (Some(priority), Some(rest)) => parse_5424(priority, rest),
        _ => parse_3164(priority, rest),
    }
}

/// "<34>": no more than 23 facilities.
fn parse_priority(line: &[u8]) -> Option<(u8, &[u8])> {
    let digits = line.strip_prefix(b"<")?;
    let length = digits.iter().take(4).position(|byte| *byte == b'>')?;
    let (digits, rest) = digits.split_at_checked(length)?;
    if digits.is_empty() || digits.len() > 1 && digits.first() == Some(&b'0') {
        return None;
    }
    let value = super::digits(digits)?;
    Some((u8::try_from(value).ok().filter(|value| *value < 192)?, rest.get(1..)?))
}

/// "Nov 21 10:10:10 host tag[pid]: text", or the same with an ISO time.
fn parse_3164(priority: Option<u8>, line: &[u8]) -> Option<Entry<'_>> {
    let (time, rest) = parse_time(line)?;
    let mut entry = Entry { time, priority, ..Entry::default() };
    // Some leave the host out.
    let rest = if parse_tag(rest).is_some() {
        rest
    } else {
        let (host, rest) = split_at_space(rest)?;
        entry.host = Some(host).filter(|host| is_host(host));
        entry.host?;
        rest
    };
    let rest = match split_at_space(rest) {
        // Busybox writes the priority in words.
        Some((word, after)) if priority.is_none() => match parse_priority_words(word) {
            Some(priority) => {
                entry.priority = Some(priority);
                after
            }
            None => rest,
        },
        _ => rest,
    };
    (entry.program, entry.process, entry.message) = match parse_tag(rest) {
        Some((program, process, message)) => (Some(program), process, message),
        None => (None, None, rest),
    };
    Some(entry)
}

fn parse_time(line: &[u8]) -> Option<(Written, &[u8])> {
    if line.first()?.is_ascii_digit() {
        let (time, rest) = split_at_space(line)?;
        return Some((Written::At(parse_rfc3339(time)?), rest));
    }
    let (time, rest) = line.split_first_chunk::<16>()?;
    Some((Written::Local(LocalTime::parse(time)?), rest))
}

/// A program, its process and the text.
type Tag<'a> = (&'a [u8], Option<&'a [u8]>, &'a [u8]);

/// "sshd[812]: text" is a program, its process and the text.
fn parse_tag(text: &[u8]) -> Option<Tag<'_>> {
    let longest = text.get(..=LONGEST_TAG).unwrap_or(text);
    let (word, message) = match memchr::memchr(b' ', longest) {
        Some(end) => text.split_at_checked(end).and_then(|(word, rest)| Some((word, rest.get(1..)?)))?,
        None => (text, &b""[..]),
    };
    let tag = word.strip_suffix(b":")?;
    let is_fit = |byte: &u8| byte.is_ascii_graphic() && !b"\"'{}<>=,;".contains(byte);
    if tag.is_empty() || tag.len() > LONGEST_TAG || !tag.iter().all(is_fit) || is_level(tag) {
        return None;
    }
    let with_process = tag.strip_suffix(b"]").and_then(|tag| {
        let bracket = memchr::memrchr(b'[', tag)?;
        let (program, process) = (tag.get(..bracket)?, tag.get(bracket + 1..)?);
        let is_number = !process.is_empty() && process.iter().all(u8::is_ascii_digit);
        (is_number && !program.is_empty()).then_some((program, process))
    });
    Some(match with_process {
        Some((program, process)) => (program, Some(process), message),
        None => (tag, None, message),
    })
}

fn is_host(word: &[u8]) -> bool {
    let is_fit = |byte: &u8| byte.is_ascii_alphanumeric() || b"._:-/@%".contains(byte);
    (1..=LONGEST_HOST).contains(&word.len()) && word.iter().all(is_fit) && !is_level(word)
}

/// Programs that write a log of their own put such words where syslog has names.
fn is_level(word: &[u8]) -> bool {
    const WORDS: [&str; 13] = [
        "trace", "debug", "info", "notice", "warn", "warning", "err", "error", "crit", "critical", "alert",
        "fatal", "panic",
    ];
    WORDS.iter().any(|level| word.eq_ignore_ascii_case(level.as_bytes()))
}

/// "daemon.info"
fn parse_priority_words(word: &[u8]) -> Option<u8> {
    const FACILITIES: [&str; 12] = [
        "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
    ];
    const SEVERITIES: [&str; 8] = ["emerg", "alert", "crit", "err", "warn", "notice", "info", "debug"];
    let place = memchr::memchr(b'.', word)?;
    let (facility, severity) = (word.get(..place)?, word.get(place + 1..)?);
    let severity = SEVERITIES.iter().position(|known| known.as_bytes() == severity)?;
    let facility = match facility.strip_prefix(b"local") {
        Some([digit @ b'0'..=b'7']) => 16 + usize::from(digit - b'0'),
        _ => FACILITIES.iter().position(|known| known.as_bytes() == facility)?,
    };
    u8::try_from(8 * facility + severity).ok()
}

/// "2003-10-11T22:14:15.003Z host app 812 ID47 [a@1 b=\"c\"] text", what comes after the version.
fn parse_5424(priority: u8, line: &[u8]) -> Option<Entry<'_>> {
    let (time, rest) = split_at_space(line)?;
    let time = match time {
        b"-" => Written::Nowhere,
        time => Written::At(parse_rfc3339(time)?),
    };
    let (host, rest) = parse_word(rest)?;
    let (program, rest) = parse_word(rest)?;
    let (process, rest) = parse_word(rest)?;
    let (message_id, rest) = parse_word(rest)?;
    let (data, rest) = rest.split_at_checked(length_of_data(rest)?)?;
    let message = match rest.split_first() {
        None => rest,
        Some((b' ', message)) => message.strip_prefix(b"\xef\xbb\xbf").unwrap_or(message),
        Some(_) => return None,
    };
    let data = Some(data).filter(|data| *data != b"-");
    let priority = Some(priority);
    Some(Entry { time, priority, host, program, process, message_id, data, is_5424: true, message })
}

/// A word in the head, `None` where it is "-", and what follows.
fn parse_word(text: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let (word, rest) = split_at_space(text)?;
    let is_fit = !word.is_empty() && word.len() <= LONGEST_HOST && word.iter().all(u8::is_ascii_graphic);
    is_fit.then_some((Some(word).filter(|word| *word != b"-"), rest))
}

/// How long the structured data are at the beginning of `text`.
fn length_of_data(text: &[u8]) -> Option<usize> {
    if text.first() == Some(&b'-') {
        return Some(1);
    }
    let mut end = 0;
    while text.get(end) == Some(&b'[') {
        end += length_of_element(text.get(end..)?)?;
    }
    (end > 0 && std::str::from_utf8(text.get(..end)?).is_ok()).then_some(end)
}

/// `[id name="value" ...]`; a value has `"`, `]` and `\` behind a backslash.
fn length_of_element(text: &[u8]) -> Option<usize> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (place, byte) in text.iter().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            b']' if !is_quoted => return Some(place + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests;
