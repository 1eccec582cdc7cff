//! The bulk client against a server that answers as each test scripts it.

use std::{
    collections::VecDeque,
    io::Write,
    net::SocketAddr,
    ops::ControlFlow,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use prometheus::Registry;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::yield_now,
};

use super::{address::Host, auth::Auth, proxy::Proxies, tls::Tls, *};
use crate::{
    logs::{
        batch::FileKey,
        record::{FileFacts, FileId, Origin},
    },
    metrics::{ledger::Amount, own::Own},
    store::{Hit, Limits, Query, Writer},
};

/// What the server does with a request.
enum Reply {
    /// Answers with these statuses, one per document.
    Items(&'static [u16]),
    /// Answers with a status and a body.
    Whole(u16, &'static str),
    /// Says that its answer is longer than it is.
    Cut,
    /// Takes the request and closes the connection without an answer.
    Reset,
    /// Takes the request and never answers.
    Stall,
    /// Answers 413 as soon as it has seen the headers, and closes the connection.
    TooLarge,
}

const ITEM_KINDS: &[(u16, &str)] = &[
    (400, "document_parsing_exception"),
    (403, "cluster_block_exception"),
    (409, "version_conflict_engine_exception"),
    (429, "es_rejected_execution_exception"),
    (503, "unavailable_shards_exception"),
];

/// A bulk server; where the script ends, every document is created.
#[derive(Default)]
struct Server {
    script: Mutex<VecDeque<Reply>>,
    /// The messages of each request.
    requests: Mutex<Vec<Vec<String>>>,
}

impl Server {
    async fn start(script: impl IntoIterator<Item = Reply>) -> (Arc<Self>, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let script = Mutex::new(script.into_iter().collect());
        let server = Arc::new(Self { script, ..Self::default() });
        let serving = Arc::clone(&server);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = Arc::clone(&serving);
                tokio::spawn(async move { server.converse(BufReader::new(stream)).await });
            }
        });
        (server, address)
    }

    async fn converse(&self, mut stream: BufReader<TcpStream>) -> Option<()> {
        loop {
            let length = read_head(&mut stream).await?;
            let reply = self.script.lock().expect("unpoisoned").pop_front();
            if let Some(Reply::TooLarge) = reply {
                self.requests.lock().expect("unpoisoned").push(Vec::new());
                write_answer(&mut stream, 413, "", 0).await?;
                return None;
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.ok()?;
            self.requests.lock().expect("unpoisoned").push(messages(&body));
            match reply {
                None => write_answer(&mut stream, 200, r#"{"errors":false}"#, 0).await?,
                Some(Reply::Items(statuses)) => write_answer(&mut stream, 200, &items(statuses), 0).await?,
                Some(Reply::Whole(status, body)) => write_answer(&mut stream, status, body, 0).await?,
                Some(Reply::Cut) => {
                    write_answer(&mut stream, 200, r#"{"errors":fa"#, 5).await?;
                    return None;
                }
                Some(Reply::Stall) => std::future::pending().await,
                Some(Reply::Reset | Reply::TooLarge) => return None,
            }
        }
    }

    fn requests(&self) -> Vec<Vec<String>> {
        self.requests.lock().expect("unpoisoned").clone()
    }
}

/// Reads a request's head; the length of its body, or `None` at the end of the connection.
async fn read_head(stream: &mut BufReader<TcpStream>) -> Option<usize> {
    let mut length = None;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? <= 2 {
            return length;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok();
        }
    }
}

/// Writes an answer whose body lacks `missing` bytes of what is announced.
async fn write_answer(
    stream: &mut BufReader<TcpStream>,
    status: u16,
    body: &str,
    missing: usize,
) -> Option<()> {
    let length = body.len() + missing;
    let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n\r\n{body}");
    stream.write_all(answer.as_bytes()).await.ok()
}

fn items(statuses: &[u16]) -> String {
    let item = |status: &u16| match ITEM_KINDS.iter().find(|(known, _)| known == status) {
        Some((_, kind)) => {
            serde_json::json!({"create": {"status": status, "error": {"type": kind, "reason": "why"}}})
        }
        None => serde_json::json!({"create": {"status": status}}),
    };
    serde_json::json!({"errors": true, "items": statuses.iter().map(item).collect::<Vec<_>>()}).to_string()
}

/// The messages of a bulk request, gzipped or not.
fn messages(body: &[u8]) -> Vec<String> {
    let mut text = Vec::new();
    if body.starts_with(b"{") {
        text.extend_from_slice(body);
    } else {
        flate2::write::GzDecoder::new(&mut text).write_all(body).expect("gzip");
    }
    let text = String::from_utf8(text).expect("text");
    let documents = text.lines().skip(1).step_by(2);
    documents
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["message"].to_string())
        .map(|message| message.trim_matches('"').to_owned())
        .collect()
}

