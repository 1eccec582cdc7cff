//! Who holds a GPU: the kubelet's device ids, in all the forms that device plugins give them.

use std::collections::BTreeMap;

use crate::protocol::{Identity, Reading};

/// A container that holds a device or runs a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder {
    /// Its pod's namespace.
    pub namespace: String,
    /// Its pod.
    pub pod: String,
    /// Itself; empty where that is not known.
    pub container: String,
}

/// What is known of this node's pods. It is asked at each scrape, on a thread that may read files.
pub trait Pods: Send + Sync {
    /// Every device that the kubelet gave to a container, by its id as the device plugin made it: `GPU-…`, `MIG-…`, `nvidia0`,
    /// with `::3` behind it (or `/vgpu3`) for a share of one. What is no GPU's is passed over.
    fn devices(&self) -> Vec<(String, Holder)>;

    /// Whose a process is, by its number on the host; `None` when it is no pod's.
    fn of_process(&self, pid: u32) -> Option<Holder>;
}

/// What was known of some processes at a moment: asked before, so that nobody waits for files while the board is read.
pub struct Asked {
    devices: Vec<(String, Holder)>,
    processes: BTreeMap<u32, Holder>,
}

impl Asked {
    /// Asks about these processes.
    pub fn about(pids: impl IntoIterator<Item = u32>, pods: &dyn Pods) -> Self {
        let processes = pids.into_iter().filter_map(|pid| Some((pid, pods.of_process(pid)?))).collect();
        Self { devices: pods.devices(), processes }
    }
}

impl Pods for Asked {
    fn devices(&self) -> Vec<(String, Holder)> {
        self.devices.clone()
    }

    fn of_process(&self, pid: u32) -> Option<Holder> {
        self.processes.get(&pid).cloned()
    }
}

/// A GPU, by NVML's number, or an instance of it.
pub type Entity = (u32, Option<u32>);

/// One holder of an entity, and which share of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share {
    /// Who.
    pub holder: Holder,
    /// The number of the replica when it is shared.
    pub replica: Option<String>,
}

