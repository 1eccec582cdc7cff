//! The file that remembers how far every log file is confirmed.
//!
//! One text file, so that people can read it: a header line `nodewarden-positions 1 CRC32 LENGTH`, then one JSON object a
//! line. Checksum and length are of everything after the header, so that any cut or flipped bit shows. It is written beside
//! and renamed over the old one, which stays as `positions.old`; an unreadable file is set aside as `positions.corrupt`.
//! Unknown keys are passed over, so that the previous release reads what this one wrote.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::record::{FileId, Inode};

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
}

/// The offset of a file that was truncated: beyond any size, so that nothing it holds now is taken for what was confirmed.
pub const TRUNCATED: u64 = u64::MAX;

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
    body: Vec<u8>,
}

impl Checkpoint {
    /// For the positions in `directory`, which exists.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), body: Vec::new() }
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
    pub fn write<'a>(&mut self, positions: impl Iterator<Item = Position> + 'a) -> io::Result<()> {
        self.body.clear();
        for position in positions {
            let entry = Entry {
                id: position.id.hex(),
                offset: position.offset,
                generation: position.generation,
                device: position.inode.device,
                inode: position.inode.number,
                birth: position.inode.birth,
                path: position.path.to_string_lossy().into_owned(),
                seen: position.seen,
            };
            serde_json::to_writer(&mut self.body, &entry)?;
            self.body.push(b'\n');
        }
        let (current, new) = (self.directory.join("positions"), self.directory.join("positions.new"));
        let mut file = File::create(&new)?;
        let checksum = crc32fast::hash(&self.body);
        file.write_all(format!("{MAGIC} {VERSION} {checksum:08x} {}\n", self.body.len()).as_bytes())?;
        file.write_all(&self.body)?;
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
        let position = Position { id, offset, generation, inode, path: entry.path.into(), seen };
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
    use super::*;

    fn position(number: u8, offset: u64) -> Position {
        Position {
            id: FileId([number; 12]),
            offset,
            generation: 0,
            inode: Inode { device: 1, number: u64::from(number), birth: 5 },
            path: format!("/var/log/{number}").into(),
            seen: 1000,
        }
    }

    fn written(positions: &[Position]) -> (tempfile::TempDir, Checkpoint) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut checkpoint = Checkpoint::new(dir.path());
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
        let (dir, mut checkpoint) = written(&[position(1, 10)]);
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
}
