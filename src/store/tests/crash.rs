//! Crashes and damage: what was synced is there once, what is damaged is skipped.

use proptest::prelude::*;

use super::*;

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
    assert_eq!(writer.positions(&[([1; 12], 0)].into()).expect("read")[&[1; 12]].len(), 13);
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

#[test]
fn a_number_after_which_there_is_no_next_one_is_not_ours() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut head = b"NWhd\x01\0\0\0".to_vec();
    head.extend_from_slice(&u64::MAX.to_le_bytes());
    head.extend_from_slice(&crc32fast::hash(&head).to_le_bytes());
    fs::write(dir.path().join("head"), head).expect("written");
    fs::write(dir.path().join(format!("{}.seg", u64::MAX)), b"").expect("written");
    let (mut writer, recovered) = open(dir.path(), SMALL);
    assert!(recovered.messages[0].contains("is damaged"), "{recovered:?}");
    append(&mut writer, &line(1, noise(1, 90_000)));
    append(&mut writer, &line(2, noise(2, 90_000)));
    writer.sync(at(0)).expect("synced");
    assert_eq!(positions(&all(&writer.reader())), [1, 2]);
}

#[test]
fn changed_bytes_never_change_a_record() {
    let dir = tempfile::tempdir().expect("a directory");
    let lines = mixed_store(dir.path());
    let whole = files(dir.path());
    let paths: Vec<&PathBuf> = whole.keys().collect();
    proptest!(cases(64), |(flips in prop::collection::vec((any::<u32>(), 0_u8..8), 1..6))| {
        put_files(dir.path(), &whole);
        for (place, bit) in flips {
            let path = paths[place as usize % paths.len()];
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
    });
}

#[derive(Debug, Clone, Copy)]
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
        let disk = files(dir.path());
        Self { dir, writer, lines: Vec::new(), synced: 0, disk, next: 0 }
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
    #![proptest_config(cases(64))]

    #[test]
    fn whatever_happens_synced_records_are_there_once_and_in_order(actions in actions()) {
        let mut model = Model::new();
        actions.into_iter().for_each(|action| model.step(action));
        let lines = model.lines.clone();
        prop_assert_eq!(all(&model.writer().reader()), lines.as_slice());
        let mut newest_first: Vec<(i64, usize)> = lines.iter().enumerate().map(|(at, line)| (line.2, at)).collect();
        newest_first.sort_unstable_by(|left, right| right.cmp(left));
        let expected: Vec<u64> = newest_first.iter().map(|&(_, at)| lines[at].1).collect();
        prop_assert_eq!(positions(&search(&model.writer().reader(), &query("")).0), expected);
        model.step(Action::Sync);
        let from = (0..5).map(|id| ([id; 12], 5)).collect();
        let mut found = model.writer().positions(&from).expect("read");
        let greatest = model.writer().greatest_positions().expect("read");
        for id in 0..5 {
            let of_id = lines.iter().filter(|line| line.0 == id && line.1 >= 5).map(|line| line.1);
            prop_assert_eq!(found.remove(&[id; 12]).unwrap_or_default(), of_id.collect::<Vec<_>>());
            let last = lines.iter().filter(|line| line.0 == id).map(|line| line.1).max();
            prop_assert_eq!(greatest.get(&[id; 12]).copied(), last);
        }
    }
}
