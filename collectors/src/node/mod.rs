//! The list of collectors: one line for the module, one in [`ALL`], both sorted.

use crate::collector::Entry;

pub mod conntrack;
pub mod cpu;
pub mod cpu_vulnerabilities;
pub mod diskstats;
pub mod dmi;
pub mod dmmultipath;
pub mod drm;
pub mod edac;
pub mod entropy;
pub mod fibrechannel;
pub mod filefd;
pub mod filesystem;
pub mod hwmon;
pub mod infiniband;
pub mod loadavg;
pub mod meminfo;
pub mod netclass;
pub mod netdev;
pub mod netstat;
pub mod nvme;
pub mod nvmesubsystem;
pub mod os;
pub mod pcidevice;
pub mod powersupplyclass;
pub mod pressure;
pub mod rapl;
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
    &cpu_vulnerabilities::ENTRY,
    &diskstats::ENTRY,
    &dmi::ENTRY,
    &dmmultipath::ENTRY,
    &drm::ENTRY,
    &edac::ENTRY,
    &entropy::ENTRY,
    &fibrechannel::ENTRY,
    &filefd::ENTRY,
    &filesystem::ENTRY,
    &hwmon::ENTRY,
    &infiniband::ENTRY,
    &loadavg::ENTRY,
    &meminfo::ENTRY,
    &netclass::ENTRY,
    &netdev::ENTRY,
    &netstat::ENTRY,
    &nvme::ENTRY,
    &nvmesubsystem::ENTRY,
    &os::ENTRY,
    &pcidevice::ENTRY,
    &powersupplyclass::ENTRY,
    &pressure::ENTRY,
    &rapl::ENTRY,
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
