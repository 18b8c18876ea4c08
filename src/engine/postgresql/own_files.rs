//! The files in the data directory that are a node's own, because PostgreSQL reads them as its configuration: settings with
//! all that they include, ALTER SYSTEM's, access files, certificates and keys. A rewind and a copy bring the other node's in
//! their place; these are kept aside before and put back after, also where a rewind breaks in the middle and a copy takes over.
//!
//! Where there was no database, a copy brings the other node's. Not here: what is regent's (`settings.rs`, `parameters.rs`):
//! that is not in the data directory, or is written anew.

use super::core::Core;
use super::error::Result;
use super::layout::{AUTO_CONF, CONF, Layout};
use crate::config::Postgresql;
use crate::config::parameters::operators;
use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

/// Files of settings, from which others are found.
const SETTINGS: [&str; 2] = [CONF, AUTO_CONF];
/// What is read where no setting names another; the access files only by a server that somebody starts without regent.
const USUAL: [&str; 6] = ["pg_hba.conf", "pg_ident.conf", "server.crt", "server.key", "root.crt", "root.crl"];
/// Settings that name a file, relative to the data directory.
const NAME_FILES: [&str; 8] = [
    "ssl_cert_file",
    "ssl_key_file",
    "ssl_ca_file",
    "ssl_crl_file",
    "ssl_dh_params_file",
    "krb_server_keyfile",
    "hba_file",
    "ident_file",
];
/// And a directory of files.
const NAMES_DIRECTORY: &str = "ssl_crl_dir";
const INCLUDES: [&str; 2] = ["include", "include_if_exists"];
const INCLUDES_DIRECTORY: &str = "include_dir";
/// No such file is longer.
const LIMIT: u64 = 1 << 20;

/// Keeps them aside, durably, before anything of the directory is overwritten. What an unfinished rewind or copy has kept
/// stays: what is in the directory by now may be the other node's.
pub fn keep(core: &Core, is_unfinished: bool) -> Result<()> {
    let (layout, inside) = (&core.layout, &core.layout.inside);
    let (folder, around) = (folder(layout), layout.around()?);
    if is_unfinished {
        return Ok(());
    }
    let draft = layout.beside(".regent-", ".own.new");
    for old in [&folder, &draft] {
        if around.exists(old) {
            around.remove_tree(old)?;
        }
    }
    if layout.is_absent() {
        return Ok(());
    }
    layout.make_for_database(&draft)?;
    for file in found(layout, &core.current()) {
        let to = draft.join(&file);
        inside.make_directories(to.parent().unwrap_or(&draft))?;
        inside.replace_with(&to, &layout.data_dir.join(&file), LIMIT)?;
    }
    around.rename(&draft, &folder)?;
    Ok(around.sync_directory_of(&folder)?)
}

/// Puts those that were kept into this directory, which is the place of the data directory or will be.
pub fn put_back(core: &Core, into: &Layout) -> Result<()> {
    let (folder, inside) = (folder(&core.layout), &core.layout.inside);
    for file in below(&core.layout, &folder, Path::new("")) {
        let to = into.data_dir.join(&file);
        inside.make_directories(to.parent().unwrap_or(&into.data_dir))?;
        inside.replace_with(&to, &folder.join(&file), LIMIT)?;
    }
    Ok(())
}

/// pg_rewind writes into the files that are there, and ends where one cannot be written, as a key often cannot.
pub fn make_writable(core: &Core) -> Result<()> {
    let files = below(&core.layout, &folder(&core.layout), Path::new(""));
    files.iter().try_for_each(|file| Ok(core.layout.inside.make_writable(&core.layout.data_dir.join(file))?))
}

/// They are where they belong.
pub fn forget(core: &Core) -> Result<()> {
    let (folder, around) = (folder(&core.layout), core.layout.around()?);
    if around.exists(&folder) { Ok(around.remove_tree(&folder)?) } else { Ok(()) }
}

fn folder(layout: &Layout) -> PathBuf {
    layout.beside(".regent-", ".own")
}

