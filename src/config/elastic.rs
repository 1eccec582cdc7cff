//! What the settings below `elasticsearch` mean together: servers, proof of who the agent is, TLS and proxies.

use hyper::header::{HeaderName, HeaderValue};

use super::{
    env::Env,
    keys::{Draft, ProxyChoice},
    layer::Origins,
    mistakes::{Mistakes, Origin},
    options::{Auth, ElasticConfig, Proxies, Proxy, SecretFrom},
    units,
};

/// The complete section, once every layer was laid.
pub fn resolve(
    draft: &Draft,
    origins: &Origins,
    env: &Env,
    mistakes: &mut Mistakes,
    notes: &mut Vec<String>,
) -> ElasticConfig {
    let mut elastic = draft.elastic.clone();
    if let Some(cloud) = &draft.cloud_id {
        elastic.hosts = vec![cloud.host.clone()];
    }
    elastic.auth = auth(draft, origins, mistakes);
    if elastic.auth != Auth::None
        && let Some((name, _)) = elastic.headers.iter().find(|(name, _)| name == "authorization")
    {
        let text = format!("{name} and elasticsearch.auth are two methods; keep one");
        mistakes.add_value(&at(origins, HEADERS), HEADERS, &text);
    }
    elastic.proxies = match &draft.proxy {
        ProxyChoice::Off => Proxies::default(),
        ProxyChoice::Fixed(proxy) => Proxies::fixed(proxy.clone()),
        ProxyChoice::Environment => proxies_of(env, &elastic, mistakes, notes),
    };
    tls(&elastic, origins, mistakes, notes);
    elastic
}

/// The key of the headers, which is a section of the user's own words.
pub const HEADERS: &str = "elasticsearch.headers";

fn at(origins: &Origins, key: &str) -> Origin {
    origins.get(key).cloned().unwrap_or(Origin::Default)
}

/// The one way to prove who we are; whether its secret can be read is seen here.
fn auth(draft: &Draft, origins: &Origins, mistakes: &mut Mistakes) -> Auth {
    let auth = &draft.auth;
    let mut ways: Vec<(&str, Auth)> = Vec::new();
    let mut file = |name: &'static str, path: &Option<std::path::PathBuf>| {
        let key = format!("elasticsearch.auth.{name}");
        let secret = SecretFrom::File(path.clone()?);
        match secret.read() {
            Ok(_) => Some(secret),
            Err(error) => {
                mistakes.add_value(&at(origins, &key), &key, &error);
                None
            }
        }
    };
    let from_file = file("password_file", &auth.password_file);
    ways.extend(
        file("api_key_file", &auth.api_key_file).map(|secret| ("api_key_file", Auth::ApiKey(secret))),
    );
    ways.extend(file("bearer_file", &auth.bearer_file).map(|secret| ("bearer_file", Auth::Bearer(secret))));
    let has_password = auth.password.is_some() || auth.password_file.is_some();
    match (&auth.username, auth.password.clone().map(SecretFrom::Text).or(from_file)) {
        (Some(username), Some(password)) => {
            ways.push(("username", Auth::Basic { username: username.clone(), password }));
        }
        (Some(_), None) if !has_password => {
            let key = "elasticsearch.auth.username";
            mistakes.add_value(&at(origins, key), key, "a user without a password; add password_file");
        }
        (None, _) if has_password => {
            let key = ["elasticsearch.auth.password", "elasticsearch.auth.password_file"]
                .into_iter()
                .find(|key| origins.contains_key(key))
                .unwrap_or("elasticsearch.auth.password_file");
            mistakes.add_value(&at(origins, key), key, "a password without a user; add username");
        }
        _ => {}
    }
    if let [(first, _), .., (last, _)] = ways.as_slice() {
        let key = format!("elasticsearch.auth.{last}");
        mistakes.add_value(
            &at(origins, &key),
            &key,
            &format!("{first} and {last} are two methods; keep one"),
        );
    }
    ways.pop().map_or(Auth::None, |(_, auth)| auth)
}

fn tls(elastic: &ElasticConfig, origins: &Origins, mistakes: &mut Mistakes, notes: &mut Vec<String>) {
    let is_said = origins.keys().any(|key| key.starts_with("elasticsearch.tls."));
    if !elastic.hosts.iter().any(|host| host.is_secure) {
        if is_said && !elastic.hosts.is_empty() {
            notes.push(
                "elasticsearch.tls has no effect: no address in elasticsearch.hosts begins with https://"
                    .into(),
            );
        }
        return;
    }
    if elastic.tls.insecure_skip_verify {
        notes.push(
            "elasticsearch.tls.insecure_skip_verify: certificates of servers are not looked at, so anybody in between can \
             read and change what is sent"
                .into(),
        );
    }
    if let Err(error) = elastic.tls.configure() {
        let key = format!("elasticsearch.tls.{}", error.key);
        mistakes.add_value(&at(origins, &key), &key, &error.text);
    }
}

