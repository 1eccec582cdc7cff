//! A big machine made of plain files: the procfs, sysfs and udev database of a host with hundreds of CPUs and interfaces.
//!
//! Everything that collectors which are on by default read there, for both programs that are compared. The same size gives
//! the same bytes.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    fmt::{Display, Write as _},
    fs,
    path::{Path, PathBuf},
};

/// How much of each there is.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub cpus: usize,
    pub disks: usize,
    pub interfaces: usize,
    pub mounts: usize,
}

impl Size {
    /// Two sockets with 64 cores of two threads each, a shelf of disks, a node full of pods.
    pub const BIG: Self = Self { cpus: 256, disks: 64, interfaces: 200, mounts: 400 };

    /// The same machine with this part of everything.
    pub fn scaled(self, numerator: usize, denominator: usize) -> Self {
        let part = |count: usize| (count * numerator / denominator).max(1);
        Self {
            cpus: part(self.cpus),
            disks: part(self.disks),
            interfaces: part(self.interfaces),
            mounts: part(self.mounts),
        }
    }
}

/// The made machine; its files go with the directory that it was made in.
pub struct Machine {
    root: PathBuf,
    size: Size,
    files: usize,
}

impl Machine {
    /// Writes it below `root`, which exists.
    pub fn make(root: &Path, size: Size) -> Self {
        let mut machine = Self { root: root.to_owned(), size, files: 0 };
        machine.proc();
        machine.cpus();
        machine.disks();
        machine.interfaces();
        machine.sensors();
        machine.mounts();
        machine
    }

    /// How many files it has.
    pub fn files(&self) -> usize {
        self.files
    }

    /// The flags that make either program look at it.
    pub fn flags(&self) -> Vec<String> {
        [("procfs", "proc"), ("sysfs", "sys"), ("udev.data", "udev/data")]
            .map(|(flag, directory)| format!("--path.{flag}={}", self.root.join(directory).display()))
            .into()
    }

    fn write(&mut self, path: &str, text: impl Display) {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("made");
        fs::write(path, text.to_string()).expect("written");
        self.files += 1;
    }

    /// Several small files in one directory, a line each.
    fn lines<T: Display>(&mut self, directory: &str, files: &[(&str, T)]) {
        for (file, text) in files {
            self.write(&format!("{directory}/{file}"), format_args!("{text}\n"));
        }
    }

    fn proc(&mut self) {
        let cpus = self.size.cpus;
        let each = |line: &dyn Fn(usize) -> String| (0..cpus).map(line).collect::<String>();
        let stat = each(&|cpu| {
            let ticks = 1000 * (cpu + 3);
            let (user, idle) = (ticks * 3 / 2, ticks * 9);
            format!("cpu{cpu} {user} {cpu} {ticks} {idle} 22{cpu} 0 41{cpu} 0 1{cpu} 0\n")
        });
        let interrupts = " 17".repeat(20 * cpus);
        self.write(
            "proc/stat",
            format_args!(
                "cpu  1 2 3 4 5 6 7 0 8 0\n{stat}intr 88859170{interrupts}\nctxt 380140930\nbtime 1718183276\n\
                 processes 264420\nprocs_running 12\nprocs_blocked 1\nsoftirq 5057579 1 2 3 4 5 6 7 8 9 10\n"
            ),
        );
        self.write("proc/softirqs", "CPU0\nHI: 1\n");
        let softnet = each(&|cpu| {
            format!(
                "000{:05x} 00000000 0000000{}{} 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 {cpu:08x} 00000000 00000000\n",
                cpu * 77,
                cpu % 7,
                cpu % 3
            )
        });
        self.write("proc/net/softnet_stat", softnet);
        let schedstat = each(&|cpu| {
            let time = 498_494_191 + cpu * 7;
            format!(
                "cpu{cpu} 0 0 0 0 0 0 {time}94 3533438552{cpu} 5285{cpu}\ndomain0 00000000,00000003 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36\n"
            )
        });
        self.write("proc/schedstat", format_args!("version 15\ntimestamp 15819019232\n{schedstat}"));
        let conntrack = each(&|cpu| format!("{:08x}{}\n", 33 + cpu, " 00000002".repeat(16)));
        self.write(
            "proc/net/stat/nf_conntrack",
            format_args!(
                "entries  searched found new invalid ignore delete delete_list insert insert_failed drop early_drop \
                 icmp_error  expect_new expect_create expect_delete search_restart\n{conntrack}"
            ),
        );
        for (file, text) in PROC {
            self.write(&format!("proc/{file}"), text);
        }
    }

