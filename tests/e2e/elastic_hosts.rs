//! Several servers: who fails is left out and comes back, and each line is there once.

use crate::{
    elastic::Pods,
    support::{Agent, BulkServer, Fault, LogDir, pods_config, same, seconds, wait_until},
};

fn config(logs: &LogDir, servers: &[&BulkServer]) -> String {
    let hosts: Vec<String> = servers.iter().map(|server| format!("'{}'", server.url())).collect();
    format!(
        "{}elasticsearch:\n  hosts: [{}]\n  bulk: {{max_wait: 50ms}}\n",
        pods_config(logs),
        hosts.join(", ")
    )
}

/// Every line at exactly one of the servers.
#[track_caller]
fn assert_once_together(servers: [&BulkServer; 2], written: &[String], agent: &Agent) {
    wait_until("every line is somewhere", seconds(60), || {
        let there: u64 = servers.iter().map(|server| server.documents()).sum();
        same(&there, &(written.len() as u64)).map_err(|seen| format!("{seen}:\n{}", agent.log()))
    });
    for text in written {
        assert_eq!(servers.iter().filter(|server| server.has(text)).count(), 1, "{text}");
    }
}

#[test]
fn a_server_that_fails_gets_no_lines_until_it_answers_again() {
    let (bad, good, logs) = (BulkServer::start(1), BulkServer::start(2), LogDir::new());
    bad.fail(&[Fault::Unavailable], 100);
    let agent = Agent::start(&config(&logs, &[&bad, &good]), &[]);
    let mut pods = Pods::new(&logs, 2);
    for round in 1..=20 {
        pods.write(5);
        wait_until("the good one has them", seconds(30), || same(&good.documents(), &(round * 10)));
    }
    // Requests that were on their way together, and those after a probe: far fewer than there were.
    assert!(bad.hits(Fault::Unavailable) < 10, "{}", bad.hits(Fault::Unavailable));
    assert!(
        bad.hits(Fault::Unavailable) == 0
            || agent.log().contains("a server is left out until it answers again")
    );
    bad.heal();
    wait_until("the other one has lines, too", seconds(60), || {
        pods.write(1);
        if bad.documents() > 0 { Ok(()) } else { Err(agent.log()) }
    });
    assert_once_together([&bad, &good], &pods.written, &agent);
}

#[test]
fn a_server_that_is_away_is_asked_again_when_it_is_back() {
    let (away, here, logs) = (BulkServer::start(3), BulkServer::start(4), LogDir::new());
    away.fail(&[Fault::Refuse], 100);
    let agent = Agent::start(&config(&logs, &[&away, &here]), &[]);
    let mut pods = Pods::new(&logs, 2);
    pods.write(100);
    wait_until("the one that is there has them", seconds(30), || same(&here.documents(), &200));
    away.heal();
    wait_until("the other one has lines, too", seconds(60), || {
        pods.write(1);
        if away.documents() > 0 { Ok(()) } else { Err(agent.log()) }
    });
    assert_once_together([&away, &here], &pods.written, &agent);
}
