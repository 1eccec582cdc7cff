//! The metrics listener: the page for Prometheus, links for people, health for the kubelet. Nothing else, above all no logs.

use std::{sync::Arc, time::Instant};

use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap, HeaderValue},
};
use nodewarden_collectors::text;
use tokio::sync::Semaphore;
use tracing::{error, warn};

use super::{
    answer::{self, Body, not_found, sentence},
    health::{self, Ready},
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
        let Ok(_place) = self.places.as_deref().map(Semaphore::try_acquire).transpose() else {
            let limit = self.max_requests;
            let text = format!("Limit of concurrent requests reached ({limit}), try again later.");
            return sentence(StatusCode::SERVICE_UNAVAILABLE, text);
        };
        let parameters = Parameters::parse(query);
        let selection = match self.scraper.select(&parameters.all("collect[]"), &parameters.all("exclude[]"))
        {
            Ok(selection) => selection,
            Err(error) => return answer::text(StatusCode::BAD_REQUEST, error.to_string()),
        };
        let given = headers.get("x-prometheus-scrape-timeout-seconds").and_then(|value| value.to_str().ok());
        let deadline = scrape::deadline(given, Instant::now());
        let gzip = accepts_gzip(headers);
        match self.scraper.page(scrape::Request { selection, gzip }, deadline).await {
            Ok(page) => {
                let mut response = answer::body(StatusCode::OK, text::CONTENT_TYPE, page);
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
        if uri.path() == self.telemetry_path {
            return self.metrics(request.headers(), uri.query()).await;
        }
        if let Some(response) = health::answer(uri.path(), &self.ready) {
            return response;
        }
        match uri.path() {
            "/" => answer::body(StatusCode::OK, "text/html; charset=utf-8", self.landing.clone()),
            _ => not_found(),
        }
    }
}

fn failed(error: &ScrapeError) -> Response<Body> {
    match error {
        ScrapeError::Deadline => warn!(%error, "no metrics page"),
        ScrapeError::Thread(_) | ScrapeError::Lost => error!(%error, "no metrics page"),
    }
    sentence(StatusCode::SERVICE_UNAVAILABLE, error)
}

/// Whether the client takes gzip: named in `Accept-Encoding`, and not with weight 0.
pub(super) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|item| {
        let (coding, weight) = item.split_once(';').unwrap_or((item, ""));
        let weight = weight.trim().strip_prefix("q=").and_then(|weight| weight.parse::<f32>().ok());
        coding.trim().eq_ignore_ascii_case("gzip") && weight != Some(0.0)
    })
}

fn landing(telemetry_path: &str) -> String {
    let path = telemetry_path.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;");
    let version = crate::VERSION;
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>nodewarden</title>\n</head>\n<body>\n\
         <h1>nodewarden</h1>\n<p>Metrics and logs of this node</p>\n<p>Version: {version}</p>\n\
         <ul>\n<li><a href=\"{path}\">Metrics</a></li>\n</ul>\n</body>\n</html>\n"
    )
}

#[cfg(test)]
mod tests;
