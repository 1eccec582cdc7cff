//! A kubelet that tells which container holds which device: its PodResources service, with answers of the test's.

use std::{
    convert::Infallible,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    thread,
};

use bytes::Bytes;
use hyper::{
    HeaderMap, Response,
    body::{Body, Frame},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixListener;

/// A service at a socket. It ends with the test.
pub struct PodResources(Arc<Mutex<Vec<u8>>>);

impl PodResources {
    /// Listens below a host's root.
    pub fn start(root: &Path) -> Self {
        let folder = root.join("var/lib/kubelet/pod-resources");
        std::fs::create_dir_all(&folder).expect("a folder");
        let message = Arc::<Mutex<Vec<u8>>>::default();
        let shared = message.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let listener = {
            let _guard = runtime.enter();
            UnixListener::bind(folder.join("kubelet.sock")).expect("a socket")
        };
        thread::spawn(move || runtime.block_on(serve(listener, shared)));
        Self(message)
    }

    /// From now on these containers hold these devices: namespace, pod, container, resource, id.
    pub fn set(&self, held: &[[&str; 5]]) {
        let pod = |[namespace, pod, container, resource, id]: &[&str; 5]| {
            let devices = field(2, &[field(1, resource.as_bytes()), field(2, id.as_bytes())].concat());
            let container = field(3, &[field(1, container.as_bytes()), devices].concat());
            field(1, &[field(1, pod.as_bytes()), field(2, namespace.as_bytes()), container].concat())
        };
        *self.0.lock().expect("one test") = held.iter().flat_map(pod).collect();
    }
}

/// A field that has a length.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    assert!(bytes.len() < 1 << 14);
    let length = [bytes.len() as u8 | 0x80, (bytes.len() >> 7) as u8];
    [&[number << 3 | 2], &length[..], bytes].concat()
}

async fn serve(listener: UnixListener, message: Arc<Mutex<Vec<u8>>>) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let message = message.clone();
        let answer = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            assert_eq!(request.uri().path(), "/v1.PodResourcesLister/List");
            let message = message.lock().expect("one test").clone();
            let head = [&[0][..], &(message.len() as u32).to_be_bytes()].concat();
            let body = Answer { data: Some([head, message].concat().into()), is_over: false };
            async { Response::builder().header("content-type", "application/grpc").body(body) }
        });
        let connection =
            http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer);
        // Whoever asked may be gone.
        tokio::spawn(async { drop(connection.await) });
    }
}

/// One message and its status behind it.
struct Answer {
    data: Option<Bytes>,
    is_over: bool,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(data) = self.data.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if std::mem::replace(&mut self.is_over, true) {
            return Poll::Ready(None);
        }
        let status =
            HeaderMap::from_iter([("grpc-status".parse().expect("a name"), "0".parse().expect("a value"))]);
        Poll::Ready(Some(Ok(Frame::trailers(status))))
    }
}
