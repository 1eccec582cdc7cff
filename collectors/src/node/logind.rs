//! The sessions that logind knows of.

use std::{collections::HashMap, io};

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Host, Options, Samples,
    dbus::{Call, Connection, Value},
};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "logind", default_on: false, flags: &[], build };

static SESSIONS: Desc = Desc::gauge(
    "node_logind_sessions",
    "Number of sessions registered in logind.",
    &["class", "remote", "seat", "type"],
);

const SERVICE: &str = "org.freedesktop.login1";
const MANAGER: &str = "org.freedesktop.login1.Manager";
const SESSION: &str = "org.freedesktop.login1.Session";

const REMOTE: [&str; 2] = ["true", "false"];
/// The first stands for those that are not known.
const TYPES: [&str; 7] = ["other", "unspecified", "tty", "x11", "wayland", "mir", "web"];
/// The first stands for those that are not known.
const CLASSES: [&str; 5] = ["other", "user", "greeter", "lock-screen", "background"];

#[derive(Default)]
struct Logind {
    /// Kept between scrapes.
    connection: Option<Connection>,
}

/// Where a session is, and what it is: the values of [`REMOTE`], [`TYPES`], [`CLASSES`].
type Session = (String, [&'static str; 3]);

fn build(_: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Logind::default()))
}

impl Collector for Logind {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let failed = |source| CollectError::asking("could not ask logind", source);
        // A connection that was kept may have lost its bus since: a new one is tried at once.
        if let Some(mut connection) = self.connection.take()
            && let Ok((seats, sessions)) = ask(&mut connection)
        {
            self.connection = Some(connection);
            say(&seats, &sessions, out);
            return Ok(());
        }
        let mut connection = Connection::system().map_err(failed)?;
        let (seats, sessions) = ask(&mut connection).map_err(failed)?;
        self.connection = Some(connection);
        say(&seats, &sessions, out);
        Ok(())
    }
}

/// The seats and the sessions.
fn ask(connection: &mut Connection) -> io::Result<(Vec<String>, Vec<Session>)> {
    let cut = || io::Error::new(io::ErrorKind::InvalidData, "the list is cut");
    let list = |member| Call {
        destination: SERVICE,
        path: "/org/freedesktop/login1",
        interface: MANAGER,
        member,
        arguments: &[],
    };
    let seats = connection.call(list("ListSeats"), |answer| {
        let mut results = answer.expect("a(so)")?;
        let seat = results.structures(|seat| Some((seat.text()?.to_owned(), seat.text()?).0));
        seat.ok_or_else(cut)
    })?;
    // Number, user, name of the user, seat, path.
    let listed = connection.call(list("ListSessions"), |answer| {
        let mut results = answer.expect("a(susso)")?;
        let session = results.structures(|session| {
            let (_id, _user, _name) = (session.text()?, session.u32()?, session.text()?);
            Some((session.text()?.to_owned(), session.text()?.to_owned()))
        });
        session.ok_or_else(cut)
    })?;
    let properties = [[SESSION, "Remote"], [SESSION, "Type"], [SESSION, "Class"]];
    let calls = listed
        .iter()
        .flat_map(|(_, path)| properties.iter().map(|property| Call::property(SERVICE, path, property)));
    let mut found = vec![[None; 3]; listed.len()];
    connection.call_all(calls, |at, answer| {
        let known = match (at % 3, answer.value()) {
            (0, Some(Value::Bool(remote))) => Some(if remote { "true" } else { "false" }),
            (1, Some(Value::Text(kind))) => Some(known_or_other(kind, &TYPES)),
            (2, Some(Value::Text(class))) => Some(known_or_other(class, &CLASSES)),
            _ => None,
        };
        if let Some(place) = found.get_mut(at / 3).and_then(|found| found.get_mut(at % 3)) {
            *place = known;
        }
    })?;
    // A session that ended since it was listed has no properties.
    let sessions = listed.into_iter().zip(found).filter_map(|((seat, _), found)| {
        let [remote, kind, class] = found;
        Some((seat, [remote?, kind?, class?]))
    });
    Ok((seats, sessions.collect()))
}

fn known_or_other(value: &str, known: &[&'static str]) -> &'static str {
    known.iter().copied().find(|known| *known == value).unwrap_or("other")
}

/// Every combination is said, and the seat without a name too, where sessions from afar are.
fn say(seats: &[String], sessions: &[Session], out: &mut Samples) {
    let mut counts: HashMap<(&str, [&str; 3]), u32> = HashMap::new();
    for (seat, kind) in sessions {
        *counts.entry((seat.as_str(), *kind)).or_default() += 1;
    }
    for remote in REMOTE {
        for kind in TYPES {
            for class in CLASSES {
                for seat in seats.iter().map(String::as_str).chain([""]) {
                    let count = counts.get(&(seat, [remote, kind, class])).copied().unwrap_or(0);
                    out.push(&SESSIONS, &[class, remote, seat, kind], f64::from(count));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dbus::fake::{self, Body, Property};

    fn answer(path: &str, member: &str, arguments: &[String]) -> Option<Body> {
        let property = arguments.get(1).map_or("", String::as_str);
        match (member, path, property) {
            ("ListSeats", ..) => Some(Body::structures("a(so)", &[&["seat0", "/seat/seat0"]])),
            ("ListSessions", ..) => Some(Body::structures(
                "a(susso)",
                &[
                    &["1", "0", "root", "seat0", "/session/1"],
                    &["2", "1000", "ada", "", "/session/2"],
                    &["3", "1000", "ada", "", "/session/3"],
                    &["4", "1000", "ada", "", "/session/gone"],
                ],
            )),
            (_, "/session/gone", _) => None,
            (_, path, "Remote") => Some(Body::property(Property::Bool(path != "/session/1"))),
            (_, "/session/1", "Type") => Some(Body::property(Property::Text("holodeck"))),
            (.., "Type") => Some(Body::property(Property::Text("tty"))),
            (.., "Class") => Some(Body::property(Property::Text("user"))),
            _ => None,
        }
    }

    #[test]
    fn sessions_are_counted_by_what_they_are() {
        let mut connection = fake::connect(answer);
        let (seats, sessions) = ask(&mut connection).expect("answered");
        let mut out = Samples::new();
        say(&seats, &sessions, &mut out);
        assert_eq!(out.len(), 2 * 7 * 5 * 2);
        let counted: Vec<String> = out
            .iter()
            .filter(|(.., count)| *count > 0.0)
            .map(|(_, labels, count)| format!("{} {count}", labels.collect::<Vec<_>>().join(",")))
            .collect();
        assert_eq!(counted, ["user,true,,tty 2", "user,false,seat0,other 1"]);
    }

    #[test]
    fn a_bus_without_logind_is_an_error() {
        assert!(ask(&mut fake::connect(|_, _, _| None)).is_err());
    }
}
