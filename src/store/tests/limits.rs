//! Bytes, age, free space; disks that refuse.

use super::*;

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
fn the_number_of_segments_is_bounded() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut writer, _) = open(dir.path(), SMALL);
    let mut now = 0;
    let mut most = 0;
    // Whenever lines are about to leave by age they may stay twice as long: segments pile up.
    for number in 0..60 {
        let max_age = Duration::from_secs(1600 << (number / 12));
        writer.set_limits(Limits { max_age, ..SMALL });
        append(&mut writer, &line(number, "tick"));
        now += max_age.as_secs() / 16 + 1;
        writer.sync(at(now)).expect("synced");
        most = most.max(writer.stats().segments);
    }
    assert!((20..=22).contains(&most), "{most}");
    assert_eq!(positions(&all(&writer.reader())).last(), Some(&59));
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
fn what_was_taken_is_synced_even_when_no_room_is_left() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut writer, _) = open(dir.path(), SMALL);
    append(&mut writer, &line(1, "one"));
    writer.set_limits(Limits { min_free: 1.0, ..SMALL });
    // Old enough for a block of its own, which has no room.
    assert!(matches!(writer.sync(at(200)), Err(StoreError::NoRoom { .. })));
    drop(writer);
    assert_eq!(positions(&all(&open(dir.path(), SMALL).0.reader())), [1]);
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
    let blocked = dir.path().join("head.new");
    std::os::unix::fs::symlink("/dev/full", &blocked).expect("linked");
    let (mut writer, recovered) = open(dir.path(), SMALL);
    assert!(recovered.messages[0].contains("No space left"), "{recovered:?}");
    append(&mut writer, &line(1, "one"));
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
fn a_directory_that_is_taken_away_is_an_error_until_it_is_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("store");
    let (mut writer, _) = open(&path, SMALL);
    append(&mut writer, &line(1, noise(1, 60_000)));
    append(&mut writer, &line(2, noise(2, 60_000)));
    fs::remove_dir_all(&path).expect("removed");
    assert!(writer.sync(at(0)).expect_err("gone").to_string().contains("store/head"));
    fs::create_dir(&path).expect("made");
    writer.sync(at(0)).expect("synced");
    let third = line(3, noise(3, 60_000));
    let error = writer.append(&source(0), 3, 3, 1, &third.4).expect_err("gone").to_string();
    assert!(error.contains("0000000000.seg"), "{error}");
    append(&mut writer, &third);
    writer.sync(at(0)).expect("synced");
    drop(writer);
    assert_eq!(positions(&all(&open(&path, SMALL).0.reader())), [2, 3]);
}
