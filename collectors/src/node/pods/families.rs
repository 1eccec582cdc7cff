//! The families that are said, with cAdvisor's names, types and help texts.

use super::{
    devices::Devices,
    network::Interface,
    usage::{Io, Usage},
};
use crate::{Desc, Samples};

/// What every series says of whose it is, in cAdvisor's words.
#[derive(Debug, Clone, Copy)]
pub struct Labels<'a> {
    /// The container's name in the pod; empty for the pod as a whole.
    pub container: &'a str,
    /// The path of the control group.
    pub id: &'a str,
    /// As written in the manifest, where the cluster tells; else empty.
    pub image: &'a str,
    /// The runtime's id of the container.
    pub name: &'a str,
    pub namespace: &'a str,
    pub pod: &'a str,
}

const PLAIN_LABELS: &[&str] = &["container", "id", "image", "name", "namespace", "pod"];
const DEVICE_LABELS: &[&str] = &["container", "device", "id", "image", "name", "namespace", "pod"];
const INTERFACE_LABELS: &[&str] = &["container", "id", "image", "interface", "name", "namespace", "pod"];

/// A family with one sample for each control group that has the value.
struct Plain {
    desc: Desc,
    value: fn(&Usage) -> Option<f64>,
}

/// A family with a sample for each block device, or each network interface.
struct Counted<T> {
    desc: Desc,
    value: fn(&T) -> u64,
}

const fn gauge(name: &'static str, help: &'static str, value: fn(&Usage) -> Option<f64>) -> Plain {
    Plain { desc: Desc::gauge(name, help, PLAIN_LABELS), value }
}

const fn counter(name: &'static str, help: &'static str, value: fn(&Usage) -> Option<f64>) -> Plain {
    Plain { desc: Desc::counter(name, help, PLAIN_LABELS), value }
}

const fn of_device(name: &'static str, help: &'static str, value: fn(&Io) -> u64) -> Counted<Io> {
    Counted { desc: Desc::counter(name, help, DEVICE_LABELS), value }
}

const fn of_interface(
    name: &'static str,
    help: &'static str,
    value: fn(&Interface) -> u64,
) -> Counted<Interface> {
    Counted { desc: Desc::counter(name, help, INTERFACE_LABELS), value }
}

fn plain(value: Option<u64>) -> Option<f64> {
    value.map(|value| value as f64)
}

fn of_nanoseconds(value: Option<u64>) -> Option<f64> {
    value.map(|nanoseconds| nanoseconds as f64 / 1e9)
}

fn of_microseconds(value: Option<u64>) -> Option<f64> {
    value.map(|microseconds| microseconds as f64 / 1e6)
}

/// What is said only of a control group whose CPU time is limited.
fn limited(usage: &Usage, value: Option<f64>) -> Option<f64> {
    usage.cpu.quota.and(value)
}

static CPU_USAGE: Desc = Desc::counter(
    "container_cpu_usage_seconds_total",
    "Cumulative cpu time consumed in seconds.",
    &["container", "cpu", "id", "image", "name", "namespace", "pod"],
);
static MEMORY_FAILURES: Desc = Desc::counter(
    "container_memory_failures_total",
    "Cumulative count of memory allocation failures.",
    &["container", "failure_type", "id", "image", "name", "namespace", "pod", "scope"],
);
static LAST_SEEN: Desc =
    Desc::gauge("container_last_seen", "Last time a container was seen by the exporter", PLAIN_LABELS);
static START_TIME: Desc = Desc::gauge(
    "container_start_time_seconds",
    "Start time of the container since unix epoch in seconds.",
    PLAIN_LABELS,
);

