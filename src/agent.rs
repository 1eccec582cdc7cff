//! The agent: makes the parts out of a `Config`, lets them run, changes them while they do, ends them in order.

mod listeners;

use std::{
    fs::{self, File},
    io, mem,
    net::TcpListener,
    path::Path,
    pin::{Pin, pin},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use nodewarden_collectors::{Host, syscall::memory};
use prometheus::Registry;
use rustix::{
    fs::{FlockOperation, flock},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use tokio::{
    join,
    runtime::{Builder, Runtime},
    select,
    sync::watch,
    task::JoinSet,
    time::sleep,
};

use self::listeners::{bind, metrics_sockets, rules, serve_gpus, serve_metrics};
use crate::{
    config::{Changes, Config, Loaded, Mistakes, Reading},
    delivery::{self, Delivery},
    gpu,
    logs::ship::off_thread,
    metrics::{History, Own, Scraper},
    reload::{Cause, Watch},
    shutdown::{self, Shutdown, Trigger},
    telemetry::{Speech, sentence},
    web::{
        AdminSite, Api, MetricsSite, Ready, Token,
        api::{AdminState, LocalStore},
        facts::Facts,
        gate::Gated,
        serve,
        server::bind_unix,
        swapped::Swapped,
    },
};

/// The control socket's name in the state directory.
pub const CONTROL_SOCKET: &str = "admin.sock";

/// What is said once metrics can be asked for.
const READY: &str = "metrics listener ready";

/// How long lines in flight may take after the agent was asked to stop. With what follows it stays below 5 seconds.
const DELIVERY_PATIENCE: Duration = Duration::from_millis(3500);
/// How often a state directory that can't be written is tried again.
const STATE_PAUSE: Duration = Duration::from_secs(5);
/// The same when it can be written and logs can't be read for another reason.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Connections on the admin listener and the control socket.
const ADMIN_CONNECTIONS: usize = 64;

/// Runs until a signal ends it. `reading` is where `loaded` comes from, to be read again; `speech` is how the agent speaks.
pub fn run(loaded: Loaded, reading: Reading, speech: Speech) -> anyhow::Result<()> {
    // One thread: answers and shipping are waiting for the most part, and what is not runs on threads of its own.
    let runtime =
        Builder::new_current_thread().enable_all().build().context("could not start the runtime")?;
    raise_file_limit();
    run_to_end(runtime, serve_until_signal(loaded, reading, speech))
}

/// Runs a future, then leaves behind what still blocks on a thread of its own: a name that nobody resolves, a disk or a mount
/// that does not answer. The end of the process ends that too.
fn run_to_end<T>(runtime: Runtime, future: impl Future<Output = T>) -> T {
    let result = runtime.block_on(future);
    runtime.shutdown_background();
    result
}

/// A file that is tailed is a file that is open: the usual soft limit of 1024 is for programs that use `select`.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::debug!(%error, "the limit on open files stays as it is");
    }
}

