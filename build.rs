//! Embeds the built page, `src/web/page/dist/`; without one, a page that says how to build it. Runs nothing and needs no Node.

use std::{
    env,
    error::Error,
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// The page's sources.
const PAGE: &str = "src/web/page";

/// What the binary says when it was built without the page.
const NO_PAGE: &str = "<!doctype html><meta charset=utf-8><title>nodewarden</title>\
    <p>This build has no page: run <code>make build</code> (needs Node) and start that binary; \
    <code>nodewarden logs</code> and <code>nodewarden files</code> work without it.</p>\n";

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let dist = root.join(PAGE).join("dist");
    let built = dist.join("index.html").is_file();
    // A watched path that does not exist would make every build a rebuild: without dist/, its parent is watched.
    let watched = if built { dist.clone() } else { root.join(PAGE) };
    writeln!(
        io::stdout(),
        "cargo::rerun-if-changed=build.rs\ncargo::rerun-if-changed={}",
        watched.display()
    )?;

    let mut files = Vec::new();
    if built {
        list(&dist, &mut files)?;
        files.sort();
    }
    let list = if files.is_empty() { placeholder() } else { table(&dist, &files)? };
    fs::write(out.join("page_assets.rs"), list)?;
    Ok(())
}

/// All files below `folder`, in no order.
fn list(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            list(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

/// Rust source: the table of assets, sorted by path, each with its `.gz` neighbour where the page's build left one.
fn table(dist: &Path, files: &[PathBuf]) -> Result<String, Box<dyn Error>> {
    let mut source = String::from("&[\n");
    for file in files.iter().filter(|file| file.extension().is_none_or(|end| end != "gz")) {
        let path = file.strip_prefix(dist)?.to_string_lossy().replace('\\', "/");
        let kind = content_type(file).ok_or_else(|| format!("{}: no content type known", file.display()))?;
        let zipped = PathBuf::from(format!("{}.gz", file.display()));
        let gzip =
            if files.contains(&zipped) { format!("Some(include_bytes!({zipped:?}))") } else { "None".into() };
        writeln!(
            source,
            "    Asset {{ path: {path:?}, content_type: {kind:?}, bytes: include_bytes!({file:?}), gzip: {gzip} }},"
        )?;
    }
    source.push_str("]\n");
    Ok(source)
}

fn placeholder() -> String {
    let kind = "text/html; charset=utf-8";
    format!(
        "&[Asset {{ path: \"index.html\", content_type: {kind:?}, bytes: {NO_PAGE:?}.as_bytes(), gzip: None }}]\n"
    )
}

fn content_type(file: &Path) -> Option<&'static str> {
    Some(match file.extension()?.to_str()? {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        _ => return None,
    })
}
