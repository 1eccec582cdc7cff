//! Small readers for sysfs attributes: one value per file, often absent.

use std::{
    fs::{self, File},
    io,
    os::{fd::OwnedFd, unix::fs::FileExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::{Duration, Instant},
};

use rustix::fs::{Mode, OFlags};

mod class;
mod reader;

pub use class::{Class, Device};
pub use reader::{ABSENT, Attributes, NEVER, Reader};

use crate::{
    collector::CollectError,
    host::{self, Keep, KeptFile, Place},
};

/// The trimmed text of an attribute; `None` where the device or driver has no such attribute or refuses to say.
///
/// Drivers answer `EINVAL`, `EIO`, `ENODATA`, `EOPNOTSUPP` or `EPERM` for an attribute that the hardware lacks or that is
/// root-only; all of them mean "not known".
pub fn attribute(path: &Path) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    Some(String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// A number out of an attribute, decimal or with `0x`.
pub fn number(path: &Path) -> Option<u64> {
    parse_number(&attribute(path)?)
}

/// Whether `name` is `prefix` followed by a number, as `cpu12`.
pub fn is_numbered(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| rest.as_bytes().first().is_some_and(u8::is_ascii_digit))
}

/// An attribute read at every scrape: its file stays open.
#[derive(Debug)]
pub struct Attribute(KeptFile);

impl Attribute {
    /// An attribute that is opened at the first read.
    pub fn new(path: PathBuf) -> Self {
        Self(KeptFile::new(path, Keep::DeviceFile))
    }

    /// Where the attribute is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The trimmed text as it is now, in `buffer`.
    pub fn read<'a>(&mut self, buffer: &'a mut Buffer) -> io::Result<&'a str> {
        Ok(buffer.fill(|bytes| self.0.read_with(|file| file.read_at(bytes, 0)))?.trim())
    }

    /// Gives the descriptor back; the next read opens the file again.
    pub fn close(&mut self) {
        self.0.close();
    }
}

/// The directory of a device, open while its attributes are read: each then costs a look-up of one name, not of the
/// whole path with its links. For devices that are too many to keep an [`Attribute`] for each of their files.
#[derive(Debug)]
pub struct Directory(OwnedFd);

impl Directory {
    /// Opens it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(path, flags, Mode::empty())?))
    }

    /// The trimmed text of an attribute in it, in `buffer`.
    pub fn read<'a>(&self, name: &str, buffer: &'a mut Buffer) -> io::Result<&'a str> {
        Ok(self.read_untrimmed(name, buffer)?.trim())
    }

    /// The text of an attribute in it with the white space around it, in `buffer`.
    pub fn read_untrimmed<'a>(&self, name: &str, buffer: &'a mut Buffer) -> io::Result<&'a str> {
        let file = self.open_file(name)?;
        buffer.fill(|bytes| file.read_at(bytes, 0))
    }

    fn open_file(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.0, name, flags, Mode::empty())?.into())
    }
}

/// How long what a device is (not what it does) may be older than the page says: whether it has some attribute, or the
/// value of one that only an administrator or a driver being loaded changes.
pub const STALENESS: Duration = Duration::from_secs(60);

/// Attributes that are read of many devices of one kind.
///
/// A file stays open while there is room for it among all that are kept, others are opened relative to the device's
/// directory. One that is absent is not asked for again for [`STALENESS`]: which attributes a device has is decided when its
/// driver registers it.
#[derive(Debug)]
pub struct KeptDevice {
    path: PathBuf,
    names: &'static [&'static str],
    directory: Option<(Directory, Option<Place>)>,
    files: Box<[Slot]>,
    /// How long its constants hold: devices differ, so that not all are read again in the same scrape.
    holds: Duration,
}

#[derive(Debug)]
enum Slot {
    Closed,
    Kept((File, Place)),
    AbsentAt(Instant),
    /// What a constant was.
    Read(Instant, Box<str>),
}

impl KeptDevice {
    /// The device whose directory is `path`; `names` are its attributes.
    pub fn new(path: PathBuf, names: &'static [&'static str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        const STEPS: u32 = 16;
        let step = COUNT.fetch_add(1, Relaxed) % STEPS;
        Self {
            path,
            names,
            directory: None,
            files: names.iter().map(|_| Slot::Closed).collect(),
            holds: STALENESS / (2 * STEPS) * (STEPS + step),
        }
    }

