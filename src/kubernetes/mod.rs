//! What the cluster says of the pods on this node: labels, owners, images.
//!
//! Namespace, pod, uid and container stand in the path of a log file, so nothing here is needed for shipping, and nothing here
//! holds it up. One question is asked of one server: a list and a watch of this node's pods at the API server, or the list
//! at the node's own kubelet. Never is anything asked of the whole cluster, and never about a single pod.

pub mod cgroup;
pub mod client;
pub mod instructions;
pub mod known;
pub mod pod;
pub mod pod_resources;
pub mod watch;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Deserialize;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use self::{
    client::{AskError, Client, Server},
    known::{Pods, PodsFile},
    pod::{Pod, RawPod, Wanted},
    watch::{Event, Watch},
};
use crate::backoff::Backoff;

const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// The same while it refuses: a server that was just started does so too, else somebody has to change a role.
const LONGEST_REFUSED_WAIT: Duration = Duration::from_secs(600);
/// What is known is written this long after it changed.
const WRITE_AFTER: Duration = Duration::from_secs(5);
/// How often who is gone is looked for among what is known.
const PRUNE_EVERY: Duration = Duration::from_secs(60);
/// How often the kubelet is asked although no unknown pod writes: labels change seldom.
const KUBELET_EVERY: Duration = Duration::from_secs(60);
/// How soon it is asked again for an unknown pod.
const KUBELET_PAUSE: Duration = Duration::from_secs(1);
/// What a kubelet's list may take.
const LIST_LIMIT: usize = 64 << 20;

/// Who is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The API server: one watch of this node's pods.
    Api(Server),
    /// The node's kubelet, once a minute and when an unknown pod writes.
    Kubelet(Server),
}

impl Source {
    /// For people.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Api(_) => "the API server",
            Self::Kubelet(_) => "the kubelet",
        }
    }
}

/// How the cluster is asked.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whom.
    pub source: Source,
    /// The node whose pods are wanted.
    pub node: String,
    /// Which annotations are kept.
    pub wanted: Wanted,
    /// Where what is known is kept.
    pub state_dir: PathBuf,
    /// The chance in waits.
    pub seed: u64,
}

/// A list of pods as the kubelet writes it.
#[derive(Deserialize)]
struct PodList {
    #[serde(default)]
    items: Option<Vec<RawPod>>,
}

/// Fills `pods` as long as it runs. `tell` hears the uids of pods that are new or changed, `report` whether the cluster answers,
/// and why not.
pub async fn run(
    options: Options,
    pods: Arc<Pods>,
    tell: impl Fn(Vec<String>),
    report: impl Fn(Result<(), &AskError>),
) {
    // It ends with whoever runs this.
    let mut keeper = JoinSet::new();
    keeper.spawn(keep(PodsFile::new(&options.state_dir), Arc::clone(&pods)));
    let mut asker = Asker {
        backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT, options.seed),
        refusals: Backoff::new(FIRST_WAIT, LONGEST_REFUSED_WAIT, options.seed),
        seed: options.seed,
        pods,
        tell,
        report,
        answers: None,
        what: options.source.as_str(),
    };
    match &options.source {
        Source::Api(server) => match Client::new(server.clone()) {
            Ok(client) => {
                let Options { node, wanted, seed, .. } = options;
                asker.watch(Watch::new(client, &node, wanted, seed)).await;
            }
            Err(error) => asker.failed(&error).await,
        },
        Source::Kubelet(server) => match Client::new(server.clone()) {
            Ok(client) => asker.poll(&client, &options.wanted).await,
            Err(error) => asker.failed(&error).await,
        },
    }
}

struct Asker<T, R> {
    pods: Arc<Pods>,
    tell: T,
    report: R,
    backoff: Backoff,
    refusals: Backoff,
    seed: u64,
    /// What was said last.
    answers: Option<bool>,
    what: &'static str,
}

