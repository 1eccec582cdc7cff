//! NVMe controllers and the namespaces below them.

use std::path::Path;

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Host, Options, Samples, host,
    sysfs::{self, Class, Device, NEVER, Reader},
    words::digits,
};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "nvme", default_on: true, flags: &[], build };

static INFO: Desc = Desc::gauge(
    "node_nvme_info",
    "Non-numeric data from /sys/class/nvme/<device>, value is always 1.",
    &["cntlid", "device", "firmware_revision", "model", "serial", "state"],
);
static NAMESPACE_INFO: Desc = Desc::gauge(
    "node_nvme_namespace_info",
    "Information about NVMe namespaces. Value is always 1",
    &["ana_state", "device", "nsid"],
);
static CAPACITY: Desc = Desc::gauge(
    "node_nvme_namespace_capacity_bytes",
    "Capacity of the NVMe namespace in bytes. Computed as namespace_size * namespace_logical_block_size",
    &["device", "nsid"],
);
static SIZE: Desc = Desc::gauge(
    "node_nvme_namespace_size_bytes",
    "Size of the NVMe namespace in bytes. Available in /sys/class/nvme/<device>/<namespace>/size",
    &["device", "nsid"],
);
static USED: Desc = Desc::gauge(
    "node_nvme_namespace_used_bytes",
    "Used space of the NVMe namespace in bytes. Available in /sys/class/nvme/<device>/<namespace>/nuse",
    &["device", "nsid"],
);
static BLOCK_SIZE: Desc = Desc::gauge(
    "node_nvme_namespace_logical_block_size_bytes",
    "Logical block size of the NVMe namespace in bytes. Usually 4Kb. Available in /sys/class/nvme/<device>/<namespace>/queue/logical_block_size",
    &["device", "nsid"],
);

struct Nvme {
    class: Class<Option<Identity>>,
    reader: Reader,
    texts: Texts,
}

/// What stays as it is as long as the controller is there.
struct Identity {
    model: String,
    serial: String,
}

/// The texts of the controller or the namespace at hand.
#[derive(Default)]
struct Texts {
    firmware: String,
    state: String,
    id: String,
}

fn build(host: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Nvme {
        class: Class::new(host.sys("class/nvme")),
        reader: Reader::default(),
        texts: Texts::default(),
    }))
}

impl Collector for Nvme {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let Self { class, reader, texts } = self;
        for device in class.follow(|_| true).map_err(CollectError::missing_is_no_data)? {
            say_controller(device, reader, texts, out);
            // Namespaces are attached to and detached from a running controller.
            match host::list_dir(&device.path) {
                Ok(names) => {
                    for name in &names {
                        if let Some(id) = namespace_id(name) {
                            say_namespace(&device.name, id, &device.path.join(name), reader, out);
                        }
                    }
                }
                Err(error) => reader.fail_unless_gone(&device.path, error),
            }
        }
        reader.finish()
    }
}

fn say_controller(
    device: &mut Device<Option<Identity>>,
    reader: &mut Reader,
    texts: &mut Texts,
    out: &mut Samples,
) {
    let Some(mut attributes) = reader.open(&device.path) else { return };
    if device.kept.is_none() {
        let Some(model) = attributes.text("model", NEVER).map(str::to_owned) else { return };
        let Some(serial) = attributes.text("serial", NEVER).map(str::to_owned) else { return };
        device.kept = Some(Identity { model, serial });
    }
    let Some(identity) = &device.kept else { return };
    if attributes.copy("firmware_rev", NEVER, &mut texts.firmware)
        && attributes.copy("state", NEVER, &mut texts.state)
        && attributes.copy("cntlid", NEVER, &mut texts.id)
    {
        let labels =
            [&texts.id, &device.name, &texts.firmware, &identity.model, &identity.serial, &texts.state];
        out.push(&INFO, &labels.map(String::as_str), 1.0);
    }
}

fn say_namespace(device: &str, id: &str, path: &Path, reader: &mut Reader, out: &mut Samples) {
    let Some(mut namespace) = reader.open(path) else { return };
    // Only kernels from 6.8 on say how much is used.
    let used = namespace.parse("nuse", NEVER, sysfs::decimal);
    let size = namespace.parse("size", NEVER, sysfs::decimal);
    let block = namespace.parse("queue/logical_block_size", NEVER, sysfs::decimal);
    // Only namespaces with several paths have it.
    let state = namespace.maybe("ana_state").unwrap_or("unknown");
    out.push(&NAMESPACE_INFO, &[state, device, id], 1.0);
    let labels = &[device, id];
    let mut say = |desc, blocks: Option<u64>| {
        if let Some(bytes) = blocks.zip(block).and_then(|(blocks, block)| blocks.checked_mul(block)) {
            out.push(desc, labels, bytes as f64);
        }
    };
    say(&CAPACITY, size);
    say(&SIZE, size);
    say(&USED, used);
    say(&BLOCK_SIZE, Some(1));
}

