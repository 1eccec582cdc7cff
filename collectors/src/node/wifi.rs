//! Wireless interfaces: their frequency, their network, the stations they talk to.

mod fixtures;
mod nl80211;

use std::{io, path::PathBuf};

use rustix::io::Errno;

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Flag, Host, Options, Samples, netlink::Generic,
};

/// This collector in the list.
pub const ENTRY: Entry = Entry {
    name: "wifi",
    default_on: false,
    flags: &[Flag::text("wifi.fixtures", "", "test fixtures to use for wifi collector metrics")],
    build,
};

static FREQUENCY: Desc = Desc::gauge(
    "node_wifi_interface_frequency_hertz",
    "The current frequency a WiFi interface is operating at, in hertz.",
    &["device"],
);
static INFO: Desc = Desc::gauge(
    "node_wifi_station_info",
    "Labeled WiFi interface station information as provided by the operating system.",
    &["bssid", "device", "mode", "ssid"],
);

const LABELS: &[&str] = &["device", "mac_address"];

static CONNECTED: Desc = Desc::counter(
    "node_wifi_station_connected_seconds_total",
    "The total number of seconds a station has been connected to an access point.",
    LABELS,
);
static INACTIVE: Desc = Desc::gauge(
    "node_wifi_station_inactive_seconds",
    "The number of seconds since any wireless activity has occurred on a station.",
    LABELS,
);
static RECEIVE_RATE: Desc = Desc::gauge(
    "node_wifi_station_receive_bits_per_second",
    "The current WiFi receive bitrate of a station, in bits per second.",
    LABELS,
);
static TRANSMIT_RATE: Desc = Desc::gauge(
    "node_wifi_station_transmit_bits_per_second",
    "The current WiFi transmit bitrate of a station, in bits per second.",
    LABELS,
);
static RECEIVED_BYTES: Desc = Desc::counter(
    "node_wifi_station_receive_bytes_total",
    "The total number of bytes received by a WiFi station.",
    LABELS,
);
static TRANSMITTED_BYTES: Desc = Desc::counter(
    "node_wifi_station_transmit_bytes_total",
    "The total number of bytes transmitted by a WiFi station.",
    LABELS,
);
static SIGNAL: Desc = Desc::gauge(
    "node_wifi_station_signal_dbm",
    "The current WiFi signal strength, in decibel-milliwatts (dBm).",
    LABELS,
);
static RETRIES: Desc = Desc::counter(
    "node_wifi_station_transmit_retries_total",
    "The total number of times a station has had to retry while sending a packet.",
    LABELS,
);
static FAILED: Desc = Desc::counter(
    "node_wifi_station_transmit_failed_total",
    "The total number of times a station has failed to send a packet.",
    LABELS,
);
static BEACON_LOSS: Desc = Desc::counter(
    "node_wifi_station_beacon_loss_total",
    "The total number of times a station has detected a beacon loss.",
    LABELS,
);
static TRANSMITTED_PACKETS: Desc = Desc::counter(
    "node_wifi_station_transmitted_packets_total",
    "The total number of packets transmitted by a station.",
    LABELS,
);
static RECEIVED_PACKETS: Desc = Desc::counter(
    "node_wifi_station_received_packets_total",
    "The total number of packets received by a station.",
    LABELS,
);

enum Wifi {
    Netlink(Generic),
    /// A directory with made-up answers.
    Fixtures(PathBuf),
}

#[derive(Debug, PartialEq)]
struct Interface {
    /// The number of the interface; made-up ones have none.
    index: u32,
    name: String,
    megahertz: i64,
}

/// A network: a basic service set.
#[derive(Debug, Default, PartialEq)]
struct Network {
    address: Vec<u8>,
    name: String,
    status: i64,
}

#[derive(Debug, Default, PartialEq)]
struct Station {
    address: Vec<u8>,
    connected_seconds: f64,
    inactive_seconds: f64,
    receive_rate: i64,
    transmit_rate: i64,
    received_bytes: i64,
    transmitted_bytes: i64,
    received_packets: i64,
    transmitted_packets: i64,
    signal: i64,
    retries: i64,
    failed: i64,
    beacon_loss: i64,
}

fn build(_: &Host, options: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(match options.text("wifi.fixtures") {
        "" => Wifi::Netlink(Generic::default()),
        directory => Wifi::Fixtures(directory.into()),
    }))
}

impl Collector for Wifi {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        match self {
            Self::Netlink(generic) => say_devices(generic, out),
            Self::Fixtures(directory) => {
                for Interface { name, megahertz, .. } in fixtures::interfaces(directory)? {
                    say_frequency(&name, megahertz, out);
                    if let Some(network) = fixtures::network(directory, &name)? {
                        say_network(&name, &network, out);
                    }
                    for station in fixtures::stations(directory, &name)? {
                        say_station(&name, &station, out);
                    }
                }
                Ok(())
            }
        }
    }
}

