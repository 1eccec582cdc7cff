//! Whether SELinux is on, and whether it enforces its policy.

use std::path::{Path, PathBuf};

use rustix::{
    fs::{StatVfsMountFlags, statfs, statvfs},
    io::retry_on_intr,
};

use crate::{BuildError, CollectError, Collector, Desc, Entry, Host, Options, Samples, host};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "selinux", default_on: true, flags: &[], build };

static ENABLED: Desc = Desc::gauge("node_selinux_enabled", "SELinux is enabled, 1 is true, 0 is false", &[]);
static CONFIGURED: Desc = Desc::gauge("node_selinux_config_mode", "Configured SELinux enforcement mode", &[]);
static CURRENT: Desc = Desc::gauge("node_selinux_current_mode", "Current SELinux enforcement mode", &[]);

/// Where the kernel says what SELinux does; like node_exporter's, these paths do not follow `--path.*`.
const USUAL_MOUNT: &str = "/sys/fs/selinux";
const CONFIG: &str = "/etc/selinux/config";
const FILE_SYSTEMS: &str = "/proc/filesystems";
const MOUNTS: &str = "/proc/self/mountinfo";
const CONTEXT: &str = "/proc/thread-self/attr/current";

/// `SELINUX_MAGIC` of `linux/magic.h`.
const MAGIC: u32 = 0xf97c_ff8c;

/// The mode of a host that enforces nothing, or does not say.
const DISABLED: f64 = -1.0;

#[derive(Default)]
struct Selinux {
    /// Its file system where it is on. That is decided at boot, so it is looked for at the first scrape only.
    mount: Option<Option<PathBuf>>,
}

fn build(_: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Selinux::default()))
}

impl Collector for Selinux {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let Some(mount) = self.mount.get_or_insert_with(find) else {
            out.push(&ENABLED, &[], 0.0);
            return Ok(());
        };
        out.push(&ENABLED, &[], 1.0);
        let configured = host::read_text(Path::new(CONFIG)).map_or(DISABLED, |text| parse_config(&text));
        out.push(&CONFIGURED, &[], configured);
        let current = host::read_text(&mount.join("enforce")).map_or(DISABLED, |text| parse_mode(&text));
        out.push(&CURRENT, &[], current);
        Ok(())
    }
}

/// The file system of SELinux, unless no policy is loaded: the kernel is then the context of everybody.
fn find() -> Option<PathBuf> {
    let mount = find_mount()?;
    let context = host::read_text(Path::new(CONTEXT)).unwrap_or_default();
    (context.strip_suffix('\0').unwrap_or(&context) != "kernel").then_some(mount)
}

fn find_mount() -> Option<PathBuf> {
    let usual = PathBuf::from(USUAL_MOUNT);
    if is_writable_selinuxfs(&usual) {
        return Some(usual);
    }
    let known = host::read_text(Path::new(FILE_SYSTEMS)).ok()?;
    if !known.lines().any(|line| line.ends_with("\tselinuxfs")) {
        return None;
    }
    let mounts = host::read_text(Path::new(MOUNTS)).ok()?;
    mounts.lines().filter_map(mount_point).map(PathBuf::from).find(|path| is_writable_selinuxfs(path))
}

/// A container gets it read-only, as a sign that SELinux is none of its business.
fn is_writable_selinuxfs(path: &Path) -> bool {
    let is_selinuxfs = retry_on_intr(|| statfs(path)).is_ok_and(|stat| stat.f_type as u32 == MAGIC);
    is_selinuxfs
        && retry_on_intr(|| statvfs(path)).is_ok_and(|stat| !stat.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// The mount point in a line of `mountinfo`: "26 17 0:20 / /sys/fs/selinux rw,relatime shared:6 - selinuxfs none rw"
fn mount_point(line: &str) -> Option<&str> {
    line.contains(" - selinuxfs ").then(|| line.split(' ').nth(4)).flatten()
}

/// `/etc/selinux/config`: lines of KEY=VALUE and comments; the first "SELINUX=enforcing" counts.
fn parse_config(text: &str) -> f64 {
    let mode = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with([';', '#']))
        .find_map(|line| line.strip_prefix("SELINUX="));
    match mode.map(|mode| mode.trim_matches('"')) {
        Some("enforcing") => 1.0,
        Some("permissive") => 0.0,
        _ => DISABLED,
    }
}

/// `enforce`: "1" or "0", without a newline.
fn parse_mode(text: &str) -> f64 {
    text.parse::<i64>().map_or(DISABLED, |mode| mode as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_mode_of_the_configuration_counts() {
        for (text, mode) in [
            ("# SELINUX= can take one of\nSELINUX=enforcing\nSELINUXTYPE=targeted\n", 1.0),
            ("\n  SELINUX=\"permissive\"  \nSELINUX=enforcing\n", 0.0),
            ("SELINUX=disabled\n", -1.0),
            ("SELINUXTYPE=enforcing\n;SELINUX=enforcing\n", -1.0),
            ("", -1.0),
        ] {
            assert_eq!(parse_config(text), mode, "{text:?}");
        }
    }

    #[test]
    fn a_mode_that_is_no_number_is_not_known() {
        assert_eq!((parse_mode("1"), parse_mode("0"), parse_mode("")), (1.0, 0.0, -1.0));
    }

    #[test]
    fn mounts_of_selinuxfs_are_found() {
        let line = "26 17 0:20 / /sys/fs/se rw,relatime shared:6 - selinuxfs none rw";
        assert_eq!(mount_point(line), Some("/sys/fs/se"));
        assert_eq!(mount_point("26 17 0:20 / /sys rw - sysfs selinuxfs rw"), None);
        assert_eq!(mount_point(" - selinuxfs "), None);
    }

    #[test]
    fn a_host_says_at_least_whether_it_is_on() {
        let mut out = Samples::new();
        let mut collector = Selinux::default();
        collector.collect(&Host::default(), &mut out).expect("collected");
        assert_eq!(out.iter().next().map(|(name, ..)| name), Some("node_selinux_enabled"));
        let off = Selinux { mount: Some(None) }.collect(&Host::default(), &mut Samples::new());
        assert!(off.is_ok());
    }
}
