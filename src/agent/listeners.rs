//! The agent's sockets: where they are bound, and what is served on them.

use std::{net::TcpListener, sync::Arc};

use anyhow::Context;
use tokio::task::JoinSet;

use crate::{
    config::{Config, ListenAddress, web_file},
    gpu::{GpuSite, Gpus},
    shutdown::Shutdown,
    web::{
        gate::{Gated, live::Live, rules::NotKnown},
        serve,
        server::{Site, serve_tls},
        sockets::{self, Socket},
    },
};

/// Connections on the metrics listener: `--web.max-requests` bounds the scrapes among them.
const METRICS_CONNECTIONS: usize = 512;

/// Binds the first address of `at` that can be bound.
pub(super) fn bind(at: &ListenAddress, flag: &str) -> anyhow::Result<TcpListener> {
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

/// The rules of `--web.config.file`; without one nothing of TLS is touched.
pub(super) fn rules(config: &Config) -> anyhow::Result<Option<Arc<Live>>> {
    let Some(path) = config.web.config_file.clone() else { return Ok(None) };
    let live = Live::new(move || web_file::reading(&path));
    // It was right a moment ago.
    live.rules()?;
    Ok(Some(Arc::new(live)))
}

/// Where metrics are asked for: sockets of systemd's, or addresses of our own.
pub(super) fn metrics_sockets(config: &Config) -> anyhow::Result<Vec<Socket>> {
    if config.web.systemd_socket {
        tracing::info!("listening on the sockets of systemd instead of addresses");
        return Ok(sockets::handed_over()?);
    }
    let bound = config.web.listen.iter().map(|at| bind(at, "--web.listen-address").map(Socket::Tcp));
    bound.collect()
}

/// Serves the metrics on every socket, over TLS when the rules speak of it; a later change of the rules does not change that.
pub(super) fn serve_metrics(
    sockets: Vec<Socket>,
    site: impl Site,
    rules: Option<Arc<Live>>,
    ready: &str,
    shutdown: &Shutdown,
    parts: &mut JoinSet<()>,
) -> anyhow::Result<()> {
    let site = Arc::new(site);
    let secured = rules.map(|rules| Ok::<_, NotKnown>(rules.tls()?.map(|_| rules))).transpose()?.flatten();
    for socket in sockets {
        tracing::info!(address = socket.address(), tls = secured.is_some(), "{ready}");
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

/// Serves the series of GPUs alone, behind the same rules.
pub(super) fn serve_gpus(
    at: &ListenAddress,
    gpus: Gpus,
    rules: Option<Arc<Live>>,
    shutdown: &Shutdown,
    parts: &mut JoinSet<()>,
) -> anyhow::Result<()> {
    let socket = vec![Socket::Tcp(bind(at, "gpu.listen_address")?)];
    match rules {
        Some(rules) => {
            let site = Gated::new(GpuSite(gpus), Arc::clone(&rules))?;
            serve_metrics(socket, site, Some(rules), "GPU metrics listener ready", shutdown, parts)
        }
        None => serve_metrics(socket, GpuSite(gpus), None, "GPU metrics listener ready", shutdown, parts),
    }
}
