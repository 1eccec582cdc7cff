//! A line as the sink wants it: everything constant of a file is rendered once, a line only adds its own bytes.

use super::{
    batch::encode_record,
    format::{RFC3339_SECOND, rfc3339, write_fraction},
    index::{IndexName, IndexTemplate, dataset},
    pod_fields,
    record::{FileFacts, Line, ORDERED_DIGITS, Origin, Stream, path_text},
};

const NANOS_PER_SECOND: i64 = 1_000_000_000;
/// How every document ends.
const END: &[u8] = b"}\n";

/// The field names of documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Schema {
    /// Elastic Common Schema.
    #[default]
    Ecs,
    /// The names of the fluentd image.
    Fluent,
}

/// The form of the items in a batch.
#[derive(Debug, Clone)]
pub enum Encoding {
    /// Bulk requests of Elasticsearch and OpenSearch.
    Bulk(BulkEncoding),
    /// Records of the local store.
    Records,
}

/// What all documents of this agent share.
#[derive(Debug, Clone)]
pub struct BulkEncoding {
    /// Where documents go.
    pub index: IndexTemplate,
    /// Their field names.
    pub schema: Schema,
    /// Whether a document's `_id` comes from its place in the file: repeats are then refused by the server.
    pub position_ids: bool,
    /// The node's name.
    pub node: String,
}

/// One file's share of the documents' bytes.
#[derive(Debug)]
pub enum Shape {
    /// Nothing is constant in a record.
    Record,
    /// Pieces of the bulk body.
    Bulk(Box<BulkShape>),
}

/// The constant pieces of one file's documents.
#[derive(Debug)]
pub struct BulkShape {
    encoding: BulkEncoding,
    facts_id: [u8; 16],
    index: IndexName,
    /// `{"create":{"_index":"...","_id":"IDENTITYOFFSET"}}`, the document up to its message, and in both what the last line
    /// had there: all but some digits is the same in the next one, and goes into the body in one copy.
    head: Vec<u8>,
    /// Where the offset stands in `head`, if it does.
    offset_at: Option<usize>,
    /// Where the time stands in `head`.
    time_at: usize,
    /// Where it stands once more, if it does.
    time_again_at: Option<usize>,
    /// The second that stands in `head`.
    second: Option<i64>,
    /// The hour the index name in `head` is good for; `None` when it is good for ever.
    index_hour: Option<i64>,
    /// What stands between the time and the time once more; empty when it is there once.
    before_time_again: &'static [u8],
    /// From the end of the time to the message.
    before_message: &'static [u8],
    /// The same for a line with fields.
    before_message_and_fields: &'static [u8],
    /// From the end of the message and the stream on to where the offset goes.
    before_offset: Vec<u8>,
    /// From the offset to the newline.
    after_offset: Vec<u8>,
    /// What of it a line's own fields stand for: the end of `log` and the beginning of `host`.
    replaced: usize,
}

impl Shape {
    /// Renders what is constant.
    pub fn new(encoding: &Encoding, facts: &FileFacts) -> Self {
        match encoding {
            Encoding::Records => Self::Record,
            Encoding::Bulk(encoding) => Self::Bulk(Box::new(BulkShape::new(encoding, facts))),
        }
    }

    /// Appends one line to the body of a batch. Whether its text is UTF-8: a document has U+FFFD for what is not, a record
    /// keeps all bytes until somebody reads it.
    pub fn encode(&mut self, line: &Line<'_>, body: &mut Vec<u8>) -> bool {
        self.encode_with(line, b"", b"", body)
    }

    /// The same with further members for its document, each after a comma. In ECS documents of files, the first ones belong
    /// into `log`, which they close, and the last one is `host` with its `name`, which stays open. `extra` are members for the
    /// end of the document.
    pub fn encode_with(&mut self, line: &Line<'_>, fields: &[u8], extra: &[u8], body: &mut Vec<u8>) -> bool {
        match self {
            Self::Record => {
                encode_record(line, body);
                std::str::from_utf8(line.text).is_ok()
            }
            Self::Bulk(shape) => {
                let is_utf8 = shape.encode(line, fields, body);
                if !extra.is_empty() {
                    body.truncate(body.len() - END.len());
                    body.extend_from_slice(extra);
                    body.extend_from_slice(END);
                }
                is_utf8
            }
        }
    }

