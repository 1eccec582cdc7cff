//! PCI devices: what they are, how fast their link is, in which power state they are.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Flag, Host, Options, Samples, host,
    sysfs::{self, ABSENT, Attributes, Class, NEVER, Reader},
};

mod names;

use names::{Database, Ids, Names};

/// This collector in the list.
pub const ENTRY: Entry = Entry {
    name: "pcidevice",
    default_on: false,
    flags: &[
        Flag::text("pcidevice.idsfile", "", "Path to pci.ids file to use for PCI device identification."),
        Flag::bool("pcidevice.names", false, "Enable PCI device name resolution (requires pci.ids file)."),
    ],
    build,
};

/// Where distributions keep the names of devices.
const IDS_FILES: [&str; 2] = ["/usr/share/misc/pci.ids", "/usr/share/hwdata/pci.ids"];

const INFO_HELP: &str = "Non-numeric data from /sys/bus/pci/devices/<location>, value is always 1.";

static INFO: Desc = Desc::gauge(
    "node_pcidevice_info",
    INFO_HELP,
    &[
        "bus",
        "class_id",
        "device",
        "device_id",
        "function",
        "parent_bus",
        "parent_device",
        "parent_function",
        "parent_segment",
        "revision",
        "segment",
        "subsystem_device_id",
        "subsystem_vendor_id",
        "vendor_id",
    ],
);
static INFO_WITH_NAMES: Desc = Desc::gauge(
    "node_pcidevice_info",
    INFO_HELP,
    &[
        "bus",
        "class_id",
        "class_name",
        "device",
        "device_id",
        "device_name",
        "function",
        "parent_bus",
        "parent_device",
        "parent_function",
        "parent_segment",
        "revision",
        "segment",
        "subsystem_device_id",
        "subsystem_device_name",
        "subsystem_vendor_id",
        "subsystem_vendor_name",
        "vendor_id",
        "vendor_name",
    ],
);

/// The labels of a device in every other family.
const LOCATION: &[&str] = &["bus", "device", "function", "segment"];

