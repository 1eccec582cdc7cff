//! XIDs in the kernel's log. It is read beside the log path, which may be turned off, or held up by its sink.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read, Seek, SeekFrom},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};

use nodewarden_gpu::xids::Told;
use rustix::{fs::OFlags, io::Errno};

use crate::logs::kernel::{RECORD, kernel_text};

/// Records in one go: a storm of messages must not hold up the one thread that waits for everybody.
const MOST: usize = 1000;

/// The kernel's log from when it was opened: what is older was counted by an earlier agent, or by none.
pub struct KernelLog {
    device: File,
    /// The beginning of a line whose rest is not there yet; devices give whole records.
    begun: Vec<u8>,
}

impl KernelLog {
    /// Opens the first that can be opened; `None` when none can, which takes one of two witnesses.
    pub fn open(devices: &[PathBuf]) -> Option<Self> {
        let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
        let open = |path| OpenOptions::new().read(true).custom_flags(nonblocking).open(path);
        let mut device = devices.iter().find_map(|path| open(path).ok())?;
        device.seek(SeekFrom::End(0)).ok()?;
        Some(Self { device, begun: Vec::new() })
    }

    /// XIDs since the last time.
    pub fn read(&mut self) -> Vec<Told> {
        let mut found = Vec::new();
        let mut buffer = [0; RECORD];
        for _ in 0..MOST {
            match self.device.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => self.take(&buffer[..length], &mut found),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Some were overwritten: the other witness may have seen them.
                Err(error) if Errno::from_io_error(&error) == Some(Errno::PIPE) => {}
                Err(_) => break,
            }
        }
        found
    }

    fn take(&mut self, bytes: &[u8], found: &mut Vec<Told>) {
        self.begun.extend_from_slice(bytes);
        while let Some(end) = memchr::memchr(b'\n', &self.begun) {
            let line: Vec<u8> = self.begun.drain(..=end).collect();
            let text = kernel_text(&line[..end]).unwrap_or_default();
            found.extend(std::str::from_utf8(&text).ok().and_then(Told::in_kernel_log));
        }
        if self.begun.len() > RECORD {
            self.begun.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write};

    use super::*;

    #[test]
    fn xids_are_found_among_messages_from_when_it_was_opened() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("kmsg");
        fs::write(&path, "4,1,1,-;NVRM: Xid (PCI:0000:3b:00): 13, of before\n").expect("written");
        let mut log = KernelLog::open(&[dir.path().join("none"), path.clone()]).expect("it is there");
        let mut kernel = OpenOptions::new().append(true).open(&path).expect("opened");
        write!(
            kernel,
            "6,2,2,-;usb 1-1: new device\n SUBSYSTEM=usb\n4,3,3,-;NVRM: Xid (PCI:0000:3b:00): 31, pid=7\n\
             12,4,4,-;NVRM: Xid (PCI:0000:3b:00): 48, a program wrote this\n4,5,5,-;NVRM: Xid (PCI:0000:3b"
        )
        .expect("written");
        let codes = |found: Vec<Told>| found.into_iter().map(|told| told.code).collect::<Vec<_>>();
        assert_eq!(codes(log.read()), [31]);
        writeln!(kernel, ":00): 79, GPU has fallen off the bus.").expect("written");
        assert_eq!(codes(log.read()), [79]);
        assert_eq!(codes(log.read()), [0; 0]);
        assert!(KernelLog::open(&[dir.path().join("none")]).is_none());
    }
}
