//! The load balancer of the kernel: what it forwarded, how its backends are used.

use std::{
    fmt::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Flag, Host, HostFile, Options, OwnedDesc, Samples,
    samples::{FamilyId, Kind},
};

const LABELS: &str = "ipvs.backend-labels";

/// This collector in the list.
pub const ENTRY: Entry = Entry {
    name: "ipvs",
    default_on: true,
    flags: &[Flag::text(
        LABELS,
        "local_address,local_port,remote_address,remote_port,proto,local_mark",
        "Comma separated list for IPVS backend stats labels.",
    )],
    build,
};

static CONNECTIONS: Desc =
    Desc::counter("node_ipvs_connections_total", "The total number of connections made.", &[]);
static INCOMING_PACKETS: Desc =
    Desc::counter("node_ipvs_incoming_packets_total", "The total number of incoming packets.", &[]);
static OUTGOING_PACKETS: Desc =
    Desc::counter("node_ipvs_outgoing_packets_total", "The total number of outgoing packets.", &[]);
static INCOMING_BYTES: Desc =
    Desc::counter("node_ipvs_incoming_bytes_total", "The total amount of incoming data.", &[]);
static OUTGOING_BYTES: Desc =
    Desc::counter("node_ipvs_outgoing_bytes_total", "The total amount of outgoing data.", &[]);

/// The families of the totals, in the order of the numbers in `ip_vs_stats`.
static TOTALS: [&Desc; 5] =
    [&CONNECTIONS, &INCOMING_PACKETS, &OUTGOING_PACKETS, &INCOMING_BYTES, &OUTGOING_BYTES];

/// The families of the backends, in the order of [`Use`].
const BACKENDS: [(&str, &str); 3] = [
    ("node_ipvs_backend_weight", "The current backend weight by local and remote address."),
    ("node_ipvs_backend_connections_active", "The current active connections by local and remote address."),
    (
        "node_ipvs_backend_connections_inactive",
        "The current inactive connections by local and remote address.",
    ),
];

/// Weight, active connections, inactive connections.
type Use = [u64; 3];

/// A label of the backends. The order is that of their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    LocalAddress,
    LocalMark,
    LocalPort,
    Proto,
    RemoteAddress,
    RemotePort,
}

impl Label {
    const ALL: [Self; 6] = [
        Self::LocalAddress,
        Self::LocalMark,
        Self::LocalPort,
        Self::Proto,
        Self::RemoteAddress,
        Self::RemotePort,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::LocalAddress => "local_address",
            Self::LocalMark => "local_mark",
            Self::LocalPort => "local_port",
            Self::Proto => "proto",
            Self::RemoteAddress => "remote_address",
            Self::RemotePort => "remote_port",
        }
    }
}

struct Ipvs {
    stats: HostFile,
    table: HostFile,
    labels: Vec<Label>,
    families: [OwnedDesc; 3],
    /// The label values of one backend.
    values: [String; Label::ALL.len()],
}

/// A backend below a virtual service; where sums are made, what no label shows is left empty.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Backend<'a> {
    proto: &'a str,
    local_mark: &'a str,
    local_address: Option<IpAddr>,
    local_port: u16,
    remote_address: Option<IpAddr>,
    remote_port: u16,
}

fn build(host: &Host, options: &Options) -> Result<Box<dyn Collector>, BuildError> {
    let labels = parse_labels(options.text(LABELS))?;
    let names: Vec<&str> = labels.iter().map(|label| label.name()).collect();
    Ok(Box::new(Ipvs {
        stats: HostFile::new(host.proc("net/ip_vs_stats")),
        table: HostFile::new(host.proc("net/ip_vs")),
        families: BACKENDS.map(|(name, help)| OwnedDesc::new(name, help, Kind::Gauge, &names)),
        labels,
        values: Default::default(),
    }))
}

/// Sorted, each once.
fn parse_labels(text: &str) -> Result<Vec<Label>, BuildError> {
    let mut labels = Vec::new();
    for name in text.split(',').filter(|name| !name.is_empty()) {
        let label = Label::ALL.iter().find(|label| label.name() == name).ok_or_else(|| {
            BuildError::Value { flag: LABELS, what: format!("there is no label {name:?} of IPVS backends") }
        })?;
        labels.push(*label);
    }
    labels.sort_unstable();
    labels.dedup();
    Ok(labels)
}

impl Collector for Ipvs {
    /// The files are there only while the module is loaded.
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let totals = self.stats.parse(parse_stats).map_err(CollectError::missing_is_no_data)?;
        for (desc, total) in TOTALS.iter().zip(totals) {
            out.push(desc, &[], total as f64);
        }
        let Self { table, labels, families, values, .. } = self;
        table.parse(|text| {
            let mut backends = parse_table(text)?;
            add_up(&mut backends, labels);
            let families = families.each_ref().map(|desc| out.owned_family(desc));
            for (backend, used) in &backends {
                say(families, labels, backend, used, values, out);
            }
            Ok(())
        })
    }
}

