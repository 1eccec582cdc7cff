use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::logs::{
    batch::FileKey,
    record::{FileFacts, FileId, Origin},
};

const NONE: [Option<u64>; 2] = [None; 2];
const LINE: Amount = Amount { lines: 1, bytes: 10 };

fn line(start: u64) -> Span {
    Span { start, end: start + 10 }
}

fn part(lines: u64, epoch: u32) -> BatchFile {
    let facts = FileFacts::new(FileId([1; 12]), "/var/log/a", Origin::Plain);
    let amount = Amount { lines, bytes: lines * 10 };
    BatchFile { key: FileKey(0), facts: Arc::new(facts), amount, dead: vec![], epoch, held: false }
}

impl Acks {
    /// A line of ten bytes is read, and an event that is whole with it comes, of so many lines of its own.
    fn event(&mut self, batch: u64, span: Span, lines: u64, pending: [Option<u64>; 2]) -> (Came, Emitted) {
        self.read(span.end, true, 10);
        let came = self.comes(span.start, pending);
        if came == Came::Passed {
            return (came, Emitted::Settled);
        }
        (came, self.emitted(batch, span, Amount { lines, bytes: lines * 10 }))
    }

    /// One line that goes out as it is read.
    fn pass(&mut self, batch: u64, start: u64) -> (Came, Emitted) {
        self.event(batch, line(start), 1, NONE)
    }

    fn leave_out(&mut self, span: Span, amount: Amount) -> bool {
        self.read(span.end, true, amount.bytes);
        self.comes(span.start, NONE);
        self.left_out(span, amount, "rule")
    }

    fn figures(&mut self) -> (u64, u64) {
        let account = Account::default();
        self.count_read(&account, true);
        let figures = account.lock();
        (figures.read.lines, figures.dropped.of("rule").lines)
    }
}

const NEW: (Came, Emitted) = (Came::New, Emitted::Yes);
const AGAIN: (Came, Emitted) = (Came::Again, Emitted::Yes);
const SETTLED: (Came, Emitted) = (Came::Again, Emitted::Settled);
const PASSED: (Came, Emitted) = (Came::Passed, Emitted::Settled);

#[test]
fn the_position_waits_for_the_oldest_batch() {
    let mut acks = Acks::default();
    for (batch, start) in [(1, 0), (1, 10), (2, 20)] {
        assert_eq!(acks.pass(batch, start), NEW);
    }
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
    acks.pass(1, 10);
    acks.pass(2, 0);
    acks.confirmed(1);
    assert_eq!(acks.position(40), 0);
}

/// Part@0, another stream's line@10, the rest@20.
#[test]
fn a_position_does_not_tear_a_line_apart() {
    let mut acks = Acks::default();
    acks.pass(1, 10);
    acks.event(2, Span { start: 0, end: 30 }, 2, NONE);
    acks.confirmed(2);
    assert_eq!(acks.position(30), 0);
    // The other stream waits for the end of a line.
    assert_eq!((acks.position(10), acks.outside(20), acks.outside(30)), (0, 0, 30));
    acks.confirmed(1);
    assert_eq!(acks.position(30), 30);
    acks.passed(30);
    assert!(acks.torn.is_empty());
}

#[test]
fn a_line_that_is_read_again_is_counted_once() {
    let mut acks = Acks::default();
    assert_eq!([acks.pass(1, 0), acks.pass(2, 10)], [NEW, NEW]);
    assert_eq!(std::mem::take(&mut acks.fresh).lines, 2);
    assert_eq!(acks.set_back(NONE), 1);
    // What was read before says nothing, also in a batch with what is read again.
    assert_eq!(acks.pass(2, 0), AGAIN);
    assert_eq!(acks.settled(1, &part(1, 0)), Settled::default());
    assert_eq!(acks.settled(2, &part(1, 0)), Settled::default());
    assert_eq!(acks.position(10), 0);
    assert_eq!([acks.pass(3, 10), acks.pass(3, 20)], [AGAIN, NEW]);
    assert!(acks.is_held());
    assert_eq!(acks.settled(2, &part(1, 1)).acked.lines, 1);
    assert!(!acks.is_held());
    assert_eq!(acks.settled(3, &part(2, 1)).acked, Amount { lines: 2, bytes: 20 });
    assert_eq!((acks.position(30), std::mem::take(&mut acks.fresh).lines), (30, 1));
    assert!(acks.give_up().is_empty() && acks.waiting.is_empty());
}

