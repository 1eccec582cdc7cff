//! Stack traces are one document each, whoever writes between their lines and whenever the agent dies.

use rustix::process::Signal;

use crate::{
    faults::shipping,
    support::{Agent, BulkServer, Fault, LogDir, LogFile, Stream, assert_ledger, seconds, wait_until},
};

const JAVA: &[&str] = &[
    "2026-11-21 10:00:01,117 ERROR shop.web.CartController - adding to cart 7411 failed",
    "java.lang.IllegalStateException: cart 7411 is closed",
    "\tat shop.cart.Cart.add(Cart.java:88)",
    "\tat shop.cart.CartService.add(CartService.java:40)",
    "Caused by: java.net.SocketException: Connection reset",
    "\t... 25 more",
];

const GO: &[&str] = &[
    "panic: assignment to entry in nil map",
    "",
    "goroutine 1 [running]:",
    "main.main()",
    "\t/src/shop/main.go:12 +0x1d",
];

#[track_caller]
fn wait_for_event(server: &BulkServer, lines: &[&str], agent: &Agent) {
    let event = lines.join("\n");
    wait_until("the event is one document", seconds(20), || match server.has_event(&event) {
        true => Ok(()),
        false => Err(format!("{:?}\n{}", server.tally(), agent.log())),
    });
}

/// The lines of both streams in turn.
fn write_in_turn(file: &mut LogFile, stdout: &[&str], stderr: &[&str]) {
    for at in 0..stdout.len().max(stderr.len()) {
        stdout.get(at).into_iter().for_each(|line| file.line(Stream::Stdout, line));
        stderr.get(at).into_iter().for_each(|line| file.line(Stream::Stderr, line));
    }
}

#[test]
fn traces_of_both_streams_are_one_document_each() {
    let (server, logs) = (BulkServer::start(1), LogDir::new());
    let agent = Agent::start(&shipping(&logs, &server), &[]);
    for mut file in [logs.container("shop", "cart-0", "app"), logs.docker_container("shop", "cart-1", "app")]
    {
        file.line(Stream::Stdout, "before");
        write_in_turn(&mut file, JAVA, GO);
        file.line(Stream::Stderr, "after");
    }
    // Nothing comes after the one on standard output: it goes out after a while.
    wait_until("all is there", seconds(20), || match server.documents() {
        8 => Ok(()),
        other => Err(format!("{other} documents\n{}", agent.log())),
    });
    wait_for_event(&server, JAVA, &agent);
    wait_for_event(&server, GO, &agent);
    assert_eq!(assert_ledger(&agent).read_lines, 2 * (2 + JAVA.len() + GO.len()) as u64);
}

#[test]
fn a_trace_cut_by_rotation_loses_no_line() {
    let (server, logs) = (BulkServer::start(1), LogDir::new());
    let agent = Agent::start(&shipping(&logs, &server), &[]);
    let mut file = logs.container("shop", "cart-0", "app");
    let (before, after) = JAVA.split_at(3);
    before.iter().for_each(|line| file.line(Stream::Stderr, line));
    file.rotate();
    after.iter().for_each(|line| file.line(Stream::Stderr, line));
    wait_for_event(&server, before, &agent);
    server.assert_each_once(JAVA.len() as u64, JAVA.iter().map(|line| (*line).to_owned()), || agent.log());
}

/// What follows after a while is another document, and it is so too when all is read again: the first one has its id.
#[test]
fn what_comes_after_an_event_was_sent_is_not_lost_when_the_agent_is_killed_before_it_heard_of_it() {
    let (server, logs) = (BulkServer::start(1), LogDir::new());
    let mut agent = Agent::start(&shipping(&logs, &server), &[]);
    let mut file = logs.container("shop", "cart-0", "app");
    server.fail(&[Fault::Stall], 100);
    let (before, after) = JAVA.split_at(2);
    before.iter().for_each(|line| file.line(Stream::Stderr, line));
    wait_for_event(&server, before, &agent);
    agent.kill_9();
    after.iter().for_each(|line| file.line(Stream::Stderr, line));
    server.heal();
    agent.start_again();
    server.assert_each_once(JAVA.len() as u64, JAVA.iter().map(|line| (*line).to_owned()), || agent.log());
    assert_eq!(server.documents(), 2, "what came later is an event of its own");
}

#[test]
fn what_is_held_goes_out_when_the_agent_is_told_to_end() {
    let (server, logs) = (BulkServer::start(1), LogDir::new());
    let mut agent = Agent::start(&shipping(&logs, &server), &[]);
    let mut file = logs.container("shop", "cart-0", "app");
    JAVA.iter().for_each(|line| file.line(Stream::Stderr, line));
    file.line(Stream::Stdout, "read");
    wait_until("it was read", seconds(20), || if server.has("read") { Ok(()) } else { Err(agent.log()) });
    assert_eq!(agent.end_by(Signal::TERM).code(), Some(0), "{}", agent.log());
    assert!(server.has_event(&JAVA.join("\n")), "{}", agent.log());
    agent.start_again();
    file.line(Stream::Stdout, "read on");
    wait_until(
        "it is read on",
        seconds(20),
        || if server.has("read on") { Ok(()) } else { Err(agent.log()) },
    );
    assert_eq!(server.documents(), 3);
}

#[test]
fn the_user_s_own_pattern_and_none_at_all() {
    let (server, logs) = (BulkServer::start(1), LogDir::new());
    let (mut own, mut off) = (logs.plain("own.txt"), logs.plain("off.txt"));
    let config = format!(
        "logs:\n  multiline: off\n  sources:\n    - files: {{include: ['{0}/own.txt'], multiline: {{start: '^BEGIN'}}}}\n    - files: {{include: ['{0}/off.txt']}}\nelasticsearch: {{hosts: ['{1}']}}\n",
        logs.path().display(),
        server.url()
    );
    for line in ["BEGIN one", "of", "two", "BEGIN two"] {
        own.line(Stream::Stdout, line);
    }
    JAVA.iter().for_each(|line| off.line(Stream::Stdout, line));
    let agent = Agent::start(&config, &[]);
    wait_for_event(&server, &["BEGIN one", "of", "two"], &agent);
    wait_for_event(&server, &["BEGIN two"], &agent);
    for line in JAVA {
        wait_for_event(&server, &[line], &agent);
    }
    assert_eq!(server.documents(), 2 + JAVA.len() as u64);
    assert_ledger(&agent);
}
