//! The distribution, out of its os-release file.

use std::{io, path::PathBuf};

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Host, Options, Samples,
    host::{self, Stamp},
};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "os", default_on: true, flags: &[], build };

static INFO: Desc = Desc::gauge(
    "node_os_info",
    "A metric with a constant '1' value labeled by build_id, id, id_like, image_id, image_version, name, \
     pretty_name, variant, variant_id, version, version_codename, version_id.",
    &[
        "build_id",
        "id",
        "id_like",
        "image_id",
        "image_version",
        "name",
        "pretty_name",
        "variant",
        "variant_id",
        "version",
        "version_codename",
        "version_id",
    ],
);
static VERSION: Desc = Desc::gauge(
    "node_os_version",
    "Metric containing the major.minor part of the OS version.",
    &["id", "id_like", "name"],
);
static SUPPORT_END: Desc = Desc::gauge(
    "node_os_support_end_timestamp_seconds",
    "Metric containing the end-of-life date timestamp of the OS.",
    &[],
);

/// The variables of os-release(5) behind the labels of [`INFO`], in the same order.
const VARIABLES: [&str; 12] = [
    "BUILD_ID",
    "ID",
    "ID_LIKE",
    "IMAGE_ID",
    "IMAGE_VERSION",
    "NAME",
    "PRETTY_NAME",
    "VARIANT",
    "VARIANT_ID",
    "VERSION",
    "VERSION_CODENAME",
    "VERSION_ID",
];
const ID: usize = 1;
const ID_LIKE: usize = 2;
const NAME: usize = 5;
const VERSION_ID: usize = 11;

struct Os {
    /// The first one that is there counts.
    paths: [PathBuf; 2],
    /// What was read last, and from which file in which state.
    known: Option<(usize, Stamp, Release)>,
}

fn build(host: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    let paths = ["/etc/os-release", "/usr/lib/os-release"].map(|path| host.root(path));
    Ok(Box::new(Os { paths, known: None }))
}

impl Collector for Os {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let release = self.release()?;
        let labels = release.values.each_ref().map(String::as_str);
        out.push(&INFO, &labels, 1.0);
        if release.version > 0.0 {
            out.push(&VERSION, &[labels[ID], labels[ID_LIKE], labels[NAME]], release.version);
        }
        if let Some(end) = release.support_end {
            out.push(&SUPPORT_END, &[], end as f64);
        }
        Ok(())
    }
}

impl Os {
    /// The release as it is now; the file is read again only when it was changed.
    fn release(&mut self) -> Result<&Release, CollectError> {
        let (at, stamp) = self.find()?;
        let known = match self.known.take() {
            Some(known) if (known.0, known.1) == (at, stamp) => known,
            _ => {
                let path = &self.paths[at];
                let release =
                    parse_release(&host::read_text(path)?).map_err(|what| CollectError::parse(path, what))?;
                (at, stamp, release)
            }
        };
        Ok(&self.known.insert(known).2)
    }

    fn find(&self) -> Result<(usize, Stamp), CollectError> {
        for (at, path) in self.paths.iter().enumerate() {
            match Stamp::of(path) {
                Err(CollectError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                other => return other.map(|stamp| (at, stamp)),
            }
        }
        Err(CollectError::NoData)
    }
}

#[derive(Debug, Default, PartialEq)]
struct Release {
    /// As [`VARIABLES`], empty where the file has none.
    values: [String; VARIABLES.len()],
    /// The leading `major.minor` of VERSION_ID, 0 when it has none.
    version: f64,
    /// SUPPORT_END in seconds since the epoch.
    support_end: Option<i64>,
}

/// os-release(5): "VERSION_ID=\"20.04\"", "SUPPORT_END=2025-05-31"
fn parse_release(text: &str) -> Result<Release, String> {
    let mut release = Release::default();
    for (at, line) in text.lines().enumerate() {
        let place = |what: &str| format!("line {}: {what}", at + 1);
        let Some((name, value)) = parse_assignment(line).map_err(place)? else { continue };
        if name == "SUPPORT_END" {
            release.support_end = parse_date(&value).map_err(|what| place(&what))?;
        } else if let Some(at) = VARIABLES.iter().position(|&variable| variable == name) {
            release.values[at] = value;
        }
    }
    release.version = leading_number(&release.values[VERSION_ID]);
    Ok(release)
}

/// A day in UTC; nothing for an empty value.
fn parse_date(text: &str) -> Result<Option<i64>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let date = jiff::civil::Date::strptime("%Y-%m-%d", text).map_err(|error| error.to_string())?;
    let midnight = date.to_zoned(jiff::tz::TimeZone::UTC).map_err(|error| error.to_string())?;
    Ok(Some(midnight.timestamp().as_second()))
}

/// The number that `text` begins with: digits, then perhaps a point and digits.
fn leading_number(text: &str) -> f64 {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let whole = digits(text);
    let fraction = text[whole..].strip_prefix('.').map_or(0, |rest| 1 + digits(rest));
    text[..whole + fraction].parse().unwrap_or(0.0)
}

