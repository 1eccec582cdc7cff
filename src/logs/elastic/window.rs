//! How many bulk requests may be on their way at once.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Grows by one with each round of good answers, halves when the server says that it is busy, and never leaves its bounds:
/// an agent starts with a single request, so that ten thousand of them do not overrun the server they share.
///
/// Who waits before trying again has no request on its way: what is held for its own reasons holds up nobody else.
#[derive(Debug)]
pub struct Window {
    state: Mutex<State>,
    most: usize,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    size: f64,
    taken: usize,
}

/// The right to have a request on its way, until it is dropped.
#[derive(Debug)]
pub struct Pass<'a>(&'a Window);

impl Window {
    /// Starts at 1 and grows up to `most`.
    pub fn new(most: usize) -> Self {
        let state = Mutex::new(State { size: 1.0, taken: 0 });
        Self { state, most: most.max(1), changed: Notify::new() }
    }

    /// Waits until one more request may be sent.
    pub async fn enter(&self) -> Pass<'_> {
        loop {
            let changed = self.changed.notified();
            if let Some(pass) = self.try_enter() {
                return pass;
            }
            changed.await;
        }
    }

    fn try_enter(&self) -> Option<Pass<'_>> {
        let mut state = self.lock();
        if state.taken >= state.size as usize {
            return None;
        }
        state.taken += 1;
        Some(Pass(self))
    }

    /// A request was answered well.
    pub fn good(&self) {
        let mut state = self.lock();
        state.size = (state.size + 1.0 / state.size).min(self.most as f64);
        drop(state);
        self.changed.notify_waiters();
    }

    /// The server was too busy, or not there.
    pub fn busy(&self) {
        let mut state = self.lock();
        state.size = (state.size / 2.0).max(1.0);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.0.lock().taken -= 1;
        self.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(window: &Window) -> usize {
        let passes: Vec<_> = std::iter::from_fn(|| window.try_enter()).collect();
        passes.len()
    }

    #[test]
    fn it_grows_slowly_and_halves_at_once() {
        let window = Window::new(4);
        assert_eq!(size(&window), 1);
        for _ in 0..20 {
            window.good();
        }
        assert_eq!(size(&window), 4);
        window.busy();
        assert_eq!(size(&window), 2);
        for _ in 0..5 {
            window.busy();
        }
        assert_eq!(size(&window), 1);
    }

    #[tokio::test]
    async fn the_next_one_enters_when_one_is_done() {
        let window = Window::new(1);
        let pass = window.enter().await;
        let leave = async { drop(pass) };
        tokio::join!(window.enter(), leave);
    }
}
