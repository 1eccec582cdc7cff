//! What SCSI tape drives did.

use regex::Regex;

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Flag, Host, Options, Samples, host,
    sysfs::{self, Reader},
};

/// This collector in the list.
pub const ENTRY: Entry = Entry {
    name: "tapestats",
    default_on: true,
    flags: &[Flag::regex("tapestats.ignored-devices", "^$", "Regexp of devices to ignore for tapestats.")],
    build,
};

/// A file below `stats`, how many of its units make one of the family's, and the family.
struct Number(&'static str, f64, Desc);

/// Nanoseconds are multiplied, not divided: the last bit differs, and node_exporter multiplies.
const NANOSECONDS: f64 = 0.000_000_001;

static NUMBERS: [Number; 10] = [
    Number(
        "stats/in_flight",
        1.0,
        Desc::gauge(
            "node_tape_io_now",
            "The number of I/Os currently outstanding to this device.",
            &["device"],
        ),
    ),
    Number(
        "stats/io_ns",
        NANOSECONDS,
        Desc::counter(
            "node_tape_io_time_seconds_total",
            "The amount of time spent waiting for all I/O to complete (including read and write). This includes tape movement commands such as seeking between file or set marks and implicit tape movement such as when rewind on close tape devices are used.",
            &["device"],
        ),
    ),
    Number(
        "stats/other_cnt",
        1.0,
        Desc::counter(
            "node_tape_io_others_total",
            "The number of I/Os issued to the tape drive other than read or write commands. The time taken to complete these commands uses the following calculation io_time_seconds_total-read_time_seconds_total-write_time_seconds_total",
            &["device"],
        ),
    ),
    Number(
        "stats/read_byte_cnt",
        1.0,
        Desc::counter(
            "node_tape_read_bytes_total",
            "The number of bytes read from the tape drive.",
            &["device"],
        ),
    ),
    Number(
        "stats/read_cnt",
        1.0,
        Desc::counter(
            "node_tape_reads_completed_total",
            "The number of read requests issued to the tape drive.",
            &["device"],
        ),
    ),
    Number(
        "stats/read_ns",
        NANOSECONDS,
        Desc::counter(
            "node_tape_read_time_seconds_total",
            "The amount of time spent waiting for read requests to complete.",
            &["device"],
        ),
    ),
    Number(
        "stats/resid_cnt",
        1.0,
        Desc::counter(
            "node_tape_residual_total",
            "The number of times during a read or write we found the residual amount to be non-zero. This should mean that a program is issuing a read larger thean the block size on tape. For write not all data made it to tape.",
            &["device"],
        ),
    ),
    Number(
        "stats/write_byte_cnt",
        1.0,
        Desc::counter(
            "node_tape_written_bytes_total",
            "The number of bytes written to the tape drive.",
            &["device"],
        ),
    ),
    Number(
        "stats/write_cnt",
        1.0,
        Desc::counter(
            "node_tape_writes_completed_total",
            "The number of write requests issued to the tape drive.",
            &["device"],
        ),
    ),
    Number(
        "stats/write_ns",
        NANOSECONDS,
        Desc::counter(
            "node_tape_write_time_seconds_total",
            "The amount of time spent waiting for write requests to complete.",
            &["device"],
        ),
    ),
];

struct Tapestats {
    ignored: Option<Regex>,
    reader: Reader,
}

fn build(_: &Host, options: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Tapestats {
        ignored: options.regex("tapestats.ignored-devices")?,
        reader: Reader::default(),
    }))
}

impl Collector for Tapestats {
    fn collect(&mut self, host: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let class = host.sys("class/scsi_tape");
        for name in host::list_dir(&class).map_err(CollectError::missing_is_no_data)? {
            let is_ignored = self.ignored.as_ref().is_some_and(|pattern| pattern.is_match(&name));
            if is_ignored || !is_drive(&name) {
                continue;
            }
            let path = class.join(&name);
            let Some(mut drive) = self.reader.open(&path) else { continue };
            for Number(file, unit, desc) in &NUMBERS {
                // What the driver does not count is 0, as node_exporter says it.
                if let Some(value) = drive.parse_or(file, 0, sysfs::unsigned) {
                    out.push(desc, &[&name], value as f64 * unit);
                }
            }
        }
        self.reader.finish()
    }
}

/// `st0`; `nst0`, `st0a` and the like are other modes of the same drive.
fn is_drive(name: &str) -> bool {
    name.strip_prefix("st")
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::collector::Settings;

    fn drive(root: &Path, name: &str, files: &[&str]) {
        let stats = root.join("class/scsi_tape").join(name).join("stats");
        fs::create_dir_all(&stats).expect("made");
        for file in files {
            fs::write(stats.join(file), "3000000000\n").expect("written");
        }
    }

    const FILES: [&str; 10] = [
        "in_flight",
        "io_ns",
        "other_cnt",
        "read_byte_cnt",
        "read_cnt",
        "read_ns",
        "resid_cnt",
        "write_byte_cnt",
        "write_cnt",
        "write_ns",
    ];

    fn said(root: &Path, ignored: &str) -> (Vec<String>, Result<(), CollectError>) {
        let settings = Settings::from([("tapestats.ignored-devices".to_owned(), vec![ignored.to_owned()])]);
        let host = Host { sysfs: root.into(), ..Host::default() };
        let mut out = Samples::new();
        let mut collector = build(&host, &Options::new(&ENTRY, &settings)).expect("valid settings");
        let result = collector.collect(&host, &mut out);
        let line = |(name, labels, value): (&str, crate::samples::LabelValues, f64)| {
            format!("{name}{{{}}} {value}", labels.collect::<String>())
        };
        let lines = out.iter().map(line).collect();
        (lines, result)
    }

    #[test]
    fn a_drive_is_said_once_whatever_its_modes() {
        let root = tempfile::tempdir().expect("a temporary directory");
        for name in ["st0", "nst0", "st0a", "st7"] {
            drive(root.path(), name, &FILES);
        }
        let (lines, result) = said(root.path(), "^st7$");
        result.expect("all is there");
        assert_eq!(lines.len(), FILES.len());
        assert_eq!(lines[0], "node_tape_io_now{st0} 3000000000");
        assert_eq!(lines[1], "node_tape_io_time_seconds_total{st0} 3");
    }

    #[test]
    fn a_broken_drive_does_not_hide_the_others() {
        let root = tempfile::tempdir().expect("a temporary directory");
        drive(root.path(), "st0", &FILES[1..]);
        drive(root.path(), "st1", &FILES);
        fs::write(root.path().join("class/scsi_tape/st0/stats/io_ns"), "-1\n").expect("written");
        let (lines, result) = said(root.path(), "^$");
        assert_eq!(lines.len(), 2 * FILES.len() - 1);
        assert!(result.is_err());
    }

    #[test]
    fn a_host_without_the_class_has_no_data() {
        assert!(matches!(said(Path::new("/nonexistent"), "").1, Err(CollectError::NoData)));
    }
}
