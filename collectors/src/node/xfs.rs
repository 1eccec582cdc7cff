//! What XFS counts of each mounted file system.

use std::{io, ops::RangeInclusive, path::Path};

use crate::{
    BuildError, CollectError, Collector, Desc, Entry, Host, Options, Samples, host,
    sysfs::{Attribute, Buffer},
};

/// This collector in the list.
pub const ENTRY: Entry = Entry { name: "xfs", default_on: true, flags: &[], build };

/// A line of `stats`: what it begins with, how many numbers it may have, and the families of the first of them.
struct Line {
    key: &'static str,
    counts: RangeInclusive<usize>,
    columns: &'static [Desc],
}

macro_rules! counter {
    ($name:literal, $help:literal) => {
        Desc::counter(concat!("node_xfs_", $name, "_total"), $help, &["device"])
    };
}

static LINES: [Line; 8] = [
    Line {
        key: "extent_alloc",
        counts: 4..=4,
        columns: &[
            counter!("extent_allocation_extents_allocated", "Number of extents allocated for a filesystem."),
            counter!("extent_allocation_blocks_allocated", "Number of blocks allocated for a filesystem."),
            counter!("extent_allocation_extents_freed", "Number of extents freed for a filesystem."),
            counter!("extent_allocation_blocks_freed", "Number of blocks freed for a filesystem."),
        ],
    },
    Line {
        key: "abt",
        counts: 4..=4,
        columns: &[
            counter!("allocation_btree_lookups", "Number of allocation B-tree lookups for a filesystem."),
            counter!("allocation_btree_compares", "Number of allocation B-tree compares for a filesystem."),
            counter!(
                "allocation_btree_records_inserted",
                "Number of allocation B-tree records inserted for a filesystem."
            ),
            counter!(
                "allocation_btree_records_deleted",
                "Number of allocation B-tree records deleted for a filesystem."
            ),
        ],
    },
    Line {
        key: "blk_map",
        counts: 7..=7,
        columns: &[
            counter!("block_mapping_reads", "Number of block map for read operations for a filesystem."),
            counter!("block_mapping_writes", "Number of block map for write operations for a filesystem."),
            counter!("block_mapping_unmaps", "Number of block unmaps (deletes) for a filesystem."),
            counter!(
                "block_mapping_extent_list_insertions",
                "Number of extent list insertions for a filesystem."
            ),
            counter!(
                "block_mapping_extent_list_deletions",
                "Number of extent list deletions for a filesystem."
            ),
            counter!("block_mapping_extent_list_lookups", "Number of extent list lookups for a filesystem."),
            counter!(
                "block_mapping_extent_list_compares",
                "Number of extent list compares for a filesystem."
            ),
        ],
    },
    Line {
        key: "bmbt",
        counts: 4..=4,
        columns: &[
            counter!("block_map_btree_lookups", "Number of block map B-tree lookups for a filesystem."),
            counter!("block_map_btree_compares", "Number of block map B-tree compares for a filesystem."),
            counter!(
                "block_map_btree_records_inserted",
                "Number of block map B-tree records inserted for a filesystem."
            ),
            counter!(
                "block_map_btree_records_deleted",
                "Number of block map B-tree records deleted for a filesystem."
            ),
        ],
    },
    Line {
        key: "dir",
        counts: 4..=4,
        columns: &[
            counter!(
                "directory_operation_lookup",
                "Number of file name directory lookups which miss the operating systems directory name lookup cache."
            ),
            counter!(
                "directory_operation_create",
                "Number of times a new directory entry was created for a filesystem."
            ),
            counter!(
                "directory_operation_remove",
                "Number of times an existing directory entry was created for a filesystem."
            ),
            counter!(
                "directory_operation_getdents",
                "Number of times the directory getdents operation was performed for a filesystem."
            ),
        ],
    },
    Line {
        key: "ig",
        counts: 7..=7,
        columns: &[
            counter!(
                "inode_operation_attempts",
                "Number of times the OS looked for an XFS inode in the inode cache."
            ),
            counter!(
                "inode_operation_found",
                "Number of times the OS looked for and found an XFS inode in the inode cache."
            ),
            counter!(
                "inode_operation_recycled",
                "Number of times the OS found an XFS inode in the cache, but could not use it as it was being recycled."
            ),
            counter!(
                "inode_operation_missed",
                "Number of times the OS looked for an XFS inode in the cache, but did not find it."
            ),
            counter!(
                "inode_operation_duplicates",
                "Number of times the OS tried to add a missing XFS inode to the inode cache, but found it had already been added by another process."
            ),
            counter!(
                "inode_operation_reclaims",
                "Number of times the OS reclaimed an XFS inode from the inode cache to free memory for another purpose."
            ),
            counter!(
                "inode_operation_attribute_changes",
                "Number of times the OS explicitly changed the attributes of an XFS inode."
            ),
        ],
    },
    Line {
        key: "rw",
        counts: 2..=2,
        columns: &[
            counter!("write_calls", "Number of write(2) system calls made to files in a filesystem."),
            counter!("read_calls", "Number of read(2) system calls made to files in a filesystem."),
        ],
    },
    Line {
        key: "vnodes",
        counts: 7..=8,
        columns: &[
            counter!("vnode_active", "Number of vnodes not on free lists for a filesystem."),
            counter!("vnode_allocate", "Number of times vn_alloc called for a filesystem."),
            counter!("vnode_get", "Number of times vn_get called for a filesystem."),
            counter!("vnode_hold", "Number of times vn_hold called for a filesystem."),
            counter!("vnode_release", "Number of times vn_rele called for a filesystem."),
            counter!("vnode_reclaim", "Number of times vn_reclaim called for a filesystem."),
            counter!("vnode_remove", "Number of times vn_remove called for a filesystem."),
        ],
    },
];

