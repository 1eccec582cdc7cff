//! The local store: written, damaged, and made by somebody else with good checksums.
#![no_main]

use std::{
    collections::HashMap,
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use nodewarden::store::{Cursor, Hit, Limits, Query, Reader, Source, Writer};
use nodewarden_fuzz::{Damage, noise};

/// A block has 16 KiB at most, a segment 64 KiB.
const LIMITS: Limits = Limits { max_bytes: 256 << 10, max_age: Duration::from_secs(1600), min_free: 0.0 };
const SOURCES: u8 = 3;

#[derive(Debug, Arbitrary)]
struct Plan {
    steps: Vec<Step>,
    damage: Vec<(u8, Vec<Damage>)>,
    foreign: Vec<Vec<Frame>>,
    head: Option<(u64, Vec<Entry>)>,
}

#[derive(Debug, Arbitrary)]
enum Step {
    Append { source: u8, length: u8, time: i64, stream: u8 },
    Long { source: u8, length: u16, is_noise: bool },
    Sync { seconds: u8 },
    Reopen,
}

/// A frame with good checksums.
#[derive(Debug, Arbitrary)]
struct Frame {
    version: bool,
    kind: u8,
    number: u64,
    written: i64,
    times: (i64, i64),
    records: u32,
    filter: Vec<u8>,
    /// Sources in its table, before the bytes of it.
    sources: u8,
    table: Vec<u8>,
    meta: Vec<u8>,
    text: Vec<u8>,
    /// Instead of the raw lengths of table and records, and of the first column.
    lengths: (Option<u32>, Option<u32>, Option<u32>),
}

/// An entry of the head with a good checksum.
#[derive(Debug, Arbitrary)]
struct Entry {
    sources: u8,
    /// Whether the bytes are the columns, rightly framed.
    is_framed: bool,
    records: u8,
    meta: Vec<u8>,
    text: Vec<u8>,
}

fuzz_target!(|plan: Plan| {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("store");
    let written = check_whole(&plan, &path);
    check_damaged(&plan, &path, &written);
    let path = dir.path().join("foreign");
    write_foreign(&plan, &path);
    check_foreign(&path);
});

/// Source, position, time, stream, text; the position is the number of the record.
type Record = (u8, u64, i64, u8, Vec<u8>);

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
}

fn source(number: u8) -> Arc<Source> {
    Arc::new(Source { id: [number; 12], labels: vec![("pod".into(), format!("web-{number}"))] })
}

fn query(text: &str) -> Query {
    Query { limit: usize::MAX, ..Query::parse(text).expect("a query") }
}

fn record(hit: Hit) -> Record {
    (hit.source.id[0], hit.position, hit.key.time, hit.stream, hit.text)
}

/// All records in the order of appending.
fn all(reader: &Reader) -> Vec<Record> {
    let mut records = Vec::new();
    let mut sink = |hit| {
        records.push(record(hit));
        ControlFlow::Continue(())
    };
    reader.since(Cursor::default(), &query(""), &mut sink).expect("readable");
    records
}

/// What a search says, the newest first.
fn search(reader: &Reader, text: &str) -> Vec<Record> {
    let mut records = Vec::new();
    let mut sink = |hit| {
        records.push(record(hit));
        ControlFlow::Continue(())
    };
    reader.search(&query(text), &|| false, &mut sink).expect("readable");
    records
}

