//! What this machine offers where nobody said otherwise.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::env::Env;

/// Facts about the machine that defaults depend on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// The host's name.
    pub hostname: String,
    /// Bytes of memory that the kernel grants this process, if it is bounded.
    pub memory_limit: Option<u64>,
    /// Those of [`MOUNTS`] that exist: how a pod sees its host.
    pub mounts: Vec<&'static str>,
    /// The state directory to use because the default one can't be written.
    pub other_state_dir: Option<PathBuf>,
    /// The configuration file when no flag names one.
    pub config_file: Option<PathBuf>,
}

/// Where manifests mount the host's file systems.
pub const MOUNTS: [&str; 6] =
    ["/host/proc", "/host/sys", "/host/root", "/rootfs", "/host/root/run/udev/data", "/rootfs/run/udev/data"];

const STATE_DIR: &str = "/var/lib/nodewarden";
pub(super) const CONFIG_FILE: &str = "/etc/nodewarden/config.yaml";

impl Machine {
    /// The same machine, where a configuration file may have appeared. One that was there is asked for for ever: that it is gone
    /// is a mistake, not a wish for the defaults.
    pub fn again(&self) -> Self {
        Self { config_file: self.config_file.clone().or_else(config_file), ..self.clone() }
    }

    /// Looks at the machine this runs on.
    pub fn look(env: &Env) -> Self {
        Self {
            hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            memory_limit: memory_limit(Path::new("/sys/fs/cgroup"), &own_cgroups()),
            mounts: MOUNTS.into_iter().filter(|mount| Path::new(mount).is_dir()).collect(),
            other_state_dir: if is_writable(Path::new(STATE_DIR)) { None } else { user_state_dir(env) },
            config_file: config_file(),
        }
    }
}

/// One that can't be looked at is tried all the same, so that it is not silently left out.
fn config_file() -> Option<PathBuf> {
    Some(PathBuf::from(CONFIG_FILE)).filter(|file| file.try_exists().unwrap_or(true))
}

/// Whether a directory can be written, or made in the nearest one that exists.
fn is_writable(path: &Path) -> bool {
    let existing = path.ancestors().find(|ancestor| ancestor.exists());
    existing.is_some_and(|at| rustix::fs::access(at, rustix::fs::Access::WRITE_OK).is_ok())
}

fn user_state_dir(env: &Env) -> Option<PathBuf> {
    let absolute = |name: &str| env.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
    base.map(|base| base.join("nodewarden"))
}

fn own_cgroups() -> String {
    // Without the file there are no cgroups, and then no limit.
    fs::read_to_string("/proc/self/cgroup").unwrap_or_default()
}

/// The least limit on the way from our cgroup to the top; `cgroups` is `/proc/self/cgroup`:
/// `0::/kubepods/pod1` (v2) or `4:memory:/kubepods/pod1` (v1).
fn memory_limit(root: &Path, cgroups: &str) -> Option<u64> {
    let mut limits = Vec::new();
    for line in cgroups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        // Where version 1 has the other controllers, version 2 is mounted below.
        let (bases, file) = match controllers {
            "" => (vec![root.to_owned(), root.join("unified")], "memory.max"),
            some if some.split(',').any(|one| one == "memory") => {
                (vec![root.join("memory"), root.join(some)], "memory.limit_in_bytes")
            }
            _ => continue,
        };
        for base in bases {
            // In a container the path is the host's and the files of our own cgroup lie at the root: missing ones are passed
            // over.
            let ours = base.join(path.trim_start_matches('/'));
            let ways = ours.ancestors().take_while(|at| at.starts_with(&base));
            limits.extend(ways.filter_map(|at| read_limit(&at.join(file))));
            // Version 1 also says what applies because of cgroups that can't be seen from here.
            let nearest =
                [&ours, &base].map(|at| at.join("memory.stat")).into_iter().find(|stat| stat.exists());
            limits.extend(nearest.and_then(|stat| read_hierarchical(&stat)));
        }
    }
    limits.into_iter().min()
}

