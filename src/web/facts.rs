//! What the page's header says of the host; read once.

use std::{
    sync::{Arc, OnceLock},
    thread,
};

use nodewarden_collectors::{Host, host::read_text};
use tracing::debug;

use crate::metrics::process::parse_boot_time;

/// Facts of a host that do not change while the agent runs; empty or 0 where the host does not say.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// The distribution, e.g. `Debian GNU/Linux 12 (bookworm)`.
    pub os: String,
    /// The kernel's release.
    pub kernel: String,
    /// CPUs that are online.
    pub cpus: u32,
    /// All memory.
    pub memory_total_bytes: u64,
    /// Unix time of the boot.
    pub boot_time_seconds: f64,
}

/// What is known before the host has answered.
pub static UNKNOWN: Facts = Facts {
    os: String::new(),
    kernel: String::new(),
    cpus: 0,
    memory_total_bytes: 0,
    boot_time_seconds: 0.0,
};

impl Facts {
    /// Asks the host in a thread of its own: its files may lie on something that does not answer.
    pub fn read_aside(host: &Host) -> Arc<OnceLock<Self>> {
        let (facts, host) = (Arc::new(OnceLock::new()), host.clone());
        let place = Arc::clone(&facts);
        let asking = thread::Builder::new().name("facts".into()).spawn(move || {
            // Nobody else sets it.
            let _ = place.set(Self::read(&host));
        });
        if let Err(error) = asking {
            debug!(%error, "nobody could be sent to ask the host");
        }
        facts
    }

    /// Asks the host.
    pub fn read(host: &Host) -> Self {
        let text = |path: std::path::PathBuf| {
            read_text(&path)
                .inspect_err(|error| debug!(%error, "a fact of the host is not known"))
                .unwrap_or_default()
        };
        let stat = text(host.proc("stat"));
        let os = ["/etc/os-release", "/usr/lib/os-release"]
            .iter()
            .find_map(|path| os_name(&read_text(&host.root(path)).ok()?))
            .unwrap_or_default();
        Self {
            os,
            kernel: text(host.proc("sys/kernel/osrelease")).trim().to_owned(),
            cpus: stat.lines().filter(|line| is_cpu(line)).count() as u32,
            memory_total_bytes: memory_total(&text(host.proc("meminfo"))).unwrap_or_default(),
            boot_time_seconds: parse_boot_time(&stat).unwrap_or_default(),
        }
    }
}

/// `PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"`
fn os_name(text: &str) -> Option<String> {
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(name.trim().trim_matches(['"', '\'']).to_owned())
}

/// `cpu0 1 2 3`, but not the sum `cpu  1 2 3`.
fn is_cpu(line: &str) -> bool {
    line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// `MemTotal:       15666184 kB`
fn memory_total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_host_is_described() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let at = |path: &str| dir.path().join(path);
        fs::create_dir_all(at("sys/kernel")).expect("made");
        fs::create_dir_all(at("etc")).expect("made");
        fs::write(at("sys/kernel/osrelease"), "6.1.0\n").expect("written");
        fs::write(at("etc/os-release"), "ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n").expect("written");
        fs::write(at("stat"), "cpu  1 2\ncpu0 1 2\ncpu1 1 2\nintr 5\nbtime 1418183276\n").expect("written");
        fs::write(at("meminfo"), "MemTotal:       1000 kB\nMemFree: 5 kB\n").expect("written");
        let host = Host { procfs: dir.path().into(), rootfs: dir.path().into(), ..Host::default() };
        assert_eq!(
            Facts::read(&host),
            Facts {
                os: "Debian GNU/Linux 12".into(),
                kernel: "6.1.0".into(),
                cpus: 2,
                memory_total_bytes: 1_024_000,
                boot_time_seconds: 1_418_183_276.0
            }
        );
    }

    #[test]
    fn an_empty_host_has_no_facts() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let host = Host { procfs: dir.path().into(), rootfs: dir.path().into(), ..Host::default() };
        assert_eq!(Facts::read(&host), Facts::default());
    }
}
