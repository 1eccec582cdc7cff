//! Addresses of interfaces.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::{
    CollectError, Desc, Samples,
    filter::Filter,
    netlink::{self, GET_ADDRESS, GET_LINK, Route},
};

static INFO: Desc = Desc::gauge(
    "node_network_address_info",
    "node network address by device",
    &["address", "device", "netmask", "scope"],
);

/// `struct ifinfomsg`: the index stands at byte 4.
const LINK_HEADER: usize = 16;
/// `struct ifaddrmsg`: family, prefix length, flags, scope, index of the interface.
const ADDRESS_HEADER: usize = 8;
const IFLA_IFNAME: u16 = 3;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

pub(super) fn say(route: &mut Route, filter: &Filter, out: &mut Samples) -> Result<(), CollectError> {
    let fail = |source| CollectError::System { what: "asking rtnetlink for addresses", source };
    let mut names = HashMap::new();
    let links = route.dump(GET_LINK, &[0; LINK_HEADER], |message| names.extend(parse_name(message)));
    links.map_err(fail)?;
    let addresses = route.dump(GET_ADDRESS, &[0; ADDRESS_HEADER], |message| {
        let Some(Address { index, ip, prefix }) = parse_address(message) else { return };
        if let Some(name) = names.get(&index).filter(|name| !filter.ignores(name)) {
            out.push(&INFO, &[&ip.to_string(), name, &prefix.to_string(), scope(ip)], 1.0);
        }
    });
    addresses.map_err(fail)
}

fn parse_name(message: &[u8]) -> Option<(u32, String)> {
    let (header, attributes) = message.split_first_chunk::<LINK_HEADER>()?;
    let index = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
    let (_, name) = netlink::attributes(attributes).find(|(kind, _)| *kind == IFLA_IFNAME)?;
    Some((index, netlink::text(name).to_owned()))
}

#[derive(Debug, PartialEq)]
struct Address {
    /// The number of the interface.
    index: u32,
    ip: IpAddr,
    /// How many bits name the network.
    prefix: u8,
}

/// On a point-to-point link `IFA_ADDRESS` is the other end, and the own one is `IFA_LOCAL`.
fn parse_address(message: &[u8]) -> Option<Address> {
    let (header, attributes) = message.split_first_chunk::<ADDRESS_HEADER>()?;
    let mut found = None;
    for (kind, value) in netlink::attributes(attributes) {
        match kind {
            IFA_LOCAL => found = Some(value),
            IFA_ADDRESS => found = found.or(Some(value)),
            _ => {}
        }
    }
    let value = found?;
    let (ip, prefix) = if let Ok(v4) = <[u8; 4]>::try_from(value) {
        (Ipv4Addr::from(v4).into(), header[1])
    } else {
        as_written(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?), header[1])
    };
    let index = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
    Some(Address { index, ip, prefix })
}

/// `::ffff:10.0.0.1/128` is written as the address of IPv4 in it, 10.0.0.1/32.
fn as_written(ip: Ipv6Addr, prefix: u8) -> (IpAddr, u8) {
    match ip.to_ipv4_mapped() {
        Some(v4) => (v4.into(), prefix.saturating_sub(96)),
        None => (ip.into(), prefix),
    }
}

/// The words of node_exporter, which counts loopback addresses as local to the link.
fn scope(ip: IpAddr) -> &'static str {
    let (link_local, interface_local) = match ip {
        IpAddr::V4(v4) => (v4.is_link_local() || matches!(v4.octets(), [224, 0, 0, _]), false),
        IpAddr::V6(v6) => {
            let [first, second, ..] = v6.octets();
            let multicast = |scope| first == 0xff && second & 0xf == scope;
            (v6.is_unicast_link_local() || multicast(2), multicast(1))
        }
    };
    if ip.is_loopback() || link_local {
        "link-local"
    } else if interface_local {
        "interface-local"
    } else if ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
        ""
    } else {
        "global"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_end_of_a_point_to_point_link_counts() {
        let mut message = vec![2, 32, 0, 0, 5, 0, 0, 0];
        message[4..8].copy_from_slice(&5_u32.to_ne_bytes());
        for (kind, last) in [(IFA_ADDRESS, 1), (IFA_LOCAL, 2)] {
            message.extend(8_u16.to_ne_bytes());
            message.extend(kind.to_ne_bytes());
            message.extend([10, 0, 0, last]);
        }
        let ip = IpAddr::from([10, 0, 0, 2]);
        assert_eq!(parse_address(&message), Some(Address { index: 5, ip, prefix: 32 }));
        assert_eq!(parse_address(&message[..8]), None);
        assert_eq!(parse_address(&[]), None);
    }

    #[test]
    fn an_address_of_ipv4_in_one_of_ipv6_is_written_as_such() {
        let [mapped, other] = ["::ffff:10.0.0.1", "2001:db8::1"].map(|ip| ip.parse().expect("an address"));
        assert_eq!(as_written(mapped, 128), (IpAddr::from([10, 0, 0, 1]), 32));
        assert_eq!(as_written(other, 64), (other.into(), 64));
    }

    #[test]
    fn scopes_are_named_by_the_kind_of_address() {
        for (ip, expected) in [
            ("127.0.0.1", "link-local"),
            ("169.254.1.1", "link-local"),
            ("fe80::1", "link-local"),
            ("::1", "link-local"),
            ("ff01::1", "interface-local"),
            ("192.168.0.1", "global"),
            ("2001:db8::1", "global"),
            ("0.0.0.0", ""),
        ] {
            assert_eq!(scope(ip.parse().expect("an address")), expected, "{ip}");
        }
    }
}
