//! What the agent stands on gives way: its state directory, its memory, its clock.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rustix::process::Signal;

use crate::{
    faults::shipping,
    support::{
        Agent, BulkServer, Cgroup, Chance, Disk, Fault, Kubelet, Launch, Ledger, Load, LogDir, Stream,
        assert_ledger, repository, same, seconds, temp_dir, wait_for_documents, wait_until,
    },
};

const LOAD: Load = Load { seed: 3, ..Load::SHORT };

#[track_caller]
fn wait_for_word(agent: &Agent, word: &str) {
    wait_until(&format!("it says {word:?}"), seconds(20), || {
        if agent.log().contains(word) { Ok(()) } else { Err(agent.log()) }
    });
}

#[track_caller]
fn wait_for_more(server: &BulkServer, agent: &Agent) {
    wait_for_documents(server, server.documents() + 500, || agent.log());
}

#[track_caller]
fn finish(server: &BulkServer, agent: &Agent, kubelet: Kubelet) {
    let written = kubelet.stop();
    server.assert_each_once(written.lines(), written.texts(), || agent.log());
    assert_ledger(agent);
}

#[test]
fn a_state_directory_that_is_full() {
    let Some(disk) = Disk::mount(256) else { return };
    let (server, logs) = (BulkServer::start(LOAD.seed), LogDir::new());
    let kubelet = Kubelet::start(&logs, LOAD);
    let mut agent = Agent::start_as(disk.launch(), &shipping(&logs, &server), &[]);
    wait_for_more(&server, &agent);
    disk.fill();
    wait_for_word(&agent, "could not write the positions");
    wait_for_more(&server, &agent);
    let said = agent.log().matches("could not write the positions").count();
    assert_eq!(said, 1, "it is said once:\n{}", agent.log());
    // Killed on the full disk it starts again there, with positions that are old.
    agent.kill_9();
    agent.start_again();
    wait_for_more(&server, &agent);
    disk.empty();
    wait_for_word(&agent, "positions are written again");
    agent.kill_9();
    agent.start_again();
    finish(&server, &agent, kubelet);
}

/// The very first start finds no room for anything; it begins to read by itself when there is some.
#[test]
fn a_state_directory_that_is_full_from_the_start() {
    let Some(disk) = Disk::mount(256) else { return };
    disk.fill();
    let (server, logs) = (BulkServer::start(LOAD.seed), LogDir::new());
    let kubelet = Kubelet::start(&logs, LOAD);
    let agent = Agent::start_as(disk.launch(), &shipping(&logs, &server), &[]);
    thread::sleep(Duration::from_secs(2));
    eprintln!("{}", agent.log());
    disk.empty();
    wait_for_documents(&server, 500, || agent.log());
    finish(&server, &agent, kubelet);
}

/// Refused documents have to be kept before they count as done: with a full disk they wait.
#[test]
fn dead_letters_on_a_full_disk() {
    let Some(disk) = Disk::mount(1024) else { return };
    let (server, logs) = (BulkServer::start(LOAD.seed), LogDir::new());
    let config = format!("{}store: {{min_free: 0%}}\n", shipping(&logs, &server));
    let kubelet = Kubelet::start(&logs, Load { poison_every: 40, ..LOAD });
    let agent = Agent::start_as(disk.launch(), &config, &[]);
    wait_for_more(&server, &agent);
    disk.fill();
    wait_for_word(&agent, "could not keep a refused document");
    disk.empty();
    let written = kubelet.stop();
    server.assert_each_once(written.lines() - written.poison(), written.texts(), || agent.log());
    assert_eq!(assert_ledger(&agent).dead_letter_lines, written.poison());
}

#[test]
fn a_state_directory_that_is_read_only() {
    let Some(disk) = Disk::mount(1024) else { return };
    let (server, logs) = (BulkServer::start(LOAD.seed), LogDir::new());
    let kubelet = Kubelet::start(&logs, LOAD);
    let mut agent = Agent::start_as(disk.launch(), &shipping(&logs, &server), &[]);
    wait_for_more(&server, &agent);
    disk.make_read_only();
    wait_for_word(&agent, "could not write the positions");
    wait_for_more(&server, &agent);
    // Without a place for positions no logs are read, and the metrics are served, until there is one again.
    agent.kill_9();
    agent.start_again();
    assert_eq!(agent.get("/metrics?collect[]=loadavg").status, 200);
    disk.make_writable();
    agent.wait_for_page();
    finish(&server, &agent, kubelet);
}

