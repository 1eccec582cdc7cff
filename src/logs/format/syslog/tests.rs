use jiff::tz::TimeZone;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    logs::{
        index::IndexTemplate,
        record::{FileFacts, FileId, Line, Origin, Span, Stream},
        shape::{BulkEncoding, Encoding, Schema, Shape},
    },
    testing::container,
};

/// 2026-11-21T12:14:16Z
const READ: i64 = 1_795_263_256_000_000_000;

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// Time, host, program, process and message of a line.
fn parts(line: &str) -> Option<(String, &str, &str, &str, &str)> {
    let entry = parse(line.as_bytes())?;
    let nanos = clock::Clock::in_zone(TimeZone::UTC).nanos(entry.time, READ);
    let time = jiff::Timestamp::from_nanosecond(nanos.into()).expect("a time").to_string();
    Some((
        time,
        entry.host.map_or("-", text),
        entry.program.map_or("-", text),
        entry.process.map_or("-", text),
        text(entry.message),
    ))
}

#[test]
fn lines_of_real_programs_are_taken_apart() {
    for (line, (time, host, program, process, message)) in [
        (
            "Nov 21 10:10:10 rack7 sshd[812]: Accepted publickey for root from 192.0.2.7 port 50022 ssh2",
            (
                "10:10:10Z",
                "rack7",
                "sshd",
                "812",
                "Accepted publickey for root from 192.0.2.7 port 50022 ssh2",
            ),
        ),
        (
            "Nov 21 10:17:01 rack7 CRON[4711]: (root) CMD (cd / && run-parts --report /etc/cron.hourly)",
            (
                "10:17:01Z",
                "rack7",
                "CRON",
                "4711",
                "(root) CMD (cd / && run-parts --report /etc/cron.hourly)",
            ),
        ),
        (
            "Nov 21 10:10:10 rack7 kernel: [    1.500000] eth0: link up",
            ("10:10:10Z", "rack7", "kernel", "-", "[    1.500000] eth0: link up"),
        ),
        (
            "Nov 21 10:10:10 rack7.example.org systemd[1]: Started ssh.service - OpenBSD Secure Shell server.",
            (
                "10:10:10Z",
                "rack7.example.org",
                "systemd",
                "1",
                "Started ssh.service - OpenBSD Secure Shell server.",
            ),
        ),
        (
            "Nov 21 10:10:10 rack7 sudo:     root : TTY=pts/0 ; PWD=/root ; USER=root ; COMMAND=/usr/bin/true",
            (
                "10:10:10Z",
                "rack7",
                "sudo",
                "-",
                "    root : TTY=pts/0 ; PWD=/root ; USER=root ; COMMAND=/usr/bin/true",
            ),
        ),
        (
            "Nov 21 10:10:10 rack7 postfix/smtpd[99]: connect from unknown[192.0.2.7]",
            ("10:10:10Z", "rack7", "postfix/smtpd", "99", "connect from unknown[192.0.2.7]"),
        ),
        ("Nov 21 10:10:10 fe80::1 (sd-pam)[33]: x", ("10:10:10Z", "fe80::1", "(sd-pam)", "33", "x")),
        ("Nov 21 10:10:10 rack7 -- MARK --", ("10:10:10Z", "rack7", "-", "-", "-- MARK --")),
        (
            "Nov 21 10:10:10 rack7 last message repeated 3 times",
            ("10:10:10Z", "rack7", "-", "-", "last message repeated 3 times"),
        ),
        ("Nov 21 10:10:10 rack7 sshd[1]:", ("10:10:10Z", "rack7", "sshd", "1", "")),
        ("Nov 21 10:10:10 rack7 java[main]: x", ("10:10:10Z", "rack7", "java[main]", "-", "x")),
        ("Nov 21 10:10:10 rack7 error: it broke", ("10:10:10Z", "rack7", "-", "-", "error: it broke")),
        ("Nov 21 10:10:10 sshd[812]: no host", ("10:10:10Z", "-", "sshd", "812", "no host")),
        (
            "2026-11-21T13:14:15.123456+01:00 rack7 sshd[812]: Connection closed",
            ("12:14:15.123456Z", "rack7", "sshd", "812", "Connection closed"),
        ),
        (
            "<34>Nov 21 10:10:10 mymachine su: 'su root' failed for lonvick on /dev/pts/8",
            ("10:10:10Z", "mymachine", "su", "-", "'su root' failed for lonvick on /dev/pts/8"),
        ),
        (
            "<30>2026-11-21T10:10:10.5Z rack7 dockerd[7]: time=\"x\"",
            ("10:10:10.5Z", "rack7", "dockerd", "7", "time=\"x\""),
        ),
        (
            "<34>1 2026-11-21T10:10:10.003Z mymachine.example.com su - ID47 - \u{feff}'su root' failed",
            ("10:10:10.003Z", "mymachine.example.com", "su", "-", "'su root' failed"),
        ),
        (
            "<165>1 - 192.0.2.1 myproc 8710 - [a@32473 iut=\"3\" x=\"\\\"]\"][b@32473] %% It's time.",
            ("12:14:16Z", "192.0.2.1", "myproc", "8710", "%% It's time."),
        ),
        ("<165>1 - - - - - -", ("12:14:16Z", "-", "-", "-", "")),
    ] {
        let time = format!("2026-11-21T{time}");
        assert_eq!(parts(line), Some((time, host, program, process, message)), "{line}");
    }
}

