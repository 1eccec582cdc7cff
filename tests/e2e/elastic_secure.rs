//! A real Elasticsearch with TLS, users and API keys: who the agent is, whom it trusts, and what it says when that is wrong.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use serde_json::json;
use tempfile::TempDir;

use crate::{
    elastic::{Pods, assert_each_once},
    support::{
        Agent, Elastic, LogDir, PASSWORD, USER, assert_ledger, pods_config, same, seconds, temp_dir,
        wait_until,
    },
};

/// A secret as the kubelet mounts it: files are links into a folder that is swapped as a whole.
struct Secret {
    dir: TempDir,
    version: u32,
}

impl Secret {
    fn new(text: &str) -> Self {
        let mut secret = Self { dir: temp_dir(), version: 0 };
        secret.set(text);
        symlink("..data/secret", secret.path()).expect("linked");
        secret
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("secret")
    }

    fn set(&mut self, text: &str) {
        self.version += 1;
        let version = format!("..{}", self.version);
        let folder = self.dir.path().join(&version);
        fs::create_dir(&folder).expect("made");
        fs::write(folder.join("secret"), text).expect("written");
        let link = self.dir.path().join("..data_tmp");
        symlink(&version, &link).expect("linked");
        fs::rename(link, self.dir.path().join("..data")).expect("swapped");
    }
}

/// An agent's configuration with these further lines below `elasticsearch`, and the data stream of its lines.
fn shipping(logs: &LogDir, url: &str, name: &str, further: &str) -> (String, String) {
    let pods = pods_config(logs);
    let section =
        format!("elasticsearch:\n  hosts: ['{url}']\n  index: 'logs-{{dataset}}-{name}'\n{further}");
    (format!("{pods}{section}"), format!("logs-kubernetes.container_logs-{name}"))
}

fn tls(ca: &Path) -> String {
    format!("  tls: {{ca: {}}}\n", ca.display())
}

fn held(agent: &Agent, reason: &str) -> f64 {
    agent.metric("nodewarden_elasticsearch_held", &[&format!("\"{reason}\"")])
}

#[track_caller]
fn wait_for_held(agent: &Agent, reason: &str, is_held: bool) {
    wait_until(&format!("held for {reason} is {is_held}"), seconds(60), || {
        same(&(held(agent, reason) > 0.0), &is_held).map_err(|seen| format!("{seen}:\n{}", agent.log()))
    });
}

#[track_caller]
fn wait_for_word(agent: &Agent, words: &str) {
    wait_until(&format!("it says {words}"), seconds(60), || {
        if agent.log().contains(words) { Ok(()) } else { Err(agent.log()) }
    });
}

#[test]
fn a_revoked_key_loses_nothing_and_a_new_one_in_the_file_delivers_all() {
    let (elastic, logs) = (Elastic::secured(), LogDir::new());
    let (id, first) = elastic.api_key(&["logs-*"], &["auto_configure", "create_doc"]);
    let mut secret = Secret::new(&first);
    let further = format!("{}  auth: {{api_key_file: {}}}\n", tls(elastic.ca()), secret.path().display());
    let (config, index) = shipping(&logs, &elastic.url(), "revoked", &further);
    let agent = Agent::start(&config, &[]);
    let mut pods = Pods::new(&logs, 3);
    pods.write(50);
    assert_each_once(elastic, &index, &pods.written);
    elastic.revoke(&id);
    pods.write(50);
    wait_for_held(&agent, "unauthorized", true);
    assert_eq!(agent.get("/readyz").status, 200, "the node's metrics are fine");
    let sentence = format!("write a valid API key into {}", secret.path().display());
    wait_for_word(&agent, &sentence);
    let reason = agent.admin("/api/v1/status").json()["sink"]["reason"].to_string();
    assert!(reason.contains("HTTP 401") && reason.contains(&sentence), "{reason}");
    pods.write(50);
    let (_, second) = elastic.api_key(&["logs-*"], &["auto_configure", "create_doc"]);
    secret.set(&second);
    assert_each_once(elastic, &index, &pods.written);
    wait_for_held(&agent, "unauthorized", false);
    assert_ledger(&agent);
    let said = agent.log();
    assert_eq!(said.matches(&sentence).count(), 1, "once a minute:\n{said}");
    let pages =
        said + &agent.admin("/api/v1/config").text() + &agent.get("/metrics?collect[]=loadavg").text();
    assert!(![first, second].iter().any(|secret| pages.contains(secret.as_str())), "a secret is printed");
}

