//! What the log path costs: log megabytes per CPU second into either sink. Run by `make bench`.
//!
//! The agent is the release binary in a process of its own and only its CPU time is counted, so that other load on
//! the machine moves the figures little and the server's speed not at all.
//!
//! The catch-up of a backlog goes to a bulk server that only counts ([`sink`]), by turns with a program that does only what
//! nobody can leave out ([`ceiling`]): absolute figures differ from machine to machine and from hour to hour, their ratio in
//! one run does not. `CATCH_UP_MB` sets the size of the backlog. `AGAINST` are other builds of the agent, paths with colons
//! between them, which are measured by turns with this one.
//!
//! `shaping` is the same catch-up of files that no rule is for: with rules and redaction for others and stack traces put
//! together, as they are by default, by turns with none of that.
//!
//! `latency` is the time from a line's write to its delivery, and from the agent's start to its first document.
//! `LATENCY_SECONDS` sets how long lines are written.

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

#[path = "pipeline/ceiling.rs"]
mod ceiling;
#[path = "pipeline/latency.rs"]
mod latency;
#[path = "pipeline/quiet.rs"]
mod quiet;
#[path = "pipeline/sink.rs"]
mod sink;
#[path = "../e2e/support/mod.rs"]
mod support;

use std::{
    env,
    fs::{self, File},
    io::Write,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use sink::Sink;
use support::{Agent, Elastic, Launch, LogDir, pods_config, same, seconds, wait_until};

const FILES: usize = 10;
const LINES_PER_FILE: usize = 40_000;
/// Of each figure of the catch-up the median counts.
const ROUNDS: usize = 3;
/// Pairs of runs, which differ by little.
const SHAPING_ROUNDS: usize = 7;
/// The backlog before the first document: more than is read before that.
const FIRST_DOCUMENT_MB: usize = 200;

fn main() {
    // `catch-up`, `shaping`, `latency` and `quiet` need no server. Beside them cargo gives options of its own.
    let parts: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|wanted| wanted == part);
    if wanted("sinks") {
        store();
        elastic();
    }
    if wanted("latency") {
        let (time, backlog) = (number_of("LATENCY_SECONDS", 30) as u64, Backlog::new(FIRST_DOCUMENT_MB));
        for build in builds() {
            latency::steady(&build, Duration::from_secs(time));
            latency::first_document(&build, &backlog);
        }
    }
    if wanted("catch-up") {
        catch_up();
    }
    if wanted("shaping") {
        shaping();
    }
    if wanted("quiet") {
        quiet::quiet();
    }
}

/// A number that whoever measures may set.
fn number_of(variable: &str, usual: usize) -> usize {
    env::var(variable).map_or(usual, |value| value.parse().expect("a number"))
}

/// What is wanted of other files, with traces in all.
const FOR_OTHERS: &str = "  multiline: auto
  rules:
    - drop: {namespace: other, match: 'GET /healthz'}
    - sample: {namespace: other, one_of: 10, below: info}
    - collapse: {namespace: other, within: 30s}
  redact:
    rules: [{match: 'password=\\S+', namespace: other}]
";

/// What others want of their lines costs these files.
fn shaping() {
    let backlog = Backlog::new(number_of("CATCH_UP_MB", 1000));
    let sink = Sink::start();
    let (mut ratios, mut speeds) = (Vec::new(), Vec::new());
    for round in 0..SHAPING_ROUNDS {
        let cpu = |logs| agent_cpu(&Launch::default(), &backlog, &sink, 0, logs).0;
        // Who is first changes, too.
        let (without, with) = if round % 2 == 0 {
            let without = cpu("  multiline: off\n");
            (without, cpu(FOR_OTHERS))
        } else {
            let with = cpu(FOR_OTHERS);
            (cpu("  multiline: off\n"), with)
        };
        ratios.push(without / with);
        speeds.push(backlog.megabytes() / with);
    }
    println!(
        "files without rules, beside rules for others: {:.0} MB of log per CPU second, {:.3} of what it is without any",
        median(speeds),
        median(ratios)
    );
}

/// A backlog of CRI lines into the counting sink, agent and ceiling by turns, each on one core and the sink on another.
fn catch_up() {
    let backlog = Backlog::new(number_of("CATCH_UP_MB", 2000));
    let all = sched_getaffinity(None).expect("the cores");
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| all.is_set(*core)).collect();
    on_core(cores[cores.len() - 1]);
    let sink = Sink::start();
    on_core(cores[0]);
    for (what, level) in [("plain", 0), ("gzip", 1)] {
        let mut figures: Vec<_> = builds().into_iter().map(|build| (build, Figures::default())).collect();
        let (mut ceilings, mut ceiling_bytes) = (Vec::new(), 0);
        for _ in 0..ROUNDS {
            for (build, figures) in &mut figures {
                let (cpu, mib) = agent_cpu(build, &backlog, &sink, level, "");
                figures.speeds.push(backlog.megabytes() / cpu);
                figures.peak_mib = figures.peak_mib.max(mib);
                figures.bytes = sink.take_bytes();
            }
            ceilings.push(backlog.megabytes() / ceiling::run(&backlog.files, sink.address, level));
            ceiling_bytes = sink.take_bytes();
        }
        let ceiling = median(ceilings);
        for (build, figures) in figures {
            let speed = median(figures.speeds);
            println!(
                "catch-up{}, {what}: {speed:.0} MB of log per CPU second, {:.2} of the ceiling's {ceiling:.0}; {} MiB \
                 resident at most; bodies of {} and {} MB",
                called(&build),
                speed / ceiling,
                figures.peak_mib,
                figures.bytes / 1_000_000,
                ceiling_bytes / 1_000_000
            );
        }
    }
    sched_setaffinity(None, &all).expect("every core");
}

