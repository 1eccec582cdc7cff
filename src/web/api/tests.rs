//! The shapes that the page and the sub-commands rely on.

use std::{borrow::Cow, sync::Arc};

use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use super::{
    super::testing::{Served, no_files, served, state, store},
    *,
};
use crate::{
    logs::{
        dead_letters::{DeadLetters, desk::Resend},
        mail::Mail,
        status::FileStatus,
    },
    metrics::ledger::Amount,
    shutdown,
    store::{Source, Writer},
};

async fn api(state: AdminState) -> Served {
    served(Api::new(state, &shutdown::channel().1), 16).await
}

fn source(namespace: &str) -> Arc<Source> {
    let label = |name, value: &str| (Cow::Borrowed(name), value.to_owned());
    let labels =
        vec![label("file", "/var/log/pods/x/0.log"), label("namespace", namespace), label("pod", "web-1")];
    Arc::new(Source { id: [7; 12], labels })
}

const START: i64 = 1_795_255_200_123_456_789;

fn append(writer: &mut Writer, namespace: &str, second: i64, text: &str) {
    let time = START + second * 1_000_000_000;
    writer.append(&source(namespace), second as u64, time, 1, text.as_bytes()).expect("appended");
}

#[tokio::test]
async fn the_status_has_the_shape_the_page_expects() {
    let state = state(no_files(), None);
    let account = |namespace: &str| {
        state.own.logs.ledger.account(Owner { namespace: namespace.to_owned(), ..Owner::default() })
    };
    account("a").lock().read(Amount { lines: 4, bytes: 40 });
    account("b").lock().read(Amount { lines: 3, bytes: 30 });
    account("b").lock().acked(Amount { lines: 2, bytes: 20 });
    account("b").lock().lost("rotated", Amount::of_bytes(9));
    let status = api(state).await.get("/api/v1/status").await.json();
    assert_eq!(status["version"], "0.1.0");
    assert_eq!(status["node"], "n1");
    assert_eq!(status["os"], "Debian GNU/Linux 12");
    assert_eq!(status["cpus"], 2);
    assert!(status["now"].as_f64().is_some_and(|now| now > 1.7e9));
    assert!(status["agent"]["rss_bytes"].as_f64().is_some_and(|bytes| bytes > 0.0));
    assert_eq!(
        status["sink"],
        json!({"kind": "elasticsearch", "target": "http://127.0.0.1:9200", "state": "holding", "reason": "connection refused"})
    );
    assert_eq!(status["store"], json!(null));
    assert_eq!(status["sources"], json!(["/var/log/pods"]));
    assert_eq!(
        status["ledger"],
        json!({"read_lines": 7, "read_bytes": 79, "acked_lines": 2, "acked_bytes": 20,
               "in_flight_lines": 5, "in_flight_bytes": 50, "dead_letter_lines": 0, "dead_letter_bytes": 0,
               "dropped_lines": 0, "dropped_bytes": 0, "lost_lines": 0, "lost_bytes": 9})
    );
}

#[tokio::test]
async fn tailed_files_come_from_the_log_reader() {
    let (asks, mailbox) = mail::mailbox().expect("an eventfd");
    let file = FileStatus {
        path: "/var/log/syslog".into(),
        namespace: None,
        pod: None,
        container: None,
        format: "plain",
        offset: 10,
        size: 15,
        lag_bytes: 5,
        lag_seconds: Some(1.5),
        state: "open",
        last_error: None,
        notes: vec!["annotation a: odd".into()],
    };
    let served = api(state(asks, None)).await;
    let answer = async {
        let place = loop {
            match mailbox.take() {
                Some(Mail::Files(place)) => break place,
                _ => tokio::task::yield_now().await,
            }
        };
        place.send(vec![file]).expect("somebody waits");
    };
    let (reply, ()) = tokio::join!(served.get("/api/v1/files"), answer);
    assert_eq!(
        reply.json(),
        json!({"files": [{"path": "/var/log/syslog", "namespace": null, "pod": null, "container": null, "format": "plain",
                          "offset": 10, "size": 15, "lag_bytes": 5, "lag_seconds": 1.5, "state": "open", "last_error": null,
                          "notes": ["annotation a: odd"]}],
               "containers": []})
    );
}

#[tokio::test]
async fn a_log_reader_that_is_gone_is_said_so() {
    let reply = api(state(no_files(), None)).await.get("/api/v1/files").await;
    assert_eq!((reply.status, reply.text()), (503, "the log reader does not answer\n"));
}

#[tokio::test]
async fn config_history_and_unknown_paths_are_answered() {
    let served = api(state(no_files(), None)).await;
    assert_eq!(served.get("/api/v1/config").await.text(), "state_dir: /var/lib/nodewarden\n");
    assert_eq!(served.get("/api/v1/metrics/history?since=5").await.json()["times"], json!([]));
    assert_eq!(served.get("/api/v1/metrics/history?since=now").await.status, 400);
    assert_eq!(served.get("/api/v1/").await.status, 404);
    assert_eq!(served.ask("POST /api/v1/status", &["content-length: 0"]).await.status, 405);
}

