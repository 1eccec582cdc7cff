//! journald's files, whole and with anything written over them, and what is packed in them.
#![no_main]

use std::{fs, path::Path};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use nodewarden::logs::{
    feed_fields::{Fields, Slot},
    journal::{
        file::{Entry, JournalFile, Step},
        testing::Builder,
        unpack::{Packing, unpack},
    },
    record::{Line, Origin, Span, Stream},
    shape::Schema,
};
use nodewarden_fuzz::{Damage, Documents, noise};

const NAMES: [&str; 8] =
    ["MESSAGE", "PRIORITY", "_PID", "SYSLOG_IDENTIFIER", "_HOSTNAME", "CODE_LINE", "UNIT", "MY_OWN"];
/// Other values than the message are cut at this length.
const MAX_VALUE: usize = 16 << 10;
/// Reading all of a file that leads to the same long fields again and again takes long, and shows nothing new.
const READ: usize = 64;

#[derive(Debug, Arbitrary)]
struct Plan {
    compact: bool,
    entries: Vec<Vec<Field>>,
    /// So many entries are there when the file is opened.
    first: u8,
    max_message: u16,
    seek: u8,
    damage: Vec<Damage>,
    aimed: Vec<Aimed>,
    packed: Vec<u8>,
    limits: (u16, u16),
}

#[derive(Debug, Arbitrary)]
enum Field {
    /// As it is.
    Text { name: u8, value: String },
    /// A long one.
    Long { name: u8, length: u16, seed: u64 },
    /// Packed with zstd, as journald does it.
    Packed { name: u8, repeated: u16 },
    /// Anything that is said to be packed.
    Odd { packing: u8, payload: Vec<u8> },
}

/// A number written where one is.
#[derive(Debug, Arbitrary)]
struct Aimed {
    at: u16,
    number: Number,
}

#[derive(Debug, Arbitrary)]
enum Number {
    Any(u64),
    Small(u8),
    /// The place of an entry.
    Entry(u8),
    /// So many steps of eight bytes from here.
    Near(i8),
}

fuzz_target!(|plan: Plan| {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("system.journal");
    check_whole(&plan, &path);
    check_damaged(&plan, &path);
    check_unpacked(&plan);
});

/// The entries as they were written: name and value of each field, `None` where one is not certain to be readable.
type Written = Vec<Option<Vec<(&'static str, Vec<u8>)>>>;

fn name(number: u8) -> &'static str {
    NAMES[usize::from(number) % NAMES.len()]
}

fn packing(number: u8) -> Packing {
    [Packing::None, Packing::Xz, Packing::Lz4, Packing::Zstd][usize::from(number) % 4]
}

fn add(builder: &mut Builder, seqnum: u64, entry: &[Field], written: &mut Written) {
    let mut values = Some(Vec::new());
    let mut data = Vec::new();
    for field in entry.iter().take(20) {
        let (name, value, packing) = match field {
            Field::Text { name: number, value } => (name(*number), value.clone().into_bytes(), Packing::None),
            Field::Long { name: number, length, seed } => {
                let value = noise(*seed).take(usize::from(*length)).collect();
                (name(*number), value, Packing::None)
            }
            Field::Packed { name: number, repeated } => {
                (name(*number), b"again ".repeat(usize::from(*repeated)), Packing::Zstd)
            }
            Field::Odd { packing: number, payload } => {
                data.push(builder.data(payload, packing(*number)));
                values = None;
                continue;
            }
        };
        let raw = [name.as_bytes(), b"=", &value].concat();
        let payload = match packing {
            Packing::Zstd => zstd::bulk::compress(&raw, 1).expect("packed"),
            _ => raw,
        };
        data.push(builder.data(&payload, packing));
        values.as_mut().into_iter().for_each(|values| values.push((name, value.clone())));
    }
    builder.entry_of(seqnum, &data);
    written.push(values);
}

fn seqnum(number: usize) -> u64 {
    10 + 3 * number as u64
}

/// What was written is read, also by who opened the file before all of it was there.
fn check_whole(plan: &Plan, path: &Path) {
    let mut builder = Builder::new(7, plan.compact);
    let mut written = Written::new();
    let first = usize::from(plan.first).min(plan.entries.len());
    for (number, entry) in plan.entries[..first].iter().enumerate() {
        add(&mut builder, seqnum(number), entry, &mut written);
    }
    fs::write(path, &builder.bytes).expect("written");
    let mut file = JournalFile::open(path).expect("opened");
    let from = u64::from(plan.seek);
    file.seek(from).expect("sought");
    let mut number = (0..first).find(|number| seqnum(*number) >= from).unwrap_or(first);
    check_entries(&mut file, &written, &mut number, plan);
    for (number, entry) in plan.entries.iter().enumerate().skip(first) {
        add(&mut builder, seqnum(number), entry, &mut written);
    }
    builder.write(path);
    file.rest();
    file.refresh().expect("refreshed");
    check_entries(&mut file, &written, &mut number, plan);
    assert_eq!(number, written.len());
    for after in 0..written.len() {
        assert_eq!(file.seqnum_after(after as u64).expect("found"), Some(seqnum(after)));
    }
}

