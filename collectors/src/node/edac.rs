//! Memory errors that the controllers corrected or could not correct.

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Host, Options, Samples, host,
    sysfs::{self, Attributes, Class, Device, NEVER, Reader},
    words::digits,
};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "edac", default_on: true, flags: &[], build };

static CORRECTABLE: Desc =
    Desc::counter("node_edac_correctable_errors_total", "Total correctable memory errors.", &["controller"]);
static UNCORRECTABLE: Desc = Desc::counter(
    "node_edac_uncorrectable_errors_total",
    "Total uncorrectable memory errors.",
    &["controller"],
);
static ROW_CORRECTABLE: Desc = Desc::counter(
    "node_edac_csrow_correctable_errors_total",
    "Total correctable memory errors for this csrow.",
    &["controller", "csrow"],
);
static ROW_UNCORRECTABLE: Desc = Desc::counter(
    "node_edac_csrow_uncorrectable_errors_total",
    "Total uncorrectable memory errors for this csrow.",
    &["controller", "csrow"],
);
static CHANNEL_CORRECTABLE: Desc = Desc::counter(
    "node_edac_channel_correctable_errors_total",
    "Total correctable memory errors for this channel.",
    &["channel", "controller", "csrow", "dimm_label"],
);
static CHANNEL_UNCORRECTABLE: Desc = Desc::counter(
    "node_edac_channel_uncorrectable_errors_total",
    "Total uncorrectable memory errors for this channel.",
    &["channel", "controller", "csrow", "dimm_label"],
);

struct Edac {
    /// With each controller its rows, once they were listed: they are there from the start.
    class: Class<Option<Vec<Row>>>,
    reader: Reader,
    /// The label of the channel at hand.
    label: String,
}

struct Row {
    number: String,
    correctable: String,
    uncorrectable: String,
    channels: Vec<Channel>,
}

/// The files of a channel, relative to the controller.
struct Channel {
    number: String,
    correctable: String,
    uncorrectable: String,
    label: String,
}

fn build(host: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Edac {
        class: Class::new(host.sys("devices/system/edac/mc")),
        reader: Reader::default(),
        label: String::new(),
    }))
}

impl Collector for Edac {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let Self { class, reader, label } = self;
        let controllers = match class.follow(|name| sysfs::is_numbered(name, "mc")) {
            Ok(controllers) => controllers,
            // Memory without error correction.
            Err(error) => {
                return match error.missing_is_no_data() {
                    CollectError::NoData => Ok(()),
                    other => Err(other),
                };
            }
        };
        for controller in controllers {
            if controller.kept.is_none() {
                match list_rows(controller) {
                    Ok(rows) => controller.kept = Some(rows),
                    Err(error) => reader.fail_unless_gone(&controller.path, error),
                }
            }
            let rows = controller.kept.as_deref().unwrap_or_default();
            if let Some(attributes) = reader.open(&controller.path) {
                say(number_of(&controller.name, "mc"), rows, attributes, label, out);
            }
        }
        reader.finish()
    }
}

/// `mc0/csrow2/ch1_ce_count`
fn list_rows(controller: &Device<Option<Vec<Row>>>) -> Result<Vec<Row>, CollectError> {
    let mut rows = Vec::new();
    for row in host::list_dir(&controller.path)? {
        if !sysfs::is_numbered(&row, "csrow") {
            continue;
        }
        let mut channels = Vec::new();
        for file in host::list_dir(&controller.path.join(&row))? {
            let Some(number) = channel_of(&file) else { continue };
            channels.push(Channel {
                number: number.to_owned(),
                correctable: format!("{row}/{file}"),
                uncorrectable: format!("{row}/ch{number}_ue_count"),
                label: format!("{row}/ch{number}_dimm_label"),
            });
        }
        rows.push(Row {
            number: number_of(&row, "csrow").to_owned(),
            correctable: format!("{row}/ce_count"),
            uncorrectable: format!("{row}/ue_count"),
            channels,
        });
    }
    Ok(rows)
}

fn say(controller: &str, rows: &[Row], mut attributes: Attributes, label: &mut String, out: &mut Samples) {
    let say = |out: &mut Samples, attributes: &mut Attributes, file: &str, desc, labels: &[&str]| {
        if let Some(count) = attributes.parse(file, NEVER, sysfs::decimal) {
            out.push(desc, labels, count as f64);
        }
    };
    let from = &mut attributes;
    say(out, from, "ce_count", &CORRECTABLE, &[controller]);
    // Errors of which the controller does not know the row.
    say(out, from, "ce_noinfo_count", &ROW_CORRECTABLE, &[controller, "unknown"]);
    say(out, from, "ue_count", &UNCORRECTABLE, &[controller]);
    say(out, from, "ue_noinfo_count", &ROW_UNCORRECTABLE, &[controller, "unknown"]);
    for Row { number: row, correctable, uncorrectable, channels } in rows {
        say(out, from, correctable, &ROW_CORRECTABLE, &[controller, row]);
        say(out, from, uncorrectable, &ROW_UNCORRECTABLE, &[controller, row]);
        for channel in channels {
            // Tools give better labels while the host is up.
            match from.maybe(&channel.label) {
                Some(text) => readable(text, label),
                None => "unknown".clone_into(label),
            }
            let labels = &[&channel.number, controller, row, label];
            say(out, from, &channel.correctable, &CHANNEL_CORRECTABLE, labels);
            // Some controllers count only what was corrected per channel.
            if let Some(count) = from.maybe(&channel.uncorrectable).and_then(sysfs::decimal) {
                out.push(&CHANNEL_UNCORRECTABLE, labels, count as f64);
            }
        }
    }
}

