//! The units of systemd: their states, services, sockets and timers.

use std::{collections::BTreeMap, io, os::unix::net::UnixStream};

use regex::Regex;

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Flag, Host, Options, Samples,
    dbus::{Answer, Call, Connection, Value},
};

const INCLUDE: &str = "systemd.unit-include";
const EXCLUDE: &str = "systemd.unit-exclude";
const OLD_INCLUDE: &str = "systemd.unit-whitelist";
const OLD_EXCLUDE: &str = "systemd.unit-blacklist";

/// This collector in the list.
pub const ENTRY: Entry = Entry {
    name: "systemd",
    default_on: false,
    flags: &[
        Flag::regex(
            INCLUDE,
            ".+",
            "Regexp of systemd units to include. Units must both match include and not match exclude to be included.",
        ),
        Flag::regex(
            EXCLUDE,
            ".+\\.(automount|device|mount|scope|slice)",
            "Regexp of systemd units to exclude. Units must both match include and not match exclude to be included.",
        ),
        Flag::regex(OLD_INCLUDE, "", "DEPRECATED: Use --collector.systemd.unit-include"),
        Flag::regex(OLD_EXCLUDE, "", "DEPRECATED: Use collector.systemd.unit-exclude"),
        Flag::bool(
            "systemd.private",
            false,
            "Establish a private, direct connection to systemd without dbus (Strongly discouraged since it requires root. For testing purposes only).",
        ),
        Flag::bool(
            "systemd.enable-task-metrics",
            false,
            "Enables service unit tasks metrics unit_tasks_current and unit_tasks_max",
        ),
        Flag::bool(
            "systemd.enable-restarts-metrics",
            false,
            "Enables service unit metric service_restart_total",
        ),
        Flag::bool(
            "systemd.enable-start-time-metrics",
            false,
            "Enables service unit metric unit_start_time_seconds",
        ),
    ],
    build,
};

static STATE: Desc = Desc::gauge("node_systemd_unit_state", "Systemd unit", &["name", "state", "type"]);
static START_TIME: Desc = Desc::gauge(
    "node_systemd_unit_start_time_seconds",
    "Start time of the unit since unix epoch in seconds.",
    NAME,
);
static TASKS: Desc =
    Desc::gauge("node_systemd_unit_tasks_current", "Current number of tasks per Systemd unit", NAME);
static TASKS_MAX: Desc =
    Desc::gauge("node_systemd_unit_tasks_max", "Maximum number of tasks per Systemd unit", NAME);
static RUNNING: Desc = Desc::gauge(
    "node_systemd_system_running",
    "Whether the system is operational (see 'systemctl is-system-running')",
    &[],
);
static UNITS: Desc = Desc::gauge("node_systemd_units", "Summary of systemd unit states", &["state"]);
static RESTARTS: Desc =
    Desc::counter("node_systemd_service_restart_total", "Service unit count of Restart triggers", NAME);
static LAST_TRIGGER: Desc =
    Desc::gauge("node_systemd_timer_last_trigger_seconds", "Seconds since epoch of last trigger.", NAME);
static ACCEPTED: Desc = Desc::counter(
    "node_systemd_socket_accepted_connections_total",
    "Total number of accepted socket connections",
    NAME,
);
static CONNECTIONS: Desc =
    Desc::gauge("node_systemd_socket_current_connections", "Current number of socket connections", NAME);
static REFUSED: Desc = Desc::gauge(
    "node_systemd_socket_refused_connections_total",
    "Total number of refused socket connections",
    NAME,
);
static VERSION: Desc = Desc::gauge("node_systemd_version", "Detected systemd version", &["version"]);
static VIRTUALIZATION: Desc = Desc::gauge(
    "node_systemd_virtualization_info",
    "Detected virtualization technology",
    &["virtualization_type"],
);

const NAME: &[&str] = &["name"];

/// The states that are always said.
const STATES: [&str; 5] = ["active", "activating", "deactivating", "inactive", "failed"];

/// The first version that knows the state of the system and when a timer went off.
const KNOWS_STATE: f64 = 212.0;

const SERVICE: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";

/// Where systemd listens for root without a bus.
const PRIVATE: &str = "/run/systemd/private";

struct Systemd {
    wants: Wants,
    is_private: bool,
    /// Kept between scrapes.
    connection: Option<Connection>,
}

/// What is said, by the flags.
#[derive(Debug)]
struct Wants {
    include: Regex,
    exclude: Regex,
    tasks: bool,
    restarts: bool,
    start_times: bool,
}

