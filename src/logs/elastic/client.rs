//! Requests to the servers, one after the other on connections that are kept: whoever asks gives a method, a path and a body,
//! and gets a status and a body, or the reason why there is none.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, StatusCode,
    header::{self, HeaderName, HeaderValue},
};
use rustls::ClientConfig;
use tokio::time::timeout;

use super::{
    address::Host,
    auth::Auth,
    connection::{Requests, Way, connect, explain_request},
    credentials::{Credentials, Live},
    hosts::{Endpoint, Failed, Hosts},
    proxy::{PROXY_PASSWORD, Proxies},
    tls::Tls,
};
use crate::logs::status::{Obstacle, Reason};

/// An answer with an error for each of the most documents that fit into a request.
const ANSWER_LIMIT: usize = 32 * 1024 * 1024;
/// Connections that were still for longer are not used any more: what stands between may have forgotten them.
const STILL_FOR: Duration = Duration::from_secs(55);
/// How long a probe may take.
const PROBE_PATIENCE: Duration = Duration::from_secs(10);

/// How to reach the servers.
#[derive(Debug, Clone)]
pub struct Options {
    /// The servers; at least one.
    pub hosts: Vec<Host>,
    /// How the agent proves who it is.
    pub auth: Auth,
    /// For those with https.
    pub tls: Tls,
    /// What is in between.
    pub proxies: Proxies,
    /// Headers that every request has.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// Asks the servers.
pub struct Client {
    options: Options,
    credentials: Live,
    hosts: Arc<Hosts>,
    idle: Mutex<Vec<Idle>>,
}

/// A request.
#[derive(Debug, Clone)]
pub struct Call {
    /// GET, PUT and so on.
    pub method: Method,
    /// With its query, from `/` on; what stands before it in a host's address is added.
    pub path: String,
    /// The body, and what it is.
    pub body: Option<Body>,
    /// How long everything may take, the connection included.
    pub patience: Duration,
}

impl Call {
    /// GET, for which there is this much time.
    pub fn get(path: impl Into<String>, patience: Duration) -> Self {
        Self { method: Method::GET, path: path.into(), body: None, patience }
    }
}

/// What is sent along.
#[derive(Debug, Clone)]
pub struct Body {
    /// The bytes; a second try sends the same ones.
    pub bytes: Bytes,
    /// Its media type.
    pub kind: &'static str,
    /// Whether it is gzip.
    pub is_gzip: bool,
}

/// What came back.
#[derive(Debug)]
pub struct Response {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: Bytes,
}

/// A connection that waits for the next request.
struct Idle {
    endpoint: Endpoint,
    tls: Option<Arc<ClientConfig>>,
    since: Instant,
    requests: Requests,
}

impl Client {
    /// A client that connects when it is asked something. Reads secrets and certificates, which blocks on the disk.
    pub fn new(options: Options) -> Arc<Self> {
        let is_secure = options.hosts.iter().any(|host| host.is_secure);
        let tls = is_secure.then(|| options.tls.clone());
        let hosts = Hosts::new(&options.hosts, |host| options.proxies.for_host(host).is_some());
        Arc::new(Self {
            credentials: Live::new(options.auth.clone(), tls),
            hosts: Arc::new(hosts),
            options,
            idle: Mutex::new(Vec::new()),
        })
    }

    /// Asks one of the servers.
    pub async fn ask(self: &Arc<Self>, call: &Call) -> Result<Response, Reason> {
        let credentials = self.credentials.current().await?;
        let chosen = self.hosts.choose().await?;
        let endpoint = chosen.endpoint;
        let asked = timeout(call.patience, self.exchange(endpoint, call, &credentials)).await;
        let response = asked.unwrap_or_else(|_| {
            let host = &self.options.hosts[endpoint.host];
            Err(Reason::new(Obstacle::Unreachable, format!("{host}: no answer within {:?}", call.patience)))
        });
        match response {
            Ok(response) => {
                match response.status.is_server_error() {
                    true => self.leave_out(endpoint, &format!("HTTP {}", response.status.as_u16())),
                    false => self.hosts.answered(endpoint),
                }
                match response.status {
                    StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                        Err(Reason::new(Obstacle::Unauthorized, PROXY_PASSWORD))
                    }
                    _ => Ok(response),
                }
            }
            Err(reason) => {
                self.leave_out(endpoint, &reason.text);
                Err(reason)
            }
        }
    }

    /// What to do when the server says 401.
    pub fn remedy(&self) -> String {
        self.options.auth.remedy()
    }

    /// Waits until a secret or certificate was changed: what was refused may be taken now.
    pub async fn changed(&self) {
        self.credentials.changed().await;
    }

    /// A connection that is kept may have been closed by the other side just now: then a new one is tried at once.
    async fn exchange(
        &self,
        endpoint: Endpoint,
        call: &Call,
        credentials: &Credentials,
    ) -> Result<Response, Reason> {
        let way = self.way(endpoint, credentials);
        if let Some(requests) = self.idle_connection(endpoint, credentials).await
            && let Ok(response) = self.send(requests, endpoint, call, credentials).await?
        {
            return Ok(response);
        }
        let requests = connect(way).await?;
        match self.send(requests, endpoint, call, credentials).await? {
            Ok(response) => Ok(response),
            Err(error) => Err(explain_request(&error, way).await),
        }
    }

