//! What stands before the metrics listener: TLS, clients' certificates, passwords, limits, sockets of systemd's. Where a real
//! node_exporter is at hand, both are asked the same.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Write,
    net::TcpListener,
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use rcgen::SanType;
use tempfile::TempDir;

use crate::support::{
    Agent, NO_LOGS, Peer, Prometheus, free_port, http, same, seconds, temp_dir,
    tls::{Authority, Client, Identity, SERVER, dns, self_signed},
    wait_until,
};

/// The hash of "secret" at the least cost: a check of the usual one takes a debug build half a second.
fn secret() -> String {
    bcrypt::hash("secret", 4).expect("a hash")
}

/// A web configuration and what it names.
struct Web {
    dir: TempDir,
    /// Vouches for the server and for clients.
    authority: Authority,
}

impl Web {
    fn new() -> Self {
        let web = Self { dir: temp_dir(), authority: Authority::new("those who are known") };
        web.write("ca.pem", &web.authority.identity.certificate.pem());
        web.new_server();
        web
    }

    /// Another certificate for the server.
    fn new_server(&self) {
        let Identity { certificate, key } = self.authority.vouch(&[dns(SERVER)]);
        self.write("server.pem", &certificate.pem());
        self.write("server.key", &key.serialize_pem());
    }

    /// Replaces a file at once, as Kubernetes does it with a Secret.
    fn write(&self, name: &str, text: &str) {
        let new = self.dir.path().join(format!("{name}.new"));
        fs::write(&new, text).expect("written");
        fs::rename(&new, self.dir.path().join(name)).expect("renamed");
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("web.yml")
    }

    fn flag(&self) -> String {
        format!("--web.config.file={}", self.path().display())
    }

    fn agent(&self, text: &str) -> Agent {
        self.write("web.yml", text);
        Agent::start(NO_LOGS, &[&self.flag(), "--collector.disable-defaults", "--collector.loadavg"])
    }

    fn client(&self) -> Client {
        Client::new(&self.authority, None)
    }
}

const TLS: &str = "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n";

fn basic(credentials: &str) -> String {
    use base64::Engine;

    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(credentials))
}

#[test]
fn metrics_are_served_over_tls_in_both_versions() {
    let web = Web::new();
    let agent = web.agent(TLS);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let client = Client::speaking(&web.authority, None, &[version]);
        let page = client.get(&agent.metrics, "/metrics", &[]).expect("a page");
        assert!(page.text().contains("\nnode_load1 "), "{version:?}: {}", page.text());
    }
    let plain = http_1_0(&agent.metrics);
    assert_eq!(plain, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n");
    let health = agent.run(&["healthcheck", &format!("--web.listen-address={}", agent.metrics), &web.flag()]);
    assert!(health.status.success(), "{health:?}");
    // The admin listener is as it was.
    assert_eq!(agent.admin("/api/v1/status").status, 200);
}

/// What is said to who speaks plain HTTP, which need not be a whole answer.
fn http_1_0(address: &str) -> String {
    use std::io::Read;

    let mut connection = http::connect(address).expect("connected");
    connection.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").expect("sent");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("answered");
    answer
}

#[test]
fn versions_and_suites_are_those_of_the_file() {
    let web = Web::new();
    let speaks = |agent: &Agent, version| {
        Client::speaking(&web.authority, None, &[version]).get(&agent.metrics, "/healthz", &[]).is_ok()
    };
    let only_13 = web.agent(&format!("{TLS}  min_version: TLS13\n"));
    assert!(speaks(&only_13, &rustls::version::TLS13) && !speaks(&only_13, &rustls::version::TLS12));
    let only_12 = web.agent(&format!("{TLS}  max_version: TLS12\n  curve_preferences: [CurveP384]\n"));
    assert!(speaks(&only_12, &rustls::version::TLS12) && !speaks(&only_12, &rustls::version::TLS13));
    // The certificate's key is an ECDSA one: with a suite for RSA alone there is nothing to agree on.
    let rsa = web.agent(&format!("{TLS}  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]\n"));
    assert!(speaks(&rsa, &rustls::version::TLS13) && !speaks(&rsa, &rustls::version::TLS12));
}

