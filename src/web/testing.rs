//! What the tests of this part share: sites on real sockets, and a client that shows every byte.

use std::{net::SocketAddr, sync::Arc};

use nodewarden_collectors::{Host, Settings};
use prometheus::Registry;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::{
    api::{AdminState, LocalStore, Sink, SinkKind, SinkState},
    facts::Facts,
    server::{Site, serve},
};
use crate::{
    logs::mail,
    metrics::{History, Own, Scraper},
    shutdown::{self, Trigger},
    store::{Limits, Writer},
};

/// A site being served.
pub(super) struct Served {
    pub(super) at: SocketAddr,
    pub(super) trigger: Trigger,
    pub(super) task: JoinHandle<()>,
}

pub(super) async fn served(site: impl Site, limit: usize) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let at = listener.local_addr().expect("bound");
    let (trigger, shutdown) = shutdown::channel();
    let task = tokio::spawn(serve(listener, Arc::new(site), limit, shutdown));
    Served { at, trigger, task }
}

/// An answer, taken apart.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    /// In lower case, one per line.
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Reply {
    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    pub(super) fn has(&self, header: &str) -> bool {
        self.head.lines().any(|line| line == header)
    }
}

impl Served {
    /// Sends a request with these lines of a header, and reads until the connection is closed.
    pub(super) async fn ask(&self, request: &str, headers: &[&str]) -> Reply {
        let mut stream = TcpStream::connect(self.at).await.expect("connected");
        stream.write_all(head(request, self.at, headers).as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("answered");
        reply(&answer)
    }

    pub(super) async fn get(&self, path: &str) -> Reply {
        self.ask(&format!("GET {path}"), &[]).await
    }
}

/// A request that closes the connection; a `host:` line of the caller's own goes instead of the usual one.
fn head(request: &str, at: SocketAddr, headers: &[&str]) -> String {
    let mut head = format!("{request} HTTP/1.1\r\nconnection: close\r\n");
    if !headers.iter().any(|line| line.starts_with("host:")) {
        head += &format!("host: {at}\r\n");
    }
    for line in headers {
        head += &format!("{line}\r\n");
    }
    head + "\r\n"
}

fn reply(answer: &[u8]) -> Reply {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("the end of the head");
    let head = String::from_utf8(answer[..end].to_vec()).expect("ASCII").to_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Reply { status, head: head.replace("\r\n", "\n"), body: answer[end + 4..].to_vec() }
}

pub(super) fn own() -> Own {
    Own::new(Registry::new()).expect("an empty registry")
}

/// A scraper of the load averages of `host`.
pub(super) fn scraper(host: Host) -> Scraper {
    Scraper::new(&["loadavg"], Settings::new(), host, own(), false).expect("built")
}

/// A store in `dir`; its writer has to be kept.
pub(super) fn store(dir: &std::path::Path) -> (Writer, LocalStore) {
    // However full the disk of the tests is.
    let limits = Limits { min_free: 0.0, ..Limits::default() };
    let (writer, _) = Writer::open(dir, limits, std::time::SystemTime::now()).expect("opened");
    let reader = writer.reader();
    (writer, LocalStore { reader, max_bytes: 1 << 30 })
}

/// A state without anything in it; the files are asked of the given handle.
pub(super) fn state(files: mail::Sender, store: Option<LocalStore>) -> AdminState {
    let sink = Sink {
        kind: SinkKind::Elasticsearch,
        target: "http://127.0.0.1:9200".into(),
        state: SinkState::Holding,
        reason: Some("connection refused".into()),
    };
    AdminState {
        node: "n1".into(),
        facts: Arc::new(Facts { os: "Debian GNU/Linux 12".into(), cpus: 2, ..Facts::default() }.into()),
        own: own(),
        history: History::default(),
        started: std::time::Instant::now(),
        config: "state_dir: /var/lib/nodewarden\n".into(),
        sources: vec!["/var/log/pods".into()],
        sink: Box::new(move || sink.clone()),
        files,
        store,
        dead_letters: None,
    }
}

/// A handle that nobody answers.
pub(super) fn no_files() -> mail::Sender {
    mail::mailbox().expect("an eventfd").0
}
