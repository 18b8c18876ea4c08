//! regent's own writes: one page beside the data, beside the WAL, in each tablespace and beside the server's log where those
//! are on volumes of their own, each written, synced and removed again every probe interval while the server runs. What a
//! server says of its volume comes late, or not at all: its writes go to memory first, and to segments that are there
//! already.
//!
//! Each place has a thread of its own, which nothing waits for: a write in a volume that stalls cannot be ended. Beside the
//! data it is done with the rights of the database's user, whom root's reserve of a volume does not serve. The name begins
//! as those of PostgreSQL's own temporary files: pg_basebackup, pg_rewind and pg_checksums leave such a file out, and so do
//! the tools for backups. Each write makes a new file, because one that is there already has its room.
//!
//! The thread beside the data also sees whether the directory is still the one in which the server works, and which tablespaces
//! there are: they come and go while it runs. Of these it reads the links alone, because what is behind one may hang.
//!
//! Not here: what follows (`config/trouble.rs`).

use super::core::Core;
use super::volume;
use crate::clock;
use crate::rights::Rights;
use crate::types::{Fails, Instant, Trouble};
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// As PostgreSQL's temporary files.
const NAME: &str = "pgsql_tmp.regent";
const PAGE: usize = 8192;
/// So many refused writes in a row are certain.
const CERTAIN: u32 = 2;
/// The log, and whether there are other tablespaces, are looked at once in so many intervals: nothing waits for it.
const RARELY: u32 = 10;

/// The writes of one database.
#[derive(Debug, Default)]
pub struct Pages {
    places: Mutex<Vec<Arc<Place>>>,
}

/// Where pages are written, and what came of it.
#[derive(Debug)]
struct Place {
    of: Of,
    directory: PathBuf,
    rights: Rights,
    /// The postmaster that runs, or 0.
    postmaster: AtomicI32,
    came: Mutex<Came>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Of {
    Data,
    Wal,
    /// With the place that its link names.
    Tablespace(String),
    Log,
}

#[derive(Clone, Debug, Default)]
struct Came {
    /// When the present write began, while one is under way.
    under_way: Option<Instant>,
    /// How the last ones were refused, and how many in a row.
    refused: Option<(Fails, u32)>,
    /// Since when the directory is not the server's any more.
    gone_since: Option<Instant>,
}

impl Pages {
    /// From now on, for the server of this postmaster.
    pub fn watch(&self, core: &Arc<Core>, postmaster: i32) {
        if self.places().is_empty() {
            // It asks the disk, for which nobody else may wait.
            let found = places_of(core);
            let mut places = self.places();
            if places.is_empty() {
                found.iter().for_each(|place| begin(place, core));
                *places = found;
            }
        }
        self.places().iter().for_each(|place| place.postmaster.store(postmaster, Ordering::Relaxed));
    }

    fn places(&self) -> MutexGuard<'_, Vec<Arc<Place>>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No server runs, and nothing is written.
    pub fn rest(&self) {
        for place in self.places().iter() {
            place.postmaster.store(0, Ordering::Relaxed);
            let mut came = place.came();
            *came = Came { under_way: came.under_way, ..Came::default() };
        }
    }

    /// What is wrong with its volumes, the gravest of it. A write that takes longer than `patience` is trouble.
    pub fn trouble(&self, patience: Duration) -> Option<Trouble> {
        let places = self.places();
        let found = places.iter().filter_map(|place| place.trouble(patience));
        found.min_by_key(|trouble| match trouble {
            Trouble::DirectoryGone { .. } => 0,
            Trouble::VolumeStalled { .. } => 1,
            Trouble::VolumeReadOnly { .. } => 2,
            Trouble::VolumeFull => 3,
            Trouble::Tablespace { .. } => 4,
            _ => 5,
        })
    }

