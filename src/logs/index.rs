//! The name of the index that a document goes to.

use super::{
    format::{civil_from_days, days_from_civil},
    process::fields::dedot,
    record::{FileFacts, Origin},
};

/// The datasets of containers, plain files, the journal and the kernel's messages.
pub const CONTAINER_LOGS: &str = "kubernetes.container_logs";
/// See [`CONTAINER_LOGS`].
pub const SYSLOG: &str = "system.syslog";
/// See [`CONTAINER_LOGS`].
pub const JOURNAL: &str = "system.journal";
/// See [`CONTAINER_LOGS`].
pub const KERNEL: &str = "system.kernel";

/// A name has 255 bytes at most, and a data stream's own indices put `.ds-` and `-2099.12.31-000001` around theirs.
const LONGEST: usize = 255 - 22;
/// Neither an index nor a data stream begins so; with a dot begins what the server keeps for itself.
const NEVER_FIRST: [char; 4] = ['-', '_', '+', '.'];
/// What stands for a field of which nothing is known.
const NONE: &str = "none";
const LABELS: &str = "kubernetes.labels.";

/// What may stand in braces, beside labels: all of it is known from a file's path.
const FIELDS: [(&str, Field); 6] = [
    ("dataset", Field::Dataset),
    ("kubernetes.namespace", Field::Namespace),
    ("kubernetes.pod.name", Field::Pod),
    ("kubernetes.container.name", Field::Container),
    ("kubernetes.node.name", Field::Node),
    ("host.name", Field::Node),
];

/// What may stand behind a `%`, as strftime has it.
const PLACES: [(u8, Place); 10] = [
    (b'Y', Place::Year),
    (b'y', Place::ShortYear),
    (b'm', Place::Month),
    (b'd', Place::Day),
    (b'j', Place::DayOfYear),
    (b'H', Place::Hour),
    (b'G', Place::WeekYear),
    (b'V', Place::Week),
    (b'W', Place::MondayWeek),
    (b'U', Place::SundayWeek),
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
    Field(Field),
    Time(Place),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Field {
    Dataset,
    Namespace,
    Pod,
    Container,
    Node,
    /// A label of the pod, its key without dots.
    Label(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Year,
    ShortYear,
    Month,
    Day,
    DayOfYear,
    Hour,
    /// The year that an ISO week belongs to.
    WeekYear,
    /// The ISO week.
    Week,
    /// The week of the year, where weeks begin on Mondays.
    MondayWeek,
    /// The same with Sundays.
    SundayWeek,
}

/// How often a template begins a new name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Period {
    /// By the hour.
    Hour,
    /// By the day.
    Day,
    /// By the week.
    Week,
    /// By the month.
    Month,
    /// By the year.
    Year,
}

impl Default for IndexTemplate {
    /// `logs-{dataset}-default`, a data stream per kind of source.
    fn default() -> Self {
        let text = |text: &str| Part::Text(text.into());
        let parts = vec![text("logs-"), Part::Field(Field::Dataset), text("-default")];
        Self { text: "logs-{dataset}-default".into(), parts }
    }
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
        let longest: usize = parts.iter().map(Part::least_bytes).sum();
        if longest > LONGEST {
            return Err(format!("an index name has room for {LONGEST} bytes, not for {longest}"));
        }
        Ok(Self { text: text.to_owned(), parts })
    }

    /// The template as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// How often the time of documents begins a new name; `None` when it never does.
    pub fn period(&self) -> Option<Period> {
        self.parts.iter().filter_map(Part::period).min()
    }

    /// The one name of all documents of a dataset; `None` when it depends on more.
    pub fn name_of(&self, dataset: &str) -> Option<String> {
        let part = |part: &Part| match part {
            Part::Text(text) => Some(text.clone()),
            Part::Field(Field::Dataset) => Some(dataset.to_owned()),
            Part::Field(_) | Part::Time(_) => None,
        };
        self.parts.iter().map(part).collect()
    }

    /// A pattern with `*` that all names for documents of a dataset fit.
    pub fn pattern_of(&self, dataset: &str) -> String {
        let mut pattern = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => pattern.push_str(text),
                Part::Field(Field::Dataset) => pattern.push_str(dataset),
                Part::Field(_) | Part::Time(_) if pattern.ends_with('*') => {}
                Part::Field(_) | Part::Time(_) => pattern.push('*'),
            }
        }
        // A date of several places is one star: `logstash-*`, not `logstash-*.*.*`.
        while let Some(shorter) = pattern.strip_suffix(".*").filter(|shorter| shorter.ends_with('*')) {
            pattern.truncate(shorter.len());
        }
        pattern
    }

    /// The name for documents of a file, but for their time.
    pub fn of(&self, facts: &FileFacts, node: &str) -> IndexName {
        let fixed: usize = self.parts.iter().map(Part::least_bytes).sum();
        let mut room = LONGEST.saturating_sub(fixed);
        let mut pieces: Vec<Piece> = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            pieces.push(match part {
                Part::Text(text) => Piece::Text(text.clone()),
                Part::Time(place) => Piece::Time(*place),
                Part::Field(Field::Dataset) => Piece::Text(dataset(&facts.origin).into()),
                Part::Field(field) => {
                    let text = legal(field.value(facts, node).unwrap_or_default(), pieces.is_empty());
                    let text = cut(text, room + field.least_bytes());
                    room = (room + field.least_bytes()).saturating_sub(text.len());
                    Piece::Text(text)
                }
            });
        }
        IndexName { pieces }
    }
}

