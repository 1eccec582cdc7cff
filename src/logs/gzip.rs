//! Bodies as gzip, out of buffers that are used again.

use flate2::{Compress, CompressError, Compression, FlushCompress, Status};

/// Deflate with the least work, of an unknown system, without a name or a time.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// What is summed up and then packed while the processor still has it at hand.
const CHUNK: usize = 64 * 1024;
/// Room that there always is for what comes out next.
const ROOM: usize = 64 * 1024;

/// Packs one body after the other. Its state and its buffer are large, and threads that allocate such for each request keep
/// several times as much memory for themselves.
pub struct Packer {
    state: Compress,
    /// The last body.
    pub packed: Vec<u8>,
}

impl Packer {
    /// One of this level, 1 to 9.
    pub fn new(level: u32) -> Self {
        Self { state: Compress::new(Compression::new(level), false), packed: Vec::new() }
    }

    /// Makes one body of these pieces.
    pub fn pack<'a>(&mut self, pieces: impl Iterator<Item = &'a [u8]>) -> Result<(), CompressError> {
        self.state.reset();
        self.packed.clear();
        self.packed.extend_from_slice(&HEADER);
        let mut sum = crc32fast::Hasher::new();
        for chunk in pieces.flat_map(|piece| piece.chunks(CHUNK)) {
            sum.update(chunk);
            self.feed(chunk, FlushCompress::None)?;
        }
        self.feed(b"", FlushCompress::Finish)?;
        self.packed.extend_from_slice(&sum.finalize().to_le_bytes());
        self.packed.extend_from_slice(&(self.state.total_in() as u32).to_le_bytes());
        Ok(())
    }

    fn feed(&mut self, mut input: &[u8], flush: FlushCompress) -> Result<(), CompressError> {
        loop {
            self.packed.reserve(ROOM);
            let before = self.state.total_in();
            let status = self.state.compress_vec(input, &mut self.packed, flush)?;
            input = input.get((self.state.total_in() - before) as usize..).unwrap_or_default();
            let is_done = match flush {
                FlushCompress::Finish => status == Status::StreamEnd,
                _ => input.is_empty(),
            };
            if is_done {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use proptest::prelude::*;

    use super::*;

    fn unpacked(packed: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        GzDecoder::new(packed).read_to_end(&mut text).expect("gzip");
        text
    }

    #[test]
    fn a_large_body_reads_back_and_the_next_one_too() {
        let mut packer = Packer::new(1);
        // Such bytes hardly get any smaller, others a lot.
        let noise: Vec<u8> =
            (0..1_000_000_u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8).collect();
        let same = vec![b'a'; 1_000_000];
        for body in [&noise, &same, &noise] {
            packer.pack(std::iter::once(&body[..])).expect("packed");
            assert!(unpacked(&packer.packed) == *body);
        }
    }

    proptest! {
        #[test]
        fn any_pieces_read_back(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20),
            level in 1_u32..10,
        ) {
            let mut packer = Packer::new(level);
            packer.pack(pieces.iter().map(Vec::as_slice)).expect("packed");
            prop_assert_eq!(unpacked(&packer.packed), pieces.concat());
        }
    }
}
