//! What a server has stored, and whether it is ours and as we wrote it.
//!
//! What we write is marked with a hash of its contents, which can be reckoned again from what the server shows: there settings
//! have other forms, and defaults are filled in. When the two differ, somebody changed it.

use serde_json::{Map, Value, json};
use xxhash_rust::xxh3::xxh3_64;

use crate::VERSION;

const OWNER: &str = "nodewarden";

/// What kind of object it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An index template.
    Template,
    /// A lifecycle policy of Elasticsearch; those before 7.16 can't be marked.
    Ilm {
        /// Whether it can.
        has_meta: bool,
    },
    /// A policy of OpenSearch's index state management.
    Ism,
}

/// What a server has under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its contents in the form in which they are compared.
    contents: String,
    mark: Option<Mark>,
    /// What an update has to name, so that it does not undo another one.
    pub sequence: Option<(u64, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Mark {
    version: String,
    hash: String,
}

/// What is to be done about an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// There is none.
    Missing,
    /// It is as it would be written now.
    UpToDate,
    /// It is as this version wrote it.
    Outdated(String),
    /// Somebody else made it.
    Foreign,
    /// It was changed since it was written.
    Changed,
}

impl Kind {
    /// The object as it is sent, marked as ours.
    pub fn marked(self, contents: &Value) -> Value {
        let hash = hash(&self.canonical(contents));
        let meta = json!({"managed_by": OWNER, "version": VERSION, "hash": hash});
        let mut marked = contents.clone();
        match self {
            Self::Template => marked["_meta"] = meta,
            Self::Ilm { has_meta: true } => marked["_meta"] = meta,
            Self::Ilm { has_meta: false } => {}
            Self::Ism => marked["description"] = describe(&hash).into(),
        }
        match self {
            Self::Template => marked,
            Self::Ilm { .. } | Self::Ism => json!({"policy": marked}),
        }
    }

    /// What a server shows of the object with this name; `None` when it shows none.
    pub fn read(self, answer: &Value, name: &str) -> Option<Stored> {
        let object = match self {
            Self::Template => {
                let found =
                    answer["index_templates"].as_array()?.iter().find(|found| found["name"] == name)?;
                &found["index_template"]
            }
            Self::Ilm { .. } => &answer[name]["policy"],
            Self::Ism => &answer["policy"],
        };
        object.as_object()?;
        let mark = match self {
            Self::Template | Self::Ilm { .. } => Mark::of_meta(&object["_meta"]),
            Self::Ism => Mark::of_text(object["description"].as_str().unwrap_or_default()),
        };
        let sequence = answer["_seq_no"].as_u64().zip(answer["_primary_term"].as_u64());
        Some(Stored { contents: self.canonical(object), mark, sequence })
    }

    /// The contents in one form, whichever way they are written.
    fn canonical(self, object: &Value) -> String {
        let mut kept = Map::new();
        let names: &[&str] = match self {
            Self::Template => {
                &["index_patterns", "priority", "version", "composed_of", "template", "data_stream"]
            }
            Self::Ilm { .. } => &["phases"],
            Self::Ism => &["default_state", "states", "ism_template"],
        };
        for name in names {
            kept.extend(object.get(*name).map(|value| ((*name).to_owned(), value.clone())));
        }
        if self == Self::Template {
            normalise_template(&mut kept);
        }
        let mut text = String::new();
        write_sorted(&Value::Object(kept), self == Self::Ism, &mut text);
        text
    }
}

impl Stored {
    /// Compares it with what would be written now.
    pub fn judge(&self, kind: Kind, contents: &Value) -> Finding {
        let wanted = kind.canonical(contents);
        match &self.mark {
            // Without a mark, what is the same to the letter may be ours.
            None if self.contents == wanted => Finding::UpToDate,
            None => Finding::Foreign,
            Some(mark) if mark.hash != hash(&self.contents) => Finding::Changed,
            Some(_) if self.contents == wanted => Finding::UpToDate,
            Some(mark) => Finding::Outdated(mark.version.clone()),
        }
    }
}

impl Mark {
    fn of_meta(meta: &Value) -> Option<Self> {
        let text = |name: &str| meta[name].as_str().map(str::to_owned);
        (meta["managed_by"] == OWNER).then_some(Self { version: text("version")?, hash: text("hash")? })
    }

    /// The reverse of [`describe`].
    fn of_text(text: &str) -> Option<Self> {
        let rest = text.split_once(&format!("managed_by: {OWNER}, version: "))?.1;
        let (version, hash) = rest.split_once(", hash: ")?;
        Some(Self { version: version.to_owned(), hash: hash.trim_end_matches(')').to_owned() })
    }
}

