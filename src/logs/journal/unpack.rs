//! Compressed fields of journal files, unpacked up to a limit: a field may claim, and hold, any size.

use std::io::{self, Read};

/// Memory that the xz decoder may take, in KiB. journald writes with a dictionary of 1 MiB.
const XZ_MEMORY_KIB: u32 = 8 << 10;
/// The window that the zstd decoder may take: 8 MiB, as its levels below the last ones have. journald's has 2 MiB.
const ZSTD_WINDOW_LOG: u32 = 23;

/// How a field is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    None,
    /// An xz stream.
    Xz,
    /// The size as u64, then an LZ4 block.
    Lz4,
    /// A zstd frame.
    Zstd,
}

/// Unpacks at most `limit` bytes into `out`, which is emptied before. `packed` may be cut off: what is there is unpacked. How
/// many bytes there are in all, where that is known.
pub fn unpack(packing: Packing, packed: &[u8], limit: usize, out: &mut Vec<u8>) -> io::Result<Option<u64>> {
    out.clear();
    match packing {
        Packing::None => {
            out.extend_from_slice(&packed[..packed.len().min(limit)]);
            Ok(None)
        }
        Packing::Lz4 => {
            let (size, block) = packed.split_first_chunk().ok_or(io::ErrorKind::UnexpectedEof)?;
            unpack_lz4(block, limit, out)?;
            Ok(Some(u64::from_le_bytes(*size)))
        }
        Packing::Zstd => {
            let size = zstd::zstd_safe::get_frame_content_size(packed).ok().flatten();
            let mut decoder = zstd::stream::read::Decoder::with_buffer(packed)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            read_up_to(decoder, limit, out)?;
            Ok(size)
        }
        Packing::Xz => {
            read_up_to(lzma_rust2::XzReader::new_mem_limit(packed, false, XZ_MEMORY_KIB), limit, out)?;
            Ok(None)
        }
    }
}

fn read_up_to(reader: impl Read, limit: usize, out: &mut Vec<u8>) -> io::Result<()> {
    match reader.take(limit as u64).read_to_end(out) {
        // The input was cut off on purpose, or the file is damaged: what was unpacked is as good.
        Err(_) if !out.is_empty() => Ok(()),
        other => other.map(drop),
    }
}

/// An LZ4 block: a token with two lengths, literals, the distance back to what is repeated. Written by hand because the
/// decoders that there are unpack all of a block or nothing.
fn unpack_lz4(mut block: &[u8], limit: usize, out: &mut Vec<u8>) -> io::Result<()> {
    let damaged = || io::Error::from(io::ErrorKind::InvalidData);
    while let Some((&token, rest)) = block.split_first() {
        block = rest;
        let Some(literals) = take_length(token >> 4, &mut block) else { return Ok(()) };
        let available = literals.min(block.len()).min(limit - out.len());
        out.extend_from_slice(&block[..available]);
        // The end of the block, of what was asked for, or of what there is.
        if block.len() <= literals || out.len() == limit {
            return Ok(());
        }
        block = &block[literals..];
        let Some((distance, rest)) = block.split_first_chunk() else { return Ok(()) };
        block = rest;
        let distance = usize::from(u16::from_le_bytes(*distance));
        let Some(repeated) = take_length(token & 15, &mut block) else { return Ok(()) };
        let start = out.len().checked_sub(distance).filter(|_| distance > 0).ok_or_else(damaged)?;
        let repeated = repeated.saturating_add(4).min(limit - out.len());
        // What is repeated may reach into the copy itself.
        for place in start..start + repeated {
            out.push(out[place]);
        }
        if out.len() == limit {
            return Ok(());
        }
    }
    Ok(())
}

/// A length begins with four bits; when all are set, bytes are added up to the first that is not 255.
fn take_length(first: u8, block: &mut &[u8]) -> Option<usize> {
    let mut length = usize::from(first);
    if first == 15 {
        loop {
            let (&more, rest) = block.split_first()?;
            *block = rest;
            length = length.saturating_add(usize::from(more));
            if more < 255 {
                break;
            }
        }
    }
    Some(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unpacked(packing: Packing, packed: &[u8], limit: usize) -> (Option<u64>, Vec<u8>) {
        let mut out = Vec::new();
        let size = unpack(packing, packed, limit, &mut out).expect("unpacked");
        (size, out)
    }

    /// "abc" and then 60 bytes that repeat it, the length in one byte more; then five literals.
    fn lz4() -> Vec<u8> {
        let mut packed = 68_u64.to_le_bytes().to_vec();
        packed.extend_from_slice(b"\x3fabc\x03\x00\x29\x50-end.");
        packed
    }

    #[test]
    fn an_lz4_block_is_unpacked_up_to_the_limit() {
        let whole = format!("{}-end.", "abc".repeat(21));
        assert_eq!(unpacked(Packing::Lz4, &lz4(), 1000), (Some(68), whole.clone().into_bytes()));
        for limit in 0..whole.len() {
            assert_eq!(unpacked(Packing::Lz4, &lz4(), limit).1, &whole.as_bytes()[..limit], "{limit}");
        }
    }

    #[test]
    fn a_block_that_points_before_its_beginning_is_damaged() {
        let mut out = Vec::new();
        assert!(unpack(Packing::Lz4, b"\x09\0\0\0\0\0\0\0\x10a\x05\x00", 100, &mut out).is_err());
    }

    #[test]
    fn a_zstd_frame_is_unpacked_up_to_the_limit() {
        let text = "journal ".repeat(1000);
        let packed = zstd::bulk::compress(text.as_bytes(), 3).expect("packed");
        assert_eq!(unpacked(Packing::Zstd, &packed, 100_000), (Some(8000), text.into_bytes()));
        assert_eq!(unpacked(Packing::Zstd, &packed, 16).1, b"journal journal ");
    }

    #[test]
    fn a_zstd_frame_that_asks_for_much_memory_is_refused() {
        // No length, a window of 1 KiB doubled so often as is said; one last block of five bytes as they are.
        let frame =
            |exponent: u8| [b"\x28\xb5\x2f\xfd\x00".as_slice(), &[exponent << 3], b"\x29\0\0hello"].concat();
        assert_eq!(unpacked(Packing::Zstd, &frame(13), 10).1, b"hello");
        assert!(unpack(Packing::Zstd, &frame(14), 10, &mut Vec::new()).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_unpacked_without_a_panic(bytes: Vec<u8>, limit in 0_usize..5000) {
            for packing in [Packing::None, Packing::Lz4, Packing::Zstd, Packing::Xz] {
                let mut out = Vec::new();
                let _ = unpack(packing, &bytes, limit, &mut out);
                prop_assert!(out.len() <= limit);
            }
        }

        #[test]
        fn a_damaged_lz4_block_stays_within_the_limit(place in 8_usize..20, byte: u8, limit in 0_usize..5000) {
            let mut packed = lz4();
            let place = place.min(packed.len() - 1);
            packed[place] = byte;
            let mut out = Vec::new();
            let _ = unpack(Packing::Lz4, &packed, limit, &mut out);
            prop_assert!(out.len() <= limit);
        }
    }
}
