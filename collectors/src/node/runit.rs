//! The services that runit supervises.

use std::path::PathBuf;

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Flag, Host, Options, Samples,
    host::{Stamp, list_dir_but_files, read_bytes},
};

/// This collector in the list.
pub const ENTRY: Entry = Entry {
    name: "runit",
    default_on: false,
    flags: &[Flag::text("runit.servicedir", "/etc/service", "Path to runit service directory.")],
    build,
};

static STATE: Desc = Desc::gauge("node_service_state", "State of runit service.", LABELS);
static DESIRED: Desc = Desc::gauge("node_service_desired_state", "Desired state of runit service.", LABELS);
static NORMAL: Desc = Desc::gauge("node_service_normal_state", "Normal state of runit service.", LABELS);
static CHANGED: Desc = Desc::gauge(
    "node_service_state_last_change_timestamp_seconds",
    "Unix timestamp of the last runit service state change.",
    LABELS,
);

const LABELS: &[&str] = &["service", "supervisor"];

struct Runit {
    directory: PathBuf,
}

/// What `runsv` says of its service.
#[derive(Debug, PartialEq)]
struct Status {
    /// Seconds since the epoch.
    changed: i64,
    is_wanted: bool,
    /// 0 down, 1 up, 2 finishing.
    state: u8,
}

fn build(_: &Host, options: &Options) -> Result<Box<dyn Collector>, BuildError> {
    tracing::warn!("the runit collector is deprecated, as node_exporter's is");
    let directory = match options.text("runit.servicedir") {
        "" => "/etc/service",
        directory => directory,
    };
    Ok(Box::new(Runit { directory: directory.into() }))
}

impl Collector for Runit {
    /// A service whose status can't be read is left out. `runsv` puts a new file in place of the old one at each change,
    /// so none is kept open.
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        for service in list_dir_but_files(&self.directory)? {
            let supervise = self.directory.join(&service).join("supervise");
            let Ok(bytes) = read_bytes(&supervise.join("status")) else { continue };
            let Some(status) = parse(&bytes) else { continue };
            let labels = [service.as_str(), "runit"];
            out.push(&STATE, &labels, f64::from(status.state));
            out.push(&DESIRED, &labels, f64::from(u8::from(status.is_wanted)));
            out.push(&CHANGED, &labels, status.changed as f64);
            let is_normally_up = Stamp::of(&supervise.join("down")).is_err();
            out.push(&NORMAL, &labels, f64::from(u8::from(is_normally_up)));
        }
        Ok(())
    }
}

/// The 20 bytes of `supervise/status`: when the state changed as TAI64N (8 bytes of seconds, 4 of nanoseconds), the process
/// (4), whether it is paused, what is wanted ('u' or 'd'), whether TERM was sent, the state.
fn parse(bytes: &[u8]) -> Option<Status> {
    /// The label of 1970 in TAI64, with the leap seconds until then.
    const EPOCH: i64 = (1 << 62) + 10;

    let &[s0, s1, s2, s3, s4, s5, s6, s7, _, _, _, _, _, _, _, _, _, wanted, _, state, ..] = bytes else {
        return None;
    };
    let seconds = i64::from_be_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
    Some(Status { changed: seconds.wrapping_sub(EPOCH), is_wanted: wanted == b'u', state })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;
    use crate::collector::Settings;

    const STATUS: [u8; 20] = [0x40, 0, 0, 0, 0x52, 0x74, 0xcd, 0xf7, 1, 2, 3, 4, 123, 0, 0, 0, 0, b'u', 0, 1];

    #[test]
    fn a_status_is_read() {
        let expected = Status { changed: 1_383_386_605, is_wanted: true, state: 1 };
        assert_eq!(parse(&STATUS), Some(expected));
        assert_eq!(parse(&STATUS[..19]), None);
        assert_eq!(parse(&[0; 20]).map(|status| (status.is_wanted, status.state)), Some((false, 0)));
    }

    #[test]
    fn services_are_directories_or_links_with_a_status() {
        let top = tempfile::tempdir().expect("a temporary directory");
        let supervise = top.path().join("sshd/supervise");
        fs::create_dir_all(&supervise).expect("made");
        fs::write(supervise.join("status"), STATUS).expect("written");
        fs::create_dir_all(top.path().join("empty/supervise")).expect("made");
        fs::write(top.path().join("README"), "").expect("written");
        symlink(top.path().join("sshd"), top.path().join("ssh-link")).expect("linked");
        let directory = top.path().display().to_string();
        let settings = Settings::from([("runit.servicedir".to_owned(), vec![directory])]);
        let mut collector =
            build(&Host::default(), &Options::new(&ENTRY, &settings)).expect("valid settings");
        let mut out = Samples::new();
        collector.collect(&Host::default(), &mut out).expect("collected");
        let services: Vec<String> = out
            .iter()
            .filter(|(name, ..)| *name == STATE.name)
            .map(|(_, labels, value)| format!("{} {value}", labels.collect::<Vec<_>>().join(",")))
            .collect();
        assert_eq!(services, ["ssh-link,runit 1", "sshd,runit 1"]);
    }
}
