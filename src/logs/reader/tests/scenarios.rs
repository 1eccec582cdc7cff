//! How a log file may live and die, one test for each.

use std::os::unix::fs::MetadataExt;

use super::*;

/// A scene over one plain file and what it is rotated to.
fn plain() -> Scene {
    let logs = tempfile::tempdir().expect("a directory");
    let home = logs.path().to_owned();
    let include = vec![glob::Pattern::new(&home.join("0.log").to_string_lossy()).expect("a pattern")];
    // Not the very first run: there all of this is history.
    let mut scene = Scene::of(logs, home, Source::Files { include, exclude: vec![] });
    scene.step(Duration::ZERO);
    scene
}

impl Scene {
    fn lines(&mut self, count: usize) {
        (0..count).for_each(|_| self.line(false));
    }

    /// A line without a time of its own.
    fn plain_line(&mut self, text: &str) {
        self.append(format!("{text}\n").as_bytes());
        self.written.insert(text.as_bytes().to_vec());
    }

    fn start(&mut self) {
        self.crash();
    }

    /// What the sink has more or less often than it was written, of plain files without what a runtime puts before it.
    fn odd(&self) -> Vec<(String, i32)> {
        let mut counts: BTreeMap<String, i32> = BTreeMap::new();
        for text in self.delivered.values() {
            let text = String::from_utf8_lossy(text);
            *counts.entry(text.rsplit(" stdout F ").next().unwrap_or_default().to_owned()).or_default() += 1;
        }
        for text in &self.written {
            *counts.entry(String::from_utf8_lossy(text).into_owned()).or_default() -= 1;
        }
        counts.into_iter().filter(|(_, count)| *count != 0).collect()
    }

    #[track_caller]
    fn assert_each_once(&self) {
        let odd = self.odd();
        assert!(odd.is_empty(), "{} lines: {:?}", odd.len(), &odd[..odd.len().min(4)]);
    }

    /// Nothing was given to the sink again.
    #[track_caller]
    fn assert_offered_once(&self) {
        self.assert_each_once();
        assert_eq!(self.offered, self.written.len());
    }

    fn copytruncate_to(&self, to: &str) {
        fs::copy(self.path("0.log"), self.path(to)).expect("copied");
        fs::write(self.path("0.log"), "").expect("truncated");
    }

    fn spilled_files(&self) -> usize {
        fs::read_dir(self.state.path().join("spill")).map_or(0, |entries| entries.count())
    }

    /// Descriptors of deleted files under the folder of the logs.
    fn deleted_and_open(&self) -> usize {
        let links =
            fs::read_dir("/proc/self/fd").expect("listed").flatten().flat_map(|fd| fs::read_link(fd.path()));
        let home = self.home.to_string_lossy().into_owned();
        links
            .map(|link| link.to_string_lossy().into_owned())
            .filter(|link| link.starts_with(&home) && link.ends_with("(deleted)"))
            .count()
    }
}

#[test]
fn a_compressed_file_is_read_on_when_it_is_the_only_copy_left() {
    let mut scene = Scene::new();
    scene.lines(300);
    scene.step(Duration::from_secs(1));
    scene.deliver(0, true);
    scene.rotate();
    scene.lines(10);
    scene.rest();
    scene.compress(&scene.rotated()[0]);
    scene.rest();
    assert_eq!((scene.deleted_and_open(), scene.spilled_files()), (0, 0));
    scene.settle();
    scene.assert_offered_once();
}

#[test]
fn a_file_compressed_while_the_agent_was_down_is_read_from_the_right_offset() {
    let mut scene = Scene::new();
    scene.lines(300);
    scene.step(Duration::from_secs(1));
    let in_batch = scene.in_flight[0].len();
    scene.deliver(0, true);
    scene.step(Duration::from_secs(2));
    scene.kill();
    scene.rotate();
    scene.lines(10);
    scene.compress(&scene.rotated()[0]);
    scene.start();
    scene.settle();
    assert!(in_batch > 0);
    scene.assert_offered_once();
}

#[test]
fn a_file_never_seen_and_compressed_while_the_agent_was_down_is_read() {
    let mut scene = Scene::new();
    scene.lines(3);
    scene.settle();
    scene.kill();
    scene.rotate();
    scene.lines(5);
    scene.rotate();
    scene.lines(5);
    scene.rotated().iter().for_each(|path| scene.compress(path));
    scene.start();
    scene.settle();
    scene.assert_offered_once();
}

