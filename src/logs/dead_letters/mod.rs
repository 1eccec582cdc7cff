//! Documents that the server refuses for good, kept where people find them.

pub mod desk;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use serde::Deserialize;

use super::{
    batch::Batch,
    local::source,
    record::{FileFacts, FileId},
    shape::{offset_of_id, write_string},
};
use crate::store::{Reader, Source, StoreError, Writer};

/// Files with letters, beyond those of the start, of which is remembered how far they were kept; then the store is asked anew.
const FILES: usize = 4096;

/// The dead letters of this agent: a bounded store of its own, whose records are one JSON object each,
/// `{"id":...,"index":...,"time":...,"reason":...,"document":...}`: what a request needs to send the document again, when it was
/// refused (nanoseconds since the epoch) and why. All but the time are texts; `id` is missing where the server makes the ids.
///
/// A record's position is the offset that is in its id, so that a document which is sent again after a crash, or because its
/// file was set back, is kept once.
#[derive(Clone)]
pub struct DeadLetters {
    shelf: Arc<Mutex<Shelf>>,
}

struct Shelf {
    writer: Writer,
    /// The greatest position that was kept of each file, once that was asked, and how many files those were.
    last: Option<(HashMap<[u8; 12], u64>, usize)>,
}

/// One refused document.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    facts: Arc<FileFacts>,
    /// What is in its id, if it has one.
    offset: Option<u64>,
    index: String,
    id: Option<String>,
    reason: String,
    document: Vec<u8>,
}

/// The first line of an item in bulk form.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Action {
    create: Target,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Target {
    #[serde(rename = "_index")]
    index: String,
    #[serde(rename = "_id")]
    id: Option<String>,
}

impl DeadLetter {
    /// The letter about an item of a batch that is in bulk form.
    pub fn new(batch: &Batch, item: usize, reason: &str) -> Self {
        let bytes = &batch.body[batch.range(item)];
        let end = memchr::memchr(b'\n', bytes).unwrap_or(bytes.len());
        let (action, document) = bytes.split_at(end);
        // It is our own writing; if it were not, the document would still be kept.
        let Action { create: Target { index, id } } = serde_json::from_slice(action).unwrap_or_default();
        let facts = Arc::clone(&batch.files[batch.file_of(item)].facts);
        let offset = id.as_deref().and_then(offset_of_id);
        Self {
            facts,
            offset,
            index,
            id,
            reason: reason.to_owned(),
            document: document.trim_ascii().to_owned(),
        }
    }

    fn text(&self, now: i64) -> Vec<u8> {
        text(self.id.as_deref(), &self.index, &self.reason, &self.document, now)
    }
}

/// A letter as it lies in the store.
fn text(id: Option<&str>, index: &str, reason: &str, document: &[u8], now: i64) -> Vec<u8> {
    let mut text = b"{".to_vec();
    let mut member = |name: &str, value: &[u8]| {
        text.extend_from_slice(format!("\"{name}\":").as_bytes());
        write_string(value, &mut text);
        text.push(b',');
    };
    if let Some(id) = id {
        member("id", id.as_bytes());
    }
    member("index", index.as_bytes());
    member("reason", reason.as_bytes());
    member("document", document);
    text.extend_from_slice(format!("\"time\":{now}}}").as_bytes());
    text
}

impl DeadLetters {
    /// Into an open store.
    pub fn new(writer: Writer) -> Self {
        Self { shelf: Arc::new(Mutex::new(Shelf { writer, last: None })) }
    }

