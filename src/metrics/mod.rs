//! The metrics page: one scrape at a time over all collectors.

mod held;
pub mod history;
pub mod lags;
pub mod ledger;
pub mod own;
pub mod process;
pub mod scrape;
mod totals;
mod worker;

pub use history::History;
pub use own::Own;
pub use scrape::Scraper;
