//! The metrics listener as its clients see it.

use std::{fs, io::Read};

use flate2::read::GzDecoder;
use nodewarden_collectors::Host;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    super::testing::{Served, scraper, served},
    *,
};

/// The site on a host with these load averages; the directory has to be kept.
async fn site(ready: Ready, path: &str, max_requests: usize) -> (TempDir, Served) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::write(dir.path().join("loadavg"), "0.21 0.37 0.39 1/719 19737\n").expect("written");
    let host = Host { procfs: dir.path().into(), ..Host::default() };
    (dir, served(MetricsSite::new(scraper(host), ready, path, max_requests), 16).await)
}

async fn usual() -> (TempDir, Served) {
    site(Ready::default(), "/metrics", 40).await
}

#[tokio::test]
async fn the_page_is_served_as_text() {
    let (_dir, served) = usual().await;
    let reply = served.get("/metrics").await;
    assert_eq!(reply.status, 200);
    assert!(reply.has("content-type: text/plain; version=0.0.4; charset=utf-8; escaping=underscores"));
    assert!(!reply.head.contains("content-encoding"));
    assert!(reply.text().contains("\nnode_load1 0.21\n"));
    assert!(reply.text().contains("\nnode_scrape_collector_success{collector=\"loadavg\"} 1\n"));
    assert!(reply.text().contains("\nnodewarden_build_info{"));
}

#[tokio::test]
async fn the_page_is_compressed_for_who_takes_gzip() {
    let (_dir, served) = usual().await;
    let reply = served.ask("GET /metrics", &["accept-encoding: br;q=1.0, GZIP"]).await;
    assert!(reply.has("content-encoding: gzip"));
    let mut plain = String::new();
    GzDecoder::new(&reply.body[..]).read_to_string(&mut plain).expect("gzip");
    assert!(plain.contains("\nnode_load1 0.21\n"));
    let refused = served.ask("GET /metrics", &["accept-encoding: gzip;q=0"]).await;
    assert!(!refused.head.contains("content-encoding"));
}