impl Part {
    /// What it takes of a name in any case.
    fn least_bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Field(field) => field.least_bytes(),
            Self::Time(place) => place.digits(),
        }
    }

    fn period(&self) -> Option<Period> {
        match self {
            Self::Time(place) => Some(place.period()),
            Self::Text(_) | Self::Field(_) => None,
        }
    }
}

impl Field {
    /// Datasets are ours and short; of what others name, this much is always kept.
    fn least_bytes(&self) -> usize {
        match self {
            Self::Dataset => CONTAINER_LOGS.len(),
            _ => 8,
        }
    }

    /// What a file's facts say.
    fn value<'a>(&self, facts: &'a FileFacts, node: &'a str) -> Option<&'a str> {
        let container = facts.origin.container();
        match self {
            Self::Dataset => Some(dataset(&facts.origin)),
            Self::Namespace => container.map(|container| container.namespace.as_str()),
            Self::Pod => container.map(|container| container.pod.as_str()),
            Self::Container => container.map(|container| container.name.as_str()),
            Self::Node => Some(node),
            Self::Label(label) => {
                let labels = &facts.pod.known()?.labels;
                let found = labels.iter().find(|(key, _)| dedot(key) == label.as_str());
                found.map(|(_, value)| value.as_str())
            }
        }
    }
}

impl Place {
    fn digits(self) -> usize {
        match self {
            Self::Year | Self::WeekYear => 4,
            Self::DayOfYear => 3,
            _ => 2,
        }
    }

    fn period(self) -> Period {
        match self {
            Self::Hour => Period::Hour,
            Self::Day | Self::DayOfYear => Period::Day,
            Self::Week | Self::MondayWeek | Self::SundayWeek => Period::Week,
            Self::Month => Period::Month,
            Self::Year | Self::ShortYear | Self::WeekYear => Period::Year,
        }
    }

    /// Its number in an hour since the epoch, UTC.
    fn of_hour(self, hour: i64) -> i64 {
        let day = hour.div_euclid(24);
        let (year, month, day_of_month) = civil_from_days(day);
        let day_of_year = |day: i64, year: i64| day - days_from_civil(year, 1, 1);
        // 1970-01-01 was a Thursday.
        let (since_monday, since_sunday) = ((day + 3).rem_euclid(7), (day + 4).rem_euclid(7));
        let thursday = day - since_monday + 3;
        let week_year = civil_from_days(thursday).0;
        match self {
            Self::Year => year,
            Self::ShortYear => year.rem_euclid(100),
            Self::Month => month,
            Self::Day => day_of_month,
            Self::DayOfYear => day_of_year(day, year) + 1,
            Self::Hour => hour.rem_euclid(24),
            Self::WeekYear => week_year,
            Self::Week => day_of_year(thursday, week_year) / 7 + 1,
            Self::MondayWeek => (day_of_year(day, year) + 7 - since_monday) / 7,
            Self::SundayWeek => (day_of_year(day, year) + 7 - since_sunday) / 7,
        }
    }
}

/// The name of an index, but for the time of the document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexName {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Time(Place),
}

