//! What it costs to do something with lines: megabytes of log per CPU second, each thing alone. Run by `make bench`.
//!
//! A line is encoded as a document each time; the first figure is that alone, as for files that nothing is wanted of. The
//! others are medians of rounds by turns with it: what else the machine does moves all of them.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints its figures and fails by panicking"
)]

use std::{sync::Arc, time::Instant};

use nodewarden::{
    logs::{
        index::IndexTemplate,
        process::{
            Outlet, Process, Processors, Redaction, Settings, json,
            limits::{Limits, Rate},
            pattern::Pattern,
            redact::{Builtin, What},
            rules::{Action, Condition, Reason, Rule},
            select::Selection,
        },
        record::{Container, FileFacts, FileId, Line, Origin, Span, Stream},
        shape::{BulkEncoding, Encoding, Schema, Shape},
    },
    metrics::{Own, ledger::Amount},
};
use rustix::time::{ClockId, clock_gettime};

const LINES: usize = 20_000;
const ROUNDS: usize = 7;

fn main() {
    let corpora = [("access log", access_lines()), ("JSON", json_lines()), ("Java", java_lines())];
    for (what, lines) in &corpora {
        let plain = |lines: &[String]| run(lines, &Settings::default());
        for (name, settings) in cases() {
            let (mut alone, mut with) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                alone.push(plain(lines));
                with.push(run(lines, &settings));
            }
            let (alone, with) = (median(alone), median(with));
            let cost = (1.0 / with - 1.0 / alone) * 1e3;
            println!(
                "{what}, {name}: {with:.0} MB per CPU second instead of {alone:.0}; {cost:.2} ms per MB for it alone"
            );
        }
    }
}

fn cases() -> Vec<(String, Settings)> {
    let redact = |redact: Vec<Redaction>| Settings { redact, ..Settings::default() };
    let rules = |action, condition| {
        let (name, selection, dry_run) = ("rule".into(), Selection::default(), false);
        Settings { rules: vec![Rule { name, selection, condition, action, dry_run }], ..Settings::default() }
    };
    let pattern = |text: &str| Pattern::parse(text).expect("a pattern");
    let mut cases = vec![
        ("nothing".to_owned(), Settings::default()),
        ("levels".to_owned(), Settings { levels: true, ..Settings::default() }),
        (
            "JSON bodies".to_owned(),
            Settings {
                json: json::Settings { enabled: true, ..json::Settings::default() },
                ..Settings::default()
            },
        ),
        (
            "drop by a pattern that does not fit".to_owned(),
            rules(
                Action::Drop,
                Condition { matches: Some(pattern("GET /healthz|kube-probe")), ..Condition::default() },
            ),
        ),
        (
            "sample 1 of 1000000 dropped lines".to_owned(),
            rules(Action::Sample(1_000_000), Condition::default()),
        ),
        (
            "a limit that is not reached".to_owned(),
            Settings {
                limits: Limits { per_pod: Rate { lines: 1 << 30, ..Rate::default() }, ..Limits::default() },
                ..Settings::default()
            },
        ),
        (
            "collapse".to_owned(),
            rules(Action::Collapse(std::time::Duration::from_secs(30)), Condition::default()),
        ),
    ];
    for builtin in Builtin::ALL {
        cases.push((format!("redact {}", builtin.as_str()), redact(vec![Redaction::builtin(builtin)])));
    }
    cases.push(("redact all of these".into(), redact(Builtin::ALL.map(Redaction::builtin).into())));
    let own = What::Own(pattern("(?i)(password|secret)=\\S+"), "$1=***".into());
    cases.push((
        "redact a pattern of one's own".into(),
        redact(vec![Redaction { name: "own".into(), selection: Selection::default(), what: own }]),
    ));
    cases
}

/// Encodes what comes out.
struct Out {
    shape: Shape,
    body: Vec<u8>,
}

impl Outlet for Out {
    fn is_new(&self) -> bool {
        true
    }

