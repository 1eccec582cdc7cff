//! Which CPUs are online, how often their cores and packages were throttled.

use std::{fs, io::ErrorKind, path::PathBuf};

use crate::{
    CollectError, Desc, Host, Samples,
    sysfs::{self, Attribute, Buffer},
};

static CORE_THROTTLES: Desc = Desc::counter(
    "node_cpu_core_throttles_total",
    "Number of times this CPU core has been throttled.",
    &["core", "package"],
);
static PACKAGE_THROTTLES: Desc = Desc::counter(
    "node_cpu_package_throttles_total",
    "Number of times this CPU package has been throttled.",
    &["package"],
);
static ONLINE: Desc = Desc::gauge("node_cpu_online", "CPUs that are online and being scheduled.", &["cpu"]);

/// How many counters keep their file open; the others of a very big host are opened at each scrape.
const KEPT: usize = 128;

/// What the directories under `/sys/devices/system/cpu` say.
///
/// They change only when a CPU comes or goes, and then the kernel's lists of CPUs change: the directories are looked at
/// again only then, which saves a handful of files per CPU in every other scrape.
pub(super) struct Topology {
    directory: PathBuf,
    present: Attribute,
    online: Attribute,
    buffer: Buffer,
    /// Both lists when the directories were looked at; empty when the kernel has none.
    lists: String,
    cpus: Vec<Cpu>,
    cores: Vec<Core>,
    packages: Vec<Package>,
}

struct Cpu {
    number: String,
    /// Nothing when its directory has no such file.
    online: Option<bool>,
}

struct Core {
    core: String,
    package: String,
    count: Attribute,
}

struct Package {
    package: String,
    count: Attribute,
}

impl Topology {
    pub(super) fn new(host: &Host) -> Self {
        let directory = host.sys("devices/system/cpu");
        Self {
            present: Attribute::new(directory.join("present")),
            online: Attribute::new(directory.join("online")),
            directory,
            buffer: Buffer::default(),
            lists: String::new(),
            cpus: Vec::new(),
            cores: Vec::new(),
            packages: Vec::new(),
        }
    }

    pub(super) fn say(&mut self, out: &mut Samples) -> Result<(), CollectError> {
        let lists = self.read_lists();
        if lists.is_empty() || lists != self.lists {
            self.look()?;
            self.lists = lists;
        }
        for (at, Core { core, package, count }) in self.cores.iter_mut().enumerate() {
            if let Some(count) = read_count(count, &mut self.buffer, at < KEPT) {
                out.push(&CORE_THROTTLES, &[core, package], count as f64);
            }
        }
        for (at, Package { package, count }) in self.packages.iter_mut().enumerate() {
            if let Some(count) = read_count(count, &mut self.buffer, at < KEPT) {
                out.push(&PACKAGE_THROTTLES, &[package], count as f64);
            }
        }
        for cpu in &self.cpus {
            out.push(&ONLINE, &[&cpu.number], f64::from(u8::from(cpu.online == Some(true))));
        }
        Ok(())
    }

    fn read_lists(&mut self) -> String {
        let mut lists = String::new();
        for list in [&mut self.present, &mut self.online] {
            if let Ok(text) = list.read(&mut self.buffer) {
                lists.push_str(text);
                lists.push('\n');
            }
        }
        lists
    }

    fn look(&mut self) -> Result<(), CollectError> {
        self.cpus.clear();
        self.cores.clear();
        self.packages.clear();
        for name in sysfs::entries(&self.directory)? {
            if sysfs::is_numbered(&name, "cpu") {
                self.look_at(&name);
            }
        }
        // A system whose first CPU can't be taken away does not say which ones are online.
        if self.cpus.first().is_none_or(|first| first.online.is_none()) {
            self.cpus.clear();
        }
        Ok(())
    }

