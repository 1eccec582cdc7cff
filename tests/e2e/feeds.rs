//! The journal and the kernel's messages: entries that are no lines of a file, each once.

use std::{collections::BTreeMap, fs::OpenOptions, io::Write, process};

use serde_json::Value;

use crate::support::{Agent, Elastic, JournalDir, Launch, same, seconds, wait_until};

const UNIT: &[(&str, &str)] = &[
    ("PRIORITY", "3"),
    ("_SYSTEMD_UNIT", "ssh.service"),
    ("_SYSTEMD_SLICE", "system.slice"),
    ("SYSLOG_IDENTIFIER", "sshd"),
    ("SYSLOG_FACILITY", "10"),
    ("_PID", "812"),
    ("_UID", "0"),
    ("_COMM", "sshd"),
    ("_EXE", "/usr/sbin/sshd"),
    ("_CMDLINE", "sshd: root"),
    ("_HOSTNAME", "rack7"),
    ("_TRANSPORT", "syslog"),
    ("SOME_INVENTED_FIELD", "left out"),
];

fn entries(journal: &mut JournalDir, name: &str, count: usize, written: &mut Vec<String>) {
    for _ in 0..count {
        let message = format!("{name} entry {:05}", written.len());
        journal.entry(&message, UNIT);
        written.push(message);
    }
}

/// Writes one message to the kernel; `None` where that is not allowed. Each has its own descriptor, for the kernel takes
/// only some lines of one.
fn say_to_kernel(text: &str) -> Option<()> {
    let mut device = OpenOptions::new().write(true).open("/dev/kmsg").ok()?;
    device.write_all(format!("<4>{text}\n").as_bytes()).ok()
}

fn counted(texts: impl Iterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    texts.for_each(|text| *counts.entry(text).or_default() += 1);
    counts
}

/// What the local store has, by text.
fn stored(agent: &Agent, query: &str) -> BTreeMap<String, usize> {
    let output = agent.run(&["logs", "--json", query]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).expect("UTF-8");
    let texts = lines.lines().map(|line| {
        let line: Value = serde_json::from_str(line).expect("a JSON object per line");
        line["text"].as_str().expect("a text").to_owned()
    });
    counted(texts)
}

#[test]
fn journal_entries_are_in_the_local_store_once_whatever_is_killed() {
    let mut journal = JournalDir::new();
    let config = format!("logs: {{sources: [{}]}}\n", journal.source());
    let mut written = Vec::new();
    entries(&mut journal, "old", 200, &mut written);
    let mut agent = Agent::start(&config, &[]);
    for round in 0..4 {
        entries(&mut journal, "live", 100, &mut written);
        if round % 2 == 0 {
            wait_until("some of it is in the store", seconds(20), || {
                if stored(&agent, "entry").len() > round * 150 { Ok(()) } else { Err(agent.log()) }
            });
        }
        agent.kill_9();
        entries(&mut journal, "while it was away", 50, &mut written);
        if round == 2 {
            journal.rotate("system@1.journal");
        }
        agent.start_again();
    }
    let expected = counted(written.iter().map(|text| format!("sshd[812]: {text}")));
    wait_until("every entry is in the store once", seconds(30), || {
        let found = stored(&agent, "entry");
        let odd = expected.iter().find(|(text, count)| found.get(*text) != Some(*count));
        same(&(found.len(), odd), &(expected.len(), None))
    });
    let page = agent.get("/metrics?collect[]=time").text();
    assert!(page.contains("nodewarden_feature_enabled{feature=\"journal\",reason=\"\"} 1"), "{page}");
}

#[test]
fn a_new_entry_is_seen_at_once() {
    let mut journal = JournalDir::new();
    let agent = Agent::start(&format!("logs: {{sources: [{}]}}\n", journal.source()), &[]);
    journal.entry("the first", UNIT);
    // Directories are listed when names change, not only every half minute.
    wait_until("the entry is in the store", seconds(4), || same(&stored(&agent, "first").len(), &1));
    journal.entry("the second", UNIT);
    wait_until("the entry is in the store", seconds(4), || same(&stored(&agent, "second").len(), &1));
}

/// Becomes its arguments as a user who may read neither, but whose state directory is there.
const NOBODY: &[&str] = &[
    "sh",
    "-c",
    "for a; do case $a in --state.dir=*) mkdir -p \"${a#*=}\" && chown 65534:65534 \"${a#*=}\";; esac; done
     exec setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all --bounding-set=-all \"$@\"",
    "sh",
];

