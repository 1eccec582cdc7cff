//! The metrics page: one scrape at a time over all collectors.

pub mod own;
pub mod process;
pub mod scrape;
mod worker;

pub use scrape::Scraper;
