//! The control groups of pods, made of files as both versions have them, give the golden pages.
//!
//! `UPDATE_GOLDEN=1 cargo test -p nodewarden-collectors --test pods` writes them anew: read the difference.

#![allow(clippy::expect_used, clippy::panic, reason = "what tests call fails as they do")]

mod support;

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use nodewarden_collectors::{CollectError, Collector, Host, Options, Samples, containers::Container, text};
use support::{
    damage::{Damage, damages},
    difference, entry, settings,
};

const SANDBOX: &str = "a0000000000000000000000000000000000000000000000000000000000000aa";
const APP: &str = "b1111111111111111111111111111111111111111111111111111111111111bb";
const SIDECAR: &str = "c2222222222222222222222222222222222222222222222222222222222222cc";
const ETCD: &str = "d3333333333333333333333333333333333333333333333333333333333333dd";
const LONE: &str = "e4444444444444444444444444444444444444444444444444444444444444ee";

/// A pod with two containers, burstable; its sandbox holds the network.
const CART: &str = "0b9c1d2e-3f40-4a51-8b62-7c83d94ea5f6";
/// A static pod in the host's network.
const STATIC: &str = "4f2a9d1c7b3e5f60718293a4b5c6d7e8";
/// A pod of whose containers no name is known.
const UNNAMED: &str = "11111111-2222-4333-8444-555555555555";

const DEV: &str = "Inter-|   Receive                                                |  Transmit\n \
                   face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
                   lo:     500       5    0    0    0     0          0         0      500       5    0    0    0     0       0          0\n  \
                   eth0: 7340032    5120    1    2    0     0          0         0  1048576    4096    3    4    0     0       0          0\n";

/// A host whose trees are directories of files.
struct Machine {
    root: tempfile::TempDir,
    host: Host,
}

