//! What the processors and the kernel count of events: cycles, cache misses, page faults, tracepoints.

use std::io;

use perf_event::{
    Builder, Counter,
    events::{Cache, CacheId, CacheOp, CacheResult, Hardware, Software, Tracepoint},
};

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Flag, Host, Options, OwnedDesc, Samples, host,
    samples::Kind,
};

const CPUS: &str = "perf.cpus";
const TRACEPOINT: &str = "perf.tracepoint";

/// This collector in the list.
pub const ENTRY: Entry = Entry {
    name: "perf",
    default_on: false,
    flags: &[
        Flag::text(CPUS, "", "List of CPUs from which perf metrics should be collected"),
        Flag::list(TRACEPOINT, "perf tracepoint that should be collected"),
        Flag::bool("perf.disable-hardware-profilers", false, "disable perf hardware profilers"),
        Flag::list("perf.hardware-profilers", "perf hardware profilers that should be collected"),
        Flag::bool("perf.disable-software-profilers", false, "disable perf software profilers"),
        Flag::list("perf.software-profilers", "perf software profilers that should be collected"),
        Flag::bool("perf.disable-cache-profilers", false, "disable perf cache profilers"),
        Flag::list("perf.cache-profilers", "perf cache profilers that should be collected"),
    ],
    build,
};

const CPU: &[&str] = &["cpu"];

/// An event by the name that the flags know it by, and its family.
struct Profiler {
    name: &'static str,
    event: What,
    desc: Desc,
}

/// An event as the kernel knows it.
#[derive(Clone, Copy)]
enum What {
    Hardware(Hardware),
    Software(Software),
    Cache(CacheId, CacheOp, CacheResult),
}

static HARDWARE: [Profiler; 9] = [
    Profiler {
        name: "CpuCycles",
        event: What::Hardware(Hardware::CPU_CYCLES),
        desc: Desc::counter("node_perf_cpucycles_total", "Number of CPU cycles (frequency scaled)", CPU),
    },
    Profiler {
        name: "CpuInstr",
        event: What::Hardware(Hardware::INSTRUCTIONS),
        desc: Desc::counter("node_perf_instructions_total", "Number of CPU instructions", CPU),
    },
    Profiler {
        name: "CacheRef",
        event: What::Hardware(Hardware::CACHE_REFERENCES),
        desc: Desc::counter(
            "node_perf_cache_refs_total",
            "Number of cache references (non frequency scaled)",
            CPU,
        ),
    },
    Profiler {
        name: "CacheMisses",
        event: What::Hardware(Hardware::CACHE_MISSES),
        desc: Desc::counter("node_perf_cache_misses_total", "Number of cache misses", CPU),
    },
    Profiler {
        name: "BranchInstr",
        event: What::Hardware(Hardware::BRANCH_INSTRUCTIONS),
        desc: Desc::counter("node_perf_branch_instructions_total", "Number of CPU branch instructions", CPU),
    },
    Profiler {
        name: "BranchMisses",
        event: What::Hardware(Hardware::BRANCH_MISSES),
        desc: Desc::counter("node_perf_branch_misses_total", "Number of CPU branch misses", CPU),
    },
    Profiler {
        name: "StalledCyclesBackend",
        event: What::Hardware(Hardware::STALLED_CYCLES_BACKEND),
        desc: Desc::counter(
            "node_perf_stalled_cycles_backend_total",
            "Number of stalled backend CPU cycles",
            CPU,
        ),
    },
    Profiler {
        name: "StalledCyclesFrontend",
        event: What::Hardware(Hardware::STALLED_CYCLES_FRONTEND),
        desc: Desc::counter(
            "node_perf_stalled_cycles_frontend_total",
            "Number of stalled frontend CPU cycles",
            CPU,
        ),
    },
    Profiler {
        name: "RefCpuCycles",
        event: What::Hardware(Hardware::REF_CPU_CYCLES),
        desc: Desc::counter("node_perf_ref_cpucycles_total", "Number of CPU cycles", CPU),
    },
];

