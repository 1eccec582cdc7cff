//! A bulk server that takes everything and looks at nothing: it reads, counts bytes and answers.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
};

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 16\r\n\r\n{\"errors\":false}";

/// A listening one; its threads end with this process.
pub struct Sink {
    pub address: SocketAddr,
    bytes: Arc<AtomicU64>,
}

impl Sink {
    /// Starts it; its threads run on the caller's cores.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let bytes = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&bytes);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, count) = (stream.expect("a connection"), Arc::clone(&count));
                thread::spawn(move || serve(stream, &count));
            }
        });
        Self { address, bytes }
    }

    /// Bytes of bodies since the last call.
    pub fn take_bytes(&self) -> u64 {
        self.bytes.swap(0, Relaxed)
    }
}

/// Answers until the client goes away.
fn serve(mut stream: TcpStream, count: &AtomicU64) {
    let mut buffer = vec![0; 1 << 20];
    let mut filled = 0;
    loop {
        let Some(end) = memchr::memmem::find(&buffer[..filled], b"\r\n\r\n") else {
            match stream.read(&mut buffer[filled..]) {
                Ok(0) | Err(_) => return,
                Ok(length) => filled += length,
            }
            continue;
        };
        let length = content_length(&buffer[..end]);
        let mut seen = filled - (end + 4);
        while seen < length {
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(length) => seen += length,
            }
        }
        // A client that waits for each answer sends nothing behind its body.
        assert_eq!(seen, length, "bytes behind a body");
        filled = 0;
        count.fetch_add(length as u64, Relaxed);
        if stream.write_all(ANSWER).is_err() {
            return;
        }
    }
}

fn content_length(head: &[u8]) -> usize {
    let head = std::str::from_utf8(head).expect("headers are text").to_ascii_lowercase();
    let value = head.lines().find_map(|line| line.strip_prefix("content-length:")).expect("a length");
    value.trim().parse().expect("a number")
}
