//! The connection tracking table of netfilter.

use crate::{BuildError, CollectError, Collector, Desc, Entry, Host, HostFile, Options, Samples};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "conntrack", default_on: true, flags: &[], build };

static ENTRIES: Desc = Desc::gauge(
    "node_nf_conntrack_entries",
    "Number of currently allocated flow entries for connection tracking.",
    &[],
);
static LIMIT: Desc =
    Desc::gauge("node_nf_conntrack_entries_limit", "Maximum size of connection tracking table.", &[]);

/// A column of `/proc/net/stat/nf_conntrack`, counted from 0, and its family.
struct Column(usize, Desc);

static COLUMNS: [Column; 8] = [
    Column(
        2,
        Desc::gauge("node_nf_conntrack_stat_found", "Number of searched entries which were successful.", &[]),
    ),
    Column(
        4,
        Desc::gauge(
            "node_nf_conntrack_stat_invalid",
            "Number of packets seen which can not be tracked.",
            &[],
        ),
    ),
    Column(
        5,
        Desc::gauge(
            "node_nf_conntrack_stat_ignore",
            "Number of packets seen which are already connected to a conntrack entry.",
            &[],
        ),
    ),
    Column(8, Desc::gauge("node_nf_conntrack_stat_insert", "Number of entries inserted into the list.", &[])),
    Column(
        9,
        Desc::gauge(
            "node_nf_conntrack_stat_insert_failed",
            "Number of entries for which list insertion was attempted but failed.",
            &[],
        ),
    ),
    Column(
        10,
        Desc::gauge(
            "node_nf_conntrack_stat_drop",
            "Number of packets dropped due to conntrack failure.",
            &[],
        ),
    ),
    Column(
        11,
        Desc::gauge(
            "node_nf_conntrack_stat_early_drop",
            "Number of dropped conntrack entries to make room for new ones, if maximum table size was reached.",
            &[],
        ),
    ),
    Column(
        16,
        Desc::gauge(
            "node_nf_conntrack_stat_search_restart",
            "Number of conntrack table lookups which had to be restarted due to hashtable resizes.",
            &[],
        ),
    ),
];

struct Conntrack {
    count: HostFile,
    max: HostFile,
    stat: HostFile,
}

fn build(host: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Conntrack {
        count: HostFile::new(host.proc("sys/net/netfilter/nf_conntrack_count")),
        max: HostFile::new(host.proc("sys/net/netfilter/nf_conntrack_max")),
        stat: HostFile::new(host.proc("net/stat/nf_conntrack")),
    }))
}

impl Collector for Conntrack {
    /// The files are there only while the module is loaded.
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let count = self.count.parse(parse_count).map_err(CollectError::missing_is_no_data)?;
        out.push(&ENTRIES, &[], count as f64);
        let max = self.max.parse(parse_count).map_err(CollectError::missing_is_no_data)?;
        out.push(&LIMIT, &[], max as f64);
        let sums = self.stat.parse(parse_stat).map_err(CollectError::missing_is_no_data)?;
        for (Column(_, desc), sum) in COLUMNS.iter().zip(sums) {
            out.push(desc, &[], sum as f64);
        }
        Ok(())
    }
}

/// `/proc/sys/net/netfilter/nf_conntrack_count`: "123"
fn parse_count(text: &str) -> Result<u64, String> {
    text.trim().parse().map_err(|_| "expected a number".into())
}

/// `/proc/net/stat/nf_conntrack`: a line of column names, then a line of hexadecimal numbers for each CPU:
/// "00000021  00000000 00000000 00000000 00000003 0000588a ..."; the sums over the CPUs, as [`COLUMNS`].
fn parse_stat(text: &str) -> Result<[u64; COLUMNS.len()], String> {
    let mut sums = [0_u64; COLUMNS.len()];
    let mut lines = text.lines();
    lines.next().ok_or("it is empty")?;
    for line in lines {
        let numbers =
            parse_line(line).ok_or_else(|| format!("expected 16 or 17 hexadecimal numbers, got {line:?}"))?;
        for (sum, Column(at, _)) in sums.iter_mut().zip(&COLUMNS) {
            *sum = sum.wrapping_add(numbers[*at]);
        }
    }
    Ok(sums)
}

/// The numbers of a line; `search_restart`, the last, is missing before Linux 2.6.35.
fn parse_line(line: &str) -> Option<[u64; 17]> {
    let mut numbers = [0; 17];
    let mut count = 0;
    for word in line.split_ascii_whitespace() {
        *numbers.get_mut(count)? = u64::from_str_radix(word, 16).ok()?;
        count += 1;
    }
    (count >= 16).then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "entries  searched found new invalid ignore delete delete_list insert insert_failed drop \
                          early_drop icmp_error  expect_new expect_create expect_delete search_restart\n";

    #[test]
    fn columns_are_summed_over_the_cpus() {
        let line = "00000021  00000000 00000001 00000000 00000003 0000588a 00000000 00000000 00000004 00000005 \
                    00000006 00000007 00000000  00000000 00000000 00000000 00000002\n";
        let sums = parse_stat(&format!("{HEADER}{line}{line}"));
        assert_eq!(sums, Ok([2, 6, 45_332, 8, 10, 12, 14, 4]));
    }

    #[test]
    fn an_old_kernel_has_no_search_restart() {
        let line = "1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(parse_stat(&format!("{HEADER}{line}")), Ok([1, 1, 1, 1, 1, 1, 1, 0]));
    }

    #[test]
    fn cut_and_odd_lines_are_refused() {
        for line in ["00000021 00000000\n", "x\n", "1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1\n"] {
            assert!(parse_stat(&format!("{HEADER}{line}")).is_err(), "{line:?}");
        }
        assert!(parse_stat("").is_err());
        assert!(parse_count("").is_err());
    }
}
