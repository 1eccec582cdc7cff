//! The list of collectors: one line for the module, one in [`ALL`], both sorted.

use crate::collector::Entry;

pub mod loadavg;

/// Every collector there is, by name.
pub const ALL: &[&Entry] = &[&loadavg::ENTRY];
