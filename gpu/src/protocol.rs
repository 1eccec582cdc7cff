//! What the agent and the helper process say to each other: frames of a length and JSON over the helper's standard input and
//! output. Both ends are the same build of one binary, so there are no versions.
//!
//! The agent sends one [`Order`], then a [`Request`] per cycle; the helper answers the order and each request with one
//! [`Report`]. When its input ends, the helper ends.

use std::{
    io::{self, Read, Write},
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{fields::FieldId, nvml::Code};

/// The longest frame: a thousand processes on each of sixteen GPUs take a few hundred KiB.
pub const LONGEST: usize = 8 << 20;

/// What the helper is told at first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Where the library may be, in the order in which it is tried.
    pub libraries: Vec<PathBuf>,
    /// What is wanted of each GPU.
    pub fields: Vec<FieldId>,
    /// The time from one cycle to the next.
    pub interval: Duration,
    /// How long a cycle may take before the GPUs that did not answer are left out of it.
    pub deadline: Duration,
}

/// One cycle is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// GPUs that are left alone this time.
    pub skip: Vec<u32>,
}

/// What the helper says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Report {
    /// The session stands.
    Ready(Session),
    /// There is none, and the helper ends.
    Failed {
        /// What is wrong.
        obstacle: Obstacle,
        /// In words.
        reason: String,
    },
    /// A cycle.
    Cycle(Cycle),
}

/// Why there is no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Obstacle {
    /// There is no library.
    NoLibrary,
    /// The kernel module is not loaded.
    NotLoaded,
    /// Library and kernel module are of two versions.
    Mismatch,
    /// The devices may not be opened.
    NoPermission,
    /// Anything else.
    Other,
}

impl Obstacle {
    /// What a code at the start of a session means.
    pub fn of(code: Code) -> Self {
        match code {
            Code::DRIVER_NOT_LOADED => Self::NotLoaded,
            Code::VERSION_MISMATCH => Self::Mismatch,
            Code::NO_PERMISSION => Self::NoPermission,
            Code::LIBRARY_NOT_FOUND => Self::NoLibrary,
            _ => Self::Other,
        }
    }
}

/// A session with the driver.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The library that was loaded.
    pub library: PathBuf,
    /// The driver's version.
    pub driver: String,
    /// The GPUs that can be seen.
    pub gpus: Vec<Identity>,
    /// Those that could not be opened.
    pub refused: Vec<(u32, Code)>,
}

/// Who a GPU is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// NVML's number.
    pub index: u32,
    /// `GPU-…`.
    pub uuid: String,
    /// `00000000:3B:00.0`.
    pub bus_id: String,
    /// `NVIDIA H200`.
    pub model: String,
    /// What it is, by the names of [`crate::fields::LABELS`].
    pub labels: Vec<(String, String)>,
}

/// One cycle over all GPUs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Cycle {
    /// Each GPU's part.
    pub gpus: Vec<(u32, Outcome)>,
    /// XIDs since the cycle before.
    pub xids: Vec<Xid>,
    /// Calls that failed since then, with the number of times.
    pub errors: Vec<(String, Code, u64)>,
    /// Nothing more is to be expected of this session: the helper ends.
    pub is_last: bool,
}

/// How it went with a GPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// Its values.
    Read(Box<Reading>),
    /// It can't be read.
    Failed(Code),
    /// A call does not return.
    Stuck,
    /// It was left alone.
    Skipped,
}

/// The values of a GPU.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Of the GPU as a whole.
    pub values: Vec<(FieldId, f64)>,
    /// Of its instances; `None` when it is not divided.
    pub instances: Option<Vec<Instance>>,
    /// How the other GPUs are reached, by their numbers.
    pub peers: Vec<(u32, u32)>,
    /// Why clocks are low, as bits.
    pub clock_reasons: Option<u64>,
    /// Who uses its memory, in bytes.
    pub processes: Vec<(u32, u64)>,
}

/// A GPU instance.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// NVML's number.
    pub id: u32,
    /// `1g.18gb`.
    pub profile: String,
    /// The MIG devices in it, `MIG-…`.
    pub uuids: Vec<String>,
    /// Its values.
    pub values: Vec<(FieldId, f64)>,
    /// Who uses its memory, in bytes.
    pub processes: Vec<(u32, u64)>,
}

/// An XID that NVML told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Xid {
    /// Whose.
    pub gpu: u32,
    /// The GPU instance, when it was only that.
    pub instance: Option<u32>,
    /// Which.
    pub code: u64,
}

/// Writes a frame.
pub fn write<T: Serialize>(to: &mut impl Write, message: &T) -> io::Result<()> {
    to.write_all(&frame(message)?)?;
    to.flush()
}

/// A frame as it is sent.
pub fn frame<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = u32::try_from(frame.len() - 4).map_err(io::Error::other)?;
    frame[..4].copy_from_slice(&length.to_le_bytes());
    Ok(frame)
}

/// Reads a frame; `None` when the other end is gone.
pub fn read<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<Option<T>> {
    let mut head = [0; 4];
    match from.read_exact(&mut head) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut body = vec![0; length(head)?];
    from.read_exact(&mut body)?;
    Ok(Some(serde_json::from_slice(&body)?))
}

/// How long the body is that belongs to this head.
pub fn length(head: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_le_bytes(head) as usize;
    match length <= LONGEST {
        true => Ok(length),
        false => {
            Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} bytes is too long")))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_frame_comes_back() {
        let reading = Reading { values: vec![(FieldId(3), 0.25)], ..Reading::default() };
        let gpus =
            vec![(0, Outcome::Read(Box::new(reading))), (1, Outcome::Stuck), (2, Outcome::Failed(Code(15)))];
        let report =
            Report::Cycle(Cycle { gpus, errors: vec![("nvmlX".into(), Code(999), 2)], ..Cycle::default() });
        let mut sent = Vec::new();
        write(&mut sent, &report).expect("a Vec takes everything");
        write(&mut sent, &report).expect("a Vec takes everything");
        let mut rest = sent.as_slice();
        assert_eq!(read::<Report>(&mut rest).expect("a whole frame"), Some(report.clone()));
        assert_eq!(read::<Report>(&mut rest).expect("a whole frame"), Some(report));
        assert_eq!(read::<Report>(&mut rest).expect("the end"), None);
    }

    #[test]
    fn a_frame_without_end_takes_no_memory() {
        assert!(read::<Report>(&mut [0xff_u8; 64].as_slice()).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes: Vec<u8>) {
            let _ = read::<Report>(&mut bytes.as_slice());
        }
    }
}
