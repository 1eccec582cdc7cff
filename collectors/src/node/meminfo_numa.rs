//! The memory of each NUMA node.

use std::io;

use crate::{
    BuildError, CollectError, Collector, Entry, Host, Kind, Options, OwnedDesc, Samples, host,
    samples::FamilyId,
    sysfs::{self, Attribute, Buffer},
    words::digits,
};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "meminfo_numa", default_on: false, flags: &[], build };

#[derive(Default)]
struct MeminfoNuma {
    nodes: Vec<Node>,
    meminfo: Fields,
    numastat: Fields,
    buffer: Buffer,
}

/// The files of a node, which stay open: a machine has few nodes.
struct Node {
    name: String,
    meminfo: Attribute,
    numastat: Attribute,
}

/// What was decided about the fields of a file: they are the same for each node.
#[derive(Default)]
struct Fields {
    known: Vec<Field>,
    /// The families of this scrape, for those of `known` that were said in it.
    families: Vec<Option<FamilyId>>,
    /// Where the next line is looked for first.
    next: usize,
}

struct Field {
    name: String,
    desc: OwnedDesc,
}

fn build(_: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(MeminfoNuma::default()))
}

impl Collector for MeminfoNuma {
    fn collect(&mut self, host: &Host, out: &mut Samples) -> Result<(), CollectError> {
        self.follow(host)?;
        self.meminfo.families.clear();
        self.numastat.families.clear();
        let before = out.mark();
        self.say(out).inspect_err(|_| out.rewind(before))
    }
}

impl MeminfoNuma {
    /// Takes up nodes that are new, forgets those that are gone.
    fn follow(&mut self, host: &Host) -> Result<(), CollectError> {
        let directory = host.sys("devices/system/node");
        let names = sysfs::entries(&directory)?;
        let nodes = || names.iter().filter(|name| sysfs::is_numbered(name, "node"));
        if nodes().eq(self.nodes.iter().map(|node| &node.name)) {
            return Ok(());
        }
        let node = |name: &String| {
            let attribute = |file: &str| Attribute::new(directory.join(name).join(file));
            Node { name: name.clone(), meminfo: attribute("meminfo"), numastat: attribute("numastat") }
        };
        self.nodes = nodes().map(node).collect();
        Ok(())
    }

    fn say(&mut self, out: &mut Samples) -> Result<(), CollectError> {
        let Self { nodes, meminfo, numastat, buffer } = self;
        for node in nodes {
            if let Some(text) = read(&mut node.meminfo, buffer)? {
                let result = say_meminfo(text, meminfo, out);
                result.map_err(|what| CollectError::parse(node.meminfo.path(), what))?;
            }
            if let Some(text) = read(&mut node.numastat, buffer)? {
                let number = digits(node.name.trim_start_matches("node"));
                let result = say_numastat(text, number, numastat, out);
                result.map_err(|what| CollectError::parse(node.numastat.path(), what))?;
            }
        }
        Ok(())
    }
}

/// The text of a file; `None` when its node was taken away since the nodes were listed.
fn read<'a>(file: &mut Attribute, buffer: &'a mut Buffer) -> Result<Option<&'a str>, CollectError> {
    match file.read(buffer) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !has_directory(file) => Ok(None),
        Err(source) => Err(CollectError::Read { path: file.path().to_owned(), source }),
    }
}

fn has_directory(file: &Attribute) -> bool {
    file.path().parent().is_some_and(host::is_dir)
}

/// `/sys/devices/system/node/node0/meminfo`: "Node 0 MemTotal:       134182340 kB", "Node 0 HugePages_Total:     0".
fn say_meminfo(text: &str, fields: &mut Fields, out: &mut Samples) -> Result<(), String> {
    fields.next = 0;
    for line in text.lines().filter(|line| !line.trim_ascii().is_empty()) {
        let (node, name, value) =
            parse_meminfo(line).ok_or_else(|| format!("expected Node N NAME: VALUE [kB], got {line:?}"))?;
        let family = fields.family(name, Kind::Gauge, without_parentheses, out);
        out.push_to(family, &[node], value as f64);
    }
    Ok(())
}

/// The node, the field and its value, in bytes where the kernel gives a unit.
fn parse_meminfo(line: &str) -> Option<(&str, &str, u64)> {
    let mut words = line.split_ascii_whitespace();
    words.next().filter(|word| *word == "Node")?;
    let (node, name) = (words.next()?, words.next()?.strip_suffix(':')?);
    let value: u64 = words.next()?.parse().ok()?;
    match (words.next(), words.next()) {
        (None, _) => Some((node, name, value)),
        (Some("kB"), None) => Some((node, name, value.wrapping_mul(1024))),
        _ => None,
    }
}

/// "Active(anon)" is `Active_anon`.
fn without_parentheses(name: &str) -> String {
    match name.split_once('(').and_then(|(start, rest)| Some((start, rest.rsplit_once(')')?))) {
        Some((start, (inner, end))) => format!("{start}_{inner}{end}"),
        None => name.to_owned(),
    }
}

/// `/sys/devices/system/node/node0/numastat`: "numa_hit 193460335812"
fn say_numastat(text: &str, node: &str, fields: &mut Fields, out: &mut Samples) -> Result<(), String> {
    fields.next = 0;
    for line in text.lines().filter(|line| !line.trim_ascii().is_empty()) {
        let (name, value) =
            parse_numastat(line).ok_or_else(|| format!("expected NAME VALUE, got {line:?}"))?;
        let family = fields.family(name, Kind::Counter, |name| format!("{name}_total"), out);
        out.push_to(family, &[node], value as f64);
    }
    Ok(())
}

