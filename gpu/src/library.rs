//! Where NVIDIA's library may be: drivers install it, container runtimes inject it, clouds keep it in folders of their own.

use std::path::{Path, PathBuf};

/// The library's name. The name without a version is gone from the packages of newer drivers.
const NAME: &str = "libnvidia-ml.so.1";

/// Folders of a system below its root.
const FOLDERS: [&str; 5] =
    ["usr/lib64", "usr/lib", "usr/lib/TRIPLE", "usr/lib/TRIPLE/nvidia/current", "lib64"];

/// Folders below which drivers are that are no part of the system: the GPU operator's, and those of managed nodes.
const DRIVERS: [&str; 3] = ["run/nvidia/driver", "home/kubernetes/bin/nvidia", "usr/local/nvidia"];

/// The triple of this build's machine in Debian's paths.
const TRIPLE: &str = match std::env::consts::ARCH.as_bytes() {
    b"aarch64" => "aarch64-linux-gnu",
    _ => "x86_64-linux-gnu",
};

/// Where it is looked for, in this order: by its name, as the loader finds it (`LD_LIBRARY_PATH`, what a container runtime put
/// in), then below each root: the host's, and this container's own.
pub fn candidates(host_root: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from(NAME)];
    let own = Path::new("/");
    let mut roots: Vec<&Path> = vec![own];
    if host_root != own {
        roots.push(host_root);
    }
    for root in roots {
        let systems = [root.to_owned()].into_iter().chain(DRIVERS.map(|driver| root.join(driver)));
        for system in systems {
            for folder in FOLDERS.iter().chain(&["lib/TRIPLE"]) {
                found.push(system.join(folder.replace("TRIPLE", TRIPLE)).join(NAME));
            }
        }
    }
    found.retain(|path| path.is_relative() || path.is_file());
    found
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_name_comes_first_then_what_is_there() {
        let root = tempfile::tempdir().expect("a directory");
        let driver = root.path().join("run/nvidia/driver/usr/lib").join(TRIPLE);
        let cloud = root.path().join("home/kubernetes/bin/nvidia/lib64");
        // A mount of a file that is not there makes a directory of its name.
        let mistaken = root.path().join("usr/lib64").join(NAME);
        for path in [&driver, &cloud, &mistaken] {
            fs::create_dir_all(path).expect("a directory");
        }
        for path in [&driver, &cloud] {
            fs::write(path.join(NAME), "").expect("a file");
        }
        let found = candidates(root.path());
        let below: Vec<&PathBuf> = found.iter().filter(|path| path.starts_with(root.path())).collect();
        assert_eq!(found[0], Path::new(NAME));
        assert_eq!(below, [&driver.join(NAME), &cloud.join(NAME)]);
    }
}
