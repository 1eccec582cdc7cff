//! Where each CPU's time went, what it is, whether it was throttled.

mod info;
mod topology;

use crate::{BuildError, CollectError, Collector, Desc, Entry, Flag, Host, HostFile, Options, Samples, host};
use info::Info;
use topology::Topology;

/// This collector in the list.
pub const ENTRY: Entry = Entry {
    name: "cpu",
    default_on: true,
    flags: &[
        Flag::bool("cpu.guest", true, "Enables metric node_cpu_guest_seconds_total"),
        Flag::bool("cpu.info", false, "Enables metric cpu_info"),
        Flag::regex(
            "cpu.info.flags-include",
            "",
            "Filter the `flags` field in cpuInfo with a value that must be a regular expression",
        ),
        Flag::regex(
            "cpu.info.bugs-include",
            "",
            "Filter the `bugs` field in cpuInfo with a value that must be a regular expression",
        ),
    ],
    build,
};

static SECONDS: Desc =
    Desc::counter("node_cpu_seconds_total", "Seconds the CPUs spent in each mode.", &["cpu", "mode"]);
static GUEST_SECONDS: Desc = Desc::counter(
    "node_cpu_guest_seconds_total",
    "Seconds the CPUs spent in guests (VMs) for each mode.",
    &["cpu", "mode"],
);
static ISOLATED: Desc = Desc::gauge(
    "node_cpu_isolated",
    "Whether each core is isolated, information from /sys/devices/system/cpu/isolated.",
    &["cpu"],
);

/// The modes in the order of the page, with their place in a line of `/proc/stat`.
const MODES: [(&str, usize); 8] = [
    ("idle", IDLE),
    ("iowait", 4),
    ("irq", 5),
    ("nice", 1),
    ("softirq", 6),
    ("steal", 7),
    ("system", 2),
    ("user", 0),
];
const GUEST_MODES: [(&str, usize); 2] = [("nice", 9), ("user", 8)];
const IDLE: usize = 3;

/// `/proc/stat` counts in USER_HZ, which is 100 on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// An idle counter that steps back this far means that the CPU was taken away and came back, not a race in the kernel.
const RESET_SECONDS: f64 = 3.0;

type Seconds = [f64; 10];

struct Cpu {
    stat: HostFile,
    times: Times,
    guest: bool,
    info: Option<Info>,
    isolated: Vec<String>,
    topology: Topology,
}

fn build(host: &Host, options: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Cpu {
        stat: HostFile::new(host.proc("stat")),
        times: Times::default(),
        guest: options.is_on("cpu.guest"),
        info: Info::wanted(host, options)?,
        isolated: read_isolated(host),
        topology: Topology::new(host),
    }))
}

impl Collector for Cpu {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        if let Some(info) = &mut self.info {
            info.say(out)?;
        }
        let times = &mut self.times;
        self.stat.parse(|text| times.update(text))?;
        self.times.say(self.guest, out);
        for cpu in &self.isolated {
            out.push(&ISOLATED, &[cpu], 1.0);
        }
        self.topology.say(out)
    }
}

/// The time of every CPU that is online, never stepping back.
#[derive(Debug, Default)]
struct Times(Vec<Time>);

#[derive(Debug)]
struct Time {
    /// The number of the CPU.
    cpu: String,
    /// In the order of `/proc/stat`.
    seconds: Seconds,
}

impl Times {
    /// Takes over what `/proc/stat` says now.
    fn update(&mut self, text: &str) -> Result<(), String> {
        let mut count = 0;
        for line in text.lines() {
            let Some(rest) = line.strip_prefix("cpu") else { continue };
            // The first line, "cpu  301854 612 ...", is the sum over the CPUs.
            if rest.starts_with(' ') {
                continue;
            }
            let (cpu, now) = parse_cpu(rest).ok_or_else(|| format!("expected times in {line:?}"))?;
            self.time_of(cpu, count).advance(now);
            count += 1;
        }
        self.0.truncate(count);
        if count == 0 { Err("it lists no CPU".into()) } else { Ok(()) }
    }

    /// The time of `cpu`, which stands at place `at`; those that the kernel no longer lists before it are forgotten.
    fn time_of(&mut self, cpu: &str, at: usize) -> &mut Time {
        match self.0[at..].iter().position(|time| time.cpu == cpu) {
            Some(gone) => drop(self.0.drain(at..at + gone)),
            None => self.0.insert(at, Time { cpu: cpu.to_owned(), seconds: Seconds::default() }),
        }
        &mut self.0[at]
    }

