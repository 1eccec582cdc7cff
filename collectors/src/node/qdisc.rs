//! What the queueing disciplines of network interfaces sent, dropped and hold.

use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Flag, Host, Options, Samples,
    filter::Filter,
    json,
    netlink::{self, GET_QDISC, Route},
};

/// This collector in the list.
pub const ENTRY: Entry = Entry {
    name: "qdisc",
    default_on: false,
    flags: &[
        Flag::text("qdisc.fixtures", "", "test fixtures to use for qdisc collector end-to-end testing"),
        Flag::regex(
            "qdisc.device-include",
            "",
            "Regexp of qdisc devices to include (mutually exclusive to device-exclude).",
        ),
        Flag::regex(
            "qdisc.device-exclude",
            "",
            "Regexp of qdisc devices to exclude (mutually exclusive to device-include).",
        ),
        Flag::regex("qdisk.device-include", "", "DEPRECATED: Use collector.qdisc.device-include"),
        Flag::regex("qdisk.device-exclude", "", "DEPRECATED: Use collector.qdisc.device-exclude"),
    ],
    build,
};

const LABELS: &[&str] = &["device", "kind"];

static BYTES: Desc = Desc::counter("node_qdisc_bytes_total", "Number of bytes sent.", LABELS);
static PACKETS: Desc = Desc::counter("node_qdisc_packets_total", "Number of packets sent.", LABELS);
static DROPS: Desc = Desc::counter("node_qdisc_drops_total", "Number of packets dropped.", LABELS);
static REQUEUES: Desc = Desc::counter(
    "node_qdisc_requeues_total",
    "Number of packets dequeued, not transmitted, and requeued.",
    LABELS,
);
static OVERLIMITS: Desc =
    Desc::counter("node_qdisc_overlimits_total", "Number of overlimit packets.", LABELS);
static LENGTH: Desc = Desc::gauge(
    "node_qdisc_current_queue_length",
    "Number of packets currently in queue to be sent.",
    LABELS,
);
static BACKLOG: Desc =
    Desc::gauge("node_qdisc_backlog", "Number of bytes currently in queue to be sent.", LABELS);

/// `struct tcmsg`.
const HEADER: usize = 20;
/// The parent of the discipline that an interface sends by.
const TC_H_ROOT: u32 = u32::MAX;
const TCA_KIND: u16 = 1;
const TCA_STATS: u16 = 3;
const TCA_STATS2: u16 = 7;
const TCA_STATS_BASIC: u16 = 1;
const TCA_STATS_QUEUE: u16 = 3;

enum Source {
    Netlink {
        route: Route,
        /// The number of the interface of every root discipline, where its kind ends in the buffer below, its counters.
        found: Vec<(u32, usize, Counters)>,
        kinds: String,
    },
    /// A directory with a made-up answer.
    Fixtures(PathBuf),
}

struct Qdisc {
    source: Source,
    filter: Filter,
}

#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Counters {
    bytes: u64,
    packets: u32,
    drops: u32,
    requeues: u32,
    overlimits: u32,
    length: u32,
    backlog: u32,
}

fn build(_: &Host, options: &Options) -> Result<Box<dyn Collector>, BuildError> {
    let source = match options.text("qdisc.fixtures") {
        "" => Source::Netlink { route: Route::default(), found: Vec::new(), kinds: String::new() },
        directory => Source::Fixtures(directory.into()),
    };
    let filter = Filter::either(
        options,
        options.older_name("qdisc.device-include", "qdisk.device-include")?,
        options.older_name("qdisc.device-exclude", "qdisk.device-exclude")?,
    )?;
    Ok(Box::new(Qdisc { source, filter }))
}

impl Collector for Qdisc {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let Self { source, filter } = self;
        let say = |device: &str, kind: &str, counters: &Counters| {
            if !filter.ignores(device) {
                say(device, kind, counters, out);
            }
        };
        match source {
            Source::Netlink { route, found, kinds } => dump(route, found, kinds, say),
            Source::Fixtures(directory) => read_fixtures(directory, say),
        }
    }
}

