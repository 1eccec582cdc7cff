//! Free blocks of memory by size: how fragmented it is.

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Host, HostFile, Options, Samples, labels::Numbers,
};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "buddyinfo", default_on: false, flags: &[], build };

static BLOCKS: Desc = Desc::gauge(
    "node_buddyinfo_blocks",
    "Count of free blocks according to size.",
    &["node", "size", "zone"],
);

struct Buddyinfo {
    file: HostFile,
    sizes: Numbers,
}

fn build(host: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Buddyinfo { file: HostFile::new(host.proc("buddyinfo")), sizes: Numbers::default() }))
}

impl Collector for Buddyinfo {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let Self { file, sizes } = self;
        let before = out.mark();
        file.parse(|text| say(text, sizes, out)).inspect_err(|_| out.rewind(before))
    }
}

/// `/proc/buddyinfo`: "Node 0, zone    DMA32    759    572    791 ..."; as many sizes in every zone.
fn say(text: &str, sizes: &mut Numbers, out: &mut Samples) -> Result<(), String> {
    let blocks = out.family(&BLOCKS);
    let mut count = None;
    for line in text.lines() {
        let (node, zone, numbers) =
            parse_line(line).ok_or_else(|| format!("expected Node N, zone NAME, got {line:?}"))?;
        let here = numbers.split_ascii_whitespace().count();
        if *count.get_or_insert(here) != here {
            return Err(format!("expected as many sizes as in the first zone, got {line:?}"));
        }
        for (size, number) in sizes.first(here).iter().zip(numbers.split_ascii_whitespace()) {
            let number: u64 = number.parse().map_err(|_| format!("expected numbers, got {line:?}"))?;
            out.push_to(blocks, &[node, size, zone], number as f64);
        }
    }
    Ok(())
}

/// The node, the zone and the numbers.
fn parse_line(line: &str) -> Option<(&str, &str, &str)> {
    let (node, rest) = line.strip_prefix("Node ")?.split_once(',')?;
    let rest = rest.trim_ascii_start().strip_prefix("zone ")?.trim_ascii_start();
    let (zone, numbers) = rest.split_once(' ').unwrap_or((rest, ""));
    Some((node.trim_ascii(), zone, numbers))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Result<Vec<(String, f64)>, String> {
        let mut out = Samples::new();
        say(text, &mut Numbers::default(), &mut out)?;
        Ok(out.iter().map(|(_, labels, value)| (labels.collect::<Vec<_>>().join(" "), value)).collect())
    }

    #[test]
    fn blocks_are_said_by_their_size() {
        let text = "Node 0, zone      DMA      1      0 \nNode 1, zone   Normal   4381   1093 \n";
        let expected = [("0 0 DMA", 1.0), ("0 1 DMA", 0.0), ("1 0 Normal", 4381.0), ("1 1 Normal", 1093.0)];
        assert_eq!(
            said(text).expect("understood"),
            expected.map(|(labels, value)| (labels.to_owned(), value))
        );
        assert_eq!(said("Node 0, zone DMA\n").expect("understood"), []);
    }

    #[test]
    fn cut_and_odd_lines_are_refused() {
        for text in [
            "\n",
            "Node 0,\n",
            "Node 0, zone\n",
            "Node 0, zone DMA x\n",
            "Node 0, zone DMA 1 2\nNode 0, zone DMA32 1\n",
        ] {
            assert!(said(text).is_err(), "{text:?}");
        }
    }
}
