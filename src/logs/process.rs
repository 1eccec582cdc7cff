//! What is done with the lines of files that something is configured for: rules, limits, redaction, JSON bodies. Other files
//! have no [`Process`], and their lines go from `join` to `shape` without passing here.
//!
//! Rules and limits come first, so that nothing is done to lines that are left out. A line that is left out is settled at
//! once, but for the last one of a row: that one holds the position until the row is over, and its place in the file (and so
//! its id) is that of the document which says how many there were. A kept line is never put off.

mod complaints;
pub mod fields;
mod hints;
pub mod json;
pub mod level;
pub mod limits;
pub mod pattern;
pub mod redact;
pub mod rules;
pub mod select;
#[cfg(test)]
mod tests;

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use prometheus::IntCounter;

use self::{
    complaints::Complaints,
    fields::FieldNames,
    hints::Hints,
    json::{Guess, Merged},
    level::Level,
    limits::{FileLimits, Limits, Registry},
    redact::{Builtin, Detector, KeyBlock, Redactor, What},
    rules::{Action, Active, Reason, Rule, judge},
    select::Selection,
};
use super::{
    multiline::Multiline,
    record::{FileFacts, FileId, Line, Origin, PodFacts, Span, Stream},
    shape::{Encoding, Schema, write_string},
};
use crate::metrics::{ledger::Amount, own::LogMetrics};

/// Longer lines are not compared with the one before.
const LONGEST_REPEATED: usize = 2048;
/// How long the number of lines that a limit held back waits for the next line that passes.
const HELD_BACK_FOR: Duration = Duration::from_secs(10);
const NANOS_PER_DAY: i64 = 86_400_000_000_000;

/// Everything that the configuration wants done with lines; by default nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// How JSON lines become fields, if they do.
    pub json: json::Settings,
    /// Which lines are kept, in this order.
    pub rules: Vec<Rule>,
    /// How much may be written.
    pub limits: Limits,
    /// What is taken out of lines.
    pub redact: Vec<Redaction>,
    /// Whether documents say the level that is recognised in the text of their line.
    pub levels: bool,
}

/// Something that is taken out of the lines of some files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redaction {
    /// What metrics call it.
    pub name: String,
    /// The files.
    pub selection: Selection,
    /// What it is.
    pub what: What,
}

/// The settings at work, shared by all files.
#[derive(Debug)]
pub struct Processors {
    settings: Settings,
    rules: Vec<Arc<Active>>,
    detectors: Vec<(Selection, Arc<Detector>)>,
    limits: Registry,
    /// Lines that annotations of pods leave out.
    hint_lines: IntCounter,
    /// What annotations of pods say in vain.
    complaints: Complaints,
    /// The fields of each index.
    names: Mutex<HashMap<String, Arc<Mutex<FieldNames>>>>,
}