#[tokio::test]
async fn lines_are_found_newest_first_page_by_page() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (mut writer, store) = store(dir.path());
    for second in 0..3 {
        append(&mut writer, "default", second, &format!("line {second}"));
    }
    append(&mut writer, "other", 3, "line 3");
    let served = api(state(no_files(), Some(store))).await;
    let first = served.get("/api/v1/logs?namespace=default&query=line&limit=2").await.json();
    assert_eq!(
        first["lines"][0],
        json!({"time": "2026-11-21T10:00:02.123456789Z", "stream": "stdout", "text": "line 2",
               "labels": {"file": "/var/log/pods/x/0.log", "namespace": "default", "pod": "web-1"}})
    );
    assert_eq!(first["lines"][1]["text"], "line 1");
    let next = first["next"].as_str().expect("there is more");
    let second =
        served.get(&format!("/api/v1/logs?namespace=default&query=line&limit=2&before={next}")).await.json();
    assert_eq!((&second["lines"][0]["text"], &second["next"]), (&json!("line 0"), &json!(null)));
}

#[tokio::test]
async fn a_query_that_makes_no_sense_gets_a_sentence() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (_writer, store) = store(dir.path());
    let served = api(state(no_files(), Some(store))).await;
    for query in
        ["query=%22open", "query=a+OR+b", "limit=many", "since=yesterday", "before=x", "pod=a+b", "pod=%22"]
    {
        let reply = served.get(&format!("/api/v1/logs?{query}")).await;
        assert_eq!(reply.status, 400, "{query}");
        assert!(reply.has("content-type: text/plain; charset=utf-8"));
        assert!(!reply.text().is_empty());
    }
    assert_eq!(served.get("/api/v1/logs/tail?query=%22open").await.status, 400);
}

#[tokio::test]
async fn without_a_store_there_are_no_lines() {
    let served = api(state(no_files(), None)).await;
    assert_eq!(served.get("/api/v1/logs").await.status, 404);
    assert_eq!(served.get("/api/v1/logs/tail").await.status, 404);
}

#[tokio::test]
async fn a_live_tail_says_matching_lines_as_they_come_and_ends_with_the_agent() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (mut writer, store) = store(dir.path());
    append(&mut writer, "default", 0, "before");
    let (trigger, shutdown) = shutdown::channel();
    let served = served(Api::new(state(no_files(), Some(store)), &shutdown), 16).await;
    let mut stream = TcpStream::connect(served.at).await.expect("connected");
    let request = b"GET /api/v1/logs/tail?query=-noise HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.expect("sent");
    let mut lines = BufReader::new(stream).lines();
    let mut next = async || lines.next_line().await.expect("read");
    // The head is only sent once the place to begin from is known.
    while !next().await.expect("a head").is_empty() {}
    append(&mut writer, "default", 1, "noise");
    append(&mut writer, "default", 2, "after");
    let event = loop {
        let line = next().await.expect("the tail goes on");
        if let Some(event) = line.strip_prefix("data:") {
            break event.to_owned();
        }
    };
    let event: serde_json::Value = serde_json::from_str(&event).expect("JSON");
    assert_eq!((&event["text"], &event["labels"]["namespace"]), (&json!("after"), &json!("default")));
    trigger.fire();
    while let Some(line) = next().await {
        assert!(!line.contains("data:"));
    }
}

#[tokio::test]
async fn dead_letters_are_listed_newest_first() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut writer, _) = store(dir.path());
    let [old, new] =
        ["old", "new"].map(|word| format!(r#"{{"index":"i","reason":"400 {word}","document":""}}"#));
    append(&mut writer, "shop", 1, &old);
    append(&mut writer, "shop", 2, &new);
    let resend: Resend = Arc::new(|_| Box::pin(async { Err("the server is away".to_owned()) }));
    let letters = DeadLetters::new(writer);
    let desk = Desk::new(&letters, resend, 1 << 20);
    let api_of_letters = api(AdminState { dead_letters: Some(desk), ..state(no_files(), None) }).await;
    let page = api_of_letters.get("/api/v1/dead-letters").await.json();
    assert_eq!(page["lines"][0]["text"], new);
    assert_eq!(page["lines"][1]["labels"]["namespace"], "shop");
    for (method, path, status, text) in [
        ("GET", "drop?all=true", 405, "this has to be asked with POST"),
        ("POST", "drop", 400, "say which dead letters"),
        ("POST", "drop?all=true&index=i", 400, "say which dead letters"),
        ("POST", "resend?all=true", 409, "the server is away"),
        ("POST", "drop?reason=400+old", 200, "{\"dropped\":1}"),
        ("POST", "drop?all=true", 200, "{\"dropped\":1}"),
    ] {
        let answer = api_of_letters.ask(&format!("{method} /api/v1/dead-letters/{path}"), &[]).await;
        assert!(answer.status == status && answer.text().contains(text), "{path}: {}", answer.text());
    }
    let page = api_of_letters.get("/api/v1/dead-letters").await.json();
    assert_eq!(page["lines"], json!([]));
    let none = api(state(no_files(), None)).await.get("/api/v1/dead-letters").await;
    assert_eq!(none.status, 404);
}
