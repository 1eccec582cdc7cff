//! Records that are no lines of a file: the journal's entries and the kernel's messages.
//!
//! A feed goes the way of a file with a number in the place of an offset: a record takes the span from its number to the
//! next, the identity comes from who gives the numbers (the journal's sequence, the kernel's boot), and both together make
//! the document's id. What was confirmed is kept by the same arithmetic in the same checkpoint.

use std::{
    collections::HashMap,
    os::fd::BorrowedFd,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use xxhash_rust::xxh3::xxh3_128;

use super::{
    ack::Acks,
    batch::{BatchFile, FileKey},
    canary::{self, Canary},
    checkpoint::{Known, Position},
    discover::Source,
    feed_fields::{Fields, Slot},
    file::held_for,
    journal::Journal,
    kernel::Kernel,
    output::{Output, Place, Taken},
    process::{Process, Processors},
    record::{FileFacts, FileId, Inode, Line, Origin, Span, Stream, path_text},
    shape::{Encoding, Shape},
    status::FileStatus,
    table::unix_seconds,
    turn::{Ended, PROBE, TURN},
};
use crate::metrics::{
    ledger::{Account, Amount},
    own::LogMetrics,
};

/// The first key of a feed; files count upwards from 0.
const FIRST_KEY: u32 = 1 << 31;
/// How often a source is looked at although nothing was heard of it.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The records of one turn, at most.
pub const TURN_RECORDS: usize = 4096;
/// The same of a feed whose records the sink holds, to see whether it takes them now.
const PROBE_RECORDS: usize = 64;

/// Who gives the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// journald, per sequence.
    Journal,
    /// The kernel, per boot.
    Kernel,
    /// The agent itself, per node.
    Canary,
}

impl Kind {
    /// The word in the table of files, before the path in the checkpoint, and for the feature.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Journal => "journal",
            Self::Kernel => "kernel",
            Self::Canary => "canary",
        }
    }

    fn origin(self) -> Origin {
        match self {
            Self::Journal => Origin::Journal,
            Self::Kernel => Origin::Kernel,
            Self::Canary => Origin::Canary,
        }
    }

    /// Positions of feeds are told from those of files by their path, which says so to people too.
    fn is_of(self, position: &Position) -> bool {
        position.inode == NOWHERE
            && position.path.to_str().is_some_and(|path| {
                path.strip_prefix(self.as_str()).is_some_and(|rest| rest.starts_with(':'))
            })
    }
}

/// A feed lies nowhere on a disk.
const NOWHERE: Inode = Inode { device: 0, number: 0, birth: 0 };

/// One record on its way out.
#[derive(Debug)]
pub struct Event<'a> {
    /// Its numbers: more than one when it was put together from parts.
    pub span: Span,
    /// When it was written, in nanoseconds since the epoch.
    pub time: i64,
    /// Its message and all else that is known of it.
    pub fields: &'a Fields,
    /// Bytes of the message that were left out because it is longer than allowed.
    pub cut: u64,
}

/// One sequence of numbered records.
#[derive(Debug)]
pub struct Feed {
    /// Its key in batches.
    pub key: FileKey,
    /// Every record below was taken.
    pub next: u64,
    /// The number after the last record that is known.
    pub end: u64,
    /// What went wrong last.
    pub error: Option<String>,
    kind: Kind,
    facts: Arc<FileFacts>,
    shape: Shape,
    account: Arc<Account>,
    acks: Acks,
    process: Option<Box<Process>>,
    /// Nothing is read before.
    paused: Option<Instant>,
    caught_up: Instant,
    /// The text and the fields of the record at hand.
    text: Vec<u8>,
    rendered: Vec<u8>,
}

