//! What people do with dead letters: choose some of them, take them out, keep others with a new reason.

use std::{
    ops::ControlFlow,
    pin::Pin,
    sync::{Arc, Mutex, Weak},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};

use super::{DeadLetters, Shelf, text};
use crate::store::{Hit, Key, Query, Reader, Source, StoreError};

/// Letters that are worked on together take about this many bytes.
const PAGE_BYTES: usize = 512 << 10;

/// Which letters: those that fit all that is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Refused by this index or data stream.
    pub index: Option<String>,
    /// Words that are in the reason.
    pub reason: Option<String>,
    /// The `_id` of the document.
    pub id: Option<String>,
}

/// A letter as it lies in the store.
#[derive(Debug, Clone)]
pub struct Letter {
    /// Its place.
    pub key: Key,
    /// The index that refused it.
    pub index: String,
    /// The `_id` of its document, unless the server makes them.
    pub id: Option<String>,
    /// Why.
    pub reason: String,
    /// The document.
    pub document: String,
    source: Arc<Source>,
    position: u64,
}

#[derive(Deserialize)]
struct Text {
    index: String,
    #[serde(default)]
    id: Option<String>,
    reason: String,
    document: String,
}

/// What became of letters that were sent again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Resent {
    /// The server has them now: they are no letters any more.
    pub accepted: u64,
    /// Refused again: they stay, with the new reason.
    pub refused: u64,
    /// Not taken for now, as with everything that is held: they stay.
    pub waiting: u64,
    /// Why some were refused or wait: what was said of the last of them.
    pub reason: Option<String>,
}

/// Sends letters again.
pub type Resend =
    Arc<dyn Fn(Filter) -> Pin<Box<dyn Future<Output = Result<Resent, String>> + Send>> + Send + Sync>;

/// Why nothing can be done with letters for a moment.
pub const STARTED_ANEW: &str = "the log path is being started anew; try again";

/// The letters as the admin API has them. It keeps none of them open: when the log path is started anew, the next one has to
/// get them.
#[derive(Clone)]
pub struct Desk {
    /// Searches them.
    pub reader: Reader,
    letters: Weak<Mutex<Shelf>>,
    /// Sends those of a filter again.
    pub resend: Resend,
}

impl Desk {
    /// For these letters; a search may hold `memory` bytes.
    pub fn new(letters: &DeadLetters, resend: Resend, memory: usize) -> Self {
        let reader = letters.reader().with_memory(memory);
        Self { reader, letters: Arc::downgrade(&letters.shelf), resend }
    }

    /// All of them, while the log path that keeps them runs.
    pub fn letters(&self) -> Option<DeadLetters> {
        self.letters.upgrade().map(|shelf| DeadLetters { shelf })
    }
}

impl Filter {
    fn fits(&self, text: &Text) -> bool {
        self.index.as_ref().is_none_or(|index| text.index == *index)
            && self.reason.as_ref().is_none_or(|reason| text.reason.contains(reason.as_str()))
            && self.id.as_ref().is_none_or(|id| text.id.as_ref() == Some(id))
    }
}

impl Letter {
    fn read(hit: &Hit, filter: &Filter) -> Option<Self> {
        // It is our own writing; what can't be read is shown to people, and is none to be sent.
        let text: Text = serde_json::from_slice(&hit.text).ok()?;
        if !filter.fits(&text) {
            return None;
        }
        let Text { index, id, reason, document } = text;
        let (source, position) = (Arc::clone(&hit.source), hit.position);
        Some(Self { key: hit.key, index, id, reason, document, source, position })
    }
}

