//! Metrics out of files that other programs write.

mod parse;
mod scan;

use std::{
    collections::{HashMap, HashSet},
    path::{Component, Path, PathBuf},
};

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Flag, Host, Kind, Options, Samples, glob,
    host::{self, Stamp},
    samples::Part,
};
use parse::{Family, Metric};

/// This collector in the list.
pub const ENTRY: Entry = Entry {
    name: "textfile",
    default_on: true,
    flags: &[Flag::list(
        "textfile.directory",
        "Directory to read text files with metrics from, supports glob matching. (repeatable)",
    )],
    build,
};

static MTIME: Desc =
    Desc::gauge("node_textfile_mtime_seconds", "Unixtime mtime of textfiles successfully read.", &["file"]);
static ERROR: Desc = Desc::gauge(
    "node_textfile_scrape_error",
    "1 if there was an error opening or reading a file, 0 otherwise",
    &[],
);

struct Textfile {
    /// Directories, or patterns for them.
    directories: Vec<String>,
    /// What was read, by path; a file is read again when it was changed.
    files: HashMap<String, File>,
    /// Complaints that were logged: each is said once.
    said: HashSet<String>,
}

struct File {
    stamp: Stamp,
    /// Nothing for a file that could not be understood.
    families: Option<Vec<Family>>,
}

fn build(_: &Host, options: &Options) -> Result<Box<dyn Collector>, BuildError> {
    let directories = options.list("textfile.directory").to_vec();
    Ok(Box::new(Textfile { directories, files: HashMap::new(), said: HashSet::new() }))
}

impl Collector for Textfile {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let (paths, mut failed) = self.find();
        failed |= self.refresh(&paths);
        let mut helps = Helps::default();
        let mut served = Vec::new();
        for path in &paths {
            let Some(families) = self.files.get(path).and_then(|file| file.families.as_ref()) else {
                continue;
            };
            for family in families {
                if helps.agree(family, path) {
                    served.push(family);
                } else {
                    failed = true;
                    complain(
                        &mut self.said,
                        format!("{path}: {} has another help text elsewhere", family.name),
                    );
                }
            }
        }
        for family in served {
            say(family, &helps.text_of(family), out);
        }
        for path in &paths {
            if let Some(File { stamp, families: Some(_) }) = self.files.get(path) {
                out.push(&MTIME, &[path], stamp.modified_seconds() as f64);
            }
        }
        out.push(&ERROR, &[], f64::from(u8::from(failed)));
        Ok(())
    }
}

impl Textfile {
    /// The files to read, in order, and whether a directory could not be listed.
    fn find(&mut self) -> (Vec<String>, bool) {
        let mut paths = Vec::new();
        let mut failed = false;
        for directory in expand(&self.directories) {
            match host::list_dir(Path::new(&directory)) {
                Ok(names) => {
                    let files = names.iter().filter(|name| name.ends_with(".prom"));
                    paths.extend(files.map(|name| join(&directory, name)));
                }
                Err(error) => {
                    failed = true;
                    complain(&mut self.said, error.to_string());
                }
            }
        }
        (paths, failed)
    }

    /// Reads what is new or changed, forgets what is gone; whether a file could not be read or understood.
    fn refresh(&mut self, paths: &[String]) -> bool {
        let mut known = std::mem::take(&mut self.files);
        let mut failed = false;
        for path in paths {
            let stamp = match Stamp::of(Path::new(path)) {
                Ok(stamp) => stamp,
                Err(error) => {
                    failed = true;
                    complain(&mut self.said, error.to_string());
                    continue;
                }
            };
            let kept = known.remove(path).filter(|file| file.stamp == stamp);
            let file = kept.unwrap_or_else(|| File { stamp, families: read(path, &mut self.said) });
            failed |= file.families.is_none();
            self.files.insert(path.clone(), file);
        }
        failed
    }
}

fn expand(directories: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for directory in directories.iter().filter(|directory| !directory.is_empty()) {
        let matching = if glob::has_wildcards(directory) { glob::expand(directory) } else { Vec::new() };
        if matching.is_empty() {
            found.push(directory.clone());
        }
        found.extend(matching);
    }
    found
}

/// `directory/name` in its shortest form, which is what stands in labels and help texts.
fn join(directory: &str, name: &str) -> String {
    let mut path = PathBuf::new();
    for part in Path::new(directory).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir
                if path.components().next_back().is_some_and(|last| matches!(last, Component::Normal(_))) =>
            {
                path.pop();
            }
            part => path.push(part),
        }
    }
    path.join(name).to_string_lossy().into_owned()
}