async fn serve_until_signal(loaded: Loaded, reading: Reading, speech: Speech) -> anyhow::Result<()> {
    let config = &loaded.config;
    let mut stop = pin!(shutdown::signals().context("could not listen for signals")?);
    let mut watch = Watch::new(reading.path(), reading.stamp).context("could not listen for SIGHUP")?;
    let rules = rules(config)?;
    let metrics_sockets = metrics_sockets(config)?;
    let admin_listener =
        config.admin.listen.as_ref().map(|at| bind(at, "--admin.listen-address")).transpose()?;

    let own = Own::new(Registry::new())?;
    own.memory_budget(config.memory_limit);
    own.logs.ledger.show_containers(config.logs.container_metrics);
    own.configured(true);
    let scraper = scraper(config, &own)?;
    let (trigger, shutdown) = shutdown::channel();
    let ready = Ready::default();
    let state_lock = lock_state(&config.state_dir)?;
    let delivery = delivery::start(config, &own, &ready, state_lock.is_some());

    let mut parts = JoinSet::new();
    if let Some(at) = &config.gpu.listen {
        serve_gpus(at, own.gpus.clone(), rules.clone(), &shutdown, &mut parts)?;
    }
    let gpus = GpuPart::start(config, &own);
    let metrics_site = Swapped::new(metrics_site(config, &scraper, &ready));
    match rules {
        Some(rules) => {
            let site = Gated::new(metrics_site.clone(), Arc::clone(&rules))?;
            serve_metrics(metrics_sockets, site, Some(rules), READY, &shutdown, &mut parts)?;
        }
        None => serve_metrics(metrics_sockets, metrics_site.clone(), None, READY, &shutdown, &mut parts)?,
    }
    let (scraper, scrapers) = watch::channel(scraper);
    let history = History::default();
    // Its samples, one a second, are for the page alone.
    if admin_listener.is_some() {
        parts.spawn(history.clone().run(scrapers, shutdown.clone()));
    }
    memory::give_back_heap();
    let facts = Facts::read_aside(&config.host);
    let mut agent = Agent {
        loaded,
        reading: Some(reading),
        speech,
        own,
        ready,
        scraper,
        metrics_site,
        history,
        facts,
        gpus,
        started: Instant::now(),
        state_lock,
        delivery,
        pause: STATE_PAUSE,
        admin_listener,
        api: None,
        tails: shutdown::channel(),
        mistakes: None,
        parts,
        shutdown,
    };
    agent.show()?;
    let mut is_stopped = false;
    while !is_stopped {
        select! {
            () = &mut stop => is_stopped = true,
            cause = watch.changed() => is_stopped = agent.reload(cause, stop.as_mut()).await?,
            () = sleep(agent.pause), if agent.delivery.is_none() => agent.try_again()?,
        }
    }
    trigger.fire();
    agent.end().await;
    tracing::info!("stopped");
    Ok(())
}

/// The running agent.
struct Agent {
    /// The configuration in force.
    loaded: Loaded,
    /// Where it comes from; `None` while it is being read.
    reading: Option<Reading>,
    speech: Speech,
    own: Own,
    ready: Ready,
    scraper: watch::Sender<Scraper>,
    metrics_site: Swapped<MetricsSite>,
    history: History,
    facts: Arc<OnceLock<Facts>>,
    gpus: GpuPart,
    started: Instant,
    state_lock: Option<File>,
    /// The log path, where it could be started.
    delivery: Option<Delivery>,
    /// How soon it is tried to start it again.
    pause: Duration,
    /// Until the page is served.
    admin_listener: Option<TcpListener>,
    /// What the page and the sub-commands ask, once it is served.
    api: Option<Swapped<Api>>,
    /// Ends those who follow the lines of the log path.
    tails: (Trigger, Shutdown),
    /// What was last said to be wrong with a configuration that is not in force.
    mistakes: Option<String>,
    parts: JoinSet<()>,
    shutdown: Shutdown,
}

impl Agent {
    /// The disk may have become writable: nobody has to come and restart the agent for that.
    fn try_again(&mut self) -> anyhow::Result<()> {
        let config = &self.loaded.config;
        if self.state_lock.is_none() {
            self.state_lock = try_lock_state(&config.state_dir).unwrap_or_default();
        }
        if self.state_lock.is_some() {
            self.delivery = delivery::start(config, &self.own, &self.ready, true);
            // It says each time why it does not work.
            self.pause = (2 * self.pause).min(LONGEST_PAUSE);
            self.show()?;
        }
        Ok(())
    }

    /// Lets page and sub-commands see the log path as it is now.
    fn show(&mut self) -> anyhow::Result<()> {
        let Some(delivery) = &self.delivery else { return Ok(()) };
        let config = &self.loaded.config;
        let state = AdminState {
            node: config.node_name.clone(),
            facts: Arc::clone(&self.facts),
            own: self.own.clone(),
            history: self.history.clone(),
            started: self.started,
            config: self.loaded.text(),
            sources: delivery::source_texts(config),
            sink: delivery.sink(),
            files: delivery.pipeline.mail.clone(),
            store: delivery
                .store
                .clone()
                .map(|reader| LocalStore { reader, max_bytes: config.store.max_bytes }),
            dead_letters: delivery.dead_letters.clone(),
        };
        let api = Api::new(state, &self.tails.1);
        match &self.api {
            Some(shown) => shown.set(api),
            None => {
                let api = Swapped::new(api);
                self.api = Some(api.clone());
                let listener = self.admin_listener.take();
                serve_admin(config, listener, &api, &self.shutdown, &mut self.parts)?;
            }
        }
        Ok(())
    }

