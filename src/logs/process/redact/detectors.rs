//! Secrets that are known by their form.

use std::{borrow::Cow, ops::Range, sync::LazyLock};

use memchr::memmem;
use regex::bytes::{NoExpand, Regex};

use crate::logs::process::pattern::Pattern;

/// A kind of secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Builtin {
    /// Numbers of payment cards: their length, first digits and Luhn's check digit fit.
    Card,
    /// What is behind `Bearer`, and behind `Authorization: Basic`.
    Bearer,
    /// JSON Web Tokens.
    Jwt,
    /// Access keys of AWS, and secret keys behind that name.
    AwsKey,
    /// Keys with the prefix of their maker: GitHub, GitLab, Google, Slack, Stripe.
    ApiKey,
    /// Private keys in PEM.
    PrivateKey,
    /// E-mail addresses.
    Email,
}

impl Builtin {
    /// Every one of them.
    pub const ALL: [Self; 7] =
        [Self::PrivateKey, Self::Bearer, Self::Jwt, Self::AwsKey, Self::ApiKey, Self::Card, Self::Email];

    /// The word in the configuration, in metrics and in what stands for the secret.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Card => "card",
            Self::Bearer => "bearer",
            Self::Jwt => "jwt",
            Self::AwsKey => "aws_key",
            Self::ApiKey => "api_key",
            Self::PrivateKey => "private_key",
            Self::Email => "email",
        }
    }
}

/// Finds one kind of text.
#[derive(Debug)]
pub enum Finder {
    Card,
    Bearer,
    Jwt,
    Pattern(Option<Regex>),
    PrivateKey,
    Email,
    Own(Pattern),
}

const AWS_KEY: &str = r#"(?-u)\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b|(?i:secret_?access_?key)["'\s:=\\]{1,8}[A-Za-z0-9/+]{40}"#;
const API_KEY: &str = concat!(
    r"(?-u)\b(?:gh[pousr]_[A-Za-z0-9]{36}[A-Za-z0-9]*|github_pat_[A-Za-z0-9_]{22}[A-Za-z0-9_]*|glpat-[A-Za-z0-9_-]{20}[A-Za-z0-9_-]*|",
    r"AIza[A-Za-z0-9_-]{35}|xox[abeoprs]-[A-Za-z0-9-]{10}[A-Za-z0-9-]*|[rs]k_live_[A-Za-z0-9]{16}[A-Za-z0-9]*)"
);

impl Finder {
    pub fn new(builtin: Builtin) -> Self {
        // The two patterns are valid, which a test says.
        match builtin {
            Builtin::Card => Self::Card,
            Builtin::Bearer => Self::Bearer,
            Builtin::Jwt => Self::Jwt,
            Builtin::AwsKey => Self::Pattern(Regex::new(AWS_KEY).ok()),
            Builtin::ApiKey => Self::Pattern(Regex::new(API_KEY).ok()),
            Builtin::PrivateKey => Self::PrivateKey,
            Builtin::Email => Self::Email,
        }
    }

    /// The text with something else in the place of what was found.
    pub fn replace<'a>(&self, text: &'a [u8], replacement: &[u8]) -> Cow<'a, [u8]> {
        match self {
            Self::Own(pattern) => pattern.regex().replace_all(text, replacement),
            Self::Pattern(Some(regex)) => regex.replace_all(text, NoExpand(replacement)),
            Self::Pattern(None) => Cow::Borrowed(text),
            Self::Card => replace_all(text, replacement, card),
            Self::Bearer => replace_all(text, replacement, bearer),
            Self::Jwt => replace_all(text, replacement, jwt),
            Self::PrivateKey => replace_all(text, replacement, private_key),
            Self::Email => replace_all(text, replacement, email),
        }
    }
}

/// `find` gives the next place at or after an offset.
fn replace_all<'a>(
    text: &'a [u8],
    replacement: &[u8],
    find: impl Fn(&[u8], usize) -> Option<Range<usize>>,
) -> Cow<'a, [u8]> {
    let Some(first) = find(text, 0) else { return Cow::Borrowed(text) };
    let (mut out, mut copied, mut next) = (Vec::with_capacity(text.len()), 0, Some(first));
    while let Some(found) = next.filter(|found| found.end > copied && found.start >= copied) {
        out.extend_from_slice(text.get(copied..found.start).unwrap_or_default());
        let is_number = is_json_number(text, &found);
        out.extend_from_slice(if is_number { b"null" } else { replacement });
        copied = found.end;
        next = find(text, copied);
    }
    out.extend_from_slice(text.get(copied..).unwrap_or_default());
    Cow::Owned(out)
}

/// A number that is a value of a JSON object is to leave JSON behind.
fn is_json_number(text: &[u8], found: &Range<usize>) -> bool {
    let before = text.get(..found.start).unwrap_or_default().trim_ascii_end().last();
    let after = text.get(found.end..).unwrap_or_default().trim_ascii_start().first();
    text.first() == Some(&b'{')
        && text.get(found.clone()).is_some_and(|number| number.iter().all(u8::is_ascii_digit))
        && matches!(before, Some(b':' | b',' | b'['))
        && matches!(after, Some(b',' | b'}' | b']'))
}

