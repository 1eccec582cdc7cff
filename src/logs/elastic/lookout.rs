//! Looks for the canary's lines: how long it takes until what was written can be found.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::Method;
use serde_json::json;
use tokio::{sync::mpsc, time::sleep};

use super::{
    Elastic,
    client::{Body, Call},
};
use crate::{
    logs::{canary::Settled, output::wall_clock},
    metrics::own::CanaryMetrics,
};

/// What was confirmed is found after the index's next refresh, which comes each second where nobody said otherwise.
const FIRST_LOOK: Duration = Duration::from_secs(1);
/// Then it counts as not found; the next one is on its way.
const PATIENCE: Duration = Duration::from_secs(50);
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// What a look brought.
enum Seen {
    Found,
    NotYet,
    /// Who the agent is may write and not read.
    Forbidden,
}

impl Elastic {
    /// Looks for each line that was confirmed, one after the other, until nobody sends any more.
    pub async fn look_out(self: Arc<Self>, mut settled: mpsc::Receiver<Settled>, metrics: CanaryMetrics) {
        let mut said = false;
        while let Some(line) = settled.recv().await {
            let confirmed = seconds_since(line.time);
            match self.find(&line).await {
                Seen::Found => metrics.delivered(seconds_since(line.time)),
                Seen::NotYet => metrics.failed.inc(),
                Seen::Forbidden => {
                    if !std::mem::replace(&mut said, true) {
                        tracing::info!(
                            index = line.index,
                            "the canary's lines can't be read with these privileges: their time is taken until they are confirmed"
                        );
                    }
                    metrics.delivered(confirmed);
                }
            }
        }
    }

    async fn find(&self, line: &Settled) -> Seen {
        let Some(id) = &line.id else { return Seen::Forbidden };
        let query = json!({"size": 1, "_source": false, "query": {"ids": {"values": [id]}}}).to_string();
        let call = Call {
            method: Method::POST,
            path: format!("/{}/_search?filter_path=hits.hits._id", line.index),
            body: Some(Body { bytes: Bytes::from(query), kind: "application/json", is_gzip: false }),
            patience: ANSWER_PATIENCE,
        };
        let (started, mut wait) = (Instant::now(), FIRST_LOOK);
        while started.elapsed() < PATIENCE {
            sleep(wait).await;
            wait *= 2;
            match self.client.ask(&call).await {
                Ok(response) if response.status.as_u16() == 403 => return Seen::Forbidden,
                Ok(response) if response.status.is_success() => {
                    let is_there = serde_json::from_slice::<serde_json::Value>(&response.body)
                        .is_ok_and(|answer| answer["hits"]["hits"][0]["_id"] == id.as_str());
                    if is_there {
                        return Seen::Found;
                    }
                }
                // It may be better in a moment.
                Ok(_) | Err(_) => {}
            }
        }
        Seen::NotYet
    }
}

fn seconds_since(time: i64) -> f64 {
    (wall_clock() - time).max(0) as f64 / 1e9
}
