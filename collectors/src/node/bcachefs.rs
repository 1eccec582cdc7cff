//! What bcachefs counts of each mounted file system and its devices, out of `/sys/fs/bcachefs`.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Host, Kind, Options, OwnedDesc, Samples,
    host::{self, Stamp},
    samples::{FamilyId, Mark},
    sysfs::{Buffer, Directory},
};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "bcachefs", default_on: true, flags: &[], build };

static INFO: Desc = Desc::gauge("node_bcachefs_info", "Filesystem information.", &["uuid"]);
static BTREE_CACHE_SIZE: Desc =
    Desc::gauge("node_bcachefs_btree_cache_size_bytes", "Btree cache memory usage in bytes.", &["uuid"]);
static COMPRESSED: Desc = Desc::gauge(
    "node_bcachefs_compression_compressed_bytes",
    "Compressed size by algorithm.",
    &["algorithm", "uuid"],
);
static UNCOMPRESSED: Desc = Desc::gauge(
    "node_bcachefs_compression_uncompressed_bytes",
    "Uncompressed size by algorithm.",
    &["algorithm", "uuid"],
);
static ERRORS: Desc =
    Desc::counter("node_bcachefs_errors_total", "Error count by error type.", &["error_type", "uuid"]);
static BTREE_WRITES: Desc =
    Desc::counter("node_bcachefs_btree_writes_total", "Number of btree writes by type.", &["type", "uuid"]);
static BTREE_WRITE_SIZE: Desc = Desc::gauge(
    "node_bcachefs_btree_write_average_size_bytes",
    "Average btree write size by type.",
    &["type", "uuid"],
);
static DEVICE_INFO: Desc =
    Desc::gauge("node_bcachefs_device_info", "Device information.", &["device", "label", "state", "uuid"]);
static BUCKET_SIZE: Desc =
    Desc::gauge("node_bcachefs_device_bucket_size_bytes", "Bucket size in bytes.", &["device", "uuid"]);
static BUCKETS: Desc =
    Desc::gauge("node_bcachefs_device_buckets", "Total number of buckets.", &["device", "uuid"]);
static DURABILITY: Desc =
    Desc::gauge("node_bcachefs_device_durability", "Device durability setting.", &["device", "uuid"]);
static IO_DONE: Desc = Desc::counter(
    "node_bcachefs_device_io_done_bytes_total",
    "IO bytes by operation type and data type.",
    &["data_type", "device", "operation", "uuid"],
);
static IO_ERRORS: Desc = Desc::counter(
    "node_bcachefs_device_io_errors_total",
    "IO errors by error type.",
    &["device", "type", "uuid"],
);

#[derive(Default)]
struct Bcachefs {
    filesystems: Vec<Filesystem>,
    /// The families of all counters that were ever seen.
    counters: Vec<Counter>,
    buffer: Buffer,
    /// The label of the device at hand.
    label: String,
}

struct Filesystem {
    uuid: String,
    path: PathBuf,
    /// What `counters` was listed from: it holds more than a hundred files, which stay the same while it is mounted.
    listed: Option<Stamp>,
    /// Places in [`Bcachefs::counters`].
    counters: Vec<usize>,
}

struct Counter {
    file: String,
    desc: OwnedDesc,
    /// In the samples of this scrape.
    id: Option<FamilyId>,
}

fn build(_: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Bcachefs::default()))
}

impl Collector for Bcachefs {
    /// Without a file system there is no data. One that can't be read or understood does not hide the others.
    fn collect(&mut self, host: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let base = host.sys("fs/bcachefs");
        let uuids = host::list_dir_but_files(&base).map_err(CollectError::missing_is_no_data)?;
        if uuids.is_empty() {
            return Err(CollectError::NoData);
        }
        self.follow(&base, uuids);
        for counter in &mut self.counters {
            counter.id = None;
        }
        let mut failed = None;
        let mut filesystems = std::mem::take(&mut self.filesystems);
        for filesystem in &mut filesystems {
            let mark = out.mark();
            let result = self.say(filesystem, out);
            settle(result, &filesystem.path, mark, out, &mut failed);
            self.say_devices(filesystem, out, &mut failed);
        }
        self.filesystems = filesystems;
        failed.map_or(Ok(()), Err)
    }
}

