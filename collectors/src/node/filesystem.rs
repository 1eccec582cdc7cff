//! Sizes of mounted file systems.

mod ask;

use std::{io, time::Duration};

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Flag, Host, HostFile, Options, Samples, filter::Filter,
};
use ask::{Answer, Asker, Key, Sizes};

/// This collector in the list.
pub const ENTRY: Entry = Entry {
    name: "filesystem",
    default_on: true,
    flags: &[
        Flag::regex(
            "filesystem.mount-points-exclude",
            r"^/(dev|proc|run/credentials/.+|sys|var/lib/docker/.+|var/lib/containers/storage/.+)($|/)",
            "Regexp of mount points to exclude for filesystem collector. (mutually exclusive to mount-points-include)",
        ),
        Flag::regex(
            "filesystem.mount-points-include",
            "",
            "Regexp of mount points to include for filesystem collector. (mutually exclusive to mount-points-exclude)",
        ),
        Flag::regex(
            "filesystem.fs-types-exclude",
            "^(autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|devtmpfs|fusectl|hugetlbfs|iso9660|mqueue|nsfs|\
             overlay|proc|procfs|pstore|rpc_pipefs|securityfs|selinuxfs|squashfs|erofs|sysfs|tracefs)$",
            "Regexp of filesystem types to exclude for filesystem collector. (mutually exclusive to fs-types-include)",
        ),
        Flag::regex(
            "filesystem.fs-types-include",
            "",
            "Regexp of filesystem types to include for filesystem collector. (mutually exclusive to fs-types-exclude)",
        ),
        Flag::text(
            "filesystem.mount-timeout",
            "5s",
            "how long to wait for a mount to respond before marking it as stale",
        ),
        Flag::text(
            "filesystem.stat-workers",
            "4",
            "Accepted for compatibility: each mount that may hang has a thread of its own once it does",
        ),
        Flag::regex(
            "filesystem.ignored-mount-points",
            "",
            "DEPRECATED: Use collector.filesystem.mount-points-exclude",
        ),
        Flag::regex(
            "filesystem.ignored-fs-types",
            "",
            "DEPRECATED: Use collector.filesystem.fs-types-exclude",
        ),
    ],
    build,
};

const LABELS: &[&str] = &["device", "device_error", "fstype", "mountpoint"];

static DEVICE_ERROR: Desc = Desc::gauge(
    "node_filesystem_device_error",
    "Whether an error occurred while getting statistics for the given device.",
    LABELS,
);
static READONLY: Desc = Desc::gauge("node_filesystem_readonly", "Filesystem read-only status.", LABELS);
static SIZE: Desc = Desc::gauge("node_filesystem_size_bytes", "Filesystem size in bytes.", LABELS);
static FREE: Desc = Desc::gauge("node_filesystem_free_bytes", "Filesystem free space in bytes.", LABELS);
static AVAILABLE: Desc = Desc::gauge(
    "node_filesystem_avail_bytes",
    "Filesystem space available to non-root users in bytes.",
    LABELS,
);
static FILES: Desc = Desc::gauge("node_filesystem_files", "Filesystem total file nodes.", LABELS);
static FILES_FREE: Desc =
    Desc::gauge("node_filesystem_files_free", "Filesystem total free file nodes.", LABELS);
static PURGEABLE: Desc = Desc::gauge(
    "node_filesystem_purgeable_bytes",
    "Filesystem space available including purgeable space (MacOS specific).",
    LABELS,
);
static MOUNT_INFO: Desc = Desc::gauge(
    "node_filesystem_mount_info",
    "Filesystem mount information.",
    &["device", "major", "minor", "mountpoint"],
);

struct Filesystem {
    /// The mounts as pid 1 sees them, which are the host's.
    host_mounts: HostFile,
    /// As this process sees them, for where pid 1 is hidden.
    own_mounts: HostFile,
    mount_points: Filter,
    types: Filter,
    asker: Asker,
    /// The text that `mounts` was made from: a node has hundreds of mounts, which seldom change.
    text: String,
    mounts: Vec<Mount>,
}

