//! The chart, the manifest that is rendered from it, its alerts and its dashboards, by the programs that will read them.

use std::{
    env,
    fmt::Write as _,
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use serde_json::{Value, json};

use crate::{
    elastic::{Pods, shipping},
    support::{
        Agent, ApiServer, Elastic, Gpus, LogDir, Prometheus, promtool_test_rules, repository, seconds,
        temp_dir, wait_until,
    },
};

const MANIFEST: &str = "deploy/nodewarden.yaml";
const STATIC_POD: &str = "deploy/static-pod.yaml";

fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Compares a file with what it has to be; UPDATE_GOLDEN=1 writes it.
fn assert_golden(path: &str, expected: &str) {
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(repository().join(path), expected).expect("written");
    }
    assert!(read(path) == expected, "{path} is not what the chart says; UPDATE_GOLDEN=1 writes it again");
}

/// A program that a machine may lack; that is said.
fn optional(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path)
        .chain([repository().join("target/tools/bin")])
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file());
    if found.is_none() {
        eprintln!("left out: no {name} here, tests/servers/install.sh installs it");
    }
    found
}

/// What Helm says of the chart with these arguments; `None` where there is no Helm.
fn helm(arguments: &[&str]) -> Option<Output> {
    let program = optional("helm")?;
    Some(Command::new(program).args(arguments).current_dir(repository()).output().expect("helm runs"))
}

fn render(settings: &[&str]) -> Option<Output> {
    // Of no cluster in particular: without it Helm takes the version that it was built with.
    let cluster = "--kube-version=1.35.0";
    let arguments = ["template", "nodewarden", "charts/nodewarden", "--namespace=nodewarden", cluster];
    helm(&[&arguments, settings].concat())
}

