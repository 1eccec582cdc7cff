//! TLS towards a server: who is trusted, who the agent shows itself as, and what an error means.
//!
//! An own CA is trusted instead of the usual ones, not beside them: who runs a CA for one server does not mean that the web's
//! should be able to stand in for it. Without one, those of the image are trusted, and where the image has none, those of
//! Mozilla that are built in.

use std::{fs, path::PathBuf, sync::Arc};

use jiff::Timestamp;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, InconsistentKeys,
    InvalidMessage, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

use super::address::Host;
use crate::{certificate, pem};

/// Where systems keep the certificates that they trust, in one file.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// How TLS is spoken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// PEM with the CAs that are trusted, instead of the usual ones; a server's own certificate will do.
    pub ca: Option<PathBuf>,
    /// PEM with the agent's certificate and what lies between it and its CA.
    pub cert: Option<PathBuf>,
    /// PEM with its key.
    pub key: Option<PathBuf>,
    /// The name that the server's certificate has to have, instead of the host's.
    pub server_name: Option<String>,
    /// The server's certificate is not looked at.
    pub insecure_skip_verify: bool,
}

/// Why TLS can't be spoken, and which key is to blame.
#[derive(Debug, PartialEq, Eq)]
pub struct TlsError {
    /// The key below `elasticsearch.tls`.
    pub key: &'static str,
    /// What is wrong.
    pub text: String,
}

impl std::fmt::Display for TlsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "elasticsearch.tls.{}: {}", self.key, self.text)
    }
}

impl Tls {
    /// The files that it is made of.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.ca, &self.cert, &self.key].into_iter().flatten()
    }

    /// The library's configuration; certificates and keys are read now.
    pub fn configure(&self) -> Result<ClientConfig, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError { key: "ca", text: error.to_string() })?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(self.verifier(provider)?));
        let mut config = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                let chain = read(cert, "cert", pem::certificates)?;
                let private = read(key, "key", pem::private_key)?;
                builder.with_client_auth_cert(chain, private).map_err(|error| match error {
                    Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                        TlsError { key: "key", text: "the key is not that of the certificate".into() }
                    }
                    Error::InvalidCertificate(_) => {
                        TlsError { key: "cert", text: "the certificate could not be understood".into() }
                    }
                    _ => TlsError { key: "key", text: pem::USABLE_KEYS.into() },
                })?
            }
            (Some(_), None) => {
                return Err(TlsError { key: "cert", text: "a certificate without its key; add key".into() });
            }
            (None, Some(_)) => {
                return Err(TlsError { key: "key", text: "a key without its certificate; add cert".into() });
            }
            (None, None) => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    /// The name that a host's certificate has to have.
    pub fn name_of(&self, host: &Host) -> Result<ServerName<'static>, String> {
        let name = self.server_name.as_deref().unwrap_or(&host.name);
        ServerName::try_from(name.to_owned()).map_err(|_| {
            format!("{name} is no name that a certificate could have: set elasticsearch.tls.server_name")
        })
    }

    fn verifier(&self, provider: Arc<CryptoProvider>) -> Result<Verifier, TlsError> {
        if self.insecure_skip_verify {
            return Ok(Verifier { chains: None, trusted: Vec::new(), provider });
        }
        let trusted = match &self.ca {
            Some(ca) => read(ca, "ca", pem::certificates)?,
            None => Vec::new(),
        };
        let fails = |text: String| TlsError { key: "ca", text };
        let mut roots = RootCertStore::empty();
        for one in &trusted {
            roots
                .add(one.clone())
                .map_err(|_| fails("a certificate in it could not be understood".into()))?;
        }
        if self.ca.is_none() {
            roots = usual_roots();
        }
        let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let chains = chains.build().map_err(|error| fails(error.to_string()))?;
        Ok(Verifier { chains: Some(chains), trusted, provider })
    }
}

fn read<T>(
    path: &PathBuf,
    key: &'static str,
    parse: impl FnOnce(&[u8]) -> Result<T, String>,
) -> Result<T, TlsError> {
    let bytes = fs::read(path)
        .map_err(|error| TlsError { key, text: format!("could not read {}: {error}", path.display()) })?;
    parse(&bytes).map_err(|error| TlsError { key, text: format!("{}: {error}", path.display()) })
}

/// Those of the image, else those that are built in.
fn usual_roots() -> RootCertStore {
    let bundle = BUNDLES.iter().find_map(|path| pem::certificates(&fs::read(path).ok()?).ok());
    let mut roots = RootCertStore::empty();
    match bundle {
        Some(bundle) => _ = roots.add_parsable_certificates(bundle),
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    }
    roots
}

