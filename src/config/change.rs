//! The configuration read again while the agent runs: what of it is another one now, and what a running agent can't change.

use std::path::{Path, PathBuf};

use nodewarden_collectors::host::Stamp;

use super::{
    env::Env,
    load::{Loaded, given_file, load},
    machine::{CONFIG_FILE, Machine},
    mistakes::Mistakes,
    options::Config,
};
use crate::cli::Cli;

/// From what the configuration is made, to make it again.
#[derive(Debug, Clone)]
pub struct Reading {
    /// The command line.
    pub cli: Cli,
    /// The environment.
    pub env: Env,
    /// The machine.
    pub machine: Machine,
    /// The file as it was before it was read for the first time.
    pub stamp: Option<Stamp>,
}

impl Reading {
    /// To be made before the configuration is loaded for the first time.
    pub fn new(cli: &Cli, env: &Env, machine: &Machine) -> Self {
        let (cli, env, machine) = (cli.clone(), env.clone(), machine.clone());
        let mut reading = Self { cli, env, machine, stamp: None };
        reading.stamp = reading.path().and_then(|path| Stamp::of(&path).ok());
        reading
    }

    /// The file that is read, or that would be if it were there; `None` when a flag says that there is none.
    pub fn path(&self) -> Option<PathBuf> {
        let path = given_file(&self.cli).unwrap_or(Path::new(CONFIG_FILE));
        (!path.as_os_str().is_empty()).then(|| path.to_owned())
    }

    /// Reads it again.
    pub fn load(&mut self) -> Result<Loaded, Mistakes> {
        self.machine = self.machine.again();
        load(&self.cli, &self.env, &self.machine)
    }
}

/// What another configuration changes in a running agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changes {
    /// What is read, what is done with it, and where it goes.
    pub logs: bool,
    /// What the metrics page shows, and where it is.
    pub metrics: bool,
    /// How the agent speaks about itself.
    pub speech: bool,
    /// Whether the metrics of the log path tell containers apart.
    pub containers: bool,
    /// How GPUs are read.
    pub gpu: bool,
}

impl Changes {
    /// From one to another.
    pub fn between(old: &Config, new: &Config) -> Self {
        let (mut old_logs, mut new_logs) = (old.logs.clone(), new.logs.clone());
        // That is no reason to stop reading.
        (old_logs.container_metrics, new_logs.container_metrics) = (false, false);
        let logs = |config: &Config| {
            let Config { memory_limit, node_name, host, kubernetes, elasticsearch, store, .. } = config;
            (
                *memory_limit,
                node_name.clone(),
                host.clone(),
                kubernetes.clone(),
                elasticsearch.clone(),
                store.clone(),
            )
        };
        let metrics = |config: &Config| {
            (config.metrics.clone(), config.host.clone(), config.web.telemetry_path.clone())
        };
        let gpu = |config: &Config| (config.gpu.clone(), config.host.clone(), config.node_name.clone());
        Self {
            gpu: gpu(old) != gpu(new),
            logs: old_logs != new_logs || logs(old) != logs(new),
            metrics: metrics(old) != metrics(new),
            speech: old.log != new.log,
            containers: old.logs.container_metrics != new.logs.container_metrics,
        }
    }

    /// Their names, for people; empty when nothing changes.
    pub fn names(self) -> String {
        let Self { logs, metrics, speech, containers, gpu } = self;
        let all = [
            (logs, "logs"),
            (metrics, "metrics"),
            (speech, "log"),
            (containers, "container metrics"),
            (gpu, "gpu"),
        ];
        let names: Vec<&str> = all.into_iter().filter(|(is_one, _)| *is_one).map(|(_, name)| name).collect();
        names.join(", ")
    }
}

impl Config {
    /// Goes on with what `old` says of things that only a restart changes; the keys that say otherwise.
    pub fn keep_fixed(&mut self, old: &Self) -> Vec<&'static str> {
        let mut kept = Vec::new();
        keep("state_dir", &mut self.state_dir, &old.state_dir, &mut kept);
        keep("web.listen_address", &mut self.web.listen, &old.web.listen, &mut kept);
        keep("web.systemd_socket", &mut self.web.systemd_socket, &old.web.systemd_socket, &mut kept);
        keep("web.config_file", &mut self.web.config_file, &old.web.config_file, &mut kept);
        keep("gpu.listen_address", &mut self.gpu.listen, &old.gpu.listen, &mut kept);
        keep("admin.listen_address", &mut self.admin, &old.admin, &mut kept);
        kept
    }
}

fn keep<T: Clone + PartialEq>(key: &'static str, new: &mut T, old: &T, kept: &mut Vec<&'static str>) {
    if new != old {
        new.clone_from(old);
        kept.push(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ElasticConfig, LogFormat};

    #[test]
    fn what_did_not_change_is_left_alone() {
        let old = Config::default();
        let nothing = Changes { logs: false, metrics: false, speech: false, containers: false, gpu: false };
        assert_eq!(Changes::between(&old, &old), nothing);
        let mut new = old.clone();
        new.log.format = LogFormat::Json;
        assert_eq!(Changes::between(&old, &new), Changes { speech: true, ..nothing });
        let mut new = old.clone();
        new.logs.container_metrics = true;
        assert_eq!(Changes::between(&old, &new).names(), "container metrics");
        let mut new = old.clone();
        new.elasticsearch = Some(ElasticConfig::default());
        assert_eq!(Changes::between(&old, &new), Changes { logs: true, ..nothing });
        let mut new = old.clone();
        new.host.rootfs = "/host/root".into();
        assert_eq!(Changes::between(&old, &new).names(), "logs, metrics, gpu");
        let mut new = old.clone();
        new.gpu.enabled = false;
        assert_eq!(Changes::between(&old, &new).names(), "gpu");
    }

    #[test]
    fn listeners_and_the_state_directory_stay() {
        let old = Config::default();
        let mut new = old.clone();
        new.state_dir = "/elsewhere".into();
        new.admin.listen = None;
        new.store.max_bytes = 7;
        assert_eq!(new.keep_fixed(&old), ["state_dir", "admin.listen_address"]);
        assert_eq!((&new.state_dir, &new.admin, new.store.max_bytes), (&old.state_dir, &old.admin, 7));
        assert!(new.keep_fixed(&old).is_empty());
    }
}