    fn cpus(&mut self) {
        let last = self.size.cpus - 1;
        let all = format!("0-{last}");
        self.lines(
            "sys/devices/system/cpu",
            &[("online", &*all), ("present", &*all), ("offline", ""), ("isolated", "")],
        );
        for cpu in 0..=last {
            let directory = format!("sys/devices/system/cpu/cpu{cpu}");
            let (core, package) = (cpu / 2 % 64, cpu / 128);
            let siblings = format!("{}-{}", cpu / 2 * 2, cpu / 2 * 2 + 1);
            self.lines(&directory, &[("online", 1)]);
            self.lines(
                &format!("{directory}/topology"),
                &[("core_id", core), ("physical_package_id", package)],
            );
            let lists = [("core_siblings_list", &all), ("thread_siblings_list", &siblings)];
            self.lines(&format!("{directory}/topology"), &lists);
            let throttles = [("core_throttle_count", core % 5), ("package_throttle_count", 30 + package)];
            self.lines(&format!("{directory}/thermal_throttle"), &throttles);
            let number = |value: usize| value.to_string();
            let policy = [
                ("cpuinfo_max_freq", number(3_700_000)),
                ("cpuinfo_min_freq", number(800_000)),
                ("cpuinfo_transition_latency", number(0)),
                ("scaling_cur_freq", number(1_200_000 + cpu * 997)),
                ("scaling_max_freq", number(3_700_000)),
                ("scaling_min_freq", number(800_000)),
                ("scaling_available_governors", "performance powersave".into()),
                ("scaling_driver", "intel_pstate".into()),
                ("scaling_governor", ["performance", "powersave"][cpu % 2].into()),
                ("related_cpus", number(cpu)),
                ("scaling_setspeed", "<unsupported>".into()),
            ];
            self.lines(&format!("{directory}/cpufreq"), &policy);
        }
    }

    /// A quarter of them NVMe drives, the others behind SAS, with two partitions each.
    fn disks(&mut self) {
        let mut diskstats = String::new();
        for disk in 0..self.size.disks {
            let nvme = disk / 4;
            let (name, major, minor, part) = match disk % 4 {
                0 => (format!("nvme{nvme}n1"), 259, nvme * 8, "p"),
                // The kernel goes on after sdz with sdaa.
                _ if disk < 26 => (format!("sd{}", letter(disk)), 8, disk * 16, ""),
                _ => (format!("sd{}{}", letter(disk / 26 - 1), letter(disk)), 8, disk * 16, ""),
            };
            let count = 1000 * disk + 77;
            let numbers =
                format!("{count} 3 {count}9 4 {count} 5 {count}7 6 {} 7 8 9 0 10 11 12 13", disk % 5);
            _ = writeln!(diskstats, " {major:>3} {minor:>7} {name} {numbers}");
            for partition in 1..=2 {
                _ = writeln!(
                    diskstats,
                    " {major:>3} {:>7} {name}{part}{partition} {numbers}",
                    minor + partition
                );
            }
            self.write(
                &format!("udev/data/b{major}:{minor}"),
                format_args!(
                    "S:disk/by-id/wwn-0x5000c500a{disk:07x}\nW:{disk}\nI:10012{disk}\nE:ID_MODEL=MAKER_M{disk}\nE:ID_PATH=pci-0000:00:1f.2-ata-{disk}\n\
                     E:ID_REVISION=R{disk}\nE:ID_SERIAL=MAKER_M{disk}_S{disk:05}\nE:ID_SERIAL_SHORT=S{disk:05}\nE:ID_WWN=0x5000c500a{disk:07x}\n\
                     E:ID_FS_TYPE=ext4\nE:ID_FS_UUID=ff6e4b{disk:02}-0000\nE:ID_FS_USAGE=filesystem\nE:ID_FS_VERSION=1.0\n\
                     E:ID_ATA=1\nE:ID_ATA_WRITE_CACHE=1\nE:ID_ATA_WRITE_CACHE_ENABLED=0\nE:ID_ATA_ROTATION_RATE_RPM=7200\nG:systemd\n"
                ),
            );
            self.lines(&format!("sys/block/{name}/queue"), &[("rotational", usize::from(disk % 4 != 0))]);
            self.lines(&format!("sys/block/{name}"), &[("size", 7_814_037_168_usize)]);
            if disk % 4 == 0 {
                let class = format!("sys/class/nvme/nvme{nvme}");
                let facts = [
                    ("cntlid", nvme.to_string()),
                    ("firmware_rev", format!("FW{nvme}")),
                    ("model", format!("Drive {nvme}  ")),
                    ("serial", format!("N{nvme:06}")),
                    ("state", "live".into()),
                ];
                self.lines(&class, &facts);
                let namespace = format!("{class}/nvme{nvme}n1");
                self.lines(&namespace, &[("size", 7_814_037_168), ("nuse", 800_000 + disk), ("nsid", 1)]);
                self.lines(&format!("{namespace}/queue"), &[("logical_block_size", 512)]);
                self.lines(&namespace, &[("ana_state", "optimized")]);
            }
        }
        self.write("proc/diskstats", diskstats);
    }

