//! A real Elasticsearch, started by `tests/servers/elasticsearch/start.sh`, or OpenSearch, plain or with TLS and users.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, OnceLock},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    free_port,
    http::{self, Response},
    repository, seconds, temp_dir,
    tls::{Authority, Client, SERVER, address, dns},
    wait_until,
};

/// The user of a secured server who may do everything.
pub const USER: &str = "elastic";
/// That user's password.
pub const PASSWORD: &str = "not-for-you";

/// One server; it ends with the value, and at the latest with this process.
pub struct Elastic {
    engine: Engine,
    /// Whoever may come in, and what they trust.
    door: Option<Door>,
    port: u16,
    dir: PathBuf,
    _own_dir: Option<TempDir>,
    /// The process and its open standard input, whose end ends the server.
    server: Mutex<Option<Child>>,
}

/// The product, by the name of its folder in `tests/servers`.
#[derive(Debug, Clone, Copy)]
enum Engine {
    Elasticsearch,
    OpenSearch,
}

impl Engine {
    fn folder(self) -> &'static str {
        match self {
            Self::Elasticsearch => "elasticsearch",
            Self::OpenSearch => "opensearch",
        }
    }
}

/// TLS, and the one user that there is.
struct Door {
    client: Client,
    ca: PathBuf,
}

impl Door {
    /// Writes what the server shows, for `localhost` and 127.0.0.1, vouched for by a CA of its own.
    fn new(dir: &Path) -> Self {
        let authority = Authority::new("the cluster's CA");
        let server = authority.vouch(&[dns(SERVER), address("127.0.0.1")]);
        let config = dir.join("config");
        fs::create_dir_all(&config).expect("a folder");
        fs::write(config.join("http.crt"), server.certificate.pem()).expect("written");
        fs::write(config.join("http.key"), server.key.serialize_pem()).expect("written");
        let ca = config.join("ca.crt");
        fs::write(&ca, authority.identity.certificate.pem()).expect("written");
        Self { client: Client::new(&authority, None).only_http1(), ca }
    }
}

/// A document found, with the few fields that were asked for.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// `_id`.
    pub id: String,
    /// `message`.
    pub message: String,
}

