//! Temperatures, fans, voltages and whatever else sensor chips measure.

use std::{collections::BTreeMap, path::Path};

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Flag, Host, Options, OwnedDesc, Samples,
    filter::Filter,
    host,
    samples::FamilyId,
    sysfs::{self, Buffer, Class, Device, Directory},
};

mod family;

use family::{Family, Meaning};

/// This collector in the list.
pub const ENTRY: Entry = Entry {
    name: "hwmon",
    default_on: true,
    flags: &[
        Flag::regex(
            "hwmon.chip-include",
            "",
            "Regexp of hwmon chip to include (mutually exclusive to device-exclude).",
        ),
        Flag::regex(
            "hwmon.chip-exclude",
            "",
            "Regexp of hwmon chip to exclude (mutually exclusive to device-include).",
        ),
        Flag::regex(
            "hwmon.sensor-include",
            "",
            "Regexp of hwmon sensor to include (mutually exclusive to sensor-exclude).",
        ),
        Flag::regex(
            "hwmon.sensor-exclude",
            "",
            "Regexp of hwmon sensor to exclude (mutually exclusive to sensor-include).",
        ),
    ],
    build,
};

static CHIP_NAMES: Desc = Desc::gauge(
    "node_hwmon_chip_names",
    "Annotation metric for human-readable chip names",
    &["chip", "chip_name"],
);
static SENSOR_LABEL: Desc =
    Desc::gauge("node_hwmon_sensor_label", "Label for given chip and sensor", &["chip", "label", "sensor"]);

/// The first words of the file names that stand for sensors.
const KINDS: [&str; 14] = [
    "vrm",
    "beep_enable",
    "update_interval",
    "in",
    "cpu",
    "fan",
    "pwm",
    "temp",
    "curr",
    "power",
    "energy",
    "humidity",
    "intrusion",
    "freq",
];

struct Hwmon {
    class: Class<Option<Chip>>,
    chips: Filter,
    sensors: Filter,
    families: Families,
    buffer: Buffer,
}

struct Chip {
    /// Out of the device behind the chip, which others may share.
    base: String,
    /// The trimmed text of the file `name`.
    name: String,
    /// The unique `chip` label out of both; empty until the other chips are known.
    label: String,
    /// The sensors as they were when the files were listed: a driver decides on them when it takes up the chip.
    sensors: Option<Vec<Sensor>>,
}

struct Sensor {
    /// `temp1`
    name: String,
    /// What the board calls it, which is written in the driver or in the firmware's tables.
    label: Option<String>,
    readings: Vec<Reading>,
}

/// A file with a number.
struct Reading {
    /// Below the directory of the chip; with old drivers `device/temp1_input`, in that of the device behind it.
    file: String,
    meaning: Meaning,
    family: usize,
}

fn build(host: &Host, options: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Hwmon {
        class: Class::new(host.sys("class/hwmon")),
        chips: Filter::both(options, "hwmon.chip-include", "hwmon.chip-exclude")?,
        sensors: Filter::both(options, "hwmon.sensor-include", "hwmon.sensor-exclude")?,
        families: Families::default(),
        buffer: Buffer::short(),
    }))
}

impl Collector for Hwmon {
    /// A chip that is gone by now, or a sensor that does not answer, is left out.
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let Self { class, chips, sensors, families, buffer } = self;
        families.ids.fill(None);
        let devices = class.follow(|_| true).map_err(CollectError::missing_is_no_data)?;
        if devices.iter().any(|device| device.kept.is_none()) {
            identify(devices);
        }
        let mut result = Ok(());
        for device in devices {
            let Some(chip) = &mut device.kept else { continue };
            if chips.ignores(&chip.label) {
                continue;
            }
            let Ok(directory) = Directory::open(&device.path) else { continue };
            if let Ok(Some(name)) = directory.read("name", buffer).map(clean) {
                out.push(&CHIP_NAMES, &[&chip.label, &name], 1.0);
            }
            if chip.sensors.is_none() {
                match list_sensors(&device.path, &chip.label, sensors, families, buffer) {
                    Ok(sensors) => chip.sensors = Some(sensors),
                    Err(error) if result.is_ok() && host::is_dir(&device.path) => result = Err(error),
                    Err(_) => {}
                }
            }
            say(&directory, chip, families, buffer, out);
        }
        result
    }
}

