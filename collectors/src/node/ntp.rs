//! How far the local clock is from what an NTP server on this host says, and whether that server is sane.

use std::{
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{BuildError, CollectError, Collector, Desc, Entry, Flag, Host, Options, Samples};

/// This collector in the list.
pub const ENTRY: Entry = Entry {
    name: "ntp",
    default_on: false,
    flags: &[
        Flag::text("ntp.server", "127.0.0.1", "NTP server to use for ntp collector"),
        Flag::text("ntp.server-port", "123", "UDP port number to connect to on NTP server"),
        Flag::text("ntp.protocol-version", "4", "NTP protocol version"),
        Flag::bool(
            "ntp.server-is-local",
            false,
            "Certify that collector.ntp.server address is not a public ntp server",
        ),
        Flag::text("ntp.ip-ttl", "1", "IP TTL to use while sending NTP query"),
        Flag::text("ntp.max-distance", "3.46608s", "Max accumulated distance to the root"),
        Flag::text(
            "ntp.local-offset-tolerance",
            "1ms",
            "Offset between local clock and local ntpd time to tolerate",
        ),
    ],
    build,
};

static STRATUM: Desc = Desc::gauge("node_ntp_stratum", "NTPD stratum.", &[]);
static LEAP: Desc = Desc::gauge("node_ntp_leap", "NTPD leap second indicator, 2 bits.", &[]);
static RTT: Desc = Desc::gauge("node_ntp_rtt_seconds", "RTT to NTPD.", &[]);
static OFFSET: Desc = Desc::gauge("node_ntp_offset_seconds", "ClockOffset between NTP and local clock.", &[]);
static REFERENCE_TIME: Desc =
    Desc::gauge("node_ntp_reference_timestamp_seconds", "NTPD ReferenceTime, UNIX timestamp.", &[]);
static ROOT_DELAY: Desc = Desc::gauge("node_ntp_root_delay_seconds", "NTPD RootDelay.", &[]);
static ROOT_DISPERSION: Desc = Desc::gauge("node_ntp_root_dispersion_seconds", "NTPD RootDispersion.", &[]);
static SANITY: Desc =
    Desc::gauge("node_ntp_sanity", "NTPD sanity according to RFC5905 heuristics and configured limits.", &[]);

/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

const NANOS: i64 = 1_000_000_000;
const DAY: i64 = 24 * 3600 * NANOS;

/// From 1900, where NTP begins to count, to 1970.
const EPOCH_SECONDS: u64 = 2_208_988_800;

struct Ntp {
    server: String,
    port: u16,
    version: u8,
    /// Not set when 0.
    ttl: u32,
    /// In nanoseconds, as all spans and times below.
    max_distance: i64,
    tolerance: i64,
    /// The midnight before which a second is or was put in or left out; servers forget the flag right after it.
    leap_midnight: Option<i64>,
}

/// What the server answered, with what the clock here said before and after.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Response {
    leap: u8,
    stratum: u8,
    root_delay: i64,
    root_dispersion: i64,
    /// Nanoseconds since 1970.
    reference: i64,
    /// Nanoseconds since 1970.
    transmitted: i64,
    offset: i64,
    rtt: i64,
    min_error: i64,
}

fn build(_: &Host, options: &Options) -> Result<Box<dyn Collector>, BuildError> {
    let value = |flag, what: &str| BuildError::Value { flag, what: what.to_owned() };
    let server = options.text("ntp.server").to_owned();
    let is_loopback = server.parse().is_ok_and(|address: IpAddr| address.to_canonical().is_loopback());
    if !options.is_on("ntp.server-is-local") && !is_loopback {
        return Err(value(
            "ntp.server",
            "expected the address of this host, or --collector.ntp.server-is-local with it",
        ));
    }
    let port: Option<u16> = options.text("ntp.server-port").parse().ok().filter(|port| *port > 0);
    let version =
        options.text("ntp.protocol-version").parse().ok().filter(|version| (2..=4).contains(version));
    let span =
        |flag| parse_duration(options.text(flag)).ok_or_else(|| value(flag, "expected a duration as 1ms"));
    let tolerance = span("ntp.local-offset-tolerance")?;
    if tolerance < 0 {
        return Err(value("ntp.local-offset-tolerance", "expected no negative duration"));
    }
    tracing::warn!("the ntp collector is deprecated, as node_exporter's is");
    Ok(Box::new(Ntp {
        server,
        port: port.ok_or_else(|| value("ntp.server-port", "expected a number from 1 to 65535"))?,
        version: version.ok_or_else(|| value("ntp.protocol-version", "expected 2, 3 or 4"))?,
        ttl: options.text("ntp.ip-ttl").parse().map_err(|_| value("ntp.ip-ttl", "expected a number"))?,
        max_distance: span("ntp.max-distance")?,
        tolerance,
        leap_midnight: None,
    }))
}