/// What a device id names, and which share of it.
#[derive(Debug, PartialEq, Eq)]
enum Named<'a> {
    Gpu(&'a str),
    MigDevice(&'a str),
    /// A GPU's UUID and its instance: how drivers before 470 named MIG devices.
    OldMig(&'a str, u32),
    Index(u32, Option<u32>),
}

/// By entity, who holds it.
pub fn holders(
    devices: Vec<(String, Holder)>,
    gpus: &[Identity],
    readings: &BTreeMap<u32, Reading>,
) -> BTreeMap<Entity, Vec<Share>> {
    let by_uuid = |uuid: &str| gpus.iter().find(|gpu| gpu.uuid == uuid).map(|gpu| gpu.index);
    let by_mig = |uuid: &str| {
        let mut instances = readings
            .iter()
            .flat_map(|(gpu, reading)| reading.instances.iter().flatten().map(|instance| (*gpu, instance)));
        let (gpu, instance) =
            instances.find(|(_, instance)| instance.uuids.iter().any(|known| known == uuid))?;
        Some((gpu, Some(instance.id)))
    };
    let mut found: BTreeMap<Entity, Vec<Share>> = BTreeMap::new();
    for (id, holder) in devices {
        let Some((named, replica)) = parse(&id) else { continue };
        let entity = match named {
            Named::Gpu(uuid) => by_uuid(uuid).map(|gpu| (gpu, None)),
            Named::MigDevice(uuid) => by_mig(uuid),
            Named::OldMig(uuid, instance) => by_uuid(uuid).map(|gpu| (gpu, Some(instance))),
            Named::Index(gpu, instance) => Some((gpu, instance)),
        };
        if let Some(entity) = entity {
            let share = Share { holder, replica: replica.map(str::to_owned) };
            found.entry(entity).or_default().push(share);
        }
    }
    for shares in found.values_mut() {
        shares.sort();
        shares.dedup();
    }
    found
}

fn parse(id: &str) -> Option<(Named<'_>, Option<&str>)> {
    let (id, replica) = match id.split_once("::") {
        Some((id, replica)) => (id, Some(replica)),
        None => (id, None),
    };
    if let Some(rest) = id.strip_prefix("nvidia") {
        let mut parts = rest.split('/');
        let gpu = parts.next()?.parse().ok()?;
        let (mut instance, mut replica) = (None, replica);
        for part in parts {
            if let Some(number) = part.strip_prefix("vgpu") {
                replica = Some(number);
            } else {
                instance = Some(part.strip_prefix("gi")?.parse().ok()?);
            }
        }
        return Some((Named::Index(gpu, instance), replica));
    }
    if let Some(rest) = id.strip_prefix("MIG-")
        && rest.starts_with("GPU-")
    {
        let mut parts = rest.split('/');
        let (uuid, instance) = (parts.next()?, parts.next()?);
        return Some((Named::OldMig(uuid, instance.parse().ok()?), replica));
    }
    match id {
        id if id.starts_with("MIG-") => Some((Named::MigDevice(id), replica)),
        id if id.starts_with("GPU-") => Some((Named::Gpu(id), replica)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::Instance;

    #[test]
    fn every_form_of_id_is_understood() {
        for (id, named, replica) in [
            ("GPU-1-2", Named::Gpu("GPU-1-2"), None),
            ("GPU-1-2::3", Named::Gpu("GPU-1-2"), Some("3")),
            ("MIG-7", Named::MigDevice("MIG-7"), None),
            ("MIG-7::7", Named::MigDevice("MIG-7"), Some("7")),
            ("MIG-GPU-1-2/5/0", Named::OldMig("GPU-1-2", 5), None),
            ("nvidia0", Named::Index(0, None), None),
            ("nvidia0/gi5", Named::Index(0, Some(5)), None),
            ("nvidia0/gi5/vgpu1", Named::Index(0, Some(5)), Some("1")),
            ("nvidia0/vgpu2", Named::Index(0, None), Some("2")),
            // The same, as who parsed it before writes it.
            ("nvidia0::2", Named::Index(0, None), Some("2")),
            ("nvidia0/gi5::2", Named::Index(0, Some(5)), Some("2")),
        ] {
            assert_eq!(parse(id), Some((named, replica)), "{id}");
        }
        for odd in ["", "eth0", "nvidia", "nvidiactl", "nvidia0/x", "MIG-GPU-1"] {
            assert_eq!(parse(odd), None, "{odd}");
        }
    }

    #[test]
    fn ids_find_their_gpu_or_instance() {
        let gpus = [Identity { index: 3, uuid: "GPU-a".into(), ..Identity::default() }];
        let instance = Instance { id: 5, uuids: vec!["MIG-x".into(), "MIG-y".into()], ..Instance::default() };
        let reading = Reading { instances: Some(vec![instance]), ..Reading::default() };
        let holder = |pod: &str| Holder { pod: pod.into(), ..Holder::default() };
        let devices = ["GPU-a::0", "GPU-a::1", "GPU-gone", "MIG-y", "MIG-gone", "nvidia3"];
        let devices = devices.map(|id| (id.to_owned(), holder(id))).to_vec();
        let found = holders(devices, &gpus, &[(3, reading)].into());
        let pods = |entity| {
            let shares: &Vec<Share> = &found[&entity];
            shares.iter().map(|share| share.holder.pod.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(found.len(), 2);
        assert_eq!(pods((3, None)), ["GPU-a::0", "GPU-a::1", "nvidia3"]);
        assert_eq!(pods((3, Some(5))), ["MIG-y"]);
    }

    proptest! {
        #[test]
        fn any_id_is_answered(id in "(GPU-|MIG-|MIG-GPU-|nvidia)?\\PC{0,20}") {
            let _ = parse(&id);
        }
    }
}
