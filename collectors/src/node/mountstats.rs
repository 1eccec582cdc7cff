//! How the NFS mounts of the host fare: bytes, events, operations and transports of each server.

use std::collections::HashSet;

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Host, HostFile, Options, Samples,
    words::{exactly, read},
};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "mountstats", default_on: false, flags: &[], build };

const LABELS: &[&str] = &["export", "mountaddr", "protocol"];
const OPERATION_LABELS: &[&str] = &["export", "mountaddr", "operation", "protocol"];
const TRANSPORT_LABELS: &[&str] = &["export", "mountaddr", "protocol", "transport"];

static INFO: Desc = Desc::gauge(
    "node_mountstats_nfs_mountpoint_info",
    "Info metric for an NFS mountpoint.",
    &["export", "mountaddr", "mountpoint", "protocol"],
);
static AGE: Desc =
    Desc::counter("node_mountstats_nfs_age_seconds_total", "The age of the NFS mount in seconds.", LABELS);

/// The numbers of the line `bytes:`.
static BYTES: [Desc; 8] = [
    Desc::counter(
        "node_mountstats_nfs_read_bytes_total",
        "Number of bytes read using the read() syscall.",
        LABELS,
    ),
    Desc::counter(
        "node_mountstats_nfs_write_bytes_total",
        "Number of bytes written using the write() syscall.",
        LABELS,
    ),
    Desc::counter(
        "node_mountstats_nfs_direct_read_bytes_total",
        "Number of bytes read using the read() syscall in O_DIRECT mode.",
        LABELS,
    ),
    Desc::counter(
        "node_mountstats_nfs_direct_write_bytes_total",
        "Number of bytes written using the write() syscall in O_DIRECT mode.",
        LABELS,
    ),
    Desc::counter(
        "node_mountstats_nfs_total_read_bytes_total",
        "Number of bytes read from the NFS server, in total.",
        LABELS,
    ),
    Desc::counter(
        "node_mountstats_nfs_total_write_bytes_total",
        "Number of bytes written to the NFS server, in total.",
        LABELS,
    ),
    Desc::counter(
        "node_mountstats_nfs_read_pages_total",
        "Number of pages read directly via mmap()'d files.",
        LABELS,
    ),
    Desc::counter(
        "node_mountstats_nfs_write_pages_total",
        "Number of pages written directly via mmap()'d files.",
        LABELS,
    ),
];

/// A number of a line, counted from 0, and its family.
struct Column(usize, Desc);

