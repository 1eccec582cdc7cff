//! Requests to the API server or to a kubelet, as a pod makes them: a token from a file, the cluster's own CA.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, StatusCode, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use crate::{logs::elastic::tls::Tls, pem};

/// How long it may take to connect, and then to be answered.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no answer, in one clause.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No connection, or it broke.
    #[error("{0}")]
    Connection(String),
    /// Nothing came in time.
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Late,
    /// A file that proves who we are, or who the server is.
    #[error("could not read {}: {error}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Another status than 200.
    #[error("{status}{}", hint(*status))]
    Status {
        /// The status.
        status: StatusCode,
    },
    /// An answer that is none.
    #[error("the answer could not be understood: {0}")]
    Answer(String),
}

fn hint(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => ": the service account's token is not accepted",
        StatusCode::FORBIDDEN => ": the service account's role does not allow it",
        _ => "",
    }
}

impl AskError {
    /// In few words that stay the same, for a label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Connection(_) => "no connection",
            Self::Late => "no answer in time",
            Self::File { .. } => "no token or CA",
            Self::Status { status: StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED } => "not allowed",
            Self::Status { .. } | Self::Answer(_) => "unexpected answer",
        }
    }

    /// Whether only somebody who changes a role or a token can help.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Status { status: StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND }
                | Self::File { .. }
        )
    }
}

/// Where to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// `https://10.96.0.1:443`, without a slash at its end; `http` for a kubelet's read-only port.
    pub url: String,
    /// Sent as bearer token; read anew for each request, for the kubelet renews it.
    pub token_file: PathBuf,
    /// Who signs the server's certificate.
    pub ca_file: PathBuf,
    /// The certificate is not looked at: most kubelets show one that nobody vouches for.
    pub insecure_skip_verify: bool,
}

/// A client of one server. Each request has a connection of its own: they are minutes apart.
#[derive(Debug)]
pub struct Client {
    server: Server,
    is_tls: bool,
    host: String,
    port: u16,
}

impl Client {
    /// For a server whose URL is `http://HOST:PORT` or `https://HOST:PORT`.
    pub fn new(server: Server) -> Result<Self, AskError> {
        let wrong = || AskError::Connection(format!("{} is no URL of a server", server.url));
        let uri: hyper::Uri = server.url.parse().map_err(|_| wrong())?;
        let is_tls = uri.scheme_str() == Some("https");
        let host = uri.host().ok_or_else(wrong)?.trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        Ok(Self { server, is_tls, host, port })
    }

    /// The whole answer to one request, of at most `limit` bytes.
    pub async fn get(&self, path: &str, limit: usize) -> Result<Vec<u8>, AskError> {
        let mut stream = self.open(path).await?;
        let mut body = Vec::new();
        while let Some(piece) = timeout(PATIENCE, stream.next()).await.map_err(|_| AskError::Late)?? {
            if body.len() + piece.len() > limit {
                return Err(AskError::Answer(format!("it is longer than {limit} bytes")));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    /// The answer to a request as it comes.
    pub async fn open(&self, path: &str) -> Result<Stream, AskError> {
        timeout(PATIENCE, self.request(path)).await.map_err(|_| AskError::Late)?
    }

    async fn request(&self, path: &str) -> Result<Stream, AskError> {
        let authority = match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        };
        let mut request = Request::get(path)
            .header(header::HOST, authority)
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, concat!("nodewarden/", env!("CARGO_PKG_VERSION")));
        if self.is_tls {
            let token = read(&self.server.token_file)?;
            let token = String::from_utf8_lossy(&token);
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.trim()));
        }
        let request = request.body(Empty::new()).map_err(|error| AskError::Connection(error.to_string()))?;
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(broken)?;
        let mut connection = if self.is_tls {
            let name = ServerName::try_from(self.host.clone()).map_err(broken)?;
            let connector = TlsConnector::from(trust(&self.server)?);
            handshake(TokioIo::new(connector.connect(name, stream).await.map_err(broken)?)).await?
        } else {
            handshake(TokioIo::new(stream)).await?
        };
        let response = connection.send_request(request).await.map_err(broken)?;
        match response.status() {
            StatusCode::OK => Ok(Stream { body: response.into_body(), _connection: connection }),
            status => Err(AskError::Status { status }),
        }
    }
}

/// An answer as it comes.
pub struct Stream {
    body: Incoming,
    /// The connection ends with its last handle.
    _connection: http1::SendRequest<Empty<Bytes>>,
}

impl Stream {
    /// The next piece, `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, AskError> {
        loop {
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(broken(error)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

async fn handshake<S>(stream: S) -> Result<http1::SendRequest<Empty<Bytes>>, AskError>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(stream).await.map_err(broken)?;
    // Its errors are those of the requests on it.
    tokio::spawn(connection);
    Ok(sender)
}

/// The cluster's CA alone is trusted.
fn trust(server: &Server) -> Result<Arc<ClientConfig>, AskError> {
    if server.insecure_skip_verify {
        let anybody = Tls { insecure_skip_verify: true, ..Tls::default() };
        return anybody.configure().map(Arc::new).map_err(|error| AskError::Connection(error.text));
    }
    let ca_file = &server.ca_file;
    let mut roots = RootCertStore::empty();
    let certificates = pem::certificates(&read(ca_file)?);
    let certificates =
        certificates.map_err(|error| AskError::Connection(format!("{}: {error}", ca_file.display())))?;
    // One of several that can't be used is no reason not to try the others.
    roots.add_parsable_certificates(certificates);
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(broken)?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

fn read(path: &Path) -> Result<Vec<u8>, AskError> {
    fs::read(path).map_err(|error| AskError::File { path: path.to_owned(), error })
}

fn broken(error: impl std::fmt::Display) -> AskError {
    AskError::Connection(error.to_string())
}
