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
    /// What was settled beyond the position, sorted and apart from each other: a first and a last line each.
    done: Vec<(Cursor, Cursor)>,
    /// The line that was read last, when it was left out.
    row: Option<Cursor>,
    /// What was left out since this was asked last, by reason.
    left: Vec<(&'static str, Amount)>,
    /// The same of lines that had been on their way.
    left_late: Vec<(&'static str, Amount)>,
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
    /// A line at `span`, of which `bytes` are its own, goes into `batch`, but for those that were settled. Batches are numbered
    /// upwards.
    pub fn emitted(&mut self, batch: u64, span: Span, bytes: u64) -> Emitted {
        self.note_torn(span, bytes);
        let Some((at, is_new)) = self.goes_on(span) else { return Emitted::Settled };
        let low = span.start;
        match self.outstanding.back_mut() {
            Some(last) if last.batch == batch => (last.low, last.last) = (last.low.min(low), at),
            _ => self.outstanding.push_back(Outstanding { batch, low, first: at, last: at }),
        }
        self.row = None;
        let amount = Amount { lines: 1, bytes };
        if is_new {
            self.waiting.add(amount);
            self.fresh.add(amount);
            return Emitted::New;
        }
        self.again.take(amount);
        Emitted::Again
    }

    /// A line at `span`, of which `bytes` are its own, was left out: nobody waits for it, and it is passed over when it is read
    /// again. Whether it was counted now.
    pub fn left_out(&mut self, span: Span, bytes: u64, reason: &'static str) -> bool {
        self.note_torn(span, bytes);
        let Some((at, is_new)) = self.goes_on(span) else { return false };
        self.settle(self.row.unwrap_or(at), at);
        self.row = Some(at);
        let mut amount = Amount { lines: 1, bytes };
        if !is_new {
            // It was on its way before: somebody changed the rules.
            amount = self.waiting.take(self.again.take(amount));
        }
        let counted = if is_new { &mut self.left } else { &mut self.left_late };
        match counted.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, known)) => known.add(amount),
            None => counted.push((reason, amount)),
        }
        true
    }

    /// A position within a line that reaches over others is none, also when that line was settled before its file was set back.
    fn note_torn(&mut self, span: Span, bytes: u64) {
        if bytes < span.end - span.start {
            self.torn.push(span);
        }
    }

    /// Whether a line that ends here was not counted yet.
    pub fn is_new(&self, span: Span) -> bool {
        self.after_cursor(span) > self.counted
    }

    /// Passes over a line that was taken before reading stepped back. Whether it was one.
    pub fn pass_over(&mut self, span: Span) -> bool {
        let at = self.after_cursor(span);
        let is_passed = self.passed.is_some_and(|passed| at <= passed);
        if is_passed {
            self.cursor = at;
        }
        is_passed
    }

    /// The line that is read now, and whether it is new; `None` for one that was settled.
    fn goes_on(&mut self, span: Span) -> Option<(Cursor, bool)> {
        if self.pass_over(span) {
            return None;
        }
        let at = self.after_cursor(span);
        (self.cursor, self.passed) = (at, None);
        let is_new = at > self.counted;
        if !is_new && self.is_done(at) {
            self.row = None;
            return None;
        }
        self.counted = self.counted.max(at);
        Some((at, is_new))
    }

    /// Lines come in the order of their ends, also the second time; two may end where their file does.
    fn after_cursor(&self, span: Span) -> Cursor {
        (span.end, if span.end == self.cursor.0 { self.cursor.1 + 1 } else { 0 })
    }

    fn is_done(&self, at: Cursor) -> bool {
        let after = self.done.partition_point(|(first, _)| *first <= at);
        after.checked_sub(1).and_then(|before| self.done.get(before)).is_some_and(|(_, last)| at <= *last)
    }

    /// Lines from one to another are settled. A batch may reach over lines that were left out, or settled before.
    fn settle(&mut self, first: Cursor, last: Cursor) {
        // Lines come in their order; of any others nothing is remembered, and they are sent again.
        if first > last {
            return;
        }
        let begin = self.done.partition_point(|(_, known)| *known < first);
        let end = self.done.partition_point(|(known, _)| *known <= last);
        let joined = self.done[begin..end]
            .iter()
            .fold((first, last), |(first, last), known| (first.min(known.0), last.max(known.1)));
        self.done.splice(begin..end, [joined]);
    }

    /// Enters into the account what was read since this was done last, and what was set back and was gone when its turn came.
    /// How much of it is on its way.
    pub fn count_read(&mut self, account: &Account) -> Amount {
        let (fresh, gone) = (std::mem::take(&mut self.fresh), self.take_gone());
        let mut figures = account.lock();
        figures.read(fresh);
        self.left.drain(..).for_each(|(reason, amount)| figures.dropped(reason, amount));
        self.left_late.drain(..).for_each(|(reason, amount)| figures.dropped_late(reason, amount));
        figures.gone(GONE, gone);
        fresh
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
            self.settle(first, last);
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
        self.row = None;
        self.passed = self.passed.max(Some(self.cursor));
        self.cursor = (0, 0);
    }

    /// Everything from the position on is read again: batches of before say no more of it. How often that was since
    /// something was confirmed.
    pub fn set_back(&mut self) -> u32 {
        self.outstanding.clear();
        self.torn.clear();
        self.row = None;
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

    /// Gives back room that is not needed.
    pub fn shrink(&mut self) {
        self.outstanding.shrink_to_fit();
        self.torn.shrink_to_fit();
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

    /// The line in parts was settled, the one between them was not.
    #[test]
    fn a_position_tears_no_line_apart_that_was_settled_before_the_file_was_set_back() {
        let mut acks = Acks::default();
        let whole = Span { start: 0, end: 30 };
        acks.emitted(1, line(10), 10);
        acks.emitted(2, whole, 20);
        acks.settled(2, &part(1, 0));
        acks.set_back();
        assert_eq!(acks.emitted(3, line(10), 10), AGAIN);
        assert_eq!(acks.emitted(3, whole, 20), Emitted::Settled);
        assert_eq!(acks.position(30), 0);
        acks.settled(3, &part(1, 1));
        assert_eq!(acks.position(30), 30);
    }

    fn part(lines: u64, epoch: u32) -> BatchFile {
        let facts = FileFacts::new(FileId([1; 12]), "/var/log/a", Origin::Plain);
        let amount = Amount { lines, bytes: lines * 10 };
        BatchFile { key: FileKey(0), facts: Arc::new(facts), amount, dead: vec![], epoch, held: false }
    }

    const NEW: Emitted = Emitted::New;
    const AGAIN: Emitted = Emitted::Again;

    #[test]
    fn a_line_that_is_read_again_is_counted_once() {
        let mut acks = Acks::default();
        assert_eq!([acks.emitted(1, line(0), 10), acks.emitted(2, line(10), 10)], [NEW, NEW]);
        assert_eq!(std::mem::take(&mut acks.fresh).lines, 2);
        assert_eq!(acks.set_back(), 1);
        // What was read before says nothing, also in a batch with what is read again.
        assert_eq!(acks.emitted(2, line(0), 10), AGAIN);
        assert_eq!(acks.settled(1, &part(1, 0)), Settled::default());
        assert_eq!(acks.settled(2, &part(1, 0)), Settled::default());
        assert_eq!(acks.position(10), 0);
        assert_eq!([acks.emitted(3, line(10), 10), acks.emitted(3, line(20), 10)], [AGAIN, NEW]);
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
            acks.emitted(batch, line(batch * 10), 10);
        }
        acks.settled(2, &part(1, 0));
        acks.passed(acks.position(40));
        acks.set_back();
        assert_eq!(acks.emitted(4, line(10), 10), AGAIN);
        assert_eq!(acks.emitted(4, line(20), 10), Emitted::Settled);
        assert_eq!([acks.emitted(4, line(30), 10), acks.emitted(5, line(40), 10)], [AGAIN, NEW]);
        acks.settled(4, &part(2, 1));
        acks.settled(5, &part(1, 1));
        acks.passed(acks.position(50));
        assert_eq!((acks.position(50), acks.waiting, acks.done.len()), (50, Amount::default(), 0));
    }

    #[test]
    fn lines_between_the_parts_of_another_are_passed_over_when_reading_steps_back() {
        let mut acks = Acks::default();
        let whole = Span { start: 0, end: 40 };
        assert_eq!([acks.emitted(1, line(10), 10), acks.emitted(1, line(20), 10)], [NEW, NEW]);
        acks.step_back();
        assert_eq!(acks.emitted(2, line(10), 10), Emitted::Settled);
        acks.step_back();
        assert_eq!(acks.emitted(2, line(10), 10), Emitted::Settled);
        assert_eq!(acks.emitted(2, line(20), 10), Emitted::Settled);
        assert_eq!(acks.emitted(2, whole, 20), NEW);
        assert_eq!((acks.waiting.lines, acks.position(40)), (3, 0));
        acks.settled(1, &part(2, 0));
        acks.settled(2, &part(1, 0));
        assert_eq!(acks.position(40), 40);
    }

    #[test]
    fn what_is_gone_when_it_is_to_be_read_again_is_awaited_no_more() {
        let mut acks = Acks::default();
        (0..3).for_each(|number| assert_eq!(acks.emitted(1, line(number * 10), 10), NEW));
        acks.set_back();
        assert_eq!(acks.lose(10), Amount::of_bytes(10));
        assert_eq!(acks.emitted(2, line(10), 10), AGAIN);
        assert!(acks.take_gone().is_empty(), "one may still come");
        assert_eq!(acks.emitted(2, line(30), 10), NEW);
        // Of one it was said how long it was.
        assert_eq!(acks.take_gone(), Amount { lines: 2, bytes: 10 });
        acks.settled(2, &part(2, 1));
        assert!(acks.waiting.is_empty());
    }

    #[test]
    fn a_line_that_is_left_out_holds_nothing_and_is_passed_over_when_it_is_read_again() {
        let mut acks = Acks::default();
        assert_eq!(acks.emitted(1, line(0), 10), NEW);
        assert!(acks.is_new(line(10)) && acks.left_out(line(10), 10, "rule"));
        assert!(acks.left_out(line(20), 10, "rule") && !acks.is_new(line(0)) && acks.is_new(line(30)));
        assert_eq!((acks.position(30), acks.done.len()), (0, 1));
        acks.set_back();
        assert_eq!(acks.emitted(2, line(0), 10), AGAIN);
        // Whatever the rules say of it now.
        assert!(!acks.left_out(line(10), 10, "rule"));
        assert_eq!(acks.emitted(2, line(20), 10), Emitted::Settled);
        acks.settled(2, &part(1, 1));
        assert_eq!((acks.position(30), acks.is_clear()), (30, true));
        let account = Account::default();
        acks.count_read(&account);
        let figures = account.lock();
        assert_eq!((figures.read.lines, figures.dropped.of("rule").lines), (3, 2));
        // In parts around a line that waits: it would be another line if its beginning was not read again.
        acks.passed(30);
        assert_eq!(acks.emitted(3, line(40), 10), NEW);
        assert!(acks.left_out(Span { start: 30, end: 60 }, 20, "rule"));
        assert_eq!(acks.position(60), 30);
    }

    /// Batch 2 is settled while batch 1 is held: all of it is passed over, around what was left out in its midst.
    #[test]
    fn a_batch_that_reaches_over_lines_left_out_is_passed_over_as_a_whole() {
        let mut acks = Acks::default();
        assert_eq!(acks.emitted(1, line(0), 10), NEW);
        assert_eq!(acks.emitted(2, line(10), 10), NEW);
        assert!(acks.left_out(line(20), 10, "rule"));
        assert_eq!(acks.emitted(2, line(30), 10), NEW);
        assert!(acks.left_out(line(40), 10, "rule"));
        acks.settled(2, &part(2, 0));
        acks.set_back();
        assert_eq!(acks.emitted(3, line(0), 10), AGAIN);
        assert_eq!([acks.emitted(3, line(10), 10), acks.emitted(3, line(30), 10)], [Emitted::Settled; 2]);
        // One that was on its way and one that was settled, both left out under new rules.
        assert_eq!(acks.emitted(3, line(50), 10), NEW);
        assert_eq!(acks.done.len(), 2);
        acks.set_back();
        assert!(acks.left_out(line(0), 10, "rule") && !acks.left_out(line(10), 10, "rule"));
        assert!(acks.left_out(line(50), 10, "rule"));
        acks.set_back();
        for start in [0, 10, 20, 30, 40, 50] {
            assert_eq!(acks.emitted(4, line(start), 10), Emitted::Settled, "{start}");
        }
    }

    #[test]
    fn a_line_that_was_on_its_way_is_left_out_under_new_rules() {
        let (mut acks, account) = (Acks::default(), Account::default());
        assert_eq!(acks.emitted(1, line(0), 10), NEW);
        acks.count_read(&account);
        acks.set_back();
        assert!(acks.left_out(line(0), 10, "rule"));
        acks.count_read(&account);
        let figures = account.lock();
        assert_eq!((figures.in_flight, figures.dropped.of("rule").lines), (Amount::default(), 1));
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
