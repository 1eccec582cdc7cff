//! Many files, and files nobody writes to.

use rustix::process::{Resource, getrlimit, setrlimit};

use super::*;

impl Scene {
    /// Until nobody looks at any file.
    fn fall_asleep(&mut self) {
        self.settle();
        for _ in 0..4 {
            self.step(Duration::from_secs(3));
        }
        assert!(self.reader.table.awake().is_empty(), "all are quiet");
    }

    fn unread(&self) -> u64 {
        self.reader.table.files().map(|file| file.size.saturating_sub(file.read_to)).sum()
    }
}

#[test]
fn a_thousand_files_at_once() {
    let mut scene = Scene::new();
    scene.step(Duration::ZERO);
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("as many as are allowed");
    let room = limit.maximum.map_or(u64::MAX, |maximum| maximum.saturating_sub(1000)) as usize;
    let files = room.min(1000);
    for number in 0..files {
        let home = scene.logs.path().join(format!("shop_pod-{number}_u-{number}/app"));
        fs::create_dir_all(&home).expect("made");
        let line = format!("2026-11-21T10:00:00.{number:09}Z stdout F line-{number}\n");
        fs::write(home.join("0.log"), line).expect("written");
    }
    for _ in 0..1000 {
        scene.step(Duration::from_millis(if scene.in_flight.is_empty() { 2000 } else { 1 }));
        while !scene.in_flight.is_empty() {
            scene.deliver(0, true);
        }
        if scene.delivered.len() == files {
            break;
        }
    }
    assert_eq!((scene.delivered.len(), scene.offered), (files, files));
    for _ in 0..8 {
        scene.step(Duration::from_secs(3));
    }
    assert!(scene.reader.table.awake().is_empty(), "and then all are quiet");
}

#[test]
fn a_quiet_file_that_grows_is_read_at_once() {
    let mut scene = Scene::new();
    scene.line(false);
    scene.fall_asleep();
    scene.line(false);
    let before = Instant::now();
    // The scene's clock is ahead: only the write can wake it in time.
    scene.reader.sleep(scene.now);
    assert!(before.elapsed() < Duration::from_millis(500));
    scene.step(Duration::from_millis(1));
    assert!(scene.unread() == 0 && scene.reader.output.due().is_some(), "it was read");
    scene.settle();
    assert_eq!(scene.delivered.len(), 2);
}

#[test]
fn a_quiet_file_that_is_rotated_or_deleted_is_noticed() {
    let mut scene = Scene::new();
    scene.line(false);
    scene.fall_asleep();
    scene.rotate();
    scene.line(false);
    scene.fall_asleep();
    assert_eq!(scene.delivered.len(), 2);
    fs::remove_dir_all(scene.logs.path().join("shop_cart-1_u-1")).expect("removed");
    scene.settle();
    assert_eq!(scene.reader.table.files().filter(|file| file.tail.is_some()).count(), 0);
}

#[test]
fn an_inotify_overflow_leads_to_a_rescan() {
    let mut scene = Scene::new();
    scene.line(false);
    scene.fall_asleep();
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").expect("the limit");
    let limit: usize = limit.trim().parse().expect("a number");
    for _ in 0..=limit / 2 {
        fs::write(scene.path("noise"), "").expect("written");
        fs::remove_file(scene.path("noise")).expect("removed");
    }
    // Neither is reported any more.
    scene.line(false);
    let home = scene.logs.path().join("shop_new-1_u-2/app");
    fs::create_dir_all(&home).expect("made");
    fs::write(home.join("0.log"), "2026-11-21T11:00:00.000000001Z stdout F new\n").expect("written");
    scene.written.insert(b"new".to_vec());
    scene.step(Duration::from_millis(1));
    scene.step(Duration::from_millis(300));
    assert!(scene.unread() == 0 && scene.reader.table.len() == 2, "both were found and read");
    scene.settle();
    assert_eq!(scene.delivered.len(), 3);
}

