//! CPU of a scrape, beside a real node_exporter's with the same collectors on this host.

use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::{Child, ChildStderr, Command, Stdio},
    time::{Duration, Instant},
};

use nodewarden_collectors::node;

use crate::{
    cpu_seconds,
    support::{Agent, NO_LOGS, agent::peak_mib, repository},
};

/// The programs take turns, so that what else the machine does meets both.
const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_secs(1);

/// A program that is scraped.
struct Target {
    name: &'static str,
    pid: u32,
    connection: Connection,
    /// Microseconds of CPU per request, one for each round.
    rounds: Vec<f64>,
    page_bytes: usize,
}

/// Prints both programs' CPU per request and what part ours is; without a node_exporter only ours.
pub fn compare() {
    let flags = flags();
    let agent = Agent::start(NO_LOGS, &flags.iter().map(String::as_str).collect::<Vec<_>>());
    let exporter = node_exporter().map(|binary| Exporter::start(binary, &flags));
    if exporter.is_none() {
        println!("scrape: compared with nothing, no node_exporter in $NODE_EXPORTER or target/tools/bin");
    }
    for encoding in ["gzip", "identity"] {
        let mut targets = vec![Target::new("nodewarden", agent.pid(), &agent.metrics)];
        targets.extend(exporter.as_ref().map(|it| Target::new("node_exporter", it.child.id(), &it.address)));
        for _ in 0..ROUNDS {
            targets.iter_mut().for_each(|target| target.round(encoding));
        }
        say(encoding, &targets);
    }
    println!("scrape: nodewarden {} MiB resident at most", agent.peak_mib());
    if let Some(exporter) = exporter {
        println!("scrape: node_exporter {} MiB resident at most", peak_mib(exporter.child.id()));
    }
}

fn say(encoding: &str, targets: &[Target]) {
    for target in targets {
        let (name, cpu, bytes) = (target.name, median(&target.rounds), target.page_bytes);
        println!("scrape, {encoding}: {name} {cpu:.0} µs CPU per request of {bytes} bytes");
    }
    if let [ours, theirs] = targets {
        let ratios: Vec<f64> = ours.rounds.iter().zip(&theirs.rounds).map(|(a, b)| a / b).collect();
        println!(
            "scrape, {encoding}: ratio {:.3} to node_exporter, median of {ROUNDS} rounds",
            median(&ratios)
        );
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

impl Target {
    fn new(name: &'static str, pid: u32, address: &str) -> Self {
        let connection = Connection::open(address);
        Self { name, pid, connection, rounds: Vec::new(), page_bytes: 0 }
    }

    fn round(&mut self, encoding: &str) {
        let (cpu, start, mut requests) = (cpu_seconds(self.pid), Instant::now(), 0);
        while start.elapsed() < ROUND {
            self.page_bytes = self.connection.get(encoding);
            requests += 1;
        }
        self.rounds.push((cpu_seconds(self.pid) - cpu) * 1e6 / f64::from(requests));
    }
}

/// One connection kept open, as Prometheus keeps it.
struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(address: &str) -> Self {
        Self(BufReader::new(TcpStream::connect(address).expect("it listens")))
    }

    /// The number of bytes of the page's body.
    fn get(&mut self, encoding: &str) -> usize {
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
            Some(length) => self.skip(length),
            None => self.chunks(),
        }
    }

    fn chunks(&mut self) -> usize {
        let mut total = 0;
        loop {
            let size = usize::from_str_radix(&self.line(), 16).expect("a chunk's size");
            total += self.skip(size);
            self.line();
            if size == 0 {
                return total;
            }
        }
    }

    fn skip(&mut self, bytes: usize) -> usize {
        let mut buffer = vec![0; bytes];
        self.0.read_exact(&mut buffer).expect("the whole body");
        bytes
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }
}

/// The same words for both.
fn flags() -> Vec<String> {
    let collectors = node::ALL.iter().map(|entry| format!("--collector.{}", entry.name));
    ["--collector.disable-defaults".to_owned()].into_iter().chain(collectors).collect()
}

fn node_exporter() -> Option<PathBuf> {
    let named = env::var_os("NODE_EXPORTER").map(PathBuf::from);
    let built = repository().join("target/tools/bin/node_exporter");
    named.into_iter().chain([built]).find(|path| path.is_file())
}

struct Exporter {
    child: Child,
    address: String,
    /// Closed, it would end the program with its next line of log.
    _log: BufReader<ChildStderr>,
}

impl Exporter {
    fn start(binary: PathBuf, flags: &[String]) -> Self {
        let mut command = Command::new(binary);
        command.arg("--web.listen-address=127.0.0.1:0").args(flags).stderr(Stdio::piped());
        let mut child = command.spawn().expect("node_exporter starts");
        let mut log = BufReader::new(child.stderr.take().expect("it was piped"));
        let address = loop {
            let mut line = String::new();
            assert!(log.read_line(&mut line).expect("read") > 0, "it says where it listens");
            if let Some((_, address)) = line.split_once("msg=\"Listening on\" address=") {
                break address.trim().to_owned();
            }
        };
        Self { child, address, _log: log }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
