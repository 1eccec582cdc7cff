//! One connection to a server: directly or through a proxy, plain or with TLS. What goes wrong is said in plain words.

use std::{error::Error, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{
    address::Host,
    proxy::{Proxy, tunnel},
    tls::{Tls, explain},
};
use crate::logs::status::{Obstacle, Reason};

/// How long connecting may take, with proxy and handshake.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection that takes one request after the other.
pub type Requests = SendRequest<Full<Bytes>>;

/// Where a connection leads and how.
#[derive(Debug, Clone, Copy)]
pub struct Way<'a> {
    /// The server.
    pub host: &'a Host,
    /// One of its addresses; not needed behind a proxy.
    pub address: Option<SocketAddr>,
    /// The proxy in between.
    pub proxy: Option<&'a Proxy>,
    /// The settings, for names and messages.
    pub tls: &'a Tls,
    /// What they became; a host with https is not reached without.
    pub config: Option<&'a Arc<ClientConfig>>,
}

/// Connects.
pub async fn connect(way: Way<'_>) -> Result<Requests, Reason> {
    match timeout(PATIENCE, open(way)).await {
        Ok(opened) => opened,
        Err(_) => Err(unreachable(format!("no connection to {} within {PATIENCE:?}", at(way)))),
    }
}

async fn open(way: Way<'_>) -> Result<Requests, Reason> {
    let mut stream = dial(way).await?;
    stream.set_nodelay(true).map_err(|error| unreachable(format!("{}: {error}", at(way))))?;
    let Some(config) = way.config.filter(|_| way.host.is_secure) else {
        return speak(stream, way).await;
    };
    if let Some(proxy) = way.proxy {
        tunnel(&mut stream, proxy, &way.host.authority()).await.map_err(unreachable)?;
    }
    let name = way.tls.name_of(way.host).map_err(|text| Reason::new(Obstacle::Tls, text))?;
    let connector = TlsConnector::from(Arc::clone(config));
    match connector.connect(name, stream).await {
        Ok(stream) => speak(stream, way).await,
        Err(error) => Err(explain_io(&error, way)),
    }
}

async fn dial(way: Way<'_>) -> Result<TcpStream, Reason> {
    let stream = match (way.proxy, way.address) {
        (Some(proxy), _) => TcpStream::connect((proxy.name.as_str(), proxy.port)).await,
        (None, Some(address)) => TcpStream::connect(address).await,
        (None, None) => TcpStream::connect((way.host.name.as_str(), way.host.port)).await,
    };
    stream.map_err(|error| match way.proxy {
        Some(proxy) => unreachable(format!("the proxy {proxy}: {error}")),
        None => unreachable(format!("{}: {error}", at(way))),
    })
}

async fn speak<S>(stream: S, way: Way<'_>) -> Result<Requests, Reason>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (sender, connection) = handshake.map_err(|error| unreachable(format!("{}: {error}", at(way))))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection ended");
        }
    });
    Ok(sender)
}

/// What it means that a request was not answered.
pub async fn explain_request(error: &hyper::Error, way: Way<'_>) -> Reason {
    if let Some(io) = find::<io::Error>(error).filter(|io| find::<rustls::Error>(*io).is_some()) {
        return explain_io(io, way);
    }
    let is_mute =
        error.is_incomplete_message() || error.is_parse() || error.is_closed() || error.is_canceled();
    if !way.host.is_secure && way.proxy.is_none() && is_mute && speaks_tls(way).await {
        let text = format!("{} speaks TLS: write https:// instead of http://", way.host.authority());
        return Reason::new(Obstacle::Tls, text);
    }
    let cause = find::<io::Error>(error).map_or_else(|| error.to_string(), ToString::to_string);
    unreachable(format!("{}: {cause}", at(way)))
}

/// Whether a server that does not answer HTTP answers a TLS handshake.
async fn speaks_tls(way: Way<'_>) -> bool {
    let anything = Tls { insecure_skip_verify: true, ..Tls::default() };
    let (Ok(config), Ok(name)) = (anything.configure(), way.tls.name_of(way.host)) else { return false };
    let handshake = async {
        let stream = dial(way).await.ok()?;
        match TlsConnector::from(Arc::new(config)).connect(name, stream).await {
            Ok(_) => Some(()),
            // It answers, if only to refuse.
            Err(error) => {
                matches!(find::<rustls::Error>(&error), Some(rustls::Error::AlertReceived(_))).then_some(())
            }
        }
    };
    timeout(PATIENCE, handshake).await.is_ok_and(|spoke| spoke.is_some())
}

fn explain_io(error: &io::Error, way: Way<'_>) -> Reason {
    match find::<rustls::Error>(error) {
        Some(error) => Reason::new(Obstacle::Tls, explain(error, way.host, way.tls)),
        None if error.kind() == io::ErrorKind::UnexpectedEof => Reason::new(
            Obstacle::Tls,
            format!(
                "{} ends the connection in the TLS handshake: does it speak TLS there?",
                way.host.authority()
            ),
        ),
        None => unreachable(format!("{}: {error}", at(way))),
    }
}

/// The first error of this kind in a chain of causes.
fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        // An I/O error hides the one that it was made of from the chain.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    None
}

/// The server, with the address that was tried when that is not its name.
fn at(way: Way<'_>) -> String {
    match way.address.filter(|address| address.ip().to_string() != way.host.name) {
        Some(address) => format!("{} ({})", way.host, address.ip()),
        None => way.host.to_string(),
    }
}

fn unreachable(text: String) -> Reason {
    Reason::new(Obstacle::Unreachable, text)
}