    fn interfaces(&mut self) {
        for interface in 0..self.size.interfaces {
            let name =
                if interface == 0 { "lo".into() } else { format!("cali{:08x}", interface * 2_654_435) };
            let directory = format!("sys/class/net/{name}");
            let address = format!("ee:ee:ee:00:{:02x}:{:02x}", interface / 256, interface % 256);
            let number = |value: usize| value.to_string();
            let up = interface % 10 != 3;
            let mut files = vec![
                ("addr_assign_type", number(3)),
                ("addr_len", number(6)),
                ("address", address),
                ("broadcast", "ff:ff:ff:ff:ff:ff".into()),
                ("carrier_changes", number(interface % 9)),
                ("carrier_down_count", number(interface % 4)),
                ("carrier_up_count", number(interface % 5)),
                ("dev_id", "0x0".into()),
                ("flags", if up { "0x1003" } else { "0x1002" }.into()),
                ("ifalias", String::new()),
                ("ifindex", number(interface + 1)),
                ("iflink", number(interface + 2)),
                ("link_mode", number(0)),
                ("mtu", number(1450)),
                ("name_assign_type", number(3)),
                ("netdev_group", number(0)),
                ("operstate", if up { "up" } else { "down" }.into()),
                ("phys_port_id", String::new()),
                ("phys_port_name", String::new()),
                ("phys_switch_id", String::new()),
                ("tx_queue_len", number(1000)),
                ("type", number(1)),
            ];
            if up {
                let speed = ("speed", number(10_000));
                files.extend([
                    ("carrier", number(1)),
                    ("dormant", number(0)),
                    ("duplex", "full".into()),
                    speed,
                ]);
            }
            self.lines(&directory, &files);
        }
    }

