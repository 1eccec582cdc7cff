//! Whose the GPUs are: the kubelet says which container holds a device, the kernel whose a process is.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use nodewarden_collectors::containers::Containers;
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

/// Where to ask, and what was answered last.
pub struct Attribution {
    /// Where the kubelet may listen.
    sockets: Vec<PathBuf>,
    procfs: PathBuf,
    interval: Duration,
    /// Who knows the containers of processes.
    containers: Containers,
    devices: Mutex<Vec<(String, Holder)>>,
}

impl Attribution {
    /// As the configuration wants it; `None` when GPUs are not to be read.
    pub fn new(config: &Config, containers: Containers) -> Option<Arc<Self>> {
        // A container's own folder has it only if it was mounted by itself.
        let mut sockets = vec![config.host.root(pod_resources::SOCKET), pod_resources::SOCKET.into()];
        sockets.dedup();
        config.gpu.enabled.then(|| {
            Arc::new(Self {
                sockets,
                procfs: config.host.proc(""),
                interval: config.gpu.interval.max(LEAST),
                containers,
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
        let process = cgroup::of_process(&self.procfs, pid).ok()??;
        let found = self.containers.find(&process.container_id?)?;
        Some(Holder { namespace: found.namespace, pod: found.pod, container: found.name })
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
    loop {
        if gpus.has_any() {
            let answer = attribution.list().await;
            match &answer {
                Ok(_) => features.say(FEATURE, true, ""),
                Err(error) => features.say(FEATURE, false, &reason(error)),
            }
            // What is not known any more is not said any more.
            *lock(&attribution.devices) = answer.unwrap_or_default();
        }
        select! {
            () = shutdown.requested() => break,
            () = sleep(attribution.interval) => {}
        }
    }
    gpus.attribute(None);
}

fn reason(error: &Error) -> String {
    match error {
        Error::Absent => "no kubelet's pod-resources socket is here".into(),
        Error::Connection(text) if text.contains("ermission denied") => {
            "the kubelet's pod-resources socket is root's: run as user 0".into()
        }
        other => other.to_string(),
    }
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
    fn who_may_not_connect_is_told_what_to_do() {
        let denied = Error::Connection("Permission denied (os error 13)".into());
        assert!(reason(&denied).contains("user 0"));
        assert!(reason(&Error::Late).contains("in time"));
    }
}
