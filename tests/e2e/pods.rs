//! What a real Kubernetes API server says of pods becomes part of their lines, and is never needed for shipping them.

use serde_json::{Value, json};

use crate::support::{
    Agent, ApiServer, BulkServer, LogDir, Stream::Stdout, assert_ledger, pods_config, same, seconds,
    wait_until,
};

fn config(logs: &LogDir, sink: &BulkServer, api: &ApiServer) -> String {
    format!(
        "{}{}elasticsearch:\n  hosts: ['{}']\n  bulk: {{max_wait: 100ms}}\n",
        api.config("node-1"),
        pods_config(logs),
        sink.url()
    )
}

/// The document with this message, when it is there.
#[track_caller]
fn document(sink: &BulkServer, agent: &Agent, message: &str) -> Value {
    wait_until("the line is a document", seconds(30), || {
        sink.document(message).ok_or_else(|| format!("no {message:?}; the agent says:\n{}", agent.log()))
    })
}

fn keeping() -> BulkServer {
    let sink = BulkServer::start(1);
    sink.keep_documents();
    sink
}

#[test]
fn labels_owner_and_image_come_from_one_watch_of_this_node() {
    let Some(api) = ApiServer::start() else { return };
    let (logs, sink) = (LogDir::new(), keeping());
    let cart = json!({
        "labels": {"app": "cart", "app.kubernetes.io/name": "cart", "pod-template-hash": "7d9f8b"},
        "annotations": {"team/pager": "blue", "team/other": "no"},
        "ownerReferences": [{
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "cart-7d9f8b", "uid": "r", "controller": true,
        }],
    });
    let cart = api.make_pod("cart-1", "node-1", &cart);
    let far = api.make_pod("far-1", "node-2", &json!({"labels": {"app": "far"}}));
    let mut file = logs.container_of("shop", "cart-1", &cart, "app");
    file.line(Stdout, "before the agent");
    let mut agent = Agent::start(&config(&logs, &sink, &api), &[]);
    let first = document(&sink, &agent, "before the agent");
    let kubernetes = &first["kubernetes"];
    assert_eq!(
        kubernetes["labels"],
        json!({"app": "cart", "app_kubernetes_io/name": "cart", "pod-template-hash": "7d9f8b"})
    );
    assert_eq!(kubernetes["annotations"], json!({"team/pager": "blue"}));
    assert_eq!(kubernetes["deployment"]["name"], "cart");
    assert_eq!(kubernetes["pod"], json!({"name": "cart-1", "uid": cart, "ip": "10.1.2.3"}));
    assert_eq!(
        first["container"],
        json!({"id": "cart-1-id", "runtime": "containerd", "image": {"name": "shop/cart:3"}})
    );

    // A pod that starts now is known before its first line is shipped.
    let till = api.make_pod("till-1", "node-1", &json!({"labels": {"app": "till"}}));
    let mut till = logs.container_of("shop", "till-1", &till, "app");
    till.line(Stdout, "a new pod");
    assert_eq!(document(&sink, &agent, "a new pod")["kubernetes"]["labels"]["app"], "till");
    // A label that changes is another one from then on.
    api.change("/api/v1/namespaces/shop/pods/cart-1", &json!({"metadata": {"labels": {"app": "basket"}}}));
    let mut number = 0;
    wait_until("lines have the new label", seconds(30), || {
        number += 1;
        file.line(Stdout, &format!("line {number}"));
        let line = document(&sink, &agent, &format!("line {number}"));
        same(&line["kubernetes"]["labels"]["app"], &json!("basket"))
    });
    // Of another node's pods nothing is asked: their lines, which can't be here, would do without.
    let mut far = logs.container_of("shop", "far-1", &far, "app");
    far.line(Stdout, "far away");
    let far = document(&sink, &agent, "far away");
    assert_eq!((&far["kubernetes"]["metadata"], far["kubernetes"].get("labels")), (&json!("partial"), None));

    // The last lines of a pod that is gone by the time they are read, after a restart too.
    wait_until("what is known was written", seconds(60), || {
        let known = std::fs::read_to_string(agent.state_dir().join("pods.json")).unwrap_or_default();
        if known.contains("basket") { Ok(()) } else { Err(known) }
    });
    api.delete_pod("cart-1");
    file.line(Stdout, "after its end");
    assert_eq!(document(&sink, &agent, "after its end")["kubernetes"]["labels"]["app"], "basket");
    agent.kill_9();
    file.line(Stdout, "after its end and ours");
    agent.start_again();
    let last = document(&sink, &agent, "after its end and ours");
    assert_eq!(last["kubernetes"]["labels"]["app"], "basket");
    assert_eq!(last["container"]["id"], "cart-1-id");
    // Its watch has begun when it tells of a change.
    api.change("/api/v1/namespaces/shop/pods/till-1", &json!({"metadata": {"labels": {"app": "desk"}}}));
    wait_until("lines have the new label", seconds(30), || {
        number += 1;
        till.line(Stdout, &format!("till {number}"));
        let line = document(&sink, &agent, &format!("till {number}"));
        same(&line["kubernetes"]["labels"]["app"], &json!("desk"))
    });

    // All that was asked: one list each life, from the server's memory, and one watch, which is not over in the second.
    drop(agent);
    let list = "list /api/v1/pods?fieldSelector=spec.nodeName%3Dnode-1&resourceVersion=0 200";
    wait_until("both watches have ended", seconds(30), || {
        let (lists, watches): (Vec<_>, Vec<_>) =
            api.requests().into_iter().partition(|request| request.starts_with("list"));
        same(&lists, &vec![list.to_owned(); 2])?;
        let is_narrow = |watch: &String| {
            watch.starts_with("watch /api/v1/pods?fieldSelector=spec.nodeName%3Dnode-1&watch=1&")
        };
        if watches.len() == 2 && watches.iter().all(is_narrow) { Ok(()) } else { Err(watches.join("\n")) }
    });
}

