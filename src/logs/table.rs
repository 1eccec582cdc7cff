//! The reader's table of log files: who appears, who was renamed, truncated, finished.

mod quiet;
mod spilled;
mod truncated;
mod who;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rustix::process::{Resource, getrlimit};

use super::{
    batch::FileKey,
    checkpoint::{Check, Known, Position},
    discover::{Enumeration, Found},
    file::{Ends, Identity, LogFile},
    multiline::Multiline,
    process::{Processors, multiline_of},
    record::{FileFacts, FileId, Origin, PodFacts},
    shape::{Encoding, Shape},
    status::FileStatus,
    tail::Tail,
};
use crate::{
    kubernetes::known::Pods,
    metrics::{ledger::Ledger, own::LogMetrics},
};

/// Seconds since the epoch.
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// How long the first lines of a pod wait for what the cluster says of it.
const POD_PATIENCE: Duration = Duration::from_secs(2);
/// How long a closed file that is gone is remembered while a compressed copy of it may appear.
const GONE_FOR: Duration = Duration::from_secs(600);

/// With more files than these, what is constant of a file's documents is rendered for each of its turns.
const SHAPES: usize = 1000;

/// Rotated files of a container that the kubelet keeps beside the active one, if it is not told otherwise.
const ROTATED_KEPT: usize = 4;

/// Where a file lies, without what only an open file tells.
type Place = (u64, u64);

/// Every file that is or was read and may still be found.
pub struct Table {
    /// Boxed: a node of the tree has room for eleven and often holds six.
    files: BTreeMap<FileKey, Box<LogFile>>,
    /// The files that are looked at regularly: all but those that are quiet and watched, and those that are closed.
    awake: BTreeSet<FileKey>,
    /// Of the others, those that nobody reports changes of.
    unwatched: BTreeSet<FileKey>,
    /// Where the rounds over all files and over those have got to.
    rounds: (FileKey, FileKey),
    /// Files that are open, as of the last look around and since.
    open: usize,
    /// How many may be.
    most_open: usize,
    /// Whether the last look around found files for which no descriptor was left, and whether that was ever said.
    unopened: bool,
    said_unopened: bool,
    by_place: HashMap<Place, FileKey>,
    /// The identities of the files in the table, as of before they were truncated.
    ids: HashMap<FileId, FileKey>,
    /// Positions of files that are not in the table (not found yet, or gone), by the same.
    known: HashMap<FileId, Position>,
    /// Files that are left alone: copies of files it reads.
    ignored: HashSet<Place>,
    /// Paths that could not be opened, with the reason.
    errors: BTreeMap<PathBuf, String>,
    next_key: u32,
    first_run: bool,
    /// Whether compressed files that nobody knows are history: at the very first run, and at the first one that knows them.
    archives_are_history: bool,
    first_run_bytes: u64,
    /// The form of the documents, by number of the source.
    encodings: Vec<Encoding>,
    /// How lines are put together, by the same.
    multiline: Vec<Multiline>,
    /// What the cluster says of pods, where it is asked.
    pods: Option<Arc<Pods>>,
    /// Rotated files of a container that are kept before the oldest is deleted, as far as that was seen.
    rotated_kept: usize,
    /// What is done with lines.
    processors: Arc<Processors>,
    ledger: Ledger,
}

impl Table {
    /// An empty table. `first_run_bytes` bounds the history that is read of each file on the very first run.
    pub fn new(
        known: Known,
        first_run_bytes: u64,
        encodings: Vec<Encoding>,
        multiline: Vec<Multiline>,
        pods: Option<Arc<Pods>>,
        ledger: Ledger,
        metrics: &LogMetrics,
    ) -> Self {
        let mut positions = known.positions.values();
        let remembers_content =
            !known.first_run && positions.len() == 0 || positions.any(|position| position.content.is_some());
        Self {
            files: BTreeMap::new(),
            awake: BTreeSet::new(),
            unwatched: BTreeSet::new(),
            rounds: (FileKey(0), FileKey(0)),
            open: 0,
            most_open: most_open(),
            unopened: false,
            said_unopened: false,
            by_place: HashMap::new(),
            ids: HashMap::new(),
            known: known.positions,
            ignored: HashSet::new(),
            errors: BTreeMap::new(),
            next_key: 0,
            first_run: known.first_run,
            archives_are_history: !remembers_content,
            first_run_bytes,
            encodings,
            multiline,
            pods,
            rotated_kept: ROTATED_KEPT,
            processors: Processors::none(metrics),
            ledger,
        }
    }

    /// The same with something done to lines.
    pub fn processed_by(self, processors: Arc<Processors>) -> Self {
        Self { processors, ..self }
    }

