//! Files as pods and people make them: hundreds at once, lines of a mebibyte, bytes that are no text, permissions and links
//! that change.

use std::{
    fs::{self, Permissions},
    io::Write,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::Path,
};

use rustix::process::{Resource, getrlimit};
use serde_json::Value;

use crate::{
    faults::shipping,
    support::{
        Agent, BulkServer, Kubelet, Launch, Load, LogDir, Stream, assert_ledger, ledger::Ledger, seconds,
        temp_dir, uid, wait_until,
    },
};

const SEED: u64 = 2;

/// Both the pods and the plain files below `logs`.
fn shipping_all(logs: &LogDir, server: &BulkServer) -> String {
    let plain = format!("    - files: {{include: ['{}/*.txt']}}\nelasticsearch:", logs.path().display());
    shipping(logs, server).replacen("elasticsearch:", &plain, 1)
}

/// Waits until exactly these texts are there.
#[track_caller]
fn assert_texts(server: &BulkServer, agent: &Agent, texts: Vec<String>) {
    server.assert_each_once(texts.len() as u64, texts.into_iter(), || agent.log());
}

/// A file as something wrote it that knows nothing of lines.
fn raw(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("the folder is made");
    let mut file = fs::File::options().append(true).create(true).open(path).expect("a log file");
    file.write_all(bytes).expect("written");
}

#[test]
fn five_hundred_busy_files() {
    let (server, logs) = (BulkServer::start(SEED), LogDir::new());
    let load = Load { pods: 500, bytes_per_second: 1_000_000, rotate_at: 1 << 30, ..Load::SHORT };
    let kubelet = Kubelet::start(&logs, load);
    let agent = Agent::start(&shipping(&logs, &server), &[]);
    wait_until("each file was written to some times", seconds(60), || match kubelet.lines() {
        lines if lines > 15_000 => Ok(()),
        lines => Err(format!("{lines} lines")),
    });
    let written = kubelet.stop();
    server.assert_each_once(written.lines(), written.texts(), || agent.log());
    assert_eq!(assert_ledger(&agent).read_lines, written.lines());
    assert_eq!(agent.metric("nodewarden_log_files_open", &[]), 500.0);
}

/// Most containers of a node say nothing for hours; now they all appear at once, beside pods that write.
#[test]
fn ten_thousand_quiet_files() {
    const FILES: usize = 10_000;
    let room = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    if room < FILES as u64 + 500 {
        eprintln!("SKIPPED: a process may open {room} files here, too few for {FILES} logs (ulimit -Hn)");
        return;
    }
    let (server, logs) = (BulkServer::start(SEED), LogDir::new());
    let kubelet = Kubelet::start(&logs, Load { bytes_per_second: 100_000, ..Load::SHORT });
    let mut agent = Agent::start(&shipping(&logs, &server), &[]);
    let path = |pod: usize| logs.pods().join(format!("quiet_{pod}_{}/app/0.log", uid(&pod.to_string())));
    let mut texts = Vec::new();
    let mut say = |pod: usize, what: &str| {
        let text = format!("pod {pod} says {what}");
        raw(&path(pod), format!("2026-11-21T10:00:00.{pod:09}Z stdout F {text}\n").as_bytes());
        texts.push(text);
    };
    (0..FILES).for_each(|pod| say(pod, "that it started"));
    wait_until("every file is open", seconds(120), || {
        match agent.metric("nodewarden_log_files_open", &[]) as usize {
            open if open >= FILES => Ok(()),
            open => Err(format!("{open} files\n{}", agent.log())),
        }
    });
    (0..FILES).step_by(97).for_each(|pod| say(pod, "a word after a while"));
    agent.kill_9();
    (0..FILES).step_by(89).for_each(|pod| say(pod, "a word while nobody listened"));
    agent.start_again();
    (0..FILES).step_by(83).for_each(|pod| say(pod, "its last word"));
    let written = kubelet.stop();
    let total = written.lines() + texts.len() as u64;
    server.assert_each_once(total, written.texts().chain(texts), || agent.log());
    assert_ledger(&agent);
    eprintln!("{} MiB resident at most", agent.peak_mib());
}

#[test]
fn lines_of_a_mebibyte_in_one_piece_and_in_partials_of_16_kib() {
    let (server, logs) = (BulkServer::start(SEED), LogDir::new());
    let line = |name: &str| {
        let mut text = format!("{name} \"quoted\" ");
        let filler: String = ('a'..='z').collect();
        text.push_str(&filler.repeat((1 << 20) / filler.len() + 1));
        text.truncate(1 << 20);
        text
    };
    let names = ["plain", "whole", "parts", "docker"];
    let [plain, whole, parts, docker] = names.map(line);
    logs.plain("big.txt").line(Stream::Stdout, &plain);
    logs.container("shop", "whole", "app").line(Stream::Stdout, &whole);
    let mut in_parts = logs.container("shop", "parts", "app");
    let mut by_docker = logs.docker_container("shop", "docker", "app");
    let last = (1 << 20) - (16 << 10);
    for at in (0..last).step_by(16 << 10) {
        in_parts.partial(Stream::Stdout, &parts[at..at + (16 << 10)]);
        by_docker.partial(Stream::Stdout, &docker[at..at + (16 << 10)]);
    }
    in_parts.line(Stream::Stdout, &parts[last..]);
    by_docker.line(Stream::Stdout, &docker[last..]);
    let agent = Agent::start(&shipping_all(&logs, &server), &[]);
    assert_texts(&server, &agent, vec![plain, whole, parts, docker]);
    assert_eq!(assert_ledger(&agent).read_lines, 4);
}

