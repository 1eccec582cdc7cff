//! A cluster's control plane as users reach it: kubectl and Helm with a file of credentials.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use crate::support::repository;

/// A program that `make test-cluster` installs.
pub fn program(name: &str) -> PathBuf {
    repository().join("target/tools/bin").join(name)
}

/// A script of `tests/servers/kubernetes`.
pub fn script(name: &str) -> PathBuf {
    repository().join("tests/servers/kubernetes").join(name)
}

/// Whether all of these are installed; a line says which is not.
pub fn has(programs: &[&str]) -> bool {
    let missing = programs.iter().find(|name| !program(name).is_file());
    missing.inspect(|name| eprintln!("SKIPPED: {name} is not here: make test-cluster installs it")).is_none()
}

/// Starts a script that runs something until its standard input is closed, and waits until it is ready.
#[track_caller]
pub fn run_until_eof(command: &mut Command) -> Child {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the script starts");
    let output = BufReader::new(child.stdout.take().expect("its output"));
    let ready = output.lines().map_while(Result::ok).any(|line| line == "ready");
    assert!(ready, "{command:?} is not ready; what it said is above");
    child
}

/// Who may do everything in a cluster.
pub struct Admin {
    pub kubeconfig: PathBuf,
}

impl Admin {
    /// Of the cluster whose script was given this folder.
    pub fn of(dir: &Path) -> Self {
        Self { kubeconfig: dir.join("kubeconfig") }
    }

    /// kubectl.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        self.run("kubectl", arguments, "")
    }

    /// Helm, in the repository.
    pub fn helm(&self, arguments: &[&str]) -> Result<String, String> {
        self.run("helm", arguments, "")
    }

    /// Applies objects as they stand in a manifest.
    #[track_caller]
    pub fn apply(&self, manifest: &str) {
        self.run("kubectl", &["apply", "--filename=-"], manifest).expect("applied");
    }

    /// Makes many objects, none of which is there.
    #[track_caller]
    pub fn create(&self, manifest: &str) {
        self.run("kubectl", &["create", "--filename=-"], manifest).expect("made");
    }

    /// An object, or a list of them, as the API server has it.
    pub fn get(&self, arguments: &[&str]) -> Result<Value, String> {
        let said = self.kubectl(&[&["get", "--output=json"], arguments].concat())?;
        serde_json::from_str(&said).map_err(|error| error.to_string())
    }

    fn run(&self, name: &str, arguments: &[&str], input: &str) -> Result<String, String> {
        let mut child = Command::new(program(name))
            .args(arguments)
            .env("KUBECONFIG", &self.kubeconfig)
            .current_dir(repository())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        // Whoever wants none may have ended before it is handed over.
        let _ = child.stdin.take().expect("its input").write_all(input.as_bytes());
        let said = child.wait_with_output().expect("its end");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if said.status.success() { Ok(text(&said.stdout)) } else { Err(text(&said.stderr)) }
    }
}
