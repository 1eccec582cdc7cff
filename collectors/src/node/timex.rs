//! How well the kernel's clock is disciplined.

use std::io;

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Host, Options, Samples, syscall::timex::adjtimex,
};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "timex", default_on: true, flags: &[], build };

static FAMILIES: [Desc; 17] = [
    Desc::gauge(
        "node_timex_sync_status",
        "Is clock synchronized to a reliable server (1 = yes, 0 = no).",
        &[],
    ),
    Desc::gauge("node_timex_offset_seconds", "Time offset in between local system and reference clock.", &[]),
    Desc::gauge("node_timex_frequency_adjustment_ratio", "Local clock frequency adjustment.", &[]),
    Desc::gauge("node_timex_maxerror_seconds", "Maximum error in seconds.", &[]),
    Desc::gauge("node_timex_estimated_error_seconds", "Estimated error in seconds.", &[]),
    Desc::gauge("node_timex_status", "Value of the status array bits.", &[]),
    Desc::gauge("node_timex_loop_time_constant", "Phase-locked loop time constant.", &[]),
    Desc::gauge("node_timex_tick_seconds", "Seconds between clock ticks.", &[]),
    Desc::gauge("node_timex_pps_frequency_hertz", "Pulse per second frequency.", &[]),
    Desc::gauge("node_timex_pps_jitter_seconds", "Pulse per second jitter.", &[]),
    Desc::gauge("node_timex_pps_shift_seconds", "Pulse per second interval duration.", &[]),
    Desc::gauge(
        "node_timex_pps_stability_hertz",
        "Pulse per second stability, average of recent frequency changes.",
        &[],
    ),
    Desc::counter(
        "node_timex_pps_jitter_total",
        "Pulse per second count of jitter limit exceeded events.",
        &[],
    ),
    Desc::counter(
        "node_timex_pps_calibration_total",
        "Pulse per second count of calibration intervals.",
        &[],
    ),
    Desc::counter("node_timex_pps_error_total", "Pulse per second count of calibration errors.", &[]),
    Desc::counter(
        "node_timex_pps_stability_exceeded_total",
        "Pulse per second count of stability limit exceeded events.",
        &[],
    ),
    Desc::gauge("node_timex_tai_offset_seconds", "International Atomic Time (TAI) offset.", &[]),
];

const MICROSECONDS: f64 = 1e6;
const NANOSECONDS: f64 = 1e9;

/// Frequencies are parts per million with 16 bits behind the point.
const FREQUENCY: f64 = 1e6 * 65536.0;

struct Timex;

fn build(_: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Timex))
}

impl Collector for Timex {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let (timex, state) = adjtimex().map_err(|source| match source.kind() {
            // A container's filter of system calls may refuse even to read.
            io::ErrorKind::PermissionDenied => CollectError::NoData,
            _ => CollectError::System { what: "adjtimex", source },
        })?;
        for (desc, value) in FAMILIES.iter().zip(values(&timex, state)) {
            out.push(desc, &[], value);
        }
        Ok(())
    }
}

/// In the order of [`FAMILIES`].
fn values(timex: &libc::timex, state: i32) -> [f64; FAMILIES.len()] {
    let unit = if timex.status & libc::STA_NANO == 0 { MICROSECONDS } else { NANOSECONDS };
    [
        f64::from(u8::from(state != libc::TIME_ERROR)),
        timex.offset as f64 / unit,
        1.0 + timex.freq as f64 / FREQUENCY,
        timex.maxerror as f64 / MICROSECONDS,
        timex.esterror as f64 / MICROSECONDS,
        f64::from(timex.status),
        timex.constant as f64,
        timex.tick as f64 / MICROSECONDS,
        timex.ppsfreq as f64 / FREQUENCY,
        timex.jitter as f64 / unit,
        f64::from(timex.shift),
        timex.stabil as f64 / FREQUENCY,
        timex.jitcnt as f64,
        timex.calcnt as f64,
        timex.errcnt as f64,
        timex.stbcnt as f64,
        f64::from(timex.tai),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(timex: &libc::timex, state: i32, name: &str) -> f64 {
        let at = FAMILIES.iter().position(|desc| desc.name == name).expect("in the table");
        values(timex, state)[at]
    }

    #[test]
    fn the_status_decides_the_unit_of_the_offset() {
        let Ok((mut timex, _)) = adjtimex() else { return };
        timex.offset = 1_500_000;
        timex.maxerror = 16_000_000;
        timex.freq = 65_536;
        timex.status = libc::STA_NANO;
        assert_eq!(value(&timex, libc::TIME_OK, "node_timex_offset_seconds"), 0.0015);
        timex.status = 0;
        assert_eq!(value(&timex, libc::TIME_OK, "node_timex_offset_seconds"), 1.5);
        assert_eq!(value(&timex, libc::TIME_OK, "node_timex_maxerror_seconds"), 16.0);
        assert_eq!(value(&timex, libc::TIME_OK, "node_timex_frequency_adjustment_ratio"), 1.000_001);
    }

    #[test]
    fn a_clock_in_error_is_not_synchronized() {
        let Ok((timex, _)) = adjtimex() else { return };
        assert_eq!(value(&timex, libc::TIME_ERROR, "node_timex_sync_status"), 0.0);
        assert_eq!(value(&timex, libc::TIME_OK, "node_timex_sync_status"), 1.0);
    }
}
