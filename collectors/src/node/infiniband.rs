//! InfiniBand and RoCE adapters, the counters of their ports.

use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Flag, Host, Options, Samples,
    filter::Filter,
    host,
    sysfs::{self, ABSENT, Attributes, Class, NEVER, Reader},
};

mod counters;

use counters::{COUNTERS, Counter};

/// This collector in the list.
pub const ENTRY: Entry = Entry {
    name: "infiniband",
    default_on: true,
    flags: &[
        Flag::regex(
            "infiniband.device-include",
            "",
            "Regexp of infiniband devices to include (mutually exclusive to device-exclude).",
        ),
        Flag::regex(
            "infiniband.device-exclude",
            "",
            "Regexp of infiniband devices to exclude (mutually exclusive to device-include).",
        ),
    ],
    build,
};

static INFO: Desc = Desc::gauge(
    "node_infiniband_info",
    "Non-numeric data from /sys/class/infiniband/<device>, value is always 1.",
    &["board_id", "device", "firmware_version", "hca_type"],
);
static STATE: Desc = Desc::gauge(
    "node_infiniband_state_id",
    "State of the InfiniBand port (0: no change, 1: down, 2: init, 3: armed, 4: active, 5: act defer)",
    &["device", "port"],
);
static PHYSICAL_STATE: Desc = Desc::gauge(
    "node_infiniband_physical_state_id",
    "Physical state of the InfiniBand port (0: no change, 1: sleep, 2: polling, 3: disable, 4: shift, 5: link up, 6: link error recover, 7: phytest)",
    &["device", "port"],
);
static RATE: Desc =
    Desc::gauge("node_infiniband_rate_bytes_per_second", "Maximum signal transfer rate", &["device", "port"]);
static LIFESPAN: Desc = Desc::gauge(
    "node_infiniband_lifespan_seconds",
    "The maximum period in ms which defines the aging of the counter reads. Two consecutive reads within this period might return the same values.",
    &["device", "port"],
);

/// What a driver answers for a counter that it does not have or that not everybody may see.
const NOT_COUNTED: &[Errno] = &[Errno::NOENT, Errno::ACCESS, Errno::PERM, Errno::OPNOTSUPP, Errno::INVAL];

struct Infiniband {
    class: Class<Option<Adapter>>,
    devices: Filter,
    reader: Reader,
    firmware: String,
}

/// What stays as it is as long as the adapter is there.
struct Adapter {
    board: String,
    kind: String,
    ports: Vec<Port>,
}

struct Port {
    number: String,
    path: PathBuf,
    /// Those that the driver has: it registers them with the port.
    counters: Vec<&'static Counter>,
}

fn build(host: &Host, options: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Infiniband {
        class: Class::new(host.sys("class/infiniband")),
        devices: Filter::both(options, "infiniband.device-include", "infiniband.device-exclude")?,
        reader: Reader::default(),
        firmware: String::new(),
    }))
}

impl Collector for Infiniband {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let Self { class, devices, reader, firmware } = self;
        let adapters =
            class.follow(|name| !devices.ignores(name)).map_err(CollectError::missing_is_no_data)?;
        for device in adapters {
            let Some(mut attributes) = reader.open(&device.path) else { continue };
            if device.kept.is_none() {
                device.kept = look(&device.path, &mut attributes);
            }
            let Some(Adapter { board, kind, ports }) = &device.kept else { continue };
            if attributes.copy("fw_ver", NEVER, firmware) {
                out.push(&INFO, &[board, &device.name, firmware, kind], 1.0);
            }
            for port in ports {
                if let Some(attributes) = reader.open(&port.path) {
                    say_port(&device.name, port, attributes, out);
                }
            }
        }
        reader.finish()
    }
}

fn look(path: &Path, attributes: &mut Attributes) -> Option<Adapter> {
    let [mut board, mut kind] = [String::new(), String::new()];
    // Not all drivers have them.
    attributes.copy("board_id", ABSENT, &mut board);
    attributes.copy("hca_type", ABSENT, &mut kind);
    match list_ports(&path.join("ports")) {
        Ok(ports) => Some(Adapter { board, kind, ports }),
        Err(error) => {
            attributes.fail(error);
            None
        }
    }
}

fn list_ports(path: &Path) -> Result<Vec<Port>, CollectError> {
    let mut ports = Vec::new();
    for name in host::list_dir(path)? {
        let path = path.join(&name);
        let Ok(number) = name.parse::<u32>() else {
            return Err(CollectError::parse(path, "expected the number of a port"));
        };
        ports.push(Port { number: number.to_string(), counters: list_counters(&path)?, path });
    }
    Ok(ports)
}

/// The counters that there are files for. The 64-bit ones in `counters_ext`, of kernels before 4.5, belong to `counters`.
fn list_counters(port: &Path) -> Result<Vec<&'static Counter>, CollectError> {
    let list = |directory: &str| match host::list_files(&port.join(directory))
        .map_err(CollectError::missing_is_no_data)
    {
        Err(CollectError::NoData) => Ok(Vec::new()),
        other => other,
    };
    let plain = list("counters")?;
    let extended = if plain.is_empty() { Vec::new() } else { list("counters_ext")? };
    let hardware = list("hw_counters")?;
    let is_there = |counter: &&Counter| {
        let (directory, file) = counter.file.split_once('/').unwrap_or_default();
        let files = match directory {
            "counters" => &plain,
            "counters_ext" => &extended,
            _ => &hardware,
        };
        files.binary_search_by(|name| name.as_str().cmp(file)).is_ok()
    };
    Ok(COUNTERS.iter().filter(is_there).collect())
}

