//! What a web configuration file asks for, as plain values.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use hyper::header::{HeaderName, HeaderValue};
use rustls::ServerConfig;

/// What is asked of each request and added to each answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rules {
    /// Added to answers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Users with the bcrypt hashes of their passwords; when there are none, everybody may ask.
    pub users: BTreeMap<String, String>,
    /// How many requests are answered in which time.
    pub rate: Option<Rate>,
}

/// One request per `interval` on average, `burst` of them at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// The time in which one more request is allowed.
    pub interval: Duration,
    /// How many are saved up at most.
    pub burst: u64,
}

/// How connections are secured.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TlsRules {
    /// The server's chain.
    pub cert: Pem,
    /// Its private key.
    pub key: Pem,
    /// What is asked of clients.
    pub client_auth: ClientAuth,
    /// Who vouches for clients.
    pub client_ca: Option<Pem>,
    /// One of these names must be in a client's certificate.
    pub allowed_sans: Option<Vec<String>>,
    /// Which versions are spoken.
    pub versions: Versions,
    /// The suites of TLS 1.2 by Go's names, those that there are here; `None` is all of them. TLS 1.3 always has all of its own.
    pub cipher_suites: Option<Vec<&'static str>>,
    /// Groups for the key exchange by Go's names, those that there are here; `None` is all of them.
    pub curves: Option<Vec<&'static str>>,
}

/// A text in PEM.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// In a file of its own.
    File(PathBuf),
    /// In the configuration file itself.
    Inline(String),
}

impl Default for Pem {
    fn default() -> Self {
        Self::Inline(String::new())
    }
}

impl std::fmt::Debug for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            // It may be a private key.
            Self::Inline(_) => f.write_str("***"),
        }
    }
}

/// Versions of TLS that are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Versions {
    /// 1.2 and 1.3.
    #[default]
    Both,
    /// 1.2 only.
    Only12,
    /// 1.3 only.
    Only13,
}

/// What is asked of clients; the names are those of Go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientAuth {
    /// Nothing.
    #[default]
    NoClientCert,
    /// A certificate, but none will do, and so will any.
    RequestClientCert,
    /// Any certificate.
    RequireAnyClientCert,
    /// Who shows a certificate must have one that the CA vouches for.
    VerifyClientCertIfGiven,
    /// A certificate that the CA vouches for.
    RequireAndVerifyClientCert,
}

/// A file and those that it names, as they were read.
#[derive(Clone)]
pub struct Reading {
    /// For requests.
    pub rules: Result<Arc<Rules>, String>,
    /// For connections; `None` leaves them as they are.
    pub tls: Result<Option<Arc<ServerConfig>>, String>,
    /// What is wrong with some users, who are refused.
    pub refused: Option<String>,
    /// All that was looked at.
    pub files: Vec<PathBuf>,
}

/// What a file asks for is not known, as it is wrong; what is wrong was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the file of --web.config.file is wrong")]
pub struct NotKnown;
