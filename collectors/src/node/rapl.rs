//! Energy that the processor's power zones used.

use std::path::Path;

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Flag, Host, Kind, Options, OwnedDesc, Samples,
    sysfs::{self, Attributes, Class, Device, NEVER, Reader},
};

/// This collector in the list.
pub const ENTRY: Entry = Entry {
    name: "rapl",
    default_on: true,
    flags: &[Flag::bool(
        "rapl.enable-zone-label",
        false,
        "Enables service unit metric unit_start_time_seconds",
    )],
    build,
};

static JOULES: Desc =
    Desc::counter("node_rapl_joules_total", "Current RAPL value in joules", &["index", "path", "rapl_zone"]);

struct Rapl {
    class: Class<Kept>,
    reader: Reader,
    /// Whether the zone is said as a label, not as a part of the family's name.
    zone_label: bool,
}

/// What is known of a directory.
#[derive(Default)]
enum Kept {
    #[default]
    Nothing,
    /// It has no name: `intel-rapl` is the parent of zones.
    NoZone,
    Zone(Zone),
}

/// A zone's name as its driver registered it, and what follows from it.
struct Zone {
    /// Without the number at its end.
    name: String,
    index: i64,
    path: String,
    /// Its own family.
    desc: OwnedDesc,
}

fn build(host: &Host, options: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Rapl {
        class: Class::new(host.sys("class/powercap")),
        reader: Reader::default(),
        zone_label: options.is_on("rapl.enable-zone-label"),
    }))
}

impl Collector for Rapl {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let Self { class, reader, zone_label } = self;
        let zones = class.follow(|_| true).map_err(CollectError::missing_or_denied_is_no_data)?;
        // The index of a zone counts those before it that have its name: all are named anew when one is new.
        let is_known = !zones.iter().any(|zone| matches!(zone.kept, Kept::Nothing));
        let mut named: Vec<(String, i64)> = Vec::new();
        for zone in zones {
            if is_known && matches!(zone.kept, Kept::NoZone) {
                continue;
            }
            let Some(mut attributes) = reader.open(&zone.path) else { continue };
            if !is_known {
                zone.kept = look(zone, &mut attributes, &mut named);
            }
            let Kept::Zone(kept) = &zone.kept else { continue };
            let Some(microjoules) = attributes.parse("energy_uj", NEVER, sysfs::decimal) else { continue };
            let joules = microjoules as f64 / 1_000_000.0;
            let index = kept.index.to_string();
            if *zone_label {
                out.push(&JOULES, &[&index, &kept.path, &kept.name], joules);
            } else {
                let family = out.owned_family(&kept.desc);
                out.push_to(family, &[&index, &kept.path], joules);
            }
        }
        // Since Linux 5.10 root alone may read it: how much energy a computation takes tells of its secrets.
        reader.finish().map_err(CollectError::missing_or_denied_is_no_data)
    }
}

/// Finds out what is in a directory; `named` has the zones before it, each with the next index for its name.
fn look(zone: &Device<Kept>, attributes: &mut Attributes, named: &mut Vec<(String, i64)>) -> Kept {
    let Some(text) = attributes.maybe("name").map(str::to_owned) else { return Kept::NoZone };
    if attributes.parse("max_energy_range_uj", NEVER, sysfs::decimal).is_none() {
        return Kept::Nothing;
    }
    let counted =
        |name: &str| named.iter().rev().find(|(known, _)| known == name).map_or(0, |&(_, next)| next);
    let (name, index) = split(&text).unwrap_or_else(|| (&text, counted(&text)));
    named.push((name.to_owned(), index.saturating_add(1)));
    Kept::Zone(Zone {
        name: name.to_owned(),
        index,
        path: shortest(&zone.path),
        desc: OwnedDesc::new(
            &format!("node_rapl_{}_joules_total", sanitized(name)),
            &format!("Current RAPL {name} value in joules"),
            Kind::Counter,
            &["index", "path"],
        ),
    })
}

/// `package-0` is package 0; names with more than one `-` are left as they are.
fn split(name: &str) -> Option<(&str, i64)> {
    let (name, index) = name.split_once('-')?;
    Some((name, index.parse().ok()?))
}

