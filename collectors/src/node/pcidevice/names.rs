//! The names of devices, out of the database that distributions keep: `pci.ids`.

use std::collections::HashMap;

/// What a device is, in hexadecimal digits without `0x`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Ids {
    /// Six digits: class, subclass, programming interface.
    pub(super) class: String,
    pub(super) vendor: String,
    pub(super) device: String,
    pub(super) subsystem_vendor: String,
    pub(super) subsystem_device: String,
}

/// The names for [`Ids`]; the digits themselves where there is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) class: String,
    pub(super) vendor: String,
    pub(super) device: String,
    pub(super) subsystem_vendor: String,
    pub(super) subsystem_device: String,
}

/// The database by ids; it borrows from the text.
#[derive(Debug, Default)]
pub(super) struct Database<'a> {
    vendors: HashMap<&'a str, &'a str>,
    devices: HashMap<[&'a str; 2], &'a str>,
    subsystems: HashMap<[&'a str; 4], &'a str>,
    classes: HashMap<&'a str, &'a str>,
    subclasses: HashMap<[&'a str; 2], &'a str>,
    interfaces: HashMap<[&'a str; 3], &'a str>,
}

/// Which line the lines that are set in by tabs belong to.
#[derive(Default)]
struct Above<'a> {
    in_class: bool,
    class: Option<&'a str>,
    subclass: Option<[&'a str; 2]>,
    vendor: Option<&'a str>,
    device: Option<&'a str>,
}

impl<'a> Database<'a> {
    /// ```text
    /// 8086  Vendor
    /// <tab>1572  Device
    /// <tab><tab>1028 1f9c  Subsystem, by its vendor and device
    /// C 01  Class
    /// <tab>08  Subclass
    /// <tab><tab>02  Programming interface
    /// ```
    pub(super) fn parse(text: &'a str) -> Self {
        let mut database = Self::default();
        let mut above = Above::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let rest = line.trim_start_matches('\t');
            let Some((id, name)) = rest.split_once("  ") else { continue };
            let (id, name) = (id.trim(), name.trim());
            match line.len() - rest.len() {
                0 => database.take_top(line, id, name, &mut above),
                1 => database.take_second(id, name, &mut above),
                2 => database.take_third(id, name, &above),
                _ => {}
            }
        }
        database
    }

    fn take_top(&mut self, line: &str, id: &'a str, name: &'a str, above: &mut Above<'a>) {
        if line.starts_with("C ") {
            let id = id[1..].trim_start();
            self.classes.insert(id, name);
            above.in_class = true;
            above.class = Some(id);
        } else {
            self.vendors.insert(id, name);
            above.in_class = false;
            above.vendor = Some(id);
            above.device = None;
        }
    }

    fn take_second(&mut self, id: &'a str, name: &'a str, above: &mut Above<'a>) {
        if above.in_class {
            let Some(class) = above.class else { return };
            self.subclasses.insert([class, id], name);
            above.subclass = Some([class, id]);
        } else if let Some(vendor) = above.vendor {
            self.devices.insert([vendor, id], name);
            above.device = Some(id);
        }
    }

    fn take_third(&mut self, id: &'a str, name: &'a str, above: &Above<'a>) {
        if above.in_class {
            let Some([class, subclass]) = above.subclass else { return };
            self.interfaces.insert([class, subclass, id], name);
            return;
        }
        let (Some(vendor), Some(device)) = (above.vendor, above.device) else { return };
        let mut parts = id.split_whitespace();
        if let (Some(by), Some(subsystem), None) = (parts.next(), parts.next(), parts.next()) {
            self.subsystems.insert([vendor, device, by, subsystem], name);
        }
    }

    pub(super) fn names(&self, ids: &Ids) -> Names {
        let Ids { class, vendor, device, subsystem_vendor, subsystem_device } = ids;
        let or_digits = |name: Option<&&str>, digits: &str| (*name.unwrap_or(&digits)).to_owned();
        let subsystem = [vendor.as_str(), device, subsystem_vendor, subsystem_device];
        Names {
            class: self.class(class),
            vendor: or_digits(self.vendors.get(vendor.as_str()), vendor),
            device: or_digits(self.devices.get(&[vendor.as_str(), device]), device),
            subsystem_vendor: or_digits(self.vendors.get(subsystem_vendor.as_str()), subsystem_vendor),
            subsystem_device: or_digits(self.subsystems.get(&subsystem), subsystem_device),
        }
    }

    /// The most exact name that there is.
    fn class(&self, digits: &str) -> String {
        let known = || {
            let (class, subclass, interface) = (digits.get(..2)?, digits.get(2..4)?, digits.get(4..6)?);
            self.interfaces
                .get(&[class, subclass, interface])
                .or_else(|| self.subclasses.get(&[class, subclass]))
                .or_else(|| self.classes.get(class))
        };
        known().map_or_else(|| format!("Unknown class ({digits})"), |name| (*name).to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# made up\n\n\
        abcd  Vendor & Sons\n\
        \t0001  Card\n\
        \t\tabcd 0002  Card, short\n\
        \t\tabcd  Half a subsystem\n\
        \tcut\n\
        C 01  Storage\n\
        \t08  Solid state\n\
        \t\t02  Express\n\
        C 02  Network\n";

    fn ids(class: &str, device: &str, subsystem: &str) -> Ids {
        Ids {
            class: class.into(),
            vendor: "abcd".into(),
            device: device.into(),
            subsystem_vendor: "ffff".into(),
            subsystem_device: subsystem.into(),
        }
    }

    #[test]
    fn devices_are_named() {
        let database = Database::parse(TEXT);
        let mut device = ids("010802", "0001", "0002");
        device.subsystem_vendor = "abcd".into();
        let names = database.names(&device);
        let [vendor, card] = ["Vendor & Sons", "Card"].map(str::to_owned);
        let expected = Names {
            class: "Express".into(),
            vendor: vendor.clone(),
            device: card,
            subsystem_vendor: vendor,
            subsystem_device: "Card, short".into(),
        };
        assert_eq!(names, expected);
    }

    #[test]
    fn what_is_not_known_goes_by_its_digits() {
        let database = Database::parse(TEXT);
        let names = database.names(&ids("0108ff", "0003", "0002"));
        assert_eq!((names.class.as_str(), names.device.as_str()), ("Solid state", "0003"));
        assert_eq!((names.subsystem_vendor.as_str(), names.subsystem_device.as_str()), ("ffff", "0002"));
        assert_eq!(database.names(&ids("02ffff", "1", "2")).class, "Network");
        assert_eq!(database.names(&ids("030000", "1", "2")).class, "Unknown class (030000)");
        assert_eq!(Database::parse("").names(&ids("010802", "1", "2")).vendor, "abcd");
    }
}