/// Who comes in under a `client_auth_type`: nobody known, one that is vouched for, a stranger, one that is trusted itself.
#[test]
fn client_certificates_are_looked_at_in_go_s_five_ways() {
    let web = Web::new();
    let (known, pinned) = (web.authority.vouch(&[dns("prometheus")]), self_signed());
    let stranger = Authority::new("strangers").vouch(&[dns("prometheus")]);
    web.write("ca.pem", &(web.authority.identity.certificate.pem() + &pinned.certificate.pem()));
    let clients = [None, Some(&known), Some(&stranger), Some(&pinned)];
    for (auth, expected) in [
        ("NoClientCert", [true, true, true, true]),
        ("RequestClientCert", [true, true, true, true]),
        ("RequireAnyClientCert", [false, true, true, true]),
        ("RequireClientCert", [false, true, true, true]),
        ("VerifyClientCertIfGiven", [true, true, false, true]),
        ("RequireAndVerifyClientCert", [false, true, false, true]),
    ] {
        let ca = if auth == "NoClientCert" { "" } else { "  client_ca_file: ca.pem\n" };
        let agent = web.agent(&format!("{TLS}  client_auth_type: {auth}\n{ca}"));
        let comes_in = |address: &str| {
            clients.map(|shows| {
                let client = Client::new(&web.authority, shows).only_http1();
                client.get(address, "/metrics", &[]).is_ok_and(|page| page.status == 200)
            })
        };
        assert_eq!(comes_in(&agent.metrics), expected, "{auth}");
        if let Some(peer) = Peer::if_there(&[&web.flag()]) {
            assert_eq!(comes_in(&peer.address), expected, "node_exporter, {auth}");
        }
    }
}

#[test]
fn only_clients_of_an_allowed_name_come_in() {
    let web = Web::new();
    let text = format!(
        "{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n  \
         client_allowed_sans: [prometheus.example, ada@example.org, 10.1.2.3, 'spiffe://example/prometheus']\n"
    );
    let agent = web.agent(&text);
    let peer = Peer::if_there(&[&web.flag()]);
    for (name, allowed) in [
        (dns("prometheus.example"), true),
        (dns("other.example"), false),
        (SanType::Rfc822Name("ada@example.org".try_into().expect("ASCII")), true),
        (SanType::IpAddress([10, 1, 2, 3].into()), true),
        (SanType::IpAddress([10, 1, 2, 4].into()), false),
        (SanType::URI("spiffe://example/prometheus".try_into().expect("ASCII")), true),
    ] {
        let client =
            Client::new(&web.authority, Some(&web.authority.vouch(std::slice::from_ref(&name)))).only_http1();
        assert_eq!(client.get(&agent.metrics, "/metrics", &[]).is_ok(), allowed, "{name:?}");
        if let Some(peer) = &peer {
            assert_eq!(
                client.get(&peer.address, "/metrics", &[]).is_ok(),
                allowed,
                "node_exporter, {name:?}"
            );
        }
    }
}

#[test]
fn a_password_opens_every_path_and_nothing_else_does() {
    let (web, secret) = (Web::new(), secret());
    let agent = web.agent(&format!(
        "http_server_config: {{headers: {{X-Frame-Options: deny}}}}\nbasic_auth_users: {{ada: {secret}}}\n"
    ));
    let peer = Peer::if_there(&[&web.flag()]);
    let addresses = [Some(agent.metrics.clone()), peer.as_ref().map(|peer| peer.address.clone())];
    for address in addresses.into_iter().flatten() {
        for path in ["/metrics", "/", "/nonsense", "/-/healthy"] {
            for wrong in
                [None, Some(basic("ada:Secret")), Some(basic("bob:secret")), Some("Bearer secret".to_owned())]
            {
                let headers: Vec<_> = wrong.iter().map(|wrong| ("authorization", wrong.as_str())).collect();
                let answer = http::request("GET", &address, path, &headers, b"").expect("an answer");
                assert_eq!((answer.status, answer.text().as_str()), (401, "Unauthorized\n"), "{path}");
                assert_eq!(answer.header("www-authenticate"), Some("Basic"));
                assert_eq!(answer.header("x-frame-options"), Some("deny"));
                assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
            }
        }
        let right =
            http::request("GET", &address, "/metrics", &[("authorization", &basic("ada:secret"))], b"");
        let right = right.expect("an answer");
        assert_eq!((right.status, right.header("x-frame-options")), (200, Some("deny")));
    }
    // For exec probes, which carry no password.
    let health = agent.run(&["healthcheck", &format!("--web.listen-address={}", agent.metrics), &web.flag()]);
    assert!(health.status.success(), "{health:?}");
}

