//! HTTP/1.1 on a socket that the caller bound, until the caller asks to stop.

use std::{
    convert::Infallible,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::Path,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    select,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::{
    answer::Body,
    gate::{
        live::Live,
        tls::{self, Peek},
    },
};
use crate::shutdown::Shutdown;

/// How long a connection may wait for a request, the first or the next. Longer than a minute, the longest usual scrape
/// interval, so that Prometheus keeps its connection.
const IDLE: Duration = Duration::from_secs(75);

/// How long requests in flight may take after the agent was asked to stop.
const GRACE: Duration = Duration::from_secs(2);

/// How long a client may leave what was sent to it unread, in milliseconds.
const UNREAD_MS: u32 = 60_000;

/// Something that answers requests.
pub trait Site: Send + Sync + 'static {
    /// The answer to one request.
    fn answer(&self, request: Request<Incoming>) -> impl Future<Output = Response<Body>> + Send;
}

/// A site whose kind is not known: the HTTP machinery is large, and so it is compiled once and not for each kind of site and
/// connection.
trait AnySite: Send + Sync {
    fn boxed_answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>>;
}

impl<S: Site> AnySite for S {
    fn boxed_answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> {
        Box::pin(async move { self.answer(request).await })
    }
}

/// A connection whose kind is not known, for the same reason.
trait AnyStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> AnyStream for S {}

/// A socket that connections come from.
pub trait Listener {
    /// One connection.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// Waits for the next connection.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>>;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        let (stream, _) = Self::accept(self).await?;
        stream.set_nodelay(true)?;
        rustix::net::sockopt::set_tcp_user_timeout(&stream, UNREAD_MS)?;
        Ok(stream)
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        Self::accept(self).await.map(|(stream, _)| stream)
    }
}

/// Answers at most `limit` connections at once until it is asked to stop, then finishes the requests in flight.
pub async fn serve<L: Listener>(listener: L, site: Arc<impl Site>, limit: usize, shutdown: Shutdown) {
    let site: Arc<dyn AnySite> = site;
    let talk = |stream, shutdown| converse(Box::new(stream), Arc::clone(&site), shutdown);
    each_connection(listener, limit, shutdown, talk).await;
}

/// The same over TLS, under the rules of each moment.
pub async fn serve_tls<L>(
    listener: L,
    rules: Arc<Live>,
    site: Arc<impl Site>,
    limit: usize,
    shutdown: Shutdown,
) where
    L: Listener,
    L::Stream: Peek + Sync,
{
    let site: Arc<dyn AnySite> = site;
    let talk = |stream, mut shutdown: Shutdown| {
        let (rules, site) = (Arc::clone(&rules), Arc::clone(&site));
        async move {
            let welcomed = select! {
                welcomed = tls::welcome(stream, &rules) => welcomed,
                () = shutdown.requested() => None,
            };
            if let Some(stream) = welcomed {
                converse(Box::new(stream), site, shutdown).await;
            }
        }
    };
    each_connection(listener, limit, shutdown, talk).await;
}

/// Lets `talk` have each connection, at most `limit` at once.
async fn each_connection<L, T>(
    listener: L,
    limit: usize,
    mut shutdown: Shutdown,
    talk: impl Fn(L::Stream, Shutdown) -> T,
) where
    L: Listener,
    T: Future<Output = ()> + Send + 'static,
{
    let seats = Arc::new(Semaphore::new(limit));
    let mut connections = JoinSet::new();
    loop {
        select! {
            () = shutdown.requested() => break,
            accepted = accept(&listener, &seats) => {
                if let Some((stream, seat)) = accepted {
                    let talk = talk(stream, shutdown.clone());
                    connections.spawn(async move {
                        talk.await;
                        drop(seat);
                    });
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    let drain = async { while connections.join_next().await.is_some() {} };
    if timeout(GRACE, drain).await.is_err() {
        warn!("some requests were still in flight when the agent stopped");
    }
}

/// A socket that only its owner can open; whatever was at `path` is replaced.
pub fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    // Made under another name, so that it is never seen with wider permissions.
    let hidden = path.with_extension("new");
    match fs::remove_file(&hidden) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&hidden)?;
    fs::set_permissions(&hidden, fs::Permissions::from_mode(0o600))?;
    fs::rename(&hidden, path)?;
    Ok(listener)
}

/// The next connection and its seat; `None` when there was none to take.
async fn accept<L: Listener>(
    listener: &L,
    seats: &Arc<Semaphore>,
) -> Option<(L::Stream, OwnedSemaphorePermit)> {
    let seat = Arc::clone(seats).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok(stream) => Some((stream, seat)),
        Err(error) => {
            // The client is gone already, or no descriptor is left: the latter would be the same again at once.
            debug!(%error, "could not take a connection");
            sleep(Duration::from_millis(20)).await;
            None
        }
    }
}

async fn converse(stream: Box<dyn AnyStream>, site: Arc<dyn AnySite>, mut shutdown: Shutdown) {
    let answer = service_fn(move |request| {
        let site = Arc::clone(&site);
        async move { Ok::<_, Infallible>(site.boxed_answer(request).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(IDLE);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), answer));
    let ended = select! {
        ended = connection.as_mut() => ended,
        () = shutdown.requested() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection ended early");
    }
}

#[cfg(test)]
mod tests;
