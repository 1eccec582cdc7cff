//! The files of a control group of version 1, where each controller has a hierarchy of its own.

use std::path::Path;

use super::{Cpu, DEVICES, Io, Memory, Reader, Usage, limit, named_numbers, number, processes, whole_lines};
use crate::sysfs::KeptDevice;

/// The controllers that are read, by the names of their directories or the links to them.
pub const CONTROLLERS: [&str; 5] = ["memory", "cpuacct", "cpu", "pids", "blkio"];

const CPU: &[&str] = &["cpu.stat", "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.shares", "cgroup.procs"];
const CPU_STAT: usize = 0;
const CPU_QUOTA: usize = 1;
const CPU_PERIOD: usize = 2;
const CPU_SHARES: usize = 3;
const PROCS: usize = 4;

const CPUACCT: &[&str] = &["cpuacct.usage", "cpuacct.stat"];
const CPU_USAGE: usize = 0;
const CPUACCT_STAT: usize = 1;

const MEMORY: &[&str] = &[
    "memory.usage_in_bytes",
    "memory.max_usage_in_bytes",
    "memory.failcnt",
    "memory.stat",
    "memory.kmem.usage_in_bytes",
    "memory.oom_control",
    "memory.limit_in_bytes",
    "memory.memsw.limit_in_bytes",
    "memory.soft_limit_in_bytes",
];
const MEMORY_USAGE: usize = 0;
const MEMORY_MAX_USAGE: usize = 1;
const FAILCNT: usize = 2;
const MEMORY_STAT: usize = 3;
const KERNEL_USAGE: usize = 4;
const OOM_CONTROL: usize = 5;
const MEMORY_LIMIT: usize = 6;
const SWAP_LIMIT: usize = 7;
const SOFT_LIMIT: usize = 8;

/// Old kernels count for a control group alone, without those below it.
const BLKIO: &[&str] = &[
    "blkio.throttle.io_service_bytes_recursive",
    "blkio.throttle.io_service_bytes",
    "blkio.throttle.io_serviced_recursive",
    "blkio.throttle.io_serviced",
];
const IO_BYTES: [usize; 2] = [0, 1];
const IO_COUNTS: [usize; 2] = [2, 3];

const PIDS: &[&str] = &["pids.current", "pids.max"];
const PIDS_CURRENT: usize = 0;
const PIDS_MAX: usize = 1;

/// See the kernel's `admin-guide/cgroup-v1`.
#[derive(Debug)]
pub struct Files {
    cpu: KeptDevice,
    cpuacct: KeptDevice,
    memory: KeptDevice,
    blkio: KeptDevice,
    pids: KeptDevice,
}

impl Files {
    pub fn new(top: &Path, path: &str) -> Self {
        let group = |controller: &str, names| {
            KeptDevice::new(top.join(controller).join(path.trim_start_matches('/')), names)
        };
        Self {
            cpu: group("cpu", CPU),
            cpuacct: group("cpuacct", CPUACCT),
            memory: group("memory", MEMORY),
            blkio: group("blkio", BLKIO),
            pids: group("pids", PIDS),
        }
    }

    pub fn path(&self) -> &Path {
        self.memory.path()
    }

    pub fn read(&mut self, reader: &mut Reader, usage: &mut Usage) {
        self.read_cpu(reader, &mut usage.cpu);
        self.read_memory(reader, &mut usage.memory);
        self.read_io(reader, &mut usage.io);
        usage.threads = reader.parse(&mut self.pids, PIDS, PIDS_CURRENT, number);
        usage.threads_max = reader.setting(&mut self.pids, PIDS, PIDS_MAX, limit);
        self.read_processes(reader, usage);
        for group in [&mut self.cpuacct, &mut self.memory, &mut self.blkio, &mut self.pids] {
            group.rest();
        }
    }

    pub fn read_processes(&mut self, reader: &mut Reader, usage: &mut Usage) {
        if let Some((count, first)) = reader.parse(&mut self.cpu, CPU, PROCS, processes) {
            (usage.processes, usage.first_pid) = (Some(count), first);
        }
        self.cpu.rest();
    }

    fn read_cpu(&mut self, reader: &mut Reader, cpu: &mut Cpu) {
        cpu.usage = reader.parse(&mut self.cpuacct, CPUACCT, CPU_USAGE, number);
        reader.parse(&mut self.cpuacct, CPUACCT, CPUACCT_STAT, |text| {
            named_numbers(text, |name, ticks| match name {
                "user" => cpu.user = nanoseconds(ticks),
                "system" => cpu.system = nanoseconds(ticks),
                _ => {}
            })
        });
        reader.parse(&mut self.cpu, CPU, CPU_STAT, |text| {
            named_numbers(text, |name, number| match name {
                "nr_periods" => cpu.periods = Some(number),
                "nr_throttled" => cpu.throttled_periods = Some(number),
                "throttled_time" => cpu.throttled = Some(number),
                "nr_bursts" => cpu.burst_periods = Some(number),
                "burst_time" => cpu.burst = Some(number),
                _ => {}
            })
        });
        cpu.quota = reader.setting(&mut self.cpu, CPU, CPU_QUOTA, parse_quota).flatten();
        cpu.period = reader.setting(&mut self.cpu, CPU, CPU_PERIOD, number);
        cpu.shares = reader.setting(&mut self.cpu, CPU, CPU_SHARES, number);
    }

