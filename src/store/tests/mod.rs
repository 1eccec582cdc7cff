//! The store as a whole: real files in a directory of its own, crashes made by changing them.

mod crash;
mod limits;
mod remove;
mod search;

use std::{
    collections::BTreeMap,
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{Cursor, Found, Hit, Key, Limits, Query, Reader, Recovered, Source, StoreError, Writer};
use crate::testing::cases;

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