#[test]
fn a_longer_line_is_cut_and_what_is_left_out_is_counted() {
    let (server, logs) = (BulkServer::start(SEED), LogDir::new());
    logs.container("shop", "cart-0", "app").line(Stream::Stdout, &"x".repeat(1_500_000));
    let mut in_parts = logs.container("shop", "parts", "app");
    for _ in 0..100 {
        in_parts.partial(Stream::Stdout, &"y".repeat(16 << 10));
    }
    in_parts.line(Stream::Stdout, "the end");
    logs.plain("big.txt").line(Stream::Stdout, &"z".repeat(3_000_000));
    let agent = Agent::start(&shipping_all(&logs, &server), &[]);
    let cut = |letter: &str, length| format!("{} [cut by nodewarden]", letter.repeat(length));
    wait_until("three lines are there", seconds(30), || {
        if server.documents() == 3 { Ok(()) } else { Err(format!("{}\n{}", server.documents(), agent.log())) }
    });
    for letter in ["x", "y", "z"] {
        assert!(server.has(&cut(letter, 1 << 20)), "{letter}");
    }
    let left_out = 1_500_000 + (100 << 14) + "the end".len() as u64 + 3_000_000 - (3 << 20);
    let ledger = wait_until("nothing is in flight", seconds(10), || match Ledger::of(&agent) {
        ledger if ledger.in_flight_lines == 0 => Ok(ledger),
        ledger => Err(format!("{ledger:?}")),
    });
    assert_eq!((ledger.read_lines, ledger.acked_lines, ledger.lost_bytes), (3, 3, left_out), "{ledger:?}");
}

#[test]
fn bytes_that_are_not_utf_8() {
    let (server, logs) = (BulkServer::start(SEED), LogDir::new());
    let bytes: Vec<u8> = (0..=255).filter(|byte| !matches!(byte, b'\n' | b'\r')).collect();
    let cut_character =
        [b"half a gr\xc3".as_slice(), b" and a surrogate \xed\xa0\x80 and Latin 1: Gr\xfc\xdfe"].concat();
    let cri = logs.pods().join(format!("shop_cart-0_{}/app/0.log", uid("cart-0")));
    let (plain, mut texts) = (logs.path().join("bytes.txt"), Vec::new());
    for (number, bytes) in [bytes, cut_character].iter().enumerate() {
        let line = |before: &str, name: &str| [before.as_bytes(), name.as_bytes(), bytes, b"."].concat();
        let (in_cri, in_plain) = (format!("cri {number} "), format!("plain {number} "));
        let time = format!("2026-11-21T10:00:0{number}.000000000Z stdout F ");
        raw(&cri, &[line(&time, &in_cri), b"\n".to_vec()].concat());
        raw(&plain, &[line("", &in_plain), b"\n".to_vec()].concat());
        texts.extend([in_cri, in_plain].map(|name| String::from_utf8_lossy(&line("", &name)).into_owned()));
    }
    let agent = Agent::start(&shipping_all(&logs, &server), &[]);
    assert_texts(&server, &agent, texts);
    assert_eq!(assert_ledger(&agent).read_lines, 4);
}

/// As a crash of the machine leaves them: a run of NUL bytes where a line should be.
#[test]
fn nul_bytes() {
    let (server, logs) = (BulkServer::start(SEED), LogDir::new());
    let nuls = "\0".repeat(5000);
    let cri = logs.pods().join(format!("shop_cart-0_{}/app/0.log", uid("cart-0")));
    raw(&cri, format!("2026-11-21T10:00:00.000000000Z stdout F before\0after\n{nuls}\n").as_bytes());
    raw(&cri, b"2026-11-21T10:00:01.000000000Z stdout F the next\n");
    raw(&logs.path().join("nul.txt"), format!("{nuls}only then text\nplain\n").as_bytes());
    let agent = Agent::start(&shipping_all(&logs, &server), &[]);
    let only_then = format!("{nuls}only then text");
    assert_texts(
        &server,
        &agent,
        ["before\0after", &nuls, "the next", &only_then, "plain"].map(str::to_owned).into(),
    );
    assert_ledger(&agent);
}

