//! A segment file: frames one after the other, each whole in itself.
//!
//! # The format, version 1
//!
//! A store is a directory with segments `0000000000.seg`, `0000000001.seg`, … and one `head`. All numbers are little-endian;
//! a varint is LEB128; a CRC is CRC-32 (IEEE).
//!
//! A segment is a sequence of frames. A frame starts with 24 bytes that every later version keeps, so that an older release
//! can step over what it does not know:
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 4 | `NWst`, to find the next frame behind damage |
//! | 4 | 1 | version, 1 |
//! | 5 | 1 | kind: 1 = block, 2 = footer |
//! | 6 | 2 | 0 |
//! | 8 | 4 | length of the whole frame, these bytes included |
//! | 12 | 8 | salt: a random number, the same in all frames of one segment |
//! | 20 | 4 | CRC of bytes 0 to 19 |
//!
//! The salt tells a frame from one that lies there by accident or by intent: after a crash a file may end in blocks of an
//! unlinked segment, and a pod may log bytes that look like a frame.
//!
//! A block goes on with a header of 76 bytes, then three sections:
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 24 | 8 | number of the block: counts up through the life of the store, the order of appending |
//! | 32 | 8 | when it was written, in nanoseconds since the epoch (retention by age goes by this, as clocks of logs lie) |
//! | 40 | 8, 8 | least and greatest time of its records |
//! | 56 | 4 | number of records |
//! | 60 | 4 | length of the filter |
//! | 64 | 4, 4 | length of the source table, compressed and raw |
//! | 72 | 4, 4 | length of the records, compressed and raw |
//! | 80 | 4 | length of the first of the records' two columns |
//! | 84 | 4, 4, 4 | CRCs of filter, source table and records as they lie in the file |
//! | 96 | 4 | CRC of bytes 0 to 95 |
//!
//! 1. The token filter (`filter.rs`), as it is. A search reads it without unpacking anything; when its CRC is wrong, the
//!    block is searched as if it had passed.
//! 2. The source table, zstd: a varint count, then per source varints of least position, greatest position and number of
//!    records, the 12 bytes of its id, and its labels (varint count; name and value, each with a varint length). The table
//!    is in each block although the same sources come again: it costs some 5 % with a hundred pods, and no damage elsewhere
//!    makes a block unreadable.
//! 3. The records, zstd, two columns. First, per record: varint source number, zigzag varint time minus the time before,
//!    zigzag varint position minus the position before in the same source, one byte stream, varint length of the text. Then
//!    the texts.
//!
//! zstd runs at level 1 over at most 256 KiB: level 3 and larger blocks gained nothing on mixed logs, and a small block keeps
//! the unpacking of a search short. Separate CRCs let each section be trusted without reading the others; scanning a segment
//! reads headers and tables and seeks over the rest.
//!
//! A footer ends a segment that is full; it only saves scanning, and a segment without one, or with a damaged one, is
//! scanned. Its payload (`index.rs`) is followed by the CRC of the payload, the length of the frame and `NWsf`.
//!
//! Limits: a text has at most 4 MiB, a source's labels 16 KiB; a reader refuses sections that say they unpack to more than
//! 16 MiB. A segment has at most 512 blocks and, but for its last frame, 16 MiB.
//!
//! Records not yet in a block are in the head (`head.rs`).

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt, path::PathBuf};

use super::{
    block::{OpenBlock, Records, TableEntry, decode_table},
    codec::Input,
    filter::{self, TokenSet},
};

