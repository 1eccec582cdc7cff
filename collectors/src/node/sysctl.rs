//! Kernel parameters that are asked for by name.

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Flag, Host, HostFile, Kind, Options, OwnedDesc,
    Samples, labels::Numbers,
};

/// This collector in the list.
pub const ENTRY: Entry = Entry {
    name: "sysctl",
    default_on: false,
    flags: &[
        Flag::list("sysctl.include", "Select sysctl metrics to include"),
        Flag::list("sysctl.include-info", "Select sysctl metrics to include as info metrics"),
    ],
    build,
};

static INFO: Desc = Desc::gauge("node_sysctl_info", "sysctl info", &["index", "name", "value"]);

struct Sysctls {
    sysctls: Vec<Sysctl>,
    indices: Numbers,
    /// The numbers of the parameter at hand.
    numbers: Vec<i64>,
}

struct Sysctl {
    name: String,
    file: HostFile,
    form: Form,
}

/// How a parameter is said.
enum Form {
    /// As a number, or as several with an index.
    Numbers { one: OwnedDesc, several: OwnedDesc },
    /// As so many numbers, each a family of its own.
    Fields(Vec<OwnedDesc>),
    /// As labels.
    Texts,
    /// As labels with names of their own, which there are not: it fails when it is read, as it does in node_exporter.
    NamedTexts,
}

fn build(host: &Host, options: &Options) -> Result<Box<dyn Collector>, BuildError> {
    let mut sysctls = Vec::new();
    for include in options.list("sysctl.include") {
        sysctls.push(Sysctl::numeric(host, include)?);
    }
    for include in options.list("sysctl.include-info") {
        sysctls.push(Sysctl::info(host, include));
    }
    Ok(Box::new(Sysctls { sysctls, indices: Numbers::default(), numbers: Vec::new() }))
}

impl Collector for Sysctls {
    /// The first that can't be read ends it.
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let Self { sysctls, indices, numbers } = self;
        for Sysctl { name, file, form } in sysctls {
            file.parse(|text| form.say(name, text, indices, numbers, out))?;
        }
        Ok(())
    }
}

impl Sysctl {
    /// "fs.file-nr", or "fs.file-nr:total,current,max" with names for the fields.
    fn numeric(host: &Host, include: &str) -> Result<Self, BuildError> {
        let (name, fields) = split(include);
        let metric = format!("node_sysctl_{}", sanitize(name));
        let help = format!("sysctl {name}");
        let form = match fields {
            None => Form::Numbers {
                one: OwnedDesc::new(&metric, &help, Kind::Untyped, &[]),
                several: OwnedDesc::new(&metric, &help, Kind::Untyped, &["index"]),
            },
            Some(fields) => {
                let is_fit = |char: char| char.is_ascii_alphanumeric() || char == '_' || char == ':';
                if let Some(field) = fields.split(',').find(|field| !field.chars().all(is_fit)) {
                    let what =
                        format!("{field:?} can't be part of a metric's name: letters, digits, _ and : can");
                    return Err(BuildError::Value { flag: "sysctl.include", what });
                }
                let desc = |(at, field)| {
                    let help = format!("{help}, field {at}");
                    OwnedDesc::new(&format!("{metric}_{field}"), &help, Kind::Untyped, &[])
                };
                Form::Fields(fields.split(',').enumerate().map(desc).collect())
            }
        };
        Ok(Self { name: name.to_owned(), file: file(host, name), form })
    }

    fn info(host: &Host, include: &str) -> Self {
        let (name, fields) = split(include);
        let form = if fields.is_some() { Form::NamedTexts } else { Form::Texts };
        Self { name: name.to_owned(), file: file(host, name), form }
    }
}

fn split(include: &str) -> (&str, Option<&str>) {
    match include.split_once(':') {
        Some((name, fields)) => (name, Some(fields)),
        None => (include, None),
    }
}

fn file(host: &Host, name: &str) -> HostFile {
    HostFile::new(host.proc("sys").join(name.replace('.', "/").trim_start_matches('/')))
}

/// A parameter's name as part of a metric's: what can't be there becomes one underscore, with those around it.
fn sanitize(name: &str) -> String {
    let is_fit = |char: char| char.is_ascii_alphanumeric() || char == '_';
    let mut sanitized = String::with_capacity(name.len());
    let mut rest = name;
    while !rest.is_empty() {
        let word = rest.trim_start_matches('_');
        let behind = word.trim_start_matches(|char| !is_fit(char));
        if behind.len() < word.len() {
            sanitized.push('_');
            rest = behind.trim_start_matches('_');
        } else {
            let behind = word.trim_start_matches(|char: char| char.is_ascii_alphanumeric());
            sanitized.push_str(rest.strip_suffix(behind).unwrap_or_default());
            rest = behind;
        }
    }
    sanitized
}

