//! What a client takes: which encoding, which content type.

use hyper::header::{ACCEPT, ACCEPT_ENCODING, HeaderMap};
use nodewarden_collectors::text;

/// Whether the client wants gzip: it is named in `Accept-Encoding`, with more weight than the plain text has.
///
/// Only who names it gets it: `*` and a weight of 0 mean the plain text, as in node_exporter.
pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    let (mut gzip, mut plain) = (0.0, 0.0);
    let lists = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    for item in lists.flat_map(|list| list.split(',')) {
        let (coding, weight) = item.split_once(';').unwrap_or((item, ""));
        let weight = weight.trim().strip_prefix("q=").and_then(|weight| weight.parse().ok());
        let weight: f32 = weight.unwrap_or(1.0);
        match coding.trim() {
            coding if coding.eq_ignore_ascii_case("gzip") => gzip = weight.max(gzip),
            coding if coding.eq_ignore_ascii_case("identity") || coding == "*" => plain = weight.max(plain),
            _ => {}
        }
    }
    gzip > plain
}

/// The content type of the page: always the text format 0.0.4, with the way to escape names that the client prefers. Our names
/// are the same in all of these ways; `dots` would change them, and a client takes what is answered.
pub fn content_type(headers: &HeaderMap) -> &'static str {
    let list = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut items: Vec<Item<'_>> = list.split(',').map(Item::parse).collect();
    items.sort_by(|a, b| b.weight.total_cmp(&a.weight));
    let mut content_type = text::CONTENT_TYPE;
    for item in items {
        match item.parameter("escaping") {
            Some("allow-utf-8") => {
                content_type = "text/plain; version=0.0.4; charset=utf-8; escaping=allow-utf-8";
            }
            Some("values") => content_type = "text/plain; version=0.0.4; charset=utf-8; escaping=values",
            Some("underscores" | "dots") => content_type = text::CONTENT_TYPE,
            _ => {}
        }
        // What comes after the format that is served is not looked at.
        if item.kind == "text/plain" && matches!(item.parameter("version"), None | Some("" | "0.0.4")) {
            break;
        }
    }
    content_type
}

/// `text/plain;version=1.0.0;escaping=allow-utf-8;q=0.5`
struct Item<'a> {
    kind: &'a str,
    parameters: &'a str,
    weight: f32,
}

impl<'a> Item<'a> {
    fn parse(text: &'a str) -> Self {
        let (kind, parameters) = text.split_once(';').unwrap_or((text, ""));
        let mut item = Self { kind: kind.trim(), parameters, weight: 1.0 };
        item.weight = item.parameter("q").and_then(|weight| weight.parse().ok()).unwrap_or(1.0);
        item
    }

    fn parameter(&self, name: &str) -> Option<&'a str> {
        let pairs = self.parameters.split(';').filter_map(|pair| pair.split_once('='));
        pairs
            .map(|(key, value)| (key.trim(), value.trim()))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    fn headers(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn gzip_is_for_who_prefers_it() {
        for (value, gzip) in [
            ("gzip", true),
            ("br;q=1.0, GZIP", true),
            ("gzip;q=0.5", true),
            ("identity;q=0.5, gzip", true),
            ("gzip;q=0", false),
            ("gzip, identity", false),
            ("*", false),
            ("gzip;q=0.5, *", false),
            ("", false),
            ("br", false),
        ] {
            assert_eq!(accepts_gzip(&headers(ACCEPT_ENCODING, value)), gzip, "{value}");
        }
    }

    #[test]
    fn the_way_to_escape_is_the_client_s() {
        let of = |value| content_type(&headers(ACCEPT, value)).rsplit_once('=').expect("a parameter").1;
        assert_eq!(content_type(&HeaderMap::new()), text::CONTENT_TYPE);
        for (value, escaping) in [
            ("*/*", "underscores"),
            ("text/plain;version=1.0.0;escaping=allow-utf-8;q=0.5,*/*;q=0.1", "allow-utf-8"),
            ("text/plain;version=0.0.4;q=0.2,text/plain;version=1.0.0;escaping=values;q=0.1", "underscores"),
            ("text/plain;version=1.0.0;escaping=values;q=0.3,text/plain;version=0.0.4;q=0.2", "values"),
            ("application/openmetrics-text;version=1.0.0;escaping=dots", "underscores"),
            (";;=,", "underscores"),
        ] {
            assert_eq!(of(value), escaping, "{value}");
        }
    }
}