impl IndexName {
    /// Whether it depends on the time of the document.
    pub fn is_dated(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Time(_)))
    }

    /// The name for a document of this time, in nanoseconds since the epoch. It is the same for all times of an hour, UTC.
    pub fn at(&self, time: i64) -> String {
        let hour = time.div_euclid(3_600_000_000_000);
        let mut name = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => name.push_str(text),
                Piece::Time(place) => {
                    name.push_str(&format!("{:0width$}", place.of_hour(hour), width = place.digits()));
                }
            }
        }
        name
    }
}

/// The data stream's dataset by source.
pub fn dataset(origin: &Origin) -> &'static str {
    match origin {
        Origin::Container(_) => CONTAINER_LOGS,
        Origin::Plain => SYSLOG,
        Origin::Journal => JOURNAL,
        Origin::Kernel => KERNEL,
        Origin::Canary => "nodewarden.canary",
    }
}

/// Elasticsearch takes neither capitals nor some characters in a name.
fn legal(text: &str, is_first: bool) -> String {
    const ILLEGAL: &str = "\\/*?\"<>| ,#:";
    let text: String = text
        .chars()
        .flat_map(char::to_lowercase)
        .map(|c| if ILLEGAL.contains(c) || c.is_control() { '_' } else { c })
        .collect();
    let kept = if is_first { text.trim_start_matches(NEVER_FIRST) } else { &text };
    if kept.is_empty() { NONE.into() } else { kept.into() }
}

/// At most so many bytes of a text.
fn cut(mut text: String, most: usize) -> String {
    text.truncate(text.floor_char_boundary(most));
    text
}

fn push_text(parts: &mut Vec<Part>, text: &str) -> Result<(), String> {
    if let Some(illegal) =
        text.chars().find(|c| c.is_uppercase() || c.is_control() || "\\/*?\"<>| ,#:}".contains(*c))
    {
        return Err(format!("an index name can't hold {illegal:?}"));
    }
    if parts.is_empty() && text.starts_with(NEVER_FIRST) {
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
        return Ok((Part::Field(parse_field(&field[..end])?), end + 2));
    }
    let letter = text.as_bytes().get(1);
    let place = letter.and_then(|letter| PLACES.iter().find(|(known, _)| known == letter));
    match place {
        Some((_, place)) => Ok((Part::Time(*place), 2)),
        None => {
            let letters = PLACES.map(|(letter, _)| char::from(letter).to_string());
            Err(format!("after '%' an index name takes one of {}", letters.join(", ")))
        }
    }
}

