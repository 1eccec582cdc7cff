//! What a control group has used and may use, read from its files.

use std::{
    io,
    path::{Path, PathBuf},
    time::Instant,
};

use rustix::io::Errno;

use crate::{
    CollectError,
    sysfs::{Buffer, KeptDevice},
};

mod v1;
mod v2;

/// Of more block devices than this nothing is said.
const DEVICES: usize = 64;

/// The figures of one control group; what the kernel does not say is `None`.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Usage {
    pub cpu: Cpu,
    pub memory: Memory,
    pub pressure: Pressure,
    /// By block device.
    pub io: Vec<Io>,
    /// Processes in the control group itself.
    pub processes: Option<u64>,
    /// The first of them, as this process' own PID namespace numbers it; 0 for one that is not seen there.
    pub first_pid: Option<u32>,
    /// Threads, in those below it too.
    pub threads: Option<u64>,
    /// 0 for no limit.
    pub threads_max: Option<u64>,
}

/// Times are in nanoseconds, those of the scheduler's settings in microseconds.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Cpu {
    pub usage: Option<u64>,
    pub user: Option<u64>,
    pub system: Option<u64>,
    pub periods: Option<u64>,
    pub throttled_periods: Option<u64>,
    pub throttled: Option<u64>,
    pub burst_periods: Option<u64>,
    pub burst: Option<u64>,
    /// `None` where there is no limit.
    pub quota: Option<u64>,
    pub period: Option<u64>,
    pub shares: Option<u64>,
}

/// Bytes, but for counts of events; a limit of 0 is none.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Memory {
    pub usage: Option<u64>,
    pub max_usage: Option<u64>,
    pub cache: Option<u64>,
    pub rss: Option<u64>,
    pub swap: Option<u64>,
    pub mapped_file: Option<u64>,
    pub kernel: Option<u64>,
    pub active_file: Option<u64>,
    pub inactive_file: Option<u64>,
    /// In the control group alone, and with those below it.
    pub page_faults: [Option<u64>; 2],
    pub major_page_faults: [Option<u64>; 2],
    pub limit_hits: Option<u64>,
    pub oom_kills: Option<u64>,
    pub limit: Option<u64>,
    pub swap_limit: Option<u64>,
    pub reservation: Option<u64>,
}

impl Memory {
    /// What the kernel could not take back at once: all but the page cache that was not used lately.
    pub fn working_set(&self) -> Option<u64> {
        Some(self.usage?.saturating_sub(self.inactive_file.unwrap_or(0)))
    }
}

/// Microseconds in which some, or all, tasks waited.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Pressure {
    pub cpu: Stalls,
    pub memory: Stalls,
    pub io: Stalls,
}

#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Stalls {
    pub some: Option<u64>,
    pub full: Option<u64>,
}

/// What was read from and written to a block device.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Io {
    /// Its major and minor number.
    pub device: (u32, u32),
    pub read_bytes: u64,
    pub written_bytes: u64,
    pub reads: u64,
    pub writes: u64,
}

/// Which version of control groups a host has, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Version {
    /// One hierarchy at this place.
    V2(PathBuf),
    /// A hierarchy for each controller, below this place.
    V1(PathBuf),
}

impl Version {
    /// What is mounted at `top`; nothing where no control groups are.
    pub fn of(top: &Path) -> Option<Self> {
        if top.join("cgroup.controllers").exists() {
            return Some(Self::V2(top.to_owned()));
        }
        let has_any = v1::CONTROLLERS.iter().any(|controller| top.join(controller).exists());
        has_any.then(|| Self::V1(top.to_owned()))
    }

    /// The hierarchies in which pods may be looked for, one of them is enough.
    pub fn hierarchies(&self) -> Vec<PathBuf> {
        match self {
            Self::V2(top) => vec![top.clone()],
            Self::V1(top) => v1::CONTROLLERS.iter().map(|controller| top.join(controller)).collect(),
        }
    }
}

/// The files of one control group.
#[derive(Debug)]
pub enum Files {
    V1(Box<v1::Files>),
    V2(Box<v2::Files>),
}

impl Files {
    /// Those of the control group at `path`, which begins with a slash.
    pub fn new(version: &Version, path: &str) -> Self {
        match version {
            Version::V2(top) => Self::V2(Box::new(v2::Files::new(top, path))),
            Version::V1(top) => Self::V1(Box::new(v1::Files::new(top, path))),
        }
    }

    /// Reads everything into `usage`.
    pub fn read(&mut self, reader: &mut Reader, usage: &mut Usage) {
        let mut io = std::mem::take(&mut usage.io);
        io.clear();
        *usage = Usage { io, ..Usage::default() };
        match self {
            Self::V1(files) => files.read(reader, usage),
            Self::V2(files) => files.read(reader, usage),
        }
    }

    /// Reads only which process is the first.
    pub fn read_first_pid(&mut self, reader: &mut Reader) -> Option<u32> {
        let mut usage = Usage::default();
        match self {
            Self::V1(files) => files.read_processes(reader, &mut usage),
            Self::V2(files) => files.read_processes(reader, &mut usage),
        }
        usage.first_pid
    }

    /// Where the control group is.
    pub fn path(&self) -> &Path {
        match self {
            Self::V1(files) => files.path(),
            Self::V2(files) => files.path(),
        }
    }
}

/// Reads files of control groups and remembers the first thing that went wrong, while the rest is read all the same.
#[derive(Debug)]
pub struct Reader {
    pub now: Instant,
    text: Vec<u8>,
    short: Buffer,
    failed: Option<CollectError>,
}

