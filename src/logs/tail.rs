//! One log file, read in large blocks from where it was left, whatever its bytes lie in: an open file, a compressed copy, or
//! what was spilled of it. Offsets are always those of the file as it was written.

mod gzip;

use std::{
    fs::{File, Metadata, OpenOptions},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    },
    path::Path,
    sync::Arc,
};

use rustix::fs::{AtFlags, OFlags, StatxFlags};
use xxhash_rust::xxh3::xxh3_64;

use self::gzip::Gzip;
use super::{
    record::{FileId, IDENTITY_BYTES, Inode},
    spill::SharedSpill,
};

/// Where a log file's bytes come from. An open file holds none of them: what was not taken is read again.
#[derive(Debug)]
pub struct Tail {
    medium: Medium,
}

#[derive(Debug)]
enum Medium {
    File(Arc<File>),
    Gzip(Box<Gzip>),
    Spilled {
        spill: SharedSpill,
        id: FileId,
        size: u64,
    },
    /// Closed for want of descriptors, while nothing of it is to be read.
    Parked,
}

/// What a look at a file says.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// Its size now; of a compressed one as far as it is known yet.
    pub size: u64,
    /// When it was last written to, in nanoseconds since the epoch; 0 for what does not change.
    pub modified: i64,
    /// Whether no name leads to it any more.
    pub unlinked: bool,
}

impl Tail {
    /// Opens a file; one whose name ends in `.gz` is unpacked as it is read. A named pipe in the place of a log file is
    /// refused instead of waited for.
    pub fn open(path: &Path) -> io::Result<(Self, Inode)> {
        let nonblocking = OFlags::NONBLOCK.bits() as i32;
        let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let inode = Inode { device: metadata.dev(), number: metadata.ino(), birth: birth_time(&file) };
        let file = Arc::new(file);
        let medium = if is_gzip(path) {
            Medium::Gzip(Box::new(Gzip::new(file, metadata.len())?))
        } else {
            Medium::File(file)
        };
        Ok((Self { medium }, inode))
    }

    /// What was spilled of the file with this identity, which had `size` bytes.
    pub fn spilled(spill: SharedSpill, id: FileId, size: u64) -> Self {
        Self { medium: Medium::Spilled { spill, id, size } }
    }

    /// A file that is closed until it is written to again.
    pub fn parked() -> Self {
        Self { medium: Medium::Parked }
    }

    /// Whether it is closed and has to be opened before anything else is asked of it.
    pub fn is_parked(&self) -> bool {
        matches!(self.medium, Medium::Parked)
    }

    /// The same bytes, to be read independently.
    pub fn another(&self) -> io::Result<Self> {
        let medium = match &self.medium {
            Medium::File(file) => Medium::File(Arc::clone(file)),
            Medium::Gzip(gzip) => Medium::Gzip(Box::new(gzip.another()?)),
            Medium::Spilled { spill, id, size } => {
                Medium::Spilled { spill: spill.clone(), id: *id, size: *size }
            }
            Medium::Parked => Medium::Parked,
        };
        Ok(Self { medium })
    }

    /// Whether it may be written to.
    pub fn is_file(&self) -> bool {
        matches!(self.medium, Medium::File(_) | Medium::Parked)
    }

