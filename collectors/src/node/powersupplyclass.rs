//! Batteries, mains and other power supplies.

use regex::Regex;
use rustix::io::Errno;

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Flag, Host, Kind, Options, OwnedDesc, Samples, host,
    sysfs::{self, Attributes, Class, Reader},
};

/// This collector in the list.
pub const ENTRY: Entry = Entry {
    name: "powersupplyclass",
    default_on: true,
    flags: &[Flag::regex(
        "powersupply.ignored-supplies",
        "^$",
        "Regexp of power supplies to ignore for powersupplyclass collector.",
    )],
    build,
};

/// An attribute that is a number, how many of its units make one of the family's, and the family.
struct Number(&'static str, f64, Desc);

macro_rules! number {
    ($attribute:literal, $unit:expr) => {
        number!($attribute, $unit, $attribute)
    };
    ($attribute:literal, $unit:expr, $name:literal) => {
        Number(
            $attribute,
            $unit,
            Desc::gauge(
                concat!("node_power_supply_", $name),
                concat!($name, " value of /sys/class/power_supply/<power_supply>."),
                &["power_supply"],
            ),
        )
    };
}

const MICRO: f64 = 1e6;
const TENTHS: f64 = 10.0;

static NUMBERS: [Number; 49] = [
    number!("authentic", 1.0),
    number!("calibrate", 1.0),
    number!("capacity", 1.0),
    number!("capacity_alert_max", 1.0),
    number!("capacity_alert_min", 1.0),
    number!("charge_control_limit", MICRO),
    number!("charge_control_limit_max", MICRO),
    number!("charge_counter", MICRO),
    number!("charge_empty", MICRO),
    number!("charge_empty_design", MICRO),
    number!("charge_full", MICRO),
    number!("charge_full_design", MICRO),
    number!("charge_now", MICRO, "charge_ampere"),
    number!("charge_term_current", MICRO),
    number!("constant_charge_current", MICRO),
    number!("constant_charge_current_max", MICRO),
    number!("constant_charge_voltage", MICRO),
    number!("constant_charge_voltage_max", MICRO),
    number!("current_boot", MICRO),
    number!("current_max", MICRO),
    number!("current_now", MICRO, "current_ampere"),
    number!("cycle_count", 1.0, "cyclecount"),
    number!("energy_empty", MICRO),
    number!("energy_empty_design", MICRO),
    number!("energy_full", MICRO),
    number!("energy_full_design", MICRO),
    number!("energy_now", MICRO, "energy_watthour"),
    number!("input_current_limit", MICRO),
    number!("online", 1.0),
    number!("power_now", MICRO, "power_watt"),
    number!("precharge_current", MICRO),
    number!("present", 1.0),
    number!("temp", TENTHS, "temp_celsius"),
    number!("temp_alert_max", TENTHS, "temp_alert_max_celsius"),
    number!("temp_alert_min", TENTHS, "temp_alert_min_celsius"),
    number!("temp_ambient", TENTHS, "temp_ambient_celsius"),
    number!("temp_ambient_max", TENTHS, "temp_ambient_max_celsius"),
    number!("temp_ambient_min", TENTHS, "temp_ambient_min_celsius"),
    number!("temp_max", TENTHS, "temp_max_celsius"),
    number!("temp_min", TENTHS, "temp_min_celsius"),
    number!("time_to_empty_now", 1.0, "time_to_empty_seconds"),
    number!("time_to_full_now", 1.0, "time_to_full_seconds"),
    number!("voltage_boot", MICRO),
    number!("voltage_max", MICRO),
    number!("voltage_max_design", MICRO),
    number!("voltage_min", MICRO),
    number!("voltage_min_design", MICRO),
    number!("voltage_now", MICRO, "voltage_volt"),
    number!("voltage_ocv", MICRO),
];

const INFO: &str = "node_power_supply_info";
const INFO_HELP: &str = "info of /sys/class/power_supply/<power_supply>.";

/// The labels of the info family, sorted: each is an attribute but for the supply's name.
const LABELS: [&str; 12] = [
    "capacity_level",
    "charge_type",
    "health",
    "manufacturer",
    "model_name",
    "power_supply",
    "scope",
    "serial_number",
    "status",
    "technology",
    "type",
    "usb_type",
];
const NAME: usize = 5;

/// What a driver answers for a property that the supply does not have (at present).
const UNKNOWN: &[Errno] = &[Errno::NOENT, Errno::OPNOTSUPP, Errno::NODEV];

struct PowerSupplyClass {
    class: Class<Kept>,
    ignored: Option<Regex>,
    reader: Reader,
    /// The texts of the supply at hand.
    texts: [String; LABELS.len()],
}

/// What a supply has.
#[derive(Default)]
struct Kept {
    /// The numbers of which there are files; nothing before they were listed.
    numbers: Option<Vec<&'static Number>>,
    /// The texts of which there are files, by their place in [`LABELS`].
    texts: Vec<usize>,
    /// Which labels the info family had last time, a bit for each, and the family.
    info: Option<(u16, OwnedDesc)>,
}

fn build(host: &Host, options: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(PowerSupplyClass {
        class: Class::new(host.sys("class/power_supply")),
        ignored: options.regex("powersupply.ignored-supplies")?,
        reader: Reader::default(),
        texts: Default::default(),
    }))
}