    /// The file with this key, if it is still there.
    pub fn get_mut(&mut self, key: FileKey) -> Option<&mut LogFile> {
        self.files.get_mut(&key).map(AsMut::as_mut)
    }

    /// How many files there are.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// What these files take of the memory over all: bytes of parts of lines, and compressed ones that are read. Files that
    /// sleep take nothing.
    pub fn taken_by(&self, keys: &[FileKey]) -> (usize, usize) {
        keys.iter().filter_map(|key| self.files.get(key)).fold((0, 0), |(parts, archives), file| {
            (parts + file.joiner.held_bytes(), archives + usize::from(file.queued && file.is_archive()))
        })
    }

    /// The file with this key when it may be read now, and what its documents share.
    pub fn for_turn(&mut self, key: FileKey, now: Instant) -> Option<&mut LogFile> {
        let file = self.files.get_mut(&key).filter(|file| file.may_be_read(now))?;
        let encoding = self.encodings.get(file.source);
        if let Some(Identity { shape: shape @ None, facts, .. }) = &mut file.identity {
            *shape = Some(encoding.map_or(Shape::Record, |encoding| Shape::new(encoding, facts)));
        }
        Some(file)
    }

    /// A turn of this file is over. Where there are thousands, not each keeps its share of documents for the next one.
    pub fn after_turn(&mut self, key: FileKey) {
        let are_many = self.files.len() > SHAPES;
        if let Some(file) = self.files.get_mut(&key).filter(|_| are_many) {
            file.shrink();
        }
    }

    /// Whether something may become readable that no directory tells of.
    pub fn has_errors(&self) -> bool {
        !self.errors.is_empty() || self.unopened
    }

    /// All files.
    pub fn files(&self) -> impl Iterator<Item = &LogFile> {
        self.files.values().map(AsRef::as_ref)
    }

