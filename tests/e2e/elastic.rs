//! Log lines into a real Elasticsearch: each line once, whatever happens in between.

use std::{
    collections::{BTreeMap, HashSet},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

use crate::support::{
    Agent, Elastic, LogDir, LogFile, Stream, http, log_dir_config, pods_config, same, seconds, uid,
    wait_until,
};

/// The agent's configuration and the data stream that its lines go to; `name` keeps tests apart on one server.
pub fn shipping(logs: &LogDir, elastic: &Elastic, name: &str) -> (String, String) {
    let pods = pods_config(logs);
    let config =
        format!("{pods}elasticsearch:\n  hosts: ['{}']\n  index: 'logs-{{dataset}}-{name}'\n", elastic.url());
    (config, format!("logs-kubernetes.container_logs-{name}"))
}

/// Files of as many pods, and the lines that were written to them.
pub struct Pods {
    files: Vec<LogFile>,
    pub written: Vec<String>,
}

impl Pods {
    pub fn new(logs: &LogDir, count: usize) -> Self {
        let files = (0..count).map(|pod| logs.container("load", &format!("pod-{pod}"), "app")).collect();
        Self { files, written: Vec::new() }
    }

    /// `count` more lines into each file, in turn.
    pub fn write(&mut self, count: usize) {
        for _ in 0..count {
            for (pod, file) in self.files.iter_mut().enumerate() {
                let text = format!("pod {pod} says line {} of the load", self.written.len());
                file.line(Stream::Stdout, &text);
                self.written.push(text);
            }
        }
    }

    fn rotate(&mut self) {
        self.files.iter_mut().for_each(LogFile::rotate);
    }
}

#[track_caller]
fn wait_for_some(elastic: &Elastic, index: &str, least: u64, agent: &Agent) {
    wait_until("the first documents are there", seconds(60), || match elastic.count(index)? {
        count if count >= least => Ok(()),
        count => Err(format!("{count} of {least}; the agent says:\n{}", agent.log())),
    });
}

/// Waits until as many documents are there as lines were written, then compares them one by one.
#[track_caller]
pub fn assert_each_once(elastic: &Elastic, index: &str, written: &[String]) {
    let total = written.len() as u64;
    wait_until("every line is a document", seconds(240), || same(&elastic.count(index)?, &total));
    let mut found = elastic.all(index);
    let mut messages: Vec<&str> = found.iter().map(|found| found.message.as_str()).collect();
    messages.sort_unstable();
    let mut expected: Vec<&str> = written.iter().map(String::as_str).collect();
    expected.sort_unstable();
    assert!(messages == expected, "{:?}", first_difference(&messages, &expected));
    found.sort_unstable();
    found.dedup_by(|a, b| a.id == b.id);
    assert_eq!(found.len(), written.len(), "distinct ids");
}

/// The same for so many texts that two lists of them would not fit: hashes are compared.
#[track_caller]
pub fn assert_same_texts(
    elastic: &Elastic,
    index: &str,
    total: u64,
    texts: impl Iterator<Item = String>,
    agent: impl Fn() -> String,
) {
    let in_time = seconds(240 + total / 2000);
    wait_until("every line is a document", in_time, || {
        let count = elastic.count(index)?;
        // Each count makes what was indexed searchable, which is work for the server.
        let pause = Duration::from_millis(if count == total { 0 } else { 250 });
        thread::sleep(pause);
        same(&count, &total).map_err(|seen| format!("{seen}; the agent says:\n{}", agent()))
    });
    let (mut ids, mut messages) = (HashSet::new(), HashSet::new());
    elastic.each(index, |found| {
        ids.insert(xxh3_64(found.id.as_bytes()));
        messages.insert(xxh3_64(found.message.as_bytes()));
    });
    assert_eq!((ids.len() as u64, messages.len() as u64), (total, total), "distinct ids and messages");
    let missing: Vec<String> =
        texts.filter(|text| !messages.contains(&xxh3_64(text.as_bytes()))).take(5).collect();
    assert!(missing.is_empty(), "never stored: {missing:#?}");
}

fn first_difference<'a>(seen: &[&'a str], expected: &[&'a str]) -> Option<(&'a str, &'a str)> {
    seen.iter()
        .zip(expected)
        .find(|(seen, expected)| seen != expected)
        .map(|(seen, expected)| (*seen, *expected))
}

/// Dotted names to values, whether the document nests them or not.
fn flat(document: &Value) -> BTreeMap<String, Value> {
    fn walk(prefix: &str, value: &Value, into: &mut BTreeMap<String, Value>) {
        let Some(object) = value.as_object() else {
            into.insert(prefix.to_owned(), value.clone());
            return;
        };
        for (key, value) in object {
            let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            walk(&name, value, into);
        }
    }
    let mut fields = BTreeMap::new();
    walk("", document, &mut fields);
    fields
}

