//! Sockets that systemd made and hands over, for `--web.systemd-socket`.

use std::{io, net::TcpListener, os::unix::net::UnixListener};

use listenfd::ListenFd;

/// A socket to take connections from.
#[derive(Debug)]
pub enum Socket {
    /// Of an address and port.
    Tcp(TcpListener),
    /// Of a path.
    Unix(UnixListener),
}

/// Why the sockets can't be taken.
#[derive(Debug, thiserror::Error)]
pub enum HandedError {
    /// There are none.
    #[error(
        "systemd handed over no socket (LISTEN_FDS and LISTEN_PID say so); start it by its .socket unit, or remove --web.systemd-socket"
    )]
    None,
    /// One of another kind, such as a datagram socket.
    #[error(
        "descriptor {0} that systemd handed over is not a listening stream socket of an address or a path; use ListenStream= in the .socket unit"
    )]
    Odd(usize),
    /// The kernel refused.
    #[error("could not take the sockets that systemd handed over: {0}")]
    Io(#[from] io::Error),
}

/// The sockets that this process was started with.
pub fn handed_over() -> Result<Vec<Socket>, HandedError> {
    /// Below are standard input, output and error.
    const FIRST: usize = 3;
    let mut handed = ListenFd::from_env();
    let mut sockets = Vec::new();
    for at in 0..handed.len() {
        let socket = match (handed.take_tcp_listener(at), handed.take_unix_listener(at)) {
            (Ok(Some(tcp)), _) => Socket::Tcp(tcp),
            (_, Ok(Some(unix))) => Socket::Unix(unix),
            _ => return Err(HandedError::Odd(FIRST + at)),
        };
        socket.prepare().map_err(|error| {
            if error.kind() == io::ErrorKind::InvalidInput {
                HandedError::Odd(FIRST + at)
            } else {
                error.into()
            }
        })?;
        sockets.push(socket);
    }
    if sockets.is_empty() { Err(HandedError::None) } else { Ok(sockets) }
}

impl Socket {
    fn prepare(&self) -> io::Result<()> {
        let listens = match self {
            Self::Tcp(socket) => {
                socket.set_nonblocking(true)?;
                rustix::net::sockopt::socket_acceptconn(socket)?
            }
            Self::Unix(socket) => {
                socket.set_nonblocking(true)?;
                rustix::net::sockopt::socket_acceptconn(socket)?
            }
        };
        if listens { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }

    /// Where it is, for people.
    pub fn address(&self) -> String {
        match self {
            Self::Tcp(socket) => socket.local_addr().map_or_else(|_| String::new(), |at| at.to_string()),
            Self::Unix(socket) => {
                let at = socket.local_addr().ok();
                let path = at.as_ref().and_then(|at| at.as_pathname());
                path.map_or_else(|| "unix socket without a name".into(), |path| path.display().to_string())
            }
        }
    }
}
