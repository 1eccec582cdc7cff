//! A bucket of requests that fills up over time.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::rules::Rate;

/// Says whether one more request may be answered.
#[derive(Debug)]
pub struct Limiter {
    rate: Rate,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    /// Requests that may come at once.
    left: f64,
    since: Instant,
}

impl Limiter {
    /// A full bucket.
    pub fn new(rate: Rate) -> Self {
        let bucket = Bucket { left: rate.burst as f64, since: Instant::now() };
        Self { rate, bucket: Mutex::new(bucket) }
    }

    /// Whether one may be answered now; it is counted.
    pub fn allows(&self) -> bool {
        self.allows_at(Instant::now())
    }

    fn allows_at(&self, now: Instant) -> bool {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = now.saturating_duration_since(bucket.since);
        bucket.left = (bucket.left + self.earned(waited)).min(self.rate.burst as f64);
        bucket.since = now.max(bucket.since);
        let allows = bucket.left >= 1.0;
        if allows {
            bucket.left -= 1.0;
        }
        allows
    }

    fn earned(&self, waited: Duration) -> f64 {
        waited.as_secs_f64() / self.rate.interval.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_allowed_and_then_one_per_interval() {
        let limiter = Limiter::new(Rate { interval: Duration::from_secs(2), burst: 3 });
        let start = Instant::now();
        let at = |seconds| limiter.allows_at(start + Duration::from_secs(seconds));
        assert!(at(0) && at(0) && at(0) && !at(0));
        assert!(!at(1) && at(3) && !at(3));
        // What is saved up does not grow beyond the burst.
        assert!(at(100) && at(100) && at(100) && !at(100));
        assert!(!at(50), "a clock that went back gives nothing away");
    }

    #[test]
    fn without_a_burst_nothing_is_allowed() {
        let limiter = Limiter::new(Rate { interval: Duration::from_millis(1), burst: 0 });
        assert!(!limiter.allows_at(Instant::now() + Duration::from_secs(9)));
    }
}
