//! Where log files go that vanish before the sink took their lines: raw bytes, compressed, in bounded segments.
//!
//! The directory `spill` holds one file per segment, `<number>.spill`, of one log file each: a header line that says whose
//! bytes these are, then frames of up to 256 KiB of the log file. See `segment.rs`. Frames end with a line where they can,
//! so that a segment that is dropped tears no line apart.
//!
//! A segment leaves when all of it is confirmed and the checkpoint says so, or when there is no room: then the oldest goes as
//! a whole, and whoever asked for room is told what was in it.

mod segment;

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub use self::segment::Header;
use self::segment::{Frame, Segment};
use super::record::{FileId, Span};

/// Raw bytes in one frame, at most.
pub const FRAME: usize = 256 * 1024;
/// Blocks of the file system: what the smallest file takes.
const DISK_BLOCK: u64 = 4096;
/// Raw bytes of one segment at most, however well they compress: it is dropped as a whole.
const SEGMENT_RAW: u64 = 32 << 20;

/// How much may be spilled.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of the whole directory.
    pub max_bytes: u64,
    /// The fraction (0 to 1) of the file system that has to stay free for others.
    pub min_free: f64,
}

/// What was dropped to make room: bytes of the file with this identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dropped {
    /// Whose.
    pub id: FileId,
    /// Which.
    pub span: Span,
}

/// The spill, shared by the files that are read from it.
#[derive(Debug, Clone)]
pub struct SharedSpill(Arc<Mutex<Spill>>);

/// The segments of all files.
#[derive(Debug)]
pub struct Spill {
    directory: PathBuf,
    limits: Limits,
    /// By number: the oldest first.
    segments: BTreeMap<u64, Segment>,
    by_file: HashMap<FileId, Vec<u64>>,
    /// Bytes on disk.
    bytes: u64,
    next: u64,
    /// Those that were appended to since the last sync.
    dirty: HashMap<u64, File>,
    /// Bytes of frames that turned out to be damaged when they were read.
    damaged: Vec<(FileId, u64)>,
    packed: Vec<u8>,
}

impl SharedSpill {
    /// Opens the spill in `directory`, which need not exist; what was wrong with it, one sentence each.
    pub fn open(directory: &Path, limits: Limits) -> (Self, Vec<String>) {
        let mut spill = Spill {
            directory: directory.to_owned(),
            limits,
            segments: BTreeMap::new(),
            by_file: HashMap::new(),
            bytes: 0,
            next: 0,
            dirty: HashMap::new(),
            damaged: Vec::new(),
            packed: Vec::new(),
        };
        let complaints = spill.load();
        (Self(Arc::new(Mutex::new(spill))), complaints)
    }