#[test]
fn a_file_compressed_after_it_was_delivered_is_not_read_again_nor_after_a_restart() {
    for mut scene in [Scene::new(), plain()] {
        scene.lines(30);
        scene.settle();
        scene.rotate();
        scene.lines(10);
        scene.settle();
        scene.compress(&scene.rotated()[0]);
        scene.lines(1);
        scene.settle();
        scene.start();
        scene.lines(1);
        scene.settle();
        scene.rest();
        scene.assert_offered_once();
    }
}

#[test]
fn on_the_very_first_run_compressed_files_are_history() {
    let mut scene = Scene::new();
    scene.append(b"2026-11-21T09:00:00.000000001Z stdout F long ago\n");
    scene.rotate();
    scene.compress(&scene.rotated()[0]);
    scene.lines(3);
    scene.settle();
    scene.start();
    scene.lines(1);
    scene.settle();
    scene.assert_offered_once();
}

#[test]
fn at_the_first_run_after_a_release_that_passed_over_compressed_files_they_are_history() {
    let mut scene = Scene::new();
    scene.lines(3);
    scene.settle();
    scene.kill();
    scene.append(b"");
    // As that release wrote it.
    let path = scene.state.path().join("positions");
    let text = fs::read_to_string(&path).expect("read");
    let body = text.split_once('\n').expect("a header").1;
    let mut old: serde_json::Value = serde_json::from_str(body.trim()).expect("one entry");
    old.as_object_mut().expect("an object").retain(|key, _| {
        ["id", "offset", "generation", "device", "inode", "birth", "path", "seen"].contains(&key.as_str())
    });
    let body = format!("{old}\n");
    let header = format!("nodewarden-positions 1 {:08x} {}\n", crc32fast::hash(body.as_bytes()), body.len());
    fs::write(&path, header + &body).expect("written");
    fs::rename(scene.path("0.log"), scene.path("9.log")).expect("renamed");
    scene.append(b"2026-11-21T09:00:00.000000001Z stdout F long ago\n");
    scene.rotate();
    scene.compress(&scene.rotated()[0]);
    fs::rename(scene.path("9.log"), scene.path("0.log")).expect("renamed");
    scene.start();
    scene.lines(2);
    scene.settle();
    scene.assert_offered_once();
}

#[test]
fn a_compressed_plain_file_of_logrotate_is_read_on() {
    for is_down in [false, true] {
        let mut scene = plain();
        scene.lines(300);
        scene.step(Duration::from_secs(1));
        scene.deliver(0, true);
        scene.step(Duration::from_secs(2));
        if is_down {
            scene.kill();
        }
        // `delaycompress`: two rotations later.
        fs::rename(scene.path("0.log"), scene.path("0.log.1")).expect("renamed");
        scene.lines(5);
        fs::rename(scene.path("0.log.1"), scene.path("0.log.2")).expect("renamed");
        fs::rename(scene.path("0.log"), scene.path("0.log.1")).expect("renamed");
        scene.lines(5);
        scene.compress(&scene.path("0.log.2"));
        if is_down {
            scene.start();
        }
        scene.settle();
        scene.assert_offered_once();
        fs::rename(scene.path("0.log.2.gz"), scene.path("0.log.3.gz")).expect("renamed");
        scene.start();
        scene.lines(1);
        scene.settle();
        scene.assert_offered_once();
    }
}

#[test]
fn a_file_rotated_while_the_agent_was_down_is_read_on() {
    for mut scene in [Scene::new(), plain()] {
        scene.lines(5);
        scene.settle();
        scene.kill();
        scene.lines(5);
        scene.rotate();
        scene.lines(5);
        scene.start();
        scene.settle();
        scene.assert_offered_once();
    }
}

#[test]
fn a_file_rotated_twice_between_looks_is_read() {
    for mut scene in [Scene::new(), plain()] {
        scene.lines(5);
        scene.settle();
        for _ in 0..2 {
            scene.lines(5);
            scene.rotate();
        }
        scene.lines(5);
        scene.settle();
        scene.assert_offered_once();
    }
}

