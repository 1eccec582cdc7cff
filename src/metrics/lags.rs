//! How far the sink is behind the log files, by namespace or by container.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use nodewarden_collectors::{Desc, Samples};

use super::ledger::{CONTAINERS_SHOWN, Owner};

const BYTES: &str = "nodewarden_log_lag_bytes";
const BYTES_HELP: &str = "Bytes in log files that the sink has not confirmed yet.";
const SECONDS: &str = "nodewarden_log_lag_seconds";
const SECONDS_HELP: &str = "Age of the oldest line that the sink has not confirmed yet.";

const BY_NAMESPACE: &[&str] = &["namespace"];
const BY_CONTAINER: &[&str] = &["container", "namespace", "pod"];

static NAMESPACE_BYTES: Desc = Desc::gauge(BYTES, BYTES_HELP, BY_NAMESPACE);
static NAMESPACE_SECONDS: Desc = Desc::gauge(SECONDS, SECONDS_HELP, BY_NAMESPACE);
static CONTAINER_BYTES: Desc = Desc::gauge(BYTES, BYTES_HELP, BY_CONTAINER);
static CONTAINER_SECONDS: Desc = Desc::gauge(SECONDS, SECONDS_HELP, BY_CONTAINER);

/// What of some files is not confirmed.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Lag {
    /// Bytes.
    pub bytes: u64,
    /// Age in seconds of the oldest line; 0 when there is none.
    pub seconds: f64,
}

impl Lag {
    /// Takes `other` in.
    pub fn add(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.seconds = self.seconds.max(other.seconds);
    }
}

/// The lags as they were counted last. Clones share them.
#[derive(Debug, Default, Clone)]
pub struct Lags(Arc<Mutex<Counted>>);

#[derive(Debug, Default)]
struct Counted {
    by_container: bool,
    lags: BTreeMap<Owner, Lag>,
}

impl Lags {
    /// The lags of now, of namespaces or of containers; of the latter those beyond the ones that are shown count for their namespace.
    pub fn set(&self, by_container: bool, counted: impl Iterator<Item = (Owner, Lag)>) {
        let mut lags: BTreeMap<Owner, Lag> = BTreeMap::new();
        for (owner, lag) in counted {
            let is_shown = by_container && (lags.len() < CONTAINERS_SHOWN || lags.contains_key(&owner));
            let owner = if is_shown { owner } else { owner.of_namespace() };
            lags.entry(owner).or_default().add(lag);
        }
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Counted { by_container, lags };
    }

    /// Says them.
    pub fn say(&self, out: &mut Samples) {
        let counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (Owner { namespace, pod, container }, lag) in &counted.lags {
            if counted.by_container {
                let labels = [container.as_str(), namespace, pod];
                out.push(&CONTAINER_BYTES, &labels, lag.bytes as f64);
                out.push(&CONTAINER_SECONDS, &labels, lag.seconds);
            } else {
                out.push(&NAMESPACE_BYTES, &[namespace], lag.bytes as f64);
                out.push(&NAMESPACE_SECONDS, &[namespace], lag.seconds);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use nodewarden_collectors::text;

    use super::*;

    fn page(lags: &Lags) -> String {
        let (mut samples, mut page) = (Samples::new(), Vec::new());
        lags.say(&mut samples);
        text::write(&samples, &mut page);
        String::from_utf8(page).expect("UTF-8")
    }

    fn of(pod: &str, bytes: u64, seconds: f64) -> (Owner, Lag) {
        let owner = Owner { namespace: "shop".into(), pod: pod.into(), container: "app".into() };
        (owner, Lag { bytes, seconds })
    }

    #[test]
    fn the_oldest_line_and_all_bytes_of_a_namespace_are_said() {
        let lags = Lags::default();
        assert_eq!(page(&lags), "");
        lags.set(false, [of("cart-0", 30, 2.0), of("cart-1", 12, 1.0)].into_iter());
        let said = page(&lags);
        assert!(said.contains("nodewarden_log_lag_bytes{namespace=\"shop\"} 42\n"), "{said}");
        assert!(said.contains("nodewarden_log_lag_seconds{namespace=\"shop\"} 2\n"), "{said}");
        lags.set(false, [].into_iter());
        assert_eq!(page(&lags), "");
    }

    #[test]
    fn containers_are_told_apart_and_bounded() {
        let lags = Lags::default();
        let pods = (0..CONTAINERS_SHOWN + 3).map(|pod| of(&format!("{pod:05}"), 1, 0.0));
        lags.set(true, pods.chain([of("00000", 6, 5.0)]));
        let said = page(&lags);
        let labels = |pod: &str| {
            format!("nodewarden_log_lag_bytes{{container=\"app\",namespace=\"shop\",pod=\"{pod}\"}}")
        };
        assert!(said.contains(&format!("{} 7\n", labels("00000"))), "{said}");
        assert!(
            said.contains("nodewarden_log_lag_bytes{container=\"\",namespace=\"shop\",pod=\"\"} 3\n"),
            "{said}"
        );
        let series = said.lines().filter(|line| line.starts_with("nodewarden_log_lag_bytes{"));
        assert_eq!(series.count(), CONTAINERS_SHOWN + 1);
    }
}
