//! Traffic counters of network interfaces.

mod addresses;
mod proc;
mod rtnl;

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Flag, Host, HostFile, Options, Samples, filter::Filter,
    host, netlink::Route, sysfs,
};

/// This collector in the list.
pub const ENTRY: Entry = Entry {
    name: "netdev",
    default_on: true,
    flags: &[
        Flag::regex(
            "netdev.device-include",
            "",
            "Regexp of net devices to include (mutually exclusive to device-exclude).",
        ),
        Flag::regex(
            "netdev.device-exclude",
            "",
            "Regexp of net devices to exclude (mutually exclusive to device-include).",
        ),
        Flag::bool("netdev.address-info", false, "Collect address-info for every device"),
        Flag::bool(
            "netdev.enable-detailed-metrics",
            false,
            "Use (incompatible) metric names that provide more detailed stats on Linux",
        ),
        Flag::bool("netdev.netlink", true, "Use netlink to gather stats instead of /proc/net/dev."),
        Flag::bool("netdev.label-ifalias", false, "Add ifAlias label"),
        Flag::regex("netdev.device-whitelist", "", "DEPRECATED: Use collector.netdev.device-include"),
        Flag::regex("netdev.device-blacklist", "", "DEPRECATED: Use collector.netdev.device-exclude"),
    ],
    build,
};

/// A family: the sum of some of the numbers that a source gives for an interface.
struct Statistic {
    parts: &'static [usize],
    plain: Desc,
    /// The same with the interface's alias as a label.
    aliased: Desc,
}

macro_rules! statistic {
    ($name:literal, $parts:expr) => {
        Statistic {
            parts: &$parts,
            plain: statistic!(desc $name, &["device"]),
            aliased: statistic!(desc $name, &["device", "ifalias"]),
        }
    };
    (desc $name:literal, $labels:expr) => {
        Desc::counter(
            concat!("node_network_", $name, "_total"),
            concat!("Network device statistic ", $name, "."),
            $labels,
        )
    };
}
use statistic;

/// Where the numbers come from.
enum Source {
    Netlink(Route),
    Proc(HostFile),
}

struct Netdev {
    source: Source,
    filter: Filter,
    detailed: bool,
    label_alias: bool,
    /// The socket to ask for addresses, when they are wanted.
    addresses: Option<Route>,
}

fn build(host: &Host, options: &Options) -> Result<Box<dyn Collector>, BuildError> {
    let source = if options.is_on("netdev.netlink") {
        Source::Netlink(Route::default())
    } else {
        Source::Proc(HostFile::new(host.proc("net/dev")))
    };
    let filter = Filter::either(
        options,
        options.older_name("netdev.device-include", "netdev.device-whitelist")?,
        options.older_name("netdev.device-exclude", "netdev.device-blacklist")?,
    )?;
    Ok(Box::new(Netdev {
        source,
        filter,
        detailed: options.is_on("netdev.enable-detailed-metrics"),
        label_alias: options.is_on("netdev.label-ifalias"),
        addresses: options.is_on("netdev.address-info").then(Route::default),
    }))
}

impl Collector for Netdev {
    fn collect(&mut self, host: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let Self { source, filter, detailed, label_alias, addresses } = self;
        let alias = |device: &str| label_alias.then(|| alias_of(host, device)).flatten();
        match source {
            Source::Netlink(route) => {
                let table = if *detailed { &rtnl::DETAILED[..] } else { &rtnl::MERGED };
                rtnl::links(route, |device, numbers| {
                    if !filter.ignores(device) {
                        say(table, device, alias(device).as_deref(), numbers, out);
                    }
                })?;
            }
            Source::Proc(file) => {
                let table = if *detailed { &proc::DETAILED[..] } else { &proc::MERGED };
                file.parse(|text| {
                    proc::lines(text, |device, numbers| {
                        if !filter.ignores(device) {
                            say(table, device, alias(device).as_deref(), numbers, out);
                        }
                    })
                })?;
            }
        }
        match addresses {
            Some(route) => addresses::say(route, filter, out),
            None => Ok(()),
        }
    }
}

fn say(table: &'static [Statistic], device: &str, alias: Option<&str>, numbers: &[u64], out: &mut Samples) {
    for statistic in table {
        // The kernel's counters wrap, and so does their sum.
        let sum = statistic.parts.iter().fold(0_u64, |sum, &at| sum.wrapping_add(numbers[at]));
        match alias {
            Some(alias) => out.push(&statistic.aliased, &[device, alias], sum as f64),
            None => out.push(&statistic.plain, &[device], sum as f64),
        }
    }
}

