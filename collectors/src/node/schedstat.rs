//! How long tasks ran on each CPU, and how long they waited for it.

use crate::{BuildError, CollectError, Collector, Desc, Entry, Host, HostFile, Options, Samples};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "schedstat", default_on: true, flags: &[], build };

static RUNNING: Desc = Desc::counter(
    "node_schedstat_running_seconds_total",
    "Number of seconds CPU spent running a process.",
    &["cpu"],
);
static WAITING: Desc = Desc::counter(
    "node_schedstat_waiting_seconds_total",
    "Number of seconds spent by processing waiting for this CPU.",
    &["cpu"],
);
static TIMESLICES: Desc =
    Desc::counter("node_schedstat_timeslices_total", "Number of timeslices executed by CPU.", &["cpu"]);

const NANOSECONDS: f64 = 1e9;

struct Schedstat {
    file: HostFile,
}

fn build(host: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Schedstat { file: HostFile::new(host.proc("schedstat")) }))
}

impl Collector for Schedstat {
    /// The file is there only in kernels built with CONFIG_SCHEDSTATS.
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let text = self.file.read().map_err(CollectError::missing_is_no_data)?;
        let [running, waiting, timeslices] = [&RUNNING, &WAITING, &TIMESLICES].map(|desc| out.family(desc));
        for cpu in text.lines().filter_map(parse_cpu) {
            out.push_to(running, &[cpu.name], cpu.running as f64 / NANOSECONDS);
            out.push_to(waiting, &[cpu.name], cpu.waiting as f64 / NANOSECONDS);
            out.push_to(timeslices, &[cpu.name], cpu.timeslices as f64);
        }
        Ok(())
    }
}

#[derive(Debug, PartialEq)]
struct Cpu<'a> {
    name: &'a str,
    running: u64,
    waiting: u64,
    timeslices: u64,
}

/// "cpu0 498494191 0 3533438552 2553969831 3853684107 2465731542 2045936778163039 343796328169361 4767485306"; the
/// last three are the nanoseconds running and waiting, and how often a task got the CPU. The other lines are about
/// scheduling domains.
fn parse_cpu(line: &str) -> Option<Cpu<'_>> {
    let (name, numbers) = line.strip_prefix("cpu")?.split_once(' ')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let mut words = numbers.split_ascii_whitespace();
    for _ in 0..6 {
        words.next().filter(|word| is_number(word))?;
    }
    let mut number = || words.next()?.parse().ok();
    let (running, waiting, timeslices) = (number()?, number()?, number()?);
    is_number(name).then_some(Cpu { name, running, waiting, timeslices })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_three_numbers_are_those_of_the_tasks() {
        let expected = Cpu { name: "17", running: 7, waiting: 8, timeslices: 9 };
        assert_eq!(parse_cpu("cpu17 1 2 3 4 5 6 7 8 9"), Some(expected));
    }

    #[test]
    fn other_lines_and_cut_ones_are_passed_over() {
        for line in [
            "",
            "version 15",
            "domain0 00000000,00000003 1 2 3 4 5 6 7 8 9 10",
            "cpu 1 2 3 4 5 6 7 8 9",
            "cpu0 1 2 3 4 5 6 7 8",
            "cpu0 1 2 3 4 5 6 7 8 x",
            "cpu0 x 2 3 4 5 6 7 8 9",
            "cpux 1 2 3 4 5 6 7 8 9",
        ] {
            assert_eq!(parse_cpu(line), None, "{line:?}");
        }
    }
}
