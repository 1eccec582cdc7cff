//! What a pod's annotations want of its log lines: our own, and those of the agents that we replace which are safe to follow. None
//! of them can name a file, a host or a field of another pod. One that can't be understood is said, and the line is shipped
//! all the same.

use std::collections::BTreeMap;

/// What is wanted of one container's lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Instructions {
    /// Streams whose lines are left out.
    pub exclude: Streams,
    /// How lines are put together.
    pub multiline: Option<Lines>,
    /// Whether lines are JSON objects, and what becomes of them.
    pub json: Option<Json>,
    /// Only lines that one of these regular expressions matches are kept, if there are any.
    pub include_lines: Vec<String>,
    /// Lines that one of these matches are left out.
    pub exclude_lines: Vec<String>,
    /// What could not be understood or followed, a sentence each.
    pub complaints: Vec<String>,
}

/// Streams of a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Streams {
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
}

impl Streams {
    /// Both.
    pub const ALL: Self = Self { stdout: true, stderr: true };
}

/// How lines are put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lines {
    /// Stack traces are recognised.
    Auto,
    /// Each is for itself.
    Off,
    /// An event begins where this matches.
    Start(String),
    /// A line that this matches belongs to the one before.
    More(String),
}

/// What becomes of JSON lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Json {
    /// They are text.
    Off,
    /// Their members become fields.
    On {
        /// Below this field, below none when empty; `None` for the configured one.
        target: Option<String>,
        /// The member that holds the message.
        message_key: Option<String>,
    },
}

const OWN: &str = "nodewarden.io/";
const FLUENT_BIT: &str = "fluentbit.io/";
const ELASTIC: &str = "co.elastic.logs";
const VECTOR: &str = "vector.dev/";

/// Reads what the annotations say of `container`. What names the container beats what is said of the whole pod, and our own ones
/// beat all others.
pub fn read(annotations: &BTreeMap<String, String>, container: &str) -> Instructions {
    let mut reader = Reader { container, found: Instructions::default() };
    let mut elastic = Elastic::default();
    let (mut own, mut own_here) = (Vec::new(), Vec::new());
    let mut elastic_here = Vec::new();
    for (key, value) in annotations {
        let value = value.trim();
        if let Some(rest) = key.strip_prefix(OWN) {
            match rest.rsplit_once('.') {
                Some((name, named)) if named == container => own_here.push((key, name, value)),
                // Of another container.
                Some(_) => {}
                None => own.push((key, rest, value)),
            }
        } else if let Some(rest) = key.strip_prefix(FLUENT_BIT) {
            reader.fluent_bit(key, rest, value);
        } else if let Some(rest) = key.strip_prefix(VECTOR) {
            reader.vector(key, rest, value);
        } else if let Some(rest) = key.strip_prefix(ELASTIC) {
            match rest.split_once('/') {
                Some(("", name)) => elastic.set(&mut reader, key, name, value),
                Some((named, name)) if named.strip_prefix('.') == Some(container) => {
                    elastic_here.push((key, name, value));
                }
                _ => {}
            }
        }
    }
    for (key, name, value) in elastic_here {
        elastic.set(&mut reader, key, name, value);
    }
    elastic.finish(&mut reader);
    for (key, name, value) in own.into_iter().chain(own_here) {
        reader.own(key, name, value);
    }
    reader.found
}

struct Reader<'a> {
    container: &'a str,
    found: Instructions,
}

