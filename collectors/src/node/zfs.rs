//! What ZFS counts of its caches, its pools and their datasets, out of `/proc/spl/kstat/zfs`.

use std::{io, path::PathBuf};

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Host, HostFile, Kind, Options, Samples, host,
    samples::{FamilyId, OwnedDesc},
    sysfs::{Buffer, Directory},
};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "zfs", default_on: true, flags: &[], build };

static STATE: Desc = Desc::gauge("node_zfs_zpool_state", "kstat.zfs.misc.state", &["state", "zpool"]);

/// The states a pool may be in; the file has them in capitals.
const STATES: [&str; 7] = ["online", "degraded", "faulted", "offline", "removed", "unavail", "suspended"];

/// The files that are about all pools, and how their families begin; which are there depends on the version of ZFS.
const FILES: [(&str, &str); 11] = [
    ("abdstats", "node_zfs_abd_"),
    ("arcstats", "node_zfs_arc_"),
    ("dbufstats", "node_zfs_dbuf_"),
    ("dmu_tx", "node_zfs_dmu_tx_"),
    ("dnodestats", "node_zfs_dnode_"),
    ("fm", "node_zfs_fm_"),
    ("vdev_cache_stats", "node_zfs_vdev_cache_"),
    ("vdev_mirror_stats", "node_zfs_vdev_mirror_"),
    ("xuio_stats", "node_zfs_xuio_"),
    ("zfetchstats", "node_zfs_zfetch_"),
    ("zil", "node_zfs_zil_"),
];

/// The types of a kstat that are numbers.
const INT64: &str = "3";
const UINT64: &str = "4";

struct Zfs {
    base: PathBuf,
    files: Vec<File>,
    io: Families,
    datasets: Families,
    buffer: Buffer,
}

struct File {
    file: HostFile,
    families: Families,
}

fn build(host: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    let base = host.proc("spl/kstat/zfs");
    let file = |(name, prefix): (&str, &'static str)| File {
        file: HostFile::new(base.join(name)),
        families: Families::new(prefix, format!("kstat.zfs.misc.{name}."), &[]),
    };
    Ok(Box::new(Zfs {
        files: FILES.into_iter().map(file).collect(),
        io: Families::new("node_zfs_zpool_", "kstat.zfs.misc.io.".to_owned(), &["zpool"]),
        datasets: Families::new(
            "node_zfs_zpool_dataset_",
            "kstat.zfs.misc.objset.".to_owned(),
            &["dataset", "zpool"],
        ),
        buffer: Buffer::default(),
        base,
    }))
}

impl Collector for Zfs {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        // The directory is there while the module is loaded; the pools are directories in it.
        let names = host::list_dir_but_files(&self.base).map_err(|_| CollectError::NoData)?;
        let mut failed = None;
        for file in &mut self.files {
            if let Err(error) = file.say(out) {
                failed.get_or_insert(error);
            }
        }
        self.io.begin();
        self.datasets.begin();
        for pool in names {
            self.say_pool(&pool, out, &mut failed);
        }
        failed.map_or(Ok(()), Err)
    }
}

