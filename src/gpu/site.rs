//! The listener for the series of GPUs alone, where dcgm-exporter's used to be.

use hyper::{Request, Response, StatusCode, body::Incoming};
use nodewarden_collectors::{Samples, text};

use super::Gpus;
use crate::{
    logs::ship::off_thread,
    web::{
        answer::{self, Body},
        server::Site,
    },
};

/// What it serves: the paths of dcgm-exporter.
#[derive(Clone)]
pub struct GpuSite(pub Gpus);

impl Site for GpuSite {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        match request.uri().path() {
            "/metrics" => {
                let gpus = self.0.clone();
                let page = off_thread(move || {
                    let (mut samples, mut page) = (Samples::new(), Vec::new());
                    gpus.say(&mut samples);
                    text::write(&samples, &mut page);
                    page
                });
                answer::body(StatusCode::OK, text::CONTENT_TYPE, page.await)
            }
            "/health" => answer::text(StatusCode::OK, "OK\n"),
            "/" => answer::body(
                StatusCode::OK,
                "text/html; charset=UTF-8",
                "<!DOCTYPE html>\n<title>GPUs</title>\n<a href=\"/metrics\">Metrics</a>\n",
            ),
            _ => answer::text(StatusCode::NOT_FOUND, "not found\n"),
        }
    }
}