impl Reader<'_> {
    fn complain(&mut self, key: &str, what: &str) {
        self.found.complaints.push(format!("annotation {key}: {what}"));
    }

    fn boolean(&mut self, key: &str, value: &str) -> Option<bool> {
        match value.to_ascii_lowercase().as_str() {
            "true" | "on" | "yes" | "1" => Some(true),
            "false" | "off" | "no" | "0" => Some(false),
            _ => {
                self.complain(key, &format!("expected \"true\" or \"false\", not {value:?}"));
                None
            }
        }
    }

    fn own(&mut self, key: &str, name: &str, value: &str) {
        match name {
            "exclude" => match value {
                "stdout" => self.found.exclude = Streams { stdout: true, stderr: false },
                "stderr" => self.found.exclude = Streams { stdout: false, stderr: true },
                _ => {
                    if let Some(is_out) = self.boolean(key, value) {
                        self.found.exclude = if is_out { Streams::ALL } else { Streams::default() };
                    }
                }
            },
            "multiline" => match value {
                "auto" => self.found.multiline = Some(Lines::Auto),
                "off" | "false" => self.found.multiline = Some(Lines::Off),
                _ => self.complain(
                    key,
                    &format!("expected auto or off, not {value:?}; a pattern goes into {OWN}multiline-start"),
                ),
            },
            "multiline-start" => {
                if let Some(pattern) = self.pattern(key, value) {
                    self.found.multiline = Some(Lines::Start(pattern));
                }
            }
            "json" => match self.boolean(key, value) {
                Some(true) => self.found.json = Some(Json::On { target: None, message_key: None }),
                Some(false) => self.found.json = Some(Json::Off),
                None => {}
            },
            "include-lines" => self.found.include_lines = self.pattern(key, value).into_iter().collect(),
            "exclude-lines" => self.found.exclude_lines = self.pattern(key, value).into_iter().collect(),
            _ => self.complain(
                key,
                "there is none of this name; there are exclude, multiline, multiline-start, json, include-lines, exclude-lines",
            ),
        }
    }

    /// `exclude` and `parser`, each with `_STREAM` and `-CONTAINER` behind it.
    fn fluent_bit(&mut self, key: &str, rest: &str, value: &str) {
        let (name, streams) = match rest.split_once('_') {
            Some((name, after)) => {
                let (stream, of) = after.split_once('-').map_or((after, None), |(s, of)| (s, Some(of)));
                let streams = match stream {
                    "stdout" => Streams { stdout: true, stderr: false },
                    "stderr" => Streams { stdout: false, stderr: true },
                    _ => return self.complain(key, "after the underscore goes stdout or stderr"),
                };
                if of.is_some_and(|of| of != self.container) {
                    return;
                }
                (name, streams)
            }
            None => match rest.split_once('-') {
                Some((_, of)) if of != self.container => return,
                Some((name, _)) => (name, Streams::ALL),
                None => (rest, Streams::ALL),
            },
        };
        match name {
            "exclude" => {
                if let Some(is_out) = self.boolean(key, value) {
                    let exclude = &mut self.found.exclude;
                    if streams.stdout {
                        exclude.stdout = is_out;
                    }
                    if streams.stderr {
                        exclude.stderr = is_out;
                    }
                }
            }
            "parser" => match value {
                // The runtime's own formats are always recognised.
                "docker" | "cri" | "docker-daemon" => {}
                "json" => self.found.json = Some(Json::On { target: None, message_key: None }),
                "java" | "python" | "go" | "ruby" => self.found.multiline = Some(Lines::Auto),
                _ => self.complain(
                    key,
                    &format!("no parser {value:?}; JSON and stack traces are recognised without one"),
                ),
            },
            _ => self.complain(key, "it is not followed; exclude and parser are"),
        }
    }

    fn vector(&mut self, key: &str, rest: &str, value: &str) {
        match rest {
            "exclude" => {
                if self.boolean(key, value) == Some(true) {
                    self.found.exclude = Streams::ALL;
                }
            }
            "exclude-containers" => {
                if value.split(',').any(|name| name.trim() == self.container) {
                    self.found.exclude = Streams::ALL;
                }
            }
            _ => self.complain(key, "it is not followed; exclude and exclude-containers are"),
        }
    }

    fn pattern(&mut self, key: &str, value: &str) -> Option<String> {
        match regex::bytes::Regex::new(value) {
            Ok(_) if !value.is_empty() => Some(value.to_owned()),
            Ok(_) => {
                self.complain(key, "expected a regular expression, not nothing");
                None
            }
            Err(_) => {
                self.complain(key, &format!("{value:?} is no regular expression"));
                None
            }
        }
    }

    fn patterns(&mut self, key: &str, value: &str) -> Vec<String> {
        let list = list(value);
        list.into_iter().filter_map(|one| self.pattern(key, &one)).collect()
    }
}

