//! The agent as a process: the binary that cargo built, with ports and a state directory of its own.

use std::{
    fs::{self, File, Permissions},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread,
    time::Instant,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{
    http::{self, Response},
    seconds, temp_dir, wait_until,
};

/// A configuration for tests that are not about logs: this machine's own are left alone.
pub const NO_LOGS: &str = "logs: {sources: []}\n";

/// How an agent is started, where that is not the usual way.
#[derive(Debug, Default, Clone)]
pub struct Launch {
    /// Its working directory.
    pub directory: Option<PathBuf>,
    /// A program and its arguments that start the agent, which they are given with its own arguments behind them.
    pub wrapper: Vec<String>,
    /// Another build of it, to be compared with this one.
    pub binary: Option<String>,
    /// Its state directory, where that is to be a certain one.
    pub state: Option<PathBuf>,
}

/// A running agent; it is killed when the value goes away, and speaks up when the test failed.
pub struct Agent {
    dir: TempDir,
    launch: Launch,
    args: Vec<String>,
    child: Child,
    started: Instant,
    /// Where the metrics are, `127.0.0.1:PORT`.
    pub metrics: String,
    /// Where the page is, with its token.
    pub page: String,
}

impl Agent {
    /// Starts an agent with this configuration file and further flags, and waits until both listeners answer.
    #[track_caller]
    pub fn start(config: &str, flags: &[&str]) -> Self {
        Self::start_as(Launch::default(), config, flags)
    }

    /// As `start`, in another way.
    #[track_caller]
    pub fn start_as(launch: Launch, config: &str, flags: &[&str]) -> Self {
        let dir = temp_dir();
        // Whoever runs it may read its configuration.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("opened");
        // However full the disk of the tests is, unless a test is about that.
        let store = if config.contains("store:") { "" } else { "store: {min_free: 0%}\n" };
        fs::write(dir.path().join("config.yaml"), format!("{config}\n{store}"))
            .expect("the configuration is written");
        let listeners = ["--web.listen-address=127.0.0.1:0", "--admin.listen-address=127.0.0.1:0"];
        let args: Vec<String> = listeners.iter().chain(flags).map(|&flag| flag.to_owned()).collect();
        let child = spawn(&launch, dir.path(), &args);
        let mut agent = Self {
            dir,
            launch,
            args,
            child,
            started: Instant::now(),
            metrics: String::new(),
            page: String::new(),
        };
        agent.wait_for_listeners();
        agent
    }

    /// Starts it again after its end, with the same state directory and flags; the ports may be others.
    #[track_caller]
    pub fn start_again(&mut self) {
        assert!(self.child.try_wait().expect("its state").is_some(), "the agent is still running");
        fs::rename(self.log_path(), self.dir.path().join("log.before")).expect("the old log is set aside");
        self.child = spawn(&self.launch, self.dir.path(), &self.args);
        self.started = Instant::now();
        self.wait_for_listeners();
    }

    /// SIGKILL, and its end awaited.
    pub fn kill_9(&mut self) {
        self.child.kill().expect("the agent is killed");
        self.child.wait().expect("its end");
    }

    /// Sends a signal and waits at most 10 s for the end.
    #[track_caller]
    pub fn end_by(&mut self, signal: Signal) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), signal).expect("the signal is sent");
        wait_until("the agent has ended", seconds(10), || {
            self.child.try_wait().expect("its state").ok_or_else(|| "it runs".to_owned())
        })
    }

    /// GET from the metrics listener; fails the test when there is no answer.
    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        http::get(&self.metrics, path).expect("the metrics listener answers")
    }

    /// The sum of one of its metrics over the series whose labels hold these words.
    #[track_caller]
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let page = self.get("/metrics?collect[]=loadavg").text();
        let series = page.lines().filter(|line| {
            let rest = line.strip_prefix(name).unwrap_or_default();
            rest.starts_with(['{', ' ']) && labels.iter().all(|label| rest.contains(label))
        });
        series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// GET from the admin listener with the token, as programs send it.
    #[track_caller]
    pub fn admin(&self, path: &str) -> Response {
        let bearer = format!("Bearer {}", self.token());
        http::request("GET", &self.admin_address(), path, &[("authorization", &bearer)], b"")
            .expect("the admin listener answers")
    }

    /// `127.0.0.1:PORT` of the admin listener.
    pub fn admin_address(&self) -> String {
        let rest = self.page.strip_prefix("http://").expect("the page's address is http");
        rest.split('/').next().unwrap_or_default().to_owned()
    }

    /// The token in the page's address.
    pub fn token(&self) -> &str {
        self.page.split_once("token=").expect("the page's address has a token").1
    }

    /// Runs a command of the binary that talks to this agent, such as `logs`.
    pub fn run(&self, args: &[&str]) -> Output {
        let mut all: Vec<&str> = args.to_vec();
        let config = config_flag(self.dir.path());
        let state = state_flag(&self.launch, self.dir.path());
        all.extend([config.as_str(), state.as_str()]);
        nodewarden(&all)
    }

    /// What it has said since it was started last.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Where it keeps its state.
    pub fn state_dir(&self) -> PathBuf {
        state_dir(&self.launch, self.dir.path())
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The most memory that was resident at once.
    pub fn peak_mib(&self) -> u64 {
        peak_mib(self.pid())
    }

    /// Waits for the page of an agent that began without its state directory.
    #[track_caller]
    pub fn wait_for_page(&mut self) {
        self.page = wait_until("the page is ready", seconds(60), || {
            let log = self.log();
            field(&log, "admin listener ready", "url").ok_or(log)
        });
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    #[track_caller]
    fn wait_for_listeners(&mut self) {
        let start = self.started;
        (self.metrics, self.page) = wait_until("both listeners are ready", seconds(60), || {
            let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            if let Some(status) = self.child.try_wait().expect("its state") {
                panic!("the agent ended with {status} after {:?}:\n{log}", start.elapsed());
            }
            let metrics = field(&log, "metrics listener ready", "address");
            // Without its state directory it serves the metrics alone.
            let alone = log.contains("the state directory can't be written").then(String::new);
            let page = field(&log, "admin listener ready", "url").or(alone);
            metrics.zip(page).ok_or(log)
        });
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended already: then there is nothing to kill, and that is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("what the agent said:\n{}", self.log());
        }
    }
}

