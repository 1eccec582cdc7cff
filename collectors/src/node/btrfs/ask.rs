//! Asks mounted file systems about their devices, without being held up by one that hangs.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::PathBuf,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::Duration,
};

use rustix::fs::OFlags;

use crate::syscall::btrfs::{self, DevErrors, FsInfo};

/// How long the answers, which the kernel has in memory, are waited for. They take a lock that is held while devices are
/// added or removed, and a lost one can hold that for long.
const PATIENCE: Duration = Duration::from_secs(1);

/// The inode number of the top directory of a subvolume.
const TOP_INODE: u64 = 256;

/// No file system has device numbers beyond this: they are given one after the other.
const MAX_ID: u64 = 65_535;

/// A mounted file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// The device it was mounted from.
    pub(super) source: String,
    /// Its mount point as seen from here.
    pub(super) path: PathBuf,
}

/// What a file system answered.
#[derive(Debug)]
pub(super) struct Answer {
    /// The mount that was asked.
    pub(super) mount: Mount,
    /// Its UUID in 32 hexadecimal digits.
    pub(super) fsid: String,
    pub(super) devices: Vec<Device>,
}

/// A device of a file system.
#[derive(Debug)]
pub(super) struct Device {
    /// Without its directory.
    pub(super) name: String,
    /// As UUIDs are written, with dashes.
    pub(super) uuid: String,
    pub(super) total: u64,
    pub(super) used: u64,
    pub(super) errors: DevErrors,
}

/// Lets a thread ask, and waits for it no longer than [`PATIENCE`].
#[derive(Default)]
pub(super) struct Asker {
    worker: Option<Worker>,
    /// Whether the worker has not yet answered the last question, which nobody waits for any more.
    is_late: bool,
}

/// A thread that ends when its `Worker` is dropped and no file system holds it.
struct Worker {
    questions: Sender<Vec<Mount>>,
    answers: Receiver<Vec<Answer>>,
}

impl Asker {
    /// What those of the file systems answer that are there and may be asked; `None` while one does not answer at all.
    pub(super) fn ask(&mut self, mounts: &[Mount]) -> Option<Vec<Answer>> {
        if mounts.is_empty() {
            return Some(Vec::new());
        }
        let worker = self.worker.get_or_insert_with(Worker::start);
        if self.is_late && worker.answers.try_recv().is_err() {
            return None;
        }
        self.is_late = false;
        // A worker that is gone shows when its answer is waited for.
        let _ = worker.questions.send(mounts.to_vec());
        match worker.answers.recv_timeout(PATIENCE) {
            Ok(answers) => Some(answers),
            Err(RecvTimeoutError::Timeout) => {
                tracing::warn!("a btrfs file system does not answer");
                self.is_late = true;
                None
            }
            Err(RecvTimeoutError::Disconnected) => {
                self.worker = None;
                None
            }
        }
    }
}

impl Worker {
    fn start() -> Self {
        let (questions, asked) = mpsc::channel::<Vec<Mount>>();
        let (answering, answers) = mpsc::channel();
        let run = move || {
            for mounts in asked {
                if answering.send(ask_all(mounts)).is_err() {
                    return;
                }
            }
        };
        // When no thread can be had, `run` is dropped with its channels, and whoever waits for an answer is told.
        let started = thread::Builder::new().name("btrfs".into()).stack_size(64 * 1024).spawn(run);
        if let Err(error) = started {
            tracing::warn!(%error, "could not start a thread to ask btrfs");
        }
        Self { questions, answers }
    }
}

/// Asks each file system once, by the first of its mounts that answers.
fn ask_all(mounts: Vec<Mount>) -> Vec<Answer> {
    let mut answers: Vec<Answer> = Vec::new();
    for mount in mounts {
        if answers.iter().any(|answer| answer.mount.source == mount.source) {
            continue;
        }
        match ask(&mount, &answers) {
            Ok(Some((fsid, devices))) => answers.push(Answer { mount, fsid, devices }),
            Ok(None) => {}
            Err(error) => tracing::debug!(mount = %mount.path.display(), %error, "btrfs does not say"),
        }
    }
    answers
}

/// The file system's UUID and its devices; nothing where the mount point is no subvolume, or one that has answered.
///
/// The mount point is open only for so long, for an open one can't be unmounted.
fn ask(mount: &Mount, known: &[Answer]) -> io::Result<Option<(String, Vec<Device>)>> {
    let flags = OFlags::DIRECTORY | OFlags::NONBLOCK;
    let top = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(&mount.path)?;
    if top.metadata()?.ino() != TOP_INODE {
        return Ok(None);
    }
    let info = btrfs::fs_info(&top)?;
    let fsid = hex(&info.fsid);
    if known.iter().any(|answer| answer.fsid == fsid) {
        return Ok(None);
    }
    Ok(Some((fsid, devices(&top, &info)?)))
}

fn devices(top: &File, info: &FsInfo) -> io::Result<Vec<Device>> {
    let mut devices = Vec::new();
    // Numbers begin at 0 while a device is being replaced, and those of removed devices are not given again.
    for id in 0..=info.max_id.min(MAX_ID) {
        let Some(device) = btrfs::dev_info(top, id)? else { continue };
        devices.push(Device {
            name: device.path.rsplit('/').next().unwrap_or_default().to_owned(),
            uuid: dashed(&device.uuid),
            total: device.total_bytes,
            used: device.bytes_used,
            errors: btrfs::dev_errors(top, id)?,
        });
        if devices.len() as u64 == info.num_devices {
            break;
        }
    }
    Ok(devices)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;

    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a `String` can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn dashed(uuid: &[u8; 16]) -> String {
    let [a, b, c, d] = [0..4, 4..6, 6..8, 8..10].map(|part| hex(&uuid[part]));
    format!("{a}-{b}-{c}-{d}-{}", hex(&uuid[10..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_btrfs_says_nothing() {
        let mounts =
            ["/proc", "/nonexistent"].map(|path| Mount { source: path.to_owned(), path: path.into() });
        let mut asker = Asker::default();
        assert!(asker.ask(&mounts).is_some_and(|answers| answers.is_empty()));
        assert!(asker.worker.is_some());
        assert!(Asker::default().ask(&[]).is_some_and(|answers| answers.is_empty()));
    }

    #[test]
    fn a_worker_that_is_late_is_not_asked_again_until_it_answers() {
        let (questions, asked) = mpsc::channel();
        let (answering, answers) = mpsc::channel();
        let mut asker = Asker { worker: Some(Worker { questions, answers }), is_late: false };
        let mounts = [Mount { source: "/dev/sda".to_owned(), path: "/nonexistent".into() }];
        assert!(asker.ask(&mounts).is_none());
        assert!(asker.ask(&mounts).is_none());
        assert_eq!(asked.try_iter().count(), 1);
        answering.send(Vec::new()).expect("listened to");
        answering.send(Vec::new()).expect("listened to");
        assert!(asker.ask(&mounts).is_some());
        drop((asked, answering));
        assert!(asker.ask(&mounts).is_none());
        assert!(asker.ask(&mounts).is_some(), "another thread");
    }

    #[test]
    fn bytes_are_written_in_two_digits() {
        assert_eq!(hex(&[0, 0x1f, 0xff]), "001fff");
        let uuid =
            [0x50, 0xcc, 0x0e, 0x59, 0xad, 0x46, 0x44, 0x6e, 0x91, 0x63, 0x64, 0x51, 0x75, 0x99, 0xf4, 0x35];
        assert_eq!(dashed(&uuid), "50cc0e59-ad46-446e-9163-64517599f435");
    }
}