    /// The descriptor of an open file that may be written to.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.medium {
            Medium::File(file) => Some(file.as_fd()),
            _ => None,
        }
    }

    /// Whether it is a compressed copy.
    pub fn is_gzip(&self) -> bool {
        matches!(self.medium, Medium::Gzip(_))
    }

    /// Whether it is what was spilled.
    pub fn is_spilled(&self) -> bool {
        matches!(self.medium, Medium::Spilled { .. })
    }

    /// Nothing is read of it for now: lets go what reading takes in memory.
    pub fn rest(&self) {
        if let Medium::Gzip(gzip) = &self.medium {
            gzip.rest();
        }
    }

    /// Asks how the file is now.
    pub fn look(&self) -> io::Result<Look> {
        match &self.medium {
            Medium::File(file) => Ok(Look::of(&file.metadata()?)),
            Medium::Gzip(gzip) => gzip.look(),
            Medium::Spilled { size, .. } => Ok(Look { size: *size, modified: 0, unlinked: true }),
            Medium::Parked => Err(is_closed()),
        }
    }

    /// The size of a compressed one, which may turn out to be larger as it is unpacked.
    pub fn unpacked_size(&self) -> Option<u64> {
        match &self.medium {
            Medium::Gzip(gzip) => Some(gzip.size()),
            _ => None,
        }
    }

    /// The first offset from `offset` on that can be read: beyond `offset` where bytes were dropped.
    pub fn readable_from(&self, offset: u64) -> u64 {
        match &self.medium {
            Medium::Spilled { spill, id, size } => {
                spill.lock().readable_from(*id, offset).unwrap_or(*size).max(offset)
            }
            _ => offset,
        }
    }

    /// The beginning of the file that tells who it is: the first line without its newline, or the first
    /// [`IDENTITY_BYTES`] of a longer one. `None` while the line is not complete and more may come.
    pub fn first_line(&self, nothing_more_comes: bool) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        self.read_block(0, &mut bytes, IDENTITY_BYTES)?;
        let length = bytes.len();
        if let Some(end) = memchr::memchr(b'\n', &bytes) {
            bytes.truncate(end);
            return Ok(Some(bytes));
        }
        let is_known = length == IDENTITY_BYTES || nothing_more_comes && length > 0;
        Ok(is_known.then_some(bytes))
    }

    /// The bytes from `offset` on, at most `length` of them, as a hash.
    pub fn hash_at(&self, offset: u64, length: usize) -> io::Result<u64> {
        let mut bytes = Vec::new();
        self.read_block(offset, &mut bytes, length)?;
        Ok(hash_of(&bytes))
    }

    /// Fills `buffer` with at most `limit` bytes from `offset` on.
    pub fn read_block(&self, offset: u64, buffer: &mut Vec<u8>, limit: usize) -> io::Result<()> {
        match &self.medium {
            Medium::File(file) => {
                buffer.resize(limit, 0);
                let length = read_at_most(file, buffer, offset)?;
                buffer.truncate(length);
                Ok(())
            }
            Medium::Gzip(gzip) => gzip.read_block(offset, buffer, limit),
            Medium::Spilled { spill, id, .. } => spill.lock().read(*id, offset, buffer, limit),
            Medium::Parked => Err(is_closed()),
        }
    }

    /// The offset after the first newline at or after `offset`: where a reader may start that skips what is before.
    pub fn next_line_start(&self, offset: u64) -> io::Result<u64> {
        let mut block = Vec::new();
        let mut at = offset;
        loop {
            self.read_block(at, &mut block, 64 * 1024)?;
            if block.is_empty() {
                return Ok(at);
            }
            if let Some(newline) = memchr::memchr(b'\n', &block) {
                return Ok(at + newline as u64 + 1);
            }
            at += block.len() as u64;
        }
    }
}

impl Look {
    /// What the file system says of it.
    pub fn of(metadata: &Metadata) -> Self {
        let modified = metadata.mtime().wrapping_mul(1_000_000_000).wrapping_add(metadata.mtime_nsec());
        Self { size: metadata.len(), modified, unlinked: metadata.nlink() == 0 }
    }
}

fn is_closed() -> io::Error {
    io::Error::other("it is closed")
}

/// Whether a file of this name is a compressed copy.
pub fn is_gzip(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "gz")
}

/// The hash of a piece of a file, as [`Tail::hash_at`] gives it.
pub fn hash_of(beginning: &[u8]) -> u64 {
    xxh3_64(beginning)
}

/// Nanoseconds since the epoch; 0 where the file system keeps no birth time.
fn birth_time(file: &File) -> u64 {
    match rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::BTIME) {
        Ok(stat) if stat.stx_mask & StatxFlags::BTIME.bits() != 0 => {
            (stat.stx_btime.tv_sec as u64).wrapping_mul(1_000_000_000) + u64::from(stat.stx_btime.tv_nsec)
        }
        _ => 0,
    }
}