    /// From now on also in the tablespaces that there are by now, and in none that is gone.
    fn follow_tablespaces(&self, core: &Arc<Core>, postmaster: i32) {
        let (layout, links) = (&core.layout, core.layout.within("pg_tblspc"));
        let Ok(names) = layout.inside.names(&links) else { return };
        let there: BTreeSet<PathBuf> = names.iter().map(|name| links.join(name)).collect();
        let mut places = self.places();
        places.retain(|place| !matches!(place.of, Of::Tablespace(_)) || there.contains(&place.directory));
        for link in there {
            if places.iter().any(|place| place.directory == link) {
                continue;
            }
            // What is no link lies in the data directory.
            let Ok(Some(target)) = layout.inside.link(&link) else { continue };
            let place = Place::new(Of::Tablespace(target.display().to_string()), link, layout.inside.clone());
            place.postmaster.store(postmaster, Ordering::Relaxed);
            begin(&place, core);
            places.push(place);
        }
    }
}

/// Where they are written. What lies on one volume is asked once.
fn places_of(core: &Core) -> Vec<Arc<Place>> {
    let layout = &core.layout;
    let wal = layout.data_dir.join("pg_wal");
    let (on, logs_on) = (volume::number(&layout.data_dir), volume::number(&layout.keep));
    let mut places = vec![Place::new(Of::Data, layout.data_dir.clone(), layout.inside.clone())];
    if volume::number(&wal) != on {
        places.push(Place::new(Of::Wal, wal.clone(), layout.inside.clone()));
    }
    if logs_on != on && logs_on != volume::number(&wal) {
        places.push(Place::new(Of::Log, layout.keep.clone(), Rights::own()));
    }
    places
}

/// It ends with the engine, or once nobody asks for the place any more; where it hangs in a write it ends with that.
fn begin(place: &Arc<Place>, core: &Arc<Core>) {
    let (place, core, interval) = (place.clone(), Arc::downgrade(core), core.postgresql().probe_interval);
    let every = if place.of == Of::Log { interval * RARELY } else { interval };
    let begun = std::thread::Builder::new().name("pages".to_owned()).spawn(move || {
        let mut looks = 0_u32;
        while core.strong_count() > 0 && Arc::strong_count(&place) > 1 {
            let postmaster = place.postmaster.load(Ordering::Relaxed);
            if postmaster > 0 {
                place.look(&core);
                let is_due = place.of == Of::Data && looks.is_multiple_of(RARELY);
                if let Some(core) = core.upgrade().filter(|_| is_due) {
                    core.pages.follow_tablespaces(&core, postmaster);
                }
                looks = looks.wrapping_add(1);
            }
            std::thread::sleep(every);
        }
    });
    if let Err(error) = begun {
        tracing::error!(%error, "no thread for regent's own writes beside the data: trouble of its volume is not seen");
    }
}

impl Place {
    fn new(of: Of, directory: PathBuf, rights: Rights) -> Arc<Place> {
        let (postmaster, came) = (AtomicI32::new(0), Mutex::default());
        Arc::new(Place { of, directory, rights, postmaster, came })
    }

    /// Whether what is written here says nothing more than what is written beside the data. It asks the disk.
    fn is_on_the_volume_of_the_data(&self) -> bool {
        let beside = self.directory.parent().and_then(volume::number);
        matches!(self.of, Of::Tablespace(_)) && volume::number(&self.directory) == beside
    }

    fn came(&self) -> MutexGuard<'_, Came> {
        self.came.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One write, and one look at whose directory it is.
    fn look(&self, core: &Weak<Core>) {
        self.came().under_way = Some(clock::now());
        let gone = self.of == Of::Data && is_gone(&self.directory, self.postmaster.load(Ordering::Relaxed));
        // In a directory that is another's nothing is written.
        let is_left_out = gone || self.is_on_the_volume_of_the_data();
        let written = if is_left_out { Ok(()) } else { write_page(&self.directory, &self.rights) };
        let news = {
            let mut came = self.came();
            let before = came.is_certain();
            came.under_way = None;
            came.gone_since = came.gone_since.or_else(|| Some(clock::now())).filter(|_| gone);
            came.refused = written.err().and_then(refusal).map(|refused| match came.refused.take() {
                Some((last, times)) if last == refused => (refused, times.saturating_add(1)),
                _ => (refused, 1),
            });
            before != came.is_certain()
        };
        if let Some(core) = core.upgrade().filter(|_| news) {
            core.look.notify_one();
        }
    }

