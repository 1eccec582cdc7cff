//! What the configuration ships to: the names that need a template, and the data streams among them.

use crate::{
    config::{IndexTemplate, Source, SourceKind},
    logs::index::{CONTAINER_LOGS, JOURNAL, KERNEL, Period, SYSLOG},
};

/// All indices or data streams of one index setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// What its template and policy are called.
    pub name: String,
    /// What its names fit.
    pub patterns: Vec<String>,
    /// Whether these are data streams.
    pub is_stream: bool,
    /// Those data streams whose names are known beforehand.
    pub streams: Vec<String>,
    /// How often there is a new index, by its name.
    pub period: Option<Period>,
}

const DATASETS: [&str; 4] = [CONTAINER_LOGS, SYSLOG, JOURNAL, KERNEL];

/// Whatever the sources ship to, by their own index or the common one.
pub fn targets(sources: &[Source], common: &IndexTemplate) -> Vec<Target> {
    let mut targets: Vec<(&IndexTemplate, Target)> = Vec::new();
    for source in sources {
        let template = source.index.as_ref().unwrap_or(common);
        let dataset = match source.kind {
            SourceKind::Kubernetes { .. } => CONTAINER_LOGS,
            SourceKind::Files { .. } => SYSLOG,
            SourceKind::Journal { .. } => JOURNAL,
            SourceKind::Kernel => KERNEL,
        };
        let at = targets.iter().position(|(known, _)| *known == template).unwrap_or_else(|| {
            let target = Target::new(template, &targets);
            targets.push((template, target));
            targets.len() - 1
        });
        let target = &mut targets[at].1;
        let stream = template.name_of(dataset).filter(|_| target.is_stream);
        target.streams.extend(stream.filter(|stream| !target.streams.contains(stream)));
    }
    targets.into_iter().map(|(_, target)| target).collect()
}

impl Target {
    fn new(template: &IndexTemplate, known: &[(&IndexTemplate, Self)]) -> Self {
        // All datasets, whichever this agent has sources for: agents of one cluster differ in that.
        let mut patterns = DATASETS.map(|dataset| template.pattern_of(dataset)).to_vec();
        patterns.sort();
        patterns.dedup();
        // The names that Elasticsearch itself gives to data streams of logs.
        let is_stream = template.period().is_none()
            && patterns.iter().all(|pattern| pattern.starts_with("logs-") && pattern.split('-').count() >= 3);
        let first = format!("nodewarden-{}", slug(&template.pattern_of("*")));
        let is_taken = |name: &String| known.iter().any(|(_, target)| target.name == *name);
        let others = (2..).map(|number| format!("{first}-{number}"));
        let name =
            std::iter::once(first.clone()).chain(others).find(|name| !is_taken(name)).unwrap_or_default();
        Self { name, patterns, is_stream, streams: Vec::new(), period: template.period() }
    }
}

/// `logs-*-default` as `logs-default`.
fn slug(pattern: &str) -> String {
    let words = pattern.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(kind: SourceKind, index: Option<&str>) -> Source {
        Source {
            kind,
            index: index.map(|index| IndexTemplate::parse(index).expect("a template")),
            multiline: None,
        }
    }

    #[test]
    fn the_defaults_are_one_template_and_a_stream_by_source() {
        let sources = [
            source(SourceKind::kubernetes(), None),
            source(SourceKind::Kernel, None),
            source(SourceKind::Kernel, None),
        ];
        let [target] = &targets(&sources, &IndexTemplate::default())[..] else { panic!("not one") };
        assert_eq!(target.name, "nodewarden-logs-default");
        assert_eq!(
            target.patterns,
            [
                "logs-kubernetes.container_logs-default",
                "logs-system.journal-default",
                "logs-system.kernel-default",
                "logs-system.syslog-default"
            ]
        );
        assert!(target.is_stream);
        assert_eq!(target.streams, ["logs-kubernetes.container_logs-default", "logs-system.kernel-default"]);
    }

    #[test]
    fn dated_names_and_those_of_fields_are_known_by_a_pattern() {
        let sources = [
            source(SourceKind::kubernetes(), None),
            source(SourceKind::Kernel, Some("logs-{dataset}-{kubernetes.namespace}")),
            source(SourceKind::journal(), Some("logstash-%G.%V")),
            source(SourceKind::journal(), Some("plain")),
        ];
        let common = IndexTemplate::parse("logstash-%Y.%m.%d").expect("a template");
        let found = targets(&sources, &common);
        let seen =
            |target: &Target| (target.name.clone(), target.is_stream, target.streams.len(), target.period);
        assert_eq!(
            found.iter().map(seen).collect::<Vec<_>>(),
            [
                ("nodewarden-logstash".into(), false, 0, Some(Period::Day)),
                ("nodewarden-logs".into(), true, 0, None),
                ("nodewarden-logstash-2".into(), false, 0, Some(Period::Week)),
                ("nodewarden-plain".into(), false, 0, None),
            ]
        );
        assert_eq!(
            (&found[0].patterns[..], &found[3].patterns[..]),
            (&["logstash-*".into()][..], &["plain".into()][..])
        );
    }
}
