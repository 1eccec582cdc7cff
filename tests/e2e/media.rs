//! Log files that are compressed, copied and truncated, with the real binary.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions, Permissions},
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::{
    logs::{wait_for_exactly, write},
    support::{Agent, LogDir, log_dir_config, pods_config, same, seconds, wait_until},
};

/// As the kubelet and logrotate do: the copy has its name when the file goes.
pub fn compress(path: &Path) {
    let (packed, unfinished) = (beside(path, ".gz"), beside(path, ".tmp"));
    let file = File::create(&unfinished).expect("a new file");
    let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    encoder.write_all(&fs::read(path).expect("the log file")).expect("packed");
    encoder.finish().expect("packed");
    fs::rename(unfinished, packed).expect("renamed");
    fs::remove_file(path).expect("removed");
}

pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(suffix);
    name.into()
}

/// The rotated files beside an active one, the oldest first.
pub fn rotated(active: &Path) -> Vec<PathBuf> {
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

/// On many file systems each new file gets the inode of the one before.
#[test]
fn a_file_deleted_and_made_again_while_the_agent_runs_is_another_one_each_time() {
    let logs = LogDir::new();
    let agent = Agent::start(&log_dir_config(&logs), &[]);
    let path = logs.path().join("app.log");
    let (mut expected, mut inodes) = (Vec::new(), BTreeSet::new());
    for round in 0..5 {
        if round > 0 {
            fs::remove_file(&path).expect("removed");
        }
        fs::write(&path, "every one of them begins alike\n").expect("written");
        expected.push("every one of them begins alike".to_owned());
        append(&path, "made again", 20 + round, &mut expected);
        inodes.insert(fs::metadata(&path).expect("there").ino());
        wait_for_exactly(&agent, &expected);
    }
    eprintln!("{} inodes for 5 files", inodes.len());
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
