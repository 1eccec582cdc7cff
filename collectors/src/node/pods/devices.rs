//! Names of block devices by their numbers.

use std::{collections::HashMap, path::PathBuf};

use crate::{Host, host};

/// The devices that were asked for in a scrape: numbers are given to other devices when one goes.
#[derive(Debug)]
pub struct Devices {
    links: PathBuf,
    names: HashMap<(u32, u32), String>,
}

impl Devices {
    pub fn new(host: &Host) -> Self {
        Self { links: host.sys("dev/block"), names: HashMap::new() }
    }

    /// Forgets all names.
    pub fn clear(&mut self) {
        self.names.clear();
    }

    /// `/dev/sda`; the numbers, as `8:0`, of a device that nobody knows.
    pub fn name(&mut self, (major, minor): (u32, u32)) -> &str {
        self.names.entry((major, minor)).or_insert_with(|| {
            let numbers = format!("{major}:{minor}");
            // "../../devices/pci0000:00/.../block/sda"; a slash in a name is written as "!".
            let target = host::link_target(&self.links.join(&numbers)).ok();
            let name = target.as_ref().and_then(|target| target.file_name());
            name.map_or(numbers, |name| format!("/dev/{}", name.to_string_lossy().replace('!', "/")))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn a_device_has_the_name_that_sysfs_links() {
        let root = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir_all(root.path().join("dev/block")).expect("made");
        for (numbers, target) in
            [("8:0", "../../devices/pci0/block/sda"), ("104:0", "../../devices/block/cciss!c0d0")]
        {
            symlink(target, root.path().join("dev/block").join(numbers)).expect("linked");
        }
        let mut devices = Devices::new(&Host { sysfs: root.path().into(), ..Host::default() });
        assert_eq!(devices.name((8, 0)), "/dev/sda");
        assert_eq!(devices.name((104, 0)), "/dev/cciss/c0d0");
        assert_eq!(devices.name((253, 1)), "253:1");
    }
}