#[track_caller]
fn good(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

/// Every setting that adds an object or changes its shape, but those for the Prometheus operator's kinds.
const SETTINGS: &[&[&str]] = &[
    &[],
    &["--set=profile=metrics"],
    &["--set=profile=logs,metadata=path"],
    &["--set=metadata=kubelet"],
    &["--set=metadata=kubelet,rbac.nodesProxy=true"],
    &["--set=security.privileged=true,gpu.runtimeClassName=nvidia"],
    &["--set=security.runAsUser=0,security.capabilities={SYS_PTRACE}"],
    &["--set=hostNetwork=false,networkPolicy.enabled=true"],
    &["--set=probes.exec=true,secretName=elastic,extraArgs={--collector.systemd},adminListenAddress="],
    &["--set=dashboards.enabled=true,serviceAccount.create=false,priorityClass.name=system-node-critical"],
    &[
        "--set=imagePullSecrets[0].name=pull,extraEnv[0].name=A,extraEnv[0].value=b,updateStrategy.type=OnDelete,updateStrategy.rollingUpdate=null",
    ],
];

/// Where objects of a kind are made; an empty text for those that belong to no namespace.
const KINDS: &[(&str, &str, &str)] = &[
    ("Namespace", "/api/v1", "namespaces"),
    ("PriorityClass", "/apis/scheduling.k8s.io/v1", "priorityclasses"),
    ("ClusterRole", "/apis/rbac.authorization.k8s.io/v1", "clusterroles"),
    ("ClusterRoleBinding", "/apis/rbac.authorization.k8s.io/v1", "clusterrolebindings"),
    ("ServiceAccount", "/api/v1/namespaces/nodewarden", "serviceaccounts"),
    ("ConfigMap", "/api/v1/namespaces/nodewarden", "configmaps"),
    ("DaemonSet", "/apis/apps/v1/namespaces/nodewarden", "daemonsets"),
    ("NetworkPolicy", "/apis/networking.k8s.io/v1/namespaces/nodewarden", "networkpolicies"),
];

#[test]
fn the_manifest_is_the_chart_rendered() {
    let Some(rendered) = render(&["--set=namespace.create=true"]) else { return };
    let note = "# Rendered from charts/nodewarden: `helm template` with namespace.create. Change values there, not here.\n";
    assert_golden(MANIFEST, &format!("{note}{}", good(&rendered)));
}

#[test]
fn the_chart_is_of_this_version() {
    let version = format!("\nappVersion: {}\n", env!("CARGO_PKG_VERSION"));
    assert!(read("charts/nodewarden/Chart.yaml").contains(&version));
}

#[test]
fn helm_finds_nothing_to_complain_of() {
    for settings in SETTINGS {
        let Some(said) =
            helm(&[&["lint", "--strict", "--kube-version=1.35.0", "charts/nodewarden"], *settings].concat())
        else {
            return;
        };
        good(&said);
    }
}

#[test]
fn wrong_values_are_refused_with_their_name() {
    for (setting, name) in [
        ("profile=everything", "profile"),
        ("elasticsearch.hosts={a}", "elasticsearch"),
        ("port=0", "port"),
        ("security.capabilities={CAP_SYSLOG}", "capabilities"),
        ("image.digest=latest", "digest"),
        ("networkPolicy.enabled=true", "hostNetwork=false"),
    ] {
        let Some(said) = render(&[&format!("--set={setting}")]) else { return };
        let words = String::from_utf8_lossy(&said.stderr);
        assert!(!said.status.success() && words.contains(name), "{setting}: {words}");
    }
}

#[test]
fn a_real_api_server_takes_every_object() {
    let Some(api) = ApiServer::start() else { return };
    api.make("/api/v1/namespaces", &json!({"metadata": {"name": "nodewarden"}}));
    let rendered: Vec<_> =
        SETTINGS.iter().map_while(|settings| render(settings)).map(|said| good(&said)).collect();
    for manifest in rendered.iter().chain([&read(MANIFEST)]) {
        for object in manifest.split("\n---\n").filter(|object| object.contains("\nkind: ")) {
            let kind = object.lines().find_map(|line| line.strip_prefix("kind: ")).expect("a kind");
            let known = KINDS.iter().find(|(name, ..)| *name == kind);
            let (_, base, plural) = known.unwrap_or_else(|| panic!("{kind} is made nowhere"));
            let path = format!("{base}/{plural}?dryRun=All&fieldValidation=Strict");
            let said = api.try_yaml(&path, object);
            let exists =
                kind == "Namespace" && said.as_ref().is_err_and(|error| error.contains("already exists"));
            assert!(said.is_ok() || exists, "{said:?}\n{object}");
        }
    }
}

#[test]
fn the_health_script_counts_nodes_with_a_ready_agent() {
    let (Some(kubectl), Some(api)) = (optional("kubectl"), ApiServer::start()) else { return };
    let daemon_set = "/apis/apps/v1/namespaces/shop/daemonsets";
    let labels = json!({"app": "nodewarden"});
    api.make(
        daemon_set,
        &json!({
            "metadata": {"name": "agent"},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"containers": [{"name": "nodewarden", "image": "nodewarden:1"}]},
                },
            },
        }),
    );
    let bin = kubectl.parent().expect("its folder");
    let path = format!("{}:{}", bin.display(), env::var("PATH").unwrap_or_default());
    let ask = |arguments: &[&str]| {
        let said = Command::new(repository().join("charts/nodewarden/fleet-health.sh"))
            .args(["-n", "shop", "-d", "agent"])
            .args(arguments)
            .env("KUBECONFIG", api.kubeconfig())
            .env("PATH", &path)
            .output()
            .expect("the script runs");
        (said.status.code(), String::from_utf8_lossy(&said.stdout).into_owned())
    };
    // Nobody has counted yet; then somebody has, and no node wants one.
    assert!(ask(&[]).1.contains("has not looked at the newest revision"));
    api.change(&format!("{daemon_set}/agent/status"), &json!({"status": {"observedGeneration": 1}}));
    assert_eq!(ask(&[]), (Some(0), "desired=0 ready=0 updated=0 misscheduled=0\n".into()));
    api.change(
        &format!("{daemon_set}/agent/status"),
        &json!({"status": {
            "desiredNumberScheduled": 3, "currentNumberScheduled": 3, "numberReady": 1, "updatedNumberScheduled": 2,
            "numberMisscheduled": 1, "observedGeneration": 1,
        }}),
    );
    // Running, but its condition says nothing of being ready; the other two pods are missing.
    api.make_pod("agent-a", "node-7", &json!({"labels": labels}));
    let (code, said) = ask(&[]);
    assert_eq!(code, Some(1), "{said}");
    for expected in [
        "desired=3 ready=1 updated=2 misscheduled=1\n",
        "rollout: 1 nodes still have the old revision\n",
        "  node-7 agent-a Running\n",
        "  2 pods were not even made",
    ] {
        assert!(said.contains(expected), "{said}");
    }
    assert_eq!(ask(&["-t", "33"]).0, Some(0));
    assert_eq!(ask(&["-d", "nobody"]).0, Some(2));
    assert_eq!(ask(&["-t", "many"]).0, Some(2));
}

