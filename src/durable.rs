//! A small file that is there whole or not at all, and that is still there after a power cut: written beside its place
//! under another name, flushed, put in its place, and the directory flushed.
//!
//! Not here: a file that must take no new space, so that it can be written on a full volume, and is overwritten in place
//! instead (the lease file in `action/guard.rs`, the log's mark in `consensus/store/mark.rs`); the log itself.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file that could not be written, and what could not be done with it.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {}", path.display())]
pub struct FileError {
    pub doing: &'static str,
    pub path: PathBuf,
    pub source: io::Error,
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError { doing, path, source }
}

/// Puts what `fill` writes, and does to the file besides, in the place of `path`. Returns that file, open for reading and
/// writing. When it fails, what was there before is there still, but for the last step: then nobody knows which of the
/// two a power cut would leave.
pub fn replace(path: &Path, mode: u32, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<File, FileError> {
    let mut draft = Draft::begin(path, mode)?;
    draft.fill(fill)?;
    draft.flush()?;
    let file = draft.rename_to(path)?;
    sync_directory_of(path)?;
    Ok(file)
}

/// The same for a file that need not outlive a crash: nothing waits for the disk.
pub fn replace_unflushed(
    path: &Path,
    mode: u32,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), FileError> {
    let mut draft = Draft::begin(path, mode)?;
    draft.fill(fill)?;
    draft.rename_to(path).map(drop)
}

/// Puts what `fill` writes at `path`, unless a file is there: that one stays. Whether it was put there. It lasts once the
/// directory is flushed too ([`sync_directory_of`]), which the caller does once for many files.
pub fn place(path: &Path, mode: u32, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<bool, FileError> {
    let mut draft = Draft::begin(path, mode)?;
    draft.fill(fill)?;
    draft.flush()?;
    let linked = fs::hard_link(&draft.path, path);
    fs::remove_file(&draft.path).map_err(failed("remove", &draft.path))?;
    match linked {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(failed("create", path)(error)),
    }
}

/// Writes a file where none may be yet, for volumes that know no links: one that is half written when the power is cut
/// stays, and is refused the next time.
pub fn create(path: &Path, mode: u32, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), FileError> {
    let file = open_new(path, mode).map_err(failed("create", path))?;
    let mut draft = Draft { path: path.to_owned(), file: Some(file) };
    draft.fill(fill)?;
    draft.flush()?;
    draft.file = None;
    sync_directory_of(path)
}

/// Removes a file for good; it may be gone already.
pub fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Ok(()) => sync_directory_of(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("remove", path)(error)),
    }
}

/// Makes a rename, creation or removal in the directory of `path` last.
pub fn sync_directory_of(path: &Path) -> Result<(), FileError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    File::open(directory).and_then(|open| open.sync_all()).map_err(failed("sync", directory))
}

/// A file that is being written. What does not reach its place is removed.
struct Draft {
    path: PathBuf,
    /// `None`: it has reached its place.
    file: Option<File>,
}

