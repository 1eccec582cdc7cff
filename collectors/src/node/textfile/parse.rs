//! The text format as Prometheus' own parser takes it: one mistake, or a timestamp, refuses the whole file.

use std::collections::HashMap;

use super::scan::{Line, is_label_byte, is_metric_byte, parse_float};
use crate::Kind;

/// A family of a file, ready to be said.
#[derive(Debug, PartialEq)]
pub(super) struct Family {
    pub(super) name: String,
    pub(super) help: Option<String>,
    pub(super) kind: Kind,
    /// Every label name that one of the metrics has, sorted.
    pub(super) labels: Vec<String>,
    pub(super) metrics: Vec<Metric>,
}

/// A series, or all lines of one histogram or summary.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Metric {
    /// The values of the family's labels, empty for those that it lacks.
    pub(super) labels: Vec<String>,
    pub(super) value: f64,
    /// Buckets or quantiles, sorted.
    pub(super) points: Vec<(f64, f64)>,
    pub(super) sum: f64,
    pub(super) count: f64,
}

/// What is wrong with a file, and in which line, counted from 1.
#[derive(Debug, PartialEq)]
pub(super) struct Mistake {
    pub(super) line: usize,
    pub(super) what: &'static str,
}

/// All families of a file that have samples, in the order of their first line.
pub(super) fn parse(text: &[u8]) -> Result<Vec<Family>, Mistake> {
    let mut draft = Drafts::default();
    let mut lines = text.split(|&byte| byte == b'\n').enumerate().peekable();
    while let Some((at, line)) = lines.next() {
        let place = |what| Mistake { line: at + 1, what };
        let line = Line(line).after_blanks();
        if lines.peek().is_none() && !line.0.is_empty() {
            return Err(place("the last line has no end"));
        }
        match line.0.first() {
            None => {}
            Some(b'#') => draft.comment(Line(&line.0[1..])).map_err(place)?,
            Some(_) => draft.sample(line).map_err(place)?,
        }
    }
    Ok(draft.finish())
}

type Labels = Vec<(String, String)>;

/// A family while its file is read.
struct Draft {
    name: String,
    help: Option<String>,
    /// Known from a TYPE line, or from the first sample.
    kind: Option<Kind>,
    metrics: Vec<(Labels, Metric)>,
    /// Where the metric of a label set stands; for histograms and summaries, whose lines come one by one.
    by_labels: HashMap<Labels, usize>,
}

/// What a sample's name adds to the name of its histogram or summary.
#[derive(Clone, Copy, PartialEq)]
enum Role {
    Value,
    Sum,
    Count,
}

#[derive(Default)]
struct Drafts {
    families: Vec<Draft>,
    by_name: HashMap<String, usize>,
}

