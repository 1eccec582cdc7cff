//! journald's files as feeds: one per sequence of numbers.
//!
//! journald numbers entries upwards and spreads them over files: the system's, each user's, those it has filled. Files with one
//! `seqnum_id` are read together in the order of the numbers. journald writes through a memory map, of which inotify knows
//! nothing, but touches the file afterwards, at most four times a second, so that it does.

pub mod file;
pub mod unpack;

#[cfg(any(test, fuzzing))]
#[allow(clippy::expect_used, reason = "it is for tests alone")]
pub mod testing;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs, io,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::fs::inotify;

use self::file::{Entry, JournalFile, Step, Trouble};
use super::{
    batch::FileKey,
    feed::{Event, Feed, Kind, Register},
    feed_fields::{Fields, Slot},
    output::{Output, Taken},
    record::Span,
    shape::Encoding,
    turn::Ended,
};

/// Directories are listed again when names change meanwhile, so often at most.
const LISTINGS: usize = 3;
/// Directories are listed although nobody said that they changed at every so many looks.
const LIST_EVERY: u32 = 6;

/// A file that was changed less than this long ago may be in the making.
const FRESH: Duration = Duration::from_secs(3);

/// Device and inode.
type PlaceOnDisk = (u64, u64);

/// A file's size and the time of its last change, to see whether there may be more in it.
type Stamp = (u64, i64, i64);

/// The source.
pub struct Journal {
    /// Directories with journal files, or with directories named after a machine that have them.
    paths: Vec<PathBuf>,
    encoding: Encoding,
    /// At most so many bytes of what is there at first, where no journal was ever read before.
    history: Option<u64>,
    max_line: usize,
    inotify: Option<OwnedFd>,
    /// Whether there was a file in the making or without entries, which gets its content without getting a name.
    is_being_made: bool,
    /// Whether every directory is watched.
    is_watched: bool,
    looks: u32,
    streams: BTreeMap<[u8; 16], Numbered>,
    /// Files that were read to their end and will not grow.
    finished: HashMap<PlaceOnDisk, Stamp>,
    /// Files that can't be read.
    aside: HashMap<PlaceOnDisk, Aside>,
    fields: Fields,
    said: Option<String>,
}

#[derive(Debug)]
struct Aside {
    path: PathBuf,
    error: String,
}

/// The files of one sequence of numbers.
struct Numbered {
    feed: Feed,
    files: Vec<OpenFile>,
    /// Entries up to this number are in the files that are open: later ones may have earlier ones in a file not seen yet.
    bound: u64,
}

struct OpenFile {
    file: JournalFile,
    path: PathBuf,
    /// Whether the last listing found it.
    present: bool,
    sought: bool,
    peeked: Option<Entry>,
    /// Nothing more is in it for now.
    at_end: bool,
    said_damaged: bool,
}

impl Journal {
    /// The journals in these directories.
    pub fn new(paths: Vec<PathBuf>, encoding: Encoding, history: Option<u64>, max_line: usize) -> Self {
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let inotify = inotify::init(flags)
            .inspect_err(
                |error| tracing::warn!(%error, "no inotify, the journal is looked at every few seconds"),
            )
            .ok();
        Self {
            paths,
            encoding,
            history,
            max_line,
            inotify,
            is_being_made: false,
            is_watched: false,
            looks: 0,
            streams: BTreeMap::new(),
            finished: HashMap::new(),
            aside: HashMap::new(),
            fields: Fields::default(),
            said: None,
        }
    }

