//! The agent as its manifest runs it.
