//! Prints samples as an exposition page (Prometheus text format 0.0.4), byte for byte as Go's expfmt prints them.
//!
//! The `prometheus` crate's encoder refuses untyped families and prints floats as Rust does, so the page has its own.

use std::{
    cmp::Ordering,
    io::{self, Write},
    ops::Range,
};

use crate::samples::{Family, Kind, Part, Sample, Samples};

/// The content type of such a page, as node_exporter 1.12 gives it.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

/// Appends the page to `page`: families by name, series by number of labels and label values.
///
/// Families of one name are one on the page. What contradicts the first of them in type or help text, or says a series a
/// second time, is left out; how many samples those were is the answer. A collector's own family goes before one that is
/// described at run time.
pub fn write(samples: &Samples, page: &mut Vec<u8>) -> usize {
    let left_out = write_in_pieces(samples, page, |_| Ok(()));
    left_out.unwrap_or_default()
}

/// As [`write`], of a page that need not lie in memory as a whole: after each family `taken` may take what is there.
pub fn write_in_pieces(
    samples: &Samples,
    page: &mut Vec<u8>,
    mut taken: impl FnMut(&mut Vec<u8>) -> io::Result<()>,
) -> io::Result<usize> {
    let ranks = family_ranks(samples);
    let mut left_out = 0;
    let mut order = Order::default();
    for group in by_rank(samples, &ranks).chunk_by_mut(|left, right| {
        ranks[samples.samples[*left as usize].family as usize]
            == ranks[samples.samples[*right as usize].family as usize]
    }) {
        order.sort(samples, group);
        left_out += write_group(samples, group, page);
        taken(page)?;
    }
    Ok(left_out)
}

/// How the family before was sorted: the families of one collector are often said for the same devices, in the same order.
#[derive(Default)]
struct Order {
    /// The label values of its series, as they were said.
    sets: Vec<u32>,
    /// Which of them comes first, second, and so on.
    places: Vec<u32>,
    sorted: Vec<u32>,
}

impl Order {
    /// Sorts the series of one name.
    fn sort(&mut self, samples: &Samples, group: &mut [u32]) {
        let sample = |at: u32| &samples.samples[at as usize];
        let family = group.first().map(|&first| sample(first).family);
        if group.iter().any(|&at| Some(sample(at).family) != family) {
            group.sort_by(|left, right| compare_series(samples, sample(*left), sample(*right)));
            return;
        }
        if !group.iter().map(|&at| sample(at).labels).eq(self.sets.iter().copied()) {
            self.sets.clear();
            self.sets.extend(group.iter().map(|&at| sample(at).labels));
            self.places.clear();
            self.places.extend(0..group.len() as u32);
            let series = |place: u32| sample(group[place as usize]);
            let in_order = |left: &u32, right: &u32| compare_series(samples, series(*left), series(*right));
            if !self.places.is_sorted_by(|left, right| in_order(left, right).is_le()) {
                self.places.sort_by(in_order);
            }
        }
        self.sorted.clear();
        self.sorted.extend(self.places.iter().map(|&place| group[place as usize]));
        group.copy_from_slice(&self.sorted);
    }
}

/// The places of all samples, by the rank of their family; those of one rank as they were said.
fn by_rank(samples: &Samples, ranks: &[u32]) -> Vec<u32> {
    let mut starts = vec![0_u32; ranks.len() + 1];
    for sample in &samples.samples {
        starts[ranks[sample.family as usize] as usize + 1] += 1;
    }
    for at in 1..starts.len() {
        starts[at] += starts[at - 1];
    }
    let mut order = vec![0; samples.samples.len()];
    for (at, sample) in samples.samples.iter().enumerate() {
        let next = &mut starts[ranks[sample.family as usize] as usize];
        order[*next as usize] = at as u32;
        *next += 1;
    }
    order
}

