//! What pods and their containers use: CPU, memory, block devices, network, pressure; with the names of cAdvisor, which is the
//! kubelet's source for the same.
//!
//! The kernel says it per control group, whose names hold the pod's uid and the container's id. Namespace, pod and container
//! come from the names of the logs that the kubelet writes, so nobody has to be asked; only images are the cluster's to tell.

mod devices;
mod families;
mod network;
mod tree;
mod usage;

use std::{path::Path, time::Instant};

use self::{
    devices::Devices,
    families::{Labels, Times},
    network::Network,
    tree::{Group, Pod, Tree},
    usage::{Reader, Usage},
};
use crate::{
    BuildError, CollectError, Collector, Entry, Flag, Host, Options, Samples,
    filter::Filter,
    host,
    pod_names::{LINKS, Names, Who, seconds_since_epoch},
};

/// This collector in the list.
pub const ENTRY: Entry = Entry {
    name: "pods",
    default_on: false,
    flags: &[
        Flag::regex("pods.namespace-include", "", "Regexp of namespaces to include"),
        Flag::regex("pods.namespace-exclude", "", "Regexp of namespaces to exclude"),
        Flag::bool(
            "pods.totals",
            false,
            "Also say what each pod uses as a whole, with an empty container label as the kubelet does",
        ),
    ],
    build,
};

struct Pods {
    filter: Filter,
    totals: bool,
    tree: Tree,
    names: Names,
    sayer: Sayer,
}

fn build(host: &Host, options: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Pods {
        filter: Filter::both(options, "pods.namespace-include", "pods.namespace-exclude")?,
        totals: options.is_on("pods.totals"),
        tree: Tree::new(host),
        names: Names::new(host),
        sayer: Sayer {
            reader: Reader::new(),
            usage: Usage::default(),
            devices: Devices::new(host),
            network: Network::default(),
            booted: None,
            now: 0,
        },
    }))
}

impl Collector for Pods {
    fn collect(&mut self, host: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let Self { filter, totals, tree, names, sayer } = self;
        let mut failed = names.refresh().err();
        sayer.begin(host);
        let pods = tree.follow(sayer.reader.now, &mut failed);
        let (mut known, count) = (0, pods.len());
        for pod in pods.values_mut() {
            identify(pod, names, host);
            let Some(who) = &pod.who else { continue };
            known += 1;
            if !filter.ignores(&who.namespace) {
                sayer.say(host, pod, *totals, out);
            }
        }
        if known == 0 && count > 0 {
            let what = format!("no name in it is of one of the {count} pods here: mount the host's /var/log");
            failed.get_or_insert(CollectError::parse(host.root(LINKS), what));
        }
        let read = sayer.reader.finish();
        failed.map_or(read, Err)?;
        if tree.has_any() { Ok(()) } else { Err(CollectError::NoData) }
    }
}

/// Finds out whose control groups these are, as far as it is not known yet.
fn identify(pod: &mut Pod, names: &Names, host: &Host) {
    for member in &mut pod.members {
        names.tell(&member.id, host, &mut member.who);
    }
    if pod.who.is_none() {
        let named = pod.members.iter().find_map(|member| member.who.as_ref());
        pod.who = named.or_else(|| names.of_pod(&pod.uid)).map(|who| Who {
            namespace: who.namespace.clone(),
            pod: who.pod.clone(),
            ..Who::default()
        });
    }
}

/// Says pods, with the buffers for it.
struct Sayer {
    reader: Reader,
    usage: Usage,
    devices: Devices,
    network: Network,
    /// When the kernel started, in seconds since the epoch.
    booted: Option<i64>,
    /// The time of this scrape in seconds since the epoch.
    now: i64,
}

impl Sayer {
    fn begin(&mut self, host: &Host) {
        self.reader.now = Instant::now();
        self.now = seconds_since_epoch();
        self.devices.clear();
        self.network.look_at_host(host);
        if self.booted.is_none() {
            self.booted = host::read_text(&host.proc("stat")).ok().and_then(|text| parse_boot_time(&text));
        }
    }

