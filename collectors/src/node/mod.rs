//! The list of collectors: one line for the module, one in [`ALL`], both sorted.

use crate::collector::Entry;

pub mod conntrack;
pub mod cpu;
pub mod diskstats;
pub mod entropy;
pub mod filefd;
pub mod filesystem;
pub mod ipvs;
pub mod loadavg;
pub mod logind;
pub mod meminfo;
pub mod mountstats;
pub mod netclass;
pub mod netdev;
pub mod netstat;
pub mod nfs;
pub mod nfsd;
pub mod ntp;
pub mod os;
pub mod perf;
pub mod pressure;
pub mod runit;
pub mod sockstat;
pub mod stat;
pub mod supervisord;
pub mod systemd;
pub mod textfile;
pub mod thermal_zone;
pub mod time;
pub mod uname;
pub mod vmstat;

/// Every collector there is, by name.
pub const ALL: &[&Entry] = &[
    &conntrack::ENTRY,
    &cpu::ENTRY,
    &diskstats::ENTRY,
    &entropy::ENTRY,
    &filefd::ENTRY,
    &filesystem::ENTRY,
    &ipvs::ENTRY,
    &loadavg::ENTRY,
    &logind::ENTRY,
    &meminfo::ENTRY,
    &mountstats::ENTRY,
    &netclass::ENTRY,
    &netdev::ENTRY,
    &netstat::ENTRY,
    &nfs::ENTRY,
    &nfsd::ENTRY,
    &ntp::ENTRY,
    &os::ENTRY,
    &perf::ENTRY,
    &pressure::ENTRY,
    &runit::ENTRY,
    &sockstat::ENTRY,
    &stat::ENTRY,
    &supervisord::ENTRY,
    &systemd::ENTRY,
    &textfile::ENTRY,
    &thermal_zone::ENTRY,
    &time::ENTRY,
    &uname::ENTRY,
    &vmstat::ENTRY,
];
