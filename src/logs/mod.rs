//! The log path on one screen: files in, confirmed positions back.

pub mod ack;
pub mod batch;
pub mod checkpoint;
pub mod format;
pub mod index;
pub mod join;
pub mod record;
pub mod shape;
