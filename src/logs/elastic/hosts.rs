//! Which server gets the next request: the one with the fewest on their way, among those that answer.
//!
//! A name may stand for several addresses: each is a server of its own, and names are looked up again and again. One that fails
//! is left out for a while that doubles, and comes back when it answers a probe. Equals are chosen by chance, so that ten
//! thousand agents do not all begin with the same one. No server is asked for the others' addresses: behind a proxy or a
//! Kubernetes service those lead nowhere.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{net::lookup_host, time::timeout};

use super::address::Host;
use crate::{
    backoff::{Backoff, Random, seed},
    logs::status::{Obstacle, Reason},
};

/// Names are looked up again after this long, and up to half as long again.
const LOOK_UP_AGAIN: Duration = Duration::from_secs(30);
/// The same after a failure, of the look-up or of a server.
const LOOK_UP_SOON: Duration = Duration::from_secs(2);
/// How long a look-up may take.
const LOOK_UP_PATIENCE: Duration = Duration::from_secs(5);
/// How long a server is left out at least, and the first bound of what comes on top by chance.
const OUT_FOR: Duration = Duration::from_millis(500);
/// The highest bound of that.
const LONGEST_OUT: Duration = Duration::from_secs(30);

/// One server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// Which of the hosts.
    pub host: usize,
    /// One of its addresses; `None` behind a proxy, which looks the name up itself.
    pub address: Option<SocketAddr>,
}

/// The servers.
#[derive(Debug)]
pub struct Hosts {
    hosts: Vec<Name>,
    state: Mutex<State>,
    /// One look-up at a time.
    looking: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Name {
    name: String,
    port: u16,
}

#[derive(Debug)]
struct State {
    servers: Vec<Server>,
    /// When each name is to be looked up.
    due: Vec<Option<Instant>>,
    /// What was wrong with the last look-up that found nothing.
    not_found: Option<String>,
    random: Random,
}

#[derive(Debug)]
struct Server {
    endpoint: Endpoint,
    in_flight: usize,
    /// Since when it is left out.
    out: Option<Instant>,
    /// For how long it is left out when it fails next.
    backoff: Backoff,
    failures: u32,
    /// Somebody looks whether it answers again.
    is_probed: bool,
}

/// A server that was chosen; it counts as one request on its way until it is dropped.
#[derive(Debug)]
pub struct Chosen {
    /// The server.
    pub endpoint: Endpoint,
    hosts: Arc<Hosts>,
}

/// What to do about a server that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed {
    /// How often since it answered last.
    pub failures: u32,
    /// Somebody looks already whether it answers again.
    pub is_probed: bool,
}

impl Drop for Chosen {
    fn drop(&mut self) {
        if let Some(server) = self.hosts.lock().find(self.endpoint) {
            server.in_flight = server.in_flight.saturating_sub(1);
        }
    }
}

impl Server {
    fn new(endpoint: Endpoint) -> Self {
        let backoff = Backoff::new(OUT_FOR, LONGEST_OUT, seed());
        Self { endpoint, in_flight: 0, out: None, backoff, failures: 0, is_probed: false }
    }
}

impl State {
    fn find(&mut self, endpoint: Endpoint) -> Option<&mut Server> {
        self.servers.iter_mut().find(|server| server.endpoint == endpoint)
    }

    /// The best server. When all are left out, it is the one that failed the longest ago: somebody has to try.
    fn choose(&mut self) -> Option<Endpoint> {
        let is_in = |server: &&mut Server| server.out.is_none();
        let random = &mut self.random;
        let best = match self.servers.iter().any(|server| server.out.is_none()) {
            true => self
                .servers
                .iter_mut()
                .filter(is_in)
                .min_by_key(|server| (server.in_flight, random.number()))?,
            false => self.servers.iter_mut().min_by_key(|server| (server.out, random.number()))?,
        };
        best.in_flight += 1;
        Some(best.endpoint)
    }

    /// Names that are due, and not so soon again.
    fn take_due(&mut self, now: Instant) -> Vec<usize> {
        let mut names = Vec::new();
        for (name, due) in self.due.iter_mut().enumerate() {
            if due.is_some_and(|due| due <= now) {
                *due = Some(now + LOOK_UP_SOON);
                names.push(name);
            }
        }
        names
    }