    fn read_memory(&mut self, reader: &mut Reader, memory: &mut Memory) {
        memory.usage = reader.parse(&mut self.memory, MEMORY, MEMORY_USAGE, number);
        memory.max_usage = reader.parse(&mut self.memory, MEMORY, MEMORY_MAX_USAGE, number);
        memory.limit_hits = reader.parse(&mut self.memory, MEMORY, FAILCNT, number);
        memory.kernel = reader.parse(&mut self.memory, MEMORY, KERNEL_USAGE, number);
        reader.parse(&mut self.memory, MEMORY, MEMORY_STAT, |text| {
            named_numbers(text, |name, number| match name {
                "total_cache" => memory.cache = Some(number),
                "total_rss" => memory.rss = Some(number),
                "total_swap" => memory.swap = Some(number),
                "total_mapped_file" => memory.mapped_file = Some(number),
                "total_active_file" => memory.active_file = Some(number),
                "total_inactive_file" => memory.inactive_file = Some(number),
                "pgfault" => memory.page_faults[0] = Some(number),
                "total_pgfault" => memory.page_faults[1] = Some(number),
                "pgmajfault" => memory.major_page_faults[0] = Some(number),
                "total_pgmajfault" => memory.major_page_faults[1] = Some(number),
                _ => {}
            })
        });
        reader.parse(&mut self.memory, MEMORY, OOM_CONTROL, |text| {
            named_numbers(text, |name, number| {
                if name == "oom_kill" {
                    memory.oom_kills = Some(number);
                }
            })
        });
        memory.limit = reader.setting(&mut self.memory, MEMORY, MEMORY_LIMIT, limit);
        memory.swap_limit = reader.setting(&mut self.memory, MEMORY, SWAP_LIMIT, limit);
        memory.reservation = reader.setting(&mut self.memory, MEMORY, SOFT_LIMIT, limit);
    }

    fn read_io(&mut self, reader: &mut Reader, all: &mut Vec<Io>) {
        let mut read = |places: [usize; 2], set: fn(&mut Io) -> [&mut u64; 2]| {
            for at in places {
                if reader.parse(&mut self.blkio, BLKIO, at, |text| read_io(text, all, set)).is_some() {
                    return;
                }
            }
        };
        read(IO_BYTES, |io| [&mut io.read_bytes, &mut io.written_bytes]);
        read(IO_COUNTS, |io| [&mut io.reads, &mut io.writes]);
    }
}

/// Ticks are hundredths of a second for all programs, whatever the kernel counts in.
fn nanoseconds(ticks: u64) -> Option<u64> {
    ticks.checked_mul(10_000_000)
}

/// Microseconds; "-1" for no limit.
fn parse_quota(text: &str) -> Option<Option<u64>> {
    if text == "-1" { Some(None) } else { text.parse().ok().map(Some) }
}

/// "8:0 Read 1282048", then "Write", "Sync" and others for each device, "Total 3477504" at the end. `set` says where the first two go.
fn read_io(text: &str, all: &mut Vec<Io>, set: fn(&mut Io) -> [&mut u64; 2]) -> Option<()> {
    for line in whole_lines(text)? {
        let mut words = line.split(' ');
        let (device, what, number) = (words.next()?, words.next()?, words.next());
        // The sum of all.
        let Some(number) = number.filter(|_| device != "Total") else { continue };
        let place = match what {
            "Read" => 0,
            "Write" => 1,
            _ => continue,
        };
        let (major, minor) = device.split_once(':')?;
        let device = (major.parse().ok()?, minor.parse().ok()?);
        let at = match all.iter().position(|io| io.device == device) {
            Some(at) => at,
            None if all.len() >= DEVICES => continue,
            None => {
                all.push(Io { device, ..Io::default() });
                all.len() - 1
            }
        };
        let Some(io) = all.get_mut(at) else { continue };
        *set(io)[place] = number.parse().ok()?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_are_put_together_by_device() {
        let bytes = "8:0 Read 1282048\n8:0 Write 2195456\n8:0 Sync 2195456\n8:0 Total 3477504\n253:1 Read 7\nTotal 3477511\n";
        let counts = "8:0 Read 124\n8:0 Write 104\nTotal 228\n";
        let mut all = Vec::new();
        assert!(read_io(bytes, &mut all, |io| [&mut io.read_bytes, &mut io.written_bytes]).is_some());
        assert!(read_io(counts, &mut all, |io| [&mut io.reads, &mut io.writes]).is_some());
        let disk =
            Io { device: (8, 0), read_bytes: 1_282_048, written_bytes: 2_195_456, reads: 124, writes: 104 };
        assert_eq!(all, [disk, Io { device: (253, 1), read_bytes: 7, ..Io::default() }]);
        for text in ["8:0 Read x\n", "8:0 Read 1", "8 Read 1\n", "8:0\n", "\n"] {
            assert!(
                read_io(text, &mut Vec::new(), |io| [&mut io.reads, &mut io.writes]).is_none(),
                "{text:?}"
            );
        }
    }

    #[test]
    fn no_quota_is_written_as_minus_one() {
        let quotas = ["-1", "50000", "-2"].map(parse_quota);
        assert_eq!(quotas, [Some(None), Some(Some(50_000)), None]);
    }
}
