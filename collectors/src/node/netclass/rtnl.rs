//! Interfaces as netlink alone describes them (`--collector.netclass.netlink`): fewer locks of the kernel than files, and
//! families that differ a little.

use std::{collections::HashMap, io, path::Path};

use super::{NUMBERS, UP, bytes_per_second, links, links::Link};
use crate::{
    CollectError, Desc, Samples,
    netlink::{self, GET_LINK, Generic, Route},
    sysfs::{Buffer, Directory},
};

static INFO: Desc = Desc::gauge(
    "node_network_info",
    "Non-numeric data of <iface>, value is always 1.",
    &["address", "broadcast", "device", "duplex", "ifalias", "operstate"],
);
static ALTERNATIVE_NAMES: Desc = Desc::gauge(
    "node_network_altnames_info",
    "Non-numeric data of <iface> altname, value is always 1.",
    &["altname", "device"],
);

macro_rules! statistics {
    ($($name:literal,)*) => {
        [$(Desc::gauge(
            concat!("node_network_", $name, "_total"),
            concat!("Network device property: ", $name, "_total"),
            &["device"],
        ),)*]
    };
}

/// In the order of `struct rtnl_link_stats64`; gauges, as node_exporter has them.
static STATISTICS: [Desc; 24] = statistics![
    "receive_packets",
    "transmit_packets",
    "receive_bytes",
    "transmit_bytes",
    "receive_errors",
    "transmit_errors",
    "receive_dropped",
    "transmit_dropped",
    "multicast",
    "collisions",
    "receive_length_errors",
    "receive_over_errors",
    "receive_crc_errors",
    "receive_frame_errors",
    "receive_fifo_errors",
    "receive_missed_errors",
    "transmit_aborted_errors",
    "transmit_carrier_errors",
    "transmit_fifo_errors",
    "transmit_heartbeat_errors",
    "transmit_window_errors",
    "receive_compressed",
    "transmit_compressed",
    "receive_nohandler",
];

/// What only sysfs knows. It is always this host's own, as with node_exporter.
const CLASS: &str = "/sys/class/net";
const FILES: [usize; 3] = [super::ADDR_ASSIGN_TYPE, super::DEV_ID, super::NAME_ASSIGN_TYPE];

const LINKMODES_GET: u8 = 4;
const LINKMODES_HEADER: u16 = 1;
const LINKMODES_SPEED: u16 = 5;
const LINKMODES_DUPLEX: u16 = 6;
const HEADER_DEV_NAME: u16 = 2;
const HEADER_FLAGS: u16 = 3;
const COMPACT_BITSETS: u32 = 1;
const IFLA_ALT_IFNAME: u16 = 53;

pub(super) struct Rtnl {
    with_statistics: bool,
    route: Route,
    generic: Generic,
    buffer: Buffer,
}

/// What drivers know of a link.
struct Mode {
    megabits: u32,
    duplex: u8,
}

impl Rtnl {
    pub(super) fn new(with_statistics: bool) -> Self {
        Self {
            with_statistics,
            route: Route::default(),
            generic: Generic::default(),
            buffer: Buffer::default(),
        }
    }

    pub(super) fn say(
        &mut self,
        is_ignored: impl Fn(&str) -> bool,
        out: &mut Samples,
    ) -> Result<(), CollectError> {
        let modes = match self.modes() {
            // Kernels before 5.6 have no such family.
            Err(error) if error.kind() == io::ErrorKind::NotFound => HashMap::new(),
            other => {
                other.map_err(|source| CollectError::System { what: "asking for link modes", source })?
            }
        };
        for (device, mode) in modes.iter().filter(|(device, _)| !is_ignored(device)) {
            let speed = bytes_per_second(i64::from(mode.megabits));
            out.push(&NUMBERS[super::SPEED].1, &[device], speed as f64);
        }
        let Self { route, buffer, with_statistics, .. } = self;
        let mark = out.mark();
        let mut is_odd = false;
        let said = route.dump(GET_LINK, links::REQUEST.as_slice(), |message| match Link::parse(message) {
            Some(link) if !has_odd_address(&link) => {
                if !is_ignored(link.name) {
                    say(&link, modes.get(link.name), *with_statistics, buffer, out);
                }
            }
            _ => is_odd = true,
        });
        let said = match said {
            Ok(()) if is_odd => Err(io::ErrorKind::InvalidData.into()),
            other => other,
        };
        said.map_err(|source| {
            out.rewind(mark);
            CollectError::System { what: "asking rtnetlink for links", source }
        })
    }