/// Its batch was confirmed before another one came back.
#[test]
fn what_was_settled_beyond_the_position_is_not_sent_again() {
    let mut acks = Acks::default();
    for batch in 1..=3 {
        acks.pass(batch, batch * 10);
    }
    acks.settled(2, &part(1, 0));
    acks.passed(acks.position(40));
    acks.set_back(NONE);
    assert_eq!([acks.pass(4, 10), acks.pass(4, 20), acks.pass(4, 30)], [AGAIN, SETTLED, AGAIN]);
    assert_eq!(acks.pass(5, 40), NEW);
    acks.settled(4, &part(2, 1));
    acks.settled(5, &part(1, 1));
    acks.passed(acks.position(50));
    assert_eq!((acks.position(50), acks.waiting, acks.done.len()), (50, Amount::default(), 0));
}

/// An event@0 is whole after lines of the other stream: one batch is settled, the one with the event comes back.
#[test]
fn what_is_settled_around_an_event_that_is_not_is_known_apart() {
    let mut acks = Acks::default();
    acks.read(10, true, 10);
    assert_eq!(acks.event(1, line(10), 1, [Some(0), None]), NEW);
    assert_eq!(acks.event(1, line(20), 1, [Some(0), None]), NEW);
    acks.read(40, true, 10);
    // Another one begins between lines of the batch, and is in the next one.
    assert_eq!(acks.event(1, line(40), 1, [Some(0), Some(30)]), NEW);
    assert_eq!(acks.event(2, Span { start: 30, end: 60 }, 2, [Some(0), None]), NEW);
    assert_eq!(acks.event(2, Span { start: 0, end: 70 }, 2, NONE), NEW);
    acks.settled(1, &part(3, 0));
    assert_eq!(acks.done, [(10, 20), (40, 40)]);
    assert_eq!((acks.position(70), acks.set_back(NONE)), (0, 1));
    let again = [10, 20, 40].map(|start| acks.event(3, line(start), 1, [Some(0), None]));
    assert_eq!(again, [SETTLED; 3]);
    assert_eq!(acks.event(3, Span { start: 30, end: 60 }, 2, NONE), AGAIN);
    assert_eq!(acks.event(3, Span { start: 0, end: 70 }, 2, NONE), AGAIN);
    // Whole again, and no position within it.
    assert_eq!(acks.outside(45), 0);
}

/// It waited for more of its lines when the file was set back, so nothing was done with it yet.
#[test]
fn an_event_that_did_not_come_before_the_file_was_set_back_is_new_when_it_does() {
    let mut acks = Acks::default();
    assert_eq!(acks.pass(1, 0), NEW);
    acks.read(20, true, 10);
    acks.set_back([Some(10), None]);
    assert_eq!(acks.pass(2, 0), AGAIN);
    acks.read(20, true, 10);
    assert_eq!(acks.event(2, Span { start: 10, end: 30 }, 2, NONE), NEW);
    acks.settled(2, &part(3, 1));
    assert!(acks.waiting.is_empty() && acks.give_up().is_empty());
}

#[test]
fn lines_between_the_parts_of_another_are_passed_over_when_reading_steps_back() {
    let mut acks = Acks::default();
    let whole = Span { start: 0, end: 40 };
    let pending = [Some(0), None];
    acks.read(10, true, 10);
    assert_eq!([10, 20].map(|start| acks.event(1, line(start), 1, pending)), [NEW, NEW]);
    acks.step_back(pending);
    acks.read(10, true, 10);
    assert_eq!(acks.event(2, line(10), 1, pending), PASSED);
    acks.step_back(pending);
    acks.read(10, true, 10);
    assert_eq!([10, 20].map(|start| acks.event(2, line(start), 1, pending)), [PASSED, PASSED]);
    acks.read(40, false, 10);
    assert_eq!(acks.comes(0, NONE), Came::New);
    assert_eq!(acks.emitted(2, whole, Amount { lines: 1, bytes: 20 }), Emitted::Yes);
    assert_eq!((acks.waiting.lines, acks.position(40)), (3, 0));
    acks.settled(1, &part(2, 0));
    acks.settled(2, &BatchFile { amount: Amount { lines: 1, bytes: 20 }, ..part(1, 0) });
    assert_eq!((acks.position(40), acks.waiting), (40, Amount::default()));
}

/// The one in parts was settled, the line between them was not.
#[test]
fn a_position_tears_no_event_apart_that_was_settled_before_the_file_was_set_back() {
    let mut acks = Acks::default();
    let whole = Span { start: 0, end: 30 };
    let pass = |acks: &mut Acks, batch| {
        acks.read(10, true, 10);
        let between = acks.event(batch, line(10), 1, [Some(0), None]);
        acks.read(30, false, 10);
        acks.comes(0, NONE);
        (between.1, acks.emitted(batch + 1, whole, Amount { lines: 1, bytes: 20 }))
    };
    assert_eq!(pass(&mut acks, 1), (Emitted::Yes, Emitted::Yes));
    acks.settled(2, &BatchFile { amount: Amount { lines: 1, bytes: 20 }, ..part(1, 0) });
    acks.set_back(NONE);
    assert_eq!(pass(&mut acks, 3), (Emitted::Yes, Emitted::Settled));
    assert_eq!(acks.position(30), 0);
    acks.settled(3, &part(1, 1));
    assert_eq!(acks.position(30), 30);
}

