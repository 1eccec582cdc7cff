//! What was written (flags, environment, file) becomes what it means: one `Config`, or every mistake at once.
//!
//! Environment, file and flags are each read into a layer of texts that know their place; the table in `keys`
//! gives texts their meaning. [`load`] lays the layers upon each other.

mod change;
mod check;
mod collectors;
mod elastic;
mod env;
mod file;
mod given;
mod keys;
mod layer;
mod load;
mod machine;
mod mistakes;
mod options;
mod rules;
mod show;
mod sources;
pub mod units;
pub mod web_file;
mod yaml;

pub use change::{Changes, Reading};
pub use check::check;
pub use env::Env;
pub use load::{Loaded, Setting, load};
pub use machine::Machine;
pub use mistakes::{Mistake, Mistakes, Origin};
pub use options::{
    AdminConfig, Auth, BulkConfig, CloudId, Config, DocumentIds, ElasticConfig, ElasticHost, GpuConfig,
    IndexTemplate, KubernetesConfig, ListenAddress, LogConfig, LogFormat, LogsConfig, Metadata,
    MetricsConfig, Multiline, Proxies, Proxy, Schema, Secret, SecretFrom, Source, SourceKind, StoreConfig,
    Tls, WebConfig,
};
