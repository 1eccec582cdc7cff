//! The one that appends: records into the open block, the open block into segments, what is too old out of the store.

use std::{
    collections::HashMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    Key, Limits, Reader, Source, Stats, StoreError,
    block::{OpenBlock, Record, source_bytes},
    disk::{Disk, Sizes, random_salt},
    head::Head,
    index::{BlockEntry, Held, SegmentIndex, load},
    removed::Removed,
    segment::{BlockReader, Encoder, MAX_SOURCE, max_frame, parse_file_name},
    shared::{Shared, State},
};

/// [`Writer::positions`] looks no further when it has found this many: it begins with the newest.
const MAX_POSITIONS: usize = 1 << 20;

/// Who a source is: [`Source::id`].
type SourceId = [u8; 12];

/// The positions that are looked for, and those that were found.
struct Found<'a> {
    from: &'a HashMap<SourceId, u64>,
    found: HashMap<SourceId, Vec<u64>>,
    count: usize,
}

impl<'a> Found<'a> {
    fn new(from: &'a HashMap<SourceId, u64>) -> Self {
        Self { from, found: HashMap::new(), count: 0 }
    }

    fn wants(&self, id: &SourceId, position: u64) -> bool {
        self.from.get(id).is_some_and(|&from| position >= from)
    }

    fn add(&mut self, id: &SourceId, position: u64) {
        if self.wants(id, position) {
            self.found.entry(*id).or_default().push(position);
            self.count += 1;
        }
    }

    fn in_order(mut self) -> HashMap<SourceId, Vec<u64>> {
        for positions in self.found.values_mut() {
            positions.sort_unstable();
            positions.dedup();
        }
        self.found
    }
}

/// What was found when a store was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Sentences about damage, for the log: empty after an orderly end.
    pub messages: Vec<String>,
    /// Records that were not yet in a block.
    pub from_head: u64,
}

/// Appends to a store. Only one can have a directory open.
pub struct Writer {
    limits: Limits,
    sizes: Sizes,
    shared: Arc<Shared>,
    disk: Disk,
    head: Head,
    encoder: Encoder,
    now: i64,
    /// When the first record of the open block was appended.
    open_since: Option<i64>,
    /// The last look found less free space than has to stay free.
    crowded: bool,
    /// The file of what was taken out says more than it may.
    removed_is_stale: bool,
    /// The directory: its lock is ours.
    _lock: File,
}

