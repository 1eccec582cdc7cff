//! Out of the samples of one scrape the few sums that the history needs.

use nodewarden_collectors::Samples;

/// The history's series, in the order of a point's values.
pub(super) const SERIES: [&str; 13] = [
    "cpu_user",
    "cpu_system",
    "cpu_iowait",
    "cpu_steal",
    "cpu_other",
    "memory_used",
    "memory_cached",
    "memory_available",
    "disk_read",
    "disk_write",
    "net_receive",
    "net_transmit",
    "load1",
];

/// What was counted up to one moment; `None` where nothing was said.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Totals {
    /// Seconds as user, system, iowait, steal, other, idle.
    cpu: Option<[f64; 6]>,
    memory: Memory,
    /// Bytes as disk read, disk write, network receive, network transmit.
    bytes: [Option<f64>; 4],
    load1: Option<f64>,
}

/// Bytes of memory.
#[derive(Debug, Clone, Default, PartialEq)]
struct Memory {
    total: Option<f64>,
    free: Option<f64>,
    available: Option<f64>,
    cached: Option<f64>,
}

impl Totals {
    /// Sums up what a scrape said.
    pub(super) fn of(samples: &Samples) -> Self {
        let mut totals = Self::default();
        for (name, mut labels, value) in samples.iter() {
            let Some(name) = name.strip_prefix("node_") else { continue };
            if let Some(name) = name.strip_prefix("memory_") {
                totals.memory.add(name, value);
                continue;
            }
            match name {
                "cpu_seconds_total" => totals.add_cpu(labels.nth(1), value),
                "load1" => totals.load1 = Some(value),
                _ => totals.add_bytes(name, labels.next(), value),
            }
        }
        totals
    }

    fn add_cpu(&mut self, mode: Option<&str>, seconds: f64) {
        let place = match mode {
            Some("user") => 0,
            Some("system") => 1,
            Some("iowait") => 2,
            Some("steal") => 3,
            Some("idle") => 5,
            _ => 4,
        };
        self.cpu.get_or_insert_default()[place] += seconds;
    }

    fn add_bytes(&mut self, name: &str, device: Option<&str>, bytes: f64) {
        let place = match name {
            "disk_read_bytes_total" => 0,
            "disk_written_bytes_total" => 1,
            "network_receive_bytes_total" => 2,
            "network_transmit_bytes_total" => 3,
            _ => return,
        };
        let counts = if place < 2 { is_whole_disk } else { is_physical_interface };
        if device.is_some_and(counts) {
            *self.bytes[place].get_or_insert_default() += bytes;
        }
    }

    /// One point of the history; rates need what was counted `before` and how many seconds ago that was.
    pub(super) fn point(&self, since: Option<(&Self, f64)>) -> [f32; SERIES.len()] {
        let mut point = [f32::NAN; SERIES.len()];
        if let Some((before, seconds)) = since {
            point[..5].copy_from_slice(&self.cpu_shares(before));
            for (place, value) in point[8..12].iter_mut().enumerate() {
                *value = rate(self.bytes[place], before.bytes[place], seconds);
            }
        }
        point[5] = or_unknown(self.memory.used());
        point[6] = or_unknown(self.memory.cached);
        point[7] = or_unknown(self.memory.available);
        point[12] = or_unknown(self.load1);
        point
    }

    /// Each mode's share of the time of all CPUs; unknown when a mode went back (a CPU was unplugged).
    fn cpu_shares(&self, before: &Self) -> [f32; 5] {
        let (Some(now), Some(before)) = (self.cpu, before.cpu) else {
            return [f32::NAN; 5];
        };
        let spent: [f64; 6] = std::array::from_fn(|mode| now[mode] - before[mode]);
        let all: f64 = spent.iter().sum();
        if all <= 0.0 || spent.iter().any(|&seconds| seconds < 0.0) {
            return [f32::NAN; 5];
        }
        std::array::from_fn(|mode| (spent[mode] / all) as f32)
    }
}