/// Takes back what was said of something when it could not be said as a whole; what is gone by now is no failure.
fn settle(
    result: Result<(), CollectError>,
    path: &Path,
    mark: Mark,
    out: &mut Samples,
    failed: &mut Option<CollectError>,
) {
    if let Err(error) = result {
        out.rewind(mark);
        if host::is_dir(path) {
            failed.get_or_insert(error);
        }
    }
}

impl Bcachefs {
    fn follow(&mut self, base: &Path, uuids: Vec<String>) {
        if uuids.iter().eq(self.filesystems.iter().map(|filesystem| &filesystem.uuid)) {
            return;
        }
        let new =
            |uuid: String| Filesystem { path: base.join(&uuid), uuid, listed: None, counters: Vec::new() };
        self.filesystems = uuids.into_iter().map(new).collect();
    }

    fn say(&mut self, filesystem: &mut Filesystem, out: &mut Samples) -> Result<(), CollectError> {
        let mut files = Files::open(&filesystem.path, &mut self.buffer)?;
        let uuid = &*filesystem.uuid;
        out.push(&INFO, &[uuid], 1.0);
        files.parse("btree_cache_size", |text| {
            out.push(&BTREE_CACHE_SIZE, &[uuid], parse_size_or_none(text)?);
            Ok(())
        })?;
        files.parse("compression_stats", |text| say_compression(text, uuid, out))?;
        files.parse("errors", |text| say_errors(text, uuid, out))?;
        files.parse("btree_write_stats", |text| say_btree_writes(text, uuid, out))?;
        self.say_counters(filesystem, out)
    }

    fn say_counters(&mut self, filesystem: &mut Filesystem, out: &mut Samples) -> Result<(), CollectError> {
        let path = filesystem.path.join("counters");
        let stamp = match Stamp::of(&path) {
            Ok(stamp) => stamp,
            Err(CollectError::Read { source, .. }) if is_absent(&source) => return Ok(()),
            Err(error) => return Err(error),
        };
        if filesystem.listed != Some(stamp) {
            filesystem.counters = host::list_dir(&path)?.into_iter().map(|file| self.counter(file)).collect();
            filesystem.listed = Some(stamp);
        }
        let directory = Directory::open(&path).map_err(|source| unread(&path, source))?;
        for &at in &filesystem.counters {
            let Some(counter) = self.counters.get_mut(at) else { continue };
            let text = match directory.read(&counter.file, &mut self.buffer) {
                Ok(text) => text,
                Err(error) if is_absent(&error) => continue,
                Err(source) => return Err(unread(&path.join(&counter.file), source)),
            };
            let value =
                parse_counter(text).map_err(|what| CollectError::parse(path.join(&counter.file), what))?;
            let id = *counter.id.get_or_insert_with(|| out.owned_family(&counter.desc));
            out.push_to(id, &[&filesystem.uuid], value);
        }
        Ok(())
    }

    /// The place of the counter that is read from `file`.
    fn counter(&mut self, file: String) -> usize {
        if let Some(at) = self.counters.iter().position(|counter| counter.file == file) {
            return at;
        }
        let name = format!("node_bcachefs_{}_total", sanitize(&file));
        let help = format!("Bcachefs counter {file} since filesystem creation.");
        let desc = OwnedDesc::new(&name, &help, Kind::Counter, &["uuid"]);
        self.counters.push(Counter { file, desc, id: None });
        self.counters.len() - 1
    }

    fn say_devices(&mut self, filesystem: &Filesystem, out: &mut Samples, failed: &mut Option<CollectError>) {
        for name in host::list_dir_but_files(&filesystem.path).unwrap_or_default() {
            if let Some(device) = name.strip_prefix("dev-") {
                let path = filesystem.path.join(&name);
                let mark = out.mark();
                let result = self.say_device(&path, device, &filesystem.uuid, out);
                settle(result, &path, mark, out, failed);
            }
        }
    }

    fn say_device(
        &mut self,
        path: &Path,
        device: &str,
        uuid: &str,
        out: &mut Samples,
    ) -> Result<(), CollectError> {
        let Self { buffer, label, .. } = self;
        let mut files = Files::open(path, buffer)?;
        files.read("label").unwrap_or_default().clone_into(label);
        let state = files.read("state").unwrap_or_default();
        out.push(&DEVICE_INFO, &[device, label, state, uuid], 1.0);
        files.parse("bucket_size", |text| {
            out.push(&BUCKET_SIZE, &[device, uuid], parse_size_or_none(text)?);
            Ok(())
        })?;
        for (file, desc) in [("nbuckets", &BUCKETS), ("durability", &DURABILITY)] {
            let value = match files.read(file) {
                Ok(text) => parse_number(text).map_err(|what| CollectError::parse(path.join(file), what))?,
                Err(error) if is_absent(&error) => 0.0,
                Err(source) => return Err(unread(&path.join(file), source)),
            };
            out.push(desc, &[device, uuid], value);
        }
        files.parse("io_done", |text| say_io_done(text, device, uuid, out))?;
        files.parse("io_errors", |text| say_io_errors(text, device, uuid, out))
    }
}

