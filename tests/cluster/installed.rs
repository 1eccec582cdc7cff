//! The agent as users install it: by the chart, by the plain manifest, as a static pod.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    documents::{assert_each_once, first, of},
    node::{NAMESPACE, Node, node},
    plane::program,
    support::{Elastic, Prometheus, repository, same, seconds, temp_dir, wait_until},
};

/// The agent's configuration, which ships to the data streams `logs-*-NAME`.
fn config(node: &Node, elastic: &Elastic, name: &str) -> Value {
    let server = elastic.url().replace("http://", "");
    json!({
        "elasticsearch": {
            "hosts": [format!("http://{}", node.outside(&server))],
            "index": format!("logs-{{dataset}}-{name}"),
        },
        "kubernetes": {"annotations": ["team/pager"]},
        "store": {"min_free": "0%"},
    })
}

/// Installs the chart, or changes what is installed.
#[track_caller]
pub fn helm_install(node: &Node, elastic: &Elastic, name: &str, settings: &[&str]) {
    let dir = temp_dir();
    let values = dir.path().join("values.yaml");
    let image = json!({"repository": "localhost/nodewarden", "tag": "test", "pullPolicy": "Never"});
    let text = json!({"config": config(node, elastic, name), "image": image}).to_string();
    fs::write(&values, text).expect("written");
    let mut install =
        vec!["upgrade", "--install", "nodewarden", "charts/nodewarden", "--namespace", NAMESPACE];
    install.extend(["--values", values.to_str().expect("UTF-8")]);
    install.extend(settings);
    node.helm(&install).expect("installed");
}

/// The data stream of the containers' lines.
pub fn stream(name: &str) -> String {
    format!("logs-kubernetes.container_logs-{name}")
}

/// What the agent says, also before its end.
pub fn log(node: &Node) -> String {
    let select = "--selector=app.kubernetes.io/name=nodewarden";
    let said = node.kubectl(&["logs", "--all-containers", "--tail=30", select, "--namespace", NAMESPACE]);
    said.unwrap_or_else(|error| error)
}

/// What the kernel says of the one agent: user, group, capabilities, seccomp, and whether its root can be written.
#[track_caller]
fn assert_unprivileged(node: &Node) {
    let agents = node.agents();
    let [pid] = agents.as_slice() else { panic!("{agents:?}") };
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the field");
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(field("Uid:"), "65534 65534 65534 65534");
    assert_eq!(field("Gid:"), "0 0 0 0");
    assert_eq!(field("CapEff:"), "0000000000000000");
    assert_eq!(field("CapBnd:"), "0000000000000000");
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Seccomp:"), "2", "a filter");
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("its mounts");
    let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/")).expect("its root");
    assert!(
        root.split(' ').nth(5).is_some_and(|options| options.split(',').any(|option| option == "ro")),
        "{root}"
    );
}

#[track_caller]
fn assert_labelled(document: &Value, pod: &str) {
    let kubernetes = &document["kubernetes"];
    assert_eq!(kubernetes["labels"], json!({"app": "cart", "app_kubernetes_io/name": pod}), "{document}");
    assert_eq!(kubernetes["annotations"], json!({"team/pager": "blue"}));
    assert_eq!(kubernetes["node"]["name"], "node-1");
    assert_eq!(document["container"]["image"]["name"], "localhost/shell:1");
}

/// A container's id is in the pod's status some time after its first lines.
#[track_caller]
fn assert_identified(document: &Value) {
    assert_eq!(document["container"]["runtime"], "containerd");
    assert_eq!(document["container"]["id"].as_str().map(str::len), Some(64));
}

