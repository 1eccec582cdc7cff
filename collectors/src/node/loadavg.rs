//! The three load averages.

use crate::{BuildError, CollectError, Collector, Desc, Entry, Host, HostFile, Options, Samples};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "loadavg", default_on: true, flags: &[], build };

static LOADS: [Desc; 3] = [
    Desc::gauge("node_load1", "1m load average.", &[]),
    Desc::gauge("node_load5", "5m load average.", &[]),
    Desc::gauge("node_load15", "15m load average.", &[]),
];

struct Loadavg {
    file: HostFile,
}

fn build(host: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Loadavg { file: HostFile::new(host.proc("loadavg")) }))
}

impl Collector for Loadavg {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let Some(loads) = parse_loadavg(self.file.read()?) else {
            return Err(CollectError::parse(self.file.path(), "expected three load averages"));
        };
        for (desc, load) in LOADS.iter().zip(loads) {
            out.push(desc, &[], load);
        }
        Ok(())
    }
}

/// `/proc/loadavg`: "0.21 0.37 0.39 1/719 19737"; the first three fields are the averages.
fn parse_loadavg(text: &str) -> Option<[f64; 3]> {
    let mut fields = text.split_ascii_whitespace().map(|field| field.parse().ok());
    Some([fields.next()??, fields.next()??, fields.next()??])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_three_fields_are_the_averages() {
        assert_eq!(parse_loadavg("0.21 0.37 0.39 1/719 19737\n"), Some([0.21, 0.37, 0.39]));
    }

    #[test]
    fn a_cut_file_is_refused() {
        assert_eq!(parse_loadavg("0.21 0.37"), None);
        assert_eq!(parse_loadavg(""), None);
        assert_eq!(parse_loadavg("a b c"), None);
    }
}