/// A line of a pod of its own.
fn pod_line(scene: &mut Scene, pod: usize, number: usize) {
    let home = scene.logs.path().join(format!("shop_pod-{pod}_u-{pod}/app"));
    fs::create_dir_all(&home).expect("made");
    let text = format!("pod-{pod}-line-{number}");
    let mut file = OpenOptions::new().create(true).append(true).open(home.join("0.log")).expect("opened");
    writeln!(file, "2026-11-21T10:00:{number:02}.{pod:09}Z stdout F {text}").expect("written");
    scene.written.insert(text.into_bytes());
}

fn parked(scene: &Scene) -> usize {
    scene.reader.table.files().filter(|file| file.tail.as_ref().is_some_and(Tail::is_parked)).count()
}

#[test]
fn where_nothing_is_reported_a_write_to_a_quiet_file_is_found_by_looking() {
    let mut scene = Scene::new();
    scene.reader.watcher = Watcher::deaf();
    scene.line(false);
    scene.fall_asleep();
    scene.line(false);
    // Whether it is looked at each second does not depend on directories being listed.
    scene.reader.due.enumerate = scene.now + Duration::from_secs(60);
    for _ in 0..3 {
        scene.step(Duration::from_secs(1));
    }
    assert_eq!(scene.unread(), 0);
    scene.settle();
    assert_eq!(scene.delivered.len(), 2);
}

#[test]
fn a_write_that_inotify_did_not_report_is_found_in_a_round() {
    let mut scene = Scene::new();
    scene.line(false);
    scene.fall_asleep();
    scene.line(false);
    let _ = scene.reader.watcher.drain();
    scene.reader.due.enumerate = scene.now + Duration::from_secs(60);
    for _ in 0..ROUND_SECONDS {
        scene.step(Duration::from_secs(1));
    }
    assert_eq!(scene.unread(), 0);
}

/// However many files there are, up to 20,000, each is looked at within so many seconds.
const ROUND_SECONDS: usize = 12;

#[test]
fn with_more_files_than_descriptors_quiet_ones_are_closed_and_nothing_is_lost() {
    let mut scene = Scene::new();
    scene.reader.table.limit_open(4);
    (0..12).for_each(|pod| pod_line(&mut scene, pod, 0));
    scene.settle();
    assert_eq!(scene.delivered.len(), 12, "those that were closed made room for the others");
    scene.fall_asleep();
    assert!(parked(&scene) >= 8, "{} are closed", parked(&scene));
    (0..12).for_each(|pod| pod_line(&mut scene, pod, 1));
    scene.settle();
    assert_eq!(scene.delivered.len(), 24);
    scene.fall_asleep();
    // Rotated, then written to under both names; and deleted.
    for pod in 0..6 {
        let home = scene.logs.path().join(format!("shop_pod-{pod}_u-{pod}/app"));
        pod_line(&mut scene, pod, 2);
        fs::rename(home.join("0.log"), home.join("0.log.20261121-101010")).expect("rotated");
        pod_line(&mut scene, pod, 3);
    }
    for pod in 6..9 {
        fs::remove_dir_all(scene.logs.path().join(format!("shop_pod-{pod}_u-{pod}"))).expect("removed");
    }
    // Truncated and written anew.
    for pod in 9..12 {
        fs::write(scene.logs.path().join(format!("shop_pod-{pod}_u-{pod}/app/0.log")), "").expect("emptied");
        pod_line(&mut scene, pod, 4);
    }
    scene.settle();
    assert_eq!(scene.delivered.len(), scene.written.len());
    let texts: BTreeSet<Vec<u8>> = scene.delivered.values().cloned().collect();
    assert_eq!(texts, scene.written);
    let names = scene.reader.table.files().filter(|file| file.tail.is_some() && file.present).count();
    assert_eq!(names, 9, "nothing is left of the deleted ones");
}
