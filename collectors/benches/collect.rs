//! What a scrape of the default collectors costs: `cargo bench --bench collect [-- SCRAPES [ROOT]]`, on this host or on a
//! machine made of files, with `proc`, `sys` and `udev/data` below ROOT.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use nodewarden_collectors::{Collector, Host, Options, Samples, Settings, node, text};
use rustix::time::{ClockId, clock_gettime};

fn main() -> std::io::Result<()> {
    let scrapes: u32 = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(1000);
    let host = match std::env::args().skip(1).find(|argument| argument.starts_with('/')) {
        None => Host::default(),
        Some(root) => Host {
            procfs: format!("{root}/proc").into(),
            sysfs: format!("{root}/sys").into(),
            udev_data: format!("{root}/udev/data").into(),
            ..Host::default()
        },
    };
    let settings = Settings::new();
    let mut collectors: Vec<(&str, Box<dyn Collector>, Duration)> = node::ALL
        .iter()
        .filter(|entry| entry.default_on)
        .filter_map(|entry| {
            let collector = (entry.build)(&host, &Options::new(entry, &settings)).ok()?;
            Some((entry.name, collector, Duration::ZERO))
        })
        .collect();
    let mut samples = Samples::new();
    let mut page = Vec::new();
    let mut printing = Duration::ZERO;
    let started = Instant::now();
    let mut before = cpu_time();
    for scrape in 0..=scrapes {
        // The first one opens files and fills buffers.
        if scrape == 1 {
            before = cpu_time();
        }
        samples.clear();
        for (_, collector, spent) in &mut collectors {
            let began = Instant::now();
            // What this host lacks is no matter here.
            let _ = collector.collect(&host, &mut samples);
            *spent += began.elapsed();
        }
        let began = Instant::now();
        page.clear();
        text::write(&samples, &mut page);
        printing += began.elapsed();
    }
    let cpu = cpu_time() - before;
    let mut out = std::io::stdout().lock();
    for (name, _, spent) in &collectors {
        writeln!(out, "{name:>14} {:8.1} µs", micros(*spent, scrapes))?;
    }
    writeln!(out, "{:>14} {:8.1} µs", "page", micros(printing, scrapes))?;
    let (series, bytes) = (samples.len(), page.len());
    writeln!(out, "{scrapes} scrapes of {series} samples, {bytes} bytes, in {:.2?}", started.elapsed())?;
    writeln!(out, "CPU per scrape: {:.1} µs", micros(cpu, scrapes))
}

fn micros(total: Duration, scrapes: u32) -> f64 {
    total.as_secs_f64() * 1e6 / f64::from(scrapes)
}

/// User and system time of this process.
fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}
