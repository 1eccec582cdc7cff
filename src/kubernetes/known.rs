//! The pods that are known on this node: those that run, and those that are gone but whose logs are not.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use nodewarden_collectors::containers::Container;
use tokio::sync::Notify;

use super::pod::Pod;

const FILE: &str = "pods.json";
/// A pod that is gone is kept this long even when no open file is its own: its last file may not be found yet.
const GONE_FOR: Duration = Duration::from_secs(60);
/// Of pods that are gone, at most so many are kept.
const GONE_KEPT: usize = 1000;

/// The table that who asks the cluster fills and who reads logs looks at. An entry that a reader of logs holds on to stays.
#[derive(Debug, Default)]
pub struct Pods {
    entries: Mutex<HashMap<String, Entry>>,
    /// Whether the cluster answered when it was asked last, or was not asked yet.
    answers: AtomicBool,
    missed: Notify,
    changed: Notify,
}

#[derive(Debug)]
struct Entry {
    pod: Arc<Pod>,
    /// Since when the cluster knows it no more.
    gone: Option<Instant>,
}

impl Pods {
    /// An empty table, before the cluster was asked.
    pub fn new() -> Self {
        Self { answers: AtomicBool::new(true), ..Self::default() }
    }

    /// The pod with this uid.
    pub fn get(&self, uid: &str) -> Option<Arc<Pod>> {
        self.lock().get(uid).map(|entry| Arc::clone(&entry.pod))
    }

    /// The container to which its runtime gave this id, for the collectors.
    pub fn container(&self, id: &str) -> Option<Container> {
        let entries = self.lock();
        let mut containers = entries
            .values()
            .flat_map(|entry| entry.pod.containers.iter().map(|container| (entry.pod.as_ref(), container)));
        let (pod, found) =
            containers.find(|(_, container)| container.ids.iter().any(|known| known.id == id))?;
        Some(Container {
            namespace: pod.namespace.clone(),
            pod: pod.name.clone(),
            name: found.name.clone(),
            image: found.image.clone(),
        })
    }

    /// Whether it is worth waiting for a pod that is not known yet.
    pub fn answers(&self) -> bool {
        self.answers.load(Relaxed)
    }

    /// Somebody reads logs of a pod that is not here.
    pub fn miss(&self) {
        self.missed.notify_one();
    }

    /// Until somebody misses a pod.
    pub async fn missed(&self) {
        self.missed.notified().await;
    }

    /// Until something changes.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Notes whether the cluster answers.
    pub fn set_answers(&self, answers: bool) {
        self.answers.store(answers, Relaxed);
    }

    /// How many pods are known.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes in one pod that is there. Whether it is new or another one than before.
    pub fn put(&self, pod: Pod) -> bool {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(&pod.uid) else {
            entries.insert(pod.uid.clone(), Entry { pod: Arc::new(pod), gone: None });
            self.changed.notify_one();
            return true;
        };
        entry.gone = None;
        let pod = keep_ids(&entry.pod, pod);
        let is_other = *entry.pod != pod;
        if is_other {
            entry.pod = Arc::new(pod);
            self.changed.notify_one();
        }
        is_other
    }

    /// Takes in every pod that there is; what is not among them is gone. The uids of those that are new or changed.
    pub fn put_all(&self, pods: Vec<Pod>, now: Instant) -> Vec<String> {
        let there: HashSet<String> = pods.iter().map(|pod| pod.uid.clone()).collect();
        let changed = pods.into_iter().filter_map(|pod| {
            let uid = pod.uid.clone();
            self.put(pod).then_some(uid)
        });
        let changed = changed.collect();
        for (uid, entry) in self.lock().iter_mut() {
            if !there.contains(uid) {
                entry.gone.get_or_insert(now);
            }
        }
        changed
    }

    /// A pod was deleted.
    pub fn gone(&self, uid: &str, now: Instant) {
        if let Some(entry) = self.lock().get_mut(uid) {
            entry.gone.get_or_insert(now);
        }
    }