/// The most columns of a line in [`LINES`].
const WIDEST: usize = 7;

/// How many file systems keep their file open: each costs a page of kernel memory, and a node may mount hundreds.
const KEPT: usize = 32;

#[derive(Default)]
struct Xfs {
    filesystems: Vec<Filesystem>,
    buffer: Buffer,
}

struct Filesystem {
    name: String,
    stats: Attribute,
}

fn build(_: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Xfs::default()))
}

impl Collector for Xfs {
    fn collect(&mut self, host: &Host, out: &mut Samples) -> Result<(), CollectError> {
        self.follow(&host.sys("fs/xfs"));
        let mut failed = None;
        for (at, filesystem) in self.filesystems.iter_mut().enumerate() {
            match filesystem.stats.read(&mut self.buffer) {
                Ok(text) => match parse(text) {
                    Ok(lines) => say(&filesystem.name, &lines, out),
                    Err(what) => {
                        failed.get_or_insert(CollectError::parse(filesystem.stats.path(), what));
                    }
                },
                // Unmounted by now, or a directory of the driver's own.
                Err(error) if is_absent(&error) => {}
                Err(source) => {
                    failed.get_or_insert(CollectError::Read { path: filesystem.stats.path().into(), source });
                }
            }
            if at >= KEPT {
                filesystem.stats.close();
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

impl Xfs {
    /// Takes up what is mounted now; without the driver that is nothing.
    fn follow(&mut self, directory: &Path) {
        let names = host::list_dir_but_files(directory).unwrap_or_default();
        if names.iter().eq(self.filesystems.iter().map(|filesystem| &filesystem.name)) {
            return;
        }
        self.filesystems = names
            .into_iter()
            .map(|name| Filesystem { stats: Attribute::new(directory.join(&name).join("stats/stats")), name })
            .collect();
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The numbers of each of [`LINES`].
type Numbers = [[u32; WIDEST]; LINES.len()];

/// `stats`: "extent_alloc 1 872 0 0\nabt 0 0 0 0\n...", a key and its 32 bit counters in each line; newer kernels add
/// lines and never take one away.
fn parse(text: &str) -> Result<Numbers, String> {
    let mut numbers = Numbers::default();
    let mut seen = [false; LINES.len()];
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(key) = words.next() else { continue };
        let Some(at) = LINES.iter().position(|line| line.key == key) else { continue };
        let mut count = 0;
        for word in words {
            let number = word.parse().map_err(|_| format!("expected numbers, got {line:?}"))?;
            if let Some(place) = numbers[at].get_mut(count) {
                *place = number;
            }
            count += 1;
        }
        if !LINES[at].counts.contains(&count) {
            return Err(format!("{key} has {count} numbers"));
        }
        seen[at] = true;
    }
    match LINES.iter().zip(seen).find(|(_, seen)| !seen) {
        Some((line, _)) => Err(format!("{} is missing", line.key)),
        None => Ok(numbers),
    }
}

fn say(device: &str, numbers: &Numbers, out: &mut Samples) {
    for (line, numbers) in LINES.iter().zip(numbers) {
        for (desc, &number) in line.columns.iter().zip(numbers) {
            out.push(desc, &[device], f64::from(number));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const STATS: &str = "extent_alloc 1 2 3 4\nabt 5 6 7 8\nblk_map 9 10 11 12 13 14 15\nbmbt 16 17 18 19\n\
                         dir 20 21 22 23\ntrans 4 40 0\nig 24 25 26 27 28 29 30\nlog 8 21 0 5821 4\nrw 31 32\n\
                         vnodes 33 34 35 36 37 38 39 40\nxpc 3571712 3568056 0\ndefer_relog 0\ngc xpc 0\n";

    #[test]
    fn every_number_has_its_family() {
        let mut out = Samples::new();
        say("sdb1", &parse(STATS).expect("whole"), &mut out);
        let values: Vec<f64> = out.iter().map(|(.., value)| value).collect();
        assert_eq!(values, (1..=39).map(f64::from).collect::<Vec<_>>());
        assert!(LINES.iter().all(|line| line.columns.len() <= WIDEST));
    }

    #[test]
    fn an_old_kernel_counts_no_free_vnodes() {
        assert!(parse(&STATS.replace("39 40", "39")).is_ok());
    }

    #[test]
    fn cut_and_odd_texts_are_refused() {
        for text in [
            "",
            "extent_alloc 1 2 3 4\n",
            &STATS.replace("rw 31 32", "rw 31"),
            &STATS.replace(" 31 ", " -1 "),
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn one_broken_file_system_does_not_hide_the_others() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for (name, text) in [("dm-0", "odd"), ("sdb1", STATS)] {
            let stats = dir.path().join("fs/xfs").join(name).join("stats");
            fs::create_dir_all(&stats).expect("made");
            fs::write(stats.join("stats"), text).expect("written");
        }
        // The sums over all file systems.
        fs::create_dir_all(dir.path().join("fs/xfs/stats")).expect("made");
        fs::write(dir.path().join("fs/xfs/stats/stats"), STATS).expect("written");
        let host = Host { sysfs: dir.path().into(), ..Host::default() };
        let (mut xfs, mut out) = (Xfs::default(), Samples::new());
        assert!(matches!(xfs.collect(&host, &mut out), Err(CollectError::Parse { .. })));
        assert_eq!(out.len(), 39);
        fs::remove_dir_all(dir.path().join("fs/xfs/dm-0")).expect("removed");
        out.clear();
        assert!(xfs.collect(&host, &mut out).is_ok());
        assert_eq!(out.len(), 39);
    }

    #[test]
    fn a_host_without_the_driver_says_nothing() {
        let host = Host { sysfs: "/nonexistent".into(), ..Host::default() };
        let mut out = Samples::new();
        assert!(Xfs::default().collect(&host, &mut out).is_ok() && out.is_empty());
    }
}
