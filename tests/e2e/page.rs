//! The page in a real browser.

use std::process::Command;

use crate::support::{Agent, LogDir, Stream, pods_config, repository};

#[test]
fn a_browser_shows_the_host_and_its_lines() {
    let built = repository().join("src/web/page/dist/index.html");
    assert!(built.is_file(), "the page is not built: run make test");
    let logs = LogDir::new();
    let agent = Agent::start(&pods_config(&logs), &[]);
    let text = "checkout finished for order 4711";
    let mut file = logs.container("shop", "cart-0", "app");
    for other in ["cart opened", "GET /api/v1/items 200 in 12 ms", "payment accepted"] {
        file.line(Stream::Stdout, other);
    }
    file.line(Stream::Stdout, text);
    // Kept: after a failure one looks at page.png.
    let shots = concat!(env!("CARGO_TARGET_TMPDIR"), "/page");
    let output = Command::new("node")
        .arg(repository().join("tests/page/check.mjs"))
        .args([agent.page.as_str(), shots, text])
        .current_dir(repository())
        .output()
        .expect("node runs");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}