/// Finds out what new chips are, then gives every chip its label: a new one may share the device of a known one.
fn identify(devices: &mut [Device<Option<Chip>>]) {
    for device in devices.iter_mut().filter(|device| device.kept.is_none()) {
        let name = sysfs::attribute(&device.path.join("name")).unwrap_or_default();
        device.kept = base_name(&device.path, &name).map(|base| Chip {
            base,
            name,
            label: String::new(),
            sensors: None,
        });
    }
    let chips = || devices.iter().filter_map(|device| device.kept.as_ref());
    let labels: Vec<Option<String>> = devices
        .iter()
        .map(|device| {
            let chip = device.kept.as_ref()?;
            let alike = chips().filter(|other| other.base == chip.base).count();
            let same = chips().filter(|other| other.base == chip.base && other.name == chip.name).count();
            Some(match (alike, same) {
                (0 | 1, _) => chip.base.clone(),
                (_, 0 | 1) => match clean(&chip.name) {
                    Some(name) => format!("{}_{name}", chip.base),
                    None => format!("{}_{}", chip.base, clean(&device.name).unwrap_or_default()),
                },
                _ => format!("{}_{}", chip.base, clean(&device.name).unwrap_or_default()),
            })
        })
        .collect();
    for (device, label) in devices.iter_mut().zip(labels) {
        let (Some(chip), Some(label)) = (&mut device.kept, label) else { continue };
        if chip.label != label {
            // The filter of sensors looks at the label, too.
            chip.sensors = None;
            chip.label = label;
        }
    }
}

/// What a chip is called: the path of its device is stable, its number is not. `platform_coretemp_0` is
/// `/sys/devices/platform/coretemp.0`.
fn base_name(path: &Path, name: &str) -> Option<String> {
    let part =
        |path: Option<&Path>| path.and_then(Path::file_name).and_then(|name| clean(&name.to_string_lossy()));
    if let Some(device) = host::real_path(&path.join("device"))
        && let Some(name) = part(Some(&device))
    {
        return Some(match part(device.parent()) {
            Some(bus) => format!("{bus}_{name}"),
            None => name,
        });
    }
    clean(name).or_else(|| part(host::real_path(path).as_deref()))
}

/// Lower case, with `_` for what metric names can't hold; nothing when nothing is left.
fn clean(name: &str) -> Option<String> {
    let keep = |char: char| if matches!(char, 'a'..='z' | '0'..='9' | ':' | '_') { char } else { '_' };
    let replaced: String = name.to_lowercase().chars().map(keep).collect();
    let cleaned = replaced.trim_matches('_');
    (!cleaned.is_empty()).then(|| cleaned.to_owned())
}

/// The sensors of a chip, out of the names of its files and of those of the device behind it.
fn list_sensors(
    path: &Path,
    chip: &str,
    filter: &Filter,
    families: &mut Families,
    buffer: &mut Buffer,
) -> Result<Vec<Sensor>, CollectError> {
    // By sensor, then by element: a file of the device takes the place of one of the chip.
    let mut files: BTreeMap<(String, String), (String, bool)> = BTreeMap::new();
    let mut take_up = |names: Vec<String>, of_device| {
        for file in names {
            let Some((kind, number, element)) = split(&file) else { continue };
            if KINDS.contains(&kind) {
                files.insert((format!("{kind}{number}"), element.to_owned()), (file, of_device));
            }
        }
    };
    take_up(host::list_files(path)?, false);
    let device = path.join("device");
    if host::is_dir(&device) {
        take_up(host::list_files(&device)?, true);
    }
    let directory =
        Directory::open(path).map_err(|source| CollectError::Read { path: path.into(), source })?;
    let mut sensors: Vec<Sensor> = Vec::new();
    for ((name, element), (file, of_device)) in &files {
        if filter.ignores(&format!("{chip};{name}")) {
            continue;
        }
        if sensors.last().is_none_or(|sensor| sensor.name != *name) {
            sensors.push(Sensor { name: name.clone(), label: None, readings: Vec::new() });
        }
        let Some(sensor) = sensors.last_mut() else { continue };
        let file = if *of_device { format!("device/{file}") } else { file.clone() };
        if element == "label" {
            sensor.label = value(&directory, &file, buffer).map(str::to_owned);
            continue;
        }
        let has_plain = files.contains_key(&(name.clone(), String::new()));
        let kind = name.trim_end_matches(|char: char| char.is_ascii_digit());
        if let Some((meaning, family)) = families.of(kind, element, has_plain) {
            sensor.readings.push(Reading { file, meaning, family });
        }
    }
    Ok(sensors)
}