impl Collector for Ntp {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let response =
            self.query().map_err(|source| CollectError::asking("could not ask the NTP server", source))?;
        out.push(&STRATUM, &[], f64::from(response.stratum));
        out.push(&LEAP, &[], f64::from(response.leap));
        out.push(&RTT, &[], seconds(response.rtt));
        out.push(&OFFSET, &[], seconds(response.offset));
        out.push(&REFERENCE_TIME, &[], reference_time(response.reference));
        out.push(&ROOT_DELAY, &[], seconds(response.root_delay));
        out.push(&ROOT_DISPERSION, &[], seconds(response.root_dispersion));
        out.push(&SANITY, &[], f64::from(u8::from(self.is_sane(&response))));
        Ok(())
    }
}

impl Ntp {
    /// A socket of its own for each query, so that neither a late answer nor a guessed port is taken for this one's.
    fn query(&self) -> io::Result<Response> {
        let address = self.address()?;
        let any: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = UdpSocket::bind(any)?;
        if self.ttl != 0 {
            socket.set_ttl(self.ttl)?;
        }
        socket.connect(address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        // The server sends these bytes back: only one that saw the query knows them.
        let mut cookie = [0; 8];
        rustix::rand::getrandom(&mut cookie, rustix::rand::GetRandomFlags::empty())?;
        let mut request = [0_u8; 48];
        let [first, _, _, precision, ..] = &mut request;
        *first = self.version << 3 | 3;
        *precision = 0x20;
        request[40..].copy_from_slice(&cookie);
        let sent = SystemTime::now();
        socket.send(&request)?;
        let mut answer = [0; 1024];
        let length = socket.recv(&mut answer)?;
        let received = SystemTime::now().max(sent);
        parse(answer.get(..length).unwrap_or_default(), cookie, ntp_time(sent), ntp_time(received))
            .map_err(|what| io::Error::new(io::ErrorKind::InvalidData, what))
    }

    fn address(&self) -> io::Result<SocketAddr> {
        let found = match self.server.parse::<IpAddr>() {
            Ok(address) => Some((address, self.port).into()),
            // "host:port" and "[address]:port" bring a port of their own.
            Err(_) if self.server.ends_with(']') => {
                format!("{}:{}", self.server, self.port).to_socket_addrs()?.next()
            }
            Err(_) if self.server.contains(':') => self.server.to_socket_addrs()?.next(),
            Err(_) => (self.server.as_str(), self.port).to_socket_addrs()?.next(),
        };
        found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the server has no address"))
    }

    /// RFC 5905's checks, and the two limits of the flags.
    fn is_sane(&mut self, response: &Response) -> bool {
        let now = response.transmitted;
        if matches!(response.leap, 1 | 2) {
            self.leap_midnight = Some(now - now.rem_euclid(DAY) + DAY);
        }
        // Around a leap second servers may smear it over hours.
        let is_near_leap =
            self.leap_midnight.is_some_and(|midnight| midnight - DAY < now && now < midnight + DAY);
        let tolerance = self.tolerance.saturating_add(if is_near_leap { NANOS } else { 0 });
        let distance = (response.rtt + response.root_delay) / 2 + response.root_dispersion;
        let longest_poll = (1 << 17) * NANOS;
        (1..16).contains(&response.stratum)
            && now - response.reference <= longest_poll
            && response.root_delay / 2 + response.root_dispersion <= 16 * NANOS
            && now >= response.reference
            && response.leap != 3
            && distance <= self.max_distance
            && response.min_error <= tolerance
    }
}

/// The 48 bytes of an answer: leap, version and mode in one, stratum, poll, precision; root delay, root dispersion,
/// reference (4 each); the times of the reference, of the query (our cookie), of its arrival, of the answer (8 each).
fn parse(bytes: &[u8], cookie: [u8; 8], sent: u64, received: u64) -> Result<Response, &'static str> {
    let header: &[u8; 48] = bytes.first_chunk().ok_or("the answer is cut")?;
    let [first, stratum, ..] = *header;
    let short = |at: usize| header[at..].first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
    let long = |at: usize| header[at..].first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    let (reference, origin, arrived, answered) = (long(16), long(24), long(32), long(40));
    if first & 7 != 4 {
        return Err("the answer is not one of a server");
    }
    if answered == 0 {
        return Err("the answer has no time");
    }
    if origin != u64::from_be_bytes(cookie) {
        return Err("the answer is to another query");
    }
    if arrived > answered {
        return Err("the server's clock went backwards");
    }
    let forth = arrived.wrapping_sub(sent).cast_signed();
    let back = answered.wrapping_sub(received).cast_signed();
    let offset = forth.wrapping_add(back.wrapping_sub(forth) / 2);
    let away = received.wrapping_sub(sent).cast_signed();
    let rtt = away.wrapping_sub(answered.wrapping_sub(arrived).cast_signed()).max(0);
    let min_error = sent.saturating_sub(arrived).max(answered.saturating_sub(received));
    Ok(Response {
        leap: first >> 6,
        stratum,
        root_delay: span_of_short(short(4)),
        root_dispersion: span_of_short(short(8)),
        reference: unix_time(reference),
        transmitted: unix_time(answered),
        offset: offset.signum() * span(offset.unsigned_abs()),
        rtt: span(rtt.cast_unsigned()),
        min_error: span(min_error),
    })
}

