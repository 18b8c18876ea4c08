//! `regent leash`: ends one run of an agent at its deadline. Started by the runner, before the agent; no word for people.

use super::output;
use crate::action::confinement::Confinement;
use crate::action::leash::{self, LeashOptions};
use crate::types::Instant;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Arguments {
    /// The run's cgroup
    #[arg(long, required_unless_present = "word")]
    cgroup: Option<PathBuf>,
    /// The word in the environment of the run's processes, where it has no cgroup
    #[arg(long, conflicts_with = "cgroup")]
    word: Option<String>,
    /// The deadline, in nanoseconds of CLOCK_BOOTTIME
    #[arg(long)]
    until: u64,
}

pub fn run(arguments: Arguments) -> ExitCode {
    let confinement = match (arguments.cgroup, arguments.word) {
        (Some(path), _) => Confinement::Cgroup(path),
        (None, Some(word)) => Confinement::Word(word),
        (None, None) => {
            output::complain("leash takes --cgroup DIR or --word WORD, and --until NANOSECONDS");
            return ExitCode::from(2);
        }
    };
    leash::run(&LeashOptions { confinement, until: Instant(arguments.until) })
}
