//! Pressure stall information: how long tasks have waited for CPU, I/O, memory and interrupts.

use std::io;

use rustix::io::Errno;

use crate::{BuildError, CollectError, Collector, Desc, Entry, Host, HostFile, Options, Samples};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "pressure", default_on: true, flags: &[], build };

/// A file under `/proc/pressure`, and the families of its two lines.
struct Resource {
    name: &'static str,
    some: Option<Desc>,
    full: Option<Desc>,
}

static RESOURCES: [Resource; 4] = [
    Resource {
        name: "cpu",
        some: Some(Desc::counter(
            "node_pressure_cpu_waiting_seconds_total",
            "Total time in seconds that processes have waited for CPU time",
            &[],
        )),
        full: None,
    },
    Resource {
        name: "io",
        some: Some(Desc::counter(
            "node_pressure_io_waiting_seconds_total",
            "Total time in seconds that processes have waited due to IO congestion",
            &[],
        )),
        full: Some(Desc::counter(
            "node_pressure_io_stalled_seconds_total",
            "Total time in seconds no process could make progress due to IO congestion",
            &[],
        )),
    },
    Resource {
        name: "memory",
        some: Some(Desc::counter(
            "node_pressure_memory_waiting_seconds_total",
            "Total time in seconds that processes have waited for memory",
            &[],
        )),
        full: Some(Desc::counter(
            "node_pressure_memory_stalled_seconds_total",
            "Total time in seconds no process could make progress due to memory congestion",
            &[],
        )),
    },
    Resource {
        name: "irq",
        some: None,
        full: Some(Desc::counter(
            "node_pressure_irq_stalled_seconds_total",
            "Total time in seconds no process could make progress due to IRQ congestion",
            &[],
        )),
    },
];

struct Pressure {
    files: Vec<(&'static Resource, HostFile)>,
}

fn build(host: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    let file = |resource: &Resource| HostFile::new(host.proc("pressure").join(resource.name));
    Ok(Box::new(Pressure { files: RESOURCES.iter().map(|resource| (resource, file(resource))).collect() }))
}

impl Collector for Pressure {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut found = false;
        for (resource, file) in &mut self.files {
            match file.parse(parse_pressure) {
                Ok(totals) => say(resource, &totals, out)?,
                Err(CollectError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    continue;
                }
                // The kernel has PSI, but it was not turned on at boot (psi=1).
                Err(CollectError::Read { source, .. })
                    if Errno::from_io_error(&source) == Some(Errno::OPNOTSUPP) =>
                {
                    return Err(CollectError::NoData);
                }
                Err(error) => return Err(error),
            }
            found = true;
        }
        if found { Ok(()) } else { Err(CollectError::NoData) }
    }
}

fn say(resource: &'static Resource, totals: &Totals, out: &mut Samples) -> Result<(), CollectError> {
    for (desc, total) in [(&resource.some, totals.some), (&resource.full, totals.full)] {
        if let Some(desc) = desc {
            let microseconds = total.ok_or(CollectError::NoData)?;
            // Two divisions, as node_exporter does: one by a million rounds otherwise in the last digit.
            out.push(desc, &[], microseconds as f64 / 1000.0 / 1000.0);
        }
    }
    Ok(())
}

/// Microseconds in which some, or all, tasks were stalled.
#[derive(Debug, Default, PartialEq)]
struct Totals {
    some: Option<u64>,
    full: Option<u64>,
}

/// `/proc/pressure/io`: "some avg10=0.10 avg60=2.00 avg300=3.85 total=15", then the same with "full".
fn parse_pressure(text: &str) -> Result<Totals, String> {
    let mut totals = Totals::default();
    for line in text.lines() {
        let Some((word, rest)) = line.split_once(' ') else { continue };
        let slot = match word {
            "some" => &mut totals.some,
            "full" => &mut totals.full,
            _ => continue,
        };
        let total = rest.split_ascii_whitespace().find_map(|field| field.strip_prefix("total="));
        let total = total.and_then(|total| total.parse().ok());
        *slot = Some(total.ok_or_else(|| format!("expected total=MICROSECONDS in {line:?}"))?);
    }
    Ok(totals)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_of_both_lines_are_read() {
        let text = "some avg10=0.10 avg60=2.00 avg300=3.85 total=15\nfull avg10=0.20 avg60=3.00 avg300=4.95 total=7\n";
        assert_eq!(parse_pressure(text), Ok(Totals { some: Some(15), full: Some(7) }));
    }

    #[test]
    fn unknown_and_missing_lines_are_left_out() {
        assert_eq!(parse_pressure(""), Ok(Totals::default()));
        assert_eq!(parse_pressure("most total=1\nfull total=2\n"), Ok(Totals { some: None, full: Some(2) }));
    }

    #[test]
    fn a_line_without_a_total_is_refused() {
        assert!(parse_pressure("some avg10=0.10\n").is_err());
        assert!(parse_pressure("some avg10=0.10 total=x\n").is_err());
    }

    #[test]
    fn a_kernel_without_pressure_files_has_no_data() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let host = Host { procfs: dir.path().into(), ..Host::default() };
        let settings = crate::Settings::new();
        let mut collector = build(&host, &Options::new(&ENTRY, &settings)).expect("it has no flags");
        let error = collector.collect(&host, &mut Samples::new()).expect_err("nothing is there");
        assert!(matches!(error, CollectError::NoData));
    }
}