#[test]
fn what_copytruncate_took_away_is_read_from_the_copy() {
    for mut scene in [Scene::new(), plain()] {
        scene.lines(300);
        scene.step(Duration::from_secs(1));
        // The sink has some, some is in flight, some was not read.
        scene.deliver(0, true);
        scene.copytruncate_to("0.log.1");
        scene.lines(20);
        scene.step(Duration::from_millis(300));
        scene.step(Duration::from_millis(300));
        scene.settle();
        scene.rest();
        scene.assert_offered_once();
        assert_eq!(scene.lost("truncated"), 0);
        // And again, with the copy moved on.
        fs::rename(scene.path("0.log.1"), scene.path("0.log.2")).expect("renamed");
        scene.copytruncate_to("0.log.1");
        scene.lines(20);
        scene.settle();
        scene.assert_offered_once();
        scene.start();
        scene.lines(1);
        scene.settle();
        scene.rest();
        scene.assert_offered_once();
    }
}

#[test]
fn what_copytruncate_took_away_while_the_agent_was_down_is_read_from_the_copy() {
    // The file is empty, shorter or longer than before when the agent is back.
    for new_lines in [0, 5, 500] {
        for mut scene in [Scene::new(), plain()] {
            scene.lines(300);
            scene.step(Duration::from_secs(1));
            scene.deliver(0, true);
            scene.step(Duration::from_secs(2));
            scene.kill();
            scene.lines(3);
            scene.copytruncate_to("0.log.1");
            scene.lines(new_lines);
            scene.start();
            scene.settle();
            scene.lines(1);
            scene.settle();
            scene.rest();
            scene.assert_offered_once();
        }
    }
}

#[test]
fn copytruncate_of_a_file_with_the_same_first_line_each_time_is_told_apart() {
    for is_down in [false, true] {
        let mut scene = plain();
        scene.append(b"log opened\n");
        scene.plain_line("before the copy");
        scene.settle();
        if is_down {
            scene.kill();
        }
        scene.plain_line("just before the copy");
        scene.copytruncate_to("0.log.1");
        scene.append(b"log opened\n");
        scene.plain_line("after the copy, and longer than what was there before");
        scene.plain_line("much longer");
        if is_down {
            scene.start();
        }
        scene.settle();
        scene.rest();
        let texts: BTreeSet<Vec<u8>> = scene.delivered.values().cloned().collect();
        let expected: BTreeSet<Vec<u8>> =
            scene.written.iter().cloned().chain([b"log opened".to_vec()]).collect();
        assert_eq!(texts, expected, "down: {is_down}");
        assert_eq!((scene.delivered.len(), scene.offered), (6, 6), "down: {is_down}");
    }
}

#[test]
fn a_file_truncated_without_a_copy_counts_what_was_not_read() {
    let mut scene = plain();
    scene.plain_line("read");
    scene.settle();
    scene.append(b"never read\n");
    // Seen, but all buffers are on their way: as if it was not read.
    scene.reader.blocked = true;
    scene.step(Duration::from_millis(300));
    fs::write(scene.path("0.log"), "").expect("truncated");
    scene.step(Duration::from_millis(300));
    scene.reader.blocked = false;
    scene.plain_line("new");
    scene.settle();
    scene.rest();
    scene.assert_offered_once();
    assert_eq!(scene.lost("truncated"), 11);
}

#[test]
fn a_file_regrown_while_the_agent_was_down_is_read_from_its_start() {
    let mut scene = plain();
    scene.append(b"log opened\n");
    scene.plain_line("one");
    scene.settle();
    scene.kill();
    fs::write(scene.path("0.log"), "log opened\n").expect("truncated");
    scene.plain_line("two, which is more than there was");
    scene.start();
    scene.settle();
    assert_eq!((scene.delivered.len(), scene.offered), (4, 4));
}

#[test]
fn a_file_deleted_and_made_again_is_another_one() {
    for is_down in [false, true] {
        for mut scene in [Scene::new(), plain()] {
            scene.lines(5);
            scene.settle();
            if is_down {
                scene.kill();
            }
            fs::remove_file(scene.path("0.log")).expect("removed");
            scene.lines(7);
            if is_down {
                scene.start();
            }
            scene.settle();
            scene.assert_offered_once();
        }
    }
}

