//! What is known of a segment without reading it again: where its blocks lie, which sources are in it.
//!
//! The payload of a footer frame: u32 number of blocks and 40 bytes for each (number, least and greatest time; offset,
//! length, length up to the records, number of records), i64 when its first and last block were written, u32 damaged
//! places, u32 number of sources (all ones: too many) and 20 bytes for each (id, greatest position).

use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

use super::{
    block::TableEntry,
    codec::Input,
    segment::{
        BlockReader, HEADER, Header, KIND_FOOTER, MAGIC, MAX_BLOCKS, MAX_NUMBER, PREFIX, Prefix, VERSION,
    },
};

/// More sources than this in one segment are not listed.
const MAX_SOURCES: usize = 256;
const FOOTER_END: [u8; 4] = *b"NWsf";
/// CRC, frame length and `FOOTER_END`.
const FOOTER_TAIL: usize = 12;

/// Where a block lies and when its records were said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlockEntry {
    pub(super) number: u64,
    pub(super) min_time: i64,
    pub(super) max_time: i64,
    pub(super) offset: u32,
    pub(super) len: u32,
    /// The length of everything before the records.
    pub(super) front: u32,
    pub(super) records: u32,
}

impl BlockEntry {
    pub(super) fn new(header: &Header, offset: u64, len: u32) -> Self {
        Self {
            number: header.number,
            min_time: header.min_time,
            max_time: header.max_time,
            offset: offset as u32,
            len,
            front: header.front() as u32,
            records: header.records,
        }
    }
}

/// What a segment holds of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    Nothing,
    UpTo(u64),
    /// There are too many sources to know without looking.
    Unknown,
}

/// The sources of a segment with their greatest position, sorted by id; `None` when there are too many.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sources(Option<Vec<([u8; 12], [u8; 8])>>);

impl Sources {
    fn add(&mut self, id: &[u8; 12], position: u64) {
        let Some(list) = &mut self.0 else { return };
        match list.binary_search_by(|(other, _)| other.cmp(id)) {
            Ok(at) => {
                let known = u64::from_le_bytes(list[at].1);
                list[at].1 = known.max(position).to_le_bytes();
            }
            Err(_) if list.len() == MAX_SOURCES => self.0 = None,
            Err(at) => list.insert(at, (*id, position.to_le_bytes())),
        }
    }

    fn held(&self, id: &[u8; 12]) -> Held {
        let Some(list) = &self.0 else { return Held::Unknown };
        match list.binary_search_by(|(other, _)| other.cmp(id)) {
            Ok(at) => Held::UpTo(u64::from_le_bytes(list[at].1)),
            Err(_) => Held::Nothing,
        }
    }
}

/// The index of one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SegmentIndex {
    /// The number in its name.
    pub(super) id: u64,
    pub(super) salt: u64,
    /// The length of the file.
    pub(super) bytes: u64,
    pub(super) blocks: Vec<BlockEntry>,
    sources: Sources,
    /// When the first and the last block were written.
    pub(super) written: Option<(i64, i64)>,
    /// Damaged places.
    pub(super) damaged: u32,
    /// Nothing more is appended to it.
    pub(super) sealed: bool,
}

impl SegmentIndex {
    pub(super) fn new(id: u64, salt: u64) -> Self {
        Self {
            id,
            salt,
            bytes: 0,
            blocks: Vec::new(),
            sources: Sources(Some(Vec::new())),
            written: None,
            damaged: 0,
            sealed: false,
        }
    }

    /// Takes note of the block that lies at the end, in a frame of `len` bytes.
    pub(super) fn push(&mut self, header: &Header, len: u32, table: &[TableEntry]) {
        self.blocks.push(BlockEntry::new(header, self.bytes, len));
        self.bytes += u64::from(len);
        let first = self.written.map_or(header.written, |(first, _)| first);
        self.written = Some((first, header.written));
        for entry in table {
            self.sources.add(&entry.source.id, entry.positions.max);
        }
    }

    pub(super) fn held(&self, id: &[u8; 12]) -> Held {
        self.sources.held(id)
    }

