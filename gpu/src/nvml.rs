//! NVML's C functions as safe ones: the only unsafe code of this crate.
//!
//! All calls are raw. nvml-wrapper, the usual safe layer, frees an event set when one GPU refuses it, drops the instance of an
//! event, trusts the type tags of field values that some drivers get wrong, and panics without `nvmlShutdown`.
//! Here a function that the library lacks answers as NVML itself does, with "function not found".
//!
//! What holds for every call: NVML may be used by several threads at once (its documentation says so), a handle stays a valid
//! argument until the shutdown (a lost GPU answers with a code), and out parameters are only written during the call.

#![allow(unsafe_code, reason = "a C library is called")]

use std::{
    ffi::{CStr, c_char, c_uint},
    mem,
    path::Path,
    ptr,
};

use nvml_wrapper_sys::bindings as sys;
use serde::{Deserialize, Serialize};

/// What NVML answered instead of a value.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, thiserror::Error,
)]
#[error("NVML error {0} ({words})", words = self.words())]
pub struct Code(pub u32);

impl Code {
    /// Not initialised, or not any more.
    pub const UNINITIALIZED: Self = Self(1);
    /// An argument is not valid, such as the number of a MIG device that is not there.
    pub const INVALID_ARGUMENT: Self = Self(2);
    /// This GPU can't say that.
    pub const NOT_SUPPORTED: Self = Self(3);
    /// Not for this user.
    pub const NO_PERMISSION: Self = Self(4);
    /// There is no such thing.
    pub const NOT_FOUND: Self = Self(6);
    /// More space is needed.
    pub const INSUFFICIENT_SIZE: Self = Self(7);
    /// The kernel module is not loaded.
    pub const DRIVER_NOT_LOADED: Self = Self(9);
    /// Nothing came in time.
    pub const TIMEOUT: Self = Self(10);
    /// A library that NVML needs is missing.
    pub const LIBRARY_NOT_FOUND: Self = Self(12);
    /// The library has no such function.
    pub const FUNCTION_NOT_FOUND: Self = Self(13);
    /// The GPU fell off the bus, or can't be reached otherwise.
    pub const GPU_IS_LOST: Self = Self(15);
    /// Library and kernel module are of two versions.
    pub const VERSION_MISMATCH: Self = Self(18);
    /// Anything.
    pub const UNKNOWN: Self = Self(999);

    fn words(self) -> &'static str {
        match self.0 {
            1 => "not initialised",
            2 => "invalid argument",
            3 => "not supported",
            4 => "no permission",
            6 => "not found",
            7 => "insufficient size",
            9 => "driver not loaded",
            10 => "timeout",
            12 => "library not found",
            13 => "function not found",
            15 => "GPU is lost",
            16 => "reset required",
            17 => "operating system",
            18 => "driver and library of different versions",
            20 => "out of memory",
            25 => "argument of another version",
            27 => "not ready",
            _ => "unknown error",
        }
    }

    /// Whether the GPU, the driver or the library has no such value: that is no fault.
    pub fn is_absence(self) -> bool {
        matches!(self, Self::NOT_SUPPORTED | Self::FUNCTION_NOT_FOUND | Self::NOT_FOUND)
    }

    /// Whether nothing more can be expected of this session when every GPU answers so.
    pub fn ends_session(self) -> bool {
        matches!(
            self,
            Self::UNINITIALIZED
                | Self::DRIVER_NOT_LOADED
                | Self::GPU_IS_LOST
                | Self::VERSION_MISMATCH
                | Self::UNKNOWN
        )
    }
}

/// Why there is no library to call.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It could not be loaded.
    #[error("{0}")]
    Load(String),
    /// It was loaded and can't do anything.
    #[error(transparent)]
    Init(#[from] Code),
}

/// A GPU, or a MIG device, in this session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device(sys::nvmlDevice_t);

// SAFETY: a handle is a name for NVML, never followed by us, and NVML takes it from any thread.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

/// Two of them make the profiling metrics.
#[derive(Debug)]
pub struct GpmSample(sys::nvmlGpmSample_t);

// SAFETY: as for `Device`; it is used by one thread at a time, its owner's.
unsafe impl Send for GpmSample {}

/// Waits for XIDs.
#[derive(Debug)]
pub struct EventSet(sys::nvmlEventSet_t);

// SAFETY: as for `Device`; one thread waits with it.
unsafe impl Send for EventSet {}