/// The bytes that every frame starts with.
pub(super) const PREFIX: usize = 24;
/// Prefix and header of a block.
pub(super) const HEADER: usize = 100;
pub(super) const MAGIC: [u8; 4] = *b"NWst";
pub(super) const VERSION: u8 = 1;
pub(super) const KIND_BLOCK: u8 = 1;
pub(super) const KIND_FOOTER: u8 = 2;
/// Raw bytes of a block, unless one record has more.
pub(super) const BLOCK_BYTES: usize = 256 << 10;
/// The longest text.
pub(super) const MAX_TEXT: usize = 4 << 20;
/// The longest description of a source.
pub(super) const MAX_SOURCE: usize = 16 << 10;
/// Blocks of one segment: bounds the index of very repetitive logs.
pub(super) const MAX_BLOCKS: usize = 512;
/// Blocks are counted one by one: a greater number is not one of ours, and there has to be a next one.
pub(super) const MAX_NUMBER: u64 = 1 << 62;
/// What a section may unpack to.
const MAX_SECTION: u32 = 16 << 20;
const LEVEL: i32 = 1;

/// The name of a segment file.
pub(super) fn file_name(id: u64) -> PathBuf {
    PathBuf::from(format!("{id:010}.seg"))
}

/// The number in a segment file's name.
pub(super) fn parse_file_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    let is_ours = digits.len() >= 10 && digits.bytes().all(|byte| byte.is_ascii_digit());
    // There has to be a next one.
    is_ours.then(|| digits.parse().ok())?.filter(|id| *id < u64::MAX)
}

/// What every frame starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prefix {
    pub(super) version: u8,
    pub(super) kind: u8,
    pub(super) len: u32,
    pub(super) salt: u64,
}

impl Prefix {
    pub(super) fn encode(self, out: &mut [u8]) {
        out[..4].copy_from_slice(&MAGIC);
        out[4..8].copy_from_slice(&[self.version, self.kind, 0, 0]);
        out[8..12].copy_from_slice(&self.len.to_le_bytes());
        out[12..20].copy_from_slice(&self.salt.to_le_bytes());
        let crc = crc32fast::hash(&out[..20]);
        out[20..24].copy_from_slice(&crc.to_le_bytes());
    }

    /// `None` unless `bytes` start with a whole prefix.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = Input(bytes);
        if input.array()? != MAGIC {
            return None;
        }
        let [version, kind, _, _] = input.array()?;
        let (len, salt, crc) = (input.u32()?, input.u64()?, input.u32()?);
        let whole = crc == crc32fast::hash(&bytes[..20]) && len as usize >= PREFIX;
        whole.then_some(Self { version, kind, len, salt })
    }
}

/// The header of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Header {
    pub(super) number: u64,
    pub(super) written: i64,
    pub(super) min_time: i64,
    pub(super) max_time: i64,
    pub(super) records: u32,
    filter_len: u32,
    table_len: u32,
    table_raw: u32,
    records_len: u32,
    records_raw: u32,
    meta_len: u32,
    filter_crc: u32,
    table_crc: u32,
    records_crc: u32,
}

