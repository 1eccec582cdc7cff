//! One real node with its control plane, as `tests/servers/kubernetes/node.sh` starts it, and the pods on it.

use std::{
    fs, io,
    net::{Shutdown, TcpListener, TcpStream},
    ops::Deref,
    path::{Path, PathBuf},
    process::{Child, Command, Output},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
};

use serde_json::{Value, json};

use crate::{
    plane::{Admin, has, run_until_eof, script},
    support::{http, repository, seconds, wait_until},
};

/// Where the agent runs, and where its lines come from.
pub const NAMESPACE: &str = "nodewarden";
/// What `make test-cluster` installs.
const PROGRAMS: &[&str] =
    &["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubectl", "helm"];

/// The node, which is up until this process ends.
pub struct Node {
    admin: Admin,
    dir: PathBuf,
    number: u32,
    /// It ends with its standard input.
    _program: Child,
}

/// The node while a test has it to itself.
pub struct Turn {
    node: &'static Node,
    _alone: MutexGuard<'static, ()>,
}

impl Deref for Turn {
    type Target = Node;
    fn deref(&self) -> &Node {
        self.node
    }
}

/// The node with nothing on it; `None`, and a line that says why, where this machine can't run one.
pub fn node() -> Option<Turn> {
    static NODE: OnceLock<Option<Node>> = OnceLock::new();
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let node = NODE.get_or_init(Node::start).as_ref()?;
    node.clear();
    Some(Turn { node, _alone: alone })
}

/// Whether this machine can run a node; a line says why not.
fn is_possible() -> bool {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: a node needs root");
        return false;
    }
    if !Path::new("/sys/fs/cgroup/memory/tasks").exists() {
        eprintln!("SKIPPED: this machine has no version 1 cgroups, which node.sh lays out");
        return false;
    }
    has(PROGRAMS)
}

impl Deref for Node {
    type Target = Admin;
    fn deref(&self) -> &Admin {
        &self.admin
    }
}

