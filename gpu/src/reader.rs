//! The values of one GPU through NVML, in DCGM's units.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    fields::{FieldId, Scope, Source},
    look::{Look, NVLINK, part_of},
    nvml::{Code, Device, GpmSample, Nvml, Process},
    protocol::{Identity, Instance, Reading},
};

/// A GPU that can be read. What is behind it may hang, or be gone.
pub trait Gpu: Send {
    /// Its values now, or why there are none.
    fn read(&mut self) -> Result<Reading, Code>;

    /// Calls that failed since this was asked last, by call and code.
    fn take_errors(&mut self) -> Errors;
}

/// How often calls failed.
pub type Errors = BTreeMap<(&'static str, Code), u64>;

/// Profiling counters renew themselves ten times a second; an interval needs some of that.
const SHORTEST_WINDOW: Duration = Duration::from_millis(500);

/// A GPU through NVML.
pub struct Reader {
    nvml: Arc<Nvml>,
    identity: Identity,
    /// `None` once it was lost.
    device: Option<Device>,
    /// The others.
    peers: Vec<(u32, Device)>,
    wanted: Vec<FieldId>,
    /// Beyond this a window of the profiling metrics tells of a stall, not of now.
    longest_window: Duration,
    has_gpm: Option<bool>,
    windows: BTreeMap<Option<u32>, Window>,
    /// What was sent and received over NVLink, by scope.
    traffic: BTreeMap<u32, (Instant, u64)>,
    errors: Errors,
}

/// The profiling samples of a GPU or of an instance, and what they said.
struct Window {
    /// The one before, and a place for the next one.
    samples: [GpmSample; 2],
    taken: Option<Instant>,
    values: Vec<(FieldId, f64)>,
}

impl Reader {
    /// Reads what is wanted of a GPU; `peers` are the other ones.
    pub fn new(
        nvml: Arc<Nvml>,
        identity: Identity,
        device: Device,
        peers: Vec<(u32, Device)>,
        wanted: Vec<FieldId>,
        interval: Duration,
    ) -> Self {
        Self {
            nvml,
            identity,
            device: Some(device),
            peers,
            wanted,
            longest_window: 5 * interval / 2 + SHORTEST_WINDOW,
            has_gpm: None,
            windows: BTreeMap::new(),
            traffic: BTreeMap::new(),
            errors: Errors::new(),
        }
    }

    /// Finds a lost GPU again by its UUID: others may have taken its number.
    fn find(&mut self) -> Result<Device, Code> {
        if let Some(device) = self.device {
            return Ok(device);
        }
        let is_it = |device: &Device| self.nvml.uuid(*device).is_ok_and(|uuid| uuid == self.identity.uuid);
        let count = self.nvml.device_count()?;
        let found = (0..count).find_map(|index| self.nvml.device(index).ok().filter(is_it));
        self.device = found;
        found.ok_or(Code::GPU_IS_LOST)
    }

    fn wants(&self, is_it: impl Fn(Source) -> bool) -> bool {
        self.wanted.iter().any(|id| is_it(id.field().source))
    }

    fn look(&mut self, device: Device) -> Result<Reading, Code> {
        let nvml = Arc::clone(&self.nvml);
        let mut errors = std::mem::take(&mut self.errors);
        let mut look = Look::new(&nvml, device, &mut errors);
        let reading = self.read_with(&mut look);
        let (is_alive, is_lost, failure) = (look.is_alive, look.is_lost(), look.failure);
        self.errors = errors;
        match failure {
            Some(code) if is_lost || !is_alive => Err(code),
            _ => Ok(reading),
        }
    }

    fn read_with(&mut self, look: &mut Look<'_>) -> Reading {
        let instances = self.instances(look);
        let is_divided = instances.is_some();
        let mut reading = Reading::default();
        look.ask_fields(&self.wanted);
        for &id in &self.wanted {
            if look.is_lost() {
                return reading;
            }
            let field = id.field();
            // Of a divided GPU the parts have it, and asking for the whole wants privileges.
            if is_divided && field.scope == Scope::Instance {
                continue;
            }
            let value = match field.source {
                Source::NvLink(scope) => bandwidth(look, scope, &mut self.traffic),
                source => look.value(source),
            };
            reading.values.extend(value.map(|value| (id, value)));
        }
        if self.wants(|source| source == Source::ClockWindow) {
            reading.clock_reasons = look.clock_reasons();
        }
        if self.wants(|source| source == Source::Peers) {
            for &(peer, device) in &self.peers {
                let status = self.nvml.peer_status(look.device, device);
                reading
                    .peers
                    .extend(look.keep("nvmlDeviceGetP2PStatus", status).map(|status| (peer, status)));
            }
        }
        let parts = instances.as_ref().map_or(&[][..], Vec::as_slice);
        self.profile(look, parts, &mut reading.values);
        match instances {
            Some(parts) => {
                reading.instances = Some(parts.into_iter().map(|part| self.read_part(look, part)).collect());
            }
            None => reading.processes = processes(look, look.device),
        }
        reading
    }

    /// Its GPU instances when it is divided.
    fn instances(&self, look: &mut Look<'_>) -> Option<Vec<Part>> {
        let is_mig = self.nvml.is_mig(look.device);
        if !look.keep("nvmlDeviceGetMigMode", is_mig)? {
            return None;
        }
        let limit = self.nvml.mig_device_limit(look.device);
        let limit = look.keep("nvmlDeviceGetMaxMigDeviceCount", limit)?;
        let mut parts: BTreeMap<u32, Part> = BTreeMap::new();
        for index in 0..limit {
            let device = match self.nvml.mig_device(look.device, index) {
                Ok(device) => device,
                // A hole: numbers stay when one in the middle is removed.
                Err(Code::NOT_FOUND | Code::INVALID_ARGUMENT) => continue,
                Err(code) => {
                    look.keep::<()>("nvmlDeviceGetMigDeviceHandleByIndex", Err(code));
                    continue;
                }
            };
            let id = self.nvml.gpu_instance(device);
            let Some(id) = look.keep("nvmlDeviceGetGpuInstanceId", id) else { continue };
            let name = self.nvml.name(device).unwrap_or_default();
            // Several compute instances may share one.
            let part = parts.entry(id).or_insert_with(|| Part {
                id,
                profile: profile_of(&name),
                uuids: Vec::new(),
                devices: Vec::new(),
            });
            part.uuids.extend(self.nvml.uuid(device).ok());
            part.devices.push(device);
        }
        Some(parts.into_values().collect())
    }

    fn read_part(&mut self, look: &mut Look<'_>, part: Part) -> Instance {
        let mut values = Vec::new();
        for &id in &self.wanted {
            if let (Source::Memory(buffer), Some(device)) = (id.field().source, part.devices.first()) {
                let memory = self.nvml.memory(*device);
                let value =
                    look.keep("nvmlDeviceGetMemoryInfo", memory).and_then(|memory| part_of(memory, buffer));
                values.extend(value.map(|value| (id, value)));
            }
        }
        if let Some(window) = self.windows.get(&Some(part.id)) {
            values.extend(window.values.iter().copied());
        }
        let mut used = BTreeMap::new();
        for device in &part.devices {
            used.extend(processes(look, *device));
        }
        Instance {
            id: part.id,
            profile: part.profile,
            uuids: part.uuids,
            values,
            processes: used.into_iter().collect(),
        }
    }

    /// The profiling metrics since the sample before, of the GPU and of each instance.
    fn profile(&mut self, look: &mut Look<'_>, parts: &[Part], values: &mut Vec<(FieldId, f64)>) {
        if !self.wants(|source| matches!(source, Source::Profiling(..))) {
            return;
        }
        if self.has_gpm.is_none() {
            let support = self.nvml.has_gpm(look.device);
            self.has_gpm = look.keep(
                "nvmlGpmQueryDeviceSupport",
                support.or_else(|code| if code.is_absence() { Ok(false) } else { Err(code) }),
            );
        }
        if self.has_gpm != Some(true) {
            return;
        }
        let entities: Vec<Option<u32>> =
            std::iter::once(None).chain(parts.iter().map(|part| Some(part.id))).collect();
        let gone: Vec<Option<u32>> =
            self.windows.keys().copied().filter(|entity| !entities.contains(entity)).collect();
        for entity in gone {
            self.close(entity);
        }
        for entity in entities {
            let scoped = |scope| match (entity, parts.is_empty()) {
                // The whole of a GPU that is not divided has everything.
                (None, true) => true,
                (None, false) => scope == Scope::Gpu,
                (Some(_), _) => scope == Scope::Instance,
            };
            let wanted: Vec<(FieldId, u32, f64)> = self
                .wanted
                .iter()
                .filter(|id| scoped(id.field().scope))
                .filter_map(|id| match id.field().source {
                    Source::Profiling(metric, factor) => Some((*id, metric, factor)),
                    _ => None,
                })
                .collect();
            if !wanted.is_empty() {
                self.sample(look, entity, &wanted);
            }
        }
        if let Some(window) = self.windows.get(&None) {
            values.extend(window.values.iter().copied());
        }
    }

    fn sample(&mut self, look: &mut Look<'_>, entity: Option<u32>, wanted: &[(FieldId, u32, f64)]) {
        if !self.windows.contains_key(&entity) {
            let samples = self.nvml.gpm_sample().and_then(|first| match self.nvml.gpm_sample() {
                Ok(second) => Ok([first, second]),
                Err(code) => {
                    self.nvml.free_gpm_sample(first);
                    Err(code)
                }
            });
            let Some(samples) = look.keep("nvmlGpmSampleAlloc", samples) else { return };
            self.windows.insert(entity, Window { samples, taken: None, values: Vec::new() });
        }
        let Some(window) = self.windows.get_mut(&entity) else { return };
        let now = Instant::now();
        let age = window.taken.map(|taken| now - taken);
        if age.is_some_and(|age| age < SHORTEST_WINDOW) {
            return;
        }
        window.values.clear();
        let [earlier, later] = &mut window.samples;
        let taken = self.nvml.take_gpm_sample(look.device, entity, later);
        if look.keep("nvmlGpmSampleGet", taken).is_none() {
            window.taken = None;
            return;
        }
        if age.is_some_and(|age| age <= self.longest_window) {
            let metrics: Vec<u32> = wanted.iter().map(|(_, metric, _)| *metric).collect();
            let answers = self.nvml.gpm_metrics(earlier, later, &metrics);
            for (answer, (id, _, factor)) in
                look.keep("nvmlGpmMetricsGet", answers).unwrap_or_default().into_iter().zip(wanted)
            {
                let value = look.keep("nvmlGpmMetricsGet", answer).filter(|value| value.is_finite());
                window.values.extend(value.map(|value| (*id, scaled(value, *factor))));
            }
        }
        window.samples.swap(0, 1);
        window.taken = Some(now);
    }

    fn close(&mut self, entity: Option<u32>) {
        if let Some(window) = self.windows.remove(&entity) {
            window.samples.into_iter().for_each(|sample| self.nvml.free_gpm_sample(sample));
        }
    }
}

/// A part of a divided GPU.
struct Part {
    id: u32,
    profile: String,
    uuids: Vec<String>,
    devices: Vec<Device>,
}

/// Percents become ratios; rates in bytes have no fractions.
fn scaled(value: f64, factor: f64) -> f64 {
    if factor > 1.0 { (value * factor).trunc() } else { value * factor }
}

/// `NVIDIA H200 MIG 1c.3g.71gb` is of the profile `3g.71gb`.
fn profile_of(name: &str) -> String {
    let profile = name.rsplit_once("MIG ").map_or(name, |(_, profile)| profile);
    let part = profile.split_once('.').filter(|(compute, _)| {
        compute.strip_suffix('c').is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
    });
    part.map_or(profile, |(_, profile)| profile).to_owned()
}

/// Traffic over NVLink in both directions since the look before, in DCGM's MB/s; 0 at the first.
fn bandwidth(look: &mut Look<'_>, scope: u32, traffic: &mut BTreeMap<u32, (Instant, u64)>) -> Option<f64> {
    let [sent, received] = NVLINK.map(|field| look.answer(field, scope));
    let total = sent?.raw.wrapping_add(received?.raw);
    let now = Instant::now();
    let before = traffic.insert(scope, (now, total));
    let rate = before.map(|(then, before)| {
        // The counters start again with the driver.
        let kib = total.saturating_sub(before);
        kib as f64 / (now - then).as_secs_f64().max(0.001) / 1000.0
    });
    Some(rate.unwrap_or_default().trunc())
}

/// Bytes by process, of those that compute and those that draw.
fn processes(look: &mut Look<'_>, device: Device) -> Vec<(u32, u64)> {
    let (compute, graphics) = (look.nvml.compute_processes(device), look.nvml.graphics_processes(device));
    let compute = look.keep("nvmlDeviceGetComputeRunningProcesses", compute).unwrap_or_default();
    let graphics = look.keep("nvmlDeviceGetGraphicsRunningProcesses", graphics).unwrap_or_default();
    let known = |process: &Process| Some((process.pid, process.memory?));
    // One that does both is in both lists, with the same number.
    let by_pid: BTreeMap<u32, u64> = compute.iter().chain(&graphics).filter_map(known).collect();
    by_pid.into_iter().collect()
}

impl Gpu for Reader {
    fn read(&mut self) -> Result<Reading, Code> {
        let device = self.find()?;
        let reading = self.look(device);
        if reading.is_err() {
            // A handle of before may name nothing any more, and samples of before say nothing of now.
            self.device = None;
            self.traffic.clear();
            for window in self.windows.values_mut() {
                (window.taken, window.values) = (None, Vec::new());
            }
        }
        reading
    }

    fn take_errors(&mut self) -> Errors {
        std::mem::take(&mut self.errors)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        for entity in self.windows.keys().copied().collect::<Vec<_>>() {
            self.close(entity);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_cut_out_of_names() {
        for (name, profile) in [
            ("NVIDIA H200 MIG 1c.3g.71gb", "3g.71gb"),
            ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "1g.5gb"),
            ("NVIDIA H100 MIG 1g.10gb+me", "1g.10gb+me"),
            ("something", "something"),
        ] {
            assert_eq!(profile_of(name), profile, "{name}");
        }
    }
}
