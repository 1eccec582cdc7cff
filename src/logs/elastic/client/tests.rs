//! The client against servers with certificates of every kind, behind proxies, and coming and going.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair, SanType, date_time_ymd,
};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::PrivateKeyDer,
    server::{NoClientAuth, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio::{
    io::{
        AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, copy_bidirectional,
    },
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::logs::elastic::{
    auth::{Secret, SecretFrom},
    proxy::Proxy,
};

/// A certificate with its key.
struct Identity {
    certificate: Certificate,
    params: CertificateParams,
    key: KeyPair,
}

impl Identity {
    fn new(change: impl FnOnce(&mut CertificateParams), by: Option<&Self>) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.subject_alt_names = vec![
            SanType::IpAddress("127.0.0.1".parse().expect("an address")),
            SanType::DnsName("es.example".try_into().expect("a name")),
        ];
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = match by {
            None => params.self_signed(&key),
            Some(by) => params.signed_by(&key, &Issuer::from_params(&by.params, &by.key)),
        };
        Self { certificate: certificate.expect("a certificate"), params, key }
    }

    fn authority() -> Self {
        Self::new(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained), None)
    }

    fn server(by: &Self) -> Self {
        Self::new(|_| (), Some(by))
    }
}

/// Files of the agent.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).expect("written");
        path
    }
}

/// A server that answers each request with what it was asked, and a status of the test's.
struct Server {
    address: SocketAddr,
    status: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
}

/// What a server speaks.
#[derive(Clone)]
enum Speaks {
    Plain,
    Tls(Arc<ServerConfig>),
}

fn tls(server: &Identity, clients: Arc<dyn ClientCertVerifier>) -> Speaks {
    let key = PrivateKeyDer::try_from(server.key.serialize_der()).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(clients)
        .with_single_cert(vec![server.certificate.der().clone()], key);
    Speaks::Tls(Arc::new(config.expect("a configuration")))
}

fn anybody() -> Arc<dyn ClientCertVerifier> {
    Arc::new(NoClientAuth)
}

fn only_of(authority: &Identity) -> Arc<dyn ClientCertVerifier> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate.der().clone()).expect("an authority");
    let provider = Arc::new(ring::default_provider());
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().expect("a verifier")
}

impl Server {
    async fn start(speaks: Speaks) -> Self {
        Self::start_at("127.0.0.1:0".parse().expect("an address"), speaks).await
    }

    async fn start_at(address: SocketAddr, speaks: Speaks) -> Self {
        let listener = TcpListener::bind(address).await.expect("a port");
        let (status, connections) = (Arc::new(AtomicUsize::new(200)), Arc::new(AtomicUsize::new(0)));
        let server = Self {
            address: listener.local_addr().expect("an address"),
            status: Arc::clone(&status),
            connections: Arc::clone(&connections),
        };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Relaxed);
                let (speaks, status) = (speaks.clone(), Arc::clone(&status));
                tokio::spawn(async move {
                    match speaks {
                        Speaks::Plain => converse(stream, &status).await,
                        Speaks::Tls(config) => match TlsAcceptor::from(config).accept(stream).await {
                            Ok(stream) => converse(stream, &status).await,
                            Err(_) => None,
                        },
                    }
                });
            }
        });
        server
    }

    fn host(&self, is_secure: bool) -> Host {
        Host { is_secure, name: self.address.ip().to_string(), port: self.address.port(), path: "/es".into() }
    }
}

/// A status that hangs up without an answer.
const NEVER: usize = 900;
/// The same for one request.
const ONCE: usize = 901;

/// Answers with the request's head.
async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, status: &AtomicUsize) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            match stream.read_line(&mut line).await {
                Ok(1..) => {}
                Ok(0) => return None,
                // It is no text.
                Err(_) => return stream.write_all(b"HTTP/1.1 400 x\r\n\r\n").await.ok(),
            }
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim().parse().expect("a length");
            }
            head.push_str(&line);
        }
        stream.read_exact(&mut vec![0; length]).await.ok()?;
        let hangs_up = status.compare_exchange(ONCE, 200, Relaxed, Relaxed).is_ok();
        let status = status.load(Relaxed);
        if hangs_up || status == NEVER {
            return None;
        }
        let length = head.len();
        let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n\r\n{head}");
        stream.write_all(answer.as_bytes()).await.ok()?;
    }
}

