//! Files as people write them, right and wrong.

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use super::*;

/// A directory with a certificate, its key, and a key of somebody else.
fn directory() -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (key, other) = (KeyPair::generate().expect("a key"), KeyPair::generate().expect("a key"));
    let params = CertificateParams::new(vec!["localhost".into()]).expect("a name");
    let cert = params.self_signed(&key).expect("a certificate");
    for (name, text) in
        [("cert.pem", cert.pem()), ("key.pem", key.serialize_pem()), ("other.pem", other.serialize_pem())]
    {
        fs::write(dir.path().join(name), text).expect("written");
    }
    dir
}

fn written(dir: &TempDir, text: &str) -> PathBuf {
    let path = dir.path().join("web.yml");
    fs::write(&path, text).expect("written");
    path
}

/// What is said of a file, without the directory, and the notes.
fn said_of(dir: &TempDir, text: &str) -> (Vec<String>, Vec<String>) {
    let mut mistakes = Mistakes::default();
    let notes = check(&written(dir, text), &Origin::Flag("web.config.file".into()), &mut mistakes);
    let prefix = format!("{}/", dir.path().display());
    (mistakes.sorted().iter().map(|mistake| mistake.to_string().replace(&prefix, "")).collect(), notes)
}

fn mistakes(text: &str) -> Vec<String> {
    said_of(&directory(), text).0
}

const CERT: &str = "tls_server_config:\n  cert_file: cert.pem\n  key_file: key.pem\n";

#[test]
fn the_toolkit_s_example_is_understood() {
    let dir = directory();
    let hash = "$2y$10$J2nO4uPqY5vK1sW7bXcZ9eAaBbCcDdEeFfGgHhIiJjKkLlMmNnOoG";
    let text = format!(
        "{CERT}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: cert.pem\n  client_allowed_sans:\n    - prometheus\n  \
         min_version: TLS12\n  max_version: TLS13\n  cipher_suites: [TLS_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]\n  \
         prefer_server_cipher_suites: true\n  curve_preferences: [CurveP256, X25519]\n\
         http_server_config:\n  http2: yes\n  headers:\n    Strict-Transport-Security: max-age=31536000\n    \
         X-Frame-Options: deny\n    Content-Security-Policy: \"default-src 'self' ${{x}}\"\n\
         rate_limit:\n  burst: 5\n  interval: 1.5s\n\
         basic_auth_users:\n  ada: {hash}\n"
    );
    assert_eq!(said_of(&dir, &text), (vec![], vec![]));
    let (_, file) = read(&written(&dir, &text));
    assert_eq!(file.rules.rate, Some(Rate { interval: Duration::from_millis(1500), burst: 5 }));
    assert_eq!(file.rules.users, BTreeMap::from([("ada".to_owned(), hash.to_owned())]));
    assert_eq!(file.rules.headers.len(), 3);
    assert_eq!(file.rules.headers[2].1, "default-src 'self' ${x}");
    let tls = file.tls.expect("TLS");
    assert_eq!(tls.client_auth, ClientAuth::RequireAndVerifyClientCert);
    assert_eq!(tls.cert, Pem::File(dir.path().join("cert.pem")));
    assert_eq!(tls.curves.as_deref(), Some(["CurveP256", "X25519"].as_slice()));
}

#[test]
fn an_empty_file_asks_for_nothing() {
    for text in [
        "",
        "# nothing\n",
        "---\n",
        "tls_server_config:\n",
        "tls_server_config: {min_version: TLS13}\n",
        "basic_auth_users: {}",
    ] {
        let dir = directory();
        assert_eq!(said_of(&dir, text), (vec![], vec![]), "{text}");
        let reading = reading(&written(&dir, text));
        assert!(reading.rules.is_ok_and(|rules| *rules == Rules::default()), "{text}");
        assert!(reading.tls.is_ok_and(|tls| tls.is_none()), "{text}");
    }
}

