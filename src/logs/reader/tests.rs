//! The reader against real files, with a clock and a sink of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, OpenOptions},
    io::Write,
    path::Path,
};

use nodewarden_collectors::Samples;
use prometheus::Registry;
use proptest::prelude::*;

mod quiet;
mod scenarios;

use super::*;
use crate::{
    logs::{
        batch::records,
        mail::{Sender, mailbox},
        tail::Tail,
        turn::TURN,
    },
    metrics::{
        ledger::{Amount, Figures},
        own::Own,
    },
    testing::cases,
};

/// A reader over a pods tree, with a sink that keeps what it is given by identity and offset, as an index does.
struct Scene {
    logs: tempfile::TempDir,
    state: tempfile::TempDir,
    reader: Reader,
    mail: Sender,
    queue: mpsc::Receiver<Batch>,
    in_flight: Vec<Batch>,
    delivered: BTreeMap<([u8; 12], u64), Vec<u8>>,
    /// Lines that the sink was given, those that it had already included.
    offered: usize,
    now: Instant,
    written: BTreeSet<Vec<u8>>,
    rotations: u32,
    /// A line whose beginning was written: what its end is to be.
    begun: Option<String>,
    spill: spill::Limits,
    source: Source,
    /// Where the log files are.
    home: PathBuf,
    /// How lines are put together, and how many bytes of them may be held.
    joining: (Multiline, usize),
}

/// Bytes of lines and events that the reader may hold: each has to be given back at the end of its turn.
const PARTS: usize = 0;
/// As many as there may be.
const PLENTY: usize = 4000;

fn pods(logs: &Path) -> Source {
    Source::Kubernetes { path: logs.into(), exclude_namespaces: vec![] }
}

fn start(
    source: Source,
    (multiline, parts): (Multiline, usize),
    state: &Path,
    limits: spill::Limits,
    now: Instant,
) -> (Reader, Sender, mpsc::Receiver<Batch>) {
    let (mail, mailbox) = mailbox().expect("an eventfd");
    let (batches, queue) = mpsc::channel(3);
    let options = Options {
        process: Default::default(),
        sources: vec![(source, Encoding::Records)],
        first_run_bytes: u64::MAX,
        multiline: vec![multiline],
        max_line: 1000,
        batch: BatchLimits { max_bytes: 2500, max_wait: Duration::from_secs(1), buffers: 3 },
        state_dir: state.into(),
        memory: MemoryLimits { parts, archives: 1 },
        spill: limits,
        root: "/".into(),
        pods: None,
    };
    let own = Own::new(Registry::new()).expect("a registry");
    let mut reader = Reader::new(options, batches, mailbox, own.logs, Box::new(|| ()));
    // The scene has its own clock.
    reader.due = Due::all(now);
    (reader, mail, queue)
}

impl Scene {
    fn new() -> Self {
        Self::with((Multiline::Auto, PARTS))
    }

    fn with(joining: (Multiline, usize)) -> Self {
        let logs = tempfile::tempdir().expect("a directory");
        let home = logs.path().join("shop_cart-1_u-1/app");
        fs::create_dir_all(&home).expect("made");
        let source = pods(logs.path());
        Self::joining(logs, home, source, joining)
    }

    fn of(logs: tempfile::TempDir, home: PathBuf, source: Source) -> Self {
        Self::joining(logs, home, source, (Multiline::Auto, PARTS))
    }

