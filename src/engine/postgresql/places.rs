//! Where the parts of a database that is copied belong: its directory, its WAL, its tablespaces. Each may be a link, or a
//! volume of its own. A copy of each is made where it can take that place without another copy, and what cannot work is
//! refused before the first byte.
//!
//! Not here: the copy itself (`clone.rs`).

use super::aside::{self, REPLACED, Spared};
use super::error::{EngineError, Result};
use super::keep;
use super::layout::Layout;
use super::{mounts, volume};
use crate::rights::Rights;
use crate::types::Size;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// A tablespace of the source, and the room that it takes there, where that may be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tablespace {
    pub oid: u32,
    pub name: String,
    pub location: PathBuf,
    pub size: Option<u64>,
}

/// What of the source's size is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// All that lies in the data directory itself, WAL left aside.
    pub size: Option<u64>,
    /// Of WAL a copy takes the segment that it ends in, and the standby the one that it receives next.
    pub wal: u64,
    pub tablespaces: Vec<Tablespace>,
}

/// The name under which a part is made within the volume that it is the root of.
const FRESH: &str = ".regent-clone";
/// What a file system keeps for itself at its root.
const LOST: &str = "lost+found";
/// The name of the WAL in a data directory.
const WAL: &str = "pg_wal";

/// And in that the folders: the first says which of it is archived.
const FOLDERS: [&str; 2] = ["archive_status", "summaries"];

/// Whether PostgreSQL gives this name to something among its WAL.
fn is_wal(name: &str) -> bool {
    let digits = name.bytes().take_while(u8::is_ascii_hexdigit).count();
    let folder = FOLDERS.contains(&name);
    folder || name.starts_with("xlogtemp.") || digits == 24 || digits == 8 && name.ends_with(".history")
}

/// One part outside the data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where it belongs, with no link left in it.
    place: PathBuf,
    /// Where its copy is made.
    fresh: PathBuf,
    /// The place is the root of a volume: nothing can be beside it.
    is_volume: bool,
}

/// Where everything goes.
#[derive(Debug)]
pub struct Places {
    /// The layout of the data directory where it really lies.
    layout: Layout,
    /// Where its copy is made.
    pub data: PathBuf,
    wal: Option<Part>,
    spaces: BTreeMap<u32, (PathBuf, Part)>,
    /// What of the old copies is to stay.
    spared: Spared,
}

impl Places {
    /// Looks where a copy of such a database goes on this host. Refuses what cannot work.
    pub fn find(layout: &Layout, wal_dir: Option<&Path>, source: &Extent, spared: Spared) -> Result<Places> {
        let named = source.tablespaces.iter().map(|space| space.location.as_path());
        mounts::must_be_there(
            layout,
            mounts::TO_MAKE,
            [layout.data_dir.as_path()].into_iter().chain(wal_dir).chain(named),
        )?;
        let layout = Layout { data_dir: resolved(&layout.data_dir, &layout.inside)?, ..layout.clone() };
        refuse_volume(&layout.data_dir)?;
        let data = layout.beside(".regent-", ".clone");
        let linked = layout.inside.link(&layout.wal())?;
        let wal = wal_dir.map(Path::to_owned).or(linked).map(|place| Part::at(&layout, &place)).transpose()?;
        let mut spaces = BTreeMap::new();
        for space in &source.tablespaces {
            if space.location.starts_with(&layout.data_dir) {
                // The copy of the directory has an empty one there, which it is put in the place of.
                let fresh = layout.beside(".regent-", &format!(".clone-{}", space.oid));
                let part = Part { place: space.location.clone(), fresh, is_volume: false };
                spaces.insert(space.oid, (space.location.clone(), part));
                continue;
            }
            let part = Part::at(&layout, &space.location)?;
            let link = layout.within("pg_tblspc").join(space.oid.to_string());
            if !layout.inside.exists(&space.location) {
                let why = format!(
                    "tablespace {} belongs in {}, which is not there: mount its volume, or make the directory for the \
                     database's user",
                    space.name,
                    space.location.display()
                );
                return Err(EngineError::Refused { action: "copy the database", why });
            }
            if layout.inside.exists(&link) && layout.inside.names(&part.place)?.iter().all(|name| name == LOST) {
                let why = format!(
                    "tablespace {} was in {}, which is empty now: is its volume mounted?",
                    space.name,
                    space.location.display()
                );
                return Err(EngineError::Refused { action: "copy the database", why });
            }
            spaces.insert(space.oid, (space.location.clone(), part));
        }
        let places = Places { layout, data, wal, spaces, spared };
        places.refuse_without_room(source)?;
        Ok(places)
    }

