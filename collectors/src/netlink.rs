//! Questions to the kernel over netlink: routing tables, sockets, and the generic families.
//!
//! Attributes are walked, not decoded into types: a collector wants two of the sixty that a link has, and a kernel newer
//! than the decoder must not cost it those two.

use std::io;

use netlink_packet_core::{
    NLA_HEADER_SIZE, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer,
    NlasIterator,
};
use netlink_sys::{
    Socket, SocketAddr,
    protocols::{NETLINK_GENERIC, NETLINK_ROUTE, NETLINK_SOCK_DIAG},
};
use rustix::net::netdevice;

/// A dump of all links, `struct ifinfomsg` in front of the attributes.
pub const GET_LINK: u16 = 18;
/// A dump of all addresses, `struct ifaddrmsg` in front of the attributes.
pub const GET_ADDRESS: u16 = 22;
/// A dump of all routes, `struct rtmsg` in front of the attributes.
pub const GET_ROUTE: u16 = 26;
/// A dump of the neighbour tables, `struct ndmsg` in front of the attributes.
pub const GET_NEIGHBOUR: u16 = 30;
/// A dump of all queueing disciplines, `struct tcmsg` in front of the attributes.
pub const GET_QDISC: u16 = 38;

/// A dump of the sockets of one family, `struct inet_diag_msg` in front of the attributes.
pub const SOCK_DIAG_BY_FAMILY: u16 = 20;

/// `struct nlmsghdr`.
const NETLINK_HEADER_LEN: usize = 16;

/// `struct genlmsghdr`.
const GENERIC_HEADER_LEN: usize = 4;

/// The kernel never answers with more than this at once.
const ANSWER: usize = 64 * 1024;

/// The routing tables: links, addresses, routes, neighbours, queueing disciplines.
pub type Route = Connection<NETLINK_ROUTE>;

/// The sockets of this network namespace.
pub type SocketDiagnosis = Connection<NETLINK_SOCK_DIAG>;

/// A socket to the kernel that is opened at the first question and stays open between scrapes.
#[derive(Default)]
pub struct Connection<const PROTOCOL: isize> {
    socket: Option<Socket>,
    request: Vec<u8>,
    buffer: Vec<u8>,
    sequence: u32,
}

impl<const PROTOCOL: isize> Connection<PROTOCOL> {
    /// Asks for a dump of `kind`, and hands every message of the answer, without its header, to `each`.
    pub fn dump(&mut self, kind: u16, request: &[u8], each: impl FnMut(&[u8])) -> io::Result<()> {
        self.exchange(kind, NLM_F_REQUEST | NLM_F_DUMP, &[request], each)
    }

    /// Asks for one thing, the parts of the request one after the other.
    fn ask(&mut self, kind: u16, request: &[&[u8]], each: impl FnMut(&[u8])) -> io::Result<()> {
        // The acknowledgement marks the end of the answer, as the last message of a dump does.
        self.exchange(kind, NLM_F_REQUEST | NLM_F_ACK, request, each)
    }

    fn exchange(
        &mut self,
        kind: u16,
        flags: u16,
        request: &[&[u8]],
        each: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => connect(PROTOCOL)?,
        };
        self.sequence = self.sequence.wrapping_add(1);
        write_packet(&mut self.request, kind, flags, self.sequence, request);
        socket.send(&self.request, 0)?;
        match read_answer(&socket, self.sequence, &mut self.buffer, each) {
            // A socket on which reading failed is not kept: part of an old answer may still be in it.
            Err(Failure::Reading(error)) => Err(error),
            Err(Failure::Refused(error)) => {
                self.socket = Some(socket);
                Err(error)
            }
            Ok(()) => {
                self.socket = Some(socket);
                Ok(())
            }
        }
    }

    /// The name of an interface as it is now; `ENODEV` when there is none of that number any more.
    pub fn interface_name(&mut self, index: u32) -> io::Result<netdevice::InlinedName> {
        // The ioctl works on any socket, and costs a fraction of a message for the whole link.
        let socket = match &self.socket {
            Some(socket) => socket,
            None => self.socket.insert(connect(PROTOCOL)?),
        };
        Ok(netdevice::index_to_name_inlined(socket, index)?)
    }
}

/// The generic families, which are named, not numbered: ethtool, nl80211 and many more.
#[derive(Default)]
pub struct Generic {
    connection: Connection<NETLINK_GENERIC>,
    request: Vec<u8>,
}

/// A family of [`Generic`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GenericFamily {
    id: u16,
    version: u8,
}

/// The family of families.
const CONTROL: GenericFamily = GenericFamily { id: 16, version: 1 };
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const CTRL_ATTR_VERSION: u16 = 3;

