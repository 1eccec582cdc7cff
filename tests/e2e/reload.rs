//! The configuration changes while the agent runs: it counts when it is right, what is under way is neither lost nor sent
//! twice, and the metrics stay where they are.

use std::{fs, os::unix::fs::symlink};

use rustix::process::Signal;

use crate::{
    faults::shipping,
    support::{
        Agent, BulkServer, Fault, Kubelet, Ledger, Load, LogDir, Stream::Stdout, assert_ledger, pods_config,
        seconds, wait_for_documents, wait_until,
    },
};

const STORE: &str = "store: {min_free: 0%}\n";

/// Waits until the agent has said this so many times.
#[track_caller]
fn wait_for_words(agent: &Agent, words: &str, times: usize) {
    wait_until("the agent says it", seconds(30), || {
        let log = agent.log();
        if log.matches(words).count() >= times { Ok(()) } else { Err(format!("no {words:?}:\n{log}")) }
    });
}

/// Puts a configuration into force with SIGHUP; it is the one with this number.
#[track_caller]
fn reload(agent: &Agent, config: &str, number: usize) {
    agent.configure(config);
    agent.signal(Signal::HUP);
    wait_for_words(agent, "a new configuration is in force", number);
}

fn succeeded(agent: &Agent) -> f64 {
    agent.metric("nodewarden_config_last_reload_successful", &[])
}

#[test]
fn reloads_under_load_lose_nothing_send_nothing_twice_and_count_on() {
    let (server, logs) = (BulkServer::start(5), LogDir::new());
    let kubelet = Kubelet::start(&logs, Load::SHORT);
    let base = format!("{}{STORE}", shipping(&logs, &server));
    let agent = Agent::start(&base, &[]);
    wait_for_documents(&server, 1, || agent.log());
    for number in 1..=4 {
        let before = Ledger::of(&agent);
        reload(&agent, &base.replace("128Ki", &format!("{}Ki", 128 - number)), number);
        assert!(Ledger::of(&agent).acked_lines >= before.acked_lines, "the counters began anew");
        let documents = server.documents();
        wait_for_documents(&server, documents, || agent.log());
    }
    let written = kubelet.stop();
    server.assert_each_once(written.lines(), written.texts(), || agent.log());
    assert_eq!(server.repeats(), 0, "lines were sent twice");
    assert_eq!(assert_ledger(&agent).read_lines, written.lines());
    assert_eq!(succeeded(&agent), 1.0);
}

#[test]
fn a_sink_that_is_away_is_left_for_another_one_at_once() {
    let (away, there, logs) = (BulkServer::start(6), BulkServer::start(7), LogDir::new());
    let mut file = logs.container("shop", "cart-1", "app");
    let mut agent = Agent::start(&format!("{}{STORE}", shipping(&logs, &away)), &[]);
    file.line(Stdout, "delivered");
    wait_until("it is confirmed", seconds(30), || match Ledger::of(&agent) {
        ledger if ledger.acked_lines == 1 => Ok(()),
        ledger => Err(format!("{ledger:?}")),
    });
    away.fail(&[Fault::Refuse], 100);
    let texts: Vec<String> = (0..3000).map(|number| format!("line {number}")).collect();
    texts.iter().for_each(|text| file.line(Stdout, text));
    wait_until("lines wait", seconds(30), || match Ledger::of(&agent) {
        ledger if ledger.in_flight_lines > 0 && agent.log().contains("wait in their files") => Ok(()),
        ledger => Err(format!("{ledger:?}")),
    });
    // A line in parts is held while the sink changes, and goes out whole.
    file.partial(Stdout, "in ");
    reload(&agent, &format!("{}{STORE}", shipping(&logs, &there)), 1);
    file.line(Stdout, "parts");
    there.assert_each_once(3001, texts.into_iter().chain(["in parts".to_owned()]), || agent.log());
    let ledger = assert_ledger(&agent);
    assert_eq!((ledger.read_lines, ledger.acked_lines), (3002, 3002), "each line is counted once");
    // Whoever is asked to stop while it changes stops.
    there.fail(&[Fault::Stall], 100);
    file.line(Stdout, "the last one");
    wait_until("it is on its way", seconds(30), || match there.hits(Fault::Stall) {
        0 => Err(agent.log()),
        _ => Ok(()),
    });
    agent.configure(&format!("{}{STORE}", shipping(&logs, &away)));
    agent.signal(Signal::HUP);
    assert!(agent.end_by(Signal::TERM).success());
    assert!(agent.log().contains("msg=stopped"), "{}", agent.log());
}

