//! What was written (flags, environment, file) becomes what it means: one `Config`, or every mistake at once.

mod mistakes;
mod options;
pub mod units;
mod yaml;

pub use mistakes::{Mistake, Mistakes, Origin};
pub use options::{
    AdminConfig, Auth, BulkConfig, Config, DocumentIds, ElasticConfig, ElasticHost, ListenAddress, LogConfig,
    LogFormat, LogsConfig, MetricsConfig, Schema, Secret, Source, SourceKind, StoreConfig, WebConfig,
};
