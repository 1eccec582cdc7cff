//! Which container holds which device, as the node's kubelet knows it: `List` of its PodResources service, version 1.
//!
//! The service is gRPC over a unix socket: one HTTP/2 request with an empty message, answered with one message and a status behind it.
//! Of the message, three levels are wanted; `message` reads them.

mod message;

use std::{io, path::Path, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Request, StatusCode, body::Incoming, client::conn::http2, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::UnixStream, task::JoinSet, time::timeout};

/// Where kubelets listen. In a pod the directory has to be mounted, not the socket: a kubelet that starts again makes another one.
pub const SOCKET: &str = "/var/lib/kubelet/pod-resources/kubelet.sock";

/// How long the kubelet may take for everything.
const PATIENCE: Duration = Duration::from_secs(3);
/// A node of 500 pods with 10,000 devices is told of in a tenth of this.
const LONGEST_ANSWER: usize = 16 << 20;
/// What stands before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// Who holds a device.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Holder {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// The container's name in the pod.
    pub container: String,
}

/// A device as its plugin or driver calls it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId {
    /// `GPU-UUID`, `MIG-UUID`, `nvidia0`, `nvidia0/gi5`; of a driver for dynamic resources its own name, as `gpu-0`.
    pub name: String,
    /// Which share of it, where several containers hold one device: `3` of `GPU-UUID::3` and of `nvidia0/vgpu3`.
    pub share: Option<String>,
    /// The pool that a driver for dynamic resources names; as a rule, the node.
    pub pool: Option<String>,
}

impl DeviceId {
    /// Reads an id as device plugins make them.
    pub fn parse(id: &str) -> Self {
        let split = id.split_once("::").or_else(|| id.rsplit_once("/vgpu"));
        let (name, share) = match split {
            Some((name, share)) if !name.is_empty() && !share.is_empty() => (name, Some(share.to_owned())),
            _ => (id, None),
        };
        Self { name: name.to_owned(), share, pool: None }
    }
}

/// Why the kubelet did not tell.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such socket: no kubelet runs here, or its directory is not mounted.
    #[error("there is no socket: mount /var/lib/kubelet/pod-resources of the host")]
    Absent,
    /// The socket is there, and this user may not connect.
    #[error("the kubelet's pod-resources socket is root's: run as user 0")]
    Denied,
    /// No connection, or it broke.
    #[error("{0}")]
    Connection(String),
    /// Nothing came in time.
    #[error("no answer in time")]
    Late,
    /// The kubelet answered that it does not tell.
    #[error("the kubelet answered {0}")]
    Refused(String),
    /// An answer that is none.
    #[error("the answer could not be understood: {0}")]
    Answer(&'static str),
}

/// Every device that a container on this node holds, with the name of the resource (`nvidia.com/gpu`, or the driver of a dynamic
/// resource, `gpu.nvidia.com`) and who holds it. `socket` is [`SOCKET`], or where it is mounted. Takes three seconds at most.
pub async fn list(socket: &Path) -> Result<Vec<(DeviceId, String, Holder)>, Error> {
    list_within(socket, PATIENCE).await
}

async fn list_within(socket: &Path, patience: Duration) -> Result<Vec<(DeviceId, String, Holder)>, Error> {
    let answer = timeout(patience, ask(socket)).await.map_err(|_| Error::Late)??;
    message::read(unwrap(&answer)?)
}

async fn ask(socket: &Path) -> Result<Bytes, Error> {
    let stream = UnixStream::connect(socket).await.map_err(not_connected)?;
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(broken)?;
    // It ends with this function, however that ends.
    let mut running = JoinSet::new();
    running.spawn(connection);
    let request = Request::post("http://localhost/v1.PodResourcesLister/List")
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        // An empty message, not compressed.
        .body(Full::new(Bytes::from_static(&[0; PREFIX])))
        .map_err(broken)?;
    let response = sender.send_request(request).await.map_err(broken)?;
    if response.status() != StatusCode::OK {
        return Err(Error::Refused(response.status().to_string()));
    }
    // An answer without a message has its status in front.
    status(response.headers())?;
    collect(response.into_body()).await
}

fn not_connected(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::Absent,
        io::ErrorKind::PermissionDenied => Error::Denied,
        _ => broken(error),
    }
}

async fn collect(mut body: Incoming) -> Result<Bytes, Error> {
    let mut answer = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(broken)?;
        if let Some(trailers) = frame.trailers_ref() {
            status(trailers)?;
        }
        if let Ok(data) = frame.into_data() {
            if answer.len() + data.len() > LONGEST_ANSWER {
                return Err(Error::Answer("it is longer than 16 MiB"));
            }
            answer.extend_from_slice(&data);
        }
    }
    Ok(answer.freeze())
}

/// The message in an answer.
fn unwrap(mut answer: &[u8]) -> Result<&[u8], Error> {
    if answer.remaining() < PREFIX {
        return Err(Error::Answer("there is no message"));
    }
    let is_compressed = answer.get_u8() != 0;
    let length = answer.get_u32() as usize;
    if is_compressed {
        return Err(Error::Answer("it is compressed, although nobody asked for that"));
    }
    answer.get(..length).filter(|message| message.len() == answer.len()).ok_or(Error::Answer("it is cut"))
}

/// What gRPC says of an answer: 0, or why there is none.
fn status(headers: &HeaderMap) -> Result<(), Error> {
    let text =
        |name: &str| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    match text("grpc-status") {
        None => Ok(()),
        Some(code) if code == "0" => Ok(()),
        Some(code) => {
            let message = text("grpc-message").filter(|message| !message.is_empty());
            Err(Error::Refused(match message {
                Some(message) => format!("status {code}: {message}"),
                None => format!("status {code}"),
            }))
        }
    }
}

fn broken(error: impl std::fmt::Display) -> Error {
    Error::Connection(error.to_string())
}

#[cfg(test)]
mod tests;
