//! The file of `--web.config.file`: the exporter-toolkit's own format, with its words and defaults.
//!
//! It is read at start, where every mistake is said with its place, and again whenever it changes.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hyper::header::{HeaderName, HeaderValue};

use super::{
    mistakes::{Mistakes, Origin, did_you_mean},
    yaml::{self, Entry, Node, Value},
};
use crate::web::gate::{
    rules::{ClientAuth, Pem, Rate, Reading, Rules, TlsRules, Versions},
    tls::{self, CIPHER_SUITES, CURVES, Part},
    users,
};

/// Everything in the file, or what is wrong with it.
struct WebFile {
    rules: Rules,
    tls: Option<TlsRules>,
    /// Where each part of the rules for TLS was written.
    places: Vec<(Part, &'static str, Origin)>,
    notes: Vec<String>,
    mistakes: Wrong,
}

/// What is wrong, by what is hurt by it while the agent runs.
#[derive(Default)]
struct Wrong {
    /// The file can't be understood: nothing is served.
    file: Mistakes,
    /// Passwords that match nothing: their users are refused.
    users: Mistakes,
    /// No handshake is possible.
    tls: Mistakes,
}

/// Says everything that is wrong with the file, and sentences about what will not be as written.
pub fn check(path: &Path, flag: &Origin, mistakes: &mut Mistakes) -> Vec<String> {
    let (found, mut file) = read(path);
    if let Err(error) = found {
        mistakes.add(flag, error);
    }
    let _ = configure(&mut file);
    let Wrong { file: wrong, users, tls } = file.mistakes;
    for mistake in wrong.iter().chain(users.iter()).chain(tls.iter()) {
        mistakes.add(&mistake.origin, mistake.text.clone());
    }
    file.notes
}

/// What the file says now, for the running agent.
pub fn reading(path: &Path) -> Reading {
    let (found, mut file) = read(path);
    let files = files(path, file.tls.as_ref());
    let config = configure(&mut file);
    if let Err(error) = found {
        return Reading { rules: Err(error.clone()), tls: Err(error), refused: None, files };
    }
    if !file.mistakes.file.is_empty() {
        let said = said(file.mistakes.file);
        return Reading { rules: Err(said.clone()), tls: Err(said), refused: None, files };
    }
    let refused = (!file.mistakes.users.is_empty()).then(|| said(file.mistakes.users));
    let tls =
        if file.mistakes.tls.is_empty() { Ok(config.map(Arc::new)) } else { Err(said(file.mistakes.tls)) };
    Reading { rules: Ok(Arc::new(file.rules)), tls, refused, files }
}

fn said(mistakes: Mistakes) -> String {
    let all: Vec<String> = mistakes.sorted().iter().map(ToString::to_string).collect();
    all.join("; ")
}

/// The file and all that it names.
fn files(path: &Path, tls: Option<&TlsRules>) -> Vec<PathBuf> {
    let named = tls.into_iter().flat_map(|tls| [Some(&tls.cert), Some(&tls.key), tls.client_ca.as_ref()]);
    let named = named.flatten().filter_map(|pem| match pem {
        Pem::File(path) => Some(path.clone()),
        Pem::Inline(_) => None,
    });
    std::iter::once(path.to_owned()).chain(named).collect()
}

/// The library's configuration; what is wrong is noted where the part was written.
fn configure(file: &mut WebFile) -> Option<rustls::ServerConfig> {
    if !file.mistakes.tls.is_empty() || !file.mistakes.file.is_empty() {
        return None;
    }
    let error = match tls::configure(file.tls.as_ref()?) {
        Ok(config) => return Some(config),
        Err(error) => error,
    };
    let place = file.places.iter().find(|(part, ..)| *part == error.part);
    let (key, origin) = place.map_or(("", &Origin::Default), |(_, key, origin)| (*key, origin));
    file.mistakes.tls.add_value(origin, &format!("tls_server_config.{key}"), &error.text);
    None
}

fn read(path: &Path) -> (Result<(), String>, WebFile) {
    let mut reader = Reader {
        directory: path.parent().unwrap_or(Path::new("")).to_owned(),
        file: WebFile {
            rules: Rules::default(),
            tls: None,
            places: Vec::new(),
            notes: Vec::new(),
            mistakes: Wrong::default(),
        },
    };
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => return (Err(format!("could not read {}: {error}", path.display())), reader.file),
    };
    let name: Arc<str> = path.to_string_lossy().into();
    // No variables here: the toolkit knows none, and hashes are full of `$`.
    if let Some(root) = yaml::parse(&bytes, &name, None, &mut reader.file.mistakes.file) {
        reader.root(root);
    }
    (Ok(()), reader.file)
}

