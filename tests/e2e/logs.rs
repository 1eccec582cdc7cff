//! Log lines into the local store, and out of it again.

use std::{collections::BTreeMap, process::Output};

use jiff::{Timestamp, tz::TimeZone};
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{
    Agent, Launch, LogDir, LogFile, Stream, http, log_dir_config, pods_config, same, seconds, wait_until,
};

/// The lines that `nodewarden logs --json` finds, newest last or first.
fn stored(agent: &Agent, args: &[&str]) -> Vec<Value> {
    let Output { status, stdout, stderr } = agent.run(&[&["logs", "--json", "--since=1h"], args].concat());
    assert!(status.success(), "{status}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout)
        .expect("UTF-8")
        .lines()
        .map(|line| serde_json::from_str(line).expect("a JSON object per line"))
        .collect()
}

fn texts(agent: &Agent, args: &[&str]) -> Vec<String> {
    stored(agent, args).iter().map(|line| line["text"].as_str().expect("a text").to_owned()).collect()
}

/// Waits until exactly these lines are there, each once, in any order.
#[track_caller]
pub fn wait_for_exactly(agent: &Agent, expected: &[String]) {
    let wanted = counted(expected);
    wait_until("every line is in the store once", seconds(30), || {
        let seen = counted(&texts(agent, &[]));
        let odd: Vec<_> = wanted
            .keys()
            .chain(seen.keys())
            .filter(|line| wanted.get(*line) != seen.get(*line))
            .map(|line| format!("{line}: {:?}", seen.get(line)))
            .take(5)
            .collect();
        same(&odd, &Vec::new())
    });
}

fn counted(lines: &[String]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in lines {
        *counts.entry(line.clone()).or_default() += 1;
    }
    counts
}

/// Writes `count` numbered lines and adds them to what is expected.
pub fn write(file: &mut LogFile, name: &str, count: usize, expected: &mut Vec<String>) {
    for _ in 0..count {
        let text = format!("{name} line {:04} of this file", expected.len());
        file.line(Stream::Stdout, &text);
        expected.push(text);
    }
}

#[test]
fn a_line_of_a_pod_is_found_with_where_it_came_from() {
    let logs = LogDir::new();
    let agent = Agent::start(&pods_config(&logs), &[]);
    logs.container("shop", "cart-0", "app").line(Stream::Stderr, "payment refused: card expired");
    logs.container("shop", "till-0", "app").line(Stream::Stdout, "all is well");
    let found = wait_until("the line is in the store", seconds(10), || {
        let found = stored(&agent, &["refused"]);
        found.first().cloned().ok_or_else(|| agent.log())
    });
    assert_eq!(found["text"], "payment refused: card expired");
    assert_eq!(found["stream"], "stderr");
    let labels = &found["labels"];
    assert_eq!((&labels["namespace"], &labels["pod"]), (&"shop".into(), &"cart-0".into()));
    assert_eq!(labels["container"], "app");
}

#[test]
fn search_is_by_pod_too() {
    let logs = LogDir::new();
    let agent = Agent::start(&pods_config(&logs), &[]);
    for pod in ["cart-0", "till-0"] {
        logs.container("shop", pod, "app").line(Stream::Stdout, &format!("hello from {pod}"));
    }
    wait_until("both lines are in the store", seconds(10), || same(&texts(&agent, &["hello"]).len(), &2));
    assert_eq!(texts(&agent, &["--pod=till-0"]), ["hello from till-0"]);
    assert_eq!(texts(&agent, &["--namespace=nobody"]), [""; 0]);
}

#[test]
fn a_plain_file_is_read_as_it_is() {
    let logs = LogDir::new();
    let agent = Agent::start(&log_dir_config(&logs), &[]);
    let mut file = logs.plain("syslog");
    file.line(Stream::Stdout, "10:10:10 eth0: link up");
    file.partial(Stream::Stdout, "half a line");
    wait_until("the whole line is in the store", seconds(10), || {
        same(&texts(&agent, &[]), &vec!["10:10:10 eth0: link up".to_owned()])
    });
    file.line(Stream::Stdout, ", and the rest");
    wait_until("the second line is whole", seconds(10), || same(&texts(&agent, &["half"]).len(), &1));
    assert_eq!(texts(&agent, &["half"]), ["half a line, and the rest"]);
}

/// Ten minutes ago, as rsyslog writes it in one zone and the other.
fn ten_minutes_ago() -> (Timestamp, String, String) {
    let whole = Timestamp::now().as_second() - 600;
    let time = Timestamp::from_second(whole).expect("a time");
    let berlin = time.to_zoned(TimeZone::posix(BERLIN).expect("a zone"));
    let auckland = time.to_zoned(TimeZone::posix("NZST-12").expect("a zone"));
    let iso = auckland.strftime("%Y-%m-%dT%H:%M:%S.123456%:z").to_string();
    (time, berlin.strftime("%b %e %H:%M:%S").to_string(), iso)
}

const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";

#[test]
fn syslog_lines_have_their_own_time() {
    let logs = LogDir::new();
    let (time, local, iso) = ten_minutes_ago();
    // With carriage returns, bytes that are not UTF-8, NUL bytes, a line that fits nothing, a very long one.
    let long = "x".repeat(1 << 20);
    let lines: Vec<(Vec<u8>, bool)> = [
        (format!("{local} rack7 sshd[812]: Accepted publickey for root").into_bytes(), true),
        ([format!("{local} rack7 kernel: [    1.5] ").as_bytes(), b"bad \xff byte\r"].concat(), true),
        (b"\tat a line that fits nothing".to_vec(), false),
        (b"\0\0\0after a crash".to_vec(), false),
        (format!("{local} rack7 CRON[4711]: (root) CMD (true) {long}").into_bytes(), true),
        (format!("<38>1 {iso} rack7 app 7 ID47 [a@1 b=\"c\"] \u{feff}of RFC 5424").into_bytes(), true),
        (format!("{iso} rack7 systemd[1]: Started a service").into_bytes(), true),
        (format!("<13>{local} rack7 su: 'su root' failed").into_bytes(), true),
    ]
    .into();
    let mut bytes = Vec::new();
    for (line, _) in &lines {
        bytes.extend_from_slice(line);
        bytes.push(b'\n');
    }
    std::fs::write(logs.path().join("syslog"), bytes).expect("written");
    let wrapper = vec!["env".to_owned(), format!("TZ={BERLIN}")];
    let config = format!("{}  max_line: 2MiB\n", log_dir_config(&logs));
    let agent = Agent::start_as(Launch { wrapper, ..Launch::default() }, &config, &[]);
    wait_until("every line is in the store", seconds(20), || same(&stored(&agent, &[]).len(), &lines.len()));
    let found = stored(&agent, &[]);
    for (line, is_syslog) in lines {
        let text = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(&line)).into_owned();
        let found = found.iter().find(|found| found["text"] == text.as_str()).expect("the line as it was");
        let said: Timestamp = found["time"].as_str().expect("a time").parse().expect("a time");
        let age = said.as_second() - time.as_second();
        assert_eq!(age == 0, is_syslog, "{said} for {text:.80}");
        assert_eq!(said.subsec_nanosecond() == 123_456_000, text.contains(&iso), "{said} for {text:.80}");
    }
    let invalid = agent.get("/metrics?collect[]=time").text();
    let count = invalid.lines().find(|line| line.starts_with("nodewarden_log_invalid_utf8_lines_total "));
    assert_eq!(count, Some("nodewarden_log_invalid_utf8_lines_total 1"));
    let status = agent.admin("/api/v1/files").text();
    assert!(status.contains("\"syslog\""), "{status}");
}