#[test]
fn a_file_that_got_the_inode_of_another_one_while_the_agent_was_down_is_read_from_its_start() {
    let mut scene = plain();
    scene.lines(5);
    scene.settle();
    scene.kill();
    drop(std::mem::replace(&mut scene.reader, Scene::new().reader));
    let number = |path: &Path| fs::metadata(path).expect("there").ino();
    let before = number(&scene.path("0.log"));
    fs::remove_file(scene.path("0.log")).expect("removed");
    // Where numbers are given out in another order, it is at least another file.
    let candidates = (0..50).map(|try_number| scene.path(&format!("try-{try_number}")));
    let candidates: Vec<PathBuf> = candidates.inspect(|path| fs::write(path, "").expect("made")).collect();
    let same = candidates.iter().find(|path| number(path) == before).unwrap_or(&candidates[0]);
    fs::rename(same, scene.path("0.log")).expect("renamed");
    scene.lines(9);
    scene.start();
    scene.settle();
    scene.assert_offered_once();
}

#[test]
fn a_deleted_file_is_kept_until_the_sink_takes_its_lines() {
    for mut scene in [Scene::new(), plain()] {
        scene.lines(300);
        scene.step(Duration::from_secs(1));
        fs::remove_file(scene.path("0.log")).expect("removed");
        scene.rest();
        assert_eq!(scene.deleted_and_open(), 0, "the node's disk is freed");
        assert!(scene.spilled_files() > 0);
        scene.lines(10);
        scene.rest();
        scene.settle();
        scene.assert_offered_once();
        scene.rest();
        assert_eq!((scene.spilled_files(), scene.lost("spill_full")), (0, 0));
        // For a while a compressed copy is reckoned with.
        scene.step(Duration::from_secs(700));
        assert_eq!(scene.reader.table.len(), 1);
    }
}

#[test]
fn what_was_spilled_is_read_after_a_restart() {
    for mut scene in [Scene::new(), plain()] {
        scene.lines(300);
        scene.step(Duration::from_secs(1));
        scene.deliver(0, true);
        fs::remove_file(scene.path("0.log")).expect("removed");
        scene.rest();
        scene.lines(10);
        scene.start();
        scene.step(Duration::from_secs(1));
        scene.deliver(0, false);
        scene.settle();
        scene.rest();
        scene.assert_each_once();
        assert_eq!((scene.spilled_files(), scene.lost("spill_full")), (0, 0));
    }
}

#[test]
fn a_deleted_compressed_file_is_kept_too() {
    let mut scene = Scene::new();
    scene.lines(300);
    scene.step(Duration::from_secs(1));
    scene.rotate();
    scene.lines(10);
    scene.rest();
    scene.compress(&scene.rotated()[0]);
    scene.rest();
    fs::remove_file(&scene.rotated()[0]).expect("removed");
    scene.rest();
    assert_eq!(scene.deleted_and_open(), 0);
    assert!(scene.spilled_files() > 0);
    scene.settle();
    scene.assert_offered_once();
}

#[test]
fn the_last_words_of_a_deleted_file_are_kept_without_a_newline() {
    let mut scene = Scene::new();
    scene.lines(300);
    scene.append(b"2026-11-21T10:30:00.000000001Z stdout F last words");
    scene.written.insert(b"last words".to_vec());
    scene.step(Duration::from_secs(1));
    fs::remove_file(scene.path("0.log")).expect("removed");
    scene.rest();
    scene.crash();
    scene.settle();
    scene.assert_each_once();
}

#[test]
fn parts_of_a_line_in_a_deleted_file_are_joined() {
    let mut scene = Scene::new();
    scene.lines(300);
    (0..20).for_each(|_| scene.line(true));
    scene.step(Duration::from_secs(1));
    fs::remove_file(scene.path("0.log")).expect("removed");
    scene.rest();
    scene.crash();
    scene.settle();
    scene.assert_each_once();
}

