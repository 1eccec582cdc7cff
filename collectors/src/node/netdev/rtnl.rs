//! Counters of interfaces as rtnetlink gives them.

use super::{Statistic, statistic};
use crate::{
    CollectError, Desc,
    netlink::{self, GET_LINK, Route},
};

// The order of `struct rtnl_link_stats64`.
const RX_PACKETS: usize = 0;
const TX_PACKETS: usize = 1;
const RX_BYTES: usize = 2;
const TX_BYTES: usize = 3;
const RX_ERRORS: usize = 4;
const TX_ERRORS: usize = 5;
const RX_DROPPED: usize = 6;
const TX_DROPPED: usize = 7;
const MULTICAST: usize = 8;
const COLLISIONS: usize = 9;
const RX_LENGTH_ERRORS: usize = 10;
const RX_OVER_ERRORS: usize = 11;
const RX_CRC_ERRORS: usize = 12;
const RX_FRAME_ERRORS: usize = 13;
const RX_FIFO_ERRORS: usize = 14;
const RX_MISSED_ERRORS: usize = 15;
const TX_ABORTED_ERRORS: usize = 16;
const TX_CARRIER_ERRORS: usize = 17;
const TX_FIFO_ERRORS: usize = 18;
const TX_HEARTBEAT_ERRORS: usize = 19;
const TX_WINDOW_ERRORS: usize = 20;
const RX_COMPRESSED: usize = 21;
const TX_COMPRESSED: usize = 22;
const RX_NOHANDLER: usize = 23;
const COUNT: usize = 24;

/// The names of old, with sums as `/proc/net/dev` makes them.
pub(super) static MERGED: [Statistic; 17] = [
    statistic!("receive_packets", [RX_PACKETS]),
    statistic!("transmit_packets", [TX_PACKETS]),
    statistic!("receive_bytes", [RX_BYTES]),
    statistic!("transmit_bytes", [TX_BYTES]),
    statistic!("receive_errs", [RX_ERRORS]),
    statistic!("transmit_errs", [TX_ERRORS]),
    statistic!("receive_drop", [RX_DROPPED, RX_MISSED_ERRORS]),
    statistic!("transmit_drop", [TX_DROPPED]),
    statistic!("receive_multicast", [MULTICAST]),
    statistic!("transmit_colls", [COLLISIONS]),
    statistic!("receive_frame", [RX_FRAME_ERRORS, RX_LENGTH_ERRORS, RX_OVER_ERRORS, RX_CRC_ERRORS]),
    statistic!("receive_fifo", [RX_FIFO_ERRORS]),
    statistic!(
        "transmit_carrier",
        [TX_CARRIER_ERRORS, TX_ABORTED_ERRORS, TX_HEARTBEAT_ERRORS, TX_WINDOW_ERRORS]
    ),
    statistic!("transmit_fifo", [TX_FIFO_ERRORS]),
    statistic!("receive_compressed", [RX_COMPRESSED]),
    statistic!("transmit_compressed", [TX_COMPRESSED]),
    statistic!("receive_nohandler", [RX_NOHANDLER]),
];

/// Every counter under the kernel's name.
pub(super) static DETAILED: [Statistic; COUNT] = [
    statistic!("receive_packets", [RX_PACKETS]),
    statistic!("transmit_packets", [TX_PACKETS]),
    statistic!("receive_bytes", [RX_BYTES]),
    statistic!("transmit_bytes", [TX_BYTES]),
    statistic!("receive_errors", [RX_ERRORS]),
    statistic!("transmit_errors", [TX_ERRORS]),
    statistic!("receive_dropped", [RX_DROPPED]),
    statistic!("transmit_dropped", [TX_DROPPED]),
    statistic!("multicast", [MULTICAST]),
    statistic!("collisions", [COLLISIONS]),
    statistic!("receive_length_errors", [RX_LENGTH_ERRORS]),
    statistic!("receive_over_errors", [RX_OVER_ERRORS]),
    statistic!("receive_crc_errors", [RX_CRC_ERRORS]),
    statistic!("receive_frame_errors", [RX_FRAME_ERRORS]),
    statistic!("receive_fifo_errors", [RX_FIFO_ERRORS]),
    statistic!("receive_missed_errors", [RX_MISSED_ERRORS]),
    statistic!("transmit_aborted_errors", [TX_ABORTED_ERRORS]),
    statistic!("transmit_carrier_errors", [TX_CARRIER_ERRORS]),
    statistic!("transmit_fifo_errors", [TX_FIFO_ERRORS]),
    statistic!("transmit_heartbeat_errors", [TX_HEARTBEAT_ERRORS]),
    statistic!("transmit_window_errors", [TX_WINDOW_ERRORS]),
    statistic!("receive_compressed", [RX_COMPRESSED]),
    statistic!("transmit_compressed", [TX_COMPRESSED]),
    statistic!("receive_nohandler", [RX_NOHANDLER]),
];