impl Feed {
    /// Takes one record. When there is room, the next one is that after its span.
    pub fn take(&mut self, event: &Event<'_>, output: &mut Output, now: Instant) -> Taken {
        let message = event.fields.get(Slot::MESSAGE).unwrap_or_default();
        self.text.clear();
        self.rendered.clear();
        match self.shape.document() {
            Some((schema, node)) => {
                self.text.extend_from_slice(message);
                event.fields.render(schema, node, &mut self.rendered);
            }
            None => event.fields.as_line(&mut self.text),
        }
        // A record has at least the length that it takes in the sequence.
        let bytes = (message.len() as u64 + event.cut).max(event.span.end - event.span.start);
        let (time, span, text) = (event.time, event.span, self.text.as_slice());
        let line = Line { time, stream: Stream::None, text, span, bytes, lines: 1 };
        let place = Place {
            key: self.key,
            facts: &self.facts,
            shape: &mut self.shape,
            acks: &mut self.acks,
            process: &mut self.process,
        };
        let taken = output.take_record(place, &line, event.cut, &self.rendered, now);
        if taken == Taken::Yes {
            self.next = event.span.end;
            self.end = self.end.max(self.next);
        }
        taken
    }

    /// The `_id` of the record with this number.
    pub fn id_of(&self, number: u64) -> String {
        canary::id_of(self.facts.id.text(), number)
    }

    /// Records up to here are known to be there.
    pub fn reaches(&mut self, end: u64, now: Instant) {
        self.end = self.end.max(end);
        if self.confirmed_to() >= self.end {
            self.caught_up = now;
        }
    }

    /// Whether nothing is to be read for now: what the sink holds is tried a little at a time.
    pub fn is_paused(&mut self, now: Instant) -> bool {
        self.paused = self.paused.filter(|until| now < *until);
        self.waits()
    }

    /// The same as when it was asked last.
    pub fn waits(&self) -> bool {
        self.paused.is_some() || self.acks.is_held() && !self.acks.is_clear()
    }

    /// Whether a turn that took so much is over.
    pub fn is_turn_over(&self, records: usize, bytes: usize) -> bool {
        let (most_records, most_bytes) =
            if self.acks.is_held() { (PROBE_RECORDS, PROBE) } else { (TURN_RECORDS, TURN) };
        records >= most_records || bytes >= most_bytes
    }

    /// The sink holds records of it: reading begins again where nothing is confirmed, but not before a time.
    fn set_back(&mut self, now: Instant, longest: Duration) {
        self.next = self.confirmed_to();
        if let Some(process) = &mut self.process {
            process.set_back();
        }
        let times = self.acks.set_back([None; 2]);
        self.paused = Some(now + held_for(times, longest));
    }

    /// Every record below is confirmed.
    pub fn confirmed_to(&self) -> u64 {
        let held = self.process.as_ref().and_then(|process| process.held_from());
        self.acks.position(held.map_or(self.next, |held| held.min(self.next)))
    }

    /// Enters into the account what was read since this was done last.
    pub fn count_read(&mut self) {
        let is_held = self.process.as_ref().is_some_and(|process| process.held_from().is_some());
        self.acks.count_read(&self.account, is_held);
    }

    /// So many records were never there to be read.
    pub fn count_lost(&self, reason: &'static str, records: u64) {
        self.account.lock().lost(reason, Amount::of_lines(records));
    }

    pub(super) fn settled(&mut self, batch: u64, part: &BatchFile) {
        self.acks.settled(batch, part).enter(&self.account);
        self.acks.passed(self.confirmed_to());
    }

    fn position(&self, now: u64) -> Position {
        let path = format!("{}:{}", self.kind.as_str(), path_text(&self.facts.path));
        Position {
            content: None,
            id: self.facts.id,
            offset: self.confirmed_to(),
            generation: 0,
            inode: NOWHERE,
            path: path.into(),
            seen: now,
        }
    }

    /// Its row in the table of files; the numbers of records stand for offsets.
    fn status(&self, now: Instant) -> FileStatus {
        let offset = self.confirmed_to();
        let is_behind = offset < self.end;
        FileStatus {
            path: path_text(&self.facts.path),
            namespace: None,
            pod: None,
            container: None,
            format: self.kind.as_str(),
            offset,
            size: self.end,
            lag_bytes: 0,
            lag_seconds: is_behind.then(|| now.saturating_duration_since(self.caught_up).as_secs_f64()),
            state: if self.error.is_some() { "error" } else { "open" },
            last_error: self.error.clone(),
            notes: Vec::new(),
        }
    }
}

