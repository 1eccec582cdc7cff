//! A client of D-Bus that calls methods: enough to ask systemd and logind for properties.
//!
//! Calls of one kind are sent many at a time and answered as the replies come in, so that a scrape over hundreds of units
//! costs a few turns of the bus, not one for each property. No signals, no objects of our own.

use std::{
    io::{self, Read, Write},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixStream},
    },
    time::Duration,
};

/// Where the system bus listens when the environment names no other place.
const SYSTEM_BUS: &str = "unix:path=/var/run/dbus/system_bus_socket";

/// Calls under way at a time: a bus refuses more than 128 of one client that wait for their replies.
const WINDOW: usize = 64;

/// How long the peer may be silent while it owes an answer.
const SILENCE: Duration = Duration::from_secs(5);

/// What the D-Bus specification allows a message to be.
const LONGEST: usize = 1 << 27;

/// A call of a method whose arguments are texts.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The name of the service on the bus.
    pub destination: &'a str,
    /// The object.
    pub path: &'a str,
    /// The interface that has the method.
    pub interface: &'a str,
    /// The method.
    pub member: &'a str,
    /// Its arguments.
    pub arguments: &'a [&'a str],
}

impl<'a> Call<'a> {
    /// The call that asks for a property; `arguments` are the interface and the property.
    pub fn property(destination: &'a str, path: &'a str, arguments: &'a [&'a str; 2]) -> Self {
        Self { destination, path, interface: "org.freedesktop.DBus.Properties", member: "Get", arguments }
    }
}

/// What came back from a call.
#[derive(Debug)]
pub enum Answer<'a> {
    /// The results.
    Results(Results<'a>),
    /// The method failed; the name of the error.
    Refused(&'a str),
}

impl<'a> Answer<'a> {
    /// The results if they have this signature; else an error that says why not.
    pub fn expect(self, signature: &str) -> io::Result<Results<'a>> {
        match self {
            Self::Results(results) if results.signature == signature => Ok(results),
            Self::Results(results) => {
                Err(odd(format!("the answer has the signature {:?}, not {signature:?}", results.signature)))
            }
            Self::Refused(name) => Err(io::Error::other(name.to_owned())),
        }
    }

    /// The value of a property; `None` if there is no such property.
    pub fn value(self) -> Option<Value<'a>> {
        self.expect("v").ok()?.value()
    }
}

/// The value of a property, of the types that are asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// A boolean.
    Bool(bool),
    /// A text.
    Text(&'a str),
    /// A number of 32 bits.
    U32(u32),
    /// A number of 64 bits.
    U64(u64),
    /// Anything else.
    Other,
}

/// The results of a method, read one after the other; `None` where the message is cut or something else stands there.
#[derive(Debug, Clone)]
pub struct Results<'a> {
    signature: &'a str,
    bytes: &'a [u8],
    at: usize,
    is_big_endian: bool,
}

impl<'a> Results<'a> {
    /// A text or an object path.
    pub fn text(&mut self) -> Option<&'a str> {
        let length = self.u32()? as usize;
        let text = std::str::from_utf8(self.take(length)?).ok()?;
        (self.take(1)? == [0]).then_some(text)
    }

    /// A number of 32 bits.
    pub fn u32(&mut self) -> Option<u32> {
        self.align(4)?;
        let bytes = self.take(4)?.try_into().ok()?;
        Some(if self.is_big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    /// A number of 64 bits.
    pub fn u64(&mut self) -> Option<u64> {
        self.align(8)?;
        let bytes = self.take(8)?.try_into().ok()?;
        Some(if self.is_big_endian { u64::from_be_bytes(bytes) } else { u64::from_le_bytes(bytes) })
    }

    /// The elements of an array of structures, each read by `read`.
    pub fn structures<T>(&mut self, mut read: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let length = self.u32()? as usize;
        self.align(8)?;
        let end = self.at.checked_add(length)?;
        let mut elements = Vec::new();
        while self.at < end {
            self.align(8)?;
            elements.push(read(self)?);
        }
        (self.at == end).then_some(elements)
    }

    fn value(&mut self) -> Option<Value<'a>> {
        Some(match self.signature()? {
            "b" => Value::Bool(self.u32()? != 0),
            "s" | "o" => Value::Text(self.text()?),
            "u" => Value::U32(self.u32()?),
            "t" => Value::U64(self.u64()?),
            _ => Value::Other,
        })
    }

    fn signature(&mut self) -> Option<&'a str> {
        let &[length] = self.take(1)? else { return None };
        let text = std::str::from_utf8(self.take(length.into())?).ok()?;
        (self.take(1)? == [0]).then_some(text)
    }

    fn align(&mut self, to: usize) -> Option<()> {
        self.take(self.at.next_multiple_of(to) - self.at).map(drop)
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(length)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }
}

