//! Every way in which a sink may fail, with files that rotate, and with kill -9 of the agent on top: each line arrives once,
//! and the ledger's sum is exact. The seed of a test makes its choices again; how far the programs are by then is chance.

use std::{thread, time::Duration};

use crate::support::{
    Agent, BulkServer, Chance, Fault, Kubelet, Load, LogDir, Stream, assert_ledger, container_ledgers,
    pods_config, seconds, wait_for_documents, wait_until,
};

/// The pods of `logs` into the bulk server, in small requests, so that faults meet many.
pub fn shipping(logs: &LogDir, server: &BulkServer) -> String {
    format!(
        "{}elasticsearch:\n  hosts: ['{}']\n  bulk: {{max_bytes: 128Ki, max_wait: 100ms}}\n",
        pods_config(logs),
        server.url()
    )
}

/// Whether the agent is killed meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kills {
    None,
    Some,
}

/// Pods write and are rotated; so many of a hundred requests fail, until all is well again.
#[track_caller]
fn survives(faults: &[Fault], percent: u64, kills: Kills, load: Load) {
    eprintln!("{percent} % of requests with {faults:?}, kills: {kills:?}, {load:?}");
    let (server, logs, mut chance) = (BulkServer::start(load.seed), LogDir::new(), Chance::new(load.seed));
    let kubelet = Kubelet::start(&logs, load);
    let mut agent = Agent::start(&shipping(&logs, &server), &[]);
    wait_for_documents(&server, 1, || agent.log());
    server.fail(faults, percent);
    wait_until("the fault has met requests", seconds(30), || {
        let missed: Vec<_> = faults.iter().filter(|fault| server.hits(**fault) == 0).collect();
        if missed.is_empty() { Ok(()) } else { Err(format!("no {missed:?}\n{}", agent.log())) }
    });
    if kills == Kills::Some {
        for _ in 0..2 {
            kill_at_random(&mut agent, &mut chance);
        }
    }
    thread::sleep(Duration::from_millis(800));
    server.heal();
    if kills == Kills::Some {
        kill_at_random(&mut agent, &mut chance);
    }
    let written = kubelet.stop();
    assert!(written.rotations > 0, "nothing was rotated");
    let lines = written.lines() - written.poison();
    server.assert_each_once(lines, written.texts(), || agent.log());
    let ledger = assert_ledger(&agent);
    if kills == Kills::None {
        assert_eq!(ledger.read_lines, written.lines(), "{ledger:?}");
        assert_eq!(ledger.dead_letter_lines, written.poison(), "{ledger:?}");
        let read = container_ledgers(&agent).into_iter().map(|one| (one.pod, one.ledger.read_lines));
        assert_eq!(read.collect::<Vec<_>>(), written.pods().collect::<Vec<_>>());
    }
}

fn kill_at_random(agent: &mut Agent, chance: &mut Chance) {
    // Not to wait for anything: it meets the agent wherever it is by then.
    thread::sleep(Duration::from_millis(chance.below(400)));
    agent.kill_9();
    agent.start_again();
}

/// A test for each fault, with kill -9 of the agent and without, side by side: both mostly wait.
macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident: $faults:expr, $percent:expr, $load:expr;)*) => {
        $($(#[$doc])* #[test] fn $name() {
            thread::scope(|scope| {
                for kills in [Kills::None, Kills::Some] {
                    // Their output is that of the test.
                    scope.spawn(move || survives(&$faults, $percent, kills, $load));
                }
            });
        })*
    };
}

faults! {
    refused_whole_with_429: [Fault::Busy], 100, Load::SHORT;
    refused_in_part_with_429: [Fault::BusyDocuments], 100, Load::SHORT;
    unavailable_with_503: [Fault::Unavailable], 100, Load::SHORT;
    cut_within_the_request: [Fault::ResetWithin], 100, Load::SHORT;
    cut_after_storing: [Fault::ResetAfterStoring], 100, Load::SHORT;
    stalled: [Fault::Stall], 100, Load::SHORT;
    connections_refused: [Fault::Refuse], 100, Load::SHORT;
    answer_cut_off: [Fault::CutAnswer], 100, Load::SHORT;
    answer_of_half_its_json: [Fault::CutJson], 100, Load::SHORT;
    too_large_with_413: [Fault::TooLarge(20_000)], 100, Load::SHORT;
    too_large_with_413_unread: [Fault::TooLargeUnread(3_000)], 100, Load::SHORT;
    unauthorized_with_401: [Fault::Unauthorized], 100, Load::SHORT;
    forbidden_whole_with_403: [Fault::Forbidden], 100, Load::SHORT;
    /// Documents that are refused for good go to the dead letters, with and without other trouble.
    poison_documents: [Fault::BusyDocuments], 30, Load { poison_every: 17, ..Load::SHORT };
    everything_at_once: EVERYTHING, 60, Load { poison_every: 101, ..Load::SHORT };
}

