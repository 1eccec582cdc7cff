//! What collectors say: families and their samples, packed into a few buffers that every scrape uses again.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
};

/// The type of a family on the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, but for restarts.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Nobody knows.
    Untyped,
    /// Buckets, sum and count; its samples keep the order they were said in.
    Histogram,
    /// Quantiles, sum and count; its samples keep the order they were said in.
    Summary,
}

impl Kind {
    /// The word in the `# TYPE` line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Untyped => "untyped",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
        }
    }
}

/// The description of a family. Declare it as a `static`, so that its address can stand for it.
#[derive(Debug)]
pub struct Desc {
    /// The full name, e.g. `node_load1`.
    pub name: &'static str,
    /// The help text, unescaped.
    pub help: &'static str,
    /// The type.
    pub kind: Kind,
    /// Label names, sorted by byte; checked when the `static` is evaluated by the compiler.
    pub labels: &'static [&'static str],
}

impl Desc {
    /// A gauge.
    pub const fn gauge(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Self {
        Self::new(name, help, Kind::Gauge, labels)
    }

    /// A counter.
    pub const fn counter(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Self {
        Self::new(name, help, Kind::Counter, labels)
    }

    /// A family without a type.
    pub const fn untyped(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Self {
        Self::new(name, help, Kind::Untyped, labels)
    }

    const fn new(
        name: &'static str,
        help: &'static str,
        kind: Kind,
        labels: &'static [&'static str],
    ) -> Self {
        assert!(is_sorted(labels), "label names are declared in byte order");
        Self { name, help, kind, labels }
    }
}

const fn is_sorted(labels: &[&str]) -> bool {
    let mut at = 1;
    while at < labels.len() {
        if !is_less(labels[at - 1].as_bytes(), labels[at].as_bytes()) {
            return false;
        }
        at += 1;
    }
    true
}

const fn is_less(left: &[u8], right: &[u8]) -> bool {
    let mut at = 0;
    while at < left.len() && at < right.len() {
        if left[at] != right[at] {
            return left[at] < right[at];
        }
        at += 1;
    }
    left.len() < right.len()
}

/// A family in a [`Samples`]; valid until [`Samples::clear`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FamilyId(u32);

/// A description made at run time that a collector keeps between scrapes, so that each of them costs no copy.
#[derive(Debug, Clone)]
pub struct OwnedDesc(Arc<DynamicDesc>);

impl OwnedDesc {
    /// A description; `labels` must be sorted.
    pub fn new(name: &str, help: &str, kind: Kind, labels: &[&str]) -> Self {
        debug_assert!(labels.is_sorted(), "{name}: labels are said in byte order");
        Self(Arc::new(DynamicDesc {
            name: name.to_owned(),
            help: help.to_owned(),
            kind,
            labels: labels.iter().map(ToString::to_string).collect(),
        }))
    }
}

/// Name, help and label names of a family whose texts are known only at run time.
#[derive(Debug)]
pub(crate) struct DynamicDesc {
    pub(crate) name: String,
    pub(crate) help: String,
    pub(crate) kind: Kind,
    pub(crate) labels: Vec<String>,
}

#[derive(Debug)]
pub(crate) enum Family {
    Static(&'static Desc),
    Dynamic(Arc<DynamicDesc>),
}

impl Family {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Static(desc) => desc.name,
            Self::Dynamic(desc) => &desc.name,
        }
    }

    pub(crate) fn help(&self) -> &str {
        match self {
            Self::Static(desc) => desc.help,
            Self::Dynamic(desc) => &desc.help,
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Static(desc) => desc.kind,
            Self::Dynamic(desc) => desc.kind,
        }
    }

    pub(crate) fn label(&self, at: usize) -> &str {
        match self {
            Self::Static(desc) => desc.labels[at],
            Self::Dynamic(desc) => &desc.labels[at],
        }
    }

    fn label_count(&self) -> usize {
        match self {
            Self::Static(desc) => desc.labels.len(),
            Self::Dynamic(desc) => desc.labels.len(),
        }
    }
}

/// What stands behind the family's name on a sample's line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Part {
    /// The sample itself.
    Value,
    /// `_bucket`, with its upper bound as the `le` label.
    Bucket(f64),
    /// The quantile of a summary, as the `quantile` label.
    Quantile(f64),
    /// `_sum`.
    Sum,
    /// `_count`.
    Count,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) value: f64,
    pub(crate) family: u32,
    /// Its place in `Samples::sets`.
    pub(crate) labels: u32,
}

