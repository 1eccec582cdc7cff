//! The values of one GPU through NVML, in DCGM's units.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    fields::{Buffer, FieldId, Scope, Source},
    nvml::{Bits, Code, Device, FieldValue, GpmSample, Memory, Nvml, Process},
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

const MIB: u64 = 1 << 20;
/// Hotter than any chip: drivers say such numbers instead of an error.
const HOTTEST: i64 = 200;
/// NVML's fields with traffic over NVLink in KiB: sent and received.
const NVLINK: [u32; 2] = [138, 139];
const MEMORY_TEMPERATURE: u32 = 82;
const ENERGY: u32 = 83;
/// Counts of ECC errors: with ECC off some drivers leave the entry as it was, and say that all is well.
const ECC: std::ops::RangeInclusive<u32> = 3..=6;
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

/// One look at a GPU or an instance: what several fields share is asked once.
struct Look<'a> {
    nvml: &'a Nvml,
    device: Device,
    errors: &'a mut Errors,
    /// Whether anything was answered.
    is_alive: bool,
    /// The last code that was not a mere absence.
    failure: Option<Code>,
    answers: Vec<FieldValue>,
    utilization: Option<Option<(u32, u32)>>,
    memory: Option<Option<Memory>>,
    clock_reasons: Option<Option<u64>>,
}

impl Look<'_> {
    /// The answer, if there is one; a failure is noted.
    fn keep<T>(&mut self, call: &'static str, answer: Result<T, Code>) -> Option<T> {
        match answer {
            Ok(value) => {
                self.is_alive = true;
                Some(value)
            }
            Err(code) => {
                if code.is_absence() {
                    // An answer too.
                    self.is_alive |= code == Code::NOT_SUPPORTED;
                } else {
                    *self.errors.entry((call, code)).or_default() += 1;
                    self.failure = Some(code);
                }
                None
            }
        }
    }

    fn is_lost(&self) -> bool {
        self.failure == Some(Code::GPU_IS_LOST)
    }

    fn utilization(&mut self) -> Option<(u32, u32)> {
        if self.utilization.is_none() {
            let answer = self.nvml.utilization(self.device);
            self.utilization = Some(self.keep("nvmlDeviceGetUtilizationRates", answer));
        }
        self.utilization.flatten()
    }

    fn memory(&mut self) -> Option<Memory> {
        if self.memory.is_none() {
            let answer = self.nvml.memory(self.device);
            self.memory = Some(self.keep("nvmlDeviceGetMemoryInfo", answer));
        }
        self.memory.flatten()
    }

    fn clock_reasons(&mut self) -> Option<u64> {
        if self.clock_reasons.is_none() {
            let answer = match self.nvml.clock_reasons_new(self.device) {
                Err(Code::FUNCTION_NOT_FOUND) => self.nvml.clock_reasons_old(self.device),
                other => other,
            };
            self.clock_reasons = Some(self.keep("nvmlDeviceGetCurrentClocksEventReasons", answer));
        }
        self.clock_reasons.flatten()
    }

    /// Asks for all fields at once.
    fn ask_fields(&mut self, wanted: &[FieldId]) {
        let mut asked = Vec::new();
        for id in wanted {
            let mut ask = |id, scope| {
                let field = FieldValue { id, scope, answer: Err(Code::NOT_SUPPORTED) };
                if !asked.contains(&field) {
                    asked.push(field);
                }
            };
            match id.field().source {
                Source::Field(field, scope) => ask(field, scope),
                Source::PowerField(field) => ask(field, 0),
                Source::MemoryTemperature => ask(MEMORY_TEMPERATURE, 0),
                Source::Energy => ask(ENERGY, 0),
                Source::NvLink(scope) => NVLINK.into_iter().for_each(|field| ask(field, scope)),
                _ => {}
            }
        }
        if !asked.is_empty() {
            let answer = self.nvml.field_values(self.device, &mut asked);
            if self.keep("nvmlDeviceGetFieldValues", answer).is_some() {
                self.answers = asked;
            }
        }
    }

    fn answer(&mut self, id: u32, scope: u32) -> Option<Bits> {
        let answer = self.answers.iter().find(|field| (field.id, field.scope) == (id, scope))?.answer;
        self.keep("nvmlDeviceGetFieldValues", answer)
    }

    /// The value of a field that is nothing but a call.
    fn value(&mut self, source: Source) -> Option<f64> {
        let (nvml, device) = (self.nvml, self.device);
        let watts = |milliwatts: u32| f64::from(milliwatts) / 1000.0;
        match source {
            Source::Clock(clock) => {
                self.keep("nvmlDeviceGetClockInfo", nvml.clock(device, clock)).map(f64::from)
            }
            Source::MaxClock(clock) => {
                self.keep("nvmlDeviceGetMaxClockInfo", nvml.max_clock(device, clock)).map(f64::from)
            }
            Source::Temperature => {
                let degrees = self.keep("nvmlDeviceGetTemperature", nvml.temperature(device));
                degrees.filter(|degrees| *degrees <= HOTTEST).map(|degrees| degrees as f64)
            }
            Source::MemoryTemperature => {
                // Some drivers call it a double.
                let degrees = self.answer(MEMORY_TEMPERATURE, 0)?.raw as u32;
                (i64::from(degrees) <= HOTTEST).then(|| f64::from(degrees))
            }
            Source::Power => self.keep("nvmlDeviceGetPowerUsage", nvml.power_usage(device)).map(watts),
            Source::PowerLimit => {
                self.keep("nvmlDeviceGetPowerManagementLimit", nvml.power_limit(device)).map(watts)
            }
            Source::EnforcedPowerLimit => {
                self.keep("nvmlDeviceGetEnforcedPowerLimit", nvml.enforced_power_limit(device)).map(watts)
            }
            Source::Energy => match self.answer(ENERGY, 0) {
                Some(bits) => Some(bits.raw as f64),
                None => self
                    .keep("nvmlDeviceGetTotalEnergyConsumption", nvml.energy(device))
                    .map(|energy| energy as f64),
            },
            Source::PcieReplays => {
                self.keep("nvmlDeviceGetPcieReplayCounter", nvml.pcie_replays(device)).map(f64::from)
            }
            Source::PcieGeneration => {
                self.keep("nvmlDeviceGetCurrPcieLinkGeneration", nvml.pcie_generation(device)).map(f64::from)
            }
            Source::PcieWidth => {
                self.keep("nvmlDeviceGetCurrPcieLinkWidth", nvml.pcie_width(device)).map(f64::from)
            }
            Source::GpuUtilization => self.utilization().map(|(gpu, _)| f64::from(gpu)),
            Source::MemoryUtilization => self.utilization().map(|(_, memory)| f64::from(memory)),
            Source::Encoder => {
                self.keep("nvmlDeviceGetEncoderUtilization", nvml.encoder(device)).map(f64::from)
            }
            Source::Decoder => {
                self.keep("nvmlDeviceGetDecoderUtilization", nvml.decoder(device)).map(f64::from)
            }
            Source::Fan => self.keep("nvmlDeviceGetFanSpeed", nvml.fan_speed(device)).map(f64::from),
            Source::PerformanceState => {
                let state = self.keep("nvmlDeviceGetPerformanceState", nvml.performance_state(device));
                // 32 is "unknown".
                state.filter(|state| *state < 32).map(f64::from)
            }
            Source::ClockReasons => self.clock_reasons().map(|bits| bits as f64),
            Source::Memory(part) => self.memory().and_then(|memory| part_of(memory, part)),
            Source::License => {
                let is_licensed = self.keep("nvmlDeviceGetGridLicensableFeatures", nvml.is_licensed(device));
                is_licensed.map(|is_licensed| f64::from(u8::from(is_licensed)))
            }
            Source::Field(id, scope) => {
                let bits = self.answer(id, scope)?;
                (!(ECC.contains(&id) && bits.is_untouched)).then(|| number(bits))
            }
            Source::PowerField(id) => self.answer(id, 0).map(|bits| f64::from(bits.raw as u32) / 1000.0),
            Source::RetiredPages(cause) => {
                self.keep("nvmlDeviceGetRetiredPages", nvml.retired_pages(device, cause)).map(f64::from)
            }
            // Made of more than one call, or of events.
            Source::NvLink(_)
            | Source::Profiling(..)
            | Source::LastXid
            | Source::XidWindow
            | Source::ClockWindow
            | Source::Peers => None,
        }
    }
}

