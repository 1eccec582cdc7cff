//! Frequencies of CPUs and who governs them, out of `/sys/devices/system/cpu/cpuN/cpufreq`.

use std::{
    io,
    path::{Path, PathBuf},
    time::Instant,
};

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Host, Options, Samples, host,
    sysfs::{self, Attribute, Buffer, KeptDevice},
};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "cpufreq", default_on: true, flags: &[], build };

static FREQUENCIES: [Desc; 7] = [
    Desc::gauge("node_cpu_frequency_hertz", "Current CPU thread frequency in hertz.", &["cpu"]),
    Desc::gauge("node_cpu_frequency_avg_hertz", "Average CPU thread frequency in hertz.", &["cpu"]),
    Desc::gauge(
        "node_cpu_scaling_frequency_hertz",
        "Current scaled CPU thread frequency in hertz.",
        &["cpu"],
    ),
    Desc::gauge(
        "node_cpu_scaling_frequency_min_hertz",
        "Minimum scaled CPU thread frequency in hertz.",
        &["cpu"],
    ),
    Desc::gauge(
        "node_cpu_scaling_frequency_max_hertz",
        "Maximum scaled CPU thread frequency in hertz.",
        &["cpu"],
    ),
    Desc::gauge("node_cpu_frequency_min_hertz", "Minimum CPU thread frequency in hertz.", &["cpu"]),
    Desc::gauge("node_cpu_frequency_max_hertz", "Maximum CPU thread frequency in hertz.", &["cpu"]),
];
static GOVERNOR: Desc =
    Desc::gauge("node_cpu_scaling_governor", "Current enabled CPU frequency governor.", &["cpu", "governor"]);

/// The attributes read at every scrape: the first five of [`FREQUENCIES`], then who governs.
const READ: &[&str] = &[
    "cpuinfo_cur_freq",
    "cpuinfo_avg_freq",
    "scaling_cur_freq",
    "scaling_min_freq",
    "scaling_max_freq",
    "scaling_governor",
];
const GOVERNS: usize = 5;

/// What the hardware can do, the other two of [`FREQUENCIES`]. It changes with the driver, hence is read rarely.
const LIMITS: [&str; 2] = ["cpuinfo_min_freq", "cpuinfo_max_freq"];

/// A policy that lacks one of these fails the collector, as it fails node_exporter's.
const REQUIRED: [&str; 3] = ["scaling_driver", "related_cpus", "scaling_setspeed"];

struct Cpufreq {
    directory: PathBuf,
    offline: Attribute,
    /// The kernel's list of offline CPUs when the directories were looked at.
    was_offline: Option<String>,
    looked: Instant,
    cpus: Vec<Cpu>,
    buffer: Buffer,
}

/// A CPU that is online and has a policy.
struct Cpu {
    number: String,
    device: KeptDevice,
    limits: [Option<u64>; LIMITS.len()],
    governors: String,
    frequencies: [Option<u64>; GOVERNS],
    governor: String,
}

fn build(host: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    let directory = host.sys("devices/system/cpu");
    Ok(Box::new(Cpufreq {
        offline: Attribute::new(directory.join("offline")),
        directory,
        was_offline: None,
        looked: Instant::now(),
        cpus: Vec::new(),
        buffer: Buffer::default(),
    }))
}

impl Collector for Cpufreq {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        self.follow(Instant::now())?;
        let now = Instant::now();
        // One CPU that can't be read leaves all of them unsaid, as with node_exporter.
        for cpu in &mut self.cpus {
            if let Err(error) = cpu.read(now, &mut self.buffer) {
                self.was_offline = None;
                return Err(error);
            }
        }
        for cpu in &self.cpus {
            cpu.say(out);
        }
        Ok(())
    }
}

