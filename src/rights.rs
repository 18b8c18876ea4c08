//! With whose rights a piece of file work is done. What lies in a directory that somebody else can write (a database's
//! user, above all) is done with that user's rights alone: whatever link, pipe or device stands at a name there leads no
//! further than that user could go itself.
//!
//! The kernel keeps the rights for files apart from all others, and for each thread (setfsuid(2)): a file server that runs
//! as root serves its users with it. Taking another user's takes away the capabilities that overrule permissions, too.
//!
//! Not here: what is written where. Programs are run as another user by `engine/postgresql/program.rs`.

#[cfg(test)]
mod rights_test;

use crate::durable::{self, FileError};
use crate::last_words;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

/// So many links are followed on the way to a directory, as by the kernel.
const LINKS: usize = 40;

/// A user's rights for files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    uid: u32,
    gid: u32,
    groups: Vec<libc::gid_t>,
}

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    #[error("it is no regular file")]
    NotRegular,
    #[error("it has more than {limit} bytes")]
    TooLarge { limit: u64 },
    #[error("it belongs to user {uid}, and must belong to the user of this process")]
    Anothers { uid: u32 },
}

/// Why a secret is not taken from a file.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("cannot be read")]
    Unreadable(#[source] io::Error),
    #[error("every user of this host can read it or write it (mode {mode:03o}): run chmod o= on it")]
    Exposed { mode: u32 },
}

/// No file that holds a secret is larger.
const SECRET_LIMIT: u64 = 64 << 10;

/// What a file holds that the configuration names and that is handed to a user, up to that many bytes. Links are followed;
/// where that user could have led the way there, with no more than its own rights.
pub fn read_for(user: &Rights, path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
    let open = || OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).and_then(regular);
    Rights::in_directory(path, user)?.file("read", path, || read_within(open()?, limit))
}

/// The same for a secret: else a link of that user's would hand it a key of this process's.
pub fn read_secret_for(user: &Rights, path: &Path) -> Result<Vec<u8>, SecretError> {
    let rights = Rights::in_directory(path, user).map_err(|error| SecretError::Unreadable(error.source))?;
    rights.within(|| read_secret(path)).map_err(SecretError::Unreadable)?
}

/// What a file holds that keys and passwords stand in: refused where others than its owner and group get at it.
pub fn read_secret(path: &Path) -> Result<Vec<u8>, SecretError> {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).and_then(regular);
    let file = opened.map_err(SecretError::Unreadable)?;
    let mode = file.metadata().map_err(SecretError::Unreadable)?.permissions().mode() & 0o777;
    if mode & 0o007 != 0 {
        return Err(SecretError::Exposed { mode });
    }
    read_within(file, SECRET_LIMIT).map_err(SecretError::Unreadable)
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError { doing, path, source }
}

impl Rights {
    pub fn of(uid: u32, gid: u32, groups: Vec<libc::gid_t>) -> Rights {
        Rights { uid, gid, groups }
    }

    /// Those of this process: in directories that nobody else can write.
    pub fn own() -> Rights {
        // SAFETY: system calls without arguments.
        let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
        Rights { uid, gid, groups: Vec::new() }
    }

    /// With whose rights files in this directory are worked on: with this user's where it can write the directory, or any
    /// other one on the way there, and could thus lead elsewhere; with this process's where it cannot.
    pub fn in_directory(directory: &Path, user: &Rights) -> Result<Rights, FileError> {
        let writes = |at: &Path, about: &Metadata| {
            about.uid() == user.uid || about.is_dir() && user.within(|| may_write(at)).unwrap_or(true)
        };
        Ok(match first_on_the_way(directory, writes).map_err(failed("find", directory))? {
            Some(_) => user.clone(),
            None => Rights::own(),
        })
    }

    /// The same where no user is known: with the rights of the first other owner of a directory on the way.
    pub fn of_owner(directory: &Path) -> Result<Rights, FileError> {
        let own = Rights::own();
        let others = |_: &Path, about: &Metadata| about.uid() != own.uid && about.uid() != 0;
        let first = first_on_the_way(directory, others).map_err(failed("find", directory))?;
        Ok(first.map_or(own, |about| Rights::of(about.uid(), about.gid(), Vec::new())))
    }

