//! A real Prometheus that scrapes the agent.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{free_port, http, program, temp_dir};

/// A server that scrapes one target every second; it ends with the value.
pub struct Prometheus {
    port: u16,
    _dir: TempDir,
    server: Child,
}

impl Prometheus {
    /// Starts one that scrapes `target` (`127.0.0.1:PORT`) as the job `node`.
    pub fn start(target: &str) -> Self {
        Self::start_with(target, "scheme: http")
    }

    /// Starts one with these further settings of the job, as they stand in braces.
    pub fn start_with(target: &str, settings: &str) -> Self {
        let settings = format!("static_configs: [{{targets: ['{target}']}}], {settings}");
        Self::start_as(&program("prometheus", "prometheus"), &settings)
    }

    /// Starts this build of it with the one job `node`, whose settings are given as they stand in braces.
    pub fn start_as(program: &Path, settings: &str) -> Self {
        let (port, dir) = (free_port(), temp_dir());
        let config = dir.path().join("prometheus.yml");
        let scrape = format!("{{job_name: node, scrape_interval: 1s, {settings}}}");
        fs::write(&config, format!("scrape_configs: [{scrape}]\n")).expect("the configuration is written");
        let log = File::create(dir.path().join("log")).expect("a log file");
        let server = Command::new(program)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log file once more"))
            .stderr(log)
            .spawn()
            .expect("Prometheus starts");
        Self { port, _dir: dir, server }
    }

    /// Whether a PromQL query has an answer of at least one series; else what came instead.
    pub fn has_data(&self, query: &str) -> Result<(), String> {
        let answer = self.ask(query)?;
        match answer["data"]["result"].as_array() {
            Some(series) if !series.is_empty() => Ok(()),
            _ => Err(answer.to_string()),
        }
    }

    /// The value of a PromQL query that has exactly one; else what came instead.
    pub fn value(&self, query: &str) -> Result<f64, String> {
        let answer = self.ask(query)?;
        match answer["data"]["result"].as_array().map(Vec::as_slice) {
            Some([one]) => {
                one["value"][1].as_str().and_then(|value| value.parse().ok()).ok_or(answer.to_string())
            }
            _ => Err(answer.to_string()),
        }
    }

    fn ask(&self, query: &str) -> Result<Value, String> {
        let path = format!("/api/v1/query?query={}", http::escape(query));
        let answer = http::get(&format!("127.0.0.1:{}", self.port), &path);
        answer.map_err(|error| error.to_string())?.good()
    }
}

/// What `promtool test rules` says of a file of tests.
pub fn promtool_test_rules(tests: &Path) -> Output {
    let mut promtool = Command::new(program("promtool", "prometheus"));
    promtool.args(["test", "rules"]).arg(tests).output().expect("promtool runs")
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended already: then there is nothing to kill, and that is fine.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// What `promtool check metrics` says of a page.
pub fn promtool_check(page: &[u8]) -> Output {
    let mut promtool = Command::new(program("promtool", "prometheus"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    promtool.stdin.take().expect("its input").write_all(page).expect("the page is handed over");
    promtool.wait_with_output().expect("its end")
}