const CARD_DIGITS: std::ops::RangeInclusive<usize> = 13..=19;

/// Digits with single blanks or dashes between them, of which no part belongs to a longer word or number.
fn card(text: &[u8], from: usize) -> Option<Range<usize>> {
    let is_part = |byte: u8| byte.is_ascii_digit() || byte == b' ' || byte == b'-';
    let mut at = from;
    loop {
        // Wherever a card's number lies, it reaches over one byte in 13.
        let probe = at + CARD_DIGITS.start() - 1;
        if !is_part(*text.get(probe)?) {
            at = probe + 1;
            continue;
        }
        let before = text.get(at..probe)?.iter().rposition(|byte| !is_part(*byte));
        let start = before.map_or(at, |place| at + place + 1);
        let rest = text.get(start..)?;
        let end = start + rest.iter().position(|byte| !is_part(*byte)).unwrap_or(rest.len());
        if let Some(found) = card_within(text, start..end) {
            return Some(found);
        }
        at = end + 1;
    }
}

/// The first card's number in a run of digits, blanks and dashes.
fn card_within(text: &[u8], run: Range<usize>) -> Option<Range<usize>> {
    let is_digit = |at: usize| text.get(at).is_some_and(u8::is_ascii_digit);
    let mut start = run.start;
    while start < run.end {
        let is_begin =
            is_digit(start) && !start.checked_sub(1).is_some_and(|before| belongs(text, before, true));
        if is_begin && let Some(end) = card_at(text, start, run.end) {
            return Some(start..end);
        }
        start += 1;
    }
    None
}

/// Whether the byte beside digits makes them a part of something longer.
fn belongs(text: &[u8], at: usize, is_before: bool) -> bool {
    match text.get(at) {
        Some(byte) if byte.is_ascii_alphanumeric() || *byte == b'_' => true,
        Some(b'.') => {
            let beyond = if is_before { at.checked_sub(1) } else { Some(at + 1) };
            beyond.and_then(|at| text.get(at)).is_some_and(u8::is_ascii_digit)
        }
        _ => false,
    }
}

/// Where the card's number ends that begins here.
fn card_at(text: &[u8], start: usize, limit: usize) -> Option<usize> {
    let (mut digits, mut count, mut at, mut separator) = ([0_u8; 19], 0, start, None);
    while at < limit && count < digits.len() {
        match text.get(at).copied()? {
            byte if byte.is_ascii_digit() => {
                *digits.get_mut(count)? = byte - b'0';
                count += 1;
            }
            // One between two groups, the same one everywhere.
            byte if text.get(at - 1).is_some_and(u8::is_ascii_digit)
                && separator.is_none_or(|known| known == byte) =>
            {
                separator = Some(byte);
            }
            _ => break,
        }
        at += 1;
    }
    let mut end = at;
    while end > start && !text.get(end - 1).is_some_and(u8::is_ascii_digit) {
        end -= 1;
    }
    // Groups behind it may be another number: the longest fit counts.
    while count >= *CARD_DIGITS.start() {
        let fits = !belongs(text, end, false) && is_card(digits.get(..count)?);
        if fits {
            return Some(end);
        }
        count -= 1;
        end -= 1;
        while end > start && !text.get(end - 1).is_some_and(u8::is_ascii_digit) {
            end -= 1;
        }
    }
    None
}

fn is_card(digits: &[u8]) -> bool {
    let first_two = digits.iter().take(2).fold(0, |value: u32, digit| value * 10 + u32::from(*digit));
    let is_length = match first_two {
        34 | 37 => digits.len() == 15,
        22..=27 | 51..=55 => digits.len() == 16,
        40..=49 => matches!(digits.len(), 13 | 16 | 19),
        30 | 36 | 38 | 39 => (14..=19).contains(&digits.len()),
        35 | 50 | 56..=69 => (16..=19).contains(&digits.len()),
        _ => false,
    };
    let sum = digits.iter().rev().enumerate().fold(0_u32, |sum, (place, digit)| {
        let value = u32::from(*digit) << (place % 2);
        sum + if value > 9 { value - 9 } else { value }
    });
    is_length && sum.is_multiple_of(10) && digits.iter().any(|digit| Some(digit) != digits.first())
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte)
}