    fn say(&self, guest: bool, out: &mut Samples) {
        let seconds = out.family(&SECONDS);
        for time in &self.0 {
            for (mode, at) in MODES {
                out.push_to(seconds, &[&time.cpu, mode], time.seconds[at]);
            }
        }
        for time in self.0.iter().filter(|_| guest) {
            for (mode, at) in GUEST_MODES {
                out.push(&GUEST_SECONDS, &[&time.cpu, mode], time.seconds[at]);
            }
        }
    }
}

impl Time {
    /// The kernel's counters race, and so step back a little now and then: such a value is held.
    fn advance(&mut self, now: Seconds) {
        if self.seconds[IDLE] - now[IDLE] >= RESET_SECONDS {
            self.seconds = Seconds::default();
        }
        for (seconds, now) in self.seconds.iter_mut().zip(now) {
            *seconds = seconds.max(now);
        }
    }
}

/// "0 44490 19 21045 1087069 220 1 3410 0 2 1" after "cpu": its number, then ticks; old kernels give fewer of them.
fn parse_cpu(rest: &str) -> Option<(&str, Seconds)> {
    let mut words = rest.split_ascii_whitespace();
    let cpu = words.next().filter(|cpu| cpu.bytes().all(|byte| byte.is_ascii_digit()))?;
    let mut seconds = Seconds::default();
    let mut count = 0;
    for (slot, word) in seconds.iter_mut().zip(words) {
        *slot = word.parse::<u64>().ok()? as f64 / TICKS_PER_SECOND;
        count += 1;
    }
    (count > IDLE).then_some((cpu, seconds))
}

/// The CPUs that the scheduler leaves alone: a choice at boot, so it is read once.
fn read_isolated(host: &Host) -> Vec<String> {
    let path = host.sys("devices/system/cpu/isolated");
    let Ok(text) = host::read_text(&path) else { return Vec::new() };
    let list = parse_list(text.trim());
    if list.is_none() {
        tracing::warn!(path = %path.display(), %text, "expected a list of CPUs");
    }
    list.unwrap_or_default().iter().map(ToString::to_string).collect()
}

/// "1,3-5" is 1, 3, 4, 5.
fn parse_list(text: &str) -> Option<Vec<u16>> {
    let mut cpus = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cpus.extend(first.parse::<u16>().ok()?..=last.parse().ok()?);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle(times: &Times) -> Vec<(&str, f64)> {
        times.0.iter().map(|time| (time.cpu.as_str(), time.seconds[IDLE])).collect()
    }

    #[test]
    fn ticks_become_seconds_of_each_cpu() {
        let mut times = Times::default();
        times
            .update("cpu  9 9 9 9\ncpu0 44490 19 21045 1087069 220 1 3410 0 2 1\nintr 1\n")
            .expect("understood");
        let seconds = [444.9, 0.19, 210.45, 10_870.69, 2.2, 0.01, 34.1, 0.0, 0.02, 0.01];
        assert_eq!(times.0[0].seconds, seconds);
    }

    #[test]
    fn a_small_step_back_is_held_and_a_big_one_resets() {
        let mut times = Times::default();
        times.update("cpu0 0 0 0 1000 5\n").expect("understood");
        times.update("cpu0 0 0 0 900 4\n").expect("understood");
        assert_eq!((times.0[0].seconds[IDLE], times.0[0].seconds[4]), (10.0, 0.05));
        times.update("cpu0 0 0 0 700 4\n").expect("understood");
        assert_eq!((times.0[0].seconds[IDLE], times.0[0].seconds[4]), (7.0, 0.04));
    }

    #[test]
    fn cpus_come_and_go() {
        let mut times = Times::default();
        times.update("cpu0 0 0 0 100\ncpu1 0 0 0 200\ncpu2 0 0 0 300\n").expect("understood");
        times.update("cpu0 0 0 0 100\ncpu2 0 0 0 299\n").expect("understood");
        assert_eq!(idle(&times), [("0", 1.0), ("2", 3.0)]);
        times.update("cpu0 0 0 0 100\ncpu1 0 0 0 50\ncpu2 0 0 0 300\n").expect("understood");
        assert_eq!(idle(&times), [("0", 1.0), ("1", 0.5), ("2", 3.0)]);
    }

    #[test]
    fn odd_lines_are_refused() {
        for text in ["", "intr 1\n", "cpu0\n", "cpu0 1 2 3\n", "cpu0 1 2 3 x\n", "cpux 1 2 3 4\n"] {
            assert!(Times::default().update(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn lists_of_cpus_are_ranges_and_numbers() {
        assert_eq!(parse_list("1,3-5"), Some(vec![1, 3, 4, 5]));
        assert_eq!(parse_list(""), Some(vec![]));
        assert_eq!(parse_list("1-2-3"), None);
        assert_eq!(parse_list("a"), None);
    }
}
