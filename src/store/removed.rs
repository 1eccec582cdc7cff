//! Records that were taken out of the store before their segment goes: a bit for each, as segments are only appended to.
//!
//! # The file `removed`, version 1
//!
//! `NWrm`, u8 version 1, three 0, u32 number of blocks; for each its u64 number, u32 number of words and the words (u64, the
//! lowest bit of the first one is record 0); a CRC of all that. It is written beside the old one and renamed over it. One that
//! is damaged says nothing: its records are there again.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use super::{StoreError, codec::Input};

const MAGIC: [u8; 8] = *b"NWrm\x01\0\0\0";
const FILE: &str = "removed";
/// The records of the largest store take less; anything longer is not one of ours.
const MAX_BYTES: u64 = 64 << 20;

/// Which records were taken out, by the number of their block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Removed(BTreeMap<u64, Vec<u64>>);

impl Removed {
    pub(super) fn has(&self, block: u64, record: u32) -> bool {
        let words = self.0.get(&block);
        words
            .and_then(|words| words.get(record as usize / 64))
            .is_some_and(|word| word >> (record % 64) & 1 == 1)
    }

    /// Whether it was there until now.
    pub(super) fn add(&mut self, block: u64, record: u32) -> bool {
        let words = self.0.entry(block).or_default();
        let at = record as usize / 64;
        if words.len() <= at {
            words.resize(at + 1, 0);
        }
        let before = words[at];
        words[at] |= 1 << (record % 64);
        words[at] != before
    }

    /// How many of a block were taken out.
    pub(super) fn count(&self, block: u64) -> u32 {
        self.0.get(&block).map_or(0, |words| words.iter().map(|word| word.count_ones()).sum())
    }

    /// Forgets what is not among the first `records(block)` records of a block: their numbers may be given again.
    pub(super) fn keep(&mut self, records: impl Fn(u64) -> u32) {
        self.0.retain(|block, words| {
            let count = records(*block) as usize;
            words.truncate(count.div_ceil(64));
            if let Some(last) = words.last_mut().filter(|_| !count.is_multiple_of(64)) {
                *last &= (1 << (count % 64)) - 1;
            }
            words.iter().any(|word| *word != 0)
        });
    }

    /// What the directory's file says; a sentence when it can't be used.
    pub(super) fn load(dir: &Path) -> (Self, Option<String>) {
        let path = dir.join(FILE);
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes));
        let why = match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return (Self::default(), None),
            Err(error) => error.to_string(),
            Ok(_) => match Self::decode(&bytes) {
                Some(removed) => return (removed, None),
                None => "it is damaged".to_owned(),
            },
        };
        let sentence = format!("could not read {}: {why}; what was taken out is there again", path.display());
        (Self::default(), Some(sentence))
    }

    /// Makes the directory's file say this, durably.
    pub(super) fn save(&self, dir: &Path) -> Result<(), StoreError> {
        let (path, beside) = (dir.join(FILE), dir.join("removed.new"));
        let write = || {
            let mut options = OpenOptions::new();
            let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
            file.write_all(&self.encode())?;
            file.sync_data()?;
            fs::rename(&beside, &path)?;
            File::open(dir)?.sync_all()
        };
        write().map_err(StoreError::io("write", &path))
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&(self.0.len() as u32).to_le_bytes());
        for (block, words) in &self.0 {
            bytes.extend_from_slice(&block.to_le_bytes());
            bytes.extend_from_slice(&(words.len() as u32).to_le_bytes());
            words.iter().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
        }
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (front, crc) = bytes.split_last_chunk::<4>()?;
        if crc32fast::hash(front) != u32::from_le_bytes(*crc) {
            return None;
        }
        let mut input = Input(front);
        (input.array()? == MAGIC).then_some(())?;
        let mut removed = Self::default();
        for _ in 0..input.u32()? {
            let (block, words) = (input.u64()?, input.u32()?);
            let words = (0..words).map(|_| input.u64()).collect::<Option<Vec<u64>>>()?;
            removed.0.insert(block, words);
        }
        Some(removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_back_and_damage_says_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut removed = Removed::default();
        assert!(removed.add(7, 0) && removed.add(7, 64) && removed.add(9, 3) && !removed.add(9, 3));
        assert_eq!((removed.count(7), removed.has(7, 64), removed.has(7, 63)), (2, true, false));
        removed.save(dir.path()).expect("written");
        assert_eq!(Removed::load(dir.path()), (removed.clone(), None));
        let path = dir.path().join(FILE);
        let bytes = fs::read(&path).expect("read");
        for length in 0..bytes.len() {
            fs::write(&path, &bytes[..length]).expect("written");
            let (none, sentence) = Removed::load(dir.path());
            assert!(none == Removed::default() && sentence.is_some(), "{length}");
        }
        let mut flipped = bytes;
        flipped[12] ^= 1;
        fs::write(&path, flipped).expect("written");
        assert_eq!(Removed::load(dir.path()).0, Removed::default());
    }

    #[test]
    fn what_may_come_again_under_its_number_is_forgotten() {
        let mut removed = Removed::default();
        for record in [0, 63, 64, 65] {
            removed.add(1, record);
            removed.add(2, record);
        }
        removed.keep(|block| if block == 1 { 64 } else { 0 });
        assert_eq!((removed.count(1), removed.count(2), removed.has(1, 64)), (2, 0, false));
    }
}
