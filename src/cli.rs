//! The command line: what was written, before it gets a meaning in `config`.