/// The numbers of the line `events:`; the one left out counted waits for congestion and is unused.
static EVENTS: [Column; 26] = [
    Column(
        0,
        Desc::counter(
            "node_mountstats_nfs_event_inode_revalidate_total",
            "Number of times cached inode attributes are re-validated from the server.",
            LABELS,
        ),
    ),
    Column(
        1,
        Desc::counter(
            "node_mountstats_nfs_event_dnode_revalidate_total",
            "Number of times cached dentry nodes are re-validated from the server.",
            LABELS,
        ),
    ),
    Column(
        2,
        Desc::counter(
            "node_mountstats_nfs_event_data_invalidate_total",
            "Number of times an inode cache is cleared.",
            LABELS,
        ),
    ),
    Column(
        3,
        Desc::counter(
            "node_mountstats_nfs_event_attribute_invalidate_total",
            "Number of times cached inode attributes are invalidated.",
            LABELS,
        ),
    ),
    Column(
        4,
        Desc::counter(
            "node_mountstats_nfs_event_vfs_open_total",
            "Number of times cached inode attributes are invalidated.",
            LABELS,
        ),
    ),
    Column(
        5,
        Desc::counter(
            "node_mountstats_nfs_event_vfs_lookup_total",
            "Number of times a directory lookup has occurred.",
            LABELS,
        ),
    ),
    Column(
        6,
        Desc::counter(
            "node_mountstats_nfs_event_vfs_access_total",
            "Number of times permissions have been checked.",
            LABELS,
        ),
    ),
    Column(
        7,
        Desc::counter(
            "node_mountstats_nfs_event_vfs_update_page_total",
            "Number of updates (and potential writes) to pages.",
            LABELS,
        ),
    ),
    Column(
        8,
        Desc::counter(
            "node_mountstats_nfs_event_vfs_read_page_total",
            "Number of pages read directly via mmap()'d files.",
            LABELS,
        ),
    ),
    Column(
        9,
        Desc::counter(
            "node_mountstats_nfs_event_vfs_read_pages_total",
            "Number of times a group of pages have been read.",
            LABELS,
        ),
    ),
    Column(
        10,
        Desc::counter(
            "node_mountstats_nfs_event_vfs_write_page_total",
            "Number of pages written directly via mmap()'d files.",
            LABELS,
        ),
    ),
    Column(
        11,
        Desc::counter(
            "node_mountstats_nfs_event_vfs_write_pages_total",
            "Number of times a group of pages have been written.",
            LABELS,
        ),
    ),
    Column(
        12,
        Desc::counter(
            "node_mountstats_nfs_event_vfs_getdents_total",
            "Number of times directory entries have been read with getdents().",
            LABELS,
        ),
    ),
    Column(
        13,
        Desc::counter(
            "node_mountstats_nfs_event_vfs_setattr_total",
            "Number of times directory entries have been read with getdents().",
            LABELS,
        ),
    ),
    Column(
        14,
        Desc::counter(
            "node_mountstats_nfs_event_vfs_flush_total",
            "Number of pending writes that have been forcefully flushed to the server.",
            LABELS,
        ),
    ),
    Column(
        15,
        Desc::counter(
            "node_mountstats_nfs_event_vfs_fsync_total",
            "Number of times fsync() has been called on directories and files.",
            LABELS,
        ),
    ),
    Column(
        16,
        Desc::counter(
            "node_mountstats_nfs_event_vfs_lock_total",
            "Number of times locking has been attempted on a file.",
            LABELS,
        ),
    ),
    Column(
        17,
        Desc::counter(
            "node_mountstats_nfs_event_vfs_file_release_total",
            "Number of times files have been closed and released.",
            LABELS,
        ),
    ),
    Column(
        19,
        Desc::counter(
            "node_mountstats_nfs_event_truncation_total",
            "Number of times files have been truncated.",
            LABELS,
        ),
    ),
    Column(
        20,
        Desc::counter(
            "node_mountstats_nfs_event_write_extension_total",
            "Number of times a file has been grown due to writes beyond its existing end.",
            LABELS,
        ),
    ),
    Column(
        21,
        Desc::counter(
            "node_mountstats_nfs_event_silly_rename_total",
            "Number of times a file was removed while still open by another process.",
            LABELS,
        ),
    ),
    Column(
        22,
        Desc::counter(
            "node_mountstats_nfs_event_short_read_total",
            "Number of times the NFS server gave less data than expected while reading.",
            LABELS,
        ),
    ),
    Column(
        23,
        Desc::counter(
            "node_mountstats_nfs_event_short_write_total",
            "Number of times the NFS server wrote less data than expected while writing.",
            LABELS,
        ),
    ),
    Column(
        24,
        Desc::counter(
            "node_mountstats_nfs_event_jukebox_delay_total",
            "Number of times the NFS server indicated EJUKEBOX; retrieving data from offline storage.",
            LABELS,
        ),
    ),
    Column(
        25,
        Desc::counter("node_mountstats_nfs_event_pnfs_read_total", "Number of NFS v4.1+ pNFS reads.", LABELS),
    ),
    Column(
        26,
        Desc::counter(
            "node_mountstats_nfs_event_pnfs_write_total",
            "Number of NFS v4.1+ pNFS writes.",
            LABELS,
        ),
    ),
];