    /// Its segments.
    pub fn lock(&self) -> MutexGuard<'_, Spill> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Spill {
    fn load(&mut self) -> Vec<String> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
            Err(error) => return vec![format!("could not list {}: {error}", self.directory.display())],
        };
        let mut complaints = Vec::new();
        let numbered = |path: PathBuf| {
            let number: u64 = path.file_name()?.to_str()?.strip_suffix(".spill")?.parse().ok()?;
            // There has to be a next one.
            (number < u64::MAX).then_some((number, path))
        };
        let mut found: Vec<(u64, PathBuf)> =
            entries.flatten().filter_map(|entry| numbered(entry.path())).collect();
        found.sort();
        for (number, path) in found {
            self.next = self.next.max(number + 1);
            match Segment::open(&path) {
                Ok((segment, complaint)) => {
                    complaints.extend(complaint);
                    self.insert(number, segment);
                }
                Err(what) => complaints.push(set_aside(&path, &what)),
            }
        }
        complaints
    }

    fn insert(&mut self, number: u64, segment: Segment) {
        self.bytes += on_disk(segment.bytes);
        self.by_file.entry(segment.header.id).or_default().push(number);
        self.segments.insert(number, segment);
    }

    /// The files that something is spilled of.
    pub fn files(&self) -> Vec<Header> {
        let newest = |numbers: &Vec<u64>| Some(self.segments.get(numbers.last()?)?.header.clone());
        self.by_file.values().filter_map(newest).collect()
    }

    /// The first offset from `offset` on that is here.
    pub fn readable_from(&self, id: FileId, offset: u64) -> Option<u64> {
        let segments = self.of(id).filter(|segment| segment.end > offset);
        segments.filter_map(|segment| segment.readable_from(offset)).min()
    }

    /// The offset after the last byte that is here.
    pub fn end(&self, id: FileId) -> Option<u64> {
        self.of(id).map(|segment| segment.end).max()
    }

    /// Bytes from `from` up to `to` that are not here.
    pub fn missing(&self, id: FileId, from: u64, to: u64) -> u64 {
        let (mut at, mut missing) = (from, 0);
        while at < to {
            let next = self.readable_from(id, at).map_or(to, |next| next.min(to));
            missing += next - at;
            at = self.of(id).filter_map(|segment| segment.frame_at(next)).map(Frame::end).max().unwrap_or(to);
        }
        missing
    }

    /// Whose bytes, and how many, were found to be damaged since this was asked last.
    pub fn take_damaged(&mut self) -> Vec<(FileId, u64)> {
        std::mem::take(&mut self.damaged)
    }

    fn of(&self, id: FileId) -> impl Iterator<Item = &Segment> {
        let numbers = self.by_file.get(&id).into_iter().flatten();
        numbers.filter_map(|number| self.segments.get(number))
    }

    /// Fills `buffer` with at most `limit` bytes from `offset` on: fewer at the end and before a gap, none in one.
    pub fn read(&mut self, id: FileId, offset: u64, buffer: &mut Vec<u8>, limit: usize) -> io::Result<()> {
        buffer.clear();
        while buffer.len() < limit {
            let at = offset + buffer.len() as u64;
            let numbers = self.by_file.get(&id).into_iter().flatten();
            let mut holders = numbers.filter(|&number| {
                self.segments.get(number).is_some_and(|segment| segment.frame_at(at).is_some())
            });
            let Some(&number) = holders.next() else { return Ok(()) };
            let path = self.path(number);
            let Some(segment) = self.segments.get_mut(&number) else { return Ok(()) };
            let Some(frame) = segment.frame_at(at).copied() else { return Ok(()) };
            let skip = (at - frame.start) as usize;
            if let Err(what) = frame.read(&path, &mut self.packed, buffer, skip, limit)? {
                segment.damage(&frame);
                self.damaged.push((id, frame.end() - at));
                tracing::error!(path = %path.display(), what, bytes = frame.raw, "spilled log lines are damaged");
            }
        }
        Ok(())
    }

    /// Keeps bytes of a file from `start` on, at most [`FRAME`] of them. What has to be dropped for that is noted in `dropped`, and
    /// may be these bytes themselves; without it nothing is dropped. Whether they are kept: on disk after the next
    /// [`Self::sync`].
    pub fn append(
        &mut self,
        header: &Header,
        start: u64,
        bytes: &[u8],
        mut dropped: Option<&mut Vec<Dropped>>,
    ) -> io::Result<bool> {
        let (frame, packed) = Frame::pack(start, bytes)?;
        let largest = self.largest_segment();
        let open = self.by_file.get(&header.id).and_then(|numbers| numbers.last().copied());
        let mut open = open.filter(|number| {
            self.dirty.contains_key(number)
                && self.segments.get(number).is_some_and(|segment| {
                    segment.end == start
                        && segment.bytes + packed.len() as u64 <= largest
                        && segment.end - segment.start < SEGMENT_RAW
                })
        });
        let first = if open.is_none() { header.line()?.len() as u64 } else { 0 };
        while !self.has_room(first + packed.len() as u64 + DISK_BLOCK)? {
            let Some(dropped) = &mut dropped else { return Ok(false) };
            let Some((&oldest, _)) = self.segments.first_key_value() else {
                dropped.push(Dropped { id: header.id, span: Span { start, end: frame.end() } });
                return Ok(false);
            };
            open = open.filter(|open| *open != oldest);
            dropped.extend(self.remove(oldest));
        }
        let number = match open {
            Some(number) => number,
            None => self.create(header, start)?,
        };
        let (Some(segment), Some(file)) = (self.segments.get_mut(&number), self.dirty.get(&number)) else {
            return Ok(false);
        };
        let before = on_disk(segment.bytes);
        segment.append(file, frame, &packed)?;
        self.bytes += on_disk(segment.bytes) - before;
        Ok(true)
    }

    fn create(&mut self, header: &Header, start: u64) -> io::Result<u64> {
        fs::create_dir_all(&self.directory)?;
        let number = self.next;
        let (segment, file) = Segment::create(&self.path(number), header, start)?;
        self.next += 1;
        self.close_full_ones(header.id)?;
        self.insert(number, segment);
        self.dirty.insert(number, file);
        Ok(number)
    }

    /// A file has one open segment.
    fn close_full_ones(&mut self, id: FileId) -> io::Result<()> {
        for number in self.by_file.get(&id).into_iter().flatten() {
            if let Some(file) = self.dirty.remove(number) {
                file.sync_data()?;
            }
        }
        Ok(())
    }

    /// Makes what was appended durable and closes it: more goes into segments of its own.
    pub fn sync(&mut self) -> io::Result<()> {
        if self.dirty.is_empty() {
            return Ok(());
        }
        for file in self.dirty.values() {
            file.sync_data()?;
        }
        File::open(&self.directory)?.sync_all()?;
        self.dirty.clear();
        Ok(())
    }

    /// Everything of this file below `offset` is confirmed, and the checkpoint says so.
    pub fn confirmed(&mut self, id: FileId, offset: u64) {
        let numbers = self.by_file.get(&id).into_iter().flatten().copied();
        let is_done = |number: &u64| self.segments.get(number).is_none_or(|segment| segment.end <= offset);
        let done: Vec<u64> = numbers.filter(is_done).collect();
        for number in done {
            self.remove(number);
        }
    }

    /// Whose bytes are here.
    pub fn ids(&self) -> Vec<FileId> {
        self.by_file.keys().copied().collect()
    }

    fn remove(&mut self, number: u64) -> Option<Dropped> {
        let segment = self.segments.remove(&number)?;
        let id = segment.header.id;
        self.dirty.remove(&number);
        self.bytes = self.bytes.saturating_sub(on_disk(segment.bytes));
        if let Some(numbers) = self.by_file.get_mut(&id) {
            numbers.retain(|other| *other != number);
            if numbers.is_empty() {
                self.by_file.remove(&id);
            }
        }
        let path = self.path(number);
        if segment.is_damaged {
            let message = set_aside(&path, "a frame of it could not be read");
            tracing::warn!("{message}");
        } else if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "could not remove a spilled segment");
        }
        Some(Dropped { id, span: Span { start: segment.start, end: segment.end } })
    }

    fn path(&self, number: u64) -> PathBuf {
        self.directory.join(format!("{number:010}.spill"))
    }

    /// Small enough that dropping the oldest costs little of what is kept.
    fn largest_segment(&self) -> u64 {
        (self.limits.max_bytes / 16).clamp(64 << 10, 8 << 20)
    }

    fn has_room(&self, more: u64) -> io::Result<bool> {
        if self.bytes + more > self.limits.max_bytes {
            return Ok(false);
        }
        let nearest = self.directory.ancestors().find(|directory| directory.exists());
        let space = rustix::fs::statvfs(nearest.unwrap_or(&self.directory))?;
        let (free, whole) = (space.f_bavail as f64, space.f_blocks as f64);
        Ok(free >= whole * self.limits.min_free)
    }
}

/// Keeps one damaged segment for people to look at.
fn set_aside(path: &Path, what: &str) -> String {
    let aside = path.with_file_name("segment.corrupt");
    match fs::rename(path, &aside) {
        Ok(()) => format!("{} is damaged ({what}): set aside as {}", path.display(), aside.display()),
        Err(error) => format!("{} is damaged ({what}) and could not be set aside: {error}", path.display()),
    }
}

fn on_disk(bytes: u64) -> u64 {
    bytes.div_ceil(DISK_BLOCK) * DISK_BLOCK
}

#[cfg(test)]
mod tests;