/// The attributes in a directory.
struct Files<'a> {
    directory: Directory,
    path: &'a Path,
    buffer: &'a mut Buffer,
}

impl<'a> Files<'a> {
    fn open(path: &'a Path, buffer: &'a mut Buffer) -> Result<Self, CollectError> {
        let directory = Directory::open(path).map_err(|source| unread(path, source))?;
        Ok(Self { directory, path, buffer })
    }

    fn read(&mut self, file: &str) -> io::Result<&str> {
        self.directory.read(file, self.buffer)
    }

    /// What `parse` makes of an attribute; of an empty text where this kernel has no such attribute.
    fn parse(
        &mut self,
        file: &str,
        parse: impl FnOnce(&str) -> Result<(), String>,
    ) -> Result<(), CollectError> {
        let text = match self.directory.read(file, self.buffer) {
            Ok(text) => text,
            Err(error) if is_absent(&error) => "",
            Err(source) => return Err(unread(&self.path.join(file), source)),
        };
        parse(text).map_err(|what| CollectError::parse(self.path.join(file), what))
    }
}

fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

fn unread(path: &Path, source: io::Error) -> CollectError {
    CollectError::Read { path: path.to_owned(), source }
}

/// `compression_stats`: a line of column names, then "zstd  226G  603G  115k" for each algorithm.
fn say_compression(text: &str, uuid: &str, out: &mut Samples) -> Result<(), String> {
    for line in text.lines().skip(1) {
        if let Some([algorithm, compressed, uncompressed]) = first_words(line) {
            let algorithm = algorithm.strip_suffix(':').unwrap_or(algorithm);
            out.push(&COMPRESSED, &[algorithm, uuid], parse_size(compressed)?);
            out.push(&UNCOMPRESSED, &[algorithm, uuid], parse_size(uncompressed)?);
        }
    }
    Ok(())
}

/// `errors`: "bset_bad_csum  2  1767112063" for each kind of error, the last column its last time.
fn say_errors(text: &str, uuid: &str, out: &mut Samples) -> Result<(), String> {
    for line in text.lines() {
        if let Some([kind, count]) = first_words(line) {
            out.push(&ERRORS, &[kind, uuid], parse_number(count)?);
        }
    }
    Ok(())
}

/// `btree_write_stats`: a line of column names, then "initial:  3298401  100k" for each type, number and average size.
fn say_btree_writes(text: &str, uuid: &str, out: &mut Samples) -> Result<(), String> {
    for line in text.lines().skip(1) {
        if let Some([kind, count, size]) = first_words(line) {
            let kind = kind.strip_suffix(':').unwrap_or(kind);
            out.push(&BTREE_WRITES, &[kind, uuid], parse_number(count)?);
            out.push(&BTREE_WRITE_SIZE, &[kind, uuid], parse_size(size)?);
        }
    }
    Ok(())
}

