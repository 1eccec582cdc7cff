//! What a search looks for, and the language it is written in.
//!
//! | written | finds records |
//! |---|---|
//! | `timeout` | with that word, in upper or lower case |
//! | `time*`, `*out`, `*meou*` | with a word that starts so, ends so, has that inside |
//! | `"connection refused"` | with these words side by side |
//! | `-debug`, `-"health check"`, `-pod:web-1`, `-/^GET/` | without it |
//! | `pod:web-1`, `pod:web-*` | whose source has that label; `*` stands for any characters |
//! | `stream:stderr` | of that stream |
//! | `/code=5\d\d/`, `/error/i` | that match the regular expression, with `i` in any case |
//!
//! All terms have to hold. A word is found as a whole word, so that the blocks' filters can say where to look.

use regex::bytes::{Regex, RegexBuilder};

use super::{
    Key, Source,
    filter::{self, Class, class},
};

/// A search, compiled.
#[derive(Debug, Clone)]
pub struct Query {
    /// The earliest time, in nanoseconds since the epoch.
    pub since: Option<i64>,
    /// The first time that is too late.
    pub until: Option<i64>,
    /// Hits at most.
    pub limit: usize,
    /// Only what comes after this hit, that is, older records: the next page.
    pub before: Option<Key>,
    /// What the records have to be like.
    pub terms: Terms,
}

/// The terms of a query, compiled; none finds everything.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    terms: Vec<Term>,
    /// Tokens that a block has to hold.
    tokens: Vec<u64>,
}

/// What can't be understood in a query, as a sentence for whoever wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// A quote that nothing closes.
    #[error("the quote that opens at {0} is not closed: add a \" behind the phrase")]
    OpenQuote(String),
    /// A word of other search languages.
    #[error(
        "{0} is not an operator here: all terms have to match. For alternatives write /one|other/, for the word itself \"{0}\""
    )]
    Operator(String),
    /// A field without a value.
    #[error("nothing stands behind {0}: write the value without a space, like namespace:default")]
    EmptyField(String),
    /// A minus with nothing behind it, or a phrase with nothing in it.
    #[error("{0} says nothing to look for")]
    Empty(String),
    /// A stream that does not exist.
    #[error("{0} is no stream: write stream:stdout or stream:stderr")]
    Stream(String),
    /// A regular expression that does not compile.
    #[error("the regular expression /{pattern}/ can't be used: {what}")]
    Regex {
        /// What was written.
        pattern: String,
        /// What is wrong with it.
        what: String,
    },
}

#[derive(Debug, Clone)]
struct Term {
    negated: bool,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    Words(Words),
    Regex(Regex),
    Label(String, Glob),
    Stream(u8),
}

impl Default for Query {
    fn default() -> Self {
        Self { since: None, until: None, limit: 1000, before: None, terms: Terms::default() }
    }
}

impl Terms {
    /// Compiles terms as the table above has them.
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        let mut terms = Self::default();
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            let (term, behind) = parse_term(rest)?;
            if let (false, What::Words(words)) = (term.negated, &term.what) {
                terms.tokens.extend(&words.tokens);
            }
            terms.terms.push(term);
            rest = behind.trim_start();
        }
        Ok(terms)
    }
}

