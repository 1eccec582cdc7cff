//! The series: dcgm-exporter's, and the agent's own about the GPUs.

use std::{collections::BTreeMap, collections::HashMap, time::Instant};

use nodewarden_collectors::{Desc, Samples, samples::FamilyId};

use crate::{
    board::{Board, State, WINDOW},
    counters::{Counter, Counters},
    fields::{Scope, Source},
    holders::{Entity, Holder, Pods, Share, holders},
    protocol::{Identity, Instance, Reading},
    xids::{Bus, text_of},
};

/// How the page is to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Style {
    /// What is shown.
    pub counters: Counters,
    /// The label that has the node's name.
    pub hostname_label: String,
    /// The node's name.
    pub node: String,
    /// Whether values of a whole GPU are said for each of its instances, as dcgm-exporter does.
    pub repeat_for_instances: bool,
    /// Whether they are said for each container that shares it.
    pub repeat_for_pods: bool,
}

static STATE: Desc = Desc::gauge(
    "nodewarden_gpu_collector_state",
    "How the reading of GPUs stands: 1 for the state that it is in.",
    &["state"],
);
static EXPECTED: Desc = Desc::gauge("nodewarden_gpu_expected", "GPUs that the kernel's driver has.", &[]);
static VISIBLE: Desc = Desc::gauge("nodewarden_gpu_visible", "GPUs that were read in the last cycle.", &[]);
static UP: Desc = Desc::gauge(
    "nodewarden_gpu_up",
    "Whether a GPU was read in the last cycle.",
    &["UUID", "gpu", "pci_bus_id"],
);
static LAST_SUCCESS: Desc = Desc::gauge(
    "nodewarden_gpu_last_success_timestamp_seconds",
    "Unix time at which a GPU was last read.",
    &["UUID", "gpu", "pci_bus_id"],
);
static NVML_ERRORS: Desc = Desc::counter(
    "nodewarden_gpu_nvml_errors_total",
    "Calls of NVML that failed; what a GPU does not support is no failure.",
    &["call", "code"],
);
static XIDS: Desc = Desc::counter(
    "nodewarden_gpu_xid_errors_total",
    "XIDs since the agent's start, told by the driver or by the kernel's log, each counted once.",
    &["UUID", "gpu", "pci_bus_id", "xid"],
);
static XID_TIME: Desc = Desc::gauge(
    "nodewarden_gpu_xid_last_timestamp_seconds",
    "Unix time of the last XID of a kind.",
    &["UUID", "gpu", "pci_bus_id", "xid"],
);
static STARTS: Desc = Desc::counter(
    "nodewarden_gpu_helper_starts_total",
    "How often the process that talks to the driver was started.",
    &[],
);
static POD_INFO: Desc = Desc::gauge(
    "nodewarden_gpu_pod_info",
    "Which container holds a GPU or an instance of it, always 1; to be joined with by gpu and GPU_I_ID.",
    &["GPU_I_ID", "UUID", "container", "gpu", "namespace", "pod", "vgpu"],
);
static PROCESS_MEMORY: Desc = Desc::gauge(
    "nodewarden_gpu_process_memory_bytes",
    "Memory of a GPU that the processes of a container use; of those of no pod with empty labels.",
    &["GPU_I_ID", "UUID", "container", "gpu", "namespace", "pod"],
);

/// Reasons of low clocks, by bit.
const CLOCK_EVENTS: [&str; 9] = [
    "gpu_idle",
    "clocks_setting",
    "power_cap",
    "hw_slowdown",
    "sync_boost",
    "sw_thermal",
    "hw_thermal",
    "hw_power_brake",
    "display_clocks",
];

/// How a peer is reached, by NVML's number.
const LINK_STATUS: [&str; 7] = [
    "OK",
    "ChipsetNotSupported",
    "GPUNotSupported",
    "TopologyNotSupported",
    "DisabledByRegKey",
    "NotSupported",
    "Unknown",
];

/// Says everything. Without a driver there is nothing to say.
pub fn say(board: &Board, style: &Style, pods: Option<&dyn Pods>, now: Instant, out: &mut Samples) {
    if board.state == State::Absent {
        return;
    }
    let is_fresh = board.fresh_until.is_some_and(|until| now <= until);
    let nothing = BTreeMap::new();
    let readings = if is_fresh { &board.readings } else { &nothing };
    let devices = pods.map(Pods::devices).unwrap_or_default();
    let shares = holders(devices, &board.gpus, readings);
    let mut page = Page { board, style, now, shares: &shares, families: HashMap::new(), out };
    for gpu in &board.gpus {
        if let Some(reading) = readings.get(&gpu.index) {
            page.gpu(gpu, reading);
        }
    }
    say_own(board, readings, out);
    say_pods(board, readings, &shares, pods, out);
}

struct Page<'a> {
    board: &'a Board,
    style: &'a Style,
    now: Instant,
    shares: &'a BTreeMap<Entity, Vec<Share>>,
    /// By the place of the counter and the names of the labels.
    families: HashMap<(usize, Vec<&'a str>), FamilyId>,
    out: &'a mut Samples,
}

