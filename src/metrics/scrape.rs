//! Scrapes: who asks, what they want of it, and until when.
//!
//! One scrape runs at a time, on a thread of its own (`worker`); those who ask meanwhile wait in the order in which they came,
//! and whoever wants what the scrape before just gave gets that.

use std::{
    io::{self, Write},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use nodewarden_collectors::{BuildError, Entry, Host, Samples, Settings, node, text};
use tokio::{
    sync::{Mutex, oneshot},
    time::timeout_at,
};
use tracing::{debug, warn};

use super::{
    own::{self, Own},
    process,
    worker::{Bench, Desk, Finish, Wanted},
};

/// Runs the collectors for whoever asks. Clones share them.
#[derive(Clone)]
pub struct Scraper {
    inner: Arc<Inner>,
}

struct Inner {
    entries: Vec<&'static Entry>,
    bench: Arc<Bench>,
    about: About,
    turn: Mutex<Option<Last>>,
}

/// What the page says of the agent.
#[derive(Clone)]
struct About {
    own: Own,
    boot_time: f64,
    only_build: bool,
}

/// The last page, for those who already waited for it when it was made.
struct Last {
    request: Request,
    finished: Instant,
    page: Bytes,
}

/// Which collectors a scrape runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    wanted: Wanted,
    /// Whether somebody named what it wants: then what is no collector's is another request's.
    is_named: bool,
}

/// A page to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Which collectors run.
    pub selection: Selection,
    /// Whether the page comes compressed.
    pub gzip: bool,
}

