//! Made-up answers of devices as JSON files, read as node_exporter reads its own: names of fields in any case, a missing or
//! null field is zero, a value of another type is an error.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde_json::{Map, Value};

use crate::{CollectError, host};

/// The objects of a file that holds a list of them.
pub fn read_list(path: &Path) -> Result<Vec<Object>, CollectError> {
    match read(path)? {
        Value::Null => Ok(Vec::new()),
        Value::Array(values) => {
            values.into_iter().map(|value| Object::new(path, value)).collect::<Result<_, _>>()
        }
        _ => Err(CollectError::parse(path, "expected a list")),
    }
}

/// The object that a file holds.
pub fn read_object(path: &Path) -> Result<Object, CollectError> {
    Object::new(path, read(path)?)
}

fn read(path: &Path) -> Result<Value, CollectError> {
    serde_json::from_slice(&host::read_bytes(path)?)
        .map_err(|error| CollectError::parse(path, error.to_string()))
}

/// A JSON object that knows the file it is from.
#[derive(Debug)]
pub struct Object {
    path: PathBuf,
    fields: Map<String, Value>,
}

impl Object {
    fn new(path: &Path, value: Value) -> Result<Self, CollectError> {
        let fields = match value {
            Value::Object(fields) => fields,
            Value::Null => Map::new(),
            _ => return Err(CollectError::parse(path, "expected an object")),
        };
        Ok(Self { path: path.to_owned(), fields })
    }

    /// A text, empty when there is none.
    pub fn text(&self, name: &str) -> Result<&str, CollectError> {
        match self.get(name) {
            None => Ok(""),
            Some(value) => value.as_str().ok_or_else(|| self.refuse(name, "a text")),
        }
    }

    /// A number that `T` can hold, zero when there is none.
    pub fn integer<T: TryFrom<i128> + Default>(&self, name: &str) -> Result<T, CollectError> {
        let Some(value) = self.get(name) else { return Ok(T::default()) };
        let number = value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from));
        number
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| self.refuse(name, "a number in range"))
    }

    /// Bytes written in base-64 digits, none when there is no such field.
    pub fn bytes(&self, name: &str) -> Result<Vec<u8>, CollectError> {
        let digits = self.text(name)?;
        base64::engine::general_purpose::STANDARD
            .decode(digits)
            .map_err(|_| self.refuse(name, "bytes in base-64"))
    }

    fn get(&self, name: &str) -> Option<&Value> {
        let named =
            self.fields.iter().find(|(key, value)| key.eq_ignore_ascii_case(name) && !value.is_null());
        named.map(|(_, value)| value)
    }

    fn refuse(&self, name: &str, wanted: &str) -> CollectError {
        CollectError::parse(&self.path, format!("expected {wanted} as {name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Result<Vec<Object>, CollectError> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("x.json");
        std::fs::write(&path, text).expect("written");
        read_list(&path)
    }

    #[test]
    fn fields_are_found_in_any_case_and_missing_ones_are_zero() {
        let objects = list(r#"[{"IfaceName": "eth0", "bytes": 18446744073709551615, "drops": null}]"#);
        let objects = objects.expect("understood");
        assert_eq!(objects[0].text("ifacename").expect("a text"), "eth0");
        assert_eq!(objects[0].integer::<u64>("Bytes").expect("a number"), u64::MAX);
        assert_eq!(objects[0].integer::<u32>("Drops").expect("none"), 0);
        assert_eq!(objects[0].text("Kind").expect("none"), "");
    }

    #[test]
    fn values_of_another_type_and_broken_files_are_refused() {
        let objects = list(r#"[{"a": 4294967296, "b": "x", "c": -1, "d": 1.5}]"#).expect("understood");
        for name in ["a", "b", "c", "d"] {
            assert!(objects[0].integer::<u32>(name).is_err(), "{name}");
        }
        assert!(objects[0].text("a").is_err());
        for text in ["", "{}", "[1]", "[{]", "\u{0}"] {
            assert!(list(text).is_err(), "{text:?}");
        }
    }
}
