//! How many fields documents may bring into an index: each name that programs invent is a field of its mapping for ever.

use std::{
    borrow::Cow,
    collections::HashSet,
    hash::{BuildHasherDefault, Hasher},
};

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The place of a value in a document, from its outermost name inwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Path(u64);

impl Path {
    /// One step inwards.
    pub fn join(self, name: &[u8]) -> Self {
        Self(xxh3_64_with_seed(name, self.0))
    }
}

/// The paths that documents of one index have, as far as this agent brought them there.
#[derive(Debug)]
pub struct FieldNames {
    known: HashSet<Path, BuildHasherDefault<AsItIs>>,
    most: usize,
    day: Option<i64>,
}

/// A path is a hash already.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(self.0.rotate_left(8) ^ u64::from(*byte)));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

impl std::hash::Hash for Path {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

impl FieldNames {
    /// None yet, and never more than `most`.
    pub fn new(most: usize) -> Self {
        Self { known: HashSet::default(), most, day: None }
    }

    /// Whether a document may have this path: it is known, or there is room for one more.
    pub fn admit(&mut self, path: Path) -> bool {
        self.known.contains(&path) || self.known.len() < self.most && self.known.insert(path)
    }

    /// The index of a later day has no fields yet.
    pub fn at_day(&mut self, day: i64) {
        if self.day.is_some_and(|known| known < day) {
            self.known.clear();
        }
        self.day = self.day.max(Some(day));
    }
}

/// The key of a label without dots, so that `app` and `app.kubernetes.io/name` are two fields and not one that is a text
/// and an object at once.
pub fn dedot(key: &str) -> Cow<'_, str> {
    if key.contains('.') { Cow::Owned(key.replace('.', "_")) } else { Cow::Borrowed(key) }
}

/// Whether Elasticsearch takes a document with a field of this name: between its dots there has to be something.
pub fn is_legal(name: &str) -> bool {
    name.split('.').all(|part| !part.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_paths_than_allowed_are_taken() {
        let mut names = FieldNames::new(2);
        let path = |name: &[u8]| Path::default().join(b"json").join(name);
        assert!(names.admit(path(b"a")) && names.admit(path(b"b")));
        assert!(!names.admit(path(b"c")) && names.admit(path(b"a")));
        names.at_day(1);
        assert!(!names.admit(path(b"c")));
        names.at_day(2);
        assert!(names.admit(path(b"c")));
    }

    #[test]
    fn paths_are_told_apart_by_their_steps() {
        let path = Path::default();
        assert_ne!(path.join(b"a").join(b"b"), path.join(b"ab"));
        assert_ne!(path.join(b"a").join(b"b"), path.join(b"b").join(b"a"));
    }

    #[test]
    fn labels_live_together_without_their_dots() {
        let keys = ["app", "app.kubernetes.io/name"].map(dedot);
        assert_eq!(keys, ["app", "app_kubernetes_io/name"]);
    }

    #[test]
    fn names_that_the_server_refuses_are_known() {
        for name in ["", " ", ".", "a.", ".a", "a..b", "a. .b"] {
            assert!(!is_legal(name), "{name}");
        }
        assert!(is_legal("a.b") && is_legal("a b"));
    }
}