/// Seconds in the upper half, their fraction in the lower one, rounded to nanoseconds.
fn span(time: u64) -> i64 {
    let fraction = (time & 0xffff_ffff) * NANOS as u64;
    let rounded = (fraction >> 32) + u64::from(fraction as u32 >= 1 << 31);
    ((time >> 32) * NANOS as u64 + rounded).cast_signed()
}

/// The same in 32 bits.
fn span_of_short(time: u32) -> i64 {
    let fraction = u64::from(time & 0xffff) * NANOS as u64;
    let rounded = (fraction >> 16) + u64::from(fraction as u16 >= 1 << 15);
    (u64::from(time >> 16) * NANOS as u64 + rounded).cast_signed()
}

/// Nanoseconds since 1970. What would lie before it lies after 2036, when the seconds of NTP begin anew.
fn unix_time(time: u64) -> i64 {
    let epoch = EPOCH_SECONDS.cast_signed() * NANOS;
    let era = if time >> 32 < EPOCH_SECONDS { (1 << 32) * NANOS } else { 0 };
    span(time) - epoch + era
}

fn ntp_time(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let shifted = u64::from(since.subsec_nanos()) << 32;
    let rounded = shifted / NANOS as u64 + u64::from(shifted % NANOS as u64 >= NANOS as u64 / 2);
    (since.as_secs().wrapping_add(EPOCH_SECONDS) << 32).wrapping_add(rounded)
}

fn seconds(span: i64) -> f64 {
    (span / NANOS) as f64 + (span % NANOS) as f64 / 1e9
}

/// Times before 1970 are said as 0.
fn reference_time(time: i64) -> f64 {
    if time.div_euclid(NANOS) > 0 { time as f64 / 1e9 } else { 0.0 }
}