impl Draft {
    /// Beside its place. What an interrupted write left there goes first: it may have another owner or mode, or be a link
    /// to somewhere else.
    fn begin(place: &Path, mode: u32) -> Result<Draft, FileError> {
        let mut name = place.file_name().unwrap_or_default().to_owned();
        name.push(".regent-new");
        let path = place.with_file_name(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &path)(error)),
            _ => {}
        }
        let file = open_new(&path, mode).map_err(failed("create", &path))?;
        Ok(Draft { path, file: Some(file) })
    }

    fn fill(&mut self, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), FileError> {
        self.file.as_mut().map_or(Ok(()), fill).map_err(failed("write", &self.path))
    }

    fn flush(&self) -> Result<(), FileError> {
        self.file.as_ref().map_or(Ok(()), File::sync_all).map_err(failed("sync", &self.path))
    }

    fn rename_to(mut self, place: &Path) -> Result<File, FileError> {
        fs::rename(&self.path, place).map_err(failed("replace", place))?;
        Ok(self.file.take().expect("it has not reached its place before"))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.file.is_some() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Never another's file, and never where a link leads to.
fn open_new(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::fs::PermissionsExt;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("readable").map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<_> = entries.map(|name| name.into_string().expect("UTF-8")).collect();
        names.sort();
        names
    }

    fn text(path: &Path) -> String {
        fs::read_to_string(path).expect("readable")
    }

    /// Half of it, and then no space is left.
    fn half(file: &mut File) -> io::Result<()> {
        file.write_all(b"ha")?;
        Err(io::ErrorKind::StorageFull.into())
    }

    #[test]
    fn a_file_is_replaced_at_once_and_has_the_given_mode() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("stamp.json");
        replace(&path, 0o644, |file| file.write_all(b"old")).expect("written");
        let mut before = File::open(&path).expect("there");
        replace(&path, 0o600, |file| {
            file.write_all(b"new")?;
            assert_eq!(text(&path), "old", "it is not there before it is whole");
            Ok(())
        })
        .expect("written");
        let mut read = String::new();
        before.read_to_string(&mut read).expect("readable");
        assert_eq!((read.as_str(), text(&path).as_str()), ("old", "new"), "another file stands there");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        replace_unflushed(&path, 0o600, |file| file.write_all(b"newer")).expect("written");
        assert_eq!((text(&path).as_str(), names(folder.path())), ("newer", vec!["stamp.json".to_owned()]));
    }

    #[test]
    fn what_fails_leaves_the_old_file_and_nothing_beside_it_and_names_the_file() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("lease");
        replace(&path, 0o600, |file| file.write_all(b"old")).expect("written");
        let errors = [
            replace(&path, 0o600, half).map(drop),
            replace_unflushed(&path, 0o600, half),
            place(&path, 0o600, half).map(drop),
            create(&folder.path().join("lease.regent-new"), 0o600, half),
        ];
        for error in errors {
            let error = error.expect_err("the volume is full");
            assert_eq!(error.to_string(), format!("cannot write {}.regent-new", path.display()));
        }
        assert_eq!((text(&path).as_str(), names(folder.path())), ("old", vec!["lease".to_owned()]));
        let nowhere = folder.path().join("missing/lease");
        let error = replace(&nowhere, 0o600, |_| Ok(())).expect_err("no such directory").to_string();
        assert!(error.contains("missing/lease"), "{error}");
    }

    #[test]
    fn what_an_interrupted_write_left_is_not_written_through() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let (path, elsewhere) = (folder.path().join("hba"), folder.path().join("elsewhere"));
        fs::write(&elsewhere, "mine").expect("written");
        std::os::unix::fs::symlink(&elsewhere, folder.path().join("hba.regent-new")).expect("linked");
        replace(&path, 0o600, |file| file.write_all(b"new")).expect("written");
        assert_eq!((text(&path).as_str(), text(&elsewhere).as_str()), ("new", "mine"));
        assert_eq!(names(folder.path()), ["elsewhere", "hba"]);
    }

    #[test]
    fn what_is_placed_or_created_never_takes_another_file_s_place() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let [placed, created] = ["placed", "created"].map(|name| folder.path().join(name));
        assert!(place(&placed, 0o600, |file| file.write_all(b"first")).expect("written"));
        assert!(!place(&placed, 0o600, |file| file.write_all(b"second")).expect("no error"));
        create(&created, 0o600, |file| file.write_all(b"first")).expect("written");
        let error = create(&created, 0o600, |file| file.write_all(b"second")).expect_err("it is there");
        assert_eq!(error.source.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!([text(&placed), text(&created)], ["first", "first"]);
        assert_eq!(names(folder.path()), ["created", "placed"]);
        remove(&placed).expect("removed");
        remove(&placed).expect("gone already");
        assert_eq!(names(folder.path()), ["created"]);
    }
}
