//! Which log files there are: enumeration is the truth, inotify ([`watcher`](super::watcher)) only says when to look again.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    record::{Container, Origin},
    tail::is_gzip,
};

/// Where to look for log files.
#[derive(Debug, Clone)]
pub enum Source {
    /// The agent itself, see [`super::canary`].
    Canary(super::canary::Lookout),
    /// The kubelet's tree of container logs.
    Kubernetes {
        /// Usually `/var/log/pods`.
        path: PathBuf,
        /// Namespaces whose logs are not read.
        exclude_namespaces: Vec<String>,
    },
    /// Plain files.
    Files {
        /// Glob patterns of files to read.
        include: Vec<glob::Pattern>,
        /// Glob patterns of files not to read.
        exclude: Vec<glob::Pattern>,
    },
    /// journald's files: no lines, see [`super::journal`].
    Journal {
        /// Directories of a host's journals.
        paths: Vec<PathBuf>,
    },
    /// The kernel's messages: no file, see [`super::kernel`].
    Kernel {
        /// Where the device may be; the first one that can be opened is read.
        devices: Vec<PathBuf>,
        /// The file with the id of this boot.
        boot_id: PathBuf,
    },
}

impl Source {
    /// Who writes a file of this path, if it is one of this source; else why it is none. Nothing is looked up.
    pub fn takes(&self, path: &Path) -> Result<Origin, String> {
        match self {
            Self::Kubernetes { path: base, exclude_namespaces } => {
                takes_container(base, exclude_namespaces, path)
            }
            Self::Files { include, exclude } => takes_file(include, exclude, path),
            Self::Journal { .. } => Err("it reads the journal, no text files".into()),
            Self::Kernel { .. } => Err("it reads the kernel's messages, no files".into()),
            Self::Canary(_) => Err("it writes a line of its own, once a minute".into()),
        }
    }
}

fn takes_container(base: &Path, exclude_namespaces: &[String], path: &Path) -> Result<Origin, String> {
    let shape = "<namespace>_<pod>_<uid>/<container>/<restart>.log";
    let below = path
        .strip_prefix(base)
        .map_err(|_| format!("it reads {}/{shape}, and the file is not below", base.display()))?;
    let parts: Vec<&str> = below.iter().filter_map(|part| part.to_str()).collect();
    let found = match parts[..] {
        [pod, container, file] => {
            parse_pod_directory(pod).zip(parse_container_file(file)).map(|both| (container, both))
        }
        _ => None,
    };
    let Some((container, ((namespace, pod, uid), restart))) = found else {
        return Err(format!("below {} a file is {shape}", base.display()));
    };
    if exclude_namespaces.iter().any(|excluded| excluded == namespace) {
        return Err(format!("the namespace {namespace} is among exclude_namespaces"));
    }
    let (namespace, pod, uid) = (namespace.to_owned(), pod.to_owned(), uid.to_owned());
    Ok(Origin::Container(Arc::new(Container { namespace, pod, uid, name: container.to_owned(), restart })))
}

fn takes_file(include: &[glob::Pattern], exclude: &[glob::Pattern], path: &Path) -> Result<Origin, String> {
    // As a directory is listed: a wildcard does not reach over a slash.
    let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
    let text = path.to_string_lossy();
    // What was renamed away from a name belongs to it.
    let names = text.rmatch_indices(['.', '-']).filter(|(at, _)| is_rotation_suffix(&text[at + 1..]));
    let names: Vec<&str> = [&*text].into_iter().chain(names.map(|(at, _)| &text[..at])).collect();
    let fits = |name: &&&str| include.iter().any(|pattern| pattern.matches_with(name, options));
    let Some(active) = names.iter().find(fits) else {
        return Err("none of its include patterns fits".into());
    };
    match exclude.iter().find(|pattern| pattern.matches(active)) {
        Some(pattern) => Err(format!("its exclude pattern {pattern} fits")),
        None if is_gzip(Path::new(active)) => Err("a compressed file is nobody's that is written to".into()),
        None => Ok(Origin::Plain),
    }
}

/// A log file that is there now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where it is.
    pub path: Arc<Path>,
    /// The name under which it is or was written to.
    pub active_path: Arc<Path>,
    /// Who writes it.
    pub origin: Origin,
    /// The number of the source that found it.
    pub source: usize,
}

impl Found {
    /// Whether it was renamed away and another file took its name.
    pub fn is_rotated(&self) -> bool {
        self.path != self.active_path
    }

    /// Whether it is a rotated file that was compressed.
    pub fn is_gzip(&self) -> bool {
        is_gzip(&self.path)
    }
}

