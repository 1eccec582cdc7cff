//! The agent's own process as `process_*`: what it costs the node.

use nodewarden_collectors::{CollectError, Desc, HostFile, Samples, host};
use rustix::process::{Resource, getrlimit};

static CPU: Desc =
    Desc::counter("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", &[]);
static MAX_FDS: Desc = Desc::gauge("process_max_fds", "Maximum number of open file descriptors.", &[]);
static RECEIVED: Desc = Desc::counter(
    "process_network_receive_bytes_total",
    "Number of bytes received by the process over the network.",
    &[],
);
static SENT: Desc = Desc::counter(
    "process_network_transmit_bytes_total",
    "Number of bytes sent by the process over the network.",
    &[],
);
static OPEN_FDS: Desc = Desc::gauge("process_open_fds", "Number of open file descriptors.", &[]);
static RESIDENT: Desc = Desc::gauge("process_resident_memory_bytes", "Resident memory size in bytes.", &[]);
static START: Desc =
    Desc::gauge("process_start_time_seconds", "Start time of the process since unix epoch in seconds.", &[]);
static VIRTUAL: Desc = Desc::gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", &[]);
static VIRTUAL_MAX: Desc = Desc::gauge(
    "process_virtual_memory_max_bytes",
    "Maximum amount of virtual memory available in bytes.",
    &[],
);

/// Reads about this process. It always looks at `/proc`, never at the host's tree: this is about us.
#[derive(Debug)]
pub struct Process {
    stat: HostFile,
    netstat: HostFile,
}

/// What a process uses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// User and system CPU time in seconds.
    pub cpu_seconds: f64,
    /// Memory in RAM.
    pub resident_bytes: f64,
    /// Address space.
    pub virtual_bytes: f64,
    /// When it was started, in seconds after boot.
    pub started: f64,
}

impl Default for Process {
    fn default() -> Self {
        Self { stat: HostFile::new("/proc/self/stat"), netstat: HostFile::new("/proc/self/net/netstat") }
    }
}

impl Process {
    /// What this process uses now.
    pub fn usage(&mut self) -> Result<Usage, CollectError> {
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let page = rustix::param::page_size() as f64;
        match parse_stat(self.stat.read()?, ticks, page) {
            Some(usage) => Ok(usage),
            None => Err(CollectError::parse(self.stat.path(), "expected 24 fields")),
        }
    }

    /// Says the `process_*` families; `boot_time` is the unix time of the boot in seconds.
    pub fn say(&mut self, boot_time: f64, out: &mut Samples) -> Result<(), CollectError> {
        let usage = self.usage()?;
        out.push(&CPU, &[], usage.cpu_seconds);
        out.push(&RESIDENT, &[], usage.resident_bytes);
        out.push(&VIRTUAL, &[], usage.virtual_bytes);
        out.push(&START, &[], boot_time + usage.started);
        out.push(&MAX_FDS, &[], limit(Resource::Nofile));
        out.push(&VIRTUAL_MAX, &[], limit(Resource::As));
        out.push(&OPEN_FDS, &[], host::list_dir("/proc/self/fd".as_ref())?.len() as f64);
        let (received, sent) = parse_octets(self.netstat.read()?);
        out.push(&RECEIVED, &[], received);
        out.push(&SENT, &[], sent);
        Ok(())
    }
}

/// `/proc/self/net/netstat`, of a line with names and one with values: "IpExt: InNoRoutes ... InOctets OutOctets ..." and
/// "IpExt: 0 ... 1508 970". They are of the whole network namespace, not of the process; client_golang takes the same. What
/// the kernel does not say is 0.
fn parse_octets(text: &str) -> (f64, f64) {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("IpExt:"));
    let names = lines.next().unwrap_or_default().split_ascii_whitespace();
    let mut pairs = names.zip(lines.next().unwrap_or_default().split_ascii_whitespace());
    let mut of =
        |wanted: &str| pairs.find(|(name, _)| *name == wanted).and_then(|(_, value)| value.parse().ok());
    // In this order in the kernel's line.
    (of("InOctets").unwrap_or(0.0), of("OutOctets").unwrap_or(0.0))
}

/// Unix time of the boot in seconds, from the `btime` line of `/proc/stat`.
pub fn boot_time() -> Result<f64, CollectError> {
    let path = "/proc/stat".as_ref();
    parse_boot_time(&host::read_text(path)?).ok_or_else(|| CollectError::parse(path, "expected a btime line"))
}

/// A soft limit; no limit is said as the largest number, as client_golang does.
fn limit(resource: Resource) -> f64 {
    getrlimit(resource).current.unwrap_or(u64::MAX) as f64
}

/// `/proc/self/stat`: "17 (name) S ..."; the name may hold spaces and brackets. Fields 14, 15 and 22 are ticks, 24 is pages.
fn parse_stat(text: &str, ticks: f64, page: f64) -> Option<Usage> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // The first one after the name is field 3.
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    Some(Usage {
        cpu_seconds: (field(14)? + field(15)?) / ticks,
        started: field(22)? / ticks,
        virtual_bytes: field(23)?,
        resident_bytes: field(24)? * page,
    })
}

/// The `btime` line of `/proc/stat`: "btime 1418183276".
pub(crate) fn parse_boot_time(text: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "26231 (v i) m) R 5392 7446 5392 34835 7446 4218880 32533 309516 26 82 1677 44 158 99 20 0 1 0 \
                        82375 56274944 1981 18446744073709551615";

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let usage = parse_stat(STAT, 100.0, 4096.0).expect("24 fields");
        assert_eq!(
            usage,
            Usage {
                cpu_seconds: 17.21,
                started: 823.75,
                virtual_bytes: 56_274_944.0,
                resident_bytes: 8_114_176.0
            }
        );
    }

    #[test]
    fn a_cut_line_is_refused() {
        assert_eq!(parse_stat("1 (a) R 2 3", 100.0, 4096.0), None);
        assert_eq!(parse_stat("", 100.0, 4096.0), None);
    }

    #[test]
    fn octets_are_found_by_their_names() {
        let text = "TcpExt: SyncookiesSent\nTcpExt: 5\nIpExt: InNoRoutes InOctets OutOctets InMcastOctets\nIpExt: 1 1508 970 3\n";
        assert_eq!(parse_octets(text), (1508.0, 970.0));
        assert_eq!(parse_octets("IpExt: InOctets\nIpExt: x"), (0.0, 0.0));
        assert_eq!(parse_octets("IpExt: InOctets OutOctets\nIpExt: 1"), (1.0, 0.0));
        assert_eq!(parse_octets(""), (0.0, 0.0));
    }

    #[test]
    fn the_boot_time_is_its_own_line() {
        assert_eq!(parse_boot_time("cpu 1 2\nbtime 1418183276\nprocesses 5\n"), Some(1_418_183_276.0));
        assert_eq!(parse_boot_time("cpu 1 2\n"), None);
    }

    #[test]
    fn this_process_is_described() {
        let mut samples = Samples::new();
        Process::default().say(boot_time().expect("a boot time"), &mut samples).expect("read");
        let value = |wanted: &str| samples.iter().find(|(name, ..)| *name == wanted).map(|(.., value)| value);
        assert!(value("process_resident_memory_bytes").is_some_and(|bytes| bytes > 100_000.0));
        assert!(value("process_open_fds").is_some_and(|count| count >= 3.0));
        assert!(value("process_start_time_seconds").is_some_and(|time| time > 1.6e9));
    }
}