fn parse_field(name: &str) -> Result<Field, String> {
    if let Some((_, field)) = FIELDS.iter().find(|(known, _)| *known == name) {
        return Ok(field.clone());
    }
    if let Some(label) = name.strip_prefix(LABELS).filter(|label| !label.is_empty()) {
        return Ok(Field::Label(dedot(label).into_owned()));
    }
    let names = FIELDS.map(|(name, _)| name);
    Err(format!("{{{name}}} is no field of an index name; write one of {}, {LABELS}NAME", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        logs::record::FileId,
        testing::{container, labelled_pod},
    };

    const TIME: i64 = 1_475_713_029_669_794_202;

    fn facts(origin: Origin) -> FileFacts {
        FileFacts::new(FileId([0; 12]), "/f", origin)
    }

    fn render(template: &str, origin: &Origin) -> String {
        let template = IndexTemplate::parse(template).expect("a template");
        template.of(&facts(origin.clone()), "Node-1").at(TIME)
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
    fn a_label_is_known_by_its_key_with_or_without_dots() {
        let mut facts = facts(container(0));
        facts.pod = labelled_pod(&[("app.kubernetes.io/name", "Cart:1"), ("tier", "")]);
        let name = |template: &str, facts: &FileFacts| {
            IndexTemplate::parse(template).expect("a template").of(facts, "n").at(TIME)
        };
        assert_eq!(name("a-{kubernetes.labels.app.kubernetes.io/name}", &facts), "a-cart_1");
        assert_eq!(name("a-{kubernetes.labels.app_kubernetes_io/name}", &facts), "a-cart_1");
        assert_eq!(name("a-{kubernetes.labels.tier}-{kubernetes.labels.team}", &facts), "a-none-none");
        facts.pod = crate::logs::record::PodFacts::Unknown;
        assert_eq!(name("{kubernetes.labels.tier}-%Y", &facts), "none-2016");
    }

    #[test]
    fn places_are_those_of_strftime() {
        // By `date -u -d @SECONDS +%j.%W.%U.%V.%G.%y`.
        for (seconds, expected) in [
            (1_475_713_029, "280.40.40.40.2016.16"),
            (1_704_067_199, "365.52.53.52.2023.23"),
            (1_704_067_200, "001.01.00.01.2024.24"),
            (1_609_459_200, "001.00.00.53.2020.21"),
            (1_735_603_200, "366.53.52.01.2025.24"),
            (1_483_228_800, "001.00.01.52.2016.17"),
            (-86_400, "365.52.52.01.1970.69"),
            (951_782_400, "060.09.09.09.2000.00"),
        ] {
            let name = IndexTemplate::parse("x-%j.%W.%U.%V.%G.%y").expect("a template");
            let name = name.of(&facts(Origin::Plain), "n").at(seconds * 1_000_000_000);
            assert_eq!(name, format!("x-{expected}"), "{seconds}");
        }
    }

    #[test]
    fn what_no_name_may_hold_is_replaced_and_what_is_too_long_is_cut() {
        let mut long = facts(container(0));
        long.pod = labelled_pod(&[("odd", "A/b*c\u{7}"), ("first", "-_.X"), ("only", "._-")]);
        let name =
            |template: &str| IndexTemplate::parse(template).expect("a template").of(&long, &"é".repeat(200));
        assert_eq!(name("x-{kubernetes.labels.odd}").at(0), "x-a_b_c_");
        assert_eq!(name("{kubernetes.labels.first}").at(0), "x");
        assert_eq!(name("{kubernetes.labels.only}").at(0), "none");
        let cut = name("{host.name}-{kubernetes.node.name}-{kubernetes.namespace}-%Y.%m.%d").at(TIME);
        assert!(cut.len() <= LONGEST && cut.ends_with("-shop-2016.10.06"), "{} {cut}", cut.len());
    }

    #[test]
    fn a_pattern_covers_every_name() {
        for (template, pattern, name, period) in [
            (
                "logs-{dataset}-default",
                "logs-system.journal-default",
                Some("logs-system.journal-default"),
                None,
            ),
            ("logs-{dataset}-{kubernetes.namespace}", "logs-system.journal-*", None, None),
            ("logstash-%Y.%m.%d", "logstash-*", None, Some(Period::Day)),
            ("logstash-%G.%V", "logstash-*", None, Some(Period::Week)),
            ("{host.name}-%Y%m-x", "*-*-x", None, Some(Period::Month)),
            ("plain", "plain", Some("plain"), None),
        ] {
            let parsed = IndexTemplate::parse(template).expect("a template");
            assert_eq!(parsed.pattern_of(JOURNAL), pattern);
            assert_eq!(parsed.name_of(JOURNAL).as_deref(), name);
            assert_eq!(parsed.period(), period);
        }
    }

    #[test]
    fn a_wrong_template_says_what_may_be_written() {
        let long = "x".repeat(240);
        for (template, said) in [
            ("logs-{pod}", "write one of dataset, kubernetes.namespace,"),
            ("logs-{kubernetes.labels.}", "kubernetes.labels.NAME"),
            ("logs-{dataset", "lacks its closing"),
            ("logs-%q", "takes one of Y, y, m, d, j, H, G, V, W, U"),
            ("Logs", "can't hold 'L'"),
            ("_logs", "can't start with"),
            ("", "can't be empty"),
            (&long, "has room for 233 bytes"),
        ] {
            let error = IndexTemplate::parse(template).expect_err("refused");
            assert!(error.contains(said), "{template}: {error}");
        }
    }

    proptest! {
        #[test]
        fn every_name_is_legal(text in "\\PC{0,40}", value in any::<String>(), node in any::<String>(), time in any::<i64>()) {
            if let Ok(template) = IndexTemplate::parse(&text) {
                template.of(&facts(container(0)), &node).at(time);
            }
            let mut facts = facts(container(0));
            facts.pod = labelled_pod(&[("l", &value)]);
            for template in ["{kubernetes.labels.l}-%Y.%m.%d", "{host.name}{kubernetes.labels.l}", "a-{kubernetes.labels.l}"] {
                let name = IndexTemplate::parse(template).expect("a template").of(&facts, &node).at(time);
                prop_assert!(!name.is_empty() && name.len() <= LONGEST && !name.starts_with(NEVER_FIRST), "{}", name);
                prop_assert!(!name.contains(|c: char| "\\/*?\"<>| ,#:".contains(c) || c.is_ascii_uppercase()), "{}", name);
            }
        }
    }
}
