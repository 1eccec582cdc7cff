//! One batch until the last of its documents is settled.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Elastic,
    answer::{Answer, Verdict},
    lessons::Known,
    repair::{Blame, repaired},
};
use crate::{
    backoff::{Backoff, seed},
    logs::{
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
/// Repaired documents of one request take about this much memory at most; the others have one of their own.
const REPAIRED_BYTES: usize = 512 << 10;
/// Fields of one document that are repaired: more of them are no slip.
const REPAIRED_FIELDS: usize = 8;

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
    /// What was refused in items that are sent again without it.
    repairs: HashMap<usize, Repair>,
}

/// What is wrong with an item, as far as the server said it.
#[derive(Debug, Clone)]
struct Repair {
    /// The fields that become text.
    fields: Vec<String>,
    /// Why it was refused first.
    reason: String,
}

impl Delivery {
    /// Of the batch with this number.
    pub fn new(sink: Arc<Elastic>, number: u64) -> Self {
        let backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT, seed());
        let (dead, held, repairs) = (Vec::new(), Vec::new(), HashMap::new());
        Self { sink, number, backoff, dead, held, repairs }
    }

    /// Sends what is not settled again and again.
    pub async fn run(mut self, mut batch: Batch) -> Batch {
        // Groups of items still to be sent, each in one request; a group is split when the server refuses it whole.
        let mut groups = vec![(0..batch.len()).collect::<Vec<_>>()];
        while let Some(mut group) = groups.pop() {
            let (answer, later);
            (batch, group, later) = self.repair(batch, group).await;
            groups.extend((!later.is_empty()).then_some(later));
            (batch, answer) = self.sink.ask(batch, &group).await;
            match answer {
                Answer::AllDone => {
                    self.sink.bulk.items.with_label_values(&["200"]).inc_by(group.len() as u64);
                    self.count_repaired(&batch, group.iter());
                    self.delivered();
                }
                Answer::Items(verdicts) => {
                    let done =
                        group.iter().zip(&verdicts).filter(|(_, (_, verdict))| *verdict == Verdict::Done);
                    self.count_repaired(&batch, done.map(|(item, _)| item));
                    let rest = self.settle(&batch, &group, verdicts).await;
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
        batch.restore();
        self.set_aside(&mut batch);
        self.bury(&mut batch).await;
        if self.sink.state.ok(self.number) {
            tracing::info!("delivering again");
        }
        batch
    }

    /// Acts on each verdict; the items to send again.
    async fn settle(&mut self, batch: &Batch, group: &[usize], verdicts: Vec<(u16, Verdict)>) -> Vec<usize> {
        let (mut rest, mut reason) = (Vec::new(), None);
        let mut is_busy = false;
        for (&item, (status, verdict)) in group.iter().zip(verdicts) {
            self.sink.bulk.items.with_label_values(&[status.to_string().as_str()]).inc();
            match verdict {
                Verdict::Done => {}
                Verdict::Reject(why, blame) => {
                    if self.can_be_repaired(batch, item, &why, blame) {
                        rest.push(item);
                    } else {
                        self.dead.push((item, self.told(item, why)));
                    }
                }
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

    /// Takes note of what is wrong with an item. Whether it can be sent without that; each field is tried once.
    fn can_be_repaired(&mut self, batch: &Batch, item: usize, why: &str, blame: Option<Blame>) -> bool {
        let Some(blame) = blame.filter(|_| self.sink.options.repair) else { return false };
        let (index, document) = split(&batch.body[batch.range(item)]);
        let fields = blame.fields(document);
        if let Blame::Field { name, mapped } = &blame {
            self.sink.lessons.learn(index, name, *mapped, Instant::now());
        }
        let repair =
            self.repairs.entry(item).or_insert_with(|| Repair { fields: Vec::new(), reason: why.to_owned() });
        let known = repair.fields.len();
        for field in fields {
            if repair.fields.len() < REPAIRED_FIELDS && !repair.fields.contains(&field) {
                repair.fields.push(field);
            }
        }
        repair.fields.len() > known
    }

    /// Why an item is a dead letter.
    fn told(&self, item: usize, why: String) -> String {
        match self.repairs.get(&item).filter(|repair| !repair.fields.is_empty()) {
            Some(Repair { fields, reason }) => {
                format!("{reason}; with {} as text: {why}", fields.join(", "))
            }
            None => why,
        }
    }

    /// Makes ready what is sent of these items, and says which of them have to wait for another request.
    async fn repair(&self, mut batch: Batch, mut group: Vec<usize>) -> (Batch, Vec<usize>, Vec<usize>) {
        batch.restore();
        let known = self.sink.lessons.known();
        if !self.sink.options.repair || known.is_empty() && self.repairs.is_empty() {
            return (batch, group, Vec::new());
        }
        let repairs = self.repairs.clone();
        off_thread(move || {
            let later = replace(&mut batch, &mut group, &known, &repairs);
            (batch, group, later)
        })
        .await
    }

    fn count_repaired<'a>(&self, batch: &Batch, items: impl Iterator<Item = &'a usize>) {
        let repaired = items.filter(|item| batch.replacement(**item).is_some()).count();
        self.sink.bulk.repaired.inc_by(repaired as u64);
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

/// Replaces what is known to be refused as it is; the items at the end for which there is no more room.
fn replace(
    batch: &mut Batch,
    group: &mut Vec<usize>,
    known: &Known,
    repairs: &HashMap<usize, Repair>,
) -> Vec<usize> {
    let (mut bytes, now) = (0, Instant::now());
    for at in 0..group.len() {
        let item = group[at];
        let written = &batch.body[batch.range(item)];
        let (index, document) = split(written);
        let mut fields = repairs.get(&item).map(|repair| repair.fields.clone()).unwrap_or_default();
        fields.extend(known.refused(index, document, now));
        let Some(document) = (!fields.is_empty()).then(|| repaired(document, &fields)).flatten() else {
            continue;
        };
        if bytes + document.len() > REPAIRED_BYTES && bytes > 0 {
            return group.split_off(at);
        }
        bytes += document.len();
        let end = written.iter().position(|&byte| byte == b'\n').unwrap_or(written.len());
        let item_bytes = [&written[..end], b"\n", &document, b"\n"].concat();
        batch.replace(item, item_bytes);
    }
    Vec::new()
}

/// The index and the document of an item, which the agent itself wrote.
fn split(item: &[u8]) -> (&str, &[u8]) {
    const BEFORE_INDEX: &[u8] = b"{\"create\":{\"_index\":\"";
    let end = memchr::memchr(b'\n', item).unwrap_or(item.len());
    let (action, document) = item.split_at(end);
    let index = action.strip_prefix(BEFORE_INDEX).and_then(|rest| rest.split(|&byte| byte == b'"').next());
    let index = std::str::from_utf8(index.unwrap_or_default()).unwrap_or_default();
    (index, document.trim_ascii())
}
