//! How the agent speaks about itself on standard error.

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer, Registry,
    filter::{LevelFilter, Targets},
    fmt::{
        FmtContext, FormatEvent, FormatFields, MakeWriter,
        format::{DefaultFields, Writer},
    },
    layer::SubscriberExt,
    registry::LookupSpan,
    reload,
};

use crate::config::{LogConfig, LogFormat};

/// An error and its causes as one sentence; causes that the error's own text repeats are not said twice.
pub fn sentence(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text += &format!(": {cause}");
        }
    }
    text
}

/// How this process speaks, to be changed while it does.
#[derive(Debug, Clone)]
pub struct Speech {
    filter: reload::Handle<Targets, Registry>,
    is_json: Arc<AtomicBool>,
}

impl Speech {
    /// Speaks like this from now on.
    pub fn set(&self, config: &LogConfig) {
        self.is_json.store(config.format == LogFormat::Json, Relaxed);
        if let Err(error) = self.filter.reload(filter(config)) {
            tracing::error!(%error, "the level of the agent's own log can't be changed");
        }
    }
}

/// Lets every `tracing` event of this process be written to standard error; fails when that was done before.
pub fn init(config: &LogConfig) -> Result<Speech, tracing::subscriber::SetGlobalDefaultError> {
    let (subscriber, speech) = subscriber(config, io::stderr);
    tracing::subscriber::set_global_default(subscriber).map(|()| speech)
}

/// Writes events to `writer`: our own from the configured level on, those of libraries only when they warn.
pub fn subscriber<W>(config: &LogConfig, writer: W) -> (impl Subscriber + Send + Sync + use<W>, Speech)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(filter(config));
    let is_json = Arc::new(AtomicBool::new(config.format == LogFormat::Json));
    let lines = tracing_subscriber::fmt::layer()
        .fmt_fields(DefaultFields::new())
        .event_format(Line(Arc::clone(&is_json)))
        .with_writer(writer);
    (Registry::default().with(lines.with_filter(filter)), Speech { filter: handle, is_json })
}

fn filter(config: &LogConfig) -> Targets {
    let level = LevelFilter::from_level(config.level);
    // The name is a prefix: it stands for nodewarden_collectors too.
    Targets::new().with_target("nodewarden", level).with_default(level.min(LevelFilter::WARN))
}

/// One event on one line, like node_exporter's, or as JSON.
struct Line(Arc<AtomicBool>);

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let time = jiff::fmt::temporal::DateTimePrinter::new()
            .precision(Some(3))
            .timestamp_to_string(&jiff::Timestamp::now());
        let source = source(event);
        let mut all = vec![("time", time), ("level", level(*event.metadata().level()).to_owned())];
        all.extend(source.map(|source| ("source", source)));
        all.push(("msg", fields.message));
        all.extend(fields.others);
        if self.0.load(Relaxed) { json(&mut out, &all) } else { logfmt(&mut out, &all) }
    }
}

/// `scrape.rs:21`.
fn source(event: &Event<'_>) -> Option<String> {
    let metadata = event.metadata();
    let file = metadata.file()?.rsplit('/').next()?;
    Some(format!("{file}:{}", metadata.line()?))
}

fn level(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARN",
        Level::INFO => "INFO",
        _ => "DEBUG",
    }
}

fn logfmt(out: &mut Writer<'_>, fields: &[(&str, String)]) -> fmt::Result {
    for (position, (name, value)) in fields.iter().enumerate() {
        let space = if position == 0 { "" } else { " " };
        let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '=' | '\\');
        match value.is_empty() || value.contains(odd) {
            true => write!(out, "{space}{name}={value:?}")?,
            false => write!(out, "{space}{name}={value}")?,
        }
    }
    writeln!(out)
}

fn json(out: &mut Writer<'_>, fields: &[(&str, String)]) -> fmt::Result {
    let object: serde_json::Map<String, serde_json::Value> =
        fields.iter().map(|(name, value)| ((*name).to_owned(), value.as_str().into())).collect();
    let text = serde_json::to_string(&object).map_err(|_| fmt::Error)?;
    writeln!(out, "{text}")
}

/// The fields of one event.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, String)>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: String) {
        match field.name() {
            "message" => self.message = value,
            name => self.others.push((name, value)),
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.to_owned());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, value.to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn said(level: Level, format: LogFormat, speak: impl FnOnce()) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let (subscriber, _) = subscriber(&LogConfig { level, format }, move || writer.clone());
        tracing::subscriber::with_default(subscriber, speak);
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    /// The line without its time and source, which differ from run to run.
    fn after_source(line: &str) -> &str {
        let line = line.split_once("level=").expect("a level").1;
        assert!(line.contains(" source=telemetry.rs:"), "{line}");
        line
    }

    #[test]
    fn a_cause_is_said_once() {
        let cause = io::Error::other("disk full");
        let error = anyhow::Error::new(cause).context("could not write /a: disk full").context("no logs");
        assert_eq!(sentence(&error), "no logs: could not write /a: disk full");
    }

    #[test]
    fn logfmt_quotes_what_needs_it() {
        let line = said(Level::INFO, LogFormat::Logfmt, || {
            tracing::info!(path = "/a b", bytes = 3, empty = "", "could not read");
        });
        assert!(
            after_source(&line).ends_with("msg=\"could not read\" path=\"/a b\" bytes=3 empty=\"\"\n"),
            "{line}"
        );
        let time = line.strip_prefix("time=").and_then(|rest| rest.split_once(' ')).expect("a time first").0;
        assert!(
            time.parse::<jiff::Timestamp>().is_ok() && time.len() == "2026-11-21T10:00:00.123Z".len(),
            "{time}"
        );
    }

    #[test]
    fn json_is_one_object_a_line() {
        let line = said(Level::INFO, LogFormat::Json, || tracing::warn!(path = "/a\n\"b\"", "odd"));
        let object: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(
            (&object["level"], &object["msg"], &object["path"]),
            (&"WARN".into(), &"odd".into(), &"/a\n\"b\"".into())
        );
        assert_eq!(line.lines().count(), 1);
    }

    #[test]
    fn level_and_format_change_while_it_speaks() {
        let sink = Sink::default();
        let writer = sink.clone();
        let config = LogConfig { level: Level::INFO, format: LogFormat::Logfmt };
        let (subscriber, speech) = subscriber(&config, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!("not heard");
            speech.set(&LogConfig { level: Level::DEBUG, format: LogFormat::Json });
            tracing::debug!("heard");
        });
        let bytes = sink.0.lock().unwrap().clone();
        let object: serde_json::Value = serde_json::from_slice(&bytes).expect("one line of JSON");
        assert_eq!(object["msg"], "heard");
    }

    #[test]
    fn a_line_break_in_a_value_can_t_forge_a_line() {
        let line = said(Level::INFO, LogFormat::Logfmt, || tracing::info!(name = "a\nlevel=ERROR", "seen"));
        assert_eq!(line.lines().count(), 1);
    }

    #[test]
    fn libraries_are_heard_only_when_they_warn() {
        let text = said(Level::DEBUG, LogFormat::Logfmt, || {
            tracing::debug!("ours");
            tracing::debug!(target: "nodewarden_collectors::host", "ours too");
            tracing::info!(target: "hyper", "theirs");
            tracing::warn!(target: "hyper", "their warning");
        });
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(!text.contains("msg=theirs"));
        let quiet = said(Level::ERROR, LogFormat::Logfmt, || tracing::warn!(target: "hyper", "theirs"));
        assert_eq!(quiet, "");
    }
}
