//! Files that nobody wrote to for long: they cost nothing, and nothing that happens to them then is missed.

use std::{fs, thread, time::Duration};

use crate::{
    faults::shipping,
    support::{Agent, BulkServer, Launch, LogDir, LogFile, Stream, assert_ledger},
};

const SEED: u64 = 5;
/// Longer than a file has to be still before it is only watched.
const LONG: Duration = Duration::from_secs(7);

/// Some pods, each with a line that is delivered.
fn quiet_pods(logs: &LogDir, count: usize) -> (Vec<LogFile>, Vec<String>) {
    let mut files: Vec<LogFile> =
        (0..count).map(|pod| logs.container("shop", &format!("web-{pod}"), "app")).collect();
    let texts: Vec<String> = (0..count).map(|pod| format!("the first line of {pod}")).collect();
    files.iter_mut().zip(&texts).for_each(|(file, text)| file.line(Stream::Stdout, text));
    (files, texts)
}

#[track_caller]
fn assert_texts(server: &BulkServer, agent: &Agent, texts: &[String]) {
    server.assert_each_once(texts.len() as u64, texts.iter().cloned(), || agent.log());
}

/// What happens to files of all sorts after they were quiet: a write, a rotation, a deletion, a truncation.
fn wake_them(files: &mut [LogFile], texts: &mut Vec<String>) {
    for (pod, file) in files.iter_mut().enumerate() {
        let mut say = |file: &mut LogFile, what: &str| {
            let text = format!("{what} of {pod}");
            file.line(Stream::Stdout, &text);
            texts.push(text);
        };
        match pod % 3 {
            0 => say(file, "the second line"),
            1 => {
                say(file, "the last line before the rotation");
                file.rotate();
                say(file, "the first line after the rotation");
            }
            _ => {
                // By somebody who appends, unlike the file that is open here.
                let text = format!("the first line after the truncation of {pod}");
                let line = format!("{:.9} stdout F {text}\n", jiff::Timestamp::now());
                fs::write(file.path(), line).expect("written anew");
                texts.push(text);
            }
        }
    }
}

#[test]
fn what_happens_to_files_that_were_quiet_for_long_is_not_missed() {
    let (server, logs) = (BulkServer::start(SEED), LogDir::new());
    let (mut files, mut texts) = quiet_pods(&logs, 30);
    let agent = Agent::start(&shipping(&logs, &server), &[]);
    assert_texts(&server, &agent, &texts);
    thread::sleep(LONG);
    wake_them(&mut files, &mut texts);
    // Its last words, and it is gone at once: the descriptor is still there.
    let text = "the last words".to_owned();
    files[0].line(Stream::Stdout, &text);
    texts.push(text);
    fs::remove_file(files[0].path()).expect("removed");
    assert_texts(&server, &agent, &texts);
    assert_ledger(&agent);
}

#[test]
fn more_files_than_descriptors() {
    let (server, logs) = (BulkServer::start(SEED), LogDir::new());
    let (mut files, mut texts) = quiet_pods(&logs, 300);
    let few = ["sh", "-c", "ulimit -n 256; exec \"$@\"", "sh"];
    let launch = Launch { wrapper: few.map(str::to_owned).into(), ..Launch::default() };
    let agent = Agent::start_as(launch, &shipping(&logs, &server), &[]);
    assert_texts(&server, &agent, &texts);
    assert!(agent.log().contains("there are more log files than may be open"), "{}", agent.log());
    thread::sleep(LONG);
    wake_them(&mut files, &mut texts);
    assert_texts(&server, &agent, &texts);
    assert_ledger(&agent);
}
