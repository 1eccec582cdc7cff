//! The store as a whole: real files in a directory of its own, crashes made by changing them.

use std::{
    collections::BTreeMap,
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use proptest::prelude::*;

use super::{Cursor, Found, Hit, Key, Limits, Query, Reader, Recovered, Source, StoreError, Writer};

/// A block of a store this small has 64 KiB, a segment 256 KiB.
const SMALL: Limits = Limits { max_bytes: 1 << 20, max_age: Duration::from_secs(1600), min_free: 0.0 };

type Line = (u8, u64, i64, u8, Vec<u8>);

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
}

fn open(dir: &Path, limits: Limits) -> (Writer, Recovered) {
    Writer::open(dir, limits, at(0)).expect("the store opens")
}

fn source(number: u8) -> Arc<Source> {
    let labels = vec![("namespace".into(), "shop".into()), ("pod".into(), format!("web-{number}"))];
    Arc::new(Source { id: [number; 12], labels })
}

fn append(writer: &mut Writer, (from, position, time, stream, text): &Line) {
    writer.append(&source(*from), *position, *time, *stream, text).expect("taken");
}

fn line(number: u64, text: impl Into<Vec<u8>>) -> Line {
    (0, number, number as i64, 1, text.into())
}

fn to_line(hit: Hit) -> Line {
    (hit.source.id[0], hit.position, hit.key.time, hit.stream, hit.text)
}

fn query(text: &str) -> Query {
    Query { limit: usize::MAX, ..Query::parse(text).expect("it compiles") }
}

/// Everything, in the order of appending.
fn all(reader: &Reader) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut sink = |hit| {
        lines.push(to_line(hit));
        ControlFlow::Continue(())
    };
    reader.since(Cursor::default(), &query(""), &mut sink).expect("readable");
    lines
}

fn search(reader: &Reader, query: &Query) -> (Vec<Line>, Found) {
    let mut lines = Vec::new();
    let mut sink = |hit| {
        lines.push(to_line(hit));
        ControlFlow::Continue(())
    };
    let found = reader.search(query, &|| false, &mut sink).expect("readable");
    (lines, found)
}

fn positions(lines: &[Line]) -> Vec<u64> {
    lines.iter().map(|line| line.1).collect()
}

/// Bytes that do not compress, different for each seed.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| step()).collect()
}

/// The files of a directory.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(dir).expect("listed").map(|entry| entry.expect("listed").path());
    entries.map(|path| (path.clone(), fs::read(path).expect("read"))).collect()
}

fn put_files(dir: &Path, files: &BTreeMap<PathBuf, Vec<u8>>) {
    for path in self::files(dir).keys() {
        fs::remove_file(path).expect("removed");
    }
    for (path, bytes) in files {
        fs::write(dir.join(path.file_name().expect("a name")), bytes).expect("written");
    }
}

fn dir_bytes(dir: &Path) -> u64 {
    files(dir).values().map(|bytes| bytes.len() as u64).sum()
}

/// Several segments, several blocks in the newest, and a head with three entries.
fn mixed_store(dir: &Path) -> Vec<Line> {
    let (mut writer, _) = open(dir, SMALL);
    let mut lines = Vec::new();
    for number in 0..40 {
        let text = [format!("line {number} ").into_bytes(), noise(number, 20_000)].concat();
        lines.push((number as u8 % 3, number * 100, number as i64, 1, text));
        append(&mut writer, lines.last().expect("just pushed"));
        if number % 7 == 0 || number >= 37 {
            writer.sync(at(0)).expect("synced");
        }
    }
    writer.sync(at(0)).expect("synced");
    assert!(writer.stats().segments > 2, "{:?}", writer.stats());
    lines
}

#[test]
fn synced_records_are_there_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let lines = mixed_store(dir.path());
    let (writer, recovered) = open(dir.path(), SMALL);
    assert_eq!(recovered.messages, [""; 0]);
    assert_eq!(all(&writer.reader()), lines);
    assert_eq!(writer.stats().records, 40);
}

