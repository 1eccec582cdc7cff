//! Files that are gone and of which the spill has a copy.

use std::time::Instant;

use super::{Beginning, Table};
use crate::logs::{
    batch::FileKey,
    discover::Found,
    file::LogFile,
    spill::{Header, SharedSpill},
    tail::Tail,
};

impl Table {
    /// The file is read from its spilled copy from now on; its descriptor is closed.
    pub fn read_spilled(&mut self, key: FileKey, spill: &SharedSpill) {
        self.leave_place(key);
        let Some(file) = self.files.get_mut(&key) else { return };
        let Some(identity) = &file.identity else { return };
        file.tail = Some(Tail::spilled(spill.clone(), identity.base, file.size));
        self.awake.insert(key);
        file.tried = file.read_to;
    }

    /// Takes in a file that only the spill knows. Bytes that should be there and are not are lost for this reason. `None` when
    /// the file itself is still there, and is read from there, or nothing is left of it.
    pub fn take_in_spilled(
        &mut self,
        header: Header,
        spill: &SharedSpill,
        reason: &'static str,
        now: Instant,
    ) -> Option<()> {
        if let Some(file) = self.ids.get(&header.id).copied().and_then(|key| self.files.get_mut(&key)) {
            let confirmed = file.confirmed_to();
            let held = spill.lock();
            let end = held.end(header.id).unwrap_or(0);
            if held.missing(header.id, confirmed, end) == 0 {
                file.spilled_to = end;
            }
            return None;
        }
        let known = self.known.remove(&header.id);
        let size = spill.lock().end(header.id)?.max(header.size);
        let start = match &known {
            Some(position) if position.offset <= size => position.offset,
            // Not known any more: then all there is.
            _ => spill.lock().readable_from(header.id, 0)?,
        };
        let content = known.and_then(|position| position.content);
        let found = Found {
            path: header.path.into(),
            active_path: header.active_path.into(),
            origin: header.origin,
            source: header.source.min(self.encodings.len().saturating_sub(1)),
        };
        let tail = Tail::spilled(spill.clone(), header.id, size);
        let mut file = LogFile::new(found, tail, header.inode, now);
        (file.present, file.unlinked, file.size, file.spilled_to) = (false, true, size, size);
        let key = self.insert_nowhere(file);
        let beginning = Beginning {
            base: header.id,
            document: header.document,
            first: header.first,
            generation: header.generation,
            start,
            check: content.as_ref().and_then(|content| content.check),
            truncated: content.as_ref().filter(|content| content.truncated).map(|_| now),
            cuts: content.map(|content| content.cuts).unwrap_or_default(),
        };
        self.settle(key, &beginning, now);
        let missing = spill.lock().missing(header.id, start, size);
        self.files.get_mut(&key)?.lose(reason, missing);
        Some(())
    }
}