    /// Its sources with their greatest positions; `None` when there are too many to know without looking.
    pub(super) fn sources(&self) -> Option<impl Iterator<Item = (&[u8; 12], u64)>> {
        let list = self.sources.0.as_ref()?;
        Some(list.iter().map(|(id, position)| (id, u64::from_le_bytes(*position))))
    }

    pub(super) fn is_full(&self, max_bytes: u64) -> bool {
        self.sealed || self.bytes >= max_bytes || self.blocks.len() >= MAX_BLOCKS
    }

    /// The footer frame of this segment.
    pub(super) fn encode_footer(&self) -> Vec<u8> {
        let mut frame = vec![0; PREFIX];
        frame.extend_from_slice(&(self.blocks.len() as u32).to_le_bytes());
        for block in &self.blocks {
            frame.extend_from_slice(&block.number.to_le_bytes());
            frame.extend_from_slice(&block.min_time.to_le_bytes());
            frame.extend_from_slice(&block.max_time.to_le_bytes());
            for number in [block.offset, block.len, block.front, block.records] {
                frame.extend_from_slice(&number.to_le_bytes());
            }
        }
        let (first, last) = self.written.unwrap_or_default();
        frame.extend_from_slice(&first.to_le_bytes());
        frame.extend_from_slice(&last.to_le_bytes());
        frame.extend_from_slice(&self.damaged.to_le_bytes());
        let sources = self.sources.0.as_deref();
        let count = sources.map_or(u32::MAX, |list| list.len() as u32);
        frame.extend_from_slice(&count.to_le_bytes());
        for (id, position) in sources.unwrap_or_default() {
            frame.extend_from_slice(id);
            frame.extend_from_slice(position);
        }
        let len = (frame.len() + FOOTER_TAIL) as u32;
        Prefix { version: VERSION, kind: KIND_FOOTER, len, salt: self.salt }.encode(&mut frame);
        let crc = crc32fast::hash(&frame);
        frame.extend_from_slice(&crc.to_le_bytes());
        frame.extend_from_slice(&len.to_le_bytes());
        frame.extend_from_slice(&FOOTER_END);
        frame
    }

    /// Reads the footer of a segment file of `bytes` bytes; `None` when there is no whole one.
    fn read_footer(file: &File, id: u64, bytes: u64) -> io::Result<Option<Self>> {
        let mut tail = [0; 8];
        let Some(tail_at) = bytes.checked_sub(8) else { return Ok(None) };
        file.read_exact_at(&mut tail, tail_at)?;
        let len = u64::from(u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]));
        let at = bytes.checked_sub(len);
        let (Some(at), true, true) = (at, tail[4..] == FOOTER_END, len <= 1 << 20) else { return Ok(None) };
        let mut frame = vec![0; len as usize];
        file.read_exact_at(&mut frame, at)?;
        Ok(Self::decode_footer(&frame, id, at))
    }

    /// `at` is where the frame lies.
    fn decode_footer(frame: &[u8], id: u64, at: u64) -> Option<Self> {
        let prefix = Prefix::decode(frame)?;
        let end = frame.len().checked_sub(FOOTER_TAIL)?;
        let crc = Input(&frame[end..]).u32()?;
        let known = (prefix.version, prefix.kind) == (VERSION, KIND_FOOTER);
        if !known || prefix.len as usize != frame.len() || crc != crc32fast::hash(&frame[..end]) {
            return None;
        }
        let mut input = Input(frame.get(PREFIX..end)?);
        let mut index = Self::new(id, prefix.salt);
        for _ in 0..input.u32()? {
            index.blocks.push(take_entry(&mut input)?);
        }
        let written = (input.i64()?, input.i64()?);
        index.written = (!index.blocks.is_empty()).then_some(written);
        index.damaged = input.u32()?;
        index.sources = match input.u32()? {
            u32::MAX => Sources(None),
            count => {
                let pairs = (0..count).map(|_| Some((input.array()?, input.array()?)));
                Sources(Some(pairs.collect::<Option<_>>()?))
            }
        };
        index.sealed = true;
        index.bytes = at + frame.len() as u64;
        let inside = |block: &BlockEntry| {
            u64::from(block.offset) + u64::from(block.len) <= at
                && block.front <= block.len
                && block.front as usize >= HEADER
                && block.number <= MAX_NUMBER
        };
        index.blocks.iter().all(inside).then_some(index)
    }
}

