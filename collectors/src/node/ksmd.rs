//! What kernel same-page merging shares.

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Host, Options, Samples,
    sysfs::{Attribute, Buffer},
};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "ksmd", default_on: false, flags: &[], build };

/// An attribute below `/sys/kernel/mm/ksm`, and its family.
struct File(&'static str, Desc);

macro_rules! file {
    ($file:literal, $name:literal, $kind:ident) => {
        File($file, Desc::$kind(concat!("node_ksmd_", $name), concat!("ksmd '", $file, "' file."), &[]))
    };
}

static FILES: [File; 9] = [
    file!("full_scans", "full_scans_total", counter),
    file!("merge_across_nodes", "merge_across_nodes", gauge),
    file!("pages_shared", "pages_shared", gauge),
    file!("pages_sharing", "pages_sharing", gauge),
    file!("pages_to_scan", "pages_to_scan", gauge),
    file!("pages_unshared", "pages_unshared", gauge),
    file!("pages_volatile", "pages_volatile", gauge),
    file!("run", "run", gauge),
    file!("sleep_millisecs", "sleep_seconds", gauge),
];
const MILLISECONDS: usize = 8;

struct Ksmd {
    files: [Attribute; FILES.len()],
    buffer: Buffer,
}

fn build(host: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    let directory = host.sys("kernel/mm/ksm");
    let files = FILES.each_ref().map(|File(file, _)| Attribute::new(directory.join(file)));
    Ok(Box::new(Ksmd { files, buffer: Buffer::default() }))
}

impl Collector for Ksmd {
    /// The first file that is missing ends it: `merge_across_nodes` is in kernels that know NUMA only.
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        for (at, (file, File(_, desc))) in self.files.iter_mut().zip(&FILES).enumerate() {
            let value = match file.read(&mut self.buffer) {
                Ok(text) => text.parse::<u64>().map_err(|_| format!("expected a number, got {text:?}")),
                Err(source) => return Err(CollectError::Read { path: file.path().to_owned(), source }),
            };
            let value = value.map_err(|what| CollectError::parse(file.path(), what))? as f64;
            out.push(desc, &[], if at == MILLISECONDS { value / 1000.0 } else { value });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::collector::Settings;

    fn said(root: &Path) -> (Vec<(String, f64)>, Result<(), CollectError>) {
        let host = Host { sysfs: root.into(), ..Host::default() };
        let mut collector = build(&host, &Options::new(&ENTRY, &Settings::new())).expect("no settings");
        let mut out = Samples::new();
        let result = collector.collect(&host, &mut out);
        (out.iter().map(|(name, _, value)| (name.to_owned(), value)).collect(), result)
    }

    fn machine() -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a temporary directory");
        let directory = root.path().join("kernel/mm/ksm");
        fs::create_dir_all(&directory).expect("made");
        for File(file, _) in &FILES {
            fs::write(directory.join(file), "250\n").expect("written");
        }
        root
    }

    #[test]
    fn the_pause_is_said_in_seconds() {
        let root = machine();
        let (said, result) = said(root.path());
        assert!(result.is_ok());
        assert_eq!(said.len(), FILES.len());
        assert_eq!(said[0], ("node_ksmd_full_scans_total".to_owned(), 250.0));
        assert_eq!(said[MILLISECONDS], ("node_ksmd_sleep_seconds".to_owned(), 0.25));
    }

    #[test]
    fn a_missing_or_odd_file_ends_it() {
        let root = machine();
        fs::write(root.path().join("kernel/mm/ksm/pages_shared"), "many\n").expect("written");
        let (found, result) = said(root.path());
        assert!(matches!((found.len(), result), (2, Err(CollectError::Parse { .. }))));
        fs::remove_file(root.path().join("kernel/mm/ksm/merge_across_nodes")).expect("removed");
        let (found, result) = said(root.path());
        assert!(matches!((found.len(), result), (1, Err(CollectError::Read { .. }))));
    }
}
