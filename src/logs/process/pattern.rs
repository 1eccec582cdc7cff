//! The user's regular expressions, over bytes and within bounds: they are matched in time linear in the text, whatever they are.

use std::fmt;

use regex::bytes::{Regex, RegexBuilder};

/// A longer one is no pattern for lines of a log.
const LONGEST: usize = 4096;
/// Memory of one compiled pattern, and the same of what it keeps while it searches.
const COMPILED: usize = 1 << 20;
const CACHED: usize = 512 << 10;

/// A regular expression.
#[derive(Clone)]
pub struct Pattern(Regex);

impl Pattern {
    /// Reads it; the error says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("an empty pattern fits everything; write what is to be found".into());
        }
        if text.len() > LONGEST {
            return Err(format!("a pattern may have at most {LONGEST} bytes, this one has {}", text.len()));
        }
        let made = RegexBuilder::new(text).size_limit(COMPILED).dfa_size_limit(CACHED).build();
        made.map(Self).map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => {
                format!("'{text}' takes more memory than a pattern may; write smaller counts in its braces")
            }
            error => {
                let said = error.to_string();
                let reason = said.lines().last().unwrap_or_default().trim_start_matches("error: ");
                format!("'{text}' is no regular expression: {reason}")
            }
        })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether it is found in a text.
    pub fn is_in(&self, text: &[u8]) -> bool {
        self.0.is_match(text)
    }

    /// The expression itself.
    pub fn regex(&self) -> &Regex {
        &self.0
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/", self.as_str())
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Pattern {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_wrong_pattern_says_what_is_wrong() {
        for (text, said) in [
            ("", "fits everything"),
            ("a(b", "'a(b' is no regular expression: unclosed group"),
            ("((a{1000}){1000}){1000}", "takes more memory"),
        ] {
            let error = Pattern::parse(text).expect_err("refused");
            assert!(error.contains(said), "{error}");
        }
        assert!(Pattern::parse(&"a".repeat(LONGEST + 1)).is_err());
    }

    proptest! {
        #[test]
        fn no_pattern_panics(pattern in "[a-c(){}\\[\\]|*+?^$.\\\\0-9]{0,20}", text in any::<Vec<u8>>()) {
            if let Ok(pattern) = Pattern::parse(&pattern) {
                pattern.is_in(&text);
                pattern.regex().replace_all(&text, &b"$1"[..]);
            }
        }
    }
}
