//! The files of a control group of version 2.

use std::path::Path;

use super::{Cpu, DEVICES, Io, Reader, Stalls, Usage, limit, named_numbers, number, processes, whole_lines};
use crate::sysfs::KeptDevice;

const NAMES: &[&str] = &[
    "cpu.stat",
    "cpu.max",
    "cpu.weight",
    "cpu.pressure",
    "memory.current",
    "memory.peak",
    "memory.stat",
    "memory.swap.current",
    "memory.events",
    "memory.max",
    "memory.swap.max",
    "memory.min",
    "memory.pressure",
    "io.stat",
    "io.pressure",
    "pids.current",
    "pids.max",
    "cgroup.procs",
];
const CPU_STAT: usize = 0;
const CPU_MAX: usize = 1;
const CPU_WEIGHT: usize = 2;
const CPU_PRESSURE: usize = 3;
const MEMORY_CURRENT: usize = 4;
const MEMORY_PEAK: usize = 5;
const MEMORY_STAT: usize = 6;
const SWAP_CURRENT: usize = 7;
const MEMORY_EVENTS: usize = 8;
const MEMORY_MAX: usize = 9;
const SWAP_MAX: usize = 10;
const MEMORY_MIN: usize = 11;
const MEMORY_PRESSURE: usize = 12;
const IO_STAT: usize = 13;
const IO_PRESSURE: usize = 14;
const PIDS_CURRENT: usize = 15;
const PIDS_MAX: usize = 16;
const PROCS: usize = 17;

/// See the kernel's `admin-guide/cgroup-v2`.
#[derive(Debug)]
pub struct Files(KeptDevice);

