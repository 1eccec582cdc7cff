//! Families out of the names that drivers give their statistics.

use std::collections::{BTreeMap, HashMap};

use regex::Regex;

use crate::{Desc, Kind, OwnedDesc, Samples, samples::FamilyId, syscall::ethtool::STATISTIC_NAME};

const LABELS: &[&str] = &["device"];

/// Names that many drivers share, and the families they have had since before there was a rule.
static COMMON: [(&str, Desc); 7] = [
    (
        "rx_bytes",
        Desc::untyped("node_ethtool_received_bytes_total", "Network interface bytes received", LABELS),
    ),
    (
        "rx_dropped",
        Desc::untyped("node_ethtool_received_dropped_total", "Number of received frames dropped", LABELS),
    ),
    (
        "rx_errors",
        Desc::untyped("node_ethtool_received_errors_total", "Number of received frames with errors", LABELS),
    ),
    (
        "rx_packets",
        Desc::untyped("node_ethtool_received_packets_total", "Network interface packets received", LABELS),
    ),
    (
        "tx_bytes",
        Desc::untyped("node_ethtool_transmitted_bytes_total", "Network interface bytes sent", LABELS),
    ),
    (
        "tx_errors",
        Desc::untyped("node_ethtool_transmitted_errors_total", "Number of sent frames with errors", LABELS),
    ),
    (
        "tx_packets",
        Desc::untyped("node_ethtool_transmitted_packets_total", "Network interface packets sent", LABELS),
    ),
];

/// Which statistics are wanted.
pub(super) struct Pattern(Option<Regex>);

impl Pattern {
    pub(super) fn new(regex: Option<Regex>) -> Self {
        Self(regex)
    }

    fn wants(&self, name: &str) -> bool {
        self.0.as_ref().is_none_or(|regex| regex.is_match(name))
    }
}

/// The families of every list of names that some device has. Devices of one driver mostly have the same list, and it
/// mostly stays the same: what is made of it is kept.
pub(super) struct Layouts {
    pattern: Pattern,
    by_names: HashMap<Box<[u8]>, usize>,
    layouts: Vec<Layout>,
    /// By the name of the statistic.
    by_name: HashMap<String, usize>,
    made: Vec<Made>,
}

#[derive(Default)]
struct Layout {
    entries: Vec<(Target, usize)>,
    /// How many names there are.
    count: usize,
    /// Whether a device had it in this scrape.
    used: bool,
}

#[derive(Debug, Clone, Copy)]
enum Target {
    Common(&'static Desc),
    /// A place in `made`.
    Made(usize),
}

struct Made {
    desc: OwnedDesc,
    /// In this scrape.
    family: Option<FamilyId>,
}

impl Layouts {
    pub(super) fn new(pattern: Pattern) -> Self {
        Self {
            pattern,
            by_names: HashMap::new(),
            layouts: Vec::new(),
            by_name: HashMap::new(),
            made: Vec::new(),
        }
    }

    /// A scrape begins.
    pub(super) fn begin(&mut self) {
        self.layouts.iter_mut().for_each(|layout| layout.used = false);
        self.made.iter_mut().for_each(|made| made.family = None);
    }

    /// A scrape ends: if some layout is not used any more, all are forgotten and the next scrape makes those it needs.
    pub(super) fn end(&mut self) {
        if self.layouts.iter().any(|layout| !layout.used) {
            self.by_names.clear();
            self.layouts.clear();
            self.by_name.clear();
            self.made.clear();
        }
    }

    /// The layout of these names, 32 bytes each.
    pub(super) fn of(&mut self, names: &[u8]) -> usize {
        if let Some(&at) = self.by_names.get(names) {
            return at;
        }
        let names_in_order = names.as_chunks::<STATISTIC_NAME>().0;
        let mut layout = Layout { count: names_in_order.len(), ..Layout::default() };
        for (family, (name, at)) in unambiguous(names_in_order, &self.pattern) {
            layout.entries.push((self.target(&name, &family), at));
        }
        self.layouts.push(layout);
        self.by_names.insert(names.into(), self.layouts.len() - 1);
        self.layouts.len() - 1
    }

    fn target(&mut self, name: &str, family: &str) -> Target {
        if let Some((_, desc)) = COMMON.iter().find(|(common, _)| *common == name) {
            return Target::Common(desc);
        }
        if let Some(&at) = self.by_name.get(name) {
            return Target::Made(at);
        }
        let desc = OwnedDesc::new(family, &format!("Network interface {name}"), Kind::Untyped, LABELS);
        self.made.push(Made { desc, family: None });
        self.by_name.insert(name.to_owned(), self.made.len() - 1);
        Target::Made(self.made.len() - 1)
    }

