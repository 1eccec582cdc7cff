//! The kernel's messages, read from `/dev/kmsg`.
//!
//! Each read is one record: `PRIORITY,NUMBER,MICROSECONDS,FLAGS;TEXT`, then lines ` KEY=VALUE` that say what it is about. The
//! kernel keeps the latest in a ring: numbers that are missing were overwritten, and are counted. A record has no other size
//! than its text, and of what was overwritten nobody knows it, so that loss is counted in lines.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Path, PathBuf},
    time::Instant,
};

use rustix::{
    fs::OFlags,
    io::Errno,
    time::{ClockId, clock_gettime},
};

use super::{
    batch::FileKey,
    feed::{Event, Feed, Kind, Register},
    feed_fields::{Fields, Slot},
    output::{Output, Taken, wall_clock},
    record::Span,
    shape::Encoding,
    turn::Ended,
};

/// No record is longer: the kernel's own limit.
pub const RECORD: usize = 8192;

/// One record.
#[derive(Debug)]
struct Record {
    span: Span,
    /// Microseconds since the boot.
    time: u64,
    /// It goes on with the line of the record before it.
    continues: bool,
    fields: Fields,
    /// Bytes of the message that were left out because it is longer than allowed.
    cut: u64,
}

/// The source.
pub struct Kernel {
    /// Where the device may be.
    devices: Vec<PathBuf>,
    /// The file with the boot's id.
    boot_id: PathBuf,
    encoding: Encoding,
    /// At most so many bytes of what is there at first, where the kernel's messages were never read before.
    history: Option<u64>,
    max_line: usize,
    open: Option<Open>,
    /// What was said of it last.
    said: Option<String>,
}

struct Open {
    device: File,
    feed: Feed,
    /// Records that were read and not taken yet. The last one may go on.
    waiting: VecDeque<Record>,
    max_line: usize,
    /// What is missing below was counted.
    counted: u64,
    buffer: Box<[u8; RECORD]>,
}

impl Kernel {
    /// The messages of the kernel, from the first of `devices` that can be opened.
    pub fn new(
        devices: Vec<PathBuf>,
        boot_id: PathBuf,
        encoding: Encoding,
        history: Option<u64>,
        max_line: usize,
    ) -> Self {
        Self { devices, boot_id, encoding, history, max_line, open: None, said: None }
    }

    /// Opens the device if it is not open. Whether there may be something to read: polling it costs as much as trying.
    pub fn look(&mut self, register: &mut Register, is_due: bool) -> bool {
        if self.open.is_none() && is_due {
            match self.open(register) {
                Ok(open) => {
                    self.open = Some(open);
                    self.say(register, true, "");
                }
                Err(reason) => self.say(register, false, &reason),
            }
        }
        self.open.is_some()
    }

    /// Takes what is there, up to a turn's worth.
    pub fn read(&mut self, output: &mut Output, now: Instant) -> Ended {
        let Some(open) = &mut self.open else { return Ended::Done };
        if open.feed.is_paused(now) {
            return Ended::Done;
        }
        let read = open.read(output, now);
        open.feed.count_read();
        match read {
            Ok(ended) => ended,
            Err(error) => {
                tracing::warn!(%error, "the kernel's messages can't be read for now");
                self.open = None;
                self.said = None;
                Ended::Done
            }
        }
    }

    /// Begins again where the feed does, if it has this key.
    pub fn set_back(&mut self, key: FileKey) {
        if let Some(open) = self.open.as_mut().filter(|open| open.feed.key == key) {
            open.waiting.clear();
            if let Err(error) = open.device.seek(SeekFrom::Start(0)) {
                tracing::warn!(%error, "the kernel's messages can't be read again");
            }
        }
    }

