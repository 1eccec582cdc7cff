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
    ship::Sink,
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

    /// One: there is one disk.
    fn window(&self) -> usize {
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
            let kept = tokio::task::spawn_blocking(move || lock(&shelf).keep(&lines, next)).await;
            match kept {
                Ok(Ok(())) => break,
                Ok(Err((reached, error))) => {
                    next = reached;
                    if self.state.hold(&error.to_string(), Instant::now()) {
                        tracing::warn!(%error, "log lines wait in their files: the local store does not take them");
                    }
                    tokio::time::sleep(backoff.next_wait()).await;
                }
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
        if self.state.ok() {
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
        self.writer.sync(SystemTime::now()).map_err(|error| (batch.len(), error))
    }

    fn append(&mut self, facts: &FileFacts, record: &Record<'_>) -> Result<(), StoreError> {
        if self.sources.len() >= SOURCES && !self.sources.contains_key(&facts.id) {
            self.sources.clear();
        }
        if !self.sources.contains_key(&facts.id) {
            let stored = self.writer.positions(&facts.id.0, record.position)?.into_iter().collect();
            let known = Known { source: Arc::new(source(facts)), stored };
            self.sources.insert(facts.id, known);
        }
        let Some(known) = self.sources.get_mut(&facts.id) else { return Ok(()) };
        if known.stored.remove(&record.position) {
            return Ok(());
        }
        match self.writer.append(&known.source, record.position, record.time, record.stream, record.text) {
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
        Origin::Plain => vec![file],
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
