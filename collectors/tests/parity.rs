//! Byte for byte what node_exporter 1.12.1 says of the same fixtures.
//!
//! Its fixtures are no part of this repository: without them these tests say so and pass.

#![allow(clippy::expect_used, clippy::panic, reason = "what tests call fails as they do")]
#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]

mod support;

use std::{path::Path, sync::LazyLock};

use nodewarden_collectors::{Host, node};
use support::{
    difference,
    fixtures::{self, Tree, comparable},
    page, settings,
};

/// The fixtures, this process' working directory set to the top of them.
static TREE: LazyLock<Option<Tree>> = LazyLock::new(|| {
    let tree = Tree::new()?;
    std::env::set_current_dir(tree.top.path()).expect("entered");
    Some(tree)
});

fn fixture_host() -> Host {
    Host {
        procfs: "collector/fixtures/proc".into(),
        sysfs: "collector/fixtures/sys".into(),
        rootfs: "collector/fixtures".into(),
        udev_data: "collector/fixtures/udev/data".into(),
        ..Host::default()
    }
}

/// The collectors that succeeded in the run that made the expected page: all that it turned on.
fn collectors(page: &str) -> Vec<&str> {
    page.lines()
        .filter_map(|line| {
            line.strip_prefix("node_scrape_collector_success{collector=\"")?.strip_suffix("\"} 1")
        })
        .collect()
}

#[test]
fn the_end_to_end_run_gives_the_same_page() {
    let Some(tree) = &*TREE else { return };
    let expected = tree.expected();
    let names = collectors(&expected);
    assert_eq!(names.len(), 63, "{names:?}");
    let (names, absent): (Vec<&str>, Vec<&str>) =
        names.iter().partition(|name| node::ALL.iter().any(|entry| entry.name == **name));
    let (found, failed) = page(&names, &fixture_host(), &settings(&fixtures::options()));
    // How a scrape went is said by the agent, whose own test this run is as well.
    let expected: String =
        comparable(&expected).split_inclusive('\n').filter(|line| !line.contains("node_scrape_")).collect();
    let difference = difference(&expected, &comparable(&found));
    assert!(difference.is_empty(), "{difference}");
    assert!(failed.is_empty(), "{failed:?}");
    assert!(absent.is_empty(), "{absent:?}");
}

#[test]
fn textfile_cases_give_the_same_page() {
    let Some(tree) = &*TREE else { return };
    let cases = std::fs::read_dir(tree.shared.join("fixtures/textfile")).expect("listed");
    let mut count = 0;
    for case in cases {
        let path = case.expect("listed").path();
        if path.extension().is_none_or(|extension| extension != "out") {
            continue;
        }
        let name = path.file_stem().expect("has one").to_str().expect("UTF-8").to_owned();
        let directory = match name.as_str() {
            "glob_extra_dimension" => "fixtures/textfile/*_extra_dimension".to_owned(),
            name => format!("fixtures/textfile/{name}"),
        };
        let flag = format!("textfile.directory={directory}");
        let (found, _) = page(&["textfile"], &fixture_host(), &settings(&[&flag]));
        let expected = std::fs::read_to_string(&path).expect("read");
        let found = mtimes_are_one(&found);
        assert!(expected == found, "{name}\n{}", difference(&expected, &found));
        count += 1;
    }
    assert!(count >= 12, "{count} cases");
}

#[test]
fn devices_of_pci_are_named() {
    let Some(tree) = &*TREE else { return };
    let ids = format!("pcidevice.idsfile={}", tree.shared.join("fixtures/pci.ids").display());
    let flags = settings(&["pcidevice.names=true", &ids]);
    let (found, failed) = page(&["pcidevice"], &fixture_host(), &flags);
    assert!(failed.is_empty(), "{failed:?}");
    let expected = tree.shared.join("fixtures/pcidevice-names-output.txt");
    let expected = std::fs::read_to_string(expected).expect("read");
    // It was written by hand: with notes and blank lines, the families in another order than on a page.
    let is_told =
        |line: &&str| !line.is_empty() && (!line.starts_with('#') || line.contains("node_pcidevice_"));
    let sorted = |page: &str| {
        let mut lines: Vec<String> = page.lines().filter(is_told).map(str::to_owned).collect();
        lines.sort();
        lines.join("\n")
    };
    let (expected, found) = (sorted(&expected), sorted(&found));
    assert!(expected == found, "{}", difference(&expected, &found));
}

/// The expected pages were made with every file's time set to 1.
fn mtimes_are_one(page: &str) -> String {
    let line = |line: &str| match line.rsplit_once(' ') {
        Some((series, _)) if series.starts_with("node_textfile_mtime_seconds{") => format!("{series} 1\n"),
        _ => format!("{line}\n"),
    };
    page.lines().map(line).collect()
}

/// The mount points that the filesystem collector says of a fixture, in order.
fn mount_points(procfs: &Path, rootfs: &str) -> Vec<String> {
    let host = Host { procfs: procfs.into(), rootfs: rootfs.into(), ..Host::default() };
    let keep_all = settings(&["filesystem.mount-points-exclude=", "filesystem.fs-types-exclude="]);
    let (page, failed) = page(&["filesystem"], &host, &keep_all);
    assert!(failed.is_empty(), "{failed:?}");
    let mut points: Vec<String> = page
        .lines()
        .filter(|line| line.starts_with("node_filesystem_device_error{"))
        .filter_map(|line| Some(line.split_once("mountpoint=\"")?.1.rsplit_once("\"}")?.0.to_owned()))
        .collect();
    points.sort();
    points.dedup();
    points
}

#[test]
fn bind_mounts_lose_the_root_that_they_are_seen_below() {
    let Some(tree) = &*TREE else { return };
    let points = mount_points(&tree.shared.join("fixtures_bindmount/proc"), "/host");
    assert_eq!(points, ["/", "/dev/shm", "/media/volume1", "/media/volume2", "/run/lock", "/sys/fs/cgroup"]);
}

#[test]
fn without_pid_1_the_own_mounts_are_read() {
    let Some(tree) = &*TREE else { return };
    assert_eq!(mount_points(&tree.shared.join("fixtures_hidepid/proc"), "/"), ["/"]);
}

#[test]
fn escaped_mount_points_are_read() {
    let Some(tree) = &*TREE else { return };
    let points = mount_points(&tree.shared.join("fixtures/proc"), "/");
    assert_eq!(points.len(), 31);
    let with = |text: &str| points.iter().filter(|point| point.contains(text)).count();
    assert_eq!((with("[vsanDatastore] "), with("[vsanDatastore]\t")), (1, 1));
}

#[test]
fn ipvs_backends_are_added_up_by_their_labels() {
    let Some(tree) = &*TREE else { return };
    let cases = [
        ("", "local_address,local_port,remote_address,remote_port,proto,local_mark"),
        ("_lbs_local_address_local_port", "local_address,local_port"),
        ("_lbs_local_port", "local_port"),
        ("_lbs_none", ""),
    ];
    for (case, labels) in cases {
        let flag = format!("ipvs.backend-labels={labels}");
        let (found, failed) = page(&["ipvs"], &fixture_host(), &settings(&[&flag]));
        assert!(failed.is_empty(), "{failed:?}");
        let path = tree.shared.join(format!("fixtures/ip_vs_result{case}.txt"));
        let expected = std::fs::read_to_string(path).expect("read");
        assert!(expected == found, "{labels}\n{}", difference(&expected, &found));
    }
}
