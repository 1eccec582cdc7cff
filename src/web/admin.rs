//! The admin listener: the page and the API for who has the token, on an address of this host.
//!
//! A web page from elsewhere that the user has open must not get in: requests name their host as an address or as localhost
//! (a name that was made to point here is refused), and the cookie is never sent from another site.

use std::net::IpAddr;

use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{
        AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, COOKIE, HOST, HeaderMap,
        HeaderValue, LOCATION, REFERRER_POLICY, SET_COOKIE, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
    },
    http::uri::Authority,
};

use super::{
    accept::accepts_gzip,
    answer::{self, Body, not_found, sentence},
    api::{self, Api},
    page,
    query::Parameters,
    server::Site,
    swapped::Swapped,
    token::Token,
};

/// What the admin listener serves.
pub struct AdminSite {
    token: Token,
    api: Swapped<Api>,
}

impl AdminSite {
    /// The page and `api` for who has `token`.
    pub fn new(token: Token, api: Swapped<Api>) -> Self {
        Self { token, api }
    }

    async fn route(&self, request: Request<Incoming>) -> Response<Body> {
        let Some(authority) = local_authority(request.headers()) else {
            let text = "this listener is reached as localhost or by an address, not by another name";
            return sentence(StatusCode::FORBIDDEN, text);
        };
        let cookie = format!("nodewarden-{}", authority.port_u16().unwrap_or(80));
        let path = request.uri().path();
        if path == "/"
            && let Some(guess) = Parameters::parse(request.uri().query()).get("token")
        {
            return if self.token.is(guess) { self.log_in(&cookie) } else { refused() };
        }
        if !self.is_allowed(request.headers(), &cookie) {
            return refused();
        }
        if path.starts_with(api::PREFIX) {
            return self.api.answer(request).await;
        }
        match page::asset(path) {
            Some(asset) => serve_asset(asset, accepts_gzip(request.headers())),
            None => not_found(),
        }
    }

    /// Moves the token from the address, where it would be seen and kept, into a cookie.
    fn log_in(&self, cookie: &str) -> Response<Body> {
        let cookie = format!("{cookie}={}; HttpOnly; SameSite=Strict; Path=/", self.token.as_str());
        // The token is hex digits and the rest is ASCII, so that every byte may stand in a header.
        let Ok(cookie) = HeaderValue::try_from(cookie) else { return refused() };
        let mut response = answer::text(StatusCode::SEE_OTHER, "");
        response.headers_mut().insert(SET_COOKIE, cookie);
        response.headers_mut().insert(LOCATION, HeaderValue::from_static("./"));
        response
    }

    fn is_allowed(&self, headers: &HeaderMap, cookie: &str) -> bool {
        let bearer =
            headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut given = cookies
            .flat_map(|list| list.split(';'))
            .filter_map(|pair| pair.trim().strip_prefix(cookie)?.strip_prefix('='));
        bearer.is_some_and(|guess| self.token.is(guess.trim())) || given.any(|guess| self.token.is(guess))
    }
}

impl Site for AdminSite {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let mut response = self.route(request).await;
        let headers = response.headers_mut();
        for (name, value) in [
            (CACHE_CONTROL, "no-store"),
            (CONTENT_SECURITY_POLICY, page::CONTENT_SECURITY_POLICY),
            (REFERRER_POLICY, "no-referrer"),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// The `Host` of a request, when it is localhost or an address.
fn local_authority(headers: &HeaderMap) -> Option<Authority> {
    let authority: Authority = headers.get(HOST)?.to_str().ok()?.parse().ok()?;
    let host = authority.host();
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let is_local = host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok();
    is_local.then_some(authority)
}

fn refused() -> Response<Body> {
    let text = "open the address with ?token= that the agent said when it started; each start has a new one";
    let mut response = sentence(StatusCode::UNAUTHORIZED, text);
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

fn serve_asset(asset: &'static page::Asset, gzip: bool) -> Response<Body> {
    match asset.gzip.filter(|_| gzip) {
        Some(bytes) => {
            let mut response = answer::body(StatusCode::OK, asset.content_type, bytes);
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            response
        }
        None => answer::body(StatusCode::OK, asset.content_type, asset.bytes),
    }
}

#[cfg(test)]
mod tests;
