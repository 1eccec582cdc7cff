//! The fields of journal entries and kernel records, and what they are called in documents.
//!
//! Names and types are those of Filebeat's journald input (8.x), with ECS names for process and user, so that dashboards go
//! on working; in the `fluent` schema they are those of the fluentd image's `systemd` source, which strips underscores at
//! the front. Fields that are not listed here are left out: any program may invent names, and each would become a field of
//! the index for ever.

use std::ops::Range;

use super::shape::{Schema, write_string};

/// What journald calls the fields that are kept. A [`Slot`] is a place in this list.
const NAMES: [&str; 36] = [
    "MESSAGE",
    "PRIORITY",
    "SYSLOG_IDENTIFIER",
    "SYSLOG_FACILITY",
    "SYSLOG_PID",
    "_PID",
    "_UID",
    "_GID",
    "_COMM",
    "_EXE",
    "_CMDLINE",
    "_CAP_EFFECTIVE",
    "_SYSTEMD_UNIT",
    "_SYSTEMD_USER_UNIT",
    "_SYSTEMD_SLICE",
    "_SYSTEMD_USER_SLICE",
    "_SYSTEMD_CGROUP",
    "_SYSTEMD_SESSION",
    "_SYSTEMD_OWNER_UID",
    "_SYSTEMD_INVOCATION_ID",
    "_TRANSPORT",
    "_HOSTNAME",
    "_MACHINE_ID",
    "_BOOT_ID",
    "MESSAGE_ID",
    "UNIT",
    "USER_UNIT",
    "CODE_FILE",
    "CODE_FUNC",
    "CODE_LINE",
    "_KERNEL_SUBSYSTEM",
    "_KERNEL_DEVICE",
    "CONTAINER_ID_FULL",
    "CONTAINER_NAME",
    "IMAGE_NAME",
    "CONTAINER_TAG",
];

/// One of the fields that are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot(usize);

impl Slot {
    /// The text of the entry.
    pub const MESSAGE: Self = Self(0);
    /// 0 (emergency) to 7 (debug).
    pub const PRIORITY: Self = Self(1);
    /// The program's name.
    pub const IDENTIFIER: Self = Self(2);
    /// Of syslog; 0 is the kernel.
    pub const FACILITY: Self = Self(3);
    const SYSLOG_PID: Self = Self(4);
    const PID: Self = Self(5);
    const COMM: Self = Self(8);
    /// How the entry came to its log.
    pub const TRANSPORT: Self = Self(20);
    /// The kernel's part that speaks.
    pub const SUBSYSTEM: Self = Self(30);
    /// The device it speaks of.
    pub const DEVICE: Self = Self(31);

    /// The field of this name, if it is kept.
    pub fn of(name: &[u8]) -> Option<Self> {
        NAMES.iter().position(|known| known.as_bytes() == name).map(Self)
    }
}

/// The form of a value in ECS documents.
#[derive(Clone, Copy)]
enum Form {
    Text,
    /// Left out when it is none, as such a document would be refused.
    Number,
    /// The word for a priority.
    Level,
    /// The node's name, whatever the entry says.
    Node,
}

/// Path of the field, its slot and its form; sorted, so that what belongs into one object stands together.
const ECS: &[(&str, usize, Form)] = &[
    ("container.id", 32, Form::Text),
    ("container.image.name", 34, Form::Text),
    ("container.log.tag", 35, Form::Text),
    ("container.name", 33, Form::Text),
    ("host.hostname", 21, Form::Text),
    ("host.id", 22, Form::Text),
    ("host.name", 0, Form::Node),
    ("journald.code.file", 27, Form::Text),
    ("journald.code.func", 28, Form::Text),
    ("journald.code.line", 29, Form::Number),
    ("journald.host.boot_id", 23, Form::Text),
    ("journald.kernel.device", 31, Form::Text),
    ("journald.kernel.subsystem", 30, Form::Text),
    ("journald.process.capabilities", 11, Form::Text),
    ("journald.unit", 25, Form::Text),
    ("journald.user_unit", 26, Form::Text),
    ("log.level", 1, Form::Level),
    ("log.syslog.facility.code", 3, Form::Number),
    ("log.syslog.priority", 1, Form::Number),
    ("message_id", 24, Form::Text),
    ("process.command_line", 10, Form::Text),
    ("process.executable", 9, Form::Text),
    ("process.name", 8, Form::Text),
    ("process.pid", 5, Form::Number),
    ("syslog.facility", 3, Form::Number),
    ("syslog.identifier", 2, Form::Text),
    ("syslog.pid", 4, Form::Number),
    ("syslog.priority", 1, Form::Number),
    ("systemd.cgroup", 16, Form::Text),
    ("systemd.invocation_id", 19, Form::Text),
    ("systemd.owner_uid", 18, Form::Number),
    ("systemd.session", 17, Form::Text),
    ("systemd.slice", 14, Form::Text),
    ("systemd.transport", 20, Form::Text),
    ("systemd.unit", 12, Form::Text),
    ("systemd.user_slice", 15, Form::Text),
    ("systemd.user_unit", 13, Form::Text),
    ("user.group.id", 7, Form::Text),
    ("user.id", 6, Form::Text),
];

