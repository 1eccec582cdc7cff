//! Words, names and quoted texts of a line of the text format.

pub(super) fn is_label_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

pub(super) fn is_metric_byte(byte: u8) -> bool {
    is_label_byte(byte) || byte == b':'
}

/// A number as Go reads it: one that is too big for a float is a mistake, not infinity.
pub(super) fn parse_float(text: &[u8]) -> Option<f64> {
    let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    let overflows = value.is_infinite() && text.iter().any(u8::is_ascii_digit);
    (!overflows).then_some(value)
}

/// What is left of a line.
#[derive(Clone, Copy)]
pub(super) struct Line<'a>(pub(super) &'a [u8]);

impl<'a> Line<'a> {
    pub(super) fn starts_blank(self) -> bool {
        matches!(self.0.first(), Some(b' ' | b'\t'))
    }

    pub(super) fn after_blanks(self) -> Self {
        let blanks = self.0.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        Self(&self.0[blanks..])
    }

    /// Up to the next blank.
    pub(super) fn word(self) -> (&'a [u8], Self) {
        let end = self.0.iter().position(|byte| matches!(byte, b' ' | b'\t')).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        (word, Self(rest))
    }

    /// A name of `allowed` bytes, or one in quotes; empty when there is none.
    pub(super) fn name(self, allowed: fn(u8) -> bool) -> Result<(String, Self), &'static str> {
        if self.0.starts_with(b"\"") {
            return self.quoted();
        }
        let end = self.0.iter().position(|&byte| !allowed(byte)).unwrap_or(self.0.len());
        let (name, rest) = self.0.split_at(end);
        Ok((String::from_utf8_lossy(name).into_owned(), Self(rest)))
    }

    /// A text in quotes.
    pub(super) fn quoted(self) -> Result<(String, Self), &'static str> {
        let inside = self.0.strip_prefix(b"\"").ok_or("expected a quote before a label value")?;
        let mut text = Vec::new();
        let mut bytes = inside.iter().enumerate();
        while let Some((at, &byte)) = bytes.next() {
            match byte {
                b'"' => {
                    let text = String::from_utf8(text).map_err(|_| "a label value is not UTF-8")?;
                    return Ok((text, Self(&inside[at + 1..])));
                }
                b'\\' => text.push(unescape(bytes.next().map(|(_, byte)| *byte))?),
                byte => text.push(byte),
            }
        }
        Err("a quote is not closed")
    }

    /// The rest as a help text.
    pub(super) fn unescaped_help(self) -> Result<String, &'static str> {
        let mut text = Vec::new();
        let mut bytes = self.0.iter().copied();
        while let Some(byte) = bytes.next() {
            text.push(if byte == b'\\' { unescape(bytes.next())? } else { byte });
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

fn unescape(byte: Option<u8>) -> Result<u8, &'static str> {
    match byte {
        Some(b'n') => Ok(b'\n'),
        Some(byte @ (b'\\' | b'"')) => Ok(byte),
        _ => Err(r#"only \\, \n and \" can be escaped"#),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_text_ends_at_its_own_quote() {
        let (text, rest) = Line(br#""a\\b\"\n" 1"#).quoted().expect("closed");
        assert_eq!((text.as_str(), rest.0), ("a\\b\"\n", &b" 1"[..]));
        for text in [&b"a"[..], br#""a"#, br#""\t""#, b"\"\xff\"", br#""\"#] {
            assert!(Line(text).quoted().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_number_that_is_too_big_is_none() {
        assert_eq!(parse_float(b"1e400"), None);
        assert_eq!(parse_float(b"-Inf"), Some(f64::NEG_INFINITY));
        assert_eq!(parse_float(b"\xff"), None);
    }
}
