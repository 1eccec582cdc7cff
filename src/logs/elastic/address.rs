//! Where a server is.

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

/// One server, or a name behind which there are several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Whether TLS is spoken.
    pub is_secure: bool,
    /// Name or address.
    pub name: String,
    /// Port.
    pub port: u16,
    /// What stands before `/_bulk`, without a slash at its end.
    pub path: String,
}

impl Host {
    /// Name and port as a `Host` header has them; an IPv6 address stands in brackets.
    pub fn authority(&self) -> String {
        match self.name.contains(':') {
            true => format!("[{}]:{}", self.name, self.port),
            false => format!("{}:{}", self.name, self.port),
        }
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.is_secure { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

/// What Elastic Cloud shows as the id of a deployment: a label and, in base-64, where its parts are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudId {
    /// As it was written.
    pub text: String,
    /// The deployment's Elasticsearch.
    pub host: Host,
}

/// As people copy it: with padding or without.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl CloudId {
    /// `label:base64(DOMAIN[:PORT]$ELASTICSEARCH[:PORT]$KIBANA...)`: the server is `ELASTICSEARCH.DOMAIN`, on 443 when no port
    /// is named.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fail = || "expected the cloud id as Elastic Cloud shows it, name:base64".to_owned();
        let coded = text.rsplit_once(':').map_or(text, |(_, coded)| coded);
        let plain = LENIENT.decode(coded.trim()).ok().and_then(|plain| String::from_utf8(plain).ok());
        let plain = plain.ok_or_else(fail)?;
        let mut parts = plain.split('$');
        let (domain, server) = parts.next().zip(parts.next()).ok_or_else(fail)?;
        let split = |text: &str| match text.rsplit_once(':') {
            None => Some((text.to_owned(), None)),
            Some((name, port)) => Some((name.to_owned(), Some(port.parse::<u16>().ok()?))),
        };
        let (domain, usual) = split(domain).ok_or_else(fail)?;
        let (server, own) = split(server).ok_or_else(fail)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let name = format!("{server}.{domain}");
        if domain.is_empty() || server.is_empty() || !name.chars().all(plain) {
            return Err(fail());
        }
        let port = own.or(usual).unwrap_or(443);
        Ok(Self { text: text.to_owned(), host: Host { is_secure: true, name, port, path: String::new() } })
    }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    fn host_of(plain: &str) -> Result<String, String> {
        CloudId::parse(&format!("production:{}", STANDARD.encode(plain))).map(|id| id.host.to_string())
    }

    #[test]
    fn a_cloud_id_names_its_server() {
        assert_eq!(
            host_of("eu-west-1.aws.found.io$4fa8821e75634032bed1cf22110e2f97$0afb"),
            Ok("https://4fa8821e75634032bed1cf22110e2f97.eu-west-1.aws.found.io:443".into())
        );
        assert_eq!(host_of("example.org:9243$es$"), Ok("https://es.example.org:9243".into()));
        assert_eq!(host_of("example.org:9243$es:9244$kb:1"), Ok("https://es.example.org:9244".into()));
        let unpadded = STANDARD.encode("example.org$es1$kb");
        assert!(CloudId::parse(unpadded.trim_end_matches('=')).is_ok());
        for odd in ["", "$", "example.org", "example.org$", "$es", "a b$es", "example.org:x$es", "e/x$es"] {
            assert!(host_of(odd).is_err(), "{odd}");
        }
        assert!(CloudId::parse("production:%%%").is_err_and(|error| !error.contains('%')));
    }
}
