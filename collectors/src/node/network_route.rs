//! The routing tables: every unicast route, and how many of them each interface has.

use std::{
    fmt::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use rustix::io::Errno;

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Host, Options, Samples,
    netlink::{self, GET_ROUTE, Route},
};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "network_route", default_on: false, flags: &[], build };

static INFO: Desc = Desc::gauge(
    "node_network_route_info",
    "network routing table information",
    &["dest", "device", "gw", "priority", "proto", "src", "weight"],
);
static ROUTES: Desc = Desc::gauge("node_network_routes", "network routes by interface", &["device"]);

/// `struct rtmsg`.
const HEADER: usize = 12;
const RTN_UNICAST: u8 = 1;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_MULTIPATH: u16 = 9;
/// `struct rtnexthop`.
const NEXT_HOP_HEADER: usize = 8;

#[derive(Default)]
struct NetworkRoute {
    route: Route,
    /// One for each next hop of each route.
    hops: Vec<Hop>,
    texts: Texts,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Hop {
    /// The number of the interface; 0 when the route has none.
    index: u32,
    gateway: Option<IpAddr>,
    /// Only where a route has several hops.
    weight: Option<u16>,
    target: Target,
}

/// What all hops of a route have in common.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Target {
    destination: Option<IpAddr>,
    /// How many bits of the destination count.
    length: u8,
    source: Option<IpAddr>,
    priority: u32,
    protocol: u8,
}

/// Label values that are written anew for every hop.
#[derive(Default)]
struct Texts {
    destination: String,
    gateway: String,
    priority: String,
    source: String,
    weight: String,
}

fn build(_: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(NetworkRoute::default()))
}

impl Collector for NetworkRoute {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let Self { route, hops, texts } = self;
        let fail = |source| CollectError::System { what: "asking rtnetlink for routes", source };
        hops.clear();
        route.dump(GET_ROUTE, &[0; HEADER], |message| parse_route(message, hops)).map_err(fail)?;
        hops.sort_by_key(|hop| hop.index);
        for hops in hops.chunk_by(|left, right| left.index == right.index) {
            let Some(&Hop { index, .. }) = hops.first() else { continue };
            if index == 0 {
                say("", hops, texts, out);
                continue;
            }
            match route.interface_name(index) {
                Ok(name) => say(name.as_str(), hops, texts, out),
                // The interface went away meanwhile, and its routes with it.
                Err(error) if Errno::from_io_error(&error) == Some(Errno::NODEV) => {}
                Err(error) => return Err(fail(error)),
            }
        }
        Ok(())
    }
}

fn say(device: &str, hops: &[Hop], texts: &mut Texts, out: &mut Samples) {
    for Hop { gateway, weight, target, .. } in hops {
        write_destination(&mut texts.destination, target.destination, target.length);
        rewrite(&mut texts.gateway, gateway.map(|ip| ip.to_canonical()));
        rewrite(&mut texts.priority, Some(target.priority));
        rewrite(&mut texts.source, target.source.map(|ip| ip.to_canonical()));
        rewrite(&mut texts.weight, *weight);
        let values = [
            &texts.destination,
            device,
            &texts.gateway,
            &texts.priority,
            protocol(target.protocol),
            &texts.source,
            &texts.weight,
        ];
        out.push(&INFO, &values, 1.0);
    }
    out.push(&ROUTES, &[device], hops.len() as f64);
}

fn rewrite(text: &mut String, value: Option<impl std::fmt::Display>) {
    text.clear();
    if let Some(value) = value {
        // Writing to a string does not fail.
        let _ = write!(text, "{value}");
    }
}

fn write_destination(text: &mut String, destination: Option<IpAddr>, length: u8) {
    text.clear();
    match destination {
        Some(destination) if length > 0 => {
            let _ = write!(text, "{destination}/{length}");
        }
        _ => text.push_str("default"),
    }
}

/// `struct rtmsg` has the length of the destination at 1, the protocol at 5, the type at 7.
fn parse_route(message: &[u8], hops: &mut Vec<Hop>) {
    let Some((header, rest)) = message.split_first_chunk::<HEADER>() else { return };
    if header[7] != RTN_UNICAST {
        return;
    }
    let mut target =
        Target { destination: None, length: header[1], source: None, priority: 0, protocol: header[5] };
    let mut index = 0;
    let mut gateway = None;
    let mut several: &[u8] = &[];
    for (kind, value) in netlink::attributes(rest) {
        match kind {
            RTA_DST => target.destination = parse_ip(value),
            RTA_OIF => index = netlink::u32_of(value).unwrap_or(0),
            RTA_GATEWAY => gateway = parse_ip(value),
            RTA_PRIORITY => target.priority = netlink::u32_of(value).unwrap_or(0),
            RTA_PREFSRC => target.source = parse_ip(value),
            RTA_MULTIPATH => several = value,
            _ => {}
        }
    }
    if several.is_empty() {
        hops.push(Hop { index, gateway, weight: None, target });
    } else {
        let of_one = |(index, weight, gateway)| Hop { index, gateway, weight: Some(weight), target };
        hops.extend(NextHops(several).map(of_one));
    }
}

