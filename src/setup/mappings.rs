//! The types of the fields that documents have.

use serde_json::{Map, Value, json};

use super::server::Types;
use crate::logs::{feed_fields, shape::Schema};

/// Longer texts are kept, but not found by themselves: an index refuses documents with longer ones.
const LONGEST_KEYWORD: u32 = 1024;

/// Fields of ECS documents beside those of the journal and the kernel, which name theirs themselves.
const KEYWORDS: [&str; 28] = [
    "container.id",
    "container.image.name",
    "container.runtime",
    "host.hostname",
    "host.name",
    "kubernetes.container.name",
    "kubernetes.cronjob.name",
    "kubernetes.daemonset.name",
    "kubernetes.deployment.name",
    "kubernetes.job.name",
    "kubernetes.metadata",
    "kubernetes.namespace",
    "kubernetes.node.name",
    "kubernetes.pod.name",
    "kubernetes.pod.uid",
    "kubernetes.replicaset.name",
    "kubernetes.statefulset.name",
    "log.file.path",
    "log.level",
    "log.syslog.facility.name",
    "log.syslog.msgid",
    "log.syslog.procid",
    "log.syslog.severity.name",
    "log.syslog.version",
    "nodewarden.left_out.reason",
    "process.name",
    "stream",
    "syslog.structured_data",
];
const NUMBERS: [&str; 9] = [
    "kubernetes.container.restart_count",
    "log.offset",
    "log.syslog.facility.code",
    "log.syslog.priority",
    "log.syslog.severity.code",
    "nodewarden.left_out.bytes",
    "nodewarden.left_out.lines",
    "nodewarden.repeated",
    "process.pid",
];

/// The mappings of an index for documents of a schema.
pub fn mappings(schema: Schema, types: Types) -> Value {
    match schema {
        Schema::Ecs => ecs(types),
        Schema::Fluent => fluent(types),
    }
}

fn ecs(types: Types) -> Value {
    let keyword = json!({"type": "keyword", "ignore_above": LONGEST_KEYWORD});
    let number = json!({"type": "long"});
    let mut properties = Map::new();
    // Nanoseconds count: they are the order in which lines were written.
    put(&mut properties, "@timestamp", json!({"type": "date_nanos"}));
    for field in ["message", "nodewarden.overflow", "nodewarden.conflict"] {
        put(&mut properties, field, json!({"type": types.text}));
    }
    for field in KEYWORDS {
        put(&mut properties, field, keyword.clone());
    }
    for field in NUMBERS {
        put(&mut properties, field, number.clone());
    }
    for (field, is_number) in feed_fields::ecs_types() {
        put(&mut properties, field, if is_number { number.clone() } else { keyword.clone() });
    }
    put(&mut properties, "kubernetes.pod.ip", json!({"type": "ip"}));
    for field in ["data_stream.dataset", "data_stream.namespace", "data_stream.type"] {
        put(&mut properties, field, json!({"type": types.constant}));
    }
    put_flat(&mut properties, types);
    json!({
        // A text that looks like a date once need not do so the next time, and would be refused then.
        "date_detection": false,
        // What programs put into JSON lines.
        "dynamic_templates": [{"strings_as_keyword": {"match_mapping_type": "string", "mapping": keyword}}],
        "properties": properties,
    })
}

/// That image's indices have no mappings of their own: its users search `log` and filter by `kubernetes.pod_name.keyword`, which is
/// what a server makes of texts by itself.
fn fluent(types: Types) -> Value {
    let text = json!({"type": types.text, "fields": {"keyword": {"type": "keyword", "ignore_above": 256}}});
    let mut properties = Map::new();
    for field in ["@timestamp", "time"] {
        put(&mut properties, field, json!({"type": "date"}));
    }
    for field in ["log", "message", "MESSAGE"] {
        put(&mut properties, field, text.clone());
    }
    for field in ["nodewarden.overflow", "nodewarden.conflict"] {
        put(&mut properties, field, json!({"type": types.text}));
    }
    put_flat(&mut properties, types);
    json!({"date_detection": false, "properties": properties})
}

/// Labels and annotations: people invent their keys.
fn put_flat(properties: &mut Map<String, Value>, types: Types) {
    let Some(flat) = types.flat else { return };
    for field in ["kubernetes.labels", "kubernetes.annotations"] {
        put(properties, field, json!({"type": flat}));
    }
}

/// Puts a field at its dotted path.
fn put(properties: &mut Map<String, Value>, path: &str, field: Value) {
    match path.split_once('.') {
        None => {
            properties.insert(path.to_owned(), field);
        }
        Some((first, rest)) => {
            let object = properties.entry(first).or_insert_with(|| json!({"properties": {}}));
            if let Some(inner) = object["properties"].as_object_mut() {
                put(inner, rest, field);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPES: Types =
        Types { text: "match_only_text", flat: Some("flattened"), constant: "constant_keyword" };

    fn type_of(mappings: &Value, path: &str) -> Option<String> {
        let found = path.split('.').try_fold(mappings, |at, name| at.get("properties")?.get(name))?;
        found["type"].as_str().map(str::to_owned)
    }

    #[test]
    fn fields_have_the_types_of_ecs() {
        let mappings = mappings(Schema::Ecs, TYPES);
        for (path, expected) in [
            ("@timestamp", "date_nanos"),
            ("message", "match_only_text"),
            ("kubernetes.labels", "flattened"),
            ("kubernetes.pod.ip", "ip"),
            ("kubernetes.pod.uid", "keyword"),
            ("log.offset", "long"),
            ("log.syslog.facility.code", "long"),
            ("systemd.unit", "keyword"),
            ("process.pid", "long"),
            ("data_stream.type", "constant_keyword"),
        ] {
            assert_eq!(type_of(&mappings, path).as_deref(), Some(expected), "{path}");
        }
        let without = Types { flat: None, ..TYPES };
        assert_eq!(type_of(&ecs(without), "kubernetes.labels"), None);
    }

    #[test]
    fn no_field_is_an_object_and_a_value_at_once() {
        fn check(properties: &Value) {
            for field in properties.as_object().expect("an object").values() {
                assert_ne!(field.get("type").is_some(), field.get("properties").is_some(), "{field}");
                if let Some(inner) = field.get("properties") {
                    check(inner);
                }
            }
        }
        for schema in [Schema::Ecs, Schema::Fluent] {
            check(&mappings(schema, TYPES)["properties"]);
        }
    }

    #[test]
    fn that_image_s_filters_go_on_working() {
        let mappings = mappings(Schema::Fluent, TYPES);
        assert_eq!(type_of(&mappings, "log").as_deref(), Some("match_only_text"));
        assert_eq!(mappings["properties"]["log"]["fields"]["keyword"]["type"], "keyword");
        assert_eq!(type_of(&mappings, "kubernetes.pod_name"), None, "left to the server");
    }
}
