//! A small disk that only the agent sees: it can be filled, made read-only, and is gone with the test.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use tempfile::TempDir;

use super::{Launch, temp_dir};

/// Runs a script in a mount namespace of its own, which lives as long as it does; `$1` is a folder. With the line that it says
/// once it is ready.
fn hold(script: &str, folder: &Path, further: &str) -> Option<(Child, String)> {
    let mut holder = Command::new("unshare")
        .args(["--mount", "--propagation=private", "sh", "-c", script, "sh"])
        .arg(folder)
        .arg(further)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut said = String::new();
    BufReader::new(holder.stdout.as_mut()?).read_line(&mut said).ok()?;
    Some((holder, said))
}

/// A tmpfs in a mount namespace of its own, which lives as long as the value.
pub struct Disk {
    dir: TempDir,
    /// A `cat` in the namespace that ends with its standard input, at the latest with this process.
    holder: Child,
}

impl Disk {
    /// So many KiB; `None`, and a line that says so, where the test may not mount anything.
    pub fn mount(kib: u64) -> Option<Self> {
        let dir = temp_dir();
        let script = "mount -t tmpfs -o size=$2k tmpfs \"$1\" && echo mounted && exec cat";
        let (holder, said) = hold(script, dir.path(), &kib.to_string())?;
        let disk = Self { dir, holder };
        if said == "mounted\n" {
            return Some(disk);
        }
        eprintln!("SKIPPED: only root can mount a small disk");
        None
    }

    /// How to start an agent that has its state on this disk.
    pub fn launch(&self) -> Launch {
        Launch { wrapper: self.inside(), state: Some(self.dir.path().join("state")), ..Launch::default() }
    }

    /// Leaves not one byte.
    pub fn fill(&self) {
        // It ends with an error: the disk is full.
        let _ = self.run("cat /dev/zero > \"$1/filler\"");
        assert!(!self.run("echo more > \"$1/more\""), "the disk is not full");
    }

    /// Takes back what filled it.
    pub fn empty(&self) {
        assert!(self.run("rm \"$1/filler\" \"$1/more\""));
    }

    /// Nothing can be written any more, by nobody who opens it from now on.
    pub fn make_read_only(&self) {
        assert!(self.run("mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\""));
    }

    /// It can be written again.
    pub fn make_writable(&self) {
        assert!(self.run("umount \"$1\""));
    }

    fn inside(&self) -> Vec<String> {
        vec!["nsenter".into(), format!("--mount=/proc/{}/ns/mnt", self.holder.id())]
    }

    /// Whether a script went well there; `$1` is the disk.
    fn run(&self, script: &str) -> bool {
        let inside = self.inside();
        let status = Command::new(&inside[0])
            .args(&inside[1..])
            .args(["sh", "-c", script, "sh"])
            .arg(self.dir.path())
            .stderr(Stdio::null())
            .status();
        status.expect("nsenter runs").success()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // It may have ended already: then there is nothing to kill, and that is fine.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A disk that can be frozen: who writes to it then hangs in the kernel, and SIGKILL does not help.
pub struct FrozenDisk {
    dir: TempDir,
    /// A `cat` in a mount namespace of its own that thaws the disk at its end, at the latest with this process.
    holder: Child,
}

impl FrozenDisk {
    /// A frozen one; `None`, and a line that says so, where this machine does not let the test make one.
    pub fn mount() -> Option<Self> {
        let dir = temp_dir();
        let script = "cd \"$1\" && truncate -s 16M image && mkfs.ext4 -q image && mkdir disk && mount -o loop image disk \
                      && fsfreeze -f disk && echo frozen && cat; fsfreeze -u disk";
        let (holder, said) = hold(script, dir.path(), "")?;
        let disk = Self { dir, holder };
        if said == "frozen\n" {
            return Some(disk);
        }
        eprintln!("SKIPPED: a disk that can be frozen can't be mounted here");
        None
    }

    /// A file on it, for whoever writes to it.
    pub fn file(&self) -> PathBuf {
        let inside = self.dir.path().join("disk/file");
        PathBuf::from(format!("/proc/{}/root{}", self.holder.id(), inside.display()))
    }

    /// Lets those who wait go on.
    pub fn thaw(&mut self) {
        drop(self.holder.stdin.take());
        // That it ends is what was asked for.
        let _ = self.holder.wait();
    }
}

impl Drop for FrozenDisk {
    fn drop(&mut self) {
        self.thaw();
    }
}

/// A cgroup with a memory limit; its processes have to be gone before it goes.
pub struct Cgroup {
    path: PathBuf,
    is_v2: bool,
}

impl Cgroup {
    /// With so many bytes of memory; `None`, and a line that says so, where this machine does not let the test make one.
    pub fn with_memory(bytes: u64) -> Option<Self> {
        let root = Path::new("/sys/fs/cgroup");
        // Tests run side by side.
        static MADE: AtomicU64 = AtomicU64::new(0);
        let name = format!("nodewarden-test-{}-{}", std::process::id(), MADE.fetch_add(1, Relaxed));
        let limits =
            [(root.join("memory"), "memory.limit_in_bytes", false), (root.to_owned(), "memory.max", true)];
        for (parent, file, is_v2) in limits {
            if is_v2 {
                // Fails where it is on already, or can't be.
                let _ = fs::write(parent.join("cgroup.subtree_control"), "+memory");
            }
            let group = Self { path: parent.join(&name), is_v2 };
            if fs::create_dir(&group.path).is_ok()
                && fs::write(group.path.join(file), bytes.to_string()).is_ok()
            {
                return Some(group);
            }
        }
        eprintln!("SKIPPED: no cgroup with a memory limit can be made here");
        None
    }

    /// How to start an agent in it.
    pub fn launch(&self) -> Launch {
        let script = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.path.display());
        Launch { wrapper: ["sh", "-c", &script, "sh"].map(str::to_owned).into(), ..Launch::default() }
    }

    /// Bytes in use now that are no page cache.
    pub fn memory(&self) -> u64 {
        let text = fs::read_to_string(self.path.join("memory.stat")).expect("the cgroup's memory");
        let name = if self.is_v2 { "anon " } else { "rss " };
        let bytes = text.lines().find_map(|line| line.strip_prefix(name));
        bytes.and_then(|bytes| bytes.parse().ok()).expect("a number of bytes")
    }

    /// How often the kernel killed a process for its memory.
    pub fn kills(&self) -> u64 {
        let file = if self.is_v2 { "memory.events" } else { "memory.oom_control" };
        let text = fs::read_to_string(self.path.join(file)).expect("the cgroup's events");
        let kills = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        kills.and_then(|kills| kills.parse().ok()).expect("a number of kills")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // With a process in it it stays, and that is said below.
        if let Err(error) = fs::remove_dir(&self.path) {
            eprintln!("{} stays: {error}", self.path.display());
        }
    }
}