fn batch(number: u64, messages: &[&str]) -> Batch {
    let facts = Arc::new(FileFacts::new(FileId([1; 12]), "/var/log/a", Origin::Plain));
    let mut batch = Batch::numbered(number);
    for message in messages {
        let item = format!(
            "{{\"create\":{{\"_index\":\"i\",\"_id\":\"{message}\"}}}}\n{{\"message\":\"{message}\"}}\n"
        );
        batch.body.extend_from_slice(item.as_bytes());
        batch.push(FileKey(0), &facts, Amount { lines: 1, bytes: 10 }, 0);
    }
    batch
}

struct Scene {
    sink: Arc<Elastic>,
    own: Own,
    _letters: tempfile::TempDir,
}

impl Scene {
    fn new(addresses: &[SocketAddr]) -> Self {
        Self::patient(addresses, Duration::from_secs(60))
    }

    fn plain(addresses: &[SocketAddr]) -> Self {
        Self::with(addresses, Duration::from_secs(60), 0)
    }

    fn patient(addresses: &[SocketAddr], answer_timeout: Duration) -> Self {
        Self::with(addresses, answer_timeout, 1)
    }

    fn with(addresses: &[SocketAddr], answer_timeout: Duration, compression: u32) -> Self {
        let letters = tempfile::tempdir().expect("a directory");
        let limits = Limits { min_free: 0.0, ..Limits::default() };
        let (writer, _) = Writer::open(letters.path(), limits, SystemTime::now()).expect("a store");
        let own = Own::new(Registry::new()).expect("a registry");
        let host = |address: &SocketAddr| Host {
            is_secure: false,
            name: address.ip().to_string(),
            port: address.port(),
            path: String::new(),
        };
        let client = Client::new(client::Options {
            hosts: addresses.iter().map(host).collect(),
            auth: Auth::None,
            tls: Tls::default(),
            proxies: Proxies::default(),
            headers: Vec::new(),
        });
        let options = Options { compression, in_flight: 4, answer_timeout, repair: true };
        let dead_letters = DeadLetters::new(writer);
        let sink = Elastic::new(options, client, Arc::default(), dead_letters, own.bulk.clone());
        Self { sink: Arc::new(sink), own, _letters: letters }
    }

    async fn deliver(&self, batch: Batch) -> Batch {
        Arc::clone(&self.sink).deliver(batch).await
    }

    /// The dead letters, newest first.
    fn dead_letters(&self) -> Vec<String> {
        let mut letters = Vec::new();
        let mut take = |hit: Hit| {
            letters.push(String::from_utf8(hit.text).expect("text"));
            ControlFlow::Continue(())
        };
        let reader = self.sink.dead_letters.reader();
        reader.search(&Query::default(), &|| false, &mut take).expect("searched");
        letters
    }
}

fn dead_lines(batch: &Batch) -> u64 {
    batch.files[0].dead.iter().map(|(_, amount)| amount.lines).sum()
}

#[tokio::test]
async fn a_busy_or_hurt_server_is_asked_again() {
    let script = [Reply::Whole(429, ""), Reply::Whole(503, "down"), Reply::Items(&[201, 201])];
    let (server, address) = Server::start(script).await;
    let scene = Scene::new(&[address]);
    let delivered = scene.deliver(batch(1, &["a", "b"])).await;
    assert_eq!(dead_lines(&delivered), 0);
    assert_eq!(server.requests(), vec![["a", "b"]; 3]);
    assert_eq!(scene.sink.state.reason(), None);
    assert_eq!(scene.own.bulk.requests.with_label_values(&["retry"]).get(), 2);
}

#[tokio::test]
async fn without_compression_a_batch_is_lent_and_comes_back_whole() {
    let script = [Reply::Reset, Reply::Whole(503, "down"), Reply::Items(&[201, 429, 400])];
    let (server, address) = Server::start(script).await;
    let scene = Scene::plain(&[address]);
    let sent = batch(1, &["new", "busy", "bad"]);
    let body = sent.body.clone();
    let delivered = scene.deliver(sent).await;
    assert_eq!(server.requests()[..3], vec![vec!["new", "busy", "bad"]; 3]);
    assert_eq!(server.requests()[3..], [["busy"]]);
    assert_eq!(delivered.body, body);
    assert_eq!(dead_lines(&delivered), 1);
    assert!(scene.dead_letters()[0].contains("bad"));
}

