//! The real node_exporter as a process, and how its pages are compared with ours.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]
#![allow(clippy::disallowed_methods, reason = "the program to compare with is another program")]

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::{self, File},
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Where node_exporter is: `$NODE_EXPORTER`, else where `tests/servers/install.sh` builds it; without one the test that
/// asks says so and passes.
pub fn binary() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent()?.join("tools/bin/node_exporter");
    let named = std::env::var_os("NODE_EXPORTER").map(PathBuf::from);
    let found = named.into_iter().chain([target]).find(|path| path.is_file());
    if found.is_none() {
        eprintln!("SKIPPED: no node_exporter in $NODE_EXPORTER or target/tools/bin");
    }
    found
}

/// A running node_exporter on a port of its own; it ends with the value.
pub struct Peer {
    child: Child,
    /// `127.0.0.1:PORT`.
    pub address: String,
    dir: tempfile::TempDir,
}

impl Peer {
    /// Starts it with these flags where there is one.
    pub fn if_there(flags: &[&str]) -> Option<Self> {
        Some(Self::start(&binary()?, flags))
    }

    /// Starts it with these flags.
    pub fn start(binary: &Path, flags: &[impl AsRef<str>]) -> Self {
        Self::try_start(binary, flags).unwrap_or_else(|log| panic!("it did not start: {log}"))
    }

    /// As `start`; its log when it ends at once.
    #[allow(clippy::disallowed_methods, reason = "the program to compare with is another program")]
    pub fn try_start(binary: &Path, flags: &[impl AsRef<str>]) -> Result<Self, String> {
        Self::spawn(Command::new(binary), flags)
    }

    /// Starts it with a command that may be a wrapper around it; its log when it ends at once.
    pub fn spawn(mut command: Command, flags: &[impl AsRef<str>]) -> Result<Self, String> {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory");
        let log = File::create(dir.path().join("log")).expect("a log file");
        command.arg("--web.listen-address=127.0.0.1:0");
        command.args(flags.iter().map(AsRef::as_ref)).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().expect("node_exporter starts");
        let mut peer = Self { child, address: String::new(), dir };
        peer.address = peer.wait_for_address()?;
        Ok(peer)
    }

