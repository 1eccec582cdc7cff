//! The list of collectors: one line for the module, one in [`ALL`], both sorted.

use crate::collector::Entry;

pub mod conntrack;
pub mod cpu;
pub mod diskstats;
pub mod dmi;
pub mod entropy;
pub mod filefd;
pub mod filesystem;
pub mod hwmon;
pub mod loadavg;
pub mod meminfo;
pub mod netclass;
pub mod netdev;
pub mod netstat;
pub mod nvme;
pub mod os;
pub mod pressure;
pub mod sockstat;
pub mod stat;
pub mod tapestats;
pub mod textfile;
pub mod thermal_zone;
pub mod time;
pub mod uname;
pub mod vmstat;
pub mod watchdog;

/// Every collector there is, by name.
pub const ALL: &[&Entry] = &[
    &conntrack::ENTRY,
    &cpu::ENTRY,
    &diskstats::ENTRY,
    &dmi::ENTRY,
    &entropy::ENTRY,
    &filefd::ENTRY,
    &filesystem::ENTRY,
    &hwmon::ENTRY,
    &loadavg::ENTRY,
    &meminfo::ENTRY,
    &netclass::ENTRY,
    &netdev::ENTRY,
    &netstat::ENTRY,
    &nvme::ENTRY,
    &os::ENTRY,
    &pressure::ENTRY,
    &sockstat::ENTRY,
    &stat::ENTRY,
    &tapestats::ENTRY,
    &textfile::ENTRY,
    &thermal_zone::ENTRY,
    &time::ENTRY,
    &uname::ENTRY,
    &vmstat::ENTRY,
    &watchdog::ENTRY,
];
