//! Asks mounts for their sizes without being held up by one that hangs.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use rustix::{fs::StatFs, io::Errno};

/// What `device_error` says of a mount that hangs.
pub(super) const TIMEOUT: &str = "mountpoint timeout";

/// File systems whose statfs(2) is answered out of memory. The others have a server, or a program, that may be gone.
const LOCAL: [&str; 14] = [
    "bcachefs", "btrfs", "devtmpfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "overlay", "ramfs", "tmpfs",
    "vfat", "xfs", "zfs",
];

/// The longest that a scrape waits for mounts that hang, whatever `--collector.filesystem.mount-timeout` allows: who waits
/// longer for a collector does without all of its mounts.
const MOST: Duration = Duration::from_millis(1500);

/// How long a mount has when earlier ones have used up the time of the scrape, and for how long there is that much.
const LITTLE: Duration = Duration::from_millis(50);
const OVERTIME: Duration = Duration::from_millis(500);

/// How long each mount has after that: a server that is gone may have hundreds of them.
const LEAST: Duration = Duration::from_millis(1);

/// What a mount answered.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answer {
    Sizes(Sizes),
    /// As node_exporter words it.
    Error(String),
}

/// Bytes, and numbers of inodes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sizes {
    pub(super) size: f64,
    pub(super) free: f64,
    pub(super) available: f64,
    pub(super) files: f64,
    pub(super) files_free: f64,
}

/// Asks directly where that can't hang, else lets a thread ask and waits for it with a deadline.
pub(super) struct Asker {
    timeout: Duration,
    deadline: Instant,
    worker: Option<Worker>,
    /// Mounts that have not answered, with the thread that still waits for each. They are not asked again until it returns.
    stuck: HashMap<Key, Worker>,
}

/// A mount: its path, and its file system's number, as a path may be mounted over while its old mount hangs.
pub(super) type Key = (PathBuf, String);

impl Asker {
    pub(super) fn new(timeout: Duration) -> Self {
        Self { timeout, deadline: Instant::now(), worker: None, stuck: HashMap::new() }
    }

    /// Begins a scrape: its mounts share one deadline; those that are gone are forgotten.
    pub(super) fn begin(&mut self, is_there: impl Fn(&Key) -> bool) {
        self.deadline = Instant::now() + self.timeout.min(MOST);
        self.stuck.retain(|key, _| is_there(key));
    }

    pub(super) fn ask(&mut self, key: &Key, kind: &str) -> Answer {
        let (path, _) = key;
        if LOCAL.contains(&kind) {
            return statfs(path);
        }
        let (worker, wait) = match self.stuck.remove(key) {
            Some(worker) => (worker, Duration::ZERO),
            None => {
                let worker = self.worker.take().unwrap_or_else(Worker::start);
                // A worker that is gone shows when its answer is waited for.
                let _ = worker.questions.send(path.to_owned());
                (worker, self.patience(Instant::now()))
            }
        };
        match worker.answers.recv_timeout(wait) {
            Ok(answer) => {
                self.worker = Some(worker);
                answer
            }
            Err(RecvTimeoutError::Timeout) => {
                if !wait.is_zero() {
                    tracing::warn!(mount = %path.display(), "the mount does not answer");
                }
                self.stuck.insert(key.clone(), worker);
                Answer::Error(TIMEOUT.to_owned())
            }
            Err(RecvTimeoutError::Disconnected) => Answer::Error("no thread to ask with".to_owned()),
        }
    }

    /// How long the next mount has.
    fn patience(&self, now: Instant) -> Duration {
        let left = self.deadline.saturating_duration_since(now);
        let overtime = (self.deadline + OVERTIME).saturating_duration_since(now);
        left.max(overtime.min(LITTLE)).max(LEAST)
    }
}

/// A thread that asks one mount after the other. It ends when its `Worker` is dropped and no mount holds it.
struct Worker {
    questions: Sender<PathBuf>,
    answers: Receiver<Answer>,
}

impl Worker {
    fn start() -> Self {
        let (questions, asked) = mpsc::channel::<PathBuf>();
        let (answering, answers) = mpsc::channel();
        let run = move || {
            for path in asked {
                if answering.send(statfs(&path)).is_err() {
                    return;
                }
            }
        };
        // When no thread can be had, `run` is dropped with its channels, and whoever waits for an answer is told.
        let started = thread::Builder::new().name("statfs".into()).stack_size(64 * 1024).spawn(run);
        if let Err(error) = started {
            tracing::warn!(%error, "could not start a thread to ask mounts");
        }
        Self { questions, answers }
    }
}

fn statfs(path: &Path) -> Answer {
    match rustix::fs::statfs(path) {
        Ok(stat) => Answer::Sizes(sizes(&stat)),
        Err(error) => Answer::Error(describe(error)),
    }
}

