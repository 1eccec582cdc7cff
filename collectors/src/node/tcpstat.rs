//! TCP connections by state, and what waits in their queues.

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Host, Options, Samples,
    host::Stamp,
    netlink::{SOCK_DIAG_BY_FAMILY, SocketDiagnosis},
};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "tcpstat", default_on: false, flags: &[], build };

static STATES: Desc = Desc::gauge("node_tcp_connection_states", "Number of connection states.", &["state"]);

/// The kernel's numbers of the states, which begin at 1.
const NAMES: [&str; 11] = [
    "established",
    "syn_sent",
    "syn_recv",
    "fin_wait1",
    "fin_wait2",
    "time_wait",
    "close",
    "close_wait",
    "last_ack",
    "listen",
    "closing",
];

/// `struct inet_diag_req_v2`.
const REQUEST: usize = 56;
/// `struct inet_diag_msg`.
const HEADER: usize = 72;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
/// A bit for every state.
const ALL_STATES: u32 = 0xfff;

#[derive(Default)]
struct Tcpstat {
    connection: SocketDiagnosis,
}

/// What is counted over all sockets.
#[derive(Debug, Default, PartialEq)]
struct Counts {
    states: [u64; NAMES.len()],
    /// Sockets in a state that has no name.
    unknown: u64,
    sockets: u64,
    received: u64,
    to_send: u64,
}

fn build(_: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Tcpstat::default()))
}

impl Collector for Tcpstat {
    fn collect(&mut self, host: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut counts = Counts::default();
        self.count(AF_INET, &mut counts)?;
        if Stamp::of(&host.proc("net/tcp6")).is_ok() {
            self.count(AF_INET6, &mut counts)?;
        }
        say(&counts, out);
        Ok(())
    }
}

impl Tcpstat {
    fn count(&mut self, family: u8, counts: &mut Counts) -> Result<(), CollectError> {
        // No extension is asked for: the lengths of the queues are in every message.
        let mut request = [0; REQUEST];
        request[0] = family;
        request[1] = IPPROTO_TCP;
        request[4..8].copy_from_slice(&ALL_STATES.to_ne_bytes());
        self.connection
            .dump(SOCK_DIAG_BY_FAMILY, &request, |message| counts.add(message))
            .map_err(|source| CollectError::System { what: "asking sock_diag for TCP sockets", source })
    }
}

impl Counts {
    /// `struct inet_diag_msg` has the state at 1, the lengths of the queues at 56 and 60.
    fn add(&mut self, message: &[u8]) {
        let Some(header) = message.first_chunk::<HEADER>() else { return };
        let number =
            |at| u64::from(u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]));
        match self.states.get_mut(usize::from(header[1]).wrapping_sub(1)) {
            Some(count) => *count += 1,
            None => self.unknown += 1,
        }
        self.sockets += 1;
        self.received = self.received.saturating_add(number(56));
        self.to_send = self.to_send.saturating_add(number(60));
    }
}

/// A state in which no socket is has no series; without any socket the queues have none either.
fn say(counts: &Counts, out: &mut Samples) {
    for (name, &count) in NAMES.iter().zip(&counts.states).chain([(&"unknown", &counts.unknown)]) {
        if count > 0 {
            out.push(&STATES, &[name], count as f64);
        }
    }
    if counts.sockets > 0 {
        out.push(&STATES, &["rx_queued_bytes"], counts.received as f64);
        out.push(&STATES, &["tx_queued_bytes"], counts.to_send as f64);
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn message(state: u8, received: u32, to_send: u32) -> Vec<u8> {
        let mut message = vec![0; HEADER];
        message[..2].copy_from_slice(&[AF_INET, state]);
        message[56..60].copy_from_slice(&received.to_ne_bytes());
        message[60..64].copy_from_slice(&to_send.to_ne_bytes());
        message
    }

    fn said(counts: &Counts) -> Vec<(String, f64)> {
        let mut out = Samples::new();
        say(counts, &mut out);
        out.iter().map(|(_, labels, value)| (labels.collect(), value)).collect()
    }

    #[test]
    fn sockets_are_counted_by_state_and_their_queues_summed() {
        let mut counts = Counts::default();
        for message in [message(1, 5, 7), message(1, u32::MAX, 0), message(10, 0, 128), message(200, 0, 0)] {
            counts.add(&message);
        }
        counts.add(&message(1, 1, 1)[..HEADER - 1]);
        assert_eq!(
            said(&counts),
            [
                ("established".into(), 2.0),
                ("listen".into(), 1.0),
                ("unknown".into(), 1.0),
                ("rx_queued_bytes".into(), 4_294_967_300.0),
                ("tx_queued_bytes".into(), 135.0),
            ]
        );
    }

    #[test]
    fn without_sockets_nothing_is_said() {
        assert!(said(&Counts::default()).is_empty());
    }

    #[test]
    fn a_listening_socket_is_seen() {
        let _listener = TcpListener::bind(("127.0.0.1", 0)).expect("bound");
        let mut out = Samples::new();
        Tcpstat::default().collect(&Host::default(), &mut out).expect("the kernel answers");
        assert!(out.iter().any(|(_, labels, value)| labels.eq(["listen"]) && value > 0.0));
    }
}