    /// What to poll for readability.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.open.as_ref().filter(|open| !open.feed.waits()).map(|open| open.device.as_fd())
    }

    /// The feed, when the device is open.
    pub fn feed(&self) -> Option<&Feed> {
        self.open.as_ref().map(|open| &open.feed)
    }

    /// The same, to be changed.
    pub fn feed_mut(&mut self) -> Option<&mut Feed> {
        self.open.as_mut().map(|open| &mut open.feed)
    }

    fn open(&mut self, register: &mut Register) -> Result<Open, String> {
        let (path, device) = self.device()?;
        let boot = fs::read_to_string(&self.boot_id)
            .map_err(|error| format!("{} could not be read: {error}", self.boot_id.display()))?;
        let boot = boot_number(&boot).ok_or_else(|| format!("{} is odd", self.boot_id.display()))?;
        let (feed, is_known) = register.feed(Kind::Kernel, &boot, path, &self.encoding);
        let mut open = Open::new(device, feed, self.max_line);
        if let Some(history) = self.history.take()
            && !is_known
        {
            open.skip_history(history).map_err(|error| format!("could not be read: {error}"))?;
        }
        Ok(open)
    }

    fn device(&self) -> Result<(&Path, File), String> {
        let mut reason = "there is no /dev/kmsg".to_owned();
        for path in &self.devices {
            let nonblocking = OFlags::NONBLOCK.bits() as i32;
            match OpenOptions::new().read(true).custom_flags(nonblocking).open(path) {
                Ok(device) => return Ok((path, device)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => reason = format!("{} could not be opened: {error}", path.display()),
            }
        }
        Err(reason)
    }

    /// Most containers have no such device, and most users may not read it: that is no reason to warn.
    fn say(&mut self, register: &Register, on: bool, reason: &str) {
        if self.said.as_deref() != Some(reason) {
            register.metrics.features.say(Kind::Kernel.as_str(), on, reason);
            if !on {
                tracing::info!(reason, "the kernel's messages are not read");
            }
            self.said = Some(reason.to_owned());
        }
    }
}

/// `0b9c3f5e-...` as a number.
fn boot_number(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
    u128::from_str_radix(&digits, 16).ok().map(u128::to_be_bytes)
}

/// What a read brought.
#[derive(Debug, PartialEq, Eq)]
enum Got {
    /// As many bytes of a record.
    Record(usize),
    /// Records were overwritten; the next read has the oldest there is.
    Overrun,
    /// All there is was read.
    Nothing,
}

impl Open {
    fn new(device: File, feed: Feed, max_line: usize) -> Self {
        Self { device, feed, waiting: VecDeque::new(), max_line, counted: 0, buffer: Box::new([0; RECORD]) }
    }

    fn read(&mut self, output: &mut Output, now: Instant) -> io::Result<Ended> {
        let (mut records, mut bytes) = (0, 0);
        loop {
            let Some(record) = self.next_record()? else {
                let taken = self.give_out(0, output, now);
                self.feed.reaches(self.feed.next, now);
                return Ok(if taken { Ended::Done } else { Ended::NoRoom });
            };
            bytes += record.fields.get(Slot::MESSAGE).map_or(0, <[u8]>::len);
            self.feed.reaches(record.span.end, now);
            self.keep(record);
            // The last one waits for the next, which may go on with it.
            if !self.give_out(1, output, now) {
                return Ok(Ended::NoRoom);
            }
            records += 1;
            if self.feed.is_turn_over(records, bytes) {
                return Ok(Ended::More);
            }
        }
    }

    /// The next record from where reading is; what was lost before it is counted.
    fn next_record(&mut self) -> io::Result<Option<Record>> {
        loop {
            let length = match self.get()? {
                Got::Record(length) => length,
                Got::Overrun => continue,
                Got::Nothing => return Ok(None),
            };
            // What no kernel writes can't be numbered either.
            let Some(record) = parse(&self.buffer[..length], self.max_line) else { continue };
            let expected = self.waiting.back().map_or(self.feed.next, |last| last.span.end);
            if record.span.start < expected {
                continue;
            }
            let lost = record.span.start.saturating_sub(expected.max(self.counted));
            self.counted = self.counted.max(record.span.end);
            if lost > 0 {
                self.feed.count_lost("kernel_overrun", lost);
                tracing::warn!(lost, "kernel messages were overwritten before they were read");
            }
            // Nothing below it will come any more, whatever becomes of it.
            if self.waiting.is_empty() {
                self.feed.next = record.span.start;
            }
            return Ok(Some(record));
        }
    }

    fn get(&mut self) -> io::Result<Got> {
        loop {
            if let Some(got) = understand(self.device.read(&mut self.buffer[..]))? {
                return Ok(got);
            }
        }
    }

    fn keep(&mut self, record: Record) {
        if record.continues
            && let Some(last) = self.waiting.back_mut().filter(|last| last.span.end == record.span.start)
        {
            let more = record.fields.get(Slot::MESSAGE).unwrap_or_default();
            let held = last.fields.get(Slot::MESSAGE).map_or(0, <[u8]>::len);
            let kept = more.len().min(self.max_line - held.min(self.max_line));
            last.fields.extend_last(Slot::MESSAGE, &more[..kept]);
            last.cut += record.cut + (more.len() - kept) as u64;
            last.span.end = record.span.end;
            return;
        }
        self.waiting.push_back(record);
    }

