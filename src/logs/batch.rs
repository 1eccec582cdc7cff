//! Lines on their way to the sink: one buffer in the sink's own form, with an index of what lies where.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use super::record::{FileFacts, Line, Stream};
use crate::metrics::ledger::Amount;

/// A file in the reader's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileKey(pub u32);

/// A buffer of encoded lines.
#[derive(Debug, Default)]
pub struct Batch {
    /// Counts upwards over the life of the agent.
    pub number: u64,
    /// The items one after the other, in the sink's form.
    pub body: Vec<u8>,
    items: Vec<Item>,
    /// What is sent instead of some items, until [`Self::restore`].
    replaced: BTreeMap<usize, Vec<u8>>,
    /// The files that the items come from.
    pub files: Vec<BatchFile>,
}

/// One line in a batch.
#[derive(Debug, Clone, Copy)]
struct Item {
    /// Where it ends in the body.
    end: u32,
    /// Bytes of the file that its lines take.
    bytes: u32,
    /// Lines of the log in it.
    lines: u32,
    /// The place of its file in [`Batch::files`].
    file: u32,
}

/// What a batch carries of one file.
#[derive(Debug)]
pub struct BatchFile {
    /// The file.
    pub key: FileKey,
    /// Its facts, for sinks that keep them beside the lines.
    pub facts: Arc<FileFacts>,
    /// What of it is in this batch.
    pub amount: Amount,
    /// What of that was refused for good and went to the dead letters, by reason.
    pub dead: Vec<(String, Amount)>,
    /// How often the file was set back before these lines were read.
    pub epoch: u32,
    /// Whether the sink holds any of these lines: they are to be read again, later.
    pub held: bool,
}

impl Batch {
    /// An empty one with this number.
    #[cfg(test)]
    pub fn numbered(number: u64) -> Self {
        Self { number, ..Self::default() }
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Where in the body an item lies.
    pub fn range(&self, item: usize) -> Range<usize> {
        let start = item.checked_sub(1).map_or(0, |previous| self.items[previous].end);
        start as usize..self.items[item].end as usize
    }

    /// From now on an item is sent as these bytes; the body keeps it as it was.
    pub fn replace(&mut self, item: usize, bytes: Vec<u8>) {
        self.replaced.insert(item, bytes);
    }

    /// What is sent instead of an item, if that is something else.
    pub fn replacement(&self, item: usize) -> Option<&[u8]> {
        self.replaced.get(&item).map(Vec::as_slice)
    }

    /// Whether each item is sent as it is in the body.
    pub fn is_as_written(&self) -> bool {
        self.replaced.is_empty()
    }

    /// All items are sent as they are in the body again.
    pub fn restore(&mut self) {
        self.replaced.clear();
    }

    /// The place in [`Self::files`] of an item's file.
    pub fn file_of(&self, item: usize) -> usize {
        self.items[item].file as usize
    }

    /// Notes that an item was refused for good, for a kind of reason, and is kept as a dead letter.
    pub fn bury(&mut self, item: usize, kind: &str) {
        let Item { bytes, lines, file, .. } = self.items[item];
        let amount = Amount { lines: lines.into(), bytes: bytes.into() };
        let dead = &mut self.files[file as usize].dead;
        match dead.iter_mut().find(|(known, _)| known == kind) {
            Some((_, known)) => known.add(amount),
            None => dead.push((kind.to_owned(), amount)),
        }
    }

    /// Notes that the body now ends with an event of this file, which is so much of it and was read in this epoch.
    pub fn push(&mut self, key: FileKey, facts: &Arc<FileFacts>, amount: Amount, epoch: u32) {
        // Lines of one file come in runs, so the last file is the likeliest.
        let known = self.files.iter().rposition(|file| file.key == key && file.epoch == epoch);
        let file = known.unwrap_or_else(|| {
            self.files.push(BatchFile {
                key,
                facts: Arc::clone(facts),
                amount: Amount::default(),
                dead: Vec::new(),
                epoch,
                held: false,
            });
            self.files.len() - 1
        });
        self.files[file].amount.add(amount);
        let (lines, bytes) = (amount.lines as u32, amount.bytes as u32);
        self.items.push(Item { end: self.body.len() as u32, bytes, lines, file: file as u32 });
    }

    /// Empties the batch and keeps its buffers.
    pub fn clear(&mut self) {
        self.body.clear();
        self.items.clear();
        self.replaced.clear();
        self.files.clear();
    }
}

/// The form in which the local store takes lines: what [`records`] reads back.
pub fn encode_record(line: &Line<'_>, body: &mut Vec<u8>) {
    body.extend_from_slice(&line.time.to_le_bytes());
    body.extend_from_slice(&line.span.start.to_le_bytes());
    body.push(match line.stream {
        Stream::None => 0,
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    });
    body.extend_from_slice(line.text);
}

/// A line as [`encode_record`] wrote it.
#[derive(Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Nanoseconds since the epoch.
    pub time: i64,
    /// Offset of the line's first byte.
    pub position: u64,
    /// 0 none, 1 standard output, 2 standard error.
    pub stream: u8,
    /// The text.
    pub text: &'a [u8],
}