impl Cpufreq {
    /// Looks at the directories when CPUs went or came back, and otherwise rarely.
    fn follow(&mut self, now: Instant) -> Result<(), CollectError> {
        let path = self.offline.path().to_owned();
        let offline = self
            .offline
            .read(&mut self.buffer)
            .map_err(|source| CollectError::Read { path: path.clone(), source })?;
        let is_fresh = now.saturating_duration_since(self.looked) < sysfs::STALENESS;
        if is_fresh && self.was_offline.as_deref() == Some(offline) {
            return Ok(());
        }
        let gone = parse_list(offline).ok_or_else(|| CollectError::parse(path, "expected a list of CPUs"))?;
        let was_offline = offline.to_owned();
        self.was_offline = None;
        let names = sysfs::entries(&self.directory)?;
        let names: Vec<&str> = names.iter().filter_map(|name| cpu_number(name)).collect();
        if names.is_empty() {
            return Err(CollectError::Read {
                path: self.directory.clone(),
                source: io::ErrorKind::NotFound.into(),
            });
        }
        let mut known = std::mem::take(&mut self.cpus).into_iter().peekable();
        for number in names {
            let is_offline = !gone.is_empty()
                && number
                    .parse()
                    .map(|number: u32| gone.contains(&number))
                    .map_err(|_| CollectError::parse(self.directory.join(number), "expected cpuN"))?;
            let path = self.directory.join(format!("cpu{number}/cpufreq"));
            if is_offline || !host::is_dir(&path) {
                continue;
            }
            // Both are sorted by name.
            while known.peek().is_some_and(|cpu| cpu.number.as_str() < number) {
                known.next();
            }
            let mut cpu = match known.next_if(|cpu| cpu.number == number) {
                Some(cpu) => cpu,
                None => Cpu::new(number, path),
            };
            cpu.look(&mut self.buffer)?;
            self.cpus.push(cpu);
        }
        self.looked = now;
        self.was_offline = Some(was_offline);
        Ok(())
    }
}

impl Cpu {
    fn new(number: &str, path: PathBuf) -> Self {
        Self {
            number: number.to_owned(),
            device: KeptDevice::new(path, READ),
            limits: Default::default(),
            governors: String::new(),
            frequencies: Default::default(),
            governor: String::new(),
        }
    }

    /// What does not change from scrape to scrape. The governors to choose from become more when a module is loaded.
    fn look(&mut self, buffer: &mut Buffer) -> Result<(), CollectError> {
        let path = self.device.path();
        let fail = |file: &str, source| CollectError::Read { path: path.join(file), source };
        let directory = sysfs::Directory::open(path).map_err(|source| fail("", source))?;
        for (limit, file) in self.limits.iter_mut().zip(LIMITS) {
            *limit = frequency(directory.read(file, buffer), path, file)?;
        }
        for file in REQUIRED {
            directory.read(file, buffer).map_err(|source| fail(file, source))?;
        }
        const GOVERNORS: &str = "scaling_available_governors";
        let governors = directory.read(GOVERNORS, buffer).map_err(|source| fail(GOVERNORS, source))?;
        governors.clone_into(&mut self.governors);
        Ok(())
    }

    fn read(&mut self, now: Instant, buffer: &mut Buffer) -> Result<(), CollectError> {
        for (at, value) in self.frequencies.iter_mut().enumerate() {
            let text = self.device.read(at, now, buffer);
            *value = frequency(text, self.device.path(), READ[at])?;
        }
        let governor = self.device.read(GOVERNS, now, buffer);
        let governor = governor
            .map_err(|source| CollectError::Read { path: self.device.path().join(READ[GOVERNS]), source })?;
        governor.clone_into(&mut self.governor);
        self.device.rest();
        Ok(())
    }

    fn say(&self, out: &mut Samples) {
        for (desc, frequency) in FREQUENCIES.iter().zip(self.frequencies.iter().chain(&self.limits)) {
            if let Some(kilohertz) = frequency {
                out.push(desc, &[&self.number], *kilohertz as f64 * 1000.0);
            }
        }
        if self.governor.is_empty() {
            return;
        }
        for governor in self.governors.split(' ') {
            let is_it = f64::from(u8::from(governor == self.governor));
            out.push(&GOVERNOR, &[&self.number, governor], is_it);
        }
    }
}

/// "cpu12" is CPU 12. `cpufreq` and `cpuidle` are none.
fn cpu_number(name: &str) -> Option<&str> {
    sysfs::is_numbered(name, "cpu").then(|| &name["cpu".len()..])
}

/// "1699981" in kHz. Drivers have only some of these, and `cpuinfo_cur_freq` is for root alone.
fn frequency(text: io::Result<&str>, path: &Path, file: &str) -> Result<Option<u64>, CollectError> {
    match text {
        Ok(text) => match text.parse() {
            Ok(kilohertz) => Ok(Some(kilohertz)),
            Err(_) => Err(CollectError::parse(path.join(file), format!("expected a number, got {text:?}"))),
        },
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => Ok(None),
            _ => Err(CollectError::Read { path: path.join(file), source: error }),
        },
    }
}