#[test]
fn what_a_key_may_not_write_waits_and_holds_up_nothing_else() {
    let (elastic, logs) = (Elastic::secured(), LogDir::new());
    let (_, few) =
        elastic.api_key(&["logs-kubernetes.container_logs-rights"], &["auto_configure", "create_doc"]);
    let mut secret = Secret::new(&few);
    fs::write(logs.path().join("app.log"), "forbidden line\n").expect("written");
    let config = format!(
        "{}    - files: {{include: ['{}'], index: elsewhere}}\nelasticsearch:\n  hosts: ['{}']\n  \
         index: 'logs-{{dataset}}-rights'\n  auth: {{api_key_file: {}}}\n{}",
        pods_config(&logs),
        logs.path().join("app.log").display(),
        elastic.url(),
        secret.path().display(),
        tls(elastic.ca()),
    );
    let agent = Agent::start(&config, &[]);
    let mut pods = Pods::new(&logs, 2);
    pods.write(20);
    wait_for_held(&agent, "forbidden", true);
    assert_each_once(elastic, "logs-kubernetes.container_logs-rights", &pods.written);
    assert_eq!(agent.metric("nodewarden_log_dead_letters_total", &[]), 0.0);
    let (_, many) = elastic.api_key(&["*"], &["auto_configure", "create_doc", "create_index"]);
    secret.set(&many);
    assert_each_once(elastic, "elsewhere", &["forbidden line".to_owned()]);
    wait_for_held(&agent, "forbidden", false);
    assert_ledger(&agent);
}

#[test]
fn a_wrong_password_is_said_and_the_right_one_in_the_file_delivers() {
    let (elastic, logs) = (Elastic::secured(), LogDir::new());
    let mut secret = Secret::new("an-old-password");
    let auth = format!("  auth: {{username: {USER}, password_file: {}}}\n", secret.path().display());
    let (config, index) = shipping(&logs, &elastic.url(), "password", &(tls(elastic.ca()) + &auth));
    let agent = Agent::start(&config, &[]);
    let mut pods = Pods::new(&logs, 1);
    pods.write(10);
    wait_for_word(&agent, &format!("check the user {USER} and the password in {}", secret.path().display()));
    secret.set(PASSWORD);
    assert_each_once(elastic, &index, &pods.written);
    assert!(!agent.log().contains("an-old-password") && !agent.log().contains(PASSWORD));
}

#[test]
fn who_is_not_trusted_and_who_speaks_otherwise_is_said_in_plain_words() {
    let (secured, plain, logs) = (Elastic::secured(), Elastic::shared(), LogDir::new());
    Pods::new(&logs, 1).write(1);
    let at = |elastic: &Elastic| elastic.url().split_once("://").expect("a scheme").1.to_owned();
    let named = format!(
        "{}  auth: {{username: {USER}, password_file: /proc/sys/kernel/ostype}}\n",
        tls(secured.ca())
    );
    for (url, further, expected) in [
        (
            secured.url(),
            "",
            format!("certificate of {} is signed by an unknown CA: set elasticsearch.tls.ca", at(secured)),
        ),
        (
            secured.url(),
            "  tls: {insecure_skip_verify: true}\n",
            "the server asks who this is: set elasticsearch.auth".into(),
        ),
        (secured.url(), named.as_str(), format!("check the user {USER}")),
        (secured.url().replace("https:", "http:"), "", format!("{} speaks TLS: write https://", at(secured))),
        (
            plain.url().replace("http:", "https:"),
            "",
            format!("{} does not speak TLS: write http://", at(plain)),
        ),
    ] {
        let (config, _) = shipping(&logs, &url, "nobody", further);
        let agent = Agent::start(&config, &[]);
        wait_for_word(&agent, &expected);
        assert_eq!(agent.get("/readyz").status, 200);
    }
}

#[test]
fn a_closed_index_waits_until_it_is_open() {
    let (elastic, logs) = (Elastic::shared(), LogDir::new());
    elastic.put("/closed-for-a-while", &json!({}));
    elastic.post("/closed-for-a-while/_close");
    let config = format!(
        "{}elasticsearch:\n  hosts: ['{}']\n  index: closed-for-a-while\n",
        pods_config(&logs),
        elastic.url()
    );
    let agent = Agent::start(&config, &[]);
    let mut pods = Pods::new(&logs, 2);
    pods.write(10);
    wait_for_held(&agent, "index_closed", true);
    assert_eq!(agent.metric("nodewarden_log_dead_letters_total", &[]), 0.0);
    elastic.post("/closed-for-a-while/_open");
    assert_each_once(elastic, "closed-for-a-while", &pods.written);
    wait_for_held(&agent, "index_closed", false);
}