/// The numbers of a line `xprt:`, as [`parse_transport`] orders them.
static TRANSPORTS: [Column; 10] = [
    Column(
        1,
        Desc::counter(
            "node_mountstats_nfs_transport_bind_total",
            "Number of times the client has had to establish a connection from scratch to the NFS server.",
            TRANSPORT_LABELS,
        ),
    ),
    Column(
        2,
        Desc::counter(
            "node_mountstats_nfs_transport_connect_total",
            "Number of times the client has made a TCP connection to the NFS server.",
            TRANSPORT_LABELS,
        ),
    ),
    Column(
        4,
        Desc::gauge(
            "node_mountstats_nfs_transport_idle_time_seconds",
            "Duration since the NFS mount last saw any RPC traffic, in seconds.",
            TRANSPORT_LABELS,
        ),
    ),
    Column(
        5,
        Desc::counter(
            "node_mountstats_nfs_transport_sends_total",
            "Number of RPC requests for this mount sent to the NFS server.",
            TRANSPORT_LABELS,
        ),
    ),
    Column(
        6,
        Desc::counter(
            "node_mountstats_nfs_transport_receives_total",
            "Number of RPC responses for this mount received from the NFS server.",
            TRANSPORT_LABELS,
        ),
    ),
    Column(
        7,
        Desc::counter(
            "node_mountstats_nfs_transport_bad_transaction_ids_total",
            "Number of times the NFS server sent a response with a transaction ID unknown to this client.",
            TRANSPORT_LABELS,
        ),
    ),
    Column(
        9,
        Desc::counter(
            "node_mountstats_nfs_transport_backlog_queue_total",
            "Total number of items added to the RPC backlog queue.",
            TRANSPORT_LABELS,
        ),
    ),
    Column(
        10,
        Desc::gauge(
            "node_mountstats_nfs_transport_maximum_rpc_slots",
            "Maximum number of simultaneously active RPC requests ever used.",
            TRANSPORT_LABELS,
        ),
    ),
    Column(
        11,
        Desc::counter(
            "node_mountstats_nfs_transport_sending_queue_total",
            "Total number of items added to the RPC transmission sending queue.",
            TRANSPORT_LABELS,
        ),
    ),
    Column(
        12,
        Desc::counter(
            "node_mountstats_nfs_transport_pending_queue_total",
            "Total number of items added to the RPC transmission pending queue.",
            TRANSPORT_LABELS,
        ),
    ),
];

/// The numbers of an operation. The last three are times in milliseconds, said in seconds.
static OPERATIONS: [Desc; 8] = [
    Desc::counter(
        "node_mountstats_nfs_operations_requests_total",
        "Number of requests performed for a given operation.",
        OPERATION_LABELS,
    ),
    Desc::counter(
        "node_mountstats_nfs_operations_transmissions_total",
        "Number of times an actual RPC request has been transmitted for a given operation.",
        OPERATION_LABELS,
    ),
    Desc::counter(
        "node_mountstats_nfs_operations_major_timeouts_total",
        "Number of times a request has had a major timeout for a given operation.",
        OPERATION_LABELS,
    ),
    Desc::counter(
        "node_mountstats_nfs_operations_sent_bytes_total",
        "Number of bytes sent for a given operation, including RPC headers and payload.",
        OPERATION_LABELS,
    ),
    Desc::counter(
        "node_mountstats_nfs_operations_received_bytes_total",
        "Number of bytes received for a given operation, including RPC headers and payload.",
        OPERATION_LABELS,
    ),
    Desc::counter(
        "node_mountstats_nfs_operations_queue_time_seconds_total",
        "Duration all requests spent queued for transmission for a given operation before they were sent, in seconds.",
        OPERATION_LABELS,
    ),
    Desc::counter(
        "node_mountstats_nfs_operations_response_time_seconds_total",
        "Duration all requests took to get a reply back after a request for a given operation was transmitted, in seconds.",
        OPERATION_LABELS,
    ),
    Desc::counter(
        "node_mountstats_nfs_operations_request_time_seconds_total",
        "Duration all requests took from when a request was enqueued to when it was completely handled for a given operation, in seconds.",
        OPERATION_LABELS,
    ),
];

/// Where the times of an operation begin.
const TIMES: usize = 5;

/// The number of a transport that says how long it was idle.
const IDLE: usize = 4;

/// Times begin anew here, as node_exporter has it: above it a float has no place for every whole number.
const WHOLE: u64 = 1 << 53;

struct Mountstats {
    stats: HostFile,
    info: HostFile,
}

/// A mount of NFS.
#[derive(Debug, Default, PartialEq)]
struct Mount<'a> {
    /// Its place among all mounts, by which its line in `mountinfo` is found.
    place: usize,
    export: &'a str,
    mountpoint: &'a str,
    age: i64,
    bytes: [u64; 8],
    events: [u64; 27],
    transports: Vec<Transport<'a>>,
    operations: Vec<Operation<'a>>,
}

#[derive(Debug, PartialEq)]
struct Transport<'a> {
    protocol: &'a str,
    numbers: [u64; 13],
}

