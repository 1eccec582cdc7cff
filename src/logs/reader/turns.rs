//! Files are read in turns, a block of each.

use std::time::Instant;

use super::Reader;
use crate::logs::{
    batch::FileKey,
    turn::{Ended, TURN, Turn},
};

impl Reader {
    /// Gives every container in the queue one turn.
    pub(super) fn read_turns(&mut self, now: Instant) {
        for _ in 0..self.turns.len() {
            if self.blocked {
                return;
            }
            let Some(next) = self.turns.take() else { return };
            let wants_more = self.read_turn(next.key, now);
            if self.blocked && wants_more {
                // What it holds of a line stays with it alone.
                return self.turns.stay(next);
            }
            if !wants_more && let Some(file) = self.table.get_mut(next.key) {
                file.queued = false;
                file.rest();
            }
            self.turns.end(next, wants_more);
        }
    }

    /// Reads a block of one file. Whether it wants another turn.
    fn read_turn(&mut self, key: FileKey, now: Instant) -> bool {
        let Some(file) = self.table.for_turn(key, now) else { return false };
        let others = self.parts.saturating_sub(file.joiner.held_bytes());
        let furthest = (self.max_line + 4 * TURN) as u64;
        let start = file.read_to;
        let mut ended;
        loop {
            let turn = Turn { key, file, output: &mut self.output, max_line: self.max_line, now };
            ended = turn.run(&mut self.buffer);
            let held = file.joiner.held_bytes();
            let is_over = held > 0 && others + held > self.memory.parts;
            let begun = file.acks.outside(file.joiner.pending_from().unwrap_or(file.read_to));
            match ended {
                // The end of the event gives its memory back. What begins later is read in the next turn.
                Ended::More if is_over && begun <= start && file.read_to - begun <= furthest => {}
                Ended::More if is_over => {
                    file.release_parts(furthest);
                    break;
                }
                _ => break,
            }
        }
        self.parts = others + file.joiner.held_bytes();
        self.blocked = ended == Ended::NoRoom;
        if ended == Ended::Done && self.parts > self.memory.parts {
            self.relieve(now);
            if self.parts > self.memory.parts
                && let Some(file) = self.table.get_mut(key)
            {
                let held = file.joiner.held_bytes();
                file.release_parts(furthest);
                self.parts = self.parts.saturating_sub(held) + file.joiner.held_bytes();
            }
        }
        // What lies in it is left there: emptied, it would be filled with zeros before the next read.
        self.buffer.truncate(TURN);
        self.buffer.shrink_to(TURN);
        if let Some(file) = self.table.get_mut(key) {
            let fresh = file.count_read();
            if fresh.lines > 0
                && file.identity.as_ref().is_some_and(|identity| identity.facts.pod.is_unknown())
            {
                let namespace = [file.origin.namespace()];
                self.metrics.partial_lines.with_label_values(&namespace).inc_by(fresh.lines);
            }
        }
        self.spiller.count_damaged(&mut self.table);
        if self.output.has_left_out()
            && let Some(file) = self.table.get_mut(key)
        {
            // Nothing will be confirmed of these lines.
            file.passed();
        }
        if ended == Ended::Done {
            self.table.after_turn(key);
        }
        // One turn of a file that is held shows whether it still is.
        ended != Ended::Done && self.table.get_mut(key).is_some_and(|file| file.may_be_read(now))
    }

    /// Gives every feed one turn.
    pub(super) fn read_feeds(&mut self, now: Instant) {
        if !self.blocked {
            self.blocked = !self.feeds.read(&mut self.output, now);
        }
    }
}
