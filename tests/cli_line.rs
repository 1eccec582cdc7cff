//! `nodewarden check --line`: the binary says what happens to a line, without an agent.

#![allow(clippy::disallowed_methods, clippy::expect_used, reason = "tests start the program and may fail")]

use std::process::Command;

const POD: &str = "/var/log/pods/shop_cart-1_u-1/app/0.log";
const CONFIG: &str = "elasticsearch: {hosts: ['http://127.0.0.1:9200']}
logs:
  redact: {builtin: all}
  rules:
    - drop: {match: healthz, name: probes}
  sources:
    - kubernetes: {exclude_namespaces: [quiet]}
    - files: {include: ['/var/log/*.log']}
";

fn said(line: &str, file: &str, more: &[&str]) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("config.yaml");
    std::fs::write(&config, CONFIG).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_nodewarden"));
    command.env_clear().arg(format!("--config.file={}", config.display()));
    command.arg(format!("--state.dir={}", dir.path().display()));
    let out = command.args(["check", "--line", line, "--file", file]).args(more).output().expect("it runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("text")
}

#[test]
fn a_line_becomes_a_document_without_its_secrets() {
    let line = "2026-11-21T10:00:00.5Z stdout F paid with 4111 1111 1111 1111";
    let text = said(line, POD, &["--label", "app=cart"]);
    for words in [
        "logs.sources[0], /var/log/pods",
        "namespace shop, pod cart-1, container app",
        "format:   cri",
        "a line of its own",
        "redacted: card",
        "index:    logs-kubernetes.container_logs-default",
        "where in it the line begins",
        "\"@timestamp\": \"2026-11-21T10:00:00.500",
        "\"app\": \"cart\"",
    ] {
        assert!(text.contains(words), "no {words:?}:\n{text}");
    }
    assert!(!text.contains("1111"), "{text}");
    let part = said("2026-11-21T10:00:00.5Z stdout P half", POD, &[]);
    assert!(part.contains("waits for the rest") && part.contains("\"message\": \"half\""), "{part}");
}

#[test]
fn rules_and_annotations_are_named_and_json_is_merged() {
    let dropped = said("2026-11-21T10:00:00Z stdout F GET /healthz", POD, &[]);
    assert!(dropped.contains("probes: left out") && dropped.contains("document: none"), "{dropped}");
    let line = "2026-11-21T10:00:00Z stderr F {\"message\":\"order\",\"price\":7}";
    let json =
        said(line, POD, &["--annotation", "nodewarden.io/json=true", "--annotation", "nodewarden.io/odd=1"]);
    assert!(
        json.contains("\"price\": 7") && json.contains("note:     annotation nodewarden.io/odd"),
        "{json}"
    );
    let excluded = said(line, POD, &["--annotation", "fluentbit.io/exclude=true"]);
    assert!(excluded.contains("an annotation of the pod: left out"), "{excluded}");
}

#[test]
fn a_file_that_nobody_reads_has_its_reasons() {
    let quiet = said("a", "/var/log/pods/quiet_a_u/app/0.log", &[]);
    assert!(quiet.contains("none reads this file") && quiet.contains("exclude_namespaces"), "{quiet}");
    assert!(quiet.contains("none of its include patterns fits"), "{quiet}");
    let deep = said("a", "/var/log/deep/a.log", &[]);
    assert!(deep.contains("none reads this file"), "{deep}");
    for path in ["/var/log/a.log", "/var/log/a.log.1", "/var/log/a.log-20261121"] {
        let plain = said("Nov 21 10:00:00 host program[7]: text", path, &[]);
        assert!(plain.contains("logs.sources[1]") && plain.contains("format:   syslog"), "{plain}");
    }
}
