//! NVMe subsystems and the paths to them.

use std::path::Path;

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Host, Options, Samples, host,
    sysfs::{Class, Device, NEVER, Reader},
};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "nvmesubsystem", default_on: false, flags: &[], build };

static INFO: Desc = Desc::gauge(
    "node_nvmesubsystem_info",
    "Non-numeric information about an NVMe subsystem.",
    &["iopolicy", "model", "nqn", "serial", "subsystem"],
);
static NAMESPACE: Desc = Desc::gauge(
    "node_nvmesubsystem_namespace_info",
    "Maps an NVMe namespace block device to its subsystem.",
    &["device", "subsystem"],
);
static PATHS: Desc = Desc::gauge(
    "node_nvmesubsystem_paths",
    "Number of controller paths for an NVMe subsystem.",
    &["subsystem"],
);
static PATHS_LIVE: Desc = Desc::gauge(
    "node_nvmesubsystem_paths_live",
    "Number of controller paths in live state for an NVMe subsystem.",
    &["subsystem"],
);
static PATH_STATE: Desc = Desc::gauge(
    "node_nvmesubsystem_path_state",
    "Current NVMe controller path state (1 for the current state, 0 for all others).",
    &["controller", "state", "subsystem", "transport"],
);

/// The states a path can be in; the last stands for those that the kernel may yet invent.
const STATES: [&str; 7] = ["connecting", "dead", "deleting", "live", "new", "resetting", UNKNOWN];
const UNKNOWN: &str = "unknown";

struct Nvmesubsystem {
    class: Class<Option<Identity>>,
    reader: Reader,
    transport: String,
}

/// What stays as it is as long as the subsystem is there.
struct Identity {
    nqn: String,
    model: String,
    serial: String,
}

fn build(host: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Nvmesubsystem {
        class: Class::new(host.sys("class/nvme-subsystem")),
        reader: Reader::default(),
        transport: String::new(),
    }))
}

impl Collector for Nvmesubsystem {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let Self { class, reader, transport } = self;
        let wanted = |name: &str| name.starts_with("nvme-subsys");
        for subsystem in class.follow(wanted).map_err(CollectError::missing_or_denied_is_no_data)? {
            say_info(subsystem, reader, out);
            // Controllers and namespaces come and go.
            match host::list_dir(&subsystem.path) {
                Ok(names) => say_parts(&subsystem.name, &subsystem.path, &names, reader, transport, out),
                Err(error) => reader.fail_unless_gone(&subsystem.path, error),
            }
        }
        reader.finish()
    }
}

fn say_info(subsystem: &mut Device<Option<Identity>>, reader: &mut Reader, out: &mut Samples) {
    let Some(mut attributes) = reader.open(&subsystem.path) else { return };
    if subsystem.kept.is_none() {
        let mut text = |file| attributes.text(file, NEVER).map(str::to_owned);
        let (Some(nqn), Some(model), Some(serial)) = (text("subsysnqn"), text("model"), text("serial"))
        else {
            return;
        };
        subsystem.kept = Some(Identity { nqn, model, serial });
    }
    let Some(Identity { nqn, model, serial }) = &subsystem.kept else { return };
    if let Some(policy) = attributes.text("iopolicy", NEVER) {
        out.push(&INFO, &[policy, model, nqn, serial, &subsystem.name], 1.0);
    }
}

fn say_parts(
    subsystem: &str,
    path: &Path,
    names: &[String],
    reader: &mut Reader,
    transport: &mut String,
    out: &mut Samples,
) {
    let (mut total, mut live, mut unread) = (0_u32, 0_u32, false);
    for name in names {
        match kind(name) {
            Some(Part::Namespace) => out.push(&NAMESPACE, &[name, subsystem], 1.0),
            Some(Part::Controller) => {
                let path = path.join(name);
                let Some(mut controller) = reader.open(&path) else { continue };
                if !controller.copy("transport", NEVER, transport) {
                    unread = true;
                    continue;
                }
                let Some(state) = controller.text("state", NEVER).map(state) else {
                    unread = true;
                    continue;
                };
                total += 1;
                live += u32::from(state == "live");
                for other in STATES {
                    let value = f64::from(u8::from(other == state));
                    out.push(&PATH_STATE, &[name, other, subsystem, transport], value);
                }
            }
            None => {}
        }
    }
    // Without one of the paths the sums would be wrong.
    if !unread {
        out.push(&PATHS, &[subsystem], f64::from(total));
        out.push(&PATHS_LIVE, &[subsystem], f64::from(live));
    }
}

