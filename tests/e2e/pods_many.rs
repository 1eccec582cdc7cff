//! Pods that come and go by the thousand cost the agent no memory. `make test` takes some hundred of them, `make soak` ten thousand.

use std::{
    env, fs,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
};

use serde_json::json;

use crate::support::{
    Agent, ApiServer, BulkServer, LogDir, Stream::Stdout, pods_config, seconds, wait_until,
};

/// Who makes pods at the same time.
const HANDS: usize = 8;

/// Resident now.
fn resident_kib(agent: &Agent) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Makes and deletes pods of this node whose numbers are in the range.
fn come_and_go(api: &ApiServer, numbers: std::ops::Range<usize>) {
    let next = AtomicUsize::new(numbers.start);
    thread::scope(|scope| {
        for _ in 0..HANDS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Relaxed);
                    if number >= numbers.end {
                        return;
                    }
                    let name = format!("brief-{number}");
                    let labels =
                        json!({"app": name, "filler": "a".repeat(60), "team": format!("t{}", number % 7)});
                    let annotations = json!({"team/pager": "b".repeat(1000)});
                    api.make_pod(&name, "node-1", &json!({"labels": labels, "annotations": annotations}));
                    api.delete_pod(&name);
                }
            });
        }
    });
}

#[test]
fn pods_that_come_and_go_cost_no_memory() {
    let Some(api) = ApiServer::start() else { return };
    let count = if env::var_os("SOAK_SECONDS").is_some() { 10_000 } else { 300 };
    let (logs, sink) = (LogDir::new(), BulkServer::start(1));
    sink.keep_documents();
    let config = format!(
        "{}{}elasticsearch:\n  hosts: ['{}']\n  bulk: {{max_wait: 100ms}}\n",
        api.config("node-1"),
        pods_config(&logs),
        sink.url()
    );
    let agent = Agent::start(&config, &["--collector.disable-defaults"]);
    // Of those that are gone some are kept: that many are known before it is measured.
    come_and_go(&api, 0..count / 5);
    let before = resident_kib(&agent);
    come_and_go(&api, count / 5..count);
    // It has heard of all of them when it knows the last.
    let last = api.make_pod("last", "node-1", &json!({"labels": {"app": "last"}}));
    logs.container_of("shop", "last", &last, "app").line(Stdout, "the last one");
    wait_until("the last one is known", seconds(60), || match sink.document("the last one") {
        Some(line) if line["kubernetes"]["labels"]["app"] == "last" => Ok(()),
        other => Err(format!("{other:?}; the agent says:\n{}", agent.log())),
    });
    let after = resident_kib(&agent);
    eprintln!("{count} pods came and went: {before} KiB after a fifth of them, {after} KiB after all");
    assert!(after < before + 4096, "{before} KiB, then {after} KiB");
}