    /// Takes note of new entries and files. Whether there is something to read.
    pub fn look(&mut self, register: &mut Register, is_due: bool, now: Instant) -> bool {
        let (mut changed, mut named) = self.drain();
        if is_due {
            changed = true;
            self.looks = self.looks.wrapping_add(1);
            // What is aside may have become readable, of which nobody tells.
            named |= !self.is_watched || !self.aside.is_empty() || self.looks % LIST_EVERY == 1;
        }
        named |= changed && self.is_being_made;
        if !changed && !named {
            return false;
        }
        for _ in 0..LISTINGS {
            // The order matters: what is numbered up to here is in files that exist by now, so the listing finds them.
            self.refresh(true);
            named |= self.drain().1;
            let is_complete = !std::mem::take(&mut named) || !self.list(register);
            self.refresh(false);
            if is_complete {
                break;
            }
        }
        self.put_away();
        for stream in self.streams.values_mut() {
            stream.feed.reaches(stream.bound.saturating_add(1), now);
        }
        self.streams.values().any(|stream| stream.feed.next <= stream.bound)
    }

    /// Takes entries in the order of their numbers, up to a turn's worth of each sequence.
    pub fn read(&mut self, output: &mut Output, now: Instant) -> Ended {
        let mut ended = Ended::Done;
        for stream in self.streams.values_mut() {
            if stream.feed.is_paused(now) {
                continue;
            }
            let read = stream.read(&mut self.fields, self.max_line, output, now);
            stream.feed.count_read();
            match read {
                Ended::NoRoom => return Ended::NoRoom,
                Ended::More => ended = Ended::More,
                Ended::Done => {}
            }
        }
        ended
    }

    /// Begins again where the feed with this key does.
    pub fn set_back(&mut self, key: FileKey) {
        let streams = self.streams.values_mut().filter(|stream| stream.feed.key == key);
        for open in streams.flat_map(|stream| &mut stream.files) {
            (open.sought, open.at_end, open.peeked) = (false, false, None);
        }
    }