impl Machine {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a temporary directory");
        let at = |name: &str| root.path().join(name);
        let host = Host { procfs: at("proc"), sysfs: at("sys"), rootfs: at("root"), ..Host::default() };
        let machine = Self { root, host };
        for pod in [
            format!("shop_cart-1_{CART}/app"),
            format!("kube-system_etcd-rack7_{STATIC}/etcd"),
            format!("batch_sweep_{UNNAMED}/job"),
        ] {
            machine.make(&format!("root/var/log/pods/{pod}"));
        }
        for link in [
            format!("cart-1_shop_app-{APP}.log"),
            format!("cart-1_shop_side-car-{SIDECAR}.log"),
            format!("etcd-rack7_kube-system_etcd-{ETCD}.log"),
        ] {
            machine.write(&format!("root/var/log/containers/{link}"), "");
        }
        machine.write("proc/stat", "cpu  1 2 3\nbtime 1700000000\n");
        machine.write("proc/1/net/dev", DEV);
        machine.write("proc/100/net/dev", DEV);
        machine.make("proc/300/net");
        fs::hard_link(machine.path("proc/1/net/dev"), machine.path("proc/300/net/dev")).expect("linked");
        machine.make("sys/dev/block");
        symlink("../../devices/pci0000:00/block/sda", machine.path("sys/dev/block/8:0")).expect("linked");
        machine
            .host
            .containers
            .ask(|id| (id == APP).then(|| Container { image: "shop/cart:3".into(), ..Container::default() }));
        machine
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn make(&self, path: &str) {
        fs::create_dir_all(self.path(path)).expect("made");
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("it has one")).expect("made");
        fs::write(path, text).expect("written");
    }

    /// A control group of version 2 that has used `scale` times as much as the smallest.
    fn group_v2(&self, path: &str, scale: u64, is_limited: bool, procs: &str) {
        let directory = format!("sys/fs/cgroup/{path}");
        let write = |name: &str, text: String| self.write(&format!("{directory}/{name}"), &text);
        write("cgroup.procs", procs.to_owned());
        write(
            "cpu.stat",
            format!(
                "usage_usec {}\nuser_usec {}\nsystem_usec {}\nnice_usec 0\nnr_periods 40\nnr_throttled 7\n\
                 throttled_usec 1500000\nnr_bursts 2\nburst_usec 3000\n",
                1_234_567 * scale,
                1_000_000 * scale,
                234_567 * scale
            ),
        );
        write("cpu.max", if is_limited { "50000 100000\n" } else { "max 100000\n" }.to_owned());
        write("cpu.weight", "39\n".to_owned());
        let stalls = |some: u64, full: u64| {
            format!(
                "some avg10=0.00 avg60=0.00 avg300=0.00 total={some}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total={full}\n"
            )
        };
        write("cpu.pressure", stalls(2_500_000, 1_250_000));
        write("memory.pressure", stalls(400, 300));
        write("io.pressure", stalls(20, 10));
        write("memory.current", format!("{}\n", 10_485_760 * scale));
        write("memory.peak", format!("{}\n", 20_971_520 * scale));
        write("memory.swap.current", "4096\n".to_owned());
        write("memory.max", if is_limited { "134217728\n" } else { "max\n" }.to_owned());
        write("memory.swap.max", "0\n".to_owned());
        write("memory.min", "0\n".to_owned());
        write("memory.events", "low 0\nhigh 0\nmax 12\noom 2\noom_kill 1\noom_group_kill 0\n".to_owned());
        write(
            "memory.stat",
            "anon 6291456\nfile 3145728\nkernel 1048576\nkernel_stack 16384\npagetables 65536\nfile_mapped 1228800\n\
             file_dirty 0\nswapcached 0\ninactive_anon 6287360\nactive_anon 4096\ninactive_file 2097152\n\
             active_file 1048576\nunevictable 0\nworkingset_refault_file 3\npgfault 9000\npgmajfault 21\n"
                .to_owned(),
        );
        write(
            "io.stat",
            "8:0 rbytes=1459200 wbytes=314773504 rios=192 wios=353 dbytes=0 dios=0\n253:0 \n".to_owned(),
        );
        write("pids.current", "9\n".to_owned());
        write("pids.max", "max\n".to_owned());
        self.set_time(&directory);
    }

    fn set_time(&self, directory: &str) {
        let made = UNIX_EPOCH + Duration::from_secs(1_700_000_500);
        fs::File::open(self.path(directory)).and_then(|dir| dir.set_modified(made)).expect("set back");
    }

    fn v2() -> Self {
        let machine = Self::new();
        machine.write("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids\n");
        let uid = CART.replace('-', "_");
        let pod = format!("kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid}.slice");
        machine.group_v2(&format!("{pod}/cri-containerd-{SANDBOX}.scope"), 1, false, "100\n");
        machine.group_v2(&format!("{pod}/cri-containerd-{APP}.scope"), 1, true, "200\n201\n");
        machine.group_v2(&format!("{pod}/cri-containerd-{SIDECAR}.scope"), 2, false, "210\n");
        machine.group_v2(&pod, 3, true, "");
        let uid = UNNAMED.replace('-', "_");
        let pod = format!("kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{uid}.slice");
        machine.group_v2(&format!("{pod}/crio-{LONE}.scope"), 5, false, "0\n");
        machine.group_v2(&pod, 5, false, "");
        // Older than its directory seems to be: it began 30 seconds after the boot.
        let start: String = (3..=52).map(|word| format!(" {}", if word == 22 { 3000 } else { 0 })).collect();
        machine.write("proc/300/stat", &format!("300 (etcd) S{start}\n"));
        let pod = format!("kubepods.slice/kubepods-pod{STATIC}.slice");
        machine.group_v2(&format!("{pod}/cri-containerd-{ETCD}.scope"), 4, false, "300\n");
        machine
    }

    fn v1() -> Self {
        let machine = Self::new();
        let pod = format!("kubepods/burstable/pod{CART}");
        machine.group_v1(&format!("{pod}/{SANDBOX}"), 1, false, "100\n");
        machine.group_v1(&format!("{pod}/{APP}"), 1, true, "200\n201\n");
        machine.group_v1(&format!("{pod}/{SIDECAR}"), 2, false, "");
        machine
    }

    fn group_v1(&self, path: &str, scale: u64, is_limited: bool, procs: &str) {
        let write = |controller: &str, name: &str, text: String| {
            self.write(&format!("sys/fs/cgroup/{controller}/{path}/{name}"), &text);
        };
        write("cpu", "cgroup.procs", procs.to_owned());
        write("cpu", "cpu.stat", "nr_periods 40\nnr_throttled 7\nthrottled_time 1500000000\n".to_owned());
        write("cpu", "cpu.cfs_quota_us", if is_limited { "50000\n" } else { "-1\n" }.to_owned());
        write("cpu", "cpu.cfs_period_us", "100000\n".to_owned());
        write("cpu", "cpu.shares", "1024\n".to_owned());
        write("cpuacct", "cpuacct.usage", format!("{}\n", 1_234_567_890 * scale));
        write("cpuacct", "cpuacct.stat", "user 100\nsystem 23\n".to_owned());
        write("memory", "memory.usage_in_bytes", format!("{}\n", 10_485_760 * scale));
        write("memory", "memory.max_usage_in_bytes", format!("{}\n", 20_971_520 * scale));
        write("memory", "memory.failcnt", "12\n".to_owned());
        write("memory", "memory.kmem.usage_in_bytes", "1048576\n".to_owned());
        write("memory", "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n".to_owned());
        let limit = if is_limited { "134217728\n" } else { "9223372036854771712\n" };
        write("memory", "memory.limit_in_bytes", limit.to_owned());
        write("memory", "memory.soft_limit_in_bytes", "9223372036854771712\n".to_owned());
        write(
            "memory",
            "memory.stat",
            "cache 1\nrss 2\npgfault 8000\npgmajfault 20\ninactive_file 3\nhierarchical_memory_limit 134217728\n\
             total_cache 3145728\ntotal_rss 6291456\ntotal_mapped_file 1228800\ntotal_swap 0\ntotal_pgfault 9000\n\
             total_pgmajfault 21\ntotal_inactive_file 2097152\ntotal_active_file 1048576\n"
                .to_owned(),
        );
        let io = |read: u64, written: u64| {
            let sum = read + written;
            format!("8:0 Read {read}\n8:0 Write {written}\n8:0 Sync {sum}\n8:0 Total {sum}\nTotal {sum}\n")
        };
        write("blkio", "blkio.throttle.io_service_bytes_recursive", io(1_459_200, 314_773_504));
        write("blkio", "blkio.throttle.io_serviced_recursive", io(192, 353));
        write("pids", "pids.current", "9\n".to_owned());
        write("pids", "pids.max", "100\n".to_owned());
        self.set_time(&format!("sys/fs/cgroup/memory/{path}"));
    }

    fn collector(&self, flags: &[&str]) -> Box<dyn Collector> {
        let settings = settings(flags);
        (entry("pods").build)(&self.host, &Options::new(entry("pods"), &settings)).expect("valid settings")
    }

    /// The page of one scrape.
    fn scrape(&self, collector: &mut dyn Collector) -> (String, Result<(), CollectError>) {
        let mut samples = Samples::new();
        let result = collector.collect(&self.host, &mut samples);
        let mut page = Vec::new();
        assert_eq!(text::write(&samples, &mut page), 0, "no series is said twice");
        (String::from_utf8(page).expect("UTF-8"), result)
    }

    #[track_caller]
    fn page(&self, flags: &[&str]) -> String {
        let (page, result) = self.scrape(&mut *self.collector(flags));
        result.expect("all of it is there");
        page
    }
}