/// What was measured of a build.
#[derive(Default)]
struct Figures {
    speeds: Vec<f64>,
    peak_mib: u64,
    bytes: u64,
}

/// The build that cargo just made, and those it is to be compared with.
fn builds() -> Vec<Launch> {
    let others = env::var("AGAINST").unwrap_or_default();
    let others = others.split(':').filter(|path| !path.is_empty()).map(|path| Some(path.to_owned()));
    [None].into_iter().chain(others).map(|binary| Launch { binary, ..Launch::default() }).collect()
}

/// How a build is called beside the one that cargo made.
fn called(build: &Launch) -> String {
    build.binary.as_ref().map_or_else(String::new, |path| format!(" of {path}"))
}

/// Log files that wait to be read.
struct Backlog {
    logs: LogDir,
    files: Vec<PathBuf>,
    bytes: usize,
    lines: u64,
}

impl Backlog {
    fn new(megabytes: usize) -> Self {
        let mut backlog = Self { logs: LogDir::new(), files: Vec::new(), bytes: 0, lines: 0 };
        for pod in 0..FILES {
            let path = backlog.logs.container("load", &format!("web-{pod}"), "nginx").path().to_owned();
            let mut text = Vec::new();
            while text.len() < megabytes * 1_000_000 / FILES {
                access_line(pod, backlog.lines as usize, &mut text);
                backlog.lines += 1;
            }
            fs::write(&path, &text).expect("the lines are written");
            backlog.bytes += text.len();
            backlog.files.push(path);
        }
        backlog
    }

    fn megabytes(&self) -> f64 {
        self.bytes as f64 / 1e6
    }
}

/// A line of about 290 bytes as containerd writes it for an ingress controller.
fn access_line(pod: usize, line: usize, text: &mut Vec<u8>) {
    // Multiplying by an odd number mixes the digits, and gives the same lines each time.
    let mixed = (line as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let (client, order, trace) = (mixed >> 56, mixed >> 44 & 0xffff, mixed ^ mixed >> 29);
    writeln!(
        text,
        "2026-11-21T10:{:02}:{:02}.{:09}Z stdout F 10.244.{pod}.{client} - - [21/Nov/2026:10:{:02}:{:02} +0000] \
         \"GET /api/v1/orders/{order}?page=3 HTTP/1.1\" 200 {order} \"https://shop.example.com/cart\" \
         \"Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/145.0\" 0.{client:03} shop-web-80 {trace:016x}",
        line / 60_000 % 60,
        line / 1000 % 60,
        mixed >> 35,
        line / 60_000 % 60,
        line / 1000 % 60,
    )
    .expect("memory takes it");
}

/// CPU seconds of an agent for the whole backlog, and its peak memory in MiB. `logs` are further keys of that section.
fn agent_cpu(build: &Launch, backlog: &Backlog, sink: &Sink, level: u32, logs: &str) -> (f64, u64) {
    let config = format!(
        "{}  start: {{first_run: 1Ti}}\n{logs}elasticsearch: {{hosts: ['http://{}'], compression: {level}}}\n",
        pods_config(&backlog.logs),
        sink.address
    );
    let agent = Agent::start_as(build.clone(), &config, &[]);
    wait_for(&agent, backlog.lines);
    (cpu_seconds(agent.pid()), agent.peak_mib())
}

/// From now on this thread and what it starts run on this core.
fn on_core(core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).expect("a core of one's own");
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
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
    wait_for(agent, total);
    let (cpu, wall) = (cpu_seconds(agent.pid()) - cpu, start.elapsed().as_secs_f64());
    let mib = bytes as f64 / f64::from(1 << 20);
    println!("{what}: {:.0} MiB per CPU second ({mib:.0} MiB, {total} lines, {wall:.1} s)", mib / cpu);
    println!("{what}: {} MiB resident at most", agent.peak_mib());
}

fn wait_for(agent: &Agent, lines: u64) {
    wait_until("every line is delivered", seconds(600), || {
        // Its answers cost the agent CPU too: it is not asked often.
        thread::sleep(Duration::from_millis(250));
        let status = agent.admin("/api/v1/status").good()?;
        same(&status["ledger"]["acked_lines"].as_u64(), &Some(lines))
    });
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
