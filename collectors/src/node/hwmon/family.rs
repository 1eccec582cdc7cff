//! Which family a file of a chip belongs to, in which unit.

use crate::Kind;

/// How the text of a file becomes the number that is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// As it is.
    Plain,
    /// In thousandths. They are multiplied, not divided: the last bit differs, and node_exporter multiplies.
    Thousandths,
    /// In millionths.
    Millionths,
    /// In hertz, said in megahertz.
    Frequency,
    /// On or off.
    Switch,
}

impl Meaning {
    /// The number in a file's text.
    pub(super) fn number(self, text: &str) -> Option<f64> {
        if self == Self::Switch {
            return Some(f64::from(u8::from(text == "1")));
        }
        let number: f64 = text.parse().ok()?;
        Some(match self {
            Self::Thousandths => number * 0.001,
            Self::Millionths | Self::Frequency => number / 1_000_000.0,
            Self::Plain | Self::Switch => number,
        })
    }
}

/// A family's name, help text and type.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Family {
    pub(super) name: String,
    pub(super) help: String,
    pub(super) kind: Kind,
}

impl Family {
    /// The family of the element `max` of a `temp`; `has_plain` when the sensor has a file without an element, too.
    pub(super) fn of(kind: &str, element: &str, has_plain: bool) -> Option<(Meaning, Self)> {
        match kind {
            "beep_enable" | "vrm" | "update_interval" => Self::of_chip(kind, element),
            _ => Some(Self::of_sensor(kind, element, has_plain)),
        }
    }

    fn of_chip(kind: &str, element: &str) -> Option<(Meaning, Self)> {
        let (meaning, name, help) = match kind {
            _ if !element.is_empty() => return None,
            "beep_enable" => (Meaning::Switch, "beep_enabled", "Hardware beep enabled"),
            "vrm" => (Meaning::Plain, "voltage_regulator_version", "Hardware voltage regulator"),
            _ => (Meaning::Thousandths, "update_interval_seconds", "Hardware monitor update interval"),
        };
        Some((meaning, Self { name: format!("node_hwmon_{name}"), help: help.into(), kind: Kind::Gauge }))
    }

    fn of_sensor(kind: &str, element: &str, has_plain: bool) -> (Meaning, Self) {
        use Meaning::{Frequency, Millionths, Plain, Thousandths};

        let (meaning, suffix, help) = match (kind, element) {
            (_, "fault" | "alarm") => (Plain, "", format!("Hardware sensor {element} status ({kind})")),
            (_, "beep") => (Plain, "_enabled", "Hardware monitor sensor has beeping enabled".into()),
            ("in" | "cpu", _) => (Thousandths, "_volts", format!("Hardware monitor for voltage ({element})")),
            ("temp", "") => (Thousandths, "_celsius", "Hardware monitor for temperature (input)".into()),
            ("temp", _) if element != "type" => {
                (Thousandths, "_celsius", format!("Hardware monitor for temperature ({element})"))
            }
            ("curr", _) => (Thousandths, "_amps", format!("Hardware monitor for current ({element})")),
            ("energy", _) => {
                (Millionths, "_joule_total", format!("Hardware monitor for joules used so far ({element})"))
            }
            ("power", "accuracy") => {
                (Millionths, "", "Hardware monitor power meter accuracy, as a ratio".into())
            }
            ("power", "average_interval" | "average_interval_min" | "average_interval_max") => {
                (Thousandths, "_seconds", format!("Hardware monitor power usage update interval ({element})"))
            }
            ("power", _) => {
                (Millionths, "_watt", format!("Hardware monitor for power usage in watts ({element})"))
            }
            ("humidity", _) => {
                let what = "Hardware monitor for humidity, as a ratio \
                            (multiply with 100.0 to get the humidity as a percentage)";
                (Millionths, "", format!("{what} ({element})"))
            }
            ("fan", "input" | "min" | "max" | "target") => {
                (Plain, "_rpm", format!("Hardware monitor for fan revolutions per minute ({element})"))
            }
            ("freq", "input") => (Frequency, "_freq_mhz", "Hardware monitor for GPU frequency in MHz".into()),
            _ => (Plain, "", format!("Hardware monitor {kind} element {element}")),
        };
        let middle = match element {
            "input" if has_plain => "_input".into(),
            // It is the value itself.
            "" | "input" => String::new(),
            _ => format!("_{}", super::clean(element).unwrap_or_default()),
        };
        let counted = if kind == "energy" && suffix == "_joule_total" { Kind::Counter } else { Kind::Gauge };
        (meaning, Self { name: format!("node_hwmon_{kind}{middle}{suffix}"), help, kind: counted })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_have_their_unit_in_the_name() {
        for (kind, element, has_plain, name, meaning) in [
            ("temp", "input", false, "temp_celsius", Meaning::Thousandths),
            ("temp", "", true, "temp_celsius", Meaning::Thousandths),
            ("temp", "input", true, "temp_input_celsius", Meaning::Thousandths),
            ("temp", "type", false, "temp_type", Meaning::Plain),
            ("temp", "crit_alarm", false, "temp_crit_alarm_celsius", Meaning::Thousandths),
            ("in", "alarm", false, "in_alarm", Meaning::Plain),
            ("in", "beep", false, "in_beep_enabled", Meaning::Plain),
            ("cpu", "vid", false, "cpu_vid_volts", Meaning::Thousandths),
            ("curr", "input", false, "curr_amps", Meaning::Thousandths),
            ("energy", "input", false, "energy_joule_total", Meaning::Millionths),
            ("power", "accuracy", false, "power_accuracy", Meaning::Millionths),
            (
                "power",
                "average_interval_max",
                false,
                "power_average_interval_max_seconds",
                Meaning::Thousandths,
            ),
            ("power", "average", false, "power_average_watt", Meaning::Millionths),
            ("humidity", "input", false, "humidity", Meaning::Millionths),
            ("fan", "input", false, "fan_rpm", Meaning::Plain),
            ("fan", "pulses", false, "fan_pulses", Meaning::Plain),
            ("freq", "input", false, "freq_freq_mhz", Meaning::Frequency),
            ("vrm", "", true, "voltage_regulator_version", Meaning::Plain),
            ("beep_enable", "", true, "beep_enabled", Meaning::Switch),
        ] {
            let (found, family) = Family::of(kind, element, has_plain).expect("it has a meaning");
            assert_eq!((family.name, found), (format!("node_hwmon_{name}"), meaning), "{kind} {element}");
        }
    }

    #[test]
    fn numbers_are_read_strictly() {
        assert_eq!(Meaning::Thousandths.number("45500"), Some(45.5));
        assert_eq!(Meaning::Millionths.number("-2500000"), Some(-2.5));
        assert_eq!(Meaning::Switch.number("2"), Some(0.0));
        for text in ["", " 45", "45 ", "0x10", "n/a"] {
            assert_eq!(Meaning::Plain.number(text), None, "{text:?}");
        }
    }
}
