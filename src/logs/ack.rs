//! Which bytes of a file are confirmed: arithmetic over the batches that carry them.

use std::collections::VecDeque;

use super::{batch::BatchFile, record::Span};
use crate::metrics::ledger::{Account, Amount};

/// Why lines are lost that were set back to be read again, and were not there any more. Where their bytes were known to be
/// dropped, those have their own reason.
const GONE: &str = "gone";

/// The unconfirmed batches of one file.
///
/// A line's span may reach over another stream's lines, so what counts is where each batch's first byte lies, not where its
/// last one does: everything below the lowest unconfirmed byte is confirmed. A position within such a span would tear its
/// line apart at the next start, though: then it is the line's start, and the line is the same again, under the same id.
///
/// A file may be set back to its position. Its lines are then read again, in the same order, into later batches, and what
/// batches of before carry of it is settled by those. A line is counted once, however often it is read, and what was settled
/// beyond the position is passed over.
#[derive(Debug, Default)]
pub struct Acks {
    outstanding: VecDeque<Outstanding>,
    /// Lines in parts that reach over other lines.
    torn: Vec<Span>,
    /// What was settled beyond the position: a first and a last line each.
    done: Vec<(Cursor, Cursor)>,
    /// How often it was set back.
    epoch: u32,
    /// The same since something was confirmed.
    holds: u32,
    /// The line that was read last.
    cursor: Cursor,
    /// The last line that is in a batch, while lines before it are read once more to get at a part of another line.
    passed: Option<Cursor>,
    /// The last line that was counted.
    counted: Cursor,
    /// What was counted since this was asked last.
    fresh: Amount,
    /// What was counted as read and not yet as settled.
    waiting: Amount,
    /// What of that was set back and was not read again yet.
    again: Amount,
}

/// Which line: its end, and its number among those that end there.
type Cursor = (u64, u64);

/// Whether a line goes into a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emitted {
    /// For the first time.
    New,
    /// Once more: the file was set back.
    Again,
    /// No: it was settled before the file was set back, or is in a batch.
    Settled,
}

/// What a confirmation is in numbers.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Settled {
    /// What the sink took.
    pub acked: Amount,
    /// What it refused for good, by reason.
    pub dead: Vec<(String, Amount)>,
}

impl Settled {
    /// All of a part of a batch.
    pub fn whole(part: &BatchFile) -> Self {
        let mut acked = part.amount;
        for (_, dead) in &part.dead {
            acked.take(*dead);
        }
        Self { acked, dead: part.dead.clone() }
    }
}

impl Settled {
    /// Enters it into an account.
    pub fn enter(&self, account: &Account) {
        let mut figures = account.lock();
        figures.acked(self.acked);
        self.dead.iter().for_each(|(reason, amount)| figures.dead(reason, *amount));
    }
}

#[derive(Debug)]
struct Outstanding {
    batch: u64,
    low: u64,
    first: Cursor,
    last: Cursor,
}

impl Acks {
    /// A line at `span` goes into `batch`, but for those that were settled. Of its `bytes` those that are cut off are lost, and
    /// do not wait. Batches are numbered upwards.
    pub fn emitted(&mut self, batch: u64, span: Span, bytes: u64, cut: u64) -> Emitted {
        // Lines come in the order of their ends, also the second time; two may end where their file does.
        let number = if span.end == self.cursor.0 { self.cursor.1 + 1 } else { 0 };
        self.cursor = (span.end, number);
        let at = self.cursor;
        if self.passed.is_some_and(|passed| at <= passed) {
            return Emitted::Settled;
        }
        self.passed = None;
        let is_new = at > self.counted;
        if !is_new && self.epoch > 0 && self.done.iter().any(|(first, last)| *first <= at && at <= *last) {
            return Emitted::Settled;
        }
        let low = span.start;
        if bytes < span.end - span.start {
            self.torn.push(span);
        }
        match self.outstanding.back_mut() {
            Some(last) if last.batch == batch => (last.low, last.last) = (last.low.min(low), at),
            _ => self.outstanding.push_back(Outstanding { batch, low, first: at, last: at }),
        }
        let amount = Amount { lines: 1, bytes: bytes.saturating_sub(cut) };
        if is_new {
            self.counted = at;
            self.waiting.add(amount);
            self.fresh.add(amount);
            return Emitted::New;
        }
        self.again.take(amount);
        Emitted::Again
    }