/// Makes one of the backends that have the same label values.
fn add_up(backends: &mut Vec<(Backend<'_>, Use)>, labels: &[Label]) {
    for (backend, _) in backends.iter_mut() {
        *backend = shown(backend, labels);
    }
    backends.sort_unstable();
    backends.dedup_by(|(backend, used), (kept, sum)| {
        let same = backend == kept;
        if same {
            for (sum, used) in sum.iter_mut().zip(used) {
                *sum = sum.wrapping_add(*used);
            }
        }
        same
    });
}

/// The backend without what no label shows.
fn shown<'a>(backend: &Backend<'a>, labels: &[Label]) -> Backend<'a> {
    let mut shown = Backend::default();
    for label in labels {
        match label {
            Label::LocalAddress => shown.local_address = backend.local_address,
            Label::LocalMark => shown.local_mark = backend.local_mark,
            Label::LocalPort => shown.local_port = backend.local_port,
            Label::Proto => shown.proto = backend.proto,
            Label::RemoteAddress => shown.remote_address = backend.remote_address,
            Label::RemotePort => shown.remote_port = backend.remote_port,
        }
    }
    shown
}

fn say(
    families: [FamilyId; 3],
    labels: &[Label],
    backend: &Backend,
    used: &Use,
    values: &mut [String; Label::ALL.len()],
    out: &mut Samples,
) {
    for (label, value) in labels.iter().zip(values.iter_mut()) {
        value.clear();
        // Writing into a `String` can't fail.
        let _ = match label {
            Label::LocalAddress => write_address(value, backend.local_address),
            Label::LocalMark => value.write_str(backend.local_mark),
            Label::LocalPort => write!(value, "{}", backend.local_port),
            Label::Proto => value.write_str(backend.proto),
            Label::RemoteAddress => write_address(value, backend.remote_address),
            Label::RemotePort => write!(value, "{}", backend.remote_port),
        };
    }
    let texts = values.each_ref().map(String::as_str);
    for (family, number) in families.into_iter().zip(used) {
        out.push_to(family, texts.get(..labels.len()).unwrap_or_default(), *number as f64);
    }
}

fn write_address(text: &mut String, address: Option<IpAddr>) -> std::fmt::Result {
    match address {
        Some(address) => write!(text, "{address}"),
        None => Ok(()),
    }
}

/// `/proc/net/ip_vs_stats`: two lines of headings, then hexadecimal numbers: " 16AA370 E33656E5  0  51D8C8883AB3  0".
fn parse_stats(text: &str) -> Result<[u64; 5], String> {
    let mut lines = text.split_inclusive('\n');
    let line = lines.nth(2).filter(|line| line.ends_with('\n')).ok_or("it is too short")?;
    let mut words = line.split_ascii_whitespace();
    let mut numbers = [0; 5];
    for number in &mut numbers {
        *number = words
            .next()
            .and_then(|word| u64::from_str_radix(word, 16).ok())
            .ok_or_else(|| format!("expected five hexadecimal numbers, got {line:?}"))?;
    }
    match words.next() {
        None => Ok(numbers),
        Some(_) => Err(format!("expected five hexadecimal numbers, got {line:?}")),
    }
}

/// `/proc/net/ip_vs`: three lines of headings, then each virtual service with its backends below it:
///
/// ```text
/// TCP  C0A80016:0CEA wlc
///   -> C0A85216:0CEA      Tunnel  100    248        2
/// FWM  10001000 wlc
///   -> C0A8321A:0CEA      Tunnel  20     64         1
/// ```
fn parse_table(text: &str) -> Result<Vec<(Backend<'_>, Use)>, String> {
    let mut backends = Vec::new();
    let mut service = Backend::default();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        match (words.next(), words.next()) {
            (Some("IP" | "Prot"), _) | (_, Some("RemoteAddress:Port")) => {}
            (Some(proto @ ("TCP" | "UDP" | "SCTP")), Some(local)) => {
                let (address, port) = parse_address(local)?;
                service =
                    Backend { proto, local_address: Some(address), local_port: port, ..Backend::default() };
            }
            (Some(proto @ "FWM"), Some(local_mark)) => {
                service = Backend { proto, local_mark, ..Backend::default() };
            }
            (Some("->"), Some(remote)) => {
                // Behind the address: how packets get there, weight, active and inactive connections.
                let (Some(_), Some(weight), Some(active), Some(inactive)) =
                    (words.next(), words.next(), words.next(), words.next())
                else {
                    continue;
                };
                let (address, port) = parse_address(remote)?;
                let number = |word: &str| word.parse().map_err(|_| format!("expected numbers in {line:?}"));
                let backend = Backend { remote_address: Some(address), remote_port: port, ..service };
                backends.push((backend, [number(weight)?, number(active)?, number(inactive)?]));
            }
            _ => {}
        }
    }
    Ok(backends)
}

