//! Interrupts that each CPU handled, by line.

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Flag, Host, HostFile, Options, Samples, filter::Filter,
    labels::Numbers,
};

/// This collector in the list.
pub const ENTRY: Entry = Entry {
    name: "interrupts",
    default_on: false,
    flags: &[
        Flag::regex(
            "interrupts.name-include",
            "",
            "Regexp of interrupts name to include (mutually exclusive to --collector.interrupts.name-exclude).",
        ),
        Flag::regex(
            "interrupts.name-exclude",
            "",
            "Regexp of interrupts name to exclude (mutually exclusive to --collector.interrupts.name-include).",
        ),
        Flag::bool("interrupts.include-zeros", true, "Include interrupts that have a zero value"),
    ],
    build,
};

static INTERRUPTS: Desc =
    Desc::counter("node_interrupts_total", "Interrupt details.", &["cpu", "devices", "info", "type"]);

struct Interrupts {
    file: HostFile,
    table: Table,
}

struct Table {
    filter: Filter,
    include_zeros: bool,
    cpus: Numbers,
    /// What was made of the lines of the last scrape: they change when a device comes or goes.
    lines: Vec<Line>,
    /// The places of the lines that are said, in the order of the page.
    order: Vec<usize>,
    /// The numbers of all lines, one line after the other.
    counts: Vec<u64>,
}

/// The labels of an interrupt.
struct Line {
    name: String,
    /// What stands behind the numbers, as the kernel wrote it.
    details: String,
    info: String,
    devices: String,
    ignored: bool,
}

fn build(host: &Host, options: &Options) -> Result<Box<dyn Collector>, BuildError> {
    let filter = Filter::both(options, "interrupts.name-include", "interrupts.name-exclude")?;
    let table = Table::new(filter, options.is_on("interrupts.include-zeros"));
    Ok(Box::new(Interrupts { file: HostFile::new(host.proc("interrupts")), table }))
}

impl Collector for Interrupts {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let Self { file, table } = self;
        let before = out.mark();
        file.parse(|text| table.say(text, out)).inspect_err(|_| out.rewind(before))
    }
}

impl Table {
    fn new(filter: Filter, include_zeros: bool) -> Self {
        let (cpus, lines, order, counts) = Default::default();
        Self { filter, include_zeros, cpus, lines, order, counts }
    }

    /// `/proc/interrupts`: a line with the names of the CPUs that are online, then for each interrupt
    /// " 16:     328511     322879  IR-IO-APIC-fasteoi   ehci_hcd:usb1, mmc0" or
    /// "NMI:         47       5031   Non-maskable interrupts". Lines without details, ERR and MIS, are left out. The label
    /// is the column, not the CPU's name: they differ where a CPU is offline.
    fn say(&mut self, text: &str, out: &mut Samples) -> Result<(), String> {
        let mut lines = text.lines();
        let columns = lines.next().ok_or("it is empty")?.split_ascii_whitespace().count();
        self.read(lines, columns)?;
        let Self { include_zeros, cpus, lines, order, counts, .. } = self;
        let interrupts = out.family(&INTERRUPTS);
        // A CPU after the other, though the kernel writes an interrupt after the other: it is the order of the page.
        for (column, cpu) in cpus.first_by_text(columns) {
            for &at in &*order {
                let (Some(line), Some(&count)) = (lines.get(at), counts.get(at * columns + column)) else {
                    continue;
                };
                if *include_zeros || count != 0 {
                    out.push_to(interrupts, &[cpu, &line.devices, &line.info, &line.name], count as f64);
                }
            }
        }
        Ok(())
    }

    /// Takes over the lines as they are now.
    fn read<'a>(&mut self, lines: impl Iterator<Item = &'a str>, columns: usize) -> Result<(), String> {
        self.counts.clear();
        let mut at = 0;
        let mut is_new = false;
        for line in lines {
            let Some((name, rest)) = line.split_once(':') else { continue };
            let start = self.counts.len();
            let Some(details) = take_counts(rest, columns, &mut self.counts) else {
                self.counts.truncate(start);
                continue;
            };
            is_new |= self.know(at, name.trim_start_matches(' '), details);
            if self.counts.len() != start + columns {
                if self.lines.get(at).is_none_or(|line| !line.ignored) {
                    self.forget();
                    return Err(format!("expected a number for each CPU, got {line:?}"));
                }
                self.counts.resize(start + columns, 0);
            }
            at += 1;
        }
        if is_new || self.lines.len() != at {
            self.lines.truncate(at);
            self.sort();
        }
        Ok(())
    }

    /// Has the labels of the line at place `at` ready; whether they had to be made.
    fn know(&mut self, at: usize, name: &str, details: &str) -> bool {
        let is_known = |known: &Line| known.name == name && known.details == details;
        let is_new = !self.lines.get(at).is_some_and(is_known);
        if is_new {
            self.lines.truncate(at);
            self.lines.push(describe(name, details, &self.filter));
        }
        is_new
    }

    fn sort(&mut self) {
        let said = self.lines.iter().enumerate().filter(|(_, line)| !line.ignored);
        let mut said: Vec<(usize, &Line)> = said.collect();
        said.sort_by_key(|(_, line)| (&line.devices, &line.info, &line.name));
        self.order = said.into_iter().map(|(at, _)| at).collect();
    }

    /// The next scrape begins anew: this one's lines were not read to the end.
    fn forget(&mut self) {
        self.lines.clear();
        self.order.clear();
    }
}

