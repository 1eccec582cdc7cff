//! A YAML file as a tree whose every node knows its place.

use std::{collections::BTreeMap, sync::Arc};

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput};

use super::mistakes::{Mistakes, Origin};

/// Deeper than any key of ours; also keeps a hostile file from overflowing the stack.
const DEEPEST: usize = 32;
const LARGEST: usize = 1 << 20;

/// A value and where it begins.
#[derive(Debug)]
pub struct Node {
    pub origin: Origin,
    pub value: Value,
}

/// What a node holds. Scalars stay as written: what `5M` or `15%` mean is known only to their key.
#[derive(Debug)]
pub enum Value {
    Null,
    /// Its mistake is noted already.
    Bad,
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key of a map with its value; the origin is the key's.
#[derive(Debug)]
pub struct Entry {
    pub key: String,
    pub origin: Origin,
    pub value: Node,
}

impl Value {
    /// What it is, for "expected X, not Y".
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null | Self::Bad => "nothing",
            Self::Scalar(_) => "a single value",
            Self::List(_) => "a list",
            Self::Map(_) => "a section",
        }
    }
}

/// The document of `bytes`, as far as it could be understood, with `${VAR}` replaced when there is an environment.
pub fn parse(
    bytes: &[u8],
    file: &Arc<str>,
    env: Option<&BTreeMap<String, String>>,
    mistakes: &mut Mistakes,
) -> Option<Node> {
    let whole = Origin::WholeFile(Arc::clone(file));
    if bytes.len() > LARGEST {
        mistakes.add(&whole, "the file is larger than 1Mi; this can't be a configuration");
        return None;
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let line = 1 + memchr::memchr_iter(b'\n', &bytes[..error.valid_up_to()]).count();
            let origin = Origin::File { file: Arc::clone(file), line, column: 1 };
            mistakes.add(&origin, "this line is not UTF-8; save the file as UTF-8");
            return None;
        }
    };
    Builder { file, env, mistakes, open: Vec::new(), root: None }.run(text)
}

/// A collection whose end was not seen yet.
enum Open {
    List(Origin, Vec<Node>),
    Map { origin: Origin, entries: Vec<Entry>, key: Option<(String, Origin)> },
}

struct Builder<'a> {
    file: &'a Arc<str>,
    env: Option<&'a BTreeMap<String, String>>,
    mistakes: &'a mut Mistakes,
    open: Vec<Open>,
    root: Option<Node>,
}

impl Builder<'_> {
    fn run(mut self, text: &str) -> Option<Node> {
        let mut documents = 0;
        for event in Parser::<StrInput>::new_from_str(text.trim_start_matches('\u{feff}')) {
            let (event, span) = match event {
                Ok(found) => found,
                Err(error) => {
                    self.syntax(&error, text);
                    return None;
                }
            };
            let origin = self.place(&span);
            if matches!(event, Event::DocumentStart(_)) {
                documents += 1;
                if documents == 2 {
                    self.mistakes.add(&origin, "a second document begins here; keep only one, without '---'");
                    return self.root;
                }
            }
            if self.open.len() > DEEPEST {
                self.mistakes.add(&origin, "nested deeper than any setting; check the indentation");
                return None;
            }
            self.event(event, origin);
        }
        self.root
    }

    fn event(&mut self, event: Event<'_>, origin: Origin) {
        match event {
            Event::Scalar(text, style, _, tag) => {
                if tag.is_some() {
                    self.mistakes.add(&origin, "tags such as !x are not understood; write the plain value");
                }
                let value = self.scalar(&text, style, &origin);
                self.close(Node { origin, value });
            }
            Event::SequenceStart(..) => self.open.push(Open::List(origin, Vec::new())),
            Event::MappingStart(..) => {
                self.open.push(Open::Map { origin, entries: Vec::new(), key: None });
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List(origin, items)) => self.close(Node { origin, value: Value::List(items) }),
                Some(Open::Map { origin, entries, .. }) => {
                    self.close(Node { origin, value: Value::Map(entries) });
                }
                None => {}
            },
            Event::Alias(_) => {
                self.mistakes.add(&origin, "aliases such as *x are not understood; write the value again");
                self.close(Node { origin, value: Value::Bad });
            }
            _ => {}
        }
    }

    /// A node is complete: it becomes a key, a value, an item or the whole.
    fn close(&mut self, node: Node) {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List(_, items)) => items.push(node),
            Some(Open::Map { entries, key, .. }) => match key.take() {
                Some((name, origin)) => {
                    add_entry(entries, Entry { key: name, origin, value: node }, self.mistakes);
                }
                None => *key = Some(key_of(node, self.mistakes)),
            },
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, origin: &Origin) -> Value {
        if style == ScalarStyle::Plain && is_null(text) {
            return Value::Null;
        }
        // Keys are never replaced; a `${` in one is simply not a key of ours.
        if let Some(Open::Map { key: None, .. }) = self.open.last() {
            return Value::Scalar(text.into());
        }
        let Some(env) = self.env else { return Value::Scalar(text.into()) };
        match expand(text, env) {
            Ok(text) => Value::Scalar(text),
            Err(error) => {
                self.mistakes.add(origin, error);
                Value::Bad
            }
        }
    }

    fn place(&self, span: &Span) -> Origin {
        let (line, column) = (span.start.line(), span.start.col() + 1);
        Origin::File { file: Arc::clone(self.file), line, column }
    }

    fn syntax(&mut self, error: &ScanError, text: &str) {
        let (line, column) = (error.marker().line(), error.marker().col() + 1);
        // The parser points at the end of what comes before the tab.
        let tab = text.lines().enumerate().skip(line.saturating_sub(1)).find_map(|(at, text)| {
            let column = text.find('\t')?;
            text[..column].trim().is_empty().then_some((at + 1, column + 1))
        });
        let (line, column) = tab.filter(|_| error.info().contains("tab")).unwrap_or((line, column));
        let origin = Origin::File { file: Arc::clone(self.file), line, column };
        self.mistakes.add(&origin, format!("not YAML: {}; {}", error.info(), advice(error.info())));
    }
}

