//! Members of bonded network interfaces: how many there are, how many are up.

use std::{
    io::{self, ErrorKind},
    path::Path,
};

use rustix::io::Errno;

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Host, Options, Samples, host,
    sysfs::{Attribute, Buffer},
};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "bonding", default_on: true, flags: &[], build };

static SLAVES: Desc =
    Desc::gauge("node_bonding_slaves", "Number of configured slaves per bonding interface.", &["master"]);
static ACTIVE: Desc =
    Desc::gauge("node_bonding_active", "Number of active slaves per bonding interface.", &["master"]);

/// How often the members of one interface are looked at anew when one of them went away meanwhile.
const ATTEMPTS: usize = 3;

struct Bonding {
    /// "bond0 bond1"
    names: Attribute,
    masters: Vec<Master>,
    buffer: Buffer,
}

struct Master {
    name: String,
    /// "eth0 eth1"
    list: Attribute,
    slaves: Vec<Slave>,
}

struct Slave {
    name: String,
    /// "up"
    state: Attribute,
}

fn build(host: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Bonding {
        names: Attribute::new(host.sys("class/net/bonding_masters")),
        masters: Vec::new(),
        buffer: Buffer::default(),
    }))
}

impl Collector for Bonding {
    /// The list of bonded interfaces is there only while the module is loaded.
    fn collect(&mut self, host: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let Self { names, masters, buffer } = self;
        let class = host.sys("class/net");
        let listed = names
            .read(buffer)
            .map_err(|source| CollectError::Read { path: names.path().to_owned(), source })
            .map_err(CollectError::missing_is_no_data)?;
        if !is_list_of(listed, masters.iter().map(|master| &*master.name)) {
            *masters = words(listed).map(|name| Master::new(&class, name)).collect();
        }
        let mut result = Ok(());
        for master in masters {
            match master.count(&class, buffer) {
                Ok(Some((slaves, active))) => {
                    out.push(&SLAVES, &[&master.name], slaves as f64);
                    out.push(&ACTIVE, &[&master.name], active as f64);
                }
                Ok(None) => {}
                Err(error) => result = Err(error.missing_is_no_data()),
            }
        }
        result
    }
}

impl Master {
    fn new(class: &Path, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            list: Attribute::new(class.join(name).join("bonding/slaves")),
            slaves: Vec::new(),
        }
    }

    /// The number of slaves, and of those which are up; nothing when the interface went away.
    fn count(&mut self, class: &Path, buffer: &mut Buffer) -> Result<Option<(usize, usize)>, CollectError> {
        let mut attempt = 1;
        loop {
            let listed = match self.list.read(buffer) {
                Ok(listed) => listed,
                Err(error) if is_gone(&error) => return Ok(None),
                Err(source) => return Err(CollectError::Read { path: self.list.path().to_owned(), source }),
            };
            if !is_list_of(listed, self.slaves.iter().map(|slave| &*slave.name)) {
                let directory = class.join(&self.name);
                self.slaves = words(listed).map(|name| Slave::new(&directory, name)).collect();
            }
            match self.count_active(buffer) {
                // It left the bond after the list was read: then it is not in a new one.
                Err(CollectError::Read { source, .. }) if is_gone(&source) && attempt < ATTEMPTS => {
                    self.slaves.clear();
                    attempt += 1;
                }
                active => return Ok(Some((self.slaves.len(), active?))),
            }
        }
    }

    fn count_active(&mut self, buffer: &mut Buffer) -> Result<usize, CollectError> {
        let mut active = 0;
        for Slave { state, .. } in &mut self.slaves {
            match state.read(buffer) {
                Ok(text) => active += usize::from(text == "up"),
                Err(source) => return Err(CollectError::Read { path: state.path().to_owned(), source }),
            }
        }
        Ok(active)
    }
}

impl Slave {
    /// Below `lower_eth0`, or as kernels before 3.15 had it, below `slave_eth0`.
    fn new(master: &Path, name: &str) -> Self {
        let mut slave = master.join(format!("slave_{name}"));
        if !host::is_dir(&slave) {
            slave = master.join(format!("lower_{name}"));
        }
        Self { name: name.to_owned(), state: Attribute::new(slave.join("bonding_slave/mii_status")) }
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_ascii_whitespace()
}

fn is_list_of<'a>(text: &str, names: impl Iterator<Item = &'a str>) -> bool {
    words(text).eq(names)
}