#[test]
fn a_changed_file_counts_at_once() {
    let (web, secret) = (Web::new(), secret());
    let agent = web.agent(&format!("{TLS}basic_auth_users: {{ada: {secret}}}\n"));
    let status = |credentials: &str| {
        let answer = web.client().get(&agent.metrics, "/metrics", &[("authorization", &basic(credentials))]);
        answer.map(|answer| answer.status).map_err(|error| error.to_string())
    };
    assert_eq!((status("ada:secret"), status("bob:secret")), (Ok(200), Ok(401)));
    web.write("web.yml", &format!("{TLS}basic_auth_users: {{bob: {secret}}}\n"));
    assert_eq!((status("ada:secret"), status("bob:secret")), (Ok(401), Ok(200)));
    // Another certificate is shown to the next connection.
    web.new_server();
    assert_eq!(status("bob:secret"), Ok(200));
    // A wrong file takes no connection, and neither does one without TLS: that needs a restart.
    for wrong in ["oops: 1\n".to_owned(), String::new(), TLS.replace("server.key", "none.key")] {
        web.write("web.yml", &wrong);
        assert!(status("bob:secret").is_err(), "{wrong}");
    }
    assert!(agent.log().contains("the web configuration is wrong"), "{}", agent.log());
    web.write("web.yml", TLS);
    assert_eq!(status("nobody:"), Ok(200));
}