fn key_of(node: Node, mistakes: &mut Mistakes) -> (String, Origin) {
    match node.value {
        Value::Scalar(text) => (text, node.origin),
        other => {
            mistakes.add(&node.origin, format!("a key must be a word, not {}", other.kind()));
            (String::new(), node.origin)
        }
    }
}

/// Keeps the first of two equal keys.
fn add_entry(entries: &mut Vec<Entry>, entry: Entry, mistakes: &mut Mistakes) {
    match entries.iter().find(|other| other.key == entry.key) {
        Some(first) if !entry.key.is_empty() => {
            let line = match first.origin {
                Origin::File { line, .. } => line,
                _ => 0,
            };
            mistakes.add(&entry.origin, format!("{} is already set in line {line}; keep one", entry.key));
        }
        _ => entries.push(entry),
    }
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// What usually helps, for the parser's terse words.
fn advice(info: &str) -> &'static str {
    if info.contains("tab") {
        "indent with spaces"
    } else if info.contains("quoted") || info.contains("flow") {
        "close every quote, [ and {"
    } else {
        "check the indentation, and that 'key: value' has a space after its colon"
    }
}

/// Replaces `${VAR}`; `$${` stands for `${` itself.
fn expand(text: &str, env: &BTreeMap<String, String>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at]);
            out.push('{');
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let (name, after) = rest[at + 2..]
            .split_once('}')
            .ok_or("'${' has no '}'; close it, or write $${ for the two characters themselves")?;
        match env.get(name) {
            Some(value) => out.push_str(value),
            None if !is_variable(name) => {
                return Err(format!(
                    "'${{{name}}}' is not a variable; write $${{ for the two characters themselves"
                ));
            }
            None => {
                return Err(format!(
                    "the environment variable {name} is not set; set it, or write the value"
                ));
            }
        }
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Option<Node>, String) {
        let env = BTreeMap::from([("USER".to_string(), "ada".to_string())]);
        let mut mistakes = Mistakes::default();
        let node = parse(text.as_bytes(), &"c".into(), Some(&env), &mut mistakes);
        let all: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        (node, all.join("\n"))
    }

    fn only_value(text: &str) -> String {
        match read(text) {
            (Some(Node { value: Value::Map(mut entries), .. }), mistakes) if mistakes.is_empty() => {
                match entries.remove(0).value.value {
                    Value::Scalar(text) => text,
                    other => panic!("{} is {}", text, other.kind()),
                }
            }
            (_, mistakes) => panic!("{mistakes}"),
        }
    }

    #[test]
    fn variables_are_replaced_in_values() {
        assert_eq!(only_value("a: x-${USER}-y"), "x-ada-y");
        assert_eq!(only_value("a: '$${USER} $5 ^a$'"), "${USER} $5 ^a$");
    }

    #[test]
    fn an_unset_variable_is_named() {
        assert_eq!(
            read("a: 1\nb: ${NOBODY}").1,
            "c:2:4: the environment variable NOBODY is not set; set it, or write the value"
        );
        assert!(read("b: ${USER").1.contains("has no '}'"));
    }

    #[test]
    fn every_duplicate_is_named_with_the_first() {
        assert_eq!(
            read("a: 1\na: 2\nb: 1\nb: 2\n").1,
            "c:2:1: a is already set in line 1; keep one\nc:4:1: b is already set in line 3; keep one"
        );
    }

    #[test]
    fn an_empty_file_is_fine() {
        assert!(matches!(read(""), (None, mistakes) if mistakes.is_empty()));
        assert!(matches!(read("# nothing\n"), (_, mistakes) if mistakes.is_empty()));
    }

    #[test]
    fn broken_yaml_has_its_line() {
        assert!(read("a: [1, 2\nb: 3\n").1.starts_with("c:2:"), "{}", read("a: [1, 2\nb: 3\n").1);
    }

    #[test]
    fn odd_files_are_refused_without_harm() {
        assert!(read(&"- ".repeat(100_000)).1.contains("nested deeper"));
        assert!(read("a: 1\n---\nb: 1\n").1.contains("second document"));
        assert!(read("a: &x 1\nb: *x\n").1.contains("aliases"));
        assert!(read(&" ".repeat(LARGEST + 1)).1.contains("larger"));
        let mut mistakes = Mistakes::default();
        assert!(parse(b"a: 1\nb: \xff", &"c".into(), None, &mut mistakes).is_none());
        assert!(mistakes.to_string().starts_with("c:2:1: this line is not UTF-8"));
    }
}