    /// Says the statistics of a device; a device that has others by now than when it was asked for their names is left out.
    pub(super) fn say(&mut self, layout: usize, device: &str, numbers: &[[u8; 8]], out: &mut Samples) {
        let Self { layouts, made, .. } = self;
        let Some(layout) = layouts.get_mut(layout) else { return };
        layout.used = true;
        if numbers.len() != layout.count {
            return;
        }
        for (target, at) in &layout.entries {
            let Some(&number) = numbers.get(*at) else { continue };
            let value = u64::from_ne_bytes(number) as f64;
            match target {
                Target::Common(desc) => out.push(desc, &[device], value),
                Target::Made(at) => {
                    let Some(Made { desc, family }) = made.get_mut(*at) else { continue };
                    let family = *family.get_or_insert_with(|| out.owned_family(desc));
                    out.push_to(family, &[device], value);
                }
            }
        }
    }
}

/// The statistics whose family is theirs alone, by that family: their sanitised name and their place. Of several with the
/// very same name the last one counts.
fn unambiguous(names: &[[u8; STATISTIC_NAME]], pattern: &Pattern) -> BTreeMap<String, (String, usize)> {
    let mut places = BTreeMap::new();
    for (at, name) in names.iter().enumerate() {
        let end = memchr::memchr(0, name).unwrap_or(name.len());
        if end > 0 {
            places.insert(&name[..end], at);
        }
    }
    let mut families: BTreeMap<String, Option<(String, usize)>> = BTreeMap::new();
    for (raw, at) in places {
        let name = sanitise(raw);
        if !pattern.wants(&name) {
            continue;
        }
        if let Some(family) = family_name(&name) {
            families.entry(family).and_modify(|found| *found = None).or_insert(Some((name, at)));
        }
    }
    families.into_iter().filter_map(|(family, found)| Some((family, found?))).collect()
}

/// Every run of what can't stand in a family's name becomes one underscore, together with the underscores around it.
fn sanitise(raw: &[u8]) -> String {
    let mut name = String::with_capacity(raw.len());
    let mut rest = raw;
    while let [first, ..] = rest {
        let (underscores, behind) = split_run(rest, |byte| byte == b'_');
        let (odd, behind) = split_run(behind, |byte| byte != b'_' && !byte.is_ascii_alphanumeric());
        if odd > 0 {
            name.push('_');
            rest = split_run(behind, |byte| byte == b'_').1;
        } else if underscores > 0 {
            name.extend(std::iter::repeat_n('_', underscores));
            rest = behind;
        } else {
            name.push(char::from(*first));
            rest = &rest[1..];
        }
    }
    name
}

/// How many bytes from the beginning are as `is` says, and what follows.
fn split_run(bytes: &[u8], is: impl Fn(u8) -> bool) -> (usize, &[u8]) {
    let length = bytes.iter().take_while(|&&byte| is(byte)).count();
    (length, &bytes[length..])
}

/// The family of a sanitised name; none for a name of nothing but underscores.
fn family_name(name: &str) -> Option<String> {
    let name = name.to_ascii_lowercase();
    let name = name.trim_start_matches('_');
    if name.is_empty() {
        return None;
    }
    let name = replace_word(&replace_word(name, "rx", "received"), "tx", "transmitted");
    Some(format!("node_ethtool_{name}"))
}

/// Replaces a word between underscores. Of two that share an underscore only the first is replaced.
fn replace_word(name: &str, word: &str, by: &str) -> String {
    let mut was_replaced = false;
    let words: Vec<&str> = name
        .split('_')
        .map(|found| {
            was_replaced = found == word && !was_replaced;
            if was_replaced { by } else { found }
        })
        .collect();
    words.join("_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<u8> {
        let padded = |name: &&str| {
            let mut bytes = name.as_bytes().to_vec();
            bytes.resize(STATISTIC_NAME, 0);
            bytes
        };
        names.iter().flat_map(padded).collect()
    }

    fn numbers(count: u64) -> Vec<[u8; 8]> {
        (1..=count).map(u64::to_ne_bytes).collect()
    }

    fn page(layouts: &mut Layouts, devices: &[(&str, &[&str])]) -> String {
        let mut out = Samples::new();
        layouts.begin();
        for (device, list) in devices {
            let layout = layouts.of(&names(list));
            layouts.say(layout, device, &numbers(list.len() as u64), &mut out);
        }
        layouts.end();
        let mut page = Vec::new();
        assert_eq!(crate::text::write(&out, &mut page), 0);
        String::from_utf8(page).expect("UTF-8")
    }

    fn all() -> Layouts {
        Layouts::new(Pattern::new(None))
    }

    #[test]
    fn families_are_named_after_sanitised_names() {
        for (raw, sanitised, family) in [
            ("port.rx_drop", "port_rx_drop", "node_ethtool_port_received_drop"),
            ("Ring[4] Fill", "Ring_4_Fill", "node_ethtool_ring_4_fill"),
            ("Rx Pause", "Rx_Pause", "node_ethtool_received_pause"),
            ("[0]: tx_ok", "_0_tx_ok", "node_ethtool_0_transmitted_ok"),
            ("  lost", "_lost", "node_ethtool_lost"),
            ("a__b", "a__b", "node_ethtool_a__b"),
            ("a._.b", "a__b", "node_ethtool_a__b"),
            ("rx_rx_rx", "rx_rx_rx", "node_ethtool_received_rx_received"),
            ("rxtx_tx", "rxtx_tx", "node_ethtool_rxtx_transmitted"),
            ("größe", "gr_e", "node_ethtool_gr_e"),
        ] {
            assert_eq!(sanitise(raw.as_bytes()), sanitised, "{raw}");
            assert_eq!(family_name(sanitised).as_deref(), Some(family), "{raw}");
        }
        assert_eq!(sanitise(b"\xff\xfe"), "_");
        assert_eq!(family_name("___"), None);
    }

    #[test]
    fn common_names_have_families_of_their_own() {
        let page = page(&mut all(), &[("eth0", &["rx_bytes", "rx_oops", "RX_bytes"])]);
        assert_eq!(
            page,
            "# HELP node_ethtool_received_oops Network interface rx_oops\n\
             # TYPE node_ethtool_received_oops untyped\n\
             node_ethtool_received_oops{device=\"eth0\"} 2\n",
            "two of them would be received_bytes"
        );
        let page = self::page(&mut all(), &[("eth0", &["rx_bytes"])]);
        assert!(page.contains("node_ethtool_received_bytes_total{device=\"eth0\"} 1\n"), "{page}");
    }

    #[test]
    fn names_that_become_one_are_left_out_and_the_same_name_counts_once() {
        let list = ["a b", "a_b", "a-b", "same", "other", "same", ""];
        let page = page(&mut all(), &[("eth0", &list)]);
        let samples: Vec<&str> = page.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            samples,
            ["node_ethtool_other{device=\"eth0\"} 5", "node_ethtool_same{device=\"eth0\"} 6"]
        );
    }

