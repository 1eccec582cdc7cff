//! The sink that keeps lines on this node: the local store.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use super::{
    batch::{Batch, Record, records},
    record::{FileFacts, FileId, Origin, path_text},
    ship::{Sink, off_thread},
    status::{Obstacle, Reason, SinkState},
};
use crate::{
    backoff::Backoff,
    metrics::own::StoreMetrics,
    store::{Source, StoreError, Writer},
};

const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Files of a batch whose description is kept for their next line; beyond that all are made again.
const SOURCES: usize = 512;

/// The sink.
pub struct Local {
    shelf: Arc<Mutex<Shelf>>,
    state: Arc<SinkState>,
    metrics: StoreMetrics,
}

/// The writer and what it knows of the files it gets lines from.
struct Shelf {
    writer: Writer,
    /// The greatest position that was stored of each file before the agent was started, sorted by file; asked for once.
    before: Option<Vec<(FileId, u64)>>,
    /// What of it was not confirmed, of the files that brought lines from before it.
    repeats: HashMap<FileId, Repeats>,
}

/// Lines that may come again.
#[derive(Default)]
struct Repeats {
    /// Positions that were stored before the agent was restarted and whose confirmation did not reach the checkpoint.
    stored: HashSet<u64>,
    /// The store was asked for positions from here on; for none yet.
    asked_from: Option<u64>,
}

impl Local {
    /// A sink into an open store.
    pub fn new(writer: Writer, state: Arc<SinkState>, metrics: StoreMetrics) -> Self {
        let shelf = Shelf { writer, before: None, repeats: HashMap::new() };
        Self { shelf: Arc::new(Mutex::new(shelf)), state, metrics }
    }
}

impl Sink for Local {
    fn deliver(self: Arc<Self>, batch: Batch) -> impl Future<Output = Batch> + Send {
        self.keep(batch)
    }

    /// One: there is one disk, and lines are kept in their order.
    fn at_once(&self) -> usize {
        1
    }
}

impl Local {
    async fn keep(self: Arc<Self>, batch: Batch) -> Batch {
        let batch = Arc::new(batch);
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT, 0);
        let mut next = 0;
        loop {
            let (shelf, lines) = (Arc::clone(&self.shelf), Arc::clone(&batch));
            let Err((reached, error)) = off_thread(move || lock(&shelf).keep(&lines, next)).await else {
                break;
            };
            next = reached;
            let reason = Reason::new(Obstacle::Disk, error.to_string());
            if self.state.hold(batch.number, &reason, Instant::now()) {
                tracing::warn!(%error, "log lines wait in their files: the local store does not take them");
            }
            tokio::time::sleep(backoff.next_wait()).await;
        }
        if self.state.ok(batch.number) {
            tracing::info!("the local store takes lines again");
        }
        self.count();
        // Every clone was given to a task that has ended.
        Arc::try_unwrap(batch).unwrap_or_default()
    }

    fn count(&self) {
        let stats = lock(&self.shelf).writer.stats();
        self.metrics.bytes.set(stats.bytes as i64);
        self.metrics.oldest_timestamp.set(stats.oldest.map_or(0.0, |nanos| nanos as f64 / 1e9));
    }
}

