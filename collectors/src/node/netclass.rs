//! Properties of network interfaces, out of `/sys/class/net`.

use std::{io, path::Path};

use regex::Regex;

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Flag, Host, Options, Samples, host,
    sysfs::{Attribute, Buffer, Directory},
};

/// This collector in the list.
pub const ENTRY: Entry = Entry {
    name: "netclass",
    default_on: true,
    flags: &[
        Flag::regex(
            "netclass.ignored-devices",
            "^$",
            "Regexp of net devices to ignore for netclass collector.",
        ),
        Flag::bool(
            "netclass.ignore-invalid-speed",
            false,
            "Ignore devices where the speed is invalid. This will be the default behavior in 2.x.",
        ),
        Flag::bool("netclass.netlink", false, "Use netlink to gather stats instead of /proc/net/dev."),
        Flag::bool(
            "netclass_rtnl.with-stats",
            false,
            "Expose the statistics for each network device, replacing netdev collector.",
        ),
    ],
    build,
};

static UP: Desc =
    Desc::gauge("node_network_up", "Value is 1 if operstate is 'up', 0 otherwise.", &["device"]);
static INFO: Desc = Desc::gauge(
    "node_network_info",
    "Non-numeric data from /sys/class/net/<iface>, value is always 1.",
    &["address", "adminstate", "broadcast", "device", "duplex", "ifalias", "operstate"],
);

/// The attributes behind the labels of [`INFO`], in the same order; the device itself and its flags are not texts.
const TEXTS: [&str; 5] = ["address", "broadcast", "duplex", "ifalias", "operstate"];