/// The alias of a device that sysfs knows, empty for most; nothing for one that it does not know.
fn alias_of(host: &Host, device: &str) -> Option<String> {
    let directory = host.sys("class/net").join(device);
    sysfs::attribute(&directory.join("ifalias")).or_else(|| host::is_dir(&directory).then(String::new))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::collector::Settings;

    const DEV: &str = "Inter-|   Receive                                                |  Transmit\n \
                       face |bytes    packets errs drop fifo frame compressed multicast|bytes ...\n    \
                       lo:    1    2    3    4    5    6    7    8    9   10   11   12   13   14   15   16\n  \
                       veth0:   1    2    3    4    5    6    7    8    9   10   11   12   13   14   15   16\n";

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        pairs.iter().map(|(name, value)| (name.to_string(), vec![value.to_string()])).collect()
    }

    fn said(host: &Host, pairs: &[(&str, &str)]) -> Vec<(String, String, f64)> {
        let settings = settings(pairs);
        let mut collector = build(host, &Options::new(&ENTRY, &settings)).expect("valid settings");
        let mut out = Samples::new();
        collector.collect(host, &mut out).expect("collected");
        out.iter()
            .map(|(name, labels, value)| (name.to_owned(), labels.collect::<Vec<_>>().join(" "), value))
            .collect()
    }

    fn proc_host() -> (tempfile::TempDir, Host) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir_all(dir.path().join("net")).expect("made");
        fs::write(dir.path().join("net/dev"), DEV).expect("written");
        let host = Host { procfs: dir.path().into(), sysfs: dir.path().into(), ..Host::default() };
        (dir, host)
    }

    #[test]
    fn the_old_names_are_the_default() {
        let (_dir, host) = proc_host();
        let said = said(&host, &[("netdev.netlink", "false"), ("netdev.device-exclude", "^veth")]);
        assert_eq!(said.len(), 16);
        assert!(said.contains(&("node_network_receive_errs_total".into(), "lo".into(), 3.0)), "{said:?}");
        assert!(said.contains(&("node_network_transmit_compressed_total".into(), "lo".into(), 16.0)));
    }

    #[test]
    fn an_alias_is_a_label_of_devices_that_sysfs_knows() {
        let (dir, host) = proc_host();
        fs::create_dir_all(dir.path().join("class/net/lo")).expect("made");
        fs::write(dir.path().join("class/net/lo/ifalias"), "loop\n").expect("written");
        let said = said(&host, &[("netdev.netlink", "false"), ("netdev.label-ifalias", "true")]);
        assert!(
            said.contains(&("node_network_receive_bytes_total".into(), "lo loop".into(), 1.0)),
            "{said:?}"
        );
        assert!(said.contains(&("node_network_receive_bytes_total".into(), "veth0".into(), 1.0)), "{said:?}");
    }

    #[test]
    fn the_kernel_answers_with_the_same_loopback_on_both_ways() {
        let families = |pairs: &[(&str, &str)]| -> Vec<String> {
            let mut pairs = pairs.to_vec();
            pairs.push(("netdev.device-include", "^lo$"));
            said(&Host::default(), &pairs).into_iter().map(|(name, ..)| name).collect()
        };
        let mut netlink = families(&[]);
        netlink.retain(|name| name != "node_network_receive_nohandler_total");
        netlink.sort();
        let mut proc = families(&[("netdev.netlink", "false")]);
        proc.sort();
        assert_eq!(netlink, proc);
    }

    #[test]
    fn the_loopback_has_its_address() {
        let said =
            said(&Host::default(), &[("netdev.address-info", "true"), ("netdev.device-include", "^lo$")]);
        let expected = ("node_network_address_info".into(), "127.0.0.1 lo 8 link-local".into(), 1.0);
        assert!(said.contains(&expected), "{said:?}");
    }

    #[test]
    fn include_and_exclude_are_refused_together() {
        let settings = settings(&[("netdev.device-include", "a"), ("netdev.device-blacklist", "b")]);
        assert!(build(&Host::default(), &Options::new(&ENTRY, &settings)).is_err());
    }
}