/// What feeds are made with.
#[derive(Debug)]
pub struct Register {
    /// Positions of feeds that were not met yet.
    known: HashMap<FileId, Position>,
    next_key: u32,
    /// What is done with records.
    processors: Arc<Processors>,
    /// Where things are counted.
    pub metrics: LogMetrics,
}

impl Register {
    /// One that knows of no position.
    #[cfg(test)]
    pub fn new(metrics: LogMetrics) -> Self {
        let processors = Processors::none(&metrics);
        Self { known: HashMap::new(), next_key: 0, processors, metrics }
    }

    /// A feed with its identity; whether its position was known, and reading goes on there. Else it begins at 0.
    pub fn feed(&mut self, kind: Kind, id: &[u8; 16], path: &Path, encoding: &Encoding) -> (Feed, bool) {
        let mut named = kind.as_str().as_bytes().to_vec();
        named.push(0);
        named.extend_from_slice(id);
        let digest = xxh3_128(&named).to_be_bytes();
        let mut id = FileId([0; 12]);
        id.0.copy_from_slice(&digest[..12]);
        let position = self.known.remove(&id);
        let next = position.as_ref().map_or(0, |position| position.offset);
        let facts = FileFacts::new(id, path.to_owned(), kind.origin());
        let account = self.metrics.ledger.account(facts.origin.owner());
        let key = FileKey(FIRST_KEY + self.next_key);
        self.next_key += 1;
        let feed = Feed {
            key,
            next,
            end: next,
            error: None,
            kind,
            shape: Shape::new(encoding, &facts),
            process: self.processors.of_file(&facts, encoding),
            facts: Arc::new(facts),
            account,
            acks: Acks::default(),
            paused: None,
            caught_up: Instant::now(),
            text: Vec::new(),
            rendered: Vec::new(),
        };
        (feed, position.is_some())
    }
}

/// One place that records come from.
enum Origins {
    Journal(Box<Journal>),
    Kernel(Box<Kernel>),
    Canary(Box<Canary>),
}

/// All feeds of the reader.
pub struct Feeds {
    sources: Vec<Origins>,
    register: Register,
    /// There may be more to read than was read.
    more: bool,
    look: Instant,
}

/// What sources are made with.
#[derive(Debug, Clone, Copy)]
pub struct FeedLimits {
    /// At most this much history is read of a source that was never read before, in bytes.
    pub first_run_bytes: u64,
    /// Longer messages are cut, in bytes.
    pub max_line: usize,
}

impl Feeds {
    /// The feeds among `sources`. Their positions are taken out of `known`.
    pub fn new(
        sources: &[(Source, Encoding)],
        known: &mut Known,
        limits: FeedLimits,
        metrics: LogMetrics,
    ) -> Self {
        let kinds = [Kind::Journal, Kind::Kernel, Kind::Canary];
        let is_feed = |position: &Position| kinds.iter().any(|kind| kind.is_of(position));
        let (ours, files) = known.positions.drain().partition(|(_, position)| is_feed(position));
        known.positions = files;
        let ours: HashMap<FileId, Position> = ours;
        // Who adds a source later does not want all of its past either.
        let is_first = |kind: Kind| !ours.values().any(|position| kind.is_of(position));
        let mut made = Vec::new();
        for (source, encoding) in sources {
            match source {
                Source::Journal { paths } => {
                    let history = is_first(Kind::Journal).then_some(limits.first_run_bytes);
                    let journal = Journal::new(paths.clone(), encoding.clone(), history, limits.max_line);
                    made.push(Origins::Journal(Box::new(journal)));
                }
                Source::Kernel { devices, boot_id } => {
                    let history = is_first(Kind::Kernel).then_some(limits.first_run_bytes);
                    let (devices, boot_id) = (devices.clone(), boot_id.clone());
                    let kernel = Kernel::new(devices, boot_id, encoding.clone(), history, limits.max_line);
                    made.push(Origins::Kernel(Box::new(kernel)));
                }
                Source::Canary(lookout) => {
                    let canary = Canary::new(lookout.clone(), encoding.clone());
                    made.push(Origins::Canary(Box::new(canary)));
                }
                Source::Kubernetes { .. } | Source::Files { .. } => {}
            }
        }
        let register = Register { known: ours, next_key: 0, processors: Processors::none(&metrics), metrics };
        Self { sources: made, register, more: false, look: Instant::now() }
    }