#[test]
fn lines_that_end_in_cr_lf() {
    let (server, logs) = (BulkServer::start(SEED), LogDir::new());
    raw(&logs.path().join("dos.txt"), b"first line\r\nsecond\rline\r\n\r\nthe last\r\n");
    let agent = Agent::start(&shipping_all(&logs, &server), &[]);
    assert_texts(&server, &agent, ["first line", "second\rline", "", "the last"].map(str::to_owned).into());
    assert_ledger(&agent);
}

/// The row of a file in the table of files.
fn row(agent: &Agent, path: &Path) -> Result<Value, String> {
    let files = agent.admin("/api/v1/files").json();
    let rows = files["files"].as_array().expect("a list");
    let found = rows.iter().find(|row| row["path"].as_str() == path.to_str());
    found.cloned().ok_or_else(|| files.to_string())
}

#[track_caller]
fn wait_for_an_error(agent: &Agent, path: &Path, word: &str) {
    wait_until("the file is listed with its error", seconds(20), || match row(agent, path)? {
        row if row["last_error"].as_str().is_some_and(|error| error.contains(word)) => Ok(()),
        row => Err(row.to_string()),
    });
}

/// An agent that is not root: for root every file is open.
fn as_nobody(state: &Path) -> Option<Launch> {
    let can = chown(state, Some(65534), Some(65534)).is_ok();
    if !can {
        eprintln!("SKIPPED: only root can start the agent as another user");
    }
    let wrapper = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"].map(str::to_owned).into();
    can.then(|| Launch { wrapper, state: Some(state.to_owned()), ..Launch::default() })
}

#[test]
fn permissions_that_change() {
    let (server, logs, state) = (BulkServer::start(SEED), LogDir::new(), temp_dir());
    let Some(launch) = as_nobody(state.path()) else { return };
    fs::set_permissions(logs.path(), Permissions::from_mode(0o755)).expect("opened");
    let mut file = logs.container("shop", "cart-0", "app");
    let (path, mut texts) = (file.path().to_owned(), Vec::new());
    let mut write = |file: &mut crate::support::LogFile, text: &str| {
        file.line(Stream::Stdout, text);
        texts.push(text.to_owned());
    };
    let may = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).expect("changed");
    write(&mut file, "nobody may read this yet");
    may(&path, 0o600);
    let mut agent = Agent::start_as(launch, &shipping(&logs, &server), &[]);
    wait_for_an_error(&agent, &path, "ermission denied");
    may(&path, 0o644);
    wait_until("it is read", seconds(20), || row(&agent, &path).map(drop));
    write(&mut file, "everybody may");
    wait_until("two lines are there", seconds(20), || {
        if server.documents() == 2 { Ok(()) } else { Err(agent.log()) }
    });
    // Who has it open goes on reading; after a restart it waits.
    may(&path, 0o600);
    write(&mut file, "read by who has it open");
    wait_until("the third is there", seconds(20), || {
        if server.documents() == 3 { Ok(()) } else { Err(agent.log()) }
    });
    agent.kill_9();
    write(&mut file, "not to be read, then rotated");
    agent.start_again();
    wait_for_an_error(&agent, &path, "ermission denied");
    file.rotate();
    write(&mut file, "in the new file, after a directory was closed");
    let directory = path.parent().expect("a directory");
    may(directory, 0o000);
    wait_for_an_error(&agent, directory, "ermission denied");
    may(directory, 0o755);
    for entry in fs::read_dir(directory).expect("listed") {
        may(&entry.expect("an entry").path(), 0o644);
    }
    let texts = std::mem::take(&mut texts);
    assert_texts(&server, &agent, texts);
    assert_ledger(&agent);
}

/// As with Docker when only `/var/log` is mounted into the agent's pod.
#[test]
fn a_symlink_whose_target_is_not_mounted() {
    let (server, logs) = (BulkServer::start(SEED), LogDir::new());
    let link = logs.pods().join(format!("shop_cart-0_{}/app/0.log", uid("cart-0")));
    let (docker, name) = (logs.path().join("docker"), "0123-json.log");
    fs::create_dir_all(link.parent().expect("a folder")).expect("the folder is made");
    symlink(docker.join(name), &link).expect("a link");
    logs.container("shop", "till-0", "app").line(Stream::Stdout, "another pod's line");
    let agent = Agent::start(&shipping(&logs, &server), &[]);
    wait_for_an_error(&agent, &link, "link to a file that is not there");
    assert_texts(&server, &agent, vec!["another pod's line".to_owned()]);
    // It is mounted, with a rotated file beside it.
    let json = |text: &str| {
        format!(
            "{{\"log\":\"{text}\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-21T10:00:00.00000000{}Z\"}}\n",
            text.len() % 10
        )
    };
    let elsewhere = logs.path().join("elsewhere");
    raw(&elsewhere.join(format!("{name}.1")), json("rotated before").as_bytes());
    raw(&elsewhere.join(name), json("written since").as_bytes());
    fs::rename(&elsewhere, &docker).expect("it is there");
    assert_texts(
        &server,
        &agent,
        ["another pod's line", "rotated before", "written since"].map(str::to_owned).into(),
    );
    assert_ledger(&agent);
}