    fn resolved(&mut self, host: usize, addresses: &[SocketAddr]) {
        let chance = LOOK_UP_AGAIN.mul_f64(0.5 * self.random.share());
        self.due[host] = Some(Instant::now() + LOOK_UP_AGAIN + chance);
        self.servers.retain(|server| {
            server.endpoint.host != host || server.endpoint.address.is_none_or(|at| addresses.contains(&at))
        });
        for address in addresses {
            let endpoint = Endpoint { host, address: Some(*address) };
            if self.find(endpoint).is_none() {
                self.servers.push(Server::new(endpoint));
            }
        }
    }
}

impl Hosts {
    /// None is looked up yet. `by_proxy` says which are reached through one.
    pub fn new(hosts: &[Host], by_proxy: impl Fn(&Host) -> bool) -> Self {
        let mut state =
            State { servers: Vec::new(), due: Vec::new(), not_found: None, random: Random::new() };
        let mut names = Vec::new();
        for (number, host) in hosts.iter().enumerate() {
            let by_proxy = by_proxy(host);
            let fixed = host.name.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, host.port));
            let address = fixed.filter(|_| !by_proxy);
            let is_known = by_proxy || address.is_some();
            if is_known {
                state.servers.push(Server::new(Endpoint { host: number, address }));
            }
            state.due.push((!is_known).then(Instant::now));
            names.push(Name { name: host.name.clone(), port: host.port });
        }
        Self { hosts: names, state: Mutex::new(state), looking: tokio::sync::Mutex::new(()) }
    }

    /// The server for the next request. Waits for a look-up only when no server is known.
    pub async fn choose(self: &Arc<Self>) -> Result<Chosen, Reason> {
        let (chosen, due) = {
            let mut state = self.lock();
            (state.choose(), state.take_due(Instant::now()))
        };
        if let Some(endpoint) = chosen {
            if !due.is_empty() {
                let hosts = Arc::clone(self);
                tokio::spawn(async move { hosts.look_up(due).await });
            }
            return Ok(Chosen { endpoint, hosts: Arc::clone(self) });
        }
        self.look_up(due).await;
        let mut state = self.lock();
        match state.choose() {
            Some(endpoint) => Ok(Chosen { endpoint, hosts: Arc::clone(self) }),
            None => Err(Reason::new(Obstacle::Unreachable, state.not_found.clone().unwrap_or_default())),
        }
    }

    /// Looks these names up. What is known of one that is not found stays.
    async fn look_up(&self, due: Vec<usize>) {
        let _turn = self.looking.lock().await;
        for number in due {
            let Name { name, port } = &self.hosts[number];
            let found = match timeout(LOOK_UP_PATIENCE, lookup_host((name.as_str(), *port))).await {
                Ok(found) => found.map(|found| found.collect::<Vec<_>>()),
                Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
            };
            let mut state = self.lock();
            match found {
                Ok(addresses) if !addresses.is_empty() => state.resolved(number, &addresses),
                Ok(_) => state.not_found = Some(format!("{name} has no address")),
                Err(error) => state.not_found = Some(format!("{name} is not found: {error}")),
            }
        }
    }

    /// It answered: it is as good as any.
    pub fn answered(&self, endpoint: Endpoint) {
        let mut state = self.lock();
        let Some(server) = state.find(endpoint) else { return };
        server.out = None;
        if server.failures > 0 {
            let Server { in_flight, is_probed, .. } = *server;
            *server = Server { in_flight, is_probed, ..Server::new(endpoint) };
        }
    }

    /// It answered a probe: it may have requests again. What it does with those decides how long it is left out the next time.
    pub fn readmit(&self, endpoint: Endpoint) {
        if let Some(server) = self.lock().find(endpoint) {
            server.out = None;
            server.is_probed = false;
        }
    }

    /// It failed. How often it has by now, when it was not left out before; the caller probes it then, unless that is
    /// [under way](Failed::is_probed).
    pub fn failed(&self, endpoint: Endpoint) -> Option<Failed> {
        let mut state = self.lock();
        let now = Instant::now();
        // It may have moved.
        if let Some(due) = state.due[endpoint.host].as_mut() {
            *due = (*due).min(now + LOOK_UP_SOON);
        }
        let server = state.find(endpoint)?;
        let was_in = server.out.replace(now).is_none();
        server.failures += u32::from(was_in);
        let is_probed = std::mem::replace(&mut server.is_probed, true);
        was_in.then_some(Failed { failures: server.failures, is_probed })
    }

    /// How long to wait until a server that is left out is probed; `None` when it is not, or not any more.
    pub fn next_probe(&self, endpoint: Endpoint) -> Option<Duration> {
        let mut state = self.lock();
        let server = state.find(endpoint)?;
        server.is_probed = server.out.is_some();
        server.is_probed.then(|| OUT_FOR + server.backoff.next_wait())
    }

    /// Whether any server has requests: when none has, requests themselves are the probes.
    pub fn is_any_in(&self) -> bool {
        self.lock().servers.iter().any(|server| server.out.is_none())
    }

    /// Whether this one is known, and is not left out.
    pub fn is_in(&self, endpoint: Endpoint) -> bool {
        self.lock().find(endpoint).is_some_and(|server| server.out.is_none())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(names: &[&str]) -> Arc<Hosts> {
        let host =
            |name: &&str| Host { is_secure: false, name: (*name).into(), port: 9, path: String::new() };
        Arc::new(Hosts::new(&names.iter().map(host).collect::<Vec<_>>(), |_| false))
    }

    #[tokio::test]
    async fn the_one_with_the_fewest_on_their_way_is_chosen() {
        let hosts = hosts(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        let mut chosen = Vec::new();
        for round in 1..=4 {
            for _ in 0..3 {
                chosen.push(hosts.choose().await.expect("one"));
            }
            assert!(hosts.lock().servers.iter().all(|server| server.in_flight == round));
        }
        let dropped = chosen.remove(0).endpoint;
        assert_eq!(hosts.choose().await.expect("one").endpoint, dropped);
    }

    #[tokio::test]
    async fn agents_begin_with_different_servers() {
        let mut first = Vec::new();
        for _ in 0..64 {
            first.push(hosts(&["10.0.0.1", "10.0.0.2"]).choose().await.expect("one").endpoint.host);
        }
        assert!(first.contains(&0) && first.contains(&1));
    }

    #[tokio::test]
    async fn who_failed_is_left_out_until_it_answers_unless_all_are() {
        let hosts = hosts(&["10.0.0.1", "10.0.0.2"]);
        let first = hosts.choose().await.expect("one").endpoint;
        let failed = |failures, is_probed| Some(Failed { failures, is_probed });
        assert_eq!(hosts.failed(first), failed(1, false));
        assert_eq!(hosts.failed(first), None, "another request of the same time");
        let other = hosts.choose().await.expect("one");
        assert_ne!(other.endpoint, first);
        assert_ne!(
            hosts.choose().await.expect("one").endpoint,
            first,
            "although the other has one on its way"
        );
        assert!(hosts.next_probe(other.endpoint).is_none() && hosts.next_probe(first).is_some());
        hosts.failed(other.endpoint);
        assert!(!hosts.is_any_in());
        assert_eq!(hosts.choose().await.expect("one").endpoint, first, "it failed the longest ago");
        hosts.readmit(first);
        assert_eq!(hosts.failed(first), failed(2, false));
        hosts.answered(first);
        assert_eq!(hosts.failed(first), failed(1, true));
        hosts.answered(first);
        assert!(hosts.is_in(first) && hosts.next_probe(first).is_none());
        assert_eq!(hosts.failed(first), failed(1, false));
    }

    #[tokio::test]
    async fn each_address_of_a_name_is_a_server_and_those_change() {
        let hosts = hosts(&["localhost"]);
        let first = hosts.choose().await.expect("it is looked up").endpoint;
        assert!(first.address.is_some_and(|address| address.ip().is_loopback()));
        let at = |last: u8| SocketAddr::from(([10, 0, 0, last], 9));
        hosts.lock().resolved(0, &[at(1), at(2)]);
        hosts.failed(Endpoint { host: 0, address: Some(at(1)) });
        hosts.lock().resolved(0, &[at(1), at(3)]);
        let known: Vec<_> = hosts
            .lock()
            .servers
            .iter()
            .map(|server| (server.endpoint.address, server.out.is_some()))
            .collect();
        assert_eq!(known, [(Some(at(1)), true), (Some(at(3)), false)]);
    }

    #[tokio::test]
    async fn a_name_without_an_address_is_said() {
        let hosts = hosts(&["nobody.invalid"]);
        let reason = hosts.choose().await.expect_err("nobody");
        assert!(reason.text.starts_with("nobody.invalid is not found: "), "{}", reason.text);
        // It is not looked up again so soon.
        assert_eq!(hosts.choose().await.expect_err("nobody"), reason);
    }
}
