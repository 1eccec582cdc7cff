//! What a pod's manifest and status say about its log lines, and nothing else of it: a node's pods fit into some hundred KiB.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Annotations with these beginnings are instructions to log agents.
const INSTRUCTIONS: [&str; 4] = ["nodewarden.io/", "fluentbit.io/", "co.elastic.logs", "vector.dev/"];
/// Longer ones are left out, in bytes: each line of the pod would carry it.
const ANNOTATION_LIMIT: usize = 8 << 10;
/// The kubelet knows a static pod by the hash of its manifest, and names its log folder so.
const STATIC_HASH: [&str; 2] = ["kubernetes.io/config.mirror", "kubernetes.io/config.hash"];
/// Put on a Deployment's pods; its value ends the ReplicaSet's name.
const TEMPLATE_HASH: &str = "pod-template-hash";
/// A CronJob's Jobs end with their minute since the epoch; in old versions with seconds.
const CRON_DIGITS: std::ops::RangeInclusive<usize> = 8..=10;

/// A pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// What its log folder ends with.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// Its labels, their keys as they are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Those of its annotations that were asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Those of its annotations that tell log agents what to do.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub instructions: BTreeMap<String, String>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// Its containers, init and ephemeral ones too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<ContainerFacts>,
}

/// Which annotations are of use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Those that documents say.
    pub annotations: Vec<String>,
    /// Whether pods may say what is done with their lines.
    pub hints: bool,
}

/// Who made a pod. Names follow from the pod alone: ReplicaSets and Jobs are not asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// `deployment`, `replicaset`, `statefulset`, `daemonset`, `job`, `cronjob`, or another kind in small letters.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The Job of a CronJob's pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
}

/// One container of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerFacts {
    /// Its name in the pod.
    pub name: String,
    /// Its image as written in the manifest.
    #[serde(default)]
    pub image: String,
    /// The last two ids that the runtime gave it, with the number of restarts before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<ContainerId>,
}

/// What a container runtime calls one run of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerId {
    /// Restarts before this run.
    pub restart: u32,
    /// `containerd`, `cri-o`, `docker`.
    pub runtime: String,
    /// The id.
    pub id: String,
}

impl Pod {
    /// Reads a pod as the API server and the kubelet write it. `None` for one without a uid.
    pub fn read(raw: RawPod, wanted: &Wanted) -> Option<Self> {
        let RawPod { metadata, spec, status } = raw;
        let mut annotations = metadata.annotations.unwrap_or_default();
        let hash = STATIC_HASH.iter().find_map(|key| annotations.remove(*key));
        let owner = owner(&metadata.owner_references.unwrap_or_default(), metadata.labels.as_ref());
        annotations.retain(|_, text| text.len() <= ANNOTATION_LIMIT);
        let is_instruction = |key: &str| INSTRUCTIONS.iter().any(|beginning| key.starts_with(beginning));
        let mut instructions = annotations.clone();
        instructions.retain(|key, _| wanted.hints && is_instruction(key));
        annotations.retain(|key, _| wanted.annotations.contains(key));
        Some(Self {
            uid: hash.or(metadata.uid).filter(|uid| !uid.is_empty())?,
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            ip: status.as_ref().and_then(|status| status.pod_ip.clone()).filter(|ip| !ip.is_empty()),
            labels: metadata.labels.unwrap_or_default(),
            annotations,
            instructions,
            owner,
            containers: containers(spec.unwrap_or_default(), status.unwrap_or_default()),
        })
    }

    /// The container of this name.
    pub fn container(&self, name: &str) -> Option<&ContainerFacts> {
        self.containers.iter().find(|container| container.name == name)
    }
}

impl ContainerFacts {
    /// The id of the run after so many restarts.
    pub fn id(&self, restart: u32) -> Option<&ContainerId> {
        self.ids.iter().find(|id| id.restart == restart)
    }
}