fn check_entries(file: &mut JournalFile, written: &Written, number: &mut usize, plan: &Plan) {
    let mut fields = Fields::default();
    loop {
        let entry = match file.peek().expect("readable") {
            Step::Entry(entry) => entry,
            Step::End => break,
            Step::Unreadable => panic!("an entry can't be read"),
        };
        assert_eq!(entry.seqnum, seqnum(*number));
        let max_message = usize::from(plan.max_message);
        let extent = file.read(&entry, max_message, &mut fields).expect("read");
        if let Some(values) = &written[*number] {
            assert_eq!(extent.unreadable, 0);
            for name in NAMES {
                let value = values.iter().find(|(other, _)| *other == name).map(|(_, value)| value);
                let slot = Slot::of(name.as_bytes());
                let limit = if name == "MESSAGE" { max_message } else { MAX_VALUE };
                let expected = value.filter(|_| slot.is_some()).map(|value| &value[..value.len().min(limit)]);
                assert_eq!(slot.and_then(|slot| fields.get(slot)), expected, "{name}");
            }
            let messages = values.iter().filter(|(name, _)| *name == "MESSAGE");
            let cut = |value: &[u8]| value.len().saturating_sub(max_message) as u64;
            assert_eq!(extent.cut, messages.map(|(_, value)| cut(value)).sum::<u64>());
        }
        check_fields(&entry, &fields, max_message);
        file.advance();
        *number += 1;
    }
    assert_eq!(*number, written.len());
}

/// Whatever the fields are, they are bounded and make documents.
fn check_fields(entry: &Entry, fields: &Fields, max_message: usize) {
    for name in NAMES {
        let limit = if name == "MESSAGE" { max_message } else { MAX_VALUE };
        let value = Slot::of(name.as_bytes()).and_then(|slot| fields.get(slot));
        assert!(value.is_none_or(|value| value.len() <= limit), "{name} is too long");
    }
    for schema in [Schema::Ecs, Schema::Fluent] {
        let mut rendered = Vec::new();
        fields.render(schema, "n\\1", &mut rendered);
        let line = Line {
            time: i64::try_from(entry.realtime.saturating_mul(1000)).unwrap_or(i64::MAX),
            stream: Stream::None,
            text: fields.get(Slot::MESSAGE).unwrap_or_default(),
            span: Span { start: entry.seqnum, end: entry.seqnum + 1 },
            bytes: 1,
            lines: 1,
        };
        Documents::new(schema, Origin::Journal).check(&line, &rendered);
    }
}

/// A damaged file has an end, and what is read of it is within its bounds.
fn check_damaged(plan: &Plan, path: &Path) {
    let mut builder = Builder::new(7, plan.compact);
    for (number, entry) in plan.entries.iter().enumerate() {
        add(&mut builder, seqnum(number), entry, &mut Written::new());
    }
    let mut bytes = builder.bytes.clone();
    Damage::apply(&plan.damage, &mut bytes);
    for aimed in plan.aimed.iter().take(16) {
        let Some(at) = (usize::from(aimed.at) * 8).checked_rem(bytes.len()) else { return };
        let number = match aimed.number {
            Number::Any(number) => number,
            Number::Small(number) => number.into(),
            Number::Entry(number) => builder.places.get(usize::from(number)).copied().unwrap_or(0),
            Number::Near(steps) => (at as u64 & !7).wrapping_add_signed(8 * i64::from(steps)),
        };
        if let Some(place) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
            *place = number.to_le_bytes();
        }
    }
    fs::write(path, &bytes).expect("written");
    let Ok(mut file) = JournalFile::open(path) else { return };
    if file.seek(u64::from(plan.seek)).is_err() {
        return;
    }
    let mut fields = Fields::default();
    let (mut steps, mut read) = (0, 0);
    while let Ok(step) = file.peek() {
        match step {
            Step::End => break,
            Step::Unreadable => {}
            Step::Entry(entry) => {
                assert!(entry.seqnum > 0 && entry.seqnum <= file.header.tail_seqnum);
                assert!(entry.seqnum < 1 << 48);
                if read < READ {
                    read += 1;
                    let max_message = usize::from(plan.max_message);
                    if file.read(&entry, max_message, &mut fields).is_ok() {
                        check_fields(&entry, &fields, max_message);
                    }
                }
            }
        }
        file.advance();
        steps += 1;
        assert!(steps <= bytes.len() / 4, "a place of the file is passed more than once");
    }
    let _ = file.seqnum_after(file.header.entries / 2);
    let _ = file.refresh();
}

/// Less of the same is a beginning of it.
fn check_unpacked(plan: &Plan) {
    let (less, more) = (plan.limits.0.min(plan.limits.1), plan.limits.0.max(plan.limits.1));
    for packing in [Packing::None, Packing::Lz4, Packing::Zstd, Packing::Xz] {
        let unpacked = |limit: u16| {
            let mut out = vec![1, 2, 3];
            let result = unpack(packing, &plan.packed, limit.into(), &mut out);
            assert!(out.len() <= usize::from(limit));
            result.is_ok().then_some(out)
        };
        if let (Some(less), Some(more)) = (unpacked(less), unpacked(more)) {
            assert!(more.starts_with(&less), "{packing:?}");
        }
    }
}