    /// Keeps the letters from number `next` on durably, those that are kept already once; an error tells which letter to go on
    /// with. Blocks on the disk.
    pub fn keep(&self, letters: &[DeadLetter], next: usize, now: i64) -> Result<(), (usize, StoreError)> {
        let mut shelf = self.lock();
        let mut known = HashMap::new();
        for (number, letter) in letters.iter().enumerate().skip(next) {
            shelf.keep(letter, letters, &mut known, now).map_err(|error| (number, error))?;
        }
        match shelf.writer.sync(SystemTime::now()) {
            // These are durable: it is the next ones that have to wait.
            Ok(()) | Err(StoreError::NoRoom { .. }) => Ok(()),
            Err(error) => Err((letters.len(), error)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Searches them.
    pub fn reader(&self) -> Reader {
        self.lock().writer.reader()
    }
}

impl Shelf {
    /// `known` are the positions that were kept before, of files that were asked for already.
    fn keep(
        &mut self,
        letter: &DeadLetter,
        letters: &[DeadLetter],
        known: &mut HashMap<FileId, HashSet<u64>>,
        now: i64,
    ) -> Result<(), StoreError> {
        let (file, text) = (letter.facts.id, letter.text(now));
        let Some(position) = letter.offset else {
            return self.writer.append(&Arc::new(without_positions(&letter.facts)), 0, now, 0, &text);
        };
        // Asked once, for it reads the index of every segment.
        let greatest = match &mut self.last {
            Some((greatest, known)) if greatest.len() < *known + FILES => greatest,
            forgotten => {
                let greatest = self.writer.greatest_positions()?;
                let known = greatest.len();
                &mut forgotten.insert((greatest, known)).0
            }
        };
        let last = greatest.get(&file.0).copied();
        // Lines come in their order: what is beyond was never here.
        if last.is_some_and(|last| position <= last) {
            let kept = match known.entry(file) {
                std::collections::hash_map::Entry::Occupied(kept) => kept.into_mut(),
                std::collections::hash_map::Entry::Vacant(place) => {
                    let ours = letters.iter().filter(|other| other.facts.id == file);
                    let from = ours.filter_map(|other| other.offset).min().unwrap_or(position);
                    let found = self.writer.positions(&HashMap::from([(file.0, from)]))?;
                    place.insert(found.into_values().flatten().collect())
                }
            };
            if kept.contains(&position) {
                return Ok(());
            }
        }
        self.writer.append(&Arc::new(source(&letter.facts)), position, now, 0, &text)?;
        greatest.insert(file.0, last.map_or(position, |last| last.max(position)));
        Ok(())
    }
}

/// The file as a source of letters that nothing tells apart.
fn without_positions(facts: &FileFacts) -> Source {
    let mut source = source(facts);
    source.id.iter_mut().for_each(|byte| *byte = !*byte);
    source
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;
    use crate::metrics::ledger::Amount;
    use crate::{
        logs::{
            batch::FileKey,
            record::{FileId, Origin},
            shape::offset_digits,
        },
        store::{Hit, Limits, Query},
    };

    pub fn letter() -> DeadLetter {
        let facts = FileFacts::new(FileId([1; 12]), "/var/log/a", Origin::Plain);
        let mut batch = Batch::default();
        batch.body.extend_from_slice(b"{\"create\":{}}\n{\"message\":\"a\xff\"}\n");
        batch.push(FileKey(0), &Arc::new(facts), Amount { lines: 1, bytes: 10 }, 0);
        DeadLetter::new(&batch, 0, "400 \"why\"")
    }

    /// With the id that a line at this offset has.
    pub fn letter_at(offset: u64) -> DeadLetter {
        let digits = String::from_utf8(offset_digits(offset).to_vec()).expect("ASCII");
        DeadLetter { offset: offset_of_id(&format!("{:->16}{digits}", "")), ..letter() }
    }

    pub fn open(directory: &std::path::Path, min_free: f64) -> DeadLetters {
        let limits = Limits { min_free, ..Limits::default() };
        DeadLetters::new(Writer::open(directory, limits, SystemTime::now()).expect("a store").0)
    }

    pub fn kept(letters: &DeadLetters) -> Vec<Hit> {
        let mut hits = Vec::new();
        let mut take = |hit| {
            hits.push(hit);
            ControlFlow::Continue(())
        };
        letters.reader().search(&Query::default(), &|| false, &mut take).expect("searched");
        hits
    }

    #[test]
    fn a_letter_is_json_with_the_reason_and_outlives_a_restart() {
        let directory = tempfile::tempdir().expect("a directory");
        open(directory.path(), 0.0).keep(&[letter()], 0, 7).expect("kept");
        let hits = kept(&open(directory.path(), 0.0));
        let text: serde_json::Value = serde_json::from_slice(&hits[0].text).expect("JSON");
        assert_eq!(text["reason"], "400 \"why\"");
        assert_eq!(text["document"], "{\"message\":\"a\u{fffd}\"}");
        assert_eq!((&text["time"], text.get("id")), (&7.into(), None));
        assert_eq!((hits[0].key.time, hits[0].source.label("file")), (7, Some("/var/log/a")));
    }

    #[test]
    fn a_document_that_comes_again_is_kept_once_also_after_a_crash() {
        let directory = tempfile::tempdir().expect("a directory");
        let letters = open(directory.path(), 0.0);
        letters.keep(&[letter_at(0), letter_at(70)], 0, 1).expect("kept");
        letters.keep(&[letter_at(70), letter_at(35), letter_at(0), letter_at(90)], 0, 2).expect("kept");
        assert_eq!(kept(&letters).len(), 4);
        drop(letters);
        let letters = open(directory.path(), 0.0);
        letters.keep(&[letter_at(35), letter_at(70), letter_at(90), letter_at(100)], 0, 3).expect("kept");
        assert_eq!(kept(&letters).len(), 5);
        // Without ids nobody can tell.
        letters.keep(&[letter(), letter()], 0, 4).expect("kept");
        assert_eq!(kept(&letters).len(), 7);
    }

    #[test]
    fn a_full_disk_says_with_which_letter_to_go_on() {
        let directory = tempfile::tempdir().expect("a directory");
        let letters = open(directory.path(), 1.0);
        // Only what was kept shows that there is no room for more.
        letters.keep(&[letter()], 0, 1).expect("kept");
        let (next, error) = letters.keep(&[letter(), letter()], 1, 2).expect_err("no room");
        assert_eq!(next, 1);
        assert!(matches!(error, StoreError::NoRoom { .. }));
        assert_eq!(kept(&letters).len(), 1);
        let limits = Limits { min_free: 0.0, ..Limits::default() };
        letters.lock().writer.set_limits(limits);
        letters.keep(&[letter(), letter()], next, 3).expect("room again");
        assert_eq!(kept(&letters).len(), 2);
    }
}