/// An attribute, how its text becomes a number, the number when there is no attribute, and the family.
struct Number(&'static str, fn(&str) -> Option<f64>, f64, Desc);

static NUMBERS: [Number; 9] = [
    Number(
        "max_link_speed",
        parse_speed,
        -1.0,
        Desc::gauge(
            "node_pcidevice_max_link_transfers_per_second",
            "Value of maximum link's transfers per second (T/s)",
            LOCATION,
        ),
    ),
    Number(
        "max_link_width",
        parse_width,
        -1.0,
        Desc::gauge(
            "node_pcidevice_max_link_width",
            "Value of maximum link's width (number of lanes)",
            LOCATION,
        ),
    ),
    Number(
        "current_link_speed",
        parse_speed,
        -1.0,
        Desc::gauge(
            "node_pcidevice_current_link_transfers_per_second",
            "Value of current link's transfers per second (T/s)",
            LOCATION,
        ),
    ),
    Number(
        "current_link_width",
        parse_width,
        -1.0,
        Desc::gauge(
            "node_pcidevice_current_link_width",
            "Value of current link's width (number of lanes)",
            LOCATION,
        ),
    ),
    Number(
        "d3cold_allowed",
        parse_switch,
        0.0,
        Desc::gauge(
            "node_pcidevice_d3cold_allowed",
            "Whether the PCIe device supports D3cold power state (0/1).",
            LOCATION,
        ),
    ),
    Number(
        "sriov_drivers_autoprobe",
        parse_switch,
        0.0,
        Desc::gauge(
            "node_pcidevice_sriov_drivers_autoprobe",
            "Whether SR-IOV drivers autoprobe is enabled for the device (0/1).",
            LOCATION,
        ),
    ),
    Number(
        "sriov_numvfs",
        parse_count,
        0.0,
        Desc::gauge(
            "node_pcidevice_sriov_numvfs",
            "Number of Virtual Functions (VFs) currently enabled for SR-IOV.",
            LOCATION,
        ),
    ),
    Number(
        "sriov_totalvfs",
        parse_count,
        0.0,
        Desc::gauge(
            "node_pcidevice_sriov_totalvfs",
            "Total number of Virtual Functions (VFs) supported by the device.",
            LOCATION,
        ),
    ),
    Number(
        "sriov_vf_total_msix",
        parse_count,
        0.0,
        Desc::gauge(
            "node_pcidevice_sriov_vf_total_msix",
            "Total number of MSI-X vectors for Virtual Functions.",
            LOCATION,
        ),
    ),
];

static NUMA_NODE: Desc = Desc::gauge(
    "node_pcidevice_numa_node",
    "NUMA node number for the PCI device. -1 indicates unknown or not available.",
    LOCATION,
);
static POWER_STATE: Desc = Desc::gauge(
    "node_pcidevice_power_state",
    "PCIe device power state, one of: D0, D1, D2, D3hot, D3cold, unknown or error.",
    &["bus", "device", "function", "segment", "state"],
);
const POWER_STATES: [&str; 7] = ["D0", "D1", "D2", "D3hot", "D3cold", "unknown", "error"];

struct Pcidevice {
    class: Class<Option<Known>>,
    reader: Reader,
    naming: Option<Naming>,
}

/// What stays as it is as long as the device is there.
struct Known {
    ids: Ids,
    revision: String,
    location: Location,
    /// That of the bridge above it, if there is one.
    parent: Option<Location>,
}

/// `0000:02:1f.7` is segment, bus, device and function.
#[derive(Debug, PartialEq, Eq)]
struct Location {
    segment: String,
    bus: String,
    device: String,
    function: String,
}

/// The names of the devices that were met. The file they come from is large, so it is read only while one is missing.
struct Naming {
    file: Option<PathBuf>,
    known: HashMap<Ids, Names>,
}

fn build(host: &Host, options: &Options) -> Result<Box<dyn Collector>, BuildError> {
    let file = Some(options.text("pcidevice.idsfile")).filter(|file| !file.is_empty()).map(PathBuf::from);
    let naming = options.is_on("pcidevice.names").then(|| Naming { file, known: HashMap::new() });
    Ok(Box::new(Pcidevice {
        class: Class::new(host.sys("bus/pci/devices")),
        reader: Reader::default(),
        naming,
    }))
}

impl Collector for Pcidevice {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let Self { class, reader, naming } = self;
        let devices = class.follow(|_| true).map_err(CollectError::missing_is_no_data)?;
        for device in devices.iter_mut().filter(|device| device.kept.is_none()) {
            if let Some(mut attributes) = reader.open(&device.path) {
                device.kept = look(&device.path, &mut attributes);
            }
        }
        if let Some(naming) = naming {
            naming.complete(devices.iter().filter_map(|device| device.kept.as_ref()).map(|known| &known.ids));
        }
        for device in devices {
            let Some(known) = &device.kept else { continue };
            if let Some(attributes) = reader.open(&device.path) {
                let names = naming.as_ref().and_then(|naming| naming.known.get(&known.ids));
                say(known, names, attributes, out);
            }
        }
        reader.finish()
    }
}

fn look(path: &Path, attributes: &mut Attributes) -> Option<Known> {
    let target = match host::link_target(path) {
        Ok(target) => target,
        Err(error) => {
            attributes.fail(error);
            return None;
        }
    };
    let Some((location, parent)) = parse_target(&target) else {
        attributes.fail(CollectError::parse(path, "expected a link to the device below its bus"));
        return None;
    };
    let mut id = |file| attributes.parse(file, NEVER, parse_id);
    Some(Known {
        ids: Ids {
            class: format!("{:06x}", id("class")?),
            vendor: format!("{:04x}", id("vendor")?),
            device: format!("{:04x}", id("device")?),
            subsystem_vendor: format!("{:04x}", id("subsystem_vendor")?),
            subsystem_device: format!("{:04x}", id("subsystem_device")?),
        },
        revision: format!("0x{:02x}", id("revision")?),
        location,
        parent,
    })
}

fn say(known: &Known, names: Option<&Names>, mut device: Attributes, out: &mut Samples) {
    say_info(known, names, out);
    let Location { segment, bus, device: number, function } = &known.location;
    let location = &[bus.as_str(), number, function, segment];
    // Nothing, or a speed that the kernel does not know, counts as absent.
    let is_unknown = |text: &str| text.is_empty() || text.starts_with("Unknown");
    for Number(file, parse, absent, desc) in &NUMBERS {
        let parse = |text: &str| if is_unknown(text) { Some(*absent) } else { parse(text) };
        if let Some(value) = device.parse_or(file, *absent, parse) {
            out.push(desc, location, value);
        }
    }
    let node = |text: &str| if is_unknown(text) { Some(-1) } else { text.parse::<i32>().ok() };
    if let Some(node) = device.parse_or("numa_node", -1, node).filter(|node| *node != -1) {
        out.push(&NUMA_NODE, location, f64::from(node));
    }
    if let Some(current) = device.text("power_state", ABSENT).filter(|text| !text.is_empty()) {
        for state in POWER_STATES {
            let value = f64::from(u8::from(state == current));
            out.push(&POWER_STATE, &[bus, number, function, segment, state], value);
        }
    }
}

