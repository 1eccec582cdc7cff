//! The corpus: one file per language, `%%` between what belongs to different events.

use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::logs::{
    format::{parse_container_line, parse_plain_line},
    join::{Joiner, Piece},
    record::{Line, Span},
};

const CORPUS: &[(&str, &str)] = &[
    ("java", include_str!("corpus/java.txt")),
    ("python", include_str!("corpus/python.txt")),
    ("go", include_str!("corpus/go.txt")),
    ("dotnet", include_str!("corpus/dotnet.txt")),
    ("node", include_str!("corpus/node.txt")),
    ("ruby", include_str!("corpus/ruby.txt")),
    ("php", include_str!("corpus/php.txt")),
    ("rust", include_str!("corpus/rust.txt")),
    ("dart", include_str!("corpus/dart.txt")),
    ("ordinary", include_str!("corpus/ordinary.txt")),
];

/// The events of one language.
fn golden(name: &str) -> Vec<String> {
    let (_, text) = CORPUS.iter().find(|(known, _)| *known == name).expect("a language");
    text.strip_suffix('\n').unwrap_or(text).split("\n%%\n").map(str::to_owned).collect()
}

fn lines(events: &[String]) -> impl Iterator<Item = &str> {
    events.iter().flat_map(|event| event.split('\n'))
}

/// How lines stand in a file.
#[derive(Debug, Clone, Copy)]
enum Wrap {
    Cri,
    /// In parts of so many bytes.
    CriParts(usize),
    Docker,
    Plain,
}

fn wrapped(wrap: Wrap, stream: &str, line: &str) -> String {
    let time = "2026-11-21T10:00:00.123456789Z";
    match wrap {
        Wrap::Plain => format!("{line}\n"),
        Wrap::Cri => format!("{time} {stream} F {line}\n"),
        Wrap::CriParts(size) => {
            let mut text = String::new();
            let mut rest = line;
            while rest.len() > size {
                let (part, more) = rest.split_at(size);
                text += &format!("{time} {stream} P {part}\n");
                rest = more;
            }
            text + &format!("{time} {stream} F {rest}\n")
        }
        Wrap::Docker => {
            let line = serde_json::to_string(&format!("{line}\n")).expect("JSON");
            format!("{{\"log\":{line},\"stream\":\"{stream}\",\"time\":\"{time}\"}}\n")
        }
    }
}

/// Takes the lines of a file as the output does; each block ends at one of `ends`.
fn events_of(file: &str, is_plain: bool, ends: &[usize]) -> Vec<(String, Span)> {
    let (mut joiner, mut whole, mut events) = (Joiner::default(), Vec::new(), Vec::new());
    let bytes = file.as_bytes();
    let mut at = 0;
    let mut keep = |line: Option<Line<'_>>| {
        events.extend(line.map(|line| (String::from_utf8_lossy(line.text).into_owned(), line.span)));
    };
    while at < bytes.len() {
        let length = memchr::memchr(b'\n', &bytes[at..]).expect("a newline");
        let end = at + length + 1;
        let block = ends.iter().copied().filter(|block| *block >= end).min().unwrap_or(bytes.len());
        let raw = (&bytes[at..at + length], &bytes[end..block.max(end)]);
        let parsed = if is_plain { parse_plain_line(raw.0) } else { parse_container_line(raw.0) };
        let span = Span { start: at as u64, end: end as u64 };
        while let Some(stream) = joiner.is_over(&parsed, span) {
            keep(joiner.release(stream, &mut whole).line);
        }
        let piece = Piece { parsed: &parsed, raw, span, time: 0, now: Instant::now() };
        keep(joiner.push(&piece, 1 << 20, &mut whole).line);
        at = end;
    }
    while let Some(joined) = joiner.flush(&mut whole) {
        keep(joined.line);
    }
    events
}

fn texts(events: Vec<(String, Span)>) -> Vec<String> {
    events.into_iter().map(|(text, _)| text).collect()
}

#[test]
fn traces_of_every_language_are_events() {
    for (name, _) in CORPUS {
        let golden = golden(name);
        for wrap in [Wrap::Plain, Wrap::Cri, Wrap::CriParts(150), Wrap::Docker] {
            let file: String = lines(&golden).map(|line| wrapped(wrap, "stdout", line)).collect();
            let is_plain = matches!(wrap, Wrap::Plain);
            assert_eq!(texts(events_of(&file, is_plain, &[])), golden, "{name}, {wrap:?}");
            let each: Vec<usize> = file.match_indices('\n').map(|(at, _)| at + 1).collect();
            assert_eq!(texts(events_of(&file, is_plain, &each)), golden, "{name}, {wrap:?}, line by line");
        }
    }
}

