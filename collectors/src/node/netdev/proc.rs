//! Counters of interfaces as `/proc/net/dev` lists them.

use super::{Statistic, statistic};
use crate::Desc;

// The order of the columns.
const RX_BYTES: usize = 0;
const RX_PACKETS: usize = 1;
const RX_ERRORS: usize = 2;
const RX_DROPPED: usize = 3;
const RX_FIFO: usize = 4;
const RX_FRAME: usize = 5;
const RX_COMPRESSED: usize = 6;
const RX_MULTICAST: usize = 7;
const TX_BYTES: usize = 8;
const TX_PACKETS: usize = 9;
const TX_ERRORS: usize = 10;
const TX_DROPPED: usize = 11;
const TX_FIFO: usize = 12;
const TX_COLLISIONS: usize = 13;
const TX_CARRIER: usize = 14;
const TX_COMPRESSED: usize = 15;
const COUNT: usize = 16;

/// The names of old.
pub(super) static MERGED: [Statistic; COUNT] = [
    statistic!("receive_bytes", [RX_BYTES]),
    statistic!("receive_packets", [RX_PACKETS]),
    statistic!("receive_errs", [RX_ERRORS]),
    statistic!("receive_drop", [RX_DROPPED]),
    statistic!("receive_fifo", [RX_FIFO]),
    statistic!("receive_frame", [RX_FRAME]),
    statistic!("receive_compressed", [RX_COMPRESSED]),
    statistic!("receive_multicast", [RX_MULTICAST]),
    statistic!("transmit_bytes", [TX_BYTES]),
    statistic!("transmit_packets", [TX_PACKETS]),
    statistic!("transmit_errs", [TX_ERRORS]),
    statistic!("transmit_drop", [TX_DROPPED]),
    statistic!("transmit_fifo", [TX_FIFO]),
    statistic!("transmit_colls", [TX_COLLISIONS]),
    statistic!("transmit_carrier", [TX_CARRIER]),
    statistic!("transmit_compressed", [TX_COMPRESSED]),
];

/// As near to the kernel's names as this file allows.
pub(super) static DETAILED: [Statistic; COUNT] = [
    statistic!("receive_bytes", [RX_BYTES]),
    statistic!("receive_packets", [RX_PACKETS]),
    statistic!("receive_errors", [RX_ERRORS]),
    statistic!("receive_dropped", [RX_DROPPED]),
    statistic!("receive_fifo", [RX_FIFO]),
    statistic!("receive_frame", [RX_FRAME]),
    statistic!("receive_compressed", [RX_COMPRESSED]),
    statistic!("receive_multicast", [RX_MULTICAST]),
    statistic!("transmit_bytes", [TX_BYTES]),
    statistic!("transmit_packets", [TX_PACKETS]),
    statistic!("transmit_errors", [TX_ERRORS]),
    statistic!("transmit_dropped", [TX_DROPPED]),
    statistic!("transmit_fifo", [TX_FIFO]),
    statistic!("transmit_colls", [TX_COLLISIONS]),
    statistic!("transmit_carrier", [TX_CARRIER]),
    statistic!("transmit_compressed", [TX_COMPRESSED]),
];

/// Hands the name and the counters of every interface below the two lines of headings to `each`.
pub(super) fn lines(text: &str, mut each: impl FnMut(&str, &[u64])) -> Result<(), String> {
    for line in text.lines().skip(2) {
        let (name, counters) = parse_line(line)
            .ok_or_else(|| format!("expected INTERFACE: and {COUNT} numbers, got {line:?}"))?;
        each(name, &counters);
    }
    Ok(())
}

/// `/proc/net/dev`: "  eth0: 68210035552 520993275    0    0 ..."; an alias such as eth0:0 has a colon in its name.
fn parse_line(line: &str) -> Option<(&str, [u64; COUNT])> {
    let (name, numbers) = line.rsplit_once(':')?;
    let name = name.trim();
    let mut words = numbers.split_ascii_whitespace();
    let mut counters = [0; COUNT];
    for counter in &mut counters {
        *counter = words.next()?.parse().ok()?;
    }
    (!name.is_empty()).then_some((name, counters))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_a_colon_and_touch_the_first_number() {
        let (name, counters) =
            parse_line("eth0:0:1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16").expect("understood");
        assert_eq!((name, counters[RX_BYTES], counters[TX_COMPRESSED]), ("eth0:0", 1, 16));
    }

    #[test]
    fn cut_and_odd_lines_are_refused() {
        for line in [
            "",
            "eth0",
            "eth0: 1 2 3",
            "eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 x",
            ": 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6",
        ] {
            assert_eq!(parse_line(line), None, "{line:?}");
        }
        assert_eq!(lines("", |_, _| ()), Ok(()));
    }
}