fn say_info(known: &Known, names: Option<&Names>, out: &mut Samples) {
    let Known { ids, revision, location, parent } = known;
    let Location { segment, bus, device, function } = location;
    let parent = match parent {
        Some(Location { segment, bus, device, function }) => [bus.as_str(), device, function, segment],
        None => ["*"; 4],
    };
    let [parent_bus, parent_device, parent_function, parent_segment] = parent;
    let [class, vendor, id, subsystem_vendor, subsystem_id] =
        [&ids.class, &ids.vendor, &ids.device, &ids.subsystem_vendor, &ids.subsystem_device]
            .map(|id| format!("0x{id}"));
    let Some(names) = names else {
        let labels: &[&str] = &[
            bus,
            &class,
            device,
            &id,
            function,
            parent_bus,
            parent_device,
            parent_function,
            parent_segment,
            revision,
            segment,
            &subsystem_id,
            &subsystem_vendor,
            &vendor,
        ];
        return out.push(&INFO, labels, 1.0);
    };
    let labels: &[&str] = &[
        bus,
        &class,
        &names.class,
        device,
        &id,
        &names.device,
        function,
        parent_bus,
        parent_device,
        parent_function,
        parent_segment,
        revision,
        segment,
        &subsystem_id,
        &names.subsystem_device,
        &subsystem_vendor,
        &names.subsystem_vendor,
        &vendor,
        &names.vendor,
    ];
    out.push(&INFO_WITH_NAMES, labels, 1.0);
}

impl Naming {
    fn complete<'a>(&mut self, ids: impl Iterator<Item = &'a Ids>) {
        let missing: Vec<&Ids> = ids.filter(|ids| !self.known.contains_key(*ids)).collect();
        if missing.is_empty() {
            return;
        }
        // Without the file devices go by their numbers.
        let text = match &self.file {
            Some(file) => host::read_text(file).ok(),
            None => IDS_FILES.iter().find_map(|file| host::read_text(Path::new(file)).ok()),
        };
        let text = text.unwrap_or_default();
        let database = Database::parse(&text);
        for ids in missing {
            self.known.insert(ids.clone(), database.names(ids));
        }
    }
}

/// `../../../devices/pci0000:00/0000:00:02.5/0000:04:00.0`: a device and the one above it, unless that is the bus.
fn parse_target(target: &Path) -> Option<(Location, Option<Location>)> {
    let location = Location::parse(target.file_name()?.to_str()?)?;
    let parent = target.parent()?.file_name()?.to_str()?;
    if parent.starts_with("pci") {
        return Some((location, None));
    }
    Some((location, Some(Location::parse(parent)?)))
}

impl Location {
    fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| u32::from_str_radix(text, 16).ok();
        let mut parts = text.split(':');
        let (segment, bus, rest) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let (device, function) = rest.split_once('.')?;
        Some(Self {
            segment: format!("{:04x}", number(segment)?),
            bus: format!("{:02x}", number(bus)?),
            device: format!("{:02x}", number(device)?),
            function: format!("{:x}", number(function)?),
        })
    }
}

/// `vendor`: "0x8086"
fn parse_id(text: &str) -> Option<u32> {
    u32::try_from(sysfs::unsigned(text)?).ok()
}

/// `max_link_speed`: "8.0 GT/s PCIe"
fn parse_speed(text: &str) -> Option<f64> {
    let speed: f64 = text.strip_suffix(" GT/s PCIe")?.parse().ok()?;
    Some(speed * 1e9)
}

/// `max_link_width`: "16"; 255 where the device does not say.
fn parse_width(text: &str) -> Option<f64> {
    Some(text.parse::<i64>().ok()? as f64)
}

/// `d3cold_allowed`: "1"
fn parse_switch(text: &str) -> Option<f64> {
    Some(f64::from(u8::from(text.parse::<i32>().ok()? != 0)))
}

