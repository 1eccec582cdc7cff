//! A blocking HTTP/1.1 client: one request per connection.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::Duration,
};

/// What a server answered.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Header names in lower case with their values, in the server's order.
    pub headers: Vec<(String, String)>,
    /// The body, unpacked from chunks but not from gzip.
    pub body: Vec<u8>,
}

impl Response {
    /// The first value of a header; the name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; fails the test when it is something else.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("no JSON ({error}), status {}: {}", self.status, self.text()))
    }

    /// The JSON of a 2xx answer, else what came instead: for servers that may still be starting.
    pub fn good(&self) -> Result<serde_json::Value, String> {
        let seen = || format!("{} {}", self.status, self.text());
        match self.status {
            200..300 => serde_json::from_slice(&self.body).map_err(|_| seen()),
            _ => Err(seen()),
        }
    }
}

/// GET of `path` from `address` (`127.0.0.1:9100`).
pub fn get(address: &str, path: &str) -> io::Result<Response> {
    request("GET", address, path, &[], b"")
}

/// Any request. The connection is closed after it; a silent server is an error after 30 s.
pub fn request(
    method: &str,
    address: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Response> {
    let mut connection = connect(address)?;
    exchange(&mut connection, method, address, path, headers, body)
}

/// A connection on which a silent server is an error after 30 s.
pub fn connect(address: &str) -> io::Result<TcpStream> {
    let connection = TcpStream::connect(address)?;
    connection.set_read_timeout(Some(Duration::from_secs(30)))?;
    Ok(connection)
}

/// Any request on a connection of any kind, which is closed after it. A `host` among the headers goes instead of the address.
pub fn exchange(
    connection: &mut (impl Read + Write),
    method: &str,
    address: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Response> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "host") {
        head.push_str(&format!("host: {address}\r\n"));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    connection.write_all(head.as_bytes())?;
    connection.write_all(body)?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer)?;
    parse(&answer, method == "HEAD").ok_or_else(|| {
        let text = String::from_utf8_lossy(&answer);
        io::Error::new(io::ErrorKind::InvalidData, format!("not a whole HTTP answer: {text:.200}"))
    })
}

/// A query string's value with everything unusual escaped.
pub fn escape(value: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    value.bytes().map(|b| if plain(&b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

fn parse(answer: &[u8], head_only: bool) -> Option<Response> {
    let split = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..split]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers = lines
        .map(|line| line.split_once(':').map(|(name, value)| (name.to_lowercase(), value.trim().to_owned())))
        .collect::<Option<Vec<_>>>()?;
    let mut response = Response { status, headers, body: Vec::new() };
    if !head_only {
        response.body = body(&response, &answer[split + 4..])?;
    }
    Some(response)
}

/// The whole body, or `None` when the connection ended before it did.
fn body(response: &Response, rest: &[u8]) -> Option<Vec<u8>> {
    if response.header("transfer-encoding") == Some("chunked") {
        return unchunk(rest);
    }
    let length = response.header("content-length").and_then(|length| length.parse().ok());
    Some(rest.get(..length.unwrap_or(rest.len()))?.to_owned())
}

fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|window| window == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).ok()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(line + 2..line + 2 + size)?);
        rest = rest.get(line + 2 + size + 2..)?;
    }
}
