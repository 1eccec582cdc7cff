//! Counters and identity of block devices.

use std::{path::PathBuf, time::Instant};

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Flag, Host, HostFile, Options, Samples,
    filter::Filter,
    host::{self, Stamp},
    sysfs::{Buffer, KeptDevice},
};

/// This collector in the list.
pub const ENTRY: Entry = Entry {
    name: "diskstats",
    default_on: true,
    flags: &[
        Flag::regex(
            "diskstats.device-exclude",
            r"^(z?ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\d+n\d+p)\d+$",
            "Regexp of diskstats devices to exclude (mutually exclusive to device-include).",
        ),
        Flag::regex(
            "diskstats.device-include",
            "",
            "Regexp of diskstats devices to include (mutually exclusive to device-exclude).",
        ),
        Flag::regex("diskstats.ignored-devices", "", "DEPRECATED: Use collector.diskstats.device-exclude"),
    ],
    build,
};

const MILLISECONDS: f64 = 1.0 / 1000.0;
/// The kernel counts in sectors of 512 bytes, whatever those of the device are.
const SECTORS: f64 = 512.0;

/// A number of a line of `/proc/diskstats` as a family: its factor to the unit of the family.
struct Counter(f64, Desc);

macro_rules! counter {
    ($factor:expr, $name:literal, $help:literal) => {
        Counter($factor, Desc::counter(concat!("node_disk_", $name), $help, &["device"]))
    };
}

/// In the order of the kernel. Discards came with Linux 4.18, flushes with 5.5.
static COUNTERS: [Counter; 17] = [
    counter!(1.0, "reads_completed_total", "The total number of reads completed successfully."),
    counter!(1.0, "reads_merged_total", "The total number of reads merged."),
    counter!(SECTORS, "read_bytes_total", "The total number of bytes read successfully."),
    counter!(MILLISECONDS, "read_time_seconds_total", "The total number of seconds spent by all reads."),
    counter!(1.0, "writes_completed_total", "The total number of writes completed successfully."),
    counter!(1.0, "writes_merged_total", "The number of writes merged."),
    counter!(SECTORS, "written_bytes_total", "The total number of bytes written successfully."),
    counter!(
        MILLISECONDS,
        "write_time_seconds_total",
        "This is the total number of seconds spent by all writes."
    ),
    Counter(1.0, Desc::gauge("node_disk_io_now", "The number of I/Os currently in progress.", &["device"])),
    counter!(MILLISECONDS, "io_time_seconds_total", "Total seconds spent doing I/Os."),
    counter!(MILLISECONDS, "io_time_weighted_seconds_total", "The weighted # of seconds spent doing I/Os."),
    counter!(1.0, "discards_completed_total", "The total number of discards completed successfully."),
    counter!(1.0, "discards_merged_total", "The total number of discards merged."),
    counter!(1.0, "discarded_sectors_total", "The total number of sectors discarded successfully."),
    counter!(
        MILLISECONDS,
        "discard_time_seconds_total",
        "This is the total number of seconds spent by all discards."
    ),
    counter!(1.0, "flush_requests_total", "The total number of flush requests completed successfully"),
    counter!(
        MILLISECONDS,
        "flush_requests_time_seconds_total",
        "This is the total number of seconds spent by all flush requests."
    ),
];

static INFO: Desc = Desc::gauge(
    "node_disk_info",
    "Info of /sys/block/<block_device>.",
    &["device", "major", "minor", "model", "path", "revision", "rotational", "serial", "wwn"],
);
static FILESYSTEM: Desc = Desc::gauge(
    "node_disk_filesystem_info",
    "Info about disk filesystem.",
    &["device", "type", "usage", "uuid", "version"],
);
static DEVICE_MAPPER: Desc = Desc::gauge(
    "node_disk_device_mapper_info",
    "Info about disk device mapper.",
    &["device", "lv_layer", "lv_name", "name", "uuid", "vg_name"],
);

