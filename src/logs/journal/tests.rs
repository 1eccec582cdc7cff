//! The journal's reader against files made for it, files that journald's own code wrote, and damaged ones.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use prometheus::Registry;
use proptest::prelude::*;
use tokio::sync::mpsc;

use super::{testing::Builder, unpack::Packing, *};
use crate::{
    logs::{
        batch::{Batch, BatchLimits, records},
        checkpoint::{Known, Position},
        discover::Source,
        feed::{FeedLimits, Feeds},
        record::FileId,
    },
    metrics::own::Own,
    testing::cases,
};

/// A packed message: `MESSAGE=` and sixty times "packed with xz ".
const XZ: &[u8] = b"\xfd\x37\x7a\x58\x5a\x00\x00\x00\xff\x12\xd9\x41\x02\x00\x21\x01\x10\x00\x00\x00\xa8\x70\x8e\x86\
    \xe0\x03\x8b\x00\x23\x5d\x00\x26\x91\x46\xc0\xd1\x94\x57\xe4\x94\xc7\xf1\x43\xf1\xe1\x57\x71\xac\xd5\xb2\xd5\xb5\
    \xe9\x71\x5f\x25\x1c\xb6\x26\x64\x8c\x0f\x20\x51\xe5\x00\x00\x00\x00\x01\x37\x8c\x07\x00\x00\x00\xe2\x86\xeb\x33\
    \xa8\x00\x0a\xfc\x02\x00\x00\x00\x00\x00\x59\x5a";

/// Feeds over a directory, with a sink that keeps what it is given by identity and number, as an index does.
struct Scene {
    directory: tempfile::TempDir,
    feeds: Feeds,
    output: Output,
    queue: mpsc::Receiver<Batch>,
    own: Own,
    now: Instant,
    max_line: usize,
    /// What the checkpoint said last.
    positions: Vec<Position>,
    delivered: BTreeMap<([u8; 12], u64), String>,
    offered: usize,
}

impl Scene {
    fn new() -> Self {
        Self::over(
            tempfile::tempdir().expect("a directory"),
            Known { first_run: true, ..Known::default() },
            1 << 30,
        )
    }

