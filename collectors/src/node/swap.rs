//! The swap areas and how full they are.

use crate::{BuildError, CollectError, Collector, Desc, Entry, Host, HostFile, Options, Samples};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "swap", default_on: false, flags: &[], build };

static SIZE: Desc =
    Desc::gauge("node_swap_size_bytes", "Swap device size in bytes.", &["device", "swap_type"]);
static USED: Desc =
    Desc::gauge("node_swap_used_bytes", "Swap device used in bytes.", &["device", "swap_type"]);
static PRIORITY: Desc = Desc::gauge("node_swap_priority", "Swap device priority.", &["device", "swap_type"]);

struct Swap {
    file: HostFile,
}

fn build(host: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Swap { file: HostFile::new(host.proc("swaps")) }))
}

impl Collector for Swap {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let before = out.mark();
        self.file.parse(|text| say(text, out)).inspect_err(|_| out.rewind(before))
    }
}

/// `/proc/swaps`: a line of names, then one for each area.
fn say(text: &str, out: &mut Samples) -> Result<(), String> {
    for line in text.lines().skip(1) {
        let area = parse_area(line).ok_or_else(|| format!("expected a swap area, got {line:?}"))?;
        out.push(&SIZE, &area.labels, area.size.wrapping_mul(1024) as f64);
        out.push(&USED, &area.labels, area.used.wrapping_mul(1024) as f64);
        out.push(&PRIORITY, &area.labels, area.priority as f64);
    }
    Ok(())
}

#[derive(Debug, PartialEq)]
struct Area<'a> {
    /// The device or file, and which of both it is.
    labels: [&'a str; 2],
    /// In KiB, as `used`.
    size: i64,
    used: i64,
    priority: i64,
}

/// "/dev/zram0                              partition\t8388604\t\t76\t\t100"; a space in a path is written as \040.
fn parse_area(line: &str) -> Option<Area<'_>> {
    let mut words = line.split_ascii_whitespace();
    let labels = [words.next()?, words.next()?];
    let mut number = || words.next()?.parse().ok();
    Some(Area { labels, size: number()?, used: number()?, priority: number()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_area_has_a_size_and_a_priority() {
        let line = "/swap\\040file                           file\t\t2097148\t\t264\t\t-2";
        let expected = Area { labels: ["/swap\\040file", "file"], size: 2_097_148, used: 264, priority: -2 };
        assert_eq!(parse_area(line), Some(expected));
        let mut out = Samples::new();
        assert_eq!(say("Filename Type Size Used Priority\n", &mut out), Ok(()));
        assert!(out.is_empty());
    }

    #[test]
    fn cut_and_odd_lines_are_refused() {
        for line in ["", "/dev/sda2 partition 1 2", "/dev/sda2 partition x 2 -2"] {
            assert_eq!(parse_area(line), None, "{line:?}");
        }
    }
}