impl Query {
    /// The newest 1000 records with these terms, at any time.
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        Ok(Self { terms: Terms::parse(text)?, ..Self::default() })
    }

    /// The tokens that a block has to hold for a record of it to match.
    pub(super) fn tokens(&self) -> &[u64] {
        &self.terms.tokens
    }

    /// Whether records between these times, both included, may match.
    pub(super) fn overlaps(&self, min_time: i64, max_time: i64) -> bool {
        self.since.is_none_or(|since| max_time >= since)
            && self.until.is_none_or(|until| min_time < until)
            && self.before.is_none_or(|before| min_time <= before.time)
    }

    /// Whether records of this source may match.
    pub(super) fn matches_source(&self, source: &Source) -> bool {
        self.terms.terms.iter().all(|term| match &term.what {
            What::Label(name, glob) => {
                source.label(name).is_some_and(|value| glob.matches(value)) != term.negated
            }
            _ => true,
        })
    }

    /// Whether a record of a source that matches does so itself.
    pub(super) fn matches_record(&self, time: i64, stream: u8, text: &[u8]) -> bool {
        self.overlaps(time, time)
            && self.terms.terms.iter().all(|term| match &term.what {
                What::Label(..) => true,
                What::Stream(wanted) => (stream == *wanted) != term.negated,
                What::Words(words) => words.matches(text) != term.negated,
                What::Regex(regex) => regex.is_match(text) != term.negated,
            })
    }
}

/// One term from the front of `text` (which starts with no space), and what is behind it.
fn parse_term(text: &str) -> Result<(Term, &str), QueryError> {
    let (negated, body) = match text.strip_prefix('-') {
        Some(body) if !body.is_empty() && !body.starts_with(char::is_whitespace) => (true, body),
        _ => (false, text),
    };
    let term = |what| Term { negated, what };
    if let Some((pattern, any_case, behind)) = split_regex(body) {
        return Ok((term(What::Regex(compile(pattern, any_case)?)), behind));
    }
    if let Some(quoted) = body.strip_prefix('"') {
        let Some((phrase, behind)) = quoted.split_once('"') else {
            return Err(QueryError::OpenQuote(shorten(body)));
        };
        if phrase.trim().is_empty() {
            return Err(QueryError::Empty(format!("\"{phrase}\"")));
        }
        return Ok((term(What::Words(Words::new(phrase, false, false)?)), behind));
    }
    if let Some((name, value, behind)) = split_field(body)? {
        return Ok((term(field(name, value)?), behind));
    }
    let (word, behind) = split_word(body);
    if matches!(word, "OR" | "AND" | "NOT") {
        return Err(QueryError::Operator(word.to_owned()));
    }
    let (open_left, inner) = word.strip_prefix('*').map_or((false, word), |inner| (true, inner));
    let (open_right, inner) = inner.strip_suffix('*').map_or((false, inner), |inner| (true, inner));
    if inner.is_empty() {
        return Err(QueryError::Empty(word.to_owned()));
    }
    Ok((term(What::Words(Words::new(inner, open_left, open_right)?)), behind))
}

fn split_word(text: &str) -> (&str, &str) {
    text.split_at(text.find(char::is_whitespace).unwrap_or(text.len()))
}

fn shorten(text: &str) -> String {
    text.chars().take(20).collect()
}

/// `/pattern/` or `/pattern/i`, ended by a space or the end: a path such as `/var/log` is none.
fn split_regex(text: &str) -> Option<(&str, bool, &str)> {
    let inner = text.strip_prefix('/')?;
    let mut escaped = false;
    for (at, c) in inner.char_indices() {
        if c == '/' && !escaped && at > 0 {
            let behind = &inner[at + 1..];
            let (any_case, behind) =
                behind.strip_prefix('i').map_or((false, behind), |behind| (true, behind));
            if behind.is_empty() || behind.starts_with(char::is_whitespace) {
                return Some((&inner[..at], any_case, behind));
            }
        }
        escaped = c == '\\' && !escaped;
    }
    None
}

/// `name:value` or `name:"value"`. What has no label's name before the colon, or `//` behind it, is a word.
fn split_field(text: &str) -> Result<Option<(&str, &str, &str)>, QueryError> {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_.-".contains(c);
    let Some((name, value)) = text.split_once(':') else { return Ok(None) };
    let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase());
    if !starts_well || !name.chars().all(is_name) || value.starts_with("//") {
        return Ok(None);
    }
    if let Some(quoted) = value.strip_prefix('"') {
        let Some((value, behind)) = quoted.split_once('"') else {
            return Err(QueryError::OpenQuote(shorten(text)));
        };
        return Ok(Some((name, value, behind)));
    }
    let (value, behind) = split_word(value);
    if value.is_empty() {
        return Err(QueryError::EmptyField(format!("{name}:")));
    }
    Ok(Some((name, value, behind)))
}