#[test]
fn a_quiet_node_makes_no_tiny_blocks() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut writer, _) = open(dir.path(), SMALL);
    for number in 0..90 {
        append(&mut writer, &line(number, format!("still alive {number}")));
        writer.sync(at(number)).expect("synced");
    }
    assert_eq!((writer.stats().segments, writer.stats().records), (0, 90));
    assert!(writer.stats().bytes < 90 * 60, "{}", writer.stats().bytes);
    drop(writer);
    assert_eq!(open(dir.path(), SMALL).1.from_head, 90);
}

#[test]
fn a_second_writer_is_turned_away() {
    let dir = tempfile::tempdir().expect("a directory");
    let (writer, _) = open(dir.path(), SMALL);
    assert!(matches!(Writer::open(dir.path(), SMALL, at(0)), Err(StoreError::InUse { .. })));
    drop(writer);
    open(dir.path(), SMALL);
}

#[test]
fn a_record_that_does_not_fit_is_refused_and_the_next_one_taken() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut writer, _) = open(dir.path(), SMALL);
    let refused = writer.append(&source(0), 0, 0, 0, &vec![b'x'; (256 << 10) + 1]);
    assert!(matches!(refused, Err(StoreError::TooLong { max: 0x4_0000, .. })), "{refused:?}");
    let huge = Arc::new(Source { id: [0; 12], labels: vec![("file".into(), "x".repeat(20_000))] });
    assert!(matches!(writer.append(&huge, 0, 0, 0, b"x"), Err(StoreError::TooLong { what: "labels", .. })));
    append(&mut writer, &line(1, vec![b'x'; 256 << 10]));
    append(&mut writer, &line(2, "short"));
    writer.sync(at(0)).expect("synced");
    assert_eq!(positions(&all(&writer.reader())), [1, 2]);
}

// Crashes and damage.

#[test]
fn a_store_cut_at_any_byte_opens_with_what_is_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    let limits = Limits { max_bytes: 64 << 10, ..SMALL };
    let mut lines = Vec::new();
    let (mut writer, _) = open(dir.path(), limits);
    for number in 0..60 {
        lines.push(line(number, format!("a line of a small store {number} {}", "x".repeat(200))));
        append(&mut writer, &lines[number as usize]);
        if number % 4 == 0 {
            writer.sync(at(0)).expect("synced");
        }
    }
    writer.sync(at(0)).expect("synced");
    drop(writer);
    let whole = files(dir.path());
    assert_eq!(whole.len(), 2, "a segment and a head");
    for (path, bytes) in &whole {
        for len in 0..bytes.len() {
            put_files(dir.path(), &whole);
            fs::write(path, &bytes[..len]).expect("written");
            let read = all(&open(dir.path(), limits).0.reader());
            let is_head = path.ends_with("head");
            // Without its end a segment lacks blocks that the head does not have.
            let kept = read.iter().all(|line| lines.contains(line)) && read.is_sorted_by_key(|line| line.1);
            assert!(kept && (!is_head || lines.starts_with(&read)), "{} cut at {len}", path.display());
        }
    }
}

#[test]
fn a_block_that_the_head_still_holds_is_not_doubled() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut writer, _) = open(dir.path(), SMALL);
    append(&mut writer, &line(1, noise(1, 90_000)));
    writer.sync(at(0)).expect("synced");
    let head = fs::read(dir.path().join("head")).expect("read");
    append(&mut writer, &line(2, noise(2, 90_000)));
    writer.sync(at(0)).expect("synced");
    drop(writer);
    fs::write(dir.path().join("head"), head).expect("written");
    let (writer, recovered) = open(dir.path(), SMALL);
    assert_eq!(recovered, Recovered::default());
    assert_eq!(positions(&all(&writer.reader())), [1]);
}

#[test]
fn a_damaged_block_is_skipped_and_counted() {
    let dir = tempfile::tempdir().expect("a directory");
    let lines = mixed_store(dir.path());
    for name in ["0000000000.seg", "0000000002.seg"] {
        let path = dir.path().join(name);
        let mut bytes = fs::read(&path).expect("read");
        bytes[50_000] ^= 1;
        fs::write(&path, bytes).expect("written");
    }
    let (writer, recovered) = open(dir.path(), SMALL);
    let (read, found) = search(&writer.reader(), &query(""));
    // The footer of the first segment vouches for its blocks, so the damage shows when the block is read.
    assert!(found.damaged == 2 || recovered.messages.len() == 1, "{found:?} {recovered:?}");
    assert!(read.len() >= lines.len() - 12 && read.len() < lines.len(), "{}", read.len());
    assert!(read.iter().all(|line| lines.contains(line)));
}