/// All that may come and go with a request.
pub const EVERYTHING: [Fault; 10] = [
    Fault::Busy,
    Fault::BusyDocuments,
    Fault::Unavailable,
    Fault::ResetWithin,
    Fault::ResetAfterStoring,
    Fault::CutAnswer,
    Fault::CutJson,
    Fault::TooLarge(20_000),
    Fault::Unauthorized,
    Fault::Forbidden,
];

/// Under which nothing comes back at all.
pub const STANDSTILLS: [Fault; 2] = [Fault::Stall, Fault::Refuse];

/// All that the kubelet does to files, while a running agent waits for its server.
#[test]
fn rotated_files_compressed_and_the_oldest_deleted_with_the_server_away() {
    let load = Load { rotate_at: 25_000, keep: 3, gzip: true, ..Load::SHORT };
    let (server, logs) = (BulkServer::start(load.seed), LogDir::new());
    let kubelet = Kubelet::start(&logs, load);
    let agent = Agent::start(&shipping(&logs, &server), &[]);
    wait_for_documents(&server, 1, || agent.log());
    server.fail(&[Fault::Refuse], 100);
    let lines = kubelet.lines();
    wait_until("the oldest files are gone", seconds(30), || match kubelet.lines() - lines {
        more if more > 2500 => Ok(()),
        more => Err(format!("{more} more lines")),
    });
    server.heal();
    let written = kubelet.stop();
    assert!(written.rotations > 15, "{} rotations", written.rotations);
    server.assert_each_once(written.lines(), written.texts(), || agent.log());
    assert_eq!(assert_ledger(&agent).read_lines, written.lines());
}

/// Somebody has to open that index again; meanwhile the others get their documents.
#[test]
fn documents_of_one_index_forbidden_with_403() {
    let (server, logs) = (BulkServer::start(Load::SHORT.seed), LogDir::new());
    let config =
        shipping(&logs, &server).replace("  bulk:", "  index: 'app-{kubernetes.namespace}'\n  bulk:");
    server.close(Some("app-shop"));
    let kubelet = Kubelet::start(&logs, Load::SHORT);
    let closed: Vec<String> =
        (0..50).map(|line| format!("line {line} for an index that is closed")).collect();
    let mut file = logs.container("shop", "cart-0", "app");
    closed.iter().for_each(|text| file.line(Stream::Stdout, text));
    let mut agent = Agent::start(&config, &[]);
    wait_for_documents(&server, 3000, || agent.log());
    assert!(agent.log().contains("cluster_block_exception"), "it says why they wait:\n{}", agent.log());
    agent.kill_9();
    agent.start_again();
    wait_for_documents(&server, server.documents() + 3000, || agent.log());
    assert!(!server.has(&closed[0]));
    server.close(None);
    let written = kubelet.stop();
    let total = written.lines() + closed.len() as u64;
    server.assert_each_once(total, written.texts().chain(closed), || agent.log());
    assert_ledger(&agent);
}

/// What nobody takes waits in its file, not in memory: as much of it as there may be, the others get their documents.
#[test]
fn an_index_that_stays_forbidden_holds_up_nobody_else() {
    let (server, logs) = (BulkServer::start(Load::SHORT.seed), LogDir::new());
    let config =
        shipping(&logs, &server).replace("  bulk:", "  index: 'app-{kubernetes.namespace}'\n  bulk:");
    server.close(Some("app-shop"));
    let shop = Kubelet::start(&logs, Load { namespace: "shop", seed: 2, ..Load::SHORT });
    let others = Kubelet::start(&logs, Load::SHORT);
    let mut agent = Agent::start(&config, &[]);
    for round in 0..6 {
        wait_for_documents(&server, server.documents() + 2000, || agent.log());
        if round == 2 {
            agent.kill_9();
            agent.start_again();
        }
    }
    let (behind, pace) = (others.lines() - server.documents(), Load::SHORT.bytes_per_second / 250);
    assert!(behind < 5 * pace, "{behind} lines behind at {pace} a second");
    server.close(None);
    let (shop, others) = (shop.stop(), others.stop());
    server
        .assert_each_once(shop.lines() + others.lines(), shop.texts().chain(others.texts()), || agent.log());
    assert_ledger(&agent);
}
