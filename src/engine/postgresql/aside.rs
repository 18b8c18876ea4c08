//! What lies aside: old copies that a new one took the place of, and WAL that only this node had, each in a dated folder beside
//! the database's parts. Which old copies go, and what status says of all of them.
//!
//! An old copy is one for all its parts: the folders of its directory, its WAL and its tablespaces have the same time in their
//! names. So where an incident names one of them, none of them is removed.
//!
//! Not here: what is put aside (`keep.rs`, `places.rs`).

#![expect(clippy::disallowed_methods, reason = "how often it is looked what lies there: nothing waits for it")]

use super::core::Core;
use super::error::Result;
use super::layout::Layout;
use super::{keep, volume};
use crate::rights::Rights;
use crate::types::{KeptFolder, WallTime};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Goes before the time in the name of what a copy replaced.
pub const REPLACED: &str = ".replaced-";
/// And of WAL that no other node had.
pub const DIVERGED: &str = ".diverged-";
/// How often it is looked what lies there.
const EVERY: Duration = Duration::from_secs(60);
/// The digits of a time as `keep::stamp` writes it, without the milliseconds.
const SECONDS: usize = "20261130T131500".len();

/// What an engine knows of them.
#[derive(Debug, Default)]
pub struct Aside {
    /// What incidents of the ledger name; `None`: not known yet, so everything may be.
    named: Mutex<Option<BTreeSet<String>>>,
    found: Mutex<Vec<KeptFolder>>,
}

impl Aside {
    /// Which folders incidents name at present.
    pub fn are_named(&self, folders: BTreeSet<String>) {
        *self.named.lock().unwrap_or_else(PoisonError::into_inner) = Some(folders);
    }

    /// What lies there, as it was seen last.
    pub fn found(&self) -> Vec<KeptFolder> {
        let (found, spared) = (self.found.lock().unwrap_or_else(PoisonError::into_inner).clone(), self.spared());
        let named = |folder: KeptFolder| KeptFolder { named: spared.is_named(Path::new(&folder.folder)), ..folder };
        found.into_iter().map(named).collect()
    }

    /// What is to stay.
    pub fn spared(&self) -> Spared {
        let named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        Spared(named.as_ref().map(|folders| folders.iter().filter_map(|folder| time_of(Path::new(folder))).collect()))
    }
}

/// The times of the folders that incidents name; `None`: of all.
#[derive(Clone, Debug, Default)]
pub struct Spared(Option<BTreeSet<String>>);

impl Spared {
    fn is_named(&self, folder: &Path) -> bool {
        self.0.as_ref().is_none_or(|named| time_of(folder).is_none_or(|time| named.contains(&time)))
    }
}

/// Old copies by their time, the oldest first, each with its folders.
pub type OldCopies = BTreeMap<String, Vec<PathBuf>>;

/// Those that may be removed: no incident names them.
pub fn removable(copies: OldCopies, spared: &Spared) -> OldCopies {
    copies.into_iter().filter(|(_, folders)| !folders.iter().any(|folder| spared.is_named(folder))).collect()
}

/// The old copies among these folders.
pub fn copies_of(folders: impl IntoIterator<Item = PathBuf>) -> OldCopies {
    let mut copies = OldCopies::new();
    for folder in folders {
        if let Some(time) = time_of(&folder) {
            copies.entry(time).or_default().push(folder);
        }
    }
    copies
}

/// Removes one of them.
pub fn remove(folders: &[PathBuf], user: &Rights) -> Result<()> {
    for folder in folders {
        tracing::warn!(folder = %folder.display(), "removing an old copy that no incident names");
        let parent = folder.parent().unwrap_or(Path::new("/"));
        Rights::in_directory(parent, user)?.remove_tree(folder)?;
    }
    Ok(())
}

/// What an earlier copy put aside of a part that lies there.
pub fn replaced_beside(place: &Path, around: &Rights) -> Result<Vec<PathBuf>> {
    let (Some(parent), Some(name)) = (place.parent(), place.file_name()) else { return Ok(Vec::new()) };
    let prefix = format!("{}{REPLACED}", name.to_string_lossy());
    let names = around.names(parent)?.into_iter().filter(|found| found.starts_with(&prefix));
    Ok(names.map(|name| parent.join(name)).collect())
}

