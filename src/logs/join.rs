//! Parts of a long line put together again, per stream of a file.

use super::{
    format::Parsed,
    record::{Line, Span, Stream},
};

/// Joins the parts of one file's lines. Lines in one piece pass through without a copy.
#[derive(Debug, Default)]
pub struct Joiner {
    streams: [Option<Pending>; 2],
}

/// The beginning of a line whose end was not read yet.
#[derive(Debug)]
struct Pending {
    time: i64,
    start: u64,
    bytes: u64,
    cut: u64,
    /// Nothing more of it is kept.
    is_full: bool,
    text: Vec<u8>,
}

/// What became of a physical line.
#[derive(Debug)]
pub struct Joined<'a> {
    /// The whole line; `None` while its end is missing.
    pub line: Option<Line<'a>>,
    /// Bytes of text left out because the line is longer than allowed.
    pub cut: u64,
}

impl Joiner {
    /// Takes in one physical line at `span`, written at `time`. `max_line` bounds the joined text. A line in parts is put
    /// together in `whole`: files are many, and each would keep room for its longest line.
    pub fn push<'a>(
        &mut self,
        parsed: &'a Parsed<'_>,
        span: Span,
        time: i64,
        max_line: usize,
        whole: &'a mut Vec<u8>,
    ) -> Joined<'a> {
        let bytes = span.end - span.start;
        let slot = &mut self.streams[usize::from(parsed.stream == Stream::Stderr)];
        if slot.is_none() && !parsed.partial {
            let (text, cut) = limit(&parsed.text, max_line);
            let line = Line { time, stream: parsed.stream, text, span, bytes };
            return Joined { line: Some(line), cut };
        }
        let pending = slot.get_or_insert_with(|| Pending {
            time,
            start: span.start,
            bytes: 0,
            cut: 0,
            is_full: false,
            text: Vec::new(),
        });
        let room = if pending.is_full { 0 } else { max_line.saturating_sub(pending.text.len()) };
        let (text, cut) = limit(&parsed.text, room);
        pending.text.extend_from_slice(text);
        pending.bytes += bytes;
        pending.cut += cut;
        if parsed.partial {
            return Joined { line: None, cut: 0 };
        }
        self.finish(parsed.stream, span.end, whole)
    }

    /// Gives up waiting for the end of a line: `end` is where the file ends for good.
    pub fn flush<'a>(&mut self, end: u64, whole: &'a mut Vec<u8>) -> Option<Joined<'a>> {
        let stream = if self.streams[0].is_some() { Stream::Stdout } else { Stream::Stderr };
        self.streams[usize::from(stream == Stream::Stderr)].as_ref()?;
        Some(self.finish(stream, end, whole))
    }

    /// The offset of the first byte that belongs to a line not yet whole.
    pub fn pending_from(&self) -> Option<u64> {
        self.streams.iter().flatten().map(|pending| pending.start).min()
    }

    /// The bytes held back until their line is whole.
    pub fn held_bytes(&self) -> usize {
        self.streams.iter().flatten().map(|pending| pending.text.len()).sum()
    }

    /// Keeps only the beginnings of what is held, of at most `kept` bytes each; the rest, and what is still to come, is cut.
    pub fn shed(&mut self, kept: usize) {
        for pending in self.streams.iter_mut().flatten() {
            pending.cut += pending.text.len().saturating_sub(kept) as u64;
            pending.text.truncate(kept);
            pending.text.shrink_to_fit();
            pending.is_full = true;
        }
    }

    /// The line is whole; its text moves to where the caller can look at it until the next call.
    fn finish<'a>(&mut self, stream: Stream, end: u64, whole: &'a mut Vec<u8>) -> Joined<'a> {
        let at = usize::from(stream == Stream::Stderr);
        let Some(pending) = self.streams[at].take() else {
            return Joined { line: None, cut: 0 };
        };
        *whole = pending.text;
        Joined {
            line: Some(Line {
                time: pending.time,
                stream,
                text: whole,
                span: Span { start: pending.start, end },
                bytes: pending.bytes,
            }),
            cut: pending.cut,
        }
    }
}

/// At most `max` bytes of `text`, and how many were left out.
pub fn limit(text: &[u8], max: usize) -> (&[u8], u64) {
    match text.get(..max) {
        Some(kept) => (kept, (text.len() - max) as u64),
        None => (text, 0),
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::logs::format::Format;

    fn part(stream: Stream, partial: bool, text: &str) -> Parsed<'_> {
        Parsed { format: Format::Cri, time: Some(7), stream, partial, text: Cow::Borrowed(text.as_bytes()) }
    }

    fn span(start: u64, end: u64) -> Span {
        Span { start, end }
    }

    #[test]
    fn a_line_in_one_piece_passes_through() {
        let (mut joiner, mut whole) = (Joiner::default(), Vec::new());
        let parsed = part(Stream::Stdout, false, "whole");
        let line = joiner.push(&parsed, span(5, 10), 7, 100, &mut whole).line.expect("a whole line");
        assert_eq!((line.text, line.span, line.bytes), (&b"whole"[..], span(5, 10), 5));
        assert_eq!(joiner.pending_from(), None);
    }

    #[test]
    fn parts_of_two_streams_do_not_mix() {
        let (mut joiner, mut whole) = (Joiner::default(), Vec::new());
        assert!(
            joiner
                .push(&part(Stream::Stdout, true, "out-1 "), span(0, 10), 7, 100, &mut whole)
                .line
                .is_none()
        );
        assert!(
            joiner
                .push(&part(Stream::Stderr, true, "err-1 "), span(10, 20), 7, 100, &mut whole)
                .line
                .is_none()
        );
        assert_eq!(joiner.pending_from(), Some(0));
        let parsed = part(Stream::Stderr, false, "err-2");
        let line = joiner.push(&parsed, span(20, 30), 7, 100, &mut whole).line.expect("stderr is whole");
        assert_eq!((line.text, line.span, line.bytes), (&b"err-1 err-2"[..], span(10, 30), 20));
        let parsed = part(Stream::Stdout, false, "out-2");
        let line = joiner.push(&parsed, span(30, 40), 7, 100, &mut whole).line.expect("stdout is whole");
        assert_eq!((line.text, line.span, line.bytes), (&b"out-1 out-2"[..], span(0, 40), 20));
        assert_eq!(joiner.pending_from(), None);
    }

    #[test]
    fn text_beyond_the_limit_is_cut_and_counted() {
        let (mut joiner, mut whole) = (Joiner::default(), Vec::new());
        joiner.push(&part(Stream::Stdout, true, "abcd"), span(0, 4), 7, 6, &mut whole);
        joiner.push(&part(Stream::Stdout, true, "efgh"), span(4, 8), 7, 6, &mut whole);
        let parsed = part(Stream::Stdout, false, "ij");
        let joined = joiner.push(&parsed, span(8, 10), 7, 6, &mut whole);
        assert_eq!(joined.line.map(|line| line.text.to_vec()), Some(b"abcdef".to_vec()));
        assert_eq!(joined.cut, 4);
    }

    #[test]
    fn a_line_that_never_ends_is_given_out_when_the_file_is_done() {
        let (mut joiner, mut whole) = (Joiner::default(), Vec::new());
        joiner.push(&part(Stream::Stderr, true, "last words"), span(3, 9), 7, 100, &mut whole);
        let line = joiner.flush(9, &mut whole).and_then(|joined| joined.line).expect("the pending text");
        assert_eq!((line.text, line.span), (&b"last words"[..], span(3, 9)));
        assert!(joiner.flush(9, &mut whole).is_none());
    }
}
