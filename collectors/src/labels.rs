//! Label values that are the same at every scrape, made once.

/// The texts of 0, 1, 2, ...: labels such as `cpu` where the kernel gives only columns or lines.
///
/// How many are asked for is a number of words or lines that were read, so that odd text makes no more of them than it is
/// long.
#[derive(Debug, Default)]
pub struct Numbers {
    texts: Vec<String>,
    /// The numbers in the order of their texts, as many as were asked for last.
    order: Vec<usize>,
}

impl Numbers {
    /// The texts of the first `count` numbers.
    pub fn first(&mut self, count: usize) -> &[String] {
        while self.texts.len() < count {
            self.texts.push(self.texts.len().to_string());
        }
        self.texts.get(..count).unwrap_or_default()
    }

    /// The first `count` numbers with their texts, in the order in which the page lists them: 0, 1, 10, 11, 2. Samples that
    /// are said in that order need no sorting, which with one for each CPU would cost more than all the rest.
    pub fn first_by_text(&mut self, count: usize) -> impl Iterator<Item = (usize, &str)> {
        if self.order.len() != count {
            self.first(count);
            self.order = (0..count).collect();
            self.order.sort_by(|left, right| self.texts.get(*left).cmp(&self.texts.get(*right)));
        }
        self.order.iter().filter_map(|&number| Some((number, self.texts.get(number)?.as_str())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_counted_from_zero() {
        let mut numbers = Numbers::default();
        assert_eq!(numbers.first(3), ["0", "1", "2"]);
        assert_eq!(numbers.first(1), ["0"]);
        assert!(numbers.first(0).is_empty());
    }

    #[test]
    fn texts_can_be_had_in_their_order() {
        let mut numbers = Numbers::default();
        for count in [12, 2, 0, 11] {
            let found: Vec<(usize, String)> =
                numbers.first_by_text(count).map(|(number, text)| (number, text.to_owned())).collect();
            let mut expected: Vec<(usize, String)> =
                (0..count).map(|number| (number, number.to_string())).collect();
            expected.sort_by(|left, right| left.1.cmp(&right.1));
            assert_eq!(found, expected);
        }
    }
}