#[derive(Debug, PartialEq)]
struct Operation<'a> {
    name: &'a str,
    numbers: [u64; 8],
}

fn build(host: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Mountstats {
        stats: HostFile::new(host.proc("self/mountstats")),
        info: HostFile::new(host.proc("self/mountinfo")),
    }))
}

impl Collector for Mountstats {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let Self { stats, info } = self;
        let path = stats.path().to_owned();
        let mounts = parse(stats.read()?).map_err(|what| CollectError::parse(path, what))?;
        // The other file, as long as the table of mounts, is needed only for the addresses of servers.
        if mounts.is_empty() {
            return Ok(());
        }
        let places: Vec<usize> = mounts.iter().map(|mount| mount.place).collect();
        let path = info.path().to_owned();
        let addresses =
            parse_addresses(info.read()?, &places).map_err(|what| CollectError::parse(path, what))?;
        say(&mounts, &addresses, out);
        Ok(())
    }
}

/// Says each mount point once, and what is counted for a server's export once however often it is mounted.
fn say(mounts: &[Mount], addresses: &[&str], out: &mut Samples) {
    let mut mountpoints = HashSet::new();
    let mut exports = HashSet::new();
    for (mount, address) in mounts.iter().zip(addresses) {
        for transport in &mount.transports {
            let labels = [mount.export, *address, transport.protocol];
            if mountpoints.insert((labels, mount.mountpoint)) {
                let [export, address, protocol] = labels;
                out.push(&INFO, &[export, address, mount.mountpoint, protocol], 1.0);
            }
            if !exports.insert(labels) {
                break;
            }
            say_mount(mount, labels, out);
        }
    }
}

fn say_mount(mount: &Mount, labels: [&str; 3], out: &mut Samples) {
    out.push(&AGE, &labels, mount.age as f64);
    for (desc, number) in BYTES.iter().zip(mount.bytes) {
        out.push(desc, &labels, number as f64);
    }
    for Column(at, desc) in &EVENTS {
        out.push(desc, &labels, mount.events[*at] as f64);
    }
    let [export, address, protocol] = labels;
    for (number, transport) in mount.transports.iter().enumerate() {
        let number = number.to_string();
        for Column(at, desc) in &TRANSPORTS {
            let value = match *at {
                IDLE => transport.numbers[IDLE] % WHOLE,
                at => transport.numbers[at],
            };
            out.push(desc, &[export, address, protocol, &number], value as f64);
        }
    }
    for operation in &mount.operations {
        for (at, (desc, number)) in OPERATIONS.iter().zip(operation.numbers).enumerate() {
            let value = if at < TIMES { number as f64 } else { (number % WHOLE) as f64 / 1000.0 };
            out.push(desc, &[export, address, operation.name, protocol], value);
        }
    }
}

/// `/proc/self/mountstats`: a line for each mount, "device proc mounted on /proc with fstype proc"; those of NFS have
/// "statvers=1.1" behind it and more lines below it, up to an empty one.
fn parse(text: &str) -> Result<Vec<Mount<'_>>, String> {
    let mut mounts = Vec::new();
    let mut place = 0;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let mut words = line.split_ascii_whitespace();
        if words.next() != Some("device") {
            continue;
        }
        let mut mount = || {
            let export = words.next()?;
            let mountpoint = expect(&mut words, &["mounted", "on"]).then(|| words.next())??;
            let kind = expect(&mut words, &["with", "fstype"]).then(|| words.next())??;
            Some((Mount { place, export, mountpoint, ..Mount::default() }, kind))
        };
        let (mount, kind) = mount().ok_or_else(|| format!("expected a mounted device, got {line:?}"))?;
        place += 1;
        let Some(version) = words.next() else { continue };
        if kind != "nfs" && kind != "nfs4" {
            return Err(format!("{kind} has statistics that are not known"));
        }
        let version = version.strip_prefix("statvers=").unwrap_or(version);
        mounts.push(parse_mount(mount, version, &mut lines)?);
    }
    Ok(mounts)
}

fn expect<'a>(words: &mut impl Iterator<Item = &'a str>, expected: &[&str]) -> bool {
    expected.iter().all(|expected| words.next() == Some(expected))
}

