//! The processes that supervisord runs.

use std::{
    borrow::Cow,
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::{BuildError, CollectError, Collector, Desc, Entry, Flag, Host, Options, Samples};

const URL: &str = "supervisord.url";

/// This collector in the list.
pub const ENTRY: Entry = Entry {
    name: "supervisord",
    default_on: false,
    flags: &[Flag::text(URL, "http://localhost:9001/RPC2", "XML RPC endpoint. ($SUPERVISORD_URL)")],
    build,
};

static UP: Desc = Desc::gauge("node_supervisord_up", "Process Up", LABELS);
static STATE: Desc = Desc::gauge("node_supervisord_state", "Process State", LABELS);
static EXIT_STATUS: Desc = Desc::gauge("node_supervisord_exit_status", "Process Exit Status", LABELS);
static START_TIME: Desc = Desc::counter("node_supervisord_start_time_seconds", "Process start time", LABELS);

const LABELS: &[&str] = &["group", "name"];

/// Starting, running and stopping.
const UP_STATES: [i64; 3] = [10, 20, 40];

/// How long the answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// An answer beyond this is not one of supervisord's.
const LONGEST: u64 = 16 << 20;

const CALL: &str = "<?xml version=\"1.0\"?><methodCall><methodName>supervisor.getAllProcessInfo</methodName>\
                    <params></params></methodCall>";

struct Supervisord {
    endpoint: Endpoint,
    request: String,
}

#[derive(Debug, PartialEq)]
enum Endpoint {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

/// A process as supervisord says it.
#[derive(Debug, Default, PartialEq)]
struct Process {
    name: String,
    group: String,
    start: i64,
    state: i64,
    exit_status: i64,
}

fn build(_: &Host, options: &Options) -> Result<Box<dyn Collector>, BuildError> {
    let environment = std::env::var("SUPERVISORD_URL").ok().filter(|url| !url.is_empty());
    let url = match environment {
        Some(url) if !options.is_set(URL) => url,
        _ => options.text(URL).to_owned(),
    };
    let (endpoint, request) = parse_url(&url).ok_or_else(|| BuildError::Value {
        flag: URL,
        what: format!("expected http://HOST:PORT/PATH or unix:///PATH, got {url:?}"),
    })?;
    tracing::warn!("the supervisord collector is deprecated, as node_exporter's is");
    Ok(Box::new(Supervisord { endpoint, request }))
}

/// Where to connect to and what to ask there.
fn parse_url(url: &str) -> Option<(Endpoint, String)> {
    let (scheme, rest) = url.split_once("://")?;
    if scheme == "unix" {
        let path = rest.strip_prefix('/').map(|path| PathBuf::from(format!("/{path}")))?;
        return Some((Endpoint::Unix(path), request("unix", "/RPC2", None)));
    }
    if scheme != "http" {
        return None;
    }
    let (authority, path) = match rest.split_once('/') {
        Some((authority, path)) => (authority, format!("/{path}")),
        None => (rest, "/".to_owned()),
    };
    let (user, authority) = match authority.rsplit_once('@') {
        Some((user, authority)) => (Some(user), authority),
        None => (None, authority),
    };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (authority, 80),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let is_odd =
        |text: &str| text.is_empty() || text.contains(|letter: char| letter.is_control() || letter == ' ');
    if is_odd(host) || is_odd(&path) {
        return None;
    }
    let endpoint = Endpoint::Tcp { host: host.to_owned(), port };
    Some((endpoint, request(authority, &path, user)))
}

/// HTTP 1.0, so that the end of the connection is the end of the answer.
fn request(host: &str, path: &str, user: Option<&str>) -> String {
    let authorization = match user {
        Some(user) => format!("Authorization: Basic {}\r\n", base64(&unescape(user))),
        None => String::new(),
    };
    format!(
        "POST {path} HTTP/1.0\r\nHost: {host}\r\nContent-Type: text/xml\r\n{authorization}Content-Length: {}\r\n\r\n{CALL}",
        CALL.len()
    )
}

/// "%40" in the user's name or password is an "@".
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let escaped = behind
            .get(..2)
            .filter(|_| byte == b'%')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { behind.get(2..).unwrap_or_default() } else { behind };
    }
    bytes
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: [u8; 64] = *b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    let mut text = String::new();
    for three in bytes.chunks(3) {
        let number =
            [16, 8, 0].iter().zip(three).fold(0_u32, |sum, (shift, byte)| sum | u32::from(*byte) << shift);
        for (at, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            let digit = DIGITS[(number >> shift & 63) as usize];
            text.push(if at <= three.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

impl Collector for Supervisord {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let failed = |source| CollectError::asking("could not ask supervisord", source);
        let answer = self.ask().map_err(failed)?;
        let odd = |what| failed(io::Error::new(io::ErrorKind::InvalidData, what));
        for process in parse(body(&answer).map_err(odd)?).map_err(odd)? {
            let labels = [process.group.as_str(), process.name.as_str()];
            let is_up = UP_STATES.contains(&process.state);
            out.push(&STATE, &labels, process.state as f64);
            out.push(&EXIT_STATUS, &labels, process.exit_status as f64);
            out.push(&UP, &labels, f64::from(u8::from(is_up)));
            if is_up {
                out.push(&START_TIME, &labels, process.start as f64);
            }
        }
        Ok(())
    }
}

impl Supervisord {
    fn ask(&self) -> io::Result<String> {
        let deadline = Instant::now() + PATIENCE;
        match &self.endpoint {
            Endpoint::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_write_timeout(Some(PATIENCE))?;
                talk(&stream, &self.request, deadline, |left| stream.set_read_timeout(Some(left)))
            }
            Endpoint::Tcp { host, port } => {
                let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
                for address in (host.as_str(), *port).to_socket_addrs()? {
                    match TcpStream::connect_timeout(&address, left(deadline)?) {
                        Ok(stream) => {
                            stream.set_write_timeout(Some(PATIENCE))?;
                            return talk(&stream, &self.request, deadline, |left| {
                                stream.set_read_timeout(Some(left))
                            });
                        }
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
        }
    }
}

/// Sends the request and reads the answer to its end, before the deadline.
fn talk<S>(
    stream: S,
    request: &str,
    deadline: Instant,
    set_patience: impl Fn(Duration) -> io::Result<()>,
) -> io::Result<String>
where
    S: Read + Write,
{
    let mut stream = stream;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut bytes = [0; 8192];
    loop {
        set_patience(left(deadline)?)?;
        match stream.read(&mut bytes) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(bytes.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if answer.len() as u64 > LONGEST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer has no end"));
        }
    }
    String::from_utf8(answer).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// What is behind the head of an HTTP answer that says that all went well.
fn body(answer: &str) -> Result<&str, String> {
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("the answer is cut")?;
    let status = head.lines().next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
    if !status.starts_with('2') {
        return Err(format!("the server answered {status:?}"));
    }
    Ok(body)
}

/// The processes in `<methodResponse><params><param><value><array><data>`, each a structure:
/// `<value><struct><member><name>state</name><value><int>20</int></value></member>...</struct></value>`.
fn parse(text: &str) -> Result<Vec<Process>, String> {
    let mut processes = Vec::new();
    let mut process = Process::default();
    let (mut open, mut name, mut value) = (Vec::new(), String::new(), String::new());
    let mut content = String::new();
    let mut is_complete = false;
    for token in tokens(text) {
        match token? {
            Token::Open(tag) => {
                match open.len() {
                    0 if tag != "methodResponse" || is_complete => return Err(format!("an odd {tag:?}")),
                    1 if tag != "params" => return Err(format!("the call failed: {tag:?}")),
                    _ => {}
                }
                open.push(tag);
                content.clear();
            }
            Token::Text(more) => content.push_str(&more),
            Token::Close(tag) => {
                if open.pop() != Some(tag) {
                    return Err(format!("{tag:?} ends where it did not begin"));
                }
                match tag {
                    "name" => name.clone_from(&content),
                    "string" | "int" | "i4" | "i8" => value.clone_from(&content),
                    "member" => set(&mut process, &name, &value)?,
                    "struct" => processes.push(std::mem::take(&mut process)),
                    "methodResponse" => is_complete = true,
                    _ => {}
                }
            }
        }
    }
    if is_complete { Ok(processes) } else { Err("the answer is cut".into()) }
}

fn set(process: &mut Process, name: &str, value: &str) -> Result<(), String> {
    let number = || value.trim().parse().map_err(|_| format!("{name} should be a number, got {value:?}"));
    match name {
        "name" => value.clone_into(&mut process.name),
        "group" => value.clone_into(&mut process.group),
        "start" => process.start = number()?,
        "state" => process.state = number()?,
        "exitstatus" => process.exit_status = number()?,
        _ => {}
    }
    Ok(())
}

/// A piece of XML, as much of it as XML-RPC uses.
#[derive(Debug, PartialEq)]
enum Token<'a> {
    Open(&'a str),
    Close(&'a str),
    Text(Cow<'a, str>),
}

/// The tags and texts one after the other; an empty element is a tag that opens and closes.
fn tokens(text: &str) -> impl Iterator<Item = Result<Token<'_>, String>> {
    let mut rest = text;
    let mut empty = None;
    std::iter::from_fn(move || {
        loop {
            if let Some(tag) = empty.take() {
                return Some(Ok(Token::Close(tag)));
            }
            if rest.is_empty() {
                return None;
            }
            let Some(behind) = rest.strip_prefix('<') else {
                let (content, behind) = rest.split_at(rest.find('<').unwrap_or(rest.len()));
                rest = behind;
                return Some(resolve(content).map(Token::Text));
            };
            // What is no tag: comments, literal text, the declaration.
            let (begin, end) = match behind {
                _ if behind.starts_with("!--") => ("!--", "-->"),
                _ if behind.starts_with("![CDATA[") => ("![CDATA[", "]]>"),
                _ if behind.starts_with('?') => ("?", "?>"),
                _ => ("", ">"),
            };
            let Some((inside, behind)) = behind.get(begin.len()..).and_then(|behind| behind.split_once(end))
            else {
                rest = "";
                return Some(Err("a tag has no end".into()));
            };
            rest = behind;
            match begin {
                "" => {}
                "![CDATA[" => return Some(Ok(Token::Text(inside.into()))),
                _ => continue,
            }
            if let Some(tag) = inside.strip_prefix('/') {
                return Some(Ok(Token::Close(tag.trim_end())));
            }
            let tag = inside.strip_suffix('/');
            let is_empty = tag.is_some();
            let tag = tag.unwrap_or(inside).split_ascii_whitespace().next().unwrap_or_default();
            empty = is_empty.then_some(tag);
            return Some(Ok(Token::Open(tag)));
        }
    })
}

/// The text with its entities replaced.
fn resolve(text: &str) -> Result<Cow<'_, str>, String> {
    if !text.contains('&') {
        return Ok(text.into());
    }
    let mut resolved = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('&') {
        resolved.push_str(before);
        let (entity, behind) = behind.split_once(';').ok_or("an entity has no end")?;
        let letter = match entity {
            "lt" => Some('<'),
            "gt" => Some('>'),
            "amp" => Some('&'),
            "quot" => Some('"'),
            "apos" => Some('\''),
            entity => entity.strip_prefix('#').and_then(|number| {
                let number = match number.strip_prefix('x') {
                    Some(number) => u32::from_str_radix(number, 16),
                    None => number.parse(),
                };
                char::from_u32(number.ok()?)
            }),
        };
        resolved.push(letter.ok_or_else(|| format!("there is no entity {entity:?}"))?);
        rest = behind;
    }
    resolved.push_str(rest);
    Ok(resolved.into())
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, os::unix::net::UnixListener};

    use proptest::prelude::*;

    use super::*;
    use crate::collector::Settings;

    const ANSWER: &str = "<?xml version='1.0'?>\n<methodResponse>\n<params>\n<param>\n<value><array><data>\n\
        <value><struct>\n<member>\n<name>name</name>\n<value><string>web &amp; api</string></value>\n</member>\n\
        <member><name>group</name><value><string>front</string></value></member>\
        <member><name>start</name><value><int>1790000000</int></value></member>\
        <member><name>state</name><value><int>20</int></value></member>\
        <member><name>spawnerr</name><value><string/></value></member>\
        <member><name>exitstatus</name><value><int>0</int></value></member>\n</struct></value>\n\
        <value><struct><member><name>name</name><value><string>job</string></value></member>\
        <member><name>group</name><value><string>job</string></value></member>\
        <member><name>start</name><value><int>1780000000</int></value></member>\
        <member><name>state</name><value><int>100</int></value></member>\
        <member><name>exitstatus</name><value><int>2</int></value></member></struct></value>\n\
        </data></array></value>\n</param>\n</params>\n</methodResponse>\n";

    fn processes() -> Vec<Process> {
        vec![
            Process {
                name: "web & api".into(),
                group: "front".into(),
                start: 1_790_000_000,
                state: 20,
                exit_status: 0,
            },
            Process {
                name: "job".into(),
                group: "job".into(),
                start: 1_780_000_000,
                state: 100,
                exit_status: 2,
            },
        ]
    }

    fn said(url: &str) -> Vec<String> {
        let settings = Settings::from([(URL.to_owned(), vec![url.to_owned()])]);
        let mut collector =
            build(&Host::default(), &Options::new(&ENTRY, &settings)).expect("valid settings");
        let mut out = Samples::new();
        collector.collect(&Host::default(), &mut out).expect("answered");
        let line = |(name, labels, value): (&str, crate::samples::LabelValues, f64)| {
            let labels: Vec<&str> = labels.collect();
            format!("{} {} {value}", name.trim_start_matches("node_supervisord_"), labels.join(","))
        };
        out.iter().map(line).collect()
    }

    /// Reads a request to its end and answers it.
    fn serve(mut stream: impl Read + Write) {
        let mut request = Vec::new();
        let mut bytes = [0; 512];
        while !request.ends_with(b"</methodCall>") {
            let count = stream.read(&mut bytes).expect("read");
            request.extend_from_slice(&bytes[..count]);
        }
        write!(stream, "HTTP/1.0 200 OK\r\nContent-Type: text/xml\r\n\r\n{ANSWER}").expect("written");
    }

    const SAID: [&str; 7] = [
        "state front,web & api 20",
        "exit_status front,web & api 0",
        "up front,web & api 1",
        "start_time_seconds front,web & api 1790000000",
        "state job,job 100",
        "exit_status job,job 2",
        "up job,job 0",
    ];

    #[test]
    fn processes_are_asked_for_over_tcp() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let url = format!("http://{}/RPC2", listener.local_addr().expect("bound"));
        std::thread::spawn(move || serve(listener.accept().expect("connected").0));
        assert_eq!(said(&url), SAID);
    }

    #[test]
    fn processes_are_asked_for_over_a_unix_socket() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("supervisor.sock");
        let listener = UnixListener::bind(&path).expect("bound");
        std::thread::spawn(move || serve(listener.accept().expect("connected").0));
        assert_eq!(said(&format!("unix://{}", path.display())), SAID);
    }

    #[test]
    fn answers_are_read_whole_or_not_at_all() {
        assert_eq!(parse(ANSWER), Ok(processes()));
        let end = ANSWER.trim_end().len();
        for length in (0..end).filter(|length| ANSWER.is_char_boundary(*length)) {
            assert!(parse(&ANSWER[..length]).is_err(), "{length}");
        }
        assert!(parse(&ANSWER.replace(">20<", ">x<")).is_err());
        assert!(parse("<methodResponse><fault></fault></methodResponse>").is_err());
        assert!(parse("<html></html>").is_err());
        let none = "<methodResponse><params><param><value><array><data/></array></value></param></params></methodResponse>";
        assert_eq!(parse(none), Ok(Vec::new()));
    }

    #[test]
    fn only_good_answers_have_a_body() {
        assert_eq!(body("HTTP/1.1 200 OK\r\nA: b\r\n\r\n<x/>").as_deref(), Ok("<x/>"));
        assert!(body("HTTP/1.0 401 Unauthorized\r\n\r\n<x/>").is_err());
        assert!(body("HTTP/1.0 200 OK\r\n").is_err());
    }

    #[test]
    fn addresses_are_understood() {
        let tcp = |host: &str, port| Some(Endpoint::Tcp { host: host.into(), port });
        let endpoint = |url| parse_url(url).map(|(endpoint, _)| endpoint);
        assert_eq!(endpoint("http://localhost:9001/RPC2"), tcp("localhost", 9001));
        assert_eq!(endpoint("http://[::1]:9001/RPC2"), tcp("::1", 9001));
        assert_eq!(endpoint("http://[::1]"), tcp("::1", 80));
        assert_eq!(endpoint("unix:///run/s.sock"), Some(Endpoint::Unix("/run/s.sock".into())));
        for url in
            ["https://localhost/RPC2", "localhost:9001", "http://host:port/", "http:///", "http://a/ b"]
        {
            assert_eq!(endpoint(url), None, "{url}");
        }
        let (_, request) = parse_url("http://ada:love%40@host/RPC2").expect("understood");
        assert!(request.contains("Authorization: Basic YWRhOmxvdmVA\r\n"), "{request}");
        assert_eq!((base64(b"a").as_str(), base64(b"ab").as_str()), ("YQ==", "YWI="));
    }

    proptest! {
        #[test]
        fn odd_answers_harm_nobody(text in "[<>/&;#!?a-z \\[\\]-]{0,80}", at in 0..900_usize) {
            let _ = parse(&text);
            if ANSWER.is_char_boundary(at.min(ANSWER.len())) {
                let mut whole = ANSWER.to_owned();
                whole.insert_str(at.min(ANSWER.len()), &text);
                let _ = parse(&whole);
            }
        }
    }
}
