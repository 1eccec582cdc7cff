//! The metrics listener: the page as node_exporter serves it, and as Prometheus reads it.

use std::{fs, io::Read};

use flate2::read::GzDecoder;

use crate::support::{Agent, NO_LOGS, Prometheus, http, promtool_check, same, seconds, wait_until};

const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";
const NOTHING: &[&str] = &[];

/// The collectors that a page has samples of, by their own word on it.
fn collectors(page: &str) -> Vec<String> {
    let success = "node_scrape_collector_success{collector=\"";
    page.lines()
        .filter_map(|line| line.strip_prefix(success))
        .filter_map(|rest| rest.split('"').next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_page_is_text_with_every_default_collector() {
    let agent = Agent::start(NO_LOGS, NOTHING);
    let page = agent.get("/metrics");
    assert_eq!((page.status, page.header("content-type")), (200, Some(CONTENT_TYPE)));
    let page = page.text();
    for name in ["cpu", "diskstats", "filesystem", "loadavg", "meminfo", "netdev", "stat", "uname", "vmstat"]
    {
        let line = format!("node_scrape_collector_success{{collector=\"{name}\"}} ");
        assert!(page.contains(&line), "no {line}in\n{page}");
    }
    assert!(page.contains("nodewarden_build_info{"), "no build_info in\n{page}");
}

#[test]
fn gzip_is_used_when_asked_for() {
    let agent = Agent::start(NO_LOGS, NOTHING);
    let page = http::request("GET", &agent.metrics, "/metrics", &[("accept-encoding", "gzip")], b"");
    let page = page.expect("an answer");
    assert_eq!(
        (page.header("content-encoding"), page.header("content-type")),
        (Some("gzip"), Some(CONTENT_TYPE))
    );
    let mut text = String::new();
    GzDecoder::new(page.body.as_slice()).read_to_string(&mut text).expect("gzip of text");
    assert!(text.contains("\nnode_load1 "), "no load in\n{text}");
    assert_eq!(agent.get("/metrics").header("content-encoding"), None);
}

#[test]
fn collect_keeps_only_the_named() {
    let agent = Agent::start(NO_LOGS, NOTHING);
    let page = agent.get("/metrics?collect[]=loadavg&collect[]=meminfo").text();
    assert_eq!(collectors(&page), ["loadavg", "meminfo"]);
    assert!(page.contains("\nnode_load1 ") && !page.contains("node_cpu_seconds_total"), "in\n{page}");
    // As programs write it that escape the brackets.
    assert_eq!(collectors(&agent.get("/metrics?collect%5B%5D=uname").text()), ["uname"]);
}

#[test]
fn exclude_leaves_out_the_named() {
    let agent = Agent::start(NO_LOGS, NOTHING);
    let all = collectors(&agent.get("/metrics").text());
    let without = collectors(&agent.get("/metrics?exclude[]=loadavg&exclude[]=nonsense").text());
    let expected: Vec<String> = all.iter().filter(|name| *name != "loadavg").cloned().collect();
    assert_ne!(all, expected, "loadavg is on by default");
    assert_eq!(without, expected);
}

#[test]
fn filters_that_make_no_sense_are_refused_in_node_exporters_words() {
    let agent = Agent::start(NO_LOGS, &["--no-collector.loadavg"]);
    let missing =
        "Couldn't create filtered metrics handler: couldn't create collector: missing collector: nonsense";
    let disabled =
        "Couldn't create filtered metrics handler: couldn't create collector: disabled collector: loadavg";
    for (query, sentence) in [
        ("collect[]=cpu&exclude[]=stat", "Combined collect and exclude queries are not allowed."),
        ("collect[]=nonsense", missing),
        ("collect[]=loadavg", disabled),
    ] {
        let answer = agent.get(&format!("/metrics?{query}"));
        assert_eq!((answer.status, answer.text().trim_end()), (400, sentence), "for {query}");
    }
}

#[test]
fn a_collector_that_is_off_is_not_on_the_page() {
    let agent = Agent::start(NO_LOGS, &["--collector.disable-defaults", "--collector.uname"]);
    assert_eq!(collectors(&agent.get("/metrics").text()), ["uname"]);
}

#[test]
fn the_root_links_to_the_metrics_and_health_is_answered() {
    let agent = Agent::start(NO_LOGS, NOTHING);
    let root = agent.get("/");
    assert_eq!(root.status, 200);
    assert!(root.header("content-type").is_some_and(|kind| kind.starts_with("text/html")), "{root:?}");
    assert!(root.text().contains("href=\"/metrics\""), "{}", root.text());
    for path in ["/healthz", "/livez", "/health", "/-/healthy"] {
        assert_eq!(agent.get(path).status, 200, "for {path}");
    }
    // Ready once it has looked for logs, a moment after it listens.
    for path in ["/readyz", "/-/ready"] {
        wait_until(&format!("{path} answers 200"), seconds(10), || match agent.get(path).status {
            200 => Ok(()),
            other => Err(format!("it answers {other}")),
        });
    }
}

#[test]
fn other_paths_are_not_found_and_head_has_no_body() {
    let agent = Agent::start(NO_LOGS, NOTHING);
    for path in ["/metrics/", "/favicon.ico", "/nonsense"] {
        assert_eq!(agent.get(path).status, 404, "for {path}");
    }
    let head = http::request("HEAD", &agent.metrics, "/metrics", &[], b"").expect("an answer");
    assert_eq!((head.status, head.header("content-type")), (200, Some(CONTENT_TYPE)));
}

#[test]
fn the_telemetry_path_can_be_another() {
    let agent = Agent::start(NO_LOGS, &["--web.telemetry-path=/node"]);
    assert_eq!((agent.get("/node").status, agent.get("/metrics").status), (200, 404));
}

#[test]
fn promtool_finds_only_what_it_finds_in_node_exporters_names() {
    let agent = Agent::start(NO_LOGS, NOTHING);
    let output = promtool_check(&agent.get("/metrics").body);
    let findings = String::from_utf8_lossy(&output.stderr).into_owned();
    let surprises: Vec<&str> = findings.lines().filter(|finding| !is_node_exporters(finding)).collect();
    assert!(surprises.is_empty(), "{surprises:#?}");
    // 3 is its way to say that there are findings about style, 1 that the page can't be read.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{:?} {findings}", output.status);
}

/// Names that node_exporter takes from the kernel as they are.
fn is_node_exporters(finding: &str) -> bool {
    let from_kernel = finding.starts_with("node_memory_") || finding.starts_with("node_netstat_");
    let entropy = ["node_entropy_available_bits", "node_entropy_pool_size_bits"];
    from_kernel && finding.ends_with("metric names should be written in 'snake_case' not 'camelCase'")
        || entropy.iter().any(|name| finding == format!("{name} use base unit \"bytes\" instead of \"bits\""))
}

#[test]
fn a_real_prometheus_scrapes_it() {
    let agent = Agent::start(NO_LOGS, NOTHING);
    let prometheus = Prometheus::start(&agent.metrics);
    let value = |query: &str| wait_until(query, seconds(60), || prometheus.value(query));
    wait_until("the target is up", seconds(60), || same(&prometheus.value("up{job=\"node\"}")?, &1.0));
    assert_eq!(value("node_memory_MemTotal_bytes"), mem_total());
    let rate = value("sum(rate(node_cpu_seconds_total[30s]))");
    assert!(rate > 0.0, "{rate} CPU seconds per second");
}

/// `/proc/meminfo`: "MemTotal:       24679280 kB".
fn mem_total() -> f64 {
    let meminfo = fs::read_to_string("/proc/meminfo").expect("meminfo");
    let kib = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")).expect("MemTotal");
    kib.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") * 1024.0
}
