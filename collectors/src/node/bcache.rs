//! Block devices cached on faster ones, out of `/sys/fs/bcache`.

use std::{io, path::Path};

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Flag, Host, Options, Samples, host,
    sysfs::{self, Buffer, Directory},
};

/// This collector in the list.
pub const ENTRY: Entry = Entry {
    name: "bcache",
    default_on: true,
    flags: &[Flag::bool("bcache.priorityStats", false, "Expose expensive priority stats.")],
    build,
};

/// An attribute that is a number, and its family.
struct Number(&'static str, Desc);

macro_rules! number {
    ($attribute:literal, $kind:ident, $name:literal, $help:literal, $labels:expr) => {
        Number($attribute, Desc::$kind(concat!("node_bcache_", $name), $help, $labels))
    };
}

const SET: &[&str] = &["uuid"];
const BACKING: &[&str] = &["backing_device", "uuid"];
const CACHE: &[&str] = &["cache_device", "uuid"];

/// Of a set of caches and the devices behind them.
static SET_NUMBERS: [Number; 9] = [
    number!(
        "average_key_size",
        gauge,
        "average_key_size_sectors",
        "Average data per key in the btree (sectors).",
        SET
    ),
    number!(
        "btree_cache_size",
        gauge,
        "btree_cache_size_bytes",
        "Amount of memory currently used by the btree cache.",
        SET
    ),
    number!(
        "cache_available_percent",
        gauge,
        "cache_available_percent",
        "Percentage of cache device without dirty data, usable for writeback (may contain clean cached data).",
        SET
    ),
    number!("congested", gauge, "congested", "Congestion.", SET),
    number!(
        "root_usage_percent",
        gauge,
        "root_usage_percent",
        "Percentage of the root btree node in use (tree depth increases if too high).",
        SET
    ),
    number!("tree_depth", gauge, "tree_depth", "Depth of the btree.", SET),
    number!(
        "internal/active_journal_entries",
        gauge,
        "active_journal_entries",
        "Number of journal entries that are newer than the index.",
        SET
    ),
    number!("internal/btree_nodes", gauge, "btree_nodes", "Total nodes in the btree.", SET),
    number!(
        "internal/cache_read_races",
        counter,
        "cache_read_races_total",
        "Counts instances where while data was being read from the cache, the bucket was reused and invalidated - i.e. \
         where the pointer was stale after the read completed.",
        SET
    ),
];

/// Named for microseconds; what stands in it is taken for nanoseconds, as node_exporter does.
const READ_DURATION_FILE: &str = "internal/btree_read_average_duration_us";
static READ_DURATION: Desc =
    Desc::gauge("node_bcache_btree_read_average_duration_seconds", "Average btree read duration.", SET);

static DIRTY: Number = number!(
    "dirty_data",
    gauge,
    "dirty_data_bytes",
    "Amount of dirty data for this backing device in the cache.",
    BACKING
);

/// Of a backing device, since it was attached.
static TOTALS: [Number; 6] = [
    number!(
        "stats_total/bypassed",
        counter,
        "bypassed_bytes_total",
        "Amount of IO (both reads and writes) that has bypassed the cache.",
        BACKING
    ),
    number!(
        "stats_total/cache_hits",
        counter,
        "cache_hits_total",
        "Hits counted per individual IO as bcache sees them.",
        BACKING
    ),
    number!(
        "stats_total/cache_misses",
        counter,
        "cache_misses_total",
        "Misses counted per individual IO as bcache sees them.",
        BACKING
    ),
    number!(
        "stats_total/cache_bypass_hits",
        counter,
        "cache_bypass_hits_total",
        "Hits for IO intended to skip the cache.",
        BACKING
    ),
    number!(
        "stats_total/cache_bypass_misses",
        counter,
        "cache_bypass_misses_total",
        "Misses for IO intended to skip the cache.",
        BACKING
    ),
    number!(
        "stats_total/cache_miss_collisions",
        counter,
        "cache_miss_collisions_total",
        "Instances where data insertion from cache miss raced with write (data already present).",
        BACKING
    ),
];

/// Said only where it is not 0: newer kernels have it no more.
static READAHEADS: Number = number!(
    "stats_total/cache_readaheads",
    counter,
    "cache_readaheads_total",
    "Count of times readahead occurred.",
    BACKING
);

const DEBUG_FILE: &str = "writeback_rate_debug";

/// The lines of `writeback_rate_debug`.
static DEBUG: [Number; 5] = [
    number!(
        "target:",
        gauge,
        "dirty_target_bytes",
        "Current dirty data target threshold for this backing device in bytes.",
        BACKING
    ),
    number!(
        "rate:",
        gauge,
        "writeback_rate",
        "Current writeback rate for this backing device in bytes.",
        BACKING
    ),
    number!(
        "proportional:",
        gauge,
        "writeback_rate_proportional_term",
        "Current result of proportional controller, part of writeback rate",
        BACKING
    ),
    number!(
        "integral:",
        gauge,
        "writeback_rate_integral_term",
        "Current result of integral controller, part of writeback rate",
        BACKING
    ),
    number!(
        "change:",
        gauge,
        "writeback_change",
        "Last writeback rate change step for this backing device.",
        BACKING
    ),
];

/// Where `integral:` is in [`DEBUG`].
const INTEGRAL: usize = 3;

/// Of a cache.
static CACHE_NUMBERS: [Number; 3] = [
    number!(
        "io_errors",
        gauge,
        "io_errors",
        "Number of errors that have occurred, decayed by io_error_halflife.",
        CACHE
    ),
    number!(
        "metadata_written",
        counter,
        "metadata_written_bytes_total",
        "Sum of all non data writes (btree writes and all other metadata).",
        CACHE
    ),
    number!(
        "written",
        counter,
        "written_bytes_total",
        "Sum of all data that has been written to the cache.",
        CACHE
    ),
];

const PRIORITY_FILE: &str = "priority_stats";

/// The lines of `priority_stats`.
static PRIORITY: [Number; 2] = [
    number!(
        "Unused:",
        gauge,
        "priority_stats_unused_percent",
        "The percentage of the cache that doesn't contain any data.",
        CACHE
    ),
    number!("Metadata:", gauge, "priority_stats_metadata_percent", "Bcache's metadata overhead.", CACHE),
];

struct Bcache {
    /// The kernel walks the whole cache for these.
    priority_stats: bool,
    buffer: Buffer,
}

fn build(_: &Host, options: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Bcache { priority_stats: options.is_on("bcache.priorityStats"), buffer: Buffer::default() }))
}

