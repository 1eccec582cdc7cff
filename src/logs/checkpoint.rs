//! The file that remembers how far every log file is confirmed.
//!
//! One text file, so that people can read it: a header line `nodewarden-positions 1 CRC32 LENGTH`, then one JSON object a
//! line. Checksum and length are of everything after the header, so that any cut or flipped bit shows. It is written beside
//! and renamed over the old one, which stays as `positions.old`; an unreadable file is set aside as `positions.corrupt`.
//! Unknown keys are passed over and missing ones have a default, so that the previous release reads what this one wrote and
//! the other way round: the version is of what would mislead the other one.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, BufWriter, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crc32fast::Hasher;
use serde::{Deserialize, Serialize};

use super::record::{FileId, Inode, path_text};

const MAGIC: &str = "nodewarden-positions";
const VERSION: u32 = 1;

/// How far one file is confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Who the file was before it was truncated for the first time: its identity of generation 0.
    pub id: FileId,
    /// Every byte below is confirmed; [`TRUNCATED`] when the file is another one since.
    pub offset: u64,
    /// How often the file was truncated under the same first line.
    pub generation: u32,
    /// Where the file lay when this was written.
    pub inode: Inode,
    /// Its path then, for people.
    pub path: PathBuf,
    /// When the file was last in the table, in seconds since the epoch.
    pub seen: u64,
    /// What it held, for files; the previous release did not write this.
    pub content: Option<Content>,
}

/// What a file held, so that it is known again in a copy and is not mistaken for what was written over it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The name under which it is or was written to.
    pub active: PathBuf,
    /// Its identity in documents.
    pub document: FileId,
    /// Length and hash of its first line.
    pub first: (usize, u64),
    /// The last bytes before the confirmed offset, or before one a little below.
    pub check: Option<Check>,
    /// Whether it was truncated, so that it can only be found again in a copy.
    pub truncated: bool,
    /// Where events beyond the confirmed offset end because nothing more came for a while.
    pub cuts: Vec<u64>,
}

/// Some bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Check {
    /// The offset after the last of them.
    pub at: u64,
    /// How many they are.
    pub length: usize,
    /// Their hash.
    pub hash: u64,
}

/// The offset of a file that was truncated: beyond any size, so that nothing it holds now is taken for what was confirmed.
pub const TRUNCATED: u64 = u64::MAX;

/// Bytes in a [`Check`] at most.
pub const CHECK_BYTES: usize = 256;

/// Bytes that are written at once.
const BUFFER: usize = 64 << 10;

/// A file that was not seen for this long before the last writing will not come back, in seconds.
const FORGET_AFTER: u64 = 7 * 24 * 3600;

#[derive(Serialize, Deserialize)]
struct Entry {
    id: String,
    offset: u64,
    #[serde(default)]
    generation: u32,
    device: u64,
    inode: u64,
    #[serde(default)]
    birth: u64,
    path: String,
    #[serde(default)]
    seen: u64,
    #[serde(flatten)]
    content: Option<ContentEntry>,
}

