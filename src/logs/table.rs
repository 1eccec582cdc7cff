//! The reader's table of log files: who appears, who was renamed, truncated, finished.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs, io,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use super::{
    batch::FileKey,
    checkpoint::{Known, Position, TRUNCATED},
    discover::{Enumeration, Found},
    file::{Counters, Identity, LogFile},
    format::parse_container_line,
    record::{FileFacts, FileId, Inode, Origin},
    shape::{Encoding, Shape},
    status::FileStatus,
    tail::{Tail, hash_of},
};
use crate::metrics::own::LogMetrics;

/// Seconds since the epoch.
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Where a file lies, without what only an open file tells.
type Place = (u64, u64);

/// Every file that is or was read and may still be found.
pub struct Table {
    files: BTreeMap<FileKey, LogFile>,
    by_place: HashMap<Place, FileKey>,
    /// The identities of the files in the table, as of before they were truncated.
    ids: HashSet<FileId>,
    /// Positions of files that are not in the table (not found yet, or gone), by the same.
    known: HashMap<FileId, Position>,
    /// Files that are left alone: copies of files it reads.
    ignored: HashSet<Place>,
    /// How plain files began before they were truncated, by their active path.
    truncated: HashMap<PathBuf, (usize, u64)>,
    /// Paths that could not be opened, with the reason.
    errors: BTreeMap<PathBuf, String>,
    next_key: u32,
    first_run: bool,
    first_run_bytes: u64,
    /// The form of the documents, by number of the source.
    encodings: Vec<Encoding>,
    metrics: LogMetrics,
}

impl Table {
    /// An empty table. `first_run_bytes` bounds the history that is read of each file on the very first run.
    pub fn new(known: Known, first_run_bytes: u64, encodings: Vec<Encoding>, metrics: LogMetrics) -> Self {
        Self {
            files: BTreeMap::new(),
            by_place: HashMap::new(),
            ids: HashSet::new(),
            known: known.positions,
            ignored: HashSet::new(),
            truncated: HashMap::new(),
            errors: BTreeMap::new(),
            next_key: 0,
            first_run: known.first_run,
            first_run_bytes,
            encodings,
            metrics,
        }
    }

    /// The file with this key, if it is still there.
    pub fn get_mut(&mut self, key: FileKey) -> Option<&mut LogFile> {
        self.files.get_mut(&key)
    }

    /// How many files there are.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The keys of all files.
    pub fn keys(&self) -> Vec<FileKey> {
        self.files.keys().copied().collect()
    }

    /// All files.
    pub fn files(&self) -> impl Iterator<Item = &LogFile> {
        self.files.values()
    }

    /// What the checkpoint has to remember.
    pub fn positions(&self) -> impl Iterator<Item = Position> {
        let now = unix_seconds();
        self.files.values().filter_map(move |file| file.position(now)).chain(self.known.values().cloned())
    }

    /// The table as people see it.
    pub fn status(&self, now: Instant) -> Vec<FileStatus> {
        let failed = self.errors.iter().map(|(path, error)| FileStatus {
            path: path.to_string_lossy().into_owned(),
            namespace: None,
            pod: None,
            container: None,
            format: "unknown",
            offset: 0,
            size: 0,
            lag_bytes: 0,
            lag_seconds: None,
            state: "error",
            last_error: Some(error.clone()),
        });
        // A finished file whose descriptor is closed only stays so that it is not read again.
        let open = self.files.values().filter(|file| file.tail.is_some());
        failed.chain(open.map(|file| file.status(now))).collect()
    }

