//! What others know of containers: the door through which whoever asks the cluster tells the collectors.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// A container as the cluster knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Container {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// The container's name in the pod.
    pub name: String,
    /// Its image as written in the manifest.
    pub image: String,
}

/// How a container is looked up by the id that its runtime gave it.
type Lookup = dyn Fn(&str) -> Option<Container> + Send + Sync;

/// Whom to ask about containers; nobody at first. Clones share it.
#[derive(Clone, Default)]
pub struct Containers(Arc<Mutex<Option<Arc<Lookup>>>>);

impl Containers {
    /// From now on `lookup` is asked for a container by its id.
    pub fn ask(&self, lookup: impl Fn(&str) -> Option<Container> + Send + Sync + 'static) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(lookup));
    }

    /// What is known of the container with this id.
    pub fn find(&self, id: &str) -> Option<Container> {
        let lookup = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        lookup.and_then(|lookup| lookup(id))
    }
}

/// Hosts are compared by their paths: who knows something of their containers is not part of a configuration.
impl PartialEq for Containers {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Containers {}

impl fmt::Debug for Containers {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Containers")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_was_named_last_is_asked() {
        let containers = Containers::default();
        let shared = containers.clone();
        assert_eq!(shared.find("aa"), None);
        let known = |name: &str| Container { name: name.to_owned(), ..Container::default() };
        containers.ask(move |id| (id == "aa").then(|| known("app")));
        assert_eq!(shared.find("aa").map(|found| found.name).as_deref(), Some("app"));
        assert_eq!(shared.find("bb"), None);
        containers.ask(|_| None);
        assert_eq!(shared.find("aa"), None);
    }
}