#[test]
fn who_may_not_read_them_is_told_so_quietly() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can start the agent as another user");
        return;
    }
    let mut journal = JournalDir::new();
    journal.entry("secret", UNIT);
    journal.finish();
    let launch =
        Launch { wrapper: NOBODY.iter().map(|&word| word.to_owned()).collect(), ..Launch::default() };
    let config = format!("logs: {{sources: [{}, kernel: {{}}]}}\n", journal.source());
    let agent = Agent::start_as(launch, &config, &[]);
    wait_until("both features are said", seconds(10), || {
        let page = agent.get("/metrics?collect[]=time").text();
        let line = |feature: &str| {
            let start = format!("nodewarden_feature_enabled{{feature=\"{feature}\",");
            page.lines().find(|line| line.starts_with(&start)).map(str::to_owned)
        };
        let (journal, kernel) = (line("journal").ok_or("no journal")?, line("kernel").ok_or("no kernel")?);
        assert!(journal.contains("Permission denied") && journal.ends_with(" 0"), "{journal}");
        // Some kernels let everybody read their messages.
        assert!(kernel.contains("Operation not permitted") || kernel.ends_with(" 1"), "{kernel}");
        Ok(())
    });
    let log = agent.log();
    assert!(!log.contains("level=WARN") && !log.contains("level=ERROR"), "{log}");
}

#[test]
fn journal_and_kernel_arrive_in_elasticsearch_once() {
    let (elastic, mut journal) = (Elastic::shared(), JournalDir::new());
    let config = format!(
        "logs: {{sources: [{}, kernel: {{}}]}}\nelasticsearch:\n  hosts: ['{}']\n  index: 'logs-{{dataset}}-feeds'\n",
        journal.source(),
        elastic.url()
    );
    let (entries_index, kernel_index) = ("logs-system.journal-feeds", "logs-system.kernel-feeds");
    let mut agent = Agent::start(&config, &[]);
    let mut written = Vec::new();
    let mut spoken = Vec::new();
    for round in 0..4 {
        entries(&mut journal, "shipped", 2000, &mut written);
        for number in 0..3 {
            let text = format!("nodewarden test {} round {round} line {number}", process::id());
            if say_to_kernel(&text).is_some() {
                spoken.push(text);
            }
        }
        if round == 1 {
            wait_until("some of it has arrived", seconds(60), || match elastic.count(entries_index)? {
                0 => Err(agent.log()),
                _ => Ok(()),
            });
        }
        agent.kill_9();
        agent.start_again();
    }
    wait_until("every entry is a document", seconds(60), || {
        same(&elastic.count(entries_index)?, &(written.len() as u64))
    });
    let documents = elastic.documents(entries_index);
    let message = |document: &Value| document["message"].as_str().unwrap_or_default().to_owned();
    assert_eq!(counted(documents.iter().map(message)), counted(written.iter().cloned()));

    journal.finish();
    let entry = &journal.as_journalctl_says("system.journal")[0];
    let document =
        documents.iter().find(|document| document["message"] == entry["MESSAGE"]).expect("it is there");
    for (name, field) in [
        ("/systemd/unit", "_SYSTEMD_UNIT"),
        ("/systemd/slice", "_SYSTEMD_SLICE"),
        ("/systemd/transport", "_TRANSPORT"),
        ("/syslog/identifier", "SYSLOG_IDENTIFIER"),
        ("/process/name", "_COMM"),
        ("/process/executable", "_EXE"),
        ("/process/command_line", "_CMDLINE"),
        ("/user/id", "_UID"),
        ("/host/hostname", "_HOSTNAME"),
        ("/journald/host/boot_id", "_BOOT_ID"),
    ] {
        assert_eq!(document.pointer(name), Some(&entry[field]), "{name} of {document:#}");
    }
    assert_eq!(document["process"]["pid"], 812);
    assert_eq!(document["log"]["level"], "error");
    assert_eq!(document["log"]["syslog"]["priority"], 3);
    let micros = entry["__REALTIME_TIMESTAMP"].as_str().expect("a time");
    let time = document["@timestamp"].as_str().expect("a time");
    assert!(time.ends_with(&format!(".{}000Z", &micros[10..])), "{time} is {micros}");
    assert_eq!(document["data_stream"]["dataset"], "system.journal");
    assert!(document["host"]["name"].is_string() && document.get("SOME_INVENTED_FIELD").is_none());

    if spoken.is_empty() {
        eprintln!("/dev/kmsg can't be written here: the kernel's messages are left out");
        return;
    }
    let ours = || {
        let documents = elastic.documents(kernel_index);
        let mark = format!("nodewarden test {} ", process::id());
        documents.into_iter().filter(|document| message(document).starts_with(&mark)).collect::<Vec<_>>()
    };
    wait_until("every message of ours is a document", seconds(60), || {
        elastic.count(kernel_index)?;
        same(&counted(ours().iter().map(message)), &counted(spoken.iter().cloned()))
    });
    let document = &ours()[0];
    assert_eq!(document["log"]["level"], "warning");
    assert_eq!(document["data_stream"]["dataset"], "system.kernel");
    let all = elastic.documents(kernel_index).len();
    let page = agent.get("/metrics?collect[]=time").text();
    assert!(page.contains("nodewarden_feature_enabled{feature=\"kernel\",reason=\"\"} 1"), "{page}");
    assert!(all >= spoken.len(), "{all}");
}
