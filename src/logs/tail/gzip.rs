//! A compressed log file, unpacked as a stream.

use std::{
    cell::RefCell,
    fs::File,
    io::{self, BufReader, Read},
    os::unix::fs::{FileExt, MetadataExt},
    sync::Arc,
};

use flate2::bufread::MultiGzDecoder;

use super::Look;

/// Packed bytes read at once.
const PACKED: usize = 32 * 1024;
/// Unpacked bytes asked for at once.
const UNPACKED: usize = 64 * 1024;

/// An open compressed file. Going forwards is cheap, going back starts again at its beginning; what was asked for last can be
/// asked for again.
#[derive(Debug)]
pub struct Gzip {
    file: Arc<File>,
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    /// `None` until something is read, and when nothing was read between two looks: it takes some 50 KiB.
    stream: Option<Stream>,
    /// Whether something was read since the last look.
    used: bool,
    /// The unpacked size: what the file says at its end until that end was reached.
    size: u64,
    ended: bool,
}

struct Stream {
    decoder: MultiGzDecoder<BufReader<At>>,
    /// Unpacked bytes from `start` on.
    window: Vec<u8>,
    start: u64,
    ended: bool,
}

/// Reads a file from a place of its own, not from the one that all users of the descriptor share.
struct At {
    file: Arc<File>,
    at: u64,
}

impl Read for At {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read_at(buffer, self.at)?;
        self.at += length as u64;
        Ok(length)
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("start", &self.start).finish_non_exhaustive()
    }
}

impl Gzip {
    /// `length` is that of the file on disk.
    pub fn new(file: Arc<File>, length: u64) -> io::Result<Self> {
        // The last four bytes are the unpacked size of the last member, modulo 4 GiB: nearly always the whole.
        let mut last = [0; 4];
        if length >= 18 {
            file.read_exact_at(&mut last, length - 4)?;
        }
        let size = u64::from(u32::from_le_bytes(last));
        Ok(Self { file, state: RefCell::new(State { stream: None, used: false, size, ended: false }) })
    }

    pub fn another(&self) -> io::Result<Self> {
        let length = self.file.metadata()?.len();
        Self::new(Arc::clone(&self.file), length)
    }

    pub fn size(&self) -> u64 {
        self.state.borrow().size
    }

    pub fn look(&self) -> io::Result<Look> {
        let mut state = self.state.borrow_mut();
        if !std::mem::take(&mut state.used) {
            state.stream = None;
        }
        Ok(Look { size: state.size, modified: 0, unlinked: self.file.metadata()?.nlink() == 0 })
    }

    /// Lets go what unpacking takes; the next read begins anew.
    pub fn rest(&self) {
        self.state.borrow_mut().stream = None;
    }

    pub fn read_block(&self, offset: u64, buffer: &mut Vec<u8>, limit: usize) -> io::Result<()> {
        let mut state = self.state.borrow_mut();
        let State { stream, used, size, ended } = &mut *state;
        *used = true;
        if stream.as_ref().is_some_and(|stream| stream.start > offset) {
            *stream = None;
        }
        let stream = stream.get_or_insert_with(|| Stream::new(&self.file));
        let mut filled = stream.fill(offset, limit);
        if stream.reached() >= *size && !stream.ended {
            // This should be the end, which only shows when there is no more.
            filled = filled.and(stream.unpack());
        }
        let reached = stream.reached();
        if stream.ended {
            (*size, *ended) = (reached, true);
        } else if !*ended {
            // What is said at the end of the file was too little: there is at least a byte more.
            *size = (*size).max(reached + 1);
        }
        buffer.clear();
        let skip = usize::try_from(offset - stream.start).unwrap_or(usize::MAX);
        let wanted = stream.window.get(skip..).unwrap_or_default();
        buffer.extend_from_slice(&wanted[..wanted.len().min(limit)]);
        if buffer.is_empty() { filled } else { Ok(()) }
    }
}

impl Stream {
    fn new(file: &Arc<File>) -> Self {
        let packed = At { file: Arc::clone(file), at: 0 };
        let decoder = MultiGzDecoder::new(BufReader::with_capacity(PACKED, packed));
        Self { decoder, window: Vec::new(), start: 0, ended: false }
    }

    /// Unpacks until the window reaches from `offset` over `limit` bytes, or to the end. A file that is damaged ends there.
    fn fill(&mut self, offset: u64, limit: usize) -> io::Result<()> {
        loop {
            let before = usize::try_from(offset - self.start).unwrap_or(usize::MAX).min(self.window.len());
            self.window.drain(..before);
            self.start += before as u64;
            if self.ended || self.start == offset && self.window.len() > limit {
                return Ok(());
            }
            self.unpack()?;
        }
    }

    /// Unpacks some more.
    fn unpack(&mut self) -> io::Result<()> {
        let at = self.window.len();
        self.window.resize(at + UNPACKED, 0);
        let read = self.decoder.read(&mut self.window[at..]);
        self.window.truncate(at + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => self.ended = true,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                self.ended = true;
                return Err(error);
            }
        }
        Ok(())
    }

    /// The offset after the last unpacked byte.
    fn reached(&self) -> u64 {
        self.start + self.window.len() as u64
    }
}
