//! Searches and follows what the writer holds, from any thread.

use std::{collections::BTreeMap, fmt, fs::File, io, ops::ControlFlow, str::FromStr, sync::Arc};

use super::{
    Query, Source, Stats, StoreError,
    block::{Record, Records, TableEntry},
    index::{BlockEntry, SegmentIndex},
    removed::Removed,
    segment::BlockReader,
    shared::{OpenView, Shared},
};

/// Hits that wait until nothing newer can come hold at most this many bytes of text.
const MAX_WAITING: usize = 8 << 20;

/// A record's place among all hits: by time, then by the order of appending. Its text form goes through a URL unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Nanoseconds since the epoch.
    pub time: i64,
    pub(super) block: u64,
    pub(super) record: u32,
}

/// A place in the order of appending; what comes next is behind it. Holds across segments, and across restarts for what was
/// synced. Its text form goes through a URL unchanged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor {
    block: u64,
    record: u32,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.time, self.block, self.record)
    }
}

impl FromStr for Key {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.splitn(3, '.');
        let mut part = || parts.next().unwrap_or_default();
        Ok(Self { time: part().parse()?, block: part().parse()?, record: part().parse()? })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.block, self.record)
    }
}

impl FromStr for Cursor {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (block, record) = text.split_once('.').unwrap_or((text, ""));
        Ok(Self { block: block.parse()?, record: record.parse()? })
    }
}

/// A record that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// Its place among all hits.
    pub key: Key,
    /// Where it came from.
    pub source: Arc<Source>,
    /// The offset of the line in its file.
    pub position: u64,
    /// 1 for stdout, 2 for stderr, 0 when there is no such thing.
    pub stream: u8,
    /// The text, bytes as they were appended.
    pub text: Vec<u8>,
}

impl Hit {
    fn new(key: Key, table: &[TableEntry], record: Record<'_>) -> Self {
        let source = Arc::clone(&table[record.source].source);
        let Record { position, stream, text, .. } = record;
        Self { key, source, position, stream, text: text.to_vec() }
    }
}

/// How a search ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    /// Hits that were said.
    pub hits: usize,
    /// Where to go on (as [`Query::before`]); `None` when everything was said.
    pub next: Option<Key>,
    /// Blocks in the time range whose filters and sources were asked.
    pub blocks: usize,
    /// Blocks that were unpacked.
    pub opened: usize,
    /// Blocks that could not be read.
    pub damaged: usize,
}

/// Searches a store. Cheap to clone; a search works on what was there when it began and never holds up the writer.
#[derive(Debug, Clone)]
pub struct Reader {
    shared: Arc<Shared>,
    max_waiting: usize,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, max_waiting: MAX_WAITING }
    }

    /// Hits that wait for their turn take at most this many bytes; a search is then told to go on where it stopped.
    pub fn with_memory(self, bytes: usize) -> Self {
        Self { max_waiting: bytes.min(MAX_WAITING), ..self }
    }

    /// What the store holds.
    pub fn stats(&self) -> Stats {
        self.shared.lock().stats()
    }

    /// The place behind everything appended so far.
    pub fn end(&self) -> Cursor {
        let state = self.shared.lock();
        Cursor { block: state.open.number, record: state.open.records }
    }

    /// Says the hits, newest first, until `sink` breaks, `query.limit` is reached or `is_stopped` says so; that is asked
    /// before each block, and may take its time to spare the processor.
    ///
    /// Records of one time come in the reverse order of appending.
    pub fn search(
        &self,
        query: &Query,
        is_stopped: &dyn Fn() -> bool,
        sink: &mut dyn FnMut(Hit) -> ControlFlow<()>,
    ) -> Result<Found, StoreError> {
        let snapshot = Snapshot::new(&self.shared, 0);
        let mut merge = Merge::new(query, self.max_waiting, sink);
        let mut blocks = snapshot.newest_first(query);
        let mut source = BlockSource::new(&self.shared)?;
        while let Some(place) = blocks.pop() {
            if merge.say_newer_than(place.max_time).is_break() || is_stopped() {
                return Ok(merge.interrupted(source.counts));
            }
            if merge.is_beyond(place.max_time) {
                break;
            }
            source.read(&snapshot, place, query, &mut |table, record, index| {
                let key = Key { time: record.time, block: place.number, record: index };
                merge.offer(key, table, record);
            })?;
        }
        Ok(if merge.say_all().is_break() {
            merge.interrupted(source.counts)
        } else {
            merge.done(source.counts)
        })
    }

    /// Says the records appended behind `cursor`, in the order of appending, that match (times and limit of the query hold
    /// too); the place to go on from. Records not yet synced are said as well.
    pub fn since(
        &self,
        cursor: Cursor,
        query: &Query,
        sink: &mut dyn FnMut(Hit) -> ControlFlow<()>,
    ) -> Result<Cursor, StoreError> {
        let end = self.end();
        if cursor >= end {
            // A store that was emptied, or lost unsynced records in a crash, counts anew.
            return Ok(end);
        }
        let snapshot = Snapshot::new(&self.shared, cursor.block);
        let mut source = BlockSource::new(&self.shared)?;
        let mut reached = Cursor { block: snapshot.open.number, record: snapshot.open.records };
        let mut left = query.limit;
        for place in snapshot.in_order(cursor.block) {
            let mut stopped = left == 0;
            let from = if place.number == cursor.block { cursor.record } else { 0 };
            let mut next = Cursor { block: place.number, record: from };
            source.read(&snapshot, place, query, &mut |table, record, index| {
                if stopped || index < from {
                    return;
                }
                let key = Key { time: record.time, block: place.number, record: index };
                next.record = index + 1;
                left -= 1;
                stopped = sink(Hit::new(key, table, record)).is_break() || left == 0;
            })?;
            if stopped {
                reached = next;
                break;
            }
        }
        Ok(reached)
    }
}

