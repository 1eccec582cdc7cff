//! The same families and series as a real node_exporter beside it on this host, the same numbers where they only grow.
//!
//! The binary is looked for in `$NODE_EXPORTER`, then in `target/tools/bin`, where `tests/servers/install.sh` builds it;
//! without it this test says so and passes.

#![allow(clippy::expect_used, clippy::panic, reason = "what tests call fails as they do")]
#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Stdio},
};

use nodewarden_collectors::{Host, node};
use support::{page, settings};

/// Flags of both programs: the defaults, then everything that adds families.
const RUNS: &[&[&str]] = &[
    &[],
    &[
        "netdev.netlink=false",
        "netdev.address-info=true",
        "stat.softirq=true",
        "filesystem.fs-types-exclude=",
        "filesystem.mount-points-exclude=",
        "diskstats.device-exclude=",
        "vmstat.fields=.*",
        "netstat.fields=.*",
    ],
    &["netdev.enable-detailed-metrics=true", "netdev.label-ifalias=true", "netclass.ignored-devices=^lo$"],
];

struct Exporter {
    child: Child,
    address: String,
    /// Closed, it would end the program with its next line of log.
    _log: BufReader<ChildStderr>,
}

impl Exporter {
    #[allow(clippy::disallowed_methods, reason = "the program to compare with is another program")]
    fn start(binary: &Path, flags: &[&str]) -> Self {
        let mut command = std::process::Command::new(binary);
        command.args(["--web.listen-address=127.0.0.1:0", "--collector.disable-defaults"]);
        command.args(node::ALL.iter().map(|entry| format!("--collector.{}", entry.name)));
        for flag in flags {
            command.arg(match flag.split_once('=') {
                Some((name, "true")) => format!("--collector.{name}"),
                Some((name, "false")) => format!("--no-collector.{name}"),
                _ => format!("--collector.{flag}"),
            });
        }
        let mut child = command.stderr(Stdio::piped()).spawn().expect("node_exporter starts");
        let mut log = BufReader::new(child.stderr.take().expect("it was piped"));
        let address = loop {
            let mut line = String::new();
            assert!(log.read_line(&mut line).expect("read") > 0, "it says where it listens");
            if let Some((_, address)) = line.split_once("msg=\"Listening on\" address=") {
                break address.trim().to_owned();
            }
        };
        Self { child, address, _log: log }
    }

    fn scrape(&self) -> Page {
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("UTF-8");
        Page::parse(answer.split_once("\r\n\r\n").expect("a body").1)
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Default)]
struct Page {
    /// HELP and TYPE lines.
    headers: BTreeSet<String>,
    series: BTreeMap<String, f64>,
}

impl Page {
    fn parse(text: &str) -> Self {
        let mut page = Self::default();
        for line in text.lines() {
            let name = line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ");
            // The exporter's own families are not the collectors'.
            if ["go_", "process_", "promhttp_", "node_exporter_", "node_scrape_"]
                .iter()
                .any(|own| name.starts_with(own))
            {
                continue;
            }
            if line.starts_with('#') {
                page.headers.insert(line.to_owned());
            } else if let Some((series, value)) = line.rsplit_once(' ') {
                page.series.insert(series.to_owned(), value.parse().expect("a number"));
            }
        }
        page
    }

    fn is_counter(&self, series: &str) -> bool {
        let name = series.split('{').next().unwrap_or_default();
        self.headers.contains(&format!("# TYPE {name} counter"))
    }
}

fn binary() -> Option<PathBuf> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/bin/node_exporter");
    let named = std::env::var_os("NODE_EXPORTER").map(PathBuf::from);
    named.into_iter().chain([built]).find(|path| path.is_file())
}

#[test]
fn a_real_node_exporter_says_the_same() {
    let Some(binary) = binary() else {
        eprintln!("SKIPPED: no node_exporter in $NODE_EXPORTER or target/tools/bin");
        return;
    };
    let names: Vec<&str> = node::ALL.iter().map(|entry| entry.name).collect();
    for flags in RUNS {
        let exporter = Exporter::start(&binary, flags);
        let before = exporter.scrape();
        let ours = Page::parse(&page(&names, &Host::default(), &settings(flags)).0);
        let after = exporter.scrape();
        assert_eq!(
            ours.headers.symmetric_difference(&before.headers).collect::<Vec<_>>(),
            Vec::<&String>::new()
        );
        let keys = |page: &Page| page.series.keys().cloned().collect::<BTreeSet<String>>();
        let differing: Vec<String> = keys(&ours).symmetric_difference(&keys(&before)).cloned().collect();
        assert!(differing.is_empty(), "{differing:#?}");
        // Counters of perf begin when each program opens them.
        let is_shared = |series: &str| ours.is_counter(series) && !series.starts_with("node_perf_");
        for (series, value) in ours.series.iter().filter(|(series, _)| is_shared(series)) {
            // Counters of CPUs race in the kernel, and step back by some ticks.
            let (least, most) = (before.series[series] - 0.5, after.series[series] + 0.5);
            assert!((least..=most).contains(value), "{series}: {value} is not in {least}..={most}");
        }
    }
}
