//! What the targets share: damage done to files, and what has to hold of any document.

use std::{fs, path::Path};

use arbitrary::Arbitrary;
use nodewarden::logs::{
    format::parse_rfc3339,
    index::IndexTemplate,
    record::{Container, FileFacts, FileId, Line, Origin},
    shape::{BulkEncoding, Encoding, Schema, Shape},
};
use serde_json::Value;

/// What happens to a file at some place. None of it can be aimed at a checksum: the fuzzer would learn to forge them.
#[derive(Debug, Clone, Arbitrary)]
pub struct Damage {
    at: u32,
    what: What,
}

#[derive(Debug, Clone, Arbitrary)]
enum What {
    /// One bit is another one.
    Flip(u8),
    /// The rest is missing.
    Cut,
    /// A hole, as after a crash.
    Zero(u16),
    /// Bytes of something else.
    Noise(u8, u64),
    /// Bytes in the middle are missing.
    Gap(u16),
}

impl Damage {
    /// Damages some bytes; whether they are others now.
    pub fn apply(all: &[Self], bytes: &mut Vec<u8>) -> bool {
        let before = bytes.clone();
        all.iter().take(8).for_each(|damage| damage.apply_one(bytes));
        *bytes != before
    }

    /// The same with a file.
    pub fn apply_to(all: &[Self], path: &Path) -> bool {
        let mut bytes = fs::read(path).expect("read");
        let is_damaged = Self::apply(all, &mut bytes);
        fs::write(path, bytes).expect("written");
        is_damaged
    }

    fn apply_one(&self, bytes: &mut Vec<u8>) {
        let Some(at) = (self.at as usize).checked_rem(bytes.len()) else { return };
        let after = |length: u16| bytes.len().min(at + usize::from(length));
        match self.what {
            What::Flip(bit) => bytes[at] ^= 1 << (bit % 8),
            What::Cut => bytes.truncate(at),
            What::Zero(length) => {
                let end = after(length);
                bytes[at..end].fill(0);
            }
            What::Noise(length, seed) => {
                let end = after(length.into());
                bytes[at..end].iter_mut().zip(noise(seed)).for_each(|(byte, noise)| *byte = noise);
            }
            What::Gap(length) => drop(bytes.drain(at..after(length))),
        }
    }
}

/// Bytes that do not compress, others for each seed.
pub fn noise(seed: u64) -> impl Iterator<Item = u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    })
}

/// Turns lines of one file into documents, and says what is wrong with them.
pub struct Documents {
    encoding: Encoding,
    schema: Schema,
    facts: FileFacts,
    shape: Shape,
}

impl Documents {
    /// Of a container's file in one schema or the other, with an index by date or without.
    pub fn of_container(schema: Schema) -> Self {
        let container = Container {
            namespace: "shop".into(),
            pod: "cart \"1\"".into(),
            uid: "u-1".into(),
            name: "app".into(),
            restart: 2,
        };
        Self::new(schema, Origin::Container(container.into()))
    }

    /// Of any other file, or of a feed.
    pub fn new(schema: Schema, origin: Origin) -> Self {
        let index = match schema {
            Schema::Ecs => IndexTemplate::default(),
            Schema::Fluent => IndexTemplate::parse("logstash-%Y.%m.%d.%H").expect("a template"),
        };
        let encoding =
            Encoding::Bulk(BulkEncoding { index, schema, position_ids: true, node: "n\\1".into() });
        let facts = FileFacts::new(FileId([7; 12]), "/var/log/\"a\"\n.log", origin);
        let shape = Shape::new(&encoding, &facts);
        Self { encoding, schema, facts, shape }
    }

    /// The names of its fields.
    pub fn schema(&self) -> Schema {
        self.schema
    }

    /// The document of a line, which must be valid, have the line's text, time and stream, and be the same whatever line came
    /// before it.
    pub fn check(&mut self, line: &Line<'_>, fields: &[u8]) -> Value {
        let (mut body, mut fresh) = (Vec::new(), Vec::new());
        let is_utf8 = self.shape.encode_with(line, fields, b"", &mut body);
        Shape::new(&self.encoding, &self.facts).encode_with(line, fields, b"", &mut fresh);
        assert_eq!(body, fresh, "a document depends on the one before it");
        assert_eq!(is_utf8, std::str::from_utf8(line.text).is_ok());
        let lines: Vec<&[u8]> = body.split(|byte| *byte == b'\n').collect();
        let [action, document, b""] = lines[..] else { panic!("not two lines: {}", body.escape_ascii()) };
        let action: Value = serde_json::from_slice(action).expect("the action is JSON");
        let document: Value = serde_json::from_slice(document).expect("the document is JSON");
        let id = action["create"]["_id"].as_str().expect("an id");
        assert!(id.len() == 24 && action["create"]["_index"].is_string(), "{action}");
        let name = match (self.schema, &self.facts.origin) {
            (Schema::Fluent, Origin::Journal | Origin::Kernel) => "MESSAGE",
            (Schema::Fluent, _) if fields.is_empty() => "log",
            _ => "message",
        };
        assert_eq!(document[name].as_str(), Some(&*String::from_utf8_lossy(line.text)));
        assert_eq!(document["stream"].as_str().unwrap_or_default(), line.stream.as_str());
        let time = document["@timestamp"].as_str().expect("a time");
        assert_eq!(parse_rfc3339(time.as_bytes()), Some(line.time), "{time}");
        document
    }
}

/// Where a piece lies in the text that it was cut from.
pub fn place_in(piece: &[u8], whole: &[u8]) -> std::ops::Range<usize> {
    let start = (piece.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
    assert!(start <= whole.len() && start + piece.len() <= whole.len(), "not a piece of it");
    start..start + piece.len()
}