    /// All files with their keys.
    pub fn entries(&self) -> impl Iterator<Item = (FileKey, &LogFile)> {
        self.files.iter().map(|(key, file)| (*key, file.as_ref()))
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
            notes: Vec::new(),
        });
        // A finished file whose descriptor is closed only stays so that it is not read again.
        let open = self.files.values().filter(|file| file.tail.is_some());
        let row =
            |file: &LogFile| FileStatus { notes: self.processors.notes(&file.origin), ..file.status(now) };
        failed.chain(open.map(|file| row(file))).collect()
    }

    /// Takes in what a look around found: new files are opened, renamed ones follow their name, vanished ones are marked.
    pub fn reconcile(&mut self, found: Enumeration, now: Instant) {
        self.open = 0;
        for file in self.files.values_mut() {
            file.present = false;
            self.open += usize::from(file.tail.as_ref().is_some_and(|tail| !tail.is_parked()));
        }
        self.unopened = false;
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
                        errors.insert(
                            path.to_path_buf(),
                            "it is a link to a file that is not there".to_owned(),
                        );
                    }
                }
                Err(error) => {
                    errors.insert(path.to_path_buf(), format!("could not be opened: {error}"));
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
        if self.unopened && !std::mem::replace(&mut self.said_unopened, true) {
            tracing::warn!(
                open = self.open,
                "there are more log files than may be open: the others are read when some of these are quiet, which are then closed; \
                 raise the limit on open files (LimitNOFILE, ulimit -n)"
            );
        }
        let unsettled = self.files.iter().filter(|(_, file)| file.tail.is_some() && file.is_dying());
        self.awake.extend(unsettled.map(|(key, _)| *key));
        self.forget_vanished(now);
        self.foresee_deletions(now);
    }

    /// The oldest rotated file of a container is deleted at its next rotation: what the sink does not take of it is kept in
    /// time, for nobody could keep it when the agent is killed just then.
    pub fn foresee_deletions(&mut self, now: Instant) {
        let mut rotated: HashMap<Arc<Path>, Vec<FileKey>> = HashMap::new();
        let mut deleted: HashSet<Arc<Path>> = HashSet::new();
        for (key, file) in &mut self.files {
            file.doomed = false;
            if file.origin == Origin::Plain || file.path == file.active_path {
                continue;
            }
            if file.present {
                rotated.entry(file.active_path.clone()).or_default().push(*key);
            } else if file.unlinked && file.tail.as_ref().is_some_and(|tail| !tail.is_spilled()) {
                deleted.insert(file.active_path.clone());
            }
        }
        for (active, mut keys) in rotated {
            // Where one is being deleted now, as many are kept as are left. One that is just compressed is there twice.
            if deleted.contains(&active) {
                self.rotated_kept = self.rotated_kept.min(keys.len().max(1));
            }
            if keys.len() < self.rotated_kept {
                continue;
            }
            // Their names end with the time of their rotation.
            keys.sort_by_cached_key(|key| self.files.get(key).map(|file| file.path.clone()));
            let oldest = keys.first().and_then(|key| self.files.get_mut(key));
            if let Some(oldest) = oldest.filter(|oldest| oldest.is_stuck(now)) {
                oldest.doomed = true;
            }
        }
    }

    /// The first look around is over: files that appear from now on are new, not history. Whether this was the first run.
    pub fn first_run_is_over(&mut self) -> bool {
        self.archives_are_history = false;
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
            let is_known = match &file.tail {
                Some(tail) => !tail.is_parked() || is_as_old(file, &metadata),
                None => is_still(file, &found, &metadata),
            };
            if is_known {
                file.present = true;
                file.vanished = None;
                if file.path != found.path {
                    file.path = found.path;
                }
                return Ok(place);
            }
            self.remove(key);
        }
        if !self.has_descriptors() {
            self.unopened = true;
            return Ok(place);
        }
        let (tail, inode) = Tail::open(&found.path)?;
        let place = (inode.device, inode.number);
        // Names may change between the two calls: then the file that was opened may be known.
        if !self.by_place.contains_key(&place) {
            let mut file = LogFile::new(found, tail, inode, now);
            file.packed_size = metadata.len();
            self.insert(file);
        }
        Ok(place)
    }

    fn insert(&mut self, file: LogFile) {
        let place = (file.inode.device, file.inode.number);
        let key = self.insert_nowhere(file);
        self.by_place.insert(place, key);
        self.open += 1;
    }

    /// A file that has no place on disk any more: its inode may be another one's.
    fn insert_nowhere(&mut self, file: LogFile) -> FileKey {
        let key = FileKey(self.next_key);
        self.next_key += 1;
        self.files.insert(key, Box::new(file));
        self.awake.insert(key);
        key
    }

    /// Its place is no longer this file's: another one may get the number.
    fn leave_place(&mut self, key: FileKey) {
        let Some(file) = self.files.get(&key) else { return };
        let place = (file.inode.device, file.inode.number);
        if self.by_place.get(&place) == Some(&key) {
            self.by_place.remove(&place);
        }
    }

    /// Takes a file out of the table; its position stays known.
    pub fn remove(&mut self, key: FileKey) {
        self.leave_place(key);
        self.awake.remove(&key);
        self.unwatched.remove(&key);
        let Some(file) = self.files.remove(&key) else { return };
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

    /// A name is gone: a copy that was left alone because of that file may be wanted now.
    pub fn look_for_copies(&mut self) {
        self.ignored.clear();
    }

    /// The last name of a closed file is gone. Until [`Self::reconcile`] forgets it, a compressed copy may turn up.
    pub fn let_go(&mut self, key: FileKey, now: Instant) {
        self.leave_place(key);
        if let Some(file) = self.files.get_mut(&key) {
            file.present = false;
            file.vanished = Some(now);
        }
        self.look_for_copies();
    }

    /// Closed files that are gone need not be remembered. Not to be found is not enough: perhaps their directory can't be
    /// listed now. Where a directory is left, a compressed copy may appear in it under another name.
    fn forget_vanished(&mut self, now: Instant) {
        let is_missing = |path: &Path| {
            fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        };
        let mut gone = Vec::new();
        for (key, file) in &mut self.files {
            if file.tail.is_some() || file.present || file.truncated.is_some() {
                continue;
            }
            let place = (file.inode.device, file.inode.number);
            // Its name may be another file's by now.
            let is_gone =
                file.vanished.is_some() || is_missing(&file.path) || self.by_place.get(&place) != Some(key);
            if !is_gone {
                continue;
            }
            let since = *file.vanished.get_or_insert(now);
            let is_dir_gone = file.path.parent().is_none_or(is_missing);
            if is_dir_gone || now.saturating_duration_since(since) >= GONE_FOR {
                gone.push(*key);
            }
        }
        for key in gone {
            self.forget(key);
        }
    }

    /// Where to start in a file that nobody read before: at its beginning, but on the very first run what was there before
    /// the agent is history. Of a plain file that was rotated by then nothing is read, of others their end.
    fn start_of_unknown(&self, file: &LogFile, tail: &Tail) -> io::Result<u64> {
        let is_rotated = file.path != file.active_path;
        if tail.is_gzip() {
            Ok(if self.archives_are_history { file.size } else { 0 })
        } else if !self.first_run {
            Ok(0)
        } else if is_rotated && matches!(file.origin, Origin::Plain) {
            Ok(file.size)
        } else if file.size > self.first_run_bytes {
            tail.next_line_start(file.size - self.first_run_bytes)
        } else {
            Ok(0)
        }
    }

    /// What the cluster says of the pod that writes a file, and until when it is worth waiting for that.
    fn pod_of(&self, origin: &Origin, now: Instant) -> (PodFacts, Option<Instant>) {
        let (Some(pods), Some(container)) = (&self.pods, origin.container()) else {
            return (PodFacts::NotAsked, None);
        };
        if let Some(pod) = pods.get(&container.uid) {
            return (PodFacts::Known(pod), None);
        }
        pods.miss();
        (PodFacts::Unknown, pods.answers().then(|| now + POD_PATIENCE))
    }

    /// The cluster says something new of these pods: their files' documents from now on say so too.
    pub fn learn(&mut self, uids: &HashSet<String>, now: Instant) {
        for file in self.files.values_mut() {
            let Some(container) = file.origin.container().filter(|container| uids.contains(&container.uid))
            else {
                continue;
            };
            let pod = self.pods.as_ref().and_then(|pods| pods.get(&container.uid));
            let (Some(pod), Some(identity)) = (pod, &mut file.identity) else { continue };
            let facts = FileFacts { pod: PodFacts::Known(pod), ..(*identity.facts).clone() };
            let encoding = self.encodings.get(file.source).unwrap_or(&Encoding::Records);
            identity.shape = None;
            let mut process = self.processors.of_file(&facts, encoding);
            // What was remembered of lines so far has to come to its end, also where nothing is to be done any more.
            identity.process = match (process.take(), identity.process.take()) {
                (Some(mut new), Some(old)) => {
                    new.adopt(*old);
                    Some(new)
                }
                (None, Some(old)) if old.held_from().is_some() => Some(old),
                (new, _) => new,
            };
            let configured = || self.multiline.get(file.source).cloned().unwrap_or_default();
            let rule = multiline_of(&facts).unwrap_or_else(configured);
            file.joiner.change_rule(file.read_to, rule);
            identity.facts = Arc::new(facts);
            file.awaits_pod = file.awaits_pod.map(|_| now);
        }
    }

    fn settle(&mut self, key: FileKey, beginning: &Beginning, now: Instant) {
        let Some(file) = self.files.get(&key) else { return };
        let (pod, awaits_pod) = self.pod_of(&file.origin, now);
        let Some(file) = self.files.get_mut(&key) else { return };
        let &Beginning { base, document, first, generation, start, check, truncated, ref cuts } = beginning;
        let facts = FileFacts {
            pod,
            ..FileFacts::new(document, file.active_path.to_path_buf(), file.origin.clone())
        };
        let account = self.ledger.account(file.origin.owner());
        let encoding = self.encodings.get(file.source).unwrap_or(&Encoding::Records);
        file.awaits_pod = awaits_pod;
        let process = self.processors.of_file(&facts, encoding);
        let configured = || self.multiline.get(file.source).cloned().unwrap_or_default();
        let rule = multiline_of(&facts).unwrap_or_else(configured);
        self.ids.insert(base, key);
        let facts = Arc::new(facts);
        file.identity = Some(Identity { facts, base, first, generation, shape: None, account, process });
        file.read_to = start;
        file.ends = Ends::known(check);
        file.truncated = truncated;
        file.joiner.set_rule(rule);
        file.joiner.know_cuts(cuts.clone());
        tracing::debug!(path = %file.path.display(), offset = start, "reading");
    }

    /// The file that the checkpoint knows by this.
    pub fn by_id(&mut self, id: FileId) -> Option<&mut LogFile> {
        self.ids.get(&id).and_then(|key| self.files.get_mut(key)).map(AsMut::as_mut)
    }
}

/// Where a file begins that was just identified.
struct Beginning {
    base: FileId,
    document: FileId,
    first: (usize, u64),
    generation: u32,
    start: u64,
    check: Option<Check>,
    truncated: Option<Instant>,
    cuts: Vec<u64>,
}

/// Whether a closed file is what was found. It holds its inode no more, so another file may have got the number: one that
/// is older or younger, has another size, or is written to.
fn is_still(file: &LogFile, found: &Found, metadata: &fs::Metadata) -> bool {
    let size = if found.is_gzip() { file.packed_size } else { file.size };
    found.is_rotated() && is_as_old(file, metadata) && size == metadata.len()
}

/// Whether the file system does not say that another file has the inode now.
fn is_as_old(file: &LogFile, metadata: &fs::Metadata) -> bool {
    let birth = metadata.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    birth.is_none_or(|birth| file.inode.birth == birth.as_nanos() as u64)
}

/// How many log files may be open: what the process may have, less what everything else needs.
fn most_open() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(limit - (limit / 4).max(64).min(limit / 2)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