/// Whether the device behind a file went away before or while it was read.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || Errno::from_io_error(error) == Some(Errno::NODEV)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn write(dir: &Path, path: &str, text: &str) {
        let path = dir.join("class/net").join(path);
        fs::create_dir_all(path.parent().expect("has one")).expect("made");
        fs::write(path, text).expect("written");
    }

    fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for (path, text) in files {
            write(dir.path(), path, text);
        }
        let host = Host { sysfs: dir.path().into(), ..Host::default() };
        (dir, host)
    }

    fn bonding(host: &Host) -> Box<dyn Collector> {
        build(host, &Options::new(&ENTRY, &crate::Settings::new())).expect("built")
    }

    fn said(collector: &mut dyn Collector, host: &Host) -> (Vec<(String, f64)>, Result<(), CollectError>) {
        let mut out = Samples::new();
        let result = collector.collect(host, &mut out);
        let said = out.iter().map(|(name, mut labels, value)| {
            (format!("{name} {}", labels.next().unwrap_or_default()), value)
        });
        (said.collect(), result)
    }

    const TWO: &[(&str, &str)] = &[
        ("bonding_masters", "bond0 dmz\n"),
        ("bond0/bonding/slaves", "eth0 eth1\n"),
        ("bond0/lower_eth0/bonding_slave/mii_status", "up\n"),
        ("bond0/lower_eth1/bonding_slave/mii_status", "going back\n"),
        ("dmz/bonding/slaves", "\n"),
    ];

    #[test]
    fn slaves_are_counted_and_those_that_are_up() {
        let (dir, host) = host(TWO);
        let mut collector = bonding(&host);
        let (pairs, result) = said(&mut *collector, &host);
        result.expect("collected");
        assert_eq!(
            pairs,
            [
                ("node_bonding_slaves bond0".into(), 2.0),
                ("node_bonding_active bond0".into(), 1.0),
                ("node_bonding_slaves dmz".into(), 0.0),
                ("node_bonding_active dmz".into(), 0.0),
            ]
        );
        write(dir.path(), "bond0/bonding/slaves", "eth0\n");
        let (pairs, _) = said(&mut *collector, &host);
        assert_eq!(pairs[0].1, 1.0, "the list is read at every scrape");
    }

    #[test]
    fn old_kernels_name_the_link_to_a_slave_otherwise() {
        let (_dir, host) = host(&[
            ("bonding_masters", "bond0\n"),
            ("bond0/bonding/slaves", "eth0\n"),
            ("bond0/slave_eth0/bonding_slave/mii_status", "up\n"),
        ]);
        let (pairs, result) = said(&mut *bonding(&host), &host);
        result.expect("collected");
        assert_eq!(pairs[1], ("node_bonding_active bond0".into(), 1.0));
    }

    #[test]
    fn an_interface_that_went_away_does_not_fail_the_others() {
        let (dir, host) = host(TWO);
        fs::remove_dir_all(dir.path().join("class/net/bond0")).expect("removed");
        let (pairs, result) = said(&mut *bonding(&host), &host);
        result.expect("collected");
        assert_eq!(pairs.len(), 2);
    }

    #[test]
    fn a_slave_that_never_says_its_state_is_no_success() {
        let (dir, host) = host(TWO);
        fs::remove_dir_all(dir.path().join("class/net/bond0/lower_eth1")).expect("removed");
        let (pairs, result) = said(&mut *bonding(&host), &host);
        assert!(matches!(result, Err(CollectError::NoData)), "{result:?}");
        assert_eq!(pairs.len(), 2, "the other interface is said");
    }

    #[test]
    fn without_the_module_there_is_no_data() {
        let (_dir, host) = host(&[]);
        assert!(matches!(said(&mut *bonding(&host), &host).1, Err(CollectError::NoData)));
    }
}