/// The samples of one scrape.
///
/// Label values lie one after the other in one buffer, each ended by a NUL: the order of those bytes is then the order in
/// which the page lists series (value by value, the shorter first), and sorting needs no rendering. Samples that are said one
/// after the other with the same values, as the twenty of an interface, share them.
#[derive(Debug, Default)]
pub struct Samples {
    pub(crate) families: Vec<Family>,
    pub(crate) samples: Vec<Sample>,
    values: Vec<u8>,
    /// Where each set of label values begins; it ends where the next one begins.
    sets: Vec<u32>,
    /// The lines of histograms and summaries, by the place of their sample.
    parts: Vec<(u32, Part)>,
    by_address: HashMap<usize, u32, BuildHasherDefault<AddressHasher>>,
}

/// Hashes the address of a `static`: nobody outside chooses it, so a multiplication does where the standard library's
/// hash would cost more than the sample it is for.
#[derive(Debug, Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_usize(usize::from(byte));
        }
    }

    fn write_usize(&mut self, address: usize) {
        // 2^64 divided by the golden ratio spreads neighbouring addresses over the upper bits.
        self.0 = (self.0 ^ address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}

/// A point to come back to with [`Samples::rewind`].
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    samples: usize,
    values: usize,
    sets: usize,
    parts: usize,
}

impl Samples {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets everything, keeps the buffers.
    pub fn clear(&mut self) {
        self.families.clear();
        self.samples.clear();
        self.values.clear();
        self.sets.clear();
        self.parts.clear();
        self.by_address.clear();
    }

    /// How many samples were said.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Says one sample. `labels` are the values of `desc.labels`, in that order.
    pub fn push(&mut self, desc: &'static Desc, labels: &[&str], value: f64) {
        let family = self.family(desc);
        self.push_to(family, labels, value);
    }

    /// The family of a description; the same one for the same `static`.
    pub fn family(&mut self, desc: &'static Desc) -> FamilyId {
        let families = &mut self.families;
        let id = *self.by_address.entry(std::ptr::from_ref(desc).addr()).or_insert_with(|| {
            families.push(Family::Static(desc));
            (families.len() - 1) as u32
        });
        FamilyId(id)
    }

    /// A family whose texts are known only at run time. `labels` must be sorted. Families of one name are merged on the
    /// page, so that one may be made per set of label names.
    pub fn dynamic_family(&mut self, name: &str, help: &str, kind: Kind, labels: &[&str]) -> FamilyId {
        self.owned_family(&OwnedDesc::new(name, help, kind, labels))
    }

    /// The family of a description that is kept between scrapes. Like [`Samples::dynamic_family`], it is a new one at
    /// each call.
    pub fn owned_family(&mut self, desc: &OwnedDesc) -> FamilyId {
        self.families.push(Family::Dynamic(Arc::clone(&desc.0)));
        FamilyId((self.families.len() - 1) as u32)
    }

    /// Says one sample of a family.
    pub fn push_to(&mut self, family: FamilyId, labels: &[&str], value: f64) {
        self.push_part(family, labels, Part::Value, value);
    }

    /// Says one line of a histogram or a summary.
    pub fn push_part(&mut self, family: FamilyId, labels: &[&str], part: Part, value: f64) {
        debug_assert_eq!(
            self.families[family.0 as usize].label_count(),
            labels.len(),
            "{}: as many label values as names",
            self.families[family.0 as usize].name()
        );
        let set = self.set_of(labels);
        if part != Part::Value {
            self.parts.push((self.samples.len() as u32, part));
        }
        self.samples.push(Sample { value, family: family.0, labels: set });
    }

    /// The place of these label values, which are those of the sample before when they are the same.
    fn set_of(&mut self, labels: &[&str]) -> u32 {
        let count = self.sets.len() as u32;
        if let Some(&start) = self.sets.last() {
            let mut rest = self.values.get(start as usize..).unwrap_or_default();
            let is_same = labels.iter().all(|label| {
                let found = rest.strip_prefix(label.as_bytes()).and_then(|rest| rest.strip_prefix(b"\0"));
                rest = found.unwrap_or_default();
                found.is_some()
            });
            if is_same && rest.is_empty() {
                return count - 1;
            }
        }
        self.sets.push(self.values.len() as u32);
        for label in labels {
            if memchr::memchr(0, label.as_bytes()).is_some() {
                self.values.extend_from_slice(label.replace('\0', "\u{fffd}").as_bytes());
            } else {
                self.values.extend_from_slice(label.as_bytes());
            }
            self.values.push(0);
        }
        count
    }

    /// The label values of a sample, each ended by a NUL.
    pub(crate) fn label_values(&self, sample: &Sample) -> &[u8] {
        let at = sample.labels as usize;
        let bound = |at: usize| self.sets.get(at).map_or(self.values.len(), |&start| start as usize);
        &self.values[bound(at)..bound(at + 1)]
    }

