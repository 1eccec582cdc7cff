//! The agent beside a real node_exporter on the same host: the same page, whatever flags both are given.

use std::{
    io::{Read, Write},
    iter,
    net::{TcpListener, UdpSocket},
    panic::catch_unwind,
    path::Path,
    process::Command,
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use nodewarden_collectors::{Entry, FlagKind, node};

use crate::support::{
    Agent, NO_LOGS,
    fixtures::Tree,
    machine::{Machine, Size},
    peer::{self, Peer, differences},
    rack7, repository, temp_dir,
};

/// Both with these flags: what they say unlike each other.
fn compare(binary: &Path, flags: &[String]) -> Vec<String> {
    let peer = Peer::start(binary, flags);
    if let Err(seen) = peer.get("/metrics") {
        eprintln!("node_exporter itself dies of {}: {seen}", flags.join(" "));
        return Vec::new();
    }
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let agent = Agent::start(NO_LOGS, &flags);
    differences(|| peer.get("/metrics").expect("a page"), || agent.get("/metrics").text())
}

/// Each set of flags alone; every one is looked at before the test fails.
fn compare_each(runs: impl IntoIterator<Item = Vec<String>>) {
    let Some(binary) = peer::binary() else { return };
    let mut failed = Vec::new();
    for flags in runs {
        let different = catch_unwind(|| compare(&binary, &flags));
        let different = different.unwrap_or_else(|_| vec!["it panicked, see above".to_owned()]);
        if !different.is_empty() {
            failed.push(format!("{}\n  {}", flags.join(" "), different.join("\n  ")));
        }
    }
    assert!(failed.is_empty(), "\n{}", failed.join("\n"));
}

/// Collectors with flags at other values than their defaults; the first one is what it is about.
const FLAGS: &[&[&str]] = &[
    &["arp", "no-arp.netlink"],
    &["arp", "arp.device-exclude=^eth"],
    &["arp", "no-arp.netlink", "arp.device-exclude=^eth"],
    &["arp", "arp.device-include=^eth"],
    &["cpu", "no-cpu.guest"],
    &["cpu", "cpu.info"],
    &["cpu", "cpu.info", "cpu.info.flags-include=^(aes|avx.*)$", "cpu.info.bugs-include=^spectre"],
    &["cpu", "cpu.info.flags-include=^sse"],
    &["diskstats", "diskstats.device-exclude="],
    &["diskstats", "diskstats.ignored-devices=^(ram|sd|dm-)"],
    &["diskstats", "diskstats.device-include=^(loop0|vda)"],
    &["ethtool", "ethtool.device-include=^eth"],
    &["ethtool", "ethtool.device-exclude=^eth"],
    &["ethtool", "ethtool.metrics-include=^rx"],
    &["filesystem", "filesystem.fs-types-exclude=", "filesystem.mount-points-exclude="],
    &["filesystem", "filesystem.fs-types-exclude=^ext4$"],
    &["filesystem", "filesystem.fs-types-include=^(ext4|tmpfs)$"],
    &["filesystem", "filesystem.mount-points-include=^/dev", "filesystem.fs-types-exclude="],
    &["filesystem", "filesystem.mount-points-exclude=^/(sys|mnt)", "filesystem.fs-types-include=."],
    &["filesystem", "filesystem.ignored-mount-points=^/dev", "filesystem.ignored-fs-types=^ext"],
    &["interrupts", "interrupts.name-include=^[A-Z]"],
    &["interrupts", "interrupts.name-exclude=^[A-Z]"],
    &["interrupts", "no-interrupts.include-zeros"],
    &["meminfo_numa", "meminfo"],
    &["netclass", "netclass.ignored-devices=^(lo|ifb.*)$"],
    &["netclass", "netclass.ignore-invalid-speed"],
    &["netclass", "netclass.netlink"],
    &["netclass", "netclass.netlink", "netclass_rtnl.with-stats"],
    &["netclass", "netclass.netlink", "netclass.ignored-devices=^lo$", "netclass.ignore-invalid-speed"],
    &["netdev", "no-netdev.netlink"],
    &["netdev", "netdev.address-info"],
    &["netdev", "no-netdev.netlink", "netdev.address-info"],
    &["netdev", "netdev.enable-detailed-metrics"],
    &["netdev", "no-netdev.netlink", "netdev.enable-detailed-metrics"],
    &["netdev", "netdev.label-ifalias"],
    &["netdev", "netdev.device-include=^(lo|eth0)$"],
    &["netdev", "netdev.device-exclude=^ifb"],
    &["netdev", "netdev.device-exclude=^ifb", "no-netdev.netlink", "netdev.label-ifalias"],
    &["netstat", "netstat.fields=.*"],
    &["netstat", "netstat.fields=^Udp6?_"],
    &["ntp", "no-ntp.server-is-local"],
    &["pcidevice", "pcidevice.names", "pcidevice.idsfile={rack7}/pci.ids"],
    &["pcidevice", "pcidevice.names"],
    &["perf", "perf.cpus=0"],
    &["perf", "perf.cpus=0-1"],
    &["perf", "perf.disable-software-profilers"],
    &["perf", "perf.software-profilers=PageFault", "perf.software-profilers=ContextSwitch"],
    &["perf", "perf.disable-hardware-profilers", "perf.disable-cache-profilers"],
    &["perf", "perf.hardware-profilers=CpuCycles", "perf.cache-profilers=L1DataReadHit"],
    &["powersupplyclass", "powersupply.ignored-supplies=."],
    &["qdisc", "qdisc.device-include=^lo$"],
    &["qdisc", "qdisc.device-exclude=^lo$"],
    &["qdisc", "qdisc.fixtures={rack7}/qdisc"],
    &["rapl", "rapl.enable-zone-label"],
    &["runit", "runit.servicedir={rack7}/service"],
    &["slabinfo", "slabinfo.slabs-include=^(dentry|task_struct|kmalloc-.*)$"],
    &["slabinfo", "slabinfo.slabs-exclude=^kmalloc"],
    &["slabinfo", "slabinfo.slabs-include=^kmalloc", "slabinfo.slabs-exclude=64"],
    &["stat", "stat.softirq"],
    &["supervisord", "supervisord.url=http://127.0.0.1:{supervisord}/RPC2"],
    &[
        "sysctl",
        "sysctl.include=fs.file-nr:total,current,max",
        "sysctl.include=kernel.threads-max",
        "sysctl.include=net.ipv4.tcp_rmem",
        "sysctl.include=net/ipv4/conf/lo/rp_filter",
        "sysctl.include-info=kernel.seccomp.actions_avail",
        "sysctl.include-info=kernel.ostype",
        "sysctl.include-info=kernel.random.boot_id",
    ],
    &["sysctl", "sysctl.include=kernel.hostname"],
    &["sysctl", "sysctl.include=no.such.thing"],
    &["sysctl", "sysctl.include=net.ipv4.tcp_wmem:min,default"],
    &["textfile", "textfile.directory={rack7}/textfile"],
    &["textfile", "textfile.directory={rack7}/text*", "textfile.directory={rack7}/none"],
    &["vmstat", "vmstat.fields=.*"],
    &["vmstat", "vmstat.fields=^nr_"],
    &["wifi", "wifi.fixtures={rack7}/wifi"],
    &["bcache", "bcache.priorityStats"],
    &["btrfs"],
    &["cpufreq", "cpu", "cpu.info"],
    &["hwmon", "hwmon.chip-include=(applesmc|coretemp)"],
    &["hwmon", "hwmon.chip-exclude=(applesmc|coretemp)"],
    &["hwmon", "hwmon.sensor-include=^(platform_coretemp_0;temp|.*;fan)"],
    &["hwmon", "hwmon.sensor-exclude=;temp[1-3]$"],
    &["hwmon", "hwmon.chip-include=core", "hwmon.sensor-exclude=temp1"],
    &["infiniband", "infiniband.device-include=^mlx4"],
    &["infiniband", "infiniband.device-exclude=^mlx4_0$"],
    &["ipvs", "ipvs.backend-labels=local_address,proto"],
    &["ipvs", "ipvs.backend-labels=remote_port,local_mark,remote_address"],
    &["ipvs", "ipvs.backend-labels="],
    &["nvmesubsystem", "dmi", "os", "edac", "fibrechannel"],
    &["powersupplyclass", "powersupply.ignored-supplies=^(AC|BAT1)$"],
    &["tapestats", "tapestats.ignored-devices=^st0$"],
    &["zfs", "xfs", "nfs", "nfsd", "mdadm", "drbd", "drm"],
    // A server that answers; without one it is among those that are only switched on.
    &["ntp", "ntp.server-port={ntp}"],
    &["ntp", "ntp.server-port={ntp}", "ntp.protocol-version=3", "ntp.max-distance=1ms"],
    &[
        "ntp",
        "ntp.server-port={ntp}",
        "ntp.server=localhost",
        "ntp.server-is-local",
        "ntp.local-offset-tolerance=1h",
    ],
];

#[test]
fn by_default_the_page_is_the_same() {
    compare_each([vec![]]);
}

#[test]
fn with_everything_on_the_page_is_the_same() {
    compare_each([all_on()]);
}

#[test]
fn a_big_machine_made_of_files_looks_the_same() {
    let directory = temp_dir();
    let machine = Machine::make(directory.path(), Size::BIG);
    let on = node::ALL.iter().filter(|entry| entry.default_on).map(|entry| entry.name);
    compare_each([only(&on.collect::<Vec<_>>()).into_iter().chain(machine.flags()).collect()]);
}

/// The collectors that node_exporter has too.
fn theirs() -> impl Iterator<Item = &'static Entry> {
    node::ALL.iter().copied().filter(|entry| !rack7::OWN.contains(&entry.name))
}

