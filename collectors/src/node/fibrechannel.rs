//! Fibre Channel host ports.

use rustix::io::Errno;

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Host, Options, Samples, host,
    sysfs::{self, ABSENT, Attributes, Reader},
};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "fibrechannel", default_on: true, flags: &[], build };

static INFO: Desc = Desc::gauge(
    "node_fibrechannel_info",
    "Non-numeric data from /sys/class/fc_host/<host>, value is always 1.",
    &[
        "dev_loss_tmo",
        "fabric_name",
        "fc_host",
        "port_id",
        "port_name",
        "port_state",
        "port_type",
        "speed",
        "supported_classes",
        "supported_speeds",
        "symbolic_name",
    ],
);

/// The attributes behind the labels of [`INFO`], in the same order; the host's name is none.
const TEXTS: [&str; 10] = [
    "dev_loss_tmo",
    "fabric_name",
    "port_id",
    "port_name",
    "port_state",
    "port_type",
    "speed",
    "supported_classes",
    "supported_speeds",
    "symbolic_name",
];

/// Names in hexadecimal, said without the `0x` before them.
const HEXADECIMAL: [&str; 3] = ["fabric_name", "port_id", "port_name"];

/// A file below `statistics`, and its family.
struct Number(&'static str, Desc);

macro_rules! number {
    ($file:literal, $name:literal, $help:literal) => {
        Number(
            concat!("statistics/", $file),
            Desc::counter(concat!("node_fibrechannel_", $name, "_total"), $help, &["fc_host"]),
        )
    };
}

static NUMBERS: [Number; 14] = [
    number!("dumped_frames", "dumped_frames", "Number of dumped frames"),
    number!("error_frames", "error_frames", "Number of errors in frames"),
    number!("fcp_packet_aborts", "fcp_packet_aborts", "Number of aborted packets"),
    number!("invalid_crc_count", "invalid_crc", "Invalid Cyclic Redundancy Check count"),
    number!("invalid_tx_word_count", "invalid_tx_words", "Number of invalid words transmitted by host port"),
    number!("link_failure_count", "link_failure", "Number of times the host port link has failed"),
    number!("loss_of_signal_count", "loss_of_signal", "Number of times signal has been lost"),
    number!(
        "loss_of_sync_count",
        "loss_of_sync",
        "Number of failures on either bit or transmission word boundaries"
    ),
    number!("nos_count", "nos", "Number Not_Operational Primitive Sequence received by host port"),
    number!("rx_frames", "rx_frames", "Number of frames received"),
    number!("rx_words", "rx_words", "Number of words received by host port"),
    number!(
        "seconds_since_last_reset",
        "seconds_since_last_reset",
        "Number of seconds since last host port reset"
    ),
    number!("tx_frames", "tx_frames", "Number of frames transmitted by host port"),
    number!("tx_words", "tx_words", "Number of words transmitted by host port"),
];

/// What a driver answers for a counter that it does not have.
const NOT_COUNTED: &[Errno] = &[Errno::NOENT, Errno::OPNOTSUPP];

#[derive(Default)]
struct Fibrechannel {
    reader: Reader,
    /// The texts of the host at hand.
    texts: [String; TEXTS.len()],
}

fn build(_: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Fibrechannel::default()))
}

impl Collector for Fibrechannel {
    fn collect(&mut self, host: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let class = host.sys("class/fc_host");
        for name in host::list_dir(&class).map_err(CollectError::missing_is_no_data)? {
            if let Some(port) = self.reader.open(&class.join(&name)) {
                say(&name, port, &mut self.texts, out);
            }
        }
        self.reader.finish()
    }
}

/// A port has what its driver knows. For each counter the firmware may be asked anew: only those that are said are read.
fn say(name: &str, mut port: Attributes, texts: &mut [String; TEXTS.len()], out: &mut Samples) {
    for (text, file) in texts.iter_mut().zip(TEXTS) {
        port.copy(file, ABSENT, text);
        if HEXADECIMAL.contains(&file) && text.len() > 2 && text.is_char_boundary(2) {
            text.drain(..2);
        }
    }
    let [loss, fabric, id, port_name, state, kind, speed, classes, speeds, symbolic] = &*texts;
    out.push(&INFO, &[loss, fabric, name, id, port_name, state, kind, speed, classes, speeds, symbolic], 1.0);
    for Number(file, desc) in &NUMBERS {
        match port.parse(file, NOT_COUNTED, sysfs::unsigned) {
            // All ones stand for a counter that the firmware does not have.
            None | Some(u64::MAX) => {}
            Some(value) => out.push(desc, &[name], value as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    fn said(root: &Path) -> (Vec<String>, Result<(), CollectError>) {
        let host = Host { sysfs: root.into(), ..Host::default() };
        let mut out = Samples::new();
        let result = Fibrechannel::default().collect(&host, &mut out);
        let line = |(name, labels, value): (&str, crate::samples::LabelValues, f64)| {
            let labels: Vec<&str> = labels.collect();
            format!("{}{{{}}} {value}", name.trim_start_matches("node_fibrechannel_"), labels.join(","))
        };
        (out.iter().map(line).collect(), result)
    }

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join("class/fc_host").join(file);
        fs::create_dir_all(path.parent().expect("has one")).expect("made");
        fs::write(path, text).expect("written");
    }

    #[test]
    fn a_port_is_said_with_what_it_has() {
        let root = tempfile::tempdir().expect("a temporary directory");
        write(root.path(), "host2/port_id", "0x0a1b2c\n");
        write(root.path(), "host2/fabric_name", "0x\n");
        write(root.path(), "host2/symbolic_name", "adapter, two ports\n");
        write(root.path(), "host2/statistics/rx_frames", "0x10\n");
        write(root.path(), "host2/statistics/nos_count", "0xffffffffffffffff\n");
        write(root.path(), "host2/statistics/lip_count", "nobody asks\n");
        let (lines, result) = said(root.path());
        result.expect("nothing is wrong");
        assert_eq!(lines, ["info{,0x,host2,0a1b2c,,,,,,,adapter, two ports} 1", "rx_frames_total{host2} 16"]);
    }

    #[test]
    fn a_broken_counter_is_left_out_and_told() {
        let root = tempfile::tempdir().expect("a temporary directory");
        write(root.path(), "host2/statistics/rx_frames", "many\n");
        write(root.path(), "host3/statistics/rx_frames", "1\n");
        let (lines, result) = said(root.path());
        assert_eq!(lines[2], "rx_frames_total{host3} 1");
        assert_eq!(lines.len(), 3);
        assert!(result.expect_err("not a number").to_string().contains("host2/statistics/rx_frames"));
    }

    #[test]
    fn a_host_without_the_class_has_no_data() {
        assert!(matches!(said(Path::new("/nonexistent")).1, Err(CollectError::NoData)));
    }
}
