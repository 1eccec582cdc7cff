//! What was written (flags, environment, file) becomes what it means: one `Config`, or every mistake at once.