/// The fields of ECS documents, and whether they are numbers.
pub fn ecs_types() -> impl Iterator<Item = (&'static str, bool)> {
    ECS.iter().map(|(path, _, form)| (*path, matches!(form, Form::Number)))
}

/// The words for priorities.
pub const LEVELS: [&str; 8] =
    ["emergency", "alert", "critical", "error", "warning", "notice", "info", "debug"];

/// The fields of one entry; reused from one to the next.
#[derive(Debug, Clone)]
pub struct Fields {
    bytes: Vec<u8>,
    places: [Option<Range<usize>>; NAMES.len()],
}

impl Default for Fields {
    fn default() -> Self {
        Self { bytes: Vec::new(), places: [const { None }; NAMES.len()] }
    }
}

impl Fields {
    /// Forgets the last entry.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.places.fill(None);
    }

    /// Keeps a value. A field that comes again keeps its first value.
    pub fn set(&mut self, slot: Slot, value: &[u8]) {
        if let Some(place @ None) = self.places.get_mut(slot.0) {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(value);
            *place = Some(start..self.bytes.len());
        }
    }

    /// More of a value that was kept last.
    pub fn extend_last(&mut self, slot: Slot, more: &[u8]) {
        if let Some(Some(place)) = self.places.get_mut(slot.0)
            && place.end == self.bytes.len()
        {
            self.bytes.extend_from_slice(more);
            place.end = self.bytes.len();
        }
    }

    /// The value of a field, if the entry has it.
    pub fn get(&self, slot: Slot) -> Option<&[u8]> {
        self.bytes.get(self.places.get(slot.0)?.clone()?)
    }

    /// All of it but the message as members of a JSON object, each after a comma.
    pub fn render(&self, schema: Schema, node: &str, out: &mut Vec<u8>) {
        match schema {
            Schema::Ecs => self.render_ecs(node, out),
            Schema::Fluent => self.render_fluent(out),
        }
    }

    /// The line as `journalctl` shows it after time and host: `sshd[812]: text`, for a sink that keeps only text.
    pub fn as_line(&self, out: &mut Vec<u8>) {
        if let Some(name) = self.get(Slot::IDENTIFIER).or_else(|| self.get(Slot::COMM)) {
            out.extend_from_slice(name);
            if let Some(pid) = self.get(Slot::PID).or_else(|| self.get(Slot::SYSLOG_PID)) {
                out.push(b'[');
                out.extend_from_slice(pid);
                out.push(b']');
            }
            out.extend_from_slice(b": ");
        }
        out.extend_from_slice(self.get(Slot::MESSAGE).unwrap_or_default());
    }

    fn render_ecs(&self, node: &str, out: &mut Vec<u8>) {
        let mut open: &str = "";
        for &(path, slot, form) in ECS {
            let value = match form {
                Form::Node => Some(node.as_bytes()),
                Form::Level => self.get(Slot(slot)).and_then(level),
                Form::Number => self.get(Slot(slot)).filter(|value| is_number(value)),
                Form::Text => self.get(Slot(slot)),
            };
            let Some(value) = value else { continue };
            let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
            move_to(&mut open, parent, out);
            write_name(name, out);
            match form {
                Form::Number => out.extend_from_slice(value),
                _ => {
                    write_string(value, out);
                }
            }
        }
        move_to(&mut open, "", out);
    }

    fn render_fluent(&self, out: &mut Vec<u8>) {
        for (number, name) in NAMES.iter().enumerate().skip(1) {
            if let Some(value) = self.get(Slot(number)) {
                write_name(name.trim_start_matches('_'), out);
                write_string(value, out);
            }
        }
    }
}

/// Closes and opens objects on the way from one path to another.
fn move_to(open: &mut &'static str, to: &'static str, out: &mut Vec<u8>) {
    let steps = |path: &'static str| path.split('.').filter(|step| !step.is_empty());
    let common = steps(open).zip(steps(to)).take_while(|(one, other)| one == other).count();
    out.extend(steps(open).skip(common).map(|_| b'}'));
    for step in steps(to).skip(common) {
        write_name(step, out);
        out.push(b'{');
    }
    *open = to;
}

/// A name within an object; the first one in it needs no comma before it.
fn write_name(name: &str, out: &mut Vec<u8>) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// The word for a priority; what is above it, as `/dev/kmsg` says it, is the facility.
fn level(value: &[u8]) -> Option<&'static [u8]> {
    let [digit @ b'0'..=b'7'] = value else { return None };
    LEVELS.get(usize::from(digit - b'0')).map(|word| word.as_bytes())
}

