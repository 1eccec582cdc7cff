//! What the file beside the library says: `KEY=VALUE` per line.

use std::{
    collections::BTreeMap,
    ffi::c_uint,
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::MetadataExt,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

/// The file's lines. Clones share them.
#[derive(Clone, Default)]
pub struct State(Arc<BTreeMap<String, String>>);

/// Inode, time and size: files are replaced as a whole.
type Stamp = (u64, i64, i64, u64);

static LAST: Mutex<Option<(Stamp, State)>> = Mutex::new(None);

/// The state now.
pub fn now() -> State {
    let path = beside("state");
    let Ok(data) = fs::metadata(&path) else { return State::default() };
    let stamp = (data.ino(), data.mtime(), data.mtime_nsec(), data.size());
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((known, state)) = &*last
        && *known == stamp
    {
        return state.clone();
    }
    let text = fs::read_to_string(&path).unwrap_or_default();
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let state = State(Arc::new(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()));
    *last = Some((stamp, state.clone()));
    state
}

/// The XIDs that happen, a line each.
pub fn xids() -> Vec<String> {
    let text = fs::read_to_string(beside("xids")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Notes what the library was asked, for tests to see.
pub fn log(what: &str) {
    if let Ok(mut file) = OpenOptions::new().create(true).append(true).open(beside("log")) {
        // A test that looks for it says that it is missing.
        let _ = writeln!(file, "{what} {}", std::process::id());
    }
}

impl State {
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    pub fn number(&self, key: &str) -> Option<u64> {
        self.get(key)?.parse().ok()
    }

    pub fn is_on(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| value != "0")
    }

    /// How many GPUs there are.
    pub fn count(&self) -> c_uint {
        self.number("count").unwrap_or(1) as c_uint
    }
}

/// A file beside this copy of the library: `libnvidia-ml.so.1.state`.
fn beside(ending: &str) -> String {
    static OWN: OnceLock<String> = OnceLock::new();
    format!("{}.{ending}", OWN.get_or_init(own_path))
}

/// Where this copy lies: the file that is mapped where this function is.
fn own_path() -> String {
    let here = own_path as *const () as usize;
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let found = maps.lines().find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let bound = |text| usize::from_str_radix(text, 16).ok();
        (bound(start)? <= here && here < bound(end)?)
            .then(|| rest.find('/').map(|at| rest[at..].to_owned()))?
    });
    found.unwrap_or_default()
}
