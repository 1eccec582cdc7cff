//! Reading the attributes of one device after the other when one that is broken must not hide the others.

use std::{io, path::Path};

use rustix::io::Errno;

use super::{Buffer, Directory};
use crate::collector::CollectError;

/// Every refusal is a failure.
pub const NEVER: &[Errno] = &[];

/// An absent attribute is no failure: the device lacks it.
pub const ABSENT: &[Errno] = &[Errno::NOENT];

/// Reads devices and remembers the first thing that went wrong, while the rest is said all the same.
#[derive(Debug)]
pub struct Reader {
    buffer: Buffer,
    failed: Option<CollectError>,
}

impl Default for Reader {
    /// Attributes are cut as by [`Buffer::short`].
    fn default() -> Self {
        Self { buffer: Buffer::short(), failed: None }
    }
}

impl Reader {
    /// The device in the directory `path`; `None` when it is gone by now.
    pub fn open<'a>(&'a mut self, path: &'a Path) -> Option<Attributes<'a>> {
        match Directory::open(path) {
            Ok(directory) => Some(Attributes { path, directory, reader: self }),
            Err(source) => {
                if !matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
                    self.fail(CollectError::Read { path: path.to_owned(), source });
                }
                None
            }
        }
    }

    /// Remembers what went wrong, if nothing did before.
    pub fn fail(&mut self, error: CollectError) {
        self.failed.get_or_insert(error);
    }

    /// Remembers what went wrong with the device `path`, but for one that is gone by now.
    pub fn fail_unless_gone(&mut self, path: &Path, error: CollectError) {
        if path.exists() {
            self.fail(error);
        }
    }

    /// What went wrong since the last call.
    pub fn finish(&mut self) -> Result<(), CollectError> {
        self.failed.take().map_or(Ok(()), Err)
    }
}

/// The attributes of one device.
#[derive(Debug)]
pub struct Attributes<'a> {
    path: &'a Path,
    directory: Directory,
    reader: &'a mut Reader,
}

impl Attributes<'_> {
    /// The trimmed text of an attribute; nothing when it can't be read, which is a failure but for the `silent` reasons.
    pub fn text(&mut self, file: &str, silent: &[Errno]) -> Option<&str> {
        self.untrimmed(file, silent).map(str::trim)
    }

    /// As [`Attributes::text`], with the white space around it.
    pub fn untrimmed(&mut self, file: &str, silent: &[Errno]) -> Option<&str> {
        let Reader { buffer, failed } = &mut *self.reader;
        match self.directory.read_untrimmed(file, buffer) {
            Ok(text) => Some(text),
            Err(source) => {
                note(failed, self.path, file, source, silent);
                None
            }
        }
    }

    /// The trimmed text of an attribute that may be missing for whatever reason.
    pub fn maybe(&mut self, file: &str) -> Option<&str> {
        self.directory.read(file, &mut self.reader.buffer).ok()
    }

    /// Whether the text could be read into `copy`, which keeps its buffer.
    pub fn copy(&mut self, file: &str, silent: &[Errno], copy: &mut String) -> bool {
        copy.clear();
        let text = self.text(file, silent);
        copy.push_str(text.unwrap_or_default());
        text.is_some()
    }

    /// What `parse` makes of the trimmed text; a text that it can't understand is a failure, too.
    pub fn parse<T>(
        &mut self,
        file: &str,
        silent: &[Errno],
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let parsed = parse(self.text(file, silent)?);
        if parsed.is_none() {
            self.fail_parsing(file);
        }
        parsed
    }

    /// As [`Attributes::parse`], with `absent` for a device that lacks the attribute.
    pub fn parse_or<T>(&mut self, file: &str, absent: T, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let Reader { buffer, failed } = &mut *self.reader;
        match self.directory.read(file, buffer) {
            Ok(text) => {
                let parsed = parse(text);
                if parsed.is_none() {
                    self.fail_parsing(file);
                }
                parsed
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some(absent),
            Err(error) => {
                note(failed, self.path, file, error, NEVER);
                None
            }
        }
    }

    /// Remembers that the text of an attribute is not what was expected.
    pub fn fail_parsing(&mut self, file: &str) {
        self.fail(CollectError::parse(self.path.join(file), "expected a number"));
    }

    /// Remembers what went wrong, if nothing did before and the device is still there.
    pub fn fail(&mut self, error: CollectError) {
        self.reader.fail_unless_gone(self.path, error);
    }
}

/// Remembers in `failed` why `file` of the device `path` could not be read, if nothing went wrong before.
fn note(failed: &mut Option<CollectError>, path: &Path, file: &str, source: io::Error, silent: &[Errno]) {
    let errno = Errno::from_io_error(&source);
    let is_silent = errno.is_some_and(|errno| silent.contains(&errno));
    // What a device answers that is being taken out says nothing of the others.
    let is_gone = || matches!(errno, Some(Errno::NOENT | Errno::NODEV)) && !path.exists();
    if failed.is_none() && !is_silent && !is_gone() {
        *failed = Some(CollectError::Read { path: path.join(file), source });
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_broken_is_told_and_hides_nothing() {
        let top = tempfile::tempdir().expect("a temporary directory");
        fs::write(top.path().join("good"), "5\n").expect("written");
        fs::write(top.path().join("bad"), "five\n").expect("written");
        let mut reader = Reader::default();
        let mut device = reader.open(top.path()).expect("it is there");
        assert_eq!(device.text("absent", ABSENT), None);
        assert_eq!(device.parse("bad", NEVER, super::super::unsigned), None);
        assert_eq!(device.text("absent", NEVER), None);
        assert_eq!(device.parse("good", NEVER, super::super::unsigned), Some(5));
        let error = reader.finish().expect_err("the first of them");
        assert!(error.to_string().contains("/bad"), "{error}");
        reader.finish().expect("told only once");
    }

    #[test]
    fn a_device_that_is_gone_is_no_failure() {
        let top = tempfile::tempdir().expect("a temporary directory");
        let path = top.path().join("nvme0");
        fs::create_dir(&path).expect("made");
        let mut reader = Reader::default();
        let mut device = reader.open(&path).expect("it is there");
        fs::remove_dir(&path).expect("removed");
        assert_eq!(device.text("model", NEVER), None);
        assert!(reader.open(&path).is_none());
        reader.finish().expect("nothing went wrong");
    }
}
