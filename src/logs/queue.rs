//! Whose turn it is to be read: each container in turn, and of its files the oldest that has something to read.
//!
//! The oldest rotated file is the one that is deleted next. Were all files of a container read side by side, an agent that is
//! killed again and again would get a little further in each, and to the end of none in time.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap, VecDeque},
    path::{Path, PathBuf},
};

use super::batch::FileKey;

/// Files with unread bytes, in the order of their turns.
#[derive(Debug, Default)]
pub struct Queue {
    /// Those of one name, the oldest first.
    files: HashMap<PathBuf, BTreeSet<(Age, FileKey)>>,
    /// The names, in the order of their turns.
    names: VecDeque<PathBuf>,
}

/// A file whose turn it is.
#[derive(Debug)]
pub struct Next {
    /// The file.
    pub key: FileKey,
    name: PathBuf,
    age: Age,
}

/// What the name of a rotated file says of its age: less is older.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Age {
    /// logrotate counts upwards: ".3" was rotated before ".2".
    Numbered(Reverse<u64>),
    /// A time: "20261121-101010".
    Dated(String),
    /// Nothing: it is the file that is written to.
    Active,
}

/// Numbers from here on are dates.
const LEAST_DATE: u64 = 1_000_000;

impl Age {
    fn of(path: &Path, active: &Path) -> Self {
        let (path, active) = (path.to_string_lossy(), active.to_string_lossy());
        let Some(suffix) = path.strip_prefix(&*active).map(|suffix| suffix.trim_start_matches(['.', '-']))
        else {
            return Self::Active;
        };
        let suffix = suffix.strip_suffix(".gz").unwrap_or(suffix);
        match suffix.parse() {
            Ok(number) if number < LEAST_DATE => Self::Numbered(Reverse(number)),
            _ if suffix.is_empty() => Self::Active,
            _ => Self::Dated(suffix.to_owned()),
        }
    }
}

impl Queue {
    /// How many names there are with files that wait: the turns of a round.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The file at `path`, which is or was written to under the name `active`, waits for its turn.
    pub fn push(&mut self, key: FileKey, path: &Path, active: &Path) {
        let files = self.files.entry(active.to_owned()).or_default();
        if files.is_empty() {
            self.names.push_back(active.to_owned());
        }
        files.insert((Age::of(path, active), key));
    }

    /// Whose turn it is; the others of its name wait until [`Self::end`].
    pub fn take(&mut self) -> Option<Next> {
        let name = self.names.pop_front()?;
        let (age, key) = self.files.get(&name)?.first()?;
        Some(Next { key: *key, age: age.clone(), name })
    }

    /// A turn was cut short: it goes on before anybody else's begins.
    pub fn stay(&mut self, turn: Next) {
        self.names.push_front(turn.name);
    }

    /// A turn is over; whether the file wants another one.
    pub fn end(&mut self, turn: Next, wants_more: bool) {
        let Next { key, name, age } = turn;
        let Some(files) = self.files.get_mut(&name) else { return };
        if !wants_more {
            files.remove(&(age, key));
        }
        if files.is_empty() {
            self.files.remove(&name);
        } else {
            self.names.push_back(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(files: &[(u32, &str, &str)]) -> Queue {
        let mut queue = Queue::default();
        for (key, path, active) in files {
            queue.push(FileKey(*key), Path::new(path), Path::new(active));
        }
        queue
    }

    /// Reads each file in so many turns; the order of the turns.
    fn turns(mut queue: Queue, each: usize) -> Vec<u32> {
        let (mut order, mut had) = (Vec::new(), HashMap::new());
        while let Some(next) = queue.take() {
            order.push(next.key.0);
            let had = had.entry(next.key).or_insert(0);
            *had += 1;
            let wants_more = *had < each;
            queue.end(next, wants_more);
        }
        assert!(queue.is_empty() && queue.files.is_empty());
        order
    }

    #[test]
    fn containers_take_turns_each_with_its_oldest_file() {
        let queue = queue(&[
            (1, "/a/0.log", "/a/0.log"),
            (2, "/a/0.log.20261121-101010", "/a/0.log"),
            (3, "/b/0.log", "/b/0.log"),
            (4, "/a/0.log.20261120-101010.gz", "/a/0.log"),
        ]);
        assert_eq!(queue.len(), 2);
        assert_eq!(turns(queue, 2), [4, 3, 4, 3, 2, 2, 1, 1]);
    }

    #[test]
    fn ages_are_told_by_the_names_that_logrotate_gives() {
        let queue = queue(&[
            (1, "/a/log", "/a/log"),
            (2, "/a/log.2", "/a/log"),
            (3, "/a/log.10.gz", "/a/log"),
            (4, "/a/log.1", "/a/log"),
            (5, "/a/log-20261119", "/a/log"),
            (6, "/a/log-20261118.gz", "/a/log"),
        ]);
        assert_eq!(turns(queue, 1), [3, 2, 4, 6, 5, 1]);
    }

    #[test]
    fn one_that_waits_in_its_place_does_not_lose_it() {
        let mut queue = queue(&[(1, "/a/log", "/a/log"), (2, "/b/log", "/b/log")]);
        let next = queue.take().expect("a turn");
        // Meanwhile an older one of the same name turns up.
        queue.push(FileKey(3), Path::new("/a/log.1"), Path::new("/a/log"));
        queue.end(next, true);
        assert_eq!(turns(queue, 1), [2, 3, 1]);
    }
}