impl Memory {
    fn add(&mut self, name: &str, bytes: f64) {
        match name {
            "MemTotal_bytes" => self.total = Some(bytes),
            "MemFree_bytes" => self.free = Some(bytes),
            "MemAvailable_bytes" => self.available = Some(bytes),
            "Buffers_bytes" | "Cached_bytes" | "SReclaimable_bytes" => {
                *self.cached.get_or_insert_default() += bytes;
            }
            _ => {}
        }
    }

    fn used(&self) -> Option<f64> {
        Some((self.total? - self.free? - self.cached?).max(0.0))
    }
}

fn rate(now: Option<f64>, before: Option<f64>, seconds: f64) -> f32 {
    match (now, before) {
        (Some(now), Some(before)) if now >= before && seconds > 0.0 => ((now - before) / seconds) as f32,
        _ => f32::NAN,
    }
}

fn or_unknown(value: Option<f64>) -> f32 {
    value.map_or(f32::NAN, |value| value as f32)
}

/// Whether a block device is a disk of its own: neither memory nor a file (`loop`, `ram`, `zram`, `fd`), nor made of other
/// disks (`dm-`, `md`), nor a partition.
pub(super) fn is_whole_disk(name: &str) -> bool {
    const VIRTUAL: [&str; 6] = ["loop", "ram", "zram", "fd", "dm-", "md"];
    !VIRTUAL.iter().any(|prefix| has_number(name, prefix)) && !is_partition(name)
}

/// `sda1`, `vdb2`, `nvme0n1p3`, `mmcblk0p1`.
fn is_partition(name: &str) -> bool {
    let disk = name.trim_end_matches(|c: char| c.is_ascii_digit());
    if disk.len() == name.len() {
        return false;
    }
    let of_letters = ["sd", "hd", "vd", "xvd"].iter().any(|prefix| {
        disk.strip_prefix(prefix)
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_lowercase()))
    });
    let of_numbers = disk.strip_suffix('p').is_some_and(|disk| disk.ends_with(|c: char| c.is_ascii_digit()));
    of_letters || of_numbers
}

/// Whether an interface looks like one that leaves this host; those left out carry bytes that another one carries too.
pub(super) fn is_physical_interface(name: &str) -> bool {
    /// Followed by anything: pods' ends and the bridges of container networks.
    const NAMED: [&str; 24] = [
        "antrea",
        "azv",
        "br-",
        "cali",
        "cilium",
        "cni",
        "docker",
        "flannel",
        "fwbr",
        "genev_sys",
        "gke",
        "kube-",
        "lxc",
        "lxdbr",
        "nodelocaldns",
        "ovn",
        "ovs-",
        "podman",
        "veth",
        "virbr",
        "vmbr",
        "vnet",
        "vxlan",
        "weave",
    ];
    /// Followed by a number: what the kernel or its tools make out of other interfaces.
    const NUMBERED: [&str; 17] = [
        "bond", "br", "dummy", "erspan", "gre", "gretap", "ifb", "ip6gre", "ip6tnl", "macvtap", "sit", "tap",
        "team", "tun", "tunl", "vlan", "wg",
    ];
    name != "lo"
        && !name.contains(['.', '@', ':'])
        && !NAMED.iter().any(|prefix| name.starts_with(prefix))
        && !NUMBERED.iter().any(|prefix| has_number(name, prefix))
        && !is_aws_pod(name)
}

