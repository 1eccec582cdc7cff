//! Log files that are compressed, copied, truncated and deleted, with the real binary.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions, Permissions},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::{
    elastic::{assert_each_once, shipping},
    logs::{wait_for_exactly, write},
    support::{
        Agent, Chance, Elastic, LogDir, LogFile, Stream, log_dir_config, pods_config, same, seconds,
        wait_until,
    },
};

/// As the kubelet and logrotate do: the copy has its name when the file goes.
fn compress(path: &Path) {
    let (packed, unfinished) = (beside(path, ".gz"), beside(path, ".tmp"));
    let file = File::create(&unfinished).expect("a new file");
    let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    encoder.write_all(&fs::read(path).expect("the log file")).expect("packed");
    encoder.finish().expect("packed");
    fs::rename(unfinished, packed).expect("renamed");
    fs::remove_file(path).expect("removed");
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(suffix);
    name.into()
}

/// The rotated files beside an active one, the oldest first.
fn rotated(active: &Path) -> Vec<PathBuf> {
    let name = active.file_name().expect("a name").to_string_lossy().into_owned();
    let entries = fs::read_dir(active.parent().expect("a folder")).expect("listed");
    let mut found: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            path.file_name().is_some_and(|other| other.to_string_lossy().starts_with(&format!("{name}.")))
        })
        .collect();
    found.sort();
    found
}

fn copytruncate(path: &Path, to: &Path) {
    fs::copy(path, to).expect("copied");
    OpenOptions::new().write(true).truncate(true).open(path).expect("truncated");
}

fn append(path: &Path, prefix: &str, count: usize, expected: &mut Vec<String>) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).expect("opened");
    for _ in 0..count {
        let text = format!("{prefix} line {:05} of this file", expected.len());
        writeln!(file, "{text}").expect("written");
        expected.push(text);
    }
}

/// Waits until the checkpoint says that all of these is confirmed: what was not written down can't be told from what was
/// written over it.
#[track_caller]
fn wait_for_positions(agent: &Agent, paths: &[&Path]) {
    wait_until("the positions are written", seconds(10), || {
        let positions =
            fs::read_to_string(agent.state_dir().join("positions")).map_err(|error| error.to_string())?;
        let is_written = |path: &&&Path| {
            let size = fs::metadata(path).expect("there").len();
            let (offset, path) = (format!("\"offset\":{size},"), format!("\"path\":\"{}\"", path.display()));
            positions.lines().any(|line| line.contains(&offset) && line.contains(&path))
        };
        same(&paths.iter().filter(is_written).count(), &paths.len())
    });
}

#[test]
fn a_file_compressed_while_the_agent_was_down_is_read_on() {
    let logs = LogDir::new();
    let mut agent = Agent::start(&pods_config(&logs), &[]);
    let mut file = logs.container("shop", "cart-0", "app");
    let mut expected = Vec::new();
    write(&mut file, "before", 30, &mut expected);
    wait_for_exactly(&agent, &expected);
    agent.kill_9();
    for _ in 0..2 {
        write(&mut file, "while it was away", 30, &mut expected);
        file.rotate();
    }
    write(&mut file, "after rotation", 30, &mut expected);
    rotated(file.path()).iter().for_each(|path| compress(path));
    agent.start_again();
    wait_for_exactly(&agent, &expected);
    agent.kill_9();
    write(&mut file, "again", 3, &mut expected);
    agent.start_again();
    wait_for_exactly(&agent, &expected);
}

#[test]
fn copytruncate_loses_and_doubles_nothing_while_the_agent_runs_and_while_it_is_down() {
    let logs = LogDir::new();
    let config =
        format!("logs:\n  sources:\n    - files: {{include: ['{}/app.log']}}\n", logs.path().display());
    let mut agent = Agent::start(&config, &[]);
    let (active, copy) = (logs.path().join("app.log"), logs.path().join("app.log.1"));
    let mut expected = Vec::new();
    append(&active, "first", 300, &mut expected);
    copytruncate(&active, &copy);
    append(&active, "second", 100, &mut expected);
    wait_for_exactly(&agent, &expected);
    wait_for_positions(&agent, &[&active]);
    agent.kill_9();
    append(&active, "while it was away", 50, &mut expected);
    fs::rename(&copy, logs.path().join("app.log.2")).expect("renamed");
    copytruncate(&active, &copy);
    compress(&logs.path().join("app.log.2"));
    append(&active, "much longer than all that was there before", 400, &mut expected);
    agent.start_again();
    wait_for_exactly(&agent, &expected);
}

#[test]
fn a_file_made_again_or_truncated_while_the_agent_was_down_is_read_from_its_start() {
    let logs = LogDir::new();
    let mut agent = Agent::start(&log_dir_config(&logs), &[]);
    let (deleted, regrown) = (logs.path().join("deleted"), logs.path().join("regrown"));
    let mut expected = Vec::new();
    for path in [&deleted, &regrown] {
        append(path, "before", 20, &mut expected);
    }
    wait_for_exactly(&agent, &expected);
    wait_for_positions(&agent, &[&deleted, &regrown]);
    agent.kill_9();
    // On many file systems the new file gets the inode of the old one.
    fs::remove_file(&deleted).expect("removed");
    append(&deleted, "made again", 40, &mut expected);
    let first = fs::read_to_string(&regrown).expect("read").lines().next().expect("a line").to_owned();
    fs::write(&regrown, format!("{first}\n")).expect("truncated");
    expected.push(first);
    append(&regrown, "regrown", 40, &mut expected);
    agent.start_again();
    wait_for_exactly(&agent, &expected);
}

