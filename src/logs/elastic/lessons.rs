//! What indices refused lately, so that the next document with such a value is right at once.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use memchr::memmem;
use serde_json::value::RawValue;

use super::repair::Mapped;
use crate::logs::process::json::tokens::{Malformed, Token, Tokens};

/// Fields of all indices that are remembered, at most.
const MOST: usize = 1000;
/// Longer names are not.
const LONGEST: usize = 256;
/// Then it is asked anew: somebody may have mended the mapping, or a new index has another one.
const REMEMBERED: Duration = Duration::from_secs(600);

/// What is remembered of all indices. Those who look take a copy of what is known at a moment; it changes rarely.
#[derive(Debug, Default)]
pub struct Lessons(Mutex<Arc<Known>>);

/// By index, as requests name it.
#[derive(Debug, Default, Clone)]
pub struct Known(HashMap<String, Vec<Lesson>>);

#[derive(Debug, Clone)]
struct Lesson {
    field: String,
    /// How the last of its names ends in a document.
    needle: Vec<u8>,
    mapped: Mapped,
    until: Instant,
}

impl Lessons {
    /// What is known now.
    pub fn known(&self) -> Arc<Known> {
        Arc::clone(&self.lock())
    }

    /// An index refused a value for a field that is something else there.
    pub fn learn(&self, index: &str, field: &str, mapped: Mapped, now: Instant) {
        if mapped == Mapped::Other || field.len() > LONGEST {
            return;
        }
        let mut shared = self.lock();
        let known = Arc::make_mut(&mut shared);
        known.0.retain(|_, lessons| {
            lessons.retain(|lesson| lesson.until > now);
            !lessons.is_empty()
        });
        let is_full = known.0.values().map(Vec::len).sum::<usize>() >= MOST;
        let lessons = match known.0.get_mut(index) {
            Some(lessons) => lessons,
            None if is_full => return,
            None => known.0.entry(index.to_owned()).or_default(),
        };
        let until = now + REMEMBERED;
        match lessons.iter_mut().find(|lesson| lesson.field == field) {
            Some(lesson) => (lesson.mapped, lesson.until) = (mapped, until),
            None if is_full => {}
            None => {
                let last = field.rsplit('.').next().unwrap_or(field);
                let needle = [last.as_bytes(), b"\""].concat();
                lessons.push(Lesson { field: field.to_owned(), needle, mapped, until });
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The fields of a document, an object, that its index will surely refuse.
    pub fn refused(&self, index: &str, document: &[u8], now: Instant) -> Vec<String> {
        let Some(lessons) = self.0.get(index) else { return Vec::new() };
        let is_refused = |lesson: &&Lesson| {
            // Most documents don't have the field at all.
            now < lesson.until
                && memmem::find(document, &lesson.needle).is_some()
                && has_refused(document, &lesson.field, lesson.mapped).unwrap_or(false)
        };
        lessons.iter().filter(is_refused).map(|lesson| lesson.field.clone()).collect()
    }
}

/// Whether the document has a value at this field that is surely refused.
fn has_refused(document: &[u8], field: &str, mapped: Mapped) -> Result<bool, Malformed> {
    let mut tokens = Tokens::new(document);
    tokens.advance()?;
    // What is left of the field's names below each open object.
    let mut open = vec![field];
    while let Some(rest) = open.last().copied() {
        let Some(Token::Key(key)) = tokens.advance()? else {
            open.pop();
            continue;
        };
        let name = key.read().ok_or(Malformed)?;
        let below = rest.strip_prefix(name.as_str());
        match below {
            Some("") => return Ok(surely_refuses(mapped, tokens.skip_value()?)),
            Some(below) if below.starts_with('.') => {
                let value = document.get(tokens.at()..).unwrap_or_default().trim_ascii_start();
                if value.first() == Some(&b'{') {
                    tokens.advance()?;
                    open.push(&below[1..]);
                } else {
                    tokens.skip_value()?;
                }
            }
            _ => {
                tokens.skip_value()?;
            }
        }
    }
    Ok(false)
}

/// Whether a field of this type takes no such value, whatever else its mapping says. In doubt the server is asked.
fn surely_refuses(mapped: Mapped, value: &[u8]) -> bool {
    match value.first() {
        Some(b'[') => serde_json::from_slice::<Vec<&RawValue>>(value)
            .is_ok_and(|items| items.iter().any(|item| surely_refuses(mapped, item.get().as_bytes()))),
        Some(b'{') => !matches!(mapped, Mapped::Object | Mapped::Other),
        Some(b'n') | None => false,
        Some(b't' | b'f') => matches!(mapped, Mapped::Number | Mapped::Ip | Mapped::Object),
        Some(b'"') => {
            let text: String = serde_json::from_slice(value).unwrap_or_default();
            refuses_text(mapped, &text)
        }
        Some(_) => matches!(mapped, Mapped::Boolean | Mapped::Object),
    }
}

fn refuses_text(mapped: Mapped, text: &str) -> bool {
    let is_word = text.starts_with(|c: char| c.is_alphabetic());
    match mapped {
        // Java's readers know these two words, and letters only behind digits.
        Mapped::Number => is_word && !matches!(text, "NaN" | "Infinity"),
        Mapped::Boolean => !matches!(text, "" | "true" | "false"),
        Mapped::Ip => is_word && text.parse::<IpAddr>().is_err(),
        Mapped::Object => true,
        Mapped::Text | Mapped::Other => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(known: &Known, document: &str) -> Vec<String> {
        known.refused("i", document.as_bytes(), Instant::now())
    }

    #[test]
    fn the_next_such_value_is_known_and_the_others_go_as_they_are() {
        let (lessons, now) = (Lessons::default(), Instant::now());
        lessons.learn("i", "json.port", Mapped::Number, now);
        let known = lessons.known();
        for document in [
            r#"{"json":{"port":"http"}}"#,
            r#"{"json":{"a":{"port":1},"port":{"a":1}}}"#,
            r#"{"json.port":true}"#,
            r#"{"json":{"port":[1,"x"]}}"#,
        ] {
            assert_eq!(refused(&known, document), ["json.port"], "{document}");
        }
        for document in [
            r#"{"json":{"port":80}}"#,
            r#"{"json":{"port":"80"}}"#,
            r#"{"json":{"port":null}}"#,
            r#"{"json":{"port":[]}}"#,
            r#"{"json":{"other":"http"},"port":"http"}"#,
            r#"{"json":"port"}"#,
        ] {
            assert!(refused(&known, document).is_empty(), "{document}");
        }
        assert!(known.refused("another", br#"{"json":{"port":"http"}}"#, now).is_empty());
    }

    #[test]
    fn each_type_refuses_what_it_surely_refuses() {
        for (mapped, yes, no) in [
            (Mapped::Boolean, &[r#""x""#, "1", "{}"][..], &[r#""true""#, "true", r#""""#][..]),
            (Mapped::Ip, &[r#""nope""#, "true", "{}"], &[r#""10.0.0.1""#, r#""fe80::1""#, "1"]),
            (Mapped::Object, &[r#""x""#, "1", "true", "[{},1]"], &["{}", "null", "[{}]"]),
            (Mapped::Text, &["{}", r#"["a",{}]"#], &["1", r#""x""#, "true"]),
            (Mapped::Other, &[], &["{}", "1", r#""x""#, "true", "[1]"]),
        ] {
            assert!(yes.iter().all(|value| surely_refuses(mapped, value.as_bytes())), "{mapped:?}");
            assert!(!no.iter().any(|value| surely_refuses(mapped, value.as_bytes())), "{mapped:?}");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded_and_forgotten() {
        let (lessons, now) = (Lessons::default(), Instant::now());
        for field in 0..MOST + 10 {
            lessons.learn("i", &format!("f{field}"), Mapped::Number, now);
        }
        lessons.learn("i", &"x".repeat(LONGEST + 1), Mapped::Number, now);
        lessons.learn("other", "f", Mapped::Number, now);
        assert_eq!(lessons.known().0.values().map(Vec::len).sum::<usize>(), MOST);
        let later = now + REMEMBERED;
        assert!(lessons.known().refused("i", br#"{"f1":"x"}"#, later).is_empty());
        lessons.learn("other", "f", Mapped::Number, later);
        assert_eq!(lessons.known().0.len(), 1);
    }
}