fn field(name: &str, value: &str) -> Result<What, QueryError> {
    match (name, value) {
        ("stream", "stdout") => Ok(What::Stream(1)),
        ("stream", "stderr") => Ok(What::Stream(2)),
        ("stream", other) => Err(QueryError::Stream(other.to_owned())),
        _ => Ok(What::Label(name.to_owned(), Glob::new(value))),
    }
}

/// Limits keep a hostile pattern from taking the node's memory.
fn compile(pattern: &str, any_case: bool) -> Result<Regex, QueryError> {
    let mut builder = RegexBuilder::new(pattern);
    builder.case_insensitive(any_case).size_limit(1 << 20).dfa_size_limit(1 << 20);
    builder.build().map_err(|error| {
        let what = error.to_string();
        let what = what.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        QueryError::Regex { pattern: pattern.to_owned(), what }
    })
}

/// A word or a phrase: found where it is neither preceded nor followed by more of a word.
#[derive(Debug, Clone)]
struct Words {
    regex: Regex,
    bound_left: bool,
    bound_right: bool,
    /// The tokens a record has to hold.
    tokens: Vec<u64>,
}

impl Words {
    fn new(words: &str, open_left: bool, open_right: bool) -> Result<Self, QueryError> {
        let unicode = if words.is_ascii() { "(?-u)" } else { "" };
        let regex = compile(&format!("{unicode}{}", regex::escape(words)), true)?;
        let is_word = |c: Option<char>| c.is_some_and(|c| class(c) == Class::Word);
        let (starts, ends) = (is_word(words.chars().next()), is_word(words.chars().next_back()));
        let mut tokens = Vec::new();
        filter::tokens(words.as_bytes(), |token, range| {
            let is_cut =
                open_left && starts && range.start == 0 || open_right && ends && range.end == words.len();
            if !is_cut {
                tokens.push(token);
            }
        });
        Ok(Self { regex, bound_left: starts && !open_left, bound_right: ends && !open_right, tokens })
    }

    fn matches(&self, text: &[u8]) -> bool {
        let mut at = 0;
        while let Some(found) = self.regex.find_at(text, at) {
            let cut_left = self.bound_left && filter::ends_in_word(&text[..found.start()]);
            let cut_right = self.bound_right && filter::starts_with_word(&text[found.end()..]);
            if !cut_left && !cut_right {
                return true;
            }
            at = found.start() + 1;
        }
        false
    }
}

/// A label's value, where `*` stands for any characters.
#[derive(Debug, Clone)]
struct Glob(Vec<String>);

impl Glob {
    fn new(pattern: &str) -> Self {
        Self(pattern.split('*').map(str::to_owned).collect())
    }

