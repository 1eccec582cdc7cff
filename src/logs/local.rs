//! The sink that keeps lines on this node: the local store.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use super::{
    backoff::Backoff,
    batch::{Batch, Record, records},
    record::{FileFacts, FileId, Origin, path_text},
    ship::{Sink, off_thread},
    status::SinkState,
};
use crate::{
    metrics::own::StoreMetrics,
    store::{Source, StoreError, Writer},
};

const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Sources remembered at once; beyond that all are forgotten, which only costs looking them up again.
const SOURCES: usize = 4096;

/// The sink.
pub struct Local {
    shelf: Arc<Mutex<Shelf>>,
    state: Arc<SinkState>,
    metrics: StoreMetrics,
}

/// The writer and what it knows of the files it gets lines from.
struct Shelf {
    writer: Writer,
    sources: HashMap<FileId, Known>,
}

struct Known {
    source: Arc<Source>,
    /// Positions that were stored before the agent was restarted and whose confirmation did not reach the checkpoint.
    stored: HashSet<u64>,
    /// The store was asked for positions from here on.
    asked_from: u64,
}

impl Local {
    /// A sink into an open store.
    pub fn new(writer: Writer, state: Arc<SinkState>, metrics: StoreMetrics) -> Self {
        let shelf = Shelf { writer, sources: HashMap::new() };
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
            if self.state.hold(batch.number, &error.to_string(), Instant::now()) {
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
        for (number, (file, record)) in records(batch).enumerate().skip(next) {
            self.append(&batch.files[file].facts, &record).map_err(|error| (number, error))?;
        }
        match self.writer.sync(SystemTime::now()) {
            // These are durable: it is the next ones that have to wait.
            Ok(()) | Err(StoreError::NoRoom { .. }) => Ok(()),
            Err(error) => Err((batch.len(), error)),
        }
    }

    fn append(&mut self, facts: &FileFacts, record: &Record<'_>) -> Result<(), StoreError> {
        if self.sources.len() >= SOURCES && !self.sources.contains_key(&facts.id) {
            self.sources.clear();
        }
        let Self { writer, sources } = self;
        let known = sources.entry(facts.id).or_insert_with(|| Known::new(facts));
        if known.is_stored(writer, record.position)? {
            return Ok(());
        }
        match writer.append(&known.source, record.position, record.time, record.stream, record.text) {
            // It would never fit, and nothing else may wait for it: the limit on lines is far below the store's.
            Err(error @ StoreError::TooLong { .. }) => {
                tracing::error!(%error, "a line was left out of the local store");
                Ok(())
            }
            other => other,
        }
    }
}

impl Known {
    fn new(facts: &FileFacts) -> Self {
        Self { source: Arc::new(source(facts)), stored: HashSet::new(), asked_from: u64::MAX }
    }

    /// Whether the line at `position` was stored before the restart; said once. Lines come in the order of their ends, so
    /// that one in parts may start before the first line that came.
    fn is_stored(&mut self, writer: &Writer, position: u64) -> Result<bool, StoreError> {
        if position < self.asked_from {
            let stored = writer.positions(&self.source.id, position)?;
            // What is above was asked for already, and holds what was stored since.
            self.stored.extend(stored.into_iter().filter(|&stored| stored < self.asked_from));
            self.asked_from = position;
        }
        Ok(self.stored.remove(&position))
    }
}

/// A file as the store's searches know it.
pub fn source(facts: &FileFacts) -> Source {
    let file = (Cow::Borrowed("file"), path_text(&facts.path));
    let labels = match &facts.origin {
        Origin::Plain | Origin::Journal | Origin::Kernel => vec![file],
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
        metrics::own::Own,
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
        let facts =
            Arc::new(FileFacts { id: FileId([1; 12]), path: "/var/log/a".into(), origin: Origin::Plain });
        let mut batch = Batch::numbered(number);
        for &start in positions {
            let (text, span) = (format!("line at {start}"), Span { start, end: start + 10 });
            let line =
                Line { time: 5, stream: Stream::None, text: text.as_bytes(), span, bytes: 10, lines: 1 };
            encode_record(&line, &mut batch.body);
            batch.push(FileKey(0), &facts, 1, 10, 0);
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