/// The lines below the one of a mount: "age:\t13968", "bytes:\t1207640230 0 ..."; after "per-op statistics" one for each
/// operation, "READ: 1298 1298 0 207680 1210292152 6 79386 79407".
fn parse_mount<'a>(
    mut mount: Mount<'a>,
    version: &str,
    lines: &mut impl Iterator<Item = &'a str>,
) -> Result<Mount<'a>, String> {
    for line in lines.by_ref() {
        let mut words = line.split_ascii_whitespace();
        let understood = match words.next() {
            None | Some("per-op") => break,
            Some("opts:") => words.next().map(drop),
            Some("age:") => words.next().and_then(parse_age).map(|age| mount.age = age),
            Some("bytes:") => exactly(words).map(|numbers| mount.bytes = numbers),
            Some("events:") => exactly(words).map(|numbers| mount.events = numbers),
            Some("xprt:") => {
                parse_transport(words, version).map(|transport| mount.transports.push(transport))
            }
            Some(_) => Some(()),
        };
        understood.ok_or_else(|| format!("could not understand {line:?} of version {version:?}"))?;
    }
    for line in lines {
        let mut words = line.split_ascii_whitespace();
        let Some(name) = words.next() else { break };
        let (numbers, count) = read(words).ok_or_else(|| format!("expected numbers in {line:?}"))?;
        if count < numbers.len() {
            return Err(format!("expected more numbers in {line:?}"));
        }
        mount.operations.push(Operation { name: name.strip_suffix(':').unwrap_or(name), numbers });
    }
    Ok(mount)
}

/// Seconds, as many as fit a signed number of nanoseconds.
fn parse_age(word: &str) -> Option<i64> {
    let age: i64 = word.parse().ok()?;
    age.checked_mul(1_000_000_000).map(|_| age)
}

/// "tcp 832 0 1 0 11 6428 6428 0 12154 0 24 26 5726": local port, binds, connects, time to connect, idle time, sent,
/// received, bad ids, active requests, backlog; since version 1.1 the most slots used, the queues of sending and pending.
/// UDP has no connects, time to connect and idle time, RDMA no slots and queues but counters of its own.
fn parse_transport<'a>(mut words: impl Iterator<Item = &'a str>, version: &str) -> Option<Transport<'a>> {
    let protocol = words.next()?;
    let (read, count): ([u64; 13], usize) = read(words)?;
    let expected = match (version, protocol) {
        ("1.0", "tcp") => count == 10,
        ("1.0", "udp") => count == 7,
        ("1.1", "tcp") => count == 13,
        ("1.1", "udp") => count == 10,
        // 20 to 28, by the kernel.
        ("1.1", "rdma") => count >= 20,
        _ => false,
    };
    let mut numbers = [0; 13];
    match protocol {
        _ if !expected => return None,
        "udp" => {
            numbers[..2].copy_from_slice(&read[..2]);
            numbers[5..].copy_from_slice(&read[2..10]);
        }
        "rdma" => numbers[..10].copy_from_slice(&read[..10]),
        _ => numbers = read,
    }
    Some(Transport { protocol, numbers })
}

/// `/proc/self/mountinfo`, which lists the same mounts in the same order: "... - nfs4 host:/srv rw,vers=4.0,addr=192.0.2.1".
/// The address of the server for each of `places`, which are sorted; empty where there is none.
fn parse_addresses<'a>(text: &'a str, places: &[usize]) -> Result<Vec<&'a str>, String> {
    let mut addresses = vec![""; places.len()];
    let mut wanted = places.iter().zip(&mut addresses).peekable();
    for (at, line) in text.lines().enumerate() {
        let odd = || format!("expected a mount, got {line:?}");
        if let Some((_, address)) = wanted.next_if(|(place, _)| **place == at) {
            *address = parse_address(line).ok_or_else(odd)?;
        } else if !line.contains(" - ") {
            // Where lines are no mounts, their places mean nothing.
            return Err(odd());
        }
        if wanted.peek().is_none() {
            break;
        }
    }
    Ok(addresses)
}