impl Header {
    fn encode(&self, frame: &mut [u8]) {
        let mut at = PREFIX;
        let mut put = |bytes: &[u8]| {
            frame[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&self.number.to_le_bytes());
        for time in [self.written, self.min_time, self.max_time] {
            put(&time.to_le_bytes());
        }
        for number in [self.records, self.filter_len, self.table_len, self.table_raw, self.records_len] {
            put(&number.to_le_bytes());
        }
        for number in [self.records_raw, self.meta_len, self.filter_crc, self.table_crc, self.records_crc] {
            put(&number.to_le_bytes());
        }
        let crc = crc32fast::hash(&frame[..HEADER - 4]);
        frame[HEADER - 4..HEADER].copy_from_slice(&crc.to_le_bytes());
    }

    /// Prefix and header of a block; `None` unless both are whole and agree with each other.
    pub(super) fn decode(frame: &[u8]) -> Option<(Prefix, Self)> {
        let prefix = Prefix::decode(frame)?;
        if (prefix.version, prefix.kind) != (VERSION, KIND_BLOCK) {
            return None;
        }
        let mut input = Input(frame.get(PREFIX..HEADER)?);
        let header = Self {
            number: input.u64()?,
            written: input.i64()?,
            min_time: input.i64()?,
            max_time: input.i64()?,
            records: input.u32()?,
            filter_len: input.u32()?,
            table_len: input.u32()?,
            table_raw: input.u32()?,
            records_len: input.u32()?,
            records_raw: input.u32()?,
            meta_len: input.u32()?,
            filter_crc: input.u32()?,
            table_crc: input.u32()?,
            records_crc: input.u32()?,
        };
        let whole = input.u32()? == crc32fast::hash(&frame[..HEADER - 4]) && header.fits(prefix.len);
        whole.then_some((prefix, header))
    }

    fn fits(&self, len: u32) -> bool {
        let sections = [self.filter_len, self.table_len, self.records_len];
        let sum: u64 = HEADER as u64 + sections.iter().map(|&len| u64::from(len)).sum::<u64>();
        sum == u64::from(len)
            && self.number <= MAX_NUMBER
            && self.table_raw <= MAX_SECTION
            && self.records_raw <= MAX_SECTION
            && self.meta_len <= self.records_raw
    }

    fn filter(&self) -> Range<usize> {
        HEADER..HEADER + self.filter_len as usize
    }

    fn table(&self) -> Range<usize> {
        let start = self.filter().end;
        start..start + self.table_len as usize
    }

    /// The length of everything before the records.
    pub(super) fn front(&self) -> usize {
        self.table().end
    }
}

/// Makes frames; keeps its buffers.
pub(super) struct Encoder {
    zstd: zstd::bulk::Compressor<'static>,
    tokens: TokenSet,
    raw: Vec<u8>,
    frame: Vec<u8>,
}

impl Encoder {
    pub(super) fn new() -> io::Result<Self> {
        let zstd = zstd::bulk::Compressor::new(LEVEL)?;
        Ok(Self { zstd, tokens: TokenSet::default(), raw: Vec::new(), frame: Vec::new() })
    }

    /// The frame of a block, and its header.
    pub(super) fn encode(
        &mut self,
        block: &OpenBlock,
        salt: u64,
        written: i64,
    ) -> io::Result<(Header, &[u8])> {
        self.frame.clear();
        self.frame.resize(HEADER, 0);
        self.put_filter(block);
        let filter = HEADER..self.frame.len();

        self.raw.clear();
        block.encode_table(&mut self.raw);
        let table_raw = self.raw.len() as u32;
        let table = self.put_compressed()?;

        self.raw.clear();
        self.raw.extend_from_slice(&block.meta);
        self.raw.extend_from_slice(&block.text);
        let records_raw = self.raw.len() as u32;
        let records = self.put_compressed()?;
        self.raw.shrink_to(2 * BLOCK_BYTES);

        let crc = |range: &Range<usize>| crc32fast::hash(&self.frame[range.clone()]);
        let header = Header {
            number: block.number,
            written,
            min_time: block.min_time,
            max_time: block.max_time,
            records: block.records,
            filter_len: filter.len() as u32,
            table_len: table.len() as u32,
            table_raw,
            records_len: records.len() as u32,
            records_raw,
            meta_len: block.meta.len() as u32,
            filter_crc: crc(&filter),
            table_crc: crc(&table),
            records_crc: crc(&records),
        };
        let prefix = Prefix { version: VERSION, kind: KIND_BLOCK, len: self.frame.len() as u32, salt };
        prefix.encode(&mut self.frame);
        header.encode(&mut self.frame);
        Ok((header, &self.frame))
    }

    fn put_filter(&mut self, block: &OpenBlock) {
        self.tokens.clear();
        for record in block.records() {
            filter::tokens(record.text, |token, _| self.tokens.insert(token));
        }
        self.tokens.encode(&mut self.frame);
    }

