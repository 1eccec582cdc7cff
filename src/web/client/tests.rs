//! The client against the real API on a real socket, and against broken answers.

use std::sync::Arc;

use super::{
    super::{
        api::Api,
        server::{bind_unix, serve},
        testing::{no_files, state, store},
    },
    *,
};
use crate::shutdown;

/// Serves the API on a socket in `dir` from a thread of its own; gives it up when the trigger is dropped.
fn serve_in(dir: &Path, state: super::super::api::AdminState) -> (PathBuf, shutdown::Trigger) {
    let path = dir.join("admin.sock");
    let (trigger, shutdown) = shutdown::channel();
    let (ready, is_ready) = std::sync::mpsc::channel();
    let socket = path.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = bind_unix(&socket).expect("bound");
            ready.send(()).expect("the test waits");
            serve(listener, Arc::new(Api::new(state, &shutdown)), 4, shutdown).await;
        });
    });
    is_ready.recv().expect("it listens");
    (path, trigger)
}

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

#[test]
fn an_answer_is_read_to_its_end() {
    let dir = dir();
    let (socket, _trigger) = serve_in(dir.path(), state(no_files(), None));
    let mut text = String::new();
    get(&socket, "/api/v1/config").expect("answered").read_to_string(&mut text).expect("read");
    assert_eq!(text, "state_dir: /var/lib/nodewarden\n");
}

#[test]
fn a_refusal_is_the_agents_own_sentence() {
    let dir = dir();
    let (socket, _trigger) = serve_in(dir.path(), state(no_files(), None));
    let error = get(&socket, "/api/v1/files").expect_err("nobody answers that");
    assert_eq!(error.to_string(), "the log reader does not answer");
}

#[test]
fn a_stream_ends_when_the_agent_does() {
    let dir = dir();
    let (_writer, store) = store(&dir.path().join("store"));
    let (socket, trigger) = serve_in(dir.path(), state(no_files(), Some(store)));
    let mut tail = get(&socket, "/api/v1/logs/tail").expect("answered");
    drop(trigger);
    let mut text = String::new();
    tail.read_to_string(&mut text).expect("its end is the last chunk");
    assert_eq!(text, "");
}

#[test]
fn without_an_agent_the_socket_is_named() {
    let error = get(Path::new("/nonexistent/admin.sock"), "/").expect_err("nobody is there");
    assert!(error.to_string().starts_with("no running agent answers at /nonexistent/admin.sock: "));
}

#[test]
fn chunks_are_put_together() {
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    theirs.write_all(b"3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n").expect("sent");
    let mut answer = Answer { from: BufReader::new(ours), left: Left::Chunk(0) };
    let mut text = String::new();
    answer.read_to_string(&mut text).expect("read");
    assert_eq!(text, "abc0123456789");
}

#[test]
fn a_body_that_breaks_off_is_an_error() {
    for (sent, left) in [
        ("abc", Left::Bytes(4)),
        ("4\r\nabc", Left::Chunk(0)),
        ("zz\r\n", Left::Chunk(0)),
        ("", Left::Chunk(0)),
    ] {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        theirs.write_all(sent.as_bytes()).expect("sent");
        drop(theirs);
        let mut answer = Answer { from: BufReader::new(ours), left };
        answer.read_to_end(&mut Vec::new()).expect_err("cut");
    }
}

#[test]
fn parameters_survive_the_way() {
    let address = address("/api/v1/logs", &[("query", "a b&c=\"é\"\n"), ("limit", "5")]);
    assert_eq!(address, "/api/v1/logs?query=a%20b%26c%3D%22%C3%A9%22%0A&limit=5");
}
