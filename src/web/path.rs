//! Paths as Go's servers understand them: escapes are undone, and who asks for `//metrics` is sent to `/metrics`.

use std::borrow::Cow;

use hyper::{
    Method, Response, StatusCode,
    header::{HeaderValue, LOCATION},
};

use super::answer::{self, Body};

/// A path with its escapes undone; `None` when one of them is none.
pub fn decode(path: &str) -> Option<Cow<'_, str>> {
    if !path.contains('%') {
        return Some(Cow::Borrowed(path));
    }
    if !has_good_escapes(path) {
        return None;
    }
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        match after.split_at_checked(2).filter(|_| byte == b'%') {
            Some((digits, after)) => {
                let digits = std::str::from_utf8(digits).ok()?;
                decoded.push(u8::from_str_radix(digits, 16).ok()?);
                rest = after;
            }
            None => {
                decoded.push(byte);
                rest = after;
            }
        }
    }
    Some(Cow::Owned(String::from_utf8_lossy(&decoded).into_owned()))
}

/// Whether each `%` is followed by two hex digits.
pub fn has_good_escapes(text: &str) -> bool {
    let is_good =
        |after: &str| after.as_bytes().get(..2).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit));
    text.split('%').skip(1).all(is_good)
}

/// The path that is meant by one with empty parts, `.` or `..`; `None` when it is clean already.
pub fn clean(path: &str) -> Option<String> {
    let is_clean = path.starts_with('/') && !path.contains("//") && !path.contains("/.");
    if is_clean {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let end = if path.ends_with('/') && !parts.is_empty() { "/" } else { "" };
    let clean = format!("/{}{end}", parts.join("/"));
    Some(clean).filter(|clean| clean != path)
}

/// Sends the client to another path, with the query that it came with. As in Go the path is escaped once more.
pub fn elsewhere(path: &str, query: Option<&str>, method: &Method) -> Response<Body> {
    let mut location = String::new();
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z'
            | b'A'..=b'Z'
            | b'0'..=b'9'
            | b'-'
            | b'_'
            | b'.'
            | b'~'
            | b'$'
            | b'&'
            | b'+'
            | b','
            | b'/'
            | b':'
            | b';'
            | b'='
            | b'@' => location.push(byte.into()),
            _ => location += &format!("%{byte:02X}"),
        }
    }
    if let Some(query) = query {
        location.push('?');
        location += query;
    }
    let mut response = match *method {
        Method::GET | Method::HEAD => {
            let escaped = location.replace('&', "&amp;").replace('"', "&#34;").replace('\'', "&#39;");
            let escaped = escaped.replace('<', "&lt;").replace('>', "&gt;");
            let page = format!("<a href=\"{escaped}\">Temporary Redirect</a>.\n\n");
            answer::body(StatusCode::TEMPORARY_REDIRECT, "text/html; charset=utf-8", page)
        }
        _ => answer::nothing(StatusCode::TEMPORARY_REDIRECT),
    };
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes_are_undone() {
        assert_eq!(decode("/metrics").as_deref(), Some("/metrics"));
        assert_eq!(decode("/%6detrics%2F").as_deref(), Some("/metrics/"));
        for odd in ["/%", "/%4", "/%zz", "/%+1"] {
            assert_eq!(decode(odd), None, "{odd}");
        }
    }

    #[test]
    fn odd_paths_are_cleaned() {
        for (path, clean_one) in [
            ("//", "/"),
            ("//metrics", "/metrics"),
            ("/metrics//", "/metrics/"),
            ("/./metrics", "/metrics"),
            ("/a/../metrics", "/metrics"),
            ("/../..", "/"),
            ("/a/.", "/a"),
            ("metrics", "/metrics"),
        ] {
            assert_eq!(clean(path).as_deref(), Some(clean_one), "{path}");
        }
        for path in ["/", "/metrics", "/metrics/", "/.well-known/x", "/a..b"] {
            assert_eq!(clean(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn what_was_cleaned_is_clean(path in "[/.a%]{0,12}") {
            if let Some(once) = clean(&path) {
                prop_assert_eq!(clean(&once), None);
            }
            let _ = decode(&path);
        }
    }
}
