//! The control groups of pods and containers, followed from scrape to scrape.

use std::{
    collections::BTreeMap,
    fmt::Write,
    io,
    mem::MaybeUninit,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, RawDir},
    io::Errno,
};

use super::usage::{Files, Version};
use crate::{CollectError, Host, cgroup, pod_names::Who};

/// How often kubelets' directories are looked for: they are made when the kubelet starts for the first time.
const SEARCH_EVERY: Duration = Duration::from_secs(60);
/// They lie this many levels below the top at most: in a container of a container engine, for a node that is one itself.
const SEARCH_DEPTH: usize = 5;
/// And are looked for in so many directories at most.
const SEARCH_BREADTH: usize = 4096;
/// More containers than any node runs; what is beyond is left out.
const CONTAINERS: usize = 2048;

/// A pod's control group.
#[derive(Debug)]
pub struct Pod {
    /// As the pod's log folder has it.
    pub uid: String,
    /// Whose it is, without a container.
    pub who: Option<Who>,
    /// The control group of the pod as a whole.
    pub whole: Group,
    /// The control groups of its containers and of the sandbox that holds its network.
    pub members: Vec<Member>,
    is_seen: bool,
}

/// A control group in a pod.
#[derive(Debug)]
pub struct Member {
    /// The runtime's id.
    pub id: String,
    /// Nothing for a sandbox.
    pub who: Option<Who>,
    /// Where it is.
    pub group: Group,
    is_seen: bool,
}

/// A control group that is followed.
#[derive(Debug)]
pub struct Group {
    /// Its path below the top of its hierarchy.
    pub path: String,
    /// Its files.
    pub files: Files,
    /// When it was made, in seconds since the epoch.
    pub started: Option<i64>,
}

impl Group {
    fn new(version: &Version, path: &str) -> Self {
        Self { path: path.to_owned(), files: Files::new(version, path), started: None }
    }
}

/// The tree of a host.
#[derive(Debug)]
pub struct Tree {
    top: PathBuf,
    found: Option<Found>,
    searched: Option<Instant>,
    pods: BTreeMap<String, Pod>,
    /// Containers that are beyond what is followed.
    left_out: usize,
    levels: [Listing; 3],
    path: String,
}

/// Where kubelets keep their pods.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    version: Version,
    /// The hierarchy that is walked.
    hierarchy: PathBuf,
    /// Kubelets' directories in it, each with a slash in front.
    roots: Vec<String>,
}

impl Tree {
    pub fn new(host: &Host) -> Self {
        Self {
            top: host.sys("fs/cgroup"),
            found: None,
            searched: None,
            pods: BTreeMap::new(),
            left_out: 0,
            levels: Default::default(),
            path: String::new(),
        }
    }

    /// The pods that there are now. What went wrong with one directory does not hide the others.
    pub fn follow(&mut self, now: Instant, failed: &mut Option<CollectError>) -> &mut BTreeMap<String, Pod> {
        if self.searched.is_none_or(|then| now.saturating_duration_since(then) >= SEARCH_EVERY) {
            self.search(now);
        }
        let left_out_before = std::mem::take(&mut self.left_out);
        for pod in self.pods.values_mut() {
            pod.is_seen = false;
            pod.members.iter_mut().for_each(|member| member.is_seen = false);
        }
        if let Some(found) = self.found.take() {
            for root in &found.roots {
                self.walk(&found, root, failed);
            }
            self.found = Some(found);
        }
        self.pods.retain(|_, pod| {
            pod.members.retain(|member| member.is_seen);
            pod.is_seen
        });
        if self.left_out > left_out_before {
            tracing::warn!(
                containers = self.left_out,
                "there are more containers on this node than are followed: some have no series"
            );
        }
        &mut self.pods
    }

    /// Whether there is a kubelet's directory.
    pub fn has_any(&self) -> bool {
        self.found.is_some()
    }

    /// Looks for kubelets' directories.
    fn search(&mut self, now: Instant) {
        self.searched = Some(now);
        let found = Version::of(&self.top).and_then(|version| {
            version.hierarchies().into_iter().find_map(|hierarchy| {
                let roots = find_roots(&hierarchy, &mut self.levels[0]);
                (!roots.is_empty()).then(|| Found { version: version.clone(), hierarchy, roots })
            })
        });
        if found != self.found {
            // What was kept may be of another version.
            self.pods.clear();
            self.found = found;
        }
    }

