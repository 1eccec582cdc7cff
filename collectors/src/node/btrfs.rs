//! Allocation, commits and devices of btrfs, out of `/sys/fs/btrfs` and, where they are mounted, from the file systems.

mod ask;

use std::{io, path::Path};

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Host, HostFile, Options, Samples, host,
    sysfs::{Buffer, Directory},
};
use ask::{Answer, Asker, Mount};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "btrfs", default_on: true, flags: &[], build };

static INFO: Desc = Desc::gauge("node_btrfs_info", "Filesystem information", &["label", "uuid"]);
static GLOBAL_RESERVE: Desc =
    Desc::gauge("node_btrfs_global_rsv_size_bytes", "Size of global reserve.", &["uuid"]);
static COMMITS: Desc =
    Desc::counter("node_btrfs_commits_total", "The total number of commits that have occurred.", &["uuid"]);
static LAST_COMMIT: Desc = Desc::gauge(
    "node_btrfs_last_commit_seconds",
    "Duration of the most recent commit, in seconds.",
    &["uuid"],
);
static MAX_COMMIT: Desc =
    Desc::gauge("node_btrfs_max_commit_seconds", "Duration of the slowest commit, in seconds.", &["uuid"]);
static COMMIT_SECONDS: Desc = Desc::counter(
    "node_btrfs_commit_seconds_total",
    "Sum of the duration of all commits, in seconds.",
    &["uuid"],
);
static RESERVED: Desc = Desc::gauge(
    "node_btrfs_reserved_bytes",
    "Amount of space reserved for a data type",
    &["block_group_type", "uuid"],
);

const LAYOUT: &[&str] = &["block_group_type", "mode", "uuid"];

static USED: Desc =
    Desc::gauge("node_btrfs_used_bytes", "Amount of used space by a layout/data type", LAYOUT);
static SIZE: Desc =
    Desc::gauge("node_btrfs_size_bytes", "Amount of space allocated for a layout/data type", LAYOUT);
static RATIO: Desc =
    Desc::gauge("node_btrfs_allocation_ratio", "Data allocation ratio for a layout/data type", LAYOUT);

macro_rules! device_size {
    ($labels:expr) => {
        Desc::gauge(
            "node_btrfs_device_size_bytes",
            "Size of a device that is part of the filesystem.",
            $labels,
        )
    };
}

/// As sysfs knows the device.
static DEVICE_SIZE: Desc = device_size!(&["device", "uuid"]);

const DEVICE: &[&str] = &["btrfs_dev_uuid", "device", "uuid"];

/// As the file system knows it.
static OWN_DEVICE_SIZE: Desc = device_size!(DEVICE);
static DEVICE_UNUSED: Desc = Desc::gauge(
    "node_btrfs_device_unused_bytes",
    "Unused bytes unused on a device that is part of the filesystem.",
    DEVICE,
);
static DEVICE_ERRORS: Desc = Desc::counter(
    "node_btrfs_device_errors_total",
    "Errors reported for the device",
    &["btrfs_dev_uuid", "device", "type", "uuid"],
);

/// The kinds of errors, in the order the file system says them.
const ERRORS: [&str; 5] = ["write", "read", "flush", "corruption", "generation"];

/// The types of block groups.
const TYPES: [&str; 3] = ["data", "metadata", SYSTEM];
const SYSTEM: &str = "system";

/// sysfs counts sizes of devices in these, whatever the device's own are.
const SECTOR: u64 = 512;

struct Btrfs {
    /// The mounts as pid 1 sees them, which are the host's.
    host_mounts: HostFile,
    /// As this process sees them, for where pid 1 is hidden.
    own_mounts: HostFile,
    /// A mount of each file system that answered, so that the list of all mounts is read only when that changes.
    mounts: Vec<Mount>,
    asker: Asker,
    buffer: Buffer,
}

/// A file system in sysfs.
struct Filesystem {
    /// Its directory.
    name: String,
    /// What its metadata bear, mostly the same.
    uuid: String,
}

fn build(host: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Btrfs {
        host_mounts: HostFile::new(host.proc("1/mountinfo")),
        own_mounts: HostFile::new(host.proc("self/mountinfo")),
        mounts: Vec::new(),
        asker: Asker::default(),
        buffer: Buffer::default(),
    }))
}

