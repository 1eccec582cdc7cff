//! The spill over real directories.

use std::os::unix::ffi::OsStrExt;

use super::*;
use crate::{logs::record::Inode, testing::container};

const LIMITS: Limits = Limits { max_bytes: 1 << 20, min_free: 0.0 };

fn header(number: u8) -> Header {
    Header {
        id: FileId([number; 12]),
        document: FileId([100 + number; 12]),
        generation: 3,
        first: (40, u64::MAX),
        path: format!("/var/log/pods/{number}.log.1").into(),
        active_path: format!("/var/log/pods/{number}.log").into(),
        origin: container(2),
        source: 1,
        inode: Inode { device: 1, number: 2, birth: 3 },
        size: 5000,
    }
}

/// Bytes that do not compress to nothing.
fn noise(length: usize) -> Vec<u8> {
    (0..length as u64 / 8)
        .flat_map(|number| xxhash_rust::xxh3::xxh3_64(&number.to_le_bytes()).to_le_bytes())
        .collect()
}

fn open(directory: &Path, limits: Limits) -> (SharedSpill, Vec<String>) {
    SharedSpill::open(&directory.join("spill"), limits)
}

fn append(spill: &SharedSpill, number: u8, start: u64, bytes: &[u8]) -> Vec<Dropped> {
    let mut dropped = Vec::new();
    spill.lock().append(&header(number), start, bytes, Some(&mut dropped)).expect("appended");
    dropped
}

fn read(spill: &SharedSpill, number: u8, offset: u64, limit: usize) -> Vec<u8> {
    let mut buffer = Vec::new();
    spill.lock().read(FileId([number; 12]), offset, &mut buffer, limit).expect("read");
    buffer
}

#[test]
fn what_is_kept_is_read_at_its_offsets_also_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let (spill, _) = open(dir.path(), LIMITS);
    let bytes = noise(4000);
    append(&spill, 1, 1000, &bytes[..2000]);
    append(&spill, 2, 0, b"another file");
    append(&spill, 1, 3000, &bytes[2000..]);
    spill.lock().sync().expect("synced");
    for spill in [spill, open(dir.path(), LIMITS).0] {
        assert_eq!(read(&spill, 1, 1000, 9999), bytes);
        assert_eq!(read(&spill, 1, 2900, 200), &bytes[1900..2100]);
        assert_eq!(read(&spill, 2, 8, 100), b"file");
        assert_eq!((read(&spill, 1, 5000, 10).len(), read(&spill, 1, 0, 10).len()), (0, 0));
        let of = FileId([1; 12]);
        assert_eq!(spill.lock().readable_from(of, 0), Some(1000));
        assert_eq!(spill.lock().missing(of, 0, 6000), 2000);
        assert_eq!(spill.lock().end(of), Some(5000));
        let mut headers = spill.lock().files();
        headers.sort_by_key(|header| header.id);
        assert_eq!(headers, [header(1), header(2)]);
    }
}

#[test]
fn a_file_whose_name_is_not_text_is_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    let (spill, _) = open(dir.path(), LIMITS);
    let odd = std::ffi::OsStr::from_bytes(b"/var/log/\xff").into();
    let header = Header { path: odd, ..header(1) };
    assert!(spill.lock().append(&header, 0, b"bytes", None).expect("appended"));
    spill.lock().sync().expect("synced");
    assert_eq!(read(&open(dir.path(), LIMITS).0, 1, 0, 10), b"bytes");
}

#[test]
fn the_oldest_segments_make_room_and_whoever_asked_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let (spill, _) = open(dir.path(), Limits { max_bytes: 300_000, ..LIMITS });
    let bytes = noise(60_000);
    let mut dropped = Vec::new();
    for number in 0..8 {
        dropped.extend(append(&spill, number, 0, &bytes));
        assert!(spill.lock().bytes <= 300_000);
    }
    let expected = |number| Dropped { id: FileId([number; 12]), span: Span { start: 0, end: 60_000 } };
    assert_eq!(dropped, [expected(0), expected(1), expected(2), expected(3)]);
    // Nobody is pushed out by who may not.
    assert!(!spill.lock().append(&header(9), 0, &bytes, None).expect("asked"));
    spill.lock().sync().expect("synced");
    let (spill, _) = open(dir.path(), Limits { max_bytes: 300_000, ..LIMITS });
    assert_eq!(spill.lock().ids().len(), 4);
}

#[test]
fn without_free_space_nothing_is_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    let (spill, _) = open(dir.path(), Limits { min_free: 1.0, ..LIMITS });
    assert_eq!(
        append(&spill, 1, 5, b"bytes"),
        [Dropped { id: FileId([1; 12]), span: Span { start: 5, end: 10 } }]
    );
}

#[test]
fn what_is_confirmed_leaves() {
    let dir = tempfile::tempdir().expect("a directory");
    let (spill, _) = open(dir.path(), LIMITS);
    for start in [0, 10] {
        append(&spill, 1, start, b"ten bytes!");
        spill.lock().sync().expect("synced");
    }
    spill.lock().confirmed(FileId([1; 12]), 15);
    assert_eq!(spill.lock().readable_from(FileId([1; 12]), 0), Some(10));
    spill.lock().confirmed(FileId([1; 12]), 20);
    assert_eq!(spill.lock().ids().len(), 0);
    assert_eq!(spill.lock().bytes, 0);
}

#[test]
fn any_cut_or_flipped_bit_leaves_what_is_right() {
    let dir = tempfile::tempdir().expect("a directory");
    let (spill, _) = open(dir.path(), LIMITS);
    append(&spill, 1, 0, b"first frame\n");
    append(&spill, 1, 12, b"second frame\n");
    spill.lock().sync().expect("synced");
    let path = dir.path().join("spill/0000000000.spill");
    let good = fs::read(&path).expect("read");
    let cut = (0..good.len()).map(|length| good[..length].to_vec());
    let flipped = (0..good.len() * 8).map(|bit| {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    });
    for bytes in cut.chain(flipped) {
        fs::write(&path, bytes).expect("written");
        let (spill, complaints) = open(dir.path(), LIMITS);
        let ids = spill.lock().ids();
        let Some(id) = ids.first().copied() else {
            assert_eq!(complaints.len(), 1);
            continue;
        };
        assert_eq!(spill.lock().files(), [header(1)]);
        for (offset, text) in [(0, "first frame\n"), (12, "second frame\n")] {
            let mut buffer = Vec::new();
            spill.lock().read(id, offset, &mut buffer, text.len()).expect("read");
            assert!(buffer.is_empty() || buffer == text.as_bytes(), "{buffer:?}");
        }
        assert!(spill.lock().end(id).is_none_or(|end| end <= 25), "no more than was written");
    }
}