/// `io_done`: "read:\nsb  :  86016\n...write:\nsb  :  645120\n...", bytes by type of data.
fn say_io_done(text: &str, device: &str, uuid: &str, out: &mut Samples) -> Result<(), String> {
    let mut operation = None;
    for line in text.lines().map(str::trim) {
        match (line, operation) {
            ("read:", _) => operation = Some("read"),
            ("write:", _) => operation = Some("write"),
            (line, Some(operation)) => {
                if let Some((kind, bytes)) = line.split_once(':') {
                    out.push(&IO_DONE, &[kind.trim(), device, operation, uuid], parse_number(bytes)?);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// `io_errors`: "IO errors since filesystem creation\n  read:    0\n  write:   0\n...IO errors since 8 y ago\n...": the
/// first of the two sections is the counter.
fn say_io_errors(text: &str, device: &str, uuid: &str, out: &mut Samples) -> Result<(), String> {
    let lines = text.lines().skip_while(|line| !line.starts_with("IO errors since filesystem creation"));
    for line in lines.skip(1).take_while(|line| !line.starts_with("IO errors since ")) {
        if let Some((kind, count)) = line.split_once(':') {
            out.push(&IO_ERRORS, &[device, kind.trim(), uuid], parse_number(count)?);
        }
    }
    Ok(())
}

/// `counters/bucket_alloc`: "since mount:  7224514\nsince filesystem creation:  37363674"; the second of them.
fn parse_counter(text: &str) -> Result<f64, String> {
    let line = text.lines().find_map(|line| line.strip_prefix("since filesystem creation:"));
    parse_size(line.ok_or("expected a counter since the file system's creation")?)
}

/// The first words of a line; nothing when it has fewer.
fn first_words<const N: usize>(line: &str) -> Option<[&str; N]> {
    let mut words = line.split_ascii_whitespace();
    let mut found = [""; N];
    for place in &mut found {
        *place = words.next()?;
    }
    Some(found)
}

fn parse_number(text: &str) -> Result<f64, String> {
    match text.trim().parse::<u64>() {
        Ok(number) => Ok(number as f64),
        Err(_) => Err(format!("expected a number, got {text:?}")),
    }
}

/// As [`parse_size`]; what is empty is 0.
fn parse_size_or_none(text: &str) -> Result<f64, String> {
    if text.is_empty() { Ok(0.0) } else { parse_size(text) }
}

/// "512k", "2.05G": a number in units of 1024, rounded down to whole ones.
fn parse_size(text: &str) -> Result<f64, String> {
    const UNITS: &str = "kmgtpe";
    let wrong = || format!("expected a size, got {text:?}");
    let text = text.trim();
    let last = text.chars().next_back().ok_or_else(wrong)?.to_ascii_lowercase();
    let (number, power) = match UNITS.find(last) {
        // Every unit is one byte.
        Some(at) => (text.get(..text.len() - 1).ok_or_else(wrong)?, at as i32 + 1),
        None => (text, 0),
    };
    let number = number.trim_end();
    let is_plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    match number.parse::<f64>() {
        Ok(number) if is_plain => Ok((number * 1024_f64.powi(power)) as u64 as f64),
        _ => Err(wrong()),
    }
}

/// What can't be part of a family's name, with the underscores around it, becomes one underscore.
fn sanitize(name: &str) -> String {
    let is_odd = |char: char| !char.is_ascii_alphanumeric() && char != '_';
    let mut sanitized = String::new();
    let mut rest = name;
    while let Some((good, _)) = rest.find(is_odd).and_then(|at| rest.split_at_checked(at)) {
        sanitized.push_str(good.trim_end_matches('_'));
        sanitized.push('_');
        rest = rest[good.len()..].trim_start_matches(is_odd).trim_start_matches('_');
    }
    sanitized.push_str(rest);
    sanitized
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn sizes_lose_their_units() {
        for (text, size) in [
            ("0", Some(0.0)),
            ("720", Some(720.0)),
            ("512k", Some(524_288.0)),
            ("2.05G", Some(2_201_170_739.0)),
            ("10.8T", Some(11_874_725_579_980.0)),
            (" 7 ", Some(7.0)),
            ("", None),
            ("k", None),
            ("-1k", None),
            ("inf", None),
            ("1e3", None),
            ("1.2.3", None),
            ("1\u{e9}", None),
        ] {
            assert_eq!(parse_size(text).ok(), size, "{text:?}");
        }
    }

    #[test]
    fn names_of_counters_become_names_of_families() {
        for (name, sanitized) in [
            ("bucket_alloc", "bucket_alloc"),
            ("a-b", "a_b"),
            ("a_-_-_b", "a__b"),
            ("\u{e9}x_", "_x_"),
            ("", ""),
        ] {
            assert_eq!(sanitize(name), sanitized, "{name:?}");
        }
    }

    const UUID: &str = "b9a24bd1-4f59-4c5c-9d4f-3e6a2ed0aa19";

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new() -> Self {
            let tree = Self(tempfile::tempdir().expect("a temporary directory"));
            for (file, text) in [
                ("btree_cache_size", "1.5k\n"),
                (
                    "compression_stats",
                    "type  compressed  uncompressed  average extent size\nlz4  1k  2k  3k\n",
                ),
                ("errors", "bset_bad_csum  2  1767112063\n"),
                ("btree_write_stats", "     nr   size\ninitial:   3   4k\n"),
                ("counters/sync_fs", "since mount:                 1\nsince filesystem creation:   5\n"),
                ("dev-0/label", "front\n"),
                ("dev-0/state", "[rw] ro\n"),
                ("dev-0/nbuckets", "6\n"),
                ("dev-0/durability", "1\n"),
                ("dev-0/io_done", "read:\nsb          :   7\nwrite:\nuser        :8\n"),
                (
                    "dev-0/io_errors",
                    "IO errors since filesystem creation\n  read:    9\nIO errors since 8 y ago\n  read:    10\n",
                ),
            ] {
                tree.write(file, text);
            }
            tree
        }

        fn path(&self, file: &str) -> PathBuf {
            self.0.path().join("fs/bcachefs").join(UUID).join(file)
        }

        fn write(&self, file: &str, text: &str) {
            let path = self.path(file);
            fs::create_dir_all(path.parent().expect("has one")).expect("made");
            fs::write(path, text).expect("written");
        }

        fn said(&self, bcachefs: &mut Bcachefs) -> (Vec<String>, bool) {
            let host = Host { sysfs: self.0.path().into(), ..Host::default() };
            let mut out = Samples::new();
            let result = bcachefs.collect(&host, &mut out);
            let line = |(name, labels, value): (&str, crate::samples::LabelValues, f64)| {
                let labels: Vec<&str> = labels.filter(|label| *label != UUID).collect();
                format!("{}{{{}}} {value}", name.trim_start_matches("node_bcachefs_"), labels.join(","))
            };
            (out.iter().map(line).collect(), result.is_ok())
        }
    }

    #[test]
    fn a_file_system_and_its_devices_are_said() {
        let expected = [
            "info{} 1",
            "btree_cache_size_bytes{} 1536",
            "compression_compressed_bytes{lz4} 1024",
            "compression_uncompressed_bytes{lz4} 2048",
            "errors_total{bset_bad_csum} 2",
            "btree_writes_total{initial} 3",
            "btree_write_average_size_bytes{initial} 4096",
            "sync_fs_total{} 5",
            "device_info{0,front,[rw] ro} 1",
            "device_bucket_size_bytes{0} 0",
            "device_buckets{0} 6",
            "device_durability{0} 1",
            "device_io_done_bytes_total{sb,0,read} 7",
            "device_io_done_bytes_total{user,0,write} 8",
            "device_io_errors_total{0,read} 9",
        ];
        let (tree, mut bcachefs) = (Tree::new(), Bcachefs::default());
        assert_eq!(tree.said(&mut bcachefs), (expected.map(str::to_owned).into(), true));
        tree.write("counters/new-one", "since filesystem creation: 1k\n");
        let said = tree.said(&mut bcachefs);
        assert!(said.0.contains(&"new_one_total{} 1024".to_owned()), "{said:?}");
        fs::remove_dir_all(tree.path("counters")).expect("removed");
        fs::remove_dir_all(tree.path("dev-0")).expect("removed");
        let (lines, is_good) = tree.said(&mut bcachefs);
        assert_eq!((lines.len(), is_good), (7, true));
    }

    #[test]
    fn what_is_broken_does_not_hide_the_rest() {
        for (file, text, count) in [
            ("errors", "bset_bad_csum many\n", 7),
            ("compression_stats", "x\nlz4 1k much\n", 7),
            ("btree_write_stats", "x\ninitial: 1.5 4k\n", 7),
            ("counters/sync_fs", "", 7),
            ("counters/sync_fs", "since mount: 1\n", 7),
            ("btree_cache_size", "big\n", 7),
            ("dev-0/nbuckets", "", 8),
            ("dev-0/bucket_size", "big\n", 8),
            ("dev-0/io_done", "read:\nsb: -1\n", 8),
            ("dev-0/io_errors", "IO errors since filesystem creation\n  read:\n", 8),
        ] {
            let tree = Tree::new();
            tree.write(file, text);
            let (lines, is_good) = tree.said(&mut Bcachefs::default());
            assert_eq!((lines.len(), is_good), (count, false), "{file} {text:?}");
        }
    }

    #[test]
    fn without_a_file_system_there_is_no_data() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let host = Host { sysfs: dir.path().into(), ..Host::default() };
        for _ in 0..2 {
            let result = Bcachefs::default().collect(&host, &mut Samples::new());
            assert!(matches!(result, Err(CollectError::NoData)));
            fs::create_dir_all(dir.path().join("fs/bcachefs")).expect("made");
        }
    }
}
