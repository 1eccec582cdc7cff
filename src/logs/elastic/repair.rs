//! A document with a field that its index can't take: that one field becomes text in `nodewarden.conflict`, the rest stays.
//!
//! ```text
//! {"json":{"port":"http","code":7}}  ->  {"json":{"code":7},"nodewarden":{"conflict":"{\"json.port\":\"http\"}"}}
//! ```
//! All of them are in one text, a JSON object of names and values as they were written, as `nodewarden.overflow` is: one more
//! field of the index, of one type, whatever comes. A field each would be new conflicts (`a` and `a.b`), and new fields in
//! an index that has too many.

use crate::logs::{
    process::json::tokens::{Malformed, Token, Tokens},
    shape::write_string,
};

/// Where the text is.
const HOLDER: &str = "nodewarden";

/// What is to blame for a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blame {
    /// One field, whose index has it as something else.
    Field {
        /// Its names, joined by dots.
        name: String,
        /// What it is there.
        mapped: Mapped,
    },
    /// The index has as many fields as it may.
    TooManyFields,
}

/// What a field is in an index, as far as it says which values are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mapped {
    /// A number of any kind.
    Number,
    /// `boolean`
    Boolean,
    /// `ip`
    Ip,
    /// Text of any kind, which takes any value but an object.
    Text,
    /// An object with fields of its own.
    Object,
    /// Anything else.
    Other,
}

impl Mapped {
    fn of(kind: &str) -> Self {
        match kind {
            "long" | "integer" | "short" | "byte" | "unsigned_long" | "double" | "float" | "half_float"
            | "scaled_float" => Self::Number,
            "boolean" => Self::Boolean,
            "ip" => Self::Ip,
            "text" | "keyword" | "match_only_text" | "wildcard" => Self::Text,
            "object" | "nested" | "flattened" | "flat_object" => Self::Object,
            _ => Self::Other,
        }
    }
}

impl Blame {
    /// Out of an error's type and reason; `None` when no field is to blame, or it is not said which.
    pub fn of(kind: &str, reason: &str) -> Option<Self> {
        if !matches!(
            kind,
            "document_parsing_exception" | "mapper_parsing_exception" | "illegal_argument_exception"
        ) {
            return None;
        }
        let reason = without_place(reason);
        let field = |name: &str, mapped| Some(Self::Field { name: name.to_owned(), mapped });
        let between = |start: &str, end: &str| reason.strip_prefix(start)?.split_once(end);
        if let Some((name, rest)) = between("failed to parse field [", "] of type [") {
            return field(name, Mapped::of(rest.split(']').next().unwrap_or_default()));
        }
        for (start, end) in [
            ("object mapping for [", "] tried to parse field ["),
            ("object mapping [", "] trying to serialize "),
        ] {
            if let Some((name, _)) = between(start, end) {
                return field(name, Mapped::Object);
            }
        }
        // Either of the two may be the one that was there.
        if let Some((name, _)) = between("can't merge a non object mapping [", "] with an object mapping") {
            return field(name, Mapped::Other);
        }
        for (start, end, behind) in [
            ("mapper [", "] cannot be changed from type [", "]"),
            ("mapper [", "] of different type, current_type [", "]"),
        ] {
            if let Some((name, rest)) = between(start, end) {
                return field(name, Mapped::of(rest.split(behind).next().unwrap_or_default()));
            }
        }
        if let Some((_, rest)) =
            between("Could not dynamically add mapping for field [", "Existing mapping for [")
        {
            let (name, rest) = rest.split_once("] must be of type object but found [")?;
            return field(name, Mapped::of(rest.split(']').next().unwrap_or_default()));
        }
        if let Some((name, _)) = between("Document contains at least one immense term in field=\"", "\"") {
            return field(name, Mapped::Other);
        }
        let limit = reason.strip_prefix("failed to parse: ").unwrap_or(reason);
        limit.starts_with("Limit of total fields [").then_some(Self::TooManyFields)
    }

    /// The fields of a document, an object, that are to become text; none when it can't be mended.
    pub fn fields(&self, document: &[u8]) -> Vec<String> {
        match self {
            Self::Field { name, .. } if is_movable(name) => vec![name.clone()],
            Self::Field { .. } => Vec::new(),
            Self::TooManyFields => free_fields(document).unwrap_or_default(),
        }
    }
}

/// `[1:19] failed ...`: where in the document; Elasticsearch says so from version 8 on.
fn without_place(reason: &str) -> &str {
    let rest = reason.strip_prefix('[').and_then(|rest| rest.split_once("] "));
    match rest {
        Some((place, rest)) if place.bytes().all(|byte| byte.is_ascii_digit() || byte == b':') => rest,
        _ => reason,
    }
}

