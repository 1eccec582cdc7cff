//! Random ends of the agent while pods write under rotation: `make test` takes a short turn, `make soak` a long one.
//! `SOAK_SECONDS` is how long, `SOAK_SEED` makes the same choices again.

use std::{
    env, thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{
    elastic::{assert_same_texts, shipping},
    faults,
    support::{
        Agent, BulkServer, Chance, Elastic, Fault, Kubelet, Load, LogDir, Written, assert_ledger,
        pods_config, seconds, wait_for_documents, wait_until,
    },
};

/// How long, with which choices, and whether it is the long turn.
#[derive(Debug, Clone, Copy)]
struct Turn {
    time: Duration,
    seed: u64,
    is_long: bool,
}

impl Turn {
    fn of_this_run() -> Self {
        let seconds = asked("SOAK_SECONDS");
        let seed = asked("SOAK_SEED").unwrap_or(1);
        let turn = Self { time: Duration::from_secs(seconds.unwrap_or(6)), seed, is_long: seconds.is_some() };
        eprintln!("soak: {turn:?}");
        turn
    }

    /// What pods write: in the long turn so many bytes a second, and files as large as the kubelet lets them be.
    fn load(self, bytes_per_second: u64) -> Load {
        let short = Load { pods: 6, seed: self.seed, gzip: false, ..Load::SHORT };
        // Enough files for two minutes in which nothing is delivered; more than a disk for tests may hold in ten.
        let long = Load { bytes_per_second, text: 270, rotate_at: 10 << 20, keep: 40, ..short };
        if self.is_long { long } else { short }
    }
}

/// What was done to the agent.
#[derive(Debug, Default)]
struct Ends {
    kills: u32,
    stops: u32,
    /// How long it took until its listeners answered, all starts together.
    starting: Duration,
}

/// Says now and then how far the pods are and how far the sink is, in the long turn.
struct Progress {
    start: Instant,
    next: Duration,
}

impl Progress {
    fn start() -> Self {
        Self { start: Instant::now(), next: PROGRESS_EVERY }
    }

    fn say(&mut self, written: u64, stored: u64, repeats: u64) {
        let now = self.start.elapsed();
        if now >= self.next {
            self.next = now + PROGRESS_EVERY;
            let (now, behind) = (now.as_secs(), written.saturating_sub(stored));
            eprintln!("after {now} s: {written} lines, {behind} of them on their way, {repeats} repeats");
        }
    }
}

const PROGRESS_EVERY: Duration = Duration::from_secs(30);

/// Lines that the pods may be ahead of the sink: less than half of what is kept of their files.
const AHEAD: u64 = 3_000_000;
/// The same for Elasticsearch, which sets the pace.
const AHEAD_OF_ELASTICSEARCH: u64 = 100_000;

/// Ends the agent at random instants, `longest` milliseconds apart at most, mostly by SIGKILL, now and then as a node's drain does it.
fn end_at_random(agent: &mut Agent, turn: Turn, longest: u64, mut each: impl FnMut(&mut Chance)) -> Ends {
    let (mut ends, mut chance, start) = (Ends::default(), Chance::new(turn.seed), Instant::now());
    while start.elapsed() < turn.time {
        // Not to wait for anything: the end meets the agent wherever it is by then.
        thread::sleep(Duration::from_millis(chance.below(longest)));
        if chance.below(5) == 0 {
            assert_eq!(agent.end_by(Signal::TERM).code(), Some(0), "{}", agent.log());
            ends.stops += 1;
        } else {
            agent.kill_9();
            ends.kills += 1;
        }
        thread::sleep(Duration::from_millis(chance.below(300)));
        each(&mut chance);
        let starts = Instant::now();
        agent.start_again();
        ends.starting += starts.elapsed();
    }
    ends
}

fn say(what: &str, start: Instant, written: &Written, ends: &Ends) {
    let seconds = start.elapsed().as_secs_f64();
    let rate = written.bytes as f64 / seconds / 1e6;
    let (lines, rotations) = (written.lines(), written.rotations);
    eprintln!(
        "soak {what}: {lines} lines, {rate:.1} MB/s, in {seconds:.0} s, {rotations} rotations, {ends:?}"
    );
}

#[test]
fn kill_9_under_rotation_into_elasticsearch() {
    let turn = Turn::of_this_run();
    let (elastic, logs) = (Elastic::shared(), LogDir::new());
    let (config, index) = shipping(&logs, elastic, "soak");
    let (kubelet, start) = (Kubelet::start(&logs, turn.load(2_000_000)), Instant::now());
    kubelet.allow(AHEAD_OF_ELASTICSEARCH);
    let mut agent = Agent::start(&config, &[]);
    // Bulks of the usual size take this server a second and more: some lives are long enough for an answer.
    let longest = if turn.is_long { 10_000 } else { 2500 };
    let mut progress = Progress::start();
    let ends = end_at_random(&mut agent, turn, longest, |_| {
        let stored = elastic.count(&index).unwrap_or_default();
        kubelet.allow(stored + AHEAD_OF_ELASTICSEARCH);
        progress.say(kubelet.lines(), stored, 0);
    });
    let written = kubelet.stop();
    say("into Elasticsearch", start, &written, &ends);
    assert_same_texts(elastic, &index, written.lines(), written.texts(), || agent.log());
    assert_ledger(&agent);
}

#[test]
fn kill_9_under_rotation_into_the_bulk_server() {
    let turn = Turn::of_this_run();
    let (server, logs) = (BulkServer::start(turn.seed), LogDir::new());
    // Requests of the usual size.
    let config = format!("{}elasticsearch: {{hosts: ['{}']}}\n", pods_config(&logs), server.url());
    let (kubelet, start) = (Kubelet::start(&logs, turn.load(20_000_000)), Instant::now());
    let mut agent = Agent::start(&config, &[]);
    let mut progress = Progress::start();
    let ends = end_at_random(&mut agent, turn, 2500, |_| {
        kubelet.allow(server.documents() + AHEAD);
        progress.say(kubelet.lines(), server.documents(), server.repeats());
    });
    let written = kubelet.stop();
    say("into the bulk server", start, &written, &ends);
    server.assert_each_once(written.lines(), written.texts(), || agent.log());
    assert_ledger(&agent);
}

/// Stack traces on both streams, some of them cut by a rotation or by time.
#[test]
fn kill_9_in_the_midst_of_traces() {
    let turn = Turn::of_this_run();
    let (server, logs) = (BulkServer::start(turn.seed), LogDir::new());
    let load = Load { traces: true, rotate_at: 100_000, keep: usize::MAX, ..turn.load(1_000_000) };
    let (kubelet, start) = (Kubelet::start(&logs, load), Instant::now());
    let mut agent = Agent::start(&faults::shipping(&logs, &server), &[]);
    let ends = end_at_random(&mut agent, turn, 2500, |chance| {
        kubelet.allow(server.lines() + AHEAD);
        server.heal();
        if chance.below(3) == 0 {
            server.fail(&faults::EVERYTHING, 60);
        }
    });
    server.heal();
    let written = kubelet.stop();
    say("in the midst of traces", start, &written, &ends);
    server.assert_each_once(written.lines(), written.texts(), || agent.log());
    assert!(server.documents() < server.lines() * 3 / 4, "traces are single documents");
    assert_ledger(&agent);
}

/// The server is not to be relied on, either: with each start of the agent it fails in other ways.
#[test]
fn kill_9_under_rotation_and_every_fault() {
    let turn = Turn::of_this_run();
    let (server, logs) = (BulkServer::start(turn.seed), LogDir::new());
    let load = Load { poison_every: 1009, rotate_at: 100_000, keep: usize::MAX, ..turn.load(1_000_000) };
    let (kubelet, start) = (Kubelet::start(&logs, load), Instant::now());
    let mut agent = Agent::start(&faults::shipping(&logs, &server), &[]);
    let ends = end_at_random(&mut agent, turn, 2500, |chance| {
        kubelet.allow(server.documents() + AHEAD);
        server.heal();
        let more =
            [faults::EVERYTHING[chance.below(10) as usize], faults::STANDSTILLS[chance.below(2) as usize]];
        match chance.below(4) {
            0 => {}
            1 => server.fail(&more[..1], 100),
            2 => server.fail(&more[1..], 100),
            _ => server.fail(&faults::EVERYTHING, 60),
        }
    });
    server.heal();
    let written = kubelet.stop();
    say("with every fault", start, &written, &ends);
    server.assert_each_once(written.lines() - written.poison(), written.texts(), || agent.log());
    assert_ledger(&agent);
}

/// The agent gives each request up in the end and sends it again; all of them were carried out.
#[test]
fn a_stall_that_is_longer_than_the_agent_waits() {
    let turn = Turn::of_this_run();
    if !turn.is_long {
        eprintln!("SKIPPED: it takes a minute and a half, and is a part of make soak");
        return;
    }
    let (server, logs) = (BulkServer::start(turn.seed), LogDir::new());
    let kubelet = Kubelet::start(&logs, Load { seed: turn.seed, ..Load::SHORT });
    let agent = Agent::start(&faults::shipping(&logs, &server), &[]);
    wait_for_documents(&server, 1000, || agent.log());
    server.fail(&[Fault::Stall], 100);
    wait_until("a request is given up", seconds(90), || {
        if agent.metric("nodewarden_bulk_requests_total", &["retry"]) > 0.0 {
            Ok(())
        } else {
            Err(agent.log())
        }
    });
    server.heal();
    let written = kubelet.stop();
    server.assert_each_once(written.lines(), written.texts(), || agent.log());
    assert_eq!(assert_ledger(&agent).read_lines, written.lines());
}

fn asked(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a whole number")))
}