#[test]
fn a_torn_tail_is_cut_and_said() {
    let dir = tempfile::tempdir().expect("a directory");
    let lines = mixed_store(dir.path());
    let newest = files(dir.path()).into_keys().rfind(|path| path.extension().is_some()).expect("a segment");
    let mut bytes = fs::read(&newest).expect("read");
    let len = bytes.len() as u64;
    bytes.extend_from_slice(&noise(9, 5000));
    fs::write(&newest, bytes).expect("written");
    let (writer, recovered) = open(dir.path(), SMALL);
    assert!(recovered.messages[0].contains("its tail of 5000 bytes was cut off"), "{recovered:?}");
    assert_eq!(fs::metadata(&newest).expect("there").len(), len);
    assert_eq!(all(&writer.reader()), lines);
}

#[test]
fn a_segment_without_its_footer_is_scanned() {
    let dir = tempfile::tempdir().expect("a directory");
    let lines = mixed_store(dir.path());
    let before = open(dir.path(), SMALL).0.stats();
    let path = dir.path().join("0000000000.seg");
    let bytes = fs::read(&path).expect("read");
    fs::write(&path, &bytes[..bytes.len() - 1]).expect("written");
    let (writer, recovered) = open(dir.path(), SMALL);
    assert!(recovered.messages[0].contains("is not read"), "{recovered:?}");
    assert_eq!(all(&writer.reader()), lines);
    assert_eq!((writer.stats().blocks, writer.stats().records), (before.blocks, before.records));
    assert_eq!(writer.positions(&[1; 12], 0).expect("read").len(), 13);
}

#[test]
fn what_a_later_release_wrote_is_stepped_over_and_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("0000000000.seg");
    let mut frame = b"NWst\x02\x07\0\0".to_vec();
    frame.extend_from_slice(&64_u32.to_le_bytes());
    frame.extend_from_slice(&7_u64.to_le_bytes());
    frame.extend_from_slice(&crc32fast::hash(&frame).to_le_bytes());
    frame.resize(64, 0xab);
    fs::write(&path, &frame).expect("written");
    let (mut writer, recovered) = open(dir.path(), SMALL);
    assert!(recovered.messages[0].contains("a later release"), "{recovered:?}");
    append(&mut writer, &line(1, noise(1, 200_000)));
    append(&mut writer, &line(2, noise(2, 200_000)));
    writer.sync(at(0)).expect("synced");
    assert_eq!(fs::read(&path).expect("read"), frame);
    assert_eq!(positions(&all(&writer.reader())), [1, 2]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn changed_bytes_never_change_a_record(flips in prop::collection::vec((any::<u32>(), 0_u8..8), 1..6)) {
        let dir = tempfile::tempdir().expect("a directory");
        let lines = mixed_store(dir.path());
        let paths: Vec<PathBuf> = files(dir.path()).into_keys().collect();
        for (place, bit) in flips {
            let path = &paths[place as usize % paths.len()];
            let mut bytes = fs::read(path).expect("read");
            let at = (place / 7) as usize % bytes.len();
            bytes[at] ^= 1 << bit;
            fs::write(path, bytes).expect("written");
        }
        let (mut writer, _) = open(dir.path(), SMALL);
        let read = all(&writer.reader());
        prop_assert!(read.is_sorted_by_key(|line| line.1));
        prop_assert!(read.iter().all(|line| lines.contains(line)));
        append(&mut writer, &line(9999, "goes on"));
        writer.sync(at(0)).expect("synced");
        drop(writer);
        let (writer, _) = open(dir.path(), SMALL);
        prop_assert_eq!(positions(&all(&writer.reader())).last().copied(), Some(9999));
    }
}