/// Writes the samples of one name; how many were left out.
fn write_group(samples: &Samples, group: &[u32], page: &mut Vec<u8>) -> usize {
    let family_of = |at: &u32| &samples.families[samples.samples[*at as usize].family as usize];
    let first = group.iter().min_by_key(|at| {
        let is_dynamic = matches!(family_of(at), Family::Dynamic(_));
        (is_dynamic, samples.samples[**at as usize].family)
    });
    let Some(leader) = first.map(family_of) else { return 0 };
    let name = write_header(leader, page);
    let mut left_out = 0;
    let mut previous: Option<&Sample> = None;
    let has_parts = matches!(leader.kind(), Kind::Histogram | Kind::Summary);
    for at in group {
        let sample = &samples.samples[*at as usize];
        let family = family_of(at);
        let contradicts = || family.kind() != leader.kind() || family.help() != leader.help();
        if (!std::ptr::eq(family, leader) && contradicts())
            || previous.is_some_and(|previous| is_repeated(samples, has_parts, previous, sample))
        {
            left_out += 1;
            continue;
        }
        let part = if has_parts { samples.part(*at as usize) } else { Part::Value };
        write_sample(samples, family, sample, part, name.clone(), page);
        previous = Some(sample);
    }
    left_out
}

/// Whether `sample` says the same series as `previous`; the lines of one histogram are one series.
fn is_repeated(samples: &Samples, has_parts: bool, previous: &Sample, sample: &Sample) -> bool {
    let [left, right] = [previous, sample].map(|sample| &samples.families[sample.family as usize]);
    let is_one_series = previous.family == sample.family && has_parts;
    let count = samples.label_count(sample);
    !is_one_series
        && samples.label_count(previous) == count
        && samples.label_values(previous) == samples.label_values(sample)
        && (std::ptr::eq(left, right) || (0..count).all(|at| left.label(at) == right.label(at)))
}

/// For each family the place of its name among all names; families of one name share it.
fn family_ranks(samples: &Samples) -> Vec<u32> {
    let mut by_name: Vec<u32> = (0..samples.families.len() as u32).collect();
    by_name.sort_by(|left, right| {
        samples.families[*left as usize].name().cmp(samples.families[*right as usize].name())
    });
    let mut ranks = vec![0; by_name.len()];
    let mut rank = 0;
    for (place, &family) in by_name.iter().enumerate() {
        let previous = place.checked_sub(1).map(|place| by_name[place]);
        if previous.is_some_and(|previous| {
            samples.families[previous as usize].name() != samples.families[family as usize].name()
        }) {
            rank += 1;
        }
        ranks[family as usize] = rank;
    }
    ranks
}

/// The order of two series of one name; the lines of one histogram or summary are equal, and so keep their order.
fn compare_series(samples: &Samples, left: &Sample, right: &Sample) -> Ordering {
    let by_values = || samples.label_values(left).cmp(samples.label_values(right));
    samples.label_count(left).cmp(&samples.label_count(right)).then_with(by_values)
}

/// Writes the HELP and TYPE lines; where in the page the name stands, to copy it from for each sample.
fn write_header(family: &Family, page: &mut Vec<u8>) -> Range<usize> {
    page.extend_from_slice(b"# HELP ");
    let start = page.len();
    page.extend_from_slice(family.name().as_bytes());
    let name_range = start..page.len();
    page.push(b' ');
    write_escaped(family.help().as_bytes(), false, page);
    page.extend_from_slice(b"\n# TYPE ");
    page.extend_from_slice(family.name().as_bytes());
    page.push(b' ');
    page.extend_from_slice(family.kind().as_str().as_bytes());
    page.push(b'\n');
    name_range
}

fn write_sample(
    samples: &Samples,
    family: &Family,
    sample: &Sample,
    part: Part,
    name: Range<usize>,
    page: &mut Vec<u8>,
) {
    page.extend_from_within(name);
    let label_count = samples.label_count(sample);
    let bound = match part {
        Part::Value => None,
        Part::Quantile(quantile) => Some(("quantile", quantile)),
        Part::Bucket(upper) => {
            page.extend_from_slice(b"_bucket");
            Some(("le", upper))
        }
        Part::Sum => {
            page.extend_from_slice(b"_sum");
            None
        }
        Part::Count => {
            page.extend_from_slice(b"_count");
            None
        }
    };
    if label_count > 0 || bound.is_some() {
        page.push(b'{');
        write_labels(samples, family, sample, page);
        if let Some((label, bound)) = bound {
            if label_count > 0 {
                page.push(b',');
            }
            page.extend_from_slice(label.as_bytes());
            page.extend_from_slice(b"=\"");
            write_number(bound, page);
            page.push(b'"');
        }
        page.push(b'}');
    }
    page.push(b' ');
    write_number(sample.value, page);
    page.push(b'\n');
}

