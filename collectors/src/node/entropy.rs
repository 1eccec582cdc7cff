//! The kernel's pool of randomness.

use crate::{BuildError, CollectError, Collector, Desc, Entry, Host, HostFile, Options, Samples};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "entropy", default_on: true, flags: &[], build };

static AVAILABLE: Desc = Desc::gauge("node_entropy_available_bits", "Bits of available entropy.", &[]);
static POOL_SIZE: Desc = Desc::gauge("node_entropy_pool_size_bits", "Bits of entropy pool.", &[]);

struct Entropy {
    available: HostFile,
    pool_size: HostFile,
}

fn build(host: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Entropy {
        available: HostFile::new(host.proc("sys/kernel/random/entropy_avail")),
        pool_size: HostFile::new(host.proc("sys/kernel/random/poolsize")),
    }))
}

impl Collector for Entropy {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        out.push(&AVAILABLE, &[], self.available.parse(parse_bits)? as f64);
        out.push(&POOL_SIZE, &[], self.pool_size.parse(parse_bits)? as f64);
        Ok(())
    }
}

/// `/proc/sys/kernel/random/poolsize`: "256"
fn parse_bits(text: &str) -> Result<u64, String> {
    text.trim().parse().map_err(|_| "expected a number".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_is_the_whole_file() {
        assert_eq!(parse_bits("1337\n"), Ok(1337));
    }

    #[test]
    fn odd_text_is_refused() {
        for text in ["", "many\n", "-1\n", "1 2\n"] {
            assert!(parse_bits(text).is_err(), "{text:?}");
        }
    }
}
