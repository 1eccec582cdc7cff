//! The local store: recent lines in bounded segments of compressed blocks.
//!
//! ```text
//! append -> open block (memory) -- sync --> head file
//!                |  full
//!                v
//!           compressed frame -> newest segment -> ... -> oldest segment, unlinked by retention
//! ```
//! [`Writer`] is the one that appends; any number of [`Reader`]s search what it holds. A record's text is opaque bytes, so
//! the same format keeps recent lines, spilled files and dead letters. Nothing here is asynchronous: calls block on the disk.
//! The formats are described where they are written: `segment.rs`, `head.rs`, `removed.rs`, and the footer in `index.rs`.
//!
//! # What it costs in memory
//! The writer keeps one open block (at most 256 KiB of raw bytes unless one record is longer) and the buffers to compress
//! it: about 2.5 MiB, most of it zstd's tables and the set of tokens. The index keeps 40 bytes per block and, per segment,
//! 20 bytes for each of at most 256 sources. With ordinary lines (a block compresses to some 50 KiB) a store of 1 GiB has 64
//! segments and 21 000 blocks: 0.8 MiB; 110 pods that write into every segment add 0.15 MiB. The worst case is bounded too:
//! a segment is closed at 512 blocks, and 1 GiB has at most 82 of them, so 1.7 MiB for blocks and 0.4 MiB for sources. Token
//! filters and labels stay on disk. A search holds one unpacked block and at most 8 MiB of hits that wait for their turn.

mod block;
mod codec;
mod disk;
mod filter;
mod head;
mod index;
mod query;
mod reader;
mod removed;
mod segment;
mod shared;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    borrow::Cow,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

pub use query::{Query, QueryError, Terms};
pub use reader::{Cursor, Found, Hit, Key, Reader};
pub use writer::{Recovered, Writer};

/// How much the store may hold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Bytes of the whole directory; less than 64 KiB counts as 64 KiB.
    pub max_bytes: u64,
    /// How long a line is kept after it was stored. Segments go as a whole, so a line may stay an eighth longer.
    pub max_age: Duration,
    /// The fraction (0 to 1) of the file system that has to stay free for others.
    pub min_free: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_bytes: 1 << 30, max_age: Duration::from_secs(24 * 3600), min_free: 0.15 }
    }
}

/// Where a record came from: one generation of one file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Source {
    /// The identity of the file's generation.
    pub id: [u8; 12],
    /// Name and value, such as `namespace`, `pod` or `file`; sorted by name by whoever makes it.
    pub labels: Vec<(Cow<'static, str>, String)>,
}

impl Source {
    /// The value of a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// What the store holds at this moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes on disk, the head included.
    pub bytes: u64,
    /// Segment files.
    pub segments: u64,
    /// Blocks in them.
    pub blocks: u64,
    /// Records, those of the open block included.
    pub records: u64,
    /// The oldest time of a record, in nanoseconds since the epoch.
    pub oldest: Option<i64>,
    /// The newest time of a record, in nanoseconds since the epoch.
    pub newest: Option<i64>,
    /// Damaged places that were skipped when the store was opened.
    pub damaged: u64,
}

/// Why the store could not do what it was asked. Nothing is half done after an error: the same call may be tried again.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system refused: disk full, read-only, no permission.
    #[error("could not {doing} {}: {source}", path.display())]
    Io {
        /// What was being done, as a verb.
        doing: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The file system has less free space than the store has to leave to others, although it gave up what it could.
    #[error(
        "the file system of {} has {free} bytes free, and {wanted} have to stay free: nothing is stored until there is room",
        path.display()
    )]
    NoRoom {
        /// The store's directory.
        path: PathBuf,
        /// Bytes free now.
        free: u64,
        /// Bytes that have to stay free.
        wanted: u64,
    },
    /// The record can't be stored in this store, now or later.
    #[error("a record with {what} of {len} bytes does not fit into the store in {}: at most {max}", path.display())]
    TooLong {
        /// The store's directory.
        path: PathBuf,
        /// `a text` or `labels`.
        what: &'static str,
        /// Its length in bytes.
        len: usize,
        /// The most that is taken.
        max: usize,
    },
    /// Another process writes here.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// The store's directory.
        path: PathBuf,
    },
}

impl StoreError {
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }
}