#[test]
fn a_document_has_the_fields_of_ecs() {
    let (elastic, logs) = (Elastic::shared(), LogDir::new());
    let (config, index) = shipping(&logs, elastic, "fields");
    let agent = Agent::start(&config, &[]);
    let mut file = logs.container("shop", "cart-0", "app");
    file.line(Stream::Stderr, "payment \"refused\"\tat till 4");
    wait_for_some(elastic, &index, 1, &agent);
    let fields = flat(&elastic.any(&index));
    for (name, expected) in [
        ("message", "payment \"refused\"\tat till 4"),
        ("stream", "stderr"),
        ("log.file.path", file.path().to_str().expect("UTF-8")),
        ("kubernetes.namespace", "shop"),
        ("kubernetes.pod.name", "cart-0"),
        ("kubernetes.pod.uid", &uid("cart-0")),
        ("kubernetes.container.name", "app"),
        ("data_stream.type", "logs"),
        ("data_stream.dataset", "kubernetes.container_logs"),
        ("data_stream.namespace", "fields"),
    ] {
        assert_eq!(fields.get(name), Some(&expected.into()), "{name} of {fields:#?}");
    }
    assert_eq!(fields.get("log.offset"), Some(&0.into()));
    assert_eq!(fields.get("kubernetes.container.restart_count"), Some(&0.into()));
    let line = std::fs::read_to_string(file.path()).expect("the log file");
    assert_eq!(fields["@timestamp"].as_str(), line.split(' ').next(), "the runtime's time to the nanosecond");
    assert!(fields["host.name"].is_string(), "{fields:#?}");
}

#[test]
fn steady_writing_arrives_once() {
    let (elastic, logs) = (Elastic::shared(), LogDir::new());
    let (config, index) = shipping(&logs, elastic, "steady");
    let agent = Agent::start(&config, &[]);
    let mut pods = Pods::new(&logs, 3);
    for round in 1..=5 {
        pods.write(20);
        wait_for_some(elastic, &index, round * 60, &agent);
    }
    assert_each_once(elastic, &index, &pods.written);
}

#[test]
fn a_hundred_thousand_lines_survive_rotations_and_kill_9() {
    let (elastic, logs) = (Elastic::shared(), LogDir::new());
    let (config, index) = shipping(&logs, elastic, "many");
    let mut agent = Agent::start(&config, &[]);
    let mut pods = Pods::new(&logs, 20);
    pods.write(2000);
    pods.rotate();
    pods.write(500);
    // In the middle: some of it has arrived, most has not.
    wait_for_some(elastic, &index, 1, &agent);
    agent.kill_9();
    pods.write(500);
    pods.rotate();
    agent.start_again();
    pods.write(2000);
    assert_eq!(pods.written.len(), 100_000);
    assert_each_once(elastic, &index, &pods.written);
    assert!(agent.peak_mib() < 128, "{} MiB", agent.peak_mib());
}

#[test]
fn a_refused_document_is_listed_with_its_reason_and_the_others_arrive() {
    let (elastic, logs) = (Elastic::shared(), LogDir::new());
    // Messages that are no numbers are refused.
    let mapping = json!({"mappings": {"properties": {"message": {"type": "long"}}}});
    let address = elastic.url().replace("http://", "");
    let json_type = [("content-type", "application/json")];
    let made = http::request("PUT", &address, "/numbers-only", &json_type, mapping.to_string().as_bytes());
    made.expect("an answer").good().expect("made");
    let pods = pods_config(&logs);
    let config = format!(
        "{pods}elasticsearch:\n  hosts: ['{}']\n  index: numbers-only\n  on_reject: {{repair: false}}\n",
        elastic.url()
    );
    let agent = Agent::start(&config, &[]);
    let mut file = logs.container("shop", "cart-0", "app");
    for text in ["1", "no number", "2"] {
        file.line(Stream::Stdout, text);
    }
    let listed = wait_until("the document is listed", seconds(30), || {
        let output = agent.run(&["dead-letters", "list"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if text.is_empty() { Err(String::from_utf8_lossy(&output.stderr).into_owned()) } else { Ok(text) }
    });
    assert!(listed.contains("shop/cart-0/app 400 document_parsing_exception"), "{listed}");
    assert!(listed.contains("\"message\":\"no number\""), "{listed}");
    wait_until("the others are there", seconds(30), || same(&elastic.count("numbers-only")?, &2));
    let ledger = agent.admin("/api/v1/status").json()["ledger"].clone();
    assert_eq!((&ledger["read_lines"], &ledger["dead_letter_lines"]), (&json!(3), &json!(1)), "{ledger}");
}

#[test]
fn a_syslog_line_becomes_a_document_with_its_own_time() {
    let (elastic, logs) = (Elastic::shared(), LogDir::new());
    let config = format!(
        "{}elasticsearch:\n  hosts: ['{}']\n  index: 'logs-{{dataset}}-lines'\n",
        log_dir_config(&logs),
        elastic.url()
    );
    let text = "2026-11-20T13:14:15.123456+01:00 rack7 sshd[812]: Accepted publickey\n\
                \tfits nothing\n\
                <165>1 2026-11-20T10:10:10Z rack7 app main ID47 [a@1 b=\"c\" b.c=\"d\"] of RFC 5424\n";
    std::fs::write(logs.path().join("syslog"), text).expect("written");
    let _agent = Agent::start(&config, &[]);
    let index = "logs-system.syslog-lines";
    wait_until("every line is a document", seconds(60), || same(&elastic.count(index)?, &3));
    let documents = elastic.documents(index);
    let find = |message: &str| {
        documents.iter().find(|document| document["message"] == message).expect("the document")
    };
    let document = find("Accepted publickey");
    assert_eq!(document["@timestamp"], "2026-11-20T12:14:15.123456000Z");
    assert_eq!((&document["process"]["name"], &document["process"]["pid"]), (&"sshd".into(), &812.into()));
    assert_eq!((&document["host"]["hostname"], &document["log"]["offset"]), (&"rack7".into(), &0.into()));
    let document = find("of RFC 5424");
    assert_eq!(document["@timestamp"], "2026-11-20T10:10:10.000000000Z");
    assert_eq!(document["log"]["level"], "notice");
    assert_eq!(document["log"]["syslog"]["facility"]["name"], "local4");
    assert!(find("\tfits nothing").get("process").is_none());
}
