//! The table over real directories.

use std::{fs::OpenOptions, io::Write, path::Path};

use prometheus::Registry;

use super::*;
use crate::{
    logs::{
        checkpoint::Checkpoint,
        discover::{Source, enumerate},
    },
    metrics::Own,
};

/// A directory of plain files and the table over it.
struct Scene {
    directory: tempfile::TempDir,
    table: Table,
    now: Instant,
}

fn table(known: Known, first_run_bytes: u64) -> Table {
    let metrics = Own::new(Registry::new()).expect("a registry").logs;
    Table::new(known, first_run_bytes, vec![Encoding::Records], vec![], None, Ledger::default(), &metrics)
}

impl Scene {
    fn keys(&self) -> Vec<FileKey> {
        self.table.files.keys().copied().collect()
    }

    fn new(known: Known, first_run_bytes: u64) -> Self {
        Self {
            directory: tempfile::tempdir().expect("a temporary directory"),
            table: table(known, first_run_bytes),
            now: Instant::now(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn append(&self, name: &str, text: &str) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.path(name)).expect("opened");
        file.write_all(text.as_bytes()).expect("written");
    }

    /// Looks around and identifies; what is then read, by file name.
    fn look(&mut self) -> Vec<(String, u64, FileId)> {
        let pattern = |path: &Path| glob::Pattern::new(&path.to_string_lossy()).expect("a pattern");
        let source = Source::Files { include: vec![pattern(&self.path("app.log"))], exclude: vec![] };
        self.table.reconcile(enumerate(&[source], Path::new("/")), self.now);
        for key in self.keys() {
            let file = self.table.get_mut(key).expect("it is there");
            // What a file held before it was truncated waits for a copy.
            let Some(tail) = &file.tail else { continue };
            file.size = tail.look().expect("looked").size;
            self.table.identify(key, self.now).expect("read");
        }
        let name = |file: &LogFile| file.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let identified = self
            .table
            .files()
            .filter(|file| file.tail.is_some())
            .filter_map(|file| Some((name(file), file.read_to, file.identity.as_ref()?.facts.id)));
        identified.collect()
    }

    fn known(&self) -> Known {
        let checkpoint = Checkpoint::new(self.directory.path());
        checkpoint.write(self.table.positions()).expect("written");
        checkpoint.load()
    }
}

fn nothing_known() -> Known {
    Known { first_run: true, ..Known::default() }
}

#[test]
fn a_file_without_a_complete_line_waits() {
    let mut scene = Scene::new(nothing_known(), 100);
    scene.append("app.log", "half");
    assert!(scene.look().is_empty());
    scene.append("app.log", " a line\n");
    assert_eq!(scene.look().len(), 1);
}

#[test]
fn a_renamed_file_stays_itself_and_the_new_one_is_another() {
    let mut scene = Scene::new(nothing_known(), 100);
    scene.append("app.log", "same first line\n");
    let (_, _, id) = scene.look().remove(0);
    fs::rename(scene.path("app.log"), scene.path("app.log.1")).expect("renamed");
    scene.append("app.log", "same first line\n");
    let read = scene.look();
    assert_eq!((read[0].0.as_str(), read[0].2), ("app.log.1", id));
    assert_eq!(read[1].0, "app.log");
    assert_ne!(read[1].2, id);
}

#[test]
fn on_the_first_run_only_the_end_of_long_files_is_read_and_rotated_ones_not_at_all() {
    let mut scene = Scene::new(nothing_known(), 10);
    scene.append("app.log", "one line\ntwo line\nthree\n");
    scene.append("app.log.1", "history\n");
    let mut read: Vec<_> = scene.look().into_iter().map(|(name, offset, _)| (name, offset)).collect();
    read.sort();
    assert_eq!(read, [("app.log".to_owned(), 18), ("app.log.1".to_owned(), 8)]);
}

#[test]
fn a_plain_file_that_was_never_seen_before_its_rotation_is_read() {
    let mut scene = Scene::new(nothing_known(), 100);
    scene.append("app.log", "first\n");
    scene.look();
    scene.table.first_run_is_over();
    for (file, name) in [("second\n", "app.log.1"), ("third\n", "app.log.2")] {
        fs::rename(scene.path("app.log"), scene.path(name)).expect("renamed");
        scene.append("app.log", file);
    }
    let names: Vec<_> = scene.look().into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names, ["app.log.1", "app.log", "app.log.2"]);
}

#[test]
fn a_link_that_leads_nowhere_is_said() {
    let mut scene = Scene::new(nothing_known(), 100);
    let container = scene.path("shop_cart-1_u-1/app");
    fs::create_dir_all(&container).expect("made");
    std::os::unix::fs::symlink("/nonexistent/c1-json.log", container.join("0.log")).expect("linked");
    let source = Source::Kubernetes { path: scene.directory.path().into(), exclude_namespaces: vec![] };
    scene.table.reconcile(enumerate(&[source], Path::new("/")), scene.now);
    let status = scene.table.status(scene.now);
    assert_eq!(status[0].last_error.as_deref(), Some("it is a link to a file that is not there"));
}

