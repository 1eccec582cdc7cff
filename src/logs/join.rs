//! Lines put together: the parts of a long one, and those that belong to one event, per stream of a file.

use std::time::{Duration, Instant};

use super::{
    format::Parsed,
    multiline::{MOST_BYTES, MOST_LINES, Multiline, Trace, ahead::is_alone},
    record::{Line, Span, Stream},
};
use crate::metrics::ledger::Amount;

/// How long an event waits for a line that may still belong to it.
pub const QUIET: Duration = Duration::from_secs(1);
/// An event is over where so many bytes of the other stream follow it.
const REACH: u64 = 1 << 20;

/// Joins the lines of one file. Those that nothing belongs to pass through without a copy.
#[derive(Debug, Default)]
pub struct Joiner {
    rule: Multiline,
    /// From these offsets on it is another one.
    next_rules: Vec<(u64, Multiline)>,
    streams: [Option<Pending>; 2],
    /// Where events ended because nothing more came for a while: they end there when they are read again.
    cuts: Vec<u64>,
}

/// What was read of an event whose end is not known yet.
#[derive(Debug)]
struct Pending {
    time: i64,
    stream: Stream,
    start: u64,
    end: u64,
    bytes: u64,
    cut: u64,
    lines: u32,
    text: Vec<u8>,
    /// Where the last line begins in the text.
    line_at: usize,
    /// What may follow; `None` while the first line is not whole.
    trace: Option<Trace>,
    /// Whether the last line is not whole.
    is_open: bool,
    /// Nothing more of its text is kept.
    is_full: bool,
    grew: Instant,
}

/// A physical line on its way in.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// What it says.
    pub parsed: &'a Parsed<'a>,
    /// As it stands in the file, and what was read after it.
    pub raw: (&'a [u8], &'a [u8]),
    /// Where it lies.
    pub span: Span,
    /// When it was written, in nanoseconds since the epoch.
    pub time: i64,
    /// When it is read.
    pub now: Instant,
}

/// What became of a physical line.
#[derive(Debug)]
pub struct Joined<'a> {
    /// The whole event; `None` while its end is missing.
    pub line: Option<Line<'a>>,
    /// Bytes of text left out because a line is longer than allowed.
    pub cut: u64,
}

impl Joiner {
    /// Lines are put together by this rule.
    pub fn set_rule(&mut self, rule: Multiline) {
        self.rule = rule;
    }

    /// Lines from this offset on, which was not read yet, are put together by another rule. What is before it is read again as
    /// it was.
    pub fn change_rule(&mut self, from: u64, rule: Multiline) {
        let last = self.next_rules.last().map_or(&self.rule, |(_, rule)| rule);
        if *last != rule {
            self.next_rules.push((from, rule));
        }
    }

    fn rule_at(&self, offset: u64) -> &Multiline {
        let next = self.next_rules.iter().rfind(|(from, _)| *from <= offset);
        next.map_or(&self.rule, |(_, rule)| rule)
    }

    /// Whether the rule changes between two lines.
    fn changes_between(&self, from: u64, to: u64) -> bool {
        self.next_rules.iter().any(|(at, _)| from < *at && *at <= to)
    }

    /// Forgets what is held: it is read again.
    pub fn reset(&mut self) {
        self.streams = [None, None];
    }

    /// Whether a physical line begins a line, or goes on with one.
    pub fn begins_line(&self, stream: Stream) -> bool {
        self.streams[index(stream)].as_ref().is_none_or(|pending| !pending.is_open)
    }

    /// The stream whose event has to go out before this line is taken: the line does not belong to it.
    pub fn is_over(&self, parsed: &Parsed<'_>, span: Span) -> Option<Stream> {
        let other = if parsed.stream == Stream::Stderr { Stream::Stdout } else { Stream::Stderr };
        match &self.streams {
            [None, None] => None,
            streams => {
                let own = streams[index(parsed.stream)].as_ref().filter(|pending| !pending.is_open);
                let ends = |pending: &Pending| {
                    self.changes_between(pending.start, span.start)
                        || self.follow(pending, &parsed.text).is_none()
                };
                if own.is_some_and(ends) {
                    return Some(parsed.stream);
                }
                let behind = streams[index(other)].as_ref().filter(|pending| !pending.is_open);
                behind.is_some_and(|pending| span.start > pending.end + REACH).then_some(other)
            }
        }
    }