fn build(host: &Host, options: &Options) -> Result<Box<dyn Collector>, BuildError> {
    let mount_points = Filter::either(
        options,
        "filesystem.mount-points-include",
        options.older_name("filesystem.mount-points-exclude", "filesystem.ignored-mount-points")?,
    )?;
    let types = Filter::either(
        options,
        "filesystem.fs-types-include",
        options.older_name("filesystem.fs-types-exclude", "filesystem.ignored-fs-types")?,
    )?;
    Ok(Box::new(Filesystem {
        host_mounts: HostFile::new(host.proc("1/mountinfo")),
        own_mounts: HostFile::new(host.proc("self/mountinfo")),
        mount_points,
        types,
        asker: Asker::new(timeout(options)?),
        text: String::new(),
        mounts: Vec::new(),
    }))
}

fn timeout(options: &Options) -> Result<Duration, BuildError> {
    let flag = "filesystem.mount-timeout";
    let what = || BuildError::Value { flag, what: "expected a duration such as 5s".into() };
    let duration: jiff::SignedDuration = options.text(flag).parse().map_err(|_| what())?;
    Duration::try_from(duration).map_err(|_| what())
}

impl Collector for Filesystem {
    fn collect(&mut self, host: &Host, out: &mut Samples) -> Result<(), CollectError> {
        self.follow(host)?;
        self.asker.begin(|key| self.mounts.iter().any(|mount| mount.key == *key));
        for mount in &self.mounts {
            let answer = self.asker.ask(&mount.key, &mount.fields.kind);
            mount.say(&answer, out);
        }
        Ok(())
    }
}

impl Filesystem {
    /// Takes up the mounts as they are now.
    fn follow(&mut self, host: &Host) -> Result<(), CollectError> {
        let Self { host_mounts, own_mounts, mount_points, types, text: known, mounts, .. } = self;
        let (path, text) = match host_mounts.read() {
            Ok(text) => ("1/mountinfo", text),
            Err(CollectError::Read { source, .. }) if is_hidden(&source) => {
                ("self/mountinfo", own_mounts.read()?)
            }
            Err(error) => return Err(error),
        };
        if text == known && !known.is_empty() {
            return Ok(());
        }
        let fail = |what| CollectError::parse(host.proc(path), what);
        let mut fresh: Vec<Mount> = Vec::new();
        for line in text.lines() {
            let fields = parse_line(line).ok_or_else(|| fail(format!("expected a mount, got {line:?}")))?;
            let fields = Fields { mount_point: strip_root(host, &fields.mount_point), ..fields };
            if mount_points.ignores(&fields.mount_point) || types.ignores(&fields.kind) {
                continue;
            }
            let earlier: Vec<&Mount> = fresh.iter().filter(|mount| mount.fields.is_same(&fields)).collect();
            if earlier.iter().any(|mount| mount.fields.numbers() == fields.numbers()) {
                continue;
            }
            let is_repeated = !earlier.is_empty();
            let key = (host.root(&fields.mount_point), format!("{}:{}", fields.major, fields.minor));
            fresh.push(Mount { key, is_repeated, fields });
        }
        *mounts = fresh;
        text.clone_into(known);
        Ok(())
    }
}

/// With hidepid pid 1 is not there, without the right to trace it, it can't be read.
fn is_hidden(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
}

/// The mount point as the host names it, when its root is mounted somewhere below ours.
fn strip_root(host: &Host, mount_point: &str) -> String {
    let root = host.rootfs.to_string_lossy();
    if root == "/" {
        return mount_point.to_owned();
    }
    match mount_point.strip_prefix(&*root).unwrap_or(mount_point) {
        "" => "/".to_owned(),
        stripped => stripped.to_owned(),
    }
}

struct Mount {
    fields: Fields,
    /// Where to ask for it, and which one it is.
    key: Key,
    /// Whether the same is mounted there already, only with another number: then no more than that number is news.
    is_repeated: bool,
}

/// What a line of mountinfo says.
#[derive(Debug, PartialEq)]
struct Fields {
    major: String,
    minor: String,
    mount_point: String,
    kind: String,
    device: String,
    readonly: bool,
}

impl Fields {
    fn numbers(&self) -> (&str, &str) {
        (&self.major, &self.minor)
    }