    /// How many labels a sample has.
    pub(crate) fn label_count(&self, sample: &Sample) -> usize {
        self.families[sample.family as usize].label_count()
    }

    /// Which line of its family the sample at place `at` is.
    pub(crate) fn part(&self, at: usize) -> Part {
        let found = self.parts.binary_search_by_key(&(at as u32), |(at, _)| *at);
        found.map_or(Part::Value, |found| self.parts[found].1)
    }

    /// The present end, to come back to when what follows has to be forgotten.
    pub fn mark(&self) -> Mark {
        Mark {
            samples: self.samples.len(),
            values: self.values.len(),
            sets: self.sets.len(),
            parts: self.parts.len(),
        }
    }

    /// Forgets what was said since `mark`.
    pub fn rewind(&mut self, mark: Mark) {
        self.samples.truncate(mark.samples);
        self.values.truncate(mark.values);
        self.sets.truncate(mark.sets);
        self.parts.truncate(mark.parts);
    }

    /// Adds everything that `other` says.
    pub fn append(&mut self, other: &Self) {
        let mut ids = Vec::with_capacity(other.families.len());
        for family in &other.families {
            ids.push(match family {
                Family::Static(desc) => self.family(desc),
                Family::Dynamic(desc) => {
                    self.families.push(Family::Dynamic(Arc::clone(desc)));
                    FamilyId((self.families.len() - 1) as u32)
                }
            });
        }
        let (values, sets) = (self.values.len() as u32, self.sets.len() as u32);
        let samples = self.samples.len() as u32;
        self.values.extend_from_slice(&other.values);
        self.sets.extend(other.sets.iter().map(|start| start + values));
        self.parts.extend(other.parts.iter().map(|&(at, part)| (at + samples, part)));
        self.samples.extend(other.samples.iter().map(|sample| Sample {
            family: ids[sample.family as usize].0,
            labels: sample.labels + sets,
            ..*sample
        }));
    }

    /// Every sample as (family name, label values in the order of the label names, value); for readers other than the page.
    pub fn iter(&self) -> impl Iterator<Item = (&str, LabelValues<'_>, f64)> {
        self.samples.iter().map(|sample| {
            let values = LabelValues(self.label_values(sample));
            (self.families[sample.family as usize].name(), values, sample.value)
        })
    }
}

/// The label values of one sample.
#[derive(Debug, Clone, Copy)]
pub struct LabelValues<'a>(&'a [u8]);

impl<'a> Iterator for LabelValues<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let end = self.0.iter().position(|&byte| byte == 0)?;
        let (value, rest) = self.0.split_at(end);
        self.0 = &rest[1..];
        // Only whole `&str`s are written into the buffer, so the default is never taken.
        Some(std::str::from_utf8(value).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static BYTES: Desc = Desc::gauge("node_x_bytes", "X.", &["device", "mode"]);

    #[test]
    fn what_was_said_comes_back_in_order() {
        let mut samples = Samples::new();
        samples.push(&BYTES, &["sda", "read"], 1.0);
        samples.push(&BYTES, &["sdb", ""], 2.0);
        let seen: Vec<(String, Vec<&str>, f64)> =
            samples.iter().map(|(name, labels, value)| (name.to_owned(), labels.collect(), value)).collect();
        assert_eq!(
            seen,
            [
                ("node_x_bytes".to_owned(), vec!["sda", "read"], 1.0),
                ("node_x_bytes".to_owned(), vec!["sdb", ""], 2.0)
            ]
        );
    }

    #[test]
    fn rewinding_forgets_only_what_came_after_the_mark() {
        let mut samples = Samples::new();
        samples.push(&BYTES, &["sda", "read"], 1.0);
        let mark = samples.mark();
        samples.push(&BYTES, &["sdb", "read"], 2.0);
        samples.rewind(mark);
        assert_eq!(samples.len(), 1);
        assert_eq!(samples.iter().next().and_then(|(_, mut labels, _)| labels.next()), Some("sda"));
    }

    #[test]
    fn appended_samples_keep_their_families_and_labels() {
        let mut first = Samples::new();
        first.push(&BYTES, &["sda", "read"], 1.0);
        let mut second = Samples::new();
        let family = second.dynamic_family("node_y", "Y.", Kind::Untyped, &["a"]);
        second.push_to(family, &["b"], 3.0);
        second.push(&BYTES, &["sdb", "write"], 2.0);
        first.append(&second);
        let seen: Vec<(String, Vec<&str>)> =
            first.iter().map(|(name, labels, _)| (name.to_owned(), labels.collect())).collect();
        assert_eq!(seen[1], ("node_y".to_owned(), vec!["b"]));
        assert_eq!(seen[2], ("node_x_bytes".to_owned(), vec!["sdb", "write"]));
    }
}
