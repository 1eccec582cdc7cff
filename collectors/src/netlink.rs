//! Questions to the kernel's routing tables (rtnetlink): dumps of links and addresses.
//!
//! Attributes are walked, not decoded into types: a collector wants two of the sixty that a link has, and a kernel newer
//! than the decoder must not cost it those two.

use std::io;

use netlink_packet_core::{
    NLA_HEADER_SIZE, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NlasIterator,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// A dump of all links, `struct ifinfomsg` in front of the attributes.
pub const GET_LINK: u16 = 18;
/// A dump of all addresses, `struct ifaddrmsg` in front of the attributes.
pub const GET_ADDRESS: u16 = 22;

/// `struct nlmsghdr`.
const NETLINK_HEADER_LEN: usize = 16;

/// The kernel never answers with more than this at once.
const ANSWER: usize = 64 * 1024;

/// A socket to the kernel that stays open between scrapes.
#[derive(Default)]
pub struct Route {
    socket: Option<Socket>,
    buffer: Vec<u8>,
    sequence: u32,
}

impl Route {
    /// Asks for a dump of `kind`, and hands every message of the answer, without its header, to `each`.
    pub fn dump(&mut self, kind: u16, request: &[u8], each: impl FnMut(&[u8])) -> io::Result<()> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => connect()?,
        };
        self.sequence = self.sequence.wrapping_add(1);
        socket.send(&packet(kind, self.sequence, request), 0)?;
        read_answer(&socket, self.sequence, &mut self.buffer, each)?;
        // A socket on which something failed is not kept: part of an old answer may still be in it.
        self.socket = Some(socket);
        Ok(())
    }
}

fn connect() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

fn packet(kind: u16, sequence: u32, request: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; NETLINK_HEADER_LEN];
    packet.extend_from_slice(request);
    let length = packet.len() as u32;
    let mut header = NetlinkBuffer::new(&mut packet[..]);
    header.set_length(length);
    header.set_message_type(kind);
    header.set_flags(NLM_F_REQUEST | NLM_F_DUMP);
    header.set_sequence_number(sequence);
    packet
}

fn read_answer(
    socket: &Socket,
    sequence: u32,
    buffer: &mut Vec<u8>,
    mut each: impl FnMut(&[u8]),
) -> io::Result<()> {
    loop {
        buffer.clear();
        buffer.reserve(ANSWER);
        match socket.recv(buffer, 0) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result?,
        };
        if walk(buffer, sequence, &mut each)? {
            return Ok(());
        }
    }
}

/// Hands the messages of one datagram to `each`; whether the dump ends in it.
fn walk(mut datagram: &[u8], sequence: u32, each: &mut impl FnMut(&[u8])) -> io::Result<bool> {
    while !datagram.is_empty() {
        let message = NetlinkBuffer::new_checked(datagram)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        if message.sequence_number() == sequence {
            match message.message_type() {
                NLMSG_DONE => return Ok(true),
                NLMSG_ERROR => return Err(error_of(message.payload())),
                _ => each(message.payload()),
            }
        }
        let aligned = (message.length() as usize).next_multiple_of(4);
        datagram = datagram.get(aligned..).unwrap_or_default();
    }
    Ok(false)
}

/// `struct nlmsgerr` begins with the negative error number.
fn error_of(payload: &[u8]) -> io::Error {
    match payload.first_chunk() {
        Some(&number) => io::Error::from_raw_os_error(i32::from_ne_bytes(number).wrapping_neg()),
        None => io::ErrorKind::InvalidData.into(),
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

#[cfg(test)]
mod tests {
    use super::*;

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
        let mut message = packet(NLMSG_ERROR, 7, &(-1_i32).to_ne_bytes());
        message.extend_from_slice(&[0; 16]);
        let error = walk(&message[..20], 7, &mut |_| ()).expect_err("refused");
        assert_eq!(error.raw_os_error(), Some(1));
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
}
