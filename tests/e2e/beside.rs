//! The agent beside a real node_exporter on the same host: the same page, whatever flags both are given.

use std::{
    io::{Read, Write},
    net::{TcpListener, UdpSocket},
    thread,
};

use nodewarden_collectors::node;

use crate::support::{
    Agent, NO_LOGS,
    peer::{self, Peer, differences},
};

/// Both with these flags: what they say unlike each other.
fn compare(flags: &[&str]) -> Vec<String> {
    let Some(binary) = peer::binary() else { return Vec::new() };
    let peer = Peer::start(&binary, flags);
    let agent = Agent::start(NO_LOGS, flags);
    differences(|| peer.get("/metrics").expect("a page"), || agent.get("/metrics").text())
}

/// Each set of flags alone; every one is looked at before the test fails.
fn compare_each<'a>(runs: impl IntoIterator<Item = Vec<&'a str>>) {
    let mut failed = Vec::new();
    for flags in runs {
        let different = compare(&flags);
        if !different.is_empty() {
            failed.push(format!("{}\n  {}", flags.join(" "), different.join("\n  ")));
        }
    }
    assert!(failed.is_empty(), "\n{}", failed.join("\n"));
}

#[test]
fn by_default_the_page_is_the_same() {
    compare_each([vec![]]);
}

#[test]
fn with_everything_on_the_page_is_the_same() {
    let on: Vec<String> = node::ALL.iter().map(|entry| format!("--collector.{}", entry.name)).collect();
    compare_each([on.iter().map(String::as_str).collect()]);
}

#[test]
fn each_collector_that_is_off_by_default_says_the_same_when_it_is_on() {
    let off = node::ALL.iter().filter(|entry| !entry.default_on);
    let on: Vec<String> = off.map(|entry| format!("--collector.{}", entry.name)).collect();
    compare_each(on.iter().map(|on| vec!["--collector.disable-defaults", on]));
}