    /// Takes in one physical line, after what [`Self::is_over`] asks for. `max_line` bounds the text of each line. What is put
    /// together is seen in `whole`: files are many, and each would keep room for its longest event.
    pub fn push<'a>(&mut self, piece: &Piece<'a>, max_line: usize, whole: &'a mut Vec<u8>) -> Joined<'a> {
        let &Piece { parsed, span, time, now, .. } = piece;
        let bytes = span.end - span.start;
        if self.streams[index(parsed.stream)].is_none() && !parsed.partial && self.is_all(piece) {
            let (text, cut) = limit(&parsed.text, max_line);
            let line = Line { time, stream: parsed.stream, text, span, bytes, lines: 1 };
            return Joined { line: Some(line), cut };
        }
        let follow = self.streams[index(parsed.stream)]
            .as_ref()
            .filter(|pending| !pending.is_open)
            .map(|pending| self.follow(pending, &parsed.text).unwrap_or(Trace::Done));
        let pending = self.streams[index(parsed.stream)].get_or_insert_with(|| Pending {
            time,
            stream: parsed.stream,
            start: span.start,
            end: span.end,
            bytes: 0,
            cut: 0,
            lines: 1,
            text: Vec::new(),
            line_at: 0,
            trace: None,
            is_open: true,
            is_full: false,
            grew: now,
        });
        if follow.is_some() {
            pending.trace = follow;
            pending.lines += 1;
            if !pending.is_full {
                pending.text.push(b'\n');
            }
            pending.line_at = pending.text.len();
        }
        let room = max_line.saturating_sub(pending.text.len() - pending.line_at);
        let (text, cut) = limit(&parsed.text, if pending.is_full { 0 } else { room });
        pending.text.extend_from_slice(text);
        pending.bytes += bytes;
        pending.cut += cut;
        pending.end = span.end;
        (pending.is_open, pending.grew) = (parsed.partial, now);
        if !pending.is_open && pending.trace.is_none() {
            let next = self.next_rules.iter().rfind(|(from, _)| *from <= pending.start);
            let rule = next.map_or(&self.rule, |(_, rule)| rule);
            pending.trace = Some(rule.begin(&pending.text).unwrap_or(Trace::Done));
        }
        let is_full = pending.lines >= MOST_LINES || pending.trace == Some(Trace::Done);
        if self.cuts.contains(&span.end) || is_full && !pending.is_open {
            return self.finish(parsed.stream, whole);
        }
        Joined { line: None, cut: 0 }
    }

    /// Whether a line in one piece is all of its event, by what is known of the next one.
    fn is_all(&self, piece: &Piece<'_>) -> bool {
        let may_go_on = match self.rule_at(piece.span.start) {
            Multiline::Off => false,
            Multiline::Auto => {
                !is_alone(piece.parsed, piece.raw.0, piece.raw.1)
                    && Trace::begin(&piece.parsed.text).is_some()
            }
            Multiline::Start(_) | Multiline::More(_) => true,
        };
        !may_go_on || self.cuts.contains(&piece.span.end)
    }

    /// What may come after `text`, if it belongs to this event.
    fn follow(&self, pending: &Pending, text: &[u8]) -> Option<Trace> {
        if self.cuts.contains(&pending.end) || pending.text.len() + text.len() > MOST_BYTES {
            return None;
        }
        self.rule_at(pending.start).follow(pending.trace?, text)
    }