/// Frame buffer in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// All there is.
    pub total: u64,
    /// The driver's own; unknown to drivers before 510.
    pub reserved: Option<u64>,
    /// Left.
    pub free: u64,
    /// In use.
    pub used: u64,
}

/// What is asked of `nvmlDeviceGetFieldValues`, and its answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FieldValue {
    /// NVML's number of the field.
    pub id: u32,
    /// Which link, or all of them; 0 for most fields.
    pub scope: u32,
    /// The value's 8 bytes as they came, or why there are none.
    pub answer: Result<Bits, Code>,
}

/// The value of a field, not understood yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bits {
    /// The bytes.
    pub raw: u64,
    /// What the driver says they are.
    pub tag: u32,
    /// Whether the driver did not touch the entry, although it says that all went well.
    pub is_untouched: bool,
}

/// A process that uses a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Bytes of frame buffer; `None` when the driver does not say.
    pub memory: Option<u64>,
}

/// An event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Whose.
    pub device: Device,
    /// What kind.
    pub kind: u64,
    /// The XID.
    pub data: u64,
    /// The GPU instance, when it was only that.
    pub instance: Option<u32>,
}

/// The bit of XIDs among the kinds of events.
pub const XID_EVENTS: u64 = sys::nvmlEventTypeXidCriticalError as u64;

/// A loaded library, initialised.
pub struct Nvml {
    lib: sys::NvmlLib,
}

/// Calls a function of the library; its code, or "function not found".
macro_rules! call {
    ($nvml:expr, $function:ident($($argument:expr),* $(,)?)) => {
        match &$nvml.lib.$function {
            // SAFETY: the signature is the header's; what holds for the arguments is said above and at those that need more.
            Ok(function) => done(unsafe { function($($argument),*) }),
            Err(_) => Err(Code::FUNCTION_NOT_FOUND),
        }
    };
}

/// Functions of one device with one number to fill in.
macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident: $function:ident -> $type:ty;)*) => {
        impl Nvml {
            $(
                $(#[$doc])*
                pub fn $name(&self, device: Device) -> Result<$type, Code> {
                    let mut value = 0;
                    call!(self, $function(device.0, &raw mut value))?;
                    Ok(value)
                }
            )*
        }
    };
}

/// Functions of one device that fill in a text.
macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident: $function:ident;)*) => {
        impl Nvml {
            $(
                $(#[$doc])*
                pub fn $name(&self, device: Device) -> Result<String, Code> {
                    let mut text = [0; TEXT];
                    call!(self, $function(device.0, text.as_mut_ptr(), TEXT as c_uint))?;
                    Ok(words_of(&text))
                }
            )*
        }
    };
}

/// Room for any text of NVML's: UUIDs of version 2 need 96 bytes, names as many.
const TEXT: usize = 128;

numbers! {
    /// Milliwatts.
    power_usage: nvmlDeviceGetPowerUsage -> u32;
    /// Milliwatts.
    power_limit: nvmlDeviceGetPowerManagementLimit -> u32;
    /// Milliwatts.
    enforced_power_limit: nvmlDeviceGetEnforcedPowerLimit -> u32;
    /// Millijoules since the driver was loaded.
    energy: nvmlDeviceGetTotalEnergyConsumption -> u64;
    /// Retries on the bus.
    pcie_replays: nvmlDeviceGetPcieReplayCounter -> u32;
    /// The generation of the bus.
    pcie_generation: nvmlDeviceGetCurrPcieLinkGeneration -> u32;
    /// Its lanes.
    pcie_width: nvmlDeviceGetCurrPcieLinkWidth -> u32;
    /// Percent.
    fan_speed: nvmlDeviceGetFanSpeed -> u32;
    /// 0 is the fastest.
    performance_state: nvmlDeviceGetPerformanceState -> u32;
    /// Why clocks are low, as bits.
    clock_reasons_new: nvmlDeviceGetCurrentClocksEventReasons -> u64;
    /// The same by its name before driver 535.
    clock_reasons_old: nvmlDeviceGetCurrentClocksThrottleReasons -> u64;
    /// How many MIG devices there may be.
    mig_device_limit: nvmlDeviceGetMaxMigDeviceCount -> u32;
    /// The GPU instance of a MIG device.
    gpu_instance: nvmlDeviceGetGpuInstanceId -> u32;
    /// The brand's number.
    brand: nvmlDeviceGetBrand -> u32;
    /// The kinds of events it can tell.
    event_kinds: nvmlDeviceGetSupportedEventTypes -> u64;
}

