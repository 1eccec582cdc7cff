//! A fake libnvidia-ml.so.1. The GPUs are what `<this library>.state` says, which is looked at on each call: so a running
//! agent sees a GPU get lost, hang, come back. Each test has a copy of the library of its own.
//!
//! Layouts and codes are written down here from NVIDIA's header once more, not taken from the bindings that the agent uses:
//! two that agree are right. Versions of structures are checked as a driver checks them.

#![allow(unsafe_code, reason = "it is a C library")]
#![allow(non_snake_case, reason = "the names are NVIDIA's")]
#![allow(missing_docs, clippy::missing_safety_doc, reason = "NVIDIA's header describes them")]

mod answers;
mod layout;
mod state;

use std::{
    ffi::{c_char, c_int, c_uint, c_void},
    fs, ptr, slice,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use answers::{Target, field, number};
use layout::{
    EventData, FieldValue, GpmMetricsGet, GpmSupport, GridFeatures, Memory, MemoryV2, PciInfo, ProcessInfo,
    Temperature, Utilization,
};
use state::State;

const SUCCESS: c_uint = 0;
const UNINITIALIZED: c_uint = 1;
const INVALID_ARGUMENT: c_uint = 2;
const NOT_SUPPORTED: c_uint = 3;
const NOT_FOUND: c_uint = 6;
const INSUFFICIENT_SIZE: c_uint = 7;
const TIMEOUT: c_uint = 10;
const GPU_IS_LOST: c_uint = 15;
const ARGUMENT_VERSION_MISMATCH: c_uint = 25;

static IS_INITIALIZED: AtomicBool = AtomicBool::new(false);
/// Lines of the list of XIDs that were given out.
static GIVEN: AtomicUsize = AtomicUsize::new(0);

type Handle = *mut c_void;

/// What every call about a device does first.
fn enter(handle: Handle, function: &str) -> Result<(State, Target), c_uint> {
    if !IS_INITIALIZED.load(SeqCst) {
        return Err(UNINITIALIZED);
    }
    let target = Target::of(handle).ok_or(INVALID_ARGUMENT)?;
    let mut state = state::now();
    while state.is_on(&format!("{}.hang", target.gpu)) {
        thread::sleep(Duration::from_millis(20));
        state = state::now();
    }
    // Where even SIGKILL does not reach: a write to a frozen disk.
    if let Some(path) = state.get(&format!("{}.block", target.gpu)) {
        // How it went is of no interest.
        let _ = fs::write(path, "x");
    }
    if state.is_on(&format!("{}.lost", target.gpu)) {
        return Err(GPU_IS_LOST);
    }
    if let Some(code) = state.number(&format!("{}.{function}!", target.gpu)) {
        return Err(code as c_uint);
    }
    Ok((state, target))
}

/// Writes a text with its end; codes as NVML.
unsafe fn write_text(text: &str, to: *mut c_char, length: c_uint) -> c_uint {
    if to.is_null() {
        return INVALID_ARGUMENT;
    }
    if text.len() + 1 > length as usize {
        return INSUFFICIENT_SIZE;
    }
    // SAFETY: the caller has room for `length` bytes.
    unsafe {
        ptr::copy_nonoverlapping(text.as_ptr().cast::<c_char>(), to, text.len());
        *to.add(text.len()) = 0;
    }
    SUCCESS
}

macro_rules! texts {
    ($($function:ident: $key:literal = $default:expr;)*) => {
        $(
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $function(handle: Handle, to: *mut c_char, length: c_uint) -> c_uint {
                match enter(handle, stringify!($function)) {
                    Err(code) => code,
                    Ok((state, target)) => {
                        let default: fn(&State, &Target) -> Result<String, c_uint> = $default;
                        let text = match state.get(&format!("{}.{}", target.name(), $key)) {
                            Some(text) => Ok(text.to_owned()),
                            None => default(&state, &target),
                        };
                        // SAFETY: handed on.
                        text.map_or_else(|code| code, |text| unsafe { write_text(&text, to, length) })
                    }
                }
            }
        )*
    };
}

texts! {
    nvmlDeviceGetUUID: "uuid" = |state, target| Ok(target.uuid(state));
    nvmlDeviceGetName: "name" = |state, target| Ok(target.product(state));
    nvmlDeviceGetSerial: "serial" = |_, target| Ok(format!("165000000000{}", target.gpu));
    nvmlDeviceGetVbiosVersion: "vbios" = |_, _| Ok("96.00.BC.00.01".into());
    nvmlDeviceGetInforomImageVersion: "image" = |_, _| Ok("G520.0200.00.05".into());
}

macro_rules! numbers {
    ($($function:ident -> $type:ty;)*) => {
        $(
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $function(handle: Handle, value: *mut $type) -> c_uint {
                let found = enter(handle, stringify!($function))
                    .and_then(|(state, target)| number(&state, &target, stringify!($function)));
                match found {
                    Err(code) => code,
                    Ok(number) => {
                        // SAFETY: the caller has a place for the number.
                        unsafe { *value = number as $type };
                        SUCCESS
                    }
                }
            }
        )*
    };
}

numbers! {
    nvmlDeviceGetPowerUsage -> c_uint;
    nvmlDeviceGetPowerManagementLimit -> c_uint;
    nvmlDeviceGetEnforcedPowerLimit -> c_uint;
    nvmlDeviceGetTotalEnergyConsumption -> u64;
    nvmlDeviceGetPcieReplayCounter -> c_uint;
    nvmlDeviceGetCurrPcieLinkGeneration -> c_uint;
    nvmlDeviceGetCurrPcieLinkWidth -> c_uint;
    nvmlDeviceGetFanSpeed -> c_uint;
    nvmlDeviceGetPerformanceState -> c_uint;
    nvmlDeviceGetCurrentClocksEventReasons -> u64;
    nvmlDeviceGetMaxMigDeviceCount -> c_uint;
    nvmlDeviceGetGpuInstanceId -> c_uint;
    nvmlDeviceGetBrand -> c_uint;
    nvmlDeviceGetSupportedEventTypes -> u64;
}

/// Functions of a device with one more number, and one to fill in.
macro_rules! chosen {
    ($($function:ident;)*) => {
        $(
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $function(handle: Handle, which: c_uint, value: *mut c_uint) -> c_uint {
                let name = format!("{}.{which}", stringify!($function));
                let found = enter(handle, stringify!($function))
                    .and_then(|(state, target)| number(&state, &target, &name));
                match found {
                    Err(code) => code,
                    Ok(number) => {
                        // SAFETY: the caller has a place for the number.
                        unsafe { *value = number as c_uint };
                        SUCCESS
                    }
                }
            }
        )*
    };
}

chosen! {
    nvmlDeviceGetClockInfo;
    nvmlDeviceGetMaxClockInfo;
    nvmlDeviceGetTemperature;
}

/// Functions of a device that fill in two numbers.
macro_rules! pairs {
    ($($function:ident;)*) => {
        $(
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $function(handle: Handle, first: *mut c_uint, second: *mut c_uint) -> c_uint {
                let found = enter(handle, stringify!($function))
                    .and_then(|(state, target)| number(&state, &target, stringify!($function)));
                match found {
                    Err(code) => code,
                    Ok(number) => {
                        // SAFETY: the caller has places for both.
                        unsafe { (*first, *second) = (number as c_uint, number as c_uint) };
                        SUCCESS
                    }
                }
            }
        )*
    };
}

pairs! {
    nvmlDeviceGetEncoderUtilization;
    nvmlDeviceGetDecoderUtilization;
    nvmlDeviceGetMigMode;
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> c_uint {
    let state = state::now();
    while state::now().is_on("init.hang") {
        thread::sleep(Duration::from_millis(20));
    }
    let code = state.number("init").unwrap_or(0) as c_uint;
    if code == SUCCESS {
        IS_INITIALIZED.store(true, SeqCst);
        GIVEN.store(state::xids().len(), SeqCst);
    }
    state::log("init");
    code
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> c_uint {
    state::log("shutdown");
    match IS_INITIALIZED.swap(false, SeqCst) {
        true => SUCCESS,
        false => UNINITIALIZED,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetDriverVersion(to: *mut c_char, length: c_uint) -> c_uint {
    let state = state::now();
    // SAFETY: handed on.
    unsafe { write_text(state.get("driver").unwrap_or("580.159.04"), to, length) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetNVMLVersion(to: *mut c_char, length: c_uint) -> c_uint {
    let state = state::now();
    // SAFETY: handed on.
    unsafe { write_text(&format!("13.{}", state.get("driver").unwrap_or("580.159.04")), to, length) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> c_uint {
    if !IS_INITIALIZED.load(SeqCst) {
        return UNINITIALIZED;
    }
    // SAFETY: the caller has a place for the number.
    unsafe { *count = state::now().count() };
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, handle: *mut Handle) -> c_uint {
    let state = state::now();
    if index >= state.count() {
        return INVALID_ARGUMENT;
    }
    if let Some(code) = state.number(&format!("{index}.nvmlDeviceGetHandleByIndex!")) {
        return code as c_uint;
    }
    // SAFETY: the caller has a place for the handle.
    unsafe { *handle = Target { gpu: index, mig: None }.handle() };
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPciInfo_v3(handle: Handle, info: *mut PciInfo) -> c_uint {
    let target = match enter(handle, "nvmlDeviceGetPciInfo") {
        Ok((_, target)) => target,
        Err(code) => return code,
    };
    // SAFETY: the caller has a place for the structure.
    let info = unsafe { &mut *info };
    (info.domain, info.bus, info.device) = (0, target.bus(), 0);
    // SAFETY: the array is as long as is said.
    unsafe { write_text(&target.bus_id(), info.bus_id.as_mut_ptr(), 32) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetInforomVersion(
    handle: Handle,
    object: c_uint,
    to: *mut c_char,
    length: c_uint,
) -> c_uint {
    match (enter(handle, "nvmlDeviceGetInforomVersion"), object) {
        (Err(code), _) => code,
        // SAFETY: handed on.
        (Ok(_), 0) => unsafe { write_text("2.1", to, length) },
        // SAFETY: handed on.
        (Ok(_), 1) => unsafe { write_text("7.16", to, length) },
        _ => NOT_SUPPORTED,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTemperatureV(handle: Handle, reading: *mut Temperature) -> c_uint {
    // SAFETY: the caller has a structure there.
    let reading = unsafe { &mut *reading };
    if reading.version != Temperature::VERSION {
        return ARGUMENT_VERSION_MISMATCH;
    }
    let found = enter(handle, "nvmlDeviceGetTemperatureV")
        .and_then(|(state, target)| number(&state, &target, "nvmlDeviceGetTemperature.0"));
    match found {
        Err(code) => code,
        Ok(degrees) => {
            reading.temperature = degrees as c_int;
            SUCCESS
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUtilizationRates(handle: Handle, rates: *mut Utilization) -> c_uint {
    let found = enter(handle, "nvmlDeviceGetUtilizationRates").and_then(|(state, target)| {
        Ok((
            number(&state, &target, "nvmlDeviceGetUtilizationRates.gpu")?,
            number(&state, &target, "nvmlDeviceGetUtilizationRates.memory")?,
        ))
    });
    match found {
        Err(code) => code,
        Ok((gpu, memory)) => {
            // SAFETY: the caller has a place for the structure.
            unsafe { *rates = Utilization { gpu: gpu as c_uint, memory: memory as c_uint } };
            SUCCESS
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(handle: Handle, memory: *mut MemoryV2) -> c_uint {
    // SAFETY: the caller has a structure there.
    let memory = unsafe { &mut *memory };
    if memory.version != MemoryV2::VERSION {
        return ARGUMENT_VERSION_MISMATCH;
    }
    match enter(handle, "nvmlDeviceGetMemoryInfo_v2") {
        Err(code) => code,
        Ok((state, target)) => {
            let [total, reserved, used] = target.memory(&state);
            *memory =
                MemoryV2 { version: memory.version, total, reserved, free: total - reserved - used, used };
            SUCCESS
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo(handle: Handle, memory: *mut Memory) -> c_uint {
    match enter(handle, "nvmlDeviceGetMemoryInfo") {
        Err(code) => code,
        Ok((state, target)) => {
            let [total, reserved, used] = target.memory(&state);
            // SAFETY: the caller has a place for the structure.
            unsafe { *memory = Memory { total, free: total - reserved - used, used: used + reserved } };
            SUCCESS
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetFieldValues(
    handle: Handle,
    count: c_int,
    values: *mut FieldValue,
) -> c_uint {
    match enter(handle, "nvmlDeviceGetFieldValues") {
        Err(code) => code,
        Ok((state, target)) => {
            // SAFETY: the caller has as many entries as it says.
            let entries = unsafe { slice::from_raw_parts_mut(values, count as usize) };
            for entry in entries {
                field(&state, &target, entry);
            }
            SUCCESS
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetRetiredPages(
    handle: Handle,
    cause: c_uint,
    count: *mut c_uint,
    addresses: *mut u64,
) -> c_uint {
    let found = enter(handle, "nvmlDeviceGetRetiredPages")
        .and_then(|(state, target)| number(&state, &target, &format!("nvmlDeviceGetRetiredPages.{cause}")));
    match found {
        Err(code) => code,
        Ok(pages) => {
            // SAFETY: the caller has a place for the number.
            unsafe { *count = pages as c_uint };
            if pages > 0 && addresses.is_null() { INSUFFICIENT_SIZE } else { SUCCESS }
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGridLicensableFeatures_v4(
    handle: Handle,
    features: *mut GridFeatures,
) -> c_uint {
    match enter(handle, "nvmlDeviceGetGridLicensableFeatures") {
        Err(code) => code,
        Ok((state, target)) => {
            // SAFETY: the caller has a place for the structure.
            let features = unsafe { &mut *features };
            let is_licensed = state.is_on(&format!("{}.licensed", target.gpu));
            features.is_supported = c_int::from(is_licensed);
            features.count = c_uint::from(is_licensed);
            features.features[0].code = 1;
            features.features[0].state = c_uint::from(is_licensed);
            SUCCESS
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetP2PStatus(
    handle: Handle,
    other: Handle,
    _index: c_uint,
    status: *mut c_uint,
) -> c_uint {
    match (enter(handle, "nvmlDeviceGetP2PStatus"), Target::of(other)) {
        (Err(code), _) => code,
        (_, None) => INVALID_ARGUMENT,
        (Ok((state, target)), Some(other)) => {
            let known = state.number(&format!("{}.p2p.{}", target.gpu, other.gpu)).unwrap_or(0);
            // SAFETY: the caller has a place for the number.
            unsafe { *status = known as c_uint };
            SUCCESS
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(
    handle: Handle,
    index: c_uint,
    mig: *mut Handle,
) -> c_uint {
    match enter(handle, "nvmlDeviceGetMigDeviceHandleByIndex") {
        Err(code) => code,
        Ok((state, target)) => {
            let found = Target { gpu: target.gpu, mig: Some(index) };
            if state.get(&format!("{}.gi", found.name())).is_none() {
                return NOT_FOUND;
            }
            // SAFETY: the caller has a place for the handle.
            unsafe { *mig = found.handle() };
            SUCCESS
        }
    }
}

/// The processes of a device, `PID:MIB` with commas between.
unsafe fn list_processes(
    handle: Handle,
    function: &str,
    key: &str,
    count: *mut c_uint,
    infos: *mut ProcessInfo,
) -> c_uint {
    let (state, target) = match enter(handle, function) {
        Ok(entered) => entered,
        Err(code) => return code,
    };
    let listed = state.get(&format!("{}.{key}", target.name())).unwrap_or_default().to_owned();
    let processes: Vec<ProcessInfo> = listed
        .split(',')
        .filter_map(|one| one.split_once(':'))
        .map(|(pid, memory)| ProcessInfo {
            pid: pid.parse().unwrap_or_default(),
            memory: memory.parse::<u64>().map_or(u64::MAX, |mib| mib << 20),
            gpu_instance: c_uint::MAX,
            compute_instance: c_uint::MAX,
        })
        .collect();
    // SAFETY: the caller has as much room as it says, and a place for the number.
    unsafe {
        let room = *count as usize;
        *count = processes.len() as c_uint;
        if processes.len() > room {
            return INSUFFICIENT_SIZE;
        }
        ptr::copy_nonoverlapping(processes.as_ptr(), infos, processes.len());
    }
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    handle: Handle,
    count: *mut c_uint,
    infos: *mut ProcessInfo,
) -> c_uint {
    // SAFETY: handed on.
    unsafe { list_processes(handle, "nvmlDeviceGetComputeRunningProcesses", "compute", count, infos) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGraphicsRunningProcesses_v3(
    handle: Handle,
    count: *mut c_uint,
    infos: *mut ProcessInfo,
) -> c_uint {
    // SAFETY: handed on.
    unsafe { list_processes(handle, "nvmlDeviceGetGraphicsRunningProcesses", "graphics", count, infos) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmQueryDeviceSupport(handle: Handle, support: *mut GpmSupport) -> c_uint {
    // SAFETY: the caller has a structure there.
    let support = unsafe { &mut *support };
    if support.version != 1 {
        return ARGUMENT_VERSION_MISMATCH;
    }
    match enter(handle, "nvmlGpmQueryDeviceSupport") {
        Err(code) => code,
        Ok((state, target)) => {
            support.is_supported = c_uint::from(state.get(&format!("{}.gpm", target.gpu)) != Some("0"));
            SUCCESS
        }
    }
}

/// A sample remembers whose it is and when it was taken.
pub struct Sample {
    gpu: c_uint,
    instance: Option<c_uint>,
    taken: Option<Instant>,
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmSampleAlloc(sample: *mut *mut Sample) -> c_uint {
    // SAFETY: the caller has a place for the pointer.
    unsafe { *sample = Box::into_raw(Box::new(Sample { gpu: 0, instance: None, taken: None })) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmSampleFree(sample: *mut Sample) -> c_uint {
    // SAFETY: it was made above, and is given back once.
    drop(unsafe { Box::from_raw(sample) });
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmSampleGet(handle: Handle, sample: *mut Sample) -> c_uint {
    match enter(handle, "nvmlGpmSampleGet") {
        Err(code) => code,
        Ok((_, target)) => {
            // SAFETY: it was made above.
            unsafe { *sample = Sample { gpu: target.gpu, instance: None, taken: Some(Instant::now()) } };
            SUCCESS
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmMigSampleGet(
    handle: Handle,
    instance: c_uint,
    sample: *mut Sample,
) -> c_uint {
    match enter(handle, "nvmlGpmMigSampleGet") {
        Err(code) => code,
        Ok((_, target)) => {
            let taken = Some(Instant::now());
            // SAFETY: it was made above.
            unsafe { *sample = Sample { gpu: target.gpu, instance: Some(instance), taken } };
            SUCCESS
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmMetricsGet(get: *mut GpmMetricsGet) -> c_uint {
    // SAFETY: the caller has a structure there.
    let get = unsafe { &mut *get };
    if get.version != 1 {
        return ARGUMENT_VERSION_MISMATCH;
    }
    // SAFETY: both were made above.
    let (first, second) = unsafe { (&*get.first.cast::<Sample>(), &*get.second.cast::<Sample>()) };
    let is_pair = (first.gpu, first.instance) == (second.gpu, second.instance)
        && first.taken.is_some()
        && first.taken < second.taken;
    if !is_pair {
        return INVALID_ARGUMENT;
    }
    let state = state::now();
    let instance = first.instance.map_or(String::new(), |instance| format!("gi{instance}."));
    for entry in get.metrics.iter_mut().take(get.count as usize) {
        let key = format!("{}.{instance}gpm.{}", first.gpu, entry.id);
        if let Some(code) = state.number(&format!("{key}!")) {
            entry.code = code as c_uint;
            continue;
        }
        entry.code = SUCCESS;
        entry.value = state.get(&key).and_then(|text| text.parse().ok()).unwrap_or(0.0);
    }
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetCreate(set: *mut Handle) -> c_uint {
    // SAFETY: the caller has a place for the handle, which is never followed.
    unsafe { *set = ptr::without_provenance_mut(0x77) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlEventSetFree(_set: Handle) -> c_uint {
    state::log("events freed");
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceRegisterEvents(handle: Handle, _kinds: u64, _set: Handle) -> c_uint {
    match enter(handle, "nvmlDeviceRegisterEvents") {
        Err(code) => code,
        Ok(_) => SUCCESS,
    }
}

/// The next line of `<this library>.xids`: `GPU CODE [INSTANCE]`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetWait_v2(
    _set: Handle,
    data: *mut EventData,
    milliseconds: c_uint,
) -> c_uint {
    let until = Instant::now() + Duration::from_millis(u64::from(milliseconds));
    loop {
        if let Some(line) = state::xids().get(GIVEN.load(SeqCst)) {
            GIVEN.fetch_add(1, SeqCst);
            let mut words = line.split(' ').map(|word| word.parse::<u64>().unwrap_or_default());
            let gpu = words.next().unwrap_or_default() as c_uint;
            // SAFETY: the caller has a place for the structure.
            let data = unsafe { &mut *data };
            data.device = Target { gpu, mig: None }.handle();
            data.kind = 8;
            data.data = words.next().unwrap_or_default();
            data.gpu_instance = words.next().map_or(c_uint::MAX, |instance| instance as c_uint);
            data.compute_instance = c_uint::MAX;
            return SUCCESS;
        }
        if Instant::now() >= until {
            return TIMEOUT;
        }
        thread::sleep(Duration::from_millis(20));
    }
}
