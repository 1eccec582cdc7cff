//! Proxies: which hosts are reached through one, and how one is asked for a tunnel.

use std::net::IpAddr;

use base64::{Engine, engine::general_purpose::STANDARD};
use hyper::header::HeaderValue;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::address::Host;

/// An HTTP proxy. It is printed without its password.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Name or address.
    pub name: String,
    /// Port.
    pub port: u16,
    /// The value of its `Proxy-Authorization` header.
    pub authorization: Option<HeaderValue>,
}

impl std::fmt::Display for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name.contains(':') {
            true => write!(f, "http://[{}]:{}", self.name, self.port),
            false => write!(f, "http://{}:{}", self.name, self.port),
        }
    }
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl Proxy {
    /// With a user and a password, which are percent-encoded as in an address.
    pub fn with_user_info(mut self, user_info: &str) -> Self {
        let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
        let both = [&decode(user)[..], b":", &decode(password)].concat();
        let value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(both)));
        self.authorization = value.ok().map(|mut value| {
            value.set_sensitive(true);
            value
        });
        self
    }
}

/// What stands for bytes that mean something else in an address.
fn decode(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| *first == b'%').and_then(|two| std::str::from_utf8(two).ok());
        let byte = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
        decoded.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    decoded
}

/// Which proxy a host is reached through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For hosts with http.
    pub http: Option<Proxy>,
    /// For hosts with https.
    pub https: Option<Proxy>,
    /// Who is reached without, as `NO_PROXY` says it; `None` when the proxy is for every host, this machine too.
    pub except: Option<String>,
}

impl Proxies {
    /// One for every host.
    pub fn fixed(proxy: Proxy) -> Self {
        Self { http: Some(proxy.clone()), https: Some(proxy), except: None }
    }

    /// The proxy for this host.
    pub fn for_host(&self, host: &Host) -> Option<&Proxy> {
        let proxy = if host.is_secure { &self.https } else { &self.http };
        let direct = self.except.as_ref().is_some_and(|except| is_excepted(except, host));
        proxy.as_ref().filter(|_| !direct)
    }
}

/// As Go's programs read `NO_PROXY`: `*`, addresses, networks, names with those below them, each maybe with a port. This machine
/// itself is never asked for through a proxy.
fn is_excepted(except: &str, host: &Host) -> bool {
    let name = host.name.trim_end_matches('.').to_ascii_lowercase();
    let address = name.parse::<IpAddr>().ok();
    if name == "localhost" || address.is_some_and(|address| address.is_loopback()) {
        return true;
    }
    except.split(',').map(|word| word.trim().to_ascii_lowercase()).any(|word| {
        if word == "*" {
            return true;
        }
        if let Some((network, bits)) = word.split_once('/') {
            let network = network.parse().ok().zip(bits.parse().ok());
            return network
                .zip(address)
                .is_some_and(|((network, bits), address)| within(address, network, bits));
        }
        let is_address = word.parse::<IpAddr>().is_ok();
        let (word, port) = match word.rsplit_once(':').filter(|_| !is_address) {
            Some((word, port)) => (word.trim_matches(['[', ']']), port.parse::<u16>().ok()),
            None => (word.as_str(), None),
        };
        if port.is_some_and(|port| port != host.port) || word.is_empty() {
            return false;
        }
        if let Ok(one) = word.parse::<IpAddr>() {
            return Some(one) == address;
        }
        let below = word.trim_start_matches('*');
        match below.strip_prefix('.') {
            Some(_) => name.ends_with(below),
            None => name == below || name.strip_suffix(below).is_some_and(|rest| rest.ends_with('.')),
        }
    })
}

fn within(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    let same =
        |one: u128, other: u128, all: u32| bits <= all && (bits == 0 || (one ^ other) >> (all - bits) == 0);
    match (address, network) {
        (IpAddr::V4(one), IpAddr::V4(other)) => same(one.to_bits().into(), other.to_bits().into(), 32),
        (IpAddr::V6(one), IpAddr::V6(other)) => same(one.to_bits(), other.to_bits(), 128),
        _ => false,
    }
}

