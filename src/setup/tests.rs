//! The way through all of it, with what servers answered that can't be run here: those with ILM and ISM.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use super::*;
use crate::config::{Source, SourceKind};

/// A server that keeps what it is given, and answers in the form of a product.
struct Recorded {
    address: String,
    state: Arc<Mutex<State>>,
}

struct State {
    root: Value,
    /// A beginning of paths, and what is said there instead.
    refuse: Option<(&'static str, u16, Value)>,
    /// A type that mappings may not have.
    lacks: &'static str,
    objects: BTreeMap<String, Value>,
    puts: Vec<String>,
}

fn elastic(number: &str) -> Value {
    json!({"cluster_name": "c", "version": {"number": number, "build_flavor": "default"}, "tagline": "You Know, for Search"})
}

fn open_search(number: &str) -> Value {
    json!({"cluster_name": "c", "version": {"distribution": "opensearch", "number": number}, "tagline": "The OpenSearch Project: https://opensearch.org/"})
}

impl Recorded {
    fn start(root: Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address").to_string();
        let state = State { root, refuse: None, lacks: "-", objects: BTreeMap::new(), puts: Vec::new() };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                thread::spawn(move || serve(stream, &state));
            }
        });
        Self { address, state }
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().expect("no test failed"));
    }

    fn puts(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().expect("no test failed").puts)
    }

    fn object(&self, path: &str) -> Value {
        self.state.lock().expect("no test failed").objects[path].clone()
    }

    /// What is said, and whether all was done.
    fn set_up(&self, change: impl FnOnce(&mut ElasticConfig), options: &Options) -> (bool, String) {
        let hosts = vec![units::elastic_host(&self.address).expect("a host")];
        let mut elastic = ElasticConfig { hosts, ..ElasticConfig::default() };
        change(&mut elastic);
        let mut config = Config { elasticsearch: Some(elastic), ..Config::default() };
        config.logs.sources = vec![Source { kind: SourceKind::kubernetes(), index: None, multiline: None }];
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let done = match run(&config, options, &mut out, &mut err) {
            Ok(done) => done,
            Err(error) => {
                write!(err, "{}", crate::telemetry::sentence(&error)).expect("written");
                false
            }
        };
        (done, String::from_utf8([out, err].concat()).expect("UTF-8"))
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream);
    loop {
        let (mut first, mut length) = (String::new(), 0);
        if reader.read_line(&mut first).unwrap_or(0) == 0 {
            return;
        }
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).expect("a header");
            if header.trim().is_empty() {
                break;
            }
            if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("a body");
        let words: Vec<&str> = first.split(' ').collect();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let (status, answer) = state.lock().expect("no test failed").answer(words[0], words[1], body);
        let answer = answer.to_string();
        let head = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            answer.len()
        );
        reader.get_mut().write_all((head + &answer).as_bytes()).expect("answered");
    }
}

impl State {
    fn answer(&mut self, method: &str, target: &str, body: Value) -> (u16, Value) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        if let Some((beginning, status, answer)) = &self.refuse
            && path.starts_with(beginning)
        {
            return (*status, answer.clone());
        }
        if path == "/" {
            return (200, self.root.clone());
        }
        let is_open_search = self.root["version"]["distribution"] == "opensearch";
        let foreign = if is_open_search { "/_ilm" } else { "/_plugins" };
        if path.starts_with(foreign) {
            let error = format!("no handler found for uri [{path}] and method [{method}]");
            return (400, json!({"error": error}));
        }
        let name = path.rsplit('/').next().expect("a name").to_owned();
        if method == "PUT" {
            self.puts.push(target.to_owned());
            return self.put(path, query, body);
        }
        let Some(object) = self.objects.get(path) else {
            let reason = format!("[{name}] not found");
            return (
                404,
                json!({"error": {"type": "resource_not_found_exception", "reason": reason}, "status": 404}),
            );
        };
        let answer = match path.split('/').nth(1) {
            Some("_index_template") => json!({"index_templates": [{"name": name, "index_template": object}]}),
            Some("_ilm") => {
                json!({name: {"version": 1, "modified_date": "2026-01-01T00:00:00.000Z", "policy": object["policy"]}})
            }
            Some("_plugins") => {
                json!({"_id": name, "_version": 1, "_seq_no": 7, "_primary_term": 2, "policy": object["policy"]})
            }
            _ => json!({"data_streams": [{"name": name}]}),
        };
        (200, answer)
    }

    fn put(&mut self, path: &str, query: &str, body: Value) -> (u16, Value) {
        if body.to_string().contains(&format!("{:?}", self.lacks)) {
            let reason = format!(
                "Failed to parse mapping: The mapper type [{}] declared on field [m] does not exist.",
                self.lacks
            );
            let cause = json!({"type": "mapper_parsing_exception", "reason": reason});
            return (
                400,
                json!({"error": {"reason": "composable template [t] template after composition is invalid", "caused_by": cause}, "status": 400}),
            );
        }
        let is_policy = path.starts_with("/_plugins");
        if is_policy && self.objects.contains_key(path) && query != "if_seq_no=7&if_primary_term=2" {
            return (409, json!({"error": {"reason": "version conflict"}, "status": 409}));
        }
        self.objects.insert(path.to_owned(), body);
        (200, json!({"acknowledged": true}))
    }
}

