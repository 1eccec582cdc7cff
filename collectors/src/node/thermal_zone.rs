//! Temperatures of thermal zones, states of cooling devices.

use std::{io, path::Path, time::Instant};

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Host, Options, Samples,
    sysfs::{self, Buffer, KeptDevice},
};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "thermal_zone", default_on: true, flags: &[], build };

static TEMPERATURE: Desc =
    Desc::gauge("node_thermal_zone_temp", "Zone temperature in Celsius", &["type", "zone"]);
static CURRENT: Desc = Desc::gauge(
    "node_cooling_device_cur_state",
    "Current throttle state of the cooling device",
    &["name", "type"],
);
static MAXIMUM: Desc = Desc::gauge(
    "node_cooling_device_max_state",
    "Maximum throttle state of the cooling device",
    &["name", "type"],
);

/// What a zone and a device are does not change while they are there: a driver says it when it registers them.
const ZONE: &[&str] = &["temp", "type"];
const DEVICE: &[&str] = &["cur_state", "max_state", "type"];

#[derive(Default)]
struct ThermalZone {
    /// The names in the class directory when the two lists below were made.
    names: Vec<String>,
    /// Zones and cooling devices, with their numbers.
    zones: Vec<(String, KeptDevice)>,
    devices: Vec<(String, KeptDevice)>,
    buffer: Buffer,
}

fn build(_: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(ThermalZone::default()))
}

impl Collector for ThermalZone {
    fn collect(&mut self, host: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let class = host.sys("class/thermal");
        let names = sysfs::entries(&class)?;
        if names != self.names {
            self.look(&class, names);
        }
        let now = Instant::now();
        for (number, zone) in &mut self.zones {
            say_zone(number, zone, now, &mut self.buffer, out);
            zone.rest();
        }
        for (number, device) in &mut self.devices {
            say_device(number, device, now, &mut self.buffer, out)?;
            device.rest();
        }
        Ok(())
    }
}

impl ThermalZone {
    fn look(&mut self, class: &Path, names: Vec<String>) {
        let numbered = |prefix: &'static str, attributes| {
            let devices = names.iter().filter(move |name| sysfs::is_numbered(name, prefix));
            devices.map(move |name| {
                (name[prefix.len()..].to_owned(), KeptDevice::new(class.join(name), attributes))
            })
        };
        self.zones = numbered("thermal_zone", ZONE).collect();
        self.devices = numbered("cooling_device", DEVICE).collect();
        self.names = names;
    }
}

/// A zone whose sensor does not answer is said with 0, as node_exporter does.
fn say_zone(number: &str, zone: &mut KeptDevice, now: Instant, buffer: &mut Buffer, out: &mut Samples) {
    let temperature = zone.read(0, now, buffer).ok().and_then(parse_number).unwrap_or(0);
    let kind = zone.constant(1, now, buffer).unwrap_or_default();
    out.push(&TEMPERATURE, &[kind, number], temperature as f64 / 1000.0);
}

/// A device whose driver refuses to say is left out.
fn say_device(
    number: &str,
    device: &mut KeptDevice,
    now: Instant,
    buffer: &mut Buffer,
    out: &mut Samples,
) -> Result<(), CollectError> {
    let maximum = device.constant(1, now, buffer).map(parse_number);
    let Some(maximum) = state(maximum, device.path(), DEVICE[1])? else { return Ok(()) };
    let current = device.read(0, now, buffer).map(parse_number);
    let Some(current) = state(current, device.path(), DEVICE[0])? else { return Ok(()) };
    match device.constant(2, now, buffer) {
        Ok(kind) => {
            out.push(&CURRENT, &[number, kind], current as f64);
            out.push(&MAXIMUM, &[number, kind], maximum as f64);
            Ok(())
        }
        Err(error) => refusal(error, device.path(), DEVICE[2]),
    }
}

/// The number in an attribute; nothing when the driver refuses to say.
fn state(read: io::Result<Option<i64>>, device: &Path, name: &str) -> Result<Option<i64>, CollectError> {
    match read {
        Ok(Some(number)) => Ok(Some(number)),
        Ok(None) => Err(CollectError::parse(device.join(name), "expected a number")),
        Err(error) => refusal(error, device, name).map(|()| None),
    }
}

/// Nothing to say: the device has gone, or its driver refuses. Other errors are the collector's, as in node_exporter.
fn refusal(source: io::Error, device: &Path, name: &str) -> Result<(), CollectError> {
    use io::ErrorKind::{InvalidInput, NotFound, PermissionDenied, Unsupported};

    match source.kind() {
        NotFound | PermissionDenied | InvalidInput | Unsupported => Ok(()),
        _ => Err(CollectError::Read { path: device.join(name), source }),
    }
}

/// `thermal_zone0/temp`: "49925", thousandths of a degree; `cur_state`: "-1" where a driver does not know.
fn parse_number(text: &str) -> Option<i64> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for (path, text) in files {
            let path = dir.path().join("class/thermal").join(path);
            fs::create_dir_all(path.parent().expect("has one")).expect("made");
            fs::write(path, text).expect("written");
        }
        let host = Host { sysfs: dir.path().into(), ..Host::default() };
        (dir, host)
    }

    fn said(host: &Host) -> Result<Vec<(String, String, f64)>, CollectError> {
        let mut out = Samples::new();
        ThermalZone::default().collect(host, &mut out)?;
        Ok(out
            .iter()
            .map(|(name, labels, value)| (name.to_owned(), labels.collect::<Vec<_>>().join(" "), value))
            .collect())
    }

    #[test]
    fn zones_and_devices_are_said_with_their_type() {
        let (_dir, host) = host(&[
            ("thermal_zone3/type", "cpu-thermal\n"),
            ("thermal_zone3/temp", "49925\n"),
            ("cooling_device0/type", "Processor\n"),
            ("cooling_device0/max_state", "10\n"),
            ("cooling_device0/cur_state", "-1\n"),
        ]);
        let said = said(&host).expect("collected");
        assert_eq!(said[0], ("node_thermal_zone_temp".into(), "cpu-thermal 3".into(), 49.925));
        assert_eq!(said[1], ("node_cooling_device_cur_state".into(), "0 Processor".into(), -1.0));
        assert_eq!(said[2], ("node_cooling_device_max_state".into(), "0 Processor".into(), 10.0));
    }

    #[test]
    fn a_silent_sensor_is_zero_and_a_silent_device_is_left_out() {
        let (_dir, host) = host(&[("thermal_zone0/type", "x\n"), ("cooling_device0/type", "Fan\n")]);
        assert_eq!(said(&host).expect("collected"), [("node_thermal_zone_temp".into(), "x 0".into(), 0.0)]);
    }

    #[test]
    fn a_state_that_is_no_number_is_refused() {
        let (_dir, host) =
            host(&[("cooling_device0/type", "Fan\n"), ("cooling_device0/max_state", "high\n")]);
        assert!(matches!(said(&host), Err(CollectError::Parse { .. })));
    }

    #[test]
    fn a_host_without_the_class_says_nothing() {
        let host = Host { sysfs: "/nonexistent".into(), ..Host::default() };
        assert!(said(&host).expect("nothing is no error").is_empty());
    }
}
