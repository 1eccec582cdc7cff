//! Who is asked about pods, as the configuration and the machine want it.

use std::{sync::Arc, time::Instant};

use tokio::task::JoinSet;

use crate::{
    backoff::seed,
    config::{Config, KubernetesConfig, Metadata},
    kubernetes::{
        self, Source,
        client::Server,
        known::{Pods, PodsFile},
        pod::Wanted,
    },
    logs::mail::{Mail, Sender},
    metrics::Own,
};

const FEATURE: &str = "kubernetes_metadata";

/// What will be asked, and what is known from before.
pub struct Plan {
    options: kubernetes::Options,
    /// What the reader looks at.
    pub pods: Arc<Pods>,
}

/// Decides whom to ask; `None` when the paths of log files have to do.
pub fn plan(config: &Config, own: &Own) -> Option<Plan> {
    let source = match source(&config.kubernetes) {
        Ok(source) => source,
        Err(reason) => {
            own.feature(FEATURE, false, reason);
            return None;
        }
    };
    let pods = Arc::new(Pods::new());
    PodsFile::new(&config.state_dir).load(&pods, Instant::now());
    let known = Arc::downgrade(&pods);
    own.containers.ask(move |id| known.upgrade()?.container(id));
    let options = kubernetes::Options {
        source,
        node: config.node_name.clone(),
        wanted: Wanted { annotations: config.kubernetes.annotations.clone(), hints: config.kubernetes.hints },
        state_dir: config.state_dir.clone(),
        seed: seed(),
    };
    Some(Plan { options, pods })
}

fn source(config: &KubernetesConfig) -> Result<Source, &'static str> {
    let server = |url: &str| Server {
        url: url.to_owned(),
        token_file: config.token_file.clone(),
        ca_file: config.ca_file.clone(),
        // Its CA vouches for the API server on every cluster.
        insecure_skip_verify: config.insecure_skip_verify && config.metadata == Metadata::Kubelet,
    };
    match (config.metadata, &config.api_server) {
        (Metadata::Path, _) => Err("kubernetes.metadata is path"),
        (Metadata::Kubelet, _) => Ok(Source::Kubelet(server(&config.kubelet))),
        (Metadata::Auto | Metadata::Api, Some(url)) if config.token_file.exists() => {
            Ok(Source::Api(server(url)))
        }
        (Metadata::Auto, Some(_)) => Err("there is no service account token"),
        (Metadata::Auto, None) => Err("this is not a pod of a cluster"),
        // It may be mounted late; until then each question says so.
        (Metadata::Api, Some(url)) => Ok(Source::Api(server(url))),
        (Metadata::Api, None) => Err("kubernetes.api_server is not set"),
    }
}

impl Plan {
    /// Asks and tells the reader, until it is aborted.
    pub fn start(self, reader: Sender, own: &Own, tasks: &mut JoinSet<()>) {
        let features = own.logs.features.clone();
        let report = move |answer: Result<(), &kubernetes::client::AskError>| match answer {
            Ok(()) => features.say(FEATURE, true, ""),
            Err(error) => features.say(FEATURE, false, error.reason()),
        };
        let tell = move |uids| {
            // Without a reader nobody wants to know.
            reader.send(Mail::Pods(uids));
        };
        tasks.spawn(kubernetes::run(self.options, self.pods, tell, report));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_and_a_server_make_the_automatic_choice() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut config =
            KubernetesConfig { token_file: directory.path().join("token"), ..Default::default() };
        assert_eq!(source(&config), Err("this is not a pod of a cluster"));
        config.api_server = Some("https://10.96.0.1:443".into());
        assert_eq!(source(&config), Err("there is no service account token"));
        std::fs::write(&config.token_file, "t").expect("written");
        assert!(matches!(source(&config), Ok(Source::Api(server)) if server.url == "https://10.96.0.1:443"));
        config.metadata = Metadata::Path;
        assert_eq!(source(&config), Err("kubernetes.metadata is path"));
        config.metadata = Metadata::Kubelet;
        assert!(matches!(source(&config), Ok(Source::Kubelet(server)) if server.url == config.kubelet));
    }
}
