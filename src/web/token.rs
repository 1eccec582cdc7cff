//! The secret that opens the admin listener.

use std::{fmt, hint::black_box, io};

use rustix::rand::{GetRandomFlags, getrandom};

const BYTES: usize = 16;

/// 32 hex digits, new at each start. It is shown to whoever sees the agent's own output.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// A new one from the kernel's randomness.
    pub fn new() -> io::Result<Self> {
        let mut bytes = [0; BYTES];
        // The kernel gives up to 256 bytes at once, never fewer.
        getrandom(&mut bytes[..], GetRandomFlags::empty())?;
        Ok(Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `guess` is the token; how long that takes tells nothing about how much of it is right.
    pub fn is(&self, guess: &str) -> bool {
        let (own, guess) = (self.0.as_bytes(), guess.as_bytes());
        own.len() == guess.len()
            && own.iter().zip(guess).fold(0, |differs, (a, b)| black_box(differs | (a ^ b))) == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_32_hex_digits_and_never_the_same() {
        let (first, second) = (Token::new().expect("random"), Token::new().expect("random"));
        assert_eq!(first.as_str().len(), 32);
        assert!(first.as_str().bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(first.as_str(), second.as_str());
    }

    #[test]
    fn only_the_whole_token_is_the_token() {
        let token = Token("0123456789abcdef0123456789abcdef".into());
        assert!(token.is("0123456789abcdef0123456789abcdef"));
        for guess in
            ["", "0123456789abcdef0123456789abcdee", "0123456789abcdef", "0123456789ABCDEF0123456789ABCDEF"]
        {
            assert!(!token.is(guess), "{guess}");
        }
    }
}