/// `temp1_max_alarm` into kind, number and element: `temp`, 1, `max_alarm`; `update_interval` is a kind. Without a number
/// it is 0. As with node_exporter's pattern, the kind is as long as can be.
fn split(file: &str) -> Option<(&str, u64, &str)> {
    let digits_at = file.bytes().position(|byte| byte.is_ascii_digit()).unwrap_or(file.len());
    let (kind, rest) = file.split_at(digits_at);
    let digits_end = rest.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, rest) = rest.split_at(digits_end);
    if kind.is_empty() {
        return None;
    }
    if rest.is_empty() || (rest.starts_with('_') && rest.len() > 1) {
        // Go's numbers end where those of i64 do.
        let number = if digits.is_empty() { 0 } else { digits.parse::<i64>().ok()?.unsigned_abs() };
        return Some((kind, number, rest.strip_prefix('_').unwrap_or(rest)));
    }
    let (shorter, _) = kind.char_indices().rev().find(|&(at, char)| at > 0 && char == '_')?;
    let element = &file[shorter + 1..];
    (!element.is_empty()).then_some((&file[..shorter], 0, element))
}

/// The text of a file without the ends of lines around it; nothing from a sensor that does not answer.
fn value<'a>(directory: &Directory, file: &str, buffer: &'a mut Buffer) -> Option<&'a str> {
    Some(directory.read_untrimmed(file, buffer).ok()?.trim_matches('\n'))
}

fn say(directory: &Directory, chip: &Chip, families: &mut Families, buffer: &mut Buffer, out: &mut Samples) {
    for sensor in chip.sensors.iter().flatten() {
        if let Some(label) = &sensor.label {
            out.push(&SENSOR_LABEL, &[&chip.label, label, &sensor.name], 1.0);
        }
        for Reading { file, meaning, family } in &sensor.readings {
            let Some(text) = value(directory, file, buffer) else { continue };
            let Some(number) = meaning.number(text) else { continue };
            let name = match meaning {
                // Only a frequency with a label is said, and under that.
                Meaning::Frequency => match &sensor.label {
                    Some(label) => &clean(label).unwrap_or_default(),
                    None => continue,
                },
                _ => &sensor.name,
            };
            let family = families.id(*family, out);
            out.push_to(family, &[&chip.label, name], number);
        }
    }
}

/// The families that were met so far, described once.
#[derive(Default)]
struct Families {
    known: Vec<(Family, OwnedDesc)>,
    /// Where each is in the page at hand.
    ids: Vec<Option<FamilyId>>,
}

impl Families {
    /// What the number of a file means and the place of its family; nothing for a file that has no meaning.
    fn of(&mut self, kind: &str, element: &str, has_plain: bool) -> Option<(Meaning, usize)> {
        let (meaning, family) = Family::of(kind, element, has_plain)?;
        let at = self.known.iter().position(|(known, _)| *known == family).unwrap_or_else(|| {
            let desc = OwnedDesc::new(&family.name, &family.help, family.kind, &["chip", "sensor"]);
            self.known.push((family, desc));
            self.ids.push(None);
            self.known.len() - 1
        });
        Some((meaning, at))
    }

