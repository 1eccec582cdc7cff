//! What documents say of the pod that wrote a line: what its path tells, and what the cluster tells beside.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    record::{Container, PodFacts},
    shape::Schema,
};
use crate::kubernetes::pod::{ContainerFacts, ContainerId, Pod};

/// The members of a document about a container, each after a comma; the names are ECS's and Filebeat's, or those of the fluentd image's
/// metadata filter.
pub fn render(schema: Schema, container: &Container, facts: &PodFacts, node: &str) -> String {
    let members = match schema {
        Schema::Ecs => ecs(container, facts, node),
        Schema::Fluent => fluent(container, facts, node),
    };
    members.into_iter().map(|(name, value)| format!(",\"{name}\":{value}")).collect()
}

/// The pod, its container and the id of the run that wrote the file.
fn parts<'a>(
    container: &Container,
    pod: &'a Pod,
) -> (&'a Pod, Option<&'a ContainerFacts>, Option<&'a ContainerId>) {
    let facts = pod.container(&container.name);
    (pod, facts, facts.and_then(|facts| facts.id(container.restart)))
}

fn ecs(container: &Container, facts: &PodFacts, node: &str) -> Vec<(&'static str, Value)> {
    let mut kubernetes = json!({
        "namespace": container.namespace,
        "node": {"name": node},
        "pod": {"name": container.pod, "uid": container.uid},
        "container": {"name": container.name, "restart_count": container.restart},
    });
    let pod = match facts {
        PodFacts::NotAsked => return vec![("kubernetes", kubernetes)],
        PodFacts::Unknown => {
            kubernetes["metadata"] = "partial".into();
            return vec![("kubernetes", kubernetes)];
        }
        PodFacts::Known(pod) => pod,
    };
    let (pod, facts, id) = parts(container, pod);
    if let Some(ip) = &pod.ip {
        kubernetes["pod"]["ip"] = ip.as_str().into();
    }
    if !pod.labels.is_empty() {
        kubernetes["labels"] = de_dotted(&pod.labels).into();
    }
    if !pod.annotations.is_empty() {
        kubernetes["annotations"] = de_dotted(&pod.annotations).into();
    }
    if let Some(owner) = &pod.owner {
        kubernetes[owner.kind.as_str()] = json!({"name": owner.name});
        if let Some(job) = &owner.job {
            kubernetes["job"] = json!({"name": job});
        }
    }
    let mut members = vec![("kubernetes", kubernetes)];
    let mut run = Map::new();
    if let Some(id) = id {
        run.insert("id".into(), id.id.as_str().into());
        run.insert("runtime".into(), id.runtime.as_str().into());
    }
    if let Some(facts) = facts {
        run.insert("image".into(), json!({"name": facts.image}));
    }
    if !run.is_empty() {
        members.push(("container", run.into()));
    }
    members
}

fn fluent(container: &Container, facts: &PodFacts, node: &str) -> Vec<(&'static str, Value)> {
    let mut kubernetes = json!({
        "namespace_name": container.namespace,
        "pod_name": container.pod,
        "pod_id": container.uid,
        "container_name": container.name,
        "host": node,
    });
    let PodFacts::Known(pod) = facts else {
        return vec![("kubernetes", kubernetes)];
    };
    let (pod, facts, id) = parts(container, pod);
    if let Some(facts) = facts {
        kubernetes["container_image"] = facts.image.as_str().into();
    }
    if let Some(ip) = &pod.ip {
        kubernetes["pod_ip"] = ip.as_str().into();
    }
    if !pod.labels.is_empty() {
        kubernetes["labels"] = de_dotted(&pod.labels).into();
    }
    if !pod.annotations.is_empty() {
        kubernetes["annotations"] = de_dotted(&pod.annotations).into();
    }
    let mut members = vec![("kubernetes", kubernetes)];
    if let Some(id) = id {
        members.push(("docker", json!({"container_id": id.id})));
        // The name of the link that fluentd's source follows, as it makes a tag of it.
        let Container { namespace, pod, name, .. } = container;
        let tag = format!("kubernetes.var.log.containers.{pod}_{namespace}_{name}-{}.log", id.id);
        members.push(("tag", tag.into()));
    }
    members
}