#[test]
fn priorities_are_read_in_numbers_and_in_words() {
    for (line, priority) in [
        ("<0>Nov 21 10:10:10 a b: c", Some(0)),
        ("<191>Nov 21 10:10:10 a b: c", Some(191)),
        ("Nov 21 10:10:10 alpine daemon.info init: starting", Some(30)),
        ("Nov 21 10:10:10 alpine authpriv.err sshd[1]: no", Some(83)),
        ("Nov 21 10:10:10 alpine local7.debug x: y", Some(191)),
        ("Nov 21 10:10:10 alpine local8.debug x: y", None),
    ] {
        let entry = parse(line.as_bytes()).expect("a syslog line");
        assert_eq!(entry.priority, priority, "{line}");
    }
}

#[test]
fn other_lines_are_text() {
    for line in [
        "",
        "panic: oops",
        "<192>Nov 21 10:10:10 a b: c",
        "<034>Nov 21 10:10:10 a b: c",
        "<>Nov 21 10:10:10 a b: c",
        "<13>hello",
        "Nov 21 10:10:10 ",
        "Nov 21 10:10:10 rack7",
        "Nov 21 10:10:10 {\"json\": 1} x",
        "2026-11-21T10:10:10Z ERROR main: it broke",
        "2026-11-21T10:10:10Z  INFO main: all is well",
        "2026-11-21 10:10:10 status installed nodewarden:amd64",
        "\0\0\0\0Nov 21 10:10:10 rack7 sshd[812]: after a crash",
        "<34>1 2026-11-21T10:10:10Z a b c d [open \"]",
        "<34>1 2026-11-21T10:10:10Z a b c d [x]y",
        "<34>1 yesterday a b c d - y",
    ] {
        assert_eq!(parse(line.as_bytes()), None, "{line}");
    }
}

const FIT: &[u8] = b"Nov 21 10:10:10 rack7 sshd[812]: text";

#[test]
fn a_line_that_does_not_fit_changes_no_mind() {
    let mut guess = Guess::default();
    assert!(guess.read(b"the end of a dump").is_none());
    assert_eq!(guess.format(), Format::Plain);
    assert!(guess.read(b"Nov 21 10:10:10 maybe not").is_none());
    assert!(guess.read(FIT).is_some());
    assert!(guess.read(b"Nov 21 10:10:10 rack7 -- MARK --").is_some());
    for _ in 0..MISFITS - 1 {
        assert!(guess.read(b"\tat Main.main").is_none());
    }
    assert_eq!(guess.format(), Format::Syslog);
    assert!(guess.read(FIT).is_some());
    for _ in 0..2 * MISFITS {
        guess.read(b"\tat Main.main");
    }
    assert_eq!(guess.format(), Format::Plain);
    for _ in 0..FITS - 1 {
        assert!(guess.read(FIT).is_none());
    }
    assert!(guess.read(FIT).is_some());
    assert_eq!(guess.format(), Format::Syslog);
}

#[test]
fn a_plain_file_may_quote_syslog() {
    let mut guess = Guess::default();
    (0..MISFITS).for_each(|_| assert!(guess.read(b"plain").is_none()));
    for _ in 0..10 {
        assert!(guess.read(FIT).is_none() && guess.read(FIT).is_none() && guess.read(b"plain").is_none());
    }
    assert_eq!(guess.format(), Format::Plain);
}

fn document(origin: Origin, schema: Schema, line: &[u8]) -> Value {
    let encoding = Encoding::Bulk(BulkEncoding {
        index: IndexTemplate::default(),
        schema,
        position_ids: true,
        node: "n1".into(),
    });
    let facts = FileFacts::new(FileId([0; 12]), "/var/log/syslog", origin);
    let mut shape = Shape::new(&encoding, &facts);
    let (mut fields, mut body) = (Vec::new(), Vec::new());
    let mut text = line;
    if let Some(entry) = Guess::default().read(line) {
        let (schema, node) = shape.document().expect("documents");
        entry.render(schema, node, &mut fields);
        text = entry.message;
    }
    let line =
        Line { time: 0, stream: Stream::None, text, span: Span { start: 65, end: 99 }, bytes: 34, lines: 1 };
    shape.encode_with(&line, &fields, b"", &mut body);
    let document = body.split(|byte| *byte == b'\n').nth(1).expect("a second line");
    // Not into a map: names that come twice have to show.
    let text = text_of_members(document);
    assert_eq!(text.iter().collect::<std::collections::HashSet<_>>().len(), text.len(), "{text:?}");
    serde_json::from_slice(document).expect("JSON")
}

