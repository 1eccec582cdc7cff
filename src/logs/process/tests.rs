use prometheus::Registry as Metrics;
use proptest::prelude::*;

use super::{limits::Rate, pattern::Pattern, rules::Condition, *};
use crate::{
    logs::{
        ack::{Acks, Came},
        index::IndexTemplate,
        shape::BulkEncoding,
    },
    metrics::{ledger::Account, own::Own},
    testing::container,
};

const SECOND: i64 = 1_000_000_000;

/// What came out of a process.
#[derive(Default)]
struct Out {
    acks: Acks,
    /// Offset, text, and all that is said beside it.
    documents: Vec<(u64, String, String)>,
    dropped: Vec<(u64, &'static str)>,
    account: Account,
    is_new: bool,
    overflowed: u64,
}

impl Outlet for Out {
    fn is_new(&self) -> bool {
        self.is_new
    }

    fn document(&mut self, line: &Line<'_>, fields: &[u8], extra: &[u8]) {
        self.acks.emitted(1, line.span, line.amount());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.documents.push((line.span.start, text(line.text), text(fields) + &text(extra)));
    }

    fn dropped(&mut self, span: Span, amount: Amount, reason: Reason) {
        self.acks.left_out(span, amount, reason.as_str());
        self.dropped.push((span.start, reason.as_str()));
    }

    fn overflowed(&mut self, fields: u64) {
        self.overflowed += fields;
    }
}

impl Out {
    /// A line is read.
    fn comes(&mut self, span: Span) {
        self.acks.read(span.end, true, span.end - span.start);
        self.is_new = self.acks.comes(span.start, [None; 2]) == Came::New;
    }

    /// Lines that were counted as read.
    fn counted(&mut self) -> u64 {
        self.acks.count_read(&self.account, true);
        let figures = self.account.lock();
        assert_eq!(figures.in_flight, self.acks.waiting());
        figures.read.lines
    }