    /// What to poll for readability; it becomes quiet when it is looked at.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(AsFd::as_fd)
    }

    /// The feeds.
    pub fn feeds(&self) -> impl Iterator<Item = &Feed> {
        self.streams.values().map(|stream| &stream.feed)
    }

    /// The same, to be changed.
    pub fn feeds_mut(&mut self) -> impl Iterator<Item = &mut Feed> {
        self.streams.values_mut().map(|stream| &mut stream.feed)
    }

    /// Files that can't be read, with the reason.
    pub fn aside(&self) -> impl Iterator<Item = (&Path, &str)> {
        self.aside.values().map(|aside| (aside.path.as_path(), aside.error.as_str()))
    }

    /// Takes in what was reported: whether anything was, and whether names came or went.
    fn drain(&self) -> (bool, bool) {
        let Some(fd) = &self.inotify else { return (false, false) };
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(fd, &mut buffer);
        let (mut any, mut named) = (false, false);
        // Ends with EAGAIN when the queue is empty.
        while let Ok(event) = reader.next() {
            any = true;
            named |= event.events() != inotify::ReadFlags::MODIFY;
        }
        (any, named)
    }

    /// Looks at the headers of the files that grow. The first time in a look the numbers that are there by now become the
    /// bound of what is read; the second time everything up to it is seen.
    fn refresh(&mut self, is_bound: bool) {
        for stream in self.streams.values_mut() {
            for open in &mut stream.files {
                if open.sought && open.file.header.is_archived() {
                    continue;
                }
                let held = open.file.header;
                match open.file.refresh() {
                    Ok(()) => open.at_end &= open.file.header == held,
                    Err(trouble) => open.say_damaged(&trouble),
                }
            }
            if is_bound {
                stream.bound = stream.last_number();
            }
        }
    }

    /// Closes files that were read and will not grow.
    fn put_away(&mut self) {
        for stream in self.streams.values_mut() {
            let (next, confirmed) = (stream.feed.next, stream.feed.confirmed_to());
            stream.files.retain_mut(|open| {
                // What is not confirmed may have to be read again.
                let is_confirmed = confirmed == next || confirmed > open.file.header.tail_seqnum;
                let is_read = open.is_passed(next) && is_confirmed;
                // Their last entries may be newer than what the listing before saw of their successors.
                let is_dead = open.file.header.is_archived() || !open.present || is_broken_off(&open.path);
                if is_read && is_dead {
                    if let Ok(metadata) = fs::metadata(&open.path) {
                        self.finished.insert(open.file.place, stamp(&metadata));
                    }
                    return false;
                }
                if is_read {
                    open.file.rest();
                }
                true
            });
        }
    }

    /// Lists the directories; whether there were new files.
    fn list(&mut self, register: &mut Register) -> bool {
        for open in self.streams.values_mut().flat_map(|stream| &mut stream.files) {
            open.present = false;
        }
        self.is_being_made = false;
        let mut places = HashSet::new();
        let mut problem = None;
        let (mut is_watched, mut any_new) = (true, false);
        for path in self.paths.clone() {
            for directory in self.directories(&path, &mut is_watched, &mut problem) {
                for (path, metadata) in journal_files(&directory, &mut problem) {
                    places.insert((metadata.dev(), metadata.ino()));
                    any_new |= self.meet(register, path, &metadata, &mut problem);
                }
            }
        }
        self.is_watched = is_watched;
        self.finished.retain(|place, _| places.contains(place));
        self.aside.retain(|place, _| places.contains(place));
        if let Some(history) = self.history {
            let new = self.streams.values_mut().filter(|stream| stream.feed.next == 0);
            new.for_each(|stream| stream.skip_history(history));
        }
        // What appears from now on is no history.
        self.history = self.history.filter(|_| self.streams.is_empty());
        self.say(register, problem);
        any_new
    }

    /// The directory and those in it that are named after a machine, all of them watched.
    fn directories(&self, root: &Path, is_watched: &mut bool, problem: &mut Option<String>) -> Vec<PathBuf> {
        // Before they are listed, so that nothing slips through between.
        *is_watched &= self.watch(root);
        let mut found = vec![root.to_owned()];
        for entry in entries(root, problem) {
            let name = entry.file_name();
            if name.to_str().is_some_and(is_machine) && entry.path().is_dir() {
                *is_watched &= self.watch(&entry.path());
                found.push(entry.path());
            }
        }
        found
    }

    fn watch(&self, directory: &Path) -> bool {
        let Some(fd) = &self.inotify else { return false };
        let what = inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::MOVED_FROM
            | inotify::WatchFlags::DELETE
            | inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::ONLYDIR;
        inotify::add_watch(fd, directory, what).is_ok()
    }

    /// Opens a file that was not met before; whether it was opened.
    fn meet(
        &mut self,
        register: &mut Register,
        path: PathBuf,
        metadata: &fs::Metadata,
        problem: &mut Option<String>,
    ) -> bool {
        let place = (metadata.dev(), metadata.ino());
        let known = self.streams.values_mut().flat_map(|stream| &mut stream.files);
        if let Some(open) = known.into_iter().find(|open| open.file.place == place) {
            open.present = true;
            open.path = path;
            return false;
        }
        if self.finished.get(&place).is_some_and(|known| *known == stamp(metadata)) {
            return false;
        }
        match JournalFile::open(&path) {
            // With its first entry it may get another sequence.
            Ok(file) if file.header.entries == 0 => self.is_being_made = true,
            Ok(file) => {
                if self.aside.remove(&place).is_some() {
                    tracing::info!(path = %path.display(), "the journal file is read now");
                }
                self.add(register, path, file);
                return true;
            }
            Err(Trouble::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Err(Trouble::Damaged(_)) if is_fresh(metadata) => self.is_being_made = true,
            Err(trouble) => {
                let error = trouble.to_string();
                problem.get_or_insert_with(|| format!("{}: {error}", path.display()));
                let is_said = self.aside.get(&place).is_some_and(|aside| aside.error == error);
                let is_denied =
                    matches!(&trouble, Trouble::Io(error) if error.kind() == io::ErrorKind::PermissionDenied);
                if !is_said && !is_denied {
                    tracing::warn!(path = %path.display(), error, "a journal file can't be read and is left aside");
                }
                self.aside.insert(place, Aside { path, error });
            }
        }
        false
    }

    fn add(&mut self, register: &mut Register, path: PathBuf, file: JournalFile) {
        let id = file.header.seqnum_id;
        let stream = self.streams.entry(id).or_insert_with(|| {
            let directory = path.parent().unwrap_or(&path);
            let (feed, is_known) = register.feed(Kind::Journal, &id, directory, &self.encoding);
            tracing::debug!(path = %directory.display(), number = feed.next, is_known, "reading a journal");
            Numbered { feed, files: Vec::new(), bound: 0 }
        });
        stream.files.push(OpenFile {
            file,
            path,
            present: true,
            sought: false,
            peeked: None,
            at_end: false,
            said_damaged: false,
        });
    }

    /// Not every host has a journal, and not everybody may read it: that is no reason to warn.
    fn say(&mut self, register: &mut Register, problem: Option<String>) {
        let on = !self.streams.is_empty();
        let reason = if on {
            String::new()
        } else {
            problem.unwrap_or_else(|| "there are no journal files".to_owned())
        };
        if self.said.as_ref() != Some(&reason) {
            register.metrics.features.say(Kind::Journal.as_str(), on, &reason);
            if !on {
                tracing::info!(reason, "no journal is read");
            }
            self.said = Some(reason);
        }
    }
}

