//! One journal file, read with `pread` after systemd's description of the format (JOURNAL_FILE_FORMAT).
//!
//! A file is a header and objects at multiples of eight: data (one field each, shared by all entries that have it), entries
//! (lists of data), arrays of entries in a chain. journald appends and only then links, so what is linked is whole; sizes and
//! offsets are believed no further than the end of the file, chains only forwards.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

use rustix::fs::OFlags;

use super::unpack::{Packing, unpack};
use crate::logs::feed_fields::{Fields, Slot};

const SIGNATURE: &[u8; 8] = b"LPKSHHRH";
/// As much of the header as every version has.
const HEADER_BYTES: usize = 208;
const OBJECT_HEADER: u64 = 16;
const ENTRY_ITEMS: u64 = 64;
const ARRAY_ITEMS: u64 = 24;
/// Bytes read at once where the next ones are likely to be wanted too.
const AHEAD: usize = 16 << 10;
/// Bytes of a field that are read to see its name and, mostly, all of it.
const FIRST_LOOK: usize = 512;
/// Values other than the message are cut at this length.
const MAX_VALUE: usize = 16 << 10;
/// Fields of an entry that are looked at.
const MAX_FIELDS: u64 = 1024;
/// Fields that are remembered: most belong to many entries.
const REMEMBERED: usize = 1024;
/// Longer values are not.
const MAX_REMEMBERED: usize = 256;
/// Positions have to fit into the ids of documents.
const MAX_SEQNUM: u64 = 1 << 48;

const DATA: u8 = 1;
const ENTRY: u8 = 3;
const ENTRY_ARRAY: u8 = 6;

const COMPACT: u32 = 16;
/// xz, lz4, keyed hash, zstd, compact.
const KNOWN_FLAGS: u32 = 31;

/// Why a file, or a part of it, can't be read.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The operating system says so.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not what the format says.
    #[error("{0}")]
    Damaged(&'static str),
    /// It is of a newer version.
    #[error("it has features that are not known here (flags {0:#x})")]
    Newer(u32),
}

type Result<T> = std::result::Result<T, Trouble>;

/// What the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    flags: u32,
    state: u8,
    /// Whose numbers the entries have: files that follow on each other share it.
    pub seqnum_id: [u8; 16],
    header_size: u64,
    tail_object: u64,
    /// Entries in the file.
    pub entries: u64,
    /// The number of the last entry.
    pub tail_seqnum: u64,
    /// The number of the first entry.
    pub head_seqnum: u64,
    array: u64,
}

impl Header {
    fn parse(bytes: &[u8]) -> Result<Self> {
        let damaged = Trouble::Damaged("its header is cut off");
        let bytes: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(damaged)?;
        if &bytes[..8] != SIGNATURE {
            return Err(Trouble::Damaged("it has not the signature of a journal file"));
        }
        let number = |at: usize| number(bytes, at);
        let mut seqnum_id = [0; 16];
        seqnum_id.copy_from_slice(&bytes[72..88]);
        let header = Self {
            flags: number(12) as u32,
            state: bytes[16],
            seqnum_id,
            header_size: number(88),
            tail_object: number(136),
            entries: number(152),
            tail_seqnum: number(160),
            head_seqnum: number(168),
            array: number(176),
        };
        if header.flags & !KNOWN_FLAGS != 0 {
            return Err(Trouble::Newer(header.flags));
        }
        if header.header_size < HEADER_BYTES as u64 {
            return Err(Trouble::Damaged("its header says a wrong size"));
        }
        Ok(header)
    }

    fn is_compact(&self) -> bool {
        self.flags & COMPACT != 0
    }

    /// Bytes of an offset in an array, and of an item of an entry.
    fn item_sizes(&self) -> (u64, u64) {
        if self.is_compact() { (4, 4) } else { (8, 16) }
    }

    /// About how many bytes are in use: files are made larger than what they hold.
    pub fn used(&self) -> u64 {
        self.tail_object.max(self.header_size)
    }

