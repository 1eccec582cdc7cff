//! TLS on the metrics listener: rules become the library's configuration, connections become secured ones.
//!
//! HTTP/1.1 is spoken on them, whatever `http2` says: a scraper offers both and takes what there is, and the crate for HTTP/2
//! would make the binary 0.9 MB larger for everybody.

use std::{fs, io, sync::Arc, time::Duration};

use rustix::net::{RecvFlags, recv};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, InconsistentKeys, RootCertStore,
    ServerConfig, SignatureScheme, SupportedProtocolVersion,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, SupportedKxGroup, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime},
    server::{
        Acceptor, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};
use tracing::debug;

use super::{
    live::Live,
    rules::{ClientAuth, Pem, TlsRules, Versions},
};
use crate::{certificate, pem};

/// How long a client may take for its handshake.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is said to who speaks plain HTTP, as Go's servers say it.
const NOT_PLAIN: &[u8] = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// A fatal alert: "internal_error".
const INTERNAL_ERROR: &[u8] = &[21, 3, 3, 0, 2, 2, 80];

/// The suites for TLS 1.2 by Go's names, with whether the library has them too.
pub const CIPHER_SUITES: &[(&str, bool)] = &[
    ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", true),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", true),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", true),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", true),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", true),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", true),
    // Of TLS 1.3, which always has all of its suites, as in Go.
    ("TLS_AES_128_GCM_SHA256", true),
    ("TLS_AES_256_GCM_SHA384", true),
    ("TLS_CHACHA20_POLY1305_SHA256", true),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", false),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA", false),
    ("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", false),
    ("TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA", false),
];

/// The groups for the key exchange by Go's names, with whether the library has them too.
pub const CURVES: &[(&str, bool)] =
    &[("CurveP256", true), ("CurveP384", true), ("X25519", true), ("CurveP521", false)];

/// Why there is no configuration, and which part of the rules is to blame.
#[derive(Debug, PartialEq, Eq)]
pub struct TlsError {
    /// The part.
    pub part: Part,
    /// What is wrong with it.
    pub text: String,
}

/// A part of the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The server's chain.
    Cert,
    /// Its key.
    Key,
    /// Who vouches for clients.
    ClientCa,
    /// Versions and suites that do not go together.
    CipherSuites,
}

impl Part {
    fn fails(self, text: impl Into<String>) -> TlsError {
        TlsError { part: self, text: text.into() }
    }
}

/// The library's configuration for `rules`; certificates and keys are read now.
pub fn configure(rules: &TlsRules) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(provider(rules));
    let chain = certificates(&rules.cert, Part::Cert)?;
    let key = private_key(&rules.key)?;
    let verifier = client_verifier(rules, &provider)?;
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions(rules.versions))
        .map_err(|_| {
            Part::CipherSuites.fails("none of these suites is one of TLS 1.2, and 1.3 is not allowed")
        })?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            Part::Key.fails("the key is not that of the certificate")
        }
        Error::InvalidCertificate(_) => Part::Cert.fails("the certificate could not be understood"),
        _ => Part::Key.fails(pem::USABLE_KEYS),
    })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn versions(versions: Versions) -> &'static [&'static SupportedProtocolVersion] {
    static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    match versions {
        Versions::Both => &BOTH,
        Versions::Only12 => &BOTH[1..],
        Versions::Only13 => &BOTH[..1],
    }
}

fn provider(rules: &TlsRules) -> CryptoProvider {
    let mut provider = ring::default_provider();
    if let Some(wanted) = &rules.cipher_suites {
        // The library says `TLS13_AES_128_GCM_SHA256`, and the suites of 1.2 as Go says them.
        provider.cipher_suites.retain(|suite| {
            let name = suite.suite().as_str().unwrap_or_default();
            suite.tls13().is_some() || wanted.contains(&name)
        });
    }
    if let Some(wanted) = &rules.curves {
        provider.kx_groups = wanted.iter().filter_map(|curve| group(curve)).collect();
    }
    provider
}

fn group(curve: &str) -> Option<&'static dyn SupportedKxGroup> {
    match curve {
        "CurveP256" => Some(ring::kx_group::SECP256R1),
        "CurveP384" => Some(ring::kx_group::SECP384R1),
        "X25519" => Some(ring::kx_group::X25519),
        _ => None,
    }
}

fn read(pem: &Pem, part: Part) -> Result<Vec<u8>, TlsError> {
    match pem {
        Pem::Inline(text) => Ok(text.as_bytes().to_vec()),
        Pem::File(path) => {
            fs::read(path).map_err(|error| part.fails(format!("could not read {}: {error}", path.display())))
        }
    }
}

fn certificates(pem: &Pem, part: Part) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    pem::certificates(&read(pem, part)?).map_err(|error| part.fails(error))
}

fn private_key(pem: &Pem) -> Result<PrivateKeyDer<'static>, TlsError> {
    pem::private_key(&read(pem, Part::Key)?).map_err(|error| Part::Key.fails(error))
}

