//! What a database lacks to serve as primary from its host: each kind once, with the sentence and the cure for people.
//!
//! It rides along in heartbeats, so every text in it is short. Not here: how it is found (`engine/postgresql/fitness/`),
//! which kinds bar a candidate by default (`config/bars.rs`), and what follows (`plan/objection.rs`).

use super::{Quoted, Size};
use serde::{Deserialize, Serialize};
use std::fmt;

/// No text of a lack has more bytes.
pub const LONGEST: usize = 120;

/// One thing that is amiss here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unfit {
    /// Pages of this database did not match their checksums when they were read here.
    Checksums { database: String, failures: u64 },
    /// Collations that something uses have another version here than on the primary, or, where that has not said any, than
    /// the one that was recorded. Each in words.
    Collations { which: String },
    /// The programs in `bin_dir` are of another major version than the data; zero: there are none that run.
    Version { programs: u32, data: u32 },
    /// A volume of the database is full.
    Room { place: String, free: u64 },
    /// Libraries that the primary preloads and this server does not; whether their files are here.
    Libraries { names: String, installed: bool },
    /// The same of libraries that only watch.
    Monitoring { names: String, installed: bool },
    /// Extensions or libraries of functions whose files are not here, each with its database.
    Extensions { names: String },
    /// The shared memory that the primary has does not fit into this host: bytes.
    Memory { needed: u64, here: u64 },
    /// The primary has its shared memory in huge pages, and this host has too few of them: bytes.
    HugePages { needed: u64, here: u64 },
    /// The servers are of different minor versions: `server_version_num`.
    MinorVersion { here: u32, primary: u32 },
    /// WAL could not be archived from here.
    Archive { why: String },
    /// The primary does not allow what a rewind or a copy asks for.
    Rejoin { why: String },
    /// Only the kind: the heartbeat had no room for more.
    Brief(Lack),
}

/// The kinds, by the words of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lack {
    Checksums,
    Collations,
    Version,
    Room,
    Libraries,
    Monitoring,
    Extensions,
    Memory,
    HugePages,
    MinorVersion,
    Archive,
    Rejoin,
}

impl Lack {
    /// Every kind.
    pub const ALL: [Lack; 12] = [
        Lack::Checksums,
        Lack::Collations,
        Lack::Version,
        Lack::Room,
        Lack::Libraries,
        Lack::Monitoring,
        Lack::Extensions,
        Lack::Memory,
        Lack::HugePages,
        Lack::MinorVersion,
        Lack::Archive,
        Lack::Rejoin,
    ];

    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Lack::Checksums => "checksums",
            Lack::Collations => "collations",
            Lack::Version => "version",
            Lack::Room => "room",
            Lack::Libraries => "libraries",
            Lack::Monitoring => "monitoring",
            Lack::Extensions => "extensions",
            Lack::Memory => "memory",
            Lack::HugePages => "huge_pages",
            Lack::MinorVersion => "minor_version",
            Lack::Archive => "archive",
            Lack::Rejoin => "rejoin",
        }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Unfit {
    /// Its kind.
    pub fn kind(&self) -> Lack {
        match self {
            Unfit::Checksums { .. } => Lack::Checksums,
            Unfit::Collations { .. } => Lack::Collations,
            Unfit::Version { .. } => Lack::Version,
            Unfit::Room { .. } => Lack::Room,
            Unfit::Libraries { .. } => Lack::Libraries,
            Unfit::Monitoring { .. } => Lack::Monitoring,
            Unfit::Extensions { .. } => Lack::Extensions,
            Unfit::Memory { .. } => Lack::Memory,
            Unfit::HugePages { .. } => Lack::HugePages,
            Unfit::MinorVersion { .. } => Lack::MinorVersion,
            Unfit::Archive { .. } => Lack::Archive,
            Unfit::Rejoin { .. } => Lack::Rejoin,
            Unfit::Brief(kind) => *kind,
        }
    }

    /// What to do about it.
    pub fn cure(&self) -> String {
        match self {
            Unfit::Checksums { .. } => {
                "look at its disk and its memory, then have it copied anew (`regent reinit`)".to_owned()
            }
            Unfit::Collations { .. } => {
                "bring its glibc or ICU to the primary's version; else indexes on text answer wrongly here until they are \
                 rebuilt"
                    .to_owned()
            }
            Unfit::Version { data, .. } => format!("name the programs of PostgreSQL {data} in bin_dir"),
            Unfit::Room { .. } => "make room there".to_owned(),
            Unfit::Libraries { installed, .. } | Unfit::Monitoring { installed, .. } => match installed {
                true => "set shared_preload_libraries here as on the primary, and restart this database".to_owned(),
                false => {
                    "install them here, set shared_preload_libraries as on the primary, and restart this database".to_owned()
                }
            },
            Unfit::Extensions { .. } => "install the packages that the primary has".to_owned(),
            Unfit::Memory { .. } => "give this host the primary's memory, or the primary less shared_buffers".to_owned(),
            Unfit::HugePages { needed, .. } => {
                format!("reserve {} of huge pages here (vm.nr_hugepages)", Size(*needed))
            }
            Unfit::MinorVersion { here, primary } if here < primary => {
                "update PostgreSQL here, and restart this database".to_owned()
            }
            Unfit::MinorVersion { .. } => "update PostgreSQL on the primary: move it here first".to_owned(),
            Unfit::Archive { .. } => {
                "put right what archive_command needs on this host, or archive_check if that is wrong".to_owned()
            }
            Unfit::Rejoin { .. } => {
                "a primary gives its role back within a minute what is regent's; what stays, give it as \
                 `docs/operations.md` lists (rights of a rewind)"
                    .to_owned()
            }
            Unfit::Brief(_) => "`regent status` on that host says what".to_owned(),
        }
    }

    /// The same with its kind alone.
    pub fn brief(&self) -> Unfit {
        Unfit::Brief(self.kind())
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unfit::Checksums { database, failures: 1 } => {
                write!(f, "a page of database {} failed its checksum here", Quoted(database))
            }
            Unfit::Checksums { database, failures } => {
                write!(f, "{failures} pages of database {} failed their checksums here", Quoted(database))
            }
            Unfit::Collations { which } => write!(f, "collations sort by another version here: {which}"),
            Unfit::Version { programs: 0, .. } => {
                f.write_str("no program postgres runs in its bin_dir, so it could not be started again")
            }
            Unfit::Version { programs, data } => write!(
                f,
                "its programs are of PostgreSQL {programs} and its data of {data}, so it could not be started again"
            ),
            Unfit::Room { place, free } => write!(f, "the volume of {place} has only {} left", Size(*free)),
            Unfit::Libraries { names, installed } | Unfit::Monitoring { names, installed } => {
                let is_here = if *installed { "" } else { ", which is not installed here" };
                write!(f, "the primary preloads {names}, and it does not{is_here}")
            }
            Unfit::Extensions { names } => write!(f, "files of extensions are missing here: {names}"),
            Unfit::Memory { needed, here } => write!(
                f,
                "the primary has {} of shared memory, and this host has {} for its database",
                Size(*needed),
                Size(*here)
            ),
            Unfit::HugePages { needed, here } => write!(
                f,
                "the primary has {} of shared memory in huge pages, and this host has {} of them",
                Size(*needed),
                Size(*here)
            ),
            Unfit::MinorVersion { here, primary } => {
                write!(f, "it runs PostgreSQL {}, and the primary {}", Number(*here), Number(*primary))
            }
            Unfit::Archive { why } => write!(f, "WAL could not be archived from here: {why}"),
            Unfit::Rejoin { why } => {
                write!(f, "the primary does not allow what coming back to it needs: {why}")
            }
            Unfit::Brief(kind) => write!(f, "it lacks something that a primary needs ({kind})"),
        }
    }
}

