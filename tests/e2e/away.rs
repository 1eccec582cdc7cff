//! Elasticsearch away while pods write and the kubelet deletes all but three of their files, in a cgroup of 64 MiB. With a large
//! enough store nothing is lost; with one that is too small what is missing is counted, to the byte. `make test` takes a short
//! turn, `make soak` one of `SOAK_SECONDS`.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::{
    elastic::{assert_same_texts, shipping},
    media::{beside, compress, rotated},
    support::{Agent, Cgroup, Chance, Elastic, Launch, LogDir, LogFile, Stream, same, seconds, wait_until},
};

/// Of the cgroup, in bytes.
const MEMORY: u64 = 64 << 20;
/// Lines between two rotations, about 240 bytes each.
const LINES: usize = 1000;
/// In the long turn a rotation a second is enough: Elasticsearch takes all of it within some minutes.
const PACE: Duration = Duration::from_secs(1);

/// A container that writes fast, and a kubelet that keeps three files of it.
struct Busy {
    file: LogFile,
    chance: Chance,
    /// Bytes that each line takes in its file.
    sizes: BTreeMap<String, u64>,
    written: Vec<String>,
}

impl Busy {
    fn new(logs: &LogDir) -> Self {
        let file = logs.container("load", "busy-0", "app");
        Self { file, chance: Chance::new(5), sizes: BTreeMap::new(), written: Vec::new() }
    }

    /// Fills the file, waits until the agent knows of it, rotates as the kubelet does.
    #[track_caller]
    fn round(&mut self, agent: &Agent) {
        for _ in 0..LINES {
            let words: Vec<String> =
                (0..12).map(|_| format!("{:016x}", self.chance.below(u64::MAX))).collect();
            let text = format!("line {:06} {}", self.written.len(), words.join(" "));
            self.file.line(Stream::Stdout, &text);
            // "2026-11-21T10:10:10.123456789Z stdout F " and the newline.
            self.sizes.insert(text.clone(), 41 + text.len() as u64);
            self.written.push(text);
        }
        self.wait_until_known(agent);
        self.file.rotate();
        let all = rotated(self.file.path());
        if let Some(plain) =
            all.iter().rev().nth(1).filter(|path| path.extension().is_some_and(|name| name != "gz"))
        {
            compress(plain);
        }
        // The active one and two rotated ones are left.
        for oldest in all.iter().take(all.len().saturating_sub(2)) {
            let _ = fs::remove_file(oldest).or_else(|_| fs::remove_file(beside(oldest, ".gz")));
        }
    }

    /// Nobody could read a file that comes and goes between two looks.
    #[track_caller]
    fn wait_until_known(&self, agent: &Agent) {
        let wanted: BTreeSet<String> = [self.file.path().to_owned()]
            .into_iter()
            .chain(rotated(self.file.path()))
            .map(|path| path.to_string_lossy().into_owned())
            .collect();
        wait_until("the agent has every file open", seconds(30), || {
            let files = agent.admin("/api/v1/files").json();
            let rows = files["files"].as_array().cloned().unwrap_or_default();
            let known: BTreeSet<String> = rows
                .iter()
                .filter(|row| row["state"] != "waiting")
                .filter_map(|row| Some(row["path"].as_str()?.to_owned()))
                .collect();
            let missing: Vec<&String> = wanted.difference(&known).collect();
            same(&missing, &Vec::new())
        });
    }

    fn bytes_missing_in(&self, found: &BTreeSet<String>) -> u64 {
        self.sizes.iter().filter(|(text, _)| !found.contains(*text)).map(|(_, bytes)| bytes).sum()
    }
}

/// What the agent was seen to take.
#[derive(Debug, Default)]
struct Peaks {
    /// Of the process, in MiB.
    resident: u64,
    /// Bytes of the cgroup that are no page cache.
    unshared: u64,
    /// Bytes on disk of what was spilled.
    spilled: u64,
    rounds: u64,
}

impl Peaks {
    fn look(&mut self, agent: &Agent, group: Option<&Cgroup>) {
        self.resident = self.resident.max(agent.peak_mib());
        self.unshared = self.unshared.max(group.map_or(0, Cgroup::memory));
        self.spilled = self.spilled.max(bytes_in(&agent.state_dir().join("spill")));
    }
}

/// Rotates for as long as this turn takes, with Elasticsearch away; `each` is done after some rounds.
fn rotate_for_long(
    busy: &mut Busy,
    agent: &mut Agent,
    group: Option<&Cgroup>,
    usual: u64,
    mut each: impl FnMut(u64, &mut Agent),
) -> Peaks {
    let (mut peaks, start, asked) = (Peaks::default(), Instant::now(), asked_seconds());
    while asked.map_or(peaks.rounds < usual, |asked| start.elapsed() < asked) {
        let begun = Instant::now();
        busy.round(agent);
        peaks.rounds += 1;
        peaks.look(agent, group);
        each(peaks.rounds, agent);
        if asked.is_some() {
            thread::sleep(PACE.saturating_sub(begun.elapsed()));
        }
    }
    wait_for_the_spill(agent);
    peaks.look(agent, group);
    eprintln!("away for {:?}: {} lines, {peaks:?}", start.elapsed(), busy.written.len());
    peaks
}