/// Where lines go from here.
pub trait Outlet {
    /// Whether the line at hand was not read before.
    fn is_new(&self) -> bool;
    /// A line goes out, with members for its document: `fields` as [`encode_with`](super::shape::Shape::encode_with) takes
    /// them, and `extra` at its end.
    fn document(&mut self, line: &Line<'_>, fields: &[u8], extra: &[u8]);
    /// A line is left out.
    fn dropped(&mut self, span: Span, amount: Amount, reason: Reason);
    /// Fields of a line had no room in its index.
    fn overflowed(&mut self, fields: u64);
}

/// What is done with the lines of one file, and what is remembered of them.
#[derive(Debug)]
pub struct Process {
    shared: Arc<Processors>,
    file: FileId,
    rules: Vec<Arc<Active>>,
    /// Whether levels are looked for.
    asks_level: bool,
    /// What ends a document's `log` when a level was put into it; `None` where documents say none.
    close_log: Option<Vec<u8>>,
    limits: Option<FileLimits>,
    collapse: Option<Duration>,
    redactor: Option<Redactor>,
    /// Whether the sink takes documents; else it takes text alone.
    body: Option<Body>,
    /// Lines in a row that were left out.
    row: Option<Row>,
    /// The last line that went out.
    previous: Option<Previous>,
    /// By stream, a private key whose lines are coming.
    keys: Option<[KeyBlock; 3]>,
}

/// JSON lines of one file.
#[derive(Debug)]
struct Body {
    settings: json::Settings,
    guess: Guess,
    names: Arc<Mutex<FieldNames>>,
    is_dated: bool,
    merged: Merged,
}

#[derive(Debug)]
struct Previous {
    stream: Stream,
    text: Vec<u8>,
    time: i64,
}

/// Lines in a row that were left out; only the last one is not settled.
#[derive(Debug)]
struct Row {
    /// What for.
    of: Reason,
    last: Held,
    amount: Amount,
    /// How many documents they would be.
    repeats: u64,
    began: Instant,
    first_time: i64,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    time: i64,
    stream: Stream,
    span: Span,
    amount: Amount,
    reason: Reason,
}

impl Held {
    fn new(line: &Line<'_>, reason: Reason) -> Self {
        Self { time: line.time, stream: line.stream, span: line.span, amount: line.amount(), reason }
    }
}

impl Row {
    fn new(line: &Line<'_>, of: Reason, now: Instant) -> Self {
        Self {
            of,
            last: Held::new(line, of),
            amount: line.amount(),
            repeats: 1,
            began: now,
            first_time: line.time,
        }
    }

    /// One more line is left out.
    fn push(&mut self, line: &Line<'_>, reason: Reason, out: &mut dyn Outlet) {
        out.dropped(self.last.span, self.last.amount, self.last.reason);
        self.last = Held::new(line, reason);
        if reason == self.of {
            self.amount.add(line.amount());
            self.repeats += 1;
        }
    }
}

impl Processors {
    /// Ready for files.
    pub fn new(settings: Settings, metrics: &LogMetrics) -> Arc<Self> {
        let rules = settings.rules.iter().map(|rule| {
            let hits = metrics.rule_lines.with_label_values(&[rule.name.as_str()]);
            Arc::new(Active { rule: rule.clone(), hits })
        });
        let detectors = settings.redact.iter().map(|redaction| {
            let hits = metrics.redacted_lines.with_label_values(&[redaction.name.as_str()]);
            (redaction.selection.clone(), Arc::new(Detector::new(&redaction.what, hits)))
        });
        Arc::new(Self {
            rules: rules.collect(),
            detectors: detectors.collect(),
            limits: Registry::default(),
            hint_lines: metrics.rule_lines.with_label_values(&[hints::NAME]),
            complaints: Complaints::default(),
            names: Mutex::default(),
            settings,
        })
    }

    /// What is to be done with a file's lines; `None` when that is nothing.
    pub fn of_file(self: &Arc<Self>, facts: &FileFacts, encoding: &Encoding) -> Option<Box<Process>> {
        let hints = Hints::of(facts);
        if let (PodFacts::Known(pod), Some(container)) = (&facts.pod, facts.origin.container()) {
            self.complaints.note(pod, container, hints.complaints());
        }
        let is_feed = matches!(facts.origin, Origin::Journal | Origin::Kernel | Origin::Canary);
        let fitting = self.rules.iter().filter(|active| active.rule.selection.fits(facts));
        // What the pod says comes first: it knows its lines best.
        let (mut rules, mut collapse) = (hints.rules(&self.hint_lines), None);
        for active in fitting {
            match active.rule.action {
                Action::Collapse(within) => collapse = collapse.or(Some(within)),
                _ => rules.push(Arc::clone(active)),
            }
        }
        let found = self.detectors.iter().filter(|(selection, _)| selection.fits(facts));
        let redactor = Redactor::new(found.map(|(_, detector)| Arc::clone(detector)).collect());
        let limits = self.limits.of_file(facts, &self.settings.limits);
        let close_log = close_log(encoding).filter(|_| !is_feed);
        let body = self.body(facts, encoding, &hints).filter(|_| !is_feed);
        let says_levels = self.settings.levels && close_log.is_some();
        let has_rules = !rules.is_empty() || collapse.is_some() || redactor.is_some() || limits.is_some();
        if !has_rules && body.is_none() && !says_levels {
            return None;
        }
        Some(Box::new(Process {
            shared: Arc::clone(self),
            file: facts.id,
            asks_level: close_log.is_some() || rules.iter().any(|active| active.rule.condition.asks_level()),
            rules,
            close_log,
            limits,
            // The same lines of a feed differ in their fields.
            collapse: collapse.filter(|_| !is_feed),
            keys: redactor
                .as_ref()
                .filter(|redactor| redactor.knows_private_keys())
                .map(|_| Default::default()),
            redactor,
            body,
            row: None,
            previous: None,
        }))
    }

