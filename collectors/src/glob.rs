//! Shell patterns over paths: `*`, `?`, `[a-z]`, `[^a-z]` and `\` for the next character, as Go's `filepath.Glob`.
//!
//! A page of code where a crate would bring recursion into sub-directories and rules of its own for hidden files.

use std::{iter::Peekable, path::Path, str::Chars};

use crate::host;

/// The paths that match `pattern`, sorted; none for a pattern that is not well formed.
pub fn expand(pattern: &str) -> Vec<String> {
    let Some((directory, name)) = split(pattern) else { return Vec::new() };
    let directories = match directory {
        "" | "/" => vec![directory.to_owned()],
        directory if has_wildcards(directory) => expand(directory),
        directory => vec![directory.to_owned()],
    };
    let mut paths = Vec::new();
    for directory in directories {
        let listed = if directory.is_empty() { Path::new(".") } else { Path::new(&directory) };
        let Ok(names) = host::list_dir(listed) else { continue };
        for found in names.iter().filter(|found| matches(name, found) == Some(true)) {
            paths.push(match directory.as_str() {
                "" => found.clone(),
                "/" => format!("/{found}"),
                directory => format!("{directory}/{found}"),
            });
        }
    }
    paths
}

/// Whether `pattern` means anything but itself.
pub fn has_wildcards(pattern: &str) -> bool {
    pattern.contains(['*', '?', '[', '\\'])
}

/// The directory and the name of a path, without the slash between them; the root keeps its slash.
fn split(pattern: &str) -> Option<(&str, &str)> {
    let pattern = pattern.trim_end_matches('/');
    if pattern.is_empty() {
        return None;
    }
    Some(match pattern.rfind('/') {
        None => ("", pattern),
        Some(0) => ("/", &pattern[1..]),
        Some(at) => (pattern[..at].trim_end_matches('/'), &pattern[at + 1..]),
    })
}

/// Whether `name`, which has no slash, matches; `None` when the pattern is not well formed.
fn matches(pattern: &str, name: &str) -> Option<bool> {
    let mut pattern = pattern.chars().peekable();
    let mut name = name.chars();
    while let Some(char) = pattern.next() {
        match char {
            '*' => return match_rest(pattern, name),
            '[' => {
                let wanted = name.next();
                if !match_class(&mut pattern, wanted)? {
                    return Some(false);
                }
            }
            '?' => {
                if name.next().is_none() {
                    return Some(false);
                }
            }
            char => {
                let literal = if char == '\\' { pattern.next()? } else { char };
                if name.next() != Some(literal) {
                    return Some(false);
                }
            }
        }
    }
    Some(name.next().is_none())
}

/// What follows a `*`: it may begin at any place.
fn match_rest(mut pattern: Peekable<Chars>, mut name: Chars) -> Option<bool> {
    // Several stars are one: it keeps the number of tries small.
    while pattern.next_if_eq(&'*').is_some() {}
    let pattern: String = pattern.collect();
    loop {
        if matches(&pattern, name.as_str())? {
            return Some(true);
        }
        if name.next().is_none() {
            return Some(false);
        }
    }
}

/// Reads a class up to its `]`; whether `wanted` is in it.
fn match_class(pattern: &mut Peekable<Chars>, wanted: Option<char>) -> Option<bool> {
    let negated = pattern.next_if_eq(&'^').is_some();
    let mut found = false;
    let mut is_empty = true;
    loop {
        let first = match pattern.next()? {
            ']' if !is_empty => break,
            '\\' => pattern.next()?,
            char => char,
        };
        is_empty = false;
        let last = match pattern.next_if_eq(&'-') {
            None => first,
            Some(_) => match pattern.next()? {
                '\\' => pattern.next()?,
                ']' => return None,
                char => char,
            },
        };
        found |= wanted.is_some_and(|wanted| (first..=last).contains(&wanted));
    }
    Some(wanted.is_some() && found != negated)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn names_match_patterns() {
        for (pattern, name, expected) in [
            ("*", "", Some(true)),
            ("*_extra", "a_extra", Some(true)),
            ("*_extra", "a_extra_b", Some(false)),
            ("a*b*c", "aXbYbZc", Some(true)),
            ("a?c", "abc", Some(true)),
            ("a?c", "ac", Some(false)),
            ("[a-cx]1", "x1", Some(true)),
            ("[^a-c]1", "b1", Some(false)),
            (r"\*", "*", Some(true)),
            (r"\*", "a", Some(false)),
            ("[a", "a", None),
            ("[a-]", "a", None),
            ("a\\", "a", None),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn every_part_of_a_path_may_be_a_pattern() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for path in ["a/x.d", "b/x.d", "b/y.d", "c/z"] {
            fs::create_dir_all(dir.path().join(path)).expect("made");
        }
        let root = dir.path().display();
        let found = expand(&format!("{root}/[ab]/*.d/"));
        let expected: Vec<String> =
            ["a/x.d", "b/x.d", "b/y.d"].iter().map(|path| format!("{root}/{path}")).collect();
        assert_eq!(found, expected);
        assert!(expand(&format!("{root}/none/*")).is_empty());
        assert!(expand("").is_empty());
    }
}