#[tokio::test]
async fn any_method_gets_the_page_and_head_only_its_head() {
    let (_dir, served) = usual().await;
    for method in ["POST", "PUT"] {
        let reply = served.ask(&format!("{method} /metrics"), &["content-length: 0"]).await;
        assert_eq!(reply.status, 200);
        assert!(reply.text().contains("\nnode_load1 0.21\n"));
    }
    let head = served.ask("HEAD /metrics", &[]).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[tokio::test]
async fn collectors_are_selected_as_node_exporter_does_it() {
    let (_dir, served) = usual().await;
    for query in ["collect[]=loadavg", "collect%5B%5D=loadavg", "exclude[]=nonsense", "exclude[]=loadavg"] {
        let reply = served.get(&format!("/metrics?{query}")).await;
        assert!(reply.text().contains("\nnode_load1 0.21\n"), "{query}");
    }
    for (query, text) in [
        ("collect[]=a&exclude[]=b", "Combined collect and exclude queries are not allowed."),
        (
            "collect[]=nonsense",
            "Couldn't create filtered metrics handler: couldn't create collector: missing collector: nonsense",
        ),
    ] {
        let reply = served.get(&format!("/metrics?{query}")).await;
        assert_eq!((reply.status, reply.text()), (400, text));
    }
}

#[tokio::test]
async fn more_scrapes_at_once_than_allowed_are_told_to_come_later() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let host = Host { procfs: dir.path().into(), ..Host::default() };
    let site = MetricsSite::new(scraper(host), Ready::default(), "/metrics", 1);
    let _taken = site.places.as_ref().expect("a limit").clone().try_acquire_owned().expect("free");
    let served = served(site, 16).await;
    let reply = served.get("/metrics").await;
    assert_eq!(reply.status, 503);
    assert_eq!(reply.text(), "Limit of concurrent requests reached (1), try again later.\n");
    assert_eq!(served.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn health_is_answered_and_readiness_waits_for_the_latch() {
    let ready = Ready::default();
    let (_dir, served) = site(ready.clone(), "/metrics", 0).await;
    for path in ["/healthz", "/livez", "/-/healthy", "/health"] {
        assert_eq!(served.get(path).await.status, 200, "{path}");
    }
    assert_eq!(served.get("/health").await.json()["ready"], false);
    for path in ["/readyz", "/-/ready"] {
        assert_eq!(served.get(path).await.status, 503, "{path}");
    }
    ready.set();
    for path in ["/readyz", "/-/ready"] {
        assert_eq!(served.get(path).await.status, 200, "{path}");
    }
    assert_eq!(served.get("/health").await.json()["ready"], true);
}

#[tokio::test]
async fn the_landing_page_links_to_the_metrics() {
    let (_dir, served) = site(Ready::default(), "/node-metrics", 0).await;
    let reply = served.get("/").await;
    assert!(reply.has("content-type: text/html; charset=utf-8"));
    assert!(
        reply.text().contains("<title>nodewarden</title>") && reply.text().contains("<h1>nodewarden</h1>")
    );
    assert!(reply.text().contains("Version: 0.1.0") && reply.text().contains("href=\"/node-metrics\""));
    assert_eq!(served.get("/node-metrics").await.status, 200);
    assert_eq!(served.get("/metrics").await.status, 404);
}

#[tokio::test]
async fn metrics_at_the_root_take_the_place_of_the_landing_page() {
    let (_dir, served) = site(Ready::default(), "/", 0).await;
    assert!(served.get("/").await.text().contains("\nnode_load1 0.21\n"));
}

#[tokio::test]
async fn other_paths_are_not_found() {
    let (_dir, served) = usual().await;
    for path in ["/favicon.ico", "/metrics/", "/api/v1/logs", "/index.html"] {
        let reply = served.get(path).await;
        assert_eq!((reply.status, reply.text()), (404, "404 page not found\n"), "{path}");
        assert!(reply.has("x-content-type-options: nosniff"), "{path}");
    }
}

#[tokio::test]
async fn paths_are_understood_as_go_does_it() {
    let (_dir, served) = usual().await;
    assert!(served.get("/%6detrics").await.text().contains("\nnode_load1 0.21\n"));
    let reply = served.get("//metrics?collect[]=loadavg").await;
    assert_eq!(reply.status, 307);
    assert!(reply.has("location: /metrics?collect[]=loadavg"), "{}", reply.head);
    assert_eq!(served.get("/%zz").await.status, 400);
    // Parameters that Go does not understand ask for nothing.
    assert_eq!(served.get("/metrics?collect[]=%zz&exclude[]=a;b").await.status, 200);
}

#[tokio::test]
async fn selected_scrapes_have_no_limit_as_in_node_exporter() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let host = Host { procfs: dir.path().into(), ..Host::default() };
    let site = MetricsSite::new(scraper(host), Ready::default(), "/metrics", 1);
    let _taken = site.places.as_ref().expect("a limit").clone().try_acquire_owned().expect("free");
    let served = served(site, 16).await;
    assert_eq!(served.get("/metrics?collect[]=loadavg").await.status, 200);
}

#[tokio::test]
async fn a_connection_is_kept_for_the_next_scrape() {
    let (_dir, served) = usual().await;
    let mut stream = TcpStream::connect(served.at).await.expect("connected");
    for _ in 0..2 {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
        let mut answer = [0; 512];
        let count = stream.read(&mut answer).await.expect("answered");
        assert!(answer[..count].starts_with(b"HTTP/1.1 200 OK\r\n"));
    }
}

#[tokio::test]
async fn what_is_not_http_is_refused_and_hurts_nobody() {
    let (_dir, served) = usual().await;
    let mut stream = TcpStream::connect(served.at).await.expect("connected");
    stream.write_all(b"\x16\x03\x01\x02\x00\r\n\r\n").await.expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("closed");
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400 "));
    assert_eq!(served.get("/healthz").await.status, 200);
}
