//! The segment files: frames appended to the newest, the oldest unlinked.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    sync::Arc,
};

use super::{
    Limits, StoreError,
    block::TableEntry,
    head::is_linked,
    index::SegmentIndex,
    removed::Removed,
    segment::{BLOCK_BYTES, Header, MAX_TEXT},
    shared::Shared,
};

/// Below this a store could not hold a few blocks.
const MIN_STORE: u64 = 64 << 10;
const MAX_SEGMENT: u64 = 16 << 20;
/// Lines leave by age in portions of this fraction of `max_age`: once for the open block, once for the segment.
const AGE_PORTIONS: i64 = 16;

/// What follows from the limits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) store: u64,
    pub(super) segment: u64,
    /// Segments at most. More come only of very repetitive logs, whose segments are full before they are large.
    pub(super) segments: usize,
    pub(super) block: usize,
    pub(super) text: usize,
    /// Nanoseconds.
    pub(super) age: i64,
    /// Nanoseconds that an open block or segment stays open.
    pub(super) portion: i64,
}

impl Sizes {
    pub(super) fn new(limits: &Limits) -> Self {
        let store = limits.max_bytes.max(MIN_STORE);
        let age = i64::try_from(limits.max_age.as_nanos()).unwrap_or(i64::MAX);
        let segment = (store / 16).clamp(1 << 20, MAX_SEGMENT).min(store / 4);
        Self {
            store,
            segment,
            segments: (store / segment) as usize + AGE_PORTIONS as usize + 2,
            block: BLOCK_BYTES.min(store as usize / 16),
            text: MAX_TEXT.min(store as usize / 4),
            age,
            portion: age / AGE_PORTIONS,
        }
    }
}

/// The newest segment, open for appending.
#[derive(Debug)]
struct Active {
    file: File,
    /// Bytes known to be on disk.
    synced: u64,
    /// A sync failed: the kernel may have dropped the bytes and called them clean, so they have to be written again.
    rewrite: bool,
}

/// The segment files of a store.
#[derive(Debug)]
pub(super) struct Disk {
    shared: Arc<Shared>,
    active: Option<Active>,
    /// The number of the next segment. Names are not used twice: a reader may still look for the old one.
    next_id: u64,
}

