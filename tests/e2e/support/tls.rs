//! Certificates made for a test, and a blocking client that shows them.

use std::{io, sync::Arc};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
};

use super::http::{self, Response};

/// A certificate with its key.
pub struct Identity {
    pub certificate: Certificate,
    pub key: KeyPair,
}

/// Who vouches for others.
pub struct Authority {
    pub identity: Identity,
    params: CertificateParams,
}

impl Authority {
    /// A new one, in which nobody trusts yet.
    pub fn new(name: &str) -> Self {
        let mut params = params(&[]);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        Self { identity: Identity { certificate, key }, params }
    }

    /// Vouches for somebody of these names.
    pub fn vouch(&self, names: &[SanType]) -> Identity {
        let mut params = params(names);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let issuer = Issuer::from_params(&self.params, &self.identity.key);
        let certificate = params.signed_by(&key, &issuer).expect("a certificate");
        Identity { certificate, key }
    }
}

fn params(names: &[SanType]) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.subject_alt_names = names.into();
    params
}

/// Somebody for whom nobody else vouches.
pub fn self_signed() -> Identity {
    let key = KeyPair::generate().expect("a key");
    Identity { certificate: params(&[]).self_signed(&key).expect("a certificate"), key }
}

pub fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().expect("ASCII"))
}

pub fn address(ip: &str) -> SanType {
    SanType::IpAddress(ip.parse().expect("an address"))
}

/// Server certificates are for this name.
pub const SERVER: &str = "localhost";

/// A client that trusts in one authority.
pub struct Client {
    config: Arc<ClientConfig>,
}

impl Client {
    /// Shows nothing, or who it is.
    pub fn new(trusted: &Authority, shows: Option<&Identity>) -> Self {
        Self::speaking(trusted, shows, rustls::ALL_VERSIONS)
    }

    /// Speaks only these versions.
    pub fn speaking(
        trusted: &Authority,
        shows: Option<&Identity>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.identity.certificate.der().clone()).expect("an authority");
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .expect("versions that there are")
            .with_root_certificates(roots);
        let mut config = match shows {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain: Vec<CertificateDer<'static>> = vec![identity.certificate.der().clone()];
                let key = PrivateKeyDer::try_from(identity.key.serialize_der()).expect("a key");
                builder.with_client_auth_cert(chain, key).expect("an identity")
            }
        };
        // As scrapers do.
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Self { config: Arc::new(config) }
    }

    /// Offers HTTP/1.1 alone, to a server that would rather speak HTTP/2.
    pub fn only_http1(mut self) -> Self {
        Arc::make_mut(&mut self.config).alpn_protocols = vec![b"http/1.1".to_vec()];
        self
    }

    /// GET with these headers.
    pub fn get(&self, address: &str, path: &str, headers: &[(&str, &str)]) -> io::Result<Response> {
        self.request("GET", address, path, headers, b"")
    }

    /// Any request.
    pub fn request(
        &self,
        method: &str,
        address: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Response> {
        let name = ServerName::try_from(SERVER).expect("a name");
        let connection = ClientConnection::new(Arc::clone(&self.config), name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(connection, http::connect(address)?);
        http::exchange(&mut stream, method, address, path, headers, body)
    }
}