    async fn send(
        &self,
        mut requests: Requests,
        endpoint: Endpoint,
        call: &Call,
        credentials: &Credentials,
    ) -> Result<Result<Response, hyper::Error>, Reason> {
        let host = &self.options.hosts[endpoint.host];
        let odd = |text: String| Reason::new(Obstacle::Unreachable, format!("{host}: {text}"));
        let request = self.request(host, call, credentials).map_err(|error| odd(error.to_string()))?;
        let response = match requests.send_request(request).await {
            Ok(response) => response,
            Err(error) => return Ok(Err(error)),
        };
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await;
        let body = body.map_err(|error| odd(format!("the answer breaks off: {error}")))?.to_bytes();
        self.keep(Idle { endpoint, tls: credentials.tls.clone(), since: Instant::now(), requests });
        Ok(Ok(Response { status, body }))
    }

    fn request(
        &self,
        host: &Host,
        call: &Call,
        credentials: &Credentials,
    ) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let forward = self.options.proxies.for_host(host).filter(|_| !host.is_secure);
        // A proxy that forwards has to be told where to.
        let target = match forward {
            Some(_) => format!("{host}{}", call.path),
            None => format!("{}{}", host.path, call.path),
        };
        let mut request = Request::builder()
            .method(&call.method)
            .uri(target)
            .header(header::HOST, host.authority())
            .header(header::USER_AGENT, concat!("nodewarden/", env!("CARGO_PKG_VERSION")));
        if let Some(authorization) = &credentials.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if let Some(authorization) = forward.and_then(|proxy| proxy.authorization.as_ref()) {
            request = request.header(header::PROXY_AUTHORIZATION, authorization);
        }
        if let Some(headers) = request.headers_mut() {
            for (name, value) in &self.options.headers {
                headers.insert(name, value.clone());
            }
        }
        let Some(body) = &call.body else { return request.body(Full::default()) };
        request = request.header(header::CONTENT_TYPE, body.kind);
        if body.is_gzip {
            request = request.header(header::CONTENT_ENCODING, "gzip");
        }
        request.body(Full::new(body.bytes.clone()))
    }

    fn way<'a>(&'a self, endpoint: Endpoint, credentials: &'a Credentials) -> Way<'a> {
        let host = &self.options.hosts[endpoint.host];
        Way {
            host,
            address: endpoint.address,
            proxy: self.options.proxies.for_host(host),
            tls: &self.options.tls,
            config: credentials.tls.as_ref(),
        }
    }

    async fn idle_connection(&self, endpoint: Endpoint, credentials: &Credentials) -> Option<Requests> {
        loop {
            let mut found = {
                let mut idle = self.idle();
                idle.retain(|one| one.since.elapsed() < STILL_FOR && is_same(&one.tls, &credentials.tls));
                let at = idle.iter().rposition(|one| one.endpoint == endpoint)?;
                idle.swap_remove(at)
            };
            // The server may have closed it meanwhile.
            if found.requests.ready().await.is_ok() {
                return Some(found.requests);
            }
        }
    }

    fn keep(&self, one: Idle) {
        self.idle().push(one);
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a server out and has it probed.
    fn leave_out(self: &Arc<Self>, endpoint: Endpoint, why: &str) {
        self.idle().retain(|one| one.endpoint != endpoint);
        let Some(Failed { failures, is_probed }) = self.hosts.failed(endpoint) else { return };
        if failures == 1 && self.hosts.is_any_in() {
            let server = self.options.hosts[endpoint.host].to_string();
            tracing::warn!(server, why, "a server is left out until it answers again");
        }
        if !is_probed {
            tokio::spawn(probe(Arc::downgrade(self), endpoint));
        }
    }

    /// Whether a server answers at all; what it says to somebody with few rights does not matter.
    async fn is_alive(&self, endpoint: Endpoint) -> bool {
        let Ok(credentials) = self.credentials.current().await else { return false };
        let call = Call::get("/", PROBE_PATIENCE);
        let answer = timeout(PROBE_PATIENCE, self.exchange(endpoint, &call, &credentials)).await;
        matches!(answer, Ok(Ok(response)) if !response.status.is_server_error())
    }
}

/// Until it answers, or is known no more.
async fn probe(client: Weak<Client>, endpoint: Endpoint) {
    loop {
        let Some(wait) = client.upgrade().and_then(|client| client.hosts.next_probe(endpoint)) else {
            return;
        };
        tokio::time::sleep(wait).await;
        let Some(client) = client.upgrade() else { return };
        if client.hosts.is_any_in() && !client.hosts.is_in(endpoint) && client.is_alive(endpoint).await {
            tracing::debug!(server = %client.options.hosts[endpoint.host], "a server answers again");
            return client.hosts.readmit(endpoint);
        }
    }
}

fn is_same(one: &Option<Arc<ClientConfig>>, other: &Option<Arc<ClientConfig>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