fn take_entry(input: &mut Input<'_>) -> Option<BlockEntry> {
    Some(BlockEntry {
        number: input.u64()?,
        min_time: input.i64()?,
        max_time: input.i64()?,
        offset: input.u32()?,
        len: input.u32()?,
        front: input.u32()?,
        records: input.u32()?,
    })
}

/// A segment that was just opened.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) index: SegmentIndex,
    /// Where the last whole frame ends; less than the file's length when a tail has to be cut.
    pub(super) end: u64,
    /// What a human should know.
    pub(super) messages: Vec<String>,
}

/// Opens a segment. `newest` is set for the last segment, which a crash may have torn: its blocks are read as a whole, and
/// blocks that were not known to be on disk (the number given and later) are given up from the first torn one on.
pub(super) fn load(path: &Path, id: u64, newest: Option<u64>) -> io::Result<Loaded> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    if let Some(index) = SegmentIndex::read_footer(&file, id, bytes)? {
        return Ok(Loaded { index, end: bytes, messages: Vec::new() });
    }
    let mut scan = Scan {
        file: &file,
        path,
        bytes,
        newest,
        salt: None,
        at: 0,
        reader: BlockReader::new()?,
        messages: vec![],
    };
    let mut index = SegmentIndex::new(id, 0);
    while scan.at < bytes {
        if scan.step(&mut index)?.is_none() {
            break;
        }
    }
    let (end, messages) = (scan.at, scan.messages);
    index.salt = scan.salt.unwrap_or_default();
    // What lies behind the last frame of a segment that is not appended to any more stays, and counts as its bytes.
    index.bytes = if newest.is_some() { end } else { bytes };
    index.sealed |= newest.is_none();
    Ok(Loaded { index, end, messages })
}

struct Scan<'a> {
    file: &'a File,
    path: &'a Path,
    bytes: u64,
    newest: Option<u64>,
    salt: Option<u64>,
    at: u64,
    reader: BlockReader,
    messages: Vec<String>,
}

enum Frame {
    Block(Header, Vec<TableEntry>, u32),
    /// A footer, or something of a later release.
    Other(Prefix),
}