fn lock(shelf: &Mutex<Shelf>) -> MutexGuard<'_, Shelf> {
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shelf {
    /// Appends the records from number `next` on and makes all durable; an error tells which record to go on with.
    fn keep(&mut self, batch: &Batch, next: usize) -> Result<(), (usize, StoreError)> {
        self.look_for_repeats(batch, next).map_err(|error| (next, error))?;
        let mut sources = HashMap::new();
        for (number, (file, record)) in records(batch).enumerate().skip(next) {
            let facts = &batch.files[file].facts;
            if sources.len() >= SOURCES {
                sources.clear();
            }
            let source = sources.entry(facts.id).or_insert_with(|| Arc::new(source(facts)));
            self.append(facts.id, source, &record).map_err(|error| (number, error))?;
        }
        match self.writer.sync(SystemTime::now()) {
            // These are durable: it is the next ones that have to wait.
            Ok(()) | Err(StoreError::NoRoom { .. }) => Ok(()),
            Err(error) => Err((batch.len(), error)),
        }
    }

    /// Finds out which of these lines may have been stored before the restart, for all files at once: a look into the store
    /// costs the same for one file and for thousands. Lines come in the order of their ends, so that one in parts may start
    /// before the first line that came.
    fn look_for_repeats(&mut self, batch: &Batch, next: usize) -> Result<(), StoreError> {
        let before = match &self.before {
            Some(before) => before,
            None => {
                let greatest = self.writer.greatest_positions()?;
                let mut before: Vec<_> = greatest.into_iter().map(|(id, last)| (FileId(id), last)).collect();
                before.sort_unstable();
                self.before.insert(before)
            }
        };
        if before.is_empty() {
            return Ok(());
        }
        let mut wanted: HashMap<[u8; 12], u64> = HashMap::new();
        for (file, record) in records(batch).skip(next) {
            let id = batch.files[file].facts.id;
            let known = before.binary_search_by_key(&id, |entry| entry.0);
            let asked_from = self.repeats.get(&id).and_then(|repeats| repeats.asked_from);
            if known.is_ok_and(|at| record.position <= before[at].1)
                && asked_from.is_none_or(|from| record.position < from)
            {
                let from = wanted.entry(id.0).or_insert(record.position);
                *from = record.position.min(*from);
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let mut found = self.writer.positions(&wanted)?;
        for (id, from) in wanted {
            let repeats = self.repeats.entry(FileId(id)).or_default();
            // What is above was asked for already.
            let end = repeats.asked_from.unwrap_or(u64::MAX);
            let stored = found.remove(&id).unwrap_or_default();
            repeats.stored.extend(stored.into_iter().filter(|&stored| stored < end));
            repeats.asked_from = Some(from);
        }
        Ok(())
    }

    fn append(&mut self, id: FileId, source: &Arc<Source>, record: &Record<'_>) -> Result<(), StoreError> {
        // Said once.
        if self.repeats.get_mut(&id).is_some_and(|repeats| repeats.stored.remove(&record.position)) {
            return Ok(());
        }
        match self.writer.append(source, record.position, record.time, record.stream, record.text) {
            // It would never fit, and nothing else may wait for it: the limit on lines is far below the store's.
            Err(error @ StoreError::TooLong { .. }) => {
                tracing::error!(%error, "a line was left out of the local store");
                Ok(())
            }
            other => other,
        }
    }
}

/// A file as the store's searches know it.
pub fn source(facts: &FileFacts) -> Source {
    let file = (Cow::Borrowed("file"), path_text(&facts.path));
    let labels = match &facts.origin {
        Origin::Plain | Origin::Journal | Origin::Kernel | Origin::Canary => vec![file],
        Origin::Container(container) => vec![
            (Cow::Borrowed("container"), container.name.clone()),
            file,
            (Cow::Borrowed("namespace"), container.namespace.clone()),
            (Cow::Borrowed("pod"), container.pod.clone()),
            (Cow::Borrowed("restart"), container.restart.to_string()),
            (Cow::Borrowed("uid"), container.uid.clone()),
        ],
    };
    Source { id: facts.id.0, labels }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;
    use crate::{
        logs::{
            batch::{FileKey, encode_record},
            record::{Line, Span, Stream},
        },
        metrics::{ledger::Amount, own::Own},
        store::{Limits, Query},
    };

    fn limits(min_free: f64) -> Limits {
        Limits { min_free, ..Limits::default() }
    }

    fn open(directory: &std::path::Path, min_free: f64) -> Arc<Local> {
        let (writer, _) = Writer::open(directory, limits(min_free), SystemTime::now()).expect("a store");
        let own = Own::new(Registry::new()).expect("a registry");
        Arc::new(Local::new(writer, Arc::default(), own.store))
    }

    fn batch(number: u64, positions: &[u64]) -> Batch {
        let facts = Arc::new(FileFacts::new(FileId([1; 12]), "/var/log/a", Origin::Plain));
        let mut batch = Batch::numbered(number);
        for &start in positions {
            let (text, span) = (format!("line at {start}"), Span { start, end: start + 10 });
            let line =
                Line { time: 5, stream: Stream::None, text: text.as_bytes(), span, bytes: 10, lines: 1 };
            encode_record(&line, &mut batch.body);
            batch.push(FileKey(0), &facts, Amount { lines: 1, bytes: 10 }, 0);
        }
        batch
    }

    fn stored(local: &Local) -> Vec<u64> {
        let mut positions = Vec::new();
        let reader = lock(&local.shelf).writer.reader();
        let mut sink = |hit: crate::store::Hit| {
            positions.push(hit.position);
            std::ops::ControlFlow::Continue(())
        };
        reader.search(&Query::default(), &|| false, &mut sink).expect("searched");
        positions.sort_unstable();
        positions
    }

    #[tokio::test]
    async fn lines_whose_confirmation_was_lost_are_stored_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let local = open(directory.path(), 0.0);
        local.deliver(batch(0, &[10, 0, 30])).await;
        // After a restart the same lines come again, the one in parts after the one that lies between them.
        let local = open(directory.path(), 0.0);
        Arc::clone(&local).deliver(batch(0, &[10])).await;
        Arc::clone(&local).deliver(batch(1, &[0, 30, 40])).await;
        assert_eq!(stored(&local), [0, 10, 30, 40]);
    }

    #[tokio::test]
    async fn a_full_disk_holds_lines_until_there_is_room() {
        let directory = tempfile::tempdir().expect("a directory");
        let local = open(directory.path(), 1.0);
        // Only what was kept shows that there is no room for more.
        Arc::clone(&local).deliver(batch(0, &[0])).await;
        let waiting = tokio::spawn(Arc::clone(&local).deliver(batch(1, &[10, 20])));
        while local.state.reason().is_none() {
            tokio::task::yield_now().await;
        }
        assert!(local.state.reason().is_some_and(|reason| reason.contains("have to stay free")));
        assert_eq!(stored(&local), [0]);
        lock(&local.shelf).writer.set_limits(limits(0.0));
        assert_eq!(waiting.await.expect("delivered").len(), 2);
        assert_eq!(local.state.reason(), None);
        assert_eq!(stored(&local), [0, 10, 20]);
    }
}
