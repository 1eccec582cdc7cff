//! Wireless interfaces as the kernel's nl80211 family knows them.

use std::io;

use super::{Interface, Network, Station};
use crate::netlink::{self, Generic, GenericFamily};

const CMD_GET_INTERFACE: u8 = 5;
const CMD_GET_STATION: u8 = 17;
const CMD_GET_SCAN: u8 = 32;

const ATTR_IFINDEX: u16 = 3;
const ATTR_IFNAME: u16 = 4;
const ATTR_MAC: u16 = 6;
const ATTR_STA_INFO: u16 = 21;
const ATTR_WIPHY_FREQ: u16 = 38;
const ATTR_BSS: u16 = 47;

const BSS_BSSID: u16 = 1;
const BSS_INFORMATION_ELEMENTS: u16 = 6;
const BSS_STATUS: u16 = 9;

/// The information element with the network's name.
const ELEMENT_SSID: u8 = 0;

const STA_INACTIVE_TIME: u16 = 1;
const STA_RX_BYTES: u16 = 2;
const STA_TX_BYTES: u16 = 3;
const STA_SIGNAL: u16 = 7;
const STA_TX_BITRATE: u16 = 8;
const STA_RX_PACKETS: u16 = 9;
const STA_TX_PACKETS: u16 = 10;
const STA_TX_RETRIES: u16 = 11;
const STA_TX_FAILED: u16 = 12;
const STA_RX_BITRATE: u16 = 14;
const STA_CONNECTED_TIME: u16 = 16;
const STA_BEACON_LOSS: u16 = 18;
const STA_RX_BYTES64: u16 = 23;
const STA_TX_BYTES64: u16 = 24;

const RATE_BITRATE: u16 = 1;
const RATE_BITRATE32: u16 = 5;

/// The interfaces that have a name; some virtual devices have none.
pub(super) fn interfaces(generic: &mut Generic, family: GenericFamily) -> io::Result<Vec<Interface>> {
    let mut interfaces = Vec::new();
    generic.dump(family, CMD_GET_INTERFACE, &[], |message| interfaces.extend(parse_interface(message)))?;
    Ok(interfaces)
}

/// The network that an interface belongs to, out of those it has seen.
pub(super) fn network(
    generic: &mut Generic,
    family: GenericFamily,
    index: u32,
) -> io::Result<Option<Network>> {
    let mut found = None;
    generic.dump(family, CMD_GET_SCAN, &of_interface(index), |message| {
        found = found.take().or_else(|| parse_network(message));
    })?;
    found.transpose()
}

/// The stations that an interface talks to.
pub(super) fn stations(generic: &mut Generic, family: GenericFamily, index: u32) -> io::Result<Vec<Station>> {
    let mut stations = Vec::new();
    generic.dump(family, CMD_GET_STATION, &of_interface(index), |message| {
        stations.extend(parse_station(message));
    })?;
    Ok(stations)
}

fn of_interface(index: u32) -> Vec<u8> {
    let mut request = Vec::new();
    netlink::push_attribute(&mut request, ATTR_IFINDEX, &[&index.to_ne_bytes()]);
    request
}

fn parse_interface(message: &[u8]) -> Option<Interface> {
    let mut interface = Interface { index: 0, name: String::new(), megahertz: 0 };
    for (kind, value) in netlink::attributes(message) {
        match kind {
            ATTR_IFINDEX => interface.index = netlink::u32_of(value)?,
            ATTR_IFNAME => netlink::text(value).clone_into(&mut interface.name),
            ATTR_WIPHY_FREQ => interface.megahertz = netlink::u32_of(value)?.into(),
            _ => {}
        }
    }
    (!interface.name.is_empty()).then_some(interface)
}

/// A network, if it is the one that the interface belongs to: only that has a status.
fn parse_network(message: &[u8]) -> Option<io::Result<Network>> {
    let (_, network) = netlink::attributes(message).find(|(kind, _)| *kind == ATTR_BSS)?;
    let mut found = Network::default();
    let mut status = None;
    for (kind, value) in netlink::attributes(network) {
        match kind {
            BSS_BSSID => found.address = value.to_vec(),
            BSS_STATUS => status = netlink::u32_of(value),
            BSS_INFORMATION_ELEMENTS => match parse_name(value) {
                Some(name) => found.name = name,
                None => return Some(Err(io::ErrorKind::InvalidData.into())),
            },
            _ => {}
        }
    }
    found.status = status?.into();
    Some(Ok(found))
}

/// The network's name out of its information elements, each a kind, a length and as many bytes; empty when there is none.
fn parse_name(mut elements: &[u8]) -> Option<String> {
    let mut name = String::new();
    while let Some((&kind, rest)) = elements.split_first() {
        let (&length, rest) = rest.split_first()?;
        let (value, rest) = rest.split_at_checked(length.into())?;
        if kind == ELEMENT_SSID {
            name = text(value);
        }
        elements = rest;
    }
    Some(name)
}

/// Any bytes may be a name: each that is not UTF-8 becomes U+FFFD.
fn text(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    text
}