fn parse_numastat(line: &str) -> Option<(&str, u64)> {
    let mut words = line.split_ascii_whitespace();
    let (name, value, end) = (words.next()?, words.next()?, words.next());
    end.is_none().then_some((name, value.parse().ok()?))
}

impl Fields {
    /// The family of the kernel's field `name`; `metric` makes its name on the page.
    fn family(
        &mut self,
        name: &str,
        kind: Kind,
        metric: impl FnOnce(&str) -> String,
        out: &mut Samples,
    ) -> FamilyId {
        let is_wanted = |field: &Field| field.name == name;
        let at = match self.known.get(self.next) {
            Some(field) if is_wanted(field) => self.next,
            _ => self.known.iter().position(is_wanted).unwrap_or_else(|| {
                self.known.push(Field { name: name.to_owned(), desc: describe(&metric(name), kind) });
                self.known.len() - 1
            }),
        };
        self.next = at + 1;
        self.families.resize(self.known.len(), None);
        *self.families[at].get_or_insert_with(|| out.owned_family(&self.known[at].desc))
    }
}

fn describe(metric: &str, kind: Kind) -> OwnedDesc {
    let help = format!("Memory information field {metric}.");
    OwnedDesc::new(&format!("node_memory_numa_{metric}"), &help, kind, &["node"])
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    fn node(root: &Path, name: &str, meminfo: &str, numastat: &str) {
        let directory = root.join("devices/system/node").join(name);
        fs::create_dir_all(&directory).expect("made");
        fs::write(directory.join("meminfo"), meminfo).expect("written");
        fs::write(directory.join("numastat"), numastat).expect("written");
    }

    fn said(collector: &mut MeminfoNuma, root: &Path) -> Result<Vec<String>, CollectError> {
        let host = Host { sysfs: root.into(), ..Host::default() };
        let mut out = Samples::new();
        let result = collector.collect(&host, &mut out);
        let line = |(name, labels, value): (&str, crate::samples::LabelValues, f64)| {
            let name = name.trim_start_matches("node_memory_numa_");
            format!("{name} {} {value}", labels.collect::<Vec<_>>().join(" "))
        };
        result.map(|()| out.iter().map(line).collect())
    }

    #[test]
    fn every_field_of_a_node_is_a_family() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let meminfo =
            "Node 0 MemTotal:       4 kB\nNode 0 Active(anon):    2 kB\nNode 0 HugePages_Free:     3\n";
        node(root.path(), "node0", meminfo, "numa_hit 7\nlocal_node 5\n");
        node(root.path(), "node10", "Node 10 HugePages_Free: 1\n", "numa_hit 8\n");
        fs::write(root.path().join("devices/system/node/online"), "0\n").expect("written");
        let expected = [
            "MemTotal 0 4096",
            "Active_anon 0 2048",
            "HugePages_Free 0 3",
            "numa_hit_total 0 7",
            "local_node_total 0 5",
            "HugePages_Free 10 1",
            "numa_hit_total 10 8",
        ];
        let mut collector = MeminfoNuma::default();
        assert_eq!(said(&mut collector, root.path()).expect("collected"), expected);
        assert_eq!(said(&mut collector, root.path()).expect("collected"), expected);
        fs::remove_dir_all(root.path().join("devices/system/node/node0")).expect("removed");
        assert_eq!(said(&mut collector, root.path()).expect("collected"), expected[5..]);
    }

    #[test]
    fn odd_lines_are_refused() {
        let mut collector = MeminfoNuma::default();
        for (meminfo, numastat) in [
            ("Node 0 MemTotal:\n", ""),
            ("Node 0 MemTotal: x kB\n", ""),
            ("Node 0 MemTotal: 1 MB\n", ""),
            ("Node 0 MemTotal 1 kB\n", ""),
            ("MemTotal: 1 kB\n", ""),
            ("", "numa_hit\n"),
            ("", "numa_hit x\n"),
            ("", "numa_hit 1 2\n"),
        ] {
            let root = tempfile::tempdir().expect("a temporary directory");
            node(root.path(), "node0", meminfo, numastat);
            let result = said(&mut collector, root.path());
            assert!(matches!(result, Err(CollectError::Parse { .. })), "{meminfo:?} {numastat:?}");
        }
    }

    #[test]
    fn a_node_without_one_of_its_files_is_refused() {
        let root = tempfile::tempdir().expect("a temporary directory");
        node(root.path(), "node0", "Node 0 MemTotal: 1 kB\n", "numa_hit 7\n");
        fs::remove_file(root.path().join("devices/system/node/node0/numastat")).expect("removed");
        let result = said(&mut MeminfoNuma::default(), root.path());
        assert!(matches!(result, Err(CollectError::Read { .. })), "{result:?}");
    }

    #[test]
    fn a_host_without_nodes_says_nothing() {
        let said = said(&mut MeminfoNuma::default(), Path::new("/nonexistent"));
        assert!(said.expect("nothing is no error").is_empty());
    }

    #[test]
    fn parentheses_become_an_underscore() {
        for (name, metric) in
            [("Active(file)", "Active_file"), ("Dirty", "Dirty"), ("a(b", "a(b"), (")(", ")(")]
        {
            assert_eq!(without_parentheses(name), metric);
        }
    }
}