    fn walk(&mut self, found: &Found, root: &str, failed: &mut Option<CollectError>) {
        let [root_level, quality_level, pod_level] = &mut self.levels;
        let count = self.pods.values().map(|pod| pod.members.len()).sum();
        let mut known =
            Known { pods: &mut self.pods, count, left_out: &mut self.left_out, path: &mut self.path };
        if !root_level.list(&found.hierarchy, root, failed) {
            // Another kubelet, or none any more.
            self.searched = None;
            return;
        }
        for name in root_level.names() {
            if cgroup::is_quality(name) {
                let quality = format!("{root}/{name}");
                quality_level.list(&found.hierarchy, &quality, failed);
                for name in quality_level.names() {
                    known.take_up(found, &quality, name, pod_level, failed);
                }
            } else {
                known.take_up(found, root, name, pod_level, failed);
            }
        }
    }
}

/// What is known of pods while they are walked through.
struct Known<'a> {
    pods: &'a mut BTreeMap<String, Pod>,
    /// How many containers they have.
    count: usize,
    left_out: &'a mut usize,
    path: &'a mut String,
}

impl Known<'_> {
    /// Takes up the directory `name` in `above`, if it is a pod's.
    fn take_up(
        &mut self,
        found: &Found,
        above: &str,
        name: &str,
        listing: &mut Listing,
        failed: &mut Option<CollectError>,
    ) {
        let Some(uid) = cgroup::pod_uid(name) else { return };
        set(self.path, above, name);
        if !listing.list(&found.hierarchy, self.path, failed) {
            return;
        }
        if !self.pods.contains_key(self.path.as_str()) {
            let pod = Pod {
                uid: uid.into_owned(),
                who: None,
                whole: Group::new(&found.version, self.path),
                members: Vec::new(),
                is_seen: true,
            };
            self.pods.insert(self.path.clone(), pod);
        }
        let Some(pod) = self.pods.get_mut(self.path.as_str()) else { return };
        pod.is_seen = true;
        for name in listing.names() {
            let Some(id) = cgroup::container_id(name) else { continue };
            if let Some(member) = pod.members.iter_mut().find(|member| member.id == id) {
                member.is_seen = true;
                continue;
            }
            if self.count >= CONTAINERS {
                *self.left_out += 1;
                continue;
            }
            self.count += 1;
            let path = format!("{}/{name}", pod.whole.path);
            let group = Group::new(&found.version, &path);
            pod.members.push(Member { id: id.to_owned(), who: None, group, is_seen: true });
        }
    }
}

fn set(path: &mut String, above: &str, name: &str) {
    path.clear();
    // Writing to a string does not fail.
    let _ = write!(path, "{above}/{name}");
}

/// The kubelets' directories in a hierarchy, level by level.
fn find_roots(hierarchy: &Path, listing: &mut Listing) -> Vec<String> {
    let mut roots = Vec::new();
    let mut level = vec![String::new()];
    let mut looked_at = 0;
    for _ in 0..=SEARCH_DEPTH {
        let mut next = Vec::new();
        for above in level {
            looked_at += 1;
            // One that can't be listed, or is gone by now, has none.
            if looked_at > SEARCH_BREADTH || !listing.list(hierarchy, &above, &mut None) {
                continue;
            }
            for name in listing.names() {
                let path = format!("{above}/{name}");
                if cgroup::is_kubepods(name) { roots.push(path) } else { next.push(path) }
            }
        }
        level = next;
    }
    roots.sort_unstable();
    roots
}

/// The names of the directories in one directory; the buffers are used again.
#[derive(Debug, Default)]
struct Listing {
    names: String,
    ends: Vec<usize>,
}

impl Listing {
    /// Lists `path`, which begins with a slash or is empty, below `hierarchy`. Whether it is there; another failure is noted.
    fn list(&mut self, hierarchy: &Path, path: &str, failed: &mut Option<CollectError>) -> bool {
        self.names.clear();
        self.ends.clear();
        let path = hierarchy.join(path.trim_start_matches('/'));
        match self.read(&path) {
            Ok(()) => true,
            Err(Errno::NOENT | Errno::NODEV) => false,
            Err(error) => {
                let source = io::Error::from(error);
                failed.get_or_insert(CollectError::Read { path, source });
                false
            }
        }
    }

