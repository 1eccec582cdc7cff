//! Handshakes that fail, byte by byte; those that succeed are in the end-to-end tests.

use rcgen::{CertificateParams, KeyPair};

use super::{super::rules::Reading, *};
use crate::web::gate::rules::Rules;

fn rules() -> TlsRules {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".into()]).expect("a name");
    let cert = params.self_signed(&key).expect("a certificate").pem();
    TlsRules { cert: Pem::Inline(cert), key: Pem::Inline(key.serialize_pem()), ..TlsRules::default() }
}

fn live(tls: Result<Option<Arc<ServerConfig>>, String>) -> Live {
    Live::new(move || Reading {
        rules: Ok(Arc::new(Rules::default())),
        tls: tls.clone(),
        refused: None,
        files: Vec::new(),
    })
}

/// What is answered to these bytes.
async fn answer_to(bytes: &[u8], live: Live) -> Vec<u8> {
    let (server, mut client) = UnixStream::pair().expect("a pair");
    client.write_all(bytes).await.expect("sent");
    let mut answer = Vec::new();
    let (welcomed, read) = tokio::join!(welcome(server, &live), client.read_to_end(&mut answer));
    assert!(welcomed.is_none());
    read.expect("read");
    answer
}

/// The first message of a client.
fn hello() -> Vec<u8> {
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = "localhost".try_into().expect("a name");
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("written");
    hello
}

#[tokio::test]
async fn who_speaks_plain_http_is_told_so() {
    let config = Arc::new(configure(&rules()).expect("a configuration"));
    for request in ["GET / HTTP/1.1\r\n\r\n", "HEAD /metrics HTTP/1.1\r\n\r\n", "POST / HTTP/1.0\r\n\r\n"] {
        assert_eq!(answer_to(request.as_bytes(), live(Ok(Some(Arc::clone(&config))))).await, NOT_PLAIN);
    }
}

#[tokio::test]
async fn under_wrong_rules_the_handshake_ends_with_an_alert() {
    for tls in [Err("wrong".to_owned()), Ok(None)] {
        assert_eq!(answer_to(&hello(), live(tls)).await, INTERNAL_ERROR);
    }
}

#[tokio::test]
async fn what_is_no_handshake_is_refused() {
    let config = Arc::new(configure(&rules()).expect("a configuration"));
    for odd in [&b"\x00"[..], b"SSH-2.0-x\r\n", b"\x16\x03\x01\xff\xff", &[0x16, 3, 1, 0, 4, 1, 0, 0, 0]] {
        let (server, mut client) = UnixStream::pair().expect("a pair");
        client.write_all(odd).await.expect("sent");
        client.shutdown().await.expect("ended");
        assert!(welcome(server, &live(Ok(Some(Arc::clone(&config))))).await.is_none());
    }
}

#[test]
fn suites_and_groups_are_those_of_the_rules() {
    let chosen = TlsRules {
        cipher_suites: Some(vec!["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]),
        curves: Some(vec!["CurveP384", "X25519"]),
        ..TlsRules::default()
    };
    let found = provider(&chosen);
    let suites: Vec<_> = found.cipher_suites.iter().filter_map(|suite| suite.suite().as_str()).collect();
    assert_eq!(suites.len(), 4, "{suites:?}");
    assert!(suites.contains(&"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"));
    let groups: Vec<_> = found.kx_groups.iter().filter_map(|group| group.name().as_str()).collect();
    assert_eq!(groups, ["secp384r1", "X25519"]);
    // Every suite and group that is said to be here is.
    let all = provider(&TlsRules::default()).cipher_suites.len();
    assert_eq!(CIPHER_SUITES.iter().filter(|(_, here)| *here).count(), all);
    assert!(CURVES.iter().all(|(curve, here)| group(curve).is_some() == *here));
}
