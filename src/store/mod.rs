//! The local store: recent lines in bounded segments of compressed blocks.