#[derive(Debug, Clone)]
enum Action {
    Append(usize),
    Sync,
    Reopen,
    /// The power fails: of what came after the last sync, so much of the newest segment is on the disk, with so much of
    /// that wrong.
    Crash {
        kept: f64,
        wrong: f64,
    },
    /// The power fails while the head is being appended to.
    CrashInHead {
        kept: f64,
    },
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![
        8 => (1_usize..40_000).prop_map(Action::Append),
        3 => Just(Action::Sync),
        1 => Just(Action::Reopen),
        2 => (0.0..=1.0, 0.0..=1.0).prop_map(|(kept, wrong)| Action::Crash { kept, wrong }),
        1 => (0.0..=1.0).prop_map(|kept| Action::CrashInHead { kept }),
    ];
    prop::collection::vec(action, 1..40)
}

/// The store beside what it has to hold.
struct Model {
    dir: tempfile::TempDir,
    writer: Option<Writer>,
    lines: Vec<Line>,
    synced: usize,
    disk: BTreeMap<PathBuf, Vec<u8>>,
    next: u64,
}

impl Model {
    const LIMITS: Limits = Limits { max_bytes: 1 << 20, ..SMALL };

    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let writer = Some(open(dir.path(), Self::LIMITS).0);
        Self { dir, writer, lines: Vec::new(), synced: 0, disk: BTreeMap::new(), next: 0 }
    }

    fn writer(&mut self) -> &mut Writer {
        self.writer.as_mut().expect("open")
    }

    fn step(&mut self, action: Action) {
        match action {
            Action::Append(len) => {
                self.next += 1;
                let number = self.next;
                let line = ((number % 5) as u8, number, number as i64 % 7, 2, noise(number, len));
                append(self.writer(), &line);
                self.lines.push(line);
            }
            Action::Sync => {
                self.writer().sync(at(0)).expect("synced");
                self.synced = self.lines.len();
                self.disk = files(self.dir.path());
            }
            Action::Reopen => self.reopen(),
            Action::Crash { kept, wrong } => {
                self.writer = None;
                self.tear_segment(kept, wrong);
                self.reopen();
            }
            Action::CrashInHead { kept } => {
                self.writer().sync(at(0)).expect("synced");
                self.writer = None;
                let path = self.dir.path().join("head");
                let (old, new) =
                    (self.disk.get(&path).cloned().unwrap_or_default(), fs::read(&path).expect("read"));
                if new.starts_with(&old) && !old.is_empty() {
                    let len = old.len() + ((new.len() - old.len()) as f64 * kept) as usize;
                    fs::write(&path, &new[..len]).expect("written");
                }
                self.reopen();
            }
        }
    }

    /// Puts back the head of the last sync, and spoils what was appended to the newest segment since.
    fn tear_segment(&self, kept: f64, wrong: f64) {
        let head = self.dir.path().join("head");
        match self.disk.get(&head) {
            Some(bytes) => fs::write(&head, bytes).expect("written"),
            None => drop(fs::remove_file(&head)),
        }
        let newest = files(self.dir.path()).into_iter().rfind(|(path, _)| path.extension().is_some());
        let Some((path, mut bytes)) = newest else { return };
        let safe = self.disk.get(&path).map_or(0, Vec::len);
        let fresh = bytes.len() - safe;
        bytes.truncate(safe + (fresh as f64 * kept) as usize);
        let hole = safe + ((bytes.len() - safe) as f64 * wrong) as usize;
        let end = bytes.len().min(hole + 5000);
        bytes[hole..end].fill(0);
        fs::write(path, bytes).expect("written");
    }

    fn reopen(&mut self) {
        self.writer = None;
        self.writer = Some(open(self.dir.path(), Self::LIMITS).0);
        let read = all(&self.writer().reader());
        assert!(read.len() >= self.synced, "{} of {} synced records", read.len(), self.synced);
        assert!(self.lines.starts_with(&read), "{:?}", positions(&read));
        self.lines = read;
        self.synced = self.lines.len();
        self.disk = files(self.dir.path());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_synced_records_are_there_once_and_in_order(actions in actions()) {
        let mut model = Model::new();
        actions.into_iter().for_each(|action| model.step(action));
        let lines = model.lines.clone();
        prop_assert_eq!(all(&model.writer().reader()), lines.clone());
        let mut newest_first: Vec<(i64, usize)> = lines.iter().enumerate().map(|(at, line)| (line.2, at)).collect();
        newest_first.sort_unstable_by(|left, right| right.cmp(left));
        let expected: Vec<u64> = newest_first.iter().map(|&(_, at)| lines[at].1).collect();
        prop_assert_eq!(positions(&search(&model.writer().reader(), &query("")).0), expected);
        model.step(Action::Sync);
        for id in 0..5 {
            let of_id = lines.iter().filter(|line| line.0 == id && line.1 >= 5).map(|line| line.1);
            prop_assert_eq!(model.writer().positions(&[id; 12], 5).expect("read"), of_id.collect::<Vec<_>>());
            let last = lines.iter().filter(|line| line.0 == id).map(|line| line.1).max();
            prop_assert_eq!(model.writer().last_position(&[id; 12]).expect("read"), last);
        }
    }
}