fn asked_seconds() -> Option<Duration> {
    let text = env::var("SOAK_SECONDS").ok()?;
    Some(Duration::from_secs(text.parse().unwrap_or_else(|_| panic!("SOAK_SECONDS={text} is no number"))))
}

/// Without a cgroup, which only root can make, the rest is tried all the same.
fn launch(group: Option<&Cgroup>) -> Launch {
    group.map_or_else(Launch::default, Cgroup::launch)
}

#[track_caller]
fn wait_for_the_spill(agent: &Agent) {
    wait_until("no deleted file takes the node's disk", seconds(60), || same(&deleted_logs_open(agent), &0));
}

/// Bytes of everything in a folder.
fn bytes_in(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

fn lost_bytes(agent: &Agent) -> u64 {
    agent.metric("nodewarden_log_lost_bytes_total", &[]) as u64
}

/// Descriptors of files that nobody else can reach any more.
fn deleted_logs_open(agent: &Agent) -> usize {
    let fds = fs::read_dir(format!("/proc/{}/fd", agent.pid())).expect("its descriptors").flatten();
    let links = fds.filter_map(|fd| fs::read_link(fd.path()).ok());
    links
        .filter(|link| {
            link.to_string_lossy().contains("/0.log") && link.to_string_lossy().ends_with("(deleted)")
        })
        .count()
}

#[track_caller]
fn assert_memory(peaks: &Peaks, agent: &Agent, group: Option<&Cgroup>) {
    let resident = peaks.resident.max(agent.peak_mib());
    eprintln!("{resident} MiB resident at most, {:?} in the cgroup", group.map(Cgroup::memory));
    assert!(resident < MEMORY >> 20, "{resident} MiB");
    assert!(peaks.unshared < MEMORY, "{peaks:?}");
    assert_eq!(group.map_or(0, Cgroup::kills), 0, "the kernel killed it for its memory");
}

#[test]
fn with_a_store_large_enough_nothing_is_lost() {
    const BOUND: u64 = 256 << 20;
    let (elastic, logs, group) = (Elastic::start(""), LogDir::new(), Cgroup::with_memory(MEMORY));
    let (config, index) = shipping(&logs, &elastic, "rotated-away");
    elastic.kill_9();
    let config = format!("{config}store: {{max_bytes: {BOUND}, min_free: 0%}}\n");
    let mut agent = Agent::start_as(launch(group.as_ref()), &config, &[]);
    let mut busy = Busy::new(&logs);
    let peaks = rotate_for_long(&mut busy, &mut agent, group.as_ref(), 12, |round, agent| {
        if round % 5 == 0 {
            wait_for_the_spill(agent);
            agent.kill_9();
            agent.start_again();
        }
    });
    assert!(peaks.spilled > 0 && peaks.spilled < BOUND, "{peaks:?}");
    elastic.start_again();
    let texts = busy.written.iter().cloned();
    assert_same_texts(&elastic, &index, texts.len() as u64, texts, || agent.log());
    assert_eq!(lost_bytes(&agent), 0);
    assert_memory(&peaks, &agent, group.as_ref());
    wait_until("nothing is left in the spill", seconds(30), || {
        same(&bytes_in(&agent.state_dir().join("spill")), &0)
    });
}

#[test]
fn with_a_store_too_small_what_is_lost_is_counted_to_the_byte() {
    // In ten minutes more than ten times as much is written.
    let bound = asked_seconds().map_or(1 << 20, |asked| ((16 << 20) * asked.as_secs() / 600).max(1 << 20));
    let (elastic, logs, group) = (Elastic::start(""), LogDir::new(), Cgroup::with_memory(MEMORY));
    let (config, index) = shipping(&logs, &elastic, "too-small");
    elastic.kill_9();
    // Few lines are held in memory: what is in flight is lost with no file.
    let small = "  bulk: {max_bytes: 256Ki, in_flight: 1}\n";
    let config = format!("{config}{small}store: {{max_bytes: {bound}, min_free: 0%}}\n");
    let mut agent = Agent::start_as(launch(group.as_ref()), &config, &[]);
    let mut busy = Busy::new(&logs);
    let peaks = rotate_for_long(&mut busy, &mut agent, group.as_ref(), 30, |_, _| ());
    assert!(peaks.spilled > bound / 2 && peaks.spilled <= bound, "{peaks:?}");
    elastic.start_again();
    wait_until("everything is taken", seconds(240 + busy.written.len() as u64 / 2000), || {
        let status = agent.admin("/api/v1/files").json();
        let rows = status["files"].as_array().cloned().unwrap_or_default();
        same(&rows.iter().filter_map(|row| row["lag_bytes"].as_u64()).sum(), &0)
    });
    elastic.count(&index).expect("refreshed");
    let found: Vec<String> = elastic.all(&index).into_iter().map(|found| found.message).collect();
    let distinct: BTreeSet<String> = found.iter().cloned().collect();
    assert_eq!(found.len(), distinct.len(), "nothing twice");
    let missing = busy.bytes_missing_in(&distinct);
    eprintln!("{missing} bytes are missing");
    assert!(missing > 1 << 20, "{missing} bytes are missing");
    assert_eq!(lost_bytes(&agent), missing);
    assert_memory(&peaks, &agent, group.as_ref());
}
