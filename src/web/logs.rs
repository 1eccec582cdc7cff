//! Searching and following the local store over HTTP. The store's calls block on the disk, so they run on their own threads,
//! a few at a time, and end when nobody waits for them any more.

use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::{Response, StatusCode};
use serde::{Serialize, Serializer, ser::SerializeMap};
use tokio::{
    select,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use tracing::warn;

use super::{
    answer::{Body, body, events, sentence},
    query::Parameters,
};
use crate::{
    shutdown::Shutdown,
    store::{Cursor, Hit, Key, Query, Reader, Source, StoreError},
};

/// Searches at once; more wait.
const SEARCHES: usize = 2;
/// Live tails at once; more are refused.
const TAILS: usize = 8;
/// Lines of one page when nobody says, and at most.
const LINES: usize = 200;
const MAX_LINES: usize = 1000;
/// Bytes of text in one answer; the line that goes beyond is the last one.
const MAX_TEXT: usize = 4 << 20;
/// How long a search may take; what it found until then is answered.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a live tail looks for new lines.
const TAIL_STEP: Duration = Duration::from_millis(250);
/// A quiet live tail says something after so many steps, so that whoever is gone is noticed.
const QUIET_STEPS: u32 = 60;

/// Answers about the lines in the local store.
pub(super) struct LogSearch {
    reader: Reader,
    searches: Arc<Semaphore>,
    tails: Arc<Semaphore>,
    shutdown: Shutdown,
}

#[derive(Serialize)]
struct Page {
    lines: Vec<Line>,
    next: Option<String>,
}

#[derive(Serialize)]
struct Line {
    time: String,
    stream: Option<&'static str>,
    labels: Labels,
    text: String,
}

struct Labels(Arc<Source>);

impl LogSearch {
    pub(super) fn new(reader: Reader, shutdown: Shutdown) -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        Self { reader, searches: places(SEARCHES), tails: places(TAILS), shutdown }
    }

    /// One page of lines, newest first.
    pub(super) async fn search(&self, parameters: &Parameters) -> Response<Body> {
        let query = match query_of(parameters, now()) {
            Ok(query) => query,
            Err(text) => return sentence(StatusCode::BAD_REQUEST, text),
        };
        let Ok(place) = Arc::clone(&self.searches).acquire_owned().await else {
            return unavailable();
        };
        let nobody_waits = Arc::new(AtomicBool::new(false));
        let _told = TellOnDrop(Arc::clone(&nobody_waits));
        let reader = self.reader.clone();
        let search = spawn_blocking(move || {
            let _place: OwnedSemaphorePermit = place;
            find(&reader, &query, &nobody_waits)
        });
        match search.await {
            Ok(Ok(page)) => body(StatusCode::OK, "application/json", page),
            Ok(Err(error)) => {
                warn!(%error, "a search failed");
                sentence(StatusCode::INTERNAL_SERVER_ERROR, error)
            }
            Err(_) => unavailable(),
        }
    }

    /// Lines from now on, as they come.
    pub(super) fn tail(&self, parameters: &Parameters) -> Response<Body> {
        let query = match query_of(parameters, now()) {
            Ok(query) => Query { since: None, before: None, limit: MAX_LINES, ..query },
            Err(text) => return sentence(StatusCode::BAD_REQUEST, text),
        };
        let Ok(place) = Arc::clone(&self.tails).try_acquire_owned() else {
            return sentence(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many live tails are open, close one of them",
            );
        };
        let (pieces, receiver) = mpsc::channel(1);
        let (reader, shutdown) = (self.reader.clone(), self.shutdown.clone());
        let from = reader.end();
        tokio::spawn(async move {
            let _place = place;
            follow(reader, from, query, pieces, shutdown).await;
        });
        events(receiver)
    }
}

fn unavailable() -> Response<Body> {
    sentence(StatusCode::SERVICE_UNAVAILABLE, "the search was ended")
}

/// The query, or what is wrong with it.
fn query_of(parameters: &Parameters, now: f64) -> Result<Query, String> {
    let mut text = String::new();
    for label in ["namespace", "pod", "container"] {
        if let Some(value) = parameters.get(label) {
            if value.contains(|c: char| c.is_whitespace() || c == '"') {
                return Err(format!("a {label} has neither spaces nor quotes"));
            }
            text += &format!("{label}:{value} ");
        }
    }
    // Behind the labels, so that an open quote can't swallow them.
    text += parameters.get("query").unwrap_or_default();
    let mut query = Query::parse(&text).map_err(|error| error.to_string())?;
    if let Some(since) = parameters.get("since") {
        let seconds: f64 = since.parse().map_err(|_| "since has to be a number of seconds".to_owned())?;
        query.since = Some(((now - seconds) * 1e9) as i64);
    }
    let limit = parameters.get("limit").map_or(Ok(LINES), str::parse);
    query.limit = limit.map_err(|_| "limit has to be a number".to_owned())?.clamp(1, MAX_LINES);
    let before = parameters.get("before").map(str::parse::<Key>).transpose();
    query.before = before.map_err(|_| "before has to be what another answer gave as next".to_owned())?;
    Ok(query)
}

fn now() -> f64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}