    /// What of the annotations of a file's pod is not followed, a sentence each.
    pub fn notes(&self, origin: &Origin) -> Vec<String> {
        origin.container().map(|container| self.complaints.of(container)).unwrap_or_default()
    }

    fn body(&self, facts: &FileFacts, encoding: &Encoding, hints: &Hints) -> Option<Body> {
        let settings = hints.json(&self.settings.json).filter(|json| json.enabled)?;
        let Encoding::Bulk(bulk) = encoding else { return None };
        let name = bulk.index.of(facts, &bulk.node);
        let (is_dated, index) = (name.is_dated(), name.at(0));
        let mut known = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        // An index that nobody writes to may be forgotten.
        if known.len() >= 1024 {
            known.retain(|_, names| Arc::strong_count(names) > 1);
        }
        let names = known
            .entry(index)
            .or_insert_with(|| Arc::new(Mutex::new(FieldNames::new(settings.max_index_fields))));
        let names = Arc::clone(names);
        let settings = settings.into_owned();
        Some(Body { settings, guess: Guess::default(), names, is_dated, merged: Merged::default() })
    }

    /// Nothing is done with any line.
    pub fn none(metrics: &LogMetrics) -> Arc<Self> {
        Self::new(Settings::default(), metrics)
    }
}

/// What follows a level in the documents of files.
fn close_log(encoding: &Encoding) -> Option<Vec<u8>> {
    let Encoding::Bulk(bulk) = encoding else { return None };
    if bulk.schema != Schema::Ecs {
        return None;
    }
    let mut piece = b"},\"host\":{\"name\":".to_vec();
    write_string(bulk.node.as_bytes(), &mut piece);
    Some(piece)
}

/// How a pod wants the lines of a file put together, if it says so.
pub fn multiline_of(facts: &FileFacts) -> Option<Multiline> {
    Hints::of(facts).multiline()
}

impl Process {
    /// Goes on from what another one knows of the same file's lines.
    pub fn adopt(&mut self, other: Self) {
        (self.row, self.previous) = (other.row, other.previous);
        if self.keys.is_some() {
            self.keys = other.keys.or(self.keys.take());
        }
        if self.limits.is_some() {
            self.limits = other.limits.or(self.limits.take());
        }
    }

    /// Takes one whole line, whose document has these fields already.
    pub fn take(&mut self, line: &Line<'_>, fields: &[u8], out: &mut dyn Outlet, now: Instant) {
        let is_new = out.is_new();
        let level = self.level(line.text, fields);
        let is_secret = match &mut self.keys {
            Some(keys) => keys[line.stream as usize].take(line.text, line.span.start, now),
            None => false,
        };
        let rules = self.rules.iter().map(AsRef::as_ref);
        if let Some(reason) =
            judge(rules, self.file, line.span.start, (line.stream, line.text), level, is_new)
        {
            return match &mut self.row {
                // Its place is as good as that of the last one to say how many there were.
                Some(row) => row.push(line, reason, out),
                None => out.dropped(line.span, line.amount(), reason),
            };
        }
        let limits = self.limits.as_mut();
        let refused = limits.and_then(|limits| limits.judge(line.time, line.span, line.amount(), is_new));
        if let Some(reason) = refused {
            return match &mut self.row {
                Some(row) if row.of == reason => row.push(line, reason, out),
                _ => {
                    self.end_row(out);
                    self.row = Some(Row::new(line, reason, now));
                }
            };
        }
        if !is_secret && fields.is_empty() && self.is_repeated(line, out, now) {
            return;
        }
        self.end_row(out);
        if self.collapse.is_some() {
            self.remember(line);
        }
        let text =
            if is_secret { Cow::Borrowed(&b"[redacted:private_key]"[..]) } else { self.redact(line.text) };
        self.document(&Line { text: &text, ..*line }, fields, level, out);
    }