impl Reader {
    pub fn new() -> Self {
        Self { now: Instant::now(), text: Vec::new(), short: Buffer::default(), failed: None }
    }

    /// What went wrong since the last call. The buffer of a long text is given back.
    pub fn finish(&mut self) -> Result<(), CollectError> {
        const KEPT: usize = 64 << 10;
        self.text.truncate(KEPT);
        self.text.shrink_to(KEPT);
        self.failed.take().map_or(Ok(()), Err)
    }

    /// What `parse` makes of a file; nothing where there is no such file, be it that the kernel has none or that the container
    /// is gone.
    fn parse<T>(
        &mut self,
        directory: &mut KeptDevice,
        names: &[&str],
        at: usize,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let result = match directory.read_long(at, self.now, &mut self.text) {
            Ok(text) => parse(text).ok_or(None),
            Err(error) => Err(Some(error)),
        };
        self.note(result, directory, names, at)
    }

    /// As `parse`, of a setting: the text may be a minute old.
    fn setting<T>(
        &mut self,
        directory: &mut KeptDevice,
        names: &[&str],
        at: usize,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let result = match directory.constant(at, self.now, &mut self.short) {
            Ok(text) => parse(text).ok_or(None),
            Err(error) => Err(Some(error)),
        };
        self.note(result, directory, names, at)
    }

    fn note<T>(
        &mut self,
        result: Result<T, Option<io::Error>>,
        directory: &KeptDevice,
        names: &[&str],
        at: usize,
    ) -> Option<T> {
        let path = || directory.path().join(names.get(at).unwrap_or(&""));
        let error = match result {
            Ok(value) => return Some(value),
            Err(Some(error)) if is_absent(&error) => return None,
            Err(Some(source)) => CollectError::Read { path: path(), source },
            Err(None) => CollectError::parse(path(), "not the text that the kernel documents"),
        };
        self.failed.get_or_insert(error);
        None
    }
}

/// Whether the kernel has no such file, keeps no such accounts (pressure, without `psi=1`), or has removed the control group.
fn is_absent(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP))
}

/// Calls `set` with each line of a text of names and numbers: "anon 4096". Each line has to end.
fn named_numbers(text: &str, mut set: impl FnMut(&str, u64)) -> Option<()> {
    for line in whole_lines(text)? {
        // Lines that are written otherwise are of newer kernels.
        if let Some((name, number)) = line.split_once(' ') {
            set(name, number.parse().ok()?);
        }
    }
    Some(())
}

/// The lines of a text that was not cut.
fn whole_lines(text: &str) -> Option<std::str::Lines<'_>> {
    (text.is_empty() || text.ends_with('\n')).then(|| text.lines())
}

/// "4096", nothing else.
fn number(text: &str) -> Option<u64> {
    text.trim_ascii_end().parse().ok()
}

/// A limit: 0 for "max" and for what nobody can reach.
fn limit(text: &str) -> Option<u64> {
    /// As much as the kernel writes with version 1 for none, rounded to pages.
    const UNREACHABLE: u64 = 1 << 62;
    match text.trim_ascii_end() {
        "max" => Some(0),
        text => text.parse().ok().map(|bytes| if bytes > UNREACHABLE { 0 } else { bytes }),
    }
}

/// The processes of `cgroup.procs`, one in a line, and the first of them.
fn processes(text: &str) -> Option<(u64, Option<u32>)> {
    let mut lines = whole_lines(text)?;
    let first = match lines.clone().next() {
        Some(line) => Some(line.parse().ok()?),
        None => None,
    };
    lines.all(|line| line.bytes().all(|byte| byte.is_ascii_digit())).then(|| {
        let count = memchr::memchr_iter(b'\n', text.as_bytes()).count();
        (count as u64, first)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_nobody_reaches_are_none() {
        assert_eq!(limit("max\n"), Some(0));
        assert_eq!(limit("9223372036854771712\n"), Some(0));
        assert_eq!(limit("134217728\n"), Some(134_217_728));
        assert_eq!(limit("much\n"), None);
    }

    #[test]
    fn processes_are_counted() {
        assert_eq!(processes("12\n7\n900\n"), Some((3, Some(12))));
        assert_eq!(processes(""), Some((0, None)));
        assert_eq!(processes("0\n0\n"), Some((2, Some(0))));
        assert_eq!(processes("12\n7"), None);
        assert_eq!(processes("12\nx\n"), None);
        assert_eq!(processes("x\n"), None);
    }

    #[test]
    fn a_text_that_was_cut_is_refused() {
        let mut seen = Vec::new();
        let mut read = |text: &str| {
            seen.clear();
            named_numbers(text, |name, number| seen.push((name.to_owned(), number))).map(|()| seen.clone())
        };
        assert_eq!(read("anon 1\nfile 2\nodd\n"), Some(vec![("anon".into(), 1), ("file".into(), 2)]));
        assert_eq!(read(""), Some(vec![]));
        assert_eq!(read("anon 1\nfile 2"), None);
        assert_eq!(read("anon x\n"), None);
    }

    #[test]
    fn the_working_set_is_never_negative() {
        let memory = Memory { usage: Some(10), inactive_file: Some(20), ..Memory::default() };
        assert_eq!(memory.working_set(), Some(0));
        assert_eq!(Memory { inactive_file: None, ..memory }.working_set(), Some(10));
        assert_eq!(Memory::default().working_set(), None);
    }
}
