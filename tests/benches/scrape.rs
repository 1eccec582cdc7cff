//! What a scrape costs beside a real node_exporter's: on this host, on a big machine made of files, and how it grows.
//!
//! Only CPU time of the two processes is counted, and they take turns, so that what else the machine does meets both.
//! `UPDATE_PICTURE=1` draws the growth into `scrape.svg`.

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

mod picture;
#[path = "../e2e/support/mod.rs"]
mod support;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nodewarden_collectors::node;
use support::{
    Peer,
    machine::{Machine, Size},
    peer, repository, taken_port, temp_dir,
};

const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_secs(1);

fn main() {
    let defaults = defaults();
    println!("scrape: {} collectors", defaults.len() - 1);
    let host = Pair::start(&defaults);
    for encoding in ["gzip", "identity"] {
        host.compare(&format!("scrape of this host, {encoding}"), encoding, ROUNDS);
    }
    host.say_memory("scrape of this host");
    drop(host);
    start_to_first_answer(&defaults);
    let mut points = Vec::new();
    for (numerator, denominator) in [(1, 16), (1, 8), (1, 4), (1, 2), (1, 1), (2, 1)] {
        let directory = temp_dir();
        let machine = Machine::make(directory.path(), Size::BIG.scaled(numerator, denominator));
        let flags: Vec<String> = defaults.iter().cloned().chain(machine.flags()).collect();
        let is_whole = numerator == denominator;
        let what = format!("scrape of {numerator}/{denominator} of a big machine, {} files", machine.files());
        let pair = Pair::start(&flags);
        points.push(pair.compare(&what, "gzip", if is_whole { ROUNDS } else { 3 }));
        if is_whole {
            pair.say_memory(&what);
        }
    }
    if std::env::var_os("UPDATE_PICTURE").is_some() {
        let picture = picture::draw(&points);
        fs::write(repository().join("tests/benches/scrape.svg"), picture).expect("the picture is written");
    }
}

/// CPU milliseconds of a scrape with so many series.
pub struct Point {
    /// On the page.
    pub series: usize,
    /// Of nodewarden.
    pub ours: f64,
    /// Of node_exporter, where there is one.
    pub theirs: Option<f64>,
}

/// Both programs with the same flags; without a node_exporter ours alone.
struct Pair {
    agent: Agent,
    peer: Option<Peer>,
}

impl Pair {
    fn start(flags: &[String]) -> Self {
        Self { agent: Agent::start(flags), peer: peer::binary().map(|binary| Peer::start(&binary, flags)) }
    }

    fn compare(&self, what: &str, encoding: &str, rounds: usize) -> Point {
        let mut ours = Target::new(self.agent.child.id(), &self.agent.address);
        let mut theirs = self.peer.as_ref().map(|peer| Target::new(peer.pid(), &peer.address));
        for _ in 0..rounds {
            ours.round(encoding);
            theirs.iter_mut().for_each(|target| target.round(encoding));
        }
        let series = ours.connection.series();
        let cpu = median(&ours.rounds);
        println!("{what}: {series} series, {} bytes, nodewarden {cpu:.3} ms of CPU", ours.page_bytes);
        if let Some(theirs) = &theirs {
            let ratios: Vec<f64> = ours.rounds.iter().zip(&theirs.rounds).map(|(a, b)| a / b).collect();
            println!(
                "{what}: ratio {:.3} to node_exporter's {:.3} ms, median of {rounds} rounds",
                median(&ratios),
                median(&theirs.rounds)
            );
        }
        Point { series, ours: cpu, theirs: theirs.map(|theirs| median(&theirs.rounds)) }
    }

    fn say_memory(&self, what: &str) {
        // A program without logs and without its page, as node_exporter has neither.
        for (name, pid) in [
            ("nodewarden", Some(self.agent.child.id())),
            ("node_exporter", self.peer.as_ref().map(Peer::pid)),
        ] {
            if let Some(pid) = pid {
                println!("{what}: {name} {} KiB resident, {} at most", kib(pid, "VmRSS"), kib(pid, "VmHWM"));
            }
        }
    }
}

/// A line of `/proc/PID/status`.
fn kib(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
    number.and_then(|number| number.trim().parse().ok()).expect("a number of KiB")
}

/// Metrics alone: no logs, no page.
struct Agent {
    child: Child,
    address: String,
    _directory: tempfile::TempDir,
}