    /// No more lines have come up to a time, or none will come at all: says how many were left out, gives up what is waited for.
    pub fn rest(&mut self, until: Option<Instant>, out: &mut dyn Outlet) {
        let is_due = |due: Option<Instant>| due.is_some_and(|due| until.is_none_or(|now| now >= due));
        if is_due(self.row_due()) {
            self.end_row(out);
        }
        if is_due(self.keys_due()) {
            self.keys = self.keys.map(|_| Default::default());
        }
    }

    /// Says of the lines that were left out in a row how many they were.
    fn end_row(&mut self, out: &mut dyn Outlet) {
        let Some(row) = self.row.take() else { return };
        let Held { time, stream, span, amount, reason } = row.last;
        let text =
            self.previous.as_ref().map_or(Cow::Borrowed(&b""[..]), |previous| self.redact(&previous.text));
        let text = text.into_owned();
        let (bytes, lines) = (amount.bytes, amount.lines as u32);
        let line = Line { time, stream, text: &text, span, bytes, lines };
        let level = self.level(&text, b"");
        if row.of != Reason::Repeated {
            let limit = FileLimits::describe(row.of, &self.shared.settings.limits);
            let Amount { lines, bytes } = row.amount;
            let said = format!("nodewarden left out {lines} lines, {bytes} bytes of this file: {limit}");
            let extra = format!(
                ",\"nodewarden\":{{\"left_out\":{{\"lines\":{lines},\"bytes\":{bytes},\"reason\":\"{}\"}}}}",
                row.of.as_str()
            );
            out.document(&Line { text: said.as_bytes(), ..line }, b"", extra.as_bytes());
        } else if row.repeats == 1 && reason == Reason::Repeated {
            // Once more is no row.
            self.document(&line, b"", level, out);
        } else {
            let mut said = format!("message repeated {} times: [", row.repeats).into_bytes();
            said.extend_from_slice(&text);
            said.push(b']');
            let extra = format!(",\"nodewarden\":{{\"repeated\":{}}}", row.repeats);
            let fields = self.level_fields(level, b"");
            out.document(&Line { text: &said, ..line }, &fields, extra.as_bytes());
        }
    }

    /// Forgets what it knows of lines: the file is read again from where it is confirmed.
    pub fn set_back(&mut self) {
        (self.row, self.previous) = (None, None);
        self.keys = self.keys.map(|_| Default::default());
    }

    /// What is below this offset will not be read again.
    pub fn passed(&mut self, confirmed: u64) {
        if let Some(limits) = &mut self.limits {
            limits.passed(confirmed);
        }
    }

    /// The first byte that has to be read again to know what is remembered here.
    pub fn held_from(&self) -> Option<u64> {
        let row = self.row.as_ref().map(|row| row.last.span.start);
        let keys = self.keys.iter().flatten().filter_map(KeyBlock::from);
        row.into_iter().chain(keys).min()
    }

    /// What of the file is remembered here and was neither given out nor left out.
    pub fn held(&self) -> Amount {
        self.row.as_ref().map(|row| row.last.amount).unwrap_or_default()
    }

    /// When something has to be done also if no more lines come.
    pub fn due(&self) -> Option<Instant> {
        self.row_due().into_iter().chain(self.keys_due()).min()
    }

    fn row_due(&self) -> Option<Instant> {
        let row = self.row.as_ref()?;
        Some(row.began + if row.of == Reason::Repeated { self.collapse? } else { HELD_BACK_FOR })
    }

