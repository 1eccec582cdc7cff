//! node_exporter's own fixtures and what its end-to-end run gives.
//!
//! They are no part of this repository: they are looked for in `shared/node_exporter` beside the repository, or beside a
//! directory above it, and without them the tests say so and pass.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]
#![allow(clippy::disallowed_methods, reason = "the program to compare with is another program")]

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

/// The collectors that the end-to-end run turns on by name.
pub const ON: &[&str] = &[
    "arp",
    "bcache",
    "bcachefs",
    "bonding",
    "btrfs",
    "buddyinfo",
    "cgroups",
    "conntrack",
    "cpu_vulnerabilities",
    "dmi",
    "drbd",
    "edac",
    "entropy",
    "fibrechannel",
    "filefd",
    "hwmon",
    "infiniband",
    "interrupts",
    "ipvs",
    "kernel_hung",
    "ksmd",
    "lnstat",
    "loadavg",
    "mdadm",
    "meminfo",
    "meminfo_numa",
    "mountstats",
    "netdev",
    "netstat",
    "nfs",
    "nfsd",
    "pcidevice",
    "pressure",
    "processes",
    "qdisc",
    "rapl",
    "schedstat",
    "slabinfo",
    "sockstat",
    "softirqs",
    "stat",
    "sysctl",
    "textfile",
    "thermal_zone",
    "udp_queues",
    "vmstat",
    "watchdog",
    "wifi",
    "xfrm",
    "xfs",
    "zfs",
    "zoneinfo",
];

/// Those that it turns off.
pub const OFF: &[&str] = &["filesystem", "selinux", "timex", "uname"];

/// The flags of the end-to-end run that set options, but for those of the CPU's description.
const OPTIONS: &[&str] = &[
    "arp.device-exclude=nope",
    "arp.netlink=false",
    "bcache.priorityStats=true",
    "hwmon.chip-include=(applesmc|asus_nb_wmi|coretemp|hwmon4|ieee80211|nct6779)",
    "netclass.ignore-invalid-speed=true",
    "netclass.ignored-devices=(dmz|int)",
    "netdev.device-include=lo",
    "qdisc.device-include=(wlan0|eth0)",
    "qdisc.fixtures=collector/fixtures/qdisc/",
    "stat.softirq=true",
    "sysctl.include-info=kernel.seccomp.actions_avail",
    "sysctl.include=fs.file-nr",
    "sysctl.include=fs.file-nr:total,current,max",
    "sysctl.include=kernel.threads-max",
    "textfile.directory=collector/fixtures/textfile/two_metric_files/",
    "wifi.fixtures=collector/fixtures/wifi",
];

/// The description of CPUs: the fixture is that of an x86.
const CPU: &[&str] = &[
    "cpu.info.bugs-include=^(cpu_meltdown|spectre_.*|mds)$",
    "cpu.info.flags-include=^(aes|avx.?|constant_tsc)$",
    "cpu.info=true",
];

const EXPECTED: &str = if X86 { "expected/e2e-output.txt" } else { "expected/e2e-64k-page-output.txt" };
const X86: bool = cfg!(target_arch = "x86_64");

/// The flags of the end-to-end run that set options.
pub fn options() -> Vec<&'static str> {
    if X86 { [OPTIONS, CPU].concat() } else { OPTIONS.to_vec() }
}

/// Families that a page says of the program, not of the host.
const OWN: &[&str] = &["go_", "node_exporter_build_info", "nodewarden_", "process_", "promhttp_"];

/// Samples that differ from host to host and from run to run; their HELP and TYPE lines do not.
const VOLATILE: &[&str] = &[
    "node_scrape_collector_duration_seconds",
    "node_textfile_mtime_seconds",
    "node_time_zone",
    "node_time_seconds",
    "node_network_receive_bytes_total",
    "node_network_receive_packets_total",
    "node_network_transmit_bytes_total",
    "node_network_transmit_packets_total",
];

/// The fixtures laid out as node_exporter's tests want them, below the working directory that it runs in.
pub struct Tree {
    /// Where the data is.
    pub shared: PathBuf,
    /// The working directory; its `collector/fixtures` are the fixtures.
    pub top: tempfile::TempDir,
}

impl Tree {
    /// Lays them out, if they are here.
    pub fn new() -> Option<Self> {
        let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
        let shared = above.map(|above| above.join("shared/node_exporter")).find(|path| path.is_dir());
        let Some(shared) = shared else {
            eprintln!("SKIPPED: no ../shared/node_exporter beside the repository");
            return None;
        };
        let top = tempfile::tempdir().expect("a temporary directory");
        let fixtures = top.path().join("collector/fixtures");
        fs::create_dir_all(&fixtures).expect("made");
        for name in ["qdisc", "textfile", "usr", "wifi"] {
            symlink(shared.join("fixtures").join(name), fixtures.join(name)).expect("linked");
        }
        link_proc(&shared.join("fixtures/proc"), &fixtures.join("proc"));
        unpack(&shared.join("fixtures/sys-udev.tar.gz"), &fixtures);
        symlink(&fixtures, top.path().join("fixtures")).expect("linked");
        Some(Self { shared, top })
    }

    /// The fixtures themselves.
    pub fn fixtures(&self) -> PathBuf {
        self.top.path().join("collector/fixtures")
    }

    /// The page that the end-to-end run has to give.
    pub fn expected(&self) -> String {
        fs::read_to_string(self.shared.join(EXPECTED)).expect("the expected page")
    }
}

/// Links what is in `from`; `self`, a link that copies of the fixtures may have as a file, is made a link again.
fn link_proc(from: &Path, to: &Path) {
    fs::create_dir(to).expect("made");
    for entry in fs::read_dir(from).expect("listed") {
        let name = entry.expect("listed").file_name();
        let target = if name == "self" { "10".into() } else { from.join(&name) };
        symlink(target, to.join(name)).expect("linked");
    }
}

#[allow(clippy::disallowed_methods, reason = "a test may use the programs of the machine it is built on")]
fn unpack(archive: &Path, into: &Path) {
    let status = Command::new("tar").arg("xzf").arg(archive).arg("-C").arg(into).status();
    assert!(status.expect("tar is installed").success());
}

/// The lines of a page that have to be the same.
pub fn comparable(page: &str) -> String {
    let of_the_host = |line: &&str| !begins(family(line), OWN);
    let stable = |line: &&str| line.starts_with('#') || !begins(line, VOLATILE);
    page.lines().filter(of_the_host).filter(stable).map(|line| format!("{line}\n")).collect()
}

/// The family that a line of a page is about.
pub fn family(line: &str) -> &str {
    let name = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE ")).unwrap_or(line);
    name.split([' ', '{']).next().unwrap_or_default()
}

fn begins(name: &str, with: &[&str]) -> bool {
    with.iter().any(|prefix| name.starts_with(prefix))
}