/// A document needs its time, and the place for the others has nowhere to go.
fn is_movable(name: &str) -> bool {
    name != "@timestamp" && name != HOLDER && !name.starts_with("nodewarden.")
}

/// Members of documents that are no program's words.
const OURS: [&str; 22] = [
    "@timestamp",
    "MESSAGE",
    "container",
    "data_stream",
    "docker",
    "event",
    "host",
    "journald",
    "kubernetes",
    "level",
    "log",
    "message",
    "nodewarden",
    "process",
    "service",
    "ssh",
    "stream",
    "syslog",
    "systemd",
    "tag",
    "time",
    "user",
];

/// What programs or labels brought into a document: the names that may have been too many.
fn free_fields(document: &[u8]) -> Result<Vec<String>, Malformed> {
    let (mut free, mut has_pod) = (Vec::new(), false);
    let mut tokens = Tokens::new(document);
    tokens.advance()?;
    while let Some(Token::Key(key)) = tokens.advance()? {
        let name = key.read().ok_or(Malformed)?;
        has_pod |= name == "kubernetes";
        tokens.skip_value()?;
        if !OURS.contains(&name.as_str()) {
            free.push(name);
        }
    }
    if free.is_empty() && has_pod {
        free = ["kubernetes.labels", "kubernetes.annotations"].map(str::to_owned).into();
    }
    Ok(free)
}

/// The document, an object, with these fields as text; `None` when it has none of them. What lies in an array, or is a form of
/// a field that only the index knows (`port.keyword`), goes with the nearest value above it.
pub fn repaired(document: &[u8], fields: &[String]) -> Option<Vec<u8>> {
    let mut tokens = Tokens::new(document);
    let mut rewrite = Rewrite {
        document,
        fields,
        out: Vec::with_capacity(document.len() + 64),
        moved: b"{".to_vec(),
        holder: b"",
    };
    if tokens.advance().ok()? != Some(Token::BeginObject) {
        return None;
    }
    rewrite.object("", &mut tokens).ok()?;
    tokens.advance().ok()?.is_none().then_some(())?;
    rewrite.end()
}

struct Rewrite<'a> {
    document: &'a [u8],
    fields: &'a [String],
    out: Vec<u8>,
    /// The object of what was moved, still open.
    moved: Vec<u8>,
    /// The members that the document has below [`HOLDER`] already.
    holder: &'a [u8],
}

enum Fate {
    Stays,
    Moves,
    /// Something in it does.
    Opens,
}

impl<'a> Rewrite<'a> {
    /// Writes the members of the object that was just opened. Objects are at most as deep as [`Tokens`] goes.
    fn object(&mut self, prefix: &str, tokens: &mut Tokens<'a>) -> Result<(), Malformed> {
        self.out.push(b'{');
        while let Some(Token::Key(key)) = tokens.advance()? {
            let name = key.read().ok_or(Malformed)?;
            let path = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
            let is_object = is_object(&self.document[tokens.at()..]);
            if path == HOLDER && is_object {
                let value = tokens.skip_value()?;
                self.holder = value.get(1..value.len() - 1).unwrap_or_default().trim_ascii();
                continue;
            }
            match self.fate(&path, is_object) {
                Fate::Moves => {
                    separate(&mut self.moved);
                    write_string(path.as_bytes(), &mut self.moved);
                    self.moved.push(b':');
                    self.moved.extend_from_slice(tokens.skip_value()?);
                }
                fate => {
                    separate(&mut self.out);
                    self.out.push(b'"');
                    self.out.extend_from_slice(key.raw);
                    self.out.extend_from_slice(b"\":");
                    if matches!(fate, Fate::Opens) {
                        tokens.advance()?;
                        self.object(&path, tokens)?;
                    } else {
                        self.out.extend_from_slice(tokens.skip_value()?);
                    }
                }
            }
        }
        self.out.push(b'}');
        Ok(())
    }

    fn fate(&self, path: &str, is_object: bool) -> Fate {
        let is_within = |field: &&String| {
            field.strip_prefix(path).is_some_and(|rest| rest.starts_with('.') || rest.is_empty())
        };
        match self.fields.iter().find(is_within) {
            None => Fate::Stays,
            Some(field) if field.len() > path.len() && is_object => Fate::Opens,
            Some(_) => Fate::Moves,
        }
    }

    fn end(mut self) -> Option<Vec<u8>> {
        if self.moved.len() == 1 {
            return None;
        }
        self.moved.push(b'}');
        self.out.pop();
        separate(&mut self.out);
        self.out.extend_from_slice(b"\"nodewarden\":{");
        self.out.extend_from_slice(self.holder);
        separate(&mut self.out);
        self.out.extend_from_slice(b"\"conflict\":");
        write_string(&self.moved, &mut self.out);
        self.out.extend_from_slice(b"}}");
        Some(self.out)
    }
}

