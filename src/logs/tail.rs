//! One log file, read in large blocks from where it was left.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

use rustix::fs::{AtFlags, OFlags, StatxFlags};
use xxhash_rust::xxh3::xxh3_64;

use super::record::{IDENTITY_BYTES, Inode};

/// An open log file. It holds no bytes: what was not taken is read again.
#[derive(Debug)]
pub struct Tail {
    file: File,
}

/// What a look at an open file says.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// Its size now.
    pub size: u64,
    /// Whether no name leads to it any more.
    pub unlinked: bool,
}

impl Tail {
    /// Opens a file. A named pipe in the place of a log file is refused instead of waited for.
    pub fn open(path: &Path) -> io::Result<(Self, Inode)> {
        let nonblocking = OFlags::NONBLOCK.bits() as i32;
        let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let inode = Inode { device: metadata.dev(), number: metadata.ino(), birth: birth_time(&file) };
        Ok((Self { file }, inode))
    }

    /// Asks the kernel how the file is now.
    pub fn look(&self) -> io::Result<Look> {
        let metadata = self.file.metadata()?;
        Ok(Look { size: metadata.len(), unlinked: metadata.nlink() == 0 })
    }

    /// The beginning of the file that tells who it is: the first line without its newline, or the first
    /// [`IDENTITY_BYTES`] of a longer one. `None` while the line is not complete and more may come.
    pub fn first_line(&self, nothing_more_comes: bool) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = vec![0; IDENTITY_BYTES];
        let length = read_at_most(&self.file, &mut bytes, 0)?;
        bytes.truncate(length);
        if let Some(end) = memchr::memchr(b'\n', &bytes) {
            bytes.truncate(end);
            return Ok(Some(bytes));
        }
        let is_known = length == IDENTITY_BYTES || nothing_more_comes && length > 0;
        Ok(is_known.then_some(bytes))
    }

    /// The beginning of the file, at most [`IDENTITY_BYTES`] and at most as much as `length`, as a hash.
    pub fn hash_of_first(&self, length: usize) -> io::Result<u64> {
        let mut bytes = [0; IDENTITY_BYTES];
        let length = read_at_most(&self.file, &mut bytes[..length.min(IDENTITY_BYTES)], 0)?;
        Ok(hash_of(&bytes[..length]))
    }

    /// Fills `buffer` with at most `limit` bytes from `offset` on.
    pub fn read_block(&self, offset: u64, buffer: &mut Vec<u8>, limit: usize) -> io::Result<()> {
        buffer.resize(limit, 0);
        let length = read_at_most(&self.file, buffer, offset)?;
        buffer.truncate(length);
        Ok(())
    }

    /// The offset after the first newline at or after `offset`: where a reader may start that skips what is before.
    pub fn next_line_start(&self, offset: u64) -> io::Result<u64> {
        let mut block = vec![0; 64 * 1024];
        let mut at = offset;
        loop {
            let length = read_at_most(&self.file, &mut block, at)?;
            if length == 0 {
                return Ok(at);
            }
            if let Some(newline) = memchr::memchr(b'\n', &block[..length]) {
                return Ok(at + newline as u64 + 1);
            }
            at += length as u64;
        }
    }
}

/// The hash of a file's beginning, as [`Tail::hash_of_first`] gives it.
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
}
