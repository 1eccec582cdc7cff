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
