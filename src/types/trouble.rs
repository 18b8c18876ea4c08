//! Local trouble of a running database: its node is fine, it is not.
//!
//! Not here: how it is seen (`engine`), and what is done about it (`config/trouble.rs` has the table, `plan/keeper/` does
//! it).

use serde::{Deserialize, Serialize};

/// How a database is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    /// For how long.
    pub since_ms: u64,
    /// For how long nothing of it has moved either: processor time, reads and writes. Zero where that is not looked at.
    #[serde(default)]
    pub still_ms: u64,
    /// It is certain that it serves nobody: its postmaster was stopped by a signal.
    #[serde(default)]
    pub serves_nobody: bool,
}

/// How a volume takes no writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fails {
    Full,
    /// It is read-only, or fails.
    ReadOnly {
        error: String,
    },
    /// A write has not ended for so long.
    Stalled {
        since_ms: u64,
    },
}

/// What is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// The postmaster or its backends do not answer.
    NotAnswering(Silence),
    /// Its data directory was moved away, or removed, or its volume was: what it writes nobody finds again.
    DirectoryGone { since_ms: u64 },
    /// A write beside the data has not ended for so long.
    VolumeStalled { since_ms: u64 },
    /// Writes beside the data are refused: the volume is read-only, or fails.
    VolumeReadOnly { error: String },
    /// The data volume is full, or the WAL's.
    VolumeFull,
    /// The read-write probe fails.
    ProbeFailed { error: String },
    /// A cause that would travel with the data (no transaction numbers are left): an alarm, not a move.
    Travels { cause: String },
    /// So much WAL waits to be archived, the oldest of it for so long.
    ArchiverStuck { waiting: u64, seconds: u64 },
    /// The oldest row is of so many transactions ago: at 2^31 no more are given out.
    WraparoundNear { age: u64 },
    /// The volume of the server's log is full.
    LogVolumeFull,
    /// The volume of a tablespace that lies on one of its own takes no writes.
    Tablespace { place: String, fails: Fails },
}

/// The kinds for which the file says what is done (`[service.NAME.trouble]`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TroubleKind {
    VolumeFull,
    VolumeReadOnly,
    VolumeStalled,
    ArchiverStuck,
    WraparoundNear,
    LogVolumeFull,
    Tablespace,
}

impl TroubleKind {
    /// As the file has it.
    pub fn key(self) -> &'static str {
        match self {
            TroubleKind::VolumeFull => "volume_full",
            TroubleKind::VolumeReadOnly => "volume_read_only",
            TroubleKind::VolumeStalled => "volume_stalled",
            TroubleKind::ArchiverStuck => "archiver_stuck",
            TroubleKind::WraparoundNear => "wraparound_near",
            TroubleKind::LogVolumeFull => "log_volume_full",
            TroubleKind::Tablespace => "tablespace",
        }
    }
}

/// No text of a trouble that others are told is longer, in bytes.
const TOLD: usize = 120;

impl Trouble {
    /// The kind, where the file says what is done.
    pub fn kind(&self) -> Option<TroubleKind> {
        match self {
            Trouble::VolumeFull => Some(TroubleKind::VolumeFull),
            Trouble::VolumeReadOnly { .. } => Some(TroubleKind::VolumeReadOnly),
            Trouble::VolumeStalled { .. } => Some(TroubleKind::VolumeStalled),
            Trouble::ArchiverStuck { .. } => Some(TroubleKind::ArchiverStuck),
            Trouble::WraparoundNear { .. } => Some(TroubleKind::WraparoundNear),
            Trouble::LogVolumeFull => Some(TroubleKind::LogVolumeFull),
            Trouble::Tablespace { .. } => Some(TroubleKind::Tablespace),
            Trouble::NotAnswering(_)
            | Trouble::DirectoryGone { .. }
            | Trouble::ProbeFailed { .. }
            | Trouble::Travels { .. } => None,
        }
    }

    /// Whether its volume takes no write: who has it can neither be opened nor go on.
    pub fn is_of_the_volume(&self) -> bool {
        matches!(self, Trouble::VolumeFull | Trouble::VolumeReadOnly { .. } | Trouble::VolumeStalled { .. })
    }

