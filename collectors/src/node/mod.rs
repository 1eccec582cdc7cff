//! The list of collectors: one line for the module, one in [`ALL`], both sorted.

use crate::collector::Entry;

pub mod arp;
pub mod bonding;
pub mod buddyinfo;
pub mod cgroups;
pub mod conntrack;
pub mod cpu;
pub mod diskstats;
pub mod entropy;
pub mod filefd;
pub mod filesystem;
pub mod interrupts;
pub mod kernel_hung;
pub mod ksmd;
pub mod lnstat;
pub mod loadavg;
pub mod meminfo;
pub mod meminfo_numa;
pub mod netclass;
pub mod netdev;
pub mod netstat;
pub mod network_route;
pub mod os;
pub mod pressure;
pub mod qdisc;
pub mod schedstat;
pub mod selinux;
pub mod slabinfo;
pub mod sockstat;
pub mod softirqs;
pub mod softnet;
pub mod stat;
pub mod swap;
pub mod tcpstat;
pub mod textfile;
pub mod thermal_zone;
pub mod time;
pub mod timex;
pub mod udp_queues;
pub mod uname;
pub mod vmstat;
pub mod wifi;
pub mod xfrm;

/// Every collector there is, by name.
pub const ALL: &[&Entry] = &[
    &arp::ENTRY,
    &bonding::ENTRY,
    &buddyinfo::ENTRY,
    &cgroups::ENTRY,
    &conntrack::ENTRY,
    &cpu::ENTRY,
    &diskstats::ENTRY,
    &entropy::ENTRY,
    &filefd::ENTRY,
    &filesystem::ENTRY,
    &interrupts::ENTRY,
    &kernel_hung::ENTRY,
    &ksmd::ENTRY,
    &lnstat::ENTRY,
    &loadavg::ENTRY,
    &meminfo::ENTRY,
    &meminfo_numa::ENTRY,
    &netclass::ENTRY,
    &netdev::ENTRY,
    &netstat::ENTRY,
    &network_route::ENTRY,
    &os::ENTRY,
    &pressure::ENTRY,
    &qdisc::ENTRY,
    &schedstat::ENTRY,
    &selinux::ENTRY,
    &slabinfo::ENTRY,
    &sockstat::ENTRY,
    &softirqs::ENTRY,
    &softnet::ENTRY,
    &stat::ENTRY,
    &swap::ENTRY,
    &tcpstat::ENTRY,
    &textfile::ENTRY,
    &thermal_zone::ENTRY,
    &time::ENTRY,
    &timex::ENTRY,
    &udp_queues::ENTRY,
    &uname::ENTRY,
    &vmstat::ENTRY,
    &wifi::ENTRY,
    &xfrm::ENTRY,
];
