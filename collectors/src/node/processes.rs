//! Processes and threads by their state.

use std::{
    fmt::Write,
    io,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

use rustix::{
    fs::{CWD, Mode, OFlags, PROC_SUPER_MAGIC, RawDir},
    io::Errno,
    path::Arg,
};

use crate::{BuildError, CollectError, Collector, Desc, Entry, Host, HostFile, Options, Samples};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "processes", default_on: false, flags: &[], build };

static THREADS: Desc = Desc::gauge("node_processes_threads", "Allocated threads in system", &[]);
static MAX_THREADS: Desc = Desc::gauge("node_processes_max_threads", "Limit of threads in the system", &[]);
static STATE: Desc = Desc::gauge("node_processes_state", "Number of processes in each state.", &["state"]);
static THREADS_STATE: Desc =
    Desc::gauge("node_processes_threads_state", "Number of threads in each state.", &["thread_state"]);
static PIDS: Desc = Desc::gauge("node_processes_pids", "Number of PIDs", &[]);
static MAX_PROCESSES: Desc = Desc::gauge("node_processes_max_processes", "Number of max PIDs limit", &[]);

struct Processes {
    max_threads: HostFile,
    max_processes: HostFile,
    walk: Walk,
}

fn build(host: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Processes {
        max_threads: HostFile::new(host.proc("sys/kernel/threads-max")),
        max_processes: HostFile::new(host.proc("sys/kernel/pid_max")),
        walk: Walk::new(host.procfs.clone()),
    }))
}

impl Collector for Processes {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let counts = self.walk.count()?;
        out.push(&THREADS, &[], counts.threads as f64);
        let max_threads = self.max_threads.parse(parse_limit)?;
        out.push(&MAX_THREADS, &[], max_threads as f64);
        counts.processes.say(&STATE, out);
        counts.tasks.say(&THREADS_STATE, out);
        let max_processes = self.max_processes.parse(parse_limit)?;
        out.push(&PIDS, &[], counts.pids as f64);
        out.push(&MAX_PROCESSES, &[], max_processes as f64);
        Ok(())
    }
}

/// `/proc/sys/kernel/pid_max`: "4194304"
fn parse_limit(text: &str) -> Result<u64, String> {
    text.trim().parse().map_err(|_| format!("expected a number, got {text:?}"))
}

#[derive(Debug, Default)]
struct Counts {
    pids: u64,
    /// As the processes themselves say.
    threads: u64,
    processes: States,
    tasks: States,
}

/// How many there are in each state, a letter.
#[derive(Debug, PartialEq)]
struct States([u64; 128]);

impl Default for States {
    fn default() -> Self {
        Self([0; 128])
    }
}

impl States {
    fn add(&mut self, state: u8) {
        if let Some(count) = self.0.get_mut(usize::from(state)) {
            *count += 1;
        }
    }

    fn say(&self, desc: &'static Desc, out: &mut Samples) {
        for (state, count) in (0_u8..).zip(&self.0).filter(|(_, count)| **count > 0) {
            out.push(desc, &[char::from(state).encode_utf8(&mut [0; 4])], *count as f64);
        }
    }
}

/// Goes through all processes. With thousands of them a scrape is system calls and little else, so there are only those
/// that are needed, all relative to the directory at hand, and their buffers are kept.
struct Walk {
    procfs: PathBuf,
    pids: Vec<u32>,
    tids: Vec<u32>,
    path: String,
    text: Vec<u8>,
    /// Where the kernel lists directories.
    entries: Vec<u8>,
}

/// What is needed of a `stat` file.
#[derive(Debug, PartialEq)]
struct Stat {
    state: u8,
    threads: u64,
}

impl Walk {
    fn new(procfs: PathBuf) -> Self {
        // The text is one line of some 300 bytes; one `getdents` gives about a thousand processes.
        let (text, entries) = (vec![0; 4096], Vec::with_capacity(32 * 1024));
        Self { procfs, pids: Vec::new(), tids: Vec::new(), path: String::new(), text, entries }
    }

