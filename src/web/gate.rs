//! What stands before a site: the rules of `--web.config.file`, in the order in which the exporter-toolkit keeps them.
//!
//! A wrong file is a 500 for everybody, then comes the limit on the rate, then the password; headers are added to whatever is
//! answered after that. Every path is behind it, also health, as in node_exporter: a probe of the kubelet that can't carry a
//! password has to be a TCP or an exec one (`nodewarden healthcheck`).

pub mod limit;
pub mod live;
pub mod rules;
pub mod tls;
pub mod users;

use std::sync::Arc;

use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE},
};

use self::{limit::Limiter, live::Live, rules::Rules, users::Verified};
use super::{
    answer::{Body, sentence},
    server::Site,
};

/// A site behind the rules of the file.
pub struct Gated<S> {
    site: S,
    live: Arc<Live>,
    /// As the file said at start, for a bucket that is filled anew at each change would limit nothing.
    limiter: Option<Limiter>,
    verified: Verified,
}

impl<S: Site> Gated<S> {
    /// Puts `live`'s rules before `site`.
    pub fn new(site: S, live: Arc<Live>) -> Result<Self, rules::NotKnown> {
        let limiter = live.rules()?.rate.map(Limiter::new);
        Ok(Self { site, live, limiter, verified: Verified::new() })
    }

    async fn is_admitted(&self, rules: &Rules, headers: &HeaderMap) -> bool {
        if rules.users.is_empty() {
            return true;
        }
        match headers.get(AUTHORIZATION).and_then(|value| users::basic(value.as_bytes())) {
            Some((user, password)) => self.verified.is(&rules.users, &user, &password).await,
            None => false,
        }
    }
}

impl<S: Site> Site for Gated<S> {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let Ok(rules) = self.live.rules() else {
            return sentence(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error");
        };
        if self.limiter.as_ref().is_some_and(|limiter| !limiter.allows()) {
            return sentence(StatusCode::TOO_MANY_REQUESTS, "Too Many Requests");
        }
        let mut response = match self.is_admitted(&rules, request.headers()).await {
            true => self.site.answer(request).await,
            false => unauthorized(),
        };
        for (name, value) in &rules.headers {
            // What the site says itself counts.
            response.headers_mut().entry(name).or_insert_with(|| value.clone());
        }
        response
    }
}

fn unauthorized() -> Response<Body> {
    let mut response = sentence(StatusCode::UNAUTHORIZED, "Unauthorized");
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic"));
    response
}
