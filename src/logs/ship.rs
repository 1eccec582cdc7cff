//! Batches from the queue to the sink, several at once where the sink allows it, and their confirmation back to the reader.

use std::{future::Future, sync::Arc};

use tokio::{sync::mpsc, task::JoinSet};

use super::{
    batch::Batch,
    mail::{Mail, Sender},
};

/// Where lines are delivered.
pub trait Sink: Send + Sync + 'static {
    /// Delivers every line of a batch, however long it takes: returns it when each is accepted, kept as a dead letter, or
    /// its file marked as held.
    fn deliver(self: Arc<Self>, batch: Batch) -> impl Future<Output = Batch> + Send;

    /// How many batches it may be given at once; at least 1.
    fn at_once(&self) -> usize;
}

/// Does work that blocks, or takes long, where it does not stall the runtime.
pub async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            // A bug: it ends this delivery, and its lines are read again at the next start.
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is ending, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Ships until the queue is closed and everything in flight is delivered.
pub async fn run<S: Sink>(sink: Arc<S>, mut queue: mpsc::Receiver<Batch>, reader: Sender) {
    let mut deliveries = JoinSet::new();
    let mut open = true;
    while open || !deliveries.is_empty() {
        tokio::select! {
            batch = queue.recv(), if open && deliveries.len() < sink.at_once() => match batch {
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

#[cfg(test)]
mod tests {
    use tokio::sync::{Mutex, oneshot};

    use super::*;
    use crate::logs::mail::mailbox;

    /// A sink that holds each batch until the test lets it go.
    struct Gate {
        at_once: usize,
        waiting: Mutex<mpsc::Sender<(u64, oneshot::Sender<()>)>>,
    }

    impl Sink for Gate {
        async fn deliver(self: Arc<Self>, batch: Batch) -> Batch {
            let (go, gone) = oneshot::channel();
            self.waiting.lock().await.send((batch.number, go)).await.expect("the test listens");
            gone.await.expect("the test lets it go");
            batch
        }

        fn at_once(&self) -> usize {
            self.at_once
        }
    }

    #[tokio::test]
    async fn batches_are_confirmed_as_they_are_done_and_the_last_one_ends_it() {
        let (waiting, mut arrivals) = mpsc::channel(10);
        let sink = Arc::new(Gate { at_once: 2, waiting: Mutex::new(waiting) });
        let (mail, mailbox) = mailbox().expect("an eventfd");
        let (batches, queue) = mpsc::channel(3);
        for number in 0..3 {
            batches.send(Batch::numbered(number)).await.expect("room");
        }
        drop(batches);
        let shipper = tokio::spawn(run(sink, queue, mail));
        let (first, second) = (arrivals.recv().await.expect("0"), arrivals.recv().await.expect("1"));
        tokio::task::yield_now().await;
        assert!(arrivals.try_recv().is_err(), "two at once");
        second.1.send(()).expect("it waits");
        let third = arrivals.recv().await.expect("2");
        first.1.send(()).expect("it waits");
        third.1.send(()).expect("it waits");
        shipper.await.expect("it ends");
        let numbers: Vec<u64> = std::iter::from_fn(|| mailbox.take())
            .map(|mail| match mail {
                Mail::Confirmed(batch) => batch.number,
                other => unreachable!("{other:?}"),
            })
            .collect();
        assert_eq!(numbers[0], second.0);
        assert_eq!(numbers.len(), 3);
    }
}
