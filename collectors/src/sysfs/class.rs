//! The devices of a class or a bus, followed from scrape to scrape.

use std::path::PathBuf;

use crate::{collector::CollectError, host};

/// After so many scrapes everything is looked at anew: attributes that a driver added or changed meanwhile show up.
const AGE_LIMIT: u32 = 20;

/// The devices of a directory such as `/sys/class/nvme`, each with a `T` that a collector keeps for it.
///
/// What is kept belongs to one device, not to its name: sysfs never gives an inode number twice, so a device that was
/// taken out and put in again between two scrapes is a new one.
#[derive(Debug)]
pub struct Class<T> {
    path: PathBuf,
    devices: Vec<Device<T>>,
    age: u32,
}

/// A device of a [`Class`].
#[derive(Debug)]
pub struct Device<T> {
    /// Its name in the class.
    pub name: String,
    /// Its directory.
    pub path: PathBuf,
    inode: u64,
    /// What is known of it; a default value when it is new.
    pub kept: T,
}

impl<T: Default> Class<T> {
    /// The class in the directory `path`, not looked at yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, devices: Vec::new(), age: 0 }
    }

    /// The devices there are now, by name, without those that are not `wanted`.
    pub fn follow(&mut self, wanted: impl Fn(&str) -> bool) -> Result<&mut [Device<T>], CollectError> {
        let mut entries = host::list_inodes(&self.path)?;
        entries.retain(|(name, _)| wanted(name));
        self.age += 1;
        if self.age > AGE_LIMIT {
            self.devices.clear();
            self.age = 0;
        }
        let known = self.devices.iter().map(|device| (&device.name, device.inode));
        if !entries.iter().map(|(name, inode)| (name, *inode)).eq(known) {
            self.take_up(entries);
        }
        Ok(&mut self.devices)
    }

    fn take_up(&mut self, entries: Vec<(String, u64)>) {
        let mut known = std::mem::take(&mut self.devices);
        for (name, inode) in entries {
            let at = known.iter().position(|device| device.inode == inode && device.name == name);
            let device = at.map(|at| known.swap_remove(at)).unwrap_or_else(|| {
                let path = self.path.join(&name);
                Device { name, path, inode, kept: T::default() }
            });
            self.devices.push(device);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn names(class: &mut Class<u32>) -> Vec<String> {
        let devices = class.follow(|name| name.starts_with("st")).expect("listed");
        devices.iter().map(|device| format!("{}={}", device.name, device.kept)).collect()
    }

    #[test]
    fn devices_come_and_go_and_keep_what_is_theirs() {
        let top = tempfile::tempdir().expect("a temporary directory");
        let make = |name: &str| fs::create_dir(top.path().join(name)).expect("made");
        let mut class = Class::new(top.path().into());
        make("st1");
        make("nst1");
        assert_eq!(names(&mut class), ["st1=0"]);
        class.devices[0].kept = 7;
        make("st0");
        assert_eq!(names(&mut class), ["st0=0", "st1=7"]);
        // Renamed over: the name stays, the device does not.
        make("other");
        fs::rename(top.path().join("other"), top.path().join("st1")).expect("renamed");
        fs::remove_dir(top.path().join("st0")).expect("removed");
        assert_eq!(names(&mut class), ["st1=0"]);
    }

    #[test]
    fn everything_is_looked_at_anew_after_a_while() {
        let top = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(top.path().join("st0")).expect("made");
        let mut class = Class::new(top.path().into());
        names(&mut class);
        class.devices[0].kept = 7;
        for _ in 1..AGE_LIMIT {
            assert_eq!(names(&mut class), ["st0=7"]);
        }
        assert_eq!(names(&mut class), ["st0=0"]);
    }

    #[test]
    fn an_absent_class_is_no_data() {
        let error = Class::<()>::new("/nonexistent".into()).follow(|_| true).expect_err("refused");
        assert!(matches!(error.missing_is_no_data(), CollectError::NoData));
    }
}
