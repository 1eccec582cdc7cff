//! What the writer and the readers share: the index and the open block behind one lock, never held across the disk.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    Stats,
    block::{Mark, OpenBlock, TableEntry},
    index::SegmentIndex,
    removed::Removed,
    segment::file_name,
};

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// Oldest first; blocks are appended to the last one unless it is sealed.
    pub(super) segments: VecDeque<Arc<SegmentIndex>>,
    pub(super) open: OpenBlock,
    /// How much of the open block is on disk.
    pub(super) synced: Mark,
    pub(super) head_bytes: u64,
    /// Records that are there no more, as far as anybody is told.
    pub(super) removed: Arc<Removed>,
}

/// The open block as a reader sees it.
#[derive(Debug, Clone, Default)]
pub(super) struct OpenView {
    pub(super) number: u64,
    pub(super) table: Vec<TableEntry>,
    pub(super) meta: Vec<u8>,
    pub(super) text: Vec<u8>,
    pub(super) records: u32,
    pub(super) min_time: i64,
    pub(super) max_time: i64,
}

impl Shared {
    pub(super) fn new(dir: PathBuf, state: State) -> Self {
        Self { dir, state: Mutex::new(state) }
    }

    /// A panic elsewhere leaves the state as it was between two changes: it is used on.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn path(&self, segment: u64) -> PathBuf {
        self.dir.join(file_name(segment))
    }
}

impl State {
    /// How many records a block has; none when it is not there.
    pub(super) fn records_of(&self, block: u64) -> u32 {
        if block == self.open.number {
            return self.open.records;
        }
        let blocks = self.segments.iter().flat_map(|segment| {
            let at = segment.blocks.binary_search_by_key(&block, |entry| entry.number).ok()?;
            Some(segment.blocks[at].records)
        });
        blocks.max().unwrap_or(0)
    }

    pub(super) fn segment_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    pub(super) fn view_open(&self) -> OpenView {
        let open = &self.open;
        OpenView {
            number: open.number,
            table: open.table.clone(),
            meta: open.meta.clone(),
            text: open.text.clone(),
            records: open.records,
            min_time: open.min_time,
            max_time: open.max_time,
        }
    }

    pub(super) fn stats(&self) -> Stats {
        let open = (!self.open.is_empty()).then_some((self.open.min_time, self.open.max_time));
        let blocks = || self.segments.iter().flat_map(|segment| &segment.blocks);
        let times = || blocks().map(|block| (block.min_time, block.max_time)).chain(open);
        Stats {
            bytes: self.segment_bytes() + self.head_bytes,
            segments: self.segments.len() as u64,
            blocks: blocks().count() as u64,
            records: blocks().map(|block| u64::from(block.records)).sum::<u64>()
                + u64::from(self.open.records),
            oldest: times().map(|(min, _)| min).min(),
            newest: times().map(|(_, max)| max).max(),
            damaged: self.segments.iter().map(|segment| u64::from(segment.damaged)).sum(),
        }
    }
}