texts! {
    /// `GPU-…` or `MIG-…`.
    uuid: nvmlDeviceGetUUID;
    /// The product's name.
    name: nvmlDeviceGetName;
    /// The board's serial number.
    serial: nvmlDeviceGetSerial;
    /// The version of its BIOS.
    vbios_version: nvmlDeviceGetVbiosVersion;
    /// The version of its inforom's image.
    inforom_image_version: nvmlDeviceGetInforomImageVersion;
}

impl Nvml {
    /// Loads a library and initialises it.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        // SAFETY: the file is NVIDIA's library, found where drivers install it or named by whoever configures the agent. Its
        // initialisers run in this process, which is there for nothing else.
        let lib = unsafe { sys::NvmlLib::new(path) }.map_err(|error| LoadError::Load(error.to_string()))?;
        let nvml = Self { lib };
        call!(nvml, nvmlInit_v2())?;
        Ok(nvml)
    }

    /// Ends the session. No handle of it may be used afterwards, which is why it is taken.
    pub fn shut_down(self) {
        // There is nobody left whom a failure would help.
        let _ = call!(self, nvmlShutdown());
    }

    /// The driver's version.
    pub fn driver_version(&self) -> Result<String, Code> {
        let mut text = [0; TEXT];
        call!(self, nvmlSystemGetDriverVersion(text.as_mut_ptr(), TEXT as c_uint))?;
        Ok(words_of(&text))
    }

    /// The library's version.
    pub fn library_version(&self) -> Result<String, Code> {
        let mut text = [0; TEXT];
        call!(self, nvmlSystemGetNVMLVersion(text.as_mut_ptr(), TEXT as c_uint))?;
        Ok(words_of(&text))
    }

    /// How many GPUs there are.
    pub fn device_count(&self) -> Result<u32, Code> {
        let mut count = 0;
        call!(self, nvmlDeviceGetCount_v2(&raw mut count))?;
        Ok(count)
    }

    /// The GPU of this number.
    pub fn device(&self, index: u32) -> Result<Device, Code> {
        let mut device = ptr::null_mut();
        call!(self, nvmlDeviceGetHandleByIndex_v2(index, &raw mut device))?;
        Ok(Device(device))
    }

    /// Its address on the bus, `00000000:3B:00.0`.
    pub fn bus_id(&self, device: Device) -> Result<String, Code> {
        // SAFETY: numbers and arrays of characters may be zero.
        let mut pci: sys::nvmlPciInfo_t = unsafe { mem::zeroed() };
        call!(self, nvmlDeviceGetPciInfo_v3(device.0, &raw mut pci))?;
        Ok(words_of(&pci.busId))
    }

    /// The version of a part of its inforom.
    pub fn inforom_version(&self, device: Device, object: u32) -> Result<String, Code> {
        let mut text = [0; TEXT];
        call!(self, nvmlDeviceGetInforomVersion(device.0, object, text.as_mut_ptr(), TEXT as c_uint))?;
        Ok(words_of(&text))
    }

    /// MHz of a clock.
    pub fn clock(&self, device: Device, clock: u32) -> Result<u32, Code> {
        let mut value = 0;
        call!(self, nvmlDeviceGetClockInfo(device.0, clock, &raw mut value))?;
        Ok(value)
    }

    /// MHz that a clock may reach.
    pub fn max_clock(&self, device: Device, clock: u32) -> Result<u32, Code> {
        let mut value = 0;
        call!(self, nvmlDeviceGetMaxClockInfo(device.0, clock, &raw mut value))?;
        Ok(value)
    }

    /// Degrees Celsius of the chip. The older function is announced to go, the newer one is not there yet everywhere.
    pub fn temperature(&self, device: Device) -> Result<i64, Code> {
        let mut value = 0;
        match call!(self, nvmlDeviceGetTemperature(device.0, 0, &raw mut value)) {
            Ok(()) => return Ok(i64::from(value)),
            Err(code) if !code.is_absence() && code != Code(26) => return Err(code),
            Err(_) => {}
        }
        let mut reading = sys::nvmlTemperature_t {
            version: versioned::<sys::nvmlTemperature_t>(1),
            sensorType: 0,
            temperature: 0,
        };
        call!(self, nvmlDeviceGetTemperatureV(device.0, &raw mut reading))?;
        Ok(i64::from(reading.temperature))
    }

    /// Percent of the time in which the GPU, and its memory, were busy.
    pub fn utilization(&self, device: Device) -> Result<(u32, u32), Code> {
        let mut rates = sys::nvmlUtilization_t { gpu: 0, memory: 0 };
        call!(self, nvmlDeviceGetUtilizationRates(device.0, &raw mut rates))?;
        Ok((rates.gpu, rates.memory))
    }

    /// Percent of the encoder.
    pub fn encoder(&self, device: Device) -> Result<u32, Code> {
        let (mut value, mut period) = (0, 0);
        call!(self, nvmlDeviceGetEncoderUtilization(device.0, &raw mut value, &raw mut period))?;
        Ok(value)
    }

    /// Percent of the decoder.
    pub fn decoder(&self, device: Device) -> Result<u32, Code> {
        let (mut value, mut period) = (0, 0);
        call!(self, nvmlDeviceGetDecoderUtilization(device.0, &raw mut value, &raw mut period))?;
        Ok(value)
    }

    /// The frame buffer; drivers before 510 count what is reserved as used.
    pub fn memory(&self, device: Device) -> Result<Memory, Code> {
        let version = versioned::<sys::nvmlMemory_v2_t>(2);
        let mut new = sys::nvmlMemory_v2_t { version, total: 0, reserved: 0, free: 0, used: 0 };
        match call!(self, nvmlDeviceGetMemoryInfo_v2(device.0, &raw mut new)) {
            Ok(()) => {
                let reserved = Some(new.reserved);
                return Ok(Memory { total: new.total, reserved, free: new.free, used: new.used });
            }
            Err(Code::FUNCTION_NOT_FOUND) => {}
            Err(code) => return Err(code),
        }
        let mut old = sys::nvmlMemory_t { total: 0, free: 0, used: 0 };
        call!(self, nvmlDeviceGetMemoryInfo(device.0, &raw mut old))?;
        Ok(Memory { total: old.total, reserved: None, free: old.free, used: old.used })
    }

    /// Fills in the answers.
    pub fn field_values(&self, device: Device, asked: &mut [FieldValue]) -> Result<(), Code> {
        let entry = |field: &FieldValue| sys::nvmlFieldValue_t {
            fieldId: field.id,
            scopeId: field.scope,
            timestamp: 0,
            latencyUsec: 0,
            valueType: 0,
            nvmlReturn: 0,
            value: sys::nvmlValue_t { ullVal: 0 },
        };
        let mut entries: Vec<sys::nvmlFieldValue_t> = asked.iter().map(entry).collect();
        // The pointer is to as many entries as it says.
        call!(self, nvmlDeviceGetFieldValues(device.0, entries.len() as i32, entries.as_mut_ptr()))?;
        for (field, entry) in asked.iter_mut().zip(&entries) {
            field.answer = done(entry.nvmlReturn).map(|()| Bits {
                // SAFETY: every byte was written above, and any 8 bytes are a number.
                raw: unsafe { entry.value.ullVal },
                tag: entry.valueType,
                is_untouched: entry.timestamp == 0 && entry.latencyUsec == 0 && entry.valueType == 0,
            });
        }
        Ok(())
    }

    /// How many pages were retired for a cause.
    pub fn retired_pages(&self, device: Device, cause: u32) -> Result<u32, Code> {
        let mut count = 0;
        // Without a place for addresses it only counts.
        match call!(self, nvmlDeviceGetRetiredPages(device.0, cause, &raw mut count, ptr::null_mut())) {
            Ok(()) | Err(Code::INSUFFICIENT_SIZE) => Ok(count),
            Err(code) => Err(code),
        }
    }

    /// Whether a virtual GPU is licensed; a real one never is.
    pub fn is_licensed(&self, device: Device) -> Result<bool, Code> {
        const VGPU: u32 = 1;
        // SAFETY: numbers and arrays of characters may be zero.
        let mut features: sys::nvmlGridLicensableFeatures_t = unsafe { mem::zeroed() };
        call!(self, nvmlDeviceGetGridLicensableFeatures_v4(device.0, &raw mut features))?;
        let count = features.licensableFeaturesCount as usize;
        let mut known = features.gridLicensableFeatures.iter().take(count);
        Ok(features.isGridLicenseSupported != 0
            && known.any(|feature| feature.featureCode == VGPU && feature.featureState > 0))
    }

    /// How another GPU is reached by NVLink.
    pub fn peer_status(&self, device: Device, other: Device) -> Result<u32, Code> {
        const NVLINK: u32 = sys::nvmlGpuP2PCapsIndex_enum_NVML_P2P_CAPS_INDEX_NVLINK;
        let mut status = 0;
        call!(self, nvmlDeviceGetP2PStatus(device.0, other.0, NVLINK, &raw mut status))?;
        Ok(status)
    }

    /// Whether it is divided into MIG instances.
    pub fn is_mig(&self, device: Device) -> Result<bool, Code> {
        let (mut current, mut pending) = (0, 0);
        call!(self, nvmlDeviceGetMigMode(device.0, &raw mut current, &raw mut pending))?;
        Ok(current == 1)
    }

    /// The MIG device of this number.
    pub fn mig_device(&self, device: Device, index: u32) -> Result<Device, Code> {
        let mut mig = ptr::null_mut();
        call!(self, nvmlDeviceGetMigDeviceHandleByIndex(device.0, index, &raw mut mig))?;
        Ok(Device(mig))
    }

    /// The processes that compute on it.
    pub fn compute_processes(&self, device: Device) -> Result<Vec<Process>, Code> {
        processes(|count, infos| call!(self, nvmlDeviceGetComputeRunningProcesses_v3(device.0, count, infos)))
    }

    /// The processes that draw with it.
    pub fn graphics_processes(&self, device: Device) -> Result<Vec<Process>, Code> {
        processes(|count, infos| {
            call!(self, nvmlDeviceGetGraphicsRunningProcesses_v3(device.0, count, infos))
        })
    }

    /// Whether it has profiling metrics.
    pub fn has_gpm(&self, device: Device) -> Result<bool, Code> {
        let mut support =
            sys::nvmlGpmSupport_t { version: sys::NVML_GPM_SUPPORT_VERSION, isSupportedDevice: 0 };
        call!(self, nvmlGpmQueryDeviceSupport(device.0, &raw mut support))?;
        Ok(support.isSupportedDevice != 0)
    }

    /// A place for a sample. It is to be given back.
    pub fn gpm_sample(&self) -> Result<GpmSample, Code> {
        let mut sample = ptr::null_mut();
        call!(self, nvmlGpmSampleAlloc(&raw mut sample))?;
        Ok(GpmSample(sample))
    }

    /// Takes a sample, of one GPU instance or of all.
    pub fn take_gpm_sample(
        &self,
        device: Device,
        instance: Option<u32>,
        sample: &mut GpmSample,
    ) -> Result<(), Code> {
        match instance {
            Some(instance) => call!(self, nvmlGpmMigSampleGet(device.0, instance, sample.0)),
            None => call!(self, nvmlGpmSampleGet(device.0, sample.0)),
        }
    }

    /// What these metrics were between two samples.
    pub fn gpm_metrics(
        &self,
        earlier: &GpmSample,
        later: &GpmSample,
        metrics: &[u32],
    ) -> Result<Vec<Result<f64, Code>>, Code> {
        // SAFETY: numbers and pointers to texts that nobody reads may be zero.
        let mut get: Box<sys::nvmlGpmMetricsGet_t> = Box::new(unsafe { mem::zeroed() });
        get.version = sys::NVML_GPM_METRICS_GET_VERSION;
        (get.sample1, get.sample2) = (earlier.0, later.0);
        let count = metrics.len().min(get.metrics.len());
        get.numMetrics = count as c_uint;
        for (entry, metric) in get.metrics.iter_mut().zip(metrics) {
            entry.metricId = *metric;
        }
        // However long the library's array is, it touches as many entries as there are metrics.
        call!(self, nvmlGpmMetricsGet(&raw mut *get))?;
        Ok(get.metrics[..count].iter().map(|entry| done(entry.nvmlReturn).map(|()| entry.value)).collect())
    }

    /// Gives a sample back.
    pub fn free_gpm_sample(&self, GpmSample(sample): GpmSample) {
        // A sample that can't be freed ends with the process.
        let _ = call!(self, nvmlGpmSampleFree(sample));
    }

    /// A set that events can be waited for with. It is to be given back.
    pub fn event_set(&self) -> Result<EventSet, Code> {
        let mut set = ptr::null_mut();
        call!(self, nvmlEventSetCreate(&raw mut set))?;
        Ok(EventSet(set))
    }

    /// Adds events of a GPU; the set stays good when that one refuses.
    pub fn register(&self, device: Device, kinds: u64, set: &EventSet) -> Result<(), Code> {
        call!(self, nvmlDeviceRegisterEvents(device.0, kinds, set.0))
    }

    /// The next event.
    pub fn wait(&self, set: &EventSet, milliseconds: u32) -> Result<Event, Code> {
        /// The whole GPU.
        const ALL: u32 = u32::MAX;
        // SAFETY: numbers and a handle may be zero.
        let mut data: sys::nvmlEventData_t = unsafe { mem::zeroed() };
        call!(self, nvmlEventSetWait_v2(set.0, &raw mut data, milliseconds))?;
        Ok(Event {
            device: Device(data.device),
            kind: data.eventType,
            data: data.eventData,
            instance: Some(data.gpuInstanceId).filter(|instance| *instance != ALL),
        })
    }

    /// Gives a set back.
    pub fn free_event_set(&self, EventSet(set): EventSet) {
        // As with samples.
        let _ = call!(self, nvmlEventSetFree(set));
    }
}

