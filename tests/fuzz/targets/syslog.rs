//! Lines of syslog's files, taken apart and made documents.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nodewarden::logs::{
    feed_fields::is_number,
    format::{
        Format, rfc3339,
        syslog::{
            Entry, Guess,
            clock::{Clock, Written},
        },
    },
    record::{Line, Origin, Span, Stream},
    shape::Schema,
};
use nodewarden_fuzz::{Documents, place_in};
use serde_json::Value;

/// 2026-11-21T10:00:00Z
const READ: i64 = 1_795_255_200_000_000_000;
const DAY: i64 = 86_400_000_000_000;
/// A line after which a file is held to be syslog.
const SURE: &[u8] = b"<34>Oct 11 22:14:15 host app[8]: text";

fuzz_target!(|data: &[u8]| {
    let mut guess = Guess::default();
    let mut documents = [Schema::Ecs, Schema::Fluent].map(|schema| Documents::new(schema, Origin::Plain));
    for line in data.split(|byte| *byte == b'\n') {
        let is_syslog = guess.read(line).is_some();
        assert!(!is_syslog || guess.format() == Format::Syslog);
        // Whatever is held of the file, this is what the line would be in one that is syslog.
        let mut sure = Guess::default();
        sure.read(SURE);
        let entry = sure.read(line);
        assert!(entry.is_some() || !is_syslog);
        if let Some(entry) = entry {
            check_places(line, &entry);
            check_again(&entry);
            documents.iter_mut().for_each(|documents| check_document(documents, &entry));
        }
    }
});

/// Its pieces stand in the line one after the other, with nothing between them but what syslog puts there.
fn check_places(line: &[u8], entry: &Entry<'_>) {
    let words = [entry.host, entry.program, entry.process, entry.message_id, entry.data];
    let mut end = 0;
    let mut number = 0;
    for word in words.into_iter().flatten().chain([entry.message]) {
        let place = if word.is_empty() { line.len()..line.len() } else { place_in(word, line) };
        assert!(end <= place.start, "pieces overlap");
        let between = &line[end..place.start];
        let is_head = number == 0;
        // Between them may stand "daemon.info", or words that say nothing.
        let is_fit = |byte: &u8| b" []:-.\xef\xbb\xbf".contains(byte) || byte.is_ascii_alphanumeric();
        assert!(is_head || between.iter().all(is_fit), "{}", between.escape_ascii());
        end = place.end;
        number += 1;
    }
    assert_eq!(end, line.len(), "the message goes to the end");
    assert!(entry.priority.is_none_or(|priority| priority < 192));
}

/// Written as RFC 5424 says, what a line says reads back.
fn check_again(entry: &Entry<'_>) {
    if !entry.is_5424 {
        return;
    }
    let time = match entry.time {
        Written::At(time) => rfc3339(time).to_vec(),
        Written::Nowhere => b"-".to_vec(),
        Written::Local(_) => panic!("RFC 5424 has no such time"),
    };
    let mut line = format!("<{}>1 ", entry.priority.expect("a priority")).into_bytes();
    line.extend_from_slice(&time);
    for word in [entry.host, entry.program, entry.process, entry.message_id, entry.data] {
        line.push(b' ');
        line.extend_from_slice(word.unwrap_or(b"-"));
    }
    line.extend_from_slice(b" \xef\xbb\xbf");
    line.extend_from_slice(entry.message);
    let mut guess = Guess::default();
    assert_eq!(guess.read(&line).as_ref(), Some(entry), "{}", line.escape_ascii());
}

fn check_document(documents: &mut Documents, entry: &Entry<'_>) {
    let time = Clock::default().nanos(entry.time, READ);
    if let Written::Local(_) = entry.time {
        assert!(time <= READ + DAY + 61_000_000_000 && time > READ - 9 * 366 * DAY, "{time}");
    }
    let schema = documents.schema();
    let mut fields = Vec::new();
    entry.render(schema, "n\\1", &mut fields);
    let span = Span { start: 3, end: 9 };
    let line = Line { time, stream: Stream::None, text: entry.message, span, bytes: 6, lines: 1 };
    let document = documents.check(&line, &fields);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let lossy = |word: Option<&[u8]>| word.map(|word| String::from_utf8_lossy(word).into_owned());
    let number = entry.process.filter(|process| is_number(process));
    match schema {
        Schema::Ecs => {
            let log = &document["log"];
            assert_eq!(text(&document["host"]["hostname"]), lossy(entry.host));
            assert_eq!(text(&document["host"]["name"]).as_deref(), Some("n\\1"));
            assert_eq!(text(&document["process"]["name"]), lossy(entry.program));
            assert_eq!(
                document["process"]["pid"].as_i64(),
                number.map(|digits| {
                    std::str::from_utf8(digits).expect("digits").parse().expect("a number")
                })
            );
            let word = entry.process.filter(|process| !is_number(process));
            assert_eq!(text(&log["syslog"]["procid"]), lossy(word));
            assert_eq!(text(&log["syslog"]["msgid"]), lossy(entry.message_id));
            assert_eq!(log["syslog"]["priority"].as_u64(), entry.priority.map(u64::from));
            assert_eq!(text(&document["syslog"]["structured_data"]), lossy(entry.data));
            assert_eq!(log["offset"], 3);
        }
        Schema::Fluent => {
            assert_eq!(text(&document["host"]), lossy(entry.host));
            assert_eq!(text(&document["ident"]), lossy(entry.program));
            assert_eq!(text(&document["pid"]), lossy(entry.process));
            assert_eq!(text(&document["extradata"]), lossy(entry.data));
            assert_eq!(document["pri"].as_u64(), entry.priority.map(u64::from));
        }
    }
}