impl Collector for Bcache {
    /// Without the driver there are no sets, and that is no error.
    fn collect(&mut self, host: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let class = host.sys("fs/bcache");
        let mut failed = None;
        for uuid in host::list_dir_but_files(&class).unwrap_or_default() {
            if uuid.contains('-') {
                let set = class.join(&uuid);
                self.guard(&set, out, &mut failed, |this, out| this.say_set(&set, &uuid, out));
                self.say_members(&set, &uuid, out, &mut failed);
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

impl Bcache {
    fn say_members(&mut self, set: &Path, uuid: &str, out: &mut Samples, failed: &mut Option<CollectError>) {
        for name in host::list_dir_but_files(set).unwrap_or_default() {
            let path = set.join(&name);
            if sysfs::is_numbered(&name, "bdev") {
                self.guard(&path, out, failed, |this, out| this.say_backing(&path, &[&name, uuid], out));
            } else if sysfs::is_numbered(&name, "cache") {
                self.guard(&path, out, failed, |this, out| this.say_cache(&path, &[&name, uuid], out));
            }
        }
    }

    /// All of a device is said or, when it can't be read or understood, nothing; one that is gone by now is no error.
    fn guard(
        &mut self,
        path: &Path,
        out: &mut Samples,
        failed: &mut Option<CollectError>,
        say: impl FnOnce(&mut Self, &mut Samples) -> Result<(), CollectError>,
    ) {
        let mark = out.mark();
        if let Err(error) = say(self, out) {
            out.rewind(mark);
            if host::is_dir(path) {
                failed.get_or_insert(error);
            }
        }
    }

    fn say_set(&mut self, path: &Path, uuid: &str, out: &mut Samples) -> Result<(), CollectError> {
        let mut files = self.open(path)?;
        for Number(file, desc) in &SET_NUMBERS {
            out.push(desc, &[uuid], files.number(file)?);
        }
        out.push(&READ_DURATION, &[uuid], files.number(READ_DURATION_FILE)? * 1e-9);
        Ok(())
    }

    fn say_backing(&mut self, path: &Path, labels: &[&str], out: &mut Samples) -> Result<(), CollectError> {
        let mut files = self.open(path)?;
        let Number(file, desc) = &DIRTY;
        out.push(desc, labels, files.number(file)?);
        let mut values =
            files.lines(DEBUG_FILE, &DEBUG, |word| dehumanize_signed(word.trim_end_matches("/sec")))?;
        // Older kernels steer without it.
        values[INTEGRAL].get_or_insert(0.0);
        let values = whole(values).ok_or_else(|| files.incomplete(DEBUG_FILE))?;
        for (Number(_, desc), value) in DEBUG.iter().zip(values) {
            out.push(desc, labels, value);
        }
        for Number(file, desc) in &TOTALS {
            out.push(desc, labels, files.number(file)?);
        }
        let Number(file, desc) = &READAHEADS;
        let readaheads = files.number(file)?;
        if readaheads != 0.0 {
            out.push(desc, labels, readaheads);
        }
        Ok(())
    }

    fn say_cache(&mut self, path: &Path, labels: &[&str], out: &mut Samples) -> Result<(), CollectError> {
        let with_priority = self.priority_stats;
        let mut files = self.open(path)?;
        for Number(file, desc) in &CACHE_NUMBERS {
            out.push(desc, labels, files.number(file)?);
        }
        if with_priority {
            let values = files.lines(PRIORITY_FILE, &PRIORITY, parse_percent)?;
            let values = whole(values).ok_or_else(|| files.incomplete(PRIORITY_FILE))?;
            for (Number(_, desc), value) in PRIORITY.iter().zip(values) {
                out.push(desc, labels, value);
            }
        }
        Ok(())
    }

    fn open<'a>(&'a mut self, path: &'a Path) -> Result<Files<'a>, CollectError> {
        match Directory::open(path) {
            Ok(directory) => Ok(Files { directory, path, buffer: &mut self.buffer }),
            Err(source) => Err(CollectError::Read { path: path.to_owned(), source }),
        }
    }
}

/// The attributes of a set or of a device in it.
struct Files<'a> {
    directory: Directory,
    path: &'a Path,
    buffer: &'a mut Buffer,
}

impl Files<'_> {
    /// The number in an attribute; 0 where this kernel has no such attribute.
    fn number(&mut self, file: &str) -> Result<f64, CollectError> {
        match self.directory.read(file, self.buffer) {
            Ok(text) => match dehumanize(text) {
                Some(number) => Ok(number as f64),
                None => Err(odd(self.path, file, text)),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0.0),
            Err(source) => Err(CollectError::Read { path: self.path.join(file), source }),
        }
    }

    /// What `parse` makes of the last words of the lines that begin with the words in `wanted`.
    fn lines<const N: usize>(
        &mut self,
        file: &str,
        wanted: &[Number; N],
        parse: impl Fn(&str) -> Option<f64>,
    ) -> Result<[Option<f64>; N], CollectError> {
        let text = match self.directory.read(file, self.buffer) {
            Ok(text) => text,
            Err(source) => return Err(CollectError::Read { path: self.path.join(file), source }),
        };
        let mut values = [None; N];
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let Some(key) = words.next() else { continue };
            let Some(at) = wanted.iter().position(|Number(name, _)| *name == key) else { continue };
            let value = words.next_back().and_then(&parse).ok_or_else(|| odd(self.path, file, line))?;
            values[at] = Some(value);
        }
        Ok(values)
    }

    fn incomplete(&self, file: &str) -> CollectError {
        CollectError::parse(self.path.join(file), "lines are missing")
    }
}

/// The values, if all of them are there.
fn whole<const N: usize>(values: [Option<f64>; N]) -> Option<[f64; N]> {
    (!values.contains(&None)).then(|| values.map(Option::unwrap_or_default))
}

fn odd(path: &Path, file: &str, text: &str) -> CollectError {
    CollectError::parse(path.join(file), format!("expected a number, got {text:?}"))
}

/// "99%"
fn parse_percent(word: &str) -> Option<f64> {
    word.strip_suffix('%').unwrap_or(word).parse::<u64>().ok().map(|percent| percent as f64)
}

/// As [`dehumanize`], with a sign.
fn dehumanize_signed(text: &str) -> Option<f64> {
    match text.strip_prefix('-') {
        // Not its negation: there is no negative nought.
        Some(rest) => dehumanize(rest).map(|number| 0.0 - number as f64),
        None => dehumanize(text).map(|number| number as f64),
    }
}

/// "512", "20.4G": what the driver's `bch_hprint` made of a number. Behind its point stand 1024ths of the unit divided
/// by 100, so that `.10` is more than `.9`; a plain number with a point is one of its other prints.
fn dehumanize(text: &str) -> Option<u64> {
    const UNITS: &str = "kMGTPEZY";
    let last = text.chars().next_back()?;
    let value = match UNITS.find(last) {
        None => parse_decimal(text)?,
        Some(at) => {
            let unit = 1024_f64.powi(at as i32 + 1);
            let number = text.strip_suffix(last)?;
            let number = match number.split_once('.') {
                None => parse_decimal(number)?,
                Some((whole, part)) => parse_digits(whole)? + parse_digits(part)? / 10.24,
            };
            number * unit
        }
    };
    Some(value as u64)
}

/// Digits, perhaps with a point.
fn parse_decimal(text: &str) -> Option<f64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if is_plain { text.parse().ok() } else { None }
}

