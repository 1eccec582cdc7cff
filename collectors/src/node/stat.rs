//! The system-wide lines of `/proc/stat`.

use crate::{BuildError, CollectError, Collector, Desc, Entry, Flag, Host, HostFile, Options, Samples};

/// This collector in the list.
pub const ENTRY: Entry = Entry {
    name: "stat",
    default_on: true,
    flags: &[Flag::bool("stat.softirq", false, "Export softirq calls per vector")],
    build,
};

static LINES: [Desc; 6] = [
    Desc::counter("node_intr_total", "Total number of interrupts serviced.", &[]),
    Desc::counter("node_context_switches_total", "Total number of context switches.", &[]),
    Desc::counter("node_forks_total", "Total number of forks.", &[]),
    Desc::gauge("node_boot_time_seconds", "Node boot time, in unixtime.", &[]),
    Desc::gauge("node_procs_running", "Number of processes in runnable state.", &[]),
    Desc::gauge("node_procs_blocked", "Number of processes blocked waiting for I/O to complete.", &[]),
];

/// The kernel's words for [`LINES`], in the same order.
const WORDS: [&str; LINES.len()] = ["intr", "ctxt", "processes", "btime", "procs_running", "procs_blocked"];

static SOFTIRQS: Desc = Desc::counter("node_softirqs_total", "Number of softirq calls.", &["vector"]);

/// The vectors in the order of the softirq line, after its total.
const VECTORS: [&str; 10] =
    ["hi", "timer", "net_tx", "net_rx", "block", "block_iopoll", "tasklet", "sched", "hrtimer", "rcu"];

struct Stat {
    file: HostFile,
    softirq: bool,
}

fn build(host: &Host, options: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Stat { file: HostFile::new(host.proc("stat")), softirq: options.is_on("stat.softirq") }))
}

impl Collector for Stat {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let stat = self.file.parse(parse_stat)?;
        for (desc, value) in LINES.iter().zip(stat.lines) {
            out.push(desc, &[], value as f64);
        }
        if self.softirq {
            for (vector, count) in VECTORS.iter().zip(stat.softirqs) {
                out.push(&SOFTIRQS, &[vector], count as f64);
            }
        }
        Ok(())
    }
}

#[derive(Debug, Default, PartialEq)]
struct Counts {
    /// As [`LINES`]; 0 where the kernel has no such line.
    lines: [u64; LINES.len()],
    /// As [`VECTORS`].
    softirqs: [u64; VECTORS.len()],
}

/// `/proc/stat`: "ctxt 38014093", "intr 8885917 17 0 ..." with the total first, "softirq 5057579 250191 ..." as well.
fn parse_stat(text: &str) -> Result<Counts, String> {
    let mut counts = Counts::default();
    let mut known = false;
    for line in text.lines() {
        let Some((word, rest)) = line.split_once(' ') else { continue };
        let bad = || format!("expected numbers after {word:?}");
        if let Some(at) = WORDS.iter().position(|&known| known == word) {
            counts.lines[at] = first_number(rest).ok_or_else(bad)?;
            known = true;
        } else if word == "softirq" {
            counts.softirqs = parse_softirqs(rest).ok_or_else(bad)?;
        }
    }
    if known { Ok(counts) } else { Err("it has none of the system-wide lines".into()) }
}

fn first_number(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

fn parse_softirqs(text: &str) -> Option<[u64; VECTORS.len()]> {
    let mut counts = [0; VECTORS.len()];
    let mut words = text.split_ascii_whitespace().skip(1);
    for count in &mut counts {
        *count = words.next()?.parse().ok()?;
    }
    Some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_the_first_number_of_their_line() {
        let text = "cpu  1 2 3 4\nintr 8885917 17 0 0\nctxt 38014093\nbtime 1418183276\nprocesses 26442\n\
                    procs_running 2\nprocs_blocked 1\nsoftirq 55 1 2 3 4 5 6 7 8 9 10\n";
        let counts = parse_stat(text).expect("understood");
        assert_eq!(counts.lines, [8_885_917, 38_014_093, 26_442, 1_418_183_276, 2, 1]);
        assert_eq!(counts.softirqs, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    }

    #[test]
    fn odd_text_is_refused() {
        for text in ["", "cpu 1 2\n", "ctxt x\n", "ctxt \n", "ctxt 1\nsoftirq 1 2 3\n"] {
            assert!(parse_stat(text).is_err(), "{text:?}");
        }
    }
}