#[tokio::test]
async fn each_document_is_settled_by_its_own_status() {
    let script = [Reply::Items(&[201, 429, 400, 503, 409])];
    let (server, address) = Server::start(script).await;
    let scene = Scene::new(&[address]);
    let delivered = scene.deliver(batch(1, &["new", "busy", "bad", "hurt", "known"])).await;
    assert_eq!(server.requests()[1], ["busy", "hurt"]);
    assert_eq!(server.requests().len(), 2);
    assert_eq!(dead_lines(&delivered), 1);
    let letters = scene.dead_letters();
    assert_eq!(letters.len(), 1);
    assert!(letters[0].contains("400 document_parsing_exception: why") && letters[0].contains("bad"));
    assert_eq!(delivered.files[0].dead[0].0, "document_parsing_exception");
}

#[tokio::test]
async fn what_was_stored_without_an_answer_is_no_loss_and_no_double() {
    for reply in [Reply::Reset, Reply::Stall, Reply::Cut] {
        let (server, address) = Server::start([reply, Reply::Items(&[409, 409])]).await;
        let scene = Scene::patient(&[address], Duration::from_secs(1));
        let delivered = scene.deliver(batch(1, &["a", "b"])).await;
        assert_eq!((delivered.len(), dead_lines(&delivered)), (2, 0));
        assert_eq!(server.requests(), vec![["a", "b"]; 2]);
    }
}

#[tokio::test]
async fn a_server_that_is_away_leaves_its_place_to_the_next() {
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let nobody = closed.local_addr().expect("an address");
    drop(closed);
    let (server, address) = Server::start([]).await;
    let scene = Scene::new(&[nobody, address]);
    let names: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    for (number, name) in names.iter().enumerate() {
        scene.deliver(batch(number as u64, &[name])).await;
    }
    assert_eq!(server.requests().concat(), names);
    assert!(scene.own.bulk.requests.with_label_values(&["retry"]).get() <= 1, "it is left out then");
}

#[tokio::test]
async fn a_request_that_is_too_large_is_halved_until_it_fits() {
    let script = [Reply::Whole(413, ""), Reply::Items(&[201]), Reply::Whole(413, "")];
    let (server, address) = Server::start(script).await;
    let scene = Scene::new(&[address]);
    let delivered = scene.deliver(batch(1, &["a", "b", "c"])).await;
    let expected: [&[&str]; 5] = [&["a", "b", "c"], &["a"], &["b", "c"], &["b"], &["c"]];
    assert_eq!(server.requests(), expected);
    assert_eq!(dead_lines(&delivered), 0);
}

#[tokio::test]
async fn a_single_document_that_is_too_large_is_a_dead_letter() {
    let (_, address) = Server::start([Reply::Whole(413, "")]).await;
    let scene = Scene::new(&[address]);
    let delivered = scene.deliver(batch(1, &["huge"])).await;
    assert_eq!(dead_lines(&delivered), 1);
    assert!(scene.dead_letters()[0].contains("HTTP 413"));
}