fn read_at_most(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn file(content: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("log");
        fs::write(&path, content).expect("written");
        (dir, path)
    }

    #[test]
    fn blocks_start_where_reading_stopped() {
        let (_dir, path) = file("one\ntwo\nthree\n");
        let (tail, _) = Tail::open(&path).expect("opened");
        let mut buffer = Vec::new();
        tail.read_block(4, &mut buffer, 4).expect("read");
        assert_eq!(buffer, b"two\n");
    }

    #[test]
    fn the_first_line_is_known_when_complete_or_long() {
        let (_dir, path) = file("unfinished");
        let (tail, _) = Tail::open(&path).expect("opened");
        assert_eq!(tail.first_line(false).expect("read"), None);
        assert_eq!(tail.first_line(true).expect("read"), Some(b"unfinished".to_vec()));
        fs::write(&path, "done\nmore").expect("written");
        assert_eq!(tail.first_line(false).expect("read"), Some(b"done".to_vec()));
        fs::write(&path, "x".repeat(5000)).expect("written");
        assert_eq!(tail.first_line(false).expect("read").map(|line| line.len()), Some(IDENTITY_BYTES));
        fs::write(&path, "").expect("written");
        assert_eq!(tail.first_line(true).expect("read"), None);
    }

    #[test]
    fn skipping_ends_at_a_line_start() {
        let (_dir, path) = file("one\ntwo\nthree");
        let (tail, _) = Tail::open(&path).expect("opened");
        assert_eq!(tail.next_line_start(1).expect("read"), 4);
        assert_eq!(tail.next_line_start(9).expect("read"), 13);
    }

    #[test]
    fn an_unlinked_file_is_still_read() {
        let (_dir, path) = file("one\n");
        let (tail, _) = Tail::open(&path).expect("opened");
        assert!(!tail.look().expect("looked").unlinked);
        fs::remove_file(&path).expect("removed");
        let look = tail.look().expect("looked");
        assert!(look.unlinked && look.size == 4);
    }

    #[test]
    fn a_directory_is_no_log_file() {
        let (dir, _) = file("");
        assert!(Tail::open(dir.path()).is_err());
    }

    fn gzip(parts: &[&str]) -> (tempfile::TempDir, std::path::PathBuf) {
        use std::io::Write;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("log.1.gz");
        let mut packed = Vec::new();
        for part in parts {
            let mut encoder = flate2::write::GzEncoder::new(&mut packed, flate2::Compression::fast());
            encoder.write_all(part.as_bytes()).expect("packed");
            encoder.finish().expect("packed");
        }
        fs::write(&path, packed).expect("written");
        (dir, path)
    }

    #[test]
    fn a_compressed_file_is_read_at_the_offsets_of_what_was_packed() {
        let text: String = (0..20_000).map(|number| format!("line {number}\n")).collect();
        let (_dir, path) = gzip(&[&text]);
        let (tail, _) = Tail::open(&path).expect("opened");
        assert_eq!(tail.look().expect("looked").size, text.len() as u64);
        assert_eq!(tail.first_line(false).expect("read"), Some(b"line 0".to_vec()));
        let mut buffer = Vec::new();
        // Forwards, again, backwards, beyond the end.
        for offset in [1000, 1500, 150_000, 150_000, 10, text.len() - 3, text.len(), text.len() + 9] {
            tail.read_block(offset as u64, &mut buffer, 64).expect("read");
            let from = offset.min(text.len());
            assert_eq!(buffer, &text.as_bytes()[from..(from + 64).min(text.len())], "at {offset}");
        }
    }

    #[test]
    fn a_compressed_file_of_several_members_is_read_to_its_end() {
        let (_dir, path) = gzip(&["one long first member\n", "two\n"]);
        let (tail, _) = Tail::open(&path).expect("opened");
        // Its last four bytes tell of the last member only.
        assert_eq!(tail.look().expect("looked").size, 4);
        let mut buffer = Vec::new();
        tail.read_block(0, &mut buffer, 4).expect("read");
        assert!(tail.look().expect("looked").size > 4, "there is more");
        tail.read_block(4, &mut buffer, 100).expect("read");
        assert_eq!(buffer, b"long first member\ntwo\n");
        assert_eq!(tail.look().expect("looked").size, 26);
    }

    #[test]
    fn of_a_compressed_file_that_was_cut_what_is_there_is_read() {
        let text = "some words that are packed\n".repeat(1000);
        let (_dir, path) = gzip(&[&text]);
        let packed = fs::read(&path).expect("read");
        fs::write(&path, &packed[..packed.len() / 2]).expect("cut");
        let (tail, _) = Tail::open(&path).expect("opened");
        let mut buffer = Vec::new();
        let mut at = 0;
        loop {
            if tail.read_block(at, &mut buffer, 4096).is_err() || buffer.is_empty() {
                break;
            }
            assert!(text.as_bytes()[at as usize..].starts_with(&buffer));
            at += buffer.len() as u64;
        }
        assert_eq!(tail.look().expect("looked").size, at);
    }
}