impl Collector for Btrfs {
    /// Without the driver there is nothing to say, and that is no error. A file system that can't be read or understood
    /// does not hide the others; one that is gone by now is no error.
    fn collect(&mut self, host: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let class = host.sys("fs/btrfs");
        let mut failed = None;
        let mut filesystems = Vec::new();
        for name in host::list_dir_but_files(&class).unwrap_or_default() {
            // The driver's own directories have no dash in their names.
            if name.contains('-') {
                let uuid = self.open(&class.join(&name)).and_then(|mut files| files.text("metadata_uuid"));
                match uuid {
                    Ok(uuid) if uuid.is_empty() => filesystems.push(Filesystem { uuid: name.clone(), name }),
                    Ok(uuid) => filesystems.push(Filesystem { uuid, name }),
                    Err(error) if host::is_dir(&class.join(&name)) => {
                        failed.get_or_insert(error);
                    }
                    Err(_) => {}
                }
            }
        }
        let answers = self.ask(host, &filesystems);
        for filesystem in &filesystems {
            let path = class.join(&filesystem.name);
            let own = answers.iter().find(|answer| is_of(answer, filesystem));
            let mark = out.mark();
            if let Err(error) = self.say(&path, &filesystem.uuid, own, out) {
                out.rewind(mark);
                if host::is_dir(&path) {
                    failed.get_or_insert(error);
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

/// Whether `answer` is of that file system; it has no dashes in its UUID.
fn is_of(answer: &Answer, filesystem: &Filesystem) -> bool {
    filesystem.uuid.bytes().filter(|byte| *byte != b'-').eq(answer.fsid.bytes())
}

impl Btrfs {
    /// What the file systems say of their devices, of which sysfs has less: nothing where they are not mounted, where
    /// this process may not ask, or where one hangs.
    fn ask(&mut self, host: &Host, filesystems: &[Filesystem]) -> Vec<Answer> {
        if filesystems.is_empty() {
            return Vec::new();
        }
        let Some(answers) = self.asker.ask(&self.mounts) else { return Vec::new() };
        let has_answered = |filesystem| answers.iter().any(|answer| is_of(answer, filesystem));
        if filesystems.iter().all(has_answered) {
            return answers;
        }
        let mounts = self.find_mounts(host);
        if mounts == self.mounts {
            return answers;
        }
        let Some(answers) = self.asker.ask(&mounts) else { return Vec::new() };
        self.mounts = answers.iter().map(|answer| answer.mount.clone()).collect();
        answers
    }

    /// Everywhere that btrfs is mounted.
    fn find_mounts(&mut self, host: &Host) -> Vec<Mount> {
        let text = match self.host_mounts.read() {
            Err(CollectError::Read { source, .. }) if is_hidden(&source) => self.own_mounts.read(),
            other => other,
        };
        match text {
            Ok(text) => text.lines().filter_map(|line| parse_mount(line, host)).collect(),
            Err(error) => {
                tracing::debug!(%error, "the mounts of btrfs are not known");
                Vec::new()
            }
        }
    }

    fn open<'a>(&'a mut self, path: &'a Path) -> Result<Files<'a>, CollectError> {
        match Directory::open(path) {
            Ok(directory) => Ok(Files { directory, path, buffer: &mut self.buffer }),
            Err(source) => Err(CollectError::Read { path: path.to_owned(), source }),
        }
    }

    fn say(
        &mut self,
        path: &Path,
        uuid: &str,
        own: Option<&Answer>,
        out: &mut Samples,
    ) -> Result<(), CollectError> {
        let mut files = self.open(path)?;
        let label = files.text("label")?;
        out.push(&INFO, &[&label, uuid], 1.0);
        let reserve = files.number("allocation/global_rsv_size")?;
        out.push(&GLOBAL_RESERVE, &[uuid], reserve.unwrap_or(0) as f64);
        let commits = files.commits()?;
        out.push(&COMMITS, &[uuid], commits.count as f64);
        for (desc, milliseconds) in
            [(&LAST_COMMIT, commits.last), (&MAX_COMMIT, commits.max), (&COMMIT_SECONDS, commits.total)]
        {
            out.push(desc, &[uuid], milliseconds as f64 / 1000.0);
        }
        let devices = host::list_dir(&path.join("devices")).unwrap_or_default();
        for kind in TYPES {
            files.say_allocation(kind, uuid, devices.len(), out)?;
        }
        match own {
            Some(own) => say_devices(own, uuid, out),
            None => {
                for device in &devices {
                    let sectors = files.number(&format!("devices/{device}/size"))?.unwrap_or(0);
                    out.push(&DEVICE_SIZE, &[device, uuid], sectors.wrapping_mul(SECTOR) as f64);
                }
            }
        }
        Ok(())
    }
}

/// With hidepid pid 1 is not there, without the right to trace it, it can't be read.
fn is_hidden(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
}

fn say_devices(answer: &Answer, uuid: &str, out: &mut Samples) {
    for device in &answer.devices {
        let labels = [&*device.uuid, &*device.name, uuid];
        out.push(&OWN_DEVICE_SIZE, &labels, device.total as f64);
        out.push(&DEVICE_UNUSED, &labels, device.total.wrapping_sub(device.used) as f64);
        for (kind, count) in ERRORS.iter().zip(device.errors) {
            out.push(&DEVICE_ERRORS, &[&device.uuid, &device.name, kind, uuid], count as f64);
        }
    }
}

/// The attributes of a file system.
struct Files<'a> {
    directory: Directory,
    path: &'a Path,
    buffer: &'a mut Buffer,
}

/// `commit_stats`; the times are in milliseconds.
#[derive(Debug, Default, PartialEq)]
struct Commits {
    count: u64,
    last: u64,
    max: u64,
    total: u64,
}

impl Files<'_> {
    /// An attribute; nothing where this kernel has no such attribute.
    fn read(&mut self, file: &str) -> Result<Option<&str>, CollectError> {
        match self.directory.read(file, self.buffer) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(CollectError::Read { path: self.path.join(file), source }),
        }
    }

    fn text(&mut self, file: &str) -> Result<String, CollectError> {
        Ok(self.read(file)?.unwrap_or_default().to_owned())
    }

    fn number(&mut self, file: &str) -> Result<Option<u64>, CollectError> {
        let number = match self.read(file)? {
            Some(text) => text.parse().map(Some).map_err(|_| format!("expected a number, got {text:?}")),
            None => Ok(None),
        };
        number.map_err(|what| CollectError::parse(self.path.join(file), what))
    }

    /// All 0 before Linux 6.0.
    fn commits(&mut self) -> Result<Commits, CollectError> {
        let commits = self.read("commit_stats")?.map_or(Ok(Commits::default()), parse_commits);
        commits.map_err(|what| CollectError::parse(self.path.join("commit_stats"), what))
    }

    /// A file system that mixes data and metadata has no directory for either of them.
    fn say_allocation(
        &mut self,
        kind: &str,
        uuid: &str,
        devices: usize,
        out: &mut Samples,
    ) -> Result<(), CollectError> {
        let below = format!("allocation/{kind}");
        let reserved = self.number(&format!("{below}/bytes_reserved"))?;
        out.push(&RESERVED, &[kind, uuid], reserved.unwrap_or(0) as f64);
        let modes = match host::list_dir_but_files(&self.path.join(&below)) {
            // Without this one it is not yet mounted, or no more.
            Err(error) if kind == SYSTEM => return Err(error),
            modes => modes.unwrap_or_default(),
        };
        for mode in modes {
            let used = self.number(&format!("{below}/{mode}/used_bytes"))?;
            let total = self.number(&format!("{below}/{mode}/total_bytes"))?;
            // The last block group of a layout may be gone by now.
            if used.is_none() && total.is_none() && !host::is_dir(&self.path.join(&below).join(&mode)) {
                continue;
            }
            out.push(&USED, &[kind, &mode, uuid], used.unwrap_or(0) as f64);
            out.push(&SIZE, &[kind, &mode, uuid], total.unwrap_or(0) as f64);
            out.push(&RATIO, &[kind, &mode, uuid], ratio(&mode, devices as f64));
        }
        Ok(())
    }
}

/// Bytes on disk for a byte of data, with that many devices; 0 for a layout that is not known.
fn ratio(mode: &str, devices: f64) -> f64 {
    match mode {
        "single" | "raid0" => 1.0,
        "dup" | "raid1" | "raid10" => 2.0,
        "raid1c3" => 3.0,
        "raid1c4" => 4.0,
        "raid5" => devices / (devices - 1.0),
        "raid6" => devices / (devices - 2.0),
        _ => 0.0,
    }
}

/// `commit_stats`: "commits 258051\nlast_commit_ms 1000\nmax_commit_ms 51462\ntotal_commit_ms 47836090"; newer kernels have
/// more lines.
fn parse_commits(text: &str) -> Result<Commits, String> {
    let mut found = [None; 4];
    for line in text.lines() {
        let pair = line.split_ascii_whitespace().collect::<Vec<_>>();
        let (key, value) = match pair[..] {
            [key, value] => (key, value.parse::<u64>().ok()),
            _ => ("", None),
        };
        let value = value.ok_or_else(|| format!("expected a name and a number, got {line:?}"))?;
        let place = match key {
            "commits" => 0,
            "last_commit_ms" => 1,
            "max_commit_ms" => 2,
            "total_commit_ms" => 3,
            _ => continue,
        };
        found[place] = Some(value);
    }
    match found {
        [Some(count), Some(last), Some(max), Some(total)] => Ok(Commits { count, last, max, total }),
        _ => Err("lines are missing".to_owned()),
    }
}

/// `mountinfo`: "46 27 0:39 / /mnt/a\040b rw,relatime shared:7 - btrfs /dev/sda1 rw,subvol=/"; nothing for another file
/// system.
fn parse_mount(line: &str, host: &Host) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut words = right.split(' ');
    if words.next() != Some("btrfs") {
        return None;
    }
    let source = words.next()?.to_owned();
    let mount_point = unescape(left.split(' ').nth(4)?);
    // Where the root of the host is mounted somewhere below ours, mount points have that before them.
    let root = host.rootfs.to_string_lossy();
    let below = match &*root {
        "/" => &*mount_point,
        root => mount_point.strip_prefix(root).unwrap_or(&mount_point),
    };
    Some(Mount { source, path: host.root(below) })
}

/// Blanks and backslashes stand in octal in the kernel's list.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(text.to_owned(), |text, (escaped, char)| text.replace(escaped, char))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;

