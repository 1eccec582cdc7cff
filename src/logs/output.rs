//! The way out of the reader: a physical line becomes a document in a batch, a full batch goes to the queue.

use std::{
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use tokio::sync::mpsc;

use super::{
    ack::{Acks, Came, Emitted},
    batch::{Batch, BatchLimits, Batcher, FileKey},
    file::{Identity, LogFile},
    format::{
        parse_container_line, parse_plain_line,
        syslog::{Guess, clock::Clock},
    },
    join::{Joined, Joiner, Piece, limit},
    process::{Outlet, Process, rules::Reason},
    record::{FileFacts, Line, Origin, Span},
    shape::Shape,
};
use crate::metrics::{ledger::Amount, own::LogMetrics};

/// Room for what a container runtime or syslog writes before the text of a line.
pub const LINE_HEADER: usize = 256;
/// Room that a document takes beyond its text, for deciding whether it fits into a batch.
const DOCUMENT_OVERHEAD: usize = 1024;

/// Why text is lost that is longer than allowed.
pub const LINE_TOO_LONG: &str = "line_too_long";

/// Turns lines into batches. The queue has as many places as there are batches, so handing one over never waits.
pub struct Output {
    batcher: Batcher,
    queue: Option<mpsc::Sender<Batch>>,
    books: Books,
    /// The text of the last line that came in parts.
    whole: Vec<u8>,
}

/// A batch with room for a line, and what else it takes to enter one.
struct Room<'a> {
    batch: &'a mut Batch,
    books: &'a mut Books,
    whole: &'a mut Vec<u8>,
}

/// Where a record comes from, and what is kept of it there.
#[derive(Debug)]
pub struct Place<'a> {
    /// Its key in batches.
    pub key: FileKey,
    /// The facts that travel with its lines.
    pub facts: &'a Arc<FileFacts>,
    /// Its share of the documents.
    pub shape: &'a mut Shape,
    /// Batches waiting for their confirmation.
    pub acks: &'a mut Acks,
    /// What is done with its lines, if anything is.
    pub process: &'a mut Option<Box<Process>>,
}

impl<'a> Place<'a> {
    /// That of a file; `None` while what its documents share is not rendered.
    fn of(key: FileKey, identity: &'a mut Identity, acks: &'a mut Acks) -> Option<Self> {
        let Identity { facts, shape: Some(shape), process, .. } = identity else { return None };
        Some(Self { key, facts, shape, acks, process })
    }
}

/// A physical line of a file as it was read.
#[derive(Debug, Clone, Copy)]
pub struct Read<'a> {
    /// What it holds, without its newline.
    pub text: &'a [u8],
    /// What was read after it.
    pub rest: &'a [u8],
    /// Where it lies.
    pub span: Span,
}

/// Whether a line was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is in a batch, or held until it is whole.
    Yes,
    /// Every buffer is on its way: try again after a confirmation.
    NoRoom,
}

impl Output {
    /// A way out into `queue`; text beyond `max_line` bytes of a line is left out.
    pub fn new(
        limits: BatchLimits,
        queue: mpsc::Sender<Batch>,
        max_line: usize,
        metrics: LogMetrics,
    ) -> Self {
        let books = Books {
            max_line,
            metrics,
            marked: Vec::new(),
            clock: Clock::default(),
            fields: Vec::new(),
            now: Instant::now(),
            left_out: false,
        };
        Self { batcher: Batcher::new(limits), queue: Some(queue), books, whole: Vec::new() }
    }

