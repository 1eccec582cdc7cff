//! What the kernel counts of each memory zone.

use memchr::memmem;

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Host, HostFile, Kind, Options, OwnedDesc, Samples,
};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "zoneinfo", default_on: false, flags: &[], build };

/// The kernel's name of a field, and its family.
struct Field(&'static str, Desc);

macro_rules! field {
    ($kernel:literal, $name:literal, $kind:ident, $help:literal) => {
        Field($kernel, Desc::$kind(concat!("node_zoneinfo_", $name), $help, &["node", "zone"]))
    };
}

/// In the order of the kernel, so that each line is found where the last one ended.
static FIELDS: [Field; 34] = [
    field!(
        "nr_inactive_anon",
        "nr_inactive_anon_pages",
        gauge,
        "Number of anonymous pages recently less used"
    ),
    field!("nr_active_anon", "nr_active_anon_pages", gauge, "Number of anonymous pages recently more used"),
    field!("nr_inactive_file", "nr_inactive_file_pages", gauge, "Number of inactive pages with file-backing"),
    field!("nr_active_file", "nr_active_file_pages", gauge, "Number of active pages with file-backing"),
    field!("nr_unevictable", "nr_unevictable_pages", gauge, "Number of unevictable pages"),
    field!("nr_slab_reclaimable", "nr_slab_reclaimable_pages", gauge, "Number of reclaimable slab pages"),
    field!(
        "nr_slab_unreclaimable",
        "nr_slab_unreclaimable_pages",
        gauge,
        "Number of unreclaimable slab pages"
    ),
    field!("nr_isolated_anon", "nr_isolated_anon_pages", gauge, "Temporary isolated pages from anon lru"),
    field!("nr_isolated_file", "nr_isolated_file_pages", gauge, "Temporary isolated pages from file lru"),
    field!("nr_anon_pages", "nr_anon_pages", gauge, "Number of anonymous pages currently used by the system"),
    field!("nr_mapped", "nr_mapped_pages", gauge, "Number of mapped pages"),
    field!("nr_file_pages", "nr_file_pages", gauge, "Number of file pages"),
    field!("nr_dirty", "nr_dirty_pages", gauge, "Number of dirty pages"),
    field!("nr_writeback", "nr_writeback_pages", gauge, "Number of writeback pages"),
    field!("nr_shmem", "nr_shmem_pages", gauge, "Number of shmem pages (included tmpfs/GEM pages)"),
    field!(
        "nr_anon_transparent_hugepages",
        "nr_anon_transparent_hugepages",
        gauge,
        "Number of anonymous transparent huge pages currently used by the system"
    ),
    field!("nr_dirtied", "nr_dirtied_total", counter, "Page dirtyings since bootup"),
    field!("nr_written", "nr_written_total", counter, "Page writings since bootup"),
    field!("min", "min_pages", gauge, "Zone watermark pages_min"),
    field!("low", "low_pages", gauge, "Zone watermark pages_low"),
    field!("high", "high_pages", gauge, "Zone watermark pages_high"),
    field!("scanned", "scanned_pages", gauge, "Pages scanned since last reclaim"),
    field!("spanned", "spanned_pages", gauge, "Total pages spanned by the zone, including holes"),
    field!("present", "present_pages", gauge, "Physical pages existing within the zone"),
    field!("managed", "managed_pages", gauge, "Present pages managed by the buddy system"),
    field!("nr_free_pages", "nr_free_pages", gauge, "Total number of free pages in the zone"),
    field!("nr_mlock_stack", "nr_mlock_stack_pages", gauge, "mlock()ed pages found and moved off LRU"),
    field!("nr_kernel_stack", "nr_kernel_stacks", gauge, "Number of kernel stacks"),
    field!("numa_hit", "numa_hit_total", counter, "Allocated in intended node"),
    field!("numa_miss", "numa_miss_total", counter, "Allocated in non intended node"),
    field!("numa_foreign", "numa_foreign_total", counter, "Was intended here, hit elsewhere"),
    field!("numa_interleave", "numa_interleave_total", counter, "Interleaver preferred this zone"),
    field!("numa_local", "numa_local_total", counter, "Allocation from local node"),
    field!("numa_other", "numa_other_total", counter, "Allocation from other node"),
];

struct Zoneinfo {
    file: HostFile,
    protections: Protections,
}

/// The families of the protection array, one for each zone that there can be on a node.
#[derive(Default)]
struct Protections(Vec<OwnedDesc>);

fn build(host: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Zoneinfo { file: HostFile::new(host.proc("zoneinfo")), protections: Protections::default() }))
}

impl Collector for Zoneinfo {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let Self { file, protections } = self;
        let before = out.mark();
        file.parse(|text| say(text, protections, out)).inspect_err(|_| out.rewind(before))
    }
}