    /// Whether journald says that it writes no more to it.
    pub fn is_archived(&self) -> bool {
        self.state == 2
    }
}

/// Eight little-endian bytes at `at`; 0 beyond the end, which is never a valid place or size.
fn number(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |eight| u64::from_le_bytes(*eight))
}

/// A piece of the file that was read.
#[derive(Debug, Default)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// `length` bytes at `offset`, fewer at the end of the file.
    fn get(&mut self, file: &File, offset: u64, length: usize, ahead: usize) -> io::Result<&[u8]> {
        let is_in = |start: u64, held: usize| {
            offset >= start && offset.saturating_add(length as u64) <= start.saturating_add(held as u64)
        };
        if !is_in(self.start, self.bytes.len()) {
            self.bytes.resize(length.max(ahead), 0);
            let read = read_at_most(file, &mut self.bytes, offset);
            self.bytes.truncate(*read.as_ref().unwrap_or(&0));
            self.start = offset;
            read?;
        }
        let from = (offset - self.start) as usize;
        Ok(&self.bytes[from..self.bytes.len().min(from + length)])
    }

    fn forget(&mut self) {
        *self = Self::default();
    }
}

fn read_at_most(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Beyond what an offset may be.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => break,
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// A place in the chain of arrays.
#[derive(Debug, Clone, Copy)]
struct Cursor {
    /// The array.
    array: u64,
    /// Offsets it has room for.
    room: u64,
    /// The next array; 0 when there is none.
    next: u64,
    /// Entries in the arrays before.
    before: u64,
    /// The place in the array.
    index: u64,
}

/// An entry that is about to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    offset: u64,
    size: u64,
    /// Its number.
    pub seqnum: u64,
    /// When journald got it, in microseconds since the epoch.
    pub realtime: u64,
}

/// What the cursor stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// An entry.
    Entry(Entry),
    /// Something that should be an entry and is not.
    Unreadable,
    /// Nothing: all entries were passed.
    End,
}

/// What the fields of an entry are beyond their values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extent {
    /// Bytes of the message that were left out because it is longer than allowed.
    pub cut: u64,
    /// Fields that could not be read.
    pub unreadable: u32,
}

/// A field that many entries have.
type Remembered = (Slot, Box<[u8]>);

/// An open journal file.
#[derive(Debug)]
pub struct JournalFile {
    file: File,
    /// Device and inode.
    pub place: (u64, u64),
    /// The header at the last look.
    pub header: Header,
    /// Bytes in the file at the last look.
    size: u64,
    cursor: Option<Cursor>,
    objects: Window,
    arrays: Window,
    /// By their offset; `None` when they are not kept.
    remembered: HashMap<u64, Option<Remembered>>,
    scratch: Vec<u8>,
}

