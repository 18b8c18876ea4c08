//! The command line: one file a subcommand. Each asks the local daemon over its admin socket and renders the answer;
//! none decides anything about the cluster.
//!
//! `docs/cli.md` documents the verbs, their JSON and their exit codes.

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

mod cert;
mod config;
mod confirm;
mod copies;
mod demo;
mod disk;
mod exit;
mod explain;
mod failover;
mod fence;
mod guard;
mod health;
mod history;
mod leash;
mod locate;
mod lost;
mod maintenance;
mod output;
mod pause;
mod reload;
mod render;
mod restart;
mod run;
mod status;
mod switchover;
mod verb;

pub use exit::Exit;

/// Keeps exactly one writable primary per database service.
#[derive(Parser)]
#[command(name = "regent", version, about, after_help = exit::HELP, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// What every subcommand understands.
#[derive(clap::Args, Clone)]
pub struct Common {
    /// The configuration file [default: $REGENT_CONFIG, or /etc/regent/regent.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The daemon's admin socket [default: admin.sock in the configured run_dir]
    #[arg(long, global = true, value_name = "SOCKET")]
    socket: Option<PathBuf>,
    /// Print JSON for programs instead of text for people
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon of this host
    Run,
    /// Check a configuration file: all errors at once, every derived bound, every timing rule
    #[command(subcommand)]
    Config(config::Command),
    /// Make or show the shared disk
    #[command(subcommand)]
    Disk(disk::Command),
    /// Make the cluster's certificate authority and the certificates of its nodes
    #[command(subcommand)]
    Cert(cert::Command),
    /// Stop a database when its lease ends, whatever became of the daemon (started by regent itself)
    Guard(guard::Arguments),
    /// End one run of a fence agent at its deadline, whatever became of the daemon (started by regent itself)
    #[command(hide = true)]
    Leash(leash::Arguments),
    /// Show who is primary, every node, what each sees of the others, and whether a failover would succeed now
    Status(status::Arguments),
    /// Move the primary to another node in order, losing nothing
    Switchover(switchover::Arguments),
    /// Move the primary by force: the present one is fenced
    Failover(failover::Arguments),
    /// Throw a node's data away and copy it anew from the primary
    Reinit(copies::Reinit),
    /// Restart a database in place, or all of a service one after another
    Restart(restart::Arguments),
    /// Let the copy on a node win: a new epoch on a new timeline, and every other node is copied anew
    Accept(copies::Accept),
    /// Let regent neither start, stop, copy, fence nor move anything of a service until `resume`, or for a time
    Pause(pause::Pause),
    /// End a pause
    Resume(pause::Resume),
    /// Leave a node alone that somebody works on: it takes nothing over, and nothing of it is started
    Maintenance(maintenance::Arguments),
    /// Let the daemon of this host read its file again: parameters, access lines and password files count at once
    Reload(reload::Arguments),
    /// Fence a node now, or vouch for a fence that no device could confirm
    Fence(fence::Arguments),
    /// Undo the fences of a node and let it return
    Unfence(fence::UnfenceArguments),
    /// List the incidents: every switchover, failover and fence
    History,
    /// Explain an incident: evidence, votes, agent output, positions, and where the time went
    Explain(explain::Arguments),
    /// List the transactions that an incident may have lost, from the WAL that the former primary kept (root, on its host)
    Lost(lost::Arguments),
    /// Show a failover and a switchover on this host: three nodes with real PostgreSQL on loopback addresses (root)
    Demo(demo::Arguments),
}

/// Runs the command line of this process and returns its exit code.
pub fn main() -> ExitCode {
    let Arguments { common, command } = Arguments::parse();
    // A daemon ends also where nobody reads why.
    let complain: fn(&str) = match command {
        Command::Run => |error| crate::last_words::say(&format!("regent: {error}")),
        _ => output::complain,
    };
    let ended = match command {
        Command::Run => run::run(&common),
        Command::Config(command) => config::run(&common, &command),
        Command::Disk(command) => disk::run(&common, command),
        Command::Cert(command) => cert::run(&common, command),
        Command::Guard(arguments) => return guard::run(&common, &arguments),
        Command::Leash(arguments) => return leash::run(arguments),
        Command::Status(arguments) => status::run(&common, &arguments),
        Command::Switchover(arguments) => switchover::run(&common, arguments),
        Command::Failover(arguments) => failover::run(&common, arguments),
        Command::Reinit(arguments) => copies::reinit(&common, arguments),
        Command::Restart(arguments) => restart::run(&common, arguments),
        Command::Accept(arguments) => copies::accept(&common, arguments),
        Command::Pause(arguments) => pause::pause(&common, arguments),
        Command::Resume(arguments) => pause::resume(&common, arguments),
        Command::Maintenance(arguments) => maintenance::run(&common, arguments),
        Command::Reload(arguments) => reload::run(&common, &arguments),
        Command::Fence(arguments) => fence::run(&common, arguments),
        Command::Unfence(arguments) => fence::unfence(&common, arguments),
        Command::History => history::run(&common),
        Command::Explain(arguments) => explain::run(&common, &arguments),
        Command::Lost(arguments) => lost::run(&common, &arguments),
        Command::Demo(arguments) => demo::run(&arguments),
    };
    match ended {
        Ok(exit) => exit.into(),
        Err(error) => {
            complain(&format!("{error:#}"));
            exit::of_error(&error).into()
        }
    }
}