/// A property of udev that is a family of ATA disks.
struct Ata(&'static str, Desc);

static ATA: [Ata; 3] = [
    Ata(
        "ID_ATA_WRITE_CACHE",
        Desc::gauge("node_disk_ata_write_cache", "ATA disk has a write cache.", &["device"]),
    ),
    Ata(
        "ID_ATA_WRITE_CACHE_ENABLED",
        Desc::gauge(
            "node_disk_ata_write_cache_enabled",
            "ATA disk has its write cache enabled.",
            &["device"],
        ),
    ),
    Ata(
        "ID_ATA_ROTATION_RATE_RPM",
        Desc::gauge(
            "node_disk_ata_rotation_rate_rpm",
            "ATA disk rotation rate in RPMs (0 for SSDs).",
            &["device"],
        ),
    ),
];

struct Diskstats {
    file: HostFile,
    filter: Filter,
    /// What is known of the device on each line of the file, those that the filter ignores included.
    disks: Vec<Disk>,
    buffer: Buffer,
    /// The directory of udev's database, when it was there at the start.
    udev: Option<PathBuf>,
    sys_block: PathBuf,
}

fn build(host: &Host, options: &Options) -> Result<Box<dyn Collector>, BuildError> {
    let has_udev = host::is_dir(&host.udev_data);
    if !has_udev {
        tracing::info!(path = %host.udev_data.display(), "no udev database, disks have no model or serial");
    }
    Ok(Box::new(Diskstats {
        file: HostFile::new(host.proc("diskstats")),
        filter: Filter::either(
            options,
            "diskstats.device-include",
            options.older_name("diskstats.device-exclude", "diskstats.ignored-devices")?,
        )?,
        disks: Vec::new(),
        buffer: Buffer::default(),
        udev: has_udev.then(|| host.udev_data.clone()),
        sys_block: host.sys("block"),
    }))
}

impl Collector for Diskstats {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let Self { file, filter, disks, buffer, udev, sys_block } = self;
        let now = Instant::now();
        let mut at = 0;
        let mut bad = None;
        for line in file.read()?.lines() {
            let Some(stats) = parse_line(line) else {
                bad = Some(format!("expected a device and its counters, got {line:?}"));
                break;
            };
            // Kernels before 2.6.25 give partitions four numbers.
            if stats.count < 11 {
                continue;
            }
            if disks.get(at).is_none_or(|disk| !disk.is(&stats)) {
                disks.truncate(at);
                disks.push(Disk::new(&stats, filter, udev.as_ref(), sys_block));
            }
            if let Some(known) = &mut disks[at].known {
                known.say(&stats, now, buffer, out);
            }
            at += 1;
        }
        disks.truncate(at);
        bad.map_or(Ok(()), |what| Err(CollectError::parse(file.path(), what)))
    }
}

/// A line of `/proc/diskstats`.
#[derive(Debug, PartialEq)]
struct Stats<'a> {
    major: u32,
    minor: u32,
    name: &'a str,
    values: [u64; COUNTERS.len()],
    /// How many of the values the kernel gave.
    count: usize,
}

/// `/proc/diskstats`: "   8       0 sda 25354637 34367663 1003346126 18492372 ..."; `None` when a number is none.
fn parse_line(line: &str) -> Option<Stats<'_>> {
    let mut words = line.split_ascii_whitespace();
    let major = words.next()?.parse().ok()?;
    let minor = words.next()?.parse().ok()?;
    let mut stats = Stats { major, minor, name: words.next()?, values: [0; COUNTERS.len()], count: 0 };
    for (value, word) in stats.values.iter_mut().zip(words) {
        *value = word.parse().ok()?;
        stats.count += 1;
    }
    Some(stats)
}

struct Disk {
    name: String,
    numbers: (u32, u32),
    /// Nothing for a device that the filter ignores.
    known: Option<Known>,
}

/// What is kept of a device that is said.
struct Known {
    major: String,
    minor: String,
    queue: KeptDevice,
    udev: Option<PathBuf>,
    /// The properties, and the state of their file when it was read.
    properties: Option<(Stamp, Properties)>,
}

impl Disk {
    fn new(stats: &Stats, filter: &Filter, udev: Option<&PathBuf>, sys_block: &std::path::Path) -> Self {
        let known = (!filter.ignores(stats.name)).then(|| Known {
            major: stats.major.to_string(),
            minor: stats.minor.to_string(),
            queue: KeptDevice::new(sys_block.join(stats.name).join("queue"), &["rotational"]),
            udev: udev.map(|udev| udev.join(format!("b{}:{}", stats.major, stats.minor))),
            properties: None,
        });
        Self { name: stats.name.to_owned(), numbers: (stats.major, stats.minor), known }
    }

    fn is(&self, stats: &Stats) -> bool {
        self.numbers == (stats.major, stats.minor) && self.name == stats.name
    }
}

impl Known {
    fn say(&mut self, stats: &Stats, now: Instant, buffer: &mut Buffer, out: &mut Samples) {
        let device = stats.name;
        self.refresh();
        let nothing = Properties::default();
        let udev = self.properties.as_ref().map_or(&nothing, |(_, properties)| properties);
        // A partition has no queue; a device that can't tell is said not to turn, as node_exporter does.
        let rotational = self.queue.constant(0, now, buffer);
        let rotational = if rotational.is_ok_and(|text| text == "1") { "1" } else { "0" };
        let info = [
            device,
            &self.major,
            &self.minor,
            udev.get("ID_MODEL"),
            udev.get("ID_PATH"),
            udev.get("ID_REVISION"),
            rotational,
            udev.serial(),
            udev.get("ID_WWN"),
        ];
        out.push(&INFO, &info, 1.0);
        for (Counter(factor, desc), value) in COUNTERS.iter().zip(&stats.values[..stats.count]) {
            out.push(desc, &[device], *value as f64 * factor);
        }
        udev.say(device, out);
        self.queue.rest();
    }

