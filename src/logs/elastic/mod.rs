//! The sink that speaks the bulk API of Elasticsearch and OpenSearch.
//!
//! ```text
//! delivery  one batch until each document is settled      bulk    one request out of it, without a copy
//! answer    what the server says, per document             window  how many requests at once
//! resend    dead letters once more
//! lookout   whether the canary arrived
//! repair    a document that its index refuses for one     lessons which fields those were
//! client    asks: which server (hosts), who we are (credentials: auth, tls), how (connection, proxy, address)
//! ```

pub mod address;
pub mod answer;
pub mod auth;
mod bulk;
pub mod client;
mod connection;
mod credentials;
mod delivery;
mod hosts;
mod lessons;
mod lookout;
pub mod proxy;
pub mod repair;
mod resend;
pub mod tls;
pub mod window;

use std::{
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use self::{client::Client, delivery::Delivery, lessons::Lessons, window::Window};
use super::{batch::Batch, dead_letters::DeadLetters, gzip::Packer, ship::Sink, status::SinkState};
use crate::metrics::own::BulkMetrics;

/// How bulk requests are made.
#[derive(Debug, Clone)]
pub struct Options {
    /// gzip level, 0 for none.
    pub compression: u32,
    /// The most requests at once.
    pub in_flight: usize,
    /// A request that is not answered by then is sent again: its documents are then conflicts on their own ids.
    pub answer_timeout: Duration,
    /// Whether a field that its index can't take becomes text, so that the document is taken.
    pub repair: bool,
}

/// The sink.
pub struct Elastic {
    options: Options,
    client: Arc<Client>,
    /// Those that pack no body now; no more are made than requests may be on their way.
    packers: Mutex<Vec<Packer>>,
    window: Window,
    lessons: Lessons,
    state: Arc<SinkState>,
    dead_letters: DeadLetters,
    bulk: BulkMetrics,
    /// Held while dead letters are sent again.
    resending: tokio::sync::Mutex<()>,
}

impl Elastic {
    /// A sink that sends through `client`.
    pub fn new(
        options: Options,
        client: Arc<Client>,
        state: Arc<SinkState>,
        dead_letters: DeadLetters,
        bulk: BulkMetrics,
    ) -> Self {
        let window = Window::new(options.in_flight);
        Self {
            window,
            options,
            client,
            packers: Mutex::new(Vec::new()),
            lessons: Lessons::default(),
            state,
            dead_letters,
            bulk,
            resending: tokio::sync::Mutex::default(),
        }
    }
}

impl Sink for Elastic {
    fn deliver(self: Arc<Self>, batch: Batch) -> impl Future<Output = Batch> + Send {
        Delivery::new(self, batch.number).run(batch)
    }

    /// Any number: the window is for requests, and batches that are held make none.
    fn at_once(&self) -> usize {
        usize::MAX
    }
}

#[cfg(test)]
mod tests;
