//! Which bytes of a file are confirmed: arithmetic over the batches that carry them.

use std::collections::VecDeque;

use super::{batch::BatchFile, record::Span};
use crate::metrics::ledger::{Account, Amount};

/// Why lines are lost that were set back to be read again, and were not there any more. Where their bytes were known to be
/// dropped, those have their own reason.
const GONE: &str = "gone";

/// The unconfirmed batches of one file.
///
/// An event's span may reach over another stream's lines, so what counts is where each batch's first byte lies, not where its
/// last one does: everything below the lowest unconfirmed byte is confirmed. A position within such a span would tear its
/// event apart at the next start, though: then it is the event's start, and the event is the same again, under the same id.
///
/// A line is counted when it is read for the first time. Events of two streams go out in any order, so an event is known by
/// where it begins: no two begin at one place.
///
/// A file may be set back to its position. Its events are then read again, the same ones, into later batches, and what
/// batches of before carry of it is settled by those. What was settled beyond the position is passed over.
#[derive(Debug, Default)]
pub struct Acks {
    outstanding: VecDeque<Outstanding>,
    /// Where events reach over lines that are not theirs: in order, those that overlap as one.
    torn: VecDeque<Span>,
    /// The events that were settled beyond the position, by their starts.
    done: Vec<Run>,
    /// The last of these, when the event that came last was left out and belongs to it.
    row: Option<Run>,
    /// What was left out since this was asked last, or cut off, by reason.
    left: Vec<(Why, Amount)>,
    /// How often it was set back.
    epoch: u32,
    /// The same since something was confirmed.
    holds: u32,
    /// The end of the line that was read last.
    cursor: u64,
    /// The end of the last line that was counted.
    counted: u64,
    /// The starts of the events that wait for more of their lines.
    pending: [Option<u64>; 2],
    /// The greatest start of an event in a batch, since reading went back last.
    top: Option<u64>,
    /// The events that came before reading went back for whatever reason.
    known: Known,
    /// The same since it was set back last: those are not taken again.
    taken: Known,
    /// What was counted since this was asked last.
    fresh: Amount,
    /// What was counted and is not settled.
    waiting: Amount,
    /// What of that is in batches of this epoch.
    carried: Amount,
}

/// What becomes of lines that never are in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// A rule left them out.
    Dropped(&'static str),
    /// They can't be shipped.
    Lost(&'static str),
}

/// Events that begin from here to there, the last one included: all of them, as far as they are not known to be elsewhere.
type Run = (u64, u64);

/// Which events came already.
#[derive(Debug, Default)]
struct Known {
    /// Those that begin below.
    to: u64,
    /// But not these.
    but: Vec<u64>,
}

impl Known {
    /// An event comes. Whether it had come before.
    fn take(&mut self, start: u64) -> bool {
        if start >= self.to {
            return false;
        }
        let but = self.but.len();
        self.but.retain(|pending| *pending != start);
        self.but.len() == but
    }

    /// All that was read up to here came, but for what is pending.
    fn reach(&mut self, to: u64, pending: [Option<u64>; 2]) {
        let new = pending.into_iter().flatten().filter(|start| *start >= self.to);
        self.but.extend(new);
        self.to = self.to.max(to);
    }
}

/// Whether an event goes into a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emitted {
    /// It does.
    Yes,
    /// It was settled before the file was set back.
    Settled,
}

/// Whether an event came before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Came {
    /// This is the first time.
    New,
    /// It did, and the file was set back.
    Again,
    /// It did, and only reading went back: it is not to be looked at any more.
    Passed,
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
    /// The events in it, the last of these runs apart: mostly there is no other.
    runs: Vec<Run>,
    last: Run,
}

impl Acks {
    /// A line of a file, or a record, was read that ends at `end`: so many bytes, and the beginning of a line or of none. It is
    /// counted if that is for the first time.
    pub fn read(&mut self, end: u64, begins_line: bool, bytes: u64) {
        self.cursor = end;
        if end > self.counted {
            self.counted = end;
            let amount = Amount { lines: u64::from(begins_line), bytes };
            self.waiting.add(amount);
            self.fresh.add(amount);
        }
    }