impl Agent {
    fn start(flags: &[String]) -> Self {
        let agent = Self::spawn(flags);
        let start = Instant::now();
        while TcpStream::connect(&agent.address).is_err() {
            assert!(start.elapsed() < Duration::from_secs(60), "it does not listen");
            thread::sleep(Duration::from_millis(1));
        }
        agent
    }

    fn spawn(flags: &[String]) -> Self {
        let directory = temp_dir();
        let config = directory.path().join("config.yaml");
        fs::write(&config, support::NO_LOGS).expect("the configuration is written");
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let address = port.expect("a free port").to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_nodewarden"));
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--state.dir={}", directory.path().join("state").display()));
        command.arg(format!("--web.listen-address={address}")).arg("--admin.listen-address=");
        command.args(flags).stdout(Stdio::null()).stderr(Stdio::null());
        Self { child: command.spawn().expect("nodewarden starts"), address, _directory: directory }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start_to_first_answer(flags: &[String]) {
    let times: Vec<f64> = (0..21)
        .map(|_| {
            let start = Instant::now();
            let agent = Agent::spawn(flags);
            let stream = loop {
                if let Ok(stream) = TcpStream::connect(&agent.address) {
                    break stream;
                }
                thread::sleep(Duration::from_micros(100));
            };
            Connection(BufReader::new(stream)).get("gzip");
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    println!("start to the first page: {:.1} ms, median of {}", median(&times), times.len());
}

/// A program that is scraped.
struct Target {
    pid: u32,
    connection: Connection,
    /// Milliseconds of CPU per request, one for each round.
    rounds: Vec<f64>,
    page_bytes: usize,
}

impl Target {
    fn new(pid: u32, address: &str) -> Self {
        let connection = Connection::open(address);
        let mut target = Self { pid, connection, rounds: Vec::new(), page_bytes: 0 };
        // The first scrapes open files and fill buffers.
        target.round("gzip");
        target.rounds.clear();
        target
    }

    fn round(&mut self, encoding: &str) {
        let (cpu, start, mut requests) = (cpu_seconds(self.pid), Instant::now(), 0);
        while start.elapsed() < ROUND {
            self.page_bytes = self.connection.get(encoding).len();
            requests += 1;
        }
        self.rounds.push((cpu_seconds(self.pid) - cpu) * 1e3 / f64::from(requests));
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// User and system time of a process so far.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a running process");
    let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
    // `utime` and `stime` are fields 14 and 15; the state after the name is field 3.
    let ticks = fields.split_ascii_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.map(|field| field.parse::<u64>().expect("ticks")).sum();
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// One connection kept open, as Prometheus keeps it.
struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(address: &str) -> Self {
        Self(BufReader::new(TcpStream::connect(address).expect("it listens")))
    }

    /// How many series the page has.
    fn series(&mut self) -> usize {
        let page = self.get("identity");
        page.split(|&byte| byte == b'\n').filter(|line| !line.is_empty() && !line.starts_with(b"#")).count()
    }

    /// The body of the page, as it came.
    fn get(&mut self, encoding: &str) -> Vec<u8> {
        let ask = format!("GET /metrics HTTP/1.1\r\nhost: bench\r\naccept-encoding: {encoding}\r\n\r\n");
        self.0.get_mut().write_all(ask.as_bytes()).expect("sent");
        assert_eq!(self.line().split(' ').nth(1), Some("200"));
        let (mut length, mut coding) = (None, "identity".to_owned());
        loop {
            let line = self.line().to_lowercase();
            match line.split_once(": ") {
                Some(("content-length", value)) => length = value.parse().ok(),
                Some(("content-encoding", value)) => value.clone_into(&mut coding),
                Some(_) => {}
                None => break,
            }
        }
        assert_eq!(coding, encoding);
        match length {
            Some(length) => self.take(length),
            None => self.chunks(),
        }
    }

    fn chunks(&mut self) -> Vec<u8> {
        let mut total = Vec::new();
        loop {
            let size = usize::from_str_radix(&self.line(), 16).expect("a chunk's size");
            total.extend(self.take(size));
            self.line();
            if size == 0 {
                return total;
            }
        }
    }

    fn take(&mut self, bytes: usize) -> Vec<u8> {
        let mut buffer = vec![0; bytes];
        self.0.read_exact(&mut buffer).expect("the whole body");
        buffer
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }
}

/// What is on by default, the same words for both programs.
fn defaults() -> Vec<String> {
    let on = node::ALL.iter().filter(|entry| entry.default_on);
    let on = on.map(|entry| format!("--collector.{}", entry.name));
    ["--collector.disable-defaults".to_owned()].into_iter().chain(on).collect()
}
