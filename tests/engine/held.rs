//! A disk that takes its time over one file: the first time that this process opens it, the kernel asks whether it may, and is
//! not answered until the test says so. Everything else goes on.
//!
//! Source: fanotify(7), `FAN_OPEN_PERM`.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// Holds up the first open of one file. What is held goes on when this is dropped.
pub struct Held(Arc<Inner>);

struct Inner {
    group: File,
    wanted: PathBuf,
    /// The open that waits.
    waiting: Mutex<Option<i32>>,
    had_one: AtomicBool,
    ends: AtomicBool,
}

impl Held {
    pub fn open_of(directory: &Path, name: &str) -> Held {
        let path = CString::new(directory.as_os_str().as_bytes()).expect("no zero");
        let mask = libc::FAN_OPEN_PERM | libc::FAN_EVENT_ON_CHILD;
        // SAFETY: plain system calls; the descriptor is ours alone.
        let group = unsafe {
            let flags = libc::FAN_CLASS_CONTENT | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK;
            let group = libc::fanotify_init(flags, (libc::O_RDONLY | libc::O_CLOEXEC) as u32);
            assert!(group >= 0, "no fanotify: {}", std::io::Error::last_os_error());
            let marked = libc::fanotify_mark(group, libc::FAN_MARK_ADD, mask, libc::AT_FDCWD, path.as_ptr());
            assert_eq!(marked, 0, "no mark: {}", std::io::Error::last_os_error());
            File::from_raw_fd(group)
        };
        let wanted = directory.canonicalize().expect("it is there").join(name);
        let (waiting, had_one, ends) = (Mutex::new(None), AtomicBool::new(false), AtomicBool::new(false));
        let inner = Arc::new(Inner { group, wanted, waiting, had_one, ends });
        let answers = inner.clone();
        std::thread::spawn(move || answers.answer());
        Held(inner)
    }

    /// Whether an open waits.
    pub fn holds(&self) -> bool {
        self.0.waiting.lock().expect("no panic").is_some()
    }

    /// Lets it go on.
    pub fn release(&self) {
        if let Some(waits) = self.0.waiting.lock().expect("no panic").take() {
            self.0.allow(waits);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.had_one.store(true, Ordering::SeqCst);
        self.release();
        self.0.ends.store(true, Ordering::SeqCst);
    }
}

impl Inner {
    fn answer(&self) {
        let mut events = [0_u8; 4096];
        while !self.ends.load(Ordering::SeqCst) {
            let mut ready = libc::pollfd { fd: self.group.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one valid structure.
            unsafe { libc::poll(&raw mut ready, 1, 100) };
            let length = (&self.group).read(&mut events).unwrap_or_default();
            let size = size_of::<libc::fanotify_event_metadata>();
            for event in events[..length].chunks_exact(size) {
                // SAFETY: the kernel wrote one such structure there; permission events carry nothing beside it.
                let event = unsafe { event.as_ptr().cast::<libc::fanotify_event_metadata>().read_unaligned() };
                self.judge(event.fd, event.pid);
            }
        }
    }

    fn judge(&self, opened: i32, by: i32) {
        let path = std::fs::read_link(format!("/proc/self/fd/{opened}")).unwrap_or_default();
        let ours = u32::try_from(by).is_ok_and(|by| by == std::process::id());
        if ours && path == self.wanted && !self.had_one.swap(true, Ordering::SeqCst) {
            *self.waiting.lock().expect("no panic") = Some(opened);
        } else {
            self.allow(opened);
        }
    }

    fn allow(&self, opened: i32) {
        let answer = libc::fanotify_response { fd: opened, response: libc::FAN_ALLOW };
        // SAFETY: a plain structure as bytes; the descriptor came with the event and is closed once.
        unsafe {
            let bytes = std::slice::from_raw_parts((&raw const answer).cast::<u8>(), size_of_val(&answer));
            let _ = (&self.group).write_all(bytes);
            libc::close(opened);
        }
    }
}
