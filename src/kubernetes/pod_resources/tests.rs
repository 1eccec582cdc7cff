use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use hyper::{
    Response,
    body::{Body, Frame},
    server::conn::http2 as server,
    service::service_fn,
};
use proptest::prelude::*;
use tokio::net::UnixListener;

use super::*;

/// A field that has a length.
fn field(number: u8, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length > 0x7f {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
    out
}

fn devices(resource: &str, ids: &[&str]) -> Vec<u8> {
    let ids: Vec<u8> = ids.iter().flat_map(|id| field(2, id)).collect();
    // A topology stands behind.
    field(2, [field(1, resource), ids, field(3, field(1, [8, 1]))].concat())
}

fn container(name: &str, rest: &[Vec<u8>]) -> Vec<u8> {
    // CPUs, some packed and some not, and memory.
    let others = [field(3, [1, 2, 3]), vec![3 << 3, 0xff, 1], field(4, field(1, "memory"))].concat();
    field(3, [field(1, name), others, rest.concat()].concat())
}

fn pod(name: &str, containers: &[Vec<u8>]) -> Vec<u8> {
    field(1, [field(1, name), field(2, "ml"), containers.concat()].concat())
}

fn claimed(fields: &[Vec<u8>]) -> Vec<u8> {
    field(5, [field(2, "claim"), field(3, "ml"), field(4, fields.concat())].concat())
}

/// What a node with GPUs of all sorts says.
fn message() -> Vec<u8> {
    [
        pod(
            "train-0",
            &[container("main", &[devices("nvidia.com/gpu", &["GPU-a", "GPU-b"])]), container("log", &[])],
        ),
        pod("infer-0", &[container("main", &[devices("nvidia.com/gpu", &["GPU-c::3"])])]),
        pod("slice-0", &[container("main", &[devices("nvidia.com/mig-1g.5gb", &["MIG-d", "MIG-e::1"])])]),
        pod("gke-0", &[container("main", &[devices("nvidia.com/gpu", &["nvidia0/gi5/vgpu2", "nvidia1"])])]),
        pod(
            "dra-0",
            &[container(
                "main",
                &[
                    claimed(&[
                        field(1, field(1, "k8s.gpu.nvidia.com/claim=c-gpu-0")),
                        field(2, "gpu.nvidia.com"),
                        field(3, "node-1"),
                        field(4, "gpu-0"),
                        field(5, "s1"),
                    ]),
                    claimed(&[field(1, field(1, "nvidia.com/gpu=gpu-1")), field(2, "gpu.nvidia.com")]),
                    claimed(&[field(2, "gpu.nvidia.com")]),
                ],
            )],
        ),
        pod("idle-0", &[]),
    ]
    .concat()
}

fn shown(found: &[(DeviceId, String, Holder)]) -> Vec<String> {
    let show = |(id, resource, holder): &(DeviceId, String, Holder)| {
        let DeviceId { name, share, pool } = id;
        let [share, pool] = [share, pool].map(|text| text.as_deref().unwrap_or("-"));
        let Holder { namespace, pod, container } = holder;
        format!("{resource} {name} {share} {pool} {namespace}/{pod}/{container}")
    };
    found.iter().map(show).collect()
}

const EXPECTED: [&str; 9] = [
    "nvidia.com/gpu GPU-a - - ml/train-0/main",
    "nvidia.com/gpu GPU-b - - ml/train-0/main",
    "nvidia.com/gpu GPU-c 3 - ml/infer-0/main",
    "nvidia.com/mig-1g.5gb MIG-d - - ml/slice-0/main",
    "nvidia.com/mig-1g.5gb MIG-e 1 - ml/slice-0/main",
    "nvidia.com/gpu nvidia0/gi5 2 - ml/gke-0/main",
    "nvidia.com/gpu nvidia1 - - ml/gke-0/main",
    "gpu.nvidia.com gpu-0 s1 node-1 ml/dra-0/main",
    "gpu.nvidia.com gpu-1 - - ml/dra-0/main",
];

#[test]
fn every_kind_of_device_is_read() {
    assert_eq!(shown(&message::read(&message()).expect("a message")), EXPECTED);
    assert_eq!(shown(&message::read(&[]).expect("a node without pods")), [""; 0]);
}

#[test]
fn ids_of_device_plugins_are_taken_apart() {
    let cases = [
        ("GPU-8f6d", "GPU-8f6d", None),
        ("GPU-8f6d::12", "GPU-8f6d", Some("12")),
        ("MIG-GPU-8f6d/7/0", "MIG-GPU-8f6d/7/0", None),
        ("nvidia0/vgpu2", "nvidia0", Some("2")),
        ("nvidia0/gi5", "nvidia0/gi5", None),
        ("::1", "::1", None),
        ("GPU-8f6d::", "GPU-8f6d::", None),
        ("", "", None),
    ];
    for (id, name, share) in cases {
        let found = DeviceId::parse(id);
        assert_eq!((found.name.as_str(), found.share.as_deref()), (name, share), "{id}");
    }
}

#[test]
fn a_message_that_is_cut_is_refused_or_shorter() {
    let whole = message();
    for length in 0..whole.len() {
        if let Ok(found) = message::read(&whole[..length]) {
            assert!(
                shown(&found).iter().zip(EXPECTED).all(|(found, expected)| found == expected),
                "{length}"
            );
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_none(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = message::read(&bytes);
        let _ = unwrap(&bytes);
    }

    #[test]
    fn noise_in_a_message_harms_nobody(at in any::<prop::sample::Index>(), noise in any::<[u8; 3]>()) {
        let mut bytes = message();
        let at = at.index(bytes.len() - noise.len());
        bytes[at..at + noise.len()].copy_from_slice(&noise);
        if let Ok(found) = message::read(&bytes) {
            prop_assert!(found.len() <= bytes.len());
        }
    }
}

/// A server of HTTP/2 in the kubelet's place.
struct Kubelet {
    directory: tempfile::TempDir,
    _running: JoinSet<()>,
}

impl Kubelet {
    /// Answers each request with what `answer` makes.
    fn start(answer: impl Fn() -> Response<Answer> + Clone + Send + Sync + 'static) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let listener = UnixListener::bind(directory.path().join("kubelet.sock")).expect("bound");
        let mut running = JoinSet::new();
        running.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let service = service_fn(|request: Request<Incoming>| {
                    let answer = answer.clone();
                    async move {
                        assert_eq!(request.method(), "POST");
                        assert_eq!(request.uri().path(), "/v1.PodResourcesLister/List");
                        assert_eq!(request.headers()["content-type"], "application/grpc");
                        assert_eq!(request.headers()["te"], "trailers");
                        let body = request.into_body().collect().await.expect("a body").to_bytes();
                        assert_eq!(&body[..], [0; PREFIX]);
                        Ok::<_, Infallible>(answer())
                    }
                });
                let builder = server::Builder::new(TokioExecutor::new());
                // A client that goes away is no failure of the server.
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            }
        });
        Self { directory, _running: running }
    }

    async fn list(&self, patience: Duration) -> Result<Vec<(DeviceId, String, Holder)>, Error> {
        list_within(&self.directory.path().join("kubelet.sock"), patience).await
    }
}

