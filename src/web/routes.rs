//! The metrics listener: the page for Prometheus, links for people, health for the kubelet. Nothing else, above all no logs.

use std::{sync::Arc, time::Instant};

use hyper::{
    Request, Response, StatusCode, Version,
    body::Incoming,
    header::{CONTENT_ENCODING, HOST, HeaderMap, HeaderValue},
};
use tokio::sync::Semaphore;
use tracing::{error, warn};

use super::{
    accept::{self, accepts_gzip},
    answer::{self, Body, not_found, sentence},
    health::{self, Ready},
    path,
    query::Parameters,
    server::Site,
};
use crate::metrics::scrape::{self, ScrapeError, Scraper};

/// What the metrics listener serves.
pub struct MetricsSite {
    scraper: Scraper,
    ready: Ready,
    telemetry_path: String,
    max_requests: usize,
    places: Option<Arc<Semaphore>>,
    landing: String,
}

impl MetricsSite {
    /// With the page at `telemetry_path` for at most `max_requests` clients at once; 0 is no limit.
    pub fn new(scraper: Scraper, ready: Ready, telemetry_path: &str, max_requests: usize) -> Self {
        Self {
            scraper,
            ready,
            telemetry_path: telemetry_path.to_owned(),
            max_requests,
            places: (max_requests > 0)
                .then(|| Arc::new(Semaphore::new(max_requests.min(Semaphore::MAX_PERMITS)))),
            landing: landing(telemetry_path),
        }
    }

    async fn metrics(&self, headers: &HeaderMap, query: Option<&str>) -> Response<Body> {
        let parameters = Parameters::parse(query.map(understood).as_deref());
        let (collect, exclude) = (parameters.all("collect[]"), parameters.all("exclude[]"));
        // node_exporter makes a handler with a limit of its own for each request that selects: those are never too many.
        let limited = self.places.as_deref().filter(|_| collect.is_empty() && exclude.is_empty());
        let Ok(_place) = limited.map(Semaphore::try_acquire).transpose() else {
            let limit = self.max_requests;
            let text = format!("Limit of concurrent requests reached ({limit}), try again later.");
            return sentence(StatusCode::SERVICE_UNAVAILABLE, text);
        };
        let selection = match self.scraper.select(&collect, &exclude) {
            Ok(selection) => selection,
            Err(error) => return answer::text(StatusCode::BAD_REQUEST, error.to_string()),
        };
        let given = headers.get("x-prometheus-scrape-timeout-seconds").and_then(|value| value.to_str().ok());
        let deadline = scrape::deadline(given, Instant::now());
        let gzip = accepts_gzip(headers);
        match self.scraper.page(scrape::Request { selection, gzip }, deadline).await {
            Ok(page) => {
                let mut response = answer::body(StatusCode::OK, accept::content_type(headers), page);
                if gzip {
                    response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                }
                response
            }
            Err(error) => failed(&error),
        }
    }
}

impl Site for MetricsSite {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let uri = request.uri();
        if request.version() == Version::HTTP_11
            && !request.headers().contains_key(HOST)
            && uri.host().is_none()
        {
            return answer::text(StatusCode::BAD_REQUEST, "400 Bad Request: missing required Host header");
        }
        if let Some(clean) = path::clean(uri.path()) {
            return path::elsewhere(&clean, uri.query(), request.method());
        }
        let Some(path) = path::decode(uri.path()) else {
            return answer::text(StatusCode::BAD_REQUEST, "400 Bad Request");
        };
        if path == self.telemetry_path {
            return self.metrics(request.headers(), uri.query()).await;
        }
        if let Some(response) = health::answer(&path, &self.ready) {
            return response;
        }
        match &*path {
            "/" => answer::body(StatusCode::OK, "text/html; charset=UTF-8", self.landing.clone()),
            _ => not_found(),
        }
    }
}

/// The parameters that Go understands: it passes over those with a semicolon or a bad escape.
fn understood(query: &str) -> String {
    let is_understood = |pair: &&str| !pair.contains(';') && path::has_good_escapes(pair);
    query.split('&').filter(is_understood).collect::<Vec<_>>().join("&")
}

fn failed(error: &ScrapeError) -> Response<Body> {
    match error {
        ScrapeError::Deadline => warn!(%error, "no metrics page"),
        ScrapeError::Thread(_) | ScrapeError::Lost => error!(%error, "no metrics page"),
    }
    sentence(StatusCode::SERVICE_UNAVAILABLE, error)
}

fn landing(telemetry_path: &str) -> String {
    let path = telemetry_path.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;");
    let version = crate::VERSION;
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>nodewarden</title>\n</head>\n<body>\n\
         <h1>nodewarden</h1>\n<p>Metrics as the Prometheus Node Exporter gives them, and the logs of this node</p>\n<p>Version: {version}</p>\n\
         <ul>\n<li><a href=\"{path}\">Metrics</a></li>\n</ul>\n</body>\n</html>\n"
    )
}

#[cfg(test)]
mod tests;