    fn over(directory: tempfile::TempDir, known: Known, history: u64) -> Self {
        let own = Own::new(Registry::new()).expect("a registry");
        let max_line = 1000;
        let (feeds, output, queue) = start(directory.path(), known, history, max_line, &own);
        let (delivered, positions) = Default::default();
        let now = Instant::now();
        Self { directory, feeds, output, queue, own, now, max_line, positions, delivered, offered: 0 }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// kill -9: what was not written into the checkpoint is forgotten.
    fn crash(&mut self) {
        let positions = self.positions.iter().map(|position| (position.id, position.clone())).collect();
        let known = Known { positions, ..Known::default() };
        (self.feeds, self.output, self.queue) =
            start(self.directory.path(), known, 1 << 30, self.max_line, &self.own);
    }

    fn step(&mut self, heard: bool) {
        self.now += Duration::from_secs(31);
        self.feeds.look(self.now);
        loop {
            let had_room = self.feeds.read(&mut self.output, self.now);
            self.output.close_aged(self.now, true);
            let mut any = false;
            while let Ok(batch) = self.queue.try_recv() {
                any = true;
                self.keep(batch, heard);
            }
            if had_room && !self.feeds.has_more() || !any {
                break;
            }
        }
        if heard {
            self.positions = self.feeds.positions().collect();
        }
    }

    fn keep(&mut self, batch: Batch, heard: bool) {
        for (file, record) in records(&batch) {
            self.offered += 1;
            let key = (batch.files[file].facts.id.0, record.position);
            let text = String::from_utf8_lossy(record.text).into_owned();
            if let Some(known) = self.delivered.insert(key, text.clone()) {
                assert_eq!(known, text, "one id stands for one entry");
            }
        }
        if heard {
            for part in &batch.files {
                self.feeds.settled(batch.number, part);
            }
        }
        self.output.give_back(batch);
    }

    fn texts(&self) -> Vec<&str> {
        self.delivered.values().map(String::as_str).collect()
    }

    fn lost(&self) -> u64 {
        self.own.logs.ledger.total().lost.of("journal_damaged").lines
    }
}

fn start(
    directory: &Path,
    mut known: Known,
    history: u64,
    max_line: usize,
    own: &Own,
) -> (Feeds, Output, mpsc::Receiver<Batch>) {
    let source = Source::Journal { paths: vec![directory.into()] };
    let limits = FeedLimits { first_run_bytes: history, max_line };
    let feeds = Feeds::new(&[(source, Encoding::Records)], &mut known, limits, own.logs.clone());
    let (batches, queue) = mpsc::channel(3);
    let limits = BatchLimits { max_bytes: 20_000, max_wait: Duration::from_secs(1), buffers: 3 };
    (feeds, Output::new(limits, batches, max_line, own.logs.clone()), queue)
}

fn expected(name: &str, seqnums: impl Iterator<Item = u64>) -> Vec<String> {
    seqnums.map(|seqnum| format!("{name} {seqnum}")).collect()
}

#[test]
fn entries_come_in_the_order_of_their_numbers_whatever_file_they_are_in() {
    for compact in [false, true] {
        let mut scene = Scene::new();
        let (mut system, mut user) = (Builder::new(7, compact), Builder::new(7, compact));
        for seqnum in 1..=100 {
            let file = if seqnum % 3 == 0 { &mut user } else { &mut system };
            file.message(seqnum, &format!("entry {seqnum}"));
        }
        system.write(&scene.path("system.journal"));
        user.write(&scene.path("user-1000.journal"));
        scene.step(true);
        assert_eq!(scene.texts(), expected("entry", 1..=100), "compact: {compact}");
        assert_eq!(scene.offered, 100);
        let positions: Vec<u64> = scene.positions.iter().map(|position| position.offset).collect();
        assert_eq!(positions, [101]);
    }
}

#[test]
fn a_journal_that_grows_is_followed_over_rotations() {
    let mut scene = Scene::new();
    let machine = scene.path("0123456789abcdef0123456789abcdef");
    fs::create_dir(&machine).expect("made");
    let mut file = Builder::new(7, true);
    for round in 0..8_u64 {
        file.messages("entry", round * 30 + 1..=round * 30 + 30);
        file.write(&machine.join("system.journal"));
        if round % 2 == 0 {
            scene.step(true);
        }
        if round % 3 == 2 {
            file.archive();
            file.write(&machine.join("system.journal"));
            fs::rename(machine.join("system.journal"), machine.join(format!("system@{round}.journal")))
                .expect("renamed");
            file = Builder::new(7, true);
        }
    }
    scene.step(true);
    assert_eq!(scene.texts(), expected("entry", 1..=240));
    assert_eq!(scene.offered, 240);
}

#[test]
fn a_vacuumed_file_is_read_to_its_end() {
    let mut scene = Scene::new();
    let mut file = Builder::new(7, false);
    file.messages("entry", 1..=200);
    file.archive();
    file.write(&scene.path("system@1.journal"));
    // Opened, not read.
    scene.feeds.look(scene.now);
    fs::remove_file(scene.path("system@1.journal")).expect("removed");
    let mut next = Builder::new(7, false);
    next.messages("entry", 201..=210);
    next.write(&scene.path("system.journal"));
    scene.step(true);
    assert_eq!(scene.texts(), expected("entry", 1..=210));
    scene.step(true);
    assert_eq!(scene.feeds.status(scene.now).len(), 1);
}

#[test]
fn a_new_sequence_begins_with_its_first_entry() {
    let mut scene = Scene::new();
    let mut file = Builder::new(7, false);
    file.messages("old", 1..=20);
    file.write(&scene.path("system.journal"));
    scene.step(true);
    let mut file = Builder::new(8, false);
    file.messages("new", 1..=20);
    file.write(&scene.path("other.journal"));
    scene.step(true);
    assert_eq!(scene.delivered.len(), 40);
    assert_eq!(scene.offered, 40);
}

#[test]
fn an_empty_file_takes_the_sequence_of_its_first_entry() {
    let mut scene = Scene::new();
    Builder::new(9, true).write(&scene.path("system.journal"));
    scene.step(true);
    let mut file = Builder::new(7, true);
    file.messages("entry", 1..=5);
    file.write(&scene.path("system.journal"));
    scene.step(true);
    assert_eq!(scene.texts(), expected("entry", 1..=5));
    assert_eq!(scene.positions.len(), 1);
}

#[test]
fn a_restart_goes_on_after_the_last_confirmed_entry() {
    let mut scene = Scene::new();
    let mut file = Builder::new(7, true);
    file.messages("entry", 1..=50);
    file.write(&scene.path("system.journal"));
    scene.step(true);
    file.messages("entry", 51..=70);
    file.write(&scene.path("system.journal"));
    // These arrive, but nobody hears of it.
    scene.step(false);
    scene.crash();
    scene.step(true);
    scene.crash();
    scene.step(true);
    assert_eq!(scene.texts(), expected("entry", 1..=70));
    assert_eq!(scene.offered, 90, "the 20 that were not confirmed came again, under the same ids");
}

/// The archived file is gone from its directory by the time it is wanted again.
#[test]
fn a_batch_that_is_held_is_read_again_after_a_pause() {
    let mut scene = Scene::new();
    let mut file = Builder::new(7, true);
    file.messages("entry", 1..=50);
    file.archive();
    file.write(&scene.path("system@1.journal"));
    scene.feeds.look(scene.now);
    scene.feeds.read(&mut scene.output, scene.now);
    scene.output.close_aged(scene.now, true);
    fs::remove_file(scene.path("system@1.journal")).expect("removed");
    scene.now += Duration::from_secs(31);
    scene.feeds.look(scene.now);
    let batch = scene.queue.try_recv().expect("a batch");
    // The first pause is a second.
    let late = scene.now + Duration::from_secs(59);
    scene.feeds.set_back(&batch.files[0], late, Duration::from_secs(60));
    scene.output.give_back(batch);
    scene.step(true);
    assert_eq!(scene.texts().len(), 0);
    scene.step(true);
    assert_eq!(scene.texts(), expected("entry", 1..=50));
    assert_eq!(scene.positions[0].offset, 51);
}

#[test]
fn the_first_run_reads_so_much_history() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut old = Builder::new(7, false);
    old.messages("entry", 1..=1000);
    old.archive();
    old.write(&directory.path().join("system@1.journal"));
    let mut new = Builder::new(7, false);
    new.messages("entry", 1001..=2000);
    new.write(&directory.path().join("system.journal"));
    let history = new.bytes.len() as u64 * 3 / 2;
    let mut scene = Scene::over(directory, Known { first_run: true, ..Known::default() }, history);
    scene.step(true);
    let first: u64 = scene.delivered.keys().next().map(|(_, number)| *number).expect("entries");
    assert!((400..600).contains(&first), "{first}");
    assert_eq!(scene.texts(), expected("entry", first..=2000));
    // Nothing at all is as good.
    let directory = std::mem::replace(&mut scene.directory, tempfile::tempdir().expect("a directory"));
    let mut scene = Scene::over(directory, Known::default(), 0);
    scene.step(true);
    assert_eq!(scene.delivered.len(), 0);
    new.messages("entry", 2001..=2003);
    new.write(&scene.path("system.journal"));
    scene.step(true);
    assert_eq!(scene.texts(), expected("entry", 2001..=2003));
}