fn write_labels(samples: &Samples, family: &Family, sample: &Sample, page: &mut Vec<u8>) {
    let mut rest = samples.label_values(sample);
    for at in 0..samples.label_count(sample) {
        if at > 0 {
            page.push(b',');
        }
        page.extend_from_slice(family.label(at).as_bytes());
        page.extend_from_slice(b"=\"");
        let end = memchr::memchr(0, rest).unwrap_or(rest.len());
        write_escaped(&rest[..end], true, page);
        rest = rest.get(end + 1..).unwrap_or_default();
        page.push(b'"');
    }
}

/// Backslash and newline are escaped everywhere, the double quote only inside label values.
fn write_escaped(mut text: &[u8], quoted: bool, page: &mut Vec<u8>) {
    let special = |text: &[u8]| {
        if quoted { memchr::memchr3(b'\\', b'\n', b'"', text) } else { memchr::memchr2(b'\\', b'\n', text) }
    };
    while let Some(at) = special(text) {
        page.extend_from_slice(&text[..at]);
        page.extend_from_slice(match text[at] {
            b'\\' => br"\\",
            b'\n' => br"\n",
            _ => br#"\""#,
        });
        text = &text[at + 1..];
    }
    page.extend_from_slice(text);
}

/// Writes a float as Go's `strconv.FormatFloat(value, 'g', -1, 64)`: shortest digits that read back to the same value,
/// plain when the decimal exponent is -4 to 5.
pub fn write_number(value: f64, page: &mut Vec<u8>) {
    if value.is_nan() {
        page.extend_from_slice(b"NaN");
        return;
    }
    if value.is_infinite() {
        page.extend_from_slice(if value > 0.0 { b"+Inf" } else { b"-Inf" });
        return;
    }
    // Below zero too: the peer prints no negative one.
    if value == 0.0 {
        page.push(b'0');
        return;
    }
    if value.abs() < 1e6 && value.fract() == 0.0 {
        write_integer(value as i64, page);
        return;
    }
    // Whole numbers, ticks, thousandths, nanoseconds.
    for (scale, places) in [(1.0, 0), (1e2, 2), (1e3, 3), (1e9, 9)] {
        let whole = (value * scale).round_ties_even();
        // At most 15 digits: no other decimal with so few is the same float, so that these are the shortest.
        if whole.abs() < 1e15 && whole / scale == value {
            write_decimal(whole as i64, places, page);
            return;
        }
    }
    write_shortest(value, page);
}

/// Writes `whole` with the point moved to the left by `places`.
fn write_decimal(whole: i64, places: i32, page: &mut Vec<u8>) {
    let mut buffer = [0; 20];
    let digits = decimal(whole.unsigned_abs(), &mut buffer);
    let exponent = digits.len() as i32 - 1 - places;
    let used = digits.iter().rposition(|&digit| digit != b'0').map_or(1, |last| last + 1);
    if whole < 0 {
        page.push(b'-');
    }
    write_digits(&digits[..used], exponent, page);
}

/// Writes digits, the first of which stands at 10 to the power of `exponent`.
fn write_digits(digits: &[u8], exponent: i32, page: &mut Vec<u8>) {
    let Some((first, rest)) = digits.split_first() else { return };
    if !(-4..6).contains(&exponent) {
        page.push(*first);
        if !rest.is_empty() {
            page.push(b'.');
            page.extend_from_slice(rest);
        }
        page.push(b'e');
        page.push(if exponent < 0 { b'-' } else { b'+' });
        let magnitude = exponent.abs();
        if magnitude < 10 {
            page.push(b'0');
        }
        write_integer(i64::from(magnitude), page);
    } else if exponent < 0 {
        page.extend_from_slice(b"0.");
        page.extend(std::iter::repeat_n(b'0', (-exponent - 1) as usize));
        page.extend_from_slice(digits);
    } else {
        let before_point = exponent as usize + 1;
        match digits.split_at_checked(before_point) {
            Some((before, after)) => {
                page.extend_from_slice(before);
                if !after.is_empty() {
                    page.push(b'.');
                    page.extend_from_slice(after);
                }
            }
            None => {
                page.extend_from_slice(digits);
                page.extend(std::iter::repeat_n(b'0', before_point - digits.len()));
            }
        }
    }
}

