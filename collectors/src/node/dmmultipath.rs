//! Multipath devices of the device mapper, the paths below them.

use std::path::Path;

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Host, Options, Samples,
    sysfs::{self, ABSENT, Class, NEVER, Reader},
};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "dmmultipath", default_on: true, flags: &[], build };

static INFO: Desc = Desc::gauge(
    "node_dmmultipath_device_info",
    "Non-numeric information about a DM-multipath device.",
    &["device", "sysfs_name", "uuid"],
);
static ACTIVE: Desc = Desc::gauge(
    "node_dmmultipath_device_active",
    "Whether the multipath device-mapper device is active (1) or suspended (0).",
    &["device", "sysfs_name"],
);
static SIZE: Desc = Desc::gauge(
    "node_dmmultipath_device_size_bytes",
    "Size of the multipath device in bytes, read from /sys/block/<dm>/size.",
    &["device", "sysfs_name"],
);
static PATHS: Desc = Desc::gauge(
    "node_dmmultipath_device_paths",
    "Number of paths for a multipath device.",
    &["device", "sysfs_name"],
);
static PATHS_ACTIVE: Desc = Desc::gauge(
    "node_dmmultipath_device_paths_active",
    "Number of paths in active state (SCSI running or NVMe live) for a multipath device.",
    &["device", "sysfs_name"],
);
static PATHS_FAILED: Desc = Desc::gauge(
    "node_dmmultipath_device_paths_failed",
    "Number of paths not in active state for a multipath device.",
    &["device", "sysfs_name"],
);
static PATH_STATE: Desc = Desc::gauge(
    "node_dmmultipath_path_state",
    "Reports the underlying device state for a multipath path, as read from /sys/block/<dev>/device/state.",
    &["device", "path", "state"],
);

/// A device's size is in sectors of this many bytes, whatever those of its disks are.
const SECTOR: u64 = 512;

struct Dmmultipath {
    /// With each device its uuid, once it has one: the device mapper sets it only once.
    block: Class<String>,
    reader: Reader,
    name: String,
}

fn build(host: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Dmmultipath {
        block: Class::new(host.sys("block")),
        reader: Reader::default(),
        name: String::new(),
    }))
}

impl Collector for Dmmultipath {
    fn collect(&mut self, host: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let Self { block, reader, name } = self;
        let devices = block
            .follow(|name| name.starts_with("dm-"))
            .map_err(CollectError::missing_or_denied_is_no_data)?;
        for device in devices {
            // Most are volumes of LVM and the like: they cost nothing once that is known.
            let uuid = &mut device.kept;
            if is_uuid(uuid) && !is_multipath(uuid) {
                continue;
            }
            let Some(mut attributes) = reader.open(&device.path) else { continue };
            if !is_uuid(uuid) {
                attributes.copy("dm/uuid", ABSENT, uuid);
            }
            if !is_multipath(uuid) || !attributes.copy("dm/name", NEVER, name) {
                continue;
            }
            let labels: &[&str; 2] = &[name, &device.name];
            out.push(&INFO, &[name, &device.name, uuid], 1.0);
            if let Some(suspended) = attributes.parse("dm/suspended", NEVER, sysfs::decimal) {
                out.push(&ACTIVE, labels, f64::from(u8::from(suspended != 1)));
            }
            let bytes = |text: &str| sysfs::decimal(text)?.checked_mul(SECTOR);
            if let Some(bytes) = attributes.parse("size", NEVER, bytes) {
                out.push(&SIZE, labels, bytes as f64);
            }
            say_paths(&device.path.join("slaves"), labels, &host.sys("block"), reader, out);
        }
        reader.finish()
    }
}

/// Says the paths in `slaves`, whose states are those of the disks in `block`.
fn say_paths(slaves: &Path, labels: &[&str; 2], block: &Path, reader: &mut Reader, out: &mut Samples) {
    let paths = match sysfs::entries(slaves) {
        Ok(paths) => paths,
        Err(error) => return reader.fail(error),
    };
    let [device, _] = *labels;
    let (mut active, mut failed, mut unknown) = (0_u32, 0_u32, 0_u32);
    for path in &paths {
        let disk = block.join(path);
        let mut disk = reader.open(&disk);
        let Some(state) = disk.as_mut().and_then(|disk| disk.text("device/state", NEVER)) else {
            unknown += 1;
            continue;
        };
        *(if is_active(state) { &mut active } else { &mut failed }) += 1;
        out.push(&PATH_STATE, &[device, path, state], 1.0);
    }
    // A state that can't be read is neither active nor failed: the sums would be wrong.
    if unknown == 0 {
        out.push(&PATHS, labels, f64::from(active + failed));
        out.push(&PATHS_ACTIVE, labels, f64::from(active));
        out.push(&PATHS_FAILED, labels, f64::from(failed));
    }
}