/// `12` of `mc12`, without what follows the digits.
fn number_of<'a>(name: &'a str, prefix: &str) -> &'a str {
    digits(name.strip_prefix(prefix).unwrap_or_default())
}

/// `1` of `ch1_ce_count`.
fn channel_of(file: &str) -> Option<&str> {
    let number = file.strip_prefix("ch")?.strip_suffix("_ce_count")?;
    (!number.is_empty() && digits(number) == number).then_some(number)
}

/// A label names controller, row and channel between `#`s where nobody gave it a better one: "mc#0csrow#1channel#2".
fn readable(label: &str, into: &mut String) {
    into.clear();
    into.push_str(&label.replace('#', "").replace("csrow", "_csrow").replace("channel", "_channel"));
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join("devices/system/edac/mc").join(file);
        fs::create_dir_all(path.parent().expect("has one")).expect("made");
        fs::write(path, text).expect("written");
    }

    fn controller(root: &Path, name: &str) {
        for (at, file) in ["ce_count", "ce_noinfo_count", "ue_count", "ue_noinfo_count"].iter().enumerate() {
            write(root, &format!("{name}/{file}"), &format!("{at}\n"));
        }
    }

    fn said(root: &Path) -> (Vec<String>, Result<(), CollectError>) {
        let host = Host { sysfs: root.into(), ..Host::default() };
        let mut collector = build(&host, &Options::new(&ENTRY, &Default::default())).expect("no settings");
        let mut out = Samples::new();
        let result = collector.collect(&host, &mut out);
        let line = |(name, labels, value): (&str, crate::samples::LabelValues, f64)| {
            let labels: Vec<&str> = labels.collect();
            let name = name.trim_start_matches("node_edac_").trim_end_matches("_errors_total");
            format!("{name}{{{}}} {value}", labels.join(","))
        };
        (out.iter().map(line).collect(), result)
    }

    #[test]
    fn a_controller_is_said_with_its_rows_and_channels() {
        let root = tempfile::tempdir().expect("a temporary directory");
        controller(root.path(), "mc12");
        write(root.path(), "mc12/csrow3/ce_count", "5\n");
        write(root.path(), "mc12/csrow3/ue_count", "6\n");
        write(root.path(), "mc12/csrow3/ch0_ce_count", "7\n");
        write(root.path(), "mc12/csrow3/ch1_ce_count", "8\n");
        write(root.path(), "mc12/csrow3/ch1_ue_count", "9\n");
        write(root.path(), "mc12/csrow3/ch1_dimm_label", "mc#12csrow#3channel#1\n");
        let (lines, result) = said(root.path());
        result.expect("nothing is wrong");
        let expected = [
            "correctable{12} 0",
            "csrow_correctable{12,unknown} 1",
            "uncorrectable{12} 2",
            "csrow_uncorrectable{12,unknown} 3",
            "csrow_correctable{12,3} 5",
            "csrow_uncorrectable{12,3} 6",
            "channel_correctable{0,12,3,unknown} 7",
            "channel_correctable{1,12,3,mc12_csrow3_channel1} 8",
            "channel_uncorrectable{1,12,3,mc12_csrow3_channel1} 9",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_broken_controller_does_not_hide_the_others() {
        let root = tempfile::tempdir().expect("a temporary directory");
        controller(root.path(), "mc0");
        controller(root.path(), "mc1");
        write(root.path(), "mc0/ue_count", "\n");
        let (lines, result) = said(root.path());
        assert_eq!(lines.len(), 7);
        assert!(result.expect_err("not a number").to_string().contains("mc0/ue_count"));
    }

    #[test]
    fn names_have_their_numbers() {
        assert_eq!(number_of("csrow12", "csrow"), "12");
        assert_eq!(channel_of("ch10_ce_count"), Some("10"));
        for file in ["ch_ce_count", "ch1_ue_count", "chx_ce_count", "ce_count"] {
            assert_eq!(channel_of(file), None, "{file}");
        }
    }

    #[test]
    fn a_host_without_error_correction_says_nothing() {
        let (lines, result) = said(Path::new("/nonexistent"));
        result.expect("nothing is no error");
        assert!(lines.is_empty());
    }
}