#[test]
fn pieces_of_a_long_line_are_joined_per_stream() {
    let logs = LogDir::new();
    let agent = Agent::start(&pods_config(&logs), &[]);
    let mut cri = logs.container("shop", "cart-0", "app");
    cri.partial(Stream::Stdout, "one ");
    cri.line(Stream::Stderr, "in between");
    cri.line(Stream::Stdout, "line");
    let mut docker = logs.docker_container("shop", "old-0", "app");
    docker.partial(Stream::Stdout, "another ");
    docker.line(Stream::Stdout, "line");
    wait_for_exactly(&agent, &["one line".into(), "in between".into(), "another line".into()]);
}

#[test]
fn rotation_loses_and_doubles_nothing() {
    let logs = LogDir::new();
    let agent = Agent::start(&pods_config(&logs), &[]);
    let mut file = logs.container("shop", "cart-0", "app");
    let mut expected = Vec::new();
    for _ in 0..4 {
        write(&mut file, "rotated", 20, &mut expected);
        file.rotate();
    }
    write(&mut file, "rotated", 20, &mut expected);
    wait_for_exactly(&agent, &expected);
}

#[test]
fn a_restart_goes_on_where_it_was() {
    let logs = LogDir::new();
    let mut agent = Agent::start(&pods_config(&logs), &[]);
    let mut file = logs.container("shop", "cart-0", "app");
    let mut expected = Vec::new();
    write(&mut file, "before", 30, &mut expected);
    wait_for_exactly(&agent, &expected);
    assert_eq!(agent.end_by(Signal::TERM).code(), Some(0), "{}", agent.log());
    write(&mut file, "while it was away", 30, &mut expected);
    file.rotate();
    write(&mut file, "after rotation", 30, &mut expected);
    agent.start_again();
    wait_for_exactly(&agent, &expected);
}

