//! The sink that speaks the bulk API of Elasticsearch and OpenSearch.

use std::{
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request, StatusCode,
    client::conn::http1::{self, SendRequest},
    header,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use super::{
    backoff::Backoff,
    batch::Batch,
    dead_letters::{DeadLetter, DeadLetters},
    gzip::Packer,
    output::wall_clock,
    ship::{Sink, off_thread},
    status::SinkState,
    verdict::{Answer, FILTER_PATH, Verdict, judge},
    window::Window,
};
use crate::{metrics::own::BulkMetrics, store::StoreError};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// An answer with an error for each of the most documents that fit into a request.
const ANSWER_LIMIT: usize = 32 * 1024 * 1024;

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Name or address.
    pub name: String,
    /// Port.
    pub port: u16,
    /// What stands before `/_bulk`, without a slash at its end.
    pub path: String,
}

impl Host {
    /// Name and port as a `Host` header has them; an IPv6 address stands in brackets.
    fn authority(&self) -> String {
        match self.name.contains(':') {
            true => format!("[{}]:{}", self.name, self.port),
            false => format!("{}:{}", self.name, self.port),
        }
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "http://{}{}", self.authority(), self.path)
    }
}

/// How to speak to the servers.
#[derive(Debug, Clone)]
pub struct Options {
    /// The servers; at least one.
    pub hosts: Vec<Host>,
    /// The value of the `Authorization` header.
    pub authorization: Option<String>,
    /// gzip level, 0 for none.
    pub compression: u32,
    /// The most requests at once.
    pub in_flight: usize,
    /// A request that is not answered by then is sent again: its documents are then conflicts on their own ids.
    pub answer_timeout: Duration,
}

/// The sink.
pub struct Elastic {
    options: Options,
    /// The server in use: an index into the hosts, moved on when one fails.
    current: AtomicUsize,
    idle: Mutex<Vec<(usize, SendRequest<Full<Bytes>>)>>,
    /// Those that pack no body now; no more are made than requests may be on their way.
    packers: Mutex<Vec<Packer>>,
    window: Window,
    state: Arc<SinkState>,
    dead_letters: DeadLetters,
    bulk: BulkMetrics,
}

impl Elastic {
    /// A sink that connects when it has something to deliver.
    pub fn new(
        options: Options,
        state: Arc<SinkState>,
        dead_letters: DeadLetters,
        bulk: BulkMetrics,
    ) -> Self {
        Self {
            window: Window::new(options.in_flight),
            options,
            current: AtomicUsize::new(0),
            idle: Mutex::new(Vec::new()),
            packers: Mutex::new(Vec::new()),
            state,
            dead_letters,
            bulk,
        }
    }
}

impl Sink for Elastic {
    fn deliver(self: Arc<Self>, batch: Batch) -> impl Future<Output = Batch> + Send {
        let backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT, seed());
        let (dead, held) = (Vec::new(), Vec::new());
        let delivery = Delivery { sink: self, number: batch.number, backoff, dead, held };
        delivery.run(batch)
    }

    /// Any number: the window is for requests, and batches that are held make none.
    fn at_once(&self) -> usize {
        usize::MAX
    }
}

/// One batch until the last of its documents is settled.
struct Delivery {
    sink: Arc<Elastic>,
    /// The batch's number.
    number: u64,
    backoff: Backoff,
    /// Items that were refused for good, and why.
    dead: Vec<(usize, String)>,
    /// Items that the server does not take although nothing is wrong with them, and why.
    held: Vec<(usize, String)>,
}

impl Delivery {
    async fn run(mut self, mut batch: Batch) -> Batch {
        // Groups of items still to be sent, each in one request; a group is split when the server refuses it whole.
        let mut groups = vec![(0..batch.len()).collect::<Vec<_>>()];
        while let Some(group) = groups.pop() {
            let answer;
            (batch, answer) = self.ask(batch, &group).await;
            match answer {
                Answer::AllDone => {
                    self.sink.bulk.items.with_label_values(&["200"]).inc_by(group.len() as u64);
                    self.delivered();
                }
                Answer::Items(verdicts) => {
                    let rest = self.settle(&group, verdicts).await;
                    if !rest.is_empty() {
                        groups.push(rest);
                    }
                }
                Answer::Retry(reason) => {
                    self.sink.window.busy();
                    self.wait(&reason).await;
                    groups.push(group);
                }
                // It speaks of no document: whatever else were sent would have the same answer.
                Answer::Hold(reason) => {
                    self.wait(&reason).await;
                    groups.push(group);
                }
                Answer::Split(reason) => match &group[..] {
                    [item] => self.dead.push((*item, reason)),
                    _ => {
                        let (left, right) = group.split_at(group.len() / 2);
                        groups.extend([right.to_vec(), left.to_vec()]);
                    }
                },
            }
        }
        self.set_aside(&mut batch);
        self.bury(&mut batch).await;
        if self.sink.state.ok(self.number) {
            tracing::info!("delivering again");
        }
        batch
    }