fn say(device: &str, kind: &str, counters: &Counters, out: &mut Samples) {
    let labels = [device, kind];
    out.push(&BYTES, &labels, counters.bytes as f64);
    out.push(&PACKETS, &labels, counters.packets.into());
    out.push(&DROPS, &labels, counters.drops.into());
    out.push(&REQUEUES, &labels, counters.requeues.into());
    out.push(&OVERLIMITS, &labels, counters.overlimits.into());
    out.push(&LENGTH, &labels, counters.length.into());
    out.push(&BACKLOG, &labels, counters.backlog.into());
}

fn dump(
    route: &mut Route,
    found: &mut Vec<(u32, usize, Counters)>,
    kinds: &mut String,
    mut say: impl FnMut(&str, &str, &Counters),
) -> Result<(), CollectError> {
    let fail = |source| CollectError::System { what: "asking rtnetlink for queueing disciplines", source };
    found.clear();
    kinds.clear();
    let asked = route.dump(GET_QDISC, &[0; HEADER], |message| {
        if let Some((index, kind, counters)) = parse_root(message) {
            kinds.push_str(kind);
            found.push((index, kinds.len(), counters));
        }
    });
    asked.map_err(fail)?;
    let mut start = 0;
    for (index, end, counters) in found {
        let kind = kinds.get(start..*end).unwrap_or_default();
        start = *end;
        match route.interface_name(*index) {
            Ok(name) => say(name.as_str(), kind, counters),
            // The interface went away meanwhile.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NODEV) => {}
            Err(error) => return Err(fail(error)),
        }
    }
    Ok(())
}

/// The number of the interface, the kind and the counters of a discipline that has no parent: `struct tcmsg` has the
/// interface at 4, the parent at 12.
fn parse_root(message: &[u8]) -> Option<(u32, &str, Counters)> {
    let (header, attributes) = message.split_first_chunk::<HEADER>()?;
    let parent = u32::from_ne_bytes([header[12], header[13], header[14], header[15]]);
    if parent != 0 && parent != TC_H_ROOT {
        return None;
    }
    let (mut kind, mut old, mut new) = ("", None, None);
    for (attribute, value) in netlink::attributes(attributes) {
        match attribute {
            TCA_KIND => kind = netlink::text(value),
            TCA_STATS => old = parse_old(value),
            TCA_STATS2 => new = Some(parse_new(value)),
            _ => {}
        }
    }
    let index = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
    Some((index, kind, new.or(old).unwrap_or_default()))
}

/// `struct tc_stats`: bytes, packets, drops, overlimits, two rates, length, backlog.
fn parse_old(value: &[u8]) -> Option<Counters> {
    let number = |at| netlink::u32_of(value.get(at..)?);
    Some(Counters {
        bytes: netlink::u64_of(value)?,
        packets: number(8)?,
        drops: number(12)?,
        requeues: 0,
        overlimits: number(16)?,
        length: number(28)?,
        backlog: number(32)?,
    })
}

/// Nested: `struct gnet_stats_basic` with bytes and packets, `struct gnet_stats_queue` with the others.
fn parse_new(value: &[u8]) -> Counters {
    let mut counters = Counters::default();
    for (kind, value) in netlink::attributes(value) {
        let number = |at| value.get(at..).and_then(netlink::u32_of).unwrap_or(0);
        match kind {
            TCA_STATS_BASIC => {
                counters.bytes = netlink::u64_of(value).unwrap_or(0);
                counters.packets = number(8);
            }
            TCA_STATS_QUEUE => {
                counters.length = number(0);
                counters.backlog = number(4);
                counters.drops = number(8);
                counters.requeues = number(12);
                counters.overlimits = number(16);
            }
            _ => {}
        }
    }
    counters
}