fn read(path: &str, said: &mut HashSet<String>) -> Option<Vec<Family>> {
    let families =
        host::read_plain_file(Path::new(path)).map_err(|error| error.to_string()).and_then(|bytes| {
            parse::parse(&bytes)
                .map_err(|error| format!("{path}:{}: {}, the whole file is left out", error.line, error.what))
        });
    families.map_err(|what| complain(said, what)).ok()
}

fn complain(said: &mut HashSet<String>, what: String) {
    /// Beyond these, complaints are said anew rather than remembered without end.
    const REMEMBERED: usize = 256;

    if said.len() >= REMEMBERED {
        said.clear();
    }
    if !said.contains(&what) {
        tracing::warn!("{what}");
        said.insert(what);
    }
}

/// The help texts of all files: those of one family have to agree.
#[derive(Default)]
struct Helps<'a> {
    by_name: HashMap<&'a str, Help<'a>>,
}

#[derive(Default)]
struct Help<'a> {
    text: Option<&'a str>,
    /// Whether a file disagreed: from then on the family is served from no further file.
    disputed: bool,
    /// The files that have the family.
    files: Vec<&'a str>,
}

impl<'a> Helps<'a> {
    /// Takes up a family of a file; whether it may be served.
    fn agree(&mut self, family: &'a Family, path: &'a str) -> bool {
        let help = self.by_name.entry(&family.name).or_default();
        let text = family.help.as_deref();
        help.disputed |= text.is_some() && help.text.is_some() && text != help.text;
        if help.disputed {
            return false;
        }
        help.text = text.or(help.text);
        help.files.push(path);
        true
    }

    /// The text of the HELP line.
    fn text_of(&self, family: &Family) -> String {
        match (&family.help, self.by_name.get(family.name.as_str())) {
            (Some(help), _) => help.clone(),
            (None, help) => {
                format!("Metric read from {}", help.map(|help| help.files.join(", ")).unwrap_or_default())
            }
        }
    }
}

fn say(family: &Family, help: &str, out: &mut Samples) {
    let names: Vec<&str> = family.labels.iter().map(String::as_str).collect();
    let id = out.dynamic_family(&family.name, help, family.kind, &names);
    for Metric { labels, value, points, sum, count } in &family.metrics {
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let point: fn(f64) -> Part = match family.kind {
            Kind::Histogram => Part::Bucket,
            Kind::Summary => Part::Quantile,
            Kind::Counter | Kind::Gauge | Kind::Untyped => {
                out.push_to(id, &labels, *value);
                continue;
            }
        };
        for &(at, value) in points {
            out.push_part(id, &labels, point(at), value);
        }
        out.push_part(id, &labels, Part::Sum, *sum);
        out.push_part(id, &labels, Part::Count, *count);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{collector::Settings, text};

    fn page(collector: &mut dyn Collector) -> String {
        let mut out = Samples::new();
        collector.collect(&Host::default(), &mut out).expect("it never fails as a whole");
        let mut page = Vec::new();
        text::write(&out, &mut page);
        String::from_utf8(page).expect("UTF-8")
    }

    fn make(directory: &str) -> Box<dyn Collector> {
        let settings = Settings::from([("textfile.directory".to_owned(), vec![directory.to_owned()])]);
        build(&Host::default(), &Options::new(&ENTRY, &settings)).expect("valid settings")
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_bad_one_is_left_out() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("a.prom");
        let mut collector = make(&format!("{}/", dir.path().display()));
        fs::write(&path, "jobs 1\n").expect("written");
        assert!(
            page(&mut *collector).starts_with(&format!("# HELP jobs Metric read from {}\n", path.display()))
        );
        fs::write(&path, "jobs 22\n").expect("written");
        assert!(page(&mut *collector).contains("\njobs 22\n"));
        fs::write(&path, "jobs many\n").expect("written");
        let bad = page(&mut *collector);
        assert!(!bad.contains("jobs") && bad.ends_with("node_textfile_scrape_error 1\n"), "{bad}");
        fs::remove_file(&path).expect("removed");
        assert!(page(&mut *collector).ends_with("node_textfile_scrape_error 0\n"));
    }

    #[test]
    fn a_missing_directory_is_an_error_and_none_is_not() {
        assert!(page(&mut *make("/nonexistent/*")).ends_with("node_textfile_scrape_error 1\n"));
        assert!(page(&mut *make("")).ends_with("node_textfile_scrape_error 0\n"));
    }

    #[test]
    fn paths_are_said_in_their_shortest_form() {
        for (directory, expected) in
            [("a/b/", "a/b/x"), ("./a//b", "a/b/x"), ("/a/../b", "/b/x"), ("../a", "../a/x"), (".", "x")]
        {
            assert_eq!(join(directory, "x"), expected);
        }
    }
}