    fn count(&mut self) -> Result<Counts, CollectError> {
        let fail = |path: &PathBuf, source: io::Error| CollectError::Read { path: path.clone(), source };
        let procfs = open(CWD, &self.procfs).map_err(|error| fail(&self.procfs, error.into()))?;
        // A process with one thread is that thread: its `task` need not be listed. Elsewhere (the processes of another
        // machine as plain files) there may be no such directory.
        let is_real = rustix::fs::fstatfs(&procfs).is_ok_and(|stat| stat.f_type == PROC_SUPER_MAGIC);
        list(&procfs, &mut self.entries, &mut self.pids).map_err(|error| fail(&self.procfs, error.into()))?;
        let mut counts = Counts::default();
        for at in 0..self.pids.len() {
            let Some(&pid) = self.pids.get(at) else { break };
            self.count_process(&procfs, pid, is_real, &mut counts).map_err(|error| {
                let path = self.procfs.join(&self.path);
                match error {
                    Failure::Read(errno) => CollectError::Read { path, source: errno.into() },
                    Failure::Parse => CollectError::parse(path, "expected the state of a process"),
                }
            })?;
        }
        Ok(counts)
    }

    fn count_process(
        &mut self,
        procfs: &OwnedFd,
        pid: u32,
        is_real: bool,
        counts: &mut Counts,
    ) -> Result<(), Failure> {
        let Self { tids, path, text, entries, .. } = self;
        set(path, format_args!("{pid}/stat"));
        let Some(stat) = unless_gone(read_stat(procfs, path, text))? else { return Ok(()) };
        counts.pids += 1;
        counts.threads = counts.threads.wrapping_add(stat.threads);
        counts.processes.add(stat.state);
        if is_real && stat.threads == 1 {
            counts.tasks.add(stat.state);
            return Ok(());
        }
        set(path, format_args!("{pid}/task"));
        let Some(task) = unless_gone(open(procfs, path.as_str()).map_err(Failure::Read))? else {
            return Ok(());
        };
        let listed = list(&task, entries, tids).map_err(Failure::Read);
        if unless_gone(listed)?.is_none() {
            return Ok(());
        }
        for tid in tids {
            if *tid == pid {
                counts.tasks.add(stat.state);
                continue;
            }
            set(path, format_args!("{tid}/stat"));
            let read = read_stat(&task, path, text);
            // For the error's sake, the whole path.
            set(path, format_args!("{pid}/task/{tid}/stat"));
            if let Some(stat) = unless_gone(read)? {
                counts.tasks.add(stat.state);
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
enum Failure {
    Read(Errno),
    Parse,
}

/// `None` where a process or thread ended since it was listed.
fn unless_gone<T>(result: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Failure::Read(Errno::NOENT | Errno::SRCH)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn set(path: &mut String, text: std::fmt::Arguments) {
    path.clear();
    // Writing to a string does not fail.
    let _ = path.write_fmt(text);
}

fn open(directory: impl AsFd, path: impl Arg) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(directory, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// The names in a directory that are numbers.
fn list(directory: &OwnedFd, entries: &mut Vec<u8>, numbers: &mut Vec<u32>) -> Result<(), Errno> {
    numbers.clear();
    let mut listing = RawDir::new(directory, entries.spare_capacity_mut());
    while let Some(entry) = listing.next() {
        let entry = entry?;
        numbers.extend(entry.file_name().to_str().ok().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(())
}

fn read_stat(directory: &OwnedFd, path: &str, text: &mut [u8]) -> Result<Stat, Failure> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, path, flags, Mode::empty()).map_err(Failure::Read)?;
    let length = rustix::io::retry_on_intr(|| rustix::io::read(&file, &mut *text)).map_err(Failure::Read)?;
    text.get(..length).and_then(parse_stat).ok_or(Failure::Parse)
}

/// `/proc/1/stat`: "1 (systemd) S 0 1 1 0 -1 4194560 ...": behind the name, which may have parentheses and anything else,
/// stand the state and, sixteen words later, the number of threads. A line that is cut is not understood.
fn parse_stat(text: &[u8]) -> Option<Stat> {
    const BETWEEN: usize = 16;
    const BEHIND: usize = 24;

    let end = memchr::memrchr(b')', text)?;
    let mut words = std::str::from_utf8(text.get(end + 1..)?).ok()?.split_ascii_whitespace();
    let &[state] = words.next()?.as_bytes() else { return None };
    let threads = words.nth(BETWEEN)?.parse().ok()?;
    words.nth(BEHIND - 1)?;
    state.is_ascii_alphabetic().then_some(Stat { state, threads })
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    fn line(name: &str, state: &str, threads: u32) -> String {
        let rest = " 0".repeat(20);
        format!(
            "7 ({name}) {state} 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 {threads} 0 29 109604864 2507{rest}\n"
        )
    }

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("has one")).expect("made");
        fs::write(path, text).expect("written");
    }

    fn count(root: &Path) -> Result<Counts, CollectError> {
        Walk::new(root.into()).count()
    }

    fn letters(states: &States) -> Vec<(char, u64)> {
        (0_u8..).map(char::from).zip(states.0).filter(|(_, count)| *count > 0).collect()
    }

    #[test]
    fn the_state_stands_behind_the_name() {
        let expected = Stat { state: b'D', threads: 12 };
        assert_eq!(parse_stat(line("a) R (b", "D", 12).as_bytes()), Some(expected));
        let mut odd = line("?", "S", 1).into_bytes();
        odd[3] = 0xff;
        assert_eq!(parse_stat(&odd), Some(Stat { state: b'S', threads: 1 }));
    }

    #[test]
    fn cut_and_odd_lines_are_refused() {
        let whole = line("a", "S", 1);
        for length in 0..whole.len() - 2 {
            assert_eq!(parse_stat(whole.get(..length).expect("within").as_bytes()), None, "{length}");
        }
        for (from, to) in [(" S ", " 5 "), (" S ", " Sl "), (" 1 0 29 ", " x 0 29 ")] {
            assert_eq!(parse_stat(whole.replacen(from, to, 1).as_bytes()), None, "{to:?}");
        }
    }

    #[test]
    fn processes_and_their_threads_are_counted() {
        let root = tempfile::tempdir().expect("a temporary directory");
        write(root.path(), "1/stat", &line("init", "S", 1));
        write(root.path(), "7/stat", &line("server", "S", 3));
        write(root.path(), "7/task/7/stat", "not read");
        write(root.path(), "7/task/8/stat", &line("server", "R", 3));
        write(root.path(), "7/task/9/comm", "its stat is gone\n");
        write(root.path(), "8/comm", "gone\n");
        write(root.path(), "sys/stat", "no process\n");
        let counts = count(root.path()).expect("counted");
        assert_eq!((counts.pids, counts.threads), (2, 4));
        assert_eq!(letters(&counts.processes), [('S', 2)]);
        assert_eq!(letters(&counts.tasks), [('R', 1), ('S', 1)]);
    }

    #[test]
    fn an_odd_process_is_named() {
        let root = tempfile::tempdir().expect("a temporary directory");
        write(root.path(), "7/stat", &line("server", "S", 2));
        write(root.path(), "7/task/8/stat", "");
        let error = count(root.path()).expect_err("its thread is odd").to_string();
        assert!(error.contains("7/task/8/stat"), "{error}");
        write(root.path(), "7/stat", "\u{0}\u{1}");
        let error = count(root.path()).expect_err("it is odd").to_string();
        assert!(error.contains("7/stat"), "{error}");
    }

    #[test]
    fn on_a_real_host_all_threads_have_a_state() {
        let counts = count(Path::new("/proc")).expect("counted");
        let total = |states: &States| states.0.iter().sum::<u64>();
        assert_eq!(total(&counts.processes), counts.pids);
        assert!(total(&counts.tasks) >= counts.pids.min(1), "{counts:?}");
    }
}
