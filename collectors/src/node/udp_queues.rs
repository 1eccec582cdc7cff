//! How much the kernel holds in the queues of all UDP sockets together.

use std::io;

use crate::{BuildError, CollectError, Collector, Desc, Entry, Host, HostFile, Options, Samples};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "udp_queues", default_on: true, flags: &[], build };

static QUEUES: Desc = Desc::gauge(
    "node_udp_queues",
    "Number of allocated memory in the kernel for UDP datagrams in bytes.",
    &["ip", "queue"],
);

struct UdpQueues {
    /// Not there in a kernel without that protocol.
    tables: [(&'static str, HostFile); 2],
}

fn build(host: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    let table = |(ip, path)| (ip, HostFile::new(host.proc(path)));
    Ok(Box::new(UdpQueues { tables: [("v4", "net/udp"), ("v6", "net/udp6")].map(table) }))
}

impl Collector for UdpQueues {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut found = false;
        for (ip, table) in &mut self.tables {
            let (sent, received) = match table.parse(parse_table) {
                Ok(sums) => sums,
                Err(CollectError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    continue;
                }
                Err(error) => return Err(error),
            };
            found = true;
            out.push(&QUEUES, &[ip, "tx"], sent as f64);
            out.push(&QUEUES, &[ip, "rx"], received as f64);
        }
        if found { Ok(()) } else { Err(CollectError::NoData) }
    }
}

/// `/proc/net/udp`: a line of names, then one for each socket; the sums of what is being sent and was received.
fn parse_table(text: &str) -> Result<(u64, u64), String> {
    let (mut sent, mut received) = (0_u64, 0_u64);
    for line in text.lines().skip(1) {
        let (tx, rx) = parse_socket(line).ok_or_else(|| format!("expected a socket, got {line:?}"))?;
        sent = sent.wrapping_add(tx);
        received = received.wrapping_add(rx);
    }
    Ok((sent, received))
}

/// "  0: 00000000:0016 00000000:0000 0A 00000015:00000000 00:00000000 00000000     0        0 2740 1 ffff88003d3af3c0 0":
/// the fifth word is the length of both queues, the thirteenth and last how many datagrams were dropped.
fn parse_socket(line: &str) -> Option<(u64, u64)> {
    const BEFORE_DROPS: usize = 7;

    let mut words = line.split_ascii_whitespace();
    words.next()?.strip_suffix(':')?;
    let (tx, rx) = words.nth(3)?.split_once(':')?;
    words.nth(BEFORE_DROPS)?.parse::<u64>().ok()?;
    Some((u64::from_str_radix(tx, 16).ok()?, u64::from_str_radix(rx, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout \
                          inode ref pointer drops             \n";

    #[test]
    fn queues_are_summed_over_the_sockets() {
        let sockets = "  412: 00000000:0044 00000000:0000 07 00000010:00000300 00:00000000 00000000     0        0 \
                       12345 2 0000000000000000 7         \n65000: 0100007F:0143 00000000:0000 07 00000001:00000002 \
                       00:00000000 00000000   106        0 23456 2 0000000000000000 0         \n";
        assert_eq!(parse_table(&format!("{HEADER}{sockets}")), Ok((17, 770)));
        assert_eq!(parse_table(HEADER), Ok((0, 0)));
    }

    #[test]
    fn cut_and_odd_lines_are_refused() {
        for line in [
            "\n",
            "  412: 00000000:0044 00000000:0000 07 00000010:00000300 00:00000000 00000000     0\n",
            "  412: 0:0 0:0 07 10 0:0 0 0 0 1 2 0 7\n",
            "  412: 0:0 0:0 07 x:0 0:0 0 0 0 1 2 0 7\n",
            "  412: 0:0 0:0 07 0:0 0:0 0 0 0 1 2 0 x\n",
            "  412 0:0 0:0 07 0:0 0:0 0 0 0 1 2 0 7\n",
        ] {
            assert!(parse_table(&format!("{HEADER}{line}")).is_err(), "{line:?}");
        }
    }
}
