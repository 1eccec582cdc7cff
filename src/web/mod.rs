//! The two listeners: metrics for everybody, admin for who has the token.
//!
//! The caller owns sockets and the signal to stop; [`server::serve`] answers on a socket with one of the sites:
//! [`routes::MetricsSite`], [`admin::AdminSite`] (the page and the API behind a token) or [`api::Api`] itself (on the
//! control socket, which only its owner can open).

mod accept;
pub mod admin;
pub mod answer;
pub mod api;
pub mod client;
pub mod facts;
pub mod gate;
pub mod health;
pub mod logs;
pub mod page;
mod path;
mod query;
pub mod routes;
pub mod server;
pub mod sockets;
pub mod swapped;
#[cfg(test)]
mod testing;
pub mod token;

pub use admin::AdminSite;
pub use api::Api;
pub use health::Ready;
pub use routes::MetricsSite;
pub use server::serve;
pub use token::Token;
