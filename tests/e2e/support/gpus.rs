//! GPUs that are not there: a copy of the fake library, and a `/proc` in which its driver is loaded.

use std::{
    collections::BTreeMap,
    env,
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, OnceLock},
};

use tempfile::TempDir;

use super::temp_dir;

/// A node's GPUs, which can be changed while an agent reads them.
pub struct Gpus {
    dir: TempDir,
    state: Mutex<BTreeMap<String, String>>,
}

impl Gpus {
    /// A node with so many, and their driver loaded.
    pub fn new(count: u32) -> Self {
        let dir = temp_dir();
        fs::copy(built(), dir.path().join(NAME)).expect("a copy of the library");
        let gpus = Self { dir, state: Mutex::default() };
        fs::create_dir_all(gpus.path("root/dev")).expect("a host's root");
        fs::write(gpus.path("root/dev/kmsg"), "").expect("the kernel's messages");
        // All of /proc but the driver's folder is this machine's.
        fs::create_dir(gpus.path("proc")).expect("a folder");
        for entry in fs::read_dir("/proc").expect("/proc").flatten() {
            let name = entry.file_name();
            if name != "driver" {
                symlink(entry.path(), gpus.path("proc").join(name)).expect("a link");
            }
        }
        gpus.plug_in(count);
        gpus.load();
        gpus
    }

    /// There are so many now.
    pub fn plug_in(&self, count: u32) {
        self.set(&[("count", &count.to_string())]);
        for gpu in 0..count {
            let folder = format!("proc/driver/nvidia/gpus/0000:{:02x}:00.0", 0x1b + 0x10 * gpu);
            fs::create_dir_all(self.path(&folder)).expect("a folder");
        }
    }

    /// The driver is loaded into the kernel.
    pub fn load(&self) {
        fs::create_dir_all(self.path("proc/driver/nvidia")).expect("a folder");
        fs::write(self.path("proc/driver/nvidia/version"), "NVRM version: a fake\n").expect("written");
    }

    /// It is not any more.
    pub fn unload(&self) {
        fs::remove_file(self.path("proc/driver/nvidia/version")).expect("it was loaded");
    }

    /// Changes what the library says; an empty value takes the key away.
    pub fn set(&self, changes: &[(&str, &str)]) {
        let mut state = self.state.lock().expect("one test");
        for (key, value) in changes {
            if value.is_empty() {
                state.remove(*key);
            } else {
                state.insert((*key).to_owned(), (*value).to_owned());
            }
        }
        let text: String = state.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
        fs::write(self.path("new"), text).expect("written");
        fs::rename(self.path("new"), self.beside("state")).expect("renamed");
    }

    /// NVML tells of an XID: `GPU CODE [INSTANCE]`.
    pub fn driver_tells(&self, xid: &str) {
        append(&self.beside("xids"), xid);
    }

    /// The kernel writes a message.
    pub fn kernel_says(&self, message: &str) {
        append(&self.path("root/dev/kmsg"), &format!("4,1,1,-;{message}"));
    }

    /// What the library noted: when it was initialised and shut down, each with the number of the process.
    pub fn noted(&self) -> Vec<String> {
        let text = fs::read_to_string(self.beside("log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The library.
    pub fn library(&self) -> PathBuf {
        self.path(NAME)
    }

    /// The flags of an agent on this node: its `/proc`, and its root, which has nothing but the kernel's messages.
    pub fn flags(&self) -> [String; 2] {
        [("path.procfs", "proc"), ("path.rootfs", "root")]
            .map(|(flag, folder)| format!("--{flag}={}", self.path(folder).display()))
    }

    /// The root of the host.
    pub fn root(&self) -> PathBuf {
        self.path("root")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn beside(&self, ending: &str) -> PathBuf {
        self.path(&format!("{NAME}.{ending}"))
    }
}

const NAME: &str = "libnvidia-ml.so.1";

fn append(path: &Path, line: &str) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).expect("opened");
    writeln!(file, "{line}").expect("written");
}

/// Where cargo put the fake library; `cargo test --test e2e` alone does not build it.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let test = env::current_exe().expect("this test's binary");
        let target = test.ancestors().nth(2).expect("target/debug/deps/e2e");
        let profile = target.file_name().and_then(|name| name.to_str()).expect("debug or release");
        let profile = if profile == "debug" { "dev" } else { profile };
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--package", "nodewarden-fake-nvml", "--profile", profile]);
        let status = cargo.current_dir(super::repository()).status().expect("cargo runs");
        assert!(status.success(), "the fake library is built");
        target.join("libfake_nvml.so")
    })
}