    /// Takes in what a look around found: new files are opened, renamed ones follow their name, vanished ones are marked.
    pub fn reconcile(&mut self, found: Enumeration, now: Instant) {
        for file in self.files.values_mut() {
            file.present = false;
        }
        let mut errors = BTreeMap::new();
        for (path, error) in found.problems {
            errors.insert(path, format!("could not be listed: {error}"));
        }
        let mut places = HashSet::new();
        for file in found.files {
            let path = file.path.clone();
            match self.meet(file, now) {
                Ok(place) => {
                    places.insert(place);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    // Gone since it was listed, but for a link: Docker's files may not be mounted.
                    if fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_symlink()) {
                        errors.insert(path, "it is a link to a file that is not there".to_owned());
                    }
                }
                Err(error) => {
                    errors.insert(path, format!("could not be opened: {error}"));
                }
            }
        }
        self.ignored.retain(|place| places.contains(place));
        for (path, error) in &errors {
            if !self.errors.contains_key(path) {
                tracing::warn!(path = %path.display(), error, "a log file is not read");
            }
        }
        self.errors = errors;
        self.forget_vanished();
    }

    /// The first look around is over: files that appear from now on are new, not history. Whether this was the first run.
    pub fn first_run_is_over(&mut self) -> bool {
        std::mem::take(&mut self.first_run)
    }

    fn meet(&mut self, found: Found, now: Instant) -> io::Result<Place> {
        let metadata = fs::metadata(&found.path)?;
        let place = (metadata.dev(), metadata.ino());
        // A file under an active name is never left alone: it may have got the inode of one that was.
        if found.is_rotated() && self.ignored.contains(&place) {
            return Ok(place);
        }
        if let Some(&key) = self.by_place.get(&place)
            && let Some(file) = self.files.get_mut(&key)
        {
            if file.tail.is_some() || is_still(file, &found, &metadata) {
                file.present = true;
                file.path = found.path;
                return Ok(place);
            }
            self.remove(key);
        }
        let (tail, inode) = Tail::open(&found.path)?;
        let place = (inode.device, inode.number);
        // Names may change between the two calls: then the file that was opened may be known.
        if !self.by_place.contains_key(&place) {
            self.insert(LogFile::new(found, tail, inode, now));
        }
        Ok(place)
    }

    fn insert(&mut self, file: LogFile) {
        let key = FileKey(self.next_key);
        self.next_key += 1;
        self.by_place.insert((file.inode.device, file.inode.number), key);
        self.files.insert(key, file);
    }

    /// Takes a file out of the table; its position stays known.
    pub fn remove(&mut self, key: FileKey) {
        let Some(file) = self.files.remove(&key) else { return };
        let place = (file.inode.device, file.inode.number);
        if self.by_place.get(&place) == Some(&key) {
            self.by_place.remove(&place);
        }
        if let Some(position) = file.position(unix_seconds()) {
            self.ids.remove(&position.id);
            self.known.insert(position.id, position);
        }
    }

    /// Takes a file out of the table that no name leads to: it can't be found again, and its position is of no use.
    pub fn forget(&mut self, key: FileKey) {
        let id = self.files.get(&key).and_then(|file| Some(file.identity.as_ref()?.base));
        self.remove(key);
        if let Some(id) = id {
            self.known.remove(&id);
        }
    }

    /// Closed files that are gone need not be remembered. Not to be found is not enough: perhaps their directory can't be
    /// listed now.
    fn forget_vanished(&mut self) {
        let is_gone = |file: &LogFile| {
            let is_missing = || {
                fs::symlink_metadata(&file.path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
            };
            file.tail.is_none() && !file.present && is_missing()
        };
        let gone: Vec<FileKey> =
            self.files.iter().filter(|(_, file)| is_gone(file)).map(|(key, _)| *key).collect();
        for key in gone {
            self.forget(key);
        }
    }

    /// Finds out who a file is once its first line is there, and where to go on reading. Whether it is to be read.
    pub fn identify(&mut self, key: FileKey, now: Instant) -> io::Result<bool> {
        let Some(file) = self.files.get(&key) else { return Ok(false) };
        if file.identity.is_some() {
            return Ok(true);
        }
        let Some(tail) = &file.tail else { return Ok(false) };
        // Empty files are many, and asked at every look.
        if file.size == 0 {
            return Ok(false);
        }
        let Some(first) = tail.first_line(file.is_complete(now))? else { return Ok(false) };
        let (base, inode) = Self::base(file, &first);
        let beginning = (first.len(), hash_of(&first));
        // A second file with the identity of one in the table is a copy of it.
        if self.ids.contains(&base) || self.is_copy_of_truncated(file, base, beginning) {
            self.ignored.insert((file.inode.device, file.inode.number));
            self.remove(key);
            return Ok(false);
        }
        let (generation, start) = match self.known.get(&base) {
            Some(known) if known.offset <= file.size => (known.generation, known.offset),
            // Shorter than what was confirmed of it: it was truncated.
            Some(known) => (known.generation + 1, 0),
            None => (0, self.start_of_unknown(file, tail)?),
        };
        let id = FileId::new(&file.origin, inode, generation, &first);
        self.known.remove(&base);
        self.settle(key, id, &Beginning { base, first: beginning, generation, start });
        Ok(true)
    }

    /// Whether a plain file beside an active one is the copy that `copytruncate` made of it, whose lines are delivered
    /// already: it was never read, is younger than the active file (which a renamed one never is), and begins as that one
    /// does, or did before it was truncated.
    fn is_copy_of_truncated(&self, file: &LogFile, base: FileId, beginning: (usize, u64)) -> bool {
        let is_known = self.known.contains_key(&base);
        if is_known || file.origin != Origin::Plain || file.path == file.active_path {
            return false;
        }
        self.files.values().filter(|other| other.path == file.active_path).any(|active| {
            let first = active.identity.as_ref().map(|identity| identity.first);
            let begins_alike =
                first == Some(beginning) || self.truncated.get(&active.path) == Some(&beginning);
            // Where no file has a birth time nothing tells the two apart: then it is read, as nothing may be lost.
            begins_alike && active.inode.birth > 0 && file.inode.birth >= active.inode.birth
        })
    }

    /// Who a file is whose first line is `first` when it was never truncated, and the inode if that is a part of it.
    fn base(file: &LogFile, first: &[u8]) -> (FileId, Option<Inode>) {
        let is_dated =
            matches!(file.origin, Origin::Container(_)) && parse_container_line(first).time.is_some();
        let inode = (!is_dated).then_some(file.inode);
        (FileId::new(&file.origin, inode, 0, first), inode)
    }

    /// Where to start in a file that nobody read before: at its beginning, but on the very first run what was there before
    /// the agent is history. Of a plain file that was rotated by then nothing is read, of others their end.
    fn start_of_unknown(&self, file: &LogFile, tail: &Tail) -> io::Result<u64> {
        let is_rotated = file.path != file.active_path;
        if !self.first_run {
            Ok(0)
        } else if is_rotated && matches!(file.origin, Origin::Plain) {
            Ok(file.size)
        } else if file.size > self.first_run_bytes {
            tail.next_line_start(file.size - self.first_run_bytes)
        } else {
            Ok(0)
        }
    }

    fn settle(&mut self, key: FileKey, id: FileId, place: &Beginning) {
        let Some(file) = self.files.get_mut(&key) else { return };
        let &Beginning { base, first, generation, start } = place;
        let facts = FileFacts { id, path: file.active_path.clone(), origin: file.origin.clone() };
        let namespace = [file.origin.namespace()];
        let counters = Counters {
            read_lines: self.metrics.read_lines.with_label_values(&namespace),
            read_bytes: self.metrics.read_bytes.with_label_values(&namespace),
        };
        let shape =
            self.encodings.get(file.source).map_or(Shape::Record, |encoding| Shape::new(encoding, &facts));
        self.ids.insert(base);
        file.identity = Some(Identity { facts: Arc::new(facts), base, first, generation, shape, counters });
        file.read_to = start;
        tracing::debug!(path = %file.path.display(), offset = start, "reading");
    }

    /// A file was truncated and perhaps written anew: what it holds now is another file under the same name. `held` bytes
    /// were in it before.
    pub fn restart_truncated(&mut self, key: FileKey, held: u64, now: Instant) {
        let Some(old) = self.files.get_mut(&key) else { return };
        let Some(tail) = old.tail.take() else { return };
        let size = old.size;
        let unread = held.saturating_sub(old.joiner.pending_from().unwrap_or(old.read_to));
        tracing::info!(path = %old.path.display(), unread, "the log file was truncated, reading it from its start");
        self.metrics.lost_bytes.with_label_values(&["truncated"]).inc_by(unread);
        let found = Found {
            path: old.path.clone(),
            active_path: old.active_path.clone(),
            origin: old.origin.clone(),
            source: old.source,
        };
        let inode = old.inode;
        let id = old.identity.as_ref().map(|identity| identity.base);
        if let (Some(identity), Origin::Plain) = (&old.identity, &old.origin) {
            self.truncated.insert(old.active_path.clone(), identity.first);
        }
        self.remove(key);
        // What the file holds now is never taken for what was confirmed, even if the first line is the same.
        if let Some(position) = id.and_then(|id| self.known.get_mut(&id)) {
            position.offset = TRUNCATED;
        }
        let mut file = LogFile::new(found, tail, inode, now);
        file.size = size;
        self.insert(file);
    }
}

/// Where a file begins that was just identified.
#[derive(Clone, Copy)]
struct Beginning {
    base: FileId,
    first: (usize, u64),
    generation: u32,
    start: u64,
}

/// Whether a closed file is what was found. It holds its inode no more, so another file may have got the number: one that
/// is older or younger, has another size, or is written to.
fn is_still(file: &LogFile, found: &Found, metadata: &fs::Metadata) -> bool {
    let birth = metadata.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let is_as_old = birth.is_none_or(|birth| file.inode.birth == birth.as_nanos() as u64);
    found.is_rotated() && is_as_old && file.size == metadata.len()
}

#[cfg(test)]
mod tests;