    /// Takes one physical line of an identified file, its newline already off; `rest` is what was read after it.
    pub fn take(&mut self, key: FileKey, file: &mut LogFile, line: Read<'_>, now: Instant) -> Taken {
        let Read { text, rest, span } = line;
        let parsed = match file.origin {
            Origin::Container(_) => parse_container_line(text),
            Origin::Plain | Origin::Journal | Origin::Kernel | Origin::Canary => parse_plain_line(text),
        };
        while let Some(stream) = file.joiner.is_over(&parsed, span) {
            let held = file.joiner.held_by(stream);
            let released =
                self.give_out(key, file, held, now, |joiner, whole| Some(joiner.release(stream, whole)));
            if released == Taken::NoRoom {
                return Taken::NoRoom;
            }
        }
        let LogFile { joiner, identity: Some(identity), acks, origin, format, guess, .. } = file else {
            return Taken::Yes;
        };
        let guess = origin.container().is_none().then_some(guess);
        let Some(Room { batch, books, whole }) =
            self.room_for(joiner.held_bytes() + text.len(), identity, now)
        else {
            return Taken::NoRoom;
        };
        *format = parsed.format;
        acks.read(span.end, joiner.begins_line(parsed.stream), span.end - span.start);
        let time = parsed.time.unwrap_or_else(wall_clock);
        let piece = Piece { parsed: &parsed, raw: (text, rest), span, time, now };
        let joined = joiner.push(&piece, books.max_text(origin), whole);
        if let Some(place) = Place::of(key, identity, acks) {
            books.enter(place, &joined, joiner.pending(), guess, batch);
        }
        Taken::Yes
    }

    /// Takes one whole record; `cut` bytes were left out at its end, and `fields` are members of its document.
    pub fn take_record(
        &mut self,
        place: Place<'_>,
        line: &Line<'_>,
        cut: u64,
        fields: &[u8],
        now: Instant,
    ) -> Taken {
        let Some(Room { batch, books, .. }) = self.room(line.text.len() + fields.len(), now) else {
            return Taken::NoRoom;
        };
        place.acks.read(line.span.end, true, line.bytes);
        books.write(place, line, cut, [None; 2], fields, batch);
        Taken::Yes
    }

    /// Gives out what is held although its end never came, when nothing more comes.
    pub fn take_held(&mut self, key: FileKey, file: &mut LogFile, now: Instant) -> Taken {
        while !file.joiner.is_empty() {
            let held = file.joiner.held_bytes();
            if self.give_out(key, file, held, now, Joiner::flush) == Taken::NoRoom {
                return Taken::NoRoom;
            }
        }
        self.rest(key, file, true, now)
    }

    /// Gives out the events that were ended by [`Joiner::cut`].
    pub fn take_cut(&mut self, key: FileKey, file: &mut LogFile, now: Instant) -> Taken {
        while file.joiner.has_cut() {
            let held = file.joiner.held_bytes();
            if self.give_out(key, file, held, now, Joiner::flush_cut) == Taken::NoRoom {
                return Taken::NoRoom;
            }
        }
        Taken::Yes
    }