/// The records of a batch with the place of their file in [`Batch::files`].
pub fn records(batch: &Batch) -> impl Iterator<Item = (usize, Record<'_>)> {
    (0..batch.len()).filter_map(|item| {
        let bytes = &batch.body[batch.range(item)];
        let (time, rest) = bytes.split_first_chunk()?;
        let (position, rest) = rest.split_first_chunk()?;
        let (stream, text) = rest.split_first()?;
        let record = Record {
            time: i64::from_le_bytes(*time),
            position: u64::from_le_bytes(*position),
            stream: *stream,
            text,
        };
        Some((batch.file_of(item), record))
    })
}

/// When a batch is full and how many there may be.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    /// A batch closes before its body grows beyond this; a single longer line travels alone.
    pub max_bytes: usize,
    /// A batch closes this long after its first line may have been written, as far as that is known.
    pub max_wait: Duration,
    /// Batches that exist at once; when all are on their way, reading stops.
    pub buffers: usize,
}

/// Fills batches out of a fixed number of buffers.
#[derive(Debug)]
pub struct Batcher {
    limits: BatchLimits,
    idle: Vec<Batch>,
    made: usize,
    /// Bytes of bodies on their way.
    away: usize,
    /// The first line of the next batch may have been written since then.
    written_since: Option<Instant>,
    open: Option<(Batch, Instant)>,
    next_number: u64,
}

impl Batcher {
    /// No buffer is allocated before it is needed.
    pub fn new(limits: BatchLimits) -> Self {
        Self { limits, idle: Vec::new(), made: 0, away: 0, written_since: None, open: None, next_number: 0 }
    }

    /// The batch to write the next lines into; `None` while every buffer is on its way, or so few large ones that another
    /// would go beyond what all may take.
    pub fn open(&mut self, now: Instant) -> Option<&mut Batch> {
        if self.open.is_none() {
            let all = self.limits.max_bytes.saturating_mul(self.limits.buffers);
            if self.away > 0 && self.away + self.limits.max_bytes > all {
                return None;
            }
            let mut batch = match self.idle.pop() {
                Some(batch) => batch,
                None if self.made < self.limits.buffers => {
                    self.made += 1;
                    Batch::default()
                }
                None => return None,
            };
            batch.number = self.next_number;
            self.next_number += 1;
            let written = self.written_since.map_or(now, |since| since.min(now));
            self.open = Some((batch, written));
        }
        self.open.as_mut().map(|(batch, _)| batch)
    }

    /// Lines that come now may have been written since then, not later than they are read: their batch ages from then on.
    pub fn written_since(&mut self, time: Instant) {
        self.written_since = Some(time);
    }

    /// Takes the open batch out when a line of about `next` bytes would not fit any more.
    pub fn close_full(&mut self, next: usize) -> Option<Batch> {
        let (batch, _) = self.open.as_ref()?;
        if batch.is_empty() || batch.body.len() + next <= self.limits.max_bytes {
            return None;
        }
        self.take_open()
    }

    /// Takes the open batch out when it is old enough, or in any case when there will be no more lines.
    pub fn close_aged(&mut self, now: Instant, last: bool) -> Option<Batch> {
        let (batch, opened) = self.open.as_ref()?;
        if batch.is_empty() || !last && now.saturating_duration_since(*opened) < self.limits.max_wait {
            return None;
        }
        self.take_open()
    }

    fn take_open(&mut self) -> Option<Batch> {
        let (batch, _) = self.open.take()?;
        self.away += batch.body.len();
        Some(batch)
    }

    /// When the open batch has to leave at the latest.
    pub fn due(&self) -> Option<Instant> {
        let (batch, opened) = self.open.as_ref()?;
        (!batch.is_empty()).then(|| *opened + self.limits.max_wait)
    }

