//! Temperatures of thermal zones, states of cooling devices.

use std::path::Path;

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Host, Options, Samples,
    sysfs::{self, Attribute, Buffer},
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

#[derive(Default)]
struct ThermalZone {
    /// The names in the class directory when the two lists below were made.
    names: Vec<String>,
    zones: Vec<Zone>,
    devices: Vec<Device>,
    buffer: Buffer,
}

struct Zone {
    number: String,
    kind: Attribute,
    temperature: Attribute,
}

struct Device {
    number: String,
    kind: Attribute,
    maximum: Attribute,
    current: Attribute,
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
        for zone in &mut self.zones {
            say_zone(zone, &mut self.buffer, out);
        }
        for device in &mut self.devices {
            say_device(device, &mut self.buffer, out)?;
        }
        Ok(())
    }
}

impl ThermalZone {
    fn look(&mut self, class: &Path, names: Vec<String>) {
        let attribute = |name: &str, file: &str| Attribute::new(class.join(name).join(file));
        let numbered = |prefix: &'static str| {
            names
                .iter()
                .filter(move |name| sysfs::is_numbered(name, prefix))
                .map(move |name| (name.as_str(), name[prefix.len()..].to_owned()))
        };
        self.zones = numbered("thermal_zone")
            .map(|(name, number)| Zone {
                number,
                kind: attribute(name, "type"),
                temperature: attribute(name, "temp"),
            })
            .collect();
        self.devices = numbered("cooling_device")
            .map(|(name, number)| Device {
                number,
                kind: attribute(name, "type"),
                maximum: attribute(name, "max_state"),
                current: attribute(name, "cur_state"),
            })
            .collect();
        self.names = names;
    }
}

/// A zone whose sensor does not answer is said with 0, as node_exporter does.
fn say_zone(zone: &mut Zone, buffer: &mut Buffer, out: &mut Samples) {
    let temperature = zone.temperature.read(buffer).ok().and_then(parse_number).unwrap_or(0);
    let kind = zone.kind.read(buffer).unwrap_or_default();
    out.push(&TEMPERATURE, &[kind, &zone.number], temperature as f64 / 1000.0);
}

/// A device whose driver refuses to say is left out.
fn say_device(device: &mut Device, buffer: &mut Buffer, out: &mut Samples) -> Result<(), CollectError> {
    let (Some(maximum), Some(current)) =
        (read_state(&mut device.maximum, buffer)?, read_state(&mut device.current, buffer)?)
    else {
        return Ok(());
    };
    let Some(kind) = read(&mut device.kind, buffer)? else { return Ok(()) };
    out.push(&CURRENT, &[&device.number, kind], current as f64);
    out.push(&MAXIMUM, &[&device.number, kind], maximum as f64);
    Ok(())
}

fn read_state(attribute: &mut Attribute, buffer: &mut Buffer) -> Result<Option<i64>, CollectError> {
    let Some(text) = read(attribute, buffer)? else { return Ok(None) };
    match parse_number(text) {
        Some(number) => Ok(Some(number)),
        None => Err(CollectError::parse(attribute.path(), "expected a number")),
    }
}

/// The text, nothing when there is none to have: the device has gone or does not know. Other errors are the collector's.
fn read<'a>(attribute: &mut Attribute, buffer: &'a mut Buffer) -> Result<Option<&'a str>, CollectError> {
    use std::io::ErrorKind::{InvalidInput, NotFound, PermissionDenied, Unsupported};

    match attribute.read(buffer) {
        Ok(text) => Ok(Some(text)),
        Err(error) if matches!(error.kind(), NotFound | PermissionDenied | InvalidInput | Unsupported) => {
            Ok(None)
        }
        Err(source) => Err(CollectError::Read { path: attribute.path().to_owned(), source }),
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