    /// What pg_basebackup is told of them.
    pub fn arguments(&self) -> Vec<OsString> {
        let with = |before: &str, path: &Path| {
            let mut argument = OsString::from(before);
            argument.push(path);
            argument
        };
        let mut arguments: Vec<OsString> = self.wal.iter().map(|wal| with("--waldir=", &wal.fresh)).collect();
        for (location, part) in self.spaces.values() {
            let mut argument = with("--tablespace-mapping=", &escaped(location));
            argument.push("=");
            argument.push(escaped(&part.fresh));
            arguments.push(argument);
        }
        arguments
    }

    /// Where the copy of the WAL is made, where that lies elsewhere.
    pub fn wal(&self) -> Option<&Path> {
        self.wal.as_ref().map(|part| part.fresh.as_path())
    }

    /// Where the copy of a tablespace is made.
    pub fn space(&self, oid: u32) -> Option<&Path> {
        self.spaces.get(&oid).map(|(_, part)| part.fresh.as_path())
    }

    /// How many bytes the copy takes by now.
    pub fn taken(&self) -> u64 {
        let within = self.spaces.values().map(|(_, part)| part.fresh.as_path());
        let all = [self.data.as_path()].into_iter().chain(self.wal()).chain(within);
        all.map(|place| volume::taken_by(place, &self.layout.inside)).sum()
    }

    /// Puts the WAL of a copy where its place will be, if whoever made it knew nothing of that.
    pub fn gather(&self) -> Result<()> {
        let copied = Layout { data_dir: self.data.clone(), ..self.layout.clone() };
        gather_wal(&copied, self.wal())
    }

    /// Removes what an earlier copy left, and makes the folders that the database's user may not make itself.
    pub fn prepare(&self) -> Result<()> {
        let around = self.layout.around()?;
        if around.exists(&self.data) {
            around.remove_tree(&self.data)?;
        }
        self.layout.make_for_database(&self.data)?;
        for part in self.parts() {
            let around = part.around(&self.layout)?;
            if around.exists(&part.fresh) {
                around.remove_tree(&part.fresh)?;
            }
            self.layout.make_for_database(&part.fresh)?;
        }
        Ok(())
    }

    /// Compares what was copied with what the source has.
    pub fn compare(&self) -> Result<()> {
        let copied = Layout { data_dir: self.data.clone(), ..self.layout.clone() };
        for (oid, (location, part)) in &self.spaces {
            let link = copied.within("pg_tblspc").join(oid.to_string());
            if copied.inside.link(&link)?.as_ref() != Some(&part.fresh) {
                let detail = format!("the copy of the tablespace in {}", location.display());
                return Err(EngineError::Malformed { path: link, detail });
            }
        }
        Ok(())
    }