/// Batch 2 is settled while batch 1 is held: all of it is passed over, around what was left out in its midst.
#[test]
fn a_batch_that_reaches_over_lines_left_out_is_passed_over_as_a_whole() {
    let mut acks = Acks::default();
    assert_eq!([acks.pass(1, 0), acks.pass(2, 10)], [NEW, NEW]);
    assert!(acks.leave_out(line(20), LINE));
    assert_eq!(acks.pass(2, 30), NEW);
    assert!(acks.leave_out(line(40), LINE));
    acks.settled(2, &part(2, 0));
    acks.set_back(NONE);
    assert_eq!([acks.pass(3, 0), acks.pass(3, 10), acks.pass(3, 30)], [AGAIN, SETTLED, SETTLED]);
    // One that was on its way and one that was settled, both left out under new rules.
    assert_eq!(acks.pass(3, 50), NEW);
    acks.set_back(NONE);
    assert!(acks.leave_out(line(0), LINE) && !acks.leave_out(line(10), LINE));
    assert!(acks.leave_out(line(50), LINE));
    acks.set_back(NONE);
    for start in [0, 10, 20, 30, 40, 50] {
        assert_eq!(acks.pass(4, start), SETTLED, "{start}");
    }
}

#[test]
fn what_is_gone_when_it_is_to_be_read_again_is_awaited_no_more() {
    let (mut acks, account) = (Acks::default(), Account::default());
    (0..3).for_each(|number| assert_eq!(acks.pass(1, number * 10), NEW));
    acks.count_read(&account, false);
    acks.set_back(NONE);
    assert_eq!(acks.lose(10, Amount::default()), Amount::of_bytes(10));
    account.lock().gone("spill_full", Amount::of_bytes(10));
    assert_eq!(acks.pass(2, 10), AGAIN);
    acks.count_read(&account, false);
    assert_eq!(account.lock().lost.of(GONE), Amount::default(), "one may still come");
    assert_eq!(acks.pass(2, 30), NEW);
    // An event is held that may be one of them.
    acks.count_read(&account, true);
    assert_eq!(account.lock().lost.of(GONE), Amount::default());
    acks.count_read(&account, false);
    // Of one it was said how long it was.
    assert_eq!(account.lock().lost.of(GONE), Amount { lines: 2, bytes: 10 });
    acks.settled(2, &part(2, 1)).enter(&account);
    assert!(acks.waiting.is_empty() && account.lock().in_flight.is_empty());
}

#[test]
fn a_line_that_is_left_out_holds_nothing_and_is_passed_over_when_it_is_read_again() {
    let mut acks = Acks::default();
    assert_eq!(acks.pass(1, 0), NEW);
    assert!(acks.leave_out(line(10), LINE) && acks.leave_out(line(20), LINE));
    assert_eq!((acks.position(30), acks.done.len()), (0, 1));
    acks.set_back(NONE);
    assert_eq!(acks.pass(2, 0), AGAIN);
    // Whatever the rules say of it now.
    assert!(!acks.leave_out(line(10), LINE));
    assert_eq!(acks.pass(2, 20), SETTLED);
    acks.settled(2, &part(1, 1));
    assert_eq!((acks.position(30), acks.is_clear()), (30, true));
    assert_eq!(acks.figures(), (3, 2));
    // In parts around a line that waits: it would be another line if its beginning was not read again.
    acks.passed(30);
    assert_eq!(acks.pass(3, 40), NEW);
    assert!(acks.leave_out(Span { start: 30, end: 60 }, Amount { lines: 1, bytes: 20 }));
    assert_eq!(acks.position(60), 30);
}

#[test]
fn a_line_that_was_on_its_way_is_left_out_under_new_rules() {
    let (mut acks, account) = (Acks::default(), Account::default());
    assert_eq!(acks.pass(1, 0), NEW);
    acks.count_read(&account, false);
    acks.set_back(NONE);
    assert!(acks.leave_out(line(0), LINE));
    acks.count_read(&account, false);
    let figures = account.lock();
    assert_eq!((figures.in_flight, figures.dropped.of("rule").lines), (Amount::default(), 1));
    assert!(acks.waiting.is_empty());
}

#[test]
fn what_is_cut_off_is_lost_and_not_awaited() {
    let (mut acks, account) = (Acks::default(), Account::default());
    acks.read(10, true, 10);
    assert_eq!(acks.comes(0, NONE), Came::New);
    acks.cut("line_too_long", 4);
    acks.emitted(1, line(0), Amount { lines: 1, bytes: 6 });
    acks.count_read(&account, false);
    let settled = BatchFile { amount: Amount { lines: 1, bytes: 6 }, ..part(1, 0) };
    acks.settled(1, &settled).enter(&account);
    let figures = account.lock();
    assert_eq!((figures.read.bytes, figures.acked.bytes, figures.in_flight.bytes), (10, 6, 0));
    assert_eq!(figures.lost.of("line_too_long").bytes, 4);
}