    /// Per socket, per pair of disks: the sensors that such a machine has.
    fn sensors(&mut self) {
        let Size { cpus, disks, .. } = self.size;
        let mut chips = 0;
        for _ in 0..cpus.div_ceil(128) {
            let directory = format!("sys/class/hwmon/hwmon{chips}");
            self.lines(&directory, &[("name", "coretemp")]);
            for sensor in 1..=cpus.min(128) / 2 {
                for (file, value) in
                    [("input", 41_000 + sensor * 100), ("max", 82_000), ("crit", 100_000), ("crit_alarm", 0)]
                {
                    self.write(&format!("{directory}/temp{sensor}_{file}"), format_args!("{value}\n"));
                }
                self.write(&format!("{directory}/temp{sensor}_label"), format_args!("Core {sensor}\n"));
            }
            chips += 1;
        }
        for disk in 0..disks / 4 {
            let directory = format!("sys/class/hwmon/hwmon{chips}");
            self.lines(&directory, &[("name", "nvme"), ("temp1_label", "Composite")]);
            self.lines(
                &directory,
                &[("temp1_input", 35_850 + disk), ("temp1_max", 69_850), ("temp1_alarm", 0)],
            );
            chips += 1;
        }
        for controller in 0..cpus.div_ceil(32) {
            let directory = format!("sys/devices/system/edac/mc/mc{controller}");
            let counts = [("ce_count", 1), ("ce_noinfo_count", 2), ("ue_count", 3), ("ue_noinfo_count", 4)];
            self.lines(&directory, &counts);
            for row in 0..4 {
                self.lines(&format!("{directory}/csrow{row}"), &[("ce_count", row), ("ue_count", 0)]);
                for channel in 0..2 {
                    let file = |what: &str| format!("{directory}/csrow{row}/ch{channel}_{what}");
                    self.write(&file("ce_count"), format_args!("{channel}\n"));
                    self.write(&file("ue_count"), "0\n");
                    self.write(
                        &file("dimm_label"),
                        format_args!("mc#{controller}csrow#{row}channel#{channel}\n"),
                    );
                }
            }
        }
        for zone in 0..cpus.div_ceil(16) {
            let directory = format!("sys/class/thermal/thermal_zone{zone}");
            let kind = if zone == 0 { "acpitz".to_owned() } else { format!("x86_pkg_temp{zone}") };
            self.lines(
                &directory,
                &[("type", kind), ("policy", "step_wise".into()), ("temp", (44_000 + zone).to_string())],
            );
        }
        for device in 0..cpus {
            let directory = format!("sys/class/thermal/cooling_device{device}");
            self.lines(
                &directory,
                &[
                    ("type", "Processor".into()),
                    ("max_state", "10".into()),
                    ("cur_state", (device % 3).to_string()),
                ],
            );
        }
        for package in 0..cpus.div_ceil(128) {
            for (zone, name) in [
                (format!("intel-rapl:{package}"), format!("package-{package}")),
                (format!("intel-rapl:{package}:0"), "dram".into()),
            ] {
                let facts = [
                    ("name", name),
                    ("energy_uj", format!("2405{package}22")),
                    ("max_energy_range_uj", "262143328850".into()),
                ];
                self.lines(&format!("sys/class/powercap/{zone}"), &facts);
            }
        }
        for supply in 0..2 {
            let facts = [("type", "Mains"), ("online", "1"), ("uevent", "POWER_SUPPLY_NAME=AC")];
            self.lines(&format!("sys/class/power_supply/AC{supply}"), &facts);
        }
        self.lines(
            "sys/class/dmi/id",
            &[("bios_vendor", "Maker"), ("product_name", "Rack 7"), ("sys_vendor", "Maker")],
        );
        let clocks = [("available_clocksource", "tsc hpet acpi_pm "), ("current_clocksource", "tsc")];
        self.lines("sys/devices/system/clocksource/clocksource0", &clocks);
    }

    /// Directories to mount on, so that asking about them gives an answer: every second of one type.
    fn mounts(&mut self) {
        let mut mountinfo = String::new();
        for mount in 0..self.size.mounts {
            let point = self.root.join(format!("mnt/pods/{mount:08x}/volume"));
            fs::create_dir_all(&point).expect("made");
            let (point, kind) = (point.display(), ["ext4", "xfs"][mount % 2]);
            let device = format!("/dev/mapper/vg-volume{mount}");
            _ = writeln!(
                mountinfo,
                "{} 29 253:{mount} / {point} rw,relatime shared:{mount} - {kind} {device} rw,seclabel",
                30 + mount
            );
        }
        self.write("proc/1/mountinfo", &mountinfo);
        self.write("proc/self/mountinfo", mountinfo);
    }
}

fn letter(number: usize) -> char {
    char::from(b'a' + (number % 26) as u8)
}

