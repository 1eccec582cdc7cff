//! Makes journal files for tests and fuzz targets, as far as a reader that goes through entries needs them.

use std::{collections::HashMap, fs, io::Write, path::Path};

use super::unpack::Packing;

const HEADER: usize = 272;
/// Files are made larger than what they hold.
const STEP: usize = 64 << 10;

/// A journal file that grows.
pub struct Builder {
    compact: bool,
    /// The file as it is on disk.
    pub bytes: Vec<u8>,
    /// Where data objects lie, by their flags and bytes.
    data: HashMap<(u8, Vec<u8>), u64>,
    array: Option<Array>,
    entries: u64,
    /// Where entries lie.
    pub places: Vec<u64>,
}

struct Array {
    offset: usize,
    room: usize,
    used: usize,
}

impl Builder {
    /// An empty file of this sequence of numbers.
    pub fn new(seqnum_id: u8, compact: bool) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[..8].copy_from_slice(b"LPKSHHRH");
        bytes[12] = if compact { 31 } else { 15 };
        bytes[16] = 1;
        bytes[72..88].fill(seqnum_id);
        bytes[88..96].copy_from_slice(&(HEADER as u64).to_le_bytes());
        Self { compact, bytes, data: HashMap::new(), array: None, entries: 0, places: Vec::new() }
    }

    /// One more entry.
    pub fn entry(&mut self, seqnum: u64, fields: &[(&str, &[u8])]) {
        let fields: Vec<Vec<u8>> =
            fields.iter().map(|(name, value)| [name.as_bytes(), b"=", value].concat()).collect();
        let data: Vec<u64> = fields.iter().map(|field| self.data(field, Packing::None)).collect();
        self.entry_of(seqnum, &data);
    }

    /// One more entry with the message `message`.
    pub fn message(&mut self, seqnum: u64, message: &str) {
        let unit: &[u8] = if seqnum.is_multiple_of(2) { b"even.service" } else { b"odd.service" };
        self.entry(seqnum, &[("_SYSTEMD_UNIT", unit), ("MESSAGE", message.as_bytes()), ("PRIORITY", b"6")]);
    }

    /// Entries with the message `NAME N`.
    pub fn messages(&mut self, name: &str, seqnums: impl Iterator<Item = u64>) {
        seqnums.for_each(|seqnum| self.message(seqnum, &format!("{name} {seqnum}")));
    }

    /// A data object with these bytes as they lie in the file.
    pub fn data(&mut self, payload: &[u8], packing: Packing) -> u64 {
        let flags = [Packing::None, Packing::Xz, Packing::Lz4, Packing::Zstd]
            .iter()
            .position(|known| *known == packing)
            .map_or(0, |place| [0, 1, 2, 4][place]);
        let key = (flags, payload.to_vec());
        if let Some(known) = self.data.get(&key) {
            return *known;
        }
        let start = if self.compact { 72 } else { 64 };
        let offset = self.object(1, flags, start - 16 + payload.len());
        self.bytes[offset + start..][..payload.len()].copy_from_slice(payload);
        self.data.insert(key, offset as u64);
        offset as u64
    }

    /// An entry of these data objects.
    pub fn entry_of(&mut self, seqnum: u64, data: &[u64]) {
        let item = if self.compact { 4 } else { 16 };
        let offset = self.object(3, 0, 48 + data.len() * item);
        self.put(offset + 16, seqnum);
        self.put(offset + 24, 1_700_000_000_000_000 + seqnum);
        for (number, place) in data.iter().enumerate() {
            self.put_offset(offset + 64 + number * item, *place);
        }
        self.link(offset as u64);
        self.places.push(offset as u64);
        if self.entries == 0 {
            self.put(168, seqnum);
        }
        self.entries += 1;
        self.put(152, self.entries);
        self.put(160, seqnum);
    }

    /// journald writes no more to it.
    pub fn archive(&mut self) {
        self.bytes[16] = 2;
    }

    /// Writes what there is over what is in the file.
    pub fn write(&self, path: &Path) {
        let mut bytes = self.bytes.clone();
        bytes.resize(bytes.len().next_multiple_of(STEP), 0);
        let file = fs::OpenOptions::new().create(true).write(true).truncate(false).open(path);
        file.and_then(|mut file| file.write_all(&bytes)).expect("written");
    }

    fn object(&mut self, kind: u8, flags: u8, payload: usize) -> usize {
        let offset = self.bytes.len();
        self.bytes.resize((offset + 16 + payload).next_multiple_of(8), 0);
        self.bytes[offset] = kind;
        self.bytes[offset + 1] = flags;
        self.put(offset + 8, 16 + payload as u64);
        self.put(136, offset as u64);
        offset
    }

    fn link(&mut self, entry: u64) {
        let item = if self.compact { 4 } else { 8 };
        if self.array.as_ref().is_none_or(|array| array.used == array.room) {
            let room = self.array.as_ref().map_or(4, |array| array.room * 2);
            let offset = self.object(6, 0, 8 + room * item);
            match self.array.replace(Array { offset, room, used: 0 }) {
                Some(full) => self.put(full.offset + 16, offset as u64),
                None => self.put(176, offset as u64),
            }
        }
        if let Some(Array { offset, used, .. }) = &mut self.array {
            let at = *offset + 24 + *used * item;
            *used += 1;
            self.put_offset(at, entry);
        }
    }

    fn put(&mut self, at: usize, number: u64) {
        self.bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
    }

    fn put_offset(&mut self, at: usize, offset: u64) {
        if self.compact {
            self.bytes[at..at + 4].copy_from_slice(&(offset as u32).to_le_bytes());
        } else {
            self.put(at, offset);
        }
    }
}