/// The time in the name of such a folder.
fn time_of(folder: &Path) -> Option<String> {
    let name = folder.file_name()?.to_str()?;
    let rest = [REPLACED, DIVERGED].iter().find_map(|before| Some(name.rsplit_once(before)?.1))?;
    Some(rest.split('-').next().unwrap_or(rest).to_owned())
}

fn made_at(folder: &Path) -> Option<WallTime> {
    let time = time_of(folder)?;
    let made = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%S", time.get(..SECONDS)?).ok()?;
    let made = made.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    Some(WallTime(u64::try_from(made.as_millisecond()).ok()?))
}

/// Everything that lies aside here: beside the data directory, its WAL and its tablespaces, where each of them really is.
fn all(layout: &Layout, wal_dir: Option<&Path>) -> Vec<PathBuf> {
    let inside = &layout.inside;
    let real = |path: &Path| inside.within(|| path.canonicalize()).ok().and_then(std::result::Result::ok);
    let here = Layout { data_dir: real(&layout.data_dir).unwrap_or(layout.data_dir.clone()), ..layout.clone() };
    let mut all: Vec<_> = [DIVERGED, REPLACED].into_iter().flat_map(|suffix| keep::folders(&here, suffix)).collect();
    let links = here.within("pg_tblspc");
    let spaces = inside.names(&links).unwrap_or_default().into_iter().map(|name| links.join(name));
    let elsewhere = spaces.chain([here.wal()]).filter_map(|part| inside.link(&part).ok().flatten());
    let elsewhere: BTreeSet<_> = elsewhere.chain(wal_dir.map(Path::to_owned)).collect();
    for place in elsewhere.iter().filter_map(|place| real(place)).filter(|place| !place.starts_with(&here.data_dir)) {
        let Ok(around) = Rights::in_directory(place.parent().unwrap_or(Path::new("/")), inside) else { continue };
        all.extend(replaced_beside(&place, &around).unwrap_or_default());
    }
    all
}

/// Looks again and again what lies there. How much room a folder takes is counted once: nobody writes in it.
pub async fn run(core: Arc<Core>) {
    loop {
        core.on_disk(|core| {
            let before = core.aside.found.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let known: BTreeMap<_, _> = before.into_iter().map(|kept| (kept.folder, kept.bytes)).collect();
            let kept = |folder: PathBuf| {
                let (name, made) = (folder.display().to_string(), made_at(&folder));
                let bytes = known.get(&name).copied();
                let bytes = bytes.unwrap_or_else(|| volume::taken_by(&folder, &core.layout.inside));
                KeptFolder { folder: name, bytes, made, named: false }
            };
            let found = all(&core.layout, core.postgresql().wal_dir.as_deref()).into_iter().map(kept).collect();
            *core.aside.found.lock().unwrap_or_else(PoisonError::into_inner) = found;
        })
        .await;
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = core.moved.notified() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(names: &[&str]) -> Vec<PathBuf> {
        names.iter().map(|name| Path::new("/srv").join(name)).collect()
    }

    #[test]
    fn an_old_copy_is_spared_with_all_its_parts_where_an_incident_names_one() {
        let aside = Aside::default();
        let all = paths(&[
            "main.replaced-20261130T131500123Z",
            "wal.replaced-20261130T131500123Z",
            "main.replaced-20261130T141500123Z",
            "space.replaced-20261130T141500123Z",
        ]);
        let goes = |aside: &Aside| removable(copies_of(all.clone()), &aside.spared()).into_keys().collect::<Vec<_>>();
        assert_eq!(goes(&aside), Vec::<String>::new(), "what is named is not known yet");
        aside.are_named(BTreeSet::new());
        assert_eq!(goes(&aside), ["20261130T131500123Z", "20261130T141500123Z"], "the oldest first");
        aside.are_named(["/srv/main.replaced-20261130T131500123Z".to_owned()].into());
        assert_eq!(goes(&aside), ["20261130T141500123Z"]);
    }

    #[test]
    fn the_name_of_a_folder_tells_when_it_was_made() {
        let made = |name: &str| made_at(Path::new(name)).map(|time| time.0);
        assert_eq!(made("/srv/main.replaced-20261130T131500123Z"), Some(1_796_044_500_000));
        assert_eq!(made("/srv/main.diverged-20261130T131500123Z-3"), Some(1_796_044_500_000));
        assert_eq!((made("/srv/main.replaced-by-hand"), made("/srv/main")), (None, None));
    }
}