/// The mark as people read it, where an object has no other place for it.
fn describe(hash: &str) -> String {
    format!("Log lines of nodewarden (managed_by: {OWNER}, version: {VERSION}, hash: {hash})")
}

fn hash(canonical: &str) -> String {
    format!("{:016x}", xxh3_64(canonical.as_bytes()))
}

/// Settings as flat names below `index.`; of a data stream only what is not by default.
fn normalise_template(object: &mut Map<String, Value>) {
    if let Some(composed) = object.get("composed_of")
        && composed.as_array().is_some_and(Vec::is_empty)
    {
        object.remove("composed_of");
    }
    if let Some(stream) = object.get_mut("data_stream").and_then(Value::as_object_mut) {
        stream.retain(|name, value| name != "timestamp_field" && *value != Value::Bool(false));
    }
    let Some(template) = object.get_mut("template").and_then(Value::as_object_mut) else { return };
    if let Some(settings) = template.get("settings") {
        let mut flat = Map::new();
        flatten("", settings, &mut flat);
        template.insert("settings".into(), Value::Object(flat));
    }
    template.retain(|_, value| value.as_object().is_none_or(|object| !object.is_empty()));
}

fn flatten(prefix: &str, value: &Value, into: &mut Map<String, Value>) {
    match value.as_object() {
        Some(object) => {
            for (name, value) in object {
                let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                flatten(&path, value, into);
            }
        }
        None if prefix.starts_with("index.") => {
            into.insert(prefix.to_owned(), value.clone());
        }
        None => {
            into.insert(format!("index.{prefix}"), value.clone());
        }
    }
}

