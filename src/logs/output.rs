//! The way out of the reader: a physical line becomes a document in a batch, a full batch goes to the queue.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use tokio::sync::mpsc;

use super::{
    ack::Acks,
    batch::{Batch, BatchLimits, Batcher, FileKey},
    file::{Counters, Identity, LogFile},
    format::{
        parse_container_line, parse_plain_line,
        syslog::{Guess, clock::Clock},
    },
    join::{Joined, Joiner, Piece, limit},
    record::{FileFacts, Line, Origin, Span},
    shape::Shape,
};
use crate::metrics::own::LogMetrics;

/// Room for what a container runtime or syslog writes before the text of a line.
pub const LINE_HEADER: usize = 256;
/// Room that a document takes beyond its text, for deciding whether it fits into a batch.
const DOCUMENT_OVERHEAD: usize = 1024;

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
    /// What is counted.
    pub counters: &'a Counters,
    /// Batches waiting for their confirmation.
    pub acks: &'a mut Acks,
}

impl<'a> Place<'a> {
    fn of(key: FileKey, identity: &'a mut Identity, acks: &'a mut Acks) -> Self {
        let Identity { facts, shape, counters, .. } = identity;
        Self { key, facts, shape, counters, acks }
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
        in_flight: Arc<AtomicU64>,
    ) -> Self {
        let books = Books {
            max_line,
            metrics,
            in_flight,
            marked: Vec::new(),
            clock: Clock::default(),
            fields: Vec::new(),
        };
        Self { batcher: Batcher::new(limits), queue: Some(queue), books, whole: Vec::new() }
    }

    /// Takes one physical line of an identified file, its newline already off; `rest` is what was read after it.
    pub fn take(&mut self, key: FileKey, file: &mut LogFile, line: Read<'_>, now: Instant) -> Taken {
        let Read { text, rest, span } = line;
        let parsed = match file.origin {
            Origin::Container(_) => parse_container_line(text),
            Origin::Plain | Origin::Journal | Origin::Kernel => parse_plain_line(text),
        };
        while let Some(stream) = file.joiner.is_over(&parsed, span) {
            let held = file.joiner.held_by(stream);
            if self.give_out(key, file, held, now, |joiner, whole| Some(joiner.release(stream, whole)))
                == Taken::NoRoom
            {
                return Taken::NoRoom;
            }
        }
        let LogFile { joiner, identity: Some(identity), acks, origin, format, guess, .. } = file else {
            return Taken::Yes;
        };
        let guess = origin.container().is_none().then_some(guess);
        let Some(Room { batch, books, whole }) = self.room(joiner.held_bytes() + text.len(), now) else {
            return Taken::NoRoom;
        };
        *format = guess.as_ref().map_or(parsed.format, |guess| guess.format());
        let bytes = span.end - span.start;
        let is_new = books.read(&identity.counters, acks, span.end, joiner.begins_line(parsed.stream), bytes);
        let time = parsed.time.unwrap_or_else(wall_clock);
        let piece = Piece { parsed: &parsed, raw: (text, rest), span, time, is_new, now };
        let joined = joiner.push(&piece, books.max_text(origin), whole);
        books.enter(Place::of(key, identity, acks), &joined, guess, batch);
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
        let is_new = books.read(place.counters, place.acks, line.span.end, true, line.bytes);
        books.write(place, line, cut, is_new, fields, batch);
        Taken::Yes
    }

    /// Gives out what is held although its end never came, when nothing more comes.
    pub fn take_held(&mut self, key: FileKey, file: &mut LogFile, now: Instant) -> Taken {
        let mut taken = Taken::Yes;
        while taken == Taken::Yes && !file.joiner.is_empty() {
            let held = file.joiner.held_bytes();
            taken = self.give_out(key, file, held, now, Joiner::flush);
        }
        taken
    }

    /// Gives out the events that were ended by [`Joiner::cut`].
    pub fn take_cut(&mut self, key: FileKey, file: &mut LogFile, now: Instant) -> Taken {
        let mut taken = Taken::Yes;
        while taken == Taken::Yes && file.joiner.has_cut() {
            let held = file.joiner.held_bytes();
            taken = self.give_out(key, file, held, now, Joiner::flush_cut);
        }
        taken
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
        let Some(Room { batch, books, whole }) = self.room(held, now) else { return Taken::NoRoom };
        let guess = origin.container().is_none().then_some(guess);
        if let Some(joined) = next(joiner, whole) {
            books.enter(Place::of(key, identity, acks), &joined, guess, batch);
        }
        Taken::Yes
    }