    /// Does the work with these rights, on this thread. Fails where they cannot be taken; then nothing was done.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> io::Result<T> {
        let _taken = Taken::take(self)?;
        Ok(work())
    }

    fn file<T>(&self, doing: &'static str, path: &Path, work: impl FnOnce() -> io::Result<T>) -> Result<T, FileError> {
        self.within(work).and_then(|done| done).map_err(failed(doing, path))
    }

    fn durably<T>(&self, path: &Path, work: impl FnOnce() -> Result<T, FileError>) -> Result<T, FileError> {
        self.within(work).map_err(failed("use the rights of the owner of", path))?
    }

    /// A regular file, for reading; a link in its place is none.
    pub fn open(&self, path: &Path) -> Result<File, FileError> {
        self.file("open", path, || open_regular(path))
    }

    /// What a regular file holds, up to that many bytes.
    pub fn read(&self, path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
        self.file("read", path, || read_within(open_regular(path)?, limit))
    }

    /// The same as text.
    pub fn read_text(&self, path: &Path, limit: u64) -> Result<String, FileError> {
        let text = String::from_utf8(self.read(path, limit)?);
        text.map_err(|error| failed("read", path)(io::Error::new(ErrorKind::InvalidData, error)))
    }

    /// A regular file that is written to at its end; made where it is missing, and with that mode where it is its own. A link
    /// in its place is none.
    pub fn append(&self, path: &Path, mode: u32) -> Result<File, FileError> {
        self.file("open", path, || {
            let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
            let mut options = OpenOptions::new();
            let file = regular(options.append(true).create(true).mode(mode).custom_flags(flags).open(path)?)?;
            let _ = file.set_permissions(fs::Permissions::from_mode(mode));
            Ok(file)
        })
    }

    /// A file that was not there: what stands in its place goes.
    pub fn new_file(&self, path: &Path, mode: u32) -> Result<File, FileError> {
        self.file("create", path, || {
            let _ = fs::remove_file(path);
            OpenOptions::new().write(true).create_new(true).mode(mode).open(path)
        })
    }

    /// Whether a volume takes a write now: a file of that name is made, written, synced and removed again.
    pub fn try_write(&self, path: &Path, page: &[u8]) -> io::Result<()> {
        self.within(|| {
            match fs::remove_file(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            let written = (&new).write_all(page).and_then(|()| new.sync_all());
            fs::remove_file(path).and(written)
        })?
    }

    /// Lets its owner write to a file.
    pub fn make_writable(&self, path: &Path) -> Result<(), FileError> {
        self.file("change the mode of", path, || {
            let file = open_regular(path)?;
            let mode = file.metadata()?.permissions().mode() & 0o777;
            file.set_permissions(fs::Permissions::from_mode(mode | 0o200))
        })
    }

    /// A file to lock, which is made where it is missing and keeps what it holds; a link in its place is none.
    pub fn open_lock(&self, path: &Path) -> Result<File, FileError> {
        self.file("open", path, || open_own(path))
    }

    /// Puts a file there whole or not at all, also after a crash; see [`durable::replace`].
    pub fn replace(&self, path: &Path, mode: u32, text: &str) -> Result<(), FileError> {
        self.durably(path, || durable::replace(path, mode, |file| file.write_all(text.as_bytes())).map(drop))
    }

    /// The same for a file that need not outlive a crash.
    pub fn replace_unflushed(&self, path: &Path, mode: u32, text: &str) -> Result<(), FileError> {
        self.durably(path, || durable::replace_unflushed(path, mode, |file| file.write_all(text.as_bytes())))
    }

    /// Puts a file there unless one is there; see [`durable::place`].
    pub fn place(&self, path: &Path, mode: u32, text: &str) -> Result<bool, FileError> {
        self.durably(path, || durable::place(path, mode, |file| file.write_all(text.as_bytes())))
    }

    /// Removes a file for good; it may be gone already.
    pub fn remove(&self, path: &Path) -> Result<(), FileError> {
        self.durably(path, || durable::remove(path))
    }

    /// Makes names in the directory of `path` last.
    pub fn sync_directory_of(&self, path: &Path) -> Result<(), FileError> {
        self.durably(path, || durable::sync_directory_of(path))
    }

    /// Makes everything on the volume of this directory last.
    pub fn sync_volume_of(&self, directory: &Path) -> Result<(), FileError> {
        self.file("sync the volume of", directory, || {
            let open = File::open(directory)?;
            // SAFETY: the descriptor is open.
            if unsafe { libc::syncfs(open.as_raw_fd()) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
        })
    }

    /// Puts what another regular file holds, up to that many bytes, in the place of this one, with its mode, whole or not at
    /// all also after a crash.
    pub fn replace_with(&self, path: &Path, from: &Path, limit: u64) -> Result<(), FileError> {
        let (mode, held) = self.file("read", from, || {
            let file = open_regular(from)?;
            Ok((file.metadata()?.permissions().mode() & 0o777, read_within(file, limit)?))
        })?;
        self.durably(path, || {
            let fill = |file: &mut File| {
                file.write_all(&held)?;
                file.set_permissions(fs::Permissions::from_mode(mode))
            };
            durable::replace(path, mode, fill).map(drop)
        })
    }

    /// Whether a directory is there; a link to one is none.
    pub fn is_directory(&self, path: &Path) -> bool {
        self.within(|| fs::symlink_metadata(path).is_ok_and(|about| about.is_dir())).unwrap_or(false)
    }

    /// Makes one directory, which may be there; a link in its place is none.
    pub fn make_directory(&self, path: &Path, mode: u32) -> Result<(), FileError> {
        self.file("create", path, || match fs::DirBuilder::new().mode(mode).create(path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => open_directory(path)?.set_permissions(fs::Permissions::from_mode(mode)),
        })
    }

    /// Makes a directory of a name that nobody has, which begins so. Returns that name.
    pub fn make_new_directory(&self, beginning: &Path, mode: u32) -> Result<PathBuf, FileError> {
        self.file("create", beginning, || {
            let mut template = beginning.as_os_str().to_owned();
            template.push("XXXXXX");
            let made = nix::unistd::mkdtemp(template.as_os_str())?;
            open_directory(&made)?.set_permissions(fs::Permissions::from_mode(mode))?;
            Ok(made)
        })
    }

    /// Makes a directory and those that it lies in, as far as they are missing.
    pub fn make_directories(&self, path: &Path) -> Result<(), FileError> {
        self.file("create", path, || fs::create_dir_all(path))
    }

    /// Removes a directory with all that is in it; links in it are removed and not followed.
    pub fn remove_tree(&self, path: &Path) -> Result<(), FileError> {
        self.file("remove", path, || fs::remove_dir_all(path))
    }

    pub fn rename(&self, from: &Path, to: &Path) -> Result<(), FileError> {
        self.file("move (is it a mount point? use a directory in it)", from, || fs::rename(from, to))
    }

    /// Where a symbolic link leads to; `None` where there is none.
    pub fn link(&self, path: &Path) -> Result<Option<PathBuf>, FileError> {
        self.file("read the link", path, || match fs::read_link(path) {
            Ok(to) => Ok(Some(to)),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => Ok(None),
            Err(error) => Err(error),
        })
    }

    /// Puts a link in the place of another, or of nothing.
    pub fn replace_link(&self, path: &Path, to: &Path) -> Result<(), FileError> {
        let draft = path.with_extension("regent-new");
        self.file("make the link", path, || {
            let _ = fs::remove_file(&draft);
            std::os::unix::fs::symlink(to, &draft)?;
            fs::rename(&draft, path)
        })
    }

    /// Removes a file or a link, or a directory with all that is in it.
    pub fn remove_any(&self, path: &Path) -> Result<(), FileError> {
        self.file("remove", path, || match fs::symlink_metadata(path)?.is_dir() {
            true => fs::remove_dir_all(path),
            false => fs::remove_file(path),
        })
    }

    /// Copies a regular file to where none is yet, and makes the copy last.
    pub fn copy(&self, from: &Path, to: &Path) -> Result<(), FileError> {
        self.file("copy WAL to", to, || {
            let (mut source, mut copy) = (open_regular(from)?, new_file(to)?);
            io::copy(&mut source, &mut copy)?;
            copy.sync_all()
        })
    }

    /// The names in a directory, in any order; those that are no text are left out.
    pub fn names(&self, directory: &Path) -> Result<Vec<String>, FileError> {
        self.file("read", directory, || {
            let entries = fs::read_dir(directory)?;
            Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
        })
    }

    /// Whether something is there, whatever it is.
    pub fn exists(&self, path: &Path) -> bool {
        self.within(|| fs::symlink_metadata(path).is_ok()).unwrap_or(false)
    }

    /// Fails where nothing can be made in a directory.
    pub fn must_write_in(&self, directory: &Path) -> Result<(), FileError> {
        let denied = || io::Error::from(ErrorKind::PermissionDenied);
        self.file("write in", directory, || may_write(directory).then_some(()).ok_or_else(denied))
    }

    /// When a file was written last.
    pub fn modified(&self, path: &Path) -> Option<SystemTime> {
        self.within(|| fs::symlink_metadata(path).and_then(|about| about.modified()).ok()).ok().flatten()
    }
}

/// Gives a directory of one's own to a user: by its descriptor, and never where a link leads to.
pub fn give_directory(path: &Path, user: &Rights) -> Result<(), FileError> {
    let give =
        || open_directory(path).and_then(|open| std::os::unix::fs::fchown(&open, Some(user.uid), Some(user.gid)));
    give().map_err(failed("change the owner of", path))
}

/// Puts a file into a directory of one's own, owned by a user or readable by its group; see [`durable::replace_unflushed`].
pub fn hand_file(path: &Path, text: &str, access: Access<'_>) -> Result<(), FileError> {
    let (mode, uid, gid) = match access {
        Access::Owner(user) => (0o600, Some(user.uid), Some(user.gid)),
        Access::Reads(user) => (0o640, None, Some(user.gid)),
    };
    durable::replace_unflushed(path, mode, |file| {
        file.write_all(text.as_bytes())?;
        std::os::unix::fs::fchown(file, uid, gid)
    })
}

/// What a user may do with a file that is handed to it.
#[derive(Clone, Copy, Debug)]
pub enum Access<'r> {
    /// It is its own, and nobody else reads it.
    Owner(&'r Rights),
    /// It may read it.
    Reads(&'r Rights),
}

/// What a regular file holds that this process's user wrote, up to that many bytes: somebody else's is not believed.
pub fn read_own(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = open_regular(path)?;
    let uid = file.metadata()?.uid();
    if uid != Rights::own().uid {
        return Err(io::Error::new(ErrorKind::PermissionDenied, Unfit::Anothers { uid }));
    }
    read_within(file, limit)
}

/// A regular file for writing that is made where it is missing and keeps what it holds; a link in its place is none.
pub fn open_own(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    regular(options.open(path)?)
}

/// The rights of this thread are another user's while this lives.
struct Taken {
    /// What the thread had; `None` where nothing was taken.
    before: Option<Vec<libc::gid_t>>,
}

impl Taken {
    fn take(rights: &Rights) -> io::Result<Taken> {
        let own = Rights::own();
        if rights.uid == own.uid {
            return Ok(Taken { before: None });
        }
        let before = groups()?;
        // From here on it is given back, whatever fails.
        let taken = Taken { before: Some(before) };
        set_groups(&rights.groups)?;
        // SAFETY: system calls on numbers; neither says whether it worked, so each is asked.
        let (gid, uid) = unsafe {
            libc::setfsgid(rights.gid);
            libc::setfsuid(rights.uid);
            (libc::setfsgid(u32::MAX), libc::setfsuid(u32::MAX))
        };
        if (i64::from(uid), i64::from(gid)) != (i64::from(rights.uid), i64::from(rights.gid)) {
            let why = format!("the rights of user {} cannot be taken (CAP_SETUID, CAP_SETGID)", rights.uid);
            return Err(io::Error::new(ErrorKind::PermissionDenied, why));
        }
        Ok(taken)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let Some(before) = &self.before else { return };
        let own = Rights::own();
        // SAFETY: system calls on numbers.
        let uid = unsafe {
            libc::setfsuid(own.uid);
            libc::setfsgid(own.gid);
            libc::setfsuid(u32::MAX)
        };
        let whole = set_groups(before).is_ok() && i64::from(uid) == i64::from(own.uid);
        if !whole {
            // A thread that goes on with another's rights does nothing that can be relied on.
            last_words::say("regent: a thread cannot take its own rights back");
            std::process::abort();
        }
    }
}

fn groups() -> io::Result<Vec<libc::gid_t>> {
    let groups = nix::unistd::getgroups()?;
    Ok(groups.into_iter().map(nix::unistd::Gid::as_raw).collect())
}

/// Of this thread alone: the function of the C library sets them for all of the process.
fn set_groups(groups: &[libc::gid_t]) -> io::Result<()> {
    // SAFETY: the slice is as long as said.
    let set = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn may_write(directory: &Path) -> bool {
    use nix::unistd::{AccessFlags, faccessat};
    let at = nix::fcntl::AtFlags::AT_EACCESS;
    faccessat(nix::fcntl::AT_FDCWD, directory, AccessFlags::W_OK, at).is_ok()
}

/// The first directory on the way to this one, itself included, of which that is so: links are followed one by one. What
/// is missing of the way is no directory yet.
fn first_on_the_way(directory: &Path, is_so: impl Fn(&Path, &Metadata) -> bool) -> io::Result<Option<Metadata>> {
    let mut way: Vec<PathBuf> = vec![directory.to_owned()];
    let (mut at, mut links) = (PathBuf::from("/"), 0);
    while let Some(next) = way.pop() {
        let mut parts = next.components();
        let Some(part) = parts.next() else { continue };
        if !parts.as_path().as_os_str().is_empty() {
            way.push(parts.as_path().to_owned());
        }
        let mut name = None;
        match part {
            Component::RootDir | Component::Prefix(_) => at = PathBuf::from("/"),
            Component::CurDir => {}
            Component::ParentDir => drop(at.pop()),
            Component::Normal(part) => name = Some(part.to_owned()),
        }
        if let Some(name) = name {
            let there = at.join(name);
            match fs::symlink_metadata(&there) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
                // Where everybody may make links, it is its owner's.
                Ok(about) if about.is_symlink() && is_so(&there, &about) => return Ok(Some(about)),
                Ok(about) if about.is_symlink() => {
                    links += 1;
                    if links > LINKS {
                        return Err(io::Error::from_raw_os_error(libc::ELOOP));
                    }
                    way.push(fs::read_link(&there)?);
                    continue;
                }
                Ok(_) => at = there,
            }
        }
        let about = fs::symlink_metadata(&at)?;
        // On the way through a directory like /tmp nobody can exchange what is another's.
        let passes = !way.is_empty() && about.mode() & libc::S_ISVTX != 0 && about.uid() == 0;
        if !passes && is_so(&at, &about) {
            return Ok(Some(about));
        }
    }
    Ok(None)
}

fn open_regular(path: &Path) -> io::Result<File> {
    // A pipe is opened without waiting for its writer, and is then seen to be none.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    regular(OpenOptions::new().read(true).custom_flags(flags).open(path)?)
}

fn regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::new(ErrorKind::InvalidInput, Unfit::NotRegular)) }
}

fn open_directory(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_DIRECTORY).open(path)
}

fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn read_within(file: File, limit: u64) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    file.take(limit + 1).read_to_end(&mut text)?;
    if text.len() as u64 > limit {
        return Err(io::Error::new(ErrorKind::FileTooLarge, Unfit::TooLarge { limit }));
    }
    Ok(text)
}