static SOFTWARE: [Profiler; 5] = [
    Profiler {
        name: "PageFault",
        event: What::Software(Software::PAGE_FAULTS),
        desc: Desc::counter("node_perf_page_faults_total", "Number of page faults", CPU),
    },
    Profiler {
        name: "ContextSwitch",
        event: What::Software(Software::CONTEXT_SWITCHES),
        desc: Desc::counter("node_perf_context_switches_total", "Number of context switches", CPU),
    },
    Profiler {
        name: "CpuMigration",
        event: What::Software(Software::CPU_MIGRATIONS),
        desc: Desc::counter("node_perf_cpu_migrations_total", "Number of CPU process migrations", CPU),
    },
    Profiler {
        name: "MinorFault",
        event: What::Software(Software::PAGE_FAULTS_MIN),
        desc: Desc::counter("node_perf_minor_faults_total", "Number of minor page faults", CPU),
    },
    Profiler {
        name: "MajorFault",
        event: What::Software(Software::PAGE_FAULTS_MAJ),
        desc: Desc::counter("node_perf_major_faults_total", "Number of major page faults", CPU),
    },
];

static CACHE: [Profiler; 16] = [
    Profiler {
        name: "L1DataReadHit",
        event: What::Cache(CacheId::L1D, CacheOp::READ, CacheResult::ACCESS),
        desc: Desc::counter("node_perf_cache_l1d_read_hits_total", "Number L1 data cache read hits", CPU),
    },
    Profiler {
        name: "L1DataReadMiss",
        event: What::Cache(CacheId::L1D, CacheOp::READ, CacheResult::MISS),
        desc: Desc::counter("node_perf_cache_l1d_read_misses_total", "Number L1 data cache read misses", CPU),
    },
    Profiler {
        name: "L1DataWriteHit",
        event: What::Cache(CacheId::L1D, CacheOp::WRITE, CacheResult::ACCESS),
        desc: Desc::counter("node_perf_cache_l1d_write_hits_total", "Number L1 data cache write hits", CPU),
    },
    Profiler {
        name: "L1InstrReadMiss",
        event: What::Cache(CacheId::L1I, CacheOp::READ, CacheResult::MISS),
        desc: Desc::counter(
            "node_perf_cache_l1_instr_read_misses_total",
            "Number instruction L1 instruction read misses",
            CPU,
        ),
    },
    Profiler {
        name: "InstrTLBReadHit",
        event: What::Cache(CacheId::ITLB, CacheOp::READ, CacheResult::ACCESS),
        desc: Desc::counter(
            "node_perf_cache_tlb_instr_read_hits_total",
            "Number instruction TLB read hits",
            CPU,
        ),
    },
    Profiler {
        name: "InstrTLBReadMiss",
        event: What::Cache(CacheId::ITLB, CacheOp::READ, CacheResult::MISS),
        desc: Desc::counter(
            "node_perf_cache_tlb_instr_read_misses_total",
            "Number instruction TLB read misses",
            CPU,
        ),
    },
    Profiler {
        name: "DataTLBReadHit",
        event: What::Cache(CacheId::DTLB, CacheOp::READ, CacheResult::ACCESS),
        desc: Desc::counter("node_perf_cache_tlb_data_read_hits_total", "Number of data TLB read hits", CPU),
    },
    Profiler {
        name: "DataTLBReadMiss",
        event: What::Cache(CacheId::DTLB, CacheOp::READ, CacheResult::MISS),
        desc: Desc::counter(
            "node_perf_cache_tlb_data_read_misses_total",
            "Number of data TLB read misses",
            CPU,
        ),
    },
    Profiler {
        name: "DataTLBWriteHit",
        event: What::Cache(CacheId::DTLB, CacheOp::WRITE, CacheResult::ACCESS),
        desc: Desc::counter(
            "node_perf_cache_tlb_data_write_hits_total",
            "Number of data TLB write hits",
            CPU,
        ),
    },
    Profiler {
        name: "DataTLBWriteMiss",
        event: What::Cache(CacheId::DTLB, CacheOp::WRITE, CacheResult::MISS),
        desc: Desc::counter(
            "node_perf_cache_tlb_data_write_misses_total",
            "Number of data TLB write misses",
            CPU,
        ),
    },
    Profiler {
        name: "LLReadHit",
        event: What::Cache(CacheId::LL, CacheOp::READ, CacheResult::ACCESS),
        desc: Desc::counter("node_perf_cache_ll_read_hits_total", "Number last level read hits", CPU),
    },
    Profiler {
        name: "LLReadMiss",
        event: What::Cache(CacheId::LL, CacheOp::READ, CacheResult::MISS),
        desc: Desc::counter("node_perf_cache_ll_read_misses_total", "Number last level read misses", CPU),
    },
    Profiler {
        name: "LLWriteHit",
        event: What::Cache(CacheId::LL, CacheOp::WRITE, CacheResult::ACCESS),
        desc: Desc::counter("node_perf_cache_ll_write_hits_total", "Number last level write hits", CPU),
    },
    Profiler {
        name: "LLWriteMiss",
        event: What::Cache(CacheId::LL, CacheOp::WRITE, CacheResult::MISS),
        desc: Desc::counter("node_perf_cache_ll_write_misses_total", "Number last level write misses", CPU),
    },
    Profiler {
        name: "BPUReadHit",
        event: What::Cache(CacheId::BPU, CacheOp::READ, CacheResult::ACCESS),
        desc: Desc::counter("node_perf_cache_bpu_read_hits_total", "Number BPU read hits", CPU),
    },
    Profiler {
        name: "BPUReadMiss",
        event: What::Cache(CacheId::BPU, CacheOp::READ, CacheResult::MISS),
        desc: Desc::counter("node_perf_cache_bpu_read_misses_total", "Number BPU read misses", CPU),
    },
];

