//! Watchdog timers.

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Host, Options, Samples, host,
    sysfs::{self, ABSENT, Attributes, Reader},
};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "watchdog", default_on: true, flags: &[], build };

/// An attribute that is a number, and its family.
struct Number(&'static str, Desc);

macro_rules! number {
    ($attribute:literal, $name:literal) => {
        Number(
            $attribute,
            Desc::gauge(
                concat!("node_watchdog_", $name),
                concat!("Value of /sys/class/watchdog/<watchdog>/", $attribute),
                &["name"],
            ),
        )
    };
}

static NUMBERS: [Number; 7] = [
    number!("bootstatus", "bootstatus"),
    number!("fw_version", "fw_version"),
    number!("nowayout", "nowayout"),
    number!("timeleft", "timeleft_seconds"),
    number!("timeout", "timeout_seconds"),
    number!("pretimeout", "pretimeout_seconds"),
    number!("access_cs0", "access_cs0"),
];

static INFO: Desc = Desc::gauge(
    "node_watchdog_info",
    "Info of /sys/class/watchdog/<watchdog>",
    &["identity", "name", "options", "pretimeout_governor", "state", "status"],
);

/// The attributes behind the labels of [`INFO`], in the same order; the name is none.
const TEXTS: [&str; 5] = ["identity", "options", "pretimeout_governor", "state", "status"];

#[derive(Default)]
struct Watchdog {
    reader: Reader,
    /// The texts of the watchdog at hand.
    texts: [String; TEXTS.len()],
}

fn build(_: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Watchdog::default()))
}

impl Collector for Watchdog {
    fn collect(&mut self, host: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let class = host.sys("class/watchdog");
        for name in host::list_dir(&class).map_err(CollectError::missing_or_denied_is_no_data)? {
            if let Some(watchdog) = self.reader.open(&class.join(&name)) {
                say(&name, watchdog, &mut self.texts, out);
            }
        }
        self.reader.finish()
    }
}

/// A watchdog has what its driver knows: the rest is not there.
fn say(name: &str, mut watchdog: Attributes, texts: &mut [String; TEXTS.len()], out: &mut Samples) {
    for Number(file, desc) in &NUMBERS {
        if let Some(value) = watchdog.parse(file, ABSENT, sysfs::signed) {
            out.push(desc, &[name], value as f64);
        }
    }
    for (text, file) in texts.iter_mut().zip(TEXTS) {
        watchdog.copy(file, ABSENT, text);
    }
    let [identity, options, governor, state, status] = &*texts;
    out.push(&INFO, &[identity, name, options, governor, state, status], 1.0);
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    fn said(root: &Path) -> (Vec<String>, Result<(), CollectError>) {
        let host = Host { sysfs: root.into(), ..Host::default() };
        let mut out = Samples::new();
        let result = Watchdog::default().collect(&host, &mut out);
        let line = |(name, labels, value): (&str, crate::samples::LabelValues, f64)| {
            let labels: Vec<&str> = labels.collect();
            format!("{}{{{}}} {value}", name.trim_start_matches("node_watchdog_"), labels.join(","))
        };
        (out.iter().map(line).collect(), result)
    }

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join("class/watchdog").join(file);
        fs::create_dir_all(path.parent().expect("has one")).expect("made");
        fs::write(path, text).expect("written");
    }

    #[test]
    fn a_watchdog_is_said_with_what_it_has() {
        let root = tempfile::tempdir().expect("a temporary directory");
        write(root.path(), "watchdog0/timeout", "60\n");
        write(root.path(), "watchdog0/options", "0x8180\n");
        write(root.path(), "watchdog0/identity", "Board timer\n");
        let (lines, result) = said(root.path());
        result.expect("nothing is wrong");
        assert_eq!(lines, ["timeout_seconds{watchdog0} 60", "info{Board timer,watchdog0,0x8180,,,} 1"]);
    }

    #[test]
    fn a_number_that_is_none_is_left_out_and_told() {
        let root = tempfile::tempdir().expect("a temporary directory");
        write(root.path(), "watchdog0/timeout", "soon\n");
        write(root.path(), "watchdog1/timeout", "0x10\n");
        let (lines, result) = said(root.path());
        assert_eq!(
            lines,
            ["info{,watchdog0,,,,} 1", "timeout_seconds{watchdog1} 16", "info{,watchdog1,,,,} 1"]
        );
        assert!(result.expect_err("not a number").to_string().contains("watchdog0/timeout"));
    }

    #[test]
    fn a_host_without_the_class_has_no_data() {
        assert!(matches!(said(Path::new("/nonexistent")).1, Err(CollectError::NoData)));
    }
}
