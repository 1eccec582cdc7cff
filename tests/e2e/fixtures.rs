//! The agent on made-up machines: node_exporter's own, whose page is known, and ours beside a real node_exporter.

use std::iter;

use nodewarden_collectors::node;

use crate::support::{
    Agent, Launch, NO_LOGS,
    fixtures::{OFF, ON, Tree, comparable, options},
    peer::{self, Peer, differences},
    rack7, repository,
};

#[test]
fn node_exporters_fixtures_give_its_page() {
    let Some(tree) = Tree::new() else { return };
    let paths = [
        "--path.procfs=collector/fixtures/proc",
        "--path.rootfs=collector/fixtures",
        "--path.sysfs=collector/fixtures/sys",
        "--path.udev.data=collector/fixtures/udev/data",
    ];
    let on = ON.iter().map(|name| format!("--collector.{name}"));
    let off = OFF.iter().map(|name| format!("--no-collector.{name}"));
    let flags: Vec<String> =
        paths.map(str::to_owned).into_iter().chain(on).chain(off).chain(flags(&options())).collect();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let launch = Launch { directory: Some(tree.top.path().to_owned()), ..Launch::default() };
    let agent = Agent::start_as(launch, NO_LOGS, &flags);
    let (expected, found) = (comparable(&tree.expected()), comparable(&agent.get("/metrics").text()));
    assert!(expected == found, "\n{}", difference(&expected, &found));
}

#[test]
fn of_our_made_up_machine_a_real_node_exporter_says_the_same() {
    let Some(binary) = peer::binary() else { return };
    let top = repository().join("collectors/fixtures/rack7");
    let top = top.to_str().expect("UTF-8");
    let paths = ["procfs", "sysfs", "rootfs", "udev.data"].into_iter().zip(rack7::TREES);
    let theirs = node::ALL.iter().filter(|entry| !rack7::OWN.contains(&entry.name));
    let on = theirs.map(|entry| format!("--collector.{}", entry.name));
    let flags: Vec<String> = iter::once("--collector.disable-defaults".to_owned())
        .chain(paths.map(|(flag, below)| format!("--path.{flag}={top}/{below}")))
        .chain(on)
        .chain(flags(&rack7::options(top)))
        .collect();
    let peer = Peer::start(&binary, &flags);
    let agent = Agent::start(NO_LOGS, &flags.iter().map(String::as_str).collect::<Vec<_>>());
    let found = differences(|| peer.get("/metrics").expect("a page"), || agent.get("/metrics").text());
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// Options as the command line has them.
fn flags(options: &[impl AsRef<str>]) -> Vec<String> {
    let flag = |option: &str| match option.split_once('=') {
        Some((name, "true")) => format!("--collector.{name}"),
        Some((name, "false")) => format!("--no-collector.{name}"),
        _ => format!("--collector.{option}"),
    };
    options.iter().map(AsRef::as_ref).map(flag).collect()
}

/// The lines that are in one page only.
fn difference(expected: &str, found: &str) -> String {
    let (left, right): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), found.lines().collect());
    let missing = left.iter().filter(|line| !right.contains(line)).map(|line| format!("- {line}"));
    let more = right.iter().filter(|line| !left.contains(line)).map(|line| format!("+ {line}"));
    missing.chain(more).chain(["(the order may differ too)".to_owned()]).collect::<Vec<_>>().join("\n")
}
