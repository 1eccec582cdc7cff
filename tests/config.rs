//! Whole configurations: files, environment and flags together.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a broken helper fails its test")]

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use nodewarden::{
    cli::{self, Cli},
    config::{
        self, Auth, Config, DocumentIds, Env, IndexTemplate, Loaded, Machine, Multiline, Schema, SourceKind,
        Tls,
    },
    logs::process::rules::Action,
};
use nodewarden_collectors::{FlagKind, node};
use proptest::prelude::*;
use tempfile::TempDir;

/// One configuration, put together in its own directory.
struct Case {
    dir: TempDir,
    env: Env,
    flags: Vec<String>,
    machine: Machine,
}

impl Case {
    fn new() -> Self {
        let machine = Machine { hostname: "node-1".into(), ..Machine::default() };
        Self { dir: tempfile::tempdir().unwrap(), env: Env::new(), flags: Vec::new(), machine }
    }

    fn file(mut self, text: impl AsRef<[u8]>) -> Self {
        let path = self.write("config.yaml", text);
        self.machine.config_file = Some(path);
        self
    }

    fn env(mut self, values: &[(&str, &str)]) -> Self {
        self.env.extend(values.iter().map(|(name, value)| (name.to_string(), value.to_string())));
        self
    }

    fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(ToString::to_string));
        self
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn cli(&self) -> Cli {
        let args = std::iter::once("nodewarden").chain(self.flags.iter().map(String::as_str));
        cli::parse(args.map(OsString::from)).expect("flags that exist")
    }

    fn load(&self) -> Result<Loaded, String> {
        let loaded = config::load(&self.cli(), &self.env, &self.machine);
        let prefix = format!("{}/", self.dir.path().display());
        loaded.map_err(|mistakes| mistakes.to_string().replace(&prefix, ""))
    }

    fn config(&self) -> Config {
        self.load().unwrap_or_else(|mistakes| panic!("{mistakes}")).config
    }

    fn mistakes(&self) -> String {
        self.load().expect_err("there are mistakes")
    }

    /// What `check` prints, and whether it was content.
    fn check(&self) -> (bool, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let ok = config::check(&self.cli(), &self.env, &self.machine, &mut out, &mut err).unwrap();
        (ok, String::from_utf8([out, err].concat()).unwrap())
    }
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/config")
}

#[test]
fn every_wrong_file_is_answered_with_every_mistake_by_position() {
    let mut seen = 0;
    for entry in fs::read_dir(golden()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let said = Case::new().file(fs::read(&path).unwrap()).env(&[("NODE", "a")]).mistakes() + "\n";
        let expected = path.with_extension("txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&expected, &said).unwrap();
        }
        assert_eq!(said, fs::read_to_string(&expected).unwrap(), "{}", path.display());
        seen += 1;
    }
    assert!(seen >= 8, "only {seen} golden files");
}

