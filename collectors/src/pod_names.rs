//! Whose container an id is, without asking anybody: the kubelet writes it into the names of logs.

use std::{
    collections::HashMap,
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    CollectError, Host, cgroup,
    host::{self, Stamp},
};

/// Of more names in one directory than this, the rest is not looked at.
const NAMES: usize = 20_000;

/// Who a container is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Who {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// The container; empty for the pod as a whole.
    pub container: String,
    /// As written in the manifest; empty where nobody knows it.
    pub image: String,
}

/// Where the kubelet links each container's log, by names that say whose it is.
pub const LINKS: &str = "/var/log/containers";
/// Where it keeps the folders of pods' logs.
const FOLDERS: &str = "/var/log/pods";

/// The names that logs have.
#[derive(Debug)]
pub struct Names {
    links: Listing,
    folders: Listing,
    by_id: HashMap<String, Who>,
    by_uid: HashMap<String, Who>,
}

impl Names {
    /// Those below the root of a host; none until they are looked at.
    pub fn new(host: &Host) -> Self {
        Self {
            links: Listing::new(host.root(LINKS)),
            folders: Listing::new(host.root(FOLDERS)),
            by_id: HashMap::new(),
            by_uid: HashMap::new(),
        }
    }

    /// Looks at the names again if there are others now. A directory that is not there, or may not be listed, has none.
    pub fn refresh(&mut self) -> Result<(), CollectError> {
        let links = self.links.changed().map(|names| {
            if let Some(names) = names {
                self.by_id = names.iter().take(NAMES).filter_map(|name| parse_link(name)).collect();
            }
        });
        let folders = self.folders.changed().map(|names| {
            if let Some(names) = names {
                self.by_uid = names.iter().take(NAMES).filter_map(|name| parse_folder(name)).collect();
            }
        });
        links.and(folders)
    }

    /// Fills in what is not known yet of the container with this id: by the name of its log, else by what the cluster says, which
    /// alone knows images.
    pub fn tell(&self, id: &str, host: &Host, who: &mut Option<Who>) {
        if who.is_none() {
            *who = self.by_id.get(id).cloned();
        }
        if who.as_ref().is_none_or(|who| who.image.is_empty())
            && let Some(told) = host.containers.find(id)
        {
            let who = who.get_or_insert_with(|| Who {
                namespace: told.namespace,
                pod: told.pod,
                container: told.name,
                image: String::new(),
            });
            who.image = told.image;
        }
    }

    /// The pod with this uid.
    pub fn of_pod(&self, uid: &str) -> Option<&Who> {
        self.by_uid.get(uid)
    }
}

/// A directory whose names are read again when they change.
#[derive(Debug)]
struct Listing {
    path: PathBuf,
    /// What it looked like when it was listed; `None` when it may have changed since without a trace.
    seen: Option<Stamp>,
}

impl Listing {
    fn new(path: PathBuf) -> Self {
        Self { path, seen: None }
    }

    /// The names, if there may be others than before.
    fn changed(&mut self) -> Result<Option<Vec<String>>, CollectError> {
        /// A change within the same tick of the clock leaves the times as they are.
        const SETTLED_AFTER: i64 = 2;
        let stamp = match Stamp::of(&self.path) {
            Ok(stamp) => stamp,
            Err(error) => return none_unless_broken(error),
        };
        if self.seen == Some(stamp) {
            return Ok(None);
        }
        let names = match host::list_dir(&self.path) {
            Ok(names) => names,
            Err(error) => return none_unless_broken(error),
        };
        let is_settled = seconds_since_epoch().saturating_sub(stamp.modified_seconds()) > SETTLED_AFTER;
        self.seen = is_settled.then_some(stamp);
        Ok(Some(names))
    }
}

/// No names, unless something is wrong with the directory.
fn none_unless_broken<T>(error: CollectError) -> Result<Option<T>, CollectError> {
    match error.missing_or_denied_is_no_data() {
        CollectError::NoData => Ok(None),
        error => Err(error),
    }
}

