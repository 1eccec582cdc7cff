//! The image for the other architecture: cross-compiled, packed by the same Dockerfile, run by an emulator on this machine.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    plane::script,
    support::{Agent, Launch, LogDir, Stream, pods_config, repository, seconds, wait_until},
};

const TARGET: &str = "aarch64-unknown-linux-gnu";

/// A program on PATH; a line says when there is none.
fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|dir| dir.join(name)).find(|program| program.is_file());
    if found.is_none() {
        eprintln!("SKIPPED: {name} is not here: make test-cluster installs it, as root");
    }
    found
}

/// Whether the standard library is there for it.
fn has_rust() -> bool {
    let rustc = Command::new("rustc").args(["--print=target-libdir", "--target", TARGET]).output();
    rustc.is_ok_and(|said| Path::new(String::from_utf8_lossy(&said.stdout).trim()).is_dir())
}

#[track_caller]
fn run(command: &mut Command) {
    let said = command.output().expect("it starts");
    assert!(said.status.success(), "{command:?}: {}", String::from_utf8_lossy(&said.stderr));
}

#[test]
fn the_image_for_arm64_scrapes_and_keeps_lines() {
    let Some(emulator) = on_path("qemu-aarch64") else { return };
    if ["aarch64-linux-gnu-gcc", "buildah"].iter().any(|name| on_path(name).is_none()) {
        return;
    }
    if !has_rust() {
        eprintln!("SKIPPED: no Rust for {TARGET} here: make test-cluster installs it where there is rustup");
        return;
    }
    let built = repository().join("target/arm64");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--locked", "--bin", "nodewarden", "--target", TARGET, "--target-dir"]).arg(&built);
    cargo.current_dir(repository());
    cargo.envs([
        ("TARGET_CC", "aarch64-linux-gnu-gcc"),
        ("TARGET_AR", "aarch64-linux-gnu-ar"),
        ("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc"),
        // As much as an emulator needs.
        ("CARGO_PROFILE_DEV_DEBUG", "false"),
    ]);
    run(&mut cargo);
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("arm64");
    let binary = built.join(TARGET).join("debug/nodewarden");
    run(Command::new(script("image.sh")).arg("arm64").args([&binary, &root]));

    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let launch = Launch {
        wrapper: vec![text(&emulator), "-L".into(), text(&root)],
        binary: Some(text(&root.join("usr/bin/nodewarden"))),
        ..Launch::default()
    };
    let logs = LogDir::new();
    let mut file = logs.container("shop", "cart-1", "app");
    file.line(Stream::Stdout, "a line on another processor");
    let agent = Agent::start_as(launch, &pods_config(&logs), &[]);
    let page = agent.get("/metrics").text();
    for expected in ["\nnode_load1 ", "\nnode_memory_MemTotal_bytes ", "\nnode_cpu_seconds_total{"] {
        assert!(page.contains(expected), "{page}");
    }
    wait_until("the line is found", seconds(60), || {
        let found = agent.run(&["logs", "another"]);
        let text = String::from_utf8_lossy(&found.stdout).into_owned();
        if text.contains("a line on another processor") { Ok(()) } else { Err(agent.log()) }
    });
}