impl Disk {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let next_id = shared.lock().segments.back().map_or(0, |newest| newest.id + 1);
        Self { shared, active: None, next_id }
    }

    /// Makes ready to append a frame of at most `more` bytes, in a new segment when the newest is full or old; the salt of
    /// the segment.
    pub(super) fn prepare(&mut self, sizes: &Sizes, now: i64, more: u64) -> Result<u64, StoreError> {
        if let Some(newest) = self.newest()
            && (newest.is_full(sizes.segment) || is_old(&newest, sizes, now))
        {
            self.seal(&newest, sizes)?;
        }
        let head_bytes = self.shared.lock().head_bytes;
        self.make_room(sizes, more + head_bytes)?;
        match self.newest() {
            Some(newest) if !newest.sealed => {
                self.open(&newest)?;
                Ok(newest.salt)
            }
            _ => self.create(),
        }
    }

    fn newest(&self) -> Option<Arc<SegmentIndex>> {
        self.shared.lock().segments.back().cloned()
    }

    /// Opens the newest segment where it was left.
    fn open(&mut self, segment: &SegmentIndex) -> Result<(), StoreError> {
        if self.active.as_ref().is_some_and(|active| is_linked(&active.file)) {
            return Ok(());
        }
        self.active = None;
        let path = self.shared.path(segment.id);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(segment.bytes == 0).mode(0o600);
        let file = options.open(&path).map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                // Somebody deleted it. Said once; the next attempt starts another segment.
                self.change_newest(|newest| newest.sealed = true);
            }
            StoreError::io("open", &path)(error)
        })?;
        if segment.bytes == 0 {
            self.sync_dir()?;
        }
        // Whatever failed before may have left it unsynced.
        self.active = Some(Active { file, synced: 0, rewrite: segment.bytes > 0 });
        Ok(())
    }

    fn create(&mut self) -> Result<u64, StoreError> {
        let id = self.next_id;
        let path = self.shared.path(id);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(&path).map_err(StoreError::io("create", &path))?;
        self.sync_dir()?;
        let salt = random_salt().map_err(StoreError::io("find a random number for", &path))?;
        self.active = Some(Active { file, synced: 0, rewrite: false });
        self.shared.lock().segments.push_back(Arc::new(SegmentIndex::new(id, salt)));
        self.next_id += 1;
        Ok(salt)
    }

    fn sync_dir(&self) -> Result<(), StoreError> {
        let dir = &self.shared.dir;
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(StoreError::io("sync", dir))
    }

    /// Ends the newest segment: its blocks first, then the footer that vouches for them.
    fn seal(&mut self, segment: &SegmentIndex, sizes: &Sizes) -> Result<(), StoreError> {
        if segment.sealed {
            return Ok(());
        }
        self.sync()?;
        let footer = segment.encode_footer();
        let head_bytes = self.shared.lock().head_bytes;
        self.make_room(sizes, footer.len() as u64 + head_bytes)?;
        if let Some(active) = self.active.take() {
            // Without a footer the segment is scanned at the next start: not worth an error.
            let written = active.file.write_all_at(&footer, segment.bytes).is_ok();
            self.change_newest(|newest| newest.bytes += if written { footer.len() as u64 } else { 0 });
        }
        self.change_newest(|newest| {
            newest.sealed = true;
            newest.blocks.shrink_to_fit();
        });
        Ok(())
    }

    fn change_newest(&self, change: impl FnOnce(&mut SegmentIndex)) {
        if let Some(newest) = self.shared.lock().segments.back_mut() {
            change(Arc::make_mut(newest));
        }
    }

    /// Appends the frame of the open block, after [`Self::prepare`]; from here on the block is one of the segment's, and
    /// the next one is open.
    pub(super) fn append(
        &mut self,
        header: &Header,
        frame: &[u8],
        table: &[TableEntry],
    ) -> Result<(), StoreError> {
        let (id, at) = self.newest().map_or((0, 0), |newest| (newest.id, newest.bytes));
        let path = self.shared.path(id);
        let written = match &self.active {
            Some(active) => active.file.write_all_at(frame, at),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        if let Err(error) = written {
            // Best effort: what was written in part is overwritten next time, and cut at open.
            if let Some(active) = self.active.take() {
                let _ = active.file.set_len(at);
            }
            return Err(StoreError::io("write to", &path)(error));
        }
        let mut state = self.shared.lock();
        if let Some(newest) = state.segments.back_mut() {
            Arc::make_mut(newest).push(header, frame.len() as u32, table);
        }
        state.open.restart(header.number + 1);
        state.synced = super::block::Mark::default();
        Ok(())
    }

    /// Brings what was appended to the newest segment onto the disk.
    pub(super) fn sync(&mut self) -> Result<(), StoreError> {
        let Some(newest) = self.newest() else { return Ok(()) };
        if self.active.is_none() && !newest.sealed && newest.bytes > 0 {
            self.open(&newest)?;
        }
        let Some(active) = &mut self.active else { return Ok(()) };
        if active.synced == newest.bytes {
            return Ok(());
        }
        let path = self.shared.path(newest.id);
        if active.rewrite {
            rewrite(&active.file, active.synced, newest.bytes).map_err(StoreError::io("rewrite", &path))?;
        }
        active.rewrite = true;
        active.file.sync_data().map_err(StoreError::io("sync", &path))?;
        active.rewrite = false;
        active.synced = newest.bytes;
        Ok(())
    }

    /// Says that everything in the newest segment is on disk: it was just opened.
    pub(super) fn assume_synced(&mut self) -> Result<(), StoreError> {
        let Some(newest) = self.newest() else { return Ok(()) };
        if !newest.sealed && newest.bytes > 0 {
            self.open(&newest)?;
            self.active =
                self.active.take().map(|active| Active { synced: newest.bytes, rewrite: false, ..active });
        }
        Ok(())
    }

    /// Unlinks the oldest segments until `more` bytes fit beside what is there, and the index is no longer than it may be.
    pub(super) fn make_room(&mut self, sizes: &Sizes, more: u64) -> Result<(), StoreError> {
        loop {
            let (bytes, count) = {
                let state = self.shared.lock();
                (state.segment_bytes(), state.segments.len())
            };
            let fits = bytes + more <= sizes.store && count <= sizes.segments;
            if fits || self.remove_oldest()?.is_none() {
                return Ok(());
            }
        }
    }

    /// Unlinks the segments whose last block was written too long ago.
    pub(super) fn remove_aged(&mut self, sizes: &Sizes, now: i64) -> Result<(), StoreError> {
        let is_aged = |segment: &Arc<SegmentIndex>| {
            segment.written.is_some_and(|(_, last)| last < now.saturating_sub(sizes.age))
        };
        loop {
            let aged = self.shared.lock().segments.front().is_some_and(is_aged);
            if !aged {
                return Ok(());
            }
            self.remove_oldest()?;
        }
    }

    /// Unlinks the oldest segments as long as nothing is left in them.
    pub(super) fn remove_empty(&mut self, removed: &Removed) -> Result<(), StoreError> {
        let is_empty = |segment: &Arc<SegmentIndex>| {
            segment.sealed && segment.blocks.iter().all(|block| removed.count(block.number) >= block.records)
        };
        loop {
            let empty = self.shared.lock().segments.front().is_some_and(is_empty);
            if !empty {
                return Ok(());
            }
            self.remove_oldest()?;
        }
    }

    /// Leaves `min_free` of the file system to others: unlinks old segments, and refuses when that is not enough. The newest
    /// segment stays, as a few megabytes would not help.
    pub(super) fn leave_free(&mut self, min_free: f64) -> Result<(), StoreError> {
        let dir = &self.shared.dir;
        let stat = rustix::fs::statvfs(dir)
            .map_err(|errno| StoreError::io("ask for the free space of", dir)(errno.into()))?;
        let wanted = (stat.f_blocks as f64 * min_free) as u64 * stat.f_frsize;
        let free = stat.f_bavail * stat.f_frsize;
        let mut given_back = 0;
        while free + given_back < wanted {
            if self.shared.lock().segments.len() < 2 {
                return Err(StoreError::NoRoom {
                    path: self.shared.dir.clone(),
                    free: free + given_back,
                    wanted,
                });
            }
            given_back += self.remove_oldest()?.unwrap_or_default();
        }
        Ok(())
    }

    /// Unlinks the oldest segment; how many bytes it had. Readers that have it open go on reading it.
    fn remove_oldest(&mut self) -> Result<Option<u64>, StoreError> {
        let (oldest, count) = {
            let state = self.shared.lock();
            (state.segments.front().cloned(), state.segments.len())
        };
        let Some(oldest) = oldest else { return Ok(None) };
        let path = self.shared.path(oldest.id);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::io("delete", &path)(error));
            }
            _ => {}
        }
        if count == 1 {
            self.active = None;
        }
        self.shared.lock().segments.pop_front();
        Ok(Some(oldest.bytes))
    }
}

fn is_old(segment: &SegmentIndex, sizes: &Sizes, now: i64) -> bool {
    segment.written.is_some_and(|(first, _)| first < now.saturating_sub(sizes.portion))
}

/// Reads the bytes from the page cache and writes them again, so that the next sync has something to bring to the disk.
fn rewrite(file: &File, from: u64, to: u64) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let mut at = from;
    while at < to {
        let len = buffer.len().min((to - at) as usize);
        file.read_exact_at(&mut buffer[..len], at)?;
        file.write_all_at(&buffer[..len], at)?;
        at += len as u64;
    }
    Ok(())
}

/// A number that who writes logs can't know.
pub(super) fn random_salt() -> io::Result<u64> {
    let mut salt = [0; 8];
    rustix::rand::getrandom(&mut salt, rustix::rand::GetRandomFlags::empty())?;
    Ok(u64::from_le_bytes(salt))
}