/// The value of `RTA_MULTIPATH`, as the number of the interface, the weight and the gateway of each hop:
/// `struct rtnexthop` has its length with attributes at 0, the weight less one at 3, the interface at 4.
struct NextHops<'a>(&'a [u8]);

impl Iterator for NextHops<'_> {
    type Item = (u32, u16, Option<IpAddr>);

    fn next(&mut self) -> Option<Self::Item> {
        let header: &[u8; NEXT_HOP_HEADER] = self.0.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let attributes = self.0.get(NEXT_HOP_HEADER..length)?;
        let gateway = netlink::attributes(attributes).find(|(kind, _)| *kind == RTA_GATEWAY);
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((
            u32::from_ne_bytes([header[4], header[5], header[6], header[7]]),
            u16::from(header[3]) + 1,
            gateway.and_then(|(_, value)| parse_ip(value)),
        ))
    }
}

fn parse_ip(value: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(value) {
        return Some(Ipv4Addr::from(v4).into());
    }
    Some(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?).into())
}

/// Who made a route: `RTPROT_*` in `linux/rtnetlink.h`.
fn protocol(number: u8) -> &'static str {
    match number {
        0 => "unspec",
        1 => "redirect",
        2 => "kernel",
        3 => "boot",
        4 => "static",
        8 => "gated",
        9 => "ra",
        10 => "mrt",
        11 => "zebra",
        12 => "bird",
        13 => "dnrouted",
        14 => "xorp",
        15 => "ntk",
        16 => "dhcp",
        17 => "mrouted",
        42 => "babel",
        186 => "bgp",
        187 => "isis",
        188 => "ospf",
        189 => "rip",
        192 => "eigrp",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, length: u8, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut message = vec![2, length, 0, 0, 254, 3, 0, kind, 0, 0, 0, 0];
        for (kind, value) in attributes {
            netlink::push_attribute(&mut message, *kind, &[value]);
        }
        message
    }

    fn hops(message: &[u8]) -> Vec<Hop> {
        let mut hops = Vec::new();
        parse_route(message, &mut hops);
        hops
    }

    fn said(hops: &[Hop]) -> Vec<String> {
        let mut out = Samples::new();
        say("eth0", hops, &mut Texts::default(), &mut out);
        out.iter().map(|(_, labels, _)| labels.collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn a_route_is_said_with_its_gateway() {
        let attributes: &[(u16, &[u8])] = &[
            (RTA_DST, &[10, 1, 0, 0]),
            (RTA_GATEWAY, &[10, 0, 0, 1]),
            (RTA_PREFSRC, &[10, 0, 0, 7]),
            (RTA_PRIORITY, &100_u32.to_ne_bytes()),
            (RTA_OIF, &3_u32.to_ne_bytes()),
        ];
        let hops = hops(&message(RTN_UNICAST, 16, attributes));
        assert_eq!((hops.len(), hops[0].index), (1, 3));
        assert_eq!(said(&hops), ["10.1.0.0/16 eth0 10.0.0.1 100 boot 10.0.0.7 ", "eth0"]);
    }

    #[test]
    fn a_route_without_destination_is_the_default() {
        let hops = hops(&message(RTN_UNICAST, 0, &[(RTA_OIF, &3_u32.to_ne_bytes())]));
        assert_eq!(said(&hops)[0], "default eth0  0 boot  ");
    }

    #[test]
    fn every_hop_of_a_route_is_said_with_its_weight() {
        let mut several = Vec::new();
        for (weight, last) in [(0, 1), (9, 2)] {
            several.extend(24_u16.to_ne_bytes());
            several.extend([0, weight]);
            several.extend(3_u32.to_ne_bytes());
            let mut v6 = [0; 12];
            v6[11] = last;
            netlink::push_attribute(&mut several, RTA_GATEWAY, &[&v6]);
        }
        let hops = hops(&message(RTN_UNICAST, 0, &[(RTA_MULTIPATH, &several)]));
        assert_eq!(hops.iter().map(|hop| hop.weight).collect::<Vec<_>>(), [Some(1), Some(10)]);
        assert_eq!(hops[1].gateway, None, "twelve bytes are no address");
    }

    #[test]
    fn other_routes_and_cut_messages_are_left_out() {
        assert!(hops(&message(2, 32, &[])).is_empty(), "local");
        let mut several = 16_u16.to_ne_bytes().to_vec();
        several.extend([0, 0, 3, 0, 0, 0, 8, 0, 5, 0, 10, 0, 0, 1]);
        let whole = message(RTN_UNICAST, 24, &[(RTA_MULTIPATH, &several)]);
        assert_eq!(hops(&whole)[0].gateway, Some(IpAddr::from([10, 0, 0, 1])));
        for end in 0..whole.len() {
            hops(&whole[..end]);
        }
        for length in 0..=16 {
            several[0] = length;
            hops(&message(RTN_UNICAST, 24, &[(RTA_MULTIPATH, &several)]));
        }
    }

    #[test]
    fn the_running_kernel_is_understood() {
        NetworkRoute::default().collect(&Host::default(), &mut Samples::new()).expect("the kernel answers");
    }
}
