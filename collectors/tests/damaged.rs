//! A damaged file harms nobody but those who read it, and says nothing wrong: on machines of which one file is cut, emptied,
//! gone, a directory, unreadable or full of noise, we say what a real node_exporter says.
//!
//! `PROPTEST_CASES` is how many cases of each machine are tried, `PROPTEST_RNG_SEED` tries the same again.

#![allow(clippy::expect_used, clippy::panic, reason = "what tests call fails as they do")]
#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]

mod support;

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap},
    fs, iter,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nodewarden_collectors::{Host, Options, Samples, Settings, node, text};
use support::{
    damage::{Damage, Machine, damages},
    fixtures::{self, Tree},
    peer::{self, Peer},
    rack7, settings,
};

/// The collectors that read files, but for what is of the moment.
fn names() -> Vec<&'static str> {
    rack7::collectors().into_iter().filter(|name| !["time", "uname"].contains(name)).collect()
}

/// The page of all collectors, made anew: one that was damaged keeps nothing of it.
fn page(names: &[&str], host: &Host, settings: &Settings) -> String {
    let mut samples = Samples::new();
    let mut success = Vec::new();
    for entry in node::ALL.iter().filter(|entry| names.contains(&entry.name)) {
        let built = (entry.build)(host, &Options::new(entry, settings));
        // As when the agent starts: what can't be made is a mistake of the configuration.
        let collected = built.map(|mut collector| collector.collect(host, &mut samples).is_ok());
        success.push((entry.name, collected.unwrap_or_default()));
    }
    let mut page = Vec::new();
    text::write(&samples, &mut page);
    let mut page = String::from_utf8(page).expect("a page is always UTF-8");
    for (name, success) in success {
        page.push_str(&format!(
            "node_scrape_collector_success{{collector=\"{name}\"}} {}\n",
            u8::from(success)
        ));
    }
    page
}

/// The lines of a page, without what is of the moment or of this host.
fn lines(page: &str) -> BTreeSet<String> {
    const LEFT_OUT: &[&str] = &[
        // Of cpu and cpufreq: node_exporter says it of the one that is first.
        "node_cpu_frequency_hertz",
        "node_filesystem_avail_bytes",
        "node_filesystem_files_free",
        "node_filesystem_free_bytes",
        "node_scrape_collector_duration_seconds",
        "node_textfile_mtime_seconds",
    ];
    let success_header =
        |line: &str| line.starts_with("# ") && line.contains(" node_scrape_collector_success ");
    let stable = |line: &&str| {
        !peer::begins(peer::family(line), LEFT_OUT) && !peer::is_own(line) && !success_header(line)
    };
    page.lines().filter(stable).map(str::to_owned).collect()
}