    fn keys_due(&self) -> Option<Instant> {
        self.keys.iter().flatten().filter_map(KeyBlock::due).min()
    }

    /// What a line may take in a batch beyond its text.
    pub fn room(&self, text: usize) -> usize {
        let body = if self.body.is_some() { text } else { 0 };
        body + self.row.as_ref().map_or(0, |_| LONGEST_REPEATED)
    }

    fn level(&self, text: &[u8], fields: &[u8]) -> Option<Level> {
        if !self.asks_level {
            return None;
        }
        if fields.is_empty() { level::recognise(text) } else { level::of_fields(fields) }
    }

    /// Whether it is the same as the line before, and only counted.
    fn is_repeated(&mut self, line: &Line<'_>, out: &mut dyn Outlet, now: Instant) -> bool {
        let (Some(within), Some(previous)) = (self.collapse, &mut self.previous) else { return false };
        let (within, age) = (within.as_nanos() as i64, line.time.saturating_sub(previous.time));
        if previous.stream != line.stream || previous.text != line.text || !(0..=within).contains(&age) {
            return false;
        }
        previous.time = line.time;
        match &mut self.row {
            Some(row) if row.of == Reason::Repeated && line.time.saturating_sub(row.first_time) <= within => {
                row.push(line, Reason::Repeated, out);
            }
            _ => {
                self.end_row(out);
                self.row = Some(Row::new(line, Reason::Repeated, now));
            }
        }
        true
    }

    fn remember(&mut self, line: &Line<'_>) {
        if line.text.len() > LONGEST_REPEATED {
            self.previous = None;
            return;
        }
        let mut text = self.previous.take().map_or_else(Vec::new, |previous| previous.text);
        text.clear();
        text.extend_from_slice(line.text);
        self.previous = Some(Previous { stream: line.stream, text, time: line.time });
    }

    fn redact<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        self.redactor.as_ref().map_or(Cow::Borrowed(text), |redactor| redactor.redact(text))
    }

    /// A line goes out whose text holds no secrets any more.
    fn document(&mut self, line: &Line<'_>, fields: &[u8], level: Option<Level>, out: &mut dyn Outlet) {
        let fields = match &self.redactor {
            Some(redactor) if !fields.is_empty() => redactor.redact_members(fields),
            _ => Cow::Borrowed(fields),
        };
        let fields = self.level_fields(level, &fields);
        let Self { body: Some(body), .. } = self else {
            return out.document(line, &fields, b"");
        };
        let Body { settings, guess, names, is_dated, merged } = body;
        let is_object = line.text.first() == Some(&b'{') && {
            let mut names = names.lock().unwrap_or_else(PoisonError::into_inner);
            if *is_dated {
                names.at_day(line.time.div_euclid(NANOS_PER_DAY));
            }
            merged.read(line.text, settings, &mut names).is_ok()
        };
        if guess.saw(is_object) {
            out.overflowed(merged.overflowed);
            let text = merged.message.as_deref().unwrap_or(line.text);
            let time = merged.time.unwrap_or(line.time);
            out.document(&Line { text, time, ..*line }, &fields, &merged.members);
        } else {
            out.document(line, &fields, b"");
        }
        merged.let_go();
    }

    /// The fields with the level that was recognised, where they do not say one already.
    fn level_fields<'a>(&self, level: Option<Level>, fields: &'a [u8]) -> Cow<'a, [u8]> {
        match (&self.close_log, level) {
            (Some(close), Some(level)) if fields.is_empty() => {
                let mut members = b",\"level\":\"".to_vec();
                members.extend_from_slice(level.as_str().as_bytes());
                members.push(b'"');
                members.extend_from_slice(close);
                Cow::Owned(members)
            }
            _ => Cow::Borrowed(fields),
        }
    }
}

impl Redaction {
    /// A secret known by its form, in all files.
    pub fn builtin(builtin: Builtin) -> Self {
        let name = builtin.as_str().to_owned();
        Self { name, selection: Selection::default(), what: What::Builtin(builtin) }
    }
}