#[test]
fn the_manifests_fit_the_schemas_of_old_and_new_clusters() {
    let Some(program) = optional("kubernetes-validate") else { return };
    for version in ["1.25", "1.37"] {
        let validate = Command::new(&program)
            .args(["--strict", "-k", version, MANIFEST, STATIC_POD])
            .current_dir(repository())
            .output()
            .expect("kubernetes-validate runs");
        good(&validate);
    }
}

/// What it finds wrong and is meant so.
const MEANT: &[(&str, &str)] = &[
    ("container-image-pull-policy", "a tag is one image; a node must come up while the registry is away"),
    (
        "container-security-context-user-group-id",
        "pod logs belong to root's group, and root alone can give a folder away",
    ),
    ("pod-networkpolicy", "it has no effect in the node's network"),
    (
        "container-ephemeral-storage-request-and-limit",
        "the root can't be written, and the state is on the node",
    ),
];

#[test]
fn kube_score_finds_nothing_but_what_is_meant() {
    let Some(program) = optional("kube-score") else { return };
    for manifest in [MANIFEST, STATIC_POD] {
        let mut score = Command::new(&program);
        score.args(["score", manifest]).current_dir(repository());
        score.args(MEANT.iter().flat_map(|(check, _)| ["--ignore-test", *check]));
        good(&score.output().expect("kube-score runs"));
    }
}

#[test]
fn every_alert_fires_on_who_is_ill_and_on_nobody_else() {
    let (rules, tests) = (read("charts/nodewarden/alerts/nodewarden.yaml"), read("tests/charts/alerts.yaml"));
    let names: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() > 30, "{names:?}");
    for name in names {
        assert!(
            tests.contains(&format!("alertname=\"{name}\"")),
            "{name} is not in tests/charts/alerts.yaml"
        );
    }
    good(&promtool_test_rules(&repository().join("tests/charts/alerts.yaml")));
}

