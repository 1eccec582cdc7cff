//! A line of the agent's own, once a minute: it goes the way of every other line, and is looked for where it has to be.
//!
//! It is a feed of one record a minute, numbered by the minute and known by the node's name, so that its document has an id that
//! can be asked for. The next one comes when the one before is confirmed: while nothing is delivered there is one of them on
//! its way and not a backlog.

use std::{path::Path, time::Instant};

use tokio::sync::mpsc;
use xxhash_rust::xxh3::xxh3_128;

use super::{
    feed::{Event, Feed, Kind, Register},
    feed_fields::{Fields, Slot},
    index::IndexTemplate,
    output::{Output, Taken, wall_clock},
    record::{FileFacts, FileId, Origin, Span},
    shape::{Encoding, offset_digits},
    turn::Ended,
};
use crate::metrics::own::CanaryMetrics;

const MINUTE: i64 = 60_000_000_000;

/// The line was confirmed: it can be looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Its index or data stream.
    pub index: String,
    /// Its `_id`, unless the server makes them.
    pub id: Option<String>,
    /// When it was written, in nanoseconds since the epoch.
    pub time: i64,
}

/// Who looks for it, and where it is counted.
#[derive(Debug, Clone)]
pub struct Lookout {
    /// Hears of each line that was confirmed.
    pub settled: mpsc::Sender<Settled>,
    /// What came of it.
    pub metrics: CanaryMetrics,
}

/// The source.
pub struct Canary {
    lookout: Lookout,
    encoding: Encoding,
    feed: Option<Feed>,
    /// The number and the time of the line that is on its way.
    sent: Option<(u64, i64)>,
    /// The minute in which it was said last that it is still on its way.
    said: i64,
}

impl Canary {
    /// A canary that has not sung yet.
    pub fn new(lookout: Lookout, encoding: Encoding) -> Self {
        Self { lookout, encoding, feed: None, sent: None, said: 0 }
    }

    /// Whether a line is to be sent.
    pub fn look(&mut self, register: &mut Register) -> bool {
        let Encoding::Bulk(bulk) = &self.encoding else { return false };
        let feed = self.feed.get_or_insert_with(|| {
            let id = xxh3_128(bulk.node.as_bytes()).to_be_bytes();
            register.feed(Kind::Canary, &id, Path::new("canary"), &self.encoding).0
        });
        let minute = wall_clock().div_euclid(MINUTE);
        if let Some((number, time)) = self.sent {
            if feed.confirmed_to() > number {
                self.sent = None;
                let index = index_of(&bulk.index, &bulk.node, time);
                let id = bulk.position_ids.then(|| feed.id_of(number));
                // Whoever looks for the one before has a minute for it: then it is not there.
                if self.lookout.settled.try_send(Settled { index, id, time }).is_err() {
                    self.lookout.metrics.failed.inc();
                }
            } else if minute > time.div_euclid(MINUTE) && minute > self.said {
                self.said = minute;
                self.lookout.metrics.failed.inc();
            }
        }
        match self.sent {
            // It was set back, and is read again.
            Some((number, _)) => feed.next <= number,
            None => minute >= 0 && minute as u64 >= feed.next,
        }
    }

    /// Sends the line when it is time.
    pub fn read(&mut self, output: &mut Output, now: Instant) -> Ended {
        let Some(feed) = &mut self.feed else { return Ended::Done };
        let time = wall_clock();
        let minute = u64::try_from(time.div_euclid(MINUTE)).unwrap_or(0);
        let (number, time) = match self.sent {
            Some((number, time)) if feed.next <= number => (number, time),
            None if minute >= feed.next => (minute, time),
            _ => return Ended::Done,
        };
        if feed.is_paused(now) {
            return Ended::Done;
        }
        let mut fields = Fields::default();
        let message = format!("nodewarden canary {number}: this line was sent to see whether lines arrive");
        fields.set(Slot::MESSAGE, message.as_bytes());
        // Nothing between was ever written.
        feed.next = number;
        let event = Event { span: Span { start: number, end: number + 1 }, time, fields: &fields, cut: 0 };
        let taken = feed.take(&event, output, now);
        feed.count_read();
        if taken == Taken::NoRoom {
            return Ended::NoRoom;
        }
        feed.reaches(number + 1, now);
        self.sent = Some((number, time));
        Ended::Done
    }