/// What may differ when a file is damaged: a part of its path, the collector, and how.
const DEVIATIONS: &[(&str, &str, Deviation)] = &[
    // Cut or emptied as no kernel does it: node_exporter says zeros or nothing of it.
    ("proc/diskstats", "diskstats", Deviation::Fails),
    ("proc/meminfo", "meminfo", Deviation::Fails),
    ("proc/net/stat/nf_conntrack", "conntrack", Deviation::Fails),
    ("proc/stat", "cpu", Deviation::Fails),
    ("proc/stat", "stat", Deviation::Fails),
    ("proc/vmstat", "vmstat", Deviation::Fails),
    ("proc/zoneinfo", "zoneinfo", Deviation::Fails),
    ("supervise/status", "runit", Deviation::LeavesOut),
    ("sys/class/scsi_tape/", "tapestats", Deviation::Fails),
    ("sys/devices/system/edac/", "edac", Deviation::Fails),
    ("/numa_node", "pcidevice", Deviation::Fails),
    ("/nuse", "nvme", Deviation::Fails),
    ("n1/size", "nvme", Deviation::Fails),
    ("/queue/logical_block_size", "nvme", Deviation::Fails),
    // A link in its place, which stands for "unreadable" here, is no counter to node_exporter.
    ("/hw_counters/", "infiniband", Deviation::Fails),
    ("sys/fs/bcache/", "bcache", Deviation::Fails),
    ("sys/fs/bcachefs/", "bcachefs", Deviation::Fails),
    ("sys/fs/btrfs/", "btrfs", Deviation::Fails),
    ("sys/fs/xfs/", "xfs", Deviation::Fails),
    // To node_exporter, a file that can't be opened is one that is not there.
    ("proc/spl/", "zfs", Deviation::Fails),
    // A device that is listed and gone is passed over.
    ("/bonding/slaves", "bonding", Deviation::Succeeds),
    ("bonding_masters", "bonding", Deviation::Succeeds),
    ("sys/devices/system/node/", "meminfo_numa", Deviation::Succeeds),
    ("/md/", "mdadm", Deviation::Succeeds),
    // A link in its place, which stands for "unreadable" here, is taken for an interface.
    ("bonding_masters", "netclass", Deviation::Succeeds),
    ("bonding_masters", "netdev", Deviation::Succeeds),
    // Values that no pattern keeps are not looked at.
    ("proc/net/netstat", "netstat", Deviation::Succeeds),
    ("proc/net/snmp", "netstat", Deviation::Succeeds),
    ("/stat", "processes", Deviation::Succeeds),
    // node_exporter takes the last character for the end of the line, whatever it is.
    ("sys/fs/bcache/", "bcache", Deviation::Succeeds),
    ("sys/fs/bcache/", "bcache", Deviation::Differs),
    // A directory there is a RAID level.
    ("/allocation/", "btrfs", Deviation::Succeeds),
    ("/allocation/", "btrfs", Deviation::Differs),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deviation {
    /// We fail where node_exporter does not.
    Fails,
    /// We do not where it does.
    Succeeds,
    /// Of a number cut short, or of a directory, both say something.
    Differs,
    /// Neither fails, and we leave out what belongs to the file.
    LeavesOut,
}

struct Case {
    machine: Machine,
    host: Host,
    options: Vec<String>,
    settings: Settings,
    /// Where node_exporter runs, the machine below it.
    peer: Option<RefCell<Peer>>,
    /// What we say of the machine when nothing is damaged.
    whole: BTreeSet<String>,
    /// The collectors that say a family.
    owners: HashMap<String, BTreeSet<&'static str>>,
}

impl Case {
    fn new(machine: Machine, trees: [&str; 4], options: &[String]) -> Self {
        let host = machine.host(trees);
        let settings = settings(options);
        let whole = lines(&page(&names(), &host, &settings));
        let mut owners: HashMap<String, BTreeSet<&str>> = HashMap::new();
        for name in names() {
            for line in lines(&page(&[name], &host, &settings)) {
                owners.entry(peer::family(&line).to_owned()).or_default().insert(name);
            }
        }
        let mut case = Self { machine, host, options: options.to_vec(), settings, peer: None, whole, owners };
        case.peer = case.start_peer().map(|peer| RefCell::new(peer.expect("it starts")));
        case
    }

    fn start_peer(&self) -> Option<Result<Peer, String>> {
        let paths = [
            ("procfs", &self.host.procfs),
            ("sysfs", &self.host.sysfs),
            ("rootfs", &self.host.rootfs),
            ("udev.data", &self.host.udev_data),
        ];
        let option = |option: &String| match option.split_once('=') {
            Some((name, "true")) => format!("--collector.{name}"),
            Some((name, "false")) => format!("--no-collector.{name}"),
            _ => format!("--collector.{option}"),
        };
        let flags: Vec<String> = iter::once("--collector.disable-defaults".to_owned())
            .chain(paths.map(|(flag, path)| format!("--path.{flag}={}", path.display())))
            .chain(names().iter().map(|name| format!("--collector.{name}")))
            .chain(self.options.iter().map(option))
            .collect();
        Some(Peer::try_start(&peer::binary()?, &flags))
    }

    /// What we say of the damaged machine unlike node_exporter; nothing without one, or when it dies of the damage.
    fn differences(&self, file: &Path, damage: &Damage) -> Vec<String> {
        self.machine.with(file, damage, || {
            let ours = lines(&page(&names(), &self.host, &self.settings));
            let Some(peer) = &self.peer else { return Vec::new() };
            if peer.borrow().get("/metrics").is_ok_and(|theirs| lines(&theirs) == ours) {
                return Vec::new();
            }
            // Some of its collectors remember what was before the damage.
            let theirs = self.start_peer().expect("it was there").and_then(|peer| peer.get("/metrics"));
            let Ok(theirs) = theirs else { return Vec::new() };
            self.judge(file, damage, &ours, &lines(&theirs))
        })
    }

    /// What of the difference is wrong.
    fn judge(
        &self,
        file: &Path,
        damage: &Damage,
        ours: &BTreeSet<String>,
        theirs: &BTreeSet<String>,
    ) -> Vec<String> {
        let success = |name: &str| format!("node_scrape_collector_success{{collector=\"{name}\"}} 1");
        let is_failed = |page: &BTreeSet<String>, name: &str| !page.contains(&success(name));
        let file = file.to_string_lossy();
        let is_known = |name: &str, how: Deviation| {
            DEVIATIONS.iter().any(|(path, of, known)| *known == how && *of == name && file.contains(path))
        };
        // What noise means is anybody's guess, as long as nothing wrong is said; no kernel has directories for files.
        let may_fail = |name: &str| {
            matches!(damage, Damage::Bytes(_) | Damage::Directory) || is_known(name, Deviation::Fails)
        };
        // What is not said need not be looked at.
        let is_unread = self.whole == *ours;
        let may_succeed = |name: &str| {
            is_unread || matches!(damage, Damage::Bytes(_)) || is_known(name, Deviation::Succeeds)
        };
        let mut wrong = Vec::new();
        for name in names() {
            match (is_failed(ours, name), is_failed(theirs, name)) {
                (true, false) if !may_fail(name) => wrong.push(format!("{name} fails")),
                (false, true) if !may_succeed(name) => wrong.push(format!("{name} does not fail")),
                _ => {}
            }
        }
        let owned_by = |line: &str, is: &dyn Fn(&str) -> bool| {
            self.owners.get(peer::family(line)).is_some_and(|owners| owners.iter().any(|name| is(name)))
        };
        // Success is compared above; the text of a family that is named after noise is noise.
        let is_success = |line: &&String| {
            line.starts_with("node_scrape_collector_success{")
                || matches!(damage, Damage::Bytes(_)) && line.starts_with("# ")
        };
        // What is said of the same series.
        let counterpart = |page: &'_ BTreeSet<String>, line: &str| {
            let series = line.rsplit_once(' ').map_or(line, |(series, _)| series).to_owned() + " ";
            page.range(series.clone()..).next().filter(|next| next.starts_with(&series)).cloned()
        };
        let is_cut = |line: &str| {
            matches!(damage, Damage::Cut(_) | Damage::Directory)
                && owned_by(line, &|name| is_known(name, Deviation::Differs))
        };
        for line in ours.difference(theirs).filter(|line| !is_success(line)) {
            // Beside what node_exporter leaves out or gets wrong, what was not damaged is said.
            let theirs_is_wrong =
                || counterpart(theirs, line).is_some() || owned_by(line, &|name| is_failed(theirs, name));
            // What comes with a failure may lack something.
            let is_failed = || owned_by(line, &|name| is_failed(ours, name));
            if !(self.whole.contains(line) && theirs_is_wrong() || is_failed() || is_cut(line)) {
                wrong.push(format!("+ {line}"));
            }
        }
        for line in theirs.difference(ours).filter(|line| !is_success(line)) {
            let is_right = || counterpart(ours, line).is_some_and(|ours| self.whole.contains(&ours));
            let failed =
                |name: &str| may_fail(name) && is_failed(ours, name) || is_known(name, Deviation::LeavesOut);
            if !(owned_by(line, &failed) || is_right() || is_cut(line)) {
                wrong.push(format!("- {line}"));
            }
        }
        wrong
    }

    /// A new node_exporter if the one there was has died.
    fn revive(&self) {
        let Some(peer) = &self.peer else { return };
        if peer.borrow().get("/").is_err() {
            *peer.borrow_mut() = self.start_peer().expect("it was there").expect("it starts");
        }
    }
}

