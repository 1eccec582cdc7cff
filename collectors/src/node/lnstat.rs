//! Statistics of the network stack's caches and tables, as `lnstat` shows them.

use std::io;

use crate::{
    BuildError, CollectError, Collector, Entry, Host, HostFile, Kind, Options, OwnedDesc, Samples,
    labels::Numbers, samples::FamilyId, sysfs,
};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "lnstat", default_on: false, flags: &[], build };

#[derive(Default)]
struct Lnstat {
    tables: Vec<Table>,
    cpus: Numbers,
}

/// A file of `/proc/net/stat`, which stays open: there are less than ten.
struct Table {
    name: String,
    file: HostFile,
    columns: Columns,
}

/// What was made of a line of names, which stays the same as long as the module is loaded.
#[derive(Default)]
struct Columns {
    names: String,
    descs: Vec<OwnedDesc>,
    /// The families of this scrape.
    families: Vec<FamilyId>,
}

fn build(_: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Lnstat::default()))
}

impl Collector for Lnstat {
    fn collect(&mut self, host: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let Self { tables, cpus } = self;
        follow(tables, host)?;
        let before = out.mark();
        for Table { name, file, columns } in tables {
            match file.parse(|text| columns.say(name, text, cpus, out)) {
                Ok(()) => {}
                // Its module was unloaded since the directory was read.
                Err(CollectError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    out.rewind(before);
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

/// Takes up files that are new, forgets those that are gone.
fn follow(tables: &mut Vec<Table>, host: &Host) -> Result<(), CollectError> {
    let directory = host.proc("net/stat");
    let names = sysfs::entries(&directory)?;
    if names.iter().eq(tables.iter().map(|table| &table.name)) {
        return Ok(());
    }
    let mut known = std::mem::take(tables);
    for name in names {
        tables.push(match known.iter().position(|table| table.name == name) {
            Some(at) => known.swap_remove(at),
            None => {
                let file = HostFile::new(directory.join(&name));
                Table { name, file, columns: Columns::default() }
            }
        });
    }
    Ok(())
}

impl Columns {
    /// `/proc/net/stat/arp_cache`: "entries  allocs destroys ...", then a line of hexadecimal numbers for each CPU.
    fn say(&mut self, table: &str, text: &str, cpus: &mut Numbers, out: &mut Samples) -> Result<(), String> {
        let mut lines = text.lines();
        let names = lines.next().unwrap_or_default();
        if names != self.names {
            self.descs = names.split_ascii_whitespace().map(describe).collect();
            names.clone_into(&mut self.names);
        }
        let rows = lines.clone().count();
        self.families.clear();
        self.families.extend(self.descs.iter().map(|desc| out.owned_family(desc)));
        for (cpu, line) in cpus.first(rows).iter().zip(lines) {
            let mut words = line.split_ascii_whitespace();
            for (family, word) in self.families.iter().zip(&mut words) {
                let value = u64::from_str_radix(word, 16)
                    .map_err(|_| format!("expected hexadecimal numbers, got {line:?}"))?;
                out.push_to(*family, &[cpu, table], value as f64);
            }
            if words.next().is_some() {
                return Err(format!("expected {} numbers, got {line:?}", self.descs.len()));
            }
        }
        Ok(())
    }
}

fn describe(name: &str) -> OwnedDesc {
    let name = format!("node_lnstat_{name}_total");
    OwnedDesc::new(&name, "linux network cache stats", Kind::Counter, &["cpu", "subsystem"])
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn said(text: &str, columns: &mut Columns) -> Result<Vec<String>, String> {
        let mut out = Samples::new();
        columns.say("arp_cache", text, &mut Numbers::default(), &mut out)?;
        let line = |(name, labels, value): (&str, crate::samples::LabelValues, f64)| {
            format!(
                "{} {} {value}",
                name.trim_start_matches("node_lnstat_"),
                labels.collect::<Vec<_>>().join(" ")
            )
        };
        Ok(out.iter().map(line).collect())
    }

    #[test]
    fn each_line_is_a_cpu_and_each_column_a_family() {
        let mut columns = Columns::default();
        let found = said("entries  hits\n00000014  0000000a\n00000014  0000000b\n", &mut columns);
        let expected = [
            "entries_total 0 arp_cache 20",
            "hits_total 0 arp_cache 10",
            "entries_total 1 arp_cache 20",
            "hits_total 1 arp_cache 11",
        ];
        assert_eq!(found.expect("understood"), expected);
        assert_eq!(said("lookups\n1\n", &mut columns).expect("understood"), ["lookups_total 0 arp_cache 1"]);
        assert!(said("", &mut columns).expect("understood").is_empty());
    }

    #[test]
    fn odd_lines_are_refused() {
        for text in ["entries\nx\n", "entries\n1 2\n", "\n1\n"] {
            assert!(said(text, &mut Columns::default()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn tables_come_and_go() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let host = Host { procfs: root.path().into(), ..Host::default() };
        let directory = root.path().join("net/stat");
        let mut collector = Lnstat::default();
        let mut count = || {
            let mut out = Samples::new();
            collector.collect(&host, &mut out).map(|()| out.len())
        };
        assert!(matches!(count(), Ok(0)));
        fs::create_dir_all(&directory).expect("made");
        fs::write(directory.join("b"), "hits\n1\n").expect("written");
        assert!(matches!(count(), Ok(1)));
        fs::write(directory.join("a"), "hits\n1\n2\n").expect("written");
        assert!(matches!(count(), Ok(3)));
        fs::remove_file(directory.join("b")).expect("removed");
        assert!(matches!(count(), Ok(2)));
        fs::write(directory.join("c"), "hits\nx\n").expect("written");
        assert!(matches!(count(), Err(CollectError::Parse { .. })));
    }
}
