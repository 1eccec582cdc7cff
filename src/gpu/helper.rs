//! The helper process, from outside: started, talked to, ended, left behind when it can't be ended.

use std::{
    ffi::OsString,
    io,
    os::{
        fd::OwnedFd,
        unix::process::{CommandExt, ExitStatusExt},
    },
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use nodewarden_gpu::protocol::{Report, frame, length};
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe::{Receiver, Sender},
    time::{Instant, sleep},
};

use super::HELPER;

/// How long it may take to end by itself: it gives the driver back what it holds.
const PATIENCE: Duration = Duration::from_millis(1200);
/// How long the kernel may take to end it.
const KILL: Duration = Duration::from_millis(300);
/// How often it is looked for its end.
const LOOK: Duration = Duration::from_millis(10);

/// A running helper.
pub struct Helper {
    child: Child,
    input: Sender,
    output: Receiver,
}

/// A helper that does not end although it was killed: it is in a call of the driver's that can't be interrupted.
pub struct Left(Child);

impl Left {
    /// Its number.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Whether it is still there.
    pub fn is_there(&mut self) -> bool {
        // What can't be waited for is no child of ours any more.
        matches!(self.0.try_wait(), Ok(None))
    }
}

impl Helper {
    /// Starts it: this binary again, whatever has become of its file.
    #[allow(
        clippy::disallowed_methods,
        reason = "it is this program: a driver that hangs must not hang the agent"
    )]
    pub fn start() -> io::Result<Self> {
        let mut child = Command::new("/proc/self/exe")
            .arg0("nodewarden")
            .arg(HELPER)
            // Secrets in the environment are none of the driver's business.
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| is_for_driver(name)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A terminal's Ctrl-C is for the agent, which ends it in order.
            .process_group(0)
            .spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("it has no pipes"));
        };
        let input = Sender::from_owned_fd(OwnedFd::from(input))?;
        let output = Receiver::from_owned_fd(OwnedFd::from(output))?;
        Ok(Self { child, input, output })
    }

    /// Says something to it.
    pub async fn tell(&mut self, message: &impl Serialize) -> io::Result<()> {
        self.input.write_all(&frame(message)?).await
    }

    /// What it says next.
    pub async fn hear(&mut self) -> io::Result<Report> {
        let mut head = [0; 4];
        self.output.read_exact(&mut head).await?;
        let mut body = vec![0; length(head)?];
        self.output.read_exact(&mut body).await?;
        Ok(serde_json::from_slice(&body)?)
    }

    /// Ends it: it is asked, then killed, and its end is waited for, but not for ever. How it ended, or what is left of it.
    pub async fn end(self) -> Result<Option<ExitStatus>, Left> {
        let Self { mut child, input, output } = self;
        // The end of its input asks it to end.
        drop(input);
        let ended = wait(&mut child, PATIENCE).await;
        drop(output);
        if ended.is_some() {
            return Ok(ended);
        }
        if let Err(error) = child.kill() {
            tracing::debug!(%error, "the GPU helper process can't be killed");
        }
        match wait(&mut child, KILL).await {
            Some(status) => Ok(Some(status)),
            None => Err(Left(child)),
        }
    }
}

async fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let until = Instant::now() + patience;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            // Then it is no child of ours any more.
            Err(_) => return Some(ExitStatus::from_raw(0)),
            Ok(None) if Instant::now() >= until => return None,
            Ok(None) => sleep(LOOK).await,
        }
    }
}

/// What the loader and NVIDIA's library look at.
fn is_for_driver(name: &OsString) -> bool {
    let name = name.to_string_lossy();
    name == "LD_LIBRARY_PATH" || name.starts_with("NVIDIA_") || name.starts_with("__NV")
}
