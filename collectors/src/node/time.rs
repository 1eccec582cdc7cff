//! The clock, its time zone and the kernel's clock sources.

use jiff::{Timestamp, tz::TimeZone};

use crate::{BuildError, CollectError, Collector, Desc, Entry, Host, HostFile, Options, Samples, sysfs};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "time", default_on: true, flags: &[], build };

static SECONDS: Desc = Desc::gauge("node_time_seconds", "System time in seconds since epoch (1970).", &[]);
static ZONE_OFFSET: Desc =
    Desc::gauge("node_time_zone_offset_seconds", "System time zone offset in seconds.", &["time_zone"]);
static AVAILABLE: Desc = Desc::gauge(
    "node_time_clocksource_available_info",
    "Available clocksources read from '/sys/devices/system/clocksource'.",
    &["clocksource", "device"],
);
static CURRENT: Desc = Desc::gauge(
    "node_time_clocksource_current_info",
    "Current clocksource read from '/sys/devices/system/clocksource'.",
    &["clocksource", "device"],
);

struct Time {
    zone: TimeZone,
    sources: Vec<Source>,
}

/// A directory `clocksourceN`.
struct Source {
    /// Its place among the directories.
    device: String,
    available: HostFile,
    current: HostFile,
}

fn build(host: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    // A system without a zone of its own runs on UTC.
    let zone = TimeZone::try_system().unwrap_or(TimeZone::UTC);
    Ok(Box::new(Time { zone, sources: find_sources(host) }))
}

/// The kernel makes these directories at boot, never later.
fn find_sources(host: &Host) -> Vec<Source> {
    let class = host.sys("devices/system/clocksource");
    let names = sysfs::entries(&class).unwrap_or_default();
    let numbered = names.iter().filter(|name| sysfs::is_numbered(name, "clocksource"));
    numbered
        .enumerate()
        .map(|(at, name)| Source {
            device: at.to_string(),
            available: HostFile::new(class.join(name).join("available_clocksource")),
            current: HostFile::new(class.join(name).join("current_clocksource")),
        })
        .collect()
}

impl Collector for Time {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let now = Timestamp::now();
        out.push(&SECONDS, &[], now.as_nanosecond() as f64 / 1e9);
        let zone = self.zone.to_offset_info(now);
        out.push(&ZONE_OFFSET, &[zone.abbreviation()], f64::from(zone.offset().seconds()));
        for source in &mut self.sources {
            for name in source.available.read()?.split_ascii_whitespace() {
                out.push(&AVAILABLE, &[name, &source.device], 1.0);
            }
            out.push(&CURRENT, &[source.current.read()?.trim(), &source.device], 1.0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn clock_sources_are_numbered_by_their_place() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let source = dir.path().join("devices/system/clocksource/clocksource0");
        fs::create_dir_all(&source).expect("made");
        fs::write(source.join("available_clocksource"), "tsc hpet acpi_pm \n").expect("written");
        fs::write(source.join("current_clocksource"), "tsc\n").expect("written");
        let host = Host { sysfs: dir.path().into(), ..Host::default() };
        let settings = crate::Settings::new();
        let mut collector = build(&host, &Options::new(&ENTRY, &settings)).expect("it has no flags");
        let mut out = Samples::new();
        collector.collect(&host, &mut out).expect("collected");
        let said: Vec<String> =
            out.iter().skip(2).map(|(_, labels, _)| labels.collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(said, ["tsc 0", "hpet 0", "acpi_pm 0", "tsc 0"]);
    }

    #[test]
    fn a_host_without_clock_sources_still_has_a_clock() {
        let host = Host { sysfs: "/nonexistent".into(), ..Host::default() };
        let settings = crate::Settings::new();
        let mut collector = build(&host, &Options::new(&ENTRY, &settings)).expect("it has no flags");
        let mut out = Samples::new();
        collector.collect(&host, &mut out).expect("collected");
        let (name, _, value) = out.iter().next().expect("a sample");
        assert_eq!(name, "node_time_seconds");
        assert!(value > 1.7e9, "the clock is past 2023");
    }
}