/// Who looks at the clients' certificates; `None` when nobody asks for one.
fn client_verifier(
    rules: &TlsRules,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let (verifies, mandatory) = match rules.client_auth {
        ClientAuth::NoClientCert => return Ok(None),
        ClientAuth::RequestClientCert => (false, false),
        ClientAuth::RequireAnyClientCert => (false, true),
        ClientAuth::VerifyClientCertIfGiven => (true, false),
        ClientAuth::RequireAndVerifyClientCert => (true, true),
    };
    let trust = match &rules.client_ca {
        Some(ca) if verifies => Some(Trust::new(certificates(ca, Part::ClientCa)?, provider)?),
        _ => None,
    };
    Ok(Some(Arc::new(ClientVerifier {
        trust,
        // As in Go, who shows nothing can't show one of the names.
        mandatory: mandatory || rules.allowed_sans.is_some(),
        allowed_sans: rules.allowed_sans.clone(),
        provider: Arc::clone(provider),
    })))
}

/// Who vouches for clients.
#[derive(Debug)]
struct Trust {
    roots: Vec<CertificateDer<'static>>,
    chains: Arc<dyn ClientCertVerifier>,
}

impl Trust {
    fn new(roots: Vec<CertificateDer<'static>>, provider: &Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let mut store = RootCertStore::empty();
        for root in &roots {
            store
                .add(root.clone())
                .map_err(|_| Part::ClientCa.fails("a certificate in it could not be understood"))?;
        }
        let chains =
            WebPkiClientVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider)).build();
        let chains = chains.map_err(|error| Part::ClientCa.fails(error.to_string()))?;
        Ok(Self { roots, chains })
    }

    fn verify(
        &self,
        client: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        if !self.roots.iter().any(|root| root == client) {
            return self.chains.verify_client_cert(client, intermediates, now).map(|_| ());
        }
        // One that is trusted itself, such as a self-signed one, needs nobody else; the library would refuse it.
        let found = certificate::parse(client).ok_or(CertificateError::BadEncoding)?;
        found.check_time(now)?;
        match found.is_not_for_clients {
            true => Err(CertificateError::InvalidPurpose.into()),
            false => Ok(()),
        }
    }
}

/// The five ways of Go to look at clients, and the names that are let in.
#[derive(Debug)]
struct ClientVerifier {
    trust: Option<Trust>,
    mandatory: bool,
    allowed_sans: Option<Vec<String>>,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.trust.as_ref().map_or(&[], |trust| trust.chains.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        client: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if let Some(trust) = &self.trust {
            trust.verify(client, intermediates, now)?;
        }
        if let Some(allowed) = &self.allowed_sans {
            let found = certificate::parse(client).ok_or(CertificateError::BadEncoding)?;
            if !found.names.iter().any(|name| allowed.contains(name)) {
                return Err(CertificateError::ApplicationVerificationFailure.into());
            }
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A connection whose first bytes can be looked at without taking them.
pub trait Peek {
    /// Waits for bytes and says how many of them there are, up to the length of `first`.
    fn peek(&self, first: &mut [u8]) -> impl Future<Output = io::Result<usize>> + Send;
}

impl Peek for TcpStream {
    async fn peek(&self, first: &mut [u8]) -> io::Result<usize> {
        Self::peek(self, first).await
    }
}

impl Peek for UnixStream {
    async fn peek(&self, first: &mut [u8]) -> io::Result<usize> {
        let look = || Ok(recv(self, &mut *first, RecvFlags::PEEK | RecvFlags::DONTWAIT)?.0);
        self.async_io(Interest::READABLE, look).await
    }
}

/// The connection after its handshake under the rules of the moment; `None` when there was none.
pub async fn welcome<S>(stream: S, live: &Live) -> Option<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Peek + Send + Unpin,
{
    match timeout(PATIENCE, handshake(stream, live)).await {
        Ok(Ok(stream)) => return Some(stream),
        Ok(Err(error)) => debug!(%error, "no TLS handshake"),
        Err(_) => debug!("a TLS handshake took too long"),
    }
    None
}

async fn handshake<S>(mut stream: S, live: &Live) -> io::Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Peek + Send + Unpin,
{
    let mut first = [0; 5];
    stream.peek(&mut first).await?;
    // Go looks at the same five bytes.
    if [b"GET /", b"HEAD ", b"POST ", b"PUT /", b"OPTIO"].contains(&&first) {
        // A connection that is closed with something unread is reset, and the answer with it.
        let _request = stream.read(&mut [0; 16 * 1024]).await?;
        stream.write_all(NOT_PLAIN).await?;
        return Err(io::Error::other("the client speaks plain HTTP"));
    }
    let mut hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    match live.tls() {
        Ok(Some(config)) => hello.into_stream(config).await,
        // As in Go, also when the file speaks of no TLS any more: that needs a restart.
        _ => {
            hello.io.write_all(INTERNAL_ERROR).await?;
            hello.io.shutdown().await?;
            Err(io::Error::other("the web configuration is wrong, or speaks of no TLS any more"))
        }
    }
}

#[cfg(test)]
mod tests;
