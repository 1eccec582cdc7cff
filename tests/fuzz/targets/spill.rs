//! The segments that vanishing files are spilled to: written, damaged, and with frames of somebody else.
#![no_main]

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use nodewarden::logs::{
    record::{Container, FileId, Inode, Origin},
    spill::{FRAME, Header, Limits, SharedSpill},
};
use nodewarden_fuzz::{Damage, noise};

const LIMITS: Limits = Limits { max_bytes: 8 << 20, min_free: 0.0 };

#[derive(Debug, Arbitrary)]
struct Plan {
    pieces: Vec<Piece>,
    /// The segment that is damaged, and how.
    damage: Vec<(u8, Vec<Damage>)>,
    /// Damage that happens while the spill is open.
    later: Vec<(u8, Vec<Damage>)>,
    foreign: Vec<Frame>,
}

/// A piece of a file that is spilled.
#[derive(Debug, Arbitrary)]
struct Piece {
    file: u8,
    /// Bytes before it that are not.
    gap: u8,
    length: u16,
    large: bool,
    sync: bool,
}

/// A frame with a good checksum, whatever it says.
#[derive(Debug, Arbitrary)]
struct Frame {
    segment: u8,
    /// Instead of where the segment ends.
    start: Option<u64>,
    raw: u32,
    packed: Packed,
}

#[derive(Debug, Arbitrary)]
enum Packed {
    Any(Vec<u8>),
    Zstd(Vec<u8>),
}

fuzz_target!(|plan: Plan| {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path().join("spill");
    let written = write(&plan, &dir);
    let (spill, complaints) = SharedSpill::open(&dir, LIMITS);
    assert!(complaints.is_empty(), "{complaints:?}");
    let all: u64 =
        written.iter().map(|spans| spans.iter().map(|(start, end)| end - start).sum::<u64>()).sum();
    assert_eq!(check_read(&spill, &written), all, "all that was spilled is there");
    damage(&plan.later, &dir);
    check_read(&spill, &written);
    damage(&plan.damage, &dir);
    let (spill, _) = SharedSpill::open(&dir, LIMITS);
    check_read(&spill, &written);
    check_goes_on(&spill, &dir);
    check_foreign(&plan, &dir);
});

const FILES: u8 = 3;
/// Where a file's spilled bytes are, in order.
type Written = [Vec<(u64, u64)>; FILES as usize];

fn header(file: u8) -> Header {
    let container = Container {
        namespace: "shop".into(),
        pod: format!("cart-{file}"),
        uid: "u-1".into(),
        name: "app".into(),
        restart: file.into(),
    };
    Header {
        id: FileId([file; 12]),
        document: FileId([file + 100; 12]),
        generation: 1,
        first: (17, 99),
        path: format!("/var/log/{file}").into(),
        active_path: "/var/log/0.log".into(),
        origin: if file == 0 { Origin::Plain } else { Origin::Container(container.into()) },
        source: 0,
        inode: Inode { device: 1, number: 2, birth: 3 },
        size: 1 << 20,
    }
}

/// A byte of a file.
fn byte_at(file: u8, offset: u64) -> u8 {
    noise(offset >> 3 ^ u64::from(file) << 32).next().unwrap_or_default()
}

fn write(plan: &Plan, dir: &Path) -> Written {
    let mut written = Written::default();
    let (spill, _) = SharedSpill::open(dir, LIMITS);
    let mut spill = spill.lock();
    for piece in plan.pieces.iter().take(40) {
        let file = piece.file % FILES;
        let spans = &mut written[usize::from(file)];
        let start = spans.last().map_or(0, |(_, end)| *end) + u64::from(piece.gap);
        let length = usize::from(piece.length) % if piece.large { 10_000 } else { 200 };
        let bytes: Vec<u8> = (start..).take(length.clamp(1, FRAME)).map(|at| byte_at(file, at)).collect();
        let is_kept = spill.append(&header(file), start, &bytes, None).expect("appended");
        let end = start + bytes.len() as u64;
        match spans.last_mut() {
            Some((_, last)) if is_kept && *last == start => *last = end,
            _ => spans.extend(is_kept.then_some((start, end))),
        }
        if piece.sync {
            spill.sync().expect("synced");
        }
    }
    spill.sync().expect("synced");
    written
}