/// A comma, unless an object was just opened.
fn separate(out: &mut Vec<u8>) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
}

fn is_object(rest: &[u8]) -> bool {
    rest.trim_ascii_start().first() == Some(&b'{')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn field(name: &str, mapped: Mapped) -> Option<Blame> {
        Some(Blame::Field { name: name.into(), mapped })
    }

    /// Each as a server gave it, or as its source has it where the version is named.
    #[test]
    fn real_answers_name_the_field() {
        let es = "document_parsing_exception";
        let old = "mapper_parsing_exception";
        let argument = "illegal_argument_exception";
        for (kind, reason, expected) in [
            // Elasticsearch 9.5
            (
                es,
                "[1:19] failed to parse field [json.port] of type [long] in document with id '0'. Preview of field's value: 'http'",
                field("json.port", Mapped::Number),
            ),
            (
                es,
                "[1:26] failed to parse field [json.when] of type [date] in document with id '4'. Preview of field's value: '{a=1}'",
                field("json.when", Mapped::Other),
            ),
            (
                es,
                "[1:17] failed to parse field [json.ok] of type [boolean] in document with id '5'. Preview of field's value: 'maybe'",
                field("json.ok", Mapped::Boolean),
            ),
            (
                es,
                "[1:17] failed to parse field [json.ip] of type [ip] in document with id '6'. Preview of field's value: 'nope'",
                field("json.ip", Mapped::Ip),
            ),
            (
                es,
                "[1:18] object mapping for [json.obj] tried to parse field [obj] as object, but found a concrete value",
                field("json.obj", Mapped::Object),
            ),
            (
                es,
                "[1:19] object mapping for [json.obj] tried to parse field [null] as object, but found a concrete value",
                field("json.obj", Mapped::Object),
            ),
            (
                es,
                "[1:25] failed to parse field [json.txt] of type [text] in document with id '9'. Preview of field's value: '{a=1}'",
                field("json.txt", Mapped::Text),
            ),
            (
                es,
                "[1:18] failed to parse field [json.loc] of type [geo_point]",
                field("json.loc", Mapped::Other),
            ),
            (
                es,
                "[1:19] failed to parse field [json.flat] of type [flattened] in document with id '18'. Preview of field's value: 'x'",
                field("json.flat", Mapped::Object),
            ),
            (
                es,
                "[1:80] failed to parse: Limit of total fields [30] has been exceeded while adding new fields [8]",
                Some(Blame::TooManyFields),
            ),
            (es, "[1:11] failed to parse: field name cannot be an empty string", None),
            // OpenSearch 3.9
            (
                old,
                "failed to parse field [json.port] of type [long] in document with id '0'. Preview of field's value: 'http'",
                field("json.port", Mapped::Number),
            ),
            (
                old,
                "failed to parse field [json.flat] of type [flat_object] in document with id '18'. Preview of field's value: 'x'",
                field("json.flat", Mapped::Object),
            ),
            (
                old,
                "object mapping for [json.nest] tried to parse field [nest] as object, but found a concrete value",
                field("json.nest", Mapped::Object),
            ),
            (
                old,
                "Could not dynamically add mapping for field [port.x]. Existing mapping for [json.port] must be of type object but found [long].",
                field("json.port", Mapped::Number),
            ),
            (
                argument,
                "Document contains at least one immense term in field=\"json.kw\" (whose UTF8 encoding is longer than the max length 32766), all of which were skipped.",
                field("json.kw", Mapped::Other),
            ),
            (argument, "Limit of total fields [30] has been exceeded", Some(Blame::TooManyFields)),
            // Elasticsearch 7 and 8
            (
                argument,
                "Limit of total fields [1000] has been exceeded while adding new fields [1]",
                Some(Blame::TooManyFields),
            ),
            (
                argument,
                "mapper [json.port] cannot be changed from type [long] to [text]",
                field("json.port", Mapped::Number),
            ),
            (
                argument,
                "mapper [json.port] of different type, current_type [text], merged_type [ObjectMapper]",
                field("json.port", Mapped::Text),
            ),
            (
                argument,
                "can't merge a non object mapping [json.port] with an object mapping",
                field("json.port", Mapped::Other),
            ),
            (argument, "only write ops with an op_type of create are allowed in data streams", None),
            (
                "strict_dynamic_mapping_exception",
                "mapping set to strict, dynamic introduction of [port] within [json] is not allowed",
                None,
            ),
            // What a program wrote is no answer of the server.
            (
                es,
                "[1:9] failed to parse field [a] of type [long] in document with id '1'. Preview of field's value: 'Limit of total fields [1]'",
                field("a", Mapped::Number),
            ),
        ] {
            assert_eq!(Blame::of(kind, reason), expected, "{reason}");
        }
    }

    fn mended(document: &str, fields: &[&str]) -> Option<(Value, Value)> {
        let fields: Vec<String> = fields.iter().map(|&field| field.to_owned()).collect();
        let text = repaired(document.as_bytes(), &fields)?;
        let mut document: Value = serde_json::from_slice(&text).expect("JSON");
        let conflict = document["nodewarden"]["conflict"].take();
        let conflict = serde_json::from_str(conflict.as_str().expect("a text")).expect("JSON in it");
        document["nodewarden"].as_object_mut().expect("an object").remove("conflict");
        Some((document, conflict))
    }

    #[test]
    fn the_one_field_becomes_text_and_the_rest_stays() {
        for (document, name, rest, conflict) in [
            (
                r#"{"a":1,"json":{"port":"http","code":7},"z":[1]}"#,
                "json.port",
                json!({"a":1,"json":{"code":7},"z":[1],"nodewarden":{}}),
                json!({"json.port":"http"}),
            ),
            (
                r#"{"json":{"port":{"a":1}}}"#,
                "json.port",
                json!({"json":{},"nodewarden":{}}),
                json!({"json.port":{"a":1}}),
            ),
            (
                r#"{"json.port":"x" , "b":2}"#,
                "json.port",
                json!({"b":2,"nodewarden":{}}),
                json!({"json.port":"x"}),
            ),
            (
                r#"{"json":{"a.b":"x"}}"#,
                "json.a.b",
                json!({"json":{},"nodewarden":{}}),
                json!({"json.a.b":"x"}),
            ),
            (
                r#"{"json":[{"x":1},{"x":"b"}]}"#,
                "json.x",
                json!({"nodewarden":{}}),
                json!({"json":[{"x":1},{"x":"b"}]}),
            ),
            (
                r#"{"json":{"kw":"long"}}"#,
                "json.kw.keyword",
                json!({"json":{},"nodewarden":{}}),
                json!({"json.kw":"long"}),
            ),
            (
                r#"{"b":99999999999999999999,"nodewarden":{"overflow":"{}"},"port":"x"}"#,
                "port",
                json!({"b":99999999999999999999_f64,"nodewarden":{"overflow":"{}"}}),
                json!({"port":"x"}),
            ),
            (
                r#"{"q\u0022\n":"x","port":"a"}"#,
                "port",
                json!({"q\"\n":"x","nodewarden":{}}),
                json!({"port":"a"}),
            ),
        ] {
            assert_eq!(mended(document, &[name]), Some((rest, conflict)), "{document}");
        }
        let both = mended(r#"{"a":1,"b":2,"c":3}"#, &["a", "b"]);
        assert_eq!(both, Some((json!({"c":3,"nodewarden":{}}), json!({"a":1,"b":2}))));
    }

    #[test]
    fn what_is_not_there_is_not_mended() {
        for document in ["{}", r#"{"portal":1}"#, r#"{"port"}"#, r#"{"port":1}}"#, "[]", ""] {
            assert_eq!(repaired(document.as_bytes(), &["port".into()]), None, "{document}");
        }
        assert!(Blame::Field { name: "@timestamp".into(), mapped: Mapped::Other }.fields(b"{}").is_empty());
    }

    #[test]
    fn of_too_many_fields_those_of_programs_become_text() {
        let fields = |document: &str| Blame::TooManyFields.fields(document.as_bytes());
        assert_eq!(fields(r#"{"@timestamp":1,"json":{"a":1},"kubernetes":{},"x":1}"#), ["json", "x"]);
        assert_eq!(
            fields(r#"{"message":"a","kubernetes":{}}"#),
            ["kubernetes.labels", "kubernetes.annotations"]
        );
        assert!(fields(r#"{"message":"a"}"#).is_empty() && fields("{").is_empty());
    }

    proptest! {
        #[test]
        fn no_answer_and_no_document_panics(reason in ".*", document in proptest::collection::vec(any::<u8>(), 0..80)) {
            let blame = Blame::of("illegal_argument_exception", &reason).unwrap_or(Blame::TooManyFields);
            let fields = blame.fields(&document);
            let _ = repaired(&document, &fields);
        }

        #[test]
        fn a_mended_document_is_json_and_loses_nothing(members in proptest::collection::btree_map("[a-c.]{1,3}", any::<Option<bool>>(), 1..6)) {
            let document = serde_json::to_vec(&members).expect("JSON");
            if let Some((rest, conflict)) = mended(std::str::from_utf8(&document).expect("text"), &["a"]) {
                let kept = rest.as_object().expect("an object").len() - 1;
                prop_assert_eq!(kept + conflict.as_object().expect("an object").len(), members.len());
            }
        }
    }
}
