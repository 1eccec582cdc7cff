//! A bulk server of the tests' own: real connections, `create` with its conflicts, every stored line counted, and each way to
//! fail at the turn of a switch.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Write as _,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream},
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use flate2::read::GzDecoder;
use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket, sockopt};
use serde::Deserialize;
use xxhash_rust::xxh3::xxh3_64;

use super::{Chance, same, seconds, wait_until};

/// A document whose message holds this word is refused with 400.
pub const POISON: &str = "poison";

/// How a request fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// 429 for the whole request, nothing stored.
    Busy,
    /// 429 for about half of the documents, the others are stored.
    BusyDocuments,
    /// 503 for the whole request, as a proxy says it.
    Unavailable,
    /// The connection is cut in the middle of the request.
    ResetWithin,
    /// Every document is stored, and the connection cut.
    ResetAfterStoring,
    /// Every document is stored; the answer comes when all is well again.
    Stall,
    /// Nobody listens, and who is connected is cut off.
    Refuse,
    /// Every document is stored; the answer breaks off.
    CutAnswer,
    /// Every document is stored; the answer is whole for HTTP, and half of its JSON.
    CutJson,
    /// 413 for what is larger than this when unpacked; the connection is closed.
    TooLarge(usize),
    /// The same for what is larger than this as it is sent, said before it was read.
    TooLargeUnread(usize),
    /// 401 for the whole request.
    Unauthorized,
    /// 403 for the whole request.
    Forbidden,
}

/// The server; it ends with the value.
pub struct BulkServer {
    port: u16,
    shared: Arc<Shared>,
    /// Bound and never listening: nobody else gets the port while connections are refused.
    _port: OwnedFd,
}

/// What the server stored.
#[derive(Debug, PartialEq, Eq)]
pub struct Tally {
    pub lines: u64,
    pub distinct_lines: u64,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    ended: AtomicBool,
    refusing: AtomicBool,
    listening: AtomicBool,
}

#[derive(Default)]
struct State {
    documents: u64,
    conflicts: u64,
    /// Hashes of index and `_id`: there may be tens of millions.
    ids: HashSet<u64>,
    /// Lines of their messages: a document may be an event of several.
    lines: u64,
    /// Hashes of these lines, with how often each was stored.
    messages: HashMap<u64, u32>,
    /// Whole documents by message, when somebody wants them.
    kept: Option<HashMap<String, serde_json::Value>>,
    /// Hashes of whole messages.
    events: HashSet<u64>,
    bytes: u64,
    arrivals: Vec<Instant>,
    faults: Vec<Fault>,
    percent: u64,
    /// Counts the changes of the faults: who stalls waits for the next.
    turn: u64,
    chance: Option<Chance>,
    hits: BTreeMap<Fault, u64>,
    /// A part of the names of indices whose documents are refused with 403.
    closed: Option<String>,
    connections: HashMap<u64, TcpStream>,
    next_connection: u64,
}

