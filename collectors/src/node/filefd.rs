//! How many file handles are in use.

use crate::{BuildError, CollectError, Collector, Desc, Entry, Host, HostFile, Options, Samples};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "filefd", default_on: true, flags: &[], build };

static ALLOCATED: Desc = Desc::gauge("node_filefd_allocated", "File descriptor statistics: allocated.", &[]);
static MAXIMUM: Desc = Desc::gauge("node_filefd_maximum", "File descriptor statistics: maximum.", &[]);

struct Filefd {
    file: HostFile,
}

fn build(host: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Filefd { file: HostFile::new(host.proc("sys/fs/file-nr")) }))
}

impl Collector for Filefd {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let (allocated, maximum) =
            self.file.parse(|text| parse_file_nr(text).ok_or_else(|| "expected three numbers".into()))?;
        out.push(&ALLOCATED, &[], allocated);
        out.push(&MAXIMUM, &[], maximum);
        Ok(())
    }
}

/// `/proc/sys/fs/file-nr`: "1024\t0\t1631329"; the second has been 0 since Linux 2.6.
fn parse_file_nr(text: &str) -> Option<(f64, f64)> {
    let mut fields = text.trim().split('\t');
    let allocated = fields.next()?.parse().ok()?;
    let maximum = fields.nth(1)?.parse().ok()?;
    Some((allocated, maximum))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_the_third_number_count() {
        assert_eq!(parse_file_nr("1024\t0\t1631329\n"), Some((1024.0, 1_631_329.0)));
    }

    #[test]
    fn a_cut_file_is_refused() {
        for text in ["", "1024\t0", "1024 0 1631329", "a\tb\tc"] {
            assert_eq!(parse_file_nr(text), None, "{text:?}");
        }
    }
}