/// `hierarchical_memory_limit 536870912`, of version 1 only.
fn read_hierarchical(file: &Path) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let limit = text.lines().find_map(|line| line.strip_prefix("hierarchical_memory_limit "))?;
    parse_limit(limit)
}

/// `536870912`; v2 says `max` and v1 a number near 2^63 when there is no limit.
fn read_limit(file: &Path) -> Option<u64> {
    parse_limit(&fs::read_to_string(file).ok()?)
}

fn parse_limit(text: &str) -> Option<u64> {
    const NO_LIMIT: u64 = 1 << 60;
    text.trim().parse().ok().filter(|bytes| *bytes < NO_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_limit_on_the_way_counts() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let pod = root.path().join("kubepods/pod1");
        fs::create_dir_all(&pod).expect("made");
        fs::write(pod.join("memory.max"), "max\n").expect("written");
        fs::write(root.path().join("kubepods/memory.max"), "1000\n").expect("written");
        assert_eq!(memory_limit(root.path(), "0::/kubepods/pod1\n"), Some(1000));
        fs::write(pod.join("memory.max"), "500\n").expect("written");
        assert_eq!(memory_limit(root.path(), "0::/kubepods/pod1\n"), Some(500));
        assert_eq!(memory_limit(root.path(), "0::/\n"), None);
    }

    #[test]
    fn version_one_says_a_huge_number_for_no_limit() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let memory = root.path().join("memory");
        fs::create_dir_all(&memory).expect("made");
        fs::write(memory.join("memory.limit_in_bytes"), "9223372036854771712\n").expect("written");
        assert_eq!(memory_limit(root.path(), "9:memory:/docker/x\n8:cpu,cpuacct:/\n"), None);
        fs::write(memory.join("memory.limit_in_bytes"), "67108864\n").expect("written");
        assert_eq!(memory_limit(root.path(), "9:memory:/docker/x\n"), Some(64 << 20));
        assert_eq!(memory_limit(root.path(), "odd\n"), None);
    }

    #[test]
    fn version_one_says_what_applies_because_of_cgroups_out_of_sight() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let memory = root.path().join("memory");
        fs::create_dir_all(&memory).expect("made");
        fs::write(memory.join("memory.limit_in_bytes"), "9223372036854771712\n").expect("written");
        let stat = |limit: u64| format!("cache 1\nhierarchical_memory_limit {limit}\nrss 5\n");
        fs::write(memory.join("memory.stat"), stat(33_554_432)).expect("written");
        assert_eq!(memory_limit(root.path(), "4:memory:/kubepods/pod1/c\n"), Some(32 << 20));
        fs::write(memory.join("memory.stat"), stat(9_223_372_036_854_771_712)).expect("written");
        assert_eq!(memory_limit(root.path(), "4:memory:/kubepods/pod1/c\n"), None);
    }

    #[test]
    fn in_a_hybrid_tree_either_version_may_have_the_limit() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let (one, two) = (root.path().join("memory/a"), root.path().join("unified/b"));
        [&one, &two].into_iter().for_each(|path| fs::create_dir_all(path).expect("made"));
        let cgroups = "4:memory:/a\n1:cpu,cpuacct:/\n0::/b\n";
        assert_eq!(memory_limit(root.path(), cgroups), None);
        fs::write(two.join("memory.max"), "2000\n").expect("written");
        assert_eq!(memory_limit(root.path(), cgroups), Some(2000));
        fs::write(one.join("memory.limit_in_bytes"), "1000\n").expect("written");
        assert_eq!(memory_limit(root.path(), cgroups), Some(1000));
        fs::write(two.join("memory.max"), "max\n").expect("written");
        assert_eq!(memory_limit(root.path(), cgroups), Some(1000));
    }

    #[test]
    fn the_user_s_state_directory() {
        let env = |name: &str, value: &str| Env::from([(name.to_owned(), value.to_owned())]);
        assert_eq!(user_state_dir(&env("XDG_STATE_HOME", "/s")), Some("/s/nodewarden".into()));
        assert_eq!(user_state_dir(&env("HOME", "/h")), Some("/h/.local/state/nodewarden".into()));
        assert_eq!(user_state_dir(&Env::new()), None);
    }
}