    /// Gives out all but the last `held` records; whether there was room.
    fn give_out(&mut self, held: usize, output: &mut Output, now: Instant) -> bool {
        let booted = booted_at();
        while self.waiting.len() > held {
            let Some(record) = self.waiting.front() else { return true };
            let time = booted.saturating_add((record.time as i64).saturating_mul(1000));
            let event = Event { span: record.span, time, fields: &record.fields, cut: record.cut };
            if self.feed.take(&event, output, now) == Taken::NoRoom {
                return false;
            }
            self.waiting.pop_front();
        }
        true
    }

    /// Starts so that at most `history` bytes of what is there are read.
    fn skip_history(&mut self, history: u64) -> io::Result<()> {
        let mut kept: VecDeque<(u64, u64)> = VecDeque::new();
        let (mut bytes, mut next) = (0, 0);
        loop {
            let length = match self.get()? {
                Got::Record(length) => length,
                Got::Overrun => continue,
                Got::Nothing => break,
            };
            let Some(record) = parse(&self.buffer[..length], self.max_line) else { continue };
            next = record.span.end;
            bytes += length as u64;
            kept.push_back((record.span.start, length as u64));
            while bytes > history {
                let Some((_, length)) = kept.pop_front() else { break };
                bytes -= length;
            }
        }
        self.feed.next = kept.front().map_or(next, |(number, _)| *number);
        self.feed.end = next;
        self.device.seek(SeekFrom::Start(0)).map(drop)
    }
}

/// What a read of the device says; `None` when it is to be tried again.
fn understand(read: io::Result<usize>) -> io::Result<Option<Got>> {
    match read {
        Ok(0) => Ok(Some(Got::Nothing)),
        Ok(length) => Ok(Some(Got::Record(length))),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::AGAIN) => Ok(Some(Got::Nothing)),
            Some(Errno::PIPE) => Ok(Some(Got::Overrun)),
            Some(Errno::INTR) => Ok(None),
            _ => Err(error),
        },
    }
}

/// Nanoseconds since the epoch at which the kernel's clock was 0. Asked each time: the clock of the wall may be set.
fn booted_at() -> i64 {
    let up = clock_gettime(ClockId::Monotonic);
    wall_clock() - (up.tv_sec.saturating_mul(1_000_000_000).saturating_add(up.tv_nsec))
}

/// Reads a record, its message up to `max_line` bytes; `None` when it is none.
fn parse(bytes: &[u8], max_line: usize) -> Option<Record> {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let header_end = memchr::memchr(b';', bytes)?;
    let mut header = std::str::from_utf8(&bytes[..header_end]).ok()?.split(',');
    let priority: u32 = header.next()?.parse().ok()?;
    let number: u64 = header.next()?.parse().ok()?;
    let time = header.next()?.parse().ok()?;
    let flags = header.next()?;
    // Beyond what the id of a document can hold; no kernel gets there.
    if number >= 1 << 48 {
        return None;
    }
    let mut fields = Fields::default();
    let mut lines = bytes[header_end + 1..].split(|byte| *byte == b'\n');
    // Last, so that what goes on with it can be put behind it.
    let message = unescape(lines.next().unwrap_or_default());
    fields.set(Slot::PRIORITY, (priority & 7).to_string().as_bytes());
    fields.set(Slot::FACILITY, (priority >> 3).to_string().as_bytes());
    if priority >> 3 == 0 {
        fields.set(Slot::IDENTIFIER, b"kernel");
    }
    for line in lines {
        let Some((name, value)) = line.strip_prefix(b" ").and_then(split_once) else { continue };
        match name {
            b"SUBSYSTEM" => fields.set(Slot::SUBSYSTEM, &unescape(value)),
            b"DEVICE" => fields.set(Slot::DEVICE, &unescape(value)),
            _ => {}
        }
    }
    let kept = message.len().min(max_line);
    fields.set(Slot::MESSAGE, &message[..kept]);
    let cut = (message.len() - kept) as u64;
    let span = Span { start: number, end: number + 1 };
    // Up to Linux 4.9 a '+' goes on with the line before. Later kernels put lines together themselves; what is left over, 'c',
    // goes on with a line of another moment, so it stays on its own.
    Some(Record { span, time, continues: flags.contains('+'), fields, cut })
}

