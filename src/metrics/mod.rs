//! The metrics page: one scrape at a time over all collectors.

pub mod own;
pub mod process;