/// A dot in a field's name makes an object, and `app` can't be a text and an object: dots become `_`. Of two names that become the same
/// the one that is so written stays.
fn de_dotted(fields: &BTreeMap<String, String>) -> Map<String, Value> {
    let mut free: Map<String, Value> = Map::new();
    for (name, value) in fields {
        let plain = name.replace('.', "_");
        if plain == *name || !fields.contains_key(&plain) {
            free.entry(plain).or_insert_with(|| value.as_str().into());
        }
    }
    free
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::kubernetes::pod::Owner;

    fn container() -> Container {
        Container {
            namespace: "shop".into(),
            pod: "cart-1".into(),
            uid: "0b9c".into(),
            name: "app".into(),
            restart: 2,
        }
    }

    fn pod() -> Pod {
        let text = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        Pod {
            uid: "0b9c".into(),
            namespace: "shop".into(),
            name: "cart-1".into(),
            ip: Some("10.1.2.3".into()),
            labels: text(&[
                ("app", "cart"),
                ("app.kubernetes.io/name", "c"),
                ("a.b", "dot"),
                ("a_b", "line"),
            ]),
            annotations: text(&[("team/pager", "blue")]),
            instructions: text(&[("fluentbit.io/exclude", "false")]),
            owner: Some(Owner { kind: "cronjob".into(), name: "sweep".into(), job: Some("sweep-29".into()) }),
            containers: vec![ContainerFacts {
                name: "app".into(),
                image: "shop/cart:3".into(),
                ids: vec![ContainerId { restart: 2, runtime: "containerd".into(), id: "aa".into() }],
            }],
        }
    }

    fn rendered(schema: Schema, facts: &PodFacts) -> Value {
        let text = render(schema, &container(), facts, "node-1");
        serde_json::from_str(&format!("{{\"x\":1{text}}}")).expect("JSON")
    }

    #[test]
    fn a_known_pod_is_told_as_filebeat_does() {
        let document = rendered(Schema::Ecs, &PodFacts::Known(Arc::new(pod())));
        let kubernetes = &document["kubernetes"];
        assert_eq!(kubernetes["pod"], json!({"name": "cart-1", "uid": "0b9c", "ip": "10.1.2.3"}));
        assert_eq!(
            kubernetes["labels"],
            json!({"app": "cart", "app_kubernetes_io/name": "c", "a_b": "line"})
        );
        assert_eq!(kubernetes["annotations"], json!({"team/pager": "blue"}));
        assert_eq!(kubernetes["cronjob"]["name"], "sweep");
        assert_eq!(kubernetes["job"]["name"], "sweep-29");
        assert_eq!(kubernetes.get("metadata"), None);
        assert_eq!(
            document["container"],
            json!({"id": "aa", "runtime": "containerd", "image": {"name": "shop/cart:3"}})
        );
    }

    #[test]
    fn the_fluentd_image_s_names() {
        let document = rendered(Schema::Fluent, &PodFacts::Known(Arc::new(pod())));
        let kubernetes = &document["kubernetes"];
        assert_eq!(kubernetes["container_image"], "shop/cart:3");
        assert_eq!(kubernetes["pod_ip"], "10.1.2.3");
        assert_eq!(kubernetes["labels"]["app"], "cart");
        assert_eq!(document["docker"]["container_id"], "aa");
        assert_eq!(document["tag"], "kubernetes.var.log.containers.cart-1_shop_app-aa.log");
    }

    #[test]
    fn without_the_cluster_the_path_tells() {
        let asked = rendered(Schema::Ecs, &PodFacts::Unknown);
        assert_eq!(asked["kubernetes"]["metadata"], "partial");
        let path = rendered(Schema::Ecs, &PodFacts::NotAsked);
        assert_eq!(path["kubernetes"].get("metadata"), None);
        assert_eq!(path["kubernetes"]["container"], json!({"name": "app", "restart_count": 2}));
        assert_eq!(path.get("container"), None);
    }

    #[test]
    fn another_run_of_a_container_has_no_id_of_this_one() {
        let mut pod = pod();
        pod.containers[0].ids[0].restart = 3;
        let document = rendered(Schema::Ecs, &PodFacts::Known(Arc::new(pod)));
        assert_eq!(document["container"], json!({"image": {"name": "shop/cart:3"}}));
    }
}