    fn read(&mut self, path: &Path) -> Result<(), Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut entries = RawDir::new(directory, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            // Names of control groups that are told apart are ASCII.
            let Ok(name) = entry.file_name().to_str() else { continue };
            if matches!(entry.file_type(), FileType::Directory | FileType::Unknown)
                && !matches!(name, "." | "..")
            {
                self.names.push_str(name);
                self.ends.push(self.names.len());
            }
        }
        Ok(())
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        let begins = std::iter::once(&0).chain(&self.ends);
        begins.zip(&self.ends).filter_map(|(begin, end)| self.names.get(*begin..*end))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const ID: &str = "5d1f0a7c2b3e4f60718293a4b5c6d7e8f90123456789abcdef0123456789abcd";

    fn host() -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().expect("a temporary directory");
        let host = Host { sysfs: root.path().into(), ..Host::default() };
        fs::create_dir_all(root.path().join("fs/cgroup")).expect("made");
        fs::write(root.path().join("fs/cgroup/cgroup.controllers"), "cpu memory\n").expect("written");
        (root, host)
    }

    fn make(host: &Host, path: &str) {
        fs::create_dir_all(host.sys("fs/cgroup").join(path)).expect("made");
    }

    fn remove(host: &Host, path: &str) {
        fs::remove_dir_all(host.sys("fs/cgroup").join(path)).expect("removed");
    }

    /// The pods as "PATH: ID ID".
    fn seen(tree: &mut Tree, now: Instant) -> Vec<String> {
        let mut failed = None;
        let pods = tree.follow(now, &mut failed);
        let text = |pod: &Pod| {
            let mut ids: Vec<&str> = pod.members.iter().map(|member| member.id.as_str()).collect();
            ids.sort_unstable();
            format!("{} {}: {}", pod.whole.path, pod.uid, ids.join(" ")).trim_end().to_owned()
        };
        let seen = pods.values().map(text).collect();
        assert!(failed.is_none(), "{failed:?}");
        seen
    }

    #[test]
    fn pods_come_and_go_in_every_quality_of_service() {
        let (_root, host) = host();
        let (mut tree, now) = (Tree::new(&host), Instant::now());
        for path in ["burstable/pod1/", "besteffort/pod2/", "pod3/crio-conmon-", "pod3/crio-"] {
            make(&host, &format!("kubepods/{path}{ID}"));
        }
        make(&host, "kubepods/burstable/other");
        make(&host, &format!("system.slice/{ID}"));
        let all = [
            format!("/kubepods/besteffort/pod2 2: {ID}"),
            format!("/kubepods/burstable/pod1 1: {ID}"),
            format!("/kubepods/pod3 3: {ID}"),
        ];
        assert_eq!(seen(&mut tree, now), all);
        remove(&host, "kubepods/besteffort/pod2");
        remove(&host, &format!("kubepods/pod3/crio-{ID}"));
        make(&host, "kubepods/burstable/pod4");
        assert_eq!(seen(&mut tree, now), [&*all[1], "/kubepods/burstable/pod4 4:", "/kubepods/pod3 3:"]);
    }

    #[test]
    fn a_kubelet_is_found_where_it_is_and_later_too() {
        let (_root, host) = host();
        let (mut tree, now) = (Tree::new(&host), Instant::now());
        assert!(seen(&mut tree, now).is_empty() && !tree.has_any());
        let nested = "docker/abc/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod5_6.slice";
        make(&host, &format!("{nested}/cri-containerd-{ID}.scope"));
        assert!(seen(&mut tree, now).is_empty(), "it is not searched for at each scrape");
        let later = now + SEARCH_EVERY;
        assert_eq!(seen(&mut tree, later), [format!("/{nested} 5-6: {ID}")]);
        assert!(tree.has_any());
        remove(&host, "docker");
        assert!(seen(&mut tree, later).is_empty());
        make(&host, "kubepods/pod7");
        assert_eq!(
            seen(&mut tree, later),
            ["/kubepods/pod7 7:"],
            "a kubelet that is gone is searched for at once"
        );
    }

    #[test]
    fn the_number_of_containers_is_bounded() {
        let (_root, host) = host();
        let mut tree = Tree::new(&host);
        for pod in 0..3 {
            for container in 0..CONTAINERS / 2 {
                make(&host, &format!("kubepods/pod{pod}/{container:064x}"));
            }
        }
        let count = |tree: &mut Tree| -> usize {
            tree.follow(Instant::now(), &mut None).values().map(|pod| pod.members.len()).sum()
        };
        assert_eq!(count(&mut tree), CONTAINERS);
        assert_eq!(count(&mut tree), CONTAINERS);
    }
}