    /// One whose lines are put together in this way, and held up to so many bytes.
    fn joining(logs: tempfile::TempDir, home: PathBuf, source: Source, joining: (Multiline, usize)) -> Self {
        let state = tempfile::tempdir().expect("a directory");
        let now = Instant::now();
        let spill = spill::Limits { max_bytes: 64 << 20, min_free: 0.0 };
        let (reader, mail, queue) = start(source.clone(), joining.clone(), state.path(), spill, now);
        let (in_flight, delivered, written) = Default::default();
        let (offered, rotations) = (0, 0);
        Self {
            logs,
            state,
            reader,
            mail,
            queue,
            in_flight,
            delivered,
            offered,
            now,
            written,
            rotations,
            begun: None,
            spill,
            source,
            home,
            joining,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    /// The rotated files, the oldest first.
    fn rotated(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.home).expect("listed").map(|entry| entry.expect("an entry").path());
        let mut rotated: Vec<PathBuf> =
            entries.filter(|path| path.to_string_lossy().contains(".log.")).collect();
        rotated.sort();
        rotated
    }

    /// As the kubelet and logrotate do: the copy is there under its name when the file goes.
    fn compress(&self, path: &Path) {
        let mut packed = path.to_owned().into_os_string();
        packed.push(".gz");
        let file = fs::File::create(packed).expect("made");
        let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        encoder.write_all(&fs::read(path).expect("read")).expect("packed");
        encoder.finish().expect("packed");
        fs::remove_file(path).expect("removed");
    }

    /// Long enough for every file that vanished to be in the spill.
    fn rest(&mut self) {
        for _ in 0..6 {
            self.step(Duration::from_secs(2));
        }
    }

    /// kill -9, and nobody reads until [`Self::start`].
    fn kill(&mut self) {
        self.in_flight.clear();
        self.queue.close();
    }

    fn lost(&self, reason: &str) -> u64 {
        self.figures().lost.of(reason).bytes
    }

    /// Of all containers together.
    fn figures(&self) -> Figures {
        self.reader.metrics.ledger.total()
    }

    fn append(&self, bytes: &[u8]) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.path("0.log")).expect("opened");
        file.write_all(bytes).expect("written");
    }

    /// One line in one piece or in two parts, with another stream's line between them.
    fn line(&mut self, in_parts: bool) {
        let number = self.written.len();
        // No two lines have the same time, as in what a runtime writes.
        let time = format!("2026-11-21T10:{:02}:{:02}.{number:09}Z", number / 60 % 60, number % 60);
        if in_parts && self.begun.is_none() {
            self.append(
                format!("{time} stdout P half-{number} \n{time} stderr F between-{number}\n").as_bytes(),
            );
            self.append(format!("{time} stdout F whole-{number}\n").as_bytes());
            self.written.insert(format!("between-{number}").into_bytes());
            self.written.insert(format!("half-{number} whole-{number}").into_bytes());
        } else {
            // A line that was begun is one of the other stream.
            let stream = if self.begun.is_some() { "stderr" } else { "stdout" };
            self.append(format!("{time} {stream} F line-{number}\n").as_bytes());
            self.written.insert(format!("line-{number}").into_bytes());
        }
    }

    /// The beginning of a line, or the end of the one that was begun.
    fn part(&mut self) {
        if self.begun.is_some() {
            return self.end_part();
        }
        let number = self.written.len();
        let time = format!("2026-11-21T11:00:00.{number:09}Z");
        self.append(format!("{time} stdout P begun-{number} \n").as_bytes());
        self.written.insert(format!("begun-{number} ended").into_bytes());
        self.begun = Some(format!("{time} stdout F ended\n"));
    }

    fn end_part(&mut self) {
        if let Some(end) = self.begun.take() {
            self.append(end.as_bytes());
        }
    }

    /// A line as it may stand in a stack trace.
    fn trace_line(&mut self, kind: u8, is_err: bool) {
        let number = self.written.len();
        let text = match kind {
            0 => format!("ERROR head-{number}"),
            1 => format!("java.lang.Error: error-{number}"),
            2 => format!("Caused by: java.lang.Error: cause-{number}"),
            _ => format!("\tat shop.Cart.add(Cart.java:{number})"),
        };
        // A line that was begun is one of the other stream.
        let stream = if is_err || self.begun.is_some() { "stderr" } else { "stdout" };
        self.append(format!("2026-11-21T11:00:00.{number:09}Z {stream} F {text}\n").as_bytes());
        self.written.insert(text.into_bytes());
    }

    /// The lines that the sink has.
    fn delivered_lines(&self) -> impl Iterator<Item = &[u8]> {
        self.delivered.values().flat_map(|text| text.split(|byte| *byte == b'\n'))
    }

    fn rotate(&mut self) {
        self.end_part();
        self.rotations += 1;
        let rotated = format!("0.log.20261121-{:06}", self.rotations);
        // Nothing was written yet, or nothing since the last rotation.
        let _ = fs::rename(self.path("0.log"), self.path(&rotated));
    }

    fn copytruncate(&mut self) {
        self.end_part();
        self.rotations += 1;
        let copy = format!("0.log.20261121-{:06}", self.rotations);
        // Nothing was written yet, or nothing since the last rotation.
        if fs::copy(self.path("0.log"), self.path(&copy)).is_ok() {
            fs::write(self.path("0.log"), "").expect("truncated");
        }
    }

    fn step(&mut self, by: Duration) {
        self.now += by;
        assert!(self.reader.step(self.now));
        while let Ok(batch) = self.queue.try_recv() {
            self.in_flight.push(batch);
        }
    }

    /// The sink takes every other line of a batch, or none, and holds the rest.
    fn hold(&mut self, at: usize, takes_some: bool) {
        if self.in_flight.is_empty() {
            return;
        }
        let mut batch = self.in_flight.remove(at % self.in_flight.len());
        for (number, (file, record)) in records(&batch).enumerate() {
            if takes_some && number % 2 == 0 {
                let key = (batch.files[file].facts.id.0, record.position);
                let known = self.delivered.insert(key, record.text.to_vec());
                assert!(known.is_none_or(|known| known == record.text), "one id stands for one line");
            }
        }
        batch.files.iter_mut().for_each(|file| file.held = true);
        self.mail.send(Mail::Confirmed(batch));
    }

    /// Nothing is counted twice.
    fn assert_books_balance(&self) {
        let figures = self.figures();
        let waiting = self.reader.table.files().fold(Amount::default(), |mut sum, file| {
            sum.add(file.acks.waiting());
            sum
        });
        assert_eq!(figures.in_flight, waiting, "{figures:?}");
        let mut sum = figures.acked;
        [waiting, figures.dead.total(), figures.dropped.total(), figures.lost.total()]
            .into_iter()
            .for_each(|one| sum.add(one));
        assert_eq!(figures.read, sum, "{figures:?}");
    }

    /// The sink accepts a batch; `heard` is whether the agent lives to hear it.
    fn deliver(&mut self, at: usize, heard: bool) {
        if self.in_flight.is_empty() {
            return;
        }
        let batch = self.in_flight.remove(at % self.in_flight.len());
        for (file, record) in records(&batch) {
            self.offered += 1;
            let key = (batch.files[file].facts.id.0, record.position);
            let text = record.text.to_vec();
            if let Some(known) = self.delivered.insert(key, text.clone()) {
                assert_eq!(known, text, "one id stands for one line");
            }
        }
        if heard {
            self.mail.send(Mail::Confirmed(batch));
        } else {
            self.crash();
        }
    }

    /// kill -9: what is in flight is forgotten, only what the checkpoint says remains.
    fn crash(&mut self) {
        self.in_flight.clear();
        (self.reader, self.mail, self.queue) =
            start(self.source.clone(), self.joining.clone(), self.state.path(), self.spill, self.now);
    }

    fn settle(&mut self) {
        self.end_part();
        // Once all is there, a few steps more show whether anything comes twice.
        let mut more = 5;
        for _ in 0..300 {
            self.step(Duration::from_secs(3));
            self.deliver(0, true);
            more -= i32::from(self.delivered_lines().count() >= self.written.len());
            if more == 0 {
                break;
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Action {
    Line { in_parts: bool },
    Lines(usize),
    Part,
    Trace { kinds: Vec<u8>, is_err: bool },
    Rotate,
    CopyTruncate,
    Compress,
    DeleteOldest,
    Step(u64),
    Deliver { at: usize, heard: bool },
    Hold { at: usize, takes_some: bool },
    Crash,
}

fn joining() -> impl Strategy<Value = (Multiline, usize)> {
    let rule = prop_oneof![
        3 => Just(Multiline::Auto),
        1 => Just(Multiline::starting("head|line").expect("a pattern")),
        1 => Just(Multiline::continued_by("at shop|cause").expect("a pattern")),
    ];
    (rule, prop::sample::select(vec![PARTS, PLENTY]))
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => any::<bool>().prop_map(|in_parts| Action::Line { in_parts }),
        2 => (1_usize..80).prop_map(Action::Lines),
        3 => Just(Action::Part),
        4 => (proptest::collection::vec(0_u8..8, 1..12), any::<bool>())
            .prop_map(|(kinds, is_err)| Action::Trace { kinds, is_err }),
        2 => Just(Action::Rotate),
        1 => Just(Action::CopyTruncate),
        1 => Just(Action::Compress),
        1 => Just(Action::DeleteOldest),
        6 => (1_u64..4000).prop_map(Action::Step),
        4 => (0_usize..4, proptest::bool::weighted(0.8)).prop_map(|(at, heard)| Action::Deliver { at, heard }),
        2 => (0_usize..4, any::<bool>()).prop_map(|(at, takes_some)| Action::Hold { at, takes_some }),
        1 => Just(Action::Crash),
    ]
}

proptest! {
    #![proptest_config(cases(60))]

    /// Whatever happens in whatever order, every line that was written is in the sink once, under one id.
    #[test]
    fn every_line_is_delivered_once(
        actions in proptest::collection::vec(action(), 1..60),
        joining in joining(),
    ) {
        let mut scene = Scene::with(joining);
        // What was compressed before the very first run is history.
        scene.step(Duration::ZERO);
        for action in actions {
            match action {
                Action::Line { in_parts } => scene.line(in_parts),
                Action::Lines(count) => (0..count).for_each(|_| scene.line(false)),
                Action::Part => scene.part(),
                Action::Trace { kinds, is_err } => {
                    kinds.into_iter().for_each(|kind| scene.trace_line(kind, is_err));
                }
                Action::Rotate => scene.rotate(),
                Action::CopyTruncate => scene.copytruncate(),
                Action::Compress => {
                    let rotated = scene.rotated();
                    let plain = rotated.iter().find(|path| path.extension().is_some_and(|name| name != "gz"));
                    plain.into_iter().for_each(|path| scene.compress(path));
                }
                Action::DeleteOldest => {
                    // Nobody can read what was never seen, or went while nobody looked.
                    scene.rest();
                    scene.rotated().first().into_iter().for_each(|path| fs::remove_file(path).expect("removed"));
                    scene.rest();
                }
                Action::Step(millis) => scene.step(Duration::from_millis(millis)),
                Action::Deliver { at, heard } => scene.deliver(at, heard),
                Action::Hold { at, takes_some } => scene.hold(at, takes_some),
                Action::Crash => scene.crash(),
            }
            scene.assert_books_balance();
        }
        scene.settle();
        scene.assert_books_balance();
        let delivered: Vec<&[u8]> = scene.delivered_lines().collect();
        let distinct: BTreeSet<&[u8]> = scene.delivered_lines().collect();
        prop_assert_eq!(delivered.len(), distinct.len(), "nothing twice");
        prop_assert_eq!(distinct, scene.written.iter().map(Vec::as_slice).collect(), "nothing lost");
    }
}

#[test]
fn a_line_longer_than_allowed_is_cut_once_and_the_next_one_is_whole() {
    let mut scene = Scene::new();
    let time = "2026-11-21T10:00:00.000000001Z";
    scene.append(format!("{time} stdout F {}\n{time} stdout F next\n", "x".repeat(TURN * 2)).as_bytes());
    scene.settle();
    let texts: Vec<_> = scene.delivered.values().collect();
    assert_eq!(texts.len(), 2);
    assert!(texts[0].starts_with(b"xxx") && texts[0].ends_with(b"[cut by nodewarden]"));
    assert!(texts[0].len() < 1100);
    assert_eq!(texts[1], b"next");
}

#[test]
fn the_last_words_of_a_rotated_file_are_delivered_without_a_newline() {
    let mut scene = Scene::new();
    scene.append(
        b"2026-11-21T10:00:00.000000001Z stdout F whole\n2026-11-21T10:00:00.000000002Z stdout F last words",
    );
    scene.settle();
    assert_eq!(scene.delivered.len(), 1);
    scene.rotate();
    scene.settle();
    assert_eq!(scene.delivered.values().last().map(Vec::as_slice), Some(&b"last words"[..]));
}

#[test]
fn what_the_sink_holds_keeps_no_buffer_and_is_counted_once() {
    let mut scene = Scene::new();
    (0..500).for_each(|_| scene.line(false));
    let mut tries = 0;
    for _ in 0..600 {
        scene.step(Duration::from_secs(1));
        tries += scene.in_flight.len();
        while !scene.in_flight.is_empty() {
            scene.hold(0, tries % 2 == 0);
        }
    }
    // A pause of half a minute, a second for the batch.
    assert!((20..100).contains(&tries), "{tries}");
    assert!(!scene.reader.blocked || scene.queue.is_empty());
    scene.assert_books_balance();
    for _ in 0..40 {
        scene.step(Duration::from_secs(1));
        scene.deliver(0, true);
    }
    scene.settle();
    assert_eq!(scene.delivered.len(), 500);
    let Figures { read, acked, in_flight, .. } = scene.figures();
    assert_eq!((read.lines, acked, in_flight.lines), (500, read, 0));
    assert_eq!(read.bytes, fs::metadata(scene.path("0.log")).expect("a file").len());
}

#[test]
fn a_full_queue_stops_the_reading() {
    let mut scene = Scene::new();
    (0..500).for_each(|_| scene.line(false));
    for _ in 0..20 {
        scene.step(Duration::from_secs(1));
    }
    assert_eq!(scene.in_flight.len(), 3);
    scene.settle();
    assert_eq!(scene.delivered.len(), 500);
}

#[test]
fn a_tree_that_can_not_be_listed_for_a_while_is_not_read_again() {
    let mut scene = Scene::new();
    scene.line(false);
    scene.rotate();
    scene.line(false);
    scene.settle();
    let (pods, away) = (scene.logs.path().join("shop_cart-1_u-1"), scene.state.path().join("away"));
    fs::rename(&pods, &away).expect("moved");
    let container = away.join("app");
    for name in ["0.log", "0.log.20261121-000001"] {
        assert!(container.join(name).exists());
    }
    // Instead of a directory without permission, which does not stop root.
    std::os::unix::fs::symlink(&pods, &pods).expect("a link to itself");
    scene.settle();
    fs::remove_file(&pods).expect("removed");
    fs::rename(&away, &pods).expect("moved back");
    scene.settle();
    scene.line(false);
    scene.settle();
    assert_eq!((scene.delivered.len(), scene.offered), (3, 3));
}

#[test]
fn a_file_that_was_truncated_and_grew_beyond_its_old_size_is_read_from_its_start() {
    let mut scene = Scene::new();
    scene.line(false);
    scene.settle();
    fs::write(scene.path("0.log"), "").expect("truncated");
    (0..5).for_each(|_| scene.line(false));
    scene.settle();
    assert_eq!(scene.delivered.len(), 6);
}

#[test]
fn what_is_found_is_remembered_before_anything_is_confirmed() {
    let mut scene = Scene::new();
    scene.line(false);
    scene.step(Duration::ZERO);
    let known = Checkpoint::new(scene.state.path()).load();
    assert_eq!((known.first_run, known.positions.len()), (false, 1));
}

#[test]
fn what_is_confirmed_first_is_remembered_at_once() {
    let mut scene = Scene::new();
    for round in 1..=4 {
        (0..100).for_each(|_| scene.line(false));
        scene.step(Duration::ZERO);
        scene.deliver(0, true);
        scene.step(Duration::from_millis(1));
        assert!(scene.offered > 20 * round);
        scene.crash();
    }
    scene.settle();
    assert_eq!((scene.offered, scene.delivered.len()), (scene.written.len(), scene.written.len()));
}

/// It is the one that is deleted next, and an agent that is killed again and again may not get far.
#[test]
fn the_oldest_rotated_file_is_read_first() {
    let mut scene = Scene::new();
    for _ in 0..6 {
        (0..100).for_each(|_| scene.line(false));
        scene.rotate();
    }
    for _ in 0..4 {
        // A file at a time.
        (0..3).for_each(|_| scene.step(Duration::ZERO));
        scene.deliver(0, true);
        scene.step(Duration::from_millis(1));
        scene.crash();
        let count = scene.delivered.len();
        let oldest: BTreeSet<Vec<u8>> =
            (0..count).map(|number| format!("line-{number}").into_bytes()).collect();
        assert!(scene.delivered.values().all(|text| oldest.contains(text)), "{count} lines");
    }
    assert!(scene.delivered.len() > 150, "{} lines", scene.delivered.len());
    scene.settle();
    assert_eq!((scene.offered, scene.delivered.len()), (600, 600));
}

#[test]
fn positions_that_could_not_be_written_are_written_later_though_nothing_moves() {
    let mut scene = Scene::new();
    // A directory in the place of the new file: it can't be written.
    let obstacle = scene.state.path().join("positions.new");
    fs::create_dir(&obstacle).expect("made");
    scene.line(false);
    scene.settle();
    fs::remove_dir(&obstacle).expect("removed");
    scene.step(Duration::from_secs(3));
    let known = Checkpoint::new(scene.state.path()).load();
    assert!(known.positions.into_values().all(|position| position.offset > 0));
    assert!(!scene.reader.checkpoint_failed && !scene.reader.moved);
}

#[test]
fn an_endless_line_ends_with_its_file() {
    let mut scene = Scene::new();
    scene.append("x".repeat(TURN * 2).as_bytes());
    scene.settle();
    assert_eq!(scene.delivered.len(), 1);
    scene.rotate();
    scene.settle();
    assert_eq!(scene.offered, 1);
    assert!(scene.reader.table.files().all(|file| file.tail.is_none()), "it is read to its end");
}

#[test]
fn a_docker_line_longer_than_allowed_keeps_its_stream() {
    let mut scene = Scene::new();
    let docker = |text: &str| {
        format!("{{\"log\":\"{text}\\n\",\"stream\":\"stderr\",\"time\":\"2026-11-21T10:00:00.1Z\"}}\n")
    };
    let long = docker(&"x".repeat(5000));
    // Its end comes later than its beginning.
    scene.append(&long.as_bytes()[..4000]);
    scene.append(b"");
    scene.step(Duration::from_secs(1));
    scene.append(&long.as_bytes()[4000..]);
    scene.settle();
    let text = scene.delivered.values().next().expect("a line");
    assert!(text.starts_with(b"xxx") && text.ends_with(b"xxx [cut by nodewarden]"));
}

#[test]
fn lines_that_are_not_utf8_are_counted() {
    let mut scene = Scene::new();
    scene.append(b"2026-11-21T10:00:00.000000001Z stdout F caf\xe9\n2026-11-21T10:00:00.000000002Z stdout F caf\xc3\xa9\n");
    scene.settle();
    assert_eq!(scene.reader.metrics.invalid_utf8_lines.get(), 1);
    assert_eq!(scene.delivered.len(), 2);
}

#[test]
fn the_lag_of_a_namespace_without_files_is_gone() {
    let mut scene = Scene::new();
    scene.line(false);
    scene.settle();
    let lags = |scene: &Scene| {
        let mut samples = Samples::new();
        scene.reader.metrics.lags.say(&mut samples);
        let labels = samples.iter().map(|(_, labels, _)| labels.collect::<Vec<_>>().join(" "));
        labels.collect::<Vec<_>>()
    };
    assert_eq!(lags(&scene), ["shop"; 2]);
    scene.reader.metrics.ledger.show_containers(true);
    scene.line(false);
    scene.settle();
    assert_eq!(lags(&scene), ["app shop cart-1"; 2]);
    fs::remove_dir_all(scene.logs.path().join("shop_cart-1_u-1")).expect("removed");
    scene.settle();
    assert!(lags(&scene).is_empty());
    assert_eq!(scene.reader.table.len(), 0);
}

#[test]
fn a_reader_that_was_stopped_sleeps_though_names_change() {
    let mut scene = Scene::new();
    scene.step(Duration::ZERO);
    scene.mail.send(Mail::Stop);
    scene.step(Duration::ZERO);
    fs::write(scene.path("1.log"), "").expect("written");
    let mail = scene.mail.clone();
    let waker = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        mail.send(Mail::Finish);
    });
    scene.reader.sleep(Instant::now());
    assert!(!scene.reader.take_mail(scene.now), "it was the mail that woke it");
    waker.join().expect("sent");
}

/// While it had no room, its memory was given back, too.
#[test]
fn an_event_that_is_over_at_the_end_of_its_file_leaves_when_there_is_room() {
    let mut scene = Scene::with((Multiline::starting("line").expect("a pattern"), 0));
    (0..61).for_each(|_| scene.line(false));
    scene.rest();
    scene.line(false);
    // Two batches take two of the three buffers again.
    scene.hold(0, false);
    scene.settle();
    assert_eq!(scene.delivered_lines().count(), 62);
}