/// `results.json`: `[{"IfaceName": "eth0", "Kind": "fq", "Bytes": 42, "Packets": 7, "Requeues": 1}]`
fn read_fixtures(directory: &Path, mut say: impl FnMut(&str, &str, &Counters)) -> Result<(), CollectError> {
    for object in json::read_list(&directory.join("results.json"))? {
        let counters = Counters {
            bytes: object.integer("Bytes")?,
            packets: object.integer("Packets")?,
            drops: object.integer("Drops")?,
            requeues: object.integer("Requeues")?,
            overlimits: object.integer("Overlimits")?,
            length: object.integer("Qlen")?,
            backlog: object.integer("Backlog")?,
        };
        if object.integer::<u32>("Parent")? == 0 {
            say(object.text("IfaceName")?, object.text("Kind")?, &counters);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(parent: u32, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut message = vec![0; HEADER];
        message[4..8].copy_from_slice(&7_u32.to_ne_bytes());
        message[12..16].copy_from_slice(&parent.to_ne_bytes());
        for (kind, value) in attributes {
            netlink::push_attribute(&mut message, *kind, &[value]);
        }
        message
    }

    fn numbers(numbers: impl IntoIterator<Item = u32>) -> Vec<u8> {
        numbers.into_iter().flat_map(u32::to_ne_bytes).collect()
    }

    fn new_stats() -> Vec<u8> {
        let mut stats = Vec::new();
        let basic = [&u64::MAX.to_ne_bytes()[..], &numbers([2, 0])].concat();
        netlink::push_attribute(&mut stats, TCA_STATS_BASIC, &[&basic]);
        netlink::push_attribute(&mut stats, TCA_STATS_QUEUE, &[&numbers(3..=7)]);
        stats
    }

    #[test]
    fn the_newer_counters_have_requeues() {
        let old = [&1_u64.to_ne_bytes()[..], &numbers([9; 8])].concat();
        let message =
            message(TC_H_ROOT, &[(TCA_KIND, b"fq\0"), (TCA_STATS2, &new_stats()), (TCA_STATS, &old)]);
        let counters = Counters {
            bytes: u64::MAX,
            packets: 2,
            length: 3,
            backlog: 4,
            drops: 5,
            requeues: 6,
            overlimits: 7,
        };
        assert_eq!(parse_root(&message), Some((7, "fq", counters)));
    }

    #[test]
    fn an_old_kernel_has_only_the_older_ones() {
        let old = [&1_u64.to_ne_bytes()[..], &numbers(2..=8)].concat();
        let (_, _, counters) = parse_root(&message(0, &[(TCA_STATS, &old)])).expect("a root");
        let expected =
            Counters { bytes: 1, packets: 2, drops: 3, requeues: 0, overlimits: 4, length: 7, backlog: 8 };
        assert_eq!(counters, expected);
    }

    #[test]
    fn only_roots_count_and_cut_messages_do_no_harm() {
        assert_eq!(parse_root(&message(0x1_0001, &[])), None);
        let whole = message(TC_H_ROOT, &[(TCA_STATS2, &new_stats()), (TCA_KIND, b"fq\0")]);
        for end in 0..whole.len() {
            parse_root(&whole[..end]);
        }
        let stats = new_stats();
        for end in 0..stats.len() {
            parse_new(&stats[..end]);
            parse_old(&stats[..end]);
        }
    }

    fn said(collector: &mut dyn Collector) -> Result<Vec<String>, CollectError> {
        let mut out = Samples::new();
        collector.collect(&Host::default(), &mut out)?;
        let line = |(name, labels, value): (&str, crate::samples::LabelValues, f64)| {
            format!("{name} {} {value}", labels.collect::<Vec<_>>().join(" "))
        };
        Ok(out.iter().map(line).collect())
    }

    #[test]
    fn a_made_up_answer_is_read_from_a_file() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let write = |text: &str| std::fs::write(dir.path().join("results.json"), text).expect("written");
        write(r#"[{"IfaceName": "eth0", "Kind": "fq", "Bytes": 42}, {"IfaceName": "eth0", "Parent": 1}]"#);
        let source = Source::Fixtures(dir.path().into());
        let mut collector = Qdisc { source, filter: Filter::default() };
        let lines = said(&mut collector).expect("collected");
        assert_eq!((lines.len(), &*lines[0]), (7, "node_qdisc_bytes_total eth0 fq 42"));
        write(r#"[{"IfaceName": "eth0", "Packets": -1}]"#);
        assert!(matches!(said(&mut collector), Err(CollectError::Parse { .. })));
    }

    #[test]
    fn the_running_kernel_is_understood() {
        let source = Source::Netlink { route: Route::default(), found: Vec::new(), kinds: String::new() };
        said(&mut Qdisc { source, filter: Filter::default() }).expect("the kernel answers");
    }
}
