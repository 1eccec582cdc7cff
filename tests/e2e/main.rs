//! End-to-end tests: the real binary against real servers, as a user runs it.
//!
//! One test binary with a module per subject: on a small machine linking once is most of the build.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests start programs, and fail by panicking with what they saw"
)]

mod support;

mod away;
mod beside;
mod canary;
mod chart;
mod elastic;
mod elastic_faults;
mod elastic_hosts;
mod elastic_secure;
mod faults;
mod feeds;
mod fixtures;
mod gpu;
mod herd;
mod hostile_files;
mod logs;
mod manifests;
mod media;
mod multiline;
mod open_search;
mod page;
mod pod_metrics;
mod pods;
mod pods_many;
mod process;
mod quiet;
mod reload;
mod repair;
mod scrape;
mod setup;
mod shutdown;
mod soak;
mod state_faults;
mod unprivileged;
mod web;
