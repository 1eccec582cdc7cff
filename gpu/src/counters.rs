//! Which metrics are wanted: dcgm-exporter's file of counters, `NAME, TYPE, HELP` per line.

use nodewarden_collectors::Kind;

use crate::fields::{FIELDS, FieldId, LABELS, UNREACHABLE};

/// The metrics and labels that are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counters {
    /// In the order of the file.
    pub metrics: Vec<Counter>,
    /// Places in [`LABELS`].
    pub labels: Vec<&'static str>,
}

/// One metric that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counter {
    /// Which.
    pub field: FieldId,
    /// The type that the file says.
    pub kind: Kind,
    /// The help text that it says.
    pub help: String,
}

/// What was found in a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// What is wanted, unless something is wrong.
    pub counters: Option<Counters>,
    /// What is wrong, by line.
    pub mistakes: Vec<(usize, String)>,
    /// What has no effect, and why.
    pub notes: Vec<String>,
}

impl Default for Counters {
    /// Those that dcgm-exporter prints without being told otherwise.
    fn default() -> Self {
        let on = FIELDS.iter().enumerate().filter(|(_, field)| field.is_default);
        let counter = |(at, field): (usize, &crate::fields::Field)| Counter {
            field: FieldId(at as u16),
            kind: field.kind,
            help: field.help.to_owned(),
        };
        Self { metrics: on.map(counter).collect(), labels: vec![LABELS[0]] }
    }
}

impl Counters {
    /// Reads a file's text.
    pub fn parse(text: &str) -> Parsed {
        let mut parsed = Parsed::default();
        let mut counters = Self { metrics: Vec::new(), labels: Vec::new() };
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                match counters.take(line) {
                    Ok(None) => {}
                    Ok(Some(note)) => parsed.notes.push(note),
                    Err(mistake) => parsed.mistakes.push((at + 1, mistake)),
                }
            }
        }
        if parsed.mistakes.is_empty() && counters.metrics.is_empty() {
            parsed.mistakes.push((
                1,
                "it names no metric; write lines such as 'DCGM_FI_DEV_GPU_TEMP, gauge, GPU temperature (in C).'".into(),
            ));
        }
        parsed.counters = parsed.mistakes.is_empty().then_some(counters);
        parsed
    }

    /// Takes a line; what is to be said of it if it has no effect.
    fn take(&mut self, line: &str) -> Result<Option<String>, String> {
        let mut parts = line.splitn(3, ',').map(str::trim);
        let (Some(name), Some(kind), Some(help)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(format!("expected 'NAME, gauge|counter|label, HELP', not '{line}'"));
        };
        if kind == "label" {
            let Some(label) = LABELS.iter().find(|label| **label == name) else {
                return Err(format!("{name} is not a label; the labels are {}", LABELS.join(", ")));
            };
            if !self.labels.contains(label) {
                self.labels.push(label);
            }
            return Ok(None);
        }
        let kind = match kind {
            "gauge" => Kind::Gauge,
            "counter" => Kind::Counter,
            odd => return Err(format!("expected gauge, counter or label, not '{odd}'")),
        };
        if let Some((_, why)) = UNREACHABLE.iter().find(|(known, _)| *known == name) {
            return Ok(Some(format!("{name} has no series: {why}")));
        }
        let Some(field) = FieldId::of(name) else {
            return match name.starts_with("DCGM_FI_") || name.starts_with("DCGM_EXP_") {
                true => Ok(Some(format!(
                    "{name} has no series: it is not among the metrics that are read from NVML"
                ))),
                false => Err(format!(
                    "'{name}' is not a metric of DCGM; their names begin with DCGM_FI_ or DCGM_EXP_"
                )),
            };
        };
        if self.metrics.iter().any(|known| known.field == field) {
            return Ok(Some(format!("{name} is there twice; the first line counts")));
        }
        let bare = help.strip_prefix('"').and_then(|help| help.strip_suffix('"')).unwrap_or(help);
        // An enum is no counter, and a rate is none either: the table knows better than older files.
        let kind = if field.field().kind == Kind::Gauge { Kind::Gauge } else { kind };
        self.metrics.push(Counter { field, kind, help: bare.replace("\"\"", "\"") });
        Ok(None)
    }

    /// The fields alone.
    pub fn fields(&self) -> Vec<FieldId> {
        self.metrics.iter().map(|counter| counter.field).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_file_is_read_as_dcgm_exporter_reads_it() {
        let text = "# Format\n\n  # DCGM FIELD, Prometheus metric type, help message\n\
                    DCGM_FI_DEV_GPU_TEMP,    gauge, GPU temperature (in C).\r\n\
                    DCGM_FI_DEV_DEC_UTIL ,     gauge, Decoder, utilization (in %).\n\
                    DCGM_FI_DEV_PCIE_REPLAY_COUNTER, counter, \"Retries, \"\"all\"\"\"\n\
                    DCGM_FI_DRIVER_VERSION, label, Driver Version\n";
        let parsed = Counters::parse(text);
        let counters = parsed.counters.expect("nothing is wrong");
        let seen: Vec<(&str, Kind, &str)> = counters
            .metrics
            .iter()
            .map(|counter| (counter.field.field().name, counter.kind, counter.help.as_str()))
            .collect();
        assert_eq!(
            seen,
            [
                ("DCGM_FI_DEV_GPU_TEMP", Kind::Gauge, "GPU temperature (in C)."),
                ("DCGM_FI_DEV_DEC_UTIL", Kind::Gauge, "Decoder, utilization (in %)."),
                ("DCGM_FI_DEV_PCIE_REPLAY_COUNTER", Kind::Counter, "Retries, \"all\""),
            ]
        );
        assert_eq!((counters.labels, parsed.notes), (vec!["DCGM_FI_DRIVER_VERSION"], vec![]));
    }

    #[test]
    fn every_mistake_is_said_with_its_line() {
        let text = "DCGM_FI_DEV_GPU_TEMP, gauge\nDCGM_FI_DEV_FB_USED, histogram, x\n#\nnvidia_temp, gauge, x\n\
                    DCGM_FI_DEV_COLOUR, label, x\n";
        let parsed = Counters::parse(text);
        assert_eq!(parsed.counters, None);
        let lines: Vec<usize> = parsed.mistakes.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [1, 2, 4, 5], "{:?}", parsed.mistakes);
        assert!(Counters::parse("# nothing\n").mistakes[0].1.contains("names no metric"));
    }

    #[test]
    fn what_has_no_series_is_said() {
        let text = "DCGM_EXP_GPU_HEALTH_STATUS, counter, x\nDCGM_FI_DEV_NOVEL, gauge, x\n\
                    DCGM_FI_DEV_GPU_TEMP, gauge, x\nDCGM_FI_DEV_GPU_TEMP, gauge, y\n";
        let parsed = Counters::parse(text);
        assert_eq!(parsed.counters.expect("nothing is wrong").metrics.len(), 1);
        assert_eq!(parsed.notes.len(), 3, "{:?}", parsed.notes);
    }

    #[test]
    fn what_goes_down_too_is_no_counter() {
        let parsed = Counters::parse("DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL, counter, x");
        assert_eq!(parsed.counters.expect("nothing is wrong").metrics[0].kind, Kind::Gauge);
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "([A-Z_]{0,20}, ?(gauge|counter|label)?,?[ -~]{0,9}\\PC?\n?){0,8}") {
            let parsed = Counters::parse(&text);
            prop_assert!(parsed.counters.is_some() == parsed.mistakes.is_empty());
        }
    }
}
