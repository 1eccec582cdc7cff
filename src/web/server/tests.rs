//! Connections over real sockets: how many, for how long, and how they end.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use hyper::StatusCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};

use super::{
    super::{
        answer,
        testing::{Served, served},
    },
    *,
};

/// Says that a request came in, then answers once it is let go.
struct Slow {
    came: mpsc::Sender<()>,
    go: Semaphore,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
}

impl Site for Arc<Slow> {
    async fn answer(&self, _: Request<Incoming>) -> Response<Body> {
        let at_once = self.at_once.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_at_once.fetch_max(at_once, Ordering::Relaxed);
        self.came.send(()).await.expect("the test listens");
        self.go.acquire().await.expect("open").forget();
        self.at_once.fetch_sub(1, Ordering::Relaxed);
        answer::text(StatusCode::OK, "done")
    }
}

async fn slow(limit: usize) -> (Arc<Slow>, mpsc::Receiver<()>, Served) {
    let (came, comes) = mpsc::channel(8);
    let (at_once, most_at_once) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let site = Arc::new(Slow { came, go: Semaphore::new(0), at_once, most_at_once });
    let served = served(Arc::clone(&site), limit).await;
    (site, comes, served)
}

async fn request(served: &Served) -> TcpStream {
    let mut stream = TcpStream::connect(served.at).await.expect("connected");
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
    stream
}

#[tokio::test]
async fn a_request_in_flight_is_finished_when_the_agent_stops() {
    let (site, mut comes, served) = slow(8).await;
    let mut idle = TcpStream::connect(served.at).await.expect("connected");
    let mut stream = request(&served).await;
    comes.recv().await.expect("a request");
    served.trigger.fire();
    assert_eq!(
        idle.read(&mut [0]).await.expect("closed"),
        0,
        "a connection without a request is closed at once"
    );
    site.go.add_permits(1);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered, then closed");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("done"));
    served.task.await.expect("ended");
    TcpStream::connect(served.at).await.expect_err("nobody listens any more");
}

#[tokio::test]
async fn a_request_that_never_ends_does_not_hold_the_agent() {
    let (_site, mut comes, served) = slow(8).await;
    let _stream = request(&served).await;
    comes.recv().await.expect("a request");
    let asked = Instant::now();
    served.trigger.fire();
    served.task.await.expect("ended");
    assert!(asked.elapsed() < GRACE + Duration::from_secs(2));
}

#[tokio::test]
async fn more_connections_than_allowed_wait() {
    let (site, mut comes, served) = slow(2).await;
    let lets_go = async {
        for _ in 0..6 {
            comes.recv().await.expect("a request");
            // One more turn for every task, in which too many could come in.
            tokio::task::yield_now().await;
            site.go.add_permits(1);
        }
    };
    let ask = || async { assert_eq!(served.get("/").await.status, 200) };
    tokio::join!(lets_go, ask(), ask(), ask(), ask(), ask(), ask());
    assert_eq!(site.most_at_once.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_control_socket_is_for_its_owner_and_replaces_a_left_one() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("admin.sock");
    drop(bind_unix(&path).expect("bound"));
    let _listener = bind_unix(&path).expect("bound again");
    let mode = fs::metadata(&path).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    UnixStream::connect(&path).await.expect("connected");
    assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1);
}