impl File {
    fn say(&mut self, out: &mut Samples) -> Result<(), CollectError> {
        let Self { file, families } = self;
        families.begin();
        let mark = out.mark();
        let result = file.parse(|text| {
            for named in parse_kstat(text)? {
                let Named { name, value } = named?;
                if let Value::Number(value) = value {
                    families.push(name, &[], value, out);
                }
            }
            Ok(())
        });
        match result {
            // This version of ZFS has no such file.
            Err(CollectError::Read { source, .. }) if is_absent(&source) => Ok(()),
            Err(error) => {
                out.rewind(mark);
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }
}

impl Zfs {
    /// A pool may have many datasets, with a short file each: they are opened in turn, relative to the pool's directory.
    fn say_pool(&mut self, pool: &str, out: &mut Samples, failed: &mut Option<CollectError>) {
        let path = self.base.join(pool);
        let (Ok(directory), Ok(names)) = (Directory::open(&path), host::list_dir(&path)) else { return };
        for name in names {
            let is_known = matches!(&*name, "io" | "state") || name.starts_with("objset-");
            if !is_known {
                continue;
            }
            let text = match directory.read(&name, &mut self.buffer) {
                Ok(text) => text,
                // The pool, or the dataset, is being unmounted.
                Err(error) if is_absent(&error) => continue,
                Err(source) => {
                    failed.get_or_insert(CollectError::Read { path: path.join(name), source });
                    continue;
                }
            };
            let mark = out.mark();
            let result = match &*name {
                "io" => say_io(text, pool, &mut self.io, out),
                "state" => {
                    say_state(text, pool, out);
                    Ok(())
                }
                _ => say_dataset(text, pool, &mut self.datasets, out),
            };
            if let Err(what) = result {
                out.rewind(mark);
                failed.get_or_insert(CollectError::parse(path.join(name), what));
            }
        }
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
}

/// Families made of names that the files tell, kept between scrapes; a file has its names in the same order each time.
struct Families {
    prefix: &'static str,
    help: String,
    labels: &'static [&'static str],
    known: Vec<Known>,
    /// Where in `known` the next name is expected.
    next: usize,
}

struct Known {
    name: String,
    desc: OwnedDesc,
    /// In the samples of this scrape.
    id: Option<FamilyId>,
}

impl Families {
    fn new(prefix: &'static str, help: String, labels: &'static [&'static str]) -> Self {
        Self { prefix, help, labels, known: Vec::new(), next: 0 }
    }

    /// Forgets what belonged to the samples of the last scrape.
    fn begin(&mut self) {
        for known in &mut self.known {
            known.id = None;
        }
        self.next = 0;
    }

    /// Says a value of the family of `name`; nothing where `name` can't be part of a family's.
    fn push(&mut self, name: &str, labels: &[&str], value: f64, out: &mut Samples) {
        let expected = self.known.get(self.next).is_some_and(|known| known.name == name);
        let place = match expected {
            true => self.next,
            false => match self.known.iter().position(|known| known.name == name) {
                Some(place) => place,
                None => {
                    let Some(desc) = self.describe(name) else { return };
                    self.known.push(Known { name: name.to_owned(), desc, id: None });
                    self.known.len() - 1
                }
            },
        };
        self.next = place + 1;
        if let Some(known) = self.known.get_mut(place) {
            let id = *known.id.get_or_insert_with(|| out.owned_family(&known.desc));
            out.push_to(id, labels, value);
        }
    }

    fn describe(&self, name: &str) -> Option<OwnedDesc> {
        let (help, prefix) = (&self.help, self.prefix);
        let last = name.rsplit('.').next()?.replace('-', "_");
        let is_word =
            !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        is_word.then(|| {
            OwnedDesc::new(&format!("{prefix}{last}"), &format!("{help}{name}"), Kind::Untyped, self.labels)
        })
    }
}

/// A line of a kstat.
#[derive(Debug, PartialEq)]
struct Named<'a> {
    name: &'a str,
    value: Value<'a>,
}

#[derive(Debug, PartialEq)]
enum Value<'a> {
    Number(f64),
    /// Of another type: the line and the first word of the value.
    Other(&'a str, &'a str),
}

/// A kstat: a line of numbers, "name  type data", then a line for each name: "hits  4  8772612", "dataset_name  7  pool1".
fn parse_kstat(text: &str) -> Result<impl Iterator<Item = Result<Named<'_>, String>>, String> {
    let mut lines = text.lines();
    if !lines.any(|line| line.split_ascii_whitespace().eq(["name", "type", "data"])) {
        return Err("expected a line of column names".to_owned());
    }
    Ok(lines.filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (name, kind, word) = (words.next()?, words.next()?, words.next()?);
        let number = match kind {
            UINT64 => word.parse::<u64>().map(|number| number as f64),
            INT64 => word.parse::<i64>().map(|number| number as f64),
            _ => return Some(Ok(Named { name, value: Value::Other(line, word) })),
        };
        Some(match number {
            Ok(number) => Ok(Named { name, value: Value::Number(number) }),
            Err(_) => Err(format!("expected a number, got {line:?}")),
        })
    }))
}

/// `objset-0x36`: a kstat that begins with the name of the dataset.
fn say_dataset(text: &str, pool: &str, families: &mut Families, out: &mut Samples) -> Result<(), String> {
    let mut dataset = None;
    for named in parse_kstat(text)? {
        match named? {
            Named { name: "dataset_name", value: Value::Other(line, word) } => {
                // The name may have blanks in it. It is looked for from the beginning of the line, so that "data" gives the
                // whole of it: node_exporter has that label.
                dataset = line.find(word).and_then(|at| line.get(at..));
            }
            Named { name, value: Value::Number(value) } => {
                let dataset = dataset.ok_or("it does not name its dataset")?;
                families.push(name, &[dataset, pool], value, out);
            }
            Named { .. } => {}
        }
    }
    Ok(())
}

/// `io`: a line of numbers, "nread  nwritten reads  writes ...", then a line of as many values.
fn say_io(text: &str, pool: &str, families: &mut Families, out: &mut Samples) -> Result<(), String> {
    let mut lines = text.lines();
    let is_header = |line: &&str| line.starts_with("nread") && line.split_ascii_whitespace().count() >= 12;
    let Some(header) = lines.find(is_header) else { return Ok(()) };
    let Some(line) = lines.next() else { return Ok(()) };
    let mut values = line.split_ascii_whitespace();
    for name in header.split_ascii_whitespace() {
        let value = values.next().and_then(|word| word.parse::<u64>().ok());
        let value = value.ok_or_else(|| format!("expected as many numbers as names, got {line:?}"))?;
        families.push(name, &[pool], value as f64, out);
    }
    Ok(())
}