/// The proxies that the environment names for every program.
fn proxies_of(
    env: &Env,
    elastic: &ElasticConfig,
    mistakes: &mut Mistakes,
    notes: &mut Vec<String>,
) -> Proxies {
    let find = |names: [&'static str; 2]| {
        let found = names.into_iter().find_map(|name| env.get(name).map(|value| (name, value.trim())));
        found.filter(|(_, value)| !value.is_empty())
    };
    let except = find(["NO_PROXY", "no_proxy"]).map_or("", |(_, value)| value).to_owned();
    let mut proxies = Proxies { except: Some(except), ..Proxies::default() };
    for (is_secure, names) in [(true, ["HTTPS_PROXY", "https_proxy"]), (false, ["HTTP_PROXY", "http_proxy"])]
    {
        let Some((name, value)) = find(names) else { continue };
        // What is for other programs is not judged.
        if !elastic.hosts.iter().any(|host| host.is_secure == is_secure) {
            continue;
        }
        match proxy(value) {
            Ok(proxy) if is_secure => proxies.https = Some(proxy),
            Ok(proxy) => proxies.http = Some(proxy),
            Err(error) => {
                mistakes.add(&Origin::Env(name.into()), format!("{error}; or set elasticsearch.proxy: off"));
            }
        }
        if let Some(host) = elastic.hosts.iter().find(|host| proxies.for_host(host).is_some()) {
            notes.push(format!(
                "{host} is reached through the proxy of {name}; elasticsearch.proxy says otherwise"
            ));
        }
    }
    proxies
}

/// `http://user:password@proxy:3128`; the scheme and the user may be left out. No message repeats the password.
pub fn proxy(text: &str) -> Result<Proxy, String> {
    let fail = || "expected a proxy such as http://10.0.0.1:3128, off or environment".to_owned();
    let rest = match text.split_once("://") {
        None => text,
        Some(("http", rest)) => rest,
        Some((scheme, _)) => {
            return Err(format!("a proxy is spoken to in http, not in {scheme}; write http://HOST:PORT"));
        }
    };
    let (user_info, authority) = match rest.rsplit_once('@') {
        Some((user_info, authority)) => (Some(user_info), authority),
        None => (None, rest),
    };
    let authority = authority.trim_end_matches('/');
    let has_port = authority.rfind(':') > authority.rfind(']');
    let authority = if has_port { authority.to_owned() } else { format!("{authority}:80") };
    let host = units::elastic_host(&authority).map_err(|_| fail())?;
    if !host.path.is_empty() {
        return Err(fail());
    }
    let proxy = Proxy { name: host.name, port: host.port, authorization: None };
    Ok(match user_info {
        Some(user_info) => proxy.with_user_info(user_info),
        None => proxy,
    })
}

/// A header that every request is to have. The value is not repeated: it may be a secret.
pub fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    const OURS: [&str; 7] = [
        "host",
        "content-type",
        "content-length",
        "content-encoding",
        "transfer-encoding",
        "connection",
        "accept-encoding",
    ];
    let parsed = HeaderName::from_bytes(name.as_bytes());
    let name = parsed.map_err(|_| format!("'{name}' is no name of a header; write one such as X-Tenant"))?;
    if OURS.contains(&name.as_str()) {
        return Err(format!("{name} is set by the agent itself; remove it"));
    }
    let value = HeaderValue::from_str(value);
    let mut value =
        value.map_err(|_| format!("the value of {name} has characters that no header may have"))?;
    value.set_sensitive(true);
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_as_people_write_them() {
        for (text, expected) in [
            ("http://10.0.0.1:3128", "http://10.0.0.1:3128"),
            ("proxy:3128", "http://proxy:3128"),
            ("http://proxy/", "http://proxy:80"),
            ("http://me:se%40cret@proxy:3128", "http://proxy:3128"),
            ("http://[::1]:8080", "http://[::1]:8080"),
        ] {
            assert_eq!(proxy(text).map(|proxy| proxy.to_string()), Ok(expected.into()));
        }
        assert!(proxy("http://me:secret@proxy:3128").is_ok_and(|proxy| proxy.authorization.is_some()));
        for odd in [
            "",
            "https://me:secret@p:1",
            "socks5://p:1",
            "http://p:x",
            "http://me:secret@p/path",
            "http://a b",
        ] {
            assert!(proxy(odd).is_err_and(|error| !error.contains("secret")), "{odd}");
        }
    }

    #[test]
    fn headers_that_are_the_agent_s_are_not_the_user_s() {
        assert!(header("X-Tenant", "a").is_ok());
        for (name, value) in
            [("Host", "secret"), ("a b", "secret"), ("X-Tenant", "secret\n"), ("content-type", "secret")]
        {
            assert!(header(name, value).is_err_and(|error| !error.contains("secret")), "{name}");
        }
    }
}
