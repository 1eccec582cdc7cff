//! Flaws of the processor and what the kernel does about them.

use std::io;

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Host, Options, Samples,
    sysfs::{self, Buffer, Directory},
};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "cpu_vulnerabilities", default_on: false, flags: &[], build };

static INFO: Desc = Desc::gauge(
    "node_cpu_vulnerabilities_info",
    "Details of each CPU vulnerability reported by sysfs. The value of the series is an int encoded state of the vulnerability. The same state is stored as a string in the label",
    &["codename", "mitigation", "state"],
);

#[derive(Default)]
struct CpuVulnerabilities {
    buffer: Buffer,
}

fn build(_: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(CpuVulnerabilities::default()))
}

impl Collector for CpuVulnerabilities {
    fn collect(&mut self, host: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let path = host.sys("devices/system/cpu/vulnerabilities");
        let directory = match Directory::open(&path) {
            // A kernel that does not tell.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(|source| CollectError::Read { path: path.clone(), source })?,
        };
        let mut result = Ok(());
        for name in sysfs::entries(&path)? {
            match directory.read(&name, &mut self.buffer) {
                Ok(text) => {
                    let (state, mitigation) = parse(text);
                    out.push(&INFO, &[&name, &mitigation, state], 1.0);
                }
                Err(source) => result = Err(CollectError::Read { path: path.join(&name), source }),
            }
        }
        result
    }
}

/// "Mitigation: PTE Inversion; VMX: flush": the state, then what is behind its first word. A text that begins with no
/// state is said whole.
fn parse(text: &str) -> (&'static str, String) {
    let begins =
        |state: &str| text.get(..state.len()).is_some_and(|beginning| beginning.eq_ignore_ascii_case(state));
    if begins("not affected") {
        return ("not affected", String::new());
    }
    for state in ["vulnerable", "mitigation", "unknown"] {
        if begins(state) {
            return (state, text.split_whitespace().skip(1).collect::<Vec<_>>().join(" "));
        }
    }
    ("unknown", text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_first_word_is_the_state() {
        for (text, state, mitigation) in [
            ("Not affected", "not affected", ""),
            ("Vulnerable", "vulnerable", ""),
            ("Vulnerable: No  microcode", "vulnerable", "No microcode"),
            ("Mitigation: PTE Inversion; VMX: flush", "mitigation", "PTE Inversion; VMX: flush"),
            ("Unknown: Dependent on hypervisor status", "unknown", "Dependent on hypervisor status"),
            ("KVM: Mitigation: VMX disabled", "unknown", "KVM: Mitigation: VMX disabled"),
            ("", "unknown", ""),
            ("notaffecté", "unknown", "notaffecté"),
        ] {
            assert_eq!(parse(text), (state, mitigation.to_owned()), "{text:?}");
        }
    }

    #[test]
    fn one_that_can_not_be_read_does_not_hide_the_others() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let path = root.path().join("devices/system/cpu/vulnerabilities");
        fs::create_dir_all(path.join("mds")).expect("made");
        fs::write(path.join("l1tf"), "Not affected\n").expect("written");
        let host = Host { sysfs: root.path().into(), ..Host::default() };
        let mut out = Samples::new();
        let error = CpuVulnerabilities::default().collect(&host, &mut out).expect_err("a directory");
        assert!(error.to_string().contains("/mds"), "{error}");
        assert_eq!(out.len(), 1);
    }

    #[test]
    fn a_kernel_that_does_not_tell_says_nothing() {
        let host = Host { sysfs: "/nonexistent".into(), ..Host::default() };
        let mut out = Samples::new();
        CpuVulnerabilities::default().collect(&host, &mut out).expect("nothing is no error");
        assert!(out.is_empty());
    }
}