/// `state`: "ONLINE"
fn say_state(text: &str, pool: &str, out: &mut Samples) {
    let actual = text.lines().next().unwrap_or_default();
    for state in STATES {
        out.push(&STATE, &[state, pool], f64::from(u8::from(actual.eq_ignore_ascii_case(state))));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const HEAD: &str =
        "13 1 0x01 123 33456 8438465853 5266997922\nname                            type data\n";
    const IO: &str = "12 3 0x00 1 80 79205351707403 395818011156865\n\
                      nread    nwritten reads    writes   wtime    wlentime wupdate  rtime    rlentime rupdate  wcnt     rcnt    \n\
                      1884160  3206144  22       132      7155162  104112268 79210 24168078 104112268 79210 0        3       \n";

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new() -> Self {
            let tree = Self(tempfile::tempdir().expect("a temporary directory"));
            tree.write("arcstats", &format!("{HEAD}hits                            4    17\nl2-size                         3    -2\nlabel   7    word\n"));
            tree.write("tank/state", "DEGRADED\n");
            tree.write("tank/io", IO);
            tree.write(
                "tank/objset-0x36",
                &format!("{HEAD}dataset_name                    7    tank/my files\nwrites                          4    5\n"),
            );
            tree.write("tank/txgs", "odd\n");
            tree
        }

        fn write(&self, file: &str, text: &str) {
            let path = self.0.path().join("spl/kstat/zfs").join(file);
            fs::create_dir_all(path.parent().expect("has one")).expect("made");
            fs::write(path, text).expect("written");
        }

        fn build(&self) -> (Box<dyn Collector>, Host) {
            let host = Host { procfs: self.0.path().into(), ..Host::default() };
            let zfs = build(&host, &Options::new(&ENTRY, &Default::default())).expect("no settings");
            (zfs, host)
        }
    }

    fn said(zfs: &mut dyn Collector, host: &Host) -> (Vec<String>, bool) {
        let mut out = Samples::new();
        let result = zfs.collect(host, &mut out);
        let line = |(name, labels, value): (&str, crate::samples::LabelValues, f64)| {
            format!(
                "{}{{{}}} {value}",
                name.trim_start_matches("node_zfs_"),
                labels.collect::<Vec<_>>().join(",")
            )
        };
        (out.iter().map(line).collect(), result.is_ok())
    }

    #[test]
    fn caches_pools_and_datasets_are_said() {
        let tree = Tree::new();
        let (mut zfs, host) = tree.build();
        let (first, is_good) = said(&mut *zfs, &host);
        assert_eq!(first[..3], ["arc_hits{} 17", "arc_l2_size{} -2", "zpool_nread{tank} 1884160"]);
        assert_eq!(first[13..15], ["zpool_rcnt{tank} 3", "zpool_dataset_writes{tank/my files,tank} 5"]);
        assert_eq!(first[15..17], ["zpool_state{online,tank} 0", "zpool_state{degraded,tank} 1"]);
        assert_eq!((first.len(), is_good), (22, true));
        assert_eq!(said(&mut *zfs, &host).0, first);
    }

    #[test]
    fn names_may_come_and_go() {
        let tree = Tree::new();
        let (mut zfs, host) = tree.build();
        said(&mut *zfs, &host);
        tree.write("arcstats", &format!("{HEAD}misses 4 1\nl2-size 3 4\nodd{{ 4 1\n"));
        assert_eq!(
            said(&mut *zfs, &host).0[..3],
            ["arc_misses{} 1", "arc_l2_size{} 4", "zpool_nread{tank} 1884160"]
        );
    }

    #[test]
    fn a_broken_file_does_not_hide_the_others() {
        for (file, text, count) in [
            ("arcstats", "", 20),
            ("arcstats", "hits 4 1\n", 20),
            (
                "tank/io",
                "nread nwritten reads writes wtime wlentime wupdate rtime rlentime rupdate wcnt rcnt\n1 2\n",
                10,
            ),
            ("tank/objset-0x36", "", 21),
        ] {
            let tree = Tree::new();
            tree.write(file, text);
            let (mut zfs, host) = tree.build();
            let (lines, is_good) = said(&mut *zfs, &host);
            assert_eq!((lines.len(), is_good), (count, false), "{file} {text:?}");
        }
        let tree = Tree::new();
        for text in ["hits 4 1\nmisses 4 many\n", "hits 4 -1\n", "hits 4 1.5\n"] {
            tree.write("arcstats", &format!("{HEAD}{text}"));
            let (mut zfs, host) = tree.build();
            let (lines, is_good) = said(&mut *zfs, &host);
            assert_eq!((lines.len(), is_good), (20, false), "{text:?}");
        }
        tree.write("arcstats", HEAD);
        tree.write("tank/objset-0x36", &format!("{HEAD}writes 4 5\n"));
        let (mut zfs, host) = tree.build();
        assert!(!said(&mut *zfs, &host).1);
    }

    #[test]
    fn without_the_module_there_is_no_data() {
        let host = Host { procfs: "/nonexistent".into(), ..Host::default() };
        let mut zfs = build(&host, &Options::new(&ENTRY, &Default::default())).expect("no settings");
        assert!(matches!(zfs.collect(&host, &mut Samples::new()), Err(CollectError::NoData)));
    }
}