#[test]
fn kill_9_at_any_time_loses_and_doubles_nothing() {
    let logs = LogDir::new();
    let mut agent = Agent::start(&pods_config(&logs), &[]);
    let mut file = logs.container("shop", "cart-0", "app");
    let mut expected = Vec::new();
    for round in 0..5 {
        write(&mut file, "killed", 30, &mut expected);
        if round % 2 == 1 {
            // Killed with the first of these lines just stored; else as the lines come.
            let last = expected[expected.len() - 30].clone();
            wait_until("the round has begun", seconds(10), || {
                if texts(&agent, &[]).contains(&last) { Ok(()) } else { Err(agent.log()) }
            });
        }
        agent.kill_9();
        agent.start_again();
    }
    wait_for_exactly(&agent, &expected);
}

#[test]
fn the_admin_listener_wants_its_token() {
    let logs = LogDir::new();
    let agent = Agent::start(&pods_config(&logs), &[]);
    for path in ["/api/v1/status", "/api/v1/logs", "/api/v1/files"] {
        let answer = http::get(&agent.admin_address(), path).expect("an answer");
        assert_eq!(answer.status, 401, "{path} without a token");
        assert_eq!(agent.admin(path).status, 200, "{path} with the token");
        assert_eq!(agent.get(path).status, 404, "{path} where the metrics are");
    }
}

#[test]
fn the_ledger_of_the_page_adds_up() {
    let logs = LogDir::new();
    let agent = Agent::start(&pods_config(&logs), &[]);
    let mut expected = Vec::new();
    write(&mut logs.container("shop", "cart-0", "app"), "counted", 50, &mut expected);
    wait_until("50 lines are read and acknowledged", seconds(10), || {
        let ledger = agent.admin("/api/v1/status").json()["ledger"].clone();
        same(&(ledger["read_lines"].as_u64(), ledger["acked_lines"].as_u64()), &(Some(50), Some(50)))
    });
    let files = agent.admin("/api/v1/files").json();
    assert_eq!(files["files"][0]["lag_bytes"], 0, "{files}");
    assert_eq!(files["containers"][0]["pod"], "cart-0", "{files}");
    assert_eq!(files["containers"][0]["acked_bytes"], files["files"][0]["size"], "{files}");
}

#[test]
fn metrics_tell_containers_apart_when_asked_to() {
    for (switch, pod) in [("false", ""), ("true", "pod=\"cart-0\"")] {
        let logs = LogDir::new();
        let agent = Agent::start(&format!("{}  container_metrics: {switch}\n", pods_config(&logs)), &[]);
        write(&mut logs.container("shop", "cart-0", "app"), switch, 5, &mut Vec::new());
        wait_until("5 lines are acknowledged", seconds(10), || {
            let labels = ["namespace=\"shop\"", pod];
            let read = agent.metric("nodewarden_log_acked_lines_total", &labels);
            if read >= 5.0 { Ok(()) } else { Err(agent.log()) }
        });
        let page = agent.get("/metrics?collect[]=loadavg").text();
        assert_eq!(page.contains("pod="), switch == "true", "{page}");
    }
}
