//! Packets that IPsec could not transform, by reason.

use crate::{BuildError, CollectError, Collector, Desc, Entry, Host, HostFile, Options, Samples};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "xfrm", default_on: false, flags: &[], build };

/// The kernel's name of a counter, and its family.
struct Counter(&'static str, Desc);

macro_rules! counter {
    ($kernel:literal, $name:literal, $help:literal) => {
        Counter($kernel, Desc::counter(concat!("node_xfrm_", $name, "_packets_total"), $help, &[]))
    };
}

static COUNTERS: [Counter; 28] = [
    counter!("XfrmInError", "in_error", "All errors not matched by other"),
    counter!("XfrmInBufferError", "in_buffer_error", "No buffer is left"),
    counter!("XfrmInHdrError", "in_hdr_error", "Header error"),
    counter!(
        "XfrmInNoStates",
        "in_no_states",
        "No state is found i.e. Either inbound SPI, address, or IPsec protocol at SA is wrong"
    ),
    counter!(
        "XfrmInStateProtoError",
        "in_state_proto_error",
        "Transformation protocol specific error e.g. SA key is wrong"
    ),
    counter!("XfrmInStateModeError", "in_state_mode_error", "Transformation mode specific error"),
    counter!(
        "XfrmInStateSeqError",
        "in_state_seq_error",
        "Sequence error i.e. Sequence number is out of window"
    ),
    counter!("XfrmInStateExpired", "in_state_expired", "State is expired"),
    counter!(
        "XfrmInStateMismatch",
        "in_state_mismatch",
        "State has mismatch option e.g. UDP encapsulation type is mismatch"
    ),
    counter!("XfrmInStateInvalid", "in_state_invalid", "State is invalid"),
    counter!(
        "XfrmInTmplMismatch",
        "in_tmpl_mismatch",
        "No matching template for states e.g. Inbound SAs are correct but SP rule is wrong"
    ),
    counter!(
        "XfrmInNoPols",
        "in_no_pols",
        "No policy is found for states e.g. Inbound SAs are correct but no SP is found"
    ),
    counter!("XfrmInPolBlock", "in_pol_block", "Policy discards"),
    counter!("XfrmInPolError", "in_pol_error", "Policy error"),
    counter!("XfrmOutError", "out_error", "All errors which is not matched others"),
    counter!("XfrmOutBundleGenError", "out_bundle_gen_error", "Bundle generation error"),
    counter!("XfrmOutBundleCheckError", "out_bundle_check_error", "Bundle check error"),
    counter!("XfrmOutNoStates", "out_no_states", "No state is found"),
    counter!("XfrmOutStateProtoError", "out_state_proto_error", "Transformation protocol specific error"),
    counter!("XfrmOutStateModeError", "out_state_mode_error", "Transformation mode specific error"),
    counter!("XfrmOutStateSeqError", "out_state_seq_error", "Sequence error i.e. Sequence number overflow"),
    counter!("XfrmOutStateExpired", "out_state_expired", "State is expired"),
    counter!("XfrmOutPolBlock", "out_pol_block", "Policy discards"),
    counter!("XfrmOutPolDead", "out_pol_dead", "Policy is dead"),
    counter!("XfrmOutPolError", "out_pol_error", "Policy error"),
    counter!("XfrmFwdHdrError", "fwd_hdr_error", "Forward routing of a packet is not allowed"),
    counter!("XfrmOutStateInvalid", "out_state_invalid", "State is invalid, perhaps expired"),
    counter!("XfrmAcquireError", "acquire_error", "State hasn’t been fully acquired before use"),
];

struct Xfrm {
    file: HostFile,
}

fn build(host: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Xfrm { file: HostFile::new(host.proc("net/xfrm_stat")) }))
}

impl Collector for Xfrm {
    fn collect(&mut self, _: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let values = self.file.parse(parse_xfrm_stat)?;
        for (Counter(_, desc), value) in COUNTERS.iter().zip(values) {
            out.push(desc, &[], value as f64);
        }
        Ok(())
    }
}

/// `/proc/net/xfrm_stat`: "XfrmInNoStates                  \t3"; 0 for what the kernel does not count, and what is not in
/// the table is left out.
fn parse_xfrm_stat(text: &str) -> Result<[i64; COUNTERS.len()], String> {
    let mut values = [0; COUNTERS.len()];
    for line in text.lines() {
        let (name, value) = parse_line(line).ok_or_else(|| format!("expected NAME NUMBER, got {line:?}"))?;
        for (slot, _) in values.iter_mut().zip(&COUNTERS).filter(|(_, counter)| counter.0 == name) {
            *slot = value;
        }
    }
    Ok(values)
}

fn parse_line(line: &str) -> Option<(&str, i64)> {
    let mut words = line.split_ascii_whitespace();
    let (name, value, end) = (words.next()?, words.next()?, words.next());
    end.is_none().then_some((name, value.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_name() {
        let values =
            parse_xfrm_stat("XfrmInHdrError   \t4\nXfrmOdd 5\nXfrmInError\t6\n").expect("understood");
        assert_eq!(values[..4], [6, 0, 4, 0]);
    }

    #[test]
    fn cut_and_odd_lines_are_refused() {
        for text in ["\n", "XfrmInError\n", "XfrmInError x\n", "XfrmInError 1 2\n"] {
            assert!(parse_xfrm_stat(text).is_err(), "{text:?}");
        }
    }
}
