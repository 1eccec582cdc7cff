//! A link as rtnetlink describes it.

use std::sync::LazyLock;

use crate::netlink;

/// `struct ifinfomsg`: family, type, index, flags, change.
pub(super) const HEADER: usize = 16;

const IFLA_ADDRESS: u16 = 1;
const IFLA_BROADCAST: u16 = 2;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_TXQLEN: u16 = 13;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKMODE: u16 = 17;
const IFLA_IFALIAS: u16 = 20;
const IFLA_GROUP: u16 = 27;
const IFLA_PROMISCUITY: u16 = 30;
const IFLA_STATS64: u16 = 23;
const IFLA_CARRIER: u16 = 33;
const IFLA_CARRIER_CHANGES: u16 = 35;
const IFLA_CARRIER_UP_COUNT: u16 = 47;
const IFLA_CARRIER_DOWN_COUNT: u16 = 48;
const IFLA_PROP_LIST: u16 = 52;
const IFLA_ALLMULTI: u16 = 61;

pub(super) const IFF_UP: u32 = 1;
const IFF_RUNNING: u32 = 1 << 6;
const IFF_PROMISC: u32 = 1 << 8;
const IFF_ALLMULTI: u32 = 1 << 9;
const IFF_LOWER_UP: u32 = 1 << 16;
pub(super) const IFF_DORMANT: u32 = 1 << 17;

const IFLA_EXT_MASK: u16 = 29;
/// Leaves the IPv6 counters of each interface out, which the kernel would sum over all CPUs.
const SKIP_STATS: u32 = 1 << 3;

/// The question for all links: an empty header, then the mask as an attribute of 8 bytes.
pub(super) static REQUEST: LazyLock<[u8; HEADER + 8]> = LazyLock::new(|| {
    let mut request = [0; HEADER + 8];
    request[HEADER..HEADER + 2].copy_from_slice(&8_u16.to_ne_bytes());
    request[HEADER + 2..HEADER + 4].copy_from_slice(&IFLA_EXT_MASK.to_ne_bytes());
    request[HEADER + 4..].copy_from_slice(&SKIP_STATS.to_ne_bytes());
    request
});

/// One message of a dump of links.
#[derive(Debug, Default)]
pub(super) struct Link<'a> {
    pub(super) name: &'a str,
    pub(super) kind: u16,
    pub(super) index: u32,
    pub(super) flags: u32,
    pub(super) address: &'a [u8],
    pub(super) broadcast: &'a [u8],
    pub(super) alias: Option<&'a str>,
    pub(super) mtu: Option<u32>,
    /// Nothing where it is the interface itself.
    pub(super) link: Option<u32>,
    pub(super) queue: Option<u32>,
    pub(super) state: Option<u8>,
    pub(super) link_mode: Option<u8>,
    pub(super) group: Option<u32>,
    pub(super) promiscuity: Option<u32>,
    pub(super) allmulti: Option<u32>,
    pub(super) carrier: Option<u8>,
    pub(super) carrier_changes: Option<u32>,
    pub(super) carrier_up_count: Option<u32>,
    pub(super) carrier_down_count: Option<u32>,
    /// Nested attributes, other names among them.
    pub(super) properties: &'a [u8],
    /// `struct rtnl_link_stats64`.
    pub(super) statistics: &'a [u8],
}

impl<'a> Link<'a> {
    /// Nothing for a message that is cut, or a name that is no text.
    pub(super) fn parse(message: &'a [u8]) -> Option<Self> {
        let (header, attributes) = message.split_at_checked(HEADER)?;
        let number = |at: usize| Some(u32::from_ne_bytes(*header.get(at..)?.first_chunk()?));
        let kind = u16::from_ne_bytes(*header.get(2..)?.first_chunk()?);
        let mut link = Link { kind, index: number(4)?, flags: number(8)?, ..Link::default() };
        for (kind, value) in netlink::attributes(attributes) {
            let byte = || value.first().copied();
            let word = || netlink::u32_of(value);
            match kind {
                IFLA_ADDRESS => link.address = value,
                IFLA_BROADCAST => link.broadcast = value,
                IFLA_IFNAME => link.name = netlink::text(value),
                IFLA_MTU => link.mtu = word(),
                IFLA_LINK => link.link = word(),
                IFLA_TXQLEN => link.queue = word(),
                IFLA_OPERSTATE => link.state = byte(),
                IFLA_LINKMODE => link.link_mode = byte(),
                IFLA_IFALIAS => link.alias = Some(netlink::text(value)),
                IFLA_GROUP => link.group = word(),
                IFLA_PROMISCUITY => link.promiscuity = word(),
                IFLA_ALLMULTI => link.allmulti = word(),
                IFLA_CARRIER => link.carrier = byte(),
                IFLA_CARRIER_CHANGES => link.carrier_changes = word(),
                IFLA_CARRIER_UP_COUNT => link.carrier_up_count = word(),
                IFLA_PROP_LIST => link.properties = value,
                IFLA_STATS64 => link.statistics = value,
                IFLA_CARRIER_DOWN_COUNT => link.carrier_down_count = word(),
                _ => {}
            }
        }
        (!link.name.is_empty()).then_some(link)
    }

    /// The flags as the `flags` file has them: without the state of the link, and with what others than the
    /// administrator asked for.
    pub(super) fn device_flags(&self) -> u32 {
        let counted = |count: Option<u32>, flag: u32| match count {
            Some(0) => 0,
            Some(_) => flag,
            None => self.flags & flag,
        };
        const STATE: u32 = IFF_RUNNING | IFF_LOWER_UP | IFF_DORMANT;
        self.flags & !(STATE | IFF_PROMISC | IFF_ALLMULTI)
            | counted(self.promiscuity, IFF_PROMISC)
            | counted(self.allmulti, IFF_ALLMULTI)
    }
}

/// The kernel's words for `operstate`.
pub(super) const STATES: [&str; 7] =
    ["unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up"];

/// "02:fc:00:00:00:01", into `text`.
pub(super) fn write_address(address: &[u8], text: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    text.clear();
    for (at, byte) in address.iter().enumerate() {
        if at > 0 {
            text.push(':');
        }
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_the_kernel_does() {
        let mut text = "old".to_owned();
        write_address(&[2, 0xfc, 0, 0, 0, 0xa1], &mut text);
        assert_eq!(text, "02:fc:00:00:00:a1");
        write_address(&[], &mut text);
        assert_eq!(text, "");
    }

    #[test]
    fn a_cut_message_is_no_link() {
        let mut message = vec![0; HEADER];
        assert!(Link::parse(&message).is_none(), "it has no name");
        message.extend([7, 0, 3, 0, b'l', b'o', 0, 0]);
        assert_eq!(Link::parse(&message).map(|link| link.name), Some("lo"));
        for end in 0..message.len() {
            assert!(Link::parse(&message[..end.min(HEADER + 5)]).is_none());
        }
    }
}
