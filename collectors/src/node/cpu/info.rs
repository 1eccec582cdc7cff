//! What each CPU is, out of `/proc/cpuinfo`.

use regex::Regex;

use crate::{BuildError, CollectError, Desc, Host, HostFile, Options, Samples};

static INFO: Desc = Desc::gauge(
    "node_cpu_info",
    "CPU information from /proc/cpuinfo.",
    &[
        "cachesize",
        "core",
        "cpu",
        "family",
        "microcode",
        "model",
        "model_name",
        "package",
        "stepping",
        "vendor",
    ],
);
static FREQUENCY: Desc = Desc::gauge(
    "node_cpu_frequency_hertz",
    "CPU frequency in hertz from /proc/cpuinfo.",
    &["core", "cpu", "package"],
);
static FLAG: Desc = Desc::gauge(
    "node_cpu_flag_info",
    "The `flags` field of CPU information from /proc/cpuinfo taken from the first core.",
    &["flag"],
);
static BUG: Desc = Desc::gauge(
    "node_cpu_bug_info",
    "The `bugs` field of CPU information from /proc/cpuinfo taken from the first core.",
    &["bug"],
);

pub(super) struct Info {
    file: HostFile,
    /// node_exporter takes the frequency for the cpufreq collector's: without it, there is none.
    frequency: bool,
    flags: Option<Regex>,
    bugs: Option<Regex>,
}

impl Info {
    /// Nothing unless one of the flags asks for it: a pattern for flags or bugs asks as well.
    pub(super) fn wanted(host: &Host, options: &Options) -> Result<Option<Self>, BuildError> {
        let flags = options.regex("cpu.info.flags-include")?;
        let bugs = options.regex("cpu.info.bugs-include")?;
        let wanted = options.is_on("cpu.info") || flags.is_some() || bugs.is_some();
        let frequency = !options.is_off("cpufreq");
        Ok(wanted.then(|| Self { file: HostFile::new(host.proc("cpuinfo")), frequency, flags, bugs }))
    }

    pub(super) fn say(&mut self, out: &mut Samples) -> Result<(), CollectError> {
        let Self { file, frequency, flags, bugs } = self;
        file.parse(|text| {
            let processors = parse_cpuinfo(text)?;
            for cpu in &processors {
                let labels = [
                    cpu.cache_size,
                    cpu.core,
                    cpu.number,
                    cpu.family,
                    cpu.microcode,
                    cpu.model,
                    cpu.model_name,
                    cpu.package,
                    cpu.stepping,
                    cpu.vendor,
                ];
                out.push(&INFO, &labels, 1.0);
                if *frequency {
                    out.push(&FREQUENCY, &[cpu.core, cpu.number, cpu.package], cpu.megahertz * 1e6);
                }
            }
            if let Some(first) = processors.first() {
                say_words(&FLAG, first.flags, flags.as_ref(), out);
                say_words(&BUG, first.bugs, bugs.as_ref(), out);
            }
            Ok(())
        })
    }
}

/// The words that `filter` keeps; none without a filter.
fn say_words(desc: &'static Desc, words: &str, filter: Option<&Regex>, out: &mut Samples) {
    let Some(filter) = filter else { return };
    for word in words.split_ascii_whitespace().filter(|word| filter.is_match(word)) {
        out.push(desc, &[word], 1.0);
    }
}

/// A paragraph of `/proc/cpuinfo`; a field that the architecture lacks is empty.
#[derive(Debug, Default, PartialEq)]
struct Processor<'a> {
    number: &'a str,
    vendor: &'a str,
    family: &'a str,
    model: &'a str,
    model_name: &'a str,
    microcode: &'a str,
    stepping: &'a str,
    cache_size: &'a str,
    package: &'a str,
    core: &'a str,
    megahertz: f64,
    flags: &'a str,
    bugs: &'a str,
}

/// `/proc/cpuinfo`: "processor\t: 0", "cpu MHz\t\t: 799.998", a paragraph for each CPU.
fn parse_cpuinfo(text: &str) -> Result<Vec<Processor<'_>>, String> {
    let mut processors: Vec<Processor> = Vec::new();
    for line in text.lines() {
        let Some((name, value)) = line.split_once(": ") else { continue };
        let name = name.trim_end();
        if name == "processor" {
            let number =
                value.parse::<u32>().map(|_| value).map_err(|_| format!("expected a number in {line:?}"))?;
            processors.push(Processor { number, ..Processor::default() });
        } else {
            let cpu = processors.last_mut().ok_or_else(|| format!("expected a processor before {line:?}"))?;
            cpu.set(name, value).ok_or_else(|| format!("expected a number in {line:?}"))?;
        }
    }
    if processors.is_empty() { Err("it lists no processor".into()) } else { Ok(processors) }
}

impl<'a> Processor<'a> {
    /// Takes a field over; nothing when it should be a number and is not.
    fn set(&mut self, name: &str, value: &'a str) -> Option<()> {
        let slot = match name {
            "vendor" | "vendor_id" => &mut self.vendor,
            "cpu family" => &mut self.family,
            "model" => &mut self.model,
            "model name" => &mut self.model_name,
            "stepping" => &mut self.stepping,
            "microcode" => &mut self.microcode,
            "cache size" => &mut self.cache_size,
            "physical id" => &mut self.package,
            "core id" => &mut self.core,
            // ARM calls them features.
            "flags" | "Features" => &mut self.flags,
            "bugs" => &mut self.bugs,
            "cpu MHz" => {
                self.megahertz = value.parse().ok()?;
                return Some(());
            }
            _ => return Some(()),
        };
        *slot = value;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_paragraph_is_a_processor() {
        let text = "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu MHz\t\t: 799.998\ncore id\t\t: 0\n\
                    flags\t\t: fpu aes\npower management:\n\nprocessor\t: 1\ncore id\t\t: 4\n";
        let processors = parse_cpuinfo(text).expect("understood");
        assert_eq!((processors[0].vendor, processors[0].megahertz), ("GenuineIntel", 799.998));
        assert_eq!(processors[0].flags, "fpu aes");
        assert_eq!((processors[1].number, processors[1].core), ("1", "4"));
    }

    #[test]
    fn odd_text_is_refused() {
        for text in ["model\t: 1\n", "processor\t: x\n", "processor\t: 0\ncpu MHz\t: fast\n"] {
            assert!(parse_cpuinfo(text).is_err(), "{text:?}");
        }
    }
}
