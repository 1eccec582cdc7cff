//! A block's records: pushed one by one while the block is open, read back one by one later.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use super::{
    Source,
    codec::{Input, put_bytes, put_varint, unzigzag, zigzag},
};

/// Which positions of one source a block holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Positions {
    pub(super) min: u64,
    pub(super) max: u64,
    pub(super) count: u32,
}

/// A line of a block's source table.
#[derive(Debug, Clone)]
pub(super) struct TableEntry {
    pub(super) source: Arc<Source>,
    pub(super) positions: Positions,
}

/// What a record's times and positions are relative to: writer and reader step it alike.
#[derive(Debug, Clone, Default)]
struct Deltas {
    time: i64,
    positions: Vec<u64>,
}

/// One record of a block, borrowed from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record<'a> {
    /// The number of its source in the block's table.
    pub(super) source: usize,
    pub(super) time: i64,
    pub(super) position: u64,
    pub(super) stream: u8,
    pub(super) text: &'a [u8],
}

/// How far the open block has been written to the head.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) records: u32,
    pub(super) sources: usize,
    meta: usize,
    text: usize,
}

/// The block being filled. Metadata and texts are two columns: that compresses better than records one after the other,
/// and a search runs over texts that lie side by side.
#[derive(Debug, Clone, Default)]
pub(super) struct OpenBlock {
    pub(super) number: u64,
    pub(super) table: Vec<TableEntry>,
    by_source: HashMap<Arc<Source>, usize>,
    last_source: usize,
    pub(super) meta: Vec<u8>,
    pub(super) text: Vec<u8>,
    /// Bytes of the sources' descriptions.
    table_bytes: usize,
    deltas: Deltas,
    pub(super) records: u32,
    pub(super) min_time: i64,
    pub(super) max_time: i64,
}

impl OpenBlock {
    pub(super) fn new(number: u64) -> Self {
        Self { number, ..Self::default() }
    }

    /// Starts the next block in the same buffers.
    pub(super) fn restart(&mut self, number: u64) {
        let (mut meta, mut text) = (std::mem::take(&mut self.meta), std::mem::take(&mut self.text));
        meta.clear();
        text.clear();
        // One long record must not keep its buffer for ever.
        text.shrink_to(512 << 10);
        meta.shrink_to(512 << 10);
        *self = Self { number, meta, text, ..Self::default() };
    }

    /// Raw bytes: what the head would hold.
    pub(super) fn raw_bytes(&self) -> usize {
        self.meta.len() + self.text.len() + self.table_bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records == 0
    }

    pub(super) fn push(&mut self, source: &Arc<Source>, record: Record<'_>) {
        let index = self.intern(source);
        let positions = &mut self.table[index].positions;
        positions.min = positions.min.min(record.position);
        positions.max = positions.max.max(record.position);
        positions.count += 1;
        let (min, max) =
            if self.records == 0 { (i64::MAX, i64::MIN) } else { (self.min_time, self.max_time) };
        self.min_time = min.min(record.time);
        self.max_time = max.max(record.time);
        self.records += 1;
        put_varint(&mut self.meta, index as u64);
        put_varint(&mut self.meta, zigzag(record.time.wrapping_sub(self.deltas.time)));
        let before = &mut self.deltas.positions[index];
        put_varint(&mut self.meta, zigzag(record.position.wrapping_sub(*before) as i64));
        self.meta.push(record.stream);
        put_varint(&mut self.meta, record.text.len() as u64);
        *before = record.position;
        self.deltas.time = record.time;
        self.text.extend_from_slice(record.text);
    }

    fn intern(&mut self, source: &Arc<Source>) -> usize {
        if self.table.get(self.last_source).is_some_and(|last| Arc::ptr_eq(&last.source, source)) {
            return self.last_source;
        }
        let next = self.table.len();
        let index = *self.by_source.entry(Arc::clone(source)).or_insert(next);
        if index == next {
            let positions = Positions { min: u64::MAX, max: 0, count: 0 };
            self.table.push(TableEntry { source: Arc::clone(source), positions });
            self.deltas.positions.push(0);
            self.table_bytes += source_bytes(source);
        }
        self.last_source = index;
        index
    }