    fn trouble(&self, patience: Duration) -> Option<Trouble> {
        let came = self.came().clone();
        let ms = |since: Instant| u64::try_from(clock::now().since(since).as_millis()).unwrap_or(u64::MAX);
        if let Some(since) = came.gone_since {
            return Some(Trouble::DirectoryGone { since_ms: ms(since) });
        }
        let slow = came.under_way.filter(|began| clock::now().since(*began) > patience && self.of != Of::Log);
        let fails = match (slow, came.refused) {
            (Some(began), _) => Fails::Stalled { since_ms: ms(began) },
            (None, Some((fails, CERTAIN..))) => fails,
            _ => return None,
        };
        match (&self.of, fails) {
            (Of::Tablespace(place), fails) => Some(Trouble::Tablespace { place: place.clone(), fails }),
            (Of::Log, Fails::Full) => Some(Trouble::LogVolumeFull),
            (Of::Log, _) => None,
            (_, Fails::Full) => Some(Trouble::VolumeFull),
            (_, Fails::ReadOnly { error }) => Some(Trouble::VolumeReadOnly { error }),
            (_, Fails::Stalled { since_ms }) => Some(Trouble::VolumeStalled { since_ms }),
        }
    }
}

impl Came {
    fn is_certain(&self) -> bool {
        self.gone_since.is_some() || matches!(self.refused, Some((_, CERTAIN..)))
    }
}

/// What says something of the volume; a right that is missing, say, does not.
fn refusal(error: io::Error) -> Option<Fails> {
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => Some(Fails::Full),
        Some(libc::EROFS | libc::EIO) => Some(Fails::ReadOnly { error: error.to_string() }),
        _ => {
            tracing::debug!(%error, "a page beside the data was not written");
            None
        }
    }
}

/// A new page, synced and removed again.
fn write_page(directory: &Path, rights: &Rights) -> io::Result<()> {
    // No zeros: a volume that compresses has room for those when it is full.
    let page: Vec<u8> = (0..PAGE as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    rights.try_write(&directory.join(NAME), &page)
}

/// Whether the server of this postmaster works in another directory than this one, or in one that was removed.
fn is_gone(directory: &Path, postmaster: i32) -> bool {
    let Ok(works_in) = fs::metadata(format!("/proc/{postmaster}/cwd")) else { return false };
    match fs::metadata(directory) {
        Ok(there) => (there.dev(), there.ino()) != (works_in.dev(), works_in.ino()),
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(directory: &Path) -> Arc<Place> {
        Place::new(Of::Data, directory.to_owned(), Rights::own())
    }

    #[test]
    fn a_page_is_written_and_nothing_is_left_of_it() {
        let folder = tempfile::tempdir().expect("a directory");
        fs::write(folder.path().join(NAME), "left by an earlier daemon").expect("written");
        write_page(folder.path(), &Rights::own()).expect("written");
        assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 0);
    }

    #[test]
    fn one_refused_write_is_not_certain_and_what_takes_too_long_is() {
        let folder = tempfile::tempdir().expect("a directory");
        let place = place(folder.path());
        let refused = |times| Came { refused: Some((Fails::Full, times)), ..Came::default() };
        *place.came() = refused(1);
        assert_eq!(place.trouble(Duration::from_secs(3)), None);
        *place.came() = refused(2);
        assert_eq!(place.trouble(Duration::from_secs(3)), Some(Trouble::VolumeFull));
        *place.came() = Came { under_way: Some(clock::now()), ..Came::default() };
        assert_eq!(place.trouble(Duration::from_secs(3)), None);
        assert!(matches!(place.trouble(Duration::ZERO), Some(Trouble::VolumeStalled { .. })));
    }

    #[test]
    fn a_directory_that_was_moved_away_or_replaced_is_gone() {
        let me = std::process::id().cast_signed();
        let here = std::env::current_dir().expect("one");
        let folder = tempfile::tempdir().expect("a directory");
        assert!(!is_gone(&here, me));
        assert!(is_gone(folder.path(), me), "another one stands in its place");
        assert!(is_gone(&folder.path().join("away"), me));
        assert!(!is_gone(&folder.path().join("away"), i32::MAX), "no such process: nothing is known");
    }
}
