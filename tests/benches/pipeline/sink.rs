//! A bulk server that takes everything: it reads, counts bytes and answers. It looks at what it is sent only when told how.

use std::{
    borrow::Cow,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
};

use flate2::read::GzDecoder;

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 16\r\n\r\n{\"errors\":false}";

/// What is done with a whole body before it is answered.
pub type Look = dyn Fn(&[u8]) + Send + Sync;

/// A listening one; its threads end with this process.
pub struct Sink {
    pub address: SocketAddr,
    bytes: Arc<AtomicU64>,
}

impl Sink {
    /// Starts one that looks at nothing; its threads run on the caller's cores.
    pub fn start() -> Self {
        Self::listen(None)
    }

    /// Starts one that looks at each body, unpacked where it came as gzip.
    pub fn looking(look: impl Fn(&[u8]) + Send + Sync + 'static) -> Self {
        Self::listen(Some(Arc::new(look)))
    }

    fn listen(look: Option<Arc<Look>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let bytes = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&bytes);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, count, look) = (stream.expect("a connection"), Arc::clone(&count), look.clone());
                thread::spawn(move || serve(stream, &count, look.as_deref()));
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
fn serve(mut stream: TcpStream, count: &AtomicU64, look: Option<&Look>) {
    let mut buffer = vec![0; 1 << 20];
    let (mut filled, mut body) = (0, Vec::new());
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
        body.clear();
        if look.is_some() {
            body.extend_from_slice(&buffer[end + 4..filled]);
        }
        while seen < length {
            let read = match stream.read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(read) => read,
            };
            seen += read;
            if look.is_some() {
                body.extend_from_slice(&buffer[..read]);
            }
        }
        // A client that waits for each answer sends nothing behind its body.
        assert_eq!(seen, length, "bytes behind a body");
        filled = 0;
        if let Some(look) = look {
            look(&unpacked(&body));
        }
        count.fetch_add(length as u64, Relaxed);
        if stream.write_all(ANSWER).is_err() {
            return;
        }
    }
}

/// The body itself: gzip is known by its first bytes, which no bulk body has.
fn unpacked(body: &[u8]) -> Cow<'_, [u8]> {
    if !body.starts_with(&[0x1f, 0x8b]) {
        return Cow::Borrowed(body);
    }
    let mut text = Vec::new();
    GzDecoder::new(body).read_to_end(&mut text).expect("gzip");
    Cow::Owned(text)
}

fn content_length(head: &[u8]) -> usize {
    let head = std::str::from_utf8(head).expect("headers are text").to_ascii_lowercase();
    let value = head.lines().find_map(|line| line.strip_prefix("content-length:")).expect("a length");
    value.trim().parse().expect("a number")
}
