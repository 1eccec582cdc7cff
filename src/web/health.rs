//! Liveness and readiness, answered at once whatever the rest of the agent is doing.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use hyper::{Response, StatusCode};
use serde::Serialize;

use super::answer::{Body, json, text};

/// Whether the agent does its work: set once, after it has looked for logs the first time. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Ready(Arc<AtomicBool>);

impl Ready {
    /// From now on the agent is ready.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it is.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
    ready: bool,
    version: &'static str,
}

/// The answer to a health path; `None` for any other path.
pub(super) fn answer(path: &str, ready: &Ready) -> Option<Response<Body>> {
    match path {
        // That this runs at all is the proof.
        "/healthz" | "/livez" | "/-/healthy" => Some(text(StatusCode::OK, "nodewarden is healthy\n")),
        "/readyz" | "/-/ready" => Some(match ready.is_set() {
            true => text(StatusCode::OK, "nodewarden is ready\n"),
            false => text(StatusCode::SERVICE_UNAVAILABLE, "nodewarden has not looked for logs yet\n"),
        }),
        "/health" => {
            let (status, ready) = ("ok", ready.is_set());
            Some(json(&Health { status, ready, version: crate::VERSION }))
        }
        _ => None,
    }
}