impl Generic {
    /// Looks a family up by its name; `NotFound` when no module offers it. Its number holds until the module that
    /// offers it goes, and another may then get it.
    pub fn family(&mut self, name: &str) -> io::Result<GenericFamily> {
        let mut attribute = Vec::new();
        push_attribute(&mut attribute, CTRL_ATTR_FAMILY_NAME, &[name.as_bytes(), &[0]]);
        let header = [CTRL_CMD_GETFAMILY, CONTROL.version, 0, 0];
        let mut found = None;
        self.connection.ask(CONTROL.id, &[&header, &attribute], |message| {
            found = found.or_else(|| parse_family(message));
        })?;
        found.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Asks a family for a dump, `attributes` in the request, and hands the attributes of every message of the answer
    /// to `each`.
    pub fn dump(
        &mut self,
        family: GenericFamily,
        command: u8,
        attributes: &[u8],
        mut each: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        self.request.clear();
        self.request.extend([command, family.version, 0, 0]);
        self.request.extend(attributes);
        self.connection.dump(family.id, &self.request, |message| {
            if let Some(attributes) = message.get(GENERIC_HEADER_LEN..) {
                each(attributes);
            }
        })
    }
}

fn parse_family(message: &[u8]) -> Option<GenericFamily> {
    let (mut id, mut version) = (None, 0);
    for (kind, value) in attributes(message.get(GENERIC_HEADER_LEN..)?) {
        match kind {
            CTRL_ATTR_FAMILY_ID => id = u16_of(value),
            CTRL_ATTR_VERSION => version = u32_of(value)? as u8,
            _ => {}
        }
    }
    Some(GenericFamily { id: id?, version })
}

fn connect(protocol: isize) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

fn write_packet(packet: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, request: &[&[u8]]) {
    packet.clear();
    packet.resize(NETLINK_HEADER_LEN, 0);
    for part in request {
        packet.extend_from_slice(part);
    }
    let length = packet.len() as u32;
    let mut header = NetlinkBuffer::new(&mut packet[..]);
    header.set_length(length);
    header.set_message_type(kind);
    header.set_flags(flags);
    header.set_sequence_number(sequence);
}

/// Why there is no whole answer.
#[derive(Debug)]
enum Failure {
    /// The kernel said no; there is nothing more to read.
    Refused(io::Error),
    /// What came was not understood, or nothing came.
    Reading(io::Error),
}

fn read_answer(
    socket: &Socket,
    sequence: u32,
    buffer: &mut Vec<u8>,
    mut each: impl FnMut(&[u8]),
) -> Result<(), Failure> {
    loop {
        buffer.clear();
        buffer.reserve(ANSWER);
        match socket.recv(buffer, 0) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result.map_err(Failure::Reading)?,
        };
        if walk(buffer, sequence, &mut each)? {
            return Ok(());
        }
    }
}

/// Hands the messages of one datagram to `each`; whether the answer ends in it.
fn walk(mut datagram: &[u8], sequence: u32, each: &mut impl FnMut(&[u8])) -> Result<bool, Failure> {
    while !datagram.is_empty() {
        let message = NetlinkBuffer::new_checked(datagram).map_err(|error| {
            Failure::Reading(io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
        })?;
        if message.sequence_number() == sequence {
            match message.message_type() {
                NLMSG_DONE | NLMSG_ERROR => return end_of(message.payload()).map(|()| true),
                _ => each(message.payload()),
            }
        }
        let aligned = (message.length() as usize).next_multiple_of(4);
        datagram = datagram.get(aligned..).unwrap_or_default();
    }
    Ok(false)
}

/// The last message of an answer: `struct nlmsgerr`, or for a dump only its beginning, the negative error number.
fn end_of(payload: &[u8]) -> Result<(), Failure> {
    match payload.first_chunk() {
        Some(&number) => match i32::from_ne_bytes(number) {
            0 => Ok(()),
            number => Err(Failure::Refused(io::Error::from_raw_os_error(number.wrapping_neg()))),
        },
        // A dump may end without a number.
        None if payload.is_empty() => Ok(()),
        None => Err(Failure::Reading(io::ErrorKind::InvalidData.into())),
    }
}

/// The attributes in `bytes`: their kinds and values.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(Result::ok).map(|attribute| {
        let (kind, length) = (attribute.kind(), usize::from(attribute.length()));
        (kind, attribute.into_inner().get(NLA_HEADER_SIZE..length).unwrap_or_default())
    })
}

/// An attribute's text: a C string.
pub fn text(value: &[u8]) -> &str {
    let end = memchr::memchr(0, value).unwrap_or(value.len());
    std::str::from_utf8(&value[..end]).unwrap_or_default()
}

/// A number of 16 bits, as an attribute holds it.
pub fn u16_of(value: &[u8]) -> Option<u16> {
    value.first_chunk().copied().map(u16::from_ne_bytes)
}

/// A number of 32 bits, as an attribute holds it.
pub fn u32_of(value: &[u8]) -> Option<u32> {
    value.first_chunk().copied().map(u32::from_ne_bytes)
}