/// A GPU or an instance of it, with the labels of its lines but for those of pods.
struct Line<'a> {
    labels: Vec<(&'a str, String)>,
    /// Whoever holds it.
    shares: &'a [Share],
}

impl<'a> Page<'a> {
    fn gpu(&mut self, gpu: &'a Identity, reading: &'a Reading) {
        let whole = self.line(gpu, None);
        let parts: Vec<(&Instance, Line<'a>)> = reading
            .instances
            .iter()
            .flatten()
            .map(|instance| (instance, self.line(gpu, Some(instance))))
            .collect();
        let style = self.style;
        let repeats = style.repeat_for_instances && !parts.is_empty();
        for (at, counter) in style.counters.metrics.iter().enumerate() {
            let field = counter.field.field();
            let values = self.values(gpu, counter, None, &reading.values, reading);
            if repeats && field.scope == Scope::Gpu {
                for (_, line) in &parts {
                    self.say(at, line, &values);
                }
            } else if !repeats || field.scope == Scope::Gpu {
                self.say(at, &whole, &values);
            }
            if field.scope == Scope::Instance {
                for (instance, line) in &parts {
                    let values = self.values(gpu, counter, Some(instance.id), &instance.values, reading);
                    self.say(at, line, &values);
                }
            }
        }
    }

    /// The lines of a metric: further labels, and the value.
    fn values(
        &self,
        gpu: &Identity,
        counter: &Counter,
        instance: Option<u32>,
        read: &[(crate::fields::FieldId, f64)],
        reading: &Reading,
    ) -> Vec<(Vec<(&'static str, String)>, f64)> {
        let bus = Bus::parse(&gpu.bus_id);
        let window = || ("window_size_in_ms", WINDOW.as_millis().to_string());
        match counter.field.field().source {
            Source::LastXid => {
                let code = bus.map(|bus| self.board.xids.last(bus, instance)).unwrap_or_default();
                let labels = vec![("err_code", code.to_string()), ("err_msg", text_of(code).to_owned())];
                vec![(labels, code as f64)]
            }
            Source::XidWindow => {
                let Some(bus) = bus else { return Vec::new() };
                let counts = self.board.xids.recent(bus, instance, WINDOW, self.now);
                if counts.is_empty() {
                    return vec![(vec![window()], 0.0)];
                }
                let line =
                    |(code, count): (u64, u64)| (vec![window(), ("xid", code.to_string())], count as f64);
                counts.into_iter().map(line).collect()
            }
            Source::ClockWindow => {
                let counts = self.board.clock_events(gpu.index, self.now);
                let named = counts.into_iter().flat_map(|counts| CLOCK_EVENTS.into_iter().zip(counts));
                named
                    .map(|(event, count)| (vec![("clock_event", event.to_owned()), window()], count as f64))
                    .collect()
            }
            Source::Peers => {
                let line = |(peer, status): &(u32, u32)| {
                    let word = LINK_STATUS.get(*status as usize).copied().unwrap_or("Unknown");
                    let labels = vec![("link_status", word.to_owned()), ("peer_gpu", peer.to_string())];
                    (labels, f64::from(*status))
                };
                reading.peers.iter().map(line).collect()
            }
            _ => {
                let found = read.iter().find(|(field, _)| *field == counter.field);
                found.map(|(_, value)| (Vec::new(), *value)).into_iter().collect()
            }
        }
    }

    fn line(&self, gpu: &'a Identity, instance: Option<&Instance>) -> Line<'a> {
        let style = self.style;
        let mut labels = vec![
            ("gpu", gpu.index.to_string()),
            ("UUID", gpu.uuid.clone()),
            ("pci_bus_id", gpu.bus_id.clone()),
            ("device", format!("nvidia{}", gpu.index)),
            ("modelName", gpu.model.clone()),
            (style.hostname_label.as_str(), style.node.clone()),
        ];
        let wanted = |name: &&str| gpu.labels.iter().find(|(known, _)| known == name);
        labels.extend(
            style
                .counters
                .labels
                .iter()
                .filter_map(|name| wanted(name).map(|(_, text)| (*name, text.clone()))),
        );
        if let Some(instance) = instance {
            labels.push(("GPU_I_PROFILE", instance.profile.clone()));
            labels.push(("GPU_I_ID", instance.id.to_string()));
        }
        let entity = (gpu.index, instance.map(|instance| instance.id));
        let shares = self.shares.get(&entity).map_or(&[][..], Vec::as_slice);
        Line { labels, shares }
    }

    fn say(&mut self, at: usize, line: &Line<'a>, values: &[(Vec<(&'static str, String)>, f64)]) {
        for (extra, value) in values {
            let labels: Vec<(&'a str, &str)> = line
                .labels
                .iter()
                .map(|(name, text)| (*name, text.as_str()))
                .chain(extra.iter().map(|(name, text)| (*name, text.as_str())))
                .collect();
            match line.shares {
                // One container has it for itself: its several processes share nothing with others.
                shares
                    if shares.iter().all(|share| share.holder == shares[0].holder) && !shares.is_empty() =>
                {
                    self.push(at, with_holder(&labels, &shares[0].holder, None), *value);
                }
                shares if self.style.repeat_for_pods && !shares.is_empty() => {
                    for share in shares {
                        let labels = with_holder(&labels, &share.holder, share.replica.as_deref());
                        self.push(at, labels, *value);
                    }
                }
                _ => self.push(at, labels, *value),
            }
        }
    }

    fn push(&mut self, at: usize, mut labels: Vec<(&'a str, &str)>, value: f64) {
        labels.sort_unstable();
        let (names, texts): (Vec<&'a str>, Vec<&str>) = labels.into_iter().unzip();
        let Counter { field, kind, help } = &self.style.counters.metrics[at];
        let out = &mut *self.out;
        let make =
            |names: &[&str], out: &mut Samples| out.dynamic_family(field.field().name, help, *kind, names);
        let family = match self.families.get(&(at, names.clone())) {
            Some(family) => *family,
            None => {
                let family = make(&names, out);
                self.families.insert((at, names), family);
                family
            }
        };
        self.out.push_to(family, &texts, value);
    }
}

fn with_holder<'a, 'b>(
    labels: &[(&'a str, &'b str)],
    holder: &'b Holder,
    replica: Option<&'b str>,
) -> Vec<(&'a str, &'b str)> {
    let mut labels = labels.to_vec();
    labels.extend([
        ("container", holder.container.as_str()),
        ("namespace", holder.namespace.as_str()),
        ("pod", holder.pod.as_str()),
    ]);
    labels.extend(replica.map(|replica| ("vgpu", replica)));
    labels
}

fn say_own(board: &Board, readings: &BTreeMap<u32, Reading>, out: &mut Samples) {
    for state in State::ALL {
        out.push(&STATE, &[state.as_str()], f64::from(u8::from(state == board.state)));
    }
    out.push(&EXPECTED, &[], board.expected.len() as f64);
    out.push(&VISIBLE, &[], readings.len() as f64);
    out.push(&STARTS, &[], board.starts as f64);
    for gpu in &board.gpus {
        let index = gpu.index.to_string();
        let labels = [gpu.uuid.as_str(), &index, &gpu.bus_id];
        out.push(&UP, &labels, f64::from(u8::from(readings.contains_key(&gpu.index))));
        if let Some(time) = board.read_at.get(&gpu.index) {
            out.push(&LAST_SUCCESS, &labels, *time);
        }
    }
    for ((call, code), count) in &board.errors {
        out.push(&NVML_ERRORS, &[call, &code.0.to_string()], *count as f64);
    }
    for (bus, code, count) in board.xids.counts() {
        let gpu = board.gpu_at(bus);
        let (uuid, index) =
            gpu.map_or_else(Default::default, |gpu| (gpu.uuid.as_str(), gpu.index.to_string()));
        let (place, code) = (bus.to_string(), code.to_string());
        let labels = [uuid, &index, &place, &code];
        out.push(&XIDS, &labels, count.total() as f64);
        out.push(&XID_TIME, &labels, count.last_seen);
    }
}

fn say_pods(
    board: &Board,
    readings: &BTreeMap<u32, Reading>,
    shares: &BTreeMap<Entity, Vec<Share>>,
    pods: Option<&dyn Pods>,
    out: &mut Samples,
) {
    let number = |instance: Option<u32>| instance.map_or_else(String::new, |instance| instance.to_string());
    for ((index, instance), shares) in shares {
        let Some(gpu) = board.gpus.iter().find(|gpu| gpu.index == *index) else { continue };
        for Share { holder, replica } in shares {
            let Holder { namespace, pod, container } = holder;
            let replica = replica.as_deref().unwrap_or_default();
            let (instance, index) = (number(*instance), index.to_string());
            out.push(&POD_INFO, &[&instance, &gpu.uuid, container, &index, namespace, pod, replica], 1.0);
        }
    }
    for gpu in &board.gpus {
        let Some(reading) = readings.get(&gpu.index) else { continue };
        let parts = reading.instances.iter().flatten().map(|part| (Some(part.id), &part.processes));
        for (instance, processes) in std::iter::once((None, &reading.processes)).chain(parts) {
            let mut used: BTreeMap<Holder, u64> = BTreeMap::new();
            for (pid, bytes) in processes {
                let holder = pods.and_then(|pods| pods.of_process(*pid)).unwrap_or_default();
                *used.entry(holder).or_default() += bytes;
            }
            let (instance, index) = (number(instance), gpu.index.to_string());
            for (Holder { namespace, pod, container }, bytes) in used {
                let labels = [&instance, &gpu.uuid, &container, &index, &namespace, &pod].map(String::as_str);
                out.push(&PROCESS_MEMORY, &labels, bytes as f64);
            }
        }
    }
}

#[cfg(test)]
mod tests;