/// What an entry in the directory of a subsystem stands for.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Controller,
    Namespace,
}

/// `nvme0` is a controller, `nvme0n1` a namespace.
fn kind(name: &str) -> Option<Part> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let rest = name.strip_prefix("nvme")?;
    match rest.split_once('n') {
        None => is_number(rest).then_some(Part::Controller),
        Some((controller, id)) => (is_number(controller) && is_number(id)).then_some(Part::Namespace),
    }
}

/// A controller that is being deleted says whether it still takes requests.
fn state(text: &str) -> &'static str {
    match text {
        "deleting (no IO)" => "deleting",
        _ => STATES.into_iter().find(|state| *state == text).unwrap_or(UNKNOWN),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join("class/nvme-subsystem/nvme-subsys4").join(file);
        fs::create_dir_all(path.parent().expect("has one")).expect("made");
        fs::write(path, text).expect("written");
    }

    fn said(root: &Path) -> (Vec<String>, Result<(), CollectError>) {
        let host = Host { sysfs: root.into(), ..Host::default() };
        let mut collector = build(&host, &Options::new(&ENTRY, &Default::default())).expect("no settings");
        let mut out = Samples::new();
        let result = collector.collect(&host, &mut out);
        let line = |(name, labels, value): (&str, crate::samples::LabelValues, f64)| {
            let labels: Vec<&str> = labels.collect();
            format!("{}{{{}}} {value}", name.trim_start_matches("node_nvmesubsystem_"), labels.join(","))
        };
        (out.iter().map(line).filter(|line| !line.ends_with(" 0")).collect(), result)
    }

    #[test]
    fn a_subsystem_is_said_with_its_paths_and_namespaces() {
        let root = tempfile::tempdir().expect("a temporary directory");
        for (file, text) in [
            ("subsysnqn", "nqn.x\n"),
            ("model", "M\n"),
            ("serial", "S\n"),
            ("iopolicy", "numa\n"),
            ("nvme3/state", "live\n"),
            ("nvme3/transport", "tcp\n"),
            ("nvme5/state", "deleting (no IO)\n"),
            ("nvme5/transport", "rdma\n"),
            ("nvme3n1/size", "1\n"),
        ] {
            write(root.path(), file, text);
        }
        let (lines, result) = said(root.path());
        result.expect("nothing is wrong");
        let expected = [
            "info{numa,M,nqn.x,S,nvme-subsys4} 1",
            "path_state{nvme3,live,nvme-subsys4,tcp} 1",
            "namespace_info{nvme3n1,nvme-subsys4} 1",
            "path_state{nvme5,deleting,nvme-subsys4,rdma} 1",
            "paths{nvme-subsys4} 2",
            "paths_live{nvme-subsys4} 1",
        ];
        assert_eq!(lines, expected);
        fs::remove_file(root.path().join("class/nvme-subsystem/nvme-subsys4/nvme5/state")).expect("removed");
        let (lines, result) = said(root.path());
        assert_eq!(lines, expected[..3]);
        assert!(result.expect_err("no state").to_string().contains("nvme5/state"));
    }

    #[test]
    fn names_and_states_are_told_apart() {
        assert_eq!(kind("nvme12"), Some(Part::Controller));
        assert_eq!(kind("nvme0n12"), Some(Part::Namespace));
        for name in ["nvme", "nvme0c1n1", "nvme0n", "nvmen1", "power"] {
            assert_eq!(kind(name), None, "{name}");
        }
        assert_eq!(state("resetting"), "resetting");
        assert_eq!(state("dreaming"), UNKNOWN);
    }

    #[test]
    fn a_host_without_the_class_has_no_data() {
        assert!(matches!(said(Path::new("/nonexistent")).1, Err(CollectError::NoData)));
    }
}
