//! What the NFS server of the kernel was asked.

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Host, HostFile, Options, Samples,
    words::{counted, exactly, read},
};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "nfsd", default_on: true, flags: &[], build };

static CACHE_HITS: Desc = Desc::counter(
    "node_nfsd_reply_cache_hits_total",
    "Total number of NFSd Reply Cache hits (client lost server response).",
    &[],
);
static CACHE_MISSES: Desc = Desc::counter(
    "node_nfsd_reply_cache_misses_total",
    "Total number of NFSd Reply Cache an operation that requires caching (idempotent).",
    &[],
);
static CACHE_UNUSED: Desc = Desc::counter(
    "node_nfsd_reply_cache_nocache_total",
    "Total number of NFSd Reply Cache non-idempotent operations (rename/delete/…).",
    &[],
);
static STALE: Desc =
    Desc::counter("node_nfsd_file_handles_stale_total", "Total number of NFSd stale file handles", &[]);
static BYTES_READ: Desc = Desc::counter("node_nfsd_disk_bytes_read_total", "Total NFSd bytes read.", &[]);
static BYTES_WRITTEN: Desc =
    Desc::counter("node_nfsd_disk_bytes_written_total", "Total NFSd bytes written.", &[]);
static THREADS: Desc =
    Desc::gauge("node_nfsd_server_threads", "Total number of NFSd kernel threads that are running.", &[]);
static READ_AHEAD_SIZE: Desc = Desc::gauge(
    "node_nfsd_read_ahead_cache_size_blocks",
    "How large the read ahead cache is in blocks.",
    &[],
);
static READ_AHEAD_NOT_FOUND: Desc = Desc::counter(
    "node_nfsd_read_ahead_cache_not_found_total",
    "Total number of NFSd read ahead cache not found.",
    &[],
);
static PACKETS: Desc = Desc::counter(
    "node_nfsd_packets_total",
    "Total NFSd network packets (sent+received) by protocol type.",
    &["proto"],
);
static CONNECTIONS: Desc =
    Desc::counter("node_nfsd_connections_total", "Total number of NFSd TCP connections.", &[]);
static RPC_ERRORS: Desc =
    Desc::counter("node_nfsd_rpc_errors_total", "Total number of NFSd RPC errors by error type.", &["error"]);
static RPCS: Desc = Desc::counter("node_nfsd_server_rpcs_total", "Total number of NFSd RPCs.", &[]);
static REQUESTS: Desc = Desc::counter(
    "node_nfsd_requests_total",
    "Total number NFSd Requests by method and protocol.",
    &["method", "proto"],
);

/// The procedures of NFS 2, in the order of the line `proc2`; one without a name is not said.
const V2: [&str; 18] = [
    "", "GetAttr", "SetAttr", "Root", "Lookup", "ReadLink", "Read", "WrCache", "Write", "Create", "Remove",
    "Rename", "Link", "SymLink", "MkDir", "RmDir", "ReadDir", "FsStat",
];

/// The procedures of NFS 3, in the order of the line `proc3`.
const V3: [&str; 22] = [
    "",
    "GetAttr",
    "SetAttr",
    "Lookup",
    "Access",
    "ReadLink",
    "Read",
    "Write",
    "Create",
    "MkDir",
    "SymLink",
    "MkNod",
    "Remove",
    "RmDir",
    "Rename",
    "Link",
    "ReadDir",
    "ReadDirPlus",
    "FsStat",
    "FsInfo",
    "PathConf",
    "Commit",
];

/// The operations of NFS 4, in the order of the line `proc4ops`; newer kernels have more, which are not said.
const V4: [&str; 40] = [
    "",
    "",
    "",
    "Access",
    "Close",
    "Commit",
    "Create",
    "DelegPurge",
    "DelegReturn",
    "GetAttr",
    "GetFH",
    "Link",
    "Lock",
    "Lockt",
    "Locku",
    "Lookup",
    "LookupRoot",
    "Nverify",
    "Open",
    "OpenAttr",
    "OpenConfirm",
    "OpenDgrd",
    "PutFH",
    "",
    "",
    "Read",
    "ReadDir",
    "ReadLink",
    "Remove",
    "Rename",
    "Renew",
    "RestoreFH",
    "SaveFH",
    "SecInfo",
    "SetAttr",
    "SetClientID",
    "SetClientIDConfirm",
    "Verify",
    "Write",
    "RelLockOwner",
];

struct Nfsd {
    file: HostFile,
}

/// What the file says; what it leaves out is 0.
#[derive(Debug, PartialEq)]
struct Counts {
    /// Hits, misses, not cached.
    reply_cache: [u64; 3],
    /// Stale; the others are no longer counted by the kernel.
    file_handles: [u64; 5],
    /// Bytes read, bytes written.
    io: [u64; 2],
    threads: u64,
    /// Blocks, a histogram of ten, not found.
    read_ahead: [u64; 12],
    /// All packets, those by UDP, those by TCP, TCP connections.
    network: [u64; 4],
    /// Calls, bad ones, those of bad form, with bad authentication, from a bad client.
    rpc: [u64; 5],
    v2: [u64; V2.len()],
    v3: [u64; V3.len()],
    v4: [u64; V4.len()],
    write_delegation_getattr: u64,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            reply_cache: [0; 3],
            file_handles: [0; 5],
            io: [0; 2],
            threads: 0,
            read_ahead: [0; 12],
            network: [0; 4],
            rpc: [0; 5],
            v2: [0; V2.len()],
            v3: [0; V3.len()],
            v4: [0; V4.len()],
            write_delegation_getattr: 0,
        }
    }
}

fn build(host: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Nfsd { file: HostFile::new(host.proc("net/rpc/nfsd")) }))
}