#[test]
fn the_chart_installs_ships_upgrades_and_loses_nothing() {
    let Some(node) = node() else { return };
    let (elastic, index) = (Elastic::shared(), stream("chart"));
    node.start_writer("cart-1", 200);
    helm_install(&node, elastic, "chart", &[]);
    let pod = node.wait_for_agent();
    assert_eq!(pod["status"]["hostIP"], json!(node.address()));
    assert_unprivileged(&node);
    assert_labelled(&first(elastic, &index, "cart-1", || log(&node)), "cart-1");

    // A new revision takes over in the middle of it, with a pod that starts when no agent is there; then one is killed.
    helm_install(&node, elastic, "chart", &["--set=podAnnotations.revision=two"]);
    node.start_writer("cart-2", 50);
    wait_until("the new revision is ready", seconds(120), || {
        let pod = node.wait_for_agent();
        same(&pod["metadata"]["annotations"]["revision"], &json!("two"))
    });
    assert_labelled(&first(elastic, &index, "cart-2", || log(&node)), "cart-2");
    for pid in node.agents() {
        kill_process(Pid::from_raw(pid as i32).expect("a pid"), Signal::KILL).expect("killed");
    }
    // What a pod wrote whose files are deleted while no agent runs is gone; this one has opened them again.
    let written = of(&elastic.documents(&index), "cart-1").len();
    wait_until("the killed agent's successor ships", seconds(120), || {
        match of(&elastic.documents(&index), "cart-1").len() {
            count if count > written + 40 => Ok(()),
            count => Err(format!("{count} documents; the agent says:\n{}", log(&node))),
        }
    });
    // Last lines are read after the API server has forgotten the pod.
    node.delete_writers(&["cart-1"]);
    assert_each_once(elastic, &index, &["cart-1"], || log(&node));
    node.delete_writers(&["cart-2"]);
    assert_each_once(elastic, &index, &["cart-2"], || log(&node));
    let documents = elastic.documents(&index);
    let is_last =
        |document: &&Value| document["message"].as_str().is_some_and(|text| text.contains(" ends after "));
    let last = of(&documents, "cart-2").into_iter().find(is_last).expect("the last line");
    assert_labelled(last, "cart-2");
    assert_identified(last);

    // Nothing was asked but a list and a watch of this node's pods in each of the three lives.
    let requests = node.requests();
    let narrow = "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-1&";
    assert!(
        requests.iter().all(|request| request.contains(narrow) && request.ends_with(" 200")),
        "{requests:#?}"
    );
    let lists = requests.iter().filter(|request| request.starts_with("list")).count();
    assert_eq!(lists, 3, "{requests:#?}");
}

#[test]
fn prometheus_finds_the_chart_s_pods_and_scrapes_them() {
    let Some(node) = node() else { return };
    let prometheus = program("prometheus-kubernetes");
    if !prometheus.is_file() {
        eprintln!("SKIPPED: no Prometheus with kubernetes_sd here: make test-cluster installs it");
        return;
    }
    // Metrics alone: without state, token and role.
    helm_install(&node, Elastic::shared(), "scraped", &["--set=profile=metrics"]);
    let pod = node.wait_for_agent();
    let discovery = format!(
        "kubernetes_sd_configs: [{{role: pod, kubeconfig_file: {}}}], relabel_configs: [
           {{source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_scrape], regex: 'true', action: keep}},
           {{source_labels: [__address__, __meta_kubernetes_pod_annotation_prometheus_io_port], regex: '([^:]+)(?::\\d+)?;(\\d+)',
             replacement: '$1:$2', target_label: __address__}},
           {{source_labels: [__meta_kubernetes_pod_name], target_label: pod}}]",
        node.kubeconfig.display()
    );
    let prometheus = Prometheus::start_as(&prometheus, &discovery);
    let name = pod["metadata"]["name"].as_str().expect("a name");
    wait_until("the pod is scraped", seconds(60), || {
        same(&prometheus.value(&format!("up{{pod=\"{name}\"}}"))?, &1.0)
    });
    // The node's own network and mounts, not those of a container.
    prometheus.has_data("node_network_up{device=\"k0\"}").expect("the node's device");
    prometheus.has_data("node_filesystem_size_bytes{mountpoint=\"/\"}").expect("the node's root");
    prometheus.has_data("node_uname_info{nodename=\"node-1\"}").expect("the node's name");
    assert_unprivileged(&node);
}