/// Asks with more and more room: processes come while they are listed.
fn processes(
    ask: impl Fn(*mut c_uint, *mut sys::nvmlProcessInfo_t) -> Result<(), Code>,
) -> Result<Vec<Process>, Code> {
    const MOST: usize = 4096;
    let empty = sys::nvmlProcessInfo_t { pid: 0, usedGpuMemory: 0, gpuInstanceId: 0, computeInstanceId: 0 };
    let mut room = 32;
    loop {
        let mut infos = vec![empty; room];
        let mut count = room as c_uint;
        match ask(&raw mut count, infos.as_mut_ptr()) {
            Ok(()) => {
                infos.truncate(count as usize);
                let known = |memory| Some(memory).filter(|memory| *memory != u64::MAX);
                let process = |info: &sys::nvmlProcessInfo_t| Process {
                    pid: info.pid,
                    memory: known(info.usedGpuMemory),
                };
                return Ok(infos.iter().map(process).collect());
            }
            Err(Code::INSUFFICIENT_SIZE) if room < MOST => room = (2 * room).max(count as usize).min(MOST),
            Err(code) => return Err(code),
        }
    }
}

/// How a structure says which of its versions it is.
fn versioned<T>(version: u32) -> u32 {
    size_of::<T>() as u32 | version << 24
}

