//! The log path on one screen: files in, confirmed positions back.

pub mod ack;
pub mod backoff;
pub mod batch;
pub mod checkpoint;
pub mod discover;
pub mod file;
pub mod format;
pub mod index;
pub mod join;
pub mod mail;
pub mod output;
pub mod reader;
pub mod record;
pub mod shape;
pub mod ship;
pub mod status;
pub mod table;
pub mod tail;
pub mod verdict;
pub mod window;