#[tokio::test]
async fn a_server_that_refuses_before_it_has_read_everything_gets_it_again() {
    let (server, address) = Server::start([Reply::TooLarge]).await;
    let scene = Scene::new(&[address]);
    let large: Vec<String> =
        (0..5_000).map(|number: u64| format!("{:x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    let messages: Vec<&str> = large.iter().map(String::as_str).collect();
    scene.deliver(batch(1, &messages)).await;
    let sent: usize = server.requests().iter().map(Vec::len).sum();
    assert_eq!(sent, messages.len());
}

#[tokio::test]
async fn what_stands_between_does_not_make_dead_letters() {
    let (server, address) = Server::start([Reply::Whole(400, "<html>not here</html>")]).await;
    let scene = Scene::new(&[address]);
    scene.deliver(batch(1, &["a"])).await;
    assert_eq!(server.requests(), [["a"], ["a"]]);
    assert!(scene.dead_letters().is_empty());
}

#[tokio::test]
async fn what_is_held_goes_back_with_its_batch() {
    let (server, address) = Server::start([Reply::Items(&[403, 201, 400])]).await;
    let scene = Scene::new(&[address]);
    let held = scene.deliver(batch(1, &["forbidden", "taken", "bad"])).await;
    assert!(held.files[0].held && server.requests().len() == 1);
    // It comes again with the others.
    assert!(scene.dead_letters().is_empty());
    assert!(scene.sink.state.reason().is_some_and(|reason| reason.contains("403")));
    let delivered = scene.deliver(batch(2, &["forbidden", "taken"])).await;
    assert!(!delivered.files[0].held);
    assert_eq!(scene.sink.state.reason(), None);
}

#[tokio::test]
async fn a_batch_that_waits_does_not_stop_the_others() {
    let (server, address) = Server::start((0..8).map(|_| Reply::Whole(403, ""))).await;
    let scene = Scene::new(&[address]);
    let held = tokio::spawn(Arc::clone(&scene.sink).deliver(batch(1, &["forbidden"])));
    while scene.sink.state.reason().is_none() {
        yield_now().await;
    }
    server.script.lock().expect("unpoisoned").push_front(Reply::Items(&[201]));
    scene.deliver(batch(2, &["other"])).await;
    assert!(!held.is_finished());
    assert!(scene.sink.state.reason().is_some_and(|reason| reason.contains("403")));
    server.script.lock().expect("unpoisoned").clear();
    held.await.expect("delivered");
    assert_eq!(scene.sink.state.reason(), None);
}

/// A bulk item's document, and the answer for a document whose port is no number.
const PORT: &str = "[1:9] failed to parse field [port] of type [long] in document with id 'x'";

fn documents(number: u64, documents: &[&str]) -> Batch {
    let mut batch = batch(number, &[]);
    let facts = Arc::new(FileFacts::new(FileId([1; 12]), "/var/log/a", Origin::Plain));
    for (id, document) in documents.iter().enumerate() {
        let item = format!("{{\"create\":{{\"_index\":\"i\",\"_id\":\"{id}\"}}}}\n{document}\n");
        batch.body.extend_from_slice(item.as_bytes());
        batch.push(FileKey(0), &facts, Amount { lines: 1, bytes: 10 }, 0);
    }
    batch
}

fn refusal(reason: &str) -> Reply {
    let error = serde_json::json!({"type": "document_parsing_exception", "reason": reason});
    let item = serde_json::json!({"create": {"status": 400, "error": error}});
    let answer = serde_json::json!({"errors": true, "items": [item]}).to_string();
    Reply::Whole(200, answer.leak())
}

#[tokio::test]
async fn a_field_in_conflict_becomes_text_and_the_next_such_document_is_right_at_once() {
    for compression in [0, 1] {
        let (server, address) = Server::start([refusal(PORT)]).await;
        let scene = Scene::with(&[address], Duration::from_secs(60), compression);
        let delivered = scene.deliver(documents(1, &[r#"{"message":"a","port":"http"}"#])).await;
        assert_eq!((dead_lines(&delivered), server.requests().len()), (0, 2));
        let next = [r#"{"message":"b","port":1}"#, r#"{"message":"c","port":"x"}"#, r#"{"message":"d"}"#];
        let (sent, written) = (documents(2, &next), documents(2, &next).body);
        assert_eq!(scene.deliver(sent).await.body, written, "the batch itself stays as it was");
        let requests = server.requests();
        assert_eq!((requests.len(), requests[2].join("")), (3, "bcd".into()), "no round trip");
        assert_eq!(scene.own.bulk.repaired.get(), 2);
        assert!(scene.dead_letters().is_empty());
    }
}

#[tokio::test]
async fn what_is_refused_all_the_same_is_a_dead_letter_as_it_was_written() {
    let (server, address) = Server::start([refusal(PORT), refusal(PORT)]).await;
    let scene = Scene::new(&[address]);
    let document = r#"{"message":"a","port":"http"}"#;
    let delivered = scene.deliver(documents(1, &[document])).await;
    assert_eq!((dead_lines(&delivered), server.requests().len()), (1, 2));
    let letter: serde_json::Value = serde_json::from_str(&scene.dead_letters()[0]).expect("JSON");
    assert_eq!(letter["document"], document);
    assert!(letter["reason"].as_str().expect("a text").contains("; with port as text: 400 "), "{letter}");
    assert_eq!(delivered.files[0].dead[0].0, "document_parsing_exception");
    // A field that is not there can't be the one.
    let (server, address) = Server::start([refusal(PORT)]).await;
    let scene = Scene::new(&[address]);
    scene.deliver(documents(1, &[r#"{"message":"@timestamp"}"#])).await;
    assert!(server.requests().len() == 2);
}

#[tokio::test]
async fn many_repaired_documents_take_several_requests() {
    let (server, address) = Server::start([refusal(PORT)]).await;
    let scene = Scene::new(&[address]);
    scene.deliver(documents(1, &[r#"{"message":"a","port":"http"}"#])).await;
    let long = format!(r#"{{"message":"{}","port":"x"}}"#, "b".repeat(200 << 10));
    let delivered = scene.deliver(documents(2, &[long.as_str(); 5])).await;
    let sizes: Vec<usize> = server.requests()[2..].iter().map(Vec::len).collect();
    assert_eq!((dead_lines(&delivered), sizes), (0, vec![2, 2, 1]));
}