/// The frames of an answer; when they are sent it ends, or never.
struct Answer {
    frames: VecDeque<Frame<Bytes>>,
    ends: bool,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.frames.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None if self.ends => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

fn answer(pieces: &[&[u8]], status: &str) -> Response<Answer> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status.parse().expect("a value"));
    let data = pieces.iter().map(|piece| Frame::data(Bytes::copy_from_slice(piece)));
    let frames = data.chain([Frame::trailers(trailers)]).collect();
    Response::new(Answer { frames, ends: true })
}

/// With what stands before a message.
fn framed(message: &[u8]) -> Vec<u8> {
    [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat()
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(future)
}

/// The error of a kubelet that answers so.
fn error_of(made: impl Fn() -> Response<Answer> + Clone + Send + Sync + 'static) -> String {
    run(async { Kubelet::start(made).list(PATIENCE).await.expect_err("refused").to_string() })
}

#[test]
fn a_server_is_asked() {
    run(async {
        let kubelet = Kubelet::start(|| answer(&[&framed(&message())], "0"));
        for _ in 0..2 {
            assert_eq!(shown(&kubelet.list(PATIENCE).await.expect("an answer")), EXPECTED);
        }
    });
}

#[test]
fn a_long_answer_in_many_pieces_is_put_together() {
    run(async {
        let kubelet = Kubelet::start(|| {
            let bytes = framed(&message().repeat(5000));
            answer(&bytes.chunks(10_007).collect::<Vec<_>>(), "0")
        });
        let found = kubelet.list(Duration::from_secs(60)).await.expect("an answer");
        assert_eq!(found.len(), 5000 * EXPECTED.len());
    });
}

#[test]
fn what_is_no_answer_is_an_error() {
    assert_eq!(error_of(|| answer(&[], "0")), "the answer could not be understood: there is no message");
    assert_eq!(
        error_of(|| answer(&[&[0, 0, 0, 0, 9, 1]], "0")),
        "the answer could not be understood: it is cut"
    );
    assert!(error_of(|| answer(&[&[1, 0, 0, 0, 0]], "0")).contains("compressed"));
    assert!(error_of(|| answer(&[&framed(&[0xff; 20])], "0")).contains("does not end"));
    let many = || answer(&[&framed(&message().repeat(DEVICES_TOO_MANY))], "0");
    assert!(error_of(many).contains("more than 65536 devices"));
    let long = || answer(&[&vec![0; 1 << 20][..]; 17], "0");
    assert!(error_of(long).contains("longer than 16 MiB"));
}

const DEVICES_TOO_MANY: usize = 65_536 / EXPECTED.len() + 1;

#[test]
fn a_refusal_is_said() {
    assert_eq!(error_of(|| answer(&[&framed(&[])], "8")), "the kubelet answered status 8");
    let in_front = || {
        let mut response = answer(&[], "0");
        response.headers_mut().insert("grpc-status", "12".parse().expect("a value"));
        response.headers_mut().insert("grpc-message", "unknown service".parse().expect("a value"));
        response
    };
    assert_eq!(error_of(in_front), "the kubelet answered status 12: unknown service");
    let other = || {
        let mut response = answer(&[], "0");
        *response.status_mut() = StatusCode::NOT_FOUND;
        response
    };
    assert_eq!(error_of(other), "the kubelet answered 404 Not Found");
}

#[test]
fn nobody_is_waited_for_without_end() {
    run(async {
        let kubelet = Kubelet::start(|| Response::new(Answer { frames: VecDeque::new(), ends: false }));
        let error = kubelet.list(Duration::from_millis(50)).await.expect_err("it never ends");
        assert!(matches!(error, Error::Late), "{error}");
    });
}

#[test]
fn without_a_kubelet_that_is_said() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let socket = directory.path().join("kubelet.sock");
    let error = || run(list(&socket)).expect_err("nobody is there");
    assert!(matches!(error(), Error::Absent));
    // One that ended leaves its socket there.
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("bound"));
    assert!(matches!(error(), Error::Connection(_)));
}

#[test]
fn who_may_not_connect_is_told_what_to_do() {
    let said = |kind: io::ErrorKind| not_connected(kind.into()).to_string();
    assert!(said(io::ErrorKind::PermissionDenied).contains("user 0"));
    assert!(said(io::ErrorKind::NotFound).contains("mount"));
    assert!(Error::Late.to_string().contains("in time"));
}
