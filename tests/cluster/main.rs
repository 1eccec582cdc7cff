//! The agent on a real node: kubelet and containerd with a control plane, the image, the chart. `make test-cluster` runs it.

#![allow(
    dead_code,
    unused_imports,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests start programs, fail by panicking with what they saw, and use a part of the harness"
)]

mod arm64;
mod documents;
mod fleet;
mod installed;
mod node;
mod plane;
mod small;
#[path = "../e2e/support/mod.rs"]
mod support;