    /// The same with something done to records.
    pub fn processed_by(mut self, processors: Arc<Processors>) -> Self {
        self.register.processors = processors;
        self
    }

    /// Takes note of what became of the sources. Whether there are new ones, whose beginning has to be remembered.
    pub fn look(&mut self, now: Instant) -> bool {
        let feeds = self.register.next_key;
        let is_due = now >= self.look;
        if is_due {
            self.look = now + LOOK_EVERY;
        }
        for source in &mut self.sources {
            self.more |= match source {
                Origins::Journal(journal) => journal.look(&mut self.register, is_due, now),
                Origins::Kernel(kernel) => kernel.look(&mut self.register, is_due),
                Origins::Canary(canary) => canary.look(&mut self.register),
            };
        }
        self.register.next_key > feeds
    }

    /// Gives every source one turn; whether there was room for all of it.
    pub fn read(&mut self, output: &mut Output, now: Instant) -> bool {
        if !std::mem::take(&mut self.more) {
            return true;
        }
        for source in &mut self.sources {
            let ended = match source {
                Origins::Journal(journal) => journal.read(output, now),
                Origins::Kernel(kernel) => kernel.read(output, now),
                Origins::Canary(canary) => canary.read(output, now),
            };
            self.more |= ended != Ended::Done;
            if ended == Ended::NoRoom {
                return false;
            }
        }
        true
    }

    /// Whether reading on would bring something.
    pub fn has_more(&self) -> bool {
        self.more
    }

    /// When they want to be looked at again.
    pub fn due(&self) -> Option<Instant> {
        (!self.sources.is_empty()).then_some(self.look)
    }

    /// What to poll for readability. While nothing can be read, `blocked`, only what becomes quiet when it is looked at.
    pub fn fds(&self, blocked: bool) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sources.iter().filter_map(move |source| match source {
            Origins::Journal(journal) => journal.fd(),
            Origins::Kernel(kernel) => kernel.fd().filter(|_| !blocked),
            Origins::Canary(_) => None,
        })
    }

    /// Everything of this part of a batch is settled. Whether its feed is still there.
    pub fn settled(&mut self, batch: u64, part: &BatchFile) -> bool {
        let feed = self.feeds_mut().find(|feed| feed.key == part.key);
        feed.map(|feed| feed.settled(batch, part)).is_some()
    }

    /// The sink holds records of this part: its feed is read again from where nothing is confirmed, after a pause of at
    /// most `longest`.
    pub fn set_back(&mut self, part: &BatchFile, now: Instant, longest: Duration) {
        let key = part.key;
        let Some(feed) = self.feeds_mut().find(|feed| feed.key == key) else { return };
        if feed.acks.epoch() != part.epoch {
            return;
        }
        feed.set_back(now, longest);
        for source in &mut self.sources {
            match source {
                Origins::Journal(journal) => journal.set_back(key),
                Origins::Kernel(kernel) => kernel.set_back(key),
                // It sees that by itself.
                Origins::Canary(_) => {}
            }
        }
    }

    /// What the checkpoint has to remember.
    pub fn positions(&self) -> impl Iterator<Item = Position> {
        let now = unix_seconds();
        self.feeds().map(move |feed| feed.position(now)).chain(self.register.known.values().cloned())
    }

    /// Their rows in the table of files.
    pub fn status(&self, now: Instant) -> Vec<FileStatus> {
        let mut rows: Vec<FileStatus> = self.feeds().map(|feed| feed.status(now)).collect();
        for source in &self.sources {
            if let Origins::Journal(journal) = source {
                rows.extend(journal.aside().map(|(path, error)| aside_status(path, error)));
            }
        }
        rows
    }

    fn feeds(&self) -> impl Iterator<Item = &Feed> {
        self.sources.iter().flat_map(|source| match source {
            Origins::Journal(journal) => journal.feeds().collect::<Vec<_>>(),
            Origins::Kernel(kernel) => kernel.feed().into_iter().collect(),
            Origins::Canary(canary) => canary.feed().into_iter().collect(),
        })
    }

    fn feeds_mut(&mut self) -> impl Iterator<Item = &mut Feed> {
        self.sources.iter_mut().flat_map(|source| match source {
            Origins::Journal(journal) => journal.feeds_mut().collect::<Vec<_>>(),
            Origins::Kernel(kernel) => kernel.feed_mut().into_iter().collect(),
            Origins::Canary(canary) => canary.feed_mut().into_iter().collect(),
        })
    }
}

