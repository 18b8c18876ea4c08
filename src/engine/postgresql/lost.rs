//! Reads the WAL that only a former primary had, with PostgreSQL's own pg_waldump and as the database's user, and tells the
//! transactions in it one after the other. Nothing is written, and no more is kept than what is under way.
//!
//! Not here: which folder (the ledger names it), and what the records mean (`waldump.rs`, `losses.rs`).
//!
//! Source: pg_waldump(1).

use super::error::{EngineError, Result};
use super::keep::{NOTE, Note};
use super::layout::Layout;
use super::losses::{Losses, Sizes};
use super::program::{OsUser, Run};
use super::relations::Relations;
use super::runs::Runs;
use super::segments::{self, Cover, Stretch, Wanted};
use super::waldump;
use crate::config::{Config, Postgresql};
use crate::types::{LostSummary, LostTransaction, Lsn, MissingWal, ServiceName, Timeline};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Many gigabytes take long, and the person at the terminal can end it.
const DEADLINE: Duration = Duration::from_secs(24 * 3600);
/// No note is longer.
const NOTE_LIMIT: u64 = 1 << 16;
/// Where the header of a segment says how large segments and pages are, after its first page's own header.
const SIZES_AT: u64 = 32;

/// Reads WAL of one service with the programs and rights of its database on this host.
#[derive(Debug)]
pub struct Reader {
    layout: Layout,
    user: OsUser,
    postgresql: Postgresql,
}

/// WAL of a former primary from a fork on, somewhere in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DivergedWal {
    /// Where the segments are.
    pub folder: PathBuf,
    pub timeline: Timeline,
    /// Where the timeline was left that goes on elsewhere.
    pub fork: Lsn,
    /// Where it ends, as far as that was noted when it was kept.
    pub end: Option<Lsn>,
    names: Vec<String>,
    sizes: Sizes,
}

/// What the reading of some segments came to.
struct Read {
    /// Where the last record ends; `None`: there was none.
    to: Option<Lsn>,
    /// What pg_waldump said in the end.
    said: String,
}

impl Read {
    /// The segment in which the reading ended before it should.
    fn broken(self, wal: &DivergedWal, timeline: Timeline, number: u64) -> MissingWal {
        let name = segments::name(timeline, number, wal.sizes.segment);
        let why = (!self.said.is_empty()).then_some(self.said);
        MissingWal { first: name.clone(), last: name, after: self.to, why }
    }
}

/// What comes after some segments in a row.
#[derive(Clone, Copy)]
enum After {
    /// The end that was noted.
    End(Lsn),
    /// Segments that are missing.
    Gap,
    OtherTimeline,
    /// Nobody noted where the end is.
    Nothing,
}

/// What is told as it is found.
struct Telling<'a, F> {
    losses: Losses,
    relations: Relations<'a>,
    transactions: u64,
    without_rows: u64,
    tell: F,
}

impl Reader {
    /// Errors: the service or its user does not exist here.
    pub fn new(config: &Config, service: &ServiceName) -> Result<Self> {
        let known = config.services.get(service);
        let known = known.ok_or_else(|| EngineError::NoSuchService { service: service.clone() })?;
        let postgresql = known.postgresql.clone();
        let user = OsUser::find(&postgresql.os_user, service, Runs::beside(None))?;
        let layout = Layout::new(config, service, &user)?;
        Ok(Reader { layout, user, postgresql })
    }

    /// Looks at a folder that a rejoin has kept, a data directory that it put aside, or any directory with WAL in it.
    /// `timeline` and `after`: what the ledger says was lost; the note in a folder knows better.
    pub fn find(&self, folder: &Path, timeline: Timeline, after: Lsn) -> Result<DivergedWal> {
        let inside = &self.layout.inside;
        let note = folder.join(NOTE);
        let note = match inside.exists(&note) {
            true => Note::parse(&inside.read_text(&note, NOTE_LIMIT)?),
            false => None,
        };
        let within = folder.join("pg_wal");
        let folder = if inside.exists(&within) { within } else { folder.to_owned() };
        let names = inside.names(&folder)?;
        let sizes = self.sizes(&folder, &names)?;
        let (timeline, fork) = note.map_or((timeline, after), |note| (note.end.timeline, note.fork));
        Ok(DivergedWal { folder, timeline, fork, end: note.map(|note| note.end.lsn), names, sizes })
    }