    #[test]
    fn devices_share_families_over_scrapes() {
        let mut layouts = all();
        let both = [("eth0", &["x", "y"][..]), ("eth1", &["y"][..])];
        let first = page(&mut layouts, &both);
        assert_eq!(first.matches("# TYPE").count(), 2);
        assert_eq!(page(&mut layouts, &both), first);
        assert_eq!((layouts.layouts.len(), layouts.made.len()), (2, 2));
        page(&mut layouts, &both[1..]);
        assert!(layouts.layouts.is_empty(), "one of them is not used any more");
        assert_eq!(page(&mut layouts, &both), first);
    }

    #[test]
    fn only_wanted_statistics_are_said() {
        let wanted = Regex::new("^rx_").expect("a pattern");
        let mut layouts = Layouts::new(Pattern::new(Some(wanted)));
        let page = page(&mut layouts, &[("eth0", &["rx_a", "tx_a", "RX_b"])]);
        assert!(page.contains("received_a") && !page.contains("tx") && !page.contains("_b"), "{page}");
    }

    #[test]
    fn another_number_of_statistics_than_of_names_says_nothing() {
        let mut layouts = all();
        let mut out = Samples::new();
        let layout = layouts.of(&names(&["a", "b"]));
        layouts.say(layout, "eth0", &numbers(1), &mut out);
        layouts.say(layout, "eth0", &numbers(3), &mut out);
        assert!(out.is_empty());
    }

    proptest::proptest! {
        #[test]
        fn any_name_becomes_a_family_that_prometheus_takes(raw: Vec<u8>) {
            let name = sanitise(&raw);
            let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            proptest::prop_assert!(name.bytes().all(is_valid), "{name}");
            proptest::prop_assert!(sanitise(name.as_bytes()) == name, "once is enough: {name}");
            if let Some(family) = family_name(&name) {
                proptest::prop_assert!(family.bytes().all(is_valid), "{family}");
            }
        }
    }
}
