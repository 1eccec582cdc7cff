//! What the drivers of network interfaces say: link modes, versions, their own statistics.

mod modes;
mod statistics;

use std::{borrow::Cow, io};

use self::statistics::{Layouts, Pattern};
use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Flag, Host, Options, Samples,
    filter::Filter,
    host, netlink,
    syscall::ethtool::{Ethtool as Driver, MOST_STATISTICS, Question, STATISTIC_NAME},
};

/// This collector in the list.
pub const ENTRY: Entry = Entry {
    name: "ethtool",
    default_on: false,
    flags: &[
        Flag::regex(
            "ethtool.device-include",
            "",
            "Regexp of ethtool devices to include (mutually exclusive to device-exclude).",
        ),
        Flag::regex(
            "ethtool.device-exclude",
            "",
            "Regexp of ethtool devices to exclude (mutually exclusive to device-include).",
        ),
        Flag::regex("ethtool.metrics-include", ".*", "Regexp of ethtool stats to include."),
    ],
    build,
};

static INFO: Desc = Desc::gauge(
    "node_ethtool_info",
    "A metric with a constant '1' value labeled by bus_info, device, driver, expansion_rom_version, firmware_version, version.",
    &["bus_info", "device", "driver", "expansion_rom_version", "firmware_version", "version"],
);

struct Ethtool {
    /// Opened at the first scrape.
    driver: Option<Driver>,
    filter: Filter,
    layouts: Layouts,
}

fn build(_: &Host, options: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Ethtool {
        driver: None,
        filter: Filter::both(options, "ethtool.device-include", "ethtool.device-exclude")?,
        layouts: Layouts::new(Pattern::new(options.regex("ethtool.metrics-include")?)),
    }))
}

impl Collector for Ethtool {
    /// A device that does not answer, or went away meanwhile, does not fail the others.
    fn collect(&mut self, host: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let class = host.sys("class/net");
        let devices = host::list_dir_but_files(&class).map_err(none_or_no_access)?;
        if devices.is_empty() {
            return Err(CollectError::parse(class, "expected a network device"));
        }
        let driver = match &mut self.driver {
            Some(driver) => driver,
            None => self.driver.insert(
                Driver::open().map_err(|source| CollectError::System { what: "opening a socket", source })?,
            ),
        };
        self.layouts.begin();
        for device in devices.iter().filter(|device| !self.filter.ignores(device)) {
            if let Err(error) = say(device, driver, &mut self.layouts, out) {
                tracing::debug!(%error, device, "the driver did not answer");
            }
        }
        self.layouts.end();
        Ok(())
    }
}

fn none_or_no_access(error: CollectError) -> CollectError {
    match error {
        CollectError::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            CollectError::NoData
        }
        other => other.missing_is_no_data(),
    }
}

fn say(device: &str, driver: &mut Driver, layouts: &mut Layouts, out: &mut Samples) -> io::Result<()> {
    // Most devices that are no hardware have no settings.
    if let Ok(settings) = driver.ask(device, Question::Settings) {
        modes::say(device, settings, out);
    }
    let information = driver.ask(device, Question::Driver)?;
    let count = parse_information(information).map_or(0, |information| {
        let Information { driver, version, firmware, bus, rom, .. } = &information;
        out.push(&INFO, &[bus, device, driver, rom, firmware, version], 1.0);
        information.statistics
    });
    if count == 0 || count > MOST_STATISTICS {
        return Ok(());
    }
    let names = driver.ask(device, Question::StatisticNames(count))?;
    let Some(layout) = parse_names(names).map(|names| layouts.of(names)) else { return Ok(()) };
    let numbers = driver.ask(device, Question::Statistics(count))?;
    if let Some(numbers) = parse_numbers(numbers) {
        layouts.say(layout, device, numbers, out);
    }
    Ok(())
}

/// What is used of `struct ethtool_drvinfo`.
#[derive(Debug, PartialEq)]
struct Information<'a> {
    driver: Cow<'a, str>,
    version: Cow<'a, str>,
    firmware: Cow<'a, str>,
    bus: Cow<'a, str>,
    rom: Cow<'a, str>,
    /// How many statistics the driver has.
    statistics: u32,
}