    /// The same without what grows while it lasts.
    pub fn lasting(&self) -> Trouble {
        match self {
            Trouble::NotAnswering(silence) => {
                Trouble::NotAnswering(Silence { since_ms: 0, still_ms: 0, serves_nobody: silence.serves_nobody })
            }
            Trouble::DirectoryGone { .. } => Trouble::DirectoryGone { since_ms: 0 },
            Trouble::VolumeStalled { .. } => Trouble::VolumeStalled { since_ms: 0 },
            Trouble::ArchiverStuck { .. } => Trouble::ArchiverStuck { waiting: 0, seconds: 0 },
            Trouble::WraparoundNear { .. } => Trouble::WraparoundNear { age: 0 },
            Trouble::Tablespace { place, fails: Fails::Stalled { .. } } => {
                Trouble::Tablespace { place: place.clone(), fails: Fails::Stalled { since_ms: 0 } }
            }
            other => other.clone(),
        }
    }

    /// For a heartbeat: texts are cut, and what grows all the time is told in whole steps.
    pub fn brief(&self) -> Trouble {
        let cut = |text: &str| {
            let end = text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= TOLD).last();
            text[..end.unwrap_or_default()].to_owned()
        };
        let whole_seconds = |ms: u64| ms - ms % 1000;
        match self {
            Trouble::NotAnswering(Silence { since_ms, serves_nobody, .. }) => Trouble::NotAnswering(Silence {
                since_ms: whole_seconds(*since_ms),
                still_ms: 0,
                serves_nobody: *serves_nobody,
            }),
            Trouble::DirectoryGone { since_ms } => Trouble::DirectoryGone { since_ms: whole_seconds(*since_ms) },
            Trouble::VolumeStalled { since_ms } => Trouble::VolumeStalled { since_ms: whole_seconds(*since_ms) },
            Trouble::VolumeReadOnly { error } => Trouble::VolumeReadOnly { error: cut(error) },
            Trouble::ProbeFailed { error } => Trouble::ProbeFailed { error: cut(error) },
            Trouble::Travels { cause } => Trouble::Travels { cause: cut(cause) },
            Trouble::Tablespace { place, fails } => {
                let fails = match fails {
                    Fails::Full => Fails::Full,
                    Fails::ReadOnly { error } => Fails::ReadOnly { error: cut(error) },
                    Fails::Stalled { since_ms } => Fails::Stalled { since_ms: whole_seconds(*since_ms) },
                };
                Trouble::Tablespace { place: cut(place), fails }
            }
            whole @ (Trouble::VolumeFull
            | Trouble::ArchiverStuck { .. }
            | Trouble::WraparoundNear { .. }
            | Trouble::LogVolumeFull) => whole.clone(),
        }
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Trouble::NotAnswering(Silence { since_ms, serves_nobody: true, .. }) => {
                write!(f, "its postmaster was stopped by a signal {since_ms} ms ago")
            }
            Trouble::NotAnswering(Silence { since_ms, .. }) => write!(f, "it has not answered for {since_ms} ms"),
            Trouble::DirectoryGone { since_ms } => {
                write!(f, "its data directory was moved away or removed while it runs, {since_ms} ms ago")
            }
            Trouble::VolumeStalled { since_ms } => {
                write!(f, "its volume stalls: a write beside the data has not ended for {since_ms} ms")
            }
            Trouble::VolumeReadOnly { error } => write!(f, "its volume takes no writes: {error}"),
            Trouble::VolumeFull => f.write_str("its volume is full"),
            Trouble::ProbeFailed { error } => write!(f, "the read-write probe fails: {error}"),
            Trouble::Travels { cause } => write!(f, "{cause}; a standby has the same trouble, so it is not moved"),
            Trouble::ArchiverStuck { waiting, seconds } => {
                write!(f, "its archiver is stuck: {waiting} files wait, the oldest for {seconds} s")
            }
            Trouble::WraparoundNear { age } => write!(
                f,
                "wraparound is near: its oldest row is {age} transactions old, and at 2147483648 it takes no writes; VACUUM it"
            ),
            Trouble::LogVolumeFull => f.write_str("the volume of its log is full"),
            Trouble::Tablespace { place, fails: Fails::Full } => {
                write!(f, "the volume of its tablespace in {place} is full")
            }
            Trouble::Tablespace { place, fails: Fails::ReadOnly { error } } => {
                write!(f, "the volume of its tablespace in {place} takes no writes: {error}")
            }
            Trouble::Tablespace { place, fails: Fails::Stalled { since_ms } } => write!(
                f,
                "the volume of its tablespace in {place} stalls: a write there has not ended for {since_ms} ms"
            ),
        }
    }
}
