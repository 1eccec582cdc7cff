//! The faults of a real Elasticsearch, with files that rotate and kill -9 of the agent on top: count = distinct = written, and
//! the ledger's sum is exact.

use std::{thread, time::Duration};

use rustix::process::Signal;
use serde_json::json;

use crate::{
    elastic::{assert_same_texts, shipping},
    support::{Agent, Elastic, Kubelet, Load, LogDir, assert_ledger, seconds, wait_until},
};

const LOAD: Load = Load { bytes_per_second: 100_000, rotate_at: 30_000, ..Load::SHORT };

/// Pods that write, an agent that ships, and the index that it goes to.
struct Run<'a> {
    elastic: &'a Elastic,
    index: String,
    agent: Agent,
    kubelet: Kubelet,
    _logs: LogDir,
}

impl<'a> Run<'a> {
    fn start(elastic: &'a Elastic, name: &str) -> Self {
        let logs = LogDir::new();
        let (config, index) = shipping(&logs, elastic, name);
        let kubelet = Kubelet::start(&logs, LOAD);
        Self { elastic, index, agent: Agent::start(&config, &[]), kubelet, _logs: logs }
    }

    #[track_caller]
    fn wait_for_documents(&self) {
        wait_until("documents arrive", seconds(60), || match self.elastic.count(&self.index)? {
            0 => Err(self.agent.log()),
            _ => Ok(()),
        });
    }

    /// Waits until the agent was told this often.
    #[track_caller]
    fn wait_for(&self, metric: &str, label: &str) {
        wait_until(&format!("{metric} {label}"), seconds(60), || {
            if self.agent.metric(metric, &[label]) > 0.0 { Ok(()) } else { Err(self.agent.log()) }
        });
    }

    fn kill_the_agent(&mut self) {
        self.agent.kill_9();
        thread::sleep(Duration::from_millis(200));
        self.agent.start_again();
    }

    /// All is well again.
    #[track_caller]
    fn finish(self) {
        let written = self.kubelet.stop();
        assert!(written.rotations > 0, "nothing was rotated");
        assert_same_texts(self.elastic, &self.index, written.lines(), written.texts(), || self.agent.log());
        assert_ledger(&self.agent);
    }
}

/// A bulk that the agent waits for in vain is carried out later: it or its repeat is refused with 409. Killed, it is away for
/// longer than the agent.
#[test]
fn stopped_and_continued_then_killed_and_started_again() {
    let elastic = Elastic::start("");
    let mut run = Run::start(&elastic, "away");
    run.wait_for_documents();
    elastic.signal(Signal::STOP);
    thread::sleep(Duration::from_secs(2));
    run.kill_the_agent();
    thread::sleep(Duration::from_secs(1));
    elastic.signal(Signal::CONT);
    run.wait_for("nodewarden_bulk_requests_total", "ok");
    elastic.kill_9();
    run.kill_the_agent();
    run.wait_for("nodewarden_bulk_requests_total", "retry");
    assert_eq!(run.agent.get("/metrics?collect[]=loadavg").status, 200, "metrics are served meanwhile");
    elastic.start_again();
    run.finish();
}

/// First each document is refused, in requests that were halved until they fitted; then each request, for the limit counts
/// what is coordinated at once, and none of the usual size gets through.
#[test]
fn too_large_with_413_then_refused_in_part_and_whole_by_indexing_pressure() {
    let elastic =
        Elastic::start("http.max_content_length: 64kb\nindexing_pressure.memory.primary.limit: 4kb\n");
    let mut run = Run::start(&elastic, "pressure");
    run.wait_for("nodewarden_bulk_requests_total", "refused");
    run.wait_for("nodewarden_bulk_items_total", "\"429\"");
    run.kill_the_agent();
    run.wait_for("nodewarden_bulk_items_total", "\"429\"");
    elastic.kill_9();
    elastic.set("indexing_pressure.memory.coordinating.limit: 4kb\n");
    elastic.start_again();
    run.kill_the_agent();
    run.wait_for("nodewarden_bulk_requests_total", "retry");
    elastic.kill_9();
    elastic.set("");
    elastic.start_again();
    run.finish();
}

#[test]
fn blocked_by_the_flood_stage() {
    blocked("read_only_allow_delete", "\"429\"");
}

#[test]
fn read_only_by_a_write_block() {
    blocked("write", "\"403\"");
}

fn blocked(block: &str, status: &str) {
    let elastic = Elastic::shared();
    let mut run = Run::start(elastic, &block.replace('_', "-"));
    run.wait_for_documents();
    let path = format!("/{}/_settings", run.index);
    let name = format!("index.blocks.{block}");
    elastic.put(&path, &json!({&name: true}));
    run.wait_for("nodewarden_bulk_items_total", status);
    run.kill_the_agent();
    run.wait_for("nodewarden_bulk_items_total", status);
    elastic.put(&path, &json!({&name: null}));
    run.finish();
}