/// What a cluster's kube-state-metrics says, which the agent hands on as a text file.
const CLUSTER: &str = "kube_daemonset_status_desired_number_scheduled{namespace=\"mon\",daemonset=\"nodewarden\"} 3
kube_daemonset_status_number_ready{namespace=\"mon\",daemonset=\"nodewarden\"} 2
kube_daemonset_status_updated_number_scheduled{namespace=\"mon\",daemonset=\"nodewarden\"} 2
kube_daemonset_status_number_misscheduled{namespace=\"mon\",daemonset=\"nodewarden\"} 0
kube_node_info{node=\"node-1\"} 1
kube_node_info{node=\"node-2\"} 1
kube_pod_info{namespace=\"mon\",pod=\"nodewarden-a\",node=\"node-1\",created_by_kind=\"DaemonSet\",created_by_name=\"nodewarden\"} 1
kube_pod_container_status_restarts_total{namespace=\"mon\",pod=\"nodewarden-a\",container=\"nodewarden\"} 1
kube_pod_container_status_waiting_reason{namespace=\"mon\",pod=\"nodewarden-b\",container=\"nodewarden\",reason=\"ErrImagePull\"} 1
kube_pod_container_status_last_terminated_reason{namespace=\"mon\",pod=\"nodewarden-a\",container=\"nodewarden\",reason=\"OOMKilled\"} 1
";

#[test]
fn every_query_of_every_dashboard_has_data() {
    let (logs, elastic, cluster) = (LogDir::new(), Elastic::shared(), temp_dir());
    fs::write(cluster.path().join("cluster.prom"), CLUSTER).expect("written");
    let (config, index) = shipping(&logs, elastic, "dashboards");
    // A feature that is off for sure, for the table of those.
    let gpus = Gpus::new(1);
    let library = gpus.library();
    let config = format!(
        "{config}kubernetes: {{metadata: path}}\ngpu: {{interval: 1s, library: {}}}\n",
        library.display()
    );
    let mut pods = Pods::new(&logs, 2);
    pods.write(10);
    let textfiles = format!("--collector.textfile.directory={}", cluster.path().display());
    let [procfs, _] = gpus.flags();
    let agent = Agent::start(&config, &[&textfiles, &procfs]);
    let prometheus = Prometheus::start(&agent.metrics);
    wait_until("lines are shipped", seconds(60), || match elastic.count(&index)? {
        0 => Err(agent.log()),
        _ => Ok(()),
    });

    wait_until("the GPU is read", seconds(60), || match agent.get("/metrics").text() {
        page if page.contains("DCGM_FI_DEV_GPU_TEMP{") => Ok(()),
        page => Err(page),
    });
    // Every series has something to say.
    gpus.set(&[("0.compute", "100:10"), ("0.nvmlDeviceGetDecoderUtilization!", "4")]);
    gpus.driver_tells("0 31");

    let mut asked = 0;
    for file in fs::read_dir(repository().join("charts/nodewarden/dashboards")).expect("dashboards") {
        let path = file.expect("a file").path();
        let dashboard: Value = serde_json::from_str(&fs::read_to_string(&path).expect("read")).expect("JSON");
        for panel in dashboard["panels"].as_array().expect("panels") {
            for target in panel["targets"].as_array().expect("targets") {
                let written = target["expr"].as_str().expect("a query");
                // A machine whose kernel does not measure it.
                if written.contains("node_pressure") && !fs::exists("/proc/pressure").expect("looked") {
                    continue;
                }
                asked += 1;
                let query = filled(written);
                wait_until(&format!("{}: {query} has data", path.display()), seconds(60), || {
                    // Rates need a change that goes on.
                    pods.write(1);
                    prometheus.has_data(&query)
                });
            }
        }
    }
    assert!(asked > 60, "{asked} queries");
}

/// A query as Grafana sends it when all is chosen.
fn filled(query: &str) -> String {
    let mut query = query.replace("$__rate_interval", "10s").replace("$__range", "1h");
    for variable in ["$job", "$instance", "$namespace", "$daemonset", "$gpu"] {
        query = query.replace(variable, ".*");
    }
    assert!(!query.contains('$'), "{query} has a variable that no dashboard fills");
    query
}

#[test]
fn the_table_of_values_is_that_of_the_values() {
    const BEGIN: &str = "<!-- values: made of values.yaml by tests/e2e/chart.rs -->\n";
    const END: &str = "<!-- end of values -->";
    let path = "charts/nodewarden/README.md";
    let readme = read(path);
    let (before, rest) = readme.split_once(BEGIN).expect("the beginning");
    let (_, after) = rest.split_once(END).expect("the end");
    let table = table_of(&read("charts/nodewarden/values.yaml"));
    assert_golden(path, &format!("{before}{BEGIN}{table}{END}{after}"));
}

/// One row for each value with a line of description above it.
fn table_of(values: &str) -> String {
    let mut table = String::from("| value | default | what it is |\n|---|---|---|\n");
    let (mut sections, mut description) = (Vec::<(usize, &str)>::new(), None);
    for line in values.lines() {
        let text = line.trim_start();
        let depth = line.len() - text.len();
        if let Some(words) = text.strip_prefix("# -- ") {
            description = Some(words);
            continue;
        }
        let Some((key, value)) = text.split_once(':').filter(|(key, _)| !key.contains(['#', '-', '{', ' ']))
        else {
            continue;
        };
        sections.retain(|(outer, _)| *outer < depth);
        sections.push((depth, key));
        if let Some(words) = description.take() {
            let name: Vec<&str> = sections.iter().map(|(_, name)| *name).collect();
            let value = match value.trim() {
                "" => "see values.yaml".to_owned(),
                value => format!("`{}`", value.replace('|', "\\|")),
            };
            writeln!(table, "| `{}` | {value} | {} |", name.join("."), words.replace('|', "\\|"))
                .expect("a text");
        }
    }
    table
}
