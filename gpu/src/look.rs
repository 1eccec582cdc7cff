//! One look at a GPU, or at a part of it: single values in DCGM's units, and which calls failed.

use crate::{
    fields::{Buffer, FieldId, Source},
    nvml::{Bits, Code, Device, FieldValue, Memory, Nvml},
    reader::Errors,
};

const MIB: u64 = 1 << 20;
/// Hotter than any chip: drivers say such numbers instead of an error.
const HOTTEST: i64 = 200;
/// NVML's fields with traffic over NVLink in KiB: sent and received.
pub(crate) const NVLINK: [u32; 2] = [138, 139];
const MEMORY_TEMPERATURE: u32 = 82;
const ENERGY: u32 = 83;
/// Counts of ECC errors: with ECC off some drivers leave the entry as it was, and say that all is well.
const ECC: std::ops::RangeInclusive<u32> = 3..=6;

/// One look at a GPU or an instance: what several fields share is asked once.
pub(crate) struct Look<'a> {
    pub(crate) nvml: &'a Nvml,
    pub(crate) device: Device,
    errors: &'a mut Errors,
    /// Whether anything was answered.
    pub(crate) is_alive: bool,
    /// The last code that was not a mere absence.
    pub(crate) failure: Option<Code>,
    answers: Vec<FieldValue>,
    utilization: Option<Option<(u32, u32)>>,
    memory: Option<Option<Memory>>,
    clock_reasons: Option<Option<u64>>,
}

impl<'a> Look<'a> {
    /// A look at a device; failures are counted.
    pub(crate) fn new(nvml: &'a Nvml, device: Device, errors: &'a mut Errors) -> Self {
        Self {
            nvml,
            device,
            errors,
            is_alive: false,
            failure: None,
            answers: Vec::new(),
            utilization: None,
            memory: None,
            clock_reasons: None,
        }
    }

    /// The answer, if there is one; a failure is noted.
    pub(crate) fn keep<T>(&mut self, call: &'static str, answer: Result<T, Code>) -> Option<T> {
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

    pub(crate) fn is_lost(&self) -> bool {
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

    pub(crate) fn clock_reasons(&mut self) -> Option<u64> {
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
    pub(crate) fn ask_fields(&mut self, wanted: &[FieldId]) {
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

    pub(crate) fn answer(&mut self, id: u32, scope: u32) -> Option<Bits> {
        let answer = self.answers.iter().find(|field| (field.id, field.scope) == (id, scope))?.answer;
        self.keep("nvmlDeviceGetFieldValues", answer)
    }

    /// The value of a field that is nothing but a call.
    pub(crate) fn value(&mut self, source: Source) -> Option<f64> {
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
pub(crate) fn part_of(memory: Memory, part: Buffer) -> Option<f64> {
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
pub(crate) fn number(bits: Bits) -> f64 {
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

#[cfg(test)]
mod tests {
    use super::*;

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