#[test]
fn the_plain_manifest_does_the_same() {
    let Some(node) = node() else { return };
    let (elastic, index) = (Elastic::shared(), stream("plain"));
    // As its reader does: another image, and a configuration in the ConfigMap.
    let manifest = fs::read_to_string(repository().join("deploy/nodewarden.yaml")).expect("the manifest");
    let mut settings = config(&node, elastic, "plain");
    settings["kubernetes"]["metadata"] = "api".into();
    let manifest = manifest
        .replace(concat!("image: nodewarden:", env!("CARGO_PKG_VERSION")), "image: localhost/nodewarden:test")
        .replace("    kubernetes:\n      metadata: api\n", &format!("    {settings}\n"));
    assert!(manifest.contains(&settings.to_string()), "the manifest has another configuration");
    node.apply(&manifest);
    node.wait_for_agent();
    assert_unprivileged(&node);
    node.start_writer("till-1", 20);
    assert_labelled(&first(elastic, &index, "till-1", || log(&node)), "till-1");
    node.delete_writers(&["till-1"]);
    assert_each_once(elastic, &index, &["till-1"], || log(&node));
}

#[test]
fn a_static_pod_needs_nobody() {
    let Some(node) = node() else { return };
    let (elastic, index) = (Elastic::shared(), stream("static"));
    let folder = node.dir().join("etc");
    fs::create_dir_all(&folder).expect("a folder");
    let mut settings = config(&node, elastic, "static");
    settings["kubernetes"] = json!({"metadata": "path"});
    fs::write(folder.join("config.yaml"), settings.to_string()).expect("written");
    let manifest = fs::read_to_string(repository().join("deploy/static-pod.yaml")).expect("the manifest");
    let manifest = manifest
        .replace(concat!("image: nodewarden:", env!("CARGO_PKG_VERSION")), "image: localhost/nodewarden:test")
        .replace("hostPath: {path: /etc/nodewarden,", &format!("hostPath: {{path: {},", folder.display()));
    node.start_writer("desk-1", 20);
    fs::write(node.dir().join("node/manifests/nodewarden.yaml"), manifest).expect("written");
    let said = || node.metrics().unwrap_or_else(|error| error);
    let document = first(elastic, &index, "desk-1", said);
    assert_unprivileged(&node);
    assert_eq!(document["kubernetes"]["namespace"], "shop");
    assert_eq!(document["kubernetes"]["pod"]["name"], "desk-1");
    assert_eq!((document["kubernetes"].get("labels"), document["kubernetes"].get("metadata")), (None, None));
    node.delete_writers(&["desk-1"]);
    assert_each_once(elastic, &index, &["desk-1"], said);
    let features = node.metrics().expect("metrics");
    let expected = "nodewarden_feature_enabled{feature=\"kubernetes_metadata\",reason=\"kubernetes.metadata is path\"} 0";
    assert!(features.contains(expected), "{features}");
}

#[test]
fn the_node_s_own_kubelet_tells_labels() {
    let Some(node) = node() else { return };
    let (elastic, index) = (Elastic::shared(), stream("kubelet"));
    node.start_writer("shelf-1", 20);
    let before = node.requests().len();
    helm_install(&node, elastic, "kubelet", &["--set=metadata=kubelet"]);
    node.wait_for_agent();
    assert_labelled(&first(elastic, &index, "shelf-1", || log(&node)), "shelf-1");
    // One that it does not know yet.
    node.start_writer("shelf-2", 20);
    assert_labelled(&first(elastic, &index, "shelf-2", || log(&node)), "shelf-2");
    node.delete_writers(&["shelf-1", "shelf-2"]);
    assert_each_once(elastic, &index, &["shelf-1", "shelf-2"], || log(&node));
    assert_eq!(node.requests().len(), before, "nothing is asked of the API server");

    // Its certificate is of the node's address; who does not look at it does not mind.
    let elsewhere = "--set=metadata=kubelet,config.kubernetes.kubelet=https://127.0.0.1:10250";
    let metadata = |reason: &str, value: u8| {
        let line = format!(
            "nodewarden_feature_enabled{{feature=\"kubernetes_metadata\",reason=\"{reason}\"}} {value}"
        );
        wait_until("the agent says who tells labels", seconds(60), || {
            let page = node.metrics()?;
            if page.contains(&line) { Ok(()) } else { Err(log(&node)) }
        });
    };
    metadata("", 1);
    helm_install(&node, elastic, "kubelet", &[elsewhere]);
    metadata("no connection", 0);
    helm_install(
        &node,
        elastic,
        "kubelet",
        &[elsewhere, "--set=config.kubernetes.insecure_skip_verify=true"],
    );
    metadata("", 1);
}
