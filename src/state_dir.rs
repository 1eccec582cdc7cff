//! `nodewarden prepare-state`: the one thing that needs root, so that the agent itself does not. A folder of the node that is
//! mounted into a pod belongs to root, and no setting of the pod changes that.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt, lchown},
    path::{Path, PathBuf},
};

use anyhow::Context;

use crate::cli::Owner;

/// The agent's own: its lines are as private as the files that they came from.
const MODE: u32 = 0o700;

/// Makes `directory` and gives it and what is in it to `owner`, also what an agent with another user left there. Links are
/// not followed.
pub fn prepare(directory: &Path, owner: Owner) -> anyhow::Result<()> {
    make(directory).with_context(|| format!("could not make the state directory {}", directory.display()))?;
    let mut directories = vec![directory.to_path_buf()];
    while let Some(directory) = directories.pop() {
        // First what is in it, then the folder: who may not pass on what is not theirs any more fails here and not half-way.
        let entries = list(&directory)
            .with_context(|| format!("could not list {}; run this as root", directory.display()))?;
        for (path, is_directory) in entries {
            match is_directory {
                true => directories.push(path),
                false => give(&path, owner)?,
            }
        }
        give(&directory, owner)?;
    }
    Ok(())
}

fn make(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    fs::set_permissions(directory, Permissions::from_mode(MODE))
}

fn list(directory: &Path) -> io::Result<Vec<(PathBuf, bool)>> {
    let entry = |entry: io::Result<fs::DirEntry>| {
        let entry = entry?;
        Ok((entry.path(), entry.file_type()?.is_dir()))
    };
    fs::read_dir(directory)?.map(entry).collect()
}

fn give(path: &Path, owner: Owner) -> anyhow::Result<()> {
    let about =
        || format!("could not give {} to {}:{}; run this as root", path.display(), owner.uid, owner.gid);
    let there = fs::symlink_metadata(path).with_context(about)?;
    if (there.uid(), there.gid()) != (owner.uid, owner.gid) {
        lchown(path, Some(owner.uid), Some(owner.gid)).with_context(about)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn everything_in_it_is_given_and_links_are_not_followed() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::NamedTempFile::new().unwrap());
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let state = dir.path().join("a/state");
        fs::create_dir_all(state.join("store/deep")).unwrap();
        fs::write(state.join("store/deep/segment"), "x").unwrap();
        symlink(outside.path(), state.join("link")).unwrap();
        prepare(&state, Owner { uid: 65534, gid: 0 }).unwrap();
        for name in ["", "store", "store/deep", "store/deep/segment", "link"] {
            let there = fs::symlink_metadata(state.join(name)).unwrap();
            assert_eq!((there.uid(), there.gid()), (65534, 0), "{name}");
        }
        assert_eq!(fs::metadata(&state).unwrap().mode() & 0o777, MODE);
        assert_eq!(fs::metadata(dir.path().join("a")).unwrap().uid(), 0);
        assert_eq!(fs::metadata(outside.path()).unwrap().uid(), 0);
        prepare(&state, Owner { uid: 0, gid: 0 }).unwrap();
        assert_eq!(fs::metadata(state.join("store/deep/segment")).unwrap().uid(), 0);
    }

    #[test]
    fn what_is_in_the_way_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let said = format!("{:#}", prepare(file.path(), Owner { uid: 1, gid: 1 }).unwrap_err());
        assert!(said.contains(&file.path().display().to_string()), "{said}");
    }
}
