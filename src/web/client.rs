//! Asks a running agent over its control socket: for the sub-commands, which have no async runtime.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

/// A line of a header or before a chunk is at most this long.
const MAX_LINE: u64 = 16 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens: no agent runs with this state directory, or it belongs to another user.
    #[error("no running agent answers at {}: {source}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the agent's answer broke off: {0}")]
    Broken(#[from] io::Error),
    /// What came is not HTTP.
    #[error("the agent's answer could not be understood")]
    Odd,
    /// The agent says no.
    #[error("{0}")]
    Refused(String),
}

/// The body of an answer, read as it comes.
#[derive(Debug)]
pub struct Answer {
    from: BufReader<UnixStream>,
    left: Left,
}

/// How much of the body is left.
#[derive(Debug, PartialEq)]
enum Left {
    /// So many bytes.
    Bytes(u64),
    /// So many bytes of this chunk, then maybe more chunks.
    Chunk(u64),
    /// Everything until the end.
    Unknown,
}

/// A path with its parameters, encoded: `/api/v1/logs?query=a%20b`.
pub fn address(path: &str, parameters: &[(&str, &str)]) -> String {
    let mut address = path.to_owned();
    for (at, (name, value)) in parameters.iter().enumerate() {
        address.push(if at == 0 { '?' } else { '&' });
        address.push_str(name);
        address.push('=');
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                    address.push(byte.into());
                }
                _ => address += &format!("%{byte:02X}"),
            }
        }
    }
    address
}

/// Asks for `path_and_query`, e.g. `/api/v1/status`. An answer other than 200 is an error with the agent's own sentence.
pub fn get(socket: &Path, path_and_query: &str) -> Result<Answer, ClientError> {
    ask(socket, "GET", path_and_query)
}

/// Has something done, e.g. `/api/v1/dead-letters/drop?all=true`; answers as [`get`].
pub fn post(socket: &Path, path_and_query: &str) -> Result<Answer, ClientError> {
    ask(socket, "POST", path_and_query)
}

fn ask(socket: &Path, method: &str, path_and_query: &str) -> Result<Answer, ClientError> {
    let connect = |source| ClientError::Connect { path: socket.to_owned(), source };
    let mut stream = UnixStream::connect(socket).map_err(connect)?;
    write!(
        stream,
        "{method} {path_and_query} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )?;
    let mut from = BufReader::new(stream);
    let status = read_line(&mut from)?;
    let status =
        status.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).ok_or(ClientError::Odd)?.to_owned();
    let left = read_headers(&mut from)?;
    let mut answer = Answer { from, left };
    if status == "200" {
        return Ok(answer);
    }
    let mut text = String::new();
    (&mut answer).take(MAX_LINE).read_to_string(&mut text)?;
    match text.trim() {
        "" => Err(ClientError::Refused(format!("the agent answered with status {status}"))),
        text => Err(ClientError::Refused(text.to_owned())),
    }
}

fn read_headers(from: &mut impl BufRead) -> Result<Left, ClientError> {
    let mut left = Left::Unknown;
    loop {
        let line = read_line(from)?;
        if line.is_empty() {
            return Ok(left);
        }
        let (name, value) = line.split_once(':').ok_or(ClientError::Odd)?;
        if name.eq_ignore_ascii_case("content-length") {
            left = Left::Bytes(value.trim().parse().map_err(|_| ClientError::Odd)?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            left = Left::Chunk(0);
        }
    }
}

/// A line without its end; an end of the stream before it is an error.
fn read_line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    from.take(MAX_LINE).read_line(&mut line)?;
    match line.strip_suffix('\n') {
        Some(text) => Ok(text.strip_suffix('\r').unwrap_or(text).to_owned()),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

impl Answer {
    /// The length of the next chunk: `1a3\r\n`, before it the end of the one before.
    fn next_chunk(&mut self) -> io::Result<u64> {
        let mut line = read_line(&mut self.from)?;
        if line.is_empty() {
            line = read_line(&mut self.from)?;
        }
        let digits = line.split(';').next().unwrap_or_default().trim();
        u64::from_str_radix(digits, 16).map_err(|_| io::ErrorKind::InvalidData.into())
    }
}

impl Read for Answer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == Left::Chunk(0) {
            self.left = match self.next_chunk()? {
                0 => Left::Bytes(0),
                length => Left::Chunk(length),
            };
        }
        let (Left::Bytes(left) | Left::Chunk(left)) = &mut self.left else {
            return self.from.read(buffer);
        };
        if *left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let at_most = buffer.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
        let count = self.from.read(&mut buffer[..at_most])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        *left -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
