//! The rules as their files say now: looked at before each request and each handshake, read again when one was changed.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;
use tracing::{error, info};

use super::rules::{NotKnown, Reading, Rules};
use crate::stamps::Stamps;

/// Reads the files anew.
type Read = Box<dyn Fn() -> Reading + Send + Sync>;

/// The rules in force.
pub struct Live {
    read: Read,
    last: Mutex<Last>,
}

struct Last {
    reading: Reading,
    stamps: Stamps,
}

impl Live {
    /// Reads them a first time; what is wrong then is for the caller to say.
    pub fn new(read: impl Fn() -> Reading + Send + Sync + 'static) -> Self {
        let last = Last::new(&read, &Stamps::default());
        Self { read: Box::new(read), last: Mutex::new(last) }
    }

    /// For a request.
    pub fn rules(&self) -> Result<Arc<Rules>, NotKnown> {
        self.look(|reading| reading.rules.clone().map_err(|_| NotKnown))
    }

    /// For a handshake; `None` when the file speaks of no TLS.
    pub fn tls(&self) -> Result<Option<Arc<ServerConfig>>, NotKnown> {
        self.look(|reading| reading.tls.clone().map_err(|_| NotKnown))
    }

    fn look<T>(&self, take: impl FnOnce(&Reading) -> T) -> T {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.stamps.is_old() {
            let new = Last::new(&self.read, &last.stamps);
            tell(&last.reading, &new.reading);
            *last = new;
        }
        take(&last.reading)
    }
}

impl Last {
    fn new(read: &dyn Fn() -> Reading, before: &Stamps) -> Self {
        let stamps = Stamps::before(before.paths());
        let reading = read();
        let stamps = stamps.of(&reading.files);
        Self { reading, stamps }
    }
}

/// Says what is wrong once, and once that it is right again.
fn tell(old: &Reading, new: &Reading) {
    for (part, old, new) in [
        ("requests are answered with 500", old.rules.as_ref().err(), new.rules.as_ref().err()),
        ("no connection is taken", old.tls.as_ref().err(), new.tls.as_ref().err()),
        ("some users are refused", old.refused.as_ref(), new.refused.as_ref()),
    ] {
        match (old, new) {
            (_, Some(mistakes)) if old != new => {
                error!(mistakes, "the web configuration is wrong: {part} until it is right");
            }
            (Some(_), None) => info!("the web configuration is right again"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        path::Path,
        time::{Duration, SystemTime},
    };

    use super::*;

    /// Rules with a header for each line of the file; a file that is not there is a mistake.
    fn live(path: &Path) -> Live {
        let path = path.to_owned();
        Live::new(move || {
            let text = fs::read_to_string(&path).map_err(|error| error.to_string());
            let users = |text: String| text.lines().map(|line| (line.to_owned(), String::new())).collect();
            let rules = text.map(|text| Arc::new(Rules { users: users(text), ..Rules::default() }));
            Reading { rules, tls: Ok(None), refused: None, files: vec![path.clone()] }
        })
    }

    #[test]
    fn a_changed_file_counts_at_once_and_a_wrong_one_too() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("web.yml");
        fs::write(&path, "ada\n").expect("written");
        let live = live(&path);
        let users = || live.rules().map(|rules| rules.users.keys().cloned().collect::<Vec<_>>());
        assert_eq!(users(), Ok(vec!["ada".to_owned()]));
        // The same size, and most probably the same tick of the clock.
        fs::write(&path, "bob\n").expect("written");
        assert_eq!(users(), Ok(vec!["bob".to_owned()]));
        fs::remove_file(&path).expect("removed");
        assert_eq!(users(), Err(NotKnown));
        fs::write(&path, "eve\n").expect("written");
        assert_eq!(users(), Ok(vec!["eve".to_owned()]));
    }

    #[test]
    fn an_old_file_is_read_once() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("web.yml");
        fs::write(&path, "ada\n").expect("written");
        let hour_ago = SystemTime::now() - Duration::from_secs(3600);
        fs::File::options().write(true).open(&path).expect("open").set_modified(hour_ago).expect("set");
        let live = live(&path);
        let (first, second) = (live.rules().expect("right"), live.rules().expect("right"));
        assert!(Arc::ptr_eq(&first, &second));
    }
}
