//! `logs.sources` in the configuration file.

use super::{
    file::texts,
    mistakes::{Mistakes, Origin, did_you_mean},
    options::{IndexTemplate, Multiline, PODS, Source, SourceKind},
    yaml::{Entry, Node, Value},
};

const KINDS: &[&str] = &["kubernetes", "files", "journal", "kernel"];

/// The sources, as far as they could be understood; `None` when nothing is written.
pub fn read(node: Node, mistakes: &mut Mistakes) -> Option<Vec<Source>> {
    let items = match node.value {
        Value::List(items) => items,
        Value::Null | Value::Bad => return None,
        other => {
            let text = format!("expected a list such as [kubernetes: {{}}], not {}", other.kind());
            mistakes.add_value(&node.origin, "logs.sources", &text);
            return None;
        }
    };
    let mut sources = Vec::new();
    for item in items {
        match item.value {
            Value::Map(entries) => {
                sources.extend(entries.into_iter().filter_map(|entry| source(entry, mistakes)));
            }
            Value::Bad => {}
            other => {
                let text = format!(
                    "expected 'kubernetes: {{}}' or 'files: {{include: [...]}}', not {}",
                    other.kind()
                );
                mistakes.add_value(&item.origin, "logs.sources", &text);
            }
        }
    }
    Some(sources)
}

fn source(entry: Entry, mistakes: &mut Mistakes) -> Option<Source> {
    let name = format!("logs.sources.{}", entry.key);
    let mut fields = Fields::new(name, entry.origin, mistakes);
    match entry.key.as_str() {
        "kubernetes" => {
            fields.open(entry.value, &["path", "exclude_namespaces", "index", "multiline"])?;
            Some(kubernetes(&mut fields))
        }
        "files" => {
            fields.open(entry.value, &["include", "exclude", "index", "multiline"])?;
            files(&mut fields)
        }
        "journal" => {
            fields.open(entry.value, &["path", "index"])?;
            Some(journal(&mut fields))
        }
        "kernel" => {
            fields.open(entry.value, &["index"])?;
            Some(Source { index: fields.index(), ..Source::new(SourceKind::Kernel) })
        }
        other => {
            let near = did_you_mean(other, KINDS.iter().copied());
            let near =
                if near.is_empty() { "; write kubernetes, files, journal or kernel".into() } else { near };
            fields.mistakes.add(&fields.origin, format!("{} is not a source{near}", fields.name));
            None
        }
    }
}

fn kubernetes(fields: &mut Fields) -> Source {
    let (index, multiline) = (fields.index(), fields.multiline());
    let path = fields.paths("path").pop().map_or_else(|| PODS.into(), Into::into);
    let namespaces = fields.take("exclude_namespaces").into_iter().map(|(text, _)| text).collect();
    Source { kind: SourceKind::Kubernetes { path, exclude_namespaces: namespaces }, index, multiline }
}

fn files(fields: &mut Fields) -> Option<Source> {
    let (index, multiline) = (fields.index(), fields.multiline());
    let exclude = fields.paths("exclude");
    if !fields.has("include") {
        let text = "logs.sources.files has no include; add include: [/var/log/syslog]";
        fields.mistakes.add(&fields.origin, text);
    }
    let include = fields.paths("include");
    Some(Source { kind: SourceKind::Files { include, exclude }, index, multiline })
}

fn journal(fields: &mut Fields) -> Source {
    let index = fields.index();
    let path: Vec<_> = fields.paths("path").into_iter().map(Into::into).collect();
    let kind = if path.is_empty() { SourceKind::journal() } else { SourceKind::Journal { path } };
    Source { index, ..Source::new(kind) }
}

/// The keys of one source, or of another item in a list.
pub struct Fields<'a> {
    pub name: String,
    origin: Origin,
    entries: Vec<Entry>,
    pub mistakes: &'a mut Mistakes,
}

impl<'a> Fields<'a> {
    /// None yet; `origin` is the place of the item.
    pub fn new(name: String, origin: Origin, mistakes: &'a mut Mistakes) -> Self {
        Self { name, origin, entries: Vec::new(), mistakes }
    }