const SECTIONS: &[&str] = &["tls_server_config", "http_server_config", "basic_auth_users", "rate_limit"];
const TLS: &[&str] = &[
    "cert",
    "cert_file",
    "key",
    "key_file",
    "client_ca",
    "client_ca_file",
    "client_auth_type",
    "client_allowed_sans",
    "min_version",
    "max_version",
    "cipher_suites",
    "curve_preferences",
    "prefer_server_cipher_suites",
];
const HTTP: &[&str] = &["http2", "headers"];
const RATE: &[&str] = &["burst", "interval"];

/// The headers that may be added, with the values that those have which have only some.
const HEADERS: &[(&str, &[&str])] = &[
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
    ("Content-Security-Policy", &[]),
];

const CLIENT_AUTH: &[(&str, ClientAuth)] = &[
    ("NoClientCert", ClientAuth::NoClientCert),
    ("RequestClientCert", ClientAuth::RequestClientCert),
    ("RequireAnyClientCert", ClientAuth::RequireAnyClientCert),
    ("VerifyClientCertIfGiven", ClientAuth::VerifyClientCertIfGiven),
    ("RequireAndVerifyClientCert", ClientAuth::RequireAndVerifyClientCert),
    // What the toolkit called the second of them first.
    ("RequireClientCert", ClientAuth::RequireAnyClientCert),
];

struct Reader {
    directory: PathBuf,
    file: WebFile,
}

/// A section's values by key.
type Section = BTreeMap<&'static str, (Origin, Node)>;

impl Reader {
    fn root(&mut self, root: Node) {
        let mut sections = self.section("", SECTIONS, root);
        if let Some((_, node)) = sections.remove("basic_auth_users") {
            self.users(node);
        }
        if let Some((_, node)) = sections.remove("http_server_config") {
            self.http(node);
        }
        if let Some((origin, node)) = sections.remove("rate_limit") {
            self.rate(&origin, node);
        }
        if let Some((origin, node)) = sections.remove("tls_server_config") {
            self.tls(&origin, node);
        }
    }

    fn wrong(&mut self, origin: &Origin, text: impl Into<String>) {
        self.file.mistakes.file.add(origin, text);
    }