/// `['a', "b"]`, `a`: as Filebeat's hints are written.
fn list(value: &str) -> Vec<String> {
    let Some(inside) = value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) else {
        return vec![value.to_owned()];
    };
    let mut items = Vec::new();
    let mut rest = inside.trim();
    while let Some(quote) = rest.chars().next() {
        let (item, after) = match quote {
            '\'' | '"' => {
                let body = &rest[1..];
                body.split_once(quote).unwrap_or((body, ""))
            }
            _ => rest.split_once(',').unwrap_or((rest, "")),
        };
        items.push(item.trim().to_owned());
        rest = after.trim_start().trim_start_matches(',').trim_start();
    }
    items
}

/// Filebeat's hints, of which several say one thing together.
#[derive(Default)]
struct Elastic {
    pattern: Option<(String, String)>,
    is_negated: bool,
    is_before: bool,
    json: Option<(Option<String>, Option<String>)>,
}

impl Elastic {
    fn set(&mut self, reader: &mut Reader<'_>, key: &str, name: &str, value: &str) {
        match name {
            "enabled" => {
                if let Some(is_on) = reader.boolean(key, value) {
                    reader.found.exclude = if is_on { Streams::default() } else { Streams::ALL };
                }
            }
            "multiline.pattern" => {
                self.pattern = reader.pattern(key, value).map(|pattern| (key.to_owned(), pattern));
            }
            "multiline.negate" => self.is_negated = reader.boolean(key, value).unwrap_or(false),
            "multiline.match" => self.is_before = value == "before",
            // Ours are bounded anyway, and an event ends when nothing more comes.
            "multiline.max_lines" | "multiline.timeout" => {}
            "multiline.type" if value == "pattern" => {}
            "json.target" => self.json().0 = Some(value.to_owned()),
            "json.message_key" => self.json().1 = Some(value.to_owned()),
            "json.keys_under_root" => match reader.boolean(key, value) {
                Some(true) => self.json().0 = Some(String::new()),
                _ => {
                    self.json();
                }
            },
            // A line that is no JSON is shipped as it is, and what the runtime says is never overwritten.
            "json.add_error_key"
            | "json.ignore_decoding_error"
            | "json.overwrite_keys"
            | "json.expand_keys" => {
                self.json();
            }
            "include_lines" => reader.found.include_lines = reader.patterns(key, value),
            "exclude_lines" => reader.found.exclude_lines = reader.patterns(key, value),
            _ => reader.complain(
                key,
                "it is not followed; enabled, multiline.*, json.*, include_lines and exclude_lines are",
            ),
        }
    }

    fn json(&mut self) -> &mut (Option<String>, Option<String>) {
        self.json.get_or_insert_default()
    }