/// The page without what is of the moment.
fn stable(page: &str) -> String {
    page.lines()
        .filter(|line| !line.starts_with("container_last_seen{"))
        .map(|line| format!("{line}\n"))
        .collect()
}

#[track_caller]
fn assert_golden(name: &str, page: &str) {
    let golden = Path::new("fixtures").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&golden, stable(page)).expect("written");
    }
    let expected = fs::read_to_string(golden).expect("the golden page is there");
    assert!(expected == stable(page), "{}", difference(&expected, &stable(page)));
}

/// The series of a family, each with its labels as written.
fn series<'a>(page: &'a str, family: &str) -> Vec<&'a str> {
    let is_of = |line: &&str| line.strip_prefix(family).is_some_and(|rest| rest.starts_with('{'));
    page.lines().filter(is_of).collect()
}

#[test]
fn version_2_gives_the_golden_page() {
    assert_golden("pods_v2.prom", &Machine::v2().page(&[]));
}

#[test]
fn version_1_gives_the_golden_page() {
    assert_golden("pods_v1.prom", &Machine::v1().page(&[]));
}

#[test]
fn later_scrapes_say_the_same() {
    for machine in [Machine::v2(), Machine::v1()] {
        let mut collector = machine.collector(&[]);
        let first = machine.scrape(&mut *collector).0;
        for _ in 0..3 {
            let (first, next) = (stable(&first), stable(&machine.scrape(&mut *collector).0));
            assert!(first == next, "{}", difference(&first, &next));
        }
    }
}

#[test]
fn totals_and_namespaces_are_chosen() {
    let machine = Machine::v2();
    let of_usage = |flags: &[&str]| series(&machine.page(flags), "container_cpu_usage_seconds_total").len();
    // Three containers with a name, and the pod without one.
    assert_eq!(of_usage(&[]), 4);
    // The static pod has no files of its own here.
    assert_eq!(of_usage(&["pods.totals=true"]), 5);
    assert_eq!(of_usage(&["pods.namespace-exclude=^kube-"]), 3);
    assert_eq!(of_usage(&["pods.namespace-include=^kube-"]), 1);
}

#[test]
fn the_hosts_network_is_no_pods() {
    let page = Machine::v2().page(&[]);
    let received = series(&page, "container_network_receive_bytes_total");
    let [line] = received[..] else { panic!("{received:?}") };
    assert!(line.contains("pod=\"cart-1\"") && line.contains("interface=\"eth0\""), "{line}");
    assert!(line.contains(&format!("name=\"{SANDBOX}\"")) && line.ends_with(" 7.340032e+06"), "{line}");
}

