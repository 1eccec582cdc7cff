//! Environments of other agents' manifests, with nothing changed but where the server is: documents land where they did, with
//! the names that they had.

#[path = "../manifests/mod.rs"]
mod blocks;

use serde_json::{Value, json};

use self::blocks::{FILEBEAT, FLUENTD, environment};
use crate::support::{
    Agent, ApiServer, Elastic, Launch, LogDir, Stream::Stderr, pods_config, same, seconds, uid, wait_until,
};

/// The manifest's variables, with another server.
fn launch(manifest: &str, elastic: &Elastic) -> Launch {
    let url = elastic.url();
    let (host, port) = url.trim_start_matches("http://").split_once(':').expect("a port");
    let mut env = environment(manifest);
    for (name, value) in &mut env {
        match name.rsplit_once('_') {
            Some((_, "HOST")) => *value = host.to_owned(),
            Some((_, "PORT")) => *value = port.to_owned(),
            _ => {}
        }
    }
    Launch { env, ..Launch::default() }
}

/// The one document of a pattern of indices.
#[track_caller]
fn only(elastic: &Elastic, index: &str, agent: &Agent) -> (String, Value) {
    wait_until("the line is a document", seconds(60), || {
        same(&elastic.count(index)?, &1).map_err(|seen| format!("{seen}; the agent says:\n{}", agent.log()))
    });
    elastic.hit(index)
}

#[test]
fn fluentd_s_environment_ships_as_its_image_does() {
    // Others of this server's tests have no index of that name.
    let (elastic, logs) = (Elastic::shared(), LogDir::new());
    let api = ApiServer::start();
    let labels = json!({"labels": {"app": "cart", "app.kubernetes.io/name": "cart"}});
    let (metadata, pod) = match &api {
        Some(api) => (api.config("node-1"), api.make_pod("cart-1", "node-1", &labels)),
        None => (String::new(), uid("cart-1")),
    };
    let mut file = logs.container_of("shop", "cart-1", &pod, "app");
    file.line(Stderr, "payment refused");
    let config = format!("{metadata}{}", pods_config(&logs));
    let agent = Agent::start_as(launch(FLUENTD, elastic), &config, &[]);
    let (index, document) = only(elastic, "logstash-*", &agent);
    let line = std::fs::read_to_string(file.path()).expect("the log file");
    let time = line.split(' ').next().expect("a time");
    assert_eq!(index, format!("logstash-{}", time[..10].replace('-', ".")), "the day of the event");
    let names: Vec<&String> = document.as_object().expect("an object").keys().collect();
    let mut expected = vec!["@timestamp", "time", "log", "stream", "kubernetes"];
    let mut kubernetes = json!({
        "namespace_name": "shop", "pod_name": "cart-1", "pod_id": pod, "container_name": "app", "host": "node-1",
    });
    if api.is_some() {
        expected.extend(["docker", "tag"]);
        assert_eq!(document["docker"], json!({"container_id": "cart-1-id"}));
        assert_eq!(document["tag"], "kubernetes.var.log.containers.cart-1_shop_app-cart-1-id.log");
        kubernetes["container_image"] = "shop/cart:3".into();
        kubernetes["pod_ip"] = "10.1.2.3".into();
        kubernetes["labels"] = json!({"app": "cart", "app_kubernetes_io/name": "cart"});
    }
    assert_eq!(names, expected);
    assert_eq!(document["kubernetes"], kubernetes);
    assert_eq!((&document["log"], &document["stream"]), (&json!("payment refused"), &json!("stderr")));
    assert_eq!((&document["@timestamp"], &document["time"]), (&json!(time), &json!(time)));
    let notes = agent.log();
    assert!(notes.contains("FLUENT_ELASTICSEARCH_SSL_VERSION has no effect"), "{notes}");
}

#[test]
fn filebeat_s_environment_ships_in_ecs() {
    let (elastic, logs) = (Elastic::shared(), LogDir::new());
    let mut file = logs.container("shop", "cart-1", "app");
    file.line(Stderr, "payment refused");
    let agent = Agent::start_as(launch(FILEBEAT, elastic), &pods_config(&logs), &[]);
    let (index, document) = only(elastic, "logs-kubernetes.container_logs-default", &agent);
    assert!(index.starts_with(".ds-logs-kubernetes.container_logs-default-"), "{index}");
    assert_eq!((&document["message"], &document["stream"]), (&json!("payment refused"), &json!("stderr")));
    assert_eq!(document["kubernetes"]["node"]["name"], "node-1");
    assert_eq!(document["kubernetes"]["pod"]["uid"], json!(uid("cart-1")));
}
