//! What a database's server says of the files that people change: its settings and its access lines.
//!
//! Not here: reading them (`engine`).

use serde::{Deserialize, Serialize};

/// What was found when they were read last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// The first error, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<FileFault>,
    /// What the next start changes, at most [`PENDING_SHOWN`]: parameters by their names, and PostgreSQL itself, in words, where
    /// other programs are installed by now than run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending_restart: Vec<String>,
    /// Of these, what a standby must have at least as high as its primary, and becomes lower: the primary goes first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lowered: Vec<String>,
    /// The operator's parameters of regent's file that something else overrides, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overridden: Vec<String>,
}

/// So many names are told: a heartbeat has little room.
pub const PENDING_SHOWN: usize = 8;

impl Files {
    /// Nothing waits for a start any more. Whether anything did.
    pub fn forget_waiting(&mut self) -> bool {
        let waited = !self.pending_restart.is_empty();
        self.pending_restart.clear();
        self.lowered.clear();
        waited
    }

    /// Nothing is to be said.
    pub fn is_quiet(&self) -> bool {
        *self == Files::default()
    }
}

/// A line that PostgreSQL does not take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFault {
    /// Its whole path, or its end.
    pub file: String,
    /// Counted from 1; 0: not known.
    #[serde(default)]
    pub line: u32,
    /// PostgreSQL's own words.
    pub what: String,
    /// How many more there are.
    #[serde(default)]
    pub more: u32,
}

/// No path and no message is told beyond this, in bytes.
const LONGEST: usize = 160;

impl FileFault {
    /// Cut to what a heartbeat has room for: of a path its end tells most, of a message its beginning.
    pub fn new(file: &str, line: u32, what: &str, more: u32) -> Self {
        let cut = file.char_indices().map(|(at, _)| at).find(|at| file.len() - at <= LONGEST).unwrap_or(file.len());
        let end = what.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= LONGEST).last();
        FileFault { file: file[cut..].to_owned(), line, what: what[..end.unwrap_or_default()].to_owned(), more }
    }
}

impl std::fmt::Display for FileFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, " line {}", self.line)?;
        }
        write!(f, ": {}", self.what)?;
        match self.more {
            0 => Ok(()),
            more => write!(f, " (and {more} more)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_one_line_of_bounded_length() {
        let fault = FileFault::new("/srv/pg/postgresql.conf", 3, "syntax error", 0);
        assert_eq!(fault.to_string(), "/srv/pg/postgresql.conf line 3: syntax error");
        let long = FileFault::new(&"ä/".repeat(400), 0, &"ö".repeat(400), 2);
        assert!(long.file.len() <= LONGEST && long.what.len() <= LONGEST && long.file.ends_with('/'));
        assert!(long.to_string().ends_with("(and 2 more)"));
    }
}