/// Flags that turn on what there is.
fn all_on() -> Vec<String> {
    let on = theirs().map(|entry| format!("--collector.{}", entry.name));
    iter::once("--collector.disable-defaults".to_owned()).chain(on).collect()
}

#[test]
fn each_collector_that_is_off_by_default_says_the_same_when_it_is_on() {
    let off = theirs().filter(|entry| !entry.default_on);
    compare_each(off.map(|entry| only(&[entry.name])));
}

/// A flag as `--help` shows it: its name, whether it has a `no-` form, its default and its text in one line.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    name: String,
    is_switch: bool,
    default: String,
    help: String,
}

#[test]
fn collectors_and_their_flags_have_its_names_defaults_and_texts() {
    let Some(binary) = peer::binary() else { return };
    let output = Command::new(&binary).arg("--help").output().expect("it runs");
    let theirs = shown(&String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
    let mut ours = Vec::new();
    for entry in self::theirs() {
        let state = if entry.default_on { "enabled" } else { "disabled" };
        let help = format!("Enable the {} collector (default: {state}).", entry.name);
        ours.push(Shown { name: entry.name.to_owned(), is_switch: true, default: String::new(), help });
        for flag in entry.flags {
            let is_switch = flag.kind == FlagKind::Bool;
            let default = if is_switch { String::new() } else { flag.default.to_owned() };
            ours.push(Shown { name: flag.name.to_owned(), is_switch, default, help: flag.help.to_owned() });
        }
    }
    let mut different = Vec::new();
    for flag in &theirs {
        let known = ours.iter().find(|known| known.name == flag.name);
        if known != Some(flag) {
            different.push(format!("{flag:?}\n  not {known:?}"));
        }
    }
    assert!(different.is_empty(), "\n{}", different.join("\n"));
    // It has flags that its help does not show.
    for hidden in ours.iter().filter(|flag| theirs.iter().all(|shown| shown.name != flag.name)) {
        let flag = if hidden.is_switch {
            format!("--collector.{}", hidden.name)
        } else {
            format!("--collector.{}=1", hidden.name)
        };
        let output = Command::new(&binary).args([&flag, "--version"]).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.contains("unknown"), "node_exporter has no {flag}: {said}");
    }
}

