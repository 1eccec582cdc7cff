//! nodewarden, the agent: everything behind the thin binary. `ARCHITECTURE.md` has the map.

#![forbid(unsafe_code)]

pub mod agent;
pub mod ask;
pub mod backoff;
pub mod certificate;
pub mod cli;
pub mod config;
pub mod delivery;
pub mod explain;
pub mod gpu;
pub mod kubernetes;
pub mod logs;
pub mod metrics;
pub mod pem;
pub mod reload;
pub mod setup;
pub mod shutdown;
pub mod stamps;
pub mod state_dir;
pub mod store;
pub mod telemetry;
#[cfg(test)]
mod testing;
pub mod web;

/// The version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit of this build, empty when the build was not told.
pub const REVISION: &str = match option_env!("NODEWARDEN_REVISION") {
    Some(revision) => revision,
    None => "",
};