#[derive(Serialize, Deserialize)]
struct ContentEntry {
    active: String,
    document: String,
    first_length: usize,
    first_hash: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    check_at: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    check_length: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    check_hash: u64,
    #[serde(default, skip_serializing_if = "is_false")]
    truncated: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    cuts: Vec<u64>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl ContentEntry {
    fn of(content: &Content) -> Self {
        let (at, length, hash) =
            content.check.map_or((0, 0, 0), |check| (check.at, check.length as u64, check.hash));
        Self {
            active: path_text(&content.active),
            document: content.document.hex(),
            first_length: content.first.0,
            first_hash: content.first.1,
            check_at: at,
            check_length: length,
            check_hash: hash,
            truncated: content.truncated,
            cuts: content.cuts.clone(),
        }
    }

    fn read(self) -> Option<Content> {
        let check = Check {
            at: self.check_at,
            length: usize::try_from(self.check_length).ok()?,
            hash: self.check_hash,
        };
        let is_sane = check.length > 0 && check.length <= CHECK_BYTES && check.at >= self.check_length;
        Some(Content {
            active: self.active.into(),
            document: FileId::from_hex(&self.document)?,
            first: (self.first_length, self.first_hash),
            check: is_sane.then_some(check),
            truncated: self.truncated,
            cuts: self.cuts,
        })
    }
}

/// What was known at start.
#[derive(Debug, Default)]
pub struct Known {
    /// By identity.
    pub positions: HashMap<FileId, Position>,
    /// Whether no agent ever wrote positions here.
    pub first_run: bool,
    /// What was wrong, one sentence each.
    pub complaints: Vec<String>,
}

/// The two generations of the file in a state directory.
#[derive(Debug)]
pub struct Checkpoint {
    directory: PathBuf,
}

/// What follows the header, counted as it is written: of thousands of files it is megabytes.
struct Body<'a> {
    file: BufWriter<&'a mut File>,
    checksum: Hasher,
    length: usize,
}

impl Write for Body<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.checksum.update(&bytes[..written]);
        self.length += written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The header line, always of the same length.
fn header(checksum: u32, length: usize) -> String {
    format!("{MAGIC} {VERSION} {checksum:08x} {length:012}\n")
}

impl Checkpoint {
    /// For the positions in `directory`, which exists.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// Reads what is known. A corrupt file is set aside and the previous one read; nothing here fails the start.
    pub fn load(&self) -> Known {
        let mut known = Known { first_run: true, ..Known::default() };
        for name in ["positions", "positions.old"] {
            let path = self.directory.join(name);
            let bytes = match fs::read(&path) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    known.first_run = false;
                    known.complaints.push(format!("could not read {}: {error}", path.display()));
                    continue;
                }
            };
            known.first_run = false;
            match parse(&bytes) {
                Ok(positions) => {
                    known.positions = positions;
                    return known;
                }
                Err(what) => known.complaints.push(self.set_aside(&path, &what)),
            }
        }
        known
    }

    fn set_aside(&self, path: &Path, what: &str) -> String {
        let aside = self.directory.join("positions.corrupt");
        match fs::rename(path, &aside) {
            Ok(()) => format!("{} is damaged ({what}): set aside as {}", path.display(), aside.display()),
            Err(error) => {
                format!("{} is damaged ({what}) and could not be set aside: {error}", path.display())
            }
        }
    }

    /// Writes the positions durably, those of files that are there first: when this returns, a crash finds them.
    pub fn write<'a>(&self, positions: impl Iterator<Item = Position> + 'a) -> io::Result<()> {
        let (current, new) = (self.directory.join("positions"), self.directory.join("positions.new"));
        let mut file = File::create(&new)?;
        let mut body =
            Body { file: BufWriter::with_capacity(BUFFER, &mut file), checksum: Hasher::new(), length: 0 };
        // Its place, until what it says of the rest is known.
        body.file.write_all(header(0, 0).as_bytes())?;
        for position in positions {
            let entry = Entry {
                id: position.id.hex(),
                offset: position.offset,
                generation: position.generation,
                device: position.inode.device,
                inode: position.inode.number,
                birth: position.inode.birth,
                path: path_text(&position.path),
                seen: position.seen,
                content: position.content.as_ref().map(ContentEntry::of),
            };
            serde_json::to_writer(&mut body, &entry)?;
            body.write_all(b"\n")?;
        }
        body.flush()?;
        let header = header(body.checksum.clone().finalize(), body.length);
        drop(body);
        file.write_all_at(header.as_bytes(), 0)?;
        file.sync_data()?;
        match fs::rename(&current, self.directory.join("positions.old")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::rename(&new, &current)?;
        File::open(&self.directory)?.sync_all()
    }
}