    /// The feed, once there is one.
    pub fn feed(&self) -> Option<&Feed> {
        self.feed.as_ref()
    }

    /// The same, to be changed.
    pub fn feed_mut(&mut self) -> Option<&mut Feed> {
        self.feed.as_mut()
    }
}

fn index_of(template: &IndexTemplate, node: &str, time: i64) -> String {
    // Who it is does not matter for the name.
    let facts = FileFacts::new(FileId([0; 12]), "canary", Origin::Canary);
    template.of(&facts, node).at(time)
}

/// The `_id` of the record with this number.
pub fn id_of(identity: [u8; 16], number: u64) -> String {
    let digits = [&identity[..], &offset_digits(number)].concat();
    // All of them are ASCII.
    String::from_utf8_lossy(&digits).into_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus::Registry;

    use super::*;
    use crate::{
        logs::{
            batch::{Batch, BatchLimits},
            shape::{BulkEncoding, Schema},
        },
        metrics::own::Own,
    };

    struct Scene {
        canary: Canary,
        register: Register,
        output: Output,
        batches: mpsc::Receiver<Batch>,
        settled: mpsc::Receiver<Settled>,
        metrics: CanaryMetrics,
    }

    fn scene() -> Scene {
        let own = Own::new(Registry::new()).expect("an empty registry");
        let metrics = own.canary().expect("once");
        let encoding = Encoding::Bulk(BulkEncoding {
            index: IndexTemplate::default(),
            schema: Schema::Ecs,
            position_ids: true,
            node: "n1".into(),
        });
        let (sender, settled) = mpsc::channel(1);
        let (queue, batches) = mpsc::channel(3);
        let limits = BatchLimits { max_bytes: 10_000, max_wait: Duration::ZERO, buffers: 3 };
        Scene {
            canary: Canary::new(Lookout { settled: sender, metrics: metrics.clone() }, encoding),
            output: Output::new(limits, queue, 1000, own.logs.clone()),
            register: Register::new(own.logs),
            batches,
            settled,
            metrics,
        }
    }

    impl Scene {
        fn sing(&mut self) -> Option<Batch> {
            let now = Instant::now();
            if self.canary.look(&mut self.register) {
                self.canary.read(&mut self.output, now);
            }
            self.output.close_aged(now, true);
            self.batches.try_recv().ok()
        }
    }

    #[test]
    fn it_is_one_line_until_that_is_confirmed_and_has_the_id_that_is_looked_for() {
        let mut scene = scene();
        let batch = scene.sing().expect("a line");
        assert!(scene.sing().is_none(), "one at a time");
        let body = String::from_utf8(batch.body.clone()).expect("text");
        assert!(
            body.contains("logs-nodewarden.canary-default") && body.contains("nodewarden canary "),
            "{body}"
        );
        assert!(scene.settled.try_recv().is_err(), "it is not confirmed");
        scene.canary.feed_mut().expect("a feed").settled(batch.number, &batch.files[0]);
        scene.canary.look(&mut scene.register);
        let settled = scene.settled.try_recv().expect("confirmed");
        let id = settled.id.expect("an id");
        assert!(body.contains(&format!("\"_id\":\"{id}\"")), "{body}");
        assert_eq!(settled.index, "logs-nodewarden.canary-default");
        assert_eq!(scene.metrics.failed.get(), 0);
    }

    #[test]
    fn what_is_on_its_way_for_more_than_a_minute_is_counted_once_a_minute() {
        let mut scene = scene();
        scene.sing().expect("a line");
        let (number, time) = scene.canary.sent.expect("sent");
        scene.canary.sent = Some((number, time - 2 * MINUTE));
        scene.canary.look(&mut scene.register);
        scene.canary.look(&mut scene.register);
        assert!((1..=2).contains(&scene.metrics.failed.get()));
    }
}
