//! The DaemonSet on many nodes, which kwok plays: no agent runs, but the control plane does what it does with as many real ones.
//!
//! `FLEET_NODES=1000` is a large one; 100 are enough to see that nothing is wrong.

use std::{env, fmt::Write as _, net::TcpListener, path::Path, process::Command, time::Instant};

use serde_json::{Value, json};

use crate::{
    node::NAMESPACE,
    plane::{Admin, has, program, run_until_eof, script},
    support::{repository, same, seconds, wait_until},
};

const PROGRAMS: &[&str] =
    &["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok", "kubectl", "helm"];

fn fake(name: &str, labels: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": labels, "annotations": {"kwok.x-k8s.io/node": "fake"}},
        // As it is on a node that has just been lost.
        "spec": {"taints": [{"key": "example.com/broken", "effect": "NoSchedule"}]},
    })
}

/// The first of six free ports in a row, below those that the kernel gives to whoever asks for any.
fn six_ports() -> u16 {
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let mut rows = (20_000..30_000).step_by(6);
    rows.find(|first| (*first..*first + 6).all(is_free)).expect("six free ports")
}

/// Waits until every node has a ready pod of this revision; the most that were missing at once.
#[track_caller]
fn wait_for(admin: &Admin, nodes: u64, generation: u64) -> u64 {
    let mut worst = 0;
    wait_until("every node has its agent", seconds(900), || {
        let set = admin.get(&["daemonset", "nodewarden", "--namespace", NAMESPACE])?;
        let status = |name: &str| set["status"][name].as_u64().unwrap_or_default();
        if status("observedGeneration") < generation {
            return Err("nobody has looked".into());
        }
        worst = worst.max(nodes - status("numberAvailable").min(nodes));
        let names = ["desiredNumberScheduled", "numberReady", "updatedNumberScheduled", "numberAvailable"];
        same(&names.map(status), &[nodes; 4])?;
        same(&status("numberMisscheduled"), &0)
    });
    worst
}

#[test]
fn many_nodes_get_it_roll_it_over_and_roll_it_back() {
    if !has(PROGRAMS) {
        return;
    }
    let nodes: u64 = env::var("FLEET_NODES").map_or(100, |nodes| nodes.parse().expect("a number"));
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fleet");
    let mut plane = Command::new(script("control-plane.sh"));
    plane.arg("run").arg(&dir).env("WITH", "kcm sched kwok").env("PORT", six_ports().to_string());
    let mut plane = run_until_eof(&mut plane);
    let admin = Admin::of(&dir);
    let mut all = String::new();
    for number in 0..nodes {
        writeln!(all, "---\n{}", fake(&format!("node-{number}"), &json!({"kubernetes.io/os": "linux"})))
            .expect("a text");
    }
    for (name, labels) in [
        ("windows", json!({"kubernetes.io/os": "windows"})),
        ("virtual", json!({"kubernetes.io/os": "linux", "type": "virtual-kubelet"})),
    ] {
        writeln!(all, "---\n{}", fake(name, &labels)).expect("a text");
    }
    let start = Instant::now();
    let say = |what: &str| eprintln!("{:>4} s: {what}", start.elapsed().as_secs());
    admin.kubectl(&["create", "namespace", NAMESPACE]).expect("made");
    let label = "pod-security.kubernetes.io/enforce=privileged";
    admin.kubectl(&["label", "namespace", NAMESPACE, label]).expect("labelled");
    admin.create(&all);
    say(&format!("{nodes} nodes, and two that are not for it"));

    // A large fleet as the chart does it; a small one without the pause after each step.
    let pause = if nodes < 1000 { "--set=minReadySeconds=1" } else { "--set=minReadySeconds=10" };
    let install =
        ["upgrade", "--install", "nodewarden", "charts/nodewarden", "--namespace", NAMESPACE, pause];
    admin.helm(&install).expect("installed");
    wait_for(&admin, nodes, 1);
    say("each has its agent");
    admin.helm(&[&install[..], &["--set=podAnnotations.revision=two"]].concat()).expect("changed");
    let worst = wait_for(&admin, nodes, 2);
    say(&format!("rolled over, {worst} without an agent at most"));
    assert!(worst * 10 <= nodes, "{worst} of {nodes} at once");
    admin.helm(&["rollback", "nodewarden", "--namespace", NAMESPACE]).expect("rolled back");
    let worst = wait_for(&admin, nodes, 3);
    say(&format!("rolled back, {worst} without an agent at most"));
    assert!(worst * 10 <= nodes, "{worst} of {nodes} at once");

    let path = format!(
        "{}:{}",
        program("kubectl").parent().expect("a folder").display(),
        env::var("PATH").unwrap_or_default()
    );
    let health = Command::new(repository().join("charts/nodewarden/fleet-health.sh"))
        .args(["-n", NAMESPACE])
        .env("KUBECONFIG", &admin.kubeconfig)
        .env("PATH", path)
        .output()
        .expect("the script runs");
    let said = String::from_utf8_lossy(&health.stdout).into_owned();
    assert_eq!(said, format!("desired={nodes} ready={nodes} updated={nodes} misscheduled=0\n"));
    drop(plane.stdin.take());
    plane.wait().expect("its end");
}
