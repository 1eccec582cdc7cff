//! Who a file is: one that is read already, one that was known before a restart, a copy of one, or a new one.

use std::{io, time::Instant};

use super::{Beginning, FileKey, Table, truncated::truncated_key};
use crate::logs::{
    checkpoint::{Content, Position, TRUNCATED},
    file::{LogFile, verify},
    format::parse_container_line,
    record::{FileId, Inode, Origin},
    tail::{Tail, hash_of},
};

/// What the first line and the bytes before the confirmed offset say of a file.
enum Who {
    /// Nobody saw it before.
    New,
    /// It is read on from where it was left.
    Known(Box<Position>),
    /// What is known of it was truncated away.
    Rewritten(Box<Position>),
    /// It holds what a file in the table held that has no other place any more.
    MediumOf(FileKey),
    /// All it holds is read from another file.
    Copy,
}

impl Table {
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
        let (base, inode) = base(file, &first);
        let beginning = (first.len(), hash_of(&first));
        let new = Beginning {
            base,
            document: FileId::new(&file.origin, inode, 0, &first),
            first: beginning,
            generation: 0,
            start: 0,
            check: None,
            truncated: None,
            cuts: Vec::new(),
        };
        let settled = match self.recognise(key, file, tail, base, beginning)? {
            Who::New => Beginning { start: self.start_of_unknown(file, tail)?, ..new },
            Who::Known(position) => {
                let (content, generation) = (position.content, position.generation);
                let made = FileId::new(&file.origin, inode, generation, &first);
                Beginning {
                    base: position.id,
                    document: content.as_ref().map_or(made, |content| content.document),
                    generation,
                    start: position.offset,
                    check: content.as_ref().and_then(|content| content.check),
                    truncated: content.as_ref().filter(|content| content.truncated).map(|_| now),
                    cuts: content.map(|content| content.cuts).unwrap_or_default(),
                    ..new
                }
            }
            Who::Rewritten(position) => {
                let generation = position.generation + 1;
                let document = FileId::new(&file.origin, inode, generation, &first);
                self.keep_truncated(*position);
                Beginning { document, generation, ..new }
            }
            Who::MediumOf(other) => {
                self.take_over(other, key, now);
                return Ok(false);
            }
            Who::Copy => {
                let place = (file.inode.device, file.inode.number);
                self.ignored.insert(place);
                self.remove(key);
                return Ok(false);
            }
        };
        self.known.remove(&settled.base);
        self.note_truncated_inode(key, settled.base);
        self.settle(key, &settled, now);
        Ok(true)
    }

    fn recognise(
        &self,
        key: FileKey,
        file: &LogFile,
        tail: &Tail,
        base: FileId,
        first: (usize, u64),
    ) -> io::Result<Who> {
        let is_rotated = file.path != file.active_path;
        if is_rotated {
            for (&other_key, other) in &self.files {
                if other_key != key
                    && self.may_move(other, file, base, first)
                    && file.size >= other.confirmed_to()
                    && other.is_held_by(tail)?
                {
                    return Ok(Who::MediumOf(other_key));
                }
            }
            if let Some(position) = self.known_by_content(file, tail, first)? {
                return Ok(Who::Known(Box::new(position.clone())));
            }
            for other in self.files.values().filter(|other| other.truncated.is_some() && other.present) {
                let is_alike = other.active_path == file.active_path
                    && other.identity.as_ref().is_some_and(|identity| identity.first == first);
                if is_alike && other.size == file.size && other.is_held_by(tail)? {
                    return Ok(Who::Copy);
                }
            }
        }
        // A second file with the identity of one in the table is a copy of it.
        if self.ids.contains_key(&base) {
            return Ok(Who::Copy);
        }
        if let Some(position) = self.known.get(&base) {
            let content = position.content.as_ref();
            let is_same =
                position.offset <= file.size && verify(content.and_then(|content| content.check), tail)?;
            // A compressed file can't have been truncated, only cut.
            return Ok(if is_same || tail.is_gzip() && position.offset != TRUNCATED {
                Who::Known(Box::new(position.clone()))
            } else {
                Who::Rewritten(Box::new(position.clone()))
            });
        }
        if is_rotated && !tail.is_gzip() && self.is_copy_of_active(file, first) {
            return Ok(Who::Copy);
        }
        Ok(Who::New)
    }

    /// Whether a file of the table lost its own place, and `file` may be where its bytes are now.
    fn may_move(&self, other: &LogFile, file: &LogFile, base: FileId, first: (usize, u64)) -> bool {
        let is_without_medium = other.tail.is_none() && !other.present;
        let is_unlinked = other.unlinked && other.tail.as_ref().is_some_and(Tail::is_file);
        if !is_without_medium && !is_unlinked || other.active_path != file.active_path {
            return false;
        }
        let Some(identity) = &other.identity else { return false };
        let is_compressed = file.tail.as_ref().is_some_and(Tail::is_gzip);
        identity.first == first && (identity.base == base || is_compressed || other.truncated.is_some())
    }

    /// What is known of a file that this one, which was renamed or made by copying, is the continuation of.
    fn known_by_content(
        &self,
        file: &LogFile,
        tail: &Tail,
        first: (usize, u64),
    ) -> io::Result<Option<&Position>> {
        for position in self.known.values() {
            let Some(content) = &position.content else { continue };
            let is_alike = content.first == first
                && *content.active == *file.active_path
                && position.offset <= file.size
                && (content.truncated
                    || is_same_inode(position.inode, file.inode)
                    || tail.is_gzip()
                    || self.was_truncated(position, file));
            if is_alike && verify(content.check, tail)? {
                return Ok(Some(position));
            }
        }
        Ok(None)
    }

    /// Whether the file that was known by this position lies where it lay, but is empty or another one.
    fn was_truncated(&self, position: &Position, copy: &LogFile) -> bool {
        let mut actives = self.files.values().filter(|file| file.path == copy.active_path);
        actives.any(|active| {
            let is_other = match &active.identity {
                Some(identity) => identity.base != position.id,
                None => active.size < position.offset,
            };
            is_other && is_same_inode(active.inode, position.inode)
        })
    }

    /// Whether a plain file beside an active one is a copy of what that one holds now, as `copytruncate` makes one before it
    /// truncates: it was never read, is younger than the active file (which a renamed one never is), and begins as that one
    /// does. It is looked at again when the active file was truncated.
    fn is_copy_of_active(&self, file: &LogFile, first: (usize, u64)) -> bool {
        if file.origin != Origin::Plain {
            return false;
        }
        self.files.values().filter(|other| other.path == file.active_path).any(|active| {
            let begins_alike = active.identity.as_ref().is_some_and(|identity| identity.first == first);
            // Where no file has a birth time nothing tells the two apart: then it is read, as nothing may be lost.
            begins_alike && active.inode.birth > 0 && file.inode.birth >= active.inode.birth
        })
    }

    /// The file was truncated while nobody looked: what it held may be found in a copy.
    fn keep_truncated(&mut self, position: Position) {
        let Some(content) = position.content else { return };
        if position.offset == TRUNCATED {
            return;
        }
        let id = truncated_key(position.id, position.generation);
        let content = Some(Content { truncated: true, ..content });
        self.known.insert(id, Position { id, content, ..position });
        // A copy of it may have been taken for something else.
        self.ignored.clear();
    }

    /// Another file was known in this one's place: that one was truncated while nobody looked.
    fn note_truncated_inode(&mut self, key: FileKey, base: FileId) {
        let Some(file) = self.files.get(&key).filter(|file| file.path == file.active_path) else { return };
        let inode = file.inode;
        for position in self.known.values_mut() {
            if position.id != base
                && is_same_inode(position.inode, inode)
                && let Some(content) = &mut position.content
                && *content.active == *file.path
            {
                content.truncated = true;
            }
        }
    }

    /// `other` lost its place; the file `key`, which nobody read yet, is where its bytes are.
    fn take_over(&mut self, other: FileKey, key: FileKey, now: Instant) {
        let Some(file) = self.files.remove(&key) else { return };
        self.awake.remove(&key);
        self.awake.insert(other);
        self.leave_place(other);
        let place = (file.inode.device, file.inode.number);
        self.by_place.insert(place, other);
        let Some(other) = self.files.get_mut(&other) else { return };
        tracing::debug!(path = %file.path.display(), of = %other.path.display(), "a copy is read instead");
        let has_more = other.confirmed_to() < file.size || !other.acks.is_clear();
        other.tail = file.tail.filter(|_| has_more);
        (other.path, other.inode) = (file.path, file.inode);
        (other.size, other.packed_size) = (file.size, file.packed_size);
        (other.present, other.unlinked, other.vanished) = (true, false, None);
        (other.tried, other.grew, other.spilled_to) = (0, now, 0);
    }
}

fn is_same_inode(one: Inode, other: Inode) -> bool {
    one.number == other.number && one.birth == other.birth && (one.birth > 0 || one.device == other.device)
}

/// Who a file is whose first line is `first` when it was never truncated, and the inode if that is a part of it.
fn base(file: &LogFile, first: &[u8]) -> (FileId, Option<Inode>) {
    let is_dated = matches!(file.origin, Origin::Container(_)) && parse_container_line(first).time.is_some();
    let inode = (!is_dated).then_some(file.inode);
    (FileId::new(&file.origin, inode, 0, first), inode)
}