fn parse_address(line: &str) -> Option<&str> {
    let (_, behind) = line.rsplit_once(" - ")?;
    let mut words = behind.split(' ');
    let (_kind, _source, options) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() {
        return None;
    }
    let address = options.split(',').rev().find_map(|option| option.strip_prefix("addr="));
    Some(address.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NFS: &str = "device rootfs mounted on / with fstype rootfs\n\
                       device nas:/srv mounted on /mnt with fstype nfs4 statvers=1.1\n\topts:\trw,vers=4.0\n\tage:\t13968\n\
                       \tcaps:\tcaps=0xfff7\n\tbytes:\t1 2 3 4 5 6 7 8\n\txprt:\ttcp 832 0 1 0 11 6428 6427 0 12154 0 24 26 5726\n\
                       \tper-op statistics\n\t        NULL: 0 0 0 0 0 0 0 0\n\t        READ: 1 2 3 4 5 6 7 8 9\n\n\
                       device proc mounted on /proc with fstype proc\n";

    #[test]
    fn a_mount_of_nfs_is_read_whole() {
        let mounts = parse(NFS).expect("it is well formed");
        let [mount] = mounts.as_slice() else { panic!("one mount of NFS, got {mounts:?}") };
        assert_eq!((mount.place, mount.export, mount.mountpoint, mount.age), (1, "nas:/srv", "/mnt", 13_968));
        assert_eq!(mount.bytes, [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(mount.operations[1], Operation { name: "READ", numbers: [1, 2, 3, 4, 5, 6, 7, 8] });
        assert_eq!(mount.transports[0].numbers[4..8], [11, 6428, 6427, 0]);
    }

    #[test]
    fn transports_have_their_own_columns() {
        let parse = |text: &'static str, version| {
            parse_transport(text.split_ascii_whitespace(), version).map(|transport| transport.numbers)
        };
        assert_eq!(parse("udp 1 2 3 4 5 6 7 8 9 10", "1.1"), Some([1, 2, 0, 0, 0, 3, 4, 5, 6, 7, 8, 9, 10]));
        assert_eq!(parse("udp 1 2 3 4 5 6 7", "1.0"), Some([1, 2, 0, 0, 0, 3, 4, 5, 6, 7, 0, 0, 0]));
        assert_eq!(parse("tcp 1 2 3 4 5 6 7 8 9 10", "1.0"), Some([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 0, 0]));
        let rdma = "rdma 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28";
        assert_eq!(parse(rdma, "1.1"), Some([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 0, 0]));
        for (text, version) in
            [(rdma, "1.0"), ("tcp 1 2 3", "1.1"), ("tcp", "1.1"), ("local 1 2 3", "1.1"), ("udp x", "1.0")]
        {
            assert_eq!(parse(text, version), None, "{text:?}");
        }
    }

    #[test]
    fn an_export_that_is_mounted_twice_is_counted_once() {
        let second = NFS.replace("/mnt", "/other");
        let text = format!("{NFS}{second}");
        let mounts = parse(&text).expect("it is well formed");
        let mut out = Samples::new();
        say(&mounts, &["192.0.2.1", "192.0.2.1"], &mut out);
        let count = |family: &str| out.iter().filter(|(name, ..)| *name == family).count();
        assert_eq!(
            (count("node_mountstats_nfs_mountpoint_info"), count("node_mountstats_nfs_age_seconds_total")),
            (2, 1)
        );
    }

    #[test]
    fn the_address_is_that_of_the_mount_at_the_same_place() {
        let text = "21 1 0:5 / / rw - ext4 /dev/sda1 rw\n\
                    194 21 0:42 / /mnt rw shared:144 - nfs4 nas:/srv rw,vers=4.0,clientaddr=192.0.2.9,addr=192.0.2.1\n";
        assert_eq!(parse_addresses(text, &[0, 1, 2]), Ok(vec!["", "192.0.2.1", ""]));
        assert!(parse_addresses("21 1 0:5 / / rw\n", &[0]).is_err());
    }

    #[test]
    fn cut_and_odd_texts_are_refused() {
        let mount = "device nas:/srv mounted on /mnt with fstype nfs statvers=1.1\n";
        for line in [
            "opts:\n",
            "age: x\n",
            "age: 9999999999999\n",
            "bytes: 1 2\n",
            "events: 1\n",
            "xprt: tcp 1\n",
            "per-op\nREAD: 1\n",
        ] {
            assert!(parse(&format!("{mount}{line}")).is_err(), "{line:?}");
        }
        assert!(parse("device proc mounted on\n").is_err());
        assert!(parse("device x mounted on /x with fstype cifs statvers=1\n").is_err());
        assert_eq!(parse("proc mounted\n\n"), Ok(Vec::new()));
    }
}
