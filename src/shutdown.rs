//! The one signal that ends the agent.

use std::io;

use tokio::{
    select,
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing::info;

/// Makes the two ends.
pub fn channel() -> (Trigger, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    (Trigger(sender), Shutdown(receiver))
}

/// The end that asks everybody to stop. Dropping it asks too: nobody would be left to do it.
#[derive(Debug)]
pub struct Trigger(watch::Sender<bool>);

/// The end that waits; every part has a clone.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<bool>);

impl Trigger {
    /// Asks everybody to stop.
    pub fn fire(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// Returns once everybody is asked to stop.
    pub async fn requested(&mut self) {
        // The error says that the trigger is gone, which means the same.
        let _ = self.0.wait_for(|fired| *fired).await;
    }

    /// Whether everybody is asked to stop.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}

/// Waits for SIGTERM or SIGINT. From the call on the two no longer kill the process, so call it before anything that
/// needs an orderly end is started.
pub fn signals() -> io::Result<impl Future<Output = ()> + Send> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        let signal = select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        info!(signal, "stopping");
    })
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    #[tokio::test]
    async fn every_clone_is_told() {
        let (trigger, shutdown) = channel();
        let (mut first, mut second) = (shutdown.clone(), shutdown);
        assert!(!first.is_requested());
        trigger.fire();
        first.requested().await;
        second.requested().await;
        assert!(second.is_requested());
    }

    #[tokio::test]
    async fn a_lost_trigger_stops_everybody() {
        let (trigger, mut shutdown) = channel();
        drop(trigger);
        assert!(shutdown.is_requested());
        shutdown.requested().await;
    }

    #[tokio::test]
    async fn the_signal_to_terminate_is_heard() {
        let heard = signals().expect("handlers");
        kill_process(getpid(), Signal::TERM).expect("sent to ourselves");
        heard.await;
    }
}
