//! Threads that the loop waits for are scheduled as the loop is. The unit makes the daemon real-time and takes that from
//! everything that the daemon starts (`CPUSchedulingResetOnFork`), which the kernel does to threads as well: the log's
//! writer would wait behind every busy process of the host, and with it each answer that needs the log.
//!
//! Not here: which policy. Whoever starts the daemon chooses it; where that is an ordinary one, nothing changes.

/// The calling thread is scheduled as the process's first one is, as far as that is permitted.
pub fn as_the_loop() {
    let Ok(first) = libc::pid_t::try_from(std::process::id()) else { return };
    // SAFETY: system calls on numbers and on a local structure of plain numbers.
    unsafe {
        let mut given: libc::sched_param = std::mem::zeroed();
        // With the flag that takes it from whatever this thread starts.
        let policy = libc::sched_getscheduler(first);
        if policy > libc::SCHED_OTHER && libc::sched_getparam(first, &raw mut given) == 0 {
            libc::sched_setscheduler(0, policy, &raw const given);
        }
    }
}
