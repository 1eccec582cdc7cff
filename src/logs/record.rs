//! What travels along the log path: where a file comes from, who it is, and one line of it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use xxhash_rust::xxh3::Xxh3Default;

use crate::{
    kubernetes::pod::Pod,
    metrics::ledger::{Amount, Owner},
};

/// What the path of a log file says about its writer. Nobody else has to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A container's file: `/var/log/pods/<namespace>_<pod>_<uid>/<container>/<restart>.log`.
    Container(Arc<Container>),
    /// Any other file.
    Plain,
    /// journald.
    Journal,
    /// The kernel's ring of messages.
    Kernel,
    /// The agent itself, to see whether lines arrive.
    Canary,
}

/// The facts in the path of a container's log file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's uid; for a static pod the hash of its manifest.
    pub uid: String,
    /// The container's name in the pod.
    pub name: String,
    /// How often the container had been restarted when it wrote this file.
    pub restart: u32,
}

impl Origin {
    /// The namespace for bounded metrics; empty for plain files.
    pub fn namespace(&self) -> &str {
        self.container().map_or("", |container| &container.namespace)
    }

    /// Whose account its lines belong to.
    pub fn owner(&self) -> Owner {
        self.container().map_or_else(Owner::default, |container| Owner {
            namespace: container.namespace.clone(),
            pod: container.pod.clone(),
            container: container.name.clone(),
        })
    }

    /// Namespace, pod and container of its account, or its namespace alone; empty for what no container writes.
    pub fn account(&self, of_container: bool) -> [&str; 3] {
        match self.container() {
            Some(container) if of_container => [&container.namespace, &container.pod, &container.name],
            _ => [self.namespace(), "", ""],
        }
    }

    /// The container that writes it.
    pub fn container(&self) -> Option<&Container> {
        match self {
            Self::Container(container) => Some(container),
            Self::Plain | Self::Journal | Self::Kernel | Self::Canary => None,
        }
    }
}

/// Everything about a log file that stays the same for all its lines.
#[derive(Debug, Clone)]
pub struct FileFacts {
    /// Who the file is.
    pub id: FileId,
    /// Its name when it was the active one; a rotated file keeps that name in documents.
    pub path: PathBuf,
    /// Who writes it.
    pub origin: Origin,
    /// What the cluster says of its pod.
    pub pod: PodFacts,
}

/// What the cluster says of the pod that writes a file.
#[derive(Debug, Clone, Default)]
pub enum PodFacts {
    /// Nobody is asked, or no pod writes it.
    #[default]
    NotAsked,
    /// It is not known yet: its lines say so.
    Unknown,
    /// This.
    Known(Arc<Pod>),
}

impl PodFacts {
    /// What it told.
    pub fn known(&self) -> Option<&Pod> {
        match self {
            Self::Known(pod) => Some(pod),
            Self::NotAsked | Self::Unknown => None,
        }
    }

    /// Whether the cluster was asked and has not told.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown)
    }
}

impl FileFacts {
    /// What the file itself says.
    pub fn new(id: FileId, path: impl Into<PathBuf>, origin: Origin) -> Self {
        Self { id, path: path.into(), origin, pod: PodFacts::NotAsked }
    }
}

/// Who a file is: stable over rename and restart, another one for a reused inode or a truncated file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub [u8; 12]);

/// Where a file lies on disk, as far as the file system can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Inode {
    /// The device of the file system.
    pub device: u64,
    /// The number in it.
    pub number: u64,
    /// Birth time in nanoseconds, 0 where the file system keeps none.
    pub birth: u64,
}

/// How much of the first line goes into the identity, in bytes; a longer first line is known by its beginning.
pub const IDENTITY_BYTES: usize = 4096;

/// Base 64 digits that sort as their values do and need no escaping in JSON or a URL.
pub const ORDERED_DIGITS: &[u8; 64] = b"-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz";

