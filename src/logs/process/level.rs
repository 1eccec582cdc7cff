//! How important a line says it is, read from its beginning: JSON, klog, logfmt, brackets, words in capitals.

/// Only the beginning of a line is looked at: what comes after is the message.
const PREFIX: usize = 128;
/// The same of a JSON line, whose members have no order.
const JSON_PREFIX: usize = 512;

/// How important a line is; the words are those of the journal's documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// More than a debugger wants.
    Trace,
    /// For debugging.
    Debug,
    /// All is well.
    Info,
    /// All is well, but worth a look.
    Notice,
    /// Something may go wrong.
    Warning,
    /// Something went wrong.
    Error,
    /// The program can't go on: fatal, severe, panic.
    Critical,
    /// Somebody has to act.
    Alert,
    /// Nothing works.
    Emergency,
}

impl Level {
    /// Every level, the least important first.
    pub const ALL: [Self; 9] = [
        Self::Trace,
        Self::Debug,
        Self::Info,
        Self::Notice,
        Self::Warning,
        Self::Error,
        Self::Critical,
        Self::Alert,
        Self::Emergency,
    ];

    /// The word in documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
            Self::Alert => "alert",
            Self::Emergency => "emergency",
        }
    }

    /// The level that a word stands for, in any case.
    pub fn from_word(word: &[u8]) -> Option<Self> {
        let mut lower = [0; 13];
        let lower = lower.get_mut(..word.len())?;
        lower.copy_from_slice(word);
        lower.make_ascii_lowercase();
        Some(match &*lower {
            b"trace" | b"trce" | b"finest" | b"finer" | b"verbose" => Self::Trace,
            b"debug" | b"dbug" | b"dbg" | b"fine" => Self::Debug,
            b"info" | b"information" | b"informational" | b"inf" => Self::Info,
            b"notice" => Self::Notice,
            b"warning" | b"warn" | b"wrn" => Self::Warning,
            b"error" | b"err" | b"fail" | b"eror" => Self::Error,
            b"critical" | b"crit" | b"fatal" | b"ftl" | b"severe" | b"panic" | b"dpanic" => Self::Critical,
            b"alert" => Self::Alert,
            b"emergency" | b"emerg" => Self::Emergency,
            _ => return None,
        })
    }

    /// Of a number as pino and bunyan write it.
    fn from_number(digits: &[u8]) -> Option<Self> {
        Some(match digits {
            b"10" => Self::Trace,
            b"20" => Self::Debug,
            b"30" => Self::Info,
            b"40" => Self::Warning,
            b"50" => Self::Error,
            b"60" => Self::Critical,
            _ => return None,
        })
    }

    /// The severity of syslog.
    fn from_severity(digit: u8) -> Option<Self> {
        Some(match digit {
            b'0' => Self::Emergency,
            b'1' => Self::Alert,
            b'2' => Self::Critical,
            b'3' => Self::Error,
            b'4' => Self::Warning,
            b'5' => Self::Notice,
            b'6' => Self::Info,
            b'7' => Self::Debug,
            _ => return None,
        })
    }
}

/// The level of a line, if it says one.
pub fn recognise(text: &[u8]) -> Option<Level> {
    match *text {
        [b'{', ..] => in_members(text.get(..JSON_PREFIX).unwrap_or(text)),
        // "I0102 15:04:05.678901 1 main.go:1] text"
        [letter @ (b'I' | b'W' | b'E' | b'F'), a, b, c, d, b' ', ..]
            if [a, b, c, d].iter().all(u8::is_ascii_digit) =>
        {
            from_letter(letter)
        }
        // "E, [2026-11-21T10:10:10 #1] ERROR -- : text"
        [letter @ (b'D' | b'I' | b'W' | b'E' | b'F'), b',', b' ', b'[', ..] => from_letter(letter),
        // What systemd takes from a service.
        [b'<', digit, b'>', ..] => Level::from_severity(digit),
        _ => in_words(text.get(..PREFIX).unwrap_or(text)),
    }
}

/// The level that the members of a document say it is.
pub fn of_fields(fields: &[u8]) -> Option<Level> {
    // A quote within a value has a backslash before it: this can only be a member.
    let at = memchr::memmem::find(fields, b"\"level\":\"")?;
    let word = fields.get(at + 9..)?;
    Level::from_word(word.get(..memchr::memchr(b'"', word)?)?)
}