/// Every regular file below a folder, relative to it. Links are none.
fn below(layout: &Layout, folder: &Path, at: &Path) -> Vec<PathBuf> {
    let names = layout.inside.names(&folder.join(at)).unwrap_or_default();
    let each = |name: String| {
        let path = at.join(name);
        match layout.inside.open(&folder.join(&path)) {
            Ok(_) => vec![path],
            Err(_) if layout.inside.is_directory(&folder.join(&path)) => below(layout, folder, &path),
            Err(_) => Vec::new(),
        }
    };
    names.into_iter().flat_map(each).collect()
}

/// Those that are there, relative to the data directory.
fn found(layout: &Layout, postgresql: &Postgresql) -> BTreeSet<PathBuf> {
    let own = Path::new("");
    let (mut files, mut unread) = (BTreeSet::new(), SETTINGS.map(PathBuf::from).to_vec());
    let mut named: Vec<PathBuf> = USUAL.map(PathBuf::from).to_vec();
    let given = operators(postgresql).iter().filter(|(name, _)| NAME_FILES.contains(&name.as_str()));
    named.extend(given.filter_map(|(_, value)| within(layout, own, value)));
    while let Some(file) = unread.pop() {
        let Ok(text) = layout.inside.read(&layout.data_dir.join(&file), LIMIT) else { continue };
        if !files.insert(file.clone()) {
            continue;
        }
        let beside = file.parent().unwrap_or(own);
        for (name, value) in String::from_utf8_lossy(&text).lines().filter_map(setting) {
            let listed = |directory: Option<PathBuf>| {
                let names = |at: PathBuf| {
                    let names = layout.inside.names(&layout.data_dir.join(&at)).unwrap_or_default();
                    names.into_iter().map(move |name| at.join(name))
                };
                directory.into_iter().flat_map(names)
            };
            match name.as_str() {
                name if INCLUDES.contains(&name) => unread.extend(within(layout, beside, &value)),
                INCLUDES_DIRECTORY => {
                    let is_settings = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "conf");
                    unread.extend(listed(within(layout, beside, &value)).filter(is_settings));
                }
                NAMES_DIRECTORY => named.extend(listed(within(layout, own, &value))),
                name if NAME_FILES.contains(&name) => named.extend(within(layout, own, &value)),
                _ => {}
            }
        }
    }
    files.extend(named.into_iter().filter(|file| layout.inside.open(&layout.data_dir.join(file)).is_ok()));
    files
}

/// A path as it lies in the data directory; `None`: it does not.
fn within(layout: &Layout, beside: &Path, value: &str) -> Option<PathBuf> {
    let path = Path::new(value);
    let path = match path.is_absolute() {
        true => path.strip_prefix(&layout.data_dir).ok()?.to_owned(),
        false => beside.join(path),
    };
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    (plain && !path.as_os_str().is_empty()).then_some(path)
}

/// Name and value of a line, as PostgreSQL reads them; the name in small letters.
fn setting(line: &str) -> Option<(String, String)> {
    let line = line.trim_start();
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.')).unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
    let value = match rest.strip_prefix('\'') {
        // A quote within is written twice, or behind a backslash.
        Some(quoted) => {
            let (mut value, mut letters) = (String::new(), quoted.chars().peekable());
            while let Some(c) = letters.next() {
                match c {
                    '\'' if letters.peek() != Some(&'\'') => break,
                    '\'' | '\\' => value.extend(letters.next()),
                    other => value.push(other),
                }
            }
            value
        }
        None => rest.split(|c: char| c.is_whitespace() || c == '#').next().unwrap_or_default().to_owned(),
    };
    (!name.is_empty() && !value.is_empty()).then(|| (name.to_ascii_lowercase(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_postgresql_reads_it() {
        let read = |line: &str| setting(line).map(|(name, value)| format!("{name}|{value}"));
        assert_eq!(read("  Include_Dir 'conf.d' # more").as_deref(), Some("include_dir|conf.d"));
        assert_eq!(read("ssl_key_file='it''s.key'").as_deref(), Some("ssl_key_file|it's.key"));
        assert_eq!(read("work_mem = 8MB#x").as_deref(), Some("work_mem|8MB"));
        assert_eq!([read("# include 'x'"), read(""), read("include"), read("= 3")], [None, None, None, None]);
    }
}
