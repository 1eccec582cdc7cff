//! The page's files, embedded by `build.rs` out of `src/web/page/dist/`.

/// One file of the page.
#[derive(Debug)]
pub struct Asset {
    /// Relative to the page's address: `index.html`, `assets/app-XXXXXXXX.js`.
    pub path: &'static str,
    /// The value of `Content-Type`.
    pub content_type: &'static str,
    /// The file as it is.
    pub bytes: &'static [u8],
    /// The file gzipped, where the page's build made that.
    pub gzip: Option<&'static [u8]>,
}

impl Asset {
    /// True for files whose name changes with their content: a browser may keep them for good.
    pub fn is_immutable(&self) -> bool {
        self.path.starts_with("assets/")
    }
}

/// What the page may load and talk to: itself. The value of `Content-Security-Policy`.
pub const CONTENT_SECURITY_POLICY: &str =
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'";

/// Sorted by path.
const ASSETS: &[Asset] = include!(concat!(env!("OUT_DIR"), "/page_assets.rs"));

/// The file at a path of a request, with or without its leading slash; the empty path is the page itself.
pub fn asset(path: &str) -> Option<&'static Asset> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = if path.is_empty() { "index.html" } else { path };
    ASSETS.iter().find(|asset| asset.path == path)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn the_page_itself_answers_at_the_empty_path() {
        for path in ["", "/", "index.html", "/index.html"] {
            assert_eq!(asset(path).unwrap().content_type, "text/html; charset=utf-8", "{path:?}");
        }
    }

    #[test]
    fn other_paths_have_no_file() {
        for path in ["/nothing", "/../Cargo.toml", "//", "/index.html.gz"] {
            assert!(asset(path).is_none(), "{path:?}");
        }
    }

    #[test]
    fn the_gzipped_bytes_are_the_same_file() {
        for asset in ASSETS {
            let Some(gzip) = asset.gzip else { continue };
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(gzip).read_to_end(&mut plain).unwrap();
            assert_eq!(plain, asset.bytes, "{}", asset.path);
        }
    }

    #[test]
    fn whatever_the_page_refers_to_is_embedded() {
        let page = std::str::from_utf8(asset("").unwrap().bytes).unwrap();
        let references = page.split('"').filter_map(|part| part.strip_prefix("./"));
        for path in references {
            assert!(asset(path).is_some(), "{path}");
        }
    }

    #[test]
    fn the_whole_page_stays_below_200_kilobytes() {
        let size: usize = ASSETS.iter().map(|asset| asset.bytes.len()).sum();
        assert!(size < 200_000, "{size} bytes");
    }
}
