//! What the other threads tell the reader, who sleeps in `poll` and not in a channel.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, mpsc},
};

use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::oneshot;

use super::{batch::Batch, status::FileStatus};

/// A message to the reader.
#[derive(Debug)]
pub enum Mail {
    /// Everything in this batch is where it has to be, but for what the sink holds.
    Confirmed(Batch),
    /// Somebody wants the table of files.
    Files(oneshot::Sender<Vec<FileStatus>>),
    /// The cluster says something new of the pods with these uids.
    Pods(Vec<String>),
    /// Read no more; what was read goes out.
    Stop,
    /// Nothing will be confirmed any more: write the positions and end.
    Finish,
}

/// The sending side; cheap to clone.
#[derive(Debug, Clone)]
pub struct Sender {
    messages: mpsc::Sender<Mail>,
    bell: Arc<OwnedFd>,
}

/// The reader's side.
#[derive(Debug)]
pub struct Mailbox {
    messages: mpsc::Receiver<Mail>,
    bell: Arc<OwnedFd>,
}

/// A new mailbox with its first sender.
pub fn mailbox() -> io::Result<(Sender, Mailbox)> {
    let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let (sender, receiver) = mpsc::channel();
    Ok((Sender { messages: sender, bell: Arc::clone(&bell) }, Mailbox { messages: receiver, bell }))
}

impl Sender {
    /// Sends a message; whether the reader is still there.
    pub fn send(&self, mail: Mail) -> bool {
        let sent = self.messages.send(mail).is_ok();
        // The only failure is a full counter, and then the bell has rung already.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
        sent
    }

    /// The table of files as it is now; `None` when the reader has ended.
    pub async fn files(&self) -> Option<Vec<FileStatus>> {
        let (reply, files) = oneshot::channel();
        self.send(Mail::Files(reply));
        files.await.ok()
    }
}

impl Mailbox {
    /// The next message, if there is one.
    pub fn take(&self) -> Option<Mail> {
        self.messages.try_recv().ok()
    }

    /// What to poll for readability; it stays readable until [`Self::hush`].
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Stops the bell. Messages sent from now on ring it again, so take them all after this.
    pub fn hush(&self) {
        // A bell that did not ring answers EAGAIN.
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
    }
}

#[cfg(test)]
mod tests {
    use rustix::{
        event::{PollFd, PollFlags, Timespec, poll},
        io::Errno,
    };

    use super::*;

    fn rings(mailbox: &Mailbox) -> Result<bool, Errno> {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::from_borrowed_fd(mailbox.fd(), PollFlags::IN)], Some(&at_once))
            .map(|ready| ready > 0)
    }

    #[test]
    fn the_bell_rings_until_it_is_hushed() {
        let (sender, mailbox) = mailbox().expect("an eventfd");
        assert_eq!(rings(&mailbox), Ok(false));
        assert!(sender.send(Mail::Stop) && sender.send(Mail::Finish));
        assert_eq!(rings(&mailbox), Ok(true));
        mailbox.hush();
        assert_eq!(rings(&mailbox), Ok(false));
        assert!(matches!(mailbox.take(), Some(Mail::Stop)));
        assert!(matches!(mailbox.take(), Some(Mail::Finish)));
        assert!(mailbox.take().is_none());
    }

    #[tokio::test]
    async fn nobody_waits_for_a_reader_that_has_ended() {
        let (sender, mailbox) = mailbox().expect("an eventfd");
        drop(mailbox);
        assert!(!sender.send(Mail::Stop));
        assert_eq!(sender.files().await, None);
    }
}
