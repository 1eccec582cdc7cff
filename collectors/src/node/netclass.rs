//! Properties of network interfaces, out of `/sys/class/net`.

mod files;
mod links;
mod rtnl;
mod shortcut;

use std::time::Instant;

use regex::Regex;

use crate::{BuildError, CollectError, Collector, Desc, Entry, Flag, Host, Options, Samples};
use files::Files;
use rtnl::Rtnl;
use shortcut::Shortcut;

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

/// The texts behind the labels of [`INFO`], in the same order; the device itself and its flags are none of them.
const ADDRESS: usize = 0;
const BROADCAST: usize = 1;
const DUPLEX: usize = 2;
const ALIAS: usize = 3;
const STATE: usize = 4;
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
const ADDR_ASSIGN_TYPE: usize = 0;
const CARRIER: usize = 1;
const CARRIER_CHANGES: usize = 2;
const CARRIER_UP_COUNT: usize = 3;
const CARRIER_DOWN_COUNT: usize = 4;
const DEV_ID: usize = 5;
const DORMANT: usize = 6;
const FLAGS: usize = 7;
const IFINDEX: usize = 8;
const IFLINK: usize = 9;
const LINK_MODE: usize = 10;
const MTU: usize = 11;
const NAME_ASSIGN_TYPE: usize = 12;
const NETDEV_GROUP: usize = 13;
const SPEED: usize = 14;
const TX_QUEUE_LEN: usize = 15;
const TYPE: usize = 16;

/// What an interface's attributes say.
#[derive(Debug, Default, Clone, PartialEq)]
struct Values {
    /// As [`TEXTS`]; empty where the interface has no such attribute.
    texts: [String; TEXTS.len()],
    /// As [`NUMBERS`]; nothing where the interface has no such attribute.
    numbers: [Option<i64>; NUMBERS.len()],
}

struct Netclass {
    ignored: Option<Regex>,
    ignore_invalid_speed: bool,
    source: Source,
}

enum Source {
    /// sysfs, and netlink where it says the same.
    Files {
        shortcut: Shortcut,
        files: Files,
    },
    Netlink(Rtnl),
}

fn build(host: &Host, options: &Options) -> Result<Box<dyn Collector>, BuildError> {
    let class = host.sys("class/net");
    let source = if options.is_on("netclass.netlink") {
        Source::Netlink(Rtnl::new(options.is_on("netclass_rtnl.with-stats")))
    } else {
        Source::Files { shortcut: Shortcut::new(class.clone()), files: Files::new(class) }
    };
    Ok(Box::new(Netclass {
        ignored: options.regex("netclass.ignored-devices")?,
        ignore_invalid_speed: options.is_on("netclass.ignore-invalid-speed"),
        source,
    }))
}

impl Collector for Netclass {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let Self { ignored, ignore_invalid_speed, source } = self;
        let now = Instant::now();
        let is_ignored = |name: &str| ignored.as_ref().is_some_and(|pattern| pattern.is_match(name));
        let (shortcut, files) = match source {
            Source::Files { shortcut, files } => (shortcut, files),
            Source::Netlink(rtnl) => return rtnl.say(is_ignored, out),
        };
        let say = |name: &str, values: &Values| say(name, values, *ignore_invalid_speed, out);
        if shortcut.look(now, is_ignored) {
            files.close();
            shortcut.say(now, say);
            return Ok(());
        }
        files.follow(is_ignored).map_err(CollectError::missing_or_denied_is_no_data)?;
        files.say(now, say);
        Ok(())
    }
}

fn say(name: &str, values: &Values, ignore_invalid_speed: bool, out: &mut Samples) {
    let [address, broadcast, duplex, alias, state] = &values.texts;
    out.push(&UP, &[name], f64::from(u8::from(state == "up")));
    let admin = admin_state(values.numbers[FLAGS]);
    out.push(&INFO, &[address, admin, broadcast, name, duplex, alias, state], 1.0);
    for (at, (Number(_, desc), value)) in NUMBERS.iter().zip(values.numbers).enumerate() {
        match value {
            None => {}
            // Some drivers say -1 for a speed they do not know.
            Some(speed) if at == SPEED && speed < 0 && ignore_invalid_speed => {}
            Some(speed) if at == SPEED => out.push(desc, &[name], bytes_per_second(speed) as f64),
            Some(value) => out.push(desc, &[name], value as f64),
        }
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
    use std::{fs, path::Path};

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
    fn many_interfaces_are_all_said() {
        const INTERFACES: usize = 300;
        let root = tempfile::tempdir().expect("a temporary directory");
        for number in 0..INTERFACES {
            interface(root.path(), &format!("veth{number}"), &[("mtu", "1500\n"), ("operstate", "up\n")]);
        }
        let (mut collector, host) = make(root.path(), &[]);
        let said = said(&mut *collector, &host);
        let count = |prefix: &str| said.iter().filter(|line| line.starts_with(prefix)).count();
        assert_eq!((count("mtu_bytes{"), count("up{"), said.len()), (INTERFACES, INTERFACES, 3 * INTERFACES));
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
    fn a_host_without_the_class_has_no_data() {
        let (mut collector, host) = make(Path::new("/nonexistent"), &[]);
        let error = collector.collect(&host, &mut Samples::new()).expect_err("nothing is there");
        assert!(matches!(error, CollectError::NoData));
    }
}