static PLAIN: [Plain; 34] = [
    counter("container_cpu_user_seconds_total", "Cumulative user cpu time consumed in seconds.", |usage| {
        of_nanoseconds(usage.cpu.user)
    }),
    counter(
        "container_cpu_system_seconds_total",
        "Cumulative system cpu time consumed in seconds.",
        |usage| of_nanoseconds(usage.cpu.system),
    ),
    counter("container_cpu_cfs_periods_total", "Number of elapsed enforcement period intervals.", |usage| {
        limited(usage, plain(usage.cpu.periods))
    }),
    counter("container_cpu_cfs_throttled_periods_total", "Number of throttled period intervals.", |usage| {
        limited(usage, plain(usage.cpu.throttled_periods))
    }),
    counter(
        "container_cpu_cfs_throttled_seconds_total",
        "Total time duration the container has been throttled.",
        |usage| limited(usage, of_nanoseconds(usage.cpu.throttled)),
    ),
    counter("container_cpu_cfs_burst_periods_total", "Number of periods when burst occurs.", |usage| {
        limited(usage, plain(usage.cpu.burst_periods))
    }),
    counter(
        "container_cpu_cfs_burst_seconds_total",
        "Total time duration the container has been bursted.",
        |usage| limited(usage, of_nanoseconds(usage.cpu.burst)),
    ),
    gauge("container_spec_cpu_period", "CPU period of the container.", |usage| plain(usage.cpu.period)),
    gauge("container_spec_cpu_quota", "CPU quota of the container.", |usage| plain(usage.cpu.quota)),
    gauge("container_spec_cpu_shares", "CPU share of the container.", |usage| plain(usage.cpu.shares)),
    gauge("container_memory_cache", "Number of bytes of page cache memory.", |usage| {
        plain(usage.memory.cache)
    }),
    gauge("container_memory_rss", "Size of RSS in bytes.", |usage| plain(usage.memory.rss)),
    gauge("container_memory_kernel_usage", "Size of kernel memory allocated in bytes.", |usage| {
        plain(usage.memory.kernel)
    }),
    gauge("container_memory_mapped_file", "Size of memory mapped files in bytes.", |usage| {
        plain(usage.memory.mapped_file)
    }),
    gauge("container_memory_swap", "Container swap usage in bytes.", |usage| plain(usage.memory.swap)),
    counter("container_memory_failcnt", "Number of memory usage hits limits", |usage| {
        plain(usage.memory.limit_hits)
    }),
    gauge(
        "container_memory_usage_bytes",
        "Current memory usage in bytes, including all memory regardless of when it was accessed",
        |usage| plain(usage.memory.usage),
    ),
    gauge("container_memory_max_usage_bytes", "Maximum memory usage recorded in bytes", |usage| {
        plain(usage.memory.max_usage)
    }),
    gauge("container_memory_working_set_bytes", "Current working set in bytes.", |usage| {
        plain(usage.memory.working_set())
    }),
    gauge("container_memory_total_active_file_bytes", "Current total active file in bytes.", |usage| {
        plain(usage.memory.active_file)
    }),
    gauge("container_memory_total_inactive_file_bytes", "Current total inactive file in bytes.", |usage| {
        plain(usage.memory.inactive_file)
    }),
    counter(
        "container_oom_events_total",
        "Count of out of memory events observed for the container",
        |usage| plain(usage.memory.oom_kills),
    ),
    gauge("container_spec_memory_limit_bytes", "Memory limit for the container.", |usage| {
        plain(usage.memory.limit)
    }),
    gauge("container_spec_memory_swap_limit_bytes", "Memory swap limit for the container.", |usage| {
        plain(usage.memory.swap_limit)
    }),
    gauge(
        "container_spec_memory_reservation_limit_bytes",
        "Memory reservation limit for the container.",
        |usage| plain(usage.memory.reservation),
    ),
    gauge("container_processes", "Number of processes running inside the container.", |usage| {
        plain(usage.processes)
    }),
    gauge("container_threads", "Number of threads running inside the container", |usage| {
        plain(usage.threads)
    }),
    gauge(
        "container_threads_max",
        "Maximum number of threads allowed inside the container, infinity if value is zero",
        |usage| plain(usage.threads_max),
    ),
    counter(
        "container_pressure_cpu_stalled_seconds_total",
        "Total time duration no tasks in the container could make progress due to CPU congestion.",
        |usage| of_microseconds(usage.pressure.cpu.full),
    ),
    counter(
        "container_pressure_cpu_waiting_seconds_total",
        "Total time duration tasks in the container have waited due to CPU congestion.",
        |usage| of_microseconds(usage.pressure.cpu.some),
    ),
    counter(
        "container_pressure_memory_stalled_seconds_total",
        "Total time duration no tasks in the container could make progress due to memory congestion.",
        |usage| of_microseconds(usage.pressure.memory.full),
    ),
    counter(
        "container_pressure_memory_waiting_seconds_total",
        "Total time duration tasks in the container have waited due to memory congestion.",
        |usage| of_microseconds(usage.pressure.memory.some),
    ),
    counter(
        "container_pressure_io_stalled_seconds_total",
        "Total time duration no tasks in the container could make progress due to IO congestion.",
        |usage| of_microseconds(usage.pressure.io.full),
    ),
    counter(
        "container_pressure_io_waiting_seconds_total",
        "Total time duration tasks in the container have waited due to IO congestion.",
        |usage| of_microseconds(usage.pressure.io.some),
    ),
];