    fn texts(&self) -> Vec<&str> {
        self.documents.iter().map(|(_, text, _)| text.as_str()).collect()
    }
}

fn encoding() -> Encoding {
    Encoding::Bulk(BulkEncoding {
        index: IndexTemplate::default(),
        schema: Schema::Ecs,
        position_ids: true,
        node: "n1".into(),
    })
}

fn processors(settings: Settings) -> Arc<Processors> {
    Processors::new(settings, &Own::new(Metrics::new()).expect("a registry").logs)
}

fn facts(origin: Origin) -> FileFacts {
    FileFacts::new(FileId([1; 12]), "/var/log/a", origin)
}

fn process(settings: Settings) -> Box<Process> {
    processors(settings).of_file(&facts(container(0)), &encoding()).expect("something to do")
}

fn rule(action: Action, matches: &str) -> Rule {
    let matches = (!matches.is_empty()).then(|| Pattern::parse(matches).expect("a pattern"));
    let condition = Condition { matches, ..Condition::default() };
    Rule { name: "one".into(), selection: Selection::default(), condition, action, dry_run: false }
}

fn collapse() -> Settings {
    Settings { rules: vec![rule(Action::Collapse(Duration::from_secs(30)), "")], ..Settings::default() }
}

fn limit(lines: u64) -> Settings {
    let per_pod = Rate { lines, ..Rate::default() };
    Settings { limits: Limits { per_pod, ..Limits::default() }, ..Settings::default() }
}

fn redact_all() -> Settings {
    Settings { redact: Builtin::ALL.map(Redaction::builtin).into(), ..Settings::default() }
}

fn json() -> Settings {
    Settings { json: json::Settings { enabled: true, ..json::Settings::default() }, ..Settings::default() }
}

/// One line of ten bytes after the other, one each second.
fn take(process: &mut Process, texts: &[&str], out: &mut Out, from: u64) {
    for (number, text) in (from..).zip(texts) {
        let span = Span { start: 10 * number, end: 10 * number + 10 };
        let time = number as i64 * SECOND;
        let line = Line { time, stream: Stream::Stdout, text: text.as_bytes(), span, bytes: 10, lines: 1 };
        out.comes(span);
        process.take(&line, b"", out, Instant::now());
    }
}

fn run(settings: Settings, texts: &[&str]) -> (Box<Process>, Out) {
    let (mut process, mut out) = (process(settings), Out::default());
    take(&mut process, texts, &mut out, 0);
    (process, out)
}

#[test]
fn a_file_that_nothing_is_wanted_of_has_no_process() {
    let one_namespace =
        Selection { namespaces: vec![glob::Pattern::new("till").expect("a glob")], ..Selection::default() };
    let rule = Rule { selection: one_namespace, ..rule(Action::Drop, "") };
    let settings = Settings { rules: vec![rule], ..Settings::default() };
    assert!(processors(settings).of_file(&facts(container(0)), &encoding()).is_none());
    // What only documents have is of no use in the local store, and limits are for pods.
    assert!(processors(json()).of_file(&facts(container(0)), &Encoding::Records).is_none());
    assert!(processors(limit(1)).of_file(&facts(Origin::Plain), &encoding()).is_none());
}

#[test]
fn a_dropped_line_is_settled_at_once() {
    let settings = Settings { rules: vec![rule(Action::Drop, "healthz")], ..Settings::default() };
    let (process, mut out) = run(settings, &["GET /", "GET /healthz", "GET /"]);
    assert_eq!((out.texts(), &out.dropped[..]), (vec!["GET /", "GET /"], &[(10, "rule")][..]));
    assert_eq!((process.held_from(), out.counted()), (None, 3));
}

#[test]
fn repeats_become_one_line_in_the_place_of_the_last_one() {
    let (mut process, mut out) = run(collapse(), &["a", "b", "b", "b", "b", "c", "c", "d"]);
    assert_eq!(out.texts(), ["a", "b", "message repeated 3 times: [b]", "c", "c", "d"]);
    assert_eq!(out.documents[2].0, 40);
    assert!(out.documents[2].2.ends_with(r#","nodewarden":{"repeated":3}"#), "{}", out.documents[2].2);
    assert_eq!(out.dropped, [(20, "repeated"), (30, "repeated")]);
    assert_eq!(out.counted(), 8);
    // The last one holds the position until somebody knows that it is the last one.
    take(&mut process, &["d", "d"], &mut out, 8);
    assert_eq!((process.held_from(), out.counted()), (Some(90), 10));
    process.rest(Some(Instant::now()), &mut out);
    assert_eq!(process.held_from(), Some(90));
    process.rest(None, &mut out);
    assert_eq!(
        (process.held_from(), out.counted(), out.texts()[6]),
        (None, 10, "message repeated 2 times: [d]")
    );
}

#[test]
fn repeats_are_said_again_after_a_while() {
    let texts = ["x"; 70];
    let (_, out) = run(collapse(), &texts);
    let said: Vec<u64> = out.documents.iter().map(|(offset, ..)| *offset).collect();
    assert_eq!((said, out.texts()[1]), (vec![0, 310, 620], "message repeated 31 times: [x]"));
}

#[test]
fn a_line_that_is_dropped_among_repeats_ends_nothing() {
    let mut settings = collapse();
    settings.rules.push(rule(Action::Drop, "debug"));
    let (_, mut out) = run(settings, &["a", "a", "debug", "a", "debug", "b"]);
    assert_eq!(out.texts(), ["a", "message repeated 2 times: [a]", "b"]);
    assert_eq!(out.dropped, [(10, "repeated"), (20, "rule"), (30, "repeated")]);
    assert_eq!((out.documents[1].0, out.counted()), (40, 6));
}

#[test]
fn what_a_limit_holds_back_is_said_once_and_counted() {
    let (mut process, mut out) = (process(limit(2)), Out::default());
    for number in 0..10 {
        let span = Span { start: 10 * number, end: 10 * number + 10 };
        let time = number as i64 / 5 * SECOND;
        let line = Line { time, stream: Stream::Stdout, text: b"noise", span, bytes: 10, lines: 1 };
        out.comes(span);
        process.take(&line, b"", &mut out, Instant::now());
    }
    process.rest(None, &mut out);
    let said = "nodewarden left out 3 lines, 30 bytes of this file: a pod may write 2 lines a second";
    assert_eq!(out.texts(), ["noise", "noise", said, "noise", "noise", said]);
    assert_eq!(out.documents[2].0, 40);
    assert_eq!(out.dropped.len(), 4);
    assert_eq!(out.counted(), 10);
}

#[test]
fn a_file_that_is_set_back_keeps_what_it_kept() {
    let (mut process, mut out) = (process(limit(2)), Out::default());
    let take = |process: &mut Process, out: &mut Out| {
        for number in 0..6 {
            let span = Span { start: 10 * number, end: 10 * number + 10 };
            let line = Line { time: 0, stream: Stream::Stdout, text: b"noise", span, bytes: 10, lines: 1 };
            out.comes(span);
            process.take(&line, b"", out, Instant::now());
        }
        process.rest(None, out);
    };
    take(&mut process, &mut out);
    let first = out.documents.clone();
    out.acks.set_back([None; 2]);
    process.set_back();
    out.documents.clear();
    take(&mut process, &mut out);
    assert_eq!(out.counted(), 6);
    assert_eq!(out.documents, first);
}

#[test]
fn nothing_that_goes_out_holds_a_secret() {
    let secret = "4111111111111111";
    let mut settings = redact_all();
    settings.json = json().json;
    settings.rules = collapse().rules;
    let body = format!(
        "{{\"msg\":\"card {secret}\",\"n\":{secret},\"a\":[\"\\u0034{}\"],\"deep\":{{}}}}",
        &secret[1..]
    );
    let plain = format!("card {secret} of ada@example.com");
    let texts = [
        plain.as_str(),
        &plain,
        &plain,
        &body,
        &body,
        &body,
        "-----BEGIN PRIVATE KEY-----",
        "MIIEv",
        "-----END PRIVATE KEY-----",
        "end",
    ];
    let (mut process, mut out) = run(settings, &texts);
    let span = Span { start: 900, end: 910 };
    let line = Line { time: 0, stream: Stream::None, text: b"x", span, bytes: 10, lines: 1 };
    out.comes(span);
    process.take(&line, b",\"syslog\":{\"data\":\"ada@example.com\"}", &mut out, Instant::now());
    let all = format!("{:?}", out.documents);
    for secret in [secret, "ada@", "MIIEv"] {
        assert!(!all.contains(secret), "{all}");
    }
    assert!(all.contains("message repeated 2 times: [card [redacted:card] of [redacted:email]]"), "{all}");
    assert!(all.contains("[redacted:private_key]") && out.texts().contains(&"end"), "{all}");
}

#[test]
fn a_private_key_is_read_from_its_beginning_again() {
    let (mut process, mut out) = run(redact_all(), &["a", "-----BEGIN EC PRIVATE KEY-----", "MHcCAQ"]);
    assert_eq!(process.held_from(), Some(10));
    take(&mut process, &["-----END EC PRIVATE KEY-----"], &mut out, 3);
    assert_eq!(process.held_from(), None);
}

#[test]
fn json_lines_become_members_and_others_stay_text() {
    let mut settings = json();
    settings.json.max_index_fields = 1;
    let (_, out) = run(settings, &[r#"{"msg":"paid","level":"warn","order":7}"#, "no JSON", r#"{"msg":"#]);
    assert_eq!(out.texts(), ["paid", "no JSON", r#"{"msg":"#]);
    assert_eq!(
        out.documents[0].2,
        concat!(
            r#","level":"warning"},"host":{"name":"n1""#,
            r#","json":{"level":"warn"},"nodewarden":{"overflow":"{\"order\":7}"}"#
        )
    );
    assert_eq!((out.documents[1].2.as_str(), out.overflowed), ("", 1));
}

#[test]
fn levels_are_said_where_they_are_wanted() {
    let settings = || Settings { levels: true, ..Settings::default() };
    let (_, out) = run(settings(), &["[error] text", "text"]);
    assert_eq!(out.documents[0].2, r#","level":"error"},"host":{"name":"n1""#);
    assert_eq!(out.documents[1].2, "");
    assert!(processors(settings()).of_file(&facts(container(0)), &Encoding::Records).is_none());
}

fn any_settings() -> impl Strategy<Value = Settings> {
    (any::<[bool; 5]>(), 1_u64..4).prop_map(|([drops, samples, collapses, limits, redacts], lines)| {
        let mut settings = if redacts { redact_all() } else { json() };
        settings.rules.extend(drops.then(|| rule(Action::Drop, "debug")));
        settings.rules.extend(samples.then(|| rule(Action::Sample(2), "c")));
        settings.rules.extend(if collapses { collapse().rules } else { Vec::new() });
        settings.limits = if limits { limit(lines).limits } else { Limits::default() };
        settings
    })
}

proptest! {
    /// Each line is a document or dropped, once; lines come in their order; nothing below the position is still awaited.
    #[test]
    fn every_line_is_settled_once_in_its_order(
        settings in any_settings(),
        texts in proptest::collection::vec(
            prop::sample::select(vec!["a", "debug", "c", "{\"a\":1}", "-----BEGIN PRIVATE KEY-----", "x@y.org"]), 1..40),
        pace in 1_u64..4,
    ) {
        let Some(mut process) = processors(settings).of_file(&facts(container(0)), &encoding()) else { return Ok(()) };
        let mut out = Out::default();
        for (number, text) in (0_u64..).zip(&texts) {
            let span = Span { start: 10 * number, end: 10 * number + 10 };
            let time = (number / pace) as i64 * SECOND;
            let line = Line { time, stream: Stream::Stdout, text: text.as_bytes(), span, bytes: 10, lines: 1 };
            out.comes(span);
            process.take(&line, b"", &mut out, Instant::now());
            let settled = out.documents.len() + out.dropped.len();
            let held = process.row.as_ref().map(|row| row.last.span.start);
            prop_assert_eq!(settled as u64 * 10, held.unwrap_or(span.end));
        }
        process.rest(None, &mut out);
        let mut offsets: Vec<u64> = out.documents.iter().map(|document| document.0).collect();
        prop_assert!(offsets.is_sorted());
        offsets.extend(out.dropped.iter().map(|dropped| dropped.0));
        offsets.sort_unstable();
        prop_assert_eq!(offsets, (0..texts.len() as u64).map(|number| number * 10).collect::<Vec<_>>());
        prop_assert_eq!((out.counted(), process.held_from()), (texts.len() as u64, None));
    }
}
