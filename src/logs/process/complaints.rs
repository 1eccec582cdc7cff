//! What the annotations of pods say that can't be understood or followed: a note beside their files, and a warning for each
//! pod. Their lines are shipped all the same.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use crate::{kubernetes::pod::Pod, logs::record::Container};

/// Beyond so many pods, those that are gone are forgotten.
const PODS: usize = 256;

/// The complaints about every pod.
#[derive(Debug, Default)]
pub struct Complaints(Mutex<HashMap<String, OfPod>>);

#[derive(Debug)]
struct OfPod {
    /// Dead when nobody reads its logs any more, or it is told of anew.
    pod: Weak<Pod>,
    /// By container.
    notes: BTreeMap<String, Vec<String>>,
}

impl Complaints {
    /// Takes in what is said of a container's annotations now, and says what was not said of its pod before.
    pub fn note(&self, pod: &Arc<Pod>, container: &Container, complaints: Vec<String>) {
        let mut pods = self.lock();
        if complaints.is_empty() {
            if let Some(known) = pods.get_mut(&container.uid) {
                known.notes.remove(&container.name);
            }
            return;
        }
        if pods.len() >= PODS {
            pods.retain(|_, known| known.pod.strong_count() > 0);
        }
        let known = pods
            .entry(container.uid.clone())
            .or_insert_with(|| OfPod { pod: Weak::new(), notes: BTreeMap::new() });
        known.pod = Arc::downgrade(pod);
        let is_new = |text: &&String| known.notes.values().flatten().all(|said| said != *text);
        let new: Vec<&str> = complaints.iter().filter(is_new).map(String::as_str).collect();
        if !new.is_empty() {
            let Container { namespace, pod, .. } = container;
            let complaints = new.join("; ");
            tracing::warn!(
                namespace,
                pod,
                complaints,
                "annotations of a pod are not followed: its lines ship without"
            );
        }
        known.notes.insert(container.name.clone(), complaints);
    }

    /// What is to be said of a container's files.
    pub fn of(&self, container: &Container) -> Vec<String> {
        let pods = self.lock();
        let notes = pods.get(&container.uid).and_then(|known| known.notes.get(&container.name));
        notes.cloned().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, OfPod>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::container;

    #[test]
    fn the_last_word_counts_and_pods_that_are_gone_are_forgotten() {
        let complaints = Complaints::default();
        let origin = container(0);
        let app = origin.container().expect("a container");
        let pod = Arc::new(Pod::default());
        complaints.note(&pod, app, vec!["one".into()]);
        assert_eq!(complaints.of(app), ["one"]);
        let other = Container { name: "other".into(), ..app.clone() };
        assert!(complaints.of(&other).is_empty());
        complaints.note(&pod, app, Vec::new());
        assert!(complaints.of(app).is_empty());
        for number in 0..10 * PODS {
            let of = Container { uid: number.to_string(), ..app.clone() };
            complaints.note(&Arc::new(Pod::default()), &of, vec!["gone".into()]);
        }
        assert!(complaints.lock().len() <= PODS);
        complaints.note(&pod, app, vec!["two".into()]);
        assert_eq!(complaints.of(app), ["two"]);
    }
}