    /// The names that documents use and the node's, where lines become documents.
    pub fn document(&self) -> Option<(Schema, &str)> {
        match self {
            Self::Record => None,
            Self::Bulk(shape) => Some((shape.encoding.schema, &shape.encoding.node)),
        }
    }
}

impl BulkShape {
    fn new(encoding: &BulkEncoding, facts: &FileFacts) -> Self {
        let is_feed = matches!(facts.origin, Origin::Journal | Origin::Kernel | Origin::Canary);
        let (before_offset, after_offset) = match encoding.schema {
            // Its host stands among what each record says itself, and it has no offset.
            Schema::Ecs if is_feed => {
                (Vec::new(), format!("{}}}\n", data_stream_piece(encoding, facts)).into_bytes())
            }
            Schema::Ecs => ecs_pieces(encoding, facts),
            Schema::Fluent => fluent_pieces(encoding, facts),
        };
        let before_message: &[u8] = match encoding.schema {
            Schema::Ecs => b"\",\"message\":",
            // What the image's source for the journal calls it.
            Schema::Fluent if is_feed => b"\",\"MESSAGE\":",
            Schema::Fluent => b"\",\"log\":",
        };
        let before_message_and_fields: &[u8] = match encoding.schema {
            // What the parsers of that image call it.
            Schema::Fluent if !is_feed => b"\",\"message\":",
            _ => before_message,
        };
        // Where containers' lines have a time of their own, that image's documents keep it.
        let before_time_again: &[u8] = match (encoding.schema, &facts.origin) {
            (Schema::Fluent, Origin::Container(_)) => b"\",\"time\":\"",
            _ => b"",
        };
        let is_replaced = encoding.schema == Schema::Ecs && !is_feed;
        let mut shape = Self {
            encoding: encoding.clone(),
            facts_id: facts.id.text(),
            index: encoding.index.of(facts, &encoding.node),
            head: Vec::new(),
            offset_at: None,
            time_at: 0,
            time_again_at: None,
            second: None,
            index_hour: None,
            before_time_again,
            before_message,
            before_message_and_fields,
            before_offset,
            after_offset,
            replaced: if is_replaced { host_piece(encoding).len() } else { 0 },
        };
        shape.render_head(0);
        shape
    }

    fn render_head(&mut self, time: i64) {
        let index = self.index.at(time);
        self.head.clear();
        self.head.extend_from_slice(b"{\"create\":{\"_index\":");
        write_string(index.as_bytes(), &mut self.head);
        if self.encoding.position_ids {
            self.head.extend_from_slice(b",\"_id\":\"");
            self.head.extend_from_slice(&self.facts_id);
            self.offset_at = Some(self.head.len());
            self.head.extend_from_slice(&offset_digits(0));
            self.head.push(b'"');
        }
        self.head.extend_from_slice(b"}}\n{\"@timestamp\":\"");
        self.time_at = self.head.len();
        self.head.extend_from_slice(&rfc3339(time));
        if !self.before_time_again.is_empty() {
            self.head.extend_from_slice(self.before_time_again);
            self.time_again_at = Some(self.head.len());
            self.head.extend_from_slice(&rfc3339(time));
        }
        self.second = None;
        self.head.extend_from_slice(self.before_message);
        self.index_hour = self.index.is_dated().then(|| hour_of(time));
    }

    /// Puts into `head` what only the next line has.
    fn fill_head(&mut self, line: &Line<'_>) {
        if self.index_hour.is_some_and(|hour| hour != hour_of(line.time)) {
            self.render_head(line.time);
        }
        if let Some(at) = self.offset_at {
            self.head[at..at + 8].copy_from_slice(&offset_digits(line.span.start));
        }
        let second = line.time.div_euclid(NANOS_PER_SECOND);
        let is_same_second = self.second.replace(second) == Some(second);
        for at in std::iter::once(self.time_at).chain(self.time_again_at) {
            let time = &mut self.head[at..];
            if is_same_second {
                // Lines come in the order of their times, many in each second.
                write_fraction(line.time.rem_euclid(NANOS_PER_SECOND) as u32, &mut time[RFC3339_SECOND..]);
            } else {
                let text = rfc3339(line.time);
                time[..text.len()].copy_from_slice(&text);
            }
        }
    }

