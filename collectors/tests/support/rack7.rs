//! The made-up machine of this repository, `fixtures/rack7`, as the tests look at it.

#![allow(dead_code, reason = "each test binary uses a part of it")]

/// The options that it is looked at with; `{rack7}` is where it is.
const OPTIONS: &[&str] = &[
    "arp.netlink=false",
    "bcache.priorityStats=true",
    "cpu.info.bugs-include=^spectre",
    "cpu.info.flags-include=^(aes|avx.*)$",
    "netdev.label-ifalias=true",
    "netdev.netlink=false",
    "pcidevice.idsfile={rack7}/pci.ids",
    "pcidevice.names=true",
    "qdisc.fixtures={rack7}/qdisc",
    "rapl.enable-zone-label=true",
    "runit.servicedir={rack7}/service",
    "stat.softirq=true",
    "sysctl.include-info=kernel.seccomp.actions_avail",
    "sysctl.include=fs.file-nr:total,current,max",
    "sysctl.include=kernel.threads-max",
    "textfile.directory={rack7}/text*",
    "wifi.fixtures={rack7}/wifi",
];

/// Collectors that ask the running kernel, a bus or a server, not files.
const ASKING: &[&str] = &[
    "ethtool",
    "logind",
    "network_route",
    "ntp",
    "perf",
    "selinux",
    "supervisord",
    "systemd",
    "tcpstat",
    "timex",
];

/// Collectors that node_exporter does not have.
pub const OWN: &[&str] = &["pods"];

/// Its trees: procfs, sysfs, rootfs, the udev database.
pub const TREES: [&str; 4] = ["proc", "sys", "root", "udev"];

/// The options, with the machine at `top`.
pub fn options(top: &str) -> Vec<String> {
    OPTIONS.iter().map(|option| option.replace("{rack7}", top)).collect()
}

/// The collectors of node_exporter that read files.
pub fn collectors() -> Vec<&'static str> {
    let all = nodewarden_collectors::node::ALL.iter().map(|entry| entry.name);
    all.filter(|name| !ASKING.contains(name) && !OWN.contains(name)).collect()
}