/// splitmix64.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut state = self.0;
        state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((state ^ (state >> 31)) % end.max(1) as u64) as usize
    }
}

fn asked(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// How long the usual number of cases may take.
const TIME: Duration = Duration::from_secs(40);

/// Tries as many cases as asked for, spread over all files by chance.
fn try_cases(case: &Case, usual: u64) {
    let mut chance = Chance(asked("PROPTEST_RNG_SEED", 1));
    let mut all: Vec<(PathBuf, Damage)> = Vec::new();
    for file in case.machine.files() {
        let whole = fs::read(case.machine.path(file)).expect("read");
        let noise = |length: usize| (0..length.clamp(1, 200)).map(|_| chance.below(256) as u8).collect();
        all.extend(damages(&whole, noise).into_iter().map(|damage| (file.clone(), damage)));
    }
    let (wanted, start) = (asked("PROPTEST_CASES", usual) as usize, Instant::now());
    let mut report = Vec::new();
    for done in 0..wanted.min(all.len()) {
        if start.elapsed() > TIME && wanted as u64 == usual {
            eprintln!("{done} of {wanted} cases on this slow machine");
            break;
        }
        let chosen = done + chance.below(all.len() - done);
        all.swap(done, chosen);
        let (file, damage) = &all[done];
        let differences = case.differences(file, damage);
        case.revive();
        if !differences.is_empty() {
            let begin = &differences[..differences.len().min(12)];
            let more = differences.len() - begin.len();
            let found = format!("{} {damage:?}\n  {}\n  and {more} more", file.display(), begin.join("\n  "));
            // At once, for a long run.
            eprintln!("{found}");
            report.push(found);
        }
    }
    report.sort();
    assert!(report.is_empty(), "{} of {wanted} cases\n{}", report.len(), report.join("\n"));
}

#[test]
fn the_made_up_machine() {
    let machine = Machine::copy_of("fixtures/rack7");
    let options = rack7::options(&machine.top().display().to_string());
    try_cases(&Case::new(machine, rack7::TREES, &options), 600);
}

#[test]
fn node_exporters_machine() {
    let Some(tree) = Tree::new() else { return };
    let machine = Machine::copy(&[tree.fixtures()]);
    let fixtures = machine.top().join("fixtures").display().to_string();
    let options: Vec<String> = fixtures::options()
        .iter()
        .copied()
        .chain(["netdev.netlink=false"])
        .map(|option| option.replace("collector/fixtures", &fixtures))
        .collect();
    try_cases(
        &Case::new(machine, ["fixtures/proc", "fixtures/sys", "fixtures", "fixtures/udev/data"], &options),
        300,
    );
}