#[test]
fn packed_fields_are_unpacked_and_long_ones_cut() {
    let mut scene = Scene::new();
    let long = format!("MESSAGE={}", "long ".repeat(1000));
    let mut file = Builder::new(7, true);
    let packed = zstd::bulk::compress(long.as_bytes(), 3).expect("packed");
    let zstd = file.data(&packed, Packing::Zstd);
    // A token with 15 and more literals, and no match.
    let lz4 = [&45_u64.to_le_bytes()[..], b"\xf0\x1eMESSAGE=packed with lz4, as older ones do 123"].concat();
    let lz4 = file.data(&lz4, Packing::Lz4);
    let xz = file.data(XZ, Packing::Xz);
    let plain = file.data(long.as_bytes(), Packing::None);
    for (number, data) in [zstd, lz4, xz, plain].into_iter().enumerate() {
        file.entry_of(number as u64 + 1, &[data]);
    }
    file.write(&scene.path("system.journal"));
    scene.step(true);
    let cut = format!("{} [cut by nodewarden]", "long ".repeat(200));
    let texts = [&*cut, "packed with lz4, as older ones do 123", &"packed with xz ".repeat(60), &cut];
    assert_eq!(scene.texts(), texts);
    let lost = scene.own.logs.ledger.total().lost.of("line_too_long").bytes;
    assert_eq!(lost, 2 * 4000);
}