impl Files {
    pub fn new(top: &Path, path: &str) -> Self {
        Self(KeptDevice::new(top.join(path.trim_start_matches('/')), NAMES))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn read(&mut self, reader: &mut Reader, usage: &mut Usage) {
        self.read_cpu(reader, &mut usage.cpu);
        self.read_memory(reader, usage);
        let Usage { io, pressure, .. } = usage;
        reader.parse(&mut self.0, NAMES, IO_STAT, |text| read_io(text, io));
        for (at, stalls) in [
            (CPU_PRESSURE, &mut pressure.cpu),
            (MEMORY_PRESSURE, &mut pressure.memory),
            (IO_PRESSURE, &mut pressure.io),
        ] {
            *stalls = reader.parse(&mut self.0, NAMES, at, parse_stalls).unwrap_or_default();
        }
        usage.threads = reader.parse(&mut self.0, NAMES, PIDS_CURRENT, number);
        usage.threads_max = reader.setting(&mut self.0, NAMES, PIDS_MAX, limit);
        self.read_processes(reader, usage);
    }

    pub fn read_processes(&mut self, reader: &mut Reader, usage: &mut Usage) {
        if let Some((count, first)) = reader.parse(&mut self.0, NAMES, PROCS, processes) {
            (usage.processes, usage.first_pid) = (Some(count), first);
        }
        self.0.rest();
    }

    fn read_cpu(&mut self, reader: &mut Reader, cpu: &mut Cpu) {
        reader.parse(&mut self.0, NAMES, CPU_STAT, |text| {
            named_numbers(text, |name, number| match name {
                "usage_usec" => cpu.usage = nanoseconds(number),
                "user_usec" => cpu.user = nanoseconds(number),
                "system_usec" => cpu.system = nanoseconds(number),
                "nr_periods" => cpu.periods = Some(number),
                "nr_throttled" => cpu.throttled_periods = Some(number),
                "throttled_usec" => cpu.throttled = nanoseconds(number),
                "nr_bursts" => cpu.burst_periods = Some(number),
                "burst_usec" => cpu.burst = nanoseconds(number),
                _ => {}
            })
        });
        if let Some((quota, period)) = reader.setting(&mut self.0, NAMES, CPU_MAX, parse_cpu_max) {
            (cpu.quota, cpu.period) = (quota, Some(period));
        }
        cpu.shares = reader.setting(&mut self.0, NAMES, CPU_WEIGHT, parse_weight);
    }

    fn read_memory(&mut self, reader: &mut Reader, usage: &mut Usage) {
        let memory = &mut usage.memory;
        memory.usage = reader.parse(&mut self.0, NAMES, MEMORY_CURRENT, number);
        memory.max_usage = reader.parse(&mut self.0, NAMES, MEMORY_PEAK, number);
        memory.swap = reader.parse(&mut self.0, NAMES, SWAP_CURRENT, number);
        reader.parse(&mut self.0, NAMES, MEMORY_STAT, |text| {
            named_numbers(text, |name, number| match name {
                "anon" => memory.rss = Some(number),
                "file" => memory.cache = Some(number),
                "file_mapped" => memory.mapped_file = Some(number),
                "kernel" => memory.kernel = Some(number),
                "active_file" => memory.active_file = Some(number),
                "inactive_file" => memory.inactive_file = Some(number),
                // This version counts for a whole tree only.
                "pgfault" => memory.page_faults = [Some(number); 2],
                "pgmajfault" => memory.major_page_faults = [Some(number); 2],
                _ => {}
            })
        });
        reader.parse(&mut self.0, NAMES, MEMORY_EVENTS, |text| {
            named_numbers(text, |name, number| match name {
                "max" => memory.limit_hits = Some(number),
                "oom_kill" => memory.oom_kills = Some(number),
                _ => {}
            })
        });
        memory.limit = reader.setting(&mut self.0, NAMES, MEMORY_MAX, limit);
        memory.swap_limit = reader.setting(&mut self.0, NAMES, SWAP_MAX, limit);
        memory.reservation = reader.setting(&mut self.0, NAMES, MEMORY_MIN, limit);
    }
}

fn nanoseconds(microseconds: u64) -> Option<u64> {
    microseconds.checked_mul(1000)
}

/// "max 100000" or "50000 100000": quota and period in microseconds.
fn parse_cpu_max(text: &str) -> Option<(Option<u64>, u64)> {
    let (quota, period) = text.split_once(' ')?;
    let quota = match quota {
        "max" => None,
        quota => Some(quota.parse().ok()?),
    };
    Some((quota, period.parse().ok()?))
}

/// The weight, 1 to 10000, as shares of version 1, 2 to 262144; cAdvisor's formula.
fn parse_weight(text: &str) -> Option<u64> {
    let weight: u64 = text.parse().ok()?;
    // A weight of 0 means that the group only runs when nobody else wants to.
    Some(2 + weight.saturating_sub(1).min(9999) * 262_142 / 9999)
}

/// "some avg10=0.10 avg60=2.00 avg300=3.85 total=15", then the same with "full".
fn parse_stalls(text: &str) -> Option<Stalls> {
    let mut stalls = Stalls::default();
    for line in whole_lines(text)? {
        let (word, rest) = line.split_once(' ')?;
        let total = rest.split(' ').find_map(|field| field.strip_prefix("total="))?.parse().ok()?;
        match word {
            "some" => stalls.some = Some(total),
            "full" => stalls.full = Some(total),
            _ => {}
        }
    }
    Some(stalls)
}

/// "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0"; kernels before 5.14 write devices without figures in front of the next one.
fn read_io(text: &str, all: &mut Vec<Io>) -> Option<()> {
    for line in whole_lines(text)? {
        let mut io = Io::default();
        let mut has_figures = false;
        for word in line.split_ascii_whitespace() {
            let Some((name, number)) = word.split_once('=') else {
                let (major, minor) = word.split_once(':')?;
                io.device = (major.parse().ok()?, minor.parse().ok()?);
                continue;
            };
            let place = match name {
                "rbytes" => &mut io.read_bytes,
                "wbytes" => &mut io.written_bytes,
                "rios" => &mut io.reads,
                "wios" => &mut io.writes,
                // Of a controller of its own (`cost.usage`), some with units.
                _ => continue,
            };
            *place = number.parse().ok()?;
            has_figures = true;
        }
        if has_figures && all.len() < DEVICES {
            all.push(io);
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quota_and_period_are_read() {
        assert_eq!(parse_cpu_max("max 100000"), Some((None, 100_000)));
        assert_eq!(parse_cpu_max("50000 100000"), Some((Some(50_000), 100_000)));
        assert_eq!(parse_cpu_max("50000"), None);
    }

    #[test]
    fn weights_are_shares() {
        let shares = [("1", 2), ("4", 80), ("39", 998), ("100", 2597), ("10000", 262_144), ("0", 2)];
        for (weight, shares) in shares {
            assert_eq!(parse_weight(weight), Some(shares), "{weight}");
        }
        assert_eq!(parse_weight(""), None);
    }

    #[test]
    fn devices_without_figures_are_passed_over() {
        let read = |text: &str| {
            let mut all = Vec::new();
            read_io(text, &mut all).map(|()| all)
        };
        let disk = |device, figures: [u64; 4]| {
            let [read_bytes, written_bytes, reads, writes] = figures;
            Io { device, read_bytes, written_bytes, reads, writes }
        };
        let text = "8:16 rbytes=1459200 wbytes=314773504 rios=192 wios=353 dbytes=0 dios=0\n\
                    7:1 7:0 8:0 rbytes=5 wbytes=6 rios=1 wios=2 dbytes=0 dios=0 cost.usage=7 cost.wait=x\n253:0 \n";
        let expected = vec![disk((8, 16), [1_459_200, 314_773_504, 192, 353]), disk((8, 0), [5, 6, 1, 2])];
        assert_eq!(read(text), Some(expected));
        assert_eq!(read(""), Some(vec![]));
        assert_eq!(read("8:16 rbytes=1"), None);
        assert_eq!(read("8:16 rbytes=x\n"), None);
        assert_eq!(read("sda rbytes=1\n"), None);
        let many: String = (0..1000).map(|minor| format!("8:{minor} rbytes=1\n")).collect();
        assert_eq!(read(&many).map(|all| all.len()), Some(DEVICES));
    }

    #[test]
    fn stalls_are_read() {
        let text = "some avg10=0.10 avg60=2.00 avg300=3.85 total=15\nfull avg10=0.20 avg60=3.00 avg300=4.95 total=7\n";
        assert_eq!(parse_stalls(text), Some(Stalls { some: Some(15), full: Some(7) }));
        assert_eq!(parse_stalls(""), Some(Stalls::default()));
        assert_eq!(parse_stalls("some avg10=0.10\n"), None);
    }
}