#[test]
fn the_file_that_is_deleted_next_is_kept_before_it_is_gone() {
    let mut scene = Scene::new();
    for _ in 0..4 {
        scene.lines(100);
        scene.step(Duration::from_secs(1));
        scene.rotate();
        scene.rest();
    }
    scene.lines(1);
    scene.rest();
    assert!(scene.spilled_files() > 0);
    assert_eq!(
        scene.reader.table.files().filter(|file| file.tail.as_ref().is_some_and(Tail::is_spilled)).count(),
        0
    );
    // Nobody can do anything between the two.
    scene.kill();
    fs::remove_file(&scene.rotated()[0]).expect("removed");
    scene.start();
    scene.settle();
    scene.rest();
    scene.assert_each_once();
    assert_eq!((scene.spilled_files(), scene.lost("spill_full")), (0, 0));
}

#[test]
fn a_file_that_is_still_there_takes_nobodys_place_in_the_spill() {
    let mut scene = Scene::new();
    scene.spill = spill::Limits { max_bytes: 8192, min_free: 0.0 };
    scene.start();
    for _ in 0..5 {
        scene.lines(300);
        scene.step(Duration::from_secs(1));
        scene.rotate();
        scene.rest();
    }
    assert_eq!(scene.lost("spill_full"), 0);
    scene.settle();
    scene.assert_offered_once();
}

/// The sink is away while files come and go; the bytes of the lines that are missing in the end.
fn away_under_rotation(scene: &mut Scene, rotations: usize) -> u64 {
    let mut sizes = BTreeMap::new();
    for round in 0..rotations {
        for _ in 0..40 {
            let number = scene.written.len();
            // Random words: they do not compress to nothing.
            let noise: String = (0..12).map(|word| format!("{:016x}", hash_of_words(number, word))).collect();
            let text = format!("line-{number} {noise}");
            let line =
                format!("2026-11-21T11:{:02}:{:02}.{number:09}Z stdout F {text}\n", round / 60, round % 60);
            scene.append(line.as_bytes());
            sizes.insert(text.as_bytes().to_vec(), line.len() as u64);
            scene.written.insert(text.into_bytes());
        }
        scene.step(Duration::from_millis(600));
        scene.rotate();
        scene.step(Duration::from_millis(600));
        if let Some(plain) =
            scene.rotated().iter().rev().nth(1).filter(|path| path.extension() != Some("gz".as_ref()))
        {
            scene.compress(plain);
        }
        let rotated = scene.rotated();
        // Three files are left: the active one and two rotated ones.
        for oldest in rotated.iter().take(rotated.len().saturating_sub(2)) {
            fs::remove_file(oldest).expect("removed");
        }
        scene.step(Duration::from_millis(600));
    }
    scene.rest();
    assert_eq!(scene.deleted_and_open(), 0);
    let missing = |scene: &Scene| {
        let delivered: BTreeSet<&Vec<u8>> = scene.delivered.values().collect();
        sizes.iter().filter(|(text, _)| !delivered.contains(text)).map(|(_, bytes)| bytes).sum::<u64>()
    };
    for _ in 0..400 {
        scene.step(Duration::from_secs(2));
        scene.deliver(0, true);
    }
    assert_eq!(
        scene.delivered.len(),
        scene.delivered.values().collect::<BTreeSet<_>>().len(),
        "nothing twice"
    );
    missing(scene)
}

fn hash_of_words(number: usize, word: u64) -> u64 {
    xxhash_rust::xxh3::xxh3_64(&(number as u64 * 100 + word).to_le_bytes())
}

#[test]
fn with_the_sink_away_under_rotation_nothing_is_lost_when_the_spill_is_large_enough() {
    let mut scene = Scene::new();
    let missing = away_under_rotation(&mut scene, 30);
    assert_eq!((missing, scene.lost("spill_full")), (0, 0));
    scene.assert_offered_once();
    assert_eq!(scene.spilled_files(), 0);
}

#[test]
fn with_the_sink_away_under_rotation_the_lost_bytes_are_those_missing_when_the_spill_is_too_small() {
    let mut scene = Scene::new();
    scene.spill = spill::Limits { max_bytes: 100_000, min_free: 0.0 };
    scene.start();
    let missing = away_under_rotation(&mut scene, 60);
    assert!(missing > 50_000, "{missing} bytes are missing");
    assert_eq!(scene.lost("spill_full"), missing);
}