#[test]
fn the_copy_that_copytruncate_makes_is_not_read_again() {
    let mut scene = Scene::new(nothing_known(), 100);
    scene.append("app.log", "first\nsecond\n");
    scene.look();
    scene.table.first_run_is_over();
    fs::copy(scene.path("app.log"), scene.path("app.log.1")).expect("copied");
    assert_eq!(scene.look().len(), 1);
    let key = scene.keys()[0];
    let file = scene.table.get_mut(key).expect("there");
    (file.size, file.read_to) = (0, 13);
    fs::write(scene.path("app.log"), "third\n").expect("truncated");
    fs::rename(scene.path("app.log.1"), scene.path("app.log.2")).expect("renamed");
    scene.table.restart_truncated(key, 13, scene.now);
    fs::copy(scene.path("app.log.2"), scene.path("app.log.1")).expect("copied");
    scene.look();
    let names: Vec<_> = scene.look().into_iter().map(|(name, offset, _)| (name, offset)).collect();
    assert_eq!(names, [("app.log".to_owned(), 0)]);
}

#[test]
fn a_generation_outlives_what_is_forgotten_of_earlier_ones() {
    let mut scene = Scene::new(nothing_known(), 100);
    scene.append("app.log", "opened\nmore\n");
    scene.look();
    for _ in 0..2 {
        let key = *scene.keys().last().expect("one");
        scene.table.restart_truncated(key, 12, scene.now);
        scene.look();
    }
    let is_truncated =
        |position: &Position| position.content.as_ref().is_some_and(|content| content.truncated);
    let mut positions: Vec<Position> = scene.known().positions.into_values().collect();
    positions.sort_by_key(|position| position.generation);
    // What it held before is looked for in copies.
    assert_eq!(positions.iter().map(is_truncated).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!(positions[2].generation, 2);
}

#[test]
fn a_closed_file_is_not_taken_for_what_has_an_active_name() {
    let mut scene = Scene::new(nothing_known(), 100);
    scene.append("app.log", "first\n");
    scene.look();
    let key = scene.keys()[0];
    scene.table.get_mut(key).expect("there").tail = None;
    let pattern = glob::Pattern::new(&scene.path("app.log").to_string_lossy()).expect("a pattern");
    let source = Source::Files { include: vec![pattern], exclude: vec![] };
    scene.table.reconcile(enumerate(&[source], Path::new("/")), scene.now);
    assert!(scene.table.files().all(|file| file.tail.is_some()), "it is opened");
}

#[test]
fn container_files_whose_first_line_has_no_time_are_known_by_their_inode() {
    let mut scene = Scene::new(nothing_known(), 100);
    let container = scene.path("shop_cart-1_u-1/app");
    fs::create_dir_all(&container).expect("made");
    for name in ["0.log", "0.log.20261121-101010"] {
        fs::write(container.join(name), "same first line\n").expect("written");
    }
    let source = Source::Kubernetes { path: scene.directory.path().into(), exclude_namespaces: vec![] };
    scene.table.reconcile(enumerate(&[source], Path::new("/")), scene.now);
    for key in scene.keys() {
        scene.table.get_mut(key).expect("there").size = 16;
        assert!(scene.table.identify(key, scene.now).expect("read"));
    }
    assert_eq!(scene.table.len(), 2);
}

#[test]
fn a_file_rotated_while_the_agent_was_away_is_read_on() {
    let mut scene = Scene::new(nothing_known(), 100);
    scene.append("app.log", "first\n");
    scene.look();
    let key = scene.keys()[0];
    scene.table.get_mut(key).expect("there").read_to = 6;
    let known = scene.known();
    scene.append("app.log", "second\n");
    fs::rename(scene.path("app.log"), scene.path("app.log.1")).expect("renamed");
    scene.append("app.log", "third\n");
    scene.table = table(known, 100);
    let mut read: Vec<_> = scene.look().into_iter().map(|(name, offset, _)| (name, offset)).collect();
    read.sort();
    assert_eq!(read, [("app.log".to_owned(), 0), ("app.log.1".to_owned(), 6)]);
}

#[test]
fn a_truncated_file_is_another_one_even_with_the_same_first_line() {
    let mut scene = Scene::new(nothing_known(), 100);
    scene.append("app.log", "opened\nmore\n");
    let (_, _, first) = scene.look().remove(0);
    let key = scene.keys()[0];
    scene.table.get_mut(key).expect("there").read_to = 12;
    fs::write(scene.path("app.log"), "opened\n").expect("truncated");
    scene.table.get_mut(key).expect("there").size = 7;
    scene.table.restart_truncated(key, 12, scene.now);
    let (_, offset, second) = scene.look().remove(0);
    assert_eq!(offset, 0);
    assert_ne!(first, second);
    let known = scene.known();
    scene.table = table(known, 100);
    assert_eq!(scene.look().remove(0).2, second);
}