/// More CPUs than Linux can have, so that a list of them ends.
const MOST_CPUS: usize = 1 << 16;

struct Perf {
    cpus: Vec<Cpu>,
    /// In the order of the counters of each CPU.
    tracepoints: Vec<OwnedDesc>,
}

/// The counters of a CPU, open as long as the collector is there.
struct Cpu {
    number: String,
    profilers: Vec<(&'static Desc, Counter)>,
    tracepoints: Vec<Counter>,
}

fn build(host: &Host, options: &Options) -> Result<Box<dyn Collector>, BuildError> {
    let cpus = match options.text(CPUS) {
        "" => (0..count_of_cpus()).collect(),
        list => parse_cpus(list).ok_or_else(|| BuildError::Value {
            flag: CPUS,
            what: format!("expected CPUs as 0,2-4,8-16:2, got {list:?}"),
        })?,
    };
    let mut wanted: Vec<&Profiler> = Vec::new();
    for (profilers, off, only) in [
        (&HARDWARE[..], "perf.disable-hardware-profilers", "perf.hardware-profilers"),
        (&SOFTWARE[..], "perf.disable-software-profilers", "perf.software-profilers"),
        (&CACHE[..], "perf.disable-cache-profilers", "perf.cache-profilers"),
    ] {
        if !options.is_on(off) {
            wanted.extend(choose(profilers, options.list(only), only));
        }
    }
    let (tracepoints, events) = find_tracepoints(host, options.list(TRACEPOINT))?;
    let open = |cpu| open_cpu(cpu, &wanted, &events);
    let cpus = cpus.into_iter().map(open).collect::<io::Result<_>>().map_err(|error| BuildError::Value {
        flag: TRACEPOINT,
        what: format!("could not count it: {error}"),
    })?;
    Ok(Box::new(Perf { cpus, tracepoints }))
}

/// As many as this process may run on, like node_exporter.
fn count_of_cpus() -> usize {
    rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count() as usize)
}