    pub(super) fn mark(&self) -> Mark {
        Mark {
            records: self.records,
            sources: self.table.len(),
            meta: self.meta.len(),
            text: self.text.len(),
        }
    }

    /// What came after `mark`, as one entry of the head: new sources, number of records, the two columns' new ends.
    pub(super) fn encode_since(&self, mark: Mark, out: &mut Vec<u8>) {
        put_varint(out, (self.table.len() - mark.sources) as u64);
        for entry in &self.table[mark.sources..] {
            put_source(out, &entry.source);
        }
        put_varint(out, u64::from(self.records - mark.records));
        put_bytes(out, &self.meta[mark.meta..]);
        out.extend_from_slice(&self.text[mark.text..]);
    }

    /// Appends an entry made by [`Self::encode_since`]; `None`, with nothing appended, when it makes no sense.
    pub(super) fn replay(&mut self, entry: &[u8]) -> Option<()> {
        let mut input = Input(entry);
        let mut sources: Vec<Arc<Source>> =
            self.table.iter().map(|entry| Arc::clone(&entry.source)).collect();
        for _ in 0..input.varint()? {
            sources.push(Arc::new(take_source(&mut input)?));
        }
        let count = input.varint()?;
        let meta = input.bytes()?;
        let mut deltas = self.deltas.clone();
        deltas.positions.resize(sources.len(), 0);
        let records = Records { meta: Input(meta), text: Input(input.0), deltas };
        let records: Vec<Record<'_>> = records.collect();
        if records.len() as u64 != count {
            return None;
        }
        for record in records {
            self.push(&sources[record.source], record);
        }
        Some(())
    }

    pub(super) fn records(&self) -> Records<'_> {
        Records::new(&self.meta, &self.text, self.table.len())
    }

    /// The source table as it lies in a frame, before compression.
    pub(super) fn encode_table(&self, out: &mut Vec<u8>) {
        put_varint(out, self.table.len() as u64);
        for TableEntry { source, positions } in &self.table {
            put_varint(out, positions.min);
            put_varint(out, positions.max);
            put_varint(out, u64::from(positions.count));
            put_source(out, source);
        }
    }
}

/// Reads what [`OpenBlock::encode_table`] wrote.
pub(super) fn decode_table(table: &[u8]) -> Option<Vec<TableEntry>> {
    let mut input = Input(table);
    let count = input.varint()?;
    let mut entries = Vec::new();
    for _ in 0..count {
        let (min, max) = (input.varint()?, input.varint()?);
        let count = u32::try_from(input.varint()?).ok()?;
        let source = Arc::new(take_source(&mut input)?);
        entries.push(TableEntry { source, positions: Positions { min, max, count } });
    }
    Some(entries)
}

/// The encoded length of a source, a little overestimated.
pub(super) fn source_bytes(source: &Source) -> usize {
    let labels: usize = source.labels.iter().map(|(name, value)| name.len() + value.len() + 6).sum();
    source.id.len() + 4 + labels
}

fn put_source(out: &mut Vec<u8>, source: &Source) {
    out.extend_from_slice(&source.id);
    put_varint(out, source.labels.len() as u64);
    for (name, value) in &source.labels {
        put_bytes(out, name.as_bytes());
        put_bytes(out, value.as_bytes());
    }
}

fn take_source(input: &mut Input<'_>) -> Option<Source> {
    let id = input.array()?;
    let mut labels = Vec::new();
    for _ in 0..input.varint()? {
        let name = input.text()?.to_owned();
        labels.push((Cow::Owned(name), input.text()?.to_owned()));
    }
    Some(Source { id, labels })
}