#[test]
fn inline_texts_will_do_and_files_come_first() {
    let dir = directory();
    let indented = |name: &str| {
        let text = fs::read_to_string(dir.path().join(name)).expect("read");
        text.lines().map(|line| format!("    {line}\n")).collect::<String>()
    };
    let text =
        format!("tls_server_config:\n  cert: |\n{}  key: |\n{}", indented("cert.pem"), indented("key.pem"));
    assert_eq!(said_of(&dir, &text).0, Vec::<String>::new());
    let both = text.clone() + "  key_file: other.pem\n";
    assert!(said_of(&dir, &both).0[0].ends_with("key_file: the key is not that of the certificate"));
    // A key is never repeated.
    assert!(!format!("{:?}", read(&written(&dir, &text)).1.tls).contains("PRIVATE"));
}

#[test]
fn every_mistake_has_its_place() {
    assert_eq!(
        mistakes(
            "tls_config: {}\nhttp_server_config:\n  http2: maybe\n  headers:\n    Server: x\n    X-Frame-Options: allow\n\
             basic_auth_users:\n  ada: secret\nrate_limit: {interval: 5 seconds, burst: many}\n"
        ),
        [
            "web.yml:1:1: tls_config is not a key; did you mean tls_server_config?",
            "web.yml:3:10: http2: expected true or false, not 'maybe'",
            "web.yml:5:5: the header Server can't be set; expected one of Strict-Transport-Security, X-Content-Type-Options, \
             X-Frame-Options, X-XSS-Protection, Content-Security-Policy",
            "web.yml:6:22: X-Frame-Options: expected deny or sameorigin, not 'allow'",
            "web.yml:8:8: ada: expected a bcrypt hash such as 'htpasswd -nB ada' prints, $2y$ and so on",
            "web.yml:9:24: interval: expected a duration such as 500ms, 1s or 1m30s, not '5 seconds'",
            "web.yml:9:42: burst: expected a number of requests, not 'many'",
        ]
    );
}

#[test]
fn mistakes_about_tls_have_their_place_too() {
    for (text, expected) in [
        ("tls_server_config:\n  cert_file: cert.pem\n", "1:1: tls_server_config: add key_file or key"),
        ("tls_server_config:\n  key_file: key.pem\n", "1:1: tls_server_config: add cert_file or cert"),
        (
            "tls_server_config:\n  cert_file: cert.pem\n  key_file: other.pem\n",
            "3:3: tls_server_config.key_file: the key is not that of the certificate",
        ),
        (
            "tls_server_config:\n  cert_file: key.pem\n  key_file: key.pem\n",
            "2:3: tls_server_config.cert_file: there is no '-----BEGIN CERTIFICATE-----' in it",
        ),
        (
            "tls_server_config:\n  cert_file: cert.pem\n  key_file: cert.pem\n",
            "3:3: tls_server_config.key_file: there is no private key without a password in it",
        ),
        (
            &format!("{CERT}  min_version: TLS10\n"),
            "4:16: min_version: TLS10 is not safe and not spoken here; write TLS12 or TLS13",
        ),
        (&format!("{CERT}  max_version: SSL3\n"), "4:16: max_version: expected TLS12 or TLS13, not 'SSL3'"),
        (
            &format!("{CERT}  min_version: TLS13\n  max_version: TLS12\n"),
            "4:16: min_version: TLS13 is above max_version",
        ),
        (
            &format!("{CERT}  client_ca_file: cert.pem\n"),
            "4:3: client_ca_file needs a client_auth_type; add RequireAndVerifyClientCert or another",
        ),
        (
            &format!("{CERT}  client_auth_type: NoClientCert\n  client_ca_file: cert.pem\n"),
            "4:21: client_auth_type: with a client CA expected one that asks for a certificate",
        ),
        (
            &format!("{CERT}  client_auth_type: RequireAndVerifyClientCert\n"),
            "4:21: client_auth_type: RequireAndVerifyClientCert needs client_ca_file or client_ca",
        ),
        (
            &format!("{CERT}  client_auth_type: Always\n"),
            "4:21: client_auth_type: expected one of NoClientCert, RequestClientCert, RequireAnyClientCert, \
             VerifyClientCertIfGiven, RequireAndVerifyClientCert, not 'Always'",
        ),
        (
            &format!("{CERT}  client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: key.pem\n"),
            "5:3: tls_server_config.client_ca_file: there is no '-----BEGIN CERTIFICATE-----' in it",
        ),
        (
            &format!("{CERT}  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA]\n"),
            "4:3: cipher_suites: TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA is not spoken here; add another",
        ),
        (
            &format!("{CERT}  curve_preferences: [CurveP257]\n"),
            "4:23: curve_preferences: 'CurveP257' is not known; did you mean CurveP256?",
        ),
        (
            &format!("{CERT}  max_version: TLS12\n  cipher_suites: [TLS_AES_128_GCM_SHA256]\n"),
            "5:3: tls_server_config.cipher_suites: none of these suites is one of TLS 1.2, and 1.3 is not allowed",
        ),
    ] {
        assert_eq!(mistakes(text), [format!("web.yml:{expected}")], "{text}");
    }
    let absent = mistakes("tls_server_config:\n  cert_file: none.pem\n  key_file: key.pem\n");
    assert!(
        absent[0].starts_with("web.yml:2:3: tls_server_config.cert_file: could not read none.pem: "),
        "{absent:?}"
    );
}