#[test]
fn a_wrong_configuration_is_said_with_its_places_and_the_one_before_stays() {
    let (server, logs) = (BulkServer::start(8), LogDir::new());
    let mut file = logs.container("shop", "cart-1", "app");
    let base = format!("{}{STORE}", shipping(&logs, &server));
    let agent = Agent::start(&base, &[]);
    assert_eq!(succeeded(&agent), 1.0);
    agent.configure(&format!("log: {{level: loud}}\nlgs: {{}}\n{base}"));
    wait_for_words(&agent, "the one before stays in force", 1);
    let log = agent.log();
    for place in ["config.yaml:1:", "config.yaml:2:", "did you mean"] {
        assert!(log.contains(place), "no {place}:\n{log}");
    }
    assert_eq!(succeeded(&agent), 0.0);
    file.line(Stdout, "shipped all the same");
    wait_for_documents(&server, 0, || agent.log());
    // The file as it was is right, and nothing has to change.
    agent.configure(&base);
    wait_for_words(&agent, "the configuration is right again", 1);
    assert_eq!(succeeded(&agent), 1.0);
    assert!(!agent.log().contains("a new configuration is in force"), "{}", agent.log());
    assert_eq!(agent.log().matches("stays in force").count(), 1, "it is said once");
}

/// As the kubelet does it: the file is a link into a folder that is a link, which is swapped.
#[test]
fn a_swapped_config_map_changes_collectors_level_rules_and_store() {
    let logs = LogDir::new();
    let mut file = logs.container("shop", "cart-1", "app");
    let base = format!("{}{STORE}", pods_config(&logs));
    let agent = Agent::start(&base, &[]);
    file.line(Stdout, "INFO first");
    file.line(Stdout, "DEBUG second");
    let acked = |lines: u64| {
        wait_until("lines are stored", seconds(30), || match Ledger::of(&agent) {
            ledger if ledger.acked_lines == lines => Ok(ledger),
            ledger => Err(format!("{ledger:?}")),
        })
    };
    acked(2);
    let page = || agent.get("/metrics").text();
    assert!(page().contains("node_load1 "));
    let web = agent.dir().join("web.yml");
    fs::write(&web, "{}\n").expect("written");
    let rules = "  rules:\n    - drop: {below: info}\n";
    let changed = format!(
        "log: {{level: debug, format: json}}\nmetrics: {{loadavg: false}}\nweb: {{config_file: {}}}\n{}{rules}store: {{min_free: 0%, max_bytes: 64Mi}}\n",
        web.display(),
        pods_config(&logs),
    );
    let at = |name: &str| agent.dir().join(name);
    for (folder, text) in [("..1", &base), ("..2", &changed)] {
        fs::create_dir(at(folder)).expect("made");
        fs::write(at(folder).join("config.yaml"), text).expect("written");
    }
    symlink("..1", at("..data")).expect("linked");
    symlink("..data/config.yaml", at("config.new")).expect("linked");
    fs::rename(at("config.new"), at("config.yaml")).expect("a link like that of a ConfigMap");
    symlink("..2", at("..next")).expect("linked");
    fs::rename(at("..next"), at("..data")).expect("swapped");
    wait_for_words(&agent, "\"a new configuration is in force\"", 1);
    assert!(agent.log().contains("web.config_file can't be changed while the agent runs"), "{}", agent.log());
    assert!(!page().contains("node_load1 "));
    file.line(Stdout, "DEBUG third");
    file.line(Stdout, "INFO fourth");
    let ledger = acked(3);
    assert_eq!((ledger.read_lines, ledger.dropped_lines), (4, 1));
    // The store of before, with another bound, and each line once.
    let said = String::from_utf8(agent.run(&["logs"]).stdout).expect("text");
    let texts: Vec<&str> =
        said.lines().filter_map(|line| line.split_once("app ").map(|(_, text)| text)).collect();
    assert_eq!(texts, ["INFO first", "DEBUG second", "INFO fourth"]);
    assert_eq!(agent.admin("/api/v1/status").json()["store"]["max_bytes"], 64 << 20);
    assert!(agent.admin("/api/v1/config").text().contains("below"));
}