/// The AWS network plugin names a pod's end `eni` and eleven hex digits.
fn is_aws_pod(name: &str) -> bool {
    name.strip_prefix("eni")
        .is_some_and(|rest| rest.len() == 11 && rest.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn has_number(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use nodewarden_collectors::Kind;

    use super::*;

    type Labels<'a> = [(&'a str, &'a str)];

    fn samples(said: &[(&str, &Labels<'_>, f64)]) -> Samples {
        let mut samples = Samples::new();
        for (name, labels, value) in said {
            let names: Vec<&str> = labels.iter().map(|(name, _)| *name).collect();
            let values: Vec<&str> = labels.iter().map(|(_, value)| *value).collect();
            let family = samples.dynamic_family(name, "", Kind::Untyped, &names);
            samples.push_to(family, &values, *value);
        }
        samples
    }

    fn cpu(seconds: [(&str, f64); 3]) -> Totals {
        let mut samples = Samples::new();
        let family = samples.dynamic_family("node_cpu_seconds_total", "", Kind::Counter, &["cpu", "mode"]);
        for (mode, seconds) in seconds {
            samples.push_to(family, &["0", mode], seconds);
            samples.push_to(family, &["1", mode], seconds);
        }
        Totals::of(&samples)
    }

    #[test]
    fn cpu_shares_are_of_all_cpus_time() {
        let before = cpu([("user", 10.0), ("softirq", 1.0), ("idle", 100.0)]);
        let now = cpu([("user", 10.5), ("softirq", 1.25), ("idle", 100.25)]);
        let point = now.point(Some((&before, 1.0)));
        assert_eq!(point[..5], [0.5, 0.0, 0.0, 0.0, 0.25]);
        assert!(before.point(Some((&now, 1.0)))[..5].iter().all(|share| share.is_nan()));
        assert!(now.point(Some((&now, 1.0)))[..5].iter().all(|share| share.is_nan()), "no time has passed");
    }

    #[test]
    fn what_the_kernel_gives_back_is_not_used_memory() {
        let totals = Totals::of(&samples(&[
            ("node_memory_MemTotal_bytes", &[], 1000.0),
            ("node_memory_MemFree_bytes", &[], 300.0),
            ("node_memory_MemAvailable_bytes", &[], 600.0),
            ("node_memory_Buffers_bytes", &[], 50.0),
            ("node_memory_Cached_bytes", &[], 200.0),
            ("node_memory_SReclaimable_bytes", &[], 50.0),
        ]));
        assert_eq!(totals.point(None)[5..8], [400.0, 300.0, 600.0]);
    }

    #[test]
    fn bytes_are_summed_over_what_leaves_the_host() {
        let counted = |sda: f64, eth0: f64| {
            Totals::of(&samples(&[
                ("node_disk_read_bytes_total", &[("device", "sda")], sda),
                ("node_disk_read_bytes_total", &[("device", "sdb")], 1.0),
                ("node_disk_read_bytes_total", &[("device", "dm-0")], sda * 7.0),
                ("node_network_transmit_bytes_total", &[("device", "eth0")], eth0),
                ("node_network_transmit_bytes_total", &[("device", "lo")], eth0 * 7.0),
            ]))
        };
        let point = counted(5000.0, 300.0).point(Some((&counted(1000.0, 100.0), 2.0)));
        assert_eq!([point[8], point[11]], [2000.0, 100.0]);
        assert!(point[9].is_nan() && point[10].is_nan(), "nothing was said of those");
    }

    #[test]
    fn whole_disks_are_counted() {
        for disk in ["sda", "sdaa", "vdb", "xvda", "nvme0n1", "mmcblk0", "nbd0", "sr0", "rbd1"] {
            assert!(is_whole_disk(disk), "{disk}");
        }
        for other in
            ["sda1", "vdb12", "nvme0n1p1", "mmcblk0p2", "rbd1p1", "loop0", "dm-3", "md127", "ram0", "zram0"]
        {
            assert!(!is_whole_disk(other), "{other}");
        }
    }

    #[test]
    fn interfaces_that_leave_the_host_are_counted() {
        for interface in
            ["eth0", "ens5", "enp0s3", "eno1", "ib0", "wlan0", "em1", "p1p1", "uplink", "bridge-wan"]
        {
            assert!(is_physical_interface(interface), "{interface}");
        }
        for other in [
            "lo",
            "veth12ab",
            "cali123",
            "docker0",
            "br-0a1b",
            "br0",
            "bond0",
            "eth0.100",
            "cni0",
            "flannel.1",
            "tunl0",
            "lxc1234",
            "eni0123456789a",
            "wg0",
            "kube-ipvs0",
        ] {
            assert!(!is_physical_interface(other), "{other}");
        }
    }
}
