//! On which volumes a database lay when it last ran. A volume that is not mounted looks like an empty directory: a copy
//! would fill the volume below it, and a server says no more of it than that a file is missing.
//!
//! Not here: whether a part can be copied otherwise (`places.rs`).

use super::error::{EngineError, Result};
use super::layout::Layout;
use super::volume;
use crate::rights::Rights;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What needs a volume where the database is not there yet.
pub const TO_MAKE: &str = "make a database there";
/// No note is longer.
const LIMIT: u64 = 1 << 20;

/// Writes down where the data directory, its WAL and its tablespaces lie, as it is about to be started.
pub fn note(layout: &Layout) -> Result<()> {
    let roots: BTreeMap<PathBuf, PathBuf> =
        parts(layout)?.into_iter().filter_map(|place| Some((place.clone(), root_of(layout, &place)?))).collect();
    if roots == noted(layout)? {
        return Ok(());
    }
    let text: String = roots.iter().map(|(place, root)| format!("{}\t{}\n", place.display(), root.display())).collect();
    Ok(Rights::own().replace(&file(layout), 0o600, &text)?)
}

/// Where the database in the directory has its parts: itself, its WAL and its tablespaces.
pub fn parts(layout: &Layout) -> Result<Vec<PathBuf>> {
    let mut places = vec![layout.data_dir.clone()];
    places.extend(layout.inside.link(&layout.wal())?);
    let links = layout.within("pg_tblspc");
    for name in layout.inside.names(&links).unwrap_or_default() {
        places.extend(layout.inside.link(&links.join(name))?);
    }
    Ok(places)
}

/// Refuses to start a database of which a part lay on a volume that is not mounted now.
pub fn must_be_whole(layout: &Layout) -> Result<()> {
    must_be_there(layout, "start it", parts(layout)?.iter().map(PathBuf::as_path))
}

/// Refuses to do that where a place lay on a volume that is not mounted now.
pub fn must_be_there<'p>(layout: &Layout, action: &'static str, places: impl Iterator<Item = &'p Path>) -> Result<()> {
    let noted = noted(layout)?;
    for place in places {
        let Some(root) = noted.get(place) else { continue };
        // Another volume may be mounted there meanwhile, over the one that it was on.
        if !volume::is_mount_point(root) {
            let why = format!(
                "{} was on the volume of {} when it last ran, which is not mounted: mount it, or remove {} if it is meant \
                 to lie where it is now",
                place.display(),
                root.display(),
                file(layout).display()
            );
            return Err(EngineError::Refused { action, why });
        }
    }
    Ok(())
}

fn file(layout: &Layout) -> PathBuf {
    layout.keep.join("mounts")
}

fn noted(layout: &Layout) -> Result<BTreeMap<PathBuf, PathBuf>> {
    let text = match Rights::own().read_text(&file(layout), LIMIT) {
        Ok(text) => text,
        Err(error) if error.source.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error.into()),
    };
    let pair = |line: &str| line.split_once('\t').map(|(place, root)| (PathBuf::from(place), PathBuf::from(root)));
    Ok(text.lines().filter_map(pair).collect())
}

/// The root of the volume that a place lies on, by the rights of the database's user: links may lead there.
fn root_of(layout: &Layout, place: &Path) -> Option<PathBuf> {
    let real = |at: &Path| layout.inside.within(|| at.canonicalize()).ok()?.ok();
    let there = place.ancestors().find_map(real)?;
    there.ancestors().find(|at| volume::is_mount_point(at)).map(Path::to_owned)
}