    fn wait_for_address(&mut self) -> Result<String, String> {
        let start = Instant::now();
        loop {
            let log = self.log();
            let listening = log.lines().find_map(|line| line.split_once("msg=\"Listening on\" address="));
            // Not before the line is whole.
            if let Some((_, address)) = listening.filter(|_| log.ends_with('\n')) {
                return Ok(address.trim().to_owned());
            }
            if self.child.try_wait().expect("its state").is_some()
                || start.elapsed() > Duration::from_secs(60)
            {
                return Err(log);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// The body of its answer, or what came instead; nothing comes when it has died of the request.
    pub fn get(&self, path: &str) -> Result<String, String> {
        let mut answer = Vec::new();
        let asked = TcpStream::connect(&self.address).and_then(|mut stream| {
            write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
            stream.read_to_end(&mut answer)
        });
        let answer = asked.map(|_| String::from_utf8_lossy(&answer)).map_err(|error| error.to_string())?;
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if head.starts_with("HTTP/1.0 200") => Ok(body.to_owned()),
            _ => Err(answer.into_owned()),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended already: then there is nothing to kill, and that is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Families that a program says of itself, not of the host.
const OWN: &[&str] = &["go_", "nodewarden_", "node_exporter_build_info", "process_", "promhttp_"];

/// What no two programs say alike: how long a scrape took, and counters that begin when a program starts counting.
const VALUE_OF_ITS_OWN: &[&str] = &["node_scrape_collector_duration_seconds", "node_perf_"];

/// A page taken apart: its lines in order without the values, and the values as they are written.
#[derive(Debug, Default)]
pub struct Page {
    /// HELP and TYPE lines whole, of samples name and labels.
    pub lines: Vec<String>,
    /// Series to value.
    pub values: HashMap<String, String>,
}

impl Page {
    /// Takes a page apart and leaves out what is about the program.
    pub fn parse(text: &str) -> Self {
        let mut page = Self::default();
        for line in text.lines().filter(|line| !is_own(line)) {
            if line.starts_with('#') {
                page.lines.push(line.to_owned());
                continue;
            }
            let (series, value) = line.rsplit_once(' ').expect("a sample");
            page.lines.push(series.to_owned());
            page.values.insert(series.to_owned(), value.to_owned());
        }
        page
    }

    /// The names of the collectors that failed.
    pub fn failed(&self) -> BTreeSet<&str> {
        self.success().filter(|(_, value)| *value == "0").map(|(name, _)| name).collect()
    }

    /// The names of all collectors that were asked.
    pub fn collectors(&self) -> BTreeSet<&str> {
        self.success().map(|(name, _)| name).collect()
    }

    fn success(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().filter_map(|(series, value)| {
            let rest = series.strip_prefix("node_scrape_collector_success{collector=\"")?;
            Some((rest.strip_suffix("\"}")?, value.as_str()))
        })
    }
}

/// Whether a line is about the program.
pub fn is_own(line: &str) -> bool {
    begins(family(line), OWN)
}

/// The family that a line of a page is about.
pub fn family(line: &str) -> &str {
    let name = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE ")).unwrap_or(line);
    name.split([' ', '{']).next().unwrap_or_default()
}

/// Whether a name begins with one of these.
pub fn begins(name: &str, with: &[&str]) -> bool {
    with.iter().any(|prefix| name.starts_with(prefix))
}

/// How often pages are fetched until they agree.
const ROUNDS: usize = 60;

/// What our page says unlike node_exporter's in every one of many rounds, one line each; empty when they agree.
///
/// A round asks the peer, then us, then the peer. Series, HELP and TYPE lines and their order agree when they are those of
/// one of the peer's pages. A value agrees when it is written as in one of them or lies between the two: so a counter is
/// bracketed, a gauge that moves too, and what did not move must be equal to the byte. What jitters on its own (free
/// memory, running processes) or changes between two requests is not always between: it must agree in one round, and
/// a wrong unit or field never does.
pub fn differences(peer: impl Fn() -> String, ours: impl Fn() -> String) -> Vec<String> {
    let mut left: Option<BTreeMap<String, String>> = None;
    for _ in 0..ROUNDS {
        let [before, own, after] =
            [&peer as &dyn Fn() -> String, &ours, &peer].map(|page| Page::parse(&page()));
        let found = round(&before, &own, &after);
        let still = match left.take() {
            Some(earlier) => earlier.into_iter().filter(|(what, _)| found.contains_key(what)).collect(),
            None => found,
        };
        if still.is_empty() {
            return Vec::new();
        }
        left = Some(still);
    }
    left.unwrap_or_default().into_values().collect()
}

/// What differs in one round: a key that is the same in every round, and the words for it.
fn round(before: &Page, own: &Page, after: &Page) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let [old, mine, new] = [before, own, after].map(|page| page.lines.iter().collect::<BTreeSet<_>>());
    for line in mine.iter().filter(|line| !old.contains(*line) && !new.contains(*line)) {
        found.insert(format!("+ {line}"), format!("+ {line}"));
    }
    for line in old.iter().filter(|line| new.contains(*line) && !mine.contains(*line)) {
        found.insert(format!("- {line}"), format!("- {line}"));
    }
    if found.is_empty() && own.lines != before.lines && own.lines != after.lines {
        found.insert("order".to_owned(), "the same lines in another order, or some twice".to_owned());
    }
    for (series, value) in &own.values {
        let (Some(least), Some(most)) = (before.values.get(series), after.values.get(series)) else {
            continue;
        };
        if !begins(series, VALUE_OF_ITS_OWN) && !agrees(value, least, most) {
            found.insert(format!("~ {series}"), format!("~ {series}: {value}, not {least} to {most}"));
        }
    }
    found
}

fn agrees(value: &str, before: &str, after: &str) -> bool {
    let number = |text: &str| text.parse::<f64>().unwrap_or(f64::NAN);
    let (number_of, before_of, after_of) = (number(value), number(before), number(after));
    let between = before_of.min(after_of) < number_of && number_of < before_of.max(after_of);
    value == before || value == after || between
}