    /// The entries of a section that have a value; keys that there are not are mistakes.
    fn section(&mut self, name: &str, keys: &'static [&'static str], node: Node) -> Section {
        let mut found = Section::new();
        for Entry { key, origin, value } in self.entries(name, node) {
            match keys.iter().find(|known| **known == key) {
                Some(known) if !matches!(value.value, Value::Null | Value::Bad) => {
                    found.insert(known, (origin, value));
                }
                Some(_) => {}
                None => {
                    let near = did_you_mean(&key, keys.iter().copied());
                    let all = if near.is_empty() {
                        format!("; the keys here are {}", keys.join(", "))
                    } else {
                        near
                    };
                    self.wrong(&origin, format!("{key} is not a key{all}"));
                }
            }
        }
        found
    }

    fn entries(&mut self, name: &str, node: Node) -> Vec<Entry> {
        match node.value {
            Value::Map(entries) => return entries,
            Value::Null | Value::Bad => {}
            other => {
                let place = if name.is_empty() { String::new() } else { format!("{name}: ") };
                self.wrong(&node.origin, format!("{place}expected a section, not {}", other.kind()));
            }
        }
        Vec::new()
    }

    fn text(&mut self, name: &str, node: Node) -> Option<(String, Origin)> {
        match node.value {
            Value::Scalar(text) => return Some((text, node.origin)),
            Value::Null => return Some((String::new(), node.origin)),
            Value::Bad => {}
            other => {
                self.wrong(&node.origin, format!("{name}: expected a single value, not {}", other.kind()));
            }
        }
        None
    }

    fn list(&mut self, name: &str, node: Node) -> Vec<(String, Origin)> {
        match node.value {
            Value::List(items) => items.into_iter().filter_map(|item| self.text(name, item)).collect(),
            other => {
                self.wrong(&node.origin, format!("{name}: expected a list, not {}", other.kind()));
                Vec::new()
            }
        }
    }

    fn users(&mut self, node: Node) {
        for entry in self.entries("basic_auth_users", node) {
            let Some((hash, origin)) = self.text(&entry.key, entry.value) else { continue };
            if !users::is_hash(&hash) {
                let text = format!(
                    "{}: expected a bcrypt hash such as 'htpasswd -nB {}' prints, $2y$ and so on",
                    entry.key, entry.key
                );
                self.file.mistakes.users.add(&origin, text);
            }
            self.file.rules.users.insert(entry.key, hash);
        }
    }

    fn http(&mut self, node: Node) {
        let mut found = self.section("http_server_config", HTTP, node);
        if let Some((_, node)) = found.remove("http2") {
            // HTTP/1.1 is spoken in any case.
            self.boolean("http2", node);
        }
        let headers = found.remove("headers").map(|(_, node)| self.entries("headers", node));
        for Entry { key, origin, value } in headers.unwrap_or_default() {
            let Some((name, allowed)) = HEADERS.iter().find(|(name, _)| *name == key) else {
                let names: Vec<&str> = HEADERS.iter().map(|(name, _)| *name).collect();
                self.wrong(
                    &origin,
                    format!("the header {key} can't be set; expected one of {}", names.join(", ")),
                );
                continue;
            };
            let Some((text, origin)) = self.text(name, value) else { continue };
            if !allowed.is_empty() && !allowed.contains(&text.as_str()) {
                self.wrong(&origin, format!("{name}: expected {}, not '{text}'", allowed.join(" or ")));
                continue;
            }
            match (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(&text)) {
                (Ok(name), Ok(value)) => self.file.rules.headers.push((name, value)),
                _ => self.wrong(&origin, format!("{name}: expected one line of printable characters")),
            }
        }
    }

    /// As YAML 1.1 writes it.
    fn boolean(&mut self, name: &str, node: Node) -> Option<bool> {
        let (text, origin) = self.text(name, node)?;
        match text.to_lowercase().as_str() {
            "true" | "yes" | "on" | "y" => Some(true),
            "false" | "no" | "off" | "n" => Some(false),
            _ => {
                self.wrong(&origin, format!("{name}: expected true or false, not '{text}'"));
                None
            }
        }
    }

    /// Without an interval, or with one that is not positive, there is no limit.
    fn rate(&mut self, origin: &Origin, node: Node) {
        let mut found = self.section("rate_limit", RATE, node);
        let mut burst = 0;
        if let Some((text, origin)) = found.remove("burst").and_then(|(_, node)| self.text("burst", node)) {
            match text.parse::<i64>() {
                Ok(number) => burst = u64::try_from(number).unwrap_or(0),
                Err(_) => self.wrong(&origin, format!("burst: expected a number of requests, not '{text}'")),
            }
        }
        let Some((text, at)) = found.remove("interval").and_then(|(_, node)| self.text("interval", node))
        else {
            return;
        };
        match interval(&text) {
            Ok(None) => {}
            Ok(Some(_)) if burst == 0 => {
                self.wrong(origin, "rate_limit: no request would ever be answered; add burst: 1 or more");
            }
            Ok(Some(interval)) => self.file.rules.rate = Some(Rate { interval, burst }),
            Err(error) => self.wrong(&at, format!("interval: {error}")),
        }
    }

    fn tls(&mut self, section: &Origin, node: Node) {
        let mut found = self.section("tls_server_config", TLS, node);
        let mut rules = TlsRules::default();
        let min = self.version("min_version", &mut found);
        let max = self.version("max_version", &mut found);
        rules.versions = match (min, max) {
            (Some((13, origin)), Some((12, _))) => {
                self.file.mistakes.tls.add(&origin, "min_version: TLS13 is above max_version");
                Versions::Both
            }
            (Some((13, _)), _) => Versions::Only13,
            (_, Some((12, _))) => Versions::Only12,
            _ => Versions::Both,
        };
        if let Some((_, node)) = found.remove("prefer_server_cipher_suites") {
            // As in Go of today, both sides' wishes do not matter: what is best is taken.
            self.boolean("prefer_server_cipher_suites", node);
        }
        rules.cipher_suites = self.chosen("cipher_suites", CIPHER_SUITES, Part::CipherSuites, &mut found);
        rules.curves = self.chosen("curve_preferences", CURVES, Part::CipherSuites, &mut found);
        if let Some((_, node)) = found.remove("client_allowed_sans") {
            let names = self.list("client_allowed_sans", node);
            rules.allowed_sans = Some(names.into_iter().map(|(name, _)| name).collect());
        }
        let cert = self.pem(["cert_file", "cert"], Part::Cert, &mut found);
        let key = self.pem(["key_file", "key"], Part::Key, &mut found);
        rules.client_ca = self.pem(["client_ca_file", "client_ca"], Part::ClientCa, &mut found);
        let auth = found.remove("client_auth_type").and_then(|(_, node)| self.text("client_auth_type", node));
        let auth = auth.filter(|(text, _)| !text.is_empty());
        rules.client_auth = self.client_auth(&rules, auth.as_ref());
        // Other keys alone, such as min_version, ask for nothing.
        if cert.is_none() && key.is_none() && rules.client_ca.is_none() && auth.is_none() {
            return;
        }
        for (part, names) in [(&cert, "cert_file or cert"), (&key, "key_file or key")] {
            if part.is_none() {
                self.file.mistakes.tls.add(section, format!("tls_server_config: add {names}"));
            }
        }
        (rules.cert, rules.key) = (cert.unwrap_or_default(), key.unwrap_or_default());
        self.file.tls = Some(rules);
    }

    fn client_auth(&mut self, rules: &TlsRules, written: Option<&(String, Origin)>) -> ClientAuth {
        let wrong = &mut self.file.mistakes.tls;
        let Some((text, origin)) = written else {
            if let Some((_, key, origin)) = self.file.places.iter().find(|(part, ..)| *part == Part::ClientCa)
            {
                wrong.add(
                    origin,
                    format!("{key} needs a client_auth_type; add RequireAndVerifyClientCert or another"),
                );
            }
            return ClientAuth::NoClientCert;
        };
        let Some((_, auth)) = CLIENT_AUTH.iter().find(|(name, _)| name == text) else {
            let names: Vec<&str> = CLIENT_AUTH[..5].iter().map(|(name, _)| *name).collect();
            wrong
                .add(origin, format!("client_auth_type: expected one of {}, not '{text}'", names.join(", ")));
            return ClientAuth::NoClientCert;
        };
        match auth {
            ClientAuth::NoClientCert if rules.client_ca.is_some() => {
                wrong.add(
                    origin,
                    "client_auth_type: with a client CA expected one that asks for a certificate",
                );
            }
            // Go would take every CA that the system trusts: nobody wants all the world's certificates to open this.
            ClientAuth::VerifyClientCertIfGiven | ClientAuth::RequireAndVerifyClientCert
                if rules.client_ca.is_none() =>
            {
                wrong.add(origin, format!("client_auth_type: {text} needs client_ca_file or client_ca"));
            }
            _ => {}
        }
        *auth
    }

    /// A text in PEM, in the first of two keys that is set: a file, its path seen from the configuration's directory, or the
    /// text itself.
    fn pem(&mut self, keys: [&'static str; 2], part: Part, found: &mut Section) -> Option<Pem> {
        let texts = keys.map(|key| {
            let (at, node) = found.remove(key)?;
            let (text, _) = self.text(key, node).filter(|(text, _)| !text.is_empty())?;
            Some((key, at, text))
        });
        let [file, inline] = texts;
        let (key, at, pem) = match (file, inline) {
            (Some((key, at, path)), _) => (key, at, Pem::File(self.directory.join(path))),
            (None, Some((key, at, text))) => (key, at, Pem::Inline(text)),
            (None, None) => return None,
        };
        self.file.places.push((part, key, at));
        Some(pem)
    }

    fn version(&mut self, key: &'static str, found: &mut Section) -> Option<(u8, Origin)> {
        let (text, origin) = found.remove(key).and_then(|(_, node)| self.text(key, node))?;
        match text.as_str() {
            "TLS12" => return Some((12, origin)),
            "TLS13" => return Some((13, origin)),
            "TLS10" | "TLS11" => self
                .file
                .mistakes
                .tls
                .add(&origin, format!("{key}: {text} is not safe and not spoken here; write TLS12 or TLS13")),
            _ => self.wrong(&origin, format!("{key}: expected TLS12 or TLS13, not '{text}'")),
        }
        None
    }

    /// Those of the names that there are here; a note tells of the others.
    fn chosen(
        &mut self,
        key: &'static str,
        known: &[(&'static str, bool)],
        part: Part,
        found: &mut Section,
    ) -> Option<Vec<&'static str>> {
        let (origin, node) = found.remove(key)?;
        let written = self.list(key, node);
        if written.is_empty() {
            return None;
        }
        let (mut chosen, mut absent) = (Vec::new(), Vec::new());
        for (name, at) in &written {
            match known.iter().find(|(known, _)| known == name) {
                Some((name, true)) => chosen.push(*name),
                Some((name, false)) => absent.push(*name),
                None => {
                    let near = did_you_mean(name, known.iter().map(|(known, _)| *known));
                    self.wrong(at, format!("{key}: '{name}' is not known{near}"));
                }
            }
        }
        if !absent.is_empty() {
            let absent = absent.join(", ");
            match chosen.is_empty() {
                true => self
                    .file
                    .mistakes
                    .tls
                    .add(&origin, format!("{key}: {absent} is not spoken here; add another")),
                false => {
                    self.file.notes.push(format!("{absent} in {key} is not spoken here, the others are"));
                }
            }
        }
        self.file.places.push((part, key, origin));
        Some(chosen)
    }
}

/// `1s`, `1.5h`, `-1m30s` as Go writes durations, or nanoseconds; what is not positive is no interval.
fn interval(text: &str) -> Result<Option<Duration>, String> {
    let fail = || format!("expected a duration such as 500ms, 1s or 1m30s, not '{text}'");
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut seconds = match rest.parse::<u64>() {
        Ok(nanoseconds) => {
            rest = "";
            Duration::from_nanos(nanoseconds).as_secs_f64()
        }
        Err(_) if rest.is_empty() => return Err(fail()),
        Err(_) => 0.0,
    };
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(fail)?;
        let (number, after) = rest.split_at(digits);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let factor = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(fail()),
        };
        seconds += number.parse::<f64>().map_err(|_| fail())? * factor;
        rest = next;
    }
    let interval = Duration::try_from_secs_f64(seconds).map_err(|_| fail())?;
    Ok(Some(interval).filter(|interval| !negative && !interval.is_zero()))
}

#[cfg(test)]
mod tests;