#[test]
fn a_file_that_is_none_is_set_aside_by_name() {
    let mut scene = Scene::new();
    fs::write(scene.path("system.journal"), "no journal").expect("written");
    scene.step(true);
    assert!(scene.feeds.status(scene.now).is_empty(), "it may be in the making");
    let file = fs::File::options().write(true).open(scene.path("system.journal")).expect("opened");
    file.set_modified(SystemTime::now() - Duration::from_secs(60)).expect("set");
    let mut good = Builder::new(7, false);
    good.messages("entry", 1..=5);
    good.write(&scene.path("user-1000.journal"));
    scene.step(true);
    assert_eq!(scene.texts(), expected("entry", 1..=5));
    let rows = scene.feeds.status(scene.now);
    let row = rows.iter().find(|row| row.state == "error").expect("a row");
    assert!(row.path.ends_with("system.journal") && row.last_error.is_some(), "{row:?}");
    // It becomes one.
    let mut file = Builder::new(7, false);
    file.messages("entry", 6..=9);
    file.write(&scene.path("system.journal"));
    scene.step(true);
    assert_eq!(scene.texts(), expected("entry", 1..=9));
}

#[test]
fn an_entry_that_is_damaged_does_not_hide_the_others() {
    let mut scene = Scene::new();
    let mut file = Builder::new(7, false);
    file.messages("entry", 1..=100);
    for place in [20, 50, 51, 99] {
        let at = file.places[place] as usize;
        file.bytes[at..at + 8].fill(0xff);
    }
    file.write(&scene.path("system.journal"));
    scene.step(true);
    assert_eq!(scene.texts().len(), 96);
    assert_eq!(scene.lost(), 4);
}

/// Files that systemd-journal-remote 252 wrote, with hash tables, shared fields and fields packed with zstd.
#[test]
fn files_of_journald_are_read_as_journalctl_reads_them() {
    for (packed, is_compact) in [
        (&include_bytes!("fixtures/regular.journal.zst")[..], false),
        (&include_bytes!("fixtures/compact.journal.zst")[..], true),
    ] {
        let mut scene = Scene::new();
        scene.max_line = 1 << 20;
        scene.crash();
        let bytes = zstd::stream::decode_all(packed).expect("unpacked");
        fs::write(scene.path("system.journal"), bytes).expect("written");
        let file = JournalFile::open(&scene.path("system.journal")).expect("opened");
        assert_eq!(file.header.entries, 120, "compact: {is_compact}");
        scene.feeds = start(scene.directory.path(), Known::default(), u64::MAX, 1 << 20, &scene.own).0;
        scene.step(true);
        let expected: Vec<String> = (0..120)
            .map(|number| {
                let tail = if number % 20 == 0 { "x".repeat(2000) } else { String::new() };
                format!("app[{}]: message {number}{tail}", 100 + number % 7)
            })
            .collect();
        assert_eq!(scene.texts(), expected);
    }
}

/// Every entry, read from a file as bytes alone; whatever they are, this ends, and no panic is in it.
fn read_all(bytes: &[u8]) -> Vec<(u64, String)> {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("system.journal");
    fs::write(&path, bytes).expect("written");
    let Ok(mut file) = JournalFile::open(&path) else { return Vec::new() };
    let mut fields = Fields::default();
    let mut found = Vec::new();
    let mut steps = 0;
    let _ = file.seek(5);
    loop {
        steps += 1;
        assert!(steps < 100_000, "it goes round in circles");
        match file.peek() {
            Ok(Step::Entry(entry)) => {
                if file.read(&entry, 1000, &mut fields).is_ok() {
                    let message = fields.get(Slot::MESSAGE).unwrap_or_default();
                    found.push((entry.seqnum, String::from_utf8_lossy(message).into_owned()));
                }
                file.advance();
            }
            Ok(Step::Unreadable) => file.advance(),
            Ok(Step::End) | Err(_) => return found,
        }
    }
}