/// The names of the outermost members.
fn text_of_members(document: &[u8]) -> Vec<String> {
    struct Names(Vec<String>);
    impl<'de> serde::Deserialize<'de> for Names {
        fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            struct Visitor;
            impl<'de> serde::de::Visitor<'de> for Visitor {
                type Value = Names;
                fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    out.write_str("an object")
                }
                fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Names, A::Error> {
                    let mut names = Vec::new();
                    while let Some((name, _)) = map.next_entry::<String, Value>()? {
                        names.push(name);
                    }
                    Ok(Names(names))
                }
            }
            from.deserialize_map(Visitor)
        }
    }
    serde_json::from_slice::<Names>(document).expect("an object").0
}

#[test]
fn a_document_has_filebeats_names() {
    let line = b"<38>Nov 21 10:10:10 rack7 sshd[812]: say \"hi\"";
    assert_eq!(
        document(Origin::Plain, Schema::Ecs, line),
        json!({
            "@timestamp": "1970-01-01T00:00:00.000000000Z",
            "message": "say \"hi\"",
            "log": {
                "file": {"path": "/var/log/syslog"},
                "offset": 65,
                "level": "info",
                "syslog": {
                    "facility": {"code": 4, "name": "security/authorization"},
                    "priority": 38,
                    "severity": {"code": 6, "name": "Informational"},
                },
            },
            "process": {"name": "sshd", "pid": 812},
            "host": {"hostname": "rack7", "name": "n1"},
            "data_stream": {"type": "logs", "dataset": "system.syslog", "namespace": "default"},
        })
    );
    let plain = document(Origin::Plain, Schema::Ecs, b"Nov 21 10:10:10 rack7 kernel: up");
    assert_eq!(plain["log"], json!({"file": {"path": "/var/log/syslog"}, "offset": 65}));
    assert_eq!(plain["process"], json!({"name": "kernel"}));
}

#[test]
fn a_document_of_rfc_5424_keeps_the_rest_as_text() {
    let line = b"<165>1 2026-11-21T10:10:10Z rack7 app main ID47 [a@1 b=\"c\"] text";
    let document = document(Origin::Plain, Schema::Ecs, line);
    let syslog = &document["log"]["syslog"];
    assert_eq!(
        (&syslog["msgid"], &syslog["procid"], &syslog["version"]),
        (&json!("ID47"), &json!("main"), &json!("1"))
    );
    assert_eq!(document["syslog"], json!({"structured_data": "[a@1 b=\"c\"]"}));
    assert_eq!(document["process"], json!({"name": "app"}));
    assert_eq!(document["message"], "text");
}

#[test]
fn a_fluent_document_has_the_names_of_its_parser() {
    assert_eq!(
        document(Origin::Plain, Schema::Fluent, b"<38>Nov 21 10:10:10 rack7 sshd[812]: text"),
        json!({
            "@timestamp": "1970-01-01T00:00:00.000000000Z",
            "message": "text",
            "pri": 38,
            "host": "rack7",
            "ident": "sshd",
            "pid": "812",
        })
    );
    assert_eq!(document(Origin::Plain, Schema::Fluent, b"plain")["log"], "plain");
}

proptest! {
    #[test]
    fn no_bytes_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
        parse(&line);
    }

    #[test]
    fn almost_syslog_makes_valid_documents(
        line in r#"(<[0-9]{0,4}>)?(1 )?(Nov 21 10:10:10|2026-11-21T10:10:10Z|-) [ -~]{0,60}"#,
    ) {
        document(Origin::Plain, Schema::Ecs, line.as_bytes());
        document(Origin::Plain, Schema::Fluent, line.as_bytes());
        document(container(0), Schema::Ecs, line.as_bytes());
    }

    #[test]
    fn a_written_line_reads_back(
        priority in 0_u8..192,
        host in "[a-z][a-z0-9.-]{6,20}",
        program in "[a-z][a-z0-9/_-]{8,20}",
        process in 0_u32..5_000_000,
        message in "[^\n\r]{0,100}",
    ) {
        let old = format!("<{priority}>Nov  1 10:10:10 {host} {program}[{process}]: {message}");
        let new = format!("<{priority}>1 2026-11-01T10:10:10Z {host} {program} {process} - - {message}");
        let process = process.to_string();
        // Only there a mark at the beginning is none of the text.
        let unmarked = message.strip_prefix('\u{feff}').unwrap_or(&message);
        for (line, message) in [(old, message.as_str()), (new, unmarked)] {
            let entry = parse(line.as_bytes()).expect("a syslog line");
            prop_assert_eq!(entry.priority, Some(priority));
            prop_assert_eq!(entry.host, Some(host.as_bytes()));
            prop_assert_eq!(entry.program, Some(program.as_bytes()));
            prop_assert_eq!(entry.process, Some(process.as_bytes()));
            prop_assert_eq!(entry.message, message.as_bytes());
        }
    }
}