    const UUID: &str = "72ba6bb2-2c7e-466e-9248-f0ee75e4cbce";

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new() -> Self {
            let tree = Self(tempfile::tempdir().expect("a temporary directory"));
            for (file, text) in [
                ("label", "two disks\n"),
                (
                    "commit_stats",
                    "commits 3\ncur_commit_ms 0\nlast_commit_ms 4\nmax_commit_ms 5\ntotal_commit_ms 6000\n",
                ),
                ("devices/sda/size", "8\n"),
                ("devices/sdb/size", "16\n"),
                ("allocation/global_rsv_size", "7\n"),
                ("allocation/data/bytes_reserved", "1\n"),
                ("allocation/data/single/total_bytes", "20\n"),
                ("allocation/data/single/used_bytes", "10\n"),
                ("allocation/system/bytes_reserved", "2\n"),
                ("allocation/system/raid1/total_bytes", "40\n"),
                ("allocation/system/raid1/used_bytes", "30\n"),
            ] {
                tree.write(file, text);
            }
            tree
        }

        fn path(&self, file: &str) -> PathBuf {
            self.0.path().join("fs/btrfs").join(UUID).join(file)
        }

        fn write(&self, file: &str, text: &str) {
            let path = self.path(file);
            fs::create_dir_all(path.parent().expect("has one")).expect("made");
            fs::write(path, text).expect("written");
        }