    /// Forgets the pods that are gone and whose logs nobody reads any more. Whether there were any.
    pub fn prune(&self, now: Instant) -> bool {
        let mut entries = self.lock();
        let before = entries.len();
        entries.retain(|_, entry| {
            let is_over = entry.gone.is_some_and(|since| now.saturating_duration_since(since) >= GONE_FOR);
            !is_over || Arc::strong_count(&entry.pod) > 1
        });
        let mut gone: Vec<(Instant, String)> =
            entries.iter().filter_map(|(uid, entry)| Some((entry.gone?, uid.clone()))).collect();
        if gone.len() > GONE_KEPT {
            gone.sort();
            for (_, uid) in &gone[..gone.len() - GONE_KEPT] {
                entries.remove(uid);
            }
        }
        entries.len() < before
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The status says the ids of the last two runs only; the files of earlier ones may still be there.
fn keep_ids(before: &Pod, mut pod: Pod) -> Pod {
    const KEPT: usize = 6;
    for container in &mut pod.containers {
        for id in before.container(&container.name).map_or(&[][..], |before| &before.ids) {
            if container.ids.len() < KEPT && container.id(id.restart).is_none() {
                container.ids.push(id.clone());
            }
        }
    }
    pod
}

/// What is known, in the state directory: a pod may be deleted and the agent restarted before its last lines are shipped.
#[derive(Debug)]
pub struct PodsFile {
    path: PathBuf,
}

impl PodsFile {
    /// In a state directory.
    pub fn new(state_dir: &Path) -> Self {
        Self { path: state_dir.join(FILE) }
    }

    /// Reads what is known: pods that are gone until the cluster says otherwise. A damaged file is as good as none, which is said.
    pub fn load(&self, pods: &Pods, now: Instant) {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "could not read what was known of pods");
                return;
            }
        };
        match serde_json::from_slice::<Vec<Pod>>(&bytes) {
            Ok(known) => {
                let mut entries = pods.lock();
                for pod in known {
                    entries.insert(pod.uid.clone(), Entry { pod: Arc::new(pod), gone: Some(now) });
                }
            }
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "what was known of pods is damaged: lines of pods that are gone by now ship without labels");
            }
        }
    }

    /// Writes what is known, beside and renamed over.
    pub fn write(&self, pods: &Pods) -> io::Result<()> {
        let mut known: Vec<Arc<Pod>> = pods.lock().values().map(|entry| Arc::clone(&entry.pod)).collect();
        known.sort_by(|one, other| one.uid.cmp(&other.uid));
        let known: Vec<&Pod> = known.iter().map(AsRef::as_ref).collect();
        let new = self.path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(&known)?)?;
        file.sync_data()?;
        fs::rename(&new, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    use crate::kubernetes::pod::{ContainerFacts, ContainerId};

    fn pod(uid: &str, app: &str) -> Pod {
        Pod {
            uid: uid.into(),
            namespace: "shop".into(),
            name: "cart".into(),
            ip: None,
            labels: [("app".to_owned(), app.to_owned())].into(),
            annotations: BTreeMap::new(),
            instructions: BTreeMap::new(),
            owner: None,
            containers: Vec::new(),
        }
    }

    #[test]
    fn only_what_changes_is_said() {
        let (pods, now) = (Pods::new(), Instant::now());
        assert!(pods.put(pod("a", "cart")));
        assert!(!pods.put(pod("a", "cart")));
        assert!(pods.put(pod("a", "till")));
        assert_eq!(pods.put_all(vec![pod("a", "till"), pod("b", "cart")], now), ["b"]);
    }

    #[test]
    fn a_pod_that_is_gone_stays_while_its_logs_are_read() {
        let (pods, now) = (Pods::new(), Instant::now());
        pods.put(pod("a", "cart"));
        pods.put(pod("b", "cart"));
        let read = pods.get("a").expect("known");
        pods.put_all(Vec::new(), now);
        assert!(!pods.prune(now));
        assert!(pods.prune(now + GONE_FOR));
        assert!(pods.get("a").is_some() && pods.get("b").is_none());
        drop(read);
        assert!(pods.prune(now + GONE_FOR));
        assert!(pods.is_empty());
    }

    #[test]
    fn ten_thousand_pods_made_and_deleted_leave_a_bounded_table() {
        let (pods, now) = (Pods::new(), Instant::now());
        for number in 0..10_000 {
            let uid = number.to_string();
            pods.put(pod(&uid, "cart"));
            pods.gone(&uid, now);
            if number % 100 == 99 {
                pods.prune(now);
                assert!(pods.len() <= GONE_KEPT);
            }
        }
    }

    #[test]
    fn a_container_is_found_by_its_id() {
        let id = |id: &str| ContainerId { restart: 0, runtime: "containerd".into(), id: id.into() };
        let container =
            |name: &str, ids| ContainerFacts { name: name.into(), image: "shop/cart:3".into(), ids };
        let pods = Pods::new();
        let containers = vec![container("wait", vec![]), container("app", vec![id("bb"), id("aa")])];
        pods.put(Pod { containers, ..pod("a", "cart") });
        pods.put(pod("b", "till"));
        let found = pods.container("aa").expect("known");
        assert_eq!((found.name.as_str(), found.image.as_str()), ("app", "shop/cart:3"));
        assert_eq!(Some(found.namespace), pods.get("a").map(|pod| pod.namespace.clone()));
        assert_eq!(pods.container("cc"), None);
    }

    #[test]
    fn the_ids_of_earlier_runs_are_remembered() {
        let with = |restart: u32| {
            let id = ContainerId { restart, runtime: "containerd".into(), id: format!("id-{restart}") };
            let container = ContainerFacts { name: "app".into(), image: "i".into(), ids: vec![id] };
            Pod { containers: vec![container], ..pod("a", "cart") }
        };
        let pods = Pods::new();
        for restart in 0..9 {
            assert!(pods.put(with(restart)));
            assert!(!pods.put(with(restart)));
        }
        let known = pods.get("a").expect("known");
        let app = known.container("app").expect("the container");
        assert_eq!(app.id(8).map(|id| id.id.as_str()), Some("id-8"));
        assert_eq!(app.id(4).map(|id| id.id.as_str()), Some("id-4"));
        assert_eq!((app.id(0), app.ids.len()), (None, 6));
    }

    #[test]
    fn what_is_known_outlives_a_restart_and_damage_is_no_failure() {
        let directory = tempfile::tempdir().expect("a directory");
        let (file, pods, now) = (PodsFile::new(directory.path()), Pods::new(), Instant::now());
        pods.put(pod("a", "cart"));
        file.write(&pods).expect("written");
        let again = Pods::new();
        file.load(&again, now);
        assert_eq!(again.get("a").as_deref(), Some(&pod("a", "cart")));
        // The cluster does not know it: nothing but its logs keeps it.
        again.prune(now + GONE_FOR);
        assert!(again.is_empty());
        fs::write(directory.path().join(FILE), b"[{\"uid\":").expect("written");
        file.load(&again, now);
        assert!(again.is_empty());
    }
}
