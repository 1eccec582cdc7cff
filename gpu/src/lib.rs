//! The GPUs of a node through NVIDIA's NVML, with the series of dcgm-exporter.
//!
//! A driver may hang, in the kernel and for ever, and takes the thread, and so the process, that asked it along. So NVML lives
//! in a [`helper`] process, which says what it reads over a pipe ([`protocol`]). What is made of that is [`page`]'s: nothing in
//! it calls a driver. This crate knows nothing of HTTP, of an async runtime or of the agent; `nvml` has its only unsafe code.

pub mod board;
pub mod counters;
pub mod fields;
pub mod helper;
pub mod holders;
pub mod library;
mod look;
pub mod nvml;
pub mod page;
pub mod protocol;
pub mod reader;
pub mod session;
pub mod xids;