fn write_integer(value: i64, page: &mut Vec<u8>) {
    if value < 0 {
        page.push(b'-');
    }
    page.extend_from_slice(decimal(value.unsigned_abs(), &mut [0; 20]));
}

/// The digits of a number, in the end of `buffer`.
fn decimal(mut rest: u64, buffer: &mut [u8; 20]) -> &[u8] {
    let mut at = buffer.len();
    loop {
        at -= 1;
        buffer[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            return &buffer[at..];
        }
    }
}

fn write_shortest(value: f64, page: &mut Vec<u8>) {
    let mut scientific = [0; 32];
    let mut cursor = &mut scientific[..];
    // `{:e}` gives the shortest digits as D.DDDeX; 17 digits, a sign, a point and `e-308` fit into 32 bytes.
    let written = write!(cursor, "{:e}", value.abs()).is_ok();
    debug_assert!(written, "32 bytes hold any float");
    let free = cursor.len();
    let text = &scientific[..32 - free];
    let (mantissa, exponent) = match memchr::memchr(b'e', text) {
        Some(at) => (&text[..at], parse_exponent(&text[at + 1..])),
        None => (text, 0),
    };
    if value < 0.0 {
        page.push(b'-');
    }
    let mut digits = [0; 32];
    let mut count = 0;
    for (slot, digit) in digits.iter_mut().zip(mantissa.iter().copied().filter(u8::is_ascii_digit)) {
        *slot = digit;
        count += 1;
    }
    write_digits(&digits[..count], exponent, page);
}