/// What one look around found.
#[derive(Debug, Default)]
pub struct Enumeration {
    /// The files, each once.
    pub files: Vec<Found>,
    /// The directories that new files may appear in.
    pub directories: HashSet<PathBuf>,
    /// Whether a link was followed under the host's root, because its target is not there.
    pub under_root: bool,
    /// Whether files may appear that no watched directory tells of.
    pub has_blind_spots: bool,
    /// Directories that could not be listed.
    pub problems: Vec<(PathBuf, io::Error)>,
}

impl Enumeration {
    /// Where a directory is not there, the nearest one above it tells when it appears.
    fn watch_way_to(&mut self, directory: &Path) {
        if !directory.exists() {
            let nearest = directory.ancestors().find(|above| above.is_dir());
            self.directories.extend(nearest.map(Path::to_owned));
        }
    }
}

/// Looks at every source. Links that lead nowhere are followed under `root`, where the host's file systems are seen.
pub fn enumerate(sources: &[Source], root: &Path) -> Enumeration {
    let mut found = Enumeration::default();
    for (number, source) in sources.iter().enumerate() {
        let before = found.files.len();
        match source {
            Source::Kubernetes { path, exclude_namespaces } => {
                enumerate_pods(path, exclude_namespaces, root, &mut found);
            }
            Source::Files { include, exclude } => enumerate_files(include, exclude, &mut found),
            Source::Journal { .. } | Source::Kernel { .. } | Source::Canary(_) => {}
        }
        for file in &mut found.files[before..] {
            file.source = number;
        }
    }
    let mut seen = HashSet::new();
    found.files.retain(|file| seen.insert(Arc::clone(&file.path)));
    // While it is being made the file itself is there; a copy is recognised best when all others are known.
    let (copies, mut files): (Vec<_>, Vec<_>) = found.files.into_iter().partition(Found::is_gzip);
    files.extend(copies.into_iter().filter(|copy| !seen.contains(copy.path.with_extension("").as_path())));
    found.files = files;
    found
}

fn enumerate_pods(path: &Path, exclude_namespaces: &[String], root: &Path, found: &mut Enumeration) {
    found.watch_way_to(path);
    let pods = list(path, found);
    // It may be made later.
    found.has_blind_spots |= !found.directories.contains(path);
    for (pod_path, pod_name) in pods {
        let Some((namespace, pod, uid)) = parse_pod_directory(&pod_name) else {
            continue;
        };
        if exclude_namespaces.iter().any(|excluded| excluded == namespace) {
            continue;
        }
        for (container_path, container) in list(&pod_path, found) {
            let container = Container {
                namespace: namespace.to_owned(),
                pod: pod.to_owned(),
                uid: uid.to_owned(),
                name: container,
                restart: 0,
            };
            enumerate_container(&container_path, &container, root, found);
        }
    }
}

/// One container's files, its earlier runs' included.
fn enumerate_container(directory: &Path, container: &Container, root: &Path, found: &mut Enumeration) {
    for (path, file_name) in list(directory, found) {
        let Some(restart) = parse_container_file(&file_name) else {
            continue;
        };
        let origin = Origin::Container(Arc::new(Container { restart, ..container.clone() }));
        let path: Arc<Path> = path.into();
        let active_name = format!("{restart}.log");
        // Thousands of files are there at once: those that were not rotated have one path.
        let active_path =
            if file_name == active_name { Arc::clone(&path) } else { directory.join(active_name).into() };
        // With Docker the name is a link to a file that Docker rotates in its own directory.
        let mut target = link_target(&path);
        let (mut path, mut active_path) = (path, active_path);
        if let Some(elsewhere) = target.as_deref().and_then(|target| under_root(target, root)) {
            found.under_root = true;
            path = elsewhere.as_path().into();
            active_path = Arc::clone(&path);
            target = Some(elsewhere);
        }
        found.has_blind_spots |= target.is_some();
        for path in target.iter().flat_map(|target| rotated_siblings(target)) {
            let (active_path, origin) = (Arc::clone(&active_path), origin.clone());
            found.files.push(Found { path: path.into(), active_path, origin, source: 0 });
        }
        found.files.push(Found { path, active_path, origin, source: 0 });
    }
}

/// Where a file that is not there is under the host's root.
fn under_root(target: &Path, root: &Path) -> Option<PathBuf> {
    if root == Path::new("/") || target.exists() {
        return None;
    }
    let elsewhere = root.join(target.strip_prefix("/").ok()?);
    elsewhere.exists().then_some(elsewhere)
}

/// Where a symbolic link leads to; `None` when it is none.
fn link_target(path: &Path) -> Option<PathBuf> {
    let target = fs::read_link(path).ok()?;
    Some(path.parent()?.join(target))
}