impl Collector for PowerSupplyClass {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let Self { class, ignored, reader, texts } = self;
        let wanted = |name: &str| !ignored.as_ref().is_some_and(|pattern| pattern.is_match(name));
        for supply in class.follow(wanted).map_err(CollectError::missing_is_no_data)? {
            if supply.kept.numbers.is_none() {
                match host::list_files(&supply.path) {
                    Ok(files) => supply.kept = Kept::of(&files),
                    Err(error) => {
                        reader.fail_unless_gone(&supply.path, error);
                        continue;
                    }
                }
            }
            if let Some(attributes) = reader.open(&supply.path) {
                say(&supply.name, attributes, &mut supply.kept, texts, out);
            }
        }
        reader.finish()
    }
}

impl Kept {
    fn of(files: &[String]) -> Self {
        let has = |file: &str| files.binary_search_by(|name| name.as_str().cmp(file)).is_ok();
        Self {
            numbers: Some(NUMBERS.iter().filter(|Number(file, ..)| has(file)).collect()),
            texts: (0..LABELS.len()).filter(|&at| at != NAME && has(LABELS[at])).collect(),
            info: None,
        }
    }

    /// The info family with those labels that `texts` has a value for.
    fn info(&mut self, texts: &[String; LABELS.len()]) -> &OwnedDesc {
        let present = || LABELS.iter().zip(texts).enumerate().filter(|(_, (_, text))| !text.is_empty());
        let bits = present().fold(0, |bits, (at, _)| bits | 1_u16 << at);
        if self.info.as_ref().is_none_or(|(known, _)| *known != bits) {
            self.info = None;
        }
        let make = || {
            let labels: Vec<&str> = present().map(|(_, (label, _))| *label).collect();
            (bits, OwnedDesc::new(INFO, INFO_HELP, Kind::Gauge, &labels))
        };
        &self.info.get_or_insert_with(make).1
    }
}

fn say(
    name: &str,
    mut supply: Attributes,
    kept: &mut Kept,
    texts: &mut [String; LABELS.len()],
    out: &mut Samples,
) {
    for Number(file, unit, desc) in kept.numbers.iter().flatten() {
        if let Some(value) = supply.parse(file, UNKNOWN, sysfs::signed) {
            out.push(desc, &[name], value as f64 / unit);
        }
    }
    texts.iter_mut().for_each(String::clear);
    name.clone_into(&mut texts[NAME]);
    for &at in &kept.texts {
        supply.copy(LABELS[at], UNKNOWN, &mut texts[at]);
    }
    let family = out.owned_family(kept.info(texts));
    let mut values = [""; LABELS.len()];
    let mut count = 0;
    for text in texts.iter().filter(|text| !text.is_empty()) {
        values[count] = text;
        count += 1;
    }
    out.push_to(family, &values[..count], 1.0);
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::collector::Settings;

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join("class/power_supply").join(file);
        fs::create_dir_all(path.parent().expect("has one")).expect("made");
        fs::write(path, text).expect("written");
    }

    fn make(root: &Path, ignored: &str) -> (Box<dyn Collector>, Host) {
        let settings =
            Settings::from([("powersupply.ignored-supplies".to_owned(), vec![ignored.to_owned()])]);
        let host = Host { sysfs: root.into(), ..Host::default() };
        (build(&host, &Options::new(&ENTRY, &settings)).expect("valid settings"), host)
    }

    fn said(collector: &mut dyn Collector, host: &Host) -> (Vec<String>, Result<(), CollectError>) {
        let mut out = Samples::new();
        let result = collector.collect(host, &mut out);
        let line = |(name, labels, value): (&str, crate::samples::LabelValues, f64)| {
            let labels: Vec<&str> = labels.collect();
            format!("{}{{{}}} {value}", name.trim_start_matches("node_power_supply_"), labels.join(","))
        };
        (out.iter().map(line).collect(), result)
    }

    #[test]
    fn a_supply_is_said_with_what_it_has() {
        let root = tempfile::tempdir().expect("a temporary directory");
        write(root.path(), "BAT1/status", "Full\n");
        write(root.path(), "BAT1/model_name", "\n");
        write(root.path(), "BAT1/temp", "-55\n");
        write(root.path(), "BAT1/energy_now", "40500000\n");
        write(root.path(), "BAT1/alarm", "not a number\n");
        write(root.path(), "AC/online", "1\n");
        let (mut collector, host) = make(root.path(), "^AC");
        let (lines, result) = said(&mut *collector, &host);
        result.expect("nothing is wrong");
        assert_eq!(lines, ["energy_watthour{BAT1} 40.5", "temp_celsius{BAT1} -5.5", "info{BAT1,Full} 1"]);
        write(root.path(), "BAT1/model_name", "M\n");
        assert_eq!(said(&mut *collector, &host).0[2], "info{M,BAT1,Full} 1");
    }

    #[test]
    fn a_broken_supply_does_not_hide_the_others() {
        let root = tempfile::tempdir().expect("a temporary directory");
        write(root.path(), "BAT0/capacity", "half\n");
        write(root.path(), "BAT1/capacity", "50\n");
        let (mut collector, host) = make(root.path(), "^$");
        let (lines, result) = said(&mut *collector, &host);
        assert_eq!(lines, ["info{BAT0} 1", "capacity{BAT1} 50", "info{BAT1} 1"]);
        assert!(result.expect_err("not a number").to_string().contains("BAT0/capacity"));
    }

    #[test]
    fn a_host_without_the_class_has_no_data() {
        let (mut collector, host) = make(Path::new("/nonexistent"), "^$");
        assert!(matches!(said(&mut *collector, &host).1, Err(CollectError::NoData)));
    }
}
