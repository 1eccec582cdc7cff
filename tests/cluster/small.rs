//! The agent with little memory and little CPU.

use std::{fs, path::Path};

use serde_json::Value;

use crate::{
    documents::assert_each_once,
    installed::{helm_install, log, stream},
    node::{NAMESPACE, node},
    support::Elastic,
};

const PODS: usize = 20;
/// Lines that each writes at once; about 500 KB.
const BURST: u32 = 3000;

#[test]
fn twenty_busy_pods_are_no_trouble_to_64_mib_and_a_tenth_of_a_cpu() {
    let Some(node) = node() else { return };
    let (elastic, index) = (Elastic::shared(), stream("small"));
    let limits = "--set=resources.limits.memory=64Mi,resources.limits.cpu=100m";
    helm_install(&node, elastic, "small", &[limits]);
    node.wait_for_agent();
    let names: Vec<String> = (1..=PODS).map(|number| format!("busy-{number}")).collect();
    for name in &names {
        node.start_writer(name, BURST);
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let all = [&["wait", "--for=condition=Ready", "--namespace=shop", "--timeout=120s", "pod"][..], &names]
        .concat();
    node.kubectl(&all).expect("they run");
    node.delete_writers(&names);
    let lines = assert_each_once(elastic, &index, &names, || log(&node));
    let pod = node.wait_for_agent();
    let status = &pod["status"]["containerStatuses"][0];
    assert_eq!(
        (&status["restartCount"], &status["lastState"]),
        (&0.into(), &serde_json::json!({})),
        "{status}"
    );
    for pid in node.agents() {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its cgroups");
        let group = groups.lines().find_map(|line| line.split_once(":memory:")).expect("a memory cgroup").1;
        let peak = fs::read_to_string(
            Path::new("/sys/fs/cgroup/memory").join(&group[1..]).join("memory.max_usage_in_bytes"),
        );
        eprintln!(
            "{lines} lines of {PODS} pods; at most {} bytes with the page cache",
            peak.expect("a number").trim()
        );
    }
}