fn nothing(_: &mut ElasticConfig) {}

fn days(retention: u64) -> Options {
    Options { dry_run: false, retention: Some(retention) }
}

const TEMPLATE: &str = "/_index_template/nodewarden-logs-default";
const ILM: &str = "/_ilm/policy/nodewarden-logs-default";
const ISM: &str = "/_plugins/_ism/policies/nodewarden-logs-default";
const STREAM: &str = "/_data_stream/logs-kubernetes.container_logs-default";

#[test]
fn everything_is_made_once_and_then_left_as_it_is() {
    let server = Recorded::start(elastic("8.19.4"));
    let (done, said) = server.set_up(nothing, &Options::default());
    assert!(done, "{said}");
    assert_eq!(
        said,
        "Elasticsearch 8.19.4, cluster c\n\
         lifecycle policy nodewarden-logs-default: created\n\
         index template nodewarden-logs-default: created\n\
         data stream logs-kubernetes.container_logs-default: created\n"
    );
    assert_eq!(server.puts(), [ILM, &format!("{TEMPLATE}?create=true"), STREAM]);
    let template = server.object(TEMPLATE);
    assert_eq!(template["template"]["settings"]["index.lifecycle.name"], "nodewarden-logs-default");
    assert_eq!(
        (&template["_meta"]["managed_by"], &template["_meta"]["version"]),
        (&json!("nodewarden"), &json!(crate::VERSION))
    );
    let (done, said) = server.set_up(nothing, &Options::default());
    assert!(done && said.matches("is up to date").count() == 2, "{said}");
    assert_eq!(server.puts(), [""; 0]);
}

#[test]
fn what_we_wrote_is_renewed_and_what_somebody_changed_stays() {
    let server = Recorded::start(elastic("8.19.4"));
    assert!(server.set_up(nothing, &Options::default()).0);
    server.puts();
    let (done, said) = server.set_up(nothing, &days(30));
    assert!(done && said.contains("lifecycle policy nodewarden-logs-default: updated"), "{said}");
    assert_eq!(server.puts(), [ILM]);
    assert_eq!(server.object(ILM)["policy"]["phases"]["delete"]["min_age"], "30d");
    server.set(|state| {
        let mine = json!("14d");
        state.objects.get_mut(ILM).expect("there")["policy"]["phases"]["delete"]["min_age"] = mine;
        state.objects.get_mut(TEMPLATE).expect("there")["template"]["settings"]["index.number_of_replicas"] =
            json!(0);
    });
    let (done, said) = server.set_up(nothing, &days(7));
    assert!(done && said.matches("left alone, it was changed").count() == 2, "{said}");
    assert_eq!(server.puts(), [""; 0]);
    server.set(|state| {
        state
            .objects
            .get_mut(TEMPLATE)
            .expect("there")
            .as_object_mut()
            .expect("an object")
            .shift_remove("_meta");
    });
    let (_, said) = server.set_up(nothing, &days(7));
    assert!(said.contains("left alone, it is not nodewarden's"), "{said}");
}

#[test]
fn an_open_search_policy_is_updated_by_its_sequence() {
    let server = Recorded::start(open_search("2.19.1"));
    let (done, said) = server.set_up(nothing, &Options::default());
    assert!(done && said.contains("lifecycle policy nodewarden-logs-default: created"), "{said}");
    assert_eq!(server.puts()[0], ISM);
    assert!(server.object(TEMPLATE)["template"]["settings"].get("index.lifecycle.name").is_none());
    let (done, said) = server.set_up(nothing, &days(30));
    assert!(done && said.contains("updated"), "{said}");
    assert_eq!(server.puts(), [format!("{ISM}?if_seq_no=7&if_primary_term=2")]);
    assert!(
        server
            .set_up(nothing, &days(30))
            .1
            .contains("lifecycle policy nodewarden-logs-default: is up to date")
    );
}