#[test]
fn a_file_that_became_wrong_is_a_500_until_it_is_right() {
    let web = Web::new();
    let agent = web.agent("");
    let peer = Peer::if_there(&[&web.flag()]);
    let addresses: Vec<_> = [Some(agent.metrics.clone()), peer.as_ref().map(|peer| peer.address.clone())]
        .into_iter()
        .flatten()
        .collect();
    web.write("web.yml", "oops: 1\n");
    for address in &addresses {
        let answer = http::get(address, "/metrics").expect("an answer");
        assert_eq!((answer.status, answer.text().as_str()), (500, "Internal Server Error\n"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
    // TLS that is asked for later waits for a restart.
    web.write("web.yml", TLS);
    for address in &addresses {
        assert_eq!(http::get(address, "/metrics").expect("an answer").status, 200);
    }
}

#[test]
fn more_requests_than_the_limit_are_too_many() {
    let web = Web::new();
    let agent = web.agent("rate_limit: {burst: 2, interval: 1h}\n");
    let peer = Peer::if_there(&[&web.flag()]);
    let addresses = [Some(agent.metrics.clone()), peer.as_ref().map(|peer| peer.address.clone())];
    for address in addresses.into_iter().flatten() {
        let statuses = [(); 3].map(|()| http::get(&address, "/metrics").expect("an answer"));
        assert_eq!(statuses.each_ref().map(|answer| answer.status), [200, 200, 429]);
        assert_eq!(statuses[2].text(), "Too Many Requests\n");
    }
}

#[test]
fn a_wrong_file_ends_the_start_with_every_mistake() {
    let web = Web::new();
    web.write("web.yml", "tls_server_config: {cert_file: none.pem}\nbasic_auth_user: {}\n");
    for command in [&["check"][..], &[]] {
        let flag = web.flag();
        let args: Vec<&str> = command.iter().copied().chain(["--config.file=", &flag]).collect();
        let output = crate::support::nodewarden(&args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("web.yml:1:1: tls_server_config: add key_file or key\n"), "{said}");
        assert!(
            said.contains("web.yml:2:1: basic_auth_user is not a key; did you mean basic_auth_users?\n"),
            "{said}"
        );
    }
}

/// The agent with a socket that it did not make, as systemd starts it.
struct Activated {
    child: Child,
    dir: TempDir,
}

impl Activated {
    /// The shell moves its standard input to descriptor 3, where systemd's first socket is, and becomes the agent.
    fn start(socket: Stdio, flags: &[&str]) -> Self {
        let dir = temp_dir();
        let log = File::create(dir.path().join("log")).expect("a log file");
        let child = Command::new("sh")
            .args(["-c", "exec 3<&0 0</dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$@\"", "sh"])
            .arg(env!("CARGO_BIN_EXE_nodewarden"))
            .args(["--config.file=", "--admin.listen-address=", "--web.systemd-socket"])
            .arg(format!("--state.dir={}", dir.path().join("state").display()))
            .args(flags)
            .stdin(socket)
            .stderr(log)
            .spawn()
            .expect("a shell");
        Self { child, dir }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Activated {
    fn drop(&mut self) {
        // It may have ended already: then there is nothing to kill, and that is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn sockets_of_systemd_are_served() {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("bound").to_string();
    let taken = free_port();
    let agent = Activated::start(
        Stdio::from(std::os::fd::OwnedFd::from(socket)),
        &[&format!("--web.listen-address=127.0.0.1:{taken}")],
    );
    // The socket listens from the start: the answer comes as soon as the agent is there.
    let page = http::get(&address, "/metrics").unwrap_or_else(|error| panic!("{error}: {}", agent.log()));
    assert_eq!(page.status, 200);
    assert!(http::get(&format!("127.0.0.1:{taken}"), "/metrics").is_err(), "addresses are left alone");
    let state = format!("--state.dir={}", agent.dir.path().join("state").display());
    wait_until("the agent is healthy", seconds(10), || {
        let health =
            crate::support::nodewarden(&["healthcheck", "--config.file=", "--web.systemd-socket", &state]);
        same(&health.status.code(), &Some(0))
    });
}

#[test]
fn sockets_with_a_path_are_served_too() {
    let dir = temp_dir();
    let path = dir.path().join("metrics.sock");
    let socket = UnixListener::bind(&path).expect("bound");
    let agent = Activated::start(Stdio::from(std::os::fd::OwnedFd::from(socket)), &[]);
    let mut connection = UnixStream::connect(&path).expect("connected");
    let page = http::exchange(&mut connection, "GET", "localhost", "/metrics", &[], b"");
    assert_eq!(page.unwrap_or_else(|error| panic!("{error}: {}", agent.log())).status, 200);
}

#[test]
fn a_start_without_sockets_says_so() {
    for socket in
        [Stdio::null(), Stdio::from(std::os::fd::OwnedFd::from(UnixStream::pair().expect("a pair").0))]
    {
        let mut agent = Activated::start(socket, &[]);
        let status = agent.child.wait().expect("its end");
        assert_eq!(status.code(), Some(1), "{}", agent.log());
        assert!(
            agent.log().contains("descriptor 3 that systemd handed over is not a listening stream socket"),
            "{}",
            agent.log()
        );
    }
    let output = crate::support::nodewarden(&[
        "--config.file=",
        "--web.systemd-socket",
        &format!("--state.dir={}", temp_dir().path().join("state").display()),
    ]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("systemd handed over no socket"), "{output:?}");
}

/// One request of the table.
struct Asked {
    method: &'static str,
    path: &'static str,
    headers: &'static [(&'static str, &'static str)],
}

const fn asked(method: &'static str, path: &'static str) -> Asked {
    Asked { method, path, headers: &[] }
}

const fn with(path: &'static str, headers: &'static [(&'static str, &'static str)]) -> Asked {
    Asked { method: "GET", path, headers }
}

const TABLE: &[Asked] = &[
    asked("GET", "/"),
    asked("HEAD", "/"),
    asked("GET", "/?x=1"),
    asked("POST", "/"),
    asked("GET", "/metrics"),
    asked("HEAD", "/metrics"),
    asked("POST", "/metrics"),
    asked("PUT", "/metrics"),
    asked("DELETE", "/metrics"),
    asked("OPTIONS", "/metrics"),
    asked("BREW", "/metrics"),
    asked("GET", "/metrics?collect[]=loadavg"),
    asked("GET", "/metrics?collect[]=loadavg&collect[]=uname"),
    asked("GET", "/metrics?collect[]=loadavg&collect[]=loadavg"),
    asked("GET", "/metrics?collect%5B%5D=uname"),
    asked("GET", "/metrics?collect=uname"),
    asked("GET", "/metrics?collect[]="),
    asked("GET", "/metrics?collect[]"),
    asked("GET", "/metrics?collect[]=nonsense"),
    asked("GET", "/metrics?collect[]=%22a+b%22"),
    asked("GET", "/metrics?collect[]=meminfo"),
    asked("GET", "/metrics?collect[]=uname&collect[]=nonsense"),
    asked("GET", "/metrics?collect[]=%zz"),
    asked("GET", "/metrics?collect[]=uname;x"),
    asked("GET", "/metrics?exclude[]=uname"),
    asked("GET", "/metrics?exclude[]=nonsense"),
    asked("GET", "/metrics?exclude[]=meminfo"),
    asked("GET", "/metrics?exclude[]=uname&exclude[]=loadavg&exclude[]=time"),
    asked("GET", "/metrics?exclude[]="),
    asked("GET", "/metrics?collect[]=uname&exclude[]=loadavg"),
    asked("HEAD", "/metrics?collect[]=nonsense"),
    asked("GET", "/metrics/"),
    asked("GET", "/metrics/x"),
    asked("GET", "/Metrics"),
    asked("GET", "/favicon.ico"),
    asked("POST", "/nonsense"),
    asked("HEAD", "/nonsense"),
    asked("GET", "/index.html"),
    asked("GET", "//"),
    asked("GET", "//metrics"),
    asked("GET", "//metrics?collect[]=uname&x=%20"),
    asked("POST", "//metrics"),
    asked("HEAD", "//metrics"),
    asked("GET", "/./metrics"),
    asked("GET", "/a/../metrics"),
    asked("GET", "/metrics/.."),
    asked("GET", "/a//b/"),
    asked("GET", "/a%20b//c%3Fd"),
    asked("GET", "/%6detrics"),
    asked("GET", "/metrics%2f"),
    asked("GET", "/%2e%2e"),
    asked("GET", "/%zz"),
    with("/metrics", &[("accept-encoding", "gzip")]),
    with("/metrics", &[("accept-encoding", "gzip;q=0")]),
    with("/metrics", &[("accept-encoding", "gzip, identity")]),
    with("/metrics", &[("accept-encoding", "identity;q=0.5, gzip;q=0.6")]),
    with("/metrics", &[("accept-encoding", "*")]),
    with("/metrics", &[("accept-encoding", "zstd, gzip, br")]),
    with("/metrics", &[("accept-encoding", "zstd")]),
    with("/nonsense", &[("accept-encoding", "gzip")]),
    with(
        "/metrics",
        &[("accept", "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1")],
    ),
    with("/metrics", &[("accept", "text/plain;version=1.0.0;escaping=allow-utf-8")]),
    with(
        "/metrics",
        &[("accept", "text/plain;version=1.0.0;escaping=values;q=0.3,text/plain;version=0.0.4;q=0.2")],
    ),
    with(
        "/metrics",
        &[("accept", "text/plain;version=0.0.4;q=0.5,text/plain;version=1.0.0;escaping=values;q=0.2")],
    ),
    with("/metrics", &[("accept", "application/json")]),
    with("/metrics", &[("x-prometheus-scrape-timeout-seconds", "nonsense")]),
    with("/metrics", &[("authorization", "Basic x")]),
];

/// What both have to answer alike.
#[derive(Debug, PartialEq)]
struct Answered {
    status: u16,
    headers: Vec<Option<String>>,
    /// The text where it is a short one, else the families of the page but those of the runtime.
    body: BTreeSet<String>,
}

fn answer(address: &str, asked: &Asked) -> Answered {
    let answer = http::request(asked.method, address, asked.path, asked.headers, b"");
    let answer = answer.unwrap_or_else(|error| panic!("{} {}: {error}", asked.method, asked.path));
    let names =
        ["content-type", "content-encoding", "location", "x-content-type-options", "www-authenticate"];
    let headers = names.map(|name| answer.header(name).map(str::to_owned)).into();
    let text = match answer.header("content-encoding") {
        Some(_) => {
            let mut text = String::new();
            let mut unpacked = flate2::read::GzDecoder::new(answer.body.as_slice());
            std::io::Read::read_to_string(&mut unpacked, &mut text).expect("gzip of text");
            text
        }
        None => answer.text(),
    };
    let is_page = text.starts_with("# HELP");
    let families = text.lines().filter(|line| {
        let own = ["go_", "promhttp_", "nodewarden_"];
        let name = line.strip_prefix("# HELP ").or(line.strip_prefix("# TYPE "));
        name.is_some_and(|name| !own.iter().any(|own| name.starts_with(own)))
    });
    let body = match is_page {
        true => families.map(str::to_owned).collect(),
        // Each has a page of links of its own.
        false if text.contains("<body>") => BTreeSet::from(["links".to_owned()]),
        false => BTreeSet::from([text.clone()]),
    };
    Answered { status: answer.status, headers, body }
}

#[test]
fn every_request_is_answered_as_node_exporter_does_it() {
    let flags =
        ["--collector.disable-defaults", "--collector.loadavg", "--collector.uname", "--collector.time"];
    let Some(peer) = Peer::if_there(&flags) else { return };
    let agent = Agent::start(NO_LOGS, &flags);
    let differ: Vec<String> = TABLE
        .iter()
        .filter_map(|asked| {
            let (ours, theirs) = (answer(&agent.metrics, asked), answer(&peer.address, asked));
            let what = format!("{} {} {:?}", asked.method, asked.path, asked.headers);
            (ours != theirs).then(|| format!("{what}\n  ours:   {ours:?}\n  theirs: {theirs:?}"))
        })
        .collect();
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

#[test]
fn a_real_prometheus_comes_in_with_certificate_and_password() {
    let (web, secret) = (Web::new(), secret());
    let agent = web.agent(&format!(
        "{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\nbasic_auth_users: {{ada: {secret}}}\n"
    ));
    let client = web.authority.vouch(&[dns("prometheus")]);
    web.write("client.pem", &client.certificate.pem());
    web.write("client.key", &client.key.serialize_pem());
    let at = |name: &str| web.dir.path().join(name).display().to_string();
    let prometheus = Prometheus::start_with(
        &agent.metrics,
        &format!(
            "scheme: https, tls_config: {{ca_file: '{}', server_name: {SERVER}, cert_file: '{}', key_file: '{}'}}, \
             basic_auth: {{username: ada, password: secret}}",
            at("ca.pem"),
            at("client.pem"),
            at("client.key")
        ),
    );
    wait_until("the target is up", seconds(60), || same(&prometheus.value("up{job=\"node\"}")?, &1.0));
    assert_eq!(prometheus.value("count(node_exporter_build_info{version=\"1.12.1\"})"), Ok(1.0));
}

#[test]
fn without_the_exporter_s_own_metrics_only_the_build_is_said() {
    let flags = ["--web.disable-exporter-metrics", "--collector.disable-defaults", "--collector.loadavg"];
    let agent = Agent::start(NO_LOGS, &flags);
    let page = agent.get("/metrics").text();
    let families: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert_eq!(
        families,
        [
            "node_exporter_build_info",
            "node_load1",
            "node_load15",
            "node_load5",
            "node_scrape_collector_duration_seconds",
            "node_scrape_collector_success",
            "nodewarden_build_info"
        ]
    );
}

#[test]
fn several_addresses_are_listened_on() {
    let (first, second) = (free_port(), free_port());
    let dir = temp_dir();
    let config = dir.path().join("config.yaml");
    fs::write(&config, NO_LOGS).expect("written");
    let mut agent = Command::new(env!("CARGO_BIN_EXE_nodewarden"))
        .args([
            &format!("--config.file={}", config.display()),
            &format!("--state.dir={}", dir.path().join("state").display()),
            "--admin.listen-address=",
            &format!("--web.listen-address=[127.0.0.1]:{first}"),
            "--web.listen-address",
            &format!("localhost:{second}"),
        ])
        .stderr(Stdio::null())
        .spawn()
        .expect("the agent starts");
    let answers = |address: &str| {
        let answer = http::get(address, "/-/healthy").map(|answer| answer.status);
        same(&answer.map_err(|error| error.to_string()), &Ok(200))
    };
    wait_until("both answer", seconds(30), || {
        answers(&format!("127.0.0.1:{first}"))?;
        answers(&format!("localhost:{second}"))
    });
    agent.kill().expect("killed");
    agent.wait().expect("its end");
}
