//! The list of collectors: one line for the module, one in [`ALL`], both sorted.

use crate::collector::Entry;

pub mod conntrack;
pub mod cpu;
pub mod cpufreq;
pub mod diskstats;
pub mod entropy;
pub mod filefd;
pub mod filesystem;
pub mod loadavg;
pub mod meminfo;
pub mod netclass;
pub mod netdev;
pub mod netstat;
pub mod os;
pub mod pressure;
pub mod sockstat;
pub mod stat;
pub mod textfile;
pub mod thermal_zone;
pub mod time;
pub mod uname;
pub mod vmstat;

/// Every collector there is, by name.
pub const ALL: &[&Entry] = &[
    &conntrack::ENTRY,
    &cpu::ENTRY,
    &cpufreq::ENTRY,
    &diskstats::ENTRY,
    &entropy::ENTRY,
    &filefd::ENTRY,
    &filesystem::ENTRY,
    &loadavg::ENTRY,
    &meminfo::ENTRY,
    &netclass::ENTRY,
    &netdev::ENTRY,
    &netstat::ENTRY,
    &os::ENTRY,
    &pressure::ENTRY,
    &sockstat::ENTRY,
    &stat::ENTRY,
    &textfile::ENTRY,
    &thermal_zone::ENTRY,
    &time::ENTRY,
    &uname::ENTRY,
    &vmstat::ENTRY,
];