/// Digits that JSON takes as a number and Elasticsearch as a `long`.
pub fn is_number(value: &[u8]) -> bool {
    let digits = value.strip_prefix(b"-").unwrap_or(value);
    // Some read "-0" as a fraction.
    let is_plain = value == b"0" || digits.first().is_some_and(|first| *first != b'0');
    is_plain && digits.len() <= 18 && digits.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn fields(values: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::default();
        for (name, value) in values {
            fields.set(Slot::of(name.as_bytes()).expect("a field that is kept"), value.as_bytes());
        }
        fields
    }

    fn rendered(fields: &Fields, schema: Schema) -> Value {
        let mut out = b"{\"m\":1".to_vec();
        fields.render(schema, "n1", &mut out);
        out.push(b'}');
        serde_json::from_slice(&out).expect("JSON")
    }

    #[test]
    fn an_entry_has_filebeats_names() {
        let fields = fields(&[
            ("MESSAGE", "Accepted publickey"),
            ("_PID", "812"),
            ("PRIORITY", "4"),
            ("_SYSTEMD_UNIT", "ssh.service"),
            ("SYSLOG_IDENTIFIER", "sshd"),
            ("_HOSTNAME", "rack7"),
            ("SYSLOG_FACILITY", "10"),
            ("_UID", "0"),
        ]);
        assert_eq!(
            rendered(&fields, Schema::Ecs),
            json!({
                "m": 1,
                "host": {"hostname": "rack7", "name": "n1"},
                "log": {"level": "warning", "syslog": {"facility": {"code": 10}, "priority": 4}},
                "process": {"pid": 812},
                "syslog": {"facility": 10, "identifier": "sshd", "priority": 4},
                "systemd": {"unit": "ssh.service"},
                "user": {"id": "0"},
            })
        );
        let mut line = Vec::new();
        fields.as_line(&mut line);
        assert_eq!(line, b"sshd[812]: Accepted publickey");
    }

    #[test]
    fn the_fluent_schema_strips_underscores() {
        let fields = fields(&[("_SYSTEMD_UNIT", "ssh.service"), ("PRIORITY", "4")]);
        assert_eq!(
            rendered(&fields, Schema::Fluent),
            json!({"m": 1, "PRIORITY": "4", "SYSTEMD_UNIT": "ssh.service"})
        );
    }

    #[test]
    fn a_number_that_is_none_is_left_out() {
        let odd = fields(&[
            ("_PID", "07"),
            ("PRIORITY", "9x"),
            ("CODE_LINE", "-"),
            ("SYSLOG_PID", "1e9"),
            ("_SYSTEMD_OWNER_UID", "-0"),
        ]);
        assert_eq!(rendered(&odd, Schema::Ecs), json!({"m": 1, "host": {"name": "n1"}}));
    }

    #[test]
    fn the_tables_fit_together() {
        assert!(ECS.is_sorted_by(|one, other| one.0 < other.0));
        assert!(ECS.iter().all(|(_, slot, _)| *slot < NAMES.len()));
        for (slot, name) in [
            (Slot::MESSAGE, "MESSAGE"),
            (Slot::PRIORITY, "PRIORITY"),
            (Slot::IDENTIFIER, "SYSLOG_IDENTIFIER"),
            (Slot::FACILITY, "SYSLOG_FACILITY"),
            (Slot::SYSLOG_PID, "SYSLOG_PID"),
            (Slot::PID, "_PID"),
            (Slot::COMM, "_COMM"),
            (Slot::TRANSPORT, "_TRANSPORT"),
            (Slot::SUBSYSTEM, "_KERNEL_SUBSYSTEM"),
            (Slot::DEVICE, "_KERNEL_DEVICE"),
        ] {
            assert_eq!(Slot::of(name.as_bytes()), Some(slot), "{name}");
        }
        for (name, path) in [
            ("_SYSTEMD_UNIT", "systemd.unit"),
            ("_EXE", "process.executable"),
            ("_CMDLINE", "process.command_line"),
            ("_MACHINE_ID", "host.id"),
            ("_BOOT_ID", "journald.host.boot_id"),
            ("CONTAINER_ID_FULL", "container.id"),
            ("IMAGE_NAME", "container.image.name"),
            ("_TRANSPORT", "systemd.transport"),
            ("MESSAGE_ID", "message_id"),
            ("_SYSTEMD_CGROUP", "systemd.cgroup"),
            ("_SYSTEMD_OWNER_UID", "systemd.owner_uid"),
            ("_SYSTEMD_INVOCATION_ID", "systemd.invocation_id"),
            ("CODE_LINE", "journald.code.line"),
        ] {
            let slot = Slot::of(name.as_bytes()).map(|slot| slot.0);
            assert!(ECS.iter().any(|row| row.0 == path && Some(row.1) == slot), "{name} is {path}");
        }
    }

    proptest! {
        #[test]
        fn any_values_make_valid_json(
            values in proptest::collection::vec((0_usize..36, proptest::collection::vec(any::<u8>(), 0..20)), 0..20),
        ) {
            let mut fields = Fields::default();
            for (slot, value) in &values {
                fields.set(Slot(*slot), value);
            }
            for schema in [Schema::Ecs, Schema::Fluent] {
                rendered(&fields, schema);
            }
        }
    }
}