/// In MiB, without fractions, as DCGM has it.
fn part_of(memory: Memory, part: Buffer) -> Option<f64> {
    let mib = |bytes: u64| (bytes / MIB) as f64;
    match part {
        Buffer::Free => Some(mib(memory.free)),
        Buffer::Used => Some(mib(memory.used)),
        Buffer::Reserved => memory.reserved.map(mib),
        Buffer::Total => Some(mib(memory.total)),
        Buffer::UsedRatio => {
            let usable = memory.total.saturating_sub(memory.reserved.unwrap_or_default());
            (usable > 0).then(|| memory.used as f64 / usable as f64)
        }
    }
}

/// None of the fields that are asked for is a double: where a driver says so, it is a whole number all the same.
fn number(bits: Bits) -> f64 {
    const UNSIGNED_INT: u32 = 1;
    const SIGNED_LONG: u32 = 4;
    const SIGNED_INT: u32 = 5;
    const UNSIGNED_SHORT: u32 = 6;
    match bits.tag {
        UNSIGNED_INT => f64::from(bits.raw as u32),
        SIGNED_LONG => bits.raw.cast_signed() as f64,
        SIGNED_INT => f64::from((bits.raw as u32).cast_signed()),
        UNSIGNED_SHORT => f64::from(bits.raw as u16),
        _ => bits.raw as f64,
    }
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
        let mut look = Look {
            nvml: &nvml,
            device,
            errors: &mut errors,
            is_alive: false,
            failure: None,
            answers: Vec::new(),
            utilization: None,
            memory: None,
            clock_reasons: None,
        };
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

    #[test]
    fn tags_of_drivers_are_taken_with_care() {
        let bits = |raw, tag| Bits { raw, tag, is_untouched: false };
        assert_eq!(number(bits(40, 0)), 40.0);
        assert_eq!(number(bits(0xffff_ffff_0000_0007, 1)), 7.0);
        assert_eq!(number(bits(u64::MAX, 4)), -1.0);
        assert_eq!(number(bits(0xffff_fffe, 5)), -2.0);
        assert_eq!(number(bits(0x1_0003, 6)), 3.0);
        assert_eq!(number(bits(9, 3)), 9.0);
    }

    #[test]
    fn the_frame_buffer_is_in_whole_mebibytes() {
        let memory = Memory { total: 10 * MIB, reserved: Some(2 * MIB), free: 3 * MIB - 1, used: 4 * MIB };
        assert_eq!(part_of(memory, Buffer::Free), Some(2.0));
        assert_eq!(part_of(memory, Buffer::UsedRatio), Some(0.5));
        assert_eq!(part_of(Memory { reserved: None, ..memory }, Buffer::Reserved), None);
    }
}
