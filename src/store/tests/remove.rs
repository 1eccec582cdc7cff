//! Records that are taken out before their segment goes.

use super::*;

fn keys(reader: &Reader) -> Vec<Key> {
    let mut keys = Vec::new();
    let mut sink = |hit: Hit| {
        keys.push(hit.key);
        ControlFlow::Continue(())
    };
    reader.search(&query(""), &|| false, &mut sink).expect("readable");
    keys.reverse();
    keys
}

#[test]
fn what_is_taken_out_is_found_no_more_also_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut writer, _) = open(dir.path(), SMALL);
    for number in 0..40 {
        append(&mut writer, &line(number, noise(number, 20_000)));
    }
    let reader = writer.reader();
    let all_keys = keys(&reader);
    let odd: Vec<Key> = all_keys.iter().copied().skip(1).step_by(2).collect();
    assert_eq!(writer.remove(&odd, at(1)).expect("taken out"), 20);
    assert_eq!(writer.remove(&odd, at(1)).expect("nothing"), 0);
    let even: Vec<u64> = (0..40).step_by(2).collect();
    assert_eq!(positions(&all(&reader)), even);
    drop((writer, reader));
    let (mut writer, recovered) = open(dir.path(), SMALL);
    assert!(recovered.messages.is_empty(), "{recovered:?}");
    assert_eq!(positions(&all(&writer.reader())), even);
    // What comes next has numbers of its own.
    append(&mut writer, &line(100, "new"));
    assert_eq!(all(&writer.reader()).len(), 21);
}

#[test]
fn segments_in_which_nothing_is_left_go_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut writer, _) = open(dir.path(), SMALL);
    for number in 0..40 {
        append(&mut writer, &line(number, noise(number, 20_000)));
    }
    writer.sync(at(1)).expect("synced");
    let before = writer.stats();
    let all_keys = keys(&writer.reader());
    writer.remove(&all_keys, at(1)).expect("taken out");
    assert!(writer.stats().segments < before.segments && before.segments > 1, "{before:?}");
    assert!(all(&writer.reader()).is_empty());
}

/// A crash may take away the end of what was appended, and what comes then has the same numbers.
#[test]
fn what_has_the_number_of_a_record_that_was_taken_out_is_there() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut writer, _) = open(dir.path(), SMALL);
    append(&mut writer, &line(1, "first"));
    append(&mut writer, &line(2, "second"));
    let all_keys = keys(&writer.reader());
    writer.remove(&all_keys[1..], at(1)).expect("taken out");
    drop(writer);
    fs::remove_file(dir.path().join("head")).expect("the disk forgot it");
    let (mut writer, _) = open(dir.path(), SMALL);
    for number in 3..6 {
        append(&mut writer, &line(number, "new"));
    }
    writer.sync(at(2)).expect("synced");
    assert_eq!(positions(&all(&writer.reader())), [3, 4, 5]);
    drop(writer);
    assert_eq!(positions(&all(&open(dir.path(), SMALL).0.reader())), [3, 4, 5]);
}