    fn encode(&mut self, line: &Line<'_>, fields: &[u8], body: &mut Vec<u8>) -> bool {
        self.fill_head(line);
        // Room for all of it at once, but for escapes and the offset's digits.
        let constant = self.head.len() + self.before_offset.len() + self.after_offset.len();
        body.reserve(constant + line.text.len() + fields.len() + 64);
        if fields.is_empty() {
            body.extend_from_slice(&self.head);
        } else {
            let end_of_time = self.head.len() - self.before_message.len();
            body.extend_from_slice(&self.head[..end_of_time]);
            body.extend_from_slice(self.before_message_and_fields);
        }
        let is_utf8 = write_string(line.text, body);
        body.extend_from_slice(stream_piece(line.stream));
        body.extend_from_slice(&self.before_offset);
        if !self.before_offset.is_empty() {
            write_decimal(line.span.start, body);
        }
        if fields.is_empty() {
            body.extend_from_slice(&self.after_offset);
        } else {
            body.extend_from_slice(fields);
            body.extend_from_slice(self.after_offset.get(self.replaced..).unwrap_or_default());
        }
        is_utf8
    }
}

fn stream_piece(stream: Stream) -> &'static [u8] {
    match stream {
        Stream::None => b"",
        Stream::Stdout => b",\"stream\":\"stdout\"",
        Stream::Stderr => b",\"stream\":\"stderr\"",
    }
}

fn hour_of(time: i64) -> i64 {
    time.div_euclid(3_600_000_000_000)
}

fn ecs_pieces(encoding: &BulkEncoding, facts: &FileFacts) -> (Vec<u8>, Vec<u8>) {
    let mut before = b",\"log\":{\"file\":{\"path\":".to_vec();
    write_string(path_text(&facts.path).as_bytes(), &mut before);
    before.extend_from_slice(b"},\"offset\":");
    let mut after = host_piece(encoding);
    after.push(b'}');
    if let Origin::Container(container) = &facts.origin {
        let members = pod_fields::render(Schema::Ecs, container, &facts.pod, &encoding.node);
        after.extend_from_slice(members.as_bytes());
    }
    after.extend_from_slice(data_stream_piece(encoding, facts).as_bytes());
    after.extend_from_slice(b"}\n");
    (before, after)
}

/// From the end of the offset to the last member of `host`.
fn host_piece(encoding: &BulkEncoding) -> Vec<u8> {
    let mut piece = b"},\"host\":{\"name\":".to_vec();
    write_string(encoding.node.as_bytes(), &mut piece);
    piece
}

/// A data stream named `logs-DATASET-NAMESPACE` says so in its documents; other indices have no such fields.
fn data_stream_piece(encoding: &BulkEncoding, facts: &FileFacts) -> String {
    let name = encoding.index.of(facts, &encoding.node);
    let index = name.at(0);
    let dataset = dataset(&facts.origin);
    match index
        .strip_prefix("logs-")
        .and_then(|rest| rest.strip_prefix(dataset))
        .and_then(|rest| rest.strip_prefix('-'))
    {
        Some(namespace) if !namespace.is_empty() && !name.is_dated() => format!(
            ",\"data_stream\":{}",
            serde_json::json!({"type": "logs", "dataset": dataset, "namespace": namespace})
        ),
        _ => String::new(),
    }
}

/// The fluentd image's documents say nothing of the offset.
fn fluent_pieces(encoding: &BulkEncoding, facts: &FileFacts) -> (Vec<u8>, Vec<u8>) {
    let mut after = Vec::new();
    if let Origin::Container(container) = &facts.origin {
        let members = pod_fields::render(Schema::Fluent, container, &facts.pod, &encoding.node);
        after.extend_from_slice(members.as_bytes());
    }
    after.extend_from_slice(b"}\n");
    (Vec::new(), after)
}

