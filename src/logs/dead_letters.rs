//! Documents that the server refuses for good, kept where people find them.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use super::{batch::Batch, local::source, record::FileFacts, shape::write_string};
use crate::store::{Reader, StoreError, Writer};

/// The dead letters of this agent: a bounded store of its own, whose records are one JSON object each,
/// `{"reason":...,"bulk":...}`, with the two lines of the bulk request as they were sent.
#[derive(Clone)]
pub struct DeadLetters {
    writer: Arc<Mutex<Writer>>,
}

/// One refused document.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    facts: Arc<FileFacts>,
    text: Vec<u8>,
}

impl DeadLetter {
    /// The letter about an item of a batch that is in bulk form.
    pub fn new(batch: &Batch, item: usize, reason: &str) -> Self {
        let mut text = b"{\"reason\":".to_vec();
        write_string(reason.as_bytes(), &mut text);
        text.extend_from_slice(b",\"bulk\":");
        write_string(&batch.body[batch.range(item)], &mut text);
        text.push(b'}');
        Self { facts: Arc::clone(&batch.files[batch.file_of(item)].facts), text }
    }
}

impl DeadLetters {
    /// Into an open store.
    pub fn new(writer: Writer) -> Self {
        Self { writer: Arc::new(Mutex::new(writer)) }
    }

    /// Keeps the letters from number `next` on durably; an error tells which letter to go on with. Blocks on the disk.
    pub fn keep(&self, letters: &[DeadLetter], next: usize, now: i64) -> Result<(), (usize, StoreError)> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        for (number, letter) in letters.iter().enumerate().skip(next) {
            let source = Arc::new(source(&letter.facts));
            writer.append(&source, 0, now, 0, &letter.text).map_err(|error| (number, error))?;
        }
        match writer.sync(SystemTime::now()) {
            // These are durable: it is the next ones that have to wait.
            Ok(()) | Err(StoreError::NoRoom { .. }) => Ok(()),
            Err(error) => Err((letters.len(), error)),
        }
    }

    /// Searches them.
    pub fn reader(&self) -> Reader {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).reader()
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;
    use crate::{
        logs::{
            batch::FileKey,
            record::{FileId, Origin},
        },
        store::{Hit, Limits, Query},
    };

    fn letter() -> DeadLetter {
        let facts = FileFacts { id: FileId([1; 12]), path: "/var/log/a".into(), origin: Origin::Plain };
        let mut batch = Batch::default();
        batch.body.extend_from_slice(b"{\"create\":{}}\n{\"message\":\"a\xff\"}\n");
        batch.push(FileKey(0), &Arc::new(facts), 1, 10, 0);
        DeadLetter::new(&batch, 0, "400 \"why\"")
    }

    fn open(directory: &std::path::Path, min_free: f64) -> DeadLetters {
        let limits = Limits { min_free, ..Limits::default() };
        DeadLetters::new(Writer::open(directory, limits, SystemTime::now()).expect("a store").0)
    }

    fn kept(letters: &DeadLetters) -> Vec<Hit> {
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
        assert_eq!(text["bulk"], "{\"create\":{}}\n{\"message\":\"a\u{fffd}\"}\n");
        assert_eq!((hits[0].key.time, hits[0].source.label("file")), (7, Some("/var/log/a")));
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
        letters.writer.lock().expect("unpoisoned").set_limits(limits);
        letters.keep(&[letter(), letter()], next, 3).expect("room again");
        assert_eq!(kept(&letters).len(), 2);
    }
}