/// A unit as systemd lists it.
#[derive(Debug, Clone, PartialEq)]
struct Unit {
    name: String,
    is_loaded: bool,
    state: String,
    path: String,
}

/// A property of a unit, with what becomes of it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Property {
    ServiceType,
    MountType,
    Restarts,
    StartTime,
    Tasks,
    TasksMax,
    LastTrigger,
    Accepted,
    Connections,
    Refused,
}

impl Property {
    /// The interface and the name on the bus.
    fn arguments(self) -> &'static [&'static str; 2] {
        match self {
            Self::ServiceType => &["org.freedesktop.systemd1.Service", "Type"],
            Self::MountType => &["org.freedesktop.systemd1.Mount", "Type"],
            Self::Restarts => &["org.freedesktop.systemd1.Service", "NRestarts"],
            Self::StartTime => &["org.freedesktop.systemd1.Unit", "ActiveEnterTimestamp"],
            Self::Tasks => &["org.freedesktop.systemd1.Service", "TasksCurrent"],
            Self::TasksMax => &["org.freedesktop.systemd1.Service", "TasksMax"],
            Self::LastTrigger => &["org.freedesktop.systemd1.Timer", "LastTriggerUSec"],
            Self::Accepted => &["org.freedesktop.systemd1.Socket", "NAccepted"],
            Self::Connections => &["org.freedesktop.systemd1.Socket", "NConnections"],
            Self::Refused => &["org.freedesktop.systemd1.Socket", "NRefused"],
        }
    }
}

fn build(_: &Host, options: &Options) -> Result<Box<dyn Collector>, BuildError> {
    let wants = Wants {
        include: whole(options, options.older_name(INCLUDE, OLD_INCLUDE)?)?,
        exclude: whole(options, options.older_name(EXCLUDE, OLD_EXCLUDE)?)?,
        tasks: options.is_on("systemd.enable-task-metrics"),
        restarts: options.is_on("systemd.enable-restarts-metrics"),
        start_times: options.is_on("systemd.enable-start-time-metrics"),
    };
    Ok(Box::new(Systemd { wants, is_private: options.is_on("systemd.private"), connection: None }))
}

/// The pattern of a flag, which has to match a whole name.
fn whole(options: &Options, flag: &'static str) -> Result<Regex, BuildError> {
    Regex::new(&format!("^(?:{})$", options.text(flag)))
        .map_err(|source| BuildError::Regex { flag, source: Box::new(source) })
}

impl Collector for Systemd {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let failed = |source| CollectError::asking("could not ask systemd", source);
        // A connection that was kept may have lost its bus since: a new one is tried at once.
        if let Some(mut connection) = self.connection.take() {
            let mark = out.mark();
            if ask(&mut connection, &self.wants, out).is_ok() {
                self.connection = Some(connection);
                return Ok(());
            }
            out.rewind(mark);
        }
        let mut connection = self.connect().map_err(failed)?;
        ask(&mut connection, &self.wants, out).map_err(failed)?;
        self.connection = Some(connection);
        Ok(())
    }
}

impl Systemd {
    /// By the bus; for root also without it.
    fn connect(&self) -> io::Result<Connection> {
        let private = || Connection::direct(UnixStream::connect(PRIVATE)?);
        if self.is_private {
            return private();
        }
        match Connection::system() {
            Err(_) if rustix::process::geteuid().is_root() => private(),
            result => result,
        }
    }
}

fn ask(connection: &mut Connection, wants: &Wants, out: &mut Samples) -> io::Result<()> {
    let version = manager_property(connection, "Version")?;
    let (version, text) = version.as_deref().and_then(parse_version).unwrap_or((0.0, ""));
    out.push(&VERSION, &[text], version);
    let virtualization = manager_property(connection, "Virtualization")?;
    let virtualization = match virtualization.as_deref() {
        None => "unknown",
        Some("") => "none",
        Some(virtualization) => virtualization,
    };
    out.push(&VIRTUALIZATION, &[virtualization], 1.0);
    let units = list(connection)?;
    say_summary(&units, out);
    let units: Vec<&Unit> = units.iter().filter(|unit| wants.has(unit)).collect();
    ask_units(connection, &units, version >= KNOWS_STATE, wants, out)?;
    if version >= KNOWS_STATE {
        let state = manager_property(connection, "SystemState")?
            .ok_or_else(|| io::Error::other("systemd does not say the state of the system"))?;
        out.push(&RUNNING, &[], f64::from(u8::from(state == "running")));
    }
    Ok(())
}