#[test]
fn two_streams_do_not_mix() {
    for (out, err) in [("java", "go"), ("python", "node"), ("ordinary", "rust"), ("dotnet", "php")] {
        for wrap in [Wrap::Cri, Wrap::Docker] {
            let (one, two) = (golden(out), golden(err));
            let (mut stdout, mut stderr) = (lines(&one), lines(&two));
            let mut file = String::new();
            loop {
                let pair = (stdout.next(), stderr.next());
                pair.0.into_iter().for_each(|line| file += &wrapped(wrap, "stdout", line));
                pair.1.into_iter().for_each(|line| file += &wrapped(wrap, "stderr", line));
                if pair == (None, None) {
                    break;
                }
            }
            let mut expected: Vec<String> = one.iter().chain(&two).cloned().collect();
            let mut events = texts(events_of(&file, false, &[]));
            expected.sort();
            events.sort();
            assert_eq!(events, expected, "{out}, {err}, {wrap:?}");
        }
    }
}

/// What comes after a rotation is another file: each half is put together, and every line is there once.
#[test]
fn a_trace_cut_by_rotation_is_two_events() {
    let golden = golden("java");
    let trace = golden.iter().find(|event| event.contains("cart 7411 is closed")).expect("the trace");
    let all: Vec<&str> = trace.split('\n').collect();
    for cut in 1..all.len() {
        let (before, after) = all.split_at(cut);
        for half in [before, after] {
            let file: String = half.iter().map(|line| wrapped(Wrap::Cri, "stderr", line)).collect();
            assert_eq!(texts(events_of(&file, false, &[])), [half.join("\n")]);
        }
    }
}

#[test]
fn a_long_message_in_parts_belongs_to_its_frames() {
    let trace = format!("java.lang.Error: {}\n\tat shop.Cart.add(Cart.java:7)", "x".repeat(40_000));
    let file: String =
        trace.split('\n').map(|line| wrapped(Wrap::CriParts(16_384), "stdout", line)).collect();
    assert_eq!(texts(events_of(&file, false, &[])), [trace]);
}

/// A line goes out at once only where nothing may follow it: else an event would depend on how the file is read.
#[test]
fn what_goes_out_at_once_is_never_the_beginning_of_more() {
    let all: Vec<String> = CORPUS.iter().flat_map(|(name, _)| golden(name)).collect();
    let mut alone = 0;
    for line in lines(&all) {
        let parsed = parse_plain_line(line.as_bytes());
        let trace = Trace::begin(line.as_bytes());
        for next in lines(&all) {
            let rest = format!("{next}\n");
            let is_alone = ahead::is_alone(&parsed, line.as_bytes(), rest.as_bytes());
            alone += usize::from(is_alone);
            if trace.is_some_and(|trace| trace.follow(next.as_bytes()).is_some()) {
                assert!(!is_alone, "{line:?} before {next:?}");
                for end in 0..rest.len() {
                    let begun = ahead::is_alone(&parsed, line.as_bytes(), &rest.as_bytes()[..end]);
                    assert!(!begun, "{line:?} before {:?}", &rest[..end]);
                }
            }
        }
    }
    assert!(alone > 10_000, "{alone} pairs go out at once");
}

#[test]
fn words_and_patterns_are_understood() {
    assert_eq!(Multiline::named("auto"), Ok(Multiline::Auto));
    assert_eq!(Multiline::named("off"), Ok(Multiline::Off));
    assert!(Multiline::named("on").is_err_and(|error| error.contains("{start: REGEX}")));
    assert!(Multiline::starting(r"^\d+").is_ok());
    let error = Multiline::starting("(").expect_err("no pattern");
    assert!(error.ends_with("not '(': unclosed group"), "{error}");
    assert!(Multiline::starting("").is_err());
}

proptest! {
    /// However a file is read, and whatever it holds, its events are the same and hold every line once.
    #[test]
    fn events_do_not_depend_on_how_a_file_is_read(
        picks in proptest::collection::vec((0_usize..CORPUS.len(), any::<prop::sample::Index>(), any::<bool>()), 1..60),
        ends in proptest::collection::vec(any::<prop::sample::Index>(), 0..20),
        is_docker in any::<bool>(),
    ) {
        let wrap = if is_docker { Wrap::Docker } else { Wrap::Cri };
        let mut file = String::new();
        let mut written = Vec::new();
        for (language, pick, is_err) in picks {
            let golden = golden(CORPUS[language].0);
            let all: Vec<&str> = lines(&golden).collect();
            let line = *pick.get(&all);
            file += &wrapped(wrap, if is_err { "stderr" } else { "stdout" }, line);
            written.push(line.to_owned());
        }
        let whole = events_of(&file, false, &[]);
        let ends: Vec<usize> = ends.iter().map(|end| end.index(file.len())).collect();
        let mut pieces = events_of(&file, false, &ends);
        let mut sorted = whole.clone();
        pieces.sort_by_key(|(_, span)| span.start);
        sorted.sort_by_key(|(_, span)| span.start);
        prop_assert_eq!(pieces, sorted);
        let mut read: Vec<String> = whole.iter().flat_map(|(text, _)| text.split('\n').map(str::to_owned)).collect();
        read.sort();
        written.sort();
        prop_assert_eq!(read, written);
    }
}
