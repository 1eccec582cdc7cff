//! The fields of `/proc/meminfo`.

use crate::{BuildError, CollectError, Collector, Desc, Entry, Host, HostFile, Options, Samples};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "meminfo", default_on: true, flags: &[], build };

/// The kernel's name of a field, and its family.
struct Field(&'static str, Desc);

macro_rules! field {
    ($kernel:literal, $name:literal) => {
        Field(
            $kernel,
            Desc::gauge(
                concat!("node_memory_", $name),
                concat!("Memory information field ", $name, "."),
                &[],
            ),
        )
    };
}

/// In the order of the kernel, so that each line is found where the last one ended.
static FIELDS: [Field; 51] = [
    field!("MemTotal", "MemTotal_bytes"),
    field!("MemFree", "MemFree_bytes"),
    field!("MemAvailable", "MemAvailable_bytes"),
    field!("Buffers", "Buffers_bytes"),
    field!("Cached", "Cached_bytes"),
    field!("SwapCached", "SwapCached_bytes"),
    field!("Active", "Active_bytes"),
    field!("Inactive", "Inactive_bytes"),
    field!("Active(anon)", "Active_anon_bytes"),
    field!("Inactive(anon)", "Inactive_anon_bytes"),
    field!("Active(file)", "Active_file_bytes"),
    field!("Inactive(file)", "Inactive_file_bytes"),
    field!("Unevictable", "Unevictable_bytes"),
    field!("Mlocked", "Mlocked_bytes"),
    field!("SwapTotal", "SwapTotal_bytes"),
    field!("SwapFree", "SwapFree_bytes"),
    field!("Zswap", "Zswap_bytes"),
    field!("Zswapped", "Zswapped_bytes"),
    field!("Dirty", "Dirty_bytes"),
    field!("Writeback", "Writeback_bytes"),
    field!("AnonPages", "AnonPages_bytes"),
    field!("Mapped", "Mapped_bytes"),
    field!("Shmem", "Shmem_bytes"),
    field!("Slab", "Slab_bytes"),
    field!("SReclaimable", "SReclaimable_bytes"),
    field!("SUnreclaim", "SUnreclaim_bytes"),
    field!("KernelStack", "KernelStack_bytes"),
    field!("PageTables", "PageTables_bytes"),
    field!("NFS_Unstable", "NFS_Unstable_bytes"),
    field!("Bounce", "Bounce_bytes"),
    field!("WritebackTmp", "WritebackTmp_bytes"),
    field!("CommitLimit", "CommitLimit_bytes"),
    field!("Committed_AS", "Committed_AS_bytes"),
    field!("VmallocTotal", "VmallocTotal_bytes"),
    field!("VmallocUsed", "VmallocUsed_bytes"),
    field!("VmallocChunk", "VmallocChunk_bytes"),
    field!("Percpu", "Percpu_bytes"),
    field!("HardwareCorrupted", "HardwareCorrupted_bytes"),
    field!("AnonHugePages", "AnonHugePages_bytes"),
    field!("ShmemHugePages", "ShmemHugePages_bytes"),
    field!("ShmemPmdMapped", "ShmemPmdMapped_bytes"),
    field!("CmaTotal", "CmaTotal_bytes"),
    field!("CmaFree", "CmaFree_bytes"),
    field!("HugePages_Total", "HugePages_Total"),
    field!("HugePages_Free", "HugePages_Free"),
    field!("HugePages_Rsvd", "HugePages_Rsvd"),
    field!("HugePages_Surp", "HugePages_Surp"),
    field!("Hugepagesize", "Hugepagesize_bytes"),
    field!("DirectMap4k", "DirectMap4k_bytes"),
    field!("DirectMap2M", "DirectMap2M_bytes"),
    field!("DirectMap1G", "DirectMap1G_bytes"),
];

type Values = [Option<u64>; FIELDS.len()];

struct Meminfo {
    file: HostFile,
}

fn build(host: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Meminfo { file: HostFile::new(host.proc("meminfo")) }))
}

impl Collector for Meminfo {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let values = self.file.parse(parse_meminfo)?;
        for (Field(_, desc), value) in FIELDS.iter().zip(values) {
            if let Some(value) = value {
                out.push(desc, &[], value as f64);
            }
        }
        Ok(())
    }
}

/// `/proc/meminfo`: "MemTotal:       16042172 kB", "HugePages_Total:       0"; fields not in the table are left out.
fn parse_meminfo(text: &str) -> Result<Values, String> {
    let mut values = [None; FIELDS.len()];
    let mut next = 0;
    for line in text.lines() {
        let (name, value) =
            parse_line(line).ok_or_else(|| format!("expected NAME: VALUE [kB], got {line:?}"))?;
        let at = (next..FIELDS.len()).chain(0..next).find(|&at| FIELDS[at].0 == name);
        if let Some(at) = at {
            values[at] = Some(value);
            next = at + 1;
        }
    }
    if values.iter().all(Option::is_none) {
        return Err("it has no known field".into());
    }
    Ok(values)
}

/// The name and the value, in bytes where the kernel gives a unit.
fn parse_line(line: &str) -> Option<(&str, u64)> {
    let (name, rest) = line.split_once(':')?;
    let mut words = rest.split_ascii_whitespace();
    let value: u64 = words.next()?.parse().ok()?;
    match (words.next(), words.next()) {
        (None, _) => Some((name, value)),
        (Some("kB"), None) => Some((name, value.wrapping_mul(1024))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str, name: &str) -> Option<u64> {
        let at = FIELDS.iter().position(|field| field.0 == name).expect("in the table");
        parse_meminfo(text).expect("understood")[at]
    }

    #[test]
    fn values_with_a_unit_are_bytes_and_counts_stay_counts() {
        let text = "MemTotal:       3742148 kB\nActive(anon):    2068484 kB\nHugePages_Total:       7\n";
        assert_eq!(value(text, "MemTotal"), Some(3_831_959_552));
        assert_eq!(value(text, "Active(anon)"), Some(2_118_127_616));
        assert_eq!(value(text, "HugePages_Total"), Some(7));
        assert_eq!(value(text, "MemFree"), None);
    }

    #[test]
    fn the_order_of_the_lines_does_not_matter() {
        assert_eq!(value("DirectMap1G: 2 kB\nMemTotal: 1 kB\n", "MemTotal"), Some(1024));
    }

    #[test]
    fn odd_lines_are_refused() {
        for text in [
            "",
            "MemTotal\n",
            "MemTotal:\n",
            "MemTotal: x kB\n",
            "MemTotal: 1 MB\n",
            "MemTotal: 1 kB 2\n",
            "\n",
        ] {
            assert!(parse_meminfo(text).is_err(), "{text:?}");
        }
    }
}