/// A host without wireless devices has no such family; whoever may not ask knows as much.
fn say_devices(generic: &mut Generic, out: &mut Samples) -> Result<(), CollectError> {
    let fail = |source| CollectError::System { what: "asking nl80211 for wireless interfaces", source };
    let family = generic.family("nl80211").map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => CollectError::NoData,
        _ => fail(error),
    })?;
    let mut result = Ok(());
    for Interface { index, name, megahertz } in nl80211::interfaces(generic, family).map_err(fail)? {
        say_frequency(&name, megahertz, out);
        let mut say_all = || {
            if let Some(network) = known(nl80211::network(generic, family, index))?.flatten() {
                say_network(&name, &network, out);
            }
            for station in known(nl80211::stations(generic, family, index))?.unwrap_or_default() {
                say_station(&name, &station, out);
            }
            Ok(())
        };
        match say_all() {
            // The interface went away meanwhile.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NODEV) => {}
            Err(error) => result = Err(fail(error)),
            Ok(()) => {}
        }
    }
    result
}

/// Nothing, where the device answers that it has no such thing.
fn known<T>(answer: io::Result<T>) -> io::Result<Option<T>> {
    match answer {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        answer => answer.map(Some),
    }
}

fn say_frequency(device: &str, megahertz: i64, out: &mut Samples) {
    out.push(&FREQUENCY, &[device], megahertz as f64 * 1e6);
}

fn say_network(device: &str, network: &Network, out: &mut Samples) {
    // node_exporter's numbers: the kernel's own for having joined an ad-hoc network is 2.
    let mode = match network.status {
        0 | 1 => "client",
        3 => "ad-hoc",
        _ => "unknown",
    };
    out.push(&INFO, &[&address(&network.address), device, mode, &network.name], 1.0);
}

fn say_station(device: &str, station: &Station, out: &mut Samples) {
    let address = address(&station.address);
    let mut say = |desc, value| out.push(desc, &[device, &address], value);
    say(&CONNECTED, station.connected_seconds);
    say(&INACTIVE, station.inactive_seconds);
    say(&RECEIVE_RATE, station.receive_rate as f64);
    say(&TRANSMIT_RATE, station.transmit_rate as f64);
    say(&RECEIVED_BYTES, station.received_bytes as f64);
    say(&TRANSMITTED_BYTES, station.transmitted_bytes as f64);
    say(&SIGNAL, station.signal as f64);
    say(&RETRIES, station.retries as f64);
    say(&FAILED, station.failed as f64);
    say(&BEACON_LOSS, station.beacon_loss as f64);
    say(&TRANSMITTED_PACKETS, station.transmitted_packets as f64);
    say(&RECEIVED_PACKETS, station.received_packets as f64);
}

/// A hardware address as people write it: "3c:ec:ef:12:34:56".
fn address(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn said(collector: &mut Wifi) -> Result<Vec<String>, CollectError> {
        let mut out = Samples::new();
        collector.collect(&Host::default(), &mut out)?;
        let line = |(name, labels, value): (&str, crate::samples::LabelValues, f64)| {
            format!("{name} {} {value}", labels.collect::<Vec<_>>().join(" "))
        };
        Ok(out.iter().map(line).collect())
    }

    #[test]
    fn made_up_answers_are_read_from_files() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("has one")).expect("made");
            fs::write(path, text).expect("written");
        };
        write("interfaces.json", r#"[{"name": "wl0", "frequency": 5180}, {"name": "wl1"}, {"type": 10}]"#);
        write("wl0/bss.json", r#"{"SSID": "rack", "BSSID": "ABEiM0RV", "Status": 3}"#);
        write("wl0/stationinfo.json", r#"[{"hardwareaddr": "AQID", "inactive": 1250000000, "signal": -40}]"#);
        let mut wifi = Wifi::Fixtures(dir.path().into());
        let lines = said(&mut wifi).expect("collected");
        assert_eq!(lines.len(), 2 + 1 + 12);
        for line in [
            "node_wifi_interface_frequency_hertz wl0 5180000000",
            "node_wifi_interface_frequency_hertz wl1 0",
            "node_wifi_station_info 00:11:22:33:44:55 wl0 ad-hoc rack 1",
            "node_wifi_station_inactive_seconds wl0 01:02:03 1.25",
            "node_wifi_station_signal_dbm wl0 01:02:03 -40",
        ] {
            assert!(lines.contains(&line.to_owned()), "{line}");
        }
        write("wl1/bss.json", r#"{"bssid": "AB!"}"#);
        assert!(matches!(said(&mut wifi), Err(CollectError::Parse { .. })));
    }

    #[test]
    fn a_missing_list_of_interfaces_is_an_error() {
        assert!(matches!(said(&mut Wifi::Fixtures("/nonexistent".into())), Err(CollectError::Read { .. })));
    }

    #[test]
    fn a_host_has_wireless_interfaces_or_no_data() {
        let result = said(&mut Wifi::Netlink(Generic::default()));
        assert!(matches!(result, Ok(_) | Err(CollectError::NoData)), "{result:?}");
    }
}
