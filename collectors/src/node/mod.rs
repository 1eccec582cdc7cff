//! The list of collectors: one line for the module, one in [`ALL`], both sorted.

use crate::collector::Entry;

pub mod arp;
pub mod bcache;
pub mod bcachefs;
pub mod bonding;
pub mod btrfs;
pub mod buddyinfo;
pub mod cgroups;
pub mod conntrack;
pub mod cpu;
pub mod cpufreq;
pub mod diskstats;
pub mod drbd;
pub mod entropy;
pub mod ethtool;
pub mod filefd;
pub mod filesystem;
pub mod interrupts;
pub mod ipvs;
pub mod kernel_hung;
pub mod ksmd;
pub mod lnstat;
pub mod loadavg;
pub mod mdadm;
pub mod meminfo;
pub mod meminfo_numa;
pub mod mountstats;
pub mod netclass;
pub mod netdev;
pub mod netstat;
pub mod network_route;
pub mod nfs;
pub mod nfsd;
pub mod os;
pub mod pressure;
pub mod processes;
pub mod qdisc;
pub mod runit;
pub mod schedstat;
pub mod selinux;
pub mod slabinfo;
pub mod sockstat;
pub mod softirqs;
pub mod softnet;
pub mod stat;
pub mod swap;
pub mod sysctl;
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
pub mod xfs;
pub mod zfs;
pub mod zoneinfo;

/// Every collector there is, by name.
pub const ALL: &[&Entry] = &[
    &arp::ENTRY,
    &bcache::ENTRY,
    &bcachefs::ENTRY,
    &bonding::ENTRY,
    &btrfs::ENTRY,
    &buddyinfo::ENTRY,
    &cgroups::ENTRY,
    &conntrack::ENTRY,
    &cpu::ENTRY,
    &cpufreq::ENTRY,
    &diskstats::ENTRY,
    &drbd::ENTRY,
    &entropy::ENTRY,
    &ethtool::ENTRY,
    &filefd::ENTRY,
    &filesystem::ENTRY,
    &interrupts::ENTRY,
    &ipvs::ENTRY,
    &kernel_hung::ENTRY,
    &ksmd::ENTRY,
    &lnstat::ENTRY,
    &loadavg::ENTRY,
    &mdadm::ENTRY,
    &meminfo::ENTRY,
    &meminfo_numa::ENTRY,
    &mountstats::ENTRY,
    &netclass::ENTRY,
    &netdev::ENTRY,
    &netstat::ENTRY,
    &network_route::ENTRY,
    &nfs::ENTRY,
    &nfsd::ENTRY,
    &os::ENTRY,
    &pressure::ENTRY,
    &processes::ENTRY,
    &qdisc::ENTRY,
    &runit::ENTRY,
    &schedstat::ENTRY,
    &selinux::ENTRY,
    &slabinfo::ENTRY,
    &sockstat::ENTRY,
    &softirqs::ENTRY,
    &softnet::ENTRY,
    &stat::ENTRY,
    &swap::ENTRY,
    &sysctl::ENTRY,
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
    &xfs::ENTRY,
    &zfs::ENTRY,
    &zoneinfo::ENTRY,
];
