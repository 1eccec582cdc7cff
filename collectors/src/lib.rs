//! The metric collectors of nodewarden: what node_exporter says of a Linux host, read from `/proc`, `/sys`,
//! netlink and a few system calls, with the same names, types, help texts, labels and number format.
//!
//! One file per collector under [`node`]; the list of them is [`node::ALL`]. A collector reads through a
//! [`Host`], says what it found into [`Samples`], and [`text::write`] prints those as an exposition page.
//! This crate knows nothing of HTTP, of an async runtime or of the agent.

pub mod cgroup;
pub mod collector;
pub mod containers;
pub mod dbus;
pub mod filter;
pub mod glob;
pub mod host;
pub mod json;
pub mod labels;
pub mod netlink;
pub mod node;
pub mod pod_names;
pub mod samples;
pub mod syscall;
pub mod sysfs;
pub mod text;
pub mod words;

pub use collector::{BuildError, CollectError, Collector, Entry, Flag, FlagKind, Options, Settings};
pub use containers::Containers;
pub use host::{Host, HostFile};
pub use samples::{Desc, Kind, OwnedDesc, Samples};