/// Reads a whole file, but for what was not seen for long when it was written. The files that were there come first, so the
/// first entry tells that time. What the clock says now is not asked: the agent may have been away for weeks, and clocks of
/// booting machines may be anywhere.
fn parse(bytes: &[u8]) -> Result<HashMap<FileId, Position>, String> {
    let end = memchr::memchr(b'\n', bytes).ok_or("no header line")?;
    let header = std::str::from_utf8(&bytes[..end]).map_err(|_| "the header is not text")?;
    let body = &bytes[end + 1..];
    check_header(header, body)?;
    let mut positions = HashMap::new();
    let mut written = None;
    for line in body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let entry: Entry = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        let id = FileId::from_hex(&entry.id).ok_or_else(|| format!("{:?} is no identity", entry.id))?;
        let inode = Inode { device: entry.device, number: entry.inode, birth: entry.birth };
        let Entry { offset, generation, seen, .. } = entry;
        let content = entry.content.and_then(ContentEntry::read);
        let position = Position { id, offset, generation, inode, path: entry.path.into(), seen, content };
        if seen.saturating_add(FORGET_AFTER) > *written.get_or_insert(seen) {
            positions.insert(id, position);
        }
    }
    Ok(positions)
}

fn check_header(header: &str, body: &[u8]) -> Result<(), String> {
    let fields: Vec<&str> = header.split(' ').collect();
    let [magic, version, checksum, length] = fields[..] else {
        return Err("the header has not four fields".into());
    };
    if magic != MAGIC {
        return Err(format!("it starts with {magic:?}"));
    }
    if version.parse() != Ok(VERSION) {
        return Err(format!("its version is {version}, this release reads {VERSION}"));
    }
    if length.parse() != Ok(body.len()) {
        return Err(format!("it holds {} bytes, not {length}", body.len()));
    }
    if u32::from_str_radix(checksum, 16) != Ok(crc32fast::hash(body)) {
        return Err("its checksum is wrong".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    fn position(number: u8, offset: u64) -> Position {
        Position {
            id: FileId([number; 12]),
            offset,
            generation: 0,
            inode: Inode { device: 1, number: u64::from(number), birth: 5 },
            path: format!("/var/log/{number}").into(),
            seen: 1000,
            content: Some(Content {
                active: format!("/var/log/{number}").into(),
                document: FileId([number; 12]),
                first: (17, 99),
                check: Some(Check {
                    at: offset,
                    length: usize::try_from(offset).expect("small"),
                    hash: u64::MAX,
                }),
                truncated: number == 2,
                cuts: vec![number.into(), 7],
            }),
        }
    }

    fn written(positions: &[Position]) -> (tempfile::TempDir, Checkpoint) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let checkpoint = Checkpoint::new(dir.path());
        checkpoint.write(positions.iter().cloned()).expect("written");
        (dir, checkpoint)
    }

    #[test]
    fn an_empty_directory_is_a_first_run() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let known = Checkpoint::new(dir.path()).load();
        assert!(known.first_run && known.positions.is_empty() && known.complaints.is_empty());
    }

    #[test]
    fn positions_come_back() {
        let (_dir, checkpoint) = written(&[position(1, 10), position(2, 20)]);
        let known = checkpoint.load();
        assert!(!known.first_run);
        assert_eq!(known.positions.len(), 2);
        assert_eq!(known.positions[&FileId([2; 12])], position(2, 20));
    }

    #[test]
    fn a_name_that_is_not_text_does_not_keep_the_others_from_being_written() {
        let odd = || PathBuf::from(std::ffi::OsStr::from_bytes(b"/var/log/\xff"));
        let content = position(2, 20).content.map(|content| Content { active: odd(), ..content });
        let odd = Position { path: odd(), content, ..position(2, 20) };
        let (_dir, checkpoint) = written(&[odd, position(1, 10)]);
        let known = checkpoint.load();
        assert_eq!(known.positions[&FileId([1; 12])], position(1, 10));
        assert_eq!(known.positions[&FileId([2; 12])].path, Path::new("/var/log/\u{fffd}"));
    }

    #[test]
    fn a_file_not_seen_for_a_week_is_forgotten() {
        let seen_later = Position { seen: 1000 + FORGET_AFTER, ..position(2, 20) };
        let (_dir, checkpoint) = written(&[seen_later.clone(), position(1, 10)]);
        let known = checkpoint.load();
        assert_eq!(known.positions.into_values().collect::<Vec<_>>(), [seen_later]);
        // A clock that was set back makes nothing old.
        let (_dir, checkpoint) = written(&[position(1, 10), Position { seen: u64::MAX, ..position(2, 20) }]);
        assert_eq!(checkpoint.load().positions.len(), 2);
    }

    #[test]
    fn any_cut_or_flipped_bit_falls_back_to_the_previous_file() {
        let (dir, checkpoint) = written(&[position(1, 10)]);
        checkpoint.write([position(1, 30)].into_iter()).expect("written");
        let path = dir.path().join("positions");
        let good = fs::read(&path).expect("read");
        let previous = fs::read(dir.path().join("positions.old")).expect("read");
        let mut damaged: Vec<Vec<u8>> = (0..good.len()).map(|length| good[..length].to_vec()).collect();
        damaged.extend((0..good.len() * 8).map(|bit| {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        }));
        for bytes in damaged {
            fs::write(&path, bytes).expect("written");
            fs::write(dir.path().join("positions.old"), &previous).expect("written");
            let known = checkpoint.load();
            // A flipped bit may be harmless (the case of a digit of the checksum), never a wrong position.
            let offset = known.positions[&FileId([1; 12])].offset;
            assert!(
                offset == 10 && known.complaints.len() == 1 || offset == 30 && known.complaints.is_empty()
            );
        }
    }

    #[test]
    fn a_damaged_file_is_set_aside_by_name() {
        let (dir, checkpoint) = written(&[position(1, 10)]);
        fs::write(dir.path().join("positions"), "scrambled").expect("written");
        let known = checkpoint.load();
        assert!(known.complaints[0].contains("positions.corrupt"), "{:?}", known.complaints);
        assert!(dir.path().join("positions.corrupt").exists());
        assert!(!known.first_run);
    }

    /// As the first release wrote it.
    const FIRST_RELEASE: &str = "{\"id\":\"010101010101010101010101\",\"offset\":10,\"generation\":1,\"device\":1,\
        \"inode\":1,\"birth\":5,\"path\":\"/var/log/1\",\"seen\":1000}\n";

    #[test]
    fn a_checkpoint_of_the_first_release_opens() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let header =
            format!("{MAGIC} 1 {:08x} {}\n", crc32fast::hash(FIRST_RELEASE.as_bytes()), FIRST_RELEASE.len());
        fs::write(dir.path().join("positions"), header + FIRST_RELEASE).expect("written");
        let known = Checkpoint::new(dir.path()).load();
        assert_eq!(known.complaints, [""; 0]);
        let expected = Position { generation: 1, content: None, ..position(1, 10) };
        assert_eq!(known.positions.into_values().collect::<Vec<_>>(), [expected]);
    }

    #[test]
    fn the_first_release_reads_what_is_written() {
        /// What it asks for; other keys it passes over.
        #[derive(Deserialize)]
        struct FirstEntry {
            id: String,
            offset: u64,
            generation: u32,
            device: u64,
            inode: u64,
            birth: u64,
            path: String,
            seen: u64,
        }
        let (dir, _) = written(&[position(2, 20)]);
        let text = fs::read_to_string(dir.path().join("positions")).expect("read");
        let (header, entry) = text.split_once('\n').expect("a header");
        assert!(header.starts_with("nodewarden-positions 1 "));
        let entry: FirstEntry = serde_json::from_str(entry.trim()).expect("an entry");
        assert_eq!((entry.id, entry.offset, entry.generation), (FileId([2; 12]).hex(), 20, 0));
        assert_eq!((entry.device, entry.inode, entry.birth), (1, 2, 5));
        assert_eq!((entry.path.as_str(), entry.seen), ("/var/log/2", 1000));
    }
}
