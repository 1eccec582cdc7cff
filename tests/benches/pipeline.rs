//! What the log path costs: log megabytes per CPU second into either sink. Run by `make bench`.
//!
//! The agent is the release binary in a process of its own and only its CPU time is counted, so that other load on
//! the machine moves the figures little and the server's speed not at all.

#![allow(
    dead_code,
    unused_imports,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints its figures, fails by panicking and uses a part of the tests' harness"
)]

#[path = "../e2e/support/mod.rs"]
mod support;

use std::{
    fs::{self, File},
    io::Write,
    thread,
    time::{Duration, Instant},
};

use support::{Agent, Elastic, LogDir, pods_config, same, seconds, wait_until};

const FILES: usize = 10;
const LINES_PER_FILE: usize = 40_000;

fn main() {
    store();
    elastic();
}

fn store() {
    let logs = LogDir::new();
    let agent = Agent::start(&pods_config(&logs), &[]);
    lines_per_cpu_second("logs into the local store", &agent, &logs);
}

fn elastic() {
    let (elastic, logs) = (Elastic::start(""), LogDir::new());
    let config = format!("{}elasticsearch: {{hosts: ['{}']}}\n", pods_config(&logs), elastic.url());
    let agent = Agent::start(&config, &[]);
    lines_per_cpu_second("logs into Elasticsearch", &agent, &logs);
}

fn lines_per_cpu_second(what: &str, agent: &Agent, logs: &LogDir) {
    let (cpu, start) = (cpu_seconds(agent.pid()), Instant::now());
    let bytes: usize = (0..FILES).map(|pod| fill(logs, pod)).sum();
    let total = (FILES * LINES_PER_FILE) as u64;
    wait_until("every line is delivered", seconds(600), || {
        // Its answers cost the agent CPU too: it is not asked often.
        thread::sleep(Duration::from_millis(250));
        let status = agent.admin("/api/v1/status").good()?;
        same(&status["ledger"]["acked_lines"].as_u64(), &Some(total))
    });
    let (cpu, wall) = (cpu_seconds(agent.pid()) - cpu, start.elapsed().as_secs_f64());
    let mib = bytes as f64 / f64::from(1 << 20);
    println!("{what}: {:.0} MiB per CPU second ({mib:.0} MiB, {total} lines, {wall:.1} s)", mib / cpu);
    println!("{what}: {} MiB resident at most", agent.peak_mib());
}

/// One pod's log of lines as web servers write them, at once; the number of its bytes.
fn fill(logs: &LogDir, pod: usize) -> usize {
    let path = logs.container("load", &format!("web-{pod}"), "nginx").path().to_owned();
    let mut text = Vec::new();
    for line in 0..LINES_PER_FILE {
        let (micros, client, order) = (line % 1_000_000, line % 251, line * 7919 % 100_000);
        writeln!(
            text,
            "2026-11-21T10:10:10.{micros:06}123Z stdout F 10.244.{pod}.{client} - - \"GET /api/v1/orders/{order}?page=3 \
             HTTP/1.1\" 200 {order} \"https://shop.example.com/cart\" \"Mozilla/5.0 (X11; Linux x86_64)\" 0.{client:03}"
        )
        .expect("memory takes it");
    }
    // Beside the file first: a rename shows it whole.
    let whole = path.with_extension("whole");
    File::create(&whole).and_then(|mut file| file.write_all(&text)).expect("the lines are written");
    fs::rename(whole, path).expect("the file is shown");
    text.len()
}

/// CPU seconds that a process has used, user and system, since it was started.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a running process");
    let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
    // `utime` and `stime` are fields 14 and 15; the state after the name is field 3.
    let ticks = fields.split_ascii_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.map(|field| field.parse::<u64>().expect("ticks")).sum();
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}