#[test]
fn without_an_answer_lines_ship_as_partial_and_are_counted() {
    let Some(api) = ApiServer::start() else { return };
    let (logs, sink) = (LogDir::new(), keeping());
    let cart = api.make_pod("cart-1", "node-1", &json!({"labels": {"app": "cart"}}));
    api.set_token("nobody-token");
    let mut file = logs.container_of("shop", "cart-1", &cart, "app");
    file.line(Stdout, "not allowed");
    let agent = Agent::start(&config(&logs, &sink, &api), &[]);
    let line = document(&sink, &agent, "not allowed");
    assert_eq!(line["kubernetes"]["metadata"], "partial");
    assert_eq!(line["kubernetes"]["pod"]["name"], "cart-1");
    let partial = || agent.metric("nodewarden_log_metadata_partial_lines_total", &["shop"]);
    assert_eq!(partial(), 1.0);
    let feature = |words: &[&str]| agent.metric("nodewarden_feature_enabled", words);
    wait_until("the reason is on the page", seconds(10), || {
        let page = agent.get("/metrics?collect[]=loadavg").text();
        let said = page
            .contains("nodewarden_feature_enabled{feature=\"kubernetes_metadata\",reason=\"not allowed\"} 0");
        if said { Ok(()) } else { Err(page) }
    });
    assert!(agent.log().contains("role does not allow it"), "{}", agent.log());
    assert_eq!(feature(&["logs"]), 1.0);
}

#[test]
fn a_server_that_goes_away_holds_nothing_up_and_is_found_again() {
    let Some(api) = ApiServer::start() else { return };
    let (logs, sink) = (LogDir::new(), keeping());
    let cart = api.make_pod("cart-1", "node-1", &json!({"labels": {"app": "cart"}}));
    let mut file = logs.container_of("shop", "cart-1", &cart, "app");
    let agent = Agent::start(&config(&logs, &sink, &api), &[]);
    file.line(Stdout, "all is well");
    assert_eq!(document(&sink, &agent, "all is well")["kubernetes"]["labels"]["app"], "cart");
    let till = api.make_pod("till-1", "node-2", &json!({"labels": {"app": "till"}}));
    api.kill_9();
    file.line(Stdout, "it is away");
    assert_eq!(document(&sink, &agent, "it is away")["kubernetes"]["labels"]["app"], "cart");
    let mut new = logs.container_of("shop", "till-1", &till, "app");
    new.line(Stdout, "a new pod");
    assert_eq!(document(&sink, &agent, "a new pod")["kubernetes"]["metadata"], "partial");
    api.start_again();
    let back = api.make_pod("back-1", "node-1", &json!({"labels": {"app": "back"}}));
    let mut back = logs.container_of("shop", "back-1", &back, "app");
    let mut number = 0;
    wait_until("labels come again", seconds(120), || {
        number += 1;
        back.line(Stdout, &format!("line {number}"));
        let line = document(&sink, &agent, &format!("line {number}"));
        same(&line["kubernetes"]["labels"]["app"], &json!("back"))
    });
}