/// What a line ends, if it ends something: the span of an event, and its lines; and where others begin that are not whole.
type Step = (Option<(Span, u64)>, [Option<u64>; 2]);

/// Lines of two streams, and which of them end an event.
fn two_streams(lines: &[(bool, bool)]) -> Vec<Step> {
    let mut open: [Option<(u64, u64)>; 2] = [None; 2];
    let step = |(number, (is_err, ends)): (usize, &(bool, bool))| {
        let (start, slot) = (number as u64 * 10, usize::from(*is_err));
        let (first, lines) = open[slot].map_or((start, 1), |(first, lines)| (first, lines + 1));
        open[slot] = (!ends).then_some((first, lines));
        let event = ends.then_some((Span { start: first, end: start + 10 }, lines));
        (event, open.map(|open| open.map(|(first, _)| first)))
    };
    lines.iter().enumerate().map(step).collect()
}

proptest! {
    /// Whatever is confirmed in whatever order and however often reading goes back: every event is settled once, and counted
    /// once.
    #[test]
    fn every_event_is_settled_once(
        lines in proptest::collection::vec(any::<(bool, bool)>(), 1..40),
        actions in proptest::collection::vec((0_u8..12, 0_usize..100), 1..120),
    ) {
        let script = two_streams(&lines);
        let (mut acks, account) = (Acks::default(), Account::default());
        let (mut at, mut batch, mut settled) = (0_usize, 0, std::collections::BTreeMap::<u64, u64>::new());
        // By batch: its events, and their amount.
        let mut away: Vec<(u64, Vec<u64>, BatchFile)> = vec![];
        let whole = script.iter().filter_map(|(event, _)| *event).count();
        let rest = std::iter::repeat_n((0, 0), 200).chain(std::iter::repeat_n((9, 0), 200));
        for (action, index) in actions.into_iter().chain(rest) {
            let pending = at.checked_sub(1).map_or(NONE, |last| script[last].1);
            let read_to = pending.into_iter().flatten().fold(at as u64 * 10, u64::min);
            match action {
                0..=5 if at < script.len() => {
                    let (event, pending) = script[at];
                    at += 1;
                    acks.read(at as u64 * 10, true, 10);
                    let Some((span, lines)) = event else { continue };
                    let amount = Amount { lines, bytes: lines * 10 };
                    if acks.comes(span.start, pending) == Came::Passed {
                        continue;
                    }
                    if span.start % 70 == 0 {
                        let is_first = acks.left_out(span, amount, "rule");
                        *settled.entry(span.start).or_default() += u64::from(is_first);
                    } else if acks.emitted(batch, span, amount) == Emitted::Yes {
                        if away.last().is_none_or(|(number, ..)| *number != batch) {
                            away.push((batch, vec![], BatchFile { amount: Amount::default(), ..part(0, acks.epoch()) }));
                        }
                        let (_, events, part) = away.last_mut().expect("a batch");
                        events.push(span.start);
                        part.amount.add(amount);
                    }
                }
                6..=7 => batch += 1,
                8 => {
                    // From where an event begins that is not whole yet.
                    let start = acks.outside(read_to);
                    acks.step_back(pending);
                    at = start as usize / 10;
                }
                9..=10 if !away.is_empty() => {
                    let (number, events, part) = away.remove(index % away.len());
                    acks.settled(number, &part).enter(&account);
                    if part.epoch == acks.epoch() {
                        events.iter().for_each(|start| *settled.entry(*start).or_default() += 1);
                    }
                    batch += 1;
                    acks.passed(acks.position(read_to));
                }
                11 => {
                    let position = acks.position(read_to);
                    acks.set_back(pending);
                    at = position as usize / 10;
                    batch += 1;
                }
                _ => {}
            }
            acks.count_read(&account, true);
            prop_assert_eq!(account.lock().in_flight, acks.waiting);
        }
        prop_assert_eq!(settled.len(), whole);
        prop_assert!(settled.values().all(|times| *times == 1), "{:?}", settled);
        let held = script.last().map_or(NONE, |(_, pending)| *pending);
        let figures = account.lock();
        prop_assert_eq!(figures.read.lines, lines.len() as u64);
        prop_assert_eq!(acks.position(u64::MAX), u64::MAX);
        prop_assert!(held != NONE || figures.in_flight.is_empty(), "{:?}", figures);
    }

    /// Against a toy model that remembers each event: the position is the lowest start of an unconfirmed one, and lies within
    /// none.
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
            acks.emitted(batch, span, LINE);
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