    fn matches(&self, value: &str) -> bool {
        let [first, middle @ .., last] = self.0.as_slice() else {
            return self.0.first().is_some_and(|only| only == value);
        };
        let Some(mut rest) = value.strip_prefix(first.as_str()) else { return false };
        for part in middle {
            let Some((_, behind)) = rest.split_once(part.as_str()) else { return false };
            rest = behind;
        }
        rest.ends_with(last.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn source() -> Source {
        let labels = [("container", "app"), ("namespace", "shop"), ("pod", "web-1")];
        Source { id: [0; 12], labels: labels.map(|(name, value)| (name.into(), value.into())).into() }
    }

    fn finds(query: &str, text: &str) -> bool {
        let query = Query::parse(query).expect("it compiles");
        query.matches_source(&source()) && query.matches_record(5, 2, text.as_bytes())
    }

    #[test]
    fn each_kind_of_term_finds_what_it_says() {
        let text = "GET /api/v1 timeout after 30s, Connection REFUSED by 10.0.0.1:443";
        for query in [
            "",
            "timeout",
            "TimeOut",
            "get",
            "time*",
            "*out",
            "*meou*",
            "\"connection refused\"",
            "10.0.0.1",
            "/api/v1",
            "-debug",
            "-time",
            "timeout get",
            "pod:web-1",
            "pod:web-*",
            "pod:*eb*1",
            "pod:\"web-1\"",
            "-pod:db-*",
            "stream:stderr",
            "-stream:stdout",
            r"/v\d timeout/",
            "/REFUSED/",
            "/refused/i",
            "-/^POST/",
            "30s,",
        ] {
            assert!(finds(query, text), "{query}");
        }
        for query in [
            "time",
            "out",
            "*time",
            "out*",
            "\"refused connection\"",
            "\"onnection refused\"",
            "10.0.0.1 post",
            "-get",
            "-time*",
            "pod:web",
            "pod:web-2",
            "-pod:web-*",
            "stream:stdout",
            "/refused/",
            "-/^GET/",
            "node:a",
        ] {
            assert!(!finds(query, text), "{query}");
        }
    }

    #[test]
    fn words_of_other_scripts_are_found() {
        assert!(finds("ошибка", "Ошибка: нет места"));
        assert!(!finds("ошиб", "Ошибка"));
        assert!(finds("ошиб*", "Ошибка"));
        assert!(finds("错误", "发生错误了"));
        assert!(finds("größe", "GRÖSSE größe"));
    }

    #[test]
    fn addresses_with_a_colon_are_words() {
        assert!(finds("http://example.org", "to http://example.org now"));
        assert!(finds("10.0.0.1:443", "10.0.0.1:443"));
        assert!(finds("12:30", "at 12:30"));
    }

    #[test]
    fn what_can_not_be_understood_is_said_in_a_sentence() {
        for (query, sentence) in [
            ("a \"b c", "the quote that opens at \"b c is not closed: add a \" behind the phrase"),
            ("pod: x", "nothing stands behind pod:: write the value without a space, like namespace:default"),
            ("stream:err", "err is no stream: write stream:stdout or stream:stderr"),
            ("*", "* says nothing to look for"),
            ("\" \"", "\" \" says nothing to look for"),
            ("/a(/", "the regular expression /a(/ can't be used: unclosed group"),
        ] {
            assert_eq!(Query::parse(query).expect_err(query).to_string(), sentence);
        }
        let operator = Query::parse("a OR b").expect_err("no operator").to_string();
        assert!(operator.starts_with("OR is not an operator here"), "{operator}");
        assert!(matches!(Query::parse(r"/\w{1000}{1000}/"), Err(QueryError::Regex { .. })));
    }

    #[test]
    fn times_bound_a_query() {
        let mut query = Query::parse("").expect("empty");
        (query.since, query.until) = (Some(5), Some(7));
        let matches = |time| query.matches_record(time, 0, b"");
        assert_eq!([4, 5, 6, 7].map(matches), [false, true, true, false]);
        assert!(query.overlaps(0, 5) && !query.overlaps(0, 4) && !query.overlaps(7, 9));
    }

    proptest! {
        #[test]
        fn any_text_parses_or_says_why(text: String) {
            let _ = Query::parse(&text);
        }

        #[test]
        fn a_record_that_matches_holds_all_tokens(
            words in "[a-cäK错 .*-]{1,8}",
            text in "[a-cA-CäÄkK错 .-]{0,30}",
        ) {
            if let Ok(query) = Query::parse(&words) && query.matches_record(0, 0, text.as_bytes()) {
                let mut held = Vec::new();
                filter::tokens(text.as_bytes(), |token, _| held.push(token));
                for token in query.tokens() {
                    prop_assert!(held.contains(token), "{words:?} in {text:?}");
                }
            }
        }
    }
}