impl Form {
    /// `/proc/sys/fs/file-nr`: "1024\t0\t1631329"; nothing is said of a text that is not understood.
    fn say(
        &self,
        name: &str,
        text: &str,
        indices: &mut Numbers,
        numbers: &mut Vec<i64>,
        out: &mut Samples,
    ) -> Result<(), String> {
        let count = text.split_ascii_whitespace().count();
        if count == 0 {
            return Err("it has no values".into());
        }
        match self {
            Self::Texts => {
                for (index, value) in indices.first(count).iter().zip(text.split_ascii_whitespace()) {
                    out.push(&INFO, &[index, name, value], 1.0);
                }
                return Ok(());
            }
            Self::NamedTexts => return Err("only numbers can have names for their fields".into()),
            Self::Numbers { .. } | Self::Fields(_) => {}
        }
        numbers.clear();
        for word in text.split_ascii_whitespace() {
            numbers.push(parse_number(word).ok_or_else(|| format!("expected whole numbers, got {word:?}"))?);
        }
        match (self, numbers.as_slice()) {
            (Self::Numbers { one, .. }, [number]) => {
                let family = out.owned_family(one);
                out.push_to(family, &[], *number as f64);
            }
            (Self::Numbers { several, .. }, numbers) => {
                let family = out.owned_family(several);
                for (index, number) in indices.first(count).iter().zip(numbers) {
                    out.push_to(family, &[index], *number as f64);
                }
            }
            (Self::Fields(fields), numbers) if count > 1 && fields.len() == count => {
                for (field, number) in fields.iter().zip(numbers) {
                    let family = out.owned_family(field);
                    out.push_to(family, &[], *number as f64);
                }
            }
            (Self::Fields(fields), _) => {
                return Err(format!(
                    "it has {count} values, not one for each of the {} fields",
                    fields.len()
                ));
            }
            (Self::Texts | Self::NamedTexts, _) => {}
        }
        Ok(())
    }
}

/// As Go reads a literal: decimal, "0x" hexadecimal, "0b" binary, "0o" or "0" octal.
fn parse_number(text: &str) -> Option<i64> {
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, digits.get(2..)?),
        [b'0', b'b' | b'B', ..] => (2, digits.get(2..)?),
        [b'0', b'o' | b'O', ..] => (8, digits.get(2..)?),
        [b'0', _, ..] => (8, digits.get(1..)?),
        _ => (10, digits),
    };
    let magnitude = digits.bytes().all(|byte| byte.is_ascii_alphanumeric()).then_some(digits)?;
    let magnitude = i128::from(u64::from_str_radix(magnitude, radix).ok()?);
    i64::try_from(if is_negative { -magnitude } else { magnitude }).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::collector::Settings;

    fn said(flag: &str, include: &str, text: &str) -> (Vec<String>, Result<(), CollectError>) {
        let root = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir_all(root.path().join("sys/fs")).expect("made");
        fs::write(root.path().join("sys/fs/file-nr"), text).expect("written");
        let host = Host { procfs: root.path().into(), ..Host::default() };
        let settings = Settings::from([(flag.to_owned(), vec![include.to_owned()])]);
        let mut collector = build(&host, &Options::new(&ENTRY, &settings)).expect("valid settings");
        let mut out = Samples::new();
        let result = collector.collect(&host, &mut out);
        let line = |(name, labels, value): (&str, crate::samples::LabelValues, f64)| {
            let name = name.trim_start_matches("node_sysctl_");
            format!("{name}{{{}}} {value}", labels.collect::<Vec<_>>().join(","))
        };
        (out.iter().map(line).collect(), result)
    }

    #[test]
    fn numbers_are_said_alone_by_index_or_by_name() {
        for (include, text, expected) in [
            ("fs.file-nr", "1024\n", &["fs_file_nr{} 1024"][..]),
            ("fs.file-nr", "1024\t-1\n", &["fs_file_nr{0} 1024", "fs_file_nr{1} -1"]),
            ("fs.file-nr:total,max", "1024\t7\n", &["fs_file_nr_total{} 1024", "fs_file_nr_max{} 7"]),
        ] {
            let (said, result) = said("sysctl.include", include, text);
            assert_eq!(said, expected);
            assert!(result.is_ok());
        }
    }

    #[test]
    fn texts_are_said_as_labels() {
        let (said, result) = said("sysctl.include-info", "fs.file-nr", "log allow\n");
        assert_eq!(said, ["info{0,fs.file-nr,log} 1", "info{1,fs.file-nr,allow} 1"]);
        assert!(result.is_ok());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (flag, include, text) in [
            ("sysctl.include", "fs.file-nr", ""),
            ("sysctl.include", "fs.file-nr", "1 x\n"),
            ("sysctl.include", "fs.file-nr:total", "1\n"),
            ("sysctl.include", "fs.file-nr:total,max", "1 2 3\n"),
            ("sysctl.include-info", "fs.file-nr:a,b", "x y\n"),
            ("sysctl.include-info", "fs.file-nr", " \n"),
        ] {
            let (said, result) = said(flag, include, text);
            assert!(
                said.is_empty() && matches!(result, Err(CollectError::Parse { .. })),
                "{include} {text:?}"
            );
        }
        assert!(matches!(said("sysctl.include", "fs.absent", "").1, Err(CollectError::Read { .. })));
    }

    #[test]
    fn a_field_that_is_no_part_of_a_name_is_refused_at_once() {
        let settings = Settings::from([("sysctl.include".to_owned(), vec!["fs.file-nr:a,b c".to_owned()])]);
        let error = build(&Host::default(), &Options::new(&ENTRY, &settings)).err().expect("refused");
        assert_eq!(error.flag(), "sysctl.include");
    }

    #[test]
    fn names_of_metrics_have_letters_digits_and_underscores() {
        for (name, metric) in [
            ("fs.file-nr", "fs_file_nr"),
            ("net.ipv4.conf.eth0/100._x_", "net_ipv4_conf_eth0_100_x_"),
            ("a__b.-.c", "a__b_c"),
            ("", ""),
        ] {
            assert_eq!(sanitize(name), metric);
        }
    }

    #[test]
    fn numbers_are_read_as_go_reads_them() {
        for (text, number) in [
            ("0", Some(0)),
            ("-7", Some(-7)),
            ("0x1F", Some(31)),
            ("-0b11", Some(-3)),
            ("010", Some(8)),
            ("0o17", Some(15)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("08", None),
            ("", None),
            ("-", None),
            ("--1", None),
            ("0x-1", None),
            ("1.5", None),
        ] {
            assert_eq!(parse_number(text), number, "{text:?}");
        }
    }
}