fn owner(references: &[RawOwner], labels: Option<&BTreeMap<String, String>>) -> Option<Owner> {
    let controller = references.iter().find(|owner| owner.controller.unwrap_or(false))?;
    let (kind, name) = (controller.kind.as_str(), controller.name.as_str());
    let owner = |kind: &str, name: &str, job: Option<&str>| {
        Some(Owner { kind: kind.to_lowercase(), name: name.to_owned(), job: job.map(str::to_owned) })
    };
    match kind {
        "ReplicaSet" => {
            let hash = labels.and_then(|labels| labels.get(TEMPLATE_HASH));
            let deployment = hash.and_then(|hash| name.strip_suffix(hash.as_str())?.strip_suffix('-'));
            deployment
                .map_or_else(|| owner(kind, name, None), |deployment| owner("deployment", deployment, None))
        }
        "Job" => match name.rsplit_once('-') {
            Some((cron, digits))
                if CRON_DIGITS.contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) =>
            {
                owner("cronjob", cron, Some(name))
            }
            _ => owner(kind, name, None),
        },
        // A static pod's is its node.
        "Node" => None,
        _ => owner(kind, name, None),
    }
}

fn containers(spec: RawSpec, status: RawStatus) -> Vec<ContainerFacts> {
    let written = [spec.init_containers, spec.containers, spec.ephemeral_containers];
    let seen =
        [status.init_container_statuses, status.container_statuses, status.ephemeral_container_statuses];
    let seen: Vec<RawContainerStatus> = seen.into_iter().flatten().flatten().collect();
    written
        .into_iter()
        .flatten()
        .flatten()
        .map(|container| {
            let status = seen.iter().find(|status| status.name == container.name);
            ContainerFacts {
                ids: status.map(ids).unwrap_or_default(),
                name: container.name,
                image: container.image.unwrap_or_default(),
            }
        })
        .collect()
}

/// The run that is on, or was the last, and the one before it.
fn ids(status: &RawContainerStatus) -> Vec<ContainerId> {
    let last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let before = last.and_then(|last| last.container_id.as_deref());
    let id = |text: Option<&str>, restart: Option<u32>| {
        let (runtime, id) = text?.split_once("://")?;
        Some(ContainerId { restart: restart?, runtime: runtime.to_owned(), id: id.to_owned() })
    };
    let now = status.container_id.as_deref();
    let earlier = before.filter(|before| Some(*before) != now);
    [id(now, Some(status.restart_count)), id(earlier, status.restart_count.checked_sub(1))]
        .into_iter()
        .flatten()
        .collect()
}

/// A pod as it is written by the API server, see the reference of `v1/Pod`.
#[derive(Debug, Deserialize)]
pub struct RawPod {
    metadata: RawMetadata,
    #[serde(default)]
    spec: Option<RawSpec>,
    #[serde(default)]
    status: Option<RawStatus>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawMetadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<RawOwner>>,
}