    fn document(&mut self, line: &Line<'_>, fields: &[u8], extra: &[u8]) {
        if self.body.len() > 4 << 20 {
            self.body.clear();
        }
        self.shape.encode_with(line, fields, extra, &mut self.body);
    }

    fn dropped(&mut self, _: Span, _: Amount, _: Reason) {}

    fn overflowed(&mut self, _: u64) {}
}

/// Megabytes of lines per CPU second of this thread.
fn run(lines: &[String], settings: &Settings) -> f64 {
    let encoding = Encoding::Bulk(BulkEncoding {
        index: IndexTemplate::default(),
        schema: Schema::Ecs,
        position_ids: true,
        node: "node-1".into(),
    });
    let container = Container {
        namespace: "shop".into(),
        pod: "web-0".into(),
        uid: "u".into(),
        name: "app".into(),
        restart: 0,
    };
    let path = "/var/log/pods/shop_web-0_u/app/0.log";
    let facts = FileFacts::new(FileId([1; 12]), path, Origin::Container(container.into()));
    let own = Own::new(prometheus::Registry::new()).expect("a registry");
    let mut process: Option<Box<Process>> =
        Arc::clone(&Processors::new(settings.clone(), &own.logs)).of_file(&facts, &encoding);
    let mut out = Out { shape: Shape::new(&encoding, &facts), body: Vec::with_capacity(8 << 20) };
    let (mut offset, mut time, now) = (0, 1_763_719_810_000_000_000, Instant::now());
    let start = cpu_seconds();
    for text in lines {
        let bytes = text.len() as u64 + 40;
        let span = Span { start: offset, end: offset + bytes };
        (offset, time) = (span.end, time + 1_000_000);
        let line = Line { time, stream: Stream::Stdout, text: text.as_bytes(), span, bytes, lines: 1 };
        match &mut process {
            None => out.document(&line, b"", b""),
            Some(process) => process.take(&line, b"", &mut out, now),
        }
    }
    offset as f64 / 1e6 / (cpu_seconds() - start)
}

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Multiplying by an odd number mixes the digits, and gives the same lines each time.
fn mixed(line: usize) -> u64 {
    (line as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn access_lines() -> Vec<String> {
    let line = |line| {
        let mixed = mixed(line);
        let (client, order) = (mixed >> 56, mixed >> 44 & 0xffff);
        format!(
            "10.244.1.{client} - - [21/Nov/2026:10:10:10 +0000] \"GET /api/v1/orders/{order}?page=3 HTTP/1.1\" 200 {order} \
             \"https://shop.example.com/cart\" \"Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/145.0\" \
             0.{client:03} shop-web-80 {mixed:016x}"
        )
    };
    (0..LINES).map(line).collect()
}

fn json_lines() -> Vec<String> {
    let line = |line| {
        let mixed = mixed(line);
        format!(
            "{{\"ts\":\"2026-11-21T10:10:10.{:06}Z\",\"level\":\"info\",\"logger\":\"shop.cart\",\"msg\":\"order {} is paid\",\
             \"order\":{{\"id\":{},\"items\":[\"a{}\",\"b\"],\"total\":{}.5}},\"trace\":\"{mixed:016x}\",\"took_ms\":{}}}",
            mixed >> 44,
            mixed >> 40,
            mixed >> 40,
            mixed >> 56,
            mixed >> 50,
            mixed >> 52
        )
    };
    (0..LINES).map(line).collect()
}

fn java_lines() -> Vec<String> {
    let line = |line| {
        let mixed = mixed(line);
        format!(
            "2026-11-21 10:10:10.{:03}  INFO 1 --- [nio-8080-exec-{}] o.s.shop.cart.CartController : order {} of user {} \
             was put into the cart, {} items in stock",
            mixed >> 54,
            mixed >> 60,
            mixed >> 40,
            mixed >> 48,
            mixed >> 56
        )
    };
    (0..LINES).map(line).collect()
}
