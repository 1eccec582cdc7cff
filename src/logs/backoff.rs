//! How long to wait before trying again.

use std::time::Duration;

/// Exponential back-off with full jitter: each wait is anything between nothing and a bound that doubles up to a cap, so
/// that ten thousand agents do not come back in the same second.
#[derive(Debug, Clone)]
pub struct Backoff {
    bound: Duration,
    cap: Duration,
    random: u64,
}

impl Backoff {
    /// Starts at `first` and stays below `cap`; `seed` is the chance in it.
    pub fn new(first: Duration, cap: Duration, seed: u64) -> Self {
        Self { bound: first.min(cap), cap, random: seed }
    }

    /// The next wait.
    pub fn next_wait(&mut self) -> Duration {
        let share = self.next_random() as f64 / u64::MAX as f64;
        let wait = self.bound.mul_f64(share);
        self.bound = (self.bound * 2).min(self.cap);
        wait
    }

    /// SplitMix64 (Steele, Lea, Flood 2014): good enough to spread waits.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn waits_stay_below_a_doubling_bound(seed: u64, first_ms in 1_u64..1000, cap_ms in 1_u64..60_000) {
            let (first, cap) = (Duration::from_millis(first_ms), Duration::from_millis(cap_ms));
            let mut backoff = Backoff::new(first, cap, seed);
            for doublings in 0..20 {
                let bound = (first * 2_u32.pow(doublings)).min(cap);
                prop_assert!(backoff.next_wait() <= bound);
            }
        }
    }

    #[test]
    fn two_agents_do_not_wait_alike() {
        let waits = |seed| {
            let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30), seed);
            (0..4).map(|_| backoff.next_wait()).collect::<Vec<_>>()
        };
        assert_ne!(waits(1), waits(2));
    }
}
