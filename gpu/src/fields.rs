//! The table of metrics: dcgm-exporter's names, types and help texts, and where NVML has each value.
//!
//! DCGM has renamed many of its fields; what users, dashboards and alerts know are the names here.

use nodewarden_collectors::Kind;

/// What a value is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The whole GPU; under MIG its instances have no value of their own.
    Gpu,
    /// Each GPU instance under MIG, else the GPU.
    Instance,
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Source {
    /// A clock now, by NVML's number.
    Clock(u32),
    /// As fast as it may get.
    MaxClock(u32),
    /// The chip's temperature.
    Temperature,
    /// The memory's, field 82.
    MemoryTemperature,
    /// What the board draws.
    Power,
    /// What it may draw.
    PowerLimit,
    /// What it may draw with all limits together.
    EnforcedPowerLimit,
    /// Since the driver was loaded.
    Energy,
    /// Retries on the bus.
    PcieReplays,
    /// The bus's generation.
    PcieGeneration,
    /// Its lanes.
    PcieWidth,
    /// How busy the GPU is.
    GpuUtilization,
    /// How busy its memory is.
    MemoryUtilization,
    /// How busy the encoder is.
    Encoder,
    /// How busy the decoder is.
    Decoder,
    /// The fan's speed.
    Fan,
    /// The performance state.
    PerformanceState,
    /// Why clocks are low, as bits.
    ClockReasons,
    /// Part of the frame buffer.
    Memory(Buffer),
    /// Traffic over these links, as NVML numbers them.
    NvLink(u32),
    /// Whether a virtual GPU is licensed.
    License,
    /// A number that is a field of NVML's, and of which scope.
    Field(u32, u32),
    /// The same, in milliwatts.
    PowerField(u32),
    /// Retired pages by cause.
    RetiredPages(u32),
    /// A profiling metric of NVML's, and what it is multiplied with.
    Profiling(u32, f64),
    /// The last XID, from events.
    LastXid,
    /// XIDs in a window of time, from events.
    XidWindow,
    /// How often clocks were low in a window of time, by reason.
    ClockWindow,
    /// How each other GPU is reached.
    Peers,
}

/// Part of the frame buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Buffer {
    /// Left.
    Free,
    /// In use.
    Used,
    /// The driver's own.
    Reserved,
    /// All.
    Total,
    /// Used of what is not reserved, as a ratio.
    UsedRatio,
}

/// One metric.
#[derive(Debug)]
pub struct Field {
    /// As dcgm-exporter prints it.
    pub name: &'static str,
    /// Its type when nobody says another one.
    pub kind: Kind,
    /// Its help text when nobody writes another one.
    pub help: &'static str,
    /// What a value is about.
    pub scope: Scope,
    /// Where it comes from.
    pub source: Source,
    /// Whether dcgm-exporter prints it by default.
    pub is_default: bool,
}

/// The place of a field in [`FIELDS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct FieldId(pub u16);

impl FieldId {
    /// The field of this name.
    pub fn of(name: &str) -> Option<Self> {
        FIELDS.iter().position(|field| field.name == name).map(|at| Self(at as u16))
    }

    /// Its row, which is there: ids are made from the table.
    pub fn field(self) -> &'static Field {
        &FIELDS[usize::from(self.0) % FIELDS.len()]
    }
}

/// All links, or all of a GPU.
pub const ALL: u32 = u32::MAX;

const MIB: f64 = 1_048_576.0;
const PERCENT: f64 = 0.01;

const fn on(name: &'static str, kind: Kind, scope: Scope, source: Source, help: &'static str) -> Field {
    Field { name, kind, help, scope, source, is_default: true }
}

const fn off(name: &'static str, kind: Kind, scope: Scope, source: Source, help: &'static str) -> Field {
    Field { name, kind, help, scope, source, is_default: false }
}

use Buffer::{Free, Reserved, Total, Used, UsedRatio};
use Kind::{Counter, Gauge};
use Scope::{Gpu, Instance};
use Source::{
    Clock, ClockReasons, ClockWindow, Decoder, Encoder, Energy, EnforcedPowerLimit, Fan, Field as Fv,
    GpuUtilization, LastXid, License, MaxClock, Memory, MemoryTemperature, MemoryUtilization, NvLink,
    PcieGeneration, PcieReplays, PcieWidth, Peers, PerformanceState, Power, PowerField, PowerLimit,
    Profiling, RetiredPages, Temperature, XidWindow,
};

