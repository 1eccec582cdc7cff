//! The head: the records of the open block, on disk uncompressed until the block is full.
//!
//! A quiet node says a line a second; a block per sync would be all header. So a sync appends what is new to this file, and
//! the block is written once, when it is full.
//!
//! # The format, version 1
//!
//! 20 bytes: `NWhd`, u8 version 1, three 0, u64 number of the block these records will become, CRC of the 16 bytes before.
//! Then one entry per sync: u32 length, u32 CRC, payload. The CRC covers the CRC before it (the header's for the first
//! entry), the length and the payload: the chain breaks at a torn entry and at bytes of an older head. The payload: varint
//! number of new sources and their descriptions as in a block's table, varint number of records, the metadata column with
//! a varint length, the texts.
//!
//! A new head is written beside the old one and renamed over it, after the block of the old one is on disk. A head is
//! ignored when a segment has a block with its number or a later one: a crash came between the two. Blocks from its number
//! on were not known to be on disk: when one of them is torn, those behind it are given up too, so that a crash loses the
//! end of what was appended and nothing in the middle.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::{
    StoreError,
    block::{Mark, OpenBlock},
    codec::Input,
    segment::MAX_NUMBER,
};

const MAGIC: [u8; 4] = *b"NWhd";
const VERSION: u8 = 1;
const HEADER: usize = 20;
/// A head holds one block; anything longer is not one of ours.
const MAX_BYTES: u64 = 64 << 20;

/// The head file and how far it is written.
#[derive(Debug)]
pub(super) struct Head {
    path: PathBuf,
    /// Open for appending; `None` when the next write has to start a new file.
    file: Option<File>,
    /// The block it was written for.
    number: Option<u64>,
    mark: Mark,
    crc: u32,
    bytes: u64,
}

/// What a sync has to write.
#[derive(Debug)]
pub(super) struct Pending {
    number: u64,
    mark: Mark,
    fresh: bool,
    crc: u32,
    bytes: Vec<u8>,
}

impl Pending {
    /// What the directory holds of heads while this is being written: a new file stands beside the old one.
    pub(super) fn peak(&self, head: &Head) -> u64 {
        head.bytes + self.bytes.len() as u64
    }

    pub(super) fn mark(&self) -> Mark {
        self.mark
    }
}

impl Head {
    /// The head in `dir` and the block it holds. Whatever is wrong with the file is said in a sentence.
    pub(super) fn open(dir: &Path) -> Result<(Self, Option<OpenBlock>, Vec<String>), StoreError> {
        let path = dir.join("head");
        let mut head = Self { path, file: None, number: None, mark: Mark::default(), crc: 0, bytes: 0 };
        let mut bytes = Vec::new();
        match File::open(&head.path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((head, None, Vec::new())),
            result => result.map_err(StoreError::io("read", &head.path))?,
        };
        head.bytes = bytes.len() as u64;
        let Some((block, end)) = decode(&bytes) else {
            let message = format!("{} is damaged: the newest lines are lost", head.path.display());
            return Ok((head, None, vec![message]));
        };
        let mut messages = Vec::new();
        if end < bytes.len() {
            let (path, rest) = (head.path.display(), bytes.len() - end);
            messages.push(format!("{path} ends in {rest} bytes that are not whole: they were dropped"));
        }
        head.number = Some(block.number);
        head.mark = block.mark();
        Ok((head, Some(block), messages))
    }

    /// Its length in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What has to be written so that the head holds all of `block`; `None` when it does.
    pub(super) fn pending(&self, block: &OpenBlock) -> Option<Pending> {
        let (number, mark) = (block.number, block.mark());
        let same = self.number == Some(number);
        if same && self.mark == mark {
            return None;
        }
        // A file that somebody deleted would take everything and keep nothing.
        let fresh = !same || !self.file.as_ref().is_some_and(is_linked);
        let (mut bytes, mut crc) = if fresh { encode_header(number) } else { (Vec::new(), self.crc) };
        let since = if fresh { Mark::default() } else { self.mark };
        if since != mark {
            crc = encode_entry(block, since, crc, &mut bytes);
        }
        Some(Pending { number, mark, fresh, crc, bytes })
    }

    /// Writes; what was said is on disk when this returns. After an error the next write starts a new file.
    pub(super) fn write(&mut self, pending: &Pending) -> Result<(), StoreError> {
        let kept = if pending.fresh { None } else { self.file.take() };
        let file = match kept {
            Some(file) => append(file, &pending.bytes).map_err(StoreError::io("write to", &self.path))?,
            None => self.start(&pending.bytes)?,
        };
        self.bytes = if pending.fresh { 0 } else { self.bytes } + pending.bytes.len() as u64;
        self.file = Some(file);
        (self.number, self.mark, self.crc) = (Some(pending.number), pending.mark, pending.crc);
        Ok(())
    }

    fn start(&self, bytes: &[u8]) -> Result<File, StoreError> {
        let new = self.path.with_extension("new");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let file =
            options.open(&new).and_then(|file| append(file, bytes)).map_err(StoreError::io("write", &new))?;
        fs::rename(&new, &self.path).map_err(StoreError::io("replace", &self.path))?;
        let dir = self.path.parent().unwrap_or(Path::new("."));
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(StoreError::io("sync", dir))?;
        Ok(file)
    }
}

/// Whether a file still has a name.
pub(super) fn is_linked(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.nlink() > 0)
}

fn append(mut file: File, bytes: &[u8]) -> io::Result<File> {
    file.write_all(bytes)?;
    file.sync_data()?;
    Ok(file)
}

fn encode_header(number: u64) -> (Vec<u8>, u32) {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&[VERSION, 0, 0, 0]);
    bytes.extend_from_slice(&number.to_le_bytes());
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    (bytes, crc)
}

/// Appends one entry with what the block has after `since`; the CRC for the next one.
fn encode_entry(block: &OpenBlock, since: Mark, before: u32, out: &mut Vec<u8>) -> u32 {
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    block.encode_since(since, out);
    let payload = &out[start + 8..];
    let (len, crc) = (payload.len() as u32, chain(before, payload));
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    crc
}

fn chain(before: u32, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&before.to_le_bytes());
    hasher.update(&(payload.len() as u32).to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// The block, and where its last whole entry ends; `None` when not even the header is whole.
fn decode(bytes: &[u8]) -> Option<(OpenBlock, usize)> {
    let mut input = Input(bytes);
    let start: [u8; 4] = input.array()?;
    let [version, ..] = input.array::<4>()?;
    let number = input.u64()?;
    let mut crc = input.u32()?;
    let is_ours = start == MAGIC && version == VERSION && number <= MAX_NUMBER;
    if !is_ours || crc != crc32fast::hash(&bytes[..HEADER - 4]) {
        return None;
    }
    let mut block = OpenBlock::new(number);
    let mut end = HEADER;
    while let Some(payload) = take_entry(&mut input, &mut crc) {
        if block.replay(payload).is_none() {
            break;
        }
        end = bytes.len() - input.0.len();
    }
    Some((block, end))
}

fn take_entry<'a>(input: &mut Input<'a>, before: &mut u32) -> Option<&'a [u8]> {
    let (len, crc) = (input.u32()?, input.u32()?);
    let payload = input.take(len as usize)?;
    if crc != chain(*before, payload) {
        return None;
    }
    *before = crc;
    Some(payload)
}