    /// Reads the device's file in udev's database when it was changed.
    fn refresh(&mut self) {
        let Some(path) = &self.udev else { return };
        let stamp = Stamp::of(path).ok();
        if stamp != self.properties.as_ref().map(|(stamp, _)| *stamp) {
            let text = stamp.and_then(|stamp| Some((stamp, host::read_text(path).ok()?)));
            self.properties = text.map(|(stamp, text)| (stamp, Properties::parse(&text)));
        }
    }
}

/// What udev knows of a device.
#[derive(Debug, Default)]
struct Properties(Vec<(String, String)>);

impl Properties {
    /// A file of `/run/udev/data`: "E:ID_MODEL=SAMSUNG_MZVLB512"; other lines are tags and links.
    fn parse(text: &str) -> Self {
        let pairs = text.lines().filter_map(|line| line.strip_prefix("E:")?.split_once('='));
        Self(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    fn find(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The value of `name`, empty when there is none.
    fn get(&self, name: &str) -> &str {
        self.find(name).unwrap_or_default()
    }

    /// What is printed on the disk, or the nearest to it; virtio disks only have the last one.
    fn serial(&self) -> &str {
        let names = ["SCSI_IDENT_SERIAL", "ID_SERIAL_SHORT", "ID_SERIAL"];
        names.iter().map(|name| self.get(name)).find(|serial| !serial.is_empty()).unwrap_or_default()
    }

    fn say(&self, device: &str, out: &mut Samples) {
        let [kind, name] = ["ID_FS_TYPE", "DM_NAME"].map(|name| self.get(name));
        if !kind.is_empty() {
            let [usage, uuid, version] =
                ["ID_FS_USAGE", "ID_FS_UUID", "ID_FS_VERSION"].map(|name| self.get(name));
            out.push(&FILESYSTEM, &[device, kind, usage, uuid, version], 1.0);
        }
        if !name.is_empty() {
            let [layer, volume, uuid, group] =
                ["DM_LV_LAYER", "DM_LV_NAME", "DM_UUID", "DM_VG_NAME"].map(|name| self.get(name));
            out.push(&DEVICE_MAPPER, &[device, layer, volume, name, uuid, group], 1.0);
        }
        if self.get("ID_ATA").is_empty() {
            return;
        }
        for Ata(property, desc) in &ATA {
            if let Some(value) = self.find(property).and_then(|value| value.parse().ok()) {
                out.push(desc, &[device], value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_as_many_counters_as_the_kernel_gives() {
        let stats = parse_line("   8       0 sda 1 2 3 4 5 6 7 8 9 10 11").expect("understood");
        assert_eq!((stats.major, stats.minor, stats.name, stats.count), (8, 0, "sda", 11));
        assert_eq!(stats.values[10], 11);
        let stats =
            parse_line("8 32 sdc 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19").expect("understood");
        assert_eq!((stats.count, stats.values[16]), (17, 17));
    }

    #[test]
    fn odd_lines_are_refused() {
        for line in ["", "8 0", "x 0 sda 1", "8 0 sda 1 x 3", "8 0 sda -1"] {
            assert_eq!(parse_line(line), None, "{line:?}");
        }
    }

    #[test]
    fn the_serial_on_the_label_comes_first() {
        let text = "S:disk/by-id/x\nE:ID_SERIAL=vendor_123\nE:ID_SERIAL_SHORT=123\nE:odd\n";
        assert_eq!(Properties::parse(text).serial(), "123");
        assert_eq!(Properties::parse("E:SCSI_IDENT_SERIAL=\nE:ID_SERIAL=a=b\n").serial(), "a=b");
        assert_eq!(Properties::parse("").serial(), "");
    }

    #[test]
    fn ata_values_are_said_of_ata_disks_only() {
        let mut out = Samples::new();
        Properties::parse("E:ID_ATA_WRITE_CACHE=1\n").say("sda", &mut out);
        assert!(out.is_empty());
        Properties::parse("E:ID_ATA=1\nE:ID_ATA_WRITE_CACHE=1\nE:ID_ATA_ROTATION_RATE_RPM=x\n")
            .say("sda", &mut out);
        assert_eq!(out.iter().map(|(name, ..)| name).collect::<Vec<_>>(), ["node_disk_ata_write_cache"]);
    }
}
