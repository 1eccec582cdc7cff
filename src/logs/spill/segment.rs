//! One segment: a header line, then frames. All numbers are little-endian.
//!
//! ```text
//! nodewarden-spill 1 CRC32 {"id":"...","path":"...",...}\n
//! "NWSF" packed:u32 raw:u32 start:u64 crc32:u32 | packed bytes (zstd)        repeated
//! ```
//! The first line's checksum is of the object in it, a frame's of the packed bytes with the three numbers before it. A frame
//! that is cut ends the segment: the agent was killed as it wrote it.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::FRAME;
use crate::logs::record::{Container, FileId, Inode, Origin, path_text};

const MAGIC: &str = "nodewarden-spill 1 ";
const FRAME_MAGIC: &[u8; 4] = b"NWSF";
const FRAME_HEADER: usize = 24;
/// Longer header lines are not written: paths have at most 4 KiB.
const MAX_HEADER: usize = 64 << 10;
/// The fastest: the disk is to be relieved before it is full.
const LEVEL: i32 = 1;

/// Whose bytes these are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// By what the checkpoint knows the file.
    pub id: FileId,
    /// Its identity in documents.
    pub document: FileId,
    /// How often it was truncated before.
    pub generation: u32,
    /// Length and hash of its first line.
    pub first: (usize, u64),
    /// Where it lay last.
    pub path: PathBuf,
    /// The name under which it was written to.
    pub active_path: PathBuf,
    /// Who wrote it.
    pub origin: Origin,
    /// The number of the source that found it.
    pub source: usize,
    /// Where it lay on disk.
    pub inode: Inode,
    /// Its size when this was written.
    pub size: u64,
}

#[derive(Serialize, Deserialize)]
struct Written {
    id: String,
    document: String,
    generation: u32,
    first_length: usize,
    first_hash: u64,
    path: String,
    active_path: String,
    container: Option<WrittenContainer>,
    source: usize,
    device: u64,
    inode: u64,
    birth: u64,
    size: u64,
    start: u64,
}

#[derive(Serialize, Deserialize)]
struct WrittenContainer {
    namespace: String,
    pod: String,
    uid: String,
    name: String,
    restart: u32,
}

impl Header {
    /// As it is written, for a segment that starts somewhere.
    pub fn line(&self) -> io::Result<Vec<u8>> {
        self.line_at(0)
    }

    fn line_at(&self, start: u64) -> io::Result<Vec<u8>> {
        let written = |container: &Container| WrittenContainer {
            namespace: container.namespace.clone(),
            pod: container.pod.clone(),
            uid: container.uid.clone(),
            name: container.name.clone(),
            restart: container.restart,
        };
        let written = Written {
            id: self.id.hex(),
            document: self.document.hex(),
            generation: self.generation,
            first_length: self.first.0,
            first_hash: self.first.1,
            path: path_text(&self.path),
            active_path: path_text(&self.active_path),
            container: self.origin.container().map(written),
            source: self.source,
            device: self.inode.device,
            inode: self.inode.number,
            birth: self.inode.birth,
            size: self.size,
            start,
        };
        let object = serde_json::to_string(&written)?;
        Ok(format!("{MAGIC}{:08x} {object}\n", crc32fast::hash(object.as_bytes())).into_bytes())
    }

    fn parse(line: &[u8]) -> Option<(Self, u64)> {
        let (checksum, object) = line.strip_prefix(MAGIC.as_bytes())?.split_first_chunk::<8>()?;
        let object = object.strip_prefix(b" ")?;
        let checksum = u32::from_str_radix(std::str::from_utf8(checksum).ok()?, 16).ok()?;
        let written: Written =
            serde_json::from_slice(object).ok().filter(|_| checksum == crc32fast::hash(object))?;
        let origin = written.container.map_or(Origin::Plain, |container| {
            let container = Container {
                namespace: container.namespace,
                pod: container.pod,
                uid: container.uid,
                name: container.name,
                restart: container.restart,
            };
            Origin::Container(container.into())
        });
        let header = Self {
            id: FileId::from_hex(&written.id)?,
            document: FileId::from_hex(&written.document)?,
            generation: written.generation,
            first: (written.first_length, written.first_hash),
            path: written.path.into(),
            active_path: written.active_path.into(),
            origin,
            source: written.source,
            inode: Inode { device: written.device, number: written.inode, birth: written.birth },
            size: written.size,
        };
        Some((header, written.start))
    }
}