#[test]
fn a_node_without_free_space_loses_what_vanishes_and_counts_it() {
    let mut scene = Scene::new();
    scene.spill = spill::Limits { max_bytes: 64 << 20, min_free: 1.0 };
    scene.start();
    let missing = away_under_rotation(&mut scene, 20);
    assert!(missing > 0);
    assert_eq!((scene.lost("spill_full"), scene.spilled_files()), (missing, 0));
}

#[test]
fn a_spill_that_can_not_be_written_keeps_the_file_open() {
    let mut scene = Scene::new();
    scene.lines(300);
    scene.step(Duration::from_secs(1));
    // A file in the place of the directory.
    let obstacle = scene.state.path().join("spill");
    fs::write(&obstacle, "").expect("written");
    fs::remove_file(scene.path("0.log")).expect("removed");
    scene.rest();
    assert_eq!(scene.deleted_and_open(), 1);
    fs::remove_file(&obstacle).expect("removed");
    scene.rest();
    assert_eq!(scene.deleted_and_open(), 0);
    scene.settle();
    scene.assert_offered_once();
}

#[test]
fn damaged_spilled_segments_are_set_aside_and_counted() {
    let mut scene = Scene::new();
    scene.lines(300);
    scene.step(Duration::from_secs(1));
    fs::remove_file(scene.path("0.log")).expect("removed");
    scene.rest();
    let spill = scene.state.path().join("spill");
    let segment = fs::read_dir(&spill).expect("listed").next().expect("one").expect("an entry").path();
    let good = fs::read(&segment).expect("read");
    for at in [10, good.len() / 2, good.len() - 1] {
        let mut scene = Scene::new();
        let spill = scene.state.path().join("spill");
        fs::create_dir(&spill).expect("made");
        let mut bytes = good.clone();
        bytes[at] ^= 0x40;
        fs::write(spill.join("0000000000.spill"), &bytes).expect("written");
        scene.start();
        scene.settle();
        scene.rest();
        assert_eq!(scene.delivered.len(), 0);
        assert!(spill.join("segment.corrupt").exists(), "at {at}");
        assert_eq!(scene.lost("spill_damaged") > 0, at > 10, "what its header does not say is not known");
    }
}

#[test]
fn files_that_can_not_be_opened_for_a_while_are_read_later() {
    let mut scene = Scene::new();
    scene.lines(3);
    scene.settle();
    scene.kill();
    // Instead of a file without permission, which does not stop root.
    fs::rename(scene.path("0.log"), scene.path("away")).expect("renamed");
    std::os::unix::fs::symlink(scene.path("0.log"), scene.path("0.log")).expect("a link to itself");
    scene.start();
    scene.settle();
    let error = scene.reader.table.status(scene.now)[0].last_error.clone().expect("it is said");
    assert!(error.starts_with("could not be opened"), "{error}");
    fs::remove_file(scene.path("0.log")).expect("removed");
    fs::rename(scene.path("away"), scene.path("0.log")).expect("renamed");
    scene.lines(3);
    scene.settle();
    scene.assert_offered_once();
}

#[test]
fn a_link_whose_target_is_mounted_later_is_read_then() {
    let mut scene = Scene::new();
    let target = scene.logs.path().join("docker/c1-json.log");
    std::os::unix::fs::symlink(&target, scene.path("0.log")).expect("linked");
    scene.settle();
    let status = scene.reader.table.status(scene.now);
    assert_eq!(status[0].last_error.as_deref(), Some("it is a link to a file that is not there"));
    fs::create_dir(target.parent().expect("a parent")).expect("made");
    fs::write(&target, "{\"log\":\"hello\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-21T10:00:00.1Z\"}\n")
        .expect("written");
    scene.written.insert(b"hello".to_vec());
    scene.settle();
    scene.assert_offered_once();
}

#[test]
fn empty_files_wait_and_leave_nothing_behind() {
    let mut scene = Scene::new();
    scene.append(b"");
    scene.rest();
    assert!(scene.reader.table.files().all(|file| file.identity.is_none()));
    scene.rotate();
    scene.lines(1);
    scene.settle();
    scene.compress(&scene.rotated()[0]);
    scene.settle();
    scene.rest();
    scene.assert_offered_once();
    scene.rotated().iter().for_each(|path| fs::remove_file(path).expect("removed"));
    scene.rest();
    assert_eq!(scene.reader.table.len(), 1);
}