    fn is_same(&self, other: &Self) -> bool {
        self.mount_point == other.mount_point && self.device == other.device && self.kind == other.kind
    }
}

impl Mount {
    fn say(&self, answer: &Answer, out: &mut Samples) {
        let Fields { major, minor, mount_point, kind, device, readonly } = &self.fields;
        let (error, sizes) = match answer {
            Answer::Sizes(sizes) => ("", Some(sizes)),
            Answer::Error(what) => (&**what, None),
        };
        let labels = [device, error, kind, mount_point];
        if sizes.is_some() {
            out.push(&MOUNT_INFO, &[device, major, minor, mount_point], 1.0);
        }
        if self.is_repeated {
            return;
        }
        // A mount that does not answer is not said to be read-only either, as node_exporter does.
        let readonly = *readonly && !matches!(answer, Answer::Error(what) if what == ask::TIMEOUT);
        out.push(&DEVICE_ERROR, &labels, f64::from(u8::from(sizes.is_none())));
        out.push(&READONLY, &labels, f64::from(u8::from(readonly)));
        let Some(Sizes { size, free, available, files, files_free }) = sizes else { return };
        out.push(&SIZE, &labels, *size);
        out.push(&FREE, &labels, *free);
        out.push(&AVAILABLE, &labels, *available);
        out.push(&FILES, &labels, *files);
        out.push(&FILES_FREE, &labels, *files_free);
        out.push(&PURGEABLE, &labels, 0.0);
    }
}

