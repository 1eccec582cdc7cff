//! What stands behind the `?` of an address.

/// Names and values, decoded, in the order in which they were written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    pub(super) fn parse(query: Option<&str>) -> Self {
        let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(name), decode(value))
                })
                .collect(),
        )
    }

    /// The first value of that name that is not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let mut values = self.0.iter().filter(|(known, value)| known == name && !value.is_empty());
        values.next().map(|(_, value)| value.as_str())
    }

    /// Every value of that name.
    pub(super) fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(known, _)| known == name).map(|(_, value)| value.clone()).collect()
    }
}

/// `%41` and `+`; what is not such an escape stays as it is, bytes that are not UTF-8 become U+FFFD.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escape = (byte == b'%').then(|| hex_byte(bytes.get(at + 1..at + 3)?)).flatten();
        decoded.push(escape.unwrap_or(if byte == b'+' { b' ' } else { byte }));
        at += if escape.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    Some((digit(digits[0])? * 16 + digit(digits[1])?) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded() {
        let parameters =
            Parameters::parse(Some("collect[]=cpu&collect%5B%5D=meminfo&query=a+b%2Bc&empty=&x"));
        assert_eq!(parameters.all("collect[]"), ["cpu", "meminfo"]);
        assert_eq!(parameters.get("query"), Some("a b+c"));
        assert_eq!(parameters.get("empty"), None);
        assert_eq!(parameters.get("x"), None);
        assert_eq!(Parameters::parse(None), Parameters::default());
    }

    #[test]
    fn odd_escapes_are_harmless() {
        for (written, decoded) in
            [("%", "%"), ("%4", "%4"), ("%zz", "%zz"), ("a%ff", "a\u{fffd}"), ("%é", "%é")]
        {
            assert_eq!(decode(written), decoded);
        }
    }
}