/// Where a piece of the log file lies in its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// The offset of its first byte in the log file.
    pub start: u64,
    /// Bytes of the log file.
    pub raw: u32,
    packed: u32,
    crc: u32,
    /// Where its packed bytes lie.
    at: u64,
}

impl Frame {
    /// The offset after its last byte in the log file.
    pub fn end(&self) -> u64 {
        self.start + u64::from(self.raw)
    }

    /// A frame and how it is written.
    pub fn pack(start: u64, bytes: &[u8]) -> io::Result<(Self, Vec<u8>)> {
        let packed = zstd::bulk::compress(bytes, LEVEL)?;
        let mut frame = Self { start, raw: bytes.len() as u32, packed: packed.len() as u32, crc: 0, at: 0 };
        frame.crc = frame.checksum(&packed);
        let mut written = Vec::with_capacity(FRAME_HEADER + packed.len());
        written.extend_from_slice(FRAME_MAGIC);
        written.extend_from_slice(&frame.packed.to_le_bytes());
        written.extend_from_slice(&frame.raw.to_le_bytes());
        written.extend_from_slice(&frame.start.to_le_bytes());
        written.extend_from_slice(&frame.crc.to_le_bytes());
        written.extend_from_slice(&packed);
        Ok((frame, written))
    }

    fn checksum(&self, packed: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.packed.to_le_bytes());
        hasher.update(&self.raw.to_le_bytes());
        hasher.update(&self.start.to_le_bytes());
        hasher.update(packed);
        hasher.finalize()
    }

    fn parse(header: &[u8; FRAME_HEADER], at: u64) -> Option<Self> {
        let rest = header.strip_prefix(FRAME_MAGIC)?;
        let (packed, rest) = rest.split_first_chunk()?;
        let (raw, rest) = rest.split_first_chunk()?;
        let (start, rest) = rest.split_first_chunk()?;
        let (crc, _) = rest.split_first_chunk()?;
        let frame = Self {
            start: u64::from_le_bytes(*start),
            raw: u32::from_le_bytes(*raw),
            packed: u32::from_le_bytes(*packed),
            crc: u32::from_le_bytes(*crc),
            at,
        };
        let is_sane =
            frame.raw > 0 && frame.raw as usize <= FRAME && frame.start.checked_add(FRAME as u64).is_some();
        is_sane.then_some(frame)
    }

    /// Appends the bytes of the frame to `buffer`, from its byte `skip` on and until that holds `limit` bytes. The inner error
    /// says that they are not what was written.
    pub fn read(
        &self,
        path: &Path,
        packed: &mut Vec<u8>,
        buffer: &mut Vec<u8>,
        skip: usize,
        limit: usize,
    ) -> io::Result<Result<(), &'static str>> {
        packed.resize(self.packed as usize, 0);
        match File::open(path).and_then(|file| file.read_exact_at(packed, self.at)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Err("it is gone")),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Err("it was cut")),
            other => other?,
        }
        if self.checksum(packed) != self.crc {
            return Ok(Err("its checksum is wrong"));
        }
        let Ok(raw) = zstd::bulk::decompress(packed, self.raw as usize) else {
            return Ok(Err("it can't be unpacked"));
        };
        if raw.len() != self.raw as usize {
            return Ok(Err("it has another length"));
        }
        let wanted = raw.get(skip..).unwrap_or_default();
        buffer.extend_from_slice(&wanted[..wanted.len().min(limit - buffer.len())]);
        Ok(Ok(()))
    }
}

