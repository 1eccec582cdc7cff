//! What a syslog line says beside its message, as members of its document.

use super::Entry;
use crate::logs::{
    feed_fields::{LEVELS, is_number},
    shape::{Schema, write_string},
};

/// The names that Filebeat gives them.
const SEVERITIES: [&str; 8] =
    ["Emergency", "Alert", "Critical", "Error", "Warning", "Notice", "Informational", "Debug"];
const FACILITIES: [&str; 24] = [
    "kernel",
    "user-level",
    "mail",
    "system",
    "security/authorization",
    "syslogd",
    "line printer",
    "network news",
    "UUCP",
    "clock",
    "security/authorization",
    "FTP",
    "NTP",
    "log audit",
    "log alert",
    "clock",
    "local0",
    "local1",
    "local2",
    "local3",
    "local4",
    "local5",
    "local6",
    "local7",
];

impl Entry<'_> {
    /// All of it but time and message, to be written where [`BulkShape`](crate::logs::shape) takes a file's fields: in the
    /// object `log` at first, in `host` at the end.
    pub fn render(&self, schema: Schema, node: &str, out: &mut Vec<u8>) {
        match schema {
            Schema::Ecs => self.render_ecs(node, out),
            Schema::Fluent => self.render_fluent(out),
        }
    }

    fn render_ecs(&self, node: &str, out: &mut Vec<u8>) {
        if let Some(level) = self.priority.and_then(|priority| LEVELS.get(usize::from(priority % 8))) {
            member("level", level.as_bytes(), out);
        }
        let (number, word) = match self.process {
            Some(process) if is_number(process) => (Some(process), None),
            process => (None, process),
        };
        self.render_log_syslog(word, out);
        out.push(b'}');
        if self.program.is_some() || number.is_some() {
            open("process", out);
            self.program.inspect(|program| member("name", program, out));
            number.inspect(|number| raw_member("pid", number, out));
            out.push(b'}');
        }
        // As it was written: any program may invent names in it, and each would become a field of the index for ever.
        if let Some(data) = self.data {
            open("syslog", out);
            member("structured_data", data, out);
            out.push(b'}');
        }
        open("host", out);
        self.host.inspect(|host| member("hostname", host, out));
        member("name", node.as_bytes(), out);
    }

    fn render_log_syslog(&self, process: Option<&[u8]>, out: &mut Vec<u8>) {
        let begun = out.len();
        open("syslog", out);
        let empty = out.len();
        if let Some(priority) = self.priority {
            named_code("facility", priority / 8, &FACILITIES, out);
            raw_member("priority", priority.to_string().as_bytes(), out);
            named_code("severity", priority % 8, &SEVERITIES, out);
        }
        self.message_id.inspect(|id| member("msgid", id, out));
        process.inspect(|process| member("procid", process, out));
        if self.is_5424 {
            member("version", b"1", out);
        }
        if out.len() == empty {
            out.truncate(begun);
        } else {
            out.push(b'}');
        }
    }

    /// The names of fluentd's own syslog parser.
    fn render_fluent(&self, out: &mut Vec<u8>) {
        if let Some(priority) = self.priority {
            raw_member("pri", priority.to_string().as_bytes(), out);
        }
        let members = [
            ("host", self.host),
            ("ident", self.program),
            ("pid", self.process),
            ("msgid", self.message_id),
            ("extradata", self.data),
        ];
        for (name, value) in members {
            value.inspect(|value| member(name, value, out));
        }
    }
}

fn named_code(name: &str, code: u8, names: &[&str], out: &mut Vec<u8>) {
    open(name, out);
    raw_member("code", code.to_string().as_bytes(), out);
    if let Some(name) = names.get(usize::from(code)) {
        member("name", name.as_bytes(), out);
    }
    out.push(b'}');
}

fn open(name: &str, out: &mut Vec<u8>) {
    raw_member(name, b"{", out);
}

fn member(name: &str, value: &[u8], out: &mut Vec<u8>) {
    raw_member(name, b"", out);
    write_string(value, out);
}

/// A member of an object; the first one in it needs no comma before it.
fn raw_member(name: &str, value: &[u8], out: &mut Vec<u8>) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    out.extend_from_slice(value);
}