    /// Enters into the account what was read since this was done last, and what was set back and was gone when its turn came.
    pub fn count_read(&mut self, account: &Account) {
        let (fresh, gone) = (std::mem::take(&mut self.fresh), self.take_gone());
        let mut figures = account.lock();
        figures.read(fresh);
        figures.gone(GONE, gone);
    }

    fn take_gone(&mut self) -> Amount {
        if self.cursor < self.counted { Amount::default() } else { self.give_up() }
    }

    /// What was set back will not be read again: how much that is.
    pub fn give_up(&mut self) -> Amount {
        self.waiting.take(std::mem::take(&mut self.again))
    }

    /// So many bytes that were not read yet are lost: those of them that were read before, and set back.
    pub fn lose(&mut self, bytes: u64) -> Amount {
        self.waiting.take(self.again.take(Amount::of_bytes(bytes)))
    }

    /// Everything in `batch` is where it has to be. Batches may be confirmed in any order.
    fn confirmed(&mut self, batch: u64) {
        let Some(at) = self.outstanding.iter().position(|outstanding| outstanding.batch == batch) else {
            return;
        };
        if let Some(Outstanding { first, last, .. }) = self.outstanding.remove(at) {
            self.done.push((first, last));
        }
    }

    /// Everything of this part of a batch is settled. What was read before the file was set back says nothing.
    pub fn settled(&mut self, batch: u64, part: &BatchFile) -> Settled {
        if part.epoch != self.epoch {
            return Settled::default();
        }
        self.holds = 0;
        self.confirmed(batch);
        self.waiting.take(part.amount);
        Settled::whole(part)
    }

    /// Reading goes back to a part of a line that was not taken yet; what was taken since is passed over.
    pub fn step_back(&mut self) {
        self.passed = self.passed.max(Some(self.cursor));
        self.cursor = (0, 0);
    }

    /// Everything from the position on is read again: batches of before say no more of it. How often that was since
    /// something was confirmed.
    pub fn set_back(&mut self) -> u32 {
        self.outstanding.clear();
        self.torn.clear();
        (self.cursor, self.passed) = ((0, 0), None);
        self.again = self.waiting;
        self.epoch += 1;
        self.holds = self.holds.saturating_add(1);
        self.holds
    }

