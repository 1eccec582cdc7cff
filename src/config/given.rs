//! The flags of the command line become a layer.

use nodewarden_collectors::FlagKind;

use super::{
    collectors,
    keys::{KEYS, Key, Set},
    layer::{Layer, Written},
    mistakes::{Mistakes, Origin},
};
use crate::cli::Flags;

/// What the flags say.
pub fn read(flags: &Flags, mistakes: &mut Mistakes) -> Layer {
    let mut layer = Layer::default();
    for (name, values) in flags {
        let is_off = is_switch(name) && values.iter().all(|value| value == "false");
        let origin = Origin::Flag(if is_off { format!("no-{name}") } else { name.clone() });
        let key = KEYS.iter().find(|key| key.flag == Some(name.as_str()));
        if values.len() > 1 && !is_repeatable(name, key) {
            mistakes.add(&origin, format!("given {} times; keep one", values.len()));
        }
        match (key, name.strip_prefix("collector.")) {
            (Some(key), _) => {
                let values = values.iter().map(|value| (value.clone(), origin.clone())).collect();
                layer.written.push(Written { key, origin, values });
            }
            (None, Some(name)) => collector(name, values, &origin, &mut layer, mistakes),
            (None, None) if name == "runtime.gomaxprocs" => {
                if let Some(odd) = values.iter().find(|value| value.parse::<i64>().is_err()) {
                    mistakes.add(&origin, format!("expected a number, not '{odd}'"));
                }
                layer.notes.push("--runtime.gomaxprocs has no effect: threads are few and fixed".into());
            }
            // `config.file` was needed to find the file, before any layer.
            (None, None) => {}
        }
    }
    layer
}

fn collector(name: &str, values: &[String], origin: &Origin, layer: &mut Layer, mistakes: &mut Mistakes) {
    // `cli` takes no flag that is neither an option nor a collector.
    let on = values.last().is_some_and(|value| value == "true");
    if name == "disable-defaults" {
        layer.collectors.disable_defaults = Some((on, origin.clone()));
    } else if let Some(flag) = collectors::flag(name) {
        layer.collectors.set(flag, values.to_vec(), origin, mistakes);
    } else {
        layer.collectors.switch(name, on, origin);
    }
}

/// Whether the flag has a `--no-` form.
fn is_switch(name: &str) -> bool {
    match name.strip_prefix("collector.") {
        Some(name) => collectors::flag(name).is_none_or(|flag| flag.kind == FlagKind::Bool),
        None => matches!(name, "web.disable-exporter-metrics" | "web.systemd-socket"),
    }
}

fn is_repeatable(name: &str, key: Option<&'static Key>) -> bool {
    let option = name.strip_prefix("collector.").and_then(collectors::flag);
    key.is_some_and(|key| matches!(key.set, Set::Many(..)))
        || option.is_some_and(|flag| flag.kind == FlagKind::List)
}