/// "3.46608s", "1m30s", "-2us": nanoseconds, as Go writes durations.
fn parse_duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut nanos = 0.0;
    while !rest.is_empty() || nanos == 0.0 {
        let number_end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let (number, behind) = rest.split_at(number_end);
        let unit_end =
            behind.find(|letter: char| letter.is_ascii_digit() || letter == '.').unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(unit_end);
        let unit = match unit {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        nanos += number.parse::<f64>().ok()? * unit;
        rest = behind;
        if rest.is_empty() {
            break;
        }
    }
    (nanos < i64::MAX as f64).then_some((sign * nanos).round() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collector::Settings;

    /// 2026-11-21 12:00:00.5 as NTP counts.
    const NOW: u64 = (1_795_262_400 + EPOCH_SECONDS) << 32 | 1 << 31;
    const SECOND: u64 = 1 << 32;

    fn answer(cookie: [u8; 8]) -> Vec<u8> {
        let mut bytes = vec![0b00_100_100, 2, 6, 0xe9];
        bytes.extend_from_slice(&0x0000_8000_u32.to_be_bytes());
        bytes.extend_from_slice(&0x0001_4000_u32.to_be_bytes());
        bytes.extend_from_slice(b"GPS\0");
        bytes.extend_from_slice(&(NOW - 64 * SECOND).to_be_bytes());
        bytes.extend_from_slice(&cookie);
        bytes.extend_from_slice(&NOW.to_be_bytes());
        bytes.extend_from_slice(&(NOW + SECOND / 4).to_be_bytes());
        bytes
    }

    fn ntp(flags: &[(&str, &str)]) -> Result<Box<dyn Collector>, BuildError> {
        let settings: Settings =
            flags.iter().map(|(name, value)| (name.to_string(), vec![value.to_string()])).collect();
        build(&Host::default(), &Options::new(&ENTRY, &settings))
    }

    #[test]
    fn spans_and_times_are_read_from_an_answer() {
        let response =
            parse(&answer([7; 8]), [7; 8], NOW - SECOND / 2, NOW + SECOND).expect("it is well formed");
        let expected = Response {
            leap: 0,
            stratum: 2,
            root_delay: NANOS / 2,
            root_dispersion: NANOS * 5 / 4,
            reference: 1_795_262_336_500_000_000,
            transmitted: 1_795_262_400_750_000_000,
            offset: -NANOS / 8,
            rtt: NANOS * 5 / 4,
            min_error: 0,
        };
        assert_eq!(response, expected);
    }

    #[test]
    fn odd_answers_are_refused() {
        let good = answer([7; 8]);
        let parse = |bytes: &[u8]| parse(bytes, [7; 8], NOW, NOW);
        assert!(parse(&good[..47]).is_err());
        for at in [0, 24] {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            assert!(parse(&bytes).is_err(), "{at}");
        }
        let mut bytes = good;
        bytes[32] = 0xff;
        assert!(parse(&bytes).is_err());
        bytes[40..].fill(0);
        assert!(parse(&bytes).is_err());
    }

    #[test]
    fn a_server_is_sane_within_the_limits() {
        let mut ntp = Ntp {
            server: String::new(),
            port: 1,
            version: 4,
            ttl: 0,
            max_distance: 3 * NANOS,
            tolerance: 1_000_000,
            leap_midnight: None,
        };
        let good = parse(&answer([7; 8]), [7; 8], NOW - SECOND / 2, NOW + SECOND).expect("it is well formed");
        assert!(ntp.is_sane(&good));
        for bad in [
            Response { stratum: 0, ..good },
            Response { stratum: 16, ..good },
            Response { leap: 3, ..good },
            Response { root_dispersion: 4 * NANOS, ..good },
            Response { reference: good.transmitted + 1, ..good },
            Response { reference: 0, ..good },
            Response { min_error: NANOS / 2, ..good },
        ] {
            assert!(!ntp.is_sane(&bad), "{bad:?}");
        }
        // Once a leap second was announced, half a second is tolerated until the end of the day after it.
        assert!(ntp.is_sane(&Response { leap: 1, min_error: NANOS / 2, ..good }));
        assert!(ntp.is_sane(&Response { min_error: NANOS / 2, ..good }));
    }

    #[test]
    fn a_server_is_asked() {
        let server = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let port = server.local_addr().expect("bound").port().to_string();
        std::thread::spawn(move || {
            let mut query = [0; 48];
            let (_, client) = server.recv_from(&mut query).expect("asked");
            let mut reply = answer(query[40..].try_into().expect("eight bytes"));
            assert_eq!(query[0], 0b00_011_011);
            let now = ntp_time(SystemTime::now());
            reply[32..40].copy_from_slice(&now.to_be_bytes());
            reply[40..].copy_from_slice(&now.to_be_bytes());
            server.send_to(&reply, client).expect("answered");
        });
        let mut collector =
            ntp(&[("ntp.server-port", &port), ("ntp.protocol-version", "3")]).expect("valid settings");
        let mut out = Samples::new();
        collector.collect(&Host::default(), &mut out).expect("answered");
        assert_eq!(out.len(), 8);
        let offset = out.iter().find(|(name, ..)| *name == OFFSET.name).map(|(.., value)| value);
        assert!(offset.is_some_and(|offset| offset.abs() < 1.0), "{offset:?}");
    }

    #[test]
    fn settings_that_mean_nothing_are_refused() {
        for (flag, value) in [
            ("ntp.server", "192.0.2.1"),
            ("ntp.server", "localhost"),
            ("ntp.server-port", "0"),
            ("ntp.protocol-version", "5"),
            ("ntp.local-offset-tolerance", "-1ms"),
            ("ntp.max-distance", "far"),
        ] {
            assert_eq!(ntp(&[(flag, value)]).err().map(|error| error.flag()), Some(flag), "{value}");
        }
        assert!(ntp(&[("ntp.server", "::1")]).is_ok());
        assert!(ntp(&[("ntp.server", "time.example"), ("ntp.server-is-local", "true")]).is_ok());
    }

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, nanos) in [
            ("3.46608s", 3_466_080_000),
            ("1ms", 1_000_000),
            ("1m30s", 90 * NANOS),
            ("-2us", -2_000),
            ("0", 0),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text), Some(nanos), "{text}");
        }
        for text in ["", "1", "s", "1x", "1s2", "..s"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