    /// Reads the configuration again, and puts into force what is another one now. Whether the agent was asked to stop
    /// meanwhile.
    async fn reload(
        &mut self,
        cause: Cause,
        stop: Pin<&mut impl Future<Output = ()>>,
    ) -> anyhow::Result<bool> {
        let Some(mut reading) = self.reading.take() else { return Ok(false) };
        let (reading, read) = off_thread(move || {
            let read = reading.load();
            (reading, read)
        })
        .await;
        self.reading = Some(reading);
        let mut new = match read {
            Ok(new) => new,
            Err(mistakes) => {
                self.refuse(cause, &in_one_line(&mistakes));
                return Ok(false);
            }
        };
        let kept = new.config.keep_fixed(&self.loaded.config);
        let changes = Changes::between(&self.loaded.config, &new.config);
        // It can fail, so it is made before anything changes.
        let scraper = changes.metrics.then(|| scraper(&new.config, &self.own)).transpose();
        let scraper = match scraper {
            Ok(scraper) => scraper,
            Err(error) => {
                self.refuse(cause, &sentence(&error));
                return Ok(false);
            }
        };
        self.own.configured(true);
        if self.mistakes.take().is_some() {
            tracing::info!("the configuration is right again");
        }
        for note in new.notes.iter().filter(|note| !self.loaded.notes.contains(note)) {
            tracing::info!("{note}");
        }
        self.say_kept(&kept, &mut new);
        let old = mem::replace(&mut self.loaded, new);
        let config = &self.loaded.config;
        self.speech.set(&config.log);
        self.own.memory_budget(config.memory_limit);
        self.own.logs.ledger.show_containers(config.logs.container_metrics);
        if let Some(scraper) = scraper {
            self.metrics_site.set(metrics_site(config, &scraper, &self.ready));
            self.scraper.send_replace(scraper);
        }
        if changes.gpu {
            let config = self.loaded.config.clone();
            mem::replace(&mut self.gpus, GpuPart::none()).end().await;
            self.gpus = GpuPart::start(&config, &self.own);
        }
        let is_stopped = changes.logs && self.begin_logs_anew(stop).await;
        // Secrets are not shown, so that the text alone does not tell.
        if !is_stopped && (changes.logs || old.text() != self.loaded.text()) {
            self.show()?;
        }
        match changes.names() {
            names if !names.is_empty() => tracing::info!(changed = names, "a new configuration is in force"),
            _ if cause == Cause::Signal => {
                tracing::info!("the configuration was read again: nothing changes");
            }
            _ => {}
        }
        Ok(is_stopped)
    }

    /// Another configuration is wrong: that is said once, and whenever somebody asks.
    fn refuse(&mut self, cause: Cause, mistakes: &str) {
        self.own.configured(false);
        if cause == Cause::Signal || self.mistakes.as_deref() != Some(mistakes) {
            tracing::error!(mistakes, "the new configuration is wrong, the one before stays in force");
        }
        self.mistakes = Some(mistakes.to_owned());
    }

    /// Says what waits for a restart, once for each such configuration.
    fn say_kept(&self, kept: &[&str], new: &mut Loaded) {
        if kept.is_empty() {
            return;
        }
        let note = format!("{} can't be changed while the agent runs: restart it for that", kept.join(", "));
        if !self.loaded.notes.contains(&note) {
            tracing::warn!("{note}");
        }
        new.notes.push(note);
    }

    /// Ends the log path as the end of the agent does, and starts it from the configuration of now. Whether the agent was
    /// asked to stop meanwhile.
    async fn begin_logs_anew(&mut self, mut stop: Pin<&mut impl Future<Output = ()>>) -> bool {
        if let Some(delivery) = self.delivery.take() {
            self.end_tails();
            let mut ending = pin!(delivery.end(DELIVERY_PATIENCE, &self.own));
            let is_stopped = select! {
                () = &mut ending => false,
                () = &mut stop => true,
            };
            if is_stopped {
                ending.await;
                return true;
            }
        }
        self.pause = STATE_PAUSE;
        let config = &self.loaded.config;
        self.delivery = delivery::start(config, &self.own, &self.ready, self.state_lock.is_some());
        false
    }

    fn end_tails(&mut self) {
        let (trigger, _) = mem::replace(&mut self.tails, shutdown::channel());
        trigger.fire();
    }

    /// Ends the log path and waits for all else.
    async fn end(mut self) {
        self.end_tails();
        let logs = async {
            if let Some(delivery) = self.delivery {
                delivery.pipeline.stop(DELIVERY_PATIENCE).await;
            }
        };
        join!(logs, self.gpus.end());
        while self.parts.join_next().await.is_some() {}
    }
}