/// A line of a file of shell assignments: name and value without its quotes; nothing for an empty line or a comment.
fn parse_assignment(line: &str) -> Result<Option<(&str, String)>, &'static str> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (name, value) = line.split_once('=').ok_or("expected NAME=VALUE")?;
    let name = name.trim();
    let name = name.strip_prefix("export ").unwrap_or(name);
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'/');
    if name.is_empty() || name.as_bytes()[0].is_ascii_digit() || !name.bytes().all(is_name) {
        return Err("expected a name of letters, digits and _ before =");
    }
    Ok(Some((name, unquote(value.trim())?)))
}

/// Takes quotes and escapes away; a `#` outside of quotes starts a comment.
fn unquote(value: &str) -> Result<String, &'static str> {
    let mut text = String::new();
    // What stands before a comment is cut after its last character that is quoted or no space.
    let mut end = 0;
    let mut quote = None;
    let mut chars = value.chars();
    while let Some(char) = chars.next() {
        match (quote, char) {
            (_, '\0'..'\x20') => return Err("control characters have no place in a value"),
            (None, '#') => {
                text.truncate(end);
                return Ok(text);
            }
            (None, '"' | '\'') => quote = Some(char),
            (Some(open), _) if open == char => quote = None,
            (Some('"'), '\\') => text.push(unescape(&mut chars)?),
            _ => text.push(char),
        }
        if quote.is_some() || char != ' ' {
            end = text.len();
        }
    }
    match quote {
        None => Ok(text),
        Some(_) => Err("a quote is not closed"),
    }
}

/// The character that an escape in double quotes stands for.
fn unescape(chars: &mut std::str::Chars) -> Result<char, &'static str> {
    match chars.next() {
        Some(char @ ('"' | '\\' | '/')) => Ok(char),
        Some('b') => Ok('\u{8}'),
        Some('f') => Ok('\u{c}'),
        Some('n') => Ok('\n'),
        Some('r') => Ok('\r'),
        Some('t') => Ok('\t'),
        Some('u') => unescape_unicode(chars),
        _ => Err("an escape is not known"),
    }
}

/// `\uXXXX`, a pair of them for a character outside of the first plane.
fn unescape_unicode(chars: &mut std::str::Chars) -> Result<char, &'static str> {
    let high = hex(chars)?;
    if let Ok(char) = char::try_from(high) {
        return Ok(char);
    }
    if (chars.next(), chars.next()) != (Some('\\'), Some('u')) {
        return Err("half of a surrogate pair is missing");
    }
    let pair = [high as u16, hex(chars)? as u16];
    Ok(char::decode_utf16(pair).next().and_then(Result::ok).unwrap_or(char::REPLACEMENT_CHARACTER))
}

fn hex(chars: &mut std::str::Chars) -> Result<u32, &'static str> {
    let mut number = 0;
    for _ in 0..4 {
        let digit =
            chars.next().and_then(|char| char.to_digit(16)).ok_or("expected four hexadecimal digits")?;
        number = number * 16 + digit;
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(line: &str) -> Result<String, &'static str> {
        parse_assignment(line).map(|pair| pair.expect("an assignment").1)
    }

    #[test]
    fn variables_become_labels() {
        let text = "NAME=\"Ubuntu\"\nID=ubuntu\nID_LIKE=debian\n\n# comment\nVERSION_ID='20.04'\nSUPPORT_END=2025-05-31\n";
        let release = parse_release(text).expect("understood");
        assert_eq!(release.values[NAME], "Ubuntu");
        assert_eq!(release.values[ID_LIKE], "debian");
        assert_eq!(release.version, 20.04);
        assert_eq!(release.support_end, Some(1_748_649_600));
    }

    #[test]
    fn a_version_is_the_number_in_front() {
        for (text, number) in [("12", 12.0), ("20.04.2 LTS", 20.04), ("7.", 7.0), ("rolling", 0.0), ("", 0.0)]
        {
            assert_eq!(leading_number(text), number, "{text:?}");
        }
    }

    #[test]
    fn quotes_escapes_and_comments_are_taken_away() {
        for (line, expected) in [
            ("A=", ""),
            ("export A = This is ok! # said", "This is ok!"),
            (r#"A="a \"b\" \u0041 # c""#, "a \"b\" A # c"),
            (r#"A="\ud83d\ude00""#, "\u{1f600}"),
            (r"A='a\nb' ", r"a\nb"),
            ("A=\"x \" # c", "x "),
        ] {
            assert_eq!(value(line), Ok(expected.to_owned()), "{line}");
        }
    }

    #[test]
    fn odd_lines_are_refused() {
        for line in ["A", "=1", "1A=1", "A B=1", "A=\"1", "A='1", r#"A="\x""#, r#"A="\u12""#, "A=a\tb"] {
            assert!(parse_assignment(line).is_err(), "{line}");
        }
        assert!(parse_release("SUPPORT_END=soon\n").is_err());
    }

    #[test]
    fn a_root_without_the_file_has_no_data() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let host = Host { rootfs: dir.path().into(), ..Host::default() };
        let settings = crate::Settings::new();
        let mut collector = build(&host, &Options::new(&ENTRY, &settings)).expect("it has no flags");
        let error = collector.collect(&host, &mut Samples::new()).expect_err("nothing is there");
        assert!(matches!(error, CollectError::NoData));
    }
}
