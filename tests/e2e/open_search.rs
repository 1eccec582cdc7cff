//! A real OpenSearch takes the same requests.

use serde_json::json;

use crate::{
    elastic::{Pods, assert_each_once, shipping},
    support::{Agent, Elastic, LogDir, assert_ledger, seconds, wait_until},
};

#[test]
fn lines_arrive_once_and_what_is_blocked_waits() {
    let (elastic, logs) = (Elastic::open_search(), LogDir::new());
    let (config, index) = shipping(&logs, elastic, "open");
    let mut agent = Agent::start(&config, &[]);
    let mut pods = Pods::new(&logs, 3);
    pods.write(200);
    assert_each_once(elastic, &index, &pods.written);
    elastic.put(&format!("/{index}/_settings"), &json!({"index.blocks.write": true}));
    pods.write(100);
    wait_until("it is held", seconds(60), || {
        match agent.metric("nodewarden_elasticsearch_held", &["\"read_only\""]) > 0.0 {
            true => Ok(()),
            false => Err(agent.log()),
        }
    });
    agent.kill_9();
    elastic.put(&format!("/{index}/_settings"), &json!({"index.blocks.write": null}));
    pods.write(100);
    agent.start_again();
    assert_each_once(elastic, &index, &pods.written);
    assert_ledger(&agent);
}