/// Runs the binary to its end, without this process's environment.
pub fn nodewarden(args: &[&str]) -> Output {
    bare().args(args).output().expect("the binary runs")
}

/// `/proc/PID/status`: "VmHWM:     21424 kB", the most memory of a process that was resident at once.
pub fn peak_mib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    kib.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
}

/// A port that is taken for as long as the listener lives.
pub fn taken_port() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("its address").port();
    (listener, port)
}

fn bare() -> Command {
    started_by(&Launch::default())
}

/// The environment may hold the agent's own variables: none are handed on.
fn started_by(launch: &Launch) -> Command {
    let binary = launch.binary.as_deref().unwrap_or(env!("CARGO_BIN_EXE_nodewarden"));
    let mut words = launch.wrapper.iter().map(String::as_str).chain([binary]);
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).current_dir(launch.directory.as_deref().unwrap_or(Path::new(".")));
    command.env_clear().stdin(Stdio::null());
    command
}

fn spawn(launch: &Launch, dir: &Path, args: &[String]) -> Child {
    let log = File::create(dir.join("log")).expect("a log file");
    started_by(launch)
        .args([config_flag(dir), state_flag(launch, dir)])
        .args(args)
        .stdout(log.try_clone().expect("the log file once more"))
        .stderr(log)
        .spawn()
        .expect("the agent starts")
}

fn config_flag(dir: &Path) -> String {
    format!("--config.file={}", dir.join("config.yaml").display())
}

fn state_flag(launch: &Launch, dir: &Path) -> String {
    format!("--state.dir={}", state_dir(launch, dir).display())
}

fn state_dir(launch: &Launch, dir: &Path) -> PathBuf {
    launch.state.clone().unwrap_or_else(|| dir.join("state"))
}

/// A field of the logfmt line with this message: `msg="metrics listener ready" address=127.0.0.1:41234`.
fn field(log: &str, message: &str, name: &str) -> Option<String> {
    let line = log.lines().find(|line| line.contains(&format!("msg=\"{message}\"")))?;
    let value = line.split_once(&format!(" {name}="))?.1;
    let value = match value.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next()?,
        None => value.split(' ').next()?,
    };
    Some(value.to_owned())
}
