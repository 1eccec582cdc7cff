//! What files cost that nobody writes to: CPU seconds a minute and memory, by number of files. `QUIET_SECONDS` sets how long
//! each is measured.

use std::{fs, thread, time::Duration};

use super::{
    builds, called, number_of,
    sink::Sink,
    support::{Agent, Launch, LogDir, Stream, pods_config, same, seconds, wait_until},
};

/// With the collectors and without.
const FLAGS: [&[&str]; 2] = [&[], &["--collector.disable-defaults"]];
/// Until files that were read count as quiet.
const SETTLE: Duration = Duration::from_secs(20);

/// Measures both sinks.
pub fn quiet() {
    let time = number_of("QUIET_SECONDS", 60) as u64;
    let (sink, logs) = (Sink::start(), LogDir::new());
    let mut made = 0;
    for files in [500, 10_000] {
        for pod in made..files {
            logs.container("shop", &format!("web-{pod}"), "nginx").line(Stream::Stdout, "one line");
        }
        made = files;
        let local = format!("store: {{min_free: 0%}}\n{}", pods_config(&logs));
        let elastic =
            format!("{}elasticsearch: {{hosts: ['http://{}']}}\n", pods_config(&logs), sink.address);
        for (what, config) in [("local store", local), ("bulk server", elastic)] {
            for (build, flags) in builds().iter().flat_map(|build| FLAGS.map(|flags| (build.clone(), flags)))
            {
                let (cpu, kib) = idle(&build, &config, flags, files as u64, time);
                println!(
                    "{files} quiet files{}, {what} {}: {:.3} CPU seconds a minute, {:.1} MiB resident",
                    called(&build),
                    flags.join(" "),
                    cpu * 60.0 / time as f64,
                    kib as f64 / 1024.0
                );
            }
        }
    }
}

/// CPU seconds in so many seconds once all lines are delivered, and KiB resident then.
fn idle(build: &Launch, config: &str, flags: &[&str], lines: u64, time: u64) -> (f64, u64) {
    let agent = Agent::start_as(build.clone(), config, flags);
    wait_until("every line is delivered", seconds(600), || {
        thread::sleep(Duration::from_millis(250));
        let status = agent.admin("/api/v1/status").good()?;
        same(&status["ledger"]["acked_lines"].as_u64(), &Some(lines))
    });
    thread::sleep(SETTLE);
    let before = fine_cpu_seconds(agent.pid());
    thread::sleep(seconds(time));
    (fine_cpu_seconds(agent.pid()) - before, resident_kib(agent.pid()))
}

/// CPU seconds of the threads that are there, to the nanosecond: ticks are too coarse for so little.
fn fine_cpu_seconds(pid: u32) -> f64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("a running process");
    let nanos = threads.flatten().filter_map(|thread| {
        let stat = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        stat.split(' ').next()?.parse::<u64>().ok()
    });
    nanos.sum::<u64>() as f64 / 1e9
}

fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    kib.trim().trim_end_matches(" kB").parse().expect("a number")
}
