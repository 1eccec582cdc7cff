//! Who gets in at the admin listener, and how.

use super::{
    super::testing::{Served, no_files, served, state},
    *,
};
use crate::shutdown;

async fn site() -> (Token, Served) {
    let token = Token::new().expect("random");
    let api = Api::new(state(no_files(), None), &shutdown::channel().1);
    (token.clone(), served(AdminSite::new(token, Swapped::new(api)), 16).await)
}

#[tokio::test]
async fn without_the_token_nothing_is_shown() {
    let (_token, served) = site().await;
    for path in [
        "/",
        "/index.html",
        "/api/v1/status",
        "/nothing",
        "/?token=",
        "/?token=0123456789abcdef0123456789abcdef",
    ] {
        let reply = served.get(path).await;
        assert_eq!(reply.status, 401, "{path}");
        assert!(reply.text().starts_with("open the address with ?token="));
        assert!(reply.has("www-authenticate: bearer"));
    }
    let wrong =
        served.ask("GET /api/v1/status", &["authorization: Bearer 00", "cookie: nodewarden-80=00"]).await;
    assert_eq!(wrong.status, 401);
}

#[tokio::test]
async fn the_token_in_the_address_becomes_a_cookie_that_opens_the_page() {
    let (token, served) = site().await;
    let login = served.get(&format!("/?token={}", token.as_str())).await;
    assert_eq!(login.status, 303);
    assert!(login.has("location: ./"));
    let cookie = format!("nodewarden-{}={}", served.at.port(), token.as_str());
    assert!(login.has(&format!("set-cookie: {cookie}; httponly; samesite=strict; path=/")), "{}", login.head);
    let page = served.ask("GET /", &[&format!("cookie: theme=dark; {cookie}")]).await;
    assert_eq!(page.status, 200);
    assert!(page.has("content-type: text/html; charset=utf-8"));
}

#[tokio::test]
async fn the_token_may_come_as_a_header() {
    let (token, served) = site().await;
    let header = format!("authorization: Bearer {}", token.as_str());
    assert_eq!(served.ask("GET /api/v1/status", &[&header]).await.json()["node"], "n1");
    assert_eq!(served.ask("GET /nothing", &[&header]).await.status, 404);
}

#[tokio::test]
async fn another_name_for_this_address_is_refused() {
    let (token, served) = site().await;
    let header = format!("authorization: Bearer {}", token.as_str());
    for host in ["evil.example", "evil.example:9180", "localhost.evil.example", "127.0.0.1.evil.example", ""]
    {
        let reply = served.ask("GET /api/v1/status", &[&header, &format!("host: {host}")]).await;
        assert_eq!(reply.status, 403, "{host}");
    }
    for host in ["localhost:9180", "LOCALHOST", "127.0.0.1", "[::1]:9180", "10.0.0.7:9180"] {
        let reply = served.ask("GET /api/v1/status", &[&header, &format!("host: {host}")]).await;
        assert_eq!(reply.status, 200, "{host}");
    }
}

#[tokio::test]
async fn every_answer_forbids_caching_and_foreign_content() {
    let (token, served) = site().await;
    let header = format!("authorization: Bearer {}", token.as_str());
    for reply in [served.get("/").await, served.ask("GET /", &[&header]).await] {
        assert!(reply.has("cache-control: no-store"));
        assert!(reply.has("x-content-type-options: nosniff"));
        assert!(reply.head.contains("content-security-policy: default-src 'self'"));
    }
}