/// "0,2-4,8-16:2": single ones, ranges, ranges with a stride.
fn parse_cpus(list: &str) -> Option<Vec<usize>> {
    let number = |text: &str| text.parse().ok().filter(|number| *number < MOST_CPUS);
    let mut cpus = Vec::new();
    for part in list.split(',') {
        let Some((first, rest)) = part.split_once('-') else {
            cpus.push(number(part)?);
            continue;
        };
        let (last, stride) = match rest.split_once(':') {
            Some((last, stride)) => (last, number(stride).filter(|stride| *stride > 0)?),
            None => (rest, 1),
        };
        cpus.extend((number(first)?..=number(last)?).step_by(stride));
    }
    // One that is named twice would be said twice.
    cpus.sort_unstable();
    cpus.dedup();
    Some(cpus)
}

/// The profilers of these names; all of them if none is named or known.
fn choose(all: &'static [Profiler], names: &[String], flag: &str) -> Vec<&'static Profiler> {
    let mut chosen: Vec<&Profiler> = Vec::new();
    for name in names {
        match all.iter().find(|profiler| profiler.name == name) {
            Some(profiler) if chosen.iter().all(|other| other.name != name) => chosen.push(profiler),
            Some(_) => {}
            None => tracing::error!("--collector.{flag}: there is no profiler {name:?}"),
        }
    }
    if chosen.is_empty() { all.iter().collect() } else { chosen }
}

/// The families and the kernel's numbers of tracepoints that are named "subsystem:event".
fn find_tracepoints(host: &Host, names: &[String]) -> Result<(Vec<OwnedDesc>, Vec<u64>), BuildError> {
    let (mut descs, mut events) = (Vec::new(), Vec::new());
    for name in names {
        let odd = |what: String| BuildError::Value { flag: TRACEPOINT, what };
        let is_word = |word: &str| {
            !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        let (subsystem, event) = name
            .split_once(':')
            .filter(|(subsystem, event)| is_word(subsystem) && is_word(event))
            .ok_or_else(|| odd(format!("expected SUBSYSTEM:EVENT, got {name:?}")))?;
        let path = format!("events/{subsystem}/{event}/id");
        let number = tracefs(host)
            .and_then(|tracefs| host::read_text(&tracefs.join(path)).map_err(|error| error.to_string()))
            .and_then(|text| {
                text.trim().parse().map_err(|_| format!("{text:?} is no number of a tracepoint"))
            })
            .map_err(odd)?;
        let family = format!("node_perf_{subsystem}_{event}");
        descs.push(OwnedDesc::new(&family, &format!("Perf tracepoint {name}"), Kind::Counter, CPU));
        events.push(number);
    }
    Ok((descs, events))
}

/// Where the tracing file system is mounted.
fn tracefs(host: &Host) -> Result<std::path::PathBuf, String> {
    let mounts = host::read_text(&host.proc("mounts")).map_err(|error| error.to_string())?;
    let mut points = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (_, point, kind) = (words.next()?, words.next()?, words.next()?);
        (kind == "tracefs").then(|| point.into())
    });
    points.next().ok_or_else(|| "tracefs is not mounted".into())
}