/// JSON with sorted names and every scalar as a text, without nulls. OpenSearch notes in its policies when they were written.
fn write_sorted(value: &Value, is_ism: bool, out: &mut String) {
    match value {
        Value::Object(object) => {
            let is_noise = |name: &str, value: &Value| {
                value.is_null()
                    || is_ism && name == "last_updated_time"
                    || is_ism && name == "copy_alias" && *value == Value::Bool(false)
            };
            let mut members: Vec<(&String, &Value)> =
                object.iter().filter(|(name, value)| !is_noise(name, value)).collect();
            members.sort_by_key(|(name, _)| *name);
            out.push('{');
            for (name, value) in members {
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                write_sorted(value, is_ism, out);
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(array) => {
            out.push('[');
            for value in array {
                write_sorted(value, is_ism, out);
                out.push(',');
            }
            out.push(']');
        }
        Value::String(text) => out.push_str(&Value::from(text.as_str()).to_string()),
        scalar => out.push_str(&Value::from(scalar.to_string()).to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ILM: Kind = Kind::Ilm { has_meta: true };

    fn template(limit: u32) -> Value {
        json!({
            "index_patterns": ["logs-a-b"],
            "priority": 501,
            "data_stream": {},
            "template": {
                "settings": {"index.mapping.total_fields.limit": limit},
                "mappings": {"date_detection": false, "properties": {"@timestamp": {"type": "date_nanos"}}},
            },
        })
    }

    /// As Elasticsearch 9 and OpenSearch 3 show it.
    fn shown(kind: &str, marked: &Value) -> Value {
        let settings = json!({"index": {"mapping": {"total_fields": {"limit": "2000"}}}});
        let template = json!({"settings": settings, "mappings": marked["template"]["mappings"]});
        let mut found = json!({
            "index_patterns": marked["index_patterns"], "template": template, "composed_of": [], "priority": 501,
            "_meta": marked["_meta"], "data_stream": {"timestamp_field": {"name": "@timestamp"}},
        });
        if kind == "es" {
            found["data_stream"] = json!({"hidden": false, "allow_custom_routing": false});
            found["created_date_millis"] = json!(1_795_283_812_891_u64);
        }
        json!({"index_templates": [{"name": "t", "index_template": found}]})
    }

    #[test]
    fn a_template_is_known_again_as_servers_show_it() {
        let marked = Kind::Template.marked(&template(2000));
        for kind in ["es", "os"] {
            let answer = shown(kind, &marked);
            let stored = Kind::Template.read(&answer, "t").expect("there");
            assert_eq!(stored.judge(Kind::Template, &template(2000)), Finding::UpToDate, "{stored:?}");
            assert_eq!(stored.judge(Kind::Template, &template(3000)), Finding::Outdated(VERSION.into()));
            assert_eq!(Kind::Template.read(&answer, "u"), None);
        }
    }

    #[test]
    fn whatever_somebody_changes_is_seen() {
        let answer = shown("es", &Kind::Template.marked(&template(2000)));
        for (pointer, value) in [
            ("/priority", json!(10)),
            ("/index_patterns/0", json!("logs-*")),
            ("/composed_of", json!(["mine"])),
            ("/template/settings/index/number_of_replicas", json!("2")),
            ("/template/mappings/properties/message", json!({"type": "text"})),
            ("/template/aliases", json!({"mine": {}})),
            ("/data_stream/hidden", json!(true)),
        ] {
            let mut changed = answer.clone();
            let (parent, name) = pointer.rsplit_once('/').expect("a path");
            let parent = format!("/index_templates/0/index_template{parent}");
            let parent = changed.pointer_mut(&parent).expect("there");
            match parent.as_array_mut() {
                Some(array) => array[0] = value,
                None => parent[name] = value,
            }
            let stored = Kind::Template.read(&changed, "t").expect("there");
            assert_eq!(stored.judge(Kind::Template, &template(2000)), Finding::Changed, "{pointer}");
            assert_eq!(stored.judge(Kind::Template, &template(3000)), Finding::Changed, "{pointer}");
        }
        let foreign = shown("es", &template(2000));
        let stored = Kind::Template.read(&foreign, "t").expect("there");
        assert_eq!(stored.judge(Kind::Template, &template(3000)), Finding::Foreign);
    }

    /// As Elasticsearch 8 shows it.
    #[test]
    fn an_ilm_policy_is_known_again() {
        let contents =
            json!({"phases": {"hot": {"min_age": "0ms", "actions": {"rollover": {"max_age": "30d"}}}}});
        let marked = ILM.marked(&contents);
        let policy = marked["policy"].clone();
        let answer = json!({"p": {"version": 3, "modified_date": "2026-01-01T00:00:00.000Z", "policy": policy,
            "in_use_by": {"indices": [], "data_streams": [], "composable_templates": ["p"]}}});
        assert_eq!(ILM.read(&answer, "p").expect("there").judge(ILM, &contents), Finding::UpToDate);
        let mut changed = answer;
        changed["p"]["policy"]["phases"]["hot"]["actions"]["rollover"]["max_age"] = "1d".into();
        assert_eq!(ILM.read(&changed, "p").expect("there").judge(ILM, &contents), Finding::Changed);
    }

    #[test]
    fn an_old_ilm_policy_without_a_mark_is_ours_only_to_the_letter() {
        let kind = Kind::Ilm { has_meta: false };
        let contents = json!({"phases": {"hot": {"min_age": "0ms"}}});
        assert_eq!(kind.marked(&contents), json!({"policy": contents}));
        let answer = json!({"p": {"version": 1, "policy": contents}});
        let stored = kind.read(&answer, "p").expect("there");
        assert_eq!(stored.judge(kind, &contents), Finding::UpToDate);
        assert_eq!(stored.judge(kind, &json!({"phases": {}})), Finding::Foreign);
    }

    /// As OpenSearch 2 shows it.
    #[test]
    fn an_ism_policy_is_known_again() {
        let contents = json!({
            "default_state": "hot",
            "states": [{"name": "hot", "actions": [{"retry": {"count": 3, "backoff": "exponential", "delay": "1m"},
                "rollover": {"min_index_age": "30d"}}], "transitions": []}],
            "ism_template": [{"index_patterns": ["logs-a-b"], "priority": 501}],
        });
        let mut policy = Kind::Ism.marked(&contents)["policy"].clone();
        policy["policy_id"] = "p".into();
        policy["last_updated_time"] = 1.into();
        policy["schema_version"] = 21.into();
        policy["error_notification"] = Value::Null;
        policy["states"][0]["actions"][0]["rollover"]["copy_alias"] = false.into();
        policy["ism_template"][0]["last_updated_time"] = 1.into();
        let answer = json!({"_id": "p", "_version": 1, "_seq_no": 4, "_primary_term": 2, "policy": policy});
        let stored = Kind::Ism.read(&answer, "p").expect("there");
        assert_eq!((stored.judge(Kind::Ism, &contents), stored.sequence), (Finding::UpToDate, Some((4, 2))));
        let mut changed = answer;
        changed["policy"]["states"][0]["actions"] = json!([]);
        assert_eq!(
            Kind::Ism.read(&changed, "p").expect("there").judge(Kind::Ism, &contents),
            Finding::Changed
        );
    }
}
