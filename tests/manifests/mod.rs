//! The environments that manifests of other agents have, as a kubelet hands them over.

/// fluentd-kubernetes-daemonset for Elasticsearch.
pub const FLUENTD: &str = include_str!("fluentd-elasticsearch.yaml");
/// Filebeat.
pub const FILEBEAT: &str = include_str!("filebeat.yaml");

/// Names and values; a field of the pod is that of a pod on `node-1`.
pub fn environment(manifest: &str) -> Vec<(String, String)> {
    let mut variables: Vec<(String, String)> = Vec::new();
    for line in manifest.lines() {
        let Some((key, value)) = line.trim_start_matches([' ', '-']).split_once(':') else { continue };
        let value = value.trim().trim_matches('"');
        match (key, variables.last_mut()) {
            ("name", _) => variables.push((value.to_owned(), String::new())),
            ("value", Some((_, last))) => *last = value.to_owned(),
            ("fieldPath", Some((_, last))) if value == "spec.nodeName" => *last = "node-1".to_owned(),
            _ => {}
        }
    }
    variables
}
