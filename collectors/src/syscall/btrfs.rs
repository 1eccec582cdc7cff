//! Questions to a mounted btrfs about itself and its devices, as `linux/btrfs.h` lays them out.

use std::{io, os::fd::AsFd};

use rustix::{
    io::Errno,
    ioctl::{self, Opcode, Updater, opcode},
};

const MAGIC: u8 = 0x94;
const FS_INFO: Opcode = opcode::read::<RawFsInfo>(MAGIC, 31);
const DEV_INFO: Opcode = opcode::read_write::<RawDevInfo>(MAGIC, 30);
const DEV_STATS: Opcode = opcode::read_write::<RawDevStats>(MAGIC, 52);

/// How many kinds of errors are counted.
const STATS: usize = 5;

/// `struct btrfs_ioctl_fs_info_args`
#[repr(C)]
struct RawFsInfo {
    max_id: u64,
    num_devices: u64,
    fsid: [u8; 16],
    /// Sizes, and what kernels added since.
    rest: [u64; 124],
}

/// `struct btrfs_ioctl_dev_info_args`
#[repr(C)]
struct RawDevInfo {
    devid: u64,
    uuid: [u8; 16],
    bytes_used: u64,
    total_bytes: u64,
    unused: [u64; 379],
    path: [u8; 1024],
}

/// `struct btrfs_ioctl_get_dev_stats`
#[repr(C)]
struct RawDevStats {
    devid: u64,
    /// How many values are asked for, then how many there are.
    nr_items: u64,
    /// 1 would set them back to 0.
    flags: u64,
    values: [u64; STATS],
    unused: [u64; 121],
}

const _: () = assert!(
    size_of::<RawFsInfo>() == 1024 && size_of::<RawDevInfo>() == 4096 && size_of::<RawDevStats>() == 1032
);

/// What a file system says of itself.
#[derive(Debug)]
pub struct FsInfo {
    /// The greatest number that a device has.
    pub max_id: u64,
    /// How many devices there are.
    pub num_devices: u64,
    /// The file system's UUID.
    pub fsid: [u8; 16],
}

/// What a file system says of one of its devices.
#[derive(Debug)]
pub struct DevInfo {
    /// The device's UUID.
    pub uuid: [u8; 16],
    /// Bytes that are allocated.
    pub bytes_used: u64,
    /// Bytes that there are.
    pub total_bytes: u64,
    /// Where the device was found, as `/dev/sda`.
    pub path: String,
}

/// Errors of a device since they were last set back: writes, reads, flushes, corruptions, generations.
pub type DevErrors = [u64; STATS];

/// Asks the file system behind `file`, which may be any of its files and directories.
pub fn fs_info(file: impl AsFd) -> io::Result<FsInfo> {
    // Since Linux 5.10 the kernel reads flags out of it, though its number says that it only writes; none are set.
    let mut raw = RawFsInfo { max_id: 0, num_devices: 0, fsid: [0; 16], rest: [0; 124] };
    // SAFETY: the kernel reads and writes a `btrfs_ioctl_fs_info_args`, which `RawFsInfo` is in size and layout and which
    // outlives the call; any bytes are valid for its integers. Another file system answers ENOTTY.
    unsafe { ioctl::ioctl(file, Updater::<FS_INFO, RawFsInfo>::new(&mut raw)) }?;
    Ok(FsInfo { max_id: raw.max_id, num_devices: raw.num_devices, fsid: raw.fsid })
}

/// Asks about the device with the number `id`; nothing when there is none.
pub fn dev_info(file: impl AsFd, id: u64) -> io::Result<Option<DevInfo>> {
    let mut raw = RawDevInfo {
        devid: id,
        uuid: [0; 16],
        bytes_used: 0,
        total_bytes: 0,
        unused: [0; 379],
        path: [0; 1024],
    };
    // SAFETY: the kernel reads and writes a `btrfs_ioctl_dev_info_args`, which `RawDevInfo` is in size and layout and
    // which outlives the call; any bytes are valid for its integers.
    match unsafe { ioctl::ioctl(file, Updater::<DEV_INFO, RawDevInfo>::new(&mut raw)) } {
        Err(Errno::NODEV) => Ok(None),
        Err(error) => Err(error.into()),
        Ok(()) => {
            let path = raw.path.split(|&byte| byte == 0).next().unwrap_or_default();
            Ok(Some(DevInfo {
                uuid: raw.uuid,
                bytes_used: raw.bytes_used,
                total_bytes: raw.total_bytes,
                path: String::from_utf8_lossy(path).into_owned(),
            }))
        }
    }
}

/// Asks for the errors of the device with the number `id`, and leaves them as they are.
pub fn dev_errors(file: impl AsFd, id: u64) -> io::Result<DevErrors> {
    let mut raw =
        RawDevStats { devid: id, nr_items: STATS as u64, flags: 0, values: [0; STATS], unused: [0; 121] };
    // SAFETY: the kernel reads and writes a `btrfs_ioctl_get_dev_stats`, which `RawDevStats` is in size and layout and
    // which outlives the call; any bytes are valid for its integers.
    unsafe { ioctl::ioctl(file, Updater::<DEV_STATS, RawDevStats>::new(&mut raw)) }?;
    Ok(raw.values)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn another_file_system_has_no_answer() {
        let proc = File::open("/proc").expect("mounted");
        assert!(fs_info(&proc).is_err());
        assert!(dev_info(&proc, 1).is_err());
        assert!(dev_errors(&proc, 1).is_err());
    }
}