    /// An event is whole that begins at `start`; others wait for more of their lines, which begin at `pending`.
    pub fn comes(&mut self, start: u64, pending: [Option<u64>; 2]) -> Came {
        self.pending = pending;
        if self.taken.take(start) {
            // It may be in any batch.
            (self.top, self.row) = (self.top.max(Some(start)), None);
            return Came::Passed;
        }
        if self.known.take(start) { Came::Again } else { Came::New }
    }

    /// The same, when only what waits is to be told.
    pub fn wait_for(&mut self, pending: [Option<u64>; 2]) {
        self.pending = pending;
    }

    /// An event at `span`, of which `amount` is its own, goes into `batch`, if it was not settled. Batches are numbered upwards.
    pub fn emitted(&mut self, batch: u64, span: Span, amount: Amount) -> Emitted {
        if self.is_over(span, amount.bytes) {
            return Emitted::Settled;
        }
        let start = span.start;
        let (top, pending) = (self.top, self.pending);
        match self.outstanding.back_mut().filter(|last| last.batch == batch) {
            None => {
                let last = (start, start);
                self.outstanding.push_back(Outstanding { batch, low: start, runs: Vec::new(), last });
            }
            Some(own) => {
                own.low = own.low.min(start);
                if Some(own.last.1) == top && is_next(pending, own.last.1, start) {
                    own.last.1 = start;
                } else if Some(start) > top {
                    own.runs.push(std::mem::replace(&mut own.last, (start, start)));
                } else {
                    own.runs.push((start, start));
                }
            }
        }
        self.row = None;
        self.top = self.top.max(Some(start));
        self.carried.add(amount);
        Emitted::Yes
    }

    /// An event at `span`, of which `amount` is its own, was left out: nobody waits for it, and it is passed over when it is read
    /// again. Whether it was counted now.
    pub fn left_out(&mut self, span: Span, amount: Amount, reason: &'static str) -> bool {
        if self.is_over(span, amount.bytes) {
            return false;
        }
        let start = span.start;
        let row = self.row.filter(|row| is_next(self.pending, row.1, start));
        let row = (row.map_or(start, |row| row.0), start);
        self.settle(row);
        self.row = Some(row).filter(|_| Some(start) > self.top);
        self.leaves(Why::Dropped(reason), amount);
        true
    }

    /// So many bytes of an event that came for the first time are not shipped with it.
    pub fn cut(&mut self, reason: &'static str, bytes: u64) {
        self.leaves(Why::Lost(reason), Amount::of_bytes(bytes));
    }

    fn leaves(&mut self, why: Why, amount: Amount) {
        let amount = self.waiting.take(amount);
        match self.left.iter_mut().find(|(known, _)| *known == why) {
            Some((_, known)) => known.add(amount),
            None => self.left.push((why, amount)),
        }
    }