impl<T: Fn(Vec<String>), R: Fn(Result<(), &AskError>)> Asker<T, R> {
    async fn watch(&mut self, mut watch: Watch) {
        loop {
            match watch.list().await {
                Ok(there) => self.all(there),
                Err(error) => {
                    self.failed(&error).await;
                    continue;
                }
            }
            self.follow(&mut watch).await;
        }
    }

    /// Watches until the list is too old to go on from.
    async fn follow(&mut self, watch: &mut Watch) {
        let mut is_expired = false;
        while !is_expired {
            let begun = Instant::now();
            let followed = watch
                .follow(|event| match event {
                    Event::Begun => self.answered(),
                    Event::There(pod) => {
                        let uid = pod.uid.clone();
                        if self.pods.put(*pod) {
                            (self.tell)(vec![uid]);
                        }
                    }
                    Event::Gone(uid) => self.pods.gone(&uid, Instant::now()),
                    Event::Expired => is_expired = true,
                })
                .await;
            match followed {
                // Whoever ends each watch at once is not asked in a loop.
                Ok(()) if begun.elapsed() < FIRST_WAIT => sleep(FIRST_WAIT).await,
                Ok(()) => {}
                Err(error) => self.failed(&error).await,
            }
        }
    }

    async fn poll(&mut self, client: &Client, wanted: &Wanted) {
        loop {
            match self.list(client, wanted).await {
                Ok(there) => {
                    self.all(there);
                    sleep(KUBELET_PAUSE).await;
                    // Either somebody misses a pod, or it is time.
                    let _ = timeout(KUBELET_EVERY, self.pods.missed()).await;
                }
                Err(error) => self.failed(&error).await,
            }
        }
    }

    async fn list(&self, client: &Client, wanted: &Wanted) -> Result<Vec<Pod>, AskError> {
        let body = client.get("/pods", LIST_LIMIT).await?;
        let list: PodList =
            serde_json::from_slice(&body).map_err(|error| AskError::Answer(error.to_string()))?;
        let items = list.items.unwrap_or_default().into_iter();
        Ok(items.filter_map(|raw| Pod::read(raw, wanted)).collect())
    }

    fn all(&mut self, there: Vec<Pod>) {
        let changed = self.pods.put_all(there, Instant::now());
        self.answered();
        if !changed.is_empty() {
            (self.tell)(changed);
        }
    }

    fn answered(&mut self) {
        self.backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT, self.seed);
        self.refusals = Backoff::new(FIRST_WAIT, LONGEST_REFUSED_WAIT, self.seed);
        self.pods.set_answers(true);
        match self.answers.replace(true) {
            Some(true) => {}
            before => {
                (self.report)(Ok(()));
                if before.is_some() {
                    tracing::info!("{} answers again", self.what);
                }
            }
        }
    }

    /// Says once that nobody answers, and waits.
    async fn failed(&mut self, error: &AskError) {
        self.pods.set_answers(false);
        (self.report)(Err(error));
        if self.answers.replace(false) != Some(false) {
            tracing::warn!(
                %error,
                "{} does not tell the labels of pods: log lines of new pods ship without them meanwhile",
                self.what
            );
        }
        let backoff = if error.is_refusal() { &mut self.refusals } else { &mut self.backoff };
        sleep(backoff.next_wait()).await;
    }
}

/// Forgets pods whose logs nobody reads any more, and writes what is known some time after it changed.
async fn keep(file: PodsFile, pods: Arc<Pods>) {
    let file = Arc::new(file);
    let mut failed = false;
    loop {
        let is_dirty = timeout(PRUNE_EVERY, pods.changed()).await.is_ok();
        if is_dirty {
            sleep(WRITE_AFTER).await;
        }
        if !pods.prune(Instant::now()) && !is_dirty {
            continue;
        }
        let (file, known) = (Arc::clone(&file), Arc::clone(&pods));
        let written = tokio::task::spawn_blocking(move || file.write(&known)).await;
        match written {
            Ok(Err(error)) if !std::mem::replace(&mut failed, true) => {
                tracing::warn!(%error, "could not write what is known of pods: after a restart, lines of pods that are gone ship without labels");
            }
            Ok(Ok(())) => failed = false,
            _ => {}
        }
    }
}
