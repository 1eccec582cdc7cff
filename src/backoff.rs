//! How long to wait before trying again.

use std::time::Duration;

/// Exponential back-off with full jitter: each wait is anything between nothing and a bound that doubles up to a cap, so
/// that ten thousand agents do not come back in the same second.
#[derive(Debug, Clone)]
pub struct Backoff {
    bound: Duration,
    cap: Duration,
    random: Random,
}

impl Backoff {
    /// Starts at `first` and stays below `cap`; `seed` is the chance in it.
    pub fn new(first: Duration, cap: Duration, seed: u64) -> Self {
        Self { bound: first.min(cap), cap, random: Random(seed) }
    }

    /// The next wait.
    pub fn next_wait(&mut self) -> Duration {
        let wait = self.bound.mul_f64(self.random.share());
        self.bound = (self.bound * 2).min(self.cap);
        wait
    }
}

/// Chance that is good enough to spread waits and choices: SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Another one in each agent.
    pub fn new() -> Self {
        Self(seed())
    }

    /// Anything from nothing to 1.
    pub fn share(&mut self) -> f64 {
        self.number() as f64 / u64::MAX as f64
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Default for Random {
    fn default() -> Self {
        Self::new()
    }
}

/// Chance for the waits; without any, agents only spread less well.
pub fn seed() -> u64 {
    let mut bytes = [0; 8];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(_) => u64::from_ne_bytes(bytes),
        Err(_) => u64::from(std::process::id()),
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
