//! The log path on one screen: files in, confirmed positions back.