impl Numbered {
    fn read(&mut self, fields: &mut Fields, max_line: usize, output: &mut Output, now: Instant) -> Ended {
        let (mut records, mut bytes) = (0, 0);
        while let Some((number, entry)) = self.next_entry() {
            let open = &mut self.files[number];
            let extent = match open.file.read(&entry, max_line, fields) {
                Ok(extent) => extent,
                Err(trouble) => {
                    open.say_damaged(&trouble);
                    open.at_end = true;
                    continue;
                }
            };
            if extent.unreadable > 0 {
                open.say_damaged(&Trouble::Damaged("fields of an entry can't be read"));
            }
            let span = Span { start: entry.seqnum, end: entry.seqnum + 1 };
            let time = i64::try_from(entry.realtime.saturating_mul(1000)).unwrap_or(i64::MAX);
            let event = Event { span, time, fields, cut: extent.cut };
            if self.feed.take(&event, output, now) == Taken::NoRoom {
                return Ended::NoRoom;
            }
            open.pass();
            records += 1;
            bytes += fields.get(Slot::MESSAGE).map_or(0, <[u8]>::len);
            if self.feed.is_turn_over(records, bytes) {
                return Ended::More;
            }
        }
        Ended::Done
    }

    /// The entry with the lowest number among the files, and which of them has it.
    fn next_entry(&mut self) -> Option<(usize, Entry)> {
        let mut best: Option<(usize, Entry)> = None;
        for (number, open) in self.files.iter_mut().enumerate() {
            let least = best.map_or(self.bound, |(_, entry)| entry.seqnum);
            if open.is_passed(self.feed.next) || open.begins_at() > least {
                continue;
            }
            if let Some(entry) = open.peek(&self.feed)
                && entry.seqnum <= least
                && best.is_none_or(|(_, best)| entry.seqnum < best.seqnum)
            {
                best = Some((number, entry));
            }
        }
        best
    }

    /// The number of the last entry in any file.
    fn last_number(&self) -> u64 {
        let tails = self.files.iter().filter(|open| open.file.header.entries > 0);
        tails.map(|open| open.file.header.tail_seqnum).fold(self.bound, u64::max)
    }

    /// Moves on so that about `history` bytes are left, of the latest files.
    fn skip_history(&mut self, history: u64) {
        let mut latest: Vec<&mut OpenFile> = self.files.iter_mut().collect();
        latest.sort_by_key(|open| std::cmp::Reverse(open.file.header.tail_seqnum));
        let mut left = history;
        for open in latest {
            let (used, entries) = (open.file.header.used(), open.file.header.entries);
            if used <= left {
                left -= used;
                continue;
            }
            // Entries are taken to be alike.
            let wanted = u128::from(entries) * u128::from(left) / u128::from(used.max(1));
            let skipped = entries - u64::try_from(wanted).unwrap_or(entries).min(entries);
            self.feed.next = match open.file.seqnum_after(skipped) {
                Ok(Some(number)) => number,
                _ => open.file.header.tail_seqnum.saturating_add(1),
            };
            tracing::debug!(path = %open.path.display(), number = self.feed.next, "older journal entries are left out");
            return;
        }
    }
}

