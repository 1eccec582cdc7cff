//! Giving memory back that only the start needed.

use std::{fs, io};

use rustix::mm::{Advice, madvise};

/// Gives back what the heap has free, and the pages of program code that are mapped: those that are used again come back from
/// the page cache, those that only read flags and configuration do not.
pub fn give_back_start() -> io::Result<()> {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer and is safe to call from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
    for (start, length) in code(&fs::read_to_string("/proc/self/maps")?) {
        let start = std::ptr::without_provenance_mut(start);
        // SAFETY: the range is a private mapping of a file that cannot be written to, as the kernel has just said, so that
        // its pages hold what is in the file and are read from there again when they are touched. No mapping of code is
        // taken away while the process runs: the agent loads and unloads no libraries.
        unsafe { madvise(start, length, Advice::LinuxDontNeed) }?;
    }
    Ok(())
}

/// The ranges of a list of mappings that hold program code out of files:
/// "55d0c8a00000-55d0c9100000 r-xp 0025b000 fe:00 131 /usr/bin/nodewarden".
fn code(maps: &str) -> impl Iterator<Item = (usize, usize)> {
    maps.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let (permissions, path) = (words.next()?, words.nth(3)?);
        let [start, end] = [start, end].map(|number| usize::from_str_radix(number, 16).ok());
        (permissions == "r-xp" && path.starts_with('/')).then_some((start?, end?.checked_sub(start?)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_out_of_files_is_given_back() {
        let maps = "1000-3000 r-xp 0025b000 fe:00 131 /usr/bin/nodewarden\n\
                    3000-4000 r--p 0025b000 fe:00 131 /usr/bin/nodewarden\n\
                    4000-5000 rwxp 00000000 00:00 0 \n\
                    7000-8000 r-xp 00000000 00:00 0 [vdso]\nodd\n";
        assert_eq!(code(maps).collect::<Vec<_>>(), [(0x1000, 0x2000)]);
    }

    #[test]
    fn the_program_goes_on_afterwards() {
        give_back_start().expect("given back");
        assert_eq!(code("").count(), 0);
    }
}