    fn finish(self, reader: &mut Reader<'_>) {
        if let Some((target, message_key)) = self.json {
            reader.found.json = Some(Json::On { target, message_key });
        }
        let Some((key, pattern)) = self.pattern else { return };
        match (self.is_negated, self.is_before) {
            (true, false) => reader.found.multiline = Some(Lines::Start(pattern)),
            (false, false) => reader.found.multiline = Some(Lines::More(pattern)),
            (_, true) => reader.complain(&key, "multiline.match: before is not followed; after is"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(pairs: &[(&str, &str)], container: &str) -> Instructions {
        let annotations = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        read(&annotations, container)
    }

    const STDERR: Streams = Streams { stdout: false, stderr: true };
    const NONE: Streams = Streams { stdout: false, stderr: false };

    #[test]
    fn every_agent_s_way_to_leave_a_container_out() {
        for (pairs, container, excluded) in [
            (&[("fluentbit.io/exclude", "true")][..], "app", Streams::ALL),
            (&[("fluentbit.io/exclude_stderr", "true")], "app", STDERR),
            (&[("fluentbit.io/exclude-app", "true")], "app", Streams::ALL),
            (&[("fluentbit.io/exclude-app", "true")], "side-car", NONE),
            (&[("fluentbit.io/exclude_stderr-side-car", "true")], "side-car", STDERR),
            (&[("fluentbit.io/exclude_stderr-side-car", "true")], "app", NONE),
            (&[("fluentbit.io/exclude", "false")], "app", NONE),
            (&[("co.elastic.logs/enabled", "false")], "app", Streams::ALL),
            (&[("co.elastic.logs.app/enabled", "false")], "app", Streams::ALL),
            (&[("co.elastic.logs.app/enabled", "false")], "other", NONE),
            (&[("co.elastic.logs/enabled", "false"), ("co.elastic.logs.app/enabled", "true")], "app", NONE),
            (&[("vector.dev/exclude", "true")], "app", Streams::ALL),
            (&[("vector.dev/exclude-containers", "web, app")], "app", Streams::ALL),
            (&[("vector.dev/exclude-containers", "web, app")], "apps", NONE),
            (&[("nodewarden.io/exclude", "true")], "app", Streams::ALL),
            (&[("nodewarden.io/exclude", "stderr")], "app", STDERR),
            (&[("nodewarden.io/exclude.app", "true")], "app", Streams::ALL),
            (&[("nodewarden.io/exclude.app", "true")], "web", NONE),
            (&[("fluentbit.io/exclude", "true"), ("nodewarden.io/exclude", "false")], "app", NONE),
        ] {
            let found = of(pairs, container);
            assert_eq!((found.exclude, &found.complaints[..]), (excluded, &[][..]), "{pairs:?} {container}");
        }
    }

    #[test]
    fn filebeat_s_hints_say_one_thing_together() {
        let start = of(
            &[
                ("co.elastic.logs/multiline.pattern", "^\\["),
                ("co.elastic.logs/multiline.negate", "true"),
                ("co.elastic.logs/multiline.match", "after"),
                ("co.elastic.logs/multiline.max_lines", "500"),
            ],
            "app",
        );
        assert_eq!(start.multiline, Some(Lines::Start("^\\[".into())));
        let more = of(&[("co.elastic.logs/multiline.pattern", "^\\s")], "app");
        assert_eq!(more.multiline, Some(Lines::More("^\\s".into())));
        let json = of(
            &[("co.elastic.logs/json.keys_under_root", "true"), ("co.elastic.logs/json.message_key", "log")],
            "app",
        );
        let on = Json::On { target: Some(String::new()), message_key: Some("log".into()) };
        assert_eq!(json.json, Some(on));
        let lines = of(&[("co.elastic.logs/exclude_lines", "['^DBG', \"a,b\", x]")], "app");
        assert_eq!(lines.exclude_lines, ["^DBG", "a,b", "x"]);
    }

    #[test]
    fn our_own() {
        let found = of(
            &[
                ("nodewarden.io/multiline", "off"),
                ("nodewarden.io/json", "false"),
                ("nodewarden.io/include-lines", "E"),
            ],
            "app",
        );
        assert_eq!((found.multiline, found.json), (Some(Lines::Off), Some(Json::Off)));
        assert_eq!(found.include_lines, ["E"]);
        let found =
            of(&[("nodewarden.io/multiline-start.app", "^A"), ("nodewarden.io/multiline", "off")], "app");
        assert_eq!(found.multiline, Some(Lines::Start("^A".into())));
    }

    #[test]
    fn what_can_t_be_followed_is_said() {
        for (key, value, said) in [
            ("fluentbit.io/exclude", "maybe", "expected \"true\" or \"false\""),
            ("fluentbit.io/parser", "apache2", "no parser \"apache2\""),
            ("fluentbit.io/exclude_log", "true", "stdout or stderr"),
            ("co.elastic.logs/raw", "[{}]", "it is not followed"),
            ("co.elastic.logs/multiline.pattern", "(", "is no regular expression"),
            ("vector.dev/other", "x", "it is not followed"),
            ("nodewarden.io/multilne", "off", "there is none of this name"),
            ("nodewarden.io/multiline", "^A", "multiline-start"),
        ] {
            let found = of(&[(key, value)], "app");
            assert!(
                matches!(&found.complaints[..], [one] if one.contains(said) && one.contains(key)),
                "{key}: {:?}",
                found.complaints
            );
            assert_eq!(Instructions { complaints: Vec::new(), ..found }, Instructions::default());
        }
        let before =
            [("co.elastic.logs/multiline.pattern", "a"), ("co.elastic.logs/multiline.match", "before")];
        assert_eq!(of(&before, "app").complaints.len(), 1);
    }

    proptest! {
        #[test]
        fn no_annotation_panics(key in "(nodewarden.io/|fluentbit.io/|vector.dev/|co.elastic.logs)\\PC{0,20}", value in "\\PC{0,20}") {
            let _ = of(&[(&key, &value)], "app");
        }
    }
}