/// "C0A80016:0CEA" or "[fe80:0000:0000:0000:0000:0000:0000:0001]:0CEA".
fn parse_address(text: &str) -> Result<(IpAddr, u16), String> {
    let parsed = text.rsplit_once(':').and_then(|(address, port)| {
        let port = (port.len() == 4).then(|| u16::from_str_radix(port, 16).ok())??;
        let address = match address.strip_prefix('[') {
            // An address of version 4 in one of version 6 is shown as the former.
            Some(rest) => rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?.to_canonical(),
            None if address.len() == 8 => Ipv4Addr::from(u32::from_str_radix(address, 16).ok()?).into(),
            None => return None,
        };
        Some((address, port))
    });
    parsed.ok_or_else(|| format!("expected an address with its port, got {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  \
                          -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n";

    fn shown_by(text: &str, labels: &[Label]) -> Vec<(String, Use)> {
        let table = format!("{HEADER}{text}");
        let mut backends = parse_table(&table).expect("it is well formed");
        add_up(&mut backends, labels);
        let address = |address: Option<IpAddr>| address.map_or(String::new(), |address| address.to_string());
        let line = |backend: &Backend| {
            format!(
                "{} {}:{}{} {}:{}",
                backend.proto,
                address(backend.local_address),
                backend.local_port,
                backend.local_mark,
                address(backend.remote_address),
                backend.remote_port
            )
        };
        backends.iter().map(|(backend, used)| (line(backend), *used)).collect()
    }

    const SERVICES: &str = "TCP  C0A80016:0CEA wlc\n  -> C0A85216:0CEA Tunnel 100 248 2\n  \
                            -> C0A85318:0CEA Tunnel 50 8 1\nFWM  10001000 wlc\n  -> C0A8321A:0CEA Tunnel 20 64 1\n";

    #[test]
    fn backends_are_said_below_their_service() {
        assert_eq!(
            shown_by(SERVICES, &Label::ALL),
            [
                ("FWM :010001000 192.168.50.26:3306".to_owned(), [20, 64, 1]),
                ("TCP 192.168.0.22:3306 192.168.82.22:3306".to_owned(), [100, 248, 2]),
                ("TCP 192.168.0.22:3306 192.168.83.24:3306".to_owned(), [50, 8, 1]),
            ]
        );
    }

    #[test]
    fn backends_that_no_label_tells_apart_are_added_up() {
        assert_eq!(shown_by(SERVICES, &[]), [(" :0 :0".to_owned(), [170, 320, 4])]);
        assert_eq!(
            shown_by(SERVICES, &[Label::LocalPort]),
            [(" :0 :0".to_owned(), [20, 64, 1]), (" :3306 :0".to_owned(), [150, 256, 3])]
        );
    }

    #[test]
    fn services_of_version_6_and_of_sctp_are_read() {
        let text = "UDP  [fd00:0000:0000:0000:0000:0000:0000:000a]:0035 rr\n  \
                    -> [0000:0000:0000:0000:0000:ffff:0a00:0001]:0035 Masq 1 0 0\nSCTP 0A000001:0035 rr\n  \
                    -> 0A000002:0035 Masq 1 2 3\n";
        assert_eq!(
            shown_by(text, &Label::ALL),
            [
                ("SCTP 10.0.0.1:53 10.0.0.2:53".to_owned(), [1, 2, 3]),
                ("UDP fd00::a:53 10.0.0.1:53".to_owned(), [1, 0, 0])
            ]
        );
    }

    #[test]
    fn odd_tables_are_refused() {
        for text in [
            "TCP  C0A80016 wlc\n",
            "TCP C0A80016:0CEAA wlc\n",
            "TCP ü0A8001:0CEA wlc\n",
            "UDP [fe80]:0001 rr\n",
            "  -> C0A85216:0CEA Tunnel x 248 2\n",
            "  -> C0A8521:0CEA Tunnel 1 248 2\n",
        ] {
            assert!(parse_table(text).is_err(), "{text:?}");
        }
        assert_eq!(parse_table("\nTCP\n->\n  -> C0A85216:0CEA Tunnel\n"), Ok(Vec::new()));
    }

    #[test]
    fn totals_are_the_hexadecimal_numbers_of_the_third_line() {
        let text = "   Total Incoming\n   Conns  Packets\n 16AA370 E33656E5  0  51D8C8883AB3  0\n\n";
        assert_eq!(parse_stats(text), Ok([23_765_872, 3_811_989_221, 0, 89_991_519_156_915, 0]));
        for text in
            ["", "a\nb\n", "a\nb\n1 2 3 4 5", "a\nb\n1 2 3 4\n", "a\nb\n1 2 3 4 5 6\n", "a\nb\n1 2 3 4 x\n"]
        {
            assert!(parse_stats(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_unknown_label_is_refused() {
        assert_eq!(parse_labels("local_mark,,proto,proto").ok(), Some(vec![Label::LocalMark, Label::Proto]));
        assert!(parse_labels("local_port,guess").is_err());
    }
}