proptest! {
    #![proptest_config(cases(100))]

    /// A few bytes of a file are other ones: what is not touched by that is read, and nothing else is made up in number.
    #[test]
    fn a_damaged_file_is_read_without_a_panic(
        compact: bool,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in proptest::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let mut file = Builder::new(7, compact);
        file.messages("entry", 1..=60);
        let mut bytes = file.bytes;
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let found = read_all(&bytes);
        prop_assert!(found.len() <= 64, "{}", found.len());
    }

    /// Links and sizes are what damage hits worst: every eight bytes may become any number.
    #[test]
    fn wrong_links_and_sizes_lead_nowhere(
        compact: bool,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u64>(), 0_u8..3), 1..5),
    ) {
        let mut file = Builder::new(7, compact);
        file.messages("entry", 1..=60);
        let mut bytes = file.bytes;
        for (place, other, number, kind) in changes {
            let length = bytes.len();
            let at = place.index(length / 8) * 8;
            let value = match kind {
                0 => number,
                1 => other.index(length) as u64 & !7,
                _ => number >> 40,
            };
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        read_all(&bytes);
    }

    #[test]
    fn any_bytes_after_a_header_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        let mut file = Builder::new(7, false).bytes;
        file[152] = 50;
        file[160] = 50;
        file[177] = 1;
        file.extend_from_slice(&bytes);
        read_all(&file);
    }

    /// Growth, rotation, vacuum and crashes in any order: every entry is delivered, under one id.
    #[test]
    fn every_entry_is_delivered_once(actions in proptest::collection::vec(0_u8..10, 1..40)) {
        let mut scene = Scene::new();
        let mut file = Builder::new(7, true);
        let mut user = Builder::new(7, true);
        let (mut seqnum, mut rotations) = (0, 0);
        let mut written = BTreeSet::new();
        for action in actions {
            match action {
                0..=3 => {
                    for _ in 0..=action * 5 {
                        seqnum += 1;
                        let which = if seqnum % 4 == 0 { &mut user } else { &mut file };
                        which.message(seqnum, &format!("entry {seqnum}"));
                        written.insert(format!("entry {seqnum}"));
                    }
                    file.write(&scene.path("system.journal"));
                    user.write(&scene.path("user-1000.journal"));
                }
                4 | 5 => scene.step(true),
                6 => scene.step(false),
                7 => scene.crash(),
                _ => {
                    rotations += 1;
                    file.archive();
                    file.write(&scene.path("system.journal"));
                    let archived = scene.path(&format!("system@{rotations}.journal"));
                    fs::rename(scene.path("system.journal"), &archived).expect("renamed");
                    file = Builder::new(7, true);
                }
            }
        }
        scene.step(true);
        scene.step(true);
        let delivered: BTreeSet<String> = scene.delivered.values().cloned().collect();
        prop_assert_eq!(scene.delivered.len(), delivered.len(), "nothing twice");
        prop_assert_eq!(delivered, written, "nothing lost");
    }
}

/// A list may not go on within itself: with many such lists the same entries would be passed millions of times.
#[test]
fn lists_of_entries_do_not_overlap() {
    let mut file = Builder::new(7, false);
    file.messages("entry", 1..=4);
    let mut bytes = file.bytes;
    let first =
        usize::try_from(u64::from_le_bytes(*bytes[176..].first_chunk().expect("a place"))).expect("small");
    let inner = first + 32;
    bytes[first + 16..first + 24].copy_from_slice(&(inner as u64).to_le_bytes());
    bytes[inner..inner + 24].fill(0);
    bytes[inner] = 6;
    bytes[inner + 8] = 24 + 8 * 4;
    bytes[152] = 8;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("system.journal");
    fs::write(&path, &bytes).expect("written");
    let mut file = JournalFile::open(&path).expect("opened");
    file.seek(1).expect("sought");
    (0..4).for_each(|_| file.advance());
    assert!(matches!(file.peek(), Err(Trouble::Damaged("its entries lead backwards"))));
}

#[test]
fn positions_of_feeds_are_told_from_those_of_files() {
    let scene = {
        let mut scene = Scene::new();
        let mut file = Builder::new(7, false);
        file.messages("entry", 1..=5);
        file.write(&scene.path("system.journal"));
        scene.step(true);
        scene
    };
    let file = Position {
        content: None,
        id: FileId([3; 12]),
        offset: 10,
        generation: 0,
        inode: crate::logs::record::Inode { device: 1, number: 2, birth: 3 },
        path: "/var/log/syslog".into(),
        seen: 5,
    };
    let all = scene.positions.iter().chain([&file]).map(|position| (position.id, position.clone()));
    let mut known = Known { positions: all.collect(), ..Known::default() };
    let limits = FeedLimits { first_run_bytes: 0, max_line: 10 };
    // Without its source the position of a feed stays.
    let feeds = Feeds::new(&[], &mut known, limits, scene.own.logs.clone());
    assert_eq!(known.positions.into_values().collect::<Vec<_>>(), [file]);
    assert_eq!(feeds.positions().collect::<Vec<_>>(), scene.positions);
}
