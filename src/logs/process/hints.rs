//! What a pod's annotations want of its lines, as rules and settings of its files.

use std::{borrow::Cow, sync::Arc};

use prometheus::IntCounter;

use super::{
    json,
    pattern::Pattern,
    rules::{Action, Active, Condition, Rule},
    select::Selection,
};
use crate::{
    kubernetes::instructions::{self, Instructions, Json, Lines, Streams},
    logs::{
        multiline::Multiline,
        record::{FileFacts, Stream},
    },
};

/// What metrics call these rules.
pub const NAME: &str = "annotation";

/// The annotations about one container.
#[derive(Debug, Default)]
pub struct Hints(Instructions);

impl Hints {
    /// Those of the pod that writes a file, as far as it is known.
    pub fn of(facts: &FileFacts) -> Self {
        let told = facts.pod.known().zip(facts.origin.container());
        Self(
            told.map(|(pod, container)| instructions::read(&pod.instructions, &container.name))
                .unwrap_or_default(),
        )
    }

    /// What can't be understood or followed, a sentence each.
    pub fn complaints(&self) -> Vec<String> {
        let mut complaints = self.0.complaints.clone();
        for (what, patterns) in [("include", &self.0.include_lines), ("exclude", &self.0.exclude_lines)] {
            if !patterns.is_empty() && one_of(patterns).is_none() {
                complaints.push(format!(
                    "annotation for lines to {what}: the patterns take more memory than they may"
                ));
            }
        }
        if let Some(Json::On { target: Some(target), .. }) = &self.0.json
            && json::is_reserved(target)
        {
            complaints.push(format!(
                "annotation json.target: {target:?} is a field of every document, choose another one"
            ));
        }
        complaints
    }

    /// The lines that are left out, as rules.
    pub fn rules(&self, hits: &IntCounter) -> Vec<Arc<Active>> {
        let Streams { stdout, stderr } = self.0.exclude;
        let streams = [(stdout, Stream::Stdout), (stderr, Stream::Stderr)];
        let excluded = streams.into_iter().filter(|(is_out, _)| *is_out);
        let mut conditions: Vec<Condition> =
            excluded.map(|(_, stream)| Condition { stream: Some(stream), ..Condition::default() }).collect();
        conditions.extend(
            one_of(&self.0.include_lines)
                .map(|lacks| Condition { lacks: Some(lacks), ..Condition::default() }),
        );
        conditions.extend(
            one_of(&self.0.exclude_lines)
                .map(|found| Condition { matches: Some(found), ..Condition::default() }),
        );
        let rule = |condition| Rule {
            name: NAME.into(),
            selection: Selection::default(),
            condition,
            action: Action::Drop,
            dry_run: false,
        };
        conditions
            .into_iter()
            .map(|condition| Arc::new(Active { rule: rule(condition), hits: hits.clone() }))
            .collect()
    }

    /// How lines are put together; `None` when nothing is said of it.
    pub fn multiline(&self) -> Option<Multiline> {
        match self.0.multiline.as_ref()? {
            Lines::Auto => Some(Multiline::Auto),
            Lines::Off => Some(Multiline::Off),
            // They were compiled when they were read.
            Lines::Start(pattern) => Multiline::starting(pattern).ok(),
            Lines::More(pattern) => Multiline::continued_by(pattern).ok(),
        }
    }

    /// What becomes of JSON lines; `None` when they are text.
    pub fn json<'a>(&self, configured: &'a json::Settings) -> Option<Cow<'a, json::Settings>> {
        match &self.0.json {
            None => Some(Cow::Borrowed(configured)),
            Some(Json::Off) => None,
            Some(Json::On { target, message_key }) => {
                let mut settings = json::Settings { enabled: true, ..configured.clone() };
                if let Some(target) = target.as_ref().filter(|target| !json::is_reserved(target)) {
                    settings.target.clone_from(target);
                }
                settings.message_keys.splice(0..0, message_key.clone());
                Some(Cow::Owned(settings))
            }
        }
    }
}