/// What reads the GPUs, with an end of its own: another configuration begins another one.
struct GpuPart(JoinSet<()>, Option<Trigger>);

impl GpuPart {
    fn start(config: &Config, own: &Own) -> Self {
        let (trigger, shutdown) = shutdown::channel();
        let mut part = JoinSet::new();
        let features = &own.logs.features;
        part.spawn(gpu::follow(
            gpu::Attribution::new(config, own.containers.clone()),
            own.gpus.clone(),
            features.clone(),
            shutdown.clone(),
        ));
        part.spawn(gpu::watch(gpu::Settings::new(config), own.gpus.clone(), features.clone(), shutdown));
        Self(part, Some(trigger))
    }

    fn none() -> Self {
        Self(JoinSet::new(), None)
    }

    async fn end(mut self) {
        // Dropping it asks too.
        drop(self.1);
        while self.0.join_next().await.is_some() {}
    }
}

/// All mistakes for one line of the agent's own log.
fn in_one_line(mistakes: &Mistakes) -> String {
    mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn metrics_site(config: &Config, scraper: &Scraper, ready: &Ready) -> MetricsSite {
    let path = &config.web.telemetry_path;
    MetricsSite::new(scraper.clone(), ready.clone(), path, config.metrics.max_requests)
}

fn scraper(config: &Config, own: &Own) -> anyhow::Result<Scraper> {
    let host = Host { containers: own.containers.clone(), ..config.host.clone() };
    Ok(Scraper::new(
        &config.metrics.enabled,
        config.metrics.settings.clone(),
        host,
        own.clone(),
        config.metrics.disable_exporter_metrics,
    )?)
}

/// Makes the state directory and keeps other agents out of it while the file is open. `None` when it can't be written: an
/// agent without a place for its state still serves metrics, and tries again.
fn lock_state(directory: &Path) -> anyhow::Result<Option<File>> {
    match try_lock_state(directory) {
        Ok(None) => bail!(
            "another agent uses the state directory {}; stop it, or choose another one with --state.dir",
            directory.display()
        ),
        Ok(lock) => Ok(lock),
        Err(error) => {
            tracing::error!(path = %directory.display(), %error, "the state directory can't be written, so that no logs are read until it can; or choose another one with --state.dir");
            Ok(None)
        }
    }
}

/// `None` when another agent has it.
fn try_lock_state(directory: &Path) -> io::Result<Option<File>> {
    fs::create_dir_all(directory)?;
    let file = File::create(directory.join("lock"))?;
    Ok(flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok().then_some(file))
}

/// Serves the page and the API on the admin listener, and the API alone on the control socket.
fn serve_admin(
    config: &Config,
    listener: Option<TcpListener>,
    api: &Swapped<Api>,
    shutdown: &Shutdown,
    parts: &mut JoinSet<()>,
) -> anyhow::Result<()> {
    let socket = config.state_dir.join(CONTROL_SOCKET);
    match bind_unix(&socket) {
        Ok(listener) => {
            parts.spawn(serve(listener, Arc::new(api.clone()), ADMIN_CONNECTIONS, shutdown.clone()));
        }
        Err(error) => {
            tracing::warn!(path = %socket.display(), %error, "no control socket: the sub-commands can't reach this agent");
        }
    }
    if let Some(listener) = listener {
        let token = Token::new().context("could not make the admin token")?;
        let address = listener.local_addr()?;
        let url = format!("http://{address}/?token={}", token.as_str());
        tracing::info!(%address, url, "admin listener ready");
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let site = AdminSite::new(token, api.clone());
        parts.spawn(serve(listener, Arc::new(site), ADMIN_CONNECTIONS, shutdown.clone()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn what_blocks_does_not_hold_up_the_end() {
        let (answer, never) = mpsc::channel::<()>();
        let runtime = Builder::new_current_thread().build().expect("a runtime");
        let result = run_to_end(runtime, async {
            let (started, start) = tokio::sync::oneshot::channel();
            tokio::task::spawn_blocking(move || {
                started.send(()).expect("the test waits");
                never.recv()
            });
            start.await
        });
        assert!(result.is_ok());
        // It blocks still: somebody listens.
        answer.send(()).expect("it is still there");
    }
}
