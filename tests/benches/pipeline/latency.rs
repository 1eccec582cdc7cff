//! How long a line takes from its write until a bulk server has it, and an agent from its start until its first document.
//!
//! Each line holds the moment at which it was written; the server compares it with its own clock, which is the same one,
//! when it has the whole body and is about to answer.

use std::{
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use super::{
    Backlog, called, median,
    sink::Sink,
    support::{Agent, Launch, LogDir, Stream, pods_config, same, seconds, wait_until},
};

const LINES_PER_SECOND: u64 = 5000;
/// As many containers write them, by turns.
const CONTAINERS: usize = 10;
/// How often lines are written: so many at once that the writer sleeps well in between.
const TICK: Duration = Duration::from_millis(10);
/// Before a line's moment, in microseconds since the measurement's beginning.
const MARK: &[u8] = b"written=";
/// What was written first is not counted: the files had to be found.
const WARM_UP: Duration = Duration::from_secs(3);
const STARTS: usize = 5;

/// Says the latency with batches as they are, and with short ones.
pub fn steady(build: &Launch, duration: Duration) {
    for (what, bulk) in [("max_wait as it is", ""), ("max_wait 100ms", ", bulk: {max_wait: 100ms}")] {
        let mut waits = waits(build, duration, bulk);
        waits.sort_unstable();
        let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize] / 1000;
        println!(
            "latency{} at {LINES_PER_SECOND} lines/s, {what}: p50 {} ms, p99 {} ms, longest {} ms ({} lines)",
            called(build),
            at(0.5),
            at(0.99),
            at(1.0),
            waits.len()
        );
    }
}

/// Microseconds from the write of each line to its arrival.
fn waits(build: &Launch, duration: Duration, bulk: &str) -> Vec<u64> {
    let (origin, seen) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
    let writes_down = Arc::clone(&seen);
    let sink = Sink::looking(move |body| {
        let now = origin.elapsed().as_micros() as u64;
        let written = memchr::memmem::find_iter(body, MARK).map(|at| number(&body[at + MARK.len()..]));
        writes_down.lock().expect("nobody failed").extend(written.map(|written| (written, now)));
    });
    let logs = LogDir::new();
    let mut files: Vec<_> =
        (0..CONTAINERS).map(|pod| logs.container("load", &format!("web-{pod}"), "nginx")).collect();
    let config = format!(
        "{}  start: {{first_run: 1Ti}}\nelasticsearch: {{hosts: ['http://{}']{bulk}}}\n",
        pods_config(&logs),
        sink.address
    );
    let _agent = Agent::start_as(build.clone(), &config, &[]);
    let (start, mut lines) = (Instant::now(), 0);
    while start.elapsed() < duration {
        let due = (start.elapsed().as_secs_f64() * LINES_PER_SECOND as f64) as u64;
        for line in lines..due {
            let written = origin.elapsed().as_micros();
            let text =
                format!("written={written} GET /api/v1/orders/{line} HTTP/1.1 200 \"Mozilla/5.0 (X11)\"");
            files[line as usize % CONTAINERS].line(Stream::Stdout, &text);
        }
        lines = due;
        thread::sleep(TICK);
    }
    wait_until("every line has arrived", seconds(30), || {
        same(&(seen.lock().expect("nobody failed").len() as u64), &lines)
    });
    let first = (start + WARM_UP).duration_since(origin).as_micros() as u64;
    let seen = seen.lock().expect("nobody failed");
    seen.iter().filter(|(written, _)| *written >= first).map(|(written, now)| now - written).collect()
}

/// Says how soon after its start an agent delivers something of a backlog.
pub fn first_document(build: &Launch, backlog: &Backlog) {
    let times = (0..STARTS).map(|_| {
        let first = Arc::new(Mutex::new(None));
        let writes_down = Arc::clone(&first);
        let sink = Sink::looking(move |_| {
            writes_down.lock().expect("nobody failed").get_or_insert_with(Instant::now);
        });
        let config = format!(
            "{}  start: {{first_run: 1Ti}}\nelasticsearch: {{hosts: ['http://{}']}}\n",
            pods_config(&backlog.logs),
            sink.address
        );
        let start = Instant::now();
        let _agent = Agent::start_as(build.clone(), &config, &[]);
        let arrived = wait_until("a document has arrived", seconds(30), || {
            first.lock().expect("nobody failed").ok_or_else(|| "none".to_owned())
        });
        arrived.duration_since(start).as_secs_f64() * 1000.0
    });
    let times: Vec<f64> = times.collect();
    let longest = times.iter().copied().fold(0.0, f64::max);
    println!(
        "first document{} after the start: {:.0} ms, at most {longest:.0} ms",
        called(build),
        median(times)
    );
}

/// The number at the beginning of a text.
fn number(text: &[u8]) -> u64 {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |value, digit| value * 10 + u64::from(digit - b'0'))
}
