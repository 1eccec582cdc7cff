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
/// batches of before carry of it is settled by those. A line is counted once, however often it is read.
#[derive(Debug, Default)]
pub struct Acks {
    outstanding: VecDeque<Outstanding>,
    /// Lines in parts that reach over other lines.
    torn: Vec<Span>,
    /// How often it was set back.
    epoch: u32,
    /// The same since something was confirmed.
    holds: u32,
    /// The line that was read last: its end, and its number among those that end there.
    cursor: (u64, u64),
    /// The same of the last line that was counted.
    counted: (u64, u64),
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
    /// A line at `span`, of which `bytes` are its own, went into `batch`. Batches are numbered upwards. Whether it is new.
    pub fn emitted(&mut self, batch: u64, span: Span, bytes: u64) -> bool {
        let low = span.start;
        if bytes < span.end - span.start {
            self.torn.push(span);
        }
        match self.outstanding.back_mut() {
            Some(last) if last.batch == batch => last.low = last.low.min(low),
            _ => self.outstanding.push_back(Outstanding { batch, low }),
        }
        // Lines come in the order of their ends, also the second time; two may end where their file does.
        let number = if span.end == self.cursor.0 { self.cursor.1 + 1 } else { 0 };
        self.cursor = (span.end, number);
        let is_new = self.cursor > self.counted;
        if is_new {
            self.counted = self.cursor;
            self.waiting.lines += 1;
            self.waiting.bytes += bytes;
        }
        is_new
    }

    /// Everything in `batch` is where it has to be. Batches may be confirmed in any order.
    fn confirmed(&mut self, batch: u64) {
        self.outstanding.retain(|outstanding| outstanding.batch != batch);
    }

    /// Everything of this part of a batch is confirmed. What was read before the file was set back says nothing.
    pub fn settled(&mut self, batch: u64, part: &BatchFile) -> Settled {
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
        let is_over = self.is_clear() && self.cursor >= self.counted;
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
        self.cursor = (0, 0);
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
        let mut position = self.outstanding.iter().map(|outstanding| outstanding.low).fold(read_to, u64::min);
        while let Some(torn) = self.torn.iter().find(|span| span.start < position && position < span.end) {
            position = torn.start;
        }
        position
    }

    /// Gives back room that is not needed.
    pub fn shrink(&mut self) {
        self.outstanding.shrink_to_fit();
        self.torn.shrink_to_fit();
    }

    /// The position will never again be below `position`.
    pub fn passed(&mut self, position: u64) {
        self.torn.retain(|span| span.end > position);
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

    #[test]
    fn a_line_that_is_read_again_is_counted_once() {
        let mut acks = Acks::default();
        assert!(acks.emitted(1, line(0), 10) && acks.emitted(2, line(10), 10));
        assert_eq!(acks.set_back(), 1);
        // What was read before says nothing, also in a batch with what is read again.
        assert!(!acks.emitted(2, line(0), 10));
        assert_eq!(acks.settled(1, &part(1, 0)), Settled::default());
        assert_eq!(acks.settled(2, &part(1, 0)), Settled::default());
        assert_eq!(acks.position(10), 0);
        assert!(!acks.emitted(3, line(10), 10) && acks.emitted(3, line(20), 10) && acks.is_held());
        assert_eq!(acks.settled(2, &part(1, 1)).lines, 1);
        assert!(!acks.is_held());
        assert_eq!(acks.settled(3, &part(2, 1)).confirmed, Amount { lines: 2, bytes: 20 });
        assert_eq!((acks.position(30), acks.give_up()), (30, 0));
    }

    #[test]
    fn what_is_gone_when_it_is_to_be_read_again_is_awaited_no_more() {
        let mut acks = Acks::default();
        assert!(acks.emitted(1, line(0), 10) && acks.emitted(1, line(10), 10));
        acks.set_back();
        assert!(!acks.emitted(2, line(10), 10));
        let settled = acks.settled(2, &part(1, 1));
        assert_eq!((settled.confirmed.lines, settled.lines), (1, 2));
    }

    proptest! {
        /// Against a toy model that remembers each line: the position is the lowest start of an unconfirmed line.
        #[test]
        fn the_position_is_the_lowest_unconfirmed_byte(
            starts in proptest::collection::vec((0_u64..1000, 0_u64..3), 1..40),
            confirmations in proptest::collection::vec(any::<prop::sample::Index>(), 0..40),
        ) {
            let mut acks = Acks::default();
            let mut model = Vec::new();
            let mut batch = 0;
            for (start, step) in starts {
                batch += step;
                acks.emitted(batch, line(start), 10);
                model.push((batch, start));
            }
            for index in confirmations {
                if model.is_empty() {
                    break;
                }
                let confirmed = model[index.index(model.len())].0;
                acks.confirmed(confirmed);
                model.retain(|(batch, _)| *batch != confirmed);
                let expected = model.iter().map(|(_, start)| *start).min().unwrap_or(1000);
                prop_assert_eq!(acks.position(1000), expected);
            }
        }
    }
}
