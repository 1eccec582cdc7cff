//! Prints samples as an exposition page (Prometheus text format 0.0.4), byte for byte as Go's expfmt prints them.
//!
//! The `prometheus` crate's encoder refuses untyped families and prints floats as Rust does, so the page has its own.

use std::{cmp::Ordering, io::Write, ops::Range};

use crate::samples::{Family, Part, Sample, Samples};

/// The content type of such a page, as node_exporter 1.12 gives it.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

/// Appends the page to `page`: families by name, series by number of labels and label values.
pub fn write(samples: &Samples, page: &mut Vec<u8>) {
    let mut order: Vec<u32> = (0..samples.samples.len() as u32).collect();
    let ranks = family_ranks(samples);
    let rank = |at: &u32| ranks[samples.samples[*at as usize].family as usize];
    order.sort_by(|left, right| {
        rank(left).cmp(&rank(right)).then_with(|| compare_series(samples, *left as usize, *right as usize))
    });
    let mut current = u32::MAX;
    let mut name_range = Range::default();
    for at in order {
        let sample = &samples.samples[at as usize];
        let family = &samples.families[sample.family as usize];
        let family_rank = ranks[sample.family as usize];
        if family_rank != current {
            current = family_rank;
            name_range = write_header(family, page);
        }
        write_sample(samples, family, sample, name_range.clone(), page);
    }
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

/// The order of two series of one family; histograms and summaries keep the order they were said in.
fn compare_series(samples: &Samples, left: usize, right: usize) -> Ordering {
    let (left, right) = (&samples.samples[left], &samples.samples[right]);
    if left.part != Part::Value || right.part != Part::Value {
        return Ordering::Equal;
    }
    left.label_count.cmp(&right.label_count).then_with(|| {
        let values =
            |sample: &Sample| &samples.values[sample.values.start as usize..sample.values.end as usize];
        values(left).cmp(values(right))
    })
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

fn write_sample(samples: &Samples, family: &Family, sample: &Sample, name: Range<usize>, page: &mut Vec<u8>) {
    page.extend_from_within(name);
    let bound = match sample.part {
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
    if sample.label_count > 0 || bound.is_some() {
        page.push(b'{');
        write_labels(samples, family, sample, page);
        if let Some((label, bound)) = bound {
            if sample.label_count > 0 {
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
    let mut rest = &samples.values[sample.values.start as usize..sample.values.end as usize];
    for at in 0..sample.label_count as usize {
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
    if value == 0.0 {
        page.extend_from_slice(if value.is_sign_negative() { b"-0" } else { b"0" });
        return;
    }
    if value.abs() < 1e6 && value.fract() == 0.0 {
        write_integer(value as i64, page);
        return;
    }
    write_shortest(value, page);
}

fn write_integer(value: i64, page: &mut Vec<u8>) {
    if value < 0 {
        page.push(b'-');
    }
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    page.extend_from_slice(&digits[at..]);
}

fn write_shortest(value: f64, page: &mut Vec<u8>) {
    let mut scientific = [0; 32];
    let mut cursor = &mut scientific[..];
    // `{:e}` gives the shortest digits as D.DDDeX; 17 digits, a sign, a point and `e-308` fit into 32 bytes.
    let written = write!(cursor, "{value:e}").is_ok();
    debug_assert!(written, "32 bytes hold any float");
    let free = cursor.len();
    let text = &scientific[..32 - free];
    let (mantissa, exponent) = match memchr::memchr(b'e', text) {
        Some(at) => (&text[..at], parse_exponent(&text[at + 1..])),
        None => (text, 0),
    };
    if !(-4..6).contains(&exponent) {
        page.extend_from_slice(mantissa);
        page.push(b'e');
        page.push(if exponent < 0 { b'-' } else { b'+' });
        let magnitude = exponent.abs();
        if magnitude < 10 {
            page.push(b'0');
        }
        write_integer(i64::from(magnitude), page);
        return;
    }
    let digits = mantissa.iter().copied().filter(u8::is_ascii_digit);
    if mantissa[0] == b'-' {
        page.push(b'-');
    }
    if exponent < 0 {
        page.extend_from_slice(b"0.");
        page.extend(std::iter::repeat_n(b'0', (-exponent - 1) as usize));
        page.extend(digits);
        return;
    }
    // Whole numbers below 1e6 went another way, so there are more digits than places before the point.
    for (place, digit) in digits.enumerate() {
        if place == exponent as usize + 1 {
            page.push(b'.');
        }
        page.push(digit);
    }
}

fn parse_exponent(text: &[u8]) -> i32 {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{Desc, Kind};

    fn number(value: f64) -> String {
        let mut page = Vec::new();
        write_number(value, &mut page);
        String::from_utf8(page).expect("ASCII")
    }

    #[test]
    fn numbers_are_printed_as_go_prints_them() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
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

    static LOAD: Desc = Desc::gauge("node_load1", "1m load average.", &[]);
    static INFO: Desc = Desc::gauge("node_info", "A \\ and a\nnewline, a \" as it is.", &["name"]);

    fn page(samples: &Samples) -> String {
        let mut page = Vec::new();
        write(samples, &mut page);
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
}