#[test]
fn indices_by_date_get_a_plain_template() {
    let server = Recorded::start(elastic("7.10.2"));
    let fluent = |elastic: &mut ElasticConfig| {
        elastic.index = crate::config::IndexTemplate::parse("logstash-%Y.%m.%d").expect("a template");
        elastic.schema = Schema::Fluent;
    };
    let (done, said) = server.set_up(fluent, &Options::default());
    assert!(
        done && said.contains("lifecycle policy nodewarden-logstash: none, indices with a date"),
        "{said}"
    );
    assert_eq!(server.puts(), ["/_index_template/nodewarden-logstash?create=true"]);
    let template = server.object("/_index_template/nodewarden-logstash");
    assert_eq!((&template["index_patterns"], template.get("data_stream")), (&json!(["logstash-*"]), None));
    assert_eq!(template["template"]["mappings"]["properties"]["log"]["type"], "text", "before 7.14");
    let (done, said) = server.set_up(fluent, &days(7));
    assert!(done && said.contains("lifecycle policy nodewarden-logstash: created"), "{said}");
    // It can't be marked there: what is not the same to the letter is not touched.
    assert!(server.set_up(fluent, &days(7)).1.contains("policy nodewarden-logstash: is up to date"));
    assert!(server.set_up(fluent, &days(8)).1.contains("policy nodewarden-logstash: left alone"));
}

#[test]
fn types_whose_plugins_are_missing_are_done_without() {
    let server = Recorded::start(elastic("9.5.3"));
    server.set(|state| state.lacks = "match_only_text");
    for expected in
        ["template nodewarden-logs-default: created", "template nodewarden-logs-default: is up to date"]
    {
        let (done, said) = server.set_up(nothing, &Options::default());
        assert!(done && said.contains(expected), "{said}");
    }
    assert_eq!(server.object(TEMPLATE)["template"]["mappings"]["properties"]["message"]["type"], "text");
}

#[test]
fn a_dry_run_prints_what_would_be_sent_and_sends_nothing() {
    let server = Recorded::start(elastic("9.5.3"));
    let (done, said) = server.set_up(nothing, &Options { dry_run: true, retention: None });
    assert!(done, "{said}");
    assert_eq!(server.puts(), [""; 0]);
    let (_, template) = said.split_once(&format!("PUT {TEMPLATE}?create=true\n")).expect("a request");
    let (template, rest) = template.split_once("\nPUT").expect("another one");
    let template: Value = serde_json::from_str(template).expect("JSON");
    assert_eq!(template["_meta"]["managed_by"], "nodewarden");
    assert_eq!(rest.trim(), STREAM);
}

#[test]
fn what_is_not_allowed_is_said_and_the_rest_is_done() {
    let server = Recorded::start(elastic("9.5.3"));
    let reason = "action [cluster:admin/ilm/get] is unauthorized for user [agent]";
    let refusal = json!({"error": {"type": "security_exception", "reason": reason}, "status": 403});
    server.set(|state| state.refuse = Some(("/_ilm", 403, refusal.clone())));
    let (done, said) = server.set_up(nothing, &Options::default());
    let expected = format!(
        "lifecycle policy nodewarden-logs-default: HTTP 403 {reason}; it takes the cluster privilege manage_ilm\n"
    );
    assert!(!done && said.ends_with(&expected), "{said}");
    assert_eq!(server.puts(), [&format!("{TEMPLATE}?create=true"), STREAM]);
    assert!(server.object(TEMPLATE)["template"]["settings"].get("index.lifecycle.name").is_none());
    server.set(|state| state.refuse = Some(("/", 403, refusal)));
    let (done, said) = server.set_up(nothing, &Options::default());
    assert!(!done && said.contains("it takes the cluster privilege monitor"), "{said}");
    server.set(|state| state.refuse = Some(("/", 401, json!({"error": "x", "status": 401}))));
    let (done, said) = server.set_up(nothing, &Options::default());
    assert!(
        !done && said.contains("HTTP 401: the server asks who this is: set elasticsearch.auth"),
        "{said}"
    );
}

#[test]
fn a_retention_that_can_not_be_kept_is_a_failure() {
    let server = Recorded::start(elastic("9.5.3"));
    server.set(|state| {
        let error = "no handler found for uri [/_ilm/policy/x] and method [GET]";
        state.refuse = Some(("/_ilm", 400, json!({"error": error})));
    });
    let (done, said) = server.set_up(nothing, &Options::default());
    assert!(
        done && said.contains("lifecycle policy nodewarden-logs-default: none, this server has no"),
        "{said}"
    );
    let (done, said) = server.set_up(nothing, &days(3));
    assert!(!done && said.contains("--retention has no effect: this server has no"), "{said}");
}

#[test]
fn options_are_read_as_people_write_them() {
    assert_eq!(Options::new(true, Some("30d")).expect("read").retention, Some(30));
    assert_eq!(Options::new(false, Some("48h")).expect("read").retention, Some(2));
    for odd in ["", "0d", "5", "36h", "1s"] {
        let error = format!("{:#}", Options::new(false, Some(odd)).expect_err("refused"));
        assert!(error.starts_with("--retention: expected"), "{error}");
    }
}
