//! Interfaces read file by file, as any tree of files can be.

use std::{io, path::Path, path::PathBuf, time::Instant};

use super::{NUMBERS, TEXTS, Values};
use crate::{
    CollectError, host,
    sysfs::{self, Buffer, Device, Directory},
};

/// The texts, then the numbers.
pub(super) const NAMES: &[&str] = &{
    let mut names = [""; TEXTS.len() + NUMBERS.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = if at < TEXTS.len() { TEXTS[at] } else { NUMBERS[at - TEXTS.len()].0 };
        at += 1;
    }
    names
};

/// What an interface is born with, or what only an administrator changes, and nobody looks at the page for: it is read
/// again only now and then.
const CONSTANT: [&str; 11] = [
    "addr_assign_type",
    "broadcast",
    "dev_id",
    "ifalias",
    "ifindex",
    "iflink",
    "link_mode",
    "name_assign_type",
    "netdev_group",
    "tx_queue_len",
    "type",
];

/// The kernel's longest answer that node_exporter reads of an attribute; only an alias can be longer.
const LONGEST: usize = 128;

pub(super) struct Files {
    class: PathBuf,
    interfaces: Vec<Interface>,
    buffer: Buffer,
}

struct Interface {
    name: String,
    ignored: bool,
    device: Device,
    values: Values,
    /// When [`CONSTANT`] was read.
    looked: Option<Instant>,
}

impl Files {
    pub(super) fn new(class: PathBuf) -> Self {
        Self { class, interfaces: Vec::new(), buffer: Buffer::default() }
    }

    /// Gives all descriptors back.
    pub(super) fn close(&mut self) {
        self.interfaces.clear();
    }

    /// Takes up interfaces that are new, forgets those that are gone.
    pub(super) fn follow(&mut self, is_ignored: impl Fn(&str) -> bool) -> Result<(), CollectError> {
        // Files, such as bonding_masters, are no interfaces.
        let names = host::list_dir_but_files(&self.class)?;
        if names.iter().eq(self.interfaces.iter().map(|interface| &interface.name)) {
            return Ok(());
        }
        let mut known = std::mem::take(&mut self.interfaces).into_iter().peekable();
        for name in names {
            // Both are sorted.
            while known.peek().is_some_and(|interface| interface.name < name) {
                known.next();
            }
            let interface = known.next_if(|interface| interface.name == name).unwrap_or_else(|| Interface {
                ignored: is_ignored(&name),
                device: Device::new(self.class.join(&name), NAMES),
                name,
                values: Values::default(),
                looked: None,
            });
            self.interfaces.push(interface);
        }
        Ok(())
    }

    /// Hands every interface that is not ignored to `say`, but for those that are gone by now.
    pub(super) fn say(&mut self, now: Instant, mut say: impl FnMut(&str, &Values)) {
        for interface in self.interfaces.iter_mut().filter(|interface| !interface.ignored) {
            if interface.read(now, &mut self.buffer) {
                say(&interface.name, &interface.values);
            }
        }
    }
}

impl Interface {
    /// Whether it is still there.
    fn read(&mut self, now: Instant, buffer: &mut Buffer) -> bool {
        let Self { device, values, looked, .. } = self;
        let is_stale = looked.is_none_or(|then| now.saturating_duration_since(then) >= sysfs::STALENESS);
        let mut has_any = false;
        for (at, file) in NAMES.iter().enumerate() {
            if !is_stale && CONSTANT.contains(file) {
                continue;
            }
            let text = device.read(at, now, buffer);
            has_any |= text.is_ok();
            values.take(at, text);
        }
        if is_stale {
            *looked = Some(now);
        }
        // An interface of which nothing can be read is a directory without attributes, or it is gone.
        let is_there = has_any || host::is_dir(device.path());
        device.rest();
        is_there
    }
}

impl Values {
    /// Interfaces refuse what they lack: a loopback its speed, one that is down its carrier.
    pub(super) fn take(&mut self, at: usize, text: io::Result<&str>) {
        match at.checked_sub(TEXTS.len()) {
            None => {
                let text = cut(text.unwrap_or_default());
                if self.texts[at] != text {
                    text.clone_into(&mut self.texts[at]);
                }
            }
            Some(at) => self.numbers[at] = text.ok().map(parse_number),
        }
    }
}

/// Everything that the files of an interface say at once, from files that are closed again.
pub(super) fn read_once(path: &Path, buffer: &mut Buffer) -> io::Result<Values> {
    let directory = Directory::open(path)?;
    let mut values = Values::default();
    for (at, file) in NAMES.iter().enumerate() {
        values.take(at, directory.read(file, buffer));
    }
    Ok(values)
}

/// The beginning of a text that node_exporter says.
pub(super) fn cut(text: &str) -> &str {
    if text.len() <= LONGEST { text } else { text[..text.floor_char_boundary(LONGEST)].trim_end() }
}

/// `mtu`: "1500", `flags`: "0x1003"; what is no number counts as 0.
pub(super) fn parse_number(text: &str) -> i64 {
    match text.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).unwrap_or(0),
        None => text.parse().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_decimal_or_hex_and_nonsense_is_zero() {
        for (text, number) in [("1500", 1500), ("0x1003", 4099), ("-1", -1), ("", 0), ("fast", 0)] {
            assert_eq!(parse_number(text), number, "{text:?}");
        }
    }

    #[test]
    fn a_long_alias_is_cut_where_a_character_ends() {
        assert_eq!(cut(&"x".repeat(200)).len(), 128);
        assert_eq!(cut(&format!("{}é", "x".repeat(127))).len(), 127);
    }
}
