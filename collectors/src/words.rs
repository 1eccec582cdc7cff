//! Numbers in the words of a kernel's line.

/// As many numbers as are asked for, and no more.
pub fn exactly<'a, const N: usize>(words: impl Iterator<Item = &'a str>) -> Option<[u64; N]> {
    let (numbers, count) = read(words)?;
    (count == N).then_some(numbers)
}

/// Numbers after their own count, at least `least` of them; those beyond the ones asked for are left out.
pub fn counted<'a, const N: usize>(
    mut words: impl Iterator<Item = &'a str>,
    least: usize,
) -> Option<[u64; N]> {
    let said: usize = words.next()?.parse().ok()?;
    let (numbers, count) = read(words)?;
    (count == said && count >= least).then_some(numbers)
}

/// The first numbers of a line and how many there are.
pub fn read<'a, const N: usize>(words: impl Iterator<Item = &'a str>) -> Option<([u64; N], usize)> {
    let mut numbers = [0; N];
    let mut count = 0;
    for word in words {
        let number = word.parse().ok()?;
        if let Some(place) = numbers.get_mut(count) {
            *place = number;
        }
        count += 1;
    }
    Some((numbers, count))
}

/// The digits that `text` begins with.
pub fn digits(text: &str) -> &str {
    text.split_once(|char: char| !char.is_ascii_digit()).map_or(text, |(digits, _)| digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_numbers_that_are_asked_for() {
        assert_eq!(exactly("1 2".split(' ')), Some([1, 2]));
        assert_eq!(exactly::<2>("1 2 3".split(' ')), None);
        assert_eq!(exactly::<2>("1 x".split(' ')), None);
        assert_eq!(read("1 2 3".split(' ')), Some(([1, 2], 3)));
        assert_eq!(counted("3 7 8 9".split(' '), 2), Some([7, 8]));
        assert_eq!(counted::<2>("4 7 8 9".split(' '), 2), None);
        assert_eq!(counted::<2>("1 7".split(' '), 2), None);
    }

    #[test]
    fn digits_end_at_the_first_other_character() {
        assert_eq!((digits("12\u{e9}4"), digits("7"), digits("x")), ("12", "7", ""));
    }
}
