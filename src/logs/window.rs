//! How many bulk requests may be on their way at once.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Grows by one with each round of good answers, halves when the server says that it is busy, and never leaves its bounds:
/// an agent starts with a single request, so that ten thousand of them do not overrun the server they share.
#[derive(Debug)]
pub struct Window {
    size: Mutex<f64>,
    most: usize,
}

impl Window {
    /// Starts at 1 and grows up to `most`.
    pub fn new(most: usize) -> Self {
        Self { size: Mutex::new(1.0), most: most.max(1) }
    }

    /// Requests allowed at once.
    pub fn size(&self) -> usize {
        *self.lock() as usize
    }

    /// A request was answered well.
    pub fn good(&self) {
        let mut size = self.lock();
        *size = (*size + 1.0 / *size).min(self.most as f64);
    }

    /// The server was too busy, or not there.
    pub fn busy(&self) {
        let mut size = self.lock();
        *size = (*size / 2.0).max(1.0);
    }

    fn lock(&self) -> MutexGuard<'_, f64> {
        self.size.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_slowly_and_halves_at_once() {
        let window = Window::new(4);
        assert_eq!(window.size(), 1);
        for _ in 0..20 {
            window.good();
        }
        assert_eq!(window.size(), 4);
        window.busy();
        assert_eq!(window.size(), 2);
        for _ in 0..5 {
            window.busy();
        }
        assert_eq!(window.size(), 1);
    }
}