    /// Speed and duplex of the interfaces that have them.
    fn modes(&mut self) -> io::Result<HashMap<String, Mode>> {
        const NESTED: u16 = 1 << 15;
        let mut header = Vec::new();
        netlink::push_attribute(&mut header, HEADER_FLAGS, &[&COMPACT_BITSETS.to_ne_bytes()]);
        let mut request = Vec::new();
        netlink::push_attribute(&mut request, LINKMODES_HEADER | NESTED, &[&header]);
        let mut modes = HashMap::new();
        let family = self.generic.family("ethtool")?;
        self.generic.dump(family, LINKMODES_GET, &request, |attributes| {
            let mut name = "";
            let mut mode = Mode { megabits: 0, duplex: 0 };
            for (kind, value) in netlink::attributes(attributes) {
                match kind {
                    LINKMODES_HEADER => {
                        let found = netlink::attributes(value).find(|(kind, _)| *kind == HEADER_DEV_NAME);
                        name = found.map_or("", |(_, value)| netlink::text(value));
                    }
                    LINKMODES_SPEED => mode.megabits = netlink::u32_of(value).unwrap_or(0),
                    LINKMODES_DUPLEX => mode.duplex = value.first().copied().unwrap_or(0),
                    _ => {}
                }
            }
            modes.insert(name.to_owned(), mode);
        })?;
        Ok(modes)
    }
}

/// node_exporter takes addresses of these lengths only, and fails with others.
fn has_odd_address(link: &Link) -> bool {
    let is_odd = |address: &[u8]| !address.is_empty() && !(4..=32).contains(&address.len());
    is_odd(link.address) || is_odd(link.broadcast)
}

fn say(link: &Link, mode: Option<&Mode>, with_statistics: bool, buffer: &mut Buffer, out: &mut Samples) {
    let device = link.name;
    let mut number = |at: usize, value: Option<i64>| {
        if let Some(value) = value {
            out.push(&NUMBERS[at].1, &[device], value as f64);
        }
    };
    if let Ok(directory) = Directory::open(&Path::new(CLASS).join(device)) {
        for at in FILES {
            number(at, directory.read(NUMBERS[at].0, buffer).ok().map(super::files::parse_number));
        }
    }
    let link_mode = link.link_mode.map(i64::from);
    let index = i64::from(link.index);
    let lower = link.link.filter(|&lower| lower > 0).map_or(index, i64::from);
    for (at, value) in [
        (super::CARRIER, link.carrier.map(i64::from)),
        (super::CARRIER_CHANGES, link.carrier_changes.map(i64::from)),
        (super::CARRIER_UP_COUNT, link.carrier_up_count.map(i64::from)),
        (super::CARRIER_DOWN_COUNT, link.carrier_down_count.map(i64::from)),
        (super::FLAGS, Some(i64::from(link.flags))),
        (super::IFINDEX, Some(index)),
        (super::LINK_MODE, link_mode),
        // So it is in node_exporter.
        (super::DORMANT, link_mode),
        (super::IFLINK, Some(lower)),
        (super::MTU, Some(i64::from(link.mtu.unwrap_or(0)))),
        (super::NETDEV_GROUP, link.group.map(i64::from)),
        (super::TX_QUEUE_LEN, link.queue.map(i64::from)),
        (super::TYPE, Some(i64::from(link.kind))),
    ] {
        number(at, value);
    }
    let state = links::STATES.get(usize::from(link.state.unwrap_or(0))).copied().unwrap_or("unknown");
    out.push(&UP, &[device], f64::from(u8::from(state == "up")));
    let (mut address, mut broadcast) = (String::new(), String::new());
    links::write_address(link.address, &mut address);
    links::write_address(link.broadcast, &mut broadcast);
    let duplex = duplex(mode);
    out.push(&INFO, &[&address, &broadcast, device, &duplex, link.alias.unwrap_or_default(), state], 1.0);
    for (_, name) in netlink::attributes(link.properties).filter(|(kind, _)| *kind == IFLA_ALT_IFNAME) {
        let name = name.strip_suffix(b"\0").unwrap_or(name);
        if !name.is_empty() {
            out.push(&ALTERNATIVE_NAMES, &[&String::from_utf8_lossy(name), device], 1.0);
        }
    }
    if with_statistics {
        for (desc, value) in STATISTICS.iter().zip(link.statistics.as_chunks().0) {
            out.push(desc, &[device], u64::from_ne_bytes(*value) as f64);
        }
    }
}

fn duplex(mode: Option<&Mode>) -> String {
    match mode.map(|mode| mode.duplex) {
        None => String::new(),
        Some(0) => "Half".to_owned(),
        Some(1) => "Full".to_owned(),
        Some(0xff) => "Unknown".to_owned(),
        Some(other) => format!("Duplex({other})"),
    }
}