    /// Sends these items in one request, when there may be one more.
    async fn ask(&self, mut batch: Batch, group: &[usize]) -> (Batch, Answer) {
        let _pass = self.sink.window.enter().await;
        if self.sink.options.compression > 0 {
            return self.ask_packed(batch, group).await;
        }
        if group.len() < batch.len() {
            let body = pieces(&batch, group).collect::<Vec<_>>().concat();
            return (batch, self.sink.send(body.into(), group.len()).await);
        }
        let lent = Lent(Arc::new(std::mem::take(&mut batch.body)));
        let answer = self.sink.send(Bytes::from_owner(lent.clone()), group.len()).await;
        batch.body = lent.take_back();
        (batch, answer)
    }

    async fn ask_packed(&self, batch: Batch, group: &[usize]) -> (Batch, Answer) {
        let (mut packer, items) = (self.sink.idle_packer(), group.to_vec());
        let (batch, mut packer, packed) = off_thread(move || {
            let packed = packer.pack(pieces(&batch, &items));
            (batch, packer, packed)
        })
        .await;
        let answer = match packed {
            Ok(()) => {
                let lent = Lent(Arc::new(std::mem::take(&mut packer.packed)));
                let answer = self.sink.send(Bytes::from_owner(lent.clone()), group.len()).await;
                packer.packed = lent.take_back();
                answer
            }
            Err(error) => Answer::Retry(error.to_string()),
        };
        lock(&self.sink.packers).push(packer);
        (batch, answer)
    }

    /// Acts on each verdict; the items to send again.
    async fn settle(&mut self, group: &[usize], verdicts: Vec<(u16, Verdict)>) -> Vec<usize> {
        let (mut rest, mut reason) = (Vec::new(), None);
        let mut is_busy = false;
        for (&item, (status, verdict)) in group.iter().zip(verdicts) {
            self.sink.bulk.items.with_label_values(&[status.to_string().as_str()]).inc();
            match verdict {
                Verdict::Done => {}
                Verdict::Reject(why) => self.dead.push((item, why)),
                Verdict::Hold(why) => self.held.push((item, why)),
                Verdict::Retry(why) => {
                    is_busy |= matches!(status, 429 | 500..);
                    rest.push(item);
                    reason = Some(why);
                }
            }
        }
        match reason {
            None => self.delivered(),
            Some(reason) => {
                if is_busy {
                    self.sink.window.busy();
                }
                self.wait(&reason).await;
            }
        }
        rest
    }

    fn delivered(&mut self) {
        self.sink.window.good();
        self.backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT, seed());
        if self.sink.state.ok(self.number) {
            tracing::info!("delivering again");
        }
    }

    /// Says why nothing is delivered, and waits.
    async fn wait(&mut self, reason: &str) {
        if self.sink.state.hold(self.number, reason, Instant::now()) {
            tracing::warn!(reason, "log lines wait in their files: the server does not take them");
        }
        tokio::time::sleep(self.backoff.next_wait()).await;
    }

    /// Marks what is held: its files are read again later, so the batch need not wait.
    fn set_aside(&self, batch: &mut Batch) {
        let (state, now) = (&self.sink.state, Instant::now());
        for (item, reason) in &self.held {
            let file = batch.file_of(*item);
            if !std::mem::replace(&mut batch.files[file].held, true)
                && state.set_aside(batch.files[file].key, reason, now)
            {
                tracing::warn!(reason, "log lines wait in their files: the server does not take them");
            }
        }
        for file in batch.files.iter().filter(|file| !file.held) {
            if state.took(file.key) {
                tracing::info!("delivering again");
            }
        }
    }

    /// Keeps refused documents where people find them. Until that has worked they are not settled. Those of a file that is
    /// held come again.
    async fn bury(&mut self, batch: &mut Batch) {
        let mut dead = std::mem::take(&mut self.dead);
        dead.retain(|(item, _)| !batch.files[batch.file_of(*item)].held);
        if dead.is_empty() {
            return;
        }
        let letters: Arc<[DeadLetter]> =
            dead.iter().map(|(item, reason)| DeadLetter::new(batch, *item, reason)).collect();
        let mut next = 0;
        while let Err((reached, error)) = self.keep(Arc::clone(&letters), next).await {
            next = reached;
            self.wait(&format!("could not keep a refused document: {error}")).await;
        }
        for (item, reason) in &dead {
            let kind = reason.split([' ', ':']).nth(1).unwrap_or("refused");
            batch.bury(*item, kind);
        }
        tracing::warn!(
            documents = dead.len(),
            reason = dead[0].1,
            "documents were refused and kept as dead letters"
        );
    }

    async fn keep(&self, letters: Arc<[DeadLetter]>, next: usize) -> Result<(), (usize, StoreError)> {
        let dead_letters = self.sink.dead_letters.clone();
        off_thread(move || dead_letters.keep(&letters, next, wall_clock())).await
    }
}