/// `sriov_numvfs`: "8"
fn parse_count(text: &str) -> Option<f64> {
    Some(sysfs::decimal(text)? as f64)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;
    use crate::collector::Settings;

    fn device(root: &Path, location: &str, below: &str, files: &[(&str, &str)]) {
        let real = root.join("devices").join(below).join(location);
        fs::create_dir_all(&real).expect("made");
        let ids = ["class", "vendor", "device", "subsystem_vendor", "subsystem_device", "revision"];
        for (file, text) in ids.map(|file| (file, "0x00ab\n")).iter().chain(files) {
            fs::write(real.join(file), text).expect("written");
        }
        let bus = root.join("bus/pci/devices");
        fs::create_dir_all(&bus).expect("made");
        let target = Path::new("../../../devices").join(below).join(location);
        symlink(target, bus.join(location)).expect("linked");
    }

    fn said(root: &Path) -> (Vec<String>, Result<(), CollectError>) {
        let host = Host { sysfs: root.into(), ..Host::default() };
        let mut collector = build(&host, &Options::new(&ENTRY, &Settings::new())).expect("no settings");
        let mut out = Samples::new();
        let result = collector.collect(&host, &mut out);
        let line = |(name, labels, value): (&str, crate::samples::LabelValues, f64)| {
            let labels: Vec<&str> = labels.collect();
            format!("{}{{{}}} {value}", name.trim_start_matches("node_pcidevice_"), labels.join(","))
        };
        (out.iter().map(line).collect(), result)
    }

    #[test]
    fn a_device_is_said_with_its_link_and_its_power() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let files = [
            ("max_link_speed", "8.0 GT/s PCIe\n"),
            ("current_link_speed", "Unknown\n"),
            ("max_link_width", "16\n"),
            ("numa_node", "1\n"),
            ("power_state", "D3cold\n"),
        ];
        device(root.path(), "0001:c3:1f.7", "pci0001:00/0001:00:02.0", &files);
        let (lines, result) = said(root.path());
        result.expect("nothing is wrong");
        let at = "c3,1f,7,0001";
        let ids = "0x00ab,0x00ab,0x00ab";
        assert_eq!(lines[0], format!("info{{c3,0x0000ab,1f,0x00ab,7,00,02,0,0001,0xab,0001,{ids}}} 1"));
        assert_eq!(lines[1], format!("max_link_transfers_per_second{{{at}}} 8000000000"));
        assert_eq!(lines[3], format!("current_link_transfers_per_second{{{at}}} -1"));
        assert_eq!(lines[5], format!("d3cold_allowed{{{at}}} 0"));
        assert_eq!(lines[10], format!("numa_node{{{at}}} 1"));
        assert_eq!(lines[15], format!("power_state{{{at},D3cold}} 1"));
        assert_eq!(lines.len(), 18);
    }

    #[test]
    fn a_broken_device_does_not_hide_the_others() {
        let root = tempfile::tempdir().expect("a temporary directory");
        device(root.path(), "0000:00:01.0", "pci0000:00", &[("vendor", "who\n")]);
        device(root.path(), "0000:00:02.0", "pci0000:00", &[("max_link_width", "wide\n")]);
        let (lines, result) = said(root.path());
        assert!(lines[0].starts_with("info{00,0x0000ab,02,0x00ab,0,*,*,*,*,"), "{lines:?}");
        assert_eq!(lines.len(), 9);
        assert!(result.expect_err("no vendor").to_string().contains("0000:00:01.0/vendor"));
    }

    #[test]
    fn links_lead_to_devices() {
        let parse = |target: &str| parse_target(Path::new(target));
        assert!(parse("../devices/pci0000:00/0000:00:01.0").is_some_and(|(_, parent)| parent.is_none()));
        assert!(parse("../devices/0000:00:01.0/0000:04:00.1").is_some_and(|(_, parent)| parent.is_some()));
        for target in ["", "0000:00:01.0", "../pci0000:00/00:01.0", "../pci0000:00/0:0:0:1.0", "../x/0:0:1.0"]
        {
            assert!(parse(target).is_none(), "{target:?}");
        }
    }

    #[test]
    fn odd_texts_are_refused() {
        assert_eq!(parse_speed("2.5 GT/s PCIe"), Some(2.5e9));
        for text in ["2.5", "2.5 GT/s", "fast GT/s PCIe", "2.5  GT/s PCIe"] {
            assert_eq!(parse_speed(text), None, "{text:?}");
        }
        assert_eq!(parse_switch("2"), Some(1.0));
        assert_eq!(parse_count("-1"), None);
    }

    #[test]
    fn a_host_without_the_bus_has_no_data() {
        assert!(matches!(said(Path::new("/nonexistent")).1, Err(CollectError::NoData)));
    }
}