/// A property of systemd itself; `None` where it has none of that name.
fn manager_property(connection: &mut Connection, name: &str) -> io::Result<Option<String>> {
    let arguments = [MANAGER, name];
    connection.call(Call::property(SERVICE, PATH, &arguments), |answer| {
        Ok(match answer.value() {
            Some(Value::Text(text)) => Some(text.to_owned()),
            _ => None,
        })
    })
}

/// "252.39-1~deb12u1": the first number of three digits or more, with what is behind its dot; and the whole text.
fn parse_version(text: &str) -> Option<(f64, &str)> {
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(|letter: char| !letter.is_ascii_digit());
        let behind = rest.trim_start_matches(|letter: char| letter.is_ascii_digit());
        let whole = rest.strip_suffix(behind)?;
        if whole.is_empty() {
            return None;
        }
        if whole.len() < 3 {
            rest = behind;
            continue;
        }
        let fraction = behind.strip_prefix('.').unwrap_or_default();
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
        let number = format!("{whole}.{}", fraction.get(..digits)?);
        return Some((number.parse().ok()?, text));
    }
}

fn list(connection: &mut Connection) -> io::Result<Vec<Unit>> {
    let call =
        Call { destination: SERVICE, path: PATH, interface: MANAGER, member: "ListUnits", arguments: &[] };
    connection.call(call, |answer| {
        // Name, description, whether loaded, state, state by type, unit that is followed, path, job, its type, its path.
        let units = answer.expect("a(ssssssouso)")?.structures(|unit| {
            let (name, _, load, state) = (unit.text()?, unit.text()?, unit.text()?, unit.text()?);
            let (_, _, path) = (unit.text()?, unit.text()?, unit.text()?);
            let (_, _, _) = (unit.u32()?, unit.text()?, unit.text()?);
            Some(Unit {
                name: name.to_owned(),
                is_loaded: load == "loaded",
                state: state.to_owned(),
                path: path.to_owned(),
            })
        });
        units.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the list of units is cut"))
    })
}

fn say_summary(units: &[Unit], out: &mut Samples) {
    let mut counts: BTreeMap<&str, u32> = STATES.iter().map(|state| (*state, 0)).collect();
    for unit in units {
        *counts.entry(&unit.state).or_default() += 1;
    }
    for (state, count) in counts {
        out.push(&UNITS, &[state], f64::from(count));
    }
}

impl Wants {
    fn has(&self, unit: &Unit) -> bool {
        unit.is_loaded && self.include.is_match(&unit.name) && !self.exclude.is_match(&unit.name)
    }

    /// What to ask of a unit, by its kind.
    fn properties(&self, unit: &Unit, knows_state: bool) -> impl Iterator<Item = Property> {
        let kind = unit.name.rsplit_once('.').map_or("", |(_, kind)| kind);
        let is_service = kind == "service";
        let is_socket = kind == "socket";
        [
            (is_service, Property::ServiceType),
            (kind == "mount", Property::MountType),
            (is_service && self.restarts, Property::Restarts),
            (self.start_times && unit.state == "active", Property::StartTime),
            (is_service && self.tasks, Property::Tasks),
            (is_service && self.tasks, Property::TasksMax),
            (kind == "timer" && knows_state, Property::LastTrigger),
            (is_socket, Property::Accepted),
            (is_socket, Property::Connections),
            (is_socket, Property::Refused),
        ]
        .into_iter()
        .filter_map(|(is_wanted, property)| is_wanted.then_some(property))
    }
}

fn ask_units(
    connection: &mut Connection,
    units: &[&Unit],
    knows_state: bool,
    wants: &Wants,
    out: &mut Samples,
) -> io::Result<()> {
    let mut asked = Vec::new();
    for unit in units {
        let before = asked.len();
        asked.extend(wants.properties(unit, knows_state).map(|property| (*unit, property)));
        let has_type = asked
            .get(before)
            .is_some_and(|(_, first)| matches!(first, Property::ServiceType | Property::MountType));
        if !has_type {
            say_state(unit, "", out);
        }
        if wants.start_times && unit.state != "active" {
            out.push(&START_TIME, &[&unit.name], 0.0);
        }
    }
    let calls =
        asked.iter().map(|(unit, property)| Call::property(SERVICE, &unit.path, property.arguments()));
    let mut sockets: BTreeMap<&str, [Option<u32>; 3]> = BTreeMap::new();
    connection.call_all(calls, |at, answer| {
        let Some((unit, property)) = asked.get(at) else { return };
        let name = unit.name.as_str();
        match property {
            Property::Accepted => sockets.entry(name).or_default()[0] = number(answer),
            Property::Connections => sockets.entry(name).or_default()[1] = number(answer),
            Property::Refused => sockets.entry(name).or_default()[2] = number(answer),
            property => say_property(unit, *property, answer.value(), out),
        }
    })?;
    for (name, [accepted, connections, refused]) in sockets {
        // Before systemd 239 refused ones were not counted; without one of the others nothing behind it is said.
        let numbers = [(&ACCEPTED, accepted), (&CONNECTIONS, connections), (&REFUSED, refused)];
        for (desc, number) in numbers {
            let Some(number) = number else { break };
            out.push(desc, &[name], f64::from(number));
        }
    }
    Ok(())
}