/// The blocks of a store at one moment.
struct Snapshot {
    segments: Vec<Arc<SegmentIndex>>,
    open: OpenView,
    removed: Arc<Removed>,
}

/// A block to look at; `segment` is `None` for the open one.
#[derive(Debug, Clone, Copy)]
struct Place {
    max_time: i64,
    number: u64,
    segment: Option<u32>,
    block: u32,
}

impl Snapshot {
    /// Everything from block number `from` on, in whole segments.
    fn new(shared: &Shared, from: u64) -> Self {
        let state = shared.lock();
        let is_wanted =
            |segment: &&Arc<SegmentIndex>| segment.blocks.last().is_some_and(|last| last.number >= from);
        let segments = state.segments.iter().filter(is_wanted).cloned().collect();
        Self { segments, open: state.view_open(), removed: Arc::clone(&state.removed) }
    }

    fn places(&self, is_wanted: impl Fn(&BlockEntry) -> bool) -> Vec<Place> {
        let mut places = Vec::new();
        for (at, segment) in self.segments.iter().enumerate() {
            for (block, entry) in segment.blocks.iter().enumerate().filter(|(_, entry)| is_wanted(entry)) {
                let (max_time, number) = (entry.max_time, entry.number);
                places.push(Place { max_time, number, segment: Some(at as u32), block: block as u32 });
            }
        }
        places
    }

    fn open_place(&self) -> Option<Place> {
        let OpenView { max_time, number, .. } = self.open;
        (self.open.records > 0).then_some(Place { max_time, number, segment: None, block: 0 })
    }

    /// The blocks that may hold hits; the one with the newest record comes last.
    fn newest_first(&self, query: &Query) -> Vec<Place> {
        let mut places = self.places(|entry| query.overlaps(entry.min_time, entry.max_time));
        if query.overlaps(self.open.min_time, self.open.max_time) {
            places.extend(self.open_place());
        }
        places.sort_unstable_by_key(|place| (place.max_time, place.number));
        places
    }

    fn in_order(&self, from: u64) -> Vec<Place> {
        let mut places = self.places(|entry| entry.number >= from);
        places.extend(self.open_place());
        places
    }
}

/// Reads blocks and says their matching records.
struct BlockSource<'a> {
    shared: &'a Shared,
    reader: BlockReader,
    /// The segment that is open, and which one it is; `None` inside when it is gone.
    file: Option<(u32, Option<File>)>,
    counts: Found,
}

impl<'a> BlockSource<'a> {
    fn new(shared: &'a Shared) -> Result<Self, StoreError> {
        let reader = BlockReader::new().map_err(StoreError::io("unpack blocks of", &shared.dir))?;
        Ok(Self { shared, reader, file: None, counts: Found::default() })
    }

    /// Says the matching records of a block with their number in it. A damaged block is counted, one that retention has
    /// taken away meanwhile is not there.
    fn read(
        &mut self,
        snapshot: &Snapshot,
        place: Place,
        query: &Query,
        say: &mut dyn FnMut(&[TableEntry], Record<'_>, u32),
    ) -> Result<(), StoreError> {
        self.counts.blocks += 1;
        let say = &mut |table: &[TableEntry], record: Record<'_>, index| {
            if !snapshot.removed.has(place.number, index) {
                say(table, record, index);
            }
        };
        let Some(at) = place.segment else {
            let open = &snapshot.open;
            let records = Records::new(&open.meta, &open.text, open.table.len());
            say_matching(&open.table, records, query, say);
            return Ok(());
        };
        let segment = &snapshot.segments[at as usize];
        let failed = |error| StoreError::io("read", &self.shared.path(segment.id))(error);
        if self.file.as_ref().is_none_or(|(open, _)| *open != at) {
            let file = match File::open(self.shared.path(segment.id)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                result => Some(result.map_err(failed)?),
            };
            self.file = Some((at, file));
        }
        let Some((_, Some(file))) = &self.file else { return Ok(()) };
        let entry = &segment.blocks[place.block as usize];
        let outcome = read_block(&mut self.reader, file, entry, query, say).map_err(failed)?;
        match outcome {
            Outcome::Passed => {}
            Outcome::Opened => self.counts.opened += 1,
            Outcome::Damaged => self.counts.damaged += 1,
        }
        Ok(())
    }
}

