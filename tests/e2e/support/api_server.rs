//! A real Kubernetes API server with its store, as `tests/servers/install.sh` builds them; nothing else of a cluster.

use std::{
    fs::{self, File},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
};

use rcgen::SanType;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    free_port, repository, seconds, temp_dir,
    tls::{Authority, Client, dns},
    wait_until,
};

const TOKENS: &str =
    "admin-token,admin,admin,system:masters\nagent-token,agent,agent\nnobody-token,nobody,nobody\n";
/// Every request of the agent is written down.
const AUDIT: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules: [{level: Metadata, users: [agent]}, {level: None}]
";

/// One server and its etcd; both end with the value.
pub struct ApiServer {
    dir: TempDir,
    port: u16,
    etcd_port: u16,
    client: Client,
    etcd: Child,
    server: Mutex<Option<Child>>,
}

fn program(name: &str) -> Option<PathBuf> {
    Some(repository().join("target/tools/bin").join(name)).filter(|path| path.is_file())
}

impl ApiServer {
    /// Starts one in which the user `agent` may list and watch pods; `None`, which is said, where it is not built.
    pub fn start() -> Option<Self> {
        let (Some(etcd), Some(_)) = (program("etcd"), program("kube-apiserver")) else {
            eprintln!("left out: no kube-apiserver here, tests/servers/install.sh builds it");
            return None;
        };
        let (dir, port, etcd_port) = (temp_dir(), free_port(), free_port());
        let authority = Authority::new("cluster");
        let identity = authority.vouch(&[dns("localhost"), SanType::IpAddress(Ipv4Addr::LOCALHOST.into())]);
        for (name, text) in [
            ("ca.crt", authority.identity.certificate.pem()),
            ("server.crt", identity.certificate.pem()),
            ("server.key", identity.key.serialize_pem()),
            ("tokens", TOKENS.into()),
            ("audit.yaml", AUDIT.into()),
            ("token", "agent-token\n".into()),
        ] {
            fs::write(dir.path().join(name), text).expect("written");
        }
        let log = File::create(dir.path().join("etcd.log")).expect("a log file");
        let etcd = Command::new(etcd)
            .arg(format!("--data-dir={}", dir.path().join("etcd").display()))
            .args(["--unsafe-no-fsync", "--log-level=warn"])
            .arg(format!("--listen-client-urls=http://127.0.0.1:{etcd_port}"))
            .arg(format!("--advertise-client-urls=http://127.0.0.1:{etcd_port}"))
            .args(["--listen-peer-urls=http://127.0.0.1:0", "--name=one"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log file once more"))
            .stderr(log)
            .spawn()
            .expect("etcd starts");
        let client = Client::new(&authority, None).only_http1();
        let server = Self { dir, port, etcd_port, client, etcd, server: Mutex::new(None) };
        server.start_again();
        server.make("/apis/rbac.authorization.k8s.io/v1/clusterroles", &json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "agent"},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}],
        }));
        server.make("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "agent"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "agent"},
            "subjects": [{"kind": "User", "name": "agent", "apiGroup": "rbac.authorization.k8s.io"}],
        }));
        server.make("/api/v1/namespaces", &json!({"metadata": {"name": "shop"}}));
        Some(server)
    }

    /// Starts it again after [`kill_9`](Self::kill_9), with the same objects on the same port.
    pub fn start_again(&self) {
        let here = |name: &str| self.dir.path().join(name).display().to_string();
        let log = File::options().create(true).append(true).open(here("log")).expect("a log file");
        let child = Command::new(program("kube-apiserver").expect("it was there"))
            .arg(format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port))
            .args(["--bind-address=127.0.0.1", "--endpoint-reconciler-type=none"])
            .arg(format!("--secure-port={}", self.port))
            .arg(format!("--tls-cert-file={}", here("server.crt")))
            .arg(format!("--tls-private-key-file={}", here("server.key")))
            .arg(format!("--token-auth-file={}", here("tokens")))
            .arg(format!("--service-account-key-file={}", here("server.crt")))
            .arg(format!("--service-account-signing-key-file={}", here("server.key")))
            .arg("--service-account-issuer=https://kubernetes.default.svc")
            .args(["--service-cluster-ip-range=10.96.0.0/16", "--authorization-mode=RBAC"])
            // Nobody makes service accounts here.
            .args(["--disable-admission-plugins=ServiceAccount", "--allow-privileged=true"])
            .arg(format!("--audit-policy-file={}", here("audit.yaml")))
            .arg(format!("--audit-log-path={}", here("audit.log")))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log file once more"))
            .stderr(log)
            .spawn()
            .expect("kube-apiserver starts");
        *self.server.lock().expect("no test failed in between") = Some(child);
        wait_until("the API server is ready", seconds(180), || match self.ask("GET", "/readyz", None) {
            Ok(_) => Ok(()),
            Err(error) => {
                let mut server = self.server.lock().expect("no test failed in between");
                let ended = server.as_mut().and_then(|server| server.try_wait().ok().flatten());
                assert!(ended.is_none(), "kube-apiserver ended at once:\n{}", self.log());
                Err(error + &self.log())
            }
        });
    }

    /// SIGKILL, and its end awaited.
    pub fn kill_9(&self) {
        let mut child =
            self.server.lock().expect("no test failed in between").take().expect("the server runs");
        child.kill().expect("the server is killed");
        child.wait().expect("its end");
    }

    /// The part of a configuration that asks it about the pods of `node`.
    pub fn config(&self, node: &str) -> String {
        format!(
            "node_name: {node}\nkubernetes: {{api_server: 'https://127.0.0.1:{}', token_file: {}, ca_file: {}, annotations: [team/pager]}}\n",
            self.port,
            self.dir.path().join("token").display(),
            self.dir.path().join("ca.crt").display()
        )
    }

    /// A file for kubectl, with all rights.
    pub fn kubeconfig(&self) -> PathBuf {
        let path = self.dir.path().join("kubeconfig");
        let text = format!(
            "{{apiVersion: v1, kind: Config, current-context: c, contexts: [{{name: c, context: {{cluster: c, user: u}}}}],\n\
             clusters: [{{name: c, cluster: {{server: 'https://127.0.0.1:{}', certificate-authority: {}}}}}],\n\
             users: [{{name: u, user: {{token: admin-token}}}}]}}\n",
            self.port,
            self.dir.path().join("ca.crt").display()
        );
        fs::write(&path, text).expect("written");
        path
    }

    /// The token that the agent shows from now on.
    pub fn set_token(&self, token: &str) {
        fs::write(self.dir.path().join("token"), token).expect("written");
    }

    /// Makes an object, and says how it is stored.
    #[track_caller]
    pub fn make(&self, path: &str, object: &Value) -> Value {
        // Right after the start some parts are not ready, whatever it says.
        wait_until("the object is made", seconds(30), || self.ask("POST", path, Some(object)))
    }

    /// Posts an object as it is written in a manifest.
    pub fn try_yaml(&self, path: &str, object: &str) -> Result<Value, String> {
        self.send("POST", path, "application/yaml", object.as_bytes())
    }

    /// Makes a pod in the namespace `shop` that runs on `node`; its uid.
    pub fn make_pod(&self, name: &str, node: &str, metadata: &Value) -> String {
        let mut pod = json!({
            "metadata": {"name": name},
            "spec": {"nodeName": node, "containers": [{"name": "app", "image": "shop/cart:3"}]},
        });
        for (key, value) in metadata.as_object().expect("an object") {
            pod["metadata"][key] = value.clone();
        }
        let made = self.make("/api/v1/namespaces/shop/pods", &pod);
        let uid = made["metadata"]["uid"].as_str().expect("a uid").to_owned();
        self.change(
            &format!("/api/v1/namespaces/shop/pods/{name}/status"),
            &json!({"status": {
                "phase": "Running", "podIP": "10.1.2.3",
                "containerStatuses": [{
                    "name": "app", "image": "shop/cart:3", "imageID": "", "ready": true, "restartCount": 0,
                    "containerID": format!("containerd://{name}-id"), "state": {"running": {}},
                }],
            }}),
        );
        uid
    }

    /// Merges `change` into an object.
    #[track_caller]
    pub fn change(&self, path: &str, change: &Value) {
        self.ask("PATCH", path, Some(change)).expect("changed");
    }

    /// Deletes a pod of the namespace `shop` at once.
    #[track_caller]
    pub fn delete_pod(&self, name: &str) {
        self.ask("DELETE", &format!("/api/v1/namespaces/shop/pods/{name}?gracePeriodSeconds=0"), None)
            .expect("deleted");
    }

    /// The requests of the agent that have ended, as `VERB URI STATUS`.
    pub fn requests(&self) -> Vec<String> {
        let log = fs::read_to_string(self.dir.path().join("audit.log")).unwrap_or_default();
        let line = |line: &str| {
            let entry: Value = serde_json::from_str(line).ok()?;
            let text = |name: &str| entry[name].as_str().map(str::to_owned);
            Some(format!("{} {} {}", text("verb")?, text("requestURI")?, entry["responseStatus"]["code"]))
        };
        log.lines().filter_map(line).collect()
    }

    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        self.send(method, path, kind, &body)
    }

    fn send(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> Result<Value, String> {
        let headers = [("authorization", "Bearer admin-token"), ("content-type", kind)];
        let address = format!("127.0.0.1:{}", self.port);
        let answer = self.client.request(method, &address, path, &headers, body);
        let answer = answer.map_err(|error| error.to_string())?;
        if path == "/readyz" && answer.status == 200 {
            return Ok(Value::Null);
        }
        answer.good()
    }

    fn log(&self) -> String {
        let log = fs::read_to_string(Path::new(self.dir.path()).join("log")).unwrap_or_default();
        log.lines().rev().take(10).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        let mut server = self.server.lock().ok().and_then(|mut server| server.take());
        for child in server.iter_mut().chain([&mut self.etcd]) {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
