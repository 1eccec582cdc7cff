use proptest::prelude::*;
use serde::{
    Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Value, json};

use super::*;

fn read(text: &str, settings: &Settings, names: &mut FieldNames) -> Option<(Value, Merged)> {
    let mut merged = Merged::default();
    merged.read(text.as_bytes(), settings, names).ok()?;
    let object = format!("{{\"x\":0{}}}", String::from_utf8(merged.members.clone()).expect("UTF-8"));
    let mut object: Value = serde_json::from_str(&object).unwrap_or_else(|error| panic!("{error}: {object}"));
    object.as_object_mut().expect("an object").remove("x");
    Some((object, merged))
}

fn members(text: &str) -> Value {
    read(text, &Settings::default(), &mut FieldNames::new(500)).expect("JSON").0
}

#[test]
fn members_go_below_the_target_and_the_message_out_of_it() {
    let text = r#"{"level":"info","msg":"paid \"now\"","order":{"id":7,"items":["a","b"]},"none":null} "#;
    let (value, merged) = read(text, &Settings::default(), &mut FieldNames::new(500)).expect("JSON");
    assert_eq!(merged.message.as_deref(), Some(&b"paid \"now\""[..]));
    let expected = json!({"json": {"level": "info", "order": {"id": 7, "items": ["a", "b"]}, "none": null}});
    assert_eq!(value, expected);
}

#[test]
fn at_the_root_nothing_of_the_document_is_written_twice() {
    let settings = Settings { target: String::new(), ..Settings::default() };
    let text = r#"{"a":1,"log.level":"x","host":"h","_id":"i","b":{"_id":2}}"#;
    let (value, _) = read(text, &settings, &mut FieldNames::new(500)).expect("JSON");
    let overflow = r#"{"log.level":"x","host":"h","_id":"i"}"#;
    assert_eq!(value, json!({"a": 1, "b": {"_id": 2}, "nodewarden": {"overflow": overflow}}));
}

#[test]
fn what_the_server_would_refuse_is_set_aside() {
    let big = "99999999999999999999";
    let text = format!(
        r#"{{"a":1,"a":2,"":3,"b.":4,"big":{big},"float":1e300,"mixed":[1,"x"],"both":[{{"c":1}},2],
            "twice":[{{"c":1,"c":2}}],"fine":[{{"c":1}},{{"c":2,"d":"x"}}]}}"#
    );
    let value = members(&text);
    assert_eq!(value["json"], json!({"a": 1, "fine": [{"c": 1}, {"c": 2, "d": "x"}]}));
    let overflow = value["nodewarden"]["overflow"].as_str().expect("a text");
    for part in [r#""a":2"#, r#""":3"#, r#""b.":4"#, big, "1e300", r#"[1,"x"]"#, r#""twice":[{"c":1,"c":2}]"#]
    {
        assert!(overflow.contains(part), "{part} in {overflow}");
    }
}

