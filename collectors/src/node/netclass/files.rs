//! Interfaces read file by file, as any tree of files can be.

use std::{io, path::Path, path::PathBuf, time::Instant};

use super::{NUMBERS, TEXTS, Values};
use crate::{
    CollectError, host,
    sysfs::{Buffer, Directory, KeptDevice},
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

/// What is read at every scrape: no link goes up or down, and nobody switches an interface on or off, without a change in
/// one of these.
///
/// All the others are read again when that happened, and once a minute: counts of a carrier's changes, what drivers
/// negotiate with the other end, and what only an administrator sets.
const TELLING: [&str; 3] = ["carrier_changes", "flags", "operstate"];

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
    device: KeptDevice,
    values: Values,
    /// When all of it was read.
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
                device: KeptDevice::new(self.class.join(&name), NAMES),
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
        let is_stale = looked.is_none_or(|then| now.saturating_duration_since(then) >= device.holds());
        let mut has_any = false;
        let mut is_changed = is_stale;
        for is_telling in [true, false] {
            if !is_telling && !is_changed {
                break;
            }
            for (at, _) in NAMES.iter().enumerate().filter(|(_, name)| TELLING.contains(name) == is_telling) {
                let text = device.read(at, now, buffer);
                has_any |= text.is_ok();
                is_changed |= values.take(at, text);
            }
        }
        if is_changed {
            *looked = Some(now);
        }
        // An interface of which nothing can be read is a directory without attributes, or it is gone.
        let is_there = has_any || host::is_dir(device.path());
        device.rest();
        is_there
    }
}

impl Values {
    /// Whether it is another value than before. Interfaces refuse what they lack: a loopback its speed, one that is down
    /// its carrier.
    pub(super) fn take(&mut self, at: usize, text: io::Result<&str>) -> bool {
        match at.checked_sub(TEXTS.len()) {
            None => {
                let text = cut(text.unwrap_or_default());
                let is_changed = self.texts[at] != text;
                if is_changed {
                    text.clone_into(&mut self.texts[at]);
                }
                is_changed
            }
            Some(at) => {
                let number = text.ok().map(parse_number);
                std::mem::replace(&mut self.numbers[at], number) != number
            }
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
