//! How many sockets are in use, by protocol.

use std::io;

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Host, HostFile, Kind, Options, OwnedDesc, Samples,
};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "sockstat", default_on: true, flags: &[], build };

static USED: Desc = Desc::gauge("node_sockstat_sockets_used", "Number of IPv4 sockets in use.", &[]);

/// The states of a protocol: the kernel's words, but for the last one, which is `mem` in bytes.
const STATES: [&str; 7] = ["inuse", "orphan", "tw", "alloc", "mem", "memory", "mem_bytes"];
const INUSE: usize = 0;
const MEM: usize = 4;
const MEM_BYTES: usize = 6;

struct Sockstat {
    /// IPv4, then IPv6; either may be off.
    files: [HostFile; 2],
    protocols: Vec<Protocol>,
    /// Bytes in a page: the unit of `mem`.
    page_size: i64,
}

struct Protocol {
    name: String,
    descs: [OwnedDesc; STATES.len()],
}

fn build(host: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Sockstat {
        files: ["net/sockstat", "net/sockstat6"].map(|path| HostFile::new(host.proc(path))),
        protocols: Vec::new(),
        page_size: rustix::param::page_size() as i64,
    }))
}

impl Collector for Sockstat {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let Self { files, protocols, page_size } = self;
        for file in files {
            let text = match file.read() {
                Ok(text) => text,
                Err(CollectError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    continue;
                }
                Err(error) => return Err(error),
            };
            say_protocols(text, *page_size, protocols, out)
                .map_err(|what| CollectError::parse(file.path(), what))?;
        }
        Ok(())
    }
}

fn say_protocols(
    text: &str,
    page_size: i64,
    protocols: &mut Vec<Protocol>,
    out: &mut Samples,
) -> Result<(), String> {
    for line in text.lines() {
        let (name, pairs) = line.split_once(": ").ok_or_else(|| format!("expected PROTOCOL: in {line:?}"))?;
        if name == "sockets" {
            let used = parse_pairs(pairs, "used").ok_or_else(|| format!("expected pairs in {line:?}"))?;
            out.push(&USED, &[], used as f64);
            continue;
        }
        let values = parse_states(pairs, page_size).ok_or_else(|| format!("expected pairs in {line:?}"))?;
        let place = place_of(name, protocols);
        for (desc, value) in protocols[place].descs.iter().zip(values) {
            if let Some(value) = value {
                let family = out.owned_family(desc);
                out.push_to(family, &[], value as f64);
            }
        }
    }
    Ok(())
}

/// Where `name` stands among the protocols seen so far; it is added when it is new.
fn place_of(name: &str, protocols: &mut Vec<Protocol>) -> usize {
    if let Some(at) = protocols.iter().position(|protocol| protocol.name == name) {
        return at;
    }
    let descs = STATES.map(|state| {
        let help = format!("Number of {name} sockets in state {state}.");
        OwnedDesc::new(&format!("node_sockstat_{name}_{state}"), &help, Kind::Gauge, &[])
    });
    protocols.push(Protocol { name: name.to_owned(), descs });
    protocols.len() - 1
}

/// "inuse 4 orphan 0 tw 4 alloc 17 mem 1", as [`STATES`]; unknown words are left out.
fn parse_states(pairs: &str, page_size: i64) -> Option<[Option<i64>; STATES.len()]> {
    let mut values = [None; STATES.len()];
    values[INUSE] = Some(0);
    let mut words = pairs.split_ascii_whitespace().peekable();
    words.peek()?;
    while let Some(word) = words.next() {
        let value = words.next()?.parse().ok()?;
        if let Some(at) = STATES[..MEM_BYTES].iter().position(|&state| state == word) {
            values[at] = Some(value);
        }
    }
    values[MEM_BYTES] = values[MEM].map(|pages: i64| pages.wrapping_mul(page_size));
    Some(values)
}

/// The value of `key` in "used 229", 0 when there is none.
fn parse_pairs(pairs: &str, key: &str) -> Option<i64> {
    let mut found = 0;
    let mut words = pairs.split_ascii_whitespace();
    while let Some(word) = words.next() {
        let value = words.next()?.parse().ok()?;
        if word == key {
            found = value;
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Result<Vec<(String, f64)>, String> {
        let mut out = Samples::new();
        say_protocols(text, 4096, &mut Vec::new(), &mut out)?;
        Ok(out.iter().map(|(name, _, value)| (name.to_owned(), value)).collect())
    }

    #[test]
    fn each_known_state_of_a_protocol_is_a_family() {
        let said = said("sockets: used 229\nTCP: inuse 4 tw 3 mem 2\nFRAG: inuse 0 memory 5 odd 1\n")
            .expect("understood");
        let said: Vec<(&str, f64)> = said.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        assert_eq!(
            said,
            [
                ("node_sockstat_sockets_used", 229.0),
                ("node_sockstat_TCP_inuse", 4.0),
                ("node_sockstat_TCP_tw", 3.0),
                ("node_sockstat_TCP_mem", 2.0),
                ("node_sockstat_TCP_mem_bytes", 8192.0),
                ("node_sockstat_FRAG_inuse", 0.0),
                ("node_sockstat_FRAG_memory", 5.0),
            ]
        );
    }

    #[test]
    fn cut_and_odd_lines_are_refused() {
        for text in ["TCP inuse 4\n", "TCP: inuse\n", "TCP: inuse x\n", "sockets: used\n", "\n"] {
            assert!(said(text).is_err(), "{text:?}");
        }
    }
}