    /// Puts the copy of each part in its place. Brings the folder that keeps the old directory, if there was one; of what
    /// lay at the root of a volume nothing is kept. With it at most `most` old copies stay that no incident names.
    pub fn swap(&self, layout: &Layout, most: usize) -> Result<Option<String>> {
        let (place, around) = (&self.layout.data_dir, self.layout.around()?);
        let stamp = keep::stamp();
        let aside = (!self.layout.is_absent()).then(|| self.layout.beside("", &format!("{REPLACED}{stamp}")));
        if aside.is_some() || self.parts().any(|part| self.layout.inside.exists(&part.place)) {
            self.forget_replaced(most.saturating_sub(1))?;
        }
        let (fresh, old) = (&self.data, &self.layout.data_dir);
        if let Some(wal) = &self.wal {
            wal.swap(&self.layout, &stamp, (fresh, old), WAL)?;
        }
        for (oid, (location, part)) in &self.spaces {
            let link = format!("pg_tblspc/{oid}");
            match location.strip_prefix(old) {
                Ok(within) => {
                    layout.inside.remove_any(&fresh.join(within))?;
                    around.rename(&part.fresh, &fresh.join(within))?;
                    layout.inside.replace_link(&fresh.join(&link), location)?;
                }
                Err(_) => part.swap(&self.layout, &stamp, (fresh, old), &link)?,
            }
        }
        if let Some(aside) = &aside {
            around.rename(place, aside)?;
        }
        around.rename(fresh, place)?;
        around.sync_directory_of(place)?;
        Ok(aside.map(|aside| aside.display().to_string()))
    }

    /// What earlier clones replaced.
    fn replaced(&self) -> Result<Vec<PathBuf>> {
        let mut all = keep::folders(&self.layout, REPLACED);
        let beside = |part: &&Part| !part.is_volume && !part.place.starts_with(&self.layout.data_dir);
        for part in self.parts().filter(beside) {
            all.extend(aside::replaced_beside(&part.place, &part.around(&self.layout)?)?);
        }
        Ok(all)
    }

    /// Removes the oldest old copies beyond `most` that no incident names: they would fill the volumes that the database is on.
    fn forget_replaced(&self, most: usize) -> Result<()> {
        let removable = aside::removable(aside::copies_of(self.replaced()?), &self.spared);
        let beyond = removable.len().saturating_sub(most);
        removable.values().take(beyond).try_for_each(|folders| aside::remove(folders, &self.layout.inside))
    }

    /// Every part whose copy is made outside that of the data directory.
    fn parts(&self) -> impl Iterator<Item = &Part> {
        self.wal.iter().chain(self.spaces.values().map(|(_, part)| part))
    }

    /// Refuses where a volume has less room than its parts take at the source. Old copies that no incident names go first, the
    /// oldest before the others, where that is enough; what else lies aside there is named.
    fn refuse_without_room(&self, source: &Extent) -> Result<()> {
        let mut lacking: BTreeMap<u64, Lacking> = self.lacking(source)?.into_iter().collect();
        let number = |folder: &Path| volume::number(folder).unwrap_or_default();
        let mut goes = Vec::new();
        for folders in aside::removable(aside::copies_of(self.replaced()?), &self.spared).into_values() {
            if !folders.iter().any(|folder| lacking.contains_key(&number(folder))) {
                continue;
            }
            for folder in &folders {
                let taken = volume::taken_by(folder, &self.layout.inside);
                let number = number(folder);
                if let Some(lack) = lacking.get_mut(&number) {
                    lack.reclaimed += taken;
                }
            }
            goes.push(folders);
            lacking.retain(|_, lack| lack.reclaimed < lack.bytes);
        }
        let Some((number, lack)) = lacking.into_iter().next() else {
            return goes.iter().try_for_each(|folders| aside::remove(folders, &self.layout.inside));
        };
        let why = format!(
            "a copy takes {} on the volume of {}: it lacks {}{}",
            Size(lack.needed),
            lack.place.display(),
            Size(lack.bytes),
            self.what_takes_room(number)
        );
        Err(EngineError::Refused { action: "copy the database", why })
    }

