//! Files that were truncated: what they held before is another file, which a copy may still have.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use super::{Table, unix_seconds};
use crate::{
    logs::{
        batch::FileKey,
        checkpoint::{Position, TRUNCATED},
        discover::Found,
        file::LogFile,
        record::{FileId, Origin},
    },
    metrics::ledger::Amount,
};

/// How long what a file held before it was truncated is looked for in a copy of it.
const COPY_PATIENCE: Duration = Duration::from_secs(5);
/// What is remembered of one name from before truncations that no copy was found of.
const TRUNCATED_KEPT: usize = 8;

impl Table {
    /// A file was truncated and perhaps written anew: what it holds now is another file under the same name. `held` bytes
    /// were in it before. What was not read of them is looked for in a copy.
    pub fn restart_truncated(&mut self, key: FileKey, held: u64, now: Instant) {
        let Some(old) = self.files.get_mut(&key) else { return };
        let Some(tail) = old.tail.take() else { return };
        let size = std::mem::replace(&mut old.size, held);
        tracing::info!(path = %old.path.display(), "the log file was truncated, reading it from its start");
        let found = Found {
            path: old.path.clone(),
            active_path: old.active_path.clone(),
            origin: old.origin.clone(),
            source: old.source,
        };
        let inode = old.inode;
        (old.present, old.truncated) = (false, Some(now));
        let base = old.identity.as_ref().map(|identity| identity.base);
        let remembered = old.position(unix_seconds());
        if let (Some(base), Some(identity)) = (base, &mut old.identity) {
            identity.base = truncated_key(base, identity.generation);
            let kept = identity.base;
            self.ids.remove(&base);
            self.ids.insert(kept, key);
        }
        self.leave_place(key);
        match (base, remembered) {
            (Some(base), Some(position)) => {
                // What the file holds now is never taken for what was confirmed, even if the first line is the same.
                self.known.insert(base, Position { offset: TRUNCATED, content: None, ..position });
            }
            _ => self.remove(key),
        }
        self.ignored.clear();
        let mut file = LogFile::new(found, tail, inode, now);
        file.size = size;
        self.insert(file);
    }

    /// What was truncated and not found in a copy for so long that it is given up, though some of its lines are held still.
    pub fn held_of_truncated(&self, now: Instant) -> Vec<FileKey> {
        let is_held = |file: &LogFile| is_truncation_over(file, now) && !file.joiner.is_empty();
        self.files.iter().filter(|(_, file)| is_held(file)).map(|(key, _)| *key).collect()
    }

    /// Gives up looking for copies of truncated files: what was not read of them is lost. Their positions stay known for a
    /// while, for a copy that turns up late or after a restart.
    pub fn give_up_truncated(&mut self, now: Instant) {
        let is_over =
            |file: &LogFile| is_truncation_over(file, now) && file.joiner.is_empty() && file.acks.is_clear();
        let over: Vec<FileKey> =
            self.files.iter().filter(|(_, file)| is_over(file)).map(|(key, _)| *key).collect();
        for key in over {
            let Some(file) = self.files.get_mut(&key) else { continue };
            let unread = file.size.saturating_sub(file.read_to);
            if unread > 0 {
                tracing::warn!(path = %file.path.display(), unread, "a truncated log file was not found in a copy");
                match file.identity {
                    Some(_) => file.lose("truncated", unread),
                    None => {
                        let account = self.ledger.account(file.origin.owner());
                        account.lock().lost("truncated", Amount::of_bytes(unread));
                    }
                }
            }
            file.give_up("truncated");
            let active = file.active_path.clone();
            self.remove(key);
            self.forget_older_truncated(&active);
        }
    }

    fn forget_older_truncated(&mut self, active: &Path) {
        let is_one = |position: &&Position| {
            position.content.as_ref().is_some_and(|content| content.truncated && *content.active == *active)
        };
        let mut kept: Vec<(u64, u32, FileId)> = self
            .known
            .values()
            .filter(is_one)
            .map(|position| (position.seen, position.generation, position.id))
            .collect();
        kept.sort_unstable();
        let surplus = kept.len().saturating_sub(TRUNCATED_KEPT);
        for (_, _, id) in kept.into_iter().take(surplus) {
            self.known.remove(&id);
        }
    }
}

/// By what the checkpoint knows what a file held before it was truncated.
pub(super) fn truncated_key(base: FileId, generation: u32) -> FileId {
    let mut bytes = b"truncated".to_vec();
    bytes.extend_from_slice(&base.0);
    FileId::new(&Origin::Plain, None, generation, &bytes)
}

/// Whether what a file held before it was truncated is looked for no more.
fn is_truncation_over(file: &LogFile, now: Instant) -> bool {
    let since = file.truncated.filter(|_| file.tail.is_none() && !file.present);
    since.is_some_and(|since| now.saturating_duration_since(since) >= COPY_PATIENCE)
}