/// Why a selection of collectors is refused; the texts are node_exporter's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// Only one of the two ways to select can be used.
    #[error("Combined collect and exclude queries are not allowed.")]
    Both,
    /// There is no such collector.
    #[error("Couldn't create filtered metrics handler: couldn't create collector: missing collector: {0}")]
    Missing(String),
    /// There is one, but it is off.
    #[error("Couldn't create filtered metrics handler: couldn't create collector: disabled collector: {0}")]
    Disabled(String),
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum ScrapeError {
    /// The time the client gives was over before.
    #[error("the scrape was not done in time")]
    Deadline,
    /// The scraping thread could not be started.
    #[error("could not start the scraping thread: {0}")]
    Thread(#[from] io::Error),
    /// The scrape ended without a result.
    #[error("the scrape ended without a result")]
    Lost,
}

impl Scraper {
    /// Makes the collectors called `names`. With `only_build` the page says nothing of the agent but its version
    /// (`--web.disable-exporter-metrics`).
    pub fn new(
        names: &[&str],
        settings: Settings,
        host: Host,
        own: Own,
        only_build: bool,
    ) -> Result<Self, BuildError> {
        let entries = node::ALL.iter().copied().filter(|entry| names.contains(&entry.name)).collect();
        Self::with_entries(entries, settings, host, own, only_build)
    }

    fn with_entries(
        entries: Vec<&'static Entry>,
        settings: Settings,
        host: Host,
        own: Own,
        only_build: bool,
    ) -> Result<Self, BuildError> {
        let bench = Bench::new(&entries, settings, host)?;
        let boot_time = process::boot_time().unwrap_or_else(|error| {
            debug!(%error, "the time of the boot is not known");
            0.0
        });
        let about = About { own, boot_time, only_build };
        Ok(Self { inner: Arc::new(Inner { entries, bench, about, turn: Mutex::new(None) }) })
    }

    /// What `collect[]` and `exclude[]` ask for. Without either it is everything; so it is when everything is excluded.
    pub fn select(&self, collect: &[String], exclude: &[String]) -> Result<Selection, SelectError> {
        if !collect.is_empty() && !exclude.is_empty() {
            return Err(SelectError::Both);
        }
        let entries = &self.inner.entries;
        for name in collect {
            if entries.iter().all(|entry| entry.name != name) {
                let is_known = node::ALL.iter().any(|entry| entry.name == name);
                let error = if is_known { SelectError::Disabled } else { SelectError::Missing };
                return Err(error(name.clone()));
            }
        }
        let has = |names: &[String], entry: &Entry| names.iter().any(|name| name == entry.name);
        let wanted: Wanted = entries
            .iter()
            .map(|entry| if collect.is_empty() { !has(exclude, entry) } else { has(collect, entry) })
            .collect();
        match wanted.contains(&true) {
            true => Ok(Selection { wanted, is_named: !collect.is_empty() }),
            false => Ok(Selection { wanted: vec![true; entries.len()].into(), is_named: false }),
        }
    }

    /// Those of `names` that are on.
    pub fn those_of(&self, names: &[&str]) -> Selection {
        let wanted = self.inner.entries.iter().map(|entry| names.contains(&entry.name)).collect();
        Selection { wanted, is_named: true }
    }

    /// The metrics page as of now.
    pub async fn page(&self, request: Request, deadline: Instant) -> Result<Bytes, ScrapeError> {
        let arrived = Instant::now();
        let Ok(mut last) = timeout_at(deadline.into(), self.inner.turn.lock()).await else {
            return Err(ScrapeError::Deadline);
        };
        if let Some(last) = last.as_ref().filter(|last| last.request == request && last.finished >= arrived) {
            return Ok(last.page.clone());
        }
        let (about, gzip) = (self.inner.about.clone(), request.gzip);
        let with_gpus = !request.selection.is_named;
        let print = move |desk: &mut Desk| print(&about, with_gpus, gzip, desk);
        let page = self.scrape(request.selection.wanted.clone(), deadline, print).await?;
        *last = Some(Last { request, finished: Instant::now(), page: page.clone() });
        Ok(page)
    }

    /// What `read` makes of the samples of a scrape; it runs on the scraping thread.
    pub async fn samples<T: Send + 'static>(
        &self,
        selection: &Selection,
        deadline: Instant,
        read: impl FnOnce(&Samples) -> T + Send + 'static,
    ) -> Result<T, ScrapeError> {
        let Ok(_turn) = timeout_at(deadline.into(), self.inner.turn.lock()).await else {
            return Err(ScrapeError::Deadline);
        };
        self.scrape(selection.wanted.clone(), deadline, move |desk: &mut Desk| read(&desk.samples)).await
    }

    /// Has the worker do a scrape, with an eye on the clock. The caller holds the turn.
    async fn scrape<T: Send + 'static>(
        &self,
        wanted: Wanted,
        deadline: Instant,
        make: impl FnOnce(&mut Desk) -> T + Send + 'static,
    ) -> Result<T, ScrapeError> {
        let bench = &self.inner.bench;
        let (answer, mut answered) = oneshot::channel();
        let finish: Finish = Box::new(move |desk| {
            if answer.send(make(desk)).is_err() {
                debug!("whoever asked for the scrape is gone");
            }
        });
        bench.ask(wanted, finish)?;
        loop {
            let now = Instant::now();
            if now >= deadline {
                return Err(ScrapeError::Deadline);
            }
            let next_look = bench.look(now, deadline)?.min(deadline);
            if let Ok(answer) = timeout_at(next_look.into(), &mut answered).await {
                return answer.map_err(|_| ScrapeError::Lost);
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.bench.close();
    }
}

/// When a scrape has to be answered: half a second before the client gives up, which says so in
/// `X-Prometheus-Scrape-Timeout-Seconds`; 10 s is Prometheus' default.
pub fn deadline(header: Option<&str>, now: Instant) -> Instant {
    const RESERVE: f64 = 0.5;
    let seconds = header.and_then(|text| text.trim().parse::<f64>().ok());
    let timeout = seconds.filter(|seconds| *seconds > 0.0).unwrap_or(10.0).min(3600.0);
    let given = if timeout > 2.0 * RESERVE { timeout - RESERVE } else { timeout / 2.0 };
    now + Duration::from_secs_f64(given)
}

/// Prints what the desk has. A page of a big machine is megabytes: it is compressed family by family, so that the whole of
/// it never lies in memory.
fn print(about: &About, with_gpus: bool, gzip: bool, desk: &mut Desk) -> Bytes {
    about.say(desk);
    if with_gpus {
        about.own.gpus.say(&mut desk.samples);
    }
    let Desk { samples, page, last_sizes, left_out, .. } = desk;
    let last_size = &mut last_sizes[usize::from(gzip)];
    let answer = Vec::with_capacity(*last_size + *last_size / 16);
    let mut repeated = 0;
    let answer = if gzip {
        page.clear();
        compress(answer, |encoder| {
            repeated = text::write_in_pieces(samples, page, |piece| {
                if piece.len() >= PIECE {
                    encoder.write_all(piece)?;
                    piece.clear();
                }
                Ok(())
            })?;
            encoder.write_all(page)
        })
    } else {
        let mut answer = answer;
        repeated = text::write(samples, &mut answer);
        answer
    };
    // Once, not at each scrape: until there are more of them.
    if repeated > *left_out {
        *left_out = repeated;
        warn!(
            samples = repeated,
            "the page leaves out what was said twice, or under a known name with another type or help text: look at the textfiles"
        );
    }
    *last_size = answer.len();
    answer.into()
}

impl About {
    fn say(&self, desk: &mut Desk) {
        if self.only_build {
            return own::say_build(&mut desk.samples);
        }
        self.own.say(&mut desk.samples);
        if let Err(error) = desk.process.say(self.boot_time, &mut desk.samples) {
            debug!(%error, "the agent's own process could not be read");
        }
    }
}

/// How much text is handed to the compressor at once.
const PIECE: usize = 32 * 1024;

/// Level 1: on a page of 120 kB it takes 0.14 ms for 22.6 kB, where level 2 takes 0.27 ms for 18.7 kB and level 6, the usual
/// one, 0.9 ms for 16.3 kB. A kept compressor is no faster than a fresh one, so its 300 kB are given back.
fn compress(answer: Vec<u8>, write: impl FnOnce(&mut GzEncoder<Vec<u8>>) -> io::Result<()>) -> Vec<u8> {
    let mut encoder = GzEncoder::new(answer, Compression::new(1));
    // A Vec takes everything, so the default is never taken.
    write(&mut encoder).and_then(|()| encoder.finish()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
