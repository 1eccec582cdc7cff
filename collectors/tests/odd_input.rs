//! No file of a host, however odd, brings a collector down.

#![allow(clippy::expect_used, clippy::panic, reason = "what tests call fails as they do")]
#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]

mod support;

use std::{
    cell::RefCell,
    fs,
    path::{Path, PathBuf},
};

use nodewarden_collectors::{Collector, Host, Options, Samples, text};
use proptest::{prelude::*, test_runner::TestRunner};
use support::{damage, entry, rack7, settings};

const TOP: &str = "fixtures/rack7";

/// A copy of the machine with collectors that live through everything done to it.
struct Machine {
    files: damage::Machine,
    host: Host,
    collectors: Vec<Box<dyn Collector>>,
    samples: Samples,
    /// How many samples there are when nothing is damaged.
    whole: usize,
}

impl Machine {
    fn new() -> Self {
        let files = damage::Machine::copy_of(TOP);
        let host = files.host(rack7::TREES);
        let settings = settings(&rack7::options(&files.top().display().to_string()));
        let build = |name: &str| {
            (entry(name).build)(&host, &Options::new(entry(name), &settings)).expect("valid settings")
        };
        let collectors = rack7::collectors().into_iter().map(build).collect();
        let mut machine = Self { files, host, collectors, samples: Samples::new(), whole: 0 };
        machine.whole = machine.scrape();
        machine
    }

    /// Scrapes with `text` in place of a file, then with the file as it was: all of it has to be said again.
    fn survive(&mut self, file: &Path, text: &[u8]) {
        let path = self.files.path(file);
        let original = fs::read(&path).expect("read");
        fs::write(&path, text).expect("written");
        self.scrape();
        fs::write(&path, original).expect("written");
        assert_eq!(self.scrape(), self.whole, "after {} was damaged", file.display());
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

fn run<S: Strategy>(strategy: &S, mut case: impl FnMut(&mut Machine, S::Value)) {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let machine = RefCell::new(Machine::new());
    let case = RefCell::new(&mut case);
    let result = TestRunner::new(config).run(strategy, |value| {
        (case.borrow_mut())(&mut machine.borrow_mut(), value);
        Ok(())
    });
    result.expect("every case");
}

/// Its files, relative to its top.
fn files() -> Vec<PathBuf> {
    damage::Machine::copy_of(TOP).files().to_vec()
}

#[test]
fn noise_in_a_file_harms_nobody() {
    let noise = prop::collection::vec(any::<u8>(), 0..64);
    let strategy = (prop::sample::select(files()), any::<prop::sample::Index>(), noise);
    run(&strategy, |machine, (file, place, noise)| {
        let mut bytes = fs::read(Path::new(TOP).join(&file)).expect("read");
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
    for (at, file) in files().into_iter().enumerate() {
        let whole = fs::read(Path::new(TOP).join(&file)).expect("read");
        let lengths = [0, whole.len() / 2, whole.len().saturating_sub(1)];
        machine.survive(&file, &whole[..lengths[at % lengths.len()]]);
    }
}
