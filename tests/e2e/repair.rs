//! Fields that their index refuses become text, documents that can't be repaired are dead letters, and those are sent again.

use serde_json::{Value, json};

use crate::{
    elastic::assert_same_texts,
    support::{
        Agent, Elastic, LogDir, Stream, assert_ledger, pods_config, same, seconds, temp_dir, wait_until,
    },
};

/// Lines, those among them whose port is no number, and those with a field that may not be there.
const LINES: usize = 50_000;
const CONFLICTS: u64 = 500;
const STRICT: u64 = 50;

fn text(number: usize) -> String {
    format!("line {number} of the load")
}

fn line(number: usize) -> String {
    let message = text(number);
    match number {
        _ if number % 1000 == 7 => json!({"message": message, "strict": {"new": number}}).to_string(),
        _ if number % 100 == 5 => json!({"message": message, "port": "http"}).to_string(),
        _ if number.is_multiple_of(2) => json!({"message": message, "port": number}).to_string(),
        _ => message,
    }
}

fn mapping(strict: &Value) -> Value {
    let properties = json!({"port": {"type": "long"}, "strict": {"dynamic": "strict", "properties": strict}});
    json!({"properties": {"json": {"properties": properties}}})
}

/// Its lines are there, each once, but for those that may not be; returns where they are.
fn deliver(elastic: &Elastic, name: &str, further: &str) {
    let index = format!("logs-kubernetes.container_logs-{name}");
    let mut mappings = mapping(&json!({}));
    mappings["properties"]["@timestamp"] = json!({"type": "date_nanos"});
    mappings["properties"]["message"] = json!({"type": "text"});
    let template = json!({
        "index_patterns": [index], "data_stream": {}, "priority": 600,
        "template": {"settings": {"number_of_replicas": 0}, "mappings": mappings},
    });
    elastic.put(&format!("/_index_template/{name}"), &template);
    let logs = LogDir::new();
    let config = format!(
        "{}  json: {{enabled: true}}\nelasticsearch:\n  hosts: ['{}']\n  index: 'logs-{{dataset}}-{name}'\n{further}",
        pods_config(&logs),
        elastic.url(),
    );
    let agent = Agent::start(&config, &[]);
    let mut files: Vec<_> = (0..20).map(|pod| logs.container("load", &format!("pod-{pod}"), "app")).collect();
    for number in 0..LINES {
        files[number / 10 % 20].line(Stream::Stdout, &line(number));
    }
    let is_strict = |number: &usize| number % 1000 == 7;
    let taken = (0..LINES).filter(|number| !is_strict(number)).map(text);
    assert_same_texts(elastic, &index, LINES as u64 - STRICT, taken, || agent.log());
    let repaired = elastic.post(&format!("/{index}/_count?q=nodewarden.conflict:http"));
    assert_eq!(repaired["count"], CONFLICTS, "found by what is in them: {repaired}");
    let ledger = assert_ledger(&agent);
    assert_eq!((ledger.dead_letter_lines, ledger.read_lines), (STRICT, LINES as u64));
    assert_eq!(agent.metric("nodewarden_bulk_repaired_total", &[]), CONFLICTS as f64);

    let said = |args: &[&str]| {
        let output = agent.run(&[&["dead-letters"], args].concat());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{args:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    };
    let letters = || said(&["list"]).matches("strict_dynamic_mapping_exception").count() as u64;
    assert_eq!(letters(), STRICT);
    let again = said(&["resend", "--reason", "strict_dynamic", "--index", &index]);
    assert!(again.starts_with("0 accepted, 50 refused again, 0 not taken for now\n"), "{again}");
    assert_eq!(letters(), STRICT, "they stay");
    elastic.put(&format!("/{index}/_mapping"), &mapping(&json!({"new": {"type": "long"}})));
    let again = said(&["resend", "--all"]);
    assert_eq!(again, "50 accepted, 0 refused again, 0 not taken for now\n");
    assert_eq!(said(&["list"]), "");
    assert_same_texts(elastic, &index, LINES as u64, (0..LINES).map(text), || agent.log());
    assert_eq!(assert_ledger(&agent), ledger, "where its lines went first");
}

#[test]
fn every_line_reaches_a_secured_elasticsearch_with_a_key_that_may_only_create() {
    let elastic = Elastic::secured();
    let (_, key) = elastic.api_key(&["logs-*"], &["auto_configure", "create_doc"]);
    let dir = temp_dir();
    let path = dir.path().join("key");
    std::fs::write(&path, key).expect("written");
    let (ca, key) = (elastic.ca().display(), path.display());
    deliver(elastic, "repair", &format!("  tls: {{ca: {ca}}}\n  auth: {{api_key_file: {key}}}\n"));
}

#[test]
fn every_line_reaches_opensearch() {
    deliver(Elastic::open_search(), "repair", "");
}

#[test]
fn letters_outlive_kill_9_and_are_dropped_when_asked() {
    let (elastic, logs) = (Elastic::shared(), LogDir::new());
    elastic.put("/strict-only", &json!({"mappings": {"dynamic": "strict", "properties": {}}}));
    let config = format!(
        "{}elasticsearch:\n  hosts: ['{}']\n  index: strict-only\n",
        pods_config(&logs),
        elastic.url()
    );
    let mut agent = Agent::start(&config, &[]);
    let mut file = logs.container("shop", "cart-0", "app");
    for number in 0..10 {
        file.line(Stream::Stdout, &text(number));
    }
    let list = |agent: &Agent| {
        let output = agent.run(&["dead-letters", "list"]);
        String::from_utf8_lossy(&output.stdout).matches("line ").count()
    };
    wait_until("all are letters", seconds(60), || same(&list(&agent), &10));
    agent.kill_9();
    agent.start_again();
    assert_eq!(list(&agent), 10);
    let listed = agent.run(&["dead-letters", "list"]);
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let id =
        listed.lines().find_map(|line| line.trim().strip_prefix("strict-only ")).expect("an id").to_owned();
    let dropped = agent.run(&["dead-letters", "drop", "--id", &id]);
    assert_eq!(String::from_utf8_lossy(&dropped.stdout), "1 dropped\n");
    let none = agent.run(&["dead-letters", "drop"]);
    assert!(String::from_utf8_lossy(&none.stderr).contains("say which dead letters"), "{none:?}");
    agent.kill_9();
    agent.start_again();
    assert_eq!(list(&agent), 9);
    agent.run(&["dead-letters", "drop", "--all"]);
    assert_eq!(list(&agent), 0);
}