impl Drafts {
    /// What follows a `#`: only HELP and TYPE lines mean something.
    fn comment(&mut self, line: Line) -> Result<(), &'static str> {
        let (keyword, rest) = line.after_blanks().word();
        if rest.0.is_empty() || !matches!(keyword, b"HELP" | b"TYPE") {
            return Ok(());
        }
        let (name, rest) = rest.after_blanks().name(is_metric_byte)?;
        if rest.0.is_empty() {
            return Ok(());
        }
        if !rest.starts_blank() {
            return Err("expected a metric name after HELP or TYPE");
        }
        let (at, _) = self.family_of(&name)?;
        let family = &mut self.families[at];
        let rest = rest.after_blanks();
        if rest.0.is_empty() {
            return Ok(());
        }
        if keyword == b"HELP" {
            let help = rest.unescaped_help()?;
            return set_once(&mut family.help, help, "a second HELP line for one name");
        }
        let kind = kind_of(rest.0).ok_or("the type is not known")?;
        set_once(&mut family.kind, kind, "a second TYPE line for one name, or one after its samples")
    }

    /// "http_requests_total{code=\"200\"} 1027", or "{\"http_requests_total\",code=\"200\"} 1027".
    fn sample(&mut self, line: Line) -> Result<(), &'static str> {
        let mut name = None;
        let mut rest = line;
        if !line.0.starts_with(b"{") {
            let (found, after) = line.name(is_metric_byte)?;
            name = Some(found);
            rest = after.after_blanks();
        }
        let mut labels = Labels::new();
        if rest.0.starts_with(b"{") {
            rest = read_labels(Line(&rest.0[1..]), &mut name, &mut labels)?.after_blanks();
        }
        let (value, after) = rest.word();
        let value = parse_float(value).ok_or("expected a number as value")?;
        if !after.0.is_empty() {
            return Err("timestamps, or anything else after the value, are not supported");
        }
        let (at, role) = self.family_of(&name.ok_or("expected a metric name")?)?;
        self.families[at].add(role, labels, value)
    }

    /// The family that a name belongs to: `x_sum`, `x_count` and `x_bucket` may be parts of `x`.
    fn family_of(&mut self, name: &str) -> Result<(usize, Role), &'static str> {
        if name.is_empty() || name.as_bytes()[0].is_ascii_digit() || !name.bytes().all(is_metric_byte) {
            return Err("expected a metric name");
        }
        if let Some(&at) = self.by_name.get(name) {
            return Ok((at, Role::Value));
        }
        for (suffix, role) in [("_count", Role::Count), ("_sum", Role::Sum), ("_bucket", Role::Value)] {
            let base = name.strip_suffix(suffix).filter(|base| !base.is_empty());
            if let Some(&at) = base.and_then(|base| self.by_name.get(base)) {
                match self.families[at].kind {
                    Some(Kind::Histogram) => return Ok((at, role)),
                    Some(Kind::Summary) if suffix != "_bucket" => return Ok((at, role)),
                    _ => {}
                }
            }
        }
        let at = self.families.len();
        self.by_name.insert(name.to_owned(), at);
        let metrics = Vec::new();
        self.families.push(Draft {
            name: name.to_owned(),
            help: None,
            kind: None,
            metrics,
            by_labels: HashMap::new(),
        });
        Ok((at, Role::Value))
    }

    fn finish(self) -> Vec<Family> {
        self.families.into_iter().filter(|family| !family.metrics.is_empty()).map(Draft::finish).collect()
    }
}

fn set_once<T>(slot: &mut Option<T>, value: T, what: &'static str) -> Result<(), &'static str> {
    if slot.is_some() {
        return Err(what);
    }
    *slot = Some(value);
    Ok(())
}

/// The type in any case of letters; gauge histograms are no type of this format.
fn kind_of(word: &[u8]) -> Option<Kind> {
    let kinds = [Kind::Counter, Kind::Gauge, Kind::Untyped, Kind::Histogram, Kind::Summary];
    kinds.into_iter().find(|kind| word.eq_ignore_ascii_case(kind.as_str().as_bytes()))
}

impl Draft {
    fn add(&mut self, role: Role, mut labels: Labels, value: f64) -> Result<(), &'static str> {
        let kind = *self.kind.get_or_insert(Kind::Untyped);
        let point_label = match kind {
            Kind::Histogram => "le",
            Kind::Summary => "quantile",
            Kind::Counter | Kind::Gauge | Kind::Untyped => {
                self.metrics.push((labels, Metric { value, ..Metric::default() }));
                return Ok(());
            }
        };
        let mut point = None;
        if let Some(at) = labels.iter().position(|(name, _)| name == point_label) {
            let (_, text) = labels.remove(at);
            point =
                Some(parse_float(text.as_bytes()).ok_or("expected a number in the le or quantile label")?);
        }
        let is_amount =
            kind == Kind::Histogram && (role == Role::Count || role == Role::Value && point.is_some());
        if is_amount && value < 0.0 {
            return Err("a count of a histogram is negative");
        }
        let metric = self.metric_of(labels);
        match (role, point) {
            (Role::Sum, _) => metric.sum = value,
            (Role::Count, _) => metric.count = value.trunc(),
            (Role::Value, Some(point)) => metric.points.push((point, value)),
            (Role::Value, None) => {}
        }
        Ok(())
    }

    /// The histogram or summary with these labels.
    fn metric_of(&mut self, mut labels: Labels) -> &mut Metric {
        labels.sort();
        let next = self.metrics.len();
        let at = *self.by_labels.entry(labels.clone()).or_insert(next);
        if at == next {
            self.metrics.push((labels, Metric::default()));
        }
        &mut self.metrics[at].1
    }

    fn finish(self) -> Family {
        let mut names: Vec<String> = Vec::new();
        for (name, _) in self.metrics.iter().flat_map(|(labels, _)| labels) {
            if let Err(at) = names.binary_search(name) {
                names.insert(at, name.clone());
            }
        }
        let kind = self.kind.unwrap_or(Kind::Untyped);
        let metrics = self.metrics.into_iter().map(|(mut labels, mut metric)| {
            metric.labels = names.iter().map(|name| take(&mut labels, name)).collect();
            settle_points(&mut metric, kind);
            metric
        });
        Family { name: self.name, help: self.help, kind, metrics: metrics.collect(), labels: names }
    }
}