/// An attribute that is a number, and its family.
struct Number(&'static str, Desc);

macro_rules! number {
    ($attribute:literal, $name:literal) => {
        number!($attribute, $name, gauge)
    };
    ($attribute:literal, $name:literal, $kind:ident) => {
        Number(
            $attribute,
            Desc::$kind(
                concat!("node_network_", $name),
                concat!("Network device property: ", $name),
                &["device"],
            ),
        )
    };
}

static NUMBERS: [Number; 17] = [
    number!("addr_assign_type", "address_assign_type"),
    number!("carrier", "carrier"),
    number!("carrier_changes", "carrier_changes_total", counter),
    number!("carrier_up_count", "carrier_up_changes_total", counter),
    number!("carrier_down_count", "carrier_down_changes_total", counter),
    number!("dev_id", "device_id"),
    number!("dormant", "dormant"),
    number!("flags", "flags"),
    number!("ifindex", "iface_id"),
    number!("iflink", "iface_link"),
    number!("link_mode", "iface_link_mode"),
    number!("mtu", "mtu_bytes"),
    number!("name_assign_type", "name_assign_type"),
    number!("netdev_group", "net_dev_group"),
    number!("speed", "speed_bytes"),
    number!("tx_queue_len", "transmit_queue_length"),
    number!("type", "protocol_type"),
];
const FLAGS: usize = 7;
const SPEED: usize = 14;

/// How many interfaces keep their files open. A node full of pods has hundreds of interfaces with twenty files each:
/// beyond these, files are opened at each scrape rather than eat up the descriptors.
const KEPT: usize = 24;

struct Netclass {
    ignored: Option<Regex>,
    ignore_invalid_speed: bool,
    interfaces: Vec<Interface>,
    buffer: Buffer,
    /// The texts of the interface at hand.
    texts: Texts,
}

struct Interface {
    name: String,
    ignored: bool,
    /// Nothing until the interface is said while there is room for it.
    kept: Option<Box<Kept>>,
}

/// The files of an interface, which stay open.
struct Kept {
    texts: [Attribute; TEXTS.len()],
    numbers: [Attribute; NUMBERS.len()],
}

fn build(_: &Host, options: &Options) -> Result<Box<dyn Collector>, BuildError> {
    for flag in ["netclass.netlink", "netclass_rtnl.with-stats"] {
        if options.is_on(flag) {
            return Err(BuildError::Value {
                flag,
                what: "not supported, interfaces are read from sysfs".into(),
            });
        }
    }
    Ok(Box::new(Netclass {
        ignored: options.regex("netclass.ignored-devices")?,
        ignore_invalid_speed: options.is_on("netclass.ignore-invalid-speed"),
        interfaces: Vec::new(),
        buffer: Buffer::default(),
        texts: Default::default(),
    }))
}

impl Collector for Netclass {
    fn collect(&mut self, host: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let class = host.sys("class/net");
        self.follow(&class)?;
        let mut kept = 0;
        for at in 0..self.interfaces.len() {
            let interface = &mut self.interfaces[at];
            if interface.ignored {
                continue;
            }
            kept += 1;
            if kept > KEPT {
                interface.kept = None;
            } else if interface.kept.is_none() {
                interface.kept = Some(Box::new(Kept::new(&class.join(&interface.name))));
            }
            self.say(at, &class, out);
        }
        Ok(())
    }
}

impl Netclass {
    /// Takes up interfaces that are new, forgets those that are gone.
    fn follow(&mut self, class: &Path) -> Result<(), CollectError> {
        // Files, such as bonding_masters, are no interfaces.
        let names = host::list_dir_but_files(class).map_err(none_or_denied_is_no_data)?;
        if names.iter().eq(self.interfaces.iter().map(|interface| &interface.name)) {
            return Ok(());
        }
        let mut known = std::mem::take(&mut self.interfaces);
        for name in names {
            let at = known.iter().position(|interface| interface.name == name);
            let interface = at.map(|at| known.swap_remove(at)).unwrap_or_else(|| {
                let ignored = self.ignored.as_ref().is_some_and(|pattern| pattern.is_match(&name));
                Interface { name, ignored, kept: None }
            });
            self.interfaces.push(interface);
        }
        Ok(())
    }

    fn say(&mut self, at: usize, class: &Path, out: &mut Samples) {
        let Self { interfaces, buffer, texts, ignore_invalid_speed, .. } = self;
        let interface = &mut interfaces[at];
        let numbers = match &mut interface.kept {
            Some(kept) => kept.read(buffer, texts),
            // An interface that is gone by now is left out.
            None => match Directory::open(&class.join(&interface.name)) {
                Ok(directory) => read_once(&directory, buffer, texts),
                Err(_) => return,
            },
        };
        let name = &interface.name;
        let [address, broadcast, duplex, alias, state] = &*texts;
        out.push(&UP, &[name], f64::from(u8::from(state == "up")));
        let admin = admin_state(numbers[FLAGS]);
        out.push(&INFO, &[address, admin, broadcast, name, duplex, alias, state], 1.0);
        for (at, (Number(_, desc), value)) in NUMBERS.iter().zip(numbers).enumerate() {
            match value {
                None => {}
                // Some drivers say -1 for a speed they do not know.
                Some(speed) if at == SPEED && speed < 0 && *ignore_invalid_speed => {}
                Some(speed) if at == SPEED => out.push(desc, &[name], bytes_per_second(speed) as f64),
                Some(value) => out.push(desc, &[name], value as f64),
            }
        }
    }
}

type Texts = [String; TEXTS.len()];
type Numbers = [Option<i64>; NUMBERS.len()];

impl Kept {
    fn new(directory: &Path) -> Self {
        let attribute = |file: &str| Attribute::new(directory.join(file));
        Self {
            texts: TEXTS.map(attribute),
            numbers: NUMBERS.each_ref().map(|Number(file, _)| attribute(file)),
        }
    }

    fn read(&mut self, buffer: &mut Buffer, texts: &mut Texts) -> Numbers {
        for (text, attribute) in texts.iter_mut().zip(&mut self.texts) {
            attribute.read(buffer).unwrap_or_default().clone_into(text);
        }
        // Interfaces refuse what they lack: a loopback its speed, one that is down its carrier.
        self.numbers.each_mut().map(|attribute| attribute.read(buffer).ok().map(parse_number))
    }
}

/// As [`Kept::read`], from files that are closed again.
fn read_once(directory: &Directory, buffer: &mut Buffer, texts: &mut Texts) -> Numbers {
    for (text, file) in texts.iter_mut().zip(TEXTS) {
        directory.read(file, buffer).unwrap_or_default().clone_into(text);
    }
    NUMBERS.each_ref().map(|Number(file, _)| directory.read(file, buffer).ok().map(parse_number))
}

fn none_or_denied_is_no_data(error: CollectError) -> CollectError {
    match error {
        CollectError::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            CollectError::NoData
        }
        other => other.missing_is_no_data(),
    }
}

/// `mtu`: "1500", `flags`: "0x1003"; what is no number counts as 0.
fn parse_number(text: &str) -> i64 {
    match text.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).unwrap_or(0),
        None => text.parse().unwrap_or(0),
    }
}

/// `speed` is in megabits per second.
fn bytes_per_second(speed: i64) -> i64 {
    speed.wrapping_mul(1000 * 1000) / 8
}

