//! The page's files.

/// One file of the page.
#[derive(Debug)]
pub struct Asset {
    /// Relative to the page's address.
    pub path: &'static str,
    /// The value of `Content-Type`.
    pub content_type: &'static str,
    /// The file as it is.
    pub bytes: &'static [u8],
    /// The file gzipped, where there is such a form.
    pub gzip: Option<&'static [u8]>,
}

/// What the page may load and talk to: itself. The value of `Content-Security-Policy`.
pub const CONTENT_SECURITY_POLICY: &str =
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'";

const ASSETS: &[Asset] = &[Asset {
    path: "index.html",
    content_type: "text/html; charset=utf-8",
    bytes: b"<!doctype html><title>nodewarden</title><p>This build has no page.\n",
    gzip: None,
}];

/// The file at a path of a request, with or without its leading slash; the empty path is the page itself.
pub fn asset(path: &str) -> Option<&'static Asset> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = if path.is_empty() { "index.html" } else { path };
    ASSETS.iter().find(|asset| asset.path == path)
}