    /// Takes the section with them; what is not in `known` is a mistake.
    pub fn open(&mut self, node: Node, known: &[&str]) -> Option<()> {
        match node.value {
            Value::Map(entries) => self.entries = entries,
            Value::Null => {}
            Value::Bad => return None,
            other => {
                let text = format!("expected a section with {}, not {}", known.join(", "), other.kind());
                self.mistakes.add_value(&node.origin, &self.name, &text);
                return None;
            }
        }
        for entry in self.entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
            let near = did_you_mean(&entry.key, known.iter().copied());
            self.mistakes.add(&entry.origin, format!("{}.{} is not a key{near}", self.name, entry.key));
        }
        Some(())
    }

    fn has(&self, key: &str) -> bool {
        let entry = self.entries.iter().find(|entry| entry.key == key);
        entry.is_some_and(|entry| match &entry.value.value {
            Value::Null => false,
            Value::List(items) => !items.is_empty(),
            _ => true,
        })
    }

    /// The texts that are written for a key; it is taken out.
    pub fn take(&mut self, key: &str) -> Vec<(String, Origin)> {
        let name = format!("{}.{key}", self.name);
        match self.entries.iter().position(|entry| entry.key == key) {
            Some(at) => texts(&name, self.entries.remove(at).value, self.mistakes),
            None => Vec::new(),
        }
    }

    /// The keys and texts of a section that is written for a key; it is taken out.
    pub fn pairs(&mut self, key: &str) -> Vec<(String, (String, Origin))> {
        let name = format!("{}.{key}", self.name);
        let Some(at) = self.entries.iter().position(|entry| entry.key == key) else { return Vec::new() };
        let node = self.entries.remove(at).value;
        let entries = match node.value {
            Value::Map(entries) => entries,
            Value::Null | Value::Bad => return Vec::new(),
            other => {
                let text = format!("expected a section such as {{app: cart}}, not {}", other.kind());
                self.mistakes.add_value(&node.origin, &name, &text);
                return Vec::new();
            }
        };
        let mut pairs = Vec::new();
        for entry in entries {
            let written = texts(&format!("{name}.{}", entry.key), entry.value, self.mistakes);
            pairs.extend(written.into_iter().map(|text| (entry.key.clone(), text)));
        }
        pairs
    }

    /// What a text means; that it means nothing is noted.
    pub fn read<T>(
        &mut self,
        key: &str,
        (text, origin): (String, Origin),
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let name = format!("{}.{key}", self.name);
        read(&text).map_err(|error| self.mistakes.add_value(&origin, &name, &error)).ok()
    }

    /// The same of a key with one text.
    pub fn one<T>(&mut self, key: &str, read: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let written = self.take(key).pop()?;
        self.read(key, written, read)
    }

    /// The same of a key that has to be there.
    pub fn needed<T>(
        &mut self,
        key: &str,
        example: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        if !self.has(key) {
            self.mistakes.add(&self.origin, format!("{} has no {key}; add {example}", self.name));
            return None;
        }
        self.one(key, read)
    }

    fn paths(&mut self, key: &str) -> Vec<String> {
        let mut paths = Vec::new();
        for (path, origin) in self.take(key) {
            let text = match glob::Pattern::new(&path) {
                Ok(_) if path.starts_with('/') => {
                    paths.push(path);
                    continue;
                }
                Ok(_) => format!("expected an absolute path, not '{path}'"),
                Err(error) => format!("'{path}' is no pattern: {error}"),
            };
            self.mistakes.add_value(&origin, &format!("{}.{key}", self.name), &text);
        }
        paths
    }

    /// A word, or a section with a pattern.
    fn multiline(&mut self) -> Option<Multiline> {
        let name = format!("{}.multiline", self.name);
        let at = self.entries.iter().position(|entry| entry.key == "multiline")?;
        let Entry { origin, value, .. } = self.entries.remove(at);
        let (read, origin) = match value.value {
            Value::Null | Value::Bad => return None,
            Value::Scalar(word) => (Multiline::named(&word), value.origin),
            Value::Map(mut entries) => match (entries.pop(), entries.is_empty()) {
                (Some(Entry { key, value: Node { origin, value: Value::Scalar(pattern) }, .. }), true)
                    if key == "start" =>
                {
                    (Multiline::starting(&pattern), origin)
                }
                _ => (Err("expected auto, off or {start: REGEX}".into()), origin),
            },
            Value::List(_) => (Err("expected auto, off or {start: REGEX}, not a list".into()), value.origin),
        };
        read.map_err(|error| self.mistakes.add_value(&origin, &name, &error)).ok()
    }

    fn index(&mut self) -> Option<IndexTemplate> {
        let (pattern, origin) = self.take("index").pop()?;
        let checked = IndexTemplate::parse(&pattern);
        checked
            .map_err(|error| self.mistakes.add_value(&origin, &format!("{}.index", self.name), &error))
            .ok()
    }
}