/// "1,3-5" is 1, 3, 4, 5.
fn parse_list(text: &str) -> Option<Vec<u32>> {
    let mut cpus = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?);
        cpus.extend(u32::from(first)..=u32::from(last));
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::collector::Settings;

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new(cpus: &[&str]) -> Self {
            let tree = Self(tempfile::tempdir().expect("a temporary directory"));
            tree.write("offline", "\n");
            for cpu in cpus {
                for (file, text) in [
                    ("scaling_cur_freq", "1699981\n"),
                    ("scaling_min_freq", "800000\n"),
                    ("scaling_max_freq", "3700000\n"),
                    ("cpuinfo_min_freq", "400000\n"),
                    ("cpuinfo_max_freq", "3800000\n"),
                    ("scaling_available_governors", "performance schedutil \n"),
                    ("scaling_governor", "schedutil\n"),
                    ("scaling_driver", "acpi-cpufreq\n"),
                    ("related_cpus", "0\n"),
                    ("scaling_setspeed", "<unsupported>\n"),
                ] {
                    tree.write(&format!("{cpu}/cpufreq/{file}"), text);
                }
            }
            tree
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.path().join("devices/system/cpu").join(path);
            fs::create_dir_all(path.parent().expect("has one")).expect("made");
            fs::write(path, text).expect("written");
        }

        fn collector(&self) -> Box<dyn Collector> {
            let host = Host { sysfs: self.0.path().into(), ..Host::default() };
            build(&host, &Options::new(&ENTRY, &Settings::new())).expect("built")
        }
    }

    fn said(collector: &mut dyn Collector) -> Result<Vec<String>, CollectError> {
        let mut out = Samples::new();
        collector.collect(&Host::default(), &mut out)?;
        let line = |(name, labels, value): (&str, crate::samples::LabelValues, f64)| {
            let labels: Vec<&str> = labels.collect();
            format!("{} {} {value}", name.trim_start_matches("node_cpu_"), labels.join(","))
        };
        Ok(out.iter().map(line).collect())
    }

    #[test]
    fn frequencies_are_hertz_and_every_governor_is_named() {
        let tree = Tree::new(&["cpu3"]);
        let expected = [
            "scaling_frequency_hertz 3 1699981000",
            "scaling_frequency_min_hertz 3 800000000",
            "scaling_frequency_max_hertz 3 3700000000",
            "frequency_min_hertz 3 400000000",
            "frequency_max_hertz 3 3800000000",
            "scaling_governor 3,performance 0",
            "scaling_governor 3,schedutil 1",
        ];
        assert_eq!(said(&mut *tree.collector()).expect("said"), expected);
    }

    #[test]
    fn what_changes_is_seen_at_once() {
        let tree = Tree::new(&["cpu0"]);
        let mut collector = tree.collector();
        said(&mut *collector).expect("said");
        tree.write("cpu0/cpufreq/scaling_cur_freq", "900000\n");
        tree.write("cpu0/cpufreq/scaling_governor", "performance\n");
        let said = said(&mut *collector).expect("said");
        assert!(said.contains(&"scaling_frequency_hertz 0 900000000".to_owned()), "{said:?}");
        assert!(said.contains(&"scaling_governor 0,performance 1".to_owned()), "{said:?}");
    }

    #[test]
    fn cpus_that_go_offline_or_have_no_policy_are_not_said() {
        let tree = Tree::new(&["cpu0", "cpu1", "cpu10"]);
        tree.write("cpu2/online", "1\n");
        let mut collector = tree.collector();
        assert_eq!(said(&mut *collector).expect("said").len(), 3 * 7);
        tree.write("offline", "1,8-11\n");
        assert_eq!(said(&mut *collector).expect("said").len(), 7);
        tree.write("offline", "0\n");
        assert_eq!(said(&mut *collector).expect("said").len(), 2 * 7);
    }

    #[test]
    fn a_host_without_policies_is_fine_and_says_nothing() {
        let tree = Tree::new(&[]);
        tree.write("cpu0/online", "1\n");
        assert!(said(&mut *tree.collector()).expect("said").is_empty());
    }

    #[test]
    fn odd_and_missing_files_fail_the_collector() {
        for (path, text) in [
            ("offline", "x\n"),
            ("cpu0/cpufreq/scaling_cur_freq", "<unknown>\n"),
            ("cpu0/cpufreq/cpuinfo_max_freq", "\n"),
        ] {
            let tree = Tree::new(&["cpu0", "cpu1"]);
            tree.write(path, text);
            assert!(said(&mut *tree.collector()).is_err(), "{path}");
        }
        for path in ["offline", "cpu0/cpufreq/related_cpus", "cpu0/cpufreq/scaling_governor"] {
            let tree = Tree::new(&["cpu0", "cpu1"]);
            fs::remove_file(tree.0.path().join("devices/system/cpu").join(path)).expect("removed");
            assert!(said(&mut *tree.collector()).is_err(), "{path}");
        }
        let tree = Tree::new(&[]);
        assert!(said(&mut *tree.collector()).is_err(), "there is no CPU");
    }
}