fn from_letter(letter: u8) -> Option<Level> {
    Some(match letter {
        b'D' => Level::Debug,
        b'I' => Level::Info,
        b'W' => Level::Warning,
        b'E' => Level::Error,
        b'F' => Level::Critical,
        _ => return None,
    })
}

/// `"level":"info"`, `"log.level": "info"`, `"severity":"ERROR"`, `"level":30`
fn in_members(text: &[u8]) -> Option<Level> {
    const NAMES: [&[u8]; 3] = [b"level", b"severity", b"lvl"];
    let mut from = 0;
    while let Some(colon) = memchr::memchr(b':', text.get(from..)?) {
        let (before, after) = (text.get(..from + colon)?, text.get(from + colon + 1..)?);
        from += colon + 1;
        let Some(name) = before.trim_ascii_end().strip_suffix(b"\"") else { continue };
        let is_level = NAMES.iter().any(|known| {
            let rest = name.get(name.len().saturating_sub(known.len())..).unwrap_or_default();
            rest.eq_ignore_ascii_case(known)
        });
        let is_level = is_level || name.ends_with(b"severity_text") || name.ends_with(b"severityText");
        if !is_level && !name.ends_with(b"levelname") {
            continue;
        }
        let value = after.trim_ascii_start();
        let found = match value.strip_prefix(b"\"") {
            Some(value) => {
                memchr::memchr(b'"', value).and_then(|end| value.get(..end)).and_then(Level::from_word)
            }
            None => {
                let end = value.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(value.len());
                Level::from_number(value.get(..end)?)
            }
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

/// A word is a level when it is in capitals and stands alone, in brackets, before a colon at the beginning, or after
/// `level=`. Other words belong to the message.
fn in_words(text: &[u8]) -> Option<Level> {
    let mut at = 0;
    // Where the text begins, colours apart.
    let mut beginning = 0;
    while let Some(&byte) = text.get(at) {
        if byte == 0x1b && text.get(at + 1) == Some(&b'[') {
            let end = text.get(at..)?.iter().skip(2).position(u8::is_ascii_alphabetic)?;
            beginning = if beginning == at { at + end + 3 } else { beginning };
            at += end + 3;
            continue;
        }
        if !byte.is_ascii_alphabetic() {
            at += 1;
            continue;
        }
        let rest = text.get(at..)?;
        let length = rest.iter().position(|byte| !byte.is_ascii_alphabetic()).unwrap_or(rest.len());
        let (word, after) = rest.split_at(length);
        if (3..=13).contains(&length)
            && stands_alone(text.get(..at)?, word, after, at == beginning)
            && let Some(level) = Level::from_word(word)
        {
            return Some(level);
        }
        at += length;
    }
    None
}

fn stands_alone(before: &[u8], word: &[u8], after: &[u8], is_first: bool) -> bool {
    let (before_it, after_it) = (before.last().copied(), after.first().copied());
    if after_it
        .is_some_and(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'/' | b'.' | b'='))
    {
        return false;
    }
    match before_it {
        Some(b'[' | b'|') => matches!(after_it, Some(b']' | b'|' | b' ' | b':' | b',' | 0x1b)),
        Some(b'=') => is_level_key(before.strip_suffix(b"=").unwrap_or(before)),
        Some(b'"') if before.ends_with(b"=\"") => is_level_key(before.strip_suffix(b"=\"").unwrap_or(before)),
        _ if is_first && without_colours(after).first() == Some(&b':') => true,
        Some(b'\t') if after_it == Some(b'\t') => true,
        // The end of a colour.
        Some(b'm') => word.iter().all(u8::is_ascii_uppercase),
        None | Some(b' ' | b'\t' | b':' | b'*' | b'-' | b']') => word.iter().all(u8::is_ascii_uppercase),
        _ => false,
    }
}

fn without_colours(mut text: &[u8]) -> &[u8] {
    while let Some(colour) = text.strip_prefix(b"\x1b[") {
        let end = colour.iter().position(u8::is_ascii_alphabetic).map_or(colour.len(), |end| end + 1);
        text = colour.get(end..).unwrap_or_default();
    }
    text
}

fn is_level_key(before: &[u8]) -> bool {
    [&b"level"[..], b"lvl", b"severity", b"levelname"].iter().any(|key| before.ends_with(key))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn level(text: &str) -> Option<&'static str> {
        recognise(text.as_bytes()).map(Level::as_str)
    }

    #[test]
    fn the_forms_of_common_programs_are_known() {
        for (text, expected) in [
            ("I0102 15:04:05.678901       1 main.go:12] started", "info"),
            ("E1121 10:10:10.000000       1 reflector.go:147] failed", "error"),
            ("time=\"2026-11-21T10:10:10Z\" level=warning msg=\"low disk\"", "warning"),
            ("ts=2026-11-21T10:10:10Z caller=main.go:1 level=error err=\"no\"", "error"),
            ("2026-11-21 10:10:10.123  WARN 1 --- [main] o.s.b.Application : text", "warning"),
            ("2026-11-21 10:10:10,123 [main] ERROR org.example.Cart - refused", "error"),
            ("2026-11-21 10:10:10,123 - cart - CRITICAL - refused", "critical"),
            ("2026/11/21 10:10:10 [error] 31#31: *1 open() failed", "error"),
            ("[2026-11-21 10:10:10.123][1][info][main] [source/server.cc:1] text", "info"),
            ("[INFO] plugin/reload: Running configuration", "info"),
            ("2026-11-21T10:10:10.123Z\tdebug\tcontroller\ttext", "debug"),
            ("2026-11-21T10:10:10.123456Z  INFO nodewarden::agent: ready", "info"),
            ("\u{1b}[2m2026-11-21T10:10:10Z\u{1b}[0m \u{1b}[33m WARN\u{1b}[0m text", "warning"),
            ("\u{1b}[32minfo\u{1b}[39m\u{1b}[22m\u{1b}[49m: Microsoft.Hosting.Lifetime[14]", "info"),
            ("fail: Microsoft.AspNetCore.Server[13]", "error"),
            ("ERROR: relation does not exist", "error"),
            ("2026-11-21 10:10:10.123 UTC [12] FATAL:  password authentication failed", "critical"),
            ("E, [2026-11-21T10:10:10.123456 #1] ERROR -- : text", "error"),
            ("<3>eth0: link down", "error"),
            ("{\"ts\":1.5,\"level\":\"warn\",\"msg\":\"text\"}", "warning"),
            ("{\"time\":\"x\", \"severity\": \"NOTICE\", \"message\":\"text\"}", "notice"),
            ("{\"@timestamp\":\"x\",\"log.level\":\"ERROR\",\"message\":\"text\"}", "error"),
            ("{\"level\":50,\"time\":1,\"msg\":\"text\"}", "error"),
        ] {
            assert_eq!(level(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn words_of_the_message_are_no_levels() {
        for text in [
            "10.244.1.7 - - [21/Nov/2026:10:10:10 +0000] \"GET /error HTTP/1.1\" 200 1",
            "no error was found",
            "the error handler was called with info",
            "GET /debug/pprof",
            "",
            "INFORMED users",
            "ERROR_CODE=7",
            "{\"message\":\"level: error\"}",
            "{\"levels\":\"error\"}",
            "Error handling is on",
        ] {
            assert_eq!(level(text), None, "{text}");
        }
    }

    #[test]
    fn members_of_a_document_say_its_level() {
        assert_eq!(of_fields(b",\"level\":\"error\"},\"host\":{\"name\":\"n\""), Some(Level::Error));
        assert_eq!(of_fields(br#","a":"\"level\":\"error\"""#), None);
    }

    #[test]
    fn every_level_is_its_own_word() {
        for level in Level::ALL {
            assert_eq!(Level::from_word(level.as_str().as_bytes()), Some(level));
        }
    }

    proptest! {
        #[test]
        fn no_line_panics(text in any::<Vec<u8>>(), odd in "[{\\[\\]:= \"\tmlevEROIN\u{1b}<3>]{0,60}") {
            recognise(&text);
            recognise(odd.as_bytes());
            of_fields(&text);
        }
    }
}