/// An index of one segment file.
#[derive(Debug)]
pub struct Segment {
    pub header: Header,
    /// The offset of its first byte in the log file.
    pub start: u64,
    /// The offset after its last one.
    pub end: u64,
    /// Its length on disk.
    pub bytes: u64,
    /// Whether a frame could not be read.
    pub is_damaged: bool,
    frames: Vec<Frame>,
}

impl Segment {
    /// Starts a segment; the file to append to.
    pub fn create(path: &Path, header: &Header, start: u64) -> io::Result<(Self, File)> {
        let line = header.line_at(start)?;
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all_at(&line, 0)?;
        let bytes = line.len() as u64;
        let header = header.clone();
        Ok((Self { header, start, end: start, bytes, is_damaged: false, frames: Vec::new() }, file))
    }

    /// Reads the headers of a segment and its frames. A cut frame at the end is taken off; the complaint says so.
    pub fn open(path: &Path) -> Result<(Self, Option<String>), String> {
        let read = |what: io::Error| what.to_string();
        let file = File::open(path).map_err(read)?;
        let length = file.metadata().map_err(read)?.len();
        let mut line = vec![0; MAX_HEADER.min(length as usize)];
        file.read_exact_at(&mut line, 0).map_err(read)?;
        let end = memchr::memchr(b'\n', &line).ok_or("it has no header line")?;
        let (header, start) = Header::parse(&line[..end]).ok_or("its header is not one")?;
        let bytes = end as u64 + 1;
        let mut segment = Self { header, start, end: start, bytes, is_damaged: false, frames: Vec::new() };
        let mut bytes = [0; FRAME_HEADER];
        while segment.bytes < length {
            let at = segment.bytes + FRAME_HEADER as u64;
            let frame =
                file.read_exact_at(&mut bytes, segment.bytes).ok().and_then(|()| Frame::parse(&bytes, at));
            match frame {
                Some(frame) if frame.start == segment.end && at + u64::from(frame.packed) <= length => {
                    segment.bytes = at + u64::from(frame.packed);
                    segment.end = frame.end();
                    segment.frames.push(frame);
                }
                _ => break,
            }
        }
        if segment.frames.is_empty() {
            return Err("it holds no frame".to_owned());
        }
        let complaint = (segment.bytes < length)
            .then(|| format!("{} is cut after {} bytes: a frame is missing", path.display(), segment.bytes));
        Ok((segment, complaint))
    }

    /// Appends a frame as [`Frame::pack`] made it.
    pub fn append(&mut self, file: &File, frame: Frame, written: &[u8]) -> io::Result<()> {
        file.write_all_at(written, self.bytes)?;
        self.frames.push(Frame { at: self.bytes + FRAME_HEADER as u64, ..frame });
        self.bytes += written.len() as u64;
        self.end = frame.end();
        Ok(())
    }

    /// The frame that holds the byte at this offset.
    pub fn frame_at(&self, offset: u64) -> Option<&Frame> {
        let after = self.frames.partition_point(|frame| frame.start <= offset);
        self.frames.get(after.checked_sub(1)?).filter(|frame| offset < frame.end())
    }

    /// The first offset from `offset` on that it holds.
    pub fn readable_from(&self, offset: u64) -> Option<u64> {
        let next = self.frames.partition_point(|frame| frame.end() <= offset);
        self.frames.get(next).map(|frame| frame.start.max(offset))
    }

    /// A frame of it turned out not to be readable.
    pub fn damage(&mut self, frame: &Frame) {
        self.is_damaged = true;
        self.frames.retain(|other| other.start != frame.start);
        // How long it was said to be may be wrong, too.
        self.end = self.frames.last().map_or(self.start, Frame::end);
    }
}