/// Whether a key is that of a feed.
pub fn is_feed(key: FileKey) -> bool {
    key.0 >= FIRST_KEY
}

/// A file of a journal that can't be read.
fn aside_status(path: &Path, error: &str) -> FileStatus {
    FileStatus {
        path: path_text(path),
        namespace: None,
        pod: None,
        container: None,
        format: Kind::Journal.as_str(),
        offset: 0,
        size: 0,
        lag_bytes: 0,
        lag_seconds: None,
        state: "error",
        last_error: Some(error.to_owned()),
        notes: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        logs::{
            batch::BatchLimits,
            index::IndexTemplate,
            shape::{BulkEncoding, Schema},
        },
        metrics::own::Own,
    };

    fn document(kind: Kind, schema: Schema, values: &[(Slot, &str)]) -> String {
        let own = Own::new(Registry::new()).expect("a registry");
        let encoding = Encoding::Bulk(BulkEncoding {
            index: IndexTemplate::default(),
            schema,
            position_ids: true,
            node: "n1".into(),
        });
        let mut register = Register::new(own.logs.clone());
        let (mut feed, is_known) = register.feed(kind, &[7; 16], Path::new("/var/log/journal/m"), &encoding);
        assert!(!is_known && is_feed(feed.key));
        let (batches, mut queue) = mpsc::channel(1);
        let limits = BatchLimits { max_bytes: 10_000, max_wait: Duration::ZERO, buffers: 1 };
        let mut output = Output::new(limits, batches, 100, own.logs);
        let mut fields = Fields::default();
        values.iter().for_each(|(slot, value)| fields.set(*slot, value.as_bytes()));
        let time = 1_475_713_029_669_794_202;
        let event = Event { span: Span { start: 65, end: 66 }, time, fields: &fields, cut: 0 };
        let now = Instant::now();
        assert_eq!(feed.take(&event, &mut output, now), Taken::Yes);
        assert_eq!((feed.next, feed.confirmed_to()), (66, 65));
        feed.count_read();
        output.close_aged(now, true);
        let batch = queue.try_recv().expect("a batch");
        feed.settled(batch.number, &batch.files[0]);
        assert_eq!(feed.confirmed_to(), 66);
        let text = String::from_utf8(batch.body).expect("UTF-8");
        let (action, document) = text.split_once('\n').expect("two lines");
        let action: serde_json::Value = serde_json::from_str(action).expect("JSON");
        let id = action["create"]["_id"].as_str().expect("an id");
        assert!(id.len() == 24 && id.ends_with("------00"), "{id}");
        let index = format!("logs-system.{}-default", kind.as_str());
        assert_eq!(action["create"]["_index"], index.as_str());
        document.trim_end().to_owned()
    }

    #[test]
    fn what_the_sink_holds_is_tried_a_little_at_a_time() {
        let own = Own::new(Registry::new()).expect("a registry");
        let mut register = Register::new(own.logs.clone());
        let (mut feed, _) = register.feed(Kind::Journal, &[7; 16], Path::new("/j"), &Encoding::Records);
        let (batches, mut queue) = mpsc::channel(1);
        let limits = BatchLimits { max_bytes: 10_000, max_wait: Duration::ZERO, buffers: 1 };
        let mut output = Output::new(limits, batches, 100, own.logs.clone());
        let (now, fields) = (Instant::now(), Fields::default());
        let event = Event { span: Span { start: 5, end: 6 }, time: 1, fields: &fields, cut: 0 };
        assert!(!feed.is_turn_over(PROBE_RECORDS, PROBE));
        assert_eq!(feed.take(&event, &mut output, now), Taken::Yes);
        feed.count_read();
        feed.set_back(now, Duration::from_secs(1));
        let later = now + Duration::from_secs(1);
        assert!(feed.is_paused(now) && !feed.is_paused(later));
        assert!(feed.is_turn_over(PROBE_RECORDS, 0) && feed.is_turn_over(0, PROBE));
        assert_eq!(feed.take(&event, &mut output, later), Taken::Yes);
        assert!(feed.is_paused(later) && feed.waits(), "the sink has not said what it thinks of it");
        output.close_aged(later, true);
        let batch = queue.try_recv().expect("a batch");
        let part = batch.files.iter().find(|part| part.epoch == 1).expect("the second try");
        feed.settled(batch.number, part);
        assert!(!feed.is_paused(later) && !feed.is_turn_over(PROBE_RECORDS, PROBE));
        let figures = own.logs.ledger.total();
        assert_eq!((figures.read.lines, figures.acked.lines), (1, 1));
    }

    #[test]
    fn an_entry_becomes_a_document_of_its_own_dataset() {
        let values = [
            (Slot::MESSAGE, "it \"works\""),
            (Slot::PRIORITY, "6"),
            (Slot::IDENTIFIER, "sshd"),
            (Slot::TRANSPORT, "syslog"),
        ];
        assert_eq!(
            document(Kind::Journal, Schema::Ecs, &values),
            concat!(
                r#"{"@timestamp":"2016-10-06T00:17:09.669794202Z","message":"it \"works\"","host":{"name":"n1"},"#,
                r#""log":{"level":"info","syslog":{"priority":6}},"syslog":{"identifier":"sshd","priority":6},"#,
                r#""systemd":{"transport":"syslog"},"#,
                r#""data_stream":{"type":"logs","dataset":"system.journal","namespace":"default"}}"#
            )
        );
        assert_eq!(
            document(Kind::Journal, Schema::Fluent, &values),
            concat!(
                r#"{"@timestamp":"2016-10-06T00:17:09.669794202Z","MESSAGE":"it \"works\"","PRIORITY":"6","#,
                r#""SYSLOG_IDENTIFIER":"sshd","TRANSPORT":"syslog"}"#
            )
        );
    }

    #[test]
    fn a_kernel_message_has_the_same_names() {
        let values =
            [(Slot::MESSAGE, "eth0: link up"), (Slot::PRIORITY, "4"), (Slot::DEVICE, "+pci:0000:00:1f.2")];
        assert_eq!(
            document(Kind::Kernel, Schema::Ecs, &values),
            concat!(
                r#"{"@timestamp":"2016-10-06T00:17:09.669794202Z","message":"eth0: link up","host":{"name":"n1"},"#,
                r#""journald":{"kernel":{"device":"+pci:0000:00:1f.2"}},"log":{"level":"warning","syslog":{"priority":4}},"#,
                r#""syslog":{"priority":4},"#,
                r#""data_stream":{"type":"logs","dataset":"system.kernel","namespace":"default"}}"#
            )
        );
    }
}
