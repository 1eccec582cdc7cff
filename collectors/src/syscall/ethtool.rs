//! `SIOCETHTOOL`: what the driver of a network interface says of it.

use std::{ffi::c_void, io, ptr, slice};

use rustix::{
    fd::OwnedFd,
    ioctl::{self, Opcode, Updater},
    mm::{MapFlags, MprotectFlags, ProtFlags},
    net::{AddressFamily, SocketFlags, SocketType},
};

const SIOCETHTOOL: Opcode = 0x8946;

/// The longest name of an interface, with the NUL behind it.
const NAME: usize = 16;

/// The most statistics of one interface that there is room for.
pub const MOST_STATISTICS: u32 = 32 * 1024;

/// A name of a statistic, padded with NULs.
pub const STATISTIC_NAME: usize = 32;

/// Room for that many names behind their header.
const ROOM: usize = MOST_STATISTICS as usize * STATISTIC_NAME + 4096;

/// What can be asked. Nothing that changes the device is among it.
#[derive(Debug, Clone, Copy)]
pub enum Question {
    /// `ETHTOOL_GSET`, answered with `struct ethtool_cmd`.
    Settings,
    /// `ETHTOOL_GDRVINFO`, answered with `struct ethtool_drvinfo`.
    Driver,
    /// `ETHTOOL_GSTRINGS` of the statistics, answered with `struct ethtool_gstrings`.
    StatisticNames(u32),
    /// `ETHTOOL_GSTATS`, answered with `struct ethtool_stats`.
    Statistics(u32),
}

impl Question {
    /// The words that the answer's structure begins with.
    fn words(self) -> [u32; 3] {
        /// `ETH_SS_STATS`
        const STATISTICS: u32 = 1;
        match self {
            Self::Settings => [0x01, 0, 0],
            Self::Driver => [0x03, 0, 0],
            Self::StatisticNames(count) => [0x1b, STATISTICS, count],
            Self::Statistics(count) => [0x1d, count, 0],
        }
    }
}

/// `struct ifreq`, as this call uses it.
#[repr(C)]
struct Request {
    name: [u8; NAME],
    data: *mut c_void,
    /// The kernel copies as much as its largest variant has, whatever it needs.
    rest: [u8; 16],
}

/// A socket to ask through, and the memory that the kernel answers into.
#[derive(Debug)]
pub struct Ethtool {
    socket: OwnedFd,
    answer: Answer,
}

impl Ethtool {
    /// Opens the socket; any kind of socket does.
    pub fn open() -> io::Result<Self> {
        let socket =
            rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        Ok(Self { socket, answer: Answer::new()? })
    }

    /// Asks the driver of `interface`. The answer is the structure of the question, and behind it what is left of
    /// older answers.
    pub fn ask(&mut self, interface: &str, question: Question) -> io::Result<&[u8]> {
        let mut request = Request { name: [0; NAME], data: self.answer.start, rest: [0; 16] };
        let name = interface.as_bytes();
        match request.name.get_mut(..name.len()) {
            Some(place) if name.len() < NAME => place.copy_from_slice(name),
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        }
        let bytes = self.answer.bytes_mut();
        for (place, word) in bytes.as_chunks_mut().0.iter_mut().zip(question.words()) {
            *place = word.to_ne_bytes();
        }
        // SAFETY: the kernel reads and writes `request`, which has the size of its structure or more, and what `data`
        // points to. There it writes as many statistics or names as the driver has at this moment, whatever count it
        // was told; what is more than the room is stopped by the page behind it, which nobody may write to. No
        // reference to that memory is alive during the call.
        unsafe { ioctl::ioctl(&self.socket, Updater::<SIOCETHTOOL, Request>::new(&mut request))? };
        Ok(self.answer.bytes_mut())
    }
}

/// Memory of its own that ends at a page which can't be written to. Only pages that were written to take up memory.
#[derive(Debug)]
struct Answer {
    start: *mut c_void,
    length: usize,
}

// SAFETY: the memory belongs to this value alone and to no thread.
unsafe impl Send for Answer {}

impl Answer {
    fn new() -> io::Result<Self> {
        let page = rustix::param::page_size();
        let room = ROOM.next_multiple_of(page);
        let length = room + page;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses a place where nothing is.
        let start =
            unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), length, access, MapFlags::PRIVATE)? };
        let answer = Self { start, length };
        // SAFETY: the last page lies within the mapping, and nothing refers to it.
        unsafe { rustix::mm::mprotect(start.byte_add(room), page, MprotectFlags::empty())? };
        Ok(answer)
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: so many bytes of the mapping are readable and writable, began as zeros, are only reached through
        // this value, and stay mapped as long as it lives.
        unsafe { slice::from_raw_parts_mut(self.start.cast(), ROOM) }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `new` with this length, and references to it have ended with the value.
        // It can only fail for a place that is no mapping, and then there is nothing to undo.
        let _ = unsafe { rustix::mm::munmap(self.start, self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_the_error_of_the_kernel() {
        let mut ethtool = Ethtool::open().expect("a socket");
        let error = ethtool.ask("lo", Question::Settings).expect_err("the loopback has none");
        assert_eq!(error.raw_os_error(), Some(95));
    }

    #[test]
    fn an_answer_ends_where_nobody_may_write() {
        let mut answer = Answer::new().expect("mapped");
        let page = rustix::param::page_size();
        assert!(answer.length >= ROOM + page);
        assert_eq!(answer.length % page, 0);
        let bytes = answer.bytes_mut();
        bytes[ROOM - 1] = 1;
        assert_eq!(bytes[0], 0);
    }

    #[test]
    fn names_of_no_interface_are_refused() {
        let mut ethtool = Ethtool::open().expect("a socket");
        let error = ethtool.ask("no-such-device", Question::Driver).expect_err("it is not there");
        assert_eq!(error.raw_os_error(), Some(19));
        for name in ["0123456789abcdef", "a-name-that-is-far-too-long-for-an-interface"] {
            let error = ethtool.ask(name, Question::Driver).expect_err("too long");
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
    }
}
