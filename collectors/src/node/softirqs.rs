//! Soft interrupts of each kind that each CPU handled.

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Host, HostFile, Options, Samples, labels::Numbers,
};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "softirqs", default_on: false, flags: &[], build };

static FUNCTIONS: Desc =
    Desc::counter("node_softirqs_functions_total", "Softirq counts per CPU.", &["cpu", "type"]);

/// The kinds that are said.
const KINDS: [&str; 10] =
    ["HI", "TIMER", "NET_TX", "NET_RX", "BLOCK", "IRQ_POLL", "TASKLET", "SCHED", "HRTIMER", "RCU"];

struct Softirqs {
    file: HostFile,
    cpus: Numbers,
}

fn build(host: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Softirqs { file: HostFile::new(host.proc("softirqs")), cpus: Numbers::default() }))
}

impl Collector for Softirqs {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let Self { file, cpus } = self;
        let before = out.mark();
        file.parse(|text| say(text, cpus, out)).inspect_err(|_| out.rewind(before))
    }
}

/// `/proc/softirqs`: a line with the names of the CPUs, then "       TIMER:     424191     108342" for each kind. The
/// label is the column, not the CPU's name: they differ where the numbers of the CPUs have gaps.
fn say(text: &str, cpus: &mut Numbers, out: &mut Samples) -> Result<(), String> {
    let functions = out.family(&FUNCTIONS);
    let mut lines = text.lines();
    let columns = lines.next().ok_or("it is empty")?.split_ascii_whitespace().count();
    for line in lines {
        let Some((kind, counts)) = line.split_once(':') else { continue };
        let Some(kind) = KINDS.iter().find(|known| **known == kind.trim_ascii_start()) else { continue };
        let mut counts = counts.split_ascii_whitespace();
        for (cpu, count) in cpus.first(columns).iter().zip(&mut counts) {
            let count: u64 = count.parse().map_err(|_| format!("expected numbers, got {line:?}"))?;
            out.push_to(functions, &[cpu, kind], count as f64);
        }
        if counts.next().is_some() {
            return Err(format!("expected a number for each CPU, got {line:?}"));
        }
    }
    Ok(())
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
    fn each_column_is_a_cpu() {
        let text = "                    CPU0       CPU2       \n          HI:          7          1\n        ODD: 1 1\n\
                    \n     HRTIMER:         40        346\n";
        let expected = [("0 HI", 7.0), ("1 HI", 1.0), ("0 HRTIMER", 40.0), ("1 HRTIMER", 346.0)];
        assert_eq!(
            said(text).expect("understood"),
            expected.map(|(labels, value)| (labels.to_owned(), value))
        );
    }

    #[test]
    fn odd_lines_are_refused() {
        for text in ["", "CPU0\nHI: x\n", "CPU0\nHI: 1 2\n", "CPU0\nRCU: -1\n"] {
            assert!(said(text).is_err(), "{text:?}");
        }
    }
}