    /// What was counted as read and is not settled.
    #[cfg(test)]
    pub fn waiting(&self) -> Amount {
        self.waiting
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

    /// The position will never again be below `position`.
    pub fn passed(&mut self, position: u64) {
        self.torn.retain(|span| span.end > position);
        self.done.retain(|(_, last)| last.0 > position);
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
        acks.emitted(1, line(0), 10, 0);
        acks.emitted(1, line(10), 10, 0);
        acks.emitted(2, line(20), 10, 0);
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
        acks.emitted(1, line(10), 10, 0);
        acks.emitted(2, line(0), 10, 0);
        acks.confirmed(1);
        assert_eq!(acks.position(40), 0);
    }

    /// Part@0, another stream's line@10, the rest@20.
    #[test]
    fn a_position_does_not_tear_a_line_apart() {
        let mut acks = Acks::default();
        acks.emitted(1, line(10), 10, 0);
        acks.emitted(2, Span { start: 0, end: 30 }, 20, 0);
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
        let amount = Amount { lines, bytes: lines * 10 };
        BatchFile { key: FileKey(0), facts: Arc::new(facts), amount, dead: vec![], epoch, held: false }
    }

    const NEW: Emitted = Emitted::New;
    const AGAIN: Emitted = Emitted::Again;

    #[test]
    fn a_line_that_is_read_again_is_counted_once() {
        let mut acks = Acks::default();
        assert_eq!([acks.emitted(1, line(0), 10, 0), acks.emitted(2, line(10), 10, 0)], [NEW, NEW]);
        assert_eq!(std::mem::take(&mut acks.fresh).lines, 2);
        assert_eq!(acks.set_back(), 1);
        // What was read before says nothing, also in a batch with what is read again.
        assert_eq!(acks.emitted(2, line(0), 10, 0), AGAIN);
        assert_eq!(acks.settled(1, &part(1, 0)), Settled::default());
        assert_eq!(acks.settled(2, &part(1, 0)), Settled::default());
        assert_eq!(acks.position(10), 0);
        assert_eq!([acks.emitted(3, line(10), 10, 0), acks.emitted(3, line(20), 10, 0)], [AGAIN, NEW]);
        assert!(acks.is_held());
        assert_eq!(acks.settled(2, &part(1, 1)).acked.lines, 1);
        assert!(!acks.is_held());
        assert_eq!(acks.settled(3, &part(2, 1)).acked, Amount { lines: 2, bytes: 20 });
        assert_eq!((acks.position(30), std::mem::take(&mut acks.fresh).lines), (30, 1));
        assert!(acks.take_gone().is_empty() && acks.waiting.is_empty());
    }

    /// Its batch was confirmed before another one came back.
    #[test]
    fn what_was_settled_beyond_the_position_is_not_sent_again() {
        let mut acks = Acks::default();
        for batch in 1..=3 {
            acks.emitted(batch, line(batch * 10), 10, 0);
        }
        acks.settled(2, &part(1, 0));
        acks.passed(acks.position(40));
        acks.set_back();
        assert_eq!(acks.emitted(4, line(10), 10, 0), AGAIN);
        assert_eq!(acks.emitted(4, line(20), 10, 0), Emitted::Settled);
        assert_eq!([acks.emitted(4, line(30), 10, 0), acks.emitted(5, line(40), 10, 0)], [AGAIN, NEW]);
        acks.settled(4, &part(2, 1));
        acks.settled(5, &part(1, 1));
        acks.passed(acks.position(50));
        assert_eq!((acks.position(50), acks.waiting, acks.done.len()), (50, Amount::default(), 0));
    }

    #[test]
    fn lines_between_the_parts_of_another_are_passed_over_when_reading_steps_back() {
        let mut acks = Acks::default();
        let whole = Span { start: 0, end: 40 };
        assert_eq!([acks.emitted(1, line(10), 10, 0), acks.emitted(1, line(20), 10, 0)], [NEW, NEW]);
        acks.step_back();
        assert_eq!(acks.emitted(2, line(10), 10, 0), Emitted::Settled);
        acks.step_back();
        assert_eq!(acks.emitted(2, line(10), 10, 0), Emitted::Settled);
        assert_eq!(acks.emitted(2, line(20), 10, 0), Emitted::Settled);
        assert_eq!(acks.emitted(2, whole, 20, 0), NEW);
        assert_eq!((acks.waiting.lines, acks.position(40)), (3, 0));
        acks.settled(1, &part(2, 0));
        acks.settled(2, &part(1, 0));
        assert_eq!(acks.position(40), 40);
    }

    #[test]
    fn what_is_gone_when_it_is_to_be_read_again_is_awaited_no_more() {
        let mut acks = Acks::default();
        (0..3).for_each(|number| assert_eq!(acks.emitted(1, line(number * 10), 10, 0), NEW));
        acks.set_back();
        assert_eq!(acks.lose(10), Amount::of_bytes(10));
        assert_eq!(acks.emitted(2, line(10), 10, 0), AGAIN);
        assert!(acks.take_gone().is_empty(), "one may still come");
        assert_eq!(acks.emitted(2, line(30), 10, 0), NEW);
        // Of one it was said how long it was.
        assert_eq!(acks.take_gone(), Amount { lines: 2, bytes: 10 });
        acks.settled(2, &part(2, 1));
        assert!(acks.waiting.is_empty());
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
                acks.emitted(batch, line(start), 10, 0);
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
