//! Sizes, durations, addresses as people write them; each error says what to write instead.

use std::time::Duration;

use super::options::{ElasticHost, ListenAddress};

/// `64Mi`, `1Gi`, `5M` (1000-based), `512k`, `4096`, with or without a final `B`: bytes.
pub fn size(text: &str) -> Result<u64, String> {
    let fail = || format!("expected a size such as 64Mi, 1Gi, 5M or a number of bytes, not '{text}'");
    let (digits, unit) = split_number(text.trim());
    let factor: u64 = match unit.strip_suffix('B').unwrap_or(unit) {
        "" => 1,
        "k" | "K" => 1000,
        "M" => 1000 * 1000,
        "G" => 1000 * 1000 * 1000,
        "T" => 1000 * 1000 * 1000 * 1000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return Err(fail()),
    };
    let number: u64 = digits.parse().map_err(|_| fail())?;
    number.checked_mul(factor).ok_or_else(|| format!("'{text}' is more than this machine can count"))
}

/// Bytes in the largest unit that says them exactly.
pub fn show_size(bytes: u64) -> String {
    for (shift, unit) in [(40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")] {
        if bytes != 0 && bytes.is_multiple_of(1 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

/// `10s`, `1m30s`, `24h`, `7d`, `500ms`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let fail = || format!("expected a duration such as 500ms, 10s, 1m30s, 24h or 7d, not '{text}'");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(fail());
    }
    let mut milliseconds: u64 = 0;
    while !rest.is_empty() {
        let (digits, after) = split_number(rest);
        let unit_end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let factor = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60 * 1000,
            "h" => 3600 * 1000,
            "d" => 24 * 3600 * 1000,
            _ => return Err(fail()),
        };
        let number: u64 = digits.parse().map_err(|_| fail())?;
        let part = number.checked_mul(factor);
        milliseconds = part.and_then(|part| milliseconds.checked_add(part)).ok_or_else(fail)?;
        rest = next;
    }
    Ok(Duration::from_millis(milliseconds))
}

/// A duration in the largest units that say it exactly.
pub fn show_duration(duration: Duration) -> String {
    let mut rest = duration.as_millis();
    let mut text = String::new();
    for (unit, milliseconds) in [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
        if rest >= milliseconds {
            text.push_str(&format!("{}{unit}", rest / milliseconds));
            rest %= milliseconds;
        }
    }
    if text.is_empty() { "0s".into() } else { text }
}

/// `15%`: a whole number of 0 to 99.
pub fn percent(text: &str) -> Result<u8, String> {
    let number = text.trim().strip_suffix('%').and_then(|digits| digits.trim().parse().ok());
    number.filter(|percent| *percent < 100).ok_or_else(|| format!("expected 0% to 99%, not '{text}'"))
}

/// `:9100`, `10.0.0.1:9100`, `name:9100`, `[::1]:9100`; also `[10.0.0.1]:9100`, which charts write.
pub fn listen_address(text: &str) -> Result<ListenAddress, String> {
    let fail = || format!("expected an address such as :9100, 127.0.0.1:9100 or [::1]:9100, not '{text}'");
    if text.starts_with("vsock://") {
        return Err("vsock, the sockets of virtual machines, is not listened on; write host:port".into());
    }
    let (host, port) = text.trim().rsplit_once(':').ok_or_else(fail)?;
    let host = bare_host(host).or_else(|| zoned(host)).ok_or_else(fail)?;
    Ok(ListenAddress { host: host.into(), port: port.parse().map_err(|_| fail())? })
}

/// `http://host:9200/prefix`, or https; the scheme, port and prefix may be left out.
pub fn elastic_host(text: &str) -> Result<ElasticHost, String> {
    let text = text.trim();
    // First of all, so that no message repeats a password.
    if text.contains('@') {
        return Err("a user or password doesn't belong into the address; use elasticsearch.auth".into());
    }
    let fail = || format!("expected a server such as http://127.0.0.1:9200, not '{text}'");
    let (is_secure, rest) = match text.split_once("://") {
        None => (false, text),
        Some(("http", rest)) => (false, rest),
        Some(("https", rest)) => (true, rest),
        Some(_) => return Err(fail()),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let plain = |c: char| c.is_ascii_graphic() && !"?#\"<>\\^`{|}".contains(c);
    if !rest.chars().all(plain) {
        return Err(fail());
    }
    let has_port = authority.rfind(':') > authority.rfind(']');
    let (host, port) = match authority.rsplit_once(':').filter(|_| has_port) {
        Some((host, port)) => (host, port.parse().map_err(|_| fail())?),
        None => (authority, 9200),
    };
    let host = bare_host(host).filter(|host| !host.is_empty() && port != 0).ok_or_else(fail)?;
    Ok(ElasticHost { is_secure, name: host.into(), port, path: path.trim_end_matches('/').into() })
}

/// A host without its brackets; only in brackets may it contain colons.
fn bare_host(host: &str) -> Option<&str> {
    let inside = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    match inside {
        Some(address) => address.parse::<std::net::IpAddr>().is_ok().then_some(address),
        None => {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            host.chars().all(allowed).then_some(host)
        }
    }
}

/// `[fe80::1%eth0]`: an address that means something on one interface only, without its brackets.
fn zoned(host: &str) -> Option<&str> {
    let inside = host.strip_prefix('[')?.strip_suffix(']')?;
    let (address, zone) = inside.split_once('%')?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let is_one = address.parse::<std::net::Ipv6Addr>().is_ok() && !zone.is_empty() && zone.chars().all(plain);
    is_one.then_some(inside)
}

fn split_number(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_1024_based_with_i_and_1000_based_without() {
        assert_eq!(size("64Mi"), Ok(64 << 20));
        assert_eq!(size("5M"), Ok(5_000_000));
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("1GiB"), Ok(1 << 30));
        for odd in ["", "Mi", "-1", "1.5Gi", "64 Mi", "64mi", "99999999999Ti"] {
            assert!(size(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn durations_may_have_several_units() {
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(7 * 24 * 3600)));
        for odd in ["", "10", "s", "-1s", "1 m", "99999999999999999999s", "18446744073709551615d"] {
            assert!(duration(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn percents_need_their_sign() {
        assert_eq!(percent("15%"), Ok(15));
        assert!(percent("15").is_err());
        assert!(percent("100%").is_err());
    }

    #[test]
    fn listen_addresses_as_charts_write_them() {
        let listen = |host: &str| Ok(ListenAddress { host: host.into(), port: 9100 });
        assert_eq!(listen_address(":9100"), listen(""));
        assert_eq!(listen_address("[10.0.0.1]:9100"), listen("10.0.0.1"));
        assert_eq!(listen_address("[::1]:9100"), listen("::1"));
        assert_eq!(listen_address("[fe80::1%eth0]:9100"), listen("fe80::1%eth0"));
        assert_eq!(listen_address("localhost:9100"), listen("localhost"));
        for odd in
            ["9100", "::1:9100", "a:b", "host:70000", "[x]:1", "a b:1", "", "[::1%]:1", "vsock://:9100"]
        {
            assert!(listen_address(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn servers_default_to_http_and_9200() {
        let shown = |text: &str| elastic_host(text).map(|host| host.to_string());
        assert_eq!(shown("es"), Ok("http://es:9200".into()));
        assert_eq!(shown("http://[::1]:9201/es/"), Ok("http://[::1]:9201/es".into()));
        assert_eq!(shown("http://[::1]"), Ok("http://[::1]:9200".into()));
        assert_eq!(shown("https://es/"), Ok("https://es:9200".into()));
        for with_password in
            ["http://me:secret@es", "me:secret@es", "ftp://me:secret@es", "http://me:secret@ es"]
        {
            assert!(shown(with_password).is_err_and(|error| !error.contains("secret")), "{with_password}");
        }
        for odd in ["", "http://", "ftp://es", "http://es:x", "http://es/a?b", "http://a b"] {
            assert!(shown(odd).is_err(), "{odd}");
        }
    }

    proptest! {
        #[test]
        fn shown_values_read_back(bytes: u64, seconds in 0..10_000_000_u64) {
            prop_assert_eq!(size(&show_size(bytes)), Ok(bytes));
            let duration_ = Duration::from_secs(seconds);
            prop_assert_eq!(duration(&show_duration(duration_)), Ok(duration_));
        }

        #[test]
        fn any_text_is_answered(text: String) {
            let _ = (size(&text), duration(&text), percent(&text), listen_address(&text), elastic_host(&text));
        }
    }
}