impl BulkServer {
    /// A server that is well; `seed` makes its choices.
    pub fn start(seed: u64) -> Self {
        let held = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        sockopt::set_socket_reuseaddr(&held, true).expect("an address to be used twice");
        bind(&held, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = SocketAddrV4::try_from(getsockname(&held).expect("its address")).expect("of IPv4");
        let state = State { chance: Some(Chance::new(seed)), ..State::default() };
        let shared = Arc::new(Shared { state: Mutex::new(state), ..Shared::default() });
        let server = Self { port: address.port(), shared: Arc::clone(&shared), _port: held };
        thread::spawn(move || shared.listen(address));
        server.wait_for_listening(true);
        server
    }

    /// Its address for the agent's `elasticsearch.hosts`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on so many of a hundred requests fail in one of these ways.
    pub fn fail(&self, faults: &[Fault], percent: u64) {
        let mut state = self.shared.lock();
        state.faults = faults.iter().copied().filter(|fault| *fault != Fault::Refuse).collect();
        state.percent = percent;
        state.turn += 1;
        if faults.contains(&Fault::Refuse) {
            self.shared.refusing.store(true, Relaxed);
            state.cut_all();
            *state.hits.entry(Fault::Refuse).or_default() += 1;
            drop(state);
            self.wait_for_listening(false);
            // Who connected in between.
            self.shared.lock().cut_all();
        }
    }

    /// All is well again.
    pub fn heal(&self) {
        self.fail(&[], 0);
        if self.shared.refusing.swap(false, Relaxed) {
            self.wait_for_listening(true);
        }
    }

    /// Documents for indices with this in their name are refused with 403; `None` takes them again.
    pub fn close(&self, part_of_index: Option<&str>) {
        self.shared.lock().closed = part_of_index.map(str::to_owned);
    }

    /// How many requests failed in this way.
    pub fn hits(&self, fault: Fault) -> u64 {
        self.shared.lock().hits.get(&fault).copied().unwrap_or_default()
    }

    /// When each bulk request came.
    pub fn arrivals(&self) -> Vec<Instant> {
        self.shared.lock().arrivals.clone()
    }

    /// Documents stored.
    pub fn documents(&self) -> u64 {
        self.shared.lock().documents
    }

    /// Documents refused because they were stored before.
    pub fn repeats(&self) -> u64 {
        self.shared.lock().conflicts
    }

    /// Lines in the messages of the documents stored.
    pub fn lines(&self) -> u64 {
        self.shared.lock().lines
    }

    /// Whether a document with this line in its message is stored.
    pub fn has(&self, message: &str) -> bool {
        self.shared.lock().messages.contains_key(&xxh3_64(message.as_bytes()))
    }

    /// From now on whole documents are kept.
    pub fn keep_documents(&self) {
        self.shared.lock().kept.get_or_insert_default();
    }

    /// The document with this message, if it was stored and kept.
    pub fn document(&self, message: &str) -> Option<serde_json::Value> {
        self.shared.lock().kept.as_ref()?.get(message).cloned()
    }

    /// Whether a document with this message, all of it, is stored.
    pub fn has_event(&self, message: &str) -> bool {
        self.shared.lock().events.contains(&xxh3_64(message.as_bytes()))
    }

    /// What was stored.
    pub fn tally(&self) -> Tally {
        let state = self.shared.lock();
        Tally { lines: state.lines, distinct_lines: state.messages.len() as u64 }
    }

    /// Waits until as many lines are in documents as were written, all different, then looks for each of them: count =
    /// distinct = written.
    #[track_caller]
    pub fn assert_each_once(
        &self,
        count: u64,
        texts: impl Iterator<Item = String>,
        agent: impl Fn() -> String,
    ) {
        let written = Tally { lines: count, distinct_lines: count };
        let (mut tally, mut moved) = (self.tally(), Instant::now());
        // As long as there is progress: a backlog may be large.
        while tally != written && moved.elapsed() < seconds(90) {
            assert!(tally.lines <= count, "{}", self.odd(&tally, &written));
            thread::sleep(Duration::from_millis(20));
            let more = self.tally();
            if more != tally {
                (tally, moved) = (more, Instant::now());
            }
        }
        let missing = self.missing(texts);
        assert!(missing.is_empty(), "never stored: {missing:#?}; the agent says:\n{}", agent());
        assert_eq!(tally, written);
        let state = self.shared.lock();
        eprintln!(
            "{count} lines are there once each in {} documents; {} repeats were refused; {:?}",
            state.documents, state.conflicts, state.hits
        );
    }

    /// Runs of texts that are not stored: how many they are, and the beginning of the first.
    fn missing(&self, texts: impl Iterator<Item = String>) -> Vec<(u64, String)> {
        let (state, mut runs, mut is_run) = (self.shared.lock(), Vec::<(u64, String)>::new(), false);
        for text in texts {
            let is_stored = state.messages.contains_key(&xxh3_64(text.as_bytes()));
            match runs.last_mut() {
                Some((count, _)) if is_run && !is_stored => *count += 1,
                _ if !is_stored => runs.push((1, text.chars().take(80).collect())),
                _ => {}
            }
            is_run = !is_stored;
        }
        runs
    }

    fn odd(&self, tally: &Tally, written: &Tally) -> String {
        let state = self.shared.lock();
        let repeated = state.messages.values().filter(|count| **count > 1).count();
        format!("more than was written: {tally:?}, {repeated} messages repeat; written: {written:?}")
    }

    fn wait_for_listening(&self, listening: bool) {
        wait_until("the server listens, or does not", seconds(10), || {
            same(&self.shared.listening.load(Relaxed), &listening)
        });
    }
}

impl Drop for BulkServer {
    fn drop(&mut self) {
        self.shared.ended.store(true, Relaxed);
        let mut state = self.shared.lock();
        state.turn += 1;
        state.cut_all();
    }
}

impl State {
    fn cut_all(&mut self) {
        for (_, connection) in self.connections.drain() {
            end_with_reset(&connection);
            // It may have ended by itself.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    fn pick(&mut self) -> Option<Fault> {
        let (faults, chance) = (&self.faults, self.chance.as_mut()?);
        if faults.is_empty() || chance.below(100) >= self.percent {
            return None;
        }
        let fault = faults[chance.below(faults.len() as u64) as usize];
        Some(fault)
    }

    fn hit(&mut self, fault: Fault) {
        *self.hits.entry(fault).or_default() += 1;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(self: &Arc<Self>, address: SocketAddrV4) {
        let mut listener = None;
        while !self.ended.load(Relaxed) {
            if self.refusing.load(Relaxed) {
                listener = None;
            } else if listener.is_none() {
                let opened = TcpListener::bind(address).expect("the port is ours");
                opened.set_nonblocking(true).expect("no waiting");
                listener = Some(opened);
            }
            self.listening.store(listener.is_some(), Relaxed);
            match listener.as_ref().map(TcpListener::accept) {
                Some(Ok((stream, _))) => self.welcome(stream),
                _ => thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    fn welcome(self: &Arc<Self>, stream: TcpStream) {
        stream.set_nonblocking(false).expect("waiting");
        let mut state = self.lock();
        let number = state.next_connection;
        state.next_connection += 1;
        state.connections.insert(number, stream.try_clone().expect("the connection once more"));
        drop(state);
        let shared = Arc::clone(self);
        thread::spawn(move || {
            // An agent that was killed leaves a broken connection behind: that is the end of this one, too.
            let _ = shared.converse(&stream);
            shared.lock().connections.remove(&number);
        });
    }

    /// One request after the other until either side ends it.
    fn converse(&self, stream: &TcpStream) -> io::Result<()> {
        let mut input = BufReader::with_capacity(64 * 1024, stream);
        let mut body = Vec::new();
        while let Some(head) = Head::read(&mut input)? {
            let fault = if head.is_bulk { self.lock().pick() } else { None };
            match fault {
                Some(fault @ Fault::ResetWithin) => {
                    self.lock().hit(fault);
                    io::copy(&mut (&mut input).take(head.length as u64 / 2), &mut io::sink())?;
                    end_with_reset(stream);
                    return Ok(());
                }
                Some(fault @ Fault::TooLargeUnread(limit)) if head.length > limit => {
                    self.lock().hit(fault);
                    answer(stream, 413, "", "connection: close\r\n")?;
                    // As a server does that is polite: what is on its way is not answered with a reset.
                    stream.shutdown(Shutdown::Write)?;
                    io::copy(&mut (&mut input).take(head.length as u64), &mut io::sink())?;
                    return Ok(());
                }
                _ => {}
            }
            body.resize(head.length, 0);
            input.read_exact(&mut body)?;
            let unpacked = if head.is_gzip { Cow::Owned(gunzip(&body)?) } else { Cow::Borrowed(&body[..]) };
            if !head.is_bulk {
                answer(stream, 200, "{}", "X-elastic-product: Elasticsearch\r\n")?;
            } else if !self.bulk(stream, &unpacked, fault)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Answers a bulk request. Whether the connection goes on.
    fn bulk(&self, stream: &TcpStream, body: &[u8], fault: Option<Fault>) -> io::Result<bool> {
        let fault = fault.filter(|fault| !matches!(fault, Fault::TooLarge(limit) if body.len() <= *limit));
        let fault = fault.filter(|fault| !matches!(fault, Fault::TooLargeUnread(_)));
        let turn = {
            let mut state = self.lock();
            state.arrivals.push(Instant::now());
            fault.into_iter().for_each(|fault| state.hit(fault));
            state.turn
        };
        let whole = |status, kind: &str| {
            let body = format!(
                r#"{{"error":{{"type":"{kind}","reason":"a fault of the test"}},"status":{status}}}"#
            );
            answer(stream, status, &body, "").map(|()| true)
        };
        match fault {
            Some(Fault::Busy) => return whole(429, "es_rejected_execution_exception"),
            Some(Fault::Unauthorized) => return whole(401, "security_exception"),
            Some(Fault::Forbidden) => return whole(403, "cluster_block_exception"),
            Some(Fault::Unavailable) => {
                return answer(stream, 503, "<html>no server is available</html>", "").map(|()| true);
            }
            Some(Fault::TooLarge(_)) => {
                return answer(stream, 413, "", "connection: close\r\n").map(|()| false);
            }
            _ => {}
        }
        let said = self.store(body, fault == Some(Fault::BusyDocuments))?;
        match fault {
            Some(Fault::ResetAfterStoring) => {
                end_with_reset(stream);
                Ok(false)
            }
            Some(Fault::Stall) => {
                while self.lock().turn == turn {
                    thread::sleep(Duration::from_millis(10));
                }
                answer(stream, 200, &said, "").map(|()| true)
            }
            Some(Fault::CutAnswer) => {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", said.len());
                let mut stream = stream;
                stream.write_all(head.as_bytes())?;
                stream.write_all(&said.as_bytes()[..said.len() / 2])?;
                Ok(false)
            }
            Some(Fault::CutJson) => answer(stream, 200, &said[..said.len() / 2], "").map(|()| true),
            _ => answer(stream, 200, &said, "").map(|()| true),
        }
    }

    /// Stores what may be stored; the answer that says so.
    fn store(&self, body: &[u8], half_busy: bool) -> io::Result<String> {
        let mut state = self.lock();
        let (mut errors, mut items) = (false, String::with_capacity(body.len() / 4));
        let mut lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        while let (Some(action), Some(source)) = (lines.next(), lines.next()) {
            let Action { create } = parse(action)?;
            let Source { message } = parse(source)?;
            let busy = half_busy && state.chance.as_mut().is_some_and(|chance| chance.below(2) == 0);
            let status = state.judge(&create, &message, busy);
            if let (201, Some(kept)) = (status, &mut state.kept) {
                kept.insert(message.to_string(), parse(source)?);
            }
            errors |= status != 201;
            let comma = if items.is_empty() { "" } else { "," };
            let kind = match status {
                400 => "document_parsing_exception",
                403 => "cluster_block_exception",
                409 => "version_conflict_engine_exception",
                _ => "es_rejected_execution_exception",
            };
            _ = match status {
                201 => write!(items, r#"{comma}{{"create":{{"status":201}}}}"#),
                _ => write!(
                    items,
                    r#"{comma}{{"create":{{"status":{status},"error":{{"type":"{kind}","reason":"a fault of the test"}}}}}}"#
                ),
            };
        }
        state.bytes += body.len() as u64;
        Ok(format!(r#"{{"errors":{errors},"items":[{items}]}}"#))
    }
}

impl State {
    /// Stores one document, or says why not.
    fn judge(&mut self, create: &Create<'_>, message: &str, busy: bool) -> u16 {
        if self.closed.as_ref().is_some_and(|part| create.index.contains(part.as_str())) {
            return 403;
        }
        if busy {
            return 429;
        }
        if message.contains(POISON) {
            return 400;
        }
        if let Some(id) = &create.id
            && !self.ids.insert(xxh3_64(format!("{}/{id}", create.index).as_bytes()))
        {
            self.conflicts += 1;
            return 409;
        }
        self.documents += 1;
        self.events.insert(xxh3_64(message.as_bytes()));
        for line in message.split('\n') {
            self.lines += 1;
            *self.messages.entry(xxh3_64(line.as_bytes())).or_default() += 1;
        }
        201
    }
}

#[derive(Deserialize)]
struct Action<'a> {
    #[serde(borrow)]
    create: Create<'a>,
}

#[derive(Deserialize)]
struct Create<'a> {
    #[serde(borrow, rename = "_index")]
    index: Cow<'a, str>,
    #[serde(borrow, rename = "_id")]
    id: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Source<'a> {
    #[serde(borrow)]
    message: Cow<'a, str>,
}

fn parse<'a, T: Deserialize<'a>>(line: &'a [u8]) -> io::Result<T> {
    serde_json::from_slice(line).map_err(|error| {
        eprintln!("the agent sent no bulk request: {error}: {}", String::from_utf8_lossy(line));
        io::Error::from(error)
    })
}

/// What is before the body of a request.
struct Head {
    is_bulk: bool,
    is_gzip: bool,
    length: usize,
}

impl Head {
    /// `None` when the other side ended the connection.
    fn read(input: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut first = String::new();
        if input.read_line(&mut first)? == 0 {
            return Ok(None);
        }
        let path = first.split(' ').nth(1).unwrap_or_default();
        let is_bulk =
            first.starts_with("POST ") && path.split('?').next().is_some_and(|p| p.ends_with("/_bulk"));
        let mut head = Self { is_bulk, is_gzip: false, length: 0 };
        loop {
            let mut line = String::new();
            input.read_line(&mut line)?;
            let Some((name, value)) = line.split_once(':') else { return Ok(Some(head)) };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => head.length = value.trim().parse().map_err(io::Error::other)?,
                "content-encoding" => head.is_gzip = value.trim() == "gzip",
                _ => {}
            }
        }
    }
}

fn gunzip(body: &[u8]) -> io::Result<Vec<u8>> {
    let mut unpacked = Vec::with_capacity(body.len() * 8);
    GzDecoder::new(body).read_to_end(&mut unpacked)?;
    Ok(unpacked)
}

fn answer(mut stream: &TcpStream, status: u16, body: &str, headers: &str) -> io::Result<()> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} said\r\ncontent-type: application/json\r\n{headers}content-length: {length}\r\n\r\n"
    );
    stream.write_all(&[head.as_bytes(), body.as_bytes()].concat())
}

/// Makes the end of a connection a reset, as of a machine that fell over.
fn end_with_reset(stream: &TcpStream) {
    // It may have ended by itself.
    let _ = sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}

/// Waits until a number of documents more than `least` is stored.
#[track_caller]
pub fn wait_for_documents(server: &BulkServer, least: u64, agent: impl Fn() -> String) {
    let start = Instant::now();
    wait_until("documents arrive", seconds(60), || match server.documents() {
        count if count >= least => Ok(()),
        count => Err(format!("{count} of {least} after {:?}; the agent says:\n{}", start.elapsed(), agent())),
    });
}