    /// Gives out one event of `held` bytes.
    fn give_out(
        &mut self,
        key: FileKey,
        file: &mut LogFile,
        held: usize,
        now: Instant,
        next: impl for<'a> FnOnce(&mut Joiner, &'a mut Vec<u8>) -> Option<Joined<'a>>,
    ) -> Taken {
        let LogFile { joiner, identity: Some(identity), acks, origin, guess, .. } = file else {
            // Nothing of it was ever read.
            file.joiner.reset();
            return Taken::Yes;
        };
        let Some(Room { batch, books, whole }) = self.room_for(held, identity, now) else {
            return Taken::NoRoom;
        };
        let Some(place) = Place::of(key, identity, acks) else { return Taken::NoRoom };
        let guess = origin.container().is_none().then_some(guess);
        if let Some(joined) = next(joiner, whole) {
            books.enter(place, &joined, joiner.pending(), guess, batch);
        }
        Taken::Yes
    }

    /// Says how many lines of a file were left out, when it is time for that.
    pub fn take_due(&mut self, key: FileKey, file: &mut LogFile, now: Instant) -> Taken {
        let process = file.identity.as_ref().and_then(|identity| identity.process.as_ref());
        if process.and_then(|process| process.due()).is_some_and(|due| now >= due) {
            self.rest(key, file, false, now)
        } else {
            Taken::Yes
        }
    }

    /// Whether lines were left out since it was asked last: positions may have moved without a confirmation.
    pub fn take_left_out(&mut self) -> bool {
        std::mem::take(&mut self.books.left_out)
    }

    /// Whether the next call of that would say yes.
    pub fn has_left_out(&self) -> bool {
        self.books.left_out
    }

    /// Nothing more comes of a file, for now or for ever.
    fn rest(&mut self, key: FileKey, file: &mut LogFile, is_end: bool, now: Instant) -> Taken {
        let LogFile { identity: Some(identity), joiner, acks, .. } = file else { return Taken::Yes };
        if identity.process.as_ref().is_none_or(|process| process.due().is_none()) {
            return Taken::Yes;
        }
        let Some(Room { batch, books, .. }) = self.room_for(0, identity, now) else { return Taken::NoRoom };
        let Identity { facts, shape: Some(shape), process: Some(process), .. } = identity else {
            return Taken::Yes;
        };
        acks.wait_for(joiner.pending());
        let mut entering = Entering { books, key, facts, shape, acks, batch, is_new: false };
        process.rest((!is_end).then_some(now), &mut entering);
        Taken::Yes
    }

    /// Hands over the open batch when it is old enough, or in any case when there will be no more lines.
    pub fn close_aged(&mut self, now: Instant, last: bool) {
        if let Some(batch) = self.batcher.close_aged(now, last) {
            self.hand_over(batch);
        }
    }

    /// Lines that are taken now may have been written since then.
    pub fn written_since(&mut self, time: Instant) {
        self.batcher.written_since(time);
    }

    /// When the open batch has to leave at the latest.
    pub fn due(&self) -> Option<Instant> {
        self.batcher.due()
    }

    /// Takes a confirmed batch back.
    pub fn give_back(&mut self, batch: Batch) {
        self.batcher.give_back(batch);
    }

    /// No more lines will come: the shipper sees the end of the queue.
    pub fn close(&mut self, now: Instant) {
        self.close_aged(now, true);
        self.queue = None;
    }

    /// A batch with room for a document of `text` bytes.
    fn room(&mut self, text: usize, now: Instant) -> Option<Room<'_>> {
        if let Some(full) = self.batcher.close_full(text + DOCUMENT_OVERHEAD) {
            self.hand_over(full);
        }
        self.books.now = now;
        Some(Room { batch: self.batcher.open(now)?, books: &mut self.books, whole: &mut self.whole })
    }

    /// The same for one of a file, with what is done with its lines.
    fn room_for(&mut self, text: usize, identity: &Identity, now: Instant) -> Option<Room<'_>> {
        let process = identity.process.as_ref().map_or(0, |process| process.room(text));
        self.room(text + process, now)
    }

    fn hand_over(&self, batch: Batch) {
        let Some(queue) = &self.queue else { return };
        if let Err(error) = queue.try_send(batch) {
            // Only when the shipper has ended: its lines stay unconfirmed and are read again at the next start.
            tracing::debug!(%error, "a batch was left behind");
        }
    }
}

/// Who writes lines into batches and keeps the accounts of it.
struct Books {
    max_line: usize,
    metrics: LogMetrics,
    /// The text of a cut line with the mark at its end.
    marked: Vec<u8>,
    /// Knows the year of syslog lines.
    clock: Clock,
    /// What a syslog line says beside its message, as members of its document.
    fields: Vec<u8>,
    /// The time of the turn.
    now: Instant,
    /// Whether lines were left out.
    left_out: bool,
}

/// A place and a batch, where lines of the one go into the other.
struct Entering<'a> {
    books: &'a mut Books,
    key: FileKey,
    facts: &'a Arc<FileFacts>,
    shape: &'a mut Shape,
    acks: &'a mut Acks,
    batch: &'a mut Batch,
    /// Whether the event at hand comes for the first time.
    is_new: bool,
}