fn parse_digits(text: &str) -> Option<f64> {
    if text.contains('.') { None } else { parse_decimal(text) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn numbers_lose_their_units() {
        for (text, number) in [
            ("0", Some(0)),
            ("1.7", Some(1)),
            ("512k", Some(524_288)),
            ("1.5k", Some(1524)),
            ("20.4G", Some(21_894_266_880)),
            ("1.10M", Some(2_072_576)),
            ("", None),
            ("k", None),
            ("1K", None),
            ("1.2.3k", None),
            ("-1", None),
            ("nan", None),
            ("infY", None),
        ] {
            assert_eq!(dehumanize(text), number, "{text:?}");
        }
        assert_eq!(dehumanize_signed("-1.5k"), Some(-1524.0));
        assert!(dehumanize_signed("-0").is_some_and(f64::is_sign_positive));
    }

    const UUID: &str = "5bc072a8-ab17-446d-9744-e247949913c1";

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new() -> Self {
            let tree = Self(tempfile::tempdir().expect("a temporary directory"));
            tree.write("tree_depth", "1\n");
            tree.write("bdev0/dirty_data", "1.5k\n");
            tree.write(
                "bdev0/writeback_rate_debug",
                "rate:\t\t4.0k/sec\ndirty:\t\t1M\ntarget:\t\t2M\nproportional:\t-3k\nintegral:\t0\nchange:\t\t-1/sec\n\
                 next io:\t-5ms\n",
            );
            tree.write("cache0/written", "7\n");
            tree.write("cache0/priority_stats", "Unused:\t\t9%\nMetadata:\t1%\nQuantiles:\t[0 1]\n");
            tree
        }

        fn write(&self, file: &str, text: &str) {
            let path = self.0.path().join("fs/bcache").join(UUID).join(file);
            fs::create_dir_all(path.parent().expect("has one")).expect("made");
            fs::write(path, text).expect("written");
        }

        /// The values that are not 0 of what begins with `prefix`, how many are 0, and whether all went well.
        fn said(&self, priority_stats: bool) -> (Vec<(String, f64)>, usize, bool) {
            let host = Host { sysfs: self.0.path().into(), ..Host::default() };
            let mut out = Samples::new();
            let result = Bcache { priority_stats, buffer: Buffer::default() }.collect(&host, &mut out);
            let (zeros, values): (Vec<_>, Vec<_>) = out
                .iter()
                .map(|(name, _, value)| (name.replace("node_bcache_", ""), value))
                .partition(|(_, value)| *value == 0.0);
            (values, zeros.len(), result.is_ok())
        }
    }

    #[test]
    fn sets_and_their_devices_are_said() {
        let expected = [
            ("tree_depth", 1.0),
            ("dirty_data_bytes", 1524.0),
            ("dirty_target_bytes", 2_097_152.0),
            ("writeback_rate", 4096.0),
            ("writeback_rate_proportional_term", -3072.0),
            ("writeback_change", -1.0),
            ("written_bytes_total", 7.0),
        ];
        let expected: Vec<(String, f64)> = expected.map(|(name, value)| (name.to_owned(), value)).into();
        let tree = Tree::new();
        // What a kernel lacks is 0.
        assert_eq!(tree.said(false), (expected.clone(), 18, true));
        let (values, zeros, is_good) = tree.said(true);
        assert_eq!((values.len(), zeros, is_good), (expected.len() + 2, 18, true));
    }

    #[test]
    fn a_broken_device_does_not_hide_the_others() {
        let tree = Tree::new();
        tree.write("bdev0/dirty_data", "much\n");
        let (values, _, is_good) = tree.said(false);
        assert_eq!((values.len(), is_good), (2, false));
        tree.write("bdev0/dirty_data", "");
        assert!(!tree.said(false).2);
        tree.write("bdev0/dirty_data", "1\n");
        let old = "rate:\t1/sec\ntarget:\t1\nproportional:\t1\nderivative:\t1\nchange:\t1/sec\n";
        tree.write("bdev0/writeback_rate_debug", old);
        assert!(tree.said(false).2, "an old kernel");
        tree.write("bdev0/writeback_rate_debug", "rate:\t1/sec\n");
        assert!(!tree.said(false).2);
        fs::remove_file(tree.0.path().join("fs/bcache").join(UUID).join("cache0/priority_stats"))
            .expect("removed");
        assert_eq!(tree.said(true).0.len(), 1);
    }

    #[test]
    fn a_host_without_the_driver_says_nothing() {
        let host = Host { sysfs: "/nonexistent".into(), ..Host::default() };
        let mut out = Samples::new();
        let mut bcache = Bcache { priority_stats: true, buffer: Buffer::default() };
        assert!(bcache.collect(&host, &mut out).is_ok() && out.is_empty());
    }
}
