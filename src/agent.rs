//! The agent: makes the parts out of a `Config`, lets them run, ends them in order.

use crate::config::Config;

/// Runs until a signal ends it.
pub fn run(_config: Config) -> anyhow::Result<()> {
    Ok(())
}
