//! Replicated block devices, out of `/proc/drbd`.

use crate::{BuildError, CollectError, Collector, Desc, Entry, Host, HostFile, Options, Samples};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "drbd", default_on: false, flags: &[], build };

/// A key whose value is a number, the unit of that number, and its family.
struct Number(&'static str, f64, Desc);

static NUMBERS: [Number; 12] = [
    Number(
        "ns",
        1024.0,
        Desc::counter(
            "node_drbd_network_sent_bytes_total",
            "Total number of bytes sent via the network.",
            &["device"],
        ),
    ),
    Number(
        "nr",
        1.0,
        Desc::counter(
            "node_drbd_network_received_bytes_total",
            "Total number of bytes received via the network.",
            &["device"],
        ),
    ),
    Number(
        "dw",
        1024.0,
        Desc::counter(
            "node_drbd_disk_written_bytes_total",
            "Net data written on local hard disk; in bytes.",
            &["device"],
        ),
    ),
    Number(
        "dr",
        1024.0,
        Desc::counter(
            "node_drbd_disk_read_bytes_total",
            "Net data read from local hard disk; in bytes.",
            &["device"],
        ),
    ),
    Number(
        "al",
        1.0,
        Desc::counter(
            "node_drbd_activitylog_writes_total",
            "Number of updates of the activity log area of the meta data.",
            &["device"],
        ),
    ),
    Number(
        "bm",
        1.0,
        Desc::counter(
            "node_drbd_bitmap_writes_total",
            "Number of updates of the bitmap area of the meta data.",
            &["device"],
        ),
    ),
    Number(
        "lo",
        1.0,
        Desc::gauge(
            "node_drbd_local_pending",
            "Number of open requests to the local I/O sub-system.",
            &["device"],
        ),
    ),
    Number(
        "pe",
        1.0,
        Desc::gauge(
            "node_drbd_remote_pending",
            "Number of requests sent to the peer, but that have not yet been answered by the latter.",
            &["device"],
        ),
    ),
    Number(
        "ua",
        1.0,
        Desc::gauge(
            "node_drbd_remote_unacknowledged",
            "Number of requests received by the peer via the network connection, but that have not yet been answered.",
            &["device"],
        ),
    ),
    Number(
        "ap",
        1.0,
        Desc::gauge(
            "node_drbd_application_pending",
            "Number of block I/O requests forwarded to DRBD, but not yet answered by DRBD.",
            &["device"],
        ),
    ),
    Number("ep", 1.0, Desc::gauge("node_drbd_epochs", "Number of Epochs currently on the fly.", &["device"])),
    Number(
        "oos",
        1024.0,
        Desc::gauge(
            "node_drbd_out_of_sync_bytes",
            "Amount of data known to be out of sync; in bytes.",
            &["device"],
        ),
    ),
];

/// A key whose value is one word for this node and one for its peer, which of them is good, and its family.
struct Pair(&'static str, &'static str, Desc);

static PAIRS: [Pair; 2] = [
    Pair(
        "ro",
        "Primary",
        Desc::gauge(
            "node_drbd_node_role_is_primary",
            "Whether the role of the node is in the primary state.",
            &["device", "node"],
        ),
    ),
    Pair(
        "ds",
        "UpToDate",
        Desc::gauge(
            "node_drbd_disk_state_is_up_to_date",
            "Whether the disk of the node is up to date.",
            &["device", "node"],
        ),
    ),
];

static CONNECTED: Desc =
    Desc::gauge("node_drbd_connected", "Whether DRBD is connected to the peer.", &["device"]);

struct Drbd {
    file: HostFile,
}

fn build(host: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Drbd { file: HostFile::new(host.proc("drbd")) }))
}

impl Collector for Drbd {
    /// The file is there only while the module is loaded. What was said before a value that makes no sense is served.
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        self.file.parse(|text| say(text, out)).map_err(CollectError::missing_is_no_data)
    }
}

/// `/proc/drbd`: "version: 8.4.3 (api:1/proto:86-101)\n 1: cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate C r-----\n
/// ns:4096 nr:0 dw:4096 ...": `1:` begins a device, and what is no pair of a known key is for people.
fn say(text: &str, out: &mut Samples) -> Result<(), String> {
    let mut device = "unknown".to_owned();
    for word in text.split_ascii_whitespace() {
        let Some((key, value)) = word.split_once(':') else { continue };
        if value.contains(':') {
            continue;
        }
        if value.is_empty()
            && let Ok(number) = key.parse::<u64>()
        {
            device = format!("drbd{number}");
        } else if let Some(Number(_, unit, desc)) = NUMBERS.iter().find(|Number(name, ..)| *name == key) {
            let number = value.parse::<i64>().map_err(|_| format!("expected a number, got {word:?}"))?;
            out.push(desc, &[&device], number as f64 * unit);
        } else if let Some(Pair(_, good, desc)) = PAIRS.iter().find(|Pair(name, ..)| *name == key) {
            let (local, remote) = value
                .split_once('/')
                .ok_or_else(|| format!("expected the states of two nodes, got {word:?}"))?;
            for (node, state) in [("local", local), ("remote", remote)] {
                out.push(desc, &[&device, node], f64::from(u8::from(state == *good)));
            }
        } else if key == "cs" {
            out.push(&CONNECTED, &[&device], f64::from(u8::from(value == "Connected")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> (Vec<String>, bool) {
        let mut out = Samples::new();
        let result = say(text, &mut out);
        let line = |(name, labels, value): (&str, crate::samples::LabelValues, f64)| {
            format!(
                "{}{{{}}} {value}",
                name.trim_start_matches("node_drbd_"),
                labels.collect::<Vec<_>>().join(",")
            )
        };
        (out.iter().map(line).collect(), result.is_ok())
    }

    #[test]
    fn devices_are_told_apart() {
        let text = "version: 8.4.11-1 (api:1/proto:86-101)\nsrcversion: FC3433D849E3B88C1E7B55C\n\n\
                    \x200: cs:Connected ro:Primary/Secondary ds:UpToDate/Inconsistent C r-----\n    ns:3 nr:3\n\
                    \x207: cs:WFConnection\n    lo:1 wo:f oos:2\n\tresync: used:0/61 hits:5\n";
        let expected = [
            "connected{drbd0} 1",
            "node_role_is_primary{drbd0,local} 1",
            "node_role_is_primary{drbd0,remote} 0",
            "disk_state_is_up_to_date{drbd0,local} 1",
            "disk_state_is_up_to_date{drbd0,remote} 0",
            "network_sent_bytes_total{drbd0} 3072",
            "network_received_bytes_total{drbd0} 3",
            "connected{drbd7} 0",
            "local_pending{drbd7} 1",
            "out_of_sync_bytes{drbd7} 2048",
        ];
        assert_eq!(said(text), (expected.map(str::to_owned).into(), true));
    }

    #[test]
    fn odd_values_are_refused_after_what_could_be_read() {
        for (text, count) in [("", 0), ("0: cs:Connected ns:many", 1), ("0: ro:Primary", 0), ("ns:", 0)] {
            let (lines, is_good) = said(text);
            assert_eq!((lines.len(), is_good), (count, text.is_empty()), "{text:?}");
        }
    }

    #[test]
    fn without_the_module_there_is_no_data() {
        let mut drbd = Drbd { file: HostFile::new("/nonexistent/drbd") };
        let result = drbd.collect(&Host::default(), &mut Samples::new());
        assert!(matches!(result, Err(CollectError::NoData)));
    }
}