    fn id(&mut self, family: usize, out: &mut Samples) -> FamilyId {
        *self.ids[family].get_or_insert_with(|| out.owned_family(&self.known[family].1))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;
    use crate::collector::Settings;

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().expect("has one")).expect("made");
        fs::write(path, text).expect("written");
    }

    fn make(root: &Path, settings: &[(&str, &str)]) -> (Box<dyn Collector>, Host) {
        let settings: Settings =
            settings.iter().map(|(name, value)| (name.to_string(), vec![value.to_string()])).collect();
        let host = Host { sysfs: root.into(), ..Host::default() };
        (build(&host, &Options::new(&ENTRY, &settings)).expect("valid settings"), host)
    }

    fn said(collector: &mut dyn Collector, host: &Host) -> Vec<String> {
        let mut out = Samples::new();
        collector.collect(host, &mut out).expect("collected");
        out.iter()
            .map(|(name, labels, value)| {
                let labels: Vec<&str> = labels.collect();
                format!("{}{{{}}} {value}", name.trim_start_matches("node_hwmon_"), labels.join(","))
            })
            .collect()
    }

    #[test]
    fn a_sensor_that_does_not_answer_hides_no_other() {
        let root = tempfile::tempdir().expect("a temporary directory");
        write(root.path(), "class/hwmon/hwmon3/name", "Board-Chip\n");
        write(root.path(), "class/hwmon/hwmon3/temp1_input", "45500\n");
        write(root.path(), "class/hwmon/hwmon3/temp1_label", "CPU \n");
        write(root.path(), "class/hwmon/hwmon3/temp2_input", "n/a\n");
        fs::create_dir(root.path().join("class/hwmon/hwmon3/power")).expect("made");
        let (mut collector, host) = make(root.path(), &[]);
        let expected = [
            "chip_names{board_chip,board_chip} 1",
            "sensor_label{board_chip,CPU ,temp1} 1",
            "temp_celsius{board_chip,temp1} 45.5",
        ];
        assert_eq!(said(&mut *collector, &host), expected);
        assert_eq!(said(&mut *collector, &host), expected);
    }

    #[test]
    fn chips_of_one_device_are_told_apart() {
        let root = tempfile::tempdir().expect("a temporary directory");
        for (chip, name) in [("hwmon0", "fans\n"), ("hwmon1", "volts\n"), ("hwmon2", "volts\n")] {
            write(root.path(), &format!("class/hwmon/{chip}/name"), name);
            write(root.path(), "devices/platform/Board.5/uevent", "");
            let link = root.path().join("class/hwmon").join(chip).join("device");
            symlink("../../../devices/platform/Board.5", link).expect("linked");
        }
        write(root.path(), "devices/platform/Board.5/in0_input", "1200\n");
        let (mut collector, host) = make(root.path(), &[("hwmon.sensor-exclude", "hwmon2;in0")]);
        let expected = [
            "chip_names{platform_board_5_fans,fans} 1",
            "in_volts{platform_board_5_fans,in0} 1.2",
            "chip_names{platform_board_5_hwmon1,volts} 1",
            "in_volts{platform_board_5_hwmon1,in0} 1.2",
            "chip_names{platform_board_5_hwmon2,volts} 1",
        ];
        assert_eq!(said(&mut *collector, &host), expected);
        fs::remove_dir_all(root.path().join("class/hwmon/hwmon1")).expect("removed");
        write(root.path(), "class/hwmon/hwmon9/name", "other\n");
        let names = said(&mut *collector, &host);
        assert!(names.contains(&"chip_names{platform_board_5_volts,volts} 1".to_owned()), "{names:?}");
    }

    #[test]
    fn a_frequency_goes_by_its_label() {
        let root = tempfile::tempdir().expect("a temporary directory");
        for file in ["freq1_input", "freq2_input"] {
            write(root.path(), &format!("class/hwmon/hwmon0/{file}"), "500000000\n");
        }
        write(root.path(), "class/hwmon/hwmon0/freq1_label", "SCLK\n");
        let (mut collector, host) = make(root.path(), &[]);
        let expected = ["sensor_label{hwmon0,SCLK,freq1} 1", "freq_freq_mhz{hwmon0,sclk} 500"];
        assert_eq!(said(&mut *collector, &host), expected);
    }

    #[test]
    fn file_names_are_split() {
        for (file, parts) in [
            ("temp1_input", Some(("temp", 1, "input"))),
            ("temp12", Some(("temp", 12, ""))),
            ("pwm1_auto_point2_temp", Some(("pwm", 1, "auto_point2_temp"))),
            ("update_interval", Some(("update_interval", 0, ""))),
            ("fan_boost2x", Some(("fan", 0, "boost2x"))),
            ("in0x", None),
            ("in0_", None),
            ("0in", None),
            ("_1x", None),
            ("temp99999999999999999999_input", None),
            ("", None),
        ] {
            assert_eq!(split(file), parts, "{file:?}");
        }
    }

    #[test]
    fn names_are_cleaned() {
        assert_eq!(clean("0000:01:00.0\n").as_deref(), Some("0000:01:00_0"));
        assert_eq!(clean("_Süß_").as_deref(), Some("s"));
        assert_eq!(clean("Ü\n"), None);
    }

    #[test]
    fn a_host_without_the_class_has_no_data() {
        let (mut collector, host) = make(Path::new("/nonexistent"), &[]);
        let error = collector.collect(&host, &mut Samples::new()).expect_err("nothing is there");
        assert!(matches!(error, CollectError::NoData));
    }
}
