//! One batch until the last of its documents is settled.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Elastic,
    answer::{Answer, Verdict},
};
use crate::{
    logs::{
        backoff::{Backoff, seed},
        batch::Batch,
        dead_letters::DeadLetter,
        output::wall_clock,
        ship::off_thread,
        status::{Obstacle, Reason},
    },
    store::StoreError,
};

const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// One batch until the last of its documents is settled.
pub struct Delivery {
    sink: Arc<Elastic>,
    /// The batch's number.
    number: u64,
    backoff: Backoff,
    /// Items that were refused for good, and why.
    dead: Vec<(usize, String)>,
    /// Items that the server does not take although nothing is wrong with them, and why.
    held: Vec<(usize, Reason)>,
}

impl Delivery {
    /// Of the batch with this number.
    pub fn new(sink: Arc<Elastic>, number: u64) -> Self {
        let backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT, seed());
        Self { sink, number, backoff, dead: Vec::new(), held: Vec::new() }
    }

    /// Sends what is not settled again and again.
    pub async fn run(mut self, mut batch: Batch) -> Batch {
        // Groups of items still to be sent, each in one request; a group is split when the server refuses it whole.
        let mut groups = vec![(0..batch.len()).collect::<Vec<_>>()];
        while let Some(group) = groups.pop() {
            let answer;
            (batch, answer) = self.sink.ask(batch, &group).await;
            match answer {
                Answer::AllDone => {
                    self.sink.bulk.items.with_label_values(&["200"]).inc_by(group.len() as u64);
                    self.delivered();
                }
                Answer::Items(verdicts) => {
                    let rest = self.settle(&group, verdicts).await;
                    if !rest.is_empty() {
                        groups.push(rest);
                    }
                }
                Answer::Retry(reason) => {
                    self.sink.window.busy();
                    self.wait(&reason).await;
                    groups.push(group);
                }
                // It speaks of no document: whatever else were sent would have the same answer.
                Answer::Hold(reason) => {
                    self.wait(&reason).await;
                    groups.push(group);
                }
                Answer::Split(reason) => match &group[..] {
                    [item] => self.dead.push((*item, reason)),
                    _ => {
                        let (left, right) = group.split_at(group.len() / 2);
                        groups.extend([right.to_vec(), left.to_vec()]);
                    }
                },
            }
        }
        self.set_aside(&mut batch);
        self.bury(&mut batch).await;
        if self.sink.state.ok(self.number) {
            tracing::info!("delivering again");
        }
        batch
    }

    /// Acts on each verdict; the items to send again.
    async fn settle(&mut self, group: &[usize], verdicts: Vec<(u16, Verdict)>) -> Vec<usize> {
        let (mut rest, mut reason) = (Vec::new(), None);
        let mut is_busy = false;
        for (&item, (status, verdict)) in group.iter().zip(verdicts) {
            self.sink.bulk.items.with_label_values(&[status.to_string().as_str()]).inc();
            match verdict {
                Verdict::Done => {}
                Verdict::Reject(why) => self.dead.push((item, why)),
                Verdict::Hold(why) => self.held.push((item, why)),
                Verdict::Retry(why) => {
                    is_busy |= matches!(status, 429 | 500..);
                    rest.push(item);
                    reason = Some(why);
                }
            }
        }
        match reason {
            None => self.delivered(),
            Some(reason) => {
                if is_busy {
                    self.sink.window.busy();
                }
                self.wait(&reason).await;
            }
        }
        rest
    }

    fn delivered(&mut self) {
        self.sink.window.good();
        self.backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT, seed());
        if self.sink.state.ok(self.number) {
            tracing::info!("delivering again");
        }
    }

    /// Says why nothing is delivered, and waits.
    async fn wait(&mut self, reason: &Reason) {
        if self.sink.state.hold(self.number, reason, Instant::now()) {
            tracing::warn!(
                reason = reason.text,
                "log lines wait in their files: the server does not take them"
            );
        }
        let waited = tokio::time::sleep(self.backoff.next_wait());
        match reason.obstacle {
            // A new secret is tried at once.
            Obstacle::Unauthorized | Obstacle::Forbidden | Obstacle::Tls => tokio::select! {
                () = waited => {}
                () = self.sink.client.changed() => {}
            },
            _ => waited.await,
        }
    }

    /// Marks what is held: its files are read again later, so the batch need not wait.
    fn set_aside(&self, batch: &mut Batch) {
        let (state, now) = (&self.sink.state, Instant::now());
        for (item, reason) in &self.held {
            let file = batch.file_of(*item);
            if !std::mem::replace(&mut batch.files[file].held, true)
                && state.set_aside(batch.files[file].key, reason, now)
            {
                let reason = &reason.text;
                tracing::warn!(reason, "log lines wait in their files: the server does not take them");
            }
        }
        for file in batch.files.iter().filter(|file| !file.held) {
            if state.took(file.key) {
                tracing::info!("delivering again");
            }
        }
    }

    /// Keeps refused documents where people find them. Until that has worked they are not settled. Those of a file that is
    /// held come again.
    async fn bury(&mut self, batch: &mut Batch) {
        let mut dead = std::mem::take(&mut self.dead);
        dead.retain(|(item, _)| !batch.files[batch.file_of(*item)].held);
        if dead.is_empty() {
            return;
        }
        let letters: Arc<[DeadLetter]> =
            dead.iter().map(|(item, reason)| DeadLetter::new(batch, *item, reason)).collect();
        let mut next = 0;
        while let Err((reached, error)) = self.keep(Arc::clone(&letters), next).await {
            next = reached;
            let text = format!("could not keep a refused document: {error}");
            self.wait(&Reason::new(Obstacle::Disk, text)).await;
        }
        for (item, reason) in &dead {
            let kind = reason.split([' ', ':']).nth(1).unwrap_or("refused");
            batch.bury(*item, kind);
        }
        tracing::warn!(
            documents = dead.len(),
            reason = dead[0].1,
            "documents were refused and kept as dead letters"
        );
    }

    async fn keep(&self, letters: Arc<[DeadLetter]>, next: usize) -> Result<(), (usize, StoreError)> {
        let dead_letters = self.sink.dead_letters.clone();
        off_thread(move || dead_letters.keep(&letters, next, wall_clock())).await
    }
}
