//! What each CPU did with the packets that the network devices gave it.

use crate::{BuildError, CollectError, Collector, Desc, Entry, Host, HostFile, Options, Samples};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "softnet", default_on: true, flags: &[], build };

/// A column of `/proc/net/softnet_stat`, counted from 0, and its family.
struct Column(usize, Desc);

static COLUMNS: [Column; 7] = [
    Column(0, Desc::counter("node_softnet_processed_total", "Number of processed packets", &["cpu"])),
    Column(1, Desc::counter("node_softnet_dropped_total", "Number of dropped packets", &["cpu"])),
    Column(
        2,
        Desc::counter(
            "node_softnet_times_squeezed_total",
            "Number of times processing packets ran out of quota",
            &["cpu"],
        ),
    ),
    Column(
        8,
        Desc::counter(
            "node_softnet_cpu_collision_total",
            "Number of collision occur while obtaining device lock while transmitting",
            &["cpu"],
        ),
    ),
    Column(
        9,
        Desc::counter(
            "node_softnet_received_rps_total",
            "Number of times cpu woken up received_rps",
            &["cpu"],
        ),
    ),
    Column(
        10,
        Desc::counter(
            "node_softnet_flow_limit_count_total",
            "Number of times flow limit has been reached",
            &["cpu"],
        ),
    ),
    Column(11, Desc::gauge("node_softnet_backlog_len", "Softnet backlog status", &["cpu"])),
];

/// The column with the number of the CPU, since Linux 5.14; before, the lines are those of the CPUs in order.
const CPU: usize = 12;
const MOST_COLUMNS: usize = CPU + 1;
/// What Linux 2.6.23 had.
const FEWEST_COLUMNS: usize = 9;

struct Softnet {
    file: HostFile,
    cpus: Cpus,
}

/// For each line the number of its CPU, and the same as a label.
#[derive(Default)]
struct Cpus(Vec<(u32, String)>);

fn build(host: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Softnet { file: HostFile::new(host.proc("net/softnet_stat")), cpus: Cpus::default() }))
}

impl Collector for Softnet {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let Self { file, cpus } = self;
        let before = out.mark();
        file.parse(|text| say(text, cpus, out)).inspect_err(|_| out.rewind(before))
    }
}

impl Cpus {
    fn label(&mut self, line: usize, cpu: u32) -> &str {
        if self.0.get(line).is_none_or(|(known, _)| *known != cpu) {
            self.0.truncate(line);
            self.0.push((cpu, cpu.to_string()));
        }
        self.0.get(line).map_or("", |(_, label)| label)
    }
}

/// `/proc/net/softnet_stat`: "00551c3f 00000000 00000055 ..." for each CPU that is online.
fn say(text: &str, cpus: &mut Cpus, out: &mut Samples) -> Result<(), String> {
    let families = COLUMNS.each_ref().map(|Column(_, desc)| out.family(desc));
    for (at, line) in text.lines().enumerate() {
        let (numbers, width) = parse_line(line)
            .ok_or_else(|| format!("expected 9 or more hexadecimal numbers, got {line:?}"))?;
        // A kernel that gives one of the two columns gives both.
        let (numbers, cpu) = if width > CPU {
            (numbers, numbers[CPU])
        } else {
            let mut older = numbers;
            older[CPU - 1] = 0;
            (older, at as u32)
        };
        let label = cpus.label(at, cpu);
        for (family, Column(column, _)) in families.iter().zip(&COLUMNS) {
            out.push_to(*family, &[label], f64::from(numbers[*column]));
        }
    }
    Ok(())
}

/// The columns that are known, 0 where the kernel has no such column, and how many there were.
fn parse_line(line: &str) -> Option<([u32; MOST_COLUMNS], usize)> {
    let mut numbers = [0; MOST_COLUMNS];
    let mut width = 0;
    for (number, word) in numbers.iter_mut().zip(line.split_ascii_whitespace()) {
        *number = u32::from_str_radix(word, 16).ok()?;
        width += 1;
    }
    (width >= FEWEST_COLUMNS).then_some((numbers, width))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str, cpus: &mut Cpus) -> Result<Vec<String>, String> {
        let mut out = Samples::new();
        say(text, cpus, &mut out)?;
        let line = |(name, mut labels, value): (&str, crate::samples::LabelValues, f64)| {
            let name = name.trim_start_matches("node_softnet_");
            format!("{name} {} {value}", labels.next().unwrap_or_default())
        };
        Ok(out.iter().map(line).collect())
    }

    #[test]
    fn the_kernel_says_which_cpu_a_line_is_of() {
        let text = "0000000a 00000001 00000002 0 0 0 0 0 00000003 00000004 00000005 00000006 00000000 0 0\n\
                    0000000b 0 0 0 0 0 0 0 0 0 0 0 00000002 0 0\n";
        let mut cpus = Cpus::default();
        for _ in 0..2 {
            let said = said(text, &mut cpus).expect("understood");
            assert_eq!(
                said[..7],
                [
                    "processed_total 0 10",
                    "dropped_total 0 1",
                    "times_squeezed_total 0 2",
                    "cpu_collision_total 0 3",
                    "received_rps_total 0 4",
                    "flow_limit_count_total 0 5",
                    "backlog_len 0 6"
                ]
            );
            assert_eq!(said[7], "processed_total 2 11");
        }
    }

    #[test]
    fn cpus_that_come_and_go_are_noticed() {
        let line = |cpu: &str| format!("1 0 0 0 0 0 0 0 0 0 0 0 {cpu}\n");
        let mut cpus = Cpus::default();
        for order in [["0", "1"], ["0", "2"], ["1", "2"]] {
            let said = said(&order.map(line).concat(), &mut cpus).expect("understood");
            let found = [&said[0], &said[7]];
            assert_eq!(
                found,
                [&format!("processed_total {} 1", order[0]), &format!("processed_total {} 1", order[1])]
            );
        }
    }

    #[test]
    fn older_kernels_have_fewer_columns_and_count_the_lines() {
        let said =
            said("1 0 0 0 0 0 0 0 1\n2 0 0 0 0 0 0 0 1 3 4 5\n", &mut Cpus::default()).expect("understood");
        assert_eq!(
            said[7..],
            [
                "processed_total 1 2",
                "dropped_total 1 0",
                "times_squeezed_total 1 0",
                "cpu_collision_total 1 1",
                "received_rps_total 1 3",
                "flow_limit_count_total 1 4",
                "backlog_len 1 0"
            ]
        );
    }

    #[test]
    fn cut_and_odd_lines_are_refused() {
        for text in ["1 2 3 4 5 6 7 8\n", "\n", "x 0 0 0 0 0 0 0 0\n", "1ffffffff 0 0 0 0 0 0 0 0\n"] {
            assert!(said(text, &mut Cpus::default()).is_err(), "{text:?}");
        }
    }
}