fn take(labels: &mut Labels, name: &str) -> String {
    match labels.iter().position(|(known, _)| known == name) {
        Some(at) => labels.swap_remove(at).1,
        None => String::new(),
    }
}

/// Sorts buckets or quantiles, of equal ones the last counts; a histogram gets its last bucket if it has none.
fn settle_points(metric: &mut Metric, kind: Kind) {
    metric.points.sort_by(|left, right| left.0.total_cmp(&right.0));
    metric.points.dedup_by(|later, earlier| {
        let same = later.0 == earlier.0;
        if same {
            earlier.1 = later.1;
        }
        same
    });
    if kind == Kind::Histogram && !metric.points.iter().any(|point| point.0 == f64::INFINITY) {
        metric.points.push((f64::INFINITY, metric.count));
    }
}

/// Reads up to the closing brace; a word without a value is the metric's name, when it has none yet.
fn read_labels<'a>(
    mut rest: Line<'a>,
    name: &mut Option<String>,
    labels: &mut Labels,
) -> Result<Line<'a>, &'static str> {
    loop {
        rest = rest.after_blanks();
        if let Some(after) = rest.0.strip_prefix(b"}") {
            return Ok(Line(after));
        }
        let (word, after) = rest.name(is_label_byte)?;
        rest = after.after_blanks();
        if let Some(after) = rest.0.strip_prefix(b"=") {
            let (value, after) = Line(after).after_blanks().quoted()?;
            add_label(labels, word, value)?;
            rest = after.after_blanks();
        } else if name.is_none() {
            *name = Some(word);
        } else {
            return Err("expected = after a label name");
        }
        match rest.0.first() {
            Some(b',') => rest = Line(&rest.0[1..]),
            Some(b'}') => {}
            _ => return Err("expected , or } after a label"),
        }
    }
}