    /// What lies aside on this volume, for a person to remove.
    fn what_takes_room(&self, number: u64) -> String {
        let folders =
            self.replaced().unwrap_or_default().into_iter().chain(keep::folders(&self.layout, aside::DIVERGED));
        let there = folders.filter(|folder| volume::number(folder) == Some(number));
        let named = there.map(|folder| {
            let size = Size(volume::taken_by(&folder, &self.layout.inside));
            format!("{} ({size})", folder.display())
        });
        let named: Vec<_> = named.collect();
        if named.is_empty() {
            return String::new();
        }
        format!("; what lies aside there takes room, and is yours to remove or move away: {}", named.join(", "))
    }

    /// The volumes that have too little room, by number.
    fn lacking(&self, source: &Extent) -> Result<Vec<(u64, Lacking)>> {
        let parent = self.layout.data_dir.parent().unwrap_or(Path::new("/")).to_owned();
        let of_space = |space: &Tablespace| Some((self.spaces.get(&space.oid)?.1.place.clone(), space.size?));
        let wal = self.wal.as_ref().map_or_else(|| parent.clone(), |part| part.place.clone());
        let sizes = source.size.map(|size| (parent, size)).into_iter().chain([(wal, source.wal)]);
        let mut needs: BTreeMap<u64, (u64, PathBuf)> = BTreeMap::new();
        for (place, size) in sizes.chain(source.tablespaces.iter().filter_map(of_space)) {
            let Some(number) = volume::number(&place) else { continue };
            needs.entry(number).or_insert((0, place)).0 += size;
        }
        let mut lacking = Vec::new();
        for (number, (needed, place)) in needs {
            let free = volume::free_space(&place)?;
            if free < needed {
                lacking.push((number, Lacking { needed, bytes: needed - free, reclaimed: 0, place }));
            }
        }
        Ok(lacking)
    }
}

/// Too little room on a volume: what is needed there in all, and how much of it is missing.
struct Lacking {
    needed: u64,
    bytes: u64,
    /// What old copies on it took.
    reclaimed: u64,
    place: PathBuf,
}

impl Part {
    fn at(layout: &Layout, place: &Path) -> Result<Part> {
        let place = resolved(place, &layout.inside)?;
        let is_volume = volume::is_mount_point(&place);
        let fresh = match is_volume {
            true => place.join(FRESH),
            false => beside(&place, FRESH),
        };
        Ok(Part { place, fresh, is_volume })
    }

    /// With whose rights its folder is worked on.
    fn around(&self, layout: &Layout) -> Result<Rights> {
        Ok(Rights::in_directory(self.fresh.parent().unwrap_or(Path::new("/")), &layout.inside)?)
    }

    /// Puts the copy in its place. `link` is its name in the data directories, the new one and the old one.
    fn swap(&self, layout: &Layout, stamp: &str, (new, old): (&Path, &Path), link: &str) -> Result<()> {
        let (around, inside) = (self.around(layout)?, &layout.inside);
        let old_link = old.join(link);
        let was_there =
            inside.link(&old_link)?.is_some_and(|to| resolved(&to, inside).is_ok_and(|to| to == self.place));
        if self.is_volume {
            // What else is on that volume is not the database's.
            let copied = inside.names(&self.fresh)?;
            let goes = |name: &String| if link == WAL { is_wal(name) } else { copied.contains(name) };
            for name in inside.names(&self.place)?.into_iter().filter(goes) {
                // Nothing can be beside the root of a volume: of what was there nothing is kept.
                tracing::warn!(place = %self.place.display(), %name, "removing what the copy replaces on a volume of its own");
                inside.remove_any(&self.place.join(name))?;
            }
            for name in copied {
                inside.rename(&self.fresh.join(&name), &self.place.join(&name))?;
            }
            around.remove_tree(&self.fresh)?;
            inside.sync_directory_of(&self.place.join(FRESH))?;
        } else {
            if around.exists(&self.place) {
                let aside = beside_as(&self.place, &format!("{REPLACED}{stamp}"));
                around.rename(&self.place, &aside)?;
                if was_there {
                    inside.replace_link(&old_link, &aside)?;
                }
            }
            around.rename(&self.fresh, &self.place)?;
            around.sync_directory_of(&self.place)?;
        }
        Ok(inside.replace_link(&new.join(link), &self.place)?)
    }
}

