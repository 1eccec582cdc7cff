//! Searching and following.

use proptest::prelude::*;

use super::*;

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
    #![proptest_config(cases(48))]

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