#[test]
fn a_file_whose_permissions_change_is_read_when_it_may_be() {
    let logs = LogDir::new();
    let agent = Agent::start(&log_dir_config(&logs), &[]);
    let path = logs.path().join("app.log");
    let mut expected = Vec::new();
    append(&path, "open", 20, &mut expected);
    wait_for_exactly(&agent, &expected);
    // Root may read it all the same.
    fs::set_permissions(&path, Permissions::from_mode(0o000)).expect("changed");
    append(&path, "closed", 20, &mut expected);
    fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("changed");
    append(&path, "open again", 20, &mut expected);
    wait_for_exactly(&agent, &expected);
}

/// Few lines are held in memory: what is in flight is lost with no file.
const SMALL: &str = "  bulk: {max_bytes: 256Ki, in_flight: 1}\n";

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
    fn round(&mut self, agent: &Agent, lines: usize) {
        for _ in 0..lines {
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

/// Bytes of everything in a folder.
fn bytes_in(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

fn lost_bytes(agent: &Agent) -> u64 {
    let page = agent.get("/metrics?collect[]=loadavg").text();
    let lost = page.lines().filter(|line| line.starts_with("nodewarden_log_lost_bytes_total{"));
    lost.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
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

#[test]
fn elasticsearch_away_under_rotation_that_deletes_all_but_three_files_loses_nothing() {
    let (elastic, logs) = (Elastic::start(""), LogDir::new());
    let (config, index) = shipping(&logs, &elastic, "rotated-away");
    elastic.kill_9();
    let mut agent = Agent::start(&format!("{config}{SMALL}store: {{max_bytes: 256Mi, min_free: 0%}}\n"), &[]);
    let mut busy = Busy::new(&logs);
    for round in 0..rounds(12) {
        busy.round(&agent, 1000);
        if round % 5 == 4 {
            wait_until("no deleted file takes the node's disk", seconds(60), || {
                same(&deleted_logs_open(&agent), &0)
            });
            agent.kill_9();
            agent.start_again();
        }
    }
    wait_until("no deleted file takes the node's disk", seconds(60), || same(&deleted_logs_open(&agent), &0));
    let spilled = bytes_in(&agent.state_dir().join("spill"));
    assert!(spilled > 0 && spilled < 256 << 20, "{spilled} bytes are spilled");
    elastic.start_again();
    assert_each_once(&elastic, &index, &busy.written);
    assert_eq!(lost_bytes(&agent), 0);
    assert!(agent.peak_mib() < 128, "{} MiB", agent.peak_mib());
    wait_until("nothing is left in the spill", seconds(30), || {
        same(&bytes_in(&agent.state_dir().join("spill")), &0)
    });
}

#[test]
fn elasticsearch_away_with_a_bound_too_small_counts_what_is_lost_to_the_byte() {
    let (elastic, logs) = (Elastic::start(""), LogDir::new());
    let (config, index) = shipping(&logs, &elastic, "too-small");
    elastic.kill_9();
    let agent = Agent::start(&format!("{config}{SMALL}store: {{max_bytes: 1Mi, min_free: 0%}}\n"), &[]);
    let mut busy = Busy::new(&logs);
    for _ in 0..rounds(30) {
        busy.round(&agent, 1000);
        let spilled = bytes_in(&agent.state_dir().join("spill"));
        assert!(spilled <= 1 << 20, "{spilled} bytes are spilled");
    }
    wait_until("no deleted file takes the node's disk", seconds(60), || same(&deleted_logs_open(&agent), &0));
    elastic.start_again();
    wait_until("everything is taken", seconds(240), || {
        let status = agent.admin("/api/v1/files").json();
        let rows = status["files"].as_array().cloned().unwrap_or_default();
        same(&rows.iter().filter_map(|row| row["lag_bytes"].as_u64()).sum(), &0)
    });
    elastic.count(&index).expect("refreshed");
    let found: Vec<String> = elastic.all(&index).into_iter().map(|found| found.message).collect();
    let distinct: BTreeSet<String> = found.iter().cloned().collect();
    assert_eq!(found.len(), distinct.len(), "nothing twice");
    let missing = busy.bytes_missing_in(&distinct);
    assert!(missing > 1 << 20, "{missing} bytes are missing");
    assert_eq!(lost_bytes(&agent), missing);
}

/// As many as usual, or as many as `SOAK_SECONDS` asks for: a round takes about a second.
fn rounds(usual: u64) -> u64 {
    let asked = std::env::var("SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    asked.map_or(usual, |asked: u64| usual.max(asked))
}