impl OpenFile {
    /// Whether there is nothing in it for who wants what is numbered `next` or higher.
    fn is_passed(&self, next: u64) -> bool {
        self.at_end || self.file.header.entries == 0 || self.file.header.tail_seqnum < next
    }

    /// A number that no unread entry of it is below.
    fn begins_at(&self) -> u64 {
        let header = &self.file.header;
        let head = if header.head_seqnum <= header.tail_seqnum { header.head_seqnum } else { 0 };
        self.peeked.map_or(head, |entry| entry.seqnum)
    }

    /// Its next entry that the feed has not got yet.
    fn peek(&mut self, feed: &Feed) -> Option<Entry> {
        let next = feed.next;
        if let Some(entry) = self.peeked.filter(|entry| entry.seqnum >= next) {
            return Some(entry);
        }
        self.peeked = None;
        if !self.sought {
            match self.file.seek(next) {
                Ok(()) => self.sought = true,
                Err(trouble) => {
                    self.end(&trouble);
                    return None;
                }
            }
        }
        loop {
            match self.file.peek() {
                Ok(Step::Entry(entry)) if entry.seqnum >= next => {
                    self.peeked = Some(entry);
                    return Some(entry);
                }
                Ok(Step::Entry(_)) => self.file.advance(),
                Ok(Step::Unreadable) => {
                    feed.count_lost("journal_damaged", 1);
                    self.say_damaged(&Trouble::Damaged("an entry can't be read"));
                    self.file.advance();
                }
                Ok(Step::End) => {
                    self.at_end = true;
                    return None;
                }
                Err(trouble) => {
                    self.end(&trouble);
                    return None;
                }
            }
        }
    }

    /// Goes on behind the entry that was taken.
    fn pass(&mut self) {
        self.peeked = None;
        self.file.advance();
    }

    fn end(&mut self, trouble: &Trouble) {
        self.say_damaged(trouble);
        self.at_end = true;
    }

    fn say_damaged(&mut self, trouble: &Trouble) {
        if !std::mem::replace(&mut self.said_damaged, true) {
            tracing::warn!(path = %self.path.display(), error = %trouble, "a journal file is damaged: what can be read of it is");
        }
    }
}

/// The journal files of a directory.
fn journal_files(directory: &Path, problem: &mut Option<String>) -> Vec<(PathBuf, fs::Metadata)> {
    let is_journal = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extension == "journal") || is_broken_off(path)
    };
    let paths = entries(directory, problem).into_iter().map(|entry| entry.path()).filter(is_journal);
    // One that vanished since has nothing to say.
    paths.filter_map(|path| fs::metadata(&path).ok().map(|metadata| (path, metadata))).collect()
}

/// Whether a file was written to so recently that it may not be complete: journald makes it and then fills it.
fn is_fresh(metadata: &fs::Metadata) -> bool {
    let age = metadata.modified().ok().and_then(|at| at.elapsed().ok());
    age.is_none_or(|age| age < FRESH)
}

/// A file that journald found in disorder and left alone: it may hold the last words before a crash.
fn is_broken_off(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "journal~")
}

/// `0123456789abcdef0123456789abcdef`, with a namespace or not.
fn is_machine(name: &str) -> bool {
    let id = name.split_once('.').map_or(name, |(id, _)| id);
    id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn entries(directory: &Path, problem: &mut Option<String>) -> Vec<fs::DirEntry> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.flatten().collect(),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Vec::new()
        }
        Err(error) => {
            problem.get_or_insert_with(|| format!("{} could not be listed: {error}", directory.display()));
            Vec::new()
        }
    }
}

fn stamp(metadata: &fs::Metadata) -> Stamp {
    (metadata.len(), metadata.mtime(), metadata.mtime_nsec())
}
