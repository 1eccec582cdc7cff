//! The least that anyone has to do: read blocks, find newlines, put constant text around each line, send bodies. Nothing is
//! parsed, escaped, checked, remembered or repeated, so no agent can be faster.

use std::{
    fs::File,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
};

use flate2::{Compression, write::GzEncoder};

const BODY: usize = 5 << 20;
const BLOCK: usize = 256 << 10;

/// What stands around a line's time and its text in the agent's documents.
const BEFORE: &[u8] =
    b"{\"create\":{\"_index\":\"logs-kubernetes.container_logs-default\",\"_id\":\"uKfAcwmZjtOeW2P0--------\"}}\n{\"@timestamp\":\"";
const BETWEEN: &[u8] = b"\",\"message\":\"";
const AFTER: &[u8] = b"\",\"stream\":\"stdout\",\"log\":{\"file\":{\"path\":\"/var/log/pods/\
    load_web-0_00000000-0000-4000-8000-2b3d8c7d4f1a/nginx/0.log\"},\"offset\":12345678},\"host\":{\"name\":\"localhost\"},\
    \"kubernetes\":{\"namespace\":\"load\",\"node\":{\"name\":\"localhost\"},\"pod\":{\"name\":\"web-0\",\
    \"uid\":\"00000000-0000-4000-8000-2b3d8c7d4f1a\"},\"container\":{\"name\":\"nginx\",\"restart_count\":0}},\
    \"data_stream\":{\"type\":\"logs\",\"dataset\":\"kubernetes.container_logs\",\"namespace\":\"default\"}}\n";
/// Where a CRI line's time ends and where its text starts, when nobody looks.
const TIME: usize = 30;
const TEXT: usize = 40;

/// Sends every line of these files; CPU seconds of this thread.
pub fn run(files: &[PathBuf], address: SocketAddr, level: u32) -> f64 {
    let start = thread_cpu();
    let mut stream = TcpStream::connect(address).expect("the sink listens");
    stream.set_nodelay(true).expect("set");
    let mut body = Vec::with_capacity(BODY + BLOCK);
    let mut block = vec![0; BLOCK];
    for path in files {
        let mut file = File::open(path).expect("a log file");
        let mut kept = 0;
        loop {
            let length = file.read(&mut block[kept..]).expect("read");
            if length == 0 {
                break;
            }
            let filled = kept + length;
            let mut taken = 0;
            while let Some(length) = memchr::memchr(b'\n', &block[taken..filled]) {
                let line = &block[taken..taken + length];
                body.extend_from_slice(BEFORE);
                body.extend_from_slice(&line[..TIME]);
                body.extend_from_slice(BETWEEN);
                body.extend_from_slice(&line[TEXT..]);
                body.extend_from_slice(AFTER);
                taken += length + 1;
                if body.len() > BODY {
                    send(&mut stream, &body, level);
                    body.clear();
                }
            }
            block.copy_within(taken..filled, 0);
            kept = filled - taken;
        }
    }
    send(&mut stream, &body, level);
    thread_cpu() - start
}

fn send(stream: &mut TcpStream, body: &[u8], level: u32) {
    let packed = (level > 0).then(|| {
        let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 8), Compression::new(level));
        encoder.write_all(body).and_then(|()| encoder.finish()).expect("memory takes it")
    });
    let body = packed.as_deref().unwrap_or(body);
    write!(stream, "POST /_bulk HTTP/1.1\r\nhost: sink\r\ncontent-length: {}\r\n\r\n", body.len())
        .expect("sent");
    stream.write_all(body).expect("sent");
    let mut answer = [0; 1024];
    let length = stream.read(&mut answer).expect("an answer");
    assert!(answer[..length].starts_with(b"HTTP/1.1 200"), "the sink takes everything");
}

fn thread_cpu() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
