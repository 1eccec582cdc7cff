//! The real binary's command line: exit codes, help, and mistakes before anything runs.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a broken helper fails its test"
)]

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use nodewarden::cli;
use nodewarden_collectors::{Entry, Flag, FlagKind, node};

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

/// Whether the command line takes this.
fn is_taken(flag: &str) -> bool {
    !matches!(cli::parse(["nodewarden", flag].map(OsString::from)), Err(cli::Stop::Mistake(_)))
}

fn collector(name: &str) -> Option<&'static Entry> {
    node::ALL.iter().copied().find(|entry| entry.name == name)
}

fn option(name: &str) -> Option<&'static Flag> {
    node::ALL.iter().flat_map(|entry| entry.flags).find(|flag| flag.name == name)
}

/// What is not as one line of node_exporter's help has it: `--[no-]collector.cpu  Enable the cpu collector (default: enabled).`
/// or `--collector.vmstat.fields="^(oom_kill|pgpg|pswp|pg.*fault).*"`.
fn difference(line: &str, is_on: bool) -> Option<String> {
    let (flag, _) = line.split_once("  ").unwrap_or((line, ""));
    if let Some(name) = flag.strip_prefix("--[no-]") {
        if !is_taken(&format!("--{name}")) || !is_taken(&format!("--no-{name}")) {
            return Some(format!("--{name} is not taken"));
        }
        let entry = name.strip_prefix("collector.").and_then(collector)?;
        return (entry.default_on != is_on).then(|| format!("--{name} is on: {}", entry.default_on));
    }
    let (name, default) = flag.trim_start_matches("--").split_once('=')?;
    if !is_taken(&format!("--{name}=x")) {
        return Some(format!("--{name} is not taken"));
    }
    let option = name.strip_prefix("collector.").and_then(option)?;
    // Without a default the name stands there in capitals; texts are quoted as Go quotes them.
    let default =
        if default.starts_with(&name.to_uppercase()) { "" } else { default.trim_end_matches(" ...") };
    let default = default.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(default);
    let default = default.replace("\\\\", "\\");
    (option.default != default).then(|| format!("--{name} is {:?}, not {default:?}", option.default))
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test asks another program for its help")]
fn every_flag_of_node_exporter_is_taken_and_has_its_default() {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin/node_exporter");
    let peer = std::env::var_os("NODE_EXPORTER").map_or(built, PathBuf::from);
    if !peer.is_file() {
        eprintln!("no node_exporter to compare with: run tests/servers/install.sh, or set NODE_EXPORTER");
        return;
    }
    let help = std::process::Command::new(peer).arg("--help").output().expect("its help");
    let help = String::from_utf8(help.stdout).expect("UTF-8");
    // A flag begins a line in the sixth column, and what is said of it may go on below.
    let flags: Vec<&str> = help.split("\n      --").skip(1).collect();
    assert!(flags.len() > 160, "{help}");
    let differ: Vec<String> = flags
        .iter()
        // Those of the command itself have no dot.
        .filter(|text| text.split([' ', '=']).next().is_some_and(|name| name.contains('.')))
        .filter_map(|text| {
            let is_on = text.split_whitespace().collect::<Vec<_>>().join(" ").contains("(default: enabled)");
            difference(&format!("--{}", text.lines().next().unwrap_or_default()), is_on)
        })
        .collect();
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

#[test]
fn flags_that_node_exporter_hides_are_taken_too() {
    for name in [
        "collector.netdev.device-whitelist",
        "collector.netdev.device-blacklist",
        "collector.systemd.unit-whitelist",
        "collector.systemd.unit-blacklist",
        "collector.systemd.private",
        "collector.filesystem.mount-timeout",
        "collector.filesystem.stat-workers",
        "collector.filesystem.ignored-mount-points",
        "collector.filesystem.ignored-fs-types",
        "collector.diskstats.ignored-devices",
        "collector.qdisk.device-include",
        "collector.qdisk.device-exclude",
    ] {
        let is_switch = option(&name["collector.".len()..]).is_some_and(|flag| flag.kind == FlagKind::Bool);
        let written = if is_switch { format!("--{name}") } else { format!("--{name}=x") };
        assert!(is_taken(&written), "{name}");
    }
}
