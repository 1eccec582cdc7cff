//! One bulk request: its body out of a batch, its answer judged.

use std::{
    sync::{Arc, MutexGuard, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use hyper::Method;

use super::{
    Elastic,
    answer::{Answer, FILTER_PATH, judge},
    client::{Body, Call},
};
use crate::logs::{
    batch::Batch,
    gzip::Packer,
    ship::off_thread,
    status::{Obstacle, Reason},
};

impl Elastic {
    /// Sends these items in one request, when there may be one more.
    pub async fn ask(&self, mut batch: Batch, group: &[usize]) -> (Batch, Answer) {
        let _pass = self.window.enter().await;
        if self.options.compression > 0 {
            return self.ask_packed(batch, group).await;
        }
        if group.len() < batch.len() || !batch.is_as_written() {
            let body = pieces(&batch, group).collect::<Vec<_>>().concat();
            return (batch, self.send_plain(body.into(), group.len()).await);
        }
        let lent = Lent(Arc::new(std::mem::take(&mut batch.body)));
        let answer = self.send_plain(Bytes::from_owner(lent.clone()), group.len()).await;
        batch.body = lent.take_back();
        (batch, answer)
    }

    async fn ask_packed(&self, batch: Batch, group: &[usize]) -> (Batch, Answer) {
        let (mut packer, items) = (self.idle_packer(), group.to_vec());
        let (batch, mut packer, packed) = off_thread(move || {
            let packed = packer.pack(pieces(&batch, &items));
            (batch, packer, packed)
        })
        .await;
        let answer = match packed {
            Ok(()) => {
                let lent = Lent(Arc::new(std::mem::take(&mut packer.packed)));
                let answer = self.send(Bytes::from_owner(lent.clone()), true, group.len()).await;
                packer.packed = lent.take_back();
                answer
            }
            Err(error) => Answer::Retry(Reason::new(Obstacle::Refused, error.to_string())),
        };
        self.packers().push(packer);
        (batch, answer)
    }

    /// As [`Self::send`], as it is.
    pub async fn send_plain(&self, bytes: Bytes, documents: usize) -> Answer {
        self.send(bytes, false, documents).await
    }

    /// Sends one request and judges what comes back, whatever that is.
    async fn send(&self, bytes: Bytes, is_gzip: bool, documents: usize) -> Answer {
        let started = Instant::now();
        let call = Call {
            method: Method::POST,
            path: format!("/_bulk?filter_path={FILTER_PATH}"),
            body: Some(Body { bytes, kind: "application/x-ndjson", is_gzip }),
            patience: self.options.answer_timeout,
        };
        let answer = match self.client.ask(&call).await {
            Ok(response) => judge(response.status.as_u16(), &response.body, documents),
            Err(reason) => Answer::Retry(reason),
        };
        self.bulk.duration.observe(started.elapsed().as_secs_f64());
        self.bulk.requests.with_label_values(&[outcome(&answer)]).inc();
        self.advise(answer)
    }

    /// Says what to do about a refusal of the agent itself.
    fn advise(&self, answer: Answer) -> Answer {
        match answer {
            Answer::Hold(Reason { obstacle: Obstacle::Unauthorized, text }) => {
                let text = format!("{text}: {}", self.client.remedy());
                Answer::Hold(Reason { obstacle: Obstacle::Unauthorized, text })
            }
            answer => answer,
        }
    }

    fn idle_packer(&self) -> Packer {
        self.packers().pop().unwrap_or_else(|| Packer::new(self.options.compression))
    }

    fn packers(&self) -> MutexGuard<'_, Vec<Packer>> {
        self.packers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes that a request carries while it is on its way; its buffer is used again.
#[derive(Clone)]
struct Lent(Arc<Vec<u8>>);

impl Lent {
    /// A connection that was answered before it had sent everything may still hold the bytes: then they are copied.
    fn take_back(self) -> Vec<u8> {
        Arc::try_unwrap(self.0).unwrap_or_else(|shared| shared.to_vec())
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn pieces<'a>(batch: &'a Batch, group: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    // Items lie side by side: runs of them are one piece.
    let is_other = |item: &usize| batch.replacement(*item).is_some();
    group.chunk_by(move |left, right| left + 1 == *right && !is_other(left) && !is_other(right)).filter_map(
        |run| {
            let (first, last) = (run.first()?, run.last()?);
            Some(match batch.replacement(*first) {
                Some(replacement) => replacement,
                None => &batch.body[batch.range(*first).start..batch.range(*last).end],
            })
        },
    )
}

fn outcome(answer: &Answer) -> &'static str {
    match answer {
        Answer::AllDone => "ok",
        Answer::Items(_) => "partial",
        Answer::Retry(_) => "retry",
        Answer::Hold(_) => "hold",
        Answer::Split(_) => "refused",
    }
}