impl Elastic {
    /// The server that tests share: each uses an index of its own and leaves the server running.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Elastic> = OnceLock::new();
        SHARED.get_or_init(|| Self::start_static(Engine::Elasticsearch, "elasticsearch", false))
    }

    /// Another one, with TLS, users and API keys.
    pub fn secured() -> &'static Self {
        static SECURED: OnceLock<Elastic> = OnceLock::new();
        SECURED.get_or_init(|| Self::start_static(Engine::Elasticsearch, "elasticsearch-secured", true))
    }

    /// An OpenSearch that tests share in the same way.
    pub fn open_search() -> &'static Self {
        static SHARED: OnceLock<Elastic> = OnceLock::new();
        SHARED.get_or_init(|| Self::start_static(Engine::OpenSearch, "opensearch", false))
    }

    /// A server of one's own, to be stopped and started at will; `settings` are lines for elasticsearch.yml.
    pub fn start(settings: &str) -> Self {
        let dir = temp_dir();
        Self::start_in(Engine::Elasticsearch, dir.path().to_owned(), Some(dir), false, settings)
    }

    fn start_static(engine: Engine, name: &str, is_secured: bool) -> Self {
        // Nothing cleans up after a static: the next run does.
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("a folder for the server");
        Self::start_in(engine, dir, None, is_secured, "")
    }

    fn start_in(
        engine: Engine,
        dir: PathBuf,
        own_dir: Option<TempDir>,
        is_secured: bool,
        settings: &str,
    ) -> Self {
        let door = is_secured.then(|| Door::new(&dir));
        let server =
            Self { engine, door, port: free_port(), dir, _own_dir: own_dir, server: Mutex::new(None) };
        server.set(settings);
        server.start_again();
        server.expect("PUT", "/_index_template/logs", Some(&template()));
        server
    }

    /// Starts it again after [`kill_9`](Self::kill_9), with the same data on the same port.
    pub fn start_again(&self) {
        let script = repository().join("tests/servers").join(self.engine.folder()).join("start.sh");
        let log = File::options().create(true).append(true).open(self.log_path()).expect("a log file");
        let child = Command::new(script)
            .arg(self.port.to_string())
            .arg(&self.dir)
            .env("SETTINGS", self.settings_path())
            .env("UNTIL_EOF", "1")
            .env("SECURITY", if self.door.is_some() { "tls" } else { "off" })
            .env("ES_PASSWORD", PASSWORD)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("the log file once more"))
            .stderr(log)
            .spawn()
            .expect("start.sh starts");
        *self.server.lock().expect("no test failed in between") = Some(child);
        // A first start may fetch the jars.
        wait_until("the server is ready", seconds(300), || self.ready());
    }

    /// SIGKILL, and its end awaited.
    pub fn kill_9(&self) {
        let child = self.server.lock().expect("no test failed in between").take();
        let mut child = child.expect("the server runs");
        child.kill().expect("the server is killed");
        child.wait().expect("its end");
    }

    /// Other lines for elasticsearch.yml, from the next start on.
    pub fn set(&self, settings: &str) {
        fs::write(self.settings_path(), settings).expect("the settings are written");
    }

    /// Sends it a signal: with SIGSTOP it keeps its port and its connections, and answers nothing until SIGCONT.
    pub fn signal(&self, signal: Signal) {
        let server = self.server.lock().expect("no test failed in between");
        let pid = Pid::from_child(server.as_ref().expect("the server runs"));
        kill_process(pid, signal).expect("the signal is sent");
    }

    /// PUT of JSON, which it takes.
    #[track_caller]
    pub fn put(&self, path: &str, body: &Value) -> Value {
        self.expect("PUT", path, Some(body))
    }

    /// GET, which it answers.
    #[track_caller]
    pub fn get(&self, path: &str) -> Value {
        self.expect("GET", path, None)
    }

    /// POST without a body.
    #[track_caller]
    pub fn post(&self, path: &str) -> Value {
        self.expect("POST", path, None)
    }

    /// Its address for the agent's `elasticsearch.hosts`.
    pub fn url(&self) -> String {
        let scheme = if self.door.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address())
    }

    /// The CA of a secured server, for the agent's `elasticsearch.tls.ca`.
    pub fn ca(&self) -> &Path {
        &self.door.as_ref().expect("a secured server").ca
    }

    /// A key that may do this to these indices, as `id` and `encoded`.
    #[track_caller]
    pub fn api_key(&self, indices: &[&str], privileges: &[&str]) -> (String, String) {
        let role = json!({"cluster": ["monitor"], "index": [{"names": indices, "privileges": privileges}]});
        let ask = json!({"name": "agent", "role_descriptors": {"agent": role}});
        let made = self.expect("POST", "/_security/api_key", Some(&ask));
        let text = |name: &str| made[name].as_str().expect("a text").to_owned();
        (text("id"), text("encoded"))
    }

    /// From now on this key is worth nothing.
    #[track_caller]
    pub fn revoke(&self, id: &str) {
        self.expect("DELETE", "/_security/api_key", Some(&json!({"ids": [id]})));
    }

    /// Number of documents that a search finds now in an index, a data stream or a pattern; none when it is absent.
    pub fn count(&self, index: &str) -> Result<u64, String> {
        self.ask("POST", &format!("/{index}/_refresh?ignore_unavailable=true"), None)?;
        let answer = self.ask("GET", &format!("/{index}/_count?ignore_unavailable=true"), None)?;
        answer["count"].as_u64().ok_or_else(|| answer.to_string())
    }

    /// One document of an index, whole.
    #[track_caller]
    pub fn any(&self, index: &str) -> Value {
        self.hit(index).1
    }

    /// The same with the name of the index that it is in.
    #[track_caller]
    pub fn hit(&self, index: &str) -> (String, Value) {
        let answer = self.expect("GET", &format!("/{index}/_search?size=1"), None);
        let hit = &answer["hits"]["hits"][0];
        (hit["_index"].as_str().unwrap_or_default().to_owned(), hit["_source"].clone())
    }

    /// The documents of an index, at most 10,000, whole.
    #[track_caller]
    pub fn documents(&self, index: &str) -> Vec<Value> {
        let answer = self.expect("GET", &format!("/{index}/_search?size=10000"), None);
        let hits = answer["hits"]["hits"].as_array().cloned().unwrap_or_default();
        hits.into_iter().map(|hit| hit["_source"].clone()).collect()
    }

    /// Every document of an index.
    #[track_caller]
    pub fn all(&self, index: &str) -> Vec<Found> {
        let mut all = Vec::new();
        self.each(index, |found| all.push(found));
        all
    }

    /// Every document of an index, page by page.
    #[track_caller]
    pub fn each(&self, index: &str, mut take: impl FnMut(Found)) {
        let ask = json!({"size": 10_000, "sort": ["_doc"], "_source": ["message"]});
        let mut page = self.expect("POST", &format!("/{index}/_search?scroll=1m"), Some(&ask));
        while let Some(hits) = page["hits"]["hits"].as_array().filter(|hits| !hits.is_empty()) {
            hits.iter().map(found).for_each(&mut take);
            let next = json!({"scroll": "1m", "scroll_id": page["_scroll_id"]});
            page = self.expect("POST", "/_search/scroll", Some(&next));
        }
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn settings_path(&self) -> PathBuf {
        self.dir.join("settings.yml")
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("server.log")
    }

    fn ready(&self) -> Result<(), String> {
        let ended = |child: &mut Child| child.try_wait().expect("its state");
        if let Some(status) = self.server.lock().expect("no test failed").as_mut().and_then(ended) {
            let log = fs::read_to_string(self.log_path()).unwrap_or_default();
            panic!("the server ended with {status}:\n{log}");
        }
        // While the index of users and keys is being made, nobody is known.
        let index = if self.door.is_some() { "/.security-7" } else { "" };
        let health = format!("/_cluster/health{index}?wait_for_status=yellow&timeout=1s");
        self.ask("GET", &health, None).map(drop)
    }

    #[track_caller]
    fn expect(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        self.ask(method, path, body).unwrap_or_else(|seen| panic!("{method} {path}: {seen}"))
    }

    /// The JSON of a 2xx answer, else what came instead.
    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, String> {
        self.send(method, path, body).map_err(|error| error.to_string())?.good()
    }

    fn send(&self, method: &str, path: &str, body: Option<&Value>) -> io::Result<Response> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let kind = ("content-type", "application/json");
        match &self.door {
            None => http::request(method, &self.address(), path, &[kind], body.as_bytes()),
            Some(door) => {
                let basic = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
                let headers = [kind, ("authorization", basic.as_str())];
                door.client.request(method, &self.address(), path, &headers, body.as_bytes())
            }
        }
    }
}

impl Drop for Elastic {
    fn drop(&mut self) {
        if let Ok(Some(mut child)) = self.server.lock().map(|mut server| server.take()) {
            // It may have ended already: then there is nothing to kill, and that is fine.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What a distribution's own `logs` template does, as far as these tests need it: a data stream for each name.
fn template() -> Value {
    json!({
        "index_patterns": ["logs-*"],
        "data_stream": {},
        "priority": 500,
        "template": {
            "settings": {"number_of_replicas": 0},
            "mappings": {"properties": {"@timestamp": {"type": "date_nanos"}, "message": {"type": "text"}}},
        },
    })
}

fn found(hit: &Value) -> Found {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Found { id: text(&hit["_id"]), message: text(&hit["_source"]["message"]) }
}