/// Whether the data directory can be replaced by a copy at all.
pub fn refuse_volume(data_dir: &Path) -> Result<()> {
    if !volume::is_mount_point(data_dir) {
        return Ok(());
    }
    let why = format!(
        "{} is the root of a volume, and a copy is made beside it: use a directory in it as data_dir",
        data_dir.display()
    );
    Err(EngineError::Refused { action: "make a database there", why })
}

/// Refuses where the directory for the WAL of a new database holds anything. `again`: but what an unfinished try left.
pub fn refuse_used(layout: &Layout, wal: &Path, again: bool) -> Result<()> {
    let part = Part::at(layout, wal)?;
    let stays = |name: &String| name != LOST && !(again && is_wal(name));
    if layout.inside.exists(&part.place) && layout.inside.names(&part.place)?.iter().any(stays) {
        let why = format!("{} is to hold its WAL and is not empty; move away what is in it", wal.display());
        return Err(EngineError::Refused { action: "make a new database", why });
    }
    Ok(())
}

/// Makes that directory, empty.
pub fn make_wal_dir(layout: &Layout, wal: &Path) -> Result<()> {
    let part = Part::at(layout, wal)?;
    if layout.inside.exists(&part.place) {
        for name in layout.inside.names(&part.place)?.into_iter().filter(|name| is_wal(name)) {
            layout.inside.remove_any(&part.place.join(name))?;
        }
    }
    if !part.is_volume {
        layout.make_for_database(&part.place)?;
    }
    Ok(())
}

/// Moves the WAL of a database that a program of the operator's made to where it belongs; `None`: in its directory. Refuses one
/// that lies anywhere else, where it may be another database's.
pub fn gather_wal(made: &Layout, belongs: Option<&Path>) -> Result<()> {
    let (wal, inside) = (made.wal(), &made.inside);
    let linked = inside.link(&wal)?;
    if linked.as_deref() == belongs {
        return Ok(());
    }
    if let Some(elsewhere) = linked {
        let expected = belongs.map_or("a directory".to_owned(), |place| format!("a link to {}", place.display()));
        let detail = format!("it leads to {}; expected {expected}", elsewhere.display());
        return Err(EngineError::Malformed { path: wal, detail });
    }
    let Some(belongs) = belongs else { return Ok(()) };
    if inside.exists(&wal) {
        // What is to be archived of it was not written here.
        let is_file = |name: &String| is_wal(name) && !FOLDERS.contains(&name.as_str());
        for name in inside.names(&wal)?.into_iter().filter(is_file) {
            inside.copy(&wal.join(&name), &belongs.join(&name))?;
        }
        inside.remove_tree(&wal)?;
    }
    inside.make_directory(&belongs.join(FOLDERS[0]), 0o700)?;
    Ok(inside.replace_link(&wal, belongs)?)
}

/// Where a path leads in the end, by the rights of the database's user; what is missing of it stays as it is.
fn resolved(path: &Path, user: &Rights) -> Result<PathBuf> {
    let found = user.within(|| path.canonicalize()).map_err(EngineError::file("find", path))?;
    Ok(found.unwrap_or_else(|_| path.to_owned()))
}

fn beside(place: &Path, suffix: &str) -> PathBuf {
    let name = place.file_name().unwrap_or(OsStr::new("copy")).to_string_lossy();
    place.with_file_name(format!(".regent-{name}{suffix}"))
}

fn beside_as(place: &Path, suffix: &str) -> PathBuf {
    let name = place.file_name().unwrap_or(OsStr::new("copy")).to_string_lossy();
    place.with_file_name(format!("{name}{suffix}"))
}

/// As pg_basebackup reads it: an equals sign parts the two paths.
fn escaped(path: &Path) -> PathBuf {
    PathBuf::from(path.to_string_lossy().replace('=', "\\="))
}
