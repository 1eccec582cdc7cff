//! Which bytes of a file are confirmed: arithmetic over the batches that carry them.

use std::collections::VecDeque;

use super::record::Span;

/// The unconfirmed batches of one file.
///
/// A line's span may reach over another stream's lines, so what counts is where each batch's first byte lies, not where its
/// last one does: everything below the lowest unconfirmed byte is confirmed. A position within such a span would tear its
/// line apart at the next start, though: then it is the line's start, and the line is the same again, under the same id.
#[derive(Debug, Default)]
pub struct Acks {
    outstanding: VecDeque<Outstanding>,
    /// Lines in parts that reach over other lines.
    torn: Vec<Span>,
}

#[derive(Debug)]
struct Outstanding {
    batch: u64,
    low: u64,
}

impl Acks {
    /// A line at `span`, of which `bytes` are its own, went into `batch`. Batches are numbered upwards.
    pub fn emitted(&mut self, batch: u64, span: Span, bytes: u64) {
        let low = span.start;
        if bytes < span.end - span.start {
            self.torn.push(span);
        }
        match self.outstanding.back_mut() {
            Some(last) if last.batch == batch => last.low = last.low.min(low),
            _ => self.outstanding.push_back(Outstanding { batch, low }),
        }
    }

    /// Everything in `batch` is where it has to be. Batches may be confirmed in any order.
    pub fn confirmed(&mut self, batch: u64) {
        self.outstanding.retain(|outstanding| outstanding.batch != batch);
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
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