/// `struct ifinfomsg`, of which nothing is needed.
const HEADER: usize = 16;
const IFLA_IFNAME: u16 = 3;
const IFLA_STATS: u16 = 7;
const IFLA_STATS64: u16 = 23;
const IFLA_EXT_MASK: u16 = 29;
/// Leaves the IPv6 counters of each interface out, which the kernel would sum over all CPUs.
const SKIP_STATS: u32 = 1 << 3;

/// Hands the name and the counters of every interface to `each`.
pub(super) fn links(route: &mut Route, mut each: impl FnMut(&str, &[u64])) -> Result<(), CollectError> {
    let mut request = [0; HEADER + 8];
    request[HEADER..HEADER + 2].copy_from_slice(&8_u16.to_ne_bytes());
    request[HEADER + 2..HEADER + 4].copy_from_slice(&IFLA_EXT_MASK.to_ne_bytes());
    request[HEADER + 4..].copy_from_slice(&SKIP_STATS.to_ne_bytes());
    let said = route.dump(GET_LINK, &request, |message| {
        if let Some((name, counters)) = parse_link(message) {
            each(name, &counters);
        }
    });
    said.map_err(|source| CollectError::System { what: "asking rtnetlink for links", source })
}

/// A link with counters, 64 bits wide unless the kernel is very old.
fn parse_link(message: &[u8]) -> Option<(&str, [u64; COUNT])> {
    let mut name = None;
    let mut narrow = None;
    let mut wide = None;
    for (kind, value) in netlink::attributes(message.get(HEADER..)?) {
        match kind {
            IFLA_IFNAME => name = Some(netlink::text(value)),
            IFLA_STATS => narrow = Some(value),
            IFLA_STATS64 => wide = Some(value),
            _ => {}
        }
    }
    let mut counters = [0; COUNT];
    if let Some(wide) = wide {
        for (counter, bytes) in counters.iter_mut().zip(wide.as_chunks().0) {
            *counter = u64::from_ne_bytes(*bytes);
        }
    } else {
        for (counter, bytes) in counters.iter_mut().zip(narrow?.as_chunks().0) {
            *counter = u64::from(u32::from_ne_bytes(*bytes));
        }
    }
    Some((name?, counters))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = (value.len() as u16 + 4).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn link(attributes: &[Vec<u8>]) -> Vec<u8> {
        [vec![0; HEADER], attributes.concat()].concat()
    }

    #[test]
    fn wide_counters_win_over_narrow_ones() {
        let wide: Vec<u8> = (1_u64..=23).flat_map(u64::to_ne_bytes).collect();
        let message = link(&[attribute(3, b"eth0\0"), attribute(23, &wide), attribute(7, &[9; 96])]);
        let (name, counters) = parse_link(&message).expect("a link");
        assert_eq!((name, counters[RX_PACKETS], counters[TX_COMPRESSED]), ("eth0", 1, 23));
        assert_eq!(counters[RX_NOHANDLER], 0, "an old kernel does not give the last one");
    }

    #[test]
    fn narrow_counters_do_where_there_are_no_others() {
        let narrow: Vec<u8> = (1_u32..=24).flat_map(u32::to_ne_bytes).collect();
        let message = link(&[attribute(7, &narrow), attribute(3, b"eth0\0")]);
        assert_eq!(parse_link(&message).expect("a link").1[RX_NOHANDLER], 24);
    }

    #[test]
    fn a_link_without_counters_or_name_is_left_out() {
        assert!(parse_link(&link(&[attribute(3, b"eth0\0")])).is_none());
        assert!(parse_link(&link(&[attribute(23, &[0; 192])])).is_none());
        assert!(parse_link(&[]).is_none());
    }
}