/// `/proc/PID/mountinfo`: "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue"; any number
/// of words stands before the dash.
fn parse_line(line: &str) -> Option<Fields> {
    let mut words = line.split(' ');
    words.next()?.parse::<i32>().ok()?;
    words.next()?.parse::<i32>().ok()?;
    let (major, minor) = words.next()?.split_once(':')?;
    major.parse::<u32>().ok().zip(minor.parse::<u32>().ok())?;
    let mount_point = words.nth(1)?;
    let options = words.next()?;
    let super_options = words.next_back()?;
    let device = words.next_back()?;
    let kind = words.next_back()?;
    (words.next_back()? == "-").then(|| Fields {
        major: major.to_owned(),
        minor: minor.to_owned(),
        mount_point: mount_point.replace(r"\040", " ").replace(r"\011", "\t"),
        kind: kind.to_owned(),
        device: device.to_owned(),
        readonly: options.split(',').any(|option| option == "ro")
            || super_options.split(',').any(|option| matches!(option, "ro" | "emergency_ro")),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::collector::Settings;

    const ROOT: &str = "26 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw\n";

    fn make(mountinfo: &[(&str, &str)], rootfs: &str) -> (tempfile::TempDir, Box<dyn Collector>, Host) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for (path, text) in mountinfo {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().expect("has one")).expect("made");
            fs::write(path, text).expect("written");
        }
        let host = Host { procfs: dir.path().into(), rootfs: rootfs.into(), ..Host::default() };
        let settings = Settings::new();
        let collector = build(&host, &Options::new(&ENTRY, &settings)).expect("the defaults are valid");
        (dir, collector, host)
    }

    fn said(collector: &mut dyn Collector, host: &Host) -> Vec<(String, Vec<String>, f64)> {
        let mut out = Samples::new();
        collector.collect(host, &mut out).expect("collected");
        out.iter()
            .map(|(name, labels, value)| {
                let name = name.trim_start_matches("node_filesystem_").to_owned();
                (name, labels.map(str::to_owned).collect(), value)
            })
            .collect()
    }

    #[test]
    fn a_line_is_read_around_its_optional_words() {
        let line = r"31 26 0:28 / /mnt/a\040b\011c ro,nosuid shared:2 master:7 - tmpfs tmpfs rw,size=1k";
        let fields = parse_line(line).expect("understood");
        assert_eq!(
            (fields.mount_point.as_str(), fields.kind.as_str(), fields.readonly),
            ("/mnt/a b\tc", "tmpfs", true)
        );
        assert_eq!((fields.major.as_str(), fields.minor.as_str()), ("0", "28"));
        let line = "31 26 0:28 / /mnt rw - ext4 /dev/sda1 rw,emergency_ro";
        assert!(parse_line(line).expect("understood").readonly);
    }

    #[test]
    fn cut_and_odd_lines_are_refused() {
        for line in [
            "",
            "31 26 0:28 / /mnt rw",
            "31 26 0:28 / /mnt rw ext4 /dev/sda1 rw",
            "31 26 028 / /mnt rw - ext4 a rw",
            "x 26 0:28 / /mnt rw - ext4 a rw",
            "31 26 a:b / /mnt rw - ext4 a rw",
            "31 26 0:28 / - ext4 a rw",
        ] {
            assert_eq!(parse_line(line), None, "{line:?}");
        }
    }

    #[test]
    fn a_mount_is_said_with_its_sizes() {
        let (_dir, mut collector, host) = make(&[("1/mountinfo", ROOT)], "/");
        let said = said(&mut *collector, &host);
        let names: Vec<&str> = said.iter().map(|(name, ..)| name.as_str()).collect();
        let expected = [
            "mount_info",
            "device_error",
            "readonly",
            "size_bytes",
            "free_bytes",
            "avail_bytes",
            "files",
            "files_free",
            "purgeable_bytes",
        ];
        assert_eq!(names, expected);
        assert_eq!(said[0].1, ["/dev/nvme0n1p2", "259", "2", "/"]);
        assert_eq!(said[1].1, ["/dev/nvme0n1p2", "", "ext4", "/"]);
        assert!(said[3].2 > 0.0, "the root has a size");
    }

    #[test]
    fn what_is_mounted_twice_is_said_once_with_both_numbers() {
        let text = "30 26 0:30 / / rw - tmpfs tmpfs rw\n31 30 0:31 / / rw - tmpfs tmpfs rw\n";
        let (_dir, mut collector, host) = make(&[("1/mountinfo", text)], "/");
        let said = said(&mut *collector, &host);
        let count = |wanted: &str| said.iter().filter(|(name, ..)| name == wanted).count();
        assert_eq!((count("mount_info"), count("size_bytes")), (2, 1));
    }

    #[test]
    fn a_mount_that_can_not_be_asked_says_why() {
        let line = "31 26 8:1 / /nonexistent/x ro - ext4 /dev/sda1 rw\n";
        let (_dir, mut collector, host) = make(&[("1/mountinfo", line)], "/");
        let labels: Vec<String> =
            ["/dev/sda1", "no such file or directory", "ext4", "/nonexistent/x"].map(str::to_owned).into();
        let expected =
            [("device_error".to_owned(), labels.clone(), 1.0), ("readonly".to_owned(), labels, 1.0)];
        assert_eq!(said(&mut *collector, &host), expected);
    }

    #[test]
    fn the_root_of_the_host_is_taken_off_the_mount_points() {
        let text = format!(
            "{ROOT}27 26 8:1 / /host rw - ext4 /dev/sda1 rw\n28 26 8:2 / /host/boot rw - vfat /dev/sda2 rw\n"
        );
        let (_dir, mut collector, host) = make(&[("1/mountinfo", &text)], "/host");
        let points: Vec<String> = said(&mut *collector, &host)
            .into_iter()
            .filter(|(name, ..)| name == "device_error")
            .map(|(_, mut labels, _)| labels.remove(3))
            .collect();
        assert_eq!(points, ["/", "/", "/boot"]);
    }

    #[test]
    fn without_pid_1_the_own_mounts_are_said_once_each() {
        let text = format!("{ROOT}{ROOT}30 26 0:5 / /proc rw - proc proc rw\n");
        let (dir, mut collector, host) = make(&[("self/mountinfo", &text)], "/");
        assert_eq!(said(&mut *collector, &host).len(), 9);
        fs::write(dir.path().join("self/mountinfo"), "odd\n").expect("written");
        let error = collector.collect(&host, &mut Samples::new()).expect_err("not understood");
        assert!(error.to_string().contains("self/mountinfo"), "{error}");
    }

    #[test]
    fn a_timeout_that_is_no_duration_is_refused() {
        let settings = Settings::from([("filesystem.mount-timeout".to_owned(), vec!["soon".to_owned()])]);
        assert!(build(&Host::default(), &Options::new(&ENTRY, &settings)).is_err());
    }
}
