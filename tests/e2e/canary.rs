//! The agent's own line, which tells how long it takes until lines are found.

use std::fs;

use crate::{
    elastic::shipping,
    support::{Agent, Elastic, LogDir, assert_ledger, pods_config, same, seconds, temp_dir, wait_until},
};

const DELIVERED: &str = "nodewarden_delivery_seconds_count";

#[track_caller]
fn wait_for_delivery(agent: &Agent) {
    wait_until("the canary is found", seconds(60), || {
        same(&(agent.metric(DELIVERED, &[]) > 0.0), &true).map_err(|_| agent.log())
    });
    assert_eq!(agent.metric("nodewarden_delivery_canary_failed_total", &[]), 0.0);
    assert!(agent.metric("nodewarden_delivery_canary_last_success_timestamp_seconds", &[]) > 1.7e9);
}

#[test]
fn a_line_of_the_agent_s_own_is_found_again() {
    for elastic in [Elastic::shared(), Elastic::open_search()] {
        let logs = LogDir::new();
        let (config, _) = shipping(&logs, elastic, "sung");
        let agent = Agent::start(&format!("{config}  canary: true\n"), &[]);
        wait_for_delivery(&agent);
        let document = elastic.any("logs-nodewarden.canary-sung");
        let message = document["message"].as_str().unwrap_or_default();
        assert!(message.starts_with("nodewarden canary "), "{document}");
        // A minute may have begun meanwhile.
        let ledger = assert_ledger(&agent);
        assert!(
            ledger.read_lines > 0 && ledger.acked_lines == ledger.read_lines,
            "as others are: {ledger:?}"
        );
    }
}

#[test]
fn a_key_that_may_only_create_is_said_once_and_the_time_is_taken_all_the_same() {
    let (elastic, logs, dir) = (Elastic::secured(), LogDir::new(), temp_dir());
    let (_, key) = elastic.api_key(&["logs-*"], &["auto_configure", "create_doc"]);
    let path = dir.path().join("key");
    fs::write(&path, key).expect("written");
    let config = format!(
        "{}elasticsearch:\n  hosts: ['{}']\n  canary: true\n  tls: {{ca: {}}}\n  auth: {{api_key_file: {}}}\n",
        pods_config(&logs),
        elastic.url(),
        elastic.ca().display(),
        path.display()
    );
    let agent = Agent::start(&config, &[]);
    wait_for_delivery(&agent);
    assert_eq!(agent.log().matches("can't be read with these privileges").count(), 1, "{}", agent.log());
}

#[test]
fn without_it_nothing_is_said_of_it() {
    let (elastic, logs) = (Elastic::shared(), LogDir::new());
    let agent = Agent::start(&shipping(&logs, elastic, "silent").0, &[]);
    assert!(!agent.get("/metrics?collect[]=loadavg").text().contains("nodewarden_delivery"));
}