    fn look_at(&mut self, name: &str) {
        let cpu = self.directory.join(name);
        let online = match fs::read(cpu.join("online")) {
            Ok(text) => Some(text.trim_ascii() == b"1"),
            Err(error) => (error.kind() != ErrorKind::NotFound).then_some(false),
        };
        self.cpus.push(Cpu { number: name.trim_start_matches("cpu").to_owned(), online });
        let id = |file: &str| sysfs::number(&cpu.join("topology").join(file)).map(|id| id.to_string());
        let (Some(package), Some(core)) = (id("physical_package_id"), id("core_id")) else { return };
        // CPUs of one core, and cores of one package, count together: the first one that can say does.
        let count = |file: &str| {
            let path = cpu.join("thermal_throttle").join(file);
            sysfs::number(&path).map(|_| Attribute::new(path))
        };
        if !self.cores.iter().any(|known| known.core == core && known.package == package)
            && let Some(count) = count("core_throttle_count")
        {
            self.cores.push(Core { core, package: package.clone(), count });
        }
        if !self.packages.iter().any(|known| known.package == package)
            && let Some(count) = count("package_throttle_count")
        {
            self.packages.push(Package { package, count });
        }
    }
}

fn read_count(count: &mut Attribute, buffer: &mut Buffer, keep: bool) -> Option<u64> {
    let value = count.read(buffer).ok()?.parse().ok();
    if !keep {
        count.close();
    }
    value
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join("devices/system/cpu").join(path);
        fs::create_dir_all(path.parent().expect("has one")).expect("made");
        fs::write(path, text).expect("written");
    }

    fn said(topology: &mut Topology) -> Vec<(String, String, f64)> {
        let mut out = Samples::new();
        topology.say(&mut out).expect("said");
        let line = |(name, labels, value): (&str, crate::samples::LabelValues, f64)| {
            (name.trim_start_matches("node_cpu_").to_owned(), labels.collect::<Vec<_>>().join(" "), value)
        };
        out.iter().map(line).collect()
    }

    #[test]
    fn siblings_are_counted_once() {
        let root = tempfile::tempdir().expect("a temporary directory");
        for (cpu, core, count) in [("cpu0", "0", "5"), ("cpu1", "1", "7"), ("cpu2", "0", "6")] {
            write(root.path(), &format!("{cpu}/topology/physical_package_id"), "0\n");
            write(root.path(), &format!("{cpu}/topology/core_id"), core);
            write(root.path(), &format!("{cpu}/thermal_throttle/core_throttle_count"), count);
            write(root.path(), &format!("{cpu}/thermal_throttle/package_throttle_count"), "30\n");
        }
        let host = Host { sysfs: root.path().into(), ..Host::default() };
        let expected = [
            ("core_throttles_total".to_owned(), "0 0".to_owned(), 5.0),
            ("core_throttles_total".to_owned(), "1 0".to_owned(), 7.0),
            ("package_throttles_total".to_owned(), "0".to_owned(), 30.0),
        ];
        assert_eq!(said(&mut Topology::new(&host)), expected);
    }

    #[test]
    fn a_cpu_taken_offline_is_noticed_by_the_list() {
        let root = tempfile::tempdir().expect("a temporary directory");
        for (path, text) in [("online", "0-1\n"), ("cpu0/online", "1\n"), ("cpu1/online", "1\n")] {
            write(root.path(), path, text);
        }
        let host = Host { sysfs: root.path().into(), ..Host::default() };
        let mut topology = Topology::new(&host);
        assert_eq!(said(&mut topology)[1], ("online".into(), "1".into(), 1.0));
        write(root.path(), "cpu1/online", "0\n");
        write(root.path(), "online", "0\n");
        assert_eq!(said(&mut topology)[1], ("online".into(), "1".into(), 0.0));
    }

    #[test]
    fn nothing_is_said_where_the_first_cpu_always_runs() {
        let root = tempfile::tempdir().expect("a temporary directory");
        write(root.path(), "cpu0/uevent", "");
        write(root.path(), "cpu1/online", "1\n");
        let host = Host { sysfs: root.path().into(), ..Host::default() };
        assert!(said(&mut Topology::new(&host)).is_empty());
    }
}