/// A file offset as eight ordered digits, so that the ids of a file compress well and reach the
/// index in order. Offsets up to 2^48.
pub fn offset_digits(offset: u64) -> [u8; 8] {
    std::array::from_fn(|place| ORDERED_DIGITS[(offset >> (6 * (7 - place)) & 63) as usize])
}

/// The offset in a document's id, whose last eight digits it is; `None` when it is no id of ours.
pub fn offset_of_id(id: &str) -> Option<u64> {
    let digits = id.as_bytes().get(16..24).filter(|_| id.len() == 24)?;
    digits.iter().try_fold(0, |offset, digit| {
        let value = ORDERED_DIGITS.iter().position(|known| known == digit)?;
        Some(offset << 6 | value as u64)
    })
}

fn write_decimal(mut value: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Writes any bytes as a JSON string; what is not UTF-8 becomes U+FFFD. Whether all of it is UTF-8.
pub fn write_string(text: &[u8], out: &mut Vec<u8>) -> bool {
    out.push(b'"');
    // One pass in vector instructions says what most lines don't have: a control character, or anything but ASCII.
    let (lowest, bits) =
        text.iter().fold((0xff, 0), |(lowest, bits): (u8, u8), &byte| (lowest.min(byte), bits | byte));
    let is_utf8 = bits.is_ascii() || std::str::from_utf8(text).is_ok();
    if is_utf8 && lowest >= 0x20 {
        write_quoted(text, out);
    } else if is_utf8 {
        write_escaped(text, out);
    } else {
        for chunk in text.utf8_chunks() {
            write_escaped(chunk.valid().as_bytes(), out);
            if !chunk.invalid().is_empty() {
                out.extend_from_slice("\u{fffd}".as_bytes());
            }
        }
    }
    out.push(b'"');
    is_utf8
}

/// Writes text without control characters.
fn write_quoted(text: &[u8], out: &mut Vec<u8>) {
    let mut written = 0;
    for at in memchr::memchr2_iter(b'"', b'\\', text) {
        out.extend_from_slice(&text[written..at]);
        out.push(b'\\');
        // The character itself goes out with what follows it.
        written = at;
    }
    out.extend_from_slice(&text[written..]);
}

/// Copies runs that need no escape in one go.
fn write_escaped(mut text: &[u8], out: &mut Vec<u8>) {
    while let Some(at) = find_escape(text) {
        out.extend_from_slice(&text[..at]);
        match text[at] {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(control >> 4)]);
                out.push(HEX[usize::from(control & 15)]);
            }
        }
        text = &text[at + 1..];
    }
    out.extend_from_slice(text);
}