/// `server_version_num` as people write it: 150003 is 15.3.
struct Number(u32);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 / 10_000, self.0 % 10_000)
    }
}

/// A text that is short enough to ride along.
pub fn shortened(text: &str) -> String {
    let text = text.trim();
    if text.len() <= LONGEST {
        return text.to_owned();
    }
    let mut end = LONGEST - '…'.len_utf8();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", text[..end].trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each kind, with the longest texts.
    fn all() -> Vec<Unfit> {
        let text = || shortened(&"é".repeat(500));
        vec![
            Unfit::Checksums { database: text(), failures: u64::MAX },
            Unfit::Collations { which: text() },
            Unfit::Version { programs: 17, data: 15 },
            Unfit::Room { place: text(), free: u64::MAX },
            Unfit::Libraries { names: text(), installed: false },
            Unfit::Monitoring { names: text(), installed: true },
            Unfit::Extensions { names: text() },
            Unfit::Memory { needed: u64::MAX, here: 1 },
            Unfit::HugePages { needed: 1 << 30, here: 0 },
            Unfit::MinorVersion { here: 150_003, primary: 150_012 },
            Unfit::Archive { why: text() },
            Unfit::Rejoin { why: text() },
        ]
    }

    #[test]
    fn every_kind_has_a_word_a_sentence_a_cure_and_a_short_form() {
        let kinds: Vec<Lack> = all().iter().map(Unfit::kind).collect();
        assert_eq!(kinds, Lack::ALL);
        for unfit in all() {
            let written = serde_json::to_string(&unfit).expect("numbers and words");
            assert!(written.len() < LONGEST + 80, "{written}");
            assert_eq!(serde_json::from_str::<Unfit>(&written).expect("read"), unfit);
            assert_eq!(serde_json::to_value(unfit.kind()).expect("a word"), unfit.kind().word());
            assert_eq!(unfit.brief().kind(), unfit.kind());
            assert!(serde_json::to_string(&unfit.brief()).expect("a word").len() < 30);
            assert!(!unfit.to_string().is_empty() && !unfit.cure().is_empty());
        }
    }

    #[test]
    fn texts_are_cut_where_a_character_ends() {
        assert_eq!(shortened(" postgis "), "postgis");
        let cut = shortened(&"é".repeat(500));
        assert!(cut.len() <= LONGEST && cut.ends_with("é…"), "{cut}");
    }

    #[test]
    fn a_version_is_written_as_people_write_it() {
        let unfit = Unfit::MinorVersion { here: 150_003, primary: 150_012 };
        assert_eq!(unfit.to_string(), "it runs PostgreSQL 15.3, and the primary 15.12");
        assert_eq!(unfit.cure(), "update PostgreSQL here, and restart this database");
        let other = Unfit::MinorVersion { here: 150_012, primary: 150_003 };
        assert!(other.cure().contains("on the primary"));
    }
}