    /// Where its directory is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How long what is constant about it need not be read again; at most [`STALENESS`].
    pub fn holds(&self) -> Duration {
        self.holds
    }

    /// The trimmed text of the attribute at place `at` among the names, in `buffer`.
    pub fn read<'a>(&mut self, at: usize, now: Instant, buffer: &'a mut Buffer) -> io::Result<&'a str> {
        let length = self.read_with(at, now, |file| file.read_at(&mut buffer.bytes[..], 0))?;
        Ok(buffer.text(length)?.trim())
    }

    /// The text of an attribute that may be longer than a page, in `bytes`, which grow for it.
    pub fn read_long<'a>(&mut self, at: usize, now: Instant, bytes: &'a mut Vec<u8>) -> io::Result<&'a str> {
        let length = self.read_with(at, now, |file| read_long(file, bytes))?;
        let text = std::str::from_utf8(bytes.get(..length).unwrap_or_default());
        text.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
    }

    /// As [`KeptDevice::read`], of an attribute that only an administrator or a driver's load changes: the text may be as old
    /// as [`STALENESS`].
    pub fn constant<'a>(
        &'a mut self,
        at: usize,
        now: Instant,
        buffer: &'a mut Buffer,
    ) -> io::Result<&'a str> {
        let holds = self.holds;
        let is_fresh = |then: Instant| now.saturating_duration_since(then) < holds;
        if !matches!(self.files.get(at), Some(Slot::Read(then, _)) if is_fresh(*then)) {
            let file = self.open(at, now);
            if file.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
                // Even if it is the directory that is not there.
                self.forget(at, now);
            }
            let length = file?.read_at(&mut buffer.bytes[..], 0)?;
            let text = buffer.text(length)?.trim();
            self.files[at] = Slot::Read(now, text.into());
        }
        match &self.files[at] {
            Slot::Read(_, text) => Ok(text),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Gives the descriptor of the directory back unless it may be kept; called when the attributes at hand are read.
    pub fn rest(&mut self) {
        if self.directory.as_ref().is_some_and(|(_, place)| place.is_none()) {
            self.directory = None;
        }
    }

    /// What `read` reads of the attribute at place `at`, from the file that is kept if there is one.
    fn read_with<T>(
        &mut self,
        at: usize,
        now: Instant,
        mut read: impl FnMut(&File) -> io::Result<T>,
    ) -> io::Result<T> {
        if let Some(slot @ Slot::Kept(_)) = self.files.get_mut(at)
            && let Slot::Kept((file, _)) = slot
        {
            match read(file) {
                // The device may be gone, another one in its place.
                Err(error) if !host::is_refusal(&error) => *slot = Slot::Closed,
                result => return result,
            }
        }
        let file = self.open(at, now)?;
        let result = read(&file);
        self.files[at] = match Place::take(Keep::DeviceFile) {
            Some(place) => Slot::Kept((file, place)),
            None => Slot::Closed,
        };
        result
    }

    /// Opens an attribute, unless it was absent a short while ago.
    fn open(&mut self, at: usize, now: Instant) -> io::Result<File> {
        let slot = self.files.get(at);
        let was_absent =
            matches!(slot, Some(Slot::AbsentAt(then)) if now.saturating_duration_since(*then) < self.holds);
        let Some(name) = self.names.get(at).filter(|_| !was_absent) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        if let Some((directory, _)) = &self.directory {
            match directory.open_file(name) {
                // The directory may be that of a device that is gone: it is opened anew below.
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.directory = None,
                result => return result,
            }
        }
        let directory = Directory::open(&self.path)?;
        let (directory, _) = self.directory.insert((directory, Place::take(Keep::Directory)));
        let file = directory.open_file(name);
        if file.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            self.forget(at, now);
        }
        file
    }

    /// Does not ask for an attribute again for a while.
    fn forget(&mut self, at: usize, now: Instant) {
        if let Some(slot) = self.files.get_mut(at) {
            let is_known =
                matches!(slot, Slot::AbsentAt(then) if now.saturating_duration_since(*then) < self.holds);
            if !is_known {
                *slot = Slot::AbsentAt(now);
            }
        }
    }
}