/// Whether this is what the tools that make devices write, so that it need not be read again: "LVM-...", "CRYPT-LUKS2-...".
fn is_uuid(text: &str) -> bool {
    let is_plain =
        |part: &str| part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    text.split_once('-').is_some_and(|(maker, rest)| {
        !maker.is_empty() && !rest.is_empty() && is_plain(maker) && is_plain(rest)
    })
}

/// The uuid begins with the name of what made the device: "mpath-3600a0b80000000000000000000000001".
fn is_multipath(uuid: &str) -> bool {
    uuid.starts_with("mpath-")
}

/// What a healthy SCSI or NVMe device says of itself.
fn is_active(state: &str) -> bool {
    matches!(state, "running" | "live")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join("block").join(file);
        fs::create_dir_all(path.parent().expect("has one")).expect("made");
        fs::write(path, text).expect("written");
    }

    fn device(root: &Path, name: &str, uuid: &str, disks: &[&str]) {
        write(root, &format!("{name}/dm/uuid"), uuid);
        write(root, &format!("{name}/dm/name"), "backup\n");
        write(root, &format!("{name}/dm/suspended"), "0\n");
        write(root, &format!("{name}/size"), "2\n");
        for disk in disks {
            fs::create_dir_all(root.join("block").join(name).join("slaves").join(disk)).expect("made");
        }
    }

    fn make(root: &Path) -> (Box<dyn Collector>, Host) {
        let host = Host { sysfs: root.into(), ..Host::default() };
        (build(&host, &Options::new(&ENTRY, &Default::default())).expect("no settings"), host)
    }

    fn said(collector: &mut dyn Collector, host: &Host) -> (Vec<String>, Result<(), CollectError>) {
        let mut out = Samples::new();
        let result = collector.collect(host, &mut out);
        let line = |(name, labels, value): (&str, crate::samples::LabelValues, f64)| {
            let labels: Vec<&str> = labels.collect();
            format!("{}{{{}}} {value}", name.trim_start_matches("node_dmmultipath_"), labels.join(","))
        };
        (out.iter().map(line).collect(), result)
    }

    #[test]
    fn a_device_is_said_with_its_paths() {
        let root = tempfile::tempdir().expect("a temporary directory");
        device(root.path(), "dm-0", "LVM-x\n", &[]);
        device(root.path(), "dm-3", "mpath-36\n", &["sda", "sdb"]);
        write(root.path(), "sda/device/state", "running\n");
        write(root.path(), "sdb/device/state", "offline\n");
        let (mut collector, host) = make(root.path());
        let (lines, result) = said(&mut *collector, &host);
        result.expect("nothing is wrong");
        let expected = [
            "device_info{backup,dm-3,mpath-36} 1",
            "device_active{backup,dm-3} 1",
            "device_size_bytes{backup,dm-3} 1024",
            "path_state{backup,sda,running} 1",
            "path_state{backup,sdb,offline} 1",
            "device_paths{backup,dm-3} 2",
            "device_paths_active{backup,dm-3} 1",
            "device_paths_failed{backup,dm-3} 1",
        ];
        assert_eq!(lines, expected);
        assert_eq!(said(&mut *collector, &host).0, expected);
    }

    #[test]
    fn what_is_no_uuid_is_read_again() {
        let root = tempfile::tempdir().expect("a temporary directory");
        for (first, is_seen) in [("", true), ("{a} b\n", true), ("-\n", true), ("LVM-x\n", false)] {
            device(root.path(), "dm-0", first, &[]);
            let (mut collector, host) = make(root.path());
            assert_eq!(said(&mut *collector, &host).0, [""; 0]);
            device(root.path(), "dm-0", "mpath-36\n", &[]);
            assert_eq!(!said(&mut *collector, &host).0.is_empty(), is_seen, "{first:?}");
        }
    }

    #[test]
    fn paths_are_not_counted_when_the_state_of_one_is_unknown() {
        let root = tempfile::tempdir().expect("a temporary directory");
        device(root.path(), "dm-3", "mpath-36\n", &["sda", "sdb"]);
        write(root.path(), "sda/device/state", "running\n");
        fs::create_dir_all(root.path().join("block/sdb/device")).expect("made");
        let (mut collector, host) = make(root.path());
        let (lines, result) = said(&mut *collector, &host);
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert!(result.expect_err("no state").to_string().contains("sdb/device/state"));
    }

    #[test]
    fn a_host_without_block_devices_has_no_data() {
        let (mut collector, host) = make(Path::new("/nonexistent"));
        assert!(matches!(said(&mut *collector, &host).1, Err(CollectError::NoData)));
    }
}
