//! Giving memory back that only the start needed.

/// Gives back what the heap has free: reading flags and configuration takes more than the agent needs afterwards.
pub fn give_back_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer and is safe to call from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