impl Writer {
    /// Opens the store in `dir`, which is made when missing. Damage is no error: what is whole is served.
    pub fn open(dir: &Path, limits: Limits, now: SystemTime) -> Result<(Self, Recovered), StoreError> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(StoreError::io("make", dir))?;
        let lock = lock(dir)?;
        let (head, block, mut messages) = Head::open(dir)?;
        let unsynced = block.as_ref().map_or(u64::MAX, |block| block.number);
        let mut state = State { head_bytes: head.bytes(), ..State::default() };
        for path in segment_files(dir)? {
            messages.extend(add_segment(&mut state, path, unsynced)?);
        }
        let last = state.segments.iter().filter_map(|segment| segment.blocks.last()).next_back();
        let next = last.map_or(0, |last| last.number + 1);
        state.open = match block {
            Some(block) if block.number >= next => block,
            _ => OpenBlock::new(next),
        };
        state.synced = state.open.mark();
        let from_head = u64::from(state.open.records);
        let (mut removed, complaint) = Removed::load(dir);
        messages.extend(complaint);
        let loaded = removed.clone();
        // What a crash took away gives its numbers to what comes.
        removed.keep(|block| state.records_of(block));
        let removed_is_stale = removed != loaded;
        state.removed = Arc::new(removed);
        let now = nanos(now);
        let open_since = (from_head > 0).then_some(now);
        let shared = Arc::new(Shared::new(dir.to_owned(), state));
        let mut disk = Disk::new(Arc::clone(&shared));
        disk.assume_synced()?;
        let encoder = Encoder::new().map_err(StoreError::io("compress for", dir))?;
        let sizes = Sizes::new(&limits);
        let mut writer = Self {
            limits,
            sizes,
            shared,
            disk,
            head,
            encoder,
            now,
            open_since,
            crowded: false,
            removed_is_stale,
            _lock: lock,
        };
        // From here on the head says which blocks may be torn by a crash. A disk that is full now may be so no more later.
        messages.extend(writer.write_head().err().map(|error| error.to_string()));
        Ok((writer, Recovered { messages, from_head }))
    }

    /// Other limits from now on; the next [`Self::sync`] makes them true.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        self.sizes = Sizes::new(&limits);
    }

    /// Takes a record. It is durable after the next [`Self::sync`]; readers see it at once. After an error the record was
    /// not taken.
    pub fn append(
        &mut self,
        source: &Arc<Source>,
        position: u64,
        time: i64,
        stream: u8,
        text: &[u8],
    ) -> Result<(), StoreError> {
        self.check_length("a text", text.len(), self.sizes.text)?;
        self.check_length("labels", source_bytes(source), MAX_SOURCE.min(self.sizes.block / 2))?;
        if self.crowded {
            self.leave_free()?;
        }
        if self.removed_is_stale {
            let removed = Arc::clone(&self.shared.lock().removed);
            self.save_removed(&removed)?;
        }
        let open = self.shared.lock();
        let full = !open.open.is_empty() && open.open.raw_bytes() + text.len() > self.sizes.block;
        drop(open);
        if full {
            self.flush()?;
        }
        self.shared.lock().open.push(source, Record { source: 0, time, position, stream, text });
        self.open_since.get_or_insert(self.now);
        Ok(())
    }

    /// Makes everything that was appended durable, then lets go what is beyond the limits.
    ///
    /// After [`StoreError::NoRoom`] everything is durable; only new records are refused.
    pub fn sync(&mut self, now: SystemTime) -> Result<(), StoreError> {
        self.now = nanos(now);
        let portion_start = self.now.saturating_sub(self.sizes.portion);
        let is_old = self.open_since.is_some_and(|since| since < portion_start);
        // When the block can't be written now, its records are safe in the head all the same.
        let flushed = if is_old { self.flush() } else { Ok(()) };
        self.disk.sync()?;
        self.write_head()?;
        flushed?;
        self.disk.remove_aged(&self.sizes, self.now)?;
        self.disk.make_room(&self.sizes, self.head.bytes())?;
        self.leave_free()
    }

    /// Takes records out, durably; how many of them were there until now. What is on disk of them goes with its segment: at
    /// once when it is the oldest and nothing else is left in it.
    pub fn remove(&mut self, keys: &[Key], now: SystemTime) -> Result<usize, StoreError> {
        if keys.is_empty() {
            return Ok(0);
        }
        // A record that a crash may take away would leave its number to another one.
        match self.sync(now) {
            Ok(()) | Err(StoreError::NoRoom { .. }) => {}
            Err(error) => return Err(error),
        }
        let (removed, count) = {
            let state = self.shared.lock();
            let mut removed = Removed::clone(&state.removed);
            removed.keep(|block| state.records_of(block));
            let is_there = |key: &&Key| key.record < state.records_of(key.block);
            let count = keys.iter().filter(is_there).filter(|key| removed.add(key.block, key.record)).count();
            (Arc::new(removed), count)
        };
        self.save_removed(&removed)?;
        self.shared.lock().removed = Arc::clone(&removed);
        self.disk.remove_empty(&removed)?;
        Ok(count)
    }

    fn save_removed(&mut self, removed: &Removed) -> Result<(), StoreError> {
        removed.save(&self.shared.dir)?;
        self.removed_is_stale = false;
        Ok(())
    }

    /// The positions that are durably stored of these sources, each from the one on that stands here with its id, in order:
    /// what was stored, but not yet noted elsewhere, when the process ended. About the greatest 1 048 576 of them all.
    pub fn positions(
        &self,
        from: &HashMap<SourceId, u64>,
    ) -> Result<HashMap<SourceId, Vec<u64>>, StoreError> {
        let mut found = Found::new(from);
        let segments: Vec<Arc<SegmentIndex>> = {
            let state = self.shared.lock();
            for record in state.open.records().take(state.synced.records as usize) {
                found.add(&state.open.table[record.source].source.id, record.position);
            }
            state.segments.iter().rev().cloned().collect()
        };
        for segment in segments {
            let is_here = from.iter().any(|(id, &from)| match segment.held(id) {
                Held::Nothing => false,
                Held::UpTo(last) => last >= from,
                Held::Unknown => true,
            });
            if is_here && found.count < MAX_POSITIONS {
                self.each_front(&segment, |reader, file, block| {
                    let Some(table) = reader.table() else { return Ok(()) };
                    let ids: Vec<SourceId> = table.iter().map(|entry| entry.source.id).collect();
                    if !table.iter().any(|entry| found.wants(&entry.source.id, entry.positions.max)) {
                        return Ok(());
                    }
                    let records = reader.records(file, u64::from(block.offset), ids.len())?;
                    for record in records.into_iter().flatten() {
                        found.add(&ids[record.source], record.position);
                    }
                    Ok(())
                })?;
            }
        }
        Ok(found.in_order())
    }

    /// Every source with the greatest position that is stored of it. Where a segment has too many sources for its index,
    /// each of its blocks is asked: this is for once, at the start.
    pub fn greatest_positions(&self) -> Result<HashMap<SourceId, u64>, StoreError> {
        let mut greatest = HashMap::new();
        let mut add = |id: &SourceId, position: u64| {
            let known = greatest.entry(*id).or_insert(position);
            *known = position.max(*known);
        };
        let segments: Vec<Arc<SegmentIndex>> = {
            let state = self.shared.lock();
            state.open.table.iter().for_each(|entry| add(&entry.source.id, entry.positions.max));
            state.segments.iter().cloned().collect()
        };
        for segment in segments {
            if let Some(sources) = segment.sources() {
                sources.for_each(|(id, position)| add(id, position));
                continue;
            }
            self.each_front(&segment, |reader, _, _| {
                for entry in reader.table().into_iter().flatten() {
                    add(&entry.source.id, entry.positions.max);
                }
                Ok(())
            })?;
        }
        Ok(greatest)
    }

    /// Reads what each block of a segment has before its records, the newest first.
    fn each_front(
        &self,
        segment: &SegmentIndex,
        mut look: impl FnMut(&mut BlockReader, &File, &BlockEntry) -> io::Result<()>,
    ) -> Result<(), StoreError> {
        let path = self.shared.path(segment.id);
        let failed = || StoreError::io("read", &path);
        let file = File::open(&path).map_err(failed())?;
        let mut reader = BlockReader::new().map_err(failed())?;
        for block in segment.blocks.iter().rev() {
            reader.read_front(&file, u64::from(block.offset), block.front as usize).map_err(failed())?;
            look(&mut reader, &file, block).map_err(failed())?;
        }
        Ok(())
    }

    /// One that searches and follows; make as many as needed.
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.shared))
    }

    /// What the store holds.
    pub fn stats(&self) -> Stats {
        self.shared.lock().stats()
    }

    fn check_length(&self, what: &'static str, len: usize, max: usize) -> Result<(), StoreError> {
        let path = || self.shared.dir.clone();
        if len > max { Err(StoreError::TooLong { path: path(), what, len, max }) } else { Ok(()) }
    }

    fn leave_free(&mut self) -> Result<(), StoreError> {
        let result = self.disk.leave_free(self.limits.min_free);
        self.crowded = matches!(result, Err(StoreError::NoRoom { .. }));
        result
    }

    /// Makes the head hold all of the open block.
    fn write_head(&mut self) -> Result<(), StoreError> {
        let pending = self.head.pending(&self.shared.lock().open);
        let Some(pending) = pending else { return Ok(()) };
        self.disk.make_room(&self.sizes, pending.peak(&self.head))?;
        self.head.write(&pending)?;
        let mut state = self.shared.lock();
        state.synced = pending.mark();
        state.head_bytes = self.head.bytes();
        Ok(())
    }

    /// Writes the open block to the newest segment. It stays open when that fails.
    fn flush(&mut self) -> Result<(), StoreError> {
        self.leave_free()?;
        let raw = self.shared.lock().open.raw_bytes();
        let salt = self.disk.prepare(&self.sizes, self.now, max_frame(raw))?;
        let (header, frame, table) = {
            let state = self.shared.lock();
            let encoded = self.encoder.encode(&state.open, salt, self.now);
            let (header, frame) = encoded.map_err(StoreError::io("compress for", &self.shared.dir))?;
            (header, frame, state.open.table.clone())
        };
        self.disk.append(&header, frame, &table)?;
        self.open_since = None;
        Ok(())
    }
}