impl Collector for Nfsd {
    /// The file is there only while the server's module is loaded.
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let counts = self.file.parse(parse).map_err(CollectError::missing_is_no_data)?;
        say_server(&counts, out);
        say_requests("2", &V2, &counts.v2, out);
        say_requests("3", &V3, &counts.v3, out);
        say_requests("4", &V4, &counts.v4, out);
        out.push(&REQUESTS, &["WdelegGetattr", "4"], counts.write_delegation_getattr as f64);
        Ok(())
    }
}

fn say_server(counts: &Counts, out: &mut Samples) {
    let [hits, misses, unused] = counts.reply_cache;
    let [stale, ..] = counts.file_handles;
    let [read, written] = counts.io;
    let [read_ahead_size, .., read_ahead_not_found] = counts.read_ahead;
    let [_, udp, tcp, connections] = counts.network;
    let [calls, _, form, authentication, client] = counts.rpc;
    out.push(&CACHE_HITS, &[], hits as f64);
    out.push(&CACHE_MISSES, &[], misses as f64);
    out.push(&CACHE_UNUSED, &[], unused as f64);
    out.push(&STALE, &[], stale as f64);
    out.push(&BYTES_READ, &[], read as f64);
    out.push(&BYTES_WRITTEN, &[], written as f64);
    out.push(&THREADS, &[], counts.threads as f64);
    out.push(&READ_AHEAD_SIZE, &[], read_ahead_size as f64);
    out.push(&READ_AHEAD_NOT_FOUND, &[], read_ahead_not_found as f64);
    out.push(&PACKETS, &["udp"], udp as f64);
    out.push(&PACKETS, &["tcp"], tcp as f64);
    out.push(&CONNECTIONS, &[], connections as f64);
    out.push(&RPC_ERRORS, &["fmt"], form as f64);
    out.push(&RPC_ERRORS, &["auth"], authentication as f64);
    out.push(&RPC_ERRORS, &["cInt"], client as f64);
    out.push(&RPCS, &[], calls as f64);
}

fn say_requests(proto: &str, methods: &[&str], counts: &[u64], out: &mut Samples) {
    for (method, count) in methods.iter().zip(counts).filter(|(method, _)| !method.is_empty()) {
        out.push(&REQUESTS, &[method, proto], *count as f64);
    }
}

/// `/proc/net/rpc/nfsd`: lines of a key and numbers, "rc 0 6 18622"; those of procedures begin with how many numbers
/// follow, "proc2 18 2 69 ...". Behind the second number of `th` older kernels print fractions of seconds.
fn parse(text: &str) -> Result<Counts, String> {
    let mut counts = Counts::default();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let key = words.next().ok_or("it has an empty line")?;
        let understood = match key {
            "rc" => exactly(words).map(|numbers| counts.reply_cache = numbers),
            "fh" => exactly(words).map(|numbers| counts.file_handles = numbers),
            "io" => exactly(words).map(|numbers| counts.io = numbers),
            "th" => exactly(words.take(2)).map(|[threads, _]: [u64; 2]| counts.threads = threads),
            "ra" => exactly(words).map(|numbers| counts.read_ahead = numbers),
            "net" => exactly(words).map(|numbers| counts.network = numbers),
            "rpc" => exactly(words).map(|numbers| counts.rpc = numbers),
            "proc2" => counted(words, V2.len()).map(|numbers| counts.v2 = numbers),
            "proc3" => counted(words, V3.len()).map(|numbers| counts.v3 = numbers),
            "proc4" => read(words).filter(|&(numbers, count)| count == 3 && numbers == [2]).map(drop),
            // Linux 2.5 knew one operation less.
            "proc4ops" => counted(words, V4.len() - 1).map(|numbers| counts.v4 = numbers),
            "wdeleg_getattr" => read(words).filter(|&(_, count)| count > 0).map(|([number], _)| {
                counts.write_delegation_getattr = number;
            }),
            _ => None,
        };
        understood
            .ok_or_else(|| format!("the line {key:?} is not one of those known, or has other numbers"))?;
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_lands_in_its_place() {
        let text = "rc 1 6 18622\nfh 4 0 0 0 0\nio 157286400 72864\nth 8 0 0.000 0.000\n\
                    ra 32 0 0 0 0 0 0 0 0 0 0 9\nnet 972 55 917 1\nrpc 18628 3 1 2 0\nproc4 2 2 10853\nwdeleg_getattr 16\n";
        let counts = parse(text).expect("it is well formed");
        let expected = Counts {
            reply_cache: [1, 6, 18_622],
            file_handles: [4, 0, 0, 0, 0],
            io: [157_286_400, 72_864],
            threads: 8,
            read_ahead: [32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9],
            network: [972, 55, 917, 1],
            rpc: [18_628, 3, 1, 2, 0],
            write_delegation_getattr: 16,
            ..Counts::default()
        };
        assert_eq!(counts, expected);
    }

    #[test]
    fn operations_of_version_4_may_be_fewer_or_more() {
        let counts = parse(&format!("proc4ops 39{}\n", " 5".repeat(39))).expect("it is well formed");
        assert_eq!((counts.v4[38], counts.v4[39]), (5, 0));
        let counts = parse(&format!("proc4ops 76{}\n", " 5".repeat(76))).expect("it is well formed");
        assert_eq!(counts.v4, [5; 40]);
    }

    #[test]
    fn cut_and_odd_lines_are_refused() {
        for text in [
            "rc 0 6\n",
            "th 8\n",
            "\n",
            "ra 32 0\n",
            "io 1 2 3\n",
            "proc2 18 2\n",
            "proc4 3 1 1 1\n",
            "proc4ops 38 1\n",
            "wdeleg_getattr\n",
            "wdeleg_getattr x\n",
            "unknown 1\n",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