impl DeadLetters {
    /// Some of the letters that fit, newest first, older than `before`; where to go on. Blocks on the disk.
    pub fn page(
        &self,
        filter: &Filter,
        before: Option<Key>,
    ) -> Result<(Vec<Letter>, Option<Key>), StoreError> {
        let (mut letters, mut bytes) = (Vec::new(), 0);
        let query = Query { before, ..Query::default() };
        let found = self.reader().with_memory(2 * PAGE_BYTES).search(&query, &|| false, &mut |hit| {
            letters.extend(Letter::read(&hit, filter));
            bytes += hit.text.len();
            if bytes < PAGE_BYTES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok((letters, found.next))
    }

    /// Takes letters out, durably. Blocks on the disk.
    pub fn remove(&self, keys: &[Key]) -> Result<usize, StoreError> {
        self.lock().writer.remove(keys, SystemTime::now())
    }

    /// Takes out all that fit; how many those were. Blocks on the disk.
    pub fn drop_all(&self, filter: &Filter) -> Result<u64, StoreError> {
        let (mut dropped, mut before) = (0, None);
        loop {
            let (letters, next) = self.page(filter, before)?;
            if !letters.is_empty() {
                let keys: Vec<Key> = letters.iter().map(|letter| letter.key).collect();
                dropped += self.remove(&keys)? as u64;
            }
            match next {
                Some(next) if Some(next) != before => before = Some(next),
                _ => return Ok(dropped),
            }
        }
    }

    /// Keeps letters with another reason: first the new ones, so that after a crash both are there and none is lost. Blocks on
    /// the disk.
    pub fn refused_again(&self, letters: &[(Letter, String)], now: i64) -> Result<(), StoreError> {
        let mut shelf = self.lock();
        for (letter, reason) in letters {
            let text = text(letter.id.as_deref(), &letter.index, reason, letter.document.as_bytes(), now);
            shelf.writer.append(&letter.source, letter.position, now, 0, &text)?;
        }
        let keys: Vec<Key> = letters.iter().map(|(letter, _)| letter.key).collect();
        shelf.writer.remove(&keys, SystemTime::now()).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{kept, letter, letter_at, open},
        *,
    };

    fn with_reason(reason: &str) -> Filter {
        Filter { reason: Some(reason.into()), ..Filter::default() }
    }

    #[test]
    fn letters_are_taken_out_and_stay_away_after_a_restart() {
        let directory = tempfile::tempdir().expect("a directory");
        let letters = open(directory.path(), 0.0);
        let named = super::super::DeadLetter { id: Some("named".into()), ..letter_at(70) };
        letters.keep(&[letter_at(0), named, letter()], 0, 1).expect("kept");
        let (page, next) = letters.page(&Filter::default(), None).expect("read");
        assert_eq!((page.len(), next), (3, None));
        let filter = Filter { id: Some("named".into()), ..Filter::default() };
        assert_eq!(letters.drop_all(&filter).expect("dropped"), 1);
        assert_eq!(letters.drop_all(&with_reason("no such")).expect("dropped"), 0);
        drop(letters);
        let letters = open(directory.path(), 0.0);
        assert_eq!(kept(&letters).len(), 2);
        assert_eq!(letters.drop_all(&with_reason("why")).expect("dropped"), 2);
        assert!(kept(&letters).is_empty());
        letters.keep(&[letter()], 0, 2).expect("kept");
        assert_eq!(kept(&letters).len(), 1);
    }

    #[test]
    fn what_is_refused_again_has_the_new_reason_and_is_kept_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let letters = open(directory.path(), 0.0);
        letters.keep(&[letter_at(0), letter_at(70)], 0, 1).expect("kept");
        let (page, _) = letters.page(&Filter::default(), None).expect("read");
        letters.refused_again(&[(page[0].clone(), "400 other".into())], 5).expect("kept");
        let (page, _) = letters.page(&Filter::default(), None).expect("read");
        let reasons: Vec<&str> = page.iter().map(|letter| letter.reason.as_str()).collect();
        assert_eq!(reasons, ["400 other", "400 \"why\""]);
    }

    #[test]
    fn more_than_a_page_is_dropped_as_well() {
        let directory = tempfile::tempdir().expect("a directory");
        let letters = open(directory.path(), 0.0);
        let long = super::super::DeadLetter { document: vec![b'x'; 200 << 10], ..letter() };
        letters.keep(&vec![long; 12], 0, 1).expect("kept");
        assert_eq!(letters.drop_all(&Filter::default()).expect("dropped"), 12);
        assert!(kept(&letters).is_empty());
    }
}
