//! No file of a host, however odd, brings a collector down.

#![allow(clippy::expect_used, reason = "helpers of tests fail as tests do")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use nodewarden_collectors::{Host, Options, Samples, Settings, node, text};
use proptest::prelude::*;

/// Every file of the made-up machine, relative to its top.
fn files() -> Vec<PathBuf> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).expect("listed") {
            let path = entry.expect("listed").path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let mut found = Vec::new();
    walk(Path::new("fixtures/rack7"), &mut found);
    found.sort();
    found
}

/// Scrapes a copy of the machine twice, the second time with one file damaged.
fn scrape_damaged(file: &Path, damage: impl Fn(Vec<u8>) -> Vec<u8>) {
    let copy = tempfile::tempdir().expect("a temporary directory");
    for path in files() {
        let to = copy.path().join(path.strip_prefix("fixtures/rack7").expect("below it"));
        fs::create_dir_all(to.parent().expect("has one")).expect("made");
        fs::copy(&path, &to).expect("copied");
    }
    let [procfs, sysfs, rootfs, udev_data] =
        ["proc", "sys", "root", "udev"].map(|name| copy.path().join(name));
    let host = Host { procfs, sysfs, rootfs, udev_data };
    let directory = copy.path().join("textfile").display().to_string();
    let settings = Settings::from([
        ("textfile.directory".to_owned(), vec![directory]),
        ("netdev.netlink".to_owned(), vec!["false".to_owned()]),
        ("cpu.info".to_owned(), vec!["true".to_owned()]),
        ("stat.softirq".to_owned(), vec!["true".to_owned()]),
    ]);
    let build = |entry: &&nodewarden_collectors::Entry| (entry.build)(&host, &Options::new(entry, &settings)).ok();
    let mut collectors: Vec<_> = node::ALL.iter().filter_map(build).collect();
    let mut samples = Samples::new();
    for _ in 0..2 {
        samples.clear();
        for collector in &mut collectors {
            // Whether it fails is its affair, here it only has to come back.
            let _ = collector.collect(&host, &mut samples);
        }
        let mut page = Vec::new();
        text::write(&samples, &mut page);
        assert!(String::from_utf8(page).is_ok(), "the page is always UTF-8");
        let path = copy.path().join(file.strip_prefix("fixtures/rack7").expect("below it"));
        let damaged = damage(fs::read(&path).expect("read"));
        fs::write(&path, damaged).expect("written");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_file_harms_nobody(
        file in proptest::sample::select(files()),
        cut in any::<prop::sample::Index>(),
        noise in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        scrape_damaged(&file, |mut bytes| {
            let at = cut.index(bytes.len() + 1);
            let tail = bytes.split_off(at);
            bytes.extend(&noise);
            bytes.extend(tail.iter().skip(noise.len()));
            bytes
        });
    }

    #[test]
    fn a_file_of_noise_harms_nobody(
        file in proptest::sample::select(files()),
        noise in "[ -~\n\t:=0-9{}\"#-]{0,200}",
    ) {
        scrape_damaged(&file, |_| noise.clone().into_bytes());
    }
}

#[test]
fn an_emptied_or_cut_file_harms_nobody() {
    for file in files() {
        scrape_damaged(&file, |_| Vec::new());
        scrape_damaged(&file, |mut bytes| {
            bytes.truncate(bytes.len() / 2);
            bytes
        });
    }
}
