//! Interfaces of all kinds, many of them, in a network namespace of their own: the same as a node_exporter there says.
//!
//! It needs the right to make namespaces, the programs `unshare` and `ip`, and a node_exporter; without them it says so and
//! passes.

#![allow(clippy::expect_used, clippy::panic, reason = "what tests call fails as they do")]
#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]
#![allow(clippy::disallowed_methods, reason = "a test may use the programs of the machine it is built on")]

mod support;

use std::process::{Command, Stdio};

use nodewarden_collectors::{Collector, Host, Options, Samples, text};

use support::{
    difference, entry,
    peer::{self, Peer},
    settings,
};

/// Tells the test that it runs in the namespace.
const INSIDE: &str = "NODEWARDEN_TEST_IN_NAMESPACE";

/// What the machine may lack a module for is allowed to fail.
const INTERFACES: &str = "
    mount -t sysfs sysfs /sys || exit 77
    ip link set lo up || exit 77
    for i in $(seq 1 60); do ip link add d$i type veth peer name e$i || exit 77; done
    for i in 1 2 3 50; do ip link set e$i up; done
    ip link add br0 type bridge
    for i in $(seq 1 10); do ip link add v$i type veth peer name w$i; ip link set v$i up; done
    for i in 1 2 3; do ip link set w$i up; ip link set w$i master br0; done
    ip link set br0 up
    ip link set d1 up
    ip link set d2 up promisc on
    ip link set d3 alias 'a very special one'
    ip link set d4 mtu 9000
    ip link set d5 txqueuelen 7
    ip link set d6 group 9
    ip link set d7 allmulticast on
    ip link set d8 address 02:11:22:33:44:55
    ip link set d9 alias $(printf 'x%.0s' $(seq 1 200))
    ip link set d10 name renamed
    ip link property add dev d14 altname another-name
    ip link add dummy7 type dummy && ip link set dummy7 up
    ip link add ifb7 type ifb && ip link set ifb7 up
    ip link add vx0 type vxlan id 3 dstport 0 && ip link set vx0 up
    ip link add link d1 name d1.5 type vlan id 5 && ip link set d1.5 up
    ip link add mv0 link d1 type macvlan && ip link set mv0 up
    ip tuntap add tap0 mode tap && ip link set tap0 up
    ip tuntap add tun0 mode tun && ip link set tun0 up
    ip link add sit1 type sit remote 10.0.0.1 local 10.0.0.2
    ip link add gre1 type gre remote 10.0.0.1
    ip link add bond7 type bond
    true
";

/// What is changed between two scrapes of the same collector.
const CHANGES: [&str; 5] = [
    "ip link set d1 down; ip link set d4 mtu 1500; ip link set d8 address 02:11:22:33:44:66",
    "ip link set d11 up; ip link set d12 alias x; ip link set d2 promisc off; ip link set v1 down",
    "ip link del d13; ip link add late type veth peer name later; ip link set d14 name d99",
    "ip link del v2; ip link set w3 nomaster; ip link set v1 up; ip link set d5 txqueuelen 9",
    "for i in $(seq 20 50); do ip link del d$i; done; ip link set br0 down",
];

fn run(script: &str) -> Option<i32> {
    Command::new("sh").args(["-c", script]).stderr(Stdio::null()).status().expect("a shell").code()
}

#[test]
fn interfaces_of_all_kinds_are_as_node_exporter_says() {
    let Some(binary) = peer::binary() else { return };
    if std::env::var_os(INSIDE).is_none() {
        let again = std::env::current_exe().expect("this test");
        let inside = Command::new("unshare").args(["--net", "--mount"]).arg(again).env(INSIDE, "1").status();
        match inside.ok().and_then(|status| status.code()) {
            Some(0) => {}
            Some(101) => panic!("it failed in the namespace"),
            other => eprintln!("SKIPPED: no namespace with interfaces can be made ({other:?})"),
        }
        return;
    }
    if run(INTERFACES) != Some(0) {
        std::process::exit(77);
    }
    let netlink = ["netclass.netlink=true", "netclass_rtnl.with-stats=true"];
    for flags in
        [&[][..], &netlink, &["netclass.ignore-invalid-speed=true", "netclass.ignored-devices=^d[1-3]"]]
    {
        compare(&binary, flags);
    }
}

fn compare(binary: &std::path::Path, flags: &[&str]) {
    let arguments: Vec<String> = flags
        .iter()
        .map(|flag| format!("--collector.{}", flag.trim_end_matches("=true")))
        .chain(["--collector.disable-defaults", "--collector.netclass"].map(str::to_owned))
        .collect();
    let peer = Peer::start(binary, &arguments);
    let settings = settings(flags);
    let netclass = entry("netclass");
    let host = Host::default();
    let mut collector = (netclass.build)(&host, &Options::new(netclass, &settings)).expect("valid settings");
    same(&peer, &mut *collector, &host);
    for change in CHANGES {
        run(change);
        // What the kernel does of itself after a change, such as a bridge's port that begins to forward, is over by then.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while {
            let before = said(&mut *collector, &host);
            std::thread::sleep(std::time::Duration::from_millis(50));
            before != said(&mut *collector, &host) && std::time::Instant::now() < deadline
        } {}
        same(&peer, &mut *collector, &host);
    }
}

fn same(peer: &Peer, collector: &mut dyn Collector, host: &Host) {
    let theirs: String = peer
        .get("/metrics")
        .expect("its page")
        .lines()
        .filter(|line| line.contains("node_network_") && !is_traffic(line))
        .map(|line| format!("{line}\n"))
        .collect();
    // The first scrape and a later one, which may take another way.
    for _ in 0..2 {
        let ours: String = said(collector, host)
            .lines()
            .filter(|line| !is_traffic(line))
            .map(|line| format!("{line}\n"))
            .collect();
        let found = difference(&theirs, &ours);
        assert!(found.is_empty(), "{found}");
    }
}

/// What grows by itself, such as the packets by which the kernel looks for other hosts.
fn is_traffic(line: &str) -> bool {
    !line.starts_with('#')
        && (line.contains("_packets_total{")
            || line.contains("_bytes_total{")
            || line.contains("_multicast_total{")
            || line.contains("_dropped_total{"))
}

fn said(collector: &mut dyn Collector, host: &Host) -> String {
    let mut samples = Samples::new();
    collector.collect(host, &mut samples).expect("collected");
    let mut page = Vec::new();
    assert_eq!(text::write(&samples, &mut page), 0, "no series is said twice");
    String::from_utf8(page).expect("UTF-8")
}