// Limits.

#[test]
fn the_directory_never_grows_beyond_its_bytes_and_keeps_the_newest() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut writer, _) = open(dir.path(), SMALL);
    for number in 0..300 {
        append(&mut writer, &line(number, noise(number, 9_000)));
        if number % 5 == 0 {
            writer.sync(at(0)).expect("synced");
        }
        assert!(dir_bytes(dir.path()) <= SMALL.max_bytes, "{} at {number}", dir_bytes(dir.path()));
    }
    writer.sync(at(0)).expect("synced");
    assert_eq!(writer.stats().bytes, dir_bytes(dir.path()));
    let kept = positions(&all(&writer.reader()));
    assert_eq!(kept, (300 - kept.len() as u64..300).collect::<Vec<_>>());
    assert!(kept.len() > 50, "{}", kept.len());
}

#[test]
fn lines_leave_when_they_were_stored_too_long_ago() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut writer, _) = open(dir.path(), SMALL);
    // Two lines a minute for an hour, with times of long ago: what counts is when they were stored.
    for number in 0..120 {
        append(&mut writer, &line(number, "tick"));
        writer.sync(at(number * 30)).expect("synced");
        let kept = writer.stats().records;
        assert!(kept <= 1600 * 9 / 8 / 30 + 3, "{kept} at {number}");
        assert!(kept >= (number + 1).min(1600 / 30), "{kept} at {number}");
    }
}

#[test]
fn room_that_others_need_is_left_to_them() {
    let dir = tempfile::tempdir().expect("a directory");
    let lines = mixed_store(dir.path());
    let (mut writer, _) = open(dir.path(), SMALL);
    append(&mut writer, &line(8000, "still taken"));
    writer.set_limits(Limits { min_free: 1.0, ..SMALL });
    assert!(matches!(writer.sync(at(0)), Err(StoreError::NoRoom { .. })));
    let refused = writer.append(&source(0), 9000, 0, 0, b"x").expect_err("refused").to_string();
    assert!(refused.contains("have to stay free"), "{refused}");
    assert_eq!(writer.stats().segments, 1);

    writer.set_limits(SMALL);
    append(&mut writer, &line(9001, "welcome again"));
    writer.sync(at(0)).expect("synced");
    drop(writer);
    let kept = positions(&all(&open(dir.path(), SMALL).0.reader()));
    assert!(kept.len() < lines.len() && kept.ends_with(&[8000, 9001]), "{kept:?}");
}

#[test]
fn a_full_disk_is_an_error_until_there_is_room() {
    let dir = tempfile::tempdir().expect("a directory");
    let segment = dir.path().join("0000000000.seg");
    std::os::unix::fs::symlink("/dev/full", &segment).expect("linked");
    let (mut writer, _) = open(dir.path(), SMALL);
    append(&mut writer, &line(1, noise(1, 100_000)));
    for _ in 0..2 {
        let error = writer.append(&source(0), 2, 2, 0, &noise(2, 100_000)).expect_err("full").to_string();
        assert!(error.contains("could not write to") && error.contains("0000000000.seg"), "{error}");
    }
    writer.sync(at(0)).expect("the head is elsewhere");
    fs::remove_file(&segment).expect("removed");
    append(&mut writer, &line(3, noise(3, 100_000)));
    writer.sync(at(0)).expect("synced");
    drop(writer);
    assert_eq!(positions(&all(&open(dir.path(), SMALL).0.reader())), [1, 3]);
}

