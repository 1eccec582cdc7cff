//! How many cgroups each controller has, in cgroup version 1.

use crate::{BuildError, CollectError, Collector, Desc, Entry, Host, HostFile, Options, Samples};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "cgroups", default_on: false, flags: &[], build };

static CGROUPS: Desc =
    Desc::gauge("node_cgroups_cgroups", "Current cgroup number of the subsystem.", &["subsys_name"]);
/// The help text is node_exporter's, a slip of its own.
static ENABLED: Desc =
    Desc::gauge("node_cgroups_enabled", "Current cgroup number of the subsystem.", &["subsys_name"]);

struct Cgroups {
    file: HostFile,
}

fn build(host: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Cgroups { file: HostFile::new(host.proc("cgroups")) }))
}

impl Collector for Cgroups {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let before = out.mark();
        self.file.parse(|text| say(text, out)).inspect_err(|_| out.rewind(before))
    }
}

/// `/proc/cgroups`: a line of names that begins with "#", then "cpuset\t5\t47\t1" for each controller.
fn say(text: &str, out: &mut Samples) -> Result<(), String> {
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, [_, cgroups, enabled]) =
            parse_line(line).ok_or_else(|| format!("expected a name and three numbers, got {line:?}"))?;
        out.push(&CGROUPS, &[name], cgroups as f64);
        out.push(&ENABLED, &[name], enabled as f64);
    }
    Ok(())
}

/// The controller, then its hierarchy, how many cgroups it has, whether it is on.
fn parse_line(line: &str) -> Option<(&str, [i64; 3])> {
    let mut words = line.split_ascii_whitespace();
    let name = words.next()?;
    let mut number = || words.next()?.parse().ok();
    Some((name, [number()?, number()?, number()?]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_has_a_name_and_numbers() {
        assert_eq!(parse_line("cpu,cpuacct\t3\t172\t1"), Some(("cpu,cpuacct", [3, 172, 1])));
        let mut out = Samples::new();
        assert_eq!(say("#subsys_name\thierarchy\tnum_cgroups\tenabled\n", &mut out), Ok(()));
        assert!(out.is_empty());
    }

    #[test]
    fn cut_and_odd_lines_are_refused() {
        for text in ["\n", "cpu\n", "cpu\t3\t172\n", "cpu\t3\tx\t1\n"] {
            assert!(say(text, &mut Samples::new()).is_err(), "{text:?}");
        }
    }
}
