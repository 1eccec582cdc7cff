//! No file of a host, however odd, brings a collector down.

#![allow(clippy::expect_used, reason = "what tests call fails as they do")]

use std::{
    cell::RefCell,
    fs,
    path::{Path, PathBuf},
};

use nodewarden_collectors::{Collector, Entry, Host, Options, Samples, Settings, node, text};
use proptest::{prelude::*, test_runner::TestRunner};

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

/// A copy of the machine with collectors that live through everything done to it.
struct Machine {
    top: tempfile::TempDir,
    host: Host,
    collectors: Vec<Box<dyn Collector>>,
    samples: Samples,
}

impl Machine {
    fn new() -> Self {
        let top = tempfile::tempdir().expect("a temporary directory");
        for path in files() {
            let to = top.path().join(below(&path));
            fs::create_dir_all(to.parent().expect("has one")).expect("made");
            fs::copy(&path, &to).expect("copied");
        }
        let [procfs, sysfs, rootfs, udev_data] =
            ["proc", "sys", "root", "udev"].map(|name| top.path().join(name));
        let host = Host { procfs, sysfs, rootfs, udev_data };
        let settings = Settings::from([
            ("textfile.directory".to_owned(), vec![top.path().join("textfile").display().to_string()]),
            ("netdev.netlink".to_owned(), vec!["false".to_owned()]),
            ("cpu.info".to_owned(), vec!["true".to_owned()]),
            ("stat.softirq".to_owned(), vec!["true".to_owned()]),
        ]);
        let build =
            |entry: &&Entry| (entry.build)(&host, &Options::new(entry, &settings)).expect("valid settings");
        let collectors = node::ALL.iter().map(build).collect();
        Self { top, host, collectors, samples: Samples::new() }
    }

    /// Scrapes with `text` in place of a file, then with the file as it was: all of it has to be said again.
    fn survive(&mut self, file: &Path, text: &[u8]) {
        let path = self.top.path().join(below(file));
        let whole = self.scrape();
        let original = fs::read(&path).expect("read");
        fs::write(&path, text).expect("written");
        self.scrape();
        fs::write(&path, original).expect("written");
        assert_eq!(self.scrape(), whole, "after {} was damaged", file.display());
    }

    /// How many samples there are; whether a collector fails is its affair, here it only has to come back.
    fn scrape(&mut self) -> usize {
        self.samples.clear();
        for collector in &mut self.collectors {
            let _ = collector.collect(&self.host, &mut self.samples);
        }
        let mut page = Vec::new();
        text::write(&self.samples, &mut page);
        assert!(String::from_utf8(page).is_ok(), "the page is always UTF-8");
        self.samples.len()
    }
}

fn below(file: &Path) -> &Path {
    file.strip_prefix("fixtures/rack7").expect("below it")
}

fn run<S: Strategy>(strategy: &S, mut case: impl FnMut(&mut Machine, S::Value)) {
    let config = ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() };
    let machine = RefCell::new(Machine::new());
    let case = RefCell::new(&mut case);
    let result = TestRunner::new(config).run(strategy, |value| {
        (case.borrow_mut())(&mut machine.borrow_mut(), value);
        Ok(())
    });
    result.expect("every case");
}

#[test]
fn noise_in_a_file_harms_nobody() {
    let noise = prop::collection::vec(any::<u8>(), 0..64);
    let strategy = (prop::sample::select(files()), any::<prop::sample::Index>(), noise);
    run(&strategy, |machine, (file, place, noise)| {
        let mut bytes = fs::read(&file).expect("read");
        let tail = bytes.split_off(place.index(bytes.len() + 1));
        bytes.extend(&noise);
        bytes.extend(tail.iter().skip(noise.len()));
        machine.survive(&file, &bytes);
    });
}

#[test]
fn a_file_of_other_text_harms_nobody() {
    let text = "[ -~\n\t:=0-9{}\"#-]{0,200}";
    run(&(prop::sample::select(files()), text), |machine, (file, text)| {
        machine.survive(&file, text.as_bytes());
    });
}

#[test]
fn an_emptied_or_cut_file_harms_nobody() {
    let mut machine = Machine::new();
    for file in files() {
        let whole = fs::read(&file).expect("read");
        for length in [0, whole.len() / 2, whole.len().saturating_sub(1)] {
            machine.survive(&file, &whole[..length]);
        }
    }
}