#[test]
fn a_head_that_can_not_be_written_is_an_error_until_it_can() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut writer, _) = open(dir.path(), SMALL);
    append(&mut writer, &line(1, "one"));
    let blocked = dir.path().join("head.new");
    std::os::unix::fs::symlink("/dev/full", &blocked).expect("linked");
    for _ in 0..2 {
        let error = writer.sync(at(0)).expect_err("full").to_string();
        assert!(error.contains("head.new") && error.contains("No space left"), "{error}");
    }
    fs::remove_file(&blocked).expect("removed");
    append(&mut writer, &line(2, "two"));
    writer.sync(at(0)).expect("synced");
    drop(writer);
    assert_eq!(positions(&all(&open(dir.path(), SMALL).0.reader())), [1, 2]);
}

#[test]
fn a_directory_that_is_taken_away_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("store");
    let (mut writer, _) = open(&path, SMALL);
    append(&mut writer, &line(1, "one"));
    fs::remove_dir_all(&path).expect("removed");
    assert!(writer.sync(at(0)).expect_err("gone").to_string().contains("store"));
    fs::create_dir(&path).expect("made");
    writer.sync(at(0)).expect("synced");
    drop(writer);
    assert_eq!(positions(&all(&open(&path, SMALL).0.reader())), [1]);
}

// Searching and following.

#[test]
fn a_rare_word_opens_one_block() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut writer, _) = open(dir.path(), SMALL);
    for number in 0..20_000 {
        let text = if number == 7000 {
            "trace 4bf92f3577b34da6 failed".into()
        } else {
            format!("request {number} done")
        };
        append(&mut writer, &(0, number, number as i64, 1, text.into_bytes()));
    }
    writer.sync(at(0)).expect("synced");
    let (lines, found) = search(&writer.reader(), &query("4BF92F3577B34DA6"));
    assert_eq!(positions(&lines), [7000]);
    assert!(found.blocks > 4 && found.opened == 1, "{found:?}");
    assert_eq!(found.next, None);
}

#[test]
fn a_search_with_a_limit_stops_early_and_says_where_to_go_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut writer, _) = open(dir.path(), SMALL);
    (0..20_000).for_each(|number| append(&mut writer, &line(number, format!("request {number} done"))));
    let (lines, found) = search(&writer.reader(), &Query { limit: 3, ..query("request") });
    assert_eq!(positions(&lines), [19_999, 19_998, 19_997]);
    assert!(found.opened <= 1, "{found:?}");
    let next = found.next.expect("more").to_string().parse::<Key>().expect("a key");
    let (lines, _) = search(&writer.reader(), &Query { limit: 2, before: Some(next), ..query("request") });
    assert_eq!(positions(&lines), [19_996, 19_995]);
}

#[test]
fn labels_streams_and_times_choose_records() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut writer, _) = open(dir.path(), SMALL);
    for number in 0..12 {
        append(
            &mut writer,
            &((number % 3) as u8, number, number as i64, (number % 2) as u8 + 1, b"x".to_vec()),
        );
    }
    let found = |text: &str| positions(&search(&writer.reader(), &query(text)).0);
    assert_eq!(found("pod:web-1"), [10, 7, 4, 1]);
    assert_eq!(found("-pod:web-1 stream:stderr"), [11, 9, 5, 3]);
    assert_eq!(found("pod:web-7"), [0; 0]);
    let timed = Query { since: Some(3), until: Some(6), ..query("") };
    assert_eq!(positions(&search(&writer.reader(), &timed).0), [5, 4, 3]);
}

#[test]
fn a_search_can_be_stopped_by_either_side() {
    let dir = tempfile::tempdir().expect("a directory");
    mixed_store(dir.path());
    let reader = open(dir.path(), SMALL).0.reader();
    let mut said = 0;
    let mut one = |_| {
        said += 1;
        ControlFlow::Break(())
    };
    assert!(reader.search(&query(""), &|| false, &mut one).expect("readable").next.is_some());
    assert_eq!(said, 1);
    let asked = std::cell::Cell::new(0);
    let is_stopped = || asked.replace(asked.get() + 1) == 2;
    let found =
        reader.search(&query("nothing"), &is_stopped, &mut |_| ControlFlow::Continue(())).expect("readable");
    assert_eq!(found.blocks, 2);
}