/// What was synced is there, but for the oldest: once, in order, found by words, and known by position.
fn check_whole(plan: &Plan, dir: &Path) -> Vec<Record> {
    let mut written = Vec::<Record>::new();
    let mut seconds = 0;
    let (mut writer, _) = Writer::open(dir, LIMITS, at(0)).expect("opened");
    for step in plan.steps.iter().take(60) {
        let number = written.len() as u64;
        let record = match *step {
            Step::Append { source, length, time, stream } => {
                let text = format!("word{number} {}", "x".repeat(length.into()));
                (source % SOURCES, number, time, stream, text.into_bytes())
            }
            Step::Long { source, length, is_noise } => {
                let text = match is_noise {
                    true => noise(number).take(length.into()).collect(),
                    false => format!("word{number} ").repeat(usize::from(length) / 8).into_bytes(),
                };
                (source % SOURCES, number, number as i64, 1, text)
            }
            Step::Sync { seconds: more } => {
                seconds += u64::from(more);
                writer.sync(at(seconds)).expect("synced");
                continue;
            }
            Step::Reopen => {
                writer.sync(at(seconds)).expect("synced");
                drop(writer);
                let (again, recovered) = Writer::open(dir, LIMITS, at(seconds)).expect("opened");
                assert!(recovered.messages.is_empty(), "{:?}", recovered.messages);
                writer = again;
                continue;
            }
        };
        writer.append(&source(record.0), record.1, record.2, record.3, &record.4).expect("taken");
        written.push(record);
    }
    writer.sync(at(seconds)).expect("synced");
    let reader = writer.reader();
    let read = all(&reader);
    assert!(written.ends_with(&read), "records are missing in the middle or at the end");
    assert!(read.len() == written.len() || writer.stats().bytes * 4 > LIMITS.max_bytes || seconds > 1400);
    let mut newest_first = read.clone();
    newest_first.sort_by_key(|record| std::cmp::Reverse((record.2, record.1)));
    assert_eq!(search(&reader, ""), newest_first);
    if let Some(last) = read.last().filter(|record| record.4.starts_with(b"word")) {
        let word = format!("word{}", last.1);
        assert!(search(&reader, &word).contains(last), "{word} is not found");
    }
    for number in 0..SOURCES {
        let of = |record: &&Record| record.0 == number;
        let positions: Vec<u64> = read.iter().filter(of).map(|record| record.1).collect();
        assert_eq!(stored(&writer, number), positions);
        let greatest = writer.greatest_positions().expect("read");
        assert_eq!(greatest.get(&[number; 12]).copied(), positions.last().copied());
    }
    drop(writer);
    let (writer, recovered) = Writer::open(dir, LIMITS, at(seconds)).expect("opened");
    assert!(recovered.messages.is_empty(), "{:?}", recovered.messages);
    assert_eq!(all(&writer.reader()), read);
    read
}

/// The positions that are stored of one source.
fn stored(writer: &Writer, number: u8) -> Vec<u64> {
    let all = writer.positions(&HashMap::from([([number; 12], 0)])).expect("read");
    all.into_values().flatten().collect()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(dir).expect("listed").map(|entry| entry.expect("listed").path()).collect();
    paths.sort();
    paths
}

