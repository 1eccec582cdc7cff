//! The real binary's command line: exit codes, help, and mistakes before anything runs.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a broken helper fails its test")]

use std::{fs, path::Path};

struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Runs the binary without a trace of the environment of whoever runs the tests.
#[expect(clippy::disallowed_methods, reason = "the test runs the very binary that must not run others")]
fn nodewarden(args: &[&str]) -> Said {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_nodewarden"))
        .args(args)
        .env_clear()
        .output()
        .expect("the binary runs");
    Said {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).expect("UTF-8"),
        err: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

#[test]
fn help_is_grouped_and_readable() {
    let said = nodewarden(&["--help"]);
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    // Collectors come and go: the part above them is compared.
    let (before, collectors) = said.out.split_once("\nCollectors:\n").expect("a heading of its own");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/help.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&golden, before).expect("written");
    }
    assert_eq!(before, fs::read_to_string(golden).expect("the golden text"));
    assert!(collectors.contains("--collector.loadavg"));
    assert!(nodewarden(&["logs", "-h"]).out.contains("--namespace <NAME>"));
    assert!(!nodewarden(&["logs", "-h"]).out.contains("--collector.loadavg"));
}

#[test]
fn version_goes_to_standard_output() {
    let said = nodewarden(&["--version"]);
    assert_eq!(said.code, Some(0));
    assert_eq!(said.out, format!("nodewarden, version {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn an_unknown_flag_is_one_line_and_exit_code_1() {
    let said = nodewarden(&["--web.listen-adress=:9100"]);
    assert_eq!((said.code, said.out.as_str()), (Some(1), ""));
    assert_eq!(
        said.err,
        "nodewarden: error: unknown flag '--web.listen-adress', did you mean '--web.listen-address'? see --help\n"
    );
}

#[test]
fn check_is_content_with_defaults() {
    let said = nodewarden(&["check", "--config.file="]);
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    assert!(said.out.ends_with("\nok\n"), "{}", said.out);
}

#[test]
fn check_and_run_say_every_mistake_and_exit_with_1() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("config.yaml");
    fs::write(&file, "stor: {}\nelasticsearch: {host: es}\n").expect("written");
    let config = format!("--config.file={}", file.display());
    for args in [vec!["check", &config, "--log.level=x"], vec![&config, "--log.level=x"]] {
        let said = nodewarden(&args);
        assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{args:?}");
        assert_eq!(said.err.lines().count(), 4, "{}", said.err);
        assert!(
            said.err.contains("config.yaml:1:1: stor is not a key; did you mean store?\n"),
            "{}",
            said.err
        );
        assert!(said.err.ends_with("3 mistakes\n"), "{}", said.err);
    }
}
