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
pub mod cpu_vulnerabilities;
pub mod cpufreq;
pub mod diskstats;
pub mod dmi;
pub mod dmmultipath;
pub mod drbd;
pub mod drm;
pub mod edac;
pub mod entropy;
pub mod ethtool;
pub mod fibrechannel;
pub mod filefd;
pub mod filesystem;
pub mod hwmon;
pub mod infiniband;
pub mod interrupts;
pub mod ipvs;
pub mod kernel_hung;
pub mod ksmd;
pub mod lnstat;
pub mod loadavg;
pub mod logind;
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
pub mod ntp;
pub mod nvme;
pub mod nvmesubsystem;
pub mod os;
pub mod pcidevice;
pub mod perf;
pub mod pods;
pub mod powersupplyclass;
pub mod pressure;
pub mod processes;
pub mod qdisc;
pub mod rapl;
pub mod runit;
pub mod schedstat;
pub mod selinux;
pub mod slabinfo;
pub mod sockstat;
pub mod softirqs;
pub mod softnet;
pub mod stat;
pub mod supervisord;
pub mod swap;
pub mod sysctl;
pub mod systemd;
pub mod tapestats;
pub mod tcpstat;
pub mod textfile;
pub mod thermal_zone;
pub mod time;
pub mod timex;
pub mod udp_queues;
pub mod uname;
pub mod vmstat;
pub mod watchdog;
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
    &cpu_vulnerabilities::ENTRY,
    &cpufreq::ENTRY,
    &diskstats::ENTRY,
    &dmi::ENTRY,
    &dmmultipath::ENTRY,
    &drbd::ENTRY,
    &drm::ENTRY,
    &edac::ENTRY,
    &entropy::ENTRY,
    &ethtool::ENTRY,
    &fibrechannel::ENTRY,
    &filefd::ENTRY,
    &filesystem::ENTRY,
    &hwmon::ENTRY,
    &infiniband::ENTRY,
    &interrupts::ENTRY,
    &ipvs::ENTRY,
    &kernel_hung::ENTRY,
    &ksmd::ENTRY,
    &lnstat::ENTRY,
    &loadavg::ENTRY,
    &logind::ENTRY,
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
    &ntp::ENTRY,
    &nvme::ENTRY,
    &nvmesubsystem::ENTRY,
    &os::ENTRY,
    &pcidevice::ENTRY,
    &perf::ENTRY,
    &pods::ENTRY,
    &powersupplyclass::ENTRY,
    &pressure::ENTRY,
    &processes::ENTRY,
    &qdisc::ENTRY,
    &rapl::ENTRY,
    &runit::ENTRY,
    &schedstat::ENTRY,
    &selinux::ENTRY,
    &slabinfo::ENTRY,
    &sockstat::ENTRY,
    &softirqs::ENTRY,
    &softnet::ENTRY,
    &stat::ENTRY,
    &supervisord::ENTRY,
    &swap::ENTRY,
    &sysctl::ENTRY,
    &systemd::ENTRY,
    &tapestats::ENTRY,
    &tcpstat::ENTRY,
    &textfile::ENTRY,
    &thermal_zone::ENTRY,
    &time::ENTRY,
    &timex::ENTRY,
    &udp_queues::ENTRY,
    &uname::ENTRY,
    &vmstat::ENTRY,
    &watchdog::ENTRY,
    &wifi::ENTRY,
    &xfrm::ENTRY,
    &xfs::ENTRY,
    &zfs::ENTRY,
    &zoneinfo::ENTRY,
];