/// A connection to a bus, or to a service that speaks without one. After an error it is of no more use.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    serial: u32,
    output: Vec<u8>,
    /// What was read and is not yet used.
    input: Vec<u8>,
}

impl Connection {
    /// Connects to the system bus, where `$DBUS_SYSTEM_BUS_ADDRESS` or the specification says that it is.
    pub fn system() -> io::Result<Self> {
        let address = std::env::var("DBUS_SYSTEM_BUS_ADDRESS").unwrap_or_default();
        let address = if address.is_empty() { SYSTEM_BUS } else { &address };
        let mut last = odd(format!("{address:?} has no unix socket"));
        for address in address.split(';') {
            match socket_address(address).map(|address| UnixStream::connect_addr(&address?)) {
                Some(Ok(stream)) => {
                    let mut connection = Self::direct(stream)?;
                    let hello = Call {
                        destination: "org.freedesktop.DBus",
                        path: "/org/freedesktop/DBus",
                        interface: "org.freedesktop.DBus",
                        member: "Hello",
                        arguments: &[],
                    };
                    connection.call(hello, |answer| answer.expect("s").map(drop))?;
                    return Ok(connection);
                }
                Some(Err(error)) => last = error,
                None => {}
            }
        }
        Err(last)
    }

    /// Speaks with the service at the other end, without a bus between.
    pub fn direct(stream: UnixStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        let mut connection = Self { stream, serial: 0, output: Vec::new(), input: Vec::new() };
        connection.authenticate()?;
        Ok(connection)
    }