/// What to do when a proxy does not let the agent through.
pub const PROXY_PASSWORD: &str =
    "the proxy asks for a password: write elasticsearch.proxy as http://USER:PASSWORD@HOST:PORT";

/// The longest head of a proxy's answer.
const HEAD_LIMIT: usize = 16 * 1024;

/// Asks for a tunnel to `authority`; what is wrong is said in a sentence.
pub async fn tunnel(stream: &mut TcpStream, proxy: &Proxy, authority: &str) -> Result<(), String> {
    let mut head = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n").into_bytes();
    if let Some(authorization) = &proxy.authorization {
        head.extend_from_slice(b"Proxy-Authorization: ");
        head.extend_from_slice(authorization.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    let failed = |error: std::io::Error| format!("the proxy {proxy}: {error}");
    stream.write_all(&head).await.map_err(failed)?;
    let mut answer = Vec::new();
    // Byte by byte, for what follows the head is the server's.
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() == HEAD_LIMIT {
            return Err(format!("the proxy {proxy} answers at too great length"));
        }
        answer.push(stream.read_u8().await.map_err(failed)?);
    }
    let status = answer.split(|byte| *byte == b' ').nth(1).and_then(|word| std::str::from_utf8(word).ok());
    match status.and_then(|word| word.parse::<u16>().ok()) {
        Some(200..=299) => Ok(()),
        Some(407) => Err(PROXY_PASSWORD.into()),
        Some(status) => Err(format!("the proxy {proxy} opens no way to {authority}: HTTP {status}")),
        None => Err(format!("{proxy} does not answer as a proxy does: check elasticsearch.proxy")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> Host {
        Host { is_secure: true, name: name.into(), port: 9200, path: String::new() }
    }

    #[test]
    fn no_proxy_is_read_as_go_s_programs_read_it() {
        for (except, name) in [
            ("*", "es"),
            ("es.logging.svc", "es.logging.svc"),
            ("logging.svc", "es.logging.svc"),
            (" .svc , x", "ES.logging.SVC"),
            ("*.svc", "es.logging.svc"),
            ("es:9200", "es"),
            ("10.0.0.0/8", "10.1.2.3"),
            ("10.1.2.3", "10.1.2.3"),
            ("10.1.2.3:9200", "10.1.2.3"),
            ("fd00::/8", "fd00::1"),
            ("[fd00::1]:9200", "fd00::1"),
            ("", "localhost"),
            ("", "127.0.0.1"),
            ("", "::1"),
        ] {
            assert!(is_excepted(except, &host(name)), "{except} {name}");
        }
        for (except, name) in [
            ("", "es"),
            (".svc", "svc"),
            ("logging.svc", "notlogging.svc"),
            ("es:9201", "es"),
            ("10.0.0.0/8", "11.1.2.3"),
            ("10.0.0.0/8", "es"),
            ("10.0.0.0/33", "10.0.0.1"),
            ("0.0.0.0/0", "fd00::1"),
        ] {
            assert!(!is_excepted(except, &host(name)), "{except} {name}");
        }
    }

    #[test]
    fn a_proxy_for_everything_is_for_this_machine_too() {
        let proxy = Proxy { name: "proxy".into(), port: 3128, authorization: None };
        let from_environment =
            Proxies { https: Some(proxy.clone()), except: Some(String::new()), ..Proxies::default() };
        assert_eq!(from_environment.for_host(&host("127.0.0.1")), None);
        assert_eq!(from_environment.for_host(&host("es")), Some(&proxy));
        assert_eq!(from_environment.for_host(&Host { is_secure: false, ..host("es") }), None);
        assert_eq!(Proxies::fixed(proxy.clone()).for_host(&host("127.0.0.1")), Some(&proxy));
    }

    #[test]
    fn a_password_is_decoded_and_not_printed() {
        let proxy =
            Proxy { name: "proxy".into(), port: 3128, authorization: None }.with_user_info("me:a%40b%");
        assert_eq!(proxy.authorization.as_ref().expect("one"), "Basic bWU6YUBiJQ==");
        assert_eq!(format!("{proxy} {proxy:?}"), "http://proxy:3128 http://proxy:3128");
    }
}