    /// Whether an event that came was settled already. No position may lie within it in any case.
    fn is_over(&mut self, span: Span, bytes: u64) -> bool {
        if bytes < span.end - span.start {
            self.tear(span);
        }
        span.start < self.known.to && self.is_done(span.start)
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

    /// The last offset up to this one that lies within no event.
    pub fn outside(&self, offset: u64) -> u64 {
        let torn = self.torn.get(self.torn.partition_point(|torn| torn.end <= offset));
        torn.map_or(offset, |torn| torn.start.min(offset))
    }

    fn is_done(&self, start: u64) -> bool {
        let run = self.done.get(self.done.partition_point(|(_, last)| *last < start));
        run.is_some_and(|(first, _)| *first <= start)
    }

    /// The events of a run are settled, and so is what lies between those of two that overlap.
    fn settle(&mut self, mut run: Run) {
        let place = self.done.partition_point(|(_, last)| *last < run.0);
        let mut end = place;
        while let Some((first, last)) = self.done.get(end).filter(|(first, _)| *first <= run.1) {
            run = (run.0.min(*first), run.1.max(*last));
            end += 1;
        }
        self.done.splice(place..end, [run]);
    }

    /// Enters into the account what was read since this was done last and, unless some of it is held still, what was set back
    /// and was gone when its turn came. How much was read.
    pub fn count_read(&mut self, account: &Account, is_held: bool) -> Amount {
        let fresh = std::mem::take(&mut self.fresh);
        let is_over = !is_held && self.cursor >= self.counted;
        let gone = if is_over { self.give_up() } else { Amount::default() };
        let mut figures = account.lock();
        figures.read(fresh);
        for (why, amount) in self.left.drain(..) {
            match why {
                Why::Dropped(reason) => figures.dropped(reason, amount),
                Why::Lost(reason) => figures.gone(reason, amount),
            }
        }
        figures.gone(GONE, gone);
        fresh
    }

    /// What is in no batch will not be read any more: how much that is.
    pub fn give_up(&mut self) -> Amount {
        let mut rest = self.waiting;
        rest.take(self.carried);
        self.waiting.take(rest)
    }

    /// So many bytes that were not read yet are lost: those of them that were read before, and set back. `held` is what was
    /// read and is in no batch yet.
    pub fn lose(&mut self, bytes: u64, held: Amount) -> Amount {
        let mut back = self.waiting;
        back.take(self.carried);
        back.take(held);
        self.waiting.take(Amount::of_bytes(bytes.min(back.bytes)))
    }

    /// Everything in `batch` is where it has to be. Batches may be confirmed in any order.
    fn confirmed(&mut self, batch: u64) {
        let Some(at) = self.outstanding.iter().position(|outstanding| outstanding.batch == batch) else {
            return;
        };
        if let Some(Outstanding { runs, last, .. }) = self.outstanding.remove(at) {
            runs.into_iter().chain([last]).for_each(|run| self.settle(run));
            self.row = None;
        }
    }

    /// Everything of this part of a batch is settled. What was read before the file was set back says nothing.
    pub fn settled(&mut self, batch: u64, part: &BatchFile) -> Settled {
        if part.epoch != self.epoch {
            return Settled::default();
        }
        self.holds = 0;
        self.confirmed(batch);
        self.carried.take(part.amount);
        self.waiting.take(part.amount);
        Settled::whole(part)
    }

    /// Reading goes back to where events begin that were not whole yet, at `pending`; what came since is passed over.
    pub fn step_back(&mut self, pending: [Option<u64>; 2]) {
        self.known.reach(self.counted, pending);
        self.taken.reach(self.cursor, pending);
        self.go_back();
    }

    /// Everything from the position on is read again: batches of before say no more of it. `pending` is where events begin that
    /// were not whole yet. How often that was since something was confirmed.
    pub fn set_back(&mut self, pending: [Option<u64>; 2]) -> u32 {
        self.outstanding.clear();
        self.known.reach(self.counted, pending);
        self.taken = Known::default();
        self.carried = Amount::default();
        self.go_back();
        self.epoch += 1;
        self.holds = self.holds.saturating_add(1);
        self.holds
    }

    fn go_back(&mut self) {
        (self.cursor, self.pending, self.top, self.row) = (0, [None; 2], None, None);
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
        self.outside(self.outstanding.iter().map(|outstanding| outstanding.low).fold(read_to, u64::min))
    }

    /// Gives back room that is not needed.
    pub fn shrink(&mut self) {
        self.outstanding.shrink_to_fit();
        self.torn.shrink_to_fit();
        self.done.shrink_to_fit();
    }

    /// The position will never again be below `position`.
    pub fn passed(&mut self, position: u64) {
        while self.torn.front().is_some_and(|torn| torn.end <= position) {
            self.torn.pop_front();
        }
        let over = self.done.partition_point(|(_, last)| *last < position);
        self.done.drain(..over);
        for known in [&mut self.known, &mut self.taken] {
            if known.to <= position {
                *known = Known::default();
            }
        }
        self.row = None;
    }
}

/// Whether no event that is not whole yet lies between two.
fn is_next(pending: [Option<u64>; 2], last: u64, start: u64) -> bool {
    last < start && !pending.into_iter().flatten().any(|pending| last < pending && pending < start)
}

#[cfg(test)]
mod tests;