    /// Gives out what is held of a stream.
    pub fn release<'a>(&mut self, stream: Stream, whole: &'a mut Vec<u8>) -> Joined<'a> {
        self.finish(stream, whole)
    }

    /// Gives up waiting for the end of a line or an event, one after the other.
    pub fn flush<'a>(&mut self, whole: &'a mut Vec<u8>) -> Option<Joined<'a>> {
        let stream = if self.streams[0].is_some() { Stream::Stdout } else { Stream::Stderr };
        self.streams[index(stream)].as_ref()?;
        Some(self.finish(stream, whole))
    }

    /// Whether an event of whole lines is held.
    pub fn has_whole(&self) -> bool {
        self.streams.iter().flatten().any(|pending| !pending.is_open)
    }

    /// Whether an event waits for a line that did not come for a while.
    pub fn is_quiet(&self, now: Instant) -> bool {
        self.streams.iter().flatten().any(|pending| pending.is_quiet(now))
    }

    /// Ends events where they are, those that are quiet or all of them; parts of a line only when `parts` says so. Whether
    /// there is a new end: it has to be written down before [`Self::flush_cut`], for a line that came later would belong to
    /// the event when it is read again, and the event has its id already.
    pub fn cut(&mut self, which: Cut, now: Instant) -> bool {
        let known = self.cuts.len();
        for pending in self.streams.iter().flatten() {
            let is_meant = match which {
                Cut::Quiet => pending.is_quiet(now),
                Cut::Whole => !pending.is_open,
                Cut::All => true,
            };
            if is_meant && !self.cuts.contains(&pending.end) {
                self.cuts.push(pending.end);
            }
        }
        self.cuts.len() > known
    }

    /// Gives out what [`Self::cut`] ended, one after the other.
    pub fn flush_cut<'a>(&mut self, whole: &'a mut Vec<u8>) -> Option<Joined<'a>> {
        let stream = [Stream::Stdout, Stream::Stderr][self.first_cut()?];
        Some(self.finish(stream, whole))
    }

    /// Whether [`Self::flush_cut`] has something to give out.
    pub fn has_cut(&self) -> bool {
        self.first_cut().is_some()
    }

    fn first_cut(&self) -> Option<usize> {
        let is_cut = |pending: &Pending| self.cuts.contains(&pending.end);
        self.streams.iter().position(|pending| pending.as_ref().is_some_and(is_cut))
    }

    /// The ends that have to be remembered.
    pub fn cuts(&self) -> &[u64] {
        &self.cuts
    }

    /// Ends that were written down by somebody before.
    pub fn know_cuts(&mut self, cuts: Vec<u64>) {
        self.cuts = cuts;
    }

    /// Nothing below is read again.
    pub fn passed(&mut self, position: u64) {
        self.cuts.retain(|cut| *cut > position);
        while self.next_rules.first().is_some_and(|(from, _)| *from <= position) {
            self.rule = self.next_rules.remove(0).1;
        }
    }

    /// Where the events begin that are not whole yet.
    pub fn pending(&self) -> [Option<u64>; 2] {
        self.streams.each_ref().map(|pending| pending.as_ref().map(|pending| pending.start))
    }

    /// What is held of a file, in numbers.
    pub fn amount(&self) -> Amount {
        self.streams.iter().flatten().fold(Amount::default(), |mut sum, pending| {
            sum.add(Amount { lines: pending.lines.into(), bytes: pending.bytes });
            sum
        })
    }

    /// Keeps only the beginnings of what is held, of at most `kept` bytes each; the rest, and what is still to come, is cut.
    pub fn shed(&mut self, kept: usize) {
        for pending in self.streams.iter_mut().flatten() {
            pending.cut += pending.text.len().saturating_sub(kept) as u64;
            pending.text.truncate(kept);
            pending.text.shrink_to_fit();
            pending.line_at = pending.line_at.min(pending.text.len());
            pending.is_full = true;
        }
    }

    /// The offset of the first byte that belongs to an event not yet whole.
    pub fn pending_from(&self) -> Option<u64> {
        self.streams.iter().flatten().map(|pending| pending.start).min()
    }

    /// Whether anything is held.
    pub fn is_empty(&self) -> bool {
        self.streams.iter().all(Option::is_none)
    }

    /// The text that is held of a stream, in bytes.
    pub fn held_by(&self, stream: Stream) -> usize {
        self.streams[index(stream)].as_ref().map_or(0, |pending| pending.text.len())
    }

    /// Bytes of memory held until events are whole.
    pub fn held_bytes(&self) -> usize {
        self.streams.iter().flatten().map(|pending| pending.text.capacity()).sum()
    }

    /// The event is whole; its text moves to where the caller can look at it until the next call.
    fn finish<'a>(&mut self, stream: Stream, whole: &'a mut Vec<u8>) -> Joined<'a> {
        let Some(pending) = self.streams[index(stream)].take() else {
            return Joined { line: None, cut: 0 };
        };
        *whole = pending.text;
        Joined {
            line: Some(Line {
                time: pending.time,
                stream: pending.stream,
                text: whole,
                span: Span { start: pending.start, end: pending.end },
                bytes: pending.bytes,
                lines: pending.lines,
            }),
            cut: pending.cut,
        }
    }
}

impl Pending {
    fn is_quiet(&self, now: Instant) -> bool {
        !self.is_open && now.saturating_duration_since(self.grew) >= QUIET
    }
}

