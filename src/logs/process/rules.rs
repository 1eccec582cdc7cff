//! Which lines are kept: the first rule that fits a line decides.

use std::time::Duration;

use prometheus::IntCounter;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{level::Level, pattern::Pattern, select::Selection};
use crate::logs::record::{FileId, Stream};

/// One rule as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What metrics call it.
    pub name: String,
    /// The files that it is for.
    pub selection: Selection,
    /// The lines that it is for.
    pub condition: Condition,
    /// What becomes of them.
    pub action: Action,
    /// They are only counted.
    pub dry_run: bool,
}

/// What a rule asks of a line; all that is there has to fit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Condition {
    /// It says one of these levels.
    pub levels: Vec<Level>,
    /// It says a less important level.
    pub below: Option<Level>,
    /// This is found in its text.
    pub matches: Option<Pattern>,
    /// This is not.
    pub lacks: Option<Pattern>,
    /// It was written to this stream.
    pub stream: Option<Stream>,
}

/// What becomes of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is shipped, whatever later rules say.
    Keep,
    /// It is left out.
    Drop,
    /// It is shipped if it is the one of so many.
    Sample(u64),
    /// If it is the same as the one before, so soon after it, only the number of such lines is shipped.
    Collapse(Duration),
}

impl Condition {
    /// Whether the level of lines has to be known.
    pub fn asks_level(&self) -> bool {
        !self.levels.is_empty() || self.below.is_some()
    }

    fn fits(&self, stream: Stream, text: &[u8], level: Option<Level>) -> bool {
        self.stream.is_none_or(|wanted| stream == wanted)
            && (self.levels.is_empty() || level.is_some_and(|level| self.levels.contains(&level)))
            && self.below.is_none_or(|limit| level.is_some_and(|level| level < limit))
            && self.matches.as_ref().is_none_or(|pattern| pattern.is_in(text))
            && self.lacks.as_ref().is_none_or(|pattern| !pattern.is_in(text))
    }
}

/// Why a line is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A rule says so.
    Rule,
    /// It is none of the sample.
    Sampled,
    /// Its pod wrote too much.
    PodLimit,
    /// Its namespace wrote too much.
    NamespaceLimit,
    /// It is the same as the one before.
    Repeated,
}

impl Reason {
    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rule => "rule",
            Self::Sampled => "sampled",
            Self::PodLimit => "pod_limit",
            Self::NamespaceLimit => "namespace_limit",
            Self::Repeated => "repeated",
        }
    }
}

/// A rule at work.
#[derive(Debug)]
pub struct Active {
    /// What was written.
    pub rule: Rule,
    /// Lines that it fitted, also when it only counts.
    pub hits: IntCounter,
}

/// What the rules of a file say of a line at an offset; `None` when it is kept.
pub fn judge<'a>(
    rules: impl Iterator<Item = &'a Active>,
    file: FileId,
    offset: u64,
    (stream, text): (Stream, &[u8]),
    level: Option<Level>,
    is_new: bool,
) -> Option<Reason> {
    for Active { rule, hits } in rules {
        if !rule.condition.fits(stream, text, level) {
            continue;
        }
        if is_new {
            hits.inc();
        }
        if rule.dry_run {
            continue;
        }
        return match rule.action {
            Action::Drop => Some(Reason::Rule),
            Action::Sample(one_of) if !is_sample(file, offset, one_of) => Some(Reason::Sampled),
            _ => None,
        };
    }
    None
}

/// The same line is in the sample each time it is read.
fn is_sample(file: FileId, offset: u64, one_of: u64) -> bool {
    xxh3_64_with_seed(&file.0, offset).is_multiple_of(one_of.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn active(action: Action, condition: Condition, dry_run: bool) -> Active {
        let rule = Rule { name: "one".into(), selection: Selection::default(), condition, action, dry_run };
        Active { rule, hits: IntCounter::new("hits", "hits").expect("a counter") }
    }

    fn pattern(text: &str) -> Option<Pattern> {
        Some(Pattern::parse(text).expect("a pattern"))
    }

    fn said(rules: &[Active], text: &str, level: Option<Level>) -> Option<Reason> {
        judge(rules.iter(), FileId([1; 12]), 7, (Stream::None, text.as_bytes()), level, true)
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let rules = [
            active(Action::Keep, Condition { matches: pattern("payment"), ..Condition::default() }, false),
            active(Action::Drop, Condition { below: Some(Level::Info), ..Condition::default() }, false),
            active(
                Action::Drop,
                Condition { levels: vec![Level::Info], lacks: pattern("order"), ..Condition::default() },
                false,
            ),
        ];
        assert_eq!(said(&rules, "payment", Some(Level::Debug)), None);
        assert_eq!(said(&rules, "other", Some(Level::Debug)), Some(Reason::Rule));
        assert_eq!(said(&rules, "order 7", Some(Level::Info)), None);
        assert_eq!(said(&rules, "text", Some(Level::Info)), Some(Reason::Rule));
        // What says no level is below none.
        assert_eq!(said(&rules, "text", None), None);
        assert_eq!(rules[1].hits.get(), 1);
    }

    #[test]
    fn a_dry_run_only_counts() {
        let rules = [active(Action::Drop, Condition::default(), true)];
        assert_eq!((said(&rules, "text", None), rules[0].hits.get()), (None, 1));
    }

    #[test]
    fn a_sample_is_the_same_one_each_time() {
        let rules = [active(Action::Sample(10), Condition::default(), false)];
        let kept = |file| {
            let kept =
                |offset: &u64| judge(rules.iter(), file, *offset, (Stream::None, b""), None, true).is_none();
            (0..10_000).filter(kept).collect::<Vec<u64>>()
        };
        let one = kept(FileId([1; 12]));
        assert!((800..1200).contains(&one.len()), "{}", one.len());
        assert!(one == kept(FileId([1; 12])) && one != kept(FileId([2; 12])));
    }
}
