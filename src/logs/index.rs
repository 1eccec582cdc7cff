//! The name of the index that a document goes to.

use super::{format::civil_from_days, record::Origin};

impl Default for IndexTemplate {
    /// `logs-{dataset}-default`, a data stream per kind of source.
    fn default() -> Self {
        let parts = vec![Part::Text("logs-".into()), Part::Dataset, Part::Text("-default".into())];
        Self { text: "logs-{dataset}-default".into(), parts }
    }
}

/// What may stand in braces: all of it is known from a file's path.
const FIELDS: &[(&str, Part)] = &[
    ("dataset", Part::Dataset),
    ("kubernetes.namespace", Part::Namespace),
    ("kubernetes.pod.name", Part::Pod),
    ("kubernetes.container.name", Part::Container),
    ("kubernetes.node.name", Part::Node),
    ("host.name", Part::Node),
];

/// A name with fields and strftime places, e.g. `logs-{dataset}-default` or `logstash-%Y.%m.%d`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexTemplate {
    text: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Dataset,
    Namespace,
    Pod,
    Container,
    Node,
    Year,
    Month,
    Day,
    Hour,
}

impl IndexTemplate {
    /// Reads a template; the error says what is wrong and what may be written.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '%']) {
            push_text(&mut parts, &rest[..at])?;
            let (part, length) = parse_place(&rest[at..])?;
            parts.push(part);
            rest = &rest[at + length..];
        }
        push_text(&mut parts, rest)?;
        if parts.is_empty() {
            return Err("an index name can't be empty".into());
        }
        Ok(Self { text: text.to_owned(), parts })
    }

    /// The template as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the name depends on the time of the document.
    pub fn is_dated(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Year | Part::Month | Part::Day | Part::Hour))
    }

    /// The name for a document of `origin` written at `time` (nanoseconds since the epoch, UTC).
    pub fn render(&self, origin: &Origin, node: &str, time: i64) -> String {
        let hours = time.div_euclid(3_600_000_000_000);
        let (year, month, day) = civil_from_days(hours.div_euclid(24));
        let mut name = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => name.push_str(text),
                Part::Dataset => name.push_str(dataset(origin)),
                Part::Namespace => push_legal(origin.namespace(), &mut name),
                Part::Pod => push_legal(origin.container().map_or("", |container| &container.pod), &mut name),
                Part::Container => {
                    push_legal(origin.container().map_or("", |container| &container.name), &mut name);
                }
                Part::Node => push_legal(node, &mut name),
                Part::Year => name.push_str(&format!("{year:04}")),
                Part::Month => name.push_str(&format!("{month:02}")),
                Part::Day => name.push_str(&format!("{day:02}")),
                Part::Hour => name.push_str(&format!("{:02}", hours.rem_euclid(24))),
            }
        }
        name
    }
}

/// The data stream's dataset by source.
pub fn dataset(origin: &Origin) -> &'static str {
    match origin {
        Origin::Container(_) => "kubernetes.container_logs",
        Origin::Plain => "system.syslog",
        Origin::Journal => "system.journal",
        Origin::Kernel => "system.kernel",
        Origin::Canary => "nodewarden.canary",
    }
}

/// Elasticsearch takes neither capitals nor these characters in an index name.
fn push_legal(text: &str, name: &mut String) {
    const ILLEGAL: &[char] = &['\\', '/', '*', '?', '"', '<', '>', '|', ' ', ',', '#', ':'];
    if text.is_empty() {
        name.push_str("none");
    }
    name.extend(
        text.chars().flat_map(char::to_lowercase).map(|c| if ILLEGAL.contains(&c) { '_' } else { c }),
    );
}

fn push_text(parts: &mut Vec<Part>, text: &str) -> Result<(), String> {
    if let Some(illegal) = text.chars().find(|c| c.is_uppercase() || "\\/*?\"<>| ,#:}".contains(*c)) {
        return Err(format!("an index name can't hold {illegal:?}"));
    }
    if parts.is_empty() && text.starts_with(['-', '_', '+', '.']) {
        return Err("an index name can't start with '-', '_', '+' or '.'".into());
    }
    if !text.is_empty() {
        parts.push(Part::Text(text.to_owned()));
    }
    Ok(())
}

/// The place at the start of `text` and how many bytes it takes there.
fn parse_place(text: &str) -> Result<(Part, usize), String> {
    if let Some(field) = text.strip_prefix('{') {
        let end = field.find('}').ok_or_else(|| format!("'{text}' lacks its closing '}}'"))?;
        let Some((_, part)) = FIELDS.iter().find(|(name, _)| *name == &field[..end]) else {
            let names: Vec<&str> = FIELDS.iter().map(|(name, _)| *name).collect();
            let wrong = &field[..end];
            return Err(format!(
                "{{{wrong}}} is no field of an index name; write one of {}",
                names.join(", ")
            ));
        };
        return Ok((part.clone(), end + 2));
    }
    let part = match text.as_bytes().get(1) {
        Some(b'Y') => Part::Year,
        Some(b'm') => Part::Month,
        Some(b'd') => Part::Day,
        Some(b'H') => Part::Hour,
        _ => return Err("after '%' an index name takes Y, m, d or H".into()),
    };
    Ok((part, 2))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::container;

    const TIME: i64 = 1_475_713_029_669_794_202;

    fn render(template: &str, origin: &Origin) -> String {
        IndexTemplate::parse(template).expect("a template").render(origin, "Node-1", TIME)
    }

    #[test]
    fn fields_and_dates_are_filled_in() {
        assert_eq!(render("logs-{dataset}-default", &container(0)), "logs-kubernetes.container_logs-default");
        assert_eq!(render("logs-{dataset}-default", &Origin::Plain), "logs-system.syslog-default");
        assert_eq!(render("logstash-%Y.%m.%d", &container(0)), "logstash-2016.10.06");
        assert_eq!(render("app-{kubernetes.namespace}-%H", &container(0)), "app-shop-00");
        assert_eq!(render("app-{kubernetes.namespace}-{host.name}", &Origin::Plain), "app-none-node-1");
    }

    #[test]
    fn a_wrong_template_says_what_may_be_written() {
        for (template, said) in [
            ("logs-{pod}", "write one of dataset, kubernetes.namespace,"),
            ("logs-{dataset", "lacks its closing"),
            ("logs-%q", "takes Y, m, d or H"),
            ("Logs", "can't hold 'L'"),
            ("_logs", "can't start with"),
            ("", "can't be empty"),
        ] {
            let error = IndexTemplate::parse(template).expect_err("refused");
            assert!(error.contains(said), "{template}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_template_panics(text in "\\PC{0,40}") {
            if let Ok(template) = IndexTemplate::parse(&text) {
                template.render(&container(0), "n", TIME);
            }
        }
    }
}