impl Outlet for Entering<'_> {
    fn is_new(&self) -> bool {
        self.is_new
    }

    fn document(&mut self, line: &Line<'_>, fields: &[u8], extra: &[u8]) {
        let amount = line.amount();
        if self.acks.emitted(self.batch.number, line.span, amount) == Emitted::Settled {
            return;
        }
        let is_utf8 = self.shape.encode_with(line, fields, extra, &mut self.batch.body);
        self.batch.push(self.key, self.facts, amount, self.acks.epoch());
        if self.is_new && !is_utf8 {
            self.books.metrics.invalid_utf8_lines.inc();
        }
    }

    fn dropped(&mut self, span: Span, amount: Amount, reason: Reason) {
        self.books.left_out |= self.acks.left_out(span, amount, reason.as_str());
    }

    fn overflowed(&mut self, fields: u64) {
        self.books.metrics.overflowed_fields.inc_by(fields);
    }
}

impl Books {
    /// How much of a line's text is kept. A syslog line is measured when it is taken apart.
    fn max_text(&self, origin: &Origin) -> usize {
        self.max_line + if origin.container().is_some() { 0 } else { LINE_HEADER }
    }

    /// Writes what became of a line into the batch; other events begin at `pending`.
    fn enter(
        &mut self,
        place: Place<'_>,
        joined: &Joined<'_>,
        pending: [Option<u64>; 2],
        guess: Option<&mut Guess>,
        batch: &mut Batch,
    ) {
        let Some(line) = &joined.line else { return };
        match guess {
            Some(guess) => self.enter_text(place, guess, line, joined.cut, pending, batch),
            None => self.write(place, line, joined.cut, pending, b"", batch),
        }
    }

    /// An event of a file that is not a container's. Where lines become documents, a syslog line is taken apart; else it is
    /// kept as it is, with its time.
    fn enter_text(
        &mut self,
        place: Place<'_>,
        guess: &mut Guess,
        line: &Line<'_>,
        mut cut: u64,
        pending: [Option<u64>; 2],
        batch: &mut Batch,
    ) {
        let mut line = *line;
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        if let Some(entry) = guess.read(line.text) {
            line.time = self.clock.nanos(entry.time, line.time);
            if let Some((schema, node)) = place.shape.document() {
                entry.render(schema, node, &mut fields);
                line.text = entry.message;
            }
        }
        if line.lines == 1 {
            let beyond;
            (line.text, beyond) = limit(line.text, self.max_line);
            cut += beyond;
        }
        self.write(place, &line, cut, pending, &fields, batch);
        self.fields = fields;
    }

    fn write(
        &mut self,
        place: Place<'_>,
        line: &Line<'_>,
        cut: u64,
        pending: [Option<u64>; 2],
        fields: &[u8],
        batch: &mut Batch,
    ) {
        let Place { key, facts, shape, acks, process } = place;
        let came = acks.comes(line.span.start, pending);
        if came == Came::Passed {
            return;
        }
        let is_new = came == Came::New;
        let mut marked = std::mem::take(&mut self.marked);
        let line = if cut > 0 {
            // What is read again was counted.
            if is_new {
                acks.cut(LINE_TOO_LONG, cut.min(line.bytes));
            }
            mark_cut(line, cut, &mut marked)
        } else {
            *line
        };
        let now = self.now;
        let mut entering = Entering { books: self, key, facts, shape, acks, batch, is_new };
        match process {
            None => entering.document(&line, fields, b""),
            Some(process) => process.take(&line, fields, &mut entering, now),
        }
        self.marked = marked;
    }
}

/// The line with the mark at its end, without the bytes that were cut off.
fn mark_cut<'a>(line: &Line<'a>, cut: u64, marked: &'a mut Vec<u8>) -> Line<'a> {
    marked.clear();
    marked.extend_from_slice(line.text);
    marked.extend_from_slice(b" [cut by nodewarden]");
    Line { text: marked, bytes: line.bytes.saturating_sub(cut), ..*line }
}

/// Nanoseconds since the epoch.
pub fn wall_clock() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64)
}