    /// Tells each transaction that was committed after the fork, in the order of their commits.
    pub async fn list(&self, wal: &DivergedWal, tell: impl FnMut(&LostTransaction)) -> Result<LostSummary> {
        let wanted = Wanted { from: wal.fork, end: wal.end, timeline: wal.timeline };
        let Cover { stretches, mut missing } = segments::cover(&wal.names, &wanted, wal.sizes.segment);
        let relations = Relations::new(&self.layout, &self.postgresql);
        let losses = Losses::after(wal.fork, wal.sizes);
        let mut telling = Telling { losses, relations, transactions: 0, without_rows: 0, tell };
        let mut next = wal.fork.0 / wal.sizes.segment;
        for (at, stretch) in stretches.iter().enumerate() {
            if stretch.first != next {
                telling.losses.gap();
            }
            next = stretch.last + 1;
            let after = match stretches.get(at + 1) {
                Some(other) if other.first == next => After::OtherTimeline,
                Some(_) => After::Gap,
                None => match wal.end {
                    Some(end) if end.0 > next * wal.sizes.segment => After::Gap,
                    Some(end) => After::End(end),
                    None => After::Nothing,
                },
            };
            match after {
                After::Nothing => self.read_on(wal, *stretch, &mut telling, &mut missing).await?,
                after => self.read_through(wal, *stretch, after, &mut telling, &mut missing).await?,
            }
        }
        missing.sort_by(|a, b| a.first[8..].cmp(&b.first[8..]));
        let Telling { losses, relations, transactions, without_rows, .. } = telling;
        let unnamed = relations.silent().map(str::to_owned);
        Ok(LostSummary { transactions, without_rows, missing, unnamed, ..losses.summary() })
    }

    /// Reads a stretch whose end is known; where something of it cannot be read, from the next segment on again.
    async fn read_through(
        &self,
        wal: &DivergedWal,
        stretch: Stretch,
        after: After,
        telling: &mut Telling<'_, impl FnMut(&LostTransaction)>,
        missing: &mut Vec<MissingWal>,
    ) -> Result<()> {
        let end = match after {
            After::End(end) => end,
            _ => Lsn((stretch.last + 1) * wal.sizes.segment),
        };
        let mut first = stretch.first;
        while first <= stretch.last {
            let read = self.read(wal, Stretch { first, ..stretch }, telling).await?;
            if read.to.is_some_and(|to| to >= end) {
                return Ok(());
            }
            let broken = read.to.map_or(first, |to| to.0 / wal.sizes.segment);
            // A record that reaches into a segment that is missing is missing with it.
            if broken < stretch.last || read.to.is_none() || !matches!(after, After::Gap) {
                missing.push(read.broken(wal, stretch.timeline, broken));
            }
            telling.losses.gap();
            first = broken + 1;
        }
        Ok(())
    }

    /// Reads as far as there is WAL. Behind its end there may be files that PostgreSQL has ready for later: nothing in them
    /// can be read. What can be read behind a place that cannot shows that the place is damaged.
    async fn read_on(
        &self,
        wal: &DivergedWal,
        stretch: Stretch,
        telling: &mut Telling<'_, impl FnMut(&LostTransaction)>,
        missing: &mut Vec<MissingWal>,
    ) -> Result<()> {
        let (mut first, mut damaged) = (stretch.first, None);
        while first <= stretch.last {
            let read = self.read(wal, Stretch { first, ..stretch }, telling).await?;
            let Some(to) = read.to else {
                if telling.losses.read_to().is_none() {
                    missing.push(read.broken(wal, stretch.timeline, first));
                }
                return Ok(());
            };
            missing.extend(damaged.take());
            let broken = to.0 / wal.sizes.segment;
            damaged = Some(read.broken(wal, stretch.timeline, broken));
            telling.losses.gap();
            first = broken + 1;
        }
        Ok(())
    }