fn done(code: sys::nvmlReturn_t) -> Result<(), Code> {
    match code {
        0 => Ok(()),
        code => Err(Code(code)),
    }
}

/// A text of C's, as far as the library ended it.
fn words_of(text: &[c_char]) -> String {
    // Signed on one architecture, unsigned on another.
    let bytes: Vec<u8> = text.iter().flat_map(|byte| byte.to_ne_bytes()).collect();
    let words = CStr::from_bytes_until_nul(&bytes).map_or(bytes.as_slice(), CStr::to_bytes);
    String::from_utf8_lossy(words).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    /// As written down from NVIDIA's header, not from the bindings.
    #[test]
    fn structures_are_as_the_header_has_them() {
        assert_eq!(size_of::<sys::nvmlMemory_v2_t>(), 40);
        assert_eq!(versioned::<sys::nvmlMemory_v2_t>(2), 0x0200_0028);
        assert_eq!(size_of::<sys::nvmlFieldValue_t>(), 40);
        assert_eq!(offset_of!(sys::nvmlFieldValue_t, nvmlReturn), 28);
        assert_eq!(offset_of!(sys::nvmlFieldValue_t, value), 32);
        assert_eq!(size_of::<sys::nvmlPciInfo_t>(), 68);
        assert_eq!(offset_of!(sys::nvmlPciInfo_t, busId), 36);
        assert_eq!(size_of::<sys::nvmlEventData_t>(), 32);
        assert_eq!(size_of::<sys::nvmlGpmMetric_t>(), 40);
        assert_eq!(size_of::<sys::nvmlGpmMetricsGet_t>(), 24 + 210 * 40);
        assert_eq!(size_of::<sys::nvmlProcessInfo_t>(), 24);
        assert_eq!(size_of::<sys::nvmlTemperature_t>(), 12);
    }

    #[test]
    fn what_is_no_library_is_refused() {
        for path in ["/nonexistent/libnvidia-ml.so.1", "/tmp", "/dev/null"] {
            let Err(error) = Nvml::open(Path::new(path)) else { panic!("{path} was loaded") };
            assert!(matches!(error, LoadError::Load(_)), "{path}: {error}");
        }
    }

    #[test]
    fn codes_say_what_they_mean() {
        assert_eq!(Code(15).to_string(), "NVML error 15 (GPU is lost)");
        assert_eq!(Code(77).to_string(), "NVML error 77 (unknown error)");
    }
}