#[test]
fn containers_come_and_go() {
    let machine = Machine::v2();
    let mut collector = machine.collector(&[]);
    let count = |collector: &mut dyn Collector| {
        let (page, result) = machine.scrape(collector);
        result.expect("all of it is there");
        series(&page, "container_memory_working_set_bytes").len()
    };
    assert_eq!(count(&mut *collector), 4);
    let uid = CART.replace('-', "_");
    let pod = format!("kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid}.slice");
    fs::remove_dir_all(machine.path(&format!("sys/fs/cgroup/{pod}/cri-containerd-{SIDECAR}.scope")))
        .expect("gone");
    assert_eq!(count(&mut *collector), 3);
    // A container that starts again has another id.
    let next = "f5555555555555555555555555555555555555555555555555555555555555ff";
    machine.group_v2(&format!("{pod}/cri-containerd-{next}.scope"), 1, false, "400\n");
    machine.write(&format!("root/var/log/containers/cart-1_shop_side-car-{next}.log"), "");
    assert_eq!(count(&mut *collector), 4);
    fs::remove_dir_all(machine.path("sys/fs/cgroup/kubepods.slice")).expect("gone");
    let (page, _) = machine.scrape(&mut *collector);
    assert_eq!(page, "");
    assert!(matches!(machine.scrape(&mut *collector).1, Err(CollectError::NoData)));
}

#[test]
fn pods_without_any_name_are_said_to_be_unknown() {
    let machine = Machine::v2();
    fs::remove_dir_all(machine.path("root/var/log")).expect("gone");
    machine.host.containers.ask(|_| None);
    let (page, result) = machine.scrape(&mut *machine.collector(&[]));
    assert_eq!(page, "");
    let error = result.expect_err("nothing can be said").to_string();
    assert!(error.contains("3 pods") && error.contains("/var/log/containers"), "{error}");
}

#[test]
fn a_kernel_that_says_less_is_no_failure() {
    let machine = Machine::v2();
    let whole = machine.page(&[]);
    for file in ["cpu.pressure", "memory.pressure", "io.pressure", "memory.peak", "io.stat", "pids.current"] {
        for path in files(&machine, "sys/fs/cgroup").into_iter().filter(|path| path.ends_with(file)) {
            fs::remove_file(path).expect("removed");
        }
    }
    let page = machine.page(&[]);
    for family in ["container_pressure_cpu_waiting_seconds_total", "container_memory_max_usage_bytes"] {
        assert!(!series(&whole, family).is_empty() && series(&page, family).is_empty(), "{family}");
    }
    assert_eq!(series(&page, "container_memory_usage_bytes").len(), 4);
}

/// All files below a directory.
fn files(machine: &Machine, below: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![machine.path(below)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("listed") {
            let path = entry.expect("listed").path();
            if path.is_dir() { directories.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

#[test]
fn a_damaged_file_costs_only_what_is_in_it() {
    for machine in [Machine::v2(), Machine::v1()] {
        // Directories get another time by what is done in them.
        let settled = |page: &str| {
            let is_settled = |line: &&str| !line.starts_with("container_start_time_seconds{");
            stable(page).lines().filter(is_settled).map(|line| format!("{line}\n")).collect::<String>()
        };
        let mut collector = machine.collector(&[]);
        let whole = settled(&machine.scrape(&mut *collector).0);
        let mut files = files(&machine, "sys/fs/cgroup");
        files.retain(|file| file.to_string_lossy().contains(APP));
        files.extend(["proc/stat", "proc/100/net/dev"].map(|path| machine.path(path)));
        let noise = |length: usize| (0..length).map(|at| (at * 151 + 7) as u8).collect();
        for file in files {
            let text = fs::read(&file).expect("read");
            for damage in damages(&text, noise) {
                match &damage {
                    Damage::Emptied => fs::write(&file, ""),
                    Damage::Cut(length) => fs::write(&file, &text[..*length]),
                    Damage::Bytes(bytes) => fs::write(&file, bytes),
                    Damage::Gone | Damage::Directory | Damage::Unreadable => fs::remove_file(&file),
                }
                .expect("damaged");
                // What stays open between scrapes, and what is looked at for the first time.
                for page in
                    [machine.scrape(&mut *collector).0, machine.scrape(&mut *machine.collector(&[])).0]
                {
                    let of_usage = series(&page, "container_threads_max").len();
                    let of_whole = series(&whole, "container_threads_max").len();
                    assert!(of_usage + 1 >= of_whole, "{} {damage:?}\n{page}", file.display());
                    assert!(page.len() * 5 > whole.len() * 4, "{} {damage:?}\n{page}", file.display());
                }
                fs::write(&file, &text).expect("restored");
            }
        }
        // Settings may be a minute old.
        let after = settled(&machine.page(&[]));
        assert!(after == whole, "{}", difference(&whole, &after));
    }
}