/// Opens and starts the counters. A profiler that the processor or the kernel's settings do not allow is left out,
/// a tracepoint that can't be counted is an error.
fn open_cpu(cpu: usize, wanted: &[&'static Profiler], tracepoints: &[u64]) -> io::Result<Cpu> {
    let mut profilers = Vec::new();
    for profiler in wanted {
        let builder = match profiler.event {
            What::Hardware(event) => Builder::new(event),
            What::Software(event) => Builder::new(event),
            What::Cache(which, operation, result) => Builder::new(Cache { which, operation, result }),
        };
        match start(builder, cpu) {
            Ok(counter) => profilers.push((&profiler.desc, counter)),
            Err(error) => tracing::debug!(cpu, profiler = profiler.name, %error, "not counted"),
        }
    }
    let tracepoints = tracepoints.iter().map(|id| start(Builder::new(Tracepoint::with_id(*id)), cpu));
    Ok(Cpu { number: cpu.to_string(), profilers, tracepoints: tracepoints.collect::<io::Result<_>>()? })
}

/// Counts what every process and the kernel do on the CPU.
fn start(mut builder: Builder, cpu: usize) -> io::Result<Counter> {
    let mut counter = builder.any_pid().one_cpu(cpu).exclude_kernel(false).build()?;
    counter.enable()?;
    Ok(counter)
}

impl Collector for Perf {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let failed = |source| CollectError::System { what: "could not read a counter of perf", source };
        for cpu in &mut self.cpus {
            for (desc, counter) in &mut cpu.profilers {
                out.push(desc, &[&cpu.number], counter.read().map_err(failed)? as f64);
            }
        }
        for (at, desc) in self.tracepoints.iter().enumerate() {
            let family = out.owned_family(desc);
            for cpu in &mut self.cpus {
                let Some(counter) = cpu.tracepoints.get_mut(at) else { continue };
                out.push_to(family, &[&cpu.number], counter.read().map_err(failed)? as f64);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collector::Settings;

    fn names(profilers: &[&Profiler]) -> Vec<&'static str> {
        profilers.iter().map(|profiler| profiler.name).collect()
    }

    #[test]
    fn cpus_are_single_ones_and_ranges() {
        assert_eq!(parse_cpus("1"), Some(vec![1]));
        assert_eq!(parse_cpus("0,2-4,3"), Some(vec![0, 2, 3, 4]));
        assert_eq!(parse_cpus("1-10:5,0"), Some(vec![0, 1, 6]));
        assert_eq!(parse_cpus("4-2"), Some(vec![]));
        for list in ["", "a", "1,", "1-", "1-2-3", "1-4:0", "0-9999999", "-1"] {
            assert_eq!(parse_cpus(list), None, "{list:?}");
        }
    }

    #[test]
    fn profilers_are_chosen_by_name() {
        let choose = |named: &[&str]| {
            let named: Vec<String> = named.iter().map(ToString::to_string).collect();
            names(&choose(&SOFTWARE, &named, "perf.software-profilers"))
        };
        assert_eq!(choose(&["MajorFault", "PageFault", "MajorFault", "Typo"]), ["MajorFault", "PageFault"]);
        assert_eq!(choose(&[]).len(), 5);
        assert_eq!(choose(&["Typo"]).len(), 5);
    }

    #[test]
    fn tracepoints_need_a_name_that_is_known() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let top = directory.path();
        let mounts = format!("proc /proc proc rw 0 0\ntracefs {} tracefs rw 0 0\n", top.display());
        std::fs::write(top.join("mounts"), mounts).expect("written");
        std::fs::create_dir_all(top.join("events/sched/sched_switch")).expect("made");
        std::fs::write(top.join("events/sched/sched_switch/id"), "316\n").expect("written");
        let host = Host { procfs: top.into(), ..Host::default() };
        let find = |name: &str| find_tracepoints(&host, &[name.to_owned()]).map(|(_, events)| events);
        assert_eq!(find("sched:sched_switch").ok(), Some(vec![316]));
        for name in ["sched", "sched:none", "a:b:c", "../x:y", ":", "sched:"] {
            assert!(find(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn what_may_be_counted_is_said_and_what_may_not_is_no_error() {
        let settings = Settings::from([(CPUS.to_owned(), vec!["0".to_owned()])]);
        let mut collector =
            build(&Host::default(), &Options::new(&ENTRY, &settings)).expect("valid settings");
        let mut out = Samples::new();
        collector.collect(&Host::default(), &mut out).expect("read");
        assert!(out.len() <= HARDWARE.len() + SOFTWARE.len() + CACHE.len());
        assert!(out.iter().all(|(name, ..)| name.starts_with("node_perf_")));
    }
}