#[derive(Debug, Deserialize)]
struct RawOwner {
    kind: String,
    name: String,
    controller: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawSpec {
    init_containers: Option<Vec<RawContainer>>,
    containers: Option<Vec<RawContainer>>,
    ephemeral_containers: Option<Vec<RawContainer>>,
}

#[derive(Debug, Deserialize)]
struct RawContainer {
    name: String,
    image: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawStatus {
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    init_container_statuses: Option<Vec<RawContainerStatus>>,
    container_statuses: Option<Vec<RawContainerStatus>>,
    ephemeral_container_statuses: Option<Vec<RawContainerStatus>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawContainerStatus {
    name: String,
    #[serde(default)]
    restart_count: u32,
    #[serde(rename = "containerID")]
    container_id: Option<String>,
    last_state: Option<RawState>,
}

#[derive(Debug, Deserialize)]
struct RawState {
    terminated: Option<RawTerminated>,
}

#[derive(Debug, Deserialize)]
struct RawTerminated {
    #[serde(rename = "containerID")]
    container_id: Option<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(raw: serde_json::Value) -> Pod {
        let raw = serde_json::from_value(raw).expect("a pod");
        let wanted = Wanted { annotations: vec!["team/pager".to_owned()], hints: true };
        Pod::read(raw, &wanted).expect("a uid")
    }

    fn owned(kind: &str, name: &str, hash: &str) -> Option<Owner> {
        read(json!({"metadata": {
            "uid": "u", "labels": {"pod-template-hash": hash},
            "ownerReferences": [
                {"kind": "Other", "name": "no", "controller": false},
                {"kind": kind, "name": name, "controller": true},
            ],
        }}))
        .owner
    }

    #[test]
    fn a_pod_is_read_without_what_no_log_line_needs() {
        let pod = read(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "cart-1", "namespace": "shop", "uid": "0b9c",
                "labels": {"app": "cart", "app.kubernetes.io/name": "cart"},
                "annotations": {
                    "kubectl.kubernetes.io/last-applied-configuration": "{}",
                    "team/pager": "blue", "fluentbit.io/exclude": "true", "co.elastic.logs.app/enabled": "false",
                },
                "managedFields": [{"manager": "kubectl"}],
            },
            "spec": {
                "initContainers": [{"name": "wait", "image": "busybox"}],
                "containers": [{"name": "app", "image": "shop/cart:3", "env": []}],
                "nodeName": "node-1",
            },
            "status": {
                "podIP": "10.1.2.3",
                "containerStatuses": [{
                    "name": "app", "restartCount": 3, "containerID": "containerd://aa",
                    "lastState": {"terminated": {"containerID": "containerd://bb", "exitCode": 1}},
                }],
            },
        }));
        assert_eq!((pod.uid.as_str(), pod.name.as_str(), pod.namespace.as_str()), ("0b9c", "cart-1", "shop"));
        assert_eq!(pod.ip.as_deref(), Some("10.1.2.3"));
        assert_eq!(pod.labels.len(), 2);
        let names = |kept: &BTreeMap<String, String>| kept.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&pod.annotations), ["team/pager"]);
        assert_eq!(names(&pod.instructions), ["co.elastic.logs.app/enabled", "fluentbit.io/exclude"]);
        let app = pod.container("app").expect("the container");
        assert_eq!(app.image, "shop/cart:3");
        let id = |restart| app.id(restart).map(|id| (id.runtime.as_str(), id.id.as_str()));
        assert_eq!((id(3), id(2), id(1)), (Some(("containerd", "aa")), Some(("containerd", "bb")), None));
        assert_eq!(pod.container("wait").map(|wait| wait.ids.len()), Some(0));
    }

    #[test]
    fn owners_are_named_from_the_pod_alone() {
        let owner = |kind: &str, name: &str, job: Option<&str>| {
            Some(Owner { kind: kind.into(), name: name.into(), job: job.map(str::to_owned) })
        };
        assert_eq!(owned("ReplicaSet", "web-app-7d9f8b", "7d9f8b"), owner("deployment", "web-app", None));
        assert_eq!(owned("ReplicaSet", "by-hand", "7d9f8b"), owner("replicaset", "by-hand", None));
        assert_eq!(owned("StatefulSet", "db", ""), owner("statefulset", "db", None));
        assert_eq!(owned("Job", "sweep-29384756", ""), owner("cronjob", "sweep", Some("sweep-29384756")));
        assert_eq!(owned("Job", "load-2026", ""), owner("job", "load-2026", None));
        assert_eq!(owned("Node", "node-1", ""), None);
    }

    #[test]
    fn a_static_pod_is_known_by_the_name_of_its_folder() {
        let annotations = json!({"kubernetes.io/config.mirror": "4f2a", "kubernetes.io/config.hash": "4f2a"});
        assert_eq!(read(json!({"metadata": {"uid": "mirror", "annotations": annotations}})).uid, "4f2a");
    }

    #[test]
    fn what_is_no_pod_is_none() {
        let raw = |text: &str| serde_json::from_str::<RawPod>(text);
        assert!(raw("{}").is_err());
        assert!(Pod::read(raw(r#"{"metadata":{}}"#).expect("an object"), &Wanted::default()).is_none());
        let nulls =
            r#"{"metadata":{"uid":"u","labels":null},"spec":null,"status":{"containerStatuses":null}}"#;
        assert!(Pod::read(raw(nulls).expect("an object"), &Wanted::default()).is_some());
    }
}