/// The records of two columns, in the order they were appended; ends early where the columns make no sense.
#[derive(Debug)]
pub(super) struct Records<'a> {
    meta: Input<'a>,
    text: Input<'a>,
    deltas: Deltas,
}

impl<'a> Records<'a> {
    pub(super) fn new(meta: &'a [u8], text: &'a [u8], sources: usize) -> Self {
        let deltas = Deltas { time: 0, positions: vec![0; sources] };
        Self { meta: Input(meta), text: Input(text), deltas }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let source = usize::try_from(self.meta.varint()?).ok()?;
        let time = self.deltas.time.wrapping_add(unzigzag(self.meta.varint()?));
        let step = unzigzag(self.meta.varint()?);
        let before = self.deltas.positions.get_mut(source)?;
        let position = before.wrapping_add(step as u64);
        let stream = self.meta.u8()?;
        let len = usize::try_from(self.meta.varint()?).ok()?;
        let text = self.text.take(len)?;
        *before = position;
        self.deltas.time = time;
        Some(Record { source, time, position, stream, text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn source(number: u8) -> Arc<Source> {
        Arc::new(Source { id: [number; 12], labels: vec![("pod".into(), format!("pod-{number}"))] })
    }

    type Line = (u8, i64, u64, u8, Vec<u8>);

    fn push(block: &mut OpenBlock, (from, time, position, stream, text): &Line) {
        let (time, position, stream) = (*time, *position, *stream);
        block.push(&source(*from), Record { source: 0, time, position, stream, text });
    }

    fn lines(block: &OpenBlock) -> Vec<Line> {
        let line = |record: Record<'_>| {
            let from = block.table[record.source].source.id[0];
            (from, record.time, record.position, record.stream, record.text.to_vec())
        };
        block.records().map(line).collect()
    }

    proptest! {
        #[test]
        fn records_come_back_as_they_were_pushed(pushed: Vec<Line>) {
            let mut block = OpenBlock::new(7);
            pushed.iter().for_each(|line| push(&mut block, line));
            prop_assert_eq!(lines(&block), pushed);
        }

        #[test]
        fn entries_of_the_head_replay_into_the_same_block(pushed: Vec<Line>, cut in 0_usize..20) {
            let cut = cut.min(pushed.len());
            let mut block = OpenBlock::new(7);
            pushed[..cut].iter().for_each(|line| push(&mut block, line));
            let (mut first, mut second) = (Vec::new(), Vec::new());
            let mark = block.mark();
            block.encode_since(Mark::default(), &mut first);
            pushed[cut..].iter().for_each(|line| push(&mut block, line));
            block.encode_since(mark, &mut second);

            let mut replayed = OpenBlock::new(7);
            prop_assert_eq!(replayed.replay(&first).and(replayed.replay(&second)), Some(()));
            prop_assert_eq!((&replayed.meta, &replayed.text), (&block.meta, &block.text));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(meta: Vec<u8>, text: Vec<u8>, sources in 0_usize..3) {
            let read = Records::new(&meta, &text, sources).count();
            prop_assert!(read <= meta.len());
            prop_assert!(decode_table(&meta).is_none_or(|table| table.len() <= meta.len()));
            let _ = OpenBlock::new(0).replay(&meta);
        }
    }

    #[test]
    fn a_table_comes_back_with_its_ranges() {
        let mut block = OpenBlock::new(0);
        push(&mut block, &(3, 10, 500, 1, b"a".to_vec()));
        push(&mut block, &(3, 5, 100, 1, b"b".to_vec()));
        push(&mut block, &(4, 20, 7, 2, b"c".to_vec()));
        let mut table = Vec::new();
        block.encode_table(&mut table);
        let entries = decode_table(&table).expect("whole");
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].positions, Positions { min: 100, max: 500, count: 2 });
        assert_eq!(entries[1].source, source(4));
        assert_eq!((block.min_time, block.max_time), (5, 20));
    }
}
