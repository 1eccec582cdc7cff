//! What pods use, from real control groups of this machine, by the names of their logs alone and with what the cluster says.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::json;

use crate::support::{
    Agent, ApiServer, BulkServer, LogDir, NO_LOGS, pods_config, same, seconds, temp_dir, wait_until,
};

const UID: &str = "0b9c1d2e-3f40-4a51-8b62-7c83d94ea5f6";
const ID: &str = "b1111111111111111111111111111111111111111111111111111111111111bb";
const SANDBOX: &str = "a0000000000000000000000000000000000000000000000000000000000000aa";

/// The control groups of a kubelet's, made for a test in every hierarchy there is.
struct Pods {
    /// What tells them from those of other tests.
    name: String,
    tops: Vec<PathBuf>,
    processes: Vec<Child>,
}

impl Pods {
    /// `None`, and a line that says so, where this machine does not let the test make them.
    fn make(test: &str) -> Option<Self> {
        let root = Path::new("/sys/fs/cgroup");
        let name = format!("nodewarden-{test}-{}", std::process::id());
        let mut pods = Self { name: name.clone(), tops: Vec::new(), processes: Vec::new() };
        let hierarchies = if root.join("cgroup.controllers").exists() {
            vec![root.to_owned()]
        } else {
            ["cpu", "cpuacct", "memory", "blkio", "pids"].map(|controller| root.join(controller)).into()
        };
        for hierarchy in hierarchies {
            let top = hierarchy.join(&name);
            for id in [ID, SANDBOX] {
                if fs::create_dir_all(top.join(format!("kubepods/burstable/pod{UID}/{id}"))).is_err() {
                    eprintln!("SKIPPED: no control groups can be made here");
                    return None;
                }
            }
            // Version 2 counts only what it is told to.
            for level in ["", "kubepods", "kubepods/burstable", &format!("kubepods/burstable/pod{UID}")] {
                let _ = fs::write(top.join(level).join("cgroup.subtree_control"), "+cpu +memory +io +pids");
            }
            pods.tops.push(top);
        }
        Some(pods)
    }

    /// The series of a page that are of these.
    fn series<'a>(&self, page: &'a str) -> Vec<&'a str> {
        let id = format!("id=\"/{}/", self.name);
        page.lines().filter(|line| line.contains(&id)).collect()
    }

    /// The value of the only series of a family.
    fn value(&self, page: &str, family: &str) -> Result<f64, String> {
        let series = self.series(page);
        let found =
            series.iter().filter(|line| line.strip_prefix(family).is_some_and(|rest| rest.starts_with('{')));
        match found.collect::<Vec<_>>()[..] {
            [line] => line.rsplit(' ').next().and_then(|value| value.parse().ok()).ok_or(line.to_string()),
            _ => Err(format!("not one {family} in\n{}", series.join("\n"))),
        }
    }

    /// Starts a script in the control groups of `id`.
    fn run(&mut self, id: &str, script: &str) {
        let groups =
            self.tops.iter().map(|top| top.join(format!("kubepods/burstable/pod{UID}/{id}/cgroup.procs")));
        let enter: String = groups.map(|file| format!("echo $$ > {} && ", file.display())).collect();
        let script = format!("{enter}{script}");
        let child = Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).spawn();
        self.processes.push(child.expect("a shell"));
    }

    /// All of it goes.
    fn end(&mut self) {
        for mut process in self.processes.drain(..) {
            // It may have ended: then there is nothing to kill, and that is fine.
            let _ = process.kill();
            let _ = process.wait();
        }
        for top in self.tops.drain(..) {
            remove(&top);
        }
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        self.end();
    }
}

/// Control groups go from the lowest up; their files go with them.
fn remove(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove(&entry.path());
        }
    }
    if let Err(error) = fs::remove_dir(directory) {
        eprintln!("{} stays: {error}", directory.display());
    }
}

/// A root whose logs name the container.
fn root() -> tempfile::TempDir {
    let root = temp_dir();
    let links = root.path().join("var/log/containers");
    fs::create_dir_all(&links).unwrap();
    fs::write(links.join(format!("cart-1_shop_app-{ID}.log")), "").unwrap();
    root
}

fn flags(root: &Path) -> [String; 3] {
    let root = format!("--path.rootfs={}", root.display());
    ["--collector.disable-defaults".into(), "--collector.pods".into(), root]
}

#[test]
fn this_kernels_control_groups_are_said_by_the_names_of_logs() {
    let Some(mut pods) = Pods::make("groups") else { return };
    pods.run(ID, "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; exec sleep 1000");
    pods.run(SANDBOX, "exec unshare -n sleep 1000");
    let root = root();
    let flags = flags(root.path());
    let agent = Agent::start(NO_LOGS, &flags.each_ref().map(String::as_str));
    let page = wait_until("the container has counted and sleeps", seconds(60), || {
        let page = agent.get("/metrics").text();
        let used = pods.value(&page, "container_cpu_usage_seconds_total")?;
        let is_named = |line: &&&str| line.contains("container=\"app\"") && line.contains("pod=\"cart-1\"");
        let named = pods.series(&page).iter().filter(is_named).count();
        same(&named, &pods.series(&page).len())?;
        if used > 0.02 { Ok(page) } else { Err(format!("{used} s of CPU time")) }
    });
    assert!(page.contains("node_scrape_collector_success{collector=\"pods\"} 1\n"), "{page}");
    let value = |family: &str| pods.value(&page, family).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((value("container_processes"), value("container_threads")), (1.0, 1.0));
    let used = value("container_memory_usage_bytes");
    assert!((4096.0..1e9).contains(&used), "{used} bytes");
    assert!(value("container_memory_working_set_bytes") <= used);
    let age = value("container_last_seen") - value("container_start_time_seconds");
    assert!((0.0..600.0).contains(&age), "{age} s old");
    // Its sandbox has nothing but a network, and this one's has nothing but a loopback.
    assert!(!page.contains(SANDBOX), "{page}");
    // The container ends, and so do its series.
    pods.end();
    wait_until("the series end", seconds(30), || same(&pods.series(&agent.get("/metrics").text()).len(), &0));
}

#[test]
fn images_are_the_clusters_to_tell() {
    let Some(api) = ApiServer::start() else { return };
    let Some(mut pods) = Pods::make("images") else { return };
    pods.run(ID, "exec sleep 1000");
    let (logs, sink) = (LogDir::new(), BulkServer::start(1));
    api.make_pod("cart-1", "node-1", &json!({}));
    let status = json!({"status": {"containerStatuses": [{
        "name": "app", "image": "shop/cart:3", "imageID": "", "ready": true, "restartCount": 0,
        "containerID": format!("containerd://{ID}"), "state": {"running": {}},
    }]}});
    api.change("/api/v1/namespaces/shop/pods/cart-1/status", &status);
    let config = format!(
        "{}{}elasticsearch:\n  hosts: ['{}']\n",
        api.config("node-1"),
        pods_config(&logs),
        sink.url()
    );
    // Without a name in the logs, too.
    let root = temp_dir();
    let flags = flags(root.path());
    let agent = Agent::start(&config, &flags.each_ref().map(String::as_str));
    wait_until("the image is said", seconds(30), || {
        let page = agent.get("/metrics").text();
        pods.value(&page, "container_memory_working_set_bytes")?;
        let whose = "image=\"shop/cart:3\"";
        let is_named = |line: &&str| line.contains(whose) && line.contains("container=\"app\"");
        let series = pods.series(&page);
        if series.iter().all(is_named) { Ok(()) } else { Err(series.join("\n")) }
    });
}