#[test]
fn what_is_not_spoken_is_noted_when_something_else_is() {
    let text = format!(
        "{CERT}  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]\n  \
         curve_preferences: [CurveP521, CurveP384]\n"
    );
    let (mistakes, notes) = said_of(&directory(), &text);
    assert_eq!(mistakes, Vec::<String>::new());
    assert_eq!(
        notes,
        [
            "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA in cipher_suites is not spoken here, the others are",
            "CurveP521 in curve_preferences is not spoken here, the others are",
        ]
    );
}

#[test]
fn a_file_that_is_not_there_is_a_mistake_of_the_flag() {
    let mut mistakes = Mistakes::default();
    check(Path::new("/nonexistent/web.yml"), &Origin::Flag("web.config.file".into()), &mut mistakes);
    assert!(
        mistakes.to_string().starts_with("--web.config.file: could not read /nonexistent/web.yml: "),
        "{mistakes}"
    );
}

#[test]
fn while_the_agent_runs_each_mistake_hurts_only_what_it_is_about() {
    let dir = directory();
    let good = "$2y$10$J2nO4uPqY5vK1sW7bXcZ9eAaBbCcDdEeFfGgHhIiJjKkLlMmNnOoG";
    let users = reading(&written(&dir, &format!("basic_auth_users: {{ada: {good}, bob: secret}}\n")));
    assert!(users.rules.is_ok_and(|rules| rules.users.len() == 2) && users.tls.is_ok());
    assert!(users.refused.is_some_and(|said| said.contains("bob: expected a bcrypt hash")));
    let tls = reading(&written(&dir, "tls_server_config: {cert_file: none.pem, key_file: key.pem}\n"));
    assert!(tls.rules.is_ok() && tls.tls.is_err());
    assert_eq!(tls.files, ["web.yml", "none.pem", "key.pem"].map(|name| dir.path().join(name)));
    let all = reading(&written(&dir, "oops: 1\n"));
    assert!(all.rules.is_err() && all.tls.is_err());
}

#[test]
fn intervals_are_go_s() {
    let seconds = |seconds| Ok(Some(Duration::from_secs_f64(seconds)));
    for (text, expected) in [
        ("1s", seconds(1.0)),
        ("1m30s", seconds(90.0)),
        ("1.5h", seconds(5400.0)),
        ("250ms", seconds(0.25)),
        ("1000000000", seconds(1.0)),
        ("0", Ok(None)),
        ("0s", Ok(None)),
        ("-1s", Ok(None)),
    ] {
        assert_eq!(interval(text), expected, "{text}");
    }
    for odd in ["", "-", "s", "1", "1 s", "1.2.3s", "1d", "99999999999999999999999h"] {
        assert!(interval(odd).is_err() || odd == "1", "{odd}");
    }
}

#[test]
fn without_a_burst_the_limit_would_be_zero() {
    assert_eq!(
        mistakes("rate_limit: {interval: 1s}\n"),
        ["web.yml:1:1: rate_limit: no request would ever be answered; add burst: 1 or more"]
    );
}

proptest::proptest! {
    #[test]
    fn any_file_is_answered(text in "(tls_server_config|rate_limit|cert|interval|: |\n|  |- |[{}\\[\\],$0-9a-z]|\\PC){0,20}") {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let _ = reading(&written(&dir, &text));
    }
}
