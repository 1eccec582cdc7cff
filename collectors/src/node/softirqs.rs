//! Soft interrupts of each kind that each CPU handled.

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Host, HostFile, Options, Samples, labels::Numbers,
};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "softirqs", default_on: false, flags: &[], build };

static FUNCTIONS: Desc =
    Desc::counter("node_softirqs_functions_total", "Softirq counts per CPU.", &["cpu", "type"]);

/// The kinds that are said, in the order of the page.
const KINDS: [&str; 10] =
    ["BLOCK", "HI", "HRTIMER", "IRQ_POLL", "NET_RX", "NET_TX", "RCU", "SCHED", "TASKLET", "TIMER"];

struct Softirqs {
    file: HostFile,
    table: Table,
}

#[derive(Default)]
struct Table {
    cpus: Numbers,
    /// Of each kind the count of each CPU, as far as the kernel gives them.
    counts: [Vec<u64>; KINDS.len()],
}

fn build(host: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Softirqs { file: HostFile::new(host.proc("softirqs")), table: Table::default() }))
}

impl Collector for Softirqs {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let Self { file, table } = self;
        file.parse(|text| table.read(text))?;
        table.say(out);
        Ok(())
    }
}

impl Table {
    /// `/proc/softirqs`: a line with the names of the CPUs, then "       TIMER:     424191     108342" for each kind.
    fn read(&mut self, text: &str) -> Result<(), String> {
        self.counts.iter_mut().for_each(Vec::clear);
        let mut lines = text.lines();
        lines.next().ok_or("it is empty")?;
        for line in lines {
            let Some((kind, numbers)) = line.split_once(':') else { continue };
            let at = KINDS.iter().position(|known| *known == kind.trim_ascii_start());
            let Some(counts) = at.and_then(|at| self.counts.get_mut(at)) else { continue };
            counts.clear();
            for number in numbers.split_ascii_whitespace() {
                counts.push(number.parse().map_err(|_| format!("expected numbers, got {line:?}"))?);
            }
        }
        Ok(())
    }

    /// The label is the column, not the CPU's name: they differ where the numbers of the CPUs have gaps.
    fn say(&mut self, out: &mut Samples) {
        let functions = out.family(&FUNCTIONS);
        let columns = self.counts.iter().map(Vec::len).max().unwrap_or_default();
        for (column, cpu) in self.cpus.first_by_text(columns) {
            for (kind, counts) in KINDS.iter().zip(&self.counts) {
                if let Some(count) = counts.get(column) {
                    out.push_to(functions, &[cpu, kind], *count as f64);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Result<Vec<(String, f64)>, String> {
        let mut out = Samples::new();
        let mut table = Table::default();
        table.read(text)?;
        table.say(&mut out);
        Ok(out.iter().map(|(_, labels, value)| (labels.collect::<Vec<_>>().join(" "), value)).collect())
    }

    #[test]
    fn each_column_is_a_cpu() {
        let text = "                    CPU0       CPU2       \n          HI:          7          1\n        ODD: 1 1\n\
                    \n     HRTIMER:         40        346\n";
        let expected = [("0 HI", 7.0), ("0 HRTIMER", 40.0), ("1 HI", 1.0), ("1 HRTIMER", 346.0)];
        assert_eq!(
            said(text).expect("understood"),
            expected.map(|(labels, value)| (labels.to_owned(), value))
        );
    }

    #[test]
    fn odd_lines_are_refused() {
        for text in ["", "CPU0\nHI: x\n", "CPU0\nRCU: -1\n"] {
            assert!(said(text).is_err(), "{text:?}");
        }
    }
}