fn add_label(labels: &mut Labels, name: String, value: String) -> Result<(), &'static str> {
    if name.is_empty() || name.as_bytes()[0].is_ascii_digit() || !name.bytes().all(is_label_byte) {
        return Err("expected a label name");
    }
    if name == "__name__" {
        return Err("the label __name__ is reserved");
    }
    if labels.iter().any(|(known, _)| *known == name) {
        return Err("a label is given twice");
    }
    labels.push((name, value));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> bool {
        parse(text.as_bytes()).is_err()
    }

    #[test]
    fn labels_are_made_equal_within_a_family() {
        let families =
            parse(b"# HELP a Say \\\\ and\\n.\n# TYPE a counter\na{y=\"1\", x=\"\\\"\"} 1\na 2.5\n")
                .expect("read");
        assert_eq!(families[0].help.as_deref(), Some("Say \\ and\n."));
        assert_eq!(families[0].kind, Kind::Counter);
        assert_eq!(families[0].labels, ["x", "y"]);
        assert_eq!(families[0].metrics[0].labels, ["\"", "1"]);
        assert_eq!(
            (&families[0].metrics[1].labels[..], families[0].metrics[1].value),
            (&["", ""].map(String::from)[..], 2.5)
        );
    }

    #[test]
    fn lines_of_a_histogram_are_gathered() {
        let text = b"# TYPE h histogram\nh_bucket{le=\"2\",a=\"x\"} 3\nh_bucket{a=\"x\",le=\"1\"} 2\nh_sum{a=\"x\"} 4.5\nh_count{a=\"x\"} 5\n";
        let metric = &parse(text).expect("read")[0].metrics[0];
        assert_eq!(metric.points, [(1.0, 2.0), (2.0, 3.0), (f64::INFINITY, 5.0)]);
        assert_eq!((metric.sum, metric.count, &metric.labels[..]), (4.5, 5.0, &["x".to_owned()][..]));
    }

    #[test]
    fn parts_of_an_undeclared_summary_are_families_of_their_own() {
        let families = parse(b"s{quantile=\"0.5\"} 1\ns_sum 2\n").expect("read");
        let names: Vec<&str> = families.iter().map(|family| family.name.as_str()).collect();
        assert_eq!(names, ["s", "s_sum"]);
        assert_eq!(families[0].labels, ["quantile"]);
    }

    #[test]
    fn names_may_stand_in_quotes_and_braces() {
        let families = parse(b"{\"a\",\"x\"=\"1\"} 1\n{ x = \"2\" , a , } 2\n").expect("read");
        assert_eq!((families.len(), families[0].metrics.len()), (1, 2));
    }

    #[test]
    fn comments_blanks_and_families_without_samples_are_passed_over() {
        let text = b"\n  # odd \xff comment\n#\n# HELP\n# HELP a\n# TYPE b counter\n\t\n  a\t1\n  ";
        let families = parse(text).expect("read");
        assert_eq!((families.len(), families[0].kind), (1, Kind::Untyped));
    }

    #[test]
    fn one_mistake_refuses_the_file() {
        for text in [
            "a 1",
            "a\n",
            "a x\n",
            "a 1 \n",
            "a 1 1441205977284\n",
            "a 1\r\n",
            "a 1e999\n",
            "a 0x1\n",
            "a 1_0\n",
            "-a 1\n",
            "a{x=\"1\" 1\n",
            "a{x=1} 1\n",
            "a{x} 1\n",
            "a{=\"1\"} 1\n",
            "a{x=\"1\",x=\"2\"} 1\n",
            "a{__name__=\"b\"} 1\n",
            "a{x=\"\\t\"} 1\n",
            "a{x=\"1} 1\n",
            "{} 1\n",
            "{x=\"1\"} 1\n",
            "{\"a\",\"b\"} 1\n",
            "{\"a b\"} 1\n",
            "a{,} 1\n",
            "# TYPE a odd\na 1\n",
            "# TYPE a gauge\r\na 1\r\n",
            "# TYPE a gaugehistogram\na 1\n",
            "a 1\n# TYPE a gauge\n",
            "# HELP a 1\n# HELP a 1\n",
            "# HELP a \\t\n",
            "# HELP a-b c\n",
            "# HELP - c\n",
            "# TYPE h histogram\nh_count -1\n",
            "# TYPE h histogram\nh_bucket{le=\"x\"} 1\n",
            "# TYPE h histogram\nh_bucket{le=\"1\"} -1\n",
        ] {
            assert!(refused(text), "{text:?}");
        }
        assert!(parse(b"a{x=\"\xff\"} 1\n").is_err());
    }

    #[test]
    fn a_mistake_names_its_line() {
        assert_eq!(parse(b"a 1\n\nb x\n").map_err(|mistake| mistake.line), Err(3));
    }

    #[test]
    fn special_numbers_are_read() {
        let families = parse(b"a +Inf\na -inf\na NaN\na .5\na -1E3\n").expect("read");
        let values: Vec<f64> = families[0].metrics.iter().map(|metric| metric.value).collect();
        assert_eq!(
            (values[0], values[1], values[3], values[4]),
            (f64::INFINITY, f64::NEG_INFINITY, 0.5, -1000.0)
        );
        assert!(values[2].is_nan());
    }
}
