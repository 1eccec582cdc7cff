//! nodewarden, the agent: everything behind the thin binary. `ARCHITECTURE.md` has the map.

pub mod agent;
pub mod cli;
pub mod config;
pub mod logs;
pub mod metrics;
pub mod shutdown;
pub mod store;
pub mod telemetry;
pub mod web;