/// Every file of a directory and of those in it.
fn files_in(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("listed").map(|entry| entry.expect("an entry").path());
    let (directories, mut files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    files.retain(|path| path.is_file());
    files.extend(directories.iter().flat_map(|directory| files_in(directory)));
    files.sort();
    files
}

#[test]
fn a_state_directory_that_is_corrupt() {
    let (server, logs, mut chance) = (BulkServer::start(LOAD.seed), LogDir::new(), Chance::new(LOAD.seed));
    // Poison fills the dead letters, so that they can be damaged, too.
    let kubelet = Kubelet::start(&logs, Load { poison_every: 50, ..LOAD });
    let mut agent = Agent::start(&shipping(&logs, &server), &[]);
    for damage in 0..6 {
        wait_for_more(&server, &agent);
        wait_until("positions are written", seconds(10), || {
            let path = agent.state_dir().join("positions");
            path.is_file().then_some(()).ok_or_else(|| agent.log())
        });
        agent.kill_9();
        for path in files_in(&agent.state_dir()) {
            let is_position =
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("positions"));
            let mut bytes = fs::read(&path).expect("a state file");
            let at = chance.below(bytes.len() as u64 + 1) as usize;
            match damage {
                // A flipped bit, a torn end, nothing left, noise, another release's, a directory in its place.
                0 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << chance.below(8)),
                1 => bytes.truncate(at),
                2 => bytes.clear(),
                3 => bytes.iter_mut().for_each(|byte| *byte = chance.below(256) as u8),
                4 if is_position => bytes = b"nodewarden-positions 99 00000000 0\n".into(),
                5 if is_position => {
                    fs::remove_file(&path).expect("removed");
                    fs::create_dir(&path).expect("made");
                    fs::write(path.join("stray"), "").expect("written");
                    continue;
                }
                _ => continue,
            }
            fs::write(&path, bytes).expect("damaged");
        }
        agent.start_again();
        if damage == 5 {
            wait_for_more(&server, &agent);
            agent.kill_9();
            for name in ["positions", "positions.old", "positions.new", "positions.corrupt"] {
                // Not each of them is there.
                let _ = fs::remove_dir_all(agent.state_dir().join(name));
            }
            agent.start_again();
        }
    }
    let written = kubelet.stop();
    server.assert_each_once(written.lines() - written.poison(), written.texts(), || agent.log());
    assert_ledger(&agent);
}

#[test]
fn a_cgroup_of_64_mib_with_the_sink_away() {
    let Some(group) = Cgroup::with_memory(64 << 20) else { return };
    let (server, logs) = (BulkServer::start(LOAD.seed), LogDir::new());
    server.fail(&[Fault::Refuse], 100);
    let load = Load { pods: 20, bytes_per_second: 10_000_000, rotate_at: 1 << 20, ..LOAD };
    let kubelet = Kubelet::start(&logs, load);
    let mut agent = Agent::start_as(group.launch(), &shipping(&logs, &server).replace("128Ki", "5Mi"), &[]);
    let budget = agent.metric("nodewarden_memory_budget_bytes", &[]);
    assert!((32e6..42e6).contains(&budget), "60 % of the limit: {budget}");
    thread::sleep(Duration::from_secs(2));
    let written = kubelet.stop();
    server.heal();
    server.assert_each_once(written.lines(), written.texts(), || agent.log());
    let peak = agent.peak_mib();
    eprintln!("{} MiB at most, {} files", peak, written.rotations + 20);
    assert!(peak < 64, "{peak} MiB");
    assert_eq!(group.kills(), 0);
    assert_eq!(assert_ledger(&agent).read_lines, written.lines());
    assert_eq!(agent.end_by(Signal::TERM).code(), Some(0), "{}", agent.log());
}

/// Hundreds of lines are in the middle of their parts, and some are a mebibyte: what of it is held is bounded over all files,
/// and nothing is lost or cut for it.
#[test]
fn a_cgroup_of_32_mib_with_500_files_of_parts() {
    parts_in_a_cgroup_of(32 << 20);
}

