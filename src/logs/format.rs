//! One physical line of a file, taken apart: CRI, Docker JSON, syslog, or just text.

pub mod syslog;

use std::borrow::Cow;

use serde::Deserialize;

use super::record::Stream;

/// How a file's lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Nothing was read yet.
    #[default]
    Unknown,
    /// `2026-11-21T10:00:00.123456789Z stdout F text` (containerd, CRI-O).
    Cri,
    /// `{"log":"text\n","stream":"stdout","time":"2026-11-21T10:00:00.123456789Z"}` (Docker's json-file).
    Docker,
    /// `Nov 21 10:00:00 host program[pid]: text` and its relatives.
    Syslog,
    /// The whole line is text.
    Plain,
}

impl Format {
    /// The word in the table of files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Cri => "cri",
            Self::Docker => "docker",
            Self::Syslog => "syslog",
            Self::Plain => "plain",
        }
    }
}

/// A physical line with its meaning.
#[derive(Debug, PartialEq, Eq)]
pub struct Parsed<'a> {
    /// The format that the line has.
    pub format: Format,
    /// Nanoseconds since the epoch; `None` when the line does not say.
    pub time: Option<i64>,
    /// The stream it was written to.
    pub stream: Stream,
    /// Whether the rest of the text follows in a later line of the same stream.
    pub partial: bool,
    /// The text without its newline.
    pub text: Cow<'a, [u8]>,
}

/// Takes apart a line of a container's file, newline already off. A line that is neither CRI nor Docker JSON is kept as text.
pub fn parse_container_line(line: &[u8]) -> Parsed<'_> {
    let parsed = if line.first() == Some(&b'{') { parse_docker(line) } else { parse_cri(line) };
    parsed.unwrap_or_else(|| parse_plain_line(line))
}

/// A line of any other file: text, without a carriage return at its end.
pub fn parse_plain_line(line: &[u8]) -> Parsed<'_> {
    let text = line.strip_suffix(b"\r").unwrap_or(line);
    Parsed {
        format: Format::Plain,
        time: None,
        stream: Stream::None,
        partial: false,
        text: Cow::Borrowed(text),
    }
}

/// "2016-10-06T00:17:09.669794202Z stdout P log content", tags separated by `:`, the first one `P` or `F`.
fn parse_cri(line: &[u8]) -> Option<Parsed<'_>> {
    if let Some(parsed) = parse_usual_cri(line) {
        return Some(parsed);
    }
    let (time, rest) = split_at_space(line)?;
    let (stream, rest) = split_at_space(rest)?;
    // An empty line may come without its last space.
    let (tags, text) = split_at_space(rest).unwrap_or((rest, b""));
    let partial = match tags.first()? {
        b'P' => true,
        b'F' => false,
        _ => return None,
    };
    Some(Parsed {
        format: Format::Cri,
        time: Some(parse_rfc3339(time)?),
        stream: parse_stream(stream)?,
        partial,
        text: Cow::Borrowed(text),
    })
}

/// As containerd writes it on a node whose clock is UTC: all before the text has its fixed columns. `None` is no answer.
fn parse_usual_cri(line: &[u8]) -> Option<Parsed<'_>> {
    let (time, rest) = line.split_first_chunk::<30>()?;
    let (columns, text) = rest.split_first_chunk::<10>()?;
    let (stream, partial) = match columns {
        b" stdout F " => (Stream::Stdout, false),
        b" stderr F " => (Stream::Stderr, false),
        b" stdout P " => (Stream::Stdout, true),
        b" stderr P " => (Stream::Stderr, true),
        _ => return None,
    };
    let time = Some(parse_rfc3339(time)?);
    Some(Parsed { format: Format::Cri, time, stream, partial, text: Cow::Borrowed(text) })
}