        fn said(&self) -> (Vec<String>, bool) {
            let path = self.0.path();
            let host = Host { sysfs: path.into(), procfs: path.into(), ..Host::default() };
            let mut btrfs = build(&host, &Options::new(&ENTRY, &Default::default())).expect("no settings");
            let mut out = Samples::new();
            let result = btrfs.collect(&host, &mut out);
            let line = |(name, labels, value): (&str, crate::samples::LabelValues, f64)| {
                let labels: Vec<&str> =
                    labels.map(|label| if label == UUID { "uuid" } else { label }).collect();
                format!("{}{{{}}} {value}", name.trim_start_matches("node_btrfs_"), labels.join(","))
            };
            (out.iter().map(line).collect(), result.is_ok())
        }
    }

    #[test]
    fn a_file_system_is_said_as_sysfs_knows_it() {
        let expected = [
            "info{two disks,uuid} 1",
            "global_rsv_size_bytes{uuid} 7",
            "commits_total{uuid} 3",
            "last_commit_seconds{uuid} 0.004",
            "max_commit_seconds{uuid} 0.005",
            "commit_seconds_total{uuid} 6",
            "reserved_bytes{data,uuid} 1",
            "used_bytes{data,single,uuid} 10",
            "size_bytes{data,single,uuid} 20",
            "allocation_ratio{data,single,uuid} 1",
            "reserved_bytes{metadata,uuid} 0",
            "reserved_bytes{system,uuid} 2",
            "used_bytes{system,raid1,uuid} 30",
            "size_bytes{system,raid1,uuid} 40",
            "allocation_ratio{system,raid1,uuid} 2",
            "device_size_bytes{sda,uuid} 4096",
            "device_size_bytes{sdb,uuid} 8192",
        ];
        let tree = Tree::new();
        assert_eq!(tree.said(), (expected.map(str::to_owned).into(), true));
        tree.write("metadata_uuid", "another\n");
        assert_eq!(tree.said().0[1], "global_rsv_size_bytes{another} 7");
        fs::remove_dir_all(tree.path("allocation/system")).expect("removed");
        assert_eq!(tree.said(), (Vec::new(), false));
    }

    #[test]
    fn a_broken_file_system_does_not_hide_the_others() {
        for (file, text) in [
            ("commit_stats", ""),
            ("commit_stats", "commits 3\n"),
            ("commit_stats", "commits\n"),
            ("commit_stats", "commits many\n"),
            ("allocation/data/bytes_reserved", "\n"),
            ("allocation/data/single/used_bytes", "-1\n"),
            ("devices/sda/size", "big\n"),
        ] {
            let tree = Tree::new();
            tree.write(file, text);
            tree.write("../other-one/allocation/system/bytes_reserved", "0\n");
            let (lines, is_good) = tree.said();
            assert_eq!((lines.len(), is_good), (9, false), "{file} {text:?}");
        }
    }

    #[test]
    fn layouts_differ_in_what_a_byte_costs() {
        for (mode, cost) in [
            ("dup", 2.0),
            ("raid1c3", 3.0),
            ("raid1c4", 4.0),
            ("raid5", 1.25),
            ("raid6", 5.0 / 3.0),
            ("odd", 0.0),
        ] {
            assert_eq!(ratio(mode, 5.0), cost, "{mode}");
        }
    }

    #[test]
    fn only_mounts_of_btrfs_are_asked() {
        let host = Host { rootfs: "/host".into(), ..Host::default() };
        let line = "46 27 0:39 / /host/mnt/a\\040b rw shared:7 - btrfs /dev/loop0 rw,subvol=/";
        let mount = Mount { source: "/dev/loop0".to_owned(), path: "/host/mnt/a b".into() };
        assert_eq!(parse_mount(line, &host), Some(mount.clone()));
        assert_eq!(parse_mount(&line.replace("/host/", "/"), &host), Some(mount));
        for line in
            ["", "46 27 0:39 / - btrfs", "46 27 - btrfs /dev/loop0", "1 2 0:3 / / rw - ext4 /dev/sda rw"]
        {
            assert_eq!(parse_mount(line, &host), None, "{line:?}");
        }
    }

    #[test]
    fn a_host_without_the_driver_says_nothing() {
        let host = Host { sysfs: "/nonexistent".into(), ..Host::default() };
        let mut btrfs = build(&host, &Options::new(&ENTRY, &Default::default())).expect("no settings");
        let mut out = Samples::new();
        assert!(btrfs.collect(&host, &mut out).is_ok() && out.is_empty());
    }
}
