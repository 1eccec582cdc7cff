//! Lines of a container's file as containerd and CRI-O write them, taken apart and joined.
#![no_main]

use std::{borrow::Cow, time::Instant};

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use nodewarden::logs::{
    format::{Format, Parsed, parse_container_line, parse_rfc3339, rfc3339},
    join::{Joined, Joiner, Piece},
    multiline::Multiline,
    record::{Line, Span, Stream},
    shape::Schema,
};
use nodewarden_fuzz::{Documents, place_in};

/// Lines are cut at this length.
const MAX_LINE: usize = 64;

fuzz_target!(|data: &[u8]| {
    let lines: Vec<Parsed<'_>> = data.split(|byte| *byte == b'\n').map(check_line).collect();
    check_joined(&lines);
    check_events(&lines);
});

/// Nothing of a line is lost, and what is said of it is what stands there.
fn check_line(line: &[u8]) -> Parsed<'_> {
    let parsed = parse_container_line(line);
    match parsed.format {
        Format::Cri => check_cri(line, &parsed),
        Format::Docker => {}
        _ => {
            assert_eq!(&*parsed.text, line.strip_suffix(b"\r").unwrap_or(line));
            assert_eq!((parsed.time, parsed.stream, parsed.partial), (None, Stream::None, false));
        }
    }
    parsed
}

fn check_cri(line: &[u8], parsed: &Parsed<'_>) {
    let Cow::Borrowed(text) = parsed.text else { panic!("the text was copied") };
    let mut words = line.splitn(4, |byte| *byte == b' ');
    let mut word = || words.next().unwrap_or_default();
    let (time, stream, tags, rest) = (word(), word(), word(), word());
    assert_eq!(text, rest);
    assert!(text.is_empty() || place_in(text, line).end == line.len());
    assert_eq!(stream, parsed.stream.as_str().as_bytes());
    assert_eq!(tags[0], if parsed.partial { b'P' } else { b'F' });
    assert_eq!(Some(check_time(time)), parsed.time);
    // Written again it is the same line.
    let written =
        [&rfc3339(parsed.time.expect("a time")), &b" "[..], stream, b" ", tags, b" ", text].concat();
    assert_eq!(parse_container_line(&written), *parsed);
}

/// A time that somebody else can read is the same one. A leap second, and a 31st of a shorter month, we take for the next day.
fn check_time(text: &[u8]) -> i64 {
    let time = parse_rfc3339(text).expect("a time");
    let known = std::str::from_utf8(text).ok().and_then(|text| text.parse::<Timestamp>().ok());
    if let Some(known) = known.filter(|_| &text[17..19] != b"60") {
        assert_eq!(i128::from(time), known.as_nanosecond());
    }
    time
}

/// Joined lines have all of the text but what is cut, and all of the bytes.
fn check_joined(lines: &[Parsed<'_>]) {
    let (mut joiner, mut whole) = (Joiner::default(), Vec::new());
    joiner.set_rule(Multiline::Off);
    let now = Instant::now();
    let mut documents = [Schema::Ecs, Schema::Fluent].map(Documents::of_container);
    // Of either stream: text since the last whole line, and where it began.
    let mut texts: [Vec<u8>; 2] = Default::default();
    let mut begun = [None; 2];
    let (mut end, mut taken) = (0, 0);
    for (number, parsed) in lines.iter().enumerate() {
        let span = Span { start: end, end: end + 1 + number as u64 };
        end = span.end;
        let side = usize::from(parsed.stream == Stream::Stderr);
        texts[side].extend_from_slice(&parsed.text);
        let start = *begun[side].get_or_insert(span.start);
        let time = parsed.time.unwrap_or(number as i64);
        let piece = Piece { parsed, raw: (b"", b""), span, time, now };
        assert_eq!(joiner.is_over(parsed, span), None);
        let joined = joiner.push(&piece, MAX_LINE, &mut whole);
        assert_eq!(joined.line.is_none(), parsed.partial);
        let cut = joined.cut;
        if let Some(line) = joined.line {
            let text = std::mem::take(&mut texts[side]);
            check_whole(&line, &text, cut);
            assert_eq!((line.span.start, line.span.end), (start, end));
            taken += line.bytes;
            begun[side] = None;
            documents.iter_mut().for_each(|documents| drop(documents.check(&line, b"")));
        }
        assert_eq!(joiner.pending_from(), begun.into_iter().flatten().min());
        assert!(joiner.held_bytes() <= 4 * MAX_LINE);
    }
    while let Some(joined) = joiner.flush(&mut whole) {
        let line = joined.line.expect("a line");
        let side = usize::from(line.stream == Stream::Stderr);
        check_whole(&line, &std::mem::take(&mut texts[side]), joined.cut);
        taken += line.bytes;
    }
    assert_eq!(taken, end);
}

/// Events of several lines have each line once, those of a stream in their order.
fn check_events(lines: &[Parsed<'_>]) {
    let (mut joiner, mut whole) = (Joiner::default(), Vec::new());
    let now = Instant::now();
    let (mut end, mut taken, mut events) = (0, 0, [Vec::new(), Vec::new()]);
    let mut keep = |joined: Joined<'_>| {
        let Some(line) = joined.line else { return };
        assert_eq!(joined.cut, 0);
        taken += line.bytes;
        events[usize::from(line.stream == Stream::Stderr)].push(line.text.to_vec());
    };
    let mut texts = [Vec::new(), Vec::new()];
    let mut is_open = [false; 2];
    for parsed in lines {
        let span = Span { start: end, end: end + 10 };
        end = span.end;
        while let Some(stream) = joiner.is_over(parsed, span) {
            keep(joiner.release(stream, &mut whole));
        }
        let piece = Piece { parsed, raw: (b"", b""), span, time: 0, now };
        keep(joiner.push(&piece, usize::MAX, &mut whole));
        let side = usize::from(parsed.stream == Stream::Stderr);
        match texts[side].last_mut().filter(|_| is_open[side]) {
            Some(text) => Vec::extend_from_slice(text, &parsed.text),
            None => texts[side].push(parsed.text.to_vec()),
        }
        is_open[side] = parsed.partial;
    }
    while let Some(joined) = joiner.flush(&mut whole) {
        keep(joined);
    }
    assert_eq!(taken, end);
    assert_eq!(events.map(|texts| texts.join(&b'\n')), texts.map(|texts| texts.join(&b'\n')));
}

fn check_whole(line: &Line<'_>, text: &[u8], cut: u64) {
    assert!(line.text.len() <= MAX_LINE && text.starts_with(line.text));
    assert_eq!(line.text.len() as u64 + cut, text.len() as u64);
}
