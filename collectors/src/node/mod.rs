//! The list of collectors: one line for the module, one in [`ALL`], both sorted.

use crate::collector::Entry;

pub mod arp;
pub mod bonding;
pub mod conntrack;
pub mod cpu;
pub mod diskstats;
pub mod entropy;
pub mod ethtool;
pub mod filefd;
pub mod filesystem;
pub mod loadavg;
pub mod meminfo;
pub mod netclass;
pub mod netdev;
pub mod netstat;
pub mod network_route;
pub mod os;
pub mod pressure;
pub mod qdisc;
pub mod sockstat;
pub mod stat;
pub mod tcpstat;
pub mod textfile;
pub mod thermal_zone;
pub mod time;
pub mod uname;
pub mod vmstat;
pub mod wifi;

/// Every collector there is, by name.
pub const ALL: &[&Entry] = &[
    &arp::ENTRY,
    &bonding::ENTRY,
    &conntrack::ENTRY,
    &cpu::ENTRY,
    &diskstats::ENTRY,
    &entropy::ENTRY,
    &ethtool::ENTRY,
    &filefd::ENTRY,
    &filesystem::ENTRY,
    &loadavg::ENTRY,
    &meminfo::ENTRY,
    &netclass::ENTRY,
    &netdev::ENTRY,
    &netstat::ENTRY,
    &network_route::ENTRY,
    &os::ENTRY,
    &pressure::ENTRY,
    &qdisc::ENTRY,
    &sockstat::ENTRY,
    &stat::ENTRY,
    &tcpstat::ENTRY,
    &textfile::ENTRY,
    &thermal_zone::ENTRY,
    &time::ENTRY,
    &uname::ENTRY,
    &vmstat::ENTRY,
    &wifi::ENTRY,
];
