//! Batches from the queue to the sink, several at once where the sink allows it, and their confirmation back to the reader.

use std::{future::Future, sync::Arc};

use tokio::{sync::mpsc, task::JoinSet};

use super::{
    batch::Batch,
    mail::{Mail, Sender},
};

/// Where lines are delivered.
pub trait Sink: Send + Sync + 'static {
    /// Delivers every line of a batch, however long it takes: returns it when each is accepted or kept as a dead letter.
    fn deliver(self: Arc<Self>, batch: Batch) -> impl Future<Output = Batch> + Send;

    /// How many batches may be on their way at once just now; at least 1.
    fn window(&self) -> usize;
}

/// Ships until the queue is closed and everything in flight is delivered.
pub async fn run<S: Sink>(sink: Arc<S>, mut queue: mpsc::Receiver<Batch>, reader: Sender) {
    let mut deliveries = JoinSet::new();
    let mut open = true;
    while open || !deliveries.is_empty() {
        tokio::select! {
            batch = queue.recv(), if open && deliveries.len() < sink.window() => match batch {
                Some(batch) => {
                    deliveries.spawn(Arc::clone(&sink).deliver(batch));
                }
                None => open = false,
            },
            Some(delivered) = deliveries.join_next() => match delivered {
                Ok(batch) => {
                    reader.send(Mail::Confirmed(batch));
                }
                // Its lines stay unconfirmed; they are read again at the next start.
                Err(error) => tracing::error!(%error, "a delivery was given up"),
            },
        }
    }
}
