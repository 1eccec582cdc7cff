//! The structures, as NVIDIA's header has them on 64-bit machines.

use std::{
    ffi::{c_char, c_int, c_uint, c_void},
    mem::offset_of,
};

#[repr(C)]
pub struct Memory {
    pub total: u64,
    pub free: u64,
    pub used: u64,
}

#[repr(C)]
pub struct MemoryV2 {
    pub version: c_uint,
    pub total: u64,
    pub reserved: u64,
    pub free: u64,
    pub used: u64,
}

impl MemoryV2 {
    pub const VERSION: c_uint = 0x0200_0028;
}

#[repr(C)]
pub struct PciInfo {
    pub bus_id_legacy: [c_char; 16],
    pub domain: c_uint,
    pub bus: c_uint,
    pub device: c_uint,
    pub pci_device_id: c_uint,
    pub pci_subsystem_id: c_uint,
    pub bus_id: [c_char; 32],
}

#[repr(C)]
pub struct FieldValue {
    pub id: c_uint,
    pub scope: c_uint,
    pub timestamp: i64,
    pub latency: i64,
    pub tag: c_uint,
    pub code: c_uint,
    pub value: u64,
}

#[repr(C)]
pub struct Utilization {
    pub gpu: c_uint,
    pub memory: c_uint,
}

#[repr(C)]
pub struct Temperature {
    pub version: c_uint,
    pub sensor: c_uint,
    pub temperature: c_int,
}

impl Temperature {
    pub const VERSION: c_uint = 0x0100_000c;
}

#[repr(C)]
pub struct EventData {
    pub device: *mut c_void,
    pub kind: u64,
    pub data: u64,
    pub gpu_instance: c_uint,
    pub compute_instance: c_uint,
}

#[repr(C)]
pub struct ProcessInfo {
    pub pid: c_uint,
    pub memory: u64,
    pub gpu_instance: c_uint,
    pub compute_instance: c_uint,
}

#[repr(C)]
pub struct GpmSupport {
    pub version: c_uint,
    pub is_supported: c_uint,
}

#[repr(C)]
pub struct GpmMetric {
    pub id: c_uint,
    pub code: c_uint,
    pub value: f64,
    pub names: [*const c_char; 3],
}

#[repr(C)]
pub struct GpmMetricsGet {
    pub version: c_uint,
    pub count: c_uint,
    pub first: *mut c_void,
    pub second: *mut c_void,
    pub metrics: [GpmMetric; 210],
}

#[repr(C)]
pub struct GridExpiry {
    pub year: c_uint,
    pub month: u16,
    pub day: u16,
    pub hour: u16,
    pub minute: u16,
    pub second: u16,
    pub status: u8,
}

#[repr(C)]
pub struct GridFeature {
    pub code: c_uint,
    pub state: c_uint,
    pub license: [c_char; 128],
    pub product: [c_char; 128],
    pub is_enabled: c_uint,
    pub expiry: GridExpiry,
}

#[repr(C)]
pub struct GridFeatures {
    pub is_supported: c_int,
    pub count: c_uint,
    pub features: [GridFeature; 3],
}

const _: () = {
    assert!(size_of::<MemoryV2>() == 40 && offset_of!(MemoryV2, total) == 8);
    assert!(size_of::<PciInfo>() == 68 && offset_of!(PciInfo, bus_id) == 36);
    assert!(size_of::<FieldValue>() == 40 && offset_of!(FieldValue, value) == 32);
    assert!(size_of::<EventData>() == 32 && offset_of!(EventData, gpu_instance) == 24);
    assert!(size_of::<ProcessInfo>() == 24 && offset_of!(ProcessInfo, memory) == 8);
    assert!(size_of::<GpmMetric>() == 40 && offset_of!(GpmMetricsGet, metrics) == 24);
    assert!(size_of::<GpmMetricsGet>() == 8424);
    assert!(size_of::<Temperature>() == 12);
    assert!(offset_of!(GridFeature, is_enabled) == 264 && size_of::<GridFeature>() == 284);
};