#[test]
fn a_cgroup_of_64_mib_with_500_files_of_parts() {
    parts_in_a_cgroup_of(64 << 20);
}

#[track_caller]
fn parts_in_a_cgroup_of(bytes: u64) {
    let Some(group) = Cgroup::with_memory(bytes) else { return };
    let (server, logs) = (BulkServer::start(LOAD.seed), LogDir::new());
    let part = |pod: usize| format!("{pod:04}{}", "y".repeat((16 << 10) - 4));
    let parts = |pod: usize| if pod.is_multiple_of(20) { 63 } else { 2 };
    let mut files: Vec<_> =
        (0..500).map(|pod| logs.container("shop", &format!("pod-{pod}"), "app")).collect();
    for (pod, file) in files.iter_mut().enumerate() {
        for _ in 0..parts(pod) {
            file.partial(Stream::Stdout, &part(pod));
        }
        file.line(Stream::Stderr, &format!("beside {pod}"));
    }
    let mut agent = Agent::start_as(group.launch(), &shipping(&logs, &server).replace("128Ki", "5Mi"), &[]);
    wait_for_documents(&server, 500, || agent.log());
    for (pod, file) in files.iter_mut().enumerate() {
        file.line(Stream::Stdout, " ended");
        file.partial(Stream::Stdout, &part(pod));
    }
    let whole = |pod: usize| format!("{} ended", part(pod).repeat(parts(pod)));
    let texts = || (0..500).flat_map(|pod| [whole(pod), format!("beside {pod}")]);
    server.assert_each_once(1000, texts(), || agent.log());
    // What was begun is on its way until it ends.
    wait_until("the others are confirmed", seconds(60), || {
        let ledger = Ledger::of(&agent);
        same(&(ledger.acked_lines, ledger.in_flight_lines), &(1000, 500))
    });
    files.iter_mut().for_each(|file| file.line(Stream::Stdout, " at last"));
    let last = (0..500).map(|pod| format!("{} at last", part(pod)));
    server.assert_each_once(1500, texts().chain(last), || agent.log());
    assert_eq!(assert_ledger(&agent).read_lines, 1500);
    let (peak, budget) = (agent.peak_mib(), agent.metric("nodewarden_memory_budget_bytes", &[]));
    eprintln!("{peak} MiB at most, the budget is {budget}");
    assert_eq!(group.kills(), 0);
    assert_eq!(agent.end_by(Signal::TERM).code(), Some(0), "{}", agent.log());
}

/// The library that makes a process believe in another time.
fn faketime() -> Option<PathBuf> {
    let unpacked = repository().join("target/servers/faketime/usr/lib");
    let find = |root: &Path| {
        let pattern = format!("{}/*/faketime/libfaketimeMT.so.1", root.display());
        glob::glob(&pattern).expect("a pattern").flatten().next()
    };
    let found = find(&unpacked).or_else(|| find(Path::new("/usr/lib")));
    if found.is_none() {
        eprintln!("SKIPPED: libfaketime is not here: run tests/servers/install.sh");
    }
    found
}

#[test]
fn clock_steps() {
    let Some(library) = faketime() else { return };
    let (server, logs, dir) = (BulkServer::start(LOAD.seed), LogDir::new(), temp_dir());
    let clock = dir.path().join("clock");
    let set = |step: &str| {
        let new = dir.path().join("new");
        fs::write(&new, step).expect("written");
        fs::rename(&new, &clock).expect("the clock is set");
    };
    set("+0");
    let wrapper = vec![
        "env".to_owned(),
        format!("LD_PRELOAD={}", library.display()),
        format!("FAKETIME_TIMESTAMP_FILE={}", clock.display()),
        "FAKETIME_NO_CACHE=1".to_owned(),
        // What the clock of the machine says changes, not how time passes.
        "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
        "NO_FAKE_STAT=1".to_owned(),
    ];
    let kubelet = Kubelet::start(&logs, LOAD);
    let mut agent = Agent::start_as(Launch { wrapper, ..Launch::default() }, &shipping(&logs, &server), &[]);
    for step in ["+3h", "-2d", "+400d", "-30y", "+60y", "+0"] {
        set(step);
        wait_for_more(&server, &agent);
        agent.kill_9();
        agent.start_again();
        wait_for_more(&server, &agent);
    }
    finish(&server, &agent, kubelet);
}
