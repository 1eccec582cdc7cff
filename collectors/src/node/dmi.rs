//! What the firmware says that this machine is.

use crate::{
    BuildError, CollectError, Collector, Entry, Host, Kind, Options, OwnedDesc, Samples,
    sysfs::{Buffer, Directory},
};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "dmi", default_on: true, flags: &[], build };

const HELP: &str = "A metric with a constant '1' value labeled by bios_date, bios_release, bios_vendor, \
                    bios_version, board_asset_tag, board_name, board_serial, board_vendor, board_version, \
                    chassis_asset_tag, chassis_serial, chassis_vendor, chassis_version, product_family, \
                    product_name, product_serial, product_sku, product_uuid, product_version, system_vendor \
                    if provided by DMI.";

/// The labels there may be, sorted; each is the name of its file but for the last, which is `sys_vendor`.
const LABELS: [&str; 20] = [
    "bios_date",
    "bios_release",
    "bios_vendor",
    "bios_version",
    "board_asset_tag",
    "board_name",
    "board_serial",
    "board_vendor",
    "board_version",
    "chassis_asset_tag",
    "chassis_serial",
    "chassis_vendor",
    "chassis_version",
    "product_family",
    "product_name",
    "product_serial",
    "product_sku",
    "product_uuid",
    "product_version",
    "system_vendor",
];

/// Read once: the firmware's tables do not change until the next boot.
struct Dmi {
    desc: OwnedDesc,
    values: Vec<String>,
}

fn build(host: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    let mut buffer = Buffer::short();
    let mut labels = Vec::new();
    let mut values = Vec::new();
    // Without the directory the platform has no such tables; serial numbers are for root alone.
    if let Ok(directory) = Directory::open(&host.sys("class/dmi/id")) {
        for label in LABELS {
            let file = if label == "system_vendor" { "sys_vendor" } else { label };
            if let Ok(text) = directory.read(file, &mut buffer) {
                labels.push(label);
                values.push(text.to_owned());
            }
        }
    }
    Ok(Box::new(Dmi { desc: OwnedDesc::new("node_dmi_info", HELP, Kind::Gauge, &labels), values }))
}

impl Collector for Dmi {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        if self.values.is_empty() {
            return Err(CollectError::NoData);
        }
        let family = out.owned_family(&self.desc);
        let values: Vec<&str> = self.values.iter().map(String::as_str).collect();
        out.push_to(family, &values, 1.0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    fn said(root: &Path) -> Result<Vec<String>, CollectError> {
        let host = Host { sysfs: root.into(), ..Host::default() };
        let mut out = Samples::new();
        let mut collector = build(&host, &Options::new(&ENTRY, &Default::default())).expect("no settings");
        collector.collect(&host, &mut out)?;
        Ok(out.iter().flat_map(|(_, labels, _)| labels.map(str::to_owned).collect::<Vec<_>>()).collect())
    }

    #[test]
    fn there_is_a_label_for_what_can_be_read() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let id = root.path().join("class/dmi/id");
        fs::create_dir_all(id.join("product_serial")).expect("made");
        for (file, text) in [("sys_vendor", "Maker \n"), ("bios_date", "01/02/2026\n"), ("board_name", "\n")]
        {
            fs::write(id.join(file), text).expect("written");
        }
        assert_eq!(said(root.path()).expect("collected"), ["01/02/2026", "", "Maker"]);
    }

    #[test]
    fn a_platform_without_it_has_no_data() {
        assert!(matches!(said(Path::new("/nonexistent")), Err(CollectError::NoData)));
    }
}
