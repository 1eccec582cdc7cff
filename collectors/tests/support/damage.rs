//! A copy of a made-up machine whose files are damaged one at a time.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use nodewarden_collectors::Host;

/// What is done to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// Nothing is left in it.
    Emptied,
    /// The first bytes are left.
    Cut(usize),
    /// It is no longer there, as when a device goes while it is looked at.
    Gone,
    /// A directory of its name.
    Directory,
    /// Opening it fails for everybody: it leads to itself.
    Unreadable,
    /// Other bytes.
    Bytes(Vec<u8>),
}

/// The copy; it goes away with the value.
pub struct Machine {
    top: tempfile::TempDir,
    files: Vec<PathBuf>,
}

impl Machine {
    /// A copy of what is below these directories, each below its own name. Links stay links, but for
    /// those out of it.
    pub fn copy(directories: &[PathBuf]) -> Self {
        let top = tempfile::tempdir().expect("a temporary directory");
        let mut files = Vec::new();
        for directory in directories {
            let name = Path::new(directory.file_name().expect("a name"));
            copy(directory, top.path(), name, &mut files);
        }
        files.sort();
        Self { top, files }
    }

    /// A copy of what is in one directory.
    pub fn copy_of(directory: &str) -> Self {
        let entries = fs::read_dir(directory).expect("listed");
        Self::copy(&entries.map(|entry| entry.expect("listed").path()).collect::<Vec<_>>())
    }

    /// Its files, relative to the top.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Where a file of it is.
    pub fn path(&self, file: &Path) -> PathBuf {
        self.top.path().join(file)
    }

    /// The top itself.
    pub fn top(&self) -> &Path {
        self.top.path()
    }

    /// The machine as collectors see it, its trees of these names.
    pub fn host(&self, [procfs, sysfs, rootfs, udev]: [&str; 4]) -> Host {
        let at = |name| self.top.path().join(name);
        Host {
            procfs: at(procfs),
            sysfs: at(sysfs),
            rootfs: at(rootfs),
            udev_data: at(udev),
            ..Host::default()
        }
    }

    /// What `look` sees while the file is damaged; it is as before afterwards.
    pub fn with<T>(&self, file: &Path, damage: &Damage, look: impl FnOnce() -> T) -> T {
        let path = self.path(file);
        let whole = fs::read(&path).expect("read");
        match damage {
            Damage::Emptied => fs::write(&path, ""),
            Damage::Cut(length) => fs::write(&path, &whole[..*length]),
            Damage::Bytes(bytes) => fs::write(&path, bytes),
            Damage::Gone => fs::remove_file(&path),
            Damage::Directory => fs::remove_file(&path).and_then(|()| fs::create_dir(&path)),
            Damage::Unreadable => fs::remove_file(&path).and_then(|()| symlink(&path, &path)),
        }
        .expect("damaged");
        let seen = look();
        if *damage == Damage::Directory {
            fs::remove_dir(&path).expect("removed");
        } else if *damage == Damage::Unreadable {
            fs::remove_file(&path).expect("removed");
        }
        fs::write(&path, whole).expect("restored");
        seen
    }
}

fn copy(from: &Path, top: &Path, below: &Path, files: &mut Vec<PathBuf>) {
    let to = top.join(below);
    let link = fs::read_link(from).ok().filter(|target| target.is_relative());
    if let Some(target) = link {
        symlink(target, to).expect("linked");
    } else if from.is_dir() {
        fs::create_dir_all(&to).expect("made");
        for entry in fs::read_dir(from).expect("listed") {
            let name = entry.expect("listed").file_name();
            copy(&from.join(&name), top, &below.join(&name), files);
        }
    } else {
        // Not a copy: some of them can't be written to.
        fs::write(to, fs::read(from).expect("read")).expect("written");
        files.push(below.to_owned());
    }
}

/// Everything that is done to a file with this text: cuts at its ends of lines and words and inside them, and what `noise`
/// makes.
pub fn damages(whole: &[u8], mut noise: impl FnMut(usize) -> Vec<u8>) -> Vec<Damage> {
    let mut cuts: Vec<usize> = [1, 2, 3].map(|third| whole.len() * third / 4).to_vec();
    cuts.extend(whole.len().checked_sub(1));
    // Behind the first line, in the middle of the last number.
    cuts.extend(whole.iter().position(|byte| *byte == b'\n').map(|at| at + 1));
    cuts.extend(whole.iter().rposition(u8::is_ascii_digit));
    cuts.sort_unstable();
    cuts.dedup();
    cuts.retain(|length| (1..whole.len()).contains(length));
    let mut all = vec![Damage::Emptied, Damage::Gone, Damage::Directory, Damage::Unreadable];
    all.extend(cuts.into_iter().map(Damage::Cut));
    all.push(Damage::Bytes(noise(whole.len())));
    all
}