/// One pattern for all of them; each was read before, but together they may be too much.
fn one_of(patterns: &[String]) -> Option<Pattern> {
    let all: Vec<String> = patterns.iter().map(|one| format!("(?:{one})")).collect();
    Pattern::parse(&all.join("|")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        kubernetes::pod::Pod,
        logs::{
            process::rules::judge,
            record::{FileId, PodFacts},
        },
        testing::container,
    };

    fn hints(pairs: &[(&str, &str)]) -> Hints {
        let instructions =
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let pod = PodFacts::Known(Arc::new(Pod { instructions, ..Pod::default() }));
        Hints::of(&FileFacts { pod, ..FileFacts::new(FileId([1; 12]), "/a", container(0)) })
    }

    #[test]
    fn a_pod_says_how_its_lines_are_put_together() {
        assert_eq!(hints(&[]).multiline(), None);
        assert_eq!(hints(&[("nodewarden.io/multiline", "off")]).multiline(), Some(Multiline::Off));
        let start = hints(&[("nodewarden.io/multiline-start", "^\\d")]).multiline();
        assert_eq!(start, Multiline::starting("^\\d").ok());
        let more =
            [("co.elastic.logs/multiline.pattern", "^\\s"), ("co.elastic.logs/multiline.match", "after")];
        assert_eq!(hints(&more).multiline(), Multiline::continued_by("^\\s").ok());
    }

    fn is_kept(hints: &Hints, stream: Stream, text: &str) -> bool {
        let rules = hints.rules(&IntCounter::new("hits", "hits").expect("a counter"));
        let rules = rules.iter().map(AsRef::as_ref);
        judge(rules, FileId([1; 12]), 0, (stream, text.as_bytes()), None, true).is_none()
    }

    #[test]
    fn streams_and_patterns_leave_lines_out() {
        let stderr = hints(&[("fluentbit.io/exclude_stderr", "true")]);
        assert!(is_kept(&stderr, Stream::Stdout, "a") && !is_kept(&stderr, Stream::Stderr, "a"));
        let lines = hints(&[
            ("co.elastic.logs/include_lines", "[ERR, WARN]"),
            ("co.elastic.logs/exclude_lines", "x$"),
        ]);
        assert!(is_kept(&lines, Stream::Stdout, "ERR a") && is_kept(&lines, Stream::Stdout, "WARN"));
        assert!(!is_kept(&lines, Stream::Stdout, "ERR x") && !is_kept(&lines, Stream::Stdout, "INFO"));
        assert!(is_kept(&hints(&[]), Stream::Stderr, ""));
    }

    #[test]
    fn what_is_not_followed_is_said() {
        let said = |pairs| hints(pairs).complaints().join("; ");
        assert_eq!(said(&[("nodewarden.io/exclude", "true")]), "");
        assert!(said(&[("nodewarden.io/exclude", "maybe")]).contains("\"maybe\""));
        assert!(said(&[("co.elastic.logs/json.target", "host")]).contains("\"host\" is a field"));
        assert!(
            said(&[("nodewarden.io/exclude-lines", "(\\w{1000}){100}")]).contains("is no regular expression")
        );
        assert!(said(&[("nodewarden.io/exclude-lines", "\\w{100}")]).contains("more memory"));
    }

    #[test]
    fn json_is_on_off_or_as_configured() {
        let configured = json::Settings::default();
        assert_eq!(hints(&[]).json(&configured).as_deref(), Some(&configured));
        assert_eq!(hints(&[("nodewarden.io/json", "false")]).json(&configured), None);
        let on =
            hints(&[("co.elastic.logs/json.target", "app"), ("co.elastic.logs/json.message_key", "log")]);
        let on = on.json(&configured).expect("on");
        assert_eq!((on.enabled, on.target.as_str(), on.message_keys[0].as_str()), (true, "app", "log"));
    }
}
