//! Which bytes of a file are confirmed: arithmetic over the batches that carry them.

use std::collections::VecDeque;

use super::{batch::BatchFile, record::Span};

/// The unconfirmed batches of one file.
///
/// A line's span may reach over another stream's lines, so what counts is where each batch's first byte lies, not where its
/// last one does: everything below the lowest unconfirmed byte is confirmed. A position within such a span would tear its
/// line apart at the next start, though: then it is the line's start, and the line is the same again, under the same id.
///
/// A file may be set back to its position. Its lines are then read again, in the same order, into later batches, and what
/// batches of before carry of it is settled by those. A line is counted once, however often it is read: when it is read, for
/// events of two streams go out in any order.
#[derive(Debug, Default)]
pub struct Acks {
    outstanding: VecDeque<Outstanding>,
    /// Where events reach over lines that are not theirs: in order, those that overlap as one.
    torn: VecDeque<Span>,
    /// How often it was set back.
    epoch: u32,
    /// The same since something was confirmed.
    holds: u32,
    /// The end of the line that was read last.
    cursor: u64,
    /// The same of the last line that was counted.
    counted: u64,
    /// What was counted as read and not yet as confirmed.
    waiting: Amount,
}

/// Lines and their bytes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Amount {
    /// Lines.
    pub lines: u64,
    /// Bytes of the file that they take.
    pub bytes: u64,
}

impl Amount {
    /// At most this much; it is taken away.
    fn take(&mut self, lines: u64, bytes: u64) -> Self {
        let taken = Self { lines: lines.min(self.lines), bytes: bytes.min(self.bytes) };
        self.lines -= taken.lines;
        self.bytes -= taken.bytes;
        taken
    }
}

/// What a confirmation is in numbers.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// What counts as confirmed.
    pub confirmed: Amount,
    /// Lines that nobody waits for any more.
    pub lines: u64,
}

impl Settled {
    /// All of a part whose file is not known any more.
    pub fn whole(part: &BatchFile) -> Self {
        let confirmed = Amount { lines: part.lines - part.dead_lines, bytes: part.bytes - part.dead_bytes };
        Self { confirmed, lines: part.lines }
    }
}

#[derive(Debug)]
struct Outstanding {
    batch: u64,
    low: u64,
}

impl Acks {
    /// A physical line was read that ends at `end`: so many bytes, and the beginning of a line or of none. Whether it is new.
    pub fn read(&mut self, end: u64, lines: u64, bytes: u64) -> bool {
        self.cursor = end;
        let is_new = end > self.counted;
        if is_new {
            self.counted = end;
            self.waiting.lines += lines;
            self.waiting.bytes += bytes;
        }
        is_new
    }

    /// An event at `span`, of which `bytes` are its own, went into `batch`. Batches are numbered upwards.
    pub fn emitted(&mut self, batch: u64, span: Span, bytes: u64) {
        let low = span.start;
        if bytes < span.end - span.start {
            self.tear(span);
        }
        match self.outstanding.back_mut() {
            Some(last) if last.batch == batch => last.low = last.low.min(low),
            _ => self.outstanding.push_back(Outstanding { batch, low }),
        }
    }

    /// A position within any of several spans that overlap ends at the start of the first of them, so they are kept as one.
    fn tear(&mut self, span: Span) {
        let first = self.torn.partition_point(|torn| torn.end <= span.start);
        let mut whole = span;
        while let Some(torn) = self.torn.get(first).filter(|torn| torn.start < span.end) {
            whole = Span { start: whole.start.min(torn.start), end: whole.end.max(torn.end) };
            self.torn.remove(first);
        }
        self.torn.insert(first, whole);
    }

    /// Everything in `batch` is where it has to be. Batches may be confirmed in any order.
    fn confirmed(&mut self, batch: u64) {
        self.outstanding.retain(|outstanding| outstanding.batch != batch);
    }

    /// Everything of this part of a batch is confirmed. What was read before the file was set back says nothing. `is_held`
    /// says whether lines were read that are in no batch yet.
    pub fn settled(&mut self, batch: u64, part: &BatchFile, is_held: bool) -> Settled {
        if part.epoch != self.epoch {
            return Settled::default();
        }
        self.holds = 0;
        self.confirmed(batch);
        let taken = self.waiting.take(part.lines, part.bytes);
        // The dead letters are counted elsewhere.
        let confirmed = Amount {
            lines: taken.lines.saturating_sub(part.dead_lines),
            bytes: taken.bytes.saturating_sub(part.dead_bytes),
        };
        // What is left then was gone when it was to be read again.
        let is_over = self.is_clear() && !is_held && self.cursor >= self.counted;
        let gone = if is_over { self.give_up() } else { 0 };
        Settled { confirmed, lines: taken.lines + gone }
    }

    /// Nothing that was read will be confirmed any more: how many lines that are.
    pub fn give_up(&mut self) -> u64 {
        std::mem::take(&mut self.waiting).lines
    }

    /// Everything from the position on is read again: batches of before say no more of it. How often that was since
    /// something was confirmed.
    pub fn set_back(&mut self) -> u32 {
        self.outstanding.clear();
        self.torn.clear();
        self.cursor = 0;
        self.epoch += 1;
        self.holds = self.holds.saturating_add(1);
        self.holds
    }

    /// How often it was set back.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Whether it was set back and nothing was confirmed since.
    pub fn is_held(&self) -> bool {
        self.holds > 0
    }

    /// Whether nothing waits for its confirmation.
    pub fn is_clear(&self) -> bool {
        self.outstanding.is_empty()
    }

    /// The offset to go on from after a restart, when everything up to `read_to` went into batches: all below is confirmed.
    pub fn position(&self, read_to: u64) -> u64 {
        let position = self.outstanding.iter().map(|outstanding| outstanding.low).fold(read_to, u64::min);
        let torn = self.torn.get(self.torn.partition_point(|torn| torn.end <= position));
        torn.map_or(position, |torn| torn.start.min(position))
    }