/// The collectors' flags in what `--help` prints.
fn shown(help: &str) -> Vec<Shown> {
    let mut flags: Vec<Shown> = Vec::new();
    let mut is_flag = false;
    for line in help.lines() {
        if let Some(rest) = line.strip_prefix("      --") {
            let (flag, text) = rest.split_once("  ").unwrap_or((rest, ""));
            let (is_switch, flag) = flag.strip_prefix("[no-]").map_or((false, flag), |flag| (true, flag));
            is_flag = flag.starts_with("collector.") && flag != "collector.disable-defaults";
            if is_flag {
                let (name, default) =
                    flag["collector.".len()..].split_once('=').unwrap_or((&flag["collector.".len()..], ""));
                // Without a default, the place of the value has the flag's own name in capitals.
                let default = default
                    .trim_end_matches(" ...")
                    .strip_prefix('"')
                    .and_then(|text| text.strip_suffix('"'))
                    .unwrap_or(if default.chars().any(|letter| letter.is_ascii_digit()) {
                        default
                    } else {
                        ""
                    });
                flags.push(Shown {
                    name: name.trim_end().to_owned(),
                    is_switch,
                    default: default.replace("\\\\", "\\"),
                    help: text.trim().to_owned(),
                });
            }
        } else if let Some(flag) = flags.last_mut().filter(|_| is_flag && line.starts_with("          ")) {
            if !flag.help.is_empty() {
                flag.help.push(' ');
            }
            flag.help.push_str(line.trim());
        } else {
            is_flag = false;
        }
    }
    flags
}

#[test]
fn flags_change_the_page_in_the_same_way() {
    compare_each(runs());
}

