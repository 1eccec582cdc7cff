//! Certificates and keys out of PEM; errors say what is wrong with the text, whoever asks knows where it is from.

use rustls::pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject},
};

/// What keys a server or client may have, for whoever has another one.
pub const USABLE_KEYS: &str =
    "expected an RSA (2048 to 8192 bits), ECDSA (P-256, P-384) or Ed25519 key without a password";

/// Every certificate; at least one.
pub fn certificates(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    match found {
        Ok(found) if found.is_empty() => Err("there is no '-----BEGIN CERTIFICATE-----' in it".into()),
        Ok(found) => Ok(found),
        Err(error) => Err(format!("not PEM: {error}")),
    }
}

/// The first private key.
pub fn private_key(bytes: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(bytes).map_err(|error| match error {
        pem::Error::NoItemsFound => "there is no private key without a password in it".into(),
        error => format!("not PEM: {error}"),
    })
}