/// The time of the day.
pub fn seconds_since_epoch() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// "cart-1_shop_app-5d1f0a7c...log" in `/var/log/containers`: pod, namespace, container and id. None of the first three has an
/// underscore, and the id has no dash.
fn parse_link(name: &str) -> Option<(String, Who)> {
    let (who, id) = name.strip_suffix(".log")?.rsplit_once('-')?;
    let mut parts = who.split('_');
    let (pod, namespace, container) = (parts.next()?, parts.next()?, parts.next()?);
    let is_whole = parts.next().is_none() && ![pod, namespace, container].contains(&"");
    (is_whole && cgroup::is_container_id(id)).then(|| {
        let who = Who {
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            container: container.to_owned(),
            image: String::new(),
        };
        (id.to_owned(), who)
    })
}

/// "shop_cart-1_0b9c1d2e-..." in `/var/log/pods`: namespace, pod and uid.
fn parse_folder(name: &str) -> Option<(String, Who)> {
    let mut parts = name.splitn(3, '_');
    let (namespace, pod, uid) = (parts.next()?, parts.next()?, parts.next()?);
    // Written as the names of control groups are read.
    let uid = uid.replace('_', "-");
    let who = Who { namespace: namespace.to_owned(), pod: pod.to_owned(), ..Who::default() };
    (![namespace, pod, uid.as_str()].contains(&"")).then_some((uid, who))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::containers::Container;

    const ID: &str = "5d1f0a7c2b3e4f60718293a4b5c6d7e8f90123456789abcdef0123456789abcd";

    #[test]
    fn names_of_logs_say_whose_they_are() {
        let (id, who) = parse_link(&format!("cart-1_shop_side-car-{ID}.log")).expect("a container");
        assert_eq!((id.as_str(), who.pod.as_str(), who.namespace.as_str()), (ID, "cart-1", "shop"));
        assert_eq!(who.container, "side-car");
        let (uid, who) = parse_folder("kube-system_etcd-node-1_4f2a9d").expect("a pod");
        assert_eq!((uid.as_str(), who.pod.as_str()), ("4f2a9d", "etcd-node-1"));
        for name in ["", "a", "a_b", "_b_c", "a__c", "a_b_"] {
            assert_eq!(parse_folder(name), None, "{name}");
        }
        for name in [
            format!("cart-1_shop_app-{ID}"),
            format!("cart-1_shop-{ID}.log"),
            format!("a_b_c_d-{ID}.log"),
            format!("_shop_app-{ID}.log"),
            "cart-1_shop_app-5d1f.log".to_owned(),
        ] {
            assert_eq!(parse_link(&name), None, "{name}");
        }
    }

    #[test]
    fn what_the_cluster_says_adds_the_image_and_stands_in_for_a_link() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let host = Host { rootfs: root.path().into(), ..Host::default() };
        let mut names = Names::new(&host);
        names.refresh().expect("an absent directory has no names");
        let mut who = None;
        names.tell(ID, &host, &mut who);
        assert_eq!(who, None);
        let told = Container {
            namespace: "told".into(),
            pod: "p".into(),
            name: "c".into(),
            image: "shop/cart:3".into(),
        };
        host.containers.ask(move |id| (id == ID).then(|| told.clone()));
        names.tell(ID, &host, &mut who);
        let texts = |who: &Option<Who>| {
            let who = who.as_ref().expect("told");
            [&who.namespace, &who.pod, &who.container, &who.image].map(String::clone)
        };
        assert_eq!(texts(&who), ["told", "p", "c", "shop/cart:3"]);
        let links = root.path().join("var/log/containers");
        fs::create_dir_all(&links).expect("made");
        fs::write(links.join(format!("cart-1_shop_app-{ID}.log")), "").expect("written");
        names.refresh().expect("listed");
        let mut linked = None;
        names.tell(ID, &host, &mut linked);
        assert_eq!(texts(&linked), ["shop", "cart-1", "app", "shop/cart:3"]);
    }

    #[test]
    fn names_are_read_again_when_they_may_have_changed() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let mut listing = Listing::new(root.path().into());
        assert_eq!(listing.changed().expect("listed"), Some(vec![]));
        fs::write(root.path().join("a"), "").expect("written");
        assert_eq!(listing.changed().expect("listed"), Some(vec!["a".to_owned()]));
        let long_ago = UNIX_EPOCH + std::time::Duration::from_secs(1);
        fs::File::open(root.path()).and_then(|dir| dir.set_modified(long_ago)).expect("set back");
        assert_eq!(listing.changed().expect("listed"), Some(vec!["a".to_owned()]));
        assert_eq!(listing.changed().expect("looked at"), None);
    }
}