/// node_exporter's fixtures have devices that few hosts have.
#[test]
fn flags_change_the_page_of_its_fixtures_in_the_same_way() {
    let Some(tree) = Tree::new() else { return };
    let fixtures = tree.fixtures();
    let paths = [("procfs", "proc"), ("sysfs", "sys"), ("rootfs", "."), ("udev.data", "udev/data")];
    let paths = paths.map(|(flag, below)| format!("--path.{flag}={}", fixtures.join(below).display()));
    compare_each(runs().into_iter().map(|run| run.into_iter().chain(paths.clone()).collect()));
}

/// The flags of each run, as the command line has them.
fn runs() -> Vec<Vec<String>> {
    let [ntp, supervisord] = [time_server(), process_server()].map(|port| port.to_string());
    let rack7 = repository().join("collectors/fixtures/rack7");
    let places = [("{rack7}", rack7.to_str().unwrap()), ("{ntp}", &ntp), ("{supervisord}", &supervisord)];
    let fill = |flag: &str| places.iter().fold(flag.to_owned(), |flag, (name, is)| flag.replace(name, is));
    let run = |run: &&[&str]| only(&run.iter().copied().map(fill).collect::<Vec<_>>());
    FLAGS.iter().map(run).collect()
}

/// Flags as the command line has them, for nothing but these.
fn only(names: &[impl AsRef<str>]) -> Vec<String> {
    let flag = |name: &str| match name.strip_prefix("no-") {
        Some(name) => format!("--no-collector.{name}"),
        None => format!("--collector.{name}"),
    };
    let names = names.iter().map(|name| flag(name.as_ref()));
    iter::once("--collector.disable-defaults".to_owned()).chain(names).collect()
}

/// A time server of the second stratum on loopback: the port it answers on until the test ends.
fn time_server() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let port = socket.local_addr().expect("its address").port();
    thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut query) {
            let now = ntp_time();
            let version = query[0] & 0b0011_1000;
            let mut answer = vec![version | 4, 2, 6, 0xe9];
            // Root delay, root dispersion in 1/65536 s, the server that it follows.
            answer.extend([0, 0, 0x0c, 0x35, 0, 0, 0x02, 0xf1, 192, 0, 2, 77]);
            answer.extend((now - (90 << 32)).to_be_bytes());
            answer.extend(&query[40..48]);
            answer.extend(now.to_be_bytes());
            answer.extend(ntp_time().to_be_bytes());
            assert!(length >= 48, "a query of {length} bytes");
            let _ = socket.send_to(&answer, from);
        }
    });
    port
}

/// Seconds since 1900 and their fraction, 32 bits each.
fn ntp_time() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    ((now.as_secs() + 2_208_988_800) << 32) | ((u64::from(now.subsec_nanos()) << 32) / 1_000_000_000)
}

/// A supervisord with two processes: the port it answers on until the test ends.
fn process_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let process = |name: &str, group: &str, numbers: [i64; 5]| {
        let [start, stop, state, status, pid] = numbers;
        let text = |key: &str, value: &str| member(key, &format!("<string>{value}</string>"));
        let number = |key: &str, value: i64| member(key, &format!("<int>{value}</int>"));
        let members = [
            text("name", name),
            text("group", group),
            number("start", start),
            number("stop", stop),
            number("now", 1_760_000_100),
            number("state", state),
            text("statename", if state == 20 { "RUNNING" } else { "EXITED" }),
            text("spawnerr", ""),
            number("exitstatus", status),
            number("pid", pid),
            text("logfile", "/var/log/a.log"),
            text("stdout_logfile", "/var/log/a.log"),
            text("stderr_logfile", ""),
            text("description", "a &lt;process&gt;"),
        ];
        format!("<value><struct>{}</struct></value>", members.concat())
    };
    let body = format!(
        "<?xml version='1.0'?>\n<methodResponse>\n<params><param><value><array><data>\n{}\n{}\n</data></array></value>\
         </param></params>\n</methodResponse>\n",
        process("queue", "shop", [1_760_000_000, 0, 20, 0, 4711]),
        process("mail:0", "shop", [1_759_990_000, 1_759_995_000, 100, 3, 0]),
    );
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // Closed with something unread, the connection would be reset.
            let mut question = Vec::new();
            let mut part = [0; 4096];
            while !String::from_utf8_lossy(&question).trim_end().ends_with("</methodCall>") {
                match stream.read(&mut part) {
                    Ok(length @ 1..) => question.extend(&part[..length]),
                    _ => break,
                }
            }
            let _ = stream.write_all(format!("{answer}{body}").as_bytes());
        }
    });
    port
}

fn member(key: &str, value: &str) -> String {
    format!("<member>\n<name>{key}</name>\n<value>{value}</value>\n</member>\n")
}
