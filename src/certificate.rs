//! Reads a certificate as far as rules and messages need it: names, when it is valid, what it may be used for.
//!
//! Signatures and chains are the TLS library's; it does not tell all kinds of names.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use jiff::civil::DateTime;
use rustls::{CertificateError, pki_types::UnixTime};

/// What a certificate says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Certificate {
    /// Its alternative names: DNS names, mail addresses, IP addresses and URIs.
    pub names: Vec<String>,
    /// From when to when it is valid, in seconds since the epoch.
    pub validity: (i64, i64),
    /// Whether it says what it is for, and clients are not among that.
    pub is_not_for_clients: bool,
}

const SEQUENCE: u8 = 0x30;
const OBJECT_ID: u8 = 0x06;
const OCTET_STRING: u8 = 0x04;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;

const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
const ANY_USAGE: &[u8] = &[0x55, 0x1d, 0x25, 0x00];
const CLIENT_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];

/// Reads a certificate in DER; `None` when it is none.
pub fn parse(der: &[u8]) -> Option<Certificate> {
    let certificate = Der(der).take(SEQUENCE)?;
    let mut fields = Der(Der(certificate).take(SEQUENCE)?);
    if fields.0.first() == Some(&VERSION) {
        fields.next()?;
    }
    // Serial number, signature algorithm, issuer.
    for _ in 0..3 {
        fields.next()?;
    }
    let mut times = Der(fields.take(SEQUENCE)?);
    let mut found =
        Certificate { validity: (time(times.next()?)?, time(times.next()?)?), ..Certificate::default() };
    while let Some((tag, content)) = fields.next() {
        if tag == EXTENSIONS {
            let mut extensions = Der(Der(content).take(SEQUENCE)?);
            while let Some((_, extension)) = extensions.next() {
                found.extension(extension)?;
            }
        }
    }
    Some(found)
}

impl Certificate {
    /// Whether it is valid at this time.
    pub fn check_time(&self, now: UnixTime) -> Result<(), CertificateError> {
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let time =
            |seconds: i64| UnixTime::since_unix_epoch(Duration::from_secs(seconds.max(0).unsigned_abs()));
        match self.validity {
            (from, _) if seconds < from => {
                Err(CertificateError::NotValidYetContext { time: now, not_before: time(from) })
            }
            (_, to) if seconds > to => {
                Err(CertificateError::ExpiredContext { time: now, not_after: time(to) })
            }
            _ => Ok(()),
        }
    }

    /// Identifier, maybe whether it is critical, and the value in a string of bytes.
    fn extension(&mut self, extension: &[u8]) -> Option<()> {
        let mut parts = Der(extension);
        let id = parts.take(OBJECT_ID)?;
        let value = loop {
            if let (OCTET_STRING, value) = parts.next()? {
                break value;
            }
        };
        if id == SUBJECT_ALT_NAME {
            let mut names = Der(Der(value).take(SEQUENCE)?);
            while let Some((tag, name)) = names.next() {
                self.names.extend(name_of(tag, name));
            }
        } else if id == EXTENDED_KEY_USAGE {
            let mut usages = Der(Der(value).take(SEQUENCE)?);
            let is_for_clients = std::iter::from_fn(|| usages.next())
                .any(|(_, usage)| usage == CLIENT_AUTH || usage == ANY_USAGE);
            self.is_not_for_clients = !is_for_clients;
        }
        Some(())
    }
}

/// One of the kinds of names that Go compares.
fn name_of(tag: u8, name: &[u8]) -> Option<String> {
    match (tag, name.len()) {
        // Mail address, DNS name, URI.
        (0x81 | 0x82 | 0x86, _) => String::from_utf8(name.to_vec()).ok(),
        (0x87, 4) => <[u8; 4]>::try_from(name).ok().map(|bytes| Ipv4Addr::from(bytes).to_string()),
        (0x87, 16) => {
            let address = <[u8; 16]>::try_from(name).ok().map(Ipv6Addr::from);
            address.map(|address| IpAddr::from(address).to_canonical().to_string())
        }
        _ => None,
    }
}

/// `250102030405Z`, with years from 1950, or `20250102030405Z`.
fn time((tag, text): (u8, &[u8])) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let number = |from: usize, to: usize| {
        let digits = text.get(from..to)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<i16>().ok())?
    };
    let (year, rest) = match tag {
        UTC_TIME => (number(0, 2).map(|year| if year < 50 { 2000 + year } else { 1900 + year })?, 2),
        GENERALIZED_TIME => (number(0, 4)?, 4),
        _ => return None,
    };
    let part = |at: usize| number(rest + at, rest + at + 2)?.try_into().ok();
    let time = DateTime::new(year, part(0)?, part(2)?, part(4)?, part(6)?, part(8)?, 0).ok()?;
    Some(time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second())
}

/// What is left of a row of tagged values.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// Tag and content of the next value.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&short, mut rest) = rest.split_first()?;
        let mut length = usize::from(short);
        if short >= 0x80 {
            let count = usize::from(short & 0x7f);
            // Four bytes of length are more than any certificate has.
            let (bytes, after) = rest.split_at_checked(count).filter(|_| (1..=4).contains(&count))?;
            length = bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            rest = after;
        }
        let (content, after) = rest.split_at_checked(length)?;
        self.0 = after;
        Some((tag, content))
    }

    /// The content of the next value, which must have this tag.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, SanType, date_time_ymd};

    use super::*;

    fn der(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").der().to_vec()
    }

    #[test]
    fn every_kind_of_name_is_found() {
        let der = der(|params| {
            params.subject_alt_names = vec![
                SanType::DnsName("prometheus.example".try_into().expect("ASCII")),
                SanType::Rfc822Name("ada@example.org".try_into().expect("ASCII")),
                SanType::IpAddress("10.1.2.3".parse().expect("an address")),
                SanType::IpAddress("2001:db8::1".parse().expect("an address")),
                SanType::URI("spiffe://example/prometheus".try_into().expect("ASCII")),
            ];
        });
        assert_eq!(
            parse(&der).expect("a certificate").names,
            [
                "prometheus.example",
                "ada@example.org",
                "10.1.2.3",
                "2001:db8::1",
                "spiffe://example/prometheus"
            ]
        );
    }

    #[test]
    fn validity_and_usage_are_read() {
        let short = der(|params| {
            params.not_before = date_time_ymd(2001, 2, 3);
            params.not_after = date_time_ymd(2051, 1, 1);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        });
        let found = parse(&short).expect("a certificate");
        assert_eq!(found.validity, (981_158_400, 2_556_144_000));
        assert!(found.is_not_for_clients && found.names.is_empty());
        let both = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let client = der(|params| params.extended_key_usages = both.into());
        assert!(!parse(&client).expect("a certificate").is_not_for_clients);
        assert!(!parse(&der(|_| {})).expect("a certificate").is_not_for_clients);
    }

    #[test]
    fn a_cut_certificate_is_none() {
        let der = der(|_| {});
        assert!((0..der.len()).all(|end| parse(&der[..end]).is_none()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes: Vec<u8>, at: prop::sample::Index, byte: u8) {
            let _ = parse(&bytes);
            let mut der = der(|params| {
                params.subject_alt_names = vec![SanType::IpAddress("10.1.2.3".parse().expect("an address"))];
            });
            let at = at.index(der.len());
            der[at] = byte;
            let _ = parse(&der);
        }
    }
}
