//! Whose the GPUs are: the kubelet says which container holds a device, the kernel whose a process is.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use nodewarden_collectors::{Host, containers::Containers, pod_names::Names};
use nodewarden_gpu::holders::{Holder, Pods};
use tokio::{select, time::sleep};

use super::{Gpus, lock};
use crate::{
    config::Config,
    kubernetes::{
        cgroup,
        pod_resources::{self, DeviceId, Error},
    },
    metrics::own::Features,
    shutdown::Shutdown,
};

const FEATURE: &str = "gpu_pods";
/// How often the kubelet is asked at the most. Devices change hands when pods start and end.
const LEAST: Duration = Duration::from_secs(10);
/// So many times without an answer, and the last one counts no more.
const FORGET_AFTER: u32 = 3;

/// Where to ask, and what was answered last.
pub struct Attribution {
    /// Where the kubelet may listen.
    sockets: Vec<PathBuf>,
    interval: Duration,
    /// This node, and who knows its containers.
    host: Host,
    /// What the names of their logs say of them.
    names: Mutex<Names>,
    devices: Mutex<Vec<(String, Holder)>>,
}

impl Attribution {
    /// As the configuration wants it; `None` when GPUs are not to be read.
    pub fn new(config: &Config, containers: Containers) -> Option<Arc<Self>> {
        // A container's own folder has it only if it was mounted by itself.
        let mut sockets = vec![config.host.root(pod_resources::SOCKET), pod_resources::SOCKET.into()];
        sockets.dedup();
        let host = Host { containers, ..config.host.clone() };
        config.gpu.enabled.then(|| {
            Arc::new(Self {
                sockets,
                interval: config.gpu.interval.max(LEAST),
                names: Mutex::new(Names::new(&host)),
                host,
                devices: Mutex::default(),
            })
        })
    }

    async fn list(&self) -> Result<Vec<(String, Holder)>, Error> {
        let mut last = Error::Absent;
        for socket in &self.sockets {
            match pod_resources::list(socket).await {
                Ok(devices) => return Ok(devices.into_iter().map(renamed).collect()),
                Err(Error::Absent) => {}
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

impl Pods for Attribution {
    fn devices(&self) -> Vec<(String, Holder)> {
        lock(&self.devices).clone()
    }

    fn of_process(&self, pid: u32) -> Option<Holder> {
        // One that is gone, or that may not be looked at, is nobody's.
        let process = cgroup::of_process(&self.host.procfs, pid).ok()??;
        let mut names = lock(&self.names);
        if let Err(error) = names.refresh() {
            tracing::debug!(%error, "could not read the names of containers' logs");
        }
        let mut found = None;
        if let Some(id) = &process.container_id {
            names.tell(id, &self.host, &mut found);
        }
        let who = found.or_else(|| names.of_pod(&process.pod_uid).cloned())?;
        Some(Holder { namespace: who.namespace, pod: who.pod, container: who.container })
    }
}

/// Asks the kubelet while there are GPUs, until it is asked to stop.
pub async fn follow(
    attribution: Option<Arc<Attribution>>,
    gpus: Gpus,
    features: Features,
    mut shutdown: Shutdown,
) {
    let Some(attribution) = attribution else { return gpus.attribute(None) };
    gpus.attribute(Some(attribution.clone()));
    let mut failures = 0;
    loop {
        if gpus.has_any() {
            match attribution.list().await {
                Ok(devices) => {
                    failures = 0;
                    features.say(FEATURE, true, "");
                    *lock(&attribution.devices) = devices;
                }
                Err(error) => {
                    failures += 1;
                    features.say(FEATURE, false, &error.to_string());
                    // A kubelet that starts again is away for a moment; what is not known any more is not said any more.
                    if failures >= FORGET_AFTER {
                        lock(&attribution.devices).clear();
                    }
                }
            }
        }
        select! {
            () = shutdown.requested() => break,
            () = sleep(attribution.interval) => {}
        }
    }
    gpus.attribute(None);
}

/// As device plugins name it. NVIDIA's driver for dynamic resources counts GPUs, too.
fn renamed((id, resource, holder): (DeviceId, String, pod_resources::Holder)) -> (String, Holder) {
    let pod_resources::Holder { namespace, pod, container } = holder;
    let index = (resource == "gpu.nvidia.com").then(|| id.name.strip_prefix("gpu-")).flatten();
    let name = match index {
        Some(index) => format!("nvidia{index}"),
        None => id.name,
    };
    let name = id.share.map_or(name.clone(), |share| format!("{name}::{share}"));
    (name, Holder { namespace, pod, container })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn devices_are_called_as_plugins_call_them() {
        let of = |id: &str, resource: &str| {
            let holder =
                pod_resources::Holder { namespace: "a".into(), pod: "b".into(), container: "c".into() };
            renamed((DeviceId::parse(id), resource.into(), holder)).0
        };
        assert_eq!(of("GPU-1", "nvidia.com/gpu"), "GPU-1");
        assert_eq!(of("GPU-1::3", "nvidia.com/gpu.shared"), "GPU-1::3");
        assert_eq!(of("nvidia0/vgpu2", "nvidia.com/gpu"), "nvidia0::2");
        assert_eq!(of("gpu-4", "gpu.nvidia.com"), "nvidia4");
        assert_eq!(of("gpu-4", "example.com/gpu"), "gpu-4");
    }

    #[test]
    fn a_process_is_of_the_container_whose_log_says_its_id() {
        const ID: &str = "5d1f0a7c2b3e4f60718293a4b5c6d7e8f90123456789abcdef0123456789abcd";
        let root = tempfile::tempdir().expect("a directory");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, text).expect("written");
        };
        let config = Config {
            host: Host { procfs: root.path().join("proc"), rootfs: root.path().into(), ..Host::default() },
            ..Config::default()
        };
        let attribution = Attribution::new(&config, Containers::default()).expect("GPUs are read");
        write("proc/7/cgroup", &format!("0::/kubepods/burstable/pod4f2a-1/{ID}\n"));
        write("proc/8/cgroup", "0::/system.slice/sshd.service\n");
        assert_eq!(attribution.of_process(7), None, "nobody knows the pod");
        let named = |container: &str| {
            let [namespace, pod, container] = ["ml", "train-0", container].map(str::to_owned);
            Some(Holder { namespace, pod, container })
        };
        fs::create_dir_all(root.path().join("var/log/pods/ml_train-0_4f2a-1")).expect("made");
        assert_eq!(attribution.of_process(7), named(""));
        write(&format!("var/log/containers/train-0_ml_main-{ID}.log"), "");
        assert_eq!(attribution.of_process(7), named("main"));
        assert_eq!((attribution.of_process(8), attribution.of_process(9)), (None, None));
    }
}