    /// Reads some segments as far as they can be read.
    async fn read(
        &self,
        wal: &DivergedWal,
        stretch: Stretch,
        telling: &mut Telling<'_, impl FnMut(&LostTransaction)>,
    ) -> Result<Read> {
        let Stretch { timeline, first, last } = stretch;
        let [first, last] = [first, last].map(|number| segments::name(timeline, number, wal.sizes.segment));
        let timeline = timeline.to_string();
        let run = Run {
            user: &self.user,
            program: self.layout.program("pg_waldump"),
            // The segments are named, so that their size is taken from the first of them and from no other file.
            arguments: vec![
                "-p".as_ref(),
                wal.folder.as_os_str(),
                "-t".as_ref(),
                timeline.as_ref(),
                first.as_ref(),
                last.as_ref(),
            ],
            environment: vec![("LC_ALL", "C".as_ref()), ("TZ", "UTC0".as_ref())],
            input: String::new(),
            deadline: DEADLINE,
        };
        let mut any = false;
        // It ends with an error wherever the WAL does: what was read tells.
        let (_, said) = run
            .lines(async |line| {
                let record = waldump::record(line)
                    .map_err(|error| EngineError::Malformed { path: wal.folder.clone(), detail: error.to_string() })?;
                if let Some(record) = record {
                    any = true;
                    telling.take(record).await;
                }
                Ok(())
            })
            .await?;
        Ok(Read { to: telling.losses.read_to().filter(|_| any), said })
    }

    /// The sizes of this WAL, by the first segment that says them.
    fn sizes(&self, folder: &Path, names: &[String]) -> Result<Sizes> {
        let mut names: Vec<_> = names.iter().filter(|name| segments::is_segment(name)).collect();
        names.sort();
        let mut found = names.into_iter().map(|name| self.sizes_in(&folder.join(name)));
        let is_there = |sizes: &Result<Option<Sizes>>| !matches!(sizes, Ok(None));
        let missing = || EngineError::Malformed {
            path: folder.to_owned(),
            detail: "no WAL segment is in it; name the directory in which the segments are".to_owned(),
        };
        found.find(is_there).unwrap_or(Ok(None))?.ok_or_else(missing)
    }

    fn sizes_in(&self, segment: &Path) -> Result<Option<Sizes>> {
        let file = self.layout.inside.open(segment)?;
        let mut header = [0; 8];
        match file.read_exact_at(&mut header, SIZES_AT) {
            Ok(()) => Ok(sizes_of(header)),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(EngineError::file("read", segment)(error)),
        }
    }
}

/// The two numbers at that place, in the order of bytes of the machine that wrote them; nothing where they are none.
fn sizes_of(header: [u8; 8]) -> Option<Sizes> {
    let number = |bytes: [u8; 4]| u64::from(u32::from_ne_bytes(bytes));
    let [a, b, c, d, e, f, g, h] = header;
    let sizes = Sizes { segment: number([a, b, c, d]), block: number([e, f, g, h]) };
    let fits = |size: u64, range: std::ops::RangeInclusive<u64>| size.is_power_of_two() && range.contains(&size);
    (fits(sizes.segment, 1 << 20..=1 << 30) && fits(sizes.block, 1 << 10..=1 << 16)).then_some(sizes)
}

impl<F: FnMut(&LostTransaction)> Telling<'_, F> {
    async fn take(&mut self, record: waldump::Record) {
        let Some(mut lost) = self.losses.take(record) else { return };
        if self.relations.name(&mut lost).await {
            self.transactions += 1;
            (self.tell)(&lost);
        } else {
            self.without_rows += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_where_they_are_sizes() {
        let header = |segment: u32, block: u32| {
            let mut bytes = [0; 8];
            bytes[..4].copy_from_slice(&segment.to_ne_bytes());
            bytes[4..].copy_from_slice(&block.to_ne_bytes());
            bytes
        };
        assert_eq!(sizes_of(header(16 << 20, 8192)), Some(Sizes { segment: 16 << 20, block: 8192 }));
        assert_eq!(sizes_of(header(1 << 20, 32768)), Some(Sizes { segment: 1 << 20, block: 32768 }));
        for (segment, block) in [(0, 0), (16 << 20, 0), (3 << 20, 8192), (1 << 31, 8192), (8192, 16 << 20)] {
            assert_eq!(sizes_of(header(segment, block)), None, "{segment} and {block}");
        }
    }
}
