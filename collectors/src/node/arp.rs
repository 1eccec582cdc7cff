//! Entries of the ARP table, by network interface.

use std::collections::BTreeMap;

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Flag, Host, HostFile, Options, Samples,
    filter::Filter,
    netlink::{GET_NEIGHBOUR, Route},
};

/// This collector in the list.
pub const ENTRY: Entry = Entry {
    name: "arp",
    default_on: true,
    flags: &[
        Flag::regex(
            "arp.device-include",
            "",
            "Regexp of arp devices to include (mutually exclusive to device-exclude).",
        ),
        Flag::regex(
            "arp.device-exclude",
            "",
            "Regexp of arp devices to exclude (mutually exclusive to device-include).",
        ),
        Flag::bool("arp.netlink", true, "Use netlink to gather stats instead of /proc/net/arp."),
    ],
    build,
};

static ENTRIES: Desc = Desc::gauge("node_arp_entries", "ARP entries by device", &["device"]);

/// `struct ndmsg`.
const HEADER: usize = 12;
const AF_INET: u8 = 2;
/// The state of entries for interfaces that need no ARP, which `/proc/net/arp` leaves out too.
const NUD_NOARP: u16 = 0x40;

/// Where the entries come from.
enum Source {
    Netlink {
        route: Route,
        /// The number of the interface of every entry.
        interfaces: Vec<u32>,
    },
    Proc(HostFile),
}

struct Arp {
    source: Source,
    filter: Filter,
}

fn build(host: &Host, options: &Options) -> Result<Box<dyn Collector>, BuildError> {
    let source = if options.is_on("arp.netlink") {
        Source::Netlink { route: Route::default(), interfaces: Vec::new() }
    } else {
        Source::Proc(HostFile::new(host.proc("net/arp")))
    };
    let filter = Filter::both(options, "arp.device-include", "arp.device-exclude")?;
    Ok(Box::new(Arp { source, filter }))
}

impl Collector for Arp {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let Self { source, filter } = self;
        let mut say = |device: &str, count: usize| {
            if !filter.ignores(device) {
                out.push(&ENTRIES, &[device], count as f64);
            }
        };
        match source {
            Source::Netlink { route, interfaces } => say_neighbours(route, interfaces, say),
            Source::Proc(file) => file.parse(|text| {
                for (device, count) in parse_table(text)? {
                    say(device, count);
                }
                Ok(())
            }),
        }
    }
}

fn say_neighbours(
    route: &mut Route,
    interfaces: &mut Vec<u32>,
    mut say: impl FnMut(&str, usize),
) -> Result<(), CollectError> {
    let mut request = [0; HEADER];
    request[0] = AF_INET;
    interfaces.clear();
    route
        .dump(GET_NEIGHBOUR, &request, |message| interfaces.extend(parse_neighbour(message)))
        .map_err(|source| CollectError::System { what: "asking rtnetlink for neighbours", source })?;
    interfaces.sort_unstable();
    for entries in interfaces.chunk_by(|left, right| left == right) {
        // An interface that is gone by now has no entries any more.
        if let Some(Ok(name)) = entries.first().map(|&index| route.interface_name(index)) {
            say(name.as_str(), entries.len());
        }
    }
    Ok(())
}

/// The number of the interface of an ARP entry: `struct ndmsg` has the family at 0, the interface at 4, the state at 8.
fn parse_neighbour(message: &[u8]) -> Option<u32> {
    let header: &[u8; HEADER] = message.first_chunk()?;
    let state = u16::from_ne_bytes([header[8], header[9]]);
    let counts = header[0] == AF_INET && state & NUD_NOARP == 0;
    counts.then(|| u32::from_ne_bytes([header[4], header[5], header[6], header[7]]))
}

/// `/proc/net/arp`: a line of headings of nine words, then "10.0.0.1 0x1 0x2 00:11:22:33:44:55 * eth0".
fn parse_table(text: &str) -> Result<BTreeMap<&str, usize>, String> {
    let mut counts = BTreeMap::new();
    for line in text.lines() {
        match line.split_ascii_whitespace().count() {
            0 | 9 => continue,
            6 => {}
            _ => return Err(format!("expected 6 columns, got {line:?}")),
        }
        let mut columns = line.split_ascii_whitespace();
        let flags = columns.nth(2).and_then(|flags| flags.strip_prefix("0x"));
        if flags.is_none_or(|flags| u8::from_str_radix(flags, 16).is_err()) {
            return Err(format!("expected flags such as 0x2 in the third column, got {line:?}"));
        }
        if let Some(device) = columns.last() {
            *counts.entry(device).or_insert(0) += 1;
        }
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADINGS: &str = "IP address       HW type     Flags       HW address            Mask     Device\n";

    #[test]
    fn entries_are_counted_by_device() {
        let table = format!(
            "{HEADINGS}10.0.0.1         0x1         0x2         00:11:22:33:44:55     *        eth0\n\
             10.0.0.2         0x1         0x0         00:00:00:00:00:00     *        eth0\n\
             10.1.0.2         0x1         0x2         00:11:22:33:44:66     *        cali1\n"
        );
        assert_eq!(parse_table(&table), Ok([("cali1", 1), ("eth0", 2)].into()));
        assert_eq!(parse_table(""), Ok(BTreeMap::new()));
    }

    #[test]
    fn cut_and_odd_lines_are_refused() {
        for line in ["10.0.0.1 0x1 0x2 00:11:22:33:44:55 *\n", "10.0.0.1 0x1 x 00:11:22:33:44:55 * eth0\n"] {
            assert!(parse_table(&format!("{HEADINGS}{line}")).is_err(), "{line:?}");
        }
    }

    fn neighbour(family: u8, index: u32, state: u16) -> Vec<u8> {
        let mut message = vec![0; HEADER];
        message[0] = family;
        message[4..8].copy_from_slice(&index.to_ne_bytes());
        message[8..10].copy_from_slice(&state.to_ne_bytes());
        message
    }

    #[test]
    fn neighbours_of_other_families_and_without_arp_do_not_count() {
        assert_eq!(parse_neighbour(&neighbour(AF_INET, 7, 2)), Some(7));
        assert_eq!(parse_neighbour(&neighbour(AF_INET, 7, NUD_NOARP)), None);
        assert_eq!(parse_neighbour(&neighbour(10, 7, 2)), None);
        assert_eq!(parse_neighbour(&neighbour(AF_INET, 7, 2)[..11]), None);
    }

    #[test]
    fn the_running_kernel_is_understood() {
        let mut collector = Arp {
            source: Source::Netlink { route: Route::default(), interfaces: Vec::new() },
            filter: Filter::default(),
        };
        collector.collect(&Host::default(), &mut Samples::new()).expect("the kernel answers");
    }
}