/// Where the next byte is that a JSON string can't hold. Sixteen bytes at a time, without a branch among them, so that the
/// compiler makes vector instructions of it.
fn find_escape(text: &[u8]) -> Option<usize> {
    let needs = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    let mut at = 0;
    let (chunks, rest) = text.as_chunks::<16>();
    for chunk in chunks {
        if chunk.iter().fold(false, |found, &byte| found | needs(byte)) {
            return chunk.iter().position(|&byte| needs(byte)).map(|place| at + place);
        }
        at += 16;
    }
    rest.iter().position(|&byte| needs(byte)).map(|place| at + place)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        logs::record::{FileId, Span},
        testing::container,
    };

    fn facts(origin: Origin) -> FileFacts {
        FileFacts::new(FileId([0; 12]), "/var/log/pods/a/0.log", origin)
    }

    fn encoding(index: &str, schema: Schema) -> Encoding {
        Encoding::Bulk(BulkEncoding {
            index: IndexTemplate::parse(index).expect("a template"),
            schema,
            position_ids: true,
            node: "n1".into(),
        })
    }

    fn line(text: &[u8]) -> Line<'_> {
        Line {
            time: 1_475_713_029_669_794_202,
            stream: Stream::Stdout,
            text,
            span: Span { start: 65, end: 99 },
            bytes: 34,
            lines: 1,
        }
    }

    fn encoded(encoding: &Encoding, origin: Origin, text: &[u8]) -> String {
        let mut body = Vec::new();
        Shape::new(encoding, &facts(origin)).encode(&line(text), &mut body);
        String::from_utf8(body).expect("UTF-8")
    }

    #[test]
    fn an_ecs_document_says_where_its_line_comes_from() {
        assert_eq!(
            encoded(&encoding("logs-{dataset}-default", Schema::Ecs), container(2), b"say \"hi\""),
            concat!(
                r#"{"create":{"_index":"logs-kubernetes.container_logs-default","_id":"----------------------00"}}"#,
                "\n",
                r#"{"@timestamp":"2016-10-06T00:17:09.669794202Z","message":"say \"hi\"","stream":"stdout","#,
                r#""log":{"file":{"path":"/var/log/pods/a/0.log"},"offset":65},"host":{"name":"n1"},"#,
                r#""kubernetes":{"namespace":"shop","node":{"name":"n1"},"pod":{"name":"cart-1","uid":"u-1"},"#,
                r#""container":{"name":"app","restart_count":2}},"#,
                r#""data_stream":{"type":"logs","dataset":"kubernetes.container_logs","namespace":"default"}}"#,
                "\n"
            )
        );
    }

    #[test]
    fn a_fluent_document_has_that_images_names() {
        assert_eq!(
            encoded(&encoding("logstash-%Y.%m.%d", Schema::Fluent), container(2), b"text"),
            concat!(
                r#"{"create":{"_index":"logstash-2016.10.06","_id":"----------------------00"}}"#,
                "\n",
                r#"{"@timestamp":"2016-10-06T00:17:09.669794202Z","time":"2016-10-06T00:17:09.669794202Z","#,
                r#""log":"text","stream":"stdout","#,
                r#""kubernetes":{"namespace_name":"shop","pod_name":"cart-1","pod_id":"u-1","container_name":"app","host":"n1"}}"#,
                "\n"
            )
        );
    }

    #[test]
    fn each_line_goes_to_the_index_of_its_own_time() {
        const HOUR: i64 = 3600 * NANOS_PER_SECOND;
        for schema in [Schema::Ecs, Schema::Fluent] {
            let mut shape = Shape::new(&encoding("logstash-%Y.%m.%d", schema), &facts(container(0)));
            // A late line goes back to its day, and the next one does not stay there.
            for (hours, index, time) in [
                (0, "logstash-2016.10.06", "2016-10-06T00:17:09.669794202Z"),
                (-1, "logstash-2016.10.05", "2016-10-05T23:17:09.669794202Z"),
                (23, "logstash-2016.10.06", "2016-10-06T23:17:09.669794202Z"),
                (24, "logstash-2016.10.07", "2016-10-07T00:17:09.669794202Z"),
            ] {
                let mut body = Vec::new();
                shape.encode(&Line { time: line(b"").time + hours * HOUR, ..line(b"x") }, &mut body);
                let lines: Vec<serde_json::Value> = body
                    .split(|byte| *byte == b'\n')
                    .filter(|line| !line.is_empty())
                    .map(|line| serde_json::from_slice(line).expect("JSON"))
                    .collect();
                assert_eq!(lines[0]["create"]["_index"], index);
                assert_eq!(lines[1]["@timestamp"], time);
                if schema == Schema::Fluent {
                    assert_eq!(lines[1]["time"], time);
                }
            }
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_replaced() {
        let mut out = Vec::new();
        assert!(!write_string(b"a\xffb\xc3", &mut out));
        assert_eq!(out, "\"a\u{fffd}b\u{fffd}\"".as_bytes());
    }

    proptest! {
        #[test]
        fn any_text_reads_back_as_json(text in any::<String>()) {
            let mut out = Vec::new();
            write_string(text.as_bytes(), &mut out);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).ok(), Some(text));
        }

        #[test]
        fn any_bytes_make_valid_json(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut out = Vec::new();
            write_string(&bytes, &mut out);
            prop_assert_eq!(
                serde_json::from_slice::<String>(&out).ok(),
                Some(String::from_utf8_lossy(&bytes).into_owned())
            );
        }

        #[test]
        fn offset_digits_sort_as_the_numbers_do(left in 0_u64..1 << 48, right in 0_u64..1 << 48) {
            prop_assert_eq!(left.cmp(&right), offset_digits(left).cmp(&offset_digits(right)));
        }
    }
}
