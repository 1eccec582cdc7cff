//! System calls for which no library has a safe function, one file each: the only unsafe code of this crate.

#![allow(unsafe_code, reason = "each call says why it is sound")]

pub mod btrfs;
pub mod ethtool;
pub mod memory;
pub mod timex;