/// The token behind `Bearer` or `Authorization: Basic`.
fn bearer(text: &[u8], from: usize) -> Option<Range<usize>> {
    let mut at = from;
    loop {
        let rest = text.get(at..)?;
        // "Bearer " and "Basic " have "r " and "c " in common with little else, in any case of their letters.
        let blank = at + memchr::memchr(b' ', rest)?;
        at = blank + 1;
        let before = text.get(..blank)?;
        let is_header = |scheme: &[u8]| {
            let head = before.get(before.len().saturating_sub(28)..before.len() - scheme.len());
            head.is_some_and(|head| memmem::find(head, b"uthorization").is_some())
        };
        let (is_scheme, is_sure) = match before.last() {
            Some(b'r' | b'R') if ends_with_word(before, b"bearer") => (true, is_header(b"bearer")),
            Some(b'c' | b'C') if ends_with_word(before, b"basic") => (is_header(b"basic"), true),
            _ => (false, false),
        };
        if !is_scheme {
            continue;
        }
        let token = text.get(at..)?;
        let length = token.iter().position(|byte| !is_token(*byte)).unwrap_or(token.len());
        let token = token.get(..length)?;
        let is_word = !is_sure && token.iter().all(u8::is_ascii_alphabetic);
        let is_secret = length >= 20 || length >= 8 && !is_word;
        if is_secret {
            return Some(at..at + length);
        }
    }
}

fn ends_with_word(text: &[u8], word: &[u8]) -> bool {
    let Some(start) = text.len().checked_sub(word.len()) else { return false };
    text.get(start..).is_some_and(|end| end.eq_ignore_ascii_case(word))
        && !start.checked_sub(1).and_then(|at| text.get(at)).is_some_and(u8::is_ascii_alphanumeric)
}

/// "eyJ..." dot "..." dot "...": three parts in base 64, the first of which begins with `{"`.
fn jwt(text: &[u8], from: usize) -> Option<Range<usize>> {
    let is_fit = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-' || *byte == b'_';
    let mut at = from;
    loop {
        let start = at + FIND_JWT.find(text.get(at..)?)?;
        at = start + 3;
        let part = |from: usize| {
            let rest = text.get(from..)?;
            Some(from + rest.iter().position(|byte| !is_fit(byte)).unwrap_or(rest.len()))
        };
        let Some(first) = part(start).filter(|end| end - start >= 10 && text.get(*end) == Some(&b'.')) else {
            continue;
        };
        let Some(second) = part(first + 1).filter(|end| *end > first + 4 && text.get(*end) == Some(&b'.'))
        else {
            continue;
        };
        return Some(start..part(second + 1)?);
    }
}

const BEGIN: &[u8] = b"-----BEGIN ";

/// Made once: it costs more than to search a line with it.
static FIND_BEGIN: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(BEGIN));
static FIND_JWT: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b"eyJ"));

/// Where a private key begins, and where the line of its beginning ends.
fn begin_of_key(text: &[u8], from: usize) -> Option<(usize, usize)> {
    let mut at = from;
    loop {
        let start = at + FIND_BEGIN.find(text.get(at..)?)?;
        at = start + BEGIN.len();
        let label = text.get(at..text.len().min(at + 40))?;
        if let Some(end) = memmem::find(label, b"-----").filter(|end| {
            label
                .get(..*end)
                .is_some_and(|label| label.ends_with(b"PRIVATE KEY") || label.ends_with(b"KEY BLOCK"))
        }) {
            return Some((start, at + end + 5));
        }
    }
}

/// From its beginning to its end, or to that of the text.
fn private_key(text: &[u8], from: usize) -> Option<Range<usize>> {
    let (start, begun) = begin_of_key(text, from)?;
    Some(start..end_of_key(text, begun).unwrap_or(text.len()))
}

fn end_of_key(text: &[u8], from: usize) -> Option<usize> {
    let end = from + memmem::find(text.get(from..)?, b"-----END ")? + 9;
    Some(end + memmem::find(text.get(end..)?, b"-----")? + 5)
}

/// Whether a private key begins in a text and does not end there.
pub fn opens_key(text: &[u8]) -> bool {
    let mut from = 0;
    while let Some((_, begun)) = begin_of_key(text, from) {
        match end_of_key(text, begun) {
            Some(end) => from = end,
            None => return true,
        }
    }
    false
}

fn email(text: &[u8], from: usize) -> Option<Range<usize>> {
    let is_local = |byte: &u8| byte.is_ascii_alphanumeric() || b"._%+-".contains(byte);
    let is_domain = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-' || *byte == b'.';
    let mut at = from;
    loop {
        let sign = at + memchr::memchr(b'@', text.get(at..)?)?;
        at = sign + 1;
        let before = text.get(from..sign)?;
        let start = from + before.iter().rposition(|byte| !is_local(byte)).map_or(0, |place| place + 1);
        let after = text.get(at..)?;
        let length = after.iter().position(|byte| !is_domain(byte)).unwrap_or(after.len());
        let domain = after.get(..length)?;
        // A sentence may end with an address.
        let domain = domain.trim_ascii_end();
        let domain = domain.strip_suffix(b".").unwrap_or(domain);
        let Some(dot) = memchr::memrchr(b'.', domain) else { continue };
        let (name, top) = (domain.get(..dot)?, domain.get(dot + 1..)?);
        let is_top = top.len() >= 2 && top.iter().all(u8::is_ascii_alphabetic);
        if start < sign && is_top && name.first().is_some_and(u8::is_ascii_alphanumeric) {
            return Some(start..at + domain.len());
        }
    }
}
