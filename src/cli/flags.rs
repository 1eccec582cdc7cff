//! The table of configuration flags.

use clap::{Arg, ArgAction, ArgMatches, Command as Clap, parser::ValueSource};
use nodewarden_collectors::{Entry, Flag, FlagKind, node};

use super::Flags;

/// A flag that belongs to no collector.
struct Global {
    name: &'static str,
    /// Empty for a switch.
    value: &'static str,
    heading: &'static str,
    help: &'static str,
}

const AGENT: &str = "Agent";
const WEB: &str = "Listeners";
const HOST: &str =
    "Where the host's files are (/host/proc, /host/sys, /host/root and /rootfs are found by themselves)";
const COLLECTORS: &str = "Collectors";
const OPTIONS: &str = "Options of collectors";

const fn flag(name: &'static str, value: &'static str, heading: &'static str, help: &'static str) -> Global {
    Global { name, value, heading, help }
}

const GLOBAL: &[Global] = &[
    flag("config.file", "PATH", AGENT, "Configuration [default: /etc/nodewarden/config.yaml if present]"),
    flag(
        "state.dir",
        "PATH",
        AGENT,
        "Positions and local store [default: /var/lib/nodewarden, or the user's state directory]",
    ),
    flag("elasticsearch.hosts", "URL", AGENT, "Ship logs to these servers; comma separated or repeated"),
    flag("log.level", "LEVEL", AGENT, "debug, info, warn or error [default: info]"),
    flag("log.format", "FORMAT", AGENT, "logfmt or json [default: logfmt]"),
    flag("runtime.gomaxprocs", "N", AGENT, "Accepted for node_exporter's sake; does nothing"),
    flag("web.listen-address", "ADDRESS", WEB, "Metrics; repeatable [default: :9100]"),
    flag("web.telemetry-path", "PATH", WEB, "Path of the metrics page [default: /metrics]"),
    flag(
        "web.config.file",
        "PATH",
        WEB,
        "TLS, users, headers, limits of the metrics listener: an exporter-toolkit file",
    ),
    flag("web.systemd-socket", "", WEB, "Listen on the sockets that systemd hands over, not on addresses"),
    flag("web.max-requests", "N", WEB, "Scrapes answered at once, 0 for no limit [default: 40]"),
    flag("web.disable-exporter-metrics", "", WEB, "Leave out what the agent says of its own process"),
    flag(
        "admin.listen-address",
        "ADDRESS",
        WEB,
        "The page and its API; empty turns it off [default: 127.0.0.1:9180]",
    ),
    flag("path.procfs", "PATH", HOST, "[default: /proc]"),
    flag("path.sysfs", "PATH", HOST, "[default: /sys]"),
    flag("path.rootfs", "PATH", HOST, "[default: /]"),
    flag("path.udev.data", "PATH", HOST, "[default: /run/udev/data]"),
    flag("collector.disable-defaults", "", COLLECTORS, "Only run the collectors that are turned on by name"),
];

/// Collectors that node_exporter has on other systems only, and on which: none of them has flags of its own but its switch.
const ELSEWHERE: &[(&str, &str)] = &[
    ("boottime", "BSD, macOS and Solaris"),
    ("devstat", "FreeBSD and DragonFly"),
    ("exec", "FreeBSD and DragonFly"),
    ("netinterface", "AIX"),
    ("netisr", "FreeBSD"),
    ("partition", "AIX"),
    ("thermal", "macOS"),
];

/// On which systems node_exporter has a collector of this name that it does not have on Linux either.
pub fn elsewhere(collector: &str) -> Option<&'static str> {
    ELSEWHERE.iter().find(|(name, _)| *name == collector).map(|(_, systems)| *systems)
}

/// Gives `command` every flag; hidden ones work, but are not in its help.
pub fn add(command: Clap, hidden: bool) -> Clap {
    let command = command
        .args(GLOBAL.iter().flat_map(global))
        .args(node::ALL.iter().flat_map(|entry| collector(entry)))
        .args(node::ALL.iter().flat_map(|entry| entry.flags).flat_map(option));
    if hidden { command.mut_args(|arg| if is_ours(&arg) { arg.hide(true) } else { arg }) } else { command }
}

fn global(flag: &Global) -> Vec<Arg> {
    match flag.value {
        "" => switch(flag.name.into(), flag.help.into(), flag.heading),
        value => vec![text(flag.name.into(), value, flag.help.into(), flag.heading)],
    }
}

fn collector(entry: &Entry) -> Vec<Arg> {
    let name = format!("collector.{}", entry.name);
    let help = match entry.default_on {
        true => format!("On; --no-{name} turns it off"),
        false => "Off; this turns it on".to_owned(),
    };
    switch(name, help, COLLECTORS)
}

fn option(own: &Flag) -> Vec<Arg> {
    let name = format!("collector.{}", own.name);
    let help = match own.default {
        "" => own.help.to_owned(),
        "true" => format!("{} [default: true; --no-{name} turns it off]", own.help),
        default => format!("{} [default: {default}]", own.help),
    };
    let args = match own.kind {
        FlagKind::Bool => switch(name, help, OPTIONS),
        FlagKind::Text => vec![text(name, "TEXT", help, OPTIONS)],
        FlagKind::Regex => vec![text(name, "REGEX", help, OPTIONS)],
        FlagKind::List => vec![text(name, "TEXT", help + "; repeatable", OPTIONS)],
    };
    // Old spellings work, and nobody should learn them.
    let is_old = own.help.starts_with("DEPRECATED");
    args.into_iter().map(|arg| if is_old { arg.hide(true) } else { arg }).collect()
}

/// The configuration flags among `matches`, as many times as they were given.
pub fn collect(matches: &ArgMatches, flags: &mut Flags) {
    for id in matches.ids() {
        let name = id.as_str();
        if !is_configuration(name) || matches.value_source(name) != Some(ValueSource::CommandLine) {
            continue;
        }
        if let Ok(Some(values)) = matches.try_get_many::<String>(name) {
            flags.entry(name.to_owned()).or_default().extend(values.cloned());
        } else {
            let (name, value) = match name.strip_prefix("no-") {
                Some(name) => (name, "false"),
                None => (name, "true"),
            };
            flags.entry(name.to_owned()).or_default().push(value.to_owned());
        }
    }
}

/// Every configuration flag has a dot in its name, and no argument of a command has.
fn is_configuration(name: &str) -> bool {
    name.contains('.')
}

fn is_ours(arg: &Arg) -> bool {
    is_configuration(arg.get_id().as_str())
}

/// `--NAME`, and `--no-NAME`, which the help of `--NAME` tells of where it matters.
fn switch(name: String, help: String, heading: &'static str) -> Vec<Arg> {
    let no = format!("no-{name}");
    let yes = Arg::new(name.clone()).long(name).help(help).help_heading(heading).action(ArgAction::SetTrue);
    let no = Arg::new(no.clone()).long(no).help_heading(heading).action(ArgAction::SetTrue).hide(true);
    vec![yes, no]
}

fn text(name: String, value: &'static str, help: String, heading: &'static str) -> Arg {
    Arg::new(name.clone())
        .long(name)
        .value_name(value)
        .help(help)
        .help_heading(heading)
        .action(ArgAction::Append)
}
