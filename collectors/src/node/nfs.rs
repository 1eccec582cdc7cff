//! What the NFS client asked of its servers.

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Host, HostFile, Options, Samples,
    words::{counted, exactly},
};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "nfs", default_on: true, flags: &[], build };

static PACKETS: Desc = Desc::counter(
    "node_nfs_packets_total",
    "Total NFSd network packets (sent+received) by protocol type.",
    &["protocol"],
);
static CONNECTIONS: Desc =
    Desc::counter("node_nfs_connections_total", "Total number of NFSd TCP connections.", &[]);
static RPCS: Desc = Desc::counter("node_nfs_rpcs_total", "Total number of RPCs performed.", &[]);
static RETRANSMISSIONS: Desc =
    Desc::counter("node_nfs_rpc_retransmissions_total", "Number of RPC transmissions performed.", &[]);
static REFRESHES: Desc = Desc::counter(
    "node_nfs_rpc_authentication_refreshes_total",
    "Number of RPC authentication refreshes performed.",
    &[],
);
static REQUESTS: Desc =
    Desc::counter("node_nfs_requests_total", "Number of NFS procedures invoked.", &["method", "proto"]);

/// The procedures of NFS 2, in the order of the line `proc2`.
const V2: [&str; 18] = [
    "Null", "GetAttr", "SetAttr", "Root", "Lookup", "ReadLink", "Read", "WrCache", "Write", "Create",
    "Remove", "Rename", "Link", "SymLink", "MkDir", "RmDir", "ReadDir", "FsStat",
];

/// The procedures of NFS 3, in the order of the line `proc3`.
const V3: [&str; 22] = [
    "Null",
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

/// The operations of a client of NFS 4, in the order of the line `proc4`; newer kernels have more, which are not said.
const V4: [&str; 59] = [
    "Null",
    "Read",
    "Write",
    "Commit",
    "Open",
    "OpenConfirm",
    "OpenNoattr",
    "OpenDowngrade",
    "Close",
    "Setattr",
    "FsInfo",
    "Renew",
    "SetClientID",
    "SetClientIDConfirm",
    "Lock",
    "Lockt",
    "Locku",
    "Access",
    "Getattr",
    "Lookup",
    "LookupRoot",
    "Remove",
    "Rename",
    "Link",
    "Symlink",
    "Create",
    "Pathconf",
    "StatFs",
    "ReadLink",
    "ReadDir",
    "ServerCaps",
    "DelegReturn",
    "GetACL",
    "SetACL",
    "FsLocations",
    "ReleaseLockowner",
    "Secinfo",
    "FsidPresent",
    "ExchangeID",
    "CreateSession",
    "DestroySession",
    "Sequence",
    "GetLeaseTime",
    "ReclaimComplete",
    "GetDeviceInfo",
    "LayoutGet",
    "LayoutCommit",
    "LayoutReturn",
    "SecinfoNoName",
    "TestStateID",
    "FreeStateID",
    "GetDeviceList",
    "BindConnToSession",
    "DestroyClientID",
    "Seek",
    "Allocate",
    "DeAllocate",
    "LayoutStats",
    "Clone",
];

struct Nfs {
    file: HostFile,
}

/// What the file says; what it leaves out is 0.
#[derive(Debug, PartialEq)]
struct Counts {
    /// All packets, those by UDP, those by TCP, TCP connections.
    network: [u64; 4],
    /// Calls, retransmissions, refreshed authentications.
    rpc: [u64; 3],
    v2: [u64; V2.len()],
    v3: [u64; V3.len()],
    v4: [u64; V4.len()],
}

fn build(host: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Nfs { file: HostFile::new(host.proc("net/rpc/nfs")) }))
}

impl Collector for Nfs {
    /// The file is there only while the client's module is loaded.
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let counts = self.file.parse(parse).map_err(CollectError::missing_is_no_data)?;
        let [_, udp, tcp, connections] = counts.network;
        out.push(&PACKETS, &["udp"], udp as f64);
        out.push(&PACKETS, &["tcp"], tcp as f64);
        out.push(&CONNECTIONS, &[], connections as f64);
        let [calls, retransmissions, refreshes] = counts.rpc;
        out.push(&RPCS, &[], calls as f64);
        out.push(&RETRANSMISSIONS, &[], retransmissions as f64);
        out.push(&REFRESHES, &[], refreshes as f64);
        say_requests("2", &V2, &counts.v2, out);
        say_requests("3", &V3, &counts.v3, out);
        say_requests("4", &V4, &counts.v4, out);
        Ok(())
    }
}

fn say_requests(proto: &str, methods: &[&str], counts: &[u64], out: &mut Samples) {
    for (method, count) in methods.iter().zip(counts) {
        out.push(&REQUESTS, &[method, proto], *count as f64);
    }
}

/// `/proc/net/rpc/nfs`: lines of a key and numbers, "rpc 1218785755 374636 1218815394"; those of procedures begin with
/// how many numbers follow, "proc2 18 16 57 ...".
fn parse(text: &str) -> Result<Counts, String> {
    let mut counts = Counts { network: [0; 4], rpc: [0; 3], v2: [0; 18], v3: [0; 22], v4: [0; 59] };
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let key = words.next().ok_or("it has an empty line")?;
        let understood = match key {
            "net" => exactly(words).map(|numbers| counts.network = numbers),
            "rpc" => exactly(words).map(|numbers| counts.rpc = numbers),
            "proc2" => counted(words, V2.len()).map(|numbers| counts.v2 = numbers),
            "proc3" => counted(words, V3.len()).map(|numbers| counts.v3 = numbers),
            // Older kernels know fewer operations.
            "proc4" => counted(words, 0).map(|numbers| counts.v4 = numbers),
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
        let counts = parse(
            "net 70 71 69 45\nrpc 12 3 15\nproc2 18 16 57 74 52 71 73 45 86 0 52 83 61 17 53 50 23 70 82\n",
        )
        .expect("it is well formed");
        assert_eq!((counts.network, counts.rpc), ([70, 71, 69, 45], [12, 3, 15]));
        assert_eq!((counts.v2[0], counts.v2[17]), (16, 82));
        assert_eq!(counts.v3, [0; 22]);
    }

    #[test]
    fn an_old_kernel_has_fewer_operations_of_version_4_and_a_new_one_more() {
        let counts = parse("proc4 3 7 8 9\n").expect("it is well formed");
        assert_eq!(counts.v4[..4], [7, 8, 9, 0]);
        let counts = parse(&format!("proc4 69{}\n", " 5".repeat(69))).expect("it is well formed");
        assert_eq!(counts.v4, [5; 59]);
    }

    #[test]
    fn cut_and_odd_lines_are_refused() {
        for text in [
            "net 70 70 69\n",
            "net\n",
            "\n",
            "rpc 1 2 x\n",
            "proc2 18 16\n",
            "proc3 2 1 1\n",
            "proc4 \n",
            "th 8\n",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