impl Elastic {
    /// Sends one request and judges what comes back, whatever that is.
    async fn send(&self, body: Bytes, documents: usize) -> Answer {
        let started = Instant::now();
        let turn = self.current.load(Relaxed);
        let at = turn % self.options.hosts.len();
        let patience = self.options.answer_timeout;
        let answer = match timeout(patience, self.exchange(at, body)).await {
            Ok(Ok((status, body))) => judge(status.as_u16(), &body, documents),
            Ok(Err(error)) => Answer::Retry(format!("{}: {error}", self.options.hosts[at])),
            Err(_) => Answer::Retry(format!("{}: no answer within {patience:?}", self.options.hosts[at])),
        };
        if let Answer::Retry(_) = answer {
            // The next one is used from now on, unless another request that failed here has seen to that.
            let _ = self.current.compare_exchange(turn, turn.wrapping_add(1), Relaxed, Relaxed);
        }
        self.bulk.duration.observe(started.elapsed().as_secs_f64());
        self.bulk.requests.with_label_values(&[outcome(&answer)]).inc();
        answer
    }

    async fn exchange(
        &self,
        at: usize,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
        let host = &self.options.hosts[at];
        let mut connection = match self.idle_connection(at).await {
            Some(connection) => connection,
            None => connect(host).await?,
        };
        let response = connection.send_request(self.request(host, body)?).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await?.to_bytes();
        lock(&self.idle).push((at, connection));
        Ok((status, body))
    }

    fn request(&self, host: &Host, body: Bytes) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let mut request = Request::post(format!("{}/_bulk?filter_path={FILTER_PATH}", host.path))
            .header(header::HOST, host.authority())
            .header(header::USER_AGENT, concat!("nodewarden/", env!("CARGO_PKG_VERSION")))
            .header(header::CONTENT_TYPE, "application/x-ndjson");
        if self.options.compression > 0 {
            request = request.header(header::CONTENT_ENCODING, "gzip");
        }
        if let Some(authorization) = &self.options.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        request.body(Full::new(body))
    }

    async fn idle_connection(&self, host: usize) -> Option<SendRequest<Full<Bytes>>> {
        loop {
            let (at, mut connection) = lock(&self.idle).pop()?;
            // A server may have closed it meanwhile, or another one is in use by now.
            if at == host && connection.ready().await.is_ok() {
                return Some(connection);
            }
        }
    }

    fn idle_packer(&self) -> Packer {
        lock(&self.packers).pop().unwrap_or_else(|| Packer::new(self.options.compression))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn connect(host: &Host) -> Result<SendRequest<Full<Bytes>>, Box<dyn std::error::Error + Send + Sync>> {
    let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect((host.name.as_str(), host.port)))
        .await
        .map_err(|_| format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()))??;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection ended");
        }
    });
    Ok(sender)
}

/// Bytes that a request carries while it is on its way; its buffer is used again.
#[derive(Clone)]
struct Lent(Arc<Vec<u8>>);

impl Lent {
    /// A connection that was answered before it had sent everything may still hold the bytes: then they are copied.
    fn take_back(self) -> Vec<u8> {
        Arc::try_unwrap(self.0).unwrap_or_else(|shared| shared.to_vec())
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn pieces<'a>(batch: &'a Batch, group: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    // Items lie side by side: runs of them are one piece.
    group.chunk_by(|left, right| left + 1 == *right).filter_map(|run| {
        let (first, last) = (run.first()?, run.last()?);
        Some(&batch.body[batch.range(*first).start..batch.range(*last).end])
    })
}

fn outcome(answer: &Answer) -> &'static str {
    match answer {
        Answer::AllDone => "ok",
        Answer::Items(_) => "partial",
        Answer::Retry(_) => "retry",
        Answer::Hold(_) => "hold",
        Answer::Split(_) => "refused",
    }
}

/// Chance for the waits; without any, agents only spread less well.
fn seed() -> u64 {
    let mut bytes = [0; 8];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(_) => u64::from_ne_bytes(bytes),
        Err(_) => u64::from(std::process::id()),
    }
}

#[cfg(test)]
mod tests;
