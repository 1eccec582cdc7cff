//! Secret and certificates as their files say now.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::header::HeaderValue;
use rustls::ClientConfig;
use tokio::sync::{Mutex, MutexGuard};

use super::{auth::Auth, tls::Tls};
use crate::{
    logs::{
        ship::off_thread,
        status::{Obstacle, Reason},
    },
    stamps::Stamps,
};

/// Files are looked at no more often than this.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a request and its connection are made with.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The value of the `Authorization` header.
    pub authorization: Option<HeaderValue>,
    /// For servers with https; `None` when there is none.
    pub tls: Option<Arc<ClientConfig>>,
}

/// Reads the files anew when they change. What can't be used does not replace what could: it is said, and the old one stays.
pub struct Live {
    files: Arc<Files>,
    last: Mutex<Last>,
}

struct Files {
    auth: Auth,
    tls: Option<Tls>,
}

struct Last {
    reading: Result<Credentials, Reason>,
    /// Counts what was read that can be used and is not the same.
    version: u64,
    stamps: Stamps,
    looked: Instant,
}

impl Live {
    /// Reads them a first time, which blocks on the disk; what is wrong is said by [`current`](Self::current). Without `tls`
    /// no certificates are read: those of a system take memory.
    pub fn new(auth: Auth, tls: Option<Tls>) -> Self {
        let files = Arc::new(Files { auth, tls });
        let stamps = files.stamps();
        let last = Last { reading: files.read(), version: 0, stamps, looked: Instant::now() };
        Self { files, last: Mutex::new(last) }
    }

    /// What is in force.
    pub async fn current(&self) -> Result<Credentials, Reason> {
        self.look().await.reading.clone()
    }

    /// Waits until something else is in force than now.
    pub async fn changed(&self) {
        let before = self.last.lock().await.version;
        while self.look().await.version == before {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn look(&self) -> MutexGuard<'_, Last> {
        let mut last = self.last.lock().await;
        if last.looked.elapsed() >= LOOK_EVERY {
            let (files, stamps) = (Arc::clone(&self.files), last.stamps.clone());
            let (stamps, reading) = off_thread(move || match stamps.is_old() {
                true => (files.stamps(), Some(files.read())),
                false => (stamps, None),
            })
            .await;
            last.stamps = stamps;
            last.looked = Instant::now();
            if let Some(reading) = reading {
                last.take(reading);
            }
        }
        last
    }
}

impl Last {
    fn take(&mut self, reading: Result<Credentials, Reason>) {
        match (&self.reading, &reading) {
            (Ok(_), Err(reason)) => {
                tracing::error!(error = reason.text, "what was read before stays in use until this is right");
                return;
            }
            (Ok(old), Ok(new)) if old.authorization != new.authorization => {
                tracing::info!("elasticsearch.auth: the secret has changed and is used from now on");
            }
            _ => {}
        }
        self.version += 1;
        self.reading = reading;
    }
}

impl Files {
    fn stamps(&self) -> Stamps {
        let secret = self.auth.file().map(PathBuf::from);
        Stamps::before(secret.iter().chain(self.tls.iter().flat_map(Tls::files)))
    }

    fn read(&self) -> Result<Credentials, Reason> {
        let authorization = self
            .auth
            .header()
            .map_err(|text| Reason::new(Obstacle::Unauthorized, format!("elasticsearch.auth: {text}")))?;
        let tls = self.tls.as_ref().map(Tls::configure).transpose();
        let tls = tls.map_err(|error| Reason::new(Obstacle::Tls, error.to_string()))?;
        Ok(Credentials { authorization, tls: tls.map(Arc::new) })
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, path::Path};

    use super::*;
    use crate::logs::elastic::auth::SecretFrom;

    async fn header(live: &Live) -> String {
        // As if a second had passed.
        live.last.lock().await.looked -= LOOK_EVERY;
        let credentials = live.current().await.expect("credentials");
        credentials.authorization.expect("one").to_str().expect("text").to_owned()
    }

    fn live(path: &Path) -> Live {
        Live::new(Auth::Bearer(SecretFrom::File(path.into())), None)
    }

    #[tokio::test]
    async fn a_secret_is_read_again_and_what_is_no_secret_is_not_taken() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("token");
        fs::write(&path, "one\n").expect("written");
        let live = live(&path);
        assert_eq!(header(&live).await, "Bearer one");
        fs::write(&path, "two\n").expect("written");
        assert_eq!(header(&live).await, "Bearer two");
        fs::write(&path, "").expect("written");
        assert_eq!(header(&live).await, "Bearer two");
        fs::remove_file(&path).expect("removed");
        assert_eq!(header(&live).await, "Bearer two");
        let (changed, ()) = tokio::join!(live.changed(), async {
            fs::write(&path, "three\n").expect("written");
        });
        let () = changed;
        assert_eq!(header(&live).await, "Bearer three");
    }

    /// `token -> ..data/token`, `..data -> ..1`: the kubelet writes `..2` and swaps the link.
    #[tokio::test]
    async fn a_secret_of_kubernetes_is_swapped_by_a_link() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        for (version, secret) in [("..1", "one"), ("..2", "two")] {
            fs::create_dir(at(version)).expect("made");
            fs::write(at(version).join("token"), secret).expect("written");
        }
        symlink("..1", at("..data")).expect("linked");
        symlink("..data/token", at("token")).expect("linked");
        let live = live(&at("token"));
        assert_eq!(header(&live).await, "Bearer one");
        symlink("..2", at("..data_tmp")).expect("linked");
        fs::rename(at("..data_tmp"), at("..data")).expect("swapped");
        assert_eq!(header(&live).await, "Bearer two");
    }
}