/// Searches on this thread, and writes the answer.
fn find(reader: &Reader, query: &Query, nobody_waits: &AtomicBool) -> Result<Vec<u8>, StoreError> {
    let end = Instant::now() + PATIENCE;
    let is_stopped = || nobody_waits.load(Ordering::Relaxed) || Instant::now() >= end;
    let mut lines = Vec::new();
    let mut size = 0;
    let found = reader.search(query, &is_stopped, &mut |hit| {
        size += hit.text.len();
        lines.push(Line::of(hit));
        if size < MAX_TEXT { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    let next = found.next.map(|key| key.to_string());
    Ok(to_json(&Page { lines, next }))
}

/// Sends what is appended behind `from` until nobody listens or the agent stops.
async fn follow(
    reader: Reader,
    from: Cursor,
    query: Query,
    pieces: mpsc::Sender<Bytes>,
    mut shutdown: Shutdown,
) {
    let mut cursor = from;
    let mut quiet = 0;
    let mut steps = interval(TAIL_STEP);
    steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        select! {
            _ = steps.tick() => {}
            () = pieces.closed() => return,
            () = shutdown.requested() => return,
        }
        quiet += 1;
        let mut piece = Vec::new();
        if reader.end() != cursor {
            let (reader, query) = (reader.clone(), query.clone());
            match spawn_blocking(move || read_on(&reader, cursor, &query)).await {
                Ok(Ok(read)) => (cursor, piece) = read,
                Ok(Err(error)) => return warn!(%error, "a live tail ended"),
                Err(_) => return,
            }
        }
        if piece.is_empty() && quiet >= QUIET_STEPS {
            piece.extend_from_slice(b":\n\n");
        }
        if !piece.is_empty() {
            quiet = 0;
            let sent = select! {
                sent = pieces.send(piece.into()) => sent,
                () = shutdown.requested() => return,
            };
            if sent.is_err() {
                return;
            }
        }
    }
}

/// The next events, and where they end.
fn read_on(reader: &Reader, from: Cursor, query: &Query) -> Result<(Cursor, Vec<u8>), StoreError> {
    let mut events = Vec::new();
    let next = reader.since(from, query, &mut |hit| {
        events.extend_from_slice(b"data:");
        events.extend_from_slice(&to_json(&Line::of(hit)));
        events.extend_from_slice(b"\n\n");
        if events.len() < MAX_TEXT { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok((next, events))
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    // Only strings and maps of strings are written, which can't fail.
    serde_json::to_vec(value).unwrap_or_default()
}

impl Line {
    fn of(hit: Hit) -> Self {
        let stream = match hit.stream {
            1 => Some("stdout"),
            2 => Some("stderr"),
            _ => None,
        };
        let text = String::from_utf8(hit.text)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        Self { time: time_of(hit.key.time), stream, labels: Labels(hit.source), text }
    }
}

/// `2026-11-21T10:00:00.123456789Z`
fn time_of(nanoseconds: i64) -> String {
    // Every i64 of nanoseconds lies within jiff's years.
    let time = jiff::Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or_default();
    format!("{time:.9}")
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.labels.len()))?;
        for (name, value) in &self.0.labels {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// Tells a search that its client is gone: the future that waits for it was dropped.
struct TellOnDrop(Arc<AtomicBool>);

impl Drop for TellOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::store, *};

    fn source() -> Arc<Source> {
        Arc::new(Source { id: [1; 12], labels: Vec::new() })
    }

    fn everything() -> Query {
        query_of(&Parameters::default(), 0.0).expect("no parameters")
    }

    fn page(json: &[u8]) -> serde_json::Value {
        serde_json::from_slice(json).expect("JSON")
    }

    #[test]
    fn a_search_that_nobody_waits_for_ends_at_once() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (mut writer, store) = store(dir.path());
        writer.append(&source(), 0, 1, 0, b"a line").expect("appended");
        let found = |gone| find(&store.reader, &everything(), &AtomicBool::new(gone)).expect("searched");
        assert_eq!(page(&found(false))["lines"].as_array().map(Vec::len), Some(1));
        assert_eq!(page(&found(true))["lines"].as_array().map(Vec::len), Some(0));
    }

    #[test]
    fn a_page_of_long_lines_has_fewer_of_them() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (mut writer, store) = store(dir.path());
        for time in 0..7 {
            writer.append(&source(), time as u64, time, 0, &vec![b'x'; 1 << 20]).expect("appended");
        }
        let first = page(&find(&store.reader, &everything(), &AtomicBool::new(false)).expect("searched"));
        assert_eq!(first["lines"].as_array().map(Vec::len), Some(4));
        let before = first["next"].as_str().expect("there is more").parse().ok();
        let rest = Query { before, ..everything() };
        let rest = page(&find(&store.reader, &rest, &AtomicBool::new(false)).expect("searched"));
        assert_eq!(
            (rest["lines"].as_array().map(Vec::len), &rest["next"]),
            (Some(3), &serde_json::Value::Null)
        );
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (mut writer, store) = store(dir.path());
        writer.append(&source(), 0, -1, 2, b"a\xffb").expect("appended");
        let found = page(&find(&store.reader, &everything(), &AtomicBool::new(false)).expect("searched"));
        assert_eq!(found["lines"][0]["text"], "a\u{fffd}b");
        assert_eq!(found["lines"][0]["stream"], "stderr");
        assert_eq!(found["lines"][0]["time"], "1969-12-31T23:59:59.999999999Z");
    }

    #[test]
    fn since_counts_back_from_now() {
        let parameters = Parameters::parse(Some("since=60&limit=100000"));
        let query = query_of(&parameters, 100.0).expect("understood");
        assert_eq!((query.since, query.limit), (Some(40_000_000_000), MAX_LINES));
    }
}
