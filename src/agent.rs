//! The agent: makes the parts out of a `Config`, lets them run, ends them in order.

use std::{
    fs::{self, File},
    io,
    net::TcpListener,
    path::Path,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use nodewarden_collectors::syscall::memory;
use prometheus::Registry;
use rustix::{
    fs::{FlockOperation, flock},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use tokio::{
    runtime::{Builder, Runtime},
    task::JoinSet,
    time::timeout,
};

use crate::{
    config::{Config, ListenAddress, Loaded, web_file},
    delivery::{self, Delivery},
    metrics::{History, Own, Scraper},
    shutdown::{self, Shutdown},
    web::{
        AdminSite, Api, MetricsSite, Ready, Token,
        api::{AdminState, LocalStore},
        facts::Facts,
        gate::{Gated, live::Live, rules::NotKnown},
        serve,
        server::{Site, bind_unix, serve_tls},
        sockets::{self, Socket},
    },
};

/// The control socket's name in the state directory.
pub const CONTROL_SOCKET: &str = "admin.sock";

/// How long lines in flight may take after the agent was asked to stop. With what follows it stays below 5 seconds.
const DELIVERY_PATIENCE: Duration = Duration::from_millis(3500);
/// How often a state directory that can't be written is tried again.
const STATE_PAUSE: Duration = Duration::from_secs(5);
/// The same when it can be written and logs can't be read for another reason.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Connections on the metrics listener: `--web.max-requests` bounds the scrapes among them.
const METRICS_CONNECTIONS: usize = 512;
/// Connections on the admin listener and the control socket.
const ADMIN_CONNECTIONS: usize = 64;

/// Runs until a signal ends it.
pub fn run(loaded: &Loaded) -> anyhow::Result<()> {
    // One thread: answers and shipping are waiting for the most part, and what is not runs on threads of its own.
    let runtime =
        Builder::new_current_thread().enable_all().build().context("could not start the runtime")?;
    raise_file_limit();
    run_to_end(runtime, serve_until_signal(loaded))
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

async fn serve_until_signal(loaded: &Loaded) -> anyhow::Result<()> {
    let config = &loaded.config;
    let stop = shutdown::signals().context("could not listen for signals")?;
    let rules = rules(config)?;
    let metrics_sockets = metrics_sockets(config)?;
    let admin_listener =
        config.admin.listen.as_ref().map(|at| bind(at, "--admin.listen-address")).transpose()?;

    let own = Own::new(Registry::new())?;
    own.memory_budget(config.memory_limit);
    own.logs.ledger.show_containers(config.logs.container_metrics);
    let scraper = scraper(config, &own)?;
    let (trigger, shutdown) = shutdown::channel();
    let ready = Ready::default();
    let mut state_lock = lock_state(&config.state_dir)?;
    let mut delivery = delivery::start(config, &own, &ready, state_lock.is_some());

    let mut parts = JoinSet::new();
    let site = MetricsSite::new(
        scraper.clone(),
        ready.clone(),
        &config.web.telemetry_path,
        config.metrics.max_requests,
    );
    match rules {
        Some(rules) => {
            let site = Gated::new(site, Arc::clone(&rules))?;
            serve_metrics(metrics_sockets, site, Some(rules), &shutdown, &mut parts)?;
        }
        None => serve_metrics(metrics_sockets, site, None, &shutdown, &mut parts)?,
    }
    let history = History::default();
    // Its samples, one a second, are for the page alone.
    if admin_listener.is_some() {
        parts.spawn(history.clone().run(scraper, shutdown.clone()));
    }
    memory::give_back_heap();
    let (mut stop, mut pause) = (pin!(stop), STATE_PAUSE);
    let is_stopped = loop {
        if let Some(delivery) = &delivery {
            serve_admin(loaded, admin_listener, own, history, delivery, &shutdown, &mut parts)?;
            break false;
        }
        // The disk may become writable: nobody has to come and restart the agent for that.
        if timeout(pause, &mut stop).await.is_ok() {
            break true;
        }
        if state_lock.is_none() {
            state_lock = try_lock_state(&config.state_dir).unwrap_or_default();
        }
        if state_lock.is_some() {
            delivery = delivery::start(config, &own, &ready, true);
            // It says each time why it does not work.
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    };
    if !is_stopped {
        stop.await;
    }
    trigger.fire();
    if let Some(delivery) = delivery {
        delivery.pipeline.stop(DELIVERY_PATIENCE).await;
    }
    while parts.join_next().await.is_some() {}
    tracing::info!("stopped");
    Ok(())
}

/// Binds the first address of `at` that can be bound.
fn bind(at: &ListenAddress, flag: &str) -> anyhow::Result<TcpListener> {
    let mut failure = anyhow::anyhow!("it has no address");
    for address in at.resolve().with_context(|| format!("could not look up {at}"))? {
        match TcpListener::bind(address) {
            Ok(listener) => {
                listener.set_nonblocking(true)?;
                return Ok(listener);
            }
            Err(error) => failure = error.into(),
        }
    }
    Err(failure.context(format!(
        "could not listen on {at}; stop who listens there, or choose another address with {flag}"
    )))
}

fn scraper(config: &Config, own: &Own) -> anyhow::Result<Scraper> {
    Ok(Scraper::new(
        &config.metrics.enabled,
        config.metrics.settings.clone(),
        config.host.clone(),
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

/// The rules of `--web.config.file`; without one nothing of TLS is touched.
fn rules(config: &Config) -> anyhow::Result<Option<Arc<Live>>> {
    let Some(path) = config.web.config_file.clone() else { return Ok(None) };
    let live = Live::new(move || web_file::reading(&path));
    // It was right a moment ago.
    live.rules()?;
    Ok(Some(Arc::new(live)))
}

/// Where metrics are asked for: sockets of systemd's, or addresses of our own.
fn metrics_sockets(config: &Config) -> anyhow::Result<Vec<Socket>> {
    if config.web.systemd_socket {
        tracing::info!("listening on the sockets of systemd instead of addresses");
        return Ok(sockets::handed_over()?);
    }
    let bound = config.web.listen.iter().map(|at| bind(at, "--web.listen-address").map(Socket::Tcp));
    bound.collect()
}

/// Serves the metrics on every socket, over TLS when the rules speak of it; a later change of the rules does not change that.
fn serve_metrics(
    sockets: Vec<Socket>,
    site: impl Site,
    rules: Option<Arc<Live>>,
    shutdown: &Shutdown,
    parts: &mut JoinSet<()>,
) -> anyhow::Result<()> {
    let site = Arc::new(site);
    let secured = rules.map(|rules| Ok::<_, NotKnown>(rules.tls()?.map(|_| rules))).transpose()?.flatten();
    for socket in sockets {
        tracing::info!(address = socket.address(), tls = secured.is_some(), "metrics listener ready");
        let (site, shutdown) = (Arc::clone(&site), shutdown.clone());
        match (socket, secured.clone()) {
            (Socket::Tcp(socket), None) => {
                let socket = tokio::net::TcpListener::from_std(socket)?;
                parts.spawn(serve(socket, site, METRICS_CONNECTIONS, shutdown));
            }
            (Socket::Tcp(socket), Some(rules)) => {
                let socket = tokio::net::TcpListener::from_std(socket)?;
                parts.spawn(serve_tls(socket, rules, site, METRICS_CONNECTIONS, shutdown));
            }
            (Socket::Unix(socket), None) => {
                let socket = tokio::net::UnixListener::from_std(socket)?;
                parts.spawn(serve(socket, site, METRICS_CONNECTIONS, shutdown));
            }
            (Socket::Unix(socket), Some(rules)) => {
                let socket = tokio::net::UnixListener::from_std(socket)?;
                parts.spawn(serve_tls(socket, rules, site, METRICS_CONNECTIONS, shutdown));
            }
        }
    }
    Ok(())
}

/// Serves the page and the API on the admin listener, and the API alone on the control socket.
fn serve_admin(
    loaded: &Loaded,
    listener: Option<TcpListener>,
    own: Own,
    history: History,
    delivery: &Delivery,
    shutdown: &Shutdown,
    parts: &mut JoinSet<()>,
) -> anyhow::Result<()> {
    let config = &loaded.config;
    let state = AdminState {
        node: config.node_name.clone(),
        facts: Facts::read_aside(&config.host),
        own,
        history,
        config: loaded.text(),
        sources: delivery::source_texts(config),
        sink: delivery.sink(),
        files: delivery.pipeline.mail.clone(),
        store: delivery.store.clone().map(|reader| LocalStore { reader, max_bytes: config.store.max_bytes }),
        dead_letters: delivery.dead_letters.clone(),
    };
    let api = Arc::new(Api::new(state, shutdown));
    let socket = config.state_dir.join(CONTROL_SOCKET);
    match bind_unix(&socket) {
        Ok(listener) => {
            parts.spawn(serve(listener, Arc::clone(&api), ADMIN_CONNECTIONS, shutdown.clone()));
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
        parts.spawn(serve(
            listener,
            Arc::new(AdminSite::new(token, api)),
            ADMIN_CONNECTIONS,
            shutdown.clone(),
        ));
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