/// `/proc/zoneinfo`: for each zone "Node 0, zone      DMA", lines of names and numbers, then the page sets of each CPU,
/// which are not said.
fn say(text: &str, protections: &mut Protections, out: &mut Samples) -> Result<(), String> {
    const ZONE: &str = "Node ";
    const PAGE_SETS: &str = "\n  pagesets";

    if text.is_empty() {
        return Ok(());
    }
    let mut rest = text.strip_prefix(ZONE).ok_or("expected Node N, zone NAME")?;
    loop {
        let (zone, behind) = match memmem::find(rest.as_bytes(), b"\nNode ") {
            Some(end) => (rest.get(..end), rest.get(end + 1 + ZONE.len()..)),
            None => (Some(rest), None),
        };
        let zone = zone.unwrap_or_default();
        let counted = memmem::find(zone.as_bytes(), PAGE_SETS.as_bytes()).and_then(|end| zone.get(..end));
        say_zone(counted.unwrap_or(zone), protections, out)?;
        match behind {
            Some(behind) => rest = behind,
            None => return Ok(()),
        }
    }
}

/// "0, zone   Normal", then lines.
fn say_zone(text: &str, protections: &mut Protections, out: &mut Samples) -> Result<(), String> {
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    let (node, zone) =
        head.split_once(", zone").ok_or_else(|| format!("expected N, zone NAME, got {head:?}"))?;
    let labels = [node, zone.trim_ascii()];
    let mut next = 0;
    for line in lines {
        let mut words = line.split_ascii_whitespace();
        let (Some(name), Some(value)) = (words.next(), words.next()) else { continue };
        if name == "protection:" {
            let values = line.split_once(':').map(|(_, values)| values.trim_ascii());
            let understood = values.and_then(|values| protections.say(values, labels, out));
            understood.ok_or_else(|| format!("expected numbers in parentheses, got {line:?}"))?;
            continue;
        }
        let places = (next..FIELDS.len()).chain(0..next);
        let known = places.zip(FIELDS.iter().cycle().skip(next)).find(|(_, field)| field.0 == name);
        if let Some((at, Field(_, desc))) = known {
            let value: i64 = value.parse().map_err(|_| format!("expected a number, got {line:?}"))?;
            out.push(desc, &labels, value as f64);
            next = at + 1;
        }
    }
    Ok(())
}

impl Protections {
    /// "(0, 2039, 31932, 31932, 31932)"
    fn say(&mut self, values: &str, labels: [&str; 2], out: &mut Samples) -> Option<()> {
        let values = values.strip_prefix('(')?.strip_suffix(')')?;
        for (at, value) in values.split(", ").enumerate() {
            if self.0.len() == at {
                self.0.push(describe_protection(at));
            }
            let value: i64 = value.parse().ok()?;
            let family = out.owned_family(self.0.get(at)?);
            out.push_to(family, &labels, value as f64);
        }
        Some(())
    }
}

fn describe_protection(at: usize) -> OwnedDesc {
    let name = format!("node_zoneinfo_protection_{at}");
    OwnedDesc::new(&name, &format!("Protection array {at}. field"), Kind::Gauge, &["node", "zone"])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Result<Vec<String>, String> {
        let mut out = Samples::new();
        say(text, &mut Protections::default(), &mut out)?;
        let line = |(name, labels, value): (&str, crate::samples::LabelValues, f64)| {
            format!(
                "{} {} {value}",
                name.trim_start_matches("node_zoneinfo_"),
                labels.collect::<Vec<_>>().join(" ")
            )
        };
        Ok(out.iter().map(line).collect())
    }

    #[test]
    fn known_fields_of_each_zone_are_said() {
        let text = "Node 0, zone      DMA\n  per-node stats\n      nr_mapped    423143\n      nr_odd 1\n  pages free     2949\n\
                    \x20       min      8\n        protection: (0, 2039)\n      nr_free_pages 2949\n  pagesets\n    cpu: 0\n\
                    \x20             high:  0\n              high 5\n  start_pfn:           1\nNode 1, zone   Normal\n\
                    \x20       high     7\n        low      6\n";
        let expected = [
            "nr_mapped_pages 0 DMA 423143",
            "min_pages 0 DMA 8",
            "protection_0 0 DMA 0",
            "protection_1 0 DMA 2039",
            "nr_free_pages 0 DMA 2949",
            "high_pages 1 Normal 7",
            "low_pages 1 Normal 6",
        ];
        assert_eq!(said(text).expect("understood"), expected);
    }

    #[test]
    fn cut_and_odd_text_is_refused() {
        assert_eq!(said(""), Ok(Vec::new()));
        for text in [
            "nr_mapped 1\n",
            "Node 0\n",
            "Node 0, zone DMA\n  min x\n",
            "Node 0, zone DMA\n  protection: (0, x)\n",
            "Node 0, zone DMA\n  protection: (0, 1\n",
            "Node 0, zone DMA\nNode ",
        ] {
            assert!(said(text).is_err(), "{text:?}");
        }
    }
}
