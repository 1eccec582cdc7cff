//! Lines of a container's file as Docker writes them, beside what `serde_json` makes of them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nodewarden::logs::{
    format::{Format, parse_container_line, parse_rfc3339},
    record::{Line, Span, Stream},
    shape::Schema,
};
use nodewarden_fuzz::Documents;
use serde_json::{Value, json};

fuzz_target!(|data: &[u8]| {
    let mut documents = [Schema::Ecs, Schema::Fluent].map(Documents::of_container);
    for line in data.split(|byte| *byte == b'\n') {
        check_line(line);
        let parsed = parse_container_line(line);
        let line = Line {
            time: parsed.time.unwrap_or(0),
            stream: parsed.stream,
            text: &parsed.text,
            span: Span { start: 7, end: 8 + line.len() as u64 },
            bytes: 1 + line.len() as u64,
            lines: 1,
        };
        documents.iter_mut().for_each(|documents| drop(documents.check(&line, b"")));
    }
});

/// What a line of Docker's says.
#[derive(Debug, PartialEq)]
struct Said {
    text: String,
    partial: bool,
    stream: Stream,
    time: i64,
}

fn check_line(line: &[u8]) {
    let known: Option<Value> = serde_json::from_slice(line).ok();
    let said = known.as_ref().and_then(said);
    let parsed = parse_container_line(line);
    if parsed.format == Format::Docker {
        let text = String::from_utf8(parsed.text.to_vec()).expect("JSON has text only");
        let time = parsed.time.expect("a time");
        // In what is passed over, half a surrogate pair does no harm.
        if known.is_some() {
            assert_eq!(said, Some(Said { text, partial: parsed.partial, stream: parsed.stream, time }));
        }
    } else if line.first() == Some(&b'{') {
        assert_eq!(&*parsed.text, line.strip_suffix(b"\r").unwrap_or(line), "a line of no format is text");
    }
    // Written anew, without keys that come twice, a line that is Docker's must be known as such.
    if let (Some(said), Some(known)) = (said, known) {
        check_written(&said, &known);
    }
}

fn said(known: &Value) -> Option<Said> {
    let known = known.as_object()?;
    let log = known.get("log").map_or(Some(""), Value::as_str)?;
    let stream = match known.get("stream")?.as_str()? {
        "stdout" => Stream::Stdout,
        "stderr" => Stream::Stderr,
        _ => return None,
    };
    let time = parse_rfc3339(known.get("time")?.as_str()?.as_bytes())?;
    let text = log.strip_suffix('\n').unwrap_or(log).to_owned();
    Some(Said { text, partial: !log.ends_with('\n'), stream, time })
}

fn check_written(said: &Said, known: &Value) {
    let attributes = known.get("attrs").cloned().unwrap_or_default();
    let written = json!({
        "log": known.get("log").cloned().unwrap_or_else(|| json!("")),
        "stream": known["stream"],
        "attrs": attributes,
        "time": known["time"],
    })
    .to_string();
    let parsed = parse_container_line(written.as_bytes());
    assert_eq!(parsed.format, Format::Docker, "{written}");
    assert_eq!(&*parsed.text, said.text.as_bytes(), "{written}");
    assert_eq!((parsed.partial, parsed.stream, parsed.time), (said.partial, said.stream, Some(said.time)));
}