/// What a machine has once, however big it is.
const PROC: &[(&str, &str)] = &[
    ("loadavg", "41.21 40.37 39.39 12/4719 1973700\n"),
    (
        "meminfo",
        "MemTotal:       1056301420 kB\nMemFree:        312303124 kB\nMemAvailable:   812303124 kB\nBuffers:          312304 kB\nCached:         412303124 kB\nSwapCached:            0 kB\nActive:         212303124 kB\nInactive:       112303124 kB\nSwapTotal:             0 kB\nSwapFree:              0 kB\nDirty:              3124 kB\nWriteback:             0 kB\nAnonPages:       22303124 kB\nMapped:           2303124 kB\nShmem:             303124 kB\nSlab:           12303124 kB\nSReclaimable:   11303124 kB\nSUnreclaim:      1000000 kB\nCommitLimit:    528150708 kB\nCommitted_AS:   42303124 kB\nHugePages_Total:       0\nHugePages_Free:        0\nHugepagesize:       2048 kB\n",
    ),
    (
        "vmstat",
        "nr_free_pages 78075781\nnr_zone_active_anon 7\npgpgin 7344136\npgpgout 1541180581\npswpin 1476\npswpout 35045\npgalloc_normal 3\npgfault 2320168809\npgmajfault 507162\noom_kill 3\n",
    ),
    (
        "pressure/cpu",
        "some avg10=0.00 avg60=0.10 avg300=0.20 total=14036781000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
    ),
    (
        "pressure/io",
        "some avg10=0.10 avg60=2.00 avg300=3.85 total=159805000\nfull avg10=0.20 avg60=3.00 avg300=4.95 total=159229000\n",
    ),
    (
        "pressure/memory",
        "some avg10=0.00 avg60=0.00 avg300=0.00 total=1\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=2\n",
    ),
    (
        "net/dev",
        "Inter-|   Receive                                                |  Transmit\n face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    lo: 1 2 0 0 0 0 0 0 1 2 0 0 0 0 0 0\n",
    ),
    (
        "net/sockstat",
        "sockets: used 22900\nTCP: inuse 400 orphan 0 tw 400 alloc 1700 mem 100\nUDP: inuse 10 mem 0\nUDPLITE: inuse 0\nRAW: inuse 0\nFRAG: inuse 0 memory 0\n",
    ),
    (
        "net/sockstat6",
        "TCP6: inuse 17\nUDP6: inuse 9\nUDPLITE6: inuse 0\nRAW6: inuse 1\nFRAG6: inuse 0 memory 0\n",
    ),
    (
        "net/netstat",
        "TcpExt: SyncookiesSent SyncookiesRecv SyncookiesFailed ListenOverflows ListenDrops TCPTimeouts TCPRcvQDrop TCPOFOQueue\nTcpExt: 0 0 2 1 3 115 0 42\nIpExt: InNoRoutes InTruncatedPkts InOctets OutOctets\nIpExt: 0 0 6286396970 2786264347\n",
    ),
    (
        "net/snmp",
        "Ip: Forwarding DefaultTTL InReceives\nIp: 1 64 57740232\nIcmp: InMsgs InErrors InCsumErrors OutMsgs\nIcmp: 104 0 0 120\nTcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens AttemptFails EstabResets CurrEstab InSegs OutSegs RetransSegs InErrs OutRsts\nTcp: 1 200 120000 -1 3556 230 341 161 0 57252008 54915039 227 5 1003\nUdp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors\nUdp: 88542 120 0 53028 9 8\nUdpLite: InDatagrams NoPorts InErrors OutDatagrams\nUdpLite: 0 0 0 0\n",
    ),
    (
        "net/snmp6",
        "Ip6InReceives                       7\nIp6InOctets                         460\nIp6OutOctets                        536\nIcmp6InMsgs                         0\nIcmp6OutMsgs                        8\nUdp6InDatagrams                     0\nUdp6InErrors                        0\n",
    ),
    (
        "net/udp",
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n    0: 00000000:0044 00000000:0000 07 00000000:00000015 00:00000000 00000000     0        0 2740 1 ffff88003d3af3c0 0\n",
    ),
    (
        "net/udp6",
        "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n",
    ),
    (
        "net/arp",
        "IP address       HW type     Flags       HW address            Mask     Device\n192.168.224.1    0x1         0x2         66:5d:14:a1:33:7f     *        nope\n",
    ),
    ("sys/fs/file-nr", "102400\t0\t1631329\n"),
    ("sys/kernel/random/entropy_avail", "256\n"),
    ("sys/kernel/random/poolsize", "256\n"),
    ("sys/kernel/hung_task_detect_count", "2\n"),
    ("sys/net/netfilter/nf_conntrack_count", "12345\n"),
    ("sys/net/netfilter/nf_conntrack_max", "655360\n"),
    (
        "net/rpc/nfs",
        "net 18628 0 18628 6\nrpc 4329785 0 4338291\nproc2 18 2 69 0 0 4410 0 0 0 0 0 0 0 0 0 0 0 99 2\nproc3 22 1 4084749 29200 94754 32580 186 47747 7981 8639 0 6356 0 6962 0 7958 0 0 241 4 4 2 39\nproc4 61 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n",
    ),
    ("mdstat", "Personalities : [raid1]\nunused devices: <none>\n"),
];