#[test]
fn fields_beyond_the_limits_go_into_one_text() {
    let mut names = FieldNames::new(3);
    let settings = Settings::default();
    let (value, merged) =
        read(r#"{"a":1,"b":{"c":2,"d":3,"e":{"f":"x"}}}"#, &settings, &mut names).expect("JSON");
    let overflow = r#"{"b.e.f":"x"}"#;
    let expected = json!({"json": {"a": 1, "b": {"c": 2, "d": 3}}, "nodewarden": {"overflow": overflow}});
    assert_eq!((value, merged.overflowed), (expected, 1));
    // Known ones have their place, whatever comes later.
    let (value, merged) = read(r#"{"z":[{"y":1}],"a":5}"#, &settings, &mut names).expect("JSON");
    assert_eq!((&value["json"], merged.overflowed), (&json!({"a": 5}), 1));
    let settings = Settings { max_depth: 2, max_fields: 2, ..settings };
    let text = r#"{"a":{"b":{"c":1},"d":2},"e":3,"f":4}"#;
    let (value, _) = read(text, &settings, &mut FieldNames::new(9)).expect("JSON");
    assert_eq!(value["json"], json!({"a": {"d": 2}, "e": 3}));
    assert_eq!(value["nodewarden"]["overflow"], r#"{"a.b":{"c":1},"f":4}"#);
}

#[test]
fn what_is_no_object_gives_nothing() {
    for text in ["", "[1]", "{\"a\":1", "{\"a\":1}x", "{a:1}", "{\"a\":1}{}", "null"] {
        let mut merged = Merged::default();
        let read = merged.read(text.as_bytes(), &Settings::default(), &mut FieldNames::new(9));
        assert!(read.is_err() && merged.members.is_empty() && merged.message.is_none(), "{text}");
    }
    assert!(
        Merged::default().read(b"{\"a\":\"\xff\"}", &Settings::default(), &mut FieldNames::new(9)).is_err()
    );
}

#[test]
fn the_time_is_taken_from_a_member_when_it_is_asked_for() {
    let settings = Settings { time_keys: vec!["ts".into(), "time".into()], ..Settings::default() };
    for (value, nanos) in [
        ("\"2016-10-06T00:17:09.669794202Z\"", Some(1_475_713_029_669_794_202)),
        ("1475713029", Some(1_475_713_029_000_000_000)),
        ("1475713029.669794", Some(1_475_713_029_669_794_000)),
        ("1475713029669", Some(1_475_713_029_669_000_000)),
        ("\"1475713029669794202\"", Some(1_475_713_029_669_794_202)),
        ("\"yesterday\"", None),
        ("7", None),
        ("{}", None),
    ] {
        let text = format!("{{\"ts\":{value}}}");
        let (_, merged) = read(&text, &settings, &mut FieldNames::new(9)).expect("JSON");
        assert_eq!(merged.time, nanos, "{value}");
    }
}

#[test]
fn a_container_is_judged_by_several_lines() {
    let mut guess = Guess::default();
    assert!(guess.saw(true));
    assert!(!guess.saw(false) && guess.saw(true));
    (0..MISFITS).for_each(|_| assert!(!guess.saw(false)));
    assert!(!guess.saw(true) && !guess.saw(true) && !guess.saw(true) && guess.saw(true));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i32>().prop_map(|number| json!(f64::from(number) / 8.0)),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::vec(("[a-c.]{0,2}", inner), 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Whatever the line is, the document stays JSON, and no value of it is gone: what is not below the target is in the
    /// overflow.
    #[test]
    fn every_value_is_somewhere(
        members in proptest::collection::vec(("[a-e\"\u{e9}]{0,2}", any_json()), 0..6),
        most in 0_usize..12, depth in 1_u32..4, root: bool,
    ) {
        let object = Value::Object(members.into_iter().collect());
        let target = if root { "" } else { "json" }.to_owned();
        let settings = Settings { target, max_depth: depth, message_keys: Vec::new(), ..Settings::default() };
        let text = object.to_string();
        let (mut value, _) = read(&text, &settings, &mut FieldNames::new(most)).expect("JSON");
        let mut found = Vec::new();
        // No member of the line has so long a name.
        let ours = value.as_object_mut().and_then(|members| members.remove("nodewarden")).unwrap_or_default();
        leaves(if root { &value } else { &value["json"] }, &mut found);
        if let Some(overflow) = ours["overflow"].as_str() {
            overflowed(overflow).iter().for_each(|member| leaves(member, &mut found));
        }
        let mut expected = Vec::new();
        leaves(&object, &mut expected);
        for leaf in expected {
            let at = found.iter().position(|seen| *seen == leaf);
            prop_assert!(at.is_some(), "{leaf} of {text} in {value} and {ours}");
            found.swap_remove(at.expect("it is there"));
        }
    }

    #[test]
    fn no_line_panics(text in "[{}\\[\\],:\"\\\\a1.e -]{0,40}") {
        let mut merged = Merged::default();
        let _ = merged.read(format!("{{{text}").as_bytes(), &Settings::default(), &mut FieldNames::new(3));
    }
}

/// The values of an object, also of names that are there twice: `a` with `b.` in it is written as `a.b` with nothing in it is.
fn overflowed(text: &str) -> Vec<Value> {
    struct Members;

    impl<'de> Visitor<'de> for Members {
        type Value = Vec<Value>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut values = Vec::new();
            while let Some((_, value)) = map.next_entry::<String, Value>()? {
                values.push(value);
            }
            Ok(values)
        }
    }

    serde_json::Deserializer::from_str(text).deserialize_map(Members).expect("JSON in the overflow")
}

fn leaves(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| leaves(item, into)),
        Value::Object(members) => members.values().for_each(|member| leaves(member, into)),
        leaf => into.push(leaf.to_string()),
    }
}