fn split_at_space(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(b' ', bytes)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

fn parse_stream(word: &[u8]) -> Option<Stream> {
    match word {
        b"stdout" => Some(Stream::Stdout),
        b"stderr" => Some(Stream::Stderr),
        _ => None,
    }
}

#[derive(Deserialize)]
struct DockerLine<'a> {
    #[serde(borrow, default)]
    log: Cow<'a, str>,
    #[serde(borrow)]
    stream: Cow<'a, str>,
    #[serde(borrow)]
    time: Cow<'a, str>,
}

/// Docker cuts text at 16 KiB: a part that does not end in a newline goes on in the next line.
fn parse_docker(line: &[u8]) -> Option<Parsed<'_>> {
    let parsed: DockerLine<'_> = serde_json::from_slice(line).ok()?;
    let partial = !parsed.log.ends_with('\n');
    let text = match parsed.log {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(mut text) => {
            if !partial {
                text.pop();
            }
            Cow::Owned(text.into_bytes())
        }
    };
    Some(Parsed {
        format: Format::Docker,
        time: Some(parse_rfc3339(parsed.time.as_bytes())?),
        stream: parse_stream(parsed.stream.as_bytes())?,
        partial,
        text,
    })
}

/// Nanoseconds since the epoch of "2016-10-06T00:17:09.669794202Z" or "...+02:00".
pub fn parse_rfc3339(text: &[u8]) -> Option<i64> {
    let (&[y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T', h1, h2, b':', i1, i2, b':', s1, s2], rest) =
        text.split_first_chunk::<19>()?
    else {
        return None;
    };
    let (century, year, month, day) = (pair([y1, y2])?, pair([y3, y4])?, pair([m1, m2])?, pair([d1, d2])?);
    let (hour, minute, second) = (pair([h1, h2])?, pair([i1, i2])?, pair([s1, s2])?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (nanos, zone) = parse_fraction(rest)?;
    let days = days_from_civil(century * 100 + year, month, day);
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - parse_zone(zone)?;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
}

fn pair([tens, ones]: [u8; 2]) -> Option<i64> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    (tens < 10 && ones < 10).then(|| i64::from(tens * 10 + ones))
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0, |value, byte| byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0')))
}

/// ".669794202Z" as nanoseconds and the zone after them.
fn parse_fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let Some(fraction) = text.strip_prefix(b".") else {
        return Some((0, text));
    };
    // As the runtimes of containers write it.
    if let Some((&[a, b, c, d, e, f, g, h, i], zone @ (b"Z" | [b'+' | b'-', ..]))) =
        fraction.split_first_chunk::<9>()
    {
        let high = pair([a, b])? * 1_000_000 + pair([c, d])? * 10_000 + pair([e, f])? * 100 + pair([g, h])?;
        return Some((high * 10 + digits(&[i])?, zone));
    }
    let length = fraction.iter().position(|byte| !byte.is_ascii_digit())?;
    if length == 0 {
        return None;
    }
    let kept = length.min(9);
    let nanos = digits(&fraction[..kept])? * 10_i64.pow(9 - kept as u32);
    Some((nanos, &fraction[length..]))
}

/// "Z", "+02:00" or "-05:30" in seconds east of UTC.
fn parse_zone(text: &[u8]) -> Option<i64> {
    match text {
        b"Z" => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let seconds = digits(&[*h1, *h2])? * 3600 + digits(&[*m1, *m2])? * 60;
            Some(if *sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

/// Days since 1970-01-01 of a date in the proleptic Gregorian calendar: years are counted from March, so that the leap day
/// is the last of its year.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Where the fraction of a second begins in what [`rfc3339`] gives.
pub const RFC3339_SECOND: usize = 20;

/// Nanoseconds since the epoch as "2016-10-06T00:17:09.669794202Z".
pub fn rfc3339(nanos: i64) -> [u8; 30] {
    let (seconds, nanos) = (nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000));
    let (days, second_of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400) as u32);
    let (year, month, day) = civil_from_days(days);
    let mut text = *b"0000-00-00T00:00:00.000000000Z";
    put_digits(year as u32, &mut text[..4]);
    put_digits(month as u32, &mut text[5..7]);
    put_digits(day as u32, &mut text[8..10]);
    put_digits(second_of_day / 3600, &mut text[11..13]);
    put_digits(second_of_day / 60 % 60, &mut text[14..16]);
    put_digits(second_of_day % 60, &mut text[17..19]);
    write_fraction(nanos as u32, &mut text[RFC3339_SECOND..]);
    text
}

/// Puts the nine digits of a fraction of a second in place.
pub fn write_fraction(nanos: u32, text: &mut [u8]) {
    put_digits(nanos, &mut text[..9]);
}

fn put_digits(mut value: u32, digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// The date of a day since 1970-01-01; the reverse of [`days_from_civil`].
pub fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NANOS: i64 = 1_475_713_029_669_794_202;

    #[test]
    fn a_cri_line_is_taken_apart() {
        let parsed = parse_container_line(b"2016-10-06T00:17:09.669794202Z stderr P log content 1");
        assert_eq!(parsed.format, Format::Cri);
        assert_eq!(parsed.time, Some(NANOS));
        assert_eq!(parsed.stream, Stream::Stderr);
        assert!(parsed.partial);
        assert_eq!(&parsed.text[..], b"log content 1");
    }

    #[test]
    fn an_empty_cri_line_may_lack_its_last_space() {
        let parsed = parse_container_line(b"2016-10-06T00:17:09Z stdout F");
        assert_eq!((parsed.format, &parsed.text[..]), (Format::Cri, &b""[..]));
    }

    #[test]
    fn further_cri_tags_are_passed_over() {
        let parsed = parse_container_line(b"2016-10-06T00:17:09+02:00 stdout F:x text");
        assert_eq!((parsed.partial, &parsed.text[..]), (false, &b"text"[..]));
        assert_eq!(parsed.time, Some(1_475_705_829_000_000_000));
    }

    #[test]
    fn a_docker_line_is_taken_apart() {
        let parsed = parse_container_line(
            br#"{"log":"say \"hi\"\n","stream":"stdout","attrs":{"a":"b"},"time":"2016-10-06T00:17:09.669794202Z"}"#,
        );
        assert_eq!(parsed.format, Format::Docker);
        assert_eq!(&parsed.text[..], br#"say "hi""#);
        assert!(!parsed.partial);
    }

    #[test]
    fn a_docker_line_without_newline_goes_on() {
        let parsed =
            parse_container_line(br#"{"log":"half","stream":"stdout","time":"2016-10-06T00:17:09Z"}"#);
        assert_eq!((parsed.partial, &parsed.text[..]), (true, &b"half"[..]));
    }

    #[test]
    fn a_line_of_no_known_format_is_kept_as_text() {
        for line in [
            &b"{\"log\":"[..],
            b"panic: oops",
            b"",
            b"2016-10-06T00:17:09Z stdlog F x",
            b"2016-13-06T00:17:09Z stdout F x",
        ] {
            let parsed = parse_container_line(line);
            assert_eq!((parsed.format, &parsed.text[..]), (Format::Plain, line));
        }
    }

    #[test]
    fn a_carriage_return_is_taken_off_plain_lines() {
        assert_eq!(&parse_plain_line(b"text\r").text[..], b"text");
    }

    proptest! {
        #[test]
        fn a_written_time_reads_back(nanos in i64::MIN + 1_000_000_000..) {
            prop_assert_eq!(parse_rfc3339(&rfc3339(nanos)), Some(nanos));
        }

        #[test]
        fn no_bytes_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            parse_container_line(&line);
            parse_plain_line(&line);
        }

        #[test]
        fn no_almost_time_panics(text in "[0-9TZ:.+-]{0,40}") {
            parse_rfc3339(text.as_bytes());
        }
    }
}