    /// The position will never again be below `position`.
    pub fn passed(&mut self, position: u64) {
        while self.torn.front().is_some_and(|torn| torn.end <= position) {
            self.torn.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::logs::{
        batch::FileKey,
        record::{FileFacts, FileId, Origin},
    };

    fn line(start: u64) -> Span {
        Span { start, end: start + 10 }
    }

    #[test]
    fn the_position_waits_for_the_oldest_batch() {
        let mut acks = Acks::default();
        acks.emitted(1, line(0), 10);
        acks.emitted(1, line(10), 10);
        acks.emitted(2, line(20), 10);
        assert_eq!(acks.position(30), 0);
        acks.confirmed(2);
        assert_eq!(acks.position(30), 0);
        acks.confirmed(1);
        assert_eq!(acks.position(30), 30);
        assert!(acks.is_clear());
    }

    #[test]
    fn a_line_that_began_early_holds_the_position() {
        let mut acks = Acks::default();
        acks.emitted(1, line(10), 10);
        acks.emitted(2, line(0), 10);
        acks.confirmed(1);
        assert_eq!(acks.position(40), 0);
    }

    /// Part@0, another stream's line@10, the rest@20.
    #[test]
    fn a_position_does_not_tear_a_line_apart() {
        let mut acks = Acks::default();
        acks.emitted(1, line(10), 10);
        acks.emitted(2, Span { start: 0, end: 30 }, 20);
        acks.confirmed(2);
        assert_eq!(acks.position(30), 0);
        // The other stream waits for the end of a line.
        assert_eq!(acks.position(10), 0);
        acks.confirmed(1);
        assert_eq!(acks.position(30), 30);
        acks.passed(30);
        assert!(acks.torn.is_empty());
    }

    fn part(lines: u64, epoch: u32) -> BatchFile {
        let facts = FileFacts { id: FileId([1; 12]), path: "/var/log/a".into(), origin: Origin::Plain };
        let (facts, key, bytes) = (Arc::new(facts), FileKey(0), lines * 10);
        BatchFile { key, facts, lines, bytes, dead_lines: 0, dead_bytes: 0, epoch, held: false }
    }

    /// One line that goes out as it is read.
    fn pass(acks: &mut Acks, batch: u64, start: u64) -> bool {
        acks.emitted(batch, line(start), 10);
        acks.read(start + 10, 1, 10)
    }

    #[test]
    fn a_line_that_is_read_again_is_counted_once() {
        let mut acks = Acks::default();
        assert!(pass(&mut acks, 1, 0) && pass(&mut acks, 2, 10));
        assert_eq!(acks.set_back(), 1);
        // What was read before says nothing, also in a batch with what is read again.
        assert!(!pass(&mut acks, 2, 0));
        assert_eq!(acks.settled(1, &part(1, 0), false), Settled::default());
        assert_eq!(acks.settled(2, &part(1, 0), false), Settled::default());
        assert_eq!(acks.position(10), 0);
        assert!(!pass(&mut acks, 3, 10) && pass(&mut acks, 3, 20) && acks.is_held());
        assert_eq!(acks.settled(2, &part(1, 1), false).lines, 1);
        assert!(!acks.is_held());
        assert_eq!(acks.settled(3, &part(2, 1), false).confirmed, Amount { lines: 2, bytes: 20 });
        assert_eq!((acks.position(30), acks.give_up()), (30, 0));
    }

    #[test]
    fn what_is_gone_when_it_is_to_be_read_again_is_awaited_no_more() {
        let mut acks = Acks::default();
        assert!(pass(&mut acks, 1, 0) && pass(&mut acks, 1, 10));
        acks.set_back();
        assert!(!pass(&mut acks, 2, 10));
        let settled = acks.settled(2, &part(1, 1), false);
        assert_eq!((settled.confirmed.lines, settled.lines), (1, 2));
    }

    #[test]
    fn what_is_held_is_awaited_still() {
        let mut acks = Acks::default();
        assert!(acks.read(10, 1, 10) && pass(&mut acks, 1, 10));
        assert_eq!(acks.settled(1, &part(1, 0), true).lines, 1);
        acks.emitted(2, line(0), 10);
        assert_eq!(acks.settled(2, &part(1, 0), false).lines, 1);
    }

    proptest! {
        /// Against a toy model that remembers each event: the position is the lowest start of an unconfirmed one, and lies
        /// within none.
        #[test]
        fn the_position_is_the_lowest_unconfirmed_byte(
            starts in proptest::collection::vec((0_u64..1000, 0_u64..3, 10_u64..100), 1..40),
            confirmations in proptest::collection::vec(any::<prop::sample::Index>(), 0..40),
        ) {
            let mut acks = Acks::default();
            let (mut model, mut torn) = (Vec::new(), Vec::new());
            let mut batch = 0;
            for (start, step, length) in starts {
                batch += step;
                let span = Span { start, end: start + length };
                acks.emitted(batch, span, 10);
                model.push((batch, start));
                torn.extend((length > 10).then_some(span));
            }
            for index in confirmations {
                if model.is_empty() {
                    break;
                }
                let confirmed = model[index.index(model.len())].0;
                acks.confirmed(confirmed);
                model.retain(|(batch, _)| *batch != confirmed);
                let mut expected = model.iter().map(|(_, start)| *start).min().unwrap_or(1000);
                while let Some(span) = torn.iter().find(|span| span.start < expected && expected < span.end) {
                    expected = span.start;
                }
                prop_assert_eq!(acks.position(1000), expected);
                acks.passed(expected);
            }
        }
    }
}
