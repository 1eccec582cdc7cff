//! Environments of other agents' manifests, and what they mean here.

#![allow(clippy::expect_used, clippy::panic, reason = "a broken helper fails its test")]

#[path = "manifests/mod.rs"]
mod manifests;

use std::ffi::OsString;

use nodewarden::{
    cli,
    config::{self, Auth, Env, Loaded, Machine, Schema},
};

use manifests::{FILEBEAT, FLUENTD, environment};

const OPEN_SEARCH: &str = include_str!("manifests/fluentd-opensearch.yaml");

fn load(manifest: &str, further: &[(&str, &str)]) -> Result<Loaded, String> {
    let mut env: Env = environment(manifest).into_iter().collect();
    env.extend(further.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let cli = cli::parse([OsString::from("nodewarden")]).expect("no flags");
    let machine = Machine { hostname: "pod-name".into(), ..Machine::default() };
    config::load(&cli, &env, &machine).map_err(|mistakes| mistakes.to_string())
}

/// Host, index, schema, user, and the number of notes.
fn meaning(manifest: &str, further: &[(&str, &str)]) -> (String, String, Schema, String, usize) {
    let loaded = load(manifest, further).expect("no mistakes");
    let elastic = loaded.config.elasticsearch.expect("a server");
    let user = match elastic.auth {
        Auth::Basic { username, .. } => username,
        other => panic!("{other:?}"),
    };
    (elastic.hosts[0].to_string(), elastic.index.as_str().into(), elastic.schema, user, loaded.notes.len())
}

fn expected(
    host: &str,
    index: &str,
    schema: Schema,
    user: &str,
    notes: usize,
) -> (String, String, Schema, String, usize) {
    (host.into(), index.into(), schema, user.into(), notes)
}

#[test]
fn manifests_mean_what_they_meant() {
    let fluentd =
        expected("http://elasticsearch-logging:9200", "logstash-%Y.%m.%d", Schema::Fluent, "elastic", 1);
    assert_eq!(meaning(FLUENTD, &[]), fluentd);
    // That image writes to one index unless it is told otherwise.
    let open = |index| expected("https://opensearch-logging:9200", index, Schema::Fluent, "username", 3);
    assert_eq!(meaning(OPEN_SEARCH, &[]), open("fluentd"));
    let dated = [
        ("FLUENT_OPENSEARCH_LOGSTASH_FORMAT", "true"),
        ("FLUENT_OPENSEARCH_LOGSTASH_PREFIX", "K8s"),
        ("FLUENT_OPENSEARCH_LOGSTASH_DATEFORMAT", "%G.%V"),
    ];
    assert_eq!(meaning(OPEN_SEARCH, &dated), open("k8s-%G.%V"));
    let filebeat = expected("http://elasticsearch:9200", "logs-{dataset}-default", Schema::Ecs, "elastic", 0);
    assert_eq!(meaning(FILEBEAT, &[]), filebeat);
    for manifest in [FLUENTD, FILEBEAT] {
        assert_eq!(load(manifest, &[]).expect("no mistakes").config.node_name, "node-1");
    }
}

#[test]
fn a_pod_finds_the_servers_of_its_cluster() {
    let kubernetes = |env: &[(&str, &str)]| load("", env).expect("no mistakes").config.kubernetes;
    assert_eq!(kubernetes(&[]).kubelet, "https://127.0.0.1:10250");
    let found = kubernetes(&[
        ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
        ("KUBERNETES_SERVICE_PORT", "443"),
        ("NODE_IP", "10.99.0.1"),
    ]);
    assert_eq!(found.api_server.as_deref(), Some("https://10.96.0.1:443"));
    assert_eq!(found.kubelet, "https://10.99.0.1:10250");
    assert_eq!(kubernetes(&[("NODE_IP", "fd00::1")]).kubelet, "https://[fd00::1]:10250");
}

#[test]
fn compression_is_theirs_to_say() {
    let level = |env: &[(&str, &str)]| {
        load(FILEBEAT, env).expect("no mistakes").config.elasticsearch.expect("a server").compression
    };
    assert_eq!(level(&[("ENABLE_COMPRESSION", "true"), ("COMPRESSION_LEVEL", "6")]), 6);
    assert_eq!(level(&[("ENABLE_COMPRESSION", "false"), ("COMPRESSION_LEVEL", "6")]), 0);
    assert_eq!(level(&[]), 1);
}

#[test]
fn templates_and_policies_are_pointed_to_the_command_for_them() {
    let endings = [
        "TEMPLATE_NAME",
        "TEMPLATE_FILE",
        "TEMPLATE_OVERWRITE",
        "APPLICATION_NAME",
        "ENABLE_ILM",
        "ILM_POLICY_ID",
        "ILM_POLICY",
        "ILM_POLICY_OVERWRITE",
    ];
    for ending in endings {
        let name = format!("FLUENT_ELASTICSEARCH_{ending}");
        let notes = load(FLUENTD, &[(&name, "true")]).expect("no mistakes").notes;
        let note = notes.iter().find(|note| note.starts_with(&name)).expect("a note");
        assert!(note.contains("nodewarden setup"), "{note}");
    }
}

#[test]
fn what_an_index_can_not_be_called_is_said_at_its_variable() {
    let said = load(FLUENTD, &[("FLUENT_ELASTICSEARCH_LOGSTASH_PREFIX", "${tag}")]).expect_err("a mistake");
    assert!(said.starts_with("environment FLUENT_ELASTICSEARCH_LOGSTASH_PREFIX: "), "{said}");
}
