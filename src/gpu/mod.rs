//! The GPUs of the node: the helper process is kept running, and what it says is shown.
//!
//! ```text
//! supervisor --order, request--> [helper process: NVML] --report--> supervisor -> board -> page
//!                                        kernel log: NVRM: Xid -----^
//! ```
//!
//! Nothing in the agent itself calls the driver, waits for it or reads a file that it is behind. Without a driver there is no
//! process and no thread, only a look for `/proc/driver/nvidia/version` now and then.

mod attribution;
mod helper;
mod kernel_log;
mod site;
mod supervisor;

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use nodewarden_collectors::Samples;
use nodewarden_gpu::{
    board::{Board, State},
    holders::{Asked, Pods},
    page::{self, Style},
};

pub use attribution::{Attribution, follow};
pub use site::GpuSite;
pub use supervisor::watch;

use crate::config::Config;

/// The word that makes the binary the helper process. No user needs it, so it is no command that help would list.
pub const HELPER: &str = "gpu-helper";

/// What is known of the GPUs, and how it is shown. Clones share it.
#[derive(Clone, Default)]
pub struct Gpus(Arc<Shared>);

#[derive(Default)]
struct Shared {
    board: Mutex<Board>,
    /// None while GPUs are not read at all.
    style: Mutex<Option<Arc<Style>>>,
    pods: Mutex<Option<Arc<dyn Pods>>>,
}

impl fmt::Debug for Gpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gpus").finish_non_exhaustive()
    }
}

impl Gpus {
    /// Says the series of GPUs. It may read a file for each process on a GPU.
    pub fn say(&self, out: &mut Samples) {
        let Some(style) = lock(&self.0.style).clone() else { return };
        let pods = lock(&self.0.pods).clone();
        let asked = pods.map(|pods| {
            let pids = self.board().pids();
            Asked::about(pids, &*pods)
        });
        let pods = asked.as_ref().map(|asked| asked as &dyn Pods);
        page::say(&self.board(), &style, pods, Instant::now(), out);
    }

    /// From now on labels say which pods hold GPUs; or not any more.
    pub fn attribute(&self, pods: Option<Arc<dyn Pods>>) {
        *lock(&self.0.pods) = pods;
    }

    /// Whether there are any to speak of.
    fn has_any(&self) -> bool {
        matches!(self.board().state, State::Ready | State::Degraded)
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        lock(&self.0.board)
    }

    /// Shows them in this way, or not at all.
    fn show(&self, style: Option<Style>) {
        *lock(&self.0.style) = style.map(Arc::new);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whoever panicked with it left something that can be read.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How GPUs are read and shown.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How the page looks.
    style: Style,
    /// The library that somebody named.
    library: Option<PathBuf>,
    /// The host's root.
    root: PathBuf,
    /// Where the driver says that it is there.
    driver: PathBuf,
    /// The time from one cycle to the next.
    interval: Duration,
    /// Where the kernel's messages may be.
    kernel_log: Vec<PathBuf>,
}

impl Settings {
    /// As the configuration wants it; `None` when GPUs are not to be read.
    pub fn new(config: &Config) -> Option<Self> {
        let (gpu, host) = (&config.gpu, &config.host);
        let style = Style {
            counters: gpu.counters.clone(),
            hostname_label: gpu.hostname_label.to_owned(),
            node: config.node_name.clone(),
            repeat_for_instances: gpu.repeat_for_instances,
            repeat_for_pods: gpu.repeat_for_pods,
        };
        // A container's own /dev rarely has it.
        let mut kernel_log = vec![host.root("/dev/kmsg"), "/dev/kmsg".into()];
        kernel_log.dedup();
        gpu.enabled.then(|| Self {
            style,
            library: gpu.library.clone(),
            root: host.rootfs.clone(),
            driver: host.proc("driver/nvidia"),
            interval: gpu.interval,
            kernel_log,
        })
    }

    /// How long a cycle may take: as long as the interval, but no call that works takes seconds.
    fn deadline(&self) -> Duration {
        self.interval.clamp(Duration::from_secs(1), Duration::from_secs(5))
    }
}