/// With one `_` for each run of what can't be in the name of a family, which takes the `_` around it along.
fn sanitized(name: &str) -> String {
    let mut sanitized = String::new();
    let (mut in_run, mut after_run) = (false, false);
    for char in name.chars() {
        let is_odd = !(char.is_ascii_alphanumeric() || char == '_');
        if is_odd && !in_run {
            if !after_run {
                sanitized.truncate(sanitized.trim_end_matches('_').len());
            }
            sanitized.push('_');
        } else if !is_odd && !(char == '_' && (in_run || after_run)) {
            sanitized.push(char);
        }
        after_run = char == '_' && (in_run || after_run);
        in_run = is_odd;
    }
    sanitized
}

/// The path without empty parts and `.`: it is said as a label.
fn shortest(path: &Path) -> String {
    use std::path::{Component, PathBuf};

    let parts = path.components().filter(|part| *part != Component::CurDir);
    parts.collect::<PathBuf>().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::collector::Settings;

    fn zone(root: &Path, directory: &str, name: &str, energy: &str) {
        let path = root.join("class/powercap").join(directory);
        fs::create_dir_all(&path).expect("made");
        for (file, text) in [("name", name), ("max_energy_range_uj", "1000\n"), ("energy_uj", energy)] {
            fs::write(path.join(file), text).expect("written");
        }
    }

    fn said(root: &Path, zone_label: &str) -> (Vec<String>, Result<(), CollectError>) {
        let settings = Settings::from([("rapl.enable-zone-label".to_owned(), vec![zone_label.to_owned()])]);
        let host = Host { sysfs: root.into(), ..Host::default() };
        let mut collector = build(&host, &Options::new(&ENTRY, &settings)).expect("valid settings");
        let mut out = Samples::new();
        let result = collector.collect(&host, &mut out);
        let line = |(name, labels, value): (&str, crate::samples::LabelValues, f64)| {
            let labels: Vec<&str> = labels.map(|label| label.rsplit('/').next().unwrap_or(label)).collect();
            format!("{}{{{}}} {value}", name.trim_start_matches("node_rapl_"), labels.join(","))
        };
        (out.iter().map(line).collect(), result)
    }

    #[test]
    fn zones_of_one_name_are_numbered() {
        let root = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir_all(root.path().join("class/powercap/intel-rapl")).expect("made");
        zone(root.path(), "intel-rapl:0", "package-3\n", "2500000\n");
        zone(root.path(), "intel-rapl:0:0", "dram\n", "1\n");
        zone(root.path(), "intel-rapl:1:0", "dram\n", "2\n");
        let (lines, result) = said(root.path(), "false");
        result.expect("nothing is wrong");
        let expected = [
            "package_joules_total{3,intel-rapl:0} 2.5",
            "dram_joules_total{0,intel-rapl:0:0} 0.000001",
            "dram_joules_total{1,intel-rapl:1:0} 0.000002",
        ];
        assert_eq!(lines, expected);
        assert_eq!(said(root.path(), "true").0[2], "joules_total{1,intel-rapl:1:0,dram} 0.000002");
    }

    #[test]
    fn a_broken_zone_does_not_hide_the_others() {
        let root = tempfile::tempdir().expect("a temporary directory");
        zone(root.path(), "intel-rapl:0", "core\n", "x\n");
        zone(root.path(), "intel-rapl:1", "psys\n", "1000000\n");
        let (lines, result) = said(root.path(), "false");
        assert_eq!(lines, ["psys_joules_total{0,intel-rapl:1} 1"]);
        assert!(result.expect_err("not a number").to_string().contains("intel-rapl:0/energy_uj"));
    }

    #[test]
    fn names_are_fit_for_families() {
        assert_eq!(sanitized("dram"), "dram");
        assert_eq!(sanitized("a__-_b.,c_d"), "a_b_c_d");
        assert_eq!(sanitized("a-_-b"), "a__b");
        assert_eq!(split("package-0-die-1"), None);
        assert_eq!(shortest(Path::new("./sys//class/powercap/")), "sys/class/powercap");
    }

    #[test]
    fn a_host_without_the_class_has_no_data() {
        assert!(matches!(said(Path::new("/nonexistent"), "false").1, Err(CollectError::NoData)));
    }
}