/// The entries of a directory that is to be watched; one that vanishes meanwhile, or is a file, has none.
fn list(directory: &Path, found: &mut Enumeration) -> Vec<(PathBuf, String)> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Vec::new();
        }
        Err(error) => {
            found.problems.push((directory.to_owned(), error));
            return Vec::new();
        }
    };
    found.directories.insert(directory.to_owned());
    let named = |entry: fs::DirEntry| Some((entry.path(), entry.file_name().into_string().ok()?));
    entries.flatten().filter_map(named).collect()
}

/// "shop_cart-1_0b9c...": neither namespaces nor pod names hold an underscore.
fn parse_pod_directory(name: &str) -> Option<(&str, &str, &str)> {
    let mut fields = name.splitn(3, '_');
    Some((fields.next()?, fields.next()?, fields.next()?))
}

/// "3.log" or "3.log.20261121-101010", the kubelet's rotated name, or that with ".gz"; while it compresses a file that ends
/// in ".tmp".
fn parse_container_file(name: &str) -> Option<u32> {
    let (restart, rest) = name.split_once(".log")?;
    let is_ours = rest.is_empty() || rest.strip_prefix('.').is_some_and(is_rotation_suffix);
    if is_ours { restart.parse().ok() } else { None }
}

/// What logrotate or the kubelet append: digits, dashes, and ".gz" when they compress.
fn is_rotation_suffix(suffix: &str) -> bool {
    let suffix = suffix.strip_suffix(".gz").unwrap_or(suffix);
    !suffix.is_empty() && suffix.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
}

fn enumerate_files(include: &[glob::Pattern], exclude: &[glob::Pattern], found: &mut Enumeration) {
    for pattern in include {
        if let Some(parent) = fixed_parent(pattern.as_str()) {
            found.watch_way_to(&parent);
            // A wildcard in the name of a directory stands for directories that are not watched.
            found.has_blind_spots |= Path::new(pattern.as_str()).parent() != Some(&parent);
            found.directories.insert(parent);
        }
        // The pattern was compiled once already, so it is valid.
        let Ok(paths) = glob::glob(pattern.as_str()) else { continue };
        for path in paths {
            match path {
                // Without the file it was rotated from, a compressed one is somebody's archive.
                Ok(path) if path.is_file() && !is_gzip(&path) => add_with_rotated(&path, exclude, found),
                Ok(_) => {}
                Err(error) => found.problems.push((error.path().to_owned(), error.into())),
            }
        }
    }
}

/// The file and the siblings that were renamed away from its name: "syslog.1", "app.log-20261121".
fn add_with_rotated(active: &Path, exclude: &[glob::Pattern], found: &mut Enumeration) {
    if exclude.iter().any(|pattern| pattern.matches_path(active)) {
        return;
    }
    let active: Arc<Path> = active.into();
    let mut push = |path: Arc<Path>| {
        let active_path = Arc::clone(&active);
        found.files.push(Found { path, active_path, origin: Origin::Plain, source: 0 });
    };
    push(Arc::clone(&active));
    rotated_siblings(&active).into_iter().for_each(|path| push(path.into()));
}

/// The files beside `active` whose names are its own with the mark of a rotation.
fn rotated_siblings(active: &Path) -> Vec<PathBuf> {
    let (Some(parent), Some(name)) = (active.parent(), active.file_name().and_then(|name| name.to_str()))
    else {
        return Vec::new();
    };
    let is_sibling = |entry: &fs::DirEntry| {
        let sibling = entry.file_name();
        let suffix =
            sibling.to_str().and_then(|sibling| sibling.strip_prefix(name)?.strip_prefix(['.', '-']));
        suffix.is_some_and(is_rotation_suffix)
    };
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    entries.filter(is_sibling).map(|entry| entry.path()).collect()
}