fn number(answer: Answer) -> Option<u32> {
    match answer.value() {
        Some(Value::U32(number)) => Some(number),
        _ => None,
    }
}

fn say_property(unit: &Unit, property: Property, value: Option<Value>, out: &mut Samples) {
    let labels = [unit.name.as_str()];
    match (property, value) {
        (Property::ServiceType | Property::MountType, Some(Value::Text(kind))) => say_state(unit, kind, out),
        (Property::ServiceType | Property::MountType, _) => say_state(unit, "", out),
        (Property::Restarts, Some(Value::U32(count))) => out.push(&RESTARTS, &labels, f64::from(count)),
        (Property::StartTime, Some(Value::U64(time))) => out.push(&START_TIME, &labels, time as f64 / 1e6),
        (Property::LastTrigger, Some(Value::U64(time))) => {
            out.push(&LAST_TRIGGER, &labels, time as f64 / 1e6);
        }
        // The greatest number stands for "not counted" and for "no limit".
        (Property::Tasks | Property::TasksMax, Some(Value::U64(u64::MAX))) => {}
        (Property::Tasks, Some(Value::U64(count))) => out.push(&TASKS, &labels, count as f64),
        (Property::TasksMax, Some(Value::U64(count))) => out.push(&TASKS_MAX, &labels, count as f64),
        // The unit went away, or an old systemd has no such property.
        _ => {}
    }
}

