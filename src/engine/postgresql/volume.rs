//! What the kernel says of the volume that a path lies on. Not here: what follows from it (`places.rs`).

use crate::durable::FileError;
use crate::rights::Rights;
use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Whether a directory is the root of a mounted volume, or bound there: nothing can be renamed into its place.
pub fn is_mount_point(directory: &Path) -> bool {
    let Ok(path) = CString::new(directory.as_os_str().as_bytes()) else { return false };
    let mut about = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path is a C string, and the structure is as large as the call expects.
    let asked = unsafe {
        libc::statx(
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
            libc::STATX_BASIC_STATS,
            about.as_mut_ptr(),
        )
    };
    // SAFETY: zeroed, and filled by the call where it succeeded.
    let about = unsafe { about.assume_init() };
    let root = u64::try_from(libc::STATX_ATTR_MOUNT_ROOT).unwrap_or_default();
    asked == 0 && about.stx_attributes & root != 0
}

/// The number of the volume that a path lies on, or would, where some of it is missing.
pub fn number(path: &Path) -> Option<u64> {
    path.ancestors().find_map(|at| at.metadata().ok()).map(|about| about.dev())
}

/// How many bytes a user that is not root may still write there.
pub fn free_space(path: &Path) -> Result<u64, FileError> {
    room(path).map(|(free, _)| free)
}

/// The same, and how many bytes the volume has in all.
pub fn room(path: &Path) -> Result<(u64, u64), FileError> {
    let there = path.ancestors().find(|at| at.exists()).unwrap_or(Path::new("/"));
    let asked = nix::sys::statvfs::statvfs(there);
    let about = asked.map_err(|error| FileError {
        doing: "ask for the room on the volume of",
        path: path.to_owned(),
        source: io::Error::from(error),
    })?;
    let size = about.fragment_size();
    Ok((about.blocks_available() * size, about.blocks() * size))
}

/// How many bytes everything in a directory takes, by the rights of its user; links are not followed.
pub fn taken_by(directory: &Path, user: &Rights) -> u64 {
    fn taken(at: &Path) -> u64 {
        let Ok(about) = std::fs::symlink_metadata(at) else { return 0 };
        let within = match about.is_dir() {
            true => std::fs::read_dir(at).map_or(0, |found| found.flatten().map(|entry| taken(&entry.path())).sum()),
            false => 0,
        };
        about.blocks() * 512 + within
    }
    user.within(|| taken(directory)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mounted_volume_is_told_from_a_directory_in_it() {
        assert!(is_mount_point(Path::new("/proc")) && is_mount_point(Path::new("/")));
        assert!(!is_mount_point(Path::new("/proc/self")) && !is_mount_point(Path::new("/nowhere")));
    }

    #[test]
    fn room_is_asked_for_where_a_directory_will_be() {
        let folder = tempfile::tempdir().expect("a directory");
        let later = folder.path().join("not/yet");
        assert!(free_space(&later).expect("asked") > 0);
        assert_eq!(number(&later), number(folder.path()));
    }

    #[test]
    fn what_a_directory_takes_is_counted_with_all_that_is_in_it() {
        let folder = tempfile::tempdir().expect("a directory");
        let before = taken_by(folder.path(), &Rights::own());
        std::fs::create_dir(folder.path().join("within")).expect("made");
        std::fs::write(folder.path().join("within/file"), vec![1; 100_000]).expect("written");
        std::os::unix::fs::symlink("/", folder.path().join("link")).expect("linked");
        let taken = taken_by(folder.path(), &Rights::own()) - before;
        assert!((100_000..1_000_000).contains(&taken), "{taken}");
    }
}