fn parse_station(message: &[u8]) -> Option<Station> {
    let (mut address, mut info) = (&[][..], None);
    for (kind, value) in netlink::attributes(message) {
        match kind {
            ATTR_MAC => address = value,
            ATTR_STA_INFO => info = Some(value),
            _ => {}
        }
    }
    let mut station = Station { address: address.to_vec(), ..Station::default() };
    // The older counters of 32 bits, for drivers that give no others.
    let (mut received, mut transmitted) = (0, 0);
    for (kind, value) in netlink::attributes(info?) {
        let narrow = || netlink::u32_of(value).map_or(0, i64::from);
        let wide = || netlink::u64_of(value).map_or(0, |number| number as i64);
        match kind {
            STA_CONNECTED_TIME => station.connected_seconds = narrow() as f64,
            STA_INACTIVE_TIME => station.inactive_seconds = milliseconds(narrow()),
            STA_RX_BYTES64 => station.received_bytes = wide(),
            STA_TX_BYTES64 => station.transmitted_bytes = wide(),
            STA_RX_BYTES => received = narrow(),
            STA_TX_BYTES => transmitted = narrow(),
            STA_SIGNAL => station.signal = value.first().map_or(0, |&byte| byte.cast_signed().into()),
            STA_RX_PACKETS => station.received_packets = narrow(),
            STA_TX_PACKETS => station.transmitted_packets = narrow(),
            STA_TX_RETRIES => station.retries = narrow(),
            STA_TX_FAILED => station.failed = narrow(),
            STA_BEACON_LOSS => station.beacon_loss = narrow(),
            STA_RX_BITRATE => station.receive_rate = parse_rate(value),
            STA_TX_BITRATE => station.transmit_rate = parse_rate(value),
            _ => {}
        }
    }
    if station.received_bytes == 0 {
        station.received_bytes = received;
    }
    if station.transmitted_bytes == 0 {
        station.transmitted_bytes = transmitted;
    }
    Some(station)
}

/// In seconds; whole ones and the rest apart, as node_exporter adds them up.
fn milliseconds(number: i64) -> f64 {
    (number / 1000) as f64 + (number % 1000 * 1_000_000) as f64 / 1e9
}

/// Bits per second; the kernel counts by 100 000.
fn parse_rate(value: &[u8]) -> i64 {
    let (mut narrow, mut wide) = (0, 0);
    for (kind, value) in netlink::attributes(value) {
        match kind {
            RATE_BITRATE => narrow = netlink::u16_of(value).map_or(0, i64::from),
            RATE_BITRATE32 => wide = netlink::u32_of(value).map_or(0, i64::from),
            _ => {}
        }
    }
    100_000 * if wide == 0 { narrow } else { wide }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(pairs: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, value) in pairs {
            netlink::push_attribute(&mut bytes, *kind, &[value]);
        }
        bytes
    }

    #[test]
    fn an_interface_needs_a_name() {
        let index = 3_u32.to_ne_bytes();
        let frequency = 5180_u32.to_ne_bytes();
        let named =
            attributes(&[(ATTR_IFINDEX, &index), (ATTR_IFNAME, b"wl0\0"), (ATTR_WIPHY_FREQ, &frequency)]);
        let expected = Interface { index: 3, name: "wl0".into(), megahertz: 5180 };
        assert_eq!(parse_interface(&named), Some(expected));
        assert_eq!(parse_interface(&attributes(&[(ATTR_IFINDEX, &index)])), None);
    }

    #[test]
    fn the_network_with_a_status_is_the_own_one() {
        let elements = [&[1, 2, 9, 9, ELEMENT_SSID, 5][..], b"ra\xffck", &[3, 0]].concat();
        let other = attributes(&[(BSS_BSSID, &[1, 2])]);
        assert!(parse_network(&attributes(&[(ATTR_BSS, &other)])).is_none());
        let status = 1_u32.to_ne_bytes();
        let own = [(BSS_BSSID, &[1, 2][..]), (BSS_INFORMATION_ELEMENTS, &elements), (BSS_STATUS, &status)];
        let found = parse_network(&attributes(&[(ATTR_BSS, &attributes(&own))]));
        let expected = Network { address: vec![1, 2], name: "ra\u{fffd}ck".into(), status: 1 };
        assert_eq!(found.expect("a status").expect("understood"), expected);
    }

    #[test]
    fn cut_information_elements_are_refused() {
        assert_eq!(parse_name(&[]), Some(String::new()));
        assert_eq!(parse_name(&[ELEMENT_SSID]), None);
        assert_eq!(parse_name(&[ELEMENT_SSID, 2, b'a']), None);
    }

    #[test]
    fn a_station_has_wide_counters_or_narrow_ones() {
        let rate =
            attributes(&[(RATE_BITRATE, &10_u16.to_ne_bytes()), (RATE_BITRATE32, &70_000_u32.to_ne_bytes())]);
        let old_rate = attributes(&[(RATE_BITRATE, &10_u16.to_ne_bytes())]);
        let info = attributes(&[
            (STA_INACTIVE_TIME, &1250_u32.to_ne_bytes()),
            (STA_CONNECTED_TIME, &60_u32.to_ne_bytes()),
            (STA_RX_BYTES, &1_u32.to_ne_bytes()),
            (STA_RX_BYTES64, &(1_u64 << 40).to_ne_bytes()),
            (STA_TX_BYTES, &7_u32.to_ne_bytes()),
            (STA_SIGNAL, &[(-52_i8).cast_unsigned()]),
            (STA_RX_BITRATE, &rate),
            (STA_TX_BITRATE, &old_rate),
        ]);
        let whole = attributes(&[(ATTR_MAC, &[1, 2, 3]), (ATTR_STA_INFO, &info)]);
        let expected = Station {
            address: vec![1, 2, 3],
            connected_seconds: 60.0,
            inactive_seconds: 1.25,
            receive_rate: 7_000_000_000,
            transmit_rate: 1_000_000,
            received_bytes: 1 << 40,
            transmitted_bytes: 7,
            signal: -52,
            ..Station::default()
        };
        assert_eq!(parse_station(&whole), Some(expected));
        assert_eq!(parse_station(&attributes(&[(ATTR_MAC, &[1, 2, 3])])), None);
        for end in 0..whole.len() {
            parse_station(&whole[..end]);
        }
    }
}