/// Which events [`Joiner::cut`] ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Those to which nothing was added for a while.
    Quiet,
    /// Those of whole lines.
    Whole,
    /// Those too whose last line is not whole.
    All,
}

fn index(stream: Stream) -> usize {
    usize::from(stream == Stream::Stderr)
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

    /// What came of a line: text, span, bytes, lines.
    type Seen = Option<(String, Span, u64, u32)>;

    fn push(joiner: &mut Joiner, parsed: &Parsed<'_>, span: Span, max_line: usize) -> (Seen, u64) {
        let mut whole = Vec::new();
        let now = Instant::now();
        let piece = Piece { parsed, raw: (&[], &[]), span, time: 7, now };
        let joined = joiner.push(&piece, max_line, &mut whole);
        (joined.line.map(seen), joined.cut)
    }

    fn seen(line: Line<'_>) -> (String, Span, u64, u32) {
        (String::from_utf8_lossy(line.text).into_owned(), line.span, line.bytes, line.lines)
    }

    fn flushed(joined: Option<Joined<'_>>) -> Seen {
        joined.and_then(|joined| joined.line).map(seen)
    }

    #[test]
    fn a_line_in_one_piece_passes_through() {
        let mut joiner = Joiner::default();
        let line = push(&mut joiner, &part(Stream::Stdout, false, "whole"), span(5, 10), 100).0;
        assert_eq!(line, Some(("whole".into(), span(5, 10), 5, 1)));
        assert!(joiner.is_empty());
    }

    #[test]
    fn parts_of_two_streams_do_not_mix() {
        let mut joiner = Joiner::default();
        let mut push = |stream, partial, text, at| push(&mut joiner, &part(stream, partial, text), at, 100).0;
        assert_eq!(push(Stream::Stdout, true, "out-1 ", span(0, 10)), None);
        assert_eq!(push(Stream::Stderr, true, "err-1 ", span(10, 20)), None);
        let line = push(Stream::Stderr, false, "err-2", span(20, 30));
        assert_eq!(line, Some(("err-1 err-2".into(), span(10, 30), 20, 1)));
        let line = push(Stream::Stdout, false, "out-2", span(30, 40));
        assert_eq!(line, Some(("out-1 out-2".into(), span(0, 40), 20, 1)));
        assert_eq!(joiner.pending_from(), None);
    }

    #[test]
    fn text_beyond_the_limit_is_cut_and_counted() {
        let mut joiner = Joiner::default();
        push(&mut joiner, &part(Stream::Stdout, true, "abcd"), span(0, 4), 6);
        push(&mut joiner, &part(Stream::Stdout, true, "efgh"), span(4, 8), 6);
        let joined = push(&mut joiner, &part(Stream::Stdout, false, "ij"), span(8, 10), 6);
        assert_eq!((joined.0.map(|line| line.0), joined.1), (Some("abcdef".into()), 4));
    }

    #[test]
    fn a_line_that_never_ends_is_given_out_when_the_file_is_done() {
        let (mut joiner, mut whole) = (Joiner::default(), Vec::new());
        push(&mut joiner, &part(Stream::Stderr, true, "last words"), span(3, 9), 100);
        assert_eq!(flushed(joiner.flush(&mut whole)), Some(("last words".into(), span(3, 9), 6, 1)));
        assert!(joiner.flush(&mut whole).is_none());
    }

    #[test]
    fn an_event_is_held_until_a_line_that_does_not_belong_to_it() {
        let (mut joiner, mut whole) = (Joiner::default(), Vec::new());
        let head = part(Stream::Stderr, false, "java.io.IOException: closed");
        assert_eq!(push(&mut joiner, &head, span(0, 10), 100).0, None);
        let frame = part(Stream::Stderr, false, "\tat shop.Cart.add(Cart.java:7)");
        assert_eq!((joiner.is_over(&frame, span(20, 30)), joiner.pending_from()), (None, Some(0)));
        assert_eq!(push(&mut joiner, &frame, span(20, 30), 100).0, None);
        let other = part(Stream::Stdout, false, "at ease");
        assert_eq!(joiner.is_over(&other, span(30, 40)), None);
        assert!(push(&mut joiner, &other, span(30, 40), 100).0.is_some());
        let next = part(Stream::Stderr, false, "going on");
        assert_eq!(joiner.is_over(&next, span(40, 50)), Some(Stream::Stderr));
        let text = "java.io.IOException: closed\n\tat shop.Cart.add(Cart.java:7)";
        let event = flushed(Some(joiner.release(Stream::Stderr, &mut whole)));
        assert_eq!(event, Some((text.into(), span(0, 30), 20, 2)));
    }

    #[test]
    fn an_event_ends_where_it_was_cut_also_the_next_time() {
        let (mut joiner, mut whole) = (Joiner::default(), Vec::new());
        let head = part(Stream::Stderr, false, "ERROR closed");
        let frame = part(Stream::Stderr, false, "\tat shop.Cart.add(Cart.java:7)");
        assert_eq!(push(&mut joiner, &head, span(0, 10), 100).0, None);
        let now = Instant::now();
        assert!(!joiner.cut(Cut::Quiet, now), "it is not quiet yet");
        assert!(joiner.flush_cut(&mut whole).is_none());
        assert!(joiner.cut(Cut::Quiet, now + QUIET) && !joiner.cut(Cut::Quiet, now + QUIET));
        assert_eq!(joiner.is_over(&frame, span(10, 20)), Some(Stream::Stderr));
        let event = Some(("ERROR closed".into(), span(0, 10), 10, 1));
        assert_eq!(flushed(joiner.flush_cut(&mut whole)), event);
        let mut again = Joiner::default();
        again.know_cuts(joiner.cuts().to_vec());
        assert_eq!(push(&mut again, &head, span(0, 10), 100).0, event);
        again.passed(10);
        assert!(again.cuts().is_empty());
    }

    #[test]
    fn parts_of_a_line_wait_for_their_end_but_for_want_of_memory() {
        let (mut joiner, mut whole) = (Joiner::default(), Vec::new());
        push(&mut joiner, &part(Stream::Stdout, true, "half "), span(0, 9), 100);
        let later = Instant::now() + QUIET;
        assert!(!joiner.cut(Cut::Quiet, later) && !joiner.cut(Cut::Whole, later));
        assert!(joiner.cut(Cut::All, later));
        assert_eq!(flushed(joiner.flush_cut(&mut whole)), Some(("half ".into(), span(0, 9), 9, 1)));
    }

    #[test]
    fn an_event_has_bounds() {
        let mut joiner = Joiner::default();
        let mut events = 0;
        for line in 0..u64::from(MOST_LINES) * 2 {
            let frame = part(Stream::Stdout, false, "\tat shop.Cart.add(Cart.java:7)");
            assert_eq!(joiner.is_over(&frame, span(line, line + 1)), None);
            events += u32::from(push(&mut joiner, &frame, span(line, line + 1), 100).0.is_some());
        }
        assert_eq!(events, 2);
        let long = format!("\tat {}", "x".repeat(MOST_BYTES));
        push(&mut joiner, &part(Stream::Stdout, false, "\tat x.Y"), span(9000, 9001), 100);
        let long = part(Stream::Stdout, false, &long);
        assert_eq!(joiner.is_over(&long, span(9001, 9002)), Some(Stream::Stdout));
        let far = part(Stream::Stderr, false, "on and on");
        assert_eq!(joiner.is_over(&far, span(9002 + REACH, 9003 + REACH)), Some(Stream::Stdout));
    }

    #[test]
    fn the_user_s_pattern_begins_events() {
        let (mut joiner, mut whole) = (Joiner::default(), Vec::new());
        joiner.set_rule(Multiline::starting(r"^\d{4}-").expect("a pattern"));
        for (at, text) in [(0, "2026-11-21 a"), (20, "b"), (30, "  c")] {
            let line = part(Stream::Stdout, false, text);
            assert_eq!(joiner.is_over(&line, span(at, at + 10)), None);
            assert_eq!(push(&mut joiner, &line, span(at, at + 10), 100).0, None);
        }
        let next = part(Stream::Stdout, false, "2026-11-21 d");
        assert_eq!(joiner.is_over(&next, span(40, 50)), Some(Stream::Stdout));
        let event = flushed(Some(joiner.release(Stream::Stdout, &mut whole))).expect("an event");
        assert_eq!(event, ("2026-11-21 a\nb\n  c".into(), span(0, 40), 30, 3));
        joiner.set_rule(Multiline::Off);
        let line = part(Stream::Stdout, false, "java.io.IOException: closed");
        assert!(push(&mut joiner, &line, span(50, 60), 100).0.is_some());
    }
}