/// The kernel hands out a text of many lines a page at a time, cut behind a line: a read that leaves more of the page unused
/// than the longest line takes was the last one.
const LONGEST_LINE: usize = 256;

/// Longer texts are refused.
const LONGEST_TEXT: usize = 4 << 20;

/// Reads from offset 0 to the end; the length of what was read.
fn read_long(file: &File, bytes: &mut Vec<u8>) -> io::Result<usize> {
    const PAGE: usize = 4096;
    let mut length = 0;
    while length < LONGEST_TEXT {
        if bytes.len() < length + PAGE {
            bytes.resize(length + PAGE, 0);
        }
        match file.read_at(&mut bytes[length..length + PAGE], length as u64) {
            Ok(count) => {
                length += count;
                if count < PAGE - LONGEST_LINE {
                    return Ok(length);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::FileTooLarge.into())
}

/// Where attributes are read into: the kernel gives at most a page, in one read.
#[derive(Debug)]
pub struct Buffer {
    bytes: Box<[u8]>,
    /// Text that was not UTF-8, odd bytes replaced.
    replaced: String,
}

impl Buffer {
    /// One that holds the 128 bytes at which node_exporter cuts most attributes: a longer label would be another series.
    pub fn short() -> Self {
        Self { bytes: Box::new([0; 128]), replaced: String::new() }
    }

    /// The text of what `read` reads.
    fn fill(&mut self, read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<&str> {
        let length = read(&mut self.bytes)?;
        self.text(length)
    }

    /// The text of the first `length` bytes.
    fn text(&mut self, length: usize) -> io::Result<&str> {
        let read = self.bytes.get(..length).unwrap_or_default();
        if let Ok(text) = std::str::from_utf8(read) {
            return Ok(text);
        }
        self.replaced.clear();
        replace_odd_bytes(read, &mut self.replaced);
        Ok(&self.replaced)
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Self { bytes: Box::new([0; 4096]), replaced: String::new() }
    }
}

/// Appends `bytes` with U+FFFD for each run of bytes that are not UTF-8, as node_exporter makes labels.
fn replace_odd_bytes(bytes: &[u8], text: &mut String) {
    let mut in_run = false;
    for chunk in bytes.utf8_chunks() {
        in_run &= chunk.valid().is_empty();
        text.push_str(chunk.valid());
        if !chunk.invalid().is_empty() && !in_run {
            text.push(char::REPLACEMENT_CHARACTER);
            in_run = true;
        }
    }
}

/// A decimal number.
pub fn decimal(text: &str) -> Option<u64> {
    text.parse().ok()
}

/// A number as Go's `ParseUint` reads it when the text decides its base: "0x1f", "017", "15".
pub fn unsigned(text: &str) -> Option<u64> {
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&text[2..], 16),
        [b'0', b'o' | b'O', ..] => (&text[2..], 8),
        [b'0', b'b' | b'B', ..] => (&text[2..], 2),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    // The standard library takes a sign before the digits.
    if digits.starts_with('+') {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

/// As [`unsigned`], with a sign.
pub fn signed(text: &str) -> Option<i64> {
    match text.strip_prefix('-') {
        Some(digits) => 0_i64.checked_sub_unsigned(unsigned(digits)?),
        None => unsigned(text.strip_prefix('+').unwrap_or(text))?.try_into().ok(),
    }
}

fn parse_number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// The entries of a class directory, sorted; none when the class is absent.
pub fn entries(path: &Path) -> Result<Vec<String>, CollectError> {
    match host::list_dir(path) {
        Err(CollectError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_attribute_shows_what_is_there_now() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("mtu");
        fs::write(&path, "1500\n").expect("written");
        let mut attribute = Attribute::new(path.clone());
        let mut buffer = Buffer::default();
        assert_eq!(attribute.read(&mut buffer).expect("read"), "1500");
        fs::write(&path, "9\u{ff}\n").expect("written");
        assert_eq!(attribute.read(&mut buffer).expect("read"), "9\u{ff}");
    }

    #[test]
    fn a_run_of_odd_bytes_becomes_one_mark() {
        for (bytes, text) in [
            (&b"disk"[..], "disk"),
            (b"a\xff\xfe\xfdb", "a\u{fffd}b"),
            (b"\xe2\x82c\xff", "\u{fffd}c\u{fffd}"),
            (b"\xff", "\u{fffd}"),
        ] {
            let mut replaced = String::new();
            replace_odd_bytes(bytes, &mut replaced);
            assert_eq!(replaced, text, "{bytes:?}");
        }
    }

    #[test]
    fn a_short_buffer_cuts() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::write(dir.path().join("nqn"), format!(" {}", "n".repeat(200))).expect("written");
        let directory = Directory::open(dir.path()).expect("opened");
        let mut buffer = Buffer::short();
        assert_eq!(directory.read("nqn", &mut buffer).expect("read").len(), 127);
        assert_eq!(directory.read_untrimmed("nqn", &mut buffer).expect("read").len(), 128);
    }

    #[test]
    fn a_long_text_is_read_to_its_end() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let mut device = KeptDevice::new(root.path().into(), &["cgroup.procs"]);
        let mut bytes = Vec::new();
        for lines in [0, 1, 700, 800, 5000, 3] {
            let text: String = (0..lines).map(|line| format!("{line:04}\n")).collect();
            fs::write(root.path().join("cgroup.procs"), &text).expect("written");
            let now = Instant::now();
            assert_eq!(device.read_long(0, now, &mut bytes).expect("read"), text, "{lines} lines");
        }
    }

    #[test]
    fn the_text_decides_the_base_of_a_number() {
        for (text, number) in [
            ("0", Some(0)),
            ("1500", Some(1500)),
            ("0xffffffffffffffff", Some(u64::MAX)),
            ("017", Some(15)),
            ("0b11", Some(3)),
            ("08", None),
            ("0x", None),
            ("0x+1", None),
            ("+1", None),
            ("-1", None),
            ("", None),
            ("18446744073709551616", None),
        ] {
            assert_eq!(unsigned(text), number, "{text:?}");
        }
        for (text, number) in [
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("+5", Some(5)),
            ("-0x10", Some(-16)),
            ("--1", None),
            ("+-1", None),
        ] {
            assert_eq!(signed(text), number, "{text:?}");
        }
    }

    #[test]
    fn a_device_in_the_place_of_another_is_read_anew() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let path = root.path().join("eth0");
        let write = |text: &str| {
            fs::create_dir_all(&path).expect("made");
            fs::write(path.join("mtu"), text).expect("written");
        };
        write("1500\n");
        let (mut device, mut buffer, now) =
            (KeptDevice::new(path.clone(), &["mtu", "speed"]), Buffer::default(), Instant::now());
        assert_eq!(device.read(0, now, &mut buffer).expect("read"), "1500");
        assert!(device.read(1, now, &mut buffer).is_err(), "it has no speed");
        fs::write(path.join("mtu"), "9000\n").expect("written");
        assert_eq!(device.read(0, now, &mut buffer).expect("read"), "9000");
        device.files[0] = Slot::Closed;
        fs::remove_dir_all(&path).expect("removed");
        write("1400\n");
        assert_eq!(device.read(0, now, &mut buffer).expect("read"), "1400");
    }

    #[test]
    fn a_constant_and_an_absent_attribute_are_looked_at_again_after_a_while() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let write = |name: &str, text: &str| fs::write(root.path().join(name), text).expect("written");
        write("type", "fan\n");
        let mut device = KeptDevice::new(root.path().into(), &["type", "max_state"]);
        let (mut buffer, now) = (Buffer::default(), Instant::now());
        assert_eq!(device.constant(0, now, &mut buffer).expect("read"), "fan");
        assert!(device.constant(1, now, &mut buffer).is_err());
        write("type", "processor\n");
        write("max_state", "7\n");
        assert_eq!(device.constant(0, now, &mut buffer).expect("kept"), "fan");
        assert!(device.constant(1, now, &mut buffer).is_err(), "not asked again at once");
        let later = now + STALENESS;
        assert_eq!(device.constant(0, later, &mut buffer).expect("read"), "processor");
        assert_eq!(device.constant(1, later, &mut buffer).expect("read"), "7");
    }

    #[test]
    fn numbers_are_decimal_or_hex() {
        assert_eq!(parse_number("1500"), Some(1500));
        assert_eq!(parse_number("0x1003"), Some(0x1003));
        assert_eq!(parse_number("fast"), None);
    }
}