/// Every metric there is, in dcgm-exporter's order; the last group is what users often add.
#[rustfmt::skip]
pub const FIELDS: &[Field] = &[
    on("DCGM_FI_DEV_SM_CLOCK", Gauge, Gpu, Clock(1), "SM clock frequency (in MHz)."),
    on("DCGM_FI_DEV_MEM_CLOCK", Gauge, Gpu, Clock(2), "Memory clock frequency (in MHz)."),
    on("DCGM_FI_DEV_MEMORY_TEMP", Gauge, Gpu, MemoryTemperature, "Memory temperature (in C)."),
    on("DCGM_FI_DEV_GPU_TEMP", Gauge, Gpu, Temperature, "GPU temperature (in C)."),
    on("DCGM_FI_DEV_POWER_USAGE", Gauge, Gpu, Power, "Power draw (in W)."),
    on("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", Counter, Gpu, Energy, "Total energy consumption since boot (in mJ)."),
    on("DCGM_FI_DEV_PCIE_REPLAY_COUNTER", Counter, Gpu, PcieReplays, "Total number of PCIe retries."),
    on("DCGM_FI_DEV_GPU_UTIL", Gauge, Gpu, GpuUtilization, "GPU utilization (in %)."),
    on("DCGM_FI_DEV_MEM_COPY_UTIL", Gauge, Gpu, MemoryUtilization, "Memory utilization (in %)."),
    on("DCGM_FI_DEV_ENC_UTIL", Gauge, Gpu, Encoder, "Encoder utilization (in %)."),
    on("DCGM_FI_DEV_DEC_UTIL", Gauge, Gpu, Decoder, "Decoder utilization (in %)."),
    on("DCGM_FI_DEV_XID_ERRORS", Gauge, Instance, LastXid, "Value of the last XID error encountered."),
    off("DCGM_FI_DEV_POWER_VIOLATION", Counter, Gpu, Fv(74, 0), "Throttling duration due to power constraints (in ns)."),
    off("DCGM_FI_DEV_THERMAL_VIOLATION", Counter, Gpu, Fv(75, 0), "Throttling duration due to thermal constraints (in ns)."),
    off("DCGM_FI_DEV_SYNC_BOOST_VIOLATION", Counter, Gpu, Fv(76, 0), "Throttling duration due to sync-boost constraints (in ns)."),
    off("DCGM_FI_DEV_BOARD_LIMIT_VIOLATION", Counter, Gpu, Fv(77, 0), "Throttling duration due to board limit constraints (in ns)."),
    off("DCGM_FI_DEV_LOW_UTIL_VIOLATION", Counter, Gpu, Fv(78, 0), "Throttling duration due to low utilization (in ns)."),
    off("DCGM_FI_DEV_RELIABILITY_VIOLATION", Counter, Gpu, Fv(79, 0), "Throttling duration due to reliability constraints (in ns)."),
    on("DCGM_FI_DEV_FB_FREE", Gauge, Instance, Memory(Free), "Framebuffer memory free (in MiB)."),
    on("DCGM_FI_DEV_FB_USED", Gauge, Instance, Memory(Used), "Framebuffer memory used (in MiB)."),
    on("DCGM_FI_DEV_FB_RESERVED", Gauge, Instance, Memory(Reserved), "Framebuffer memory reserved (in MiB)."),
    off("DCGM_FI_DEV_ECC_SBE_VOL_TOTAL", Counter, Gpu, Fv(3, 0), "Total number of single-bit volatile ECC errors."),
    off("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", Counter, Gpu, Fv(4, 0), "Total number of double-bit volatile ECC errors."),
    off("DCGM_FI_DEV_ECC_SBE_AGG_TOTAL", Counter, Gpu, Fv(5, 0), "Total number of single-bit persistent ECC errors."),
    off("DCGM_FI_DEV_ECC_DBE_AGG_TOTAL", Counter, Gpu, Fv(6, 0), "Total number of double-bit persistent ECC errors."),
    off("DCGM_FI_DEV_RETIRED_SBE", Counter, Gpu, RetiredPages(0), "Total number of retired pages due to single-bit errors."),
    off("DCGM_FI_DEV_RETIRED_DBE", Counter, Gpu, Fv(30, 0), "Total number of retired pages due to double-bit errors."),
    off("DCGM_FI_DEV_RETIRED_PENDING", Counter, Gpu, Fv(31, 0), "Total number of pages pending retirement."),
    off("DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL", Counter, Gpu, Fv(38, ALL), "Total number of NVLink flow-control CRC errors."),
    off("DCGM_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL", Counter, Gpu, Fv(45, ALL), "Total number of NVLink data CRC errors."),
    off("DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL", Counter, Gpu, Fv(52, ALL), "Total number of NVLink retries."),
    off("DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL", Counter, Gpu, Fv(59, ALL), "Total number of NVLink recovery errors."),
    // dcgm-exporter says counter; it is a rate.
    on("DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL", Gauge, Gpu, NvLink(ALL), "Total number of NVLink bandwidth counters for all lanes."),
    off("DCGM_FI_DEV_NVLINK_BANDWIDTH_L0", Gauge, Gpu, NvLink(0), "The number of bytes of active NVLink rx or tx data including both header and payload."),
    on("DCGM_FI_DEV_VGPU_LICENSE_STATUS", Gauge, Gpu, License, "vGPU License status"),
    on("DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", Counter, Gpu, Fv(143, 0), "Number of remapped rows for uncorrectable errors"),
    on("DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS", Counter, Gpu, Fv(142, 0), "Number of remapped rows for correctable errors"),
    on("DCGM_FI_DEV_ROW_REMAP_FAILURE", Gauge, Gpu, Fv(145, 0), "Whether remapping of rows has failed"),
    on("DCGM_FI_PROF_GR_ENGINE_ACTIVE", Gauge, Instance, Profiling(1, PERCENT), "Ratio of time the graphics engine is active."),
    off("DCGM_FI_PROF_SM_ACTIVE", Gauge, Instance, Profiling(2, PERCENT), "The ratio of cycles an SM has at least 1 warp assigned."),
    off("DCGM_FI_PROF_SM_OCCUPANCY", Gauge, Instance, Profiling(3, PERCENT), "The ratio of number of warps resident on an SM."),
    on("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", Gauge, Instance, Profiling(5, PERCENT), "Ratio of cycles the tensor (HMMA) pipe is active."),
    on("DCGM_FI_PROF_DRAM_ACTIVE", Gauge, Instance, Profiling(10, PERCENT), "Ratio of cycles the device memory interface is active sending or receiving data."),
    off("DCGM_FI_PROF_PIPE_FP64_ACTIVE", Gauge, Instance, Profiling(11, PERCENT), "Ratio of cycles the fp64 pipes are active."),
    off("DCGM_FI_PROF_PIPE_FP32_ACTIVE", Gauge, Instance, Profiling(12, PERCENT), "Ratio of cycles the fp32 pipes are active."),
    off("DCGM_FI_PROF_PIPE_FP16_ACTIVE", Gauge, Instance, Profiling(13, PERCENT), "Ratio of cycles the fp16 pipes are active."),
    on("DCGM_FI_PROF_PCIE_TX_BYTES", Gauge, Gpu, Profiling(20, MIB), "The rate of data transmitted over the PCIe bus - including both protocol headers and data payloads - in bytes per second."),
    on("DCGM_FI_PROF_PCIE_RX_BYTES", Gauge, Gpu, Profiling(21, MIB), "The rate of data received over the PCIe bus - including both protocol headers and data payloads - in bytes per second."),
    off("DCGM_EXP_XID_ERRORS_COUNT", Gauge, Instance, XidWindow, "Count of XID Errors within user-specified time window (see xid-count-window-size param)."),
    off("DCGM_EXP_CLOCK_EVENTS_COUNT", Gauge, Gpu, ClockWindow, "Count of clock events within the user-specified time window (see clock-events-count-window-size param)."),
    off("DCGM_EXP_P2P_STATUS", Gauge, Gpu, Peers, "P2P NVLink status by GPU pair."),

    off("DCGM_FI_DEV_POWER_MGMT_LIMIT", Gauge, Gpu, PowerLimit, "Power that the board may draw (in W)."),
    off("DCGM_FI_DEV_ENFORCED_POWER_LIMIT", Gauge, Gpu, EnforcedPowerLimit, "Power that the board may draw with all limits together (in W)."),
    off("DCGM_FI_DEV_POWER_USAGE_INSTANT", Gauge, Gpu, PowerField(186), "Power draw at this moment (in W)."),
    off("DCGM_FI_DEV_CLOCK_THROTTLE_REASONS", Gauge, Gpu, ClockReasons, "Why clocks are low, as bits."),
    off("DCGM_FI_DEV_CLOCKS_EVENT_REASONS", Gauge, Gpu, ClockReasons, "Why clocks are low, as bits."),
    off("DCGM_FI_DEV_FB_TOTAL", Gauge, Instance, Memory(Total), "Framebuffer memory (in MiB)."),
    off("DCGM_FI_DEV_FB_USED_PERCENT", Gauge, Instance, Memory(UsedRatio), "Framebuffer memory used of what is not reserved, as a ratio."),
    off("DCGM_FI_DEV_PSTATE", Gauge, Gpu, PerformanceState, "Performance state, 0 is the fastest."),
    off("DCGM_FI_DEV_FAN_SPEED", Gauge, Gpu, Fan, "Fan speed (in %)."),
    off("DCGM_FI_DEV_ROW_REMAP_PENDING", Gauge, Gpu, Fv(144, 0), "Whether rows are to be remapped at the next reset."),
    off("DCGM_FI_DEV_PCIE_LINK_GEN", Gauge, Gpu, PcieGeneration, "Generation of the PCIe link."),
    off("DCGM_FI_DEV_PCIE_LINK_WIDTH", Gauge, Gpu, PcieWidth, "Lanes of the PCIe link."),
    off("DCGM_FI_DEV_MAX_SM_CLOCK", Gauge, Gpu, MaxClock(1), "Highest SM clock frequency (in MHz)."),
    off("DCGM_FI_DEV_MAX_MEM_CLOCK", Gauge, Gpu, MaxClock(2), "Highest memory clock frequency (in MHz)."),
    off("DCGM_FI_DEV_VIDEO_CLOCK", Gauge, Gpu, Clock(3), "Video clock frequency (in MHz)."),
    off("DCGM_FI_PROF_PIPE_INT_ACTIVE", Gauge, Instance, Profiling(4, PERCENT), "Ratio of cycles the integer pipes are active."),
    off("DCGM_FI_PROF_PIPE_TENSOR_DFMA_ACTIVE", Gauge, Instance, Profiling(6, PERCENT), "Ratio of cycles the tensor pipe is active with double precision."),
    off("DCGM_FI_PROF_PIPE_TENSOR_HMMA_ACTIVE", Gauge, Instance, Profiling(7, PERCENT), "Ratio of cycles the tensor pipe is active with half precision."),
    off("DCGM_FI_PROF_PIPE_TENSOR_IMMA_ACTIVE", Gauge, Instance, Profiling(9, PERCENT), "Ratio of cycles the tensor pipe is active with integers."),
    off("DCGM_FI_PROF_NVLINK_TX_BYTES", Gauge, Gpu, Profiling(61, MIB), "The rate of data transmitted over NVLink in bytes per second."),
    off("DCGM_FI_PROF_NVLINK_RX_BYTES", Gauge, Gpu, Profiling(60, MIB), "The rate of data received over NVLink in bytes per second."),
];

