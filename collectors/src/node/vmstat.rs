//! The fields of `/proc/vmstat` that a pattern keeps.

use regex::Regex;

use crate::{
    BuildError, CollectError, Collector, Entry, Flag, Host, HostFile, Kind, Options, OwnedDesc, Samples,
};

/// This collector in the list.
pub const ENTRY: Entry = Entry {
    name: "vmstat",
    default_on: true,
    flags: &[Flag::regex(
        "vmstat.fields",
        "^(oom_kill|pgpg|pswp|pg.*fault).*",
        "Regexp of fields to return for vmstat collector.",
    )],
    build,
};

struct Vmstat {
    file: HostFile,
    pattern: Option<Regex>,
    /// What was decided about each line: the kernel lists the same fields until the next boot.
    fields: Vec<Field>,
}

struct Field {
    name: String,
    /// `None` when the pattern does not keep it.
    desc: Option<OwnedDesc>,
}

fn build(host: &Host, options: &Options) -> Result<Box<dyn Collector>, BuildError> {
    let pattern = options.regex("vmstat.fields")?;
    Ok(Box::new(Vmstat { file: HostFile::new(host.proc("vmstat")), pattern, fields: Vec::new() }))
}

impl Collector for Vmstat {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let Self { file, pattern, fields } = self;
        let keep = |name: &str| pattern.as_ref().is_none_or(|pattern| pattern.is_match(name));
        let result = say_fields(file.read()?, fields, keep, out);
        result.map_err(|what| CollectError::parse(file.path(), what))
    }
}

fn say_fields(
    text: &str,
    fields: &mut Vec<Field>,
    keep: impl Fn(&str) -> bool,
    out: &mut Samples,
) -> Result<(), String> {
    if text.is_empty() {
        return Err("it is empty".into());
    }
    for (at, line) in text.lines().enumerate() {
        let (name, value) = parse_line(line).ok_or_else(|| format!("expected NAME VALUE, got {line:?}"))?;
        if fields.get(at).is_none_or(|field| field.name != name) {
            fields.truncate(at);
            fields.push(Field { name: name.to_owned(), desc: keep(name).then(|| describe(name)) });
        }
        if let Some(desc) = &fields[at].desc {
            let value = value.parse().map_err(|_| format!("{name} is not a number: {value:?}"))?;
            let family = out.owned_family(desc);
            out.push_to(family, &[], value);
        }
    }
    Ok(())
}

/// `/proc/vmstat`: "pgfault 2320168809"
fn parse_line(line: &str) -> Option<(&str, &str)> {
    let mut words = line.split_ascii_whitespace();
    Some((words.next()?, words.next()?))
}

fn describe(name: &str) -> OwnedDesc {
    let help = format!("/proc/vmstat information field {name}.");
    OwnedDesc::new(&format!("node_vmstat_{name}"), &help, Kind::Untyped, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(text: &str, fields: &mut Vec<Field>) -> Result<Vec<(String, f64)>, String> {
        let mut out = Samples::new();
        say_fields(text, fields, |name| name.starts_with("pg"), &mut out)?;
        Ok(out.iter().map(|(name, _, value)| (name.to_owned(), value)).collect())
    }

    #[test]
    fn only_fields_that_the_pattern_keeps_are_said() {
        let said = say("nr_free_pages 977769\npgpgin 7344136\n", &mut Vec::new());
        assert_eq!(said, Ok(vec![("node_vmstat_pgpgin".to_owned(), 7_344_136.0)]));
    }

    #[test]
    fn a_changed_list_of_fields_is_noticed() {
        let mut fields = Vec::new();
        assert!(say("pga 1\npgb 2\n", &mut fields).is_ok());
        let said = say("pgb 3\npgc 4\n", &mut fields).expect("understood");
        assert_eq!(said, [("node_vmstat_pgb".to_owned(), 3.0), ("node_vmstat_pgc".to_owned(), 4.0)]);
    }

    #[test]
    fn odd_lines_are_refused() {
        for text in ["", "pgfault\n", "pgfault x\n", "pgfault 1\n\n"] {
            assert!(say(text, &mut Vec::new()).is_err(), "{text:?}");
        }
    }
}