/// `struct ethtool_drvinfo`: the command, five texts of 32 bytes, 12 spare bytes, the number of private flags, the number
/// of statistics.
fn parse_information(answer: &[u8]) -> Option<Information<'_>> {
    let text = |at| {
        let bytes = answer.get(at..at + 32)?;
        let end = memchr::memchr(0, bytes).unwrap_or(bytes.len());
        Some(String::from_utf8_lossy(&bytes[..end]))
    };
    Some(Information {
        driver: text(4)?,
        version: text(36)?,
        firmware: text(68)?,
        bus: text(100)?,
        rom: text(132)?,
        statistics: netlink::u32_of(answer.get(180..)?)?,
    })
}

/// `struct ethtool_gstrings`: the command, the set, the number of names, the names of 32 bytes one after the other.
fn parse_names(answer: &[u8]) -> Option<&[u8]> {
    let count = netlink::u32_of(answer.get(8..)?)?;
    answer.get(12..)?.get(..(count as usize).checked_mul(STATISTIC_NAME)?)
}

/// `struct ethtool_stats`: the command, the number of statistics, the statistics of 64 bits one after the other.
fn parse_numbers(answer: &[u8]) -> Option<&[[u8; 8]]> {
    let count = netlink::u32_of(answer.get(4..)?)?;
    answer.get(8..)?.as_chunks().0.get(..count as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn information() -> Vec<u8> {
        let mut answer = 3_u32.to_ne_bytes().to_vec();
        for text in ["rackdrv", "2.7", "", "0000:3b:00.0", "rom\u{1}"] {
            let end = answer.len() + 32;
            answer.extend(text.as_bytes());
            answer.resize(end, 0);
        }
        answer[132] = 0xff;
        answer.resize(180, 0);
        answer.extend(77_u32.to_ne_bytes());
        answer.resize(196, 0);
        answer
    }

    #[test]
    fn information_is_texts_and_a_count() {
        let answer = information();
        let found = parse_information(&answer).expect("whole");
        assert_eq!((&*found.driver, &*found.version, &*found.firmware), ("rackdrv", "2.7", ""));
        assert_eq!((&*found.bus, &*found.rom, found.statistics), ("0000:3b:00.0", "\u{fffd}om\u{1}", 77));
        for end in 0..184 {
            assert_eq!(parse_information(&answer[..end]), None);
        }
    }

    #[test]
    fn counts_beyond_the_answer_are_refused() {
        let mut names = [0x1b_u32, 1, 2].map(u32::to_ne_bytes).concat();
        names.extend([b'a'; 64]);
        assert_eq!(parse_names(&names).map(<[u8]>::len), Some(64));
        assert_eq!(parse_names(&names[..75]), None);
        assert_eq!(parse_names(&[0xff; 40]), None);
        let mut numbers = [0x1d_u32, 1].map(u32::to_ne_bytes).concat();
        numbers.extend(9_u64.to_ne_bytes());
        assert_eq!(parse_numbers(&numbers), Some(&[9_u64.to_ne_bytes()][..]));
        assert_eq!(parse_numbers(&numbers[..15]), None);
    }

    #[test]
    fn a_host_without_the_class_has_no_data() {
        let host = Host { sysfs: "/nonexistent".into(), ..Host::default() };
        let settings = crate::Settings::new();
        let mut collector = build(&host, &Options::new(&ENTRY, &settings)).expect("built");
        let result = collector.collect(&host, &mut Samples::new());
        assert!(matches!(result, Err(CollectError::NoData)), "{result:?}");
        let empty = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir_all(empty.path().join("class/net")).expect("made");
        let host = Host { sysfs: empty.path().into(), ..host };
        let result = collector.collect(&host, &mut Samples::new());
        assert!(matches!(result, Err(CollectError::Parse { .. })), "{result:?}");
    }

    #[test]
    fn the_running_kernel_is_understood() {
        let settings = crate::Settings::new();
        let host = Host::default();
        let mut collector = build(&host, &Options::new(&ENTRY, &settings)).expect("built");
        for _ in 0..2 {
            collector.collect(&host, &mut Samples::new()).expect("every host has a loopback");
        }
    }
}
