//! The log path on one screen: files in, confirmed positions back.
//!
//! ```text
//! reader thread: discover -> tail -> format -> join -> (process) -> shape -> batch --+
//!                   ^                                                                | the one bounded queue
//!                   | confirmed batches                                              v
//!                ack -> checkpoint  <-------------------------------------  ship -> sink (Elasticsearch or the local store)
//! ```
//! Everything in the reader is plain calls in one thread. There are as many places in the queue as batches, and a fixed
//! number of batches: when all are on their way, reading stops, and the files are the buffer. What vanishes meanwhile goes
//! into the spill and is read from there.

pub mod ack;
pub mod batch;
pub mod canary;
pub mod checkpoint;
pub mod dead_letters;
pub mod discover;
pub mod elastic;
pub mod feed;
pub mod feed_fields;
pub mod file;
pub mod format;
pub mod gzip;
pub mod index;
pub mod join;
pub mod journal;
pub mod kernel;
pub mod local;
pub mod mail;
pub mod multiline;
pub mod output;
pub mod pod_fields;
pub mod process;
pub mod queue;
pub mod reader;
pub mod record;
pub mod shape;
pub mod ship;
pub mod spill;
pub mod spiller;
pub mod status;
pub mod table;
pub mod tail;
pub mod turn;
pub mod watcher;

use std::{io, sync::Arc, thread, time::Duration};

use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

use self::{
    mail::{Mail, Sender, mailbox},
    reader::{Options, Reader},
    ship::Sink,
};
use crate::metrics::own::LogMetrics;

/// How long the reader may take to write the positions at the end.
const READER_PATIENCE: Duration = Duration::from_secs(1);

/// The running log path.
pub struct Pipeline {
    reader: thread::JoinHandle<()>,
    shipper: JoinHandle<()>,
    /// For questions to the reader.
    pub mail: Sender,
}

/// Starts reading and shipping; inside a tokio runtime. `ready` is called once the first look around is over.
pub fn start<S: Sink>(
    options: Options,
    sink: Arc<S>,
    metrics: LogMetrics,
    ready: impl FnOnce() + Send + 'static,
) -> io::Result<Pipeline> {
    let (mail, mailbox) = mailbox()?;
    let (batches, queue) = mpsc::channel(options.batch.buffers);
    let reader = Reader::new(options, batches, mailbox, metrics, Box::new(ready));
    let reader = thread::Builder::new().name("reader".into()).spawn(move || reader.run())?;
    let shipper = tokio::spawn(ship::run(sink, queue, mail.clone()));
    Ok(Pipeline { reader, shipper, mail })
}

impl Pipeline {
    /// Reads no more, waits for what is in flight until `patience` is over, writes the positions. For a process that ends.
    pub async fn stop(mut self, patience: Duration) {
        self.settle(patience).await;
        match timeout(READER_PATIENCE, tokio::task::spawn_blocking(move || self.reader.join())).await {
            Ok(Ok(Ok(()))) => {}
            Ok(_) => tracing::error!(
                "the reader ended badly: lines since the last positions will be sent again at the next start"
            ),
            Err(_) => tracing::error!(
                "the disk does not answer: lines since the last positions will be sent again at the next start"
            ),
        }
    }

    /// The same for a process that goes on: afterwards nothing of it runs any more, and another one may begin where it left
    /// off. A disk that does not answer is waited for, as the reader would.
    pub async fn end(mut self, patience: Duration) {
        self.settle(patience).await;
        if !matches!(tokio::task::spawn_blocking(move || self.reader.join()).await, Ok(Ok(()))) {
            tracing::error!("the reader ended badly: lines since the last positions are sent again");
        }
    }

    async fn settle(&mut self, patience: Duration) {
        self.mail.send(Mail::Stop);
        if timeout(patience, &mut self.shipper).await.is_err() {
            tracing::warn!("not everything in flight was confirmed in time: it will be sent again");
            self.shipper.abort();
            // It was aborted: what it says of that is known.
            let _ = (&mut self.shipper).await;
        }
        self.mail.send(Mail::Finish);
    }
}