    fn say(&mut self, host: &Host, pod: &mut Pod, totals: bool, out: &mut Samples) {
        let Pod { who: Some(pod_who), whole, members, .. } = pod else { return };
        let mut pid = None;
        let mut has_named = false;
        for member in members.iter_mut() {
            let Some(who) = &member.who else { continue };
            has_named = true;
            pid = self.say_group(host, who, &member.id, &mut member.group, out).or(pid);
        }
        // Without a name for any container, the pod as a whole is better than nothing.
        if totals || !has_named {
            self.say_group(host, pod_who, "", whole, out);
        }
        // The sandbox has nothing to do but to hold the network; runtimes without one leave it to the containers.
        let sandbox = members.iter_mut().find(|member| member.who.is_none());
        let (id, path, pid) = match sandbox {
            Some(member) => {
                let first = member.group.files.read_first_pid(&mut self.reader);
                (member.id.as_str(), member.group.path.as_str(), first.or(pid))
            }
            None => ("", whole.path.as_str(), pid),
        };
        // 0 is a process that is not seen from here.
        if let Some(pid) = pid.filter(|pid| *pid > 0) {
            let labels = labels(pod_who, path, id);
            let said = self.network.read(host, pid, |interface, counts| {
                families::say_interface(&labels, interface, counts, out);
            });
            if let Err(error) = said {
                tracing::debug!(%error, pid, pod = pod_who.pod, "could not read the network of a pod");
            }
        }
    }

    /// Says one control group; its first process.
    fn say_group(
        &mut self,
        host: &Host,
        who: &Who,
        id: &str,
        group: &mut Group,
        out: &mut Samples,
    ) -> Option<u32> {
        group.files.read(&mut self.reader, &mut self.usage);
        let pid = self.usage.first_pid;
        // A container that is gone since it was listed.
        self.usage.cpu.usage.or(self.usage.memory.usage)?;
        if group.started.is_none() {
            group.started = started(host, group.files.path(), pid, self.booted);
        }
        let times = Times { now: self.now, started: group.started };
        families::say(&labels(who, &group.path, id), &self.usage, times, &mut self.devices, out);
        pid
    }
}

fn labels<'a>(who: &'a Who, id: &'a str, name: &'a str) -> Labels<'a> {
    let Who { namespace, pod, container, image } = who;
    Labels { container, id, image, name, namespace, pod }
}

/// When a control group was made: the time of its directory, as cAdvisor has it. The kernel forgets that when it is short of memory
/// and gives the directory a new one; then its first process is older.
fn started(host: &Host, directory: &Path, pid: Option<u32>, booted: Option<i64>) -> Option<i64> {
    /// Both are rounded, and the process comes after the directory.
    const SURELY_OLDER: i64 = 2;
    let made = host::Stamp::of(directory).ok().map(|stamp| stamp.modified_seconds());
    let begun = pid.filter(|pid| *pid > 0).and_then(|pid| {
        let text = host::read_text(&host.proc(&format!("{pid}/stat"))).ok()?;
        booted?.checked_add(parse_start_time(&text)?)
    });
    match (made, begun) {
        (Some(made), Some(begun)) if begun + SURELY_OLDER < made => Some(begun),
        (None, begun) => begun,
        (made, _) => made,
    }
}

/// "btime 1418183276" in `/proc/stat`.
fn parse_boot_time(text: &str) -> Option<i64> {
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// The 22nd word of `/proc/PID/stat` is when the process started, in hundredths of a second since the boot. Before the third is the name,
/// which may have anything in it. In seconds.
fn parse_start_time(text: &str) -> Option<i64> {
    let ticks: i64 = text.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()?;
    Some(ticks / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_a_process_is_the_22nd_word() {
        let rest: String = (3..=52).map(|word| format!(" {}", word * 100)).collect();
        assert_eq!(parse_start_time(&format!("7 (a) b){rest}\n")), Some(22));
        assert_eq!(parse_start_time("7 (a) S 1 2\n"), None);
        assert_eq!(parse_boot_time("cpu 1\nbtime 1418183276\nprocesses 5\n"), Some(1_418_183_276));
    }
}
