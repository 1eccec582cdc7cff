//! `nodewarden setup` on real servers: what is made, what is left alone, and that lines find it.

use std::{fs, process::Output};

use serde_json::{Value, json};

use crate::{
    elastic::{Pods, assert_each_once},
    support::{Agent, Elastic, LogDir, nodewarden, pods_config, temp_dir},
};

/// Runs the command with this section `elasticsearch`; its exit, and what it says.
#[track_caller]
fn set_up(elastic: &Elastic, section: &str, flags: &[&str]) -> (bool, String) {
    let dir = temp_dir();
    let config = dir.path().join("config.yaml");
    let sources = "logs:\n  sources:\n    - kubernetes: {path: /nowhere}\n";
    let text = format!("{sources}elasticsearch:\n  hosts: ['{}']\n{section}", elastic.url());
    fs::write(&config, text).expect("written");
    let flag = format!("--config.file={}", config.display());
    let Output { status, stdout, stderr } = nodewarden(&[&["setup", flag.as_str()][..], flags].concat());
    (status.success(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
}

/// The template of this name, as the server shows it.
#[track_caller]
fn template(elastic: &Elastic, name: &str) -> Value {
    elastic.get(&format!("/_index_template/{name}"))["index_templates"][0]["index_template"].clone()
}

/// Lines find what was made: the types of the stream's fields.
#[track_caller]
fn ship(elastic: &Elastic, name: &str) -> Value {
    let logs = LogDir::new();
    let config = format!(
        "{}elasticsearch:\n  hosts: ['{}']\n  index: 'logs-{{dataset}}-{name}'\n",
        pods_config(&logs),
        elastic.url()
    );
    let _agent = Agent::start(&config, &[]);
    let mut pods = Pods::new(&logs, 1);
    pods.write(5);
    let index = format!("logs-kubernetes.container_logs-{name}");
    assert_each_once(elastic, &index, &pods.written);
    let mappings = elastic.get(&format!("/{index}/_mapping"));
    let mappings = mappings.as_object().expect("an object").values().next().expect("an index");
    mappings["mappings"]["properties"].clone()
}

/// The same on both products; the types of the stream's fields.
#[track_caller]
fn made_once_and_never_overwritten(elastic: &Elastic, name: &str) -> Value {
    let section = format!("  index: 'logs-{{dataset}}-{name}'\n");
    let object = format!("index template nodewarden-logs-{name}");
    let (done, said) = set_up(elastic, &section, &["--dry-run"]);
    assert!(
        done && said.contains(&format!("PUT /_index_template/nodewarden-logs-{name}?create=true")),
        "{said}"
    );
    let (done, said) = set_up(elastic, &section, &[]);
    assert!(done && said.contains(&format!("{object}: created")), "{said}");
    assert!(said.contains("none, this server has no lifecycle policies"), "{said}");
    let (done, again) = set_up(elastic, &section, &[]);
    assert!(done && again.contains(&format!("{object}: is up to date")), "{again}");
    let properties = ship(elastic, name);
    let mut mine = template(elastic, &format!("nodewarden-logs-{name}"));
    assert_eq!(mine["_meta"]["managed_by"], "nodewarden");
    for member in ["created_date_millis", "modified_date_millis"] {
        mine.as_object_mut().expect("an object").remove(member);
    }
    mine["data_stream"] = json!({});
    mine["template"]["settings"]["index"]["number_of_replicas"] = "0".into();
    elastic.put(&format!("/_index_template/nodewarden-logs-{name}"), &mine);
    let (done, said) = set_up(elastic, &section, &[]);
    assert!(done && said.contains(&format!("{object}: left alone, it was changed")), "{said}");
    let kept = template(elastic, &format!("nodewarden-logs-{name}"));
    assert_eq!(kept["template"]["settings"]["index"]["number_of_replicas"], "0");
    properties
}

#[test]
fn elasticsearch_is_set_up_once() {
    let properties = made_once_and_never_overwritten(Elastic::shared(), "setup");
    // Here the module for match_only_text is missing.
    assert_eq!(properties["message"]["type"], "text");
    assert_eq!(properties["kubernetes"]["properties"]["labels"]["type"], "flattened");
    assert_eq!(properties["log"]["properties"]["offset"]["type"], "long");
}

#[test]
fn open_search_is_set_up_once_with_its_data_stream() {
    let elastic = Elastic::open_search();
    let properties = made_once_and_never_overwritten(elastic, "setup");
    assert_eq!(properties["message"]["type"], "match_only_text");
    assert_eq!(properties["kubernetes"]["properties"]["labels"]["type"], "flat_object");
    let section = "  index: 'logs-{dataset}-streams'\n";
    let stream = "data stream logs-kubernetes.container_logs-streams";
    assert!(set_up(elastic, section, &[]).1.contains(&format!("{stream}: created")));
    assert!(set_up(elastic, section, &[]).1.contains(&format!("{stream}: is there")));
}

#[test]
fn indices_by_date_have_a_plain_template() {
    for elastic in [Elastic::shared(), Elastic::open_search()] {
        let section = "  index: dated-%Y.%m.%d\n  schema: fluent\n";
        let (done, said) = set_up(elastic, section, &[]);
        assert!(done && said.contains("index template nodewarden-dated: created"), "{said}");
        elastic.put("/dated-2026.11.20", &json!({}));
        let mapping = elastic.get("/dated-2026.11.20/_mapping");
        let properties = &mapping["dated-2026.11.20"]["mappings"]["properties"];
        assert_eq!(properties["log"]["fields"]["keyword"]["type"], "keyword", "{mapping}");
        let (done, said) = set_up(elastic, section, &["--retention=7d"]);
        assert!(!done && said.contains("--retention has no effect"), "{said}");
    }
}

#[test]
fn who_may_not_is_told_what_it_takes() {
    let elastic = Elastic::secured();
    let dir = temp_dir();
    let (_, few) = elastic.api_key(&["logs-*"], &["auto_configure", "create_doc"]);
    let secret = dir.path().join("key");
    let section = |ca: &str| {
        format!(
            "  index: 'logs-{{dataset}}-rights2'\n  tls: {{ca: {ca}}}\n  auth: {{api_key_file: {}}}\n",
            secret.display()
        )
    };
    let section = section(&elastic.ca().display().to_string());
    fs::write(&secret, few).expect("written");
    let (done, said) = set_up(elastic, &section, &[]);
    assert!(!done && said.contains("manage_index_templates"), "{said}");
    fs::write(&secret, "bm86a2V5").expect("written");
    let (done, said) = set_up(elastic, &section, &[]);
    assert!(!done && said.contains("HTTP 401: write a valid API key into"), "{said}");
}
