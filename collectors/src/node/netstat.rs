//! The protocol counters of the kernel's network stack that a pattern keeps.

use std::io;

use regex::Regex;

use crate::{
    BuildError, CollectError, Collector, Entry, Flag, Host, HostFile, Kind, Options, OwnedDesc, Samples,
};

/// This collector in the list.
pub const ENTRY: Entry = Entry {
    name: "netstat",
    default_on: true,
    flags: &[Flag::regex(
        "netstat.fields",
        "^(.*_(InErrors|InErrs)|Ip_Forwarding|Ip(6|Ext)_(InOctets|OutOctets)|Icmp6?_(InMsgs|OutMsgs)|TcpExt_(Listen.*|\
         Syncookies.*|TCPSynRetrans|TCPTimeouts|TCPOFOQueue|TCPRcvQDrop)|Tcp_(ActiveOpens|InSegs|OutSegs|OutRsts|\
         PassiveOpens|RetransSegs|CurrEstab)|Udp6?_(InDatagrams|OutDatagrams|NoPorts|RcvbufErrors|SndbufErrors))$",
        "Regexp of fields to return for netstat collector.",
    )],
    build,
};

struct Netstat {
    /// `netstat` and `snmp`, in pairs of lines.
    paired: [(HostFile, Vec<Group>); 2],
    /// `snmp6`, a field on each line; not there without IPv6.
    listed: (HostFile, Vec<Field>),
    pattern: Option<Regex>,
}

/// What was decided about a line of names, which stays the same until the next boot.
struct Group {
    names: String,
    /// How many words the line has, the protocol included.
    words: usize,
    /// The fields that the pattern keeps, by their place in the line.
    kept: Vec<(usize, OwnedDesc)>,
}

/// What was decided about a line of `snmp6`.
struct Field {
    name: String,
    desc: Option<OwnedDesc>,
}

fn build(host: &Host, options: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Netstat {
        paired: ["net/netstat", "net/snmp"].map(|path| (HostFile::new(host.proc(path)), Vec::new())),
        listed: (HostFile::new(host.proc("net/snmp6")), Vec::new()),
        pattern: options.regex("netstat.fields")?,
    }))
}

