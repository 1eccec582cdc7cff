//! What uname(2) says of the kernel.

use std::ffi::CStr;

use crate::{BuildError, CollectError, Collector, Desc, Entry, Host, Options, Samples};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "uname", default_on: true, flags: &[], build };

static INFO: Desc = Desc::gauge(
    "node_uname_info",
    "Labeled system information as provided by the uname system call.",
    &["domainname", "machine", "nodename", "release", "sysname", "version"],
);

struct Uname;

fn build(_: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Uname))
}

impl Collector for Uname {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let uname = rustix::system::uname();
        let values = [
            uname.domainname(),
            uname.machine(),
            uname.nodename(),
            uname.release(),
            uname.sysname(),
            uname.version(),
        ]
        .map(CStr::to_string_lossy);
        out.push(&INFO, &values.each_ref().map(AsRef::as_ref), 1.0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collector::Settings;

    #[test]
    fn the_kernel_is_described_by_six_labels() {
        let host = Host::default();
        let mut collector = build(&host, &Options::new(&ENTRY, &Settings::new())).expect("it has no flags");
        let mut out = Samples::new();
        collector.collect(&host, &mut out).expect("uname can't fail");
        let (name, labels, value) = out.iter().next().expect("one sample");
        let labels: Vec<&str> = labels.collect();
        assert_eq!((name, value), ("node_uname_info", 1.0));
        assert_eq!((labels.len(), labels[4]), (6, "Linux"));
    }
}
