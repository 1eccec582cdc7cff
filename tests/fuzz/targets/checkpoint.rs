//! The positions of log files as they are kept: written and read, damaged, and written by somebody else.
#![no_main]

use std::{collections::HashMap, ffi::OsStr, fs, os::unix::ffi::OsStrExt, path::Path};

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use nodewarden::logs::{
    checkpoint::{CHECK_BYTES, Check, Checkpoint, Content, Position},
    record::{FileId, Inode, path_text},
};
use nodewarden_fuzz::Damage;

const WEEK: u64 = 7 * 24 * 3600;

type Positions = HashMap<FileId, Position>;

#[derive(Debug, Arbitrary)]
struct Plan {
    before: Vec<Entry>,
    now: Vec<Entry>,
    damage: Vec<Damage>,
    damage_before: Vec<Damage>,
}

#[derive(Debug, Clone, Arbitrary)]
struct Entry {
    id: u8,
    offset: u64,
    generation: u32,
    inode: (u64, u64, u64),
    path: Vec<u8>,
    seen: u64,
    content: Option<(String, u8, usize, u64, Option<(u64, u8, u64)>, bool, Vec<u64>)>,
}

impl Entry {
    fn position(&self) -> Position {
        let content =
            self.content.clone().map(|(active, document, length, hash, check, truncated, cuts)| Content {
                active: active.into(),
                document: FileId([document; 12]),
                first: (length, hash),
                check: check.map(|(at, length, hash)| {
                    let length = usize::from(length) % CHECK_BYTES + 1;
                    Check { at: at.max(length as u64), length, hash }
                }),
                truncated,
                cuts,
            });
        let (device, number, birth) = self.inode;
        Position {
            id: FileId([self.id; 12]),
            offset: self.offset,
            generation: self.generation,
            inode: Inode { device, number, birth },
            path: OsStr::from_bytes(&self.path).into(),
            seen: self.seen,
            content,
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let dir = tempfile::tempdir().expect("a directory");
    if let Ok(plan) = Plan::arbitrary(&mut Unstructured::new(data)) {
        check_damaged(&plan, dir.path());
    }
    check_foreign(data, dir.path());
});

/// What is to be read of what was written: not what was gone for a week by then.
fn expected(written: &[Position]) -> Positions {
    let newest = written.first().map_or(0, |position| position.seen);
    let kept = written.iter().filter(|position| position.seen.saturating_add(WEEK) > newest);
    // A name that is not text is not kept as it was.
    let path = |position: &Position| path_text(&position.path).into();
    kept.map(|position| (position.id, Position { path: path(position), ..position.clone() })).collect()
}

/// After any damage to both files what is known is one of them, as a whole, or nothing.
fn check_damaged(plan: &Plan, dir: &Path) {
    let [before, now] =
        [&plan.before, &plan.now].map(|entries| entries.iter().map(Entry::position).collect::<Vec<_>>());
    let checkpoint = Checkpoint::new(dir);
    checkpoint.write(before.iter().cloned()).expect("written");
    checkpoint.write(now.iter().cloned()).expect("written");
    let known = Checkpoint::new(dir).load();
    assert!(!known.first_run && known.complaints.is_empty(), "{:?}", known.complaints);
    assert_eq!(known.positions, expected(&now));

    let is_damaged = Damage::apply_to(&plan.damage, &dir.join("positions"));
    let is_damaged_before = Damage::apply_to(&plan.damage_before, &dir.join("positions.old"));
    let known = Checkpoint::new(dir).load();
    assert!(!known.first_run);
    match known.complaints.len() {
        // A flipped bit may do no harm, such as the case of a digit in the checksum.
        0 => assert_eq!(known.positions, expected(&now)),
        1 => assert!(is_damaged && known.positions == expected(&before)),
        2 => assert!(is_damaged && is_damaged_before && known.positions.is_empty()),
        _ => panic!("{:?}", known.complaints),
    }
    assert!(known.complaints.is_empty() || dir.join("positions.corrupt").exists());
}

/// Whatever stands in a file with a good checksum is read or refused, and what is read is written and read again as the same.
fn check_foreign(body: &[u8], dir: &Path) {
    let header = format!("nodewarden-positions 1 {:08x} {}\n", crc32fast::hash(body), body.len());
    let _ = fs::remove_file(dir.join("positions.old"));
    fs::write(dir.join("positions"), [header.as_bytes(), body].concat()).expect("written");
    let checkpoint = Checkpoint::new(dir);
    let known = checkpoint.load();
    assert!(!known.first_run && known.complaints.len() <= 1);
    assert!(known.complaints.is_empty() || known.positions.is_empty());
    let mut positions: Vec<Position> = known.positions.into_values().collect();
    positions.sort_by_key(|position| std::cmp::Reverse(position.seen));
    checkpoint.write(positions.iter().cloned()).expect("written");
    let known = checkpoint.load();
    assert_eq!((known.complaints.len(), known.positions), (0, expected(&positions)));
}