fn say_port(device: &str, port: &Port, mut attributes: Attributes, out: &mut Samples) {
    let labels = &[device, port.number.as_str()];
    for (file, desc) in [("state", &STATE), ("phys_state", &PHYSICAL_STATE)] {
        if let Some(state) = attributes.parse(file, NEVER, parse_state) {
            out.push(desc, labels, f64::from(state));
        }
    }
    if let Some(rate) = attributes.parse("rate", NEVER, parse_rate) {
        out.push(&RATE, labels, rate as f64);
    }
    if let Some(milliseconds) = attributes.parse("hw_counters/lifespan", NOT_COUNTED, parse_counter).flatten()
    {
        out.push(&LIFESPAN, labels, (milliseconds / 1000) as f64);
    }
    for counter in &port.counters {
        if let Some(value) = attributes.parse(counter.file, NOT_COUNTED, parse_counter).flatten() {
            out.push(&counter.desc, labels, value.wrapping_mul(counter.unit) as f64);
        }
    }
}

/// `state`: "4: ACTIVE"
fn parse_state(text: &str) -> Option<u32> {
    let (id, name) = text.split_once(':')?;
    if name.contains(':') {
        return None;
    }
    id.trim().parse().ok()
}

/// `rate`: "2.5 Gb/sec (1X SDR)"; in bytes per second.
fn parse_rate(text: &str) -> Option<u64> {
    let (gigabits, _) = text.split_once(' ')?;
    // As wide as node_exporter's, so that the same bytes come out.
    let gigabits: f32 = gigabits.parse().ok()?;
    (gigabits.is_finite() && gigabits >= 0.0).then_some((f64::from(gigabits) * 125_000_000.0) as u64)
}

/// A counter; none where an old kernel says "N/A (no PMA)": the port has no agent that counts.
fn parse_counter(text: &str) -> Option<Option<u64>> {
    match sysfs::unsigned(text) {
        Some(value) => Some(Some(value)),
        None => text.contains("N/A (no PMA)").then_some(None),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join("class/infiniband").join(file);
        fs::create_dir_all(path.parent().expect("has one")).expect("made");
        fs::write(path, text).expect("written");
    }

    fn adapter(root: &Path, name: &str) {
        for (file, text) in [
            ("fw_ver", "20.1\n"),
            ("board_id", "B7\n"),
            ("ports/1/state", "4: ACTIVE\n"),
            ("ports/1/phys_state", "5: LinkUp\n"),
            ("ports/1/rate", "2.5 Gb/sec (1X SDR)\n"),
        ] {
            write(root, &format!("{name}/{file}"), text);
        }
    }

    fn said(root: &Path) -> (Vec<String>, Result<(), CollectError>) {
        let host = Host { sysfs: root.into(), ..Host::default() };
        let mut collector = build(&host, &Options::new(&ENTRY, &Default::default())).expect("no settings");
        let mut out = Samples::new();
        let result = collector.collect(&host, &mut out);
        let line = |(name, labels, value): (&str, crate::samples::LabelValues, f64)| {
            let labels: Vec<&str> = labels.collect();
            format!("{}{{{}}} {value}", name.trim_start_matches("node_infiniband_"), labels.join(","))
        };
        (out.iter().map(line).collect(), result)
    }

    #[test]
    fn an_adapter_is_said_with_the_counters_it_has() {
        let root = tempfile::tempdir().expect("a temporary directory");
        adapter(root.path(), "rdma0");
        write(root.path(), "rdma0/ports/1/counters/port_rcv_data", "5\n");
        write(root.path(), "rdma0/ports/1/counters/link_downed", "N/A (no PMA)\n");
        write(root.path(), "rdma0/ports/1/hw_counters/lifespan", "2900\n");
        write(root.path(), "rdma0/ports/1/hw_counters/out_of_buffer", "3\n");
        write(root.path(), "rdma0/ports/1/hw_counters/unheard_of", "x\n");
        let (lines, result) = said(root.path());
        result.expect("nothing is wrong");
        let expected = [
            "info{B7,rdma0,20.1,} 1",
            "state_id{rdma0,1} 4",
            "physical_state_id{rdma0,1} 5",
            "rate_bytes_per_second{rdma0,1} 312500000",
            "lifespan_seconds{rdma0,1} 2",
            "port_data_received_bytes_total{rdma0,1} 20",
            "out_of_buffer_drops_total{rdma0,1} 3",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_broken_adapter_does_not_hide_the_others() {
        let root = tempfile::tempdir().expect("a temporary directory");
        adapter(root.path(), "rdma0");
        adapter(root.path(), "rdma1");
        fs::remove_dir_all(root.path().join("class/infiniband/rdma0/ports")).expect("removed");
        let (lines, result) = said(root.path());
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert!(result.expect_err("no ports").to_string().contains("rdma0/ports"));
    }

    #[test]
    fn odd_texts_are_refused() {
        assert_eq!(parse_state("x: ACTIVE"), None);
        assert_eq!(parse_state("4: A: B"), None);
        assert_eq!(parse_state("4"), None);
        for text in ["", "100", "fast Gb/sec", "-1 Gb/sec", "inf Gb/sec"] {
            assert_eq!(parse_rate(text), None, "{text:?}");
        }
        assert_eq!(parse_counter("-1"), None);
    }

    #[test]
    fn a_host_without_the_class_has_no_data() {
        assert!(matches!(said(Path::new("/nonexistent")).1, Err(CollectError::NoData)));
    }
}