static IO: [Counted<Io>; 4] = [
    of_device("container_fs_reads_bytes_total", "Cumulative count of bytes read", |io| io.read_bytes),
    of_device("container_fs_reads_total", "Cumulative count of reads completed", |io| io.reads),
    of_device("container_fs_writes_bytes_total", "Cumulative count of bytes written", |io| io.written_bytes),
    of_device("container_fs_writes_total", "Cumulative count of writes completed", |io| io.writes),
];

static NETWORK: [Counted<Interface>; 8] = [
    of_interface("container_network_receive_bytes_total", "Cumulative count of bytes received", |it| {
        it.received.bytes
    }),
    of_interface("container_network_receive_packets_total", "Cumulative count of packets received", |it| {
        it.received.packets
    }),
    of_interface(
        "container_network_receive_packets_dropped_total",
        "Cumulative count of packets dropped while receiving",
        |it| it.received.dropped,
    ),
    of_interface(
        "container_network_receive_errors_total",
        "Cumulative count of errors encountered while receiving",
        |it| it.received.errors,
    ),
    of_interface("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", |it| {
        it.sent.bytes
    }),
    of_interface(
        "container_network_transmit_packets_total",
        "Cumulative count of packets transmitted",
        |it| it.sent.packets,
    ),
    of_interface(
        "container_network_transmit_packets_dropped_total",
        "Cumulative count of packets dropped while transmitting",
        |it| it.sent.dropped,
    ),
    of_interface(
        "container_network_transmit_errors_total",
        "Cumulative count of errors encountered while transmitting",
        |it| it.sent.errors,
    ),
];

/// Says the figures of a control group.
pub fn say(labels: &Labels, usage: &Usage, times: Times, devices: &mut Devices, out: &mut Samples) {
    let Labels { container, id, image, name, namespace, pod } = *labels;
    let of_all = [container, id, image, name, namespace, pod];
    for family in &PLAIN {
        if let Some(value) = (family.value)(usage) {
            out.push(&family.desc, &of_all, value);
        }
    }
    out.push(&LAST_SEEN, &of_all, times.now as f64);
    if let Some(started) = times.started {
        out.push(&START_TIME, &of_all, started as f64);
    }
    if let Some(seconds) = of_nanoseconds(usage.cpu.usage) {
        out.push(&CPU_USAGE, &[container, "total", id, image, name, namespace, pod], seconds);
    }
    let failures = [("pgfault", usage.memory.page_faults), ("pgmajfault", usage.memory.major_page_faults)];
    for (kind, counts) in failures {
        for (scope, count) in ["container", "hierarchy"].into_iter().zip(counts) {
            if let Some(count) = count {
                let labels = [container, kind, id, image, name, namespace, pod, scope];
                out.push(&MEMORY_FAILURES, &labels, count as f64);
            }
        }
    }
    for io in &usage.io {
        let labels = [container, devices.name(io.device), id, image, name, namespace, pod];
        for family in &IO {
            out.push(&family.desc, &labels, (family.value)(io) as f64);
        }
    }
}

/// Says what went through an interface of a pod.
pub fn say_interface(labels: &Labels, interface: &str, counts: &Interface, out: &mut Samples) {
    let Labels { container, id, image, name, namespace, pod } = *labels;
    for family in &NETWORK {
        let labels = [container, id, image, interface, name, namespace, pod];
        out.push(&family.desc, &labels, (family.value)(counts) as f64);
    }
}

/// Seconds since the epoch.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    pub now: i64,
    /// When the control group was made.
    pub started: Option<i64>,
}