fn options(hosts: Vec<Host>) -> Options {
    Options { hosts, auth: Auth::None, tls: Tls::default(), proxies: Proxies::default(), headers: Vec::new() }
}

fn get() -> Call {
    Call::get("/_x?y=z", Duration::from_secs(20))
}

async fn ask(client: &Arc<Client>) -> Result<String, String> {
    let response = client.ask(&get()).await.map_err(|reason| reason.text)?;
    Ok(String::from_utf8(response.body.to_vec()).expect("text"))
}

/// What comes of asking this server with these settings.
async fn asked(server: &Server, tls: Tls) -> Result<String, String> {
    ask(&Client::new(Options { tls, ..options(vec![server.host(true)]) })).await
}

#[tokio::test]
async fn a_server_s_certificate_is_looked_at() {
    let (files, authority, stranger) = (Files::new(), Identity::authority(), Identity::authority());
    let server = Server::start(tls(&Identity::server(&authority), anybody())).await;
    let at = server.address;
    let ca = |identity: &Identity| Tls {
        ca: Some(files.write("ca.pem", &identity.certificate.pem())),
        ..Tls::default()
    };
    let unknown = format!("certificate of {at} is signed by an unknown CA: set elasticsearch.tls.ca");
    assert_eq!(asked(&server, Tls::default()).await, Err(unknown));
    let other = asked(&server, ca(&stranger)).await.expect_err("another CA");
    assert!(other.contains("is signed by a CA that is not in") && other.contains("ca.pem"), "{other}");
    let head = asked(&server, ca(&authority)).await.expect("trusted");
    assert!(head.starts_with("GET /es/_x?y=z HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("host: {at}\r\n")), "{head}");
    let named = |name: &str| Tls { server_name: Some(name.into()), ..ca(&authority) };
    asked(&server, named("es.example")).await.expect("one of its names");
    assert_eq!(
        asked(&server, named("db.example")).await,
        Err(format!(
            "certificate of {at} is for 127.0.0.1, es.example, not for db.example: use such a name in elasticsearch.hosts, or \
             set elasticsearch.tls.server_name"
        ))
    );
    let unseen = Tls { insecure_skip_verify: true, ..named("db.example") };
    asked(&server, unseen).await.expect("not looked at");
}

#[tokio::test]
async fn a_certificate_out_of_its_time_is_said_with_the_day() {
    let (files, authority) = (Files::new(), Identity::authority());
    let ca = Some(files.write("ca.pem", &authority.certificate.pem()));
    for (from, to, expected) in [
        (2001, 2002, "has expired on 2002-01-01T00:00:00Z"),
        (2101, 2102, "is valid from 2101-01-01T00:00:00Z on: check the clock of this machine"),
    ] {
        let times = |params: &mut CertificateParams| {
            params.not_before = date_time_ymd(from, 1, 1);
            params.not_after = date_time_ymd(to, 1, 1);
        };
        // Vouched for by a CA, and trusted by itself.
        let vouched = Identity::new(times, Some(&authority));
        let alone = Identity::new(times, None);
        let alone_ca = Some(files.write("alone.pem", &alone.certificate.pem()));
        for (server, ca) in [(vouched, ca.clone()), (alone, alone_ca)] {
            let server = Server::start(tls(&server, anybody())).await;
            let seen = asked(&server, Tls { ca, ..Tls::default() }).await;
            assert_eq!(seen, Err(format!("certificate of {} {expected}", server.address)));
        }
    }
}

/// As `openssl req -x509` makes one: its own CA.
#[tokio::test]
async fn a_self_signed_certificate_is_trusted_when_it_is_named() {
    let (files, alone) = (Files::new(), Identity::authority());
    let server = Server::start(tls(&alone, anybody())).await;
    let unknown = asked(&server, Tls::default()).await.expect_err("unknown");
    assert!(unknown.ends_with("is signed by an unknown CA: set elasticsearch.tls.ca"), "{unknown}");
    let ca = Some(files.write("ca.pem", &alone.certificate.pem()));
    asked(&server, Tls { ca: ca.clone(), ..Tls::default() }).await.expect("trusted");
    let other = asked(&server, Tls { ca, server_name: Some("db.example".into()), ..Tls::default() }).await;
    assert!(other.is_err_and(|text| text.contains("es.example, not for db.example")));
}

#[tokio::test]
async fn a_server_may_ask_who_the_client_is() {
    let (files, authority) = (Files::new(), Identity::authority());
    let server = Server::start(tls(&Identity::server(&authority), only_of(&authority))).await;
    let ca = Some(files.write("ca.pem", &authority.certificate.pem()));
    let mute = Tls { ca, ..Tls::default() };
    let refused = asked(&server, mute.clone()).await.expect_err("nobody");
    let expected = format!(
        "{} asks for a client certificate: set elasticsearch.tls.cert and elasticsearch.tls.key",
        server.address
    );
    assert_eq!(refused, expected);
    let shows = |identity: &Identity| Tls {
        cert: Some(files.write("cert.pem", &identity.certificate.pem())),
        key: Some(files.write("key.pem", &identity.key.serialize_pem())),
        ..mute.clone()
    };
    asked(&server, shows(&Identity::server(&authority))).await.expect("known");
    let stranger =
        asked(&server, shows(&Identity::server(&Identity::authority()))).await.expect_err("unknown");
    assert!(stranger.contains("refuses the client certificate: check elasticsearch.tls.cert"), "{stranger}");
    let half = Tls { key: None, ..shows(&authority) };
    assert_eq!(half.configure().err().map(|error| error.key), Some("cert"));
}

#[tokio::test]
async fn a_wrong_scheme_is_said() {
    let plain = Server::start(Speaks::Plain).await;
    let expected = format!("{} does not speak TLS: write http:// instead of https://", plain.address);
    assert_eq!(asked(&plain, Tls::default()).await, Err(expected));
    let secure = Server::start(tls(&Identity::authority(), anybody())).await;
    let expected = format!("{} speaks TLS: write https:// instead of http://", secure.address);
    assert_eq!(ask(&Client::new(options(vec![secure.host(false)]))).await, Err(expected));
    // It neither answers nor speaks TLS.
    plain.status.store(NEVER, Relaxed);
    let mute = ask(&Client::new(options(vec![plain.host(false)]))).await.expect_err("no answer");
    assert!(mute.starts_with(&format!("http://{}/es: ", plain.address)), "{mute}");
}

#[tokio::test]
async fn secrets_and_headers_go_along() {
    let (files, server) = (Files::new(), Server::start(Speaks::Plain).await);
    let key = files.write("key", "first\n");
    let header = (HeaderName::from_static("x-tenant"), HeaderValue::from_static("shop"));
    let client = Client::new(Options {
        auth: Auth::ApiKey(SecretFrom::File(key)),
        headers: vec![header],
        ..options(vec![server.host(false)])
    });
    let head = ask(&client).await.expect("an answer");
    assert!(
        head.contains("authorization: ApiKey first\r\n") && head.contains("x-tenant: shop\r\n"),
        "{head}"
    );
    assert_eq!(server.connections.load(Relaxed), 1);
    assert!(ask(&client).await.is_ok());
    assert_eq!(server.connections.load(Relaxed), 1, "a connection is kept");
}

/// What is between two ports; `None` where a tunnel is not opened.
async fn start_proxy(opens: bool) -> (Proxy, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&heads);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.expect("a head"));
            }
            let head = String::from_utf8(head).expect("text");
            let target = head.split(' ').nth(1).expect("a target").to_owned();
            let is_tunnel = head.starts_with("CONNECT ");
            let is_known = head.to_lowercase().contains("proxy-authorization: basic bwu6cgfzcw==\r\n");
            seen.lock().expect("unpoisoned").push(head);
            let answer = match (opens, is_known) {
                (_, false) => "HTTP/1.1 407 x\r\ncontent-length: 0\r\n\r\n",
                (false, _) => "HTTP/1.1 403 x\r\ncontent-length: 0\r\n\r\n",
                (true, _) if is_tunnel => "HTTP/1.1 200 x\r\n\r\n",
                (true, _) => "HTTP/1.1 200 x\r\ncontent-length: 2\r\n\r\nok",
            };
            stream.write_all(answer.as_bytes()).await.expect("answered");
            if opens && is_known && is_tunnel {
                let mut server = TcpStream::connect(target).await.expect("the server");
                tokio::spawn(async move { copy_bidirectional(&mut stream, &mut server).await });
            }
        }
    });
    (Proxy { name: "127.0.0.1".into(), port, authorization: None }, heads)
}