/// Reads all there is: whose it is said to be it is, byte for byte. How much there is.
fn check_read(spill: &SharedSpill, written: &Written) -> u64 {
    let mut spill = spill.lock();
    for found in spill.files() {
        let file = found.id.0[0];
        assert!(file < FILES && found == header(file), "{found:?} was never written");
    }
    let mut read = 0;
    for file in 0..FILES {
        let (id, spans) = (FileId([file; 12]), &written[usize::from(file)]);
        let mut buffer = Vec::new();
        let mut at = 0;
        while let Some(next) = spill.readable_from(id, at) {
            assert!(next >= at);
            spill.read(id, next, &mut buffer, FRAME).expect("read");
            assert!(buffer.len() <= FRAME);
            at = next + buffer.len() as u64;
            let is_written = spans.iter().any(|(start, end)| *start <= next && at <= *end);
            assert!(buffer.is_empty() || is_written, "bytes that were never written");
            let is_right = |(offset, byte): (u64, &u8)| *byte == byte_at(file, offset);
            assert!((next..).zip(&buffer).all(is_right), "other bytes than were written");
            read += buffer.len() as u64;
            // What can't be read is no more there.
            assert!(!buffer.is_empty() || spill.readable_from(id, at) != Some(at));
        }
        assert!(spill.end(id).is_none_or(|end| spans.last().is_some_and(|(_, last)| end <= *last)));
    }
    read
}

/// What comes after damage is kept as ever.
fn check_goes_on(spill: &SharedSpill, dir: &Path) {
    let id = FileId([FILES; 12]);
    let header = Header { id, ..header(0) };
    let is_kept = spill.lock().append(&header, 5, b"goes on", None).expect("appended");
    spill.lock().sync().expect("synced");
    let (spill, _) = SharedSpill::open(dir, LIMITS);
    let mut buffer = Vec::new();
    spill.lock().read(id, 5, &mut buffer, FRAME).expect("read");
    assert!(!is_kept || buffer == b"goes on");
    spill.lock().confirmed(id, 12);
    assert_eq!(spill.lock().end(id), None);
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut paths: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "spill")).collect();
    paths.sort();
    paths
}

fn damage(damage: &[(u8, Vec<Damage>)], dir: &Path) {
    for (segment, damage) in damage.iter().take(4) {
        let paths = segments(dir);
        if let Some(path) = usize::from(*segment).checked_rem(paths.len()).map(|at| &paths[at]) {
            Damage::apply_to(damage, path);
        }
    }
}

/// Frames may say anything: reading them has an end and a bound.
fn check_foreign(plan: &Plan, dir: &Path) {
    let ends: Vec<u64> = {
        let (spill, _) = SharedSpill::open(dir, LIMITS);
        let spill = spill.lock();
        (0..FILES).filter_map(|file| spill.end(FileId([file; 12]))).collect()
    };
    for frame in plan.foreign.iter().take(8) {
        let paths = segments(dir);
        let Some(path) = usize::from(frame.segment).checked_rem(paths.len()).map(|at| &paths[at]) else {
            return;
        };
        let start = frame.start.or(ends.get(usize::from(frame.segment) % 3).copied()).unwrap_or(0);
        let packed = match &frame.packed {
            Packed::Any(bytes) => bytes.clone(),
            Packed::Zstd(bytes) => zstd::bulk::compress(bytes, 1).expect("packed"),
        };
        let numbers = [(packed.len() as u32).to_le_bytes(), frame.raw.to_le_bytes()].concat();
        let mut hasher = crc32fast::Hasher::new();
        [&numbers[..], &start.to_le_bytes(), &packed].iter().for_each(|bytes| hasher.update(bytes));
        let crc = hasher.finalize().to_le_bytes();
        let bytes = [b"NWSF", &numbers[..], &start.to_le_bytes(), &crc, &packed].concat();
        let mut file = OpenOptions::new().append(true).open(path).expect("opened");
        file.write_all(&bytes).expect("written");
    }
    let (spill, _) = SharedSpill::open(dir, LIMITS);
    let mut spill = spill.lock();
    for id in spill.ids() {
        let (mut buffer, mut at) = (Vec::new(), 0);
        let _ = spill.missing(id, 0, u64::MAX);
        while let Some(next) = spill.readable_from(id, at) {
            spill.read(id, next, &mut buffer, FRAME).expect("read");
            assert!(buffer.len() <= FRAME);
            at = next + buffer.len() as u64;
        }
    }
}
