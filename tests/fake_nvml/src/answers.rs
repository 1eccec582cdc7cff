//! What a GPU answers unless the state says otherwise: an idle H200, by public captures.

use std::{
    ffi::{c_uint, c_void},
    ptr,
};

use crate::{NOT_SUPPORTED, SUCCESS, layout::FieldValue, state::State};

const MIB: u64 = 1 << 20;

/// A GPU, or a MIG device of it.
pub struct Target {
    pub gpu: c_uint,
    pub mig: Option<c_uint>,
}

impl Target {
    pub fn handle(&self) -> *mut c_void {
        let mig = self.mig.map_or(0, |mig| mig as usize + 1);
        ptr::without_provenance_mut(0x10_0000 + 0x100 * self.gpu as usize + mig)
    }

    pub fn of(handle: *mut c_void) -> Option<Self> {
        let number = handle.addr().checked_sub(0x10_0000).filter(|number| *number < 0x1_0000)?;
        let mig = (number % 0x100).checked_sub(1).map(|mig| mig as c_uint);
        Some(Self { gpu: (number / 0x100) as c_uint, mig })
    }

    /// How keys about it begin.
    pub fn name(&self) -> String {
        self.mig.map_or_else(|| self.gpu.to_string(), |mig| format!("{}.mig{mig}", self.gpu))
    }

    pub fn uuid(&self, _state: &State) -> String {
        match self.mig {
            Some(mig) => format!("MIG-0000000{}-0000-0000-0000-00000000000{mig}", self.gpu),
            None => format!("GPU-0000000{}-1111-2222-3333-444444444444", self.gpu),
        }
    }

    pub fn product(&self, state: &State) -> String {
        match self.mig {
            Some(_) => {
                let profile = state.get(&format!("{}.profile", self.name())).unwrap_or("1g.18gb");
                format!("NVIDIA H200 MIG {profile}")
            }
            None => "NVIDIA H200".into(),
        }
    }

    pub fn bus(&self) -> c_uint {
        0x1b + self.gpu * 0x10
    }

    pub fn bus_id(&self) -> String {
        format!("00000000:{:02X}:00.0", self.bus())
    }

    /// All, the driver's own, and what is in use, in bytes.
    pub fn memory(&self, state: &State) -> [u64; 3] {
        let key = |what| state.number(&format!("{}.{what}", self.name()));
        let whole = if self.mig.is_some() { [16384, 100, 12] } else { [143_771, 614, 4] };
        let names = ["total", "reserved", "used"];
        let mut memory = whole;
        for (part, name) in memory.iter_mut().zip(names) {
            *part = key(name).unwrap_or(*part) * MIB;
        }
        memory
    }
}

/// The number that a function answers.
pub fn number(state: &State, target: &Target, name: &str) -> Result<u64, c_uint> {
    let key = format!("{}.{name}", target.name());
    if let Some(code) = state.number(&format!("{key}!")) {
        return Err(code as c_uint);
    }
    if let Some(number) = state.number(&key) {
        return Ok(number);
    }
    let is_mig = state.is_on(&format!("{}.nvmlDeviceGetMigMode", target.gpu));
    match name {
        "nvmlDeviceGetClockInfo.1" => Ok(345),
        "nvmlDeviceGetClockInfo.2" => Ok(3201),
        "nvmlDeviceGetClockInfo.3" => Ok(1095),
        "nvmlDeviceGetMaxClockInfo.1" => Ok(1980),
        "nvmlDeviceGetMaxClockInfo.2" => Ok(3201),
        "nvmlDeviceGetTemperature.0" => Ok(28),
        "nvmlDeviceGetPowerUsage" => Ok(77_712),
        "nvmlDeviceGetPowerManagementLimit" | "nvmlDeviceGetEnforcedPowerLimit" => Ok(700_000),
        "nvmlDeviceGetTotalEnergyConsumption" => Ok(123_456_789),
        "nvmlDeviceGetPcieReplayCounter" => Ok(0),
        "nvmlDeviceGetCurrPcieLinkGeneration" => Ok(5),
        "nvmlDeviceGetCurrPcieLinkWidth" => Ok(16),
        "nvmlDeviceGetPerformanceState" => Ok(0),
        "nvmlDeviceGetBrand" => Ok(14),
        "nvmlDeviceGetCurrentClocksEventReasons" => Ok(1),
        "nvmlDeviceGetSupportedEventTypes" => Ok(0x11f),
        "nvmlDeviceGetMaxMigDeviceCount" => Ok(7),
        "nvmlDeviceGetMigMode" => Ok(0),
        "nvmlDeviceGetGpuInstanceId" => state.number(&format!("{}.gi", target.name())).ok_or(NOT_SUPPORTED),
        _ if is_mig => Err(NOT_SUPPORTED),
        "nvmlDeviceGetUtilizationRates.gpu" | "nvmlDeviceGetUtilizationRates.memory" => Ok(0),
        "nvmlDeviceGetEncoderUtilization" | "nvmlDeviceGetDecoderUtilization" => Ok(0),
        // A passive board has no fan, and rows are remapped instead of pages retired.
        _ => Err(NOT_SUPPORTED),
    }
}

/// Fills in an entry: `GPU.fv.ID=VALUE`, `GPU.fv.ID!=CODE`, `GPU.fv.ID.tag=TAG`, `GPU.fv.ID.untouched=1`.
pub fn field(state: &State, target: &Target, entry: &mut FieldValue) {
    const UNSIGNED_INT: c_uint = 1;
    const UNSIGNED_LONG_LONG: c_uint = 3;
    let is_mig = state.is_on(&format!("{}.nvmlDeviceGetMigMode", target.gpu));
    let scope = if entry.scope == 0 || entry.scope == c_uint::MAX {
        String::new()
    } else {
        format!("/{}", entry.scope)
    };
    let key = format!("{}.fv.{}{scope}", target.gpu, entry.id);
    entry.code = SUCCESS;
    if let Some(code) = state.number(&format!("{key}!")) {
        entry.code = code as c_uint;
        return;
    }
    if state.is_on(&format!("{key}.untouched")) {
        return;
    }
    let (tag, value) = match entry.id {
        3..=6 | 74..=79 => (UNSIGNED_LONG_LONG, Some(0)),
        82 => (UNSIGNED_INT, Some(32)),
        83 => (UNSIGNED_LONG_LONG, Some(123_456_789)),
        138 | 139 => (UNSIGNED_LONG_LONG, (!is_mig).then_some(0)),
        142..=145 => (UNSIGNED_INT, (!is_mig).then_some(0)),
        186 => (UNSIGNED_INT, Some(77_000)),
        _ => (UNSIGNED_LONG_LONG, None),
    };
    let Some(value) = state.number(&key).or(value) else {
        entry.code = NOT_SUPPORTED;
        return;
    };
    entry.tag = state.number(&format!("{key}.tag")).map_or(tag, |tag| tag as c_uint);
    entry.timestamp = 1_700_000_000_000_000;
    entry.latency = 3;
    // A smaller member of the union leaves the other bytes as they were.
    entry.value =
        if tag == UNSIGNED_INT { (entry.value & !0xffff_ffff) | (value & 0xffff_ffff) } else { value };
}
