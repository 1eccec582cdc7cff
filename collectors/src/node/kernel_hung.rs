//! How many tasks the kernel found hung.

use crate::{BuildError, CollectError, Collector, Desc, Entry, Host, HostFile, Options, Samples};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "kernel_hung", default_on: true, flags: &[], build };

static TASKS: Desc = Desc::counter(
    "node_kernel_hung_tasks_total",
    "Total number of tasks that have been detected as hung since the system booted.",
    &[],
);

struct KernelHung {
    file: HostFile,
}

fn build(host: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(KernelHung { file: HostFile::new(host.proc("sys/kernel/hung_task_detect_count")) }))
}

impl Collector for KernelHung {
    /// The file is there since Linux 6.13, in kernels that look for such tasks.
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let count = self.file.parse(parse_count).map_err(CollectError::missing_is_no_data)?;
        out.push(&TASKS, &[], count as f64);
        Ok(())
    }
}

/// `/proc/sys/kernel/hung_task_detect_count`: "42"
fn parse_count(text: &str) -> Result<u64, String> {
    text.trim().parse().map_err(|_| format!("expected a number, got {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_a_number() {
        assert_eq!(parse_count("42\n"), Ok(42));
        assert!(parse_count("").is_err());
        assert!(parse_count("-1\n").is_err());
    }
}
