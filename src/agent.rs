//! The agent: makes the parts out of a `Config`, lets them run, ends them in order.
