//! Many agents and one server that comes back after an outage: `make test` takes ten of them for some seconds, `make soak` two hundred
//! for `SOAK_SECONDS`. The curve of their requests is printed.

use std::{
    env, thread,
    time::{Duration, Instant},
};

use crate::support::{
    Agent, BulkServer, Fault, LogDir, LogFile, Stream, pods_config, same, seconds, wait_until,
};

/// Requests in each second since `start`.
fn curve(arrivals: &[Instant], start: Instant) -> Vec<u32> {
    let mut curve = Vec::new();
    for arrival in arrivals.iter().filter_map(|arrival| arrival.checked_duration_since(start)) {
        let second = arrival.as_secs() as usize;
        curve.resize(curve.len().max(second + 1), 0);
        curve[second] += 1;
    }
    curve
}

#[test]
fn many_agents_after_an_outage_come_one_after_the_other() {
    let outage = env::var("SOAK_SECONDS").ok().map(|seconds| seconds.parse().expect("a number of seconds"));
    let (count, outage) = (if outage.is_some() { 200 } else { 10 }, Duration::from_secs(outage.unwrap_or(5)));
    let sink = BulkServer::start(1);
    sink.fail(&[Fault::Unavailable], 100);
    let mut texts = Vec::new();
    let mut write = |file: &mut LogFile, node: usize| {
        for _ in 0..10 {
            texts.push(format!("node {node} says line {}", texts.len()));
            file.line(Stream::Stdout, texts.last().expect("one was put there"));
        }
    };
    let mut nodes: Vec<(LogDir, LogFile, Agent)> = (0..count)
        .map(|node| {
            let logs = LogDir::new();
            let mut file = logs.container("shop", &format!("cart-{node}"), "app");
            write(&mut file, node);
            let config = format!("{}elasticsearch:\n  hosts: ['{}']\n", pods_config(&logs), sink.url());
            (logs, file, Agent::start(&config, &["--collector.disable-defaults"]))
        })
        .collect();
    let away = Instant::now();
    // As nodes do, each goes on writing: what may be on its way at once is on its way when the server comes back.
    while away.elapsed() < outage {
        for (node, (_, file, _)) in nodes.iter_mut().enumerate() {
            write(file, node);
        }
        thread::sleep(Duration::from_secs(1));
    }
    let (back, refused) = (Instant::now(), sink.hits(Fault::Unavailable));
    sink.heal();
    wait_until("all is delivered", seconds(300), || {
        thread::sleep(Duration::from_millis(100));
        same(&sink.documents(), &(texts.len() as u64))
    });
    let all = back.elapsed();
    sink.assert_each_once(texts.len() as u64, texts.iter().cloned(), || nodes[0].2.log());
    let arrivals = sink.arrivals();
    let (during, after) = (curve(&arrivals, away), curve(&arrivals, back));
    eprintln!(
        "{count} agents: {refused} requests were refused; in each second of the outage {during:?}; since its end {after:?}, all was \
         there after {all:?}"
    );
    // What was refused is not sent piece by piece.
    let requests = u64::try_from(arrivals.len()).expect("a number") - refused;
    assert!(requests <= 20 * count as u64, "{requests} requests after the outage");
}