fn nanos(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// The lock goes with the descriptor, so a killed process leaves none behind.
fn lock(dir: &Path) -> Result<File, StoreError> {
    use rustix::{fs::FlockOperation, io::Errno};
    let file = File::open(dir).map_err(StoreError::io("open", dir))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(StoreError::InUse { path: dir.to_owned() }),
        Err(errno) => Err(StoreError::io("lock", dir)(errno.into())),
    }
}

/// One segment file, as found in the directory.
struct SegmentFile {
    id: u64,
    path: PathBuf,
    newest: bool,
}

/// The segment files, oldest first.
fn segment_files(dir: &Path) -> Result<Vec<SegmentFile>, StoreError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(StoreError::io("list", dir))? {
        let entry = entry.map_err(StoreError::io("list", dir))?;
        if let Some(id) = entry.file_name().to_str().and_then(parse_file_name) {
            files.push(SegmentFile { id, path: entry.path(), newest: false });
        }
    }
    files.sort_unstable_by_key(|file| file.id);
    if let Some(last) = files.last_mut() {
        last.newest = true;
    }
    Ok(files)
}

/// Adds a segment to the state; what a human should know of it.
fn add_segment(state: &mut State, found: SegmentFile, unsynced: u64) -> Result<Vec<String>, StoreError> {
    let SegmentFile { id, path, newest } = found;
    let mut loaded = match load(&path, id, newest.then_some(unsynced)) {
        Ok(loaded) => loaded,
        Err(error) => {
            // It keeps its place, so that retention gets to it, and nothing is appended to it.
            let mut index = SegmentIndex::new(id, 0);
            (index.sealed, index.damaged) = (true, 1);
            index.bytes = fs::metadata(&path).map_or(0, |metadata| metadata.len());
            state.segments.push_back(Arc::new(index));
            return Ok(vec![format!("could not read {}: {error}", path.display())]);
        }
    };
    if newest && !loaded.index.sealed {
        cut(&path, loaded.end)?;
        if loaded.index.blocks.is_empty() && loaded.end == 0 {
            loaded.index.salt = random_salt().map_err(StoreError::io("find a random number for", &path))?;
        }
    }
    state.segments.push_back(Arc::new(loaded.index));
    Ok(loaded.messages)
}

fn cut(path: &Path, end: u64) -> Result<(), StoreError> {
    if fs::metadata(path).is_ok_and(|metadata| metadata.len() == end) {
        return Ok(());
    }
    let file = OpenOptions::new().write(true).open(path).map_err(StoreError::io("open", path))?;
    file.set_len(end).and_then(|()| file.sync_data()).map_err(StoreError::io("cut the torn tail of", path))
}
