//! What went through the network interfaces of a pod, as one of its processes sees them.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::Path,
};

use crate::Host;

/// What cAdvisor leaves out too: the loopback, and the ends of interfaces that belong to pods in this pod.
const LEFT_OUT: [&str; 4] = ["lo", "veth", "docker", "nerdctl"];
/// Of more interfaces in one pod than this nothing is said.
const INTERFACES: usize = 64;
/// Longer texts are cut, and with them the last line.
const LONGEST_TEXT: u64 = 256 << 10;

/// The counters of one interface.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Interface {
    pub received: Counts,
    pub sent: Counts,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    pub bytes: u64,
    pub packets: u64,
    pub errors: u64,
    pub dropped: u64,
}

/// Reads the interfaces of pods.
#[derive(Debug, Default)]
pub struct Network {
    /// The file's number in the host's own network; each network has files of its own.
    host: Option<u64>,
    text: String,
}

impl Network {
    /// Finds out which network is the host's; once a scrape.
    pub fn look_at_host(&mut self, host: &Host) {
        self.host = host.proc("1/net/dev").metadata().ok().map(|found| found.ino());
    }

    /// Calls `say` with each interface that the process sees, if its network is its pod's own. Any user may read this, where
    /// comparing `/proc/PID/ns/net` needs privileges. The file is not kept open: that would keep the network of a pod that is gone.
    pub fn read(&mut self, host: &Host, pid: u32, say: impl FnMut(&str, &Interface)) -> io::Result<()> {
        self.read_file(&host.proc(&format!("{pid}/net/dev")), say)
    }

    fn read_file(&mut self, path: &Path, mut say: impl FnMut(&str, &Interface)) -> io::Result<()> {
        // Not to be able to tell the host's network from a pod's is no reason to say it for each pod.
        let Some(host) = self.host else { return Ok(()) };
        let file = File::open(path)?;
        if file.metadata()?.ino() == host {
            return Ok(());
        }
        self.text.clear();
        file.take(LONGEST_TEXT).read_to_string(&mut self.text)?;
        let lines = self.text.lines().skip(2).filter_map(parse_line);
        for (name, counts) in lines.filter(|(name, _)| !is_left_out(name)).take(INTERFACES) {
            say(name, &counts);
        }
        Ok(())
    }
}

fn is_left_out(name: &str) -> bool {
    LEFT_OUT.iter().any(|beginning| {
        name.get(..beginning.len()).is_some_and(|first| first.eq_ignore_ascii_case(beginning))
    })
}

/// "  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16": bytes, packets, errors, dropped and four others received, then sent.
fn parse_line(line: &str) -> Option<(&str, Interface)> {
    let (name, numbers) = line.rsplit_once(':')?;
    let numbers: [u64; 16] = crate::words::exactly(numbers.split_ascii_whitespace())?;
    let counts = |at: usize| Counts {
        bytes: numbers[at],
        packets: numbers[at + 1],
        errors: numbers[at + 2],
        dropped: numbers[at + 3],
    };
    Some((name.trim_start(), Interface { received: counts(0), sent: counts(8) }))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const DEV: &str = "Inter-|   Receive  |  Transmit\n face |bytes packets errs\n    \
                       lo:    1    2    3    4    5    6    7    8    9   10   11   12   13   14   15   16\n  \
                       eth0:1    2    3    4    5    6    7    8    9   10   11   12   13   14   15   16\n\
                       net1: 1 2 3\nvethab:1    2    3    4    5    6    7    8    9   10   11   12   13   14   15   16\n";

    fn seen(network: &mut Network, path: &Path) -> Vec<(String, Interface)> {
        let mut seen = Vec::new();
        network.read_file(path, |name, counts| seen.push((name.to_owned(), *counts))).expect("read");
        seen
    }

    #[test]
    fn only_the_pods_own_network_is_said() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for process in ["1", "7"] {
            fs::create_dir_all(dir.path().join(process).join("net")).expect("made");
            fs::write(dir.path().join(process).join("net/dev"), DEV).expect("written");
        }
        let host = Host { procfs: dir.path().into(), ..Host::default() };
        let mut network = Network::default();
        network.look_at_host(&host);
        let received = Counts { bytes: 1, packets: 2, errors: 3, dropped: 4 };
        let sent = Counts { bytes: 9, packets: 10, errors: 11, dropped: 12 };
        let interfaces = seen(&mut network, &host.proc("7/net/dev"));
        assert_eq!(interfaces, [("eth0".to_owned(), Interface { received, sent })]);
        assert_eq!(seen(&mut network, &host.proc("1/net/dev")), []);
        assert!(network.read(&host, 9, |_, _| {}).is_err());
        assert_eq!(seen(&mut Network::default(), &host.proc("7/net/dev")), []);
    }

    #[test]
    fn this_kernel_gives_each_network_files_of_its_own() {
        let mut network = Network::default();
        network.look_at_host(&Host::default());
        let same = fs::read_link("/proc/1/ns/net").ok().zip(fs::read_link("/proc/self/ns/net").ok());
        let own = fs::metadata("/proc/self/net/dev").ok().map(|found| found.ino());
        // Only root may compare them this way.
        if let Some((host, ours)) = same {
            assert_eq!(network.host == own, host == ours);
        }
    }
}