    /// Takes a confirmed batch back for reuse. A body that one giant line blew up is let go.
    pub fn give_back(&mut self, mut batch: Batch) {
        self.away = self.away.saturating_sub(batch.body.len());
        batch.clear();
        batch.body.shrink_to(self.limits.max_bytes);
        self.idle.push(batch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::record::{FileId, Origin, Span};

    fn facts() -> Arc<FileFacts> {
        Arc::new(FileFacts::new(FileId([1; 12]), "/var/log/a", Origin::Plain))
    }

    fn limits() -> BatchLimits {
        BatchLimits { max_bytes: 10, max_wait: Duration::from_secs(1), buffers: 2 }
    }

    #[test]
    fn items_know_their_bytes_and_their_file() {
        let mut batch = Batch::default();
        for (key, text) in [(1, "aa"), (2, "b"), (1, "ccc")] {
            batch.body.extend_from_slice(text.as_bytes());
            batch.push(FileKey(key), &facts(), Amount { lines: 1, bytes: 5 }, 0);
        }
        assert_eq!((batch.range(0), batch.range(1), batch.range(2)), (0..2, 2..3, 3..6));
        assert_eq!((batch.file_of(0), batch.file_of(1), batch.file_of(2)), (0, 1, 0));
        assert_eq!(batch.files[0].amount, Amount { lines: 2, bytes: 10 });
        batch.bury(2, "why");
        assert_eq!(batch.files[0].dead, [("why".to_owned(), Amount { lines: 1, bytes: 5 })]);
    }

    #[test]
    fn a_record_reads_back() {
        let mut batch = Batch::default();
        let line = Line {
            time: -5,
            stream: Stream::Stderr,
            text: b"text",
            span: Span { start: 7, end: 12 },
            bytes: 5,
            lines: 1,
        };
        encode_record(&line, &mut batch.body);
        batch.push(FileKey(0), &facts(), Amount { lines: 1, bytes: 5 }, 0);
        let read: Vec<_> = records(&batch).collect();
        assert_eq!(read, [(0, Record { time: -5, position: 7, stream: 2, text: b"text" })]);
    }

    #[test]
    fn a_batch_closes_when_full_or_old() {
        let start = Instant::now();
        let mut batcher = Batcher::new(limits());
        let batch = batcher.open(start).expect("a buffer");
        batch.body.extend_from_slice(b"12345678");
        batch.push(FileKey(0), &facts(), Amount { lines: 1, bytes: 8 }, 0);
        assert!(batcher.close_full(2).is_none());
        assert!(batcher.close_full(3).is_some());
        let batch = batcher.open(start).expect("a buffer");
        batch.push(FileKey(0), &facts(), Amount { lines: 1, bytes: 8 }, 0);
        assert!(batcher.close_aged(start, false).is_none());
        assert!(batcher.close_aged(start + Duration::from_secs(1), false).is_some());
    }

    #[test]
    fn a_batch_is_as_old_as_its_first_line_may_be() {
        let start = Instant::now();
        let mut batcher = Batcher::new(limits());
        let read = start + Duration::from_millis(250);
        for (written, is_old) in [(start, true), (read, false)] {
            batcher.written_since(written);
            batcher.open(read).expect("a buffer").push(
                FileKey(0),
                &facts(),
                Amount { lines: 1, bytes: 8 },
                0,
            );
            assert_eq!(batcher.close_aged(start + Duration::from_secs(1), false).is_some(), is_old);
        }
    }

    #[test]
    fn no_more_buffers_than_allowed_are_out_at_once() {
        let now = Instant::now();
        let mut batcher = Batcher::new(limits());
        let mut away = Vec::new();
        for _ in 0..2 {
            batcher.open(now).expect("a buffer").push(FileKey(0), &facts(), Amount { lines: 1, bytes: 1 }, 0);
            away.extend(batcher.close_aged(now, true));
        }
        assert_eq!((away[0].number, away[1].number), (0, 1));
        assert!(batcher.open(now).is_none());
        batcher.give_back(away.remove(0));
        assert_eq!(batcher.open(now).map(|batch| batch.number), Some(2));
    }

    #[test]
    fn a_giant_line_takes_the_place_of_other_batches() {
        let now = Instant::now();
        let mut batcher = Batcher::new(BatchLimits { buffers: 3, ..limits() });
        let batch = batcher.open(now).expect("a buffer");
        batch.body.resize(25, b'x');
        batch.push(FileKey(0), &facts(), Amount { lines: 1, bytes: 25 }, 0);
        let giant = batcher.close_aged(now, true).expect("it is not empty");
        assert!(batcher.open(now).is_none(), "25 of 30 bytes are away");
        batcher.give_back(giant);
        assert!(batcher.open(now).is_some());
    }
}
