//! What speeds, ports and ways of negotiating a device supports and offers.

use crate::{Desc, Samples, netlink};

static PORTS: Desc = Desc::gauge(
    "node_network_supported_port_info",
    "Type of ports or PHYs supported by network device",
    &["device", "type"],
);
static NEGOTIATES: Desc =
    Desc::gauge("node_network_autonegotiate", "If this port is using autonegotiate", &["device"]);

/// The families of one set of link modes.
struct Families {
    speed: Desc,
    negotiation: Desc,
    pause: Desc,
    asymmetric_pause: Desc,
}

static SUPPORTED: Families = Families {
    speed: Desc::gauge(
        "node_network_supported_speed_bytes",
        "Combination of speeds and features supported by network device",
        &["device", "duplex", "mode"],
    ),
    negotiation: Desc::gauge(
        "node_network_autonegotiate_supported",
        "If this port device supports autonegotiate",
        &["device"],
    ),
    pause: Desc::gauge(
        "node_network_pause_supported",
        "If this port device supports pause frames",
        &["device"],
    ),
    asymmetric_pause: Desc::gauge(
        "node_network_asymmetricpause_supported",
        "If this port device supports asymmetric pause frames",
        &["device"],
    ),
};

static ADVERTISED: Families = Families {
    speed: Desc::gauge(
        "node_network_advertised_speed_bytes",
        "Combination of speeds and features offered by network device",
        &["device", "duplex", "mode"],
    ),
    negotiation: Desc::gauge(
        "node_network_autonegotiate_advertised",
        "If this port device offers autonegotiate",
        &["device"],
    ),
    pause: Desc::gauge(
        "node_network_pause_advertised",
        "If this port device offers pause capability",
        &["device"],
    ),
    asymmetric_pause: Desc::gauge(
        "node_network_asymmetricpause_advertised",
        "If this port device offers asymmetric pause capability",
        &["device"],
    ),
};

// `enum ethtool_link_mode_bit_indices`; this call knows its first 32.
const NEGOTIATION: u32 = 6;
const PAUSE: u32 = 13;
const ASYMMETRIC_PAUSE: u32 = 14;
const PORT_NAMES: [(u32, &str); 6] =
    [(7, "TP"), (8, "AUI"), (9, "MII"), (10, "FIBRE"), (11, "BNC"), (16, "Backplane")];

const HALF: &str = "half";
const FULL: &str = "full";

/// Bit, megabits per second, duplex, name. Bit 15, 2500baseX, has no series in node_exporter either.
const SPEEDS: [(u32, u32, &str, &str); 22] = [
    (0, 10, HALF, "10baseT"),
    (1, 10, FULL, "10baseT"),
    (2, 100, HALF, "100baseT"),
    (3, 100, FULL, "100baseT"),
    (4, 1000, HALF, "1000baseT"),
    (5, 1000, FULL, "1000baseT"),
    (12, 10_000, FULL, "10000baseT"),
    (17, 1000, FULL, "1000baseKX"),
    (18, 10_000, FULL, "10000baseKX4"),
    (19, 10_000, FULL, "10000baseKR"),
    (20, 10_000, FULL, "10000baseR_FEC"),
    (21, 20_000, FULL, "20000baseMLD2"),
    (22, 20_000, FULL, "20000baseKR2"),
    (23, 40_000, FULL, "40000baseKR4"),
    (24, 40_000, FULL, "40000baseCR4"),
    (25, 40_000, FULL, "40000baseSR4"),
    (26, 40_000, FULL, "40000baseLR4"),
    (27, 56_000, FULL, "56000baseKR4"),
    (28, 56_000, FULL, "56000baseCR4"),
    (29, 56_000, FULL, "56000baseSR4"),
    (30, 56_000, FULL, "56000baseLR4"),
    (31, 25_000, FULL, "25000baseCR"),
];

const BYTES_PER_MEGABIT: f64 = 1_000_000.0 / 8.0;

/// Says `struct ethtool_cmd`, which has the supported modes at 4, the advertised ones at 8, whether they are negotiated
/// at 18.
pub(super) fn say(device: &str, answer: &[u8], out: &mut Samples) {
    let modes = |at| answer.get(at..).and_then(netlink::u32_of);
    let (Some(supported), Some(advertised), Some(&negotiates)) = (modes(4), modes(8), answer.get(18)) else {
        return;
    };
    say_modes(&SUPPORTED, device, supported, out);
    for (bit, name) in PORT_NAMES {
        if has(supported, bit) {
            out.push(&PORTS, &[device, name], 1.0);
        }
    }
    say_modes(&ADVERTISED, device, advertised, out);
    out.push(&NEGOTIATES, &[device], negotiates.into());
}

fn say_modes(families: &'static Families, device: &str, modes: u32, out: &mut Samples) {
    for (bit, megabits, duplex, name) in SPEEDS {
        if has(modes, bit) {
            out.push(&families.speed, &[device, duplex, name], f64::from(megabits) * BYTES_PER_MEGABIT);
        }
    }
    let mut say = |desc, bit| out.push(desc, &[device], f64::from(u8::from(has(modes, bit))));
    say(&families.negotiation, NEGOTIATION);
    say(&families.pause, PAUSE);
    say(&families.asymmetric_pause, ASYMMETRIC_PAUSE);
}

fn has(modes: u32, bit: u32) -> bool {
    modes & (1 << bit) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(supported: u32, advertised: u32) -> Vec<String> {
        let mut answer = [1, supported, advertised].map(u32::to_ne_bytes).concat();
        answer.resize(44, 0);
        answer[18] = 1;
        let mut out = Samples::new();
        say("eth7", &answer, &mut out);
        let line = |(name, labels, value): (&str, crate::samples::LabelValues, f64)| {
            format!("{name} {} {value}", labels.collect::<Vec<_>>().join(" "))
        };
        out.iter().map(line).collect()
    }

    #[test]
    fn modes_are_speeds_ports_and_capabilities() {
        let lines = said(1 << 5 | 1 << 6 | 1 << 7 | 1 << 14 | 1 << 31, 1 << 2 | 1 << 13);
        assert_eq!(
            lines,
            [
                "node_network_supported_speed_bytes eth7 full 1000baseT 125000000",
                "node_network_supported_speed_bytes eth7 full 25000baseCR 3125000000",
                "node_network_autonegotiate_supported eth7 1",
                "node_network_pause_supported eth7 0",
                "node_network_asymmetricpause_supported eth7 1",
                "node_network_supported_port_info eth7 TP 1",
                "node_network_advertised_speed_bytes eth7 half 100baseT 12500000",
                "node_network_autonegotiate_advertised eth7 0",
                "node_network_pause_advertised eth7 1",
                "node_network_asymmetricpause_advertised eth7 0",
                "node_network_autonegotiate eth7 1",
            ]
        );
    }

    #[test]
    fn every_bit_has_at_most_one_meaning() {
        let mut bits: Vec<u32> = SPEEDS.iter().map(|speed| speed.0).collect();
        bits.extend(PORT_NAMES.map(|port| port.0));
        bits.extend([NEGOTIATION, PAUSE, ASYMMETRIC_PAUSE]);
        bits.sort_unstable();
        assert!(bits.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(bits.len(), 31);
    }

    #[test]
    fn a_cut_answer_says_nothing() {
        let mut out = Samples::new();
        say("eth7", &[0xff; 18], &mut out);
        assert!(out.is_empty());
    }
}