/// What a GPU is, printed as labels on all of its lines when it is asked for.
pub const LABELS: &[&str] = &[
    "DCGM_FI_DRIVER_VERSION",
    "DCGM_FI_NVML_VERSION",
    "DCGM_FI_DEV_BRAND",
    "DCGM_FI_DEV_SERIAL",
    "DCGM_FI_DEV_OEM_INFOROM_VER",
    "DCGM_FI_DEV_ECC_INFOROM_VER",
    "DCGM_FI_DEV_POWER_INFOROM_VER",
    "DCGM_FI_DEV_INFOROM_IMAGE_VER",
    "DCGM_FI_DEV_VBIOS_VERSION",
];

/// dcgm-exporter's metrics that NVML has no value for, and why.
pub const UNREACHABLE: &[(&str, &str)] = &[
    ("DCGM_EXP_GPU_HEALTH_STATUS", "it is the opinion of DCGM's own health checks"),
    (
        "DCGM_FI_DEV_PCIE_TX_THROUGHPUT",
        "DCGM does not support it any more; DCGM_FI_PROF_PCIE_TX_BYTES is its successor",
    ),
    (
        "DCGM_FI_DEV_PCIE_RX_THROUGHPUT",
        "DCGM does not support it any more; DCGM_FI_PROF_PCIE_RX_BYTES is its successor",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_there_once() {
        let names: BTreeSet<&str> =
            FIELDS.iter().map(|field| field.name).chain(LABELS.iter().copied()).collect();
        assert_eq!(names.len(), FIELDS.len() + LABELS.len());
    }

    #[test]
    fn twenty_five_are_on_by_default_and_fifty_one_are_dcgm_exporter_s() {
        assert_eq!(FIELDS.iter().filter(|field| field.is_default).count(), 25);
        assert_eq!(FIELDS.iter().position(|field| field.name == "DCGM_EXP_P2P_STATUS"), Some(50));
    }

    #[test]
    fn a_field_is_found_by_its_name() {
        let id = FieldId::of("DCGM_FI_DEV_FB_USED").expect("it is in the table");
        assert_eq!((id.field().name, id.field().source), ("DCGM_FI_DEV_FB_USED", Memory(Used)));
        assert_eq!(FieldId::of("DCGM_FI_DEV_FB"), None);
    }
}