/// Looks at the server's certificate.
#[derive(Debug)]
struct Verifier {
    /// `None` looks at nothing.
    chains: Option<Arc<WebPkiServerVerifier>>,
    /// What the user trusts by name.
    trusted: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        server: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chains) = &self.chains else { return Ok(ServerCertVerified::assertion()) };
        if !self.trusted.iter().any(|one| one == server) {
            return chains.verify_server_cert(server, intermediates, name, ocsp, now);
        }
        // A self-signed one, as `openssl req -x509` makes: it needs nobody else, and the library would refuse it as a CA's.
        let found = certificate::parse(server).ok_or(CertificateError::BadEncoding)?;
        found.check_time(now)?;
        verify_server_name(&ParsedCertificate::try_from(server)?, name)?;
        Ok(ServerCertVerified::assertion())
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

/// What an error of the library means to whoever runs the agent.
pub fn explain(error: &Error, host: &Host, tls: &Tls) -> String {
    let at = host.authority();
    match error {
        Error::InvalidCertificate(what) => explain_certificate(what, &at, host, tls),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            format!("{at} does not speak TLS: write http:// instead of https://")
        }
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            format!(
                "{at} asks for a client certificate: set elasticsearch.tls.cert and elasticsearch.tls.key"
            )
        }
        Error::AlertReceived(AlertDescription::HandshakeFailure | AlertDescription::BadCertificate)
            if tls.cert.is_none() =>
        {
            format!(
                "{at} breaks off the TLS handshake; if it asks for a client certificate, set elasticsearch.tls.cert and \
                 elasticsearch.tls.key ({error})"
            )
        }
        Error::AlertReceived(
            AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::DecryptError,
        ) => format!("{at} refuses the client certificate: check elasticsearch.tls.cert ({error})"),
        _ => format!("no TLS with {at}: {error}"),
    }
}

fn explain_certificate(what: &CertificateError, at: &str, host: &Host, tls: &Tls) -> String {
    let name = tls.server_name.as_deref().unwrap_or(&host.name);
    match what {
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("certificate of {at} has expired on {}", date(*not_after))
        }
        CertificateError::Expired => format!("certificate of {at} has expired"),
        CertificateError::NotValidYetContext { not_before, .. } => format!(
            "certificate of {at} is valid from {} on: check the clock of this machine",
            date(*not_before)
        ),
        CertificateError::NotValidYet => {
            format!("certificate of {at} is not valid yet: check the clock of this machine")
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            let names = match &presented[..] {
                [] => "no name at all".to_owned(),
                names => names.iter().map(|name| bare(name)).collect::<Vec<_>>().join(", "),
            };
            format!(
                "certificate of {at} is for {names}, not for {name}: use such a name in elasticsearch.hosts, or set \
                 elasticsearch.tls.server_name"
            )
        }
        CertificateError::NotValidForName => {
            format!("certificate of {at} is not for {name}: set elasticsearch.tls.server_name")
        }
        what if is_unknown_issuer(what) => match &tls.ca {
            None => format!("certificate of {at} is signed by an unknown CA: set elasticsearch.tls.ca"),
            Some(ca) => format!(
                "certificate of {at} is signed by a CA that is not in {}: check elasticsearch.tls.ca",
                ca.display()
            ),
        },
        what => format!("certificate of {at} is not good: {what}"),
    }
}

/// A self-signed one that is a CA's, too, is refused for that before its issuer is looked for. A CA that was made anew under
/// its old name has another key: that is a bad signature.
fn is_unknown_issuer(what: &CertificateError) -> bool {
    match what {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => true,
        CertificateError::Other(other) => other.to_string().contains("CaUsedAsEndEntity"),
        _ => false,
    }
}

/// `DnsName("es.logging")`, `IpAddress(127.0.0.1)`: what is in the brackets.
fn bare(name: &str) -> &str {
    let inside = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
    inside.trim_matches('"')
}

fn date(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).map_or_else(|_| "a day far away".to_owned(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_own_ca_there_are_those_of_the_image_or_those_built_in() {
        assert!(usual_roots().len() > 50);
        assert!(webpki_roots::TLS_SERVER_ROOTS.len() > 50);
    }

    #[test]
    fn names_are_shown_bare() {
        for (shown, name) in
            [("DnsName(\"es.logging\")", "es.logging"), ("IpAddress(127.0.0.1)", "127.0.0.1"), ("es", "es")]
        {
            assert_eq!(bare(shown), name);
        }
    }
}