/// IFF_UP is the lowest bit of the flags.
fn admin_state(flags: Option<i64>) -> &'static str {
    match flags {
        None => "unknown",
        Some(flags) if flags & 1 == 1 => "up",
        Some(_) => "down",
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::collector::Settings;

    fn interface(root: &Path, name: &str, files: &[(&str, &str)]) {
        let directory = root.join("class/net").join(name);
        fs::create_dir_all(&directory).expect("made");
        for (file, text) in files {
            fs::write(directory.join(file), text).expect("written");
        }
    }

    fn said(collector: &mut dyn Collector, host: &Host) -> Vec<String> {
        let mut out = Samples::new();
        collector.collect(host, &mut out).expect("collected");
        out.iter()
            .map(|(name, labels, value)| {
                let labels: Vec<&str> = labels.collect();
                format!("{}{{{}}} {value}", name.trim_start_matches("node_network_"), labels.join(","))
            })
            .collect()
    }

    fn make(root: &Path, settings: &[(&str, &str)]) -> (Box<dyn Collector>, Host) {
        let settings: Settings =
            settings.iter().map(|(name, value)| (name.to_string(), vec![value.to_string()])).collect();
        let host = Host { sysfs: root.into(), ..Host::default() };
        let collector = build(&host, &Options::new(&ENTRY, &settings)).expect("valid settings");
        (collector, host)
    }

    #[test]
    fn an_interface_is_said_with_what_it_has() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let files =
            [("operstate", "up\n"), ("flags", "0x1003\n"), ("speed", "1000\n"), ("address", "01:01\n")];
        interface(root.path(), "eth0", &files);
        fs::write(root.path().join("class/net/bonding_masters"), "bond0\n").expect("written");
        let (mut collector, host) = make(root.path(), &[]);
        let expected =
            ["up{eth0} 1", "info{01:01,up,,eth0,,,up} 1", "flags{eth0} 4099", "speed_bytes{eth0} 125000000"];
        assert_eq!(said(&mut *collector, &host), expected);
    }

    #[test]
    fn a_speed_that_is_not_known_can_be_left_out() {
        let root = tempfile::tempdir().expect("a temporary directory");
        interface(root.path(), "bond0", &[("speed", "-1\n")]);
        let (mut collector, host) = make(root.path(), &[]);
        assert_eq!(said(&mut *collector, &host)[2], "speed_bytes{bond0} -125000");
        let (mut collector, host) = make(root.path(), &[("netclass.ignore-invalid-speed", "true")]);
        assert_eq!(said(&mut *collector, &host).len(), 2);
    }

    #[test]
    fn interfaces_beyond_those_whose_files_are_kept_are_said_as_well() {
        let root = tempfile::tempdir().expect("a temporary directory");
        for number in 0..=KEPT {
            interface(root.path(), &format!("veth{number}"), &[("mtu", "1500\n"), ("operstate", "up\n")]);
        }
        let (mut collector, host) = make(root.path(), &[]);
        let said = said(&mut *collector, &host);
        let count = |prefix: &str| said.iter().filter(|line| line.starts_with(prefix)).count();
        assert_eq!((count("mtu_bytes{"), count("up{"), said.len()), (KEPT + 1, KEPT + 1, 3 * (KEPT + 1)));
        assert!(said.iter().all(|line| !line.ends_with(" 0")), "{said:?}");
    }

    #[test]
    fn interfaces_come_and_go() {
        let root = tempfile::tempdir().expect("a temporary directory");
        interface(root.path(), "eth1", &[("mtu", "1500\n")]);
        let (mut collector, host) = make(root.path(), &[("netclass.ignored-devices", "^lo$")]);
        assert_eq!(said(&mut *collector, &host)[2], "mtu_bytes{eth1} 1500");
        interface(root.path(), "eth0", &[("mtu", "9000\n")]);
        interface(root.path(), "lo", &[("mtu", "65536\n")]);
        fs::remove_dir_all(root.path().join("class/net/eth1")).expect("removed");
        assert_eq!(said(&mut *collector, &host)[2], "mtu_bytes{eth0} 9000");
        assert_eq!(said(&mut *collector, &host).len(), 3);
    }

    #[test]
    fn numbers_are_decimal_or_hex_and_nonsense_is_zero() {
        for (text, number) in [("1500", 1500), ("0x1003", 4099), ("-1", -1), ("", 0), ("fast", 0)] {
            assert_eq!(parse_number(text), number, "{text:?}");
        }
    }

    #[test]
    fn a_host_without_the_class_has_no_data() {
        let (mut collector, host) = make(Path::new("/nonexistent"), &[]);
        let error = collector.collect(&host, &mut Samples::new()).expect_err("nothing is there");
        assert!(matches!(error, CollectError::NoData));
    }

    #[test]
    fn netlink_is_refused_for_now() {
        let settings = Settings::from([("netclass.netlink".to_owned(), vec!["true".to_owned()])]);
        let error = build(&Host::default(), &Options::new(&ENTRY, &settings)).err().expect("refused");
        assert_eq!(error.flag(), "netclass.netlink");
    }
}