    /// Counts bytes of a line that were passed over because the line is longer than allowed.
    pub fn count_cut(&self, bytes: u64) {
        self.books.count_cut(bytes);
    }

    /// Hands over the open batch when it is old enough, or in any case when there will be no more lines.
    pub fn close_aged(&mut self, now: Instant, last: bool) {
        if let Some(batch) = self.batcher.close_aged(now, last) {
            self.hand_over(batch);
        }
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
        Some(Room { batch: self.batcher.open(now)?, books: &mut self.books, whole: &mut self.whole })
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
    /// Lines in batches.
    in_flight: Arc<AtomicU64>,
    /// The text of a cut line with the mark at its end.
    marked: Vec<u8>,
    /// Knows the year of syslog lines.
    clock: Clock,
    /// What a syslog line says beside its message, as members of its document.
    fields: Vec<u8>,
}

impl Books {
    /// Counts a physical line of a file, or a record, when it is read for the first time. Whether it is.
    fn read(&self, counters: &Counters, acks: &mut Acks, end: u64, begins_line: bool, bytes: u64) -> bool {
        let lines = u64::from(begins_line);
        let is_new = acks.read(end, lines, bytes);
        if is_new {
            counters.read_lines.inc_by(lines);
            counters.read_bytes.inc_by(bytes);
            self.in_flight.fetch_add(lines, Relaxed);
        }
        is_new
    }

    /// How much of a line's text is kept. A syslog line is measured when it is taken apart.
    fn max_text(&self, origin: &Origin) -> usize {
        self.max_line + if origin.container().is_some() { 0 } else { LINE_HEADER }
    }

    /// Writes what became of a line into the batch.
    fn enter(&mut self, place: Place<'_>, joined: &Joined<'_>, guess: Option<&mut Guess>, batch: &mut Batch) {
        let Some(line) = joined.line else { return };
        match guess {
            Some(guess) => self.enter_text(place, guess, &line, joined, batch),
            None => self.write(place, &line, joined.cut, joined.is_new, b"", batch),
        }
    }

    /// An event of a file that is not a container's. Where lines become documents, a syslog line is taken apart; else it is
    /// kept as it is, with its time.
    fn enter_text(
        &mut self,
        place: Place<'_>,
        guess: &mut Guess,
        line: &Line<'_>,
        joined: &Joined<'_>,
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
        let mut cut = joined.cut;
        if line.lines == 1 {
            let beyond;
            (line.text, beyond) = limit(line.text, self.max_line);
            cut += beyond;
        }
        self.write(place, &line, cut, joined.is_new, &fields, batch);
        self.fields = fields;
    }

    fn write(
        &mut self,
        place: Place<'_>,
        line: &Line<'_>,
        cut: u64,
        is_new: bool,
        fields: &[u8],
        batch: &mut Batch,
    ) {
        let Place { key, facts, shape, acks, .. } = place;
        acks.emitted(batch.number, line.span, line.bytes);
        let is_utf8 = if cut > 0 {
            self.mark_cut(line.text);
            shape.encode_with(&Line { text: &self.marked, ..*line }, fields, &mut batch.body)
        } else {
            shape.encode_with(line, fields, &mut batch.body)
        };
        batch.push(key, facts, line.lines, line.bytes, acks.epoch());
        if !is_new {
            return;
        }
        if !is_utf8 {
            self.metrics.invalid_utf8_lines.inc();
        }
        self.count_cut(cut);
    }

    fn mark_cut(&mut self, text: &[u8]) {
        self.marked.clear();
        self.marked.extend_from_slice(text);
        self.marked.extend_from_slice(b" [cut by nodewarden]");
    }

    fn count_cut(&self, bytes: u64) {
        if bytes > 0 {
            self.metrics.lost_bytes.with_label_values(&["line_too_long"]).inc_by(bytes);
        }
    }
}

/// Nanoseconds since the epoch.
pub fn wall_clock() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64)
}