/// The text of a record, when it is the kernel's own and no program's.
pub fn kernel_text(record: &[u8]) -> Option<Vec<u8>> {
    let header_end = memchr::memchr(b';', record)?;
    let priority = std::str::from_utf8(&record[..header_end]).ok()?.split(',').next()?;
    let is_own = priority.parse::<u32>().is_ok_and(|priority| priority >> 3 == 0);
    let text = record[header_end + 1..].split(|byte| *byte == b'\n').next().unwrap_or_default();
    is_own.then(|| unescape(text))
}

fn split_once(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let equals = memchr::memchr(b'=', line)?;
    Some((&line[..equals], &line[equals + 1..]))
}

/// The kernel writes what is not printable, and backslashes, as `\x0a`.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        let digits = rest.get(at + 2..at + 4).filter(|_| rest.get(at + 1) == Some(&b'x'));
        let byte = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte {
            Some(byte) => {
                out.push(byte);
                rest = &rest[at + 4..];
            }
            None => {
                out.push(b'\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out.extend_from_slice(rest);
    out
}

#[cfg(test)]
mod tests {
    use std::{os::fd::OwnedFd, time::Duration};

    use prometheus::Registry;
    use proptest::prelude::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        logs::{
            batch::{Batch, BatchLimits, records},
            checkpoint::Known,
            discover::Source,
            feed::{FeedLimits, Feeds},
        },
        metrics::own::Own,
    };

    fn message(record: &Record) -> String {
        String::from_utf8_lossy(record.fields.get(Slot::MESSAGE).unwrap_or_default()).into_owned()
    }

    #[test]
    fn a_record_says_what_it_is_about() {
        let text = b"3,512,2861088674,-;sd 0:0:0:0: rejecting I/O\\x0ato offline device\n SUBSYSTEM=scsi\n DEVICE=+scsi:0:0:0:0\n";
        let record = parse(text, 1000).expect("a record");
        assert_eq!(message(&record), "sd 0:0:0:0: rejecting I/O\nto offline device");
        assert_eq!((record.span, record.time), (Span { start: 512, end: 513 }, 2_861_088_674));
        let said = |slot| record.fields.get(slot).map(String::from_utf8_lossy).unwrap_or_default();
        assert_eq!(said(Slot::SUBSYSTEM), "scsi");
        assert_eq!(said(Slot::DEVICE), "+scsi:0:0:0:0");
        assert_eq!(
            (said(Slot::PRIORITY), said(Slot::FACILITY), said(Slot::IDENTIFIER)),
            ("3".into(), "0".into(), "kernel".into())
        );
        let other = parse(b"30,7,5,-,caller=T1;systemd[1]: Started", 1000).expect("a record");
        assert_eq!(other.fields.get(Slot::PRIORITY), Some(&b"6"[..]));
        assert_eq!(other.fields.get(Slot::IDENTIFIER), None);
    }

    #[test]
    fn what_is_no_record_is_none() {
        for text in ["", "6", "6,1,2,-", "x,1,2,-;text", "6,1;text", "6,999999999999999,2,-;text"] {
            assert!(parse(text.as_bytes(), 1000).is_none(), "{text}");
        }
    }

    #[test]
    fn odd_escapes_stay_as_they_are() {
        assert_eq!(unescape(b"a\\x5cb\\xzz\\x1"), b"a\\b\\xzz\\x1");
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_without_a_panic(bytes: Vec<u8>, max_line in 0_usize..100) {
            let _ = parse(&bytes, max_line);
            let _ = parse(&[b"6,1,2,-;".as_slice(), &bytes].concat(), max_line);
            unescape(&bytes);
        }
    }

    /// A device made of a socket that keeps records apart.
    struct Scene {
        writer: OwnedFd,
        open: Open,
        output: Output,
        queue: mpsc::Receiver<Batch>,
        own: Own,
        buffers: usize,
    }

    impl Scene {
        fn new(next: u64) -> Self {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let (writer, reader) =
                socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).expect("sockets");
            let own = Own::new(Registry::new()).expect("a registry");
            let mut register = Register::new(own.logs.clone());
            let (mut feed, _) =
                register.feed(Kind::Kernel, &[1; 16], Path::new("/dev/kmsg"), &Encoding::Records);
            feed.next = next;
            let buffers = 2;
            let (batches, queue) = mpsc::channel(buffers);
            let limits = BatchLimits { max_bytes: 4000, max_wait: Duration::ZERO, buffers };
            let output = Output::new(limits, batches, 50, own.logs.clone());
            Self { writer, open: Open::new(File::from(reader), feed, 50), output, queue, own, buffers }
        }

        fn write(&self, text: &str) {
            rustix::io::write(&self.writer, text.as_bytes()).expect("written");
        }

        fn read(&mut self) -> Ended {
            let ended = self.open.read(&mut self.output, Instant::now()).expect("read");
            self.open.feed.count_read();
            self.output.close_aged(Instant::now(), true);
            ended
        }

        fn texts(&mut self) -> Vec<(u64, String)> {
            let mut found = Vec::new();
            while let Ok(batch) = self.queue.try_recv() {
                let texts = records(&batch)
                    .map(|(_, record)| (record.position, String::from_utf8_lossy(record.text).into_owned()));
                found.extend(texts);
                self.output.give_back(batch);
            }
            found
        }

        fn lost(&self) -> u64 {
            self.own.logs.ledger.total().lost.of("kernel_overrun").lines
        }
    }

    /// As `/dev/kmsg` says that its reader was overtaken; what then is missing is seen by the numbers.
    #[test]
    fn a_broken_pipe_says_that_records_were_overwritten() {
        let of = |errno: Errno| understand(Err(errno.into()));
        assert_eq!(of(Errno::PIPE).expect("known"), Some(Got::Overrun));
        assert_eq!(of(Errno::AGAIN).expect("known"), Some(Got::Nothing));
        assert_eq!(of(Errno::INTR).expect("known"), None);
        assert!(of(Errno::NODEV).is_err());
        assert_eq!(understand(Ok(17)).expect("read"), Some(Got::Record(17)));
    }

    #[test]
    fn records_that_were_overwritten_are_counted() {
        let mut scene = Scene::new(5);
        for number in [3, 4, 5, 6, 10, 11, 20] {
            scene.write(&format!("6,{number},100,-;record {number}"));
        }
        assert_eq!(scene.read(), Ended::Done);
        let expected = [5, 6, 10, 11, 20].map(|number| (number, format!("kernel: record {number}")));
        assert_eq!(scene.texts(), expected);
        assert_eq!(scene.lost(), 3 + 8);
        scene.write("6,21,100,-;record 21");
        scene.read();
        assert_eq!((scene.texts().len(), scene.lost()), (1, 11));
    }

    #[test]
    fn a_line_in_parts_is_put_together() {
        let mut scene = Scene::new(0);
        scene.write("6,0,100,c;one ");
        scene.write("6,1,100,+;line, ");
        scene.write("6,2,100,+;and so on beyond what is allowed of a line here");
        scene.write("6,3,100,-;another");
        scene.read();
        let cut = "kernel: one line, and so on beyond what is allowed of a li [cut by nodewarden]";
        assert_eq!(scene.texts(), [(0, cut.to_owned()), (3, "kernel: another".to_owned())]);
        assert_eq!((scene.open.feed.next, scene.lost()), (4, 0));
    }

    #[test]
    fn without_room_records_wait() {
        let mut scene = Scene::new(0);
        let count = 100 * scene.buffers as u64;
        let mut written = 0;
        let mut found = Vec::new();
        while found.len() < count as usize {
            while written < count && written < found.len() as u64 + 120 {
                scene.write(&format!("6,{written},100,-;{}", "x".repeat(45)));
                written += 1;
            }
            scene.read();
            found.extend(scene.texts().into_iter().map(|(number, _)| number));
        }
        assert_eq!(found, (0..count).collect::<Vec<_>>());
        assert_eq!(scene.lost(), 0);
    }

    /// Whoever may not read it, or has none, is told so once and goes on.
    #[test]
    fn no_device_is_a_feature_that_is_off() {
        let own = Own::new(Registry::new()).expect("a registry");
        let source =
            Source::Kernel { devices: vec!["/nonexistent/kmsg".into()], boot_id: "/nonexistent/id".into() };
        let limits = FeedLimits { first_run_bytes: 0, max_line: 100 };
        let mut known = Known::default();
        let mut feeds = Feeds::new(&[(source, Encoding::Records)], &mut known, limits, own.logs.clone());
        assert!(!feeds.look(Instant::now()) && !feeds.has_more() && feeds.fds(false).next().is_none());
        let mut samples = nodewarden_collectors::Samples::new();
        own.say(&mut samples);
        let mut page = Vec::new();
        nodewarden_collectors::text::write(&samples, &mut page);
        let page = String::from_utf8(page).expect("UTF-8");
        let line = "nodewarden_feature_enabled{feature=\"kernel\",reason=\"there is no /dev/kmsg\"} 0";
        assert!(page.contains(line), "{page}");
    }
}