impl FileId {
    /// The identity of a file whose first line is `first` (at most [`IDENTITY_BYTES`] of it).
    ///
    /// A container's file is known by pod, container, restart and its first line, which starts with the runtime's
    /// nanosecond time: that also holds for a copy or a compressed file. First lines without such a time repeat ("log
    /// opened"), so those files are known by their `inode` too. `generation` counts truncations seen under the same first
    /// line.
    pub fn new(origin: &Origin, inode: Option<Inode>, generation: u32, first: &[u8]) -> Self {
        let mut hash = Xxh3Default::new();
        let mut field = |bytes: &[u8]| {
            hash.update(&(bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        match origin {
            Origin::Container(container) => {
                field(b"container");
                field(container.uid.as_bytes());
                field(container.name.as_bytes());
                field(&container.restart.to_le_bytes());
            }
            // Feeds have identities of their own, not from a first line.
            Origin::Plain | Origin::Journal | Origin::Kernel | Origin::Canary => field(b"plain"),
        }
        if let Some(Inode { device, number, birth }) = inode {
            field(&number.to_le_bytes());
            // Devices may be numbered anew at each boot, so the number only counts where there is nothing better.
            field(&if birth == 0 { device } else { birth }.to_le_bytes());
        }
        field(&generation.to_le_bytes());
        field(first);
        let digest = hash.digest128().to_be_bytes();
        let mut id = [0; 12];
        id.copy_from_slice(&digest[..12]);
        Self(id)
    }

    /// The identity as 16 ordered digits.
    pub fn text(self) -> [u8; 16] {
        let mut text = [0; 16];
        for (three, four) in self.0.chunks_exact(3).zip(text.chunks_exact_mut(4)) {
            let bits = u32::from(three[0]) << 16 | u32::from(three[1]) << 8 | u32::from(three[2]);
            for (place, character) in four.iter_mut().enumerate() {
                *character = ORDERED_DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
            }
        }
        text
    }

    /// Reads what [`Self::hex`] wrote.
    pub fn from_hex(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() != 24 {
            return None;
        }
        let mut id = [0; 12];
        for (byte, pair) in id.iter_mut().zip(bytes.chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(id))
    }

    /// The identity as 24 hexadecimal digits.
    pub fn hex(self) -> String {
        use std::fmt::Write;
        self.0.iter().fold(String::with_capacity(24), |mut text, byte| {
            // Writing to a String can't fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

impl std::fmt::Debug for FileId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.hex())
    }
}

/// The stream a container wrote a line to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stream {
    /// The format has no streams.
    #[default]
    None,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// The word in documents; empty when there is none.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// A place in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u64,
    /// Offset after the last byte, its newline included.
    pub end: u64,
}

/// One event of a log: a whole line, joined from its parts, or several lines that belong together.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    /// When it was written, in nanoseconds since the epoch.
    pub time: i64,
    /// Where it was written to.
    pub stream: Stream,
    /// The text, without its newline; any bytes.
    pub text: &'a [u8],
    /// From the first byte of its first part to the last byte of its last part.
    pub span: Span,
    /// Bytes of the file that its parts take, newlines included: less than the span when another stream's lines lie between.
    pub bytes: u64,
    /// Lines of the log in it.
    pub lines: u32,
}

impl Line<'_> {
    /// What it is in numbers.
    pub fn amount(&self) -> Amount {
        Amount { lines: self.lines.into(), bytes: self.bytes }
    }
}

/// A path for messages and documents; bytes that are not UTF-8 become U+FFFD.
pub fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::container;

    const HERE: Inode = Inode { device: 1, number: 2, birth: 3 };
    const THERE: Inode = Inode { device: 1, number: 9, birth: 3 };

    #[test]
    fn a_container_file_is_known_by_its_first_line() {
        let id = FileId::new(&container(0), None, 0, b"first");
        assert_ne!(id, FileId::new(&container(1), None, 0, b"first"));
        assert_ne!(id, FileId::new(&container(0), None, 0, b"second"));
    }

    #[test]
    fn a_plain_file_is_another_one_under_another_inode_or_after_truncation() {
        let id = FileId::new(&Origin::Plain, Some(HERE), 0, b"first");
        assert_ne!(id, FileId::new(&Origin::Plain, Some(THERE), 0, b"first"));
        assert_ne!(id, FileId::new(&Origin::Plain, Some(HERE), 1, b"first"));
    }

    #[test]
    fn a_file_stays_itself_when_its_device_is_numbered_anew() {
        let id = |inode| FileId::new(&Origin::Plain, Some(inode), 0, b"first");
        assert_eq!(id(HERE), id(Inode { device: 8, ..HERE }));
        let without_birth = Inode { birth: 0, ..HERE };
        assert_ne!(id(without_birth), id(Inode { device: 8, ..without_birth }));
    }

    #[test]
    fn an_identity_reads_back_from_its_digits() {
        let id = FileId::new(&container(0), None, 0, b"first");
        assert_eq!(FileId::from_hex(&id.hex()), Some(id));
        assert_eq!(FileId::from_hex("abc"), None);
        assert_eq!(FileId::from_hex("zz0000000000000000000000"), None);
    }

    #[test]
    fn the_text_of_an_identity_keeps_its_order() {
        let (low, high) = (FileId([0; 12]), FileId([255; 12]));
        assert_eq!(&low.text(), b"----------------");
        assert_eq!(&high.text(), b"zzzzzzzzzzzzzzzz");
    }
}
