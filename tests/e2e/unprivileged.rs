//! The agent as its manifest runs it: uid 65534, no capabilities, nothing to write to. It works, and sees as much of the
//! host as a node_exporter that is run in the same way.

use std::{collections::HashMap, fs, iter, process::Command};

use nodewarden_collectors::{Entry, node};

use crate::support::{
    Agent, Launch, NO_LOGS,
    peer::{self, Page, Peer, differences},
    rack7,
};

/// Makes every file system read-only in a mount namespace of its own, gives up what root may, and becomes its arguments.
const WRAPPER: &[&str] = &[
    "unshare",
    "--mount",
    "--propagation=private",
    "sh",
    "-c",
    "while read -r _ at _; do mount -o remount,bind,ro \"$at\"; done < /proc/self/mounts
     exec setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all --bounding-set=-all --no-new-privs \"$@\"",
    "sh",
];

/// Whether this test may do that: it is root's to do.
fn can_drop_privileges() -> bool {
    let tried = Command::new(WRAPPER[0]).args(&WRAPPER[1..]).arg("true").output();
    let can = tried.is_ok_and(|output| output.status.success());
    if !can {
        eprintln!("SKIPPED: only root can start the agent as another user in a read-only place");
    }
    can
}

fn launch() -> Launch {
    Launch { wrapper: WRAPPER.iter().map(|&word| word.to_owned()).collect(), ..Launch::default() }
}

fn only(entries: impl Iterator<Item = &'static Entry>) -> Vec<String> {
    let on = entries.map(|entry| format!("--collector.{}", entry.name));
    iter::once("--collector.disable-defaults".to_owned()).chain(on).collect()
}

#[test]
fn without_privileges_it_works() {
    if !can_drop_privileges() {
        return;
    }
    let flags = only(node::ALL.iter().copied());
    let agent = Agent::start_as(launch(), NO_LOGS, &flags.iter().map(String::as_str).collect::<Vec<_>>());
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).expect("its status");
    for line in ["Uid:\t65534\t65534\t65534\t65534", "CapEff:\t0000000000000000", "NoNewPrivs:\t1"] {
        assert!(status.contains(line), "no {line} in\n{status}");
    }
    let mounts = fs::read_to_string(format!("/proc/{}/mounts", agent.pid())).expect("its mounts");
    // Of several mounts on one place, the last is what is seen there.
    let seen: HashMap<&str, &str> =
        mounts.lines().filter_map(|line| Some((line.split(' ').nth(1)?, line))).collect();
    let read_only = |line: &&str| line.split(' ').nth(3).is_some_and(|options| options.starts_with("ro"));
    let writable: Vec<&str> = seen.into_values().filter(|line| !read_only(line)).collect();
    assert!(writable.is_empty(), "{writable:#?}");

    let page = Page::parse(&agent.get("/metrics").text());
    let names = node::ALL.iter().map(|entry| entry.name).collect();
    assert_eq!(page.collectors(), names, "every collector is asked");
    // What any user may read.
    for name in [
        "cpu",
        "diskstats",
        "filesystem",
        "loadavg",
        "meminfo",
        "netdev",
        "netstat",
        "stat",
        "uname",
        "vmstat",
    ] {
        assert!(!page.failed().contains(name), "{name} failed");
    }
}

#[test]
fn without_privileges_a_real_node_exporter_says_the_same() {
    let Some(binary) = peer::binary().filter(|_| can_drop_privileges()) else { return };
    let theirs = node::ALL.iter().copied().filter(|entry| !rack7::OWN.contains(&entry.name));
    let flags = only(theirs);
    let mut command = Command::new(WRAPPER[0]);
    command.args(&WRAPPER[1..]).arg(&binary);
    let peer = Peer::spawn(command, &flags).expect("it starts");
    let agent = Agent::start_as(launch(), NO_LOGS, &flags.iter().map(String::as_str).collect::<Vec<_>>());
    let found = differences(|| peer.get("/metrics").expect("a page"), || agent.get("/metrics").text());
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}
