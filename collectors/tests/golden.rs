//! The page of a made-up machine, `fixtures/rack7`, as it was last looked at and found right.
//!
//! `UPDATE_GOLDEN=1 cargo test -p nodewarden-collectors --test golden` writes it anew: read the difference.

#![allow(clippy::expect_used, clippy::panic, reason = "what tests call fails as they do")]

mod support;

use std::path::Path;

use nodewarden_collectors::{FlagKind, Host, Options, Settings, node};
use support::{difference, page, rack7, settings};

/// What this host, its clock or the age of a file decides.
const VOLATILE: &[&str] = &[
    "node_time_seconds ",
    "node_time_zone_offset_seconds{",
    "node_uname_info{",
    "node_textfile_mtime_seconds{",
];

/// Cargo runs tests in the directory of their crate.
const TOP: &str = "fixtures/rack7";

fn machine() -> Host {
    let [procfs, sysfs, rootfs, udev_data] = rack7::TREES.map(|tree| Path::new(TOP).join(tree));
    Host { procfs, sysfs, rootfs, udev_data, ..Host::default() }
}

#[test]
fn the_machine_gives_the_golden_page() {
    let (found, failed) = page(&rack7::collectors(), &machine(), &settings(&rack7::options(TOP)));
    assert!(failed.is_empty(), "{failed:?}");
    let stable = |line: &&str| !VOLATILE.iter().any(|volatile| line.starts_with(volatile));
    let found: String = found.lines().filter(stable).map(|line| format!("{line}\n")).collect();
    let golden = Path::new("fixtures/rack7.prom");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(golden, &found).expect("written");
    }
    let expected = std::fs::read_to_string(golden).expect("the golden page is there");
    assert!(expected == found, "{}", difference(&expected, &found));
}

#[test]
fn an_empty_host_harms_no_collector() {
    let empty = tempfile::tempdir().expect("a temporary directory");
    let path = empty.path().to_path_buf();
    let host = Host {
        procfs: path.clone(),
        sysfs: path.clone(),
        rootfs: path.clone(),
        udev_data: path,
        ..Host::default()
    };
    for entry in node::ALL {
        page(&[entry.name], &host, &Settings::new());
    }
}

#[test]
fn the_list_is_sorted_and_every_collector_builds_from_its_defaults() {
    assert!(node::ALL.is_sorted_by(|left, right| left.name < right.name));
    for entry in node::ALL {
        let settings = Settings::new();
        let built = (entry.build)(&machine(), &Options::new(entry, &settings));
        assert!(built.is_ok(), "{}", entry.name);
    }
}

#[test]
fn flags_carry_the_name_of_their_collector_and_a_help_text() {
    for entry in node::ALL {
        // The one whose flag has a name of its own.
        let name = if entry.name == "powersupplyclass" { "powersupply" } else { entry.name };
        for flag in entry.flags {
            // An older spelling of qdisc's flags has its collector's name wrong.
            let flag_name = flag.name.replacen("qdisk.", "qdisc.", 1);
            let rest = flag_name.strip_prefix(name).unwrap_or_else(|| panic!("{}", flag.name));
            assert!(rest.starts_with(['.', '_']), "{}", flag.name);
            assert!(!flag.help.is_empty(), "{}", flag.name);
            if flag.kind == FlagKind::Regex {
                assert!(regex::Regex::new(flag.default).is_ok(), "{}", flag.name);
            }
        }
    }
}

#[test]
fn every_family_has_a_help_text_and_one_type() {
    let page = std::fs::read_to_string("fixtures/rack7.prom").expect("the golden page is there");
    let mut families = 0;
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            assert!(help.split_once(' ').is_some_and(|(_, text)| !text.is_empty()), "{line}");
            families += 1;
        }
    }
    assert_eq!(families, page.lines().filter(|line| line.starts_with("# TYPE ")).count());
    assert!(families > 200, "{families}");
}
