//! Graphics cards of AMD: how busy, how much memory.

use rustix::io::Errno;

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Host, Options, Samples,
    sysfs::{self, Attributes, Reader},
};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "drm", default_on: false, flags: &[], build };

static INFO: Desc = Desc::gauge(
    "node_drm_card_info",
    "Card information",
    &["card", "memory_vendor", "power_performance_level", "unique_id", "vendor"],
);

/// The attributes behind three of the labels of [`INFO`].
const TEXTS: [&str; 3] =
    ["device/mem_info_vram_vendor", "device/power_dpm_force_performance_level", "device/unique_id"];

/// An attribute that is a number, and its family.
struct Number(&'static str, Desc);

macro_rules! number {
    ($attribute:literal, $name:literal, $help:literal) => {
        Number(concat!("device/", $attribute), Desc::gauge(concat!("node_drm_", $name), $help, &["card"]))
    };
}

static NUMBERS: [Number; 7] = [
    number!("gpu_busy_percent", "gpu_busy_percent", "How busy the GPU is as a percentage."),
    number!(
        "mem_info_gtt_total",
        "memory_gtt_size_bytes",
        "The size of the graphics translation table (GTT) block in bytes."
    ),
    number!(
        "mem_info_gtt_used",
        "memory_gtt_used_bytes",
        "The used amount of the graphics translation table (GTT) block in bytes."
    ),
    number!("mem_info_vis_vram_total", "memory_vis_vram_size_bytes", "The size of visible VRAM in bytes."),
    number!(
        "mem_info_vis_vram_used",
        "memory_vis_vram_used_bytes",
        "The used amount of visible VRAM in bytes."
    ),
    number!("mem_info_vram_total", "memory_vram_size_bytes", "The size of VRAM in bytes."),
    number!("mem_info_vram_used", "memory_vram_used_bytes", "The used amount of VRAM in bytes."),
];

#[derive(Default)]
struct Drm {
    reader: Reader,
    /// The texts of the card at hand.
    texts: [String; TEXTS.len()],
}

fn build(_: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Drm::default()))
}

impl Collector for Drm {
    fn collect(&mut self, host: &Host, out: &mut Samples) -> Result<(), CollectError> {
        let class = host.sys("class/drm");
        for name in sysfs::entries(&class)?.iter().filter(|name| is_card(name)) {
            let path = class.join(name);
            let Some(mut card) = self.reader.open(&path) else { continue };
            if card.text("device/uevent", NO_DATA).is_some_and(|text| text.contains("DRIVER=amdgpu")) {
                say(name, card, &mut self.texts, out);
            }
        }
        self.reader.finish()
    }
}

/// A card whose driver has nothing to say.
const NO_DATA: &[Errno] = &[Errno::NODATA];

/// What a card does not tell is 0 or empty, as node_exporter says it.
fn say(name: &str, mut card: Attributes, texts: &mut [String; TEXTS.len()], out: &mut Samples) {
    for (text, file) in texts.iter_mut().zip(TEXTS) {
        card.maybe(file).unwrap_or_default().clone_into(text);
    }
    let [memory, level, id] = &*texts;
    out.push(&INFO, &[name, memory, level, id, "amd"], 1.0);
    for Number(file, desc) in &NUMBERS {
        let value = match card.maybe(file).map(sysfs::unsigned) {
            None => 0,
            Some(Some(value)) => value,
            Some(None) => {
                card.fail_parsing(file);
                continue;
            }
        };
        out.push(desc, &[name], value as f64);
    }
}

/// `card0` to `card9`; `card0-DP-1` is a connector of it.
fn is_card(name: &str) -> bool {
    name.strip_prefix("card").is_some_and(|number| matches!(number.as_bytes(), [b'0'..=b'9']))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join("class/drm").join(file);
        fs::create_dir_all(path.parent().expect("has one")).expect("made");
        fs::write(path, text).expect("written");
    }

    fn said(root: &Path) -> (Vec<String>, Result<(), CollectError>) {
        let host = Host { sysfs: root.into(), ..Host::default() };
        let mut out = Samples::new();
        let result = Drm::default().collect(&host, &mut out);
        let line = |(name, labels, value): (&str, crate::samples::LabelValues, f64)| {
            let labels: Vec<&str> = labels.collect();
            format!("{}{{{}}} {value}", name.trim_start_matches("node_drm_"), labels.join(","))
        };
        (out.iter().map(line).collect(), result)
    }

    #[test]
    fn cards_of_amd_are_said() {
        let root = tempfile::tempdir().expect("a temporary directory");
        write(root.path(), "card0/device/uevent", "DRIVER=amdgpu\nPCI_CLASS=30000\n");
        write(root.path(), "card0/device/gpu_busy_percent", "7\n");
        write(root.path(), "card0/device/unique_id", "ab12\n");
        write(root.path(), "card1/device/uevent", "DRIVER=ast\n");
        write(root.path(), "card0-DP-1/device/uevent", "DRIVER=amdgpu\n");
        let (lines, result) = said(root.path());
        result.expect("nothing is wrong");
        assert_eq!(lines[..2], ["card_info{card0,,,ab12,amd} 1", "gpu_busy_percent{card0} 7"]);
        assert_eq!(lines[2..].iter().filter(|line| line.ends_with("{card0} 0")).count(), 6);
        assert_eq!(lines.len(), 8);
    }

    #[test]
    fn a_broken_card_does_not_hide_the_others() {
        let root = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir_all(root.path().join("class/drm/card0/device")).expect("made");
        write(root.path(), "card1/device/uevent", "DRIVER=amdgpu\n");
        write(root.path(), "card1/device/gpu_busy_percent", "busy\n");
        let (lines, result) = said(root.path());
        assert_eq!(lines.len(), 7);
        assert!(result.expect_err("no uevent").to_string().contains("card0/device/uevent"));
    }

    #[test]
    fn a_host_without_cards_says_nothing() {
        let (lines, result) = said(Path::new("/nonexistent"));
        result.expect("nothing is no error");
        assert!(lines.is_empty());
    }
}