/// Interrupts with a number have a chip and devices; the others, of the architecture, a description.
fn describe(name: &str, details: &str, filter: &Filter) -> Line {
    let words: Vec<&str> = details.split_ascii_whitespace().collect();
    let (info, devices) = match words.split_first() {
        Some((chip, devices)) if name.parse::<i64>().is_ok() => ((*chip).to_owned(), devices.join(" ")),
        _ => (words.join(" "), String::new()),
    };
    let ignored = filter.ignores(&format!("{name};{info};{devices}"));
    Line { name: name.to_owned(), details: details.to_owned(), info, devices, ignored }
}

/// Adds the first `columns` words to `counts` and gives what is behind them; `None` where nothing is. A word that is no
/// number is not added, so that there are too few of them.
fn take_counts<'a>(text: &'a str, columns: usize, counts: &mut Vec<u64>) -> Option<&'a str> {
    let mut rest = text.trim_ascii_start();
    for _ in 0..columns {
        let end = rest.bytes().position(|byte| byte.is_ascii_whitespace())?;
        let (word, behind) = rest.split_at_checked(end)?;
        counts.extend(word.parse::<u64>().ok());
        rest = behind.trim_ascii_start();
    }
    (!rest.is_empty()).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "            CPU0       CPU2       \n";

    fn said(text: &str, table: &mut Table) -> Result<Vec<String>, String> {
        let mut out = Samples::new();
        table.say(&format!("{HEADER}{text}"), &mut out)?;
        Ok(out
            .iter()
            .map(|(_, labels, value)| format!("{} {value}", labels.collect::<Vec<_>>().join("|")))
            .collect())
    }

    fn table() -> Table {
        Table::new(Filter::default(), true)
    }

    #[test]
    fn numbered_lines_have_devices_and_the_others_a_description() {
        let text = "  16:     328511          0  IR-IO-APIC   16-fasteoi   ehci_hcd:usb1, mmc0\n\
                    NMI:          0          7   Non-maskable interrupts\nERR:          3\nMIS:          0\n";
        let expected = [
            "0||Non-maskable interrupts|NMI 0",
            "0|16-fasteoi ehci_hcd:usb1, mmc0|IR-IO-APIC|16 328511",
            "1||Non-maskable interrupts|NMI 7",
            "1|16-fasteoi ehci_hcd:usb1, mmc0|IR-IO-APIC|16 0",
        ];
        let mut table = table();
        assert_eq!(said(text, &mut table).expect("understood"), expected);
        assert_eq!(said(text, &mut table).expect("understood"), expected);
        table.include_zeros = false;
        assert_eq!(said(text, &mut table).expect("understood"), [expected[1], expected[2]]);
    }

    #[test]
    fn names_and_numbers_may_touch() {
        let said = said("IPI0:1234567890 1  Rescheduling interrupts\n", &mut table()).expect("understood");
        assert_eq!(said[0], "0||Rescheduling interrupts|IPI0 1234567890");
    }

    #[test]
    fn lines_that_change_are_noticed() {
        let mut table = table();
        for (text, expected) in [
            ("1: 1 1 chip a\n2: 1 1 chip b\n", ["0|a|chip|1 1", "0|b|chip|2 1"]),
            ("1: 1 1 chip a, c\n2: 1 1 chip b\n", ["0|a, c|chip|1 1", "0|b|chip|2 1"]),
            ("2: 1 1 chip b\n3: 1 1 chip\n", ["0||chip|3 1", "0|b|chip|2 1"]),
        ] {
            let said = said(text, &mut table).expect("understood");
            assert_eq!(said[..2], expected);
        }
        assert_eq!(said("", &mut table).expect("understood"), Vec::<String>::new());
        assert!(table.lines.is_empty());
    }

    #[test]
    fn lines_can_be_left_out_by_what_they_say() {
        let settings =
            crate::Settings::from([("interrupts.name-exclude".to_owned(), vec!["^2;chip;b$".to_owned()])]);
        let filter = Filter::both(
            &Options::new(&ENTRY, &settings),
            "interrupts.name-include",
            "interrupts.name-exclude",
        );
        let mut table = Table::new(filter.expect("a valid pattern"), true);
        let said = said("1: 1 1 chip b\n2: x 1 chip b\n", &mut table).expect("understood");
        assert_eq!(said, ["0|b|chip|1 1", "1|b|chip|1 1"]);
    }

    #[test]
    fn odd_text_is_refused() {
        assert!(table().say("", &mut Samples::new()).is_err());
        assert!(said("1: 1 x chip a\n", &mut table()).is_err());
        assert!(said("1: 1 -1 chip a\n", &mut table()).is_err());
        let mut table = table();
        let whole = "1: 1 1 chip a\n2: 1 2 chip b\n";
        let before = said(whole, &mut table).expect("understood");
        assert!(said("1: 1 1 chip a\n2: 1 x chip b\n", &mut table).is_err());
        assert_eq!(said(whole, &mut table).expect("understood"), before);
    }
}