#[tokio::test]
async fn a_proxy_is_asked_for_a_tunnel_or_told_where_to() {
    let (files, authority) = (Files::new(), Identity::authority());
    let server = Server::start(tls(&Identity::server(&authority), anybody())).await;
    let (proxy, heads) = start_proxy(true).await;
    let secure = Tls { ca: Some(files.write("ca.pem", &authority.certificate.pem())), ..Tls::default() };
    let through = |proxy: &Proxy, is_secure| {
        Client::new(Options {
            tls: secure.clone(),
            proxies: Proxies::fixed(proxy.clone()),
            auth: Auth::Bearer(SecretFrom::Text(Secret::new("token"))),
            ..options(vec![server.host(is_secure)])
        })
    };
    let known = proxy.clone().with_user_info("me:pass");
    // The proxy's password is "pass", as the base-64 above says, with another last letter.
    let known = Proxy { authorization: Some(HeaderValue::from_static("Basic bWU6cGFzcw==")), ..known };
    let head = ask(&through(&known, true)).await.expect("through the tunnel");
    assert!(head.starts_with("GET /es/_x?y=z ") && !head.contains("proxy-authorization"), "{head}");
    let sent = heads.lock().expect("unpoisoned")[0].clone();
    assert!(sent.starts_with(&format!("CONNECT {} HTTP/1.1\r\n", server.address)), "{sent}");
    assert!(!sent.contains("token"), "the proxy does not see who the agent is: {sent}");
    assert_eq!(ask(&through(&known, false)).await.as_deref(), Ok("ok"));
    let sent = heads.lock().expect("unpoisoned")[1].clone();
    assert!(sent.starts_with(&format!("GET http://{}/es/_x?y=z HTTP/1.1\r\n", server.address)), "{sent}");
    for is_secure in [true, false] {
        let refused = ask(&through(&proxy, is_secure)).await;
        assert!(refused.is_err_and(|text| text.starts_with("the proxy asks for a password: ")));
    }
    let (closed, _) = start_proxy(false).await;
    let closed = Proxy { port: closed.port, ..known };
    let expected = format!("the proxy {closed} opens no way to {}: HTTP 403", server.address);
    assert_eq!(ask(&through(&closed, true)).await, Err(expected));
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_costs_no_failure() {
    let server = Server::start(Speaks::Plain).await;
    let client = Client::new(options(vec![server.host(false)]));
    ask(&client).await.expect("an answer");
    // The next request on the kept connection is not answered.
    server.status.store(ONCE, Relaxed);
    ask(&client).await.expect("an answer");
    assert_eq!(server.connections.load(Relaxed), 2);
}

#[tokio::test]
async fn a_server_that_fails_is_left_out_and_comes_back_when_it_answers() {
    let (bad, good) = (Server::start(Speaks::Plain).await, Server::start(Speaks::Plain).await);
    let client = Client::new(options(vec![bad.host(false), good.host(false)]));
    bad.status.store(503, Relaxed);
    let mut statuses = Vec::new();
    for _ in 0..20 {
        statuses.push(client.ask(&get()).await.expect("an answer").status.as_u16());
    }
    assert!(statuses.iter().filter(|status| **status == 503).count() <= 1, "{statuses:?}");
    bad.status.store(200, Relaxed);
    let bad_endpoint = Endpoint { host: 0, address: Some(bad.address) };
    while !client.hosts.is_in(bad_endpoint) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (mut first, mut second) = (false, false);
    while !(first && second) {
        let head = ask(&client).await.expect("an answer");
        first |= head.contains(&bad.address.to_string());
        second |= head.contains(&good.address.to_string());
    }
}
