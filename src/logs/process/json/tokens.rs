//! JSON text cut into tokens, checked against the grammar, without building values: strings and numbers stay as they are
//! written.

/// Deeper texts are no JSON to this reader; one bit of a word says what each level is.
pub const DEEPEST: u32 = 64;

/// A string as it is written between its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text<'a> {
    /// The bytes between the quotes.
    pub raw: &'a [u8],
    /// Whether there is a backslash in it.
    pub is_escaped: bool,
}

impl Text<'_> {
    /// The characters that it stands for; `None` when it holds an escape that means none.
    pub fn read(self) -> Option<String> {
        let mut quoted = Vec::with_capacity(self.raw.len() + 2);
        quoted.push(b'"');
        quoted.extend_from_slice(self.raw);
        quoted.push(b'"');
        serde_json::from_slice(&quoted).ok()
    }
}

/// A piece of a JSON text; commas and colons are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token<'a> {
    /// `{`
    BeginObject,
    /// `}`
    EndObject,
    /// `[`
    BeginArray,
    /// `]`
    EndArray,
    /// The name of a member.
    Key(Text<'a>),
    /// A string.
    String(Text<'a>),
    /// A number, `true`, `false` or `null`.
    Plain(&'a [u8]),
}

/// The text is no JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Value,
    KeyOrEnd,
    Key,
    ItemOrEnd,
    CommaOrEnd,
    End,
}

/// Reads tokens one after the other. The text has to be UTF-8.
#[derive(Debug, Clone, Copy)]
pub struct Tokens<'a> {
    text: &'a [u8],
    at: usize,
    /// A set bit is an object, the lowest bit the innermost.
    levels: u64,
    depth: u32,
    expected: Expected,
}