fn say_state(unit: &Unit, kind: &str, out: &mut Samples) {
    for state in STATES {
        out.push(&STATE, &[&unit.name, state, kind], f64::from(u8::from(state == unit.state)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        collector::Settings,
        dbus::fake::{self, Body, Property as Fake},
    };

    const UNITS_LISTED: &[&[&str]] = &[
        &["sshd.service", "OpenSSH", "loaded", "active", "running", "", "/unit/sshd", "0", "", "/"],
        &["gone.service", "", "not-found", "inactive", "dead", "", "/unit/gone", "0", "", "/"],
        &["old.service", "", "loaded", "failed", "failed", "", "/unit/old", "0", "", "/"],
        &["api.socket", "", "loaded", "active", "listening", "", "/unit/api", "0", "", "/"],
        &["fstrim.timer", "", "loaded", "active", "waiting", "", "/unit/fstrim", "7", "start", "/job/7"],
        &["data.mount", "", "loaded", "reloading", "mounted", "", "/unit/data", "0", "", "/"],
    ];

    fn answer(path: &str, member: &str, arguments: &[String]) -> Option<Body> {
        let property = arguments.get(1).map_or("", String::as_str);
        Some(match (member, path, property) {
            ("ListUnits", ..) => Body::structures("a(ssssssouso)", UNITS_LISTED),
            (_, PATH, "Version") => Body::property(Fake::Text("252.39-1~deb12u1")),
            (_, PATH, "Virtualization") => Body::property(Fake::Text("")),
            (_, PATH, "SystemState") => Body::property(Fake::Text("running")),
            (_, "/unit/sshd", "Type") => Body::property(Fake::Text("notify")),
            (_, "/unit/sshd", "NRestarts") => Body::property(Fake::U32(3)),
            (_, "/unit/sshd", "TasksCurrent") => Body::property(Fake::U64(12)),
            (_, "/unit/sshd", "TasksMax") => Body::property(Fake::U64(u64::MAX)),
            (_, "/unit/sshd", "ActiveEnterTimestamp") => Body::property(Fake::U64(1_500_000)),
            (_, "/unit/fstrim", "LastTriggerUSec") => Body::property(Fake::U64(2_500_000)),
            (_, "/unit/api", "NAccepted") => Body::property(Fake::U32(9)),
            (_, "/unit/api", "NConnections") => Body::property(Fake::U32(1)),
            _ => return None,
        })
    }

    fn said(flags: &[(&str, &str)]) -> Vec<String> {
        let settings: Settings =
            flags.iter().map(|(name, value)| (name.to_string(), vec![value.to_string()])).collect();
        let options = Options::new(&ENTRY, &settings);
        let wants = Wants {
            include: whole(&options, INCLUDE).expect("valid"),
            exclude: whole(&options, EXCLUDE).expect("valid"),
            tasks: options.is_on("systemd.enable-task-metrics"),
            restarts: options.is_on("systemd.enable-restarts-metrics"),
            start_times: options.is_on("systemd.enable-start-time-metrics"),
        };
        let mut out = Samples::new();
        ask(&mut fake::connect(answer), &wants, &mut out).expect("answered");
        let line = |(name, labels, value): (&str, crate::samples::LabelValues, f64)| {
            let labels: Vec<&str> = labels.collect();
            format!("{} {} {value}", name.trim_start_matches("node_systemd_"), labels.join(","))
        };
        out.iter().map(line).filter(|line| !line.starts_with("unit_state") || line.ends_with(" 1")).collect()
    }

    #[test]
    fn units_are_said_by_their_kind() {
        assert_eq!(
            said(&[]),
            [
                "version 252.39-1~deb12u1 252.39",
                "virtualization_info none 1",
                "units activating 0",
                "units active 3",
                "units deactivating 0",
                "units failed 1",
                "units inactive 1",
                "units reloading 1",
                "unit_state api.socket,active, 1",
                "unit_state fstrim.timer,active, 1",
                "unit_state sshd.service,active,notify 1",
                "unit_state old.service,failed, 1",
                "timer_last_trigger_seconds fstrim.timer 2.5",
                "socket_accepted_connections_total api.socket 9",
                "socket_current_connections api.socket 1",
                "system_running  1",
            ]
        );
    }

    #[test]
    fn more_is_said_when_it_is_asked_for() {
        let said = said(&[
            ("systemd.unit-include", "sshd.+|old.service"),
            ("systemd.enable-task-metrics", "true"),
            ("systemd.enable-restarts-metrics", "true"),
            ("systemd.enable-start-time-metrics", "true"),
        ]);
        assert_eq!(
            said[8..],
            [
                "unit_start_time_seconds old.service 0",
                "unit_state sshd.service,active,notify 1",
                "service_restart_total sshd.service 3",
                "unit_start_time_seconds sshd.service 1.5",
                "unit_tasks_current sshd.service 12",
                "unit_state old.service,failed, 1",
                "system_running  1",
            ]
        );
    }

    #[test]
    fn patterns_match_whole_names_and_old_flags_give_way() {
        assert!(said(&[("systemd.unit-include", "ssh")]).iter().all(|line| !line.starts_with("unit_state")));
        let settings = |flags: &[&str]| -> Settings {
            flags.iter().map(|flag| (flag.to_string(), vec!["x".to_owned()])).collect()
        };
        let built = |flags| build(&Host::default(), &Options::new(&ENTRY, &settings(flags))).is_ok();
        assert!(built(&[OLD_INCLUDE]));
        assert!(!built(&[OLD_INCLUDE, INCLUDE]));
        assert!(!built(&[OLD_EXCLUDE, EXCLUDE]));
    }

    #[test]
    fn versions_are_found_in_their_texts() {
        let number = |text| parse_version(text).map(|(number, _)| number);
        assert_eq!(number("systemd 255 (255.4-1ubuntu8)"), Some(255.0));
        assert_eq!(number("v250.3.1"), Some(250.3));
        assert_eq!(number("249."), Some(249.0));
        assert_eq!(number("12 of 3"), None);
        assert_eq!(number(""), None);
    }

    #[test]
    fn a_bus_without_systemd_is_an_error() {
        let wants = || Wants {
            include: Regex::new(".").expect("valid"),
            exclude: Regex::new("x").expect("valid"),
            tasks: false,
            restarts: false,
            start_times: false,
        };
        let mut out = Samples::new();
        assert!(ask(&mut fake::connect(|_, _, _| None), &wants(), &mut out).is_err());
        let said: Vec<_> = out.iter().map(|(name, mut labels, value)| (name, labels.next(), value)).collect();
        assert_eq!(said, [(VERSION.name, Some(""), 0.0), (VIRTUALIZATION.name, Some("unknown"), 1.0)]);
    }
}
