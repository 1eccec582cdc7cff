//! Include and exclude patterns over names of devices, mount points and the like.

use regex::Regex;

use crate::collector::{BuildError, Options};

/// Decides by name; like node_exporter's, patterns are not anchored: `lo` also matches `flo0`.
#[derive(Debug, Default)]
pub struct Filter {
    include: Option<Regex>,
    exclude: Option<Regex>,
}

impl Filter {
    /// From the two flags of a collector; both simply apply when both are set.
    pub fn both(options: &Options, include: &'static str, exclude: &'static str) -> Result<Self, BuildError> {
        Ok(Self { include: options.regex(include)?, exclude: options.regex(exclude)? })
    }

    /// From two flags that exclude each other; an untouched default exclude gives way to an include.
    pub fn either(
        options: &Options,
        include: &'static str,
        exclude: &'static str,
    ) -> Result<Self, BuildError> {
        let wants_include = !options.text(include).is_empty();
        if wants_include && options.is_set(exclude) && !options.text(exclude).is_empty() {
            return Err(BuildError::Conflict { first: include, second: exclude });
        }
        if wants_include {
            return Ok(Self { include: options.regex(include)?, exclude: None });
        }
        Ok(Self { include: None, exclude: options.regex(exclude)? })
    }

    /// Whether `name` is left out.
    pub fn ignores(&self, name: &str) -> bool {
        self.exclude.as_ref().is_some_and(|exclude| exclude.is_match(name))
            || self.include.as_ref().is_some_and(|include| !include.is_match(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collector::{Collector, Entry, Flag, Settings};

    fn none(_: &crate::Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
        Err(BuildError::Value { flag: "t", what: "never built".into() })
    }

    const ENTRY: Entry = Entry {
        name: "t",
        default_on: false,
        flags: &[Flag::regex("t.include", "", ""), Flag::regex("t.exclude", "^ram", "")],
        build: none,
    };

    fn filter(settings: &[(&str, &str)]) -> Result<Filter, BuildError> {
        let settings: Settings =
            settings.iter().map(|(name, value)| (name.to_string(), vec![value.to_string()])).collect();
        Filter::either(&Options::new(&ENTRY, &settings), "t.include", "t.exclude")
    }

    #[test]
    fn default_exclude_applies() {
        let filter = filter(&[]).expect("the default is a valid pattern");
        assert!(filter.ignores("ram0"));
        assert!(!filter.ignores("sda"));
    }

    #[test]
    fn include_replaces_an_untouched_default_exclude() {
        let filter = filter(&[("t.include", "ram0")]).expect("a valid pattern");
        assert!(!filter.ignores("ram0"));
        assert!(filter.ignores("sda"));
    }

    #[test]
    fn include_with_a_written_exclude_is_refused() {
        let error = filter(&[("t.include", "a"), ("t.exclude", "b")]).expect_err("both are set");
        assert!(matches!(error, BuildError::Conflict { .. }));
    }

    #[test]
    fn a_broken_pattern_names_its_flag() {
        let error = filter(&[("t.include", "(")]).expect_err("the group is not closed");
        assert_eq!(error.flag(), "t.include");
    }
}
