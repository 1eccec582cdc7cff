//! A look at the line after a line, so that an ordinary one goes out at once and nothing else is asked of it.
//!
//! What is said here holds however a file is read: `true` only for lines that no event begins with, or that nothing follows.

use memchr::{memchr, memmem};

use super::{
    shapes::{begins, begins_with_digit},
    traces::Trace,
};
use crate::logs::{
    format::{Format, Parsed},
    record::Stream,
};

/// Lines of another stream that are passed over to find the next one of the same.
const PASSED_OVER: usize = 16;
/// How long a name may be that a line begins with.
const LONGEST_NAME: usize = 256;
/// In Docker's files what comes before the text.
const DOCKER_HEAD: &[u8] = b"{\"log\":\"";
/// The longest that comes after it: attributes may be any, then it is not known.
const DOCKER_TAIL: usize = 100;

/// Whether nothing that was read already may belong to the same event as this line: `line` as it stands in the file, taken
/// apart in `parsed`, and `rest` is what was read after it.
pub fn is_alone(parsed: &Parsed<'_>, line: &[u8], rest: &[u8]) -> bool {
    if Trace::takes_any(&parsed.text) {
        return false;
    }
    let next = match parsed.format {
        Format::Cri => line.len().checked_sub(parsed.text.len()).and_then(|head| next_cri(line, head, rest)),
        Format::Docker => next_docker(parsed.stream, rest),
        Format::Plain | Format::Syslog | Format::Unknown => Some(rest),
    };
    next.is_some_and(|next| !may_follow(next))
}

/// The text of the next line of the same stream, with what was read after it. Runtimes write heads of one length: where
/// the next one is another, it is not known.
fn next_cri<'a>(line: &[u8], head: usize, mut rest: &'a [u8]) -> Option<&'a [u8]> {
    // `2016-10-06T00:17:09.669794202Z stdout F `
    let (own_head, stream_at) = (line.get(..head)?, head.checked_sub(9)?);
    let own_stream = &own_head[stream_at..head - 3];
    for _ in 0..PASSED_OVER {
        let next = rest.get(..head)?;
        let is_head = next.get(..11) == own_head.get(..11)
            && matches!(next[head - 3..], [b' ', b'F' | b'P', b' '])
            && memchr(b'\n', next).is_none();
        if !is_head {
            return None;
        }
        if next[stream_at..head - 3] == *own_stream {
            return Some(&rest[head..]);
        }
        let end = memchr(b'\n', &rest[head..])?;
        rest = &rest[head + end + 1..];
    }
    None
}

/// The same in Docker's files, where the text is a JSON string.
fn next_docker(stream: Stream, mut rest: &[u8]) -> Option<&[u8]> {
    for _ in 0..PASSED_OVER {
        let text = rest.strip_prefix(DOCKER_HEAD)?;
        let end = memchr(b'\n', text)?;
        let tail = &text[end.saturating_sub(DOCKER_TAIL)..end];
        let at = memmem::rfind(tail, b",\"stream\":\"")?;
        if tail[at + 11..].starts_with(stream.as_str().as_bytes()) {
            return Some(text);
        }
        rest = &text[end + 1..];
    }
    None
}

/// Whether an event's first line may be followed by a line that begins so; `text` may hold more than that line, or only its
/// beginning. Of the first lines after which this is not asked [`Trace::takes_any`] knows.
fn may_follow(text: &[u8]) -> bool {
    let Some(indent) = text.iter().position(|byte| !matches!(byte, b' ' | b'\t')) else { return true };
    let text = &text[indent..];
    match text[0] {
        b'\r' | b'\n' | b'\\' | b'}' | b'+' | b'|' => true,
        b'#' => text.len() < 2 || begins_with_digit(&text[1..]),
        b'.' | b'-' | b'<' | b'[' => {
            const WORDS: &[&str] = &[
                "... ",
                "--- End of ",
                "---> ",
                "-e:",
                "<---",
                "<internal:",
                "[CIRC",
                "[signal ",
                "[stack",
                "[cause]",
            ];
            text.len() < 20 || begins(text, WORDS) || indent > 0 && text.starts_with(b"- ")
        }
        b'/' | b'_' | b'$' | b'a'..=b'z' | b'A'..=b'Z' => may_follow_by_name(text, indent > 0),
        _ => false,
    }
}

/// The same of a line that begins with a name: of a class, a function or a place, or with one of some words.
fn may_follow_by_name(text: &[u8], is_indented: bool) -> bool {
    let is_name = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b':' | b'=' | b'"' | b',' | b'\\');
    let end = text.iter().take(LONGEST_NAME).position(|byte| !is_name(byte));
    let Some(end) = end.filter(|end| end + 2 < text.len()) else { return true };
    let (name, rest) = text.split_at(end);
    match rest[0] {
        b' ' => match name {
            b"at" | b"from" => is_indented,
            b"Caused" | b"Wrapped" | b"Stack" | b"stack" | b"runtime" | b"goroutine" | b"Traceback"
            | b"PHP" | b"fatal" => true,
            _ => false,
        },
        b':' => {
            let is_place = begins_with_digit(&rest[1..]);
            is_place
                || matches!(name, b"note" | b"panic" | b"Location" | b"Suppressed")
                || name.contains(&b'.')
        }
        b'=' => name == b"PC",
        b'\r' | b'\n' | b'\\' => name.contains(&b'.'),
        _ => false,
    }
}