/// The pod is annotated while it writes: what it wants counts from then on, and what can't be understood is a note.
#[test]
fn annotations_count_when_they_are_made_and_odd_ones_are_notes_beside_the_file() {
    let Some(api) = ApiServer::start() else { return };
    let (logs, sink) = (LogDir::new(), keeping());
    let cart = api.make_pod("cart-1", "node-1", &json!({"labels": {"app": "cart"}}));
    let mut file = logs.container_of("shop", "cart-1", &cart, "app");
    file.line(Stdout, "DEBUG as it is");
    let agent = Agent::start(&config(&logs, &sink, &api), &[]);
    document(&sink, &agent, "DEBUG as it is");
    let annotate = |annotations: &Value| {
        let change = json!({"metadata": {"annotations": annotations}});
        api.change("/api/v1/namespaces/shop/pods/cart-1", &change);
    };
    let left_out = || agent.metric("nodewarden_log_rule_lines_total", &["rule=\"annotation\""]);
    let notes = || {
        let files = agent.admin("/api/v1/files").json();
        files["files"].as_array().expect("rows").iter().map(|row| row["notes"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(notes(), [json!([])]);

    annotate(&json!({
        "nodewarden.io/exclude-lines": "^DEBUG",
        "nodewarden.io/include-lines": "order|\\{",
        "nodewarden.io/json": "true",
        "nodewarden.io/excluude": "true",
        "fluentbit.io/parser": "apache2",
    }));
    let mut number = 0;
    wait_until("lines are left out", seconds(30), || {
        number += 1;
        file.line(Stdout, &format!("DEBUG order {number}"));
        if left_out() > 0.0 { Ok(()) } else { Err(agent.log()) }
    });
    file.line(Stdout, "none that is wanted");
    for _ in 0..3 {
        // JSON is recognised by several lines.
        file.line(Stdout, r#"{"message": "an order of fields", "price": 7}"#);
    }
    file.line(Stdout, "a last order");
    assert_eq!(document(&sink, &agent, "an order of fields")["json"]["price"], 7);
    document(&sink, &agent, "a last order");
    assert!(!sink.has("none that is wanted"));
    let said = notes();
    let text = said[0].to_string();
    assert!(text.contains("nodewarden.io/excluude") && text.contains("apache2"), "{text}");
    let row = &agent.admin("/api/v1/files").json()["files"][0];
    assert_eq!((&row["state"], &row["last_error"]), (&json!("open"), &Value::Null));
    let table = String::from_utf8(agent.run(&["files"]).stdout).expect("text");
    assert!(table.contains("nodewarden.io/excluude"), "{table}");
    let warnings = agent.log().matches("annotations of a pod are not followed").count();
    assert_eq!(warnings, 1, "{}", agent.log());

    // Without them all is as before.
    annotate(&json!({
        "nodewarden.io/exclude-lines": null, "nodewarden.io/include-lines": null, "nodewarden.io/json": null,
        "nodewarden.io/excluude": null, "fluentbit.io/parser": null,
    }));
    wait_until("lines ship again", seconds(30), || {
        number += 1;
        file.line(Stdout, &format!("DEBUG {number}"));
        if sink.has(&format!("DEBUG {}", number - 1)) { Ok(()) } else { Err(agent.log()) }
    });
    assert_eq!(notes(), [json!([])]);
    // All of it.
    annotate(&json!({"fluentbit.io/exclude": "true"}));
    let before = left_out();
    wait_until("everything is left out", seconds(30), || {
        number += 1;
        file.line(Stdout, &format!("order {number}"));
        if left_out() > before { Ok(()) } else { Err(agent.log()) }
    });
    assert_ledger(&agent);
}
