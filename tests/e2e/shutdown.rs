//! How the agent ends, and when it does not start at all.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{
    Agent, LogDir, NO_LOGS, Stream, http, nodewarden, pods_config, same, seconds, taken_port, temp_dir,
    wait_until,
};

/// What the contract gives a shutdown.
const LIMIT: Duration = Duration::from_secs(5);

#[test]
fn sigterm_and_sigint_end_it_with_success() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut agent = Agent::start(NO_LOGS, &[]);
        let start = Instant::now();
        let status = agent.end_by(signal);
        assert_eq!(status.code(), Some(0), "{signal:?}: {}", agent.log());
        assert!(start.elapsed() < LIMIT, "{signal:?} took {:?}", start.elapsed());
        assert!(http::get(&agent.metrics, "/metrics").is_err(), "the port is free again");
    }
}

#[test]
fn an_elasticsearch_that_is_away_does_not_hold_up_the_end() {
    let logs = LogDir::new();
    logs.container("shop", "cart-0", "app").line(Stream::Stdout, "nobody takes this line");
    // The listener never accepts: connections wait in the kernel's backlog.
    let (_silent, port) = taken_port();
    let config = format!("{}elasticsearch: {{hosts: ['http://127.0.0.1:{port}']}}\n", pods_config(&logs));
    let mut agent = Agent::start(&config, &[]);
    wait_until("the line is on its way", seconds(10), || {
        let status = agent.admin("/api/v1/status").json();
        same(&status["ledger"]["in_flight_lines"].as_u64(), &Some(1))
    });
    let start = Instant::now();
    assert_eq!(agent.end_by(Signal::TERM).code(), Some(0), "{}", agent.log());
    assert!(start.elapsed() < LIMIT + Duration::from_secs(1), "it took {:?}", start.elapsed());
}

#[test]
fn a_taken_port_is_named() {
    let (_taken, port) = taken_port();
    let flags = [format!("--web.listen-address=127.0.0.1:{port}"), "--admin.listen-address=".to_owned()];
    refused_naming(&flags, &port.to_string());
    let flags =
        ["--web.listen-address=127.0.0.1:0".to_owned(), format!("--admin.listen-address=127.0.0.1:{port}")];
    refused_naming(&flags, &port.to_string());
}

fn refused_naming(flags: &[String], word: &str) {
    let state = temp_dir();
    let state = format!("--state.dir={}", state.path().display());
    let args: Vec<&str> = flags.iter().map(String::as_str).chain([state.as_str()]).collect();
    let output = nodewarden(&args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(word), "no {word} in: {said}");
}