/// `nvme0n1` is namespace 1; `nvme0c0n1`, one path of several to a namespace, is none.
fn namespace_id(name: &str) -> Option<&str> {
    let rest = name.strip_prefix("nvme")?;
    let controller = digits(rest);
    let rest = rest[controller.len()..].strip_prefix('n')?;
    let id = digits(rest);
    (!controller.is_empty() && !id.is_empty()).then_some(id)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn controller(root: &Path, files: &[(&str, &str)]) {
        for (file, text) in files {
            let path = root.join("class/nvme").join(file);
            fs::create_dir_all(path.parent().expect("has one")).expect("made");
            fs::write(path, text).expect("written");
        }
    }

    const WHOLE: [(&str, &str); 5] = [
        ("nvme0/model", "Disk 9   \n"),
        ("nvme0/serial", "S1\n"),
        ("nvme0/firmware_rev", "F2\n"),
        ("nvme0/state", "live\n"),
        ("nvme0/cntlid", "4\n"),
    ];

    fn collector(root: &Path) -> (Box<dyn Collector>, Host) {
        let host = Host { sysfs: root.into(), ..Host::default() };
        (build(&host, &Options::new(&ENTRY, &Default::default())).expect("no settings"), host)
    }

    fn said(collector: &mut dyn Collector, host: &Host) -> (Vec<String>, Result<(), CollectError>) {
        let mut out = Samples::new();
        let result = collector.collect(host, &mut out);
        let line = |(name, labels, value): (&str, crate::samples::LabelValues, f64)| {
            let labels: Vec<&str> = labels.collect();
            format!("{}{{{}}} {value}", name.trim_start_matches("node_nvme_"), labels.join(","))
        };
        (out.iter().map(line).collect(), result)
    }

    #[test]
    fn a_controller_and_its_namespace_are_said() {
        let root = tempfile::tempdir().expect("a temporary directory");
        controller(root.path(), &WHOLE);
        controller(
            root.path(),
            &[
                ("nvme0/nvme0n2/size", "100\n"),
                ("nvme0/nvme0n2/nuse", "7\n"),
                ("nvme0/nvme0n2/queue/logical_block_size", "512\n"),
            ],
        );
        let (mut collector, host) = collector(root.path());
        let (lines, result) = said(&mut *collector, &host);
        result.expect("all is there");
        let expected = [
            "info{4,nvme0,F2,Disk 9,S1,live} 1",
            "namespace_info{unknown,nvme0,2} 1",
            "namespace_capacity_bytes{nvme0,2} 51200",
            "namespace_size_bytes{nvme0,2} 51200",
            "namespace_used_bytes{nvme0,2} 3584",
            "namespace_logical_block_size_bytes{nvme0,2} 512",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_broken_controller_does_not_hide_the_others() {
        let root = tempfile::tempdir().expect("a temporary directory");
        controller(root.path(), &WHOLE);
        controller(root.path(), &WHOLE.map(|(file, text)| (&*file.replace('0', "1").leak(), text))[..4]);
        let (mut collector, host) = collector(root.path());
        let (lines, result) = said(&mut *collector, &host);
        assert_eq!(lines, ["info{4,nvme0,F2,Disk 9,S1,live} 1"]);
        assert!(result.expect_err("one has no cntlid").to_string().contains("nvme1/cntlid"));
    }

    #[test]
    fn only_namespaces_are_namespaces() {
        for (name, id) in [
            ("nvme0n1", Some("1")),
            ("nvme12n34", Some("34")),
            ("nvme0c0n1", None),
            ("nvme0", None),
            ("nvmen1", None),
            ("nvme0n", None),
            ("ng0n1", None),
        ] {
            assert_eq!(namespace_id(name), id, "{name}");
        }
    }

    #[test]
    fn a_host_without_the_class_has_no_data() {
        let (mut collector, host) = collector(Path::new("/nonexistent"));
        assert!(matches!(said(&mut *collector, &host).1, Err(CollectError::NoData)));
    }
}