fn parse_exponent(text: &[u8]) -> i32 {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::Desc;

    fn number(value: f64) -> String {
        let mut page = Vec::new();
        write_number(value, &mut page);
        String::from_utf8(page).expect("ASCII")
    }

    #[test]
    fn numbers_are_printed_as_go_prints_them() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (1.0, "1"),
            (-17.0, "-17"),
            (999_999.0, "999999"),
            (1_000_000.0, "1e+06"),
            (1_234_567.0, "1.234567e+06"),
            (0.21, "0.21"),
            (-0.5, "-0.5"),
            (12.75, "12.75"),
            (99_999.5, "99999.5"),
            (999_999.5, "999999.5"),
            (0.0001, "0.0001"),
            (0.00012, "0.00012"),
            (0.000_01, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (1e100, "1e+100"),
            (18_446_744_073_709_551_615.0, "1.8446744073709552e+19"),
            (1_700_000_000.123, "1.700000000123e+09"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn the_short_way_gives_the_shortest_digits() {
        let mut state = 7_u64;
        for round in 0..200_000_u32 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let whole = (state >> (11 + round % 50)) as f64;
            let scale = [1.0, 10.0, 1e2, 1e3, 1e4, 1e6, 1e9][round as usize % 7];
            let value = whole / scale * [1.0, -1.0][round as usize % 2];
            if value == 0.0 {
                continue;
            }
            let mut long = Vec::new();
            write_shortest(value, &mut long);
            assert_eq!(number(value).as_bytes(), long, "{value}");
        }
    }

    static LOAD: Desc = Desc::gauge("node_load1", "1m load average.", &[]);
    static INFO: Desc = Desc::gauge("node_info", "A \\ and a\nnewline, a \" as it is.", &["name"]);

    fn page(samples: &Samples) -> String {
        let mut page = Vec::new();
        assert_eq!(write(samples, &mut page), 0, "nothing is left out");
        String::from_utf8(page).expect("UTF-8")
    }

    #[test]
    fn families_are_sorted_by_name_and_series_by_label_values() {
        let mut samples = Samples::new();
        samples.push(&LOAD, &[], 0.21);
        samples.push(&INFO, &["a b"], 1.0);
        samples.push(&INFO, &["a"], 2.0);
        assert_eq!(
            page(&samples),
            "# HELP node_info A \\\\ and a\\nnewline, a \" as it is.\n# TYPE node_info gauge\n\
             node_info{name=\"a\"} 2\nnode_info{name=\"a b\"} 1\n\
             # HELP node_load1 1m load average.\n# TYPE node_load1 gauge\nnode_load1 0.21\n"
        );
    }

    #[test]
    fn label_values_are_escaped() {
        let mut samples = Samples::new();
        samples.push(&INFO, &["say \"a\\b\"\n"], 1.0);
        assert!(page(&samples).ends_with("node_info{name=\"say \\\"a\\\\b\\\"\\n\"} 1\n"));
    }

    #[test]
    fn families_of_one_name_share_a_header_and_shorter_label_sets_come_first() {
        let mut samples = Samples::new();
        let two = samples.dynamic_family("m", "M.", Kind::Untyped, &["a", "b"]);
        samples.push_to(two, &["1", "2"], 1.0);
        let one = samples.dynamic_family("m", "M.", Kind::Untyped, &["z"]);
        samples.push_to(one, &["9"], 2.0);
        assert_eq!(page(&samples), "# HELP m M.\n# TYPE m untyped\nm{z=\"9\"} 2\nm{a=\"1\",b=\"2\"} 1\n");
    }

    #[test]
    fn a_histogram_keeps_its_order() {
        let mut samples = Samples::new();
        let family = samples.dynamic_family("h", "H.", Kind::Histogram, &[]);
        samples.push_part(family, &[], Part::Bucket(0.5), 1.0);
        samples.push_part(family, &[], Part::Bucket(f64::INFINITY), 3.0);
        samples.push_part(family, &[], Part::Sum, 4.5);
        samples.push_part(family, &[], Part::Count, 3.0);
        assert_eq!(
            page(&samples),
            "# HELP h H.\n# TYPE h histogram\nh_bucket{le=\"0.5\"} 1\nh_bucket{le=\"+Inf\"} 3\nh_sum 4.5\nh_count 3\n"
        );
    }

    #[test]
    fn histograms_are_sorted_by_their_labels() {
        let mut samples = Samples::new();
        let family = samples.dynamic_family("h", "H.", Kind::Histogram, &["a"]);
        for (label, sum) in [("2", 2.0), ("1", 1.0)] {
            samples.push_part(family, &[label], Part::Sum, sum);
            samples.push_part(family, &[label], Part::Count, 1.0);
        }
        let expected = "h_sum{a=\"1\"} 1\nh_count{a=\"1\"} 1\nh_sum{a=\"2\"} 2\nh_count{a=\"2\"} 1\n";
        assert_eq!(page(&samples), format!("# HELP h H.\n# TYPE h histogram\n{expected}"));
    }

    #[test]
    fn what_contradicts_or_repeats_is_left_out() {
        let mut samples = Samples::new();
        let stranger = samples.dynamic_family("node_load1", "Another text.", Kind::Gauge, &[]);
        samples.push_to(stranger, &[], 3.0);
        samples.push(&LOAD, &[], 0.21);
        let same = samples.dynamic_family("node_load1", "1m load average.", Kind::Gauge, &[]);
        samples.push_to(same, &[], 4.0);
        let labelled = samples.dynamic_family("node_load1", "1m load average.", Kind::Gauge, &["cpu"]);
        samples.push_to(labelled, &["1"], 5.0);
        let counter = samples.dynamic_family("node_load1", "1m load average.", Kind::Counter, &["cpu"]);
        samples.push_to(counter, &["2"], 6.0);
        let mut page = Vec::new();
        assert_eq!(write(&samples, &mut page), 3);
        assert_eq!(
            String::from_utf8(page).expect("UTF-8"),
            "# HELP node_load1 1m load average.\n# TYPE node_load1 gauge\nnode_load1 0.21\nnode_load1{cpu=\"1\"} 5\n"
        );
    }

    #[test]
    fn a_histogram_said_twice_is_said_once() {
        let mut samples = Samples::new();
        for _ in 0..2 {
            let family = samples.dynamic_family("h", "H.", Kind::Histogram, &[]);
            samples.push_part(family, &[], Part::Sum, 4.5);
            samples.push_part(family, &[], Part::Count, 3.0);
        }
        let mut page = Vec::new();
        assert_eq!(write(&samples, &mut page), 2);
        assert!(page.ends_with(b"\nh_sum 4.5\nh_count 3\n"));
    }
}