/// The directory before the first wildcard of a pattern.
fn fixed_parent(pattern: &str) -> Option<PathBuf> {
    let wildcard = pattern.find(['*', '?', '[']).unwrap_or(pattern.len());
    let end = pattern[..wildcard].rfind('/')?;
    Some(PathBuf::from(if end == 0 { "/" } else { &pattern[..end] }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(path: &Path) {
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, "").expect("written");
    }

    fn names(found: &Enumeration) -> Vec<String> {
        let mut names: Vec<_> = found
            .files
            .iter()
            .map(|file| {
                file.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
            })
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_pods_tree_tells_who_writes() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        touch(&dir.path().join("shop_cart-1_u-1/app/2.log"));
        touch(&dir.path().join("shop_cart-1_u-1/app/2.log.20261121-101010"));
        touch(&dir.path().join("shop_cart-1_u-1/app/1.log.20261121-101010.gz"));
        touch(&dir.path().join("quiet_x_u-2/app/0.log"));
        touch(&dir.path().join("stray.txt"));
        let source = Source::Kubernetes { path: dir.path().into(), exclude_namespaces: vec!["quiet".into()] };
        let found = enumerate(&[source], Path::new("/"));
        assert_eq!(names(&found), ["1.log.20261121-101010.gz", "2.log", "2.log.20261121-101010"]);
        assert_eq!(found.files[0].origin, crate::testing::container(2));
        assert!(found.files.last().is_some_and(Found::is_gzip), "copies come last");
        assert_eq!(found.files.iter().filter(|file| file.is_rotated()).count(), 2);
        assert!(found.directories.contains(&dir.path().join("shop_cart-1_u-1/app")));
    }

    #[test]
    fn plain_files_bring_their_rotated_siblings() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for name in [
            "syslog",
            "syslog.1",
            "syslog-20261121",
            "syslog.2.gz",
            "syslog.1.gz",
            "app.gz",
            "syslogd",
            "debug",
        ] {
            touch(&dir.path().join(name));
        }
        let pattern =
            |name: &str| glob::Pattern::new(&format!("{}/{name}", dir.path().display())).expect("a pattern");
        let source = Source::Files { include: vec![pattern("*")], exclude: vec![pattern("d*")] };
        let found = enumerate(std::slice::from_ref(&source), Path::new("/"));
        // Here the wildcard matches the siblings by themselves, and each file is there once.
        assert_eq!(names(&found), ["syslog", "syslog-20261121", "syslog.1", "syslog.2.gz", "syslogd"]);
        let source = Source::Files { include: vec![pattern("syslog")], exclude: vec![] };
        // "syslog.1.gz" is being made of "syslog.1".
        assert_eq!(
            names(&enumerate(&[source], Path::new("/"))),
            ["syslog", "syslog-20261121", "syslog.1", "syslog.2.gz"]
        );
    }

    #[test]
    fn a_missing_tree_is_no_problem_but_an_unreadable_one_is() {
        let source = Source::Kubernetes { path: "/nonexistent/pods".into(), exclude_namespaces: vec![] };
        let found = enumerate(&[source], Path::new("/"));
        assert!(found.files.is_empty() && found.problems.is_empty());
    }

    #[test]
    fn a_file_knows_the_number_of_its_source() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        touch(&dir.path().join("app.log"));
        let pattern = glob::Pattern::new(&format!("{}/*.log", dir.path().display())).expect("a pattern");
        let sources = [
            Source::Kubernetes { path: "/nonexistent/pods".into(), exclude_namespaces: vec![] },
            Source::Files { include: vec![pattern], exclude: vec![] },
        ];
        assert_eq!(enumerate(&sources, Path::new("/")).files[0].source, 1);
    }

    #[test]
    fn files_that_docker_rotated_behind_a_link_are_found() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (pods, docker) = (dir.path().join("pods"), dir.path().join("docker"));
        touch(&docker.join("c1-json.log"));
        touch(&docker.join("c1-json.log.1"));
        let container = pods.join("shop_cart-1_u-1/app");
        fs::create_dir_all(&container).expect("made");
        std::os::unix::fs::symlink(docker.join("c1-json.log"), container.join("0.log")).expect("linked");
        let found =
            enumerate(&[Source::Kubernetes { path: pods, exclude_namespaces: vec![] }], Path::new("/"));
        assert_eq!(names(&found), ["0.log", "c1-json.log.1"]);
        assert!(found.files.iter().all(|file| *file.active_path == *container.join("0.log")));
    }

    #[test]
    fn a_link_that_leads_nowhere_is_followed_under_the_hosts_root() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (pods, root) = (dir.path().join("pods"), dir.path().join("root"));
        let target = Path::new("/nonexistent/docker/c1-json.log");
        let here = root.join("nonexistent/docker/c1-json.log");
        touch(&here);
        touch(&here.with_extension("log.1"));
        let container = pods.join("shop_cart-1_u-1/app");
        fs::create_dir_all(&container).expect("made");
        std::os::unix::fs::symlink(target, container.join("0.log")).expect("linked");
        let source = Source::Kubernetes { path: pods, exclude_namespaces: vec![] };
        let found = enumerate(std::slice::from_ref(&source), &root);
        assert!(found.under_root);
        assert_eq!(names(&found), ["c1-json.log", "c1-json.log.1"]);
        assert_eq!(found.files.iter().filter(|file| file.is_rotated()).count(), 1);
        assert!(found.files.iter().all(|file| *file.active_path == *here));
        let found = enumerate(&[source], Path::new("/"));
        assert_eq!((found.under_root, names(&found)), (false, vec!["0.log".to_owned()]));
    }
}
