//! The kernel's object caches. Only root may read them.

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Flag, Host, HostFile, Options, Samples, filter::Filter,
};

/// This collector in the list.
pub const ENTRY: Entry = Entry {
    name: "slabinfo",
    default_on: false,
    flags: &[
        Flag::regex("slabinfo.slabs-include", ".*", "Regexp of slabs to include in slabinfo collector."),
        Flag::regex("slabinfo.slabs-exclude", "", "Regexp of slabs to exclude in slabinfo collector."),
    ],
    build,
};

/// In the order of the numbers behind a cache's name.
static FAMILIES: [Desc; 5] = [
    Desc::gauge(
        "node_slabinfo_active_objects",
        "The number of objects that are currently active (i.e., in use).",
        &["slab"],
    ),
    Desc::gauge(
        "node_slabinfo_objects",
        "The total number of allocated objects (i.e., objects that are both in use and not in use).",
        &["slab"],
    ),
    Desc::gauge("node_slabinfo_object_size_bytes", "The size of objects in this slab, in bytes.", &["slab"]),
    Desc::gauge("node_slabinfo_objects_per_slab", "The number of objects stored in each slab.", &["slab"]),
    Desc::gauge("node_slabinfo_pages_per_slab", "The number of pages allocated for each slab.", &["slab"]),
];

struct Slabinfo {
    file: HostFile,
    filter: Filter,
}

fn build(host: &Host, options: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Slabinfo {
        file: HostFile::new(host.proc("slabinfo")),
        filter: Filter::both(options, "slabinfo.slabs-include", "slabinfo.slabs-exclude")?,
    }))
}

impl Collector for Slabinfo {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let Self { file, filter } = self;
        let before = out.mark();
        file.parse(|text| say(text, filter, out)).inspect_err(|_| out.rewind(before))
    }
}

/// `/proc/slabinfo`: the version, a line of names that begins with "#", then one for each cache.
fn say(text: &str, filter: &Filter, out: &mut Samples) -> Result<(), String> {
    let families = FAMILIES.each_ref().map(|desc| out.family(desc));
    let is_cache = |line: &&str| !line.starts_with("slabinfo - ") && !line.starts_with("# name");
    for line in text.lines().filter(is_cache) {
        let (name, numbers) = parse_cache(line).ok_or_else(|| format!("expected a cache, got {line:?}"))?;
        if filter.ignores(name) {
            continue;
        }
        for (family, number) in families.iter().zip(numbers) {
            out.push_to(*family, &[name], number as f64);
        }
    }
    Ok(())
}

/// "kmem_cache  320  320  256  32  2 : tunables  0  0  0 : slabdata  10  10  0": 16 words, the first numbers are as
/// [`FAMILIES`].
fn parse_cache(line: &str) -> Option<(&str, [i64; FAMILIES.len()])> {
    const REST: [&str; 4] = [":", "tunables", ":", "slabdata"];

    let mut words = line.split_ascii_whitespace();
    let name = words.next()?;
    let mut numbers = [0; FAMILIES.len()];
    for number in &mut numbers {
        *number = words.next()?.parse().ok()?;
    }
    let mut rest = REST.iter();
    let mut others = 0;
    for word in words {
        if word.parse::<i64>().is_ok() {
            others += 1;
        } else if rest.next() != Some(&word) {
            return None;
        }
    }
    (others == 6 && rest.next().is_none()).then_some((name, numbers))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CACHE: &str = "dentry  26 42 192 21 1 : tunables    0    0    0 : slabdata      2      3      0";

    #[test]
    fn a_cache_is_a_name_and_numbers() {
        assert_eq!(parse_cache(CACHE), Some(("dentry", [26, 42, 192, 21, 1])));
        let mut out = Samples::new();
        let text = format!("slabinfo - version: 2.1\n# name <active_objs> ...\n{CACHE}\n");
        assert_eq!(say(&text, &Filter::default(), &mut out), Ok(()));
        assert_eq!(out.len(), FAMILIES.len());
    }

    #[test]
    fn cut_and_odd_lines_are_refused() {
        for length in 0..CACHE.len() - 1 {
            assert_eq!(parse_cache(&CACHE[..length]), None, "{length}");
        }
        assert_eq!(parse_cache(&format!("{CACHE} 1")), None);
        assert_eq!(parse_cache(&CACHE.replace("192", "x")), None);
        assert_eq!(parse_cache(&CACHE.replace("slabdata", "slab")), None);
    }
}