impl Node {
    fn start() -> Option<Self> {
        if !is_possible() {
            return None;
        }
        let is_free = |number: &u32| !Path::new(&format!("/sys/class/net/nodewarden{number}")).exists();
        let number = (0..10).find(is_free).expect("one of ten nodes is not up already");
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("node-{number}"));
        let mut script_of_node = Command::new(script("node.sh"));
        script_of_node.arg("run").arg(&dir).env("NUMBER", number.to_string());
        let program = run_until_eof(&mut script_of_node);
        let node = Self { admin: Admin::of(&dir), dir, number, _program: program };
        let image = node.dir.join("nodewarden.tar");
        let agent = Path::new(env!("CARGO_BIN_EXE_nodewarden"));
        good(
            &Command::new(script("image.sh"))
                .arg("agent")
                .args([agent, &image])
                .output()
                .expect("image.sh runs"),
        );
        for image in [image, repository().join("target/servers/images/shell.tar")] {
            good(
                &Command::new(script("node.sh"))
                    .arg("image")
                    .args([&node.dir, &image])
                    .output()
                    .expect("loaded"),
            );
        }
        for namespace in [NAMESPACE, "shop"] {
            node.kubectl(&["create", "namespace", namespace]).expect("made");
        }
        let label = "pod-security.kubernetes.io/enforce=privileged";
        node.kubectl(&["label", "namespace", NAMESPACE, label]).expect("labelled");
        // The others get what a careful cluster gives them: an agent in there would not be let in.
        let label = "pod-security.kubernetes.io/enforce=baseline";
        node.kubectl(&["label", "namespace", "shop", label]).expect("labelled");
        Some(node)
    }

    /// Takes everything off the node that a test left there.
    fn clear(&self) {
        for file in fs::read_dir(self.dir.join("node/manifests")).expect("a folder") {
            fs::remove_file(file.expect("a file").path()).expect("removed");
        }
        // What is not there is no failure.
        let _ = self.helm(&["uninstall", "nodewarden", "--namespace", NAMESPACE]);
        let _ = self.kubectl(&[
            "delete",
            "--ignore-not-found",
            "--filename=deploy/nodewarden.yaml",
            "--selector=app.kubernetes.io/name=nodewarden",
        ]);
        for namespace in ["shop", NAMESPACE] {
            let _ = self.kubectl(&["--namespace", namespace, "delete", "pods", "--all", "--wait=true"]);
        }
        wait_until("no agent runs", seconds(60), || match self.agents() {
            agents if agents.is_empty() => Ok(()),
            agents => Err(format!("{agents:?}")),
        });
    }

    /// The node's address; what it offers on ports can be reached from here.
    pub fn address(&self) -> String {
        format!("10.99.{}.1", self.number)
    }

    /// A folder of this machine as the node's pods see it when they mount it.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The address, in the node, of a server that listens on this machine's loopback (`127.0.0.1:PORT`).
    pub fn outside(&self, server: &str) -> String {
        let listener =
            TcpListener::bind((format!("10.99.{}.254", self.number), 0)).expect("the node's cable");
        let address = listener.local_addr().expect("its address").to_string();
        let server = server.to_owned();
        thread::spawn(move || {
            for inner in listener.incoming().map_while(Result::ok) {
                if let Ok(outer) = TcpStream::connect(&server) {
                    join(inner, outer);
                }
            }
        });
        address
    }

    /// Starts a pod in the namespace `shop` that writes lines of its name, `burst` and then some more each half second, until it is
    /// deleted; its last line says how many there were.
    pub fn start_writer(&self, name: &str, burst: u32) {
        let script = format!(
            "trap 'echo \"{name} ends after $i\"; exit 0' TERM; i=0
             while :; do
               echo \"{name} line $i of an order of goods that somebody put into a cart, paid for and has waited for since\"; i=$((i + 1))
               [ $i -lt {burst} ] || [ $((i % 10)) -gt 0 ] || {{ busybox sleep 0.5 & wait $!; }}
             done"
        );
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": name, "namespace": "shop",
                "labels": {"app": "cart", "app.kubernetes.io/name": name}, "annotations": {"team/pager": "blue"},
            },
            "spec": {
                "terminationGracePeriodSeconds": 20,
                "containers": [{
                    "name": "app", "image": "localhost/shell:1", "imagePullPolicy": "Never", "args": [script],
                }],
            },
        });
        self.apply(&pod.to_string());
    }

    /// Deletes pods of the namespace `shop`, and waits until they are gone.
    #[track_caller]
    pub fn delete_writers(&self, names: &[&str]) {
        self.kubectl(&[&["--namespace=shop", "delete", "pod"], names].concat()).expect("deleted");
    }

    /// The one agent's pod, once it is ready and no other is left.
    #[track_caller]
    pub fn wait_for_agent(&self) -> Value {
        wait_until("one agent is ready", seconds(120), || {
            let pods = self.get(&["pods", "--namespace", NAMESPACE])?;
            let [pod] = pods["items"].as_array().map_or(&[][..], Vec::as_slice) else {
                return Err(format!("{} pods", pods["items"].as_array().map_or(0, Vec::len)));
            };
            let ready = pod["status"]["conditions"]
                .as_array()
                .is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"));
            if ready && self.agents().len() == 1 {
                Ok(pod.clone())
            } else {
                let log = self.kubectl(&[
                    "--namespace",
                    NAMESPACE,
                    "logs",
                    "--all-containers",
                    "--selector=app.kubernetes.io/name=nodewarden",
                ]);
                Err(format!("{}\n{log:?}", pod["status"]))
            }
        })
    }

    /// What the agent says on its port of the node.
    pub fn metrics(&self) -> Result<String, String> {
        let answer = http::get(&format!("{}:9100", self.address()), "/metrics");
        Ok(answer.map_err(|error| error.to_string())?.text())
    }

    /// The pids, out here, of the agents on the node.
    pub fn agents(&self) -> Vec<u32> {
        let group = format!("/nodewarden-node-{}/", self.number);
        let pids = fs::read_dir("/proc").expect("/proc").filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let is_here = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?.contains(&group);
            let exe = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
            (is_here && exe == Path::new("/usr/bin/nodewarden")).then_some(pid)
        });
        pids.collect()
    }

    /// The requests of the agent at the API server that have ended, as `VERB URI STATUS`.
    pub fn requests(&self) -> Vec<String> {
        let log = fs::read_to_string(self.dir.join("state/audit.log")).unwrap_or_default();
        let line = |line: &str| {
            let entry: Value = serde_json::from_str(line).ok()?;
            let text = |name: &str| entry[name].as_str().map(str::to_owned);
            Some(format!("{} {} {}", text("verb")?, text("requestURI")?, entry["responseStatus"]["code"]))
        };
        log.lines().filter_map(line).collect()
    }
}

#[track_caller]
fn good(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Hands on what either side says until both have ended.
fn join(inner: TcpStream, outer: TcpStream) {
    let pairs = [(inner.try_clone(), outer.try_clone()), (Ok(outer), Ok(inner))];
    for (from, to) in pairs {
        thread::spawn(move || {
            if let (Ok(mut from), Ok(mut to)) = (from, to) {
                // However it ends, it has ended.
                let _ = io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Write);
            }
        });
    }
}
