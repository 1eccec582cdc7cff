//! What is done with lines on their way: rules, limits, redaction, JSON bodies; with kill -9, closed indices and a real server.

use std::{fs, process::Output};

use serde_json::{Value, json};

use crate::{
    elastic::shipping as shipping_to,
    faults::shipping,
    support::{
        Agent, BulkServer, Chance, Elastic, LogDir, LogFile, Stream, assert_ledger, http, ledger::Ledger,
        pods_config, same, seconds, wait_for_documents, wait_until,
    },
};

const CARD: &str = "4111111111111111";
const MAIL: &str = "ada@example.org";

fn text_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// However full the disk of this machine is.
const ROOM: &str = "store: {min_free: 1%}\n";

/// The texts in the local store, oldest first.
fn stored(agent: &Agent) -> Vec<String> {
    let output = agent.run(&["logs", "--json", "--since=1h"]);
    let lines = text_of(&output);
    let text =
        |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["text"].as_str().map(str::to_owned);
    lines.lines().map(|line| text(line).expect("a text")).collect()
}

#[test]
fn a_json_body_becomes_fields_that_are_found() {
    let (elastic, logs) = (Elastic::shared(), LogDir::new());
    let (config, index) = shipping_to(&logs, elastic, "bodies");
    let json = "  json: {enabled: true, time_keys: [ts], max_index_fields: 5}\n";
    let config = config.replacen("elasticsearch:", &format!("{json}elasticsearch:"), 1);
    let agent = Agent::start(&config, &[]);
    let mut file = logs.container("shop", "cart-0", "app");
    for text in [
        r#"{"level":"warn","msg":"card \"refused\"","order":{"id":7,"items":["a","b"]},"ts":"2026-11-20T10:10:10.5Z"}"#,
        r#"{"level":"info","msg":"twice","order":{"id":8},"order":1,"":2,"paid":true}"#,
        r#"{"level":"info","msg":"too many","new":{"one":1,"two":[1,"x"]}}"#,
        "panic: no JSON at all",
        r#"{"msg":"cut"#,
    ] {
        file.line(Stream::Stdout, text);
    }
    wait_until("every line is a document", seconds(60), || same(&elastic.count(&index)?, &5));
    let documents = elastic.documents(&index);
    let find = |message: &str| {
        let found = documents.iter().find(|document| document["message"] == message);
        found.unwrap_or_else(|| panic!("no {message} in {documents:#?}"))
    };
    let refused = find("card \"refused\"");
    assert_eq!(refused["json"]["order"], json!({"id": 7, "items": ["a", "b"]}));
    assert_eq!(refused["@timestamp"], "2026-11-20T10:10:10.500000000Z");
    assert_eq!((&refused["log"]["level"], &refused["log"]["offset"]), (&json!("warning"), &json!(0)));
    let twice = find("twice");
    assert_eq!((&twice["json"]["order"], &twice["json"]["paid"]), (&json!({"id": 8}), &json!(true)));
    assert_eq!(twice["nodewarden"]["overflow"], r#"{"order":1,"":2}"#);
    let many = find("too many");
    assert_eq!(many["json"], json!({"level": "info"}));
    assert_eq!(many["nodewarden"]["overflow"], r#"{"new.one":1,"new.two":[1,"x"]}"#);
    assert!(find("panic: no JSON at all").get("json").is_none());
    find(r#"{"msg":"cut"#);
    assert_eq!(agent.metric("nodewarden_log_overflowed_fields_total", &[]), 4.0);
    assert_ledger(&agent);
}

#[test]
fn secrets_leave_the_node_nowhere() {
    let (elastic, logs) = (Elastic::shared(), LogDir::new());
    // Messages are no dates: every document is refused, and kept as a dead letter.
    let mapping = json!({"mappings": {"properties": {"message": {"type": "date"}}}});
    let address = elastic.url().replace("http://", "");
    let json_type = [("content-type", "application/json")];
    let made = http::request("PUT", &address, "/dates-only", &json_type, mapping.to_string().as_bytes());
    made.expect("an answer").good().expect("made");
    let redact = "  redact: {builtin: all, rules: [{match: '(pin=)\\d+', replace: '$1***', name: pin}]}\n";
    let config = format!(
        "{}{redact}elasticsearch:\n  hosts: ['{}']\n  index: dates-only\n  on_reject: {{repair: false}}\n",
        pods_config(&logs),
        elastic.url()
    );
    let agent = Agent::start(&config, &["--log.level=debug"]);
    let mut file = logs.container("shop", "cart-0", "app");
    let lines = [
        format!("card {CARD} of {MAIL} with pin=1234"),
        format!("{{\"mail\":\"\\u0061{}\",\"card\":{CARD}}}", &MAIL[1..]),
        "-----BEGIN PRIVATE KEY-----".to_owned(),
        "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC".to_owned(),
        "-----END PRIVATE KEY-----".to_owned(),
    ];
    lines.iter().for_each(|line| file.line(Stream::Stdout, line));
    let listed = wait_until("every line is a dead letter", seconds(60), || {
        let ledger = Ledger::of(&agent);
        same(&ledger.dead_letter_lines, &5)?;
        Ok(text_of(&agent.run(&["dead-letters", "list"])))
    });
    assert!(listed.contains("card [redacted:card] of [redacted:email] with pin=***"), "{listed}");
    let said =
        [listed, agent.log(), agent.get("/metrics").text(), agent.admin("/api/v1/files").text()].concat();
    for secret in [CARD, "ada@", &MAIL[1..], "1234 ", "pin=1", "MIIEvQ"] {
        assert!(!said.contains(secret), "{secret} in {said}");
    }
    assert_eq!(agent.metric("nodewarden_log_redacted_lines_total", &["detector=\"pin\""]), 1.0);
    assert_eq!(agent.metric("nodewarden_log_redacted_lines_total", &["detector=\"email\""]), 2.0);
}

#[test]
fn the_local_store_holds_no_secret_either() {
    let logs = LogDir::new();
    let config = format!("{}  redact: {{builtin: [card, email]}}\n{ROOM}", pods_config(&logs));
    let agent = Agent::start(&config, &[]);
    logs.container("shop", "cart-0", "app").line(Stream::Stderr, &format!("card {CARD} of {MAIL}"));
    wait_until("the line is stored", seconds(10), || {
        same(&stored(&agent), &vec!["card [redacted:card] of [redacted:email]".to_owned()])
    });
    assert_eq!(text_of(&agent.run(&["logs", CARD])), "");
}

/// Numbered lines of which every other one is noise; the kept ones go to `kept`.
fn write(file: &mut LogFile, count: usize, from: &mut usize, kept: &mut Vec<String>) {
    for _ in 0..count {
        let (number, path) = (*from, file.path().display().to_string());
        *from += 1;
        if number % 2 == 0 {
            file.line(Stream::Stdout, &format!("GET /healthz of probe {number}"));
        } else {
            let text = format!("GET /orders/{number} of {path}");
            file.line(if number % 3 == 0 { Stream::Stderr } else { Stream::Stdout }, &text);
            kept.push(text);
        }
    }
}

#[test]
fn kill_9_loses_and_doubles_no_line_that_a_rule_keeps() {
    let (server, logs, mut chance) = (BulkServer::start(7), LogDir::new(), Chance::new(7));
    let rules = "  rules: [keep: {match: /orders/}, drop: {match: /healthz}]\n";
    let config = shipping(&logs, &server).replacen("elasticsearch:", &format!("{rules}elasticsearch:"), 1);
    let mut agent = Agent::start(&config, &[]);
    let (mut kept, mut number) = (Vec::new(), 0);
    let mut files: Vec<LogFile> =
        (0..3).map(|pod| logs.container("load", &format!("pod-{pod}"), "app")).collect();
    for round in 0..6 {
        files.iter_mut().for_each(|file| write(file, 2000, &mut number, &mut kept));
        if round == 0 {
            wait_for_documents(&server, 1, || agent.log());
        }
        std::thread::sleep(std::time::Duration::from_millis(chance.below(400)));
        agent.kill_9();
        files.iter_mut().for_each(LogFile::rotate);
        files.iter_mut().for_each(|file| write(file, 500, &mut number, &mut kept));
        agent.start_again();
    }
    server.assert_each_once(kept.len() as u64, kept.iter().cloned(), || agent.log());
    let ledger = assert_ledger(&agent);
    // What was dropped and confirmed is not read again.
    wait_until("positions are at the ends", seconds(10), || {
        same(&agent.metric("nodewarden_log_lag_bytes", &[]), &0.0)
    });
    agent.kill_9();
    agent.start_again();
    write(&mut files[0], 2, &mut number, &mut kept);
    server.assert_each_once(kept.len() as u64, kept.iter().cloned(), || agent.log());
    let again = assert_ledger(&agent);
    assert!(again.read_lines < ledger.read_lines.max(1000), "{again:?} after {ledger:?}");
}

#[test]
fn a_noisy_pod_is_limited_and_it_is_said_how_much_was_left_out() {
    let logs = LogDir::new();
    let config = format!("{}  limits: {{per_pod: {{lines_per_second: 100}}}}\n{ROOM}", pods_config(&logs));
    let agent = Agent::start(&config, &[]);
    let mut noisy = logs.container("shop", "noisy-0", "app");
    let mut quiet = logs.container("shop", "quiet-0", "app");
    let (total, quiet_total) = (5000, 50);
    (0..total).for_each(|line| noisy.line(Stream::Stdout, &format!("noise {line}")));
    (0..quiet_total).for_each(|line| quiet.line(Stream::Stdout, &format!("quiet {line}")));
    // A while after the last line it is said how many there were.
    let texts = wait_until("all of it is accounted for", seconds(40), || {
        let texts = stored(&agent);
        let number = |text: &str| text.split(' ').nth(3).and_then(|number| number.parse().ok()).unwrap_or(0);
        let said: usize = texts
            .iter()
            .filter(|text| text.starts_with("nodewarden left out"))
            .map(|text| number(text))
            .sum();
        let kept = texts.iter().filter(|text| text.starts_with("noise")).count();
        same(&(said + kept), &total)?;
        Ok(texts)
    });
    assert_eq!(texts.iter().filter(|text| text.starts_with("quiet")).count(), quiet_total);
    let said: Vec<&String> = texts.iter().filter(|text| text.starts_with("nodewarden")).collect();
    assert!(said[0].ends_with("of this file: a pod may write 100 lines a second"), "{said:?}");
    let ledger = assert_ledger(&agent);
    assert_eq!(ledger.read_lines, (total + quiet_total) as u64);
    let dropped = agent.metric("nodewarden_log_dropped_lines_total", &["reason=\"pod_limit\""]);
    assert_eq!(dropped as usize, total + quiet_total - texts.len());
}

#[test]
fn repeats_are_counted_in_one_line() {
    let logs = LogDir::new();
    let config =
        format!("{}  rules: [collapse: {{within: 2s}}, drop: {{below: info}}]\n{ROOM}", pods_config(&logs));
    let mut agent = Agent::start(&config, &[]);
    let mut file = logs.container("shop", "cart-0", "app");
    file.line(Stream::Stdout, "begin");
    for _ in 0..20 {
        file.line(Stream::Stdout, "can't reach the till");
        file.line(Stream::Stdout, "DEBUG asleep");
    }
    file.line(Stream::Stdout, "end");
    file.line(Stream::Stdout, "end");
    let expected =
        ["begin", "can't reach the till", "message repeated 19 times: [can't reach the till]", "end", "end"];
    wait_until("the last one is said in time", seconds(20), || {
        let mut texts = stored(&agent);
        texts.sort_unstable();
        let mut expected = expected.map(str::to_owned).to_vec();
        expected.sort_unstable();
        same(&texts, &expected)
    });
    assert_eq!(assert_ledger(&agent).read_lines, 43);
    agent.kill_9();
    agent.start_again();
    file.line(Stream::Stdout, "after");
    wait_until("nothing comes again", seconds(10), || same(&stored(&agent).len(), &(expected.len() + 1)));
}

#[test]
fn a_closed_index_changes_nothing_of_what_is_kept() {
    let (server, logs) = (BulkServer::start(9), LogDir::new());
    let settings = "  rules: [drop: {match: /healthz}]\n  limits: {per_pod: {lines_per_second: 300}}\n";
    let config = shipping(&logs, &server).replacen("elasticsearch:", &format!("{settings}elasticsearch:"), 1);
    let agent = Agent::start(&config, &[]);
    let mut file = logs.container("shop", "cart-0", "app");
    let (mut kept, mut number) = (Vec::new(), 0);
    server.close(Some("logs-"));
    write(&mut file, 4000, &mut number, &mut kept);
    wait_until("lines are held", seconds(30), || {
        let held = agent.metric("nodewarden_bulk_items_total", &["status=\"403\""]);
        if held > 0.0 { Ok(()) } else { Err(agent.log()) }
    });
    server.close(None);
    wait_until("all was read", seconds(60), || same(&Ledger::of(&agent).read_lines, &4000));
    wait_until("the rest was said", seconds(60), || {
        same(&agent.metric("nodewarden_log_lag_bytes", &[]), &0.0)
    });
    let ledger = assert_ledger(&agent);
    assert_eq!((ledger.read_lines, ledger.acked_lines), (4000, server.documents()), "{ledger:?}");
    assert!(ledger.acked_lines < kept.len() as u64, "{ledger:?}");
}

#[test]
fn secrets_of_a_file_that_vanishes_lie_only_where_root_reads() {
    use std::os::unix::fs::PermissionsExt;

    let (server, logs) = (BulkServer::start(11), LogDir::new());
    let redact = "  redact: {builtin: [card]}\n";
    let config = shipping(&logs, &server).replacen("elasticsearch:", &format!("{redact}elasticsearch:"), 1);
    let agent = Agent::start(&format!("{config}{ROOM}"), &[]);
    server.close(Some("logs-"));
    let mut file = logs.container("shop", "cart-0", "app");
    file.line(Stream::Stdout, &format!("card {CARD}"));
    wait_until("the line is held", seconds(30), || {
        let held = agent.metric("nodewarden_bulk_items_total", &["status=\"403\""]);
        if held > 0.0 { Ok(()) } else { Err(agent.log()) }
    });
    fs::remove_file(file.path()).expect("deleted");
    // The spill holds the bytes of the file as they are: offsets and ids stay the same.
    let spill = agent.state_dir().join("spill");
    let spilled = wait_until("the file is spilled", seconds(30), || {
        let files: Vec<_> = fs::read_dir(&spill).map_err(|error| error.to_string())?.flatten().collect();
        if files.is_empty() { Err(agent.log()) } else { Ok(files) }
    });
    for entry in spilled {
        let mode = entry.metadata().expect("its mode").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{mode:o} of {:?}", entry.path());
    }
    server.close(None);
    wait_until("it is shipped from there", seconds(60), || {
        if server.has("card [redacted:card]") { Ok(()) } else { Err(agent.log()) }
    });
    assert!(!server.has(&format!("card {CARD}")));
}
