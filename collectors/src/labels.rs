//! Label values that are the same at every scrape, made once.

/// The texts of 0, 1, 2, ...: labels such as `cpu` where the kernel gives only columns or lines.
#[derive(Debug, Default)]
pub struct Numbers(Vec<String>);

impl Numbers {
    /// The texts of the first `count` numbers. `count` is a number of words or lines that were read, so that odd text
    /// makes no more of them than it is long.
    pub fn first(&mut self, count: usize) -> &[String] {
        while self.0.len() < count {
            self.0.push(self.0.len().to_string());
        }
        self.0.get(..count).unwrap_or_default()
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
}