fn sizes(stat: &StatFs) -> Sizes {
    let block = stat.f_bsize as f64;
    Sizes {
        size: stat.f_blocks as f64 * block,
        free: stat.f_bfree as f64 * block,
        available: stat.f_bavail as f64 * block,
        files: stat.f_files as f64,
        files_free: stat.f_ffree as f64,
    }
}

/// The error in the words of Go's standard library, which users have in their alerts.
fn describe(error: Errno) -> String {
    let words = match error {
        Errno::ACCESS => "permission denied",
        Errno::BUSY => "device or resource busy",
        Errno::CONNREFUSED => "connection refused",
        Errno::HOSTDOWN => "host is down",
        Errno::HOSTUNREACH => "no route to host",
        Errno::INTR => "interrupted system call",
        Errno::INVAL => "invalid argument",
        Errno::IO => "input/output error",
        Errno::LOOP => "too many levels of symbolic links",
        Errno::NAMETOOLONG => "file name too long",
        Errno::NETDOWN => "network is down",
        Errno::NETUNREACH => "network is unreachable",
        Errno::NODEV => "no such device",
        Errno::NOENT => "no such file or directory",
        Errno::NOKEY => "required key not available",
        Errno::NOMEM => "cannot allocate memory",
        Errno::NOSYS => "function not implemented",
        Errno::NOTCONN => "transport endpoint is not connected",
        Errno::NOTDIR => "not a directory",
        Errno::NXIO => "no such device or address",
        Errno::OPNOTSUPP => "operation not supported",
        Errno::OVERFLOW => "value too large for defined data type",
        Errno::PERM => "operation not permitted",
        Errno::REMOTEIO => "remote I/O error",
        Errno::SHUTDOWN => "cannot send after transport endpoint shutdown",
        Errno::STALE => "stale NFS file handle",
        Errno::TIMEDOUT => "connection timed out",
        other => return format!("errno {}", other.raw_os_error()),
    };
    words.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_give_the_same_answer() {
        let mut asker = Asker::new(Duration::from_secs(60));
        let root = (PathBuf::from("/"), String::new());
        asker.begin(|_| true);
        for kind in ["ext4", "nfs4", "nfs4"] {
            assert!(
                matches!(asker.ask(&root, kind), Answer::Sizes(Sizes { size, .. }) if size > 0.0),
                "{kind}"
            );
        }
        let gone = asker.ask(&("/nonexistent".into(), String::new()), "nfs4");
        assert_eq!(gone, Answer::Error("no such file or directory".to_owned()));
    }

    #[test]
    fn a_mount_that_hangs_is_left_alone_until_it_answers() {
        let mut asker = Asker::new(Duration::ZERO);
        let path = (PathBuf::from("/mnt/nfs"), "0:51".to_owned());
        // A worker whose mount has not answered yet.
        let (answering, answers) = mpsc::channel();
        let (questions, _asked) = mpsc::channel();
        asker.stuck.insert(path.clone(), Worker { questions, answers });
        asker.begin(|_| true);
        assert_eq!(asker.ask(&path, "nfs4"), Answer::Error(TIMEOUT.to_owned()));
        answering.send(Answer::Error("stale NFS file handle".to_owned())).expect("it is waited for");
        asker.begin(|_| true);
        assert_eq!(asker.ask(&path, "nfs4"), Answer::Error("stale NFS file handle".to_owned()));
        assert!(asker.stuck.is_empty());
    }

    #[test]
    fn a_stuck_mount_that_is_gone_is_forgotten() {
        let mut asker = Asker::new(Duration::ZERO);
        let key = (PathBuf::from("/mnt/nfs"), "0:51".to_owned());
        asker.stuck.insert(key, Worker::start());
        asker.begin(|_| false);
        assert!(asker.stuck.is_empty());
    }

    #[test]
    fn what_is_mounted_over_a_stuck_mount_is_asked() {
        let mut asker = Asker::new(Duration::from_secs(60));
        let (_answering, answers) = mpsc::channel();
        let (questions, _asked) = mpsc::channel();
        let [old, new] = ["0:51", "0:52"].map(|number| (PathBuf::from("/"), number.to_owned()));
        asker.stuck.insert(old.clone(), Worker { questions, answers });
        asker.begin(|_| true);
        assert_eq!(asker.ask(&old, "nfs4"), Answer::Error(TIMEOUT.to_owned()));
        assert!(matches!(asker.ask(&new, "nfs4"), Answer::Sizes(_)));
    }

    #[test]
    fn hundreds_of_mounts_that_hang_do_not_use_up_the_scrape() {
        let mut asker = Asker::new(Duration::from_secs(60));
        asker.begin(|_| true);
        let start = Instant::now();
        let mut now = start;
        for _ in 0..400 {
            now += asker.patience(now);
        }
        assert!(now - start < Duration::from_millis(2500), "{:?}", now - start);
    }
}