impl JournalFile {
    /// Opens a file and reads its header.
    pub fn open(path: &Path) -> Result<Self> {
        // A named pipe in its place is not waited for.
        let nonblocking = OFlags::NONBLOCK.bits() as i32;
        let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(Trouble::Damaged("it is not a regular file"));
        }
        let header = read_header(&file)?;
        Ok(Self {
            file,
            place: (metadata.dev(), metadata.ino()),
            header,
            size: metadata.len(),
            cursor: None,
            objects: Window::default(),
            arrays: Window::default(),
            remembered: HashMap::new(),
            scratch: Vec::new(),
        })
    }

    /// Reads the header again, and forgets what was read ahead of what was there.
    pub fn refresh(&mut self) -> Result<()> {
        let header = read_header(&self.file)?;
        if header.seqnum_id != self.header.seqnum_id || header.is_compact() != self.header.is_compact() {
            return Err(Trouble::Damaged("its header became another one"));
        }
        self.header = header;
        self.size = self.file.metadata()?.len();
        self.objects.forget();
        self.arrays.forget();
        Ok(())
    }

    /// Gives memory back until there is something to read.
    pub fn rest(&mut self) {
        self.objects.forget();
        self.arrays.forget();
        self.scratch = Vec::new();
    }

    /// Moves to the first entry whose number is at least `seqnum`. Where damage hides the numbers it is one before that.
    pub fn seek(&mut self, seqnum: u64) -> Result<()> {
        self.cursor = None;
        let Some(mut cursor) = self.array(self.header.array, 0, 0)? else { return Ok(()) };
        loop {
            let used = cursor.room.min(self.header.entries.saturating_sub(cursor.before));
            if used == 0 || !self.is_below(&cursor, used - 1, seqnum) {
                let (mut low, mut high) = (0, used.saturating_sub(1));
                while low < high {
                    let middle = low + (high - low) / 2;
                    if self.is_below(&cursor, middle, seqnum) {
                        low = middle + 1;
                    } else {
                        high = middle;
                    }
                }
                cursor.index = low;
                break;
            }
            match self.following(&cursor) {
                Ok(Some(next)) => cursor = next,
                // The end, or as far as the chain can be followed.
                Ok(None) | Err(Trouble::Damaged(_)) => {
                    cursor.index = used;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        self.cursor = Some(cursor);
        Ok(())
    }

    /// The number of the entry after so many.
    pub fn seqnum_after(&mut self, entries: u64) -> Result<Option<u64>> {
        let mut cursor = self.array(self.header.array, 0, 0)?;
        while let Some(at) = cursor {
            if entries < at.before + at.room {
                let offset = self.offset_in(&at, entries - at.before)?;
                return Ok(Some(self.entry(offset)?.seqnum));
            }
            cursor = self.following(&at)?;
        }
        Ok(None)
    }

    /// What the cursor stands on. After damage that hides all that comes behind it there is an end.
    pub fn peek(&mut self) -> Result<Step> {
        let Some(mut cursor) = self.cursor else { return self.begin() };
        if cursor.before.saturating_add(cursor.index) >= self.header.entries {
            return Ok(Step::End);
        }
        if cursor.index >= cursor.room {
            // The array may have got its successor since it was looked at.
            let Some(next) = self.following(&cursor)? else { return Ok(Step::End) };
            cursor = next;
            self.cursor = Some(cursor);
        }
        match self.offset_in(&cursor, cursor.index)? {
            // Counted before it is linked, or never written because the machine went down.
            0 => Ok(Step::End),
            offset => match self.entry(offset) {
                Ok(entry) => Ok(Step::Entry(entry)),
                Err(Trouble::Io(error)) => Err(error.into()),
                Err(_) => Ok(Step::Unreadable),
            },
        }
    }

    /// Passes what the cursor stands on.
    pub fn advance(&mut self) {
        if let Some(cursor) = &mut self.cursor {
            cursor.index += 1;
        }
    }

    /// Reads the fields of an entry, its message up to `max_message` bytes.
    pub fn read(&mut self, entry: &Entry, max_message: usize, fields: &mut Fields) -> Result<Extent> {
        fields.clear();
        let mut extent = Extent::default();
        let (_, item) = self.header.item_sizes();
        let count = ((entry.size - ENTRY_ITEMS) / item).min(MAX_FIELDS);
        for number in 0..count {
            let at = entry.offset + ENTRY_ITEMS + number * item;
            let offset = self.offset_at(at)?;
            match self.field(offset, max_message, fields) {
                Ok(cut) => extent.cut += cut,
                Err(Trouble::Io(error)) => return Err(error.into()),
                Err(_) => extent.unreadable += 1,
            }
        }
        Ok(extent)
    }

    /// A file that was empty when it was sought in has its first array now.
    fn begin(&mut self) -> Result<Step> {
        self.cursor = self.array(self.header.array, 0, 0)?;
        if self.cursor.is_some() { self.peek() } else { Ok(Step::End) }
    }

    /// Whether the entry at this place of the array is known to have a lower number.
    fn is_below(&mut self, cursor: &Cursor, index: u64, seqnum: u64) -> bool {
        let entry = self.offset_in(cursor, index).and_then(|offset| self.entry(offset));
        entry.is_ok_and(|entry| entry.seqnum < seqnum)
    }

    fn following(&mut self, cursor: &Cursor) -> Result<Option<Cursor>> {
        let next = match cursor.next {
            0 => self.array(cursor.array, 0, 0)?.map_or(0, |again| again.next),
            next => next,
        };
        // Also not into itself: lists that overlap could lead through the same entries for hours.
        let (item, _) = self.header.item_sizes();
        if next != 0 && next < cursor.array + ARRAY_ITEMS + cursor.room * item {
            return Err(Trouble::Damaged("its entries lead backwards"));
        }
        self.array(next, cursor.before.saturating_add(cursor.room), 0)
    }

    /// A place in the array at `offset`; `None` when there is no array.
    fn array(&mut self, offset: u64, before: u64, index: u64) -> Result<Option<Cursor>> {
        if offset == 0 {
            return Ok(None);
        }
        let bytes = self.arrays.get(&self.file, offset, ARRAY_ITEMS as usize, AHEAD)?;
        let (kind, size, next) = (bytes.first().copied(), number(bytes, 8), number(bytes, 16));
        self.check(offset, size, ARRAY_ITEMS)?;
        if kind != Some(ENTRY_ARRAY) {
            return Err(Trouble::Damaged("a list of its entries is not where it should be"));
        }
        let (item, _) = self.header.item_sizes();
        let room = (size - ARRAY_ITEMS) / item;
        // An array without room would be gone through for ever.
        if room == 0 {
            return Err(Trouble::Damaged("a list of its entries is empty"));
        }
        Ok(Some(Cursor { array: offset, room, next, before, index }))
    }

    /// The offset at a place of an array.
    fn offset_in(&mut self, cursor: &Cursor, index: u64) -> Result<u64> {
        let (item, _) = self.header.item_sizes();
        let at = cursor.array + ARRAY_ITEMS + index * item;
        let bytes = self.arrays.get(&self.file, at, item as usize, AHEAD)?;
        Ok(if self.header.is_compact() { u64::from(short(bytes)) } else { number(bytes, 0) })
    }

    /// The offset that an entry has at `at`.
    fn offset_at(&mut self, at: u64) -> Result<u64> {
        let bytes = self.objects.get(&self.file, at, 8, AHEAD)?;
        Ok(if self.header.is_compact() { u64::from(short(bytes)) } else { number(bytes, 0) })
    }

    fn entry(&mut self, offset: u64) -> Result<Entry> {
        let bytes = self.objects.get(&self.file, offset, ENTRY_ITEMS as usize, AHEAD)?;
        let (kind, size) = (bytes.first().copied(), number(bytes, 8));
        let (seqnum, realtime) = (number(bytes, 16), number(bytes, 24));
        self.check(offset, size, ENTRY_ITEMS)?;
        if kind != Some(ENTRY) {
            return Err(Trouble::Damaged("an entry is not where it should be"));
        }
        // A number beyond the last one would hide everything that comes after it.
        if seqnum == 0 || seqnum > self.header.tail_seqnum || seqnum >= MAX_SEQNUM {
            return Err(Trouble::Damaged("an entry has a wrong number"));
        }
        Ok(Entry { offset, size, seqnum, realtime })
    }

    /// Takes in one field. How many bytes of it were left out.
    fn field(&mut self, offset: u64, max_message: usize, fields: &mut Fields) -> Result<u64> {
        if let Some(known) = self.remembered.get(&offset) {
            if let Some((slot, value)) = known {
                fields.set(*slot, value);
            }
            return Ok(0);
        }
        let start: u64 = if self.header.is_compact() { 72 } else { 64 };
        let bytes = self.objects.get(&self.file, offset, start as usize, AHEAD)?;
        let (kind, flags, size) =
            (bytes.first().copied(), bytes.get(1).copied().unwrap_or(0), number(bytes, 8));
        self.check(offset, size, start)?;
        if kind != Some(DATA) {
            return Err(Trouble::Damaged("a field is not where it should be"));
        }
        let packing = match flags & 7 {
            0 => Packing::None,
            1 => Packing::Xz,
            2 => Packing::Lz4,
            4 => Packing::Zstd,
            _ => return Err(Trouble::Damaged("a field is packed in more than one way")),
        };
        let payload = Payload { offset: offset + start, length: size - start, packing };
        self.take(offset, &payload, max_message, fields)
    }

    fn take(&mut self, key: u64, payload: &Payload, max_message: usize, fields: &mut Fields) -> Result<u64> {
        let mut text = std::mem::take(&mut self.scratch);
        let taken = self.take_into(key, payload, max_message, fields, &mut text);
        self.scratch = text;
        taken
    }

    fn take_into(
        &mut self,
        key: u64,
        payload: &Payload,
        max_message: usize,
        fields: &mut Fields,
        text: &mut Vec<u8>,
    ) -> Result<u64> {
        let mut total = self.payload(payload, FIRST_LOOK, text)?;
        let equals = memchr::memchr(b'=', text).ok_or(Trouble::Damaged("a field has no name"))?;
        let Some(slot) = Slot::of(&text[..equals]) else {
            self.remember(key, None);
            return Ok(0);
        };
        let limit = if slot == Slot::MESSAGE { max_message } else { MAX_VALUE };
        // When there are as many bytes as were asked for, there may be more.
        if text.len() == FIRST_LOOK && limit + equals + 1 > FIRST_LOOK {
            total = self.payload(payload, limit + equals + 2, text)?;
        }
        let value = &text[equals + 1..];
        let length = total.map_or(value.len() as u64, |total| total.saturating_sub(equals as u64 + 1));
        let kept = value.len().min(limit);
        fields.set(slot, &value[..kept]);
        if slot != Slot::MESSAGE && kept <= MAX_REMEMBERED {
            self.remember(key, Some((slot, value.into())));
        }
        let is_message = slot == Slot::MESSAGE;
        Ok(if is_message { length.max(value.len() as u64) - kept as u64 } else { 0 })
    }

    /// The first `limit` bytes of a payload; how long it is in all, where that is known.
    fn payload(&mut self, payload: &Payload, limit: usize, text: &mut Vec<u8>) -> Result<Option<u64>> {
        let packed = match payload.packing {
            Packing::None => limit,
            // What is packed is shorter than what it holds, but for some bytes that say how.
            _ => limit + 4096,
        };
        let length = payload.length.min(packed as u64) as usize;
        let bytes = self.objects.get(&self.file, payload.offset, length, AHEAD)?;
        if bytes.len() < length {
            return Err(Trouble::Damaged("it ends within a field"));
        }
        let size = unpack(payload.packing, bytes, limit, text)
            .map_err(|_| Trouble::Damaged("a field can't be unpacked"))?;
        // One giant field is no reason to keep its room.
        if length > 4 * AHEAD {
            self.objects.forget();
        }
        Ok(if payload.packing == Packing::None { Some(payload.length) } else { size })
    }

    fn remember(&mut self, key: u64, field: Option<Remembered>) {
        if self.remembered.len() >= REMEMBERED {
            self.remembered.clear();
        }
        self.remembered.insert(key, field);
    }

    /// Whether an object may lie there.
    fn check(&self, offset: u64, size: u64, least: u64) -> Result<()> {
        let end = offset.checked_add(size);
        let is_within = offset >= self.header.header_size && end.is_some_and(|end| end <= self.size);
        if !is_within || !offset.is_multiple_of(8) || size < least.max(OBJECT_HEADER) {
            return Err(Trouble::Damaged("something in it lies outside of it"));
        }
        Ok(())
    }
}

/// Where the bytes of a field lie.
struct Payload {
    offset: u64,
    length: u64,
    packing: Packing,
}

/// Four little-endian bytes.
fn short(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |four| u32::from_le_bytes(*four))
}

fn read_header(file: &File) -> Result<Header> {
    let mut bytes = [0; HEADER_BYTES];
    let length = read_at_most(file, &mut bytes, 0)?;
    Header::parse(&bytes[..length])
}
