//! `adjtimex(2)`, to read only: the state of the kernel's clock discipline.

use std::{io, mem::MaybeUninit};

/// What the kernel knows of its clock, and the state of the clock (`TIME_OK`, ..., `TIME_ERROR`).
pub fn adjtimex() -> io::Result<(libc::timex, i32)> {
    let mut timex = MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: all zeroes is a valid `timex`, its fields being integers; `modes` 0 changes nothing, and the kernel writes
    // no more than the structure, which lives until the call is over.
    let state = unsafe { libc::adjtimex(timex.as_mut_ptr()) };
    if state < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was zeroed above, which is a valid value, and then filled by the kernel.
    Ok((unsafe { timex.assume_init() }, state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_has_a_tick() {
        // A sandbox may refuse the call.
        if let Ok((timex, state)) = adjtimex() {
            assert!(timex.tick > 0, "{}", timex.tick);
            assert!((0..=5).contains(&state), "{state}");
        }
    }
}