impl Collector for Netstat {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let Self { paired, listed, pattern } = self;
        let keep = |key: &str| pattern.as_ref().is_none_or(|pattern| pattern.is_match(key));
        for (file, groups) in paired {
            let result = say_pairs(file.read()?, groups, keep, out);
            result.map_err(|what| CollectError::parse(file.path(), what))?;
        }
        let (file, fields) = listed;
        let text = match file.read() {
            Ok(text) => text,
            Err(CollectError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        say_list(text, fields, keep, out).map_err(|what| CollectError::parse(file.path(), what))
    }
}

/// `/proc/net/snmp`: "Ip: Forwarding DefaultTTL ..." and below it "Ip: 1 64 ...".
fn say_pairs(
    text: &str,
    groups: &mut Vec<Group>,
    keep: impl Fn(&str) -> bool + Copy,
    out: &mut Samples,
) -> Result<(), String> {
    let mut lines = text.lines();
    let mut at = 0;
    while let Some(names) = lines.next() {
        let values = lines.next().ok_or_else(|| format!("expected values below {names:?}"))?;
        if groups.get(at).is_none_or(|group| group.names != names) {
            groups.truncate(at);
            groups.push(group_of(names, keep).ok_or_else(|| format!("expected PROTOCOL: in {names:?}"))?);
        }
        say_group(&groups[at], values, out)?;
        at += 1;
    }
    Ok(())
}

fn group_of(names: &str, keep: impl Fn(&str) -> bool) -> Option<Group> {
    let mut words = names.split(' ');
    let protocol = words.next()?.strip_suffix(':')?;
    let mut group = Group { names: names.to_owned(), words: 1, kept: Vec::new() };
    for name in words {
        if keep(&format!("{protocol}_{name}")) {
            group.kept.push((group.words, describe(protocol, name)));
        }
        group.words += 1;
    }
    Some(group)
}

fn say_group(group: &Group, values: &str, out: &mut Samples) -> Result<(), String> {
    let mut kept = group.kept.iter().peekable();
    let mut words = 0;
    for (at, value) in values.split(' ').enumerate() {
        words = at + 1;
        if let Some((_, desc)) = kept.next_if(|(place, _)| *place == at) {
            let value = value.parse().map_err(|_| format!("expected a number, got {value:?}"))?;
            let family = out.owned_family(desc);
            out.push_to(family, &[], value);
        }
    }
    if words == group.words { Ok(()) } else { Err(format!("expected {} words, got {values:?}", group.words)) }
}

/// `/proc/net/snmp6`: "Ip6InReceives                   \t7"; the protocol ends with the first 6.
fn say_list(
    text: &str,
    fields: &mut Vec<Field>,
    keep: impl Fn(&str) -> bool,
    out: &mut Samples,
) -> Result<(), String> {
    for (at, line) in text.lines().enumerate() {
        let mut words = line.split_ascii_whitespace();
        let name = words.next().unwrap_or_default();
        if fields.get(at).is_none_or(|field| field.name != name) {
            fields.truncate(at);
            let desc = split_at_six(name)
                .filter(|(protocol, rest)| keep(&format!("{protocol}_{rest}")))
                .map(|(protocol, rest)| describe(protocol, rest));
            fields.push(Field { name: name.to_owned(), desc });
        }
        if let (Some(desc), Some(value)) = (&fields[at].desc, words.next()) {
            let value = value.parse().map_err(|_| format!("expected a number, got {line:?}"))?;
            let family = out.owned_family(desc);
            out.push_to(family, &[], value);
        }
    }
    Ok(())
}

fn split_at_six(name: &str) -> Option<(&str, &str)> {
    name.find('6').map(|at| name.split_at(at + 1))
}

fn describe(protocol: &str, name: &str) -> OwnedDesc {
    let help = format!("Statistic {protocol}{name}.");
    OwnedDesc::new(&format!("node_netstat_{protocol}_{name}"), &help, Kind::Untyped, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(out: &Samples) -> Vec<(String, f64)> {
        out.iter().map(|(name, _, value)| (name.to_owned(), value)).collect()
    }

    fn pairs(text: &str, groups: &mut Vec<Group>) -> Result<Vec<(String, f64)>, String> {
        let mut out = Samples::new();
        say_pairs(text, groups, |key| key.starts_with("Tcp_In"), &mut out)?;
        Ok(seen(&out))
    }

    #[test]
    fn names_and_values_are_paired_by_place() {
        let said = pairs("Ip: InA\nIp: 1\nTcp: OutSegs InSegs InErrs\nTcp: 1 2 -3\n", &mut Vec::new());
        let expected =
            [("node_netstat_Tcp_InSegs".to_owned(), 2.0), ("node_netstat_Tcp_InErrs".to_owned(), -3.0)];
        assert_eq!(said.expect("understood"), expected);
    }

    #[test]
    fn a_changed_line_of_names_is_noticed() {
        let mut groups = Vec::new();
        assert!(pairs("Tcp: InSegs\nTcp: 1\n", &mut groups).is_ok());
        let said = pairs("Tcp: InErrs InSegs\nTcp: 1 2\n", &mut groups).expect("understood");
        assert_eq!(said[0], ("node_netstat_Tcp_InErrs".to_owned(), 1.0));
    }

    #[test]
    fn cut_and_odd_pairs_are_refused() {
        for text in [
            "Tcp: InSegs\n",
            "Tcp: InSegs\nTcp:\n",
            "Tcp: InSegs\nTcp: x\n",
            "Tcp\nTcp\n",
            "Tcp: A\nTcp: 1 2\n",
        ] {
            assert!(pairs(text, &mut Vec::new()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_protocol_of_snmp6_ends_with_its_six() {
        let mut out = Samples::new();
        let text = "Ip6InOctets                     \t460\nodd 3\nIcmp6InMsgs\n\n";
        say_list(text, &mut Vec::new(), |_| true, &mut out).expect("understood");
        assert_eq!(seen(&out), [("node_netstat_Ip6_InOctets".to_owned(), 460.0)]);
        assert!(say_list("Ip6InOctets x\n", &mut Vec::new(), |_| true, &mut out).is_err());
    }
}