enum Outcome {
    /// Filter or sources say that there is nothing in it.
    Passed,
    Opened,
    Damaged,
}

fn read_block(
    reader: &mut BlockReader,
    file: &File,
    entry: &BlockEntry,
    query: &Query,
    say: &mut dyn FnMut(&[TableEntry], Record<'_>, u32),
) -> io::Result<Outcome> {
    let offset = u64::from(entry.offset);
    let header = reader.read_front(file, offset, entry.front as usize)?;
    if header.is_none_or(|header| header.number != entry.number) {
        return Ok(Outcome::Damaged);
    }
    if !reader.may_contain(query.tokens()) {
        return Ok(Outcome::Passed);
    }
    let Some(table) = reader.table() else { return Ok(Outcome::Damaged) };
    if !table.iter().any(|entry| query.matches_source(&entry.source)) {
        return Ok(Outcome::Passed);
    }
    let Some(records) = reader.records(file, offset, table.len())? else { return Ok(Outcome::Damaged) };
    say_matching(&table, records, query, say);
    Ok(Outcome::Opened)
}

fn say_matching(
    table: &[TableEntry],
    records: Records<'_>,
    query: &Query,
    say: &mut dyn FnMut(&[TableEntry], Record<'_>, u32),
) {
    let is_wanted: Vec<bool> = table.iter().map(|entry| query.matches_source(&entry.source)).collect();
    for (index, record) in (0..).zip(records) {
        if is_wanted[record.source] && query.matches_record(record.time, record.stream, record.text) {
            say(table, record, index);
        }
    }
}

/// Brings hits of blocks whose times overlap into one order.
///
/// A hit waits until no block to come can have a newer one. What waits is bounded by the number of hits still wanted and by
/// bytes; the oldest are given up first, and with them everything older than they are: `Found::next` leads there.
struct Merge<'a> {
    before: Option<Key>,
    left: usize,
    sink: &'a mut dyn FnMut(Hit) -> ControlFlow<()>,
    waiting: BTreeMap<Key, Hit>,
    bytes: usize,
    max_waiting: usize,
    /// The newest hit that was given up.
    given_up: Option<Key>,
    said: Option<Key>,
    hits: usize,
}

impl<'a> Merge<'a> {
    fn new(query: &Query, max_waiting: usize, sink: &'a mut dyn FnMut(Hit) -> ControlFlow<()>) -> Self {
        let (before, left) = (query.before, query.limit);
        let waiting = BTreeMap::new();
        Self { before, left, sink, waiting, bytes: 0, max_waiting, given_up: None, said: None, hits: 0 }
    }

    fn offer(&mut self, key: Key, table: &[TableEntry], record: Record<'_>) {
        if self.before.is_some_and(|before| key >= before) {
            return;
        }
        let is_lost = self.given_up.is_some_and(|given_up| key < given_up);
        let is_late = self.waiting.len() >= self.left
            && self.waiting.first_key_value().is_none_or(|(oldest, _)| key < *oldest);
        if is_lost || is_late {
            self.given_up = self.given_up.max(Some(key));
            return;
        }
        self.bytes += record.text.len();
        self.waiting.insert(key, Hit::new(key, table, record));
        while self.waiting.len() > self.left || self.bytes > self.max_waiting && self.waiting.len() > 1 {
            let Some((oldest, hit)) = self.waiting.pop_first() else { break };
            self.bytes -= hit.text.len();
            self.given_up = self.given_up.max(Some(oldest));
        }
    }

    /// Whether a block whose newest record has this time can't add anything.
    fn is_beyond(&self, time: i64) -> bool {
        let full = self.waiting.len() >= self.left;
        let oldest = self.waiting.first_key_value();
        self.given_up.is_some_and(|given_up| time < given_up.time)
            || full && oldest.is_none_or(|(oldest, _)| time < oldest.time)
    }

    /// Says the hits that are newer than anything to come; breaks when that is enough.
    fn say_newer_than(&mut self, time: i64) -> ControlFlow<()> {
        while self.waiting.last_key_value().is_some_and(|(newest, _)| newest.time > time) {
            self.say_one()?;
        }
        self.enough()
    }

    fn say_all(&mut self) -> ControlFlow<()> {
        while !self.waiting.is_empty() {
            self.say_one()?;
        }
        self.enough()
    }

    fn enough(&self) -> ControlFlow<()> {
        if self.left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn say_one(&mut self) -> ControlFlow<()> {
        let Some((key, hit)) = self.waiting.pop_last() else { return ControlFlow::Continue(()) };
        self.bytes -= hit.text.len();
        self.said = Some(key);
        self.hits += 1;
        self.left -= 1;
        (self.sink)(hit)
    }

    /// Ended before the last block: there may be more.
    fn interrupted(self, counts: Found) -> Found {
        Found { hits: self.hits, next: self.said.or(self.before), ..counts }
    }

    /// Ended after the last block, or after the last that could add something.
    fn done(self, counts: Found) -> Found {
        let next = self.given_up.and(self.said);
        Found { hits: self.hits, next, ..counts }
    }
}