    /// Appends `raw`, compressed, to the frame.
    fn put_compressed(&mut self) -> io::Result<Range<usize>> {
        let start = self.frame.len();
        self.frame.resize(start + zstd::zstd_safe::compress_bound(self.raw.len()), 0);
        let len = self.zstd.compress_to_buffer(&self.raw, &mut self.frame[start..])?;
        self.frame.truncate(start + len);
        Ok(start..start + len)
    }
}

/// What a frame of a block with so many raw bytes has at most.
pub(super) fn max_frame(raw: usize) -> u64 {
    // A token takes 4 raw bytes and 10 bits of the filter, and zstd adds a little to what does not shrink.
    (HEADER + raw + raw * 5 / 16 + raw / 64 + 1024) as u64
}

/// Reads blocks of segment files; keeps its buffers. `None` from its methods means damage.
pub(super) struct BlockReader {
    zstd: zstd::bulk::Decompressor<'static>,
    front: Vec<u8>,
    packed: Vec<u8>,
    raw: Vec<u8>,
    header: Header,
}

impl BlockReader {
    pub(super) fn new() -> io::Result<Self> {
        let zstd = zstd::bulk::Decompressor::new()?;
        let (front, packed, raw) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { zstd, front, packed, raw, header: Header::default() })
    }

    /// Reads everything of a block but its records.
    pub(super) fn read_front(&mut self, file: &File, offset: u64, len: usize) -> io::Result<Option<Header>> {
        self.front.resize(len, 0);
        match file.read_exact_at(&mut self.front, offset) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            result => result?,
        }
        let header = Header::decode(&self.front).map(|(_, header)| header);
        let header = header.filter(|header| header.front() == len);
        self.header = header.unwrap_or_default();
        Ok(header)
    }

    /// Whether the block that was read last may hold all of `tokens`.
    pub(super) fn may_contain(&self, tokens: &[u64]) -> bool {
        if tokens.is_empty() {
            return true;
        }
        let Some(bits) = self.front.get(self.header.filter()) else { return true };
        crc32fast::hash(bits) != self.header.filter_crc
            || tokens.iter().all(|&token| filter::may_contain(bits, token))
    }

    /// The source table of the block that was read last.
    pub(super) fn table(&mut self) -> Option<Vec<TableEntry>> {
        let packed = self.front.get(self.header.table())?;
        if crc32fast::hash(packed) != self.header.table_crc {
            return None;
        }
        unpack(&mut self.zstd, packed, self.header.table_raw, &mut self.raw)?;
        decode_table(&self.raw)
    }

    /// The records of the block that was read last. `sources` is the length of its table.
    pub(super) fn records(
        &mut self,
        file: &File,
        offset: u64,
        sources: usize,
    ) -> io::Result<Option<Records<'_>>> {
        self.packed.resize(self.header.records_len as usize, 0);
        match file.read_exact_at(&mut self.packed, offset + self.header.front() as u64) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            result => result?,
        }
        if crc32fast::hash(&self.packed) != self.header.records_crc {
            return Ok(None);
        }
        if unpack(&mut self.zstd, &self.packed, self.header.records_raw, &mut self.raw).is_none() {
            return Ok(None);
        }
        let (meta, text) = self.raw.split_at(self.header.meta_len as usize);
        Ok(Some(Records::new(meta, text, sources)))
    }

    /// Whether the block that was read last is whole.
    pub(super) fn is_whole(&mut self, file: &File, offset: u64) -> io::Result<bool> {
        let Some(sources) = self.table().map(|table| table.len()) else { return Ok(false) };
        let count = self.header.records as usize;
        Ok(self.records(file, offset, sources)?.is_some_and(|records| records.count() == count))
    }
}

/// Unpacks into `raw`, which then has exactly `raw_len` bytes; `None` when the packed bytes say otherwise.
fn unpack(
    zstd: &mut zstd::bulk::Decompressor<'_>,
    packed: &[u8],
    raw_len: u32,
    raw: &mut Vec<u8>,
) -> Option<()> {
    raw.clear();
    raw.resize(raw_len as usize, 0);
    let len = zstd.decompress_to_buffer(packed, &mut raw[..]).ok()?;
    (len == raw.len()).then_some(())
}