    /// The peer knows who we are from the socket; we only say the same number, as hexadecimal digits of its decimal ones.
    fn authenticate(&mut self) -> io::Result<()> {
        let mut request = b"\0AUTH EXTERNAL ".to_vec();
        for digit in rustix::process::getuid().as_raw().to_string().bytes() {
            write!(request, "{digit:02x}")?;
        }
        request.extend_from_slice(b"\r\n");
        self.stream.write_all(&request)?;
        let end = loop {
            if let Some(end) = self.input.windows(2).position(|bytes| bytes == b"\r\n") {
                break end;
            }
            if self.input.len() > 4096 {
                return Err(odd("the authentication has no end"));
            }
            self.read_more()?;
        };
        let answer: Vec<u8> = self.input.drain(..end + 2).collect();
        if !answer.starts_with(b"OK ") {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the bus refused the authentication",
            ));
        }
        self.stream.write_all(b"BEGIN\r\n")
    }

    /// Calls one method.
    pub fn call<T>(&mut self, call: Call, read: impl FnOnce(Answer) -> io::Result<T>) -> io::Result<T> {
        let (mut read, mut result) = (Some(read), None);
        self.call_all(std::iter::once(call), |_, answer| {
            result = read.take().map(|read| read(answer));
        })?;
        result.unwrap_or_else(|| Err(odd("there was no answer")))
    }

    /// Calls many methods; `each` gets the place of each call and its answer, in the order in which the answers come.
    pub fn call_all<'a>(
        &mut self,
        calls: impl Iterator<Item = Call<'a>>,
        mut each: impl FnMut(usize, Answer),
    ) -> io::Result<()> {
        let mut calls = calls.peekable();
        let mut place = 0;
        while calls.peek().is_some() {
            self.output.clear();
            let first = self.serial;
            for call in calls.by_ref().take(WINDOW) {
                // 0 is no serial number, so a connection ends before it would come again.
                self.serial = self.serial.checked_add(1).ok_or_else(|| odd("the connection is used up"))?;
                encode(&mut self.output, self.serial, &call);
            }
            let count = (self.serial - first) as usize;
            self.stream.write_all(&self.output)?;
            self.receive(first, count, |at, answer| each(place + at, answer))?;
            place += count;
        }
        Ok(())
    }

    /// Waits for the answers to the `count` calls after the one with the serial number `first`.
    fn receive(&mut self, first: u32, count: usize, mut each: impl FnMut(usize, Answer)) -> io::Result<()> {
        let mut is_answered = [false; WINDOW];
        let mut missing = count;
        while missing > 0 {
            let length = loop {
                match message_length(&self.input)? {
                    Some(length) if length <= self.input.len() => break length,
                    _ => self.read_more()?,
                }
            };
            let message = self.input.get(..length).unwrap_or_default();
            if let Some((serial, answer)) = decode(message).ok_or_else(|| odd("a message is cut"))? {
                let at = serial.wrapping_sub(first).wrapping_sub(1) as usize;
                let answered = is_answered.get_mut(at).filter(|_| at < count);
                if let Some(answered) = answered.filter(|answered| !**answered) {
                    *answered = true;
                    missing -= 1;
                    each(at, answer);
                }
            }
            self.input.drain(..length);
        }
        Ok(())
    }

    fn read_more(&mut self) -> io::Result<()> {
        let filled = self.input.len();
        self.input.resize(filled + (16 << 10), 0);
        let result = self.stream.read(self.input.get_mut(filled..).unwrap_or_default());
        self.input.truncate(filled + result.as_ref().map_or(0, |count| *count));
        match result {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn odd(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// "unix:path=/run/dbus/socket,guid=..." or "unix:abstract=name"; `None` for other transports.
fn socket_address(address: &str) -> Option<io::Result<SocketAddr>> {
    let keys = address.strip_prefix("unix:")?;
    keys.split(',').find_map(|key| match key.split_once('=')? {
        ("path", path) => Some(SocketAddr::from_pathname(unescape(path))),
        ("abstract", name) => Some(SocketAddr::from_abstract_name(unescape(name))),
        _ => None,
    })
}

/// An odd byte of an address is written "%20".
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let escaped = behind
            .get(..2)
            .filter(|_| byte == b'%')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { behind.get(2..).unwrap_or_default() } else { behind };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Adds the message of a call: a header of fixed size, fields with their types, the arguments.
fn encode(output: &mut Vec<u8>, serial: u32, call: &Call) {
    let mut body = Vec::new();
    for argument in call.arguments {
        put_text(&mut body, argument);
    }
    let mut fields = Vec::new();
    for (code, kind, text) in
        [(1, b'o', call.path), (2, b's', call.interface), (3, b's', call.member), (6, b's', call.destination)]
    {
        fields.resize(fields.len().next_multiple_of(8), 0);
        fields.extend_from_slice(&[code, 1, kind, 0]);
        put_text(&mut fields, text);
    }
    if !call.arguments.is_empty() {
        fields.resize(fields.len().next_multiple_of(8), 0);
        let count = call.arguments.len();
        fields.extend_from_slice(&[8, 1, b'g', 0, count as u8]);
        fields.resize(fields.len() + count, b's');
        fields.push(0);
    }
    // Little-endian, a call, no flags, version 1 of the protocol.
    output.extend_from_slice(&[b'l', 1, 0, 1]);
    output.extend_from_slice(&(body.len() as u32).to_le_bytes());
    output.extend_from_slice(&serial.to_le_bytes());
    output.extend_from_slice(&(fields.len() as u32).to_le_bytes());
    fields.resize(fields.len().next_multiple_of(8), 0);
    output.extend_from_slice(&fields);
    output.extend_from_slice(&body);
}

/// A text as it is in a message whose part `bytes` begins at a multiple of 8.
fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(0);
}

/// How long the message at the start of `input` is; `None` while that is not yet there.
fn message_length(input: &[u8]) -> io::Result<Option<usize>> {
    let Some(&[order, _, _, _, a0, a1, a2, a3, _, _, _, _, b0, b1, b2, b3]) = input.first_chunk() else {
        return Ok(None);
    };
    let number: fn([u8; 4]) -> u32 = match order {
        b'l' => u32::from_le_bytes,
        b'B' => u32::from_be_bytes,
        _ => return Err(odd("a message begins with something odd")),
    };
    let (body, fields) = (number([a0, a1, a2, a3]) as usize, number([b0, b1, b2, b3]) as usize);
    if body > LONGEST || fields > LONGEST {
        return Err(odd("a message is too long"));
    }
    Ok(Some(16 + fields.next_multiple_of(8) + body))
}

/// The call that a message answers, and the answer; `Some(None)` for a signal or the like.
fn decode(message: &[u8]) -> Option<Option<(u32, Answer<'_>)>> {
    let &[order, kind, ..] = message else { return None };
    let mut header = Results { signature: "", bytes: message, at: 12, is_big_endian: order == b'B' };
    let length = header.u32()? as usize;
    let end = header.at.checked_add(length)?;
    let (mut serial, mut error, mut signature) = (None, "", "");
    while header.at < end {
        header.align(8)?;
        let &[code] = header.take(1)? else { return None };
        match (code, header.signature()?) {
            (4, "s") => error = header.text()?,
            (5, "u") => serial = Some(header.u32()?),
            (8, "g") => signature = header.signature()?,
            (_, "s" | "o") => drop(header.text()?),
            (_, "g") => drop(header.signature()?),
            (_, "u") => drop(header.u32()?),
            _ => return None,
        }
    }
    header.align(8)?;
    let results =
        Results { signature, bytes: message.get(header.at..)?, at: 0, is_big_endian: order == b'B' };
    Some(match (kind, serial) {
        (2, Some(serial)) => Some((serial, Answer::Results(results))),
        (3, Some(serial)) => Some((serial, Answer::Refused(error))),
        _ => None,
    })
}

/// A peer for tests.
#[cfg(test)]
pub(crate) mod fake {
    use super::*;

    /// The value of a property, as a peer writes it.
    #[derive(Debug, Clone, Copy)]
    pub(crate) enum Property<'a> {
        Bool(bool),
        Text(&'a str),
        U32(u32),
        U64(u64),
    }

    /// The results of a method, in the making.
    #[derive(Debug, Default)]
    pub(crate) struct Body {
        signature: String,
        bytes: Vec<u8>,
    }

    impl Body {
        /// A property.
        pub(crate) fn property(value: Property) -> Self {
            let mut body = Self { signature: "v".into(), bytes: Vec::new() };
            let kind = match value {
                Property::Bool(_) => b'b',
                Property::Text(_) => b's',
                Property::U32(_) => b'u',
                Property::U64(_) => b't',
            };
            body.bytes.extend_from_slice(&[1, kind, 0]);
            match value {
                Property::Bool(value) => body.number(u32::from(value)),
                Property::Text(text) => put_text(&mut body.bytes, text),
                Property::U32(number) => body.number(number),
                Property::U64(number) => {
                    body.bytes.resize(body.bytes.len().next_multiple_of(8), 0);
                    body.bytes.extend_from_slice(&number.to_le_bytes());
                }
            }
            body
        }

        /// An array of structures of texts and, where a text is a number, of numbers.
        pub(crate) fn structures(signature: &str, elements: &[&[&str]]) -> Self {
            let mut body = Self { signature: signature.into(), bytes: vec![0; 8] };
            let kinds = signature.trim_start_matches("a(").trim_end_matches(')');
            for element in elements {
                body.bytes.resize(body.bytes.len().next_multiple_of(8), 0);
                for (kind, text) in kinds.bytes().zip(*element) {
                    match kind {
                        b'u' => body.number(text.parse().expect("a number")),
                        _ => put_text(&mut body.bytes, text),
                    }
                }
            }
            let length = (body.bytes.len() - 8) as u32;
            body.bytes[..4].copy_from_slice(&length.to_le_bytes());
            body
        }

        fn number(&mut self, number: u32) {
            self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
            self.bytes.extend_from_slice(&number.to_le_bytes());
        }
    }

    /// A connection whose peer answers with what `answer` makes of (path, member, arguments); `None` is refused.
    pub(crate) fn connect(
        answer: impl Fn(&str, &str, &[String]) -> Option<Body> + Send + 'static,
    ) -> Connection {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair of sockets");
        std::thread::spawn(move || {
            let mut input = Vec::new();
            let mut is_talking = false;
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = theirs.read(&mut bytes) {
                input.extend_from_slice(&bytes[..count]);
                while !is_talking && let Some(end) = input.windows(2).position(|two| two == b"\r\n") {
                    let line: Vec<u8> = input.drain(..end + 2).collect();
                    is_talking = line == b"BEGIN\r\n";
                    if !is_talking {
                        theirs.write_all(b"OK 0123456789abcdef\r\n").expect("written");
                    }
                }
                while is_talking
                    && let Ok(Some(length)) = message_length(&input)
                    && length <= input.len()
                {
                    let message: Vec<u8> = input.drain(..length).collect();
                    theirs.write_all(&reply(&message, &answer)).expect("written");
                }
            }
        });
        Connection::direct(ours).expect("authenticated")
    }

    fn reply(message: &[u8], answer: &impl Fn(&str, &str, &[String]) -> Option<Body>) -> Vec<u8> {
        let serial = u32::from_le_bytes(message[8..12].try_into().expect("four bytes"));
        let mut header = Results { signature: "", bytes: message, at: 12, is_big_endian: false };
        let end = header.u32().expect("a length") as usize + 16;
        let (mut path, mut member, mut signature) = ("", "", "");
        while header.at < end {
            header.align(8).expect("aligned");
            let code = header.take(1).expect("a code")[0];
            match (code, header.signature().expect("a type")) {
                (1, _) => path = header.text().expect("a path"),
                (3, _) => member = header.text().expect("a member"),
                (8, _) => signature = header.signature().expect("a signature"),
                _ => drop(header.text().expect("a text")),
            }
        }
        header.align(8).expect("aligned");
        let mut body = Results { signature: "", bytes: &message[header.at..], at: 0, is_big_endian: false };
        let arguments: Vec<String> =
            signature.bytes().map(|_| body.text().expect("an argument").to_owned()).collect();
        let answered = answer(path, member, &arguments);
        let mut fields = vec![5, 1, b'u', 0];
        fields.extend_from_slice(&serial.to_le_bytes());
        match &answered {
            Some(body) => fields.extend_from_slice(&[8, 1, b'g', 0, body.signature.len() as u8]),
            None => fields.extend_from_slice(&[4, 1, b's', 0]),
        }
        match &answered {
            Some(body) => fields.extend_from_slice(format!("{}\0", body.signature).as_bytes()),
            None => put_text(&mut fields, "org.example.No"),
        }
        let body = answered.as_ref().map_or(&[][..], |body| &body.bytes);
        let mut message = vec![b'l', if answered.is_some() { 2 } else { 3 }, 0, 1];
        message.extend_from_slice(&(body.len() as u32).to_le_bytes());
        message.extend_from_slice(&7_u32.to_le_bytes());
        message.extend_from_slice(&(fields.len() as u32).to_le_bytes());
        fields.resize(fields.len().next_multiple_of(8), 0);
        message.extend_from_slice(&fields);
        message.extend_from_slice(body);
        message
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        fake::{Body, Property},
        *,
    };

    #[test]
    fn many_properties_come_back_each_to_its_call() {
        let mut connection = fake::connect(|path, _, arguments| match arguments {
            [interface, property] if interface == "org.example.Thing" && property == "Size" => {
                Some(Body::property(Property::U64(path.len() as u64)))
            }
            _ => None,
        });
        let paths: Vec<String> = (0..1000).map(|length| format!("/{}", "a".repeat(length))).collect();
        let calls = paths.iter().enumerate().map(|(at, path)| {
            let arguments =
                if at % 10 == 0 { &["org.example.Thing", "None"] } else { &["org.example.Thing", "Size"] };
            Call::property("org.example", path, arguments)
        });
        let mut found = vec![None; paths.len()];
        connection
            .call_all(calls, |at, answer| found[at] = answer.value().map(|value| format!("{value:?}")))
            .expect("answered");
        for (at, value) in found.iter().enumerate() {
            let expected = (at % 10 != 0).then(|| format!("U64({})", at + 1));
            assert_eq!(value, &expected);
        }
    }

    #[test]
    fn values_of_each_type_are_read() {
        for (property, value) in [
            (Property::Bool(true), Value::Bool(true)),
            (Property::Text("notify"), Value::Text("notify")),
            (Property::U32(7), Value::U32(7)),
            (Property::U64(u64::MAX), Value::U64(u64::MAX)),
        ] {
            let mut connection = fake::connect(move |_, _, _| Some(Body::property(property)));
            let call = Call::property("org.example", "/", &["a", "b"]);
            connection
                .call(call, |answer| {
                    assert_eq!(answer.value(), Some(value));
                    Ok(())
                })
                .expect("answered");
        }
    }

    #[test]
    fn a_peer_that_goes_away_is_an_error() {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair of sockets");
        theirs.write_all(b"OK 00\r\n").expect("written");
        let mut connection = Connection::direct(ours).expect("authenticated");
        drop(theirs);
        assert!(connection.call(Call::property("a.b", "/", &["c", "d"]), |_| Ok(())).is_err());
    }

    #[test]
    fn a_peer_that_refuses_is_an_error() {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair of sockets");
        theirs.write_all(b"REJECTED ANONYMOUS\r\n").expect("written");
        assert!(Connection::direct(ours).is_err());
    }

    #[test]
    fn addresses_of_unix_sockets_are_read() {
        let path = |address: &str| {
            socket_address(address)?.ok()?.as_pathname().map(|path| path.display().to_string())
        };
        assert_eq!(path("unix:path=/run/my%20bus,guid=00").as_deref(), Some("/run/my bus"));
        let name = socket_address("unix:abstract=/tmp/bus").and_then(Result::ok);
        assert_eq!(name.as_ref().and_then(SocketAddrExt::as_abstract_name), Some(&b"/tmp/bus"[..]));
        assert!(socket_address("tcp:host=localhost,port=1").is_none());
        assert_eq!(unescape("a%zz%"), "a%zz%");
    }

    proptest! {
        #[test]
        fn odd_messages_harm_nobody(bytes in prop::collection::vec(any::<u8>(), 0..200), fields in 0_u8..64) {
            let mut bytes = bytes;
            bytes.splice(0..0, [b'l', 2, 0, 1, 16, 0, 0, 0, 1, 0, 0, 0, fields, 0, 0, 0]);
            let _ = message_length(&bytes);
            if let Some(Some((_, Answer::Results(mut results)))) = decode(&bytes) {
                let _ = results.clone().value();
                let _ = results.structures(|structure| Some((structure.text()?, structure.u64()?)));
            }
        }
    }
}
