//! Whose rights reach how far: links, pipes and other people's files.

use super::*;
use std::os::unix::fs::{chown, symlink};

/// Somebody who owns nothing here.
const NOBODY: u32 = 65534;

/// A folder of this process's with one of nobody's in it; `None`: it takes root to make that.
fn folders() -> Option<(tempfile::TempDir, PathBuf, Rights)> {
    let folder = tempfile::tempdir().expect("a temporary directory");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("mine");
    let theirs = folder.path().join("theirs");
    fs::create_dir(&theirs).expect("made");
    if chown(&theirs, Some(NOBODY), Some(NOBODY)).is_err() {
        println!("SKIPPED: it takes root to act as another user");
        assert!(std::env::var_os("CI").is_none(), "CI runs this as root");
        return None;
    }
    Some((folder, theirs, Rights::of(NOBODY, NOBODY, Vec::new())))
}

fn secret(folder: &Path) -> PathBuf {
    let secret = folder.join("secret");
    fs::write(&secret, "mine").expect("written");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("mine");
    secret
}

#[test]
fn no_link_leads_further_than_its_owner_could_go() {
    let Some((folder, theirs, nobody)) = folders() else { return };
    let secret = secret(folder.path());
    let [link, draft, folder_link] = ["link", "file.regent-new", "up"].map(|name| theirs.join(name));
    symlink(&secret, &link).expect("linked");
    symlink(&secret, &draft).expect("linked");
    symlink(folder.path(), &folder_link).expect("linked");
    assert!(nobody.read(&link, 10).is_err() && nobody.open(&link).is_err());
    assert!(nobody.copy(&folder_link.join("secret"), &theirs.join("copy")).is_err(), "also through a directory");
    assert!(nobody.replace(&folder_link.join("new"), 0o600, "x").is_err());
    assert!(nobody.remove(&folder_link.join("secret")).is_err());
    nobody.replace(&theirs.join("file"), 0o600, "text").expect("its own");
    nobody.replace_unflushed(&link, 0o600, "text").expect("its own name");
    assert_eq!(fs::read_to_string(&secret).expect("there"), "mine");
    let owners = [&theirs.join("file"), &link, &secret].map(|path| fs::symlink_metadata(path).expect("there").uid());
    assert_eq!(owners, [NOBODY, NOBODY, Rights::own().uid]);
    assert!(fs::write(folder.path().join("after"), "").is_ok(), "this thread has its own rights again");
}

#[test]
fn a_new_directory_is_nobody_elses() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let made = || Rights::own().make_new_directory(&folder.path().join("trial-"), 0o755).expect("made");
    let (one, another) = (made(), made());
    assert_ne!(one, another, "whoever has the same idea at the same time gets another one");
    assert!(one.file_name().is_some_and(|name| name.to_string_lossy().starts_with("trial-")));
    assert_eq!(fs::metadata(&one).expect("there").permissions().mode() & 0o777, 0o755);
}

#[test]
fn what_never_ends_or_is_no_file_is_not_read() {
    let Some((_folder, theirs, nobody)) = folders() else { return };
    let [pipe, zero, huge, fits] = ["pipe", "zero", "huge", "fits"].map(|name| theirs.join(name));
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o666)).expect("made");
    symlink("/dev/zero", &zero).expect("linked");
    File::create(&huge).and_then(|file| file.set_len(1 << 40)).expect("sparse");
    fs::write(&fits, "12345").expect("written");
    let why = |path| nobody.read(path, 5).expect_err("refused").source.to_string();
    assert_eq!(why(&pipe), "it is no regular file");
    assert!(why(&zero).contains("symbolic link"), "{}", why(&zero));
    assert_eq!((why(&huge), nobody.read(&fits, 5).ok()), ("it has more than 5 bytes".into(), Some(b"12345".to_vec())));
    let error = read_own(&pipe, 5).expect_err("another's").to_string();
    assert_eq!(error, "it is no regular file");
}

#[test]
fn another_s_file_is_not_believed() {
    let Some((folder, _, _)) = folders() else { return };
    let note = folder.path().join("note");
    fs::write(&note, "x").expect("written");
    assert_eq!(read_own(&note, 5).ok(), Some(b"x".to_vec()));
    chown(&note, Some(NOBODY), None).expect("root");
    assert_eq!(read_own(&note, 5).expect_err("another's").kind(), ErrorKind::PermissionDenied);
}

#[test]
fn whoever_can_write_a_directory_on_the_way_works_there_itself() {
    let Some((folder, theirs, nobody)) = folders() else { return };
    let mine = folder.path().join("mine");
    fs::create_dir(&mine).expect("made");
    symlink(&mine, theirs.join("mine")).expect("linked");
    symlink(&theirs, folder.path().join("there")).expect("linked");
    let who = |path: &Path| Rights::in_directory(path, &nobody).expect("found");
    assert_eq!(who(&mine), Rights::own());
    assert_eq!(who(&theirs), nobody);
    assert_eq!(who(&theirs.join("mine")), nobody, "a link of its own leads to mine");
    assert_eq!(who(&theirs.join("missing/further")), nobody);
    assert_eq!(who(&folder.path().join("there")), nobody, "a link of mine leads to its");
    assert_eq!(who(&mine.join("missing")), Rights::own());
    let first = |path: &Path| Rights::of_owner(path).expect("found");
    assert_eq!((first(&mine), first(&theirs.join("mine"))), (Rights::own(), nobody.clone()));
    fs::set_permissions(&mine, fs::Permissions::from_mode(0o777)).expect("mine");
    assert_eq!(who(&mine), nobody, "everybody can write it");
    fs::set_permissions(&mine, fs::Permissions::from_mode(0o1777)).expect("mine");
    fs::create_dir(mine.join("sub")).expect("made");
    assert_eq!(who(&mine.join("sub")), Rights::own(), "what is another's stays there");
}

#[test]
fn a_secret_is_not_taken_from_a_file_that_others_get_at() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let [secret, link] = ["secret", "link"].map(|name| folder.path().join(name));
    fs::write(&secret, "s3cret\n").expect("written");
    symlink(&secret, &link).expect("linked");
    for (mode, open) in [(0o600, false), (0o640, false), (0o644, true), (0o602, true), (0o601, true)] {
        fs::set_permissions(&secret, fs::Permissions::from_mode(mode)).expect("mine");
        let refused = matches!(read_secret(&link), Err(SecretError::Exposed { mode: found }) if found == mode);
        assert_eq!((refused, read_secret(&secret).ok().is_none()), (open, open), "{mode:o}");
    }
    assert!(matches!(read_secret(Path::new("/dev/zero")), Err(SecretError::Unreadable(_))));
}

#[test]
fn a_directory_is_given_by_its_descriptor() {
    let Some((folder, theirs, nobody)) = folders() else { return };
    let mine = folder.path().join("mine");
    fs::create_dir(&mine).expect("made");
    symlink(&mine, theirs.join("link")).expect("linked");
    assert!(give_directory(&theirs.join("link"), &nobody).is_err());
    assert!(Rights::own().make_directory(&theirs.join("link"), 0o755).is_err());
    assert_eq!(fs::metadata(&mine).expect("there").uid(), Rights::own().uid);
}
