//! One turn of one file: a block of its bytes, cut into lines that go out.

use std::{io, time::Instant};

use super::{
    batch::FileKey,
    file::LogFile,
    output::{LINE_HEADER, Output, Read, Taken},
    record::Span,
    tail::Tail,
};

/// Bytes read of one file before the next one has its turn.
pub const TURN: usize = 256 * 1024;
/// The same of a file whose lines the sink holds, to see whether it takes them now.
pub const PROBE: usize = 16 * 1024;

/// A file whose turn it is.
pub struct Turn<'a> {
    /// The file's key.
    pub key: FileKey,
    /// The file.
    pub file: &'a mut LogFile,
    /// Where its lines go.
    pub output: &'a mut Output,
    /// Longer text is cut, in bytes.
    pub max_line: usize,
    /// The time of the turn.
    pub now: Instant,
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// There is more to read.
    More,
    /// All there is was read, or can't be read now.
    Done,
    /// Every buffer is on its way.
    NoRoom,
}

/// What a piece of a file is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Piece {
    /// A line; its newline was taken off.
    Line,
    /// The end of the file, where a newline is missing and will not come.
    LastWords,
    /// As much as is allowed of a line whose end is further on.
    Middle,
}

impl Turn<'_> {
    /// Reads a block into `buffer` and takes its lines.
    pub fn run(mut self, buffer: &mut Vec<u8>) -> Ended {
        if self.skip_gap().is_none() || self.output.take_due(self.key, self.file, self.now) == Taken::NoRoom {
            return Ended::NoRoom;
        }
        let start = self.file.read_to;
        let is_full = match self.fill(buffer) {
            Ok(is_full) => is_full,
            Err(error) => {
                self.file.fail("could not be read", &error);
                return Ended::Done;
            }
        };
        self.file.mend();
        let block_end = start + buffer.len() as u64;
        if let Some(size) = self.file.tail.as_ref().and_then(Tail::unpacked_size) {
            self.file.size = size;
        }
        let taken = self.take_lines(buffer);
        self.file.remember_end(&buffer[..(self.file.read_to - start) as usize]);
        let Some(taken) = taken else { return Ended::NoRoom };
        self.file.tried = block_end;
        let rest = &buffer[taken..];
        if taken == 0 && rest.len() >= self.longest() {
            return self.take(rest, &[], Piece::Middle).map_or(Ended::NoRoom, |()| Ended::More);
        }
        if self.is_gap(block_end) {
            return self.take_last_words(rest).map_or(Ended::NoRoom, |()| Ended::More);
        }
        if self.file.is_complete(self.now) && block_end >= self.file.size {
            return self.take_last_words(rest).map_or(Ended::NoRoom, |()| Ended::Done);
        }
        if is_full && taken > 0 { Ended::More } else { Ended::Done }
    }

    /// Goes over bytes that were dropped from the spill: who dropped them counted them. A line that was begun before ends there.
    fn skip_gap(&mut self) -> Option<()> {
        let at = self.file.read_to;
        if !self.is_gap(at) {
            return Some(());
        }
        if self.output.take_held(self.key, self.file, self.now) == Taken::NoRoom {
            return None;
        }
        self.file.overlong = None;
        self.file.read_to = self.file.tail.as_ref().map_or(at, |tail| tail.readable_from(at));
        self.file.tried = self.file.read_to;
        Some(())
    }

    /// Whether the bytes at this offset were dropped.
    fn is_gap(&self, offset: u64) -> bool {
        let tail = self.file.tail.as_ref().filter(|tail| tail.is_spilled());
        offset < self.file.size && tail.is_some_and(|tail| tail.readable_from(offset) > offset)
    }

    /// What may lie between two newlines: a line in a shorter one is seen whole before its text is cut, so that its time and
    /// stream are known whatever the format.
    fn longest(&self) -> usize {
        (self.max_line + LINE_HEADER).max(TURN)
    }

    /// Reads the next block, a larger one where a line needs it. Whether the file may hold more.
    fn fill(&self, buffer: &mut Vec<u8>) -> io::Result<bool> {
        let Some(tail) = &self.file.tail else {
            buffer.clear();
            return Ok(false);
        };
        if self.file.is_held() {
            tail.read_block(self.file.read_to, buffer, PROBE)?;
            if buffer.len() < PROBE || memchr::memchr(b'\n', buffer).is_some() {
                return Ok(buffer.len() == PROBE);
            }
        }
        tail.read_block(self.file.read_to, buffer, TURN)?;
        if buffer.len() < TURN || self.longest() == TURN || memchr::memchr(b'\n', buffer).is_some() {
            return Ok(buffer.len() == TURN);
        }
        tail.read_block(self.file.read_to, buffer, self.longest())?;
        Ok(buffer.len() == self.longest())
    }

    /// Takes the whole lines of a block; how many bytes they are, or `None` when there was no room for all.
    fn take_lines(&mut self, block: &[u8]) -> Option<usize> {
        let mut taken = 0;
        while let Some(length) = memchr::memchr(b'\n', &block[taken..]) {
            let (line, rest) = block[taken..].split_at(length);
            self.take(line, &rest[1..], Piece::Line)?;
            taken += length + 1;
        }
        Some(taken)
    }

    /// Takes the next piece of the file; `rest` is what was read after it. Of a line that is longer than allowed the first piece
    /// goes out, the others are passed over. `None` when there is no room.
    fn take(&mut self, text: &[u8], rest: &[u8], piece: Piece) -> Option<()> {
        let start = self.file.read_to;
        let end = start + text.len() as u64 + u64::from(piece == Piece::Line);
        if self.file.overlong.is_some() {
            let cut_to = start + text.len() as u64;
            self.file.count_cut(cut_to.saturating_sub(start.max(self.file.cut_to)));
            self.file.cut_to = self.file.cut_to.max(cut_to);
        } else {
            let read = Read { text, rest, span: Span { start, end } };
            if self.output.take(self.key, self.file, read, self.now) == Taken::NoRoom {
                return None;
            }
        }
        self.file.read_to = end;
        let begun = self.file.overlong.take().unwrap_or(start);
        self.file.overlong = (piece == Piece::Middle).then_some(begun);
        Some(())
    }

    /// What a file holds after its last newline when no more will come, and parts whose end never came.
    fn take_last_words(&mut self, rest: &[u8]) -> Option<()> {
        if !rest.is_empty() || self.file.overlong.is_some() {
            self.take(rest, &[], Piece::LastWords)?;
        }
        (self.output.take_held(self.key, self.file, self.now) == Taken::Yes).then_some(())
    }
}