/// Every key of the contract that this version knows.
const WHOLE: &str = r#"
state_dir: /s
memory_limit: 32Mi
node_name: ${NAME}
log: {level: debug, format: json}
path: {procfs: /p, sysfs: /y, rootfs: /r, udev_data: /u}
web: {listen_address: [':9101', '[::1]:9102'], telemetry_path: /m, max_requests: 3, disable_exporter_metrics: true}
admin: {listen_address: ''}
logs:
  start: {new_files: beginning, first_run: 1Mi}
  max_line: 64Ki
  levels: true
  json: {enabled: true, target: '', message_keys: [text], time_keys: [ts, time], keep_text: true, max_depth: 3, max_fields: 9, max_index_fields: 99}
  rules:
    - keep: {namespace: [shop, kube-*], level: [warn, error], name: loud}
    - drop: {below: info, not_match: 'order \d+$', dry_run: true}
    - sample: {one_of: 10, container: nginx, match: 'GET "/a{1,2}b'}
    - collapse: {within: 30s, file: /var/log/*.log, pod: cart-*}
  limits: {per_pod: {lines_per_second: 100, bytes_per_second: 1Mi, burst: 1000}, per_namespace: {lines_per_second: 5}}
  redact: {builtin: [email, card], rules: ['token=\S+', {match: '(pin=)\d+', replace: '$1*', namespace: shop, name: pin}]}
  multiline: {start: '^\[\d{4}-'}
  sources:
    - kubernetes: {path: /pods, exclude_namespaces: [kube-system], multiline: {start: BEGIN}}
    - files: {include: /var/log/syslog, exclude: ['/var/log/*.gz'], index: sys-%Y, multiline: off}
    - journal: {path: /journals}
    - kernel: {index: kernel}
elasticsearch:
  hosts: [http://a:9200/x, b]
  index: app-{kubernetes.namespace}-%Y.%m.%d
  schema: fluent
  document_ids: none
  compression: 0
  tls: {server_name: es, insecure_skip_verify: true}
  proxy: http://proxy:3128
  bulk: {max_bytes: 1Mi, max_wait: 500ms, in_flight: 2}
store: {max_bytes: 2Gi, max_age: 1h30m, min_free: 5%}
metrics: {disable-defaults: true}
"#;

#[test]
fn every_key_reaches_its_part() {
    let config = Case::new().file(WHOLE).env(&[("NAME", "worker")]).config();
    assert_eq!(
        (config.state_dir, config.memory_limit, config.node_name),
        ("/s".into(), 32 << 20, "worker".into())
    );
    assert_eq!(config.log.level, tracing::Level::DEBUG);
    assert_eq!((config.host.procfs, config.host.rootfs), ("/p".into(), "/r".into()));
    assert_eq!(
        config.web.listen.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [":9101", "[::1]:9102"]
    );
    assert_eq!((config.metrics.max_requests, config.metrics.enabled.len()), (3, 0));
    assert_eq!(config.admin.listen, None);
    assert_eq!((config.logs.first_run, config.logs.max_line), (1 << 20, 64 << 10));
    let SourceKind::Kubernetes { exclude_namespaces, .. } = &config.logs.sources[0].kind else {
        panic!("not first")
    };
    assert_eq!(exclude_namespaces, &["kube-system"]);
    assert_eq!(config.logs.sources[1].index.as_ref().map(IndexTemplate::as_str), Some("sys-%Y"));
    assert_eq!(config.logs.sources[2].kind, SourceKind::Journal { path: vec!["/journals".into()] });
    assert_eq!(config.logs.sources[3].kind, SourceKind::Kernel);
    assert_eq!(config.logs.sources[3].index.as_ref().map(IndexTemplate::as_str), Some("kernel"));
    let process = &config.logs.process;
    assert!(process.levels && process.json.enabled && process.json.keep_text);
    assert_eq!((process.json.target.as_str(), process.json.max_fields), ("", 9));
    let names: Vec<&str> = process.rules.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(names, ["loud", "drop-2", "sample-3", "collapse-4"]);
    assert_eq!(process.rules[2].action, Action::Sample(10));
    assert_eq!((process.limits.per_pod.bytes, process.limits.per_namespace.lines), (1 << 20, 5));
    let names: Vec<&str> = process.redact.iter().map(|redaction| redaction.name.as_str()).collect();
    assert_eq!(names, ["email", "card", "rule-1", "pin"]);
    assert_eq!(Multiline::starting(r"^\[\d{4}-"), Ok(config.logs.multiline));
    let own: Vec<_> = config.logs.sources.iter().map(|source| source.multiline.clone()).collect();
    assert_eq!(own, [Multiline::starting("BEGIN").ok(), Some(Multiline::Off), None, None]);
    let elastic = config.elasticsearch.expect("hosts are set");
    assert_eq!(
        elastic.hosts.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["http://a:9200/x", "http://b:9200"]
    );
    assert_eq!(
        (elastic.schema, elastic.document_ids, elastic.compression),
        (Schema::Fluent, DocumentIds::None, 0)
    );
    assert_eq!((elastic.bulk.max_wait, elastic.bulk.in_flight), (Duration::from_millis(500), Some(2)));
    assert_eq!((config.store.max_age, config.store.min_free), (Duration::from_secs(5400), 5));
}

#[test]
fn what_check_prints_reads_back_as_the_same() {
    let first = Case::new().file(WHOLE).env(&[("NAME", "$${odd}: \"#\t\\")]);
    let (ok, printed) = first.check();
    assert!(ok, "{printed}");
    let (document, last) = printed.trim_end().rsplit_once('\n').unwrap();
    assert_eq!(last, "ok");
    let again = Case::new().file(document);
    assert_eq!(format!("{:?}", again.config()), format!("{:?}", first.config()));
}

#[test]
fn nothing_written_is_the_contract_s_defaults() {
    for case in
        [Case::new(), Case::new().file(""), Case::new().file("# nothing\n"), Case::new().file("logs:\n")]
    {
        let config = case.config();
        let expected = Config { node_name: "node-1".into(), ..Config::default() };
        assert_eq!(format!("{config:?}"), format!("{expected:?}"));
    }
}

#[test]
fn a_flag_beats_the_file_and_the_file_beats_the_environment() {
    let env = [("PROCFS_ROOT", "/from-env")];
    let file = "path: {procfs: /from-file}";
    let procfs = |case: Case| case.config().host.procfs;
    assert_eq!(procfs(Case::new().env(&env)), Path::new("/from-env"));
    assert_eq!(procfs(Case::new().env(&env).file(file)), Path::new("/from-file"));
    let all = Case::new().env(&env).file(file).flags(&["--path.procfs=/from-flag"]);
    assert!(all.check().1.contains("procfs: /from-flag") && all.check().1.contains("# from --path.procfs"));
    assert_eq!(procfs(all), Path::new("/from-flag"));
}

#[test]
fn mistakes_of_file_environment_and_flags_come_together() {
    let said = Case::new()
        .file("store: {min_free: 1}")
        .env(&[("COMPRESSION_LEVEL", "high")])
        .flags(&[
            "--log.level=loud",
            "--web.max-requests=1",
            "--web.max-requests=2",
            "--web.config.file=/tls",
        ])
        .mistakes();
    assert_eq!(
        said,
        "config.yaml:1:19: store.min_free: expected 0% to 99%, not '1'\n\
         environment COMPRESSION_LEVEL: expected a number from 0 to 9, not 'high'\n\
         --log.level: expected debug or info or warn or error, not 'loud'\n\
         --web.config.file: could not read /tls: No such file or directory (os error 2)\n\
         --web.max-requests: given 2 times; keep one\n\
         5 mistakes"
    );
}

#[test]
fn a_named_file_must_be_there_and_an_unnamed_one_need_not() {
    let said = Case::new().flags(&["--config.file=/nonexistent/c.yaml"]).mistakes();
    assert!(said.starts_with("--config.file: could not read /nonexistent/c.yaml: "), "{said}");
    assert!(Case::new().load().is_ok());
}

#[test]
fn fluentd_s_host_alone_ships_as_its_image_does() {
    let elastic = |env: &[(&str, &str)]| Case::new().env(env).config().elasticsearch.expect("a host is set");
    let alone = elastic(&[("FLUENT_ELASTICSEARCH_HOST", "es.logging")]);
    assert_eq!(alone.hosts[0].to_string(), "http://es.logging:9200");
    assert_eq!((alone.index.as_str(), alone.schema), ("logstash-%Y.%m.%d", Schema::Fluent));
    let all = elastic(&[
        ("FLUENT_OPENSEARCH_HOST", "es"),
        ("FLUENT_OPENSEARCH_PORT", "80"),
        ("FLUENT_OPENSEARCH_PATH", "/p/"),
        ("FLUENT_OPENSEARCH_LOGSTASH_FORMAT", "true"),
        ("FLUENT_OPENSEARCH_LOGSTASH_PREFIX", "app"),
        ("FLUENT_OPENSEARCH_LOGSTASH_DATEFORMAT", "%Y"),
        ("FLUENT_OPENSEARCH_USER", "u"),
        ("FLUENT_OPENSEARCH_PASSWORD", "hush"),
    ]);
    assert_eq!((all.hosts[0].to_string().as_str(), all.index.as_str()), ("http://es:80/p", "app-%Y"));
    assert!(
        matches!(&all.auth, Auth::Basic { username, password } if username == "u" && password.read().unwrap().expose() == "hush")
    );
    let plain = [("FLUENT_ELASTICSEARCH_HOST", "es"), ("FLUENT_ELASTICSEARCH_LOGSTASH_FORMAT", "false")];
    assert_eq!(elastic(&plain).index.as_str(), "logstash");
}

#[test]
fn fluentd_s_names_speak_tls() {
    let case = Case::new();
    let identity = rcgen::generate_simple_self_signed(vec!["es".to_owned()]).unwrap();
    let ca = case.write("ca.pem", identity.cert.pem()).display().to_string();
    let key = case.write("key.pem", identity.signing_key.serialize_pem()).display().to_string();
    let env = [
        ("FLUENT_OPENSEARCH_HOST", "es"),
        ("FLUENT_OPENSEARCH_SCHEME", "https"),
        ("FLUENT_OPENSEARCH_SSL_VERIFY", "false"),
        ("FLUENT_OPENSEARCH_SSL_VERSION", "TLSv1_2"),
        ("FLUENT_OPENSEARCH_CA_PATH", &ca),
        ("FLUENT_OPENSEARCH_CLIENT_CERT", &ca),
        ("FLUENT_OPENSEARCH_CLIENT_KEY", &key),
    ];
    let loaded = Case { dir: case.dir, ..Case::new() }.env(&env).load().unwrap();
    let elastic = loaded.config.elasticsearch.unwrap();
    assert_eq!(elastic.hosts[0].to_string(), "https://es:9200");
    let expected = Tls {
        ca: Some(ca.clone().into()),
        cert: Some(ca.into()),
        key: Some(key.into()),
        server_name: None,
        insecure_skip_verify: true,
    };
    assert_eq!(elastic.tls, expected);
    let notes = loaded.notes.join("\n");
    assert!(notes.contains("SSL_VERSION has no effect: TLS 1.2 and 1.3"), "{notes}");
    assert!(notes.contains("certificates of servers are not looked at"), "{notes}");
}

/// `cloud:example.org$es$kb`.
const CLOUD: &str = "cloud:ZXhhbXBsZS5vcmckZXMka2I=";

#[test]
fn a_cloud_s_id_beats_the_host_beside_it_and_a_higher_layer_beats_both() {
    let env = [
        ("ELASTICSEARCH_HOST", "es"),
        ("ELASTICSEARCH_USERNAME", "elastic"),
        ("ELASTICSEARCH_PASSWORD", "changeme"),
        ("ELASTIC_CLOUD_ID", CLOUD),
        ("ELASTIC_CLOUD_AUTH", "me:hush:hush"),
    ];
    let case = Case::new().env(&env);
    let elastic = case.config().elasticsearch.unwrap();
    assert_eq!(
        elastic.hosts.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["https://es.example.org:443"]
    );
    assert!(
        matches!(&elastic.auth, Auth::Basic { username, password } if username == "me" && password.read().unwrap().expose() == "hush:hush")
    );
    let (ok, printed) = case.check();
    assert!(ok && printed.contains("cloud_id:") && !printed.contains("hush"), "{printed}");
    let hosts = case.file("elasticsearch: {hosts: [http://other]}").config().elasticsearch.unwrap().hosts;
    assert_eq!(hosts[0].to_string(), "http://other:9200");
    let hosts = Case::new().env(&env[..1]).file(format!("elasticsearch: {{cloud_id: '{CLOUD}'}}")).config();
    assert_eq!(hosts.elasticsearch.unwrap().hosts[0].name, "es.example.org");
}

#[test]
fn a_proxy_comes_from_the_environment_unless_it_is_said() {
    let env = [
        ("HTTPS_PROXY", "http://me:hush@proxy:3128"),
        ("http_proxy", "socks5://for-others:1"),
        ("NO_PROXY", ".svc,10.0.0.0/8"),
    ];
    let proxy_of = |file: &str| {
        let elastic = Case::new().env(&env).file(file).config().elasticsearch.unwrap();
        elastic.proxies.for_host(&elastic.hosts[0]).map(ToString::to_string)
    };
    let proxy = Some("http://proxy:3128".to_owned());
    assert_eq!(proxy_of("elasticsearch: {hosts: ['https://es.example']}"), proxy);
    assert_eq!(proxy_of("elasticsearch: {hosts: ['https://es.logging.svc']}"), None);
    assert_eq!(proxy_of("elasticsearch: {hosts: ['https://10.1.2.3']}"), None);
    assert_eq!(proxy_of("elasticsearch: {hosts: ['https://es.example'], proxy: off}"), None);
    let own = "elasticsearch: {hosts: ['https://es.logging.svc'], proxy: 'http://me:hush@own:1'}";
    assert_eq!(proxy_of(own), Some("http://own:1".to_owned()));
    let (ok, printed) = Case::new().file(own).check();
    assert!(ok && printed.contains("# proxy: ***") && !printed.contains("hush"), "{printed}");
    let loaded = Case::new().env(&env).file("elasticsearch: {hosts: ['https://es.example']}").load().unwrap();
    assert!(loaded.notes[0].contains("through the proxy of HTTPS_PROXY"), "{:?}", loaded.notes);
    let said = Case::new().env(&env).file("elasticsearch: {hosts: ['http://es.example']}").mistakes();
    assert!(said.contains("environment http_proxy: a proxy is spoken to in http, not in socks5"), "{said}");
}

#[test]
fn headers_are_the_user_s_and_their_values_are_not_printed() {
    let case =
        Case::new().file("elasticsearch:\n  hosts: es\n  headers: {X-Tenant: hush, Authorization: hush}\n");
    let (ok, printed) = case.check();
    assert!(ok && printed.contains("    # x-tenant: ***") && !printed.contains("hush"), "{printed}");
    assert!(!format!("{:?}", case.config()).contains("hush"));
    let again = Case::new().file(printed.trim_end_matches("ok\n")).config().elasticsearch.unwrap();
    assert!(again.headers.is_empty());
}

#[test]
fn filebeat_s_names_ship_in_the_own_schema() {
    let env = [("ELASTICSEARCH_HOST", "es"), ("ELASTICSEARCH_PORT", "9201"), ("ELASTIC_CLOUD_ID", "")];
    let elastic = Case::new().env(&env).config().elasticsearch.unwrap();
    assert_eq!((elastic.hosts[0].to_string().as_str(), elastic.schema), ("http://es:9201", Schema::Ecs));
    let off =
        Case::new().env(&[("ELASTICSEARCH_URL", "http://es"), ("ENABLE_COMPRESSION", "false")]).config();
    assert_eq!(off.elasticsearch.unwrap().compression, 0);
}

#[test]
fn a_service_of_kubernetes_is_no_port() {
    let env = [("ELASTICSEARCH_HOST", "es"), ("ELASTICSEARCH_PORT", "tcp://10.0.0.1:9200")];
    let loaded = Case::new().env(&env).load().unwrap();
    assert_eq!(loaded.config.elasticsearch.unwrap().hosts[0].to_string(), "http://es:9200");
    assert_eq!(loaded.notes.len(), 1);
    // And it alone, set for a service that has nothing to do with us, says nothing.
    assert!(Case::new().env(&env[1..]).config().elasticsearch.is_none());
}

#[test]
fn names_without_a_meaning_are_noted_once_each() {
    let env = [("FLUENT_UID", "0"), ("FLUENTD_PROMETHEUS_CONF", "disable"), ("HOME", "/")];
    let notes = Case::new().env(&env).flags(&["--runtime.gomaxprocs=1"]).load().unwrap().notes;
    assert_eq!(notes.len(), 3, "{notes:?}");
}

#[test]
fn dcgm_exporter_s_names_are_understood() {
    let env = [("DCGM_EXPORTER_LISTEN", ":9400"), ("DCGM_EXPORTER_INTERVAL", "15000")];
    let gpu = Case::new().env(&env).config().gpu;
    assert_eq!((gpu.listen.map(|at| at.to_string()), gpu.interval.as_secs()), (Some(":9400".into()), 15));
    let odd = Case::new().env(&[("DCGM_EXPORTER_INTERVAL", "15s")]).mistakes();
    assert!(odd.contains("environment DCGM_EXPORTER_INTERVAL: expected a number of milliseconds"), "{odd}");
}

#[test]
fn the_file_of_gpu_counters_is_checked_with_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("counters.csv");
    let file = format!("gpu: {{counters_file: {}}}", path.display());
    let missing = Case::new().file(&file).mistakes();
    assert!(missing.contains(":1:22: gpu.counters_file: could not read"), "{missing}");
    fs::write(&path, "# x\nDCGM_FI_DEV_GPU_TEMP, gauge\nDCGM_FI_DEV_FB_USED, gauge, x\n").unwrap();
    let odd = Case::new().file(&file).mistakes();
    assert!(odd.contains("counters.csv:2:1: expected 'NAME, gauge|counter|label, HELP'"), "{odd}");
    fs::write(&path, "DCGM_FI_DEV_GPU_TEMP, gauge, x\nDCGM_EXP_GPU_HEALTH_STATUS, gauge, x\n").unwrap();
    let loaded = Case::new().file(&file).load().unwrap();
    assert_eq!((loaded.config.gpu.counters.metrics.len(), loaded.notes.len()), (1, 1), "{:?}", loaded.notes);
}

#[test]
fn fluentd_s_paths_become_sources() {
    let first = |env: &[(&str, &str)]| {
        let loaded = Case::new().env(env).load().unwrap();
        (loaded.config.logs.sources[0].kind.clone(), loaded.notes.len())
    };
    let excluded = "[\"/var/log/containers/*_kube-system_*.log\", \"/var/log/containers/fluent*\"]";
    let (kind, notes) = first(&[("FLUENT_CONTAINER_TAIL_EXCLUDE_PATH", excluded)]);
    assert!(
        matches!(kind, SourceKind::Kubernetes { exclude_namespaces, .. } if exclude_namespaces == ["kube-system"])
    );
    assert_eq!(notes, 1);
    let has_journal = |value: &str| {
        let config = Case::new().env(&[("FLUENTD_SYSTEMD_CONF", value)]).config();
        config.logs.sources.iter().any(|source| matches!(source.kind, SourceKind::Journal { .. }))
    };
    assert!(has_journal("systemd.conf") && !has_journal("disable"));
    let (kind, _) = first(&[("FLUENT_CONTAINER_TAIL_PATH", "/data/*.log,/more/*.log")]);
    assert!(matches!(kind, SourceKind::Files { include, .. } if include == ["/data/*.log", "/more/*.log"]));
}

#[test]
fn the_node_s_name_has_several_variables() {
    let name = |env: &[(&str, &str)]| Case::new().env(env).config().node_name;
    assert_eq!(name(&[]), "node-1");
    assert_eq!(name(&[("K8S_NODE_NAME", "b"), ("VECTOR_SELF_NODE_NAME", "c")]), "b");
    assert_eq!(name(&[("K8S_NODE_NAME", "b"), ("NODE_NAME", "a")]), "a");
}

#[test]
fn secrets_are_read_from_files_and_never_printed() {
    let case = Case::new();
    let key = case.write("key", "hush-hush\n");
    let file = format!("elasticsearch: {{hosts: [es], auth: {{api_key_file: {}}}}}", key.display());
    let case = Case { dir: case.dir, ..Case::new() }.file(file);
    let config = case.config();
    assert!(
        matches!(&config.elasticsearch.as_ref().unwrap().auth, Auth::ApiKey(key) if key.read().unwrap().expose() == "hush-hush")
    );
    assert!(!format!("{config:?}").contains("hush"));
    assert!(!case.check().1.contains("hush"));
    let env =
        [("ELASTICSEARCH_HOST", "es"), ("ELASTICSEARCH_USERNAME", "u"), ("ELASTICSEARCH_PASSWORD", "hush")];
    let (ok, printed) = Case::new().env(&env).check();
    assert!(ok && printed.contains("# password: ***") && !printed.contains("hush"), "{printed}");
}

#[test]
fn one_layer_s_password_never_meets_another_layer_s_user() {
    let case = Case::new();
    let key = case.write("key", "k");
    let file = format!("elasticsearch: {{hosts: [es], auth: {{bearer_file: {}}}}}", key.display());
    let env = [("ELASTICSEARCH_USERNAME", "u"), ("ELASTICSEARCH_PASSWORD", "p")];
    let case = Case { dir: case.dir, ..Case::new() }.file(file).env(&env);
    assert!(matches!(case.config().elasticsearch.unwrap().auth, Auth::Bearer(_)));
}

#[test]
fn two_ways_to_prove_who_we_are_are_a_mistake() {
    let case = Case::new();
    let key = case.write("key", "k").display().to_string();
    let text =
        format!("elasticsearch:\n  hosts: es\n  auth:\n    api_key_file: {key}\n    bearer_file: {key}\n");
    let said = Case { dir: case.dir, ..Case::new() }.file(text).mistakes();
    assert_eq!(
        said,
        "config.yaml:5:18: elasticsearch.auth.bearer_file: api_key_file and bearer_file are two methods; keep one\n1 mistake"
    );
}

#[test]
fn a_pod_s_mounts_are_used_unless_a_flag_says_otherwise() {
    let mut case = Case::new().flags(&["--path.sysfs=/sys"]);
    case.machine.mounts = vec!["/host/proc", "/host/sys", "/rootfs"];
    let loaded = case.load().unwrap();
    let host = &loaded.config.host;
    assert_eq!(
        (&host.procfs, &host.sysfs, &host.rootfs),
        (&"/host/proc".into(), &"/sys".into(), &"/rootfs".into())
    );
    assert_eq!(loaded.notes, ["the host is seen through /host/proc, /rootfs; --path.* says otherwise"]);
}

#[test]
fn an_unwritable_state_directory_gives_way_to_the_user_s() {
    let mut case = Case::new();
    case.machine.other_state_dir = Some("/home/ada/.local/state/nodewarden".into());
    let loaded = case.load().unwrap();
    assert_eq!(loaded.config.state_dir, Path::new("/home/ada/.local/state/nodewarden"));
    assert_eq!(loaded.notes.len(), 1);
    assert_eq!(case.flags(&["--state.dir=/s"]).config().state_dir, Path::new("/s"));
}

#[test]
fn memory_is_a_share_of_what_the_kernel_grants() {
    let memory = |granted| {
        let mut case = Case::new();
        case.machine.memory_limit = granted;
        case.config().memory_limit
    };
    assert_eq!(memory(None), 64 << 20);
    assert_eq!(memory(Some(1 << 40)), 64 << 20);
    assert_eq!(memory(Some(50 << 20)), 30 << 20);
    assert_eq!(memory(Some(1 << 20)), 16 << 20);
}

#[test]
fn collectors_are_chosen_by_name() {
    let enabled = |case: Case| case.config().metrics.enabled;
    assert!(enabled(Case::new()).contains(&"loadavg"));
    assert!(!enabled(Case::new().file("metrics: {loadavg: false}")).contains(&"loadavg"));
    let back = Case::new().file("metrics: {loadavg: {enabled: false}}").flags(&["--collector.loadavg"]);
    assert!(enabled(back).contains(&"loadavg"));
    assert_eq!(enabled(Case::new().flags(&["--collector.disable-defaults"])), [""; 0]);
    let only = Case::new().flags(&["--collector.disable-defaults", "--collector.loadavg"]);
    assert_eq!(enabled(only), ["loadavg"]);
    let said = Case::new().flags(&["--collector.loadavg", "--no-collector.loadavg"]).mistakes();
    assert_eq!(said, "--collector.loadavg: given 2 times; keep one\n1 mistake");
}

#[test]
fn every_option_of_every_collector_is_flag_and_key() {
    for entry in node::ALL {
        for flag in entry.flags {
            let value = flag.default;
            let given = match (flag.kind, value) {
                (FlagKind::Bool, "false") => format!("--no-collector.{}", flag.name),
                (FlagKind::Bool, _) => format!("--collector.{}", flag.name),
                _ => format!("--collector.{}={value}", flag.name),
            };
            let (group, word) = flag.name.split_once('.').expect("a flag begins with its section");
            let file = format!("metrics: {{{group}: {{{word}: '{value}'}}}}");
            let by_flag = Case::new().flags(&[&given]).config().metrics;
            let by_file = Case::new().file(file).config().metrics;
            assert_eq!(by_flag.settings[flag.name], [value], "{}", flag.name);
            assert_eq!(by_flag, by_file, "{}", flag.name);
        }
        let off = Case::new().file(format!("metrics: {{{}: false}}", entry.name)).config();
        assert!(!off.metrics.enabled.contains(&entry.name));
    }
}

#[test]
fn an_impossible_regex_is_found_at_its_place() {
    for entry in node::ALL {
        for flag in entry.flags.iter().filter(|flag| flag.kind == FlagKind::Regex) {
            let on = format!("--collector.{}", entry.name);
            let said = Case::new().flags(&[&on, &format!("--collector.{}=(", flag.name)]).mistakes();
            assert_eq!(
                said,
                format!("--collector.{}: not a regular expression: unclosed group\n1 mistake", flag.name)
            );
            let (group, word) = flag.name.split_once('.').expect("a flag begins with its section");
            let said =
                Case::new().flags(&[&on]).file(format!("metrics:\n  {group}:\n    {word}: '('\n")).mistakes();
            assert!(said.starts_with("config.yaml:3:") && said.contains("unclosed group"), "{said}");
        }
    }
}

const FLAGS: &[&str] = &[
    "admin.listen-address",
    "config.file",
    "elasticsearch.hosts",
    "log.level",
    "path.procfs",
    "runtime.gomaxprocs",
    "state.dir",
    "web.config.file",
    "web.listen-address",
    "web.max-requests",
    "web.telemetry-path",
];

/// Lines that look like a configuration, in any order and indentation.
fn nearly_yaml() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("elasticsearch"),
        Just("hosts"),
        Just("auth"),
        Just("logs"),
        Just("sources"),
        Just("metrics"),
        Just("kubernetes"),
        Just("files"),
        Just("store"),
        Just("loadavg"),
        Just("enabled"),
        Just("index"),
    ];
    let value = prop_oneof![
        Just(""),
        Just(" {"),
        Just(" ["),
        Just(" []"),
        Just(" 5%"),
        Just(" ${A"),
        Just(" '"),
        Just(" &a *a"),
        Just(" !!x 1")
    ];
    let line = (0..4usize, prop_oneof![Just(""), Just("- ")], word, value)
        .prop_map(|(depth, dash, word, value)| format!("{}{dash}{word}:{value}\n", "  ".repeat(depth)));
    proptest::collection::vec(line, 0..12).prop_map(|lines| lines.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_as_a_file_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Case::new().file(bytes).load();
    }

    #[test]
    fn any_nearly_right_file_is_answered_with_places(text in nearly_yaml()) {
        if let Err(said) = Case::new().file(&text).load() {
            for line in said.lines().filter(|line| !line.ends_with("mistake") && !line.ends_with("mistakes")) {
                prop_assert!(line.starts_with("config.yaml:"), "{text}\n{said}");
            }
        }
    }

    #[test]
    fn any_flag_value_is_answered(name in 0..FLAGS.len(), value: String) {
        let flag = format!("--{}={value}", FLAGS[name]);
        if let Err(said) = Case::new().flags(&[&flag]).load() {
            prop_assert!(said.starts_with(&format!("--{}: ", FLAGS[name])), "{said}");
        }
    }

    #[test]
    fn any_environment_is_answered(values: BTreeMap<String, String>, host: String, port: String, paths: String) {
        let env = [
            ("FLUENT_ELASTICSEARCH_HOST", host.as_str()),
            ("FLUENT_ELASTICSEARCH_PORT", &port),
            ("FLUENT_ELASTICSEARCH_LOGSTASH_PREFIX", &port),
            ("FLUENT_CONTAINER_TAIL_EXCLUDE_PATH", &paths),
            ("NODE_NAME", &host),
        ];
        let mut case = Case::new().env(&env);
        case.env.extend(values);
        let _ = case.load();
    }
}