impl<'a> Tokens<'a> {
    /// At the beginning of a text.
    pub fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0, levels: 0, depth: 0, expected: Expected::Value }
    }

    /// Where the next token begins, or the blanks before it.
    pub fn at(&self) -> usize {
        self.at
    }

    /// How many objects and arrays are open.
    pub fn depth(&self) -> u32 {
        self.depth
    }

    /// The next token; `None` at the end of the text.
    pub fn advance(&mut self) -> Result<Option<Token<'a>>, Malformed> {
        self.skip_blanks();
        match self.expected {
            Expected::End => return if self.at == self.text.len() { Ok(None) } else { Err(Malformed) },
            Expected::CommaOrEnd => {
                if self.take(b',') {
                    self.skip_blanks();
                    self.expected = if self.is_in_object() { Expected::Key } else { Expected::Value };
                } else {
                    return self.end().map(Some);
                }
            }
            Expected::KeyOrEnd if self.peek() == Some(b'}') => return self.end().map(Some),
            Expected::ItemOrEnd if self.peek() == Some(b']') => return self.end().map(Some),
            _ => {}
        }
        if matches!(self.expected, Expected::Key | Expected::KeyOrEnd) {
            let key = self.string()?;
            self.skip_blanks();
            if !self.take(b':') {
                return Err(Malformed);
            }
            self.expected = Expected::Value;
            return Ok(Some(Token::Key(key)));
        }
        self.value().map(Some)
    }

    /// Goes over the value that comes next; its bytes as they are written.
    pub fn skip_value(&mut self) -> Result<&'a [u8], Malformed> {
        self.skip_blanks();
        let (start, depth) = (self.at, self.depth);
        loop {
            self.advance()?.ok_or(Malformed)?;
            if self.depth <= depth {
                return self.text.get(start..self.at).ok_or(Malformed);
            }
        }
    }

    fn value(&mut self) -> Result<Token<'a>, Malformed> {
        let token = match self.peek().ok_or(Malformed)? {
            b'{' => return self.begin(true),
            b'[' => return self.begin(false),
            b'"' => Token::String(self.string()?),
            b't' => self.word(b"true")?,
            b'f' => self.word(b"false")?,
            b'n' => self.word(b"null")?,
            _ => self.number()?,
        };
        self.expected = self.after_value();
        Ok(token)
    }

    fn begin(&mut self, is_object: bool) -> Result<Token<'a>, Malformed> {
        if self.depth == DEEPEST {
            return Err(Malformed);
        }
        self.at += 1;
        self.depth += 1;
        self.levels = self.levels << 1 | u64::from(is_object);
        self.expected = if is_object { Expected::KeyOrEnd } else { Expected::ItemOrEnd };
        Ok(if is_object { Token::BeginObject } else { Token::BeginArray })
    }

    fn end(&mut self) -> Result<Token<'a>, Malformed> {
        let (byte, token) =
            if self.is_in_object() { (b'}', Token::EndObject) } else { (b']', Token::EndArray) };
        if !self.take(byte) {
            return Err(Malformed);
        }
        self.depth -= 1;
        self.levels >>= 1;
        self.expected = self.after_value();
        Ok(token)
    }

    fn after_value(&self) -> Expected {
        if self.depth == 0 { Expected::End } else { Expected::CommaOrEnd }
    }

    fn is_in_object(&self) -> bool {
        self.levels & 1 == 1
    }

    fn string(&mut self) -> Result<Text<'a>, Malformed> {
        if !self.take(b'"') {
            return Err(Malformed);
        }
        let start = self.at;
        let mut is_escaped = false;
        loop {
            let rest = self.text.get(self.at..).ok_or(Malformed)?;
            let length = memchr::memchr2(b'"', b'\\', rest).ok_or(Malformed)?;
            let (piece, stop) = rest.split_at(length);
            if piece.iter().fold(0xff, |lowest: u8, byte| lowest.min(*byte)) < 0x20 {
                return Err(Malformed);
            }
            self.at += length + 1;
            if stop.first() == Some(&b'"') {
                let raw = self.text.get(start..self.at - 1).ok_or(Malformed)?;
                return Ok(Text { raw, is_escaped });
            }
            is_escaped = true;
            self.escape()?;
        }
    }

    /// What comes after a backslash.
    fn escape(&mut self) -> Result<(), Malformed> {
        let kind = self.peek().ok_or(Malformed)?;
        self.at += 1;
        match kind {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(()),
            b'u' => match self.hex4()? {
                // The first half of a character beyond 16 bits needs its second half.
                0xd800..=0xdbff if self.take(b'\\') && self.take(b'u') => match self.hex4()? {
                    0xdc00..=0xdfff => Ok(()),
                    _ => Err(Malformed),
                },
                0xd800..=0xdfff => Err(Malformed),
                _ => Ok(()),
            },
            _ => Err(Malformed),
        }
    }

    fn hex4(&mut self) -> Result<u32, Malformed> {
        let digits = self.text.get(self.at..self.at + 4).ok_or(Malformed)?;
        self.at += 4;
        digits.iter().try_fold(0, |value, digit| {
            char::from(*digit).to_digit(16).map(|digit| value << 4 | digit).ok_or(Malformed)
        })
    }

    fn word(&mut self, word: &'static [u8]) -> Result<Token<'a>, Malformed> {
        let found = self.text.get(self.at..self.at + word.len()).filter(|found| *found == word);
        self.at += word.len();
        found.map(Token::Plain).ok_or(Malformed)
    }

    fn number(&mut self) -> Result<Token<'a>, Malformed> {
        let start = self.at;
        self.take(b'-');
        let is_zero = self.peek() == Some(b'0');
        let whole = self.digits()?;
        if is_zero && whole > 1 {
            return Err(Malformed);
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'-') || self.take(b'+');
            self.digits()?;
        }
        self.text.get(start..self.at).map(Token::Plain).ok_or(Malformed)
    }

    /// One digit at least; how many there are.
    fn digits(&mut self) -> Result<usize, Malformed> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start { Err(Malformed) } else { Ok(self.at - start) }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let is_there = self.peek() == Some(byte);
        self.at += usize::from(is_there);
        is_there
    }

    fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(text: &[u8]) -> Result<Vec<Token<'_>>, Malformed> {
        let (mut tokens, mut all) = (Tokens::new(text), Vec::new());
        while let Some(token) = tokens.advance()? {
            all.push(token);
        }
        Ok(all)
    }

    #[test]
    fn a_text_is_cut_into_tokens() {
        let plain = |raw| Text { raw, is_escaped: false };
        assert_eq!(
            all(br#" {"a": [1.5e-3, "x\ny"], "b": {}} "#),
            Ok(vec![
                Token::BeginObject,
                Token::Key(plain(b"a")),
                Token::BeginArray,
                Token::Plain(b"1.5e-3"),
                Token::String(Text { raw: br"x\ny", is_escaped: true }),
                Token::EndArray,
                Token::Key(plain(b"b")),
                Token::BeginObject,
                Token::EndObject,
                Token::EndObject,
            ])
        );
    }

    #[test]
    fn a_value_is_passed_over_as_it_is_written() {
        let mut tokens = Tokens::new(br#"{"a": {"b": [1, {}]} , "c": 2}"#);
        tokens.advance().expect("begins");
        tokens.advance().expect("a key");
        assert_eq!(tokens.skip_value(), Ok(&br#"{"b": [1, {}]}"#[..]));
        assert_eq!(tokens.advance(), Ok(Some(Token::Key(Text { raw: b"c", is_escaped: false }))));
        assert_eq!(tokens.skip_value(), Ok(&b"2"[..]));
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for text in [
            "",
            "{",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "[1,]",
            "[1 2]",
            "01",
            "1.",
            "-",
            "1e",
            "tru",
            "{}x",
            "\"\\x\"",
            "\"\\ud800\"",
            "\"\\ud800\\u0041\"",
            "\"\u{1}\"",
            "{1:2}",
            "]",
            "}",
            ",",
            "[}",
            "{]",
        ] {
            assert_eq!(all(text.as_bytes()), Err(Malformed), "{text}");
        }
        assert!(all("[".repeat(64).as_bytes()).is_err() && all(&b"[".repeat(100_000)).is_err());
    }

    /// Texts that are nearly JSON.
    fn nearly() -> impl Strategy<Value = String> {
        "([\\[\\]{},:]|\"a\"|\"\\\\u00e9\"|\"\\\\ud83d\\\\ude00\"|\\\\|1|-0|2\\.5|1e5|true|null| ){0,12}"
    }

    proptest! {
        /// It takes what serde_json takes.
        #[test]
        fn it_agrees_with_a_whole_parser(text in nearly()) {
            let known = serde_json::from_str::<serde_json::Value>(&text);
            // Numbers are passed on as they are written: one that is too large for a float is none of ours to refuse.
            let is_too_large = known.as_ref().is_err_and(|error| error.to_string().contains("out of range"));
            prop_assert!(is_too_large || all(text.as_bytes()).is_ok() == known.is_ok(), "{}", text);
        }

        #[test]
        fn no_text_panics(text in any::<String>(), quoted in any::<String>()) {
            let _ = all(text.as_bytes());
            let _ = all(format!("{{\"{quoted}\":\"{text}").as_bytes());
        }
    }
}