impl Scan<'_> {
    /// Steps over one frame, or over damage up to the next one; `None` when there is no next one.
    fn step(&mut self, index: &mut SegmentIndex) -> io::Result<Option<()>> {
        match self.frame(self.at)? {
            Some(Frame::Block(header, table, len)) => {
                index.bytes = self.at;
                index.push(&header, len, &table);
                self.at += u64::from(len);
            }
            Some(Frame::Other(prefix)) => {
                if prefix.version != VERSION {
                    let path = self.path.display();
                    self.messages
                        .push(format!("{path} holds a block of a later release: it is not searched"));
                }
                index.sealed = true;
                self.at += u64::from(prefix.len);
            }
            None => {
                let next = self.next_frame()?;
                let Some((next, number)) = next.filter(|(_, number)| !self.is_unsynced(*number)) else {
                    index.damaged += u32::from(self.newest.is_none());
                    self.say_tail();
                    return Ok(None);
                };
                index.damaged += 1;
                let (path, from) = (self.path.display(), self.at);
                self.messages.push(format!(
                    "{path} is damaged from byte {from} to {next}: the blocks there are lost{}",
                    number.map(|number| format!(", the next is {number}")).unwrap_or_default()
                ));
                self.at = next;
            }
        }
        Ok(Some(()))
    }

    fn is_unsynced(&self, number: Option<u64>) -> bool {
        self.newest.zip(number).is_some_and(|(unsynced, number)| number > unsynced)
    }

    fn say_tail(&mut self) {
        let (path, at, rest) = (self.path.display(), self.at, self.bytes - self.at);
        let done = if self.newest.is_some() { "was cut off" } else { "is not read" };
        self.messages
            .push(format!("{path} ends in a torn block at byte {at}: its tail of {rest} bytes {done}"));
    }

    /// The frame at an offset; `None` when there is no whole one.
    fn frame(&mut self, at: u64) -> io::Result<Option<Frame>> {
        let Some(prefix) = self.prefix(at)? else { return Ok(None) };
        self.salt = Some(prefix.salt);
        let mut start = [0; HEADER];
        if prefix.len as usize >= HEADER {
            self.file.read_exact_at(&mut start, at)?;
        }
        let Some((_, header)) = Header::decode(&start) else {
            let is_block = (prefix.version, prefix.kind) == (VERSION, super::segment::KIND_BLOCK);
            return Ok((!is_block).then_some(Frame::Other(prefix)));
        };
        self.reader.read_front(self.file, at, header.front())?;
        if self.newest.is_some() && !self.reader.is_whole(self.file, at)? {
            return Ok(None);
        }
        Ok(self.reader.table().map(|table| Frame::Block(header, table, prefix.len)))
    }

    /// The prefix at an offset, when its frame is one of this segment and ends inside the file.
    fn prefix(&self, at: u64) -> io::Result<Option<Prefix>> {
        let mut start = [0; PREFIX];
        if self.bytes - at < PREFIX as u64 {
            return Ok(None);
        }
        self.file.read_exact_at(&mut start, at)?;
        let ours = |prefix: &Prefix| {
            self.salt.is_none_or(|salt| salt == prefix.salt) && u64::from(prefix.len) <= self.bytes - at
        };
        Ok(Prefix::decode(&start).filter(ours))
    }

    /// The next whole frame behind `self.at`, with its number when it is a block.
    fn next_frame(&mut self) -> io::Result<Option<(u64, Option<u64>)>> {
        let mut window = vec![0; 64 << 10];
        let mut from = self.at + 1;
        while from < self.bytes {
            let len = window.len().min((self.bytes - from) as usize);
            self.file.read_exact_at(&mut window[..len], from)?;
            for found in memchr::memmem::find_iter(&window[..len], &MAGIC) {
                let at = from + found as u64;
                let salt = self.salt;
                match self.frame(at)? {
                    Some(Frame::Block(header, ..)) => return Ok(Some((at, Some(header.number)))),
                    Some(Frame::Other(_)) => return Ok(Some((at, None))),
                    None => self.salt = salt,
                }
            }
            if from + len as u64 == self.bytes {
                break;
            }
            from += (len - MAGIC.len() + 1) as u64;
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_footer_comes_back() {
        let mut index = SegmentIndex::new(3, 99);
        let mut header = Header::default();
        (header.number, header.written, header.min_time, header.max_time) = (5, 7, -1, 4);
        index.push(&header, 100, &[]);
        index.sources.add(&[1; 12], 10);
        index.sources.add(&[1; 12], 4);
        let frame = index.encode_footer();
        let mut read = SegmentIndex::decode_footer(&frame, 3, 100).expect("whole");
        assert_eq!((read.bytes, read.sealed), (100 + frame.len() as u64, true));
        assert_eq!(read.held(&[1; 12]), Held::UpTo(10));
        assert_eq!(read.held(&[2; 12]), Held::Nothing);
        (read.bytes, read.sealed) = (100, false);
        assert_eq!(read, index);
    }

    #[test]
    fn a_footer_with_any_byte_changed_is_refused() {
        let mut index = SegmentIndex::new(0, 1);
        index.push(&Header::default(), 100, &[]);
        let mut frame = index.encode_footer();
        for at in 0..frame.len() - 8 {
            frame[at] ^= 1;
            assert!(SegmentIndex::decode_footer(&frame, 0, 100).is_none(), "byte {at}");
            frame[at] ^= 1;
        }
    }

    #[test]
    fn too_many_sources_are_unknown() {
        let mut sources = Sources(Some(Vec::new()));
        for number in 0..MAX_SOURCES as u32 {
            let mut id = [0; 12];
            id[..4].copy_from_slice(&number.to_le_bytes());
            sources.add(&id, 1);
        }
        assert_eq!(sources.held(&[0xff; 12]), Held::Nothing);
        sources.add(&[0xff; 12], 1);
        assert_eq!(sources.held(&[0xff; 12]), Held::Unknown);
        assert_eq!(sources.held(&[0xfe; 12]), Held::Unknown);
    }
}