#[test]
fn many_long_hits_come_in_pages() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut writer, _) = open(dir.path(), Limits { max_bytes: 16 << 20, ..SMALL });
    // All blocks span all times, so that nothing can be said before the last block was read.
    for number in 0..60 {
        append(&mut writer, &line(1000 - number, "a"));
        append(&mut writer, &line(number, vec![b'x'; 200 << 10]));
    }
    let mut pages = Vec::new();
    let mut before = None;
    loop {
        let (lines, found) = search(&writer.reader(), &Query { before, ..query("") });
        pages.push(positions(&lines));
        before = found.next;
        if before.is_none() {
            break;
        }
    }
    let expected: Vec<u64> = (941..=1000).rev().chain((0..60).rev()).collect();
    assert!(pages.len() > 1);
    assert_eq!(pages.concat(), expected);
}

#[test]
fn a_search_goes_on_while_its_segment_is_deleted() {
    let dir = tempfile::tempdir().expect("a directory");
    let lines = mixed_store(dir.path());
    let (mut writer, _) = open(dir.path(), SMALL);
    let reader = writer.reader();
    let mut said = Vec::new();
    let mut sink = |hit: Hit| {
        // The first hit of the oldest segment.
        if hit.key.time == 4 {
            writer.set_limits(Limits { min_free: 1.0, ..SMALL });
            assert!(writer.sync(at(0)).is_err());
        }
        said.push(to_line(hit));
        ControlFlow::Continue(())
    };
    let found = reader.search(&query(""), &|| false, &mut sink).expect("no error");
    assert_eq!((said.len(), found.damaged), (lines.len(), 0));
    assert!(all(&reader).len() < lines.len());
}

#[test]
fn a_follower_gets_each_record_once_across_blocks_segments_and_restarts() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut writer, _) = open(dir.path(), SMALL);
    let mut cursor = writer.reader().end();
    let mut seen = Vec::new();
    for number in 0..60 {
        append(&mut writer, &line(number, noise(number, 10_000)));
        if number % 4 == 3 {
            let mut sink = |hit: Hit| {
                seen.push(hit.position);
                ControlFlow::Continue(())
            };
            // Two at a time: the rest comes with the next look.
            let two = Query { limit: 2, ..query("") };
            cursor = writer.reader().since(cursor, &two, &mut sink).expect("readable");
            cursor = cursor.to_string().parse().expect("a cursor");
        }
        if number == 30 {
            writer.sync(at(0)).expect("synced");
            drop(writer);
            writer = open(dir.path(), SMALL).0;
        }
    }
    let mut rest = |hit: Hit| {
        seen.push(hit.position);
        ControlFlow::Continue(())
    };
    cursor = writer.reader().since(cursor, &query(""), &mut rest).expect("readable");
    assert_eq!(cursor, writer.reader().end());
    assert_eq!(seen, (0..60).collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn pages_of_any_size_give_all_hits_in_order(times in prop::collection::vec(0_i64..20, 1..60), limit in 1_usize..9) {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut writer, _) = open(dir.path(), SMALL);
        for (number, &time) in (0..).zip(&times) {
            append(&mut writer, &(0, number, time, 0, noise(number, 9_000)));
        }
        let mut expected: Vec<(i64, u64)> = times.iter().copied().zip(0..).collect();
        expected.sort_unstable_by(|left, right| right.cmp(left));
        let mut read = Vec::new();
        let mut before = None;
        loop {
            let (lines, found) = search(&writer.reader(), &Query { before, limit, ..query("") });
            prop_assert!(lines.len() <= limit);
            read.extend(lines.iter().map(|line| (line.2, line.1)));
            before = found.next;
            if before.is_none() || lines.is_empty() {
                break;
            }
        }
        prop_assert_eq!(read, expected);
    }
}