/// A number of 64 bits, as an attribute holds it.
pub fn u64_of(value: &[u8]) -> Option<u64> {
    value.first_chunk().copied().map(u64::from_ne_bytes)
}

/// Adds an attribute to a request, the parts of its value one after the other.
pub fn push_attribute(request: &mut Vec<u8>, kind: u16, value: &[&[u8]]) {
    let start = request.len();
    request.extend([0, 0]);
    request.extend(kind.to_ne_bytes());
    for part in value {
        request.extend_from_slice(part);
    }
    let length = (request.len() - start) as u16;
    request[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    request.resize(request.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(kind: u16, sequence: u32, request: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        write_packet(&mut packet, kind, NLM_F_REQUEST, sequence, &[request]);
        packet
    }

    #[test]
    fn every_host_has_a_loopback() {
        let mut names = Vec::new();
        let mut route = Route::default();
        for _ in 0..2 {
            names.clear();
            let each = |message: &[u8]| {
                let found = attributes(&message[16..]).find(|(kind, _)| *kind == 3);
                names.push(text(found.expect("a link has a name").1).to_owned());
            };
            route.dump(GET_LINK, &[0; 16], each).expect("the kernel answers");
        }
        assert!(names.contains(&"lo".to_owned()), "{names:?}");
    }

    #[test]
    fn a_refusal_is_the_error_of_the_kernel() {
        for kind in [NLMSG_ERROR, NLMSG_DONE] {
            let message = packet(kind, 7, &(-1_i32).to_ne_bytes());
            let Err(Failure::Refused(error)) = walk(&message, 7, &mut |_| ()) else { panic!("refused") };
            assert_eq!(error.raw_os_error(), Some(1));
        }
    }

    #[test]
    fn an_answer_ends_with_its_last_message_or_an_acknowledgement() {
        for (kind, payload) in [(NLMSG_DONE, &[][..]), (NLMSG_DONE, &[0; 4]), (NLMSG_ERROR, &[0; 20])] {
            assert!(walk(&packet(kind, 7, payload), 7, &mut |_| ()).expect("understood"));
        }
    }

    #[test]
    fn a_refused_question_leaves_the_connection_usable() {
        let mut route = Route::default();
        for _ in 0..2 {
            let error = route.ask(GET_LINK, &[&[0; 16]], |_| ()).expect_err("no link is meant");
            assert_eq!(error.raw_os_error(), Some(22));
        }
        let mut count = 0;
        route.dump(GET_LINK, &[0; 16], |_| count += 1).expect("the kernel answers");
        assert!(count > 0);
    }

    #[test]
    fn interfaces_are_named_by_their_number() {
        let mut route = Route::default();
        assert_eq!(route.interface_name(1).expect("the loopback").as_str(), "lo");
        let error = route.interface_name(i32::MAX as u32).expect_err("there is none");
        assert_eq!(error.raw_os_error(), Some(19));
    }

    #[test]
    fn generic_families_are_found_by_name() {
        let mut generic = Generic::default();
        // The family of families is always there, under its fixed number.
        assert_eq!(generic.family("nlctrl").expect("known").id, CONTROL.id);
        let error = generic.family("no_such_family").expect_err("not known");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let mut names = Vec::new();
        let each = |message: &[u8]| {
            let name = attributes(message).find(|(kind, _)| *kind == CTRL_ATTR_FAMILY_NAME);
            names.push(text(name.expect("a family has a name").1).to_owned());
        };
        generic.dump(CONTROL, CTRL_CMD_GETFAMILY, &[], each).expect("the kernel answers");
        assert!(names.contains(&"nlctrl".to_owned()), "{names:?}");
    }

    #[test]
    fn messages_of_an_older_question_are_passed_over() {
        let mut seen = 0;
        let mut datagram = packet(16, 1, &[0; 16]);
        datagram.extend(packet(16, 2, &[0; 16]));
        assert!(!walk(&datagram, 2, &mut |_| seen += 1).expect("understood"));
        assert_eq!(seen, 1);
    }

    #[test]
    fn cut_messages_and_attributes_do_no_harm() {
        let whole = packet(16, 1, &[8, 0, 3, 0, b'l', b'o', 0, 0]);
        for end in 0..whole.len() {
            let _ = walk(&whole[..end], 1, &mut |_| ());
        }
        let attribute = &whole[NETLINK_HEADER_LEN..];
        assert_eq!(attributes(attribute).next(), Some((3, &b"lo\0\0"[..])));
        assert_eq!(attributes(&attribute[..6]).count(), 0);
        assert_eq!(attributes(&[0; 8]).count(), 0);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_walked_without_harm(bytes: Vec<u8>, sequence in 0_u32..2) {
            let _ = walk(&bytes, sequence, &mut |message| {
                let _ = attributes(message).count();
            });
            for (_, value) in attributes(&bytes) {
                let _ = (u16_of(value), u32_of(value), u64_of(value), text(value));
            }
            let _ = parse_family(&bytes);
        }
    }
}