/// Of a damaged store, what is read was written, in order, once; it goes on with what comes.
fn check_damaged(plan: &Plan, dir: &Path, written: &[Record]) {
    for (file, damage) in plan.damage.iter().take(4) {
        let paths = files(dir);
        if let Some(place) = usize::from(*file).checked_rem(paths.len()) {
            Damage::apply_to(damage, &paths[place]);
        }
    }
    let (mut writer, _) = Writer::open(dir, LIMITS, at(0)).expect("opened");
    let read = all(&writer.reader());
    assert!(read.is_sorted_by(|one, next| one.1 < next.1), "records out of order, or twice");
    let is_written = |record: &Record| written.contains(record);
    assert!(read.iter().all(is_written), "records that were never written");
    assert!(search(&writer.reader(), "").iter().all(is_written), "records that were never written");
    for number in 0..SOURCES {
        let positions = stored(&writer, number);
        assert!(
            positions.iter().all(|at| written.iter().any(|(of, place, ..)| (of, place) == (&number, at)))
        );
    }
    let new: Record = (0, 1 << 40, 5, 1, b"goes on".to_vec());
    writer.append(&source(0), new.1, new.2, new.3, &new.4).expect("taken");
    writer.sync(at(0)).expect("synced");
    drop(writer);
    let (writer, _) = Writer::open(dir, LIMITS, at(0)).expect("opened");
    assert_eq!(all(&writer.reader()).last(), Some(&new));
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_sources(count: u8, with_positions: bool, out: &mut Vec<u8>) {
    put_varint(out, count.into());
    for number in 0..count {
        if with_positions {
            out.extend_from_slice(&[0, 100, 1]);
        }
        out.extend_from_slice(&[number; 12]);
        out.extend_from_slice(b"\x01\x03pod\x01a");
    }
}

impl Frame {
    /// As `src/store/segment.rs` describes it.
    fn encode(&self, out: &mut Vec<u8>) {
        let mut table = Vec::new();
        put_sources(self.sources % 4, true, &mut table);
        table.extend_from_slice(&self.table);
        let records = [&self.meta[..], &self.text].concat();
        let pack = |raw: &[u8]| zstd::bulk::compress(raw, 1).expect("packed");
        let sections = [self.filter.clone(), pack(&table), pack(&records)];
        let length = 100 + sections.iter().map(Vec::len).sum::<usize>();
        let mut frame = b"NWst".to_vec();
        frame.extend_from_slice(&[if self.version { 2 } else { 1 }, self.kind % 3, 0, 0]);
        frame.extend_from_slice(&(length as u32).to_le_bytes());
        frame.extend_from_slice(&7_u64.to_le_bytes());
        put_checksum(&mut frame, 0);
        frame.extend_from_slice(&self.number.to_le_bytes());
        for time in [self.written, self.times.0, self.times.1] {
            frame.extend_from_slice(&time.to_le_bytes());
        }
        let (table_raw, records_raw, meta) = self.lengths;
        let numbers = [
            self.records,
            sections[0].len() as u32,
            sections[1].len() as u32,
            table_raw.unwrap_or(table.len() as u32),
            sections[2].len() as u32,
            records_raw.unwrap_or(records.len() as u32),
            meta.unwrap_or(self.meta.len() as u32),
        ];
        numbers.iter().for_each(|number| frame.extend_from_slice(&number.to_le_bytes()));
        sections.iter().for_each(|section| frame.extend_from_slice(&crc32fast::hash(section).to_le_bytes()));
        put_checksum(&mut frame, 0);
        frame.extend(sections.concat());
        out.extend(frame);
    }

    /// A footer with these bytes, as `src/store/index.rs` describes it.
    fn encode_footer(&self, out: &mut Vec<u8>) {
        let length = (24 + self.meta.len() + 12) as u32;
        let mut frame = b"NWst\x01\x02\0\0".to_vec();
        frame.extend_from_slice(&length.to_le_bytes());
        frame.extend_from_slice(&7_u64.to_le_bytes());
        put_checksum(&mut frame, 0);
        frame.extend_from_slice(&self.meta);
        put_checksum(&mut frame, 0);
        frame.extend_from_slice(&length.to_le_bytes());
        frame.extend_from_slice(b"NWsf");
        out.extend(frame);
    }
}

fn put_checksum(out: &mut Vec<u8>, from: usize) {
    let checksum = crc32fast::hash(&out[from..]);
    out.extend_from_slice(&checksum.to_le_bytes());
}

fn write_foreign(plan: &Plan, dir: &Path) {
    fs::create_dir(dir).expect("made");
    for (number, frames) in plan.foreign.iter().take(3).enumerate() {
        let mut bytes = Vec::new();
        for frame in frames.iter().take(8) {
            if frame.kind % 8 == 7 { frame.encode_footer(&mut bytes) } else { frame.encode(&mut bytes) }
        }
        fs::write(dir.join(format!("{number:010}.seg")), bytes).expect("written");
    }
    let Some((number, entries)) = &plan.head else { return };
    let mut bytes = b"NWhd\x01\0\0\0".to_vec();
    bytes.extend_from_slice(&number.to_le_bytes());
    put_checksum(&mut bytes, 0);
    let mut before: [u8; 4] = bytes[16..].try_into().expect("a checksum");
    for entry in entries.iter().take(8) {
        let mut payload = Vec::new();
        if entry.is_framed {
            put_sources(entry.sources % 4, false, &mut payload);
            put_varint(&mut payload, entry.records.into());
            put_varint(&mut payload, entry.meta.len() as u64);
        }
        payload.extend_from_slice(&entry.meta);
        payload.extend_from_slice(&entry.text);
        let length = (payload.len() as u32).to_le_bytes();
        before = crc32fast::hash(&[&before[..], &length, &payload].concat()).to_le_bytes();
        bytes.extend([&length[..], &before, &payload].concat());
    }
    fs::write(dir.join("head"), bytes).expect("written");
}

/// A store may say anything: it opens, reading it has an end, and it takes what comes.
fn check_foreign(dir: &Path) {
    let (mut writer, _) = Writer::open(dir, LIMITS, at(0)).expect("opened");
    all(&writer.reader());
    search(&writer.reader(), "word");
    let _ = (writer.stats(), writer.greatest_positions(), writer.positions(&HashMap::from([([1; 12], 1)])));
    for number in 0..20 {
        writer.append(&source(0), number, 5, 1, &[b'x'; 1000]).expect("taken");
    }
    writer.sync(at(2000)).expect("synced");
    search(&writer.reader(), "");
    drop(writer);
    Writer::open(dir, LIMITS, at(0)).expect("opened");
}
